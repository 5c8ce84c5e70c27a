//! A session: one logical client, its subscriptions, and what it calls itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::config::Limits;
use crate::dialect::dialect::Dialect;
use crate::dialect::envelope::{Form, Private, Values};
use crate::metrics::DropReason;
use crate::proto::websocket::{Accept, Decoder};
use crate::session::address::Address;
use crate::session::brought::Brought;
use crate::session::chunk::Gap;
use crate::session::policy::Policy;
use crate::session::rate::Rate;

/// One topic that a session is subscribed to.
#[derive(Debug)]
pub struct Subscription {
    /// The shard's number of the topic.
    pub topic: u32,
    /// The number of the topic's list that the session is in.
    pub list: u32,
    /// The session's place in that list, or [`NOT_LISTED`] while it is served from the history.
    pub place: u32,
    /// Events up to this offset came before the subscription.
    pub start: u64,
    /// Events up to this offset are not taken from the link: they came before, or from the history.
    pub joined: u64,
    /// What happens when the client's queue is full.
    pub policy: Policy,
    rare: Option<Box<Rare>>,
}

/// What few subscriptions have, kept apart: a node has many.
#[derive(Debug, Default)]
struct Rare {
    /// Events left out since the last one that is queued, not yet told to the client.
    gap: Gap,
    /// Which events are wanted; `None`: all.
    filter: Option<Arc<Filter>>,
    /// The filter was another one up to this offset; `None`: it never was.
    filtered_upto: Option<u64>,
    /// Until it has caught up: what the session had of the topic already.
    brought: Option<Brought>,
}

/// The place of a subscription that is served from the history.
pub const NOT_LISTED: u32 = u32::MAX;

/// Which events of a topic are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these event names; `None`: all.
    pub events: Option<Vec<String>>,
    /// Only events of these categories; `None`: all.
    pub categories: Option<Vec<String>>,
}

impl Subscription {
    /// A subscription that stands at a place of a topic's list, and gets what comes after `start`.
    pub fn new(topic: u32, list: u32, place: u32, start: u64, policy: Policy) -> Self {
        Self { topic, list, place, start, joined: start, policy, rare: None }
    }

    /// Which events are wanted; `None`: all.
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.rare.as_ref()?.filter.as_ref()
    }

    /// These events are wanted from now on.
    pub fn set_filter(&mut self, filter: Option<Arc<Filter>>) {
        if filter.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().filter = filter;
        }
    }

    /// Whether an event of this name and category, at this offset, is one of the subscription's.
    pub fn wants(&self, offset: u64, event: &str, category: &str) -> bool {
        offset > self.start && self.filter().is_none_or(|filter| filter.wants(event, category))
    }

    /// Its filter has been the present one from after this offset on.
    pub fn filtered_from(&self) -> u64 {
        self.rare.as_ref().and_then(|rare| rare.filtered_upto).unwrap_or(self.start)
    }

    /// Notes that it has had another filter up to an offset.
    pub fn note_filter(&mut self, upto: u64) {
        self.rare.get_or_insert_default().filtered_upto = Some(upto);
    }

    /// More events are left out, which the client is still to be told.
    pub fn add_gap(&mut self, gap: Gap) {
        if !gap.is_none() {
            self.rare.get_or_insert_default().gap += gap;
        }
    }

    /// What is left out is told, or kept elsewhere.
    pub fn take_gap(&mut self) -> Gap {
        self.rare.as_mut().map_or(Gap::NONE, |rare| std::mem::take(&mut rare.gap))
    }

    /// Notes what the session has had of the topic already, of what the subscription is behind with.
    pub fn note_brought(&mut self, brought: Option<Brought>) {
        if brought.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().brought = brought;
        }
    }

    /// Whether the session had the event at this offset already when the subscription began behind.
    pub fn was_brought(&self, offset: u64) -> bool {
        let brought = self.rare.as_ref().and_then(|rare| rare.brought.as_ref());
        brought.is_some_and(|brought| brought.has(offset))
    }

    /// It has caught up.
    pub fn forget_brought(&mut self) {
        self.rare.take_if(|rare| {
            rare.brought = None;
            rare.gap.is_none() && rare.filter.is_none() && rare.filtered_upto.is_none()
        });
    }

    /// Whether it is served from the history.
    pub fn is_replaying(&self) -> bool {
        self.place == NOT_LISTED
    }
}

