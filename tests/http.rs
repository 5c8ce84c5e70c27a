//! The HTTP endpoints (docs/operations.md) over real sockets: what each answers and to whom, how requests may be
//! written, and that nothing malformed is ever taken for a request.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Dialogue, Incoming, Node, PATIENCE, Response, TempDir, header, http, python_script, read_response, tool,
    wait_until,
};
use serde_json::{Value, json};

fn get(addr: SocketAddr, path: &str) -> Response {
    http(addr, "GET", path, &[], b"")
}

fn get_json(addr: SocketAddr, path: &str) -> Value {
    let (status, headers, body) = get(addr, path);
    assert_eq!((status, header(&headers, "content-type")), (200, Some("application/json")), "{path}");
    serde_json::from_slice(&body).unwrap()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes on a connection of their own and returns everything that comes back until it ends.
fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(addr);
    // The node may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(ended.is_ok(), "{ended:?} after {text:?}, asked with {:?}", String::from_utf8_lossy(bytes));
    text
}

fn status_of(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// How many answers there are in what came back.
fn answers_in(text: &str) -> usize {
    text.split("HTTP/1.1 ").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).count()
}

// What each endpoint answers -------------------------------------------------------------------------------------

#[test]
fn the_status_is_the_seeds() {
    let node = Node::start(&["--shards", "2"]);
    let addr = node.http_addr();
    let mut timestamps = Vec::new();
    let mut status = |path: &str| {
        let mut status = get_json(addr, path);
        timestamps.push(status["timestamp"].take());
        status
    };
    let empty = json!({
        "status": "operational", "connectedClients": 0, "subscriptions": {}, "clientDetails": {}, "timestamp": null,
    });
    assert_eq!(status("/api/websocket/status"), empty);
    let mut named = node.websocket();
    named.send_json(
        &json!({"type":"subscribe","categories":["scheduler","error-recovery"],"clientId":"client-x"}),
    );
    named.next_json(PATIENCE);
    let mut unnamed = node.websocket();
    unnamed.subscribe(&["error-recovery"]);
    let _without = node.websocket();
    let expected = json!({
        "status": "operational",
        "connectedClients": 3,
        "subscriptions": {"error-recovery": 2, "scheduler": 1},
        "clientDetails": {"client-x": ["scheduler", "error-recovery"], "client-2": ["error-recovery"], "client-3": []},
        "timestamp": null,
    });
    assert_eq!(status("/api/websocket/status"), expected);
    let cut = status("/api/websocket/status?clients=1");
    assert_eq!(cut["clientDetails"].as_object().unwrap().len(), 1);
    assert_eq!((&cut["clientDetailsTruncated"], &cut["connectedClients"]), (&json!(true), &json!(3)));
    assert_eq!(cut["subscriptions"], expected["subscriptions"]);
    assert_eq!(status("/api/websocket/status?clients=3"), expected);
    for timestamp in timestamps {
        let at: jiff::Timestamp = timestamp.as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(at).unsigned_abs() < Duration::from_secs(60));
    }
    assert_eq!(get(addr, "/api/websocket/status?clients=many").0, 400);
}

