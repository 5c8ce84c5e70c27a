//! What the model knows of events: what was written to the node, and in which order the node took it in.
//!
//! One thread runs all shards, so the order in which the shards read is the order of every topic's log.

use std::collections::HashMap;

/// The topics of every world; the last four belong to the HTTP publishers of the shards.
pub const TOPICS: [&str; 12] =
    ["alpha", "b", "run:42", "quote\"s\\", "grüße ☃", "e", "f", "g", "http:0", "http:1", "http:2", "http:3"];
/// Topics that the publish socket writes to.
pub const SOCKET_TOPICS: usize = 8;
/// The names of events.
pub const NAMES: [&str; 4] = ["step", "log-line", "done\"", "é"];
/// Unix time of the worlds' beginning.
pub const EPOCH_MS: u64 = 1_705_313_700_000;

/// One event that a publisher wrote.
#[derive(Debug)]
pub struct Event {
    pub topics: Vec<usize>,
    pub name: usize,
    pub data: String,
    /// The timestamp that the publisher gave; 0: the node's.
    pub given_ms: u64,
    /// The timestamp that it must have.
    pub stamp_ms: u64,
    /// Its place in the order of all accepted events, from 1 on; 0: not accepted (yet).
    pub order: u64,
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
    stamps: HashMap<u64, String>,
}

impl Book {
    pub fn new(shards: usize) -> Self {
        Self { dispatched: vec![0; shards], ..Self::default() }
    }

    /// A new event, not yet accepted.
    pub fn write(&mut self, topics: Vec<usize>, large: usize, random: &mut fastrand::Rng) -> usize {
        let number = self.events.len();
        let pad = "x".repeat(if large > 0 { random.usize(..large) } else { 0 });
        let data = match random.u8(..4) {
            0 => format!("{{\"n\":{number}}}"),
            1 => format!("{{ \"n\" : {number} ,\"u\":\"\\u0001 ☃\"}}"),
            2 => format!(" {{\"n\":{number},\"big\":1e999}}\n"),
            _ => format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"),
        };
        let given_ms = if random.bool() { 0 } else { random.u64(1..=EPOCH_MS * 2) };
        let name = random.usize(..NAMES.len());
        self.events.push(Event { topics, name, data, given_ms, stamp_ms: 0, order: 0 });
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

    /// The order of the newest accepted event.
    pub fn head(&self) -> u64 {
        self.accepted.len() as u64
    }

    /// Accepted events that may still be on their way to the sessions of a shard.
    pub fn in_link(&self, shard: usize) -> &[usize] {
        &self.accepted[self.dispatched[shard] as usize..]
    }

    /// The payload of an event's frame, byte for byte as the protocol says.
    pub fn payload(&mut self, number: usize, client_id: Option<&str>) -> String {
        let event = &self.events[number];
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let stamp = self.stamps.entry(event.stamp_ms).or_insert_with(|| {
            let at = jiff::Timestamp::from_millisecond(event.stamp_ms.cast_signed()).unwrap();
            at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
        });
        let id = client_id.map_or_else(String::new, |id| format!(",\"clientId\":{}", text(id)));
        format!(
            "{{\"type\":\"event\",\"event\":{},\"category\":{},\"data\":{},\"timestamp\":\"{stamp}\"{id}}}",
            text(NAMES[event.name]),
            text(TOPICS[event.topics[0]]),
            event.data,
        )
    }
}
