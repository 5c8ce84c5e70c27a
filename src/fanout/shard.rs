//! One shard: the turn of its loop, and the way of a round through it.
//!
//! A turn reads what came in, drains the link (dispatch), and flushes a slice of the connections that are owed
//! something. Nobody waits for a whole sweep: an event that comes in is dispatched after the slice under way,
//! and a connection whose turn is later gets more in its one write. Batches grow with load by themselves.
//!
//! Publishers are not read while the connection whose turn is next is owed more than a cap, nor while a link
//! is out of credit. So what clients are owed is bounded, and a publisher that is too fast is slowed by its
//! own socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;

use crate::clock::{Iso8601, Now};
use crate::config::Limits;
use crate::dialect::dialect::Dialect;
use crate::error::CloseReason;
use crate::event::{Round, RoundRef};
use crate::fanout::connection::{Connection, Flushed, Role, Scratch, Work};
use crate::fanout::delivery::{Delivery, Verdict, leave_out, note_gap};
use crate::fanout::drain::Drain;
use crate::fanout::intake::{REPLY_CAP, window};
use crate::fanout::pause::Pause;
use crate::fanout::receipts::Unflushed;
use crate::fanout::replay::{Way, comes_through};
use crate::fanout::shared::{Message, Shared};
use crate::fanout::subscribers::Subscribers;
use crate::fanout::sweep::Sweep;
use crate::fanout::tidy::Needs;
use crate::fanout::writing::Writing;
use crate::link::{Inbox, Link};
use crate::metrics::{DropReason, ShardMetrics};
use crate::proto::deflate::{Deflater, Inflater};
use crate::publish::ingress::Ingress;
use crate::receipt::{Expected, Key, Receipts};
use crate::session::brought::Account;
use crate::session::chunk::{Appended, Chunks, Gap, NO_CHUNK, Span};
use crate::session::policy::Policy;
use crate::session::timer::{Due, Wheel};
use crate::topic::topic::NO_SLOT;
use crate::transport::Transport;

/// Connections flushed in one turn.
pub const SLICE: usize = 100;
/// The same in a turn in which publishers said as much as is read in one; between nothing and that, in proportion. The more
/// events are read between two flushes of a connection, the more of them share a write, and the sooner nothing is left to
/// read.
const SLICE_IN_A_FLOOD: usize = 25;
/// Those that catch up from a history in one turn, each of which costs several times what another one does …
const SLICE_CATCHING_UP: usize = 32;
/// … and while others wait: a tenth of what those take, so that a herd of thousands comes back without their noticing.
const CATCHING_UP_WHILE_LIVE: usize = 2;
/// Publishers are not read while the connection whose turn is next is owed more events than this …
pub const CAP_EVENTS: u32 = 512;
/// … or more bytes than this. Large enough that a write's fixed cost is spread over many events.
pub const CAP_BYTES: usize = 128 << 10;
/// The loop's shared read buffer: what is read from publishers between two slices.
pub const READ_BYTES: usize = 128 << 10;
/// What rounds that are taken from the link in one turn may count for: more than what is read in one does, be it small
/// events that are a round each. The head of the sweep tells nothing of who stands behind it, and what others put in
/// meanwhile would keep a turn from ending.
const TAKEN_IN_A_TURN: usize = 960 << 10;

