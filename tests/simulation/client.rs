//! A WebSocket client and the model of its session: what it asked for, what it must get, what it may get.
//!
//! A message takes effect when the node reads its last byte, which the tape tells. From then on every accepted
//! event that the session wants is expected under the topic through which it is served: the first of the event's
//! topics that the session has and whose filter wants it. Only where a change overtakes events that are still in
//! the shard's link may the node decide either way: such events are `loose`.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use serde_json::Value;

use crate::book::{Book, NAMES, TOPICS};
use crate::frames::{Reader, write, write_text};
use crate::socket::Pipe;

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
    filter: Option<Vec<usize>>,
    /// What is accepted after this order is wanted.
    since: u64,
}

#[derive(Clone, Debug)]
struct Subscribe {
    topics: Vec<usize>,
    filter: Option<Vec<usize>>,
    droppable: bool,
    name: Option<String>,
}

/// A message on its way to the node.
#[derive(Clone, Debug)]
enum Asked {
    Upgrade(Vec<usize>),
    Subscribe(Subscribe),
    Unsubscribe(Vec<usize>),
    Ping,
    WsPing(Vec<u8>),
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
    pub mono: u64,
    pub draining: bool,
    pub max_subscriptions: usize,
    /// Close codes seen on the wire.
    pub closes: &'a mut HashMap<u16, u64>,
}

pub struct Client {
    pub id: usize,
    pub shard: usize,
    pub pipe: Rc<RefCell<Pipe>>,
    pub nature: Nature,
    pub phase: Phase,
    /// It said goodbye, or was silenced for good.
    pub is_leaving: bool,
    outgoing: VecDeque<u8>,
    queued: usize,
    consumed: usize,
    asked: VecDeque<(usize, Asked)>,
    head: Vec<u8>,
    is_upgraded: bool,
    reader: Reader,
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
    /// The model lost track of what exactly it wants: only order and bytes are checked.
    pub is_vague: bool,
    close_sent: Option<Option<u16>>,
    violation: Option<u16>,
    pub closed: Option<u16>,
    capacity_error: bool,
    pings: u32,
    /// When the node last read anything from it.
    pub heard: u64,
}

impl Client {
    pub fn new(
        id: usize,
        shard: usize,
        pipe: Rc<RefCell<Pipe>>,
        nature: Nature,
        mono: u64,
        random: &mut fastrand::Rng,
    ) -> Self {
        let none = || vec![0; TOPICS.len()];
        let mut client = Self {
            id,
            shard,
            pipe,
            nature,
            phase: Phase::Handshake,
            is_leaving: false,
            outgoing: VecDeque::new(),
            queued: 0,
            consumed: 0,
            asked: VecDeque::new(),
            head: Vec::new(),
            is_upgraded: false,
            reader: Reader::default(),
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
            is_vague: false,
            close_sent: None,
            violation: None,
            closed: None,
            capacity_error: false,
            pings: 0,
            heard: mono,
        };
        let mut topics = Vec::new();
        if random.u8(..3) == 0 {
            topics.push(random.usize(..3));
        }
        let query =
            topics.first().map_or_else(String::new, |topic| format!("?categories={}", TOPICS[*topic]));
        let request = format!(
            "GET /ws{query} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.ask(Asked::Upgrade(topics), request.as_bytes());
        client
    }

    pub fn is_healthy(&self) -> bool {
        self.nature == Nature::Healthy
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.is_upgraded
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
        if has_all && is_intact && (self.closed.is_some() || is_over) {
            self.pipe.borrow_mut().end(true);
        }
        if std::mem::take(&mut self.pings) > 0 && !self.is_leaving {
            let mut frame = Vec::new();
            write_text(&mut frame, br#"{"type":"pong"}"#, random);
            self.ask(Asked::Nothing, &frame);
        }
    }

    /// Says something.
    pub fn act(&mut self, random: &mut fastrand::Rng) {
        if !self.is_open() || self.is_leaving || self.outgoing.len() > 2000 {
            return;
        }
        let mut frame = Vec::new();
        match random.u8(..40) {
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
                self.ask(Asked::Nothing, &frame);
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
        let mut frame = Vec::new();
        let text = format!("{{\"type\":\"subscribe\",\"topics\":[\"{}\"]}}", TOPICS[topic]);
        write_text(&mut frame, text.as_bytes(), random);
        self.ask(
            Asked::Subscribe(Subscribe { topics: vec![topic], filter: None, droppable: false, name: None }),
            &frame,
        );
    }

    /// Begins a proper close.
    pub fn say_goodbye(&mut self, random: &mut fastrand::Rng) {
        if self.is_leaving || !self.is_open() {
            return;
        }
        self.is_leaving = true;
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
            0 => {
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
                write(&mut frame, true, 1, &[b' '; 5000], random);
                1009
            }
        };
        self.violation = Some(code);
        self.ask(Asked::Violation, &frame);
    }

    fn subscribe(is_healthy: bool, random: &mut fastrand::Rng) -> (Subscribe, String) {
        let topics = some_topics(random);
        let names: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic]).collect();
        let mut message = serde_json::json!({"type": "subscribe", "topics": names});
        let filter =
            (random.u8(..3) == 0).then(|| (0..NAMES.len()).filter(|_| random.bool()).collect::<Vec<_>>());
        if let Some(filter) = &filter {
            message["events"] = filter.iter().map(|name| NAMES[*name]).collect();
        }
        let droppable = random.u8(..if is_healthy { 4 } else { 3 }) < 2;
        if droppable {
            message["policy"] = "drop-oldest".into();
        } else if random.bool() {
            message["policy"] = "disconnect".into();
        }
        let name = (random.u8(..5) == 0).then(|| random.choice(["me", "you\"\\", "ü☃"]).unwrap().to_owned());
        if let Some(name) = &name {
            message["clientId"] = name.as_str().into();
        }
        (Subscribe { topics, filter, droppable, name }, message.to_string())
    }

