//! The JSON WebSocket protocol (docs/json-websocket.md) over real sockets: foreign clients, the sample of the first
//! system this node stands in for, limits, bad input, slow clients, order.

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::foreign::Foreign;
use common::raw::{RawClient, upgrade};
use common::{
    Dialogue, Incoming, Node, PATIENCE, Signal, WebSocket, fanwire, node_script, run_any, seed, wait_until,
};
use fanwire::client::{Event, Publisher};
use fanwire::proto::websocket::masked;
use serde_json::{Value, json};

/// 2024-01-15T10:15:00.000Z
const GIVEN_MS: u64 = 1_705_313_700_000;

/// Whether this is a time of day of the last minute, as the node writes them.
fn is_fresh(timestamp: &Value) -> bool {
    let text = timestamp.as_str().unwrap_or_default();
    let age =
        text.parse::<jiff::Timestamp>().map(|at| jiff::Timestamp::now().duration_since(at).unsigned_abs());
    text.len() == "2024-01-15T10:15:00.000Z".len()
        && text.ends_with('Z')
        && age.is_ok_and(|a| a.as_secs() < 60)
}

/// The message without its timestamp, which must be there and fresh.
fn without_time(mut message: Value) -> Value {
    let timestamp = message.as_object_mut().and_then(|fields| fields.remove("timestamp")).unwrap_or_default();
    assert!(is_fresh(&timestamp), "timestamp {timestamp} beside {message}");
    message
}

fn is_between(value: &Value, least: u64, most: u64) -> bool {
    value.as_u64().is_some_and(|value| (least..=most).contains(&value))
}

// Foreign clients ------------------------------------------------------------------------------------------------

/// npm `ws` and Python's `websockets`.
const FOREIGN: [&str; 2] = ["client.mjs", "client.py"];

