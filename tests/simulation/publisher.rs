//! A publisher on the publish socket and the model of what the node must answer.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::book::{Book, NAMES, Reach, SOCKET_TOPICS, TOPICS};
use crate::socket::Pipe;

/// What a read of a connection that is on its way out asks for; a publisher is read otherwise.
const DISCARDING_READ: usize = 64 << 10;

#[derive(Debug)]
enum Wrote {
    /// From now on it has this name of [`Names`], or none.
    Hello(Option<usize>),
    Good {
        event: usize,
        sequence: u64,
        ack: bool,
        receipt: bool,
    },
    Bad {
        sequence: u64,
        code: u16,
    },
    Ping {
        sequence: u64,
        body: Vec<u8>,
    },
    /// The connection closes at this byte.
    Fatal {
        sequence: u64,
        code: u16,
    },
}

/// What was accepted from the publishers' names.
#[derive(Debug)]
pub struct Names {
    /// The highest sequence accepted, and when; of each name that was ever given.
    highest: [Option<(u64, u64)>; Self::COUNT],
    /// How long that counts, in nanoseconds.
    window: u64,
    /// Events that were known already.
    pub duplicates: u64,
}

impl Names {
    pub const COUNT: usize = 3;

    pub fn new(window: u64) -> Self {
        Self { highest: [None; Self::COUNT], window, duplicates: 0 }
    }

    /// Where somebody of that name goes on who does not know what arrived.
    fn resume(&self, name: usize, random: &mut fastrand::Rng) -> u64 {
        self.highest[name].map_or(0, |(sequence, _)| sequence.saturating_sub(random.u64(..60)))
    }

    /// Whether an event is new.
    fn accept(&mut self, name: usize, sequence: u64, mono: u64) -> bool {
        let highest = self.highest[name].as_mut().expect("a name was given");
        let is_new = sequence == 0 || sequence > highest.0 || mono - highest.1 > self.window;
        if !is_new {
            self.duplicates += 1;
        } else if sequence > 0 {
            *highest = (sequence, mono);
        }
        is_new
    }
}

pub struct Publisher {
    pub id: usize,
    pub pipe: Rc<RefCell<Pipe>>,
    reads_answers: bool,
    outgoing: VecDeque<u8>,
    queued: usize,
    consumed: usize,
    written: VecDeque<(usize, Wrote)>,
    sequence: u64,
    /// Its name, once the node has read it.
    name: Option<usize>,
    /// Sequences of the accepted frames.
    accepted: Vec<u64>,
    /// Receipts that are to come, by their sequence: of which event. `None`: it was known already.
    receipts: BTreeMap<u64, Option<usize>>,
    /// How many were accepted when one last asked for an ACK.
    ack_wanted: u64,
    acked: u64,
    errors: VecDeque<(u64, u16)>,
    pongs: VecDeque<(u64, Vec<u8>)>,
    answers: Vec<u8>,
    /// A fatal frame was read.
    is_dead: bool,
    /// The node let it go: too many, too slow, or shutting down.
    pub dismissed: Option<u16>,
    favourites: Vec<usize>,
}

impl Publisher {
    pub fn new(id: usize, pipe: Rc<RefCell<Pipe>>, random: &mut fastrand::Rng) -> Self {
        let favourites = (0..3)
            .map(|_| if random.bool() { random.usize(..4) } else { random.usize(..SOCKET_TOPICS) })
            .collect();
        Self {
            id,
            pipe,
            reads_answers: random.u8(..5) > 0,
            outgoing: VecDeque::new(),
            queued: 0,
            consumed: 0,
            written: VecDeque::new(),
            sequence: random.u64(..1000),
            name: None,
            accepted: Vec::new(),
            receipts: BTreeMap::new(),
            ack_wanted: 0,
            acked: 0,
            errors: VecDeque::new(),
            pongs: VecDeque::new(),
            answers: Vec::new(),
            is_dead: false,
            dismissed: None,
            favourites,
        }
    }

    // What the publisher does.

    /// Says who it is, and begins before where somebody of its name was.
    pub fn introduce(&mut self, names: &Names, random: &mut fastrand::Rng) {
        let name = random.usize(..Names::COUNT);
        self.sequence = names.resume(name, random);
        self.say_hello(Some(name));
    }

