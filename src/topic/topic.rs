//! One topic: its name, the head of its log, and who is interested.
//!
//! Whatever decides an order happens under the lock of the log: an event gets its offset there, and a shard registers
//! its interest there, so it knows exactly which events came before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::topic::history::History;

/// A shard that holds no subscriber of a topic.
pub const NO_SLOT: u32 = u32::MAX;

/// One topic: its name, the head of its log, its history, and who is interested.
#[derive(Debug)]
pub struct Topic {
    name: Arc<str>,
    /// Tells the life of a log with history from others under the same name; 0: it has no history.
    epoch: u64,
    is_pattern: bool,
    pub(super) log: Mutex<Log>,
    /// For each shard, where its own table keeps this topic. Only that shard reads and writes its place, so
    /// a round finds the shard's subscribers without a look-up by name.
    slots: SmallVec<[AtomicU32; 4]>,
}

/// Where a topic's order is decided.
#[derive(Debug)]
pub(super) struct Log {
    /// The offset of the newest event; 0 before the first.
    pub(super) head: u64,
    /// One bit for each shard with a subscriber.
    pub(super) interest: u64,
    /// Set when nobody was interested any more, nothing was kept, and the topic left the table: whoever still
    /// holds it looks again.
    pub(super) retired: bool,
    pub(super) history: Option<History>,
}

/// A place in a topic's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the log.
    pub epoch: u64,
    /// The offset of an event in it; 0 is before the first.
    pub offset: u64,
}

impl Topic {
    pub(super) fn new(name: &str, history: Option<History>, shards: usize) -> Self {
        Self {
            name: name.into(),
            epoch: if history.is_some() { fastrand::u64(1..) } else { 0 },
            is_pattern: false,
            log: Mutex::new(Log { head: 0, interest: 0, retired: false, history }),
            slots: (0..shards).map(|_| AtomicU32::new(NO_SLOT)).collect(),
        }
    }

    /// The pattern of this name, which ends in `*`.
    pub(super) fn pattern(name: &str, shards: usize) -> Self {
        Self { is_pattern: true, ..Self::new(name, None, shards) }
    }

    /// Whether it is a prefix pattern, which stands for all topics whose names begin alike.
    pub fn is_pattern(&self) -> bool {
        self.is_pattern
    }

    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is found by: its name, or a pattern's prefix.
    pub(super) fn key(&self) -> &str {
        let end = self.name.len() - usize::from(self.is_pattern);
        &self.name[..end]
    }

    /// The life of its log, where it has history.
    pub fn epoch(&self) -> Option<u64> {
        (self.epoch != 0).then_some(self.epoch)
    }

    /// The offset of the newest event; 0 before the first.
    pub fn head(&self) -> u64 {
        self.log.lock().head
    }

    /// Events and bytes that its history keeps.
    pub fn kept(&self) -> Option<(usize, usize)> {
        self.log.lock().history.as_ref().map(|history| (history.events(), history.bytes()))
    }

    /// Where `shard` keeps this topic, or [`NO_SLOT`].
    pub fn slot(&self, shard: usize) -> u32 {
        self.slots[shard].load(Ordering::Relaxed)
    }

    /// A shard is interested from now on, and keeps the topic at `slot`. Answers the offset of the newest event.
    pub(super) fn join(&self, shard: usize, slot: u32) -> u64 {
        let mut log = self.log.lock();
        log.interest |= 1 << shard;
        self.slots[shard].store(slot, Ordering::Relaxed);
        log.head
    }

    /// A shard is interested no more. Answers whether nobody is.
    pub(super) fn leave(&self, shard: usize) -> bool {
        let mut log = self.log.lock();
        self.slots[shard].store(NO_SLOT, Ordering::Relaxed);
        log.interest &= !(1 << shard);
        log.interest == 0
    }
}
