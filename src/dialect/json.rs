//! The JSON WebSocket protocol (`docs/json-websocket.md`): messages from clients to commands, answers to frames.
//!
//! Events are not written here: they come ready from the envelope.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::dialect::command::{Command, Since, Subscribe, check_client_id, checked_filter, checked_topics};
use crate::dialect::envelope::{read_epoch, write_epoch, write_json_string};
use crate::proto::websocket::{Opcode, write_frame};
use crate::session::chunk::Gap;
use crate::session::policy::Policy;
use crate::topic::name::{check_name, check_topic_or_pattern};
use crate::topic::topic::Position;

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(alias = "topics", alias = "rooms")]
    categories: Option<Vec<String>>,
    events: Option<Vec<String>>,
    #[serde(rename = "onlyCategories")]
    only_categories: Option<Vec<String>>,
    policy: Option<String>,
    #[serde(rename = "clientId")]
    client_id: Option<String>,
    since: Option<Positions>,
    last: Option<bool>,
}

/// Positions by topic. A topic that stands there twice is refused, as every name is that is read.
struct Positions(BTreeMap<String, Option<Given>>);

/// A position as a client gives it back.
#[derive(Deserialize)]
struct Given {
    epoch: String,
    offset: u64,
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PositionsVisitor)
    }
}

struct PositionsVisitor;

impl<'de> Visitor<'de> for PositionsVisitor {
    type Value = Positions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of positions by topic")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Positions, A::Error> {
        let mut positions = BTreeMap::new();
        while let Some((topic, given)) = map.next_entry::<String, _>()? {
            match positions.entry(topic) {
                Entry::Vacant(place) => drop(place.insert(given)),
                Entry::Occupied(place) => {
                    return Err(A::Error::custom(format!("`since` has the topic {:?} twice", place.key())));
                }
            }
        }
        Ok(Positions(positions))
    }
}

/// Reads one message of a client.
///
/// # Errors
/// What is wrong with it, for the `error` message; the connection stays.
pub fn parse(text: &[u8]) -> Result<Command, String> {
    let message: Message =
        serde_json::from_slice(text).map_err(|error| format!("malformed message: {error}"))?;
    match message.kind.as_str() {
        "pong" => Ok(Command::Pong),
        "ping" => Ok(Command::Ping),
        "subscribe" => {
            let topics = topics_of(message.categories, "subscribe", check_topic_or_pattern)?;
            let events = message.events.map(|names| checked_filter("event", names)).transpose()?;
            let only_categories =
                message.only_categories.map(|names| checked_filter("category", names)).transpose()?;
            if let Some(id) = &message.client_id {
                check_client_id(id)?;
            }
            let policy = message.policy.as_deref().map(Policy::parse).transpose()?;
            Ok(Command::Subscribe(Subscribe {
                topics,
                events,
                only_categories,
                policy,
                client_id: message.client_id,
                since: message.since.map(positions),
                last: message.last.unwrap_or_default(),
            }))
        }
        "unsubscribe" => {
            let check = |name: &str| check_name("topic", name);
            Ok(Command::Unsubscribe(topics_of(message.categories, "unsubscribe", check)?))
        }
        other => Err(format!("unknown message type {other:?}")),
    }
}

/// The positions that a client wants to go on from. One that is not of the shape that the node gives is unknown.
fn positions(Positions(given): Positions) -> Since {
    let read = |given: Given| Some(Position { epoch: read_epoch(&given.epoch)?, offset: given.offset });
    Since::Positions(given.into_iter().map(|(topic, given)| (topic, given.and_then(read))).collect())
}

