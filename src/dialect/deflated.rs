//! A round's frames once more, compressed: one more form beside the plain one, shared by all who negotiated it.

use crate::dialect::envelope::Frames;
use crate::proto::deflate::{Deflater, write_deflated_frame};
use crate::proto::websocket::payload;

/// Frames of which some are compressed, and what that came to.
#[derive(Debug, Default)]
pub struct Deflated {
    /// All of the round's frames.
    pub frames: Frames,
    /// How many of them are compressed.
    pub events: u64,
    /// Bytes of payloads that were given to the compressor.
    pub bytes_in: u64,
    /// Bytes that they have now, those too that came out no smaller and stayed as they were.
    pub bytes_out: u64,
}

impl Deflated {
    /// Compresses the frames whose payload has at least `above` bytes; `None` where none is so large.
    pub fn of(plain: &Frames, above: usize, deflater: &mut Deflater) -> Option<Self> {
        let frames = || (0..plain.ends.len()).map(|number| plain.frame(number));
        frames().find(|frame| payload(frame).len() >= above)?;
        let mut all = Self::default();
        all.frames.ends.reserve_exact(plain.ends.len());
        for frame in frames() {
            let (payload, bytes) = (payload(frame), &mut all.frames.bytes);
            let deflated = if payload.len() >= above { deflater.deflate(payload) } else { None };
            match deflated {
                Some(deflated) => {
                    write_deflated_frame(bytes, deflated);
                    all.events += 1;
                    all.bytes_out += deflated.len() as u64;
                }
                None => {
                    bytes.extend_from_slice(frame);
                    all.bytes_out += if payload.len() >= above { payload.len() as u64 } else { 0 };
                }
            }
            all.bytes_in += if payload.len() >= above { payload.len() as u64 } else { 0 };
            // No frame is longer than it was, and the plain ones' ends fit.
            all.frames.ends.push(all.frames.bytes.len() as u32);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::deflate::Inflater;
    use crate::proto::websocket::{Opcode, write_frame};

    #[test]
    fn what_is_large_enough_and_gets_smaller_is_compressed() {
        let large = "text that comes again, ".repeat(50);
        let noise: String = (0..500)
            .map(|n: u32| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
            .collect();
        let payloads = ["small", &large, &noise, &large[..200], ""];
        let mut plain = Frames::default();
        for payload in payloads {
            write_frame(&mut plain.bytes, Opcode::Text, payload.as_bytes());
            plain.ends.push(plain.bytes.len() as u32);
        }
        let mut deflater = Deflater::default();
        assert!(Deflated::of(&plain, large.len() + 1, &mut deflater).is_none());
        let Deflated { frames, events, bytes_in, bytes_out } =
            Deflated::of(&plain, 200, &mut deflater).unwrap();
        let mut compressed = Vec::new();
        for (number, expected) in payloads.iter().enumerate() {
            let frame = frames.frame(number);
            let message = match frame[0] {
                0xc1 => Inflater::default().inflate(payload(frame), 10_000).unwrap(),
                first => {
                    assert_eq!((first, frame), (0x81, plain.frame(number)));
                    payload(frame).to_vec()
                }
            };
            assert_eq!(message, expected.as_bytes());
            compressed.extend((frame[0] == 0xc1).then_some(number));
        }
        assert!(compressed == [1, 3] || compressed == [1, 2, 3], "{compressed:?}");
        assert_eq!(events, compressed.len() as u64);
        assert_eq!(bytes_in, (large.len() + noise.len() + 200) as u64);
        let out = frames.bytes.len() as u64;
        assert!(bytes_out < bytes_in && bytes_out < out && out < bytes_out + 30, "{bytes_out} of {out}");
        assert!(Deflated::of(&Frames::default(), 1, &mut deflater).is_none());
    }
}
