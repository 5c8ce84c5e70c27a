//! The frames of the publish socket, byte for byte (`docs/publish-socket.md`). Pure: bytes in, values out.
//!
//! Every frame is a 16-byte little-endian header and a body of `length` bytes.

use crate::clock::LATEST_MS;
use crate::error::{ErrorCode, Refusal};
use crate::receipt::Reach;
use crate::topic::name::{MAX_NAME_BYTES, check_key, check_name, is_printable_ascii};

/// Bytes of the header of every frame.
pub const HEADER_LEN: usize = 16;
/// The version of the layout that this module speaks.
pub const VERSION: u8 = 1;
/// Header flag: acknowledge when accepted.
pub const FLAG_ACK: u16 = 1;
/// Header flag: tell how far the event went.
pub const FLAG_RECEIPT: u16 = 2;
/// Topics of one event at most.
pub const MAX_TOPICS: usize = 16;
/// Bytes of the fixed part of a PUBLISH body.
pub const PUBLISH_FIXED_LEN: usize = 16;
/// Bytes of a PING body at most.
pub const MAX_PING_BYTES: usize = 125;
/// Bytes of the body of a RECEIPT.
pub const RECEIPT_LEN: usize = 20;
/// Bytes of a token and of a name in HELLO at most.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Bytes of a publisher's name at most.
pub const MAX_PUBLISHER_NAME_BYTES: usize = 64;

/// Kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who the publisher is; to the node.
    Hello = 1,
    /// One event; to the node.
    Publish = 2,
    /// Events accepted so far; from the node.
    Ack = 3,
    /// One refused frame; from the node.
    Error = 4,
    /// To the node, answered by PONG with the same body.
    Ping = 5,
    /// From the node.
    Pong = 6,
    /// How far an event went; from the node.
    Receipt = 7,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Publish,
            3 => Self::Ack,
            4 => Self::Error,
            5 => Self::Ping,
            6 => Self::Pong,
            7 => Self::Receipt,
            _ => return None,
        })
    }
}

/// The header of a frame. Fields are as sent: [`Header::parse`] checks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub length: u32,
    /// [`VERSION`].
    pub version: u8,
    /// The number of a [`Kind`].
    pub kind: u8,
    /// [`FLAG_ACK`], [`FLAG_RECEIPT`].
    pub flags: u16,
    /// The sender's own number, echoed in ACK, ERROR and RECEIPT.
    pub sequence: u64,
}

impl Header {
    /// Reads the fields.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, l3, version, kind, f0, f1, sequence @ ..] = *bytes;
        Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            version,
            kind,
            flags: u16::from_le_bytes([f0, f1]),
            sequence: u64::from_le_bytes(sequence),
        }
    }

    /// Writes the fields.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.version;
        bytes[5] = self.kind;
        bytes[6..8].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }
}

/// The body of a PUBLISH frame: one event as the publisher wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// 1 to 16 topic names joined by `\n`; the first is the event's category.
    pub topics: &'a str,
    /// The event's name.
    pub event: &'a str,
    /// What the event is about; empty for none.
    pub key: &'a str,
    /// One JSON text, passed on byte for byte; empty stands for `null`.
    pub data: &'a str,
    /// Unix time in milliseconds; 0 lets the node stamp it.
    pub timestamp_ms: u64,
}

