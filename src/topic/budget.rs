//! The byte budget of all histories together, and who gives way when it is used up.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::event::RoundRef;
use crate::topic::history::History;

/// What all histories keep together.
#[derive(Debug)]
pub(super) struct Budget {
    /// Topics that have history.
    histories: AtomicUsize,
    bytes: AtomicUsize,
    max: AtomicUsize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { histories: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// A history begins.
    pub(super) fn begin(&self) {
        self.histories.fetch_add(1, Ordering::Relaxed);
    }

    /// A history that keeps nothing ends.
    pub(super) fn end(&self) {
        self.histories.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many histories there are.
    pub(super) fn histories(&self) -> usize {
        self.histories.load(Ordering::Relaxed)
    }

    /// What all of them keep.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The bound on [`Budget::bytes`].
    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Whether all histories together are over the bound.
    pub(super) fn is_exceeded(&self) -> bool {
        self.bytes() > self.max()
    }

    /// Keeps a round, which begins at this offset, where there is a history to keep it.
    pub(super) fn keep(&self, history: &mut Option<History>, round: &RoundRef, offset: u64) {
        let Some(history) = history else { return };
        let before = history.bytes();
        history.push(RoundRef::clone(round), offset, round.ingress);
        // Wrapping: the difference may be below zero, and the sum never is.
        self.bytes.fetch_add(history.bytes().wrapping_sub(before), Ordering::Relaxed);
        self.keep_share(history);
    }

    /// Lets go of what is too old in a history.
    pub(super) fn trim(&self, history: &mut History, now: u64) {
        self.bytes.fetch_sub(history.trim(now), Ordering::Relaxed);
    }

    /// Makes less of what nobody comes for. Answers about how many bytes went.
    pub(super) fn settle(&self, history: &mut History, now: u64, most: &mut usize) -> usize {
        let (frames, bytes) = history.settle(now, most);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        frames + bytes
    }

    /// While the bound is exceeded, no history keeps more than an equal part of it.
    pub(super) fn keep_share(&self, history: &mut History) {
        if !self.is_exceeded() {
            return;
        }
        let share = self.max() / self.histories().max(1);
        while history.bytes() > share && self.is_exceeded() {
            self.bytes.fetch_sub(history.pop(), Ordering::Relaxed);
        }
    }
}
