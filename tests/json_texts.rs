//! JSON as test suites for parsers ask it: what must be read, what must not, and what is left to the reader, where
//! there is one rule of our own. Each text through every way in: as the data of a publish frame, as the data of an
//! HTTP request, and in a message of a client. What is accepted reaches a subscriber byte for byte.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::raw::RawClient;
use common::{Node, PATIENCE, WebSocket, http};
use fanwire::proto::websocket::masked;
use fanwire::publish::wire::{FLAG_ACK, HEADER_LEN, Header, Kind, VERSION};
use serde_json::{Value, json};

/// Must be read.
const YES: &[&[u8]] = &[
    // Arrays.
    b"[]",
    b"[ ]",
    b"[[]   ]",
    b"[\"\"]",
    b"[null, 1, \"1\", {}]",
    b"[1\n]",
    b" [1] ",
    b"[1,null,null,null,2]",
    // Numbers.
    b"0",
    b"-0",
    b"[123e65]",
    b"[0e+1]",
    b"[0e1]",
    b"[20e1]",
    b"[-123]",
    b"[1E22]",
    b"[1E-2]",
    b"[1E+2]",
    b"[123.456e78]",
    b"[123.456789]",
    b"[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
    b"[0.1]",
    // Objects.
    b"{}",
    b"{\"\":0}",
    b"{\"a\":[]}",
    b"{\"foo\\u0000bar\":42}",
    b"{\"min\":-1.0e+28,\"max\":1.0e+28}",
    b"{\"a\":\"b\",\n\"c\":\"d\"\n}",
    b"{\"x\":[{\"id\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}],\"id\":\"x\"}",
    // Strings.
    b"\"\"",
    b"[\"\\u0060\\u012a\\u12AB\"]",
    b"[\"\\ud801\\udc37\"]",
    b"[\"\\ud83d\\ude39\\ud83d\\udc8d\"]",
    b"[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
    b"[\"\\\\u0000\"]",
    b"[\"\\\"\"]",
    b"[\"a/*b*/c/*d//e\"]",
    b"[\"\\\\a\"]",
    b"[\"\\\\n\"]",
    b"[\"\\u0012\"]",
    b"[\"\\uFFFF\"]",
    b"[ \"asd\"]",
    "[\"\u{10ffff}\"]".as_bytes(),
    "[\"\u{ffff}\"]".as_bytes(),
    "[\"\u{2028}\u{2029}\"]".as_bytes(),
    "[\"π €𝄞\u{feff}\"]".as_bytes(),
    b"[\"new\\u000Aline\"]",
    b"[\"\x7f\"]",
    b"[\"\\uD834\\uDd1e\"]",
    // Whole texts.
    b"false",
    b"true",
    b"null",
    b"42",
    b"-0.1",
    b"\"asd\"",
    b"\t{\r\n} ",
    b"[true]",
];