    // What happens at the node.

    /// The node has read so many bytes.
    pub fn consume(&mut self, bytes: usize, context: &mut Context<'_>) {
        self.consumed += bytes;
        self.heard = context.mono;
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
            Asked::Upgrade(topics) => {
                self.phase = Phase::Open;
                if !topics.is_empty() {
                    let subscribe = Subscribe { topics, filter: None, droppable: false, name: None };
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
        }
        if !is_forbidden {
            for topic in &subscribe.topics {
                if self.subs.iter().any(|sub| sub.topic == *topic && sub.filter != subscribe.filter) {
                    self.loosen(*topic, context.book);
                }
            }
            apply(&mut self.subs, &subscribe, at);
            self.name = subscribe.name.clone().or(self.name.take());
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
    pub fn expect(&mut self, number: usize, book: &Book) {
        if self.phase != Phase::Open {
            return;
        }
        let event = &book.events[number];
        let wants = |topic: &&usize| {
            let sub = self.subs.iter().find(|sub| sub.topic == **topic);
            sub.is_some_and(|sub| sub.filter.as_ref().is_none_or(|names| names.contains(&event.name)))
        };
        if let Some(via) = event.topics.iter().find(wants) {
            self.expected[*via].push_back((event.order, number));
        }
    }

    /// As [`Client::expect`], for an event of which it is not known whether it came before or after what the
    /// client asked for in this turn.
    pub fn expect_maybe(&mut self, number: usize, book: &Book) {
        let event = &book.events[number];
        if self.phase == Phase::Open {
            self.loose.push(Loose { order: event.order, topics: event.topics.clone() });
        }
    }

    /// The node wrote bytes to it.
    pub fn take_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        if self.is_upgraded {
            self.reader.push(bytes);
        } else {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            if !self.head.starts_with(b"HTTP/1.1 101 ") {
                let is_known =
                    [&b"HTTP/1.1 503 "[..], b"HTTP/1.1 408 "].iter().any(|s| self.head.starts_with(s));
                assert!(is_known, "upgrade refused: {}", String::from_utf8_lossy(&self.head));
                self.phase = Phase::Ended;
                return;
            }
            let rest = self.head.split_off(end + 4);
            self.reader.push(&rest);
            self.is_upgraded = true;
        }
        while let Some(frame) = self.reader.next() {
            assert!(self.closed.is_none(), "a frame after the close: {frame:?}");
            match frame.opcode {
                1 => self.take_message(&frame.payload, context),
                8 => self.take_close(&frame.payload, context),
                9 => assert!(frame.payload.is_empty()),
                _ => match self.owed.pop_front() {
                    Some(Owed::WsPong(payload)) => assert_eq!(payload, frame.payload),
                    other => panic!("a pong instead of {other:?}"),
                },
            }
        }
    }

    fn take_message(&mut self, payload: &[u8], context: &mut Context<'_>) {
        let text = std::str::from_utf8(payload).expect("text is UTF-8");
        let message: Value = serde_json::from_str(&text.replace("1e999", "1")).expect("a message is JSON");
        let data = &message["data"];
        match message["type"].as_str() {
            Some("event") => {
                let number = data["n"].as_u64().expect("every event has a number") as usize;
                self.take_event(number, text, context);
            }
            Some("gap") => {
                let name = data["topic"].as_str().unwrap();
                let topic = TOPICS.iter().position(|topic| *topic == name).expect("a known topic");
                let dropped = data["dropped"].as_u64().unwrap();
                assert!(dropped > 0, "a gap of nothing");
                assert!(!self.is_healthy(), "a healthy reader lost {dropped} events of {name}");
                assert!(self.may_drop[topic], "client {}: nothing of {name} may be left out", self.id);
                self.told[topic] += dropped;
            }
            Some("subscription-ack") => self.take_subscribed(Some(data), context),
            Some("unsubscription-ack") => self.take_unsubscribed(data),
            Some("pong") => assert!(matches!(self.owed.pop_front(), Some(Owed::Pong)), "an unasked pong"),
            Some("ping") => self.pings += 1,
            Some("error") => {
                let error = data["error"].as_str().unwrap();
                if error == "Server capacity exceeded" {
                    self.capacity_error = true;
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

    fn take_event(&mut self, number: usize, text: &str, context: &mut Context<'_>) {
        let book = &mut *context.book;
        book.delivered += 1;
        assert!(book.events[number].order > 0, "event {number} was never accepted");
        let mut names = vec![self.name.clone(), self.confirmed_name.clone()];
        names.extend(self.owed.iter().filter_map(|owed| match owed {
            Owed::Subscribed(subscribe, ..) => Some(subscribe.name.clone()),
            _ => None,
        }));
        let is_exact = names.into_iter().any(|name| book.payload(number, name.as_deref()) == text);
        assert!(is_exact, "event {number} came as {text} for {:?}", self.name);
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

    fn take_close(&mut self, payload: &[u8], context: &mut Context<'_>) {
        let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
        self.closed = Some(code);
        self.phase = Phase::Ended;
        if self.close_sent.is_some_and(|sent| code == sent.unwrap_or(0)) {
            return; // The echo.
        }
        *context.closes.entry(code).or_default() += 1;
        let silent = context.mono.saturating_sub(self.heard);
        match code {
            1001 => assert!(context.draining, "1001 without a shutdown"),
            1013 => assert!(self.capacity_error, "1013 without an error before it"),
            4000 => {
                assert!(silent > 59_000_000_000, "heartbeat timeout after {} ms", silent / 1_000_000);
                assert!(!self.is_healthy() || self.is_leaving, "a healthy client was found silent");
            }
            4008 => {
                assert!(!self.is_healthy(), "a healthy reader was closed as slow");
                assert!(self.pipe.borrow().has_refused, "closed as slow, but no write was ever refused");
            }
            _ => assert_eq!(Some(code), self.violation, "close code {code}"),
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
        if self.phase != Phase::Open {
            return;
        }
        assert!(self.owed.is_empty(), "client {} waits for {:?}", self.id, self.owed);
        assert!(!self.reader.is_partial(), "a frame is cut");
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
    (0..random.usize(..4))
        .map(|_| if random.bool() { random.usize(..3) } else { random.usize(..TOPICS.len()) })
        .collect()
}
