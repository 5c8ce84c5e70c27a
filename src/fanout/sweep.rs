//! The sweep: connections that are owed something, in the order in which they are flushed.
//!
//! With a latency budget, those that are owed events only are held back together until it is used up, so that one
//! write carries more of them. It counts from when the first of these events came in, but not before those who were let
//! go last have all been flushed: that long an event waits without a budget too, and a budget that is used up meanwhile
//! saves nothing. Whatever else is owed (answers, control frames, what a socket refused before) goes at once, and takes
//! the connection's events along.
//!
//! Those that catch up from a history have a queue of their own, of which a few go in each turn: thousands that come
//! back together are not to stand before those who are there.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::nanos;
use crate::slack::is_loose;

/// A sweep.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    due: VecDeque<u32>,
    held: VecDeque<u32>,
    catching_up: VecDeque<u32>,
    /// Whether the round that is being pushed is held back.
    holds: bool,
    /// When what they are held for came in, in nanoseconds, the first of it.
    since: u64,
    /// How long they are, from then, or from when all who were released last have been taken.
    budget: u64,
    /// Those have been when so many have been taken; and when that was, in nanoseconds.
    released: u64,
    swept: u64,
    /// What came since the first of them is held: none of them is owed more by it.
    events: usize,
    bytes: usize,
    popped: u64,
}

/// Held connections go when so many events, or bytes of them, have come since the first one …
const HELD_EVENTS: usize = 256;
/// … so that holding back never makes a client fall behind.
const HELD_BYTES: usize = 64 << 10;

