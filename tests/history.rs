//! History on a real node: clients that come back in every dialect, what they are told where something is missing,
//! what happens to those whose queue is full, and what the history is over HTTP.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use common::sse::EventStream;
use common::{
    Dialogue, Incoming, Node, PATIENCE, Signal, WebSocket, http, node_script, seed, tool, wait_until,
};
use fanwire::client::{Event, Publisher};
use serde_json::{Value, json};

const TOPICS: &str = r#"
[[topic]]
prefix = "run:"
history = { events = 100000, bytes = "64MiB", age = "1h" }

[[topic]]
prefix = "short:"
history = { events = 10, bytes = "64MiB", age = "1h" }

[[topic]]
prefix = "young:"
history = { age = "300ms" }

[[topic]]
prefix = "few:"
history = {}
policies = ["drop-oldest", "replay"]

[[stream]]
path = "/stream/{name}"
topic = "{name}"
envelope = '{"data":{data},"offset":{offset}}'
"#;

/// What a client does not read soon waits in the node.
const NARROW: [&str; 4] = ["--send-buffer", "4KiB", "--queue-events", "20"];

fn publisher(node: &Node) -> Publisher {
    Publisher::open(&node.publish_addr().to_string()).unwrap()
}

/// Publishes the numbers of a range, each as an event; all are accepted when this returns.
fn publish(publisher: &mut Publisher, topics: &[&str], numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        publisher.publish(&Event::new(topics, "e", &format!("{{\"n\":{n}}}"))).unwrap();
    }
    publisher.settle().unwrap();
}

fn subscribe(client: &mut WebSocket, message: &Value) -> Value {
    let mut whole = json!({"type": "subscribe"});
    whole.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
    client.send_json(&whole);
    let answer = client.next_json(PATIENCE);
    assert_eq!(answer["type"], "subscription-ack", "{answer}");
    answer["data"].clone()
}

/// Number and offset of the next message, which must be an event.
fn next_event(client: &mut WebSocket) -> (u64, u64) {
    let event = client.next_json(PATIENCE);
    assert_eq!(event["type"], "event", "{event}");
    (event["data"]["n"].as_u64().unwrap(), event["offset"].as_u64().unwrap())
}

fn get(node: &Node, path: &str) -> (u16, Value) {
    let (status, _, body) = http(node.http_addr(), "GET", path, &[], b"");
    (status, serde_json::from_slice(&body).unwrap())
}

/// A client that keeps a topic alive, and the topic's epoch.
fn keeper(node: &Node, topic: &str) -> (WebSocket, String) {
    let mut client = node.websocket();
    let ack = subscribe(&mut client, &json!({"topics": [topic]}));
    let epoch = ack["positions"][topic]["epoch"].as_str().unwrap().to_owned();
    (client, epoch)
}

// Going on -------------------------------------------------------------------------------------------------------

#[test]
fn a_client_goes_on_after_any_offset() {
    let node = Node::start_with_file(TOPICS, &["--shards", "2"]);
    let mut first = node.websocket();
    let ack = subscribe(&mut first, &json!({"topics": ["run:1", "plain"]}));
    let epoch = ack["positions"]["run:1"]["epoch"].as_str().unwrap().to_owned();
    assert_eq!(epoch.len(), 16);
    assert_eq!(ack["positions"], json!({"run:1": {"epoch": epoch, "offset": 0}}));
    assert_eq!((&ack["recovered"], &ack["missing"]), (&Value::Null, &Value::Null));
    let mut publisher = publisher(&node);
    publish(&mut publisher, &["run:1"], 1..=20);
    (1..=20).for_each(|n| assert_eq!(next_event(&mut first), (n, n)));
    let mut clients = Vec::new();
    for offset in 0..=20 {
        let mut client = node.websocket();
        let since = json!({"run:1": {"epoch": epoch, "offset": offset}});
        let ack = subscribe(&mut client, &json!({"topics": ["run:1"], "since": since}));
        assert_eq!((&ack["recovered"], &ack["missing"]), (&json!(true), &Value::Null));
        assert_eq!(ack["positions"], since, "it goes on there");
        clients.push((offset, client));
    }
    publish(&mut publisher, &["run:1"], 21..=30);
    for (offset, mut client) in clients {
        (offset + 1..=30).for_each(|n| assert_eq!(next_event(&mut client), (n, n)));
        // And nothing else: the answer to its ping is next.
        client.send_json(&json!({"type": "ping"}));
        assert_eq!(client.next_json(PATIENCE)["type"], "pong");
    }
    let metrics = http(node.http_addr(), "GET", "/metrics", &[], b"").2;
    let replayed = format!("fanwire_replayed_total {}\n", (0..20).map(|offset| 20 - offset).sum::<u64>());
    assert!(String::from_utf8(metrics).unwrap().contains(&replayed), "{replayed}");
}

