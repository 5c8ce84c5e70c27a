//! The second system's clients (docs/json-websocket.md): scopes by run, project and user in the query, and filters by
//! event name and category. Each event reaches exactly those that it should, once.

mod common;

use std::fmt::Write as _;

use common::foreign::Foreign;
use common::{Incoming, Node, PATIENCE, WebSocket, http};
use fanwire::client::{Event, Publisher};
use serde_json::{Value, json};

/// Its events: category and name.
const EVENTS: [(&str, &str); 12] = [
    ("run", "run-created"),
    ("run", "run-started"),
    ("run", "run-completed"),
    ("run", "run-failed"),
    ("stage", "stage-started"),
    ("stage", "stage-progress"),
    ("stage", "stage-completed"),
    ("stage", "stage-failed"),
    ("artifact", "artifact-created"),
    ("governance", "governance-required"),
    ("governance", "approval-granted"),
    ("governance", "approval-denied"),
];

/// Whom an event is for: all, one run, one project, one user, or several of these at once.
const TO: [&[&str]; 12] = [
    &["global"],
    &["run:1"],
    &["run:2"],
    &["run:11"],
    &["run:1", "project:p"],
    &["project:p"],
    &["project:q"],
    &["user:u"],
    &["user:u v"],
    &["user:p"],
    &["run:1", "project:p", "user:u", "global"],
    &["run:"],
];

/// Publishes every event to everyone of `TO`: the category first, then whom it is for.
fn publish_all(node: &Node) -> Vec<(Vec<&'static str>, &'static str)> {
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut published = Vec::new();
    for (category, event) in EVENTS {
        for to in TO {
            let topics: Vec<&str> = [&[category], to].concat();
            let data = json!({ "n": published.len() }).to_string();
            publisher.publish(&Event::new(&topics, event, &data)).unwrap();
            published.push((topics, event));
        }
    }
    publisher.close().unwrap();
    published
}

/// What a client wants: its topics, and its filters.
struct Wants {
    topics: &'static [&'static str],
    events: Option<&'static [&'static str]>,
    categories: Option<&'static [&'static str]>,
}

impl Wants {
    const fn all(topics: &'static [&'static str]) -> Self {
        Self { topics, events: None, categories: None }
    }

    /// The numbers of those of the published events that it should get.
    fn of(&self, published: &[(Vec<&str>, &str)]) -> Vec<u64> {
        let is_wanted = |(topics, event): &(Vec<&str>, &str)| {
            topics.iter().any(|topic| self.topics.contains(topic))
                && self.events.is_none_or(|names| names.contains(event))
                && self.categories.is_none_or(|names| names.contains(&topics[0]))
        };
        (0..).zip(published).filter(|(_, event)| is_wanted(event)).map(|(n, _)| n).collect()
    }
}

/// The numbers of the events that came, in order of number: between topics there is no other order. Checks each.
fn received(client: &mut WebSocket, published: &[(Vec<&str>, &str)]) -> Vec<u64> {
    // Everything was dispatched: what comes before the answer to this is all there is.
    client.send_json(&json!({"type": "ping"}));
    let mut numbers = Vec::new();
    loop {
        let message = client.next_json(PATIENCE);
        if message["type"] == "pong" {
            break;
        }
        let n = message["data"]["n"].as_u64().unwrap_or_else(|| panic!("{message}"));
        let (topics, event) = &published[n as usize];
        assert_eq!(
            (&message["type"], &message["category"], &message["event"]),
            (&json!("event"), &json!(topics[0]), &json!(event)),
        );
        numbers.push(n);
    }
    numbers.sort_unstable();
    numbers
}

/// Publishes everything, and waits until as much was dispatched as all clients together want.
fn publish_to(node: &Node, wanted: &[&Wants]) -> Vec<(Vec<&'static str>, &'static str)> {
    let published = publish_all(node);
    let all: usize = wanted.iter().map(|wants| wants.of(&published).len()).sum();
    node.wait_stats(&format!("{all} dispatched"), |stats| {
        stats["eventsIn"] == published.len() && stats["dispatched"] == all && stats["pending"] == 0
    });
    published
}

