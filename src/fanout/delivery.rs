//! Pushing a round to one subscriber: what his queue takes, and what goes by his policy where it takes no more.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::Limits;
use crate::event::Round;
use crate::fanout::connection::{Connection, Role};
use crate::fanout::subscribers::Member;
use crate::metrics::{DropReason, ShardMetrics};
use crate::receipt::{Expected, Fate, Receipt};
use crate::session::chunk::{Chunks, Gap, Span};
use crate::session::outbox::Bound;
use crate::session::policy::Policy;
use crate::session::session::{Filter, NOT_LISTED};

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is queued, but for what was left out.
    Queued,
    /// The queue is full, and nothing may be left out.
    TooSlow,
    /// The queue is full, and the subscription goes on from the history: it is to leave its list.
    Behind,
}

/// The push of one round to one list.
pub(super) struct Delivery<'a> {
    pub(super) chunks: &'a mut Chunks,
    pub(super) metrics: &'a ShardMetrics,
    pub(super) limits: &'a Limits,
    /// The events of the round that there are receipts for.
    pub(super) expected: &'a [Expected],
    /// Sessions that simply got all of it.
    pub(super) matched: u32,
    pub(super) dispatched: u64,
    /// Spans made that the round's chunk has to count.
    pub(super) spans: u32,
}

impl Delivery<'_> {
    pub(super) fn push<T>(&mut self, connection: &mut Connection<T>, span: Span, bytes: usize) {
        self.matched += 1;
        self.dispatched += u64::from(span.frames());
        self.spans += u32::from(connection.outbox.push(span, bytes, self.chunks));
    }

    /// The receipt for the event at a place in the round.
    fn receipt(&self, place: usize) -> Option<&Receipt> {
        let found = self.expected.binary_search_by_key(&(place as u32), |expected| expected.place).ok()?;
        Some(&self.expected[found].receipt)
    }

    /// For whoever does not simply get everything: one event at a time.
    pub(super) fn push_carefully<T>(
        &mut self,
        connection: &mut Connection<T>,
        member: Member,
        all: Span,
        round: &Round,
        offset: u64,
    ) -> Verdict {
        let Role::Client(session) = &mut connection.role else { return Verdict::Queued };
        let queue_events = session.terms(self.limits).queue_events;
        let bound = Bound { events: queue_events as u32, bytes: self.limits.queue_bytes };
        let subscription = session.subscriptions.get_mut(member.subscription);
        let (joined, mut gap) = (subscription.joined, subscription.take_gap());
        let wants = wanted(subscription.filter().map(Arc::as_ref), round);
        let mut verdict = Verdict::Queued;
        let droppable = member.policy.drops_queued();
        for (place, is_wanted) in wants.into_iter().enumerate() {
            if !is_wanted || offset + place as u64 <= joined {
                continue;
            }
            if let Some(receipt) = self.receipt(place) {
                receipt.add_matched(1);
            }
            if verdict == Verdict::Behind {
                continue; // It comes from the history.
            }
            connection.last_several = round.several;
            let start = all.start + place as u32;
            let bytes = self.chunks.frames_len(all.chunk, start, start + 1);
            let key = self.chunks.key(all.chunk, start);
            if !self.make_room(connection, member, (all.topic, key), bytes, bound, &mut gap) {
                let reason = match member.policy {
                    // It counts as dispatched and goes with the rest of the queue when the client is closed.
                    Policy::Disconnect => {
                        verdict = Verdict::TooSlow;
                        None
                    }
                    Policy::Replay => {
                        if let Role::Client(session) = &mut connection.role {
                            let subscription = session.subscriptions.get_mut(member.subscription);
                            subscription.joined = offset + place as u64 - 1;
                            // At once: the event may have further topics that the client is subscribed to.
                            subscription.place = NOT_LISTED;
                        }
                        connection.is_replaying = true;
                        connection.has_replayed = true;
                        verdict = Verdict::Behind;
                        continue;
                    }
                    // Nothing older may go: this one does.
                    Policy::DropOldest | Policy::Conflate => Some(DropReason::DropOldest),
                    Policy::DropNewest => Some(DropReason::DropNewest),
                };
                if let Some(reason) = reason {
                    gap += Gap::dropped(1);
                    self.dispatched += 1;
                    leave_out(self.metrics, connection, reason, 1);
                    if let Some(receipt) = self.receipt(place) {
                        receipt.note(Fate::LeftOut);
                    }
                    continue;
                }
            }
            let gap = std::mem::take(&mut gap);
            let span = Span { start, end: start + 1, gap, droppable, ..all };
            self.dispatched += 1;
            if connection.outbox.push(span, bytes, self.chunks) {
                // At once: the round's next event may already leave this one out.
                self.chunks.retain(span.chunk, 1);
            }
        }
        if !gap.is_none() {
            note_gap(connection, all.topic, gap);
        }
        verdict
    }

    /// Leaves out older events until there is room; answers whether there is. `gap` collects what of the same
    /// topic went and has no other place to be told.
    fn make_room<T>(
        &mut self,
        connection: &mut Connection<T>,
        member: Member,
        (topic, key): (u32, u64),
        bytes: usize,
        bound: Bound,
        gap: &mut Gap,
    ) -> bool {
        while !connection.outbox.has_room(1, bytes, bound) {
            if !member.policy.drops_queued() {
                return false;
            }
            let conflated = (key != 0 && member.policy == Policy::Conflate)
                .then(|| connection.outbox.drop_key(topic, key, self.chunks))
                .flatten();
            let reason = if conflated.is_some() { DropReason::Conflated } else { DropReason::DropOldest };
            let dropped = conflated.or_else(|| connection.outbox.drop_oldest(self.chunks));
            let Some(dropped) = dropped else { return false };
            leave_out(self.metrics, connection, reason, 1);
            if !dropped.pending_gap.is_none() {
                let Role::Client(session) = &connection.role else { return false };
                if session.subscriptions.get(member.subscription).topic == dropped.topic {
                    *gap += dropped.pending_gap;
                } else {
                    note_gap(connection, dropped.topic, dropped.pending_gap);
                }
            }
        }
        true
    }
}

/// Which of a round's events a subscription wants.
fn wanted(filter: Option<&Filter>, round: &Round) -> SmallVec<[bool; 16]> {
    match filter {
        None => SmallVec::from_elem(true, round.events.len()),
        Some(filter) => {
            let is_category_wanted = filter.wants_category(round.category());
            round.events.iter().map(|event| is_category_wanted && filter.wants_event(event.name)).collect()
        }
    }
}

/// Counts events that were left out of a session's queue, for the node and for the session.
pub(super) fn leave_out<T>(
    metrics: &ShardMetrics,
    connection: &mut Connection<T>,
    reason: DropReason,
    count: u64,
) {
    metrics.drop_events(reason, count);
    if let Role::Client(session) = &mut connection.role {
        session.note_dropped(reason, count);
    }
}

/// Keeps a count of missing events on the subscription until it can be told.
pub(super) fn note_gap<T>(connection: &mut Connection<T>, topic: u32, gap: Gap) {
    let Role::Client(session) = &mut connection.role else { return };
    if !gap.is_none()
        && let Some(number) = session.subscriptions.find(topic)
    {
        session.subscriptions.get_mut(number).add_gap(gap);
        connection.has_gaps = true;
    }
}