impl Filter {
    /// Whether an event of this name and category is wanted.
    pub fn wants(&self, event: &str, category: &str) -> bool {
        self.wants_event(event) && self.wants_category(category)
    }

    /// Whether an event of this name is wanted.
    pub fn wants_event(&self, event: &str) -> bool {
        self.events.as_ref().is_none_or(|names| names.iter().any(|name| name == event))
    }

    /// Whether events of this category are wanted.
    pub fn wants_category(&self, category: &str) -> bool {
        self.categories.as_ref().is_none_or(|names| names.iter().any(|name| name == category))
    }
}

/// The topics of one session, in the order they were subscribed.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// Most clients have one.
    list: SmallVec<[Subscription; 1]>,
    /// Topic to place in the list, from the size on where looking through it would tell.
    index: Option<Box<HashMap<u32, u32, ahash::RandomState>>>,
}

/// Up to this many subscriptions are looked through one by one.
const INDEX_ABOVE: usize = 16;

impl Subscriptions {
    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order they were subscribed.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.list.iter()
    }

    /// In the order they were subscribed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.list.iter_mut()
    }

    /// The number of the subscription to a topic.
    pub fn find(&self, topic: u32) -> Option<u32> {
        match &self.index {
            Some(index) => index.get(&topic).copied(),
            None => self.list.iter().position(|s| s.topic == topic).map(|place| place as u32),
        }
    }

    /// The subscription with this number.
    pub fn get(&self, number: u32) -> &Subscription {
        &self.list[number as usize]
    }

    /// The subscription with this number.
    pub fn get_mut(&mut self, number: u32) -> &mut Subscription {
        &mut self.list[number as usize]
    }

    /// Adds one at the end and answers its number.
    pub fn push(&mut self, subscription: Subscription) -> u32 {
        let number = self.list.len() as u32;
        if let Some(index) = &mut self.index {
            index.insert(subscription.topic, number);
        }
        self.list.push(subscription);
        if self.index.is_none() && self.list.len() > INDEX_ABOVE {
            self.rebuild_index();
        }
        number
    }

    /// Takes out those whose numbers are in `gone`, which is sorted, in one pass; the others move up. The
    /// caller then tells the topics' lists the new numbers.
    pub fn remove(&mut self, gone: &[u32]) -> Vec<Subscription> {
        let mut removed = Vec::with_capacity(gone.len());
        let mut next_gone = gone.iter().copied().peekable();
        let all = std::mem::take(&mut self.list);
        for (number, subscription) in all.into_iter().enumerate() {
            if next_gone.next_if_eq(&(number as u32)).is_some() {
                removed.push(subscription);
            } else {
                self.list.push(subscription);
            }
        }
        self.index = None;
        if self.list.len() > INDEX_ABOVE {
            self.rebuild_index();
        }
        removed
    }

    fn rebuild_index(&mut self) {
        let pairs = self.list.iter().enumerate().map(|(number, s)| (s.topic, number as u32));
        self.index = Some(Box::new(pairs.collect()));
    }
}

/// One client of a dialect.
#[derive(Debug)]
pub struct Session {
    /// Its topics.
    pub subscriptions: Subscriptions,
    /// A number that no other client of this node had.
    pub number: u64,
    /// What it named itself; most clients are known by their number.
    pub identity: Option<Box<Identity>>,
    /// What its envelope takes from the path that it connected to.
    pub values: Option<Values>,
    /// The envelope its events are written in.
    pub envelope: u16,
    /// The place of its stream in the settings, where it came by a configured path.
    pub stream: Option<u16>,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Whether its events are lines, and those that go out together share a message.
    pub shares_messages: bool,
    /// Whether its messages may be compressed, in both directions.
    pub deflates: bool,
    /// The node is shutting down: closed as soon as it has what it is owed.
    pub leaving: bool,
    /// Who is at the other end.
    pub address: Address,
    /// When it connected, in nanoseconds.
    pub connected: u64,
    /// When the last byte came from it.
    pub heard: u64,
    /// When it was last sent a heartbeat.
    pub pinged: u64,
    /// The number of the subscription that was served from the history last.
    pub replayed: u32,
    /// What became of it once its socket took no more; a session whose socket always took everything has none.
    pub trouble: Option<Box<Trouble>>,
    /// What is to be remembered of what came from it; mostly nothing.
    pub inbound: Option<Box<Inbound>>,
}

