use super::*;
use crate::dialect::envelope::Private;
use crate::receipt::{Asker, Expected, Key};
use crate::session::chunk::NO_CHUNK;

#[derive(Default)]
struct Count(u32);

impl Progress for Count {
    fn delivered(&mut self, _: &Chunks, _: u32, start: u32, end: u32) {
        self.0 += end - start;
    }
}

const BOUND: Bound = Bound { events: 4, bytes: 100 };

struct Fixture {
    chunks: Chunks,
    outbox: Outbox,
    growing: [u32; 3],
    sent: Vec<u8>,
    delivered: Count,
}

impl Fixture {
    fn new() -> Self {
        Self {
            chunks: Chunks::default(),
            outbox: Outbox::new(),
            growing: [NO_CHUNK; 3],
            sent: Vec::new(),
            delivered: Count::default(),
        }
    }

    /// Pushes one frame `topic:payload;` of a topic.
    fn push(&mut self, topic: u32, payload: &str, droppable: bool, gap: u32) {
        while let Some(forgotten) = self.chunks.next_forgotten() {
            self.growing[forgotten.owner.0 as usize] = NO_CHUNK;
        }
        let frame = format!("{topic}{payload};");
        let appended = self.chunks.append(self.growing[topic as usize], (topic, 0), 0, |bytes, ends| {
            bytes.extend_from_slice(frame.as_bytes());
            ends.push(bytes.len() as u32);
        });
        self.growing[topic as usize] = appended.chunk;
        let span = Span {
            chunk: appended.chunk,
            start: appended.start,
            end: appended.end,
            topic,
            gap: Gap::dropped(gap),
            droppable,
        };
        if self.outbox.push(span, frame.len(), &mut self.chunks) {
            self.chunks.retain(appended.chunk, 1);
        }
    }

    /// Writes at most `limit` bytes as a flush would.
    fn write(&mut self, limit: usize) {
        if let Some(first) = self.outbox.first() {
            let n = first.len().min(limit);
            self.sent.extend_from_slice(&first[..n]);
            self.outbox.consume_first(n);
            return;
        }
        if let Some(span) = self.outbox.lone_span(&self.chunks) {
            let bytes = self.chunks.bytes(span);
            let n = bytes.len().min(limit);
            self.sent.extend_from_slice(&bytes[..n]);
            self.outbox.consume_lone(n, 0, &mut self.chunks, &mut self.delivered);
            return;
        }
        let (mut out, mut marks) = (Vec::new(), Vec::new());
        let gap = |out: &mut Vec<u8>, topic: u32, gap: Gap| {
            let Gap { dropped, conflated } = gap;
            let conflated = if conflated > 0 { format!(" ({conflated})") } else { String::new() };
            out.extend_from_slice(format!("<{topic} lost {dropped}{conflated}>").as_bytes());
        };
        self.outbox.gather(&self.chunks, Private::Nothing, 1 << 20, gap, &mut out, &mut marks);
        let n = out.len().min(limit);
        self.sent.extend_from_slice(&out[..n]);
        self.outbox.consume((&out, Private::Nothing), &marks, n, &mut self.chunks, &mut self.delivered);
    }

    fn drain(&mut self, limit: usize) -> String {
        while !self.outbox.is_empty() {
            self.write(limit);
        }
        assert_eq!((self.outbox.events(), self.outbox.bytes()), (0, 0));
        assert_eq!(self.outbox.private_bytes(), 0);
        assert!(self.chunks.is_empty(), "nothing is pinned");
        String::from_utf8(std::mem::take(&mut self.sent)).unwrap()
    }
}

#[test]
fn frames_replies_and_control_come_out_in_order_however_writes_are_cut() {
    for limit in 1..40 {
        let mut f = Fixture::new();
        f.push(0, "a", false, 0);
        f.push(0, "b", false, 0);
        f.push(1, "c", true, 7);
        f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
        f.push(0, "d", false, 0);
        assert_eq!(f.outbox.events(), 4);
        assert_eq!(f.drain(limit), "0a;0b;<1 lost 7>1c;[ack]0d;", "limit {limit}");
        assert_eq!(f.delivered.0, 4);
    }
}

