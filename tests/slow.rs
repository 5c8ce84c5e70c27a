//! Who is slow, and why: `GET /api/slow`, and what `fanwire top` makes of it.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Incoming, Node, PATIENCE, Signal, WebSocket, fanwire, http, run, run_any, wait_until};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

/// A process that ends with the test, whatever becomes of it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn slow(node: &Node, query: &str) -> Value {
    let (status, _, body) = http(node.http_addr(), "GET", &format!("/api/slow{query}"), &[], b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

fn listed(answer: &Value) -> Vec<&str> {
    answer["clients"].as_array().unwrap().iter().map(|client| client["clientId"].as_str().unwrap()).collect()
}

/// A client that reads nothing from now on.
fn reads_nothing(node: &Node, name: &str, topics: &[&str], policy: &str) -> WebSocket {
    let mut client = WebSocket::connect_narrow(node.http_addr(), "/ws");
    client.send_json(&json!({"type":"subscribe","topics":topics,"policy":policy,"clientId":name}));
    client.next_json(PATIENCE);
    client
}

/// An event stream of which only the head is read.
fn event_stream(node: &Node, topic: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&node.http_addr().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /sse?topics={topic} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    let mut byte = [0; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

/// Publishes until `is_so` holds of the list.
fn publish_until(
    node: &Node,
    topic: &str,
    bytes: usize,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let data = json!("x".repeat(bytes));
    let mut last = Value::Null;
    wait_until(PATIENCE, || {
        node.publish(&[topic], "e", &data);
        last = slow(node, "");
        is_so(&last).then(|| last.clone())
    })
    .unwrap_or_else(|| panic!("it did not come to {what}: {last:#}"))
}

#[test]
fn who_is_behind_is_listed_with_the_reasons_furthest_first() {
    let node = Node::start(&["--shards", "2", "--send-buffer", "16384", "--queue-events", "50"]);
    assert_eq!(listed(&slow(&node, "")), [""; 0]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["large", "small", "sse"]);
    let many: Vec<String> = (0..25).map(|n| format!("topic-{n:02}")).collect();
    let topics: Vec<&str> = ["large"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let _stuck = reads_nothing(&node, "stuck", &topics, "disconnect");
    let mut dropper = reads_nothing(&node, "dropper", &["small"], "drop-oldest");
    let stream = event_stream(&node, "sse");

    // Each on a topic of its own, so that each is as far behind as it is meant to be.
    publish_until(&node, "large", 20_000, "a stuck client", |answer| {
        answer["clients"][0]["queuedBytes"].as_u64() > Some(200_000)
    });
    publish_until(&node, "small", 1000, "dropped events", |answer| {
        let clients = answer["clients"].as_array().unwrap();
        clients.iter().any(|c| c["clientId"] == "dropper" && c["dropped"]["drop_oldest"].as_u64() > Some(9))
    });
    publish_until(&node, "sse", 1000, "a stuck stream", |answer| {
        let clients = answer["clients"].as_array().unwrap();
        clients.iter().any(|c| c["dialect"] == "sse" && c["queuedEvents"].as_u64() > Some(3))
    });
    let answer = slow(&node, "");
    let clients = answer["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 3, "{answer:#}");
    assert_eq!(listed(&answer)[..2], ["stuck", "dropper"], "{answer:#}");
    let [stuck, behind, sse] = [0, 1, 2].map(|place| &clients[place]);
    assert_eq!(
        (&stuck["dialect"], &behind["dialect"], &sse["dialect"]),
        (&json!("json"), &json!("json"), &json!("sse"))
    );
    assert_eq!(stuck["topics"].as_array().unwrap().len(), 20);
    assert_eq!((&stuck["topics"][0], &stuck["topicsTruncated"]), (&json!("large"), &json!(true)));
    assert_eq!((&behind["topics"], behind.get("topicsTruncated")), (&json!(["small"]), None));
    assert_eq!((&stuck["dropped"], &sse["dropped"]), (&json!({}), &json!({})));
    let mut fields: Vec<_> = behind.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "address",
            "clientId",
            "dialect",
            "dropped",
            "kernelUnsentBytes",
            "oldestMs",
            "queuedBytes",
            "queuedEvents",
            "retransmits",
            "rttMs",
            "topics"
        ]
    );
    for client in clients {
        assert!((1..=50).contains(&client["queuedEvents"].as_u64().unwrap()), "{client:#}");
        assert!(client["oldestMs"].as_u64().unwrap() <= 2 * PATIENCE.as_millis() as u64, "{client:#}");
        // The node is on a Linux with netlink wherever these tests run.
        assert!(client["kernelUnsentBytes"].as_u64().unwrap() > 0, "{client:#}");
        assert!((0.0..1000.0).contains(&client["rttMs"].as_f64().unwrap()), "{client:#}");
        assert!(client["retransmits"].is_u64(), "{client:#}");
        assert!(client["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{client:#}");
    }
    assert!(stuck["oldestMs"].as_u64() >= behind["oldestMs"].as_u64(), "it was the first to be stuck");
    assert_eq!(answer.get("clientsTruncated"), None);
    assert_eq!(answer["timestamp"].as_str().unwrap().len(), 24);

    // Cut across shards: the same order, and it says that there are more.
    for limit in [0, 1, 2] {
        let cut = slow(&node, &format!("?limit={limit}"));
        assert_eq!(listed(&cut), listed(&answer)[..limit]);
        assert_eq!(cut["clientsTruncated"], true);
    }

    // To the event: what the list says was left out, the client is told.
    let left_out = behind["dropped"]["drop_oldest"].as_u64().unwrap();
    assert_eq!(node.stats()["dropped"]["drop_oldest"], left_out, "nobody else lost anything");
    let mut told = 0;
    while told < left_out {
        match dropper.next(PATIENCE) {
            Incoming::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "gap" {
                    told += message["data"]["dropped"].as_u64().unwrap();
                }
            }
            other => panic!("told of {told} of {left_out}, then {other:?}"),
        }
    }
    assert_eq!(told, left_out);
    // With nothing queued it stays on the list for what it lost; who is gone leaves it.
    let found = wait_until(PATIENCE, || {
        while !matches!(dropper.next(Duration::from_millis(1)), Incoming::Nothing) {}
        let answer = slow(&node, "");
        let dropper = answer["clients"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["clientId"] == "dropper")
            .cloned()
            .unwrap();
        (dropper["queuedEvents"] == 0).then_some((answer, dropper))
    });
    let (answer, dropper) = found.expect("it has not caught up");
    assert_eq!((&dropper["queuedBytes"], &dropper["oldestMs"]), (&json!(0), &json!(0)));
    assert_eq!(dropper["dropped"]["drop_oldest"], left_out);
    assert_eq!(listed(&answer).last(), Some(&"dropper"));
    drop(stream);
    wait_until(PATIENCE, || (listed(&slow(&node, "")) == ["stuck", "dropper"]).then_some(()))
        .expect("the stream stays");
}

#[test]
fn a_queue_in_the_kernel_alone_counts_too() {
    let node = Node::start(&["--queue-events", "100000"]);
    let mut client = reads_nothing(&node, "me", &["t"], "disconnect");
    publish_until(&node, "t", 100_000, "a stuck client", |answer| {
        answer["clients"][0]["queuedBytes"].as_u64() > Some(0)
    });
    // Read until the node has nothing left for it: what the kernel holds is then all there is.
    wait_until(PATIENCE, || {
        let _ = client.next(PATIENCE);
        (node.stats()["pending"] == 0).then_some(())
    })
    .expect("the queue does not empty");
    let answer = slow(&node, "");
    assert_eq!(listed(&answer), ["me"]);
    let me = &answer["clients"][0];
    assert_eq!((&me["queuedEvents"], &me["dropped"]), (&json!(0), &json!({})));
    assert!(me["kernelUnsentBytes"].as_u64() > Some(65536), "{me:#}");
    wait_until(PATIENCE, || {
        let _ = client.next(Duration::from_millis(1));
        listed(&slow(&node, "")).is_empty().then_some(())
    })
    .expect("who has read everything is on no list");
}

#[test]
fn only_operators_are_told_and_limits_are_numbers() {
    let node = Node::start(&["--operator-token", "open-sesame"]);
    let bearer = |token: &str| format!("Bearer {token}");
    let status = |path: &str, token: &str| {
        let value = bearer(token);
        let headers = [("Authorization", value.as_str())];
        http(node.http_addr(), "GET", path, if token.is_empty() { &[] } else { &headers }, b"").0
    };
    for (path, token, expected) in [
        ("/api/slow", "", 401),
        ("/api/slow", "wrong", 401),
        ("/api/slow", "open-sesame", 200),
        ("/api/slow?limit=1000", "open-sesame", 200),
        ("/api/slow?limit=1000000", "open-sesame", 200),
        ("/api/slow?limit=many", "open-sesame", 400),
        ("/api/slow?limit=-1", "open-sesame", 400),
        ("/api/slow?limit=1.5", "open-sesame", 400),
        ("/api/slow?limit=", "open-sesame", 400),
    ] {
        assert_eq!(status(path, token), expected, "{path} {token}");
    }
    let to = format!("http://{}", node.http_addr());
    let top = |more: &[&str]| {
        run_any(
            fanwire().args(["top", "--count", "1", "--interval", "100ms", "--to", &to]).args(more),
            PATIENCE,
        )
    };
    for (more, expected) in [
        (&[][..], "asks for a token: --token, or FANWIRE_OPERATOR_TOKEN"),
        (&["--token", "wrong"], "does not take this token"),
    ] {
        let (status, stdout, stderr) = top(more);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
        assert!(stderr.contains(expected), "{stderr}");
    }
    let (status, stdout, _) = top(&["--token", "open-sesame"]);
    assert!(status.success() && stdout.contains("nobody is behind"), "{stdout}");
}

#[test]
fn top_prints_tables_without_escape_codes() {
    let node = Node::start(&["--send-buffer", "16384"]);
    let hostile = "\u{1b}[2J\u{202e}me\u{9b}";
    let _slow = reads_nothing(&node, hostile, &["t"], "drop-oldest");
    publish_until(&node, "t", 10_000, "dropped events", |answer| {
        answer["clients"][0]["dropped"]["drop_oldest"].as_u64() > Some(0)
    });
    let text = run(
        fanwire().env("FANWIRE_HTTP", node.http_addr().to_string()).args([
            "top",
            "--count",
            "2",
            "--interval",
            "100ms",
        ]),
        PATIENCE,
    );
    assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains('\u{202e}'), "{text:?}");
    let tables: Vec<&str> = text.split("\n\n127.").collect();
    assert_eq!(tables.len(), 2, "{text}");
    for part in [
        "fanwire 0.",
        "  ready  up ",
        "clients 1 of 1000 (json 1)  blocked 1  outboxes ",
        "events 0.0/s  deliveries 0.0/s  p50 ",
        "CLIENT",
        "UNSENT",
        "\\u001b[2J\\u202eme\\u009b",
        " drop_oldest  t",
    ] {
        assert!(tables[0].contains(part), "{part}: {text}");
    }
}

#[test]
fn top_says_that_a_node_is_away_and_goes_on() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (status, stdout, stderr) =
        run_any(fanwire().args(["top", "--count", "3", "--interval", "100ms", "--to", &gone]), PATIENCE);
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with(&format!("fanwire: {gone} cannot be asked: ")), "{stderr}");
    assert!(stderr.ends_with("; trying again\n") && stderr.lines().count() == 1, "said once: {stderr}");
    for (flag, value) in
        [("--interval", "1ms"), ("--interval", "5"), ("--limit", "0"), ("--count", "0"), ("--token", "a b")]
    {
        let (status, _, stderr) = run_any(fanwire().args(["top", flag, value]), PATIENCE);
        assert_eq!(status.code(), Some(2), "{flag} {value}");
        assert!(stderr.contains(flag), "{stderr}");
    }
}

#[test]
fn on_a_terminal_top_draws_over_itself_and_leaves_no_trace() {
    let node = Node::start(&[]);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let sized =
        |columns| tcsetwinsize(&master, Winsize { ws_row: 10, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
    sized(120).unwrap();
    let child = fanwire()
        .args(["top", "--interval", "1h", "--to", &node.http_addr().to_string()])
        .stdin(Stdio::null())
        .stdout(terminal.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    // Read by a thread of its own: a master has no timeouts.
    let (sender, pieces) = std::sync::mpsc::channel();
    let mut reading = std::fs::File::from(master.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reading.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut seen = String::new();
    let mut wait_for = |part: &str| {
        while !seen.contains(part) {
            let piece = pieces
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("{part:?}: {error} after {seen:?}"));
            seen += &String::from_utf8_lossy(&piece);
        }
        let end = seen.find(part).unwrap() + part.len();
        seen.drain(..end).collect::<String>()
    };
    wait_for("\x1b[?1049h\x1b[?25l");
    let first = wait_for("nobody is behind");
    assert!(first.contains("\x1b[H127.0.0.1:") && first.contains("clients 0 of 1000"), "{first:?}");
    // The second answer, of a second later; then nothing for an hour, but a narrower window is drawn at once.
    wait_for("deliveries 0.0/s");
    wait_for("nobody is behind");
    sized(21).unwrap();
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, Signal::WINCH).unwrap();
    wait_for("clients 0 of 1000  …");
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    wait_for("\x1b[?25h\x1b[?1049l");
    assert!(child.0.wait().unwrap().success());
}
