//! `--diagnostics`: the echoes for test suites, and that nobody else gets them.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Node, PATIENCE, TempDir, WebSocket, fanwire, header, http, read_response, run_any, wait_until};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

const MIB: usize = 1 << 20;

fn node() -> Node {
    Node::start(&["--diagnostics", "--shards", "1"])
}

fn echo(node: &Node) -> WebSocket {
    WebSocket::connect(node.http_addr(), "/echo")
}

/// The next message of the echo, whatever it is.
fn receive(client: &mut WebSocket) -> Message {
    client.socket().get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    client.socket().read().expect("a message")
}

/// A frame of a client, masked, with a header that need not be right.
fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x01, 0xc3, 0x7f];
    let header = FrameHeader { is_final, opcode, mask: Some(mask), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A message in fragments, with what stands between them.
fn fragments(first: Data, pieces: &[&[u8]], between: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = OpCode::Data(if index == 0 { first } else { Data::Continue });
        let is_final = index + 1 == pieces.len();
        bytes.extend(frame(opcode, is_final, piece));
        if !is_final {
            bytes.extend_from_slice(between);
        }
    }
    bytes
}

/// Bytes that are neither text nor all alike.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 251) as u8).collect()
}

fn text(length: usize) -> String {
    "0123456789abcde\n".chars().cycle().take(length).collect()
}

#[test]
fn messages_of_every_size_come_back() {
    let node = node();
    let mut client = echo(&node);
    for size in [0, 1, 125, 126, 65_535, 65_536, MIB, 16 * MIB] {
        for message in [Message::text(text(size)), Message::binary(noise(size))] {
            client.socket().send(message.clone()).expect("send");
            let answer = receive(&mut client);
            assert!(answer == message, "{size} bytes: {} came back", answer.len());
        }
    }
    for message in [Message::text(text(16 * MIB + 1)), Message::binary(noise(16 * MIB + 1))] {
        let mut client = echo(&node);
        // The node may have closed before it has it all.
        let _ = client.socket().send(message);
        assert_eq!(client.wait_closed(PATIENCE).map(|(code, _)| code), Some(1009));
    }
}

#[test]
fn fragments_come_back_as_one_message() {
    let node = node();
    let (body, utf8) = (noise(100_000), "αβγ€𝄞".repeat(1000));
    let cut = |bytes, size| <[u8]>::chunks(bytes, size).collect::<Vec<_>>();
    let ping = frame(OpCode::Control(Control::Ping), true, b"here?");
    let many = 70_000; // More than any other client may send.
    for (name, first, pieces, between) in [
        ("in two", Data::Binary, cut(&body, 50_000), &[][..]),
        ("in many", Data::Binary, cut(&body, 7), &[]),
        ("inside characters", Data::Text, cut(utf8.as_bytes(), 1), &[]),
        ("with pings between", Data::Text, cut(utf8.as_bytes(), 1000), &ping),
        ("empty", Data::Text, vec![&[][..]; 3], &[]),
        ("with empty ones", Data::Binary, vec![b"", b"a", b"", b"b", b""], &ping),
        ("very many", Data::Binary, vec![&b""[..]; many], &[]),
    ] {
        let mut client = echo(&node);
        client.socket().get_mut().write_all(&fragments(first, &pieces, between)).expect("write");
        let pings = if between.is_empty() { 0 } else { pieces.len() - 1 };
        for _ in 0..pings {
            assert_eq!(receive(&mut client), Message::Pong("here?".into()), "{name}");
        }
        let whole = pieces.concat();
        let expected = match first {
            Data::Text => Message::text(String::from_utf8(whole).unwrap()),
            _ => Message::binary(whole),
        };
        assert!(receive(&mut client) == expected, "{name}");
    }
}

