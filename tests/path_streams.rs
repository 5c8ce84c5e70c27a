//! Path streams over real sockets: the clients of the system that they come from, limits, heartbeats, batches, slow
//! clients, what a path may be, and what a file may say.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::foreign::Foreign;
use common::raw::{RawClient, upgrade};
use common::sse::{EventStream, Said};
use common::{
    Dialogue, Incoming, Node, PATIENCE, TempDir, WebSocket, fanwire, http, in_repository, node_script,
    nodejs, run, run_any, wait_until,
};
use fanwire::client::{Event, Publisher};
use fanwire::proto::websocket::masked;
use serde_json::{Value, json};

/// The stream of the write-up: its path, its message, its queue and its patience.
const SEED: &str = r#"
[[stream]]
path = "/api/v2/workflows/runs/{runId}/stream"
topic = "run:{runId}"
envelope = '{"runId":"{runId}","type":{event},"payload":{data}}'
queue_events = 256
write_timeout = "10s"
"#;

/// The run of the write-up.
const RUN: &str = "550e8400-e29b-41d4-a716-446655440000";

/// Its messages: type and payload.
const MESSAGES: [(&str, &str); 7] = [
    ("step_start", r#"{"stepId":"step1","stepName":"Validate Input"}"#),
    ("step_complete", r#"{"stepId":"step1","stepName":"Validate Input","status":"success","duration":1250}"#),
    (
        "step_log",
        r#"{"stepId":"step1","level":"info","message":"Starting step: Validate Input","timestamp":"2025-11-21T10:30:45.123Z"}"#,
    ),
    (
        "step_log",
        r#"{"stepId":"step1","level":"debug","message":"\"quoted\" \\ \u00e9 é","timestamp":"2025-11-21T10:30:45.124Z"}"#,
    ),
    ("step_log", r#"{"stepId":"step1","level":"warn","message":"","timestamp":"2025-11-21T10:30:45.125Z"}"#),
    (
        "step_log",
        r#"{"stepId":"step1","level":"error","message":"line\nbreak","timestamp":"2025-11-21T10:30:45.126Z"}"#,
    ),
    (
        "variable_change",
        r#"{"stepId":"step1","varName":"userId","oldValue":null,"newValue":"12345","changeType":"create"}"#,
    ),
];

fn path_of(run: &str) -> String {
    format!("/api/v2/workflows/runs/{run}/stream")
}

/// What a client of a run gets for an event.
fn message(run: &str, event: &str, data: &str) -> String {
    format!(r#"{{"runId":{},"type":"{event}","payload":{data}}}"#, json!(run))
}

/// The ways in: the publish socket, the command line, HTTP.
struct Ways<'a> {
    node: &'a Node,
    socket: Publisher,
}

impl<'a> Ways<'a> {
    fn to(node: &'a Node) -> Self {
        Self { node, socket: Publisher::open(&node.publish_addr().to_string()).unwrap() }
    }

    /// Publishes by one of them; it is accepted when this returns.
    fn publish(&mut self, way: usize, topic: &str, event: &str, data: &str) {
        match way % 3 {
            0 => {
                self.socket.publish(&Event::new(&[topic], event, data)).unwrap();
                self.socket.settle().unwrap();
            }
            1 => {
                let to = self.node.publish_addr().to_string();
                run(fanwire().args(["pub", "--to", &to, topic, event, data]), PATIENCE);
            }
            _ => {
                let body = format!(r#"{{"topic":{},"event":"{event}","data":{data}}}"#, json!(topic));
                let (status, _, answer) =
                    http(self.node.http_addr(), "POST", "/api/publish", &[], body.as_bytes());
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
            }
        }
    }
}

// Clients of the write-up ----------------------------------------------------------------------------------------

/// npm `ws`, Python's `websockets`, and gorilla, which the write-up's own node is made of.
const FOREIGN: [&str; 3] = ["client.mjs", "client.py", "gorilla"];

#[test]
fn clients_in_three_languages_get_every_message_of_the_write_up() {
    let node = Node::start_with_file(SEED, &[]);
    let url = format!("ws://{}{}", node.http_addr(), path_of(RUN));
    let mut clients = FOREIGN.map(|script| Foreign::connect(script, &url));
    let mut ways = Ways::to(&node);
    for way in 0..3 {
        for (event, payload) in MESSAGES {
            ways.publish(way, "run:another", event, payload);
            ways.publish(way, &format!("run:{RUN}"), event, payload);
            let expected: Value = serde_json::from_str(payload).unwrap();
            for (client, name) in clients.iter_mut().zip(FOREIGN) {
                let text = client.next_text();
                assert_eq!(text, message(RUN, event, payload), "{name}: byte for byte");
                let got: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(got["runId"], RUN);
                assert_eq!(got["type"], event);
                for (field, value) in expected.as_object().unwrap() {
                    assert_eq!(&got["payload"][field], value, "{name}: {field}");
                }
                assert_eq!(got.as_object().unwrap().len(), 3);
            }
        }
    }
    for (client, name) in clients.iter_mut().zip(FOREIGN) {
        // What they send means nothing, pings are answered, and a close is echoed.
        client.tell(&json!({"send": "anything"}));
        client.tell(&json!({"sendBinary": "00ff"}));
        client.tell(&json!({"ping": "00ff10"}));
        assert_eq!(client.next(), json!({"pong": "00ff10"}), "{name}");
        client.tell(&json!({"close": 4321}));
        assert_eq!(client.closed().0, 4321, "{name}");
    }
    let stats = node.wait_stats("no client", |stats| stats["connections"] == 0 && stats["rooms"] == 0);
    assert_eq!(stats["closed"], json!({"client_closed": 3}));
    assert_eq!(stats["refused"], json!({}));
}

#[test]
fn wscat_prints_every_message() {
    let node = Node::start_with_file(SEED, &[]);
    let wscat = in_repository("tests/e2e/node_modules/.bin/wscat");
    assert!(wscat.is_file(), "{} is missing: run `make install-deps`", wscat.display());
    let mut command = std::process::Command::new(nodejs());
    command.arg(wscat).arg("-c").arg(format!("ws://{}{}", node.http_addr(), path_of(RUN)));
    let mut client = Dialogue::start(&mut command);
    node.wait_stats("one client", |stats| stats["connections"] == 1);
    let mut ways = Ways::to(&node);
    for (way, (event, payload)) in MESSAGES.into_iter().enumerate() {
        ways.publish(way, &format!("run:{RUN}"), event, payload);
        assert_eq!(client.next_line().unwrap(), message(RUN, event, payload));
    }
    // What somebody types is nothing to the node.
    client.tell("hello");
    ways.publish(0, &format!("run:{RUN}"), "step_start", "{}");
    let line = client.next_line().unwrap();
    assert_eq!(line.trim_start_matches("> "), message(RUN, "step_start", "{}"), "behind its prompt");
    client.end();
    node.wait_stats("no client", |stats| stats["connections"] == 0);
}

/// The write-up's snippet, unchanged: also its run is called YOUR_RUN_ID.
fn the_snippet_works(place: &str) {
    let node = Node::start_with_file(SEED, &[]);
    let address = node.http_addr().to_string();
    let mut snippet =
        Dialogue::start(node_script("run_sample.mjs").args([place, &address, "run_stream_sample.js"]));
    node.wait_stats("one client", |stats| stats["connections"] == 1);
    let mut ways = Ways::to(&node);
    for (way, (event, payload)) in MESSAGES.into_iter().enumerate() {
        ways.publish(way, "run:YOUR_RUN_ID", event, payload);
        let line = snippet.next_line().unwrap();
        let (kind, shown) = line.split_once(' ').unwrap();
        assert_eq!(kind, format!("[{event}]"));
        let (shown, sent): (Value, Value) =
            (serde_json::from_str(shown).unwrap(), serde_json::from_str(payload).unwrap());
        for (field, value) in sent.as_object().unwrap() {
            assert_eq!(&shown[field], value, "{field}");
        }
        assert_eq!(shown, sent);
    }
    snippet.end();
    node.wait_stats("no client", |stats| stats["connections"] == 0);
    assert!(snippet.wait_exit().success());
}

#[test]
fn the_snippet_works_unchanged_under_ws() {
    the_snippet_works("node");
}

#[test]
fn the_snippet_works_unchanged_in_chromium() {
    the_snippet_works("chromium");
}

// What clients send ----------------------------------------------------------------------------------------------

#[test]
fn messages_of_512_bytes_are_ignored_and_larger_ones_close() {
    let node = Node::start_with_file(SEED, &[]);
    let mut bystander = RawClient::open(node.http_addr(), &path_of(RUN));
    let x = |count| vec![b'x'; count];
    let in_pieces = |opcode, pieces: &[usize]| {
        let last = pieces.len() - 1;
        let frame = |(place, count): (usize, &usize)| {
            let first = if place == 0 { opcode } else { 0 } | if place == last { 0x80 } else { 0 };
            masked(first, &x(*count))
        };
        pieces.iter().enumerate().flat_map(frame).collect::<Vec<u8>>()
    };
    let cases: [(&str, Vec<u8>, Option<u16>); 15] = [
        ("nothing", masked(0x81, b""), None),
        ("text of 512 bytes", masked(0x81, &x(512)), None),
        ("binary of 512 bytes", masked(0x82, &x(512)), None),
        ("512 bytes in three pieces", in_pieces(1, &[200, 300, 12]), None),
        ("many small messages", masked(0x81, &x(500)).repeat(1000), None),
        (
            "JSON that would subscribe elsewhere",
            masked(0x81, br#"{"type":"subscribe","topics":["x"]}"#),
            None,
        ),
        ("binary that is no UTF-8", masked(0x82, b"\xff"), None),
        ("text of 513 bytes", masked(0x81, &x(513)), Some(1009)),
        ("binary of 513 bytes", masked(0x82, &x(513)), Some(1009)),
        ("513 bytes in two pieces", in_pieces(1, &[512, 1]), Some(1009)),
        ("513 bytes in four pieces", in_pieces(2, &[200, 200, 112, 1]), Some(1009)),
        ("only the header of a large one", vec![0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], Some(1009)),
        ("text that is no UTF-8", masked(0x81, b"\xff"), Some(1007)),
        ("not masked", vec![0x81, 1, b'x'], Some(1002)),
        ("a fragment of nothing", masked(0x80, b"x"), Some(1002)),
    ];
    let topic = format!("run:{RUN}");
    for (number, (what, bytes, expected)) in cases.iter().enumerate() {
        let mut client = RawClient::open(node.http_addr(), &path_of(RUN));
        // The node may close before it has read all of it.
        let _ = client.stream.write_all(bytes);
        if let Some(code) = expected {
            assert_eq!(client.wait_close().map(|(code, _)| code), Some(*code), "{what}");
            client.send(&masked(0x88, &code.to_be_bytes()));
            assert_eq!(client.next_frame(), None, "{what}: nothing follows the close");
        } else {
            client.send(&masked(0x89, b"are you there"));
            assert_eq!(client.next_frame(), Some((10, b"are you there".to_vec())), "{what}");
        }
        node.publish(&[&topic], "e", &json!(number));
        let text = message(RUN, "e", &number.to_string());
        assert_eq!(bystander.next_text(), text, "{what}: nobody else notices");
        if expected.is_none() {
            assert_eq!(client.next_text(), text, "{what}");
            client.send(&masked(0x88, &[0x0F, 0xA1, b'b', b'y', b'e']));
            assert_eq!(client.next_frame(), Some((8, vec![0x0F, 0xA1])), "{what}: the code is echoed");
            assert_eq!(client.next_frame(), None);
        }
    }
    let stats = node.wait_stats("the bystander alone", |stats| stats["connections"] == 1);
    let closed = json!({"client_closed": 7, "message_too_big": 5, "bad_utf8": 1, "protocol_error": 2});
    assert_eq!(stats["closed"], closed);
}

#[test]
fn only_a_pong_keeps_a_client() {
    let file = format!("{SEED}heartbeat_interval = '100ms'\nheartbeat_timeout = '500ms'\n");
    // The node's own heartbeat is not the stream's.
    let node =
        Node::start_with_file(&file, &["--heartbeat-interval", "100ms", "--heartbeat-timeout", "500ms"]);
    let open = || RawClient::open(node.http_addr(), &path_of(RUN));
    let (mut answers, mut unasked, mut talks, mut silent) = (open(), open(), open(), open());
    let began = Instant::now();
    for _ in 0..15 {
        let (opcode, payload) = answers.next_frame().expect("it is closed");
        assert_eq!((opcode, &*payload), (9, &b""[..]));
        answers.send(&masked(0x8A, &payload));
        // Never a word that answers anything, but pongs.
        unasked.send(&masked(0x8A, b"still here"));
        let _ = talks.stream.write_all(&[masked(0x81, b"hello"), masked(0x89, b"")].concat());
    }
    assert!(began.elapsed() > Duration::from_millis(1000), "15 pings in {:?}", began.elapsed());
    for client in [&mut talks, &mut silent] {
        let (code, reason) = client.wait_close().expect("a close frame");
        assert_eq!(code, 4000);
        assert!(reason.contains("retryAfterMs"), "{reason}");
    }
    let stats = node.wait_stats("two closed", |stats| stats["connections"] == 2);
    assert_eq!(stats["closed"], json!({"heartbeat_timeout": 2}));
    node.publish(&[&format!("run:{RUN}")], "e", &json!(1));
    for client in [&mut answers, &mut unasked] {
        let event = std::iter::from_fn(|| client.next_frame()).find(|(opcode, _)| *opcode != 9);
        assert_eq!(event, Some((1, message(RUN, "e", "1").into_bytes())));
    }
}

#[test]
fn foreign_clients_stay_through_heartbeats() {
    let file = format!("{SEED}heartbeat_interval = '100ms'\nheartbeat_timeout = '600ms'\n");
    let node = Node::start_with_file(&file, &[]);
    let url = format!("ws://{}{}", node.http_addr(), path_of(RUN));
    for script in FOREIGN {
        let mut client = Foreign::connect(script, &url);
        for _ in 0..10 {
            assert_eq!(client.next(), json!({"ping": ""}), "{script}");
        }
        client.tell(&json!({"close": 1000}));
    }
}

#[test]
fn the_defaults_are_the_write_ups() {
    let dir = TempDir::new();
    let file = dir.path().join("fanwire.toml");
    fs::write(&file, "[[stream]]\npath = '/s'\ntopic = 't'\nenvelope = '{data}'\n").unwrap();
    let shown = run(fanwire().args(["check", "--config"]).arg(&file), PATIENCE);
    for expected in
        ["heartbeat_interval = \"54s\"", "heartbeat_timeout = \"60s\"", "max_message_bytes = 512 "]
    {
        let tables = shown.split_once("[[stream]]").unwrap().1;
        assert!(tables.contains(expected), "{expected}: {tables}");
    }
}

#[test]
fn events_of_every_size_are_whole_in_every_way() {
    let node = Node::start_with_file(SEED, &["--send-buffer", "8KiB", "--shards", "2"]);
    let path = path_of(RUN);
    let mut message_client = WebSocket::connect_narrow(node.http_addr(), &path);
    let mut batched = WebSocket::connect_narrow(node.http_addr(), &format!("{path}?batch=ndjson"));
    let mut events = EventStream::open_narrow(node.http_addr(), &path);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    // Around the lengths where the header of a frame grows, and where a batch is full; then as much as an event may have.
    let around = |length: usize| length - 3..=length + 3;
    let empty = message(RUN, "e", "\"\"").len();
    let sizes = [0, 1].into_iter().chain(around(126 - empty)).chain(around(65_536 - empty));
    for size in sizes.chain([(1 << 20) - 2]) {
        let data = format!("\"{}\"", "x".repeat(size));
        publisher.publish(&Event::new(&[&format!("run:{RUN}")], "e", &data)).unwrap();
        publisher.settle().unwrap();
        let expected = message(RUN, "e", &data);
        assert!(message_client.next_text(PATIENCE) == expected, "{size}");
        assert!(batched.next_text(PATIENCE) == expected, "{size}");
        assert!(events.next() == Said::Event("e".to_owned(), expected), "{size}");
    }
    // A lone surrogate is JSON (RFC 8259 section 8.2), whatever a parser makes of it, and passes as it was published.
    let data = r#"{"\udead":"\uD800"}"#;
    publisher.publish(&Event::new(&[&format!("run:{RUN}")], "e", data)).unwrap();
    publisher.settle().unwrap();
    assert_eq!(message_client.next_text(PATIENCE), message(RUN, "e", data));
    assert_eq!(batched.next_text(PATIENCE), message(RUN, "e", data));
    assert_eq!(events.next(), Said::Event("e".to_owned(), message(RUN, "e", data)));
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["closed"], &stats["dropped"]), (&json!({}), &json!({})));
}

// Batches --------------------------------------------------------------------------------------------------------

/// Reads text messages until they hold so many lines.
fn read_lines(client: &mut WebSocket, count: usize) -> (Vec<Value>, usize) {
    let (mut lines, mut frames) = (Vec::new(), 0);
    while lines.len() < count {
        let text = client.next_text(PATIENCE);
        frames += 1;
        lines.extend(text.split('\n').map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
        }));
    }
    (lines, frames)
}

#[test]
fn events_of_one_moment_share_a_message_where_that_was_asked_for() {
    let node = Node::start_with_file(SEED, &["--shards", "2"]);
    let batched = |_| WebSocket::connect(node.http_addr(), &format!("{}?batch=ndjson", path_of(RUN)));
    let mut batched: Vec<WebSocket> = (0..4).map(batched).collect();
    let mut plain = WebSocket::connect(node.http_addr(), &path_of(RUN));
    let number = |n: u64| json!({"runId": RUN, "type": "step_log", "payload": {"n": n, "text": "a\nb"}});

    // One body of many events.
    let event =
        |n: u64| json!({"topic": format!("run:{RUN}"), "event": "step_log", "data": number(n)["payload"]});
    let body: String = (0..500).map(|n| format!("{}\n", event(n))).collect();
    let ndjson = [("Content-Type", "application/x-ndjson")];
    assert_eq!(http(node.http_addr(), "POST", "/api/publish", &ndjson, body.as_bytes()).0, 200);
    for client in &mut batched {
        let (lines, frames) = read_lines(client, 500);
        assert!(lines.into_iter().eq((0..500).map(number)), "every event once, in order");
        assert!(frames <= 50, "{frames} messages for 500 events at once");
    }
    for n in 0..500 {
        assert_eq!(plain.next_json(PATIENCE), number(n), "one message each");
    }

    // Line breaks between the tokens of an event are no ends of lines; without batches nothing is touched.
    let data = "{\n  \"n\": 1,\r\n  \"text\": \"a\\nb\"\r}";
    let entry = format!("{{\"topic\":\"run:{RUN}\",\"event\":\"step_log\",\"data\":{data}}}");
    let body = format!("[{}]", [entry.as_str(); 20].join(",\n"));
    assert_eq!(http(node.http_addr(), "POST", "/api/publish", &[], body.as_bytes()).0, 200);
    for client in &mut batched {
        assert!(read_lines(client, 20).0.into_iter().eq((0..20).map(|_| number(1))));
    }
    for _ in 0..20 {
        assert_eq!(plain.next_text(PATIENCE), message(RUN, "step_log", data));
    }

    // One event at a time: nothing waits for company.
    for n in 0..10 {
        node.publish(&[&format!("run:{RUN}")], "step_log", &number(n)["payload"]);
        for client in &mut batched {
            assert_eq!(client.next_json(PATIENCE), number(n));
        }
    }
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!(stats["deliveries"], 4 * 530 + 520 + 10);
}

#[test]
fn what_waited_for_a_slow_client_shares_messages() {
    let node = Node::start_with_file(SEED, &["--send-buffer", "8KiB", "--queue-events", "10"]);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), &format!("{}?batch=ndjson", path_of(RUN)));
    let topic = format!("run:{RUN}");
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut count = 0;
    let mut publish = || {
        let data = json!({"n": count, "padding": "x".repeat(1000)}).to_string();
        publisher.publish(&Event::new(&[&topic], "step_log", &data)).unwrap();
        publisher.settle().unwrap();
        count += 1;
        count
    };
    // Until it does not take any more, and then as many as its queue has room for.
    let blocked = wait_until(PATIENCE, || {
        publish();
        (node.stats()["outbox"]["blockedClients"] == 1).then_some(())
    });
    assert!(blocked.is_some(), "it takes everything");
    let before = node.stats()["pending"].as_u64().unwrap() as usize;
    let room = 256 - before - 20;
    let total = (0..room).map(|_| publish()).last().unwrap();
    node.wait_stats("all queued", |stats| stats["pending"].as_u64() >= Some(room as u64));
    let (lines, frames) = read_lines(&mut slow, total);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!((&line["payload"]["n"], &line["runId"]), (&json!(n), &json!(RUN)));
    }
    assert_eq!(lines.len(), total);
    assert!(frames + room / 2 < total, "{frames} messages for {total} events, of which {room} waited");
}