#[test]
fn the_stats_say_what_happened() {
    let node = Node::start(&["--shards", "2"]);
    let mut clients = [node.websocket(), node.websocket(), node.websocket()];
    for client in &mut clients {
        client.subscribe(&["a", "b"]);
    }
    for n in 0..5 {
        node.publish(&["a"], "e", &json!(n));
        node.publish(&["nobody"], "e", &json!(n));
    }
    for client in &mut clients {
        (0..5).for_each(|_| drop(client.next_json(PATIENCE)));
    }
    let stats = node.wait_stats("15 deliveries", |stats| {
        stats["latencyMs"]["count"] == 15 && stats["subscriptions"] == 6
    });
    for (name, value) in [
        ("state", json!("ready")),
        ("shards", json!(2)),
        ("maxClients", json!(1000)),
        ("rooms", json!(2)),
        ("subscriptions", json!(6)),
        ("eventsIn", json!(10)),
        ("eventsUnsubscribed", json!(5)),
        ("dispatched", json!(15)),
        ("pending", json!(0)),
        ("dropped", json!({})),
        ("closed", json!({})),
        ("refused", json!({})),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(stats[name], value, "{name}");
    }
    assert!(stats["uptimeSeconds"].as_f64().unwrap() > 0.0);
    assert!(stats["deliveredBytes"].as_u64().unwrap() > 15 * 80);
    for latency in [&stats["latencyMs"], &stats["latencyRecentMs"]] {
        assert_eq!(latency["count"], 15);
        let quantiles: Vec<f64> =
            ["p50", "p90", "p99", "p999", "max"].iter().map(|name| latency[name].as_f64().unwrap()).collect();
        assert!(quantiles.is_sorted() && quantiles[0] > 0.0 && quantiles[4] < 10_000.0, "{quantiles:?}");
    }
    let shards = stats["perShard"].as_array().unwrap();
    assert_eq!(shards.iter().map(|shard| shard["deliveries"].as_u64().unwrap()).sum::<u64>(), 15);
    assert!(stats.get("tail").is_none());
    // The tail is kept only while somebody looks.
    let tail = || get_json(node.http_addr(), "/api/v1/websocket/stats?tail=3")["tail"].take();
    assert_eq!(tail()["events"], json!([]));
    (0..5).for_each(|n| node.publish(&["a", "c"], "late", &json!({ "n": n })));
    let tail = tail();
    assert_eq!((&tail["shown"], &tail["seen"]), (&json!(3), &json!(15)));
    for (event, n) in tail["events"].as_array().unwrap().iter().zip(2..) {
        assert_eq!((&event["topics"], &event["event"]), (&json!(["a", "c"]), &json!("late")));
        assert_eq!((&event["data"], &event["truncated"]), (&json!(format!(r#"{{"n":{n}}}"#)), &json!(false)));
    }
}

#[test]
fn a_topic_is_described() {
    let node = Node::start(&["--shards", "2"]);
    let mut clients = [node.websocket(), node.websocket(), node.websocket()];
    for client in &mut clients {
        client.subscribe(&["run:42/é ü"]);
    }
    for n in 0..4 {
        node.publish(&["other", "run:42/é ü"], "e", &json!(n));
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.next_json(PATIENCE)["data"], 0));
    let mut topic = get_json(node.http_addr(), "/api/topics/run%3A42%2F%C3%A9%20%C3%BC");
    assert!(topic["timestamp"].take().is_string());
    let expected = json!({"topic": "run:42/é ü", "subscribers": 3, "offset": 4, "history": {"events": 0, "bytes": 0}, "timestamp": null});
    assert_eq!(topic, expected);
    assert_eq!(get_json(node.http_addr(), "/api/topics/nobody")["subscribers"], 0);
    for (path, status) in [("", 400), ("%zz", 400), ("%00", 400), ("a/b", 404), ("a%2A", 400)] {
        assert_eq!(get(node.http_addr(), &format!("/api/topics/{path}")).0, status, "{path}");
    }
}

#[test]
fn the_page_comes_whole_and_under_a_strict_policy() {
    let node = Node::start(&[]);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let (status, headers, body) = get(node.http_addr(), path);
        assert_eq!(status, 200);
        assert!(header(&headers, "content-type").unwrap().starts_with(kind), "{headers:?}");
        assert_eq!(header(&headers, "x-content-type-options"), Some("nosniff"));
        let policy = header(&headers, "content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert!(!body.is_empty());
    }
    let page = String::from_utf8(get(node.http_addr(), "/").2).unwrap();
    assert!(
        !page.contains("onclick") && !page.contains("<script>") && !page.contains("style="),
        "inline code"
    );
}

#[test]
fn metrics_satisfy_a_strict_parser_and_move() {
    let node = Node::start(&["--shards", "2"]);
    let families = || -> Value {
        let (status, headers, body) = get(node.http_addr(), "/metrics");
        assert_eq!(status, 200);
        let kind = header(&headers, "content-type").unwrap();
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
        let mut parser = Dialogue::start(&mut python_script("openmetrics.py"));
        parser.tell(std::str::from_utf8(&body).unwrap().trim_end());
        parser.end();
        serde_json::from_str(&parser.next_line().expect("the parser refuses it")).unwrap()
    };
    let sample = |families: &Value, name: &str, label: &str| -> f64 {
        let all =
            families.as_object().unwrap().values().flat_map(|family| family["samples"].as_array().unwrap());
        let mut found = all.filter(|sample| {
            sample[0] == name
                && sample[1].as_object().unwrap().values().next().and_then(Value::as_str).unwrap_or("")
                    == label
        });
        found.next().unwrap_or_else(|| panic!("no {name} {label}"))[2].as_f64().unwrap()
    };
    let before = families();
    for (name, family) in before.as_object().unwrap() {
        assert!(
            name.starts_with("fanwire_") && !family["help"].as_str().unwrap().is_empty(),
            "{name}: {family}"
        );
        assert_ne!(family["type"], "unknown", "{name}");
    }

    let mut clients = [node.websocket(), node.websocket()];
    clients.iter_mut().for_each(|client| drop(client.subscribe(&["a topic that no label may name"])));
    for n in 0..3 {
        node.publish(&["a topic that no label may name"], "e", &json!(n));
        clients.iter_mut().for_each(|client| assert_eq!(client.next_json(PATIENCE)["data"], n));
    }
    clients[0].send_text("nonsense");
    assert_eq!(clients[0].next_json(PATIENCE)["type"], "error");
    exchange(node.http_addr(), b"nonsense\r\n\r\n");
    assert_eq!(http(node.http_addr(), "POST", "/api/publish", &[], br#"{"topic":"","event":"e"}"#).0, 400);
    clients[1].socket().close(None).unwrap();
    clients[1].wait_closed(PATIENCE);
    node.wait_stats("one client", |stats| stats["connections"] == 1 && stats["latencyMs"]["count"] == 6);

    let after = families();
    for (name, label, expected) in [
        ("fanwire_events_in_total", "", 3.0),
        ("fanwire_dispatched_total", "", 6.0),
        ("fanwire_deliveries_total", "", 6.0),
        ("fanwire_ingress_to_kernel_seconds_count", "", 6.0),
        ("fanwire_closed_total", "client_closed", 1.0),
        ("fanwire_refused_input_total", "client_message", 1.0),
        ("fanwire_refused_input_total", "http", 1.0),
        ("fanwire_refused_events_total", "bad_name", 1.0),
        ("fanwire_dropped_total", "slow_consumer", 0.0),
        ("fanwire_session_seconds_count", "", 1.0),
        ("fanwire_clients", "", 1.0),
        ("fanwire_topics", "", 1.0),
        ("fanwire_subscriptions", "", 1.0),
        ("fanwire_ready", "", 1.0),
        ("fanwire_queued_events", "", 0.0),
    ] {
        assert_eq!(sample(&after, name, label), expected, "{name} {label}");
    }
    let grew = |name: &str| sample(&after, name, "") > sample(&before, name, "");
    for name in [
        "fanwire_delivered_bytes_total",
        "fanwire_event_bytes_in_total",
        "fanwire_flushes_total",
        "fanwire_accepted_connections_total",
        "fanwire_uptime_seconds",
        "fanwire_turn_seconds_count",
        "fanwire_ingress_to_kernel_seconds_sum",
    ] {
        assert!(grew(name), "{name}");
    }
    assert!(!after.to_string().contains("that no label may name"));
    let names = |families: &Value| families.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "the set of families is constant");
}

// Who may ask ----------------------------------------------------------------------------------------------------

const OPERATORS: [&str; 4] =
    ["/metrics", "/api/websocket/status", "/api/v1/websocket/stats", "/api/topics/t"];
const EVENT: &[u8] = br#"{"topic":"t","event":"e"}"#;

/// Statuses of an operators' endpoint (all of them answer alike) and of publishing, with this header.
fn with_authorization(addr: SocketAddr, authorization: Option<&str>) -> (u16, u16) {
    let headers: Vec<(&str, &str)> =
        authorization.map(|value| ("Authorization", value)).into_iter().collect();
    let statuses = OPERATORS.map(|path| {
        let (status, answer, _) = http(addr, "GET", path, &headers, b"");
        assert_eq!(status == 401, header(&answer, "www-authenticate") == Some("Bearer"), "{path}");
        status
    });
    assert!(statuses.iter().all(|status| *status == statuses[0]), "{statuses:?}");
    (statuses[0], http(addr, "POST", "/api/publish", &headers, EVENT).0)
}

#[test]
fn tokens_open_what_they_are_for() {
    let publish = ("--publish-token", "pppp");
    let operator = ("--operator-token", "oooo");
    // For each header: operators' endpoints, publishing.
    let cases: [(&[(&str, &str)], [(u16, u16); 3]); 4] = [
        (&[], [(200, 200), (200, 200), (200, 200)]),
        // A lone token guards everything.
        (&[publish], [(401, 401), (200, 200), (401, 401)]),
        (&[operator], [(401, 401), (401, 401), (200, 200)]),
        (&[publish, operator], [(401, 401), (401, 200), (200, 200)]),
    ];
    for (tokens, expected) in cases {
        let flags: Vec<&str> = tokens.iter().flat_map(|(flag, token)| [*flag, *token]).collect();
        let node = Node::start(&flags);
        let addr = node.http_addr();
        for (header, expected) in [None, Some("Bearer pppp"), Some("bearer  oooo")].into_iter().zip(expected)
        {
            assert_eq!(with_authorization(addr, header), expected, "{tokens:?} {header:?}");
        }
        if !tokens.is_empty() {
            for wrong in
                ["Bearer", "Bearer ", "Bearer ppp", "Bearer ppppp", "Basic pppp", "pppp", "Bearer PPPP"]
            {
                assert_eq!(with_authorization(addr, Some(wrong)), (401, 401), "{wrong}");
            }
            let twice = [("Authorization", "Bearer oooo"), ("Authorization", "Bearer pppp")];
            assert_eq!(http(addr, "GET", "/metrics", &twice, b"").0, 400);
        }
        // Orchestrators, people and clients need none; the page asks for it.
        for open in ["/healthz", "/readyz", "/", "/page.js"] {
            assert_eq!(get(addr, open).0, 200, "{open}");
        }
        node.websocket().subscribe(&["t"]);
    }
}

#[test]
fn the_admin_listener_takes_the_operators_endpoints_away() {
    let node = Node::start(&["--admin", "127.0.0.1:0", "--operator-token", "oooo"]);
    let admin = node.http_addrs()[1];
    let public = node.http_addr();
    assert_ne!(public, admin);
    let bearer = Some("Bearer oooo");
    assert_eq!(with_authorization(public, bearer), (404, 200));
    assert_eq!(with_authorization(admin, bearer), (200, 200));
    assert_eq!(with_authorization(admin, None), (401, 401));
    for (path, on_public) in
        [("/", 404), ("/page.js", 404), ("/healthz", 200), ("/readyz", 200), ("/nothing", 404)]
    {
        assert_eq!(get(public, path).0, on_public, "{path}");
        assert_eq!(get(admin, path).0, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    let bodies =
        [get(public, "/metrics").2, get(public, "/nothing").2].map(|body| String::from_utf8(body).unwrap());
    assert_eq!(
        bodies[0].replace("/metrics", ""),
        bodies[1].replace("/nothing", ""),
        "it does not tell what is hidden"
    );
    node.websocket().subscribe(&["t"]);
}

#[test]
fn pages_of_other_sites_cannot_publish() {
    let node = Node::start(&[]);
    let addr = node.http_addr();
    let own = format!("http://{addr}");
    for (origin, status) in [
        (own.as_str(), 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1", 403),
        (&format!("http://{addr}.evil.example"), 403),
        (&format!("{own}/"), 403),
        ("", 403),
    ] {
        assert_eq!(http(addr, "POST", "/api/publish", &[("Origin", origin)], EVENT).0, status, "{origin}");
    }
    assert_eq!(node.stats()["eventsIn"], 1);
}

// How requests may be written ------------------------------------------------------------------------------------

#[test]
fn head_is_get_without_the_body() {
    let node = Node::start(&["--shards", "2"]);
    let mut kept = connect(node.http_addr());
    for path in ["/healthz", "/readyz", "/", "/page.js", "/api/websocket/status", "/api/topics/t"] {
        let (_, get_headers, body) = get(node.http_addr(), path);
        write!(kept, "HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (status, headers, _) = read_response(&mut kept, true).unwrap();
        assert_eq!(status, 200, "{path}");
        assert_eq!(header(&headers, "content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert_eq!(header(&headers, "content-type"), header(&get_headers, "content-type"));
    }
    for (path, status) in [("/nothing", 404), ("/api/publish", 405), ("/ws", 426)] {
        let answer =
            exchange(node.http_addr(), format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert!(status_of(&answer) == status && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    // A body would have been read as the next answer.
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut rest = String::new();
    kept.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("\r\n\r\nok\n"), "{rest:?}");
}

#[test]
fn requests_on_one_connection_are_answered_in_their_order() {
    let node = Node::start(&["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    // All at once; some are answered by every shard, some publish, some bodies come in chunks.
    let mut requests = Vec::new();
    for n in 0..60 {
        let event = format!(r#"{{"topic":"t","event":"e","data":{n}}}"#);
        let request = match n % 5 {
            0 => "GET /api/websocket/status HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            1 => format!(
                "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{event}",
                event.len()
            ),
            2 => format!("GET /api/topics/topic-{n} HTTP/1.1\r\nHost: x\r\n\r\n"),
            3 => {
                let (one, two) = event.split_at(7);
                format!(
                    "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                     7\r\n{one}\r\n{:x};ext=1\r\n{two}\r\n0\r\nTrailer: x\r\n\r\n",
                    two.len()
                )
            }
            _ => "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        };
        requests.extend_from_slice(request.as_bytes());
    }
    requests.extend_from_slice(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for pieces in [requests.len(), 1000, 7] {
        let mut stream = connect(node.http_addr());
        let mut writer = stream.try_clone().unwrap();
        let mut text = String::new();
        thread::scope(|scope| {
            scope.spawn(|| requests.chunks(pieces).for_each(|piece| writer.write_all(piece).unwrap()));
            stream.read_to_string(&mut text).unwrap();
        });
        let bodies: Vec<&str> = text
            .split("HTTP/1.1 200 OK\r\n")
            .skip(1)
            .map(|answer| answer.split_once("\r\n\r\n").unwrap().1)
            .collect();
        assert_eq!(bodies.len(), 61, "in pieces of {pieces}: {text}");
        for (n, body) in bodies[..60].iter().enumerate() {
            match n % 5 {
                0 => assert!(body.contains("connectedClients"), "{body}"),
                1 | 3 => assert_eq!(*body, r#"{"accepted":1}"#),
                2 => assert!(body.contains(&format!(r#""topic":"topic-{n}""#)), "{body}"),
                _ => assert_eq!(*body, "ok\n"),
            }
        }
        assert_eq!(bodies[60], "ready\n");
        for n in (0..60).filter(|n| n % 5 == 1 || n % 5 == 3) {
            assert_eq!(client.next_json(PATIENCE)["data"], n);
        }
    }
    // HTTP/1.0 gets its answer and the end.
    let answer = exchange(node.http_addr(), b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Connection: close\r\n"), "{answer}");
    // The absolute form is for proxies, and taken.
    let absolute = "GET http://x/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&exchange(node.http_addr(), absolute.as_bytes())), 200);
}

/// Runs curl; returns the status, the body and what `-v` says.
fn curl(args: &[&str]) -> (u16, String, String) {
    let mut command = Command::new(tool("curl"));
    command.args(["-sv", "--max-time", "30", "-w", "\n%{http_code}"]).args(args);
    let (status, stdout, stderr) = common::run_any(&mut command, PATIENCE * 2);
    assert!(status.success(), "{status} {stdout} {stderr}");
    let (body, code) = stdout.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned(), stderr)
}

#[test]
fn curl_publishes_in_every_way() {
    // The client reads only when curl is done: its queue must hold the largest request.
    let node = Node::start(&["--queue-bytes", "8MiB"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let dir = TempDir::new();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        format!("@{}", path.display())
    };
    let url = format!("http://{}/api/publish", node.http_addr());
    let event =
        |n: usize, size: usize| json!({"topic":"t","event":"e","data":{"n": n, "padding": "x".repeat(size)}});
    let mut next = 0;
    let mut expect = |count: usize, size: usize| {
        for _ in 0..count {
            let event = client.next_json(PATIENCE);
            assert_eq!(
                (&event["data"]["n"], event["data"]["padding"].as_str().unwrap().len()),
                (&json!(next), size)
            );
            next += 1;
        }
        next
    };

    // Large: curl asks before it sends the body.
    let array = Value::Array((0..7).map(|n| event(n, 900_000)).collect());
    let large = file("large.json", &array.to_string());
    let (status, body, said) = curl(&[
        "-H",
        "Content-Type: application/json",
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        &large,
        &url,
    ]);
    assert_eq!((status, body.as_str()), (200, r#"{"accepted":7}"#));
    assert!(said.contains("HTTP/1.1 100 Continue") && said.contains("HTTP/1.1 200 OK"), "{said}");
    let n = expect(7, 900_000);

    // In chunks.
    let array = Value::Array((n..n + 30).map(|n| event(n, 50_000)).collect());
    let chunked = file("chunked.json", &array.to_string());
    let (status, body, _) = curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &chunked, &url]);
    assert_eq!((status, body.as_str()), (200, r#"{"accepted":30}"#));
    let n = expect(30, 50_000);

    // One a line.
    let lines: Vec<String> = (n..n + 1000).map(|n| event(n, 10).to_string()).collect();
    let ndjson = file("events.ndjson", &(lines.join("\n") + "\r\n\n"));
    let (status, body, _) =
        curl(&["-H", "Content-Type: application/x-ndjson; charset=utf-8", "--data-binary", &ndjson, &url]);
    assert_eq!((status, body.as_str()), (200, r#"{"accepted":1000}"#));
    expect(1000, 10);

    // Refused by its head: curl is told before it sends megabytes.
    let huge = file("huge.json", &format!("\"{}\"", "x".repeat(9 << 20)));
    let (status, _, said) = curl(&["-H", "Expect: 100-continue", "--data-binary", &huge, &url]);
    assert_eq!(status, 413);
    assert!(!said.contains("100 Continue"), "{said}");
    let (status, body, _) = curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &huge, &url]);
    assert_eq!(status, 413, "{body}");
    assert_eq!(curl(&["--head", &format!("http://{}/healthz", node.http_addr())]).0, 200);
}

#[test]
fn a_request_is_published_whole_or_not_at_all() {
    let node = Node::start(&["--max-publish-bytes", "100B"]);
    let addr = node.http_addr();
    let mut client = node.websocket();
    client.subscribe(&["t", "u"]);
    let good = r#"{"topics":["t","u"],"event":"e","data":{ "as" : 1e999 },"key":"k","timestamp":"2024-01-15T10:15:00.000Z"}"#;
    let too_large = format!(r#"{{"topic":"t","event":"e","data":"{}"}}"#, "x".repeat(100));
    let bad = [
        (r#"{"topic":"t"}"#, 1),
        ("nonsense", 1),
        (r#"{"topic":"t","event":"e","extra":1}"#, 1),
        (r#"{"topic":"t","event":"e","timestamp":"yesterday"}"#, 1),
        (r#"{"event":"e"}"#, 4),
        (r#"{"topics":[],"event":"e"}"#, 4),
        (r#"{"topic":"a\nb","event":"e"}"#, 4),
        (r#"{"topic":"t","event":""}"#, 4),
        (r#"{"topic":"t","event":"e","key":"a\u0001"}"#, 4),
        (&too_large, 6),
    ];
    for (bad, code) in bad {
        let ndjson = [("Content-Type", "application/x-ndjson")];
        let array = format!("[{good},{good},{bad},{good}]");
        let lines = format!("{good}\n{good}\n{bad}\n{good}");
        for (headers, body) in [(&[][..], array), (&ndjson[..], lines)] {
            if bad == "nonsense" && headers.is_empty() {
                continue; // That is no array at all.
            }
            let (status, _, answer) = http(addr, "POST", "/api/publish", headers, body.as_bytes());
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!((status, &answer["accepted"]), (400, &json!(0)), "{body}: {answer}");
            let errors = answer["errors"].as_array().unwrap();
            assert_eq!(
                (errors.len(), &errors[0]["index"], &errors[0]["code"]),
                (1, &json!(2), &json!(code)),
                "{bad}: {answer}"
            );
            assert!(errors[0]["message"].as_str().is_some_and(|message| !message.is_empty()));
        }
    }
    for body in ["", "[", "[1", "{}", "null", "[[]]", "\u{feff}{}"] {
        let (status, _, answer) = http(addr, "POST", "/api/publish", &[], body.as_bytes());
        assert_eq!(status, 400, "{body}: {}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(node.stats()["eventsIn"], 0);
    let (status, _, answer) = http(addr, "POST", "/api/publish", &[], format!("[{good}]").as_bytes());
    assert_eq!((status, answer.as_slice()), (200, &br#"{"accepted":1}"#[..]));
    // `data` is untouched.
    assert_eq!(
        client.next_text(PATIENCE),
        r#"{"type":"event","event":"e","category":"t","data":{ "as" : 1e999 },"timestamp":"2024-01-15T10:15:00.000Z"}"#
    );
}

#[test]
fn bodies_are_held_to_the_memory_there_is_but_one_is_always_taken() {
    let node = Node::start(&["--max-outbox-bytes", "1MiB", "--shards", "1"]);
    let addr = node.http_addr();
    let large = format!(r#"{{"topic":"t","event":"e"}}{}"#, " ".repeat(7 << 20));
    for _ in 0..3 {
        assert_eq!(http(addr, "POST", "/api/publish", &[], large.as_bytes()).0, 200);
        let chunked = format!(
            "POST /api/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{large}\r\n0\r\n\r\n",
            large.len()
        );
        assert_eq!(status_of(&exchange(addr, chunked.as_bytes())), 200);
    }
    // While one is under way, a second one is too much.
    let mut first = connect(addr);
    write!(first, "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", large.len())
        .unwrap();
    first.write_all(&large.as_bytes()[..1000]).unwrap();
    wait_until(PATIENCE, || {
        let status = http(addr, "POST", "/api/publish", &[], large.as_bytes()).0;
        assert!(status == 200 || status == 503, "{status}");
        (status == 503).then_some(())
    })
    .expect("a second large body is refused");
    first.write_all(&large.as_bytes()[1000..]).unwrap();
    assert_eq!(read_response(&mut first, false).unwrap().0, 200);
}

// Refusals -------------------------------------------------------------------------------------------------------

#[test]
fn what_is_not_served_gets_its_status() {
    let node = Node::start(&["--max-header-bytes", "2KiB", "--max-body-bytes", "1KiB"]);
    let addr = node.http_addr();
    let body = |n: usize| " ".repeat(n);
    let get = |path: &str, rest: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
    let post = |rest: &str, body: &str| format!("POST /api/publish HTTP/1.1\r\nHost: x\r\n{rest}\r\n{body}");
    let upgrade =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (request, status, has) in [
        (get("/nothing", ""), 404, ""),
        (get("/api/websocket", ""), 404, ""),
        (get("//", ""), 404, ""),
        (get("/%2e%2e/etc/passwd", ""), 404, ""),
        (get("/../etc/passwd", ""), 404, ""),
        (get("/api/publish", ""), 405, "Allow: POST\r\n"),
        (get("/ws", ""), 426, "Upgrade: websocket\r\n"),
        (get("/ws", &format!("{upgrade}Sec-WebSocket-Version: 8\r\n")), 426, "Sec-WebSocket-Version: 13\r\n"),
        (get("/ws", upgrade), 426, "Sec-WebSocket-Version: 13\r\n"),
        (get("/other", &format!("{upgrade}Sec-WebSocket-Version: 13\r\n")), 404, ""),
        (get("/healthz", "Content-Length: 3\r\n").replace("\r\n\r\n", "\r\n\r\nabc"), 400, ""),
        (get(&format!("/{}", body(3000).replace(' ', "a")), ""), 414, ""),
        (get("/", &format!("X: {}\r\n", body(3000).replace(' ', "a"))), 431, ""),
        (get("/", &"X: y\r\n".repeat(100)), 431, ""),
        (post("Content-Length: 1025\r\n", ""), 413, ""),
        (post("Content-Length: 99999999999999999999\r\n", ""), 400, ""),
        (post("Content-Length: 9223372036854775808\r\n", ""), 413, ""),
        (post("Transfer-Encoding: chunked\r\n", &format!("401\r\n{}", body(1025))), 413, ""),
        (post("Content-Length: 3\r\nExpect: 200-maybe\r\n", ""), 417, ""),
        ("DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405, "Allow: GET, HEAD\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".into(), 404, ""),
        ("PUT /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".into(), 405, "Allow: GET, HEAD\r\n"),
        ("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n".into(), 501, ""),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".into(), 505, ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, ""),
    ] {
        let answer = exchange(addr, request.as_bytes());
        assert_eq!(status_of(&answer), status, "{request:?}: {answer}");
        assert!(answer.contains(has), "{request:?}: {answer}");
        assert!(answer.contains("Connection: close\r\n") && answer.contains(r#"{"error":""#), "{answer}");
        assert_eq!(answers_in(&answer), 1);
    }
}

/// Requests that a node behind a proxy must refuse, each with what a second request would be behind it.
fn malformed() -> Vec<Vec<u8>> {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut all: Vec<Vec<u8>> = [
        // The request line.
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\rHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1x\r\nHost: x\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /#part HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://other/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ftp://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\r\n\r\n",
        // Header lines.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x, y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        // Where the body ends.
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nabcd",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nabcd",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 4 4\r\n\r\nabcd",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\na\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(b"GET / HTTP/1.1\r\nHost: x\r\nA: \xff\xfe\r\n\r\n".to_vec());
    all.push(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
    all.push(format!("POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\na\r\n0\r\n\r\n", "e".repeat(5000)).into());
    // Upgrades that are none: a proxy in front may think otherwise, and pass on what follows.
    for (line, lines) in [
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 777\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\n{key}")),
        ("GET /ws HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n".into()),
        ("GET /ws HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n".into()),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /healthz HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /healthz HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\n".into()),
        ("POST /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /ws HTTP/1.0", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nContent-Length: 5\r\n{key}")),
        ("GET /ws HTTP/1.1", format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked\r\n{key}")),
    ] {
        all.push(format!("{line}\r\nHost: x\r\n{lines}\r\n").into_bytes());
    }
    all
}

#[test]
fn no_second_request_is_ever_smuggled_behind_a_bad_one() {
    let node = Node::start(&[]);
    let mut bystander = node.websocket();
    bystander.subscribe(&["smuggled", "mine"]);
    let second = "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\n{\"topic\":\"smuggled\",\"event\":\"e\"}\
                  GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let all = malformed();
    for request in &all {
        let answer = exchange(node.http_addr(), &[request, second.as_bytes()].concat());
        let shown = String::from_utf8_lossy(request);
        assert_eq!(answers_in(&answer), 1, "{shown:?}: {answer}");
        assert!([400, 404, 426, 431, 413, 414].contains(&status_of(&answer)), "{shown:?}: {answer}");
        assert!(answer.contains("Connection: close\r\n"), "{shown:?}: {answer}");
    }
    let stats = node.wait_stats("one client", |stats| stats["connections"] == 1);
    assert_eq!(stats["eventsIn"], 0);
    assert_eq!(stats["refused"]["http"], all.len());
    node.publish(&["mine"], "e", &json!(1));
    assert_eq!(bystander.next_json(PATIENCE)["category"], "mine", "nobody else notices");
}

#[test]
fn after_the_upgrade_there_are_frames_only() {
    let node = Node::start(&[]);
    let head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer =
        exchange(node.http_addr(), format!("{head}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(answers_in(&answer), 1, "{answer}");
    node.wait_stats("a protocol error", |stats| stats["closed"] == json!({"protocol_error": 1}));
}

// Time -----------------------------------------------------------------------------------------------------------

#[test]
fn whoever_dawdles_over_the_head_is_closed_by_a_deadline_not_a_pause() {
    const DEADLINE: Duration = Duration::from_millis(800);
    let node = Node::start(&["--handshake-timeout", "800ms", "--shards", "2"]);
    let addr = node.http_addr();
    let began = Instant::now();
    let head = b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let mut slow: Vec<TcpStream> = (0..30).map(|_| connect(addr)).collect();
    let idle: Vec<TcpStream> = (0..30).map(|_| connect(addr)).collect();
    let mut sent = 0;
    // A byte each, again and again: never a pause that would be long enough.
    while began.elapsed() < DEADLINE - Duration::from_millis(200) {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(&head[sent..=sent])));
        sent += 1;
        // Whoever is in earnest gets through all the while.
        assert_eq!(get(addr, "/healthz").0, 200);
        thread::sleep(Duration::from_millis(10));
    }
    let mut answers = Vec::new();
    for stream in slow.iter_mut().chain(&mut idle.into_iter().collect::<Vec<_>>()) {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answers.push(answer);
    }
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(1), "the last went after {:?}", began.elapsed());
    for answer in &answers[..30] {
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("Connection: close"), "{answer:?}");
    }
    assert!(answers[30..].iter().all(String::is_empty), "who has asked nothing gets no answer");
    drop(slow);
    let stats = node.wait_stats("all gone", |stats| stats["httpConnections"].as_u64() <= Some(1));
    assert_eq!(stats["refused"]["timeout"], 30);
}

#[test]
fn of_too_many_handshakes_the_oldest_goes() {
    let node = Node::start(&["--max-handshakes", "8", "--shards", "1", "--handshake-timeout", "60s"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let mut crowd: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = connect(node.http_addr());
            stream.write_all(b"GET /").unwrap();
            stream
        })
        .collect();
    for stream in &mut crowd[..31] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    // Those that came last are still served, and a new one is, too.
    let last = crowd.last_mut().unwrap();
    last.write_all(b"healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_response(last, false).unwrap().0, 200);
    node.websocket().subscribe(&["t"]);
    node.publish(&["t"], "e", &json!(1));
    assert_eq!(client.next_json(PATIENCE)["data"], 1, "sessions are no handshakes");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let node = Node::start(&["--publish-timeout", "500ms"]);
    for rest in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"] {
        let began = Instant::now();
        let answer =
            exchange(node.http_addr(), format!("POST /api/publish HTTP/1.1\r\nHost: x\r\n{rest}").as_bytes());
        assert_eq!(status_of(&answer), 408, "{answer}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    // Nor are idle connections kept for ever.
    let mut kept = connect(node.http_addr());
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut kept, false).unwrap().0, 200);
    assert_eq!(kept.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn one_who_does_not_read_its_answers_harms_nobody() {
    let node = Node::start(&["--shards", "1"]);
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let mut greedy = connect(node.http_addr());
    greedy.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // Asks for the page again and again, until its requests are not read any more.
    let request = b"GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let stopped = wait_until(PATIENCE, || greedy.write_all(&request).is_err().then_some(()));
    assert!(stopped.is_some(), "its requests are read for ever");
    assert!(node.stats()["outbox"]["heldBytes"].as_u64().unwrap() < 1 << 20);
    node.publish(&["t"], "e", &json!(1));
    assert!(matches!(client.next(PATIENCE), Incoming::Text(_)));
}
