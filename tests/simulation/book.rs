//! What the model knows of events: what was written to the node, and in which order the node took it in.
//!
//! One thread runs all shards, so the order in which the shards read is the order of every topic's log.

use std::collections::HashMap;

use crate::way::Shape;

/// The topics of every world; the last four belong to the HTTP publishers of the shards.
pub const TOPICS: [&str; 12] = [
    "alpha",
    "b",
    "p:q:r",
    "run:42",
    "quote\"s\\",
    "grüße ☃",
    "e",
    "global",
    "http:0",
    "http:1",
    "http:2",
    "http:3",
];
/// The patterns that JSON clients subscribe to. Their numbers go on behind those of the topics.
pub const PATTERNS: [&str; 6] = ["a*", "alpha*", "p:*", "http:*", "r*", "run:*"];
/// What clients can be subscribed to: topics and patterns.
pub const NAMED: usize = TOPICS.len() + PATTERNS.len();
/// Topics that the publish socket writes to.
pub const SOCKET_TOPICS: usize = 8;
/// The names of events. Some are names of the node's own messages, or look like a field of an event stream.
pub const NAMES: [&str; 7] = ["step", "log-line", "done\"", "é", " a: b", "gap", "data:"];
/// Their keys.
const KEYS: [&str; 4] = ["", "", "", "k\"é"];
/// Unix time of the worlds' beginning.
pub const EPOCH_MS: u64 = 1_705_313_700_000;

/// The name of a topic or a pattern.
pub fn called(number: usize) -> &'static str {
    TOPICS.get(number).unwrap_or_else(|| &PATTERNS[number - TOPICS.len()])
}

/// Whether it is the number of a pattern.
pub fn is_pattern(number: usize) -> bool {
    number >= TOPICS.len()
}

/// The patterns that a topic matches, longest first.
fn matching(topic: usize) -> Vec<usize> {
    let fits = |pattern: &usize| TOPICS[topic].starts_with(called(*pattern).trim_end_matches('*'));
    let mut all: Vec<usize> = (TOPICS.len()..NAMED).filter(fits).collect();
    all.sort_by_key(|pattern| std::cmp::Reverse(called(*pattern).len()));
    all
}

/// How far an event went, as a RECEIPT says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub matched: u32,
    pub written: u32,
    pub queued: u32,
    pub left_out: u32,
    pub closed: u32,
}

impl Reach {
    /// The body of a RECEIPT.
    pub fn read(body: &[u8]) -> Self {
        let (counts, rest) = body.as_chunks::<4>();
        assert_eq!((counts.len(), rest.len()), (5, 0), "a receipt of {body:?}");
        Self::of(std::array::from_fn(|place| u32::from_le_bytes(counts[place])))
    }

    /// The counts in their order, which agree with each other.
    pub fn of([matched, written, queued, left_out, closed]: [u32; 5]) -> Self {
        let reach = Self { matched, written, queued, left_out, closed };
        assert!(written + queued + left_out + closed <= matched, "more than all: {reach:?}");
        reach
    }
}

/// One event that a publisher wrote.
#[derive(Debug)]
pub struct Event {
    /// Its topics as they were given, then the patterns that those match, each once.
    pub topics: Vec<usize>,
    pub name: usize,
    pub data: String,
    pub key: &'static str,
    /// The timestamp that the publisher gave; 0: the node's.
    pub given_ms: u64,
    /// The timestamp that it must have.
    pub stamp_ms: u64,
    /// Its place in the order of all accepted events, from 1 on; 0: not accepted (yet).
    pub order: u64,
    /// Sessions that it was for when it was accepted, and how many it can have been for.
    pub served: u32,
    pub may_serve: u32,
    /// How often it was seen on the wire.
    pub delivered: u32,
    /// How far it went, where somebody asked and was told.
    pub reach: Option<Reach>,
    /// The shapes that somebody may have asked for it in, by their numbers.
    shapes: Vec<usize>,
}

impl Event {
    /// It comes to no more sessions than it was for, and to none that it was left out for. Those that were closed
    /// may have got the rest of what was begun.
    fn check_reach(&self, number: usize) {
        let may_come = self.reach.is_none_or(|reach| self.delivered <= reach.matched - reach.left_out);
        assert!(may_come, "event {number} came {} times: {:?}", self.delivered, self.reach);
    }
}

