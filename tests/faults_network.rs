//! Networks that go wrong: far ends that vanish, stop and are cut off in the middle of whatever is said.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::proc::open_files;
use common::proxy::{BOTH, Proxy, Way};
use common::raw::upgrade;
use common::sse::EventStream;
use common::{Node, PATIENCE, WebSocket, seed, wait_until};
use fanwire::proto::websocket::masked;
use serde_json::{Value, json};
use socket2::SockRef;

/// The proxy of these tests is held to what it promises: a test behind one that forwards nothing shows nothing.
#[test]
fn the_proxy_does_what_it_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap());
    let connect = || {
        let client = TcpStream::connect(proxy.addr()).unwrap();
        let (server, _) = listener.accept().unwrap();
        [client, server].map(|stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
    };
    let read = |stream: &mut TcpStream, count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    // All of much, both ways at once.
    let [mut client, mut server] = connect();
    let much: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&much).unwrap());
        scope.spawn(|| assert!(read(&mut client.try_clone().unwrap(), much.len()).unwrap() == much));
        scope.spawn(|| (&server).write_all(&much).unwrap());
        assert!(read(&mut server.try_clone().unwrap(), much.len()).unwrap() == much);
    });
    assert_eq!(proxy.forwarded(Way::ToNode), much.len() as u64);
    // Exactly so much, then nothing, then the rest.
    proxy.hold_after(Way::ToNode, 3);
    client.write_all(b"abcdef").unwrap();
    assert_eq!(read(&mut server, 3).unwrap(), b"abc");
    server.write_all(b"back").unwrap();
    assert_eq!(read(&mut client, 4).unwrap(), b"back");
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(read(&mut server, 1).is_err(), "held bytes came through");
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    proxy.release(Way::ToNode);
    assert_eq!(read(&mut server, 3).unwrap(), b"def");
    // Later, and in pieces.
    proxy.delay(Way::FromNode, Duration::from_millis(200));
    proxy.cut_up(Way::FromNode, 1);
    let sent = std::time::Instant::now();
    server.write_all(b"late").unwrap();
    assert_eq!(read(&mut client, 4).unwrap(), b"late");
    assert!(sent.elapsed() >= Duration::from_millis(200));
    // An end goes through, and both ends are an end of the connection.
    assert_eq!(proxy.connections(), 1);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert!(wait_until(PATIENCE, || (proxy.connections() == 0).then_some(())).is_some());
    // Both are reset; both are closed.
    let [mut client, mut server] = connect();
    wait_until(PATIENCE, || (proxy.connections() == 1).then_some(())).unwrap();
    proxy.reset();
    for stream in [&mut client, &mut server] {
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let [mut client, mut server] = connect();
    wait_until(PATIENCE, || (proxy.connections() == 1).then_some(())).unwrap();
    proxy.close();
    assert!([&mut client, &mut server].iter_mut().all(|stream| stream.read(&mut [0]).unwrap() == 0));
    // What has vanished acknowledges nothing: the kernel gives up, which it would not do with a stopped reader.
    let [_client, mut server] = connect();
    wait_until(PATIENCE, || (proxy.connections() == 1).then_some(())).unwrap();
    proxy.vanish();
    SockRef::from(&server).set_tcp_user_timeout(Some(Duration::from_millis(500))).unwrap();
    server.write_all(b"hello?").unwrap();
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

const STREAM: &str = "[[stream]]\npath = \"/runs/{runId}/stream\"\ntopic = \"run:{runId}\"\nenvelope = '{data}'\n\
    heartbeat_interval = \"500ms\"\nheartbeat_timeout = \"3s\"\n";
const PATIENT: [&str; 8] = [
    "--heartbeat-interval",
    "500ms",
    "--heartbeat-timeout",
    "3s",
    "--event-stream-keep-alive",
    "200ms",
    "--close-timeout",
    "500ms",
];

/// A client of every dialect, subscribed to what [`publish`] publishes.
struct Cohort {
    json: WebSocket,
    path: WebSocket,
    sse: EventStream,
}

impl Cohort {
    fn connect(addr: SocketAddr) -> Self {
        let mut json = WebSocket::connect(addr, "/ws?topics=run:1");
        assert_eq!(json.next_json(PATIENCE)["type"], "subscription-ack");
        let path = WebSocket::connect(addr, "/runs/1/stream");
        let sse = EventStream::open(addr, "/sse?topics=run:1");
        Self { json, path, sse }
    }

    /// Reads on to this event, and no other event comes before it.
    fn expect(&mut self, n: usize) {
        let message = loop {
            let message = self.json.next_json(PATIENCE);
            if message["type"] != "ping" {
                break message;
            }
        };
        assert_eq!((&message["event"], &message["data"]["n"]), (&json!("e"), &json!(n)));
        assert_eq!(self.path.next_json(PATIENCE)["n"], n);
        assert_eq!(self.sse.next_event().1["data"]["n"], n);
    }
}

fn publish(node: &Node, n: usize) {
    node.publish(&["run:1"], "e", &json!({"n": n, "text": "a line of some length, as events are"}));
}

fn until(node: &Node, what: &str, is_so: impl Fn() -> bool) {
    let found = wait_until(PATIENCE, || is_so().then_some(()));
    assert!(found.is_some(), "it did not come to {what}: {:#}", node.stats());
}

#[test]
fn who_has_vanished_is_found_in_every_dialect() {
    let node = Node::start_with_file(STREAM, &[&PATIENT[..], &["--shards", "2"]].concat());
    let mut healthy = Cohort::connect(node.http_addr());
    let stats = node.wait_stats("the healthy ones", |stats| stats["subscriptions"] == 3);
    let (rooms, files) = (stats["rooms"].clone(), open_files(&node));
    let proxy = Proxy::to(node.http_addr());
    let _gone: Vec<Cohort> = (0..5).map(|_| Cohort::connect(proxy.addr())).collect();
    node.wait_stats("all of them", |stats| stats["connections"] == 18);
    proxy.vanish();
    // The kernel notices nothing where nothing is sent; heartbeats are, and so are events.
    let mut n = 0;
    let stats = wait_until(PATIENCE, || {
        publish(&node, n);
        healthy.expect(n);
        n += 1;
        let stats = node.stats();
        (stats["connections"] == 3).then_some(stats)
    });
    let stats = stats.unwrap_or_else(|| panic!("they stay: {:#}", node.stats()));
    assert_eq!(stats["closed"], json!({"heartbeat_timeout": 10, "connection_lost": 5}));
    assert_eq!((&stats["rooms"], &stats["subscriptions"]), (&rooms, &json!(3)));
    until(&node, "its files as before", || open_files(&node) <= files);
    node.wait_stats("nothing held", |stats| stats["pending"] == 0 && stats["outbox"]["blockedClients"] == 0);
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn who_stands_still_is_found_and_who_is_only_late_is_not() {
    let node = Node::start_with_file(STREAM, &PATIENT);
    let (still, late) = (Proxy::to(node.http_addr()), Proxy::to(node.http_addr()));
    let _stopped = Cohort::connect(still.addr());
    let mut slow = Cohort::connect(late.addr());
    node.wait_stats("both", |stats| stats["connections"] == 6);
    // As with SIGSTOP: the kernel at the far end takes what comes, and nobody answers it.
    BOTH.into_iter().for_each(|way| still.hold(way));
    late.delay(Way::ToNode, Duration::from_millis(150));
    late.delay(Way::FromNode, Duration::from_millis(150));
    let stats = wait_until(PATIENCE, || {
        // They answer pings whenever they read.
        slow.json.next(Duration::from_millis(5));
        slow.path.next(Duration::from_millis(5));
        let stats = node.stats();
        (stats["closed"]["heartbeat_timeout"] == 2).then_some(stats)
    });
    let stats = stats.unwrap_or_else(|| panic!("it stays: {:#}", node.stats()));
    // An event stream says nothing: as long as the kernel there takes its comments, it is one that is quiet.
    assert_eq!(stats["connections"], 4);
    assert_eq!(stats["closed"], json!({"heartbeat_timeout": 2}));
}

#[test]
fn a_bad_network_delays_and_loses_nothing() {
    let node = Node::start_with_file(STREAM, &["--shards", "2"]);
    let proxy = Proxy::to(node.http_addr());
    for way in BOTH {
        proxy.cut_up(way, 7);
        proxy.delay(way, Duration::from_millis(10));
    }
    let mut cohort = Cohort::connect(proxy.addr());
    for n in 0..300 {
        publish(&node, n);
        match n {
            100 => proxy.hold_after(Way::FromNode, 1_001),
            110 => proxy.release(Way::FromNode),
            200 => proxy.delay(Way::FromNode, Duration::ZERO),
            _ => {}
        }
    }
    (0..300).for_each(|n| cohort.expect(n));
    let stats = node.wait_stats("all delivered", |stats| stats["pending"] == 0);
    assert_eq!((&stats["connections"], &stats["dropped"]), (&json!(3), &json!({})));
}

#[test]
fn thousands_of_resets_anywhere_leave_nothing_behind() {
    let mut random = fastrand::Rng::with_seed(seed());
    let node = Node::start_with_file(STREAM, &["--shards", "2", "--queue-events", "10"]);
    let proxy = Proxy::to(node.http_addr());
    let mut healthy = node.websocket();
    healthy.subscribe(&["run:1"]);
    let is_one = |stats: &Value| stats["connections"] == 1 && stats["subscriptions"] == 1;
    let before = node.wait_stats("one subscription", is_one);
    let files = open_files(&node);
    let requests = [
        upgrade("/ws?topics=run:1,own"),
        upgrade("/runs/1/stream"),
        "GET /sse?topics=run:1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /runs/1/stream HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".to_owned(),
    ];
    let after_upgrade = [
        masked(0x81, br#"{"type":"subscribe","topics":["a","b"],"policy":"drop-oldest"}"#),
        masked(0x89, b"ping"),
        masked(0x01, b"a message that is begun"),
        masked(0x88, &[3, 0xE8]),
    ]
    .concat();
    let mut events = 0;
    for n in 0..3_000 {
        let request = random.choice(&requests).unwrap().as_bytes();
        let bytes = [request, &after_upgrade].concat();
        // Some go through the proxy, which then ends all that are there at once, whatever is on its way.
        let is_direct = random.u8(..8) > 0;
        let addr = if is_direct { node.http_addr() } else { proxy.addr() };
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let cut = random.usize(..=bytes.len());
        // The proxy may have reset it by now.
        let is_written = stream.write_all(&bytes[..cut]).is_ok();
        if is_direct && is_written && cut >= request.len() && random.bool() {
            let _ = stream.read(&mut [0; 16]);
        }
        match random.u8(..10) {
            0 => drop(stream),
            1 => stream.shutdown(Shutdown::Write).unwrap_or(()),
            _ => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        }
        if n % 50 == 0 {
            proxy.reset();
            publish(&node, events);
            events += 1;
        }
    }
    proxy.reset();
    (0..events).for_each(|n| assert_eq!(healthy.next_json(PATIENCE)["data"]["n"], n));
    let after = node.wait_stats("nothing left", |stats| {
        let of_http = stats["httpConnections"].as_u64() <= Some(1);
        stats["connections"] == 1 && of_http && stats["pending"] == 0 && stats["subscriptions"] == 1
    });
    assert_eq!(after["rooms"], before["rooms"]);
    assert_eq!(after["outbox"], before["outbox"]);
    until(&node, "its files as before", || open_files(&node) <= files);
    let sum = |counts: &Value| counts.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(sum(&after["closed"]) > 200, "{after:#}");
    let delivered = after["deliveries"].as_u64().unwrap() + sum(&after["dropped"]);
    assert_eq!(after["dispatched"], delivered, "{after:#}");
}
