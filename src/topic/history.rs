//! What a topic keeps of its past: the newest rounds, bounded by events, bytes and age.
//!
//! A round is kept whole for as long as any of its events is: events taken in together share their memory. The
//! bound on events is exact all the same.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::clock::nanos;
use crate::config::HistoryLimits;
use crate::event::{Round, RoundRef};
use crate::slack::is_loose;
use crate::topic::kept::Kept;

/// For how long, in nanoseconds, rounds have their frames with them after they came, and after somebody last read of the
/// history: thousands who come back together get the same ones, and nobody pays for them afterwards. Kept for good they
/// were 20 MB of 44 where 39,000 events of 160 bytes had been read once in three envelopes, and a budget of bytes cannot tell
/// how many envelopes somebody will ask for.
const FRAMES_KEPT: u64 = 5_000_000_000;

/// What joined rounds count for at most, in bytes. Like others they go as a whole where the bound on bytes is exceeded …
const JOINED: usize = 32 << 10;
/// … so they are at most this part of it.
const PARTS: usize = 64;

/// The newest rounds of a topic.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    /// Rounds that nobody has come for lately, joined …
    old: VecDeque<Kept>,
    /// … and those after them, as they came.
    new: VecDeque<Kept>,
    events: usize,
    bytes: usize,
    /// Rounds that end before this offset have no frames with them …
    framed_from: u64,
    /// … and the others keep theirs, because somebody has read at this time, in nanoseconds.
    read_at: u64,
}

/// Events of one round that are wanted.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The round.
    pub round: RoundRef,
    /// The offset of the first of them.
    pub offset: u64,
    /// Which events of the round.
    pub events: Range<usize>,
}

impl Piece {
    /// One after the offset of the last of them.
    pub fn end(&self) -> u64 {
        self.offset + self.events.len() as u64
    }
}

impl History {
    /// Nothing kept.
    pub fn new(limits: HistoryLimits) -> Self {
        Self {
            limits,
            old: VecDeque::new(),
            new: VecDeque::new(),
            events: 0,
            bytes: 0,
            framed_from: 0,
            read_at: 0,
        }
    }

    /// Events kept.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes that they count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the oldest event kept.
    pub fn oldest(&self) -> Option<u64> {
        self.old.front().or_else(|| self.new.front()).map(|kept| kept.offset + kept.skipped as u64)
    }

    /// What is kept, from the round on that has an event after an offset.
    fn after(&self, offset: u64) -> impl Iterator<Item = &Kept> {
        let is_before = |kept: &Kept| kept.end() <= offset.saturating_add(1);
        let of = |queue: &VecDeque<Kept>| queue.partition_point(is_before);
        self.old.range(of(&self.old)..).chain(self.new.range(of(&self.new)..))
    }

    /// Keeps a round whose first event has this offset. Answers by how many bytes the history grew or shrank.
    pub fn push(&mut self, round: RoundRef, offset: u64, now: u64) -> isize {
        let before = self.bytes;
        let kept = Kept::new(round, offset);
        self.events += kept.events();
        self.bytes += kept.bytes;
        self.new.push_back(kept);
        self.trim(now);
        self.bytes.wrapping_sub(before).cast_signed()
    }

    /// Lets go of what is above the limits. Answers how many bytes that were.
    pub fn trim(&mut self, now: u64) -> usize {
        let before = self.bytes;
        let age = nanos(self.limits.age);
        while let Some(front) = self.old.front_mut().or_else(|| self.new.front_mut()) {
            let too_old = now.checked_sub(age).map_or(0, |time| front.until(time));
            let too_many = self.events.saturating_sub(self.limits.events);
            let gone = too_old.max(too_many);
            if gone >= front.events() || self.bytes > self.limits.bytes {
                self.pop();
                continue;
            }
            front.skipped += gone;
            self.events -= gone;
            break;
        }
        before.saturating_sub(self.bytes)
    }

    /// Lets go of the oldest round. Answers how many bytes that were.
    pub fn pop(&mut self) -> usize {
        let queue = if self.old.is_empty() { &mut self.new } else { &mut self.old };
        let Some(front) = queue.pop_front() else { return 0 };
        tighten(queue);
        self.events -= front.events();
        self.bytes -= front.bytes;
        front.bytes
    }