    fn say_hello(&mut self, name: Option<usize>) {
        let text = name.map_or_else(String::new, |name| format!("p{name}"));
        let body = [&[0, 0, text.len() as u8, 0], text.as_bytes()].concat();
        self.put(1, 0, &body, Wrote::Hello(name), 0);
    }

    /// Writes a few frames.
    pub fn act(&mut self, burst: usize, large: usize, book: &mut Book, random: &mut fastrand::Rng) {
        if self.outgoing.len() > 100_000 || self.pipe.borrow().ended {
            return;
        }
        for _ in 0..random.usize(1..=burst) {
            self.sequence += random.u64(1..3);
            match random.u16(..400) {
                0..8 => self.write_bad(random),
                8..12 => {
                    let body = vec![7; random.usize(..=125)];
                    self.put(5, 0, &body, Wrote::Ping { sequence: self.sequence, body: body.clone() }, 0);
                }
                12 if random.bool() => return self.write_fatal(random),
                13 if random.bool() => return self.pipe.borrow_mut().end(random.bool()),
                14 if random.bool() => return self.pipe.borrow_mut().break_off(),
                15 if random.bool() => {
                    let name = random.usize(..=Names::COUNT);
                    self.say_hello((name < Names::COUNT).then_some(name));
                }
                16 if random.bool() => {
                    // It publishes no more, and waits for what it asked for.
                    (0..random.usize(1..10)).for_each(|_| {
                        self.sequence += 1;
                        self.write_good(large, true, book, random);
                    });
                    self.pump(true, random);
                    return self.pipe.borrow_mut().end(false);
                }
                _ => {
                    let receipt = random.u8(..4) == 0;
                    self.write_good(large, receipt, book, random);
                }
            }
        }
    }

    /// Writes a few events, all with a receipt; answers which.
    pub fn ask(&mut self, large: usize, book: &mut Book, random: &mut fastrand::Rng) -> Vec<usize> {
        let write = |_| {
            self.sequence += 1;
            self.write_good(large, true, book, random)
        };
        (0..write_count(large)).map(write).collect()
    }

    /// Whether what it writes now is read and answered.
    pub fn is_well(&self) -> bool {
        let pipe = self.pipe.borrow();
        let is_there = pipe.number.is_some() && !pipe.dropped && !pipe.shut && pipe.is_intact();
        is_there && !self.is_dead && self.dismissed.is_none()
    }

    fn write_good(
        &mut self,
        large: usize,
        receipt: bool,
        book: &mut Book,
        random: &mut fastrand::Rng,
    ) -> usize {
        let count = if random.u8(..5) == 0 { random.usize(2..=3) } else { 1 };
        let any = |random: &mut fastrand::Rng| match random.u8(..3) {
            0 => random.usize(..SOCKET_TOPICS),
            _ => self.favourites[random.usize(..self.favourites.len())],
        };
        let topics: Vec<usize> = (0..count).map(|_| any(random)).collect();
        let names = topics.iter().map(|topic| TOPICS[*topic]).collect::<Vec<_>>().join("\n");
        let event = book.write(topics, large, random);
        let written = &book.events[event];
        let ack = random.u8(..4) == 0;
        let body = body(&names, NAMES[written.name], written.key, written.given_ms, written.data.as_bytes());
        // Sequence 0 is any number of events'.
        let sequence = if receipt || random.u8(..30) > 0 { self.sequence } else { 0 };
        let good = Wrote::Good { event, sequence, ack, receipt };
        self.put_as(sequence, (2, u16::from(ack) | u16::from(receipt) << 1), &body, good, 0);
        event
    }

    fn write_bad(&mut self, random: &mut fastrand::Rng) {
        let (body, code) = match random.u8(..5) {
            0 => (body("bad\u{1}", "e", "", 0, b"1"), 4),
            1 => (body("", "e", "", 0, b"1"), 4),
            2 => (body("a", "", "", 0, b"1"), 4),
            3 => (body("a", "e", "", 0, b"{\"n\":"), 5),
            _ => (body("a", "e", "", 0, b"\"\xff\""), 5),
        };
        self.put(2, random.u16(..4), &body, Wrote::Bad { sequence: self.sequence, code }, 0);
    }

