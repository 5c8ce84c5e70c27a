//! WebSocket frames (RFC 6455 section 5): the server's side of both directions, as pure bytes.
//!
//! tungstenite gives the header codec; what is around it here keeps nothing per connection but what is left
//! of a partial frame, fails as soon as a byte is wrong, and gives the same result however the input is cut.

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes of the payload of a control frame at most (section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;
/// Fragments of one message at most where there is a bound: without one, empty ones may go on for ever.
pub const MAX_FRAGMENTS: u32 = 16_384;
/// The bit of a frame's first byte that says that its message is compressed (RFC 7692 section 6).
pub const RSV1: u8 = 0x40;

/// What a message from a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
    /// To be answered by a pong with the same payload.
    Ping,
    /// Sign of life.
    Pong,
    /// The payload is empty, or a valid code and a reason in UTF-8.
    Close,
}

/// Why the connection must be failed (section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// 1002.
    Protocol(&'static str),
    /// 1003: binary where only text is spoken.
    Binary,
    /// 1007.
    BadUtf8,
    /// 1007: what should be compressed comes to no message.
    BadDeflate,
    /// 1009.
    TooBig,
}

/// One whole message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub opcode: Opcode,
    /// Its bytes.
    pub payload: Payload,
    /// Whether they are compressed: then nobody has looked at them, and inflated they may be more than was accepted.
    pub is_deflated: bool,
}

/// Where a message's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the input, unmasked in place: it came in one piece.
    Here(Range<usize>),
    /// It came in pieces.
    Held(Vec<u8>),
}

impl Payload {
    /// The bytes, given the input that was decoded.
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Here(range) => &input[range.clone()],
            Self::Held(bytes) => bytes,
        }
    }
}

/// What [`Decoder::decode`] is allowed to take.
#[derive(Clone, Copy, Debug)]
pub struct Accept {
    /// Bytes of one message.
    pub max_message_bytes: usize,
    /// Whether binary messages are spoken.
    pub binary: bool,
    /// Fragments of one message; `None`: any number.
    pub max_fragments: Option<u32>,
    /// Whether messages may be compressed (RFC 7692).
    pub deflated: bool,
}

/// The inbound half of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; 14],
    header_len: usize,
    frame: Option<Frame>,
    message: Option<(Opcode, Vec<u8>)>,
    /// Whether that message is compressed.
    is_deflated: bool,
    fragments: u32,
    /// How much of a text message is known to be UTF-8.
    valid: usize,
    control: Vec<u8>,
}

/// A frame whose payload has not come whole.
#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    /// Whether its message is compressed, which the first frame says.
    is_deflated: bool,
    mask: [u8; 4],
    remaining: usize,
}

