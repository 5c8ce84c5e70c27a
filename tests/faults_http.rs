//! Threats that come before a session, or without one: pages that may not ask, slow and many handshakes, resets.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::proc::open_files;
use common::raw::upgrade;
use common::sse::EventStream;
use common::{Dialogue, Node, PATIENCE, header, node_script, read_response, wait_until};
use serde_json::{Value, json};

const STREAM: &str =
    "[[stream]]\npath = \"/runs/{runId}/stream\"\ntopic = \"run:{runId}\"\nenvelope = '{data}'\n";
const EVENT: &[u8] = br#"{"topics":["t"],"event":"e","data":1}"#;

/// One request as it is written here, and the head of its answer: status and headers.
fn ask(addr: SocketAddr, request: &[u8]) -> (u16, Vec<(String, String)>) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    // A stream or WebSocket does not end: only its head is read.
    let (status, headers, _) = read_response(&mut stream, true).unwrap();
    (status, headers)
}

/// A request with `Host` and these `Origin` lines.
fn request(start: &str, host: &str, origins: &[&str], rest: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{start} HTTP/1.1\r\nHost: {host}\r\n");
    origins.iter().for_each(|origin| text += &format!("Origin: {origin}\r\n"));
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    [format!("{text}{rest}\r\n").as_bytes(), body].concat()
}

/// The endpoints: their start line, further headers, and whether they are for clients.
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ENDPOINTS: [(&str, &str, bool); 11] = [
    ("GET /ws?topics=t", UPGRADE, true),
    ("GET /runs/1/stream", UPGRADE, true),
    ("GET /runs/1/stream", "Accept: text/event-stream\r\n", true),
    ("GET /sse?topics=t", "", true),
    ("HEAD /sse?topics=t", "", true),
    ("OPTIONS /sse?topics=t", "Access-Control-Request-Method: GET\r\n", true),
    ("POST /api/publish", "Content-Type: text/plain\r\n", false),
    ("GET /metrics", "", false),
    ("GET /api/websocket/status", "", false),
    ("GET /api/topics/t/history", "", false),
    ("GET /api/slow", "", false),
];

/// Asks every endpoint as a page of this origin; answers whether clients' endpoints let it, and the others.
fn ask_all(addr: SocketAddr, host: &str, origins: &[&str], refused: u16) -> (bool, bool) {
    let mut may = [Vec::new(), Vec::new()];
    for (start, rest, is_for_clients) in ENDPOINTS {
        let body = if start.starts_with("POST") { EVENT } else { b"" };
        let (status, headers) = ask(addr, &request(start, host, origins, rest, body));
        let is_allowed = matches!(status, 101 | 200 | 204);
        assert!(is_allowed || status == refused, "{start} of {origins:?}: {status}");
        // What a page may read is what it may ask for, and only of that.
        let readers = header(&headers, "access-control-allow-origin");
        let is_stream = is_for_clients && !rest.contains("Upgrade");
        match readers {
            Some(readers) => {
                assert!(is_stream && is_allowed, "{start} of {origins:?}: {readers} may read {status}");
                assert!(readers == "*" || origins == [readers], "{readers} for {origins:?}");
                assert_eq!(header(&headers, "vary") == Some("Origin"), readers != "*");
            }
            None => assert!(!is_stream || !is_allowed || origins.is_empty(), "{start} of {origins:?}"),
        }
        may[usize::from(!is_for_clients)].push(is_allowed);
    }
    may.map(|all| {
        assert!(all.iter().all(|is_allowed| *is_allowed == all[0]), "{origins:?}: {all:?}");
        all[0]
    })
    .into()
}