#[test]
fn what_a_batch_leaves_out_is_told_in_a_message_of_its_own() {
    let node = Node::start_with_file(SEED, &["--send-buffer", "8KiB"]);
    let path = format!("{}?batch=ndjson&policy=drop-oldest", path_of(RUN));
    let mut slow = WebSocket::connect_narrow(node.http_addr(), &path);
    let topic = format!("run:{RUN}");
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for n in 0..2000 {
        let data = json!({"n": n, "padding": "x".repeat(1000)}).to_string();
        publisher.publish(&Event::new(&[&topic], "step_log", &data)).unwrap();
        if n % 50 == 49 {
            publisher.settle().unwrap();
        }
    }
    let (mut next, mut gaps) = (0, 0);
    while next < 2000 {
        let text = slow.next_text(PATIENCE);
        for line in text.split('\n') {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["type"] == "gap" {
                assert_eq!(line["data"]["topic"], topic);
                assert!(!text.contains('\n'), "{text}");
                let dropped = line["data"]["dropped"].as_u64().unwrap();
                next += dropped;
                gaps += dropped;
            } else {
                assert_eq!(line["payload"]["n"], next);
                next += 1;
            }
        }
    }
    assert!(gaps > 100, "{gaps}");
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!(stats["dropped"], json!({"drop_oldest": gaps}));
}