/// What a client named itself.
#[derive(Debug)]
pub struct Identity {
    /// The name.
    pub client_id: Box<str>,
    /// What is spliced into each of its events.
    pub suffix: Option<Box<[u8]>>,
}

/// The inbound half of a session over WebSocket, kept while a frame or message is partial, something waits to be decoded,
/// or messages are counted.
#[derive(Debug, Default)]
pub struct Inbound {
    /// What there is of that frame or message.
    pub decoder: Decoder,
    /// Since when it has been partial, in nanoseconds; `None`: nothing is.
    pub begun: Option<u64>,
    /// Its time was up when more of it was there to read.
    pub is_overdue: bool,
    /// How many messages may still come now.
    pub rate: Rate,
    /// Bytes read but not yet decoded, because replies wait; empty: none.
    pub unread: Vec<u8>,
}

/// The slow side of a session's life.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Since when its socket takes nothing, in nanoseconds, where that is bounded.
    pub stalled: u64,
    /// When its socket last refused a write, in nanoseconds.
    pub refused: u64,
    /// Events that were left out, by reason.
    pub dropped: SmallVec<[(DropReason, u64); 1]>,
}

/// What a session is held to: the node's limits, or those of its stream.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Events queued while its socket takes no more.
    pub queue_events: usize,
    /// How often it gets a heartbeat.
    pub heartbeat_interval: Duration,
    /// How long it may be silent; `None`: it has nothing to say.
    pub heartbeat_timeout: Option<Duration>,
    /// How long its socket may take nothing; `None`: as long as its queue holds.
    pub write_timeout: Option<Duration>,
    /// What messages it may send.
    pub accept: Accept,
}