#[test]
fn control_goes_first_but_never_into_a_frame() {
    let mut f = Fixture::new();
    f.push(0, "abc", false, 0);
    f.push(0, "def", false, 0);
    f.write(2);
    f.outbox.push_first(b"!ping!");
    f.write(1);
    f.outbox.push_first(b"!pong!");
    assert_eq!(f.drain(3), "0abc;!ping!!pong!0def;");
}

#[test]
fn only_a_blocked_outbox_is_bounded_and_an_empty_one_takes_any_event() {
    let mut f = Fixture::new();
    assert!(f.outbox.has_room(1000, 1 << 30, BOUND));
    f.outbox.set_blocked(true);
    assert!(f.outbox.has_room(1, 1 << 30, BOUND));
    assert!(!f.outbox.has_room(2, 101, BOUND));
    assert!(f.outbox.has_room(4, 100, BOUND));
    f.push(0, "a", false, 0);
    assert!(!f.outbox.has_room(4, 10, BOUND));
    assert!(!f.outbox.has_room(1, 98, BOUND));
    f.outbox.set_blocked(false);
    assert_eq!(f.drain(100), "0a;");
}

#[test]
fn dropping_the_newest_takes_what_came_last_and_the_subscription_keeps_the_count() {
    let mut f = Fixture::new();
    for (topic, payload) in [(1, "a"), (1, "b"), (0, "c"), (1, "d"), (0, "e"), (0, "x")] {
        f.push(topic, payload, false, 0);
    }
    let dropped = |topic, gap| Some(Dropped { topic, pending_gap: Gap::dropped(gap) });
    let of_one = |topic| topic == 1;
    assert_eq!(f.outbox.drop_newest(|_| true, &mut f.chunks), dropped(0, 1), "`x`, and not before `e`");
    assert_eq!(f.outbox.drop_newest(of_one, &mut f.chunks), dropped(1, 1), "`d`");
    f.push(1, "f", false, 1);
    assert_eq!(f.outbox.drop_newest(of_one, &mut f.chunks), dropped(1, 2), "`f`, and what it told of");
    assert_eq!(f.outbox.drop_newest(of_one, &mut f.chunks), dropped(1, 1), "`b`");
    assert_eq!(f.outbox.events(), 3);
    let mut g = Fixture::new();
    std::mem::swap(&mut f, &mut g);
    assert_eq!(g.drain(4), "1a;0c;0e;");
    assert_eq!(g.outbox.drop_newest(|_| true, &mut g.chunks), None);
    assert!(g.outbox.is_empty() && g.chunks.is_empty());
}

#[test]
fn dropping_takes_the_oldest_that_may_go_and_counts_it_where_it_was() {
    let mut f = Fixture::new();
    f.push(0, "a", false, 0);
    f.push(1, "b", true, 0);
    f.push(1, "c", true, 0);
    f.push(0, "d", false, 0);
    f.push(1, "e", true, 0);
    let dropped = |topic, gap| Some(Dropped { topic, pending_gap: Gap::dropped(gap) });
    assert_eq!(f.outbox.drop_oldest(&mut f.chunks), dropped(1, 0));
    assert_eq!(f.outbox.drop_oldest(&mut f.chunks), dropped(1, 0), "the span with `e` carries it");
    assert_eq!(f.outbox.events(), 3);
    let mut g = Fixture::new();
    std::mem::swap(&mut f, &mut g);
    assert_eq!(g.drain(4), "0a;0d;<1 lost 2>1e;");
    g.push(1, "x", true, 0);
    assert_eq!(g.outbox.drop_oldest(&mut g.chunks), dropped(1, 1), "nothing left to carry it");
    assert_eq!(g.outbox.drop_oldest(&mut g.chunks), None);
    assert!(g.outbox.is_empty() && g.chunks.is_empty());
}