/// Must not be read.
const NO: &[&[u8]] = &[
    // Arrays.
    b"[1 true]",
    b"[\"\": 1]",
    b"[,1]",
    b"[1,,2]",
    b"[\"x\",,]",
    b"[\"x\"]]",
    b"[\"\",]",
    b"[\"x\"",
    b"[x",
    b"[3[4]]",
    b"[,]",
    b"[-]",
    b"[   , \"\"]",
    b"[\"a\",\n4\n,1,",
    b"[1,]",
    b"[\"\x0ba\"\\f]",
    b"[*]",
    b"[\"\"",
    b"[1,",
    b"[{}",
    b"[\xff]",
    // Words.
    b"[fals]",
    b"[nul]",
    b"[tru]",
    b"[True]",
    b"nullx",
    b"TRUE",
    b"undefined",
    // Numbers.
    b"[-01]",
    b"[-1.0.]",
    b"[-2.]",
    b"[-NaN]",
    b"[.-1]",
    b"[.2e-3]",
    b"[0.1.2]",
    b"[0.3e+]",
    b"[0.3e]",
    b"[0.e1]",
    b"[0E]",
    b"[0e+]",
    b"[1.0e+]",
    b"[1 000.0]",
    b"[1eE2]",
    b"[2.e+3]",
    b"[+1]",
    b"[++1234]",
    b"[+Inf]",
    b"[Infinity]",
    b"[-Infinity]",
    b"[NaN]",
    b"[0x1]",
    b"[0x42]",
    b"[-foo]",
    b"[- 1]",
    b"[-012]",
    b"[-.123]",
    b"[1ea]",
    b"[1+2]",
    b"[1.]",
    b"[.123]",
    b"[1.2a-3]",
    b"[1.8011670033376514H-308]",
    b"[012]",
    b"2.",
    b"1_000",
    "[\u{ff11}]".as_bytes(),
    b"[123\xe5]",
    // Objects.
    b"[\"x\", truth]",
    b"{[: \"x\"}",
    b"{\"x\", null}",
    b"{\"x\"::\"b\"}",
    b"{\"a\":\"a\" 123}",
    b"{key: 'value'}",
    b"{\"a\" b}",
    b"{:\"b\"}",
    b"{\"a\" \"b\"}",
    b"{\"a\":",
    b"{\"a\"",
    b"{1:1}",
    b"{9999E9999:1}",
    b"{null:null,null:null}",
    b"{\"id\":0,,,,,}",
    b"{'a':0}",
    b"{\"id\":0,}",
    b"{\"a\":\"b\"}/**/",
    b"{\"a\":\"b\"}//",
    b"{\"a\":\"b\",,\"c\":\"d\"}",
    b"{a: \"b\"}",
    b"{\"a\":\"a",
    b"{ \"foo\" : \"bar\", \"a\" }",
    b"{\"a\":\"b\"}#",
    // Strings.
    b"[\"\\uD800\\u\"]",
    b"[\"\\uD800\\u1\"]",
    b"[\"\\uD800\\u1x\"]",
    b"[\\u0020\"asd\"]",
    b"[\\n]",
    b"[\"\\x00\"]",
    b"[\"\\\\\\\"]",
    b"[\"\\\t\"]",
    b"[\"\\\xf0\x9f\x8c\x80\"]",
    b"[\"\\\"]",
    b"[\"\\u00A\"]",
    b"[\"\\uD834\\uDd\"]",
    b"[\"\\uD800\\uD800\\x\"]",
    b"[\"\\u\xe5\"]",
    b"[\"\\a\"]",
    b"[\"\\uqqqq\"]",
    b"[\"\\U0041\"]",
    b"[\"\\'\"]",
    b"['single quote']",
    b"abc",
    b"[\"\\",
    b"[\"a\x00a\"]",
    b"[\"new\nline\"]",
    b"[\"\t\"]",
    b"[\"\x1f\"]",
    b"\"",
    b"\"\"x",
    // Whole texts.
    b"<.>",
    b"[<null>]",
    b"[1]x",
    b"[1]]",
    b"[\"asd]",
    b"a\xc3\xa5",
    b"[true",
    b"1]",
    b"{\"x\": true,",
    b"[][]",
    b"]",
    b"{]",
    b"[}",
    b"{}}",
    b"\xc3",
    b"{\"\":",
    b"{\"a\": true} \"x\"",
    b"'",
    b"[\"a",
    b"[\x0c]",
    b"\xe2\x81\xa0",
    b"[\xe2\x81\xa0]",
    b"\xc2\xa0[]",
    b"[\xe2\x80\xa8]",
    b"1 2",
    b"/* */ 1",
    b"*",
    b"{\"a\":/*comment*/\"b\"}",
    b"[\x00]",
    b"1\x00",
];

