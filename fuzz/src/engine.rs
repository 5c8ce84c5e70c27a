//! The whole engine from bytes: they choose who connects and where, what is sent and in which pieces, who reads, how
//! hostile the kernel is, and how time passes. Afterwards everybody leaves, and nothing may be left.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire::clock::Now;
use fanwire::config::{HistoryLimits, Limits, StreamLimits};
use fanwire::dialect::envelope::Envelopes;
use fanwire::dialect::path::{Definition, Streams};
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Counts, Next, Shard};
use fanwire::fanout::shared::{Access, Shared, State};
use fanwire::link::Wake;
use fanwire::metrics::DropReason;
use fanwire::publish::wire::{
    FLAG_ACK, FLAG_RECEIPT, HEADER_LEN, Header, Kind, Publish, encode_hello, encode_ping,
};
use fanwire::session::policy::Policy;
use fanwire::topic::rules::{Rule, Rules};

use super::frames::{self, Reader};
use super::socket::{Op, Pipe, SimSocket, Tape, Temper};

const SECOND: u64 = 1_000_000_000;
/// Steps of one input at most, so that a long one is no hang.
const STEPS: usize = 500;
/// Connections of one input at most.
const CONNECTIONS: usize = 24;
/// Turns of a shard without time passing after which it is found to spin. A slice of the sweep is far below.
const TURNS: usize = 3000;

pub fn fuzz(input: &[u8]) {
    let mut input = Input(input);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS {
        let Some(op) = input.byte() else { break };
        world.step(op, &mut input);
    }
    world.end();
}

/// What is left of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte().unwrap_or_default())
    }

    /// As many bytes as the next one says.
    fn bytes(&mut self) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(self.number().min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.number() % from.len()]
    }
}

struct Node {
    shard: Option<Shard<SimSocket>>,
    next: Next,
    /// When a shutdown is looked at again.
    next_look: u64,
    bell: Arc<AtomicBool>,
}