/// One thread's connections, topics and queues, over sockets or over the simulation's transport.
#[derive(Debug)]
pub struct Shard<T: Transport> {
    pub(super) id: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Arc<Limits>,
    pub(super) connections: Slab<Connection<T>>,
    pub(super) subscribers: Subscribers,
    pub(super) chunks: Chunks,
    /// Connections that are owed something, in the order they came to be.
    pub(super) sweep: Sweep,
    /// Whom publishers wait for.
    pub(super) pause: Pause,
    /// How many flushes ended because it was others' turn.
    pub(super) postponed: u64,
    /// Rounds with receipts that not every connection has been flushed for.
    pub(super) unflushed: VecDeque<Unflushed>,
    /// Connections with something to read that has not been read to the end …
    pub(super) ready: VecDeque<u32>,
    /// The publishers among those.
    pub(super) sources: VecDeque<u32>,
    /// … and those of them that are HTTP: handshakes and requests.
    pub(super) requests: VecDeque<u32>,
    /// Publishers that wait for a link's credit.
    pub(super) starved: Vec<u32>,
    /// HTTP connections, oldest first; those that are something else by now are passed over.
    pub(super) handshakes: VecDeque<Key>,
    pub(super) wheel: Wheel,
    pub(super) due: Vec<Due>,
    pub(super) inbox: Inbox<Message>,
    pub(super) ingress: Ingress,
    pub(super) buffer: Box<[u8]>,
    /// Bytes that publishers said in this turn.
    pub(super) published: usize,
    /// What the rounds count for that were taken from the link in this turn.
    taken: usize,
    pub(super) iso: Iso8601,
    /// One for all connections: nothing of a message is kept for the next.
    pub(super) deflater: Deflater,
    pub(super) inflater: Inflater,
    pub(super) random: fastrand::Rng,
    pub(super) drain: Drain,
    pub(super) counts: Counts,
    pub(super) next_generation: u32,
    /// Until when, in nanoseconds, no client is found silent: the process itself was stopped.
    pub(super) amnesty: u64,
    /// When the next turn is to come at the latest, in nanoseconds.
    pub(super) awake_until: u64,
    /// Whether nothing is held that nobody needs.
    pub(super) is_tidy: bool,
    pub(super) needs: Needs,
    /// Bytes held of what sessions had of histories that they are behind with.
    pub(super) brought_bytes: Account,
    pub(super) scratch: Scratch,
    work: Work,
    /// Sessions found to be too slow while a round was dispatched, closed after it.
    condemned: Vec<u32>,
    /// Places in lists whose subscribers go on from the history.
    rewound: Vec<((u32, u32), u32)>,
    next_look: u64,
    turn_began: u64,
}

/// How many of what a shard has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions.
    pub clients: usize,
    /// The same by dialect.
    pub dialect_clients: [usize; Dialect::ALL.len()],
    /// Publishers.
    pub publishers: usize,
    /// HTTP connections.
    pub http: usize,
    /// Connections on their way out.
    pub closing: usize,
    /// Sessions whose socket takes no more.
    pub blocked: usize,
    /// Bytes of outboxes that are not shared: replies, control frames, rests of frames.
    pub private_bytes: usize,
}

/// What one connection is owed, for whoever looks from outside.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// The connection's number.
    pub number: u32,
    /// Its generation.
    pub generation: u32,
    /// Whether it is a session.
    pub is_client: bool,
    /// Whether it is on its way out: what it sends is thrown away.
    pub is_closing: bool,
    /// Whether its socket takes no more.
    pub is_blocked: bool,
    /// Events that wait.
    pub events: u32,
    /// Bytes of their frames.
    pub bytes: usize,
    /// Bytes that are not shared.
    pub private_bytes: usize,
}

/// When the shard wants its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// When something happens, or at this time in nanoseconds.
    At(u64),
    /// When something happens.
    Wait,
}

impl<T: Transport> Shard<T> {
    /// A shard without connections. `seed` is for spreading reconnects.
    pub fn new(id: usize, shared: Arc<Shared>, limits: Arc<Limits>, seed: u64) -> Self {
        Self {
            id,
            shared,
            limits,
            connections: Slab::new(),
            subscribers: Subscribers::new(id),
            chunks: Chunks::default(),
            sweep: Sweep::default(),
            pause: Pause::default(),
            postponed: 0,
            unflushed: VecDeque::new(),
            ready: VecDeque::new(),
            sources: VecDeque::new(),
            requests: VecDeque::new(),
            starved: Vec::new(),
            handshakes: VecDeque::new(),
            wheel: Wheel::new(),
            due: Vec::new(),
            inbox: Inbox::default(),
            ingress: Ingress::default(),
            buffer: vec![0; READ_BYTES].into(),
            published: 0,
            taken: 0,
            iso: Iso8601::new(),
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            random: fastrand::Rng::with_seed(seed),
            drain: Drain::default(),
            counts: Counts::default(),
            next_generation: 0,
            amnesty: 0,
            awake_until: u64::MAX,
            is_tidy: true,
            needs: Needs::default(),
            scratch: Scratch::default(),
            work: Work::default(),
            brought_bytes: Account::default(),
            condemned: Vec::new(),
            rewound: Vec::new(),
            next_look: 0,
            turn_began: 0,
        }
    }

