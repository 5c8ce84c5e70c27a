//! The table of topics: found by name, and there for as long as anybody needs them.
//!
//! A topic lives as long as a shard is interested in it or its history keeps an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::topic::budget::Budget;
use crate::topic::expiry::Expiry;
use crate::topic::history::History;
use crate::topic::index::Index;
use crate::topic::name::pattern_prefix;
use crate::topic::patterns::Patterns;
use crate::topic::rules::Rules;
use crate::topic::topic::Topic;

/// Stripes of the table: publishers on different shards seldom meet in one.
pub(super) const STRIPES: usize = 64;

/// The topics of the node that have a subscriber or keep an event.
#[derive(Debug)]
pub struct Topics {
    stripes: Box<[RwLock<Index>]>,
    patterns: Patterns,
    pub(super) hasher: ahash::RandomState,
    shards: usize,
    pub(super) rules: Rules,
    count: AtomicUsize,
    max: AtomicUsize,
    pub(super) rounds_of_several: AtomicU64,
    pub(super) budget: Budget,
    pub(super) expiry: Expiry,
}

impl Topics {
    /// An empty table for a node of `shards` shards.
    pub fn new(shards: usize, max: usize, max_history_bytes: usize) -> Self {
        // `ahash` seeds itself from the system: names are chosen by strangers.
        let hasher = ahash::RandomState::new();
        Self {
            stripes: (0..STRIPES).map(|_| RwLock::default()).collect(),
            patterns: Patterns::default(),
            hasher,
            shards,
            rules: Rules::default(),
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            rounds_of_several: AtomicU64::new(0),
            budget: Budget::new(max_history_bytes),
            expiry: Expiry::default(),
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
        self.budget.histories()
    }

    /// What all history counts for.
    pub fn history_bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// The bound on [`Topics::history_bytes`].
    pub fn max_history_bytes(&self) -> usize {
        self.budget.max()
    }

    /// Changes the bounds on [`Topics::count`] and [`Topics::history_bytes`].
    pub fn set_max(&self, topics: usize, history_bytes: usize) {
        self.max.store(topics, Ordering::Relaxed);
        self.budget.set_max(history_bytes);
    }

    /// The topic with this name, if there is one. A publish to any other costs just this.
    pub fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.find_hashed(self.hash(name), name)
    }

    fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    fn find_hashed(&self, hash: u64, name: &str) -> Option<Arc<Topic>> {
        self.stripe(hash).read().get(hash, name).cloned()
    }

    /// The topic to publish to: one that there is, or a new one where its history is to be kept.
    pub fn find_or_keep(&self, name: &str) -> Option<Arc<Topic>> {
        let hash = self.hash(name);
        self.find_hashed(hash, name).or_else(|| {
            self.rules.of(name)?.history.as_ref()?;
            self.find_or_create(&mut self.stripe(hash).write(), hash, name)
        })
    }

    /// `None` where there are `max_topics` already.
    fn find_or_create(&self, stripe: &mut Index, hash: u64, name: &str) -> Option<Arc<Topic>> {
        if let Some(found) = stripe.get(hash, name) {
            return Some(Arc::clone(found));
        }
        if self.count() >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        let history = self.rules.of(name).and_then(|rule| rule.history.clone()).map(History::new);
        let topic = Arc::new(Topic::new(name, history, self.shards));
        if topic.epoch().is_some() {
            self.budget.begin();
        }
        stripe.insert(Arc::clone(&topic), |key| self.hash(key));
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(topic)
    }

    /// `None` where there are `max_topics` already.
    fn create_pattern(&self, name: &str) -> Option<Arc<Topic>> {
        if self.count() >= self.max.load(Ordering::Relaxed) {
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Topic::pattern(name, self.shards)))
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
        let hash = self.hash(name);
        let mut stripe = self.stripe(hash).write();
        let topic = self.find_or_create(&mut stripe, hash, name)?;
        let head = topic.join(shard, slot);
        Some((topic, head))
    }

    /// Takes the interest of `shard` back. The topic goes with its last interest, unless its history keeps an
    /// event.
    pub fn release(&self, topic: &Topic, shard: usize) {
        if topic.is_pattern() {
            self.count.fetch_sub(usize::from(self.patterns.release(topic, shard)), Ordering::Relaxed);
            return;
        }
        let mut stripe = self.stripe(self.hash(topic.name())).write();
        topic.leave(shard);
        self.retire(&mut stripe, topic);
    }

    /// Takes a topic out of the table if nobody needs it.
    pub(super) fn retire_unneeded(&self, topic: &Topic) {
        self.retire(&mut self.stripe(self.hash(topic.name())).write(), topic);
    }

    fn retire(&self, stripe: &mut Index, topic: &Topic) {
        let mut log = topic.log.lock();
        let is_empty = log.history.as_ref().is_none_or(|history| history.events() == 0);
        if log.interest == 0 && is_empty && !log.retired {
            log.retired = true;
            stripe.remove(topic.name(), |key| self.hash(key));
            self.count.fetch_sub(1, Ordering::Relaxed);
            if topic.epoch().is_some() {
                self.budget.end();
            }
        }
    }

    /// The topics with history in one of the [`STRIPES`], and how many there are with and without.
    pub(super) fn with_history_in(&self, stripe: usize) -> (Vec<Arc<Topic>>, usize) {
        let all = self.stripes[stripe].read();
        (all.iter().filter(|found| found.epoch().is_some()).cloned().collect(), all.len())
    }

    fn stripe(&self, hash: u64) -> &RwLock<Index> {
        // Bits that the table inside the stripe does not go by: it takes the low ones for the place, the highest for a tag.
        &self.stripes[(hash >> 32) as usize % STRIPES]
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        // What a topic keeps holds the topic itself.
        for stripe in &mut self.stripes {
            for topic in stripe.get_mut().iter() {
                topic.log.lock().history = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::fixtures::{events, kept, sweep_all, with_history};

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
    fn a_topic_stays_for_its_history_and_goes_with_its_last_event() {
        let topics = with_history(10, 1 << 30);
        let topic = topics.find_or_keep("h").unwrap();
        let first = topic.epoch();
        topics.append(&topic, events(2), 0, |_, _| ());
        topics.register("h", 1, 0).unwrap();
        topics.release(&topic, 1);
        sweep_all(&topics, 9_000_000_000);
        assert_eq!((topics.count(), topics.with_history()), (1, 1));
        // Somebody is interested: its place in the log stays though nothing is kept.
        topics.register("h", 1, 0).unwrap();
        sweep_all(&topics, 11_000_000_000);
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
}
