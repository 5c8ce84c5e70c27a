//! Receipts: how far an event went. One shared record for each that a publisher asked for, counted up by the
//! shards that its round was sent to; the last of them to have flushed the round sends it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A connection, told apart from others that have had its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its number.
    pub number: u32,
    /// Its generation.
    pub generation: u32,
}

/// Whose answer something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The shard of the connection.
    pub shard: usize,
    /// The connection.
    pub key: Key,
}

/// What became of an event on its way to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel has all of it.
    Written,
    /// A policy left it out; the client is told.
    LeftOut,
    /// It was still queued when the session was closed as too slow.
    Closed,
    /// It was still queued when the session ended for any other reason.
    Gone,
}

/// How far an event went, at the moment when every shard had flushed it: sessions by what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Sessions that it was for. Those that none of the other figures counts went away by themselves meanwhile.
    pub matched: u32,
    /// Of these, those whose kernel buffer has all of it.
    pub written: u32,
    /// Those that it waits for: in their queue, or in the history that they are served from.
    pub queued: u32,
    /// Those that it was left out for by a policy: dropped or conflated.
    pub left_out: u32,
    /// Those that were closed as too slow with it in their queue.
    pub closed: u32,
}

/// A receipt under way.
#[derive(Debug)]
pub struct Receipt {
    /// Who asked for it.
    pub asker: Asker,
    /// The publisher's own number of the event; 0 over HTTP.
    pub sequence: u64,
    /// Who still has something to count: the asker until all is published, and each shard that it was sent to.
    holds: AtomicU32,
    matched: AtomicU32,
    /// By [`Fate`].
    fates: [AtomicU32; 4],
}

impl Receipt {
    /// A receipt that the asker holds: nothing is published yet.
    pub fn new(asker: Asker, sequence: u64) -> Arc<Self> {
        Arc::new(Self {
            asker,
            sequence,
            holds: AtomicU32::new(1),
            matched: AtomicU32::new(0),
            fates: Default::default(),
        })
    }

    /// One more shard will have something to count.
    pub fn hold(&self) {
        self.holds.fetch_add(1, Ordering::Relaxed);
    }

    /// A holder has counted all that it had to. Answers whether it was the last: then the receipt is complete.
    pub fn let_go(&self) -> bool {
        self.holds.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether all that belongs to it is counted.
    pub fn is_complete(&self) -> bool {
        self.holds.load(Ordering::Acquire) == 0
    }

    /// The event is for so many sessions more.
    pub fn add_matched(&self, sessions: u32) {
        self.matched.fetch_add(sessions, Ordering::Relaxed);
    }

    /// What became of the event for one of them.
    pub fn note(&self, fate: Fate) {
        self.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How far it went, as far as is counted. What is counted later than the last [`Receipt::let_go`] does not
    /// belong to it: what waits then, waits.
    pub fn reach(&self) -> Reach {
        let count = |fate: Fate| self.fates[fate as usize].load(Ordering::Relaxed);
        // Fates first: no session has one before it is matched.
        let (written, left_out) = (count(Fate::Written), count(Fate::LeftOut));
        let (closed, gone) = (count(Fate::Closed), count(Fate::Gone));
        let matched = self.matched.load(Ordering::Relaxed);
        let queued = matched.saturating_sub(written + left_out + closed + gone);
        Reach { matched, written, queued, left_out, closed }
    }
}

/// An event of a round that a receipt was asked for.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its place in the round.
    pub place: u32,
    /// Its receipt.
    pub receipt: Arc<Receipt>,
}

/// What a round goes with where receipts were asked for. Not part of it: a history keeps rounds.
pub type Receipts = Option<Arc<Vec<Expected>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_let_go_completes_it_and_the_rest_is_queued() {
        let asker = Asker { shard: 0, key: Key { number: 1, generation: 2 } };
        let receipt = Receipt::new(asker, 7);
        receipt.hold();
        receipt.hold();
        receipt.add_matched(6);
        assert!(!receipt.let_go());
        for fate in [Fate::Written, Fate::Written, Fate::LeftOut, Fate::Closed, Fate::Gone] {
            receipt.note(fate);
        }
        assert!(!receipt.let_go());
        assert!(receipt.let_go());
        assert_eq!(receipt.reach(), Reach { matched: 6, written: 2, queued: 1, left_out: 1, closed: 1 });
    }
}
