//! A node whose process, clock or kernel misbehaves: kills, signals, clocks that jump, system calls that fail; and what
//! it shows to whom while strangers ask.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::proc::open_files;
use common::sse::{EventStream, Said};
use common::{
    Incoming, Node, PATIENCE, Signal, TempDir, WebSocket, header, http, read_response, run, seed, tool,
    wait_until,
};
use fanwire::client::{Answer, Event, Publisher};
use fanwire::publish::wire::{HEADER_LEN, Header, Kind, encode_hello, encode_ping};
use serde_json::{Value, json};

const TOPICS: &str = r#"
[[topic]]
prefix = "run:"
history = { events = 100000, bytes = "64MiB", age = "1h" }

[[topic]]
prefix = "young:"
history = { age = "2s" }
"#;

/// A node with topics that have history, in a directory that outlives it.
fn start(dir: &Path, flags: &[&str]) -> Node {
    let file = dir.join("fanwire.toml");
    fs::write(&file, TOPICS).unwrap();
    let unix = format!("unix:{}", dir.join("publish.sock").display());
    Node::start(&[&["--config", file.to_str().unwrap(), "--publish", &unix, "--shards", "2"], flags].concat())
}

fn get(addr: SocketAddr, path: &str) -> (u16, Value) {
    let (status, _, body) = http(addr, "GET", path, &[], b"");
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

// Ends -----------------------------------------------------------------------------------------------------------

/// What a life of the node, or who publishes in it, calls an event.
fn event_of(life: u64, n: u64) -> String {
    format!(r#"{{"life":{life},"n":{n}}}"#)
}

#[test]
fn after_a_kill_at_any_moment_nobody_goes_on_in_the_wrong_life() {
    let mut random = fastrand::Rng::with_seed(seed());
    let dir = TempDir::new();
    // What the clients bring from the life before: the position in the ack's form, and the event stream's last id.
    let (mut since, mut id, mut epochs) = (Value::Null, String::new(), BTreeSet::new());
    for life in 0..20 {
        let node = start(dir.path(), &[]);
        let unix = format!("unix:{}", node.unix_path().display());
        // The new life may be further than the old one was, or not as far.
        let ahead = random.u64(..300);
        let mut publisher = Publisher::open(&unix).unwrap();
        for n in 1..=ahead {
            publisher.publish(&Event::new(&["run:1"], "e", &event_of(life, n))).unwrap();
        }
        publisher.settle().unwrap();
        let mut client = node.websocket();
        client.send_json(&json!({"type":"subscribe","topics":["run:1"],"since":{"run:1": since}}));
        let ack = client.next_json(PATIENCE)["data"].clone();
        assert_eq!((&ack["recovered"], &ack["missing"]), (&json!(false), &json!({"run:1": null})), "{ack}");
        let mut position = ack["positions"]["run:1"].clone();
        assert_eq!(position["offset"], 0, "all that this life has, from its beginning");
        assert!(epochs.insert(position["epoch"].as_str().unwrap().to_owned()), "an epoch came again");
        let header = if id.is_empty() { String::new() } else { format!("Last-Event-ID: {id}\r\n") };
        let mut stream = EventStream::open_with(node.http_addr(), "/sse?topics=run:1", &header);
        let mut stream_next = ahead + 1;
        if !id.is_empty() {
            let (name, gap) = stream.next_event();
            assert_eq!((name.as_str(), &gap["data"]), ("gap", &json!({"topic": "run:1", "dropped": null})));
            stream_next = 1;
        }

        // Killed somewhere in a burst.
        let (enough, sent) = (random.u64(1..400), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in ahead + 1.. {
                    let data = event_of(life, n);
                    let event = Event::new(&["run:1"], "e", &data);
                    let published = publisher.publish(&event).map(drop);
                    if published.and_then(|()| publisher.flush()).is_err() {
                        return;
                    }
                    sent.store(n - ahead, Ordering::Release);
                }
            });
            wait_until(PATIENCE, || (sent.load(Ordering::Acquire) > enough).then_some(())).expect("a burst");
            node.signal(Signal::KILL);
        });
        let mut next = 1;
        loop {
            match client.next(PATIENCE) {
                Incoming::Text(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(event["data"], json!({"life": life, "n": next}), "a wrong resume: {event}");
                    assert_eq!(event["offset"], next);
                    next += 1;
                }
                Incoming::Closed(closed) => break assert_eq!(closed, None),
                Incoming::Nothing => panic!("a killed node keeps its connections"),
            }
        }
        position["offset"] = json!(next - 1);
        id.clear();
        while let Said::Event(_, data) = stream.next() {
            let event: Value = serde_json::from_str(&data).unwrap();
            assert_eq!(event["data"], json!({"life": life, "n": stream_next}), "a wrong resume: {event}");
            assert!(stream.id.ends_with(&format!("-{stream_next}")), "{}", stream.id);
            stream_next += 1;
            // As a browser: an id counts with its event, which the kill may have cut off.
            id.clone_from(&stream.id);
        }
        assert!(node.unix_path().exists(), "a killed node leaves its socket behind");
        since = position;
    }
}

