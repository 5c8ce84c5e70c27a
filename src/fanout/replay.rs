//! History on its way to a client: read in pieces as its socket takes them, until it has caught up and stands
//! in the list of those who are served as events come.
//!
//! Replay and live delivery meet without gap or repeat: the shard is interested in the topic all the while, so
//! what is appended after the last piece was read is in its link. A subscription stands in its list again once
//! nothing was left to read; what the link still brings of what it read is passed over (`joined`).

use std::sync::Arc;

use crate::clock::Now;
use crate::dialect::command::Subscribe;
use crate::dialect::envelope::Frames;
use crate::event::Round;
use crate::fanout::connection::Role;
use crate::fanout::shard::Shard;
use crate::fanout::subscribers::Member;
use crate::metrics::DropReason;
use crate::session::chunk::{Gap, Span};
use crate::session::session::{NOT_LISTED, Session};
use crate::topic::history::Piece;
use crate::topic::log::NO_SLOT;
use crate::transport::Transport;

/// Bytes of events read at once for one client: what thousands of them hold at the same time counts.
const PIECE: usize = 16 << 10;
/// Pieces without an event that the client wants, after which others come first.
const EMPTY_PIECES: usize = 64;

impl<T: Transport> Shard<T> {
    /// From now on a subscription is served from the history, from after this offset on.
    pub(super) fn rewind(&mut self, number: u32, subscription: u32, after: u64) {
        let connection = &mut self.connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        let subscription = session.subscriptions.get_mut(subscription);
        subscription.joined = after;
        connection.is_replaying = true;
        connection.has_replayed = true;
        let place = std::mem::replace(&mut subscription.place, NOT_LISTED);
        let list = (subscription.topic, subscription.list);
        if place != NOT_LISTED {
            self.delist(list, place);
        }
    }

    /// Gives a client that has taken everything the next piece of what it is behind with.
    pub(super) fn replay(&mut self, number: u32, now: Now) {
        for _ in 0..EMPTY_PIECES {
            let connection = &mut self.connections[number as usize];
            let Role::Client(session) = &connection.role else { return };
            let Some(subscription) = session.next_replaying() else {
                connection.is_replaying = false;
                return;
            };
            if self.replay_piece(number, subscription, now) {
                break;
            }
        }
        // Also where nothing was wanted so far: its turn comes again.
        self.owe(number);
    }

