//! Chunks and spans: a shard's frames, written once, and who still has to send which of them.
//!
//! A chunk is a growing, contiguous stretch of one topic's frames in one envelope. A span is a run of frames
//! inside a chunk, by number: no pointer, no atomic. A chunk counts the spans in it and goes with the last.

use std::ops::{AddAssign, Range};
use std::sync::Arc;

use slab::Slab;

use crate::dialect::envelope::Frames;
use crate::receipt::{Expected, Fate, Receipt};
use crate::session::named::Named;
use crate::session::pages::{Copied, Pages};
use crate::slack::is_loose;
use crate::transport::Shared;

/// A chunk that reached this many bytes grows no more; the next frame begins a new one.
pub const CHUNK_BYTES: usize = 256 << 10;

/// No chunk.
pub const NO_CHUNK: u32 = u32::MAX;

/// No list of subscribers keeps this chunk as its growing one.
const NO_OWNER: (u32, u32) = (u32::MAX, u32::MAX);

/// Marks when frames from a history were read there: that says nothing about how long events take.
pub const UNTIMED: u64 = 1 << 63;

/// Bytes of empty buffers kept for the next chunks.
const POOL_BYTES: usize = 8 << 20;

/// From so many bytes on, a write is worth a copy of the chunk that others use as well (pages that are handed over, frames
/// with room for a name), …
const COPIES_FROM_BYTES: usize = 8 << 10;

/// … where so many spans are in the chunk.
const COPIES_FROM_SPANS: u32 = 16;

/// Bytes of frames with room for a name, of all chunks.
const NAMED_BYTES: usize = 8 << 20;

/// How many events were left out somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// All of them.
    pub dropped: u32,
    /// Those that a newer event of the same key replaced.
    pub conflated: u32,
}

impl Gap {
    /// None.
    pub const NONE: Self = Self { dropped: 0, conflated: 0 };

    /// So many for want of room.
    pub const fn dropped(dropped: u32) -> Self {
        Self { dropped, conflated: 0 }
    }

    /// One for a newer event of its key.
    pub const CONFLATED: Self = Self { dropped: 1, conflated: 1 };

    /// Whether it is none.
    pub const fn is_none(self) -> bool {
        self.dropped == 0
    }
}

impl AddAssign for Gap {
    fn add_assign(&mut self, other: Self) {
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.conflated = self.conflated.saturating_add(other.conflated);
    }
}

/// A run of frames inside a chunk, on its way to one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The chunk, or [`NO_CHUNK`].
    pub chunk: u32,
    /// The first frame.
    pub start: u32,
    /// One after the last frame.
    pub end: u32,
    /// The shard's number of the topic whose subscription the frames came through.
    pub topic: u32,
    /// Events of that topic left out just before the first frame.
    pub gap: Gap,
    /// Whether the subscription's policy allows leaving frames out.
    pub droppable: bool,
}

impl Span {
    /// No frames.
    pub const EMPTY: Self =
        Self { chunk: NO_CHUNK, start: 0, end: 0, topic: 0, gap: Gap::NONE, droppable: false };

    /// Whether this is no span.
    pub const fn is_empty(&self) -> bool {
        self.chunk == NO_CHUNK
    }

    /// Whether it has no frames.
    pub const fn is_empty_run(&self) -> bool {
        self.start == self.end
    }

    /// How many frames.
    pub const fn frames(&self) -> u32 {
        self.end - self.start
    }
}

#[derive(Debug, Default)]
struct Chunk {
    frames: Frames,
    /// When the frames came in: for each round its first frame and its ingress.
    stamps: Vec<(u32, u64)>,
    /// The hash of each frame's key, 0 for none; empty, or short of the last, where no more frames have one.
    keys: Vec<u64>,
    /// The frames whose publishers asked for a receipt, in their order.
    receipts: Vec<(u32, Arc<Receipt>)>,
    spans: u32,
    /// The topic and list that append to this chunk, or [`NO_OWNER`] once it grows no more.
    owner: (u32, u32),
    copied: Copied,
    named: Named,
}

impl Chunk {
    /// Where a span's frames stand.
    fn run(&self, span: &Span) -> Range<usize> {
        self.frames.offset(span.start)..self.frames.offset(span.end)
    }

