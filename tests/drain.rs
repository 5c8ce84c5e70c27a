//! Restart without a herd: clients let go one after the other, taken back, followed by a command; and clients let in
//! no faster than the node is told.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::sse::{EventStream, Said};
use common::{
    DEEP, Dialogue, Incoming, Node, PATIENCE, Signal, TempDir, WebSocket, fanwire, header, http,
    publish_to_the_end, read_response, run_any, wait_until,
};
use fanwire::client::{Event, Publisher};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

/// What the node says of its shutdown; `None` where the connection was not served.
fn progress(node: &Node) -> Option<Value> {
    let mut stream = TcpStream::connect(node.http_addr()).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /api/drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let (status, _, body) = read_response(&mut stream, false).ok()?;
    assert_eq!(status, 200);
    Some(serde_json::from_slice(&body).unwrap())
}

fn ready(node: &Node) -> u16 {
    http(node.http_addr(), "GET", "/readyz", &[], b"").0
}

fn publish(addr: SocketAddr, topic: &str, data: u64) -> u16 {
    let event = json!({"topic": topic, "event": "e", "data": data}).to_string();
    http(addr, "POST", "/api/publish", &[], event.as_bytes()).0
}

fn metric(node: &Node, name: &str) -> f64 {
    let (_, _, body) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let text = String::from_utf8(body).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// The data of every event up to the close, and the close.
fn read_to_close(client: &mut WebSocket) -> (Vec<(String, u64)>, Option<(u16, String)>) {
    let mut events = Vec::new();
    loop {
        match client.next(PATIENCE) {
            Incoming::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(message["type"], "event", "{text}");
                let topic = message["category"].as_str().unwrap().to_owned();
                events.push((topic, message["data"].as_u64().unwrap()));
            }
            Incoming::Closed(closed) => return (events, closed),
            Incoming::Nothing => panic!("not closed after {} events", events.len()),
        }
    }
}

fn assert_is_to_come_back(closed: Option<(u16, String)>) {
    let (code, reason) = closed.expect("a close frame");
    assert_eq!(code, 1001);
    let retry = serde_json::from_str::<Value>(&reason).unwrap()["retryAfterMs"].as_u64().unwrap();
    assert!((1..=60_000).contains(&retry), "{reason}");
}

/// A client of `topic`: every event from now on arrives.
fn subscriber(node: &Node, topic: &str) -> WebSocket {
    let mut client = node.websocket();
    client.subscribe(&[topic]);
    client
}

const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Whether a WebSocket handshake is refused: then with 503 and a time to come back.
fn is_refused(node: &Node) -> bool {
    // The helper says `Connection: close` first: the list of both is an upgrade all the same.
    let (status, headers, body) = http(node.http_addr(), "GET", "/ws", &UPGRADE, b"");
    if status == 101 {
        return false;
    }
    assert_eq!(status, 503, "{}", String::from_utf8_lossy(&body));
    let seconds: u64 = header(&headers, "retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    true
}

/// A node in a shutdown that closes nobody for an hour, and the file that it was started with.
fn delayed(flags: &[&str]) -> Node {
    let node = Node::start_with_file("drain_delay = \"1h\"\n", flags);
    assert_eq!(ready(&node), 200);
    node
}

// Closes ---------------------------------------------------------------------------------------------------------

#[test]
fn clients_go_one_after_the_other_while_events_still_come() {
    // 100 a second: two seconds. Nobody answers the closes until all is over.
    const CLIENTS: usize = 200;
    let node = Node::start(&["--shards", "2", "--close-timeout", "200ms"]);
    let mut clients: Vec<WebSocket> = (0..CLIENTS).map(|_| subscriber(&node, "t")).collect();
    assert_eq!(progress(&node).unwrap()["state"], "ready");
    node.signal(Signal::TERM);
    wait_until(PATIENCE, || (ready(&node) == 503).then_some(())).expect("readiness goes first");
    let (mut samples, mut published, mut last) = (Vec::new(), 0, Value::Null);
    while let Some(now) = wait_until(PATIENCE, || match node.try_exit() {
        Some(_) => Some(None),
        None => progress(&node).map(Some),
    })
    .flatten()
    {
        assert_eq!((&now["state"], &now["clientsAtBeginning"]), (&json!("draining"), &json!(CLIENTS)));
        assert_eq!(now["canBeUndone"], now["stage"] == "spread");
        // An event for each number of clients that was seen.
        if now["stage"] == "spread" && now["clients"] != last {
            match publish(node.http_addr(), "t", published) {
                200 => published += 1,
                status => assert_eq!(status, 503),
            }
        }
        last.clone_from(&now["clients"]);
        samples.push(now["clients"].as_u64().unwrap());
    }
    assert!(node.wait_exit(PATIENCE).success());
    assert!(samples.is_sorted_by(|one, next| one >= next), "nobody comes: {samples:?}");
    let between: BTreeSet<u64> = samples.into_iter().filter(|n| (1..CLIENTS as u64).contains(n)).collect();
    assert!(between.len() >= 5, "{between:?}");
    let mut counts = BTreeSet::new();
    for client in &mut clients {
        let (events, closed) = read_to_close(client);
        let numbers: Vec<u64> = events.into_iter().map(|(_, number)| number).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "all up to its close");
        assert_is_to_come_back(closed);
        counts.insert(numbers.len());
    }
    // They went at different times, and the later ones got more; nobody got what was refused.
    assert!(counts.len() >= 5 && counts.last() <= Some(&(published as usize)), "{counts:?} of {published}");
    let log = node.stderr();
    let line = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    for parts in [
        &["shutting down: clients are let go", "clients=200"][..],
        &["shutting down stage=\"spread\" clients=", "of=200"],
        &["publishers are read no more", "clients=0 of=200"],
        &["stopped"],
    ] {
        assert!(line(parts), "no line with {parts:?} in {log}");
    }
}

