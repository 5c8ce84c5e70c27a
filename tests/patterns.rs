//! Prefix patterns on a real node: what reaches whom and how often, what is left out and told, limits, and what a
//! pattern leaves behind.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::foreign::Foreign;
use common::sse::EventStream;
use common::{Incoming, Node, PATIENCE, Signal, WebSocket, http, seed, wait_until};
use fanwire::client::{Event, Publisher, Reach};
use serde_json::{Value, json};

/// What a client does not read soon waits in the node.
const NARROW: [&str; 4] = ["--send-buffer", "8KiB", "--queue-events", "20"];

fn publisher(node: &Node) -> Publisher {
    Publisher::open(&node.publish_addr().to_string()).unwrap()
}

/// Publishes one event; it is accepted when this returns.
fn publish(publisher: &mut Publisher, topics: &[&str], event: &str, n: u64) {
    publisher.publish(&Event::new(topics, event, &n.to_string())).unwrap();
    publisher.settle().unwrap();
}

fn subscribe(client: &mut WebSocket, message: &Value) -> Value {
    let mut all = json!({"type": "subscribe"});
    all.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
    client.send_json(&all);
    let answer = client.next_json(PATIENCE);
    assert_eq!(answer["type"], "subscription-ack", "{answer}");
    answer["data"].clone()
}

/// The error that a subscribe gets.
fn refused(client: &mut WebSocket, message: &Value) -> String {
    let mut all = json!({"type": "subscribe"});
    all.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
    client.send_json(&all);
    let answer = client.next_json(PATIENCE);
    assert_eq!(answer["type"], "error", "{answer}");
    answer["data"]["error"].as_str().unwrap().to_owned()
}

/// Category and data of the next message, which is an event.
fn next_event(client: &mut WebSocket) -> (String, u64) {
    let event = client.next_json(PATIENCE);
    assert_eq!(event["type"], "event", "{event}");
    (event["category"].as_str().unwrap().to_owned(), event["data"].as_u64().unwrap())
}

/// The node answers after everything that it has for this client: so nothing else was to come.
fn has_nothing_more(client: &mut WebSocket) {
    client.send_json(&json!({"type": "ping"}));
    assert_eq!(client.next_json(PATIENCE)["type"], "pong");
}

/// The value of a metric.
fn metric(node: &Node, name: &str) -> u64 {
    let (status, _, body) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    assert_eq!(status, 200);
    let text = String::from_utf8(body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("fanwire_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap() as u64
}

#[test]
fn foreign_clients_get_what_a_pattern_matches() {
    let node = Node::start(&["--shards", "2"]);
    let mut publisher = publisher(&node);
    for script in ["client.mjs", "client.py"] {
        let mut client = Foreign::connect(script, &format!("ws://{}/ws", node.http_addr()));
        client.send(&json!({"type": "subscribe", "topics": ["run:*", "run:4*"], "clientId": "me"}));
        let ack = client.next_json();
        assert_eq!(
            (&ack["type"], &ack["data"]),
            (&"subscription-ack".into(), &json!({"categories": ["run:*", "run:4*"]}))
        );
        for topic in ["runs", "run:", "run", "RUN:4", "run:42"] {
            publisher.publish(&Event::new(&[topic], "step", "{\"a\": 1}")).unwrap();
        }
        publisher.settle().unwrap();
        for category in ["run:", "run:42"] {
            let text = client.next_text();
            let event: Value = serde_json::from_str(&text).unwrap();
            let timestamp = event["timestamp"].as_str().unwrap();
            assert_eq!(
                text,
                format!(
                    r#"{{"type":"event","event":"step","category":"{category}","data":{{"a": 1}},"timestamp":"{timestamp}","clientId":"me"}}"#
                )
            );
        }
        client.send(&json!({"type": "unsubscribe", "categories": ["run:*", "never:*", "run:4*"]}));
        let ack = client.next_json();
        assert_eq!((&ack["type"], &ack["data"]), (&"unsubscription-ack".into(), &json!({"categories": []})));
    }
    node.wait_stats("no pattern", |stats| stats["patterns"] == 0 && stats["rooms"] == 0);
}

#[test]
fn an_event_comes_once_however_many_patterns_and_topics_fit() {
    let node = Node::start(&["--shards", "2"]);
    let mut publisher = publisher(&node);
    let sets: [&[&str]; 8] = [
        &["run:42"],
        &["run:*"],
        &["run:*", "run:42"],
        &["run:42", "run:*", "run:4*", "r*"],
        &["stage", "project:*", "run:4*"],
        &["run:42*"],
        &["run:5*", "runs*", "project:p"],
        &["stage"],
    ];
    // Two of each: on two shards, most likely.
    let mut clients: Vec<(&[&str], WebSocket)> =
        sets.iter().chain(&sets).map(|set| (*set, node.websocket())).collect();
    for (set, client) in &mut clients {
        assert_eq!(client.subscribe(set)["data"]["categories"], json!(set));
    }
    let events: [&[&str]; 9] = [
        &["run:42"],
        &["run:4"],
        &["run:421"],
        &["stage", "run:42", "project:p"],
        &["run:5", "run:42"],
        &["run:42", "run:42", "run:43"],
        &["stage"],
        &["run:*"],
        &["other", "thing"],
    ];
    let is_for = |set: &[&str], topics: &[&str]| {
        set.iter().any(|wanted| {
            topics.iter().any(|topic| match wanted.strip_suffix('*') {
                Some(prefix) => topic.starts_with(prefix),
                None => topic == wanted,
            })
        })
    };
    for round in 0..20 {
        for (n, topics) in (round * 100..).zip(events) {
            publisher.publish(&Event::new(topics, "e", &n.to_string())).unwrap();
        }
    }
    publisher.settle().unwrap();
    let mut delivered = 0;
    for (set, client) in &mut clients {
        for round in 0..20 {
            for (n, topics) in (round * 100..).zip(events) {
                if is_for(set, topics) {
                    assert_eq!(next_event(client), (topics[0].to_owned(), n), "to {set:?}");
                    delivered += 1;
                }
            }
        }
        has_nothing_more(client);
    }
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["dispatched"], &stats["deliveries"]), (&delivered.into(), &delivered.into()));
    assert_eq!(stats["dropped"], json!({}));
    assert_eq!((&stats["eventsPatternMatched"], &stats["eventsUnsubscribed"]), (&140.into(), &20.into()));
}