    /// Whether so many bytes of it are worth a copy that others use as well.
    fn is_for_many(&self, bytes: usize) -> bool {
        bytes >= COPIES_FROM_BYTES && self.spans >= COPIES_FROM_SPANS
    }
}

/// A shard's chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    chunks: Slab<Chunk>,
    /// The numbers of empty chunks that are there for the next ones: with them, in their places, is the memory of old ones.
    pool: Vec<u32>,
    pool_bytes: usize,
    /// The fewest that were in the pool since [`Chunks::tidy`].
    pool_low: usize,
    held: usize,
    forgotten: Vec<Forgotten>,
    pages: Pages,
    /// Bytes of what chunks keep for clients with a name.
    named_bytes: usize,
}

/// A chunk that went while it was still growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The topic and list that appended to it.
    pub owner: (u32, u32),
    /// Its number.
    pub chunk: u32,
}

/// Where a round's frames are after they were appended.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// The chunk.
    pub chunk: u32,
    /// The round's first frame.
    pub start: u32,
    /// One after its last.
    pub end: u32,
}

impl Chunks {
    /// Bytes that chunks hold for clients: the memory of all outboxes but for their private parts.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many chunks are in use.
    pub fn len(&self) -> usize {
        self.chunks.len() - self.pool.len()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of empty buffers kept for the next chunks.
    pub fn pooled_bytes(&self) -> usize {
        self.pool_bytes
    }

    /// How many empty ones are kept for the next chunks.
    pub fn pooled(&self) -> usize {
        self.pool.len()
    }

    /// Gives back half of what was not needed since the last time.
    pub fn tidy(&mut self) {
        for chunk in self.pool.drain(..self.pool_low.div_ceil(2)) {
            self.pool_bytes -= self.chunks.remove(chunk as usize).frames.bytes.capacity();
        }
        self.pool_low = self.pool.len();
        if is_loose(self.pool.capacity(), self.pool.len()) {
            self.pool.shrink_to(2 * self.pool.len());
        }
        if is_loose(self.chunks.capacity(), self.chunks.len()) {
            self.chunks.shrink_to_fit();
        }
    }

    /// Keeps no more than so many bytes beside the frames: of empty buffers, and then of copies, without which everything
    /// goes out as well.
    pub fn keep_beside(&mut self, most: usize) {
        while self.pool_bytes + self.copied_bytes() > most
            && let Some(chunk) = self.pool.pop()
        {
            self.pool_bytes -= self.chunks.remove(chunk as usize).frames.bytes.capacity();
        }
        self.pool_low = self.pool_low.min(self.pool.len());
        if self.copied_bytes() > most {
            self.pages.give_back();
            self.chunks.iter_mut().for_each(|(_, chunk)| chunk.named.give_back());
            self.named_bytes = 0;
        }
    }

    fn copied_bytes(&self) -> usize {
        self.pages.bytes() + self.named_bytes
    }

    /// Appends a round's frames to `current`, or to a new chunk where that is none or full. `write` puts the
    /// frames at the end of the bytes and where each ends into the ends.
    ///
    /// The caller retains the chunk once for itself, pushes spans and retains it once for each, and releases
    /// its own: so a chunk goes at once where nobody wanted its frames.
    pub fn append(
        &mut self,
        current: u32,
        owner: (u32, u32),
        ingress: u64,
        write: impl FnOnce(&mut Vec<u8>, &mut Vec<u32>),
    ) -> Appended {
        let key = match self.chunks.get(current as usize) {
            Some(chunk) if current != NO_CHUNK && chunk.frames.bytes.len() < CHUNK_BYTES => current,
            _ => {
                if current != NO_CHUNK {
                    self.disown(current);
                }
                let key = self.pool.pop().unwrap_or_else(|| self.chunks.insert(Chunk::default()) as u32);
                self.pool_low = self.pool_low.min(self.pool.len());
                let chunk = &mut self.chunks[key as usize];
                self.pool_bytes -= chunk.frames.bytes.capacity();
                self.held += chunk.frames.bytes.capacity();
                chunk.owner = owner;
                key
            }
        };
        let chunk = &mut self.chunks[key as usize];
        let (start, before) = (chunk.frames.ends.len() as u32, chunk.frames.bytes.capacity());
        write(&mut chunk.frames.bytes, &mut chunk.frames.ends);
        chunk.stamps.push((start, ingress));
        self.held += chunk.frames.bytes.capacity() - before;
        Appended { chunk: key, start, end: chunk.frames.ends.len() as u32 }
    }

    /// Puts frames that came from a history into a chunk that does not grow. To be retained and released like
    /// one from [`Chunks::append`].
    pub fn add(&mut self, now: u64, write: impl FnOnce(&mut Vec<u8>, &mut Vec<u32>)) -> Appended {
        self.append(NO_CHUNK, NO_OWNER, now | UNTIMED, write)
    }

    /// The chunk grows no more: its list of subscribers has another, or is gone.
    pub fn disown(&mut self, chunk: u32) {
        self.chunks[chunk as usize].owner = NO_OWNER;
        if self.chunks[chunk as usize].spans == 0 {
            self.recycle(chunk);
        }
    }

    /// Counts `spans` more in a chunk.
    pub fn retain(&mut self, chunk: u32, spans: u32) {
        self.chunks[chunk as usize].spans += spans;
    }

    /// One span in the chunk is done with. Where it was the last, the chunk goes.
    pub fn release(&mut self, chunk: u32) {
        let entry = &mut self.chunks[chunk as usize];
        entry.spans -= 1;
        if entry.spans == 0 {
            if entry.owner != NO_OWNER {
                self.forgotten.push(Forgotten { owner: entry.owner, chunk });
            }
            self.recycle(chunk);
        }
    }

    /// The next list that must forget its growing chunk, because the chunk is gone. To be asked until there
    /// is none before anything is appended: numbers of chunks are used again.
    pub fn next_forgotten(&mut self) -> Option<Forgotten> {
        self.forgotten.pop()
    }

    fn recycle(&mut self, key: u32) {
        let chunk = &mut self.chunks[key as usize];
        let memory = chunk.frames.bytes.capacity();
        self.held -= memory;
        self.pages.release(&mut chunk.copied);
        self.named_bytes -= chunk.named.bytes();
        chunk.named = Named::default();
        if memory <= 2 * CHUNK_BYTES && self.pool_bytes + memory <= POOL_BYTES {
            self.pool_bytes += memory;
            chunk.frames.bytes.clear();
            chunk.frames.ends.clear();
            chunk.stamps.clear();
            chunk.keys.clear();
            chunk.receipts.clear();
            self.pool.push(key);
        } else {
            self.chunks.remove(key as usize);
        }
    }

    /// The bytes of a span's frames.
    pub fn bytes(&self, span: &Span) -> &[u8] {
        let chunk = &self.chunks[span.chunk as usize];
        &chunk.frames.bytes[chunk.run(span)]
    }

    /// Whether a span is so large, and its chunk owed to so many, that it is worth a write of its own from a copy that
    /// others use as well.
    pub fn is_for_many(&self, span: &Span) -> bool {
        let chunk = &self.chunks[span.chunk as usize];
        chunk.is_for_many(chunk.run(span).len())
    }

    /// The bytes of a span's frames, for a write to one of many: where it is worth it, as pages too.
    pub fn shared(&mut self, span: &Span) -> Shared<'_> {
        let chunk = &mut self.chunks[span.chunk as usize];
        let run = chunk.run(span);
        let mut pages = None;
        if run.len() >= COPIES_FROM_BYTES {
            if chunk.spans >= COPIES_FROM_SPANS {
                self.pages.copy(&mut chunk.copied, &chunk.frames.bytes);
            }
            pages = self.pages.locate(chunk.copied, &run);
        }
        Shared { bytes: &chunk.frames.bytes[run], pages }
    }

