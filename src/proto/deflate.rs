//! `permessage-deflate` (RFC 7692): messages compressed and inflated, each for itself.
//!
//! Neither side keeps anything from one message to the next (no context takeover): so a compressor and a
//! decompressor serve any number of connections, and what is compressed once is good for all of them. `flate2` over
//! `zlib-rs` does the work: Rust, and of the two in Rust the one that begins a short message in the least time.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::websocket::{Opcode, RSV1, Violation, write_header};

/// Above it, JSON comes out a few percent smaller and takes up to three times as long.
const LEVEL: u32 = 3;
/// What ends a flush, and is left out of a message (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// [`TAIL`] and a last block that holds nothing: who comes to its end has read a message that is whole.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// Blocks of a message that say they are the last at most (section 7.2.3.4): each begins anew.
const MAX_LAST_BLOCKS: u32 = 1000;
/// Bytes of a buffer that is kept for the next message.
const KEPT: usize = 64 << 10;

/// Compresses messages. Takes its memory, about 300 KiB, with the first.
#[derive(Debug, Default)]
pub struct Deflater {
    compress: Option<Box<Compress>>,
    out: Vec<u8>,
}

impl Deflater {
    /// A message as it goes into a frame with [`RSV1`]; `None` where that has no fewer bytes.
    pub fn deflate(&mut self, message: &[u8]) -> Option<&[u8]> {
        let compress =
            self.compress.get_or_insert_with(|| Box::new(Compress::new(Compression::new(LEVEL), false)));
        compress.reset();
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        // Where it needs more room than this, it is not worth it.
        self.out.reserve(message.len() + TAIL.len());
        let status = compress.compress_vec(message, &mut self.out, FlushCompress::Sync);
        let is_whole = status.is_ok() && self.out.len() < self.out.capacity();
        let deflated = self.out.strip_suffix(&TAIL)?;
        (is_whole && compress.total_in() == message.len() as u64 && deflated.len() < message.len())
            .then_some(deflated)
    }
}

/// Appends the text frame of a message that [`Deflater::deflate`] gave.
pub fn write_deflated_frame(out: &mut Vec<u8>, deflated: &[u8]) {
    let start = out.len();
    write_header(out, Opcode::Text, deflated.len());
    out[start] |= RSV1;
    out.extend_from_slice(deflated);
}

/// Inflates messages. Takes its memory, about 40 KiB and a message, with the first.
#[derive(Debug, Default)]
pub struct Inflater {
    decompress: Option<Box<Decompress>>,
    out: Vec<u8>,
}

impl Inflater {
    /// What a compressed message says. To be given back with [`Inflater::recycle`].
    ///
    /// # Errors
    /// It comes to more than `most` bytes, of which no more than one is made, or to nothing whole.
    pub fn inflate(&mut self, message: &[u8], most: usize) -> Result<Vec<u8>, Violation> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        // Some write an empty message as nothing at all, where one byte belongs (section 7.2.3.6).
        if !message.is_empty() {
            let decompress = self.decompress.get_or_insert_with(|| Box::new(Decompress::new(false)));
            run(decompress, message, most, &mut out)?;
        }
        Ok(out)
    }

    /// Takes back what [`Inflater::inflate`] gave.
    pub fn recycle(&mut self, out: Vec<u8>) {
        if out.capacity() <= KEPT {
            self.out = out;
        }
    }
}

