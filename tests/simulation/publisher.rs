//! A publisher on the publish socket and the model of what the node must answer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::book::{Book, NAMES, SOCKET_TOPICS, TOPICS};
use crate::socket::Pipe;

/// What a read of a connection that is on its way out asks for; a publisher is read otherwise.
const DISCARDING_READ: usize = 64 << 10;

#[derive(Debug)]
enum Wrote {
    Good {
        event: usize,
        sequence: u64,
        ack: bool,
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

pub struct Publisher {
    pub id: usize,
    pub pipe: Rc<RefCell<Pipe>>,
    reads_answers: bool,
    outgoing: VecDeque<u8>,
    queued: usize,
    consumed: usize,
    written: VecDeque<(usize, Wrote)>,
    sequence: u64,
    /// Sequences of the accepted frames.
    accepted: Vec<u64>,
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
            accepted: Vec::new(),
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

    /// Writes a few frames.
    pub fn act(&mut self, burst: usize, large: usize, book: &mut Book, random: &mut fastrand::Rng) {
        if self.outgoing.len() > 100_000 {
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
                _ => self.write_good(large, book, random),
            }
        }
    }

    fn write_good(&mut self, large: usize, book: &mut Book, random: &mut fastrand::Rng) {
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
        let good = Wrote::Good { event, sequence: self.sequence, ack };
        self.put(2, u16::from(ack), &body, good, 0);
    }

    fn write_bad(&mut self, random: &mut fastrand::Rng) {
        let (body, code) = match random.u8(..5) {
            0 => (body("bad\u{1}", "e", "", 0, b"1"), 4),
            1 => (body("", "e", "", 0, b"1"), 4),
            2 => (body("a", "", "", 0, b"1"), 4),
            3 => (body("a", "e", "", 0, b"{\"n\":"), 5),
            _ => (body("a", "e", "", 0, b"\"\xff\""), 5),
        };
        self.put(2, random.u16(..2), &body, Wrote::Bad { sequence: self.sequence, code }, 0);
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
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend([1, kind]);
        frame.extend(flags.to_le_bytes());
        frame.extend(self.sequence.to_le_bytes());
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

    /// The node has read so many bytes; answers the events that it must have accepted.
    pub fn consume(&mut self, bytes: usize, asked: usize) -> Vec<usize> {
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
                Wrote::Good { event, sequence, ack } => {
                    self.accepted.push(sequence);
                    if ack {
                        self.ack_wanted = self.accepted.len() as u64;
                    }
                    events.push(event);
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
    pub fn take_bytes(&mut self, bytes: &[u8]) {
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
                _ => panic!("a frame of kind {kind}"),
            }
        }
    }

    /// Everything was read and written: every answer has come.
    pub fn check_quiet(&self, is_ending: bool) {
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

    pub fn is_gone(&self) -> bool {
        self.pipe.borrow().dropped
    }
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
