//! `append`: the one place that gives positions.
//!
//! It gives the offsets and sends the round under the topic's lock, so rounds of one topic reach every link in log
//! order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::event::{Draft, Placed, RoundRef};
use crate::topic::patterns::Matches;
use crate::topic::table::Topics;
use crate::topic::topic::{Log, Topic};

impl Topics {
    /// Appends events of one topic to its log and hands the round to `send` once for each interested shard,
    /// all under the topic's lock.
    pub fn append(
        &self,
        topic: &Arc<Topic>,
        mut round: Draft,
        ingress: u64,
        mut send: impl FnMut(usize, RoundRef),
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
            log.head += round.events.len() as u64;
            let interest = log.interest;
            round.topics.push(Placed { topic: Arc::clone(current), offset });
            (round.ingress, round.shared) = (ingress, is_shared(&round, interest));
            let round = round.share();
            self.budget.keep(&mut log.history, &round, offset);
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
        mut round: Draft,
        ingress: u64,
        mut send: impl FnMut(usize, RoundRef),
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
            round.topics.extend(found.iter().zip(offsets).map(placed));
            round.category = Some(names.split('\n').next().unwrap_or_default().into());
            round.several = self.rounds_of_several.fetch_add(1, Ordering::Relaxed) + 1;
            let is_keyed = !matches.patterns().is_empty() && round.events.have_keys();
            round.names = if is_keyed { self.hasher.hash_one(names) } else { 0 };
            round.ingress = ingress;
            // Those of patterns have chunks of their own then, and the same frames; so have those who get them compressed.
            round.shared = is_shared(&round, interest) || is_keyed || self.rules.compress_any();
            let round = round.share();
            for log in &mut logs {
                let offset = log.head;
                self.budget.keep(&mut log.history, &round, offset);
            }
            send_to_each(interest, round, &mut send);
            return true;
        }
    }
}

/// Whether a round's frames are worth sharing.
fn is_shared(round: &Draft, interest: u64) -> bool {
    // What history keeps is written once for all who will ever read it.
    round.is_kept() || interest.count_ones() > 1
}

fn send_to_each(interest: u64, round: RoundRef, send: &mut impl FnMut(usize, RoundRef)) {
    let mut rest = interest;
    while rest != 0 {
        let shard = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if rest == 0 {
            send(shard, round);
            return;
        }
        send(shard, RoundRef::clone(&round));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::fixtures::{events, sweep_all, with_history};
    use crate::topic::topic::NO_SLOT;
    use parking_lot::Mutex;

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
        assert_eq!(&**round.category(), "x");
        assert!(round.shared && round.several != 0);
    }

    #[test]
    fn threads_that_append_register_and_retire_lose_nothing() {
        const EVENTS: u64 = 3_000;
        let topics = with_history(1 << 20, 1 << 30);
        let sent = Mutex::new(Vec::new());
        let is_done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for writer in 0..2 {
                let (topics, sent) = (&topics, &sent);
                writers.push(scope.spawn(move || {
                    let to_link = |_, round: RoundRef| {
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
                    sweep_all(&topics, 11_000_000_000);
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
        sweep_all(&topics, 11_000_000_000);
        assert_eq!((topics.count(), topics.with_history(), topics.history_bytes()), (0, 0, 0));
        let mut sent = sent.into_inner();
        let all = sent.len();
        sent.sort_unstable();
        sent.dedup();
        assert_eq!(sent.len(), all, "an offset was given twice");
    }
}