#[test]
fn patterns_come_and_go_while_events_pour_in() {
    let node = Node::start(&["--shards", "2"]);
    let mut random = fastrand::Rng::with_seed(seed());
    let mut publisher = publisher(&node);
    let mut clients: Vec<(WebSocket, BTreeSet<String>)> =
        (0..4).map(|_| (node.websocket(), BTreeSet::new())).collect();
    let names = ["a", "ab", "ab:1", "ab:2", "b:1"];
    let asked = ["a", "ab:1", "b:1", "a*", "ab*", "ab:*", "ab:1*", "b*"];
    let mut delivered = 0;
    for n in 0..1500_u64 {
        let (client, topics) = random.choice(&mut clients[..]).unwrap();
        let wanted = *random.choice(&asked[..]).unwrap();
        let ack = match random.u8(..6) {
            0 => {
                topics.insert(wanted.to_owned());
                Some(client.subscribe(&[wanted]))
            }
            1 => {
                topics.remove(wanted);
                Some(client.unsubscribe(&[wanted]))
            }
            _ => None,
        };
        if let Some(ack) = ack {
            let set: BTreeSet<String> = serde_json::from_value(ack["data"]["categories"].clone()).unwrap();
            assert_eq!(set, *topics);
        }
        let count = random.usize(1..4);
        let of_it: Vec<&str> = (0..count).map(|_| *random.choice(&names[..]).unwrap()).collect();
        publish(&mut publisher, &of_it, "e", n);
        for (client, topics) in &mut clients {
            let is_wanted = topics.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(prefix) => of_it.iter().any(|topic| topic.starts_with(prefix)),
                None => of_it.contains(&wanted.as_str()),
            });
            if is_wanted {
                assert_eq!(next_event(client), (of_it[0].to_owned(), n));
                delivered += 1;
            }
        }
    }
    for (client, topics) in &mut clients {
        has_nothing_more(client);
        let all: Vec<&str> = topics.iter().map(String::as_str).collect();
        assert_eq!(client.unsubscribe(&all)["data"]["categories"], json!([]));
    }
    assert!(delivered > 500, "{delivered}");
    let is_empty = |stats: &Value| {
        ["patterns", "rooms", "subscriptions", "pending"].iter().all(|figure| stats[figure] == 0)
            && stats["outbox"]["heldBytes"] == 0
    };
    node.wait_stats("nothing left", is_empty);
    // Without patterns a publish asks for none.
    let before = metric(&node, "pattern_probes_total");
    publish(&mut publisher, &["ab:1"], "e", 0);
    assert_eq!((metric(&node, "pattern_probes_total"), metric(&node, "patterns")), (before, 0));
}

