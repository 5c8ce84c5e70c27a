//! A shard's topics and who is subscribed to them. Knows nothing of sockets or sessions.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use crate::dialect::envelope::{Form, Values};
use crate::session::chunk::NO_CHUNK;
use crate::session::policy::Policy;
use crate::slack::is_loose;
use crate::topic::table::Topics;
use crate::topic::topic::Topic;

/// A topic with at least one subscriber in this shard.
#[derive(Debug)]
pub struct LocalTopic {
    /// The node's topic.
    pub topic: Arc<Topic>,
    /// One list for each form that has had a subscriber.
    pub lists: SmallVec<[List; 1]>,
    /// Whether one of them is of those who get compressed events: its frames are made of the plain ones.
    pub has_deflated: bool,
    /// The newest offset at which anybody joined: rounds wholly after it go to everybody.
    pub joined: u64,
    /// The offset of the newest event that was dispatched here.
    pub seen: u64,
    members: usize,
}

impl LocalTopic {
    /// How many subscribers it has here.
    pub fn members(&self) -> usize {
        self.members
    }
}

/// The subscribers of a topic in one form.
#[derive(Debug)]
pub struct List {
    /// The envelope's number.
    pub envelope: u16,
    /// What it takes from the path that they connected to.
    pub values: Option<Values>,
    /// Whether they get compressed what their topic compresses.
    pub deflated: bool,
    /// The chunk that the topic's frames in this form are appended to, or [`NO_CHUNK`].
    pub chunk: u32,
    /// Who. Of many topics, mostly one, and then without an allocation.
    pub members: SmallVec<[Member; 1]>,
}

impl List {
    /// The form of its events.
    pub fn form(&self) -> Form<'_> {
        Form { envelope: self.envelope, values: self.values.as_ref(), deflated: self.deflated }
    }
}

/// One subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection's number.
    pub connection: u32,
    /// The number of its subscription.
    pub subscription: u32,
    /// What happens when its queue is full.
    pub policy: Policy,
    /// Whether only some event names are wanted.
    pub filtered: bool,
}

