//! The dialects: where what is said to a client depends on how it is spoken to.
//!
//! Nothing here is on the way of an event: events are written by envelopes, and queued and sent without
//! anybody asking which.

use crate::dialect::command::Command;
use crate::dialect::{echo, json, path, sse};
use crate::error::CloseReason;
use crate::proto::websocket::{Accept, MAX_FRAGMENTS, Opcode, write_close, write_frame};
use crate::session::chunk::Gap;

/// How a client is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The JSON WebSocket protocol.
    Json,
    /// A path stream over WebSocket.
    Path,
    /// Server-Sent Events.
    EventStream,
    /// Every message back as it came, for test suites.
    Echo,
}

/// The end of a session, as its client is told.
#[derive(Clone, Copy, Debug)]
pub struct Farewell<'a> {
    /// Why.
    pub reason: CloseReason,
    /// When to come back, for those who are to.
    pub retry_after_ms: Option<u32>,
    /// What the client did wrong; empty for nothing to say.
    pub detail: &'a str,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 4] = [Self::Json, Self::Path, Self::EventStream, Self::Echo];

    /// The name in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Path => "path",
            Self::EventStream => "sse",
            Self::Echo => "echo",
        }
    }

    /// Whether it is spoken in WebSocket frames.
    pub const fn is_web_socket(self) -> bool {
        !matches!(self, Self::EventStream)
    }

    /// What messages are taken, where the settings allow so many bytes of one.
    pub const fn accept(self, max_message_bytes: usize) -> Accept {
        match self {
            Self::Echo => echo::ACCEPT,
            Self::Json | Self::Path | Self::EventStream => Accept {
                max_message_bytes,
                binary: matches!(self, Self::Path),
                max_fragments: Some(MAX_FRAGMENTS),
                deflated: false,
            },
        }
    }

    /// Whether a client shows that it is alive by whatever it sends; otherwise only a pong counts.
    pub const fn is_heard_by_any_byte(self) -> bool {
        matches!(self, Self::Json | Self::Echo)
    }

    /// What replaces the last byte of each event of a client that named itself, where the dialect says the name.
    pub fn suffix(self, client_id: &str) -> Option<Box<[u8]>> {
        matches!(self, Self::Json).then(|| json::client_id_suffix(client_id))
    }

    /// What a message of a client asks for. Not every dialect has messages that ask for anything.
    ///
    /// # Errors
    /// What is wrong with it, for the `error` message.
    pub fn read(self, opcode: Opcode, message: &[u8]) -> Result<Option<Command>, String> {
        match self {
            Self::Json => json::parse(message).map(Some),
            Self::Echo => Ok(Some(Command::Echo(echo::frame(opcode, message)))),
            Self::Path | Self::EventStream => Ok(None),
        }
    }

    /// Appends the heartbeat.
    pub fn write_heartbeat(self, out: &mut Vec<u8>, timestamp: &str) {
        match self {
            Self::Json => json::write_heartbeat(out, timestamp),
            Self::Path | Self::Echo => path::write_heartbeat(out),
            Self::EventStream => sse::write_heartbeat(out),
        }
    }

    /// Appends a message of the node's own: a line of JSON that is called `name`.
    pub fn write_message(self, out: &mut Vec<u8>, name: &str, json: &[u8]) {
        match self {
            Self::Json | Self::Path | Self::Echo => write_frame(out, Opcode::Text, json),
            Self::EventStream => sse::write_notice(out, name, json),
        }
    }

    /// Appends a notice of events that were left out; `None`: nobody knows how many.
    pub fn write_gap(self, out: &mut Vec<u8>, timestamp: &str, topic: &str, gap: Option<Gap>) {
        self.write_message(out, "gap", &json::gap(timestamp, topic, gap));
    }

    /// Appends an error message.
    pub fn write_error(self, out: &mut Vec<u8>, timestamp: &str, error: &str) {
        self.write_message(out, "error", &json::error(timestamp, error));
    }

    /// Appends the end of a session, where the client is still there to be told. In a close frame it is short
    /// JSON where there is something to say.
    pub fn write_farewell(self, out: &mut Vec<u8>, farewell: &Farewell<'_>) {
        let Farewell { reason, retry_after_ms, detail } = farewell;
        let Some(code) = reason.code() else { return };
        if self == Self::EventStream {
            sse::write_end(out, reason.name(), *retry_after_ms);
            return;
        }
        let text = match retry_after_ms {
            Some(ms) => format!("{{\"retryAfterMs\":{ms}}}"),
            None if detail.is_empty() => String::new(),
            None => format!("{{\"error\":{}}}", serde_json::Value::from(*detail)),
        };
        write_close(out, code, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_tells_the_same_in_its_own_words() {
        let farewell = Farewell { reason: CloseReason::SlowConsumer, retry_after_ms: Some(1800), detail: "" };
        for dialect in Dialect::ALL {
            let mut out = Vec::new();
            dialect.write_gap(&mut out, "T", "t", Some(Gap::dropped(3)));
            dialect.write_error(&mut out, "T", "no");
            dialect.write_heartbeat(&mut out, "T");
            dialect.write_farewell(&mut out, &farewell);
            let text = String::from_utf8_lossy(&out);
            for expected in [r#""data":{"topic":"t","dropped":3}"#, r#""data":{"error":"no"}"#, "1800"] {
                assert!(text.contains(expected), "{}: {text}", dialect.name());
            }
            assert_eq!(out[0] == 0x81, dialect.is_web_socket(), "{}", dialect.name());
        }
    }
}
