//! A client of any dialect and the model of its session: what it asked for, what it must get, what it may get.
//!
//! A message, or the request that it comes by, takes effect when the node reads its last byte, which the tape tells. From then on every accepted
//! event that the session wants is expected under the topic through which it is served: the first of the event's
//! topics that the session has and whose filter wants it. Only where a change overtakes events that are still in
//! the shard's link may the node decide either way: such events are `loose`.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use fanwire::config::Limits;
use fanwire::error::CloseReason;
use serde_json::Value;

use crate::audit::Vigil;
use crate::book::{Book, NAMES, TOPICS};
use crate::frames::{Reader, write, write_text};
use crate::socket::Pipe;
use crate::sse::{Item, Parser};
use crate::way::{CLIENT_IDS, Filter, Form, Kind, Shape, Subscribe, Visit, some_topic, tokens};

/// Answers that may wait for a client before the node looks at no more of what it sends.
const MANY_ANSWERS: usize = 400;

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// At once, and the kernel always has room for it: never closed, never loses anything.
    Healthy,
    /// Now and then a piece.
    Slow,
    /// Not at all.
    Stalled,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sub {
    topic: usize,
    filter: Filter,
    /// What is accepted after this order is wanted.
    since: u64,
}

/// A message on its way to the node.
#[derive(Clone, Debug)]
enum Asked {
    /// The request that it comes by; whether it is to be refused.
    Open(Subscribe, bool),
    Subscribe(Subscribe),
    Unsubscribe(Vec<usize>),
    Ping,
    WsPing(Vec<u8>),
    /// A pong of the WebSocket protocol.
    WsPong,
    Bad,
    Nothing,
    Close(Option<u16>),
    Violation,
}

/// An answer that the node owes, in this order.
#[derive(Debug)]
enum Owed {
    /// With the order at which it took effect and whether the limit of subscriptions forbids it.
    Subscribed(Subscribe, u64, bool),
    Unsubscribed(Vec<usize>, u64),
    Pong,
    WsPong(Vec<u8>),
    Error,
    /// That it may have missed something of a topic, since nobody knows when.
    Confession(usize),
}

/// An event about which the node may decide either way.
#[derive(Debug)]
struct Loose {
    order: u64,
    /// The topics under which it may come or be counted as missing.
    topics: Vec<usize>,
}

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    Open,
    /// Refused, closed by either side, or lost.
    Ended,
}

/// What a client needs to know of the world when something happens.
pub struct Context<'a> {
    pub book: &'a mut Book,
    /// The turn's first look at the clock, and its last.
    pub mono: u64,
    pub until: u64,
    pub draining: bool,
    pub max_subscriptions: usize,
    /// Close codes seen on the wire.
    pub closes: &'a mut HashMap<u16, u64>,
}

/// What comes in, being taken apart.
enum Input {
    Frames(Reader),
    EventStream(Parser),
}

pub struct Client {
    pub id: usize,
    pub shard: usize,
    pub pipe: Rc<RefCell<Pipe>>,
    pub nature: Nature,
    pub phase: Phase,
    pub shape: Shape,
    shape_number: usize,
    /// What the node holds it to, and when.
    pub vigil: Vigil,
    /// It said goodbye, or was silenced for good.
    pub is_leaving: bool,
    outgoing: VecDeque<u8>,
    queued: usize,
    consumed: usize,
    asked: VecDeque<(usize, Asked)>,
    head: Vec<u8>,
    pub is_upgraded: bool,
    input: Input,
    subs: Vec<Sub>,
    confirmed: Vec<Sub>,
    name: Option<String>,
    confirmed_name: Option<String>,
    owed: VecDeque<Owed>,
    expected: Vec<VecDeque<(u64, usize)>>,
    loose: Vec<Loose>,
    told: Vec<u64>,
    last: Vec<u64>,
    may_drop: Vec<bool>,
    /// Whether there ever was a subscription of which nothing may be left out.
    pub may_be_slow: bool,
    /// The model lost track of what exactly it wants: only order and bytes are checked.
    pub is_vague: bool,
    pub close_sent: Option<Option<u16>>,
    /// What it broke the protocol with, and how many bytes came before.
    violation: Option<(u16, usize)>,
    /// Why it was closed, as it was told.
    pub closed: Option<u16>,
    /// It was told why it cannot be served.
    is_turned_away: bool,
    /// The heartbeat's text came, and the frame is to follow.
    awaits_ping: bool,
    pings: u32,
    is_greeted: bool,
    pub retry: Option<u64>,
}

