//! History on its way to a client: read in pieces as its socket takes them, until it has caught up and stands
//! in the list of those who are served as events come.
//!
//! Replay and live delivery meet without gap or repeat: the shard is interested in the topic all the while, so
//! what is appended after the last piece was read is in its link. A subscription stands in its list again once
//! nothing was left to read; what the link still brings of what it read is passed over (`joined`).
//!
//! An event of several topics comes through that of its subscriptions which reaches it last. So the offsets that
//! a client has seen are always a place to go on from: whatever comes before them has come.

use std::collections::HashSet;
use std::sync::Arc;

use crate::clock::Now;
use crate::dialect::command::Subscribe;
use crate::dialect::envelope::Frames;
use crate::event::{Event, Round};
use crate::fanout::connection::Role;
use crate::fanout::shard::Shard;
use crate::fanout::subscribers::{Member, Subscribers};
use crate::fanout::writing::Writing;
use crate::metrics::DropReason;
use crate::session::brought::{Account, Brought};
use crate::session::chunk::{Appended, Gap, Span};
use crate::session::policy::Policy;
use crate::session::session::{Filter, Session, Subscription};
use crate::topic::history::{Piece, newest_by_key};
use crate::topic::table::Topics;
use crate::topic::topic::{NO_SLOT, Position};
use crate::transport::Transport;

/// Bytes of events read at once for one client: what thousands of them hold at the same time counts.
const PIECE: usize = 16 << 10;
/// Bytes of what is published that one chunk is to hold, about, of what is sent at once.
const AT_ONCE: usize = 128 << 10;
/// What a client may be owed when it asks for the newest events of its topics: they go past the bound of its queue.
const OWED_BEFORE_LAST: usize = 64 << 10;
/// A client that is owed less than this after a piece gets another one at once, and so joins those who are live when there
/// is none: where its turns are far apart, there would always be something new.
const ENOUGH: usize = PIECE / 2;
/// Pieces, most of them without an event that the client wants, after which others come first.
const PIECES: usize = 64;

impl<T: Transport> Shard<T> {
    /// From now on a subscription that stands in no list is served from the history, from after this offset on.
    pub(super) fn rewind(&mut self, number: u32, subscription: u32, after: u64) {
        let connection = &mut self.connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        session.subscriptions.get_mut(subscription).joined = after;
        connection.is_replaying = true;
        connection.has_replayed = true;
    }

    /// Gives a client that has taken everything the next piece of what it is behind with.
    pub(super) fn replay(&mut self, number: u32, now: Now) {
        for _ in 0..PIECES {
            let connection = &mut self.connections[number as usize];
            let Role::Client(session) = &connection.role else { return };
            let Some(subscription) = session.next_replaying() else {
                connection.is_replaying = false;
                break;
            };
            self.replay_piece(number, subscription, now);
            let given = self.connections[number as usize].outbox.bytes();
            // What is in the link it may have been given: a receipt then waits until that has gone out.
            if given > ENOUGH || (given > 0 && !self.link().is_empty()) {
                break;
            }
        }
        let connection = &self.connections[number as usize];
        // Also where nothing was wanted so far: its turn comes again.
        if connection.is_replaying || connection.has_gaps || !connection.outbox.is_empty() {
            self.owe(number);
        }
    }

    /// Reads one piece, and queues what the client wants of it.
    fn replay_piece(&mut self, number: u32, subscription_number: u32, now: Now) {
        let Self { connections, subscribers, shared, id, .. } = self;
        let connection = &mut connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        session.replayed = subscription_number;
        let subscription = session.subscriptions.get_mut(subscription_number);
        let (slot, list) = (subscription.topic, subscription.list);
        let topic = Arc::clone(&subscribers.get(slot).topic);
        let reading = shared.topics.read(&topic, subscription.joined, PIECE, now.mono);
        let metrics = &shared.metrics[*id];
        if subscription.joined + 1 < reading.oldest {
            let missing = reading.oldest - 1 - subscription.joined;
            subscription.joined = reading.oldest - 1;
            subscription.add_gap(Gap::dropped(u32::try_from(missing).unwrap_or(u32::MAX)));
            connection.has_gaps = true;
            metrics.dispatched.add(missing);
            metrics.drop_events(DropReason::HistoryTrimmed, missing);
            session.note_dropped(DropReason::HistoryTrimmed, missing);
        }
        let subscription = session.subscriptions.get_mut(subscription_number);
        let Some(last) = reading.pieces.last() else {
            // Nothing is left: what is appended from now on comes through the link.
            subscription.joined = reading.head;
            subscription.forget_brought();
            let (policy, filtered) = (subscription.policy, subscription.filter().is_some());
            let member = Member { connection: number, subscription: subscription_number, policy, filtered };
            subscription.place = subscribers.enlist((slot, list), reading.head, member);
            return;
        };
        subscription.joined = last.end() - 1;
        let id = *id;
        self.push_pieces(number, subscription_number, &reading.pieces, now, |session, subscribers, found| {
            let subscription = session.subscriptions.get(subscription_number);
            subscription.wants(found.offset, found.event.name, found.round.category())
                && (found.round.several == 0
                    || comes_through(session, subscribers, found.round, id, slot, Way::History))
        });
    }

