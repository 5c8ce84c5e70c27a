//! An HTTP caller: publishes to the topic that is its shard's own, and asks for figures. It sends the next
//! request without waiting for the answer to the last.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use serde_json::Value;

use crate::book::{Book, NAMES, Reach, SOCKET_TOPICS, TOPICS};
use crate::socket::Pipe;

#[derive(Debug)]
enum Request {
    /// Whether it asks how far they went.
    Publish(Vec<usize>, bool),
    BadPublish,
    Status,
    Topic(usize),
    Figures,
    /// Much that is no request.
    Garbage,
}

pub struct Caller {
    pub id: usize,
    pub shard: usize,
    pub pipe: Rc<RefCell<Pipe>>,
    pub publishes: bool,
    outgoing: VecDeque<u8>,
    queued: usize,
    consumed: usize,
    /// Not yet answered, with where each ends.
    requests: VecDeque<(usize, Request)>,
    /// Not yet accepted.
    unaccepted: VecDeque<(usize, usize)>,
    answers: Vec<u8>,
    /// An answer that ends the connection came.
    pub is_over: bool,
}

impl Caller {
    pub fn new(id: usize, shard: usize, pipe: Rc<RefCell<Pipe>>, publishes: bool) -> Self {
        Self {
            id,
            shard,
            pipe,
            publishes,
            outgoing: VecDeque::new(),
            queued: 0,
            consumed: 0,
            requests: VecDeque::new(),
            unaccepted: VecDeque::new(),
            answers: Vec::new(),
            is_over: false,
        }
    }

    // What the caller does.

    pub fn act(&mut self, book: &mut Book, random: &mut fastrand::Rng) {
        if self.outgoing.len() > 200_000 || self.is_over {
            return;
        }
        match random.u8(..20) {
            0..3 => self.get("/api/websocket/status", Request::Status),
            3..5 => {
                let topic = random.usize(..3);
                let path = format!("/api/topics/{}", TOPICS[topic]);
                self.get(&path, Request::Topic(topic));
            }
            5 => self.get("/metrics", Request::Figures),
            6 => self.get("/api/v1/websocket/stats?tail=3", Request::Figures),
            7 if random.bool() => self.pipe.borrow_mut().break_off(),
            7 if random.u8(..8) == 0 => self.put(&[b'x'; 300_000], Request::Garbage),
            _ if !self.publishes => {}
            8..10 => {
                let body = r#"[{"topic":"alpha","event":"step","data":1},{"topic":"","event":"step"}]"#;
                self.post(body, Request::BadPublish, random);
            }
            _ => {
                let topic = SOCKET_TOPICS + self.shard;
                let events: Vec<usize> =
                    (0..random.usize(1..=6)).map(|_| book.write(vec![topic], 60, random)).collect();
                let entry = |event: &usize| {
                    let event = &mut book.events[*event];
                    event.data = event.data.trim().to_owned(); // What is around a value is not part of it.
                    let name = serde_json::to_string(NAMES[event.name]).unwrap();
                    event.given_ms = 0;
                    event.key = "";
                    format!("{{\"topic\":\"{}\",\"event\":{name},\"data\":{}}}", TOPICS[topic], event.data)
                };
                let body = events.iter().map(entry).collect::<Vec<_>>().join(",");
                let receipt = random.u8(..3) == 0;
                self.post(&format!("[{body}]"), Request::Publish(events, receipt), random);
            }
        }
    }

    fn get(&mut self, path: &str, request: Request) {
        let text = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
        self.put(text.as_bytes(), request);
    }

    fn post(&mut self, body: &str, request: Request, random: &mut fastrand::Rng) {
        let query = if matches!(request, Request::Publish(_, true)) { "?receipt=1" } else { "" };
        let head =
            format!("POST /api/publish{query} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n");
        let text = match random.u8(..3) {
            0 => format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            _ => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        };
        self.put(text.as_bytes(), request);
    }

    fn put(&mut self, bytes: &[u8], request: Request) {
        self.outgoing.extend(bytes);
        self.queued += bytes.len();
        if let Request::Publish(events, _) = &request {
            self.unaccepted.extend(events.iter().map(|event| (self.queued, *event)));
        }
        self.requests.push_back((self.queued, request));
    }