#[test]
fn a_shutdown_at_any_moment_of_a_burst_delivers_what_was_accepted() {
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..20 {
        let node = Node::start_with_unix(&["--shards", "2", "--drain-timeout", "5s"]);
        let mut clients: Vec<WebSocket> = (0..4).map(|_| node.websocket()).collect();
        clients.iter_mut().for_each(|client| drop(client.subscribe(&["one", "two"])));
        let addresses = [node.publish_addr().to_string(), format!("unix:{}", node.unix_path().display())];
        let (enough, is_flowing) = (random.u64(1..1500), AtomicBool::new(false));
        // Of each publisher: what was accepted before the signal and what at the end.
        let (published, received) = thread::scope(|scope| {
            let publishers: Vec<_> = (addresses.iter().zip(["one", "two"]))
                .map(|(address, topic)| {
                    let is_flowing = &is_flowing;
                    scope.spawn(move || {
                        let mut publisher = Publisher::open(address).unwrap();
                        let mut certain = 0;
                        for n in 0.. {
                            let data = n.to_string();
                            let sent = publisher.publish(&Event::new(&[topic], "e", &data)).map(drop);
                            if sent.and_then(|()| publisher.flush()).is_err() {
                                break;
                            }
                            while let Ok(Some(_)) = publisher.try_answer() {}
                            if !is_flowing.load(Ordering::Acquire) {
                                certain = publisher.accepted();
                                is_flowing.store(n > enough, Ordering::Release);
                            }
                        }
                        let mut last = None;
                        while let Ok(answer) = publisher.answer() {
                            last = Some(answer);
                        }
                        assert!(!matches!(last, Some(Answer::Error { code, .. }) if code != 9), "{last:?}");
                        (certain, publisher.accepted())
                    })
                })
                .collect();
            let readers: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| read_to_close(client))).collect();
            wait_until(PATIENCE, || is_flowing.load(Ordering::Acquire).then_some(())).expect("a burst");
            node.signal(Signal::TERM);
            let published: Vec<_> = publishers.into_iter().map(|thread| thread.join().unwrap()).collect();
            let received: Vec<_> = readers.into_iter().map(|thread| thread.join().unwrap()).collect();
            (published, received)
        });
        for (events, code) in received {
            assert_eq!(code, 1001);
            for (topic, (certain, accepted)) in ["one", "two"].into_iter().zip(&published) {
                let of_topic = events.iter().filter(|event| event["category"] == topic);
                let numbers: Vec<u64> = of_topic.map(|event| event["data"].as_u64().unwrap()).collect();
                let count = numbers.len() as u64;
                assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "a gap in {topic}");
                // A client that is closed before the others goes without what comes later, and knows it.
                assert!((*certain..=*accepted).contains(&count), "{certain} to {accepted}, but {count}");
            }
        }
        drop(clients);
        assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    }
}

