//! Whole sessions through the engine, cut at every place: how what is sent is cut into reads makes no difference to a
//! byte of what comes out, here or at a bystander who is subscribed.
//!
//! `FANWIRE_TEST_SEED` is the first seed; `FANWIRE_TEST_SESSIONS` how many sessions are made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod common;

#[path = "simulation/frames.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod frames;
#[path = "simulation/inflate.rs"]
mod inflate;
#[path = "simulation/socket.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod socket;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fanwire::clock::Now;
use fanwire::config::{HistoryLimits, Limits};
use fanwire::dialect::envelope::Envelopes;
use fanwire::dialect::path::{Definition, Streams};
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Next, Shard};
use fanwire::fanout::shared::{Access, Shared, State};
use fanwire::publish::wire::{FLAG_ACK, HEADER_LEN, Header, Kind, Publish, encode_ping};
use fanwire::session::policy::Policy;
use fanwire::topic::rules::{Rule, Rules};
use socket::{Op, Pipe, SimSocket, Tape, Temper};

use common::raw::upgrade;
use fanwire::proto::websocket::masked;

/// Time stands still, so that every timestamp is the same.
const NOW: Now = Now { mono: 1_000_000_000, wall_ms: 1_705_313_700_000 };

/// Sessions of a plain `cargo test`, each cut at every place.
const SESSIONS: u64 = 10;

struct Engine {
    shared: Arc<Shared>,
    shard: Shard<SimSocket>,
    tape: Tape,
    pipes: Vec<Rc<RefCell<Pipe>>>,
    /// What each connection was sent.
    out: Vec<Vec<u8>>,
}

impl Engine {
    fn new() -> Self {
        let limits = Limits {
            max_message_bytes: 2000,
            max_body_bytes: 2000,
            max_publish_bytes: 2000,
            ..Limits::default()
        };
        let mut envelopes = Envelopes::built_in();
        let stream =
            Definition { path: "/s/{id}", topic: "{id}", envelope: r#"{"id":"{id}","data":{data}}"# };
        let streams = Streams::compile([stream], &[], &mut envelopes).unwrap();
        let shared = Shared::new(1, &limits, Access { has_diagnostics: true, ..Access::default() }, NOW);
        let rule = Rule {
            prefix: "h".into(),
            history: Some(HistoryLimits::default()),
            policies: Policy::ALL.into(),
            compress_above: Some(60),
        };
        let shared = shared.with_streams(streams, envelopes).with_topic_rules(Rules::new(vec![rule]));
        shared.set_state(State::Ready);
        let shared = Arc::new(shared);
        let shard = Shard::new(0, Arc::clone(&shared), Arc::new(limits), 1);
        Self { shared, shard, tape: Tape::default(), pipes: Vec::new(), out: Vec::new() }
    }

    fn connect(&mut self, door: Door) -> usize {
        let id = self.pipes.len();
        let pipe = Pipe::new(id, usize::MAX, Temper::default(), 1);
        pipe.borrow_mut().number = Some(self.shard.next_number());
        self.shard.accept(SimSocket::new(&pipe, &self.tape), door, "far", NOW);
        self.pipes.push(pipe);
        self.out.push(Vec::new());
        id
    }

    /// Bytes arrive, and everything is done that they ask for.
    fn send(&mut self, id: usize, bytes: &[u8]) {
        self.pipes[id].borrow_mut().send(bytes);
        loop {
            for pipe in &self.pipes {
                let pipe = &mut *pipe.borrow_mut();
                let (readable, writable) =
                    (std::mem::take(&mut pipe.readable), std::mem::take(&mut pipe.writable));
                if let Some(number) = pipe.number.filter(|_| !pipe.dropped && (readable || writable)) {
                    self.shard.handle_ready(number, readable, writable);
                }
            }
            let next = self.shard.turn(&|| NOW);
            for op in self.tape.take() {
                if let Op::Wrote { connection, bytes } = op {
                    self.out[connection].extend(bytes);
                }
            }
            if next != Next::Now && !self.pipes.iter().any(|pipe| pipe.borrow().readable) {
                return;
            }
        }
    }
}

/// What a session's far end and a bystander were sent.
fn run(door: Door, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let mut engine = Engine::new();
    let bystander = engine.connect(Door::Public);
    engine.send(bystander, upgrade("/ws?topics=a,b,h1").as_bytes());
    let id = engine.connect(door);
    for piece in pieces {
        engine.send(id, piece);
    }
    // The life of a log is named by chance.
    let epoch =
        engine.shared.topics.find("h1").and_then(|topic| topic.epoch()).expect("a topic with history");
    let epoch = format!("{epoch:016x}");
    let [out, others] = [id, bystander].map(|id| {
        let text =
            engine.out[id].utf8_chunks().map(|chunk| chunk.valid().replace(&epoch, "an epoch").into_bytes());
        let rest = engine.out[id].utf8_chunks().map(|chunk| chunk.invalid().to_vec());
        text.zip(rest).flat_map(|(valid, invalid)| [valid, invalid].concat()).collect::<Vec<u8>>()
    });
    (if door == Door::Publish { without_acks(&out) } else { out }, others)
}

/// How many events one ACK covers is the only thing that reads decide; the last word is the same.
fn without_acks(mut answers: &[u8]) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), Vec::new());
    while let Some(header) = answers.first_chunk::<HEADER_LEN>() {
        let header = Header::parse(header);
        let (frame, rest) = answers.split_at(HEADER_LEN + header.length as usize);
        if header.kind == Kind::Ack as u8 {
            last = frame.to_vec()
        } else {
            out.extend_from_slice(frame)
        }
        answers = rest;
    }
    out.extend(last);
    out
}

