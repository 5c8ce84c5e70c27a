//! From decoded events to rounds: the events of one read are gathered by topic, then appended and sent. An event that
//! matches prefix patterns goes like one of several topics.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Now;
use crate::event::{Draft, Event, RoundRef};
use crate::metrics::ShardMetrics;
use crate::publish::wire::Publish;
use crate::receipt::{Expected, Receipt, Receipts};
use crate::spare::Spare;
use crate::topic::patterns::{Held, Matches};
use crate::topic::table::Topics;
use crate::topic::topic::Topic;

/// Gathers the events of one read. Events of one topic keep their order; an event of several topics, or that
/// matches a pattern, is a fence.
#[derive(Debug, Default)]
pub struct Ingress {
    pending: Vec<Pending>,
    /// The address of a topic to its place in `pending`. The `Arc` there keeps the address taken.
    places: HashMap<usize, usize, ahash::RandomState>,
    /// The last topic of this read that no pattern matched, and its place, if it has a subscriber: most reads are of
    /// one topic.
    last: (String, Option<usize>),
    /// For each event that is gathered, in the order they came, its place in `pending`.
    arrivals: Vec<u32>,
    /// Who had come to the patterns before any of those was looked up.
    version: u64,
    shown: Allowance,
    /// Memory of rounds that are through.
    spare: Spare,
}

#[derive(Debug)]
struct Pending {
    topic: Arc<Topic>,
    round: Draft,
    /// Of those of the events that there are any for.
    receipts: Vec<Expected>,
}

/// Where rounds go: the node's topics, the tail, and each interested shard's link.
pub trait Destination {
    /// The node's topics.
    fn topics(&self) -> &Topics;
    /// The tail of events that the page shows.
    fn tail(&self) -> &Tail;
    /// Sends a round to a shard's link, which then counts in its receipts.
    fn send(&self, shard: usize, round: RoundRef, receipts: &Receipts);
}

impl Ingress {
    /// Takes one accepted event, and the receipt that was asked for; answers whether it goes anywhere. [`Ingress::commit`]
    /// must follow before anything else is read; only then may the receipt be let go.
    pub fn add(
        &mut self,
        publish: &Publish<'_>,
        receipt: Option<&Arc<Receipt>>,
        now: Now,
        to: &impl Destination,
        metrics: &ShardMetrics,
    ) -> bool {
        metrics.events_in.one();
        metrics.event_bytes_in.add((publish.event.len() + publish.key.len() + publish.data.len()) as u64);
        if to.tail().is_watched(now) && self.shown.take(now) {
            to.tail().show(publish, now);
        }
        // What no pattern matched is not asked for again in the same read.
        let is_known = self.last.0 == publish.topics;
        let (mut matches, mut version) = (Matches::default(), self.version);
        let patterns = to.topics().patterns();
        if !is_known {
            version = patterns.version();
            matches = patterns.matching(publish.topics);
            if self.pending.is_empty() {
                self.version = version;
            }
        }
        if is_known || (matches.patterns().is_empty() && !publish.topics.contains('\n')) {
            count_matches(&matches, metrics);
            let Some(place) = self.place(publish.topics, to) else {
                metrics.events_unsubscribed.one();
                return false;
            };
            let pending = &mut self.pending[place];
            let events = &mut pending.round.events;
            pending.receipts.extend(expect(receipt, events.len()));
            events.push(publish, now.wall_ms);
            self.arrivals.push(place as u32);
            return true;
        }
        matches.let_go();
        self.commit(now, to, metrics);
        let held = patterns.hold();
        if !held.is_as_in(version) {
            matches = held.matching(publish.topics);
        }
        append_one(publish, receipt, &matches, now, to, metrics)
    }

    /// Where the events of a topic are gathered; `None` where it has neither a subscriber nor a history.
    fn place(&mut self, name: &str, to: &impl Destination) -> Option<usize> {
        if self.last.0 == name {
            return self.last.1;
        }
        let place = to.topics().find_or_keep(name).map(|topic| {
            *self.places.entry(Arc::as_ptr(&topic).addr()).or_insert_with(|| {
                // A history keeps a round, and with it all of the memory that was another's.
                let keeps = topic.epoch().is_some();
                let round = if keeps { Draft::default() } else { self.spare.take() };
                self.pending.push(Pending { topic, round, receipts: Vec::new() });
                self.pending.len() - 1
            })
        });
        self.last.0.clear();
        self.last.0.push_str(name);
        self.last.1 = place;
        place
    }

    /// A round is through: its memory is for the next one, if nobody else has it.
    pub fn reuse(&mut self, round: RoundRef) {
        self.spare.keep(round);
    }

