//! When events are meant to be sent: an open loop, which waits for nobody.

/// When events are meant to be sent. Times are nanoseconds since the generator's start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    from: u64,
    /// Nanoseconds between two events; 0 for all at once.
    interval: f64,
    done: u64,
    events: u64,
}

impl Pace {
    /// `rate` events a second, for ever.
    pub(crate) fn steady(from: u64, rate: f64) -> Self {
        Self { from, interval: 1e9 / rate, done: 0, events: u64::MAX }
    }

    /// `events` at once.
    pub(crate) fn burst(from: u64, events: u64) -> Self {
        Self { from, interval: 0.0, done: 0, events }
    }

    /// No events after this many. A backlog is not forgiven by it: what is due stays due.
    pub(crate) fn end_after(&mut self, events: u64) {
        self.events = events;
    }

    /// No event after those that were sent. A backlog of the generator itself is dropped; figures show it as events
    /// that were not published.
    pub(crate) fn stop(&mut self) {
        self.events = self.done;
    }

    /// When the first event is meant to be sent.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// Events that were sent.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// When the next event is meant to be sent; [`u64::MAX`] where there is none.
    pub(crate) fn due(&self) -> u64 {
        if self.done == self.events {
            u64::MAX
        } else {
            self.from + (self.done as f64 * self.interval) as u64
        }
    }

    /// One event was sent.
    pub(crate) fn step(&mut self) {
        self.done += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_pace_is_not_pushed_back_by_being_late() {
        let mut pace = Pace::steady(1_000, 1e6);
        assert_eq!(pace.due(), 1_000);
        for number in 1..=10 {
            pace.step();
            assert_eq!(pace.due(), 1_000 + number * 1_000);
        }
        pace.end_after(11);
        assert_eq!(pace.due(), 11_000);
        pace.step();
        assert_eq!(pace.due(), u64::MAX);
        let mut burst = Pace::burst(7, 2);
        burst.step();
        assert_eq!(burst.due(), 7);
        burst.stop();
        assert_eq!((burst.due(), burst.done()), (u64::MAX, 1));
    }
}
