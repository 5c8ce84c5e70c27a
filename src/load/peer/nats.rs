//! NATS' client protocol (<https://docs.nats.io/reference/reference-protocols/nats-protocol>) over TCP.

use std::io;

use memchr::memchr;

use super::{Expect, Protocol, Turn, event};

/// Core NATS: no queue groups, no acknowledgements.
#[derive(Debug)]
pub(super) struct Nats;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"fanwire bench\",\"version\":\"1\",\
                       \"protocol\":1,\"echo\":false}\r\n";
/// The server greets first; it answers a ping once it has dealt with what came before it.
const READY: Expect = Expect { start: b"INFO ", end: b"\r\nPONG\r\n" };

impl Protocol for Nats {
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn> {
        let say = || format!("{CONNECT}SUB {topic} 1\r\nPING\r\n").into_bytes();
        (step == 0).then(|| Turn { say: say(), expect: READY })
    }

    fn publisher(&self, step: u8) -> Option<Turn> {
        (step == 0).then(|| Turn { say: format!("{CONNECT}PING\r\n").into_bytes(), expect: READY })
    }

    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let event = event(topic, data);
        out.extend(format!("PUB {topic} {}\r\n{event}\r\n", event.len()).into_bytes());
        Ok(())
    }

    /// What the server's pings ask for.
    fn sign_of_life(&self) -> &[u8] {
        b"PONG\r\n"
    }

    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String> {
        while let Some(end) = memchr(b'\n', heard) {
            let line: Vec<u8> = heard.drain(..=end).collect();
            if line.starts_with(b"-ERR") {
                return Err(format!("the server says: {}", String::from_utf8_lossy(&line).trim()));
            }
        }
        Ok(())
    }
}
