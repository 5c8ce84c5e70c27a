//! What a shard needed once and needs no more, given back: after ten thousand clients have gone, tables as long as
//! that and the buffers of what they were owed are nobody's.

use crate::fanout::connection::Scratch;
use crate::fanout::shard::Shard;
use crate::slack::is_loose;
use crate::transport::Transport;

/// What a connection, and a subscription, take about, in bytes.
const CONNECTION: usize = 1024;
const SUBSCRIPTION: usize = 512;
/// Places in the timer wheel that nobody minds.
const FLOOR: usize = 64;
/// So many bytes must have gone before the allocator is asked for them.
const MUCH: usize = 256 << 10;

/// How much a shard needs, and needed at most since the allocator was last asked for what went.
#[derive(Debug, Default)]
pub(super) struct Needs {
    most: usize,
    has_given: bool,
}

impl Needs {
    /// Notes what is needed now, in bytes.
    fn note(&mut self, now: usize) {
        self.most = self.most.max(now);
    }

    /// Notes that much has gone which is not counted here.
    pub(super) fn note_gone(&mut self) {
        self.has_given = true;
    }

    /// Where what is needed now is a quarter less than it was at most, the rest is given back.
    fn settle(&mut self, now: usize) {
        self.note(now);
        if self.most - now >= MUCH && now < self.most / 4 * 3 {
            self.most = now;
            self.has_given = true;
        }
    }
}

impl<T: Transport> Shard<T> {
    /// Whether much has been given to the allocator since this was last asked: it may be given back to the system.
    pub fn takes_much_back(&mut self) -> bool {
        std::mem::take(&mut self.needs.has_given)
    }

    /// Notes how much is needed. To be called every turn: who comes and goes between two calls of [`Shard::tidy`] leaves
    /// as much behind as anybody.
    pub(super) fn note_needs(&mut self) {
        self.needs.note(self.needed());
    }

    /// Bytes that are needed now, about.
    fn needed(&self) -> usize {
        let (connections, subscriptions) = (self.connections.len(), self.subscribers.members());
        let bytes = self.held_bytes() + self.chunks.pooled_bytes();
        connections * CONNECTION + subscriptions * SUBSCRIPTION + bytes
    }

    /// Gives back what is not needed any more. To be called a few times a second, and again after the last time that
    /// something went.
    pub(super) fn tidy(&mut self) {
        self.needs.settle(self.needed());
        macro_rules! tighten {
            ($($queue:ident)*) => {
                $(if is_loose(self.$queue.capacity(), self.$queue.len()) {
                    self.$queue.shrink_to(2 * self.$queue.len());
                })*
            };
        }
        let connections = &self.connections;
        if self.wheel.len() > 2 * connections.len() + FLOOR {
            self.wheel.retain(|due| {
                let connection = connections.get(due.connection as usize);
                connection.is_some_and(|c| c.generation == due.generation && c.armed == due.tick)
            });
        }
        // Whoever writes next makes it anew: a few times a second that costs nothing.
        self.scratch = Scratch::default();
        self.sweep.tidy();
        self.pause.tidy();
        tighten!(ready sources requests starved handshakes due);
        if is_loose(self.connections.capacity(), self.connections.len()) {
            // Only behind the last connection that is there: all keep their numbers.
            self.connections.shrink_to_fit();
        }
        self.subscribers.tidy();
        self.chunks.tidy();
        self.shared.links[self.id].tidy(&mut self.inbox);
        self.ingress.tidy();
        self.is_tidy = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_is_given_back_once_it_is_a_quarter_and_much() {
        let mut needs = Needs::default();
        let mut given = |now: usize| {
            needs.settle(now << 18);
            std::mem::take(&mut needs.has_given)
        };
        assert_eq!(
            [given(8), given(7), given(6), given(5), given(5), given(4)],
            [false, false, false, true, false, false]
        );
        assert_eq!([given(3), given(2), given(9), given(0)], [true, true, false, true]);
        let mut needs = Needs::default();
        needs.settle(MUCH - 1);
        needs.settle(0);
        assert!(!needs.has_given, "it is not worth a call");
        needs.note(MUCH);
        needs.settle(0);
        assert!(needs.has_given, "who came and went was seen");
    }
}
