//! A node in the hands of its operator and of bad luck: signals, reloads, files and descriptors that run out, logs,
//! publishers and clients that vanish.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::proc::{cpu_time, open_files, status};
use common::{
    DEEP, Incoming, Node, PATIENCE, Signal, TempDir, WebSocket, fanwire, http, publish_to_the_end,
    read_response, run_any, seed, wait_until,
};
use fanwire::client::{Answer, Event, Publisher};
use fanwire::publish::wire::{self, Header, Kind, Publish};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use socket2::SockRef;

/// How a client was closed, and what came before it.
fn read_to_close(client: &mut WebSocket) -> (Vec<Value>, Option<(u16, String)>) {
    let mut messages = Vec::new();
    loop {
        match client.next(PATIENCE) {
            Incoming::Text(text) => messages.push(serde_json::from_str(&text).unwrap()),
            Incoming::Closed(closed) => return (messages, closed),
            Incoming::Nothing => panic!("not closed after {} messages", messages.len()),
        }
    }
}

fn status_of(addr: SocketAddr, path: &str) -> u16 {
    http(addr, "GET", path, &[], b"").0
}

// Shutdown -------------------------------------------------------------------------------------------------------

#[test]
fn a_shutdown_delivers_every_accepted_event_and_tells_everyone() {
    for signal in [Signal::TERM, Signal::INT] {
        // Everybody waits for everything: nobody is let go while publishers are read.
        let node = Node::start_with_unix(&[&DEEP[..], &["--shards", "2", "--drain-spread", "0s"]].concat());
        let mut clients: Vec<WebSocket> = (0..6).map(|_| node.websocket()).collect();
        for client in &mut clients {
            client.subscribe(&["one", "two"]);
        }
        let addresses = [node.publish_addr().to_string(), format!("unix:{}", node.unix_path().display())];
        let is_flowing = AtomicBool::new(false);
        let (accepted, received) = thread::scope(|scope| {
            let publishers: Vec<_> = addresses
                .iter()
                .zip(["one", "two"])
                .map(|(address, topic)| {
                    let is_flowing = &is_flowing;
                    scope.spawn(move || publish_to_the_end(address, topic, is_flowing))
                })
                .collect();
            let readers: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| read_to_close(client))).collect();
            wait_until(PATIENCE, || is_flowing.load(Ordering::Relaxed).then_some(())).expect("nothing flows");
            node.signal(signal);
            let accepted: Vec<_> = publishers.into_iter().map(|thread| thread.join().unwrap()).collect();
            let received: Vec<_> = readers.into_iter().map(|thread| thread.join().unwrap()).collect();
            (accepted, received)
        });
        for (events, closed) in received {
            let (code, reason) = closed.expect("a close frame");
            assert_eq!(code, 1001);
            let retry = serde_json::from_str::<Value>(&reason).unwrap()["retryAfterMs"].as_u64().unwrap();
            assert!((1..=60_000).contains(&retry), "{reason}");
            for (topic, accepted) in ["one", "two"].into_iter().zip(&accepted) {
                let numbers: Vec<u64> = events
                    .iter()
                    .filter(|event| event["category"] == topic)
                    .map(|event| event["data"].as_u64().unwrap())
                    .collect();
                assert_eq!(
                    numbers,
                    (0..*accepted).collect::<Vec<_>>(),
                    "all that was accepted, nothing else"
                );
            }
        }
        // Nobody is left to wait for: it ends long before its ten seconds are up.
        drop(clients);
        assert!(node.wait_exit(Duration::from_secs(5)).success());
        assert!(!node.unix_path().exists(), "its socket is removed");
    }
}

