//! Prefix patterns: who asks for all topics whose names begin alike.
//!
//! A pattern is a topic of its own under a name such as `run:*`: with a log that gives offsets, with shards that are
//! interested, and without history. It stands here and not among the topics, where a publisher may well have one of
//! that name. An event that matches is appended to the pattern's log as to one more of its topics.
//!
//! What a publish pays depends on how many different lengths the prefixes have, and not on how many patterns there
//! are: one look-up for each length that is not above the length of the name, so at most 255.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use smallvec::SmallVec;

use crate::topic::index::Index;
use crate::topic::name::pattern_prefix;
use crate::topic::topic::Topic;

/// The patterns of the node that have a subscriber.
#[derive(Debug, Default)]
pub struct Patterns {
    table: RwLock<Table>,
    /// As many as the table has: without any, a publish does not ask for the lock.
    count: AtomicUsize,
    /// Changes, under the table's lock, whenever a shard comes to be interested in a pattern.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    /// `ahash` seeds itself from the system: prefixes are chosen by strangers.
    hasher: ahash::RandomState,
    patterns: Index,
    /// Lengths of prefixes in bytes, longest first, each with how many patterns have it.
    lengths: Vec<(usize, usize)>,
}

/// The patterns that an event matches. While this is held nobody joins or leaves the table: what is appended under it
/// reaches exactly those who were subscribed when it was matched.
#[derive(Debug, Default)]
pub struct Matches<'a> {
    found: SmallVec<[Arc<Topic>; 4]>,
    probes: u64,
    held: Option<RwLockReadGuard<'a, Table>>,
}

impl Matches<'_> {
    /// The patterns, none of them twice: by the event's topics in their order, for each the longest prefix first.
    pub fn patterns(&self) -> &[Arc<Topic>] {
        &self.found
    }

    /// Lets others join and leave: what was found stays as it is.
    pub fn let_go(&mut self) {
        self.held = None;
    }

    /// Look-ups that it took.
    pub fn probes(&self) -> u64 {
        self.probes
    }
}

/// The table, held: nobody joins or leaves it.
#[derive(Debug)]
pub struct Held<'a> {
    table: RwLockReadGuard<'a, Table>,
    version: u64,
}

impl Held<'_> {
    /// Whether whoever has come to a pattern had come by the time of this [`Patterns::version`].
    pub fn is_as_in(&self, version: u64) -> bool {
        self.version == version
    }

    /// What an event of these topics, joined by `\n`, matches.
    pub fn matching(&self, names: &str) -> Matches<'static> {
        self.table.matching(names)
    }
}

impl Patterns {
    /// Tells whether somebody has come to a pattern since.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Keeps everybody from joining or leaving the table. Not to be called by whoever holds it already: somebody may
    /// be waiting to join.
    pub fn hold(&self) -> Held<'_> {
        let table = self.table.read();
        Held { version: self.version(), table }
    }

    /// How many patterns there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// What an event of these topics, joined by `\n`, matches.
    pub fn matching(&self, names: &str) -> Matches<'_> {
        if self.count() == 0 {
            return Matches::default();
        }
        let table = self.table.read();
        let Matches { found, probes, .. } = table.matching(names);
        Matches { found, probes, held: Some(table) }
    }

    /// Registers the interest of `shard` in a pattern, which it will keep at `slot`; `create` makes the pattern where
    /// there is none yet. Answers the pattern and the offset of its newest event: every event that is matched later is
    /// sent to the shard's link.
    ///
    /// # Errors
    /// `None` where `create` made none.
    pub(super) fn register(
        &self,
        prefix: &str,
        (shard, slot): (usize, u32),
        create: impl FnOnce() -> Option<Arc<Topic>>,
    ) -> Option<(Arc<Topic>, u64)> {
        let mut table = self.table.write();
        let found = table.get(prefix).cloned();
        let pattern = match found {
            Some(pattern) => pattern,
            None => {
                let pattern = create()?;
                table.insert(Arc::clone(&pattern), prefix.len());
                self.count.store(table.patterns.len(), Ordering::Release);
                pattern
            }
        };
        let head = pattern.join(shard, slot);
        self.version.fetch_add(1, Ordering::Release);
        Some((pattern, head))
    }

    /// Takes the interest of `shard` back. The pattern goes with its last interest; answers whether it went.
    pub(super) fn release(&self, pattern: &Topic, shard: usize) -> bool {
        let mut table = self.table.write();
        let is_over = pattern.leave(shard);
        if is_over && let Some(prefix) = pattern_prefix(pattern.name()) {
            table.remove(prefix);
            self.count.store(table.patterns.len(), Ordering::Release);
        }
        is_over
    }
}