/// Left to the reader, and read here: it is for who uses a number or a string to have one.
const OURS_YES: &[&[u8]] = &[
    // Numbers of any size.
    b"[123.456e-789]",
    b"[0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999999999999969999999006]",
    b"[-1e+9999]",
    b"[1.5e+9999]",
    b"[-123123e100000]",
    b"[-123123123123123123123123123123]",
    b"[100000000000000000000]",
    // Halves of surrogate pairs, escaped.
    b"[\"\\uDADA\"]",
    b"[\"\\uD888\\u1234\"]",
    b"[\"\\uD800\\n\"]",
    b"[\"\\uDd1ea\"]",
    b"[\"\\uD800\\uD800\\n\"]",
    b"[\"\\ud800\"]",
    b"[\"\\uDd1e\\uD834\"]",
    b"{\"\\uDFAA\":0}",
    // Names more than once, and those that mean something elsewhere.
    b"{\"a\":\"b\",\"a\":\"c\"}",
    b"{\"a\":1,\"\\u0061\":2}",
    b"{\"__proto__\":{\"x\":1},\"constructor\":{\"prototype\":{}}}",
];

/// Left to the reader, and refused here: a text is UTF-8 and nothing else.
const OURS_NO: &[&[u8]] = &[
    // A byte order mark.
    b"\xef\xbb\xbf{}",
    b"\xef\xbb\xbf",
    // UTF-16.
    b"\xff\xfe[\0\"\0\xe9\0\"\0]\0",
    b"\0[\0\"\0\xe9\0\"\0]",
    b"\xff\xfe",
    // Not UTF-8: halves of pairs written out, too long, too large, cut off.
    b"[\"\xed\xa0\x80\"]",
    b"[\"\xed\xa0\xb5\xed\xb4\x9e\"]",
    b"[\"\xc0\xaf\"]",
    b"[\"\xfc\x80\x80\x80\x80\xaf\"]",
    b"[\"\xf4\xbf\xbf\xbf\"]",
    b"[\"\xe0\xff\"]",
    b"[\"\xff\"]",
    b"[\"\x81\"]",
    b"[\"\xe9\"]",
    b"[\"\xe6\x97\xa5\xd1\x88\xfa\"]",
];

/// Every text and whether it is read. Depth is bounded by the size of a text alone.
fn texts() -> Vec<(Vec<u8>, bool)> {
    let list = |texts: &[&[u8]], good| texts.iter().map(|text| (text.to_vec(), good)).collect::<Vec<_>>();
    let mut all = [list(YES, true), list(NO, false), list(OURS_YES, true), list(OURS_NO, false)].concat();
    let nested = |open: &str, close: &str, depth: usize| [open.repeat(depth), close.repeat(depth)].concat();
    all.push((nested("[", "]", 500).into(), true));
    all.push((nested("[", "]", 20_000).into(), true));
    all.push((nested("{\"a\":", "}", 5000).replacen(":}", ":1}", 1).into(), true));
    all.push(("[".repeat(50_000).into(), false));
    all.push(("[{\"\":".repeat(10_000).into(), false));
    all.push((format!("[{}]", "9".repeat(30_000)).into(), true));
    all.push((format!("[1e{}]", "9".repeat(30_000)).into(), true));
    all
}

/// A PUBLISH frame with these bytes as its data.
fn frame(data: &[u8], sequence: u64) -> Vec<u8> {
    let length = (16 + 2 + data.len()) as u32;
    let header = Header { length, version: VERSION, kind: Kind::Publish as u8, flags: FLAG_ACK, sequence };
    let mut out = header.to_bytes().to_vec();
    for field in [1_u16, 1, 0, 0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&0_u64.to_le_bytes());
    out.extend_from_slice(b"te");
    out.extend_from_slice(data);
    out
}