// Slow clients ---------------------------------------------------------------------------------------------------

#[test]
fn each_stream_has_its_own_queue() {
    // More than the node's 50, fewer, and what the node has.
    let file: String = [("large", "queue_events = 256"), ("small", "queue_events = 10"), ("plain", "")]
        .map(|(name, line)| {
            format!("[[stream]]\npath = '/{name}/{{id}}'\ntopic = '{name}:{{id}}'\nenvelope = '{{data}}'\n{line}\n")
        })
        .concat();
    let node = Node::start_with_file(&file, &["--send-buffer", "8KiB", "--queue-events", "50"]);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let data = json!("x".repeat(1000)).to_string();
    let mut dropped = 0;
    for (closed, (name, events)) in [("large", 256), ("small", 10), ("plain", 50)].into_iter().enumerate() {
        let mut slow = RawClient::open_narrow(node.http_addr(), &format!("/{name}/1"));
        let mut fast = WebSocket::connect(node.http_addr(), &format!("/{name}/1"));
        let stats = wait_until(PATIENCE, || {
            publisher.publish(&Event::new(&[&format!("{name}:1")], "e", &data)).unwrap();
            publisher.settle().unwrap();
            assert_eq!(fast.next_text(PATIENCE), data);
            let stats = node.stats();
            (stats["closed"]["slow_consumer"] == closed + 1).then_some(stats)
        });
        let stats = stats.unwrap_or_else(|| panic!("{name}: nobody was closed"));
        // What was queued, and the event that found no room.
        let all = stats["dropped"]["slow_consumer"].as_u64().unwrap();
        assert_eq!(all - dropped, events + 1, "{name}");
        dropped = all;
        let (code, reason) = slow.wait_close().expect("a close frame");
        assert_eq!(code, 4008);
        assert!(reason.starts_with(r#"{"retryAfterMs":"#), "{reason}");
    }
    let (_, _, metrics) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("fanwire_closed_total{reason=\"slow_consumer\"} 3\n"), "{metrics}");
}

#[test]
fn who_takes_nothing_is_closed_and_who_reads_slowly_stays() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let file = SEED.replace("queue_events = 256", "queue_events = 100000").replace("10s", "500ms");
    let node = Node::start_with_file(&file, &["--send-buffer", "8KiB", "--shards", "1"]);
    let topic = format!("run:{RUN}");
    let mut stopped = RawClient::open_narrow(node.http_addr(), &path_of(RUN));
    let mut stopped_events = EventStream::open_narrow(node.http_addr(), &path_of(RUN));
    let mut steady = RawClient::open_narrow(node.http_addr(), &path_of(RUN));
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let began = Instant::now();
    let data = |n: usize| format!(r#"{{"n":{n},"padding":"{}"}}"#, "x".repeat(1000));
    for n in 0..400 {
        publisher.publish(&Event::new(&[&topic], "e", &data(n))).unwrap();
    }
    publisher.settle().unwrap();
    // One message every 10 ms: all of it takes 4 s, several times what a stopped one is given.
    let mut closed = None;
    for n in 0..400 {
        assert_eq!(steady.next_text(), message(RUN, "e", &data(n)));
        if closed.is_none() && node.stats()["closed"]["slow_consumer"] == 2 {
            closed = Some(began.elapsed());
        }
        thread::sleep(Duration::from_millis(10)); // Its pace.
    }
    let closed = closed.unwrap_or_else(|| panic!("nobody was closed: {:#}", node.stats()));
    assert!(closed >= TIMEOUT && closed < 6 * TIMEOUT, "closed after {closed:?}");
    assert_eq!(stopped.wait_close().unwrap().0, 4008);
    let rest = stopped_events.rest();
    let [.., Said::Comment(why), Said::Retry(_)] = &rest[..] else { panic!("{:?}", rest.last()) };
    assert_eq!(why, " closed: slow_consumer");
    let stats =
        node.wait_stats("the steady one alone", |stats| stats["connections"] == 1 && stats["pending"] == 0);
    assert_eq!(stats["closed"], json!({"slow_consumer": 2}));
    let dropped = stats["dropped"]["slow_consumer"].as_u64().unwrap();
    assert!(dropped > 0 && dropped < 800, "their queues had room: {dropped}");
    assert_eq!(node.stderr().matches("client closed as slow").count(), 2);
}

#[test]
fn a_reload_is_for_those_who_are_there_already() {
    let text = |heartbeat: &str, rest: &str| {
        format!(
            "event_stream_keep_alive = '{heartbeat}'\nheartbeat_interval = '{heartbeat}'\n\
                 heartbeat_timeout = '2h'\nsend_buffer = '8KiB'\nqueue_events = 100000\n\
                 {}heartbeat_interval = '{heartbeat}'\nheartbeat_timeout = '2h'\n{rest}",
            SEED.replace("256", "100000").replace("write_timeout = \"10s\"\n", "")
        )
    };
    let dir = TempDir::new();
    fs::write(dir.path().join("fanwire.toml"), text("1h", "")).unwrap();
    let node = Node::start_in(dir, &["--config", "fanwire.toml", "--shards", "2"]);
    let mut path = RawClient::open(node.http_addr(), &path_of(RUN));
    let mut json = RawClient::open(node.http_addr(), "/ws");
    let mut events = EventStream::open(node.http_addr(), "/sse?topics=t");
    let mut stopped = RawClient::open_narrow(node.http_addr(), &path_of("stopped"));
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let data = json!("x".repeat(1000)).to_string();
    let blocked = wait_until(PATIENCE, || {
        publisher.publish(&Event::new(&["run:stopped"], "e", &data)).unwrap();
        publisher.settle().unwrap();
        (node.stats()["outbox"]["blockedClients"] == 1).then_some(())
    });
    assert!(blocked.is_some(), "it takes everything");
    fs::write(node.dir().join("fanwire.toml"), text("100ms", "write_timeout = '200ms'\n")).unwrap();
    node.signal(common::Signal::HUP);
    assert_eq!(path.next_frame(), Some((9, vec![])), "a ping");
    assert!(json.next_text().contains(r#""type":"ping""#));
    assert_eq!(events.next(), Said::Comment(" keep-alive".to_owned()));
    node.wait_log("the slow client", |line| line.contains("client closed as slow"));
    assert_eq!(stopped.wait_close().unwrap().0, 4008);
}

// Paths ----------------------------------------------------------------------------------------------------------

/// Sends the head of a request and reads the first line of the answer; the connection stays.
fn ask(addr: SocketAddr, head: &[u8]) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The node may close before it has read all of it.
    let _ = stream.write_all(head);
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(head));
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    (line.split(' ').nth(1).unwrap().parse().unwrap(), stream)
}

fn event_stream_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
}

