//! How a client comes: which dialect a request asks for, and what it subscribes to from the start.

use crate::dialect::command::{Ask, Since, Subscribe, from_query};
use crate::dialect::dialect::Dialect;
use crate::dialect::echo;
use crate::dialect::envelope::{self, Values};
use crate::dialect::path::{Found, Streams};
use crate::dialect::sse;
use crate::proto::extensions;
use crate::proto::http1::{self, HttpError, Request, query_pairs};

/// A client that may become a session.
#[derive(Debug)]
pub struct Opening {
    /// How it is spoken to.
    pub dialect: Dialect,
    /// The place of its stream in the settings, where it came by a configured path.
    pub stream: Option<u16>,
    /// The number of its envelope.
    pub envelope: u16,
    /// What the envelope takes from the path.
    pub values: Option<Values>,
    /// Whether events that go out together share a message.
    pub shares_messages: bool,
    /// Whether messages may be compressed.
    pub deflates: bool,
    /// What it subscribes to from the start.
    pub subscribe: Subscribe,
    /// The head of the answer.
    pub response: Vec<u8>,
}

/// What a request for a client's path asks for.
#[derive(Debug)]
pub enum Asked {
    /// A session.
    Open(Box<Opening>),
    /// Only what an event stream's head would be.
    Head,
    /// Whether a page of another site may ask for an event stream.
    Preflight,
}

/// What a node has for clients.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// The paths that subscribe those who connect to them.
    pub streams: &'a Streams,
    /// Whether there is the path of the echo.
    pub has_echo: bool,
    /// Whether there is a topic whose events are compressed: otherwise nobody is asked about it.
    pub deflates: bool,
}

/// What a request asks for, where its path is one for clients. `key` is that of a WebSocket upgrade. `readers`: whose
/// pages may read an event stream, `*` or an origin.
///
/// # Errors
/// The answer to a request that is for clients and cannot be served.
pub fn of(
    request: &Request<'_>,
    key: Option<&str>,
    offered: Offered<'_>,
    readers: Option<&str>,
) -> Result<Option<Asked>, HttpError> {
    if offered.has_echo && request.path == echo::PATH {
        let key = key.ok_or_else(only_web_socket)?;
        return Ok(Some(web_socket(Dialect::Echo, envelope::JSON, Subscribe::default(), key, None)));
    }
    let asked = ask(request, key, offered, readers);
    // Every page that may ask for an event stream may read the answer, a refusal too.
    if key.is_none() { asked.map_err(HttpError::for_any_origin) } else { asked }
}

fn ask(
    request: &Request<'_>,
    key: Option<&str>,
    offered: Offered<'_>,
    readers: Option<&str>,
) -> Result<Option<Asked>, HttpError> {
    let query = request.query.unwrap_or_default();
    match (request.path, key) {
        ("/ws", Some(key)) => {
            let subscribe = from_query(query, Ask::Whole)?;
            let extension = extension(request, offered)?;
            Ok(Some(web_socket(Dialect::Json, envelope::JSON, subscribe, key, extension)))
        }
        ("/ws", None) => Err(only_web_socket()),
        ("/sse", Some(_)) => {
            Err(HttpError::new(400, "this endpoint speaks Server-Sent Events, and the request is an upgrade"))
        }
        ("/sse", None) => event_stream(request, readers, || {
            let subscribe = from_query(query, Ask::Whole)?;
            if subscribe.topics.is_empty() {
                return Err(HttpError::new(400, "name topics in the query, as in /sse?topics=a,b"));
            }
            Ok(Plan { stream: None, envelope: envelope::JSON_EVENT_STREAM, values: None, subscribe })
        })
        .map(Some),
        _ => match offered.streams.find(request.path) {
            None => Ok(None),
            Some(found) => {
                let found = found.map_err(|error| HttpError::new(400, error));
                stream(request, key, found, offered, readers).map(Some)
            }
        },
    }
}

/// What is answered to the extensions that a client offers.
fn extension(request: &Request<'_>, offered: Offered<'_>) -> Result<Option<&'static str>, HttpError> {
    if !offered.deflates {
        return Ok(None);
    }
    let answer = extensions::answer(request.headers.all("Sec-WebSocket-Extensions"));
    answer.map_err(|error| HttpError::new(400, format!("in Sec-WebSocket-Extensions: {error}")))
}

fn only_web_socket() -> HttpError {
    HttpError::new(426, "this endpoint speaks WebSocket: connect with a WebSocket client")
}

