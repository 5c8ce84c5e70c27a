//! Tables. Every head in them is parsed whole, byte by byte, and cut at every place; the answers must be the
//! same.

use super::*;

const MAX: usize = 8 * 1024;

/// What a head came to, owned, so that two ways of reading it can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body: BodyLength,
    keep_alive: bool,
    version_minor: u8,
    expects_continue: bool,
    length: usize,
    websocket_key: Result<Option<String>, HttpError>,
}

fn seen(request: &Request<'_>, length: usize) -> Seen {
    Seen {
        method: request.method.into(),
        path: request.path.into(),
        query: request.query.map(Into::into),
        headers: request.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        body: request.body,
        keep_alive: request.keep_alive,
        version_minor: request.version_minor,
        expects_continue: request.expects_continue,
        length,
        websocket_key: websocket_key(request).map(|key| key.map(Into::into)),
    }
}

/// Reads what a connection collects, one piece after another, as the node does: until it is whole or wrong.
fn read_in_pieces(input: &[u8], ends: impl IntoIterator<Item = usize>) -> Result<Option<Seen>, HttpError> {
    let mut scan = HeadScan::default();
    for end in ends {
        if let Some((request, length)) = parse_head(&input[..end], MAX, &mut scan)? {
            return Ok(Some(seen(&request, length)));
        }
    }
    Ok(None)
}

fn read(input: &[u8]) -> Result<Option<Seen>, HttpError> {
    let whole = read_in_pieces(input, [input.len()]);
    assert_eq!(read_in_pieces(input, 0..=input.len()), whole, "byte by byte: {}", input.escape_ascii());
    if input.len() < 2000 {
        for cut in 0..=input.len() {
            assert_eq!(
                read_in_pieces(input, [cut, input.len()]),
                whole,
                "cut at {cut}: {}",
                input.escape_ascii()
            );
        }
    }
    whole
}

/// 200 where the head is good, else the status of its refusal; 0 where it is not whole.
fn status(input: &[u8]) -> u16 {
    match read(input) {
        Ok(Some(_)) => 200,
        Ok(None) => 0,
        Err(error) => {
            assert!(!error.message.is_empty() && !error.message.contains(['\r', '\n', '\0']), "{error}");
            assert_ne!(error.reason, "Unknown");
            error.status
        }
    }
}

fn good(input: &str) -> Seen {
    read(input.as_bytes()).expect(input).expect(input)
}

#[test]
fn a_usual_head_comes_apart() {
    let head = "GET /ws?categories=a,b HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\nX-Empty:\r\nX-Pad: \t v \t\r\n\r\nrest";
    let request = good(head);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/ws"));
    assert_eq!(request.query.as_deref(), Some("categories=a,b"));
    assert_eq!(request.length, head.len() - "rest".len());
    assert_eq!((request.body, request.keep_alive, request.version_minor), (BodyLength::None, true, 1));
    assert_eq!(request.headers[2], ("X-Empty".into(), String::new()));
    assert_eq!(request.headers[3], ("X-Pad".into(), "v".into()));
}

#[test]
fn one_request_after_another_is_read_with_one_scan() {
    let input = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT";
    let mut scan = HeadScan::default();
    let (first, length) = parse_head(input, MAX, &mut scan).unwrap().unwrap();
    assert_eq!(first.path, "/1");
    let rest = &input[length..];
    let (second, length) = parse_head(rest, MAX, &mut scan).unwrap().unwrap();
    assert_eq!(second.path, "/2", "one empty line in front is passed over");
    assert!(parse_head(&rest[length..], MAX, &mut scan).unwrap().is_none());
}

