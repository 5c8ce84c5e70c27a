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
use crate::event::{Events, Round};
use crate::link::Link;
use crate::metrics::ShardMetrics;
use crate::origin::Origins;
use crate::publish::dedupe::Dedupe;
use crate::publish::ingress::{Destination, Tail};
use crate::receipt::{Asker, Receipt, Receipts};
use crate::topic::log::Topics;
use crate::topic::rules::Rules as TopicRules;

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
    /// Shards that have come to the end of the present stage of a drain.
    pub drained: [AtomicUsize; 2],
    /// When the node started.
    pub started: Now,
    max_clients: AtomicUsize,
    max_outbox_bytes: AtomicUsize,
    state: AtomicU8,
    complained: AtomicU64,
    hasher: ahash::RandomState,
}

/// What a link carries.
#[derive(Debug)]
pub enum Message {
    /// Events, and the receipts to count in.
    Round(Arc<Round>, Receipts),
    /// The receipt is complete: to the one that asked.
    Receipt(Arc<Receipt>),
    /// New limits.
    Limits(Arc<Limits>),
    /// A stage of the shutdown.
    Drain(Stage),
    /// A question to every shard.
    Ask(Arc<Gather>),
    /// The question has been answered by every shard: to the one that asked.
    Answered(Arc<Gather>),
}

/// The stages of a shutdown. Each begins when every shard has come to the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Publishers are read no more.
    Quiesce,
    /// Every accepted event is in the links: clients are closed as they have what they are owed.
    Deliver,
    /// Every accepted event went out: publishers are told.
    Farewell,
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
            drained: Default::default(),
            started,
            max_clients: AtomicUsize::new(limits.max_clients),
            max_outbox_bytes: AtomicUsize::new(limits.max_outbox_bytes),
            state: AtomicU8::new(State::Starting as u8),
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

    /// A hash of each event's key, 0 for none. Strangers choose keys, so its seed is this node's own.
    pub fn key_hashes<'a>(&'a self, events: &'a Events) -> impl Iterator<Item = u64> + 'a {
        events.iter().map(|event| self.key_hash(event.key))
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
        for link in &self.links {
            link.send(Message::Limits(Arc::clone(limits)), 0);
        }
    }

    /// Begins a stage of the shutdown in every shard.
    pub fn begin(&self, stage: Stage) {
        for link in &self.links {
            link.send(Message::Drain(stage), 0);
        }
    }

    /// A shard has come to the end of `stage`; the last one begins the next.
    pub fn end(&self, stage: Stage) {
        let next = match stage {
            Stage::Quiesce => Stage::Deliver,
            Stage::Deliver => Stage::Farewell,
            Stage::Farewell => return,
        };
        if self.drained[stage as usize].fetch_add(1, Ordering::AcqRel) + 1 == self.shards() {
            self.begin(next);
        }
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

/// The node as one of its shards publishes to it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The node.
    pub shared: &'a Shared,
    /// The shard.
    pub shard: usize,
}

impl Destination for Origin<'_> {
    fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    fn tail(&self) -> &Tail {
        &self.shared.tail
    }

    fn send(&self, shard: usize, round: Arc<Round>, receipts: &Receipts) {
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
