//! Everything that is against the protocols: HTTP that is none, frames against RFC 6455, messages that are no
//! commands, publishers' frames that do not add up, valid bytes with mistakes put in at random, and floods of what
//! is allowed. Where the answer is documented it is checked.

use std::io;
use std::time::{Duration, Instant};

use memchr::memmem;

use super::crowd::{Actor, Crowd, Manner, Then};
use super::{Control, Done, PATIENCE, Scale, Target, take_frame};
use fanwire::cli::load::upgrade;
use fanwire::proto::websocket::masked;

/// What the node has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// HTTP with this status.
    Status(u16),
    /// A close frame with this code.
    Closed(u16),
    /// A message of the type `error`; the client stays.
    Message,
    /// A pong.
    Pong,
    /// An ERROR with this code.
    Error(u16),
    /// Whatever it wants to: the bytes are random.
    Any,
}

/// Something to send, and how often it is one input.
struct Input {
    name: &'static str,
    bytes: Vec<u8>,
    count: u64,
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Http,
    WebSocket,
    Publish,
}

impl Answer {
    fn door(self) -> Door {
        match self {
            Self::Status(_) | Self::Any => Door::Http,
            Self::Closed(_) | Self::Message | Self::Pong => Door::WebSocket,
            Self::Error(_) => Door::Publish,
        }
    }
}

/// A publisher's frame with a header that says what it likes.
fn frame(length: u32, version: u8, kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend([version, kind]);
    frame.extend(flags.to_le_bytes());
    frame.extend(1_u64.to_le_bytes());
    frame.extend(body);
    frame
}

fn publish(topics: &str, data: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let lengths = [topics.len() as u16, 1, 0, 0];
    out.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
    out.extend(0_u64.to_le_bytes());
    out.extend(topics.as_bytes());
    out.push(b'e');
    out.extend(data.as_bytes());
    frame(out.len() as u32, 1, 2, 1, &out)
}