#[test]
fn what_is_not_there_any_more_is_named_to_the_event() {
    let node = Node::start_with_file(TOPICS, &[]);
    let (_keeper, epoch) = keeper(&node, "short:1");
    publish(&mut publisher(&node), &["short:1"], 1..=40);
    let unknown = "0123456789abcdef";
    for (since, missing, first) in [
        (json!({"epoch": epoch, "offset": 40}), None, 41),
        (json!({"epoch": epoch, "offset": 35}), None, 36),
        (json!({"epoch": epoch, "offset": 30}), None, 31),
        (json!({"epoch": epoch, "offset": 29}), Some(json!({"from": 30, "to": 30})), 31),
        (json!({"epoch": epoch, "offset": 0}), Some(json!({"from": 1, "to": 30})), 31),
        (json!({"epoch": epoch, "offset": 41}), Some(Value::Null), 31),
        (json!({"epoch": epoch, "offset": u64::MAX}), Some(Value::Null), 31),
        (json!({"epoch": unknown, "offset": 3}), Some(Value::Null), 31),
        (json!({"epoch": "x", "offset": 3}), Some(Value::Null), 31),
        (json!({"epoch": "", "offset": 0}), Some(Value::Null), 31),
        (Value::Null, Some(Value::Null), 31),
    ] {
        let mut client = node.websocket();
        let ack = subscribe(&mut client, &json!({"topics": ["short:1"], "since": {"short:1": since}}));
        assert_eq!(ack["recovered"], missing.is_none(), "{since}: {ack}");
        assert_eq!(ack.get("missing"), missing.map(|m| json!({"short:1": m})).as_ref(), "{since}");
        assert_eq!(ack["positions"]["short:1"], json!({"epoch": epoch, "offset": first - 1}), "{since}");
        (first..=40).for_each(|n| assert_eq!(next_event(&mut client), (n, n), "{since}"));
        client.send_json(&json!({"type": "ping"}));
        assert_eq!(client.next_json(PATIENCE)["type"], "pong", "{since}");
    }
}

#[test]
fn since_counts_for_the_topics_it_names() {
    let node = Node::start_with_file(TOPICS, &[]);
    let (_keeper, epoch) = keeper(&node, "run:1");
    let mut publisher = publisher(&node);
    publish(&mut publisher, &["run:1"], 1..=5);
    publish(&mut publisher, &["run:2"], 1..=5);
    let at = |offset: u64| json!({"epoch": epoch, "offset": offset});
    let mut client = node.websocket();
    // Another topic of the same message begins with what comes; a topic without history cannot be gone on with.
    let since = json!({"run:1": at(3), "plain": null, "other": at(0)});
    let ack = subscribe(&mut client, &json!({"topics": ["run:2", "plain", "run:1"], "since": since}));
    assert_eq!((&ack["recovered"], &ack["missing"]), (&json!(false), &json!({"plain": null, "other": null})));
    assert_eq!((&ack["positions"]["run:1"], &ack["positions"]["run:2"]["offset"]), (&at(3), &json!(5)));
    assert_eq!([next_event(&mut client).0, next_event(&mut client).0], [4, 5]);
    // What it has goes on where it is, and it is told what that leaves out.
    for (offset, missing) in
        [(3, None), (4, None), (2, Some(json!({"from": 3, "to": 3}))), (9, Some(Value::Null))]
    {
        let ack = subscribe(&mut client, &json!({"topics": ["run:1"], "since": {"run:1": at(offset)}}));
        assert_eq!(ack["recovered"], missing.is_none(), "{offset}");
        assert_eq!(ack.get("missing"), missing.map(|missing| json!({"run:1": missing})).as_ref());
        assert_eq!(ack["positions"]["run:1"], at(5));
    }
    publish(&mut publisher, &["run:1"], 6..=6);
    assert_eq!(next_event(&mut client), (6, 6));
}