struct Bell(Arc<AtomicBool>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One connection's far end.
struct Far {
    pipe: Rc<RefCell<Pipe>>,
    shard: usize,
    output: Output,
}

/// What the node wrote to a connection, looked at as it comes.
enum Output {
    /// Answers, of which the last may not be whole.
    Http(Vec<u8>),
    Frames(Reader),
    /// A response without an end.
    Stream,
    Publisher(Vec<u8>),
}

struct World {
    shared: Arc<Shared>,
    limits: Limits,
    nodes: Vec<Node>,
    far: Vec<Far>,
    mono: Cell<u64>,
    tape: Tape,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let shape = input.number();
        let shards = 1 + (shape & 1);
        let limits = Limits {
            max_clients: 6,
            max_publishers: 3,
            max_handshakes: 5,
            max_header_bytes: 1024,
            max_body_bytes: 2000,
            max_message_bytes: 1000,
            max_subscriptions: 4,
            max_topics: 6,
            max_publish_bytes: 3000,
            queue_events: 6,
            queue_bytes: 4000,
            max_outbox_bytes: shards * 10_000,
            max_history_bytes: 20_000,
            link_bytes: [300, 3000][shape >> 1 & 1],
            streams: vec![StreamLimits {
                queue_events: Some(3),
                write_timeout: Some(Duration::from_secs(2)),
                ..StreamLimits::default()
            }],
            ..Limits::default()
        };
        let mut envelopes = Envelopes::built_in();
        let definition = Definition {
            path: "/s/{id}",
            topic: "h{id}",
            envelope: r#"{"id":"{id}","at":{offset},"data":{data}}"#,
        };
        let streams = Streams::compile([definition], &[], &mut envelopes).expect("a stream that is right");
        let history = HistoryLimits { events: 20, bytes: 5000, age: Duration::from_secs(10) };
        let rule = Rule {
            prefix: "h".into(),
            history: Some(history),
            policies: Policy::ALL.into(),
            compress_above: (shape & 16 != 0).then_some(40),
        };
        let access = Access {
            publish_token: (shape & 4 != 0).then(|| "secret".to_owned()),
            has_admin: shape & 8 != 0,
            has_diagnostics: true,
            ..Access::default()
        };
        let mono = Cell::new(SECOND);
        let now = Now { mono: SECOND, wall_ms: 1_700_000_000_000 };
        let shared = Shared::new(shards, &limits, access, now).with_streams(streams, envelopes);
        let shared = Arc::new(shared.with_topic_rules(Rules::new(vec![rule])));
        shared.set_state(State::Ready);
        let node = |id: usize| {
            let bell = Arc::new(AtomicBool::new(false));
            shared.links[id].set_waker(Box::new(Bell(Arc::clone(&bell))));
            let shard = Shard::new(id, Arc::clone(&shared), Arc::new(limits.clone()), 7);
            Node { shard: Some(shard), next: Next::Now, next_look: u64::MAX, bell }
        };
        let nodes = (0..shards).map(node).collect();
        Self { shared, limits, nodes, far: Vec::new(), mono, tape: Tape::default() }
    }

    /// One thing happens. The upper half of `op` says to whom.
    fn step(&mut self, op: u8, input: &mut Input<'_>) {
        let who = usize::from(op >> 4);
        match op & 15 {
            0 => self.connect(who, input),
            1 | 2 => self.send(who, &canned(input.number(), &self.shared)),
            3 => self.send(who, input.bytes()),
            4 => {
                let (first, text) = (input.number() as u8, input.bytes());
                let mut out = Vec::new();
                let mut random = fastrand::Rng::with_seed(u64::from(first));
                frames::write(&mut out, first & 0x80 != 0, first & 0x4f, text, &mut random);
                self.send(who, &out);
            }
            5 => {
                let (topics, data) = (input.pick(&TOPICS), input.bytes());
                let Ok(data) = std::str::from_utf8(data) else { return };
                self.send(who, &event(topics, data));
            }
            6 | 7 => self.poll(who % self.nodes.len(), false),
            8 => (0..self.nodes.len()).for_each(|id| self.poll(id, true)),
            9 => {
                let most = 8 * input.number();
                if let Some(far) = self.far(who) {
                    far.borrow_mut().take(most);
                }
            }
            10 => self.everybody_reads(),
            11 => {
                let milliseconds = input.pick(&[1, 100, 1000, 2000, 5000, 10_000, 30_000, 60_000]);
                self.mono.set(self.mono.get() + milliseconds * 1_000_000);
            }
            12 => {
                let how = input.number();
                if let Some(far) = self.far(who) {
                    match how % 3 {
                        0 => far.borrow_mut().end(false),
                        1 => far.borrow_mut().end(true),
                        _ => far.borrow_mut().break_off(),
                    }
                }
            }
            13 => {
                let (number, how) = (input.number() as u32 % 8, who);
                let id = how >> 2 & 1;
                if let Some(Node { shard: Some(shard), .. }) = self.nodes.get_mut(id) {
                    shard.handle_ready(number, how & 1 != 0, how & 2 != 0);
                    self.turn(id);
                }
            }
            14 => self.settle(),
            _ => self.operate(input),
        }
    }

    fn far(&self, who: usize) -> Option<&Rc<RefCell<Pipe>>> {
        (!self.far.is_empty()).then(|| &self.far[who % self.far.len()].pipe)
    }

    fn connect(&mut self, who: usize, input: &mut Input<'_>) {
        if self.far.len() == CONNECTIONS {
            return;
        }
        let door = [Door::Public, Door::Public, Door::Publish, Door::Admin][who & 3];
        let id = (who >> 2) % self.nodes.len();
        let percent = input.number();
        let bad = |bit: u8, percent: u8| if who >> 2 > 1 && percent & 1 << bit != 0 { 40 } else { 0 };
        let temper = Temper {
            short_reads: bad(0, percent as u8),
            refused_reads: bad(1, percent as u8),
            short_writes: bad(2, percent as u8),
            refused_writes: bad(3, percent as u8),
            interrupts: bad(4, percent as u8),
        };
        let capacity = input.pick(&[usize::MAX, 100, 1000, 5000]);
        let pipe = Pipe::new(self.far.len(), capacity, temper, percent as u64);
        let Some(shard) = &mut self.nodes[id].shard else { return };
        pipe.borrow_mut().number = Some(shard.next_number());
        let now = now(&self.mono);
        shard.accept(SimSocket::new(&pipe, &self.tape), door, "fuzz", now);
        let output =
            if door == Door::Publish { Output::Publisher(Vec::new()) } else { Output::Http(Vec::new()) };
        self.far.push(Far { pipe, shard: id, output });
        self.turn(id);
    }

    fn send(&self, who: usize, bytes: &[u8]) {
        if let Some(far) = self.far(who) {
            far.borrow_mut().send(bytes);
        }
    }

    fn everybody_reads(&self) {
        for far in &self.far {
            far.pipe.borrow_mut().take(usize::MAX);
        }
    }

    /// What an operator does: new limits, and the end.
    fn operate(&mut self, input: &mut Input<'_>) {
        let limits = &mut self.limits;
        match input.number() {
            // One that is under way already is not begun again.
            0 => {
                let _ = self.shared.begin_drain(now(&self.mono));
                return;
            }
            1 => {
                let _ = self.shared.undo_drain();
                return;
            }
            n if n & 1 == 0 => limits.queue_events = 1 + n % 10,
            n => limits.max_outbox_bytes = self.nodes.len() * (2000 + 50 * n),
        }
        self.shared.set_limits(&Arc::new(limits.clone()));
    }

    /// The edges that there are, or the first of them, and a turn where there is a reason for one. Answers nothing:
    /// whoever wants to know whether anything is left asks [`Self::has_reason`].
    fn poll(&mut self, id: usize, all: bool) {
        if !self.has_reason(id) {
            return;
        }
        let Some(shard) = &mut self.nodes[id].shard else { return };
        for far in self.far.iter().filter(|far| far.shard == id) {
            let pipe = &mut *far.pipe.borrow_mut();
            let Some(number) = pipe.number.filter(|_| !pipe.dropped && (pipe.readable || pipe.writable))
            else {
                continue;
            };
            let (readable, writable) =
                (std::mem::take(&mut pipe.readable), std::mem::take(&mut pipe.writable));
            shard.handle_ready(number, readable, writable);
            if !all {
                break;
            }
        }
        self.turn(id);
    }

    fn has_reason(&self, id: usize) -> bool {
        let node = &self.nodes[id];
        if node.shard.is_none() {
            return false;
        }
        let is_due = |at: u64| at <= self.mono.get();
        node.bell.load(Ordering::Relaxed)
            || match node.next {
                Next::Now => true,
                Next::At(at) => is_due(at),
                Next::Wait => false,
            }
            || is_due(node.next_look)
            || self.far.iter().filter(|far| far.shard == id).any(|far| {
                let pipe = far.pipe.borrow();
                !pipe.dropped && (pipe.readable || pipe.writable)
            })
    }

    fn turn(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        let Some(shard) = &mut node.shard else { return };
        node.bell.store(false, Ordering::Relaxed);
        node.next = shard.turn(&|| now(&self.mono));
        // As the reactor does: not more often than that.
        let soon = self.mono.get() + 10_000_000;
        node.next_look = shard.drain_deadline().map_or(u64::MAX, |at| at.max(soon));
        check_counts(&self.shared, id, shard);
        if shard.is_finished() || shard.is_overdue(now(&self.mono)) {
            node.shard = None;
        }
        for op in self.tape.take() {
            if let Op::Wrote { connection, bytes } = op {
                self.far[connection].output.push(&bytes);
            }
        }
    }

    /// Everybody reads and every shard turns until nothing is under way.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            self.everybody_reads();
            let Some(id) = (0..self.nodes.len()).find(|id| self.has_reason(*id)) else { return };
            (0..self.nodes.len()).filter(|other| *other != id).for_each(|other| self.poll(other, true));
            self.poll(id, true);
        }
        panic!("the shards spin: {:?}", self.nodes.iter().map(|node| node.next).collect::<Vec<_>>());
    }

    /// Everybody leaves, each in its way; nothing may be left.
    fn end(&mut self) {
        for (place, far) in self.far.iter().enumerate() {
            let mut pipe = far.pipe.borrow_mut();
            pipe.calm();
            match place % 3 {
                0 => pipe.break_off(),
                place => pipe.end(place == 1),
            }
        }
        self.settle();
        let until = self.mono.get() + 300 * SECOND;
        while let Some(next) = self.next_timer() {
            assert!(next < until, "something is left after 300 seconds");
            self.mono.set(self.mono.get().max(next));
            self.settle();
        }
        for far in &self.far {
            let pipe = far.pipe.borrow();
            assert!(pipe.dropped || self.nodes[far.shard].shard.is_none(), "not closed: {}", pipe.state());
        }
        let count = |value: &std::sync::atomic::AtomicUsize| value.load(Ordering::Relaxed);
        if self.nodes.iter().any(|node| node.shard.is_none()) {
            return; // A shard that is shut down has taken its counts with it.
        }
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(shard) = &node.shard else { continue };
            assert!(shard.is_clean(), "something is left: {shard:?}");
            assert_eq!((shard.counts(), shard.queues().count()), (Counts::default(), 0));
            assert_eq!(self.shared.links[id].in_flight(), 0);
        }
        assert_eq!((count(&self.shared.clients), count(&self.shared.publishers)), (0, 0));
        assert_eq!((self.shared.topics.count(), self.shared.topics.history_bytes()), (0, 0));
    }

    /// When the first shard wants its turn.
    fn next_timer(&self) -> Option<u64> {
        let timer = |node: &Node| {
            node.shard.as_ref()?;
            let next = match node.next {
                Next::Now => 0,
                Next::At(at) => at,
                Next::Wait => u64::MAX,
            };
            Some(next.min(node.next_look)).filter(|at| *at < u64::MAX)
        };
        self.nodes.iter().filter_map(timer).min()
    }
}

