//! Clients that come, go and go on where they were: topics with history, in worlds of their own.
//!
//! The model knows every topic's log: which event stands at which offset. Each client keeps what a client would, the
//! newest offset that it has seen of each topic, and is held to this: no event comes twice, none comes that is not
//! its, what comes after a position begins right there, and all that is missing was told, to the number where that
//! can be known. `FANWIRE_SIM_SEED`, `FANWIRE_SIM_RUNS` and `FANWIRE_SIM_STEPS` count here too.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire::clock::Now;
use fanwire::config::{HistoryLimits, Limits};
use fanwire::dialect::envelope::Envelopes;
use fanwire::dialect::path::{Definition, Streams};
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Next, Shard};
use fanwire::fanout::shared::{Access, FromShard, Shared, State};
use fanwire::metrics::DropReason;
use fanwire::publish::ingress::Ingress;
use fanwire::publish::wire::Publish;
use fanwire::receipt::{Asker, Key, Receipt};
use fanwire::session::policy::Policy;
use fanwire::topic::rules::{Rule, Rules};
use serde_json::{Value, json};

use crate::frames::{Reader, write_text};
use crate::socket::{Op, Pipe, SimSocket, Tape, Temper};

const TOPICS: [&str; 4] = ["h:a", "h:b", "h:c", "h:d"];
const NAMES: [&str; 3] = ["step", "log", "done"];
const KEYS: [&str; 4] = ["", "k1", "k2", "k3"];
const SECOND: u64 = 1_000_000_000;
/// Seeds of a plain `cargo test`.
const RUNS: u64 = 120;