#[test]
fn an_echo_goes_out_before_the_close_that_ends_the_session() {
    let node = node();
    let message = frame(OpCode::Data(Data::Text), true, b"first");
    let close = frame(OpCode::Control(Control::Close), true, &[0x0b, 0xb8, b'b', b'y', b'e']);
    let text = |is_final, bytes| frame(OpCode::Data(Data::Text), is_final, bytes);
    let reserved = frame(OpCode::Data(Data::Reserved(3)), true, b"");
    for (last, code) in [
        (close, 3000),
        (reserved, 1002),
        (text(true, b"\xff"), 1007),
        // It cannot become a character any more.
        (text(false, b"\xf4\x90"), 1007),
    ] {
        let mut client = echo(&node);
        let all = [&message[..], &message, &last].concat();
        client.socket().get_mut().write_all(&all).expect("write");
        assert_eq!(receive(&mut client), Message::text("first"), "{code}");
        assert_eq!(receive(&mut client), Message::text("first"), "{code}");
        let Message::Close(Some(frame)) = receive(&mut client) else { panic!("no close with {code}") };
        assert_eq!(frame.code, CloseCode::from(code));
    }
}

#[test]
fn a_client_whose_echo_waits_is_not_read() {
    let node = node();
    let mut client = WebSocket::connect_narrow(node.http_addr(), "/echo");
    let size = 4 * MIB;
    let message = frame(OpCode::Data(Data::Binary), true, &noise(size));
    // So many that what the kernels take is not what stops them.
    let count = 12;
    let all = message.repeat(count);
    let stream = client.socket().get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < all.len() {
        match stream.write(&all[sent..]) {
            Ok(written) => sent += written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < all.len(), "everything was read, and nothing of the echo taken");
    let held = || node.stats()["outbox"]["heldBytes"].as_u64().unwrap_or(u64::MAX);
    assert!(held() <= (size + 256 * 1024) as u64, "{} bytes wait for one client", held());
    // Once it takes them, all come, whole and in order.
    let rest = all[sent..].to_vec();
    let mut writer = client.socket().get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.set_write_timeout(Some(PATIENCE)).unwrap();
        writer.write_all(&rest).expect("write");
    });
    for _ in 0..count {
        assert!(receive(&mut client) == Message::binary(noise(size)));
    }
    writing.join().unwrap();
    wait_until(PATIENCE, || (held() == 0).then_some(())).expect("nothing waits");
}

