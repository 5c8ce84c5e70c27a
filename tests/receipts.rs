//! How far an event went, and publishing once: on the publish socket and over HTTP.

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use common::{Node, PATIENCE, Signal, WebSocket, http, wait_until};
use fanwire::client::{Answer, Event, Options, Publisher, Reach};
use fanwire::publish::wire::{FLAG_ACK, FLAG_RECEIPT, HEADER_LEN, Header, Kind, Publish, decode_receipt};
use serde_json::{Value, json};

fn publisher(node: &Node) -> Publisher {
    Options::new().timeout(PATIENCE).open(&node.publish_addr().to_string()).unwrap()
}

fn receipt(publisher: &mut Publisher, topics: &[&str], data: &str) -> Reach {
    let sequence = publisher.publish_for_receipt(&Event::new(topics, "e", data)).unwrap();
    publisher.receipt(sequence).unwrap()
}

fn subscribed(node: &Node, subscribe: &Value) -> WebSocket {
    let mut client = node.websocket();
    client.send_json(subscribe);
    assert_eq!(client.next_json(PATIENCE)["type"], "subscription-ack");
    client
}

/// A client that reads nothing from now on.
fn reads_nothing(node: &Node, topic: &str, policy: &str) -> WebSocket {
    let mut client = WebSocket::connect_narrow(node.http_addr(), "/ws");
    client.send_json(&json!({"type":"subscribe","topics":[topic],"policy":policy}));
    client.next_json(PATIENCE);
    client
}

fn post(node: &Node, query: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let path = format!("/api/publish{query}");
    let (status, _, answer) = http(node.http_addr(), "POST", &path, headers, body.to_string().as_bytes());
    let text = String::from_utf8_lossy(&answer).into_owned();
    (status, serde_json::from_slice(&answer).unwrap_or(Value::String(text)))
}

#[test]
fn a_receipt_counts_each_session_once() {
    let node = Node::start(&["--shards", "2"]);
    let mut publisher = publisher(&node);
    assert_eq!(receipt(&mut publisher, &["nobody"], "1"), Reach::default());
    let mut clients: Vec<WebSocket> = (0..4).map(|_| node.websocket()).collect();
    for client in &mut clients {
        client.subscribe(&["a", "b"]);
    }
    let mut other = node.websocket();
    other.subscribe(&["b"]);
    let _filtered = subscribed(&node, &json!({"type":"subscribe","topics":["a"],"events":["another"]}));
    let all = |count| Reach { matched: count, written: count, ..Reach::default() };
    assert_eq!(receipt(&mut publisher, &["a"], "1"), all(4));
    assert_eq!(receipt(&mut publisher, &["b"], "2"), all(5));
    assert_eq!(receipt(&mut publisher, &["a", "b", "nobody"], "3"), all(5));
    assert_eq!(receipt(&mut publisher, &["b", "a"], "4"), all(5));
    for client in &mut clients {
        let data: Vec<Value> = (0..4).map(|_| client.next_json(PATIENCE)["data"].clone()).collect();
        assert_eq!(data, [json!(1), json!(2), json!(3), json!(4)]);
    }
    // Many at once, in one read: each has its own, and an event without the flag has none.
    let mut sequences = HashSet::new();
    for n in 0..300 {
        let data = n.to_string();
        let event = Event::new(if n % 2 == 0 { &["a"] } else { &["b"] }, "e", &data);
        if n % 3 == 0 {
            publisher.publish(&event).unwrap();
        } else {
            sequences.insert(publisher.publish_for_receipt(&event).unwrap());
        }
    }
    publisher.flush().unwrap();
    let first = *sequences.iter().min().unwrap();
    while !sequences.is_empty() {
        if let Answer::Receipt { sequence, reach } = publisher.answer().unwrap() {
            assert!(sequences.remove(&sequence), "{sequence} twice, or not asked for");
            assert_eq!(reach, all(if (sequence - first).is_multiple_of(2) { 5 } else { 4 }), "{sequence}");
        }
    }
    let metrics = node.stats();
    assert_eq!(metrics["receipts"], 1 + 4 + 200);
    publisher.close().unwrap();
}

