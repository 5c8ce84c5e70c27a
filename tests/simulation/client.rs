//! A client of any dialect: what it says and how it reads. What it must get is in [`model`].

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use fanwire::config::Limits;
use fanwire::proto::deflate::Deflater;
use serde_json::Value;

use crate::audit::Vigil;
use crate::book::{Book, NAMED, NAMES, TOPICS, called};
use crate::frames::{Reader, stored, write, write_text, write_text_deflated};
use crate::socket::Pipe;
use crate::sse::Parser;
use crate::way::{CLIENT_IDS, Filter, Kind, Shape, Subscribe, Visit, some_topic};

#[path = "model.rs"]
mod model;

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
    /// The same, between the fragments of a message.
    InnerPong,
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
    /// Whether the node ever began to shut down.
    pub has_drained: bool,
    pub max_subscriptions: usize,
    pub max_patterns: usize,
    pub max_topics: usize,
    pub max_messages: Option<usize>,
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
    /// Where the last message ends that has come whole.
    whole: usize,
    asked: VecDeque<(usize, Asked)>,
    head: Vec<u8>,
    pub is_upgraded: bool,
    /// Compressed messages were agreed on; the last one from the node was one.
    deflates: bool,
    was_deflated: bool,
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
    /// How many messages it may send in a second.
    max_messages: Option<usize>,
    /// The model lost track of what exactly it wants: only order and bytes are checked.
    pub is_vague: bool,
    pub close_sent: Option<Option<u16>>,
    /// What it broke the protocol with, and how many bytes came before.
    violation: Option<(u16, usize)>,
    /// Up to when, in nanoseconds, the messages that it may send are spent.
    spent: u64,
    /// Some of what it sent may have waited before the node looked at it: so how many messages it may send is not
    /// known any more.
    pub may_be_too_fast: bool,
    /// Why it was closed, as it was told.
    pub closed: Option<u16>,
    /// It was told why it cannot be served.
    is_turned_away: bool,
    /// The heartbeat's text came, and the frame is to follow.
    awaits_ping: bool,
    pings: u32,
    is_greeted: bool,
    /// It subscribes as soon as it is connected.
    pub is_eager: bool,
    pub retry: Option<u64>,
}

