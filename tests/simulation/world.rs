//! One seeded world: shards, clients, publishers, callers, time, and what happens next.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire::clock::{Now, nanos};
use fanwire::config::Limits;
use fanwire::dialect::envelope::Envelopes;
use fanwire::dialect::path::Streams;
use fanwire::error::CloseReason;
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Next, Shard};
use fanwire::fanout::shared::{Access, Shared, State};
use fanwire::fanout::stages::{Stage, Undo};
use fanwire::link::Wake;
use fanwire::session::policy::Policy;
use fanwire::topic::rules::{Rule, Rules};

use crate::audit::{Amnesty, Turn, ends};
use crate::book::{Book, EPOCH_MS, Reach};
use crate::checks::Watch;
use crate::client::{Client, Context, Nature, Phase};
use crate::http::Caller;
use crate::publisher::{Names, Publisher};
use crate::socket::{Op, Pipe, SimSocket, Tape, Temper};
use crate::way::{STREAMS, Visit, stream_limits};

const SECOND: u64 = 1_000_000_000;
/// Turns without any effect after which a shard that still wants one is found to spin.
const IDLE_TURNS: usize = 20;

/// A shard and what its reactor would hold.
pub struct Node {
    pub shard: Option<Shard<SimSocket>>,
    next: Next,
    bell: Arc<AtomicBool>,
    backlog: VecDeque<(Rc<RefCell<Pipe>>, Door)>,
    amnesty: Amnesty,
}

