//! Small scripts for what the simulation once found, each with one shard and nothing at random.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fanwire::clock::Now;
use fanwire::config::Limits;
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Next, Shard};
use fanwire::fanout::shared::{Access, Shared, Stage, State};
use fanwire::publish::wire::Publish;

use crate::frames::{Reader, write};
use crate::socket::{Op, Pipe, SimSocket, Tape, Temper};

const NOW: Now = Now { mono: 1_000_000_000, wall_ms: 0 };

struct Script {
    shared: Arc<Shared>,
    shard: Shard<SimSocket>,
    tape: Tape,
    pipes: Vec<Rc<RefCell<Pipe>>>,
    /// What was written to each connection.
    written: Vec<Vec<u8>>,
}

impl Script {
    fn new(limits: Limits) -> Self {
        let shared = Arc::new(Shared::new(1, &limits, Access::default(), NOW));
        shared.set_state(State::Ready);
        let shard = Shard::new(0, Arc::clone(&shared), Arc::new(limits), 1);
        Self { shared, shard, tape: Tape::default(), pipes: Vec::new(), written: Vec::new() }
    }

    fn connect(&mut self, door: Door, capacity: usize) -> usize {
        let id = self.pipes.len();
        let pipe = Pipe::new(id, capacity, Temper::default(), 0);
        pipe.borrow_mut().number = Some(self.shard.next_number());
        self.shard.accept(SimSocket::new(&pipe, &self.tape), door, "script", NOW);
        self.pipes.push(pipe);
        self.written.push(Vec::new());
        id
    }

    /// A session with one subscription.
    fn subscribe(&mut self, capacity: usize, message: &str) -> usize {
        let client = self.connect(Door::Public, capacity);
        let request = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.send(client, request.as_bytes());
        self.say(client, message);
        self.read(client);
        client
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
        let mut bytes = Vec::new();
        for n in 0..events {
            let data = n.to_string();
            let publish = Publish { topics, event: "e", key: "", data: &data, timestamp_ms: 1 };
            publish.encode(0, n, &mut bytes).unwrap();
        }
        self.send(publisher, &bytes);
    }

    /// Takes what the kernel holds for a client until nothing more comes.
    fn read(&mut self, id: usize) {
        while self.pipes[id].borrow_mut().take(usize::MAX) > 0 {
            self.run();
        }
    }

    /// The texts of a client's frames.
    fn messages(&self, client: usize) -> Vec<String> {
        let end = self.written[client].windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let mut reader = Reader::default();
        reader.push(&self.written[client][end..]);
        std::iter::from_fn(|| reader.next())
            .map(|frame| String::from_utf8_lossy(&frame.payload).into_owned())
            .collect()
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
            let next = self.shard.turn(&|| NOW);
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
        .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap())
        .filter_map(|message| message["data"]["dropped"].as_u64())
        .sum();
    let events = messages.iter().filter(|text| text.contains(r#""type":"event""#)).count() as u64;
    assert_eq!((events + told, told > 40), (60, true), "{messages:#?}");
    assert!(messages.last().unwrap().contains(r#""data":49"#));
    assert!(script.shard.held_bytes() == 0);
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
        let mut script = Script::new(Limits { queue_events: 4, ..Limits::default() });
        let client =
            script.subscribe(600, r#"{"type":"subscribe","topics":["a","b"],"policy":"drop-oldest"}"#);
        let publisher = script.connect(Door::Publish, 600);
        // The events of `a` drive out those of `b`; the gap of `b` is told with its last one.
        for (topic, events) in [("a", 10), ("b", 4), ("a", 4), ("b", 1)] {
            script.publish(publisher, topic, events);
        }
        script.shared.set_state(State::Draining);
        script.shared.begin(Stage::Quiesce);
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