#[test]
fn a_shutdown_in_a_burst_loses_no_accepted_event() {
    const TOPICS: [&str; 2] = ["one", "two"];
    let node = Node::start(&[&DEEP[..], &["--shards", "2"]].concat());
    let mut clients: Vec<WebSocket> = (0..60).map(|n| subscriber(&node, TOPICS[n % 2])).collect();
    let is_flowing = AtomicBool::new(false);
    let (before, accepted, received) = thread::scope(|scope| {
        let publishers = TOPICS.map(|topic| {
            let (node, is_flowing) = (&node, &is_flowing);
            scope.spawn(move || publish_to_the_end(&node.publish_addr().to_string(), topic, is_flowing))
        });
        let readers: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(|| read_to_close(client))).collect();
        wait_until(PATIENCE, || is_flowing.load(Ordering::Relaxed).then_some(())).expect("nothing flows");
        let before = node.stats()["eventsIn"].as_u64().unwrap();
        node.signal(Signal::TERM);
        let accepted = publishers.map(|publisher| publisher.join().unwrap());
        let received: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        (before, accepted, received)
    });
    let mut most = [0, 0];
    for (n, (events, closed)) in received.into_iter().enumerate() {
        assert_is_to_come_back(closed);
        for (place, (topic, number)) in events.iter().enumerate() {
            assert_eq!((topic.as_str(), *number), (TOPICS[n % 2], place as u64));
        }
        most[n % 2] = most[n % 2].max(events.len() as u64);
    }
    for (most, accepted) in most.iter().zip(accepted) {
        assert!(*most <= accepted, "{most} of {accepted} came");
    }
    assert!(most.iter().sum::<u64>() >= before, "{before} had been accepted when it began, {most:?} came");
    drop(clients);
    assert!(node.wait_exit(PATIENCE).success());
}

// Taken back -----------------------------------------------------------------------------------------------------