#[test]
fn a_variable_is_decoded_once_and_must_make_a_topic() {
    let node = Node::start_with_file(SEED, &[]);
    let mut bystander = RawClient::open(node.http_addr(), &path_of(RUN));
    let (longest, too_long) = ("x".repeat(251), "x".repeat(252));
    let wide = "%C3%A9".repeat(125); // 250 bytes
    let cases: Vec<(&str, Option<String>)> = [
        ("a", Some("a")),
        ("a%20b", Some("a b")),
        ("a+b", Some("a+b")),
        ("%25", Some("%")),
        ("%2525", Some("%25")),
        ("%252A", Some("%2A")),
        ("%C3%A9", Some("é")),
        ("%c3%a9", Some("é")),
        ("%F0%9F%98%80", Some("😀")),
        ("%E2%80%A8", Some("\u{2028}")),
        ("a%2Fb", Some("a/b")),
        ("%2F", Some("/")),
        ("%2e%2E", Some("..")),
        ("..", Some("..")),
        (".", Some(".")),
        ("a*b", Some("a*b")),
        ("%2A%20", Some("* ")),
        ("a;b=c,d@e:f!$&'()~", Some("a;b=c,d@e:f!$&'()~")),
        ("%22%5C%7B%7D", Some("\"\\{}")),
        ("%7BrunId%7D", Some("{runId}")),
        ("%3Fa=b%23c", Some("?a=b#c")),
        (longest.as_str(), Some(longest.as_str())),
        ("", None),
        ("*", None),
        ("a*", None),
        ("%2A", None),
        ("run%3A*", None),
        (too_long.as_str(), None),
        ("%00", None),
        ("a%00b", None),
        ("%0A", None),
        ("a%0D%0ASet-Cookie:x", None),
        ("%7F", None),
        ("%C2%85", None),
        ("%", None),
        ("%2", None),
        ("%zz", None),
        ("%ff", None),
        ("%C3", None),
        ("%C0%AF", None),
        ("%ED%A0%80", None),
        ("\u{e9}", None),
    ]
    .into_iter()
    .map(|(segment, run)| (segment, run.map(str::to_owned)))
    .chain([(wide.as_str(), Some("é".repeat(125)))])
    .collect();
    for (number, (segment, run)) in cases.iter().enumerate() {
        let heads = [upgrade(&path_of(segment)), event_stream_request(&path_of(segment))];
        let [(web_socket, socket), (events, stream)] =
            heads.map(|head| ask(node.http_addr(), head.as_bytes()));
        let expected = if run.is_some() { (101, 200) } else { (400, 400) };
        assert_eq!((web_socket, events), expected, "{segment:?}");
        if let Some(run) = run {
            node.publish(&[&format!("run:{run}")], "e", &json!(number));
            for mut stream in [socket, stream] {
                let expected = message(run, "e", &number.to_string());
                let mut read = Vec::new();
                while !read.windows(expected.len()).any(|window| window == expected.as_bytes()) {
                    let mut buffer = [0; 4096];
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0, "{expected} is not in {:?}", String::from_utf8_lossy(&read));
                    read.extend_from_slice(&buffer[..count]);
                }
            }
        }
        node.publish(&[&format!("run:{RUN}")], "e", &json!(number));
        assert_eq!(bystander.next_text(), message(RUN, "e", &number.to_string()), "{segment:?}");
    }
    node.wait_stats("the bystander alone", |stats| stats["connections"] == 1 && stats["rooms"] == 1);
}