#[test]
fn the_older_event_of_a_key_goes_wherever_it_stands() {
    // Each letter is an event of topic 1 with that key; `|` begins another span.
    for (queued, key, expected) in [
        ("abc", 'a', "<1 lost 1 (1)>1b;1c;"),
        ("abc", 'b', "1a;<1 lost 1 (1)>1c;"),
        ("abc", 'c', "1a;1b;"),
        ("aab", 'a', "<1 lost 1 (1)>1a;1b;"),
        ("a|b|c", 'a', "0-;<1 lost 1 (1)>1b;0-;1c;"),
        ("a|bcd|e", 'c', "1a;0-;1b;<1 lost 1 (1)>1d;0-;1e;"),
        ("a|bc|d", 'c', "1a;0-;1b;0-;<1 lost 1 (1)>1d;"),
        ("a|b", 'b', "1a;0-;"),
    ] {
        let mut f = Fixture::new();
        for c in queued.chars() {
            if c == '|' {
                f.push(0, "-", false, 0);
                continue;
            }
            f.push(1, &c.to_string(), true, 0);
            let tail = f.outbox.tail;
            f.chunks.set_keys(tail.chunk, tail.end - 1, [c as u64].into_iter());
        }
        assert_eq!(f.outbox.drop_key(0, u64::from(u32::from(key)), &mut f.chunks), None);
        assert_eq!(f.outbox.drop_key(1, 7, &mut f.chunks), None);
        let dropped = f.outbox.drop_key(1, u64::from(u32::from(key)), &mut f.chunks).unwrap();
        let is_last = queued.ends_with(key);
        assert_eq!(dropped.pending_gap.is_none(), !is_last, "{queued} {key}");
        assert_eq!(f.drain(3), expected, "{queued} {key}");
    }
}

#[test]
fn a_frame_partly_written_is_never_dropped() {
    let mut f = Fixture::new();
    f.push(1, "abc", true, 0);
    f.push(1, "def", true, 0);
    f.write(2);
    assert_eq!(f.outbox.drop_oldest(&mut f.chunks), Some(Dropped { topic: 1, pending_gap: Gap::dropped(1) }));
    assert_eq!(f.outbox.drop_oldest(&mut f.chunks), None);
    assert_eq!(f.drain(100), "1abc;");
}

#[test]
fn events_of_a_topic_that_was_left_still_come_with_their_gap() {
    let mut f = Fixture::new();
    for (topic, payload) in [(1, "a"), (1, "b"), (0, "c"), (1, "d"), (1, "e")] {
        f.push(topic, payload, true, 0);
    }
    assert!(f.outbox.drop_oldest(&mut f.chunks).is_some());
    f.outbox.settle_topic(1, |out, gap| out.extend_from_slice(format!("<left {}>", gap.dropped).as_bytes()));
    assert_eq!(f.outbox.drop_oldest(&mut f.chunks), Some(Dropped { topic: 0, pending_gap: Gap::dropped(1) }));
    assert_eq!(f.outbox.drop_oldest(&mut f.chunks), None);
    f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
    assert_eq!(f.drain(100), "<left 1>1b;1d;1e;[ack]");
}

#[test]
fn discarding_keeps_only_what_was_begun() {
    let mut f = Fixture::new();
    f.push(0, "abc", false, 0);
    f.push(1, "d", false, 0);
    f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
    f.write(2);
    assert_eq!(f.outbox.discard(Fate::Gone, &mut f.chunks), 1);
    f.outbox.push_first(b"close");
    assert_eq!(f.drain(100), "0abc;close");
}

#[test]
fn replies_before_the_first_event_can_be_kept() {
    let mut f = Fixture::new();
    f.push(0, "abc", false, 0);
    f.write(2);
    f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
    f.outbox.push_reply(b"[pong]".to_vec(), &mut f.chunks);
    f.push(0, "d", false, 0);
    f.outbox.push_reply(b"[left]".to_vec(), &mut f.chunks);
    f.push(1, "e", false, 3);
    assert_eq!(f.outbox.discard_from_event(Fate::Gone, &mut f.chunks), 2);
    f.outbox.push_reply(b"close".to_vec(), &mut f.chunks);
    assert_eq!(f.drain(4), "0abc;[ack][pong]close");
    f.push(0, "a", false, 0);
    assert_eq!((f.outbox.discard_from_event(Fate::Gone, &mut f.chunks), &*f.drain(4)), (1, ""));
}