impl Client {
    /// A client that comes.
    pub fn new(
        (id, shard, pipe): (usize, usize, Rc<RefCell<Pipe>>),
        nature: Nature,
        visit: Visit,
        limits: &Limits,
        book: &mut Book,
    ) -> Self {
        let none = || vec![0; NAMED];
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
            whole: 0,
            asked: VecDeque::new(),
            head: Vec::new(),
            is_upgraded: false,
            deflates: false,
            was_deflated: false,
            input,
            subs: Vec::new(),
            confirmed: Vec::new(),
            name: None,
            confirmed_name: None,
            owed: VecDeque::new(),
            expected: vec![VecDeque::new(); NAMED],
            loose: Vec::new(),
            told: none(),
            last: none(),
            may_drop: vec![false; NAMED],
            may_be_slow: false,
            max_messages: limits.max_messages_per_second,
            is_vague: false,
            close_sent: None,
            violation: None,
            spent: 0,
            may_be_too_fast: false,
            closed: None,
            is_turned_away: false,
            awaits_ping: false,
            pings: 0,
            is_greeted: false,
            is_eager: false,
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

    /// Whether it is not known what it is subscribed to: an answer under way may say that there were too many
    /// topics, and what was asked for after that counted without those.
    pub fn is_unsure(&self) -> bool {
        let may_be_refused =
            |owed: &Owed| matches!(owed, Owed::Subscribed(subscribe, ..) if subscribe.may_be_refused);
        self.is_vague || self.owed.iter().any(may_be_refused)
    }

    /// Events that it is owed at most, as far as is known.
    pub fn owed_events(&self) -> usize {
        self.expected.iter().map(VecDeque::len).sum::<usize>() + self.loose.len()
    }

    /// Sends a text message as a client does that has agreed on compression or not. The node puts off what inflates
    /// to more than one read, and the model does not: so it is never much.
    fn say(&mut self, asked: Asked, text: &[u8], random: &mut fastrand::Rng) {
        let mut frame = Vec::new();
        let pong = match self.deflates && self.outgoing.len() < 1000 {
            true => write_text_deflated(&mut frame, text, random),
            false => write_text(&mut frame, text, random),
        };
        if let Some(end) = pong {
            self.asked.push_back((self.queued + end, Asked::InnerPong));
        }
        self.ask(asked, &frame);
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
        if self.is_open() && std::mem::take(&mut self.is_eager) {
            self.ask_to_subscribe(random);
        }
        if std::mem::take(&mut self.pings) > 0 && !self.is_leaving {
            if self.is_json() {
                self.say(Asked::Nothing, br#"{"type":"pong"}"#, random);
            } else {
                let mut frame = Vec::new();
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
                    _ if self.deflates && random.bool() => {
                        write(&mut frame, true, 0x42, &stored(&vec![0xff; size]), random);
                    }
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
            0..15 => self.ask_to_subscribe(random),
            15..21 => {
                let topics = some_topics(random);
                let names: Vec<&str> = topics.iter().map(|topic| called(*topic)).collect();
                let text = serde_json::json!({"type": "unsubscribe", "rooms": names}).to_string();
                self.say(Asked::Unsubscribe(topics), text.as_bytes(), random);
            }
            21..25 => {
                self.say(Asked::Ping, br#"{"type":"ping"}"#, random);
            }
            25..29 => {
                let payload = vec![b'p'; random.usize(..=125)];
                write(&mut frame, true, 9, &payload, random);
                self.ask(Asked::WsPing(payload), &frame);
            }
            29..32 => {
                let text =
                    ["", "{", "{\"type\":\"dance\"}", "{\"type\":\"subscribe\",\"topics\":[\"run:**\"]}"];
                self.say(Asked::Bad, random.choice(text).unwrap().as_bytes(), random);
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
            39 if !self.is_healthy() => self.violate(random),
            _ if random.u8(..3) > 0 => {}
            34..36 => self.say_goodbye(random),
            _ if self.is_healthy() => {}
            36 => self.pipe.borrow_mut().break_off(),
            37 if random.bool() => self.pipe.borrow_mut().end(random.bool()),
            38 if random.bool() => self.nature = Nature::Stalled,
            _ => self.stop_inside(random),
        }
    }

    /// Subscribes to anything.
    pub fn ask_to_subscribe(&mut self, random: &mut fastrand::Rng) {
        let (subscribe, text) = Self::subscribe(self.is_healthy(), random);
        self.say(Asked::Subscribe(subscribe), text.as_bytes(), random);
    }

    /// Subscribes to one topic.
    pub fn join(&mut self, topic: usize, random: &mut fastrand::Rng) {
        if !self.is_json() {
            return;
        }
        let text = format!("{{\"type\":\"subscribe\",\"topics\":[\"{}\"]}}", called(topic));
        let subscribe = Subscribe { topics: vec![topic], ..Subscribe::default() };
        self.say(Asked::Subscribe(subscribe), text.as_bytes(), random);
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

    /// Begins a message, and says nothing more.
    fn stop_inside(&mut self, random: &mut fastrand::Rng) {
        (self.is_leaving, self.is_eager) = (true, false);
        let mut frame = Vec::new();
        write(&mut frame, random.bool(), 1, br#"{"type":"ping"}"#, random);
        let rest = random.usize(1..frame.len());
        self.ask(Asked::Nothing, &frame);
        self.outgoing.truncate(self.outgoing.len() - rest);
    }

    /// Sends more messages than it may in a second.
    fn hurry(&mut self, most: usize, random: &mut fastrand::Rng) {
        for _ in 0..most + random.usize(1..most) {
            let mut frame = Vec::new();
            write(&mut frame, true, 9, b"", random);
            self.ask(Asked::WsPing(Vec::new()), &frame);
        }
    }

    /// Breaks the protocol.
    fn violate(&mut self, random: &mut fastrand::Rng) {
        self.is_leaving = true;
        if let Some(most) = self.max_messages
            && random.bool()
        {
            return self.hurry(most, random);
        }
        let mut frame = Vec::new();
        // Of those who agreed on it, most break it.
        let least = if self.deflates && random.u8(..4) > 0 { 4 } else { 0 };
        let code = match random.u8(least..8) {
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
            4 => {
                // Compressed is what begins a message, if that was agreed on.
                let opcode = if self.deflates { random.choice([0x49, 0x21, 0x11]).unwrap() } else { 0x41 };
                write(&mut frame, true, opcode, &stored(b"{}"), random);
                1002
            }
            5 if self.deflates => {
                write(&mut frame, true, 0x41, b"\xff\xff", random);
                1007
            }
            6 if self.deflates => {
                write(&mut frame, true, 0x41, &stored(b"\xff"), random);
                1007
            }
            7 if self.deflates => {
                let bomb = vec![b' '; self.vigil.max_message_bytes + 1];
                let bomb = Deflater::default().deflate(&bomb).expect("it gets smaller").to_vec();
                write(&mut frame, true, 0x41, &bomb, random);
                1009
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
        let names: Vec<&str> = topics.iter().map(|topic| called(*topic)).collect();
        let mut message = serde_json::json!({"type": "subscribe", "topics": names});
        let filter = Filter::random(random);
        if let Some(names) = &filter.names {
            message["events"] = names.iter().map(|name| NAMES[*name]).collect();
        }
        if let Some(categories) = &filter.categories {
            message["onlyCategories"] = categories.iter().map(|topic| called(*topic)).collect();
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
        let since = (random.u8(..8) == 0).then(|| (0..NAMED).filter(|_| random.bool()).collect::<Vec<_>>());
        if let Some(since) = &since {
            message["since"] = since.iter().map(|topic| (called(*topic).to_owned(), Value::Null)).collect();
        }
        (Subscribe { topics, filter, droppable, name, since, may_be_refused: false }, message.to_string())
    }
}

/// Topics and patterns.
fn some_topics(random: &mut fastrand::Rng) -> Vec<usize> {
    let some = |random: &mut fastrand::Rng| match random.u8(..5) {
        0..2 => random.usize(TOPICS.len()..NAMED),
        _ => some_topic(random),
    };
    (0..random.usize(..4)).map(|_| some(random)).collect()
}