impl<'a> Publish<'a> {
    /// Reads and checks a PUBLISH body. `data` is checked once, here, and never again.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`], [`ErrorCode::BadName`], [`ErrorCode::BadData`] or [`ErrorCode::TooLarge`].
    pub fn decode(body: &'a [u8], max_publish_bytes: usize) -> Result<Self, Refusal> {
        let Some((fixed, rest)) = body.split_first_chunk::<PUBLISH_FIXED_LEN>() else {
            return Err(malformed(format!(
                "PUBLISH body has {} bytes, fewer than its fixed part of {PUBLISH_FIXED_LEN}",
                body.len()
            )));
        };
        let half = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let [topics_len, event_len, key_len] = [0, 2, 4].map(|at| usize::from(half(at)));
        if half(6) != 0 {
            return Err(malformed(format!("PUBLISH: reserved is {}, not 0", half(6))));
        }
        let [.., t0, t1, t2, t3, t4, t5, t6, t7] = *fixed;
        let timestamp_ms = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        if timestamp_ms > LATEST_MS {
            return Err(malformed(format!("PUBLISH: timestamp {timestamp_ms} ms is after the year 9999")));
        }
        let names_len = topics_len + event_len + key_len;
        if names_len > rest.len() {
            return Err(malformed(format!(
                "PUBLISH: topics, event and key take {names_len} bytes, but only {} follow",
                rest.len()
            )));
        }
        let (names, data) = rest.split_at(names_len);
        if data.len() > max_publish_bytes {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("data has {} bytes, above the limit of {max_publish_bytes}", data.len()),
            ));
        }
        let [topics, event, key, data] = match texts(rest, [topics_len, event_len, key_len]) {
            Some(texts) => texts,
            None => {
                let (topics, names) = names.split_at(topics_len);
                let (event, key) = names.split_at(event_len);
                let data = std::str::from_utf8(data).map_err(|error| {
                    let message = format!("data is not UTF-8 at byte {}", error.valid_up_to());
                    Refusal::new(ErrorCode::BadData, message)
                });
                [text("topic list", topics)?, text("event name", event)?, text("key", key)?, data?]
            }
        };
        let publish = Self { topics, event, key, data, timestamp_ms };
        publish.check()?;
        Ok(publish)
    }

    /// Checks names and data: the same rules for the publish socket and for HTTP.
    ///
    /// # Errors
    /// [`ErrorCode::BadName`] or [`ErrorCode::BadData`], naming what is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        self.check_names()?;
        check_data(self.data)
    }

    /// Checks names and key alone, where the data is known to be one JSON text.
    ///
    /// # Errors
    /// [`ErrorCode::BadName`].
    pub fn check_names(&self) -> Result<(), Refusal> {
        let bad_name = |message| Refusal::new(ErrorCode::BadName, message);
        if self.topics.is_empty() {
            return Err(bad_name("the topic list is empty".to_owned()));
        }
        // In nearly every event: one topic with nothing unusual in it.
        if !is_printable_ascii(self.topics) || self.topics.len() > MAX_NAME_BYTES {
            for (place, topic) in self.topics().enumerate() {
                if place >= MAX_TOPICS {
                    return Err(bad_name(format!("more than {MAX_TOPICS} topics")));
                }
                check_name("topic", topic).map_err(bad_name)?;
            }
        }
        check_name("event", self.event).map_err(bad_name)?;
        check_key(self.key).map_err(bad_name)
    }

    /// The topics, one by one.
    pub fn topics(&self) -> impl Iterator<Item = &'a str> + Clone {
        self.topics.split('\n')
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`] where a length does not fit its field; `out` is then unchanged. Names and data
    /// are the node's to check.
    pub fn encode(&self, flags: u16, sequence: u64, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let too_large =
            |what: &str| Refusal::new(ErrorCode::TooLarge, format!("{what} does not fit its field"));
        let length16 = |what, text: &str| u16::try_from(text.len()).map_err(|_| too_large(what));
        let lengths = [
            length16("the topic list", self.topics)?,
            length16("the event name", self.event)?,
            length16("the key", self.key)?,
            0,
        ];
        let texts = [self.topics, self.event, self.key, self.data];
        let length = PUBLISH_FIXED_LEN + texts.iter().map(|text| text.len()).sum::<usize>();
        let length = u32::try_from(length).map_err(|_| too_large("the event"))?;
        write_header(out, Kind::Publish, flags, sequence, length);
        for length in lengths {
            out.extend_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        for text in texts {
            out.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

/// Three texts of these lengths and the rest as another. `None`: one of them is not UTF-8. To check all at once costs
/// less than to check each.
fn texts(bytes: &[u8], [first, second, third]: [usize; 3]) -> Option<[&str; 4]> {
    let (first, rest) = simdutf8::basic::from_utf8(bytes).ok()?.split_at_checked(first)?;
    let (second, rest) = rest.split_at_checked(second)?;
    let (third, fourth) = rest.split_at_checked(third)?;
    Some([first, second, third, fourth])
}

/// `data` must be one RFC 8259 text; empty stands for `null`. Numbers of any size and white space pass.
fn check_data(data: &str) -> Result<(), Refusal> {
    if data.is_empty() {
        return Ok(());
    }
    // `IgnoredAny` walks the text without recursion and without allocating per value: depth is no danger.
    serde_json::from_str::<serde::de::IgnoredAny>(data)
        .map(drop)
        .map_err(|error| Refusal::new(ErrorCode::BadData, format!("data is not one JSON text: {error}")))
}

/// The body of a HELLO frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The bearer token; empty for none.
    pub token: &'a str,
    /// The publisher's name; empty for none.
    pub name: &'a str,
}

impl<'a> Hello<'a> {
    /// Reads and checks a HELLO body.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`] or [`ErrorCode::BadName`].
    pub fn decode(body: &'a [u8]) -> Result<Self, Refusal> {
        let Some((&[t0, t1, n0, n1], rest)) = body.split_first_chunk::<4>() else {
            return Err(malformed("HELLO body has fewer than 4 bytes".to_owned()));
        };
        let token_len = usize::from(u16::from_le_bytes([t0, t1]));
        let name_len = usize::from(u16::from_le_bytes([n0, n1]));
        if token_len + name_len != rest.len() {
            return Err(malformed(format!(
                "HELLO: token and name take {} bytes, but {} follow",
                token_len + name_len,
                rest.len()
            )));
        }
        let (token, name) = rest.split_at(token_len);
        let hello = Self { token: text("token", token)?, name: text("publisher name", name)? };
        if hello.name.len() > MAX_PUBLISHER_NAME_BYTES || hello.name.chars().any(char::is_control) {
            return Err(Refusal::new(
                ErrorCode::BadName,
                format!(
                    "a publisher's name has at most {MAX_PUBLISHER_NAME_BYTES} bytes and no control characters"
                ),
            ));
        }
        Ok(hello)
    }
}