impl Client {
    /// A client that comes by some way; `topic`: to this topic.
    pub fn new(
        id: usize,
        shard: usize,
        pipe: Rc<RefCell<Pipe>>,
        nature: Nature,
        topic: Option<usize>,
        limits: &Limits,
        book: &mut Book,
        random: &mut fastrand::Rng,
    ) -> Self {
        let none = || vec![0; TOPICS.len()];
        let visit = Visit::random(topic, limits.max_subscriptions, random);
        let kind = visit.shape.kind;
        let input = match kind.is_web_socket() {
            true => Input::Frames(Reader::default()),
            false => Input::EventStream(Parser::default()),
        };
        let mut client = Self {
            id,
            shard,
            pipe,
            nature,
            phase: Phase::Handshake,
            shape_number: book.shape(&visit.shape),
            shape: visit.shape,
            vigil: Vigil::new(kind, limits),
            is_leaving: false,
            outgoing: VecDeque::new(),
            queued: 0,
            consumed: 0,
            asked: VecDeque::new(),
            head: Vec::new(),
            is_upgraded: false,
            input,
            subs: Vec::new(),
            confirmed: Vec::new(),
            name: None,
            confirmed_name: None,
            owed: VecDeque::new(),
            expected: vec![VecDeque::new(); TOPICS.len()],
            loose: Vec::new(),
            told: none(),
            last: none(),
            may_drop: vec![false; TOPICS.len()],
            may_be_slow: false,
            is_vague: false,
            close_sent: None,
            violation: None,
            closed: None,
            is_turned_away: false,
            awaits_ping: false,
            pings: 0,
            is_greeted: false,
            retry: None,
        };
        client.ask(Asked::Open(visit.subscribe, visit.is_refused), visit.request.as_bytes());
        client
    }

    pub fn is_healthy(&self) -> bool {
        self.nature == Nature::Healthy
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.is_upgraded
    }

    pub fn is_json(&self) -> bool {
        self.shape.kind == Kind::Json
    }

    fn is_web_socket(&self) -> bool {
        self.shape.kind.is_web_socket()
    }

    /// The code for how it broke the protocol, if the node has read any of that.
    pub fn violated(&self) -> Option<u16> {
        self.violation.filter(|(_, at)| self.consumed > *at).map(|(code, _)| code)
    }

    /// Bytes of events that it is owed at most, as far as is known: what is around the data has fewer than 1,000.
    pub fn owed_bytes(&self, book: &Book) -> usize {
        let expected = self.expected.iter().flatten().map(|(_, number)| *number);
        let loose = self.loose.iter().map(|loose| book.accepted[loose.order as usize - 1]);
        expected.chain(loose).map(|number| book.events[number].data.len() + 1000).sum()
    }

    /// Events that it is owed at most, as far as is known.
    pub fn owed_events(&self) -> usize {
        self.expected.iter().map(VecDeque::len).sum::<usize>() + self.loose.len()
    }

    fn ask(&mut self, asked: Asked, bytes: &[u8]) {
        self.outgoing.extend(bytes);
        self.queued += bytes.len();
        self.asked.push_back((self.queued, asked));
    }

    // What the client does.

    /// Sends a piece of what it has to say; `all`: all of it.
    pub fn pump(&mut self, all: bool, random: &mut fastrand::Rng) {
        if self.outgoing.is_empty() {
            return;
        }
        let most = if random.bool() { 8 } else { self.outgoing.len() };
        let count = if all { self.outgoing.len() } else { random.usize(1..=most.min(self.outgoing.len())) };
        let piece: Vec<u8> = self.outgoing.drain(..count).collect();
        self.pipe.borrow_mut().send(&piece);
    }

