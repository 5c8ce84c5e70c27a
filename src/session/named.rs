//! A chunk's frames for clients with a name, which each of their events ends with: kept once for all whose names are as
//! long, with only the name written over for each before the kernel copies them.

use std::ops::Range;

use crate::dialect::envelope::{Frames, splice};
use crate::proto::websocket::RSV1;

/// So many lengths at most. The names of a kind of client are mostly as long as each other, or nearly so.
const LENGTHS: usize = 4;

/// Bytes by which a frame's header may grow with its payload.
const GROWN_HEADER: usize = 8;

/// The frames of one chunk, once for each length of what they end with.
#[derive(Debug, Default)]
pub struct Named {
    all: Vec<OfLength>,
    /// None is kept: a frame is compressed, which has no place for a name, or memory was short.
    is_over: bool,
}

#[derive(Debug)]
struct OfLength {
    /// What they were given first.
    first: Box<[u8]>,
    /// Where in it they have been given anything else since.
    other: Range<usize>,
    frames: Frames,
}

impl OfLength {
    /// Gives a run of frames this suffix: what may be another is written over.
    fn put(&mut self, run: Range<u32>, suffix: &[u8]) {
        let mut differing = (0..suffix.len()).filter(|at| suffix[*at] != self.first[*at]);
        if let Some(first) = differing.next() {
            let last = differing.next_back().unwrap_or(first);
            let Range { start, end } = self.other;
            self.other = if start == end { first..last + 1 } else { start.min(first)..end.max(last + 1) };
        }
        let other = &suffix[self.other.clone()];
        if other.is_empty() {
            return;
        }
        for end in &self.frames.ends[run.start as usize..run.end as usize] {
            let at = *end as usize - suffix.len() + self.other.start;
            self.frames.bytes[at..at + other.len()].copy_from_slice(other);
        }
    }
}

