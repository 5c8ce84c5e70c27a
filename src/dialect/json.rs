//! The JSON WebSocket protocol (`docs/json-websocket.md`): messages from clients to commands, answers to frames.
//!
//! Events are not written here: they come ready from the envelope.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dialect::envelope::write_json_string;
use crate::proto::websocket::{Opcode, write_frame, write_header};
use crate::session::policy::Policy;
use crate::topic::name::check_name;

/// Characters of a client id at most.
pub const MAX_CLIENT_ID_CHARS: usize = 128;

/// Event names that a subscription may choose at most: each is compared with each event of the topic.
pub const MAX_EVENT_NAMES: usize = 100;

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
}

/// A subscribe message.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The topics, checked.
    pub topics: Vec<String>,
    /// Only these event names; `None`: all.
    pub events: Option<Vec<String>>,
    /// What happens when the client's queue is full.
    pub policy: Policy,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// Topics that the client had before and wants to go on with from a position; `None`: it asks for none.
    pub since: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(alias = "topics", alias = "rooms")]
    categories: Option<Vec<String>>,
    events: Option<Vec<String>>,
    policy: Option<String>,
    #[serde(rename = "clientId")]
    client_id: Option<String>,
    since: Option<BTreeMap<String, IgnoredAny>>,
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
            let topics = checked_topics(message.categories, "subscribe")?;
            let events = message.events.map(checked_events).transpose()?;
            if let Some(id) = &message.client_id {
                check_client_id(id)?;
            }
            let policy = match &message.policy {
                None => Policy::default(),
                Some(name) => Policy::parse(name)?,
            };
            Ok(Command::Subscribe(Subscribe {
                topics,
                events,
                policy,
                client_id: message.client_id,
                since: message.since.map(|positions| positions.into_keys().collect()),
            }))
        }
        "unsubscribe" => Ok(Command::Unsubscribe(checked_topics(message.categories, "unsubscribe")?)),
        other => Err(format!("unknown message type {other:?}")),
    }
}

/// Checks the topics of a subscribe, wherever it came from.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn check_topic(name: &str) -> Result<(), String> {
    check_name("topic", name)?;
    if name.ends_with('*') {
        return Err(format!("{name:?} is a prefix pattern, which this version does not serve"));
    }
    Ok(())
}

fn checked_topics(topics: Option<Vec<String>>, kind: &str) -> Result<Vec<String>, String> {
    let topics = topics.ok_or_else(|| format!("{kind} needs `categories`, `topics` or `rooms`"))?;
    topics.iter().try_for_each(|name| check_topic(name))?;
    let mut seen = HashSet::new();
    Ok(topics.into_iter().filter(|name| seen.insert(name.clone())).collect())
}

fn checked_events(mut events: Vec<String>) -> Result<Vec<String>, String> {
    events.sort_unstable();
    events.dedup();
    if events.len() > MAX_EVENT_NAMES {
        return Err(format!("`events` has more than {MAX_EVENT_NAMES} names"));
    }
    events.iter().try_for_each(|name| check_name("event", name))?;
    Ok(events)
}

fn check_client_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.chars().count() > MAX_CLIENT_ID_CHARS {
        return Err(format!("`clientId` must have 1 to {MAX_CLIENT_ID_CHARS} characters"));
    }
    Ok(())
}

/// What replaces the closing brace of every event for a client that named itself.
pub fn client_id_suffix(id: &str) -> Box<[u8]> {
    let mut suffix = br#","clientId":"#.to_vec();
    write_json_string(&mut suffix, id);
    suffix.push(b'}');
    suffix.into()
}

/// Appends a `subscription-ack`: the client's whole set of topics. Where it asked to go on from positions, it
/// is told that nothing could be recovered: no topic of this version has a history, so every epoch is unknown.
pub fn write_subscription_ack<'a>(
    out: &mut Vec<u8>,
    timestamp: &str,
    topics: impl Iterator<Item = &'a str>,
    since: Option<&[String]>,
) {
    write_message(out, "subscription-ack", timestamp, |data| {
        write_categories(data, topics);
        let Some(since) = since else { return };
        data.pop();
        data.extend_from_slice(br#","recovered":false,"missing":{"#);
        for (place, topic) in since.iter().enumerate() {
            if place > 0 {
                data.push(b',');
            }
            write_json_string(data, topic);
            data.extend_from_slice(b":null");
        }
        data.extend_from_slice(b"}}");
    });
}

/// Appends an `unsubscription-ack`: the client's whole set of topics.
pub fn write_unsubscription_ack<'a>(
    out: &mut Vec<u8>,
    timestamp: &str,
    topics: impl Iterator<Item = &'a str>,
) {
    write_message(out, "unsubscription-ack", timestamp, |data| write_categories(data, topics));
}