#[test]
fn filters_hold_for_what_a_pattern_matches() {
    let node = Node::start(&[]);
    let mut publisher = publisher(&node);
    let (mut by_event, mut by_category, mut both) = (node.websocket(), node.websocket(), node.websocket());
    subscribe(&mut by_event, &json!({"topics": ["run:*"], "events": ["step", "done"]}));
    subscribe(&mut by_category, &json!({"topics": ["run:*"], "onlyCategories": ["stage", "run:7"]}));
    // What the filter of one subscription keeps out, another may bring.
    subscribe(&mut both, &json!({"topics": ["run:*"], "events": ["done"]}));
    subscribe(&mut both, &json!({"topics": ["run:4*"]}));
    for (n, (topics, event)) in [
        (&["run:42"][..], "step"),
        (&["run:7"], "log"),
        (&["run:7"], "done"),
        (&["stage", "run:42"], "log"),
        (&["other", "run:7"], "step"),
    ]
    .into_iter()
    .enumerate()
    {
        publish(&mut publisher, topics, event, n as u64);
    }
    for (client, expected) in
        [(&mut by_event, &[0, 2, 4][..]), (&mut by_category, &[1, 2, 3]), (&mut both, &[0, 2, 3])]
    {
        for n in expected {
            assert_eq!(next_event(client).1, *n);
        }
        has_nothing_more(client);
    }
    // A repeated subscribe replaces the filter.
    subscribe(&mut by_event, &json!({"topics": ["run:*"]}));
    publish(&mut publisher, &["run:1"], "log", 9);
    assert_eq!(next_event(&mut by_event), ("run:1".to_owned(), 9));
    assert_eq!(node.stats()["subscriptions"], 4);
}

#[test]
fn gaps_of_patterns_are_exact_and_name_them() {
    const EVENTS: u64 = 600;
    let padding = "x".repeat(1000);
    for policy in ["drop-oldest", "drop-newest", "conflate"] {
        let node = Node::start(&[&NARROW[..], &["--shards", "2"]].concat());
        let mut healthy = node.websocket();
        healthy.subscribe(&["run:1", "run:*"]);
        let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
        // What it has by name counts there, whatever pattern matches it as well.
        subscribe(&mut slow, &json!({"topics": ["r*", "run:*", "run:0"], "policy": policy}));
        let mut publisher = publisher(&node);
        let topics = ["run:0", "run:1", "run:2"];
        for n in 0..EVENTS {
            let key = ["", "a", "b"][(n / 3 % 3) as usize];
            let data = format!("{{\"n\":{n},\"padding\":\"{padding}\"}}");
            let topic = topics[(n % 3) as usize];
            publisher.publish(&Event { key, ..Event::new(&[topic], "e", &data) }).unwrap();
            if n % 20 == 19 {
                publisher.settle().unwrap();
                for n in n - 19..=n {
                    assert_eq!(healthy.next_json(PATIENCE)["data"]["n"], n);
                }
            }
        }
        // Its own shard may be behind that of the healthy one: as long as it is, what is read makes room for what comes.
        node.wait_stats("everything dispatched", |stats| stats["dispatched"] == 2 * EVENTS);
        // By the subscription that it came through: run:0 by its name, the others by the longest pattern.
        let through = |category: &str| if category == "run:0" { "run:0" } else { "run:*" };
        let (mut received, mut waiting) = (BTreeMap::<&str, u64>::new(), BTreeMap::<String, u64>::new());
        let (mut gaps, mut conflated, mut count) = (0, 0, 0);
        while count + gaps < EVENTS {
            let message = slow.next_json(PATIENCE);
            if message["type"] == "gap" {
                let topic = message["data"]["topic"].as_str().unwrap().to_owned();
                let dropped = message["data"]["dropped"].as_u64().unwrap();
                gaps += dropped;
                conflated += message["data"]["conflated"].as_u64().unwrap_or_default();
                assert_eq!(waiting.insert(topic, dropped), None, "two notices for one gap");
                continue;
            }
            let n = message["data"]["n"].as_u64().unwrap();
            let name = through(message["category"].as_str().unwrap());
            // Events of the subscription before this one, however they came.
            let before = if name == "run:0" { n / 3 } else { n - n.div_ceil(3) };
            let had = received.entry(name).or_default();
            *had += waiting.remove(name).unwrap_or_default();
            assert_eq!(*had, before, "{policy}: before event {n} of {name}");
            *had += 1;
            count += 1;
        }
        // Where the newest go, no event follows the last gaps.
        assert_eq!(waiting.is_empty(), policy != "drop-newest", "{waiting:?}");
        for (name, had) in &mut received {
            *had += waiting.remove(*name).unwrap_or_default();
        }
        assert_eq!(received, BTreeMap::from([("run:*", EVENTS / 3 * 2), ("run:0", EVENTS / 3)]));
        assert!(gaps > 100, "{gaps}");
        assert_eq!(conflated > 0, policy == "conflate");
        let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
        let dropped: u64 = stats["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!((dropped, &stats["dispatched"]), (gaps, &(2 * EVENTS).into()));
        has_nothing_more(&mut slow);
        publish(&mut publisher, &["run:9"], "e", 9);
        assert_eq!(next_event(&mut slow), ("run:9".to_owned(), 9));
    }
}

#[test]
fn keys_of_different_topics_are_different_keys_to_a_pattern() {
    let node = Node::start(&[&NARROW[..], &["--shards", "1"]].concat());
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
    subscribe(&mut slow, &json!({"topics": ["run:*"], "policy": "conflate"}));
    // On the same shard, and by name: its bytes are the same, its keys the topic's.
    let mut named = node.websocket();
    named.subscribe(&["stage"]);
    let mut publisher = publisher(&node);
    let padding = "x".repeat(1000);
    let mut count = 0;
    let mut publish = |run: &str| {
        let data = format!("{{\"run\":\"{run}\",\"padding\":\"{padding}\"}}");
        let topics = ["stage", run];
        publisher.publish(&Event { key: "state", ..Event::new(&topics, "e", &data) }).unwrap();
        publisher.settle().unwrap();
        assert_eq!(named.next_json(PATIENCE)["data"]["run"], run);
        count += 1;
    };
    while node.stats()["outbox"]["blockedClients"] != 1 {
        publish("run:busy");
    }
    publish("run:quiet");
    (0..100).for_each(|_| publish("run:busy"));
    // Only its own topics' newer events may replace an event, however many others have its key.
    let (mut came, mut gaps, mut conflated, mut quiet) = (0, 0, 0, 0);
    while came + gaps < count {
        let message = slow.next_json(PATIENCE);
        if message["type"] == "gap" {
            gaps += message["data"]["dropped"].as_u64().unwrap();
            conflated += message["data"]["conflated"].as_u64().unwrap_or_default();
        } else {
            came += 1;
            quiet += u64::from(message["data"]["run"] == "run:quiet");
        }
    }
    assert_eq!((quiet, conflated), (1, gaps), "{came} of {count} came");
    assert!(gaps >= 70, "{gaps}");
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["dropped"], &stats["dispatched"]), (&json!({"conflated": gaps}), &(2 * count).into()));
    assert_eq!(metric(&node, "envelope_writes_total"), count, "written once for both");
}