#[test]
fn other_paths_and_other_requests_have_their_statuses() {
    let node = Node::start_with_file(SEED, &[]);
    let mut bystander = RawClient::open(node.http_addr(), &path_of(RUN));
    let long = format!("/{}", "a/".repeat(5000));
    for (path, web_socket, events) in [
        ("/api/v2/workflows/runs/a/str%65am", 101, 200),
        ("/api/v2/workflows/runs/a/stream?", 101, 200),
        ("/api/v2/workflows/runs/a/stream?runId=b&topics=*", 101, 200),
        ("/api/v2/workflows/runs/a/stream?batch=ndjson", 101, 400),
        ("/api/v2/workflows/runs/a/stream?transport=sse", 400, 200),
        ("/api/v2/workflows/runs/a/stream?transport=polling", 400, 400),
        ("/api/v2/workflows/runs/a/stream?batch=json", 400, 400),
        ("/api/v2/workflows/runs/a/stream?events=", 400, 400),
        ("/api/v2/workflows/runs/a/stream?policy=x", 400, 400),
        ("/api/v2/workflows/runs/a/stream?a=%zz", 400, 400),
        ("/api/v2/workflows/runs/a/stream/", 404, 404),
        ("/api/v2/workflows/runs/a/STREAM", 404, 404),
        ("/api/v2/workflows/runs/a/b/stream", 404, 404),
        ("/api/v2/workflows/runs/stream", 404, 404),
        ("/api/v2//workflows/runs/a/stream", 404, 404),
        ("//api/v2/workflows/runs/a/stream", 404, 404),
        ("/api/v2/../v2/workflows/runs/a/stream", 404, 404),
        ("/api/v2/workflows%2Fruns/a/stream", 404, 404),
        ("/api/v2/workflows/runs/%2E%2E/../stream", 404, 404),
        ("/API/v2/workflows/runs/a/stream", 404, 404),
        ("/", 404, 200),
        (long.as_str(), 414, 414),
    ] {
        assert_eq!(ask(node.http_addr(), upgrade(path).as_bytes()).0, web_socket, "{path}");
        assert_eq!(ask(node.http_addr(), event_stream_request(path).as_bytes()).0, events, "{path}");
    }
    let path = path_of(RUN);
    for (method, headers, status) in [
        ("GET", "", 426),
        ("GET", "Accept: */*\r\n", 426),
        ("GET", "Accept: text/html, TEXT/Event-Stream;q=0.1\r\n", 200),
        ("HEAD", "", 426),
        ("HEAD", "Accept: text/event-stream\r\n", 200),
        ("POST", "Accept: text/event-stream\r\nContent-Length: 0\r\n", 405),
        ("DELETE", "Accept: text/event-stream\r\n", 405),
        ("OPTIONS", "", 204),
        ("GET", "Upgrade: websocket\r\nConnection: Upgrade\r\n", 426),
        ("GET", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 400),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        assert_eq!(ask(node.http_addr(), request.as_bytes()).0, status, "{request}");
    }
    node.publish(&[&format!("run:{RUN}")], "e", &json!(1));
    assert_eq!(bystander.next_text(), message(RUN, "e", "1"));
    node.wait_stats("the bystander alone", |stats| stats["connections"] == 1 && stats["rooms"] == 1);
}