#[test]
fn a_receipt_tells_who_waits_who_missed_it_and_who_was_closed() {
    let node = Node::start(&["--shards", "2", "--send-buffer", "16384", "--queue-events", "20"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["leaves-out", "closes", "keeps"]);
    let _newest = reads_nothing(&node, "leaves-out", "drop-newest");
    let _closed = reads_nothing(&node, "closes", "disconnect");
    let _oldest = reads_nothing(&node, "keeps", "drop-oldest");
    let mut publisher = publisher(&node);
    let data = format!("\"{}\"", "x".repeat(4000));
    for (topic, last) in [
        ("leaves-out", Reach { matched: 2, written: 1, left_out: 1, ..Reach::default() }),
        ("closes", Reach { matched: 2, written: 1, closed: 1, ..Reach::default() }),
    ] {
        let mut seen = Vec::new();
        let found = wait_until(PATIENCE, || {
            let reach = receipt(&mut publisher, &[topic], &data);
            healthy.next_json(PATIENCE);
            let Reach { matched, written, queued, left_out, closed } = reach;
            assert_eq!((matched, written + queued + left_out + closed), (2, 2), "{reach:?}");
            seen.push(reach);
            (reach == last).then_some(())
        });
        assert!(found.is_some(), "{topic}: {seen:?}");
        let waits = Reach { matched: 2, written: 1, queued: 1, ..Reach::default() };
        assert!(seen.contains(&waits), "{topic}: it waited first: {seen:?}");
    }
    // An event that is left out later, for a newer one, was queued when its receipt was sent.
    for _ in 0..100 {
        let reach = receipt(&mut publisher, &["keeps"], &data);
        healthy.next_json(PATIENCE);
        assert_eq!((reach.matched, reach.written + reach.queued, reach.left_out), (2, 2, 0), "{reach:?}");
    }
    assert!(node.stats()["dropped"]["drop_oldest"].as_u64() > Some(20));
}

#[test]
fn a_publisher_that_only_says_it_has_no_more_gets_its_receipts() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    let mut stream = TcpStream::connect(node.publish_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut out = Vec::new();
    for sequence in 1..=500 {
        let publish = Publish { topics: "a", event: "e", key: "", data: "1", timestamp_ms: 0 };
        publish.encode(FLAG_ACK | FLAG_RECEIPT, sequence, &mut out).unwrap();
    }
    stream.write_all(&out).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    let (mut rest, mut receipts, mut acknowledged) = (&answers[..], Vec::new(), 0);
    while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
        let header = Header::parse(header);
        let (body, after) = body.split_at(header.length as usize);
        match Kind::from_byte(header.kind) {
            Some(Kind::Receipt) => {
                assert_eq!(decode_receipt(body).unwrap().written, 1);
                receipts.push(header.sequence);
            }
            Some(Kind::Ack) => acknowledged = header.sequence,
            _ => panic!("{header:?}"),
        }
        rest = after;
    }
    receipts.sort_unstable();
    assert_eq!(receipts, (1..=500).collect::<Vec<u64>>());
    assert_eq!(acknowledged, 500);
}