fn post(body: &str, chunked: bool) -> Vec<u8> {
    let head = "POST /api/publish HTTP/1.1\r\nHost: n\r\n";
    if !chunked {
        return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into();
    }
    let (one, two) = body.split_at(body.len() / 2);
    let chunks = format!("{:x}\r\n{one}\r\n{:X};x=y\r\n{two}\r\n0\r\nX: y\r\n\r\n", one.len(), two.len());
    format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").into()
}

/// A session: where it comes to, and everything that it sends.
fn session(seed: u64) -> (Door, Vec<u8>) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let mut bytes = Vec::new();
    match seed % 5 {
        0 | 1 => {
            let path = random
                .choice(["/ws", "/ws?topics=a,h1&clientId=me", "/s/a", "/s/h1?batch=ndjson", "/echo"])
                .unwrap();
            let deflates = random.bool() && !path.contains("ndjson") && path != "/echo";
            let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
            let offer = if deflates { offer } else { "\r\n\r\n" };
            bytes.extend(upgrade(path).replacen("\r\n\r\n", offer, 1).into_bytes());
            for _ in 0..random.usize(1..6) {
                bytes.extend(message(deflates, random));
            }
            (Door::Public, bytes)
        }
        2 | 3 => {
            for _ in 0..random.usize(1..5) {
                let event = r#"{"topics":["a","h1"],"event":"e\u00e9","data":{"n" : 1},"key":"k"}"#;
                match random.u8(..10) {
                    0 => bytes.extend(b"\r\nGET /healthz HTTP/1.1\r\nHost: n\r\n\r\n"),
                    1 => bytes.extend(b"HEAD /readyz HTTP/1.1\r\nHost: n\r\nX: \xc3\xa9\r\n\r\n"),
                    2 | 3 => bytes.extend(post(event, false)),
                    4 => bytes.extend(post(&format!("[{event},{event}]"), true)),
                    5 => bytes.extend(post("{\"topic\":1}", true)),
                    6 => bytes.extend(b"GET /api/topics/h1/history?since=0 HTTP/1.1\r\nHost: n\r\n\r\n"),
                    7 => bytes.extend(b"GET /diagnostics/http?x=%00 HTTP/1.1\r\nHost: n\r\nContent-Length: 4\r\n\r\n\r\n\r\n"),
                    8 => bytes.extend(b"GET /sse?topics=a,h1 HTTP/1.1\r\nHost: n\r\nLast-Event-ID: x\r\n\r\n"),
                    _ => {
                        let bad = random.choice(BAD_REQUESTS).unwrap();
                        bytes.extend(*bad);
                    }
                }
            }
            (Door::Public, bytes)
        }
        _ => {
            for sequence in 1..random.u64(2..7) {
                let topics = random.choice(["a", "h1", "b\na\nh1", "nobody", "bad\u{1}"]).unwrap();
                let data = random.choice(["1", "", "{\"x\":[1,2]}", "{", "\"\u{e9}\""]).unwrap();
                let publish = Publish { topics, event: "e", key: "k", data, timestamp_ms: sequence };
                let flags = if random.bool() { FLAG_ACK } else { 0 };
                match random.u8(..8) {
                    0 => encode_ping(Kind::Ping, sequence, b"ping", &mut bytes),
                    1 if seed.is_multiple_of(3) => {
                        let header = Header { length: u32::MAX, version: 1, kind: 2, flags, sequence };
                        bytes.extend(header.to_bytes());
                    }
                    _ => publish.encode(flags, sequence, &mut bytes).unwrap(),
                }
            }
            // One ACK at the end, of everything.
            let publish = Publish { topics: "a", event: "last", key: "", data: "null", timestamp_ms: 1 };
            publish.encode(FLAG_ACK, 99, &mut bytes).unwrap();
            (Door::Publish, bytes)
        }
    }
}

