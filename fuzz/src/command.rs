//! Clients' JSON messages: whatever comes, a command that holds to every bound or one error that can be written.

use std::collections::HashSet;

use fanwire::catalog::json::{Fault, Tree};
use fanwire::dialect::command::{Command, MAX_CLIENT_ID_CHARS, MAX_FILTER_NAMES, Since, Subscribe};
use fanwire::dialect::dialect::Dialect;
use fanwire::dialect::json;
use fanwire::proto::websocket::{Opcode, payload};
use fanwire::topic::name::{check_name, check_topic_or_pattern};
use serde_json::Value;

pub fn fuzz(input: &[u8]) {
    for dialect in Dialect::ALL {
        let _ = dialect.read(Opcode::Text, input);
    }
    let Ok(text) = std::str::from_utf8(input) else { return }; // No text message comes that far.
    match json::parse(input) {
        Ok(command) => check(&command, text),
        Err(error) => check_error(&error),
    }
}

fn check(command: &Command, text: &str) {
    // Another reader: what it refuses, or says is there twice, was not understood either.
    let tree = match Tree::parse(text) {
        Err(Fault::NotJson) => panic!("it is no JSON text"),
        Err(Fault::Duplicate { pointer, name }) => {
            let is_read = match pointer.as_str() {
                "" => FIELDS.contains(&name.as_str()),
                "/since" => matches!(command, Command::Subscribe(_) | Command::Unsubscribe(_)),
                _ => false,
            };
            assert!(!is_read, "{name} stands twice in {pointer:?}");
            return;
        }
        Err(Fault::TooDeep | Fault::TooLarge) => return,
        Ok(tree) => tree,
    };
    let kind = tree.root().get("type").expect("a message says what it is").string();
    match command {
        Command::Subscribe(subscribe) => {
            assert_eq!(kind, "subscribe");
            check_subscribe(subscribe, check_topic_or_pattern);
        }
        Command::Unsubscribe(topics) => {
            assert_eq!(kind, "unsubscribe");
            // By the name that it has: a path may have brought one with a `*` in it.
            check_topics(topics, |name| check_name("topic", name));
        }
        Command::Ping => assert_eq!(kind, "ping"),
        Command::Pong => assert_eq!(kind, "pong"),
        Command::Echo(_) => panic!("JSON has no echo"),
    }
}

/// Every field that is read, by each of its names.
const FIELDS: [&str; 10] = [
    "type",
    "categories",
    "topics",
    "rooms",
    "events",
    "onlyCategories",
    "policy",
    "clientId",
    "since",
    "last",
];

/// What holds of a subscribe, whose topics are checked like this.
pub fn check_subscribe(subscribe: &Subscribe, check: impl Fn(&str) -> Result<(), String>) {
    let Subscribe { topics, events, only_categories, client_id, since, .. } = subscribe;
    check_topics(topics, check);
    for names in [events, only_categories].into_iter().flatten() {
        assert!(names.is_sorted() && names.len() <= MAX_FILTER_NAMES);
        assert!(names.iter().all(|name| check_name("name", name).is_ok()));
    }
    if let Some(id) = client_id {
        assert!((1..=MAX_CLIENT_ID_CHARS).contains(&id.chars().count()));
        // What ends each of its events.
        let whole = [br#"{"a":1"#, &json::client_id_suffix(id)[..]].concat();
        let whole: Value = serde_json::from_slice(&whole).expect("the suffix ends an object");
        assert_eq!(whole["clientId"], id.as_str());
    }
    let positions: Vec<_> = topics.iter().map(|topic| (topic.as_str(), None)).collect();
    let missing: Option<Vec<_>> = match since {
        Some(Since::Positions(positions)) => Some(
            positions.iter().map(|(topic, at)| (topic.clone(), at.map(|at| (at.offset, at.epoch)))).collect(),
        ),
        _ => None,
    };
    is_message(&json::subscription_ack("T", &positions, missing.as_deref()), "subscription-ack");
    is_message(&json::unsubscription_ack("T", topics.iter().map(String::as_str)), "unsubscription-ack");
}

fn check_topics(topics: &[String], check: impl Fn(&str) -> Result<(), String>) {
    assert!(topics.iter().all(|topic| check(topic).is_ok()));
    let different: HashSet<_> = topics.iter().collect();
    assert_eq!(different.len(), topics.len());
}

fn check_error(error: &str) {
    assert!(!error.is_empty());
    is_message(&json::error("T", error), "error");
    for dialect in Dialect::ALL {
        let mut out = Vec::new();
        dialect.write_error(&mut out, "T", error);
        if dialect.is_web_socket() {
            is_message(payload(&out), "error");
        } else {
            let mut parser = super::sse::Parser::default();
            parser.push(&out);
            assert!(matches!(parser.next(), Some(super::sse::Item::Event { name, .. }) if name == "error"));
            assert!(parser.next().is_none() && !parser.is_partial(), "one event and nothing else");
        }
    }
}

fn is_message(text: &[u8], kind: &str) {
    let value: Value = serde_json::from_slice(text).expect("the node's messages are JSON");
    assert_eq!((&value["type"], &value["timestamp"]), (&kind.into(), &"T".into()));
}
