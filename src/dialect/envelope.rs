//! How a dialect writes an event: a compiled template and the framing around it.
//!
//! Each event is written at most once per envelope, however many subscribers get it. What is private to one
//! subscriber is spliced onto the written bytes ([`splice`]).

use crate::clock::Iso8601;
use crate::event::Round;
use crate::proto::websocket::{Opcode, header_len, write_header};

/// A round's events as one envelope writes them: frames back to back.
#[derive(Debug, Default)]
pub struct Frames {
    /// The frames.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<u32>,
}

/// A compiled template. The number of an envelope is its place in [`Envelopes`].
#[derive(Debug)]
pub struct Envelope {
    parts: Vec<Part>,
}

/// One part of a template.
#[derive(Debug)]
pub enum Part {
    /// These bytes.
    Literal(&'static str),
    /// The event's name as a JSON string.
    Event,
    /// The event's first topic as a JSON string.
    Category,
    /// The data, byte for byte.
    Data,
    /// The timestamp as a JSON string, ISO 8601.
    Timestamp,
}

/// The envelopes of a node, by number.
#[derive(Debug)]
pub struct Envelopes(Vec<Envelope>);

/// The number of the JSON protocol's envelope.
pub const JSON: u8 = 0;

impl Envelopes {
    /// The envelopes that every node has.
    pub fn built_in() -> Self {
        use Part::{Category, Data, Event, Literal, Timestamp};
        Self(vec![Envelope {
            parts: vec![
                Literal(r#"{"type":"event","event":"#),
                Event,
                Literal(r#","category":"#),
                Category,
                Literal(r#","data":"#),
                Data,
                Literal(r#","timestamp":"#),
                Timestamp,
                Literal("}"),
            ],
        }])
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, which no node has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The envelope with this number.
    pub fn get(&self, number: u8) -> &Envelope {
        &self.0[usize::from(number)]
    }
}

/// Bytes reserved for a frame's header before its length is known: what nearly every event needs.
const USUAL_HEADER: usize = 4;

impl Envelope {
    /// Writes every event of a round as a frame at the end of `bytes`, and where each ends into `ends`.
    pub fn write(&self, round: &Round, iso: &mut Iso8601, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) {
        let fixed: usize =
            self.parts.iter().map(|part| if let Part::Literal(text) = part { text.len() } else { 28 }).sum();
        bytes.reserve(
            round.events.bytes() + round.events.len() * (fixed + round.category.len() + USUAL_HEADER),
        );
        ends.reserve(round.events.len());
        for event in round.events.iter() {
            let start = bytes.len();
            bytes.extend_from_slice(&[0; USUAL_HEADER]);
            for part in &self.parts {
                match part {
                    Part::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
                    Part::Event => write_json_string(bytes, event.name),
                    Part::Category => write_json_string(bytes, &round.category),
                    Part::Data => bytes.extend_from_slice(event.data.as_bytes()),
                    Part::Timestamp => {
                        bytes.push(b'"');
                        bytes.extend_from_slice(iso.format(event.timestamp_ms).as_bytes());
                        bytes.push(b'"');
                    }
                }
            }
            finish_frame(bytes, start);
            // A chunk begins anew above 256 KiB and an event has at most 1 GiB.
            ends.push(bytes.len() as u32);
        }
    }
}

/// Writes the header of the text frame whose payload begins [`USUAL_HEADER`] after `start`.
fn finish_frame(bytes: &mut Vec<u8>, start: usize) {
    let payload = bytes.len() - start - USUAL_HEADER;
    let needed = header_len(payload);
    if needed == USUAL_HEADER {
        let [high, low] = (payload as u16).to_be_bytes();
        bytes[start..start + USUAL_HEADER].copy_from_slice(&[0x81, 126, high, low]);
        return;
    }
    let mut header = Vec::with_capacity(10);
    write_header(&mut header, Opcode::Text, payload);
    bytes.splice(start..start + USUAL_HEADER, header);
}

/// Appends `frame` with the last byte of its payload replaced by `suffix`: for the JSON protocol
/// `,"clientId":"…"}` in place of the closing brace.
pub fn splice(frame: &[u8], suffix: &[u8], out: &mut Vec<u8>) {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let shared = &frame[header..frame.len() - 1];
    write_header(out, Opcode::Text, shared.len() + suffix.len());
    out.extend_from_slice(shared);
    out.extend_from_slice(suffix);
}

/// Appends a JSON string (RFC 8259 section 7).
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 => {
                    let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
                }
                _ => out.push(byte),
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Events;
    use crate::publish::wire::Publish;
    use smallvec::smallvec;

    fn round(category: &str, events: &[(&str, &str)]) -> Round {
        let mut all = Events::default();
        for (event, data) in events {
            all.push(&Publish { topics: category, event, key: "", data, timestamp_ms: 1_705_313_700_000 }, 0);
        }
        Round {
            topics: smallvec![],
            category: category.into(),
            events: all,
            several: 0,
            ingress: 0,
            shared: false,
            frames: smallvec![],
        }
    }

    fn write(round: &Round) -> Frames {
        let mut frames = Frames::default();
        let envelopes = Envelopes::built_in();
        envelopes.get(JSON).write(round, &mut Iso8601::new(), &mut frames.bytes, &mut frames.ends);
        frames
    }

    #[test]
    fn the_json_envelope_is_the_seeds_message() {
        let frames = write(&round("error-recovery", &[("retry-started", r#"{"retryId":"r-1"}"#)]));
        let text = r#"{"type":"event","event":"retry-started","category":"error-recovery","data":{"retryId":"r-1"},"timestamp":"2024-01-15T10:15:00.000Z"}"#;
        assert_eq!(&frames.bytes[..4], [0x81, 126, 0, text.len() as u8]);
        assert_eq!(std::str::from_utf8(&frames.bytes[4..]).unwrap(), text);
        assert_eq!(frames.ends, [frames.bytes.len() as u32]);
    }

    #[test]
    fn names_are_escaped_and_lengths_of_every_form_are_right() {
        let long = format!("\"{}\"", "x".repeat(70_000));
        let round = round("a\"\\b", &[("e", "1"), ("e", &long), ("q\"", "")]);
        let frames = write(&round);
        let mut start = 0;
        for (end, event) in frames.ends.iter().zip(round.events.iter()) {
            let mut cursor = std::io::Cursor::new(&frames.bytes[start..]);
            let (_, length) = tungstenite::protocol::frame::FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let payload = start + cursor.position() as usize;
            assert_eq!(payload + length as usize, *end as usize);
            let value: serde_json::Value =
                serde_json::from_slice(&frames.bytes[payload..*end as usize]).unwrap();
            assert_eq!((&value["event"], &value["category"]), (&event.name.into(), &"a\"\\b".into()));
            start = *end as usize;
        }
    }

    #[test]
    fn a_client_id_is_spliced_in_across_every_header_length() {
        for size in [0, 1, 20, 30, 60, 65_300, 65_430, 65_600] {
            let data = format!("\"{}\"", "x".repeat(size));
            let frames = write(&round("c", &[("e", &data)]));
            let mut out = Vec::new();
            splice(&frames.bytes, br#","clientId":"me"}"#, &mut out);
            let mut cursor = std::io::Cursor::new(&out);
            let (_, length) = tungstenite::protocol::frame::FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let payload = &out[cursor.position() as usize..];
            assert_eq!(payload.len() as u64, length);
            let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
            assert_eq!(value["clientId"], "me");
        }
    }

    #[test]
    fn strings_survive_a_json_parser() {
        for text in ["", "plain", "\"", "\\", "a\u{0}b\u{1f}", "\u{7f}\u{2028}ü"] {
            let mut out = Vec::new();
            write_json_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
