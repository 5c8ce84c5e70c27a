//! `permessage-deflate` on a real node: clients that take it and clients that do not get the same, whoever sends
//! compressed is understood, and whoever sends a bomb harms nobody else.

mod common;

use std::net::TcpStream;

use common::foreign::Foreign;
use common::raw::{RawClient, masked};
use common::{Incoming, Node, PATIENCE, WebSocket, http};
use fanwire::proto::deflate::{Deflater, Inflater};
use serde_json::{Value, json};

const SETTINGS: &str = r#"
[[topic]]
prefix = "big:"
compress_above = "512B"
history = { events = 1000, bytes = "64MiB", age = "1h" }

[[topic]]
prefix = "big:never"

[[stream]]
path = "/s/{name}"
topic = "big:{name}"
envelope = '{"data":{data},"offset":{offset}}'
"#;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// A client of bytes that compresses, and sees what came compressed.
struct Deflating(RawClient);

impl Deflating {
    fn open(node: &Node, path: &str) -> Self {
        let (client, head) = shake(node, path, OFFER);
        let answer = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
        assert!(head.contains(answer), "{head}");
        Self(client)
    }

    fn send(&mut self, message: &str) {
        self.0.send(&masked(0xc1, &deflate(message.as_bytes())));
    }

    /// The next text message, and whether it came compressed.
    fn next(&mut self) -> (String, bool) {
        let (first, payload) = self.0.next_frame_of(0xf0).expect("the connection has ended");
        let is_deflated = first == 0xc1;
        assert!(is_deflated || first == 0x81, "{first:x} {payload:?}");
        let text = match is_deflated {
            true => Inflater::default().inflate(&payload, 1 << 20).expect("a message"),
            false => payload,
        };
        (String::from_utf8(text).unwrap(), is_deflated)
    }

    fn subscribe(&mut self, message: &Value) -> Value {
        let mut whole = json!({"type": "subscribe"});
        whole.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
        self.send(&whole.to_string());
        let (ack, is_deflated) = self.next();
        assert!(!is_deflated, "only events are compressed: {ack}");
        let ack: Value = serde_json::from_str(&ack).unwrap();
        assert_eq!(ack["type"], "subscription-ack", "{ack}");
        ack
    }
}

/// A message as it is compressed: also where that gets no smaller.
fn deflate(message: &[u8]) -> Vec<u8> {
    let stored = || {
        let length = u16::try_from(message.len()).expect("one block");
        [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), message, &[0]].concat()
    };
    Deflater::default().deflate(message).map_or_else(stored, <[u8]>::to_vec)
}

/// A handshake with these headers besides: the client, and the head of the answer.
fn shake(node: &Node, path: &str, headers: &str) -> (RawClient, String) {
    let mut client = RawClient::begin(TcpStream::connect(node.http_addr()).unwrap());
    let request = common::raw::upgrade(path);
    client.send(request.replacen("\r\n\r\n", &format!("\r\n{headers}\r\n"), 1).as_bytes());
    let head = client.finish_handshake();
    (client, head)
}

fn metric(node: &Node, name: &str) -> u64 {
    let (_, _, body) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let text = String::from_utf8(body).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(&format!("fanwire_{name}_total ")));
    found.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Data of events: whether each is compressed, and what it is.
fn data() -> Vec<(bool, Value)> {
    let mut random = fastrand::Rng::with_seed(3);
    let words = |n: usize| "status running, nothing new; ".repeat(n);
    let noise: String = (0..3000).map(|_| char::from_u32(random.u32(0x4e00..0x9f00)).unwrap()).collect();
    vec![
        (false, json!({"n": 0})),
        (true, json!({"n": 1, "text": words(40)})),
        (true, json!({"n": 2, "text": words(160)})),
        (false, json!({"n": 3, "text": words(3)})),
        (true, json!({"n": 4, "text": "Grüße ☃ ".repeat(500), "quote\"": "\\\n"})),
        (true, json!({"n": 5, "text": words(4000)})),
        (true, json!({"n": 6, "noise": noise})),
        (false, json!({"n": 7})),
    ]
}