impl Sweep {
    /// Whether nobody is owed anything that is to go now.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.catching_up.is_empty()
    }

    /// Whether anybody waits who is not catching up, and is not held.
    pub(super) fn is_live(&self) -> bool {
        !self.due.is_empty()
    }

    /// How many wait, those that are held too.
    pub(super) fn len(&self) -> usize {
        self.due.len() + self.held.len() + self.catching_up.len()
    }

    /// The one whose turn is next, and the next of those that catch up.
    pub(super) fn fronts(&self) -> impl Iterator<Item = u32> {
        let live = self.due.front().or_else(|| self.held.front());
        live.into_iter().chain(self.catching_up.front()).copied()
    }

    /// Gives back room that is not needed any more.
    pub(super) fn tidy(&mut self) {
        for queue in [&mut self.due, &mut self.held, &mut self.catching_up] {
            if is_loose(queue.capacity(), queue.len()) {
                queue.shrink_to(2 * queue.len());
            }
        }
    }

    /// Its turn comes behind all others.
    pub(super) fn push(&mut self, number: u32) {
        self.due.push_back(number);
    }

    /// The same, among those that catch up.
    pub(super) fn push_catching_up(&mut self, number: u32) {
        self.catching_up.push_back(number);
    }

    /// Takes the next of those that catch up.
    pub(super) fn pop_catching_up(&mut self) -> Option<u32> {
        self.catching_up.pop_front()
    }

    /// Takes the one whose turn it is, at about this time in nanoseconds.
    pub(super) fn pop(&mut self, now: u64) -> Option<u32> {
        let number = self.due.pop_front()?;
        self.popped += 1;
        if self.popped == self.released {
            self.swept = now;
        }
        Some(number)
    }

    /// How many have been taken, ever; and how many will have been when all who are due now have.
    pub(super) fn popped(&self) -> (u64, u64) {
        (self.popped, self.popped + self.due.len() as u64)
    }

    /// A round of so many events and bytes, which came in at `ingress` nanoseconds, is about to be pushed.
    pub(super) fn begin_round(&mut self, budget: Duration, ingress: u64, events: usize, bytes: usize) {
        self.holds = !budget.is_zero();
        self.budget = nanos(budget);
        if !self.holds {
            return;
        }
        if self.held.is_empty() {
            self.since = ingress;
            (self.events, self.bytes) = (0, 0);
        }
        self.events += events;
        self.bytes += bytes;
    }

    /// The queue for those that are owed events of the round that began last, and whether it holds them back.
    pub(super) fn queue(&mut self) -> (&mut VecDeque<u32>, bool) {
        (if self.holds { &mut self.held } else { &mut self.due }, self.holds)
    }

    /// Whether anybody is held.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Until when at the latest, in nanoseconds, somebody is held. `None`: nobody is, or those who were let go last have
    /// not all been flushed.
    pub(super) fn held_until(&self) -> Option<u64> {
        let counts = self.is_holding() && self.popped >= self.released;
        counts.then(|| self.since.max(self.swept).saturating_add(self.budget))
    }

    /// Lets the held ones go where their time has come, or enough has; answers whether it did.
    pub(super) fn release(&mut self, now: u64) -> bool {
        let is_time = self.held_until().is_some_and(|until| now >= until);
        let is_enough = self.is_holding() && (self.events > HELD_EVENTS || self.bytes > HELD_BYTES);
        let is_released = is_time || is_enough;
        if is_released {
            self.due.append(&mut self.held);
            self.released = self.popped().1;
        }
        is_released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_nanos(100);

    fn hold(sweep: &mut Sweep, ingress: u64, events: usize, bytes: usize, number: u32) {
        sweep.begin_round(BUDGET, ingress, events, bytes);
        sweep.queue().0.push_back(number);
    }

    #[test]
    fn the_first_to_be_held_sets_the_time() {
        let mut sweep = Sweep::default();
        hold(&mut sweep, 50, 1, 10, 1);
        hold(&mut sweep, 90, 1, 10, 2);
        sweep.push(3);
        assert_eq!((sweep.held_until(), sweep.len(), sweep.fronts().next()), (Some(150), 3, Some(3)));
        assert_eq!((sweep.pop(0), sweep.pop(0), sweep.fronts().next()), (Some(3), None, Some(1)));
        assert!(!sweep.release(149));
        assert!(sweep.release(150));
        assert!(!sweep.release(150));
        assert_eq!((sweep.held_until(), sweep.popped()), (None, (1, 3)));
        assert_eq!([sweep.pop(0), sweep.pop(0), sweep.pop(0)], [Some(1), Some(2), None]);
    }

    #[test]
    fn the_budget_counts_from_the_end_of_the_sweep_before() {
        let mut sweep = Sweep::default();
        hold(&mut sweep, 0, 1, 10, 1);
        hold(&mut sweep, 0, 1, 10, 2);
        assert!(sweep.release(100));
        assert_eq!(sweep.pop(110), Some(1));
        hold(&mut sweep, 115, 1, 10, 1);
        sweep.push(3);
        assert!(!sweep.release(1_000), "the sweep is not over");
        assert_eq!((sweep.held_until(), sweep.pop(1_000)), (None, Some(2)));
        assert_eq!(sweep.held_until(), Some(1_100), "whoever came later is not waited for");
        assert!(!sweep.release(1_099));
        assert!(sweep.release(1_100));
        assert_eq!([sweep.pop(1_200), sweep.pop(1_300)], [Some(3), Some(1)]);
        // What comes later is held from then on.
        hold(&mut sweep, 5_000, 1, 10, 1);
        assert_eq!(sweep.held_until(), Some(5_100));
    }

    #[test]
    fn enough_of_them_go_before_their_time() {
        for (rounds, events, bytes) in [(257, 1, 1), (2, 200, 1), (2, 1, 40_000)] {
            let mut sweep = Sweep::default();
            for round in 1..=rounds {
                assert!(!sweep.release(0), "{round} of {rounds}");
                hold(&mut sweep, 0, events, bytes, round);
            }
            assert!(sweep.release(0));
        }
    }

    #[test]
    fn without_a_budget_nobody_is_held() {
        let mut sweep = Sweep::default();
        sweep.begin_round(Duration::ZERO, 0, 1, 1);
        let (queue, is_held) = sweep.queue();
        queue.push_back(7);
        assert_eq!((is_held, sweep.held_until(), sweep.pop(0)), (false, None, Some(7)));
    }

    #[test]
    fn those_that_catch_up_wait_apart() {
        let mut sweep = Sweep::default();
        sweep.push_catching_up(1);
        assert!(!sweep.is_live() && !sweep.is_empty());
        sweep.push(2);
        assert_eq!((sweep.len(), sweep.fronts().collect::<Vec<_>>()), (2, vec![2, 1]));
        assert_eq!((sweep.pop(0), sweep.pop(0), sweep.pop_catching_up()), (Some(2), None, Some(1)));
        assert!(sweep.is_empty());
    }
}