/// Appends a HELLO frame to `out`.
///
/// # Errors
/// [`ErrorCode::TooLarge`] where token or name is above its limit; `out` is then unchanged.
pub fn encode_hello(token: &str, name: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if token.len() > MAX_TOKEN_BYTES || name.len() > MAX_PUBLISHER_NAME_BYTES {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!(
                "a token has at most {MAX_TOKEN_BYTES} bytes and a publisher's name {MAX_PUBLISHER_NAME_BYTES}"
            ),
        ));
    }
    // Both lengths were just held to less than 65,536.
    write_header(out, Kind::Hello, 0, 0, (4 + token.len() + name.len()) as u32);
    out.extend_from_slice(&(token.len() as u16).to_le_bytes());
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(token.as_bytes());
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

/// Appends an ACK: `accepted` events of this connection so far, the newest of which had `sequence`.
pub fn encode_ack(sequence: u64, accepted: u64, out: &mut Vec<u8>) {
    write_header(out, Kind::Ack, 0, sequence, 8);
    out.extend_from_slice(&accepted.to_le_bytes());
}

/// Appends an ERROR for the frame with `sequence`.
pub fn encode_error(sequence: u64, refusal: &Refusal, out: &mut Vec<u8>) {
    write_header(out, Kind::Error, 0, sequence, (2 + refusal.message.len()) as u32);
    out.extend_from_slice(&(refusal.code as u16).to_le_bytes());
    out.extend_from_slice(refusal.message.as_bytes());
}

/// Appends a RECEIPT for the event with `sequence`.
pub fn encode_receipt(sequence: u64, reach: Reach, out: &mut Vec<u8>) {
    write_header(out, Kind::Receipt, 0, sequence, RECEIPT_LEN as u32);
    let Reach { matched, written, queued, left_out, closed } = reach;
    for count in [matched, written, queued, left_out, closed] {
        out.extend_from_slice(&count.to_le_bytes());
    }
}