    /// Where nobody has come for them lately, takes the frames away that rounds have with them, and joins the rounds; of at
    /// most so many, which is counted down. Answers how many bytes of frames went, and how many less the history counts for.
    pub fn settle(&mut self, now: u64, most: &mut usize) -> (usize, usize) {
        if now < self.read_at.saturating_add(FRAMES_KEPT) {
            return (0, 0);
        }
        let (before, mut frames) = (self.bytes, 0);
        let framed = self.old.partition_point(|kept| kept.end() <= self.framed_from);
        for kept in self.old.range(framed..).take(*most) {
            frames += kept.round.forget_frames();
            self.framed_from = kept.end();
            *most -= 1;
        }
        let is_old = |kept: &&Kept| kept.round.ingress.saturating_add(FRAMES_KEPT) <= now;
        while *most > 0
            && self.new.front().filter(is_old).is_some()
            && let Some(kept) = self.new.pop_front()
        {
            frames += kept.round.forget_frames();
            self.framed_from = kept.end();
            *most -= 1;
            self.join(kept);
        }
        (frames, before - self.bytes)
    }

    /// Puts a round behind the old ones, joined to the last of them if it can be.
    fn join(&mut self, kept: Kept) {
        self.bytes -= kept.bytes;
        let most = JOINED.min(self.limits.bytes / PARTS);
        let rest = match self.old.back_mut() {
            Some(last) => {
                self.bytes -= last.bytes;
                let rest = last.join(kept, most);
                self.bytes += last.bytes;
                rest.inspect(|_| last.close())
            }
            None => Some(kept),
        };
        self.bytes += rest.as_ref().map_or(0, |kept| kept.bytes);
        self.old.extend(rest);
        tighten(&mut self.new);
    }

    /// Somebody is given rounds from this offset on, and may have their frames written.
    fn note_read(&mut self, from: u64, now: u64) {
        self.framed_from = self.framed_from.min(from);
        self.read_at = now;
    }

    /// Everything that is kept.
    pub fn all(&mut self, now: u64) -> Vec<Piece> {
        self.note_read(0, now);
        let piece = |kept: &Kept| Piece {
            round: RoundRef::clone(&kept.round),
            offset: kept.offset + kept.skipped as u64,
            events: kept.skipped..kept.round.events.len(),
        };
        self.after(0).map(piece).collect()
    }

    /// The rounds with an event after an offset that are of several topics, each with its offset.
    pub fn of_several(&self, after: u64) -> Vec<(RoundRef, u64)> {
        let of_several = self.after(after).filter(|kept| kept.round.several != 0);
        of_several.map(|kept| (RoundRef::clone(&kept.round), kept.offset)).collect()
    }

    /// The events after an offset, until they come to `bytes` of what was published: at least one, where there is
    /// one.
    pub fn read(&mut self, after: u64, bytes: usize, now: u64) -> Vec<Piece> {
        let (mut pieces, mut taken) = (Vec::new(), 0);
        for kept in self.after(after) {
            if taken >= bytes {
                break;
            }
            let first = kept.skipped.max(after.saturating_add(1).saturating_sub(kept.offset) as usize);
            let mut end = first;
            for event in kept.round.events.range(first..kept.round.events.len()) {
                if taken >= bytes {
                    break;
                }
                taken += event.data.len() + event.name.len() + event.key.len();
                // Events without data would never come to anything.
                taken += 64;
                end += 1;
            }
            let offset = kept.offset + first as u64;
            pieces.push(Piece { round: RoundRef::clone(&kept.round), offset, events: first..end });
        }
        if let Some(first) = pieces.first() {
            self.note_read(first.offset, now);
        }
        pieces
    }
}

/// A topic that was busy once does not hold the room for ever.
fn tighten(queue: &mut VecDeque<Kept>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    } else if is_loose(queue.capacity(), queue.len()) {
        queue.shrink_to(2 * queue.len());
    }
}