/// Everything up to the close frame, and its code.
fn read_to_close(client: &mut WebSocket) -> (Vec<Value>, u16) {
    let mut messages = Vec::new();
    loop {
        match client.next(PATIENCE) {
            Incoming::Text(text) => messages.push(serde_json::from_str(&text).unwrap()),
            Incoming::Closed(closed) => return (messages, closed.expect("a close frame").0),
            Incoming::Nothing => panic!("not closed after {} messages", messages.len()),
        }
    }
}

#[test]
fn a_storm_of_signals_that_mean_no_end_is_not_noticed() {
    let dir = TempDir::new();
    let node = start(dir.path(), &["--log-level", "warn"]);
    let mut client = node.websocket();
    client.subscribe(&["run:1"]);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for n in 0..300 {
        node.signal([Signal::HUP, Signal::PIPE][n % 2]);
        publisher.publish(&Event::new(&["run:1"], "e", &n.to_string())).unwrap();
        publisher.flush().unwrap();
        assert_eq!(client.next_json(PATIENCE)["data"], n);
    }
    assert_eq!(node.stderr(), "");
}

// Clocks ---------------------------------------------------------------------------------------------------------

#[test]
fn a_wall_clock_that_jumps_an_hour_changes_timestamps_and_nothing_else() {
    let dir = TempDir::new();
    let (jump, file) = (dir.path().join("jump"), dir.path().join("fanwire.toml"));
    fs::write(&jump, "+0").unwrap();
    fs::write(&file, TOPICS).unwrap();
    // The library that answers for the clock; it looks into the file each time. The monotonic clock is left alone.
    let preload = run(Command::new(tool("faketime")).args(["-f", "+0", "printenv", "LD_PRELOAD"]), PATIENCE);
    let wrapper = [
        "env",
        &format!("LD_PRELOAD={}", preload.trim()),
        &format!("FAKETIME_TIMESTAMP_FILE={}", jump.display()),
        "FAKETIME_NO_CACHE=1",
        "DONT_FAKE_MONOTONIC=1",
    ];
    let flags =
        ["--config", "fanwire.toml", "--heartbeat-interval", "300ms", "--heartbeat-timeout", "1200ms"];
    let node = Node::start_under(&wrapper, dir, &flags);
    let addr = node.http_addr();
    let mut client = node.websocket();
    client.subscribe(&["run:1", "young:1"]);
    let mut stream = EventStream::open(addr, "/sse?topics=run:1");
    let began = jiff::Timestamp::now();
    let mut published = 0;
    for (offset, hours) in [("+0", 0), ("+3600", 1), ("-3600", -1), ("+0", 0)] {
        fs::write(&jump, offset).unwrap();
        // More than the timeout after each jump: nobody is taken for silent, and the beat goes on.
        let mut beats = 0;
        while beats < 5 {
            let message = client.next_json(PATIENCE);
            assert_eq!(message["type"], "ping", "{message}");
            client.send_json(&json!({"type":"pong"}));
            beats += 1;
        }
        published += 1;
        node.publish(&["run:1"], "e", &json!(published));
        node.publish(&["young:1"], "e", &json!(published));
        for _ in 0..2 {
            let event = loop {
                let message = client.next_json(PATIENCE);
                if message["type"] != "ping" {
                    break message;
                }
            };
            // In its order and its place, with the time that the clock shows.
            assert_eq!((&event["data"], &event["offset"]), (&json!(published), &json!(published)));
            let stamped: jiff::Timestamp = event["timestamp"].as_str().unwrap().parse().unwrap();
            let ahead = (stamped.as_second() - began.as_second()) as f64 / 3600.0;
            assert!((ahead - f64::from(hours)).abs() < 0.1, "{ahead} hours ahead, not {hours}: {event}");
        }
        assert_eq!(stream.next_event().1["data"], published);
        // No hour has passed for the history, in either direction.
        let (_, kept) = get(addr, "/api/topics/run:1/history");
        let kept: Vec<u64> = (kept["events"].as_array().unwrap().iter())
            .map(|event| event["offset"].as_u64().unwrap())
            .collect();
        assert_eq!(kept, (1..=published).collect::<Vec<_>>());
        let (_, young) = get(addr, "/api/topics/young:1");
        // A round takes more than half of its age, so two of its events are there at most.
        let young = young["history"]["events"].as_u64().unwrap();
        assert!((1..=2).contains(&young), "not its age of 2 s decides: {young} events after {published}");
        assert!(node.stats()["uptimeSeconds"].as_f64().unwrap() < 600.0);
    }
    assert_eq!(node.stats()["closed"], json!({}));
    assert_eq!(node.stats()["connections"], 2);
}

