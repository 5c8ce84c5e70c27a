//! HTTP routes: from a request to what is to be done (`docs/operations.md`). Pure but for reading figures.

use crate::admin::report::{self, Part, Report};
use crate::admin::{diagnostics, drain, history, metrics, page, stats};
use crate::clock::Now;
use crate::dialect::command::check_topic;
use crate::dialect::echo;
use crate::dialect::opening::{self, Asked, Offered, Opening};
use crate::dialect::sse;
use crate::fanout::connection::Door;
use crate::fanout::shared::{Shared, State};
use crate::origin::{Origins, Wish};
use crate::proto::http1::{HttpError, Request, decode_path_segment, query_pairs, websocket_key};
use crate::publish::dedupe::MAX_KEY_BYTES;
use crate::publish::http::{Asked as Publishing, Format};
use crate::publish::socket::is_secret;
use crate::topic::table::Topics;

/// The operators' endpoints that are one path each.
const OPERATORS: [&str; 5] =
    ["/metrics", "/api/websocket/status", "/api/v1/websocket/stats", "/api/slow", drain::PATH];
/// What the paths of topics begin with.
const TOPICS: &str = "/api/topics/";

/// What a request is decided on.
#[derive(Debug)]
pub struct Context<'a> {
    /// The node.
    pub shared: &'a Shared,
    /// The shard that answers.
    pub shard: usize,
    /// Where the request came in.
    pub door: Door,
    /// Now.
    pub now: Now,
}

/// What a request asks for.
#[derive(Debug)]
pub enum Route {
    /// An answer that is ready.
    Reply(Reply),
    /// An answer that every shard has a part in.
    Gather(Report),
    /// Events, once the body is whole.
    Publish(Publishing),
    /// How the request was read, once the body is whole.
    Diagnose,
    /// Something about the shutdown.
    Drain(drain::Wish),
    /// A session.
    Open(Box<Opening>),
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A JSON answer, which nobody may keep.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: vec![("Cache-Control", "no-store".to_owned())],
            body: value.to_string().into_bytes(),
        }
    }

    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: vec![("Cache-Control", "no-store".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }
}

/// Decides what a request asks for. Needs only its head.
///
/// # Errors
/// The answer to a request that is not served.
pub fn route(request: &Request<'_>, context: &Context<'_>) -> Result<Route, HttpError> {
    let key = websocket_key(request)?;
    let has_diagnostics = context.shared.access.has_diagnostics;
    let from = Visitor::of(request, &context.shared.access.origins)?;
    let readers = from.readers();
    let (streams, deflates) = (&context.shared.streams, context.shared.topics.rules().compress_any());
    let offered = Offered { streams, has_echo: has_diagnostics, deflates };
    if let Some(asked) = opening::of(request, key, offered, readers)? {
        from.may(Wish::Listen)?;
        return client(asked, context.shared.state(), readers);
    }
    match (request.path, key) {
        (path, Some(_)) => {
            let message =
                format!("no WebSocket endpoint at {path}; there is /ws, and what [[stream]] configures");
            Err(HttpError::new(404, message))
        }
        ("/healthz", None) => read_only(request).map(|()| Route::Reply(Reply::text(200, "ok\n"))),
        ("/readyz", None) => read_only(request).map(|()| ready(context.shared.state())),
        ("/api/publish", None) => publish(request, context, &from),
        (diagnostics::PATH, None) if has_diagnostics => Ok(Route::Diagnose),
        (path, None) => operators(path, request, context, &from),
    }
}

/// The paths that the node serves itself, so that no stream can have them.
pub fn own_paths(has_diagnostics: bool) -> Vec<&'static str> {
    let mut own = vec!["/ws", "/sse", "/healthz", "/readyz", "/api/publish", "/api/topics/any"];
    own.extend(OPERATORS);
    own.extend(page::paths());
    if has_diagnostics {
        own.extend([echo::PATH, diagnostics::PATH]);
    }
    own
}

/// The page that a request comes from, if it comes from one.
struct Visitor<'a> {
    origins: &'a Origins,
    origin: Option<&'a str>,
    host: Option<&'a str>,
}

