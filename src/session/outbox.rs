//! The outbox: what one client is still owed, as spans of shared frames.
//!
//! `push` never blocks and never closes. The next frames of the same chunk extend the span that is there: two
//! stores, no allocation. Bytes of the client's own stand in two places: `first` goes before everything (the
//! rest of a frame that was partly written, then control frames: no flood of events can take its place), and
//! replies stand in line with the events around them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::receipt::{Fate, Receipt};
use crate::session::chunk::{Chunks, Gap, Span};

mod leaving;

pub use leaving::{Mark, Progress};

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

/// An event that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The shard's number of the topic that it came through.
    pub topic: u32,
    /// How many events of that topic are missing there with no span of it behind them to carry the count:
    /// the subscription keeps it. None where a span carries it.
    pub pending_gap: Gap,
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

    /// Leaves out the newest event that came through a topic of which that may be, or answers `None` where there is
    /// none. The count of what is missing goes to the next span of that topic.
    pub fn drop_newest(&mut self, may_go: impl Fn(u32) -> bool, chunks: &mut Chunks) -> Option<Dropped> {
        let queued = self.queue.iter().flat_map(|queue| queue.iter().enumerate().rev());
        let queued = queued.filter_map(|(place, entry)| match entry {
            Entry::Span(span) => Some((place, *span)),
            Entry::Reply(_) => None,
        });
        let tail = (!self.tail.is_empty()).then_some((self.queued(), self.tail));
        let (place, span) = tail.into_iter().chain(queued).find(|(_, span)| may_go(span.topic))?;
        Some(self.drop_frame(place, span, span.end - 1, Gap::dropped(1), chunks))
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
        self.places_from(0)
    }

    fn places_from(&self, first: usize) -> impl Iterator<Item = (usize, Span)> {
        let queued = self.queue.iter().flat_map(move |queue| queue.iter().enumerate().skip(first));
        let queued = queued.filter_map(|(place, entry)| match entry {
            Entry::Span(span) => Some((place, *span)),
            Entry::Reply(_) => None,
        });
        let has_tail = !self.tail.is_empty() && self.queued() >= first;
        queued.chain(has_tail.then_some((self.queued(), self.tail)))
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
        let heir = self.places_from(after).find(|(_, heir)| heir.topic == topic);
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
mod tests;