/// A request for a configured path.
fn stream(
    request: &Request<'_>,
    key: Option<&str>,
    found: Result<Found, HttpError>,
    offered: Offered<'_>,
    readers: Option<&str>,
) -> Result<Asked, HttpError> {
    if key.is_none() && request.method == "OPTIONS" {
        return Ok(Asked::Preflight); // Whatever is wrong, the request itself is told.
    }
    let query = request.query.unwrap_or_default();
    let (mut is_sse, mut is_batched) = (false, false);
    for pair in query_pairs(query) {
        let (name, value) = pair?;
        let unknown = |known: &str| {
            HttpError::new(400, format!("in the query: {name} is {value:?}, and there is {known}"))
        };
        match (&*name, &*value) {
            ("transport", "sse") => is_sse = true,
            ("transport", "websocket") => {}
            ("transport", _) => return Err(unknown("sse and websocket")),
            ("batch", "ndjson") => is_batched = true,
            ("batch", _) => return Err(unknown("ndjson")),
            _ => {}
        }
    }
    if let Some(key) = key {
        if is_sse {
            return Err(HttpError::new(
                400,
                "the query asks for transport=sse, and the request is an upgrade",
            ));
        }
        let found = found?;
        let subscribe = Subscribe { topics: vec![found.topic], ..from_query(query, Ask::Options)? };
        let number = if is_batched { found.envelopes.lines } else { found.envelopes.message };
        // Messages that are put together for each client have nothing to share.
        let extension = if is_batched { None } else { extension(request, offered)? };
        let mut asked = web_socket(Dialect::Path, number, subscribe, key, extension);
        if let Asked::Open(opening) = &mut asked {
            opening.stream = Some(found.stream);
            opening.values = found.values;
            opening.shares_messages = is_batched;
        }
        return Ok(asked);
    }
    let is_wanted = is_sse || accepts_event_stream(request);
    if !is_wanted {
        let message = "this endpoint speaks WebSocket, and Server-Sent Events to whoever sends `Accept: \
            text/event-stream` or ?transport=sse";
        return Err(HttpError::new(426, message));
    }
    event_stream(request, readers, || {
        if is_batched {
            return Err(HttpError::new(400, "in the query: batch=ndjson is for WebSocket"));
        }
        let found = found?;
        let subscribe = Subscribe { topics: vec![found.topic], ..from_query(query, Ask::Options)? };
        let envelope = found.envelopes.event_stream;
        Ok(Plan { stream: Some(found.stream), envelope, values: found.values, subscribe })
    })
}

/// Whether the client asks for the media type of event streams (RFC 9110 section 12.5.1). `*/*` is not asking.
fn accepts_event_stream(request: &Request<'_>) -> bool {
    let mut ranges = request.headers.all("Accept").flat_map(|line| line.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case(sse::MEDIA_TYPE));
        let weight = |part: &str| {
            let (name, value) = part.split_once('=')?;
            name.eq_ignore_ascii_case("q").then(|| value.parse::<f32>().ok()).flatten()
        };
        is_it && parts.find_map(weight).is_none_or(|weight| weight > 0.0)
    })
}

fn web_socket(
    dialect: Dialect,
    envelope: u16,
    subscribe: Subscribe,
    key: &str,
    extension: Option<&str>,
) -> Asked {
    let mut response = Vec::new();
    http1::write_upgrade(&mut response, key, extension);
    Asked::Open(Box::new(Opening {
        dialect,
        stream: None,
        envelope,
        values: None,
        shares_messages: false,
        deflates: extension.is_some(),
        subscribe,
        response,
    }))
}

/// What an event stream is to be.
struct Plan {
    stream: Option<u16>,
    envelope: u16,
    values: Option<Values>,
    subscribe: Subscribe,
}

