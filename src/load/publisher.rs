//! The publisher's side: one connection, and for each topic an event in which only the probe changes.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use memchr::memmem;
use mio::{Interest, Registry, Token};

use super::pace::Pace;
use super::peer::{Progress, Protocol, Turn, advance};
use super::probe::{MARKER, Probe};
use super::stream::{Address, Blocking, Stream};

/// Bytes that wait to be sent at most: beyond them events stay due, and their intended time stands.
const UNSENT: usize = 4 << 20;

/// One topic and what was published to it.
#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) name: String,
    pub(super) subscribers: u64,
    pub(super) published: u64,
    /// The whole publish as it is sent, of which only the probe changes.
    frame: Vec<u8>,
    /// Where in it the probe is.
    probe: usize,
}

impl TopicState {
    pub(super) fn new(prefix: &str, number: usize, data: &str, protocol: &dyn Protocol) -> io::Result<Self> {
        let name = format!("{prefix}{number:04}");
        let mut frame = Vec::new();
        protocol.publish(&name, data, &mut frame)?;
        let probe = memmem::find(&frame, MARKER).map(|at| at + MARKER.len());
        let probe = probe.ok_or_else(|| io::Error::other("the event carries no probe"))?;
        Probe::write_topic(&mut frame, probe, number as u32);
        Ok(Self { name, subscribers: 0, published: 0, frame, probe })
    }
}

#[derive(Debug)]
pub(super) struct Publisher {
    stream: Stream,
    unsent: Vec<u8>,
    sent: usize,
    is_blocked: bool,
    /// Why it is over, if it is.
    pub(super) ended: Option<String>,
    next_topic: usize,
    pub(super) pace: Pace,
    /// How late it was with an event at worst, in nanoseconds.
    pub(super) lateness: u64,
    /// What the server said and nobody has judged.
    heard: Vec<u8>,
}

impl Publisher {
    /// Connects, and says what has to be said before the first event.
    pub(super) fn open(address: &Address, protocol: &dyn Protocol, patience: Duration) -> io::Result<Self> {
        let failed = |error: io::Error| {
            let text = format!("no publisher at {address}: {error}");
            io::Error::new(error.kind(), text)
        };
        let mut stream = Blocking::connect(address, patience).map_err(failed)?;
        greet(&mut stream, protocol).map_err(failed)?;
        Ok(Self {
            stream: stream.into_stream()?,
            unsent: Vec::with_capacity(2 * UNSENT),
            sent: 0,
            is_blocked: false,
            ended: None,
            next_topic: 0,
            pace: Pace::default(),
            lateness: 0,
            heard: Vec::new(),
        })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// When the next event is to be written: not while the server takes nothing and too much waits already.
    pub(super) fn due(&self) -> u64 {
        let has_room = self.unsent.len() - self.sent < UNSENT && self.ended.is_none();
        if has_room { self.pace.due() } else { u64::MAX }
    }

    /// Writes the events whose time has come.
    pub(super) fn publish_due(&mut self, topics: &mut [TopicState], now: u64) {
        if self.due() > now {
            return;
        }
        self.lateness = self.lateness.max(now - self.due());
        while self.due() <= now {
            let topic = &mut topics[self.next_topic];
            topic.published += 1;
            Probe::write(&mut topic.frame, topic.probe, topic.published, self.due());
            self.unsent.extend_from_slice(&topic.frame);
            self.next_topic = (self.next_topic + 1) % topics.len();
            self.pace.step();
        }
        if !self.is_blocked {
            self.flush();
        }
    }

    /// Says something between two events.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        if !self.is_blocked {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if self.ended.is_some() {
            return;
        }
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    if self.sent > UNSENT / 2 {
                        self.unsent.drain(..self.sent);
                        self.sent = 0;
                    }
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = Some(error.to_string());
                    return;
                }
            }
        }
        self.is_blocked = false;
        self.unsent.clear();
        self.sent = 0;
    }

    /// Reads what the server has said.
    pub(super) fn hear(&mut self, protocol: &dyn Protocol, buffer: &mut [u8]) {
        while self.ended.is_none() {
            match self.stream.read(buffer) {
                Ok(0) => self.ended = Some("the server closed the publisher's connection".to_owned()),
                Ok(count) => {
                    self.heard.extend_from_slice(&buffer[..count]);
                    self.ended = protocol.hear(&mut self.heard).err();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.ended = Some(error.to_string()),
            }
        }
    }
}

fn greet(stream: &mut Blocking, protocol: &dyn Protocol) -> io::Result<()> {
    let (mut answers, mut step) = (Vec::new(), 0);
    while let Some(Turn { say, expect }) = protocol.publisher(step) {
        stream.write_all(&say)?;
        loop {
            match advance(&mut answers, expect) {
                Progress::Done => break,
                Progress::Waiting => {}
                Progress::Refused => return Err(io::Error::other(refusal(&answers))),
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer)? {
                0 => return Err(io::Error::other(refusal(&answers))),
                count => answers.extend_from_slice(&buffer[..count]),
            }
        }
        step += 1;
    }
    Ok(())
}

/// What a server said that was not what was waited for, for people.
pub(super) fn refusal(answers: &[u8]) -> String {
    if answers.is_empty() {
        return "the server closed the connection and said nothing".to_owned();
    }
    let text: String = String::from_utf8_lossy(&answers[..answers.len().min(300)]).into_owned();
    format!("the server said {text:?}")
}
