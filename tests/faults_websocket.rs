//! Threats from inside a WebSocket: messages without end, floods, and closes that nobody answers.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::proc::{open_files, resident};
use common::raw::RawClient;
use common::{Node, PATIENCE, WebSocket, wait_until};
use fanwire::client::{Event, Publisher};
use fanwire::proto::websocket::masked;
use serde_json::{Value, json};

const STREAM: &str =
    "[[stream]]\npath = \"/runs/{runId}/stream\"\ntopic = \"run:{runId}\"\nenvelope = '{data}'\n";
const PING: &[u8] = br#"{"type":"ping"}"#;

/// Lets time pass in which nothing is waited for, in small steps.
fn for_a_while(time: Duration, mut step: impl FnMut()) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        step();
        // The pace of whoever acts, not a wait for anything.
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_begins_a_message_and_does_not_end_it_is_closed() {
    const TIMEOUT: Duration = Duration::from_millis(700);
    let node = Node::start_with_file(STREAM, &["--message-timeout", "700ms", "--shards", "1"]);
    let ping = masked(0x89, b"still here");
    let text = masked(0x81, PING);
    let cases: [(&str, &[u8], &[u8]); 6] = [
        ("half a header, and nothing", &text[..1], b""),
        ("half a frame, and nothing", &text[..9], b""),
        ("half a ping, and nothing", &ping[..7], b""),
        ("a fragment, and pings for ever", &masked(0x01, b"{"), &ping),
        ("a fragment, and empty ones for ever", &masked(0x01, b"{"), &masked(0x00, b"")),
        ("a fragment, and small ones for ever", &masked(0x01, b"{"), &masked(0x00, b" ")),
    ];
    let mut clients: Vec<(&str, &[u8], RawClient)> = Vec::new();
    for path in ["/ws", "/runs/1/stream"] {
        for (what, begin, more) in cases {
            let mut client = RawClient::open(node.http_addr(), path);
            client.send(begin);
            clients.push((what, more, client));
        }
    }
    // Never whole at the end of a read, and yet nobody is late: each message comes soon after it began.
    let mut steady = RawClient::connect(node.http_addr());
    let (head, tail) = text.split_at(9);
    steady.send(head);
    let mut pings = 0;
    for_a_while(2 * TIMEOUT, || {
        steady.send(&[tail, head].concat());
        pings += 1;
        for (_, more, client) in &mut clients {
            let _ = client.stream.write_all(more); // It may be closed by now.
        }
    });
    for (what, _, client) in &mut clients {
        let (code, reason) = client.wait_close().unwrap_or_else(|| panic!("{what}: no close frame"));
        let reason: Value = serde_json::from_str(&reason).unwrap();
        assert_eq!(code, 1008, "{what}");
        assert!(reason["error"].as_str().unwrap().contains("message_timeout"), "{what}: {reason}");
    }
    steady.send(tail);
    let pongs = (0..=pings).map(|_| steady.next_text()).filter(|text| text.contains("\"pong\"")).count();
    assert_eq!(pongs, pings + 1);
    let stats = node.wait_stats("the steady one alone", |stats| stats["connections"] == 1);
    let count = clients.len();
    assert_eq!(stats["closed"], json!({"message_timeout": count}));
    assert_eq!(stats["refused"]["timeout"], count);
}

#[test]
fn a_client_that_is_not_read_is_not_late() {
    let flags = ["--message-timeout", "300ms", "--send-buffer", "8KiB", "--shards", "1"];
    let node = Node::start(&flags);
    let mut client = RawClient::open_narrow(node.http_addr(), "/ws");
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let ping = masked(0x89, &[b'p'; 125]);
    let much = ping.repeat(1000);
    let mut sent = 0;
    // Until nothing moves any more, which is in the middle of a ping somewhere: its answers wait.
    while let Ok(count) = client.stream.write(&much[sent % much.len()..]) {
        sent += count;
    }
    for_a_while(Duration::from_millis(900), || {
        assert_eq!(node.stats()["connections"], 1);
    });
    // It reads, and every ping gets its answer.
    client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let rest = ping.len() - sent % ping.len();
    let mut writer = client.stream.try_clone().unwrap();
    thread::scope(|scope| {
        let ping = &ping;
        scope.spawn(move || writer.write_all(&ping[ping.len() - rest..]).unwrap());
        for n in 0..sent / ping.len() + 1 {
            let frame = client.next_frame();
            assert!(frame.as_ref().is_some_and(|(opcode, _)| *opcode == 10), "{n}: {frame:?}");
        }
    });
    assert_eq!(node.stats()["connections"], 1);
}