    /// Whether there is memory for further rounds.
    pub fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Gives back memory that was not needed. To be called a few times a second.
    pub fn tidy(&mut self) {
        self.spare.tidy();
    }

    /// Appends what was gathered to the logs and sends it to the links. Nobody comes to the patterns meanwhile; what
    /// somebody has come for since it was looked up goes to that pattern too, for what others append has gone there.
    pub fn commit(&mut self, now: Now, to: &impl Destination, metrics: &ShardMetrics) {
        if !self.pending.is_empty() {
            let held = to.topics().patterns().hold();
            if !held.is_as_in(self.version) {
                self.append_matched(&held, now, to, metrics);
            }
            for Pending { topic, round, receipts } in self.pending.drain(..) {
                let receipts = pack(receipts);
                to.topics().append(&topic, round, now.mono, |shard, round| to.send(shard, round, &receipts));
            }
        }
        self.places.clear();
        self.arrivals.clear();
        self.last.0.clear();
        self.last.1 = None;
    }

    /// Takes out what patterns match now, and appends it one event after the other, as they came.
    fn append_matched(&mut self, held: &Held<'_>, now: Now, to: &impl Destination, metrics: &ShardMetrics) {
        let matches = self.pending.iter().map(|pending| held.matching(pending.topic.name()));
        let matches: Vec<Matches<'_>> = matches.collect();
        let mut next = vec![0; matches.len()];
        for place in self.arrivals.drain(..).map(|place| place as usize) {
            let Pending { topic, round, receipts } = &self.pending[place];
            let number = next[place];
            next[place] += 1;
            if matches[place].patterns().is_empty() {
                continue;
            }
            for Event { name, key, data, timestamp_ms } in round.events.range(number..number + 1) {
                let publish = Publish { topics: topic.name(), event: name, key, data, timestamp_ms };
                let found = receipts.binary_search_by_key(&(number as u32), |expected| expected.place);
                let receipt = found.ok().map(|found| &receipts[found].receipt);
                append_one(&publish, receipt, &matches[place], now, to, metrics);
            }
        }
        let mut is_matched = matches.iter().map(|matches| !matches.patterns().is_empty());
        self.pending.retain(|_| !is_matched.next().unwrap_or_default());
    }
}

/// Appends an event of several topics, or that matches a pattern; answers whether it goes anywhere.
fn append_one(
    publish: &Publish<'_>,
    receipt: Option<&Arc<Receipt>>,
    matches: &Matches<'_>,
    now: Now,
    to: &impl Destination,
    metrics: &ShardMetrics,
) -> bool {
    count_matches(matches, metrics);
    let mut round = Draft::default();
    round.events.push(publish, now.wall_ms);
    let receipts = pack(expect(receipt, 0).into_iter().collect());
    let send = |shard, round| to.send(shard, round, &receipts);
    let is_wanted = to.topics().append_to_several(publish.topics, matches, round, now.mono, send);
    if !is_wanted {
        metrics.events_unsubscribed.one();
    }
    is_wanted
}

fn count_matches(matches: &Matches<'_>, metrics: &ShardMetrics) {
    if matches.probes() > 0 {
        metrics.pattern_probes.add(matches.probes());
        metrics.events_pattern_matched.add(u64::from(!matches.patterns().is_empty()));
    }
}

fn expect(receipt: Option<&Arc<Receipt>>, place: usize) -> Option<Expected> {
    receipt.map(|receipt| Expected { place: place as u32, receipt: Arc::clone(receipt) })
}

fn pack(receipts: Vec<Expected>) -> Receipts {
    (!receipts.is_empty()).then(|| Arc::new(receipts))
}

/// The latest events, for the page: kept only while somebody looks, and only some of them when there are many.
#[derive(Debug, Default)]
pub struct Tail {
    watched_until: AtomicU64,
    events: Mutex<VecDeque<Shown>>,
}

/// One event of the tail.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Unix time in milliseconds.
    pub timestamp_ms: u64,
    /// Joined by `\n`.
    pub topics: String,
    /// The event's name.
    pub event: String,
    /// The beginning of the data.
    pub data: String,
    /// Whether that is not all of it.
    pub truncated: bool,
}

/// Events kept in the tail.
const TAIL_EVENTS: usize = 100;
/// Bytes shown of an event's data.
const SHOWN_BYTES: usize = 300;
/// How long the tail is kept after somebody looked, in nanoseconds.
const WATCHED_FOR: u64 = 5_000_000_000;

impl Tail {
    fn is_watched(&self, now: Now) -> bool {
        now.mono < self.watched_until.load(Ordering::Relaxed)
    }