#[test]
fn another_life_of_the_node_is_another_epoch() {
    let mut positions = json!({});
    for life in 0..2 {
        let node = Node::start_with_file(TOPICS, &[]);
        let mut client = node.websocket();
        publish(&mut publisher(&node), &["run:1"], 1..=3);
        let mut message = json!({"topics": ["run:1"]});
        if life == 1 {
            message["since"] = std::mem::take(&mut positions);
        }
        let ack = subscribe(&mut client, &message);
        if life == 1 {
            assert_eq!((&ack["recovered"], &ack["missing"]), (&json!(false), &json!({"run:1": null})));
            (1..=3).for_each(|n| assert_eq!(next_event(&mut client), (n, n)));
        }
        positions = ack["positions"].clone();
        node.signal(Signal::KILL);
        assert_eq!(client.wait_closed(PATIENCE), None);
    }
}

#[test]
fn what_is_too_old_goes_while_nothing_happens() {
    let node = Node::start_with_file(TOPICS, &[]);
    let (_keeper, epoch) = keeper(&node, "young:1");
    publish(&mut publisher(&node), &["young:1", "young:2"], 1..=7);
    // Nobody is subscribed to the second: it goes as a whole.
    for (topic, offset) in [("young:1", 7), ("young:2", 0)] {
        let gone = wait_until(PATIENCE * 2, || {
            let (_, answer) = get(&node, &format!("/api/topics/{topic}"));
            (answer["history"]["events"] == 0 && answer["offset"] == offset).then_some(())
        });
        assert!(gone.is_some(), "{topic}");
    }
    let mut client = node.websocket();
    let since = json!({"young:1": {"epoch": epoch, "offset": 2}});
    let ack = subscribe(&mut client, &json!({"topics": ["young:1"], "since": since}));
    assert_eq!(ack["missing"], json!({"young:1": {"from": 3, "to": 7}}));
    assert_eq!(ack["positions"]["young:1"]["offset"], 7);
    publish(&mut publisher(&node), &["young:1"], 8..=8);
    assert_eq!(next_event(&mut client), (8, 8));
}

#[test]
fn the_newest_of_each_key_come_first_where_they_are_asked_for() {
    let node = Node::start_with_file(TOPICS, &[]);
    let mut publisher = publisher(&node);
    let mut events = Vec::new();
    for (n, (topics, key, name)) in [
        (&["run:1"][..], "a", "x"),
        (&["run:1"], "b", "x"),
        (&["run:1"], "a", "y"),
        (&["run:2", "run:1"], "c", "x"),
        (&["run:1"], "", "x"),
        (&["run:1"], "", "y"),
        (&["run:1"], "b", "x"),
    ]
    .into_iter()
    .enumerate()
    {
        let data = format!("{{\"n\":{n}}}");
        publisher.publish(&Event { key, ..Event::new(topics, name, &data) }).unwrap();
        events.push(data);
    }
    publisher.settle().unwrap();
    for (message, expected) in [
        (json!({"topics": ["run:1"], "last": true}), vec![2, 3, 5, 6]),
        (json!({"topics": ["run:1", "run:2"], "last": true}), vec![2, 3, 5, 6]),
        (json!({"topics": ["run:1"], "last": true, "events": ["x"]}), vec![0, 3, 4, 6]),
        (json!({"topics": ["run:1"], "last": true, "onlyCategories": ["run:2"]}), vec![3]),
        (json!({"topics": ["run:1"], "last": false}), vec![]),
        (json!({"topics": ["plain"], "last": true}), vec![]),
    ] {
        let mut client = node.websocket();
        subscribe(&mut client, &message);
        let all: Vec<u64> =
            expected.iter().map(|_| client.next_json(PATIENCE)["data"]["n"].as_u64().unwrap()).collect();
        assert_eq!(all, expected, "{message}");
        client.send_json(&json!({"type": "ping"}));
        assert_eq!(client.next_json(PATIENCE)["type"], "pong", "{message}");
    }
    let mut stream = EventStream::open(node.http_addr(), "/sse?topics=run:1&last=true");
    let all: Vec<Value> = (0..4).map(|_| stream.next_event().1["data"]["n"].clone()).collect();
    assert_eq!(all, [2, 3, 5, 6]);
}

