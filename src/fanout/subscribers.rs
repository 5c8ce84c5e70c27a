//! A shard's topics and who is subscribed to them. Knows nothing of sockets or sessions.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::session::chunk::NO_CHUNK;
use crate::topic::log::{Topic, Topics};

/// A topic with at least one subscriber in this shard.
#[derive(Debug)]
pub struct LocalTopic {
    /// The node's topic.
    pub topic: Arc<Topic>,
    /// One list for each envelope that has had a subscriber.
    pub lists: SmallVec<[List; 1]>,
    /// The newest offset at which anybody joined: rounds wholly after it go to everybody.
    pub joined: u64,
    members: usize,
}

/// The subscribers of a topic in one envelope.
#[derive(Debug)]
pub struct List {
    /// The envelope's number.
    pub envelope: u8,
    /// The chunk that the topic's frames in this envelope are appended to, or [`NO_CHUNK`].
    pub chunk: u32,
    /// Who.
    pub members: Vec<Member>,
}

/// One subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection's number.
    pub connection: u32,
    /// The number of its subscription.
    pub subscription: u32,
    /// Whether the policy allows leaving events out.
    pub droppable: bool,
    /// Whether only some event names are wanted.
    pub filtered: bool,
}

/// Where a subscriber is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The shard's number of the topic.
    pub topic: u32,
    /// The place in the list.
    pub place: u32,
    /// The offset of the newest event before the subscription.
    pub head: u64,
}

/// What leaving changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The member that has the place now.
    pub moved: Option<Member>,
    /// The growing chunks of lists that are gone.
    pub orphans: SmallVec<[u32; 1]>,
}

/// The shard's topics.
#[derive(Debug)]
pub struct Subscribers {
    shard: usize,
    topics: Slab<LocalTopic>,
    names: HashMap<Arc<str>, u32, ahash::RandomState>,
    members: usize,
}

impl Subscribers {
    /// No topics.
    pub fn new(shard: usize) -> Self {
        Self { shard, topics: Slab::new(), names: HashMap::default(), members: 0 }
    }

    /// How many topics have a subscriber here.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// How many subscriptions there are.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The topic with this number.
    pub fn get(&self, topic: u32) -> &LocalTopic {
        &self.topics[topic as usize]
    }

    /// The topic with this number.
    pub fn get_mut(&mut self, topic: u32) -> Option<&mut LocalTopic> {
        self.topics.get_mut(topic as usize)
    }

    /// The number of the topic with this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// How many subscribers each topic has here.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.topics.iter().map(|(_, local)| (&**local.topic.name(), local.members))
    }

    /// Adds a subscriber. What is appended after [`Joined::head`] reaches this shard's link.
    ///
    /// # Errors
    /// `None` where the node holds `max_topics` topics already.
    pub fn join(&mut self, topics: &Topics, name: &str, envelope: u8, member: Member) -> Option<Joined> {
        let (number, head) = match self.names.get(name) {
            Some(number) => (*number, self.topics[*number as usize].topic.head()),
            None => {
                let entry = self.topics.vacant_entry();
                let number = entry.key() as u32;
                let (topic, head) = topics.register(name, self.shard, number)?;
                self.names.insert(Arc::clone(topic.name()), number);
                entry.insert(LocalTopic { topic, lists: SmallVec::new(), joined: 0, members: 0 });
                (number, head)
            }
        };
        let local = &mut self.topics[number as usize];
        local.joined = local.joined.max(head);
        local.members += 1;
        self.members += 1;
        let list = match local.lists.iter().position(|list| list.envelope == envelope) {
            Some(place) => &mut local.lists[place],
            None => {
                local.lists.push(List { envelope, chunk: NO_CHUNK, members: Vec::new() });
                let last = local.lists.len() - 1;
                &mut local.lists[last]
            }
        };
        let place = list.members.len() as u32;
        list.members.push(member);
        Some(Joined { topic: number, place, head })
    }

    /// The member at a place.
    pub fn member_mut(&mut self, topic: u32, envelope: u8, place: u32) -> Option<&mut Member> {
        let lists = &mut self.topics.get_mut(topic as usize)?.lists;
        lists.iter_mut().find(|list| list.envelope == envelope)?.members.get_mut(place as usize)
    }

    /// Takes the subscriber at a place out; the last of the list takes the place. The topic goes with its
    /// last subscriber.
    pub fn leave(&mut self, topics: &Topics, topic: u32, envelope: u8, place: u32) -> Left {
        let local = &mut self.topics[topic as usize];
        let mut left = Left::default();
        if let Some(list) = local.lists.iter_mut().find(|list| list.envelope == envelope) {
            list.members.swap_remove(place as usize);
            left.moved = list.members.get(place as usize).copied();
        }
        local.members -= 1;
        self.members -= 1;
        if local.members == 0 {
            let local = self.topics.remove(topic as usize);
            self.names.remove(local.topic.name());
            topics.release(&local.topic, self.shard);
            left.orphans =
                local.lists.iter().map(|list| list.chunk).filter(|chunk| *chunk != NO_CHUNK).collect();
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(connection: u32) -> Member {
        Member { connection, subscription: 0, droppable: false, filtered: false }
    }

    #[test]
    fn places_are_taken_by_the_last_and_topics_go_with_the_last() {
        let topics = Topics::new(1, 2, 10);
        let mut subscribers = Subscribers::new(0);
        for connection in 0..3 {
            let joined = subscribers.join(&topics, "a", 0, member(connection)).unwrap();
            assert_eq!(joined, Joined { topic: 0, place: connection, head: 0 });
        }
        subscribers.join(&topics, "a", 1, member(9)).unwrap();
        assert_eq!((subscribers.members(), subscribers.topics(), topics.count()), (4, 1, 1));
        assert_eq!(subscribers.leave(&topics, 0, 0, 0).moved, Some(member(2)));
        assert_eq!(subscribers.leave(&topics, 0, 0, 1).moved, None);
        subscribers.get_mut(0).unwrap().lists[1].chunk = 5;
        assert!(subscribers.leave(&topics, 0, 0, 0).orphans.is_empty());
        assert_eq!(subscribers.leave(&topics, 0, 1, 0).orphans[..], [5]);
        assert_eq!((subscribers.members(), subscribers.topics(), topics.count()), (0, 0, 0));
        assert_eq!(subscribers.find("a"), None);
    }
}
