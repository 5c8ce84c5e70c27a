//! How many messages a client may send in a second: a token bucket in one number (the virtual scheduling of ITU-T
//! I.371, "GCRA"). Pure: the time is passed in.

/// Nanoseconds of a second: what a bucket holds, and how long it takes to fill.
const SECOND: u64 = 1_000_000_000;

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
        let full = self.full.max(now).saturating_add(SECOND / per_second.max(1) as u64);
        let has_place = full <= now.saturating_add(SECOND);
        if has_place {
            self.full = full;
        }
        has_place
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
