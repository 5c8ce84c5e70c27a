//! Topics found by what they go by: their name, or of a pattern its prefix.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::slack::is_loose;
use crate::topic::topic::Topic;

/// Topics, none of which goes by the same as another. Whoever asks says the hash, which he may need for something else too.
#[derive(Debug, Default)]
pub(super) struct Index(HashTable<Arc<Topic>>);

impl Index {
    /// The topic that goes by this.
    pub(super) fn get(&self, hash: u64, key: &str) -> Option<&Arc<Topic>> {
        self.0.find(hash, |topic| topic.key() == key)
    }

    /// Puts in a topic that was not there; `hash` is that of any topic's key.
    pub(super) fn insert(&mut self, topic: Arc<Topic>, hash: impl Fn(&str) -> u64) {
        self.0.insert_unique(hash(topic.key()), topic, |other| hash(other.key()));
    }

    /// Takes a topic out, if it is there, and gives back room that is not needed any more.
    pub(super) fn remove(&mut self, key: &str, hash: impl Fn(&str) -> u64) -> bool {
        let Ok(found) = self.0.find_entry(hash(key), |topic| topic.key() == key) else { return false };
        found.remove();
        if is_loose(self.0.capacity(), self.0.len()) {
            self.0.shrink_to(2 * self.0.len(), |other| hash(other.key()));
        }
        true
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.0.iter()
    }

    /// For how many there is room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