#[test]
fn all_get_the_same_whether_they_compress_or_not() {
    for shards in ["1", "2"] {
        let node = Node::start_with_file(SETTINGS, &["--shards", shards]);
        let url = |path: &str| format!("ws://{}{path}", node.http_addr());
        let programs = ["client.mjs", "client.py", "gorilla", "browser_client.mjs"];
        for (path, topic) in [("/ws", "big:1"), ("/s/2", "big:2")] {
            let mut foreign = programs.map(|program| Foreign::connect(program, &url(path)));
            // On both shards there are some of each.
            let mut plain: Vec<WebSocket> =
                (0..6).map(|_| WebSocket::connect(node.http_addr(), path)).collect();
            let mut deflating: Vec<Deflating> = (0..6).map(|_| Deflating::open(&node, path)).collect();
            let inflated = metric(&node, "messages_inflated");
            if path == "/ws" {
                // As long as what npm `ws` compresses.
                let mut topics: Vec<String> = (0..100).map(|n| format!("another topic {n}")).collect();
                topics.push(topic.to_owned());
                let message = json!({"type": "subscribe", "topics": topics});
                for client in &mut foreign {
                    client.send(&message);
                    assert_eq!(client.next_json()["type"], "subscription-ack");
                }
                for client in &mut plain {
                    client.send_json(&message);
                    assert_eq!(client.next_json(PATIENCE)["type"], "subscription-ack");
                }
                for client in &mut deflating {
                    client.subscribe(&json!({"topics": topics}));
                }
                let inflated = metric(&node, "messages_inflated") - inflated;
                assert_eq!(
                    inflated,
                    (programs.len() + deflating.len()) as u64,
                    "all compress what they send"
                );
            } else {
                let clients = foreign.len() + plain.len() + deflating.len();
                node.wait_stats("all clients", |stats| stats["dialects"]["path"] == clients);
            }
            let (before, bytes) = (metric(&node, "events_compressed"), metric(&node, "compressor_bytes_in"));
            let all = data();
            for (_, data) in &all {
                node.publish(&[topic], "e", data);
            }
            for (is_compressed, data) in &all {
                let expected = plain[0].next_text(PATIENCE);
                let read: Value = serde_json::from_str(&expected).unwrap();
                assert_eq!(read["data"], *data);
                for client in &mut plain[1..] {
                    assert_eq!(client.next_text(PATIENCE), expected);
                }
                for client in &mut deflating {
                    assert_eq!(client.next(), (expected.clone(), *is_compressed));
                }
                for client in &mut foreign {
                    assert_eq!(client.next_text(), expected);
                }
            }
            let compressed = all.iter().filter(|(is_compressed, _)| *is_compressed).count() as u64;
            assert_eq!(metric(&node, "events_compressed") - before, compressed, "once, whatever the shards");
            assert!(metric(&node, "compressor_bytes_in") - bytes > 100_000);
            assert!(metric(&node, "compressor_bytes_out") < metric(&node, "compressor_bytes_in") / 3);
        }
    }
}