#[test]
fn three_hundred_clients_come_back_while_events_pour_in() {
    const EVENTS: u64 = 6_000;
    let node = Node::start_with_file(TOPICS, &["--shards", "2"]);
    let mut random = fastrand::Rng::with_seed(seed());
    let topics = ["run:1", "short:1", "run:2"];
    let epochs = topics.map(|topic| keeper(&node, topic));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = publisher(&node);
            for n in 1..=EVENTS {
                let data = format!("{{\"n\":{n}}}");
                publisher.publish(&Event::new(&[topics[(n % 3) as usize]], "e", &data)).unwrap();
                if n % 50 == 0 {
                    publisher.settle().unwrap();
                }
            }
        });
        let mut workers = Vec::new();
        for _ in 0..10 {
            let mut random = random.fork();
            let (node, epochs) = (&node, &epochs);
            workers.push(scope.spawn(move || {
                for _ in 0..30 {
                    let place = random.usize(..topics.len());
                    let (topic, epoch) = (topics[place], &epochs[place].1);
                    let (_, answer) = get(node, &format!("/api/topics/{topic}"));
                    let mut after = random.u64(..=answer["offset"].as_u64().unwrap());
                    let mut client = node.websocket();
                    let since = json!({topic: {"epoch": epoch, "offset": after}});
                    let ack = subscribe(&mut client, &json!({"topics": [topic], "since": since}));
                    if let Some(missing) = ack["missing"][topic].as_object() {
                        assert_eq!((topic, missing["from"].as_u64()), ("short:1", Some(after + 1)));
                        after = missing["to"].as_u64().unwrap();
                    }
                    let mut told = 0;
                    // It looks at some, and goes in the middle, or once everything has come.
                    for _ in 0..random.usize(1..400) {
                        if after + told >= EVENTS / 3 {
                            break;
                        }
                        let message = client.next_json(PATIENCE);
                        if message["type"] == "gap" {
                            assert_eq!((topic, told), ("short:1", 0), "{message}");
                            told = message["data"]["dropped"].as_u64().unwrap();
                            continue;
                        }
                        let offset = message["offset"].as_u64().unwrap();
                        assert_eq!(offset, after + std::mem::take(&mut told) + 1, "{topic}");
                        after = offset;
                    }
                }
            }));
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

// Policies -------------------------------------------------------------------------------------------------------

#[test]
fn every_policy_leaves_out_what_it_says_and_tells_how_much() {
    const EVENTS: u64 = 600;
    let padding = "x".repeat(1000);
    for policy in ["drop-oldest", "drop-newest", "conflate", "replay", "disconnect"] {
        let node = Node::start_with_file(TOPICS, &NARROW);
        let mut client = WebSocket::connect_narrow(node.http_addr(), "/ws");
        let ack = subscribe(&mut client, &json!({"topics": ["run:1"], "policy": policy}));
        assert_eq!(ack["positions"]["run:1"]["offset"], 0);
        let mut publisher = publisher(&node);
        for n in 1..=EVENTS {
            let key = ["a", "b", "c", "d"][(n % 4) as usize];
            let data = format!("{{\"n\":{n},\"padding\":\"{padding}\"}}");
            publisher.publish(&Event { key, ..Event::new(&["run:1"], "e", &data) }).unwrap();
            // One after the other: each finds the queue as those before left it.
            if n % 20 == 0 {
                publisher.settle().unwrap();
            }
        }
        publisher.settle().unwrap();
        if policy == "disconnect" {
            // It is read once it is closed: who takes again within a moment of the burst is not slow.
            let stats = node.wait_stats("no client", |stats| stats["connections"] == 0);
            assert_eq!(stats["closed"], json!({"slow_consumer": 1}));
            let closed = client.wait_closed(PATIENCE).unwrap();
            assert_eq!(closed.0, 4008);
            assert_eq!(
                stats["dispatched"],
                stats["deliveries"].as_u64().unwrap() + stats["dropped"]["slow_consumer"].as_u64().unwrap()
            );
            continue;
        }
        let (mut received, mut gaps, mut conflated, mut waiting) = (Vec::new(), 0, 0, 0);
        while received.len() as u64 + gaps < EVENTS {
            let message = client.next_json(PATIENCE);
            if message["type"] == "gap" {
                assert_eq!(message["data"]["topic"], "run:1");
                assert_eq!(waiting, 0, "two notices for one gap");
                waiting = message["data"]["dropped"].as_u64().unwrap();
                gaps += waiting;
                conflated += message["data"]["conflated"].as_u64().unwrap_or_default();
                continue;
            }
            let offset = message["offset"].as_u64().unwrap();
            let last = received.last().copied().unwrap_or_default();
            assert_eq!(offset, last + std::mem::take(&mut waiting) + 1, "{policy}");
            assert_eq!(message["data"]["n"], offset);
            received.push(offset);
        }
        let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
        assert_eq!(
            stats["dispatched"],
            if policy == "replay" { EVENTS } else { received.len() as u64 + gaps }
        );
        let newest = received.last() == Some(&EVENTS);
        match policy {
            "replay" => {
                assert_eq!((received.len() as u64, gaps), (EVENTS, 0));
                assert_eq!(stats["dropped"], json!({}));
            }
            "drop-newest" => {
                assert!(gaps > 100 && conflated == 0);
                assert_eq!(stats["dropped"], json!({"drop_newest": gaps}));
            }
            "drop-oldest" => {
                assert!(newest && gaps > 100 && conflated == 0);
                assert_eq!(stats["dropped"], json!({"drop_oldest": gaps}));
            }
            _ => {
                assert!(newest && conflated > 100 && conflated <= gaps);
                let dropped = stats["dropped"].as_object().unwrap();
                assert_eq!(dropped["conflated"], conflated);
                let oldest = dropped.get("drop_oldest").and_then(Value::as_u64).unwrap_or_default();
                assert_eq!(oldest + conflated, gaps);
            }
        }
        // And it goes on live.
        publish(&mut publisher, &["run:1"], EVENTS + 1..=EVENTS + 1);
        assert_eq!(next_event(&mut client), (EVENTS + 1, EVENTS + 1));
    }
}

#[test]
fn a_policy_that_a_topic_does_not_have_is_refused_before_anything_happens() {
    let node = Node::start_with_file(TOPICS, &[]);
    for (topics, policy, part) in [
        (&["few:1"][..], "disconnect", "there are drop-oldest, replay"),
        (&["run:1", "few:1"], "conflate", "not allowed on"),
        (&["plain"], "replay", "has none"),
        (&["run:1", "plain"], "replay", "has none"),
        (&["run:1"], "never", "is not served"),
    ] {
        let mut client = node.websocket();
        client.send_json(&json!({"type": "subscribe", "topics": topics, "policy": policy}));
        let error = client.next_json(PATIENCE);
        assert_eq!(error["type"], "error");
        assert!(error["data"]["error"].as_str().unwrap().contains(part), "{error}");
        let ack = subscribe(&mut client, &json!({"topics": ["few:2"]}));
        assert_eq!(ack["categories"], json!(["few:2"]), "to none of them");
        let query = format!("topics={}&policy={policy}", topics.join(","));
        let mut paths = vec![format!("/ws?{query}"), format!("/sse?{query}")];
        if let [topic] = topics {
            paths.push(format!("/stream/{topic}?policy={policy}"));
        }
        for path in paths {
            let upgrade = [
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            let mut stream = TcpStream::connect(node.http_addr()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n");
            if !path.starts_with("/sse") {
                head += "Connection: Upgrade\r\n";
                upgrade.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            }
            stream.write_all((head + "\r\n").as_bytes()).unwrap();
            let (status, _, body) = common::read_response(&mut stream, false).unwrap();
            let body = String::from_utf8(body).unwrap();
            assert!(status == 400 && body.contains(part), "{path}: {status} {body}");
        }
    }
    // Who chooses none has the first of the topic's.
    let mut client = node.websocket();
    subscribe(&mut client, &json!({"topics": ["few:1"]}));
    node.wait_stats("the clients that were refused are gone", |stats| stats["connections"] == 1);
}

#[test]
fn a_node_that_goes_first_gives_what_is_behind() {
    let node = Node::start_with_file(TOPICS, &NARROW);
    let mut client = WebSocket::connect_narrow(node.http_addr(), "/ws");
    subscribe(&mut client, &json!({"topics": ["run:1"], "policy": "replay"}));
    let mut publisher = publisher(&node);
    let padding = "x".repeat(1000);
    for n in 1..=500 {
        publisher
            .publish(&Event::new(&["run:1"], "e", &format!("{{\"n\":{n},\"p\":\"{padding}\"}}")))
            .unwrap();
    }
    publisher.settle().unwrap();
    drop(publisher);
    node.signal(Signal::TERM);
    (1..=500).for_each(|n| assert_eq!(next_event(&mut client), (n, n)));
    assert!(matches!(client.next(PATIENCE), Incoming::Closed(Some((1001, _)))));
    // Else the node waits for its end for as long as `close_timeout` is.
    drop(client);
    assert!(node.wait_exit(PATIENCE).success());
}

// Event streams and paths ----------------------------------------------------------------------------------------

#[test]
fn an_event_stream_goes_on_after_its_last_event() {
    let node = Node::start_with_file(TOPICS, &[]);
    let mut publisher = publisher(&node);
    for path in ["/sse?topics=run:1", "/stream/run:1"] {
        let (_, was) = get(&node, "/api/topics/run:1");
        let was = was["offset"].as_u64().unwrap();
        let mut stream = EventStream::open(node.http_addr(), path);
        publish(&mut publisher, &["run:1"], was + 1..=was + 3);
        for n in was + 1..=was + 3 {
            let (_, event) = stream.next_event();
            assert_eq!((&event["data"]["n"], &event["offset"]), (&json!(n), &json!(n)));
            assert!(stream.id.ends_with(&format!("-{n}")), "{}", stream.id);
        }
        let id = std::mem::take(&mut stream.id);
        drop(stream);
        publish(&mut publisher, &["run:1"], was + 4..=was + 6);
        let header = format!("Last-Event-ID: {id}\r\n");
        let mut stream = EventStream::open_with(node.http_addr(), path, &header);
        publish(&mut publisher, &["run:1"], was + 7..=was + 7);
        for n in was + 4..=was + 7 {
            assert_eq!(stream.next_event().1["data"]["n"], n);
        }
        // curl, which gets no more than there is.
        let mut curl = Command::new(tool("curl"));
        curl.args(["-sN", "--max-time", "1", "-H", "Accept: text/event-stream", "-H", header.trim()]);
        let out = curl.arg(format!("http://{}{path}", node.http_addr())).output().unwrap();
        let out = String::from_utf8(out.stdout).unwrap();
        let ids: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        let epoch = id.split_once('-').unwrap().0;
        let expected: Vec<String> = (was + 3..=was + 7).map(|n| format!("{epoch}-{n}")).collect();
        assert_eq!(ids, expected, "where it begins, and its events");
    }
}

#[test]
fn an_event_stream_that_broke_before_its_first_event_misses_none() {
    let node = Node::start_with_file(TOPICS, &[]);
    let (_keeper, _) = keeper(&node, "run:1");
    let mut publisher = publisher(&node);
    publish(&mut publisher, &["run:1"], 1..=2);
    let mut stream = EventStream::open(node.http_addr(), "/sse?topics=run:1");
    let id = wait_until(PATIENCE, || {
        // What is read with its first event is what came before it.
        let (_, answer) = get(&node, "/api/topics/run:1");
        (answer["subscribers"] == 2).then(|| format!("{}-2", answer["epoch"].as_str().unwrap()))
    });
    publish(&mut publisher, &["plain", "run:1"], 3..=3);
    let mut curl = Command::new(tool("curl"));
    curl.args(["-sN", "--max-time", "1"]);
    let out = curl.arg(format!("http://{}/sse?topics=plain,run:1", node.http_addr())).output().unwrap();
    let out = String::from_utf8(out.stdout).unwrap();
    let first = id.unwrap().replace("-2", "-3");
    assert_eq!(out, format!(": subscribed\n\nid: {first}\n\n"));
    assert_eq!(stream.next_event().1["offsets"], json!({"run:1": 3}));
    assert_eq!(stream.id, first);
}

#[test]
fn of_several_topics_one_is_exact_and_the_others_are_told() {
    let node = Node::start_with_file(TOPICS, &[]);
    let mut publisher = publisher(&node);
    let mut stream = EventStream::open(node.http_addr(), "/sse?topics=run:1,run:2,plain");
    publish(&mut publisher, &["run:1"], 1..=1);
    publish(&mut publisher, &["run:2"], 2..=2);
    stream.next_event();
    stream.next_event();
    let header = format!("Last-Event-ID: {}\r\n", stream.id);
    publish(&mut publisher, &["run:2"], 3..=3);
    let mut again = EventStream::open_with(node.http_addr(), "/sse?topics=run:1,run:2,plain", &header);
    for topic in ["run:1", "plain"] {
        let (name, notice) = again.next_event();
        assert_eq!((&*name, &notice["data"]), ("gap", &json!({"topic": topic, "dropped": null})));
    }
    let mut rest = [again.next_event().1["data"]["n"].clone(), again.next_event().1["data"]["n"].clone()];
    rest.sort_by_key(Value::as_u64);
    assert_eq!(rest, [1, 3], "what is left of the other, and what came after the last");
}

/// Between a browser and a node; cuts what goes through it.
struct Cutter {
    addr: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cutter {
    fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let it = Self { addr: listener.local_addr().unwrap(), open: Arc::default() };
        let open = Arc::clone(&it.open);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(node) else { continue };
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends.map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    thread::spawn(move || copy(from, to));
                }
                open.lock().unwrap().extend([client, server]);
            }
        });
        it
    }

    /// Every connection ends now, in the middle of whatever it is in.
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1000];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn an_event_source_whose_connection_is_cut_has_no_gap_and_no_repeat() {
    let node = Node::start_with_file(TOPICS, &[]);
    let cutter = Cutter::to(node.http_addr());
    let mut browser = Dialogue::start(&mut node_script("event_source.mjs"));
    let next = |browser: &mut Dialogue| -> Value {
        serde_json::from_str(&browser.next_line().expect("the browser has ended")).unwrap()
    };
    assert!(next(&mut browser)["page"].is_string());
    let url = format!("http://{}/sse?topics=run:1", cutter.addr);
    browser.tell(&json!({"connect": url, "types": ["e", "gap"]}).to_string());
    assert_eq!(next(&mut browser), json!({"open": 1}));
    let mut publisher = publisher(&node);
    // Open is what has a head. Until the browser has read on it knows no position, and would come back as a new one.
    publish(&mut publisher, &["run:1"], 1..=1);
    assert_eq!(next(&mut browser)["event"], "e");
    let (mut published, mut last) = (1, 1);
    for cut in 0..4 {
        publish(&mut publisher, &["run:1"], published + 1..=published + 50);
        published += 50;
        if cut < 3 {
            cutter.cut();
            publish(&mut publisher, &["run:1"], published + 1..=published + 50);
            published += 50;
        }
        while last < published {
            let seen = next(&mut browser);
            let Some(data) = seen["data"].as_str() else { continue }; // It broke, or is open again.
            assert_eq!(seen["event"], "e", "{seen}");
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["data"]["n"], last + 1);
            last += 1;
        }
    }
}