    /// The bytes of a span's frames with this suffix in each, for a write to one of many that have a name. `None`: it is
    /// not worth it, or not possible, and they are to be put together for this client alone.
    pub fn named(&mut self, span: &Span, suffix: &[u8]) -> Option<&[u8]> {
        let chunk = &mut self.chunks[span.chunk as usize];
        if !chunk.is_for_many(chunk.run(span).len()) {
            return None;
        }
        let others = self.named_bytes - chunk.named.bytes();
        let is_there = chunk.named.copy(&chunk.frames, suffix, NAMED_BYTES - others);
        self.named_bytes = others + chunk.named.bytes();
        if is_there { chunk.named.put(span.start..span.end, suffix) } else { None }
    }

    /// How many bytes frames `start..end` of a chunk have.
    pub fn frames_len(&self, chunk: u32, start: u32, end: u32) -> usize {
        let chunk = &self.chunks[chunk as usize];
        chunk.frames.offset(end) - chunk.frames.offset(start)
    }

    /// Says what keys the frames from `start` on have: a hash of each, 0 for none.
    pub fn set_keys(&mut self, chunk: u32, start: u32, keys: impl Iterator<Item = u64>) {
        let all = &mut self.chunks[chunk as usize].keys;
        all.resize(start as usize, 0);
        all.extend(keys);
    }

