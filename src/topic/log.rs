//! `append`: the one place that gives positions, and the table of topics.
//!
//! A topic lives as long as a shard is interested in it or its history keeps an event. `append` gives the
//! offsets and sends the round under the topic's lock, so rounds of one topic reach every link in log order. A
//! shard registers its interest under the same lock, so it knows exactly which events came before.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;

use crate::event::{Events, Placed, Round};
use crate::slack::is_loose;
use crate::topic::history::{History, Piece};
use crate::topic::name::pattern_prefix;
use crate::topic::patterns::{Matches, Patterns};
use crate::topic::rules::Rules;

/// A shard that holds no subscriber of a topic.
pub const NO_SLOT: u32 = u32::MAX;

/// One topic: its name, the head of its log, its history, and who is interested.
#[derive(Debug)]
pub struct Topic {
    name: Arc<str>,
    /// Tells the life of a log with history from others under the same name; 0: it has no history.
    epoch: u64,
    is_pattern: bool,
    log: Mutex<Log>,
    /// For each shard, where its own table keeps this topic. Only that shard reads and writes its place, so
    /// a round finds the shard's subscribers without a look-up by name.
    slots: Box<[AtomicU32]>,
}

#[derive(Debug)]
struct Log {
    /// The offset of the newest event; 0 before the first.
    head: u64,
    /// One bit for each shard with a subscriber.
    interest: u64,
    /// Set when nobody was interested any more, nothing was kept, and the topic left the table: whoever still
    /// holds it looks again.
    retired: bool,
    history: Option<History>,
}

/// A place in a topic's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the log.
    pub epoch: u64,
    /// The offset of an event in it; 0 is before the first.
    pub offset: u64,
}

/// How a topic can go on from a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Everything after it is there.
    Whole {
        /// The offset to go on after.
        after: u64,
    },
    /// Something between is not kept any more.
    Part {
        /// The offset to go on after.
        after: u64,
        /// The first and the last offset of what is missing.
        missing: (u64, u64),
    },
    /// It is not a position of this log: all that is kept may be new.
    Unknown {
        /// The offset to go on after.
        after: u64,
    },
}

/// What a reader of the history finds.
#[derive(Debug)]
pub struct Reading {
    /// The offset of the newest event; 0 before the first.
    pub head: u64,
    /// The offset of the oldest event that is kept; one after the head where none is.
    pub oldest: u64,
    /// Events, in order, from the first wanted or kept one on.
    pub pieces: Vec<Piece>,
}

impl Topic {
    fn new(name: &str, history: Option<History>, shards: usize) -> Self {
        Self {
            name: name.into(),
            epoch: if history.is_some() { fastrand::u64(1..) } else { 0 },
            is_pattern: false,
            log: Mutex::new(Log { head: 0, interest: 0, retired: false, history }),
            slots: (0..shards).map(|_| AtomicU32::new(NO_SLOT)).collect(),
        }
    }

    /// Whether it is a prefix pattern, which stands for all topics whose names begin alike.
    pub fn is_pattern(&self) -> bool {
        self.is_pattern
    }

    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The life of its log, where it has history.
    pub fn epoch(&self) -> Option<u64> {
        (self.epoch != 0).then_some(self.epoch)
    }

    /// The offset of the newest event; 0 before the first.
    pub fn head(&self) -> u64 {
        self.log.lock().head
    }

    /// Events and bytes that its history keeps.
    pub fn kept(&self) -> Option<(usize, usize)> {
        self.log.lock().history.as_ref().map(|history| (history.events(), history.bytes()))
    }

    /// Where `shard` keeps this topic, or [`NO_SLOT`].
    pub fn slot(&self, shard: usize) -> u32 {
        self.slots[shard].load(Ordering::Relaxed)
    }

    /// A shard is interested from now on, and keeps the topic at `slot`. Answers the offset of the newest event.
    pub(super) fn join(&self, shard: usize, slot: u32) -> u64 {
        let mut log = self.log.lock();
        log.interest |= 1 << shard;
        self.slots[shard].store(slot, Ordering::Relaxed);
        log.head
    }

    /// A shard is interested no more. Answers whether nobody is.
    pub(super) fn leave(&self, shard: usize) -> bool {
        let mut log = self.log.lock();
        self.slots[shard].store(NO_SLOT, Ordering::Relaxed);
        log.interest &= !(1 << shard);
        log.interest == 0
    }
}

