//! Socket.IO 5 over Engine.IO 4 (<https://socket.io/docs/v4/engine-io-protocol/>), WebSocket only, default namespace.

use std::io;

use super::{Expect, Protocol, Turn, event, hear_websocket, text_frame, upgrade_turn};

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";

/// Subscribers emit `sub` with the topic and are answered by `subbed`; the publisher emits `pub` with topic and JSON, which
/// comes back as `event`.
#[derive(Debug)]
pub(super) struct SocketIo {
    /// Engine.IO's pong: the server asks less often where it comes unasked.
    pong: Vec<u8>,
}

impl SocketIo {
    pub(super) fn new() -> Self {
        Self { pong: text_frame("3") }
    }
}

/// Upgrade, Engine.IO's greeting, the namespace.
fn open(step: u8) -> Option<Turn> {
    match step {
        0 => Some(upgrade_turn(PATH)),
        1 => Some(Turn { say: Vec::new(), expect: Expect::somewhere(b"0{") }),
        2 => Some(Turn { say: text_frame("40"), expect: Expect::somewhere(b"40{") }),
        _ => None,
    }
}

impl Protocol for SocketIo {
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn> {
        let subscribe = || Turn {
            say: text_frame(&format!(r#"42["sub","{topic}"]"#)),
            expect: Expect::somewhere(br#"42["subbed""#),
        };
        open(step).or_else(|| (step == 3).then(subscribe))
    }

    fn publisher(&self, step: u8) -> Option<Turn> {
        open(step)
    }

    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend(text_frame(&format!(r#"42["pub","{topic}",{}]"#, event(topic, data))));
        Ok(())
    }

    fn sign_of_life(&self) -> &[u8] {
        &self.pong
    }

    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String> {
        hear_websocket(heard)
    }
}
