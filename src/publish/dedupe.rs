//! Publishing once: what was accepted is remembered for a while, so that a publisher that does not know whether
//! an event arrived may send it again. By a publisher's name and sequence on the publish socket, by
//! `Idempotency-Key` over HTTP. Bounded: where there is no room to remember, the newcomer is refused, for forgetting
//! somebody earlier than promised would publish twice without a word.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::nanos;
use crate::error::{ErrorCode, Refusal};
use crate::receipt::Receipt;

/// How long is remembered, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Since the latest event of a name, or the request of a key.
    pub time: Duration,
    /// Names, and keys, at most; each are bounded by themselves.
    pub max: usize,
}

/// What a node remembers of what it accepted.
#[derive(Debug, Default)]
pub struct Dedupe {
    names: Mutex<HashMap<Box<str>, Arc<Name>, ahash::RandomState>>,
    requests: Mutex<Requests>,
    /// Strangers choose keys and bodies: hashes of both are under seeds of this node's own.
    hashers: [ahash::RandomState; 3],
}

/// What is remembered of a publisher's name. Its connections share it.
#[derive(Debug, Default)]
pub struct Name(Mutex<Highest>);

#[derive(Debug, Default)]
struct Highest {
    sequence: u64,
    /// When it was accepted, in nanoseconds.
    at: u64,
}

#[derive(Debug, Default)]
struct Requests {
    /// By the key's hash, which has 128 bits: two keys do not meet.
    known: HashMap<(u64, u64), Accepted, ahash::RandomState>,
    /// When each was accepted, oldest first.
    order: VecDeque<(u64, (u64, u64))>,
}

/// A request that was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// How many events it had.
    pub events: usize,
    /// How far they went, where it asked.
    pub receipt: Option<Arc<Receipt>>,
    body: u64,
}

/// What a request with an `Idempotency-Key` is.
#[derive(Debug)]
pub enum Seen {
    /// The first with this key; whoever asked has said so.
    First,
    /// It was accepted before.
    Again(Accepted),
    /// Another request was accepted under the key.
    Other,
    /// There is no room to remember it.
    Full,
}

/// Bytes of an `Idempotency-Key` at most.
pub const MAX_KEY_BYTES: usize = 255;

impl Name {
    /// Whether an event of this name is new: its sequence is above the highest one accepted within the window.
    /// Then it is the highest from now on.
    pub fn accept(&self, sequence: u64, now: u64, time: Duration) -> bool {
        let mut highest = self.0.lock();
        let is_new = sequence > highest.sequence || now.saturating_sub(highest.at) > nanos(time);
        if is_new {
            *highest = Highest { sequence, at: now };
        }
        is_new
    }

    fn is_forgotten(&self, now: u64, time: Duration) -> bool {
        now.saturating_sub(self.0.lock().at) > nanos(time)
    }
}

impl Dedupe {
    /// What is remembered of a name that a publisher has just given itself.
    ///
    /// # Errors
    /// As many names are remembered as may be.
    pub fn name(&self, name: &str, now: u64, window: Window) -> Result<Arc<Name>, Refusal> {
        let mut names = self.names.lock();
        if let Some(known) = names.get(name) {
            return Ok(Arc::clone(known));
        }
        // Looked for before there would have to be more room, so that it costs little.
        if names.len() >= window.max.min(names.capacity()) {
            // Those whose publisher is connected stay: it holds them too.
            names.retain(|_, known| Arc::strong_count(known) > 1 || !known.is_forgotten(now, window.time));
        }
        if names.len() >= window.max {
            let message = format!(
                "this node remembers {} publishers' names already (max_idempotency_keys): come back later",
                names.len()
            );
            return Err(Refusal::new(ErrorCode::ShuttingDown, message));
        }
        let known = Arc::new(Name(Mutex::new(Highest { sequence: 0, at: now })));
        names.insert(name.into(), Arc::clone(&known));
        Ok(known)
    }

