//! Publishing once: what was accepted is remembered for a while, so that a publisher that does not know whether
//! an event arrived may send it again. By a publisher's name and sequence on the publish socket, by
//! `Idempotency-Key` over HTTP. Bounded: where there is no room to remember, the newcomer is refused, for forgetting
//! somebody earlier than promised would publish twice without a word.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::nanos;
use crate::error::{ErrorCode, Refusal};
use crate::receipt::Receipt;
use crate::slack::is_loose;

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
    /// When what is over its time is looked for, in nanoseconds.
    next_tidy: AtomicU64,
    /// Strangers choose keys and bodies: hashes of both are under seeds of this node's own.
    hashers: [ahash::RandomState; 3],
}

/// How many names one connection has brought in a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewNames {
    names: usize,
    /// When the window began, in nanoseconds.
    since: u64,
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

/// Nanoseconds between two looks for what is over its time, at least.
const LEAST_TIDY: u64 = 1_000_000_000;

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

    /// Whether nothing was accepted from the name within the window.
    fn is_forgotten(&self, now: u64, time: Duration) -> bool {
        let highest = self.0.lock();
        highest.sequence == 0 || now.saturating_sub(highest.at) > nanos(time)
    }
}

impl Dedupe {
    /// What is remembered of a name that a publisher has just given itself. `new` counts those of its connection
    /// that were new: a name from which nothing was accepted gives its place up, see [`Dedupe::let_go`], and of the
    /// others no connection brings more than a tenth of all that there may be within a window.
    ///
    /// # Errors
    /// As many names are remembered as may be, or were brought by the connection.
    pub fn name(
        &self,
        name: &str,
        new: &mut NewNames,
        now: u64,
        window: Window,
    ) -> Result<Arc<Name>, Refusal> {
        let mut names = self.names.lock();
        if let Some(known) = names.get(name) {
            return Ok(Arc::clone(known));
        }
        if now.saturating_sub(new.since) > nanos(window.time) {
            *new = NewNames { names: 0, since: now };
        }
        let share = (window.max / 10).max(1);
        if new.names >= share {
            let message = format!(
                "this connection has published under {share} new names within idempotency_window, a tenth of \
                 max_idempotency_keys: come back later"
            );
            return Err(Refusal::new(ErrorCode::ShuttingDown, message));
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
        new.names += 1;
        Ok(known)
    }

    /// A connection goes by a name no more. Where nothing was ever accepted from it, nothing is to be remembered.
    pub fn let_go(&self, name: &str, known: Arc<Name>, new: &mut NewNames) {
        let mut names = self.names.lock();
        // The table holds it too.
        if Arc::strong_count(&known) <= 2 && known.0.lock().sequence == 0 && names.remove(name).is_some() {
            new.names = new.names.saturating_sub(1);
        }
    }

    /// Forgets what is over its time, and gives back the room that it took; once in a window. To be called now and
    /// then by every shard.
    pub fn tidy(&self, now: u64, window: Window) {
        let due = self.next_tidy.load(Ordering::Relaxed);
        let next = now.saturating_add(nanos(window.time).max(LEAST_TIDY));
        let swap = |due| self.next_tidy.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if now < due || swap(due).is_err() {
            return;
        }
        let mut names = self.names.lock();
        names.retain(|_, known| Arc::strong_count(known) > 1 || !known.is_forgotten(now, window.time));
        if is_loose(names.capacity(), names.len()) {
            let twice = 2 * names.len();
            names.shrink_to(twice);
        }
        drop(names);
        let mut requests = self.requests.lock();
        requests.forget(now, window.time);
        let Requests { known, order } = &mut *requests;
        if is_loose(known.capacity(), known.len()) {
            known.shrink_to(2 * known.len());
        }
        if is_loose(order.capacity(), order.len()) {
            order.shrink_to(2 * order.len());
        }
    }

    /// What a good request under this key is. Where it is the first, it counts as accepted from now on.
    pub fn request(&self, key: &str, body: &[u8], accepted: Accepted, now: u64, window: Window) -> Seen {
        let [one, other, of_body] = &self.hashers;
        let key = (one.hash_one(key), other.hash_one(key));
        let accepted = Accepted { body: of_body.hash_one(body), ..accepted };
        let mut requests = self.requests.lock();
        requests.forget(now, window.time);
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

impl Requests {
    /// Forgets those that are over their time.
    fn forget(&mut self, now: u64, time: Duration) {
        while let Some((at, oldest)) = self.order.front().copied()
            && now.saturating_sub(at) > nanos(time)
        {
            self.order.pop_front();
            self.known.remove(&oldest);
        }
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

    /// A name that a connection of its own brings.
    fn name(dedupe: &Dedupe, name: &str, second: u64) -> Result<Arc<Name>, Refusal> {
        dedupe.name(name, &mut NewNames::default(), second * SECOND, WINDOW)
    }

    #[test]
    fn a_name_accepts_each_sequence_once_within_the_window() {
        let dedupe = Dedupe::default();
        let first = name(&dedupe, "a", 0).unwrap();
        let same = name(&dedupe, "a", 0).unwrap();
        let accept = |sequence, second| first.accept(sequence, second * SECOND, WINDOW.time);
        assert_eq!([accept(1, 0), accept(1, 1), accept(3, 1), accept(2, 1)], [true, false, true, false]);
        assert!(!same.accept(3, 11 * SECOND, WINDOW.time), "the connections of a name share it");
        assert!(accept(3, 12), "the window is over");
        assert!(!accept(3, 12));
    }

    #[test]
    fn names_are_forgotten_after_the_window_and_none_before() {
        let dedupe = Dedupe::default();
        let held = name(&dedupe, "held", 0).unwrap();
        name(&dedupe, "gone", 0).unwrap().accept(1, 0, WINDOW.time);
        let refusal = name(&dedupe, "third", 10).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ShuttingDown);
        assert!(refusal.message.contains("max_idempotency_keys"), "{}", refusal.message);
        drop(name(&dedupe, "third", 11).unwrap());
        assert!(Arc::ptr_eq(&held, &name(&dedupe, "held", 11).unwrap()));
        assert_eq!(dedupe.len(), (2, 0));
    }

    #[test]
    fn a_name_from_which_nothing_came_gives_its_place_up() {
        let (dedupe, mut new) = (Dedupe::default(), NewNames::default());
        for n in 0..1000 {
            let known = dedupe.name(&n.to_string(), &mut new, 0, WINDOW).unwrap();
            assert_eq!(dedupe.len(), (1, 0));
            dedupe.let_go(&n.to_string(), known, &mut new);
        }
        assert_eq!(dedupe.len(), (0, 0));
        // Others may be called so too, and what came from it counts for as long as the window is.
        let (one, other) = (name(&dedupe, "a", 0).unwrap(), name(&dedupe, "a", 0).unwrap());
        dedupe.let_go("a", one, &mut new);
        assert_eq!(dedupe.len(), (1, 0));
        assert!(other.accept(1, 0, WINDOW.time));
        dedupe.let_go("a", other, &mut new);
        assert!(!name(&dedupe, "a", 10).unwrap().accept(1, 10 * SECOND, WINDOW.time));
        // Whoever vanished without a word leaves no more.
        let window = Window { max: 1, ..WINDOW };
        let dedupe = Dedupe::default();
        drop(dedupe.name("b", &mut new, 0, window).unwrap());
        assert!(dedupe.name("c", &mut NewNames::default(), 0, window).is_ok());
    }

    #[test]
    fn one_connection_brings_a_tenth_of_the_names_within_a_window() {
        let window = Window { max: 50, ..WINDOW };
        let (dedupe, mut new) = (Dedupe::default(), NewNames::default());
        let mut publish_as = |name: &str, second: u64| -> Result<(), Refusal> {
            let known = dedupe.name(name, &mut new, second * SECOND, window)?;
            known.accept(second + 1, second * SECOND, window.time);
            dedupe.let_go(name, known, &mut new);
            Ok(())
        };
        for n in 0..5 {
            publish_as(&format!("n{n}"), 1).unwrap();
        }
        let refusal = publish_as("n5", 2).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ShuttingDown);
        assert!(refusal.message.contains("under 5 new names"), "{}", refusal.message);
        publish_as("n3", 2).expect("one that is remembered is not new");
        publish_as("n5", 12).expect("another window");
        assert!(dedupe.name("of another connection", &mut NewNames::default(), SECOND, window).is_ok());
    }

    #[test]
    fn what_many_took_is_given_back_once_it_is_over() {
        let window = Window { max: 10_000, ..WINDOW };
        let dedupe = Dedupe::default();
        let held = dedupe.name("held", &mut NewNames::default(), 0, window).unwrap();
        for n in 0..5000 {
            let known = dedupe.name(&n.to_string(), &mut NewNames::default(), 0, window).unwrap();
            known.accept(1, 0, window.time);
            let accepted = Accepted::new(1, None);
            assert!(matches!(dedupe.request(&n.to_string(), b"", accepted, 0, window), Seen::First));
        }
        let room = || {
            let requests = dedupe.requests.lock();
            [dedupe.names.lock().capacity(), requests.known.capacity(), requests.order.capacity()]
        };
        dedupe.tidy(10 * SECOND, window);
        assert_eq!(dedupe.len(), (5001, 5000));
        assert!(room().iter().all(|room| *room >= 5000));
        dedupe.tidy(11 * SECOND, window);
        assert_eq!(dedupe.len(), (5001, 5000), "it looks once in a window");
        dedupe.tidy(20 * SECOND, window);
        assert_eq!(dedupe.len(), (1, 0));
        assert!(room().iter().all(|room| *room < 100), "{:?}", room());
        assert!(Arc::ptr_eq(&held, &dedupe.name("held", &mut NewNames::default(), 0, window).unwrap()));
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
