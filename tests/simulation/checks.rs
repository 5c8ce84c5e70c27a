//! What must be true after every turn, when everything is quiet, and at the end.

use std::collections::HashMap;

use fanwire::config::Limits;
use fanwire::error::CloseReason;
use fanwire::fanout::shard::{Counts, Queue, Shard};
use fanwire::fanout::shared::Shared;
use fanwire::metrics::{DropReason, ShardMetrics};

use crate::client::Phase;
use crate::socket::SimSocket;
use crate::world::World;

/// Bytes of one read of publishers in one turn, and what a byte of the shortest frames costs on a link at most.
const READ_COST: usize = (128 << 10) * 12;

/// Bytes of one read of a client or caller.
const CLIENT_READ: usize = 64 << 10;

/// What is remembered for the checks.
pub struct Watch {
    /// The largest and the smallest that there ever were.
    pub queue_events: (usize, usize),
    /// The smallest.
    pub queue_bytes: usize,
    max_link_bytes: usize,
    max_clients: usize,
}

impl Watch {
    pub fn new(limits: &Limits) -> Self {
        let queue_events = (0, usize::MAX);
        let mut watch = Self { queue_events, queue_bytes: usize::MAX, max_link_bytes: 0, max_clients: 0 };
        watch.note_limits(limits);
        watch
    }

    pub fn note_limits(&mut self, limits: &Limits) {
        let (most, least) = self.queue_events;
        self.queue_events = (most.max(limits.queue_events), least.min(limits.queue_events));
        self.queue_bytes = self.queue_bytes.min(limits.queue_bytes);
        self.max_link_bytes = self.max_link_bytes.max(limits.link_bytes);
        self.max_clients = self.max_clients.max(limits.max_clients);
    }

    /// The queues of a shard.
    pub fn queues(&self, shard: &Shard<SimSocket>) -> HashMap<u32, Queue> {
        shard.queues().map(|queue| (queue.number, queue)).collect()
    }

    /// Whether a link is without credit, so that no publisher may be read.
    pub fn is_full(&self, shared: &Shared) -> bool {
        shared.links.iter().any(|link| link.in_flight() >= self.max_link_bytes)
    }

    /// A sum that changes with everything that happens in the node.
    pub fn traffic(&self, shared: &Shared) -> u64 {
        let of = |m: &ShardMetrics| {
            m.events_in.get()
                + m.dispatched.get()
                + m.delivered_bytes.get()
                + m.rounds.get()
                + m.accepted.get()
                + m.refused_writes.get()
                + CloseReason::ALL.iter().map(|reason| m.closed(*reason)).sum::<u64>()
        };
        shared.metrics.iter().map(of).sum::<u64>()
            + shared.links.iter().map(|link| link.in_flight() as u64).sum::<u64>()
    }
}

fn sum(shared: &Shared, figure: impl Fn(&ShardMetrics) -> u64) -> u64 {
    shared.metrics.iter().map(figure).sum()
}

fn counts(world: &World) -> impl Iterator<Item = Counts> {
    world.nodes.iter().filter_map(|node| node.shard.as_ref()).map(Shard::counts)
}

/// After a turn of one shard.
pub fn after_turn(world: &World, id: usize, shard: &Shard<SimSocket>, queues: &HashMap<u32, Queue>) {
    let shared = &world.shared;
    let metrics = &shared.metrics[id];
    let queues = || queues.values();
    let pending: u64 = queues().map(|queue| u64::from(queue.events)).sum();
    let dropped: u64 = DropReason::all().map(|reason| metrics.dropped(reason)).sum();
    assert_eq!(
        metrics.deliveries.get() + dropped + pending,
        metrics.dispatched.get(),
        "delivered {} + dropped {dropped} + pending {pending}",
        metrics.deliveries.get()
    );
    assert_eq!(metrics.pending(), pending);
    let counts = shard.counts();
    assert_eq!(counts.private_bytes, queues().map(|queue| queue.private_bytes).sum::<usize>());
    assert_eq!(counts.blocked, queues().filter(|queue| queue.is_client && queue.is_blocked).count());
    assert_eq!(counts.clients, queues().filter(|queue| queue.is_client).count());

    let budget = world.limits.max_outbox_bytes / shared.shards();
    let can_pay = queues().any(|queue| queue.is_client && queue.is_blocked && queue.bytes > 0);
    let are_limits_known = shared.links[id].is_empty();
    assert!(
        shard.held_bytes() <= budget || !can_pay || !are_limits_known,
        "{} bytes are held, {budget} may be",
        shard.held_bytes()
    );

    for caller in world.callers.iter().filter(|caller| caller.shard == id) {
        let number = caller.pipe.borrow().number;
        if queues().any(|queue| Some(queue.number) == number && !queue.is_closing) {
            let ahead = caller.read_ahead();
            assert!(ahead <= 2 * CLIENT_READ, "{ahead} bytes were read behind a request that waits");
        }
    }

    let in_flight = shared.links[id].in_flight();
    let most = world.watch.max_link_bytes + shared.shards() * READ_COST;
    assert!(in_flight <= most, "{in_flight} bytes are in flight");
    assert_eq!(sum(shared, |m| m.events_in.get()), world.book.head(), "accepted and seen to go in");
    let duplicates = sum(shared, |m| m.events_duplicate.get());
    assert_eq!(duplicates, world.names.duplicates, "events that were known already");
    let writes = sum(shared, |m| m.envelope_writes.get());
    assert!(writes <= world.book.writes, "{writes} writes where {} are enough", world.book.writes);
    check_closes(world);
}