#[test]
fn a_large_reply_goes_alone_and_counts_until_its_last_byte() {
    let mut f = Fixture::new();
    let large = vec![b'x'; LARGE_REPLY + 1];
    f.push(0, "a", false, 0);
    f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
    f.outbox.push_reply(large.clone(), &mut f.chunks);
    f.push(0, "b", false, 0);
    f.write(1 << 20);
    assert_eq!(f.sent, b"0a;[ack]");
    assert_eq!(f.outbox.reply_bytes(), large.len() + REPLY_COST);
    f.write(10);
    assert_eq!(f.outbox.reply_bytes(), large.len() - 10);
    f.outbox.push_first(b"!ping!");
    f.write(large.len() - 11);
    assert_eq!(f.outbox.reply_bytes(), 1);
    f.write(1);
    assert_eq!(f.outbox.reply_bytes(), 0);
    f.sent.clear();
    assert_eq!(f.drain(100), "!ping!0b;");
}

#[test]
fn a_blocked_client_pins_no_more_than_it_is_owed() {
    let mut f = Fixture::new();
    f.outbox.set_blocked(true);
    f.push(0, "small", false, 0);
    let pinned = f.growing[0];
    f.chunks.append(pinned, (0, 0), 0, |bytes, ends| {
        bytes.resize(1000, b'x');
        ends.push(1000);
    });
    f.chunks.disown(pinned);
    assert!(f.chunks.held() >= 1000);
    f.outbox.unpin(pinned, &mut f.chunks);
    assert_eq!(f.chunks.held(), 7);
    assert_eq!(f.drain(100), "0small;");
}

#[test]
fn receipts_are_told_what_became_of_their_events() {
    let asker = Asker { shard: 0, key: Key { number: 0, generation: 0 } };
    for limit in 1..3 {
        let mut f = Fixture::new();
        f.outbox.set_blocked(true);
        let receipts: Vec<_> = (0..5).map(|n| Receipt::new(asker, n)).collect();
        for (payload, receipt) in ["aaa", "bbb", "ccc", "ddd", "eee"].iter().zip(&receipts) {
            f.push(1, payload, true, 0);
            let tail = f.outbox.tail;
            let expected = Expected { place: 0, receipt: Arc::clone(receipt) };
            f.chunks.set_receipts(tail.chunk, tail.end - 1, &[expected]);
            receipt.add_matched(1);
            if *payload == "ccc" {
                // Behind a reply it is a span of its own, copied out of the chunk when that grows no more.
                f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
            }
        }
        let growing = f.growing[1];
        f.chunks.disown(growing);
        f.outbox.unpin(growing, &mut f.chunks);
        f.outbox.drop_oldest(&mut f.chunks);
        let reached = |n: usize| {
            let reach = receipts[n].reach();
            [reach.written, reach.queued, reach.left_out, reach.closed]
        };
        assert_eq!((reached(0), reached(1)), ([0, 0, 1, 0], [0, 1, 0, 0]));
        f.outbox.set_blocked(false);
        while !f.sent.ends_with(b"1cc") && !f.sent.ends_with(b"1ccc;") {
            f.write(limit.min(1 + f.sent.len() % 2));
        }
        let is_whole = f.sent.ends_with(b";");
        let of_third = if is_whole { [1, 0, 0, 0] } else { [0, 1, 0, 0] };
        assert_eq!((reached(1), reached(2)), ([1, 0, 0, 0], of_third), "limit {limit}");
        f.outbox.discard(Fate::Closed, &mut f.chunks);
        assert_eq!((reached(3), reached(4)), ([0, 0, 0, 1], [0, 0, 0, 1]));
        assert_eq!(reached(2), if is_whole { of_third } else { [0, 0, 0, 1] }, "nobody waits for its rest");
        f.drain(limit);
    }
}

#[test]
fn an_outbox_is_small() {
    assert!(size_of::<Outbox>() <= 72, "{} bytes", size_of::<Outbox>());
}