    /// Reads as its nature is, answers pings, and closes after a close.
    pub fn read(&mut self, all: bool, random: &mut fastrand::Rng) {
        let mut pipe = self.pipe.borrow_mut();
        match self.nature {
            _ if all => drop(pipe.take(usize::MAX)),
            Nature::Healthy => drop(pipe.take(usize::MAX)),
            Nature::Slow if random.u8(..3) == 0 => drop(pipe.take(random.usize(1..4000))),
            Nature::Slow => {}
            Nature::Stalled => return,
        }
        let (has_all, is_intact) = (pipe.outbound == 0, pipe.is_intact());
        let is_over = pipe.shut || pipe.dropped;
        drop(pipe);
        if has_all && is_intact && (is_over || (self.closed.is_some() && self.is_web_socket())) {
            self.pipe.borrow_mut().end(true);
            self.check_farewell();
        }
        if std::mem::take(&mut self.pings) > 0 && !self.is_leaving {
            let mut frame = Vec::new();
            if self.is_json() {
                write_text(&mut frame, br#"{"type":"pong"}"#, random);
                self.ask(Asked::Nothing, &frame);
            } else {
                write(&mut frame, true, 10, b"", random);
                self.ask(Asked::WsPong, &frame);
            }
        }
    }

    /// Everything has come: those who did nothing wrong know when to come back.
    fn check_farewell(&self) {
        if let Some(code) = self.closed.filter(|_| self.close_sent.is_none()) {
            let is_to_come_back = matches!(code, 1001 | 1013 | 4000 | 4008);
            let is_spread = self.retry.is_some_and(|ms| (500..5000).contains(&ms));
            let retry = self.retry;
            assert_eq!(is_spread, is_to_come_back, "closed with {code}, to come back after {retry:?} ms");
        }
    }

    /// Says something.
    pub fn act(&mut self, random: &mut fastrand::Rng) {
        if !self.is_open() || self.is_leaving || self.outgoing.len() > 2000 {
            return;
        }
        let mut frame = Vec::new();
        if !self.is_web_socket() {
            return match random.u8(..60) {
                0 => self.say_goodbye(random),
                // There is nothing to say, and whatever is said is nothing.
                1..4 => self.ask(Asked::Nothing, b"GET /ws HTTP/1.1\r\n\r\n\x88\x80\0\0\0\0"),
                4 if !self.is_healthy() => self.pipe.borrow_mut().break_off(),
                5 if !self.is_healthy() => self.nature = Nature::Stalled,
                _ => {}
            };
        }
        match random.u8(..40) {
            0..21 | 29..32 if !self.is_json() => {
                // Messages are passed over, up to the size that they may have.
                let most = self.vigil.max_message_bytes;
                let size = if random.bool() { most } else { random.usize(..=most) };
                match random.bool() {
                    true => {
                        // In two fragments, with nothing between them that would be a sign of life.
                        write(&mut frame, false, 1, &vec![b'{'; size / 2], random);
                        write(&mut frame, true, 0, &vec![b'{'; size - size / 2], random);
                    }
                    false => write(&mut frame, true, 2, &vec![0xff; size], random),
                }
                self.ask(Asked::Nothing, &frame);
            }
            21..25 if !self.is_json() => {}
            0..15 => {
                let (subscribe, text) = Self::subscribe(self.is_healthy(), random);
                write_text(&mut frame, text.as_bytes(), random);
                self.ask(Asked::Subscribe(subscribe), &frame);
            }
            15..21 => {
                let topics = some_topics(random);
                let names: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic]).collect();
                let text = serde_json::json!({"type": "unsubscribe", "rooms": names}).to_string();
                write_text(&mut frame, text.as_bytes(), random);
                self.ask(Asked::Unsubscribe(topics), &frame);
            }
            21..25 => {
                write_text(&mut frame, br#"{"type":"ping"}"#, random);
                self.ask(Asked::Ping, &frame);
            }
            25..29 => {
                let payload = vec![b'p'; random.usize(..=125)];
                write(&mut frame, true, 9, &payload, random);
                self.ask(Asked::WsPing(payload), &frame);
            }
            29..32 => {
                let text =
                    ["", "{", "{\"type\":\"dance\"}", "{\"type\":\"subscribe\",\"topics\":[\"run:*\"]}"];
                write_text(&mut frame, random.choice(text).unwrap().as_bytes(), random);
                self.ask(Asked::Bad, &frame);
            }
            32..34 => {
                write(&mut frame, true, 10, b"unasked", random);
                self.ask(Asked::WsPong, &frame);
            }
            _ if random.u8(..60) == 0 && !self.is_healthy() => {
                // More answers than may wait: then it is not read.
                for _ in 0..700 {
                    frame.clear();
                    write(&mut frame, true, 9, &[b'p'; 125], random);
                    self.ask(Asked::WsPing(vec![b'p'; 125]), &frame);
                }
            }
            _ if random.u8(..3) > 0 => {}
            34..36 => self.say_goodbye(random),
            _ if self.is_healthy() => {}
            36 => self.pipe.borrow_mut().break_off(),
            37 => self.pipe.borrow_mut().end(random.bool()),
            38 => self.nature = Nature::Stalled,
            _ => self.violate(random),
        }
    }

    /// Subscribes to one topic.
    pub fn join(&mut self, topic: usize, random: &mut fastrand::Rng) {
        if !self.is_json() {
            return;
        }
        let mut frame = Vec::new();
        let text = format!("{{\"type\":\"subscribe\",\"topics\":[\"{}\"]}}", TOPICS[topic]);
        write_text(&mut frame, text.as_bytes(), random);
        self.ask(Asked::Subscribe(Subscribe { topics: vec![topic], ..Subscribe::default() }), &frame);
    }

    /// Begins a proper close.
    pub fn say_goodbye(&mut self, random: &mut fastrand::Rng) {
        if self.is_leaving || !self.is_open() {
            return;
        }
        self.is_leaving = true;
        if !self.is_web_socket() {
            return self.pipe.borrow_mut().end(random.bool());
        }
        let code = random.bool().then(|| random.choice([1000, 1001, 3000, 4999]).unwrap());
        let mut frame = Vec::new();
        write(
            &mut frame,
            true,
            8,
            &code.map_or_else(Vec::new, |code: u16| code.to_be_bytes().to_vec()),
            random,
        );
        self.ask(Asked::Close(code), &frame);
    }

