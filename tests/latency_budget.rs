//! Events may be held back for a while, so that one write carries more of them.

mod common;

use common::{Node, PATIENCE, http};
use fanwire::client::{Event, Options};
use serde_json::json;

/// Publishes so many events one by one, each accepted before the next is sent.
fn publish_one_by_one(node: &Node, count: u64) {
    let mut publisher = Options::new().timeout(PATIENCE).open(&node.publish_addr().to_string()).unwrap();
    for n in 1..=count {
        let sequence = publisher.publish(&Event::new(&["a"], "e", &n.to_string())).unwrap();
        publisher.wait_for(sequence).unwrap();
    }
    publisher.close().unwrap();
}

#[test]
fn with_a_budget_one_write_carries_more_events_and_none_is_lost() {
    let node = Node::start(&["--latency-budget", "1s"]);
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    let before = node.stats();
    publish_one_by_one(&node, 300);
    for n in 1..=300 {
        assert_eq!(client.next_json(PATIENCE)["data"], n);
    }
    let after = node.wait_stats("all delivered", |stats| stats["pending"] == 0);
    let grown = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert_eq!(grown("deliveries"), 300);
    // 300 of them are the publisher's ACKs.
    assert!(grown("flushes") < 2 * 300, "{} flushes", grown("flushes"));
}

#[test]
fn what_is_not_an_event_is_not_held_back_and_takes_the_events_before_it_along() {
    // Longer than any of the waits below.
    // In one shard: a pong waits for no other.
    let node = Node::start(&["--latency-budget", "1s", "--shards", "1"]);
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    for n in 0..5 {
        publish_one_by_one(&node, 1);
        client.send_json(&json!({"type":"ping"}));
        assert_eq!(client.next_json(PATIENCE)["data"], 1, "{n}");
        assert_eq!(client.next_json(PATIENCE)["type"], "pong", "{n}");
    }
    // A receipt waits for the write, however long that is held back.
    let mut publisher = Options::new().timeout(PATIENCE).open(&node.publish_addr().to_string()).unwrap();
    for _ in 0..3 {
        let sequence = publisher.publish_for_receipt(&Event::new(&["a"], "e", "2")).unwrap();
        let reach = publisher.receipt(sequence).unwrap();
        assert_eq!((reach.matched, reach.written, reach.queued), (1, 1, 0));
    }
    let (status, ..) = http(node.http_addr(), "GET", "/healthz", &[], b"");
    assert_eq!(status, 200);
}