#[test]
fn a_slow_client_of_a_pattern_is_closed_like_any_other() {
    let node = Node::start(&NARROW);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
    subscribe(&mut slow, &json!({"topics": ["run:*"], "clientId": "stuck"}));
    let mut publisher = publisher(&node);
    let data = format!("\"{}\"", "x".repeat(1000));
    let mut n = 0;
    let closed = wait_until(PATIENCE, || {
        for _ in 0..20 {
            n += 1;
            publisher.publish(&Event::new(&[&format!("run:{n}")], "e", &data)).unwrap();
        }
        publisher.settle().unwrap();
        (node.stats()["closed"]["slow_consumer"] == 1).then_some(())
    });
    assert!(closed.is_some(), "it was not closed");
    assert_eq!(slow.wait_closed(PATIENCE).unwrap().0, 4008);
    let line = node.wait_log("the slow client", |line| line.contains("client closed as slow"));
    assert!(line.contains(r#"topics=["run:*"]"#), "{line}");
    let stats = node.wait_stats("nothing left", |stats| stats["connections"] == 0);
    assert_eq!((&stats["patterns"], &stats["rooms"]), (&0.into(), &0.into()));
}

#[test]
fn limits_refuse_whole_and_by_name() {
    let node =
        Node::start(&["--max-patterns-per-client", "3", "--max-topics", "6", "--max-subscriptions", "5"]);
    let mut client = node.websocket();
    client.subscribe(&["a*", "a"]);
    let error = refused(&mut client, &json!({"topics": ["b*", "b", "c*", "d*"], "clientId": "x"}));
    assert!(error.contains("more than 3 patterns (max_patterns_per_client)"), "{error}");
    let error = refused(&mut client, &json!({"topics": ["b", "*"]}));
    assert!(error.contains("fewer than 1 bytes") && error.contains("min_pattern_prefix"), "{error}");
    for (name, part) in
        [("run:*:log", "not its last character"), ("a**", "not its last"), ("*b", "not its last")]
    {
        let error = refused(&mut client, &json!({"topics": ["b", name]}));
        assert!(error.contains(part) && error.contains(name), "{error}");
    }
    let error = refused(&mut client, &json!({"topics": ["b", &format!("{}*", "x".repeat(255))]}));
    assert!(error.contains("256 bytes"), "{error}");
    for (message, part) in [
        (json!({"topics": ["b*"], "policy": "replay"}), "a pattern, has none"),
        (json!({"topics": ["b*", "b", "c", "d"]}), "max_subscriptions"),
    ] {
        let error = refused(&mut client, &message);
        assert!(error.contains(part), "{error}");
    }
    // Nothing of all that stays, and what it has already counts once.
    let stats = node.stats();
    assert_eq!(
        (&stats["subscriptions"], &stats["patterns"], &stats["rooms"]),
        (&2.into(), &1.into(), &2.into())
    );
    assert_eq!(
        client.subscribe(&["b*", "a*", "c*", "b*"])["data"]["categories"],
        json!(["a*", "a", "b*", "c*"])
    );
    let long = format!("{}*", "x".repeat(254));
    let mut other = node.websocket();
    let error = refused(&mut other, &json!({"topics": ["d", "e*", long]}));
    assert!(error.contains("max_topics"), "{error}");
    other.subscribe(&[&long, "a*"]);
    node.publish(&[&"x".repeat(255)], "e", &json!(1));
    node.publish(&["a"], "e", &json!(2));
    assert_eq!(next_event(&mut other).1, 1);
    assert_eq!(next_event(&mut other), ("a".to_owned(), 2));
    assert_eq!(next_event(&mut client), ("a".to_owned(), 2), "the refused requests gave no name");
    assert_eq!((metric(&node, "patterns"), metric(&node, "topics")), (4, 5));
    drop((client, other));
    node.wait_stats("nothing left", |stats| stats["rooms"] == 0 && stats["patterns"] == 0);
}

#[test]
fn every_length_of_pattern_at_once_costs_a_look_up_each() {
    let node = Node::start(&["--shards", "2"]);
    let mut clients: Vec<WebSocket> = (0..16).map(|_| node.websocket()).collect();
    let long = "x".repeat(255);
    for (n, client) in clients.iter_mut().enumerate() {
        let patterns: Vec<String> =
            (1..=254).skip(n).step_by(16).map(|length| format!("{}*", &long[..length])).collect();
        let names: Vec<&str> = patterns.iter().map(String::as_str).collect();
        client.subscribe(&names);
    }
    let mut publisher = publisher(&node);
    for n in 0..100 {
        publish(&mut publisher, &[&long, &long[1..]], "e", n);
    }
    for client in &mut clients {
        (0..100).for_each(|n| assert_eq!(next_event(client), (long.clone(), n)));
        has_nothing_more(client);
    }
    assert_eq!((metric(&node, "patterns"), metric(&node, "pattern_probes_total")), (254, 25_400));
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["dispatched"], &stats["dropped"]), (&1_600.into(), &json!({})));
    publish(&mut publisher, &["y", "yx"], "e", 0);
    assert_eq!(metric(&node, "pattern_probes_total"), 25_400 + 1 + 1);
    drop(clients);
    node.wait_stats("nothing left", |stats| stats["patterns"] == 0 && stats["rooms"] == 0);
}