    /// What a good request under this key is. Where it is the first, it counts as accepted from now on.
    pub fn request(&self, key: &str, body: &[u8], accepted: Accepted, now: u64, window: Window) -> Seen {
        let [one, other, of_body] = &self.hashers;
        let key = (one.hash_one(key), other.hash_one(key));
        let accepted = Accepted { body: of_body.hash_one(body), ..accepted };
        let mut requests = self.requests.lock();
        while let Some((at, oldest)) = requests.order.front().copied()
            && now.saturating_sub(at) > nanos(window.time)
        {
            requests.order.pop_front();
            requests.known.remove(&oldest);
        }
        match requests.known.get(&key) {
            Some(known) if known.body == accepted.body => Seen::Again(known.clone()),
            Some(_) => Seen::Other,
            None if requests.known.len() >= window.max => Seen::Full,
            None => {
                requests.known.insert(key, accepted);
                requests.order.push_back((now, key));
                Seen::First
            }
        }
    }

    /// Names and keys that are remembered.
    pub fn len(&self) -> (usize, usize) {
        (self.names.lock().len(), self.requests.lock().known.len())
    }
}

impl Accepted {
    /// A request of so many events.
    pub fn new(events: usize, receipt: Option<Arc<Receipt>>) -> Self {
        Self { events, receipt, body: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const WINDOW: Window = Window { time: Duration::from_secs(10), max: 2 };

    #[test]
    fn a_name_accepts_each_sequence_once_within_the_window() {
        let dedupe = Dedupe::default();
        let name = dedupe.name("a", 0, WINDOW).unwrap();
        let same = dedupe.name("a", 0, WINDOW).unwrap();
        let accept = |sequence, second| name.accept(sequence, second * SECOND, WINDOW.time);
        assert_eq!([accept(1, 0), accept(1, 1), accept(3, 1), accept(2, 1)], [true, false, true, false]);
        assert!(!same.accept(3, 11 * SECOND, WINDOW.time), "the connections of a name share it");
        assert!(accept(3, 12), "the window is over");
        assert!(!accept(3, 12));
    }

    #[test]
    fn names_are_forgotten_after_the_window_and_none_before() {
        let dedupe = Dedupe::default();
        let held = dedupe.name("held", 0, WINDOW).unwrap();
        drop(dedupe.name("gone", 0, WINDOW).unwrap());
        let refusal = dedupe.name("third", 10 * SECOND, WINDOW).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ShuttingDown);
        assert!(refusal.message.contains("max_idempotency_keys"), "{}", refusal.message);
        drop(dedupe.name("third", 11 * SECOND, WINDOW).unwrap());
        assert!(Arc::ptr_eq(&held, &dedupe.name("held", 11 * SECOND, WINDOW).unwrap()));
        assert_eq!(dedupe.len(), (2, 0));
    }

    #[test]
    fn a_request_is_accepted_once_within_the_window() {
        let dedupe = Dedupe::default();
        let request = |key: &str, body: &str, second: u64| {
            let accepted = Accepted::new(body.len(), None);
            match dedupe.request(key, body.as_bytes(), accepted, second * SECOND, WINDOW) {
                Seen::First => "first".to_owned(),
                Seen::Again(accepted) => format!("again {}", accepted.events),
                Seen::Other => "other".to_owned(),
                Seen::Full => "full".to_owned(),
            }
        };
        assert_eq!(request("a", "body", 0), "first");
        assert_eq!(request("a", "body", 10), "again 4");
        assert_eq!(request("a", "else", 10), "other");
        assert_eq!(request("b", "body", 10), "first");
        assert_eq!(request("c", "body", 10), "full");
        assert_eq!(request("c", "body", 11), "first", "the oldest is over its time");
        assert_eq!(request("b", "body", 20), "again 4");
        assert_eq!(request("a", "else", 21), "first");
        assert_eq!(dedupe.len(), (0, 2));
    }
}