#[test]
fn a_node_that_was_stopped_does_not_blame_those_who_were_about_to_say_something() {
    let flags = ["--handshake-timeout", "1s", "--publish-timeout", "1s", "--publish-token", "x"];
    let node =
        Node::start(&[&flags[..], &["--heartbeat-interval", "1s", "--heartbeat-timeout", "2s"]].concat());
    let open_files = || open_files(&node);
    let files = open_files();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut hello = Vec::new();
    encode_hello("x", "", &mut hello).unwrap();
    let mut ping = Vec::new();
    encode_ping(Kind::Ping, 7, b"", &mut ping);
    // The first part before, the second while it is stopped: a request, a HELLO, a frame after one.
    let (half, silent) = (hello.len() / 2, &hello[..0]);
    let mut parts = [
        (node.http_addr(), request[..20].to_vec(), request[20..].to_vec()),
        (node.publish_addr(), silent.to_vec(), [&hello[..], &ping].concat()),
        (node.publish_addr(), hello[..half].to_vec(), [&hello[half..], &ping].concat()),
        (node.publish_addr(), [&hello[..], &ping[..9]].concat(), ping[9..].to_vec()),
    ]
    .map(|(addr, first, second)| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&first).unwrap();
        (stream, second)
    });
    wait_until(PATIENCE, || (open_files() == files + parts.len()).then_some(())).expect("all are accepted");
    node.signal(Signal::STOP);
    for (stream, second) in &mut parts {
        stream.write_all(second).unwrap();
    }
    // The time itself is what is tested: nothing can be waited for.
    thread::sleep(Duration::from_millis(2_500));
    node.signal(Signal::CONT);
    let [request, publishers @ ..] = &mut parts;
    assert_eq!(read_response(&mut request.0, false).unwrap().0, 200);
    for (stream, _) in publishers {
        let mut pong = [0; HEADER_LEN];
        stream.read_exact(&mut pong).unwrap();
        let header = Header::parse(&pong);
        assert_eq!((header.kind, header.sequence), (Kind::Pong as u8, 7));
    }
}

// System calls ---------------------------------------------------------------------------------------------------