    /// Sends a client the newest event of each key of the topics that it subscribes to, where it asks for them.
    ///
    /// # Errors
    /// It has not taken what it asked for before.
    pub(super) fn send_last(&mut self, number: u32, subscribe: &Subscribe, now: Now) -> Result<(), String> {
        if !subscribe.last {
            return Ok(());
        }
        let mut sent = HashSet::new();
        for name in &subscribe.topics {
            let connection = &self.connections[number as usize];
            let Role::Client(session) = &connection.role else { return Ok(()) };
            let Some(slot) = self.subscribers.find(name) else { continue };
            let Some(subscription_number) = session.subscriptions.find(slot) else { continue };
            let subscription = session.subscriptions.get(subscription_number);
            let local = self.subscribers.get(slot);
            let is_resuming =
                subscribe.since.as_ref().is_some_and(|since| since.of(name, &local.topic).is_some());
            if is_resuming || subscription.is_replaying() || local.topic.epoch().is_none() {
                continue; // It has them, or gets them and all between.
            }
            if connection.outbox.bytes() > OWED_BEFORE_LAST {
                return Err(format!("last: too much waits for this client; nothing was sent for {name:?}"));
            }
            let upto = subscription.joined.max(local.seen);
            let kept = self.shared.topics.kept(&local.topic, now.mono);
            let filter = subscription.filter().cloned();
            let mut newest = newest_by_key(&kept, upto, |round, name| {
                filter.as_ref().is_none_or(|filter| filter.wants(name, round.category()))
            });
            newest.retain(|piece| piece.round.several == 0 || sent.insert(piece.round.several));
            let mut rest = &newest[..];
            while !rest.is_empty() {
                let (mut count, mut bytes) = (0, 0);
                while bytes < AT_ONCE
                    && let Some(piece) = rest.get(count)
                {
                    let events = piece.round.events.range(piece.events.clone());
                    bytes += events.map(|event| 128 + event.data.len()).sum::<usize>();
                    count += 1;
                }
                let (first, later) = rest.split_at(count);
                rest = later;
                self.push_pieces(number, subscription_number, first, now, |_, _, _| true);
            }
            if !self.connections[number as usize].outbox.is_blocked() {
                self.owe(number);
            }
        }
        Ok(())
    }

