//! MQTT 3.1.1 (<https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>) over TCP, QoS 0.

use std::io;

use super::{Expect, Protocol, Turn, event};

/// Clean sessions without keep-alive.
#[derive(Debug)]
pub(super) struct Mqtt;

/// CONNACK without a session, accepted.
const CONNACK: Expect = Expect::exactly(&[0x20, 2, 0, 0]);
/// SUBACK of packet 1, granted with QoS 0.
const SUBACK: Expect = Expect::exactly(&[0x90, 3, 0, 1, 0]);

impl Protocol for Mqtt {
    fn subscribe(&self, topic: &str, step: u8) -> Option<Turn> {
        match step {
            0 => Some(Turn { say: connect(), expect: CONNACK }),
            1 => {
                let mut body = vec![0, 1];
                write_string(&mut body, topic);
                body.push(0);
                Some(Turn { say: packet(0x82, &body), expect: SUBACK })
            }
            _ => None,
        }
    }

    fn publisher(&self, step: u8) -> Option<Turn> {
        (step == 0).then(|| Turn { say: connect(), expect: CONNACK })
    }

    fn publish(&self, topic: &str, data: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let mut body = Vec::new();
        write_string(&mut body, topic);
        body.extend_from_slice(event(topic, data).as_bytes());
        out.extend(packet(0x30, &body));
        Ok(())
    }

    /// PINGREQ.
    fn sign_of_life(&self) -> &[u8] {
        &[0xc0, 0]
    }

    /// With QoS 0 nothing is answered but pings.
    fn hear(&self, heard: &mut Vec<u8>) -> Result<(), String> {
        heard.clear();
        Ok(())
    }
}

/// CONNECT: protocol level 4, clean session, no keep-alive, an identifier that the server chooses.
fn connect() -> Vec<u8> {
    let mut body = Vec::new();
    write_string(&mut body, "MQTT");
    body.extend_from_slice(&[4, 2, 0, 0]);
    write_string(&mut body, "");
    packet(0x10, &body)
}

/// A packet: its first byte, the length in groups of seven bits, the rest.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    while left > 127 {
        out.push(0x80 | (left % 128) as u8);
        left /= 128;
    }
    out.push(left as u8);
    out.extend_from_slice(body);
    out
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_groups_of_seven_bits() {
        // The table of section 2.2.3.
        for (length, expected) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
        ] {
            let packet = packet(0x30, &vec![b'x'; length]);
            assert_eq!(&packet[1..packet.len() - length], expected, "{length}");
        }
    }
}
