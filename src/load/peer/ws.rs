//! A plain WebSocket server, as one writes it with npm `ws`, Bun, tokio-tungstenite or uWebSockets in twenty lines.

use std::io;

use super::{PONG, Protocol, Turn, event, hear_websocket, text_frame, upgrade_turn};

/// Subscribers `GET /sub/TOPIC`; the publisher sends texts `TOPIC JSON` on `/pub`.
#[derive(Debug)]
pub(super) struct Ws;

impl Protocol for Ws {
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn> {
        (step == 0).then(|| upgrade_turn(&format!("/sub/{topic}")))
    }

    fn publisher(&self, step: u8) -> Option<Turn> {
        (step == 0).then(|| upgrade_turn("/pub"))
    }

    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend(text_frame(&format!("{topic} {}", event(topic, data))));
        Ok(())
    }

    fn sign_of_life(&self) -> &[u8] {
        PONG
    }

    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String> {
        hear_websocket(heard)
    }
}