    /// Queues those events of the pieces that are wanted.
    fn push_pieces(
        &mut self,
        number: u32,
        subscription_number: u32,
        pieces: &[Piece],
        now: Now,
        is_wanted: impl Fn(&Session, &Subscribers, &Found<'_>) -> bool,
    ) {
        let Self { connections, subscribers, chunks, shared, iso, deflater, id, .. } = self;
        let connection = &mut connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        let subscription = session.subscriptions.get(subscription_number);
        let (slot, policy) = (subscription.topic, subscription.policy);
        let form = subscribers.list((slot, subscription.list)).form();
        let topic = &subscribers.get(slot).topic;
        let metrics = &shared.metrics[*id];
        let mut writing = Writing { shared, metrics, iso, deflater };
        let mut wanted: Vec<(Arc<Frames>, usize)> = Vec::new();
        let mut keys = Vec::new();
        for Piece { round, offset, events } in pieces {
            let mut written = None;
            let found = round.events.range(events.clone()).zip(*offset..).zip(events.start..);
            for ((event, offset), place) in found {
                if !is_wanted(session, subscribers, &Found { round, event, offset }) {
                    continue;
                }
                let frames = written.get_or_insert_with(|| writing.frames(round, form, topic));
                wanted.push((Arc::clone(frames), place));
                if policy == Policy::Conflate {
                    keys.push(shared.key_hash(event.key));
                }
            }
        }
        if wanted.is_empty() {
            return;
        }
        let bytes: usize = wanted.iter().map(|(frames, place)| frames.frame(*place).len()).sum();
        let at = chunks.add(now.mono, |out, ends| {
            // Thousands of clients may have a piece each: no more room than that takes.
            out.reserve_exact(bytes);
            ends.reserve_exact(wanted.len());
            for (frames, place) in &wanted {
                out.extend_from_slice(frames.frame(*place));
                ends.push(out.len() as u32);
            }
        });
        if keys.iter().any(|key| *key != 0) {
            chunks.set_keys(at.chunk, at.start, keys.into_iter());
        }
        let Appended { chunk, start, end } = at;
        let gap = session.subscriptions.get_mut(subscription_number).take_gap();
        let span = Span { chunk, start, end, topic: slot, gap, droppable: policy.drops_queued() };
        metrics.dispatched.add(u64::from(span.frames()));
        metrics.replayed.add(u64::from(span.frames()));
        if connection.outbox.push(span, bytes, chunks) {
            chunks.retain(chunk, 1);
        }
    }

    /// A subscription ends, or has another filter from now on, while it is served from the history: what others
    /// of the session have left to it does not come any more where it does not want it. They say so, but for
    /// those that end too.
    pub(super) fn give_up(&mut self, number: u32, subscription_number: u32, end: End<'_>, now: Now) {
        let Self { connections, subscribers, shared, id, .. } = self;
        let connection = &mut connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        let subscription = session.subscriptions.get(subscription_number);
        if !subscription.is_replaying() || session.subscriptions.len() < 2 {
            return;
        }
        let (slot, after) = (subscription.topic, subscription.joined);
        let topic = Arc::clone(&subscribers.get(slot).topic);
        let oldest = shared.topics.read(&topic, after, 0, now.mono).oldest;
        let mut lost: Vec<(u32, u32)> = Vec::new();
        if after + 1 < oldest && matches!(end, End::Gone(_)) {
            lost.push((subscription_number, u32::try_from(oldest - 1 - after).unwrap_or(u32::MAX)));
        }
        for (round, offset) in shared.topics.of_several(&topic, after) {
            let Some(event) = round.events.iter().next() else { continue };
            let subscription = session.subscriptions.get(subscription_number);
            let (is_given_up, gone): (bool, &[u32]) = match end {
                End::Gone(gone) => (true, gone),
                End::Filter(filter) => {
                    (filter.is_some_and(|filter| !filter.wants(event.name, round.category())), &[])
                }
            };
            if is_given_up
                && subscription.wants(offset, event.name, round.category())
                && comes_through(session, subscribers, &round, *id, slot, Way::History)
                && let Some(heir) = others(session, &round, *id, slot)
                    .find(|other| gone.binary_search(&other.number).is_err())
            {
                lost.push((heir.number, 1));
            }
        }
        let metrics = &shared.metrics[*id];
        for (heir, count) in lost {
            session.subscriptions.get_mut(heir).add_gap(Gap::dropped(count));
            connection.has_gaps = true;
            metrics.dispatched.add(u64::from(count));
            metrics.drop_events(DropReason::HistoryTrimmed, u64::from(count));
            session.note_dropped(DropReason::HistoryTrimmed, u64::from(count));
        }
        if connection.has_gaps && !connection.outbox.is_blocked() {
            self.owe(number);
        }
    }
}

/// Where a subscription stands, of a topic with history: what the client has been or is being sent. Of what is in
/// the link it would know nothing.
pub(super) fn position(subscribers: &Subscribers, subscription: &Subscription) -> Option<Position> {
    let local = subscribers.get(subscription.topic);
    let epoch = local.topic.epoch()?;
    Some(Position { epoch, offset: reached(subscription, local.seen) })
}

/// What ends with a subscription, or with its filter.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    /// It is gone, with these others of the session, by their sorted numbers.
    Gone(&'a [u32]),
    /// It has this filter.
    Filter(Option<&'a Filter>),
}

/// One event of a history.
struct Found<'a> {
    round: &'a Round,
    event: Event<'a>,
    offset: u64,
}

/// How an event comes to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is dispatched.
    Link,
    /// From its topic's history.
    History,
}

/// Up to which offset a subscription has had what it gets. `seen` is what was dispatched of its topic.
pub(super) fn reached(subscription: &Subscription, seen: u64) -> u64 {
    if subscription.is_replaying() { subscription.joined } else { subscription.joined.max(seen) }
}

