//! What publishers do wrong, over real sockets: frames that are not frames, frames in part, a pace that nobody can
//! keep, answers that are never read; and what stands in the way of the publish socket's file.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::proc::{memory, open_files};
use common::raw::connect_narrow;
use common::{Node, PATIENCE, TempDir, WebSocket, fanwire, run_any, seed, wait_until};
use fanwire::client::{Event, Publisher};
use fanwire::error::ErrorCode;
use fanwire::publish::wire::{FLAG_ACK, HEADER_LEN, Header, Kind, Publish, encode_hello, encode_ping};
use serde_json::json;
use socket2::SockRef;

fn frame(topics: &str, event: &str, key: &str, data: &str, sequence: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    let publish = Publish { topics, event, key, data, timestamp_ms: 0 };
    publish.encode(FLAG_ACK, sequence, &mut frame).unwrap();
    frame
}

/// Kind, sequence and body of each answer, to the end.
fn answers(stream: &mut impl Read) -> Vec<(u8, u64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut rest = &bytes[..];
    while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
        let header = Header::parse(header);
        let (body, after) = body.split_at(header.length as usize);
        all.push((header.kind, header.sequence, body.to_vec()));
        rest = after;
    }
    assert!(rest.is_empty(), "half an answer: {rest:?}");
    all
}

// What is no frame -----------------------------------------------------------------------------------------------