#[test]
fn only_pages_of_listed_origins_may_ask_and_no_lookalike() {
    let text = format!(
        "allowed_origins = ['https://a.example', 'http://b.example:8080', 'https://xn--bcher-kva.example']\n{STREAM}"
    );
    let node = Node::start_with_file(&text, &[]);
    let (addr, own) = (node.http_addr(), format!("http://{}", node.http_addr()));
    let host = addr.to_string();
    for good in [
        "https://a.example",
        "https://A.EXAMPLE",
        "HTTPS://a.example",
        "https://a.example:443",
        "http://b.example:8080",
        "https://xn--bcher-kva.example",
        &own,
    ] {
        assert_eq!(ask_all(addr, &host, &[good], 403), (true, true), "{good}");
    }
    let refused = [
        "null",
        "",
        "*",
        "a.example",
        "//a.example",
        "http://a.example",
        "https://a.example:80",
        "https://a.example:8443",
        "https://a.example:0443",
        "https://a.example:",
        "https://a.example:443:443",
        "https://a.example/",
        "https://a.example/path",
        "https://a.example?",
        "https://a.example#",
        "https://a.example.",
        "https://a.example.evil",
        "https://a.example.evil.example",
        "https://evil-a.example",
        "https://evila.example",
        "https://www.a.example",
        "https://a-example",
        "https://a_example",
        "https://a.exampl",
        "https://evil.example/https://a.example",
        "https://evil.example?https://a.example",
        "https://a.example@evil.example",
        "https://evil.example@a.example",
        "https://evil.example#a.example",
        "https://a.example https://evil.example",
        "https://evil.example https://a.example",
        "https://a.example,https://evil.example",
        "https://a.example%2eevil.example",
        "https://a%2eexample",
        "https://\u{430}.example",
        "https://b\u{fc}cher.example",
        "http://b.example",
        "http://b.example:80",
        "http://b.example:80800",
        "https://b.example:8080",
        "wss://a.example",
        "ws://b.example:8080",
        "file://",
        "chrome-extension://a.example",
        "http://127.0.0.1",
        "http://localhost",
        "http://[::1]",
    ];
    assert!(refused.len() > 40);
    for bad in refused {
        assert_eq!(ask_all(addr, &host, &[bad], 403), (false, false), "{bad:?}");
    }
    // The name of whoever points it here is not the node's own (DNS rebinding); an address is nobody's.
    assert_eq!(ask_all(addr, "evil.example", &["http://evil.example"], 403), (false, false));
    // Two headers are none: somebody in front may have looked at the other.
    for two in [["https://a.example", "https://a.example"], ["https://a.example", "https://evil.example"]] {
        assert_eq!(ask_all(addr, &host, &two, 400), (false, false));
    }
    // No page at all.
    assert_eq!(ask_all(addr, &host, &[], 403), (true, true));
    let stats = node.wait_stats("everybody gone", |stats| stats["connections"] == 0);
    let each = ENDPOINTS.len() as u64;
    assert_eq!(stats["refused"]["origin"], (refused.len() as u64 + 1) * each);
    assert_eq!(stats["eventsIn"], 8, "the seven good ones, and the one that is no page");
}

#[test]
fn by_default_every_page_may_listen_and_only_the_nodes_own_may_do_more() {
    let node = Node::start_with_file(STREAM, &[]);
    let (addr, host) = (node.http_addr(), node.http_addr().to_string());
    for (origin, may_operate) in [
        (format!("http://{addr}"), true),
        ("https://evil.example".to_owned(), false),
        ("null".to_owned(), false),
        ("https://evil.example/https://a.example".to_owned(), false),
        (format!("http://{addr}.evil.example"), false),
    ] {
        assert_eq!(ask_all(addr, &host, &[&origin], 403), (true, may_operate), "{origin}");
    }
    assert_eq!(ask_all(addr, &host, &[], 403), (true, true));
}