/// A node whose system calls fail now and then: call, error, and the most of such calls between two failures.
fn with_faults(faults: &[(&str, &str, u32)], random: &mut fastrand::Rng) -> Node {
    let mut wrapper = vec!["strace".to_owned()];
    // -D: the node keeps its number; --seccomp-bpf: only these calls are slower.
    wrapper.extend(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"].map(str::to_owned));
    for (call, error, most) in faults {
        let when = format!("{}+{}", random.u32(10..30), random.u32(most / 2..=*most));
        wrapper.push(format!("--inject={call}:error={error}:when={when}"));
    }
    println!("{wrapper:?}");
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    Node::start_under(&wrapper, TempDir::new(), &["--shards", "2"])
}

#[test]
fn system_calls_that_were_interrupted_are_asked_again() {
    let mut random = fastrand::Rng::with_seed(seed());
    let calls = ["epoll_wait", "recvfrom", "sendto"].map(|call| (call, "EINTR", 5));
    for accepting in ["ECONNABORTED", "EINTR", "EMFILE"] {
        let most = if accepting == "EMFILE" { 40 } else { 5 };
        let node = with_faults(&[&calls[..], &[("accept4", accepting, most)]].concat(), &mut random);
        let mut healthy = node.websocket();
        healthy.subscribe(&["t"]);
        let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
        for n in 0..100 {
            // Somebody comes each time, so that accepting fails as well.
            let mut other = WebSocket::connect(node.http_addr(), "/ws?categories=t");
            assert_eq!(other.next_json(PATIENCE)["type"], "subscription-ack");
            publisher.publish(&Event::new(&["t"], "e", &n.to_string())).unwrap();
            publisher.settle().unwrap();
            assert_eq!(healthy.next_json(PATIENCE)["data"], n);
            assert_eq!(other.next_json(PATIENCE)["data"], n);
        }
        let stats = node.wait_stats("all delivered", |stats| stats["pending"] == 0);
        assert!(stats["deliveries"].as_u64() >= Some(200) && stats["connections"].is_u64(), "{stats:#}");
        if accepting == "EMFILE" {
            node.wait_log("the pause", |line| line.contains("accepting paused"));
        }
    }
}

#[test]
fn a_write_that_fails_costs_its_connection_and_nobody_elses_events() {
    let mut random = fastrand::Rng::with_seed(seed());
    for error in ["ENOBUFS", "EPIPE", "ECONNRESET"] {
        let node = with_faults(&[("sendto", error, 60)], &mut random);
        // The answers to these handshakes are writes too.
        let mut clients: Vec<WebSocket> = Vec::new();
        while clients.len() < 8 {
            if let Ok(mut client) = WebSocket::try_connect(node.http_addr(), "/ws")
                && client.socket().send(SUBSCRIBE.into()).is_ok()
                && matches!(client.next(PATIENCE), Incoming::Text(_))
            {
                clients.push(client);
            }
        }
        let open = || Publisher::open(&node.publish_addr().to_string()).unwrap();
        let (mut publisher, mut lost) = (open(), 0);
        let mut next = vec![Some(0); clients.len()];
        for n in 0..150 {
            let data = n.to_string();
            publisher.publish(&Event::new(&["t"], "e", &data)).unwrap();
            // Where the answer was what failed, the event was accepted all the same.
            if publisher.settle().is_err() {
                publisher = open();
            }
            for (client, next) in clients.iter_mut().zip(&mut next) {
                let Some(expected) = *next else { continue };
                *next = match client.next(PATIENCE) {
                    Incoming::Text(text) => {
                        let event: Value = serde_json::from_str(&text).unwrap();
                        assert_eq!(event["data"], expected, "a gap in silence");
                        Some(n + 1)
                    }
                    Incoming::Closed(closed) => {
                        assert_eq!(closed, None);
                        lost += 1;
                        None
                    }
                    Incoming::Nothing => panic!("neither the event nor an end"),
                };
            }
        }
        assert!(lost > 0 && node.try_exit().is_none(), "{error} never came");
        // The answer to this may be what fails.
        let accounted = wait_until(PATIENCE, || {
            let mut stream = TcpStream::connect(node.http_addr()).ok()?;
            stream.write_all(b"GET /api/v1/websocket/stats HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            let stats: Value = serde_json::from_slice(&read_response(&mut stream, false).ok()?.2).unwrap();
            (stats["connections"] == 8 - lost && stats["pending"] == 0).then_some(stats)
        });
        let stats = accounted.expect("all that was dispatched is delivered or dropped");
        assert!(stats["closed"]["connection_lost"].as_u64() >= Some(lost), "{stats:#}");
        assert_eq!(stats["eventsIn"], 150);
    }
}

const SUBSCRIBE: &str = r#"{"type":"subscribe","topics":["t"]}"#;

// What strangers see ---------------------------------------------------------------------------------------------

/// Every path that a node serves, and some that lead there in other ways.
const OPERATORS_PATHS: [&str; 24] = [
    "/",
    "/page.js",
    "/page.css",
    "/favicon.svg",
    "/metrics",
    "/api/slow",
    "/api/websocket/status",
    "/api/v1/websocket/stats",
    "/api/topics/secret-topic",
    "/api/topics/secret-topic/history",
    "/api/topics/run:1",
    "/metrics/",
    "//metrics",
    "/./metrics",
    "/x/../metrics",
    "/%6detrics",
    "/METRICS",
    "/metrics?x=1",
    "/metrics%00",
    "/metrics;x",
    "/api/../metrics",
    "/ws/../metrics",
    "/echo",
    "/diagnostics/http",
];

#[test]
fn the_public_port_shows_strangers_nothing_of_the_operators() {
    let dir = TempDir::new();
    let flags = ["--admin", "127.0.0.1:0", "--operator-token", "canary-o", "--publish-token", "canary-p"];
    let node = start(dir.path(), &flags);
    let (public, admin) = (node.http_addr(), node.http_addrs()[1]);
    let mut client = node.websocket();
    client.subscribe(&["secret-topic"]);
    let bearer = [("Authorization", "Bearer canary-o")];
    let unknown = http(public, "GET", "/no/such/path", &[], b"");
    for path in OPERATORS_PATHS {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for headers in [&[][..], &bearer[..]] {
                let (status, head, body) = http(public, method, path, headers, b"");
                let seen = format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body));
                assert!([400, 404, 405].contains(&status), "{seen}");
                assert!(
                    !seen.contains("canary") && !seen.replace(path, "").contains("secret-topic"),
                    "{seen}"
                );
                // As any path that does not exist, so that nobody learns what is behind it.
                if method == "GET" && status == 404 {
                    let told =
                        String::from_utf8_lossy(&body).replace(path.split('?').next().unwrap(), "PATH");
                    assert_eq!(told, String::from_utf8_lossy(&unknown.2).replace("/no/such/path", "PATH"));
                }
                let has_cors = head.iter().any(|(name, _)| name.starts_with("access-control-"));
                assert!(!has_cors, "{seen}: {head:?}");
            }
        }
    }
    // On their own port operators' requests change nothing, are for no other site, and never show a token.
    let before = metrics_of(admin, &bearer);
    for path in OPERATORS_PATHS {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let (status, head, body) = http(admin, method, path, &bearer, b"");
            let seen = format!("{method} {path}: {status}");
            assert!(method == "GET" || [400, 404, 405].contains(&status), "{seen}");
            assert!(!String::from_utf8_lossy(&body).contains("canary"), "{seen}");
            assert!(!head.iter().any(|(name, _)| name.starts_with("access-control-")), "{seen}");
            assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"), "{seen}");
        }
    }
    let after = metrics_of(admin, &bearer);
    for figure in ["fanwire_events_in_total", "fanwire_clients", "fanwire_subscriptions"] {
        let value = |text: &str| text.lines().find(|line| line.starts_with(figure)).map(str::to_owned);
        assert!(value(&before).is_some() && value(&before) == value(&after), "{figure}");
    }
}