#[test]
fn a_path_stream_names_the_offset_in_its_topic() {
    let node = Node::start_with_file(TOPICS, &["--shards", "2"]);
    let mut clients: BTreeMap<&str, WebSocket> = BTreeMap::new();
    for topic in ["run:1", "run:2", "plain"] {
        clients.insert(topic, WebSocket::connect(node.http_addr(), &format!("/stream/{topic}")));
    }
    let mut publisher = publisher(&node);
    publish(&mut publisher, &["run:1"], 1..=3);
    publish(&mut publisher, &["run:2", "run:1", "plain"], 4..=4);
    let mut offsets = BTreeMap::new();
    for (topic, client) in &mut clients {
        loop {
            let message = client.next_json(PATIENCE);
            offsets.entry(*topic).or_insert_with(Vec::new).push(message["offset"].clone());
            if message["data"]["n"] == 4 {
                break;
            }
        }
    }
    let expected = json!({"run:1": [1, 2, 3, 4], "run:2": [1], "plain": [null]});
    assert_eq!(json!(offsets), expected);
}

// HTTP -----------------------------------------------------------------------------------------------------------

#[test]
fn history_over_http() {
    let node = Node::start_with_file(TOPICS, &[]);
    publish(&mut publisher(&node), &["short:1"], 1..=40);
    publish(&mut publisher(&node), &["run:1", "short:2"], 1..=3);
    let (_, topic) = get(&node, "/api/topics/short%3A1");
    let epoch = topic["epoch"].as_str().unwrap().to_owned();
    assert_eq!((&topic["offset"], &topic["history"]["events"]), (&json!(40), &json!(10)));
    let numbers = |from: u64, to: u64| (from..=to).collect::<Vec<u64>>();
    for (query, expected, recovered) in [
        (String::new(), numbers(31, 40), true),
        ("?since=30".into(), numbers(31, 40), true),
        ("?since=35".into(), numbers(36, 40), true),
        ("?since=40".into(), vec![], true),
        ("?since=41".into(), numbers(31, 40), false),
        ("?since=0".into(), numbers(31, 40), false),
        ("?since=29&limit=2".into(), numbers(31, 32), false),
        (format!("?since=33&epoch={epoch}&limit=3"), numbers(34, 36), true),
        (format!("?since=3&epoch={epoch}"), numbers(31, 40), false),
        ("?since=33&epoch=0123456789abcdef".into(), numbers(31, 40), false),
        ("?since=33&epoch=x".into(), numbers(31, 40), false),
        ("?limit=0".into(), vec![], true),
        ("?limit=99999999".into(), numbers(31, 40), true),
    ] {
        let (status, answer) = get(&node, &format!("/api/topics/short:1/history{query}"));
        assert_eq!(status, 200);
        let all: Vec<u64> =
            answer["events"].as_array().unwrap().iter().map(|e| e["offset"].as_u64().unwrap()).collect();
        assert_eq!((all, &answer["recovered"]), (expected, &json!(recovered)), "{query}");
        assert_eq!((&answer["epoch"], &answer["offset"]), (&json!(epoch), &json!(40)));
        for event in answer["events"].as_array().unwrap() {
            assert_eq!((&event["type"], &event["data"]["n"]), (&json!("event"), &event["offset"]));
        }
    }
    let (_, answer) = get(&node, "/api/topics/short:2/history?since=1");
    assert_eq!(answer["events"][0]["offsets"], json!({"short:2": 2}));
    for (topic, recovered) in [("run:none", true), ("plain", false)] {
        let (status, answer) = get(&node, &format!("/api/topics/{topic}/history"));
        let expected = json!({"epoch": null, "offset": 0, "events": [], "recovered": recovered});
        assert_eq!((status, answer), (200, expected), "{topic}");
    }
    for (path, status) in [
        ("/api/topics/short:1/history?since=x", 400),
        ("/api/topics/short:1/history?since=-1", 400),
        ("/api/topics/short:1/history?limit=x", 400),
        ("/api/topics/a%00/history", 400),
        ("/api/topics//history", 400),
        ("/api/topics/short:1/history/x", 404),
        ("/api/topics/short:1/members", 404),
    ] {
        assert_eq!(http(node.http_addr(), "GET", path, &[], b"").0, status, "{path}");
    }
    assert_eq!(http(node.http_addr(), "POST", "/api/topics/short:1/history", &[], b"").0, 405);
}

