//! A shutdown of the whole node: its stages, when each is over, and how it is taken back. Pure.

use std::time::Duration;

use crate::clock::{Now, nanos};

/// The stages of a shutdown. Each begins when every shard has come to the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clients are let go one after the other, while publishers are still read. It can be taken back.
    Spread,
    /// Publishers are read no more.
    Quiesce,
    /// Every accepted event is in the links: clients are closed as they have what they are owed.
    Deliver,
    /// Every accepted event went out: publishers are told.
    Farewell,
}

impl Stage {
    /// The name in logs and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Quiesce => "quiesce",
            Self::Deliver => "deliver",
            Self::Farewell => "farewell",
        }
    }
}

/// What every shard is told: a stage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which of the node's drains it belongs to: what is said of one that was taken back counts for no other.
    pub drain: u64,
    /// The stage.
    pub stage: Stage,
    /// When the first client goes; of later stages, when publishers ceased to be read. In nanoseconds.
    pub from: u64,
    /// By when all clients have been let go; of later stages, when everything is dropped. In nanoseconds.
    pub until: u64,
    /// Clients of the node when the drain began.
    pub clients: usize,
}

/// What became of the wish to take a drain back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// It is taken back. So many clients there were when it began.
    Done {
        /// Clients of the node when the drain began.
        clients: usize,
    },
    /// Publishers are read no more.
    TooLate,
    /// There is none.
    Nothing,
}

/// How long the parts of a drain take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From the beginning to the first close.
    pub delay: Duration,
    /// From the first close to the last, for many clients.
    pub spread: Duration,
    /// From there to the end, at most.
    pub rest: Duration,
}

/// Nanoseconds from one close to the next at most: 100 clients a second. A few clients do not make a shutdown last.
const SLOWEST: u64 = 10_000_000;

/// The node's drains: the one under way, and how many there were.
#[derive(Debug)]
pub struct Course {
    times: Times,
    order: Option<Order>,
    /// Shards that are through with the stage under way.
    through: usize,
    begun: u64,
    undone: u64,
}

impl Course {
    /// None under way.
    pub fn new(times: Times) -> Self {
        Self { times, order: None, through: 0, begun: 0, undone: 0 }
    }

    /// Changes the times of stages that have not begun.
    pub fn set_times(&mut self, times: Times) {
        self.times = times;
    }

    /// The stage under way.
    pub fn order(&self) -> Option<Order> {
        self.order
    }

    /// Drains begun so far, and how many of them were taken back.
    pub fn counts(&self) -> (u64, u64) {
        (self.begun, self.undone)
    }

    /// Begins a drain of so many clients. Where there is nothing to wait for, it begins with [`Stage::Quiesce`].
    ///
    /// # Errors
    /// The stage of the one that is under way.
    pub fn begin(&mut self, clients: usize, now: Now) -> Result<Order, Order> {
        if let Some(order) = self.order {
            return Err(order);
        }
        self.begun += 1;
        self.through = 0;
        let spread = nanos(self.times.spread).min((clients as u64).saturating_mul(SLOWEST));
        let from = now.after(self.times.delay);
        let until = from.saturating_add(spread);
        let first = Order { drain: self.begun, stage: Stage::Spread, from, until, clients };
        let order = if until > now.mono { first } else { self.quiesce(first, now) };
        self.order = Some(order);
        Ok(order)
    }

    /// Takes the drain back, as long as publishers are read.
    pub fn undo(&mut self) -> Undo {
        match self.order {
            None => Undo::Nothing,
            Some(Order { stage: Stage::Spread, clients, .. }) => {
                self.order = None;
                self.undone += 1;
                Undo::Done { clients }
            }
            Some(_) => Undo::TooLate,
        }
    }