    /// What the shard has.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The limits as they are now.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes held for clients: chunks, what is private, and what they have had of histories that they are behind with.
    pub fn held_bytes(&self) -> usize {
        self.chunks.held() + self.counts.private_bytes + self.brought_bytes.load(Ordering::Relaxed)
    }

    /// Whether the shard holds nothing for anybody: no chunk, no topic, nobody in a queue.
    pub fn is_clean(&self) -> bool {
        self.held_bytes() == 0
            && self.chunks.is_empty()
            && self.subscribers.topics() == 0
            && self.counts.blocked == 0
            && self.unflushed.is_empty()
    }

    /// Rounds whose receipts wait until everybody who gets them has been flushed.
    pub fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    /// What each connection is owed.
    pub fn queues(&self) -> impl Iterator<Item = Queue> {
        self.connections.iter().map(|(number, connection)| Queue {
            number: number as u32,
            generation: connection.generation,
            is_client: matches!(connection.role, Role::Client(_)),
            is_closing: matches!(connection.role, Role::Closing(_)),
            is_blocked: connection.outbox.is_blocked(),
            events: connection.outbox.events(),
            bytes: connection.outbox.bytes(),
            private_bytes: connection.outbox.private_bytes(),
        })
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.shared.metrics[self.id]
    }

    pub(super) fn link(&self) -> &Link<Message> {
        &self.shared.links[self.id]
    }

    /// A socket is readable, or takes writes again. To be called for what the poll said before the turn.
    pub fn handle_ready(&mut self, number: u32, readable: bool, writable: bool) {
        if readable {
            self.remember(number);
        }
        let Some(connection) = self.connections.get_mut(number as usize) else { return };
        if writable && connection.outbox.is_blocked() {
            connection.outbox.set_blocked(false);
            if matches!(connection.role, Role::Client(_)) {
                self.counts.blocked -= 1;
            }
            self.owe(number);
        }
    }

    /// One turn of the loop. `clock` is read a few times; nothing else tells the time.
    pub fn turn(&mut self, clock: &impl Fn() -> Now) -> Next {
        let now = clock();
        self.turn_began = now.mono;
        self.taken = 0;
        self.begin_pause(now.mono);
        if self.link().answer_bell() {
            for number in std::mem::take(&mut self.starved) {
                self.handle_ready(number, true, false);
            }
        }
        self.expire(now);
        self.read_ready(now);
        self.drain_link(now);
        if self.sweep.release(now.mono) {
            self.begin_flush();
        }
        self.flush_slice(clock);
        self.keep_budget(now);
        self.settle_receipts(now);
        self.look(clock);
        let is_paused = self.is_paused();
        if self.pause.end_turn(is_paused) {
            self.metrics().publisher_pauses.one();
        }
        let has_more = !self.sources.is_empty() || !self.link().is_empty();
        if (has_more && !is_paused)
            || !(self.sweep.is_empty() && self.ready.is_empty() && self.requests.is_empty())
        {
            self.awake_until = now.mono;
            return Next::Now;
        }
        let mut next = self.wheel.next();
        let has_spare = self.chunks.pooled() > 0 || self.ingress.has_spare();
        if !self.is_tidy || has_spare || self.shared.topics.needs_sweeps() {
            // What is too old goes also while nothing else happens, and what is needed no more. Who took it in knows; the
            // others may be asleep.
            next = Some(next.map_or(self.next_look, |next| next.min(self.next_look)));
        }
        let of_drain = self.next_of_drain(now);
        let waits = [self.sweep.held_until(), self.pause.until(), of_drain];
        let next = next.into_iter().chain(waits.into_iter().flatten()).min();
        self.awake_until = next.unwrap_or(u64::MAX);
        next.map_or(Next::Wait, Next::At)
    }