#[test]
fn a_frame_that_breaks_the_rules_is_answered_and_costs_its_publisher_alone() {
    let mut random = fastrand::Rng::with_seed(seed());
    let node = Node::start(&["--shards", "2", "--max-publish-bytes", "64KiB"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let mut healthy = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let header = |length: u32, version, kind, flags| {
        Header { length, version, kind, flags, sequence: 7 }.to_bytes().to_vec()
    };
    let mut cases: Vec<(Vec<u8>, u16)> = Vec::new();
    for length in [0, 15, 1 << 16, 1 << 31, u32::MAX - 16, u32::MAX] {
        for (version, kind) in [(0, 2), (2, 2), (255, 2), (1, 0), (1, 3), (1, 4), (1, 6), (1, 7), (1, 255)] {
            cases.push((header(length, version, kind, 0), ErrorCode::Unsupported as u16));
        }
        cases.push((header(length, 1, 2, 4), ErrorCode::Malformed as u16));
        cases.push((header(length, 1, 2, 0x8000), ErrorCode::Malformed as u16));
    }
    for (length, kind) in [(1 << 31, 1), (u32::MAX, 2), (u32::MAX, 1), (126, 5), (u32::MAX, 5), (80_000, 2)] {
        cases.push((header(length, 1, kind, 0), ErrorCode::TooLarge as u16));
    }
    for length in 0..16 {
        // Too short for what a PUBLISH always has.
        let body = vec![0xFF; length as usize];
        cases.push(([header(length, 1, 2, 0), body].concat(), ErrorCode::Malformed as u16));
    }
    // In the fixed part: lengths that reach beyond the body, what must be 0, a time after the year 9999.
    for place in (0..8).chain([14, 15]) {
        for byte in [0x7F, 0x80, 0xFF] {
            let mut bad = frame("t", "e", "", "1", 7);
            bad[HEADER_LEN + place] = byte;
            cases.push((bad, ErrorCode::Malformed as u16));
        }
    }
    random.shuffle(&mut cases);
    for (n, (bad, code)) in cases.iter().enumerate() {
        let mut stream = TcpStream::connect(node.publish_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let good = frame("t", "before", "", &n.to_string(), 1);
        stream.write_all(&[&good[..], bad].concat()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answers = answers(&mut stream);
        assert_eq!((answers[0].0, answers[0].1), (Kind::Ack as u8, 1), "{bad:?}");
        let (kind, sequence, body) = answers.last().unwrap();
        let told = u16::from_le_bytes([body[0], body[1]]);
        assert_eq!((*kind, *sequence, told), (Kind::Error as u8, 7, *code), "{bad:?}");
        assert_eq!(answers.len(), 2);
        let data = n.to_string();
        healthy.publish(&Event::new(&["t"], "healthy", &data)).unwrap();
        healthy.settle().unwrap();
        loop {
            let event = client.next_json(PATIENCE);
            match event["event"].as_str().unwrap() {
                "healthy" => break,
                other => assert_eq!((other, &event["data"]), ("before", &json!(n)), "{bad:?}"),
            }
        }
    }
    assert!(cases.len() > 100, "{}", cases.len());
    let stats = node.wait_stats("one publisher", |stats| stats["publishers"] == 1);
    assert_eq!((stats["connections"].as_u64(), stats["pending"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn a_length_is_believed_only_as_far_as_bytes_have_come() {
    let node = Node::start(&["--max-publish-bytes", "64MiB", "--max-publishers", "300"]);
    let before = memory(&node, "VmRSS");
    let announcing: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(node.publish_addr()).unwrap();
            let header = Header { length: 64 << 20, version: 1, kind: 2, flags: 0, sequence: n };
            stream.write_all(&header.to_bytes()).unwrap();
            stream.write_all(&[0; 100]).unwrap();
            stream
        })
        .collect();
    node.wait_stats("200 publishers", |stats| stats["publishers"] == 200);
    let mut other = Publisher::open(&node.publish_addr().to_string()).unwrap();
    other.publish(&Event::new(&["t"], "e", "1")).unwrap();
    other.settle().unwrap();
    // 12.5 GiB were announced, 20 KiB came.
    let grown = memory(&node, "VmHWM") - before;
    assert!(grown < 16 << 20, "{grown} bytes for {} announcements", announcing.len());
}

// Frames in part -------------------------------------------------------------------------------------------------

#[test]
fn of_200_frames_cut_anywhere_only_whole_ones_are_published() {
    let mut random = fastrand::Rng::with_seed(seed());
    let node = Node::start_with_unix(&["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["also", "whole"]);
    let received = thread::spawn(move || {
        let mut received = Vec::new();
        loop {
            let event = client.next_json(PATIENCE);
            match event["event"].as_str().unwrap() {
                "last" => return received,
                name => received.push(format!("{name} {}", event["data"])),
            }
        }
    });
    let mut whole = UnixStream::connect(node.unix_path()).unwrap();
    let mut sent = Vec::new();
    for _ in 0..200 {
        let key = "k".repeat(random.usize(..4));
        let padding = "x".repeat(random.usize(..20));
        let topics = random.choice(["whole", "whole\nalso"]).unwrap();
        for cut in 1.. {
            let data = format!("\"{:06}{padding}\"", sent.len());
            let frame = frame(topics, "e", &key, &data, sent.len() as u64);
            if cut == frame.len() {
                break;
            }
            // A publisher that vanishes then, and one that goes on.
            let mut vanishing = UnixStream::connect(node.unix_path()).unwrap();
            vanishing.write_all(&frame[..cut]).unwrap();
            drop(vanishing);
            whole.write_all(&frame[..cut]).unwrap();
            whole.write_all(&frame[cut..]).unwrap();
            sent.push(format!("e {data}"));
        }
    }
    // One byte at a time.
    for byte in frame("whole", "e", "", "1", 0) {
        whole.write_all(&[byte]).unwrap();
    }
    sent.push("e 1".to_owned());
    whole.write_all(&frame("whole", "last", "", "1", 0)).unwrap();
    assert!(received.join().unwrap() == sent, "not what was published whole, in its order");
    assert!(sent.len() > 10_000, "{}", sent.len());
    let stats = node.wait_stats("one publisher", |stats| stats["publishers"] == 1);
    assert_eq!(stats["eventsIn"].as_u64(), Some(sent.len() as u64 + 1));
    assert_eq!(stats["deliveries"], stats["eventsIn"]);
}

#[test]
fn a_publisher_that_stops_inside_a_frame_is_let_go_and_the_log_has_its_name() {
    let node = Node::start(&["--publish-timeout", "300ms", "--log-level", "debug"]);
    let begin = |name: &str| {
        let mut stream = TcpStream::connect(node.publish_addr()).unwrap();
        let mut hello = Vec::new();
        encode_hello("", name, &mut hello).unwrap();
        stream.write_all(&[hello, frame("t", "e", "", "1", 9)].concat()).unwrap();
        let mut ack = [0; HEADER_LEN + 8];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut ack).unwrap();
        stream
    };
    // This one drips. No byte prolongs the time that the frame as a whole has: it would take a minute.
    let mut dripping = begin("sensor-7");
    dripping.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut answer, mut buffer, long) = (Vec::new(), [0; 512], "x".repeat(60_000));
    let began = Instant::now();
    for byte in frame("t", "part", "", &json!(long).to_string(), 10) {
        // Refused once the node has closed.
        let _ = dripping.write_all(&[byte]);
        match dripping.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        assert!(began.elapsed() < PATIENCE, "it is not let go");
    }
    let header = Header::parse(answer.first_chunk().unwrap());
    assert_eq!((header.kind, answer[HEADER_LEN]), (Kind::Error as u8, 1));
    assert!(String::from_utf8_lossy(&answer).contains("publish_timeout"));
    // These vanish, one with a reset.
    for (name, linger) in [("sensor-8", None), ("sensor-9", Some(Duration::ZERO))] {
        let mut stream = begin(name);
        stream.write_all(&frame("t", "part", "", "1", 10)[..30]).unwrap();
        node.wait_stats("a frame in part", |stats| stats["publishers"] == 1);
        SockRef::from(&stream).set_linger(linger).unwrap();
    }
    for (name, what) in
        [("sensor-7", "(publish_timeout)"), ("sensor-8", "vanished"), ("sensor-9", "vanished")]
    {
        let is_it = |line: &str| line.contains(&format!("name=\"{name}\"")) && line.contains(what);
        let line = node.wait_log(name, is_it);
        assert!(line.contains("publisher let go address=127.0.0.1:"), "{line}");
    }
    node.wait_stats("nobody left", |stats| stats["publishers"] == 0 && stats["eventsIn"] == 3);
}

#[test]
fn the_place_of_a_publisher_that_is_gone_without_a_word_is_given_back() {
    let flags = ["--publish-timeout", "300ms", "--close-timeout", "300ms", "--max-publishers", "1"];
    let node = Node::start(&flags);
    let files = open_files(&node);
    let mut gone = TcpStream::connect(node.publish_addr()).unwrap();
    gone.write_all(&frame("t", "part", "", "1", 1)[..20]).unwrap();
    node.wait_stats("its place is taken", |stats| stats["publishers"] == 1);
    // No word of it comes any more, and no goodbye either: `gone` stays open here.
    wait_until(PATIENCE, || {
        let now = open_files(&node);
        (now == files && node.stats()["publishers"] == 0).then_some(())
    })
    .expect("it keeps its place and its descriptor");
    let mut next = Publisher::open(&node.publish_addr().to_string()).unwrap();
    next.publish(&Event::new(&["t"], "e", "1")).unwrap();
    next.settle().unwrap();
    assert_eq!(node.stats()["eventsIn"], 1);
    drop(gone);
}

// Too fast, and too deaf -----------------------------------------------------------------------------------------

#[test]
fn what_two_publishers_at_full_speed_get_accepted_is_delivered_or_told() {
    const EVENTS: u64 = 20_000;
    let node = Node::start_with_unix(&["--shards", "2", "--send-buffer", "16KiB"]);
    let policies = ["drop-oldest", "drop-newest", "conflate"];
    let mut clients: Vec<WebSocket> = (0..6)
        .map(|n| {
            let mut client = match n {
                0..3 => node.websocket(),
                _ => WebSocket::connect_narrow(node.http_addr(), "/ws"),
            };
            let policy = policies[n % 3];
            client.send_json(&json!({"type":"subscribe","topics":["one","two"],"policy":policy}));
            assert_eq!(client.next_json(PATIENCE)["type"], "subscription-ack");
            client
        })
        .collect();
    let publish = |address: String, topic: &str| {
        let mut publisher = Publisher::open(&address).unwrap();
        let (topics, padding) = ([topic], "x".repeat(100));
        for n in 0..EVENTS {
            let (data, key) = (format!(r#"{{"n":{n},"x":"{padding}"}}"#), (n % 7).to_string());
            publisher.publish(&Event { key: &key, ..Event::new(&topics, "e", &data) }).unwrap();
        }
        publisher.settle().unwrap();
        publisher.accepted()
    };
    let is_done = AtomicBool::new(false);
    let told: Vec<[(u64, u64); 2]> = thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(n, client)| {
                let is_done = &is_done;
                // Half of them begin to read when it is over.
                scope.spawn(move || {
                    while n >= 3 && !is_done.load(Ordering::Acquire) {
                        thread::sleep(Duration::from_millis(2));
                    }
                    read_all(client, EVENTS)
                })
            })
            .collect();
        let unix = format!("unix:{}", node.unix_path().display());
        let one = scope.spawn(|| publish(unix, "one"));
        let two = scope.spawn(|| publish(node.publish_addr().to_string(), "two"));
        // Control traffic is served all the while.
        let mut busy = node.websocket();
        while !(one.is_finished() && two.is_finished()) {
            busy.send_json(&json!({"type":"ping"}));
            assert_eq!(busy.next_json(PATIENCE)["type"], "pong");
            assert!(node.stats()["publishers"].is_u64());
        }
        assert_eq!((one.join().unwrap(), two.join().unwrap()), (EVENTS, EVENTS));
        is_done.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let mut lost = 0;
    for (n, topics) in told.iter().enumerate() {
        for (received, dropped) in topics {
            assert_eq!(received + dropped, EVENTS, "client {n}: {received} received, {dropped} told");
            lost += dropped;
        }
    }
    assert!(lost > EVENTS, "nobody was slow: {told:?}");
    let stats = node.wait_stats("all accounted for", |stats| stats["pending"] == 0);
    assert_eq!(stats["eventsIn"], 2 * EVENTS);
    let dropped: u64 = stats["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(dropped, lost);
    assert_eq!(stats["dispatched"].as_u64().unwrap(), 6 * 2 * EVENTS);
    assert_eq!(stats["deliveries"].as_u64().unwrap(), 6 * 2 * EVENTS - lost);
}

/// Reads until `events` of each of two topics came or were told to be missing; in order.
fn read_all(client: &mut WebSocket, events: u64) -> [(u64, u64); 2] {
    let mut topics = [(0, 0); 2];
    let mut next = [0; 2];
    while topics.iter().any(|(received, dropped)| received + dropped < events) {
        let message = client.next_json(PATIENCE);
        let place = usize::from(message["category"] == "two" || message["data"]["topic"] == "two");
        match message["type"].as_str().unwrap() {
            "gap" => topics[place].1 += message["data"]["dropped"].as_u64().unwrap(),
            _ => {
                let n = message["data"]["n"].as_u64().unwrap();
                assert!(n >= next[place], "{n} after {}", next[place]);
                next[place] = n + 1;
                topics[place].0 += 1;
            }
        }
    }
    topics
}

#[test]
fn a_publisher_that_never_reads_its_answers_is_bounded_then_closed() {
    let node = Node::start(&[
        "--publish-timeout",
        "1s",
        "--close-timeout",
        "500ms",
        "--send-buffer",
        "8KiB",
        "--log-level",
        "debug",
    ]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let before = memory(&node, "VmRSS");
    // Each PING and each bad event is an answer: more than the kernel keeps, and the node. What is published among
    // them has a topic of its own: this thread floods and reads in turn, so its client would be the slow one.
    let mut pings = Vec::new();
    while pings.len() < 1 << 20 {
        encode_ping(Kind::Ping, 1, &[b'x'; 125], &mut pings);
        pings.extend(frame("flood", "e", "", "1", 2));
        let mut bad = frame("flood", "e", "", "1", 3);
        *bad.last_mut().unwrap() = b'{';
        pings.extend(bad);
    }
    let mut deaf = connect_narrow(node.publish_addr());
    deaf.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let ended = wait_until(PATIENCE, || {
        loop {
            match deaf.write(&pings[sent % pings.len()..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Some(error.kind()),
            }
        }
        // While it is stuck, everybody else is served, by the same shard; what is its own waits in a small queue.
        node.publish(&["t"], "healthy", &json!(sent));
        while client.next_json(PATIENCE)["event"] != "healthy" {}
        let held = node.stats()["outbox"]["heldBytes"].as_u64().unwrap();
        assert!(held < 1 << 20, "{held} bytes held");
        None
    });
    assert!(matches!(ended, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{ended:?}");
    node.wait_stats("no publisher", |stats| stats["publishers"] == 0 && stats["outbox"]["heldBytes"] == 0);
    node.wait_log("the deaf one", |line| {
        line.contains("publisher let go") && line.contains("not read in time")
    });
    let grown = memory(&node, "VmHWM") - before;
    assert!(grown < 16 << 20, "{grown} bytes for one publisher");
}

// The socket's file ----------------------------------------------------------------------------------------------

#[test]
fn the_socket_is_never_open_to_more_than_owner_and_group_whatever_the_mask() {
    for mask in ["0000", "0077"] {
        for _ in 0..8 {
            let dir = TempDir::new();
            let path = dir.path().join("publish.sock");
            let (is_watched, is_up) = (AtomicBool::new(false), AtomicBool::new(false));
            let node = thread::scope(|scope| {
                // Looks all the time that the node starts.
                let watcher = scope.spawn(|| {
                    let mut modes = Vec::new();
                    loop {
                        let is_last = is_up.load(Ordering::Acquire);
                        if let Ok(found) = fs::symlink_metadata(&path) {
                            modes.push(found.permissions().mode() & 0o7777);
                            modes.dedup();
                        }
                        is_watched.store(true, Ordering::Release);
                        if is_last {
                            return modes;
                        }
                    }
                });
                wait_until(PATIENCE, || is_watched.load(Ordering::Acquire).then_some(())).unwrap();
                let script = format!(r#"umask {mask}; exec "$@""#);
                let flags = ["--publish", &format!("unix:{}", path.display())];
                let node = Node::start_under(&["sh", "-c", &script, "sh"], TempDir::new(), &flags);
                is_up.store(true, Ordering::Release);
                assert_eq!(watcher.join().unwrap(), [0o660], "with a mask of {mask}");
                node
            });
            UnixStream::connect(node.unix_path()).unwrap();
        }
    }
}

#[test]
fn a_symlink_in_the_sockets_place_is_never_followed() {
    let dir = TempDir::new();
    let refuse = |path: &Path| {
        let mut command = fanwire();
        command.args(["serve", "--listen", "127.0.0.1:0", "--publish", &format!("unix:{}", path.display())]);
        let (status, _, stderr) = run_any(&mut command, PATIENCE);
        assert_eq!((status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        stderr
    };
    // To nothing, to a socket that was left behind, and to one that somebody listens on.
    let (stale, live) = (dir.path().join("stale"), dir.path().join("live"));
    drop(UnixListener::bind(&stale).unwrap());
    let listener = UnixListener::bind(&live).unwrap();
    listener.set_nonblocking(true).unwrap();
    for target in [&dir.path().join("nothing"), &stale, &live] {
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert!(refuse(&link).contains("not a socket"));
        assert_eq!(&fs::read_link(&link).unwrap(), target);
        fs::remove_file(&link).unwrap();
    }
    assert!(!dir.path().join("nothing").exists());
    assert!(fs::symlink_metadata(&stale).unwrap().file_type().is_socket());
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "it was not even asked");
    // Another user's socket is not removed either; only root can make one here.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&stale, Some(12_345), None).unwrap();
        assert!(refuse(&stale).contains("another user's"));
        assert!(stale.exists());
    }
}
