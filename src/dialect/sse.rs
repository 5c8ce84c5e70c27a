//! Server-Sent Events (`docs/server-sent-events.md`; WHATWG HTML, section "Server-sent events"): a response that
//! does not end, of lines that a browser's `EventSource` takes apart.
//!
//! Events are written by their envelope. Here is what else a stream carries: its head, comments that keep
//! proxies from closing it, notices, and how long to wait before coming back.

use crate::dialect::envelope::{read_epoch, write_epoch};
use crate::proto::http1::{readable_by, write_stream_head};
use crate::topic::topic::Position;

/// A comment, which means nothing to anyone: it keeps the stream alive.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The answer to a browser that asks what it may ask for (Fetch, "CORS-preflight request"), beside who may.
const PREFLIGHT: [(&str, &str); 3] = [
    ("Access-Control-Allow-Methods", "GET"),
    ("Access-Control-Allow-Headers", "Authorization, Cache-Control, Last-Event-ID"),
    ("Access-Control-Max-Age", "86400"),
];

/// What every stream begins with, beside who may read it. `no-transform` and `X-Accel-Buffering` keep proxies from
/// collecting events.
const HEADERS: [(&str, &str); 2] = [("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no")];

/// The media type.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// The headers of a stream that these pages may read: `*`, an origin, or none.
pub fn headers(readers: Option<&str>) -> Vec<(&'static str, &str)> {
    readable_by(readers).chain(HEADERS).collect()
}

/// The headers of the answer to a preflight.
pub fn preflight(readers: Option<&str>) -> Vec<(&'static str, &str)> {
    readable_by(readers).chain(PREFLIGHT).collect()
}

/// Appends the head of the response, and a comment, so that something goes out at once.
pub fn write_head(out: &mut Vec<u8>, readers: Option<&str>) {
    write_stream_head(out, MEDIA_TYPE, &headers(readers));
    out.extend_from_slice(b": subscribed\n\n");
}

/// The position that an `id:` of ours names. We write each in one way, and only so is it read: no sign, no zeros in
/// front.
pub fn read_id(id: &str) -> Option<Position> {
    let (epoch, digits) = id.split_once('-')?;
    let offset: u64 = digits.parse().ok()?;
    (offset.to_string() == digits).then_some(Position { epoch: read_epoch(epoch)?, offset })
}

/// Appends a position that no event has: a browser comes back with it all the same.
pub fn write_position(out: &mut Vec<u8>, Position { epoch, offset }: Position) {
    out.extend_from_slice(format!("id: {}-{offset}\n\n", write_epoch(epoch)).as_bytes());
}

/// Appends the heartbeat.
pub fn write_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(KEEP_ALIVE);
}

/// Appends a notice: an event of the node's own, of one line of JSON.
pub fn write_notice(out: &mut Vec<u8>, name: &str, json: &[u8]) {
    for piece in [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"] {
        out.extend_from_slice(piece);
    }
}

/// Appends the end: why, as a comment for people, and for the browser how long to wait before it comes back.
pub fn write_end(out: &mut Vec<u8>, reason: &str, retry_after_ms: Option<u32>) {
    out.extend_from_slice(format!(": closed: {reason}\n").as_bytes());
    if let Some(ms) = retry_after_ms {
        out.extend_from_slice(format!("retry: {ms}\n").as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_beats_and_ends() {
        let mut out = Vec::new();
        write_head(&mut out, Some("*"));
        let text = std::str::from_utf8(&out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close") && !head.contains("Content-Length"), "{head}");
        assert!(head.contains("\r\nAccess-Control-Allow-Origin: *\r\n") && !head.contains("Vary"), "{head}");
        assert_eq!(body, ": subscribed\n\n");
        let of_one = headers(Some("https://a.example"));
        assert!(of_one.contains(&("Access-Control-Allow-Origin", "https://a.example")), "{of_one:?}");
        assert!(of_one.contains(&("Vary", "Origin")), "{of_one:?}");
        assert_eq!(headers(None), HEADERS);
        let position = Position { epoch: 0xff, offset: 17 };
        out.clear();
        write_position(&mut out, position);
        let id = std::str::from_utf8(&out).unwrap().trim_start_matches("id: ").trim_end();
        assert_eq!((id, read_id(id)), ("00000000000000ff-17", Some(position)));
        for bad in ["", "-", "17", "ff-17", "00000000000000ff-", "00000000000000FF-1", "00000000000000ff-x"]
            .into_iter()
            .chain(["00000000000000ff-+1", "00000000000000ff-01", "00000000000000ff-18446744073709551616"])
        {
            assert_eq!(read_id(bad), None, "{bad}");
        }
        out.clear();
        write_heartbeat(&mut out);
        write_notice(&mut out, "gap", b"{}");
        write_end(&mut out, "slow_consumer", Some(1800));
        write_end(&mut out, "client_closed", None);
        let expected = ": keep-alive\n\nevent: gap\ndata: {}\n\n: closed: slow_consumer\nretry: 1800\n\n: closed: client_closed\n\n";
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }
}