struct Bell(Arc<AtomicBool>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Virtual time, which creeps at every look.
#[derive(Default)]
struct SimClock {
    mono: Cell<u64>,
    creep: Cell<u64>,
    /// The first look of a turn.
    first: Cell<Option<Now>>,
}

impl SimClock {
    fn now(&self) -> Now {
        self.mono.set(self.mono.get() + self.creep.get());
        let mono = self.mono.get();
        let now = Now { mono, wall_ms: EPOCH_MS + mono / 1_000_000 };
        if self.first.get().is_none() {
            self.first.set(Some(now));
        }
        now
    }
}

pub struct World {
    pub shared: Arc<Shared>,
    pub nodes: Vec<Node>,
    pub book: Book,
    pub clients: Vec<Client>,
    pub publishers: Vec<Publisher>,
    pub names: Names,
    pub callers: Vec<Caller>,
    pub limits: Limits,
    /// A shutdown is under way; and one ever was.
    pub draining: bool,
    pub has_drained: bool,
    /// Shutdowns taken back, and those for which it was too late.
    pub undone: [u64; 2],
    pub closes: HashMap<u16, u64>,
    pub watch: Watch,
    pipes: HashMap<usize, (Rc<RefCell<Pipe>>, usize)>,
    clock: SimClock,
    tape: Tape,
    random: fastrand::Rng,
    connections: usize,
    /// Bytes of the largest pads and frames of the largest bursts.
    large: usize,
    burst: usize,
}

/// From how many bytes on events are compressed, by the beginning of topics' names: in half of the worlds none are.
fn compression(random: &mut fastrand::Rng) -> Vec<(&'static str, Option<usize>)> {
    if random.bool() {
        return Vec::new();
    }
    let mut some = |all: &[Option<usize>]| *random.choice(all).unwrap();
    vec![
        ("", some(&[Some(1), Some(300), None])),
        ("al", some(&[Some(1), Some(120)])),
        ("run:", some(&[None, Some(200)])),
    ]
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed); // Epochs of logs are drawn from the thread's.
        let shards = random.usize(1..=4);
        let large = random.choice([0, 50, 1000, 20_000]).unwrap();
        let limits = Limits {
            max_clients: random.usize(3..20),
            max_publishers: random.usize(2..6),
            max_handshakes: random.usize(4..20),
            accepts_per_turn: random.choice([1, 3, 64]).unwrap(),
            max_header_bytes: 4096,
            max_body_bytes: 100_000,
            max_message_bytes: 4000,
            max_subscriptions: random.usize(2..8),
            max_patterns_per_client: random.usize(1..5),
            max_topics: if random.u8(..3) > 0 { 100 } else { random.usize(2..14) },
            max_publish_bytes: 40_000,
            queue_events: random.usize(4..=100),
            queue_bytes: random.usize(2000..200_000),
            max_outbox_bytes: shards * random.choice([4000, 50_000, 2_000_000]).unwrap(),
            link_bytes: random.choice([300, 5000, 100_000]).unwrap(),
            drain_delay: Duration::from_millis(random.choice([0, 0, 700]).unwrap()),
            drain_spread: Duration::from_millis(random.choice([0, 30, 10_000]).unwrap()),
            publish_timeout: Duration::from_secs(random.choice([30, 1 << 30]).unwrap()),
            latency_budget: Duration::from_millis(random.choice([0, 0, 2, 60]).unwrap()),
            max_messages_per_second: random.choice([None, Some(40)]).unwrap(),
            message_timeout: Duration::from_secs(random.choice([60, 10]).unwrap()),
            idempotency_window: Duration::from_secs(random.choice([1, 120, 1 << 30]).unwrap()),
            streams: stream_limits(&mut random),
            ..Limits::default()
        };
        // A crowd is more than one slice of the sweep.
        let is_crowded = seed % 25 == 7;
        let limits = match is_crowded {
            true => Limits { max_clients: 400, max_handshakes: 400, link_bytes: 200_000, ..limits },
            false => limits,
        };
        let clock = SimClock::default();
        clock.mono.set(random.u64(..100 * SECOND));
        let mut envelopes = Envelopes::built_in();
        let streams = Streams::compile(STREAMS, &[], &mut envelopes).expect("streams that are right");
        let shared = Shared::new(shards, &limits, Access::default(), clock.now());
        let compress_above = compression(&mut random);
        let rule = |(prefix, compress_above): &(&str, _)| Rule {
            prefix: (*prefix).to_owned(),
            history: None,
            policies: Policy::ALL.into(),
            compress_above: *compress_above,
        };
        let shared = shared.with_topic_rules(Rules::new(compress_above.iter().map(rule).collect()));
        let shared = Arc::new(shared.with_streams(streams, envelopes));
        shared.set_state(State::Ready);
        let nodes = (0..shards)
            .map(|id| {
                let bell = Arc::new(AtomicBool::new(false));
                shared.links[id].set_waker(Box::new(Bell(Arc::clone(&bell))));
                let shard = Shard::new(id, Arc::clone(&shared), Arc::new(limits.clone()), random.u64(..));
                let (backlog, amnesty) = (VecDeque::new(), Amnesty::default());
                Node { shard: Some(shard), next: Next::Now, bell, backlog, amnesty }
            })
            .collect();
        let mut world = Self {
            watch: Watch::new(&limits),
            shared,
            nodes,
            book: Book::new(shards, compress_above),
            clients: Vec::new(),
            publishers: Vec::new(),
            names: Names::new(nanos(limits.idempotency_window)),
            callers: Vec::new(),
            limits,
            draining: false,
            has_drained: false,
            undone: [0; 2],
            closes: HashMap::new(),
            pipes: HashMap::new(),
            clock,
            tape: Tape::default(),
            burst: if is_crowded { 500 } else { random.choice([3, 30, 300]).unwrap() },
            large: if is_crowded { 20 } else { large },
            random,
            connections: 0,
        };
        if is_crowded {
            for _ in 0..250 {
                world.connect_client(Some(0));
            }
            world.rest();
            world.clients.iter_mut().for_each(|client| client.join(0, &mut world.random));
        }
        world
    }

    /// One thing happens.
    pub fn step(&mut self) {
        self.clock.creep.set(self.random.u64(..20_000));
        let burst = self.burst;
        match self.random.u8(..100) {
            0..40 => {
                let id = self.random.usize(..self.nodes.len());
                self.poll(id, false);
            }
            40..52 => self.everybody_moves(false),
            52..66 => {
                if let Some(client) = pick(&mut self.clients, &mut self.random) {
                    client.act(&mut self.random);
                    client.pump(false, &mut self.random);
                }
            }
            66..82 => {
                if let Some(publisher) = pick(&mut self.publishers, &mut self.random) {
                    publisher.act(burst, self.large, &mut self.book, &mut self.random);
                    publisher.pump(false, &mut self.random);
                }
            }
            82..86 if self.clients.len() < 14 && !self.draining => self.connect_client(None),
            82..86 => self.everybody_moves(false),
            86..88 => self.connect_publisher(),
            88 => self.connect_caller(),
            89..93 => {
                if let Some(caller) = pick(&mut self.callers, &mut self.random) {
                    for _ in 0..self.random.usize(1..4) {
                        caller.act(&mut self.book, &mut self.random);
                    }
                }
            }
            93 => self.pass_time(),
            94 => self.change_limits(),
            95 => {
                if self.random.u8(..4) == 0 {
                    self.rest();
                } else if self.random.u8(..if burst == 500 { 2 } else { 8 }) == 0 && !self.draining {
                    self.measure();
                }
            }
            96..98 => {
                // A flood that comes in whole.
                if let Some(publisher) = pick(&mut self.publishers, &mut self.random) {
                    publisher.act(1000, 20, &mut self.book, &mut self.random);
                    publisher.pump(true, &mut self.random);
                }
            }
            _ => self.make_trouble(),
        }
    }

    /// Spurious readiness, turns nobody asked for, hiccups of the machine.
    fn make_trouble(&mut self) {
        let id = self.random.usize(..self.nodes.len());
        let number = self.random.u32(..20);
        if let Some(shard) = &mut self.nodes[id].shard {
            match self.random.u8(..4) {
                0 => shard.handle_ready(number, true, true),
                1 => shard.handle_ready(number, true, false),
                2 => shard.handle_ready(number, false, true),
                _ => {
                    // A slow machine: up to three seconds within one turn.
                    self.clock.creep.set(self.random.u64(..SECOND / 2));
                    self.turn(id);
                    self.clock.creep.set(0);
                }
            }
        }
    }

    // Who comes.

    fn connect(&mut self, door: Door, capacity: usize, temper: Temper) -> (usize, usize, Rc<RefCell<Pipe>>) {
        let id = self.connections;
        self.connections += 1;
        let shard = self.random.usize(..self.nodes.len());
        let pipe = Pipe::new(id, capacity, temper, self.random.u64(..));
        self.pipes.insert(id, (Rc::clone(&pipe), shard));
        match self.nodes[shard].shard {
            Some(_) => self.nodes[shard].backlog.push_back((Rc::clone(&pipe), door)),
            None => pipe.borrow_mut().break_off(), // Nobody listens any more.
        }
        (id, shard, pipe)
    }

    fn temper(&mut self) -> Temper {
        let random = &mut self.random;
        let mut percent = |choices: [u8; 3]| random.choice(choices).unwrap();
        Temper {
            short_reads: percent([0, 20, 80]),
            refused_reads: percent([0, 0, 20]),
            short_writes: percent([0, 20, 80]),
            refused_writes: percent([0, 5, 40]),
            interrupts: percent([0, 0, 10]),
        }
    }

    fn connect_client(&mut self, topic: Option<usize>) {
        let nature = match self.random.u8(..10) {
            0..4 => Nature::Healthy,
            4..8 => Nature::Slow,
            _ => Nature::Stalled,
        };
        let mut temper = self.temper();
        let capacity = match nature {
            Nature::Healthy => usize::MAX,
            _ => self.random.choice([300, 2000, 6000, 100_000]).unwrap(),
        };
        if nature == Nature::Healthy {
            temper.refused_writes = 0;
        }
        let connection = self.connect(Door::Public, capacity, temper);
        let visit = Visit::random(topic, self.limits.max_subscriptions, &mut self.random);
        let mut client = Client::new(connection, nature, visit, &self.limits, &mut self.book);
        client.is_eager = topic.is_none() && client.is_json() && self.random.u8(..4) > 0;
        self.clients.push(client);
    }

    fn connect_publisher(&mut self) {
        if self.publishers.len() < 5 {
            let temper = self.temper();
            let capacity = self.random.choice([100, 5000, 100_000]).unwrap();
            let (id, _, pipe) = self.connect(Door::Publish, capacity, temper);
            let mut publisher = Publisher::new(id, pipe, &mut self.random);
            if self.random.u8(..3) == 0 {
                publisher.introduce(&self.names, &mut self.random);
            }
            self.publishers.push(publisher);
        }
    }

    fn connect_caller(&mut self) {
        if self.callers.len() < 5 {
            let temper = self.temper();
            let (id, shard, pipe) = self.connect(Door::Public, 3000, temper);
            let publishes = !self.callers.iter().any(|caller| caller.shard == shard && caller.publishes);
            self.callers.push(Caller::new(id, shard, pipe, publishes));
        }
    }

    /// Everybody sends and reads; `all`: as much as there is.
    fn everybody_moves(&mut self, all: bool) {
        let random = &mut self.random;
        for client in &mut self.clients {
            client.read(all, random);
            client.pump(all, random);
        }
        for publisher in &mut self.publishers {
            publisher.pump(all, random);
            publisher.read(all, random);
        }
        for caller in &mut self.callers {
            caller.pump(all, random);
            caller.read(all, random);
        }
    }

    // What a reactor does.

    /// Hands edges to a shard and gives it a turn if it has a reason for one. `all`: every edge there is.
    fn poll(&mut self, id: usize, all: bool) -> bool {
        let now = self.clock.now();
        let random = &mut self.random;
        let node = &mut self.nodes[id];
        let Some(shard) = &mut node.shard else { return false };
        let mut has_reason = node.bell.swap(false, Ordering::Relaxed)
            || match node.next {
                Next::Now => true,
                Next::At(at) => at <= now.mono,
                Next::Wait => false,
            }
            || shard.drain_deadline().is_some_and(|at| at <= now.mono);
        let mut mine: Vec<_> =
            self.pipes.values().filter(|(_, shard)| *shard == id).map(|(pipe, _)| pipe).collect();
        mine.sort_by_key(|pipe| pipe.borrow().id);
        for pipe in mine {
            let (number, readable, writable) = {
                let pipe = &mut *pipe.borrow_mut();
                let Some(number) = pipe.number.filter(|_| !pipe.dropped) else { continue };
                let readable = pipe.readable && (all || random.u8(..4) > 0);
                let writable = pipe.writable && (all || random.u8(..4) > 0);
                pipe.readable &= !readable;
                pipe.writable &= !writable;
                (number, readable, writable)
            };
            if readable || writable {
                shard.handle_ready(number, readable, writable);
                has_reason = true;
            }
        }
        while (all || random.u8(..3) > 0)
            && let Some((pipe, door)) = node.backlog.pop_front()
        {
            pipe.borrow_mut().number = Some(shard.next_number());
            shard.accept(SimSocket::new(&pipe, &self.tape), door, "sim", now);
            has_reason = true;
        }
        if has_reason {
            self.turn(id);
        }
        has_reason
    }

    fn turn(&mut self, id: usize) {
        let Some(shard) = &mut self.nodes[id].shard else { return };
        let before = self.watch.queues(shard);
        let ends_before = ends(&self.shared.metrics[id]);
        let events_in = self.shared.metrics[id].events_in.get();
        let is_full = self.watch.is_full(&self.shared);
        let was_ending = shard.is_ending();
        self.clock.first.set(None);
        let next = shard.turn(&|| self.clock.now());
        // A shutdown begins by publishing the rest of what is published in part.
        let is_full = is_full && was_ending == shard.is_ending();
        // What receipts wait for is on its way out, or held back by the budget.
        let may_wait = next == Next::Now || (next != Next::Wait && !self.limits.latency_budget.is_zero());
        assert!(shard.unflushed() == 0 || may_wait, "shard {id} sleeps over receipts: {next:?}");
        let after = self.watch.queues(shard);
        let now = self.clock.first.get().expect("a turn looks at the clock");
        self.nodes[id].next = next;
        self.nodes[id].amnesty.note_turn(now.mono, next, &self.limits);
        let events_in = self.shared.metrics[id].events_in.get() - events_in;
        assert!(!is_full || events_in == 0, "{events_in} events were taken in although a link was full");
        self.follow(id, events_in, now);
        let metrics = &self.shared.metrics[id];
        let mut ended = ends(metrics);
        ended.iter_mut().zip(ends_before).for_each(|(now, before)| *now -= before);
        let turn = Turn {
            shard: id,
            mono: now.mono,
            draining: self.draining,
            amnesty: &self.nodes[id].amnesty,
            before: &before,
            after: &after,
            ends: ended,
            queue_events: self.watch.queue_events,
            queue_bytes: self.watch.queue_bytes,
            metrics,
        };
        turn.check(&mut self.clients, &self.book);
        self.forget();
        let over = self.nodes[id].shard.as_ref().is_some_and(|shard| {
            crate::checks::after_turn(self, id, shard, &after);
            shard.is_finished() || shard.is_overdue(now)
        });
        if over {
            self.nodes[id].shard = None;
            for (pipe, _) in self.nodes[id].backlog.drain(..) {
                pipe.borrow_mut().break_off();
            }
            self.follow(id, 0, now);
            self.forget();
        }
    }

    /// Brings the model to where the tape says the node is. In a turn all reads come before all writes.
    fn follow(&mut self, id: usize, events_in: u64, now: Now) {
        let ops = std::mem::take(&mut *self.tape.borrow_mut());
        let (max_subscriptions, max_patterns) =
            (self.limits.max_subscriptions, self.limits.max_patterns_per_client);
        let mut context = Context {
            book: &mut self.book,
            mono: now.mono,
            until: self.clock.mono.get(),
            has_drained: self.has_drained,
            max_subscriptions,
            max_patterns,
            max_topics: self.limits.max_topics,
            max_messages: self.limits.max_messages_per_second,
            closes: &mut self.closes,
        };
        let (mut accepted, mut changed) = (0, Vec::new());
        for op in &ops {
            let Op::Read { connection, bytes, asked } = op else { continue };
            if let Some(client) = find(&mut self.clients, *connection) {
                client.consume(*bytes, &mut context);
                changed.push(*connection);
            } else if let Some(publisher) = self.publishers.iter_mut().find(|p| p.id == *connection) {
                for event in publisher.consume(*bytes, *asked, now.mono, &mut self.names) {
                    accepted += 1;
                    context.book.accept(event, now.wall_ms);
                    for client in &mut self.clients {
                        client.expect(event, context.book);
                    }
                }
            } else if let Some(caller) = self.callers.iter_mut().find(|c| c.id == *connection) {
                caller.consume(*bytes);
            }
        }
        assert!(accepted <= events_in, "{accepted} frames went in and {events_in} were accepted");
        if events_in > accepted {
            let caller = self.callers.iter_mut().find(|caller| caller.shard == id && caller.publishes);
            let caller = caller.expect("more events were accepted than publishers wrote");
            for event in caller.accept(events_in - accepted) {
                context.book.accept(event, now.wall_ms);
                for client in &mut self.clients {
                    if changed.contains(&client.id) {
                        client.expect_maybe(event, context.book);
                    } else {
                        client.expect(event, context.book);
                    }
                }
            }
        }
        for op in &ops {
            match op {
                Op::Refused { connection } => {
                    if let Some(client) = find(&mut self.clients, *connection) {
                        client.vigil.refuse(context.mono, context.until);
                    }
                }
                Op::Wrote { connection, bytes } => {
                    if let Some(client) = find(&mut self.clients, *connection) {
                        client.vigil.take();
                        client.take_bytes(bytes, &mut context);
                    } else if let Some(publisher) = self.publishers.iter_mut().find(|p| p.id == *connection) {
                        publisher.take_bytes(bytes, context.book);
                    } else if let Some(caller) = self.callers.iter_mut().find(|c| c.id == *connection) {
                        caller.take_bytes(bytes);
                    }
                }
                Op::End { connection } => {
                    if let Some(client) = find(&mut self.clients, *connection) {
                        client.phase = Phase::Ended;
                    }
                }
                Op::Dropped { connection } => {
                    if let Some(client) = find(&mut self.clients, *connection) {
                        client.take_drop(&context);
                    } else if let Some(publisher) = self.publishers.iter().find(|p| p.id == *connection) {
                        publisher.take_drop();
                    }
                }
                Op::Read { .. } => {}
            }
        }
        if self.shared.links[id].is_empty() {
            self.book.dispatched[id] = self.book.head();
        }
    }

    /// What is gone is nothing to anybody any more.
    fn forget(&mut self) {
        let pipes = &mut self.pipes;
        let mut is_gone = |id: usize, gone: bool| {
            if gone {
                pipes.remove(&id);
            }
            !gone
        };
        self.clients.retain(|client| is_gone(client.id, client.is_gone()));
        self.publishers.retain(|publisher| is_gone(publisher.id, publisher.is_gone()));
        self.callers.retain(|caller| is_gone(caller.id, caller.is_gone()));
    }

    // Time, limits, rest.

    fn pass_time(&mut self) {
        match self.random.u8(..8) {
            0 => {
                // The machine sleeps: nobody may be found silent because of that.
                self.rest();
                let sleep = self.random.u64(..200) * SECOND;
                self.clock.mono.set(self.clock.mono.get() + sleep);
                self.rest();
            }
            1 => {
                self.rest();
                self.next_timer();
                self.rest();
            }
            2 | 3 => {
                // A while, with everybody going on as they are: those that take nothing take nothing.
                for _ in 0..self.random.usize(1..40) {
                    self.clock.mono.set(self.clock.mono.get() + self.random.u64(..SECOND));
                    for id in 0..self.nodes.len() {
                        self.poll(id, false);
                    }
                    if self.random.bool() {
                        self.everybody_moves(false);
                    }
                    if self.random.u8(..4) == 0
                        && let Some(publisher) = pick(&mut self.publishers, &mut self.random)
                    {
                        publisher.act(30, self.large, &mut self.book, &mut self.random);
                    }
                }
            }
            _ => self.clock.mono.set(self.clock.mono.get() + self.random.u64(..SECOND)),
        }
    }

    /// Jumps to when the first shard wants its turn; answers whether any does.
    fn next_timer(&mut self) -> bool {
        let next = self.nodes.iter().filter_map(|node| {
            let shard = node.shard.as_ref()?;
            let timer = match node.next {
                Next::Now => Some(0),
                Next::At(at) => Some(at),
                Next::Wait => None,
            };
            timer.into_iter().chain(shard.drain_deadline()).min()
        });
        let Some(next) = next.min() else { return false };
        self.clock.mono.set(self.clock.mono.get().max(next));
        true
    }

    fn change_limits(&mut self) {
        let random = &mut self.random;
        let limits = &mut self.limits;
        match random.u8(..6) {
            0 => limits.queue_events = random.usize(4..=100),
            1 => limits.queue_bytes = random.usize(2000..200_000),
            2 => limits.link_bytes = random.choice([300, 5000, 100_000]).unwrap(),
            3 => {
                limits.max_outbox_bytes = self.nodes.len() * random.choice([4000, 50_000, 2_000_000]).unwrap()
            }
            4 if limits.max_clients < 100 => limits.max_clients = random.usize(3..20),
            _ => limits.max_topics = if random.bool() { 100 } else { random.usize(2..14) },
        }
        self.watch.note_limits(limits);
        self.shared.set_limits(&Arc::new(limits.clone()));
    }

    /// Everybody sends and takes everything until nothing is under way; then everything must be in order.
    pub fn rest(&mut self) {
        let mut tempers = Vec::new();
        for (pipe, _) in self.pipes.values() {
            let mut pipe = pipe.borrow_mut();
            tempers.push((pipe.id, pipe.temper));
            pipe.calm();
        }
        self.clock.creep.set(1000);
        let mut idle = 0;
        loop {
            self.everybody_moves(true);
            let mut has_turned = false;
            for id in 0..self.nodes.len() {
                let before = self.progress();
                if self.poll(id, true) {
                    has_turned = true;
                    let is_idle = before == self.progress();
                    idle = if is_idle { idle + 1 } else { 0 };
                }
            }
            if !has_turned {
                // What the latency budget holds back goes when that is over, and so do receipts.
                let is_held = self.shared.metrics.iter().any(|metrics| metrics.pending() > 0)
                    || self.nodes.iter().filter_map(|node| node.shard.as_ref()).any(|s| s.unflushed() > 0);
                if self.limits.latency_budget.is_zero() || !is_held || !self.next_timer() {
                    break;
                }
            }
            let next: Vec<Next> = self.nodes.iter().map(|node| node.next).collect();
            assert!(idle < IDLE_TURNS * self.nodes.len(), "turns without effect: {next:?}");
        }
        crate::checks::when_quiet(self);
        for (id, temper) in tempers {
            if let Some((pipe, _)) = self.pipes.get(&id) {
                pipe.borrow_mut().temper = temper;
            }
        }
    }

    /// At rest, and with room in every kernel: receipts say that all who get an event have it.
    fn measure(&mut self) {
        self.rest();
        let closed = self.closed();
        let well = self.publishers.iter_mut().filter(|publisher| publisher.is_well());
        let Some(publisher) = self.random.choice(well.collect::<Vec<_>>()) else { return };
        let id = publisher.id;
        let events = publisher.ask(self.large, &mut self.book, &mut self.random);
        let mut capacities = Vec::new();
        for (pipe, _) in self.pipes.values() {
            let mut pipe = pipe.borrow_mut();
            capacities.push((pipe.id, std::mem::replace(&mut pipe.capacity, usize::MAX)));
        }
        self.rest();
        for (id, capacity) in capacities {
            if let Some((pipe, _)) = self.pipes.get(&id) {
                pipe.borrow_mut().capacity = capacity;
            }
        }
        let is_well = self.publishers.iter().any(|publisher| publisher.id == id && publisher.is_well());
        if !is_well || closed != self.closed() {
            return;
        }
        for number in events {
            let event = &self.book.events[number];
            if event.order > 0 {
                let all = Reach { matched: event.served, written: event.served, ..Reach::default() };
                assert_eq!(event.reach, Some(all), "event {number} of {:?}", event.topics);
                self.book.measured += u64::from(event.served);
            }
        }
    }

    /// A sum that changes with everything that happens, what is only thrown away included.
    fn progress(&self) -> u64 {
        let unread: usize = self.pipes.values().map(|(pipe, _)| pipe.borrow().inbound.len()).sum();
        self.watch.traffic(&self.shared) + unread as u64
    }

    // The end.

    /// Everybody leaves, each in its way; nothing may be left.
    pub fn empty(&mut self) {
        for client in &mut self.clients {
            match self.random.u8(..4) {
                0 => client.pipe.borrow_mut().break_off(),
                1 if client.shape.kind.is_web_socket() => client.nature = Nature::Stalled,
                _ => client.say_goodbye(&mut self.random),
            }
        }
        for publisher in &mut self.publishers {
            let mut pipe = publisher.pipe.borrow_mut();
            if self.random.bool() { pipe.break_off() } else { pipe.end(self.random.bool()) }
        }
        for caller in &mut self.callers {
            caller.pipe.borrow_mut().end(false);
        }
        let until = self.clock.mono.get() + 200 * SECOND;
        self.rest();
        while self.next_timer() {
            self.silence();
            self.rest();
            assert!(self.clock.mono.get() < until, "connections are left after 200 seconds");
        }
        crate::checks::when_empty(self);
    }

    /// Sessions ended, by reason.
    pub fn closed(&self) -> [u64; CloseReason::ALL.len()] {
        CloseReason::ALL.map(|reason| self.shared.metrics.iter().map(|m| m.closed(reason)).sum())
    }

    /// Those who say nothing any more answer no ping either.
    fn silence(&mut self) {
        for client in &mut self.clients {
            // The kernel breaks off who acknowledges nothing; nobody else would.
            if !client.shape.kind.is_web_socket() && client.is_open() {
                client.pipe.borrow_mut().break_off();
            }
            client.is_leaving = true;
        }
    }

    /// Whether publishers are read no more.
    pub fn is_ending(&self) -> bool {
        self.shared.drain_order().is_some_and(|order| order.stage > Stage::Spread)
    }

    fn begin_drain(&mut self) {
        let order = self.shared.begin_drain(self.clock.now()).expect("none is under way");
        assert_eq!(self.shared.begin_drain(self.clock.now()), Err(order));
        assert_eq!(self.shared.state(), State::Draining);
        (self.draining, self.has_drained) = (true, true);
    }

    /// Takes the shutdown back, unless it is too late.
    fn undo_drain(&mut self) {
        let is_too_late = self.is_ending();
        let undone = self.shared.undo_drain();
        assert_eq!(undone == Undo::TooLate, is_too_late, "{undone:?}");
        self.undone[usize::from(is_too_late)] += 1;
        if undone != Undo::TooLate {
            assert_eq!((self.shared.state(), self.shared.undo_drain()), (State::Ready, Undo::Nothing));
            self.draining = false;
        }
    }

    /// Some of everything, with clients that vanish.
    fn step_while_draining(&mut self, steps: usize) {
        for _ in 0..self.random.usize(..steps) {
            self.step();
            if self.random.u8(..20) == 0
                && let Some(client) = pick(&mut self.clients, &mut self.random)
            {
                client.pipe.borrow_mut().break_off();
            }
        }
    }

    /// The node shuts down in the middle of everything, which is sometimes taken back.
    pub fn drain(&mut self) {
        for _ in 0..self.random.usize(..4) {
            self.begin_drain();
            self.step_while_draining(30);
            self.undo_drain();
            if self.draining {
                break;
            }
            // At once again, or after a while in which it serves as before.
            for _ in 0..self.random.choice([0, 3, 60]).unwrap() {
                self.step();
            }
        }
        if !self.draining {
            self.begin_drain();
        }
        self.step_while_draining(100);
        // Those are let go whose time has not come.
        self.rest();
        while !self.is_ending() {
            self.check_spread();
            assert!(self.next_timer(), "nobody wakes for the rest of the clients");
            self.rest();
        }
        // Who reads gets everything and the node is through long before its patience ends.
        let patience = self.clock.mono.get() + 2 * SECOND;
        crate::checks::when_drained(self);
        for publisher in &mut self.publishers {
            publisher.pipe.borrow_mut().end(true);
        }
        self.rest();
        while self.nodes.iter().any(|node| node.shard.is_some()) {
            assert!(self.clock.mono.get() < patience, "the shutdown hangs");
            assert!(self.next_timer());
            self.rest();
        }
    }

    /// Everybody reads: no more clients are left than are still to wait, but for what one look lets go.
    fn check_spread(&self) {
        let order = self.shared.drain_order().expect("a shutdown");
        let now = self.clock.mono.get();
        let (passed, all) = (now.saturating_sub(order.from) as f64, (order.until - order.from).max(1) as f64);
        let left: usize =
            self.nodes.iter().filter_map(|node| Some(node.shard.as_ref()?.counts().clients)).sum();
        let most = order.clients as f64 * (1.0 - passed / all)
            + (order.clients as f64) * 2e7 / all
            + 2.0 * self.nodes.len() as f64;
        assert!(left as f64 <= most, "{left} of {} clients are left, {most} may be", order.clients);
    }
}

fn find(clients: &mut [Client], id: usize) -> Option<&mut Client> {
    clients.iter_mut().find(|client| client.id == id)
}

fn pick<'a, T>(from: &'a mut [T], random: &mut fastrand::Rng) -> Option<&'a mut T> {
    if from.is_empty() {
        return None;
    }
    let place = random.usize(..from.len());
    Some(&mut from[place])
}