#[test]
fn readiness_goes_first_and_what_is_taken_back_is_as_if_it_had_not_been() {
    let node = delayed(&["--shards", "2"]);
    let mut old = subscriber(&node, "t");
    let to = format!("http://{}", node.http_addr());
    let undo = || run_any(fanwire().args(["drain", "--undo", "--to", &to]), PATIENCE);
    let (status, _, stderr) = undo();
    assert_eq!(status.code(), Some(3));
    assert!(stderr.contains("there is no shutdown to take back"), "{stderr}");
    node.signal(Signal::USR1);
    node.wait_log("the refusal", |line| line.contains("WARN") && line.contains("no shutdown to take back"));

    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut n = 0;
    for round in 1..=3 {
        node.signal(Signal::TERM);
        wait_until(PATIENCE, || (ready(&node) == 503).then_some(())).expect("/readyz says 503");
        assert_eq!(http(node.http_addr(), "GET", "/healthz", &[], b"").0, 200);
        assert_eq!(node.stats()["state"], "draining");
        assert!(is_refused(&node));
        let told = EventStream::open(node.http_addr(), "/sse?topics=t").rest();
        assert!(
            matches!(&told[0], Said::Event(name, data) if name == "error" && data.contains("shutting down"))
        );
        assert!(told.contains(&Said::Comment(" closed: shutting_down".to_owned())), "{told:?}");
        assert!(told.iter().any(|said| matches!(said, Said::Retry(_))), "{told:?}");
        for (name, value) in [("stage", 1.0), ("clients", 1.0)] {
            assert_eq!(metric(&node, &format!("fanwire_drain_{name}")), value, "{name}");
        }
        assert!(metric(&node, "fanwire_drain_remaining_seconds") > 3000.0);
        assert_eq!(metric(&node, "fanwire_ready"), 0.0);
        assert_eq!(metric(&node, "fanwire_drains_total"), f64::from(round));
        assert_eq!(
            metric(&node, "fanwire_refused_handshakes_total{reason=\"draining\"}"),
            f64::from(2 * round)
        );
        // Whoever publishes goes on, also if he comes now.
        publisher.publish(&Event::new(&["t"], "e", &n.to_string())).unwrap();
        publisher.settle().unwrap();
        assert_eq!(publish(node.http_addr(), "t", n + 1), 200);
        let mut late = Publisher::open(&node.publish_addr().to_string()).unwrap();
        late.publish(&Event::new(&["t"], "e", &(n + 2).to_string())).unwrap();
        late.settle().unwrap();
        for n in n..n + 3 {
            assert_eq!(old.next_json(PATIENCE)["data"], n);
        }
        n += 3;
        if round % 2 == 0 {
            node.signal(Signal::USR1);
        } else {
            let (status, stdout, stderr) = undo();
            assert!(status.success() && stdout == "taken back; clients connected: 1\n", "{stdout}{stderr}");
        }
        wait_until(PATIENCE, || (ready(&node) == 200).then_some(())).expect("/readyz says 200");
        node.wait_log("what was taken back", |line| {
            line.contains("taken back") && line.contains("clients=1 of=1")
        });
        assert_eq!(metric(&node, "fanwire_drain_stage"), 0.0);
        assert_eq!(metric(&node, "fanwire_drains_undone_total"), f64::from(round));
        let mut new = subscriber(&node, "t");
        assert_eq!(publish(node.http_addr(), "t", n), 200);
        for client in [&mut old, &mut new] {
            assert_eq!(client.next_json(PATIENCE)["data"], n);
        }
        n += 1;
        drop(new);
        node.wait_stats("one client", |stats| stats["connections"] == 1);
    }

    // Begun anew, without the delay, it goes to its end.
    fs::write(node.dir().join("fanwire.toml"), "").unwrap();
    node.signal(Signal::HUP);
    node.wait_log("the reload", |line| line.contains("settings reloaded"));
    node.signal(Signal::TERM);
    assert_is_to_come_back(old.wait_closed(PATIENCE));
    assert!(node.wait_exit(PATIENCE).success());
}

#[test]
fn once_publishers_are_read_no_more_it_is_too_late() {
    let node = Node::start(&["--send-buffer", "8KiB", "--drain-timeout", "60s"]);
    let mut stuck = WebSocket::connect_narrow(node.http_addr(), "/ws");
    stuck.send_json(&json!({"type":"subscribe","topics":["stuck"],"policy":"drop-oldest"}));
    stuck.next_json(PATIENCE);
    let data = json!("x".repeat(100_000));
    wait_until(PATIENCE, || {
        node.publish(&["stuck"], "e", &data);
        (node.stats()["outbox"]["blockedClients"] == 1).then_some(())
    })
    .expect("the client does not block");
    node.signal(Signal::TERM);
    let late = wait_until(PATIENCE, || progress(&node).filter(|now| now["stage"] == "deliver"));
    let late = late.expect("the stage that waits for the client");
    assert_eq!((&late["canBeUndone"], &late["clients"]), (&json!(false), &json!(1)));
    let (status, _, body) = http(node.http_addr(), "DELETE", "/api/drain", &[], b"");
    assert_eq!(status, 409);
    assert!(String::from_utf8_lossy(&body).contains("too late"));
    let to = node.http_addr().to_string();
    let (status, stdout, stderr) = run_any(fanwire().args(["drain", "--undo", "--to", &to]), PATIENCE);
    assert_eq!((status.code(), stdout.as_str()), (Some(3), ""));
    assert!(stderr.contains("too late to take the shutdown back"), "{stderr}");
    node.signal(Signal::USR1);
    node.wait_log("the refusal", |line| line.contains("WARN") && line.contains("too late"));
    assert_eq!(metric(&node, "fanwire_drain_stage"), 3.0);
    assert_eq!(publish(node.http_addr(), "stuck", 0), 503);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(130));
}