impl Decoder {
    /// Whether nothing is left over, so that the value can be dropped and made anew.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Takes bytes from the front of `input` until a message is whole or they are used up. Answers how many
    /// were taken and the message. Payload bytes taken are unmasked in place.
    ///
    /// # Errors
    /// A [`Violation`]; the connection must then be failed and the decoder dropped.
    pub fn decode(
        &mut self,
        input: &mut [u8],
        accept: Accept,
    ) -> Result<(usize, Option<Message>), Violation> {
        let mut taken = 0;
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None => {
                    let Some(frame) = self.take_header(input, &mut taken, accept)? else {
                        return Ok((taken, None));
                    };
                    if input.len() - taken >= frame.remaining && self.is_whole(&frame) {
                        let range = taken..taken + frame.remaining;
                        let payload = &mut input[range.clone()];
                        unmask(payload, frame.mask);
                        let opcode = check_whole(frame.opcode, payload, frame.is_deflated)?;
                        let (payload, is_deflated) = (Payload::Here(range.clone()), frame.is_deflated);
                        return Ok((range.end, Some(Message { opcode, payload, is_deflated })));
                    }
                    self.frame.insert(frame)
                }
            };
            let end = taken + frame.remaining.min(input.len() - taken);
            let piece = &mut input[taken..end];
            taken = end;
            unmask(piece, frame.mask);
            frame.mask.rotate_left(piece.len() % 4);
            frame.remaining -= piece.len();
            let (is_control, is_done) = (matches!(frame.opcode, OpCode::Control(_)), frame.remaining == 0);
            let (opcode, is_final) = (frame.opcode, frame.is_final);
            if is_control {
                self.control.extend_from_slice(piece);
                if is_done {
                    self.frame = None;
                    let opcode = check_whole(opcode, &self.control, false)?;
                    let payload = Payload::Held(std::mem::take(&mut self.control));
                    return Ok((taken, Some(Message { opcode, payload, is_deflated: false })));
                }
            } else {
                let piece = &*piece;
                self.take_data(piece, is_done && is_final)?;
                if is_done {
                    self.frame = None;
                    if is_final && let Some((opcode, bytes)) = self.message.take() {
                        self.fragments = 0;
                        self.valid = 0;
                        let is_deflated = std::mem::take(&mut self.is_deflated);
                        return Ok((
                            taken,
                            Some(Message { opcode, payload: Payload::Held(bytes), is_deflated }),
                        ));
                    }
                    self.fragments = self.fragments.saturating_add(1);
                    if accept.max_fragments.is_some_and(|max| self.fragments > max) {
                        return Err(Violation::Protocol("too many fragments"));
                    }
                }
            }
            if taken == input.len() {
                return Ok((taken, None));
            }
        }
    }

    /// Takes a header, which may come in pieces, and checks what it says before any of its payload is kept.
    fn take_header(
        &mut self,
        input: &[u8],
        taken: &mut usize,
        accept: Accept,
    ) -> Result<Option<Frame>, Violation> {
        let protocol = Violation::Protocol;
        while *taken < input.len() {
            // 14 is the longest header there is, so there is room for one more byte here.
            self.header[self.header_len] = input[*taken];
            self.header_len += 1;
            *taken += 1;
            let bytes = &self.header[..self.header_len];
            // RFC 7692 section 6: the first says of a message's first frame that it is compressed.
            let is_allowed = accept.deflated && bytes[0] & 0x70 == RSV1 && matches!(bytes[0] & 15, 1 | 2);
            if bytes[0] & 0x70 != 0 && !is_allowed {
                return Err(protocol("a reserved bit is set"));
            }
            if bytes.len() >= 2 && bytes[1] & 0x80 == 0 {
                return Err(protocol("a client's frame is not masked"));
            }
            let mut cursor = Cursor::new(bytes);
            let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("reserved opcode"))?;
            let Some((header, length)) = parsed else { continue };
            let minimal = match self.header_len {
                6 => 0,
                8 => 126,
                _ => 65_536,
            };
            self.header_len = 0;
            if length < minimal {
                return Err(protocol("the length is not in its shortest form"));
            }
            if length > i64::MAX as u64 {
                return Err(protocol("the length has its top bit set"));
            }
            return self.begin(&header, length, accept).map(Some);
        }
        Ok(None)
    }

    fn begin(&mut self, header: &FrameHeader, length: u64, accept: Accept) -> Result<Frame, Violation> {
        let protocol = Violation::Protocol;
        match header.opcode {
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
                return Err(protocol("reserved opcode"));
            }
            OpCode::Control(_) => {
                if !header.is_final {
                    return Err(protocol("a control frame is fragmented"));
                }
                if length > MAX_CONTROL_BYTES as u64 {
                    return Err(protocol("a control frame has more than 125 bytes"));
                }
            }
            OpCode::Data(data) => {
                let opcode = match (data, &self.message) {
                    (Data::Continue, None) => return Err(protocol("a continuation of nothing")),
                    (Data::Continue, Some((opcode, _))) => *opcode,
                    (_, Some(_)) => return Err(protocol("a new message inside an unfinished one")),
                    (Data::Text, None) => Opcode::Text,
                    (_, None) => Opcode::Binary,
                };
                if opcode == Opcode::Binary && !accept.binary {
                    return Err(Violation::Binary);
                }
                let so_far = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
                let most = match header.rsv1 || self.is_deflated {
                    // What does not compress grows a little. Inflated it is measured again.
                    true => accept.max_message_bytes.saturating_add(accept.max_message_bytes / 8 + 64),
                    false => accept.max_message_bytes,
                };
                if length > (most - so_far.min(most)) as u64 {
                    return Err(Violation::TooBig);
                }
            }
        }
        // `FrameHeader::parse` gave a mask: the mask bit was checked above.
        let mask = header.mask.unwrap_or_default();
        let (opcode, is_final, is_deflated) = (header.opcode, header.is_final, header.rsv1);
        Ok(Frame { opcode, is_final, is_deflated, mask, remaining: length as usize })
    }

    /// Whether a frame, once its payload is there, is a message of its own.
    fn is_whole(&self, frame: &Frame) -> bool {
        match frame.opcode {
            OpCode::Control(_) => self.control.is_empty(),
            OpCode::Data(_) => frame.is_final && self.message.is_none(),
        }
    }

    fn take_data(&mut self, piece: &[u8], ends: bool) -> Result<(), Violation> {
        let opcode = match &self.frame {
            Some(Frame { opcode: OpCode::Data(Data::Binary), .. }) => Opcode::Binary,
            _ => Opcode::Text,
        };
        self.is_deflated |= self.frame.as_ref().is_some_and(|frame| frame.is_deflated);
        let (opcode, bytes) = self.message.get_or_insert_with(|| (opcode, Vec::new()));
        bytes.extend_from_slice(piece);
        if *opcode == Opcode::Text && !self.is_deflated {
            match std::str::from_utf8(&bytes[self.valid..]) {
                Ok(_) => self.valid = bytes.len(),
                // The end may be the beginning of a character whose rest is still to come.
                Err(error) if error.error_len().is_none() && !ends => self.valid += error.valid_up_to(),
                Err(_) => return Err(Violation::BadUtf8),
            }
        }
        Ok(())
    }
}

