//! How many sessions may be opened: a token bucket for the whole node, which all shards take from. Pure.
//!
//! It is one number, as every bucket of `session::rate`. So it needs no lock, and who is refused only reads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::rate::spend;

/// The bucket.
#[derive(Debug)]
pub struct Admission {
    /// Nanoseconds in which one token comes; 0: there is no bound.
    interval: AtomicU64,
    /// Nanoseconds that may be spent ahead: a full bucket, less one token.
    ahead: AtomicU64,
    /// When all that was taken will have come again, in nanoseconds.
    spent: AtomicU64,
}

impl Admission {
    /// A full bucket of `burst` tokens, of which so many come in a second; 0: there is no bound.
    pub fn new(per_second: usize, burst: usize) -> Self {
        let admission = Self { interval: 0.into(), ahead: 0.into(), spent: 0.into() };
        admission.set(per_second, burst);
        admission
    }

    /// Changes rate and size. What was taken by the old ones stays taken.
    pub fn set(&self, per_second: usize, burst: usize) {
        let interval = 1_000_000_000_u64.checked_div(per_second as u64).unwrap_or(0);
        self.ahead.store(interval.saturating_mul((burst as u64).saturating_sub(1)), Ordering::Relaxed);
        self.interval.store(interval, Ordering::Relaxed);
    }

    /// Whether there is a token at `now`, in nanoseconds. Another shard may take it before.
    pub fn is_open(&self, now: u64) -> bool {
        self.is_unbounded() || self.after_one(self.spent.load(Ordering::Relaxed), now).is_some()
    }

    /// Takes a token at `now`, in nanoseconds; answers whether there was one.
    pub fn take(&self, now: u64) -> bool {
        let take = |spent| self.after_one(spent, now);
        self.is_unbounded() || self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn is_unbounded(&self) -> bool {
        self.interval.load(Ordering::Relaxed) == 0
    }

    /// `spent` with one token more, if there is one.
    fn after_one(&self, spent: u64, now: u64) -> Option<u64> {
        spend(spent, now, self.interval.load(Ordering::Relaxed), self.ahead.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of many are let in at `now`.
    fn admitted(bucket: &Admission, now: u64) -> usize {
        (0..1000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_burst_goes_in_at_once_and_then_as_many_as_come_in_a_second() {
        let bucket = Admission::new(10, 25);
        assert_eq!(admitted(&bucket, 0), 25);
        assert_eq!(admitted(&bucket, SECOND / 10 - 1), 0);
        assert!(!bucket.is_open(SECOND / 10 - 1) && bucket.is_open(SECOND / 10));
        assert_eq!(admitted(&bucket, SECOND / 10), 1);
        assert_eq!(admitted(&bucket, SECOND), 9);
        // However long nobody came, no more than a burst is there. Shards' clocks differ by a turn.
        assert_eq!(admitted(&bucket, 100 * SECOND), 25);
        assert_eq!(admitted(&bucket, 99 * SECOND), 0);
        assert_eq!(admitted(&bucket, 102 * SECOND), 20);
    }

    #[test]
    fn the_smallest_bucket_lets_one_in_at_a_time_and_zero_bounds_nothing() {
        let bucket = Admission::new(1, 1);
        assert_eq!(
            [0, 0, SECOND - 1, SECOND, SECOND].map(|now| bucket.take(now)),
            [true, false, false, true, false]
        );
        bucket.set(0, 1);
        assert!(bucket.is_open(0));
        assert_eq!(admitted(&bucket, 0), 1000);
        // What was taken while there was no bound is not held against anybody.
        bucket.set(1_000_000, 3);
        assert_eq!(admitted(&bucket, 3 * SECOND), 3);
        assert_eq!(admitted(&bucket, 3 * SECOND + 1000), 1);
    }

    #[test]
    fn shards_that_take_at_once_get_no_more_together() {
        let bucket = Admission::new(1, 100);
        let counts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| admitted(&bucket, SECOND))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(counts, 100);
    }
}