/// The topics of the node that have a subscriber or keep an event.
#[derive(Debug)]
pub struct Topics {
    stripes: Box<[RwLock<HashSet<ByName, ahash::RandomState>>]>,
    patterns: Patterns,
    hasher: ahash::RandomState,
    shards: usize,
    rules: Rules,
    count: AtomicUsize,
    max: AtomicUsize,
    rounds_of_several: AtomicU64,
    /// Topics with history, and what all of it counts for.
    with_history: AtomicUsize,
    history_bytes: AtomicUsize,
    max_history_bytes: AtomicUsize,
    /// When it is swept next, in nanoseconds; how often it was; and a count that tells the stripe to begin with.
    next_sweep: AtomicU64,
    sweeps: AtomicUsize,
    next_stripe: AtomicUsize,
}

/// Nanoseconds between two sweeps at least. Less than between two questions of one shard, so that it is never early.
const SWEEP_EVERY: u64 = 200_000_000;

/// Topics looked at in one sweep, after which no further stripe is.
const ENOUGH_SWEPT: usize = 256;

/// Stripes of the table: publishers on different shards seldom meet in one.
const STRIPES: usize = 64;

impl Topics {
    /// An empty table for a node of `shards` shards.
    pub fn new(shards: usize, max: usize, max_history_bytes: usize) -> Self {
        // `ahash` seeds itself from the system: names are chosen by strangers.
        let hasher = ahash::RandomState::new();
        Self {
            stripes: (0..STRIPES).map(|_| RwLock::new(HashSet::with_hasher(hasher.clone()))).collect(),
            patterns: Patterns::default(),
            hasher,
            shards,
            rules: Rules::default(),
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            rounds_of_several: AtomicU64::new(0),
            with_history: AtomicUsize::new(0),
            history_bytes: AtomicUsize::new(0),
            max_history_bytes: AtomicUsize::new(max_history_bytes),
            next_sweep: AtomicU64::new(0),
            sweeps: AtomicUsize::new(0),
            next_stripe: AtomicUsize::new(0),
        }
    }

    /// The same with rules for topics by the beginning of their names.
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// What topics have by the beginning of their names.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The prefix patterns that have a subscriber.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// How many topics there are, patterns among them.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Topics that have history.
    pub fn with_history(&self) -> usize {
        self.with_history.load(Ordering::Relaxed)
    }

    /// What all history counts for.
    pub fn history_bytes(&self) -> usize {
        self.history_bytes.load(Ordering::Relaxed)
    }

    /// The bound on [`Topics::history_bytes`].
    pub fn max_history_bytes(&self) -> usize {
        self.max_history_bytes.load(Ordering::Relaxed)
    }

    /// Changes the bounds on [`Topics::count`] and [`Topics::history_bytes`].
    pub fn set_max(&self, topics: usize, history_bytes: usize) {
        self.max.store(topics, Ordering::Relaxed);
        self.max_history_bytes.store(history_bytes, Ordering::Relaxed);
    }