/// A request for Server-Sent Events.
fn event_stream(
    request: &Request<'_>,
    readers: Option<&str>,
    plan: impl FnOnce() -> Result<Plan, HttpError>,
) -> Result<Asked, HttpError> {
    let asked = match request.method {
        "OPTIONS" => return Ok(Asked::Preflight),
        "GET" | "HEAD" => plan(),
        _ => Err(HttpError::wrong_method("GET, HEAD, OPTIONS", "event streams are served with GET only")),
    };
    let Plan { stream, envelope, values, mut subscribe } = asked?;
    if request.method == "HEAD" {
        return Ok(Asked::Head);
    }
    if let Some(id) = request.headers.get("Last-Event-ID").filter(|id| !id.is_empty()) {
        subscribe.since = Some(Since::LastEvent(sse::read_id(id)));
    }
    let mut response = Vec::new();
    sse::write_head(&mut response, readers);
    Ok(Asked::Open(Box::new(Opening {
        dialect: Dialect::EventStream,
        stream,
        envelope,
        values,
        shares_messages: false,
        deflates: false,
        subscribe,
        response,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::envelope::Envelopes;
    use crate::dialect::path::Definition;
    use crate::proto::http1::{HeadScan, parse_head, websocket_key};
    use crate::session::policy::Policy;

    const UPGRADE: &str = "|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "|Accept: text/html;q=0.5, text/event-stream;q=0.9";

    fn ask(start: &str, headers: &str) -> Result<Option<Asked>, HttpError> {
        let definition =
            Definition { path: "/runs/{runId}/stream", topic: "run:{runId}", envelope: r#"["{runId}"]"# };
        let streams = Streams::compile([definition], &[], &mut Envelopes::built_in()).unwrap();
        let head = format!("{start} HTTP/1.1|Host: node{headers}||").replace('|', "\r\n");
        let (request, _) = parse_head(head.as_bytes(), 8192, &mut HeadScan::default()).unwrap().unwrap();
        let offered = Offered { streams: &streams, has_echo: true, deflates: true };
        of(&request, websocket_key(&request).unwrap(), offered, Some("*"))
    }

    fn open(start: &str, headers: &str) -> Opening {
        match ask(start, headers) {
            Ok(Some(Asked::Open(opening))) => *opening,
            other => panic!("{start}: {other:?}"),
        }
    }

    #[test]
    fn every_way_in_has_its_dialect_and_envelope() {
        use Dialect::{Echo, EventStream, Json, Path};
        for (start, headers, dialect, envelope, topics, is_stream) in [
            ("GET /ws", UPGRADE, Json, 0, "", false),
            ("GET /ws?categories=a,b&rooms=c&x=*", UPGRADE, Json, 0, "a b c", false),
            ("GET /echo?topics=a", UPGRADE, Echo, 0, "", false),
            (
                "GET /ws?runId=7&projectId=p%20q&userId=u",
                UPGRADE,
                Json,
                0,
                "run:7 project:p q user:u global",
                false,
            ),
            ("GET /sse?topics=a,b,a", "", EventStream, 1, "a b", false),
            ("GET /sse?runId=1", ACCEPT, EventStream, 1, "run:1 global", false),
            ("GET /runs/1/stream", UPGRADE, Path, 2, "run:1", true),
            ("GET /runs/1/stream?topics=*&runId=&transport=websocket", UPGRADE, Path, 2, "run:1", true),
            ("GET /runs/1/stream?batch=ndjson", UPGRADE, Path, 3, "run:1", true),
            ("GET /runs/1/stream", ACCEPT, EventStream, 4, "run:1", true),
            ("GET /runs/1/stream?transport=sse", "|Accept: */*", EventStream, 4, "run:1", true),
        ] {
            let opening = open(start, headers);
            let found = (opening.dialect, opening.envelope, opening.subscribe.topics.join(" "));
            assert_eq!(found, (dialect, envelope, topics.to_owned()), "{start}");
            assert_eq!((opening.stream == Some(0), opening.values.is_some()), (is_stream, is_stream));
            assert_eq!(opening.shares_messages, start.contains("ndjson"));
            let head = if dialect == EventStream { "HTTP/1.1 200" } else { "HTTP/1.1 101" };
            assert!(opening.response.starts_with(head.as_bytes()), "{start}");
        }
    }

    #[test]
    fn messages_are_compressed_where_that_can_be_shared() {
        let offer = format!("{UPGRADE}|Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits");
        for (start, deflates) in [
            ("GET /ws?topics=a", true),
            ("GET /ws?topics=a&clientId=me", true), // What comes from it.
            ("GET /runs/1/stream", true),
            ("GET /runs/1/stream?batch=ndjson", false),
            ("GET /echo", false),
        ] {
            for (headers, deflates) in [(&*offer, deflates), (UPGRADE, false)] {
                let opening = open(start, headers);
                let response = String::from_utf8(opening.response).unwrap();
                let is_told =
                    response.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no");
                assert_eq!((opening.deflates, is_told), (deflates, deflates), "{start}");
            }
        }
        let bad = format!("{offer}|Sec-WebSocket-Extensions: x;");
        assert_eq!(ask("GET /ws", &bad).unwrap_err().status, 400);
        assert_eq!(ask("GET /runs/1/stream", &bad).unwrap_err().status, 400);
        assert!(!open("GET /echo", &bad).deflates);
    }

    #[test]
    fn options_are_read_from_every_query() {
        for (start, headers) in
            [("GET /ws?topics=t&", UPGRADE), ("GET /sse?topics=t&", ""), ("GET /runs/t/stream?", UPGRADE)]
        {
            let query = "events=b,a&onlyCategories=c&policy=drop-oldest&clientId=me";
            let subscribe = open(&format!("{start}{query}"), headers).subscribe;
            assert_eq!(subscribe.events.unwrap(), ["a", "b"]);
            assert_eq!(subscribe.only_categories.unwrap(), ["c"]);
            assert_eq!(
                (subscribe.policy, subscribe.client_id.as_deref()),
                (Some(Policy::DropOldest), Some("me"))
            );
        }
        assert!(open("GET /sse?topics=a", "|Last-Event-ID: 7").subscribe.since.is_some());
        assert!(open("GET /sse?topics=a", "|Last-Event-ID: ").subscribe.since.is_none());
    }

    #[test]
    fn what_cannot_be_served_has_its_status() {
        for (start, headers, status) in [
            ("GET /ws", "", 426),
            ("GET /ws?categories=", UPGRADE, 400),
            ("GET /ws?categories=a,,b", UPGRADE, 400),
            ("GET /ws?runId=", UPGRADE, 400),
            ("GET /ws?runId=*", UPGRADE, 400),
            ("GET /ws?topics=a%00", UPGRADE, 400),
            ("GET /ws?categories=%zz", UPGRADE, 400),
            ("GET /ws?policy=never", UPGRADE, 400),
            ("GET /ws?events=", UPGRADE, 400),
            ("GET /ws?onlyCategories=a%0a", UPGRADE, 400),
            ("GET /ws?clientId=", UPGRADE, 400),
            ("GET /sse", "", 400),
            ("GET /sse?topics=", "", 400),
            ("GET /sse?topics=a*", "", 400),
            ("GET /sse?topics=a", UPGRADE, 400),
            ("POST /sse?topics=a", "", 405),
            ("GET /runs/1/stream", "", 426),
            ("GET /runs/1/stream", "|Accept: text/*", 426),
            ("GET /runs/1/stream", "|Accept: text/event-stream;q=0, text/html", 426),
            ("POST /runs/1/stream", ACCEPT, 405),
            ("GET /runs//stream", UPGRADE, 400),
            ("GET /runs//stream", ACCEPT, 400),
            ("GET /runs/%2A/stream", UPGRADE, 400),
            ("GET /runs/%zz/stream", UPGRADE, 400),
            ("GET /runs/%ff/stream", UPGRADE, 400),
            ("GET /runs/a%0a/stream", ACCEPT, 400),
            ("GET /runs/1/stream?batch=json", UPGRADE, 400),
            ("GET /runs/1/stream?batch=ndjson", ACCEPT, 400),
            ("GET /runs/1/stream?transport=polling", UPGRADE, 400),
            ("GET /runs/1/stream?transport=sse", UPGRADE, 400),
        ] {
            assert_eq!(ask(start, headers).unwrap_err().status, status, "{start} {headers}");
        }
        for bad in ["GET /sse?topics=", "GET /runs/%zz/stream", "GET /runs/1/stream?transport=polling"] {
            assert!(ask(bad, ACCEPT).unwrap_err().is_for_any_origin, "{bad}");
        }
        assert!(ask("GET /runs/1", UPGRADE).unwrap().is_none());
        assert!(matches!(ask("OPTIONS /sse", ""), Ok(Some(Asked::Preflight))));
        for path in ["/runs/1/stream", "/runs/%zz/stream", "/runs/1/stream?transport=polling"] {
            assert!(matches!(ask(&format!("OPTIONS {path}"), ""), Ok(Some(Asked::Preflight))), "{path}");
        }
        assert!(matches!(ask("HEAD /runs/1/stream", ACCEPT), Ok(Some(Asked::Head))));
        assert_eq!(ask("HEAD /sse", "").unwrap_err().status, 400);
    }
}