impl Session {
    /// A session that has just come and is subscribed to nothing. `now` is in nanoseconds.
    pub fn new(number: u64, dialect: Dialect, envelope: u16, address: Address, now: u64) -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            number,
            identity: None,
            values: None,
            envelope,
            stream: None,
            dialect,
            shares_messages: false,
            deflates: false,
            leaving: false,
            address,
            connected: now,
            heard: now,
            pinged: now,
            replayed: 0,
            trouble: None,
            inbound: None,
        }
    }

    /// Its socket refused a write. `now` is in nanoseconds.
    pub fn note_refused(&mut self, now: u64) {
        self.trouble.get_or_insert_default().refused = now;
    }

    /// When its socket last refused a write, in nanoseconds.
    pub fn refused(&self) -> Option<u64> {
        self.trouble.as_ref().map(|trouble| trouble.refused)
    }

    /// From now on, in nanoseconds, the time counts that its socket may take nothing.
    pub fn note_stalled(&mut self, now: u64) {
        self.trouble.get_or_insert_default().stalled = now;
    }

    /// Since when, in nanoseconds, its socket takes nothing; to be asked only while it does not.
    pub fn stalled(&self) -> u64 {
        self.trouble.as_ref().map_or(self.connected, |trouble| trouble.stalled)
    }

    /// Events were left out of its queue.
    pub fn note_dropped(&mut self, reason: DropReason, count: u64) {
        if count == 0 {
            return;
        }
        let dropped = &mut self.trouble.get_or_insert_default().dropped;
        match dropped.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, all)) => *all += count,
            None => dropped.push((reason, count)),
        }
    }

    /// Whether bytes that were read wait to be decoded.
    pub fn has_unread(&self) -> bool {
        self.inbound.as_ref().is_some_and(|inbound| !inbound.unread.is_empty())
    }

    /// Since when a frame or message of it has been partial, in nanoseconds.
    pub fn begun(&self) -> Option<u64> {
        self.inbound.as_ref()?.begun
    }

    /// What it is called in logs and statistics: the name it gave, or one made from its number.
    pub fn name(&self) -> String {
        match &self.identity {
            Some(identity) => identity.client_id.to_string(),
            None => format!("client-{}", self.number),
        }
    }

    /// The next subscription, in turn, that is served from the history.
    pub fn next_replaying(&self) -> Option<u32> {
        let count = self.subscriptions.len() as u32;
        let mut in_turn = (1..=count).map(|step| (self.replayed + step) % count);
        in_turn.find(|number| self.subscriptions.get(*number).is_replaying())
    }

    /// The form in which it gets events: compressed or not, where that may be chosen. What is compressed is the same
    /// for all: who has something private in his events gets them plain.
    pub fn form(&self, deflated: bool) -> Form<'_> {
        let takes_shared = matches!(self.private(), Private::Nothing);
        let deflated = deflated && self.deflates && takes_shared;
        Form { envelope: self.envelope, values: self.values.as_ref(), deflated }
    }

    /// What is put around its events as they go out.
    pub fn private(&self) -> Private<'_> {
        match self.identity.as_ref().and_then(|identity| identity.suffix.as_ref()) {
            Some(suffix) => Private::Suffix(suffix),
            None if self.shares_messages => Private::Lines,
            None => Private::Nothing,
        }
    }

    /// What it is held to.
    pub fn terms(&self, limits: &Limits) -> Terms {
        let stream = self.stream.and_then(|number| limits.streams.get(usize::from(number)));
        let is_web_socket = self.dialect.is_web_socket();
        let heartbeat = match stream {
            Some(stream) => (stream.heartbeat_interval, stream.heartbeat_timeout),
            None => (limits.heartbeat_interval, limits.heartbeat_timeout),
        };
        Terms {
            queue_events: stream.and_then(|stream| stream.queue_events).unwrap_or(limits.queue_events),
            heartbeat_interval: if is_web_socket { heartbeat.0 } else { limits.event_stream_keep_alive },
            heartbeat_timeout: is_web_socket.then_some(heartbeat.1),
            write_timeout: stream.and_then(|stream| stream.write_timeout),
            accept: Accept {
                deflated: self.deflates,
                ..self
                    .dialect
                    .accept(stream.map_or(limits.max_message_bytes, |stream| stream.max_message_bytes))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(topic: u32) -> Subscription {
        Subscription::new(topic, 0, 0, 0, Policy::Disconnect)
    }

    #[test]
    fn subscriptions_keep_their_order_and_are_found_with_and_without_an_index() {
        for count in [3, 16, 17, 100] {
            let mut subscriptions = Subscriptions::default();
            for topic in 0..count {
                assert_eq!(subscriptions.push(subscription(topic * 10)), topic);
            }
            assert_eq!(subscriptions.find(20), Some(2));
            assert_eq!(subscriptions.find(21), None);
            let removed = subscriptions.remove(&[0, 2]);
            assert_eq!(removed.iter().map(|s| s.topic).collect::<Vec<_>>(), [0, 20]);
            assert_eq!((subscriptions.find(10), subscriptions.find(20)), (Some(0), None));
            let order: Vec<u32> = subscriptions.iter().map(|s| s.topic).collect();
            let expected: Vec<u32> = (0..count).map(|t| t * 10).filter(|t| ![0, 20].contains(t)).collect();
            assert_eq!(order, expected);
        }
    }

    #[test]
    fn what_is_left_out_is_counted_by_reason_and_only_then_takes_memory() {
        use crate::error::CloseReason;
        let mut session = Session::new(1, Dialect::Json, 0, "a".into(), 0);
        session.note_dropped(DropReason::DropOldest, 0);
        assert!(session.trouble.is_none());
        let closed = DropReason::Closed(CloseReason::SlowConsumer);
        for (reason, count) in [(DropReason::DropOldest, 2), (closed, 1), (DropReason::DropOldest, 3)] {
            session.note_dropped(reason, count);
        }
        session.note_refused(7);
        let trouble = session.trouble.unwrap();
        assert_eq!(trouble.dropped[..], [(DropReason::DropOldest, 5), (closed, 1)]);
        assert_eq!(trouble.refused, 7);
    }

    #[test]
    fn a_filter_wants_only_its_names() {
        let all = Filter::default();
        assert!(all.wants_event("anything") && all.wants_category("anything"));
        let only = Filter { events: Some(vec!["a".into(), "b".into()]), categories: Some(vec!["c".into()]) };
        assert!(only.wants_event("b") && !only.wants_event("c"));
        assert!(only.wants_category("c") && !only.wants_category("a"));
        assert!(!Filter { events: Some(vec![]), categories: None }.wants_event("a"));
    }

    /// What an idle client costs is written in the docs. A heap that hands out multiples of 16 takes 8 bytes more.
    #[test]
    fn a_session_with_one_subscription_is_one_small_allocation() {
        assert!(size_of::<Session>() <= 152, "{} bytes", size_of::<Session>());
    }
}
