//! Small scripts, each with one shard and nothing at random: what the simulation once found, and what each dialect
//! promises in words.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use std::time::Duration;

use fanwire::clock::Now;
use fanwire::config::{HistoryLimits, Limits, StreamLimits};
use fanwire::dialect::envelope::Envelopes;
use fanwire::dialect::path::Streams;
use fanwire::error::CloseReason;
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Next, Shard};
use fanwire::fanout::shared::{Access, FromShard, Shared, State};
use fanwire::fanout::stages::{Stage, Undo};
use fanwire::metrics::NotAdmitted;
use fanwire::publish::ingress::Ingress;
use fanwire::publish::wire::{FLAG_RECEIPT, HEADER_LEN, Header, Kind, Publish, decode_receipt};
use fanwire::receipt::{Asker, Key, Reach, Receipt};
use fanwire::session::policy::Policy;
use fanwire::topic::rules::{Rule, Rules};
use fanwire::transport::UNSENT_BYTES;
use serde_json::{Value, json};

use crate::frames::{Reader, write};
use crate::socket::{Op, Pipe, SimSocket, Tape, Temper};
use crate::sse::{Item, Parser};
use crate::way::STREAMS;

const START: Now = Now { mono: 1_000_000_000, wall_ms: 0 };
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "Accept: text/event-stream\r\n";

struct Script {
    shared: Arc<Shared>,
    shard: Shard<SimSocket>,
    tape: Tape,
    pipes: Vec<Rc<RefCell<Pipe>>>,
    /// What was written to each connection.
    written: Vec<Vec<u8>>,
    now: Now,
}

impl Script {
    /// With the streams of the worlds, each held to what `limits` has for it, and history for topics in `h:`.
    fn new(mut limits: Limits) -> Self {
        limits.streams.resize(STREAMS.len(), StreamLimits::default());
        let mut envelopes = Envelopes::built_in();
        let streams = Streams::compile(STREAMS, &[], &mut envelopes).unwrap();
        let history = HistoryLimits { events: 10_000, bytes: 10 << 20, age: Duration::from_secs(3600) };
        let rule = Rule {
            prefix: "h:".into(),
            history: Some(history),
            policies: Policy::ALL.into(),
            compress_above: None,
        };
        let shared = Shared::new(1, &limits, Access::default(), START).with_streams(streams, envelopes);
        let shared = Arc::new(shared.with_topic_rules(Rules::new(vec![rule])));
        shared.set_state(State::Ready);
        let shard = Shard::new(0, Arc::clone(&shared), Arc::new(limits), 1);
        Self { shared, shard, tape: Tape::default(), pipes: Vec::new(), written: Vec::new(), now: START }
    }

    fn connect(&mut self, door: Door, capacity: usize) -> usize {
        let id = self.pipes.len();
        let pipe = Pipe::new(id, capacity, Temper::default(), 0);
        pipe.borrow_mut().number = Some(self.shard.next_number());
        pipe.borrow_mut().unsent_bytes = (door != Door::Publish).then_some(UNSENT_BYTES);
        self.shard.accept(SimSocket::new(&pipe, &self.tape), door, "script", self.now);
        self.pipes.push(pipe);
        self.written.push(Vec::new());
        id
    }

    /// A session with one subscription.
    fn subscribe(&mut self, capacity: usize, message: &str) -> usize {
        let client = self.open(capacity, "/ws", UPGRADE);
        self.say(client, message);
        self.read(client);
        client
    }

    /// Subscribes a client that is there to one topic with history, from its beginning on.
    fn subscribe_from_the_beginning(&mut self, client: usize, topic: &str) {
        let epoch = self.shared.topics.find(topic).unwrap().epoch().unwrap();
        let position = json!({"epoch": format!("{epoch:016x}"), "offset": 0});
        let message = json!({"type": "subscribe", "topics": [topic], "since": {topic: position}});
        self.say(client, &message.to_string());
    }

    /// A client that asks for a path, and has not read the answer.
    fn ask(&mut self, capacity: usize, path: &str, headers: &str) -> usize {
        let client = self.connect(Door::Public, capacity);
        self.send(client, format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
        client
    }

    fn open(&mut self, capacity: usize, path: &str, headers: &str) -> usize {
        let client = self.ask(capacity, path, headers);
        self.read(client);
        client
    }

    /// Time passes, and nobody sleeps.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now.mono += 100_000_000;
            self.run();
        }
    }

    /// A client that stops taking: its kernel takes so many bytes more.
    fn stop_reading_after(&mut self, id: usize, bytes: usize) {
        let mut pipe = self.pipes[id].borrow_mut();
        assert_eq!(pipe.outbound, 0);
        pipe.capacity = bytes;
    }

    /// The kernel takes anything again.
    fn unblock(&mut self, id: usize) {
        self.pipes[id].borrow_mut().capacity = usize::MAX;
        self.read(id);
        self.pipes[id].borrow_mut().take(0);
        self.run();
        self.read(id);
    }

    fn is_there(&self, id: usize) -> bool {
        let number = self.pipes[id].borrow().number;
        let is_it = |queue: fanwire::fanout::shard::Queue| Some(queue.number) == number && queue.is_client;
        !self.pipes[id].borrow().dropped && self.shard.queues().any(is_it)
    }

    fn answer_ping(&mut self, id: usize) {
        let mut frame = Vec::new();
        write(&mut frame, true, 10, b"", &mut fastrand::Rng::with_seed(0));
        self.send(id, &frame);
    }

    fn say(&mut self, client: usize, message: &str) {
        let mut frame = Vec::new();
        write(&mut frame, true, 1, message.as_bytes(), &mut fastrand::Rng::with_seed(0));
        self.send(client, &frame);
    }

    fn send(&mut self, id: usize, bytes: &[u8]) {
        self.pipes[id].borrow_mut().send(bytes);
        self.run();
    }

    fn publish(&mut self, publisher: usize, topics: &str, events: u64) {
        self.publish_all(publisher, topics, 0..events);
    }

    /// Publishes these numbers with one read.
    fn publish_all(&mut self, publisher: usize, topics: &str, numbers: Range<u64>) {
        self.send(publisher, &events(topics, 0, numbers));
    }

    /// The receipts that came to a publisher, each with its sequence.
    fn receipts(&self, publisher: usize) -> Vec<(u64, Reach)> {
        let (mut rest, mut all) = (&self.written[publisher][..], Vec::new());
        while let Some((header, behind)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(header);
            let (body, behind) = behind.split_at(header.length as usize);
            assert_eq!(Kind::from_byte(header.kind), Some(Kind::Receipt));
            all.push((header.sequence, decode_receipt(body).unwrap()));
            rest = behind;
        }
        all
    }

    /// Takes what the kernel holds for a client until nothing more comes.
    fn read(&mut self, id: usize) {
        while self.pipes[id].borrow_mut().take(usize::MAX) > 0 {
            self.run();
        }
    }

    /// What came behind the head of the answer.
    fn body(&self, client: usize) -> &[u8] {
        let end = self.written[client].windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        &self.written[client][end..]
    }

    fn frames(&self, client: usize) -> Vec<(u8, String)> {
        let mut reader = Reader::default();
        reader.push(self.body(client));
        let frames: Vec<_> = std::iter::from_fn(|| reader.next()).collect();
        assert!(!reader.is_partial(), "a frame is cut");
        frames.into_iter().map(|f| (f.opcode, String::from_utf8_lossy(&f.payload).into_owned())).collect()
    }

    /// The texts of a client's frames.
    fn messages(&self, client: usize) -> Vec<String> {
        let mut reader = Reader::default();
        reader.push(self.body(client));
        std::iter::from_fn(|| reader.next())
            .map(|frame| String::from_utf8_lossy(&frame.payload).into_owned())
            .collect()
    }

    /// The code of the close frame that is the last.
    fn close_code(&self, client: usize) -> Option<u16> {
        let mut reader = Reader::default();
        reader.push(self.body(client));
        let last = std::iter::from_fn(|| reader.next()).last()?;
        (last.opcode == 8).then(|| u16::from_be_bytes([last.payload[0], last.payload[1]]))
    }

    /// What came on an event stream, without the greeting.
    fn items(&self, client: usize) -> Vec<Item> {
        let mut parser = Parser::default();
        parser.push(self.body(client));
        assert!(!parser.is_partial(), "an event is cut");
        assert_eq!(parser.next(), Some(Item::Comment("subscribed".into())));
        std::iter::from_fn(|| parser.next()).collect()
    }

    fn writes(&self) -> u64 {
        self.shared.metrics[0].envelope_writes.get()
    }

    fn run(&mut self) {
        for turn in 0.. {
            assert!(turn < 1000, "no end");
            for pipe in &self.pipes {
                let mut pipe = pipe.borrow_mut();
                let (readable, writable) =
                    (std::mem::take(&mut pipe.readable), std::mem::take(&mut pipe.writable));
                if let Some(number) = pipe.number.filter(|_| !pipe.dropped) {
                    drop(pipe);
                    self.shard.handle_ready(number, readable, writable);
                }
            }
            let next = self.shard.turn(&|| self.now);
            for op in self.tape.borrow_mut().drain(..) {
                if let Op::Wrote { connection, bytes } = op {
                    self.written[connection].extend(bytes);
                }
            }
            let has_edges = self.pipes.iter().any(|pipe| {
                let pipe = pipe.borrow();
                !pipe.dropped && (pipe.readable || pipe.writable)
            });
            if next != Next::Now && !has_edges {
                return;
            }
        }
    }
}

