//! `GET /api/slow`: the clients that are behind, furthest first.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::transport::KernelFigures;

/// Topics shown of one client at most.
pub const LISTED_TOPICS: usize = 20;

/// How far a client is behind: compared field by field, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Bytes that wait for it in the node.
    pub queued_bytes: usize,
    /// Age of the oldest event that waits, in milliseconds.
    pub oldest_ms: u64,
    /// Bytes that the kernel has taken for it and not sent.
    pub kernel_bytes: u32,
    /// Events that were left out.
    pub dropped: u64,
}

/// A client that is behind.
#[derive(Clone, Debug)]
pub struct SlowClient {
    /// What it is called.
    pub client_id: String,
    /// Who is at the other end.
    pub address: Box<str>,
    /// How it is spoken to.
    pub dialect: &'static str,
    /// Its first topics.
    pub topics: Vec<Arc<str>>,
    /// Whether it has more of them.
    pub has_more_topics: bool,
    /// Events that wait.
    pub queued_events: u32,
    /// How far it is behind.
    pub rank: Rank,
    /// What the kernel says of its connection.
    pub kernel: Option<KernelFigures>,
    /// Events that were left out, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// The clients furthest behind, of a shard or of the node.
#[derive(Clone, Debug, Default)]
pub struct Slowest {
    clients: Vec<SlowClient>,
    is_cut: bool,
}

impl Slowest {
    /// The first `limit` of some clients. `is_cut`: more are behind than those.
    pub fn of(mut clients: Vec<SlowClient>, is_cut: bool, limit: usize) -> Self {
        // Stable, and shards come in one order: who is as far behind as another keeps its place.
        clients.sort_by_key(|client| Reverse(client.rank));
        let is_cut = is_cut || clients.len() > limit;
        clients.truncate(limit);
        Self { clients, is_cut }
    }

    /// The first `limit` of several shards' clients.
    pub fn merge(parts: impl IntoIterator<Item = Self>, limit: usize) -> Self {
        let (mut clients, mut is_cut) = (Vec::new(), false);
        for part in parts {
            clients.extend(part.clients);
            is_cut |= part.is_cut;
        }
        Self::of(clients, is_cut, limit)
    }

    /// The answer.
    pub fn render(&self, timestamp: &str) -> Value {
        let mut answer = json!({
            "clients": self.clients.iter().map(render).collect::<Value>(),
            "timestamp": timestamp,
        });
        if self.is_cut {
            answer["clientsTruncated"] = true.into();
        }
        answer
    }
}

fn render(client: &SlowClient) -> Value {
    let dropped = client.dropped.iter().map(|(reason, count)| ((*reason).to_owned(), (*count).into()));
    let mut shown = json!({
        "clientId": client.client_id,
        "address": client.address,
        "dialect": client.dialect,
        "topics": client.topics.iter().map(|topic| Value::from(&**topic)).collect::<Value>(),
        "queuedEvents": client.queued_events,
        "queuedBytes": client.rank.queued_bytes,
        "oldestMs": client.rank.oldest_ms,
        "kernelUnsentBytes": client.kernel.map(|kernel| kernel.unsent_bytes),
        "rttMs": client.kernel.map(|kernel| f64::from(kernel.rtt_micros) / 1e3),
        "retransmits": client.kernel.map(|kernel| kernel.retransmits),
        "dropped": dropped.collect::<Map<String, Value>>(),
    });
    if client.has_more_topics {
        shown["topicsTruncated"] = true.into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client with these `(queued_bytes, oldest_ms, kernel_bytes, dropped)`.
    fn client(
        name: &str,
        (queued_bytes, oldest_ms, kernel_bytes, dropped): (usize, u64, u32, u64),
    ) -> SlowClient {
        SlowClient {
            client_id: name.to_owned(),
            address: "10.0.0.1:5".into(),
            dialect: "json",
            topics: vec!["a".into()],
            has_more_topics: false,
            queued_events: 1,
            rank: Rank { queued_bytes, oldest_ms, kernel_bytes, dropped },
            kernel: None,
            dropped: Vec::new(),
        }
    }

    fn names(slowest: &Slowest) -> Vec<&str> {
        slowest.clients.iter().map(|client| client.client_id.as_str()).collect()
    }

    #[test]
    fn furthest_behind_comes_first_across_shards() {
        let shards = || {
            let one = vec![
                client("bytes", (900, 1, 0, 0)),
                client("dropped", (0, 0, 0, 9)),
                client("same", (5, 5, 0, 0)),
            ];
            let two = vec![
                client("kernel", (0, 0, 1, 0)),
                client("older", (500, 80, 0, 0)),
                client("also", (5, 5, 0, 0)),
            ];
            let three = vec![client("younger", (500, 79, 9, 9))];
            [one, two, three]
        };
        let all = ["bytes", "older", "younger", "same", "also", "kernel", "dropped"];
        for (limit, is_cut) in [(0, true), (1, true), (3, true), (6, true), (7, false), (1000, false)] {
            // As each shard does, and as the last one does with all of theirs.
            let parts = shards().map(|clients| Slowest::of(clients, false, limit));
            let slowest = Slowest::merge(parts, limit);
            assert_eq!(names(&slowest), all[..limit.min(all.len())], "{limit}");
            assert_eq!(slowest.is_cut, is_cut, "{limit}");
        }
        // That one shard had more is not forgotten where the others had less.
        let part = |clients, is_cut| Slowest::of(clients, is_cut, 2);
        let merged = Slowest::merge([part(vec![client("a", (1, 1, 1, 1))], true), part(vec![], false)], 2);
        assert!(merged.is_cut);
    }

    #[test]
    fn everything_known_is_shown_and_what_is_not_is_null() {
        let unknown = client("me", (1, 2, 0, 0));
        let kernel = KernelFigures { unsent_bytes: 7, rtt_micros: 1500, retransmits: 2 };
        let known = SlowClient {
            kernel: Some(kernel),
            has_more_topics: true,
            dropped: vec![("drop_oldest", 3)],
            ..client("you", (2, 2, 7, 3))
        };
        let answer = Slowest::of(vec![unknown, known], false, 20).render("now");
        let base =
            json!({"address":"10.0.0.1:5","dialect":"json","topics":["a"],"queuedEvents":1,"oldestMs":2});
        let with = |more: Value| {
            let mut all = base.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        assert_eq!(
            answer,
            json!({"clients":[
                with(json!({"clientId":"you","queuedBytes":2,"kernelUnsentBytes":7,"rttMs":1.5,"retransmits":2,
                            "dropped":{"drop_oldest":3},"topicsTruncated":true})),
                with(json!({"clientId":"me","queuedBytes":1,"kernelUnsentBytes":null,"rttMs":null,"retransmits":null,
                            "dropped":{}})),
            ],"timestamp":"now"})
        );
        assert_eq!(
            Slowest::of(vec![], true, 0).render("now"),
            json!({"clients":[],"clientsTruncated":true,"timestamp":"now"})
        );
    }
}