    /// Breaks the protocol.
    fn violate(&mut self, random: &mut fastrand::Rng) {
        self.is_leaving = true;
        let mut frame = Vec::new();
        let code = match random.u8(..5) {
            0 if self.is_json() => {
                write(&mut frame, true, 2, b"binary", random);
                1003
            }
            1 => {
                write(&mut frame, true, 1, b"\xff\xfe", random);
                1007
            }
            2 => {
                frame.extend([0x81, 3, b'a', b'b', b'c']);
                1002
            }
            3 => {
                write(&mut frame, true, 0, b"of what?", random);
                1002
            }
            _ => {
                let size = self.vigil.max_message_bytes + random.usize(1..1000);
                write(&mut frame, true, 1, &vec![b' '; size], random);
                1009
            }
        };
        self.violation = Some((code, self.queued));
        self.ask(Asked::Violation, &frame);
    }

    fn subscribe(is_healthy: bool, random: &mut fastrand::Rng) -> (Subscribe, String) {
        let topics = some_topics(random);
        let names: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic]).collect();
        let mut message = serde_json::json!({"type": "subscribe", "topics": names});
        let filter = Filter::random(random);
        if let Some(names) = &filter.names {
            message["events"] = names.iter().map(|name| NAMES[*name]).collect();
        }
        if let Some(categories) = &filter.categories {
            message["onlyCategories"] = categories.iter().map(|topic| TOPICS[*topic]).collect();
        }
        let droppable = random.u8(..if is_healthy { 4 } else { 3 }) < 2;
        if droppable {
            message["policy"] = "drop-oldest".into();
        } else if random.bool() {
            message["policy"] = "disconnect".into();
        }
        let name = (random.u8(..5) == 0).then(|| random.choice(CLIENT_IDS).unwrap().to_owned());
        if let Some(name) = &name {
            message["clientId"] = name.as_str().into();
        }
        let since = (random.u8(..8) == 0).then(|| (0..TOPICS.len()).filter(|_| random.bool()).collect());
        if let Some(since) = &since {
            let since: &Vec<usize> = since;
            message["since"] = since.iter().map(|topic| (TOPICS[*topic].to_owned(), Value::Null)).collect();
        }
        (Subscribe { topics, filter, droppable, name, since }, message.to_string())
    }

    // What happens at the node.

    /// The node has read so many bytes.
    pub fn consume(&mut self, bytes: usize, context: &mut Context<'_>) {
        self.consumed += bytes;
        if self.is_json() {
            self.vigil.hear(context.mono);
        }
        while let Some((end, _)) = self.asked.front()
            && *end <= self.consumed
            && let Some((_, asked)) = self.asked.pop_front()
        {
            self.take_effect(asked, context);
        }
    }

    fn take_effect(&mut self, asked: Asked, context: &mut Context<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        // So many answers wait that what was read may not have been looked at.
        self.is_vague |= self.owed.len() > MANY_ANSWERS;
        let at = context.book.head();
        match asked {
            Asked::Open(_, true) => self.phase = Phase::Ended,
            Asked::Open(subscribe, false) => {
                self.phase = Phase::Open;
                self.vigil.open(context.mono);
                let is_asked = !subscribe.topics.is_empty();
                if self.is_json() && !is_asked {
                    // Without topics the query says nothing, but for the name.
                    self.name.clone_from(&subscribe.name);
                    self.confirmed_name = subscribe.name;
                } else {
                    self.begin_subscribe(subscribe, context);
                }
            }
            Asked::Subscribe(subscribe) => self.begin_subscribe(subscribe, context),
            Asked::Unsubscribe(topics) => {
                for topic in &topics {
                    self.loosen(*topic, context.book);
                    self.subs.retain(|sub| sub.topic != *topic);
                }
                self.owed.push_back(Owed::Unsubscribed(topics, at));
            }
            Asked::Ping => self.owed.push_back(Owed::Pong),
            Asked::WsPong => self.vigil.hear(context.mono),
            Asked::WsPing(payload) => self.owed.push_back(Owed::WsPong(payload)),
            Asked::Bad => self.owed.push_back(Owed::Error),
            Asked::Nothing => {}
            Asked::Close(code) => {
                self.close_sent = Some(code);
                self.phase = Phase::Ended;
            }
            Asked::Violation => self.phase = Phase::Ended,
        }
    }

    fn begin_subscribe(&mut self, subscribe: Subscribe, context: &mut Context<'_>) {
        let at = context.book.head();
        let mut new: Vec<usize> = subscribe.topics.clone();
        new.retain(|topic| !self.has(*topic));
        new.sort_unstable();
        new.dedup();
        let is_forbidden = self.subs.len() + new.len() > context.max_subscriptions;
        for topic in &subscribe.topics {
            self.may_drop[*topic] |= subscribe.droppable;
            self.may_be_slow |= !subscribe.droppable;
        }
        if !is_forbidden {
            for topic in &subscribe.topics {
                if self.subs.iter().any(|sub| sub.topic == *topic && sub.filter != subscribe.filter) {
                    self.loosen(*topic, context.book);
                }
            }
            apply(&mut self.subs, &subscribe, at);
            self.name = subscribe.name.clone().or(self.name.take());
            // What is in the link is written for its list too, though it is not for this one.
            for event in context.book.in_link(self.shard).to_vec() {
                if context.book.events[event].topics.iter().any(|topic| new.contains(topic)) {
                    context.book.allow_write(event, self.shape_number);
                }
            }
        }
        if !self.is_json() {
            self.confirmed.clone_from(&self.subs);
            self.owed.extend(subscribe.since.into_iter().flatten().map(Owed::Confession));
            return;
        }
        self.owed.push_back(Owed::Subscribed(subscribe, at, is_forbidden));
    }

    /// The node may or may not have served the events of a topic that are in the link.
    fn loosen(&mut self, topic: usize, book: &Book) {
        for event in book.in_link(self.shard) {
            let written = &book.events[*event];
            if !written.topics.contains(&topic) {
                continue;
            }
            let order = written.order;
            for expected in &mut self.expected {
                expected.retain(|(other, _)| *other != order);
            }
            let wanted =
                |topic: &&usize| self.subs.iter().any(|sub| sub.topic == **topic && sub.since < order);
            let mut topics: Vec<usize> = written.topics.iter().filter(wanted).copied().collect();
            topics.dedup();
            match self.loose.iter_mut().find(|loose| loose.order == order) {
                Some(loose) => loose.topics.extend(topics),
                None if topics.is_empty() => {}
                None => self.loose.push(Loose { order, topics }),
            }
        }
    }

    fn has(&self, topic: usize) -> bool {
        self.subs.iter().any(|sub| sub.topic == topic)
    }

    /// The node accepted an event.
    pub fn expect(&mut self, number: usize, book: &mut Book) {
        // The node may still have the session where the model knows better.
        if self.vigil.is_session || self.phase == Phase::Open {
            let may_have = |topic: &usize| self.is_vague || self.has(*topic);
            if book.events[number].topics.iter().any(may_have) {
                book.allow_write(number, self.shape_number);
            }
        }
        if self.phase != Phase::Open {
            return;
        }
        let event = &book.events[number];
        let wants = |topic: &&usize| {
            let sub = self.subs.iter().find(|sub| sub.topic == **topic);
            sub.is_some_and(|sub| sub.filter.wants(event))
        };
        if let Some(via) = event.topics.iter().find(wants) {
            self.expected[*via].push_back((event.order, number));
        }
    }

    /// As [`Client::expect`], for an event of which it is not known whether it came before or after what the
    /// client asked for in this turn.
    pub fn expect_maybe(&mut self, number: usize, book: &mut Book) {
        book.allow_write(number, self.shape_number);
        let event = &book.events[number];
        if self.phase == Phase::Open {
            self.loose.push(Loose { order: event.order, topics: event.topics.clone() });
        }
    }

    /// The node wrote bytes to it.
    pub fn take_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let mut rest = Vec::new();
        let bytes = if self.is_upgraded {
            bytes
        } else {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            let status = if self.is_web_socket() { "HTTP/1.1 101 " } else { "HTTP/1.1 200 " };
            let text = String::from_utf8_lossy(&self.head);
            if !text.starts_with(status) {
                let mut known = vec!["HTTP/1.1 408 "];
                if self.phase == Phase::Ended {
                    known.push("HTTP/1.1 400 "); // It has more topics than it may.
                }
                if self.is_web_socket() {
                    known.push("HTTP/1.1 503 ");
                }
                assert!(known.iter().any(|status| text.starts_with(status)), "refused: {text}");
                self.phase = Phase::Ended;
                return;
            }
            if !self.is_web_socket() {
                for header in
                    ["Content-Type: text/event-stream", "Connection: close", "X-Accel-Buffering: no"]
                {
                    assert!(text.contains(&format!("\r\n{header}\r\n")), "no {header} in {text}");
                }
            }
            let within = self.pipe.borrow().acknowledged_within;
            assert_eq!(within.is_some(), !self.is_web_socket(), "who is silent is broken off by the kernel");
            rest.extend(self.head.split_off(end + 4));
            self.is_upgraded = true;
            &rest
        };
        match &mut self.input {
            Input::Frames(reader) => reader.push(bytes),
            Input::EventStream(parser) => parser.push(bytes),
        }
        while let Input::Frames(reader) = &mut self.input
            && let Some(frame) = reader.next()
        {
            assert!(self.closed.is_none(), "a frame after the close: {frame:?}");
            assert!(!self.awaits_ping || frame.opcode == 9, "a heartbeat of one half");
            match frame.opcode {
                1 => {
                    let text = std::str::from_utf8(&frame.payload).expect("text is UTF-8");
                    self.take_text(text, context);
                }
                8 => self.take_close_frame(&frame.payload, context),
                9 => {
                    assert!(frame.payload.is_empty());
                    assert_eq!(std::mem::take(&mut self.awaits_ping), self.is_json());
                    self.take_beat(context);
                }
                _ => match self.owed.pop_front() {
                    Some(Owed::WsPong(payload)) => assert_eq!(payload, frame.payload),
                    other => panic!("a pong instead of {other:?}"),
                },
            }
        }
        while let Input::EventStream(parser) = &mut self.input
            && let Some(item) = parser.next()
        {
            assert!(
                self.closed.is_none() || (matches!(item, Item::Retry(_)) && self.retry.is_none()),
                "{item:?} after the end"
            );
            match item {
                Item::Event { name, data } => {
                    assert!(self.is_greeted, "an event before the stream began");
                    self.take_message(&data, Some(&name), context);
                }
                Item::Comment(text) if text == "subscribed" && !self.is_greeted => self.is_greeted = true,
                Item::Comment(text) if text == "keep-alive" => self.take_beat(context),
                Item::Comment(text) => {
                    let reason =
                        text.strip_prefix("closed: ").unwrap_or_else(|| panic!("the comment {text}"));
                    let reason = CloseReason::ALL.into_iter().find(|known| known.name() == reason);
                    self.take_end(reason.expect("a known reason").code().expect("one that is told"), context);
                }
                Item::Retry(ms) => self.retry = Some(ms),
            }
        }
    }

    /// A text message: events of a stream, or one message.
    fn take_text(&mut self, text: &str, context: &mut Context<'_>) {
        if !matches!(self.shape.kind, Kind::Stream(_, Form::Lines)) {
            return self.take_message(text, None, context);
        }
        assert!(!text.contains('\r'), "a line break that is none: {text:?}");
        let lines = text.split('\n').count();
        assert!(lines == 1 || text.len() <= 64 << 10, "{lines} lines share {} bytes", text.len());
        context.book.shared_messages += u64::from(lines > 1);
        let before = context.book.delivered;
        for line in text.split('\n') {
            self.take_message(line, None, context);
        }
        let events = (context.book.delivered - before) as usize;
        assert!(lines == 1 || events == lines, "{events} events in {lines} lines: {text:?}");
    }

    /// An event, or a message of the node's own. `name`: as an event stream calls it.
    fn take_message(&mut self, text: &str, name: Option<&str>, context: &mut Context<'_>) {
        let message: Value = serde_json::from_str(&text.replace("1e999", "1")).expect("a message is JSON");
        if let Some(number) = self.shape.number(&message) {
            let event = context.book.events.get(number).expect("an event of somebody's");
            assert!(name.is_none_or(|name| name == NAMES[event.name]), "event {number} came as {name:?}");
            self.take_event(number, text, context);
            return;
        }
        let kind = message["type"].as_str().expect("a message has a type");
        assert!(name.is_none_or(|name| name == kind), "{text} came as {name:?}");
        let data = &message["data"];
        match kind {
            "gap" => self.take_gap(data),
            "subscription-ack" if self.is_json() => self.take_subscribed(Some(data), context),
            "unsubscription-ack" if self.is_json() => self.take_unsubscribed(data),
            "pong" if self.is_json() => {
                assert!(matches!(self.owed.pop_front(), Some(Owed::Pong)), "an unasked pong");
            }
            "ping" if self.is_json() => self.awaits_ping = true,
            "error" => {
                let error = data["error"].as_str().unwrap();
                if error == "Server capacity exceeded" || !self.is_json() {
                    let is_known = error == "Server capacity exceeded"
                        || error.contains("max_topics")
                        || (context.draining && error.contains("shutting down"));
                    assert!(is_known && !self.is_turned_away, "turned away: {error}");
                    assert_eq!(self.last, [0; TOPICS.len()], "turned away after events: {error}");
                    self.is_turned_away = true;
                } else if matches!(self.owed.front(), Some(Owed::Subscribed(..))) {
                    let is_limit = error.contains("max_topics") || error.contains("max_subscriptions");
                    assert!(is_limit, "a good subscribe was refused: {error}");
                    self.take_subscribed(None, context);
                } else {
                    assert!(matches!(self.owed.pop_front(), Some(Owed::Error)), "an unasked error: {error}");
                }
            }
            _ => panic!("unknown message {text}"),
        }
    }

    fn take_gap(&mut self, data: &Value) {
        let name = data["topic"].as_str().unwrap();
        let topic = TOPICS.iter().position(|topic| *topic == name).expect("a known topic");
        if data["dropped"].is_null() && data.get("dropped").is_some() {
            let owed = self.owed.pop_front();
            assert!(
                matches!(owed, Some(Owed::Confession(other)) if other == topic),
                "{owed:?} and not {name}"
            );
            assert_eq!(self.last, [0; TOPICS.len()], "what was missed is told before what comes");
            return;
        }
        let dropped = data["dropped"].as_u64().unwrap();
        assert!(dropped > 0, "a gap of nothing");
        assert!(!self.is_healthy(), "a healthy reader lost {dropped} events of {name}");
        assert!(self.may_drop[topic], "client {}: nothing of {name} may be left out", self.id);
        self.told[topic] += dropped;
    }

    fn take_beat(&mut self, context: &Context<'_>) {
        self.pings += 1;
        let is_sure = !self.pipe.borrow().has_refused;
        self.vigil.beat(context.mono, is_sure);
    }

    fn take_event(&mut self, number: usize, text: &str, context: &mut Context<'_>) {
        let book = &mut *context.book;
        book.delivered += 1;
        assert!(book.events[number].order > 0, "event {number} was never accepted");
        let mut names = vec![self.name.clone(), self.confirmed_name.clone()];
        names.extend(self.owed.iter().filter_map(|owed| match owed {
            Owed::Subscribed(subscribe, ..) => Some(subscribe.name.clone()),
            _ => None,
        }));
        let is_right = match self.shape.is_exact() {
            true => names.into_iter().any(|name| book.text(number, &self.shape, name.as_deref()) == text),
            false => tokens(&book.text(number, &self.shape, None)) == tokens(text),
        };
        assert!(is_right, "event {number} came to {:?} ({:?}) as {text}", self.shape, self.name);
        let event = &book.events[number];
        let order = event.order;
        for topic in &event.topics {
            if self.has(*topic) {
                assert!(
                    self.last[*topic] < order,
                    "event {number} of {:?} (order {order}) came after order {}",
                    TOPICS[*topic],
                    self.last[*topic]
                );
            }
        }
        for topic in &event.topics {
            self.last[*topic] = order;
        }
        if self.is_vague {
            return;
        }
        let is_expected = |via: &&usize| self.expected[**via].iter().any(|(other, _)| *other == order);
        if let Some(via) = event.topics.iter().find(is_expected).copied() {
            self.settle(via, order - 1, "before the next event");
            assert_eq!(self.expected[via].pop_front(), Some((order, number)));
        } else if let Some(place) = self.loose.iter().position(|loose| loose.order == order) {
            let loose = self.loose.swap_remove(place);
            if let [via] = loose.topics[..] {
                self.settle(via, order - 1, "before the next event (loose)");
            }
        } else {
            panic!(
                "event {number} (order {order} of {:?}) was not to come, or came twice; in line: {:?}; {:?}",
                event.topics, self.subs, self.expected
            );
        }
    }

    /// Everything served under a topic up to an order has come or was counted in gap notices.
    fn settle(&mut self, via: usize, up_to: u64, when: &str) {
        let missing = self.expected[via].iter().filter(|(order, _)| *order <= up_to).count() as u64;
        let maybe =
            self.loose.iter().filter(|loose| loose.order <= up_to && loose.topics.contains(&via)).count()
                as u64;
        let told = self.told[via];
        assert!(
            (missing..=missing + maybe).contains(&told),
            "client {}: {when} of {:?}: {missing} (to {}) are missing and {told} were told; {:?} up to order {up_to}; \
             {:?} {:?} {:?} confirmed {:?} owed {:?}",
            self.id,
            TOPICS[via],
            missing + maybe,
            self.expected[via],
            self.nature,
            self.phase,
            self.subs,
            self.confirmed,
            self.owed,
        );
        self.told[via] = 0;
        self.expected[via].retain(|(order, _)| *order > up_to);
        for loose in self.loose.iter_mut().filter(|loose| loose.order <= up_to) {
            loose.topics.retain(|topic| *topic != via);
        }
    }

    fn take_subscribed(&mut self, ack: Option<&Value>, context: &mut Context<'_>) {
        let Some(Owed::Subscribed(subscribe, at, is_forbidden)) = self.owed.pop_front() else {
            panic!("an unasked subscription-ack")
        };
        if let Some(ack) = ack {
            assert!(!is_forbidden || self.is_vague, "more subscriptions than max_subscriptions");
            apply(&mut self.confirmed, &subscribe, at);
            self.confirmed_name = subscribe.name.or(self.confirmed_name.take());
            self.check_set(ack);
            let missing = |since: Vec<usize>| {
                since.iter().map(|topic| (TOPICS[*topic].to_owned(), Value::Null)).collect()
            };
            let missing = subscribe.since.map_or(Value::Null, missing);
            assert_eq!(ack["missing"], missing, "what cannot be recovered");
            assert_eq!(ack["recovered"].is_null(), missing.is_null());
            return;
        }
        if is_forbidden {
            return;
        }
        // Refused for want of topics: everything that was expected because of it is not to come.
        let knew_any =
            subscribe.topics.iter().any(|topic| self.confirmed.iter().any(|sub| sub.topic == *topic));
        self.is_vague |= !self.owed.is_empty() || knew_any;
        for topic in &subscribe.topics {
            if self.confirmed.iter().any(|sub| sub.topic == *topic) {
                continue;
            }
            self.subs.retain(|sub| sub.topic != *topic);
            for (order, event) in std::mem::take(&mut self.expected[*topic]) {
                let topics: Vec<usize> = context.book.events[event]
                    .topics
                    .iter()
                    .filter(|topic| self.has(**topic))
                    .copied()
                    .collect();
                if !topics.is_empty() {
                    self.loose.push(Loose { order, topics });
                }
            }
        }
        self.name.clone_from(&self.confirmed_name);
    }

    fn take_unsubscribed(&mut self, data: &Value) {
        let Some(Owed::Unsubscribed(topics, at)) = self.owed.pop_front() else {
            panic!("an unasked unsubscription-ack")
        };
        self.confirmed.retain(|sub| !topics.contains(&sub.topic));
        self.check_set(data);
        if !self.is_vague {
            for topic in topics {
                self.settle(topic, at, "at the unsubscription");
            }
        }
    }

    fn check_set(&self, data: &Value) {
        let set: Vec<&str> = self.confirmed.iter().map(|sub| TOPICS[sub.topic]).collect();
        assert_eq!(data["categories"], serde_json::json!(set), "the ack names another set");
    }

    fn take_close_frame(&mut self, payload: &[u8], context: &mut Context<'_>) {
        let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
        if self.close_sent.is_some_and(|sent| code == sent.unwrap_or(0)) {
            self.closed = Some(code);
            self.phase = Phase::Ended;
            return; // The echo.
        }
        if payload.len() > 2 {
            let reason: Value = serde_json::from_slice(&payload[2..]).expect("a reason is JSON");
            self.retry = reason["retryAfterMs"].as_u64();
            assert!(self.retry.is_some() || reason["error"].is_string(), "{reason}");
        }
        self.take_end(code, context);
    }

    fn take_end(&mut self, code: u16, context: &mut Context<'_>) {
        self.closed = Some(code);
        self.phase = Phase::Ended;
        *context.closes.entry(code).or_default() += 1;
        match code {
            1001 => assert!(context.draining, "1001 without a shutdown"),
            1013 => assert!(self.is_turned_away, "1013 without an error before it"),
            4000 => {
                assert!(self.vigil.timeout.is_some(), "nothing is to come from it, so it cannot be silent");
                let must_answer = self.is_healthy() && !self.is_leaving && self.is_json();
                assert!(!must_answer, "a healthy client was found silent");
            }
            4008 => {
                assert!(!self.is_healthy(), "a healthy reader was closed as slow");
                assert!(self.pipe.borrow().has_refused, "closed as slow, but no write was ever refused");
            }
            _ => assert_eq!(Some(code), self.violated(), "close code {code}"),
        }
    }

    /// The node dropped the connection.
    pub fn take_drop(&mut self, context: &Context<'_>) {
        let pipe = self.pipe.borrow();
        // A close that never found room on the wire is excused.
        let is_excused = !pipe.is_intact() || self.closed.is_some() || pipe.has_refused || context.draining;
        assert!(
            is_excused || !self.is_upgraded,
            "client {} was dropped without a word: {:?}",
            self.id,
            self.phase
        );
        self.phase = Phase::Ended;
    }

    // What is checked when everything is quiet.

    /// Nothing is under way: everything that was to come has come.
    pub fn check_quiet(&mut self) {
        let is_partial = match &self.input {
            Input::Frames(reader) => reader.is_partial(),
            Input::EventStream(parser) => parser.is_partial(),
        };
        let pipe = self.pipe.borrow();
        assert!(!is_partial || pipe.dropped || !pipe.is_intact(), "client {}: a frame is cut", self.id);
        if self.phase == Phase::Ended && self.vigil.was_session && !pipe.dropped && pipe.is_intact() {
            assert!(self.closed.is_some(), "client {} was not told that its session is over", self.id);
        }
        drop(pipe);
        if self.phase != Phase::Open {
            return;
        }
        assert!(self.owed.is_empty(), "client {} waits for {:?}", self.id, self.owed);
        if self.is_vague {
            self.is_vague = false; // Everything is known again.
            self.subs.clone_from(&self.confirmed);
            self.name.clone_from(&self.confirmed_name);
            self.expected.iter_mut().for_each(VecDeque::clear);
            self.told.fill(0);
        }
        for topic in 0..TOPICS.len() {
            self.settle(topic, u64::MAX, "when everything is quiet");
        }
        self.loose.clear();
        assert_eq!(self.subs, self.confirmed);
    }

    /// Whether the node is done with it.
    pub fn is_gone(&self) -> bool {
        self.pipe.borrow().dropped
    }
}

fn apply(subs: &mut Vec<Sub>, subscribe: &Subscribe, at: u64) {
    for topic in &subscribe.topics {
        match subs.iter_mut().find(|sub| sub.topic == *topic) {
            Some(sub) => sub.filter.clone_from(&subscribe.filter),
            None => subs.push(Sub { topic: *topic, filter: subscribe.filter.clone(), since: at }),
        }
    }
}

fn some_topics(random: &mut fastrand::Rng) -> Vec<usize> {
    (0..random.usize(..4)).map(|_| some_topic(random)).collect()
}