#[test]
fn who_names_no_origin_is_refused_where_one_is_required() {
    let flags = ["--allowed-origins", "null", "--require-origin"];
    let node = Node::start_with_file(STREAM, &flags);
    let (addr, host) = (node.http_addr(), node.http_addr().to_string());
    assert_eq!(ask_all(addr, &host, &[], 403), (false, true), "publishers and operators are no browsers");
    assert_eq!(ask_all(addr, &host, &["null"], 403), (true, true));
    assert_eq!(ask_all(addr, &host, &["https://a.example"], 403), (false, false));
    let (status, _, body) = common::http(addr, "GET", "/sse?topics=t", &[], b"");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status, &body["error"]),
        (403, &json!("this node serves only who names an Origin (require_origin)"))
    );
    // Who only wants to know whether the node lives is nobody's page.
    let probe = request("GET /healthz", &host, &["https://a.example"], "", b"");
    assert_eq!(ask(addr, &probe).0, 200);
}

#[test]
fn hundreds_who_dawdle_over_their_head_are_closed_and_keep_nobody_out() {
    const DEADLINE: Duration = Duration::from_millis(1500);
    let flags = ["--handshake-timeout", "1500ms", "--max-handshakes", "200", "--shards", "1"];
    let node = Node::start(&flags);
    let addr = node.http_addr();
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    node.wait_stats("nobody else", |stats| stats["httpConnections"].as_u64() <= Some(1));
    let files = open_files(&node);
    let request = upgrade("/ws");
    let (began, mut n) = (Instant::now(), 0);
    let mut slow: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let opened = Instant::now();
    // A byte now and then, from all of them, and never the last.
    while opened.elapsed() < DEADLINE {
        let byte = &request.as_bytes()[n % (request.len() - 4)..][..1];
        slow.iter_mut().for_each(|stream| drop(stream.write_all(byte)));
        // Whoever is in earnest gets in all the while, and events flow.
        let mut client = node.websocket();
        client.subscribe(&["t"]);
        node.publish(&["t"], "e", &json!(n));
        assert_eq!(client.next_json(PATIENCE)["data"], n);
        assert_eq!(healthy.next_json(PATIENCE)["data"], n);
        n += 1;
    }
    assert!(n > 1, "{n} clients in {:?}", began.elapsed());
    // The deadline counts from the connection: a byte does not put it off.
    let count = slow.len();
    for mut stream in slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        // What was still written to a closed one may have reset it.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let stats = node.wait_stats("the healthy one alone", |stats| {
        stats["httpConnections"].as_u64() <= Some(1) && stats["connections"] == 1
    });
    assert_eq!(stats["refused"]["timeout"], count);
    wait_until(PATIENCE, || (open_files(&node) <= files).then_some(())).expect("files stay open");
}

#[test]
fn a_rush_of_connects_is_taken_in_and_harms_nobody() {
    const CROWD: usize = 500;
    let node = Node::start(&["--shards", "2", "--accepts-per-turn", "8"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    let before = node.wait_stats("one", |stats| stats["subscriptions"] == 1);
    let files = open_files(&node);
    // All at once: the kernel connects them, the node takes them in as it can.
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let mut stream = TcpStream::connect(node.http_addr()).unwrap();
            stream.write_all(upgrade("/ws?topics=t").as_bytes()).unwrap();
            stream
        })
        .collect();
    for n in 0..100 {
        node.publish(&["t"], "e", &json!(n));
        assert_eq!(healthy.next_json(PATIENCE)["data"], n);
    }
    node.wait_stats("all of them in", |stats| stats["connections"] == CROWD + 1);
    for mut stream in crowd {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (status, ..) = read_response(&mut stream, true).unwrap();
        assert_eq!(status, 101);
    }
    let after = node.wait_stats("one again", |stats| stats["connections"] == 1 && stats["pending"] == 0);
    for figure in ["rooms", "subscriptions"] {
        assert_eq!(after[figure], before[figure], "{figure}");
    }
    wait_until(PATIENCE, || (open_files(&node) <= files).then_some(())).expect("files stay open");
}

