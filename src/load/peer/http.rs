//! nchan (<https://nchan.io>), or whatever takes events by HTTP: `POST /pub/TOPIC`, and a WebSocket of `/sub/TOPIC`.

use std::io;

use memchr::memmem;

use super::{PONG, Protocol, Turn, event, upgrade_turn};

/// One connection to publish on; requests do not wait for the answers to those before them.
#[derive(Debug)]
pub(super) struct Http;

/// A status line's beginning.
const VERSION: &[u8] = b"HTTP/1.1 ";

impl Protocol for Http {
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn> {
        (step == 0).then(|| upgrade_turn(&format!("/sub/{topic}")))
    }

    fn publisher(&self, _step: u8) -> Option<Turn> {
        None
    }

    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let event = event(topic, data);
        let head = format!(
            "POST /pub/{topic} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            event.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(event.as_bytes());
        Ok(())
    }

    fn sign_of_life(&self) -> &[u8] {
        PONG
    }

    fn publisher_sign_of_life(&self) -> &[u8] {
        b""
    }

    /// Every answer has to be one of success.
    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String> {
        let mut judged = 0;
        while let Some(at) = memmem::find(&heard[judged..], VERSION) {
            let status = judged + at + VERSION.len();
            let Some(code) = heard.get(status..status + 3) else { break };
            if code[0] != b'2' {
                let line = heard[status..].split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(format!("the server refused an event: {}", String::from_utf8_lossy(line)));
            }
            judged = status + 3;
        }
        // The beginning of a status line may be the end of what came.
        let kept = (VERSION.len() + 2).min(heard.len() - judged);
        heard.drain(..heard.len() - kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_heard_whatever_the_answers_are_cut_into() {
        let good = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n1\r\n".repeat(3);
        let all = [&good[..], b"HTTP/1.1 413 Too Large\r\n\r\n"].concat();
        for size in [1, 3, 11, 12, 100, 1_000] {
            let mut heard = Vec::new();
            let mut refused = None;
            for piece in all.chunks(size) {
                heard.extend_from_slice(piece);
                refused = Http.hear(&mut heard).err();
                if refused.is_some() {
                    break;
                }
                assert!(heard.len() < 12, "{} bytes are kept", heard.len());
            }
            assert!(refused.is_some_and(|text| text.contains("413")), "in pieces of {size}");
        }
    }
}