    /// One of `shards` shards is through with what it was ordered; answers the next stage where it was the last. A
    /// shard that speaks of a drain that was taken back is not heard.
    pub fn end(&mut self, ended: Order, shards: usize, now: Now) -> Option<Order> {
        if self.order != Some(ended) {
            return None;
        }
        self.through += 1;
        if self.through < shards {
            return None;
        }
        self.through = 0;
        let next = match ended.stage {
            Stage::Spread => self.quiesce(ended, now),
            Stage::Quiesce => Order { stage: Stage::Deliver, ..ended },
            Stage::Deliver => Order { stage: Stage::Farewell, ..ended },
            Stage::Farewell => return None,
        };
        self.order = Some(next);
        Some(next)
    }

    fn quiesce(&self, order: Order, now: Now) -> Order {
        Order { stage: Stage::Quiesce, from: now.mono, until: now.after(self.times.rest), ..order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(mono: u64) -> Now {
        Now { mono, wall_ms: 0 }
    }

    fn course(delay: u64, spread: u64) -> Course {
        let seconds = Duration::from_secs;
        Course::new(Times { delay: seconds(delay), spread: seconds(spread), rest: seconds(10) })
    }

    #[test]
    fn closes_are_spread_over_the_time_but_a_few_do_not_make_it_last() {
        for (delay, spread, clients, from, until) in [
            (0, 10, 5_000, 0, 10 * SECOND),
            (0, 10, 1_000, 0, 10 * SECOND),
            (0, 10, 1, 0, SECOND / 100),
            (3, 10, 200, 3 * SECOND, 5 * SECOND),
            // Load balancers are given their time also where nobody is connected.
            (3, 10, 0, 3 * SECOND, 3 * SECOND),
            (3, 0, 900, 3 * SECOND, 3 * SECOND),
        ] {
            let order = course(delay, spread).begin(clients, at(0)).unwrap();
            assert_eq!((order.stage, order.from, order.until), (Stage::Spread, from, until));
        }
        for (spread, clients) in [(0, 900), (10, 0)] {
            let order = course(0, spread).begin(clients, at(7)).unwrap();
            assert_eq!((order.stage, order.from, order.until), (Stage::Quiesce, 7, 7 + 10 * SECOND));
        }
    }

    #[test]
    fn a_stage_begins_when_every_shard_is_through_with_the_one_before() {
        let mut course = course(0, 10);
        let mut order = course.begin(50, at(0)).unwrap();
        assert_eq!(course.begin(50, at(1)), Err(order));
        for stage in [Stage::Quiesce, Stage::Deliver, Stage::Farewell] {
            assert_eq!(course.end(order, 3, at(5)), None);
            assert_eq!(course.end(order, 3, at(5)), None);
            let next = course.end(order, 3, at(5)).unwrap();
            assert_eq!((next.stage, next.until, next.clients), (stage, 5 + 10 * SECOND, 50));
            // Who speaks of the one before is not heard.
            assert_eq!(course.end(order, 3, at(5)), None);
            assert_eq!(course.undo(), Undo::TooLate);
            order = next;
        }
        assert_eq!(course.end(order, 1, at(5)), None);
        assert_eq!((course.order(), course.counts()), (Some(order), (1, 0)));
    }

    #[test]
    fn what_is_said_of_a_drain_that_was_taken_back_counts_for_no_other() {
        let mut course = course(0, 10);
        assert_eq!(course.undo(), Undo::Nothing);
        let first = course.begin(50, at(0)).unwrap();
        assert_eq!(course.end(first, 2, at(1)), None);
        assert_eq!(course.undo(), Undo::Done { clients: 50 });
        assert_eq!(course.end(first, 2, at(1)), None);
        assert_eq!((course.order(), course.undo()), (None, Undo::Nothing));
        // Begun anew at the same moment, all but its number is the same.
        let second = course.begin(50, at(0)).unwrap();
        assert_eq!(second, Order { drain: 2, ..first });
        assert_eq!(course.end(first, 2, at(1)), None);
        assert_eq!(course.end(second, 2, at(1)), None);
        assert_eq!(course.end(second, 2, at(1)).map(|order| order.stage), Some(Stage::Quiesce));
        assert_eq!(course.counts(), (2, 1));
    }
}
