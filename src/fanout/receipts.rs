//! Receipts on a shard: which sessions an event is for, when all of them have been flushed, and the answer to the
//! publisher. What becomes of an event is counted where it happens: in `dispatch` and in the outbox.

use std::sync::Arc;

use crate::clock::Now;
use crate::event::Round;
use crate::fanout::connection::{FLUSH_BYTES, Role};
use crate::fanout::replay::{Way, comes_through};
use crate::fanout::shard::Shard;
use crate::fanout::shared::Message;
use crate::publish::wire::encode_receipt;
use crate::receipt::{Asker, Expected, Fate, Key, Receipt};
use crate::session::session::Session;
use crate::topic::topic::NO_SLOT;
use crate::transport::Transport;

/// A dispatched round whose receipts wait for the connections that are owed it.
#[derive(Debug)]
pub(super) struct Unflushed {
    receipts: Arc<Vec<Expected>>,
    /// All of them have been flushed once when so many have left the sweep. `None`: some are held back in it.
    swept: Option<u64>,
    /// Flushes that had been put off when the round began to wait: where there were more since, some of its
    /// connections may have been flushed only in part, and are in the sweep again.
    postponed: u64,
    /// How often that is waited for.
    again: usize,
}

impl<T: Transport> Shard<T> {
    /// Counts the sessions that get events of a round from a history, or have got them from there: dispatching it
    /// passes them over. To be called before that.
    pub(super) fn match_replaying(&self, round: &Round, expected: &[Expected]) {
        if expected.is_empty() {
            return; // Nobody asked: what follows is not for every round.
        }
        let is_served_by_history = round.topics.iter().any(|placed| {
            let local = match placed.topic.slot(self.id) {
                NO_SLOT => return false,
                slot => self.subscribers.get(slot),
            };
            let listed: usize = local.lists.iter().map(|list| list.members.len()).sum();
            local.members() > listed || placed.offset <= local.joined
        });
        if !is_served_by_history {
            return;
        }
        for (_, connection) in self.connections.iter().filter(|(_, connection)| connection.has_replayed) {
            let Role::Client(session) = &connection.role else { continue };
            for Expected { place, receipt } in expected {
                let Some(has_it) = self.is_served_by_history(session, round, *place) else { continue };
                receipt.add_matched(1);
                // Whether what was sent has gone out is known only of who is owed nothing.
                if has_it && connection.outbox.is_empty() {
                    receipt.note(Fate::Written);
                }
            }
        }
    }

    /// Whether an event that comes to a session from a history, so that dispatching it passes the session over, has
    /// come; `None`: it does not come from there.
    fn is_served_by_history(&self, session: &Session, round: &Round, place: u32) -> Option<bool> {
        let event = round.events.range(place as usize..place as usize + 1).next()?;
        let mut has_it = None;
        for placed in &round.topics {
            let slot = placed.topic.slot(self.id);
            let number = (slot != NO_SLOT).then(|| session.subscriptions.find(slot)).flatten();
            let Some(subscription) = number.map(|number| session.subscriptions.get(number)) else { continue };
            let offset = placed.offset + u64::from(place);
            if !subscription.wants(offset, event.name, round.category()) {
                continue;
            }
            // Past what its history had let go of before it was read, it has only come by.
            let is_kept = || self.shared.topics.oldest(&placed.topic).is_some_and(|oldest| oldest <= offset);
            let has_come = subscription.joined >= offset && is_kept();
            has_it = Some(has_it.unwrap_or(true) && has_come);
            let is_pushed = !subscription.is_replaying() && subscription.joined < offset;
            let through = || comes_through(session, &self.subscribers, round, self.id, slot, Way::Link);
            if is_pushed && (round.several == 0 || through()) {
                return None; // It is counted where it is pushed.
            }
        }
        has_it
    }

    /// The receipts of a round that was dispatched just now wait until every connection that is owed it has been
    /// flushed: those are in the sweep, or blocked.
    pub(super) fn await_flush(&mut self, round: &Round, receipts: Arc<Vec<Expected>>) {
        let again = 4 + 4 * round.events.bytes() / FLUSH_BYTES;
        let swept = (!self.sweep.is_holding()).then(|| self.sweep.popped().1);
        self.unflushed.push_back(Unflushed { receipts, swept, postponed: self.postponed, again });
    }

    /// Those that were held back are not any more.
    pub(super) fn begin_flush(&mut self) {
        let (_, all) = self.sweep.popped();
        for round in &mut self.unflushed {
            round.swept.get_or_insert(all);
        }
    }

    /// Lets the receipts go whose connections have been flushed.
    pub(super) fn settle_receipts(&mut self, now: Now) {
        let ((popped, all), mut waiting) = (self.sweep.popped(), self.unflushed.len());
        while waiting > 0
            && self.unflushed.front().is_some_and(|round| round.swept.is_some_and(|swept| swept <= popped))
            && let Some(mut round) = self.unflushed.pop_front()
        {
            waiting -= 1;
            let is_owed = |expected: &Expected| expected.receipt.reach().queued > 0;
            // Whoever is owed it still stands in the sweep, or is blocked by now.
            let waits = all > popped && round.postponed != self.postponed;
            if waits && round.again > 0 && round.receipts.iter().any(is_owed) {
                round.swept = Some(all);
                round.postponed = self.postponed;
                round.again -= 1;
                self.unflushed.push_back(round);
                continue;
            }
            round.receipts.iter().for_each(|expected| self.let_go(&expected.receipt));
        }
        if self.unflushed.is_empty() {
            self.check_delivered(now);
        }
    }

    /// This shard has counted all that it had to in a receipt; the last one sends it back.
    pub(super) fn let_go(&self, receipt: &Arc<Receipt>) {
        if receipt.let_go() {
            self.shared.links[receipt.asker.shard].send(Message::Receipt(Arc::clone(receipt)), 0);
        }
    }

    /// Who asks, where the answer comes to this shard.
    pub(super) fn asker(&self, number: u32) -> Asker {
        let generation = self.connections[number as usize].generation;
        Asker { shard: self.id, key: Key { number, generation } }
    }

    /// A receipt is complete: the one who asked gets it, if it is still there.
    pub(super) fn answer_receipt(&mut self, receipt: &Arc<Receipt>, now: Now) {
        let key = receipt.asker.key;
        let Some(connection) = self.connections.get_mut(key.number as usize) else { return };
        if connection.generation != key.generation {
            return;
        }
        match &mut connection.role {
            Role::Publisher(publisher) => {
                self.shared.metrics[self.id].receipts.one();
                publisher.receipts_due -= 1;
                publisher.unread_since.get_or_insert(now.mono);
                let is_over = publisher.has_ended && publisher.receipts_due == 0;
                let mut frame = Vec::new();
                encode_receipt(receipt.sequence, receipt.reach(), &mut frame);
                self.push_first(key.number, &frame);
                if is_over {
                    self.begin_closing(key.number, now);
                } else {
                    self.arm(key.number);
                }
            }
            Role::Http(_) => self.answer_batch(key.number, now),
            Role::Client(_) | Role::Closing(_) => {}
        }
    }
}
