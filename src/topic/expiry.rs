//! Lets go of what is too old, or above its share, in topics to which nothing comes any more, and of frames that nobody
//! has come for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::topic::table::{STRIPES, Topics};

/// Nanoseconds between two sweeps at least. Less than between two questions of one shard, so that it is never early.
const SWEEP_EVERY: u64 = 200_000_000;

/// Topics looked at in one sweep, after which no further stripe is.
const ENOUGH_SWEPT: usize = 256;
/// Rounds of one stripe whose frames are taken away, and which are joined, in one sweep at most.
const ROUNDS_SWEPT: usize = 4096;

/// So many bytes must have gone before the allocator is asked for them, which takes a millisecond of a quiet time.
const MUCH: usize = 64 << 10;
/// It is asked no more often than this, in nanoseconds: where events come in bursts, what went is needed again soon.
const ASK_EVERY: u64 = 10_000_000_000;

/// Which stripe of the table is looked at next, and when.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// In nanoseconds.
    due: AtomicU64,
    /// How often it was.
    sweeps: AtomicUsize,
    /// A count that tells the stripe to begin with.
    next_stripe: AtomicUsize,
    /// Bytes that went since it was last said that they are much …
    gone: AtomicUsize,
    /// … and when that may be said again, in nanoseconds.
    next_ask: AtomicU64,
}

/// What was looked at in one stripe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    topics: usize,
    /// Bytes that went.
    gone: usize,
}

impl Topics {
    /// Whether [`Topics::sweep_next`] has something to do, now or later.
    pub fn needs_sweeps(&self) -> bool {
        self.with_history() > 0 || self.expiry.gone.load(Ordering::Relaxed) >= MUCH
    }

    /// Sweeps the next stripes, where that is due, until so many topics were looked at as are enough. Every shard asks,
    /// and one of them does it: the one that took events in may be the only one that is awake.
    ///
    /// Answers whether much has gone, and no more goes now, and that was not answered lately: it may be given back to the
    /// system.
    pub fn sweep_next(&self, now: u64) -> bool {
        let due = self.expiry.due.load(Ordering::Relaxed);
        let next = now.saturating_add(SWEEP_EVERY);
        let is_mine =
            |due| self.expiry.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if now < due || !is_mine(due) {
            return false;
        }
        self.expiry.sweeps.fetch_add(1, Ordering::Relaxed);
        let mut all = Swept::default();
        for _ in 0..STRIPES {
            let stripe = self.expiry.next_stripe.fetch_add(1, Ordering::Relaxed) % STRIPES;
            let Swept { topics, gone } = self.sweep(stripe, now);
            all = Swept { topics: all.topics + topics, gone: all.gone + gone };
            if all.topics >= ENOUGH_SWEPT {
                break;
            }
        }
        // Only who publishes pays for what is over the budget; those with a large part may have gone quiet.
        for stripe in (0..STRIPES).take_while(|_| self.budget.is_exceeded()) {
            all.gone += self.sweep(stripe, now).gone;
        }
        let gone = self.expiry.gone.fetch_add(all.gone, Ordering::Relaxed);
        let is_much = all.gone == 0 && gone >= MUCH && now >= self.expiry.next_ask.load(Ordering::Relaxed);
        if is_much {
            self.expiry.gone.store(0, Ordering::Relaxed);
            self.expiry.next_ask.store(now.saturating_add(ASK_EVERY), Ordering::Relaxed);
        }
        is_much
    }