const STREAM: Definition<'static> =
    Definition { path: "/o/{name}", topic: "{name}", envelope: r#"{"data":{data},"o":{offset}}"# };

/// The life of one topic's log: the number of the event at each offset, from 1 on.
type Log = Vec<usize>;

struct Event {
    /// Topic, epoch and offset.
    places: Vec<(usize, String, u64)>,
    name: usize,
    /// How often it came to anybody.
    delivered: u32,
}

/// A receipt under way.
struct Watched {
    receipt: Arc<Receipt>,
    event: usize,
    /// Connections whose sessions the event is for …
    sure: BTreeSet<usize>,
    /// … and those of which that is not known: they came, went, or asked for something meanwhile.
    maybe: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Sse,
    Path,
}

/// What a client has of a topic.
#[derive(Clone, Debug)]
struct Place {
    epoch: String,
    /// What follows is to come.
    offset: u64,
}

/// One subscription of a connection.
#[derive(Clone, Debug)]
struct Sub {
    /// Where it began; `None`: the client cannot know.
    start: Option<Place>,
    /// The newest offset that came, and what was told since.
    seen: Option<u64>,
    told: u64,
}

struct Connection {
    id: usize,
    shard: usize,
    pipe: Rc<RefCell<Pipe>>,
    outgoing: Vec<u8>,
    head: Vec<u8>,
    is_open: bool,
    frames: Reader,
    text: String,
    /// What was asked for and not answered.
    asked: Vec<(Vec<usize>, BTreeMap<usize, Option<Place>>, bool)>,
    subs: BTreeMap<usize, Sub>,
    got: BTreeSet<usize>,
    /// All that was told to be missing.
    told: u64,
    /// Something that nobody can count may be missing.
    is_vague: bool,
    /// Events of several topics may come again: a topic was left.
    may_repeat: bool,
    /// The client asked for the newest events, which come out of line.
    lasts: u64,
    is_over: bool,
}

struct Client {
    kind: Kind,
    /// What the next connection is to have.
    topics: BTreeSet<usize>,
    policy: Policy,
    names: Option<Vec<usize>>,
    places: BTreeMap<usize, Place>,
    last_id: Option<String>,
    is_slow: bool,
    connection: Option<Connection>,
}

struct World {
    shared: Arc<Shared>,
    shards: Vec<Option<Shard<SimSocket>>>,
    next: Vec<Next>,
    limits: Limits,
    mono: Cell<u64>,
    tape: Tape,
    random: fastrand::Rng,
    events: Vec<Event>,
    logs: HashMap<(usize, String), Log>,
    clients: Vec<Client>,
    watched: Vec<Watched>,
    connections: usize,
    /// Nothing may ever be missing: histories are large, and nobody chooses to leave out.
    is_lossless: bool,
    has_several: bool,
    has_filters: bool,
    /// Nobody goes on from a history: what becomes of an event is seen to the end by its receipt.
    is_live: bool,
    /// Receipts that are complete, with their events, until it is seen.
    complete: Vec<(usize, Arc<Receipt>)>,
    delivered: u64,
    resumed: u64,
    told: u64,
    /// Receipts, those of them of which it was known what they had to say, and all sessions that these counted.
    receipts: [u64; 3],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed); // Epochs of logs are drawn from the thread's.
        let is_lossless = random.u8(..3) == 0;
        let count = random.usize(1..=3);
        let limits = Limits {
            queue_events: random.usize(3..60),
            queue_bytes: random.choice([3000, 100_000]).unwrap(),
            max_history_bytes: if is_lossless || random.bool() { 1 << 30 } else { 20_000 },
            max_subscriptions: if random.u8(..4) == 0 { 2 } else { 100 },
            max_outbox_bytes: match random.u8(..3) {
                0 if !is_lossless => count * random.choice([4000, 30_000]).unwrap(),
                _ => 1 << 30,
            },
            handshake_timeout: Duration::from_secs(1 << 20),
            heartbeat_interval: Duration::from_secs(1 << 20),
            heartbeat_timeout: Duration::from_secs(1 << 21),
            ..Limits::default()
        };
        let mut limit = |prefix: &str| {
            let huge = HistoryLimits { events: 1 << 20, bytes: 1 << 30, age: Duration::from_secs(1 << 20) };
            let history = match random.u8(..4) {
                _ if is_lossless => huge,
                0 => HistoryLimits { events: random.usize(1..40), ..huge },
                1 => HistoryLimits { bytes: random.usize(1024..20_000), ..huge },
                2 => HistoryLimits { age: Duration::from_millis(random.u64(100..20_000)), ..huge },
                _ => huge,
            };
            Rule {
                prefix: prefix.to_owned(),
                history: Some(history),
                policies: Policy::ALL.into(),
                compress_above: random.choice([None, Some(1), Some(100)]).unwrap(),
            }
        };
        let rules = Rules::new(TOPICS.iter().map(|topic| limit(topic)).collect());
        let mut envelopes = Envelopes::built_in();
        let streams = Streams::compile([STREAM], &[], &mut envelopes).unwrap();
        let now = Now { mono: random.u64(..100 * SECOND), wall_ms: 1 };
        let shared = Shared::new(count, &limits, Access::default(), now);
        let shared = Arc::new(shared.with_streams(streams, envelopes).with_topic_rules(rules));
        shared.set_state(State::Ready);
        let shards = (0..count)
            .map(|id| Some(Shard::new(id, Arc::clone(&shared), Arc::new(limits.clone()), random.u64(..))));
        Self {
            shards: shards.collect(),
            next: vec![Next::Now; count],
            shared,
            limits,
            mono: Cell::new(now.mono),
            tape: Tape::default(),
            events: Vec::new(),
            logs: HashMap::new(),
            clients: Vec::new(),
            watched: Vec::new(),
            connections: 0,
            is_lossless,
            has_several: random.bool(),
            has_filters: random.u8(..3) == 0,
            is_live: random.u8(..4) == 0,
            complete: Vec::new(),
            random,
            delivered: 0,
            resumed: 0,
            told: 0,
            receipts: [0; 3],
        }
    }

    fn step(&mut self) {
        self.mono.set(self.mono.get() + self.random.u64(..2_000_000));
        match self.random.u8(..100) {
            0..35 => {
                let id = self.random.usize(..self.shards.len());
                self.poll(id);
            }
            35..60 => self.publish(),
            60..80 => self.everybody_reads(false),
            80..84 if self.clients.len() < 8 => self.invite(),
            80..95 => self.somebody_acts(),
            95..97 => self.mono.set(self.mono.get() + self.random.u64(..3 * SECOND)),
            97 => self.rest(),
            _ => {
                let id = self.random.usize(..self.shards.len());
                self.turn(id);
            }
        }
    }

    // Events.

    fn publish(&mut self) {
        let Self { random, shared, .. } = self;
        let shard = random.usize(..shared.shards());
        if !shared.links.iter().all(|link| link.has_credit(self.limits.link_bytes, shard)) {
            return;
        }
        let (mut ingress, to) = (Ingress::default(), FromShard { shared, shard });
        let now = Now { mono: self.mono.get(), wall_ms: 1 };
        let mut batch: Vec<(usize, Vec<usize>, usize)> = Vec::new();
        let mut asked = Vec::new();
        let most = random.choice([1, 5, 60]).unwrap();
        for _ in 0..random.usize(1..=most) {
            let mut topics = vec![random.usize(..TOPICS.len())];
            if self.has_several && random.u8(..3) == 0 {
                topics.extend((0..random.usize(1..3)).map(|_| random.usize(..TOPICS.len())));
            }
            let mut seen = BTreeSet::new();
            topics.retain(|topic| seen.insert(*topic));
            let number = self.events.len() + batch.len();
            let name = random.usize(..NAMES.len());
            let data = format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(random.usize(..200)));
            let names: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic]).collect();
            let publish = Publish {
                topics: &names.join("\n"),
                event: NAMES[name],
                key: random.choice(KEYS).unwrap(),
                data: &data,
                timestamp_ms: 1,
            };
            let receipt = (random.u8(..3) == 0).then(|| Receipt::new(some_asker(shared, random), 0));
            ingress.add(&publish, receipt.as_ref(), now, &to, &shared.metrics[shard]);
            asked.extend(receipt.map(|receipt| (number, receipt)));
            // One at a time: then the model knows where each stands, also where a history keeps nothing of it.
            ingress.commit(now, &to, &shared.metrics[shard]);
            batch.push((number, topics, name));
            let (number, topics, name) = batch.pop().unwrap();
            let places = topics.iter().map(|topic| {
                let found = shared.topics.find(TOPICS[*topic]).expect("a topic with history is there");
                (*topic, format!("{:016x}", found.epoch().unwrap()), found.head())
            });
            let places: Vec<_> = places.collect();
            for (topic, epoch, offset) in &places {
                let log = self.logs.entry((*topic, epoch.clone())).or_default();
                log.push(number);
                assert_eq!(log.len() as u64, *offset, "an offset is left out or given twice");
            }
            self.events.push(Event { places, name, delivered: 0 });
        }
        self.watch(asked);
    }

    /// Many events at once, so that rounds have more than one.
    fn publish_round(&mut self) {
        let topic = self.random.usize(..TOPICS.len());
        let Self { random, shared, .. } = self;
        let (mut ingress, to) = (Ingress::default(), FromShard { shared, shard: 0 });
        let now = Now { mono: self.mono.get(), wall_ms: 1 };
        let count = random.usize(2..80);
        let (mut names, mut asked) = (Vec::new(), Vec::new());
        for number in self.events.len()..self.events.len() + count {
            let name = random.usize(..NAMES.len());
            let data = format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(random.usize(..600)));
            let key = random.choice(KEYS).unwrap();
            let publish =
                Publish { topics: TOPICS[topic], event: NAMES[name], key, data: &data, timestamp_ms: 1 };
            let receipt = (random.u8(..8) == 0).then(|| Receipt::new(some_asker(shared, random), 0));
            ingress.add(&publish, receipt.as_ref(), now, &to, &shared.metrics[0]);
            asked.extend(receipt.map(|receipt| (number, receipt)));
            names.push(name);
        }
        ingress.commit(now, &to, &shared.metrics[0]);
        let found = shared.topics.find(TOPICS[topic]).expect("a topic with history is there");
        let (epoch, head) = (format!("{:016x}", found.epoch().unwrap()), found.head());
        for (place, name) in names.into_iter().enumerate() {
            let offset = head - count as u64 + 1 + place as u64;
            let log = self.logs.entry((topic, epoch.clone())).or_default();
            log.push(self.events.len());
            assert_eq!(log.len() as u64, offset);
            self.events.push(Event { places: vec![(topic, epoch.clone(), offset)], name, delivered: 0 });
        }
        self.watch(asked);
    }

    // Receipts.

    /// What was published just now is held to what its receipts say. No shard has had a turn since.
    fn watch(&mut self, asked: Vec<(usize, Arc<Receipt>)>) {
        for (event, receipt) in asked {
            let (mut sure, mut maybe) = (BTreeSet::new(), BTreeSet::new());
            for client in &self.clients {
                let Some(connection) = &client.connection else { continue };
                let Event { places, name, .. } = &self.events[event];
                if !client.is_settled() {
                    maybe.insert(connection.id);
                } else if self.is_session(connection)
                    && client.names.as_ref().is_none_or(|names| names.contains(name))
                    && places.iter().any(|(topic, ..)| connection.subs.contains_key(topic))
                {
                    sure.insert(connection.id);
                }
            }
            receipt.let_go();
            self.watched.push(Watched { receipt, event, sure, maybe });
        }
    }

    /// Whether the node has a session for a connection.
    fn is_session(&self, connection: &Connection) -> bool {
        let pipe = connection.pipe.borrow();
        let Some(shard) = self.shards[connection.shard].as_ref().filter(|_| !pipe.dropped) else {
            return false;
        };
        shard.queues().any(|queue| queue.is_client && Some(queue.number) == pipe.number)
    }

    /// From now on it is not known whether what is under way is for a connection.
    fn unsettle(&mut self, id: usize) {
        for Watched { sure, maybe, .. } in &mut self.watched {
            sure.remove(&id);
            maybe.insert(id);
        }
    }

    /// Holds the receipts that are complete to what is known.
    fn check_receipts(&mut self) {
        let (complete, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.watched).into_iter().partition(|watched| watched.receipt.is_complete());
        self.watched = waiting;
        for Watched { receipt, event, sure, maybe } in complete {
            let reach = receipt.reach();
            let connections = self.clients.iter().filter_map(|client| client.connection.as_ref());
            let left: BTreeSet<usize> = connections.filter(|c| self.is_session(c)).map(|c| c.id).collect();
            let (least, most) = (sure.intersection(&left).count(), sure.union(&maybe).count());
            let Event { places, delivered, .. } = &self.events[event];
            assert!(
                (least..=most).contains(&(reach.matched as usize)),
                "event {event} of {places:?} is for {sure:?} of {left:?}, maybe {maybe:?}: {reach:?}"
            );
            let known = reach.written + reach.queued + reach.left_out + reach.closed;
            assert!(known <= reach.matched, "event {event}: {reach:?}");
            assert!(reach.written <= *delivered, "event {event} came {delivered} times: {reach:?}");
            let is_exact = least == most;
            self.complete.push((event, receipt));
            self.receipts[0] += 1;
            self.receipts[1] += u64::from(is_exact);
            self.receipts[2] += if is_exact { least as u64 } else { 0 };
        }
    }

    // Clients.

    fn invite(&mut self) {
        let random = &mut self.random;
        let kind = random.choice([Kind::Json, Kind::Json, Kind::Json, Kind::Sse, Kind::Path]).unwrap();
        let count = if kind == Kind::Path { 1 } else { random.usize(1..=3) };
        let policy = match self.is_lossless {
            true if self.is_live => Some(Policy::Disconnect),
            true => random.choice([Policy::Disconnect, Policy::Replay]),
            false => {
                let all = Policy::ALL.into_iter();
                let all = all.filter(|policy| !self.is_live || *policy != Policy::Replay);
                random.choice(all.collect::<Vec<_>>())
            }
        };
        let names = (self.has_filters && random.bool())
            .then(|| (0..NAMES.len()).filter(|_| random.bool()).collect::<Vec<_>>())
            .filter(|names| !names.is_empty());
        let client = Client {
            kind,
            topics: (0..count).map(|_| random.usize(..TOPICS.len())).collect(),
            policy: policy.unwrap(),
            names,
            places: BTreeMap::new(),
            last_id: None,
            is_slow: random.bool(),
            connection: None,
        };
        self.clients.push(client);
    }

    fn somebody_acts(&mut self) {
        if self.random.u8(..8) == 0 {
            return self.publish_round();
        }
        if self.clients.is_empty() {
            return;
        }
        let number = self.random.usize(..self.clients.len());
        if let Some(connection) = &self.clients[number].connection {
            self.unsettle(connection.id);
        }
        let client = &mut self.clients[number];
        let Some(connection) = &mut client.connection else { return self.connect(number) };
        let random = &mut self.random;
        match random.u8(..10) {
            0..3 => connection.pipe.borrow_mut().break_off(),
            3 => connection.pipe.borrow_mut().end(true),
            4..7 if client.kind == Kind::Json && connection.is_open => {
                // One more topic, from where it was if it ever was there.
                let topic = random.usize(..TOPICS.len());
                if connection.subs.contains_key(&topic) && !client.topics.contains(&topic) {
                    return; // It leaves, and what comes until then is not known yet.
                }
                let place = client.places.get(&topic).filter(|_| !self.is_live).cloned();
                client.topics.insert(topic);
                let since = place.map(|place| BTreeMap::from([(topic, Some(place))])).unwrap_or_default();
                let last = random.u8(..6) == 0;
                let (policy, names) = (client.policy, client.names.clone());
                connection.subscribe(&[topic].into(), &since, policy, names.as_deref(), last, random);
            }
            7 if client.kind == Kind::Json && connection.is_open && client.topics.len() > 1 => {
                let topic = *random.choice(client.topics.iter()).unwrap();
                client.topics.remove(&topic);
                connection.may_repeat = true;
                let text = json!({"type": "unsubscribe", "topics": [TOPICS[topic]]}).to_string();
                write_text(&mut connection.outgoing, text.as_bytes(), random);
            }
            _ => {}
        }
    }

    fn connect(&mut self, number: usize) {
        let Self { random, clients, limits, .. } = self;
        let client = &mut clients[number];
        while client.topics.len() > limits.max_subscriptions {
            client.topics.pop_last();
        }
        let id = self.connections;
        self.connections += 1;
        let shard = random.usize(..self.shards.len());
        let capacity = if client.is_slow { random.choice([200, 1500, 8000]).unwrap() } else { usize::MAX };
        let mut percent = |choices: [u8; 3]| random.choice(choices).unwrap();
        let temper = Temper {
            short_reads: percent([0, 0, 50]),
            short_writes: percent([0, 0, 50]),
            refused_writes: if capacity == usize::MAX { 0 } else { percent([0, 10, 40]) },
            ..Temper::default()
        };
        let pipe = Pipe::new(id, capacity, temper, random.u64(..));
        let mut connection = Connection {
            id,
            shard,
            pipe,
            outgoing: Vec::new(),
            head: Vec::new(),
            is_open: false,
            frames: Reader::default(),
            text: String::new(),
            asked: Vec::new(),
            subs: BTreeMap::new(),
            got: BTreeSet::new(),
            told: 0,
            is_vague: false,
            may_repeat: false,
            lasts: 0,
            is_over: false,
        };
        let mut query = vec![format!("policy={}", client.policy.name())];
        if let Some(names) = &client.names {
            let names: Vec<&str> = names.iter().map(|name| NAMES[*name]).collect();
            query.push(format!("events={}", names.join(",")));
        }
        let topics: Vec<&str> = client.topics.iter().map(|topic| TOPICS[*topic]).collect();
        let mut headers = "Host: n\r\n".to_owned();
        if client.kind != Kind::Sse {
            headers += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            if random.bool() {
                headers += "Sec-WebSocket-Extensions: permessage-deflate\r\n";
            }
        }
        let path = match client.kind {
            Kind::Json => "/ws".to_owned(),
            Kind::Path => format!("/o/{}?{}", topics[0], query.join("&")),
            Kind::Sse => format!("/sse?topics={}&{}", topics.join(","), query.join("&")),
        };
        let unknown = |topics: &BTreeSet<usize>| {
            let sub = |topic: &usize| (*topic, Sub { start: None, seen: None, told: 0 });
            topics.iter().map(sub).collect()
        };
        match client.kind {
            Kind::Json => {}
            Kind::Path => connection.subs = unknown(&client.topics),
            Kind::Sse => {
                connection.subs = unknown(&client.topics);
                if let Some(id) = client.last_id.as_ref().filter(|_| !self.is_live) {
                    headers += &format!("Last-Event-ID: {id}\r\n");
                    let (epoch, offset) = id.split_once('-').unwrap();
                    let offset: u64 = offset.parse().unwrap();
                    for (topic, sub) in &mut connection.subs {
                        if self.logs.contains_key(&(*topic, epoch.to_owned())) {
                            sub.start = Some(Place { epoch: epoch.to_owned(), offset });
                        }
                    }
                    self.resumed += 1;
                }
            }
        }
        connection.outgoing = format!("GET {path} HTTP/1.1\r\n{headers}\r\n").into_bytes();
        if client.kind == Kind::Json {
            let since: BTreeMap<usize, Option<Place>> = client
                .topics
                .iter()
                .filter_map(|topic| {
                    let place = client.places.get(topic).filter(|_| !self.is_live)?;
                    Some((*topic, Some(place.clone())))
                })
                .collect();
            self.resumed += u64::from(!since.is_empty());
            let (policy, names) = (client.policy, client.names.clone());
            connection.subscribe(&client.topics, &since, policy, names.as_deref(), false, random);
        }
        let shard = connection.shard;
        let socket = SimSocket::new(&connection.pipe, &self.tape);
        let now = Now { mono: self.mono.get(), wall_ms: 1 };
        if let Some(node) = &mut self.shards[shard] {
            connection.pipe.borrow_mut().number = Some(node.next_number());
            node.accept(socket, Door::Public, "sim", now);
            client.connection = Some(connection);
            self.unsettle(id);
        }
    }

    fn everybody_reads(&mut self, all: bool) {
        for client in &mut self.clients {
            let Some(connection) = &mut client.connection else { continue };
            let mut pipe = connection.pipe.borrow_mut();
            pipe.send(&std::mem::take(&mut connection.outgoing));
            match (all, client.is_slow) {
                (false, true) if self.random.u8(..3) > 0 => {}
                (false, true) => drop(pipe.take(self.random.usize(1..3000))),
                _ => drop(pipe.take(usize::MAX)),
            }
        }
    }

    // The node.

    fn poll(&mut self, id: usize) -> bool {
        let Some(shard) = &mut self.shards[id] else { return false };
        let mut has_reason = !self.shared.links[id].is_empty()
            || match self.next[id] {
                Next::Now => true,
                Next::At(at) => at <= self.mono.get(),
                Next::Wait => false,
            };
        for client in &mut self.clients {
            let Some(connection) = client.connection.as_mut().filter(|c| c.shard == id) else { continue };
            let pipe = &mut *connection.pipe.borrow_mut();
            let Some(number) = pipe.number.filter(|_| !pipe.dropped) else { continue };
            let (readable, writable) =
                (std::mem::take(&mut pipe.readable), std::mem::take(&mut pipe.writable));
            if readable || writable {
                shard.handle_ready(number, readable, writable);
                has_reason = true;
            }
        }
        if has_reason {
            self.turn(id);
        }
        has_reason
    }

    fn turn(&mut self, id: usize) {
        let Some(shard) = &mut self.shards[id] else { return };
        let mono = &self.mono;
        self.next[id] = shard.turn(&|| {
            mono.set(mono.get() + 1000);
            Now { mono: mono.get(), wall_ms: 1 }
        });
        let pending: u64 = shard.queues().filter(|q| q.is_client).map(|q| u64::from(q.events)).sum();
        let metrics = &self.shared.metrics[id];
        let dropped: u64 = DropReason::all().map(|reason| metrics.dropped(reason)).sum();
        assert_eq!(
            metrics.dispatched.get(),
            metrics.deliveries.get() + dropped + pending,
            "dispatched = delivered + dropped + pending"
        );
        assert!(metrics.replayed.get() <= metrics.dispatched.get());
        if shard.is_finished() || shard.is_overdue(Now { mono: self.mono.get(), wall_ms: 1 }) {
            self.shards[id] = None;
        }
        let ops = std::mem::take(&mut *self.tape.borrow_mut());
        for op in ops {
            match op {
                Op::Wrote { connection, bytes } => self.take(connection, &bytes),
                Op::Dropped { connection } => {
                    let client = self
                        .clients
                        .iter_mut()
                        .find(|client| client.connection.as_ref().is_some_and(|c| c.id == connection));
                    if let Some(client) = client {
                        client.connection = None;
                    }
                }
                _ => {}
            }
        }
        self.check_receipts();
    }

    /// Bytes come to a connection.
    fn take(&mut self, id: usize, bytes: &[u8]) {
        let is_it = |client: &Client| client.connection.as_ref().is_some_and(|c| c.id == id);
        let Some(number) = self.clients.iter().position(is_it) else { return };
        let client = &mut self.clients[number];
        let kind = client.kind;
        let connection = client.connection.as_mut().unwrap();
        let mut bytes = bytes.to_vec();
        if !connection.is_open {
            connection.head.extend(bytes);
            let Some(end) = connection.head.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            bytes = connection.head.split_off(end + 4);
            let head = String::from_utf8_lossy(&connection.head);
            let expected = if kind == Kind::Sse { "HTTP/1.1 200 " } else { "HTTP/1.1 101 " };
            if head.starts_with("HTTP/1.1 503 ") && self.shared.state() == State::Draining {
                connection.is_over = true;
                return;
            }
            assert!(head.starts_with(expected), "{head}");
            connection.frames.deflated = head.contains("\r\nSec-WebSocket-Extensions: permessage-deflate;");
            connection.is_open = true;
        }
        let mut messages = Vec::new();
        if kind == Kind::Sse {
            connection.text += std::str::from_utf8(&bytes).unwrap();
            while let Some(end) = connection.text.find("\n\n") {
                let rest = connection.text.split_off(end + 2);
                messages.push(std::mem::replace(&mut connection.text, rest));
            }
        } else {
            connection.frames.push(&bytes);
            while let Some(frame) = connection.frames.next() {
                match frame.opcode {
                    1 => messages.push(String::from_utf8(frame.payload).unwrap()),
                    8 => connection.is_over = true,
                    _ => {}
                }
            }
        }
        for message in messages {
            let (mut text, mut id) = (message.clone(), None);
            if kind == Kind::Sse {
                text = String::new();
                for line in message.lines() {
                    if let Some(found) = line.strip_prefix("id: ") {
                        id = Some(found.to_owned());
                    } else if let Some(data) = line.strip_prefix("data: ") {
                        text += data;
                    } else if line.starts_with(": closed") {
                        self.clients[number].connection.as_mut().unwrap().is_over = true;
                    }
                }
            }
            self.take_message(number, &text, id);
        }
        let connection = self.clients[number].connection.as_mut().unwrap();
        if connection.is_over {
            connection.pipe.borrow_mut().end(true);
        }
    }

    fn take_message(&mut self, number: usize, text: &str, id: Option<String>) {
        let client = &mut self.clients[number];
        let connection = client.connection.as_mut().unwrap();
        if let Some(id) = &id {
            client.last_id = Some(id.clone());
        }
        if text.is_empty() {
            // Where an event stream begins. Of a stream that goes on it is where it was, or after what it misses.
            if let Some(id) = id {
                let (epoch, offset) = id.split_once('-').unwrap();
                let offset = offset.parse().unwrap();
                let topics: Vec<usize> = connection.subs.keys().copied().collect();
                for topic in topics {
                    let found = self.shared.topics.find(TOPICS[topic]);
                    if found.and_then(|found| found.epoch()).is_some_and(|e| format!("{e:016x}") == epoch) {
                        let sub = connection.subs.get_mut(&topic).unwrap();
                        if let Some(start) = sub.start.as_ref().filter(|start| start.epoch == epoch) {
                            assert_eq!(offset - start.offset, std::mem::take(&mut sub.told), "{id}");
                        }
                        sub.start = Some(Place { epoch: epoch.to_owned(), offset });
                    }
                }
            }
            return;
        }
        let message: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        match message["type"].as_str() {
            Some("subscription-ack") => self.take_ack(number, &message["data"]),
            Some("unsubscription-ack") => {
                let left: Vec<usize> = connection
                    .subs
                    .keys()
                    .filter(|topic| {
                        !message["data"]["categories"].as_array().unwrap().contains(&TOPICS[**topic].into())
                    })
                    .copied()
                    .collect();
                left.iter().for_each(|topic| drop(connection.subs.remove(topic)));
            }
            Some("error") => {
                let error = message["data"]["error"].as_str().unwrap();
                if error.starts_with("last: ") {
                    assert!(connection.lasts > 0, "nobody asked for the newest: {error}");
                    return;
                }
                assert!(error.contains("max_subscriptions") && !connection.asked.is_empty(), "{error}");
                let (topics, ..) = connection.asked.remove(0);
                topics.iter().filter(|topic| !connection.subs.contains_key(topic)).for_each(|topic| {
                    client.topics.remove(topic);
                });
            }
            Some("gap") => {
                let topic = message["data"]["topic"].as_str().unwrap();
                let topic = TOPICS.iter().position(|name| *name == topic).unwrap();
                let Some(dropped) = message["data"]["dropped"].as_u64() else {
                    assert!(client.kind == Kind::Sse, "{text}");
                    connection.is_vague = true;
                    connection.subs.get_mut(&topic).unwrap().start = None;
                    return;
                };
                // But for what waited for a topic that was left while it was behind.
                let is_left = self.has_several && connection.may_repeat;
                assert!(!self.is_lossless || is_left, "nothing may be missing: {text}");
                let conflated = message["data"]["conflated"].as_u64().unwrap_or_default();
                assert!(dropped > 0 && conflated <= dropped);
                assert!(conflated == 0 || client.policy == Policy::Conflate, "{text}");
                connection.told += dropped;
                self.told += dropped;
                connection.subs.get_mut(&topic).unwrap().told += dropped;
            }
            _ => self.take_event(number, &message),
        }
    }

    fn take_ack(&mut self, number: usize, data: &Value) {
        let client = &mut self.clients[number];
        let connection = client.connection.as_mut().unwrap();
        let (topics, since, last) = connection.asked.remove(0);
        connection.lasts += u64::from(last);
        let mut missing = BTreeSet::new();
        for (name, range) in data["missing"].as_object().into_iter().flatten() {
            let topic = TOPICS.iter().position(|topic| topic == name).unwrap();
            missing.insert(topic);
            let from = since[&topic].as_ref().expect("a place was given");
            if range.is_null() {
                // Where the client is closed in the same turn its topic may be gone by now.
                if let Some(found) = self.shared.topics.find(name) {
                    let found = found.epoch().unwrap();
                    assert_ne!(from.epoch, format!("{found:016x}"), "the epoch is not unknown");
                }
                assert!(!self.is_lossless || from.offset == 0, "a topic that keeps events stays: {data}");
                connection.is_vague = true;
            } else {
                assert!(!self.is_lossless, "nothing may be missing: {data}");
                let (first, last) = (range["from"].as_u64().unwrap(), range["to"].as_u64().unwrap());
                assert_eq!(first, from.offset + 1, "{data}");
                assert!(last >= first);
                connection.told += last - first + 1;
            }
        }
        let recovered = (!since.is_empty()).then_some(missing.is_empty());
        assert_eq!(data["recovered"].as_bool(), recovered, "{data}");
        for topic in topics {
            let position = &data["positions"][TOPICS[topic]];
            let offset = position["offset"].as_u64().unwrap();
            let epoch = position["epoch"].as_str().unwrap().to_owned();
            if connection.subs.contains_key(&topic) {
                continue;
            }
            if let Some(Some(from)) = since.get(&topic).filter(|_| !data["missing"][TOPICS[topic]].is_null())
            {
                let range = &data["missing"][TOPICS[topic]];
                assert_eq!(range["to"].as_u64(), Some(offset), "it goes on after what is missing: {data}");
                assert!(from.offset < offset);
            } else if let Some(Some(from)) = since.get(&topic).filter(|_| !missing.contains(&topic)) {
                assert_eq!((&from.epoch, from.offset), (&epoch, offset), "it goes on where it was: {data}");
            }
            let place = Place { epoch, offset };
            // Who left it and goes on from before what was on its way asked for that again: it has to come once more.
            connection.got.retain(|n| match &self.events[*n].places[..] {
                [(other, epoch, offset)] => {
                    *other != topic || *epoch != place.epoch || *offset <= place.offset
                }
                _ => true,
            });
            client.places.insert(topic, place.clone());
            connection.subs.insert(topic, Sub { start: Some(place), seen: Some(offset), told: 0 });
        }
    }

    fn take_event(&mut self, number: usize, message: &Value) {
        self.delivered += 1;
        let client = &mut self.clients[number];
        let connection = client.connection.as_mut().unwrap();
        let n = message["data"]["n"].as_u64().unwrap() as usize;
        self.events[n].delivered += 1;
        let event = &self.events[n];
        if let Some(names) = &client.names {
            assert!(names.contains(&event.name), "event {n} is not wanted");
        }
        // What is beside it is right.
        let (_, epoch, offset) = &event.places[0];
        match client.kind {
            Kind::Json | Kind::Sse => {
                assert_eq!(message["offset"].as_u64(), Some(*offset));
                let others: BTreeMap<&str, u64> =
                    event.places[1..].iter().map(|(topic, _, offset)| (TOPICS[*topic], *offset)).collect();
                assert_eq!(message["offsets"], if others.is_empty() { Value::Null } else { json!(others) });
            }
            Kind::Path => {
                let own = event.places.iter().find(|(topic, ..)| connection.subs.contains_key(topic));
                assert_eq!(message["o"].as_u64(), own.map(|(.., offset)| *offset));
            }
        }
        let is_new = connection.got.insert(n);
        if connection.lasts > 0 {
            // The newest come out of line; from then on it is not known which ones.
            connection.is_vague = true;
        }
        let may_repeat = (connection.may_repeat && event.places.len() > 1) || connection.lasts > 0;
        assert!(is_new || may_repeat, "client {number}: event {n} {:?} came twice", event.places);
        let mut is_its = false;
        for (topic, epoch, offset) in &event.places {
            let Some(sub) = connection.subs.get_mut(topic) else { continue };
            let is_after = sub.start.as_ref().is_none_or(|s| s.epoch != *epoch || *offset > s.offset);
            is_its |= is_after;
            if let Some(place) = client.places.get_mut(topic).filter(|place| place.epoch == *epoch) {
                place.offset = place.offset.max(*offset);
            }
            let is_exact = !self.has_several && client.names.is_none() && connection.lasts == 0;
            if is_exact {
                if let Some(start) = sub.start.as_ref().filter(|start| start.epoch == *epoch) {
                    let seen = sub.seen.unwrap_or(start.offset);
                    assert!(*offset > seen, "client {number}: {offset} of {} after {seen}", TOPICS[*topic]);
                    assert_eq!(
                        offset - seen - 1,
                        sub.told,
                        "client {number}: {seen} to {offset} of {}, told {}",
                        TOPICS[*topic],
                        sub.told
                    );
                }
                sub.told = 0;
                sub.seen = Some(*offset);
                if sub.start.is_none() {
                    sub.start = Some(Place { epoch: epoch.clone(), offset: offset - 1 });
                }
            }
        }
        assert!(
            is_its || may_repeat || connection.may_repeat,
            "client {number}: event {n} came before its time"
        );
        let _ = (epoch, offset);
        // A position is a place to go on from: all before it has come or was told.
        if self.is_lossless && connection.lasts == 0 {
            let event = &self.events[n];
            for (topic, epoch, offset) in &event.places {
                if let Some(start) = connection.subs.get(topic).and_then(|sub| sub.start.as_ref())
                    && start.epoch == *epoch
                    && connection.told == 0
                    && !connection.is_vague
                {
                    let log = &self.logs[&(*topic, epoch.clone())];
                    for before in start.offset.max(offset.saturating_sub(50))..offset - 1 {
                        let other = log[before as usize];
                        let is_wanted = client
                            .names
                            .as_ref()
                            .is_none_or(|names| names.contains(&self.events[other].name));
                        // It may wait for another of its topics that is behind: that position has it still ahead.
                        let is_ahead = self.events[other].places.iter().any(|(topic, epoch, offset)| {
                            let place =
                                client.places.get(topic).filter(|_| connection.subs.contains_key(topic));
                            place.is_some_and(|place| place.epoch == *epoch && place.offset < *offset)
                        });
                        let is_several = self.events[other].places.len() > 1
                            && (connection.may_repeat || is_ahead || client.kind != Kind::Json);
                        assert!(
                            !is_wanted || is_several || connection.got.contains(&other),
                            "client {number}: event {n} at {offset} of {} came before {other} at {}: {:?} {:?}",
                            TOPICS[*topic],
                            before + 1,
                            self.events[other].places,
                            connection.subs
                        );
                    }
                }
            }
        }
    }

    // Rest.

    /// Everybody sends and takes everything; then everything has come or was told.
    fn rest(&mut self) {
        for client in &self.clients {
            if let Some(connection) = &client.connection {
                connection.pipe.borrow_mut().calm();
            }
        }
        let mut turns = 0;
        loop {
            self.everybody_reads(true);
            let mut has_turned = false;
            for id in 0..self.shards.len() {
                has_turned |= self.poll(id);
            }
            if !has_turned {
                break;
            }
            turns += 1;
            assert!(turns < 100_000, "turns without end: {:?}", self.next);
        }
        for (number, client) in self.clients.iter().enumerate() {
            let Some(connection) = &client.connection else { continue };
            if !connection.is_open || !connection.pipe.borrow().is_intact() || connection.is_over {
                continue;
            }
            assert!(connection.asked.is_empty(), "client {number} has no answer to {:?}", connection.asked);
            let mut missing = BTreeSet::new();
            let mut is_known = !connection.is_vague;
            for (topic, sub) in &connection.subs {
                let found = self.shared.topics.find(TOPICS[*topic]).expect("somebody is subscribed");
                let epoch = format!("{:016x}", found.epoch().unwrap());
                let Some(start) = &sub.start else {
                    is_known = false;
                    continue;
                };
                assert_eq!(start.epoch, epoch, "a topic with a subscriber stays");
                let log = self.logs.get(&(*topic, epoch)).map_or(&[][..], |log| &log[..]);
                assert_eq!(log.len() as u64, found.head());
                for event in &log[start.offset as usize..] {
                    let is_wanted =
                        client.names.as_ref().is_none_or(|names| names.contains(&self.events[*event].name));
                    if is_wanted && !connection.got.contains(event) {
                        missing.insert(*event);
                    }
                }
                if !self.has_several && client.names.is_none() && connection.lasts == 0 {
                    let seen = sub.seen.unwrap_or(start.offset);
                    assert_eq!(found.head() - seen, sub.told, "client {number}: {} ends", TOPICS[*topic]);
                }
            }
            if is_known {
                assert!(
                    missing.len() as u64 <= connection.told,
                    "client {number}: {missing:?} are missing and {} were told",
                    connection.told
                );
            }
        }
        self.check_receipts();
        let are_all_there = self.shards.iter().all(Option::is_some);
        assert!(!are_all_there || self.watched.is_empty(), "receipts that never come");
        // Nobody waits for anything any more.
        for (event, receipt) in self.complete.drain(..).filter(|_| self.is_live) {
            let reach = receipt.reach();
            assert_eq!(reach.queued, 0, "event {event} was lost sight of: {reach:?}");
        }
        // The books of the histories.
        let topics = TOPICS.iter().filter_map(|name| self.shared.topics.find(name));
        let kept: usize = topics.filter_map(|topic| topic.kept()).map(|(_, bytes)| bytes).sum();
        assert_eq!(kept, self.shared.topics.history_bytes(), "bytes of histories");
    }

    fn end(&mut self) {
        if self.random.bool() {
            self.shared.begin_drain(Now { mono: self.mono.get(), wall_ms: 1 }).unwrap();
            self.rest_or_end();
            assert!(self.shards.iter().all(Option::is_none), "the shutdown hangs");
            return;
        }
        for client in &self.clients {
            if let Some(connection) = &client.connection {
                connection.pipe.borrow_mut().break_off();
            }
        }
        self.rest_or_end();
        for shard in self.shards.iter().flatten() {
            assert!(shard.is_clean(), "something is left: {:?}", shard.counts());
        }
    }

    fn rest_or_end(&mut self) {
        for _ in 0..50 {
            self.everybody_reads(true);
            for id in 0..self.shards.len() {
                self.poll(id);
            }
            self.rest();
            self.mono.set(self.mono.get() + SECOND / 4);
        }
    }
}