#[test]
fn it_is_agreed_on_only_where_there_is_something_to_compress() {
    let offers = |node: &Node, path: &str, headers: &str| {
        shake(node, path, headers).1.contains("Sec-WebSocket-Extensions")
    };
    let without = Node::start_with_file("[[topic]]\nprefix = 'a'\n", &[]);
    assert!(!offers(&without, "/ws", OFFER));
    // Nobody reads what is offered where nothing is.
    assert!(!offers(&without, "/ws", "Sec-WebSocket-Extensions: =;\r\n"));
    let node = Node::start_with_file(SETTINGS, &["--diagnostics"]);
    for (path, headers, expected) in [
        ("/ws", "", false),
        ("/ws", OFFER, true),
        ("/ws?clientId=me", OFFER, true),
        ("/ws", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n", false),
        ("/s/1", OFFER, true),
        ("/s/1?batch=ndjson", OFFER, false),
        ("/echo", OFFER, false),
    ] {
        assert_eq!(offers(&node, path, headers), expected, "{path} {headers}");
    }
    let mut client = RawClient::begin(TcpStream::connect(node.http_addr()).unwrap());
    let request = common::raw::upgrade("/ws");
    let bad = "\r\nSec-WebSocket-Extensions: permessage-deflate;\r\n\r\n";
    client.send(request.replacen("\r\n\r\n", bad, 1).as_bytes());
    let (status, _, body) = common::read_response(&mut client.stream, false).unwrap();
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&body).contains("Sec-WebSocket-Extensions"), "{body:?}");
    // A topic of another prefix, and one whose longer prefix leaves it out.
    let mut client = Deflating::open(&node, "/ws");
    client.subscribe(&json!({"topics": ["small:1", "big:never", "big:1"]}));
    let large = json!({"text": "again and ".repeat(200)});
    for (topics, is_compressed) in [
        (&["small:1"][..], false),
        (&["big:never"], false),
        (&["big:1"], true),
        (&["big:1", "small:1"], true),
        // The first topic decides.
        (&["small:1", "big:1"], false),
    ] {
        node.publish(topics, "e", &large);
        let (text, was_compressed) = client.next();
        assert_eq!(was_compressed, is_compressed, "{topics:?}: {text}");
    }
    // Of a pattern, what its topics have.
    let mut client = Deflating::open(&node, "/ws");
    client.subscribe(&json!({"topics": ["bi*"]}));
    for (topic, is_compressed) in [("big:2", true), ("big:never:1", false), ("bit", false)] {
        node.publish(&[topic], "e", &large);
        assert_eq!(client.next().1, is_compressed, "{topic}");
    }
}

#[test]
fn what_comes_from_the_history_is_compressed_once() {
    let node = Node::start_with_file(SETTINGS, &[]);
    let all = data();
    for (_, data) in &all {
        node.publish(&["big:h"], "e", data);
    }
    let (_, _, body) = http(node.http_addr(), "GET", "/api/topics/big%3Ah", &[], b"");
    let epoch = serde_json::from_slice::<Value>(&body).unwrap()["epoch"].clone();
    let since = json!({"topics": ["big:h"], "since": {"big:h": {"epoch": epoch, "offset": 0}}});
    let mut plain = node.websocket();
    let mut message = json!({"type": "subscribe"});
    message.as_object_mut().unwrap().extend(since.as_object().unwrap().clone());
    plain.send_json(&message);
    assert_eq!(plain.next_json(PATIENCE)["data"]["recovered"], true);
    let expected: Vec<String> = all.iter().map(|_| plain.next_text(PATIENCE)).collect();
    let mut compressed = 0;
    for round in 0..3 {
        let mut client = Deflating::open(&node, "/ws");
        assert_eq!(client.subscribe(&since)["data"]["recovered"], true);
        for (text, (is_compressed, _)) in expected.iter().zip(&all) {
            assert_eq!(client.next(), (text.clone(), *is_compressed));
        }
        if round == 0 {
            compressed = metric(&node, "events_compressed");
            assert_eq!(compressed, all.iter().filter(|(is_compressed, _)| *is_compressed).count() as u64);
        }
        // Live, behind it.
        node.publish(&["small"], "e", &json!(0));
    }
    assert_eq!(metric(&node, "events_compressed"), compressed, "its frames are kept with the history");
    assert_eq!(metric(&node, "envelope_writes"), all.len() as u64);
}