#[test]
fn foreign_clients_get_exact_messages() {
    let node = Node::start(&[]);
    let url = format!("ws://{}/ws", node.http_addr());
    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    for script in FOREIGN {
        let mut client = Foreign::connect(script, &url);
        let subscribe =
            json!({"type":"subscribe","categories":["error-recovery","scheduler"],"clientId":"my-client"});
        client.send(&subscribe);
        let ack = client.next_text();
        assert!(ack.starts_with(r#"{"type":"subscription-ack","timestamp":""#), "{ack}");
        assert!(ack.ends_with(r#","data":{"categories":["error-recovery","scheduler"]}}"#), "{ack}");
        without_time(serde_json::from_str(&ack).unwrap());

        // Bytes and order of the members are the seed's, `data` is what was published.
        let data =
            r#"{"retryId":"retry-123", "attemptNumber":1,"large":12345678901234567890123,"text":"\u00e9"}"#;
        let event =
            Event { timestamp_ms: GIVEN_MS, ..Event::new(&["error-recovery"], "retry-started", data) };
        publisher.publish(&event).unwrap();
        publisher.flush().unwrap();
        assert_eq!(
            client.next_text(),
            format!(
                r#"{{"type":"event","event":"retry-started","category":"error-recovery","data":{data},"timestamp":"2024-01-15T10:15:00.000Z","clientId":"my-client"}}"#
            )
        );

        // The ack tells the whole set, in the order of subscribing.
        client.send(&json!({"type":"subscribe","topics":["dlq","error-recovery","webhook"]}));
        let ack = without_time(client.next_json());
        let all = ["error-recovery", "scheduler", "dlq", "webhook"];
        assert_eq!(ack, json!({"type":"subscription-ack","data":{"categories":all}}));
        client.send(&json!({"type":"unsubscribe","categories":["scheduler","never-had","webhook"]}));
        let ack = without_time(client.next_json());
        assert_eq!(ack, json!({"type":"unsubscription-ack","data":{"categories":["error-recovery","dlq"]}}));

        // What it left no longer comes, and an event without data has `null`.
        for topic in ["scheduler", "webhook", "dlq"] {
            publisher.publish(&Event { timestamp_ms: GIVEN_MS, ..Event::new(&[topic], "e", "") }).unwrap();
        }
        publisher.flush().unwrap();
        assert_eq!(
            client.next_text(),
            r#"{"type":"event","event":"e","category":"dlq","data":null,"timestamp":"2024-01-15T10:15:00.000Z","clientId":"my-client"}"#
        );

        // Both levels of ping.
        client.send(&json!({"type":"ping"}));
        assert_eq!(without_time(client.next_json()), json!({"type":"pong"}));
        client.tell(&json!({"ping": "00ff10"}));
        assert_eq!(client.next(), json!({"pong": "00ff10"}));

        // What the node does not understand gets an answer, and the connection stays.
        for (message, part) in [
            (r#"{"type":"dance"}"#, "dance"),
            ("{\"type\":\"subscribe\"", "malformed"),
            ("", "malformed"),
            ("[]", "malformed"),
            (r#"{"type":"subscribe"}"#, "categories"),
            (r#"{"type":"subscribe","topics":["a"],"clientId":""}"#, "clientId"),
        ] {
            client.tell(&json!({"send": message}));
            let error = without_time(client.next_json());
            assert_eq!(error["type"], "error");
            assert!(error["data"]["error"].as_str().unwrap().contains(part), "{message}: {error}");
        }
        client.send(&json!({"type":"pong","and":"more"}));
        client.send(&json!({"type":"ping"}));
        assert_eq!(without_time(client.next_json()), json!({"type":"pong"}));

        client.tell(&json!({"close": 4321}));
        assert_eq!(client.closed().0, 4321, "the node echoes the code");
    }
    let stats = node.wait_stats("no client", |stats| stats["connections"] == 0 && stats["rooms"] == 0);
    assert_eq!(stats["closed"], json!({"client_closed": 2}));
    assert_eq!(stats["refused"]["client_message"], 12);
}

#[test]
fn foreign_clients_are_told_why_they_are_closed() {
    let node = Node::start(&["--max-message-bytes", "1000B"]);
    let url = format!("ws://{}/ws", node.http_addr());
    for script in FOREIGN {
        let mut client = Foreign::connect(script, &url);
        client.tell(&json!({"sendBinary": "00ff"}));
        assert_eq!(client.closed().0, 1003, "{script}");
        let mut client = Foreign::connect(script, &url);
        client.tell(&json!({"send": "x".repeat(1001)}));
        assert_eq!(client.closed().0, 1009, "{script}");
    }
    let mut clients = FOREIGN.map(|script| Foreign::connect(script, &url));
    node.signal(Signal::TERM);
    for client in &mut clients {
        let (code, reason) = client.closed();
        let reason: Value = serde_json::from_str(&reason).unwrap();
        assert_eq!(code, 1001);
        assert!(is_between(&reason["retryAfterMs"], 1, 60_000), "{reason}");
    }
    assert!(node.wait_exit(PATIENCE).success());
}

#[test]
fn foreign_clients_stay_through_heartbeats() {
    // So long that a client on a busy machine has told of one pair before the next comes: of two that wait in it, it may tell
    // of both pings first.
    let node = Node::start(&["--heartbeat-interval", "300ms", "--heartbeat-timeout", "1800ms"]);
    for script in FOREIGN {
        let mut client = Foreign::connect(script, &format!("ws://{}/ws", node.http_addr()));
        // They answer WebSocket pings by themselves, and never the other kind. Longer than the timeout.
        for _ in 0..10 {
            // Both kinds come together; the clients tell of them in either order.
            let mut seen = [client.next(), client.next()];
            seen.sort_by_key(|seen| seen.get("ping").is_some());
            let [text, ping] = seen;
            assert_eq!(ping, json!({"ping": ""}));
            let text = text["text"].as_str().unwrap_or_else(|| panic!("{text}"));
            assert!(text.starts_with(r#"{"type":"ping","timestamp":""#), "{text}");
            assert_eq!(without_time(serde_json::from_str(text).unwrap()), json!({"type":"ping"}));
        }
        client.tell(&json!({"close": 1000}));
    }
}

/// The sample runs for a while with short heartbeats, gets its events, and notices that the node goes.
fn the_sample_works(place: &str) {
    let node = Node::start(&["--heartbeat-interval", "100ms", "--heartbeat-timeout", "1s"]);
    let mut sample =
        Dialogue::start(node_script("run_sample.mjs").arg(place).arg(node.http_addr().to_string()));
    assert_eq!(sample.next_line().unwrap(), r#"Subscribed to: ["error-recovery","scheduler"]"#);
    let status = || {
        let (_, _, body) = common::http(node.http_addr(), "GET", "/api/websocket/status", &[], b"");
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    assert_eq!(status()["clientDetails"], json!({"my-client": ["error-recovery", "scheduler"]}));
    let data = json!({"retryId":"retry-123","attemptNumber":1,"errorMessage":"Connection timeout"});
    node.publish(&["error-recovery"], "retry-started", &data);
    assert_eq!(sample.next_line().unwrap(), format!("Event: retry-started {data}"));
    node.publish(&["webhook"], "webhook-delivered", &json!({}));
    let until = Instant::now() + Duration::from_millis(1500);
    let mut n = 0;
    while Instant::now() < until {
        n += 1;
        node.publish(&["scheduler"], "schedule-executed", &json!({ "n": n }));
        assert_eq!(sample.next_line().unwrap(), format!(r#"Event: schedule-executed {{"n":{n}}}"#));
    }
    assert_eq!(status()["connectedClients"], 1);
    node.signal(Signal::TERM);
    assert_eq!(sample.next_line().unwrap(), "Connection closed");
    assert!(sample.wait_exit().success());
}

#[test]
fn the_browser_sample_works_unchanged_under_ws() {
    the_sample_works("node");
}

#[test]
fn the_browser_sample_works_unchanged_in_chromium() {
    the_sample_works("chromium");
}

/// The events of the first system: category, name, and data of its kind.
fn first_systems_events() -> [(&'static str, &'static str, Value); 14] {
    let at = "2024-01-15T10:30:00.000Z";
    let retry =
        json!({"retryId":"retry-123","attemptNumber":1,"errorMessage":"Connection timeout","nextRetryAt":at});
    let schedule = json!({"scheduleId":"s-1","cron":"*/5 * * * *","enabled":true,"nextRunAt":at});
    let webhook =
        json!({"webhookId":"w-1","url":"https://example.org/?a=b&c","statusCode":502,"latencyMs":12.5});
    let entry = json!({"entryId":"d-1","payload":{"nested":["a",null,{"b":1}]},"reason":"\"quoted\"\n"});
    let (recovery, scheduler) = ("error-recovery", "scheduler");
    [
        (recovery, "retry-started", retry.clone()),
        (recovery, "retry-completed", retry.clone()),
        (recovery, "error-resolved", retry.clone()),
        (recovery, "circuit-breaker-state-changed", json!({"from":"closed","to":"open","failures":5})),
        (scheduler, "schedule-executed", schedule.clone()),
        (scheduler, "execution-completed", schedule.clone()),
        (scheduler, "schedule-created", schedule.clone()),
        (scheduler, "schedule-deleted", schedule),
        ("webhook", "webhook-delivered", webhook.clone()),
        ("webhook", "webhook-failed", webhook.clone()),
        ("webhook", "webhook-registered", webhook),
        ("dlq", "entry-added", entry.clone()),
        ("dlq", "entry-resolved", entry.clone()),
        ("dlq", "entry-resubmitted", entry),
    ]
}

/// The sample again, looked at from beside it: every message of either side, field by field.
fn the_samples_messages_are_the_write_ups(place: &str) {
    let flags = ["--heartbeat-interval", "300ms", "--heartbeat-timeout", "5s", "--max-clients", "1"];
    let node = Node::start(&flags);
    let address = node.http_addr().to_string();
    let start = || {
        let words = [place, &address, "browser_sample.js", "frames"];
        Dialogue::start(node_script("run_sample.mjs").args(words))
    };
    let mut sample = start();
    // What it sends and gets, but heartbeats, of which there is one more for each that it is asked to wait for.
    let (mut pings, mut pongs) = (0, 0);
    let mut next = |sample: &mut Dialogue, heartbeats: usize| -> (char, Value) {
        let (least_pings, least_pongs) = (pings + heartbeats, pongs + heartbeats);
        loop {
            let line = sample.next_line().expect("it has ended");
            let (way, text) = line.split_once(' ').unwrap_or((&line, "null"));
            let message: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            match message["type"].as_str() {
                Some("ping") => {
                    assert_eq!((way, without_time(message)), ("<", json!({"type":"ping"})));
                    pings += 1;
                }
                Some("pong") => {
                    assert_eq!((way, message), (">", json!({"type":"pong"})));
                    pongs += 1;
                }
                _ => return (way.chars().next().unwrap(), message),
            }
            if heartbeats > 0 && pings >= least_pings && pongs >= least_pongs {
                return (' ', Value::Null);
            }
        }
    };
    let categories = ["error-recovery", "scheduler"];
    let subscribe = json!({"type":"subscribe","categories":categories,"clientId":"my-client"});
    assert_eq!(next(&mut sample, 0), ('>', subscribe.clone()));
    let (way, ack) = next(&mut sample, 0);
    let expected = json!({"type":"subscription-ack","data":{"categories":categories}});
    assert_eq!((way, without_time(ack)), ('<', expected));
    for (category, event, data) in first_systems_events() {
        node.publish(&[category], event, &data);
        if !categories.contains(&category) {
            continue;
        }
        let (way, message) = next(&mut sample, 0);
        assert_eq!(way, '<');
        let order: Vec<&String> = message.as_object().unwrap().keys().collect();
        assert_eq!(order.len(), 6, "{message}");
        for (field, value) in data.as_object().unwrap() {
            assert_eq!(&message["data"][field], value, "{event}: {field}");
        }
        let expected =
            json!({"type":"event","event":event,"category":category,"data":data,"clientId":"my-client"});
        assert_eq!(without_time(message), expected);
    }
    assert_eq!(next(&mut sample, 3), (' ', Value::Null), "it answers its heartbeats");

    // A second one finds no place. It may be told so before it has said anything.
    let mut second = start();
    let (way, mut error) = next(&mut second, 0);
    if way == '>' {
        assert_eq!(error, subscribe);
        (_, error) = next(&mut second, 0);
    }
    let expected = json!({"type":"error","data":{"error":"Server capacity exceeded"}});
    assert_eq!(without_time(error), expected);
    second.wait_line("the close", |line| line == "closed");
    node.signal(Signal::TERM);
    assert_eq!(next(&mut sample, 0), ('c', Value::Null), "closed");
}

#[test]
fn every_message_of_the_sample_under_ws_is_the_write_ups() {
    the_samples_messages_are_the_write_ups("node");
}

#[test]
fn every_message_of_the_sample_in_chromium_is_the_write_ups() {
    the_samples_messages_are_the_write_ups("chromium");
}

// What a client can ask for --------------------------------------------------------------------------------------

#[test]
fn three_field_names_mean_the_same() {
    let node = Node::start(&[]);
    let mut client = node.websocket();
    let mut expected = Vec::new();
    for field in ["categories", "topics", "rooms"] {
        client.send_json(&json!({"type": "subscribe", field: [field]}));
        expected.push(field);
        assert_eq!(client.next_json(PATIENCE)["data"]["categories"], json!(expected));
    }
    for field in ["rooms", "categories", "topics"] {
        client.send_json(&json!({"type": "unsubscribe", field: [field]}));
        expected.retain(|topic| *topic != field);
        assert_eq!(client.next_json(PATIENCE)["data"]["categories"], json!(expected));
    }
}

#[test]
fn a_query_subscribes_and_its_ack_comes_first() {
    let node = Node::start(&[]);
    // Events that come without a pause: none of them may be there before the ack.
    for (query, expected) in [
        ("categories=a,b", json!(["a", "b"])),
        ("topics=a&rooms=b", json!(["a", "b"])),
        ("runId=42", json!(["run:42", "global"])),
        ("projectId=p%20q&userId=u&runId=7", json!(["project:p q", "user:u", "run:7", "global"])),
        ("runId=42&categories=a", json!(["run:42", "a", "global"])),
    ] {
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    node.publish(&["a", "global"], "e", &json!(1));
                }
            });
            let mut client = WebSocket::connect(node.http_addr(), &format!("/ws?{query}"));
            let first = client.next_json(PATIENCE);
            let second = client.next_json(PATIENCE);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(
                (&first["type"], &first["data"]["categories"]),
                (&json!("subscription-ack"), &expected)
            );
            assert_eq!(second["type"], "event");
            assert!(second.get("clientId").is_none());
        });
    }
    for bad in ["categories=", "categories=a,,b", "runId=*", "topics=run:*", "categories=%zz", "runId="] {
        let refused = WebSocket::try_connect(node.http_addr(), &format!("/ws?{bad}"));
        let error = refused.expect_err(bad).to_string();
        assert!(error.contains("400"), "{bad}: {error}");
    }
}

#[test]
fn only_the_event_names_of_the_filter_arrive() {
    let node = Node::start(&[]);
    let mut client = node.websocket();
    client.send_json(&json!({"type":"subscribe","topics":["run:1"],"events":["stage-progress","done"]}));
    client.send_json(&json!({"type":"subscribe","topics":["run:2"]}));
    client.next_json(PATIENCE);
    client.next_json(PATIENCE);
    for n in 0..3 {
        for topics in [&["run:1"][..], &["run:2"], &["run:1", "run:2"]] {
            for event in ["stage-progress", "log", "done"] {
                node.publish(topics, event, &json!(n));
            }
        }
        let mut got = String::new();
        // 2 of run:1, 3 of run:2, 3 of both: the second subscription wants what the first does not.
        for _ in 0..8 {
            let event = client.next_json(PATIENCE);
            assert_eq!(event["data"], n);
            write!(got, "{}/{} ", event["category"].as_str().unwrap(), event["event"].as_str().unwrap())
                .unwrap();
        }
        assert_eq!(
            got,
            "run:1/stage-progress run:1/done run:2/stage-progress run:2/log run:2/done \
             run:1/stage-progress run:1/log run:1/done "
        );
    }
    // Subscribing again replaces the filter.
    client.send_json(&json!({"type":"subscribe","topics":["run:1"],"events":["log"]}));
    client.next_json(PATIENCE);
    node.publish(&["run:1"], "done", &json!(8));
    node.publish(&["run:1"], "log", &json!(9));
    assert_eq!(client.next_json(PATIENCE)["data"], 9);
    client.send_json(&json!({"type":"subscribe","topics":["run:1"]}));
    client.next_json(PATIENCE);
    node.publish(&["run:1"], "done", &json!(10));
    assert_eq!(client.next_json(PATIENCE)["data"], 10);
}

#[test]
fn an_event_of_several_topics_comes_once() {
    for shards in ["1", "2"] {
        let node = Node::start(&["--shards", shards]);
        let mut clients: Vec<WebSocket> = (0..4).map(|_| node.websocket()).collect();
        clients[0].subscribe(&["a", "b", "c"]);
        clients[1].subscribe(&["c"]);
        clients[2].subscribe(&["b", "a"]);
        clients[3].subscribe(&["c", "x"]);
        for n in 0..50 {
            node.publish(&["a", "b"], "e", &json!(n));
            node.publish(&["a", "b", "c"], "e", &json!(n + 1000));
            node.publish(&["c", "a"], "e", &json!(n + 2000));
        }
        for topic in ["a", "b", "c"] {
            node.publish(&[topic], "end", &json!(null));
        }
        for (client, wanted) in
            clients.iter_mut().zip([&[0, 1000, 2000][..], &[1000, 2000], &[0, 1000, 2000], &[1000, 2000]])
        {
            for n in 0..50 {
                for base in wanted {
                    let event = client.next_json(PATIENCE);
                    assert_eq!(event["data"], n + base);
                    assert_eq!(event["category"], if *base == 2000 { "c" } else { "a" });
                }
            }
            assert_eq!(client.next_json(PATIENCE)["event"], "end");
        }
        let stats = node.wait_stats("everything delivered", |stats| stats["pending"] == 0);
        assert_eq!(stats["deliveries"], stats["dispatched"]);
        assert_eq!(stats["eventsIn"], 153);
    }
}

#[test]
fn a_client_id_is_shown_to_its_owner_only() {
    let node = Node::start(&["--shards", "2"]);
    let names = [None, Some("me"), Some("a \"quoted\" \u{1} né"), None, Some("m")];
    let mut clients: Vec<WebSocket> = names.iter().map(|_| node.websocket()).collect();
    for (client, name) in clients.iter_mut().zip(names) {
        let mut subscribe = json!({"type":"subscribe","topics":["t"]});
        if let Some(name) = name {
            subscribe["clientId"] = name.into();
        }
        client.send_json(&subscribe);
        client.next_json(PATIENCE);
    }
    // Several sizes: the frame's header grows at 126 and 65,536 bytes, with the id and without.
    for size in [0, 1, 20, 40, 100, 65_300, 65_420, 65_500, 200_000] {
        node.publish(&["t"], "e", &json!("x".repeat(size)));
        for (client, name) in clients.iter_mut().zip(names) {
            let text = client.next_text(PATIENCE);
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event.get("clientId").and_then(Value::as_str), name);
            assert_eq!(event["data"].as_str().unwrap().len(), size);
            if let Some(name) = name {
                assert!(text.ends_with(&format!(r#","clientId":{}}}"#, json!(name))), "the last member");
            }
        }
    }
    // A new name replaces the old one; 128 characters are a name, 129 are not.
    let long = "é".repeat(128);
    clients[1].send_json(&json!({"type":"subscribe","topics":[],"clientId":long}));
    assert_eq!(clients[1].next_json(PATIENCE)["data"]["categories"], json!(["t"]));
    clients[1].send_json(&json!({"type":"subscribe","topics":["t"],"clientId":format!("{long}é")}));
    assert_eq!(clients[1].next_json(PATIENCE)["type"], "error");
    node.publish(&["t"], "e", &json!(1));
    assert_eq!(clients[1].next_json(PATIENCE)["clientId"], long);
    assert!(clients[0].next_json(PATIENCE).get("clientId").is_none());
    let stats = node.stats();
    assert_eq!(stats["eventsIn"], 10);
}

// Limits ---------------------------------------------------------------------------------------------------------

#[test]
fn a_silent_client_is_closed_and_one_that_answers_stays() {
    let node = Node::start(&["--heartbeat-interval", "100ms", "--heartbeat-timeout", "500ms"]);
    let mut silent = RawClient::connect(node.http_addr());
    let mut answers_json = RawClient::connect(node.http_addr());
    let began = Instant::now();
    // Answers the message only, never the WebSocket ping.
    let mut pings = 0;
    while pings < 12 {
        let (opcode, payload) = answers_json.next_frame().expect("it is closed");
        match opcode {
            1 => {
                assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap()["type"], "ping");
                answers_json.send(&masked(0x81, br#"{"type":"pong"}"#));
                pings += 1;
            }
            9 => assert_eq!(payload, b""),
            other => panic!("a frame of kind {other}"),
        }
    }
    assert!(began.elapsed() > Duration::from_millis(1000), "12 pings in {:?}", began.elapsed());
    let (code, _) = silent.wait_close().expect("a close frame");
    assert_eq!(code, 4000);
    node.wait_stats("one heartbeat timeout", |stats| stats["closed"] == json!({"heartbeat_timeout": 1}));
}

#[test]
fn the_client_above_the_limit_is_told_and_closed() {
    let node = Node::start(&["--max-clients", "2", "--shards", "2"]);
    let (mut one, mut two) = (node.websocket(), node.websocket());
    one.subscribe(&["t"]);
    for path in ["/ws", "/ws?categories=t"] {
        let mut third = WebSocket::connect(node.http_addr(), path);
        let error = without_time(third.next_json(PATIENCE));
        assert_eq!(error, json!({"type":"error","data":{"error":"Server capacity exceeded"}}));
        let (code, reason) = third.wait_closed(PATIENCE).expect("a close frame");
        let reason: Value = serde_json::from_str(&reason).unwrap();
        assert_eq!(code, 1013);
        assert!(is_between(&reason["retryAfterMs"], 1, 60_000), "{reason}");
    }
    // The others notice nothing; when one goes, there is a place.
    node.publish(&["t"], "e", &json!(1));
    assert_eq!(one.next_json(PATIENCE)["data"], 1);
    two.socket().close(None).unwrap();
    two.wait_closed(PATIENCE);
    let stats = node.wait_stats("one client", |stats| stats["connections"] == 1);
    assert_eq!(stats["closed"]["at_capacity"], 2);
    let mut again = node.websocket();
    again.subscribe(&["t"]);
}

#[test]
fn subscriptions_above_the_limits_are_refused_whole() {
    let node = Node::start(&["--max-subscriptions", "3", "--max-topics", "4"]);
    let mut client = node.websocket();
    client.subscribe(&["a", "b"]);
    let mut refused = |topics: &[&str], part: &str| {
        client.send_json(&json!({"type":"subscribe","topics":topics,"clientId":"x"}));
        let error = client.next_json(PATIENCE);
        assert_eq!(error["type"], "error");
        assert!(error["data"]["error"].as_str().unwrap().contains(part), "{error}");
    };
    refused(&["c", "d"], "max_subscriptions");
    refused(&["c", "a", "d", "b"], "max_subscriptions");
    // Known topics count once, and nothing of a refused request stays.
    assert_eq!(client.subscribe(&["a", "c", "c", "b"])["data"]["categories"], json!(["a", "b", "c"]));
    let mut other = node.websocket();
    other.send_json(&json!({"type":"subscribe","topics":["a","d","e"]}));
    assert!(other.next_json(PATIENCE)["data"]["error"].as_str().unwrap().contains("max_topics"));
    assert_eq!(node.stats()["rooms"], 3);
    other.subscribe(&["d"]);
    node.publish(&["a", "d"], "e", &json!(1));
    assert_eq!(client.next_json(PATIENCE).get("clientId"), None, "the refused requests gave no name");
    assert_eq!(other.next_json(PATIENCE)["category"], "a");
    let refused = WebSocket::try_connect(node.http_addr(), "/ws?categories=a,b,c,d");
    assert!(refused.unwrap_err().to_string().contains("400"));
}

#[test]
fn a_second_node_on_the_same_address_fails() {
    let node = Node::start_with_unix(&[]);
    let (http, publish) = (node.http_addr().to_string(), node.publish_addr().to_string());
    let unix = format!("unix:{}", node.unix_path().display());
    for (listen, publish, taken) in [
        (http.as_str(), "127.0.0.1:0", http.as_str()),
        ("127.0.0.1:0", publish.as_str(), publish.as_str()),
        ("127.0.0.1:0", unix.as_str(), unix.as_str()),
    ] {
        let mut second = fanwire();
        let (status, stdout, stderr) =
            run_any(second.args(["serve", "--listen", listen, "--publish", publish]), PATIENCE);
        assert_eq!(status.code(), Some(1));
        assert!(stderr.contains("address in use") && stderr.contains(taken), "{stderr}");
        assert!(!stderr.contains("panicked") && stdout.is_empty(), "{stdout}{stderr}");
    }
    // The first one has noticed nothing, its Unix socket is still there.
    let mut client = node.websocket();
    client.subscribe(&["t"]);
    let mut publisher = Publisher::open(&unix).unwrap();
    publisher.publish(&Event::new(&["t"], "e", "1")).unwrap();
    publisher.settle().unwrap();
    assert_eq!(client.next_json(PATIENCE)["data"], 1);
}

// Bad input ------------------------------------------------------------------------------------------------------

#[test]
fn every_violation_gets_its_close_code_and_nobody_else_notices() {
    let node = Node::start(&[]);
    let mut bystander = node.websocket();
    bystander.subscribe(&["t"]);
    let many = masked(0x01, b"a").into_iter().chain(masked(0x00, b"").repeat(16_400)).collect();
    let header = |bytes: &[u8]| [bytes, &[1, 2, 3, 4]].concat();
    let mut cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", vec![0x81, 0x02, b'{', b'}'], 1002),
        ("RSV1", masked(0xC1, b"{}"), 1002),
        ("RSV2", masked(0xA1, b"{}"), 1002),
        ("RSV3", masked(0x91, b"{}"), 1002),
        ("a fragmented ping", masked(0x09, b""), 1002),
        ("a fragmented close", masked(0x08, b""), 1002),
        ("a long ping", masked(0x89, &[b'x'; 126]), 1002),
        ("a long close", masked(0x88, &[3; 126]), 1002),
        ("a close of one byte", masked(0x88, &[3]), 1002),
        ("a continuation of nothing", masked(0x80, b"x"), 1002),
        ("a message within a message", [masked(0x01, b"a"), masked(0x81, b"b")].concat(), 1002),
        ("a length that is not minimal, 16 bit", header(&[0x81, 0xFE, 0, 125]), 1002),
        ("a length that is not minimal, 64 bit", header(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), 1002),
        ("a length of 2^63", header(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]), 1002),
        ("a length of 2^64 - 1", header(&[0x81, 0xFF, 255, 255, 255, 255, 255, 255, 255, 255]), 1002),
        ("a close with a reason that is not UTF-8", masked(0x88, &[3, 232, 0xFF]), 1007),
        ("binary", masked(0x82, b"{}"), 1003),
        ("the first fragment of binary", masked(0x02, b"{"), 1003),
        ("a byte that is no UTF-8", masked(0x81, b"{\"type\":\"\xff\"}"), 1007),
        ("a surrogate", masked(0x81, b"\xed\xa0\x80"), 1007),
        ("UTF-8 that is cut off", masked(0x81, b"\"\xe2\x82"), 1007),
        ("an overlong form", masked(0x01, b"\"\xc0\xaf"), 1007),
        ("a bad start before the message ends", masked(0x01, b"\xff"), 1007),
        ("one byte too many", masked(0x81, &vec![b' '; (64 << 10) + 1]), 1009),
        ("a length of 2^63 - 1", header(&[0x81, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255]), 1009),
        ("a length of 2^32", header(&[0x81, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0]), 1009),
        (
            "fragments that are too much together",
            [masked(0x01, &vec![b' '; 40_000]), masked(0x80, &vec![b' '; 40_000])].concat(),
            1009,
        ),
        ("fragments without end", many, 1002),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("a reserved opcode", masked(0x80 | opcode, b""), 1002));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535_u16] {
        cases.push(("a close code that may not be sent", masked(0x88, &code.to_be_bytes()), 1002));
    }
    let mut codes: HashMap<u16, u64> = HashMap::new();
    for (number, (what, bytes, expected)) in cases.iter().enumerate() {
        let mut client = RawClient::connect(node.http_addr());
        // The node may close before it has read all of it.
        let _ = client.stream.write_all(bytes);
        let closed = client.wait_close();
        assert_eq!(closed.as_ref().map(|(code, _)| *code), Some(*expected), "{what}: {closed:?}");
        *codes.entry(*expected).or_default() += 1;
        client.send(&masked(0x88, &expected.to_be_bytes()));
        assert_eq!(client.next_frame(), None, "{what}: nothing follows the close");
        node.publish(&["t"], "e", &json!(number));
        assert_eq!(bystander.next_json(PATIENCE)["data"], number);
    }
    let stats = node.wait_stats("the bystander alone", |stats| stats["connections"] == 1);
    let closed = json!({
        "protocol_error": codes[&1002], "binary_frame": codes[&1003],
        "bad_utf8": codes[&1007], "message_too_big": codes[&1009],
    });
    assert_eq!(stats["closed"], closed);
    assert_eq!(stats["refused"], json!({"websocket_frame": cases.len()}));
}

#[test]
fn a_session_is_the_same_however_its_bytes_are_cut() {
    let node = Node::start(&[]);
    let session = [
        upgrade("/ws").into_bytes(),
        masked(0x81, br#"{"type":"subscribe","topics":["a","b"]}"#),
        masked(0x89, b"hello"),
        masked(0x01, br#"{"type":"unsub"#),
        masked(0x89, b"between"),
        masked(0x00, b"scribe\",\"topics\":[\"\xc3"),
        masked(0x80, b"\xa9\",\"a\"]}"),
        masked(0x81, b"{}"),
        masked(0x8A, b""),
        masked(0x81, br#"{"type":"ping"}"#),
    ]
    .concat();
    let play = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut client = RawClient::begin(TcpStream::connect(node.http_addr()).unwrap());
        pieces.for_each(|piece| client.send(piece));
        client.finish_handshake();
        let mut got: Vec<(u8, String)> = Vec::new();
        while got.last().is_none_or(|(_, last)| !last.contains(r#""pong""#)) {
            let (opcode, payload) = client.next_frame().expect("closed");
            match serde_json::from_slice::<Value>(&payload) {
                Ok(message) => got.push((opcode, without_time(message).to_string())),
                Err(_) => got.push((opcode, String::from_utf8(payload).unwrap())),
            }
        }
        got
    };
    let whole = play(&mut std::iter::once(&session[..]));
    assert_eq!(whole.len(), 6, "{whole:?}");
    assert_eq!((&whole[1], &whole[2]), (&(10, "hello".to_owned()), &(10, "between".to_owned())));
    assert!(whole[0].1.contains(r#"["a","b"]"#) && whole[3].1.contains(r#"["b"]"#), "{whole:?}");
    assert_eq!(play(&mut session.chunks(1)), whole);
    for cut in 1..session.len() {
        let (one, two) = session.split_at(cut);
        assert_eq!(play(&mut [one, two].into_iter()), whole, "cut at {cut}");
    }
}

// Slow clients ---------------------------------------------------------------------------------------------------

/// A narrow path to each client, so that the test need not publish megabytes until one is slow.
const NARROW: [&str; 2] = ["--send-buffer", "8KiB"];

/// An event of about 1 KiB with a number in it.
fn padded(n: u32) -> String {
    format!(r#"{{"n":{n},"padding":"{}"}}"#, "x".repeat(1000))
}

/// Events in turn of `a` and `b`: each topic's in their order, and none missing between those that came.
#[derive(Default)]
struct Halves([u32; 2]);

impl Halves {
    fn take(&mut self, event: &Value) {
        let topic = usize::from(event["category"] == "b");
        assert_eq!(event["data"]["n"], 2 * self.0[topic] + topic as u32, "{:?}", self.0);
        self.0[topic] += 1;
    }

    fn count(&self) -> u32 {
        self.0[0] + self.0[1]
    }
}

#[test]
fn a_slow_client_is_closed_and_the_log_says_all_about_it() {
    let node = Node::start(&NARROW);
    let mut healthy = node.websocket();
    healthy.subscribe(&["a", "b"]);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
    slow.send_json(&json!({"type":"subscribe","topics":["a","b"],"clientId":"the-slow-one"}));
    slow.next_json(PATIENCE);
    let address = slow.socket().get_ref().local_addr().unwrap().to_string();

    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let (mut published, mut all) = (0, Halves::default());
    let closed = wait_until(PATIENCE, || {
        for _ in 0..20 {
            let topic = if published % 2 == 0 { "a" } else { "b" };
            publisher.publish(&Event::new(&[topic], "e", &padded(published))).unwrap();
            published += 1;
        }
        publisher.settle().unwrap();
        // The healthy one reads as it goes: nobody else is to look slow.
        for _ in 0..20 {
            all.take(&healthy.next_json(PATIENCE));
        }
        let stats = node.stats();
        (stats["closed"]["slow_consumer"] == 1 && stats["connections"] == 1).then_some(stats)
    });
    let stats = closed.expect("the slow client was not closed");
    assert!(is_between(&stats["dropped"]["slow_consumer"], 100, 120), "{stats:#}");

    // What it was sent before is whole and in order; then it is told.
    let mut got = Halves::default();
    let (code, reason) = loop {
        match slow.next(PATIENCE) {
            Incoming::Text(text) => {
                got.take(&serde_json::from_str(&text).unwrap());
            }
            Incoming::Closed(closed) => break closed.expect("a close frame"),
            Incoming::Nothing => panic!("neither events nor a close"),
        }
    };
    assert_eq!(code, 4008);
    assert!(
        is_between(&serde_json::from_str::<Value>(&reason).unwrap()["retryAfterMs"], 1, 60_000),
        "{reason}"
    );
    let (got, all) = (got.count(), all.count());
    assert!(got > 0 && got + 100 <= all && all == published, "{got} of {published}");
    // Every event dispatched has gone somewhere.
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    let dropped = stats["dropped"]["slow_consumer"].as_u64().unwrap();
    assert_eq!(stats["dispatched"].as_u64().unwrap(), stats["deliveries"].as_u64().unwrap() + dropped);
    assert_eq!(stats["deliveries"].as_u64().unwrap(), u64::from(all + got));

    let line = node.wait_log("the slow client", |line| line.contains("client closed as slow"));
    for part in ["WARN", "the-slow-one", &address, "slow_consumer", r#"topics=["a", "b"]"#] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let figure = |name: &str| -> u64 {
        let after = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {line}")).1;
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!((100..=120).contains(&figure("queued_events")), "{line}");
    assert!((100_000..=150_000).contains(&figure("queued_bytes")), "{line}");
    assert!(figure("oldest_ms") < 60_000, "{line}");
    assert_eq!(node.stderr().matches("client closed as slow").count(), 1);
}

#[test]
fn drop_oldest_says_exactly_what_was_left_out() {
    let node = Node::start(&[&NARROW[..], &["--shards", "2"]].concat());
    let mut healthy = node.websocket();
    healthy.subscribe(&["a", "b"]);
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
    slow.send_json(&json!({"type":"subscribe","topics":["a","b"],"policy":"drop-oldest"}));
    slow.next_json(PATIENCE);

    let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
    let mut last = [0_u32; 2];
    let (mut gaps, mut received) = ([0_u64; 2], [0_u64; 2]);
    // It stops reading twice, and catches up in between.
    for round in 1..=2_u32 {
        for n in 1000 * round - 999..=1000 * round {
            // Three of `a` for each of `b`.
            let topic = if n % 4 == 0 { "b" } else { "a" };
            publisher.publish(&Event::new(&[topic], "e", &padded(n))).unwrap();
            if n % 50 == 0 {
                publisher.settle().unwrap();
                (0..50).for_each(|_| drop(healthy.next_json(PATIENCE)));
            }
        }
        let mut missing = [0_u64; 2];
        // The newest events stay. Between topics there is no order, so the last of each is waited for.
        while last != [1000 * round - 1, 1000 * round] {
            let message = slow.next_json(PATIENCE);
            match message["type"].as_str() {
                Some("gap") => {
                    let message = without_time(message);
                    let topic = usize::from(message["data"]["topic"] == "b");
                    let dropped = message["data"]["dropped"].as_u64().unwrap();
                    assert!(dropped > 0 && message["data"].as_object().unwrap().len() == 2, "{message}");
                    assert_eq!(missing[topic], 0, "two notices for one gap");
                    missing[topic] = dropped;
                    gaps[topic] += dropped;
                }
                Some("event") => {
                    let topic = usize::from(message["category"] == "b");
                    let n = message["data"]["n"].as_u64().unwrap() as u32;
                    // Events of this topic between the last one that came and this one.
                    let fourth = |n: u32| if topic == 1 { n / 4 } else { n - n / 4 };
                    let left_out = fourth(n) - fourth(last[topic]) - 1;
                    assert_eq!(missing[topic], u64::from(left_out), "before event {n} of topic {topic}");
                    missing[topic] = 0;
                    received[topic] += 1;
                    last[topic] = n;
                }
                _ => panic!("{message}"),
            }
        }
        assert_eq!(missing, [0, 0]);
    }
    assert!(gaps[0] > 100 && gaps[1] > 50, "{gaps:?}");
    assert_eq!([received[0] + gaps[0], received[1] + gaps[1]], [1500, 500]);
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!(stats["dropped"], json!({"drop_oldest": gaps[0] + gaps[1]}));
    assert_eq!(stats["dispatched"], 4000);
    assert_eq!(stats["deliveries"], 4000 - gaps[0] - gaps[1]);
    assert_eq!(stats["connections"], 2);
}

#[test]
fn an_empty_queue_takes_one_event_of_any_size() {
    let node = Node::start(&[&NARROW[..], &["--queue-bytes", "10KiB"]].concat());
    let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws?categories=t");
    slow.next_json(PATIENCE);
    for n in 0..5 {
        // Far more than the queue and the kernel take, but one at a time.
        node.publish(&["t"], "e", &json!({"n": n, "padding": "x".repeat(900_000)}));
        assert_eq!(slow.next_json(PATIENCE)["data"]["n"], n);
    }
}

#[test]
fn all_queues_together_are_held_to_their_budget() {
    // A shard has half of the budget: whichever the slow ones are on, it is over before `queue_bytes` is, which is as
    // large as the whole. They are read once all of them are closed, however long that takes.
    let flags = ["--shards", "2", "--max-outbox-bytes", "1MiB", "--queue-events", "100000"];
    let node = Node::start(&[&NARROW[..], &flags, &["--close-timeout", "60s"]].concat());
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    let mut slow: Vec<WebSocket> =
        (0..3).map(|_| WebSocket::connect_narrow(node.http_addr(), "/ws?categories=t")).collect();
    let data = json!("x".repeat(10_000));
    let closed = wait_until(PATIENCE, || {
        node.publish(&["t"], "e", &data);
        assert_eq!(healthy.next_json(PATIENCE)["type"], "event");
        let stats = node.stats();
        // What comes in at once is dispatched before the budget is looked at.
        assert!(stats["outbox"]["heldBytes"].as_u64().unwrap() < (1 << 20) + 300_000, "{stats:#}");
        (stats["closed"]["outbox_memory"] == 3).then_some(())
    });
    assert!(closed.is_some(), "nobody was closed: {:#}", node.stats());
    for client in &mut slow {
        assert_eq!(client.wait_closed(PATIENCE).unwrap().0, 4008);
    }
    let stats =
        node.wait_stats("the healthy one alone", |stats| stats["connections"] == 1 && stats["pending"] == 0);
    assert_eq!(stats["closed"], json!({"outbox_memory": 3}));
    // What it has logged comes by a way of its own.
    let lines = || node.stderr().matches("outbox_memory").count();
    wait_until(PATIENCE, || (lines() >= 3).then_some(()));
    assert_eq!(lines(), 3, "a log line for each");
}

#[test]
fn a_flood_of_pings_that_reads_no_answer_is_not_read_any_more() {
    let node = Node::start(&["--send-buffer", "8KiB", "--shards", "1"]);
    let mut bystander = node.websocket();
    bystander.subscribe(&["t"]);
    let mut flood = RawClient::connect(node.http_addr());
    flood.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let pings = masked(0x89, &[b'p'; 125]).repeat(1000);
    let mut sent = 0;
    // Until nothing moves any more: its answers wait, so it is not read.
    let stopped = wait_until(PATIENCE, || {
        sent += pings.len();
        flood.stream.write_all(&pings).is_err().then_some(())
    });
    assert!(stopped.is_some(), "{sent} bytes of pings were read");
    let stats = node.stats();
    assert!(stats["outbox"]["heldBytes"].as_u64().unwrap() < 500_000, "{stats:#}");
    node.publish(&["t"], "e", &json!(1));
    assert_eq!(bystander.next_json(PATIENCE)["data"], 1);
    // When it reads, it is read again.
    let (opcode, payload) = flood.next_frame().unwrap();
    assert_eq!((opcode, payload.len()), (10, 125));
}

// Order ----------------------------------------------------------------------------------------------------------

#[test]
fn order_holds_for_each_publisher_and_topic_under_load() {
    const TOPICS: usize = 100;
    const CLIENTS: usize = 100;
    const PUBLISHERS: usize = 4;
    const EACH: usize = 100; // Events of each publisher on each topic: 400 a topic, 40,000 in all.
    let mut random = fastrand::Rng::with_seed(seed());
    // This is about order: nobody is to be closed because the machine is busy.
    let node = Node::start(&["--shards", "2", "--queue-events", "1000000", "--queue-bytes", "256MiB"]);
    let names: Vec<String> = (0..TOPICS).map(|n| format!("topic-{n}")).collect();
    let mut clients: Vec<(WebSocket, Vec<usize>)> = (0..CLIENTS)
        .map(|_| {
            let topics: Vec<usize> =
                random.choose_multiple(0..TOPICS, random.clone().usize(1..20)).into_iter().collect();
            let mut client = node.websocket();
            client.subscribe(&topics.iter().map(|topic| names[*topic].as_str()).collect::<Vec<_>>());
            (client, topics)
        })
        .collect();
    let mut seeds: Vec<fastrand::Rng> = (0..PUBLISHERS).map(|_| random.fork()).collect();
    thread::scope(|scope| {
        for (publisher, random) in seeds.iter_mut().enumerate() {
            let (node, names) = (&node, &names);
            scope.spawn(move || {
                let mut connection = Publisher::open(&node.publish_addr().to_string()).unwrap();
                let mut order: Vec<usize> = (0..TOPICS * EACH).map(|n| n % TOPICS).collect();
                random.shuffle(&mut order);
                let mut next = [0; TOPICS];
                for topic in order {
                    let data = format!("[{publisher},{topic},{}]", next[topic]);
                    next[topic] += 1;
                    connection.publish(&Event::new(&[&names[topic]], "e", &data)).unwrap();
                    if random.u8(..) < 10 {
                        connection.flush().unwrap();
                    }
                }
                connection.close().unwrap();
            });
        }
        for (client, topics) in &mut clients {
            scope.spawn(move || {
                let mut next = HashMap::new();
                for _ in 0..topics.len() * PUBLISHERS * EACH {
                    let text = client.next_text(PATIENCE);
                    let data =
                        text.split_once(r#""data":["#).and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
                    let numbers: Vec<usize> = data.split(',').map(|number| number.parse().unwrap()).collect();
                    let expected = next.entry((numbers[0], numbers[1])).or_insert(0);
                    assert_eq!(numbers[2], *expected, "publisher {}, topic {}", numbers[0], numbers[1]);
                    *expected += 1;
                    assert!(topics.contains(&numbers[1]));
                }
            });
        }
    });
    let expected: usize = clients.iter().map(|(_, topics)| topics.len() * PUBLISHERS * EACH).sum();
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    assert_eq!((&stats["deliveries"], &stats["dispatched"]), (&json!(expected), &json!(expected)));
    assert_eq!((&stats["eventsIn"], &stats["dropped"]), (&json!(TOPICS * PUBLISHERS * EACH), &json!({})));
}