#[test]
fn more_messages_than_allowed_close_with_1008() {
    let node = Node::start_with_file(STREAM, &["--max-messages-per-second", "50", "--shards", "1"]);
    let mut bystander = RawClient::connect(node.http_addr());
    let floods: [(&str, Vec<u8>, u8); 4] = [
        ("/ws", masked(0x89, b"p"), 10),
        ("/ws", masked(0x81, PING), 1),
        ("/runs/1/stream", masked(0x89, b""), 10),
        ("/runs/1/stream", masked(0x82, b"x"), 0),
    ];
    for (path, frame, answer) in &floods {
        let mut client = RawClient::open(node.http_addr(), path);
        client.send(&frame.repeat(400));
        let mut answers = 0;
        let (code, reason) = loop {
            match client.next_frame().expect("a close frame") {
                (8, close) => break (u16::from_be_bytes([close[0], close[1]]), close[2..].to_vec()),
                (opcode, _) => {
                    assert_eq!(opcode, *answer, "{path}");
                    answers += 1;
                }
            }
        };
        assert_eq!((code, &*reason), (1008, &br#"{"error":"above max_messages_per_second"}"#[..]));
        // 400 frames take no second, or hardly: what came before the end was answered.
        let expected = if *answer == 0 { 0..=0 } else { 50..=399 };
        assert!(expected.contains(&answers), "{path}: {answers} answers");
        bystander.send(&masked(0x89, b"quiet"));
        assert_eq!(bystander.next_frame(), Some((10, b"quiet".to_vec())));
    }
    let stats = node.wait_stats("the bystander alone", |stats| stats["connections"] == 1);
    assert_eq!(stats["closed"], json!({"message_rate": floods.len()}));
    assert_eq!(stats["refused"]["message_rate"], floods.len());
}

#[test]
fn pings_without_end_pile_up_nowhere() {
    let node = Node::start(&["--shards", "1", "--send-buffer", "8KiB"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    let before = resident(&node);
    let flood = masked(0x89, b"").repeat(20_000);
    // Empty pings cost the most beside their bytes. Each client goes on until nothing moves any more.
    let clients: Vec<RawClient> = (0..20)
        .map(|_| {
            let mut client = RawClient::open_narrow(node.http_addr(), "/ws");
            client.stream.set_nonblocking(true).unwrap();
            let full = wait_until(PATIENCE, || match client.stream.write(&flood) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Some(()),
                other => other.map(|_| None).unwrap(),
            });
            full.expect("it is read for ever");
            client
        })
        .collect();
    for n in 0..200 {
        node.publish(&["t"], "e", &json!(n));
        assert_eq!(healthy.next_json(PATIENCE)["data"], n);
    }
    let held = node.stats()["outbox"]["heldBytes"].as_u64().unwrap();
    let most = clients.len() as u64 * (192 << 10);
    assert!(held < most, "{held} bytes are held");
    let grown = resident(&node).saturating_sub(before);
    assert!(grown < 2 * most + (8 << 20), "{grown} bytes more");
    drop(clients);
    let stats = node.wait_stats("one client", |stats| stats["connections"] == 1);
    assert!(stats["outbox"]["heldBytes"].as_u64().unwrap() < 64 << 10, "{stats:#}");
}

/// Says that it is over when it goes, also where a test fails: threads that go on for ever are not waited for.
struct Quiet<'a>(&'a AtomicBool);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_loud_client_takes_nothing_from_the_others() {
    const EVENTS: usize = 300;
    let node = Node::start(&["--shards", "1"]);
    let mut healthy: Vec<WebSocket> = (0..5).map(|_| node.websocket()).collect();
    healthy.iter_mut().for_each(|client| drop(client.subscribe(&["t"])));
    // One whose frames are answered, one whose frames are not, and one whose messages are errors.
    let kinds = [masked(0x89, b"x"), masked(0x8A, b""), masked(0x81, b"?")];
    let (is_over, loud) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let quiet = Quiet(&is_over);
        for frame in &kinds {
            let mut client = RawClient::connect(node.http_addr());
            let mut reader = client.stream.try_clone().unwrap();
            scope.spawn(move || while reader.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {});
            let (is_over, loud) = (&is_over, &loud);
            scope.spawn(move || {
                let frames = frame.repeat(8_000);
                while !is_over.load(Ordering::Relaxed) {
                    client.send(&frames);
                    loud.fetch_add(8_000, Ordering::Relaxed);
                }
                client.stream.shutdown(std::net::Shutdown::Both).unwrap();
            });
        }
        wait_until(PATIENCE, || (loud.load(Ordering::Relaxed) > 100_000).then_some(())).expect("no flood");
        let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
        for n in 0..EVENTS {
            publisher.publish(&Event::new(&["t"], "e", &n.to_string())).unwrap();
        }
        publisher.settle().unwrap();
        for client in &mut healthy {
            for n in 0..EVENTS {
                assert_eq!(client.next_json(PATIENCE)["data"], n);
            }
        }
        drop(quiet);
    });
    let stats = node.wait_stats("the healthy ones", |stats| stats["connections"] == 5);
    assert_eq!(stats["closed"], json!({"connection_lost": kinds.len()}));
}