/// These numbers as a publisher writes them.
fn events(topics: &str, flags: u16, numbers: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in numbers {
        let data = n.to_string();
        let publish = Publish { topics, event: "e", key: "", data: &data, timestamp_ms: 1 };
        publish.encode(flags, n, &mut bytes).unwrap();
    }
    bytes
}

#[test]
fn a_round_larger_than_a_blocked_clients_queue_leaves_out_its_own_beginning() {
    let mut script = Script::new(Limits { queue_events: 4, ..Limits::default() });
    let client = script.subscribe(600, r#"{"type":"subscribe","topics":["a"],"policy":"drop-oldest"}"#);
    let publisher = script.connect(Door::Publish, 600);
    // The first read blocks the client, the second is one round of which only the end has room.
    script.publish(publisher, "a", 10);
    let before = script.messages(client).len();
    script.publish(publisher, "a", 50);
    assert_eq!(script.messages(client).len(), before, "the client is blocked");
    script.read(client);
    let messages = script.messages(client);
    let told: u64 = messages
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap())
        .filter_map(|message| message["data"]["dropped"].as_u64())
        .sum();
    let events = messages.iter().filter(|text| text.contains(r#""type":"event""#)).count() as u64;
    assert_eq!((events + told, told > 40), (60, true), "{messages:#?}");
    assert!(messages.last().unwrap().contains(r#""data":49"#));
    assert!(script.shard.held_bytes() == 0);
}

#[test]
fn a_flood_waits_a_moment_for_a_client_that_has_just_begun_to_refuse() {
    for (policy, takes_again) in [("disconnect", true), ("disconnect", false), ("drop-oldest", false)] {
        let mut script = Script::new(Limits::default());
        let message = format!(r#"{{"type":"subscribe","topics":["a"],"policy":"{policy}"}}"#);
        let refusing = script.subscribe(usize::MAX, &message);
        let healthy = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#);
        let publisher = script.connect(Door::Publish, usize::MAX);
        script.stop_reading_after(refusing, 1000);
        // What was read before the refusal fills its queue to twice its bound, which is asked at the next event only.
        script.publish_all(publisher, "a", 0..200);
        script.publish_all(publisher, "a", 200..210);
        let case = format!("{policy}, takes again: {takes_again}");
        let is_waited_for = policy == "disconnect";
        assert_eq!(script.shared.metrics[0].publisher_pauses.get(), u64::from(is_waited_for), "{case}");
        assert_eq!(script.pipes[publisher].borrow().inbound.is_empty(), !is_waited_for, "{case}");
        assert!(script.is_there(refusing), "{case}");
        if takes_again {
            script.unblock(refusing);
        } else {
            let later = script.now.mono + 25_000_000;
            sleep_until(&mut script, later);
        }
        assert!(script.pipes[publisher].borrow().inbound.is_empty(), "{case}");
        assert_eq!(script.is_there(refusing), takes_again || !is_waited_for, "{case}");
        for client in [healthy].into_iter().chain(takes_again.then_some(refusing)) {
            script.read(client);
            let messages = script.messages(client);
            let events = messages.iter().filter(|text| text.contains(r#""type":"event""#));
            assert_eq!(events.count(), 210, "{case}");
        }
        assert_eq!(
            script.shared.metrics[0].closed(CloseReason::SlowConsumer),
            u64::from(is_waited_for && !takes_again)
        );
    }
}

/// Sixteen of twenty that refuse take again at once: they read well, and what comes is too fast for all.
#[test]
fn in_a_flood_publishers_wait_half_a_second_for_each_and_close_who_takes_nothing_for_longer() {
    let mut script = Script::new(Limits::default());
    let topic = r#"{"type":"subscribe","topics":["a"]}"#;
    let clients: Vec<usize> = (0..20).map(|_| script.subscribe(usize::MAX, topic)).collect();
    let publisher = script.connect(Door::Publish, usize::MAX);
    for client in &clients {
        script.stop_reading_after(*client, 1000);
    }
    let began = script.now.mono;
    script.publish_all(publisher, "a", 0..200);
    script.publish_all(publisher, "a", 200..210);
    let waits = |script: &Script| !script.pipes[publisher].borrow().inbound.is_empty();
    let there = |script: &Script| clients.iter().filter(|client| script.is_there(**client)).count();
    for client in &clients[..16] {
        script.unblock(*client);
    }
    for (ms, taking_again) in [(100, 16..17), (400, 17..18), (499, 18..18)] {
        sleep_until(&mut script, began + ms * 1_000_000);
        assert_eq!((waits(&script), there(&script)), (true, 20), "after {ms} ms");
        clients[taking_again].iter().for_each(|client| script.unblock(*client));
    }
    sleep_until(&mut script, began + 501_000_000);
    assert_eq!((waits(&script), there(&script)), (false, 18));
    let metrics = &script.shared.metrics[0];
    assert_eq!((metrics.closed(CloseReason::SlowConsumer), metrics.publisher_pauses.get()), (2, 1));
    for client in &clients[..18] {
        script.read(*client);
        let messages = script.messages(*client);
        assert_eq!(messages.iter().filter(|text| text.contains(r#""type":"event""#)).count(), 210);
    }
}

#[test]
fn what_waits_in_the_kernel_is_bounded_for_all_where_clients_may_be_several() {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    script.open(usize::MAX, "/", "");
    let mut clients = Vec::new();
    for (count, bounded) in (1..=18).map(|count| (count, if count < 16 { 0 } else { count })) {
        clients.push(script.open(usize::MAX, "/ws", UPGRADE));
        let bounds = clients.iter().filter(|client| script.pipes[**client].borrow().unsent_bytes.is_some());
        assert_eq!(bounds.count(), bounded, "with {count} clients");
    }
    assert_eq!(script.pipes[publisher].borrow().unsent_bytes, None);
    // Where they are few again, who comes is not bounded.
    for client in &clients[..4] {
        script.pipes[*client].borrow_mut().break_off();
        script.run();
    }
    let newcomer = script.open(usize::MAX, "/ws", UPGRADE);
    assert_eq!(script.pipes[newcomer].borrow().unsent_bytes, None);
    script.open(usize::MAX, "/ws", UPGRADE);
    assert_eq!(script.pipes[newcomer].borrow().unsent_bytes, Some(128 << 10));
}

#[test]
fn publishers_of_what_nobody_wants_are_read_in_larger_pieces() {
    let mut script = Script::new(Limits { queue_events: 10_000, ..Limits::default() });
    let publisher = script.connect(Door::Publish, usize::MAX);
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#);
    let mut asked = |topics: &str| {
        script.publish_all(publisher, topics, 0..1);
        script.pipes[publisher].borrow().asked
    };
    let (usual, large) = (16 << 10, 48 << 10);
    assert_eq!(asked("a"), usual);
    assert_eq!(asked("nobody's"), usual, "only then it is known");
    assert_eq!(asked("a"), large);
    assert_eq!(asked("nobody's\na"), usual);
    assert_eq!(asked("nobody's\nelse's"), usual);
    assert_eq!(asked("nobody's"), large);
    script.read(client);
    assert_eq!(script.messages(client).iter().filter(|text| text.contains(r#""type":"event""#)).count(), 3);
}

#[test]
fn who_has_its_answer_is_in_the_figures_though_the_turn_goes_on() {
    let mut script = Script::new(Limits::default());
    let [client, first, second] = [(); 3].map(|()| script.connect(Door::Public, usize::MAX));
    let send = |script: &Script, id: usize, path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        script.pipes[id].borrow_mut().send(request.as_bytes());
    };
    let shown = |script: &Script, asking: usize| {
        let stats: Value = serde_json::from_slice(script.body(asking)).unwrap();
        ["connections", "dialects", "subscriptions", "closed"].map(|figure| stats[figure].clone())
    };
    // Both in one turn: how far it has come when the client is answered, who asks sees.
    send(&script, client, "/sse?topics=a,b", ACCEPT);
    send(&script, first, "/api/v1/websocket/stats", "");
    script.run();
    assert_eq!(shown(&script, first), [json!(1), json!({"sse": 1}), json!(2), json!({})]);
    script.pipes[client].borrow_mut().end(true);
    send(&script, second, "/api/v1/websocket/stats", "");
    script.run();
    assert_eq!(shown(&script, second), [json!(0), json!({}), json!(0), json!({"client_closed": 1})]);
}

#[test]
fn large_writes_to_many_are_of_copies_for_all_and_the_same_bytes_as_others() {
    let mut script = Script::new(Limits { queue_events: 10_000, ..Limits::default() });
    let all: Vec<_> =
        (0..20).map(|_| script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#)).collect();
    // Of five lengths, one more than there are copies of.
    let names: Vec<_> = (0..20).map(|n| format!("{}{n:02}", "x".repeat(n % 5))).collect();
    let subscribe = |name| json!({"type": "subscribe", "topics": ["a"], "clientId": name}).to_string();
    let named: Vec<_> = names.iter().map(|name| script.subscribe(usize::MAX, &subscribe(name))).collect();
    let publisher = script.connect(Door::Publish, usize::MAX);
    // Two of each are cut within a frame: one in every burst, one until the end, when its first chunks have left the file.
    for (client, bytes) in [(all[0], 20_011), (all[1], 100), (named[0], 20_011), (named[1], 100)] {
        script.stop_reading_after(client, bytes);
    }
    for burst in 0..40 {
        script.publish_all(publisher, "a", burst * 200..(burst + 1) * 200);
        for client in [&all[..1], &all[2..], &named[..1], &named[2..]].concat() {
            script.read(client);
        }
    }
    for client in [&all[..2], &named[..2]].concat() {
        script.unblock(client);
    }
    let of_pages = |script: &Script, client: usize| script.pipes[client].borrow().writes_of_pages;
    assert!(all.iter().all(|client| of_pages(&script, *client) > 0));
    assert!(named.iter().all(|client| of_pages(&script, *client) == 0), "its events are its own");
    let ends = names.iter().map(|name| format!(r#","clientId":"{name}"}}"#));
    for (client, end) in
        all.into_iter().map(|client| (client, "Z\"}".into())).chain(named.into_iter().zip(ends))
    {
        let messages = script.messages(client);
        let events: Vec<_> = messages.iter().filter(|text| text.contains(r#""type":"event""#)).collect();
        assert_eq!(events.len(), 8000);
        for (number, event) in events.iter().enumerate() {
            assert!(event.contains(&format!(r#""data":{number},"#)), "{number}: {event}");
            assert!(event.ends_with(&end), "{end}: {event}");
        }
    }
}

#[test]
fn a_turn_takes_a_part_of_a_full_link_whoever_is_the_first_to_be_flushed() {
    let mut script = Script::new(Limits::default());
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#);
    let other = script.open(usize::MAX, "/ws", UPGRADE);
    // A link full of what another shard took in.
    let to = FromShard { shared: &script.shared, shard: 0 };
    let (mut ingress, mut sent) = (Ingress::default(), 0);
    while script.shared.links[0].has_credit(script.shard.limits().link_bytes, 0) {
        for _ in 0..100 {
            let data = sent.to_string();
            let event = Publish { topics: "a", event: "e", key: "", data: &data, timestamp_ms: 1 };
            ingress.add(&event, None, script.now, &to, &script.shared.metrics[0]);
            sent += 1;
        }
        ingress.commit(script.now, &to, &script.shared.metrics[0]);
    }
    // The answer to this stands first in the sweep, and who is owed it is owed little.
    let mut ping = Vec::new();
    write(&mut ping, true, 9, b"first", &mut fastrand::Rng::with_seed(0));
    script.pipes[other].borrow_mut().send(&ping);
    let number = script.pipes[other].borrow().number.unwrap();
    script.shard.handle_ready(number, true, false);
    assert_eq!(script.shard.turn(&|| script.now), Next::Now);
    let of_one_turn = script.shared.metrics[0].dispatched.get();
    assert!((512..=sent / 4).contains(&of_one_turn), "{of_one_turn} of {sent} in one turn");
    script.run();
    script.read(client);
    let events = script.messages(client).iter().filter(|text| text.contains(r#""type":"event""#)).count();
    assert_eq!(events as u64, sent);
}

#[test]
fn nobody_pays_for_the_pages_of_what_all_are_owed() {
    // The chunk, of some 41 KB with room to grow, fits in; with its pages it does not.
    let limits = Limits { queue_events: 10_000, max_outbox_bytes: 50_000, ..Limits::default() };
    let subscribe = r#"{"type":"subscribe","topics":["a"]}"#;
    let mut script = Script::new(limits);
    let all: Vec<_> = (0..20).map(|_| script.subscribe(usize::MAX, subscribe)).collect();
    let blocked = script.subscribe(usize::MAX, subscribe);
    let publisher = script.connect(Door::Publish, usize::MAX);
    script.stop_reading_after(blocked, 100);
    script.publish_all(publisher, "a", 0..200);
    assert!(all.iter().any(|client| script.pipes[*client].borrow().writes_of_pages > 0));
    assert!((20_000..=50_000).contains(&script.shard.held_bytes()), "{}", script.shard.held_bytes());
    script.publish_all(publisher, "a", 200..201);
    script.unblock(blocked);
    for client in all.into_iter().chain([blocked]) {
        script.read(client);
        let messages = script.messages(client);
        assert_eq!(messages.iter().filter(|text| text.contains(r#""type":"event""#)).count(), 201);
    }
}

#[test]
fn a_refused_subscribe_changes_nothing() {
    let mut script = Script::new(Limits { max_subscriptions: 2, ..Limits::default() });
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#);
    script.say(client, r#"{"type":"subscribe","topics":["a","b","c"],"events":["other"],"clientId":"me"}"#);
    let publisher = script.connect(Door::Publish, 600);
    script.publish(publisher, "a", 1);
    let messages = script.messages(client);
    assert!(messages[1].contains("max_subscriptions"), "{messages:?}");
    assert!(messages[2].contains(r#""data":0,"#) && !messages[2].contains("clientId"), "{messages:?}");
}

#[test]
fn a_shutdown_waits_for_nobody_who_is_gone_or_was_told_of_its_gaps() {
    for is_lost in [true, false] {
        let limits = Limits { queue_events: 4, drain_spread: Duration::ZERO, ..Limits::default() };
        let mut script = Script::new(limits);
        let client =
            script.subscribe(600, r#"{"type":"subscribe","topics":["a","b"],"policy":"drop-oldest"}"#);
        let publisher = script.connect(Door::Publish, 600);
        // The events of `a` drive out those of `b`; the gap of `b` is told with its last one.
        for (topic, events) in [("a", 10), ("b", 4), ("a", 4), ("b", 1)] {
            script.publish(publisher, topic, events);
        }
        script.shared.begin_drain(script.now).unwrap();
        script.run();
        if is_lost {
            script.pipes[client].borrow_mut().break_off();
        }
        script.read(client);
        script.run();
        assert_eq!(script.shard.counts().clients, 0, "lost: {is_lost}");
        assert!(script.pipes[publisher].borrow().shut, "lost: {is_lost}");
        assert!(is_lost || script.messages(client).last().unwrap().contains("retryAfterMs"));
    }
}

/// A node whose clients take two seconds to go, with so many of them on `a`.
fn spreading(clients: usize) -> (Script, Vec<usize>) {
    let mut script = Script::new(Limits { drain_delay: Duration::from_secs(1), ..Limits::default() });
    let clients: Vec<usize> = (0..clients)
        .map(|_| script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#))
        .collect();
    script.shared.begin_drain(script.now).unwrap();
    script.run();
    (script, clients)
}

/// Time passes as far as the shard sleeps, until `mono`.
fn sleep_until(script: &mut Script, mono: u64) {
    loop {
        script.run();
        let Next::At(next) = script.shard.turn(&|| script.now) else { panic!("the shard does not wake") };
        if next > mono {
            script.now.mono = mono;
            return script.run();
        }
        assert!(next > script.now.mono, "it does not sleep");
        script.now.mono = next;
    }
}

#[test]
fn clients_are_let_go_evenly_while_publishers_are_read() {
    const MS: u64 = 1_000_000;
    let (mut script, clients) = spreading(200);
    let publisher = script.connect(Door::Publish, usize::MAX);
    let began = script.now.mono;
    for (ms, left) in [(0, 200), (999, 200), (1_000, 200), (1_510, 149), (2_000, 100), (2_990, 1)] {
        sleep_until(&mut script, began + ms * MS);
        assert_eq!(script.shard.counts().clients, left, "after {ms} ms");
        script.publish(publisher, "a", 1);
        let last = *clients.last().unwrap();
        script.read(last);
        assert!(script.messages(last).last().unwrap().contains(r#""type":"event""#), "after {ms} ms");
        assert!(!script.shard.is_ending() && script.shard.drain_deadline().is_none());
    }
    // A turn that comes early lets nobody go early, and a late one catches up.
    script.now.mono = began + 3_000 * MS;
    script.run();
    assert!(script.shard.is_ending() && script.shard.counts().clients == 0);
    for client in clients {
        script.read(client);
        assert_eq!(script.close_code(client), Some(1001));
        assert!(script.messages(client).last().unwrap().contains("retryAfterMs"));
    }
    assert_eq!(script.shared.drain_order().unwrap().stage, Stage::Farewell);
    assert!(script.pipes[publisher].borrow().shut);
}

#[test]
fn who_is_owed_something_goes_when_it_has_it_and_stays_where_it_is_taken_back() {
    let (mut script, clients) = spreading(4);
    let publisher = script.connect(Door::Publish, usize::MAX);
    script.stop_reading_after(clients[0], 10);
    script.publish(publisher, "a", 3);
    let began = script.now.mono;
    // All but one are due; the first of them waits for what it is owed.
    sleep_until(&mut script, began + 1_030_000_000);
    let there = |script: &Script| clients.iter().map(|client| script.is_there(*client)).collect::<Vec<_>>();
    assert_eq!(there(&script), [true, false, false, true]);
    assert_eq!(script.shared.undo_drain(), Undo::Done { clients: 4 });
    assert_eq!(script.shared.state(), State::Ready);
    // It has all, and time passes; the shard has not even heard of it yet.
    script.pipes[clients[0]].borrow_mut().capacity = usize::MAX;
    script.now.mono += 1_000_000_000;
    script.unblock(clients[0]);
    assert_eq!(there(&script), [true, false, false, true]);
    assert_eq!(script.messages(clients[0]).len(), 1 + 3);
    let new = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#);
    script.publish(publisher, "a", 1);
    for client in [clients[0], clients[3], new] {
        script.read(client);
        assert!(script.is_there(client) && script.messages(client).last().unwrap().contains(r#""data":0,"#));
    }
    // Begun anew, it is the three that are left who go.
    assert_eq!(script.shared.begin_drain(script.now).unwrap().clients, 3);
    let began = script.now.mono;
    sleep_until(&mut script, began + 1_020_000_000);
    assert_eq!(script.shard.counts().clients, 1);
    sleep_until(&mut script, began + 1_029_999_999);
    assert_eq!(script.shared.drain_order().unwrap().stage, Stage::Spread);
    script.now.mono += 1;
    script.run();
    assert_eq!((script.shard.counts().clients, script.shared.undo_drain()), (0, Undo::TooLate));
}

#[test]
fn what_comes_too_fast_is_refused_and_told_when_to_come_back() {
    let mut script =
        Script::new(Limits { handshakes_per_second: 2, handshake_burst: 3, ..Limits::default() });
    let refused = |script: &Script, reason| script.shared.metrics[0].turned_away(reason);
    for _ in 0..3 {
        let client = script.open(usize::MAX, "/ws", UPGRADE);
        assert!(script.is_there(client));
    }
    let client = script.open(usize::MAX, "/ws", UPGRADE);
    let answer = String::from_utf8(script.written[client].clone()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("handshakes_per_second"), "{answer}");
    let (_, retry) = answer.split_once("\r\nRetry-After: ").unwrap();
    let seconds: u32 = retry.split("\r\n").next().unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{answer}");
    assert!(script.pipes[client].borrow().shut);
    for path in ["/sse?topics=a", "/feed/a"] {
        let client = script.open(usize::MAX, path, ACCEPT);
        let items = script.items(client);
        let [Item::Event { name, data, .. }, end, retry] = &items[..] else { panic!("{items:?}") };
        assert!(name == "error" && data.contains("handshakes_per_second"), "{data}");
        assert_eq!((end, is_retry(retry)), (&comment("closed: handshake_rate"), true));
        assert!(script.pipes[client].borrow().shut);
    }
    assert_eq!(refused(&script, NotAdmitted::Rate), 3);
    assert_eq!(script.shared.metrics[0].closed(CloseReason::AtCapacity), 0);
    // What opens no session takes no token and is answered as ever; nor does what is refused for another reason.
    for (path, headers, status) in
        [("/healthz", "", "200"), ("/api/drain", "", "200"), ("/sse", ACCEPT, "400"), ("/feed/a", "", "426")]
    {
        let caller = script.open(usize::MAX, path, headers);
        let answer = String::from_utf8_lossy(&script.written[caller]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    script.pass(500);
    let bad = script.open(usize::MAX, "/ws?categories=", UPGRADE);
    assert!(script.written[bad].starts_with(b"HTTP/1.1 400 "));
    let client = script.open(usize::MAX, "/feed/a", ACCEPT);
    assert!(script.is_there(client), "half a second lets one in");
    assert_eq!(refused(&script, NotAdmitted::Rate), 3);
    script.open(usize::MAX, "/ws", UPGRADE);
    assert_eq!(refused(&script, NotAdmitted::Rate), 4);
}

#[test]
fn a_crowd_of_requests_is_read_in_pieces_and_in_its_order() {
    let limits =
        Limits { accepts_per_turn: 3, heartbeat_timeout: Duration::from_secs(50), ..Limits::default() };
    let mut script = Script::new(limits);
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a"]}"#);
    let crowd: Vec<usize> = (0..20).map(|_| script.connect(Door::Public, usize::MAX)).collect();
    let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n");
    let mut ping = Vec::new();
    write(&mut ping, true, 9, b"?", &mut fastrand::Rng::with_seed(0));
    for id in crowd.iter().chain([&client]) {
        let bytes = if *id == client { &ping } else { request.as_bytes() };
        script.pipes[*id].borrow_mut().send(bytes);
        let number = script.pipes[*id].borrow().number.unwrap();
        script.shard.handle_ready(number, true, false);
    }
    for turn in 1..=7 {
        assert_eq!(script.shard.turn(&|| script.now), Next::Now);
        let there: Vec<bool> = crowd.iter().map(|id| script.is_there(*id)).collect();
        let expected: Vec<bool> = (0..20).map(|place| place < 3 * turn).collect();
        assert_eq!(there, expected, "after {turn} turns");
        if turn == 1 {
            // Who was there before is not behind any of them.
            let ponged = |op: &Op| matches!(op, Op::Wrote { connection, .. } if *connection == client);
            assert!(script.tape.borrow().iter().any(ponged));
        }
    }
}

#[test]
fn what_follows_a_request_stays_in_the_kernel() {
    let mut script = Script::new(Limits::default());
    let caller = script.connect(Door::Public, 2000);
    let requests = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20_000);
    script.send(caller, requests.as_bytes());
    for _ in 0..20 {
        script.pipes[caller].borrow_mut().take(usize::MAX);
        script.run();
    }
    let left = script.pipes[caller].borrow().inbound.len();
    assert!(left > requests.len() - (200 << 10), "only {left} of {} bytes are left", requests.len());
    script.read(caller);
    let answers = script.written[caller].windows(12).filter(|text| *text == b"HTTP/1.1 200").count();
    assert_eq!(answers, 20_000);
}

fn event(name: &str, data: &str) -> Item {
    Item::Event { name: name.into(), data: data.into() }
}

fn comment(text: &str) -> Item {
    Item::Comment(text.into())
}

fn is_retry(item: &Item) -> bool {
    matches!(item, Item::Retry(500..5000))
}

/// A gap notice's topic and count.
fn gap(text: &str) -> Option<(String, Value)> {
    let message: Value = serde_json::from_str(text).ok()?;
    let topic = message["data"]["topic"].as_str()?.to_owned();
    (message["type"] == "gap").then(|| (topic, message["data"]["dropped"].clone()))
}

/// `/feed/…`, with a time in which its clients' sockets must take something, and no heartbeat to disturb.
fn patient_feed(write_timeout: u64) -> Limits {
    let hour = Duration::from_secs(3600);
    let feed = StreamLimits {
        write_timeout: Some(Duration::from_secs(write_timeout)),
        heartbeat_interval: hour,
        heartbeat_timeout: 2 * hour,
        ..StreamLimits::default()
    };
    Limits { event_stream_keep_alive: hour, streams: vec![feed; STREAMS.len()], ..Limits::default() }
}

const FEEDS: [(&str, &str); 3] = [
    ("/feed/a?policy=drop-oldest", UPGRADE),
    ("/feed/a?policy=drop-oldest&batch=ndjson", UPGRADE),
    ("/feed/a?policy=drop-oldest", ACCEPT),
];

#[test]
fn a_socket_that_takes_nothing_for_write_timeout_is_closed_and_one_that_takes_a_little_is_not() {
    for (path, headers) in FEEDS {
        let mut script = Script::new(patient_feed(10));
        let publisher = script.connect(Door::Publish, usize::MAX);
        let client = script.open(usize::MAX, path, headers);
        script.stop_reading_after(client, 100);
        script.publish(publisher, "a", 50);
        script.pass(9_500);
        assert!(script.is_there(client), "{path}: its time is not over");
        script.pipes[client].borrow_mut().take(100);
        script.pass(9_500);
        assert!(script.is_there(client), "{path}: it took something since");
        // More that is queued is no progress, and neither is one more refusal.
        script.publish(publisher, "a", 50);
        script.pipes[client].borrow_mut().writable = true;
        script.run();
        assert!(script.is_there(client), "{path}");
        script.pass(700);
        assert!(!script.is_there(client), "{path}: it has taken nothing for write_timeout");
        assert_eq!(script.shared.metrics[0].closed(CloseReason::SlowConsumer), 1);
        script.unblock(client);
        if headers == UPGRADE {
            assert_eq!(script.close_code(client), Some(4008), "{path}");
        } else {
            let items = script.items(client);
            let [.., end, retry] = &items[..] else { panic!("{items:?}") };
            assert_eq!((end, is_retry(retry)), (&comment("closed: slow_consumer"), true));
        }
    }
}

#[test]
fn a_socket_that_took_everything_has_all_the_time_again() {
    for (path, headers) in FEEDS {
        let mut script = Script::new(patient_feed(10));
        let publisher = script.connect(Door::Publish, usize::MAX);
        let client = script.open(usize::MAX, path, headers);
        script.stop_reading_after(client, 100);
        script.publish(publisher, "a", 20);
        script.pass(9_000);
        script.read(client);
        script.pass(60_000);
        assert!(script.is_there(client), "{path}: nothing waits for it");
        script.publish(publisher, "a", 20);
        script.pass(9_500);
        assert!(script.is_there(client), "{path}: its time began with the refusal");
        script.pass(700);
        assert!(!script.is_there(client), "{path}");
    }
    // Without the setting a stalled client may stay as long as its queue holds.
    let mut script = Script::new(Limits { heartbeat_timeout: Duration::from_secs(1000), ..patient_feed(1) });
    let client = script.open(usize::MAX, "/ws?topics=a&policy=drop-oldest", UPGRADE);
    let publisher = script.connect(Door::Publish, usize::MAX);
    script.stop_reading_after(client, 100);
    script.publish(publisher, "a", 20);
    script.pass(20_000);
    assert!(script.is_there(client));
}

#[test]
fn on_a_stream_only_a_pong_is_a_sign_of_life() {
    let mut script = Script::new(Limits::default());
    let talker = script.open(usize::MAX, "/feed/a", UPGRADE);
    let listener = script.open(usize::MAX, "/feed/a", UPGRADE);
    let browser = script.open(usize::MAX, "/feed/a", ACCEPT);
    for second in 1..=200 {
        script.pass(1000);
        if second % 5 == 0 && script.is_there(talker) {
            script.say(talker, "{\"type\":\"pong\"}");
            script.say(talker, "");
        }
        let pings = script.frames(listener).iter().filter(|(opcode, _)| *opcode == 9).count();
        if second % 54 == 2 && second > 54 {
            assert_eq!(pings, second / 54, "at {second} s");
            script.answer_ping(listener);
        }
        assert_eq!(script.is_there(talker), second < 60, "at {second} s");
        assert!(script.is_there(listener) && script.is_there(browser), "at {second} s");
        for id in [talker, listener, browser] {
            script.read(id);
        }
    }
    assert_eq!(script.close_code(talker), Some(4000));
    let beats = script.items(browser);
    assert_eq!(beats, vec![comment("keep-alive"); 200 / 15]);
}

#[test]
fn a_byte_now_and_then_does_not_prolong_the_time_for_a_message() {
    let mut script = Script::new(Limits { message_timeout: Duration::from_secs(5), ..Limits::default() });
    let client = script.open(usize::MAX, "/ws", UPGRADE);
    let mut frame = Vec::new();
    write(&mut frame, true, 1, &[b' '; 200], &mut fastrand::Rng::with_seed(0));
    let mut left = None;
    for (tenth, byte) in frame.iter().enumerate() {
        script.now.mono += 100_000_000;
        // It is there in the very turn in which the time is up.
        script.send(client, &[*byte]);
        if !script.is_there(client) {
            left = Some(tenth);
            break;
        }
    }
    assert!(left.is_some_and(|tenth| (50..53).contains(&tenth)), "after {left:?} tenths of a second");
    script.read(client);
    assert_eq!(script.close_code(client), Some(1008));
    // The rest that comes with the last moment is read, and then all is well.
    let client = script.open(usize::MAX, "/ws", UPGRADE);
    script.send(client, &frame[..100]);
    script.now.mono += 5_100_000_000;
    script.send(client, &frame[100..]);
    script.pass(20_000);
    assert!(script.is_there(client));
}

#[test]
fn nor_does_a_byte_that_is_there_whenever_it_is_read() {
    let mut script = Script::new(Limits { message_timeout: Duration::from_secs(5), ..Limits::default() });
    let client = script.open(usize::MAX, "/ws", UPGRADE);
    let number = script.pipes[client].borrow().number.unwrap();
    let mut frame = Vec::new();
    write(&mut frame, true, 1, &[b' '; 200], &mut fastrand::Rng::with_seed(0));
    let mut tenths = 0;
    while script.is_there(client) {
        script.now.mono += 100_000_000;
        // One turn, so one read, for each byte: none of them finds nothing.
        script.pipes[client].borrow_mut().send(&frame[tenths..=tenths]);
        script.shard.handle_ready(number, true, false);
        script.shard.turn(&|| script.now);
        tenths += 1;
    }
    assert!((50..53).contains(&tenths), "after {tenths} tenths of a second");
    script.run();
    script.read(client);
    assert_eq!(script.close_code(client), Some(1008));
}

#[test]
fn what_comes_in_on_a_stream_means_nothing_up_to_its_size() {
    let mut script = Script::new(Limits::default());
    let client = script.open(usize::MAX, "/feed/a", UPGRADE);
    script.say(client, r#"{"type":"subscribe","topics":["b"]}"#);
    script.say(client, &"x".repeat(512));
    let mut binary = Vec::new();
    write(&mut binary, true, 2, &[0xff; 512], &mut fastrand::Rng::with_seed(0));
    script.send(client, &binary);
    assert!(script.is_there(client) && script.frames(client).is_empty());
    script.say(client, &"x".repeat(513));
    assert_eq!(script.close_code(client), Some(1009));
}

#[test]
fn a_client_is_subscribed_before_the_answer_leaves() {
    for (path, headers) in [
        ("/ws?topics=a", UPGRADE),
        ("/feed/a", UPGRADE),
        ("/feed/a?batch=ndjson", UPGRADE),
        ("/feed/a", ACCEPT),
        ("/sse?topics=a", ACCEPT),
    ] {
        let mut script = Script::new(Limits::default());
        let publisher = script.connect(Door::Publish, usize::MAX);
        let client = script.ask(1, path, headers);
        assert_eq!(script.written[client], b"H", "{path}");
        script.publish(publisher, "a", 2);
        assert_eq!(script.written[client], b"H", "{path}");
        script.unblock(client);
        let body = String::from_utf8_lossy(script.body(client)).into_owned();
        let [first, second] = [0, 1]
            .map(|n| body.find(&format!("\"data\":{n},")).or_else(|| body.find(&format!("{{\"d\":{n}}}"))));
        assert!(first.is_some() && first < second, "{path}: {body}");
    }
}

#[test]
fn an_event_of_several_topics_is_written_once_for_each_envelope() {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    let mut open = |path, headers| script.open(usize::MAX, path, headers);
    let json = open("/ws?topics=alpha", UPGRADE);
    let both = open("/ws?topics=b,alpha", UPGRADE);
    let feeds = [open("/feed/b", UPGRADE), open("/feed/alpha", UPGRADE)];
    let plain = open("/plain/alpha", UPGRADE);
    let all = [open("/all/alpha", UPGRADE), open("/all/b", UPGRADE), open("/all/%62", UPGRADE)];
    let browser = open("/sse?topics=alpha,b", ACCEPT);
    let elsewhere = open("/sse?topics=b&onlyCategories=b", ACCEPT);
    let acks = [json, both].map(|client| script.frames(client).len());
    script.publish(publisher, "b\nalpha", 1);
    // JSON, the feed, alpha as it is, everything for each of its two topics, and JSON as an event stream.
    assert_eq!(script.writes(), 6);
    for (client, acks) in [json, both].into_iter().zip(acks) {
        let messages = script.messages(client);
        assert_eq!(messages.len(), acks + 1, "{messages:?}");
        assert!(messages.last().unwrap().contains(r#""category":"b","data":0,"#), "{messages:?}");
    }
    for feed in feeds {
        assert_eq!(script.messages(feed), [r#"{"d":0}"#]);
    }
    assert_eq!(script.messages(plain), ["0"]);
    let topics = all.map(|client| {
        let messages = script.messages(client);
        assert_eq!(messages.len(), 1);
        serde_json::from_str::<Value>(&messages[0]).unwrap()
    });
    assert_eq!(topics, [json!(["alpha", "e", 0]), json!(["b", "e", 0]), json!(["b", "e", 0])]);
    for client in [browser, elsewhere] {
        let items = script.items(client);
        assert!(
            matches!(&items[..], [Item::Event { data, .. }] if data.contains(r#""data":0"#)),
            "{items:?}"
        );
    }
}

#[test]
fn an_event_of_topics_with_other_values_is_written_for_each() {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    let one = script.open(usize::MAX, "/x/p/q%3Ar", UPGRADE);
    let other = script.open(usize::MAX, "/x/run/42", UPGRADE);
    let third = script.open(usize::MAX, "/x/%70/q:r", UPGRADE);
    script.publish(publisher, "p:q:r\nrun:42", 1);
    assert_eq!(script.writes(), 2);
    for (client, a, b) in [(one, "p", "<q:r>"), (other, "run", "<42>"), (third, "p", "<q:r>")] {
        let message: Value = serde_json::from_str(&script.messages(client)[0]).unwrap();
        assert_eq!((&message["a"], &message["b"], &message["d"]), (&json!(a), &json!(b), &json!(0)));
    }
    assert_eq!(script.shared.topics.count(), 2);
}

#[test]
fn lines_that_share_a_message_stay_whole_when_it_is_cut() {
    let limits = Limits { queue_events: 4, ..Limits::default() };
    let mut script = Script::new(limits);
    let publisher = script.connect(Door::Publish, usize::MAX);
    let client = script.open(usize::MAX, "/feed/a?batch=ndjson&policy=drop-oldest", UPGRADE);
    // Two bytes of header and three lines and a half.
    script.stop_reading_after(client, 2 + 3 * 8 + 4);
    script.publish(publisher, "a", 10);
    script.publish(publisher, "a", 20);
    assert_eq!(script.shard.queues().map(|queue| queue.events).max(), Some(4));
    script.unblock(client);
    let lines =
        |from: u64, to: u64| (from..to).map(|n| format!("{{\"d\":{n}}}")).collect::<Vec<_>>().join("\n");
    let messages = script.messages(client);
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[0], lines(0, 10));
    assert_eq!(gap(&messages[1]), Some(("a".into(), 16.into())));
    assert_eq!(messages[2], lines(16, 20));
    assert_eq!(script.shard.held_bytes(), 0);
}

#[test]
fn who_leaves_takes_nothing_from_those_who_stay() {
    let mut script = Script::new(Limits { queue_events: 2, ..Limits::default() });
    let publisher = script.connect(Door::Publish, usize::MAX);
    let clients: Vec<usize> =
        (0..4).map(|_| script.open(usize::MAX, "/feed/a?policy=drop-oldest", UPGRADE)).collect();
    for client in &clients {
        script.stop_reading_after(*client, 3);
    }
    // One event each goes out in part, and of the others the last two are kept.
    script.publish(publisher, "a", 1);
    script.publish(publisher, "a", 9);
    // The first goes, so the last has its place; then the one in the middle.
    for gone in [0, 2] {
        script.pipes[clients[gone]].borrow_mut().break_off();
        script.run();
    }
    script.publish(publisher, "a", 1);
    for stays in [1, 3] {
        script.unblock(clients[stays]);
        let messages = script.messages(clients[stays]);
        let told: Vec<_> = messages.iter().filter_map(|text| gap(text)).collect();
        assert_eq!(told, [("a".into(), 8.into())], "{messages:?}");
        let events: Vec<_> = messages.iter().filter(|text| text.starts_with("{\"d\"")).collect();
        assert_eq!(events, [r#"{"d":0}"#, r#"{"d":8}"#, r#"{"d":0}"#], "{messages:?}");
    }
    for stays in [1, 3] {
        script.pipes[clients[stays]].borrow_mut().break_off();
    }
    script.run();
    assert!(script.shard.is_clean());
}

#[test]
fn what_was_left_out_of_a_topic_is_told_before_it_is_left() {
    let mut script = Script::new(Limits { queue_events: 2, ..Limits::default() });
    let publisher = script.connect(Door::Publish, usize::MAX);
    let client = script.open(usize::MAX, "/ws?topics=a,b&policy=drop-oldest", UPGRADE);
    script.stop_reading_after(client, 3);
    script.publish(publisher, "b", 1);
    script.publish(publisher, "a", 5);
    script.publish(publisher, "b", 3);
    // Nothing of `a` is queued any more, and two of `b` are.
    script.say(client, r#"{"type":"unsubscribe","topics":["a"]}"#);
    script.say(client, r#"{"type":"subscribe","topics":["c"]}"#);
    script.publish(publisher, "a", 1);
    script.unblock(client);
    let messages = script.messages(client);
    let seen: Vec<String> = messages
        .iter()
        .map(|text| {
            let message: Value = serde_json::from_str(text).unwrap();
            let data = &message["data"];
            match message["type"].as_str().unwrap() {
                "event" => format!("{} {data}", message["category"]),
                "gap" => format!("{} -{}", data["topic"], data["dropped"]),
                kind => format!("{kind} {}", data["categories"]),
            }
        })
        .collect();
    let expected = [
        r#"subscription-ack ["a","b"]"#,
        r#""b" 0"#,
        r#""b" -1"#,
        r#""b" 1"#,
        r#""b" 2"#,
        r#""a" -5"#,
        r#"unsubscription-ack ["b"]"#,
        r#"subscription-ack ["b","c"]"#,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn who_comes_back_to_an_event_stream_is_told_that_nobody_knows_what_it_missed() {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    let headers = format!("{ACCEPT}Last-Event-ID: 17\r\n");
    let both = script.open(usize::MAX, "/sse?topics=a,b", &headers);
    let feed = script.open(usize::MAX, "/feed/a", &headers);
    script.publish(publisher, "a", 1);
    for (client, topics) in [(both, &["a", "b"][..]), (feed, &["a"])] {
        let items = script.items(client);
        assert_eq!(items.len(), topics.len() + 1, "{items:?}");
        for (item, topic) in items.iter().zip(topics) {
            let Item::Event { name, data } = item else { panic!("{item:?}") };
            assert_eq!((&**name, gap(data)), ("gap", Some((topic.to_string(), Value::Null))));
        }
    }
    assert_eq!(script.items(feed).last(), Some(&event("e", r#"{"d":0}"#)));
}

#[test]
fn who_finds_no_place_is_told_in_its_own_dialect() {
    let full = Limits { max_clients: 1, ..Limits::default() };
    let no_topics = Limits { max_topics: 1, ..Limits::default() };
    for (limits, error) in [(full, "Server capacity exceeded"), (no_topics, "max_topics")] {
        let mut script = Script::new(limits);
        let first = script.open(usize::MAX, "/feed/a", UPGRADE);
        for path in ["/feed/b", "/feed/b?batch=ndjson"] {
            let client = script.open(usize::MAX, path, UPGRADE);
            let frames = script.frames(client);
            assert_eq!(frames.len(), 2, "{path}: {frames:?}");
            assert!(frames[0].1.contains(error), "{path}: {frames:?}");
            assert_eq!(script.close_code(client), Some(1013), "{path}");
        }
        for path in ["/feed/b", "/sse?topics=b,c"] {
            let client = script.open(usize::MAX, path, ACCEPT);
            let items = script.items(client);
            let [Item::Event { name, data }, end, retry] = &items[..] else { panic!("{path}: {items:?}") };
            assert!(name == "error" && data.contains(error), "{path}: {data}");
            assert_eq!((end, is_retry(retry)), (&comment("closed: at_capacity"), true), "{path}");
            assert!(script.pipes[client].borrow().shut, "{path}");
        }
        assert!(script.is_there(first));
        assert_eq!(script.shared.topics.count(), 1);
    }
}

#[test]
fn a_shutdown_gives_event_streams_what_they_are_owed_and_then_their_end() {
    let mut script = Script::new(Limits { drain_spread: Duration::ZERO, ..Limits::default() });
    let publisher = script.connect(Door::Publish, usize::MAX);
    let idle = script.open(usize::MAX, "/feed/b", ACCEPT);
    let behind = script.open(usize::MAX, "/feed/a", ACCEPT);
    script.stop_reading_after(behind, 10);
    script.publish(publisher, "a", 3);
    script.shared.begin_drain(script.now).unwrap();
    script.run();
    assert!(!script.is_there(idle) && script.is_there(behind));
    let late = script.open(usize::MAX, "/sse?topics=a", ACCEPT);
    script.unblock(behind);
    for (client, events) in [(idle, 0), (behind, 3), (late, 1)] {
        let items = script.items(client);
        assert_eq!(items.len(), events + 2, "{items:?}");
        assert_eq!(items[events], comment("closed: shutting_down"));
        assert!(is_retry(&items[events + 1]) && script.pipes[client].borrow().shut);
    }
    assert_eq!(script.items(behind)[..3], [0, 1, 2].map(|n| event("e", &format!("{{\"d\":{n}}}"))));
    assert!(matches!(&script.items(late)[0], Item::Event { name, .. } if name == "error"));
}

#[test]
fn every_byte_may_be_the_last_that_the_kernel_takes() {
    for (path, headers) in [
        ("/ws?topics=a&clientId=me&policy=drop-oldest", UPGRADE),
        ("/feed/a?policy=drop-oldest", UPGRADE),
        ("/feed/a?batch=ndjson&policy=drop-oldest", UPGRADE),
        ("/feed/a?policy=drop-oldest", ACCEPT),
        ("/sse?topics=a&policy=drop-oldest", ACCEPT),
    ] {
        for cut in 0.. {
            let mut script = Script::new(Limits { queue_events: 3, ..Limits::default() });
            let publisher = script.connect(Door::Publish, usize::MAX);
            let client = script.open(usize::MAX, path, headers);
            let before = script.body(client).len();
            // Nothing at all cannot be: then a writable edge would come for ever.
            script.stop_reading_after(client, cut + 1);
            script.publish_all(publisher, "a", 0..2);
            script.publish_all(publisher, "a", 2..5);
            if headers == UPGRADE {
                let mut ping = Vec::new();
                write(&mut ping, true, 9, b"?", &mut fastrand::Rng::with_seed(0));
                script.send(client, &ping);
            }
            script.publish_all(publisher, "a", 5..6);
            let is_whole = script.body(client).len() < before + cut + 1;
            script.unblock(client);
            let texts: Vec<String> = if headers == UPGRADE {
                let frames = script.frames(client);
                assert!(frames.contains(&(10, "?".into())), "{path}, {cut}: {frames:?}");
                let lines = frames.into_iter().filter(|(opcode, _)| *opcode == 1).map(|(_, text)| text);
                lines.flat_map(|text| text.split('\n').map(str::to_owned).collect::<Vec<_>>()).collect()
            } else {
                let data = |item| if let Item::Event { data, .. } = item { Some(data) } else { None };
                script.items(client).into_iter().filter_map(data).collect()
            };
            let (mut next, mut told) = (0..6, 0);
            for text in texts {
                let message: Value = serde_json::from_str(&text).expect(&text);
                if let Some((_, dropped)) = gap(&text) {
                    told += dropped.as_u64().unwrap();
                    continue;
                }
                let data = if message["d"].is_u64() { &message["d"] } else { &message["data"] };
                if let Some(n) = data.as_u64() {
                    let left_out = next.by_ref().take_while(|expected| *expected != n).count() as u64;
                    assert_eq!(left_out, told, "{path}, {cut}: {left_out} are missing, {told} were told");
                    told = 0;
                }
            }
            assert_eq!((next.next(), told, script.shard.held_bytes()), (None, 0, 0), "{path}, {cut}");
            if is_whole {
                break;
            }
        }
    }
}

/// A client that has caught up with `h:d`, is behind with `h:c`, and begins with `h:a`, where it is further behind,
/// once event 5000 of the three has passed `h:d`. `meanwhile`: what it does then.
fn one_behind_another(meanwhile: impl Fn(&mut Script, usize)) -> Vec<Value> {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    script.publish_all(publisher, "h:a", 0..2000);
    script.publish_all(publisher, "h:c", 2000..2500);
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["h:d"]}"#);
    script.stop_reading_after(client, 3000);
    script.subscribe_from_the_beginning(client, "h:c");
    script.publish_all(publisher, "h:d\nh:c\nh:a", 5000..5001);
    script.subscribe_from_the_beginning(client, "h:a");
    meanwhile(&mut script, client);
    script.unblock(client);
    script.publish_all(publisher, "h:a", 5001..5002);
    script.read(client);
    script.messages(client).iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// How often event 5000 of these messages came, and how much of its topics was told to be missing.
fn came_and_missed(messages: &[Value]) -> (usize, u64) {
    let came = messages.iter().filter(|message| message["data"] == 5000).count();
    (came, messages.iter().filter_map(|message| message["data"]["dropped"].as_u64()).sum())
}

#[test]
fn what_waits_for_one_that_is_behind_has_not_come_when_another_begins() {
    let messages = one_behind_another(|_, _| ());
    assert_eq!(came_and_missed(&messages), (1, 0));
    assert_eq!(messages.last().unwrap()["data"], 5001);
}

#[test]
fn what_had_come_when_one_began_has_come_for_all_that_begin_later_while_it_is_behind() {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["h:c"]}"#);
    script.publish_all(publisher, "h:a", 0..1000);
    script.publish_all(publisher, "h:b", 1000..2000);
    script.publish_all(publisher, "h:a\nh:b\nh:c", 5000..5001);
    script.read(client);
    script.stop_reading_after(client, 3000);
    script.subscribe_from_the_beginning(client, "h:b");
    script.publish_all(publisher, "h:a\nh:b\nh:c", 5001..5002);
    script.subscribe_from_the_beginning(client, "h:a");
    script.unblock(client);
    assert_eq!(script.shard.held_bytes(), 0);
    let messages = script.messages(client);
    let came = |n: u64| messages.iter().filter(|text| text.contains(&format!("\"data\":{n},"))).count();
    assert_eq!((came(0), came(1000), came(5000), came(5001)), (1, 1, 1, 1));
}

#[test]
fn what_came_through_one_does_not_come_again_where_one_that_is_behind_wants_more() {
    let mut script = Script::new(Limits { queue_events: 10_000, ..Limits::default() });
    let publisher = script.connect(Door::Publish, usize::MAX);
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["h:c"]}"#);
    script.publish_all(publisher, "h:b", 1000..2000);
    script.stop_reading_after(client, 3000);
    let epoch = script.shared.topics.find("h:b").unwrap().epoch().unwrap();
    let since = json!({"h:b": {"epoch": format!("{epoch:016x}"), "offset": 0}});
    let message = json!({"type": "subscribe", "topics": ["h:b"], "since": since, "onlyCategories": ["h:b"]});
    script.say(client, &message.to_string());
    script.publish_all(publisher, "h:c\nh:b", 5000..5001);
    script.say(client, r#"{"type":"subscribe","topics":["h:b"]}"#);
    script.publish_all(publisher, "h:c\nh:b", 5001..5002);
    script.unblock(client);
    let messages = script.messages(client);
    let came = |n: u64| messages.iter().filter(|text| text.contains(&format!("\"data\":{n},"))).count();
    assert_eq!((came(1000), came(1999), came(5000), came(5001)), (1, 1, 1, 1));
}

#[test]
fn what_waited_for_one_that_is_left_comes_through_the_one_that_began_later() {
    let leave = |script: &mut Script, client| {
        script.say(client, r#"{"type":"unsubscribe","topics":["h:c"]}"#);
    };
    assert_eq!(came_and_missed(&one_behind_another(leave)), (1, 0));
}

#[test]
fn what_was_not_wanted_before_comes_through_one_that_begins_later() {
    let mut script = Script::new(Limits::default());
    let publisher = script.connect(Door::Publish, usize::MAX);
    let client = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["h:d"],"events":["other"]}"#);
    script.publish_all(publisher, "h:d\nh:a", 1000..1001);
    script.say(client, r#"{"type":"subscribe","topics":["h:d"]}"#);
    script.publish_all(publisher, "h:d\nh:a", 1001..1002);
    script.subscribe_from_the_beginning(client, "h:a");
    script.read(client);
    let events = script.messages(client);
    let came = |n: u64| events.iter().filter(|text| text.contains(&format!("\"data\":{n},"))).count();
    assert_eq!((came(1000), came(1001)), (1, 1), "{events:?}");
}

#[test]
fn whoever_drops_the_newest_does_so_too_where_all_queues_together_are_too_large() {
    let limits =
        Limits { max_outbox_bytes: 20_000, queue_events: 100_000, queue_bytes: 1 << 30, ..Limits::default() };
    let subscribe = |policy: &str| json!({"type":"subscribe","topics":["h:a"],"policy":policy}).to_string();
    let mut script = Script::new(limits);
    let newest = script.subscribe(3000, &subscribe("drop-newest"));
    let oldest = script.subscribe(3000, &subscribe("drop-oldest"));
    let closed = script.subscribe(3000, &subscribe("disconnect"));
    let publisher = script.connect(Door::Publish, usize::MAX);
    for n in 0..500 {
        script.publish_all(publisher, "h:a", n..n + 1);
        assert!(script.shard.held_bytes() <= 20_000, "{} bytes are held", script.shard.held_bytes());
    }
    let counts = CloseReason::ALL.map(|reason| script.shared.metrics[0].closed(reason));
    assert_eq!((counts[CloseReason::OutboxMemory as usize], counts.iter().sum()), (1, 1));
    assert!(!script.is_there(closed) && script.is_there(newest) && script.is_there(oldest));
    for (client, number) in [(newest, 500), (oldest, 501)] {
        script.unblock(client);
        script.publish_all(publisher, "h:a", number..number + 1);
        script.read(client);
        let messages = script.messages(client);
        let messages: Vec<Value> = messages.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        // Every number comes, or is counted where it is missing.
        let (mut next, mut kept) = (0, 0);
        for message in &messages {
            if let Some(dropped) = message["data"]["dropped"].as_u64() {
                next += dropped;
            } else if message["type"] == "event" {
                assert_eq!(message["data"].as_u64(), Some(next), "{message}");
                kept += 1;
                next += 1;
            }
        }
        assert!(next > 500 && kept < 400, "{kept} of {next} came");
    }
}

#[test]
fn receipts_wait_for_who_takes_more_than_one_flush_and_not_for_who_takes_nothing() {
    let mut script = Script::new(Limits::default());
    let blocked = script.subscribe(600, r#"{"type":"subscribe","topics":["a"],"policy":"drop-oldest"}"#);
    let name = "n".repeat(100);
    let subscribe = json!({"type": "subscribe", "topics": ["a"], "clientId": name});
    script.subscribe(usize::MAX, &subscribe.to_string());
    let publisher = script.connect(Door::Publish, usize::MAX);
    script.publish(publisher, "a", 20);
    // From another shard. This one then sleeps, with everything done that it can do.
    let asker = Asker { shard: 0, key: Key { number: u32::MAX, generation: 0 } };
    let (mut ingress, to) = (Ingress::default(), FromShard { shared: &script.shared, shard: 0 });
    let all: Vec<_> = (20..3020).map(|n| Receipt::new(asker, n)).collect();
    for receipt in &all {
        let data = receipt.sequence.to_string();
        let event = Publish { topics: "a", event: "e", key: "", data: &data, timestamp_ms: 1 };
        ingress.add(&event, Some(receipt), script.now, &to, &script.shared.metrics[0]);
    }
    ingress.commit(script.now, &to, &script.shared.metrics[0]);
    all.iter().for_each(|receipt| assert!(!receipt.let_go()));
    script.run();
    assert!(all.iter().all(|receipt| receipt.is_complete()));
    let half = Reach { matched: 2, written: 1, ..Reach::default() };
    assert_eq!(all[0].reach(), Reach { left_out: 1, ..half });
    assert_eq!(all[2999].reach(), Reach { queued: 1, ..half });
    script.read(blocked);
}

#[test]
fn who_catches_up_while_an_event_is_on_its_way_has_it_and_counts_once() {
    for topics in ["h:x", "h:x\nh:y", "h:y\nh:x"] {
        let mut script = Script::new(Limits::default());
        let publisher = script.connect(Door::Publish, usize::MAX);
        script.publish_all(publisher, topics, 0..1);
        let busy = script.subscribe(usize::MAX, r#"{"type":"subscribe","topics":["a","h:x"]}"#);
        let client = script.open(usize::MAX, "/ws", UPGRADE);
        // One turn, in which another client is owed so much that the last event stays in the link, while this one
        // reads it from the history.
        let bytes = [events("a", 0, 1..601), events(topics, FLAG_RECEIPT, 601..602)].concat();
        script.pipes[publisher].borrow_mut().send(&bytes);
        let mut ping = Vec::new();
        write(&mut ping, true, 9, b"its turn is the first", &mut fastrand::Rng::with_seed(0));
        script.pipes[busy].borrow_mut().send(&ping);
        script.subscribe_from_the_beginning(client, "h:x");
        script.read(client);
        assert_eq!(script.messages(client).iter().filter(|text| text.contains("\"data\":601,")).count(), 1);
        let both = Reach { matched: 2, written: 2, ..Reach::default() };
        assert_eq!(script.receipts(publisher), [(601, both)], "{topics:?}");
    }
}