#[test]
fn all_histories_together_keep_to_their_budget() {
    let node = Node::start_with_file(TOPICS, &["--max-history-bytes", "1MiB"]);
    let mut publisher = publisher(&node);
    let data = format!("{{\"p\":\"{}\"}}", "x".repeat(1000));
    for n in 0..4000 {
        let topic = format!("run:{}", n % 4);
        publisher.publish(&Event::new(&[&topic], "e", &data)).unwrap();
        if n % 10 == 0 {
            publisher.settle().unwrap();
        }
    }
    publisher.settle().unwrap();
    let kept: Vec<(u64, u64)> = (0..4)
        .map(|n| {
            let (_, answer) = get(&node, &format!("/api/topics/run:{n}"));
            let history = &answer["history"];
            (history["events"].as_u64().unwrap(), history["bytes"].as_u64().unwrap())
        })
        .collect();
    let bytes: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes <= 1 << 20 && kept.iter().all(|(events, _)| *events > 50), "{kept:?}");
    let metrics = String::from_utf8(http(node.http_addr(), "GET", "/metrics", &[], b"").2).unwrap();
    for line in [format!("fanwire_history_bytes {bytes}.0"), "fanwire_history_topics 4.0".to_owned()] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line}: {:?}",
            metrics.lines().filter(|line| line.contains("history")).collect::<Vec<_>>()
        );
    }
}