#[test]
fn closes_that_nobody_answers_leave_nothing_behind() {
    let node = Node::start(&["--close-timeout", "2s", "--shards", "2"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    let is_one = |stats: &Value| stats["connections"] == 1 && stats["subscriptions"] == 1;
    let before = node.wait_stats("one subscription", is_one);
    let files = open_files(&node);
    let subscribe = masked(0x81, br#"{"type":"subscribe","topics":["t","late"]}"#);
    let mut clients: Vec<RawClient> = (0..300)
        .map(|n| {
            let mut client = RawClient::open(node.http_addr(), "/ws?topics=t,own");
            client.send(match n % 3 {
                0 => &[0x81, 0x01], // Not masked.
                1 => &[0x88, 0x80, 1, 2, 3, 4],
                _ => &[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xA0], // 4000
            });
            // What comes after a close is nothing.
            let _ = client.stream.write_all(&subscribe);
            client
        })
        .collect();
    // All get their close, and stay where they are.
    for (n, client) in clients.iter_mut().enumerate() {
        let close = loop {
            match client.next_frame() {
                Some((8, close)) => break close,
                Some((opcode, _)) => assert_eq!(opcode, 1),
                None => panic!("{n}: no close"),
            }
        };
        match n % 3 {
            0 => assert_eq!(close[..2], [0x03, 0xEA]),
            1 => assert!(close.is_empty()),
            _ => assert_eq!(close, [0x0F, 0xA0]),
        }
        if n % 10 == 0 {
            node.publish(&["t", "own", "late"], "e", &json!(n));
            assert_eq!(healthy.next_json(PATIENCE)["data"], n);
        }
    }
    // They do not go, so they are left.
    let is_so = || (open_files(&node) <= files).then_some(());
    wait_until(PATIENCE, is_so).unwrap_or_else(|| panic!("{} files, {files} before", open_files(&node)));
    let after = node.wait_stats("nothing left", |stats| stats["httpConnections"].as_u64() <= Some(1));
    for figure in ["connections", "rooms", "subscriptions", "pending"] {
        assert_eq!(after[figure], before[figure], "{figure}");
    }
    assert_eq!(after["closed"], json!({"client_closed": 200, "protocol_error": 100}));
    drop(clients);
}