    /// Whether the connection whose turn is next is owed so much that nothing more may come in before it, or one whose
    /// socket has just begun to refuse.
    pub(super) fn is_behind(&self) -> bool {
        let mut heads = self.sweep.fronts().filter_map(|number| self.connections.get(number as usize));
        heads.any(|head| head.outbox.events() > CAP_EVENTS || head.outbox.bytes() > CAP_BYTES)
            || self.is_paused()
    }

    /// Whether somebody is owed something, but no more than are flushed in one turn.
    pub(super) fn owes_few(&self) -> bool {
        (1..=SLICE_IN_A_FLOOD).contains(&self.sweep.len())
    }

    /// Whether a turn has taken from the link what goes into one.
    pub(super) fn has_taken_enough(&self) -> bool {
        self.taken >= TAKEN_IN_A_TURN
    }

    /// Takes what is in the link, as long as nobody is too far behind, and no more than goes into a turn.
    pub(super) fn drain_link(&mut self, now: Now) {
        while !self.has_taken_enough()
            && !self.is_behind()
            && let Some(message) = self.shared.links[self.id].receive(&mut self.inbox)
        {
            if !matches!(message, Message::Round(..)) {
                // Who asks what is on its way is not told of his question.
                self.shared.links[self.id].settle(&mut self.inbox);
            }
            match message {
                Message::Round(round, receipts) => {
                    self.taken += round.cost();
                    self.dispatch(&round, receipts, now);
                    self.ingress.reuse(round);
                }
                Message::Receipt(receipt) => self.answer_receipt(&receipt, now),
                Message::Limits(limits) => self.change_limits(limits),
                Message::Drain(order) => self.begin_stage(order, now),
                Message::Undo => self.undo_drain(),
                Message::Ask(gather) => self.answer_part(&gather, now),
                Message::Answered(gather) => self.answer_whole(&gather, now),
            }
        }
        let link = &self.shared.links[self.id];
        link.settle(&mut self.inbox);
        let mut waiting = link.freed(self.limits.link_bytes);
        while waiting != 0 {
            let shard = waiting.trailing_zeros() as usize;
            waiting &= waiting - 1;
            self.shared.links[shard].ring();
        }
    }

    /// Hands a round's events to every subscriber of its topics: a span each, and nothing copied but the
    /// frames, once for each envelope.
    fn dispatch(&mut self, round: &RoundRef, receipts: Receipts, now: Now) {
        self.metrics().rounds.one();
        let expected: &[Expected] = receipts.as_ref().map_or(&[], |all| all);
        self.match_replaying(round, expected);
        // Once publishers are read no more, nothing is held back.
        let budget = if self.is_ending() { Duration::ZERO } else { self.limits.latency_budget };
        self.sweep.begin_round(budget, round.ingress, round.events.len(), round.events.bytes());
        // What was written here so far, and by which list: topics of one event share it.
        let mut appended: SmallVec<[((u32, u32), Appended); 4]> = SmallVec::new();
        for placed in &round.topics {
            let slot = placed.topic.slot(self.id);
            if slot == NO_SLOT {
                continue; // The last subscriber here left while the round was on its way.
            }
            let Some(local) = self.subscribers.get_mut(slot) else { continue };
            let was_before_some = placed.offset <= local.joined;
            local.seen = placed.offset + round.events.len() as u64 - 1;
            for list in 0..local.lists.len() as u32 {
                let owner = (slot, list);
                if self.subscribers.list(owner).members.is_empty() {
                    continue;
                }
                let same = match round.topics.len() {
                    1 => None, // A topic's lists are all different.
                    _ => appended.iter().find(|(other, _)| self.are_written_alike(round, *other, owner)),
                };
                let at = match same {
                    Some((_, at)) => *at,
                    None => {
                        let at = self.append(round, expected, owner);
                        appended.push((owner, at));
                        at
                    }
                };
                self.push_to_members(round, expected, at, owner, placed.offset, was_before_some);
            }
        }
        for (_, at) in appended {
            self.chunks.release(at.chunk); // The dispatch's own hold, taken in `append`.
        }
        // The last place of a list first, so that no other one of these is moved.
        while let Some((list, place)) = self.rewound.pop() {
            self.delist(list, place);
        }
        while let Some(number) = self.condemned.pop() {
            self.close_client(number, CloseReason::SlowConsumer, "", now);
        }
        if let Some(receipts) = receipts {
            self.await_flush(round, receipts);
        }
    }