fn inputs() -> Vec<Input> {
    let request = |text: &str| format!("GET / HTTP/1.1\r\nHost: node\r\n{text}\r\n").into_bytes();
    let text = |text: &str| masked(0x81, text.as_bytes());
    let http: [(&str, Vec<u8>, u16); 12] = [
        ("not HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello\r\n\r\n".to_vec(), 400),
        ("a request line of spaces", b"GET  /  HTTP/1.1\r\n\r\n".to_vec(), 400),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        ("two lengths", request("Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        ("a length and chunks", request("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        ("a space before the colon", request("Content-Length : 1\r\n"), 400),
        ("a length below zero", request("Content-Length: -1\r\n"), 400),
        ("a NUL in a header", request("X: a\0b\r\n"), 400),
        ("an endless head", request(&format!("X: {}\r\n", "a".repeat(9_000))), 431),
        ("an endless request line", format!("GET /{} HTTP/1.1\r\n", "a".repeat(9_000)).into_bytes(), 414),
        ("very many headers", request(&"X: a\r\n".repeat(500)), 431),
        ("nothing is there", b"GET /../../etc/passwd HTTP/1.1\r\nHost: node\r\n\r\n".to_vec(), 404),
    ];
    let closed: [(&str, Vec<u8>, u16); 12] = [
        ("an unmasked frame", b"\x81\x02{}".to_vec(), 1002),
        ("a reserved bit", masked(0xC1, b"{}"), 1002),
        ("a reserved opcode", masked(0x83, b"{}"), 1002),
        ("a ping of 126 bytes", masked(0x89, &[0; 126]), 1002),
        ("a ping in fragments", masked(0x09, b"a"), 1002),
        ("a continuation of nothing", masked(0x80, b"a"), 1002),
        ("a message within a message", [masked(0x01, b"a"), masked(0x81, b"b")].concat(), 1002),
        ("a close of one byte", masked(0x88, b"a"), 1002),
        ("a close code that may not be sent", masked(0x88, &1005_u16.to_be_bytes()), 1002),
        ("binary", masked(0x82, b"\0\x01\x02"), 1003),
        ("text that is not UTF-8", masked(0x81, b"\xff\xfe"), 1007),
        ("an endless message", masked(0x81, &[b' '; 66_000]), 1009),
    ];
    let messages: [(&str, Vec<u8>); 8] = [
        ("not JSON", text("{")),
        ("not an object", text("[1,2,3]")),
        ("an unknown type", text(r#"{"type":"become-root"}"#)),
        ("no topics", text(r#"{"type":"subscribe"}"#)),
        ("topics of the wrong type", text(r#"{"type":"subscribe","topics":{"a":1}}"#)),
        ("a bad topic", text(r#"{"type":"subscribe","topics":["a\u0000b"]}"#)),
        ("a bad policy", text(r#"{"type":"subscribe","topics":["a"],"policy":"all"}"#)),
        ("very deep", text(&format!(r#"{{"type":{}"#, "[".repeat(20_000)))),
    ];
    let errors: [(&str, Vec<u8>, u16); 9] = [
        ("a version of the future", frame(0, 9, 2, 0, b""), 2),
        ("an unknown kind", frame(0, 1, 99, 0, b""), 2),
        ("a reserved bit of the flags", frame(0, 1, 2, 0x8000, b""), 1),
        ("a body too short", frame(3, 1, 2, 0, b"abc"), 1),
        ("lengths that do not add up", frame(16, 1, 2, 0, &[0xff; 16]), 1),
        ("a body of gigabytes", frame(u32::MAX, 1, 2, 0, b""), 6),
        ("no topic", publish("", "1"), 4),
        ("a bad topic", publish("a\nb\u{7}", "1"), 4),
        ("data that is not JSON", publish("noise", "{\"a\":}"), 5),
    ];
    let status = |(name, bytes, status)| Input { name, bytes, count: 1, answer: Answer::Status(status) };
    let close = |(name, bytes, code)| Input { name, bytes, count: 1, answer: Answer::Closed(code) };
    // Those that leave the connection standing come many at a time.
    let message = |(name, bytes): (_, Vec<u8>)| {
        let count = if bytes.len() > 1000 { 2 } else { 50 };
        Input { name, bytes: bytes.repeat(count), count: count as u64, answer: Answer::Message }
    };
    let error = |(name, bytes, code): (_, Vec<u8>, u16)| {
        let count = if matches!(code, 4 | 5) { 50 } else { 1 };
        Input { name, bytes: bytes.repeat(count), count: count as u64, answer: Answer::Error(code) }
    };
    let pings = Input {
        name: "a flood of pings",
        bytes: masked(0x89, &[7; 100]).repeat(500),
        count: 500,
        answer: Answer::Pong,
    };
    let all = http.into_iter().map(status).chain(closed.into_iter().map(close));
    let all = all.chain(messages.into_iter().map(message)).chain(errors.into_iter().map(error));
    all.chain([pings]).collect()
}

/// Valid bytes with mistakes in them: some are changed, left out, repeated or cut off.
fn mangled(random: &mut fastrand::Rng) -> (Door, Vec<u8>) {
    let door = [Door::Http, Door::WebSocket, Door::Publish][random.usize(..3)];
    let mut bytes = match door {
        Door::Http => {
            let body = r#"{"topic":"noise","event":"e","data":{"a":[1,2,3]}}"#;
            let length = body.len();
            format!("POST /api/publish HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n{body}")
                .into()
        }
        Door::WebSocket => {
            let message =
                masked(0x81, br#"{"type":"subscribe","topics":["noise","more noise"],"last":true}"#);
            [masked(0x89, b"ping"), message, masked(0x81, br#"{"type":"ping"}"#)].concat()
        }
        Door::Publish => [publish("noise", "{\"a\":[1,2,3]}"), publish("noise\nmore noise", "null")].concat(),
    };
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..bytes.len().max(1));
        match random.u32(..5) {
            0 => bytes.truncate(at.max(1)),
            1 => drop(bytes.drain(at..(at + random.usize(..8)).min(bytes.len()))),
            2 => bytes.extend_from_within(at..),
            _ => bytes.iter_mut().skip(at).take(random.usize(1..4)).for_each(|byte| *byte = random.u8(..)),
        }
    }
    (door, bytes)
}

struct Sender {
    door: Door,
    /// What of the list it sends; `None`: something mangled.
    input: Option<usize>,
    mangled: Vec<u8>,
    began: Instant,
    is_upgraded: bool,
    is_over: bool,
    answers: Vec<u8>,
}

struct Shared {
    inputs: Vec<Input>,
    sent: u64,
    answered: u64,
    connections: u64,
    done: Done,
}

impl Sender {
    fn send(&mut self, shared: &mut Shared, out: &mut Vec<u8>) {
        match self.input {
            Some(number) => {
                out.extend_from_slice(&shared.inputs[number].bytes);
                shared.sent += shared.inputs[number].count;
            }
            None => {
                out.append(&mut self.mangled);
                shared.sent += 1;
            }
        }
    }

    fn is_answered(&self, answer: Answer) -> bool {
        let is_there = |what: &[u8]| memmem::find(&self.answers, what).is_some();
        match answer {
            Answer::Status(status) => self.answers.starts_with(format!("HTTP/1.1 {status} ").as_bytes()),
            Answer::Closed(code) => {
                let mut rest = &self.answers[..];
                std::iter::from_fn(|| take_frame(&mut rest))
                    .any(|(opcode, payload)| opcode == 8 && payload.starts_with(&code.to_be_bytes()))
            }
            Answer::Message => is_there(br#"{"type":"error""#),
            Answer::Pong => is_there(&[0x8A, 100, 7, 7, 7]),
            Answer::Error(code) => {
                let [kind, rest @ ..] = self.answers.get(5..).unwrap_or_default() else { return false };
                *kind == 4 && rest.get(10..12) == Some(&code.to_le_bytes())
            }
            Answer::Any => true,
        }
    }
}

impl Actor for Sender {
    type Shared = Shared;

    fn connected(&mut self, shared: &mut Shared, out: &mut Vec<u8>) -> Then {
        shared.connections += 1;
        if self.door == Door::WebSocket {
            out.extend_from_slice(upgrade("/ws").as_bytes());
        } else {
            self.send(shared, out);
        }
        Then::Stay
    }

    fn received(&mut self, shared: &mut Shared, bytes: &[u8], out: &mut Vec<u8>) -> Then {
        self.answers.extend_from_slice(bytes);
        if self.door == Door::WebSocket && !self.is_upgraded {
            let Some(end) = memmem::find(&self.answers, b"\r\n\r\n") else { return Then::Stay };
            self.is_upgraded = self.answers.starts_with(b"HTTP/1.1 101");
            self.answers.drain(..end + 4);
            if !self.is_upgraded {
                self.is_over = true;
                return Then::Close;
            }
            self.send(shared, out);
            return Then::Stay;
        }
        if let Some(input) = self.input
            && self.is_answered(shared.inputs[input].answer)
        {
            shared.answered += 1;
            self.is_over = true;
            // Not everybody waits for the end.
            return if shared.answered.is_multiple_of(2) { Then::Close } else { Then::Reset };
        }
        Then::Stay
    }

    fn ended(&mut self, shared: &mut Shared) {
        if let Some(input) = self.input
            && !self.is_over
            && (self.is_upgraded || self.door != Door::WebSocket)
        {
            let Input { name, answer, .. } = &shared.inputs[input];
            let got = String::from_utf8_lossy(&self.answers[..self.answers.len().min(100)]);
            shared.done.complain(format!("{name}: {answer:?} should have come, and {got:?} came"));
        }
    }
}

pub fn run(target: &Target, scale: &Scale, mut random: fastrand::Rng, control: &Control) -> io::Result<Done> {
    let inputs = inputs();
    let many = inputs.len();
    let shared = Shared { inputs, sent: 0, answered: 0, connections: 0, done: Done::default() };
    let mut crowd = Crowd::<Sender>::new(shared)?;
    let (mut opened, mut swept) = (0, Instant::now());
    while !control.is_stopped() {
        while crowd.len() < scale.senders {
            // Each of the list in turn; every third is something nobody has thought of.
            let (door, input, mangled) = if opened % 3 == 2 {
                let (door, bytes) = mangled(&mut random);
                (door, None, bytes)
            } else {
                let number = random.usize(..many);
                (crowd.shared.inputs[number].answer.door(), Some(number), Vec::new())
            };
            let to = if door == Door::Publish { target.publish } else { target.http };
            let (is_upgraded, is_over, answers) = (false, false, Vec::new());
            let began = Instant::now();
            let sender = Sender { door, input, mangled, began, is_upgraded, is_over, answers };
            if !crowd.open(to, Manner::default(), sender)? {
                break;
            }
            opened += 1;
        }
        crowd.turn(Duration::from_millis(5))?;
        if swept.elapsed() > Duration::from_millis(50) {
            swept = Instant::now();
            crowd.sort_out(|sender, shared| {
                let age = sender.began.elapsed();
                if sender.input.is_none() && age > Duration::from_millis(200) {
                    return if sender.began.elapsed().as_nanos() % 2 == 0 {
                        Then::Close
                    } else {
                        Then::Reset
                    };
                }
                if age > PATIENCE {
                    sender.ended(shared);
                    return Then::Reset;
                }
                Then::Stay
            });
        }
        if crowd.shared.sent > control.passes() * 10 * many as u64 {
            control.pass();
        }
    }
    let Shared { sent, answered, connections, mut done, .. } = crowd.shared;
    done.count("malformed inputs", sent);
    done.count("connections", connections);
    done.count("answered as documented", answered);
    Ok(done)
}
