//! What is owed on its way to the kernel: what one write takes, and what is left of it where the kernel cuts it.

use std::ops::Range;
use std::sync::Arc;

use super::{Entry, First, Outbox, REPLY_COST};
use crate::dialect::envelope::Private;
use crate::receipt::{Fate, Receipt};
use crate::session::chunk::{Chunks, Gap, Span};

/// Told what left the outbox for the kernel.
pub trait Progress {
    /// Frames `start..end` of `chunk` were handed over.
    fn delivered(&mut self, chunks: &Chunks, chunk: u32, start: u32, end: u32);
}

/// What a stretch of gathered bytes is.
#[derive(Debug)]
pub struct Mark {
    end: usize,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Gap,
    /// Frames as they are in the chunk.
    Frames,
    /// So many frames with something private put in, whole messages.
    Private(u32),
    Reply,
}

impl Outbox {
    /// The span that is to be written from where it lies: what nearly every write is. It is all there is, or the next and so
    /// large that it is not gathered with others.
    pub fn lone_span(&self, chunks: &Chunks) -> Option<&Span> {
        let span = match self.queue.as_ref().and_then(|queue| queue.front()) {
            None => &self.tail,
            Some(Entry::Span(span)) if chunks.is_for_many(span) => span,
            Some(_) => return None,
        };
        let is_lone = self.first.is_none() && !span.is_empty() && span.gap.is_none();
        is_lone.then_some(span)
    }

    /// `written` bytes of [`Outbox::lone_span`] are gone, which were written with a suffix of so many bytes in each frame
    /// (0: none). What is left of a frame partly written is kept apart, so that nothing ever cuts it.
    pub fn consume_lone(
        &mut self,
        written: usize,
        suffix: usize,
        chunks: &mut Chunks,
        progress: &mut impl Progress,
    ) {
        let (whole, rest) = chunks.split(self.head(), written, suffix);
        let begun = u32::from(rest.is_some());
        if let Some(rest) = rest {
            let cut = self.head_receipts(whole..whole + 1, chunks);
            self.first = Some(First::rest(rest.to_vec(), false, cut));
        }
        self.advance(whole, begun, chunks, progress);
    }

    /// What goes before everything else, and alone. Where that is nothing yet, a large reply whose turn it is.
    pub fn first(&mut self) -> Option<&[u8]> {
        let next = self.queue.as_ref().and_then(|queue| queue.front());
        if self.first.is_none()
            && next.is_some_and(Entry::is_large)
            && let Some(Entry::Reply(bytes)) = self.pop_front()
        {
            self.reply_bytes -= bytes.len() + REPLY_COST;
            self.first = Some(First::rest(bytes.into(), true, Vec::new()));
        }
        self.first.as_ref().map(|first| &first.bytes[first.at..])
    }

    /// `written` bytes of [`Outbox::first`] are gone.
    pub fn consume_first(&mut self, written: usize) {
        if let Some(first) = &mut self.first {
            first.at += written;
            if first.at >= first.rest {
                first.receipts.drain(..).for_each(|receipt| receipt.note(Fate::Written));
            }
            if first.at == first.bytes.len() {
                self.first = None;
            }
        }
    }

    /// Puts what waits behind [`Outbox::first`], in order, at the end of `out` until there are `limit` bytes or a span that is
    /// worth a write of its own, and what is what into `marks`. `private` is put around events; `gap` writes a notice of
    /// missing events of a topic.
    pub fn gather(
        &self,
        chunks: &Chunks,
        private: Private<'_>,
        limit: usize,
        mut gap: impl FnMut(&mut Vec<u8>, u32, Gap),
        out: &mut Vec<u8>,
        marks: &mut Vec<Mark>,
    ) {
        let tail = Entry::Span(self.tail);
        let tail = (!self.tail.is_empty()).then_some(&tail);
        for entry in self.queue.iter().flat_map(|queue| queue.iter()).chain(tail) {
            if out.len() >= limit || (entry.is_large() && !out.is_empty()) {
                return;
            }
            let span = match entry {
                Entry::Span(span) if !out.is_empty() && chunks.is_for_many(span) => return,
                Entry::Span(span) => span,
                Entry::Reply(bytes) => {
                    out.extend_from_slice(bytes);
                    marks.push(Mark { end: out.len(), what: What::Reply });
                    continue;
                }
            };
            if !span.gap.is_none() {
                gap(out, span.topic, span.gap);
                marks.push(Mark { end: out.len(), what: What::Gap });
            }
            if matches!(private, Private::Nothing) {
                out.extend_from_slice(chunks.bytes(span));
                marks.push(Mark { end: out.len(), what: What::Frames });
                continue;
            }
            let mut start = span.start;
            while start < span.end {
                let frames =
                    |run: Range<u32>| chunks.bytes(&Span { start: run.start, end: run.end, ..*span });
                let count = private.write(start..span.end, frames, limit, out);
                marks.push(Mark { end: out.len(), what: What::Private(count) });
                start += count;
                if out.len() >= limit {
                    return;
                }
            }
        }
    }