    /// Whether the subscribers of two lists get an event in the same bytes, with the same key.
    fn are_written_alike(&self, round: &Round, one: (u32, u32), other: (u32, u32)) -> bool {
        let is_pattern = |list: (u32, u32)| self.subscribers.get(list.0).topic.is_pattern();
        if round.names != 0 && is_pattern(one) != is_pattern(other) {
            return false;
        }
        let has_position = |list: (u32, u32)| self.subscribers.get(list.0).topic.epoch().is_some();
        let by_topic = one.0 != other.0
            && (has_position(one) || has_position(other))
            && self.shared.envelopes.get(self.subscribers.list(one).envelope).is_by_topic();
        !by_topic && self.subscribers.are_written_alike(one, other)
    }

    /// Puts a round's frames into the chunk of a list. Writes them if no other shard has.
    fn append(&mut self, round: &RoundRef, expected: &[Expected], owner: (u32, u32)) -> Appended {
        self.forget_chunks();
        let local = self.subscribers.get(owner.0);
        let (topic, list) = (&local.topic, self.subscribers.list(owner));
        let (current, form) = (list.chunk, list.form());
        let is_shared = round.shared || local.has_deflated;
        let (shared, metrics) = (&*self.shared, &self.shared.metrics[self.id]);
        let mut writing = Writing { shared, metrics, iso: &mut self.iso, deflater: &mut self.deflater };
        let at = self.chunks.append(current, owner, round.ingress, |bytes, ends| {
            if !is_shared {
                writing.write(round, form, topic, bytes, ends);
                return;
            }
            let frames = writing.frames(round, form, topic);
            let base = bytes.len() as u32;
            bytes.extend_from_slice(&frames.bytes);
            ends.extend(frames.ends.iter().map(|end| base + end));
        });
        if round.events.have_keys() {
            // Events of many topics come through a pattern, and the same key is something else in each.
            let names = if topic.is_pattern() { round.names } else { 0 };
            self.chunks.set_keys(at.chunk, at.start, shared.key_hashes(&round.events, names));
        }
        self.chunks.set_receipts(at.chunk, at.start, expected);
        self.chunks.retain(at.chunk, 1);
        self.subscribers.list_mut(owner).chunk = at.chunk;
        if current != NO_CHUNK && current != at.chunk && self.counts.blocked > 0 {
            for (_, connection) in &mut self.connections {
                if connection.outbox.is_blocked() {
                    connection.outbox.unpin(current, &mut self.chunks);
                }
            }
        }
        at
    }

    /// Lists forget their growing chunks that are gone.
    pub(super) fn forget_chunks(&mut self) {
        while let Some(forgotten) = self.chunks.next_forgotten() {
            // The list may be gone with its topic.
            if let Some(local) = self.subscribers.get_mut(forgotten.owner.0)
                && let Some(list) = local.lists.get_mut(forgotten.owner.1 as usize)
                && list.chunk == forgotten.chunk
            {
                list.chunk = NO_CHUNK;
            }
        }
    }