#[test]
fn while_it_drains_it_says_so_and_it_ends_in_time_whoever_reads() {
    // From the first moment it is in the stages in which it takes nothing.
    let flags = ["--send-buffer", "8KiB", "--drain-spread", "0s", "--drain-timeout", "3s"];
    let node = Node::start(&flags);
    let mut stuck = node.stuck_client();
    let mut idle = node.websocket();
    idle.subscribe(&["other"]);
    // An idle connection that asks again during the drain.
    let mut kept = TcpStream::connect(node.http_addr()).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut kept, false).unwrap().0, 200);
    assert_eq!(status_of(node.http_addr(), "/readyz"), 200);

    let began = Instant::now();
    node.signal(Signal::TERM);
    wait_until(PATIENCE, || (status_of(node.http_addr(), "/readyz") == 503).then_some(()))
        .expect("/readyz says 503");
    kept.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut kept, false).unwrap().0, 503);
    assert_eq!(status_of(node.http_addr(), "/healthz"), 200, "it is alive");
    let refused = WebSocket::try_connect(node.http_addr(), "/ws").unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    let event = json!({"topic":"other","event":"e"}).to_string();
    assert_eq!(http(node.http_addr(), "POST", "/api/publish", &[], event.as_bytes()).0, 503);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let told = publisher.answer();
    assert!(matches!(told, Ok(Answer::Error { code: 9, .. })), "{told:?}");
    // Who owes nothing goes at once, long before the others' time is up.
    assert_eq!(idle.wait_closed(PATIENCE).unwrap().0, 1001);
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());

    let status = node.wait_exit(PATIENCE);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took > Duration::from_secs(2) && took < Duration::from_millis(3800), "it took {took:?}");
    let (messages, _) = read_to_close(&mut stuck);
    assert!(messages.iter().all(|message| message["type"] == "event" || message["type"] == "gap"));
}

#[test]
fn a_client_that_reads_slowly_still_gets_everything_before_it_is_closed() {
    let node = Node::start(&["--send-buffer", "8KiB"]);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws?categories=t");
    slow.next_json(PATIENCE);
    let data = json!("x".repeat(2000));
    for _ in 0..60 {
        node.publish(&["t"], "e", &data);
    }
    node.signal(Signal::TERM);
    // It begins to read only now.
    wait_until(PATIENCE, || (status_of(node.http_addr(), "/readyz") == 503).then_some(()))
        .expect("/readyz says 503");
    let (messages, closed) = read_to_close(&mut slow);
    assert_eq!((messages.len(), closed.map(|(code, _)| code)), (60, Some(1001)));
    assert!(node.wait_exit(PATIENCE).success());
}

/// Whoever opens the file for which the kernel's table grows waits for it, and all clients of its shard with it.
#[test]
fn the_table_of_open_files_has_room_for_all_clients_from_the_start() {
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let node = Node::start(&["--max-clients", "3000"]);
    assert!(status(&node, "FDSize") >= allowed.min(3000), "{}", status(&node, "FDSize"));
    let _clients: Vec<_> = (0..300).map(|_| node.websocket()).collect();
    assert!(open_files(&node) > 300);
    assert!(status(&node, "FDSize") >= allowed.min(3000));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)]
    {
        let node = Node::start(&["--send-buffer", "8KiB", "--drain-timeout", "60s"]);
        let _stuck = node.stuck_client();
        node.signal(first);
        wait_until(PATIENCE, || (status_of(node.http_addr(), "/readyz") == 503).then_some(()))
            .expect("it drains");
        node.signal(second);
        assert_eq!(node.wait_exit(Duration::from_secs(5)).code(), Some(130));
    }
}

