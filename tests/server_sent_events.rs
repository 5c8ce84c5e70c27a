//! Server-Sent Events over real sockets: bytes as curl gets them, `EventSource` in Chromium from a page of another
//! origin, and everything that a session has: limits, filters, policies, its end.

mod common;

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::sse::{EventStream, Said};
use common::{
    Dialogue, Node, PATIENCE, Signal, WebSocket, header, http, node_script, seed, tool, wait_until,
};
use fanwire::client::{Event, Publisher};
use serde_json::{Value, json};

/// Streams that are served by configuration: one as its write-up has it, and one whose template is on several lines.
const STREAMS: &str = r#"
[[stream]]
path = "/api/v2/workflows/runs/{runId}/stream"
topic = "run:{runId}"
envelope = '{"runId":"{runId}","type":{event},"payload":{data}}'

[[stream]]
path = "/lines/{any}"
topic = "{any}"
envelope = """
{
  "data": {data},\r
  "any": "{any}",\r\n\r\n
  "event": {event}
}"""
"#;

/// 2024-01-15T10:15:00.000Z
const GIVEN_MS: u64 = 1_705_313_700_000;

// Bytes ----------------------------------------------------------------------------------------------------------

#[test]
fn curl_gets_exactly_these_bytes() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Content-Type-Options: nosniff\r\n\
        Connection: close\r\nAccess-Control-Allow-Origin: *\r\nCache-Control: no-store, no-transform\r\n\
        X-Accel-Buffering: no\r\n\r\n: subscribed\n\n";
    let data = "{\"retryId\":\"retry-123\",\n \"attemptNumber\":1,\"text\":\"a\\nb\"}";
    let in_lines = data.replace('\n', "\ndata: ");
    let json = format!(
        r#"{{"type":"event","event":"step_log","category":"run:42","data":{in_lines},"timestamp":"2024-01-15T10:15:00.000Z"}}"#
    );
    let own = format!(r#"{{"runId":"42","type":"step_log","payload":{in_lines}}}"#);
    let stream = "/api/v2/workflows/runs/42/stream";
    for (target, accept, expected) in [
        ("/sse?topics=run:42", "*/*", &json),
        ("/sse?runId=42", "text/event-stream", &json),
        (stream, "text/event-stream", &own),
        (&format!("{stream}?transport=sse"), "*/*", &own),
    ] {
        let node = Node::start_with_file(STREAMS, &[]);
        let mut curl = Command::new(tool("curl"));
        curl.args(["-sNi", "--max-time", "60", "-H", &format!("Accept: {accept}")]);
        curl.arg(format!("http://{}{target}", node.http_addr()));
        let curl = curl.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        node.wait_stats("one client", |stats| stats["connections"] == 1);
        let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
        let event = Event { timestamp_ms: GIVEN_MS, ..Event::new(&["run:42"], "step_log", data) };
        publisher.publish(&event).unwrap();
        publisher.close().unwrap();
        node.signal(Signal::TERM);
        assert!(node.wait_exit(PATIENCE).success());
        let got = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
        let (got, retry) = got.split_once("retry: ").unwrap_or_else(|| panic!("{got}"));
        let expected = format!("{head}event: step_log\ndata: {expected}\n\n: closed: shutting_down\n");
        assert_eq!(got, expected, "{target}");
        let retry: u32 = retry.strip_suffix("\n\n").unwrap().parse().unwrap();
        assert!((500..5000).contains(&retry));
    }
}

