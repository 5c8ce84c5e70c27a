//! Answers that every shard has a part in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::admin::slow::Slowest;
use crate::clock::{Iso8601, Now};
use crate::dialect::envelope::write_epoch;
use crate::fanout::subscribers::Subscribers;
use crate::session::session::Session;
use crate::topic::table::Topics;

/// What is asked.
#[derive(Debug)]
pub enum Report {
    /// `GET /api/websocket/status`: subscribers by topic, and topics of at most so many clients.
    Status {
        /// How many.
        clients: usize,
    },
    /// `GET /api/topics/{topic}`.
    Topic(String),
    /// `GET /api/slow`: the clients furthest behind, at most so many.
    Slow {
        /// How many.
        limit: usize,
    },
}

/// One shard's part of an answer.
#[derive(Debug, Default)]
pub struct Part {
    clients: usize,
    details: Vec<(String, Vec<Arc<str>>)>,
    subscriptions: Vec<(String, usize)>,
    /// Whether there are more topics than those.
    is_cut: bool,
    /// Subscribers of the topic asked for.
    topic: usize,
    slowest: Slowest,
}

/// Topics listed by the status at most: there can be a million.
const LISTED_TOPICS: usize = 10_000;

impl Part {
    /// What a shard knows. `slowest` finds its clients that are furthest behind.
    pub fn of<'a>(
        report: &Report,
        clients: impl Iterator<Item = &'a Session>,
        subscribers: &Subscribers,
        slowest: impl FnOnce(usize) -> Slowest,
    ) -> Self {
        let mut part = Self::default();
        match report {
            Report::Status { clients: most } => {
                for session in clients {
                    part.clients += 1;
                    if part.details.len() < *most {
                        let topics = session.subscriptions.iter();
                        let topics =
                            topics.map(|s| Arc::clone(subscribers.get(s.topic).topic.name())).collect();
                        part.details.push((session.name(), topics));
                    }
                }
                part.is_cut = subscribers.topics() > LISTED_TOPICS;
                let topics = subscribers.iter().take(LISTED_TOPICS);
                part.subscriptions = topics.map(|(name, count)| (name.to_owned(), count)).collect();
            }
            Report::Topic(name) => {
                part.topic = subscribers.find(name).map_or(0, |topic| subscribers.get(topic).members());
            }
            Report::Slow { limit } => part.slowest = slowest(*limit),
        }
        part
    }
}

/// Puts the parts together.
pub fn render(report: &Report, parts: Vec<Part>, topics: &Topics, now: Now) -> Value {
    let timestamp = Iso8601::new().format(now.wall_ms).to_owned();
    match report {
        Report::Status { clients } => status(*clients, parts, &timestamp),
        Report::Topic(name) => {
            let topic = topics.find(name);
            let (events, bytes) = topic.as_ref().and_then(|topic| topic.kept()).unwrap_or_default();
            let mut answer = json!({
                "topic": name,
                "subscribers": parts.iter().map(|part| part.topic).sum::<usize>(),
                "offset": topic.as_ref().map_or(0, |topic| topic.head()),
                "history": { "events": events, "bytes": bytes },
                "timestamp": timestamp,
            });
            if let Some(epoch) = topic.and_then(|topic| topic.epoch()) {
                answer["epoch"] = write_epoch(epoch).into();
            }
            answer
        }
        Report::Slow { limit } => {
            Slowest::merge(parts.into_iter().map(|part| part.slowest), *limit).render(&timestamp)
        }
    }
}

fn status(most: usize, parts: Vec<Part>, timestamp: &str) -> Value {
    let (mut connected, mut listed) = (0, 0);
    let mut subscriptions: BTreeMap<String, usize> = BTreeMap::new();
    let mut details: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    let mut named: HashMap<String, usize> = HashMap::new();
    let mut is_cut = false;
    for part in parts {
        connected += part.clients;
        is_cut |= part.is_cut;
        for (topic, count) in part.subscriptions {
            *subscriptions.entry(topic).or_default() += count;
        }
        for (name, topics) in part.details {
            if listed < most {
                listed += 1;
                let times = named.entry(name.clone()).or_insert(0);
                *times += 1;
                // Two clients may call themselves the same; the answer's object shows both.
                let name = if *times == 1 { name } else { format!("{name}#{times}") };
                details.insert(name, topics);
            }
        }
    }
    is_cut |= subscriptions.len() > LISTED_TOPICS;
    let details: serde_json::Map<String, Value> = details
        .into_iter()
        .map(|(name, topics)| (name, topics.iter().map(|topic| Value::from(&**topic)).collect()))
        .collect();
    let subscriptions: serde_json::Map<String, Value> =
        subscriptions.into_iter().take(LISTED_TOPICS).map(|(topic, count)| (topic, count.into())).collect();
    let mut answer = json!({
        "status": "operational",
        "connectedClients": connected,
        "subscriptions": subscriptions,
        "clientDetails": details,
        "timestamp": timestamp,
    });
    if connected > listed {
        answer["clientDetailsTruncated"] = true.into();
    }
    if is_cut {
        answer["subscriptionsTruncated"] = true.into();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_summed_and_names_stay_apart() {
        let part = |name: &str, topic: &str| Part {
            clients: 1,
            details: vec![(name.to_owned(), vec![topic.into()])],
            subscriptions: vec![(topic.to_owned(), 1)],
            is_cut: false,
            topic: 2,
            slowest: Slowest::default(),
        };
        let topics = Topics::new(1, 10, 0);
        topics.register("t", 0, 0).unwrap();
        let parts = || vec![part("me", "a"), part("me", "a"), part("you", "b")];
        let now = Now { mono: 0, wall_ms: 0 };
        let answer = render(&Report::Status { clients: 1000 }, parts(), &topics, now);
        assert_eq!(
            answer,
            json!({"status":"operational","connectedClients":3,"subscriptions":{"a":2,"b":1},
                   "clientDetails":{"me":["a"],"me#2":["a"],"you":["b"]},"timestamp":"1970-01-01T00:00:00.000Z"})
        );
        let answer = render(&Report::Status { clients: 2 }, parts(), &topics, now);
        assert_eq!(
            (answer["clientDetails"].as_object().unwrap().len(), &answer["clientDetailsTruncated"]),
            (2, &true.into())
        );
        let answer = render(&Report::Topic("t".into()), parts(), &topics, now);
        assert_eq!((&answer["subscribers"], &answer["offset"]), (&6.into(), &0.into()));
        assert_eq!((&answer["history"]["events"], &answer["epoch"]), (&0.into(), &Value::Null));
    }
}