#[test]
fn it_starts_again_on_the_same_addresses_after_a_kill() {
    let dir = TempDir::new();
    let path = dir.path().join("publish.sock");
    let unix = format!("unix:{}", path.display());
    let mut node = Node::start(&["--publish", &unix]);
    let (listen, publish) = (node.http_addr().to_string(), node.publish_addr().to_string());
    for _ in 0..3 {
        // Connections of every kind are open when it dies.
        let mut client = WebSocket::connect(listen.parse().unwrap(), "/ws?categories=t");
        assert_eq!(client.next_json(PATIENCE)["type"], "subscription-ack");
        let mut publishers = [&publish, &unix].map(|address| Publisher::open(address).unwrap());
        for (n, publisher) in publishers.iter_mut().enumerate() {
            publisher.publish(&Event::new(&["t"], "e", &n.to_string())).unwrap();
            publisher.settle().unwrap();
            assert_eq!(client.next_json(PATIENCE)["data"], n);
        }
        node.signal(Signal::KILL);
        node.wait_exit(PATIENCE);
        assert_eq!(client.wait_closed(PATIENCE), None);
        assert!(path.exists(), "a killed node leaves its socket behind");
        node = Node::start(&["--listen", &listen, "--publish", &publish, "--publish", &unix]);
    }
}

// Reload ---------------------------------------------------------------------------------------------------------

#[test]
fn a_reload_takes_limits_and_log_level_and_refuses_a_bad_file_whole() {
    let dir = TempDir::new();
    let path = dir.path().join("fanwire.toml");
    let write = |text: &str| fs::write(&path, text).unwrap();
    write("max_clients = 1\nmax_subscriptions = 1\n");
    let node = Node::start_in(dir, &["--config", "fanwire.toml", "--shards", "2", "--queue-events", "77"]);
    let mut client = node.websocket();
    let too_many = |client: &mut WebSocket| {
        client.send_json(&json!({"type":"subscribe","topics":["a","b"]}));
        client.next_json(PATIENCE)["type"] == "error"
    };
    assert!(too_many(&mut client));
    assert_eq!(node.stats()["maxClients"], 1);
    assert!(!node.stderr().contains("DEBUG"), "{}", node.stderr());

    write("max_clients = 3\nmax_subscriptions = 2\nlog_level = \"debug\"\nshards = 7\n");
    node.signal(Signal::HUP);
    node.wait_stats("the new limit", |stats| stats["maxClients"] == 3);
    // Every shard takes the limits in its own time.
    wait_until(PATIENCE, || (!too_many(&mut client)).then_some(())).expect("the new limit on subscriptions");
    let mut others = [node.websocket(), node.websocket()];
    for other in &mut others {
        other.subscribe(&["a"]);
    }
    let mut fourth = node.websocket();
    assert_eq!(fourth.wait_closed(PATIENCE).unwrap().0, 1013);
    node.wait_log("the closed client, at debug level", |line| {
        line.contains("DEBUG") && line.contains("at_capacity")
    });
    let unchanged = |line: &str| line.contains("shards") && line.contains("next start");
    // A flag stands above the file, and what needs a restart is named: the flag has `shards`.
    assert!(!node.stderr().lines().any(unchanged), "{}", node.stderr());

    // A bad file changes nothing, not even what is good in it.
    for (bad, place) in [
        ("max_clients = 9\nmax_subscriptions = \"many\"\n", "fanwire.toml:2"),
        ("max_clients = 9\nmax_client = 9\n", "fanwire.toml:2"),
        ("max_clients = = 9\n", "fanwire.toml:1"),
        ("max_clients = 0\n", "fanwire.toml:1"),
    ] {
        write(bad);
        let before = node.stderr().lines().count();
        node.signal(Signal::HUP);
        let refused = || {
            let text = node.stderr();
            text.lines().skip(before).find(|line| line.contains("settings refused")).map(str::to_owned)
        };
        let line = wait_until(PATIENCE, refused).expect("the refusal is logged");
        assert!(line.contains("ERROR") && line.contains(place), "{line}");
        assert_eq!(node.stats()["maxClients"], 3);
    }
    fs::remove_file(&path).unwrap();
    node.signal(Signal::HUP);
    node.wait_log("the missing file", |line| line.contains("ERROR") && line.contains("No such file"));
    assert_eq!(node.stats()["maxClients"], 3);
    // Nobody has noticed any of it.
    node.publish(&["a"], "e", &json!(1));
    for client in others.iter_mut().chain([&mut client]) {
        assert_eq!(client.next_json(PATIENCE)["data"], 1);
    }
    node.signal(Signal::TERM);
    assert!(node.wait_exit(PATIENCE).success());
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let dir = TempDir::new();
    let path = dir.path().join("fanwire.toml");
    let stream = "[[stream]]\npath = '/s'\ntopic = 't'\nenvelope = '{data}'\n";
    fs::write(&path, stream).unwrap();
    let node = Node::start_in(dir, &["--config", "fanwire.toml"]);
    // The limits of a stream are among what it can.
    fs::write(&path, format!("max_clients = 4\n{stream}queue_events = 5\n")).unwrap();
    node.signal(Signal::HUP);
    node.wait_stats("the new limit", |stats| stats["maxClients"] == 4);
    node.wait_log("the reload", |line| line.contains("settings reloaded"));
    assert!(!node.stderr().contains("next start"), "{}", node.stderr());
    let changed = "shards = 7\nlog_format = \"json\"\npublish_token = \"hunter2\"\nmax_clients = 5\n\
                   catalog = 'runs'\n[[guard]]\nset = 'us-health'\n[[topic]]\nprefix = ''\n";
    fs::write(&path, changed).unwrap();
    node.signal(Signal::HUP);
    node.wait_stats("the new limit", |stats| stats["maxClients"] == 5);
    for key in ["shards", "log_format", "publish_token", "catalog", "stream", "guard", "topic"] {
        node.wait_log(key, |line| line.contains("next start") && line.contains(key));
    }
    assert!(!node.stderr().contains("hunter2"), "secrets are not logged");
}