    /// The topic with this name, if there is one. A publish to any other costs just this.
    pub fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.stripe(name).read().get(name).map(|found| Arc::clone(&found.0))
    }

    /// The topic to publish to: one that there is, or a new one where its history is to be kept.
    pub fn find_or_keep(&self, name: &str) -> Option<Arc<Topic>> {
        self.find(name).or_else(|| {
            self.rules.of(name)?.history.as_ref()?;
            let mut stripe = self.stripe(name).write();
            self.find_or_create(&mut stripe, name)
        })
    }

    /// `None` where there are `max_topics` already.
    fn find_or_create(
        &self,
        stripe: &mut HashSet<ByName, ahash::RandomState>,
        name: &str,
    ) -> Option<Arc<Topic>> {
        if let Some(found) = stripe.get(name) {
            return Some(Arc::clone(&found.0));
        }
        if self.count() >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        let history = self.rules.of(name).and_then(|rule| rule.history.clone()).map(History::new);
        let topic = Arc::new(Topic::new(name, history, self.shards));
        self.with_history.fetch_add(usize::from(topic.epoch != 0), Ordering::Relaxed);
        stripe.insert(ByName(Arc::clone(&topic)));
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(topic)
    }

    /// `None` where there are `max_topics` already.
    fn create_pattern(&self, name: &str) -> Option<Arc<Topic>> {
        if self.count() >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Topic { is_pattern: true, ..Topic::new(name, None, self.shards) }))
    }

    /// Registers the interest of `shard` in a topic, or in a pattern where the name ends in `*`; the shard will keep
    /// it at `slot`. Answers the topic and the offset of its newest event: what comes after is sent to the shard's
    /// link.
    ///
    /// # Errors
    /// `None` where the node holds `max_topics` topics already.
    pub fn register(&self, name: &str, shard: usize, slot: u32) -> Option<(Arc<Topic>, u64)> {
        if let Some(prefix) = pattern_prefix(name) {
            return self.patterns.register(prefix, (shard, slot), || self.create_pattern(name));
        }
        let mut stripe = self.stripe(name).write();
        let topic = self.find_or_create(&mut stripe, name)?;
        let head = topic.join(shard, slot);
        Some((topic, head))
    }

    /// Takes the interest of `shard` back. The topic goes with its last interest, unless its history keeps an
    /// event.
    pub fn release(&self, topic: &Topic, shard: usize) {
        if topic.is_pattern {
            self.count.fetch_sub(usize::from(self.patterns.release(topic, shard)), Ordering::Relaxed);
            return;
        }
        let mut stripe = self.stripe(&topic.name).write();
        topic.leave(shard);
        let mut log = topic.log.lock();
        self.retire(&mut stripe, topic, &mut log);
    }

    /// Takes a topic out of the table if nobody needs it.
    fn retire(&self, stripe: &mut HashSet<ByName, ahash::RandomState>, topic: &Topic, log: &mut Log) {
        let is_empty = log.history.as_ref().is_none_or(|history| history.events() == 0);
        if log.interest == 0 && is_empty && !log.retired {
            log.retired = true;
            stripe.remove(&*topic.name);
            if is_loose(stripe.capacity(), stripe.len()) {
                let twice = 2 * stripe.len();
                stripe.shrink_to(twice);
            }
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.with_history.fetch_sub(usize::from(topic.epoch != 0), Ordering::Relaxed);
        }
    }

    /// Reads the events of a topic after an offset, until they come to `bytes`.
    pub fn read(&self, topic: &Topic, after: u64, bytes: usize, now: u64) -> Reading {
        let mut log = topic.log.lock();
        let head = log.head;
        let Some(history) = &mut log.history else {
            return Reading { head, oldest: head + 1, pieces: Vec::new() };
        };
        self.history_bytes.fetch_sub(history.trim(now), Ordering::Relaxed);
        Reading { head, oldest: history.oldest().unwrap_or(head + 1), pieces: history.read(after, bytes) }
    }

    /// The offset of the oldest event that a topic's history keeps.
    pub fn oldest(&self, topic: &Topic) -> Option<u64> {
        topic.log.lock().history.as_ref()?.oldest()
    }

    /// Everything that the history of a topic keeps.
    pub fn kept(&self, topic: &Topic, now: u64) -> Vec<Piece> {
        let mut log = topic.log.lock();
        let Some(history) = &mut log.history else { return Vec::new() };
        self.history_bytes.fetch_sub(history.trim(now), Ordering::Relaxed);
        history.all()
    }

    /// The rounds of several topics that a topic's history keeps from after an offset on, each with its offset
    /// there.
    pub fn of_several(&self, topic: &Topic, after: u64) -> Vec<(Arc<Round>, u64)> {
        topic.log.lock().history.as_ref().map(|history| history.of_several(after)).unwrap_or_default()
    }

    /// How to go on from a position in a topic; `None`: one that no node gave.
    pub fn resume(&self, topic: &Topic, position: Option<Position>, now: u64) -> Resume {
        let Reading { head, oldest, .. } = self.read(topic, 0, 0, now);
        let of_this_log = |p: &Position| topic.epoch() == Some(p.epoch) && p.offset <= head;
        match position.filter(of_this_log) {
            None => Resume::Unknown { after: oldest - 1 },
            Some(Position { offset, .. }) if offset + 1 >= oldest => Resume::Whole { after: offset },
            Some(Position { offset, .. }) => {
                Resume::Part { after: oldest - 1, missing: (offset + 1, oldest - 1) }
            }
        }
    }

    /// The offset of a position, where it is one of this topic's log as it is now.
    pub fn in_log(&self, topic: &Topic, position: Option<Position>) -> Option<u64> {
        let is_its = |p: &Position| topic.epoch() == Some(p.epoch) && p.offset <= topic.head();
        position.filter(is_its).map(|position| position.offset)
    }

    /// Sweeps the next stripes, where that is due, until so many topics were looked at as are enough. Every shard asks,
    /// and one of them does it: the one that took events in may be the only one that is awake.
    pub fn sweep_next(&self, now: u64) {
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(SWEEP_EVERY);
        let is_mine =
            |due| self.next_sweep.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if now < due || !is_mine(due) {
            return;
        }
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        let mut looked_at = 0;
        for _ in 0..STRIPES {
            let stripe = self.next_stripe.fetch_add(1, Ordering::Relaxed) % STRIPES;
            looked_at += self.sweep(stripe, now);
            if looked_at >= ENOUGH_SWEPT {
                break;
            }
        }
        // Only who publishes pays for what is over the budget; those with a large part may have gone quiet.
        for stripe in (0..STRIPES).take_while(|_| self.is_over_budget()) {
            self.sweep(stripe, now);
        }
    }

    /// Lets go of what is too old in one of the [`STRIPES`] of the table, and of what is above its share while
    /// all history together is over its bound. Answers how many topics it looked at.
    fn sweep(&self, stripe: usize, now: u64) -> usize {
        if self.with_history() == 0 {
            return 0;
        }
        let (topics, looked_at): (Vec<Arc<Topic>>, usize) = {
            let all = self.stripes[stripe].read();
            let found = all.iter().filter(|found| found.0.epoch != 0).map(|found| Arc::clone(&found.0));
            (found.collect(), all.len())
        };
        for topic in topics {
            let mut log = topic.log.lock();
            let Some(history) = &mut log.history else { continue };
            let freed = history.trim(now);
            self.history_bytes.fetch_sub(freed, Ordering::Relaxed);
            self.keep_share(history);
            if history.events() == 0 && log.interest == 0 {
                // The stripe is locked before the log, here as elsewhere.
                drop(log);
                let mut all = self.stripes[stripe].write();
                let mut log = topic.log.lock();
                self.retire(&mut all, &topic, &mut log);
            }
        }
        looked_at
    }

    /// Whether all history is over its bound.
    fn is_over_budget(&self) -> bool {
        self.history_bytes() > self.max_history_bytes()
    }

    /// While all history is over its bound, no topic keeps more than an equal part of it.
    fn keep_share(&self, history: &mut History) {
        let max = self.max_history_bytes();
        if self.history_bytes() <= max {
            return;
        }
        let share = max / self.with_history().max(1);
        while history.bytes() > share && self.history_bytes() > max {
            self.history_bytes.fetch_sub(history.pop(), Ordering::Relaxed);
        }
    }

    /// Keeps a round, where the topic has history.
    fn keep(&self, log: &mut Log, round: &Arc<Round>, offset: u64) {
        let Some(history) = &mut log.history else { return };
        let before = history.bytes();
        history.push(Arc::clone(round), offset, round.ingress);
        // Wrapping: the difference may be below zero, and the sum never is.
        self.history_bytes.fetch_add(history.bytes().wrapping_sub(before), Ordering::Relaxed);
        self.keep_share(history);
    }

    /// Appends events of one topic to its log and hands the round to `send` once for each interested shard,
    /// all under the topic's lock.
    pub fn append(
        &self,
        topic: &Arc<Topic>,
        events: Events,
        ingress: u64,
        mut send: impl FnMut(usize, Arc<Round>),
    ) {
        let mut found;
        let mut current = topic;
        loop {
            let mut log = current.log.lock();
            if log.retired {
                drop(log);
                // Everyone left between the look-up and now; somebody may have come since.
                found = self.find_or_keep(current.name());
                match &found {
                    Some(found) => current = found,
                    None => return,
                }
                continue;
            }
            let offset = log.head + 1;
            log.head += events.len() as u64;
            let interest = log.interest;
            let placed = Placed { topic: Arc::clone(current), offset };
            let category = Arc::clone(current.name());
            let round = Arc::new(round(SmallVec::from_buf([placed]), category, events, 0, ingress, interest));
            self.keep(&mut log, &round, offset);
            send_to_each(interest, round, &mut send);
            return;
        }
    }

    /// Appends one event to the logs of its topics and of the patterns that it matches, and hands it to `send` once for
    /// each shard interested in any of them. Locks are taken in the order of the topics' addresses.
    ///
    /// Answers whether any shard was interested or any history kept it.
    pub fn append_to_several(
        &self,
        names: &str,
        matches: &Matches<'_>,
        events: Events,
        ingress: u64,
        mut send: impl FnMut(usize, Arc<Round>),
    ) -> bool {
        loop {
            // A name given twice is one topic: the event goes to it once.
            let mut found: SmallVec<[Arc<Topic>; 4]> = SmallVec::new();
            for name in names.split('\n') {
                if let Some(topic) = self.find_or_keep(name)
                    && !found.iter().any(|other| Arc::ptr_eq(other, &topic))
                {
                    found.push(topic);
                }
            }
            // Behind the topics: of what a session has of them, the first counts.
            found.extend(matches.patterns().iter().cloned());
            if found.is_empty() {
                return false;
            }
            let mut order: SmallVec<[usize; 4]> = (0..found.len()).collect();
            order.sort_by_key(|place| Arc::as_ptr(&found[*place]));
            let mut logs: SmallVec<[MutexGuard<'_, Log>; 4]> =
                order.iter().map(|place| found[*place].log.lock()).collect();
            if logs.iter().any(|log| log.retired) {
                continue; // Somebody left between the look-up and the lock: look again.
            }
            let mut interest = 0;
            let mut offsets: SmallVec<[u64; 4]> = SmallVec::from_elem(0, found.len());
            for (log, place) in logs.iter_mut().zip(&order) {
                log.head += 1;
                interest |= log.interest;
                offsets[*place] = log.head;
            }
            let placed = |(topic, offset)| Placed { topic: Arc::clone(topic), offset };
            let topics = found.iter().zip(offsets).map(placed).collect();
            let category: Arc<str> = names.split('\n').next().unwrap_or_default().into();
            let several = self.rounds_of_several.fetch_add(1, Ordering::Relaxed) + 1;
            let is_keyed = !matches.patterns().is_empty() && events.have_keys();
            let names = if is_keyed { self.hasher.hash_one(names) } else { 0 };
            let round = round(topics, category, events, several, ingress, interest);
            // Those of patterns have chunks of their own then, and the same frames; so have those who get them compressed.
            let shared = round.shared || is_keyed || self.rules.compress_any();
            let round = Arc::new(Round { names, shared, ..round });
            for log in &mut logs {
                let offset = log.head;
                self.keep(log, &round, offset);
            }
            send_to_each(interest, round, &mut send);
            return true;
        }
    }

    fn stripe(&self, name: &str) -> &RwLock<HashSet<ByName, ahash::RandomState>> {
        // The high bits: the low ones choose the place inside the stripe.
        &self.stripes[(self.hasher.hash_one(name) >> 58) as usize % STRIPES]
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        // What a topic keeps holds the topic itself.
        for stripe in &mut self.stripes {
            for ByName(topic) in stripe.get_mut().drain() {
                topic.log.lock().history = None;
            }
        }
    }
}