#[test]
fn who_names_himself_gets_his_name_and_so_nothing_compressed() {
    let node = Node::start_with_file(SETTINGS, &[]);
    let large = json!({"text": "again and ".repeat(200)});
    let mut other = Deflating::open(&node, "/ws?topics=big:1");
    let mut client = Deflating::open(&node, "/ws?topics=big:1");
    let mut named = Deflating::open(&node, "/ws?topics=big:1&clientId=from%20the%20start");
    for client in [&mut other, &mut client, &mut named] {
        assert!(client.next().0.contains("subscription-ack"));
    }
    let expect = |client: &mut Deflating, name: Option<&str>| {
        let (text, is_deflated) = client.next();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((read["clientId"].as_str(), is_deflated), (name, name.is_none()), "{text}");
        assert_eq!(read["data"], large);
    };
    node.publish(&["big:1"], "e", &large);
    expect(&mut client, None);
    expect(&mut named, Some("from the start"));
    // In the middle of its life, with topics that it has and one more; what it sends is compressed as before.
    client.subscribe(&json!({"topics": ["big:2", "big:1"], "clientId": "me"}));
    for topic in ["big:1", "big:2"] {
        node.publish(&[topic], "e", &large);
        expect(&mut client, Some("me"));
    }
    client.subscribe(&json!({"topics": ["big:3"]}));
    node.publish(&["big:3"], "e", &large);
    expect(&mut client, Some("me"));
    // In what a path stream gets there is no name.
    let mut stream = Deflating::open(&node, "/s/3?clientId=me");
    node.wait_stats("the stream", |stats| stats["dialects"]["path"] == 1);
    node.publish(&["big:3"], "e", &large);
    expect(&mut client, Some("me"));
    assert!(stream.next().1);
    stream.0.send(&masked(0x88, &[3, 232]));
    named.0.send(&masked(0x88, &[3, 232]));
    client.0.send(&masked(0x88, &[3, 232]));
    for _ in 0..2 {
        expect(&mut other, None);
    }
    node.wait_stats("one client", |stats| stats["connections"] == 1);
    node.publish(&["big:1"], "e", &large);
    expect(&mut other, None);
}

#[test]
fn what_is_compressed_wrongly_costs_its_sender_alone() {
    let node = Node::start_with_file(SETTINGS, &[]);
    let mut bystander = Deflating::open(&node, "/ws?topics=big:1");
    bystander.next();
    let mut deflater = Deflater::default();
    let bomb = deflater.deflate(&vec![b' '; 50 << 20]).unwrap().to_vec();
    let just_above = deflater.deflate(&vec![b' '; (64 << 10) + 1]).unwrap().to_vec();
    let ping = deflate(br#"{"type":"ping"}"#);
    let (head, tail) = just_above.split_at(20);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("50 MiB of nothing", masked(0xc1, &bomb), 1009),
        ("one byte too many", masked(0xc1, &just_above), 1009),
        ("the same in fragments", [masked(0x41, head), masked(0x80, tail)].concat(), 1009),
        ("more than it may come to, compressed", masked(0xc1, &vec![0; 80_000]), 1009),
        ("what is no deflate", masked(0xc1, b"\xff\xff\xff\xff"), 1007),
        ("what breaks off", masked(0xc1, &ping[..ping.len() - 3]), 1007),
        ("what is no UTF-8", masked(0xc1, &deflate(b"{\"a\":\"\xff\"}")), 1007),
        ("binary", masked(0xc2, &ping), 1003),
        ("a compressed ping", masked(0xc9, b""), 1002),
        ("a compressed continuation", [masked(0x41, &ping[..5]), masked(0xc0, &ping[5..])].concat(), 1002),
        ("RSV2", masked(0xa1, b"{}"), 1002),
        ("RSV1 and RSV3", masked(0xd1, &ping), 1002),
    ];
    for (number, (what, bytes, expected)) in cases.iter().enumerate() {
        let mut client = Deflating::open(&node, "/ws").0;
        // The node may close before it has read all of it.
        let _ = std::io::Write::write_all(&mut client.stream, bytes);
        let closed = client.wait_close();
        assert_eq!(closed.as_ref().map(|(code, _)| *code), Some(*expected), "{what}: {closed:?}");
        node.publish(&["big:1"], "e", &json!({"n": number, "text": "again and ".repeat(200)}));
        let (text, is_compressed) = bystander.next();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["data"]["n"], number);
        assert!(is_compressed);
    }
    // Who did not agree on it may not.
    let mut client = RawClient::connect(node.http_addr());
    client.send(&masked(0xc1, &ping));
    assert_eq!(client.wait_close().map(|(code, _)| code), Some(1002));
    let stats = node.wait_stats("the bystander alone", |stats| stats["connections"] == 1);
    assert_eq!(
        stats["closed"],
        json!({"protocol_error": 5, "binary_frame": 1, "bad_utf8": 1, "bad_compression": 2, "message_too_big": 4})
    );
}