    /// The hot loop: one push for each subscriber.
    fn push_to_members(
        &mut self,
        round: &Round,
        expected: &[Expected],
        at: Appended,
        list: (u32, u32),
        offset: u64,
        was_before_some: bool,
    ) {
        let Self { connections, subscribers, chunks, sweep, shared, limits, condemned, rewound, .. } = self;
        let metrics = &shared.metrics[self.id];
        let all = Span {
            chunk: at.chunk,
            start: at.start,
            end: at.end,
            topic: list.0,
            gap: Gap::NONE,
            droppable: false,
        };
        let all_bytes = chunks.frames_len(at.chunk, at.start, at.end);
        let (queue, is_held) = sweep.queue();
        let mut delivery =
            Delivery { chunks, metrics, limits, expected, matched: 0, dispatched: 0, spans: 0 };
        for (place, member) in subscribers.list(list).members.iter().enumerate() {
            let number = member.connection;
            let connection = &mut connections[number as usize];
            if round.several != 0 && connection.has_replayed {
                let Role::Client(session) = &connection.role else { continue };
                if !comes_through(session, subscribers, round, self.id, list.0, Way::Link) {
                    continue;
                }
            } else if round.several != 0 {
                if connection.last_several == round.several {
                    continue;
                }
                if !was_before_some && !member.filtered {
                    connection.last_several = round.several;
                }
            }
            let is_plain = !(was_before_some || member.filtered || connection.outbox.is_blocked());
            let verdict = if is_plain && !connection.has_gaps {
                let droppable = member.policy.drops_queued();
                delivery.push(connection, Span { droppable, ..all }, all_bytes);
                Verdict::Queued
            } else {
                delivery.push_carefully(connection, *member, all, round, offset)
            };
            if verdict == Verdict::TooSlow {
                condemned.push(number);
            } else if verdict == Verdict::Behind {
                rewound.push((list, place as u32));
            } else if !connection.is_owed && !connection.outbox.is_empty() && !connection.outbox.is_blocked()
            {
                connection.is_owed = true;
                connection.is_held = is_held;
                queue.push_back(number);
            }
        }
        let Delivery { matched, dispatched, spans, .. } = delivery;
        expected.iter().for_each(|expected| expected.receipt.add_matched(matched));
        metrics.dispatched.add(dispatched);
        self.chunks.retain(at.chunk, spans);
    }

    /// Something may be there to read: the connection's turn to be read comes, if it is still there.
    pub(super) fn remember(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(number as usize)
            && !connection.is_ready
        {
            connection.is_ready = true;
            match connection.role {
                Role::Http(_) => self.requests.push_back(number),
                Role::Publisher(_) => self.sources.push_back(number),
                _ => self.ready.push_back(number),
            }
        }
    }

    /// Puts a connection that is owed something into the sweep, also where its events are held back.
    pub(super) fn owe(&mut self, number: u32) {
        let connection = &mut self.connections[number as usize];
        if !connection.is_owed || connection.is_held {
            connection.is_owed = true;
            connection.is_held = false;
            match connection.is_replaying {
                true => self.sweep.push_catching_up(number),
                false => self.sweep.push(number),
            }
        }
    }

    /// Flushes the connections whose turn it is.
    fn flush_slice(&mut self, clock: &impl Fn() -> Now) {
        let mut catching_up = if self.sweep.is_live() { CATCHING_UP_WHILE_LIVE } else { SLICE_CATCHING_UP };
        // Good enough: a slice takes a fraction of a millisecond.
        let now = self.turn_began;
        let mut flushed = 0;
        let slice = SLICE - (SLICE - SLICE_IN_A_FLOOD) * self.published / self.buffer.len();
        while flushed < slice
            && let Some(number) = self.sweep.pop(now)
        {
            flushed += usize::from(self.flush_if_owed(number, clock));
        }
        while catching_up > 0
            && let Some(number) = self.sweep.pop_catching_up()
        {
            catching_up -= 1;
            flushed += usize::from(self.flush_if_owed(number, clock));
        }
        if flushed == 0 {
            return;
        }
        let now = clock();
        let metrics = &self.shared.metrics[self.id];
        let work = &mut self.work;
        metrics.flushes.add(std::mem::take(&mut work.writes));
        metrics.delivered_bytes.add(std::mem::take(&mut work.bytes) as u64);
        metrics.deliveries.add(std::mem::take(&mut work.events));
        let mut latency = metrics.latency.lock();
        for (ingress, count) in work.ingresses.drain(..) {
            latency.record(now.mono.saturating_sub(ingress) / 1000, count, now.mono);
        }
    }