impl<'a> Visitor<'a> {
    fn of<'r: 'a>(request: &Request<'r>, origins: &'a Origins) -> Result<Self, HttpError> {
        let origin = request.headers.single("Origin")?;
        Ok(Self { origins, origin, host: request.headers.get("Host") })
    }

    fn may(&self, wish: Wish) -> Result<(), HttpError> {
        self.origins.check(wish, self.origin, self.host).map_err(|error| HttpError::new(403, error))
    }

    fn readers(&self) -> Option<&'a str> {
        self.origins.readers(self.origin, self.host)
    }
}

/// Whose pages may read the answer to a request: `*`, an origin, or none. `None`: the request is not understood.
pub fn readers<'a, 'r: 'a>(request: Option<&Request<'r>>, origins: &'a Origins) -> Option<&'a str> {
    match request.map(|request| Visitor::of(request, origins)) {
        Some(Ok(visitor)) => visitor.readers(),
        _ => origins.readers(None, None),
    }
}

fn client(asked: Asked, state: State, readers: Option<&str>) -> Result<Route, HttpError> {
    let owned = |headers: Vec<(&'static str, &str)>| {
        headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
    };
    match asked {
        // An event stream is opened and ended with the time to come back: to a 503, a browser never does.
        Asked::Open(opening) if state == State::Draining && opening.dialect.is_web_socket() => {
            Err(HttpError::new(503, "the node is shutting down: connect again"))
        }
        Asked::Open(opening) => Ok(Route::Open(opening)),
        Asked::Head => Ok(Route::Reply(Reply {
            status: 200,
            content_type: sse::MEDIA_TYPE,
            headers: owned(sse::headers(readers)),
            body: Vec::new(),
        })),
        Asked::Preflight => Ok(Route::Reply(Reply {
            status: 204,
            content_type: "text/plain",
            headers: owned(sse::preflight(readers)),
            body: Vec::new(),
        })),
    }
}

fn ready(state: State) -> Route {
    let status = if state == State::Ready { 200 } else { 503 };
    Route::Reply(Reply::text(status, &format!("{}\n", state.name())))
}

fn publish(request: &Request<'_>, context: &Context<'_>, from: &Visitor<'_>) -> Result<Route, HttpError> {
    if request.method != "POST" {
        return Err(HttpError::wrong_method("POST", "events are published with POST"));
    }
    let access = &context.shared.access;
    let tokens = [&access.publish_token, &access.operator_token];
    authorise(request, &tokens.map(Option::as_deref))?;
    // A page of another site may send a plain POST without asking; its browser then says where it came from.
    from.may(Wish::Operate)?;
    if !context.shared.takes_events() {
        return Err(HttpError::new(503, "the node is shutting down: publish elsewhere"));
    }
    let content_type = request.headers.get("Content-Type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_ndjson = ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known));
    let idempotency_key = request.headers.single("Idempotency-Key")?.map(str::to_owned);
    if idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
        return Err(HttpError::new(400, format!("Idempotency-Key must have 1 to {MAX_KEY_BYTES} bytes")));
    }
    let mut receipt = false;
    for pair in query_pairs(request.query.unwrap_or_default()) {
        let (name, value) = pair?;
        receipt = match (&*name, &*value) {
            ("receipt", "1" | "true") => true,
            ("receipt", "0" | "false") => false,
            ("receipt", other) => {
                return Err(HttpError::new(400, format!("receipt={other}: it is 1 or 0")));
            }
            _ => receipt,
        };
    }
    let format = if is_ndjson { Format::Ndjson } else { Format::Json };
    Ok(Route::Publish(Publishing { format, receipt, idempotency_key }))
}

