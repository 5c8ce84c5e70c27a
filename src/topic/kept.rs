//! A round that a history keeps; and old ones, which become one.
//!
//! Where every event comes by itself, each is a round of its own: 300 bytes beside its text, in two or three pieces of
//! memory, which lie among those of clients that come and go. Once nobody comes for its frames any more, a round is joined
//! to the one before it.

use smallvec::{SmallVec, smallvec};

use crate::event::RoundRef;

/// A round that is kept, from some event of it on.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) round: RoundRef,
    /// The offset of the round's first event in this topic.
    pub(super) offset: u64,
    /// Events at its beginning that are left out.
    pub(super) skipped: usize,
    /// What it counts for.
    pub(super) bytes: usize,
    /// When its events came in: for each round that it is made of, the place after its last one, and its ingress.
    came: SmallVec<[(u32, u64); 1]>,
    /// How many of those are known to be too old: none is asked twice.
    expired: usize,
}

impl Kept {
    pub(super) fn new(round: RoundRef, offset: u64) -> Self {
        let came = smallvec![(round.events.len() as u32, round.ingress)];
        let mut kept = Self { round, offset, skipped: 0, bytes: 0, came, expired: 0 };
        kept.count();
        kept
    }

    fn count(&mut self) {
        // Its frames in one envelope come to about as much again.
        let events = &self.round.events;
        self.bytes = self.round.cost() + events.bytes() + 128 * events.len();
    }

    /// One after the offset of its last event.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.round.events.len() as u64
    }

    /// How many of its events are left.
    pub(super) fn events(&self) -> usize {
        self.round.events.len() - self.skipped
    }

    /// How many of those that are left came at this time, in nanoseconds, or before it.
    pub(super) fn until(&mut self, time: u64) -> usize {
        while self.came.get(self.expired).is_some_and(|(_, ingress)| *ingress <= time) {
            self.expired += 1;
        }
        let last = self.expired.checked_sub(1);
        last.map_or(0, |last| (self.came[last].0 as usize).saturating_sub(self.skipped))
    }

    /// Takes the events of the round that follows behind its own, where both are of one topic, nobody is reading this one,
    /// and together they count for no more than `most` bytes. Answers it where not.
    pub(super) fn join(&mut self, next: Self, most: usize) -> Option<Self> {
        let is_plain = |kept: &Self| kept.round.several == 0 && kept.round.category.is_none();
        let fits = self.bytes + next.bytes <= most && next.skipped == 0 && self.end() == next.offset;
        if !fits || !is_plain(self) || !is_plain(&next) {
            return Some(next);
        }
        let Some(round) = RoundRef::get_mut(&mut self.round) else { return Some(next) };
        // Frames are there for all events of a round or for none.
        round.forget_frames();
        let before = round.events.len() as u32;
        round.events.append(&next.round.events);
        round.ingress = round.ingress.max(next.round.ingress);
        self.came.extend(next.came.iter().map(|(end, ingress)| (before + end, *ingress)));
        self.count();
        None
    }

    /// Nothing will be joined to it any more: gives back the room for that.
    pub(super) fn close(&mut self) {
        if let Some(round) = RoundRef::get_mut(&mut self.round) {
            round.events.shrink_to_fit();
        }
        self.came.shrink_to_fit();
    }
}