#[test]
fn a_supervisors_signal_does_not_cut_a_commands_shutdown_short() {
    let node = delayed(&[]);
    let to = node.http_addr().to_string();
    let _client = subscriber(&node, "t");
    let (status, stdout, stderr) = run_any(fanwire().args(["drain", "--no-wait", "--to", &to]), PATIENCE);
    assert!(status.success(), "{stdout}{stderr}");
    assert!(stdout.starts_with("shutting down: 1 of 1 clients left, "), "{stdout}");
    assert_eq!(http(node.http_addr(), "POST", "/api/drain", &[], b"").0, 200, "it is under way");
    node.signal(Signal::TERM);
    node.wait_log("the signal", |line| line.contains("shutting down already"));
    assert_eq!(ready(&node), 503);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(130));
}

// The command ----------------------------------------------------------------------------------------------------

#[test]
fn the_command_follows_to_the_end() {
    let node = Node::start(&["--operator-token", "open-sesame"]);
    let mut client = subscriber(&node, "t");
    let reader = thread::spawn(move || client.wait_closed(PATIENCE));
    let to = format!("http://{}", node.http_addr());
    let drain = |more: &[&str]| run_any(fanwire().args(["drain", "--to", &to]).args(more), PATIENCE);
    for (more, expected) in [
        (&[][..], "asks for a token: --token, or FANWIRE_OPERATOR_TOKEN"),
        (&["--token", "wrong"], "does not take this token"),
        (&["--token", "wrong", "--undo"], "does not take this token"),
    ] {
        let (status, stdout, stderr) = drain(more);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert_eq!(drain(&["--undo", "--no-wait"]).0.code(), Some(2));
    assert_eq!(ready(&node), 200);
    let (status, stdout, stderr) = drain(&["--token", "open-sesame"]);
    assert!(status.success(), "{stdout}{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        (lines[0], lines.last()),
        ("shutting down: 1 of 1 clients left, 1 s to go", Some(&"the node has ended"))
    );
    assert_is_to_come_back(reader.join().unwrap());
    assert!(node.wait_exit(PATIENCE).success());
    // There is nobody to ask any more.
    let (status, _, stderr) = drain(&["--token", "open-sesame"]);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("cannot be asked"), "{stderr}");
}

#[test]
fn the_command_tells_that_it_was_taken_back() {
    let node = delayed(&[]);
    let mut command = fanwire();
    let mut command = Dialogue::start(command.args(["drain", "--to", &node.http_addr().to_string()]));
    command.wait_line("the first line", |line| line.starts_with("shutting down: 0 of 0 clients left"));
    node.signal(Signal::USR1);
    assert_eq!(command.wait_exit().code(), Some(3));
    assert_eq!(ready(&node), 200);
}

