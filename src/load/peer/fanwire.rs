//! Fanwire: three dialects for subscribers, the publish socket for the publisher.

use std::io;

use super::{EVENT, Expect, PONG, Protocol, Turn, text_frame, upgrade_turn};
use crate::publish::wire::Publish;

/// How subscribers are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// JSON over WebSocket: `/ws` and a subscribe.
    Json,
    /// `/sse?topics=`.
    Sse,
    /// A WebSocket of the path `/stream/TOPIC`, which the node's settings must have.
    Path,
}

/// The table of the node's settings that [`Dialect::Path`] needs.
pub const STREAM: &str = r#"
[[stream]]
path = "/stream/{name}"
topic = "{name}"
envelope = '{"topic":{topic},"type":{event},"payload":{data}}'
"#;

impl Protocol for Dialect {
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn> {
        match (self, step) {
            (Self::Json, 0) => Some(upgrade_turn("/ws")),
            (Self::Json, 1) => Some(Turn {
                say: text_frame(&format!(r#"{{"type":"subscribe","categories":["{topic}"]}}"#)),
                expect: Expect::somewhere(br#""subscription-ack""#),
            }),
            // Its upgrade says that the subscription has taken effect.
            (Self::Path, 0) => Some(upgrade_turn(&format!("/stream/{topic}"))),
            (Self::Sse, 0) => Some(Turn {
                say: format!("GET /sse?topics={topic} HTTP/1.1\r\nHost: node\r\n\r\n").into_bytes(),
                expect: Expect { start: b"HTTP/1.1 200", end: b"\r\n\r\n" },
            }),
            (Self::Sse, 1) => Some(Turn { say: Vec::new(), expect: Expect::somewhere(b": subscribed") }),
            _ => None,
        }
    }

    fn publisher(&self, _step: u8) -> Option<Turn> {
        None
    }

    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let publish = Publish { topics: topic, event: EVENT, key: "", data, timestamp_ms: 0 };
        publish.encode(0, 0, out).map_err(|error| io::Error::other(error.to_string()))
    }

    fn sign_of_life(&self) -> &[u8] {
        match self {
            Self::Json | Self::Path => PONG,
            // Nobody can say anything on an event stream.
            Self::Sse => b"",
        }
    }

    fn publisher_sign_of_life(&self) -> &[u8] {
        b""
    }

    /// Nothing is asked of the node that it would answer: what comes is a refusal.
    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String> {
        Err(format!("the node refused an event: {}", String::from_utf8_lossy(heard).trim()))
    }
}