    fn write_fatal(&mut self, random: &mut fastrand::Rng) {
        let sequence = self.sequence;
        let fatal = |code| Wrote::Fatal { sequence, code };
        match random.u8(..5) {
            0 => self.put(3, 0, b"", fatal(2), 0),
            1 => self.put(2, 4, b"body", fatal(1), 4),
            2 => self.put(2, 0, b"short", fatal(1), 0),
            3 => self.put(5, 0, &[0; 126], fatal(6), 126),
            _ => {
                let body = body("a", "e", "", 0, &vec![b'1'; 40_001]);
                self.put(2, 0, &body, fatal(6), 0);
            }
        }
    }

    /// Adds a frame that is processed `early` bytes before its end.
    fn put(&mut self, kind: u8, flags: u16, body: &[u8], wrote: Wrote, early: usize) {
        self.put_as(self.sequence, (kind, flags), body, wrote, early);
    }

    fn put_as(&mut self, sequence: u64, (kind, flags): (u8, u16), body: &[u8], wrote: Wrote, early: usize) {
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend([1, kind]);
        frame.extend(flags.to_le_bytes());
        frame.extend(sequence.to_le_bytes());
        frame.extend(body);
        self.queued += frame.len();
        self.outgoing.extend(frame);
        self.written.push_back((self.queued - early, wrote));
    }

    pub fn pump(&mut self, all: bool, random: &mut fastrand::Rng) {
        let mut pipe = self.pipe.borrow_mut();
        // The kernel takes so much and no more.
        let room = if all { usize::MAX } else { 60_000_usize.saturating_sub(pipe.inbound.len()) };
        let most = self.outgoing.len().min(room);
        if most == 0 {
            return;
        }
        let count = match random.u8(..4) {
            _ if all => most,
            0 => random.usize(1..=most.min(40)),
            1 => random.usize(1..=most),
            _ => most,
        };
        let piece: Vec<u8> = self.outgoing.drain(..count).collect();
        pipe.send(&piece);
    }

    pub fn read(&mut self, all: bool, random: &mut fastrand::Rng) {
        let mut pipe = self.pipe.borrow_mut();
        if all {
            pipe.take(usize::MAX);
        } else if self.reads_answers && random.bool() {
            pipe.take(random.usize(1..500));
        }
        if pipe.outbound == 0 && pipe.shut && pipe.is_intact() && (all || self.reads_answers) {
            pipe.end(true);
        }
    }

    // What happens at the node.

    /// The node has read so many bytes; answers the events that it must have accepted as new.
    pub fn consume(&mut self, bytes: usize, asked: usize, mono: u64, names: &mut Names) -> Vec<usize> {
        let mut events = Vec::new();
        if asked == DISCARDING_READ || self.is_dead {
            return events;
        }
        self.consumed += bytes;
        while let Some((end, _)) = self.written.front()
            && *end <= self.consumed
            && let Some((_, wrote)) = self.written.pop_front()
        {
            match wrote {
                Wrote::Hello(name) => {
                    self.name = name;
                    if let Some(name) = name {
                        names.highest[name].get_or_insert((0, mono));
                    }
                }
                Wrote::Good { event, sequence, ack, receipt } => {
                    self.accepted.push(sequence);
                    if ack {
                        self.ack_wanted = self.accepted.len() as u64;
                    }
                    let is_new = self.name.is_none_or(|name| names.accept(name, sequence, mono));
                    events.extend(is_new.then_some(event));
                    if receipt {
                        let known = self.receipts.insert(sequence, is_new.then_some(event));
                        assert_eq!(known, None, "one receipt for each sequence");
                    }
                }
                Wrote::Bad { sequence, code } => self.errors.push_back((sequence, code)),
                Wrote::Ping { sequence, body } => self.pongs.push_back((sequence, body)),
                Wrote::Fatal { sequence, code } => {
                    self.errors.push_back((sequence, code));
                    self.is_dead = true;
                    break;
                }
            }
        }
        events
    }