#[test]
fn on_a_terminal_the_command_draws_a_bar() {
    let node = delayed(&[]);
    let _clients = [subscriber(&node, "t"), subscriber(&node, "t")];
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let terminal = fs::OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 10, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let mut command = fanwire();
    command.env("TERM", "xterm").args(["drain", "--to", &node.http_addr().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    drop(command); // And with it this side's handle of the terminal.
    let (sender, pieces) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let (mut reading, mut buffer) = (fs::File::from(master), [0; 4096]);
        while let Ok(count @ 1..) = reading.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut seen = String::new();
    while !seen.contains("0 of 2 clients let go, ") {
        let piece = pieces.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error} after {seen:?}"));
        seen += &String::from_utf8_lossy(&piece);
    }
    node.signal(Signal::USR1);
    let status = wait_until(PATIENCE, || child.try_wait().unwrap()).expect("it has not ended");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn only_operators_may_and_only_with_the_methods_that_change_something() {
    let node = Node::start(&["--admin", "127.0.0.1:0"]);
    let (public, admin) = (node.http_addrs()[0], node.http_addrs()[1]);
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(http(public, method, "/api/drain", &[], b"").0, 404, "{method}");
    }
    let evil = [("Origin", "http://evil.example")];
    for (method, headers, expected) in [
        ("GET", &[][..], 200),
        ("HEAD", &[], 200),
        ("PUT", &[], 405),
        ("POST", &evil, 403),
        ("DELETE", &evil, 403),
        ("DELETE", &[], 409),
    ] {
        assert_eq!(http(admin, method, "/api/drain", headers, b"").0, expected, "{method}");
    }
    assert_eq!(http(admin, "POST", "/api/drain", &[], b"x").0, 400, "it takes no body");
    assert_eq!(ready(&node), 200, "nothing of that changed anything");
    assert_eq!(http(admin, "POST", "/api/drain", &[], b"").0, 202);
    assert!(node.wait_exit(PATIENCE).success());
}

// Admission ------------------------------------------------------------------------------------------------------

#[test]
fn clients_are_let_in_no_faster_than_the_node_is_told() {
    let dir = TempDir::new();
    let path = dir.path().join("fanwire.toml");
    fs::write(&path, "handshakes_per_second = 1\nhandshake_burst = 3\n").unwrap();
    let node = Node::start_in(dir, &["--config", "fanwire.toml", "--shards", "2"]);
    // Those who are refused come much more often than once a second.
    let mut clients = Vec::new();
    wait_until(PATIENCE, || match WebSocket::try_connect(node.http_addr(), "/ws") {
        Ok(client) => {
            clients.push(client);
            None
        }
        Err(error) => {
            assert!(error.to_string().contains("503"), "{error}");
            Some(())
        }
    })
    .expect("too many come");
    assert!(clients.len() >= 3, "a burst goes in at once");
    wait_until(PATIENCE, || is_refused(&node).then_some(())).expect("again");
    let told = wait_until(PATIENCE, || {
        let mut stream = EventStream::open(node.http_addr(), "/sse?topics=t");
        // One that was let in says nothing until something happens.
        node.publish(&["t"], "e", &json!(1));
        match stream.next() {
            Said::Event(name, data) if name == "error" => Some((data, stream.rest())),
            _ => None,
        }
    });
    let (error, rest) = told.expect("an event stream that is turned away");
    assert!(error.contains("handshakes_per_second"), "{error}");
    let [Said::Comment(end), Said::Retry(retry)] = &rest[..] else { panic!("{rest:?}") };
    assert!(end == " closed: handshake_rate" && (500..5_000).contains(retry), "{rest:?}");
    let refused = "fanwire_refused_handshakes_total{reason=\"rate\"}";
    assert!(metric(&node, refused) >= 3.0);
    assert_eq!(metric(&node, "fanwire_closed_total{reason=\"at_capacity\"}"), 0.0);
    // Everything else is answered, and in time a client is let in.
    assert_eq!(ready(&node), 200);
    let mut late = wait_until(PATIENCE, || WebSocket::try_connect(node.http_addr(), "/ws").ok())
        .expect("it is let in a second later");
    late.subscribe(&["t"]);
    // Those who are there notice nothing.
    clients[0].subscribe(&["t"]);
    node.publish(&["t"], "e", &json!(2));
    for client in [&mut late, &mut clients[0]] {
        assert_eq!(client.next_json(PATIENCE)["data"], 2);
    }
    // Without a bound all come in.
    fs::write(&path, "").unwrap();
    node.signal(Signal::HUP);
    node.wait_log("the reload", |line| line.contains("settings reloaded"));
    let before = metric(&node, refused);
    let crowd: Vec<WebSocket> = (0..50).map(|_| node.websocket()).collect();
    assert_eq!((crowd.len(), metric(&node, refused)), (50, before));
}

#[test]
fn a_node_that_is_full_counts_whom_it_turns_away() {
    let node = Node::start(&["--max-clients", "1"]);
    let _first = subscriber(&node, "t");
    assert_eq!(node.websocket().wait_closed(PATIENCE).unwrap().0, 1013);
    assert_eq!(metric(&node, "fanwire_refused_handshakes_total{reason=\"capacity\"}"), 1.0);
}