    /// The hash of a frame's key, 0 for none.
    pub fn key(&self, chunk: u32, frame: u32) -> u64 {
        self.chunks[chunk as usize].keys.get(frame as usize).copied().unwrap_or_default()
    }

    /// Says for which of the frames from `start` on there is a receipt to be counted up.
    pub fn set_receipts(&mut self, chunk: u32, start: u32, expected: &[Expected]) {
        let all = &mut self.chunks[chunk as usize].receipts;
        all.extend(expected.iter().map(|expected| (start + expected.place, Arc::clone(&expected.receipt))));
    }

    /// Notes in the receipts of some frames what became of them for one session.
    pub fn note(&self, chunk: u32, frames: Range<u32>, fate: Fate) {
        self.receipts(chunk, frames).for_each(|(_, receipt)| receipt.note(fate));
    }

    /// The receipts of some frames, each with its frame.
    pub fn receipts(&self, chunk: u32, frames: Range<u32>) -> impl Iterator<Item = &(u32, Arc<Receipt>)> {
        let all = &self.chunks[chunk as usize].receipts;
        let from = all.partition_point(|(frame, _)| *frame < frames.start);
        all[from..].iter().take_while(move |(frame, _)| *frame < frames.end)
    }

    /// Of a span whose first `written` bytes are gone, written with a suffix of so many bytes in each frame (0: as they
    /// lie): how many frames are gone whole, and what is left of the next one where that is cut.
    pub fn split(&self, span: &Span, written: usize, suffix: usize) -> (u32, Option<&[u8]>) {
        let chunk = &self.chunks[span.chunk as usize];
        let frames = match suffix {
            0 => &chunk.frames,
            suffix => chunk.named.frames(suffix).unwrap_or(&chunk.frames),
        };
        let (whole, part) = frames.split(span.start..span.end, written);
        (whole, (part > 0).then(|| &frames.frame((span.start + whole) as usize)[part..]))
    }

    /// When a frame came in.
    pub fn ingress(&self, chunk: u32, frame: u32) -> u64 {
        let stamps = &self.chunks[chunk as usize].stamps;
        let after = stamps.partition_point(|(first, _)| *first <= frame);
        stamps[after.saturating_sub(1)].1 & !UNTIMED
    }

    /// Calls `each` with an ingress and how many of the frames `start..end` came in then. That of frames from a
    /// history is [`UNTIMED`].
    pub fn ingresses(&self, chunk: u32, start: u32, end: u32, mut each: impl FnMut(u64, u32)) {
        let stamps = &self.chunks[chunk as usize].stamps;
        let mut place = stamps.partition_point(|(first, _)| *first <= start).saturating_sub(1);
        let mut from = start;
        while from < end {
            let to = stamps.get(place + 1).map_or(end, |(first, _)| (*first).min(end));
            each(stamps[place].1, to - from);
            from = to;
            place += 1;
        }
    }

    /// Whether a span is small beside the chunk that it pins, so that copying it out frees memory.
    pub fn is_worth_copying(&self, span: &Span) -> bool {
        let chunk = &self.chunks[span.chunk as usize];
        chunk.owner == NO_OWNER && self.bytes(span).len() * 4 < chunk.frames.bytes.len()
    }