    pub fn pump(&mut self, all: bool, random: &mut fastrand::Rng) {
        if self.outgoing.is_empty() {
            return;
        }
        let most = if random.bool() { 100 } else { self.outgoing.len() };
        let count = if all { self.outgoing.len() } else { random.usize(1..=most.min(self.outgoing.len())) };
        let piece: Vec<u8> = self.outgoing.drain(..count).collect();
        self.pipe.borrow_mut().send(&piece);
    }

    pub fn read(&mut self, all: bool, random: &mut fastrand::Rng) {
        let mut pipe = self.pipe.borrow_mut();
        if all || random.bool() {
            pipe.take(if all { usize::MAX } else { random.usize(1..2000) });
        }
        if pipe.outbound == 0 && pipe.shut && pipe.is_intact() {
            pipe.end(true);
        }
    }

    // What happens at the node.

    /// The node has read so many bytes.
    pub fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
    }

    /// Bytes that the node has read behind a request that is not answered.
    pub fn read_ahead(&self) -> usize {
        self.requests.front().map_or(0, |(end, _)| self.consumed.saturating_sub(*end))
    }

    /// The node accepted so many of its events.
    pub fn accept(&mut self, count: u64) -> Vec<usize> {
        let mut events = Vec::new();
        for _ in 0..count {
            let (end, event) = self.unaccepted.pop_front().expect("an accepted event was written");
            assert!(end <= self.consumed, "accepted before it was whole");
            events.push(event);
        }
        events
    }

    /// The node wrote bytes to it.
    pub fn take_bytes(&mut self, bytes: &[u8]) {
        self.answers.extend_from_slice(bytes);
        while let Some(end) = self.answers.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(self.answers[..end + 4].to_vec()).unwrap();
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
            });
            let length: usize = length.expect("an answer has a length").parse().unwrap();
            if self.answers.len() < end + 4 + length {
                return;
            }
            let body = self.answers[end + 4..end + 4 + length].to_vec();
            self.answers.drain(..end + 4 + length);
            assert!(!self.is_over, "an answer after the last: {head}");
            let status: u16 = head[9..12].parse().unwrap();
            if matches!(status, 408 | 503) {
                // It took too long, or there was no room for its body, or the node shuts down.
                self.is_over = true;
                continue;
            }
            let (_, request) = self.requests.pop_front().expect("an answer to nothing");
            self.check(&request, status, &body);
        }
    }

    fn check(&mut self, request: &Request, status: u16, body: &[u8]) {
        let json = || -> Value { serde_json::from_slice(body).expect("the answer is JSON") };
        let expected = match request {
            Request::BadPublish => 400,
            Request::Garbage => 414,
            _ => 200,
        };
        assert_eq!(status, expected, "for {request:?}: {}", String::from_utf8_lossy(body));
        match request {
            Request::Publish(events, receipt) => {
                let mut answer = json();
                let reach = answer.as_object_mut().and_then(|answer| answer.remove("receipt"));
                assert_eq!(
                    (reach.is_some(), answer),
                    (*receipt, serde_json::json!({"accepted": events.len()}))
                );
                if let Some(reach) = reach {
                    let count = |name: &str| u32::try_from(reach[name].as_u64().unwrap()).unwrap();
                    let counts = ["matched", "written", "queued", "leftOut", "closed"].map(count);
                    Reach::of(counts);
                }
                let waits = self.unaccepted.front().is_some_and(|(_, event)| events.contains(event));
                assert!(!waits, "an answer to events that were not accepted");
            }
            Request::BadPublish => assert_eq!(json()["accepted"], 0),
            Request::Status => assert!(json()["connectedClients"].is_u64()),
            Request::Topic(topic) => assert_eq!(json()["topic"], TOPICS[*topic]),
            Request::Figures => {}
            Request::Garbage => self.is_over = true,
        }
    }

    /// Everything was read and written: every request is answered.
    pub fn check_quiet(&self) {
        let pipe = self.pipe.borrow();
        if pipe.is_intact() && !self.is_over && !pipe.shut {
            assert!(
                self.requests.is_empty(),
                "without an answer: {:?}; {} consumed, {}",
                self.requests,
                self.consumed,
                pipe.state()
            );
            assert!(pipe.inbound.is_empty(), "{} bytes were not read", pipe.inbound.len());
        }
    }

    pub fn is_gone(&self) -> bool {
        self.pipe.borrow().dropped
    }
}