#[test]
fn other_methods_and_refusals_may_be_read_by_every_site() {
    let node = Node::start_with_file(STREAMS, &["--max-subscriptions", "3"]);
    let stream = "/api/v2/workflows/runs/42/stream";
    let sse = ("Accept", "text/event-stream");
    for path in ["/sse?topics=a", stream] {
        let (status, headers, body) = http(node.http_addr(), "HEAD", path, &[sse], b"");
        assert_eq!((status, body), (200, vec![]), "{path}");
        let expected = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("access-control-allow-origin", "*"),
        ];
        for (name, value) in expected {
            assert_eq!(header(&headers, name), Some(value), "{path}");
        }
        // A browser asks before a page may send headers of its own.
        let asks = [
            ("Origin", "http://elsewhere.example"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization,last-event-id"),
        ];
        let (status, headers, body) = http(node.http_addr(), "OPTIONS", path, &asks, b"");
        assert_eq!((status, body), (204, vec![]), "{path}");
        assert_eq!(header(&headers, "access-control-allow-origin"), Some("*"));
        assert_eq!(header(&headers, "access-control-allow-methods"), Some("GET"));
        let allowed = header(&headers, "access-control-allow-headers").unwrap().to_ascii_lowercase();
        for name in ["authorization", "last-event-id", "cache-control"] {
            assert!(allowed.split(", ").any(|each| each == name), "{allowed}");
        }
        assert_eq!(header(&headers, "content-length"), None, "RFC 9110 section 8.6");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let (status, headers, _) = http(node.http_addr(), method, path, &[sse], b"");
            assert_eq!((status, header(&headers, "allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
        }
    }
    for path in [
        "/sse",
        "/sse?",
        "/sse?topics=",
        "/sse?topics=a,,b",
        "/sse?topics=a*",
        "/sse?topics=a%00",
        "/sse?topics=%zz",
        "/sse?runId=",
        "/sse?events=e",
        "/sse?topics=a&events=",
        "/sse?topics=a&onlyCategories=",
        "/sse?topics=a&policy=never",
        "/sse?topics=a&clientId=",
        "/sse?topics=a,b,c,d",
        "/api/v2/workflows/runs//stream",
        "/api/v2/workflows/runs/%2A/stream",
        "/api/v2/workflows/runs/%zz/stream",
        "/api/v2/workflows/runs/42/stream?batch=ndjson",
        "/api/v2/workflows/runs/42/stream?batch=x",
        "/api/v2/workflows/runs/42/stream?transport=polling",
        "/api/v2/workflows/runs/42/stream?policy=never",
        "/api/v2/workflows/runs/42/stream?a=%zz",
    ] {
        let (status, headers, body) = http(node.http_addr(), "GET", path, &[sse], b"");
        assert_eq!(status, 400, "{path}");
        assert_eq!(header(&headers, "access-control-allow-origin"), Some("*"), "{path}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"].is_string(), "{path}: {body}");
    }
    let stats = node.wait_stats("no client", |stats| stats["connections"] == 0);
    assert_eq!((&stats["rooms"], &stats["closed"]), (&json!(0), &json!({})));
}

#[test]
fn comments_keep_a_stream_open() {
    let node = Node::start_with_file(STREAMS, &["--event-stream-keep-alive", "50ms"]);
    for path in ["/sse?topics=run:1", "/api/v2/workflows/runs/1/stream"] {
        let mut client = EventStream::open(node.http_addr(), path);
        for _ in 0..5 {
            assert_eq!(client.next(), Said::Comment(" keep-alive".to_owned()));
        }
        node.publish(&["run:1"], "e", &json!(1));
        assert_eq!(client.next_event().0, "e");
        assert_eq!(client.next(), Said::Comment(" keep-alive".to_owned()));
    }
    // By default it is 15 s: nothing comes before an event.
    let node = Node::start(&[]);
    let mut client = EventStream::open(node.http_addr(), "/sse?topics=a");
    node.publish(&["a"], "e", &json!(1));
    assert!(matches!(client.next(), Said::Event(..)));
}

// EventSource ----------------------------------------------------------------------------------------------------

/// `tests/e2e/event_source.mjs`.
struct Browser(Dialogue);

impl Browser {
    fn open() -> Self {
        let mut browser = Self(Dialogue::start(&mut node_script("event_source.mjs")));
        assert!(browser.next()["page"].is_string());
        browser
    }

    fn tell(&mut self, line: &Value) {
        self.0.tell(&line.to_string());
    }

    fn next(&mut self) -> Value {
        let line = self.0.next_line().expect("the browser has ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Connects, and waits until it is open.
    fn connect(&mut self, url: &str, types: &[&str]) {
        self.tell(&json!({"connect": url, "types": types}));
        assert_eq!(self.next(), json!({"open": 1}));
    }

    /// The next thing that it saw, which must be an event: its type and its data.
    fn next_event(&mut self) -> (String, Value) {
        let seen = self.next();
        let data = seen["data"].as_str().unwrap_or_else(|| panic!("no event, but {seen}"));
        let data = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data:?}"));
        (seen["event"].as_str().unwrap().to_owned(), data)
    }
}

#[test]
fn a_page_of_another_origin_gets_named_events() {
    let node = Node::start_with_file(STREAMS, &[]);
    let site = format!("http://{}", node.http_addr());
    let types = ["step_start", "step_complete", "step_log", "variable_change"];
    let mut browser = Browser::open();
    browser.connect(&format!("{site}/api/v2/workflows/runs/42/stream"), &types);
    for event in types {
        let payload =
            json!({"stepId": "step1", "level": "info", "oldValue": null, "duration": 1250, "é": "\n\"\\"});
        node.publish(&["run:43"], event, &payload);
        node.publish(&["run:42"], event, &payload);
        let (name, data) = browser.next_event();
        assert_eq!(name, event);
        assert_eq!((&data["runId"], &data["type"]), (&json!("42"), &json!(event)));
        for (field, value) in payload.as_object().unwrap() {
            assert_eq!(&data["payload"][field], value);
        }
        assert_eq!(data["payload"], payload);
    }
    // Who has listeners for other names gets nothing, and who has none gets messages.
    node.publish(&["run:42"], "unheard", &json!(1));
    node.publish(&["run:42"], "message", &json!(2));
    assert_eq!(
        browser.next_event(),
        ("message".to_owned(), json!({"runId":"42","type":"message","payload":2}))
    );
    browser.tell(&json!({"close": true}));
    node.wait_stats("no client", |stats| stats["connections"] == 0);

    // A page may send headers of its own (the browser asks for that first), and read why it was refused.
    for (path, headers, status) in [
        ("/sse?topics=a", json!({}), 200),
        ("/sse?topics=a", json!({"Authorization": "Bearer x", "Cache-Control": "no-cache"}), 200),
        ("/sse?topics=a", json!({"Last-Event-ID": "7"}), 200),
        ("/sse", json!({}), 400),
        ("/api/v2/workflows/runs/%2A/stream", json!({"Accept": "text/event-stream"}), 400),
        ("/api/v2/workflows/runs/1/stream?transport=x", json!({"Authorization": "x"}), 400),
    ] {
        browser.tell(&json!({"fetch": format!("{site}{path}"), "headers": headers}));
        let fetched = browser.next();
        assert_eq!(fetched["fetched"]["status"], status, "{path}: {fetched}");
    }
}

#[test]
fn an_event_source_comes_back_to_a_node_that_was_killed() {
    let node = Node::start_with_file(STREAMS, &[]);
    let address = node.http_addr().to_string();
    let mut browser = Browser::open();
    browser.connect(&format!("http://{address}/api/v2/workflows/runs/1/stream"), &["e"]);
    node.publish(&["run:1"], "e", &json!(1));
    assert_eq!(browser.next_event().1["payload"], 1);
    drop(node); // SIGKILL
    assert_eq!(browser.next(), json!({"error": 0}));
    let mut node = Node::start_with_file(STREAMS, &["--listen", &address]);
    for round in 2..4 {
        // While nobody is there it tries again and again.
        while browser.next() != json!({"open": 1}) {}
        node.publish(&["run:1"], "e", &json!(round));
        assert_eq!(browser.next_event().1["payload"], round);
        // Then one that goes in good order, and says when to come back.
        node.signal(Signal::TERM);
        assert_eq!(browser.next(), json!({"error": 0}));
        assert!(node.wait_exit(PATIENCE).success());
        node = Node::start_with_file(STREAMS, &["--listen", &address]);
    }
}

#[test]
fn an_event_source_comes_back_after_it_was_too_slow() {
    let node = Node::start(&["--send-buffer", "8KiB"]);
    let mut browser = Browser::open();
    browser.connect(&format!("http://{}/sse?topics=t", node.http_addr()), &["e"]);
    browser.tell(&json!({"block": true}));
    assert_eq!(browser.next(), json!({"blocked": true}));
    // Its page stands still: what it does not take waits here, until it is too much.
    let data = json!("x".repeat(10_000)).to_string();
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut published = 0;
    let closed = wait_until(PATIENCE, || {
        for _ in 0..20 {
            publisher.publish(&Event::new(&["t"], "e", &data)).unwrap();
        }
        publisher.settle().unwrap();
        published += 20;
        (node.stats()["closed"]["slow_consumer"] == 1).then_some(())
    });
    assert!(closed.is_some(), "it took all {published}: {:#}", node.stats());
    browser.tell(&json!({"release": true}));
    let mut got = 0;
    let ended = loop {
        let seen = browser.next();
        if seen["event"] != "e" {
            break seen;
        }
        assert_eq!(seen["data"].as_str().unwrap().matches('x').count(), 10_000, "every event is whole");
        got += 1;
    };
    assert!(got > 0 && got + 100 <= published, "{got} of {published}");
    assert_eq!(ended, json!({"error": 0}));
    assert_eq!(browser.next(), json!({"open": 1}), "it was told to come back");
    node.publish(&["t"], "e", &json!(1));
    assert_eq!(browser.next_event().1["data"], 1);
}

#[test]
fn an_event_source_comes_back_until_there_is_a_place() {
    let node = Node::start(&["--max-clients", "1"]);
    let mut first = node.websocket();
    first.subscribe(&["other"]);
    let mut browser = Browser::open();
    browser.tell(&json!({"connect": format!("http://{}/sse?topics=t", node.http_addr()), "types": ["e"]}));
    for _ in 0..2 {
        assert_eq!(browser.next(), json!({"open": 1}));
        let (name, data) = browser.next_event();
        assert_eq!(name, "error");
        assert_eq!(data["data"], json!({"error": "Server capacity exceeded"}));
        assert_eq!(browser.next(), json!({"error": 0}), "it tries again");
    }
    drop(first);
    let is_there = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_there.load(Ordering::Relaxed) {
                node.publish(&["t"], "e", &json!(1));
            }
        });
        let mut seen = Value::Null;
        // It may have been refused once more while the first one went.
        for _ in 0..10 {
            seen = browser.next();
            if seen["event"] == "e" {
                break;
            }
        }
        is_there.store(true, Ordering::Relaxed);
        assert_eq!(seen["event"], "e");
    });
}

