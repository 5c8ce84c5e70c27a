//! One subscriber: how far its connection is, and which events it got.

use std::ops::Range;

use super::figures::Counts;
use super::probe::MARKED_LEN;

/// How far a subscriber is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TCP.
    Connecting,
    /// It has said what it had to at this step, and waits for the answer.
    SettingUp(u8),
    /// Subscribed: what comes are events.
    Ready,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) stage: Stage,
    /// Which of the plan's protocols it speaks.
    pub(crate) protocol: u8,
    pub(crate) topic: u32,
    /// The number of the newest event that it got.
    pub(crate) newest: u64,
    /// When that was.
    pub(crate) fed: u64,
    /// Numbers before that one which have not come.
    skipped: Vec<Range<u64>>,
    /// When its connection was begun.
    pub(crate) began: u64,
    pub(crate) carried: usize,
    pub(crate) carry: [u8; MARKED_LEN],
    /// What came before it was ready.
    pub(crate) answers: Vec<u8>,
}

impl Subscriber {
    pub(crate) fn new(protocol: u8, topic: u32, began: u64) -> Self {
        Self {
            stage: Stage::Connecting,
            protocol,
            topic,
            newest: 0,
            fed: 0,
            skipped: Vec::new(),
            began,
            carried: 0,
            carry: [0; MARKED_LEN],
            answers: Vec::new(),
        }
    }

    /// An event of its topic has come. Answers whether that is the first time.
    #[inline]
    pub(crate) fn take(&mut self, event: u64, counts: &mut Counts) -> bool {
        if event == self.newest + 1 {
            counts.deliveries += 1;
            self.newest = event;
            return true;
        }
        self.take_out_of_order(event, counts)
    }

    #[cold]
    fn take_out_of_order(&mut self, event: u64, counts: &mut Counts) -> bool {
        if event > self.newest {
            counts.skipped += event - self.newest - 1;
            counts.deliveries += 1;
            self.skipped.push(self.newest + 1..event);
            self.newest = event;
            return true;
        }
        match self.skipped.iter().position(|range| range.contains(&event)) {
            Some(place) => {
                let range = self.skipped.swap_remove(place);
                let rest = [range.start..event, event + 1..range.end];
                self.skipped.extend(rest.into_iter().filter(|range| !range.is_empty()));
                counts.skipped -= 1;
                counts.deliveries += 1;
                counts.reordered += 1;
                true
            }
            None => {
                counts.repeated += 1;
                false
            }
        }
    }

    /// Keeps what has to be looked at again with the next bytes: fewer than [`MARKED_LEN`].
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.carried = rest.len();
        self.carry[..rest.len()].copy_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_repeated_and_reordered_is_told_apart() {
        let mut subscriber = Subscriber::new(0, 0, 0);
        let mut counts = Counts::default();
        let first = [1, 2, 5, 4, 4, 2, 8, 3].map(|event| subscriber.take(event, &mut counts));
        assert_eq!(first, [true, true, true, true, false, false, true, true]);
        let Counts { deliveries, skipped, repeated, reordered, .. } = counts;
        assert_eq!((deliveries, skipped, repeated, reordered), (6, 2, 2, 2), "6 and 7 are lost");
        assert_eq!(subscriber.skipped, vec![6..8; 1]);
    }
}