/// Appends an `error` message.
pub fn write_error(out: &mut Vec<u8>, timestamp: &str, error: &str) {
    write_message(out, "error", timestamp, |data| {
        data.extend_from_slice(br#"{"error":"#);
        write_json_string(data, error);
        data.push(b'}');
    });
}

/// Appends a `gap` notice: `dropped` events of `topic` were left out here.
pub fn write_gap(out: &mut Vec<u8>, timestamp: &str, topic: &str, dropped: u32) {
    write_message(out, "gap", timestamp, |data| {
        data.extend_from_slice(br#"{"topic":"#);
        write_json_string(data, topic);
        data.extend_from_slice(format!(r#","dropped":{dropped}}}"#).as_bytes());
    });
}

/// Appends the heartbeat: a JSON `ping` for programs and a WebSocket ping for the protocol.
pub fn write_heartbeat(out: &mut Vec<u8>, timestamp: &str) {
    let text = format!(r#"{{"type":"ping","timestamp":"{timestamp}"}}"#);
    write_frame(out, Opcode::Text, text.as_bytes());
    write_frame(out, Opcode::Ping, b"");
}

/// Appends the answer to a client's JSON `ping`.
pub fn write_pong(out: &mut Vec<u8>, timestamp: &str) {
    let text = format!(r#"{{"type":"pong","timestamp":"{timestamp}"}}"#);
    write_frame(out, Opcode::Text, text.as_bytes());
}

fn write_message(out: &mut Vec<u8>, kind: &str, timestamp: &str, data: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = format!(r#"{{"type":"{kind}","timestamp":"{timestamp}","data":"#).into_bytes();
    data(&mut payload);
    payload.push(b'}');
    write_header(out, Opcode::Text, payload.len());
    out.extend_from_slice(&payload);
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

    fn subscribe(topics: &[&str]) -> Subscribe {
        Subscribe {
            topics: topics.iter().map(ToString::to_string).collect(),
            events: None,
            policy: Policy::Disconnect,
            client_id: None,
            since: None,
        }
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
        let expected = Command::Unsubscribe(vec!["scheduler".into()]);
        assert_eq!(parse(br#"{"type":"unsubscribe","categories":["scheduler"]}"#), Ok(expected));
    }

    #[test]
    fn topics_have_three_names_and_options_are_read() {
        for field in ["categories", "topics", "rooms"] {
            let text = format!(
                r#"{{"type":"subscribe","{field}":["a"],"events":["x","y"],"policy":"drop-oldest","clientId":null,"unknown":1}}"#
            );
            let expected = Subscribe {
                events: Some(vec!["x".into(), "y".into()]),
                policy: Policy::DropOldest,
                ..subscribe(&["a"])
            };
            assert_eq!(parse(text.as_bytes()), Ok(Command::Subscribe(expected)));
        }
    }

    #[test]
    fn a_client_that_wants_to_go_on_names_its_topics() {
        let text = br#"{"type":"subscribe","topics":["a"],"since":{"a":{"epoch":"x","offset":17},"b":null}}"#;
        let expected = Subscribe { since: Some(vec!["a".into(), "b".into()]), ..subscribe(&["a"]) };
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
        let names: Vec<String> = (0..=MAX_EVENT_NAMES).map(|n| format!("\"e{n}\"")).collect();
        let text = format!(r#"{{"type":"subscribe","topics":["a"],"events":[{}]}}"#, names.join(","));
        assert!(parse(text.as_bytes()).unwrap_err().contains("more than 100 names"));
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
            ("{\"type\":\"subscribe\",\"topics\":[\"\"]}", "topic name is empty"),
            ("{\"type\":\"subscribe\",\"topics\":[\"a\\u0000\"]}", "control character"),
            ("{\"type\":\"subscribe\",\"topics\":[\"run:*\"]}", "prefix pattern"),
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
        let read = |frame: &[u8]| -> serde_json::Value { serde_json::from_slice(&frame[2..]).unwrap() };
        let mut out = Vec::new();
        write_subscription_ack(&mut out, "T", ["a", "b\""].into_iter(), None);
        assert_eq!(
            read(&out),
            serde_json::json!({"type":"subscription-ack","timestamp":"T","data":{"categories":["a","b\""]}})
        );
        out.clear();
        write_subscription_ack(&mut out, "T", ["a"].into_iter(), Some(&["a".into(), "b".into()]));
        assert_eq!(
            read(&out)["data"],
            serde_json::json!({"categories":["a"],"recovered":false,"missing":{"a":null,"b":null}})
        );
        out.clear();
        write_error(&mut out, "T", "no \"way\"\n");
        assert_eq!(
            read(&out),
            serde_json::json!({"type":"error","timestamp":"T","data":{"error":"no \"way\"\n"}})
        );
        out.clear();
        write_gap(&mut out, "T", "t", 7);
        assert_eq!(
            read(&out),
            serde_json::json!({"type":"gap","timestamp":"T","data":{"topic":"t","dropped":7}})
        );
        out.clear();
        write_heartbeat(&mut out, "T");
        assert_eq!(out[out.len() - 2..], [0x89, 0]);
    }
}