/// Time creeps at every look.
fn now(mono: &Cell<u64>) -> Now {
    mono.set(mono.get() + 1000);
    Now { mono: mono.get(), wall_ms: 1_700_000_000_000 + mono.get() / 1_000_000 }
}

/// Delivered + dropped + pending = dispatched.
fn check_counts(shared: &Shared, id: usize, shard: &Shard<SimSocket>) {
    let metrics = &shared.metrics[id];
    let pending: u64 = shard.queues().map(|queue| u64::from(queue.events)).sum();
    let dropped: u64 = DropReason::all().map(|reason| metrics.dropped(reason)).sum();
    assert_eq!(metrics.deliveries.get() + dropped + pending, metrics.dispatched.get());
    assert_eq!(shard.counts().private_bytes, shard.queues().map(|queue| queue.private_bytes).sum::<usize>());
}

impl Output {
    /// Whatever is sent to the node, what it writes has its form.
    fn push(&mut self, bytes: &[u8]) {
        match self {
            Output::Stream => {}
            Output::Frames(reader) => {
                reader.push(bytes);
                while let Some(frame) = reader.next() {
                    assert!(frame.opcode != 1 || std::str::from_utf8(&frame.payload).is_ok());
                }
            }
            Output::Publisher(buffer) => {
                buffer.extend_from_slice(bytes);
                while let Some((header, body)) = buffer.split_first_chunk::<HEADER_LEN>() {
                    let header = Header::parse(header);
                    let kind = Kind::from_byte(header.kind);
                    assert!(
                        matches!(kind, Some(Kind::Ack | Kind::Error | Kind::Pong | Kind::Receipt)),
                        "{kind:?}"
                    );
                    let length = header.length as usize;
                    if body.len() < length {
                        break;
                    }
                    buffer.drain(..HEADER_LEN + length);
                }
            }
            Output::Http(buffer) => {
                buffer.extend_from_slice(bytes);
                while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = std::str::from_utf8(&buffer[..end]).expect("a head is UTF-8");
                    assert!(head.starts_with("HTTP/1.1 "), "{head}");
                    let rest = buffer[end + 4..].to_vec();
                    if head.starts_with("HTTP/1.1 101 ") {
                        // The echo sends binary back.
                        let mut reader = Reader::default();
                        reader.binary = true;
                        reader.deflated = head.contains("permessage-deflate");
                        *self = Output::Frames(reader);
                        return self.push(&rest);
                    }
                    if head.contains("text/event-stream") {
                        *self = Output::Stream;
                        return;
                    }
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
                    if rest.len() < length {
                        return;
                    }
                    buffer.drain(..end + 4 + length);
                }
            }
        }
    }
}