#[test]
fn messages_are_understood_however_they_are_compressed_and_cut() {
    let node = Node::start_with_file(SETTINGS, &[]);
    let mut client = Deflating::open(&node, "/ws");
    let expect = |client: &mut Deflating, kind: &str| {
        let (text, _) = client.next();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["type"], kind, "{text}");
    };
    let message = json!({"type": "subscribe", "topics": ["big:1", "big:2", "big:3", "big:4"]}).to_string();
    let deflated = deflate(message.as_bytes());
    for cut in [0, 1, 10, deflated.len()] {
        let (head, tail) = deflated.split_at(cut);
        let frames = [masked(0x41, head), masked(0x8a, b"x"), masked(0x00, b""), masked(0x80, tail)].concat();
        frames.chunks(7).for_each(|piece| client.0.send(piece));
        expect(&mut client, "subscription-ack");
    }
    // Beside what is not compressed, and without anything.
    client.0.send(&masked(0x81, br#"{"type":"ping"}"#));
    expect(&mut client, "pong");
    client.0.send(&masked(0xc1, &[0]));
    expect(&mut client, "error");
    // Messages that say much in few bytes: each is answered, in its place, though not all in one turn.
    let large = deflate(&[&b"{\"type\":\"ping\",\"pad\":\""[..], &[b'x'; 60_000], b"\"}"].concat());
    assert!(large.len() < 300);
    let mut all = Vec::new();
    for _ in 0..200 {
        all.extend(masked(0xc1, &large));
        all.extend(masked(0xc1, &deflate(b"{\"type\":\"no\"}")));
    }
    client.0.send(&all);
    for _ in 0..200 {
        expect(&mut client, "pong");
        expect(&mut client, "error");
    }
    assert_eq!(metric(&node, "messages_inflated"), 405);
    assert!(metric(&node, "inflated_bytes") > 12_000_000);
    // On a path stream they mean nothing.
    let mut stream = Deflating::open(&node, "/s/1");
    stream.0.send(&masked(0xc2, &deflate(&[0xff; 300])));
    stream.0.send(&masked(0xc1, &deflate(b"anything")));
    stream.0.send(&masked(0x89, b"still there"));
    assert_eq!(stream.0.next_frame(), Some((10, b"still there".to_vec())));
    stream.0.send(&masked(0xc1, &deflate(&[b'x'; 513])));
    assert_eq!(stream.0.wait_close().map(|(code, _)| code), Some(1009));
}

#[test]
fn a_slow_client_loses_whole_events_and_is_told() {
    let node = Node::start_with_file(SETTINGS, &["--send-buffer", "4KiB", "--queue-events", "5"]);
    let mut plain = WebSocket::connect_narrow(node.http_addr(), "/ws?topics=big:1&policy=drop-oldest");
    assert!(matches!(plain.next(PATIENCE), Incoming::Text(_)));
    let mut slow = RawClient::begin(common::raw::connect_narrow(node.http_addr()));
    let request = common::raw::upgrade("/ws?topics=big:1&policy=drop-oldest");
    slow.send(request.replacen("\r\n\r\n", &format!("\r\n{OFFER}\r\n"), 1).as_bytes());
    slow.finish_handshake();
    let mut slow = Deflating(slow);
    assert!(slow.next().0.contains("subscription-ack"));
    let mut random = fastrand::Rng::with_seed(5);
    let mut text = |n: u64| {
        let noise: String = (0..20_000).map(|_| char::from(random.u8(b'a'..=b'z'))).collect();
        json!({"n": n, "text": noise})
    };
    let mut last = 0;
    common::wait_until(PATIENCE, || {
        last += 1;
        node.publish(&["big:1"], "e", &text(last));
        (node.stats()["dropped"]["drop_oldest"].as_u64().unwrap_or(0) > 50).then_some(())
    })
    .expect("nothing is left out");
    let (mut next, mut told) = (1, 0);
    while next <= last {
        let (text, _) = slow.next();
        let message: Value = serde_json::from_str(&text).unwrap();
        match message["type"].as_str() {
            Some("gap") => {
                told += message["data"]["dropped"].as_u64().unwrap();
                next += message["data"]["dropped"].as_u64().unwrap();
            }
            _ => {
                assert_eq!(message["data"]["n"], next, "after {told} were told to be missing");
                next += 1;
            }
        }
    }
    assert!(told > 0);
}