impl Named {
    const OVER: Self = Self { all: Vec::new(), is_over: true };

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.all.iter().map(|one| one.frames.bytes.capacity()).sum()
    }

    /// Copies what is new of a chunk's frames, which only ever grow, with room for a suffix as long as this. Answers whether
    /// all of them are there; they are not where that would take more than `most` bytes.
    pub fn copy(&mut self, frames: &Frames, suffix: &[u8], most: usize) -> bool {
        if self.is_over {
            return false;
        }
        let place = match self.all.iter().position(|one| one.first.len() == suffix.len()) {
            Some(place) => place,
            None if self.all.len() == LENGTHS => return false,
            None => {
                self.all.push(OfLength { first: suffix.into(), other: 0..0, frames: Frames::default() });
                self.all.len() - 1
            }
        };
        let bytes = self.bytes();
        let OfLength { first, frames: copy, .. } = &mut self.all[place];
        let new = copy.ends.len()..frames.ends.len();
        let room = copy.bytes.capacity();
        let needed = frames.bytes.len() + frames.ends.len() * (suffix.len() + GROWN_HEADER);
        if !new.is_empty() && needed > room {
            let wanted = needed.max(2 * room);
            if bytes - room + wanted > most {
                return false;
            }
            copy.bytes.reserve_exact(wanted - copy.bytes.len());
        }
        for number in new {
            let frame = frames.frame(number);
            if frame[0] & RSV1 != 0 {
                *self = Self::OVER;
                return false;
            }
            splice(frame, first, &mut copy.bytes);
            copy.ends.push(copy.bytes.len() as u32);
        }
        true
    }

    /// A run of frames that are there, with this suffix in each.
    pub fn put(&mut self, run: Range<u32>, suffix: &[u8]) -> Option<&[u8]> {
        let one = self.all.iter_mut().find(|one| one.first.len() == suffix.len())?;
        one.put(run.clone(), suffix);
        Some(&one.frames.bytes[one.frames.offset(run.start)..one.frames.offset(run.end)])
    }

    /// Gives the memory back, where it has any. It is not taken again: built in every turn, it would cost more than it saves.
    pub fn give_back(&mut self) {
        if !self.all.is_empty() {
            *self = Self::OVER;
        }
    }

    /// The frames with a suffix of this length, as they were put last.
    pub fn frames(&self, suffix: usize) -> Option<&Frames> {
        self.all.iter().find(|one| one.first.len() == suffix).map(|one| &one.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::websocket::{Opcode, write_header};

    /// Frames whose headers have every length, the first numbers of them.
    fn chunk(count: usize) -> Frames {
        let mut frames = Frames::default();
        for size in [2, 100, 120, 300, 65_500, 65_530, 70_000, 9].into_iter().cycle().take(count) {
            write_header(&mut frames.bytes, Opcode::Text, size);
            frames.bytes.push(b'{');
            frames.bytes.resize(frames.bytes.len() + size - 2, b'x');
            frames.bytes.push(b'}');
            frames.ends.push(frames.bytes.len() as u32);
        }
        frames
    }

    fn spliced(frames: &Frames, run: Range<u32>, suffix: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        run.for_each(|number| splice(frames.frame(number as usize), suffix, &mut out));
        out
    }

    #[test]
    fn every_client_has_its_own_name_in_whatever_run_of_frames() {
        let (mut named, mut random) = (Named::default(), fastrand::Rng::with_seed(7));
        for count in [1, 2, 5, 8, 9, 20, 40] {
            let frames = chunk(count);
            for _ in 0..50 {
                let length = random.usize(1..=LENGTHS);
                let name: String = (0..length).map(|_| random.char('a'..='c')).collect();
                let suffix = format!("<{name}>");
                let start = random.u32(0..count as u32);
                let run = start..random.u32(start + 1..=count as u32);
                assert!(named.copy(&frames, suffix.as_bytes(), usize::MAX));
                let expected = spliced(&frames, run.clone(), suffix.as_bytes());
                assert!(
                    named.put(run.clone(), suffix.as_bytes()) == Some(&expected[..]),
                    "{suffix} in {run:?}"
                );
                let copy = named.frames(suffix.len()).unwrap();
                assert_eq!(copy.split(run.clone(), expected.len() - 1).0, run.end - run.start - 1);
            }
        }
        assert!(!named.copy(&chunk(1), b"of another length", usize::MAX), "of so many lengths and no more");
        assert_eq!(named.put(0..1, b"of another length"), None);
    }

    #[test]
    fn it_takes_no_more_memory_than_it_may() {
        let (few, many) = (chunk(3), chunk(40));
        let needed = spliced(&many, 0..40, b"<a>").len();
        let mut named = Named::default();
        for most in [needed - 1, needed, 3 * needed, usize::MAX] {
            for suffix in [&b"<a>"[..], b"<ab>"] {
                assert!(named.copy(&few, suffix, 100_000));
                let is_there = named.copy(&many, suffix, most);
                assert!(named.bytes() <= most, "{} of {most}", named.bytes());
                let expected = spliced(&many, 0..40, suffix);
                assert!(!is_there || named.put(0..40, suffix) == Some(&expected[..]));
            }
        }
        assert_eq!(named.put(0..40, b"<b>").map(<[u8]>::len), Some(needed), "all of it in the end");
    }

    #[test]
    fn a_compressed_frame_has_no_place_for_a_name() {
        let mut frames = chunk(2);
        let mut named = Named::default();
        assert!(named.copy(&frames, b"<a>", usize::MAX));
        frames.bytes.extend_from_slice(&[0xc1, 1, 0]);
        frames.ends.push(frames.bytes.len() as u32);
        for suffix in [b"<a>", b"<b>"] {
            assert!(!named.copy(&frames, suffix, usize::MAX));
            assert_eq!(named.put(0..1, suffix), None);
            assert_eq!(named.bytes(), 0);
        }
    }
}