/// Of pieces of a history, the newest event of each key that is wanted, up to an offset, in their order. Events
/// without a key share the empty one.
pub fn newest_by_key(
    all: &[Piece],
    upto: u64,
    mut is_wanted: impl FnMut(&Round, &str) -> bool,
) -> Vec<Piece> {
    let mut newest: BTreeMap<&str, (u64, &Piece, usize)> = BTreeMap::new();
    for piece in all {
        let events = piece.round.events.range(piece.events.clone());
        for ((event, offset), place) in events.zip(piece.offset..).zip(piece.events.start..) {
            if offset <= upto && is_wanted(&piece.round, event.name) {
                newest.insert(event.key, (offset, piece, place));
            }
        }
    }
    let mut found: Vec<_> = newest.into_values().collect();
    found.sort_unstable_by_key(|(offset, ..)| *offset);
    let piece = |(offset, piece, place): (u64, &Piece, usize)| Piece {
        round: RoundRef::clone(&piece.round),
        offset,
        events: place..place + 1,
    };
    found.into_iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::envelope::Form;
    use crate::event::Draft;
    use crate::publish::wire::Publish;
    use crate::topic::fixtures::random;
    use std::sync::Arc;
    use std::time::Duration;

    fn round(events: usize, ingress: u64) -> RoundRef {
        let mut draft = Draft::default();
        for n in 0..events {
            let event = format!("e{n}");
            let publish = Publish { topics: "t", event: &event, key: "", data: "1", timestamp_ms: 1 };
            draft.events.push(&publish, 0);
        }
        (draft.ingress, draft.shared) = (ingress, true);
        draft.share()
    }

    fn history(events: usize, bytes: usize, seconds: u64) -> History {
        History::new(HistoryLimits { events, bytes, age: Duration::from_secs(seconds) })
    }

    fn offsets(history: &mut History, after: u64, bytes: usize) -> Vec<u64> {
        let pieces = history.read(after, bytes, 0);
        pieces.iter().flat_map(|piece| (piece.offset..).take(piece.events.len())).collect()
    }

    #[test]
    fn events_are_kept_to_the_exact_number() {
        let mut history = history(5, 1 << 20, 60);
        let mut offset = 1;
        for count in [3, 1, 4, 2, 7] {
            history.push(round(count, 0), offset, 0);
            offset += count as u64;
            let expected: Vec<u64> = ((offset - 1).saturating_sub(4).max(1)..offset).collect();
            assert_eq!(offsets(&mut history, 0, usize::MAX), expected);
            assert_eq!((history.events(), history.oldest()), (expected.len(), Some(expected[0])));
        }
    }

    #[test]
    fn bytes_and_age_bound_it_too_and_what_shrinks_is_told() {
        let mut history = history(1000, 3_000, 10);
        let mut held = 0;
        for n in 0..20_u64 {
            held += history.push(round(2, n * 1_000_000_000), 1 + 2 * n, n * 1_000_000_000);
            assert_eq!(held, history.bytes().cast_signed());
            assert!(history.bytes() <= 3_000);
        }
        assert!(history.events() > 2);
        held -= history.trim(29_500_000_000).cast_signed();
        assert_eq!((history.events(), held), (0, 0), "the last came at 19 s");
        assert_eq!(history.oldest(), None);
        assert_eq!(history.pop(), 0);
    }

    #[test]
    fn it_is_read_in_pieces_from_any_offset() {
        let mut history = history(100, 1 << 20, 60);
        history.push(round(3, 0), 1, 0);
        history.push(round(3, 0), 4, 0);
        for after in 0..=6 {
            let expected: Vec<u64> = (after + 1..=6).collect();
            assert_eq!(offsets(&mut history, after, usize::MAX), expected);
            let mut cursor = after;
            let mut seen = Vec::new();
            loop {
                let piece = offsets(&mut history, cursor, 1);
                assert!(piece.len() <= 1);
                let Some(last) = piece.last() else { break };
                cursor = *last;
                seen.extend(piece);
            }
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn old_rounds_are_joined_and_nobody_can_tell_but_by_what_they_take() {
        let mut random = random();
        let seconds = |seconds: u64| seconds * 1_000_000_000;
        let (mut most_joined, mut held) = (0, Vec::new());
        for _ in 0..50 {
            let limits = (random.usize(1..300), random.u64(1..60));
            let mut history = history(limits.0, 1 << 22, limits.1);
            // Offset, name and when it came of every event there was.
            let (mut all, mut now) = (Vec::new(), 0);
            for _ in 0..200 {
                now += seconds(random.u64(0..2));
                let (count, first) = (random.usize(1..4), all.len() as u64 + 1);
                let mut draft = Draft::default();
                for n in 0..count as u64 {
                    let (event, key) = (format!("e{}", first + n), if random.bool() { "k" } else { "" });
                    let publish =
                        Publish { topics: "t", event: &event, key, data: "1", timestamp_ms: first + n };
                    draft.events.push(&publish, 0);
                    all.push((first + n, event, now));
                }
                (draft.ingress, draft.several) = (now, u64::from(random.u8(..20) == 0));
                history.push(draft.share(), first, now);
                if random.bool() {
                    let (before, mut left) = (history.bytes(), random.usize(..20));
                    let (_, less) = history.settle(now, &mut left);
                    assert_eq!(before - history.bytes(), less);
                }
                history.trim(now);
                let kept = |(_, _, came): &&(u64, String, u64)| came + seconds(limits.1) > now;
                let mut expected: Vec<_> = all.iter().filter(kept).collect();
                expected.drain(..expected.len().saturating_sub(limits.0));
                assert_eq!(history.events(), expected.len());
                assert_eq!(history.oldest(), expected.first().map(|(offset, ..)| *offset));
                let after = random.u64(..first + 3);
                expected.retain(|(offset, ..)| *offset > after);
                // Reading keeps frames for a while, and with them rounds as they are.
                let read_at = if random.u8(..10) == 0 { now } else { 0 };
                let pieces = history.read(after, usize::MAX, read_at);
                let read: Vec<_> = pieces
                    .iter()
                    .flat_map(|piece| (piece.offset..).zip(piece.round.events.range(piece.events.clone())))
                    .map(|(offset, event)| (offset, event.name.to_owned(), event.timestamp_ms))
                    .collect();
                let expected: Vec<_> = expected.iter().map(|(n, name, _)| (*n, name.clone(), *n)).collect();
                assert_eq!(read, expected);
                most_joined =
                    pieces.iter().map(|piece| piece.events.len()).max().max(Some(most_joined)).unwrap();
                assert!(history.old.iter().all(|kept| kept.bytes <= JOINED));
                let counted = |queue: &VecDeque<Kept>| queue.iter().map(|kept| kept.bytes).sum::<usize>();
                assert_eq!(counted(&history.old) + counted(&history.new), history.bytes());
                if random.u8(..10) == 0 {
                    held = pieces; // Somebody is still at it: nothing of it may change.
                }
                let lens = |pieces: &[Piece]| pieces.iter().map(|p| p.round.events.len()).collect::<Vec<_>>();
                let before = lens(&held);
                history.settle(now, &mut random.usize(..3));
                assert_eq!(lens(&held), before);
            }
        }
        assert!(most_joined > 20, "{most_joined}");
        drop(held);
    }

    #[test]
    fn frames_stay_while_somebody_comes_for_them_and_go_afterwards() {
        let mut history = history(100, 1 << 20, 3600);
        let rounds: Vec<_> = (0..4).map(|n| round(2, n * FRAMES_KEPT)).collect();
        for (n, round) in rounds.iter().enumerate() {
            history.push(RoundRef::clone(round), 1 + 2 * n as u64, 0);
        }
        let form = Form { envelope: 0, values: None, deflated: false };
        let write = |piece: &Piece| drop(piece.round.frames(form, None, Arc::default));
        let framed = |history: &mut History, now, most| {
            let mut left = most;
            history.settle(now, &mut left);
            (most - left, rounds.iter().map(|round| round.written.lock().len()).collect::<Vec<_>>())
        };
        history.all(3 * FRAMES_KEPT).iter().for_each(write);
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT - 1, 9), (0, vec![1, 1, 1, 1]));
        // As many as it may look at, and none that came lately.
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT, 1), (1, vec![0, 1, 1, 1]));
        history.push(round(1, 4 * FRAMES_KEPT), 9, 0);
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT, 9), (3, vec![0, 0, 0, 0]));
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT, 9).0, 0, "none is looked at twice");
        // Who reads from the middle of a round has that one's frames written too.
        history.read(3, 1, 5 * FRAMES_KEPT).iter().for_each(write);
        assert_eq!(framed(&mut history, 5 * FRAMES_KEPT, 9), (0, vec![0, 1, 0, 0]));
        assert_eq!(framed(&mut history, 6 * FRAMES_KEPT, 9), (4, vec![0, 0, 0, 0]));
        // Who is told where the history begins reads nothing.
        assert!(history.read(0, 0, 9 * FRAMES_KEPT).is_empty());
        assert_eq!(framed(&mut history, 9 * FRAMES_KEPT, 9).0, 0);
    }
}