/// Where a subscriber is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The shard's number of the topic.
    pub topic: u32,
    /// The number of the list.
    pub list: u32,
    /// The offset of the newest event before the subscription.
    pub head: u64,
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

    /// A list: the numbers of its topic and of it. To be asked only of those there are.
    pub fn list(&self, (topic, list): (u32, u32)) -> &List {
        &self.topics[topic as usize].lists[list as usize]
    }

    /// A list: the numbers of its topic and of it. To be asked only of those there are.
    pub fn list_mut(&mut self, (topic, list): (u32, u32)) -> &mut List {
        &mut self.topics[topic as usize].lists[list as usize]
    }

    /// Whether the subscribers of two lists get an event in the same bytes.
    pub fn are_written_alike(&self, one: (u32, u32), other: (u32, u32)) -> bool {
        self.list(one).form() == self.list(other).form()
    }

    /// The number of the topic with this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// How many subscribers each topic has here.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.topics.iter().map(|(_, local)| (&**local.topic.name(), local.members))
    }

    /// Counts one more subscriber of a topic. What is appended after [`Joined::head`] reaches this shard's link,
    /// and the subscriber once it stands in the list.
    ///
    /// # Errors
    /// `None` where the node holds `max_topics` topics already.
    pub fn join(&mut self, topics: &Topics, name: &str, form: Form<'_>) -> Option<Joined> {
        let (number, head) = match self.names.get(name) {
            Some(number) => (*number, self.topics[*number as usize].topic.head()),
            None => {
                let entry = self.topics.vacant_entry();
                let number = entry.key() as u32;
                let (topic, head) = topics.register(name, self.shard, number)?;
                self.names.insert(Arc::clone(topic.name()), number);
                entry.insert(LocalTopic {
                    topic,
                    lists: SmallVec::new(),
                    has_deflated: false,
                    joined: 0,
                    seen: 0,
                    members: 0,
                });
                (number, head)
            }
        };
        let local = &mut self.topics[number as usize];
        local.members += 1;
        self.members += 1;
        Some(Joined { topic: number, list: self.list_of(number, form), head })
    }

    /// The number of a topic's list for a form; where there is none, it is made.
    pub fn list_of(&mut self, topic: u32, form: Form<'_>) -> u32 {
        let local = &mut self.topics[topic as usize];
        let list = local.lists.iter().position(|list| list.form() == form).unwrap_or_else(|| {
            let Form { envelope, values, deflated } = form;
            let values = values.cloned();
            local.has_deflated |= deflated;
            local.lists.push(List { envelope, values, deflated, chunk: NO_CHUNK, members: SmallVec::new() });
            local.lists.len() - 1
        });
        list as u32
    }

    /// Puts a subscriber into its list: it gets what comes after the offset `joined`. Answers its place.
    pub fn enlist(&mut self, (topic, list): (u32, u32), joined: u64, member: Member) -> u32 {
        let local = &mut self.topics[topic as usize];
        local.joined = local.joined.max(joined);
        let members = &mut local.lists[list as usize].members;
        members.push(member);
        members.len() as u32 - 1
    }

    /// Takes the subscriber at a place out of its list; the last of the list takes the place, and is answered.
    pub fn delist(&mut self, list: (u32, u32), place: u32) -> Option<Member> {
        let members = &mut self.list_mut(list).members;
        members.swap_remove(place as usize);
        if is_loose(members.capacity(), members.len()) {
            members.grow(2 * members.len()); // Which, to a smaller size, shrinks.
        }
        members.get(place as usize).copied()
    }

    /// The member at a place.
    pub fn member_mut(&mut self, topic: u32, list: u32, place: u32) -> Option<&mut Member> {
        let lists = &mut self.topics.get_mut(topic as usize)?.lists;
        lists.get_mut(list as usize)?.members.get_mut(place as usize)
    }

    /// Counts one subscriber less, who stands in no list any more. The topic goes with its last subscriber;
    /// answered are the growing chunks of its lists.
    pub fn leave(&mut self, topics: &Topics, topic: u32) -> SmallVec<[u32; 1]> {
        let local = &mut self.topics[topic as usize];
        local.members -= 1;
        self.members -= 1;
        if local.members > 0 {
            return SmallVec::new();
        }
        let local = self.topics.remove(topic as usize);
        self.names.remove(local.topic.name());
        topics.release(&local.topic, self.shard);
        local.lists.iter().map(|list| list.chunk).filter(|chunk| *chunk != NO_CHUNK).collect()
    }

    /// Gives back room for topics that are gone.
    pub fn tidy(&mut self) {
        if is_loose(self.names.capacity(), self.names.len()) {
            self.names.shrink_to(2 * self.names.len());
        }
        if is_loose(self.topics.capacity(), self.topics.len()) {
            self.topics.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(connection: u32) -> Member {
        Member { connection, subscription: 0, policy: Policy::Disconnect, filtered: false }
    }

    #[test]
    fn places_are_taken_by_the_last_and_topics_go_with_the_last() {
        let topics = Topics::new(1, 10, 1 << 20);
        let mut subscribers = Subscribers::new(0);
        for connection in 0..3 {
            let joined = subscribers.join(&topics, "a", Form::plain(0)).unwrap();
            assert_eq!(joined, Joined { topic: 0, list: 0, head: 0 });
            assert_eq!(subscribers.enlist((0, 0), 0, member(connection)), connection);
        }
        let values: Values = Arc::new(["v".into()].into());
        let equal: Values = Arc::new(["v".into()].into());
        for (values, list) in [(None, 1), (Some(&values), 2), (Some(&equal), 2)] {
            let form = Form { values, ..Form::plain(1) };
            assert_eq!(subscribers.join(&topics, "a", form).unwrap().list, list);
            subscribers.enlist((0, list), 7, member(9));
        }
        assert_eq!((subscribers.members(), subscribers.topics(), topics.count()), (6, 1, 1));
        assert_eq!(subscribers.get(0).joined, 7);
        assert_eq!(subscribers.delist((0, 0), 0), Some(member(2)));
        assert_eq!(subscribers.delist((0, 0), 1), None);
        subscribers.list_mut((0, 1)).chunk = 5;
        for _ in 0..5 {
            assert!(subscribers.leave(&topics, 0).is_empty());
        }
        assert_eq!(subscribers.leave(&topics, 0)[..], [5]);
        assert_eq!((subscribers.members(), subscribers.topics(), topics.count()), (0, 0, 0));
        assert_eq!(subscribers.find("a"), None);
    }

    #[test]
    fn who_gets_compressed_events_has_a_list_of_his_own() {
        let topics = Topics::new(1, 10, 1 << 20);
        let mut subscribers = Subscribers::new(0);
        let deflated = Form { deflated: true, ..Form::plain(0) };
        assert_eq!(subscribers.join(&topics, "a", Form::plain(0)).unwrap().list, 0);
        assert!(!subscribers.get(0).has_deflated);
        assert_eq!(subscribers.join(&topics, "a", deflated).unwrap().list, 1);
        assert_eq!((subscribers.list_of(0, deflated), subscribers.list_of(0, Form::plain(0))), (1, 0));
        assert!(subscribers.get(0).has_deflated && !subscribers.are_written_alike((0, 0), (0, 1)));
    }
}