/// Reads the body of a RECEIPT; `None` where it is too short.
pub fn decode_receipt(body: &[u8]) -> Option<Reach> {
    let (counts, _) = body.split_first_chunk::<RECEIPT_LEN>()?;
    let (counts, _) = counts.as_chunks::<4>();
    let [matched, written, queued, left_out, closed] = *counts else { return None };
    let [matched, written, queued, left_out, closed] =
        [matched, written, queued, left_out, closed].map(u32::from_le_bytes);
    Some(Reach { matched, written, queued, left_out, closed })
}

/// Appends a PING or PONG with `body`, which has at most [`MAX_PING_BYTES`].
pub fn encode_ping(kind: Kind, sequence: u64, body: &[u8], out: &mut Vec<u8>) {
    write_header(out, kind, 0, sequence, body.len() as u32);
    out.extend_from_slice(body);
}

fn write_header(out: &mut Vec<u8>, kind: Kind, flags: u16, sequence: u64, length: u32) {
    let header = Header { length, version: VERSION, kind: kind as u8, flags, sequence };
    out.extend_from_slice(&header.to_bytes());
}

fn malformed(message: String) -> Refusal {
    Refusal::new(ErrorCode::Malformed, message)
}

fn text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| {
        Refusal::new(ErrorCode::BadName, format!("the {what} is not UTF-8 at byte {}", error.valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(topics: &str, event: &str, key: &str, data: &[u8]) -> Vec<u8> {
        let publish = Publish { topics, event, key, data: "", timestamp_ms: 7 };
        let mut out = Vec::new();
        publish.encode(0, 1, &mut out).unwrap();
        out.extend_from_slice(data);
        out.split_off(HEADER_LEN)
    }

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        let publish = Publish {
            topics: "run:1\nproject:2",
            event: "log",
            key: "k",
            data: "{\"a\": 1}",
            timestamp_ms: 5,
        };
        let mut out = Vec::new();
        publish.encode(FLAG_ACK, 9, &mut out).unwrap();
        let header = Header::parse(out[..HEADER_LEN].try_into().unwrap());
        assert_eq!(header.length as usize, out.len() - HEADER_LEN);
        assert_eq!((header.version, header.kind, header.flags, header.sequence), (1, 2, 1, 9));
        assert_eq!(header.to_bytes(), out[..HEADER_LEN]);
        assert_eq!(Publish::decode(&out[HEADER_LEN..], 100).unwrap(), publish);
    }

    #[test]
    fn every_cut_of_a_body_is_refused_or_is_another_valid_event() {
        let whole = body("a\nb", "event", "key", b"{\"x\":[1,2,3]}");
        for cut in 0..whole.len() {
            match Publish::decode(&whole[..cut], 1000) {
                // Cut exactly before the data: an event without data.
                Ok(event) => assert_eq!(event.data, "", "cut at {cut}"),
                Err(refusal) => assert!(!refusal.message.is_empty()),
            }
        }
    }

    #[test]
    fn bad_bodies_are_refused_with_their_code() {
        let many = ["t"; 17].join("\n");
        let long = "n".repeat(256);
        for (body, code) in [
            (body("", "e", "", b""), ErrorCode::BadName),
            (body("a\n", "e", "", b""), ErrorCode::BadName),
            (body("\na", "e", "", b""), ErrorCode::BadName),
            (body("a\rb", "e", "", b""), ErrorCode::BadName),
            (body(&many, "e", "", b""), ErrorCode::BadName),
            (body(&long, "e", "", b""), ErrorCode::BadName),
            (body("a", "", "", b""), ErrorCode::BadName),
            (body("a", "e\n", "", b""), ErrorCode::BadName),
            (body("a", "e", "\0", b""), ErrorCode::BadName),
            (body("a", "e", &long, b""), ErrorCode::BadName),
            (body("a", "e", "", b"{"), ErrorCode::BadData),
            (body("a", "e", "", b" "), ErrorCode::BadData),
            (body("a", "e", "", b"1 2"), ErrorCode::BadData),
            (body("a", "e", "", b"01"), ErrorCode::BadData),
            (body("a", "e", "", b"\"\n\""), ErrorCode::BadData),
            (body("a", "e", "", b"\"\xff\""), ErrorCode::BadData),
            (body("a", "e", "", b"NaN"), ErrorCode::BadData),
            (body("a", "e", "", b"\xef\xbb\xbf1"), ErrorCode::BadData),
            (body("a", "e", "", &[b'1'; 101]), ErrorCode::TooLarge),
            (vec![0; 15], ErrorCode::Malformed),
            ([&[9, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8], b"a"].concat(), ErrorCode::Malformed),
            ([&[1, 0, 1, 0, 0, 0, 1, 0][..], &[0; 8], b"ae"].concat(), ErrorCode::Malformed),
            ([&[1, 0, 1, 0, 0, 0, 0, 0][..], &[255; 8], b"ae"].concat(), ErrorCode::Malformed),
        ] {
            assert_eq!(Publish::decode(&body, 100).unwrap_err().code, code, "{body:?}");
        }
    }

    #[test]
    fn each_part_is_text_by_itself() {
        let frame = |topics: usize, event: usize, key: usize, rest: &[u8]| {
            let lengths = [topics, event, key, 0].map(|length| (length as u16).to_le_bytes());
            [&lengths.concat()[..], &[0; 8], rest].concat()
        };
        // All of it is UTF-8, and a character lies across the end of a part.
        let torn = "aéé1".as_bytes();
        for (lengths, what) in [
            ((1, 2, 2), None),
            ((2, 1, 2), Some("the topic list is not UTF-8 at byte 1")),
            ((1, 1, 3), Some("the event name is not UTF-8 at byte 0")),
            ((1, 2, 1), Some("the key is not UTF-8 at byte 0")),
        ] {
            let body = frame(lengths.0, lengths.1, lengths.2, torn);
            let refusal = Publish::decode(&body, 100).err().map(|refusal| refusal.message);
            assert_eq!(refusal.as_deref(), what, "{lengths:?}");
        }
        let bad = Publish::decode(&frame(1, 1, 1, b"aek\"x\xff\""), 100).unwrap_err();
        assert_eq!((bad.code, &*bad.message), (ErrorCode::BadData, "data is not UTF-8 at byte 2"));
        let bad = Publish::decode(&frame(1, 1, 1, b"a\xffk1"), 100).unwrap_err();
        assert_eq!((bad.code, &*bad.message), (ErrorCode::BadName, "the event name is not UTF-8 at byte 0"));
    }

    #[test]
    fn data_of_every_json_kind_passes_untouched() {
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        for data in ["", "null", "1e999", "-0.0E-7", "\"\\ud800\"", " [1 , 2]\n", "{\"a\":1,\"a\":2}", &deep]
        {
            let body = body("a", "e", "", data.as_bytes());
            assert_eq!(Publish::decode(&body, 1 << 20).unwrap().data, data);
        }
    }

    #[test]
    fn hello_is_held_to_its_lengths() {
        let mut out = Vec::new();
        encode_hello("secret", "billing", &mut out).unwrap();
        assert_eq!(Hello::decode(&out[HEADER_LEN..]), Ok(Hello { token: "secret", name: "billing" }));
        for cut in HEADER_LEN..out.len() {
            assert_eq!(Hello::decode(&out[HEADER_LEN..cut]).unwrap_err().code, ErrorCode::Malformed);
        }
        let bad = [&[0, 0, 1, 0][..], b"\n"].concat();
        assert_eq!(Hello::decode(&bad).unwrap_err().code, ErrorCode::BadName);
        assert!(encode_hello("", &"n".repeat(65), &mut out).is_err());
    }

    #[test]
    fn a_receipt_comes_back_as_it_was_written() {
        let reach = Reach { matched: 5, written: 1, queued: 2, left_out: 1 << 31, closed: u32::MAX };
        let mut out = Vec::new();
        encode_receipt(7, reach, &mut out);
        let header = Header::parse(out[..HEADER_LEN].try_into().unwrap());
        assert_eq!((header.length, header.kind, header.flags, header.sequence), (20, 7, 0, 7));
        assert_eq!(decode_receipt(&out[HEADER_LEN..]), Some(reach));
        assert_eq!(decode_receipt(&out[HEADER_LEN..out.len() - 1]), None);
    }
}