fn metrics_of(addr: SocketAddr, headers: &[(&str, &str)]) -> String {
    let (status, _, body) = http(addr, "GET", "/metrics", headers, b"");
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

#[test]
fn metrics_have_the_same_series_however_many_topics_and_clients_there_are() {
    let dir = TempDir::new();
    let node = start(dir.path(), &["--max-subscriptions", "5000", "--max-topics", "100000"]);
    let series = || -> Vec<String> {
        let text = metrics_of(node.http_addr(), &[]);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let before = series();
    let mut clients: Vec<WebSocket> = (0..5)
        .map(|n| WebSocket::connect(node.http_addr(), &format!("/ws?clientId=canary-client-{n}")))
        .collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let topics: Vec<String> = (0..2000).map(|topic| format!("run:canary-{n}-{topic}")).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&topics);
    }
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for n in 0..20_000 {
        let topic = format!("run:canary-unheard-{n}");
        publisher.publish(&Event::new(&[&topic], &format!("canary-event-{n}"), "1")).unwrap();
    }
    publisher.settle().unwrap();
    assert_eq!(series(), before);
    assert!(!metrics_of(node.http_addr(), &[]).contains("canary"));
    node.wait_stats("ten thousand topics", |stats| stats["subscriptions"] == 10_000);
}
