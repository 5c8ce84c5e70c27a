//! Rounds that nobody has any more, used again.
//!
//! Where each event of a read has a topic of its own, each is a round of its own, and all of a read are there at once
//! before the first of them is gone: an allocator then finds and merges a piece for each of them, in memory that the
//! cache has not. Taken from here, the memory is that of the read before.

use std::sync::Arc;

use crate::event::{Events, Round};
use crate::slack::is_loose;

/// Rounds kept at most: about as many as small events make in one read.
const MAX_KEPT: usize = 256;
/// The text of events that is kept with each, in bytes at most.
const MAX_TEXT: usize = 1 << 10;

/// Events on their way to a round, and the memory for it where there is some.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The events.
    pub events: Events,
    memory: Option<Arc<Round>>,
}

impl From<Events> for Gathered {
    fn from(events: Events) -> Self {
        Self { events, memory: None }
    }
}

impl Gathered {
    /// Makes a round of the events.
    pub fn into_round(self, make: impl FnOnce(Events) -> Round) -> Arc<Round> {
        let round = make(self.events);
        let Some(mut memory) = self.memory else { return Arc::new(round) };
        match Arc::get_mut(&mut memory) {
            Some(place) => {
                *place = round;
                memory
            }
            None => Arc::new(round),
        }
    }
}

/// A shard's spare rounds: empty, and nobody else's.
#[derive(Debug, Default)]
pub struct Spare {
    kept: Vec<Gathered>,
    /// The fewest that were here since [`Spare::tidy`].
    low: usize,
}

impl Spare {
    /// No events yet, with memory for them and their round where some is there.
    pub fn take(&mut self) -> Gathered {
        let taken = self.kept.pop().unwrap_or_default();
        self.low = self.low.min(self.kept.len());
        taken
    }

    /// Keeps what a round takes, where nobody else has it.
    pub fn keep(&mut self, mut round: Arc<Round>) {
        if self.kept.len() < MAX_KEPT
            && let Some(inside) = Arc::get_mut(&mut round)
        {
            let mut events = std::mem::take(inside).events;
            events.clear(MAX_TEXT);
            self.kept.push(Gathered { events, memory: Some(round) });
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Gives back half of what was not needed since the last time.
    pub fn tidy(&mut self) {
        self.kept.drain(..self.low.div_ceil(2));
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

    fn filled(mut gathered: Gathered, data: &str) -> Arc<Round> {
        gathered.events.push(&Publish { topics: "t", event: "e", key: "", data, timestamp_ms: 1 }, 0);
        gathered.into_round(|events| Round { events, category: Some("t".into()), ..Round::default() })
    }

    #[test]
    fn a_round_that_nobody_has_is_used_again_and_nothing_of_it_is_left() {
        let mut spare = Spare::default();
        let first = filled(spare.take(), "1");
        let place = Arc::as_ptr(&first);
        let held = Arc::clone(&first);
        spare.keep(first);
        assert!(spare.is_empty(), "somebody has it");
        spare.keep(held);
        let gathered = spare.take();
        assert!(spare.is_empty() && gathered.events.is_empty());
        let second = filled(gathered, "22");
        assert_eq!(Arc::as_ptr(&second), place);
        let data: Vec<_> = second.events.iter().map(|event| event.data).collect();
        assert_eq!((data, second.category.as_deref(), second.topics.len()), (vec!["22"], Some("t"), 0));
    }

    #[test]
    fn it_keeps_little_and_gives_that_back() {
        let mut spare = Spare::default();
        for _ in 0..2 * MAX_KEPT {
            spare.keep(filled(Gathered::default(), &"x".repeat(10 * MAX_TEXT)));
        }
        assert_eq!(spare.kept.len(), MAX_KEPT);
        assert!(spare.kept.iter().all(|kept| kept.events.memory() <= MAX_TEXT));
        spare.tidy();
        let taken: Vec<_> = (0..100).map(|_| spare.take()).collect();
        spare.tidy();
        assert_eq!(spare.kept.len(), (MAX_KEPT - 100) / 2, "half of what was not needed goes");
        drop(taken);
        (0..10).for_each(|_| spare.tidy());
        assert!(spare.is_empty());
    }
}