// Nothing is forged ----------------------------------------------------------------------------------------------

/// Text that would mean something to who reads a stream, if it were let through.
const TEXTS: [&str; 22] = [
    "",
    " ",
    "plain",
    "  two leading spaces",
    ":",
    ": comment",
    "data: forged",
    "data:forged",
    "event: forged",
    "id: 7",
    "retry: 1",
    "\n\nevent: forged\ndata: forged\n\n",
    "\r\revent: forged\rdata: forged\r\r",
    "\r\n\r\nevent: forged\r\ndata: forged\r\n\r\n",
    "\u{2028}data: forged\u{2029}\u{2029}",
    "\u{85}data: forged\u{85}\u{85}",
    "\u{0b}data: forged\u{0c}\u{1e}",
    "\u{0}",
    "\u{feff}data: forged",
    "\\n\\ndata: forged\\n\\n",
    "é 日本 😀",
    "\"}\n\ndata: {\"forged\":true}",
];

/// Names of events: as `TEXTS`, without control characters, and those that an `EventSource` has itself.
const NAMES: [&str; 18] = [
    "plain",
    "message",
    "error",
    "open",
    "gap",
    "a:b",
    ":",
    ": comment",
    " one leading space",
    "   three leading spaces",
    "trailing space ",
    "data: forged",
    "event: forged",
    "retry: 1",
    "id",
    "\u{2028}data: forged\u{2029}",
    "\u{feff}bom",
    "é 日本 😀 \"quoted\\\"",
];