#[test]
fn patterns_that_are_there_outlive_a_stricter_limit() {
    let node = Node::start_with_file("max_patterns_per_client = 3\n", &[]);
    let mut client = node.websocket();
    client.subscribe(&["a*", "b*"]);
    std::fs::write(node.dir().join("fanwire.toml"), "max_patterns_per_client = 0\n").unwrap();
    node.signal(Signal::HUP);
    // Its shard takes the limit in its own time.
    let is_taken = || {
        client.send_json(&json!({"type": "subscribe", "topics": ["c*"]}));
        let is_error = client.next_json(PATIENCE)["type"] == "error";
        if !is_error {
            client.unsubscribe(&["c*"]);
        }
        is_error.then_some(())
    };
    assert!(wait_until(PATIENCE, is_taken).is_some(), "the new limit did not come");
    let error = refused(&mut client, &json!({"topics": ["a*", "c*"]}));
    assert!(error.contains("max_patterns_per_client is 0"), "{error}");
    // What it has it may ask for again, with a filter now, and leave.
    subscribe(&mut client, &json!({"topics": ["a*"], "events": ["done"]}));
    for (n, (topic, event)) in [("a1", "step"), ("a1", "done"), ("b1", "step")].into_iter().enumerate() {
        node.publish(&[topic], event, &json!(n));
    }
    assert_eq!(next_event(&mut client), ("a1".to_owned(), 1));
    assert_eq!(next_event(&mut client), ("b1".to_owned(), 2));
    assert_eq!(client.unsubscribe(&["a*"])["data"]["categories"], json!(["b*"]));
    assert!(refused(&mut client, &json!({"topics": ["a*"]})).contains("max_patterns_per_client is 0"));
}

#[test]
fn patterns_can_be_turned_off_and_everything_may_be_allowed() {
    let off = Node::start(&["--max-patterns-per-client", "0"]);
    let mut client = off.websocket();
    let error = refused(&mut client, &json!({"topics": ["run:*"]}));
    assert!(error.contains("max_patterns_per_client is 0"), "{error}");
    client.subscribe(&["run:1"]);
    off.publish(&["run:1"], "e", &json!(1));
    assert_eq!(next_event(&mut client).1, 1);

    let all = Node::start(&["--min-pattern-prefix", "0"]);
    let mut client = all.websocket();
    client.subscribe(&["*"]);
    for (n, topics) in [&["a"][..], &["é", "b"], &["*"]].into_iter().enumerate() {
        all.publish(topics, "e", &json!(n));
        assert_eq!(next_event(&mut client), (topics[0].to_owned(), n as u64));
    }
    assert_eq!((metric(&all, "pattern_probes_total"), metric(&all, "events_pattern_matched_total")), (3, 3));
    assert_eq!(all.stats()["eventsUnsubscribed"], 0);

    let four = Node::start(&["--min-pattern-prefix", "4"]);
    let mut client = four.websocket();
    let error = refused(&mut client, &json!({"topics": ["run*"]}));
    assert!(error.contains("fewer than 4 bytes"), "{error}");
    client.subscribe(&["run:*"]);
}

