//! Requests in a row: the same requests and the same refusal however they are cut, and nothing in a request that
//! two readers could read differently.

use fanwire::admin::history;
use fanwire::config::Limits;
use fanwire::dialect::command::{Ask, from_query};
use fanwire::dialect::envelope::Envelopes;
use fanwire::dialect::opening::{self, Asked, Offered};
use fanwire::dialect::path::{Definition, Streams};
use fanwire::proto::http1::{
    BodyLength, HeadScan, HttpError, Request, decode_path_segment, parse_head, websocket_key,
};
use fanwire::session::handshake::{Exchange, Step};

use super::cut::cuts;

/// A request as it was understood.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    keep_alive: bool,
    key: Result<Option<String>, HttpError>,
    asked: String,
}

pub fn fuzz(input: &[u8]) {
    let definition =
        Definition { path: "/s/{id}", topic: "run:{id}", envelope: r#"{"id":"{id}","data":{data}}"# };
    let streams =
        Streams::compile([definition], &[], &mut Envelopes::built_in()).expect("a stream that is right");
    let limits = Limits { max_header_bytes: 400, max_body_bytes: 60, ..Limits::default() };
    let whole = run(&[input], &limits, &streams);
    for pieces in cuts(input) {
        assert_eq!(run(&pieces, &limits, &streams), whole);
    }
}

/// The requests, how the last one fails if it does, and what is left after one that ends HTTP.
fn run(
    pieces: &[&[u8]],
    limits: &Limits,
    streams: &Streams,
) -> (Vec<Seen>, Option<HttpError>, Option<Vec<u8>>) {
    let mut exchange = Exchange::default();
    let (mut requests, mut pieces) = (Vec::new(), pieces.iter());
    while let Some(piece) = pieces.next() {
        exchange.extend(piece);
        loop {
            assert!(exchange.reserved_bytes(limits) <= limits.max_body_bytes);
            match exchange.advance(limits) {
                Ok(Step::Whole) => {
                    let (request, body) = exchange.request().expect("a whole request");
                    let seen = look(&request, body, streams);
                    let (ends, may_follow) = (matches!(seen.key, Ok(Some(_))), request.keep_alive);
                    drop(request);
                    requests.push(seen);
                    exchange.finish();
                    if ends || !may_follow {
                        // What follows belongs to somebody else: to be handed on without a change.
                        let mut rest = exchange.into_rest();
                        pieces.for_each(|piece| rest.extend_from_slice(piece));
                        return (requests, None, Some(rest));
                    }
                }
                Ok(Step::Body) => {}
                Ok(Step::Head | Step::More) => break,
                Err(error) => {
                    check_answer(&error);
                    return (requests, Some(error), None);
                }
            }
        }
    }
    (requests, None, None)
}

fn look(request: &Request<'_>, body: &[u8], streams: &Streams) -> Seen {
    let is_plain = |text: &str| !text.contains(|c: char| c.is_ascii_control() && c != '\t');
    assert!(
        is_plain(request.path) && is_plain(request.query.unwrap_or_default()) && is_plain(request.method)
    );
    assert!(request.path.starts_with('/') || (request.path == "*" && request.method == "OPTIONS"));
    assert!(
        request.headers.iter().all(|(name, value)| is_plain(name) && is_plain(value) && !name.is_empty())
    );
    let count = |name: &str| request.headers.all(name).count();
    assert!(count("Host") + usize::from(request.version_minor == 0) >= 1 && count("Host") <= 1);
    assert!(count("Content-Length") + count("Transfer-Encoding") <= 1, "two ways to end a body");
    match request.body {
        BodyLength::None => assert!(body.is_empty()),
        BodyLength::Length(length) => assert_eq!(body.len() as u64, length),
        BodyLength::Chunked => {}
    }
    check_written_anew(request);
    let key = websocket_key(request);
    for segment in request.path.split('/') {
        let _ = decode_path_segment(segment);
    }
    if let Some(query) = request.query {
        let _ = (from_query(query, Ask::Whole), from_query(query, Ask::Options), history::Since::read(query));
    }
    let asked = match &key {
        Ok(key) => {
            match opening::of(request, *key, Offered { streams, has_echo: true, deflates: true }, Some("*")) {
                Ok(Some(Asked::Open(opening))) => {
                    assert!(opening.response.starts_with(b"HTTP/1.1 "));
                    format!("{opening:?}")
                }
                Ok(other) => format!("{other:?}"),
                Err(error) => {
                    check_answer(&error);
                    format!("{error:?}")
                }
            }
        }
        Err(error) => {
            check_answer(error);
            String::new()
        }
    };
    Seen {
        line: format!("{} {} {:?} 1.{}", request.method, request.path, request.query, request.version_minor),
        headers: request.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: body.to_vec(),
        keep_alive: request.keep_alive,
        key: key.map(|key| key.map(str::to_owned)),
        asked,
    }
}

/// A proxy that writes the request as it was understood is understood the same.
fn check_written_anew(request: &Request<'_>) {
    let query = request.query.map_or_else(String::new, |query| format!("?{query}"));
    let mut head = format!("{} {}{query} HTTP/1.{}\r\n", request.method, request.path, request.version_minor);
    for (name, value) in request.headers.iter() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let again = parse_head(head.as_bytes(), 1 << 20, &mut HeadScan::default());
    let (again, length) = again.expect("it was right before").expect("it is whole");
    assert_eq!(length, head.len());
    assert_eq!((again.method, again.path, again.query), (request.method, request.path, request.query));
    let owned = |request: &Request<'_>| {
        request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
    };
    assert_eq!(owned(&again), owned(request));
    assert_eq!((again.body, again.keep_alive), (request.body, request.keep_alive));
}

/// A refusal is one whole answer that closes, and nothing of the request breaks out of it.
fn check_answer(error: &HttpError) {
    let mut out = Vec::new();
    error.write(&mut out, false, Some("*"));
    let text = String::from_utf8(out).expect("an answer is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", error.status)) && !head.contains("Unknown"));
    assert!(
        head.contains("\r\nConnection: close")
            && head.contains(&format!("\r\nContent-Length: {}\r\n", body.len()))
    );
    let read: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
    assert_eq!(read["error"], error.message.as_str());
}