/// What only operators may see: on the `admin` listener alone, where there is one.
fn operators(
    path: &str,
    request: &Request<'_>,
    context: &Context<'_>,
    from: &Visitor<'_>,
) -> Result<Route, HttpError> {
    let not_found = || HttpError::new(404, format!("nothing is served at {path}"));
    let shared = context.shared;
    if shared.access.has_admin && context.door != Door::Admin {
        return Err(not_found());
    }
    if let Some(reply) = page::find(path) {
        read_only(request)?;
        return Ok(Route::Reply(reply));
    }
    let topic = path.strip_prefix(TOPICS);
    if !OPERATORS.contains(&path) && topic.is_none() {
        return Err(not_found());
    }
    let token = shared.access.operator_token.as_deref().or(shared.access.publish_token.as_deref());
    authorise(request, &[token])?;
    from.may(Wish::Operate)?;
    if path == drain::PATH {
        return of_drain(request, context);
    }
    read_only(request)?;
    let number = |name: &str, default: usize, most: usize| -> Result<usize, HttpError> {
        for pair in query_pairs(request.query.unwrap_or_default()) {
            let (key, value) = pair?;
            if key == name {
                let bad = |_| HttpError::new(400, format!("the query's {name} is not a number: {value:?}"));
                return value.parse().map(|n: usize| n.min(most)).map_err(bad);
            }
        }
        Ok(default)
    };
    match (path, topic) {
        ("/metrics", _) => Ok(Route::Reply(metrics::reply(shared, context.now))),
        ("/api/websocket/status", _) => {
            Ok(Route::Gather(Report::Status { clients: number("clients", 1000, 100_000)? }))
        }
        ("/api/v1/websocket/stats", _) => {
            let tail = number("tail", 0, 100)?;
            Ok(Route::Reply(Reply::json(200, &stats::stats(shared, tail, context.now))))
        }
        ("/api/slow", _) => Ok(Route::Gather(Report::Slow { limit: number("limit", 20, 1000)? })),
        (_, Some(topic)) => {
            let (topic, of_it) = topic.split_once('/').unwrap_or((topic, ""));
            let name = decode_path_segment(topic)?.into_owned();
            check_topic(&name).map_err(|error| HttpError::new(400, error))?;
            match of_it {
                "" if !path.ends_with('/') || topic.is_empty() => Ok(Route::Gather(Report::Topic(name))),
                "history" => {
                    let limit = number("limit", 100, 1_000)?;
                    let query = request.query.unwrap_or_default();
                    let since = history::Since::read(query)?;
                    Ok(Route::Reply(history::history(context, &name, since, limit)))
                }
                _ => Err(not_found()),
            }
        }
        _ => Err(not_found()),
    }
}

fn of_drain(request: &Request<'_>, context: &Context<'_>) -> Result<Route, HttpError> {
    let wish = match request.method {
        "GET" | "HEAD" => {
            let progress = drain::progress(context.shared, context.now);
            return Ok(Route::Reply(Reply::json(200, &progress)));
        }
        "POST" => drain::Wish::Begin,
        "DELETE" => drain::Wish::Undo,
        _ => {
            let message = "a shutdown is followed with GET, begun with POST and taken back with DELETE";
            return Err(HttpError::wrong_method(drain::METHODS, message));
        }
    };
    Ok(Route::Drain(wish))
}

/// Whether the request shows one of the tokens; where none is configured, everybody may.
fn authorise(request: &Request<'_>, tokens: &[Option<&str>]) -> Result<(), HttpError> {
    let mut wanted = tokens.iter().flatten().peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    let header = request.headers.single("Authorization")?;
    let given = header
        .and_then(|value| value.split_once(' '))
        .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')));
    // Every token is compared, so that the time does not tell which came near.
    if wanted.fold(false, |known, token| is_secret(Some(token), given) | known) {
        return Ok(());
    }
    Err(HttpError::new(401, "this endpoint asks for a bearer token"))
}

fn read_only(request: &Request<'_>) -> Result<(), HttpError> {
    if matches!(request.method, "GET" | "HEAD") {
        return Ok(());
    }
    Err(HttpError::wrong_method("GET, HEAD", format!("{} is served with GET only", request.path)))
}

