//! Events and rounds: what travels from the publisher's shard to every shard with a subscriber.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use smallvec::SmallVec;
use triomphe::UniqueArc;

use crate::dialect::envelope::{Form, Frames, Values};
use crate::publish::wire::Publish;
use crate::topic::topic::Topic;

/// Events in one contiguous piece of text, in the order they were published.
#[derive(Debug, Default)]
pub struct Events {
    text: String,
    /// Mostly, of many topics, one.
    records: SmallVec<[Record; 1]>,
    have_keys: bool,
}

/// Where one event's parts end in the text; each begins where the one before it ends.
#[derive(Clone, Copy, Debug)]
struct Record {
    name_end: u32,
    key_end: u32,
    data_end: u32,
    timestamp_ms: u64,
}

/// One event as the envelopes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event's name.
    pub name: &'a str,
    /// What the event is about; empty for none.
    pub key: &'a str,
    /// One JSON text.
    pub data: &'a str,
    /// Unix time in milliseconds.
    pub timestamp_ms: u64,
}

impl Events {
    /// Adds one event. Its `data` was checked when it was decoded; empty becomes `null`.
    pub fn push(&mut self, publish: &Publish<'_>, now_ms: u64) {
        let data = if publish.data.is_empty() { "null" } else { publish.data };
        self.text.reserve(publish.event.len() + publish.key.len() + data.len());
        // A read and a request body are far below 4 GiB (`Limits`), so ends fit 32 bits.
        self.text.push_str(publish.event);
        let name_end = self.text.len() as u32;
        self.text.push_str(publish.key);
        self.have_keys |= !publish.key.is_empty();
        let key_end = self.text.len() as u32;
        self.text.push_str(data);
        let data_end = self.text.len() as u32;
        let timestamp_ms = if publish.timestamp_ms == 0 { now_ms } else { publish.timestamp_ms };
        self.records.push(Record { name_end, key_end, data_end, timestamp_ms });
    }

    /// Takes all of them out, and keeps the memory where that is at most so many bytes.
    fn clear(&mut self, max_kept: usize) {
        self.text.clear();
        self.records.clear();
        if self.memory() > max_kept {
            self.shrink_to_fit();
        }
        self.have_keys = false;
    }

    /// Puts the events of another behind these.
    pub fn append(&mut self, other: &Self) {
        let base = self.text.len() as u32;
        self.text.push_str(&other.text);
        self.have_keys |= other.have_keys;
        self.records.extend(other.records.iter().map(|record| Record {
            name_end: base + record.name_end,
            key_end: base + record.key_end,
            data_end: base + record.data_end,
            ..*record
        }));
    }

    /// Gives back room for further ones.
    pub fn shrink_to_fit(&mut self) {
        self.text.shrink_to_fit();
        self.records.shrink_to_fit();
    }

    /// Bytes of memory for them beside what every round has.
    pub fn memory(&self) -> usize {
        let records = if self.records.spilled() { self.records.capacity() * size_of::<Record>() } else { 0 };
        self.text.capacity() + records
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether any has a key.
    pub fn have_keys(&self) -> bool {
        self.have_keys
    }

    /// Bytes of all names, keys and data.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The events in their order.
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        self.range(0..self.len())
    }

    /// Some of the events in their order, without looking at those before them.
    pub fn range(&self, places: Range<usize>) -> impl Iterator<Item = Event<'_>> {
        let mut start = match places.start {
            0 => 0,
            first => self.records[first - 1].data_end as usize,
        };
        self.records[places].iter().map(move |record| {
            let [name_end, key_end, data_end] =
                [record.name_end, record.key_end, record.data_end].map(|end| end as usize);
            let event = Event {
                name: &self.text[start..name_end],
                key: &self.text[name_end..key_end],
                data: &self.text[key_end..data_end],
                timestamp_ms: record.timestamp_ms,
            };
            start = data_end;
            event
        })
    }
}

/// A round as threads share it. This reference has no weak ones beside it: to find that nobody else has the round takes a
/// load, where the standard library's takes a locked instruction, which waits for every frame just written.
pub type RoundRef = triomphe::Arc<Round>;

/// A round that is nobody else's: events are gathered in it where it will lie.
pub struct Draft(UniqueArc<Round>);

impl Draft {
    /// The round as it is: from now on nobody changes it.
    pub fn share(self) -> RoundRef {
        self.0.shareable()
    }

    /// A round that is through, if nobody else has it, empty, with the memory for its events where that is at most so many
    /// bytes.
    pub fn reuse(round: RoundRef, max_kept: usize) -> Option<Self> {
        let mut round = RoundRef::try_unique(round).ok()?;
        round.clear(max_kept);
        Some(Self(round))
    }
}

impl Default for Draft {
    fn default() -> Self {
        Self(UniqueArc::new(Round::default()))
    }
}

impl Deref for Draft {
    type Target = Round;