const TOPICS: [&str; 6] =
    ["t", " data: forged", ": x", "event: a\\n\"b", "\u{2028}retry: 1\u{feff}", "{any} {data} é"];

/// A JSON text of a random shape around such texts, with white space of every kind between its tokens.
fn hostile_data(random: &mut fastrand::Rng) -> String {
    const BETWEEN: [&str; 8] = ["", "", " ", "\n", "\r", "\r\n", "\n\n\n", "\t\r \n"];
    let mut out = String::new();
    let text = |random: &mut fastrand::Rng| {
        let text = *random.choice(&TEXTS).unwrap();
        // As serde escapes it, or with every character escaped.
        if random.bool() {
            return json!(text).to_string();
        }
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{escaped}\"")
    };
    let between = |out: &mut String, random: &mut fastrand::Rng| {
        *out += random.choice(&BETWEEN).unwrap();
    };
    between(&mut out, random);
    match random.u8(..4) {
        0 => out += &text(random),
        1 => out += random.choice(["null", "true", "-1.5e3", "[]", "{}"]).unwrap(),
        shape => {
            out.push(if shape == 2 { '[' } else { '{' });
            for place in 0..random.usize(1..5) {
                between(&mut out, random);
                if place > 0 {
                    out.push(',');
                    between(&mut out, random);
                }
                if shape == 3 {
                    // No key twice.
                    out += &format!("\"{place}{}", &text(random)[1..]);
                    between(&mut out, random);
                    out.push(':');
                    between(&mut out, random);
                }
                out += &text(random);
            }
            between(&mut out, random);
            out.push(if shape == 2 { ']' } else { '}' });
        }
    }
    between(&mut out, random);
    out
}