/// All events, by their number, which is also in their data.
#[derive(Debug, Default)]
pub struct Book {
    pub events: Vec<Event>,
    /// Numbers of the accepted ones: the event of order n stands at n - 1.
    pub accepted: Vec<usize>,
    /// For each shard, the order up to which everything was dispatched: its link was seen empty.
    pub dispatched: Vec<u64>,
    /// Event frames seen on the wire.
    pub delivered: u64,
    /// Receipts seen of events that were not known already.
    pub receipts: u64,
    /// Deliveries that receipts told of exactly as they had to.
    pub measured: u64,
    /// Messages of several lines seen on the wire.
    pub shared_messages: u64,
    /// Events that came compressed.
    pub deflated: u64,
    /// From how many bytes on, by the beginning of topics' names.
    pub compress_above: Vec<(&'static str, Option<usize>)>,
    /// How often the node may have written an event: once for each and each shape it is asked for in.
    pub writes: u64,
    shapes: Vec<Shape>,
    stamps: HashMap<u64, String>,
}

impl Book {
    pub fn new(shards: usize, compress_above: Vec<(&'static str, Option<usize>)>) -> Self {
        Self { dispatched: vec![0; shards], compress_above, ..Self::default() }
    }

    /// A new event, not yet accepted.
    pub fn write(&mut self, mut topics: Vec<usize>, large: usize, random: &mut fastrand::Rng) -> usize {
        let number = self.events.len();
        for pattern in topics.clone().into_iter().flat_map(matching) {
            if !topics.contains(&pattern) {
                topics.push(pattern);
            }
        }
        let pad = "x".repeat(if large > 0 { random.usize(..large) } else { 0 });
        // What is in strings is nothing to anybody, whatever it looks like; line breaks stand between tokens.
        let data = match random.u8(..9) {
            0 => format!("{{\"n\":{number}}}"),
            1 => format!("{{ \"n\" : {number} ,\"u\":\"\\u0001 ☃\"}}"),
            2 => format!(" {{\"n\":{number},\"big\":1e999}}\n"),
            3 => format!("\r\n{{\n\n\"n\"\r:\t{number}\r\r,\n\"u\":[\r\n]}}\r"),
            4 => format!("[{number},\n\"\\n\\nevent: forged\\ndata: {{}}\\r\\n\\r\\n: closed: x\"\n]"),
            5 => format!("\"{number} \u{2028}\u{2029}\u{85}\u{feff}\u{10ffff}\\u2028\\ud83d\\ude00\\\\\"\n"),
            6 => format!(
                "{{\"n\":{number},\n\"data\":{{\"topic\":\"alpha\",\"dropped\":9}},\"type\":\"gap\"}}"
            ),
            _ => format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"),
        };
        let given_ms = if random.bool() { 0 } else { random.u64(1..=EPOCH_MS * 2) };
        let name = random.usize(..NAMES.len());
        let key = random.choice(KEYS).unwrap();
        self.events.push(Event {
            topics,
            name,
            data,
            key,
            given_ms,
            stamp_ms: 0,
            order: 0,
            served: 0,
            may_serve: 0,
            delivered: 0,
            reach: None,
            shapes: Vec::new(),
        });
        number
    }

    /// The node took an event in.
    pub fn accept(&mut self, number: usize, wall_ms: u64) {
        self.accepted.push(number);
        let event = &mut self.events[number];
        assert_eq!(event.order, 0, "event {number} was accepted twice");
        event.order = self.accepted.len() as u64;
        event.stamp_ms = if event.given_ms == 0 { wall_ms } else { event.given_ms };
    }

    /// A receipt came. What the kernel has, the far ends were seen to get.
    pub fn take_receipt(&mut self, number: usize, reach: Reach) {
        self.receipts += 1;
        let event = &mut self.events[number];
        assert!(reach.matched <= event.may_serve, "event {number} can be for {}: {reach:?}", event.may_serve);
        assert!(reach.written <= event.delivered, "event {number} came {} times: {reach:?}", event.delivered);
        event.reach = Some(reach);
        event.check_reach(number);
    }

    /// An event was seen on the wire.
    pub fn deliver(&mut self, number: usize) {
        self.delivered += 1;
        let event = &mut self.events[number];
        assert!(event.order > 0, "event {number} was never accepted");
        event.delivered += 1;
        event.check_reach(number);
    }

    /// The order of the newest accepted event.
    pub fn head(&self) -> u64 {
        self.accepted.len() as u64
    }

    /// Accepted events that may still be on their way to the sessions of a shard.
    pub fn in_link(&self, shard: usize) -> &[usize] {
        &self.accepted[self.dispatched[shard] as usize..]
    }

    /// The number of a shape.
    pub fn shape(&mut self, shape: &Shape) -> usize {
        self.shapes.iter().position(|other| other == shape).unwrap_or_else(|| {
            self.shapes.push(shape.clone());
            self.shapes.len() - 1
        })
    }

    /// Somebody may get an event in a shape.
    pub fn allow_write(&mut self, number: usize, shape: usize) {
        let shapes = &mut self.events[number].shapes;
        if !shapes.contains(&shape) {
            shapes.push(shape);
            self.writes += 1;
        }
    }

    /// An event came compressed, of so many bytes.
    pub fn note_deflated(&mut self, number: usize, bytes: usize) {
        self.deflated += 1;
        let category = called(self.events[number].topics[0]);
        let fits = self.compress_above.iter().filter(|(prefix, _)| category.starts_with(prefix));
        let (_, above) = fits.max_by_key(|(prefix, _)| prefix.len()).expect("a rule that fits");
        assert!(above.is_some_and(|above| bytes >= above), "{bytes} bytes of {category:?} came compressed");
    }

    /// How an event is written, as the protocol says.
    pub fn text(&mut self, number: usize, shape: &Shape, client_id: Option<&str>) -> String {
        let event = &self.events[number];
        let stamp = self.stamps.entry(event.stamp_ms).or_insert_with(|| {
            let at = jiff::Timestamp::from_millisecond(event.stamp_ms.cast_signed()).unwrap();
            at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
        });
        shape.write(event, stamp, client_id)
    }
}