    /// Lets go of what is too old in one of the [`STRIPES`] of the table, and of what is above its share while
    /// all history together is over its bound.
    pub(super) fn sweep(&self, stripe: usize, now: u64) -> Swept {
        if self.with_history() == 0 {
            return Swept::default();
        }
        let (with_history, topics) = self.with_history_in(stripe);
        let (mut rounds, mut gone) = (ROUNDS_SWEPT, 0);
        for topic in with_history {
            let mut log = topic.log.lock();
            let interest = log.interest;
            let Some(history) = &mut log.history else { continue };
            let before = history.bytes();
            self.budget.trim(history, now);
            self.budget.keep_share(history);
            gone += before - history.bytes() + self.budget.settle(history, now, &mut rounds);
            if history.events() == 0 && interest == 0 {
                // The stripe is locked before the log, here as elsewhere.
                drop(log);
                self.retire_unneeded(&topic);
            }
        }
        Swept { topics, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;
    use crate::publish::wire::Publish;
    use crate::topic::fixtures::{events, sweep_all, with_history};
    use crate::topic::topic::Topic;

    #[test]
    fn all_histories_share_their_budget() {
        let topics = with_history(1_000_000, 100_000);
        let all: Vec<_> = ["h1", "h2", "h3"].map(|name| topics.find_or_keep(name).unwrap()).into();
        topics.register("h3", 0, 0).unwrap();
        let bytes = |topic: &Topic| topic.kept().unwrap().1;
        let sum = || all.iter().map(|topic| bytes(topic)).sum::<usize>();
        // One alone may have everything.
        for _ in 0..1000 {
            topics.append(&all[0], events(4), 0, |_, _| ());
            assert!(topics.history_bytes() <= 100_000 && topics.history_bytes() == sum());
        }
        assert!(bytes(&all[0]) > 90_000);
        // Others take no more than their share from it, at the latest with the sweep.
        for _ in 0..1000 {
            topics.append(&all[1], events(4), 0, |_, _| ());
        }
        assert!(topics.budget.is_exceeded() && bytes(&all[1]) <= 100_000 / 3);
        sweep_all(&topics, 0);
        assert!(
            !topics.budget.is_exceeded() && topics.history_bytes() == sum(),
            "{}",
            topics.history_bytes()
        );
        assert!(bytes(&all[0]) > 50_000 && bytes(&all[1]) > 30_000);
        topics.set_max(10, 10_000);
        sweep_all(&topics, 0);
        assert!(topics.history_bytes() <= 10_000 && topics.history_bytes() == sum());
        // An event larger than the budget is not kept, and its offset is not given again.
        let head = all[2].head();
        let mut large = Draft::default();
        let data = format!("\"{}\"", "x".repeat(20_000));
        large.events.push(&Publish { topics: "", event: "e", key: "", data: &data, timestamp_ms: 1 }, 1);
        topics.append(&all[2], large, 0, |_, _| ());
        assert_eq!((all[2].head(), all[2].kept()), (head + 1, Some((0, 0))));
    }

    #[test]
    fn whoever_asks_sweeps_what_is_due_stripe_after_stripe() {
        let topics = with_history(10, 1 << 30);
        let topic = topics.find_or_keep("h").unwrap();
        topics.append(&topic, events(2), 0, |_, _| ());
        let late = 11_000_000_000;
        for n in 0..STRIPES as u64 {
            // Of those who ask in one period, one sweeps.
            for _ in 0..STRIPES {
                topics.sweep_next(late + n * SWEEP_EVERY);
            }
            assert_eq!(topics.expiry.sweeps.load(Ordering::Relaxed) as u64, n + 1);
        }
        assert_eq!((topics.count(), topics.history_bytes()), (0, 0));
    }

    #[test]
    fn whoever_sweeps_is_told_once_that_much_went_and_no_more_goes() {
        let topics = with_history(10_000, 1 << 30);
        let mut times = (1..).map(|n| n * SWEEP_EVERY);
        let mut sweep = || topics.sweep_next(times.next().unwrap() + 11_000_000_000);
        for (events_each, is_much) in [(1, false), (2_000, true)] {
            let topic = topics.find_or_keep("h").unwrap();
            topics.append(&topic, events(events_each), 0, |_, _| ());
            assert_eq!(topics.history_bytes() >= MUCH, is_much);
            assert_eq!([sweep(), topics.needs_sweeps(), sweep(), sweep()], [false, is_much, is_much, false]);
            assert!(!topics.needs_sweeps(), "the topic went with its last event");
        }
        // Not again at once, but once it is time.
        let topic = topics.find_or_keep("h").unwrap();
        topics.append(&topic, events(2_000), 0, |_, _| ());
        let asked = (0..ASK_EVERY / SWEEP_EVERY).filter(|_| sweep()).count();
        assert_eq!((asked, topics.needs_sweeps()), (1, false));
        let topic = topics.find_or_keep("h").unwrap();
        topics.append(&topic, events(2_000), 0, |_, _| ());
        assert_eq!([sweep(), sweep(), topics.needs_sweeps()], [false, false, true]);
    }
}