#[test]
fn every_slot_of_an_envelope_is_written_in_every_way() {
    let file = r#"
[[stream]]
path = "/all/{a}/{b}"
topic = "{a}|{b}"
envelope = """{"event": {event}, "category": {category}, "topic": {topic},\r
  "data": {data}, "timestamp": {timestamp}, "offset": {offset}, "key": {key},
  "{a}": "a {b} {a}", "braces": "{ } {1} \\\\ \\" {{}}", "b": ["{b}", {event}, {data}]}"""

# The first that fits serves a request.
[[stream]]
path = "/all/{x}/latest"
topic = "latest:{x}"
envelope = '"never"'

[[stream]]
path = "/feed"
topic = "news"
envelope = '{data}'
"#;
    let node = Node::start_with_file(file, &["--shards", "2"]);
    // A quote, a backslash, braces that look like a slot; and a path that another stream's would fit, too.
    let path = "/all/%22%5C%7Bevent%7D/latest";
    let (a, b) = ("\"\\{event}", "latest");
    let mut message = WebSocket::connect(node.http_addr(), path);
    let mut batched = WebSocket::connect(node.http_addr(), &format!("{path}?batch=ndjson"));
    let mut events = EventStream::open(node.http_addr(), path);
    let mut feed = WebSocket::connect(node.http_addr(), "/f%65ed");
    let topic = format!("{a}|{b}");
    let topics = ["first", &topic, "news"];
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for (name, key, data, timestamp) in [
        ("plain", "", "[null]", "2024-01-15T10:15:00.000Z"),
        ("\"\\{data}", "k\"\\{key}", "{\"{event}\":\"{topic}\"}", "2024-01-15T10:15:00.001Z"),
        ("é 😀 \u{2028}", "\u{2028}", "[1.50, 1e400, 12345678901234567890123]", "1970-01-01T00:00:00.001Z"),
    ] {
        let at: jiff::Timestamp = timestamp.parse().unwrap();
        let event =
            Event { key, timestamp_ms: at.as_millisecond() as u64, ..Event::new(&topics, name, data) };
        publisher.publish(&event).unwrap();
        publisher.settle().unwrap();
        assert_eq!(feed.next_text(PATIENCE), data, "byte for byte");
        let Said::Event(event_type, data_of_event) = events.next() else { panic!("no event") };
        assert_eq!(event_type, name);
        let key = if key.is_empty() { Value::Null } else { json!(key) };
        for text in [message.next_text(PATIENCE), batched.next_text(PATIENCE), data_of_event] {
            assert_eq!(text.matches(data).count(), 2, "{text}");
            // What a parser makes of numbers is not what this is about.
            let got: Value = serde_json::from_str(&text.replace(data, "\"data\"")).unwrap();
            let expected = json!({
                "event": name, "category": "first", "topic": topic, "data": "data", "timestamp": timestamp,
                "offset": null, "key": key, (a): format!("a {b} {a}"), "braces": "{ } {1} \\ \" {{}}",
                "b": [b, name, "data"],
            });
            assert_eq!(got, expected);
        }
    }
}