fn round(
    topics: SmallVec<[Placed; 1]>,
    category: Arc<str>,
    events: Events,
    several: u64,
    ingress: u64,
    interest: u64,
) -> Round {
    // What history keeps is written once for all who will ever read it.
    let is_kept = topics.iter().any(|placed| placed.topic.epoch != 0);
    let shared = is_kept || interest.count_ones() > 1;
    Round { topics, category, events, several, names: 0, ingress, shared, written: Mutex::default() }
}

fn send_to_each(interest: u64, round: Arc<Round>, send: &mut impl FnMut(usize, Arc<Round>)) {
    let mut rest = interest;
    while rest != 0 {
        let shard = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if rest == 0 {
            send(shard, round);
            return;
        }
        send(shard, Arc::clone(&round));
    }
}

#[derive(Debug)]
struct ByName(Arc<Topic>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HistoryLimits;
    use crate::publish::wire::Publish;
    use crate::topic::rules::Rule;
    use std::time::Duration;

    fn events(count: usize) -> Events {
        let mut events = Events::default();
        for _ in 0..count {
            let publish = Publish { topics: "", event: "e", key: "", data: "1", timestamp_ms: 1 };
            events.push(&publish, 1);
        }
        events
    }

    #[test]
    fn rounds_go_to_the_interested_shards_with_rising_offsets() {
        let topics = Topics::new(3, 10, 1 << 20);
        assert!(topics.find("a").is_none());
        let (topic, head) = topics.register("a", 0, 5).unwrap();
        assert_eq!((head, topic.slot(0), topic.slot(1)), (0, 5, NO_SLOT));
        topics.register("a", 2, 0).unwrap();
        let mut sent = Vec::new();
        topics.append(&topic, events(3), 0, |shard, round| sent.push((shard, round.topics[0].offset)));
        topics.append(&topic, events(1), 0, |shard, round| sent.push((shard, round.topics[0].offset)));
        assert_eq!(sent, [(0, 1), (2, 1), (0, 4), (2, 4)]);
        assert_eq!(topics.register("a", 1, 0).unwrap().1, 4);
    }

    #[test]
    fn a_topic_goes_with_its_last_interest_and_a_held_one_is_looked_up_again() {
        let topics = Topics::new(2, 1, 1 << 20);
        let (old, _) = topics.register("a", 0, 0).unwrap();
        topics.register("a", 1, 0).unwrap();
        topics.release(&old, 0);
        assert_eq!(topics.count(), 1);
        assert!(topics.register("b", 0, 0).is_none(), "the bound holds");
        topics.release(&old, 1);
        assert_eq!(topics.count(), 0);
        topics.append(&old, events(1), 0, |_, _| panic!("nobody is interested"));
        topics.register("a", 1, 0).unwrap();
        let mut shards = Vec::new();
        topics.append(&old, events(1), 0, |shard, _| shards.push(shard));
        assert_eq!(shards, [1]);
    }

    #[test]
    fn an_event_of_several_topics_is_one_round_with_a_position_in_each() {
        let topics = Topics::new(2, 10, 1 << 20);
        assert!(!topics.append_to_several("a\nb", &Matches::default(), events(1), 0, |_, _| panic!(
            "nobody is interested"
        )));
        let (a, _) = topics.register("a", 0, 0).unwrap();
        topics.append(&a, events(4), 0, |_, _| ());
        topics.register("b", 0, 1).unwrap();
        topics.register("c", 1, 0).unwrap();
        let mut sent = Vec::new();
        topics.append_to_several("x\nc\nb\na\nb", &Matches::default(), events(1), 0, |shard, round| {
            sent.push((shard, round))
        });
        assert_eq!(sent.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [0, 1]);
        let round = &sent[0].1;
        let placed: Vec<_> = round.topics.iter().map(|p| (&**p.topic.name(), p.offset)).collect();
        assert_eq!(placed, [("c", 1), ("b", 1), ("a", 5)]);
        assert_eq!(&*round.category, "x");
        assert!(round.shared && round.several != 0);
    }

    /// A table whose topics all have history.
    fn with_history(events: usize, max_history_bytes: usize) -> Topics {
        let history = HistoryLimits { events, bytes: 1 << 30, age: Duration::from_secs(10) };
        let rule =
            Rule { prefix: "h".into(), history: Some(history), policies: Vec::new(), compress_above: None };
        Topics::new(2, 10, max_history_bytes).with_rules(Rules::new(vec![rule]))
    }

    fn kept(topics: &Topics, topic: &Topic) -> Vec<u64> {
        let pieces = topics.read(topic, 0, usize::MAX, 0).pieces;
        pieces.iter().flat_map(|piece| piece.offset..piece.end()).collect()
    }

    #[test]
    fn every_position_has_its_way_to_go_on() {
        let topics = with_history(10, 1 << 30);
        let topic = topics.find_or_keep("h").unwrap();
        let epoch = topic.epoch().unwrap();
        let at = |offset| Some(Position { epoch, offset });
        let resume = |position| topics.resume(&topic, position, 0);
        assert_eq!(resume(at(0)), Resume::Whole { after: 0 });
        assert_eq!(resume(at(1)), Resume::Unknown { after: 0 });
        assert_eq!(resume(None), Resume::Unknown { after: 0 });
        for _ in 0..5 {
            topics.append(&topic, events(8), 0, |_, _| panic!("nobody is interested"));
        }
        for (position, expected) in [
            (at(40), Resume::Whole { after: 40 }),
            (at(31), Resume::Whole { after: 31 }),
            (at(30), Resume::Whole { after: 30 }),
            (at(29), Resume::Part { after: 30, missing: (30, 30) }),
            (at(0), Resume::Part { after: 30, missing: (1, 30) }),
            (at(41), Resume::Unknown { after: 30 }),
            (at(u64::MAX), Resume::Unknown { after: 30 }),
            (Some(Position { epoch: epoch ^ 1, offset: 35 }), Resume::Unknown { after: 30 }),
            (None, Resume::Unknown { after: 30 }),
        ] {
            assert_eq!(resume(position), expected, "{position:?}");
        }
        assert_eq!(kept(&topics, &topic), (31..=40).collect::<Vec<_>>());
        // Everything is too old: what is missing ends with the head.
        let late = 11_000_000_000;
        assert_eq!(topics.resume(&topic, at(35), late), Resume::Part { after: 40, missing: (36, 40) });
        assert_eq!(topics.resume(&topic, at(40), late), Resume::Whole { after: 40 });
        assert_eq!(topics.history_bytes(), 0);
        let plain = topics.register("plain", 0, 0).unwrap().0;
        topics.append(&plain, events(3), 0, |_, _| ());
        for position in [None, at(2)] {
            assert_eq!(topics.resume(&plain, position, 0), Resume::Unknown { after: 3 });
        }
        assert_eq!((plain.epoch(), topics.in_log(&plain, at(2))), (None, None));
        assert_eq!((topics.in_log(&topic, at(2)), topics.in_log(&topic, at(41))), (Some(2), None));
    }

    #[test]
    fn an_event_of_several_topics_is_in_each_history_and_found_there() {
        let topics = with_history(100, 1 << 30);
        assert!(
            topics.append_to_several("h1\nh2\nplain", &Matches::default(), events(1), 0, |_, _| panic!(
                "nobody"
            ))
        );
        let [one, two] = ["h1", "h2"].map(|name| topics.find(name).unwrap());
        assert!(topics.find("plain").is_none(), "who keeps nothing and has no subscriber is none");
        topics.append(&one, events(3), 0, |_, _| ());
        topics.append_to_several("h2\nh1", &Matches::default(), events(1), 0, |_, _| ());
        assert_eq!((kept(&topics, &one), kept(&topics, &two)), (vec![1, 2, 3, 4, 5], vec![1, 2]));
        let of_several = |topic, after| -> Vec<u64> {
            topics.of_several(topic, after).into_iter().map(|(_, offset)| offset).collect()
        };
        assert_eq!(
            (of_several(&one, 0), of_several(&one, 1), of_several(&one, 5)),
            (vec![1, 5], vec![5], vec![])
        );
        let round = &topics.of_several(&one, 1)[0].0;
        assert_eq!((round.position(&one).unwrap().1, round.position(&two).unwrap().1), (5, 2));
    }

    #[test]
    fn all_histories_share_their_budget() {
        let topics = with_history(1_000_000, 100_000);
        let all: Vec<_> = ["h1", "h2", "h3"].map(|name| topics.find_or_keep(name).unwrap()).into();
        topics.register("h3", 0, 0).unwrap();
        let bytes = |topic: &Topic| topic.kept().unwrap().1;
        let sum = || all.iter().map(|topic| bytes(topic)).sum::<usize>();
        // One alone may have everything.
        for _ in 0..1000 {
            topics.append(&all[0], events(4), 0, |_, _| ());
            assert!(topics.history_bytes() <= 100_000 && topics.history_bytes() == sum());
        }
        assert!(bytes(&all[0]) > 90_000);
        // Others take no more than their share from it, at the latest with the sweep.
        for _ in 0..1000 {
            topics.append(&all[1], events(4), 0, |_, _| ());
        }
        assert!(topics.is_over_budget() && bytes(&all[1]) <= 100_000 / 3);
        (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, 0));
        assert!(!topics.is_over_budget() && topics.history_bytes() == sum(), "{}", topics.history_bytes());
        assert!(bytes(&all[0]) > 50_000 && bytes(&all[1]) > 30_000);
        topics.set_max(10, 10_000);
        (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, 0));
        assert!(topics.history_bytes() <= 10_000 && topics.history_bytes() == sum());
        // An event larger than the budget is not kept, and its offset is not given again.
        let head = all[2].head();
        let mut large = Events::default();
        let data = format!("\"{}\"", "x".repeat(20_000));
        large.push(&Publish { topics: "", event: "e", key: "", data: &data, timestamp_ms: 1 }, 1);
        topics.append(&all[2], large, 0, |_, _| ());
        assert_eq!((all[2].head(), all[2].kept()), (head + 1, Some((0, 0))));
    }

    #[test]
    fn whoever_asks_sweeps_what_is_due_stripe_after_stripe() {
        let topics = with_history(10, 1 << 30);
        let topic = topics.find_or_keep("h").unwrap();
        topics.append(&topic, events(2), 0, |_, _| ());
        let late = 11_000_000_000;
        for n in 0..STRIPES as u64 {
            // Of those who ask in one period, one sweeps.
            (0..STRIPES).for_each(|_| topics.sweep_next(late + n * SWEEP_EVERY));
            assert_eq!(topics.sweeps.load(Ordering::Relaxed) as u64, n + 1);
        }
        assert_eq!((topics.count(), topics.history_bytes()), (0, 0));
    }

    #[test]
    fn a_topic_stays_for_its_history_and_goes_with_its_last_event() {
        let topics = with_history(10, 1 << 30);
        let topic = topics.find_or_keep("h").unwrap();
        let first = topic.epoch();
        topics.append(&topic, events(2), 0, |_, _| ());
        topics.register("h", 1, 0).unwrap();
        topics.release(&topic, 1);
        (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, 9_000_000_000));
        assert_eq!((topics.count(), topics.with_history()), (1, 1));
        // Somebody is interested: its place in the log stays though nothing is kept.
        topics.register("h", 1, 0).unwrap();
        (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, 11_000_000_000));
        assert_eq!((topic.kept(), topic.head(), topics.count()), (Some((0, 0)), 2, 1));
        topics.release(&topic, 1);
        assert_eq!((topics.count(), topics.with_history(), topics.history_bytes()), (0, 0, 0));
        topics.append(&topic, events(1), 0, |_, _| ());
        let second = topics.find("h").unwrap();
        assert_eq!((kept(&topics, &topic).len(), kept(&topics, &second)), (0, vec![1]));
        assert_ne!(first, second.epoch(), "another life");
        let weak = Arc::downgrade(&second);
        drop((topic, second, topics));
        assert!(weak.upgrade().is_none(), "its history does not keep it");
    }

    #[test]
    fn threads_that_append_register_and_retire_lose_nothing() {
        const EVENTS: u64 = 3_000;
        let history = HistoryLimits { events: 1 << 20, bytes: 1 << 30, age: Duration::from_secs(1) };
        let rule =
            Rule { prefix: "h".into(), history: Some(history), policies: Vec::new(), compress_above: None };
        let topics = Topics::new(1, 100, 1 << 30).with_rules(Rules::new(vec![rule]));
        let sent = Mutex::new(Vec::new());
        let is_done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for writer in 0..2 {
                let (topics, sent) = (&topics, &sent);
                writers.push(scope.spawn(move || {
                    let to_link = |_, round: Arc<Round>| {
                        let of_it = |placed: &&Placed| &**placed.topic.name() == "h1";
                        let placed = round.topics.iter().find(of_it).unwrap();
                        sent.lock().push((placed.topic.epoch().unwrap(), placed.offset));
                    };
                    for n in 0..EVENTS {
                        // Old as soon as it is there: every sweep may retire the topics.
                        if n % 3 == writer {
                            topics.append_to_several("h1\nh2", &Matches::default(), events(1), 0, to_link);
                        } else {
                            topics.append(&topics.find_or_keep("h1").unwrap(), events(1), 0, to_link);
                        }
                    }
                }));
            }
            scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, 5_000_000_000));
                }
            });
            // A reader that comes and goes: what follows the head that it is told is sent, and nothing twice.
            let mut seen = 0;
            while writers.iter().any(|writer| !writer.is_finished()) {
                let (topic, head) = topics.register("h1", 0, 0).unwrap();
                let from = sent.lock().len();
                let (_, until) = topics.register("h1", 0, 0).unwrap();
                topics.release(&topic, 0);
                let got: Vec<u64> = sent.lock()[from..].iter().map(|(_, offset)| *offset).collect();
                assert!(got.windows(2).all(|two| two[0] + 1 == two[1]), "{got:?}");
                assert!(got.last().is_none_or(|last| *last >= until), "{got:?} up to {until}");
                assert!(got.first().is_none_or(|first| *first > head), "{got:?} after {head}");
                seen += got.len();
            }
            is_done.store(true, Ordering::Release);
            assert!(seen <= 2 * EVENTS as usize);
        });
        (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, 5_000_000_000));
        assert_eq!((topics.count(), topics.with_history(), topics.history_bytes()), (0, 0, 0));
        let mut sent = sent.into_inner();
        let all = sent.len();
        sent.sort_unstable();
        sent.dedup();
        assert_eq!(sent.len(), all, "an offset was given twice");
    }
}