    fn show(&self, publish: &Publish<'_>, now: Now) {
        let mut end = publish.data.len().min(SHOWN_BYTES);
        while !publish.data.is_char_boundary(end) {
            end -= 1;
        }
        let shown = Shown {
            timestamp_ms: if publish.timestamp_ms == 0 { now.wall_ms } else { publish.timestamp_ms },
            topics: publish.topics.to_owned(),
            event: publish.event.to_owned(),
            data: publish.data[..end].to_owned(),
            truncated: end < publish.data.len(),
        };
        let mut events = self.events.lock();
        if events.len() == TAIL_EVENTS {
            events.pop_front();
        }
        events.push_back(shown);
    }

    /// The newest `count` events, newest last; from now on the tail is kept for a few seconds.
    pub fn look(&self, count: usize, now: Now) -> Vec<Shown> {
        self.watched_until.store(now.mono + WATCHED_FOR, Ordering::Relaxed);
        let events = self.events.lock();
        events.iter().skip(events.len().saturating_sub(count)).cloned().collect()
    }
}

/// How many events one shard may show: a few in each stretch of time, so that a flood costs nothing.
#[derive(Debug, Default)]
struct Allowance {
    /// Counted from 1, so that the default is none.
    stretch: u64,
    left: u32,
}

impl Allowance {
    fn take(&mut self, now: Now) -> bool {
        const STRETCH: u64 = 250_000_000;
        const EVENTS: u32 = 10;
        let stretch = now.mono / STRETCH + 1;
        if stretch != self.stretch {
            self.stretch = stretch;
            self.left = EVENTS;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::HistoryLimits;
    use crate::topic::rules::{Rule, Rules};

    struct To {
        topics: Topics,
        tail: Tail,
        sent: Mutex<Vec<(String, Vec<String>)>>,
    }

    impl Destination for To {
        fn topics(&self) -> &Topics {
            &self.topics
        }
        fn tail(&self) -> &Tail {
            &self.tail
        }
        fn send(&self, _: usize, round: RoundRef, _: &Receipts) {
            let names = round.events.iter().map(|event| event.name.to_owned()).collect();
            self.sent.lock().push((round.category().to_string(), names));
        }
    }

    const NOW: Now = Now { mono: 1, wall_ms: 1 };

    fn add(ingress: &mut Ingress, to: &To, metrics: &ShardMetrics, topics: &str, event: &str) {
        ingress.add(&Publish { topics, event, key: "", data: "1", timestamp_ms: 0 }, None, NOW, to, metrics);
    }

    #[test]
    fn a_read_becomes_one_round_per_topic_and_several_topics_are_a_fence() {
        let to = To { topics: Topics::new(1, 9, 1 << 20), tail: Tail::default(), sent: Mutex::default() };
        to.topics.register("a", 0, 0).unwrap();
        to.topics.register("b", 0, 1).unwrap();
        let (mut ingress, metrics) = (Ingress::default(), ShardMetrics::default());
        for (topics, event) in [
            ("a", "1"),
            ("b", "2"),
            ("a", "3"),
            ("c", "4"),
            ("c\na", "5"),
            ("b", "6"),
            ("x\ny", "7"),
            ("b", "8"),
        ] {
            add(&mut ingress, &to, &metrics, topics, event);
        }
        ingress.commit(NOW, &to, &metrics);
        let sent: Vec<_> =
            to.sent.lock().iter().map(|(topic, names)| format!("{topic}:{}", names.join(","))).collect();
        assert_eq!(sent, ["a:1,3", "b:2", "c:5", "b:6", "b:8"]);
        assert_eq!((metrics.events_in.get(), metrics.events_unsubscribed.get()), (8, 2));
    }

    #[test]
    fn a_history_does_not_keep_the_memory_of_rounds_before() {
        let history = HistoryLimits { events: 10, bytes: 1 << 20, age: Duration::from_secs(60) };
        let rule =
            Rule { prefix: "h:".into(), history: Some(history), policies: Vec::new(), compress_above: None };
        let topics = Topics::new(1, 9, 1 << 20).with_rules(Rules::new(vec![rule]));
        let to = To { topics, tail: Tail::default(), sent: Mutex::default() };
        to.topics.register("a", 0, 0).unwrap();
        let (mut ingress, metrics, mut large) =
            (Ingress::default(), ShardMetrics::default(), Draft::default());
        let data = format!("{:?}", "x".repeat(100_000));
        large.events.push(&Publish { topics: "a", event: "e", key: "", data: &data, timestamp_ms: 0 }, 0);
        ingress.reuse(large.share());
        add(&mut ingress, &to, &metrics, "h:1", "1");
        ingress.commit(NOW, &to, &metrics);
        let kept = to.topics.read(&to.topics.find("h:1").unwrap(), 0, usize::MAX, 0).pieces;
        assert!(kept[0].round.events.memory() < 1000);
        assert!(ingress.has_spare());
        add(&mut ingress, &to, &metrics, "a", "2");
        assert!(!ingress.has_spare(), "who keeps nothing takes it");
    }

    #[test]
    fn what_a_pattern_matches_is_a_round_of_its_own_and_the_rest_is_gathered() {
        let to = To { topics: Topics::new(1, 9, 1 << 20), tail: Tail::default(), sent: Mutex::default() };
        to.topics.register("a", 0, 0).unwrap();
        to.topics.register("run:1", 0, 1).unwrap();
        let (pattern, _) = to.topics.register("run:*", 0, 2).unwrap();
        let (mut ingress, metrics) = (Ingress::default(), ShardMetrics::default());
        for (topics, event) in [
            ("a", "1"),
            ("a", "2"),
            ("run:1", "3"),
            ("run:2", "4"),
            ("a", "5"),
            ("a\nrun:3", "6"),
            ("a", "7"),
            ("longer:1", "8"),
            ("longer:1", "9"),
        ] {
            add(&mut ingress, &to, &metrics, topics, event);
        }
        ingress.commit(NOW, &to, &metrics);
        let sent: Vec<_> =
            to.sent.lock().iter().map(|(topic, names)| format!("{topic}:{}", names.join(","))).collect();
        assert_eq!(sent, ["a:1,2", "run:1:3", "run:2:4", "a:5", "a:6", "a:7"]);
        assert_eq!((metrics.events_pattern_matched.get(), metrics.events_unsubscribed.get()), (3, 2));
        assert_eq!(
            metrics.pattern_probes.get(),
            4,
            "none for names that are too short, one for a run of one"
        );
        assert_eq!((pattern.head(), to.topics.count()), (3, 3));
    }

    #[test]
    fn what_is_read_before_a_pattern_comes_and_appended_after_it_goes_to_it_too() {
        let to = To { topics: Topics::new(1, 9, 1 << 20), tail: Tail::default(), sent: Mutex::default() };
        for (slot, topic) in (0..).zip(["run:1", "run:2", "a"]) {
            to.topics.register(topic, 0, slot).unwrap();
        }
        let (mut one, mut other, metrics) = (Ingress::default(), Ingress::default(), ShardMetrics::default());
        for (topics, event) in [("run:1", "1"), ("run:2", "2"), ("a", "3"), ("a", "4"), ("run:1", "5")] {
            add(&mut one, &to, &metrics, topics, event);
        }
        let (pattern, head) = to.topics.register("run:*", 0, 3).unwrap();
        // What another shard appends now goes to the pattern, and stands before all that in the log of its topic.
        add(&mut other, &to, &metrics, "run:1", "6");
        add(&mut one, &to, &metrics, "run:1", "7");
        one.commit(NOW, &to, &metrics);
        // Nobody has come since.
        add(&mut one, &to, &metrics, "run:2\na", "8");
        let sent = || -> Vec<_> {
            to.sent.lock().drain(..).map(|(topic, names)| format!("{topic}:{}", names.join(","))).collect()
        };
        assert_eq!(sent(), ["run:1:6", "run:1:1", "run:2:2", "run:1:5", "run:1:7", "a:3,4", "run:2:8"]);
        assert_eq!((head, pattern.head(), to.topics.find("run:1").unwrap().head()), (0, 6, 4));
        assert_eq!((metrics.events_in.get(), metrics.events_pattern_matched.get()), (8, 6));
        // The same with what is a fence, and where the first pattern of all comes between look-up and append.
        to.topics.release(&pattern, 0);
        add(&mut one, &to, &metrics, "a", "9");
        let (pattern, _) = to.topics.register("run:*", 0, 3).unwrap();
        add(&mut one, &to, &metrics, "run:1\na", "10");
        assert_eq!((sent(), pattern.head()), (vec!["a:9".to_owned(), "run:1:10".to_owned()], 1));
    }

    #[test]
    fn the_tail_is_kept_only_while_watched_and_only_in_part() {
        let to = To { topics: Topics::new(1, 9, 1 << 20), tail: Tail::default(), sent: Mutex::default() };
        let (mut ingress, metrics) = (Ingress::default(), ShardMetrics::default());
        add(&mut ingress, &to, &metrics, "a", "unseen");
        assert!(to.tail.look(5, NOW).is_empty());
        for n in 0..20 {
            add(&mut ingress, &to, &metrics, "a", &format!("e{n}"));
        }
        let shown: Vec<_> = to.tail.look(5, NOW).into_iter().map(|shown| shown.event).collect();
        assert_eq!(shown, ["e5", "e6", "e7", "e8", "e9"]);
    }
}
