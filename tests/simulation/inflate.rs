//! Compressed messages as the far end reads them (RFC 1951, RFC 7692): bit by bit, and nobody's but the simulation's.

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Malformed,
    TooBig,
}

/// What a message is read with behind it: what its writer left out, and a last block that holds nothing.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// Last blocks of a message at most.
const MAX_LAST_BLOCKS: usize = 1000;

/// What a compressed message says, of `most` bytes at most.
pub fn inflate(message: &[u8], most: usize) -> Result<Vec<u8>, Wrong> {
    if message.is_empty() {
        return Ok(Vec::new());
    }
    let data = [message, &END].concat();
    let mut bits = Bits { data: &data, at: 0 };
    let (mut out, mut first, mut last_blocks) = (Vec::new(), 0, 0);
    loop {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out, most)?,
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|n| [8, 9, 7, 8][[144, 256, 280].iter().filter(|end| n >= **end).count()])
                    .collect();
                blocks_codes(&mut bits, &Code::of(&lengths)?, &Code::of(&[5; 30])?, &mut out, (first, most))?;
            }
            2 => {
                let (lengths, distances) = dynamic(&mut bits)?;
                blocks_codes(&mut bits, &lengths, &distances, &mut out, (first, most))?;
            }
            _ => return Err(Wrong::Malformed),
        }
        if is_last {
            bits.align();
            if [message.len(), data.len()].contains(&(bits.at / 8)) {
                return Ok(out);
            }
            (first, last_blocks) = (out.len(), last_blocks + 1);
            if last_blocks > MAX_LAST_BLOCKS {
                return Err(Wrong::Malformed);
            }
        }
    }
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Result<usize, Wrong> {
        let mut value = 0;
        for place in 0..count {
            let byte = self.data.get(self.at / 8).ok_or(Wrong::Malformed)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Ok(value)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

fn push(out: &mut Vec<u8>, byte: u8, most: usize) -> Result<(), Wrong> {
    out.push(byte);
    if out.len() > most { Err(Wrong::TooBig) } else { Ok(()) }
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>, most: usize) -> Result<(), Wrong> {
    bits.align();
    let (length, complement) = (bits.take(16)?, bits.take(16)?);
    if length != complement ^ 0xffff {
        return Err(Wrong::Malformed);
    }
    (0..length).try_for_each(|_| push(out, bits.take(8)? as u8, most))
}

/// A Huffman code (RFC 1951 section 3.2.2): how many codes there are of each length, and the symbols in their order.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
    /// Codes that stand for nothing, of the longest length.
    left: isize,
}

impl Code {
    fn of(lengths: &[u8]) -> Result<Self, Wrong> {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[usize::from(*length)] += 1);
        let mut left = 1_isize;
        for count in &counts[1..] {
            left = 2 * left - *count as isize;
            if left < 0 {
                return Err(Wrong::Malformed);
            }
        }
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        counts[0] = 0;
        Ok(Self { counts, symbols, left })
    }

    /// Whether every code stands for something, or there is only one, of one bit, or none.
    fn is_allowed(&self) -> bool {
        self.left == 0 || self.symbols.len() == self.counts[1]
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<usize, Wrong> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[index + code - first]);
            }
            index += count;
            (first, code) = (2 * (first + count), 2 * code);
        }
        Err(Wrong::Malformed)
    }
}

fn dynamic(bits: &mut Bits<'_>) -> Result<(Code, Code), Wrong> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (lengths, distances, codes) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    if lengths > 286 || distances > 30 {
        return Err(Wrong::Malformed);
    }
    let mut of_codes = [0; 19];
    for place in &ORDER[..codes] {
        of_codes[*place] = bits.take(3)? as u8;
    }
    let code = Code::of(&of_codes)?;
    if code.left != 0 {
        return Err(Wrong::Malformed);
    }
    let mut all: Vec<u8> = Vec::new();
    while all.len() < lengths + distances {
        let (length, times) = match code.read(bits)? {
            16 => (*all.last().ok_or(Wrong::Malformed)?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        all.resize(all.len() + times, length);
    }
    if all.len() > lengths + distances || all[256] == 0 {
        return Err(Wrong::Malformed);
    }
    let (of_lengths, of_distances) = (Code::of(&all[..lengths])?, Code::of(&all[lengths..])?);
    match of_lengths.is_allowed() && of_distances.is_allowed() {
        true => Ok((of_lengths, of_distances)),
        false => Err(Wrong::Malformed),
    }
}

/// The symbols of a block (section 3.2.5). Nothing before `first` may be meant.
fn blocks_codes(
    bits: &mut Bits<'_>,
    lengths: &Code,
    distances: &Code,
    out: &mut Vec<u8>,
    (first, most): (usize, usize),
) -> Result<(), Wrong> {
    loop {
        let symbol = lengths.read(bits)?;
        let length = match symbol {
            256 => return Ok(()),
            0..256 => {
                push(out, symbol as u8, most)?;
                continue;
            }
            257..265 => symbol - 254,
            285 => 258,
            265..285 => {
                let extra = (symbol - 261) / 4;
                ((4 + (symbol - 265) % 4) << extra) + 3 + bits.take(extra as u32)?
            }
            _ => return Err(Wrong::Malformed),
        };
        let symbol = distances.read(bits)?;
        let distance = match symbol {
            0..4 => symbol + 1,
            _ => {
                let extra = symbol / 2 - 1;
                ((2 + symbol % 2) << extra) + 1 + bits.take(extra as u32)?
            }
        };
        if distance > out.len() - first {
            return Err(Wrong::Malformed);
        }
        for _ in 0..length {
            push(out, out[out.len() - distance], most)?;
        }
    }
}