#[test]
fn requests_are_told_as_they_were_read() {
    let node = node();
    let host = node.http_addr().to_string();
    let long = "x".repeat(100_000);
    let long_body = format!("Content-Length: 100000||{long}");
    for (method, target, rest, query, headers, body) in [
        ("GET", "/diagnostics/http", "|", json!(null), json!([]), json!({"text": ""})),
        ("DELETE", "/diagnostics/http?", "|", json!(""), json!([]), json!({"text": ""})),
        ("OPTIONS", "/diagnostics/http?a=%20&b", "|", json!("a=%20&b"), json!([]), json!({"text": ""})),
        (
            "BREW",
            "/diagnostics/http",
            "b: 2|a: 1|B:  3 ||",
            json!(null),
            json!([["b", "2"], ["a", "1"], ["B", "3"]]),
            json!({"text": ""}),
        ),
        (
            "POST",
            "/diagnostics/http",
            "Content-Length: 7||Grüße",
            json!(null),
            json!([["Content-Length", "7"]]),
            json!({"text": "Grüße"}),
        ),
        (
            "PATCH",
            "/diagnostics/http",
            "Transfer-Encoding: chunked||2;x=y|a\u{0}|1|b|0|T: x||",
            json!(null),
            json!([["Transfer-Encoding", "chunked"]]),
            json!({"base64": "YQBi"}),
        ),
        (
            "PUT",
            "/diagnostics/http",
            &long_body,
            json!(null),
            json!([["Content-Length", "100000"]]),
            json!({"text": long}),
        ),
    ] {
        let head = format!("{method} {target} HTTP/1.1|Host: {host}|{rest}").replace('|', "\r\n");
        // Twice on one connection: what follows the body is the next request.
        let mut stream = TcpStream::connect(node.http_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..2 {
            stream.write_all(head.as_bytes()).unwrap();
            let (status, answer_headers, answer) = read_response(&mut stream, false).unwrap();
            assert_eq!((status, header(&answer_headers, "connection")), (200, Some("keep-alive")), "{head}");
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            let length = answer["bodyLength"].take();
            let shown = answer["body"]["text"].as_str().map(str::len);
            assert_eq!(length, shown.unwrap_or(3), "{method}");
            let all = [vec![json!(["Host", host])], headers.as_array().unwrap().clone()].concat();
            let expected = json!({
                "method": method, "path": "/diagnostics/http", "query": query, "version": "1.1",
                "headers": all, "bodyLength": null, "body": body,
            });
            assert_eq!(answer, expected);
        }
    }
}

#[test]
fn the_production_parser_refuses_what_it_refuses_elsewhere() {
    let node = Node::start(&["--diagnostics", "--max-body-bytes", "10"]);
    let upgrade = "Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|";
    for (request, expected) in [
        ("POST /diagnostics/http HTTP/1.1|Host: n|Content-Length: 10||0123456789".to_owned(), 200),
        ("POST /diagnostics/http HTTP/1.1|Host: n|Content-Length: 11||".to_owned(), 413),
        (
            "POST /diagnostics/http HTTP/1.1|Host: n|Content-Length: 1|Transfer-Encoding: chunked||"
                .to_owned(),
            400,
        ),
        ("GET /diagnostics/http HTTP/1.1||".to_owned(), 400),
        ("GET /diagnostics/http HTTP/1.0||".to_owned(), 200),
        ("HEAD /diagnostics/http HTTP/1.1|Host: n||".to_owned(), 200),
        (format!("GET /diagnostics/http HTTP/1.1|Host: n|{upgrade}|"), 404),
        ("GET /echo HTTP/1.1|Host: n||".to_owned(), 426),
    ] {
        let mut stream = TcpStream::connect(node.http_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.replace('|', "\r\n").as_bytes()).unwrap();
        let (status, _, _) = read_response(&mut stream, request.starts_with("HEAD")).unwrap();
        assert_eq!(status, expected, "{request}");
    }
    // A body that is waited with is asked for.
    let mut stream = TcpStream::connect(node.http_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        "POST /diagnostics/http HTTP/1.1\r\nHost: n\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"!").unwrap();
    assert_eq!(read_response(&mut stream, false).unwrap().0, 200);
}

#[test]
fn without_the_switch_there_is_nothing_and_the_paths_are_free() {
    let dir = TempDir::new();
    let settings = "[[stream]]\npath = '/{any}'\ntopic = 'of:{any}'\nenvelope = '{data}'\n";
    std::fs::write(dir.path().join("streams.toml"), settings.replace("{any}", "echo/{any}")).unwrap();
    let node = Node::start_in(dir, &["--config", "streams.toml"]);
    for (method, path) in [("GET", "/echo"), ("GET", "/diagnostics/http"), ("POST", "/diagnostics/http")] {
        assert_eq!(http(node.http_addr(), method, path, &[], b"").0, 404, "{method} {path}");
    }
    assert!(WebSocket::try_connect(node.http_addr(), "/echo").is_err());

    let dir = TempDir::new();
    for (path, refused_with, refused_without) in [
        ("/echo", true, false),
        ("/diagnostics/{any}", true, false),
        ("/ws", true, true),
        ("/echoes", false, false),
    ] {
        let topic = if path.contains('{') { "{any}" } else { "t" };
        let file = dir.path().join("fanwire.toml");
        let stream = format!("[[stream]]\npath = '{path}'\ntopic = '{topic}'\nenvelope = '{{data}}'\n");
        std::fs::write(&file, stream).unwrap();
        for (flags, refused) in [(&["--diagnostics"][..], refused_with), (&[], refused_without)] {
            let mut check = fanwire();
            check.arg("check").arg("--config").arg(&file).args(flags);
            let (status, _, stderr) = run_any(&mut check, PATIENCE);
            assert_eq!(!status.success(), refused, "{path} {flags:?}: {stderr}");
            assert_eq!(stderr.contains("which the node serves itself"), refused, "{stderr}");
        }
    }
}

#[test]
fn off_loopback_it_does_not_start() {
    for flags in [
        &["--listen", "0.0.0.0:0", "--insecure"][..],
        &["--listen", "127.0.0.1:0", "--listen", "[::]:0", "--operator-token", "x"],
        &["--admin", "0.0.0.0:0", "--insecure"],
    ] {
        let (status, stdout, stderr) =
            run_any(fanwire().args(["serve", "--diagnostics"]).args(flags), PATIENCE);
        assert_eq!((status.code(), &*stdout), (Some(1), ""), "{flags:?}");
        for part in ["diagnostics is for loopback addresses only", "can be reached from other machines"] {
            assert!(stderr.contains(part), "{stderr}");
        }
    }
}