#[test]
fn the_subscription_has_taken_effect_before_the_first_byte() {
    let node = Node::start_with_file(SEED, &["--shards", "2"]);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for round in 0..300 {
        let run = format!("r{round}");
        let path = path_of(&run);
        for (what, head) in [("WebSocket", upgrade(&path)), ("events", event_stream_request(&path))] {
            let mut stream = TcpStream::connect(node.http_addr()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let mut read = vec![0];
            stream.read_exact(&mut read).unwrap();
            publisher.publish(&Event::new(&[&format!("run:{run}")], "e", "1")).unwrap();
            publisher.flush().unwrap();
            let expected = message(&run, "e", "1");
            while !String::from_utf8_lossy(&read).contains(&expected) {
                let mut buffer = [0; 1024];
                let count = stream.read(&mut buffer).unwrap_or_else(|error| {
                    panic!("{what}, round {round}: {error} after {:?}", String::from_utf8_lossy(&read))
                });
                assert!(count > 0);
                read.extend_from_slice(&buffer[..count]);
            }
        }
    }
}

#[test]
fn clients_of_streams_are_counted_and_end_like_others() {
    let node = Node::start_with_file(SEED, &["--max-clients", "2"]);
    let path = format!("{}?clientId=mine", path_of(RUN));
    let mut named = WebSocket::connect(node.http_addr(), &path);
    let events = EventStream::open(node.http_addr(), &path_of("b"));
    let (_, _, status) = http(node.http_addr(), "GET", "/api/websocket/status", &[], b"");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["connectedClients"], 2);
    assert_eq!(status["subscriptions"], json!({format!("run:{RUN}"): 1, "run:b": 1}));
    assert_eq!(status["clientDetails"]["mine"], json!([format!("run:{RUN}")]));
    node.wait_stats("one of each", |stats| stats["dialects"] == json!({"path": 1, "sse": 1}));
    // Its own name is nothing that this message has a place for.
    node.publish(&[&format!("run:{RUN}")], "e", &json!(1));
    assert_eq!(named.next_text(PATIENCE), message(RUN, "e", "1"));
    // A third is told, and told when to come back.
    let mut third = WebSocket::connect(node.http_addr(), &path_of(RUN));
    let error = third.next_json(PATIENCE);
    assert_eq!(error["data"], json!({"error": "Server capacity exceeded"}));
    let (code, reason) = third.wait_closed(PATIENCE).unwrap();
    assert_eq!(code, 1013);
    assert!(reason.contains("retryAfterMs"), "{reason}");
    drop(events);
    node.signal(common::Signal::TERM);
    let Incoming::Closed(Some((code, _))) = named.next(PATIENCE) else { panic!("no close") };
    assert_eq!(code, 1001);
    drop((named, third));
    assert!(node.wait_exit(PATIENCE).success());
}

