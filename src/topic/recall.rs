//! What is kept of a topic's past: how a client goes on from where it was, and what it reads then.

use crate::event::RoundRef;
use crate::topic::history::Piece;
use crate::topic::table::Topics;
use crate::topic::topic::{Position, Topic};

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

impl Topics {
    /// Reads the events of a topic after an offset, until they come to `bytes`.
    pub fn read(&self, topic: &Topic, after: u64, bytes: usize, now: u64) -> Reading {
        let mut log = topic.log.lock();
        let head = log.head;
        let Some(history) = &mut log.history else {
            return Reading { head, oldest: head + 1, pieces: Vec::new() };
        };
        self.budget.trim(history, now);
        let oldest = history.oldest().unwrap_or(head + 1);
        Reading { head, oldest, pieces: history.read(after, bytes, now) }
    }

    /// The offset of the oldest event that a topic's history keeps.
    pub fn oldest(&self, topic: &Topic) -> Option<u64> {
        topic.log.lock().history.as_ref()?.oldest()
    }

    /// Everything that the history of a topic keeps.
    pub fn kept(&self, topic: &Topic, now: u64) -> Vec<Piece> {
        let mut log = topic.log.lock();
        let Some(history) = &mut log.history else { return Vec::new() };
        self.budget.trim(history, now);
        history.all(now)
    }

    /// The rounds of several topics that a topic's history keeps from after an offset on, each with its offset
    /// there.
    pub fn of_several(&self, topic: &Topic, after: u64) -> Vec<(RoundRef, u64)> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::fixtures::{events, kept, with_history};
    use crate::topic::patterns::Matches;

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
}