/// Somebody who is not there, or is no publisher.
fn some_asker(shared: &Shared, random: &mut fastrand::Rng) -> Asker {
    let number = if random.bool() { random.u32(..8) } else { u32::MAX };
    Asker { shard: random.usize(..shared.shards()), key: Key { number, generation: random.u32(..8) } }
}

impl Client {
    /// Whether the node has answered all that it asked for.
    fn is_settled(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let is_sent = connection.outgoing.is_empty() && connection.pipe.borrow().inbound.is_empty();
        let is_answered = connection.is_open && connection.asked.is_empty();
        is_sent && is_answered && connection.subs.keys().eq(&self.topics)
    }
}

impl Connection {
    fn subscribe(
        &mut self,
        topics: &BTreeSet<usize>,
        since: &BTreeMap<usize, Option<Place>>,
        policy: Policy,
        names: Option<&[usize]>,
        last: bool,
        random: &mut fastrand::Rng,
    ) {
        let all: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic]).collect();
        let mut message = json!({"type": "subscribe", "topics": all, "policy": policy.name()});
        if let Some(names) = names {
            message["events"] = names.iter().map(|name| NAMES[*name]).collect();
        }
        if !since.is_empty() {
            let places = since.iter().map(|(topic, place)| {
                let place = place.as_ref().map(|p| json!({"epoch": p.epoch, "offset": p.offset}));
                (TOPICS[*topic].to_owned(), place.unwrap_or_default())
            });
            message["since"] = places.collect();
        }
        if last {
            message["last"] = true.into();
        }
        write_text(&mut self.outgoing, message.to_string().as_bytes(), random);
        self.asked.push((topics.iter().copied().collect(), since.clone(), last));
    }
}