    /// The first `written` of the bytes gathered are gone. `private` is what they were gathered with.
    pub fn consume(
        &mut self,
        (gathered, private): (&[u8], Private<'_>),
        marks: &[Mark],
        written: usize,
        chunks: &mut Chunks,
        progress: &mut impl Progress,
    ) {
        let mut from = 0;
        for mark in marks {
            if written <= from {
                return;
            }
            let is_done = written >= mark.end;
            // Where the piece is cut: its rest goes out before all else.
            let mut piece_end = mark.end;
            let mut receipts = Vec::new();
            match mark.what {
                What::Gap => self.head().gap = Gap::NONE,
                What::Private(count) if is_done => self.advance(count, 0, chunks, progress),
                What::Private(count) => {
                    let cut = private.cut(&gathered[from..mark.end], written - from, count);
                    piece_end = from + cut.end;
                    receipts = self.head_receipts(cut.whole..cut.whole + cut.begun, chunks);
                    self.advance(cut.whole, cut.begun, chunks, progress);
                }
                What::Reply => self.pop_reply(),
                What::Frames => {
                    let span = *self.head();
                    let (whole, rest) = chunks.split(&span, written.min(mark.end) - from, 0);
                    let gone = whole + u32::from(rest.is_some());
                    piece_end = from + chunks.frames_len(span.chunk, span.start, span.start + gone);
                    receipts = self.head_receipts(whole..gone, chunks);
                    self.advance(whole, gone - whole, chunks, progress);
                }
            }
            if !is_done {
                if written < piece_end {
                    let rest = gathered[written..piece_end].to_vec();
                    self.first = Some(First::rest(rest, mark.what == What::Reply, receipts));
                }
                return;
            }
            from = mark.end;
        }
    }

    /// The oldest span.
    fn head(&mut self) -> &mut Span {
        match self.queue.as_mut().and_then(|queue| queue.front_mut()) {
            Some(Entry::Span(span)) => span,
            _ => &mut self.tail,
        }
    }

    /// The receipts of some of the oldest span's frames, counted from its first.
    fn head_receipts(&mut self, frames: Range<u32>, chunks: &Chunks) -> Vec<Arc<Receipt>> {
        let Span { chunk, start, .. } = *self.head();
        let receipts = chunks.receipts(chunk, start + frames.start..start + frames.end);
        receipts.map(|(_, receipt)| Arc::clone(receipt)).collect()
    }

    fn pop_reply(&mut self) {
        if let Some(Entry::Reply(bytes)) = self.pop_front() {
            self.reply_bytes -= bytes.len() + REPLY_COST;
        }
    }

    fn pop_front(&mut self) -> Option<Entry> {
        let queue = self.queue.as_mut()?;
        let entry = queue.pop_front();
        if queue.is_empty() {
            // Idle connections cost nearly nothing.
            self.queue = None;
        }
        entry
    }

    /// The first `whole` frames of the oldest span are gone, and something of `begun` more.
    fn advance(&mut self, whole: u32, begun: u32, chunks: &mut Chunks, progress: &mut impl Progress) {
        let frames = whole + begun;
        if frames == 0 {
            return;
        }
        let span = self.head();
        let (chunk, start, end) = (span.chunk, span.start, span.start + frames);
        chunks.note(chunk, start..start + whole, Fate::Written);
        span.start = end;
        let is_done = span.start == span.end;
        progress.delivered(chunks, chunk, start, end);
        self.events -= frames;
        self.bytes -= chunks.frames_len(chunk, start, end);
        if is_done {
            match &self.queue {
                Some(_) => drop(self.pop_front()),
                None => self.tail = Span::EMPTY,
            }
            chunks.release(chunk);
        }
    }
}