/// The answer to a question that every shard has answered.
pub fn gathered(report: &Report, parts: Vec<Part>, topics: &Topics, now: Now) -> Reply {
    Reply::json(200, &report::render(report, parts, topics, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::fanout::shared::Access;
    use crate::proto::http1::{HeadScan, parse_head};

    const NOW: Now = Now { mono: 0, wall_ms: 0 };

    fn ask(access: Access, state: State, door: Door, head: &str) -> Result<Route, HttpError> {
        let shared = Shared::new(1, &Limits::default(), access, NOW);
        shared.set_state(state);
        let head = format!("{}\r\nHost: node:8080\r\n\r\n", head.replace('|', "\r\n"));
        let mut scan = HeadScan::default();
        let (request, _) = parse_head(head.as_bytes(), 8192, &mut scan).unwrap().unwrap();
        route(&request, &Context { shared: &shared, shard: 0, door, now: NOW })
    }

    fn status(access: Access, head: &str) -> u16 {
        match ask(access, State::Ready, Door::Public, head) {
            Ok(Route::Reply(reply)) => reply.status,
            Ok(_) => 200,
            Err(error) => error.status,
        }
    }

    #[test]
    fn every_endpoint_answers_as_documented() {
        for (head, expected) in [
            ("GET / HTTP/1.1", 200),
            ("HEAD / HTTP/1.1", 200),
            ("GET /healthz HTTP/1.1", 200),
            ("GET /readyz HTTP/1.1", 200),
            ("GET /metrics HTTP/1.1", 200),
            ("GET /api/websocket/status HTTP/1.1", 200),
            ("GET /api/websocket/status?clients=5 HTTP/1.1", 200),
            ("GET /api/websocket/status?clients=x HTTP/1.1", 400),
            ("GET /api/v1/websocket/stats?tail=5 HTTP/1.1", 200),
            ("GET /api/slow HTTP/1.1", 200),
            ("GET /api/slow?limit=5000 HTTP/1.1", 200),
            ("GET /api/slow?limit=-1 HTTP/1.1", 400),
            ("GET /api/slow?limit= HTTP/1.1", 400),
            ("POST /api/slow HTTP/1.1", 405),
            ("GET /api/drain HTTP/1.1", 200),
            ("HEAD /api/drain HTTP/1.1", 200),
            ("POST /api/drain HTTP/1.1", 200),
            ("DELETE /api/drain HTTP/1.1", 200),
            ("PUT /api/drain HTTP/1.1", 405),
            ("OPTIONS /api/drain HTTP/1.1", 405),
            ("POST /api/drain HTTP/1.1|Origin: http://evil.example", 403),
            ("DELETE /api/drain HTTP/1.1|Origin: null", 403),
            // A name, and no token: its owner may have pointed it here.
            ("POST /api/drain HTTP/1.1|Origin: http://node:8080", 403),
            ("GET /api/topics/run%3A42 HTTP/1.1", 200),
            ("GET /api/topics/ HTTP/1.1", 400),
            ("GET /api/topics/a%00 HTTP/1.1", 400),
            ("GET /api/topics/run%3A* HTTP/1.1", 400),
            ("GET /api/topics/run%3A*/history HTTP/1.1", 400),
            ("GET /api/topics/a/b HTTP/1.1", 404),
            ("POST /api/publish HTTP/1.1", 200),
            ("GET /api/publish HTTP/1.1", 405),
            ("POST /metrics HTTP/1.1", 405),
            ("DELETE / HTTP/1.1", 405),
            ("GET /nothing HTTP/1.1", 404),
            ("GET /ws HTTP/1.1", 426),
            ("POST /api/publish HTTP/1.1|Origin: http://evil.example", 403),
            ("POST /api/publish HTTP/1.1|Origin: null", 403),
            ("POST /api/publish HTTP/1.1|Origin: http://node:8080", 403),
            ("POST /api/publish HTTP/1.1|Origin: http://node:8080.evil.example", 403),
        ] {
            assert_eq!(status(Access::default(), head), expected, "{head}");
        }
    }

    #[test]
    fn tokens_are_asked_for_as_soon_as_one_is_configured() {
        let publish = || Access { publish_token: Some("p".into()), ..Access::default() };
        let both = || Access { operator_token: Some("o".into()), ..publish() };
        for (access, head, expected) in [
            (publish(), "POST /api/publish HTTP/1.1", 401),
            (publish(), "POST /api/publish HTTP/1.1|Authorization: Bearer x", 401),
            (publish(), "POST /api/publish HTTP/1.1|Authorization: Bearer p|Authorization: Bearer p", 400),
            (publish(), "POST /api/publish HTTP/1.1|Authorization: Basic p", 401),
            (publish(), "POST /api/publish HTTP/1.1|Authorization: bearer p", 200),
            (publish(), "GET /metrics HTTP/1.1", 401),
            (publish(), "GET /metrics HTTP/1.1|Authorization: Bearer p", 200),
            (both(), "GET /metrics HTTP/1.1|Authorization: Bearer p", 401),
            (both(), "GET /metrics HTTP/1.1|Authorization: Bearer o", 200),
            (both(), "POST /api/publish HTTP/1.1|Authorization: Bearer o", 200),
            (both(), "GET /healthz HTTP/1.1", 200),
            (both(), "GET / HTTP/1.1", 200),
            (both(), "GET /api/topics/a HTTP/1.1", 401),
            (both(), "GET /api/slow HTTP/1.1", 401),
            (publish(), "POST /api/drain HTTP/1.1", 401),
            (both(), "POST /api/drain HTTP/1.1|Authorization: Bearer p", 401),
            (both(), "DELETE /api/drain HTTP/1.1|Authorization: Bearer p", 401),
            (both(), "GET /api/drain HTTP/1.1", 401),
            (both(), "POST /api/drain HTTP/1.1|Authorization: Bearer o", 200),
            (both(), "GET /api/slow HTTP/1.1|Authorization: Bearer o", 200),
        ] {
            assert_eq!(status(access, head), expected, "{head}");
        }
    }

    #[test]
    fn operators_have_their_own_door_where_there_is_one() {
        let access = || Access { has_admin: true, ..Access::default() };
        for (path, public) in [("/metrics", false), ("/api/drain", false), ("/", false), ("/healthz", true)] {
            let head = format!("GET {path} HTTP/1.1");
            assert_eq!(ask(access(), State::Ready, Door::Public, &head).is_ok(), public, "{path}");
            assert!(ask(access(), State::Ready, Door::Admin, &head).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_draining_node_takes_nothing_new() {
        const UPGRADE: &str = "GET /ws?categories=a,b HTTP/1.1|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let ask = |state, head| ask(Access::default(), state, Door::Public, head);
        let Ok(Route::Open(opening)) = ask(State::Ready, UPGRADE) else { panic!("an upgrade") };
        assert_eq!(opening.subscribe.topics, ["a", "b"]);
        assert_eq!(ask(State::Draining, UPGRADE).unwrap_err().status, 503);
        assert_eq!(ask(State::Draining, "POST /api/publish HTTP/1.1").unwrap_err().status, 503);
        for (state, expected) in [(State::Starting, 503), (State::Ready, 200), (State::Draining, 503)] {
            let Ok(Route::Reply(reply)) = ask(state, "GET /readyz HTTP/1.1") else { panic!("an answer") };
            assert_eq!(reply.status, expected);
        }
    }

    #[test]
    fn pages_of_other_sites_may_ask_for_event_streams() {
        let ask = |head| ask(Access::default(), State::Ready, Door::Public, head);
        for (head, expected) in [("OPTIONS /sse HTTP/1.1", 204), ("HEAD /sse?topics=a HTTP/1.1", 200)] {
            let Ok(Route::Reply(reply)) = ask(head) else { panic!("{head}") };
            assert_eq!(reply.status, expected);
            assert!(reply.headers.contains(&("Access-Control-Allow-Origin", "*".to_owned())), "{head}");
        }
        assert!(ask("GET /sse HTTP/1.1").unwrap_err().is_for_any_origin);
        assert!(matches!(ask("GET /sse?topics=a HTTP/1.1"), Ok(Route::Open(_))));
    }

    #[test]
    fn what_the_node_serves_no_stream_can_have() {
        let access = || Access { has_diagnostics: true, ..Access::default() };
        let own = own_paths(true);
        let only_then = [echo::PATH, diagnostics::PATH];
        assert!(own_paths(false).iter().all(|path| !only_then.contains(path)));
        for path in
            ["/", "/ws", "/sse", "/healthz", "/metrics", "/api/topics/any", "/api/publish", "/page.js"]
        {
            assert!(own.contains(&path), "{path}");
        }
        for path in own {
            let head = format!("GET {path} HTTP/1.1");
            assert_ne!(status(access(), &head), 404, "{path}");
            assert_eq!(status(Access::default(), &head) == 404, only_then.contains(&path), "{path}");
        }
    }
}
