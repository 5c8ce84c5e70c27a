//! WebSocket frames as the far end writes and reads them: simple, and nobody's but the simulation's.

use fanwire::proto::deflate::Deflater;

use super::inflate::inflate;

/// A frame from a server.
#[derive(Debug)]
pub struct Frame {
    pub opcode: u8,
    /// Inflated, where it came compressed.
    pub payload: Vec<u8>,
    pub is_deflated: bool,
}

/// Bytes that a message may inflate to here.
const MOST: usize = 1 << 20;

/// Takes a server's bytes apart.
#[derive(Debug, Default)]
pub struct Reader {
    pub bytes: Vec<u8>,
    /// Whether the server may send binary messages.
    pub binary: bool,
    /// Whether compressed messages were agreed on.
    pub deflated: bool,
    at: usize,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.at));
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// The next whole frame. Anything but whole, unmasked frames with the shortest length form is a failure.
    pub fn next(&mut self) -> Option<Frame> {
        let bytes = &self.bytes[self.at..];
        let [first, second, ..] = *bytes else { return None };
        let is_deflated = first == 0xc1 && self.deflated;
        assert!(
            first & 0xf0 == 0x80 || is_deflated,
            "a server's frame must be final and without reserved bits: {first:#x}"
        );
        assert_eq!(second & 0x80, 0, "a server's frame must not be masked");
        let (header, length) = match second {
            126 => (4, bytes.get(2..4).map(|b| usize::from(u16::from_be_bytes(b.try_into().unwrap())))),
            127 => (10, bytes.get(2..10).map(|b| u64::from_be_bytes(b.try_into().unwrap()) as usize)),
            short => (2, Some(usize::from(short))),
        };
        let length = length?;
        assert!(header != 4 || length > 125, "not the shortest length");
        assert!(header != 10 || length > 65_535, "not the shortest length");
        let payload = bytes.get(header..header + length)?.to_vec();
        self.at += header + length;
        let opcode = first & 15;
        assert!(matches!(opcode, 1 | 8 | 9 | 10) || (opcode == 2 && self.binary), "opcode {opcode}");
        assert!(opcode < 8 || payload.len() <= 125, "a control frame of {} bytes", payload.len());
        if !is_deflated {
            return Some(Frame { opcode, payload, is_deflated });
        }
        let inflated = inflate(&payload, MOST).expect("what is compressed is a message");
        assert!(payload.len() < inflated.len(), "{} bytes for {}", payload.len(), inflated.len());
        Some(Frame { opcode, payload: inflated, is_deflated })
    }
}

/// Writes a client's frame.
pub fn write(out: &mut Vec<u8>, fin: bool, opcode: u8, payload: &[u8], random: &mut fastrand::Rng) {
    out.push(if fin { 0x80 } else { 0 } | opcode);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        long @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    let mask: [u8; 4] = random.u32(..).to_le_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Writes a text message, sometimes in fragments with a pong between them; answers where in `out` that ends.
pub fn write_text(out: &mut Vec<u8>, text: &[u8], random: &mut fastrand::Rng) -> Option<usize> {
    write_message(out, 1, text, random)
}

/// Writes a text message as who may compress: so, in a block without compression, or as it is.
pub fn write_text_deflated(out: &mut Vec<u8>, text: &[u8], random: &mut fastrand::Rng) -> Option<usize> {
    match random.u8(..3) {
        0 => write_text(out, text, random),
        1 => write_message(out, 0x41, &stored(text), random),
        _ => {
            let deflated = Deflater::default().deflate(text).map(<[u8]>::to_vec);
            write_message(out, 0x41, &deflated.unwrap_or_else(|| stored(text)), random)
        }
    }
}

/// A compressed message of one block without compression (RFC 1951 section 3.2.4).
pub fn stored(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("one block");
    [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), message, &[0]].concat()
}

fn write_message(out: &mut Vec<u8>, first: u8, payload: &[u8], random: &mut fastrand::Rng) -> Option<usize> {
    if random.u8(..10) > 0 {
        write(out, true, first, payload, random);
        return None;
    }
    let cut = random.usize(..=payload.len());
    write(out, false, first, &payload[..cut], random);
    let pong = random.bool().then(|| {
        write(out, true, 10, b"pong", random);
        out.len()
    });
    write(out, true, 0, &payload[cut..], random);
    pong
}
