//! The outbox: what one client is still owed, as spans of shared frames.
//!
//! `push` never blocks and never closes. The next frames of the same chunk extend the span that is there: two
//! stores, no allocation. Bytes of the client's own stand in two places: `first` goes before everything (the
//! rest of a frame that was partly written, then control frames: no flood of events can take its place), and
//! replies stand in line with the events around them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::dialect::envelope::Private;
use crate::receipt::{Fate, Receipt};
use crate::session::chunk::{Chunks, Gap, Span};

/// The topic of a span whose subscription is gone.
const NO_TOPIC: u32 = u32::MAX;

/// How much a client whose socket takes no more may be owed.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Events.
    pub events: u32,
    /// Bytes of their frames.
    pub bytes: usize,
}

/// One client's bounded queue.
#[derive(Debug)]
pub struct Outbox {
    /// The newest span, which the next frames may extend.
    tail: Span,
    /// What goes before the tail.
    queue: Option<Box<VecDeque<Entry>>>,
    /// What goes before the queue.
    first: Option<Box<First>>,
    events: u32,
    bytes: usize,
    reply_bytes: usize,
    blocked: bool,
}

#[derive(Debug)]
enum Entry {
    Span(Span),
    Reply(Box<[u8]>),
}

impl Entry {
    fn is_large(&self) -> bool {
        matches!(self, Self::Reply(bytes) if bytes.len() > LARGE_REPLY)
    }
}

#[derive(Debug, Default)]
struct First {
    bytes: Vec<u8>,
    at: usize,
    /// Up to here it is the rest of a frame partly written; behind that are control frames.
    rest: usize,
    /// Whether that frame is a reply.
    is_reply: bool,
    /// Where it is an event's: the receipts to count up once all of it is gone.
    receipts: Vec<Arc<Receipt>>,
}

impl First {
    fn rest(bytes: Vec<u8>, is_reply: bool, receipts: Vec<Arc<Receipt>>) -> Box<Self> {
        Box::new(Self { rest: bytes.len(), bytes, at: 0, is_reply, receipts })
    }
}

/// A reply of more bytes is written alone, from where it lies: gathered with others, it would be copied.
const LARGE_REPLY: usize = 64 << 10;

/// What a reply takes beside its bytes: its place in the queue and an allocation.
const REPLY_COST: usize = 64;

/// Told what left the outbox for the kernel.
pub trait Progress {
    /// Frames `start..end` of `chunk` were handed over.
    fn delivered(&mut self, chunks: &Chunks, chunk: u32, start: u32, end: u32);
}

