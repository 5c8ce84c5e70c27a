//! What clients ask for, in whatever dialect they say it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use crate::proto::http1::{HttpError, query_pairs};
use crate::session::policy::Policy;
use crate::topic::name::{check_name, pattern_prefix};
use crate::topic::topic::{Position, Topic};

/// Characters of a client id at most.
pub const MAX_CLIENT_ID_CHARS: usize = 128;

/// Names that one filter of a subscription may have at most: each is compared with each event of the topic.
pub const MAX_FILTER_NAMES: usize = 100;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Join topics, or change filter and policy of those joined already.
    Subscribe(Subscribe),
    /// Leave topics.
    Unsubscribe(Vec<String>),
    /// The client is alive.
    Pong,
    /// The client asks whether the node is alive.
    Ping,
    /// The client wants its message back: a whole frame.
    Echo(Vec<u8>),
}

/// A subscription to topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe {
    /// The topics and patterns, checked, none of them twice.
    pub topics: Vec<String>,
    /// Only these event names; `None`: all.
    pub events: Option<Vec<String>>,
    /// Only events whose category, the first of their topics, is one of these; `None`: all.
    pub only_categories: Option<Vec<String>>,
    /// What happens when the client's queue is full; `None`: what the topic has for those who do not say.
    pub policy: Option<Policy>,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// Where the client wants to go on; `None`: with what comes.
    pub since: Option<Since>,
    /// Whether it wants the newest event of each key first.
    pub last: bool,
}

/// Where a client wants to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Positions by topic; `None`: one that no node gave.
    Positions(BTreeMap<String, Option<Position>>),
    /// The position that the last event of a stream had, in whichever of its topics; `None`: one that no node
    /// gave.
    LastEvent(Option<Position>),
}

impl Since {
    /// Where to go on in a topic, if the client wants that: in one that it does not name it begins with what
    /// comes. Inside, `None` is a position that is none of this topic's.
    pub fn of(&self, name: &str, topic: &Topic) -> Option<Option<Position>> {
        match self {
            Self::Positions(positions) => positions.get(name).copied(),
            Self::LastEvent(position) => {
                Some(position.filter(|position| topic.epoch() == Some(position.epoch)))
            }
        }
    }
}

/// What could not be recovered of topics that a client wanted to go on with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The topics, each with the first and last offset of what is missing; `None`: nobody knows.
    pub missing: Vec<(String, Option<(u64, u64)>)>,
}

/// Checks a topic that is subscribed to where nothing is a pattern.
///
/// # Errors
/// What is wrong with it.
pub fn check_topic(name: &str) -> Result<(), String> {
    check_name("topic", name)?;
    if pattern_prefix(name).is_some() {
        return Err(format!(
            "{name:?} is a prefix pattern, not a topic: those are only for the subscribe message of /ws"
        ));
    }
    Ok(())
}

/// Checks topics with `check` and leaves out those that were there before.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn checked_topics(
    topics: Vec<String>,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Vec<String>, String> {
    topics.iter().try_for_each(|name| check(name))?;
    let mut seen = HashSet::new();
    Ok(topics.into_iter().filter(|name| seen.insert(name.clone())).collect())
}

/// Checks the names of a filter, `what` of them, and sorts them.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn checked_filter(what: &str, mut names: Vec<String>) -> Result<Vec<String>, String> {
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_FILTER_NAMES {
        return Err(format!("the filter has more than {MAX_FILTER_NAMES} {what} names"));
    }
    names.iter().try_for_each(|name| check_name(what, name))?;
    Ok(names)
}

/// Checks a client's name for itself.
///
/// # Errors
/// It is empty or too long.
pub fn check_client_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.chars().count() > MAX_CLIENT_ID_CHARS {
        return Err(format!("`clientId` must have 1 to {MAX_CLIENT_ID_CHARS} characters"));
    }
    Ok(())
}

/// What of a query is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Everything.
    Whole,
    /// All but the topics, which stand in the path.
    Options,
}

/// Reads a subscription from a query: `topics` (or `categories`, `rooms`), `events` and `onlyCategories`, all
/// separated by commas or repeated; `runId`, `projectId` and `userId`; `policy`, `last` and `clientId`. Unknown names
/// are passed over. Nothing in a query is a pattern.
///
/// # Errors
/// 400 with what is wrong.
pub fn from_query(query: &str, ask: Ask) -> Result<Subscribe, HttpError> {
    let mut subscribe = Subscribe::default();
    let (mut topics, mut is_scoped) = (Vec::new(), false);
    let bad = |message: String| HttpError::new(400, format!("in the query: {message}"));
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        let list = |value: Cow<'_, str>| value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match &*name {
            "categories" | "topics" | "rooms" if ask == Ask::Whole => topics.extend(list(value)),
            "runId" | "projectId" | "userId" if ask == Ask::Whole => {
                if value.is_empty() {
                    return Err(bad(format!("{name} is empty")));
                }
                topics.push(format!("{}:{value}", &name[..name.len() - 2]));
                is_scoped = true;
            }
            "events" => subscribe.events.get_or_insert_default().extend(list(value)),
            "onlyCategories" => subscribe.only_categories.get_or_insert_default().extend(list(value)),
            "policy" => subscribe.policy = Some(Policy::parse(&value).map_err(bad)?),
            "last" => {
                subscribe.last = value
                    .parse()
                    .map_err(|_| bad(format!("last is {value:?}, and there is true and false")))?;
            }
            "clientId" => {
                check_client_id(&value).map_err(bad)?;
                subscribe.client_id = Some(value.into_owned());
            }
            _ => {}
        }
    }
    if is_scoped {
        topics.push("global".to_owned()); // What is published to all.
    }
    subscribe.topics = checked_topics(topics, check_topic).map_err(bad)?;
    if let Some(events) = subscribe.events.take() {
        subscribe.events = Some(checked_filter("event", events).map_err(bad)?);
    }
    if let Some(categories) = subscribe.only_categories.take() {
        subscribe.only_categories = Some(checked_filter("category", categories).map_err(bad)?);
    }
    Ok(subscribe)
}