impl Table {
    fn get(&self, prefix: &str) -> Option<&Arc<Topic>> {
        self.patterns.get(self.hasher.hash_one(prefix), prefix)
    }

    fn matching(&self, names: &str) -> Matches<'static> {
        let mut matches = Matches::default();
        for (place, name) in names.split('\n').enumerate() {
            // What matches no more than an earlier name begins with was found there.
            let known = names.split('\n').take(place).map(|earlier| common(earlier, name)).max();
            let lengths = self.lengths.iter().map(|(length, _)| *length);
            for length in lengths.take_while(|length| known.is_none_or(|known| *length > known)) {
                // A prefix is whole characters, so it matches nothing that ends inside of one.
                let Some(prefix) = name.get(..length) else { continue };
                matches.probes += 1;
                matches.found.extend(self.get(prefix).cloned());
            }
        }
        matches
    }

    fn insert(&mut self, pattern: Arc<Topic>, length: usize) {
        let hasher = &self.hasher;
        self.patterns.insert(pattern, |prefix| hasher.hash_one(prefix));
        match self.place(length) {
            Ok(place) => self.lengths[place].1 += 1,
            Err(place) => self.lengths.insert(place, (length, 1)),
        }
    }

    fn remove(&mut self, prefix: &str) {
        let hasher = &self.hasher;
        if self.patterns.remove(prefix, |prefix| hasher.hash_one(prefix))
            && let Ok(place) = self.place(prefix.len())
        {
            self.lengths[place].1 -= 1;
            if self.lengths[place].1 == 0 {
                self.lengths.remove(place);
            }
        }
    }

    /// Where a length stands among the lengths, or would.
    fn place(&self, length: usize) -> Result<usize, usize> {
        self.lengths.binary_search_by_key(&Reverse(length), |(length, _)| Reverse(*length))
    }
}