#[test]
fn an_event_reaches_exactly_those_whose_scope_it_is() {
    let clients = [
        ("", Wants::all(&[])),
        ("?other=1", Wants::all(&[])),
        ("?runId=1", Wants::all(&["run:1", "global"])),
        ("?runId=2", Wants::all(&["run:2", "global"])),
        ("?runId=1&runId=2", Wants::all(&["run:1", "run:2", "global"])),
        ("?projectId=p", Wants::all(&["project:p", "global"])),
        ("?userId=u", Wants::all(&["user:u", "global"])),
        ("?userId=u%20v", Wants::all(&["user:u v", "global"])),
        ("?userId=u+v", Wants::all(&["user:u v", "global"])),
        ("?runId=1&projectId=p", Wants::all(&["run:1", "project:p", "global"])),
        ("?runId=1&projectId=p&userId=u", Wants::all(&["run:1", "project:p", "user:u", "global"])),
        ("?userId=u&runId=1&clientId=me&x=y", Wants::all(&["run:1", "user:u", "global"])),
        ("?runId=1&categories=governance", Wants::all(&["run:1", "governance", "global"])),
        ("?topics=global", Wants::all(&["global"])),
        ("?rooms=run:1", Wants::all(&["run:1"])),
        ("?runId=never", Wants::all(&["run:never", "global"])),
    ];
    for shards in ["1", "2"] {
        let node = Node::start(&["--shards", shards, "--queue-events", "10000"]);
        let mut open: Vec<WebSocket> = clients
            .iter()
            .map(|(query, wants)| {
                let mut client = WebSocket::connect(node.http_addr(), &format!("/ws{query}"));
                if !wants.topics.is_empty() {
                    let ack = client.next_json(PATIENCE);
                    assert_eq!(ack["type"], "subscription-ack", "{query}");
                    let mut topics: Vec<&str> = ack["data"]["categories"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter_map(Value::as_str)
                        .collect();
                    let mut expected = wants.topics.to_vec();
                    topics.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(topics, expected, "{query}");
                }
                client
            })
            .collect();
        let published = publish_to(&node, &clients.iter().map(|(_, wants)| wants).collect::<Vec<_>>());
        for ((query, wants), client) in clients.iter().zip(&mut open) {
            assert_eq!(received(client, &published), wants.of(&published), "{query}");
        }
    }
}

#[test]
fn clients_in_three_languages_get_their_scope_field_by_field() {
    let node = Node::start(&[]);
    for script in ["client.mjs", "client.py", "gorilla"] {
        let url = format!("ws://{}/ws?runId=42&projectId=p%20q&userId=u%40example.org", node.http_addr());
        let mut client = Foreign::connect(script, &url);
        let ack = client.next_json();
        assert_eq!(ack["type"], "subscription-ack");
        let topics = json!(["run:42", "project:p q", "user:u@example.org", "global"]);
        assert_eq!(ack["data"], json!({"categories": topics}));
        for (category, event) in EVENTS {
            for to in ["run:42", "project:p q", "user:u@example.org", "global"] {
                let data = json!({
                    "runId": "42", "stageId": "s-1", "progress": 45.5, "message": "half \"way\"\n", "artifact": null,
                    "approvers": ["a", "b"], "metadata": {"nested": {"deep": true}},
                });
                node.publish(&[category, "run:43"], event, &json!("not for this one"));
                node.publish(&[category, to], event, &data);
                let message = client.next_json();
                assert_eq!(message["type"], "event");
                assert_eq!((&message["event"], &message["category"]), (&json!(event), &json!(category)));
                for (field, value) in data.as_object().unwrap() {
                    assert_eq!(&message["data"][field], value, "{script}: {field}");
                }
                assert_eq!(message["data"].as_object().unwrap().len(), data.as_object().unwrap().len());
                assert!(message["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
                assert_eq!(message.as_object().unwrap().len(), 5, "{message}");
            }
        }
        client.tell(&json!({"close": 1000}));
        assert_eq!(client.closed().0, 1000);
    }
}

#[test]
fn filters_mean_the_same_in_the_query_and_in_a_message() {
    let scope: &'static [&'static str] = &["run:1", "global"];
    let wants = |events, categories| Wants { topics: scope, events, categories };
    let cases: [(&str, Value, Wants); 9] = [
        ("", json!({}), wants(None, None)),
        (
            "events=stage-progress",
            json!({"events": ["stage-progress"]}),
            wants(Some(&["stage-progress"]), None),
        ),
        (
            "events=run-failed,stage-failed",
            json!({"events": ["run-failed", "stage-failed"]}),
            wants(Some(&["run-failed", "stage-failed"]), None),
        ),
        (
            "events=run-failed&events=stage-failed&events=run-failed",
            json!({"events": ["run-failed", "stage-failed", "run-failed"]}),
            wants(Some(&["run-failed", "stage-failed"]), None),
        ),
        ("onlyCategories=stage", json!({"onlyCategories": ["stage"]}), wants(None, Some(&["stage"]))),
        (
            "onlyCategories=stage,governance",
            json!({"onlyCategories": ["stage", "governance"]}),
            wants(None, Some(&["stage", "governance"])),
        ),
        (
            "onlyCategories=run%3A1",
            json!({"onlyCategories": ["run:1"]}),
            // Only the first topic of an event is its category.
            wants(None, Some(&["run:1"])),
        ),
        (
            "events=stage-failed,run-failed&onlyCategories=stage",
            json!({"events": ["stage-failed", "run-failed"], "onlyCategories": ["stage"]}),
            wants(Some(&["stage-failed", "run-failed"]), Some(&["stage"])),
        ),
        ("events=never", json!({"events": ["never"]}), wants(Some(&["never"]), None)),
    ];
    let node = Node::start(&["--shards", "2", "--queue-events", "10000"]);
    let mut open = Vec::new();
    for (query, message, wants) in &cases {
        let mut by_query = WebSocket::connect(node.http_addr(), &format!("/ws?runId=1&{query}"));
        assert_eq!(by_query.next_json(PATIENCE)["data"]["categories"], json!(scope));
        let mut by_message = node.websocket();
        let mut subscribe = message.clone();
        subscribe["type"] = "subscribe".into();
        subscribe["categories"] = json!(scope);
        by_message.send_json(&subscribe);
        assert_eq!(by_message.next_json(PATIENCE)["data"]["categories"], json!(scope));
        // One that changes its mind: the last word counts.
        let mut by_both =
            WebSocket::connect(node.http_addr(), "/ws?runId=1&events=run-created&onlyCategories=run");
        by_both.next_json(PATIENCE);
        by_both.send_json(&subscribe);
        assert_eq!(by_both.next_json(PATIENCE)["data"]["categories"], json!(scope));
        open.push((query, wants, [by_query, by_message, by_both]));
    }
    let wanted: Vec<&Wants> = open.iter().flat_map(|(_, wants, _)| [*wants; 3]).collect();
    let published = publish_to(&node, &wanted);
    for (query, wants, clients) in &mut open {
        for client in clients {
            assert_eq!(received(client, &published), wants.of(&published), "{query}");
        }
    }
}

#[test]
fn each_subscribe_has_its_own_filter() {
    let node = Node::start(&[]);
    let mut client = WebSocket::connect(node.http_addr(), "/ws?runId=1&events=run-created");
    client.next_json(PATIENCE);
    client.send_json(&json!({"type": "subscribe", "topics": ["project:p"], "onlyCategories": ["stage"]}));
    client.next_json(PATIENCE);
    let mut said = String::new();
    for topics in [
        &["run", "run:1"][..],
        &["stage", "project:p"],
        &["stage", "run:1", "project:p"],
        &["run", "project:p"],
    ] {
        for event in ["run-created", "stage-progress"] {
            node.publish(topics, event, &json!(topics.join(" ")));
        }
        node.publish(&["end", "run:1"], "run-created", &json!(null));
        loop {
            let message = client.next_json(PATIENCE);
            if message["category"] == "end" {
                break;
            }
            write!(said, "{}/{} ", message["data"].as_str().unwrap(), message["event"].as_str().unwrap())
                .unwrap();
        }
    }
    // An event of two topics comes where either subscription wants it, and once.
    assert_eq!(
        said,
        "run run:1/run-created stage project:p/run-created stage project:p/stage-progress \
         stage run:1 project:p/run-created stage run:1 project:p/stage-progress "
    );
}

#[test]
fn malformed_queries_are_refused_with_the_reason() {
    let node = Node::start(&["--max-subscriptions", "5"]);
    let mut bystander = WebSocket::connect(node.http_addr(), "/ws?runId=1");
    bystander.next_json(PATIENCE);
    let (longest, too_long) = ("x".repeat(251), "x".repeat(252));
    let (name, long_name) = ("é".repeat(128), "é".repeat(129));
    let names = |count: usize| (0..count).map(|n| format!("e{n}")).collect::<Vec<_>>().join(",");
    for (query, expected) in [
        ("runId=", "runId is empty"),
        ("runId", "runId is empty"),
        ("projectId=", "projectId is empty"),
        ("userId=&runId=1", "userId is empty"),
        ("runId=*", "pattern"),
        ("runId=1*", "pattern"),
        ("userId=%2A", "pattern"),
        ("topics=run:*", "pattern"),
        ("runId=%00", "control character"),
        ("projectId=a%0Ab", "control character"),
        ("userId=%C2%85", "control character"),
        (&format!("runId={too_long}"), "above 255"),
        ("runId=%zz", "hexadecimal"),
        ("runId=%", "hexadecimal"),
        ("%zz=1", "hexadecimal"),
        ("other=%2", "hexadecimal"),
        ("runId=%ff", "not UTF-8"),
        ("runId=%ED%A0%80", "not UTF-8"),
        ("categories=", "topic name is empty"),
        ("categories", "topic name is empty"),
        ("topics=a,,b", "topic name is empty"),
        ("rooms=a,", "topic name is empty"),
        ("topics=a,b,c,d,e,f", "max_subscriptions"),
        ("runId=1&events=", "event name is empty"),
        ("runId=1&events=a,,b", "event name is empty"),
        ("runId=1&events=a%00", "control character"),
        (&format!("runId=1&events={}", names(101)), "more than 100 event names"),
        ("runId=1&onlyCategories=", "category name is empty"),
        ("runId=1&onlyCategories=a%0A", "control character"),
        (&format!("runId=1&onlyCategories={}", names(101)), "more than 100 category names"),
        ("runId=1&policy=", "there are disconnect"),
        ("runId=1&policy=never", "there are disconnect"),
        ("runId=1&clientId=", "clientId"),
        (&format!("runId=1&clientId={}", percent(&long_name)), "1 to 128 characters"),
    ] {
        let head = format!("/ws?{query}");
        let upgrade = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        // `http` sends `Connection: close` besides: both are tokens of one list.
        let (status, _, body) = http(node.http_addr(), "GET", &head, &upgrade, b"");
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 400, "{query}: {body}");
        let error: Value = serde_json::from_str(&body).unwrap();
        let error = error["error"].as_str().unwrap();
        assert!(error.contains(expected), "{query}: {error}");
        node.publish(&["run:1"], "e", &json!(query));
        assert_eq!(bystander.next_json(PATIENCE)["data"], query, "nobody else notices");
    }
    // What is just right is served.
    for query in [
        format!("runId={longest}"),
        format!("runId=1&events={}", names(100)),
        format!("runId=1&clientId={}", percent(&name)),
        "topics=a,b,c,d,e".to_owned(),
        "topics=a,a,a,a,a,a,a".to_owned(),
        "&&runId=1&&".to_owned(),
        "=&x".to_owned(),
    ] {
        let client = WebSocket::try_connect(node.http_addr(), &format!("/ws?{query}"));
        let mut client = client.unwrap_or_else(|error| panic!("{query}: {error}"));
        client.send_json(&json!({"type": "ping"}));
        assert!(matches!(client.next(PATIENCE), Incoming::Text(_)), "{query}");
    }
    node.wait_stats("the bystander alone", |stats| stats["connections"] == 1);
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
