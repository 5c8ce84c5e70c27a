//! What many slow clients may cost: memory within the budget, and nothing of the others.

mod common;

use common::proc::{memory, open_files};
use common::{Incoming, Node, PATIENCE, WebSocket, wait_until};
use fanwire::client::{Event, Publisher};
use serde_json::{Value, json};

const BUDGET: u64 = 16 << 20;

/// The budget, a tenth more, and what the process needs for its sockets' buffers and rounds in flight.
fn is_within_budget(grown: u64) -> bool {
    grown <= BUDGET + BUDGET / 10 + (6 << 20)
}

fn narrow(node: &Node, query: &str) -> WebSocket {
    let mut client = WebSocket::connect_narrow(node.http_addr(), &format!("/ws?{query}"));
    assert_eq!(client.next_json(PATIENCE)["type"], "subscription-ack");
    client
}

/// How a slow client ends up: events it got, events it was told that it missed, and its close code.
fn account(client: &mut WebSocket, until: u64) -> (u64, u64, Option<u16>) {
    let (mut got, mut missed) = (0, 0);
    while got + missed < until {
        match client.next(PATIENCE) {
            Incoming::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                match message["type"].as_str().unwrap() {
                    "gap" => missed += message["data"]["dropped"].as_u64().unwrap(),
                    "event" => {
                        // What is missing before it was told before it.
                        assert_eq!(message["data"]["n"], got + missed, "a gap in silence");
                        got += 1;
                    }
                    _ => {}
                }
            }
            Incoming::Closed(closed) => return (got, missed, Some(closed.expect("a close frame").0)),
            Incoming::Nothing => panic!("neither events nor a gap nor an end, after {got} and {missed}"),
        }
    }
    (got, missed, None)
}

#[test]
fn readers_that_stop_cost_the_others_nothing_and_are_told() {
    const EVENTS: u64 = 150;
    let flags =
        ["--shards", "2", "--send-buffer", "16KiB", "--queue-events", "1000", "--queue-bytes", "1MiB"];
    let more = ["--max-outbox-bytes", "16MiB", "--close-timeout", "1m"];
    let node = Node::start(&[&flags[..], &more].concat());
    let (base, files) = (memory(&node, "VmRSS"), open_files(&node));
    let mut healthy: Vec<WebSocket> = (0..10).map(|_| node.websocket()).collect();
    healthy.iter_mut().for_each(|client| drop(client.subscribe(&["t"])));
    let policies = ["disconnect", "drop-oldest", "drop-newest", "conflate"];
    let mut slow: Vec<WebSocket> =
        (0..8).map(|n| narrow(&node, &format!("categories=t&policy={}", policies[n % 4]))).collect();
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let padding = "x".repeat(32 << 10);
    let mut most = 0;
    for n in 0..EVENTS {
        let data = format!(r#"{{"n":{n},"x":"{padding}"}}"#);
        let key = (n % 5).to_string();
        publisher.publish(&Event { key: &key, ..Event::new(&["t"], "e", &data) }).unwrap();
        publisher.settle().unwrap();
        for client in &mut healthy {
            assert_eq!(client.next_json(PATIENCE)["data"]["n"], n, "a healthy client notices");
        }
        most = most.max(node.stats()["outbox"]["heldBytes"].as_u64().unwrap());
    }
    assert!(most <= BUDGET + (1 << 20), "{most} bytes held");
    let grown = memory(&node, "VmHWM") - base;
    assert!(is_within_budget(grown), "{grown} bytes more than at the start");
    // Everybody is told what became of them: what they missed, or why they are closed.
    let accounts: Vec<_> = slow.iter_mut().map(|client| account(client, EVENTS)).collect();
    for (n, (got, missed, code)) in accounts.iter().enumerate() {
        match policies[n % 4] {
            "disconnect" => assert_eq!((*missed, *code), (0, Some(4008)), "{accounts:?}"),
            _ => assert!(*missed > 0 && got + missed == EVENTS && code.is_none(), "{accounts:?}"),
        }
    }
    let stats = node.wait_stats("all accounted for", |stats| stats["pending"] == 0);
    let told: u64 = accounts.iter().map(|(_, missed, _)| missed).sum();
    let dropped = stats["dropped"].as_object().unwrap();
    let closed: u64 =
        ["slow_consumer", "outbox_memory"].iter().filter_map(|r| dropped.get(*r)?.as_u64()).sum();
    let all: u64 = dropped.values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(all - closed, told, "{dropped:?}");
    // And nothing is left of it.
    drop((healthy, slow, publisher));
    let stats = node.wait_stats("nobody", |stats| stats["connections"] == 0 && stats["publishers"] == 0);
    assert_eq!((&stats["subscriptions"], &stats["rooms"]), (&json!(0), &json!(0)));
    node.wait_stats("nothing held", |stats| stats["outbox"]["heldBytes"] == 0);
    wait_until(PATIENCE, || (open_files(&node) == files).then_some(()))
        .unwrap_or_else(|| panic!("{} open files, {files} before", open_files(&node)));
}

#[test]
fn clients_that_each_keep_to_their_limit_keep_to_the_budget_together() {
    // Each on a topic of its own, so that nothing is shared: 60 times 900 kB where 16 MiB may be held.
    let flags =
        ["--shards", "2", "--send-buffer", "16KiB", "--queue-events", "1000", "--queue-bytes", "1MiB"];
    let more = ["--max-outbox-bytes", "16MiB", "--close-timeout", "1m"];
    let node = Node::start(&[&flags[..], &more].concat());
    let mut healthy = node.websocket();
    healthy.subscribe(&["healthy"]);
    let mut clients: Vec<(String, WebSocket)> = (0..60)
        .map(|n| {
            let policy = if n % 2 == 0 { "disconnect" } else { "drop-oldest" };
            let topic = format!("t{n}");
            let client = narrow(&node, &format!("categories={topic}&policy={policy}"));
            (topic, client)
        })
        .collect();
    let base = memory(&node, "VmRSS");
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let padding = "x".repeat(10_000);
    for n in 0..90 {
        for (topic, _) in &clients {
            let data = format!(r#"{{"n":{n},"x":"{padding}"}}"#);
            publisher.publish(&Event::new(&[topic], "e", &data)).unwrap();
        }
        publisher.publish(&Event::new(&["healthy"], "e", &n.to_string())).unwrap();
        publisher.settle().unwrap();
        assert_eq!(healthy.next_json(PATIENCE)["data"], n);
        // What is on its way to a shard is bounded by itself (`link_bytes`): here it is not to count.
        let is_through = |shard: &Value| shard["linkBytes"] == 0;
        let stats = node.wait_stats("all dispatched", |stats| {
            stats["perShard"].as_array().unwrap().iter().all(is_through)
        });
        let held = stats["outbox"]["heldBytes"].as_u64().unwrap();
        assert!(held <= BUDGET + (1 << 20), "{held} bytes held");
    }
    let grown = memory(&node, "VmHWM") - base;
    assert!(is_within_budget(grown), "{grown} bytes more than at the start");
    let stats = node.stats();
    assert!(stats["closed"]["outbox_memory"].as_u64() > Some(0), "{stats:#}");
    assert!(stats["dropped"]["drop_oldest"].as_u64() > Some(0), "{stats:#}");
    for (topic, client) in &mut clients {
        let (got, missed, code) = account(client, 90);
        assert!(got + missed == 90 || code == Some(4008), "{topic}: {got} {missed} {code:?}");
    }
}