fn check_whole(opcode: OpCode, payload: &[u8], is_deflated: bool) -> Result<Opcode, Violation> {
    match opcode {
        OpCode::Data(Data::Binary) => Ok(Opcode::Binary),
        OpCode::Data(_) if is_deflated => Ok(Opcode::Text),
        OpCode::Data(_) => match std::str::from_utf8(payload) {
            Ok(_) => Ok(Opcode::Text),
            Err(_) => Err(Violation::BadUtf8),
        },
        OpCode::Control(Control::Ping) => Ok(Opcode::Ping),
        OpCode::Control(Control::Pong) => Ok(Opcode::Pong),
        OpCode::Control(_) => check_close(payload).map(|()| Opcode::Close),
    }
}

/// Section 7.4: a close is empty, or carries a code that may be sent and a reason in UTF-8.
fn check_close(payload: &[u8]) -> Result<(), Violation> {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() { Ok(()) } else { Err(Violation::Protocol("a close of one byte")) };
    };
    match u16::from_be_bytes([*high, *low]) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(Violation::Protocol("a close code that may not be sent")),
    }
    std::str::from_utf8(reason).map(drop).map_err(|_| Violation::BadUtf8)
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// The payload of a whole frame that a server wrote.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    &frame[header..]
}

/// How many bytes the first of the whole frames has that a server wrote.
pub fn frame_len(frames: &[u8]) -> usize {
    match *frames {
        [_, 126, a, b, ..] => 4 + usize::from(u16::from_be_bytes([a, b])),
        [_, 127, a, b, c, d, e, f, g, h, ..] => 10 + u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize,
        [_, short, ..] => 2 + usize::from(short),
        _ => frames.len(),
    }
}

/// Bytes of a server's frame header for a payload of this length.
pub const fn header_len(payload: usize) -> usize {
    match payload {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    }
}