fn query_escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn no_event_is_forged_whatever_names_and_data_hold() {
    let mut random = fastrand::Rng::with_seed(seed());
    let node = Node::start_with_file(STREAMS, &["--queue-events", "100000", "--queue-bytes", "256MiB"]);
    let site = format!("http://{}", node.http_addr());
    let topics = TOPICS.map(query_escaped).join(",");
    let all = format!("/sse?topics={topics}");
    let one = format!("/lines/{}", query_escaped(TOPICS[4]));
    let mut browsers = [Browser::open(), Browser::open()];
    browsers[0].connect(&format!("{site}{all}"), &NAMES);
    browsers[1].connect(&format!("{site}{one}"), &NAMES);
    let mut streams = [&all, &one].map(|path| EventStream::open(node.http_addr(), path));

    // Every name with every text as its data, and as many of random shapes.
    let mut published: Vec<(&str, &str, String)> = Vec::new();
    for name in NAMES {
        for text in TEXTS {
            published.push((*random.choice(&TOPICS).unwrap(), name, json!(text).to_string()));
            published.push((*random.choice(&TOPICS).unwrap(), name, hostile_data(&mut random)));
        }
    }
    random.shuffle(&mut published);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for (topic, name, data) in &published {
        publisher.publish(&Event::new(&[*topic], name, data)).unwrap();
    }
    // What comes last, so that nothing too many stays unseen.
    for topic in TOPICS {
        publisher.publish(&Event::new(&[topic], "plain", "\"the end\"")).unwrap();
    }
    publisher.settle().unwrap();
    // Each topic has its own order.
    let mut expected: HashMap<&str, VecDeque<(&str, Value)>> = HashMap::new();
    for (topic, name, data) in &published {
        expected.entry(topic).or_default().push_back((name, serde_json::from_str(data).unwrap()));
    }
    for topic in TOPICS {
        expected.entry(topic).or_default().push_back(("plain", json!("the end")));
    }
    for (name, data) in &expected[TOPICS[4]] {
        let expected = (name.to_string(), json!({"data": data, "any": TOPICS[4], "event": name}));
        assert_eq!(browsers[1].next_event(), expected);
        assert_eq!(streams[1].next_event(), expected);
    }
    let mut also_expected = expected.clone();
    for _ in 0..published.len() + TOPICS.len() {
        for (got, expected) in
            [(browsers[0].next_event(), &mut expected), (streams[0].next_event(), &mut also_expected)]
        {
            let (got_name, got) = got;
            let queue = expected.get_mut(got["category"].as_str().unwrap()).unwrap();
            let (name, data) = queue.pop_front().unwrap_or_else(|| panic!("one too many: {got}"));
            assert_eq!(got_name, name, "{data}");
            let fields = (&got["type"], &got["event"], &got["data"]);
            assert_eq!(fields, (&json!("event"), &json!(name), &data));
            assert_eq!(got.as_object().unwrap().len(), 5);
        }
    }
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["closed"], &stats["dropped"]), (&json!({}), &json!({})));
}

// Sessions like others -------------------------------------------------------------------------------------------