const TOPICS: [&str; 6] = ["a", "b", "h1", "h1\na", "a\nb\nh1\nh2", "other"];

fn event(topics: &str, data: &str) -> Vec<u8> {
    let mut out = Vec::new();
    // The beginning of a character is no key.
    let key = data.get(..1).unwrap_or_default();
    let publish = Publish { topics, event: "e", key, data, timestamp_ms: 0 };
    let flags = if data.len().is_multiple_of(2) { FLAG_ACK } else { FLAG_ACK | FLAG_RECEIPT };
    publish.encode(flags, data.len() as u64, &mut out).expect("it fits its fields");
    out
}

fn message(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frames::write(&mut out, true, 1, text.as_bytes(), &mut fastrand::Rng::with_seed(1));
    out
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Things that clients and publishers say, so that not every input has to find the words.
fn canned(number: usize, shared: &Shared) -> Vec<u8> {
    let get = |target: &str, headers: &str| {
        let deflates = headers == UPGRADE && shared.topics.rules().compress_any();
        let offer = if deflates { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        format!("GET {target} HTTP/1.1\r\nHost: n\r\n{headers}{offer}\r\n").into_bytes()
    };
    let post = |kind: &str, body: &str| {
        let length = body.len();
        let key = if number.is_multiple_of(3) { "Idempotency-Key: k\r\n" } else { "" };
        let query = if number.is_multiple_of(2) { "" } else { "?receipt=1" };
        format!("POST /api/publish{query} HTTP/1.1\r\nHost: n\r\n{key}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    };
    let control = |opcode: u8, payload: &[u8]| {
        let mut out = Vec::new();
        frames::write(&mut out, true, opcode, payload, &mut fastrand::Rng::with_seed(1));
        out
    };
    let epoch = shared.topics.find("h1").and_then(|topic| topic.epoch()).unwrap_or_default();
    match number % 40 {
        0 => get("/ws", UPGRADE),
        1 => get("/ws?topics=a,h1&clientId=me", UPGRADE),
        2 => get("/ws?topics=h1&policy=replay&last=true", UPGRADE),
        3 => get("/ws?topics=a,b&policy=conflate", UPGRADE),
        4 => get("/s/1", UPGRADE),
        5 => get("/s/1?batch=ndjson", UPGRADE),
        6 => get("/echo", UPGRADE),
        7 => get("/sse?topics=a,h1", ""),
        8 => get("/sse?topics=h1&policy=replay", &format!("Last-Event-ID: {epoch:016x}-1\r\n")),
        9 => get("/s/1?transport=sse", "Last-Event-ID: x\r\n"),
        10 => get("/healthz", ""),
        11 => get("/api/stats", ""),
        12 => get("/api/slow", ""),
        13 => get("/api/topics/h1/history?since=0", ""),
        14 => get("/metrics", "Connection: close\r\n"),
        15 => post(
            "application/json",
            r#"[{"topic":"a","event":"e","data":{"x":1}},{"topics":["h1","b"],"event":"f"}]"#,
        ),
        16 => post(
            "application/x-ndjson",
            &"{\"topic\":\"h1\",\"event\":\"e\",\"key\":\"k\",\"data\":[1]}\n".repeat(20),
        ),
        17 => post("application/json", "{"),
        18 => message(r#"{"type":"subscribe","topics":["a","h1"],"policy":"drop-oldest"}"#),
        19 => message(r#"{"type":"subscribe","topics":["b"],"policy":"drop-newest","events":["e"]}"#),
        20 => message(r#"{"type":"subscribe","topics":["h1","h2"],"policy":"replay"}"#),
        21 => message(&format!(
            r#"{{"type":"subscribe","topics":["h1"],"since":{{"h1":{{"epoch":"{epoch:016x}","offset":1}}}}}}"#
        )),
        22 => message(r#"{"type":"subscribe","topics":["a","b"],"policy":"conflate","last":true}"#),
        23 => message(r#"{"type":"subscribe","topics":["t1","t2","t3","t4","t5"]}"#),
        24 => message(r#"{"type":"unsubscribe","topics":["a","h1"]}"#),
        25 => message(r#"{"type":"ping"}"#),
        26 => message(r#"{"type":"pong"}"#),
        27 => control(9, b"are you there"),
        28 => control(10, b""),
        29 => control(8, &[3, 232]),
        30 => control(2, b"binary"),
        31 => event("a", "1"),
        32 => event("h1", r#"{"long":"value"}"#),
        33 => event("h1\na\nb", "[1,2,3]"),
        34 => (0..20).flat_map(|n| event(if n % 2 == 0 { "a" } else { "h1" }, "\"burst\"")).collect(),
        35 => event("h1", &format!("\"{}\"", "x".repeat(2500))),
        36 => event("a", &format!("\"{}\"", "y".repeat(900))).repeat(6),
        37 => {
            let mut out = Vec::new();
            encode_hello("secret", "fuzz", &mut out).expect("it fits");
            out
        }
        38 => {
            let mut out = Vec::new();
            encode_ping(Kind::Ping, 1, b"x", &mut out);
            out
        }
        _ => get("/", ""),
    }
}