#[test]
fn receipts_come_before_the_good_bye_of_a_node() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    let mut publisher = publisher(&node);
    let sequences: Vec<u64> =
        (0..200).map(|_| publisher.publish_for_receipt(&Event::new(&["a"], "e", "1")).unwrap()).collect();
    publisher.flush().unwrap();
    publisher.wait_for(sequences[0]).unwrap();
    let reader = thread::spawn(move || client.wait_closed(PATIENCE));
    node.signal(Signal::TERM);
    let (mut told, mut accepted) = (0, 0);
    loop {
        match publisher.answer() {
            Ok(Answer::Receipt { reach, .. }) => told += u64::from(reach.matched == 1),
            Ok(Answer::Ack { accepted: so_far, .. }) => accepted = so_far,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    assert!(accepted >= 1);
    assert_eq!(told, accepted, "every event that was accepted has its receipt");
    drop(publisher);
    assert!(reader.join().unwrap().is_some_and(|(code, _)| code == 1001));
    assert!(node.wait_exit(PATIENCE).success());
}

#[test]
fn http_waits_for_the_receipt_of_all_events_of_a_request() {
    let node = Node::start(&["--shards", "2"]);
    let event = |topic: &str| json!({"topic": topic, "event": "e", "data": 1});
    let nothing = json!({"matched":0,"written":0,"queued":0,"leftOut":0,"closed":0});
    let answer = post(&node, "?receipt=1", &[], &event("nobody"));
    assert_eq!(answer, (200, json!({"accepted":1,"receipt":nothing})));
    let mut clients: Vec<WebSocket> = (0..3).map(|_| node.websocket()).collect();
    clients.iter_mut().for_each(|client| drop(client.subscribe(&["a"])));
    let answer = post(&node, "?receipt=1", &[], &json!([event("a"), event("nobody"), event("a")]));
    let both = json!({"matched":6,"written":6,"queued":0,"leftOut":0,"closed":0});
    assert_eq!(answer, (200, json!({"accepted":2+1,"receipt":both})));
    assert_eq!(post(&node, "?receipt=0", &[], &event("a")), (200, json!({"accepted":1})));
    let (status, refused) = post(&node, "?receipt=maybe", &[], &event("a"));
    assert_eq!(status, 400);
    assert!(refused.to_string().contains("receipt"), "{refused}");
    let (status, refused) = post(&node, "?receipt=1", &[], &json!([event("a"), {"topic":"a"}]));
    assert_eq!((status, &refused["accepted"], refused.get("receipt")), (400, &json!(0), None));
}

#[test]
fn a_request_with_a_key_is_accepted_once() {
    let node = Node::start(&["--shards", "2", "--max-idempotency-keys", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    let body = |n: u64| json!([{"topic":"a","event":"e","data":n}, {"topic":"a","event":"e","data":n}]);
    let key = |key| [("Idempotency-Key", key)];
    assert_eq!(post(&node, "?receipt=1", &key("one"), &body(1)).1["receipt"]["written"], 2);
    let again = json!({"accepted":2,"duplicate":true,
        "receipt":{"matched":2,"written":2,"queued":0,"leftOut":0,"closed":0}});
    for _ in 0..5 {
        // Each is a connection of its own, on any shard.
        assert_eq!(post(&node, "", &key("one"), &body(1)), (200, again.clone()));
    }
    let (status, other) = post(&node, "", &key("one"), &body(2));
    assert_eq!(status, 422, "{other}");
    // A refused request is not remembered: mended, it may come under the same key.
    assert_eq!(post(&node, "", &key("two"), &json!({"topic":"a"})).0, 400);
    assert_eq!(post(&node, "", &key("two"), &body(2)), (200, json!({"accepted":2})));
    let (status, full) = post(&node, "", &key("three"), &body(3));
    assert_eq!(status, 503);
    assert!(full.to_string().contains("max_idempotency_keys"), "{full}");
    assert_eq!(post(&node, "", &[], &body(3)), (200, json!({"accepted":2})));
    for key in ["", &"k".repeat(256)] {
        assert_eq!(post(&node, "", &[("Idempotency-Key", key)], &body(4)).0, 400);
    }
    let data: Vec<Value> = (0..6).map(|_| client.next_json(PATIENCE)["data"].clone()).collect();
    assert_eq!(data, [1, 1, 2, 2, 3, 3]);
    let stats = node.stats();
    assert_eq!((&stats["eventsIn"], &stats["eventsDuplicate"]), (&json!(6), &json!(10)));
}

#[test]
fn what_a_name_sends_again_is_acknowledged_and_not_published_again() {
    let node = Node::start(&["--shards", "2", "--log-level", "info"]);
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    let open = |first| {
        let options = Options::new().name("importer", first).timeout(PATIENCE);
        options.open(&node.publish_addr().to_string()).unwrap()
    };
    let mut publisher = open(1);
    for n in 1..=5 {
        publisher.publish(&Event::new(&["a"], "e", &n.to_string())).unwrap();
    }
    publisher.settle().unwrap();
    // The connection breaks; the publisher does not know what arrived, and sends all of it again, and more.
    drop(publisher);
    for _ in 0..4 {
        let mut publisher = open(3);
        let mut reaches = Vec::new();
        for n in 3..=7 {
            let sequence = publisher.publish_for_receipt(&Event::new(&["a"], "e", &n.to_string())).unwrap();
            reaches.push((sequence, publisher.receipt(sequence).unwrap().written));
        }
        publisher.settle().unwrap();
        assert_eq!((publisher.accepted(), publisher.refused()), (5, 0));
        assert!(reaches.iter().all(|(sequence, written)| *sequence > 5 || *written == 0), "{reaches:?}");
        publisher.close().unwrap();
    }
    let mut unnamed = Publisher::open(&node.publish_addr().to_string()).unwrap();
    unnamed.publish(&Event::new(&["a"], "e", "8")).unwrap();
    unnamed.close().unwrap();
    let data: Vec<Value> = (0..8).map(|_| client.next_json(PATIENCE)["data"].clone()).collect();
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(node.stats()["eventsDuplicate"], 3 + 3 * 5);
    let line = node.wait_log("the first repeat of a connection", |line| line.contains("not published again"));
    assert!(line.contains("importer"), "{line}");
}

#[test]
fn after_the_window_a_name_may_begin_anew() {
    let node = Node::start(&["--idempotency-window", "1ms", "--max-idempotency-keys", "1"]);
    let open = |name: &str| {
        let options = Options::new().name(name, 1).timeout(PATIENCE);
        options.open(&node.publish_addr().to_string()).unwrap()
    };
    let published = wait_until(PATIENCE, || {
        let mut publisher = open("one");
        publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
        publisher.close().unwrap();
        (node.stats()["eventsIn"].as_u64() > Some(1)).then_some(())
    });
    assert!(published.is_some(), "sequence 1 is accepted again once the window is over");
    // A name whose publisher is connected is never forgotten: there is no room for another.
    let mut holds = open("one");
    holds.publish(&Event::new(&["a"], "e", "1")).unwrap();
    holds.settle().unwrap();
    let mut newcomer = open("two");
    let refused =
        newcomer.publish(&Event::new(&["a"], "e", "1")).and_then(|n| newcomer.wait_for(n)).unwrap_err();
    assert!(refused.to_string().contains("max_idempotency_keys"), "{refused}");
    holds.close().unwrap();
}

/// The layout, as a publisher in any language writes it.
#[test]
fn the_receipt_is_five_counts_under_the_sequence_of_its_event() {
    let node = Node::start(&[]);
    let mut stream = TcpStream::connect(node.publish_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut out = Vec::new();
    let publish = Publish { topics: "a", event: "e", key: "", data: "1", timestamp_ms: 0 };
    publish.encode(FLAG_RECEIPT, 0x0102_0304_0506_0708, &mut out).unwrap();
    stream.write_all(&out).unwrap();
    let mut frame = [0; 36];
    stream.read_exact(&mut frame).unwrap();
    let expected = [&[20, 0, 0, 0, 1, 7, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1][..], &[0; 20]].concat();
    assert_eq!(frame[..], expected[..]);
}