#[test]
fn nothing_else_takes_patterns() {
    let stream =
        "[[stream]]\npath = \"/runs/{id}/stream\"\ntopic = \"run:{id}\"\nenvelope = '{\"d\":{data}}'\n";
    let node = Node::start_with_file(stream, &[]);
    for path in
        ["/ws?topics=run:*", "/ws?runId=*", "/ws?categories=a,*", "/runs/*/stream", "/runs/%2A/stream"]
    {
        let error = WebSocket::try_connect(node.http_addr(), path).unwrap_err().to_string();
        assert!(error.contains("400"), "{path}: {error}");
    }
    for path in ["/sse?topics=run:*", "/sse?runId=*", "/runs/4*/stream", "/runs/%2a/stream"] {
        let accept = ("Accept", "text/event-stream");
        let (status, _, body) = http(node.http_addr(), "GET", path, &[accept], b"");
        let body = String::from_utf8(body).unwrap();
        assert!(status == 400 && body.contains("pattern"), "{path}: {status} {body}");
    }
    // What stands elsewhere in a name is a letter like any other, as it is to publishers.
    let mut client = WebSocket::connect(node.http_addr(), "/ws?topics=a*b");
    let mut events = EventStream::open(node.http_addr(), "/sse?topics=a*b");
    assert_eq!(client.next_json(PATIENCE)["data"]["categories"], json!(["a*b"]));
    for (n, topic) in ["axb", "a*", "a*b"].iter().enumerate() {
        node.publish(&[topic], "e", &json!(n));
    }
    assert_eq!(next_event(&mut client), ("a*b".to_owned(), 2));
    assert_eq!(events.next_event().1["data"], 2);
    assert_eq!(client.unsubscribe(&["a*b"])["data"]["categories"], json!([]));
    assert_eq!(node.stats()["patterns"], 0);
}

const HISTORY: &str = r#"
[[topic]]
prefix = "run:"
history = { events = 1000, bytes = "8MiB", age = "1h" }

[[topic]]
prefix = "run:safe:"
policies = ["drop-oldest", "disconnect"]

[[topic]]
prefix = "log:"
policies = ["drop-newest"]
"#;

#[test]
fn a_pattern_has_no_history_and_disturbs_nobodys() {
    let node = Node::start_with_file(HISTORY, &["--shards", "2"]);
    let mut publisher = publisher(&node);
    publish(&mut publisher, &["run:1"], "e", 1);
    let (mut pattern, mut named) = (node.websocket(), node.websocket());
    // Neither `last` nor `since` brings anything of a pattern; it is told like a topic without history.
    let since = json!({"run:*": {"epoch": "0000000000000001", "offset": 0}});
    let ack = subscribe(&mut pattern, &json!({"topics": ["run:*"], "last": true, "since": since}));
    assert_eq!(ack, json!({"categories": ["run:*"], "recovered": false, "missing": {"run:*": null}}));
    let ack = subscribe(&mut named, &json!({"topics": ["run:1", "run:*"]}));
    let position = ack["positions"]["run:1"].clone();
    assert_eq!((&ack["positions"]["run:*"], &position["offset"]), (&Value::Null, &1.into()));
    // The same bytes for all: the offset is that of the event's category.
    publish(&mut publisher, &["run:1"], "e", 2);
    publish(&mut publisher, &["stage", "run:1", "run:2"], "e", 3);
    let texts = [0; 2].map(|_| (pattern.next_text(PATIENCE), named.next_text(PATIENCE)));
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (one, other) in &texts {
        assert_eq!(one, other);
    }
    let (first, second) = (read(&texts[0].0), read(&texts[1].0));
    assert_eq!((&first["offset"], first.get("offsets")), (&2.into(), None));
    assert_eq!((second.get("offset"), &second["offsets"]), (None, &json!({"run:1": 3, "run:2": 1})));
    has_nothing_more(&mut pattern);
    has_nothing_more(&mut named);
    // Who comes back to the topic gets all, once, while a pattern of his matches as well.
    let mut back = node.websocket();
    back.subscribe(&["run:*"]);
    publish(&mut publisher, &["run:1"], "e", 4);
    assert_eq!(next_event(&mut back), ("run:1".to_owned(), 4));
    let ack = subscribe(&mut back, &json!({"topics": ["run:1"], "since": {"run:1": position}}));
    assert_eq!(ack["recovered"], true);
    publish(&mut publisher, &["run:1"], "e", 5);
    let came: Vec<u64> = (0..3).map(|_| next_event(&mut back).1).collect();
    assert_eq!(came, [2, 3, 5], "4 came through the pattern before");
    has_nothing_more(&mut back);
    // The history has every event once, and goes on without the pattern.
    drop((pattern, named, back));
    node.wait_stats("no pattern", |stats| stats["patterns"] == 0 && stats["connections"] == 0);
    publish(&mut publisher, &["run:1"], "e", 6);
    let (_, _, body) = http(node.http_addr(), "GET", "/api/topics/run:1/history", &[], b"");
    let kept: Value = serde_json::from_slice(&body).unwrap();
    let all: Vec<u64> =
        kept["events"].as_array().unwrap().iter().map(|event| event["data"].as_u64().unwrap()).collect();
    assert_eq!((all, &kept["offset"]), (vec![1, 2, 3, 4, 5, 6], &6.into()));
}