/// The data as it stands in the next event.
fn next_data(client: &mut WebSocket) -> String {
    let text = client.next_text(PATIENCE);
    let (_, rest) = text.split_once(r#","data":"#).unwrap_or_else(|| panic!("no data: {text}"));
    rest.rsplit_once(r#","timestamp":"#).expect("a timestamp").0.to_owned()
}

fn shown(text: &[u8]) -> String {
    text[..text.len().min(60)].escape_ascii().to_string()
}

#[test]
fn the_data_of_a_frame_is_one_strict_text_passed_on_untouched() {
    let node = Node::start(&["--shards", "1"]);
    let mut subscriber = node.websocket();
    subscriber.subscribe(&["t"]);
    let mut publisher = TcpStream::connect(node.publish_addr()).unwrap();
    publisher.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut good, mut bad) = (0, 0);
    for (sequence, (text, is_read)) in texts().into_iter().enumerate() {
        publisher.write_all(&frame(&text, sequence as u64)).unwrap();
        let mut header = [0; HEADER_LEN];
        publisher.read_exact(&mut header).unwrap();
        let header = Header::parse(&header);
        let mut body = vec![0; header.length as usize];
        publisher.read_exact(&mut body).unwrap();
        assert_eq!(header.sequence, sequence as u64);
        let kind = if is_read { Kind::Ack } else { Kind::Error };
        assert_eq!(header.kind, kind as u8, "{}: {}", shown(&text), String::from_utf8_lossy(&body));
        if is_read {
            good += 1;
            assert_eq!(next_data(&mut subscriber).as_bytes(), text);
        } else {
            bad += 1;
            assert_eq!(body[..2], 5_u16.to_le_bytes(), "{}: bad_data", shown(&text));
        }
    }
    let stats = node.wait_stats("all of them", |stats| stats["eventsIn"] == good);
    assert_eq!(stats["refused"], json!({ "bad_data": bad }));
}

#[test]
fn the_data_of_a_request_is_held_to_the_same() {
    let node = Node::start(&["--shards", "1"]);
    let mut subscriber = node.websocket();
    subscriber.subscribe(&["t"]);
    for (text, is_read) in texts() {
        let body = [&br#"{"topic":"t","event":"e","data":"#[..], &text, b"}"].concat();
        let (status, _, answer) = http(node.http_addr(), "POST", "/api/publish", &[], &body);
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(status, if is_read { 200 } else { 400 }, "{}: {answer}", shown(&text));
        if is_read {
            let data = next_data(&mut subscriber);
            // White space around a value is the request's.
            assert_eq!(data, std::str::from_utf8(&text).unwrap().trim_matches([' ', '\t', '\r', '\n']));
        } else {
            assert_eq!(answer["accepted"], 0);
        }
    }
}

#[test]
fn a_clients_message_is_held_to_the_same_and_its_sender_stays() {
    let node = Node::start(&["--shards", "1"]);
    let mut client = RawClient::connect(node.http_addr());
    for (text, is_read) in texts() {
        let message = [&br#"{"type":"ping","x":"#[..], &text, b"}"].concat();
        client.send(&masked(0x81, &message));
        if std::str::from_utf8(&text).is_err() {
            // Text that is none ends a WebSocket (RFC 6455 section 8.1).
            assert_eq!(client.wait_close().map(|(code, _)| code), Some(1007), "{}", shown(&text));
            client = RawClient::connect(node.http_addr());
            continue;
        }
        let answer: Value = serde_json::from_str(&client.next_text()).unwrap();
        let kind = if is_read { "pong" } else { "error" };
        assert_eq!(answer["type"], kind, "{}: {answer}", shown(&text));
    }
}

/// What a message or an event of the API says twice, or says with characters that names may not have.
#[test]
fn what_is_read_is_read_once_and_names_are_data() {
    let node = Node::start(&["--shards", "1"]);
    let mut client = node.websocket();
    for (message, expected) in [
        (r#"{"type":"ping","type":"ping"}"#, "duplicate field `type`"),
        (r#"{"type":"ping","\u0074ype":"pong"}"#, "duplicate field `type`"),
        (r#"{"type":"subscribe","topics":["a"],"topics":["b"]}"#, "duplicate field"),
        (r#"{"type":"subscribe","topics":["a"],"categories":["b"]}"#, "duplicate field"),
        (r#"{"type":"subscribe","topics":["a"],"since":{"a":null,"a":null}}"#, "twice"),
        (
            r#"{"type":"subscribe","topics":["a"],"since":{"a":{"epoch":"0","epoch":"1","offset":1}}}"#,
            "duplicate field",
        ),
        (
            r#"{"type":"subscribe","topics":["a"],"since":{"a":{"epoch":"0","offset":18446744073709551616}}}"#,
            "malformed",
        ),
        (r#"{"type":"subscribe","topics":["a"],"since":{"a":{"epoch":"0","offset":-1}}}"#, "malformed"),
        (r#"{"type":"subscribe","topics":["a"],"since":{"a":{"epoch":"0","offset":1.0}}}"#, "malformed"),
        (r#"{"type":"subscribe","topics":["\ud800"]}"#, "malformed"),
        (r#"{"type":"subscribe","topics":["a\u0000"]}"#, "control character"),
        (r#"{"type":"subscribe","topics":["a"],"clientId":"\udc00"}"#, "malformed"),
        (r#"{"type":"subscribe","topics":[["a"]]}"#, "malformed"),
        (r#"{"type":"subscribe","topics":{"0":"a"}}"#, "malformed"),
        ("\u{feff}{\"type\":\"ping\"}", "malformed"),
        ("{\"type\":\"ping\"}\0", "malformed"),
        (r#"["ping"]"#, "malformed"),
        (r#"{"__proto__":{"type":"ping"}}"#, "missing field `type`"),
    ] {
        client.send_text(message);
        let answer = client.next_json(PATIENCE);
        let error = answer["data"]["error"].as_str().unwrap_or_else(|| panic!("{message}: {answer}"));
        assert!(error.contains(expected), "{message}: {error}");
    }
    for (message, topics) in [
        (
            r#"{"type":"subscribe","topics":["__proto__","constructor"],"__proto__":{"topics":["x"]},"x":1,"x":2}"#,
            json!(["__proto__", "constructor"]),
        ),
        (r#"{"type":"unsubscribe","topics":["constructor"]}"#, json!(["__proto__"])),
        (
            "{\"type\":\"subscribe\",\"topics\":[\"\\ud83d\\ude00\",\"\u{1f600}\"]}",
            json!(["__proto__", "\u{1f600}"]),
        ),
    ] {
        client.send_text(message);
        assert_eq!(client.next_json(PATIENCE)["data"]["categories"], topics, "{message}");
    }
    let publish = |body: &str| http(node.http_addr(), "POST", "/api/publish", &[], body.as_bytes()).0;
    for body in [
        r#"{"topic":"a","topic":"b","event":"e"}"#,
        r#"{"topic":"a","event":"e","event":"e"}"#,
        r#"{"topic":"a","event":"e","data":1,"data":2}"#,
        r#"{"topic":"a","event":"e","d\u0061ta":1,"data":2}"#,
        r#"{"topic":"\ud800","event":"e"}"#,
        r#"{"topic":"a","event":"e\u0000"}"#,
        r#"{"topic":"a","event":"e","__proto__":{}}"#,
        r#"{"topic":"a","event":"e","key":"\u0007"}"#,
        "\u{feff}{\"topic\":\"a\",\"event\":\"e\"}",
        "{\"topic\":\"a\",\"event\":\"e\"}\0",
        r#"[{"topic":"a","event":"e"},]"#,
        r#"[[{"topic":"a","event":"e"}]]"#,
        r#"[{"topic":"a","event":"e"}]]"#,
    ] {
        assert_eq!(publish(body), 400, "{body}");
    }
    assert_eq!(publish(r#"{"topic":"__proto__","event":"constructor","data":{"__proto__":1}}"#), 200);
    let event = client.next_json(PATIENCE);
    assert_eq!((&event["category"], &event["event"]), (&"__proto__".into(), &"constructor".into()));
    assert_eq!(node.stats()["eventsIn"], 1);
}
