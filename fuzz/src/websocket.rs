//! WebSocket frames: the same messages and the same end however the input is cut, and as a slow decoder says that
//! looks at one byte after another, and at one bit after another of what is compressed.

use fanwire::proto::deflate::{Deflater, Inflater};
use fanwire::proto::extensions;
use fanwire::proto::websocket::{Accept, Decoder, Opcode, Violation};

use super::cut::cuts;
use super::inflate::{Wrong, inflate};

/// Where only short texts are taken, and where nearly everything is; and both where messages may be compressed.
const ACCEPT: [Accept; 4] = [
    Accept { max_message_bytes: 300, binary: false, max_fragments: Some(5), deflated: false },
    Accept { max_message_bytes: 1 << 20, binary: true, max_fragments: None, deflated: false },
    Accept { max_message_bytes: 300, binary: false, max_fragments: Some(5), deflated: true },
    Accept { max_message_bytes: 1 << 20, binary: true, max_fragments: None, deflated: true },
];

pub fn fuzz(input: &[u8]) {
    for accept in ACCEPT {
        let whole = run(&[input], accept);
        assert_eq!(whole, reference(input, accept));
        for pieces in cuts(input) {
            assert_eq!(run(&pieces, accept), whole);
        }
    }
    // As a message of either side, and as an offer.
    check_inflated(input);
    if let Some(deflated) = Deflater::default().deflate(input) {
        assert!(deflated.len() < input.len());
        assert_eq!(inflate(deflated, input.len()).expect("it was a message"), input);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = extensions::answer(text.lines());
    }
}

/// A compressed message is inflated as bit by bit, whatever its bound and whatever was inflated before.
fn check_inflated(message: &[u8]) {
    let mut inflater = Inflater::default();
    for most in [1 << 20, 300, 0] {
        let expected = inflate(message, most).map_err(|wrong| match wrong {
            Wrong::Malformed => Violation::BadDeflate,
            Wrong::TooBig => Violation::TooBig,
        });
        let found = inflater.inflate(message, most);
        assert_eq!(found, expected, "of {most} bytes at most");
        if let Ok(buffer) = found {
            inflater.recycle(buffer);
        }
    }
}

/// The one without the cuts.
pub fn agree(input: &[u8]) {
    for accept in ACCEPT {
        assert_eq!(run(&[input], accept), reference(input, accept), "{input:x?}");
    }
}

/// The close code that the input ends with, if any.
pub fn end(input: &[u8]) -> Option<u16> {
    run(&[input], ACCEPT[1]).1
}

/// What came out, and the close code of what ended it.
type Seen = (Vec<(Opcode, Vec<u8>)>, Option<u16>);

fn code(violation: Violation) -> u16 {
    match violation {
        Violation::Protocol(_) => 1002,
        Violation::Binary => 1003,
        Violation::BadUtf8 | Violation::BadDeflate => 1007,
        Violation::TooBig => 1009,
    }
}

fn run(pieces: &[&[u8]], accept: Accept) -> Seen {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut messages = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut at = 0;
        while at < piece.len() {
            match decoder.decode(&mut piece[at..], accept) {
                Ok((taken, message)) => {
                    assert!(taken > 0, "no byte was taken and none was wrong");
                    if let Some(message) = message {
                        let mut bytes = message.payload.bytes(&piece[at..]).to_vec();
                        if message.is_deflated {
                            bytes = match inflater.inflate(&bytes, accept.max_message_bytes) {
                                Ok(bytes) => bytes,
                                Err(violation) => return (messages, Some(code(violation))),
                            };
                            if message.opcode == Opcode::Text && std::str::from_utf8(&bytes).is_err() {
                                return (messages, Some(1007));
                            }
                        }
                        assert!(bytes.len() <= accept.max_message_bytes.max(125));
                        messages.push((message.opcode, bytes));
                    }
                    at += taken;
                    if decoder.is_idle() {
                        decoder = Decoder::default(); // As connections do that have nothing under way.
                    }
                }
                Err(violation) => return (messages, Some(code(violation))),
            }
        }
    }
    (messages, None)
}

