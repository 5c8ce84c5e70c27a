//! What all shards of a node share: topics, links, figures, and a few counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::admin::report::{Part, Report};
use crate::catalog::rules::Rules;
use crate::clock::Now;
use crate::config::Limits;
use crate::dialect::envelope::Envelopes;
use crate::dialect::path::Streams;
use crate::event::{Events, RoundRef};
use crate::fanout::admission::Admission;
use crate::fanout::stages::{Course, Order, Stage, Times, Undo};
use crate::link::Link;
use crate::metrics::ShardMetrics;
use crate::origin::Origins;
use crate::publish::dedupe::Dedupe;
use crate::publish::ingress::{Destination, Tail};
use crate::receipt::{Asker, Receipt, Receipts};
use crate::topic::rules::Rules as TopicRules;
use crate::topic::table::Topics;

/// One node.
#[derive(Debug)]
pub struct Shared {
    /// The topics with a subscriber.
    pub topics: Topics,
    /// How events are written.
    pub envelopes: Envelopes,
    /// The paths that subscribe those who connect to them.
    pub streams: Streams,
    /// The way into each shard.
    pub links: Box<[Link<Message>]>,
    /// Each shard's figures.
    pub metrics: Box<[ShardMetrics]>,
    /// The latest events, for the page.
    pub tail: Tail,
    /// Who may ask for what.
    pub access: Access,
    /// What publishers' events are held to. Set before the node is shared.
    pub rules: Rules,
    /// What publishers had accepted, so that they may send it again.
    pub dedupe: Dedupe,
    /// Clients connected now.
    pub clients: AtomicUsize,
    /// Publishers connected now.
    pub publishers: AtomicUsize,
    /// Clients there ever were.
    pub client_numbers: AtomicU64,
    /// How many sessions may be opened now.
    pub admission: Admission,
    /// Log lines that nobody took. Set before the node is shared.
    pub log_lines_dropped: Arc<AtomicU64>,
    /// When the node started.
    pub started: Now,
    max_clients: AtomicUsize,
    max_outbox_bytes: AtomicUsize,
    state: AtomicU8,
    /// What is said through the links is said while this is held, so that every shard hears it in the same order.
    course: Mutex<Course>,
    complained: AtomicU64,
    hasher: ahash::RandomState,
}

/// What a link carries.
#[derive(Debug)]
pub enum Message {
    /// Events, and the receipts to count in.
    Round(RoundRef, Receipts),
    /// The receipt is complete: to the one that asked.
    Receipt(Arc<Receipt>),
    /// New limits.
    Limits(Arc<Limits>),
    /// A stage of the shutdown.
    Drain(Order),
    /// The shutdown is taken back.
    Undo,
    /// A question to every shard.
    Ask(Arc<Gather>),
    /// The question has been answered by every shard: to the one that asked.
    Answered(Arc<Gather>),
}

/// A question that every shard adds its part to; the last one sends it back.
#[derive(Debug)]
pub struct Gather {
    /// What is asked.
    pub report: Report,
    /// Whose answer it is.
    pub asker: Asker,
    /// Shards that have not answered.
    pub remaining: AtomicUsize,
    /// The answers so far.
    pub parts: Mutex<Vec<Part>>,
}

/// Who may ask for what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What publishers must show.
    pub publish_token: Option<String>,
    /// What operators must show.
    pub operator_token: Option<String>,
    /// Whether operators have a listener of their own, so that the public one does not serve them.
    pub has_admin: bool,
    /// Whether there are the echoes for test suites.
    pub has_diagnostics: bool,
    /// Which pages may ask.
    pub origins: Origins,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not all shards are up.
    Starting,
    /// Serving.
    Ready,
    /// Shutting down.
    Draining,
}

impl State {
    /// The name in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl Shared {
    /// A node of `shards` shards, starting.
    pub fn new(shards: usize, limits: &Limits, access: Access, started: Now) -> Self {
        Self {
            topics: Topics::new(shards, limits.max_topics, limits.max_history_bytes),
            envelopes: Envelopes::built_in(),
            streams: Streams::default(),
            links: (0..shards).map(|_| Link::new()).collect(),
            metrics: (0..shards).map(|_| ShardMetrics::default()).collect(),
            tail: Tail::default(),
            access,
            rules: Rules::default(),
            dedupe: Dedupe::default(),
            clients: AtomicUsize::new(0),
            publishers: AtomicUsize::new(0),
            client_numbers: AtomicU64::new(0),
            admission: Admission::new(limits.handshakes_per_second, limits.handshake_burst),
            log_lines_dropped: Arc::default(),
            started,
            max_clients: AtomicUsize::new(limits.max_clients),
            max_outbox_bytes: AtomicUsize::new(limits.max_outbox_bytes),
            state: AtomicU8::new(State::Starting as u8),
            course: Mutex::new(Course::new(times(limits))),
            complained: AtomicU64::new(0),
            hasher: ahash::RandomState::new(),
        }
    }

    /// The same with configured streams; `envelopes` has theirs.
    pub fn with_streams(self, streams: Streams, envelopes: Envelopes) -> Self {
        Self { streams, envelopes, ..self }
    }

    /// The same with rules for topics.
    pub fn with_topic_rules(self, rules: TopicRules) -> Self {
        Self { topics: self.topics.with_rules(rules), ..self }
    }

    /// A hash of each event's key, 0 for none. Strangers choose keys, so its seed is this node's own. `names` is
    /// [`Round::names`] for who tells keys apart by that, else 0.
    pub fn key_hashes<'a>(&'a self, events: &'a Events, names: u64) -> impl Iterator<Item = u64> + 'a {
        events.iter().map(move |event| match self.key_hash(event.key) {
            0 => 0,
            hash => (hash ^ names) | 1,
        })
    }

