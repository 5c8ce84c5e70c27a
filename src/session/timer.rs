//! One timer wheel per shard: coarse, lazy, twelve bytes for each connection that waits.
//!
//! A connection has one place in the wheel. What is due is asked when it comes up: a heartbeat that was put
//! off by a sign of life costs nothing until then.

use crate::slack::is_loose;

/// Nanoseconds of one tick.
pub const TICK: u64 = 50_000_000;

const SLOTS: u64 = 2_048;

/// A connection that came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The connection's number.
    pub connection: u32,
    /// Its generation: another connection may have the number by now.
    pub generation: u32,
    /// The tick it was armed for: a connection that was armed anew since has another. The low half of its number,
    /// which is enough for six years.
    pub tick: u32,
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Box<[Vec<Due>]>,
    /// The last tick that was turned past.
    tick: u64,
    len: usize,
}

impl Wheel {
    /// An empty wheel.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: 0, len: 0 }
    }

    /// The tick in which `at` nanoseconds is reached, never the present one. Beyond the wheel's reach of about
    /// 100 seconds it is the last tick that is within: the connection then asks again.
    pub fn tick_of(&self, at: u64) -> u32 {
        at.div_ceil(TICK).clamp(self.tick + 1, self.tick + SLOTS - 1) as u32
    }

    /// Arms a connection for a tick from [`Wheel::tick_of`].
    pub fn arm(&mut self, due: Due) {
        // There is a power of two of them, so the low half of a tick finds its slot.
        self.slots[(u64::from(due.tick) % SLOTS) as usize].push(due);
        self.len += 1;
    }

    /// Takes out what is due at `now`.
    pub fn expire(&mut self, now: u64, due: &mut Vec<Due>) {
        let target = now / TICK;
        if self.len == 0 {
            self.tick = self.tick.max(target);
            return;
        }
        // After a long sleep every slot is looked at once, not once for each tick slept through.
        let turns = target.saturating_sub(self.tick).min(SLOTS);
        for tick in target + 1 - turns..=target {
            let slot = &mut self.slots[(tick % SLOTS) as usize];
            self.len -= slot.len();
            due.append(slot);
            // There are thousands of slots: what each may keep adds up.
            if slot.capacity() > 4 {
                *slot = Vec::new();
            }
        }
        self.tick = self.tick.max(target);
    }

    /// How many places are taken: a connection that has gone leaves its own until it comes up.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out what will be passed over when it comes up: of those that come and go quickly, a wheel is full.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&Due) -> bool) {
        for slot in &mut self.slots {
            slot.retain(&mut is_wanted);
            if is_loose(slot.capacity(), slot.len()) {
                slot.shrink_to_fit();
            }
        }
        self.len = self.slots.iter().map(Vec::len).sum();
    }

    /// When the next connection comes up, in nanoseconds.
    pub fn next(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let ticks = self.tick + 1..=self.tick + SLOTS;
        ticks.into_iter().find(|tick| !self.slots[(tick % SLOTS) as usize].is_empty()).map(|tick| tick * TICK)
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(wheel: &mut Wheel, connection: u32, at: u64) -> u32 {
        let tick = wheel.tick_of(at);
        wheel.arm(Due { connection, generation: 0, tick });
        tick
    }

    fn expire(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.iter().map(|due| due.connection).collect()
    }

    #[test]
    fn nothing_comes_up_early_and_nothing_is_forgotten() {
        let mut wheel = Wheel::new();
        arm(&mut wheel, 1, TICK * 3);
        arm(&mut wheel, 2, TICK * 3 + 1);
        arm(&mut wheel, 3, 0);
        assert_eq!(wheel.next(), Some(TICK));
        assert!(expire(&mut wheel, TICK - 1).is_empty());
        assert_eq!(expire(&mut wheel, TICK), [3]);
        assert_eq!(wheel.next(), Some(TICK * 3));
        assert_eq!(expire(&mut wheel, TICK * 3), [1]);
        assert_eq!(expire(&mut wheel, TICK * 4), [2]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn far_deadlines_come_up_at_the_wheels_end_and_long_sleeps_lose_none() {
        let mut wheel = Wheel::new();
        assert!(expire(&mut wheel, TICK * 10_000).is_empty());
        let tick = arm(&mut wheel, 1, TICK * 100_000);
        assert_eq!(u64::from(tick), 10_000 + SLOTS - 1);
        for connection in 2..100 {
            arm(&mut wheel, connection, TICK * (10_000 + u64::from(connection) * 17));
        }
        assert_eq!(expire(&mut wheel, TICK * 50_000).len(), 99);
        assert_eq!(wheel.next(), None);
        arm(&mut wheel, 1, 0);
        assert_eq!(expire(&mut wheel, TICK * 50_001), [1]);
    }

    #[test]
    fn who_has_gone_leaves_no_place_behind() {
        let mut wheel = Wheel::new();
        for connection in 0..10_000 {
            arm(&mut wheel, connection, TICK * u64::from(connection % 3 + 1));
        }
        wheel.retain(|due| due.connection % 100 == 0);
        let room: usize = wheel.slots.iter().map(Vec::capacity).sum();
        assert_eq!((wheel.len(), room), (100, 100));
        assert_eq!(expire(&mut wheel, TICK * 3).len(), 100);
        assert!(wheel.is_empty());
    }
}
