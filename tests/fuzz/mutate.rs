//! Inputs made of those of a corpus: parts of two, some bytes changed, words of a dictionary put in.

/// Bytes of an input at most.
const MOST: usize = 4096;

/// Makes inputs for one target.
pub struct Maker {
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Maker {
    /// From a corpus, and a dictionary as libFuzzer reads it: a quoted word a line.
    pub fn new(corpus: Vec<Vec<u8>>, dictionary: &str) -> Self {
        let words = dictionary.lines().filter(|line| !line.starts_with('#')).filter_map(word).collect();
        Self { corpus, words }
    }

    /// The input of this seed.
    pub fn make(&self, seed: u64) -> Vec<u8> {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut input = self.part(random).to_vec();
        if random.u8(..4) == 0 {
            // The beginning of one and the end of another.
            let other = self.part(random);
            input.truncate(random.usize(..=input.len()));
            input.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        let changes = 1 << random.u32(..5);
        for _ in 0..random.usize(..=changes) {
            self.change(&mut input, random);
        }
        input.truncate(MOST);
        input
    }

    fn part(&self, random: &mut fastrand::Rng) -> &[u8] {
        random.choice(&self.corpus).map_or(&[], Vec::as_slice)
    }

    fn change(&self, input: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let at = random.usize(..=input.len());
        let run = |random: &mut fastrand::Rng, most: usize| {
            let start = random.usize(..=most);
            start..(start + (1 << random.usize(..7))).min(most)
        };
        match random.u8(..12) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 if at < input.len() => input[at] = *random.choice(INTERESTING).unwrap(),
            3 if at < input.len() => input[at] = input[at].wrapping_add(random.u8(..)),
            4 => input.insert(at, random.u8(..)),
            5 => input.insert(at, *random.choice(INTERESTING).unwrap()),
            6 => drop(input.drain(run(random, input.len()))),
            7 => {
                // A part of its own once more, elsewhere.
                let part = input[run(random, input.len())].to_vec();
                input.splice(at..at, part);
            }
            8 => {
                let other = self.part(random);
                let part = other[run(random, other.len())].to_vec();
                input.splice(at..at, part);
            }
            9 | 10 if !self.words.is_empty() => {
                let word = random.choice(&self.words).unwrap().clone();
                let end = if random.bool() { at } else { (at + word.len()).min(input.len()) };
                input.splice(at..end, word);
            }
            11 => {
                let bytes =
                    random.choice([0, 1, 0x7f, 0x80, 0xffff, 0x1_0000, u64::MAX >> 1, u64::MAX]).unwrap();
                let bytes = if random.bool() { bytes.to_be_bytes() } else { bytes.to_le_bytes() };
                let width = 1 << random.usize(1..4);
                let end = (at + width).min(input.len());
                input.splice(at..end, bytes[if random.bool() { 0..width } else { 8 - width..8 }].to_vec());
            }
            _ => input.truncate(at),
        }
    }
}

/// Bytes that parsers look for.
const INTERESTING: &[u8] =
    b"\0\x01\t\n\r \"#%&'*+,-./0179:;<=>?@[\\]_`{|}~\x7f\x80\xbf\xc2\xe2\xed\xf4\xff\x81\x82\x88\x89\x8a";

/// What stands between the quotes of a dictionary's line.
fn word(line: &str) -> Option<Vec<u8>> {
    let inside = line.split_once('"')?.1.rsplit_once('"')?.0.as_bytes();
    let (mut word, mut at) = (Vec::new(), 0);
    while let Some(byte) = inside.get(at) {
        let escaped = inside.get(at + 1);
        match (byte, escaped) {
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(inside.get(at + 2..at + 4)?).ok()?;
                word.push(u8::from_str_radix(digits, 16).ok()?);
                at += 4;
            }
            (b'\\', Some(other)) => {
                word.push(*other);
                at += 2;
            }
            _ => {
                word.push(*byte);
                at += 1;
            }
        }
    }
    Some(word)
}

#[test]
fn dictionaries_are_read_as_a_fuzzer_does() {
    assert_eq!(word(r#"name="a\x0d\\\"b""#).unwrap(), b"a\x0d\\\"b");
    assert_eq!(word("no quotes"), None);
}

#[test]
fn a_seed_is_an_input() {
    let maker = Maker::new(vec![b"some bytes".to_vec(), Vec::new()], "\"word\"");
    let different: std::collections::HashSet<_> = (0..100).map(|seed| maker.make(seed)).collect();
    assert!(different.len() > 50);
    assert!((0..100).all(|seed| maker.make(seed) == maker.make(seed)));
}
