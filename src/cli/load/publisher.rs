//! The publisher's connection.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::{Interest, Registry, Token};

use super::stream::{Address, Blocking, Stream};
use crate::load::outgoing::{Outgoing, TopicState};
use crate::load::peer::{Progress, Protocol, Turn, advance};

#[derive(Debug)]
pub(super) struct Publisher {
    stream: Stream,
    pub(super) outgoing: Outgoing,
    is_blocked: bool,
    /// Why it is over, if it is.
    pub(super) ended: Option<String>,
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
            outgoing: Outgoing::new(),
            is_blocked: false,
            ended: None,
            heard: Vec::new(),
        })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// When the next event is to be written: not while the server takes nothing and too much waits already.
    pub(super) fn due(&self) -> u64 {
        if self.ended.is_none() { self.outgoing.due() } else { u64::MAX }
    }

    /// Sends the events whose time has come.
    pub(super) fn publish_due(&mut self, topics: &mut [TopicState], now: u64) {
        if self.ended.is_none() && self.outgoing.publish_due(topics, now) && !self.is_blocked {
            self.flush();
        }
    }

    /// Says something between two events.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.outgoing.say(bytes);
        if !self.is_blocked {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if self.ended.is_some() {
            return;
        }
        while !self.outgoing.unsent().is_empty() {
            match self.stream.write(self.outgoing.unsent()) {
                Ok(count) => self.outgoing.note_sent(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
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