#[test]
fn event_streams_are_clients() {
    let node = Node::start(&["--max-clients", "2", "--shards", "2"]);
    let mut named = EventStream::open(node.http_addr(), "/sse?topics=a,b&clientId=me");
    let socket = WebSocket::connect(node.http_addr(), "/ws?topics=b");
    let (_, _, status) = http(node.http_addr(), "GET", "/api/websocket/status", &[], b"");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["connectedClients"], 2);
    assert_eq!(status["subscriptions"], json!({"a": 1, "b": 2}));
    assert_eq!(status["clientDetails"]["me"], json!(["a", "b"]));
    node.wait_stats("one of each", |stats| stats["dialects"] == json!({"json": 1, "sse": 1}));
    // One too many: it is told in the stream, because to an error status no browser comes back.
    for _ in 0..3 {
        let mut third = EventStream::open(node.http_addr(), "/sse?topics=a");
        let rest = third.rest();
        let [Said::Event(name, data), Said::Comment(why), Said::Retry(ms)] = &rest[..] else {
            panic!("{rest:?}")
        };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&**name, &**why), ("error", " closed: at_capacity"));
        assert_eq!(data["data"], json!({"error": "Server capacity exceeded"}));
        assert!((500..5000).contains(ms), "{ms}");
    }
    node.publish(&["a"], "e", &json!(1));
    assert_eq!(named.next_event().1["data"], 1, "the others notice nothing");
    let stats = node.wait_stats("two clients", |stats| stats["connections"] == 2);
    assert_eq!(stats["closed"], json!({"at_capacity": 3}));
    drop(socket);
    // A shutdown: everything that was accepted, then why, and when to come back.
    node.publish(&["b"], "e", &json!(2));
    node.signal(Signal::TERM);
    assert_eq!(named.next_event().1["data"], 2);
    let rest = named.rest();
    let [Said::Comment(why), Said::Retry(ms)] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!(why, " closed: shutting_down");
    assert!((500..5000).contains(ms), "{ms}");
    drop(named);
    assert!(node.wait_exit(PATIENCE).success());
}

#[test]
fn who_wants_to_go_on_is_told_that_nobody_knows_what_was_missed() {
    let node = Node::start_with_file(STREAMS, &[]);
    for (path, topics) in
        [("/sse?topics=a,b", &["a", "b"][..]), ("/api/v2/workflows/runs/1/stream", &["run:1"])]
    {
        for (id, is_told) in [("7", true), ("", false), ("x y", true)] {
            let mut client =
                EventStream::open_with(node.http_addr(), path, &format!("Last-Event-ID: {id}\r\n"));
            for topic in topics.iter().filter(|_| is_told) {
                let (name, notice) = client.next_event();
                assert_eq!((&*name, &notice["type"]), ("gap", &json!("gap")));
                assert_eq!(notice["data"], json!({"topic": topic, "dropped": null}));
            }
            node.publish(topics, "e", &json!(id));
            assert_eq!(client.next_event().0, "e");
        }
    }
}

#[test]
fn a_node_that_is_going_tells_event_streams_to_come_back() {
    let node = Node::start_with_file(STREAMS, &["--send-buffer", "8KiB", "--queue-events", "100000"]);
    // Somebody who does not read holds it up.
    let mut slow = EventStream::open_narrow(node.http_addr(), "/sse?topics=t");
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let data = json!("x".repeat(1000)).to_string();
    let mut published = 0;
    let blocked = wait_until(PATIENCE, || {
        publisher.publish(&Event::new(&["t"], "e", &data)).unwrap();
        publisher.settle().unwrap();
        published += 1;
        (node.stats()["outbox"]["blockedClients"] == 1).then_some(())
    });
    assert!(blocked.is_some(), "it takes everything");
    publisher.close().unwrap();
    node.signal(Signal::TERM);
    let (addr, ready) = (node.http_addr(), || http(node.http_addr(), "GET", "/readyz", &[], b"").0);
    assert!(wait_until(PATIENCE, || (ready() == 503).then_some(())).is_some());
    for path in ["/sse?topics=a", "/api/v2/workflows/runs/1/stream"] {
        let rest = EventStream::open(addr, path).rest();
        let [Said::Event(name, _), Said::Comment(why), Said::Retry(_)] = &rest[..] else {
            panic!("{rest:?}")
        };
        assert_eq!((&**name, &**why), ("error", " closed: shutting_down"));
    }
    for _ in 0..published {
        assert_eq!(slow.next_event().0, "e", "what was accepted goes out");
    }
    let rest = slow.rest();
    assert!(matches!(&rest[..], [Said::Comment(_), Said::Retry(_)]), "{rest:?}");
    drop(slow);
    assert!(node.wait_exit(PATIENCE).success());
}