#[test]
fn event_streams_that_nobody_reads_keep_to_the_budget() {
    const STREAMS: usize = 150;
    const BUDGET: u64 = 1 << 20;
    let flags = ["--max-outbox-bytes", "1MiB", "--queue-bytes", "256KiB", "--queue-events", "1000000"];
    let node = Node::start(&[&flags[..], &["--send-buffer", "8KiB", "--shards", "1"]].concat());
    let mut healthy = EventStream::open(node.http_addr(), "/sse?topics=t");
    // Some may be closed as slow, some lose the oldest: all of it within the budget.
    let idle: Vec<EventStream> = (0..STREAMS)
        .map(|n| {
            let policy = if n % 2 == 0 { "disconnect" } else { "drop-oldest" };
            EventStream::open_narrow(node.http_addr(), &format!("/sse?topics=t,own-{n}&policy={policy}"))
        })
        .collect();
    let data = json!("x".repeat(2_000));
    for n in 0..400 {
        let own = format!("own-{}", n % STREAMS);
        node.publish(&["t", &own], "e", &data);
        assert_eq!(healthy.next_event().1["data"], data);
        if n % 20 == 19 {
            let held = node.stats()["outbox"]["heldBytes"].as_u64().unwrap();
            // The bound is asked as events come: one round more for everybody may be there.
            assert!(held < BUDGET + BUDGET / 2, "{held} bytes held after {n}");
        }
    }
    let stats = node.stats();
    assert!(
        stats["outbox"]["blockedClients"].as_u64().unwrap() > 0 || stats["dropped"] != json!({}),
        "{stats:#}"
    );
    drop(idle);
    node.wait_stats("the healthy one", |stats| stats["connections"] == 1 && stats["pending"] == 0);
}

#[test]
fn a_browser_keeps_to_the_list() {
    let mut browser = Dialogue::start(&mut node_script("event_source.mjs"));
    let mut told = |line: Option<Value>| -> Value {
        if let Some(line) = line {
            browser.tell(&line.to_string());
        }
        serde_json::from_str(&browser.next_line().expect("the browser has ended")).unwrap()
    };
    let page = told(None)["page"].as_str().unwrap().to_owned();
    let listed = Node::start(&["--allowed-origins", &page]);
    let other = Node::start(&["--allowed-origins", "https://other.example"]);
    let url = |node: &Node, path: &str| format!("http://{}{path}", node.http_addr());
    let stream = "/sse?topics=t";
    // Its EventSource opens, hears, and it may read what is wrong, with headers that its browser asks for first.
    assert_eq!(told(Some(json!({"connect": url(&listed, stream), "types": ["e"]}))), json!({"open": 1}));
    listed.publish(&["t"], "e", &json!(1));
    assert_eq!(told(None)["event"], "e");
    let own_headers = json!({"Last-Event-ID": "7", "Authorization": "Bearer x"});
    for (path, status) in [(stream, 200), ("/sse", 400)] {
        let answer = told(Some(json!({"fetch": url(&listed, path), "headers": own_headers})));
        assert_eq!(answer["fetched"]["status"], status, "{answer}");
    }
    // One that is not listed gives up at once, and reads nothing of anything.
    browser_is_refused(&mut told, json!({"fetch": url(&other, stream), "headers": own_headers}));
    browser_is_refused(&mut told, json!({"fetch": url(&other, stream)}));
    browser_is_refused(&mut told, json!({"fetch": url(&other, "/sse")}));
    browser_is_refused(&mut told, json!({"fetch": url(&listed, "/metrics")}));
    assert_eq!(told(Some(json!({"connect": url(&other, stream), "types": ["e"]}))), json!({"error": 2}));
    assert_eq!(other.stats()["totalConnections"].as_u64().unwrap_or(0), 0);
}

fn browser_is_refused(told: &mut impl FnMut(Option<Value>) -> Value, ask: Value) {
    let answer = told(Some(ask.clone()));
    assert!(answer["fetched"]["error"].is_string(), "{ask}: {answer}");
}