    fn deref(&self) -> &Round {
        &self.0
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut Round {
        &mut self.0
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Draft").field(&**self).finish()
    }
}

/// A topic that a round was appended to, and the position of the round's first event in its log.
#[derive(Debug)]
pub struct Placed {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The offset of the round's first event; the next one has the next offset.
    pub offset: u64,
}

/// Events of one topic taken in together, with their frames. An event of several topics is a round of its own.
#[derive(Debug, Default)]
pub struct Round {
    /// The topics with a subscriber that the events go to, in the publisher's order.
    pub topics: SmallVec<[Placed; 1]>,
    /// The first topic of the events, whether or not it has a subscriber; `None`: the first of `topics`, of which there is
    /// one then.
    pub category: Option<Arc<str>>,
    /// The events.
    pub events: Events,
    /// A number that no other round has where the event has several topics, 0 where it has one.
    pub several: u64,
    /// A hash of all topics' names where the event has a key and matches a pattern, else 0: a pattern's subscribers
    /// tell keys apart by it.
    pub names: u64,
    /// When the events were read from the publisher: nanoseconds of `Now::mono`.
    pub ingress: u64,
    /// Whether its frames may be put into more than one chunk, so that they are worth sharing.
    pub shared: bool,
    /// Its frames, written by the first shard that needs them in an envelope.
    pub written: Mutex<SmallVec<[Written; 1]>>,
}

/// A round's frames in one envelope, with these values in it.
#[derive(Debug)]
pub struct Written {
    /// The envelope's number.
    pub envelope: u16,
    /// What it takes from the path.
    pub values: Option<Values>,
    /// Whether they are compressed.
    pub deflated: bool,
    /// The topic that it is written for, where the envelope makes a difference of that.
    pub topic: Option<Arc<Topic>>,
    /// The frames, once somebody has written them.
    pub frames: Arc<OnceLock<Arc<Frames>>>,
}

/// Frames that a round has with it at most once a history keeps it; the latest stay.
const MAX_WRITTEN: usize = 8;

impl Round {
    /// Takes out all there is.
    fn clear(&mut self, max_kept: usize) {
        let Self { topics, category, events, several, names, ingress, shared, written } = self;
        topics.clear();
        *category = None;
        events.clear(max_kept);
        (*several, *names, *ingress, *shared) = (0, 0, 0, false);
        written.get_mut().clear();
    }

    /// What the round counts for on a link: its bytes and something for its bookkeeping.
    pub fn cost(&self) -> usize {
        self.events.bytes() + 64 * (self.events.len() + self.topics.len()) + 192
    }

    /// The first topic of the events, whether or not it has a subscriber.
    pub fn category(&self) -> &Arc<str> {
        self.category.as_ref().unwrap_or_else(|| self.topics[0].topic.name())
    }

    /// Whether a topic's history may keep it.
    pub fn is_kept(&self) -> bool {
        self.topics.iter().any(|placed| placed.topic.epoch().is_some())
    }

    /// The frames in a form: those that are there, or else what `write` makes. Whoever wants the same ones waits
    /// meanwhile, nobody else.
    pub fn frames(
        &self,
        form: Form<'_>,
        topic: Option<&Arc<Topic>>,
        write: impl FnOnce() -> Arc<Frames>,
    ) -> Arc<Frames> {
        let place = self.place(form, topic);
        Arc::clone(place.get_or_init(write))
    }

    fn place(&self, form: Form<'_>, topic: Option<&Arc<Topic>>) -> Arc<OnceLock<Arc<Frames>>> {
        let Form { envelope, values, deflated } = form;
        let mut all = self.written.lock();
        let is_it = |written: &&Written| {
            written.envelope == envelope
                && written.deflated == deflated
                && written.values.as_ref() == values
                && written.topic.as_ref().map(Arc::as_ptr) == topic.map(Arc::as_ptr)
        };
        if let Some(written) = all.iter().find(is_it) {
            return Arc::clone(&written.frames);
        }
        let (values, topic) = (values.cloned(), topic.cloned());
        if all.len() >= MAX_WRITTEN && self.is_kept() {
            // Every stream has envelopes of its own: a history is not to keep an event in all of them.
            all.remove(0);
        }
        let frames = Arc::default();
        all.push(Written { envelope, values, deflated, topic, frames: Arc::clone(&frames) });
        frames
    }

    /// Lets go of its frames: whoever wants them writes them anew. Answers how many bytes they were.
    pub fn forget_frames(&self) -> usize {
        let written = std::mem::take(&mut *self.written.lock());
        written.iter().filter_map(|written| written.frames.get()).map(|frames| frames.bytes.len()).sum()
    }

    /// Where the round stands in a topic of its own that has history: the epoch, and the offset of its first
    /// event.
    pub fn position(&self, topic: &Arc<Topic>) -> Option<(u64, u64)> {
        let placed = self.topics.iter().find(|placed| Arc::ptr_eq(&placed.topic, topic))?;
        Some((topic.epoch()?, placed.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went_in() {
        let mut events = Events::default();
        let publish =
            |event, key, data, timestamp_ms| Publish { topics: "t", event, key, data, timestamp_ms };
        events.push(&publish("a", "", "{}", 0), 42);
        events.push(&publish("bc", "key", "", 7), 42);
        let seen: Vec<_> = events.iter().map(|e| (e.name, e.key, e.data, e.timestamp_ms)).collect();
        assert_eq!(seen, [("a", "", "{}", 42), ("bc", "key", "null", 7)]);
        assert_eq!((events.len(), events.bytes(), events.is_empty()), (2, 12, false));
        let names = |range| events.range(range).map(|e| (e.name, e.key)).collect::<Vec<_>>();
        assert_eq!(names(1..2), [("bc", "key")]);
        assert_eq!((names(0..1), names(2..2)), (vec![("a", "")], vec![]));
    }
}