    /// Copies a span's frames into a chunk of their own and answers the span there. The old span is then to
    /// be released.
    pub fn copy_out(&mut self, span: &Span) -> Span {
        let source = &self.chunks[span.chunk as usize];
        let base = source.frames.offset(span.start);
        let mut frames =
            Frames { bytes: self.bytes(span).to_vec(), ends: Vec::with_capacity(span.frames() as usize) };
        let ends = &source.frames.ends[span.start as usize..span.end as usize];
        frames.ends.extend(ends.iter().map(|end| end - base as u32));
        let mut stamps = Vec::new();
        let mut first = 0;
        self.ingresses(span.chunk, span.start, span.end, |ingress, count| {
            stamps.push((first, ingress));
            first += count;
        });
        self.held += frames.bytes.capacity();
        let keys = &self.chunks[span.chunk as usize].keys;
        let keys = keys.get(span.start as usize..keys.len().min(span.end as usize));
        let keys = keys.map(<[u64]>::to_vec).unwrap_or_default();
        let receipts = self.receipts(span.chunk, span.start..span.end);
        let receipts = receipts.map(|(frame, receipt)| (frame - span.start, Arc::clone(receipt))).collect();
        let chunk = Chunk {
            frames,
            stamps,
            keys,
            receipts,
            spans: 1,
            owner: NO_OWNER,
            copied: Copied::default(),
            named: Named::default(),
        };
        let end = span.frames();
        Span { chunk: self.chunks.insert(chunk) as u32, start: 0, end, ..*span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(chunks: &mut Chunks, current: u32, frames: &[&str], ingress: u64) -> Appended {
        chunks.append(current, (1, 2), ingress, |bytes, ends| {
            for frame in frames {
                bytes.extend_from_slice(frame.as_bytes());
                ends.push(bytes.len() as u32);
            }
        })
    }

    fn span(appended: Appended) -> Span {
        Span { chunk: appended.chunk, start: appended.start, end: appended.end, ..Span::EMPTY }
    }

    #[test]
    fn a_chunk_grows_and_goes_with_its_last_span() {
        let mut chunks = Chunks::default();
        let first = append(&mut chunks, NO_CHUNK, &["ab", "c"], 10);
        chunks.retain(first.chunk, 2);
        let second = append(&mut chunks, first.chunk, &["def"], 20);
        assert_eq!((second.chunk, second.start, second.end), (first.chunk, 2, 3));
        assert_eq!(chunks.bytes(&span(first)), b"abc");
        let all = Span { end: 3, ..span(first) };
        assert_eq!(chunks.bytes(&all), b"abcdef");
        assert_eq!(chunks.split(&all, 0, 0), (0, None));
        assert_eq!(chunks.split(&all, 2, 0), (1, None));
        assert_eq!(chunks.split(&all, 4, 0), (2, Some(&b"ef"[..])));
        assert_eq!(chunks.split(&all, 6, 0), (3, None));
        let mut seen = Vec::new();
        chunks.ingresses(first.chunk, 1, 3, |ingress, count| seen.push((ingress, count)));
        assert_eq!(seen, [(10, 1), (20, 1)]);
        assert_eq!((chunks.ingress(first.chunk, 1), chunks.ingress(first.chunk, 2)), (10, 20));
        assert!(chunks.held() >= 6);
        chunks.release(first.chunk);
        assert_eq!(chunks.next_forgotten(), None);
        chunks.release(first.chunk);
        assert_eq!(chunks.next_forgotten(), Some(Forgotten { owner: (1, 2), chunk: first.chunk }));
        assert_eq!((chunks.held(), chunks.len()), (0, 0));
    }

    #[test]
    fn what_the_pool_keeps_for_nobody_is_given_back() {
        let mut chunks = Chunks::default();
        let many: Vec<_> = (0..100).map(|_| append(&mut chunks, NO_CHUNK, &["x"], 0).chunk).collect();
        for chunk in many {
            chunks.retain(chunk, 1);
            chunks.release(chunk);
        }
        assert_eq!(chunks.pooled(), 100);
        chunks.tidy();
        assert_eq!(chunks.pooled(), 100, "all of it was needed just now");
        chunks.tidy();
        assert_eq!(chunks.pooled(), 50);
        let again = append(&mut chunks, NO_CHUNK, &["x"], 0).chunk;
        chunks.retain(again, 1);
        chunks.release(again);
        for left in [25, 12, 6, 3, 1, 0, 0] {
            chunks.tidy();
            assert_eq!(chunks.pooled(), left);
        }
        let two = [NO_CHUNK; 2].map(|none| append(&mut chunks, none, &["x"], 0).chunk);
        for chunk in two {
            chunks.retain(chunk, 1);
            chunks.release(chunk);
        }
        let both = chunks.pooled_bytes();
        chunks.keep_beside(both);
        assert_eq!(chunks.pooled(), 2);
        chunks.keep_beside(both - 1);
        assert_eq!((chunks.pooled(), chunks.pooled_bytes()), (1, both / 2));
        chunks.keep_beside(0);
        assert_eq!(chunks.pool_bytes, 0);
    }

    #[test]
    fn frames_with_a_name_are_kept_for_many_and_go_with_the_chunk_or_when_memory_is_short() {
        let mut chunks = Chunks::default();
        // Text frames as a server writes them, of so many bytes and of one.
        let (large, small) = (format!("\u{1}~\u{20}\0{}", "x".repeat(COPIES_FROM_BYTES)), "\u{1}\u{1}x");
        for keep in [usize::MAX, 0] {
            let all = span(append(&mut chunks, NO_CHUNK, &[&large, small], 0));
            let little = Span { start: 1, ..all };
            chunks.retain(all.chunk, COPIES_FROM_SPANS - 1);
            assert_eq!(chunks.named(&all, b"me"), None, "few are owed it");
            chunks.retain(all.chunk, 1);
            assert_eq!(chunks.named(&little, b"me"), None, "it is little");
            let held = chunks.held();
            let named = chunks.named(&all, b"me").unwrap();
            assert!(named.ends_with(b"xme\x81\x02me"));
            assert_eq!(chunks.split(&all, COPIES_FROM_BYTES, 2), (0, Some(&b"xxxme"[..])));
            assert!(chunks.copied_bytes() > COPIES_FROM_BYTES && chunks.held() == held);
            chunks.keep_beside(keep);
            assert_eq!(chunks.copied_bytes() > 0, keep > 0);
            assert_eq!(chunks.named(&all, b"me").is_some(), keep > 0, "it is not built again and again");
            (0..COPIES_FROM_SPANS).for_each(|_| chunks.release(all.chunk));
            assert_eq!((chunks.copied_bytes(), chunks.held()), (0, 0));
        }
    }

    #[test]
    fn a_full_chunk_grows_no_more() {
        let mut chunks = Chunks::default();
        let big = "x".repeat(CHUNK_BYTES);
        let first = append(&mut chunks, NO_CHUNK, &[&big], 0);
        chunks.retain(first.chunk, 1);
        let second = append(&mut chunks, first.chunk, &["y"], 0);
        assert_ne!(first.chunk, second.chunk);
        chunks.release(first.chunk);
        assert_eq!(chunks.next_forgotten(), None, "nobody keeps it any more");
        assert_eq!(chunks.len(), 1);
    }

    #[test]
    fn a_copied_span_frees_the_chunk_it_pinned() {
        let mut chunks = Chunks::default();
        let big = "x".repeat(1000);
        let first = append(&mut chunks, NO_CHUNK, &[&big, "small", "er"], 5);
        chunks.retain(first.chunk, 1);
        let small = Span { start: 1, gap: Gap::dropped(3), droppable: true, ..span(first) };
        assert!(!chunks.is_worth_copying(&small), "it still grows");
        chunks.disown(first.chunk);
        assert!(chunks.is_worth_copying(&small));
        let copy = chunks.copy_out(&small);
        chunks.release(first.chunk);
        assert_eq!(chunks.bytes(&copy), b"smaller");
        assert_eq!((copy.gap, copy.droppable, copy.frames(), chunks.held()), (Gap::dropped(3), true, 2, 7));
        assert_eq!(chunks.ingress(copy.chunk, 1), 5);
        chunks.release(copy.chunk);
        assert!(chunks.is_empty());
    }
}