#[test]
fn a_slow_stream_is_closed_and_told_to_come_back() {
    let node = Node::start(&["--send-buffer", "8KiB"]);
    let mut slow = EventStream::open_narrow(node.http_addr(), "/sse?topics=t&clientId=the-slow-one");
    let mut fast = EventStream::open(node.http_addr(), "/sse?topics=t");
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut published = 0;
    let closed = wait_until(PATIENCE, || {
        let data = json!({"n": published, "padding": "x".repeat(1000)}).to_string();
        publisher.publish(&Event::new(&["t"], "e", &data)).unwrap();
        publisher.settle().unwrap();
        assert_eq!(fast.next_event().1["data"]["n"], published);
        published += 1;
        (node.stats()["closed"]["slow_consumer"] == 1).then_some(())
    });
    assert!(closed.is_some(), "nobody was closed");
    assert_eq!(node.stats()["dropped"]["slow_consumer"], 101, "the queue, and what found no room");
    let rest = slow.rest();
    let [events @ .., Said::Comment(why), Said::Retry(_)] = &rest[..] else { panic!("{:?}", rest.last()) };
    assert_eq!(why, " closed: slow_consumer");
    for (n, said) in events.iter().enumerate() {
        let Said::Event(_, data) = said else { panic!("{said:?}") };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["data"]["n"], n, "whole and in order");
    }
    // The other shard may have been an event ahead when it was closed.
    let missed = published - events.len();
    assert!((101..=103).contains(&missed), "{missed} of {published}");
    let line = node.wait_log("the slow client", |line| line.contains("client closed as slow"));
    assert!(line.contains("the-slow-one"), "{line}");
}

#[test]
fn a_stream_whose_far_end_takes_nothing_is_lost_in_the_end() {
    let flags = ["--send-buffer", "8KiB", "--heartbeat-interval", "500ms", "--heartbeat-timeout", "1s"];
    let node = Node::start(&flags);
    // It would never be closed as slow, and says nothing that could be missed: the kernel misses it.
    let _stopped = EventStream::open_narrow(node.http_addr(), "/sse?topics=t&policy=drop-oldest");
    let mut reading = EventStream::open(node.http_addr(), "/sse?topics=t");
    let data = json!("x".repeat(1000));
    let stats = wait_until(PATIENCE, || {
        node.publish(&["t"], "e", &data);
        assert_eq!(reading.next_event().1["data"], data);
        let stats = node.stats();
        (stats["connections"] == 1).then_some(stats)
    });
    assert_eq!(stats.expect("it stays for ever")["closed"], json!({"connection_lost": 1}));
}

#[test]
fn drop_oldest_says_exactly_what_was_left_out() {
    let node = Node::start(&["--send-buffer", "8KiB"]);
    let mut slow = EventStream::open_narrow(node.http_addr(), "/sse?topics=t&policy=drop-oldest");
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let (mut next, mut received, mut gaps, mut told) = (0, 0, 0, false);
    // It stops reading twice, and catches up in between.
    for last in [999, 1999] {
        for n in last - 999..=last {
            let data = json!({"n": n, "padding": "x".repeat(1000)}).to_string();
            publisher.publish(&Event::new(&["t"], "e", &data)).unwrap();
            if n % 50 == 49 {
                publisher.settle().unwrap();
            }
        }
        while next <= last {
            let (name, message) = slow.next_event();
            if name == "gap" {
                assert_eq!((&message["type"], &message["data"]["topic"]), (&json!("gap"), &json!("t")));
                let dropped = message["data"]["dropped"].as_u64().unwrap();
                assert!(dropped > 0 && !told, "one notice for one gap");
                gaps += dropped;
                next += dropped;
                told = true;
            } else {
                assert_eq!((&*name, &message["data"]["n"]), ("e", &json!(next)));
                next += 1;
                received += 1;
                told = false;
            }
        }
        assert!(!told, "the newest stay");
    }
    assert!(gaps > 200, "{gaps}");
    assert_eq!(received + gaps, 2000);
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!(stats["dropped"], json!({"drop_oldest": gaps}));
    assert_eq!((&stats["deliveries"], &stats["dispatched"]), (&json!(received), &json!(2000)));
}

