//! What speaks at the other end: for each kind of server, how one subscribes, when one is subscribed, and how one publishes.
//!
//! Everything that is not events is a conversation: say something, wait for certain bytes, say the next. What comes
//! afterwards is searched for probes, whatever the frames around them.

mod fanwire;
mod http;
mod mqtt;
mod nats;
mod socketio;
mod ws;

use std::fmt;
use std::io;
use std::sync::Arc;

use memchr::memmem;

pub use fanwire::{Dialect, STREAM};

use crate::proto::websocket;

/// Which kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Fanwire, whose subscribers speak this dialect.
    Fanwire(Dialect),
    /// A plain WebSocket server: `/sub/TOPIC`, and `/pub` for texts `TOPIC JSON`.
    Ws,
    /// Socket.IO over Engine.IO 4, WebSocket only.
    SocketIo,
    /// The client protocol of NATS.
    Nats,
    /// MQTT 3.1.1, QoS 0.
    Mqtt,
    /// nchan: `POST /pub/TOPIC`, and a WebSocket of `/sub/TOPIC`.
    Http,
}

impl Peer {
    /// How it is spoken to.
    pub fn protocol(self) -> Arc<dyn Protocol> {
        match self {
            Self::Fanwire(dialect) => Arc::new(dialect),
            Self::Ws => Arc::new(ws::Ws),
            Self::SocketIo => Arc::new(socketio::SocketIo::new()),
            Self::Nats => Arc::new(nats::Nats),
            Self::Mqtt => Arc::new(mqtt::Mqtt),
            Self::Http => Arc::new(http::Http),
        }
    }

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fanwire(_) => "fanwire",
            Self::Ws => "ws",
            Self::SocketIo => "socketio",
            Self::Nats => "nats",
            Self::Mqtt => "mqtt",
            Self::Http => "http",
        }
    }
}

/// How one kind of server is spoken to. Topics are ASCII letters, digits, `_` and `-`.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// What a subscriber of `topic` says at this step once TCP stands, and what must come before the next one.
    /// `None`: it is subscribed, and what comes now are events.
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn>;

    /// The same of a publisher; `None`: it may publish.
    fn publisher(&self, step: u8) -> Option<Turn>;

    /// Appends one publish of an event with this data, which has to stand in it as it is.
    ///
    /// # Errors
    /// It does not fit the protocol.
    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()>;

    /// What is said a few times a minute so as not to be taken for dead; empty: nothing.
    fn sign_of_life(&self) -> &[u8];

    /// The same of a publisher.
    fn publisher_sign_of_life(&self) -> &[u8] {
        self.sign_of_life()
    }

    /// Judges what a publisher has heard since it may publish, and drains what it has judged.
    ///
    /// # Errors
    /// The server refused something: what it said.
    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String>;
}

/// One step of a conversation.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What is said; may be empty.
    pub say: Vec<u8>,
    /// What is waited for.
    pub expect: Expect,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// What it must begin with; anything else is a refusal.
    pub start: &'static [u8],
    /// Where it is over.
    pub end: &'static [u8],
}

impl Expect {
    /// Something that may stand anywhere.
    const fn somewhere(end: &'static [u8]) -> Self {
        Self { start: b"", end }
    }

    /// Exactly this.
    const fn exactly(bytes: &'static [u8]) -> Self {
        Self { start: bytes, end: bytes }
    }
}

/// Where an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has not all come.
    Waiting,
    /// It was there, and is taken off.
    Done,
    /// It is another one.
    Refused,
}

/// Looks for an answer in what has come, and takes it off if it is there.
pub(crate) fn advance(answers: &mut Vec<u8>, expect: Expect) -> Progress {
    let seen = answers.len().min(expect.start.len());
    if answers[..seen] != expect.start[..seen] {
        return Progress::Refused;
    }
    match memmem::find(answers, expect.end) {
        Some(at) if at + expect.end.len() >= expect.start.len() => {
            answers.drain(..at + expect.end.len());
            Progress::Done
        }
        _ => Progress::Waiting,
    }
}

/// The request that opens a WebSocket.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// An upgrade as the first step of a conversation.
fn upgrade_turn(path: &str) -> Turn {
    Turn { say: upgrade(path).into_bytes(), expect: Expect { start: b"HTTP/1.1 101", end: b"\r\n\r\n" } }
}

/// A text frame whose mask is zeros, so that a probe in it can be written over.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + text.len());
    websocket::write_masked(&mut frame, 0x81, [0; 4], text.as_bytes());
    frame
}

/// An unasked pong, masked with zeros.
const PONG: &[u8] = &[0x8a, 0x80, 0, 0, 0, 0];

/// The event as Fanwire's JSON dialect would write it: what peers are given to pass on.
fn event(topic: &str, data: &str) -> String {
    format!(
        r#"{{"type":"event","event":"{EVENT}","category":"{topic}","data":{data},"timestamp":"2024-01-15T10:15:00.000Z"}}"#
    )
}

/// The event's name.
const EVENT: &str = "retry-started";

/// What a WebSocket publisher hears is a sign of life, or a close, which the end of the connection follows.
fn hear_websocket(heard: &mut Vec<u8>) -> Result<(), String> {
    heard.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Peer; 8] = [
        Peer::Fanwire(Dialect::Json),
        Peer::Fanwire(Dialect::Path),
        Peer::Fanwire(Dialect::Sse),
        Peer::Ws,
        Peer::SocketIo,
        Peer::Nats,
        Peer::Mqtt,
        Peer::Http,
    ];

    #[test]
    fn an_answer_is_found_whatever_it_is_cut_into() {
        let expect = Expect { start: b"HTTP/1.1 101", end: b"\r\n\r\n" };
        let answer = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n";
        let mut came = Vec::new();
        for (at, byte) in answer.iter().enumerate() {
            came.push(*byte);
            let expected = if at + 1 == answer.len() { Progress::Done } else { Progress::Waiting };
            assert_eq!(advance(&mut came, expect), expected, "{at}");
        }
        let mut came = [&answer[..], b"rest"].concat();
        assert_eq!((advance(&mut came, expect), &came[..]), (Progress::Done, &b"rest"[..]));
        assert_eq!(advance(&mut b"HTTP/1.1 503".to_vec(), expect), Progress::Refused);
        assert_eq!(advance(&mut b"HTTQ".to_vec(), expect), Progress::Refused);
        assert_eq!(advance(&mut vec![0x20, 2], Expect::exactly(&[0x20, 2, 0, 0])), Progress::Waiting);
        assert_eq!(advance(&mut vec![0x20, 2, 0, 5], Expect::exactly(&[0x20, 2, 0, 0])), Progress::Refused);
    }

    #[test]
    fn every_publish_carries_the_data_as_it_is_and_every_conversation_ends() {
        let data = crate::load::probe::data(0);
        for peer in ALL {
            let protocol = peer.protocol();
            let mut out = Vec::new();
            protocol.publish("topic_0001", &data, &mut out).unwrap();
            assert!(memmem::find(&out, data.as_bytes()).is_some(), "{peer:?}");
            assert!(memmem::find(&out, b"topic_0001").is_some(), "{peer:?}");
            assert!((0..9).any(|step| protocol.subscribe("t", step).is_none()), "{peer:?}");
            assert!((0..9).any(|step| protocol.publisher(step).is_none()), "{peer:?}");
        }
    }
}
