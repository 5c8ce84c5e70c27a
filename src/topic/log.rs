//! `append`: the one place that gives positions, and the table of topics.
//!
//! A topic lives as long as a shard is interested in it. `append` gives the offsets and sends the round under
//! the topic's lock, so rounds of one topic reach every link in log order. A shard registers its interest
//! under the same lock, so it knows exactly which events came before.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use smallvec::SmallVec;

use crate::event::{Events, Placed, Round};

/// A shard that holds no subscriber of a topic.
pub const NO_SLOT: u32 = u32::MAX;

/// One topic: its name, the head of its log, and who is interested.
#[derive(Debug)]
pub struct Topic {
    name: Arc<str>,
    log: Mutex<Log>,
    /// For each shard, where its own table keeps this topic. Only that shard reads and writes its place, so
    /// a round finds the shard's subscribers without a look-up by name.
    slots: Box<[AtomicU32]>,
}

#[derive(Debug, Default)]
struct Log {
    /// The offset of the newest event; 0 before the first.
    head: u64,
    /// One bit for each shard with a subscriber.
    interest: u64,
    /// Set when the last interest went and the topic left the table: whoever still holds it looks again.
    retired: bool,
}

impl Topic {
    /// The topic's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The offset of the newest event; 0 before the first.
    pub fn head(&self) -> u64 {
        self.log.lock().head
    }

    /// Where `shard` keeps this topic, or [`NO_SLOT`].
    pub fn slot(&self, shard: usize) -> u32 {
        self.slots[shard].load(Ordering::Relaxed)
    }
}

/// The topics of the node that have a subscriber.
#[derive(Debug)]
pub struct Topics {
    stripes: Box<[RwLock<HashSet<ByName, ahash::RandomState>>]>,
    hasher: ahash::RandomState,
    shards: usize,
    count: AtomicUsize,
    max: AtomicUsize,
    rounds_of_several: AtomicU64,
}

/// Stripes of the table: publishers on different shards seldom meet in one.
const STRIPES: usize = 64;

impl Topics {
    /// An empty table for a node of `shards` shards.
    pub fn new(shards: usize, max: usize) -> Self {
        // `ahash` seeds itself from the system: names are chosen by strangers.
        let hasher = ahash::RandomState::new();
        Self {
            stripes: (0..STRIPES).map(|_| RwLock::new(HashSet::with_hasher(hasher.clone()))).collect(),
            hasher,
            shards,
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            rounds_of_several: AtomicU64::new(0),
        }
    }

    /// How many topics have a subscriber.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Changes the bound on [`Topics::count`].
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The topic with this name, if it has a subscriber anywhere. A publish to any other costs just this.
    pub fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.stripe(name).read().get(name).map(|found| Arc::clone(&found.0))
    }

    /// Registers the interest of `shard`, which will keep the topic at `slot`. Answers the topic and the
    /// offset of its newest event: what comes after is sent to the shard's link.
    ///
    /// # Errors
    /// `None` where the node holds `max_topics` topics already.
    pub fn register(&self, name: &str, shard: usize, slot: u32) -> Option<(Arc<Topic>, u64)> {
        let mut stripe = self.stripe(name).write();
        let topic = match stripe.get(name) {
            Some(found) => Arc::clone(&found.0),
            None => {
                if self.count() >= self.max.load(Ordering::Relaxed) {
                    return None;
                }
                let topic = Arc::new(Topic {
                    name: name.into(),
                    log: Mutex::default(),
                    slots: (0..self.shards).map(|_| AtomicU32::new(NO_SLOT)).collect(),
                });
                stripe.insert(ByName(Arc::clone(&topic)));
                self.count.fetch_add(1, Ordering::Relaxed);
                topic
            }
        };
        let mut log = topic.log.lock();
        log.interest |= 1 << shard;
        topic.slots[shard].store(slot, Ordering::Relaxed);
        let head = log.head;
        drop(log);
        Some((topic, head))
    }

    /// Takes the interest of `shard` back. The topic goes with its last interest.
    pub fn release(&self, topic: &Topic, shard: usize) {
        let mut stripe = self.stripe(&topic.name).write();
        let mut log = topic.log.lock();
        topic.slots[shard].store(NO_SLOT, Ordering::Relaxed);
        log.interest &= !(1 << shard);
        if log.interest == 0 && !log.retired {
            log.retired = true;
            stripe.remove(&*topic.name);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
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
                match self.find(current.name()) {
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
            let topics = SmallVec::from_buf([placed]);
            let round = Arc::new(round(topics, category, events, 0, ingress, interest));
            send_to_each(interest, round, &mut send);
            return;
        }
    }

    /// Appends one event of several topics to each of their logs and hands it to `send` once for each shard
    /// interested in any of them. Locks are taken in the order of the topics' addresses.
    ///
    /// Answers whether any shard was interested.
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
                if let Some(topic) = self.find(name)
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
            let mut offsets: SmallVec<[(*const Topic, u64); 4]> = SmallVec::new();
            for (topic, log) in order.iter().zip(&mut logs) {
                log.head += 1;
                interest |= log.interest;
                offsets.push((Arc::as_ptr(topic), log.head));
            }
            let topics = found
                .iter()
                .map(|topic| {
                    let offset = offsets.iter().find(|(at, _)| *at == Arc::as_ptr(topic));
                    Placed { topic: Arc::clone(topic), offset: offset.map_or(0, |(_, offset)| *offset) }
                })
                .collect();
            let category: Arc<str> = names.split('\n').next().unwrap_or_default().into();
            let several = self.rounds_of_several.fetch_add(1, Ordering::Relaxed) + 1;
            let round = Arc::new(round(topics, category, events, several, ingress, interest));
            send_to_each(interest, round, &mut send);
            return true;
        }
    }

    fn stripe(&self, name: &str) -> &RwLock<HashSet<ByName, ahash::RandomState>> {
        // The high bits: the low ones choose the place inside the stripe.
        &self.stripes[(self.hasher.hash_one(name) >> 58) as usize % STRIPES]
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
    let shared = interest.count_ones() > 1;
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
        let topics = Topics::new(3, 10);
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
        let topics = Topics::new(2, 1);
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
        let topics = Topics::new(2, 10);
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