#[test]
fn filters_of_the_query_let_only_theirs_through() {
    let node = Node::start_with_file(STREAMS, &["--shards", "2"]);
    let cases = [
        ("", "a/x a/y b/x b/y"),
        ("events=x", "a/x b/x"),
        ("events=x,y", "a/x a/y b/x b/y"),
        ("events=x&events=z", "a/x b/x"),
        ("onlyCategories=b", "b/x b/y"),
        ("onlyCategories=b,c", "b/x b/y"),
        ("events=y&onlyCategories=a", "a/y"),
    ];
    let mut clients: Vec<(EventStream, &str, bool)> = Vec::new();
    for (query, expected) in cases {
        for (path, is_own) in [("/sse?topics=run:1&", true), ("/api/v2/workflows/runs/1/stream?", false)] {
            clients.push((EventStream::open(node.http_addr(), &format!("{path}{query}")), expected, is_own));
        }
    }
    for category in ["a", "b"] {
        for event in ["x", "y"] {
            node.publish(&[category, "run:1"], event, &json!(category));
        }
    }
    // Passes every filter.
    for (category, event) in [("a", "y"), ("b", "x"), ("b", "y"), ("a", "x")] {
        node.publish(&[category, "run:1"], event, &json!("end"));
    }
    for (client, expected, is_own) in &mut clients {
        let data = if *is_own { "data" } else { "payload" };
        let mut got = Vec::new();
        loop {
            let (name, message) = client.next_event();
            if message[data] == "end" {
                break;
            }
            got.push(format!("{}/{name}", message[data].as_str().unwrap()));
        }
        assert_eq!(got.join(" "), *expected);
    }
}

#[test]
fn clients_that_go_leave_nothing_behind() {
    let node = Node::start(&["--send-buffer", "8KiB", "--queue-events", "100000", "--shards", "2"]);
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let data = json!("x".repeat(1000)).to_string();
    let (mut closed, mut lost) = (0, 0);
    for is_owed in [false, true] {
        for way in 0..3 {
            let clients: Vec<EventStream> = (0..20)
                .map(|n| EventStream::open_narrow(node.http_addr(), &format!("/sse?topics=t,{way}-{n}")))
                .collect();
            node.wait_stats("all there", |stats| stats["connections"] == 20);
            if is_owed {
                let blocked = wait_until(PATIENCE, || {
                    publisher.publish(&Event::new(&["t"], "e", &data)).unwrap();
                    publisher.settle().unwrap();
                    (node.stats()["outbox"]["blockedClients"] == 20).then_some(())
                });
                assert!(blocked.is_some(), "they take everything");
            }
            let mut halves = Vec::new();
            for client in clients {
                match way {
                    0 => drop(client),
                    1 => client.reset(),
                    _ => {
                        client.half_close();
                        halves.push(client);
                    }
                }
            }
            let stats = node.wait_stats("nobody left", |stats| {
                let none = ["connections", "rooms", "subscriptions", "pending"];
                none.iter().all(|name| stats[*name] == 0)
                    && stats["outbox"]["heldBytes"] == 0
                    && stats["outbox"]["blockedClients"] == 0
            });
            // A socket that is closed with something to read in it goes with a reset, too.
            match (way, is_owed) {
                (0, false) | (2, _) => closed += 20,
                _ => lost += 20,
            }
            let count = |reason: &str| stats["closed"][reason].as_u64().unwrap_or(0);
            assert_eq!((count("client_closed"), count("connection_lost")), (closed, lost), "{way} {is_owed}");
        }
    }
    node.wait_stats("no connection but this", |stats| stats["httpConnections"].as_u64() <= Some(1));
    // What a client sends behind its request means nothing, and is read.
    let mut talkative = EventStream::open(node.http_addr(), "/sse?topics=t");
    let flood = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000);
    talkative.stream.write_all(&flood).unwrap();
    node.publish(&["t"], "e", &json!(1));
    assert_eq!(talkative.next_event().1["data"], 1);
    // One that never finishes its request is no client.
    let mut half = TcpStream::connect(node.http_addr()).unwrap();
    half.write_all(b"GET /sse?topics=t HTTP/1.1\r\nHost: x\r\n").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _ = half.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(node.stats()["connections"], 1);
}