    /// The node wrote bytes to it.
    pub fn take_bytes(&mut self, bytes: &[u8], book: &mut Book) {
        self.answers.extend_from_slice(bytes);
        while let Some(header) = self.answers.first_chunk::<16>() {
            let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
            let (version, kind) = (header[4], header[5]);
            let sequence = u64::from_le_bytes(header[8..].try_into().unwrap());
            assert_eq!((version, &header[6..8]), (1, &[0, 0][..]));
            if self.answers.len() < 16 + length {
                return;
            }
            let frame: Vec<u8> = self.answers.drain(..16 + length).collect();
            let body = &frame[16..];
            assert!(self.dismissed.is_none(), "an answer after the dismissal");
            match kind {
                3 => {
                    let accepted = u64::from_le_bytes(body.try_into().unwrap());
                    assert!(accepted > self.acked, "ACK of {accepted} after {}", self.acked);
                    assert_eq!(
                        self.accepted.get(accepted as usize - 1),
                        Some(&sequence),
                        "ACK of {accepted}"
                    );
                    self.acked = accepted;
                }
                4 => {
                    let code = u16::from_le_bytes([body[0], body[1]]);
                    assert!(std::str::from_utf8(&body[2..]).is_ok_and(|text| !text.is_empty()));
                    if self.errors.front() == Some(&(sequence, code)) {
                        self.errors.pop_front();
                    } else {
                        assert!(
                            sequence == 0 && matches!(code, 1 | 9),
                            "error {code} for {sequence}: {:?}",
                            self.errors
                        );
                        self.dismissed = Some(code);
                    }
                }
                6 => assert_eq!(self.pongs.pop_front(), Some((sequence, body.to_vec()))),
                7 => {
                    let reach = Reach::read(body);
                    let due = self.receipts.remove(&sequence);
                    match due.unwrap_or_else(|| panic!("a receipt for {sequence}: twice, or not asked for")) {
                        Some(event) => book.take_receipt(event, reach),
                        None => assert_eq!(reach, Reach::default(), "it was known already"),
                    }
                }
                _ => panic!("a frame of kind {kind}"),
            }
        }
    }

    /// Everything was read and written: every answer has come.
    pub fn check_quiet(&self, is_ending: bool) {
        self.check_receipts();
        let pipe = self.pipe.borrow();
        if self.dismissed.is_some() || !pipe.is_intact() {
            return;
        }
        assert!(
            self.acked >= self.ack_wanted,
            "{} were acknowledged, {} are due",
            self.acked,
            self.ack_wanted
        );
        assert!(self.errors.is_empty() && self.pongs.is_empty(), "answers are missing");
        assert!(pipe.inbound.is_empty() || is_ending, "{} bytes were not read", pipe.inbound.len());
        assert!(!self.is_dead || pipe.shut || pipe.dropped, "a fatal frame and the connection is open");
    }

    /// The node dropped the connection.
    pub fn take_drop(&self) {
        // Who did not take its answers in time is excused.
        if !self.pipe.borrow().has_refused {
            self.check_receipts();
        }
    }

    /// Who publishes no more and still reads has got every receipt, as has who is there.
    fn check_receipts(&self) {
        let pipe = self.pipe.borrow();
        if self.dismissed.is_none() && !self.is_dead && !pipe.deaf && !pipe.reset {
            let (id, receipts) = (self.id, &self.receipts);
            assert!(receipts.is_empty(), "publisher {id} waits for {receipts:?}: {}", pipe.state());
        }
    }

    pub fn is_gone(&self) -> bool {
        self.pipe.borrow().dropped
    }
}

/// Fewer where they are large.
fn write_count(large: usize) -> usize {
    if large > 1000 { 3 } else { 20 }
}

fn body(topics: &str, event: &str, key: &str, timestamp_ms: u64, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for text in [topics, event, key] {
        body.extend((text.len() as u16).to_le_bytes());
    }
    body.extend([0, 0]);
    body.extend(timestamp_ms.to_le_bytes());
    for text in [topics, event, key] {
        body.extend(text.as_bytes());
    }
    body.extend(data);
    body
}