// The file -------------------------------------------------------------------------------------------------------

#[test]
fn a_node_does_not_start_with_a_stream_that_is_wrong() {
    let dir = TempDir::new();
    let file = dir.path().join("fanwire.toml");
    let place = file.display();
    // Path, topic and envelope on lines 3, 4 and 5.
    let stream = |path: &str, topic: &str, envelope: &str| {
        format!("# streams\n[[stream]]\npath = '{path}'\ntopic = '{topic}'\nenvelope = '''{envelope}'''\n")
    };
    let path = |path: &str| stream(path, "t", "{data}");
    let topic = |topic: &str| stream("/runs/{runId}/stream", topic, "{data}");
    let envelope = |envelope: &str| stream("/runs/{runId}/stream", "run:{runId}", envelope);
    for (text, line, expected) in [
        (path("runs"), 3, "path: `runs` must begin with /"),
        (path("/a b"), 3, "must not have ` `"),
        (path("/a?b"), 3, "must not have `?`"),
        (path("/a#b"), 3, "must not have `#`"),
        (path("/runs/{runId"), 3, "a variable is a whole segment"),
        (path("/runs/x{runId}"), 3, "a variable is a whole segment"),
        (path("/runs/{}"), 3, "a variable is a whole segment"),
        (path("/runs//x"), 3, "a segment is empty"),
        (path("/runs/"), 3, "a segment is empty"),
        (path("/{a}/{a}"), 3, "{a} is there twice"),
        (path("/{data}"), 3, "{data} is a slot of envelopes"),
        (path("/%zz"), 3, "without two hexadecimal digits"),
        (path("/%ff"), 3, "not UTF-8"),
        (path("/ws"), 3, "it would take /ws, which the node serves itself"),
        (path("/sse"), 3, "it would take /sse, which the node serves itself"),
        (path("/{any}"), 3, "which the node serves itself"),
        (path("/api/{any}"), 3, "which the node serves itself"),
        (path("/%77s"), 3, "it would take /ws, which the node serves itself"),
        (path("/metrics"), 3, "it would take /metrics, which the node serves itself"),
        (path("/"), 3, "path: "),
        (topic("run:{id}"), 4, "there is no {id}; the path has {runId}"),
        (topic("run:{runId}*"), 4, "pattern"),
        (topic("run:{runId"), 4, "`{` stands alone"),
        (topic(""), 4, "topic: "),
        (topic(&"x".repeat(256)), 4, "255"),
        (envelope("{runId}"), 5, "write \"{runId}\""),
        (envelope(r#"{"a":"{data}"}"#), 5, "take the quotes around it away"),
        (envelope("{x}"), 5, "there is no {x}; there are {event},"),
        (envelope(r#"{"a":{data}"#), 5, "not one JSON text"),
        (envelope("{data}{data}"), 5, "not one JSON text"),
        (envelope(""), 5, "envelope: "),
        (stream("/runs/{runId}", "all", r#"["{runId}",{data}]"#), 5, "put it into the topic too"),
        (format!("{}queue_events = 0\n", path("/a")), 6, "queue_events: must be at least 1, not 0"),
        (format!("{}write_timeout = '0s'\n", path("/a")), 6, "write_timeout: must be at least"),
        (format!("{}max_message_bytes = '1B'\n", path("/a")), 6, "max_message_bytes: must be at least"),
        (format!("{}heartbeat_timeout = '54s'\n", path("/a")), 6, "must be longer than heartbeat_interval"),
        (format!("{}keep = 1\n", path("/a")), 6, "unknown key `keep` in [[stream]]"),
        (format!("{0}{0}", path("/a")), 8, "is the path at"),
        (format!("{}{}", path("/a/{x}"), path("/a/{y}")), 8, "stream 1 has this path already"),
    ] {
        fs::write(&file, &text).unwrap();
        let said = ["serve", "check"].map(|command| {
            let mut command_line = fanwire();
            command_line.args([command, "--config"]).arg(&file);
            let (status, stdout, stderr) = run_any(&mut command_line, PATIENCE);
            assert_eq!((status.code(), &*stdout), (Some(1), ""), "{command}: {text}\n{stderr}");
            stderr
        });
        assert_eq!(said[0], said[1], "both say the same");
        let first = said[0].lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("{place}:{line}: ")), "{text}\n{first}");
        assert!(first.contains(expected), "{expected}\n{first}");
        assert_eq!(said[0].lines().count(), 1, "{text}\n{}", said[0]);
    }
}