#[test]
fn whoever_goes_on_misses_nothing_that_it_is_not_told() {
    let steps = crate::number("FANWIRE_SIM_STEPS").unwrap_or(500);
    let (first, runs) = (crate::number("FANWIRE_SIM_SEED"), crate::number("FANWIRE_SIM_RUNS"));
    let seeds =
        first.unwrap_or(0)..first.unwrap_or(0) + runs.unwrap_or(if first.is_some() { 1 } else { RUNS });
    let is_sweep = seeds.end - seeds.start >= 100;
    let (mut delivered, mut resumed, mut told, mut replayed) = (0, 0, 0, 0);
    let mut receipts = [0; 3];
    for seed in seeds {
        let at = Cell::new(0);
        let run = || {
            let mut world = World::new(seed);
            for step in 0..steps {
                at.set(step);
                world.step();
            }
            world.rest();
            world.end();
            let sent: u64 = world.shared.metrics.iter().map(|metrics| metrics.replayed.get()).sum();
            let shared = Arc::downgrade(&world.shared);
            let topic = world.shared.topics.find(TOPICS[0]).map(|topic| Arc::downgrade(&topic));
            let all = (world.delivered, world.resumed, world.told, sent, world.receipts);
            drop(world);
            assert!(shared.upgrade().is_none());
            assert!(
                topic.is_none_or(|topic| topic.upgrade().is_none()),
                "a topic is kept by its own history"
            );
            all
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(counts) => {
                delivered += counts.0;
                resumed += counts.1;
                told += counts.2;
                replayed += counts.3;
                receipts.iter_mut().zip(counts.4).for_each(|(all, n)| *all += n);
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                panic!("seed {seed}, step {}: {}", at.get(), text.unwrap_or_default());
            }
        }
    }
    println!(
        "{delivered} events came, {replayed} from histories, {resumed} went on, {told} were told missing"
    );
    let [all, exact, matched] = receipts;
    println!("{all} receipts, {exact} of which it was known what they had to say, of {matched} sessions");
    assert!(!is_sweep || (delivered > 0 && replayed > 0 && resumed > 0 && told > 0 && matched > 0));
}