    /// Flushes a connection that has left the sweep, if it is still there and owed something.
    fn flush_if_owed(&mut self, number: u32, clock: &impl Fn() -> Now) -> bool {
        let Some(connection) = self.connections.get_mut(number as usize) else { return false };
        let is_owed = std::mem::take(&mut connection.is_owed);
        if is_owed {
            connection.is_held = false;
            self.flush(number, clock);
        }
        is_owed
    }

    fn flush(&mut self, number: u32, clock: &impl Fn() -> Now) {
        let connection = &mut self.connections[number as usize];
        if connection.outbox.events() > 0 {
            self.pause.flood.note_written(&mut connection.counted);
        }
        let private = connection.outbox.private_bytes();
        let written = self.work.bytes;
        let (subscribers, iso) = (&self.subscribers, &mut self.iso);
        let gap = |dialect: Dialect, out: &mut Vec<u8>, topic: u32, gap: Gap| {
            let now = clock();
            let topic = subscribers.get(topic).topic.name();
            dialect.write_gap(out, iso.format(now.wall_ms), topic, Some(gap));
        };
        let flushed = connection.flush(&mut self.chunks, &mut self.scratch, &mut self.work, gap);
        self.counts.private_bytes += connection.outbox.private_bytes();
        self.counts.private_bytes -= private;
        let is_client = matches!(connection.role, Role::Client(_));
        if is_client && connection.is_paused && connection.outbox.reply_bytes() <= REPLY_CAP {
            connection.is_paused = false;
            self.remember(number);
        }
        let is_stalled = matches!(flushed, Ok(Flushed::Blocked));
        let was_stalled = std::mem::replace(&mut self.connections[number as usize].is_stalled, is_stalled);
        if was_stalled && self.work.bytes > written {
            self.note_took_again(number, self.turn_began);
        }
        match flushed {
            Ok(Flushed::Drained) => self.handle_drained(number, clock),
            Ok(Flushed::More) => {
                self.postponed += 1;
                self.owe(number);
            }
            Ok(Flushed::Blocked) => {
                let connection = &mut self.connections[number as usize];
                connection.outbox.set_blocked(true);
                if let Role::Client(session) = &mut connection.role {
                    let now = clock().mono;
                    session.note_refused(now);
                    self.watch(number, now);
                }
                self.metrics().refused_writes.one();
                self.counts.blocked += usize::from(is_client);
                if self.work.bytes > written || !was_stalled {
                    self.begin_stall(number, clock);
                }
            }
            Err(_) => self.lose(number, CloseReason::ConnectionLost, clock()),
        }
    }

    /// While all outboxes together hold more than they may, the blocked sessions pay, furthest behind first: what
    /// may be left out of a queue is, and where nothing may be, the session is closed.
    fn keep_budget(&mut self, now: Now) {
        let budget = self.outbox_budget();
        // What is kept for the next, or for speed, is memory too, and goes before anybody pays.
        self.chunks.keep_beside(budget.saturating_sub(self.held_bytes()));
        while self.held_bytes() > budget && self.counts.blocked > 0 {
            let blocked = self.connections.iter().filter(|(_, connection)| {
                connection.outbox.is_blocked() && matches!(connection.role, Role::Client(_))
            });
            let owed = blocked.map(|(number, c)| (c.outbox.bytes() + c.outbox.private_bytes(), number));
            let mut owed: Vec<(usize, usize)> = owed.filter(|(bytes, _)| *bytes > 0).collect();
            if owed.is_empty() {
                return;
            }
            owed.sort_unstable();
            while self.held_bytes() > budget
                && let Some((_, number)) = owed.pop()
            {
                self.make_pay(number as u32, now);
            }
        }
    }