/// Appends the header of a whole, unmasked frame. `opcode` is that of [`Opcode::Text`] and so on.
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload: usize) {
    let first = 0x80
        | match opcode {
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        };
    match payload {
        0..126 => out.extend_from_slice(&[first, payload as u8]),
        126..65_536 => {
            let [high, low] = (payload as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(payload as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(10 + payload.len());
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a close frame; what of the reason goes past the 123 bytes there are is cut at a character.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_header(out, Opcode::Close, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// Appends a whole frame as clients write them: masked, with its first byte as given, so that tools can also write what
/// is against the protocol. A mask of zeros leaves the payload readable, and servers take it off as any other.
pub fn write_masked(out: &mut Vec<u8>, first: u8, mask: [u8; 4], payload: &[u8]) {
    match payload.len() {
        short @ 0..126 => out.extend_from_slice(&[first, 0x80 | short as u8]),
        medium @ 126..65_536 => {
            let [high, low] = (medium as u16).to_be_bytes();
            out.extend_from_slice(&[first, 0x80 | 126, high, low]);
        }
        long => {
            out.extend_from_slice(&[first, 0x80 | 127]);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask);
}

/// The same as bytes of its own, with a mask that is not nothing.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    write_masked(&mut frame, first, [0x37, 0xfa, 0x21, 0x3d], payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: Accept = Accept {
        max_message_bytes: 70_000,
        binary: true,
        max_fragments: Some(MAX_FRAGMENTS),
        deflated: false,
    };

    /// Feeds `input` in pieces and collects every message, or the violation that ends it.
    fn run<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        accept: Accept,
    ) -> (Vec<(Opcode, Vec<u8>)>, Option<Violation>) {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut at = 0;
            while at < piece.len() {
                match decoder.decode(&mut piece[at..], accept) {
                    Ok((taken, message)) => {
                        if let Some(message) = message {
                            let bytes = message.payload.bytes(&piece[at..]).to_vec();
                            messages.push((message.opcode, bytes));
                        }
                        at += taken;
                    }
                    Err(violation) => return (messages, Some(violation)),
                }
            }
        }
        (messages, None)
    }

    #[test]
    fn every_split_gives_the_same_messages() {
        let input = [
            masked(0x81, "Grüße".as_bytes()),
            masked(0x01, &[0xe2]),
            masked(0x89, b"ping"),
            masked(0x00, &[0x82]),
            masked(0x80, &[0xac, b'!']),
            masked(0x82, &[7; 200]),
            masked(0x81, b""),
            masked(0x8a, b""),
            masked(0x88, &[0x03, 0xe8, b'o', b'k']),
        ]
        .concat();
        let (whole, violation) = run([&input[..]], ACCEPT);
        assert_eq!(violation, None);
        assert_eq!(whole[1], (Opcode::Ping, b"ping".to_vec()));
        assert_eq!(whole[2], (Opcode::Text, "€!".as_bytes().to_vec()));
        assert_eq!(whole.len(), 7);
        for cut in 0..=input.len() {
            let (head, tail) = input.split_at(cut);
            assert_eq!(run([head, tail], ACCEPT), (whole.clone(), None), "cut at {cut}");
        }
        assert_eq!(run(input.chunks(1), ACCEPT), (whole, None), "byte by byte");
    }

    #[test]
    fn violations_are_found_at_every_split() {
        use Violation::{BadUtf8, Binary, Protocol, TooBig};
        let text_only = Accept { max_message_bytes: 10, binary: false, ..ACCEPT };
        let header = |bytes: &[u8]| [bytes, &[0; 4][..]].concat();
        for (input, expected) in [
            (masked(0xc1, b"x"), Protocol("a reserved bit is set")),
            (masked(0x91, b"x"), Protocol("a reserved bit is set")),
            (vec![0x81, 0x01, b'x'], Protocol("a client's frame is not masked")),
            (masked(0x83, b"x"), Protocol("reserved opcode")),
            (masked(0x8b, b"x"), Protocol("reserved opcode")),
            (masked(0x09, b"x"), Protocol("a control frame is fragmented")),
            (masked(0x89, &[0; 126]), Protocol("a control frame has more than 125 bytes")),
            (masked(0x80, b"x"), Protocol("a continuation of nothing")),
            (
                [masked(0x01, b"x"), masked(0x81, b"y")].concat(),
                Protocol("a new message inside an unfinished one"),
            ),
            (masked(0x82, b"x"), Binary),
            (masked(0x81, &[b'x'; 11]), TooBig),
            ([masked(0x01, &[b'x'; 6]), masked(0x80, &[b'x'; 5])].concat(), TooBig),
            (header(&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]), TooBig),
            (header(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Protocol("the length has its top bit set")),
            (header(&[0x81, 0xfe, 0, 125]), Protocol("the length is not in its shortest form")),
            (
                header(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                Protocol("the length is not in its shortest form"),
            ),
            (masked(0x81, &[0xff]), BadUtf8),
            (masked(0x81, &[0xe2, 0x82]), BadUtf8),
            ([masked(0x01, &[0xe2]), masked(0x80, b"x")].concat(), BadUtf8),
            (masked(0x88, &[3]), Protocol("a close of one byte")),
            (masked(0x88, &[0x03, 0xed]), Protocol("a close code that may not be sent")),
            (masked(0x88, &[0x03, 0xe8, 0xff]), BadUtf8),
        ] {
            for cut in 0..=input.len() {
                let (head, tail) = input.split_at(cut);
                assert_eq!(run([head, tail], text_only), (vec![], Some(expected)), "{input:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_message_is_compressed_where_its_first_frame_says_so() {
        use Violation::{Protocol, TooBig};
        let accept = Accept { max_message_bytes: 80, deflated: true, ..ACCEPT };
        let input = [
            frame(0xc1, b"\xff\xfe"), // Nobody looks at it before it is inflated.
            frame(0x41, b"\xe2"),
            frame(0x89, b""),
            frame(0x00, b"\x82"),
            frame(0x80, b"\xff"),
            frame(0x81, b"text"),
            frame(0xc2, &[7; 154]), // What does not compress grows a little.
        ]
        .concat();
        let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in pieces {
                let (mut piece, mut at) = (piece.to_vec(), 0);
                while at < piece.len() {
                    let (taken, message) = decoder.decode(&mut piece[at..], accept).unwrap();
                    let seen_of = |m: Message| (m.opcode, m.is_deflated, m.payload.bytes(&piece[at..]).len());
                    seen.extend(message.map(seen_of));
                    at += taken;
                }
            }
            seen
        };
        let (text, binary, ping) = (Opcode::Text, Opcode::Binary, Opcode::Ping);
        let expected =
            [(text, true, 2), (ping, false, 0), (text, true, 3), (text, false, 4), (binary, true, 154)];
        assert_eq!(read(&mut std::iter::once(&input[..])), expected);
        assert_eq!(read(&mut input.chunks(1)), expected);
        for (input, violation) in [
            (frame(0xc1, &[0; 155]), TooBig),
            ([frame(0x41, &[0; 150]), frame(0x80, &[0; 5])].concat(), TooBig),
            ([frame(0xc1, &[0; 90]), frame(0x81, &[b'x'; 81])].concat(), TooBig),
            (frame(0xc9, b""), Protocol("a reserved bit is set")),
            ([frame(0x41, b""), frame(0xc0, b"")].concat(), Protocol("a reserved bit is set")),
            (frame(0xa1, b""), Protocol("a reserved bit is set")),
            (frame(0xd1, b""), Protocol("a reserved bit is set")),
        ] {
            assert_eq!(run([&input[..]], accept).1, Some(violation), "{input:x?}");
            assert_eq!(run(input.chunks(1), accept).1, Some(violation), "{input:x?}");
        }
    }

    #[test]
    fn bad_utf8_fails_before_the_message_is_whole() {
        let mut input = masked(0x81, &[b'a', 0xff, b'b', b'c']);
        input.truncate(input.len() - 2);
        assert_eq!(run([&input[..]], ACCEPT).1, Some(Violation::BadUtf8));
    }

    #[test]
    fn endless_empty_fragments_end() {
        let mut input = masked(0x01, b"");
        for _ in 0..=MAX_FRAGMENTS {
            input.extend(masked(0x00, b""));
        }
        assert_eq!(run([&input[..]], ACCEPT).1, Some(Violation::Protocol("too many fragments")));
        let unbounded = Accept { max_fragments: None, ..ACCEPT };
        input.extend(masked(0x80, b"end"));
        assert_eq!(run([&input[..]], unbounded), (vec![(Opcode::Text, b"end".to_vec())], None));
    }

    #[test]
    fn an_idle_decoder_holds_nothing() {
        let mut decoder = Decoder::default();
        let mut input = masked(0x01, b"half");
        decoder.decode(&mut input, ACCEPT).unwrap();
        assert!(!decoder.is_idle());
        let mut rest = masked(0x80, b"");
        assert!(decoder.decode(&mut rest, ACCEPT).unwrap().1.is_some());
        assert!(decoder.is_idle());
    }

    #[test]
    fn frames_are_written_with_the_shortest_length() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            write_frame(&mut out, Opcode::Text, &vec![b'x'; length]);
            assert_eq!(out.len(), header_len(length) + length);
            let (header, parsed) = FrameHeader::parse(&mut Cursor::new(&out)).unwrap().unwrap();
            assert_eq!((parsed, header.mask), (length as u64, None));
        }
        let mut out = Vec::new();
        write_close(&mut out, 4008, &"ü".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
    }
}