#[test]
fn what_is_replayed_by_name_and_what_a_pattern_brings_make_one_whole() {
    const EVENTS: u64 = 800;
    let history = "[[topic]]\nprefix = \"run:\"\nhistory = { events = 10000, age = \"1h\" }\n";
    let node = Node::start_with_file(history, &[&NARROW[..], &["--shards", "2"]].concat());
    let mut random = fastrand::Rng::with_seed(seed());
    let mut publisher = publisher(&node);
    let mut healthy = node.websocket();
    healthy.subscribe(&["r*", "run:2"]);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
    subscribe(&mut slow, &json!({"topics": ["r*"], "policy": "drop-oldest"}));
    subscribe(&mut slow, &json!({"topics": ["run:1", "run:2"], "policy": "replay"}));
    subscribe(&mut slow, &json!({"topics": ["run:*"], "policy": "drop-newest"}));
    let choices: [&[&str]; 7] = [
        &["run:1"],
        &["run:2"],
        &["run:3"],
        &["ra"],
        &["run:3", "run:1"],
        &["run:2", "run:1"],
        &["ra", "run:3"],
    ];
    let padding = "x".repeat(1000);
    let mut published: Vec<&[&str]> = Vec::new();
    // It stops reading twice, and catches up in between.
    for round in 1..=2 {
        while (published.len() as u64) < round * EVENTS {
            let topics = *random.choice(&choices[..]).unwrap();
            let data = format!("{{\"n\":{},\"padding\":\"{padding}\"}}", published.len());
            publisher.publish(&Event::new(topics, "e", &data)).unwrap();
            published.push(topics);
            if published.len().is_multiple_of(20) {
                publisher.settle().unwrap();
                for n in published.len() - 20..published.len() {
                    assert_eq!(healthy.next_json(PATIENCE)["data"]["n"], n);
                }
            }
        }
        // Of what it has by name everything comes, and the rest is told by the pattern that it was to come through.
        let (mut came, mut gaps) = (BTreeSet::new(), BTreeMap::<String, u64>::new());
        let first = ((round - 1) * EVENTS) as usize;
        while came.len() as u64 + gaps.values().sum::<u64>() < EVENTS {
            let message = slow.next_json(PATIENCE);
            if message["type"] == "gap" {
                let pattern = message["data"]["topic"].as_str().unwrap().to_owned();
                *gaps.entry(pattern).or_default() += message["data"]["dropped"].as_u64().unwrap();
                continue;
            }
            let n = message["data"]["n"].as_u64().unwrap() as usize;
            assert_eq!(message["category"], published[n][0]);
            assert!(n >= first && came.insert(n), "event {n} came twice");
        }
        let missing = |only: &[&str]| {
            let of_it =
                (first..published.len()).filter(|n| !came.contains(n) && only.contains(&published[*n][0]));
            of_it.count() as u64
        };
        assert_eq!(missing(&["run:1", "run:2"]), 0);
        // `ra` matches only the shorter pattern; with `run:3` behind it, it still comes through that first.
        assert_eq!(gaps.remove("r*").unwrap_or_default(), missing(&["ra"]));
        assert_eq!(gaps.remove("run:*").unwrap_or_default(), missing(&["run:3"]));
        assert!(gaps.is_empty(), "{gaps:?}");
        let by_name = |n: &usize| published[*n].iter().any(|topic| ["run:1", "run:2"].contains(topic));
        assert!((first..published.len()).filter(by_name).all(|n| came.contains(&n)));
        has_nothing_more(&mut slow);
    }
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!(stats["dispatched"], 4 * EVENTS);
    assert!(metric(&node, "replayed_total") > EVENTS / 4, "it was never behind");
}

