//! A token bucket in one number, the time up to which everything is spent (the generic cell rate algorithm, ITU-T
//! I.371): nobody has to fill it. And with it, how many messages a client may send in a second. Pure: the time is
//! passed in.

/// Nanoseconds of a second: what a bucket holds, and how long it takes to fill.
const SECOND: u64 = 1_000_000_000;

/// Takes a token at `now` from a bucket that is spent up to a time, of which one comes in `interval`, and of which a full
/// bucket has so many that they come in `ahead` but for one; all in nanoseconds. Answers up to when it is spent then;
/// `None`: there was no token.
pub fn spend(spent: u64, now: u64, interval: u64, ahead: u64) -> Option<u64> {
    // What is not taken beyond a full bucket is lost.
    let spent = spent.max(now);
    (spent - now <= ahead).then(|| spent.saturating_add(interval))
}

/// One client's bucket. It holds the messages of one second, so that a client may send them all at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When the bucket will be full again, in nanoseconds.
    full: u64,
}

impl Rate {
    /// Takes a message's place at `now`, in nanoseconds, where so many are allowed in a second. Answers whether there was
    /// one.
    pub fn take(&mut self, now: u64, per_second: usize) -> bool {
        let interval = SECOND / per_second.max(1) as u64;
        let spent = spend(self.full, now, interval, SECOND - interval);
        self.full = spent.unwrap_or(self.full);
        spent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_at_once_and_then_one_for_each_part_of_a_second() {
        for per_second in [1, 3, 10, 1_000, 1_000_000] {
            let (mut rate, start) = (Rate::default(), 7 * SECOND);
            let taken = (0..2 * per_second).filter(|_| rate.take(start, per_second)).count();
            assert_eq!(taken, per_second);
            let part = SECOND.div_ceil(per_second as u64);
            assert!(!rate.take(start + part / 2, per_second), "{per_second}");
            for n in 1..=20 {
                assert!(rate.take(start + n * part, per_second), "{per_second}: {n}");
            }
            // However long it was silent, no more than a second's worth.
            let later = start + 100 * SECOND;
            let taken = (0..2 * per_second).filter(|_| rate.take(later, per_second)).count();
            assert_eq!(taken, per_second);
        }
    }
}