/// Bytes with which both begin.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;
    use crate::publish::wire::Publish;
    use crate::topic::fixtures::random;
    use crate::topic::table::Topics;
    use crate::topic::topic::NO_SLOT;
    use parking_lot::Mutex;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicBool;

    fn event() -> Draft {
        let mut round = Draft::default();
        round.events.push(&Publish { topics: "", event: "e", key: "", data: "1", timestamp_ms: 1 }, 1);
        round
    }

    fn names(matches: &Matches<'_>) -> Vec<String> {
        matches.patterns().iter().map(|pattern| pattern.name().to_string()).collect()
    }

    /// Publishes one event; answers whether anybody wanted it.
    fn publish(topics: &Topics, names: &str, mut send: impl FnMut(usize, &[(String, u64)])) -> bool {
        let matches = topics.patterns().matching(names);
        topics.append_to_several(names, &matches, event(), 0, |shard, round| {
            let placed = round.topics.iter().map(|placed| (placed.topic.name().to_string(), placed.offset));
            send(shard, &placed.collect::<Vec<_>>());
        })
    }

    #[test]
    fn the_table_agrees_with_a_naive_matcher() {
        let mut random = random();
        let alphabet = ["a", "b", ":", "ß", "☃", "*"];
        let text = |random: &mut fastrand::Rng, most: usize| -> String {
            (0..random.usize(..=most)).map(|_| *random.choice(&alphabet[..]).unwrap()).collect()
        };
        let topics = Topics::new(2, 40, 0);
        let mut present: Vec<(String, Arc<Topic>, Vec<usize>)> = Vec::new();
        let mut matched = 0;
        for _ in 0..20_000 {
            match random.u8(..10) {
                0..2 => {
                    let name = format!("{}*", text(&mut random, 4).replace('*', ""));
                    let shard = random.usize(..2);
                    let known = present.iter_mut().find(|(other, ..)| *other == name);
                    match (topics.register(&name, shard, 7), known) {
                        (Some((pattern, head)), Some((_, known, shards))) => {
                            assert!(Arc::ptr_eq(&pattern, known) && head == pattern.head());
                            shards.push(shard);
                            shards.sort_unstable();
                            shards.dedup();
                        }
                        (Some((pattern, head)), None) => {
                            assert_eq!((head, pattern.is_pattern(), pattern.slot(shard)), (0, true, 7));
                            present.push((name, pattern, vec![shard]));
                        }
                        (None, known) => assert!(known.is_none() && present.len() == 40),
                    }
                }
                2 if !present.is_empty() => {
                    let place = random.usize(..present.len());
                    let (_, pattern, shards) = &mut present[place];
                    let shard = shards.pop().unwrap();
                    topics.release(pattern, shard);
                    assert_eq!(pattern.slot(shard), NO_SLOT);
                    if shards.is_empty() {
                        present.swap_remove(place);
                    }
                }
                _ => {
                    let mut event = text(&mut random, 6);
                    for _ in 0..random.usize(..3) {
                        event = format!("{event}\n{}", text(&mut random, 6));
                    }
                    let matches = topics.patterns().matching(&event);
                    let mut expected: Vec<String> = Vec::new();
                    for name in event.split('\n') {
                        let mut of_it: Vec<&String> = present.iter().map(|(pattern, ..)| pattern).collect();
                        of_it.retain(|pattern| name.starts_with(&pattern[..pattern.len() - 1]));
                        of_it.sort_by_key(|pattern| Reverse(pattern.len()));
                        expected.extend(of_it.into_iter().cloned());
                    }
                    let mut seen = HashSet::new();
                    expected.retain(|pattern| seen.insert(pattern.clone()));
                    assert_eq!(names(&matches), expected, "{event:?} of {present:?}");
                    let bound: usize = event.split('\n').map(|name| name.len() + 1).sum();
                    assert!(matches.probes() <= bound as u64, "{} for {event:?}", matches.probes());
                    matched += expected.len();
                }
            }
            assert_eq!((topics.patterns().count(), topics.count()), (present.len(), present.len()));
        }
        assert!(matched > 1000, "{matched}");
    }

    #[test]
    fn a_publish_costs_a_look_up_for_each_length_whatever_the_number_of_patterns() {
        let topics = Topics::new(1, 1_000_000, 0);
        let probes = |name: &str| topics.patterns().matching(name).probes();
        assert_eq!(probes("run:42"), 0);
        for n in 0..100_000 {
            topics.register(&format!("p{n:05}:*"), 0, n).unwrap();
        }
        assert_eq!((probes("run:42"), probes("run:4242"), topics.patterns().count()), (0, 1, 100_000));
        assert_eq!(names(&topics.patterns().matching("p00042:x")), ["p00042:*"]);
        // The worst case: every length that there is.
        let long = "x".repeat(255);
        for length in 0..255 {
            topics.register(&format!("{}*", &long[..length]), 0, 0).unwrap();
        }
        let matches = topics.patterns().matching(&long);
        assert_eq!((matches.probes(), matches.patterns().len()), (255, 255));
        drop(matches);
        // What an earlier topic of the event has in common is not looked for again.
        let matches = topics.patterns().matching(&[&*long; 16].join("\n"));
        assert_eq!((matches.probes(), matches.patterns().len()), (255, 255));
    }

    #[test]
    fn the_table_gives_back_what_many_patterns_took() {
        let topics = Topics::new(1, 1_000_000, 0);
        let names = (0..10_000).map(|n| format!("p{n}:*"));
        let mut all: Vec<_> = names.map(|name| topics.register(&name, 0, 0).unwrap().0).collect();
        let room = || topics.patterns().table.read().patterns.capacity();
        assert!(room() >= 10_000);
        for pattern in all.drain(100..) {
            topics.release(&pattern, 0);
        }
        assert!(room() <= 1_000, "{}", room());
        assert_eq!(names_of(&topics, "p42:x"), ["p42:*"]);
    }

    fn names_of(topics: &Topics, name: &str) -> Vec<String> {
        names(&topics.patterns().matching(name))
    }

    #[test]
    fn an_event_goes_to_its_topics_and_then_to_the_patterns_that_match_it() {
        let topics = Topics::new(3, 10, 0);
        let mut sent = Vec::new();
        let mut send = |shard, placed: &[(String, u64)]| sent.push((shard, placed.to_vec()));
        topics.register("run:4*", 2, 0).unwrap();
        let (whole, _) = topics.register("run:*", 1, 0).unwrap();
        // A topic may well be called like a pattern; who asks for that name has the pattern.
        assert!(publish(&topics, "run:*", &mut send));
        assert!(topics.find("run:*").is_none(), "there is no such topic");
        topics.register("run:42", 0, 0).unwrap();
        assert!(publish(&topics, "stage\nrun:42", &mut send));
        assert!(!publish(&topics, "stage\nruns", &mut send));
        topics.release(&whole, 1);
        assert!(publish(&topics, "run:5\nrun:4", &mut send));
        assert!(!publish(&topics, "run:5", &mut send));
        let placed = |all: &[(&str, u64)]| -> Vec<(String, u64)> {
            all.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect()
        };
        let of_all = placed(&[("run:42", 1), ("run:4*", 1), ("run:*", 2)]);
        assert_eq!(
            sent,
            [
                (1, placed(&[("run:*", 1)])),
                (0, of_all.clone()),
                (1, of_all.clone()),
                (2, of_all),
                (2, placed(&[("run:4*", 2)])),
            ]
        );
    }

    #[test]
    fn topics_that_only_a_pattern_wants_leave_nothing() {
        let topics = Topics::new(1, 1, 0);
        let (pattern, _) = topics.register("t*", 0, 0).unwrap();
        assert!(topics.register("u*", 0, 1).is_none(), "the bound on topics holds for patterns too");
        for n in 0..100_000 {
            assert!(publish(&topics, &format!("t{n}"), |_, _| ()));
        }
        assert_eq!((topics.count(), pattern.head(), Arc::strong_count(&pattern)), (1, 100_000, 2));
        topics.release(&pattern, 0);
        assert_eq!((topics.count(), topics.patterns().count(), Arc::strong_count(&pattern)), (0, 0, 1));
        assert_eq!(topics.patterns().matching("t1").probes(), 0);
    }

    /// Says that it is over when it goes, also where a test fails: threads that go on are waited for.
    struct Quiet<'a>(&'a AtomicBool);

    impl Drop for Quiet<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn threads_that_publish_and_subscribe_agree_on_what_came_first() {
        const LOOKS: usize = 300;
        let topics = Topics::new(1, 100, 0);
        // What each writer has published, and what reached the link: the writer's number and its event's.
        let published = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let sent = Mutex::new(Vec::new());
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let quiet = Quiet(&is_done);
            for writer in 0..2 {
                let (topics, sent, published, is_done) = (&topics, &sent, &published, &is_done);
                scope.spawn(move || {
                    // For as long as it is looked at, however the machine shares itself out.
                    for n in (0..).take_while(|_| !is_done.load(Ordering::SeqCst)) {
                        let names = if n % 2 == 0 { format!("w{writer}:{n}") } else { format!("x\nw{n}") };
                        publish(topics, &names, |_, _| sent.lock().push((writer, n)));
                        published[writer].store(n + 1, Ordering::SeqCst);
                    }
                });
            }
            let (topics, is_done) = (&topics, &is_done);
            scope.spawn(move || {
                // Others come and go all the while.
                while !is_done.load(Ordering::SeqCst) {
                    let (other, _) = topics.register("wx*", 0, 1).unwrap();
                    topics.release(&other, 0);
                }
            });
            let count = || [0, 1].map(|writer: usize| published[writer].load(Ordering::SeqCst));
            for look in 0..LOOKS {
                let (pattern, head) = topics.register("w*", 0, 0).unwrap();
                assert_eq!(head, 0, "a new life");
                // In this order: what is sent between the two is looked at, and not needed.
                let (from, first) = (sent.lock().len(), count());
                // One writer or the other has to get somewhere meanwhile.
                while count()[look % 2] < first[look % 2] + 5 {
                    std::thread::yield_now();
                }
                let upto = count();
                let got: HashSet<(usize, usize)> = sent.lock()[from..].iter().copied().collect();
                topics.release(&pattern, 0);
                for writer in 0..2 {
                    // Of what was published wholly between the two looks nothing is missing.
                    let mut needed = first[writer] + 1..upto[writer];
                    let missing = needed.find(|n| !got.contains(&(writer, *n)));
                    assert_eq!(missing, None, "of writer {writer}, from {first:?} to {upto:?}");
                }
            }
            drop(quiet);
        });
        assert_eq!((topics.count(), topics.patterns().count()), (0, 0));
        let all = sent.into_inner();
        for writer in 0..2 {
            let of_it = all.iter().filter(|(w, _)| *w == writer).map(|(_, n)| *n);
            assert!(of_it.clone().zip(of_it.skip(1)).all(|(one, next)| one < next), "order, and none twice");
        }
    }
}