/// RFC 6455 section 5, one byte at a time.
fn reference(input: &[u8], accept: Accept) -> Seen {
    let mut messages = Vec::new();
    // The message under way: whether it is text, its bytes, its continuations.
    let mut message: Option<(bool, Vec<u8>, u32)> = None;
    // Whether it is compressed.
    let mut message_is_deflated = false;
    let mut bytes = input.iter().copied();
    loop {
        let Some(first) = bytes.next() else { return (messages, None) };
        let is_deflated = first & 0x70 == 0x40 && accept.deflated && matches!(first & 15, 1 | 2);
        if first & 0x70 != 0 && !is_deflated {
            return (messages, Some(1002));
        }
        let Some(second) = bytes.next() else { return (messages, None) };
        if second & 0x80 == 0 {
            return (messages, Some(1002));
        }
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = u64::from(second & 0x7f);
        if more > 0 {
            length = 0;
            for _ in 0..more {
                let Some(byte) = bytes.next() else { return (messages, None) };
                length = length << 8 | u64::from(byte);
            }
        }
        let mut mask = [0; 4];
        for byte in &mut mask {
            let Some(found) = bytes.next() else { return (messages, None) };
            *byte = found;
        }
        let is_shortest = length >= [0, 0, 126, 0, 0, 0, 0, 0, 65_536][more];
        let (is_final, opcode) = (first & 0x80 != 0, first & 15);
        if !is_shortest || length >> 63 != 0 || matches!(opcode, 3..=7 | 11..) {
            return (messages, Some(1002));
        }
        let is_control = opcode >= 8;
        if is_control && (!is_final || length > 125) {
            return (messages, Some(1002));
        }
        if !is_control && (opcode == 0) != message.is_some() {
            return (messages, Some(1002));
        }
        let is_text = match &message {
            Some((is_text, ..)) if !is_control => *is_text,
            _ => opcode == 1,
        };
        if !is_control {
            if !is_text && !accept.binary {
                return (messages, Some(1003));
            }
            message_is_deflated |= is_deflated;
            let most = accept.max_message_bytes as u64;
            let most = if message_is_deflated { most + most / 8 + 64 } else { most };
            let so_far = message.as_ref().map_or(0, |(_, bytes, _)| bytes.len() as u64);
            if so_far.checked_add(length).is_none_or(|all| all > most) {
                return (messages, Some(1009));
            }
        }
        let mut control = Vec::new();
        let payload = match (is_control, &mut message) {
            (true, _) => &mut control,
            (false, message) => &mut message.get_or_insert_with(|| (is_text, Vec::new(), 0)).1,
        };
        for place in 0..length {
            let Some(byte) = bytes.next() else { return (messages, None) };
            payload.push(byte ^ mask[place as usize % 4]);
            if is_text && !is_control && !message_is_deflated {
                match std::str::from_utf8(payload) {
                    Err(error) if error.error_len().is_some() => return (messages, Some(1007)),
                    _ => {}
                }
            }
        }
        if is_control {
            let opcode = match opcode {
                8 => Opcode::Close,
                9 => Opcode::Ping,
                _ => Opcode::Pong,
            };
            if opcode == Opcode::Close
                && let Some(wrong) = wrong_close(&control)
            {
                return (messages, Some(wrong));
            }
            messages.push((opcode, control));
        } else if is_final {
            let (is_text, mut bytes, _) = message.take().unwrap_or_default();
            if std::mem::take(&mut message_is_deflated) {
                bytes = match inflate(&bytes, accept.max_message_bytes) {
                    Ok(bytes) => bytes,
                    Err(Wrong::Malformed) => return (messages, Some(1007)),
                    Err(Wrong::TooBig) => return (messages, Some(1009)),
                };
            }
            if is_text && std::str::from_utf8(&bytes).is_err() {
                return (messages, Some(1007));
            }
            messages.push((if is_text { Opcode::Text } else { Opcode::Binary }, bytes));
        } else if let Some((_, _, fragments)) = &mut message {
            *fragments += 1;
            if accept.max_fragments.is_some_and(|most| *fragments > most) {
                return (messages, Some(1002));
            }
        }
    }
}

/// The code that ends a connection whose close has this payload.
fn wrong_close(payload: &[u8]) -> Option<u16> {
    match payload {
        [] => None,
        [_] => Some(1002),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => std::str::from_utf8(reason).is_err().then_some(1007),
            _ => Some(1002),
        },
    }
}