#[test]
fn heads_that_are_served_and_heads_that_are_not() {
    let table: &[(u16, &[u8])] = &[
        // Request lines.
        (200, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\r\nHost: a\r\n\r\n"),
        (400, b"GET\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/11\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"), // the router's 405
        (200, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), // likewise
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), // TLS
        (400, b"\x10\x00\x00\x00\x01\x01\x00\x00"),  // a publish frame
        // Targets.
        (200, b"GET /?a=b?c HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"GET //x/../y HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"GET HTTP://A HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"GET ws://a:1?x HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        (200, b"GET http://a/ HTTP/1.0\r\n\r\n"),
        (400, b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http://a@b/x HTTP/1.1\r\nHost: b\r\n\r\n"),
        (400, b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http:///x HTTP/1.0\r\n\r\n"),
        (400, b"GET http://a@b/x HTTP/1.0\r\n\r\n"),
        (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (501, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (400, b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Line ends.
        (400, b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
        (400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"),
        // Header lines.
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x07\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[31m\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n"),
        (200, b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n"),
        (200, b"GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n"),
        (200, b"GET / HTTP/1.1\r\nHost: a\r\nX:   \r\n\r\n"),
        // Host.
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (200, b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"),
        (200, b"GET / HTTP/1.0\r\n\r\n"),
        (400, b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        // Bodies.
        (200, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
        (200, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\n"), // an Arabic five
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\nCONTENT-LENGTH: 0\r\n\r\n"),
        (200, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (200, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chun\xc2\xa0ked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
        (
            400,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n"),
        (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (200, b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n"),
        (200, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"),
        (417, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: a-pony\r\n\r\n"),
        // Not whole.
        (0, b""),
        (0, b"\r"),
        (0, b"GET / HTTP/1.1\r\nHost: a\r\n\r"),
    ];
    for (expected, head) in table {
        assert_eq!(status(head), *expected, "{}: {:?}", head.escape_ascii(), read(head));
    }
}

#[test]
fn the_message_says_what_is_wrong_and_where() {
    let message = |head: &str| read(head.as_bytes()).unwrap_err().message;
    assert_eq!(
        message("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
        "header line 3 is folded onto the line before it"
    );
    assert_eq!(
        message("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n"),
        "header line 2 has white space before its colon"
    );
    assert_eq!(
        message("GET / HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n"),
        "header line 2 has a bad character in its name"
    );
    assert_eq!(message("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"), "header line 2 has no colon");
    assert_eq!(
        message("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
        "a line feed without its carriage return in header line 1, at byte 23 of the request"
    );
}

#[test]
fn what_the_fields_say() {
    assert_eq!(good("GET http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").path, "/");
    assert_eq!(good("GET http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").query.as_deref(), Some("x=1"));
    assert_eq!(good("GET http://a/b/c HTTP/1.1\r\nHost: a\r\n\r\n").path, "/b/c");
    assert_eq!(good("GET /a? HTTP/1.1\r\nHost: a\r\n\r\n").query.as_deref(), Some(""));
    assert_eq!(good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path, "*");
    for (head, keep_alive) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: y ,close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        assert_eq!(good(head).keep_alive, keep_alive, "{head}");
    }
    let post = |headers: &str| good(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    assert_eq!(post("").body, BodyLength::None);
    assert_eq!(post("Content-Length: 0\r\n").body, BodyLength::None);
    assert_eq!(post("Content-Length: 007\r\n").body, BodyLength::Length(7));
    assert_eq!(post("Transfer-Encoding: chunked\r\n").body, BodyLength::Chunked);
    assert!(post("Content-Length: 7\r\nExpect: 100-continue\r\n").expects_continue);
    assert!(!post("Expect: 100-continue\r\n").expects_continue, "there is nothing to wait with");
    assert!(!good("POST / HTTP/1.0\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n").expects_continue);
}

#[test]
fn heads_that_are_too_large() {
    let with_target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length));
    let with_header =
        |length: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(length));
    let with_headers =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(status(with_target(MAX).as_bytes()), 414);
    assert_eq!(status(with_target(1 << 20).as_bytes()), 414);
    assert_eq!(status(with_header(1 << 20).as_bytes()), 431);
    assert_eq!(status(with_headers(MAX_HEADERS).as_bytes()), 200);
    assert_eq!(status(with_headers(MAX_HEADERS + 1).as_bytes()), 431);
    assert_eq!(status(with_headers(10_000).as_bytes()), 431);
    // Exactly the limit, and every length around it.
    for target in MAX - 40..MAX + 10 {
        let head = with_target(target);
        let expected = match head.len() {
            length if length <= MAX => 200,
            length if length - "Host: a\r\n\r\n".len() <= MAX => 431,
            _ => 414,
        };
        // A request line that ends on the last byte may be called either.
        let found = status(head.as_bytes());
        assert!(
            found == expected || (expected != 200 && (found == 414 || found == 431)),
            "{}: {found}",
            head.len()
        );
    }
}

#[test]
fn a_byte_is_looked_at_once() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "x".repeat(8000));
    let mut scan = HeadScan::default();
    for end in 0..=head.len() {
        assert!(parse_head(&head.as_bytes()[..end], MAX, &mut scan).unwrap().is_none());
        assert!(scan.checked + 1 >= end, "only a carriage return is looked at again");
    }
}

#[test]
fn nothing_panics_and_no_cut_matters_whatever_the_bytes() {
    let seeds: [&[u8]; 4] = [
        b"GET /ws?a=%41 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"POST http://a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\nContent-Length: 12\r\nX: \xc3\xa9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n z\r\n\r\n",
    ];
    let interesting = b"\r\n\0 \t:/*?#%,;=\xff\x80AHTP10.";
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        let mut bytes = random.choice(seeds).unwrap().to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = *random.choice(interesting).unwrap(),
                1 => bytes.insert(at, *random.choice(interesting).unwrap()),
                _ => drop(bytes.remove(at)),
            }
        }
        let _ = status(&bytes);
    }
}

// ---- The WebSocket upgrade ----

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// 101, 200 (no upgrade asked for), or the status of the refusal.
fn upgrade_status(head: &str) -> u16 {
    match read(head.as_bytes()) {
        Err(error) => error.status,
        Ok(None) => 0,
        Ok(Some(request)) => match request.websocket_key {
            Ok(Some(_)) => 101,
            Ok(None) => 200,
            Err(error) => error.status,
        },
    }
}

#[test]
fn sixty_upgrades() {
    // Each line changes one thing of a good request; `-` leaves that part out.
    let usual = [
        "GET /ws HTTP/1.1",
        "Host: a",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
    ];
    let key = format!("Sec-WebSocket-Key: {KEY}");
    let head = |part: usize, instead: &str| {
        let mut lines: Vec<&str> = usual.into_iter().chain([key.as_str()]).collect();
        match (part < lines.len(), instead) {
            (true, "-") => drop(lines.remove(part)),
            (true, _) => lines[part] = instead,
            (false, _) => lines.push(instead),
        }
        lines.join("\r\n") + "\r\n\r\n"
    };
    const LINE: usize = 0;
    const HOST: usize = 1;
    const CONNECTION: usize = 2;
    const UPGRADE: usize = 3;
    const VERSION: usize = 4;
    const WS_KEY: usize = 5;
    const MORE: usize = 6;
    let table: &[(u16, usize, &str)] = &[
        (101, LINE, "GET /ws HTTP/1.1"),
        (101, LINE, "GET /ws?a=b HTTP/1.1"),
        (101, LINE, "GET ws://a/ws HTTP/1.1"),
        (400, LINE, "get /ws HTTP/1.1"),
        (400, LINE, "POST /ws HTTP/1.1"),
        (400, LINE, "HEAD /ws HTTP/1.1"),
        (400, LINE, "OPTIONS * HTTP/1.1"),
        (400, LINE, "GET /ws HTTP/1.0"),
        (505, LINE, "GET /ws HTTP/2.0"),
        (400, LINE, "GET /ws"),
        (400, LINE, "GET /ws#x HTTP/1.1"),
        (400, HOST, "-"),
        (400, HOST, "Host:"),
        (400, HOST, "Host: a\r\nHost: a"),
        (400, HOST, "Host: a, b"),
        (101, CONNECTION, "Connection: upgrade"),
        (101, CONNECTION, "connection: keep-alive, Upgrade"),
        (101, CONNECTION, "Connection: keep-alive\r\nConnection: UPGRADE"),
        (101, CONNECTION, "Connection:upgrade,"),
        (400, CONNECTION, "-"),
        (400, CONNECTION, "Connection:"),
        (400, CONNECTION, "Connection: keep-alive"),
        (400, CONNECTION, "Connection: close"),
        (400, CONNECTION, "Connection: upgraded"),
        (400, CONNECTION, "Connection: keep-alive upgrade"),
        (400, CONNECTION, "Connection: \"upgrade\""),
        (101, UPGRADE, "Upgrade: WebSocket"),
        (101, UPGRADE, "Upgrade: h2c, websocket"),
        (400, UPGRADE, "-"),
        (400, UPGRADE, "Upgrade:"),
        (400, UPGRADE, "Upgrade: h2c"),
        (400, UPGRADE, "Upgrade: websocket/13"),
        (400, UPGRADE, "Upgrade: websockets"),
        (400, UPGRADE, "Upgrade: web socket"),
        (400, UPGRADE, "Upgrade : websocket"),
        (426, VERSION, "-"),
        (426, VERSION, "Sec-WebSocket-Version:"),
        (426, VERSION, "Sec-WebSocket-Version: 8"),
        (426, VERSION, "Sec-WebSocket-Version: 14"),
        (426, VERSION, "Sec-WebSocket-Version: 013"),
        (426, VERSION, "Sec-WebSocket-Version: +13"),
        (426, VERSION, "Sec-WebSocket-Version: 13, 8"),
        (426, VERSION, "Sec-WebSocket-Version: 13.0"),
        (426, VERSION, "Sec-WebSocket-Version: 777"),
        (400, VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13"),
        (400, VERSION, "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13"),
        (400, WS_KEY, "-"),
        (400, WS_KEY, "Sec-WebSocket-Key:"),
        (400, WS_KEY, "Sec-WebSocket-Key: x"),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE="),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMw=="),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBs SBub25jZQ=="),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j-_=="),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub2=jZQ=="),
        (400, WS_KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jé=="),
        (400, WS_KEY, "Sec-WebSocket-Key: ========================"),
        (
            400,
            WS_KEY,
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        (101, WS_KEY, "sec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==  "),
        (101, MORE, "Content-Length: 0"),
        (101, MORE, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        (101, MORE, "Origin: https://example.com"),
        (400, MORE, "Content-Length: 5"),
        (400, MORE, "Transfer-Encoding: chunked"),
        (400, MORE, "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        (400, MORE, " folded"),
        (400, MORE, "X: a\nY: b"),
    ];
    assert!(table.len() >= 60);
    for &(expected, part, instead) in table {
        let head = head(part, instead);
        assert_eq!(upgrade_status(&head), expected, "{head}");
    }
}

#[test]
fn what_asks_for_no_websocket_is_a_plain_request() {
    assert_eq!(upgrade_status("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(
        upgrade_status(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        ),
        200
    );
    assert_eq!(upgrade_status("GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket: x\r\n\r\n"), 200);
}

#[test]
fn the_upgrade_is_answered_as_in_the_rfc() {
    let mut out = Vec::new();
    write_upgrade(&mut out, KEY, None);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    let mut out = Vec::new();
    write_upgrade(&mut out, KEY, Some("permessage-deflate"));
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("=\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "{text}");
}

// ---- Answers ----

fn written(status: u16, extra: &[(&str, &str)], body: &[u8], keep_alive: bool, head_only: bool) -> String {
    let mut out = Vec::new();
    write_response(&mut out, status, "text/plain", extra, body, keep_alive, head_only);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_answer_has_its_length_and_says_whether_more_may_follow() {
    assert_eq!(
        written(200, &[("Allow", "GET")], b"hello", true, false),
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: keep-alive\r\nAllow: GET\r\n\r\nhello"
    );
    let head = written(200, &[], b"hello", false, true);
    assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("Connection: close\r\n\r\n"), "{head}");
    assert_eq!(
        written(204, &[], b"", true, false),
        "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[test]
#[cfg_attr(debug_assertions, should_panic = "control character")]
fn no_header_value_begins_a_line_of_its_own() {
    let head =
        written(200, &[("X-A", "b\r\nSet-Cookie: c"), ("X\r\nB", "c"), ("X-D", "e")], b"", true, false);
    assert!(
        !head.contains("Set-Cookie") && !head.contains("X\r\nB") && head.contains("X-D: e\r\n"),
        "{head}"
    );
}

#[test]
fn a_refusal_names_what_would_be_right() {
    let written = |status: u16| {
        let mut out = Vec::new();
        HttpError::new(status, "a \"quote\", a \n and a \u{1b}").write(&mut out, false, None);
        String::from_utf8(out).unwrap()
    };
    let plain = written(400);
    assert!(plain.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{plain}");
    assert!(plain.contains("\r\nConnection: close\r\n"), "{plain}");
    assert!(plain.ends_with(r#"{"error":"a \"quote\", a \n and a \u001b"}"#), "{plain}");
    assert!(written(426).contains("\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"));
    assert!(written(401).contains("\r\nWWW-Authenticate: Bearer\r\n"));
}

// ---- Chunks ----

/// The body and how many bytes were it, read whole and cut at every place.
fn unchunk(input: &[u8], limit: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
    let in_pieces = |ends: &mut dyn Iterator<Item = usize>| {
        let mut body = Chunked::new(limit);
        let mut used = 0;
        for end in ends {
            let (taken, done) = body.push(&input[used..end]).map_err(|error| error.status)?;
            used += taken;
            assert!(done || used == end, "what is not whole takes all there is");
            if done {
                assert_eq!(body.push(b"more"), Ok((0, true)));
                return Ok(Some((body.into_body(), used)));
            }
        }
        Ok(None)
    };
    let whole = in_pieces(&mut [input.len()].into_iter());
    assert_eq!(in_pieces(&mut (0..=input.len())), whole, "byte by byte: {}", input.escape_ascii());
    for cut in 0..=input.len() {
        assert_eq!(
            in_pieces(&mut [cut, input.len()].into_iter()),
            whole,
            "cut at {cut}: {}",
            input.escape_ascii()
        );
    }
    whole
}

#[test]
fn chunks_become_a_body() {
    for (input, body, rest) in [
        ("0\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n0\r\n\r\nGET /", "hello", "GET /"),
        ("00000005\r\nhello\r\n00\r\n\r\n", "hello", ""),
        ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello", ""),
        ("A\r\n\r\n0\r\n\r\n123\r\na\r\n0123456789\r\n0\r\n\r\n", "\r\n0\r\n\r\n1230123456789", ""),
        ("5;name=value;x=\"y\"\r\nhello\r\n0;z\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n0\r\nTrailer: x\r\nContent-Length: 3\r\n\r\nabc", "hello", "abc"),
    ] {
        let used = input.len() - rest.len();
        assert_eq!(unchunk(input.as_bytes(), 100), Ok(Some((body.as_bytes().to_vec(), used))), "{input}");
    }
    assert_eq!(unchunk(b"5\r\nhello\r\n0\r\n", 100), Ok(None));
}

#[test]
fn chunks_that_are_refused() {
    let long =
        |start: &str, length: usize, end: &str| format!("{start}{}{end}", "x".repeat(length)).into_bytes();
    let table: Vec<(u16, Vec<u8>)> = vec![
        (400, b"\r\nhello".to_vec()),
        (400, b"g\r\n".to_vec()),
        (400, b"-5\r\nhello\r\n".to_vec()),
        (400, b"+5\r\nhello\r\n".to_vec()),
        (400, b"0x5\r\nhello\r\n".to_vec()),
        (400, b" 5\r\nhello\r\n".to_vec()),
        (400, b"5 \r\nhello\r\n".to_vec()),
        (400, b"5 ;x\r\nhello\r\n".to_vec()),
        (400, b";x\r\n".to_vec()),
        (400, b"5\nhello\r\n".to_vec()),
        (400, b"5\rhello\r\n".to_vec()),
        (400, b"5;x\nhello\r\n".to_vec()),
        (400, b"5;x\0\r\nhello\r\n".to_vec()),
        (400, b"5\r\nhello\n0\r\n\r\n".to_vec()),
        (400, b"5\r\nhellooo\r\n".to_vec()),
        (400, b"5\r\nhello\r0\r\n\r\n".to_vec()),
        (400, b"5\r\nhello0\r\n\r\n".to_vec()),
        (400, b"0\r\n\n".to_vec()),
        (400, b"0\r\nx: y\n\r\n".to_vec()),
        (400, b"0\r\nx: \x01\r\n\r\n".to_vec()),
        (400, b"0\r\nno colon\r\n\r\n".to_vec()),
        (400, b"0\r\nx : y\r\n\r\n".to_vec()),
        (400, b"0\r\n: y\r\n\r\n".to_vec()),
        (400, b"0\r\nx: y\r\n folded\r\n\r\n".to_vec()),
        (400, b"0\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (400, b"000000005\r\nhello\r\n".to_vec()),
        (413, b"65\r\n".to_vec()),
        (413, b"ffffffff\r\n".to_vec()),
        (413, b"63\r\n".iter().chain([b'x'; 0x63].iter()).chain(b"\r\n2\r\n").copied().collect()),
        (400, long("5;", 257, "\r\nhello\r\n0\r\n\r\n")),
        (400, "1;xxxxxxxxxx\r\ny\r\n".repeat(30).into_bytes()),
        (431, long("0\r\nx: ", 1024, "\r\n\r\n")),
        (431, ["0\r\n", &"x: yyyyyy\r\n".repeat(200), "\r\n"].concat().into_bytes()),
    ];
    for (expected, input) in table {
        assert_eq!(unchunk(&input, 100), Err(expected), "{}", input.escape_ascii());
    }
}

// ---- Percent-encoding ----

#[test]
fn queries_are_decoded_once() {
    let pairs = |query: &str| -> Result<Vec<(String, String)>, u16> {
        query_pairs(query)
            .map(|pair| {
                pair.map(|(name, value)| (name.into_owned(), value.into_owned()))
                    .map_err(|error| error.status)
            })
            .collect()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (query, expected) in [
        ("", vec![]),
        ("&&", vec![]),
        ("a", vec![pair("a", "")]),
        ("a=", vec![pair("a", "")]),
        ("=b", vec![pair("", "b")]),
        ("a=b=c&a=d", vec![pair("a", "b=c"), pair("a", "d")]),
        ("categories=run%3A1%2Crun:2", vec![pair("categories", "run:1,run:2")]),
        ("a=b+c%2Bd", vec![pair("a", "b c+d")]),
        ("a%3D=%2541", vec![pair("a=", "%41")]),
        ("a=%c3%A9", vec![pair("a", "é")]),
        ("a=%00", vec![pair("a", "\0")]),
    ] {
        assert_eq!(pairs(query), Ok(expected), "{query}");
    }
    for query in [
        "a=%",
        "a=%4",
        "a=%4g",
        "a=%%41",
        "%=b",
        "a=%ff",
        "a=%c3",
        "a=%c3+%a9",
        "a=%ed%a0%80",
        "a=%c0%80",
        "a=%+1",
    ] {
        assert_eq!(pairs(query), Err(400), "{query}");
    }
}

#[test]
fn path_segments_are_decoded_once() {
    assert_eq!(decode_path_segment("run:42"), Ok(Cow::Borrowed("run:42")));
    assert_eq!(decode_path_segment("a%2Fb+c%2500").unwrap(), "a/b+c%00");
    for segment in ["%", "%zz", "%f", "%ff", "é%e9"] {
        assert_eq!(decode_path_segment(segment).unwrap_err().status, 400, "{segment}");
    }
}