fn check_closes(world: &World) {
    let shared = &world.shared;
    let count = |value: &std::sync::atomic::AtomicUsize| value.load(std::sync::atomic::Ordering::Relaxed);
    let is_whole = world.nodes.iter().all(|node| node.shard.is_some());
    let closed = sum(shared, |m| CloseReason::ALL.iter().map(|reason| m.closed(*reason)).sum());
    if is_whole {
        let clients: usize = counts(world).map(|counts| counts.clients).sum();
        let publishers: usize = counts(world).map(|counts| counts.publishers).sum();
        assert_eq!((count(&shared.clients), count(&shared.publishers)), (clients, publishers));
        assert!(clients <= world.watch.max_clients, "{clients} clients");
        let ever = shared.client_numbers.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ever, closed + clients as u64, "every session ends with one reason");
    }
    for (code, seen) in &world.closes {
        let reasons = CloseReason::ALL.into_iter().filter(|reason| reason.code() == Some(*code));
        let counted: u64 = reasons.map(|reason| sum(shared, |m| m.closed(reason))).sum();
        assert!(*seen <= counted, "{seen} closes with {code} on the wire, {counted} counted");
    }
    let deliveries = sum(shared, |m| m.deliveries.get());
    assert!(world.book.delivered <= deliveries, "more events on the wire than were counted");
}

/// When everybody took everything and nothing is under way.
pub fn when_quiet(world: &mut World) {
    let is_ending = world.is_ending();
    for (id, node) in world.nodes.iter().enumerate() {
        let Some(shard) = &node.shard else { continue };
        let link = &world.shared.links[id];
        assert!(link.is_empty() && link.in_flight() == 0, "shard {id} sleeps over its link");
        assert_eq!(world.shared.metrics[id].pending(), 0, "shard {id} owes events");
        for queue in shard.queues() {
            assert!(!queue.is_blocked, "connection {} waits for an edge that came", queue.number);
            assert_eq!(
                (queue.events, queue.bytes, queue.private_bytes),
                (0, 0, 0),
                "connection {}",
                queue.number
            );
        }
        assert_eq!(shard.held_bytes(), 0);
    }
    for client in &mut world.clients {
        client.check_quiet();
        let pipe = client.pipe.borrow();
        let is_read = pipe.inbound.is_empty() || pipe.number.is_none();
        assert!(
            is_read,
            "client {} ({:?}, {:?}) was not read: {}",
            client.id,
            client.phase,
            client.closed,
            pipe.state()
        );
    }
    world.publishers.iter().for_each(|publisher| publisher.check_quiet(is_ending));
    world.callers.iter().for_each(|caller| caller.check_quiet());
}

/// When everybody left and every timer ran out.
pub fn when_empty(world: &World) {
    for node in &world.nodes {
        let Some(shard) = &node.shard else { continue };
        assert!(shard.is_clean(), "something is left: {shard:?}");
        assert_eq!(shard.counts(), Counts::default());
        assert_eq!(shard.queues().count(), 0);
    }
    assert_eq!(world.shared.topics.count(), 0);
    assert!(world.clients.is_empty() && world.publishers.is_empty() && world.callers.is_empty());
}

/// When the shutdown began and everybody who can read has read: no session is left.
pub fn when_drained(world: &World) {
    for client in &world.clients {
        assert_ne!(client.phase, Phase::Open, "client {} was not let go: {:?}", client.id, client.closed);
    }
    for (id, counts) in counts(world).enumerate() {
        assert_eq!((counts.clients, counts.publishers), (0, 0), "shard {id} is not drained");
    }
    for publisher in &world.publishers {
        let pipe = publisher.pipe.borrow();
        let is_told = publisher.dismissed.is_some() || !pipe.is_intact() || pipe.shut;
        assert!(is_told || pipe.number.is_none(), "publisher {} was not told", publisher.id);
    }
}