#[test]
fn a_pattern_may_have_a_policy_that_all_it_matches_allows() {
    let node = Node::start_with_file(HISTORY, &[]);
    let mut client = node.websocket();
    for (topic, policy, part) in [
        ("run:*", "conflate", "begin with \"run:safe:\""),
        ("run:*", "replay", "a pattern, has none"),
        ("r*", "drop-newest", "begin with \"run:safe:\""),
        ("log:*", "disconnect", "begin with \"log:\""),
        ("run:safe:1*", "conflate", "begin with \"run:safe:\""),
    ] {
        let error = refused(&mut client, &json!({"topics": [topic], "policy": policy}));
        assert!(error.contains(part), "{topic} {policy}: {error}");
    }
    for (topic, policy) in
        [("run:*", "drop-oldest"), ("run:4*", "conflate"), ("log:*", "drop-newest"), ("x*", "conflate")]
    {
        subscribe(&mut client, &json!({"topics": [topic], "policy": policy}));
    }
    subscribe(&mut client, &json!({"topics": ["log:1*", "run:*"]}));
}

#[test]
fn a_receipt_counts_each_session_once_whatever_matched() {
    let node = Node::start_with_file(HISTORY, &["--shards", "2"]);
    let mut clients: Vec<WebSocket> = (0..6).map(|_| node.websocket()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe([&["run:*", "r*", "run:1"][..], &["r*"], &["run:2*", "stage"]][n % 3]);
    }
    // One that was served from a history before.
    let since = json!({"run:1": {"epoch": "0000000000000001", "offset": 0}});
    subscribe(&mut clients[1], &json!({"topics": ["run:1"], "since": since}));
    let mut publisher = publisher(&node);
    for (topics, sessions) in [
        (&["run:1"][..], 4),
        (&["run:3"], 4),
        (&["stage", "run:1"], 6),
        (&["run:2"], 6),
        (&["other"], 0),
        (&["run:2", "run:22", "r"], 6),
    ] {
        for key in ["", "k"] {
            let event = Event { key, ..Event::new(topics, "e", "1") };
            let sequence = publisher.publish_for_receipt(&event).unwrap();
            let expected = Reach { matched: sessions, written: sessions, ..Reach::default() };
            assert_eq!(publisher.receipt(sequence).unwrap(), expected, "{topics:?}");
        }
    }
}

#[test]
fn operators_see_patterns_among_topics() {
    let node = Node::start(&["--shards", "2"]);
    let mut clients = [node.websocket(), node.websocket()];
    clients[0].send_json(&json!({"type": "subscribe", "topics": ["run:*", "run:1"], "clientId": "me"}));
    clients[0].next_json(PATIENCE);
    clients[1].subscribe(&["run:*"]);
    for topic in ["run:1", "run:2", "other"] {
        node.publish(&[topic], "e", &json!(1));
    }
    let get = |path: &str| -> (u16, Value) {
        let (status, _, body) = http(node.http_addr(), "GET", path, &[], b"");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    };
    let (_, status) = get("/api/websocket/status");
    assert_eq!(status["subscriptions"], json!({"run:*": 2, "run:1": 1}));
    assert_eq!(status["clientDetails"]["me"], json!(["run:*", "run:1"]));
    // A topic tells who has it by its name, and a pattern is none.
    assert_eq!(get("/api/topics/run:1").1["subscribers"], 1);
    assert_eq!(get("/api/topics/run:2").1["subscribers"], 0);
    assert_eq!((get("/api/topics/run:*").0, get("/api/topics/run:*/history").0), (400, 400));
    let stats = node.stats();
    assert_eq!(
        (&stats["patterns"], &stats["rooms"], &stats["subscriptions"]),
        (&1.into(), &2.into(), &3.into())
    );
    // Two names are long enough to be looked up, and so is the third.
    assert_eq!((&stats["patternProbes"], &stats["eventsPatternMatched"]), (&3.into(), &2.into()));
}

#[test]
fn many_topics_under_a_pattern_leave_nothing() {
    const TOPICS: u64 = 100_000;
    let node = Node::start(&["--max-topics", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["t*"]);
    let mut publisher = publisher(&node);
    for n in 0..TOPICS {
        publisher.publish(&Event::new(&[&format!("t{n}")], "e", &n.to_string())).unwrap();
        if n % 1000 == 999 {
            publisher.settle().unwrap();
            for n in n - 999..=n {
                assert_eq!(next_event(&mut client), (format!("t{n}"), n));
            }
        }
    }
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["rooms"], &stats["eventsPatternMatched"]), (&1.into(), &TOPICS.into()));
    assert_eq!(metric(&node, "pattern_probes_total"), TOPICS);
    client.unsubscribe(&["t*"]);
    let is_empty = |stats: &Value| {
        stats["rooms"] == 0 && stats["subscriptions"] == 0 && stats["outbox"]["heldBytes"] == 0
    };
    node.wait_stats("nothing left", is_empty);
    publish(&mut publisher, &["t1"], "e", 1);
    has_nothing_more(&mut client);
    assert!(matches!(client.next(std::time::Duration::from_millis(1)), Incoming::Nothing));
    assert_eq!(metric(&node, "pattern_probes_total"), TOPICS);
}