const BAD_REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: n\n\n",
    b"POST /api/publish HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    b"POST /api/publish HTTP/1.1\r\nHost: n\r\nContent-Length: 5000\r\n\r\nabc",
    b"GET /ws HTTP/1.1\r\nHost: n\r\nUpgrade: websocket\r\n\r\n\x81\x80",
    b"\x16\x03\x01",
];

/// Something that a WebSocket client sends.
fn message(deflates: bool, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let texts = [
        r#"{"type":"subscribe","topics":["a","h1"],"policy":"drop-oldest"}"#,
        r#"{"type":"subscribe","topics":["h1"],"since":{"h1":null},"last":true}"#,
        r#"{"type":"unsubscribe","topics":["a"]}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"Grüße €"}"#,
        "{",
        "",
    ];
    match random.u8(..12) {
        0..7 if deflates => {
            frames::write_text_deflated(&mut out, random.choice(texts).unwrap().as_bytes(), random);
        }
        0..7 => {
            frames::write_text(&mut out, random.choice(texts).unwrap().as_bytes(), random);
        }
        7 => out.extend(masked(0x89, b"are you there?")),
        8 => out.extend(masked(0x8a, b"")),
        9 => out.extend(masked(0x88, b"\x03\xe8bye")),
        10 => out.extend(masked(0x81, "\u{20ac}".repeat(50).as_bytes())),
        _ => match random.u8(..6) {
            0 => out.extend(masked(0x82, &[0; 200])),
            1 => out.extend(masked(0x81, b"abc\xe2\x82")),
            2 => out.extend(masked(0xc1, b"x")),
            3 => out.extend([0x81, 1, b'x']),
            4 => out.extend(masked(0x80, b"x")),
            _ => out.extend([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        },
    }
    out
}

fn compare(cut: &(Vec<u8>, Vec<u8>), whole: &(Vec<u8>, Vec<u8>), what: impl FnOnce() -> String) {
    if cut != whole {
        let shown =
            |(own, others): &(Vec<u8>, Vec<u8>)| format!("{}\n{}", own.escape_ascii(), others.escape_ascii());
        panic!("{}\nin pieces:\n{}\nwhole:\n{}", what(), shown(cut), shown(whole));
    }
}

#[test]
fn no_cut_changes_a_byte_of_what_comes_out() {
    let count =
        std::env::var("FANWIRE_TEST_SESSIONS").map_or(SESSIONS, |text| text.parse().expect("a number"));
    let first = std::env::var("FANWIRE_TEST_SEED").map_or(0, |text| text.parse().expect("a number"));
    let (mut cuts, mut bytes_out) = (0, 0);
    for seed in first..first + count {
        let (door, bytes) = session(seed);
        let whole = run(door, &[&bytes]);
        bytes_out += whole.0.len();
        let shown = || format!("seed {seed}: {}", bytes.escape_ascii());
        for cut in 1..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            compare(&run(door, &[head, tail]), &whole, || format!("cut at {cut}, {}", shown()));
            cuts += 1;
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        compare(&run(door, &single), &whole, || format!("byte by byte, {}", shown()));
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            let mut ends: Vec<usize> =
                (0..random.usize(2..8)).map(|_| random.usize(..=bytes.len())).collect();
            ends.extend([0, bytes.len()]);
            ends.sort_unstable();
            let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            compare(&run(door, &pieces), &whole, || format!("cut at {ends:?}, {}", shown()));
        }
    }
    println!("{count} sessions from seed {first}, {cuts} cuts");
    assert!(bytes_out > 0, "nothing ever came out");
}
