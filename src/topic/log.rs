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
use crate::topic::history::{History, Piece};
use crate::topic::rules::Rules;

/// A shard that holds no subscriber of a topic.
pub const NO_SLOT: u32 = u32::MAX;

/// One topic: its name, the head of its log, its history, and who is interested.
#[derive(Debug)]
pub struct Topic {
    name: Arc<str>,
    /// Tells the life of a log with history from others under the same name; 0: it has no history.
    epoch: u64,
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
}

/// The topics of the node that have a subscriber or keep an event.
#[derive(Debug)]
pub struct Topics {
    stripes: Box<[RwLock<HashSet<ByName, ahash::RandomState>>]>,
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
}

/// Stripes of the table: publishers on different shards seldom meet in one.
pub const STRIPES: usize = 64;

impl Topics {
    /// An empty table for a node of `shards` shards.
    pub fn new(shards: usize, max: usize, max_history_bytes: usize) -> Self {
        // `ahash` seeds itself from the system: names are chosen by strangers.
        let hasher = ahash::RandomState::new();
        Self {
            stripes: (0..STRIPES).map(|_| RwLock::new(HashSet::with_hasher(hasher.clone()))).collect(),
            hasher,
            shards,
            rules: Rules::default(),
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            rounds_of_several: AtomicU64::new(0),
            with_history: AtomicUsize::new(0),
            history_bytes: AtomicUsize::new(0),
            max_history_bytes: AtomicUsize::new(max_history_bytes),
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

    /// How many topics there are.
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
        let limits = self.rules.of(name).and_then(|rule| rule.history.clone());
        let epoch = if limits.is_some() { fastrand::u64(1..) } else { 0 };
        self.with_history.fetch_add(usize::from(epoch != 0), Ordering::Relaxed);
        let history = limits.map(History::new);
        let topic = Arc::new(Topic {
            name: name.into(),
            epoch,
            log: Mutex::new(Log { head: 0, interest: 0, retired: false, history }),
            slots: (0..self.shards).map(|_| AtomicU32::new(NO_SLOT)).collect(),
        });
        stripe.insert(ByName(Arc::clone(&topic)));
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(topic)
    }

    /// Registers the interest of `shard`, which will keep the topic at `slot`. Answers the topic and the
    /// offset of its newest event: what comes after is sent to the shard's link.
    ///
    /// # Errors
    /// `None` where the node holds `max_topics` topics already.
    pub fn register(&self, name: &str, shard: usize, slot: u32) -> Option<(Arc<Topic>, u64)> {
        let mut stripe = self.stripe(name).write();
        let topic = self.find_or_create(&mut stripe, name)?;
        let mut log = topic.log.lock();
        log.interest |= 1 << shard;
        topic.slots[shard].store(slot, Ordering::Relaxed);
        let head = log.head;
        drop(log);
        Some((topic, head))
    }

    /// Takes the interest of `shard` back. The topic goes with its last interest, unless its history keeps an
    /// event.
    pub fn release(&self, topic: &Topic, shard: usize) {
        let mut stripe = self.stripe(&topic.name).write();
        let mut log = topic.log.lock();
        topic.slots[shard].store(NO_SLOT, Ordering::Relaxed);
        log.interest &= !(1 << shard);
        self.retire(&mut stripe, topic, &mut log);
    }

    /// Takes a topic out of the table if nobody needs it.
    fn retire(&self, stripe: &mut HashSet<ByName, ahash::RandomState>, topic: &Topic, log: &mut Log) {
        let is_empty = log.history.as_ref().is_none_or(|history| history.events() == 0);
        if log.interest == 0 && is_empty && !log.retired {
            log.retired = true;
            stripe.remove(&*topic.name);
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

    /// Lets go of what is too old in one of the [`STRIPES`] of the table, and of what is above its share while
    /// all history together is over its bound.
    pub fn sweep(&self, stripe: usize, now: u64) {
        if self.with_history() == 0 {
            return;
        }
        let topics: Vec<Arc<Topic>> = {
            let all = self.stripes[stripe].read();
            all.iter().filter(|found| found.0.epoch != 0).map(|found| Arc::clone(&found.0)).collect()
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
    }

    /// Whether all history is over its bound.
    pub fn is_over_budget(&self) -> bool {
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
        let mut current = Arc::clone(topic);
        loop {
            let mut log = current.log.lock();
            if log.retired {
                drop(log);
                // Everyone left between the look-up and now; somebody may have come since.
                match self.find_or_keep(current.name()) {
                    Some(found) => current = found,
                    None => return,
                }
                continue;
            }
            let offset = log.head + 1;
            log.head += events.len() as u64;
            let interest = log.interest;
            let placed = Placed { topic: Arc::clone(&current), offset };
            let category = Arc::clone(current.name());
            let round = Arc::new(round(SmallVec::from_buf([placed]), category, events, 0, ingress, interest));
            self.keep(&mut log, &round, offset);
            send_to_each(interest, round, &mut send);
            return;
        }
    }

    /// Appends one event of several topics to each of their logs and hands it to `send` once for each shard
    /// interested in any of them. Locks are taken in the order of the topics' addresses.
    ///
    /// Answers whether any shard was interested or any history kept it.
    pub fn append_to_several(
        &self,
        names: &str,
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
            if found.is_empty() {
                return false;
            }
            let mut order: SmallVec<[&Arc<Topic>; 4]> = found.iter().collect();
            order.sort_by_key(|topic| Arc::as_ptr(topic));
            let mut logs: SmallVec<[MutexGuard<'_, Log>; 4]> =
                order.iter().map(|topic| topic.log.lock()).collect();
            if logs.iter().any(|log| log.retired) {
                continue; // Somebody left between the look-up and the lock: look again.
            }
            let mut interest = 0;
            for log in &mut logs {
                log.head += 1;
                interest |= log.interest;
            }
            let offset_of = |topic: &Arc<Topic>| {
                let place = order.iter().position(|other| Arc::ptr_eq(other, topic));
                place.map_or(0, |place| logs[place].head)
            };
            let placed = |topic: &Arc<Topic>| Placed { topic: Arc::clone(topic), offset: offset_of(topic) };
            let topics = found.iter().map(placed).collect();
            let category: Arc<str> = names.split('\n').next().unwrap_or_default().into();
            let several = self.rounds_of_several.fetch_add(1, Ordering::Relaxed) + 1;
            let round = Arc::new(round(topics, category, events, several, ingress, interest));
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
    Round { topics, category, events, several, ingress, shared, written: Mutex::default() }
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
    use crate::publish::wire::Publish;

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
        assert!(!topics.append_to_several("a\nb", events(1), 0, |_, _| panic!("nobody is interested")));
        let (a, _) = topics.register("a", 0, 0).unwrap();
        topics.append(&a, events(4), 0, |_, _| ());
        topics.register("b", 0, 1).unwrap();
        topics.register("c", 1, 0).unwrap();
        let mut sent = Vec::new();
        topics.append_to_several("x\nc\nb\na\nb", events(1), 0, |shard, round| sent.push((shard, round)));
        assert_eq!(sent.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [0, 1]);
        let round = &sent[0].1;
        let placed: Vec<_> = round.topics.iter().map(|p| (&**p.topic.name(), p.offset)).collect();
        assert_eq!(placed, [("c", 1), ("b", 1), ("a", 5)]);
        assert_eq!(&*round.category, "x");
        assert!(round.shared && round.several != 0);
    }
}