// Files ----------------------------------------------------------------------------------------------------------

#[test]
fn the_unix_socket_is_for_owner_and_group_and_goes_with_the_node() {
    let node = Node::start_with_unix(&[]);
    let path = node.unix_path().to_owned();
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    node.signal(Signal::TERM);
    assert!(node.wait_exit(PATIENCE).success());
    assert!(!path.exists());
}

#[test]
fn only_a_socket_that_nobody_answers_is_replaced() {
    let dir = TempDir::new();
    let refuse = |path: &std::path::Path| {
        let address = format!("unix:{}", path.display());
        let mut command = fanwire();
        command.args(["serve", "--listen", "127.0.0.1:0", "--publish", &address]);
        let (status, stdout, stderr) = run_any(&mut command, PATIENCE);
        assert_eq!(status.code(), Some(1), "{stdout}{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
        stderr
    };
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(refuse(&file).contains("not a socket"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    refuse(&link);
    assert_eq!(fs::read_link(&link).unwrap(), file);
    refuse(&dir.path().join("no/such/directory"));
    assert!(refuse(dir.path()).contains("not a socket"));

    // One that somebody listens on stays; one that was left behind is replaced.
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(refuse(&socket).contains("address in use"));
    drop(listener);
    assert!(socket.exists());
    let node = Node::start(&["--publish", &format!("unix:{}", socket.display())]);
    UnixStream::connect(&socket).unwrap();

    // What is another's by the time the node ends is not removed.
    fs::remove_file(&socket).unwrap();
    let _other = UnixListener::bind(&socket).unwrap();
    node.signal(Signal::TERM);
    assert!(node.wait_exit(PATIENCE).success());
    assert!(socket.exists());
}

#[test]
fn running_out_of_file_descriptors_pauses_accepting_and_nothing_else() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    publisher.publish(&Event::new(&["t"], "e", "0")).unwrap();
    publisher.settle().unwrap();
    assert_eq!(client.next_json(PATIENCE)["data"], 0);
    // Only the highest number of a descriptor is bound, so places below it may stay free: not many.
    let limit = open_files(&node) as u64 + 5;
    let pid = rustix::process::Pid::from_raw(node.pid() as i32).unwrap();
    let bound = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
    rustix::process::prlimit(Some(pid), Resource::Nofile, bound).unwrap();
    let crowd: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(node.http_addr()).unwrap()).collect();
    node.wait_log("the pause", |line| line.contains("WARN") && line.contains("accepting paused"));

    // Two seconds of starvation: events flow all the time, and the loop does not spin.
    let (cpu_before, began) = (cpu_time(&node), Instant::now());
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(2) {
        n += 1;
        publisher.publish(&Event::new(&["t"], "e", &n.to_string())).unwrap();
        publisher.flush().unwrap();
        assert_eq!(client.next_json(PATIENCE)["data"], n);
        // The pace of the publisher, not a wait for anything.
        thread::sleep(Duration::from_millis(20));
    }
    let (used, took) = (cpu_time(&node) - cpu_before, began.elapsed());
    assert!(used < took / 5, "{used:?} of processor time in {took:?}, for {n} events");
    let complaints = node.stderr().matches("accepting paused").count();
    assert!((1..=6).contains(&complaints), "{complaints} complaints:\n{}", node.stderr());

    let freed = Instant::now();
    drop(crowd);
    assert_eq!(status_of(node.http_addr(), "/healthz"), 200);
    assert!(freed.elapsed() < Duration::from_secs(3), "it took {:?} to recover", freed.elapsed());
    let (_, _, metrics) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    let pauses = metrics.lines().find_map(|line| line.strip_prefix("fanwire_accept_pauses_total ")).unwrap();
    assert!(pauses.parse::<u64>().unwrap() > 0);
    node.wait_stats("the crowd gone", |stats| stats["httpConnections"].as_u64() <= Some(1));
}

#[test]
fn the_soft_file_limit_is_raised_to_the_hard_one() {
    let mut command = std::process::Command::new(common::tool("prlimit"));
    command.args(["--nofile=64:4096", env!("CARGO_BIN_EXE_fanwire"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--publish", "127.0.0.1:0"]);
    let mut node = common::Dialogue::start(&mut command);
    node.wait_line("the last line of its greeting", |line| line.contains("next:"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("4096"), "{line}");
}

// Logs -----------------------------------------------------------------------------------------------------------

/// A name that would look like a second log line, in red.
const FORGED: &str = "evil\n2026-01-01T00:00:00Z ERROR forged line\r\u{1b}[31mred\u{202e}\u{85}\u{2028}";

/// Makes a client of that name slow, and waits for the log line.
fn log_a_forger(format: &str) -> Node {
    let node = Node::start(&["--send-buffer", "8KiB", "--log-format", format, "--log-level", "debug"]);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
    slow.send_json(&json!({"type":"subscribe","topics":["t\u{202e}"],"clientId":FORGED}));
    slow.next_json(PATIENCE);
    let data = json!("x".repeat(20_000));
    wait_until(PATIENCE, || {
        node.publish(&["t\u{202e}"], "e", &data);
        node.stderr().contains("client closed as slow").then_some(())
    })
    .expect("the client is closed as slow");
    // Another one of that name, closed for another reason.
    let mut other = node.websocket();
    other.send_json(&json!({"type":"subscribe","topics":["t"],"clientId":FORGED}));
    other.next_json(PATIENCE);
    drop(other);
    node.wait_log("the lost client", |line| line.contains("connection_lost"));
    node
}

#[test]
fn names_cannot_forge_log_lines() {
    let node = log_a_forger("text");
    let text = node.stderr();
    assert!(text.contains("forged line"), "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with("20") && !line.contains("ERROR forged line") || line.contains("client="),
            "{line:?}"
        );
        assert!(!line.chars().any(|c| c.is_control() || "\u{202e}\u{2028}".contains(c)), "{line:?}");
    }
    assert_eq!(
        text.matches("forged line").count(),
        text.lines().filter(|line| line.contains("evil")).count()
    );
}

#[test]
fn json_logs_are_one_object_a_line() {
    let node = log_a_forger("json");
    let mut slow = None;
    for line in node.stderr().lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{entry}");
        if entry["message"] == "client closed as slow" {
            slow = Some(entry);
        }
    }
    let slow = slow.expect("the line of the slow client");
    assert_eq!((&slow["level"], &slow["reason"]), (&json!("WARN"), &json!("slow_consumer")));
    for figure in ["queued_events", "queued_bytes", "oldest_ms"] {
        assert!(slow[figure].is_u64(), "{slow}");
    }
    assert!(slow["address"].as_str().unwrap().parse::<SocketAddr>().is_ok());
}

// Those who vanish -----------------------------------------------------------------------------------------------

/// Closes with a reset instead of a goodbye.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn of_a_publisher_that_vanishes_inside_a_frame_nothing_of_that_frame_is_published() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let frame = |n: usize| {
        let mut body = Vec::new();
        let data = format!(r#"{{"n":{n}}}"#);
        let publish = Publish { topics: "t", event: "e", key: "", data: &data, timestamp_ms: 0 };
        publish.encode(wire::FLAG_ACK, n as u64, &mut body).unwrap();
        body
    };
    let length = frame(0).len();
    // A whole frame, then part of another.
    for cut in (0..length).step_by(3).chain([1, 15, 16, 17, length - 1]) {
        for resets in [false, true] {
            let mut stream = TcpStream::connect(node.publish_addr()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&frame(cut)).unwrap();
            // Its ACK: from here on a reset cannot take the whole frame with it.
            let mut ack = [0; wire::HEADER_LEN + 8];
            stream.read_exact(&mut ack).unwrap();
            let header = Header::parse(ack.first_chunk().unwrap());
            assert_eq!((header.kind, header.sequence), (Kind::Ack as u8, cut as u64));
            stream.write_all(&frame(999_999)[..cut]).unwrap();
            if resets {
                reset(stream);
            } else {
                drop(stream);
            }
            assert_eq!(client.next_json(PATIENCE)["data"]["n"], cut);
        }
    }
    let stats = node.wait_stats("no publisher", |stats| stats["publishers"] == 0);
    assert_eq!(stats["eventsIn"], stats["deliveries"]);
    node.publish(&["t"], "last", &json!(null));
    assert_eq!(client.next_json(PATIENCE)["event"], "last");
}

#[test]
fn publishers_are_bounded_in_number_and_in_time() {
    let node = Node::start(&["--max-publishers", "2", "--publish-timeout", "500ms"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let address = node.publish_addr().to_string();
    let mut first = Publisher::open(&address).unwrap();
    first.publish(&Event::new(&["t"], "e", "1")).unwrap();
    first.settle().unwrap();
    // This one begins a frame and does not go on.
    let mut dawdler = TcpStream::connect(node.publish_addr()).unwrap();
    dawdler.set_read_timeout(Some(PATIENCE)).unwrap();
    dawdler.write_all(&[40, 0, 0, 0, 1, 2]).unwrap();
    node.wait_stats("two publishers", |stats| stats["publishers"] == 2);
    let mut third = Publisher::open(&address).unwrap();
    let told = third.answer();
    assert!(
        matches!(&told, Ok(Answer::Error { code: 9, message, .. }) if message.contains("max_publishers")),
        "{told:?}"
    );

    let mut answer = Vec::new();
    dawdler.read_to_end(&mut answer).unwrap();
    let header = Header::parse(answer.first_chunk().unwrap());
    assert_eq!((header.kind, &answer[16..18]), (Kind::Error as u8, &[1, 0][..]));
    assert!(String::from_utf8_lossy(&answer).contains("publish_timeout"));
    drop(dawdler);
    // Now there is a place; and silence between frames is no fault.
    node.wait_stats("one publisher", |stats| stats["publishers"] == 1);
    let mut next = Publisher::open(&address).unwrap();
    for (publisher, n) in [(&mut next, "2"), (&mut first, "3")] {
        publisher.publish(&Event::new(&["t"], "e", n)).unwrap();
        publisher.settle().unwrap();
    }
    for n in 1..=3 {
        assert_eq!(client.next_json(PATIENCE)["data"], n);
    }
}

#[test]
fn a_storm_of_resets_leaves_nothing_behind() {
    let mut random = fastrand::Rng::with_seed(seed());
    let node = Node::start_with_unix(&["--shards", "2"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["storm"]);
    let before =
        node.wait_stats("one client", |stats| stats["connections"] == 1 && stats["subscriptions"] == 1);
    let files = open_files(&node);
    let session: &[u8] =
        b"GET /ws?categories=storm,own HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
        \x81\xA7\0\0\0\0{\"type\":\"subscribe\",\"topics\":[\"another\"]}\x89\x81\0\0\0\0x";
    let publish = {
        let publish = Publish { topics: "storm", event: "e", key: "", data: "1", timestamp_ms: 0 };
        let mut bytes = Vec::new();
        (0..3).for_each(|n| publish.encode(wire::FLAG_ACK, n, &mut bytes).unwrap());
        bytes
    };
    for n in 0..600 {
        let (addr, bytes) = match random.u8(..4) {
            0 => (node.publish_addr(), publish.as_slice()),
            1 => (node.http_addr(), &b"GET /api/websocket/status HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
            _ => (node.http_addr(), session),
        };
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cut = random.usize(..=bytes.len());
        stream.write_all(&bytes[..cut]).unwrap();
        // Sometimes the node gets to answer first.
        if cut == bytes.len() && random.bool() {
            let _ = stream.read(&mut [0; 16]).unwrap();
        }
        match random.u8(..3) {
            0 => drop(stream),
            _ => reset(stream),
        }
        if n % 100 == 0 {
            node.publish(&["storm"], "mine", &json!(n));
            wait_until(PATIENCE, || (healthy.next_json(PATIENCE)["event"] == "mine").then_some(())).unwrap();
        }
    }
    let of_http = |stats: &Value| stats["httpConnections"].as_u64() <= Some(1);
    let after = node.wait_stats("nothing left", |stats| {
        stats["connections"] == 1 && stats["publishers"] == 0 && of_http(stats) && stats["pending"] == 0
    });
    for figure in ["rooms", "subscriptions"] {
        assert_eq!(after[figure], before[figure], "{figure}");
    }
    assert_eq!(after["outbox"]["blockedClients"], 0);
    assert_eq!(after["outbox"]["heldBytes"], before["outbox"]["heldBytes"]);
    wait_until(PATIENCE, || (open_files(&node) <= files).then_some(()))
        .unwrap_or_else(|| panic!("{} open files, {files} before", open_files(&node)));
    let closed: u64 =
        after["closed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert!(closed > 20, "{after:#}");
    // The healthy one is still there, and the drops account for what the others were owed.
    let dropped: u64 =
        after["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(after["dispatched"].as_u64().unwrap(), after["deliveries"].as_u64().unwrap() + dropped);
}

#[test]
fn a_node_that_was_stopped_does_not_blame_its_clients() {
    let node = Node::start(&["--heartbeat-interval", "1s", "--heartbeat-timeout", "2s"]);
    let mut clients: Vec<WebSocket> = (0..5).map(|_| node.websocket()).collect();
    clients.iter_mut().for_each(|client| drop(client.subscribe(&["t"])));
    node.signal(Signal::STOP);
    // The silence itself is what is tested: nothing can be waited for. The node takes a turn for late from five
    // seconds on.
    thread::sleep(Duration::from_millis(6_500));
    node.signal(Signal::CONT);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for client in &mut clients {
            let seen = client.next(Duration::from_millis(10));
            assert!(!matches!(seen, Incoming::Closed(_)), "{seen:?}");
        }
    }
    assert_eq!(node.stats()["connections"], 5);
}
