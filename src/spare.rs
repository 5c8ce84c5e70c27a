//! Rounds that nobody has any more, used again.
//!
//! Where each event of a read has a topic of its own, each is a round of its own, and all of a read are there at once
//! before the first of them is gone: an allocator then finds and merges a piece for each of them, in memory that the
//! cache has not. Taken from here, the memory is that of the read before.

use crate::event::{Draft, RoundRef};
use crate::slack::is_loose;

/// Rounds kept at most: about as many as small events make in one read.
const MAX_KEPT: usize = 256;
/// Memory for events that is kept with all of them, in bytes at most: a kilobyte for each, where they are many; where a read
/// is one round, all that it needs.
const MAX_BYTES: usize = MAX_KEPT << 10;

/// A shard's spare rounds: empty, and nobody else's.
#[derive(Debug, Default)]
pub struct Spare {
    kept: Vec<Draft>,
    /// Bytes of memory that they have for events.
    bytes: usize,
    /// The fewest that were here since [`Spare::tidy`].
    low: usize,
}

impl Spare {
    /// An empty round, in memory that was used before where some is there.
    pub fn take(&mut self) -> Draft {
        let taken = self.kept.pop().unwrap_or_default();
        self.bytes -= taken.events.memory();
        self.low = self.low.min(self.kept.len());
        taken
    }

    /// Keeps what a round takes, where nobody else has it.
    pub fn keep(&mut self, round: RoundRef) {
        if self.kept.len() < MAX_KEPT
            && let Some(draft) = Draft::reuse(round, MAX_BYTES - self.bytes)
        {
            self.bytes += draft.events.memory();
            self.kept.push(draft);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Gives back half of what was not needed since the last time.
    pub fn tidy(&mut self) {
        let given_back = self.kept.drain(..self.low.div_ceil(2));
        self.bytes -= given_back.map(|draft| draft.events.memory()).sum::<usize>();
        self.low = self.kept.len();
        if is_loose(self.kept.capacity(), self.kept.len()) {
            self.kept.shrink_to(2 * self.kept.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::wire::Publish;

    fn filled(mut draft: Draft, data: &str) -> RoundRef {
        draft.events.push(&Publish { topics: "t", event: "e", key: "", data, timestamp_ms: 1 }, 0);
        draft.category = Some("t".into());
        (draft.several, draft.names, draft.ingress, draft.shared) = (1, 2, 3, true);
        draft.share()
    }

    #[test]
    fn a_round_that_nobody_has_is_used_again_and_nothing_of_it_is_left() {
        let mut spare = Spare::default();
        let first = filled(spare.take(), "1");
        let place = RoundRef::as_ptr(&first);
        let held = RoundRef::clone(&first);
        spare.keep(first);
        assert!(spare.is_empty(), "somebody has it");
        spare.keep(held);
        let draft = spare.take();
        assert!(spare.is_empty() && draft.events.is_empty() && draft.category.is_none());
        assert_eq!((draft.several, draft.names, draft.ingress, draft.shared), (0, 0, 0, false));
        let second = filled(draft, "22");
        assert_eq!(RoundRef::as_ptr(&second), place);
        let data: Vec<_> = second.events.iter().map(|event| event.data).collect();
        assert_eq!((data, second.category.as_deref(), second.topics.len()), (vec!["22"], Some("t"), 0));
    }

    #[test]
    fn it_keeps_little_and_gives_that_back() {
        let mut spare = Spare::default();
        for _ in 0..2 * MAX_KEPT {
            spare.keep(filled(Draft::default(), &"x".repeat(10 << 10)));
        }
        assert_eq!(spare.kept.len(), MAX_KEPT);
        let bytes = |spare: &Spare| spare.kept.iter().map(|kept| kept.events.memory()).sum::<usize>();
        assert_eq!(spare.bytes, bytes(&spare));
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&spare.bytes));
        spare.tidy();
        let taken: Vec<_> = (0..100).map(|_| spare.take()).collect();
        spare.tidy();
        assert_eq!(spare.kept.len(), (MAX_KEPT - 100) / 2, "half of what was not needed goes");
        assert_eq!(spare.bytes, bytes(&spare));
        drop(taken);
        (0..10).for_each(|_| spare.tidy());
        assert!(spare.is_empty() && spare.bytes == 0);
    }
}