fn run(decompress: &mut Decompress, message: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
    decompress.reset(false);
    let (mut input, mut is_end, mut last_blocks) = (message, false, 0);
    loop {
        if input.is_empty() && !is_end {
            (input, is_end) = (&END, true);
        }
        if out.len() == out.capacity() {
            let more = out.capacity().max(4 * message.len()).max(256);
            out.reserve_exact(more.min(most + 1 - out.len()));
        }
        let (taken, made) = (decompress.total_in(), out.len());
        let status = decompress.decompress_vec(input, out, FlushDecompress::Sync);
        if out.len() > most {
            return Err(Violation::TooBig);
        }
        let status = status.map_err(|_| Violation::BadDeflate)?;
        let taken = (decompress.total_in() - taken) as usize;
        input = &input[taken..];
        match status {
            // Of the end itself, or of a last block that nothing follows.
            Status::StreamEnd if input.is_empty() || (is_end && input.len() == END.len()) => return Ok(()),
            Status::StreamEnd => {
                last_blocks += 1;
                if last_blocks > MAX_LAST_BLOCKS {
                    return Err(Violation::BadDeflate);
                }
                decompress.reset(false);
            }
            // It wants more, and there is none: the message broke off.
            _ if taken == 0 && out.len() == made => return Err(Violation::BadDeflate),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(message: &[u8], most: usize) -> Result<Vec<u8>, Violation> {
        Inflater::default().inflate(message, most)
    }

    #[test]
    fn what_is_compressed_comes_back_whatever_was_before() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let mut random = fastrand::Rng::with_seed(7);
        for size in [30, 100, 1000, 1024, 5000, 70_000, 300_000, 40] {
            let words: Vec<u8> =
                (0..size).map(|n| b"abcd, {}\""[random.usize(..9) * usize::from(n % 3 == 0)]).collect();
            let deflated = deflater.deflate(&words).unwrap().to_vec();
            assert!(deflated.len() < words.len());
            // Each for itself: in any order, by anybody.
            assert_eq!(deflater.deflate(&words).unwrap(), deflated);
            assert_eq!(inflate(&deflated, size).unwrap(), words);
            let inflated = inflater.inflate(&deflated, 1 << 20).unwrap();
            assert_eq!(inflated, words);
            inflater.recycle(inflated);
            let mut frame = Vec::new();
            write_deflated_frame(&mut frame, &deflated);
            assert_eq!((frame[0], super::super::websocket::payload(&frame)), (0xc1, &deflated[..]));
        }
    }

    #[test]
    fn what_gets_no_smaller_is_left() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut deflater = Deflater::default();
        for size in [0, 1, 5, 100, 5000, 200_000] {
            let noise: Vec<u8> = (0..size).map(|_| random.u8(..)).collect();
            assert_eq!(deflater.deflate(&noise), None, "{size}");
        }
    }

    /// Section 7.2.3: how other ends may write a message.
    #[test]
    fn the_rfcs_examples_are_read() {
        for (what, message) in [
            ("7.2.3.1", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..]),
            ("7.2.3.3, a block without compression", &[0, 5, 0, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0]),
            ("7.2.3.4, a last block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
            ("the same, and nothing behind it", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
            (
                "7.2.3.5, two blocks",
                &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            ),
        ] {
            assert_eq!(inflate(message, 5).as_deref(), Ok(&b"Hello"[..]), "{what}");
            assert_eq!(inflate(message, 4), Err(Violation::TooBig), "{what}");
        }
        assert_eq!(inflate(&[0], 0), Ok(Vec::new()), "7.2.3.6, an empty message");
        assert_eq!(inflate(&[], 0), Ok(Vec::new()));
    }

    #[test]
    fn a_bomb_is_found_before_it_is_large() {
        let mut deflater = Deflater::default();
        let bomb = deflater.deflate(&vec![b' '; 10 << 20]).unwrap().to_vec();
        assert!(bomb.len() < 50_000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&bomb, 64 << 10), Err(Violation::TooBig));
        let mut out = Vec::new();
        assert_eq!(run(&mut Decompress::new(false), &bomb, 1000, &mut out), Err(Violation::TooBig));
        assert!(out.capacity() <= 1001, "{} bytes", out.capacity());
        // Its message is over, and nothing of it is left for the next.
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).unwrap(), b"Hello");
        let exact = deflater.deflate(&[b'x'; 1000]).unwrap();
        assert_eq!(inflater.inflate(exact, 1000).unwrap().len(), 1000);
        assert_eq!(inflater.inflate(exact, 999), Err(Violation::TooBig));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut deflater = Deflater::default();
        let whole =
            deflater.deflate(&b"{\"a\":\"some text that comes again, some text\"}".repeat(3)).unwrap();
        for end in 1..whole.len() {
            assert_eq!(inflate(&whole[..end], 1000), Err(Violation::BadDeflate), "cut at {end}");
        }
        for bad in [
            &b"\xff\xff\xff"[..],
            b"\x06",
            b"{\"type\":\"ping\"}",
            &[0x4c; 40],
            &[&[3, 0][..]; 1002].concat(),
        ] {
            assert_eq!(inflate(bad, 1000), Err(Violation::BadDeflate), "{bad:x?}");
        }
    }
}