fn topics_of(
    topics: Option<Vec<String>>,
    kind: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Vec<String>, String> {
    let topics = topics.ok_or_else(|| format!("{kind} needs `categories`, `topics` or `rooms`"))?;
    checked_topics(topics, check)
}

/// What replaces the closing brace of every event for a client that named itself.
pub fn client_id_suffix(id: &str) -> Box<[u8]> {
    let mut suffix = br#","clientId":"#.to_vec();
    write_json_string(&mut suffix, id);
    suffix.push(b'}');
    suffix.into()
}

/// A `subscription-ack`: the client's whole set of topics, and where each with history stands. `missing` is for a
/// client that wanted to go on: what of its topics could not be recovered, by first and last offset where those
/// are known.
pub fn subscription_ack(
    timestamp: &str,
    topics: &[(&str, Option<Position>)],
    missing: Option<&[(String, Option<(u64, u64)>)]>,
) -> Vec<u8> {
    message("subscription-ack", timestamp, |data| {
        write_categories(data, topics.iter().map(|(topic, _)| *topic));
        data.pop();
        let positions = topics.iter().filter_map(|(topic, position)| Some((*topic, (*position)?)));
        if positions.clone().next().is_some() {
            data.extend_from_slice(br#","positions":"#);
            write_members(data, positions, |data, Position { epoch, offset }| {
                let epoch = write_epoch(epoch);
                data.extend_from_slice(format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#).as_bytes());
            });
        }
        if let Some(missing) = missing {
            data.extend_from_slice(format!(r#","recovered":{}"#, missing.is_empty()).as_bytes());
            if !missing.is_empty() {
                data.extend_from_slice(br#","missing":"#);
                let missing = missing.iter().map(|(topic, range)| (topic.as_str(), *range));
                write_members(data, missing, |data, range| match range {
                    Some((from, to)) => {
                        data.extend_from_slice(format!(r#"{{"from":{from},"to":{to}}}"#).as_bytes());
                    }
                    None => data.extend_from_slice(b"null"),
                });
            }
        }
        data.push(b'}');
    })
}

/// Writes an object with a member for each topic.
fn write_members<'a, V>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a str, V)>,
    write: impl Fn(&mut Vec<u8>, V),
) {
    for (place, (topic, value)) in members.enumerate() {
        out.push(if place == 0 { b'{' } else { b',' });
        write_json_string(out, topic);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

/// An `unsubscription-ack`: the client's whole set of topics.
pub fn unsubscription_ack<'a>(timestamp: &str, topics: impl Iterator<Item = &'a str>) -> Vec<u8> {
    message("unsubscription-ack", timestamp, |data| write_categories(data, topics))
}

/// An `error` message.
pub fn error(timestamp: &str, error: &str) -> Vec<u8> {
    message("error", timestamp, |data| {
        data.extend_from_slice(br#"{"error":"#);
        write_json_string(data, error);
        data.push(b'}');
    })
}

/// A `gap` notice: events of `topic` were left out here; `None`: nobody knows how many.
pub fn gap(timestamp: &str, topic: &str, gap: Option<Gap>) -> Vec<u8> {
    message("gap", timestamp, |data| {
        data.extend_from_slice(br#"{"topic":"#);
        write_json_string(data, topic);
        let dropped = gap.map_or_else(|| "null".to_owned(), |gap| gap.dropped.to_string());
        data.extend_from_slice(format!(r#","dropped":{dropped}"#).as_bytes());
        if let Some(Gap { conflated: conflated @ 1.., .. }) = gap {
            data.extend_from_slice(format!(r#","conflated":{conflated}"#).as_bytes());
        }
        data.push(b'}');
    })
}

/// The answer to a client's `ping`.
pub fn pong(timestamp: &str) -> Vec<u8> {
    format!(r#"{{"type":"pong","timestamp":"{timestamp}"}}"#).into_bytes()
}

/// Appends the heartbeat: a JSON `ping` for programs and a WebSocket ping for the protocol.
pub fn write_heartbeat(out: &mut Vec<u8>, timestamp: &str) {
    let text = format!(r#"{{"type":"ping","timestamp":"{timestamp}"}}"#);
    write_frame(out, Opcode::Text, text.as_bytes());
    write_frame(out, Opcode::Ping, b"");
}

fn message(kind: &str, timestamp: &str, data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut text = format!(r#"{{"type":"{kind}","timestamp":"{timestamp}","data":"#).into_bytes();
    data(&mut text);
    text.push(b'}');
    text
}

fn write_categories<'a>(out: &mut Vec<u8>, topics: impl Iterator<Item = &'a str>) {
    out.extend_from_slice(br#"{"categories":["#);
    for (place, topic) in topics.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_json_string(out, topic);
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::command::MAX_FILTER_NAMES;

    fn subscribe(topics: &[&str]) -> Subscribe {
        Subscribe { topics: topics.iter().map(ToString::to_string).collect(), ..Subscribe::default() }
    }

    #[test]
    fn the_seeds_messages_are_understood() {
        let text =
            br#"{"type":"subscribe","categories":["error-recovery","scheduler"],"clientId":"my-client"}"#;
        let expected =
            Subscribe { client_id: Some("my-client".into()), ..subscribe(&["error-recovery", "scheduler"]) };
        assert_eq!(parse(text), Ok(Command::Subscribe(expected)));
        assert_eq!(parse(br#"{"type":"pong"}"#), Ok(Command::Pong));
        assert_eq!(parse(br#"{"type":"ping","extra":[1,{"x":2}]}"#), Ok(Command::Ping));
        assert_eq!(
            parse(br#"{"type":"subscribe","topics":["run:*","a","run:*"]}"#),
            Ok(Command::Subscribe(subscribe(&["run:*", "a"])))
        );
        // By the name that it has, wherever that came from.
        let expected = Command::Unsubscribe(vec!["run:*".into(), "a*b".into()]);
        assert_eq!(parse(br#"{"type":"unsubscribe","topics":["run:*","a*b"]}"#), Ok(expected));
        let expected = Command::Unsubscribe(vec!["scheduler".into()]);
        assert_eq!(parse(br#"{"type":"unsubscribe","categories":["scheduler"]}"#), Ok(expected));
    }

    #[test]
    fn topics_have_three_names_and_options_are_read() {
        for field in ["categories", "topics", "rooms"] {
            let text = format!(
                r#"{{"type":"subscribe","{field}":["a"],"events":["x","y"],"onlyCategories":["c"],"policy":"drop-oldest","clientId":null,"unknown":1}}"#
            );
            let expected = Subscribe {
                events: Some(vec!["x".into(), "y".into()]),
                only_categories: Some(vec!["c".into()]),
                policy: Some(Policy::DropOldest),
                ..subscribe(&["a"])
            };
            assert_eq!(parse(text.as_bytes()), Ok(Command::Subscribe(expected)));
        }
    }

    #[test]
    fn a_client_that_wants_to_go_on_names_its_topics() {
        let text = br#"{"type":"subscribe","topics":["a"],"since":{"a":{"epoch":"x","offset":17},"b":null}}"#;
        let expected = BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), None)]);
        let expected = Subscribe { since: Some(Since::Positions(expected)), ..subscribe(&["a"]) };
        assert_eq!(parse(text), Ok(Command::Subscribe(expected)));
    }

    #[test]
    fn names_given_twice_count_once_and_a_filter_is_bounded() {
        let Ok(Command::Subscribe(subscribe)) =
            parse(br#"{"type":"subscribe","topics":["b","a","b"],"events":["y","x","y"]}"#)
        else {
            panic!("a subscribe")
        };
        assert_eq!(subscribe.topics, ["b", "a"]);
        assert_eq!(subscribe.events.unwrap(), ["x", "y"]);
        let names: Vec<String> = (0..=MAX_FILTER_NAMES).map(|n| format!("\"e{n}\"")).collect();
        let text = format!(r#"{{"type":"subscribe","topics":["a"],"events":[{}]}}"#, names.join(","));
        assert!(parse(text.as_bytes()).unwrap_err().contains("more than 100 event names"));
    }

    #[test]
    fn bad_messages_are_named() {
        let long = format!(r#"{{"type":"subscribe","topics":["a"],"clientId":"{}"}}"#, "é".repeat(129));
        let deep = format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(parse(deep.as_bytes()), Ok(Command::Ping));
        for (text, expected) in [
            ("", "malformed message"),
            ("[]", "malformed message"),
            ("{\"type\":\"ping\"", "malformed message"),
            ("{\"type\":\"ping\"} x", "malformed message"),
            ("{}", "missing field `type`"),
            ("{\"type\":1}", "malformed message"),
            ("{\"type\":\"ping\",\"type\":\"pong\"}", "duplicate field"),
            ("{\"type\":\"dance\"}", "unknown message type \"dance\""),
            ("{\"type\":\"subscribe\"}", "needs `categories`"),
            ("{\"type\":\"subscribe\",\"topics\":[\"a\"],\"rooms\":[]}", "duplicate field"),
            (
                "{\"type\":\"subscribe\",\"topics\":[\"a\"],\"since\":{\"a\":null,\"\\u0061\":null}}",
                "`since` has the topic \"a\" twice",
            ),
            ("{\"type\":\"subscribe\",\"topics\":[\"\"]}", "topic name is empty"),
            ("{\"type\":\"subscribe\",\"topics\":[\"a\\u0000\"]}", "control character"),
            ("{\"type\":\"subscribe\",\"topics\":[\"run:*:log\"]}", "a `*` that is not its last character"),
            (
                "{\"type\":\"subscribe\",\"topics\":[\"a\",\"run:**\"]}",
                "a `*` that is not its last character",
            ),
            ("{\"type\":\"unsubscribe\",\"topics\":[\"\"]}", "topic name is empty"),
            ("{\"type\":\"subscribe\",\"topics\":[\"a\"],\"events\":[\"\"]}", "event name is empty"),
            ("{\"type\":\"subscribe\",\"topics\":[\"a\"],\"policy\":\"never\"}", "policy"),
            ("{\"type\":\"subscribe\",\"topics\":[\"a\"],\"clientId\":\"\"}", "clientId"),
            (&long, "clientId"),
            ("{\"type\":\"unsubscribe\"}", "needs `categories`"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn answers_are_valid_json_of_the_protocols_shape() {
        let read = |text: Vec<u8>| -> serde_json::Value { serde_json::from_slice(&text).unwrap() };
        assert_eq!(
            read(subscription_ack("T", &[("a", None), ("b\"", None)], None)),
            serde_json::json!({"type":"subscription-ack","timestamp":"T","data":{"categories":["a","b\""]}})
        );
        let position = Some(Position { epoch: 255, offset: 17 });
        let missing = [("a".to_owned(), Some((18, 40))), ("b".to_owned(), None)];
        assert_eq!(
            read(subscription_ack("T", &[("a", position), ("c", None)], Some(&missing)))["data"],
            serde_json::json!({
                "categories":["a","c"],
                "positions":{"a":{"epoch":"00000000000000ff","offset":17}},
                "recovered":false,
                "missing":{"a":{"from":18,"to":40},"b":null},
            })
        );
        assert_eq!(
            read(subscription_ack("T", &[("a", None)], Some(&[])))["data"],
            serde_json::json!({"categories":["a"],"recovered":true})
        );
        assert_eq!(
            read(error("T", "no \"way\"\n")),
            serde_json::json!({"type":"error","timestamp":"T","data":{"error":"no \"way\"\n"}})
        );
        for (dropped, expected) in
            [(Some(Gap::dropped(7)), serde_json::json!(7)), (None, serde_json::Value::Null)]
        {
            assert_eq!(
                read(gap("T", "t", dropped)),
                serde_json::json!({"type":"gap","timestamp":"T","data":{"topic":"t","dropped":expected}})
            );
        }
        assert_eq!(read(pong("T")), serde_json::json!({"type":"pong","timestamp":"T"}));
        let mut out = Vec::new();
        write_heartbeat(&mut out, "T");
        assert_eq!(out[out.len() - 2..], [0x89, 0]);
    }
}
