//! What a shard needed once and needs no more, given back: after ten thousand clients have gone, tables as long as
//! that and the buffers of what they were owed are nobody's.

use crate::fanout::shard::Shard;
use crate::slack::is_loose;
use crate::transport::Transport;

impl<T: Transport> Shard<T> {
    /// Gives back what is not needed any more. To be called a few times a second, and again after the last time that
    /// something went.
    pub(super) fn tidy(&mut self) {
        macro_rules! tighten {
            ($($queue:ident)*) => {
                $(if is_loose(self.$queue.capacity(), self.$queue.len()) {
                    self.$queue.shrink_to(2 * self.$queue.len());
                })*
            };
        }
        self.sweep.tidy();
        tighten!(ready starved handshakes due);
        if is_loose(self.connections.capacity(), self.connections.len()) {
            // Only behind the last connection that is there: all keep their numbers.
            self.connections.shrink_to_fit();
        }
        self.subscribers.tidy();
        self.chunks.tidy();
        self.is_tidy = true;
    }
}