    /// Reads one piece; answers whether the client was given an event.
    fn replay_piece(&mut self, number: u32, subscription_number: u32, now: Now) -> bool {
        let Self { connections, subscribers, shared, id, .. } = self;
        let connection = &mut connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return false };
        session.replayed = subscription_number;
        let subscription = session.subscriptions.get_mut(subscription_number);
        let (slot, list) = (subscription.topic, subscription.list);
        let topic = Arc::clone(&subscribers.get(slot).topic);
        let reading = shared.topics.read(&topic, subscription.joined, PIECE, now.mono);
        let metrics = &shared.metrics[*id];
        if subscription.joined + 1 < reading.oldest {
            let missing = reading.oldest - 1 - subscription.joined;
            subscription.joined = reading.oldest - 1;
            subscription.gap += Gap::dropped(u32::try_from(missing).unwrap_or(u32::MAX));
            connection.has_gaps = true;
            metrics.dispatched.add(missing);
            metrics.drop_events(DropReason::HistoryTrimmed, missing);
        }
        let Some(last) = reading.pieces.last() else {
            // Nothing is left: what is appended from now on comes through the link.
            subscription.joined = reading.head;
            let (policy, filtered) = (subscription.policy, subscription.filter.is_some());
            let member = Member { connection: number, subscription: subscription_number, policy, filtered };
            subscription.place = subscribers.enlist((slot, list), reading.head, member);
            return false;
        };
        subscription.joined = last.offset + last.events.len() as u64 - 1;
        let id = *id;
        self.push_pieces(number, subscription_number, &reading.pieces, now, |session, round, offset, name| {
            match round.several {
                0 => session.subscriptions.get(subscription_number).wants(offset, name, &round.category),
                _ => comes_through(session, round, id) == Some(slot),
            }
        })
    }

    /// Sends a client the newest event of each key of the topics that it subscribes to, where it asks for them.
    pub(super) fn send_last(&mut self, number: u32, subscribe: &Subscribe, now: Now) {
        if !subscribe.last {
            return;
        }
        for name in &subscribe.topics {
            let Role::Client(session) = &self.connections[number as usize].role else { return };
            let Some(topic) = self.subscribers.find(name) else { continue };
            let Some(subscription_number) = session.subscriptions.find(topic) else { continue };
            let subscription = session.subscriptions.get(subscription_number);
            if subscription.is_replaying() {
                continue; // It gets them, and all between.
            }
            let topic = &self.subscribers.get(topic).topic;
            let pieces = self.shared.topics.newest_by_key(topic, subscription.joined, now.mono);
            let filter = subscription.filter.clone();
            self.push_pieces(number, subscription_number, &pieces, now, |_, round, _, name| {
                filter.as_ref().is_none_or(|f| f.wants_event(name) && f.wants_category(&round.category))
            });
            self.owe(number);
        }
    }

    /// Queues those events of the pieces that are wanted; answers whether there was one.
    fn push_pieces(
        &mut self,
        number: u32,
        subscription_number: u32,
        pieces: &[Piece],
        now: Now,
        is_wanted: impl Fn(&Session, &Round, u64, &str) -> bool,
    ) -> bool {
        let Self { connections, subscribers, chunks, shared, iso, id, .. } = self;
        let connection = &mut connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return false };
        let subscription = session.subscriptions.get(subscription_number);
        let (slot, policy) = (subscription.topic, subscription.policy);
        let topic = &subscribers.get(slot).topic;
        let metrics = &shared.metrics[*id];
        let (envelope, values) = (session.envelope, session.values.as_ref());
        let template = shared.envelopes.get(envelope);
        let mut keys = Vec::new();
        let at = chunks.add(now.mono, |bytes, ends| {
            for Piece { round, offset, events } in pieces {
                let by_topic = round.several != 0 && template.is_by_topic();
                let frames = round.frames(envelope, values, by_topic.then_some(topic), || {
                    metrics.envelope_writes.add(round.events.len() as u64);
                    let mut frames = Frames::default();
                    let values = values.map(|values| &**values).unwrap_or_default();
                    template.write(round, topic, values, iso, &mut frames.bytes, &mut frames.ends);
                    frames
                });
                let named = round.events.iter().map(|event| event.name).zip(shared.key_hashes(&round.events));
                for (place, (name, key)) in named.enumerate().take(events.end).skip(events.start) {
                    if is_wanted(session, round, offset + (place - events.start) as u64, name) {
                        bytes.extend_from_slice(frames.frame(place));
                        ends.push(bytes.len() as u32);
                        keys.push(key);
                    }
                }
            }
        });
        if keys.iter().any(|key| *key != 0) {
            chunks.set_keys(at.chunk, at.start, keys.into_iter());
        }
        chunks.retain(at.chunk, 1);
        let count = at.end - at.start;
        if count > 0 {
            let gap = std::mem::take(&mut session.subscriptions.get_mut(subscription_number).gap);
            let droppable = policy.drops_queued();
            let span = Span { chunk: at.chunk, start: at.start, end: at.end, topic: slot, gap, droppable };
            let bytes = chunks.frames_len(at.chunk, at.start, at.end);
            metrics.dispatched.add(u64::from(count));
            metrics.replayed.add(u64::from(count));
            if connection.outbox.push(span, bytes, chunks) {
                chunks.retain(at.chunk, 1);
            }
        }
        chunks.release(at.chunk);
        count > 0
    }
}

/// The shard's number of the topic that an event of several comes to a session through: the first of its
/// topics whose subscription began before it and wants it.
pub(super) fn comes_through(session: &Session, round: &Round, shard: usize) -> Option<u32> {
    let event = round.events.iter().next()?;
    round.topics.iter().find_map(|placed| {
        let slot = placed.topic.slot(shard);
        let number = if slot == NO_SLOT { None } else { session.subscriptions.find(slot) }?;
        let subscription = session.subscriptions.get(number);
        subscription.wants(placed.offset, event.name, &round.category).then_some(slot)
    })
}
