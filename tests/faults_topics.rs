//! Threats by names: floods of subscriptions, topics without number, names made to collide.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::proc::{cpu_time, resident};
use common::{Node, PATIENCE, WebSocket};
use fanwire::client::{Event, Publisher};
use serde_json::json;

/// Memory that an allocator may keep of what was freed, and what a busy system adds.
const SLACK: u64 = 16 << 20;

#[test]
fn floods_of_subscriptions_are_held_to_their_limits_and_leave_nothing() {
    const CLIENTS: usize = 10;
    const MESSAGES: usize = 150;
    let flags = ["--max-subscriptions", "1000", "--max-topics", "5000", "--shards", "2"];
    let node = Node::start(&flags);
    let mut after_first = 0;
    for round in 0..4 {
        let mut clients: Vec<WebSocket> = (0..CLIENTS).map(|_| node.websocket()).collect();
        let names = |client: usize, message: usize| -> Vec<String> {
            (0..10).map(|n| format!("round-{round}:{client}:{message}:{n}")).collect()
        };
        for (number, client) in clients.iter_mut().enumerate() {
            for message in 0..MESSAGES {
                client.send_json(&json!({"type": "subscribe", "topics": names(number, message)}));
            }
        }
        // Every message has one answer: its topics, or why not.
        let mut taken = BTreeSet::new();
        let mut refused = [0, 0];
        for (number, client) in clients.iter_mut().enumerate() {
            let mut own = 0;
            for message in 0..MESSAGES {
                let answer = client.next_json(PATIENCE);
                match answer["type"].as_str().unwrap() {
                    "subscription-ack" => {
                        own += 10;
                        assert_eq!(answer["data"]["categories"].as_array().unwrap().len(), own);
                        taken.extend(names(number, message));
                    }
                    "error" => {
                        let error = answer["data"]["error"].as_str().unwrap();
                        let (own_limit, nodes) =
                            (error.contains("max_subscriptions"), error.contains("max_topics"));
                        assert!(own_limit != nodes && (nodes || own == 1000), "{own} topics: {error}");
                        refused[usize::from(nodes)] += 1;
                    }
                    other => panic!("{other}: {answer}"),
                }
            }
            assert!(own <= 1000);
        }
        // Two shards may both find the node full with the last places; what is there is what was acknowledged.
        assert!((4_900..=5_000).contains(&taken.len()), "{} topics", taken.len());
        assert!(refused[1] > 0, "{refused:?}");
        let stats = node.stats();
        assert_eq!((&stats["rooms"], &stats["subscriptions"]), (&json!(taken.len()), &json!(taken.len())));
        // An event for topics of which some were refused reaches those of the others.
        let all: Vec<String> = (0..CLIENTS).map(|client| names(client, 0)[0].clone()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        node.publish(&all, "e", &json!(round));
        for (client, name) in clients.iter_mut().zip(&all) {
            if taken.contains(*name) {
                assert_eq!(client.next_json(PATIENCE)["data"], round);
            }
        }
        drop(clients);
        node.wait_stats("nothing left", |stats| {
            ["connections", "rooms", "subscriptions", "pending"].iter().all(|figure| stats[figure] == 0)
        });
        if round == 0 {
            after_first = resident(&node);
        }
    }
    let after = resident(&node);
    assert!(after < after_first / 10 * 11 + SLACK, "{after} bytes, {after_first} after the first");
}

#[test]
fn a_million_topics_that_nobody_wants_leave_nothing_behind() {
    const FIRST: usize = 100_000;
    const ALL: usize = 1_000_000;
    let node = Node::start(&["--shards", "1"]);
    let mut client = node.websocket();
    client.subscribe(&["topic-777777"]);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut publish = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            publisher.publish(&Event::new(&[&format!("topic-{number}")], "e", "1")).unwrap();
        }
        publisher.settle().unwrap();
    };
    publish(0..FIRST);
    let before = resident(&node);
    publish(FIRST..ALL);
    assert_eq!(client.next_json(PATIENCE)["category"], "topic-777777");
    let stats = node.wait_stats("all in", |stats| stats["eventsIn"] == ALL);
    assert_eq!(stats["rooms"], 1);
    let after = resident(&node);
    assert!(after < before / 10 * 11 + SLACK, "{after} bytes, {before} after the first {FIRST}");
    drop(client);
    node.wait_stats("no topic", |stats| stats["rooms"] == 0);
}

/// Hashes as many programs have them: a number times a factor plus the next byte. Every one of these names has the same.
fn colliding(pair: [&str; 2], pairs: u32) -> Vec<String> {
    (0..1_u32 << pairs).map(|n| (0..pairs).map(|bit| pair[(n >> bit & 1) as usize]).collect()).collect()
}

/// Processor time that a node takes for topics of these names: all of them subscribed to, heard, and left.
fn work(names: &[String]) -> Duration {
    let node = Node::start(&["--shards", "1"]);
    let mut clients: Vec<WebSocket> = names
        .chunks(1000)
        .map(|names| {
            let mut client = node.websocket();
            client.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>());
            client
        })
        .collect();
    assert_eq!(node.stats()["rooms"], names.len());
    for (client, names) in clients.iter_mut().zip(names.chunks(1000)).step_by(8) {
        node.publish(&[&names[names.len() - 1]], "e", &json!("here"));
        assert_eq!(client.next_json(PATIENCE)["data"], "here");
    }
    drop(clients);
    node.wait_stats("nothing left", |stats| stats["rooms"] == 0 && stats["subscriptions"] == 0);
    cpu_time(&node)
}

#[test]
fn names_made_to_collide_are_no_more_work_than_others() {
    let hash = |factor: u32, name: &str| {
        name.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(factor).wrapping_add(byte.into()))
    };
    let usual: Vec<String> = (0..1 << 15).map(|n| format!("a topic with the number {n:06}")).collect();
    let usual = work(&usual);
    // Java's strings and their like (31); djb2 (33).
    for (factor, pair) in [(31, ["Aa", "BB"]), (33, ["Ab", "BA"])] {
        let names = colliding(pair, 15);
        assert!(names.iter().all(|name| hash(factor, name) == hash(factor, &names[0])));
        // Looked through one by one, they would be half a billion comparisons for each table that has them: a
        // share of work, not a speed.
        let taken = work(&names);
        assert!(taken < 3 * usual + Duration::from_secs(1), "{factor}: {taken:?}, others {usual:?}");
    }
}