    /// A hash of a key, 0 for none.
    pub fn key_hash(&self, key: &str) -> u64 {
        if key.is_empty() { 0 } else { self.hasher.hash_one(key) | 1 }
    }

    /// How many shards.
    pub fn shards(&self) -> usize {
        self.links.len()
    }

    /// What the node is doing.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }

    /// All shards are up: the node serves, unless somebody has told it to end already.
    pub fn open(&self) {
        let (starting, ready) = (State::Starting as u8, State::Ready as u8);
        // Where it is ending by now, it goes on with that.
        let _ = self.state.compare_exchange(starting, ready, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Says what the node is doing.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The bound on [`Shared::clients`] now.
    pub fn max_clients(&self) -> usize {
        self.max_clients.load(Ordering::Relaxed)
    }

    /// The bound on the memory of all outboxes together.
    pub fn max_outbox_bytes(&self) -> usize {
        self.max_outbox_bytes.load(Ordering::Relaxed)
    }

    /// Gives every shard new limits.
    pub fn set_limits(&self, limits: &Arc<Limits>) {
        self.topics.set_max(limits.max_topics, limits.max_history_bytes);
        self.max_clients.store(limits.max_clients, Ordering::Relaxed);
        self.max_outbox_bytes.store(limits.max_outbox_bytes, Ordering::Relaxed);
        self.admission.set(limits.handshakes_per_second, limits.handshake_burst);
        self.course.lock().set_times(times(limits));
        for link in &self.links {
            link.send(Message::Limits(Arc::clone(limits)), 0);
        }
    }

    /// Begins a drain: nobody is let in from here on, then the stages follow each other.
    ///
    /// # Errors
    /// The stage of the one that is under way.
    pub fn begin_drain(&self, now: Now) -> Result<Order, Order> {
        let mut course = self.course.lock();
        let order = course.begin(self.clients.load(Ordering::Relaxed), now)?;
        self.set_state(State::Draining);
        self.say(order, now);
        Ok(order)
    }

    /// Takes the drain back, as long as publishers are read: from here on nobody is closed because of it.
    pub fn undo_drain(&self) -> Undo {
        let mut course = self.course.lock();
        let undo = course.undo();
        if let Undo::Done { clients } = undo {
            for link in &self.links {
                link.send(Message::Undo, 0);
            }
            self.set_state(State::Ready);
            let left = self.clients.load(Ordering::Relaxed);
            tracing::info!(
                clients = left,
                of = clients,
                "the shutdown is taken back: clients may come again"
            );
        }
        undo
    }

    /// A shard is through with what it was ordered; the last one begins the next stage.
    pub fn end(&self, ended: Order, now: Now) {
        let mut course = self.course.lock();
        if let Some(next) = course.end(ended, self.shards(), now) {
            self.say(next, now);
        }
    }

    /// Tells every shard that a stage begins.
    fn say(&self, order: Order, now: Now) {
        let left = self.clients.load(Ordering::Relaxed);
        let seconds = |until: u64| until.saturating_sub(now.mono) as f64 / 1e9;
        match order.stage {
            Stage::Spread => tracing::info!(
                clients = left,
                delay = seconds(order.from),
                seconds = seconds(order.until),
                "shutting down: clients are let go"
            ),
            Stage::Quiesce => tracing::info!(
                clients = left,
                of = order.clients,
                seconds = seconds(order.until),
                "shutting down: publishers are read no more"
            ),
            Stage::Deliver | Stage::Farewell => {
                tracing::debug!(stage = order.stage.name(), clients = left, "shutting down");
            }
        }
        for link in &self.links {
            link.send(Message::Drain(order), 0);
        }
    }

    /// The stage of the drain under way.
    pub fn drain_order(&self) -> Option<Order> {
        self.course.lock().order()
    }

    /// Drains begun so far, and how many of them were taken back.
    pub fn drain_counts(&self) -> (u64, u64) {
        self.course.lock().counts()
    }

    /// Whether events are accepted: also while clients are let go.
    pub fn takes_events(&self) -> bool {
        self.state() != State::Draining
            || self.drain_order().is_some_and(|order| order.stage == Stage::Spread)
    }

    /// Whether a warning that may come many times a second is due: once a second for the whole node.
    pub fn may_complain(&self, now: Now) -> bool {
        let second = now.mono / 1_000_000_000 + 1;
        self.complained.swap(second, Ordering::Relaxed) != second
    }

    /// Takes a place among those that `count` bounds by `max`; answers whether there was one.
    pub fn take_place(count: &AtomicUsize, max: usize) -> bool {
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max).then_some(n + 1)).is_ok()
    }
}

fn times(limits: &Limits) -> Times {
    Times { delay: limits.drain_delay, spread: limits.drain_spread, rest: limits.drain_timeout }
}

/// The node as one of its shards publishes to it.
#[derive(Clone, Copy, Debug)]
pub struct FromShard<'a> {
    /// The node.
    pub shared: &'a Shared,
    /// The shard.
    pub shard: usize,
}

impl Destination for FromShard<'_> {
    fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    fn tail(&self) -> &Tail {
        &self.shared.tail
    }

    fn send(&self, shard: usize, round: RoundRef, receipts: &Receipts) {
        let (cost, link) = (round.cost(), &self.shared.links[shard]);
        let receipts = receipts.clone();
        receipts.iter().flat_map(|all| all.iter()).for_each(|expected| expected.receipt.hold());
        if shard == self.shard {
            link.send_to_self(Message::Round(round, receipts), cost);
        } else {
            link.send(Message::Round(round, receipts), cost);
        }
    }
}