    fn make_pay(&mut self, number: u32, now: Now) {
        let connection = &mut self.connections[number as usize];
        let mut dropped = 0;
        while let Some(drop) = connection.outbox.drop_oldest(&mut self.chunks) {
            dropped += 1;
            note_gap(connection, drop.topic, drop.pending_gap);
        }
        leave_out(&self.shared.metrics[self.id], connection, DropReason::DropOldest, dropped);
        dropped += self.drop_newest(number);
        if dropped == 0 {
            self.close_client(number, CloseReason::OutboxMemory, "", now);
        }
    }

    /// Leaves out the newest of what is queued through subscriptions that drop the newest, until all outboxes together
    /// are within their bound. Answers how many events went.
    fn drop_newest(&mut self, number: u32) -> u64 {
        let mut dropped = 0;
        while self.held_bytes() > self.outbox_budget() {
            let connection = &mut self.connections[number as usize];
            let Role::Client(session) = &connection.role else { break };
            let policy = |topic| Some(session.subscriptions.get(session.subscriptions.find(topic)?).policy);
            let may_go = |topic| policy(topic) == Some(Policy::DropNewest);
            let Some(drop) = connection.outbox.drop_newest(may_go, &mut self.chunks) else { break };
            dropped += 1;
            note_gap(connection, drop.topic, drop.pending_gap);
        }
        let connection = &mut self.connections[number as usize];
        leave_out(&self.shared.metrics[self.id], connection, DropReason::DropNewest, dropped);
        dropped
    }

    /// Bytes that this shard may hold for clients.
    fn outbox_budget(&self) -> usize {
        self.limits.max_outbox_bytes / self.shared.shards()
    }

    /// Brings the figures of a dialect's clients up to date: at once, as those of subscriptions, for who has read its
    /// answer and then reads the figures is to find itself there.
    pub(super) fn show_clients(&self, dialect: Dialect) {
        let metrics = self.metrics();
        metrics.clients.set(self.counts.clients as u64);
        metrics.set_clients_of(dialect, self.counts.dialect_clients[dialect as usize]);
    }

    /// Brings the other figures that are states, not counts, up to date.
    fn look(&mut self, clock: &impl Fn() -> Now) {
        let now = clock();
        let metrics = self.metrics();
        metrics.turn.lock().record(now.mono.saturating_sub(self.turn_began) / 1000, 1, now.mono);
        metrics.publishers.set(self.counts.publishers as u64);
        metrics.other_connections.set((self.counts.http + self.counts.closing) as u64);
        metrics.topics.set(self.subscribers.topics() as u64);
        metrics.blocked_clients.set(self.counts.blocked as u64);
        metrics.outbox_bytes.set(self.held_bytes() as u64);
        metrics.sweep.set(self.sweep.len() as u64);
        self.note_needs();
        if now.mono < self.next_look {
            return;
        }
        self.next_look = now.mono + 250_000_000;
        self.tidy();
        if self.shared.topics.sweep_next(now.mono) {
            self.needs.note_gone();
        }
        self.shared.dedupe.tidy(now.mono, window(&self.limits));
        let heads = self.sweep.fronts().filter_map(|number| self.connections.get(number as usize));
        let mut oldest = heads.filter_map(|head| head.outbox.oldest(&self.chunks)).min();
        if self.counts.blocked > 0 {
            let waiting = self.connections.iter().filter_map(|(_, c)| c.outbox.oldest(&self.chunks));
            oldest = waiting.chain(oldest).min();
        }
        self.metrics().oldest_age.set(oldest.map_or(0, |oldest| now.mono.saturating_sub(oldest)));
    }
}