/// One of a session's subscriptions that an event of several topics belongs to.
struct Other<'a> {
    /// Its number.
    number: u32,
    subscription: &'a Subscription,
    /// The offset of the event in its topic.
    offset: u64,
    /// Its place in the order of the event's topics.
    place: usize,
}

/// The subscriptions that an event of several topics belongs to, but for the one to the topic at `slot`.
fn others<'a>(
    session: &'a Session,
    round: &'a Round,
    shard: usize,
    slot: u32,
) -> impl Iterator<Item = Other<'a>> {
    let name = round.events.iter().next().map_or("", |event| event.name);
    round.topics.iter().enumerate().filter_map(move |(place, placed)| {
        let other = placed.topic.slot(shard);
        if other == NO_SLOT || other == slot {
            return None;
        }
        let number = session.subscriptions.find(other)?;
        let subscription = session.subscriptions.get(number);
        let offset = placed.offset;
        let is_its = subscription.wants(offset, name, round.category());
        is_its.then_some(Other { number, subscription, offset, place })
    })
}

/// Whether an event of several topics comes to a session through its subscription to the topic at `slot`, which
/// has just reached it: if no other of its subscriptions has yet to, and none brought it before this one began.
pub(super) fn comes_through(
    session: &Session,
    subscribers: &Subscribers,
    round: &Round,
    shard: usize,
    slot: u32,
    way: Way,
) -> bool {
    let own = round.topics.iter().position(|placed| placed.topic.slot(shard) == slot);
    let has_reached_others = others(session, round, shard, slot).all(|other| {
        let Other { subscription, offset, place, .. } = other;
        match way {
            _ if subscription.is_replaying() => subscription.joined >= offset,
            // It is being dispatched to all who are listed, in the order of the topics.
            Way::Link => subscription.joined >= offset || Some(place) > own,
            Way::History => reached(subscription, subscribers.get(subscription.topic).seen) >= offset,
        }
    });
    has_reached_others
        && match way {
            // From its own history it has it.
            Way::Link => !own.is_some_and(|own| has_had(session, slot, round.topics[own].offset)),
            Way::History => !own.is_some_and(|own| was_brought(session, slot, round.topics[own].offset)),
        }
}

/// Whether the event at an offset has come to a subscription, or came before it.
fn has_had(session: &Session, slot: u32, offset: u64) -> bool {
    let own = session.subscriptions.find(slot);
    own.is_some_and(|own| session.subscriptions.get(own).joined >= offset)
}

/// Whether the event at an offset had come to a session when its subscription began.
fn was_brought(session: &Session, slot: u32, offset: u64) -> bool {
    let own = session.subscriptions.find(slot);
    own.is_some_and(|own| session.subscriptions.get(own).was_brought(offset))
}

/// What a session has had already of a topic's history after an offset: to be asked, and noted, when its subscription
/// to the topic begins behind, or wants something else while it is behind.
pub(super) fn brought(
    session: &Session,
    subscribers: &Subscribers,
    topics: &Topics,
    shard: usize,
    (slot, after): (u32, u64),
    account: &Account,
) -> Option<Brought> {
    let rounds = topics.of_several(&subscribers.get(slot).topic, after);
    let has_come = rounds.iter().filter(|(round, _)| has_come(session, subscribers, round, shard, slot));
    Brought::note(has_come.map(|(_, offset)| *offset), account)
}

/// Whether an event of several topics has come to a session, which gets it through the last of its subscriptions that
/// reaches it, but for the one to the topic at `slot`: that one has yet to.
fn has_come(session: &Session, subscribers: &Subscribers, round: &Round, shard: usize, slot: u32) -> bool {
    let Some(event) = round.events.iter().next() else { return false };
    let mut is_its = false;
    let own = round.topics.iter().find(|placed| placed.topic.slot(shard) == slot);
    let own =
        own.and_then(|own| Some((session.subscriptions.get(session.subscriptions.find(slot)?), own.offset)));
    if let Some((own, offset)) = own.filter(|(own, offset)| own.wants(*offset, event.name, round.category()))
    {
        return own.was_brought(offset);
    }
    for other in others(session, round, shard, slot) {
        let Other { subscription, offset, .. } = other;
        if offset <= subscription.filtered_from() {
            continue; // Whether it wanted it then is not known any more: better twice than not at all.
        }
        if reached(subscription, subscribers.get(subscription.topic).seen) < offset {
            // It comes through this one, unless it had come when this one began.
            return subscription.was_brought(offset);
        }
        is_its = true;
    }
    is_its
}