/// An event that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The shard's number of the topic that it came through.
    pub topic: u32,
    /// How many events of that topic are missing there with no span of it behind them to carry the count:
    /// the subscription keeps it. None where a span carries it.
    pub pending_gap: Gap,
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
    /// An empty outbox.
    pub const fn new() -> Self {
        Self {
            tail: Span::EMPTY,
            queue: None,
            first: None,
            events: 0,
            bytes: 0,
            reply_bytes: 0,
            blocked: false,
        }
    }

    /// Events waiting.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Bytes of the frames of those.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that wait in all: of events, of a frame partly written, of replies and what they take beside.
    pub fn owed_bytes(&self) -> usize {
        self.bytes + self.reply_bytes + self.first.as_ref().map_or(0, |first| first.bytes.len() - first.at)
    }

    /// Bytes that are this client's alone.
    pub fn private_bytes(&self) -> usize {
        self.reply_bytes + self.first.as_ref().map_or(0, |first| first.bytes.len())
    }

    /// Whether control frames wait that have not gone out.
    pub fn has_control(&self) -> bool {
        self.first.as_ref().is_some_and(|first| first.bytes.len() > first.at.max(first.rest))
    }

    /// Bytes of replies to the client's own messages that wait, what is left of one partly written too, and what
    /// they take beside.
    pub fn reply_bytes(&self) -> usize {
        let begun = self.first.as_ref().filter(|first| first.is_reply);
        self.reply_bytes + begun.map_or(0, |first| first.rest.saturating_sub(first.at))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.queue.is_none() && self.first.is_none()
    }

    /// Whether the socket refused the last write. Only such a client is held to its bound: what the others
    /// are owed is bounded by when publishers are read.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Notes that the socket refused a write, or takes again.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// Whether `events` more of `bytes` in all may be pushed. An outbox without events takes one of any size.
    pub fn has_room(&self, events: u32, bytes: usize, bound: Bound) -> bool {
        !self.blocked
            || (self.events + events <= bound.events
                && (self.bytes + bytes <= bound.bytes || (self.events == 0 && events == 1)))
    }

    /// Adds frames of `bytes` in all. Answers whether they are a span of their own, which the caller then
    /// counts with [`Chunks::retain`].
    pub fn push(&mut self, span: Span, bytes: usize, chunks: &mut Chunks) -> bool {
        self.events += span.frames();
        self.bytes += bytes;
        let tail = &mut self.tail;
        if tail.chunk == span.chunk
            && tail.end == span.start
            && tail.topic == span.topic
            && tail.droppable == span.droppable
            && span.gap.is_none()
        {
            tail.end = span.end;
            return false;
        }
        self.enqueue_tail(chunks);
        self.tail = span;
        true
    }

    /// Adds bytes that stand in line with the events around them.
    pub fn push_reply(&mut self, bytes: Vec<u8>, chunks: &mut Chunks) {
        self.enqueue_tail(chunks);
        self.reply_bytes += bytes.len() + REPLY_COST;
        self.queue.get_or_insert_default().push_back(Entry::Reply(bytes.into()));
    }

    /// Adds control frames, which go before everything but the rest of a frame partly written.
    pub fn push_first(&mut self, bytes: &[u8]) {
        self.first.get_or_insert_default().bytes.extend_from_slice(bytes);
    }

    fn enqueue_tail(&mut self, chunks: &mut Chunks) {
        if self.tail.is_empty() {
            return;
        }
        let mut span = std::mem::replace(&mut self.tail, Span::EMPTY);
        if self.blocked {
            copy_out(&mut span, chunks);
        }
        self.queue.get_or_insert_default().push_back(Entry::Span(span));
    }

    /// `chunk` grows no more. Small spans of it that this blocked client is owed are copied out, so that they
    /// do not keep it.
    pub fn unpin(&mut self, chunk: u32, chunks: &mut Chunks) {
        let queued = self.queue.iter_mut().flat_map(|queue| queue.iter_mut());
        let queued = queued.filter_map(|entry| match entry {
            Entry::Span(span) => Some(span),
            Entry::Reply(_) => None,
        });
        for span in queued.chain([&mut self.tail]).filter(|span| span.chunk == chunk) {
            copy_out(span, chunks);
        }
    }

    /// When the oldest event that waits came in.
    pub fn oldest(&self, chunks: &Chunks) -> Option<u64> {
        self.spans().next().map(|span| chunks.ingress(span.chunk, span.start))
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        let queued = self.queue.iter().flat_map(|queue| queue.iter()).filter_map(|entry| match entry {
            Entry::Span(span) => Some(span),
            Entry::Reply(_) => None,
        });
        queued.chain((!self.tail.is_empty()).then_some(&self.tail))
    }

    /// Leaves out the oldest event of a subscription that allows it, or answers `None` where there is none.
    /// The count of what is missing goes to the next span of that topic.
    pub fn drop_oldest(&mut self, chunks: &mut Chunks) -> Option<Dropped> {
        let (place, span) = self.places().find(|(_, span)| span.droppable)?;
        Some(self.drop_frame(place, span, span.start, Gap::dropped(1), chunks))
    }

    /// Leaves out the oldest event of a topic with this key (a hash), as [`Outbox::drop_oldest`] does.
    pub fn drop_key(&mut self, topic: u32, key: u64, chunks: &mut Chunks) -> Option<Dropped> {
        let (place, span, frame) = self.places().find_map(|(place, span)| {
            let mut frames = span.start..span.end;
            let frame = frames.find(|frame| chunks.key(span.chunk, *frame) == key);
            (span.droppable && span.topic == topic).then_some((place, span, frame?))
        })?;
        Some(self.drop_frame(place, span, frame, Gap::CONFLATED, chunks))
    }

    /// Every span with its place in the queue; that of the tail is one behind the queue's last.
    fn places(&self) -> impl Iterator<Item = (usize, Span)> {
        let queued = self.queue.iter().flat_map(|queue| queue.iter()).enumerate();
        let queued = queued.filter_map(|(place, entry)| match entry {
            Entry::Span(span) => Some((place, *span)),
            Entry::Reply(_) => None,
        });
        queued.chain((!self.tail.is_empty()).then_some((self.queued(), self.tail)))
    }

    fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    /// The span at a place.
    fn at(&mut self, place: usize) -> &mut Span {
        match self.queue.as_mut().and_then(|queue| queue.get_mut(place)) {
            Some(Entry::Span(span)) => span,
            _ => &mut self.tail,
        }
    }

    /// Takes one frame out of a span.
    fn drop_frame(&mut self, place: usize, span: Span, frame: u32, gap: Gap, chunks: &mut Chunks) -> Dropped {
        self.events -= 1;
        self.bytes -= chunks.frames_len(span.chunk, frame, frame + 1);
        chunks.note(span.chunk, frame..frame + 1, Fate::LeftOut);
        let topic = span.topic;
        let mut behind = Span { start: frame + 1, gap, ..span };
        let before = Span { end: frame, ..span };
        match (before.is_empty_run(), behind.is_empty_run()) {
            (true, true) => {
                behind.gap += span.gap;
                self.remove(place);
                chunks.release(span.chunk);
            }
            (true, false) => {
                behind.gap += span.gap;
                *self.at(place) = behind;
                return Dropped { topic, pending_gap: Gap::NONE };
            }
            (false, true) => *self.at(place) = before,
            (false, false) => {
                *self.at(place) = behind;
                self.queue.get_or_insert_default().insert(place, Entry::Span(before));
                chunks.retain(span.chunk, 1);
                return Dropped { topic, pending_gap: Gap::NONE };
            }
        }
        // The next span of the topic carries the count, if there is one.
        let after = if before.is_empty_run() { place } else { place + 1 };
        let heir = self.places().find(|(other, heir)| *other >= after && heir.topic == topic);
        match heir {
            Some((heir, _)) => {
                self.at(heir).gap += behind.gap;
                Dropped { topic, pending_gap: Gap::NONE }
            }
            None => Dropped { topic, pending_gap: behind.gap },
        }
    }

    /// Takes out a span that has no frames left.
    fn remove(&mut self, place: usize) {
        match &mut self.queue {
            Some(queue) if place < queue.len() => {
                queue.remove(place);
                if queue.is_empty() {
                    self.queue = None;
                }
            }
            _ => self.tail = Span::EMPTY,
        }
    }

    /// The client leaves a topic whose number may soon be another's. Its spans stay in line, but can be left
    /// out no more, and the notices they carry are written now.
    pub fn settle_topic(&mut self, topic: u32, mut gap: impl FnMut(&mut Vec<u8>, Gap)) {
        if !self.spans().any(|span| span.topic == topic) {
            return;
        }
        let mut settled = VecDeque::new();
        let mut settle = |mut span: Span, settled: &mut VecDeque<Entry>| {
            if span.topic == topic {
                if !span.gap.is_none() {
                    let mut notice = Vec::new();
                    gap(&mut notice, span.gap);
                    self.reply_bytes += notice.len() + REPLY_COST;
                    settled.push_back(Entry::Reply(notice.into()));
                }
                span = Span { topic: NO_TOPIC, gap: Gap::NONE, droppable: false, ..span };
            }
            span
        };
        for entry in self.queue.take().map(|queue| *queue).unwrap_or_default() {
            let entry = match entry {
                Entry::Span(span) => Entry::Span(settle(span, &mut settled)),
                reply @ Entry::Reply(_) => reply,
            };
            settled.push_back(entry);
        }
        if !self.tail.is_empty() {
            self.tail = settle(self.tail, &mut settled);
        }
        if !settled.is_empty() {
            self.queue = Some(Box::new(settled));
        }
    }

    /// Throws away all but the rest of a frame partly written and control frames. Answers how many events
    /// went; their receipts are told that `fate` is what became of them.
    pub fn discard(&mut self, fate: Fate, chunks: &mut Chunks) -> u32 {
        self.keep_replies(0, fate, chunks)
    }

    /// The same, but the replies that stand before the first event are kept too. Not those behind it: whoever got
    /// one would think that nothing is missing before it.
    pub fn discard_from_event(&mut self, fate: Fate, chunks: &mut Chunks) -> u32 {
        let mut queue = self.queue.iter().flat_map(|queue| queue.iter());
        let kept = queue.position(|entry| matches!(entry, Entry::Span(_)));
        self.keep_replies(kept.unwrap_or(usize::MAX), fate, chunks)
    }

    /// Throws away what stands behind the first `kept` entries, all of them replies. Answers how many events went.
    fn keep_replies(&mut self, kept: usize, fate: Fate, chunks: &mut Chunks) -> u32 {
        for span in self.spans() {
            chunks.note(span.chunk, span.start..span.end, fate);
            chunks.release(span.chunk);
        }
        // Nobody waits for the rest of a frame that was begun.
        let begun = self.first.as_mut().map(|first| std::mem::take(&mut first.receipts));
        begun.unwrap_or_default().iter().for_each(|receipt| receipt.note(fate));
        self.tail = Span::EMPTY;
        if let Some(queue) = &mut self.queue {
            let gone = queue.drain(kept.min(queue.len())..);
            let replies = gone.map(|entry| match entry {
                Entry::Reply(bytes) => bytes.len() + REPLY_COST,
                Entry::Span(_) => 0,
            });
            self.reply_bytes -= replies.sum::<usize>();
        }
        self.queue = self.queue.take().filter(|queue| !queue.is_empty());
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }

    /// The span that is all there is, to be written from where it lies: what nearly every write is.
    pub fn single_span(&self) -> Option<&Span> {
        let single =
            self.first.is_none() && self.queue.is_none() && !self.tail.is_empty() && self.tail.gap.is_none();
        single.then_some(&self.tail)
    }

    /// `written` bytes of [`Outbox::single_span`] are gone. What is left of a frame partly written is kept
    /// apart, so that nothing ever cuts it.
    pub fn consume_single(&mut self, written: usize, chunks: &mut Chunks, progress: &mut impl Progress) {
        let (whole, part) = chunks.split(&self.tail, written);
        if part > 0 {
            let rest = &chunks.frame(self.tail.chunk, self.tail.start + whole)[part..];
            let cut = chunks.receipts(self.tail.chunk, self.tail.start + whole..self.tail.start + whole + 1);
            let receipts = cut.map(|(_, receipt)| Arc::clone(receipt)).collect();
            self.first = Some(First::rest(rest.to_vec(), false, receipts));
        }
        self.advance(whole, u32::from(part > 0), chunks, progress);
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

    /// Puts what waits behind [`Outbox::first`], in order, at the end of `out` until there are `limit` bytes, and what is what into
    /// `marks`. `private` is put around events; `gap` writes a notice of missing events of a topic.
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
                    let (whole, part) = chunks.split(&span, written.min(mark.end) - from);
                    let gone = whole + u32::from(part > 0);
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

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

fn copy_out(span: &mut Span, chunks: &mut Chunks) {
    if chunks.is_worth_copying(span) {
        let copy = chunks.copy_out(span);
        chunks.release(span.chunk);
        *span = copy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{Asker, Expected, Key};
    use crate::session::chunk::NO_CHUNK;

    #[derive(Default)]
    struct Count(u32);

    impl Progress for Count {
        fn delivered(&mut self, _: &Chunks, _: u32, start: u32, end: u32) {
            self.0 += end - start;
        }
    }

    const BOUND: Bound = Bound { events: 4, bytes: 100 };

    struct Fixture {
        chunks: Chunks,
        outbox: Outbox,
        growing: [u32; 3],
        sent: Vec<u8>,
        delivered: Count,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                chunks: Chunks::default(),
                outbox: Outbox::new(),
                growing: [NO_CHUNK; 3],
                sent: Vec::new(),
                delivered: Count::default(),
            }
        }

        /// Pushes one frame `topic:payload;` of a topic.
        fn push(&mut self, topic: u32, payload: &str, droppable: bool, gap: u32) {
            while let Some(forgotten) = self.chunks.next_forgotten() {
                self.growing[forgotten.owner.0 as usize] = NO_CHUNK;
            }
            let frame = format!("{topic}{payload};");
            let appended = self.chunks.append(self.growing[topic as usize], (topic, 0), 0, |bytes, ends| {
                bytes.extend_from_slice(frame.as_bytes());
                ends.push(bytes.len() as u32);
            });
            self.growing[topic as usize] = appended.chunk;
            let span = Span {
                chunk: appended.chunk,
                start: appended.start,
                end: appended.end,
                topic,
                gap: Gap::dropped(gap),
                droppable,
            };
            if self.outbox.push(span, frame.len(), &mut self.chunks) {
                self.chunks.retain(appended.chunk, 1);
            }
        }

        /// Writes at most `limit` bytes as a flush would.
        fn write(&mut self, limit: usize) {
            if let Some(first) = self.outbox.first() {
                let n = first.len().min(limit);
                self.sent.extend_from_slice(&first[..n]);
                self.outbox.consume_first(n);
                return;
            }
            if let Some(span) = self.outbox.single_span() {
                let bytes = self.chunks.bytes(span);
                let n = bytes.len().min(limit);
                self.sent.extend_from_slice(&bytes[..n]);
                self.outbox.consume_single(n, &mut self.chunks, &mut self.delivered);
                return;
            }
            let (mut out, mut marks) = (Vec::new(), Vec::new());
            let gap = |out: &mut Vec<u8>, topic: u32, gap: Gap| {
                let Gap { dropped, conflated } = gap;
                let conflated = if conflated > 0 { format!(" ({conflated})") } else { String::new() };
                out.extend_from_slice(format!("<{topic} lost {dropped}{conflated}>").as_bytes());
            };
            self.outbox.gather(&self.chunks, Private::Nothing, 1 << 20, gap, &mut out, &mut marks);
            let n = out.len().min(limit);
            self.sent.extend_from_slice(&out[..n]);
            self.outbox.consume((&out, Private::Nothing), &marks, n, &mut self.chunks, &mut self.delivered);
        }

        fn drain(&mut self, limit: usize) -> String {
            while !self.outbox.is_empty() {
                self.write(limit);
            }
            assert_eq!((self.outbox.events(), self.outbox.bytes()), (0, 0));
            assert_eq!(self.outbox.private_bytes(), 0);
            assert!(self.chunks.is_empty(), "nothing is pinned");
            String::from_utf8(std::mem::take(&mut self.sent)).unwrap()
        }
    }

    #[test]
    fn frames_replies_and_control_come_out_in_order_however_writes_are_cut() {
        for limit in 1..40 {
            let mut f = Fixture::new();
            f.push(0, "a", false, 0);
            f.push(0, "b", false, 0);
            f.push(1, "c", true, 7);
            f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
            f.push(0, "d", false, 0);
            assert_eq!(f.outbox.events(), 4);
            assert_eq!(f.drain(limit), "0a;0b;<1 lost 7>1c;[ack]0d;", "limit {limit}");
            assert_eq!(f.delivered.0, 4);
        }
    }

    #[test]
    fn control_goes_first_but_never_into_a_frame() {
        let mut f = Fixture::new();
        f.push(0, "abc", false, 0);
        f.push(0, "def", false, 0);
        f.write(2);
        f.outbox.push_first(b"!ping!");
        f.write(1);
        f.outbox.push_first(b"!pong!");
        assert_eq!(f.drain(3), "0abc;!ping!!pong!0def;");
    }

    #[test]
    fn only_a_blocked_outbox_is_bounded_and_an_empty_one_takes_any_event() {
        let mut f = Fixture::new();
        assert!(f.outbox.has_room(1000, 1 << 30, BOUND));
        f.outbox.set_blocked(true);
        assert!(f.outbox.has_room(1, 1 << 30, BOUND));
        assert!(!f.outbox.has_room(2, 101, BOUND));
        assert!(f.outbox.has_room(4, 100, BOUND));
        f.push(0, "a", false, 0);
        assert!(!f.outbox.has_room(4, 10, BOUND));
        assert!(!f.outbox.has_room(1, 98, BOUND));
        f.outbox.set_blocked(false);
        assert_eq!(f.drain(100), "0a;");
    }

    #[test]
    fn dropping_takes_the_oldest_that_may_go_and_counts_it_where_it_was() {
        let mut f = Fixture::new();
        f.push(0, "a", false, 0);
        f.push(1, "b", true, 0);
        f.push(1, "c", true, 0);
        f.push(0, "d", false, 0);
        f.push(1, "e", true, 0);
        let dropped = |topic, gap| Some(Dropped { topic, pending_gap: Gap::dropped(gap) });
        assert_eq!(f.outbox.drop_oldest(&mut f.chunks), dropped(1, 0));
        assert_eq!(f.outbox.drop_oldest(&mut f.chunks), dropped(1, 0), "the span with `e` carries it");
        assert_eq!(f.outbox.events(), 3);
        let mut g = Fixture::new();
        std::mem::swap(&mut f, &mut g);
        assert_eq!(g.drain(4), "0a;0d;<1 lost 2>1e;");
        g.push(1, "x", true, 0);
        assert_eq!(g.outbox.drop_oldest(&mut g.chunks), dropped(1, 1), "nothing left to carry it");
        assert_eq!(g.outbox.drop_oldest(&mut g.chunks), None);
        assert!(g.outbox.is_empty() && g.chunks.is_empty());
    }

    #[test]
    fn the_older_event_of_a_key_goes_wherever_it_stands() {
        // Each letter is an event of topic 1 with that key; `|` begins another span.
        for (queued, key, expected) in [
            ("abc", 'a', "<1 lost 1 (1)>1b;1c;"),
            ("abc", 'b', "1a;<1 lost 1 (1)>1c;"),
            ("abc", 'c', "1a;1b;"),
            ("aab", 'a', "<1 lost 1 (1)>1a;1b;"),
            ("a|b|c", 'a', "0-;<1 lost 1 (1)>1b;0-;1c;"),
            ("a|bcd|e", 'c', "1a;0-;1b;<1 lost 1 (1)>1d;0-;1e;"),
            ("a|bc|d", 'c', "1a;0-;1b;0-;<1 lost 1 (1)>1d;"),
            ("a|b", 'b', "1a;0-;"),
        ] {
            let mut f = Fixture::new();
            for c in queued.chars() {
                if c == '|' {
                    f.push(0, "-", false, 0);
                    continue;
                }
                f.push(1, &c.to_string(), true, 0);
                let tail = f.outbox.tail;
                f.chunks.set_keys(tail.chunk, tail.end - 1, [c as u64].into_iter());
            }
            assert_eq!(f.outbox.drop_key(0, u64::from(u32::from(key)), &mut f.chunks), None);
            assert_eq!(f.outbox.drop_key(1, 7, &mut f.chunks), None);
            let dropped = f.outbox.drop_key(1, u64::from(u32::from(key)), &mut f.chunks).unwrap();
            let is_last = queued.ends_with(key);
            assert_eq!(dropped.pending_gap.is_none(), !is_last, "{queued} {key}");
            assert_eq!(f.drain(3), expected, "{queued} {key}");
        }
    }

    #[test]
    fn a_frame_partly_written_is_never_dropped() {
        let mut f = Fixture::new();
        f.push(1, "abc", true, 0);
        f.push(1, "def", true, 0);
        f.write(2);
        assert_eq!(
            f.outbox.drop_oldest(&mut f.chunks),
            Some(Dropped { topic: 1, pending_gap: Gap::dropped(1) })
        );
        assert_eq!(f.outbox.drop_oldest(&mut f.chunks), None);
        assert_eq!(f.drain(100), "1abc;");
    }

    #[test]
    fn events_of_a_topic_that_was_left_still_come_with_their_gap() {
        let mut f = Fixture::new();
        for (topic, payload) in [(1, "a"), (1, "b"), (0, "c"), (1, "d"), (1, "e")] {
            f.push(topic, payload, true, 0);
        }
        assert!(f.outbox.drop_oldest(&mut f.chunks).is_some());
        f.outbox
            .settle_topic(1, |out, gap| out.extend_from_slice(format!("<left {}>", gap.dropped).as_bytes()));
        assert_eq!(
            f.outbox.drop_oldest(&mut f.chunks),
            Some(Dropped { topic: 0, pending_gap: Gap::dropped(1) })
        );
        assert_eq!(f.outbox.drop_oldest(&mut f.chunks), None);
        f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
        assert_eq!(f.drain(100), "<left 1>1b;1d;1e;[ack]");
    }

    #[test]
    fn discarding_keeps_only_what_was_begun() {
        let mut f = Fixture::new();
        f.push(0, "abc", false, 0);
        f.push(1, "d", false, 0);
        f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
        f.write(2);
        assert_eq!(f.outbox.discard(Fate::Gone, &mut f.chunks), 1);
        f.outbox.push_first(b"close");
        assert_eq!(f.drain(100), "0abc;close");
    }

    #[test]
    fn replies_before_the_first_event_can_be_kept() {
        let mut f = Fixture::new();
        f.push(0, "abc", false, 0);
        f.write(2);
        f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
        f.outbox.push_reply(b"[pong]".to_vec(), &mut f.chunks);
        f.push(0, "d", false, 0);
        f.outbox.push_reply(b"[left]".to_vec(), &mut f.chunks);
        f.push(1, "e", false, 3);
        assert_eq!(f.outbox.discard_from_event(Fate::Gone, &mut f.chunks), 2);
        f.outbox.push_reply(b"close".to_vec(), &mut f.chunks);
        assert_eq!(f.drain(4), "0abc;[ack][pong]close");
        f.push(0, "a", false, 0);
        assert_eq!((f.outbox.discard_from_event(Fate::Gone, &mut f.chunks), &*f.drain(4)), (1, ""));
    }

    #[test]
    fn a_large_reply_goes_alone_and_counts_until_its_last_byte() {
        let mut f = Fixture::new();
        let large = vec![b'x'; LARGE_REPLY + 1];
        f.push(0, "a", false, 0);
        f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
        f.outbox.push_reply(large.clone(), &mut f.chunks);
        f.push(0, "b", false, 0);
        f.write(1 << 20);
        assert_eq!(f.sent, b"0a;[ack]");
        assert_eq!(f.outbox.reply_bytes(), large.len() + REPLY_COST);
        f.write(10);
        assert_eq!(f.outbox.reply_bytes(), large.len() - 10);
        f.outbox.push_first(b"!ping!");
        f.write(large.len() - 11);
        assert_eq!(f.outbox.reply_bytes(), 1);
        f.write(1);
        assert_eq!(f.outbox.reply_bytes(), 0);
        f.sent.clear();
        assert_eq!(f.drain(100), "!ping!0b;");
    }

    #[test]
    fn a_blocked_client_pins_no_more_than_it_is_owed() {
        let mut f = Fixture::new();
        f.outbox.set_blocked(true);
        f.push(0, "small", false, 0);
        let pinned = f.growing[0];
        f.chunks.append(pinned, (0, 0), 0, |bytes, ends| {
            bytes.resize(1000, b'x');
            ends.push(1000);
        });
        f.chunks.disown(pinned);
        assert!(f.chunks.held() >= 1000);
        f.outbox.unpin(pinned, &mut f.chunks);
        assert_eq!(f.chunks.held(), 7);
        assert_eq!(f.drain(100), "0small;");
    }

    #[test]
    fn receipts_are_told_what_became_of_their_events() {
        let asker = Asker { shard: 0, key: Key { number: 0, generation: 0 } };
        for limit in 1..3 {
            let mut f = Fixture::new();
            f.outbox.set_blocked(true);
            let receipts: Vec<_> = (0..5).map(|n| Receipt::new(asker, n)).collect();
            for (payload, receipt) in ["aaa", "bbb", "ccc", "ddd", "eee"].iter().zip(&receipts) {
                f.push(1, payload, true, 0);
                let tail = f.outbox.tail;
                let expected = Expected { place: 0, receipt: Arc::clone(receipt) };
                f.chunks.set_receipts(tail.chunk, tail.end - 1, &[expected]);
                receipt.add_matched(1);
                if *payload == "ccc" {
                    // Behind a reply it is a span of its own, copied out of the chunk when that grows no more.
                    f.outbox.push_reply(b"[ack]".to_vec(), &mut f.chunks);
                }
            }
            let growing = f.growing[1];
            f.chunks.disown(growing);
            f.outbox.unpin(growing, &mut f.chunks);
            f.outbox.drop_oldest(&mut f.chunks);
            let reached = |n: usize| {
                let reach = receipts[n].reach();
                [reach.written, reach.queued, reach.left_out, reach.closed]
            };
            assert_eq!((reached(0), reached(1)), ([0, 0, 1, 0], [0, 1, 0, 0]));
            f.outbox.set_blocked(false);
            while !f.sent.ends_with(b"1cc") && !f.sent.ends_with(b"1ccc;") {
                f.write(limit.min(1 + f.sent.len() % 2));
            }
            let is_whole = f.sent.ends_with(b";");
            let of_third = if is_whole { [1, 0, 0, 0] } else { [0, 1, 0, 0] };
            assert_eq!((reached(1), reached(2)), ([1, 0, 0, 0], of_third), "limit {limit}");
            f.outbox.discard(Fate::Closed, &mut f.chunks);
            assert_eq!((reached(3), reached(4)), ([0, 0, 0, 1], [0, 0, 0, 1]));
            assert_eq!(
                reached(2),
                if is_whole { of_third } else { [0, 0, 0, 1] },
                "nobody waits for its rest"
            );
            f.drain(limit);
        }
    }

    #[test]
    fn an_outbox_is_small() {
        assert!(size_of::<Outbox>() <= 72, "{} bytes", size_of::<Outbox>());
    }
}
