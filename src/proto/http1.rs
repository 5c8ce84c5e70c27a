//! HTTP/1.1 as a server reads and writes it (RFC 9110, RFC 9112), and the request half of the WebSocket
//! handshake (RFC 6455 section 4.2). Bytes in, values out: no sockets, no clock, no policy.
//!
//! `httparse` takes a request apart; it forgives what a node behind proxies must not (bare line feeds, any
//! number of empty lines in front, bytes that are no UTF-8, every doubt about where a body ends).
//! [`HeadScan`] and [`parse_head`] refuse those, because two readers that disagree about one request are how
//! requests are smuggled.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

/// The most header lines that a request may have.
pub const MAX_HEADERS: usize = 64;
/// Chunk extensions mean nothing to anyone: this many bytes of them in one body are passed over, no more.
const MAX_CHUNK_EXTENSIONS: usize = 256;
/// The most bytes of trailers after a chunked body. They are read and ignored.
const MAX_TRAILERS: usize = 1024;

/// What a client that waits with its body until it is wanted (`Expect: 100-continue`) is sent (RFC 9110
/// section 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A request that is refused: the answer, and the end of its connection. What follows a refused head is never
/// read as another request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    /// The status of the answer.
    pub status: u16,
    /// The canonical reason phrase of `status`.
    pub reason: &'static str,
    /// What is wrong, and where.
    pub message: String,
    /// The methods that are served, where this one is not.
    pub allow: &'static str,
    /// Whether every page that may ask may read it.
    pub is_for_any_origin: bool,
    /// Seconds after which it may be tried again, where that is known.
    pub retry_after: Option<u32>,
}

impl HttpError {
    /// A refusal with its message.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason(status),
            message: message.into(),
            allow: "",
            is_for_any_origin: false,
            retry_after: None,
        }
    }

    /// A 405, which names the methods that are served (RFC 9110 section 15.5.6).
    pub fn wrong_method(allow: &'static str, message: impl Into<String>) -> Self {
        Self { allow, ..Self::new(405, message) }
    }

    /// The same, for every page to read that may ask (Fetch, "CORS protocol").
    pub fn for_any_origin(self) -> Self {
        Self { is_for_any_origin: true, ..self }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// Appends the whole answer: `{"error":…}`, with `Connection: close`. `head_only` is for HEAD, `readers` whose
    /// pages may ask: see [`readable_by`].
    pub fn write(&self, out: &mut Vec<u8>, head_only: bool, readers: Option<&str>) {
        let extra: &[(&str, &str)] = match self.status {
            401 => &[("WWW-Authenticate", "Bearer")],
            405 => &[("Allow", self.allow)],
            // RFC 9110 section 15.5.22: 426 names the protocol; RFC 6455 section 4.4: and its version.
            426 => &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")],
            _ => &[],
        };
        let mut extra = extra.to_vec();
        if self.is_for_any_origin {
            extra.extend(readable_by(readers));
        }
        // RFC 9110 section 10.2.3.
        let retry_after = self.retry_after.map(|seconds| seconds.to_string());
        extra.extend(retry_after.as_deref().map(|seconds| ("Retry-After", seconds)));
        let body = format!("{{\"error\":{}}}", serde_json::Value::from(self.message.as_str()));
        write_response(out, self.status, "application/json", &extra, body.as_bytes(), false, head_only);
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.reason, self.message)
    }
}

impl std::error::Error for HttpError {}

/// Headers that let pages read an answer (Fetch, "CORS protocol"): those of every origin (`*`), of one, or of none.
/// What is for one must not be kept for others (RFC 9110 section 12.5.5).
pub fn readable_by(readers: Option<&str>) -> impl Iterator<Item = (&'static str, &str)> {
    let vary = readers.filter(|readers| *readers != "*").map(|_| ("Vary", "Origin"));
    readers.map(|readers| ("Access-Control-Allow-Origin", readers)).into_iter().chain(vary)
}

/// A request head that is whole and well formed.
#[derive(Debug)]
pub struct Request<'a> {
    /// As sent. Methods are case-sensitive, and which of them exist is for the router to say.
    pub method: &'a str,
    /// What stands before `?`, raw: split it at `/` first, then [`decode_path_segment`]. `*` for `OPTIONS *`.
    pub path: &'a str,
    /// What stands after `?`, raw: see [`query_pairs`].
    pub query: Option<&'a str>,
    /// The header lines.
    pub headers: Headers<'a>,
    /// How much follows the head.
    pub body: BodyLength,
    /// Whether another request may follow on this connection (never after HTTP/1.0).
    pub keep_alive: bool,
    /// 0 or 1.
    pub version_minor: u8,
    /// The client waits for [`CONTINUE`] before it sends the body.
    pub expects_continue: bool,
}

/// How much follows the head (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// Nothing (also where `Content-Length: 0` says so).
    None,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunks: see [`Chunked`].
    Chunked,
}

/// The header lines in their order. Every value is UTF-8.
#[derive(Debug, Default)]
pub struct Headers<'a> {
    list: SmallVec<[(&'a str, &'a str); 24]>,
}

impl<'a> Headers<'a> {
    /// The first line of that name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The only line of that name; two of them are a 400. For what decides something: a proxy in front may
    /// have read the other one.
    pub fn single(&self, name: &str) -> Result<Option<&'a str>, HttpError> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(HttpError::bad(format!("more than one {name} header"))),
        }
    }

    /// Every line of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether the comma-separated list of that name (one line or many, RFC 9110 section 5.6.1) has the
    /// token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| trim(item).eq_ignore_ascii_case(token))
    }

    /// Name and value of every line.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.list.iter().copied()
    }
}

/// Optional white space is spaces and tabs, nothing of Unicode's (RFC 9110 section 5.6.3).
fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// How far the head of one connection's next request has been looked through. The caller keeps it beside the
/// bytes that it collects, so that a head that arrives byte by byte costs no more than one that arrives at
/// once.
#[derive(Debug, Clone, Default)]
pub struct HeadScan {
    /// Bytes before this one were looked at and are good.
    checked: usize,
    /// Where the line under way begins.
    line_start: usize,
    /// Whole lines so far, the request line among them.
    lines: usize,
}

impl HeadScan {
    /// Where the head ends, once it does. Sees to everything that one byte and its neighbour can get wrong,
    /// so the same error is found at the same byte however the head is cut.
    fn advance(&mut self, input: &[u8], max_header_bytes: usize) -> Result<Option<usize>, HttpError> {
        while self.checked < input.len().min(max_header_bytes) {
            match input[self.checked] {
                b'\r' => match input.get(self.checked + 1) {
                    None => return Ok(None),
                    Some(b'\n') => {
                        let empty = self.checked == self.line_start;
                        self.checked += 2;
                        self.line_start = self.checked;
                        match (empty, self.lines) {
                            // RFC 9112 section 2.2: one empty line in front is passed over.
                            (true, 0) if self.checked == 2 => {}
                            (true, 0) => {
                                return Err(HttpError::bad("empty lines where a request should begin"));
                            }
                            (true, _) if self.checked <= max_header_bytes => {
                                return Ok(Some(self.checked));
                            }
                            (true, _) => {}
                            (false, lines) if lines > MAX_HEADERS => {
                                return Err(HttpError::new(
                                    431,
                                    format!("more than {MAX_HEADERS} header lines"),
                                ));
                            }
                            (false, _) => self.lines += 1,
                        }
                    }
                    Some(_) => return Err(self.bad_byte("a carriage return without its line feed")),
                },
                b'\n' => return Err(self.bad_byte("a line feed without its carriage return")),
                b'\t' | b' '..=b'~' | 0x80.. => self.checked += 1,
                0x16 if self.checked == 0 => {
                    return Err(HttpError::bad("these bytes look like TLS; this port speaks plain HTTP"));
                }
                _ => return Err(self.bad_byte("a control character")),
            }
        }
        if self.checked < max_header_bytes {
            return Ok(None);
        }
        Err(match self.lines {
            0 => HttpError::new(414, format!("the request line is longer than {max_header_bytes} bytes")),
            _ => HttpError::new(431, format!("the head is longer than {max_header_bytes} bytes")),
        })
    }

    fn bad_byte(&self, what: &str) -> HttpError {
        HttpError::bad(format!(
            "{what} in {}, at byte {} of the request",
            line_name(self.lines),
            self.checked
        ))
    }
}

fn line_name(index: usize) -> String {
    match index {
        0 => "the request line".to_owned(),
        n => format!("header line {n}"),
    }
}

/// Reads one request head from the front of `input`: `Ok(None)` while it is not whole, then the request and
/// the length of its head. `scan` belongs to these bytes: call again with the same bytes and more behind
/// them. It is as new after a head that was whole.
///
/// Costs one look at each new byte, and one parse when the head is whole.
pub fn parse_head<'a>(
    input: &'a [u8],
    max_header_bytes: usize,
    scan: &mut HeadScan,
) -> Result<Option<(Request<'a>, usize)>, HttpError> {
    let Some(length) = scan.advance(input, max_header_bytes)? else {
        return Ok(None);
    };
    *scan = HeadScan::default();
    let head = &input[..length];
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);

    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut lines);
    let fields = match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => (parsed.method, parsed.path, parsed.version),
        Ok(httparse::Status::Partial) => (None, None, None),
        Err(error) => return Err(explain(error, head)),
    };
    let (Some(method), Some(target), Some(version_minor)) = fields else {
        return Err(HttpError::bad("the head ends too early"));
    };
    let mut headers = Headers::default();
    for (index, header) in parsed.headers.iter().enumerate() {
        let value = std::str::from_utf8(header.value)
            .map_err(|_| HttpError::bad(format!("{} is not UTF-8", line_name(index + 1))))?;
        headers.list.push((header.name, value));
    }

    let host = host(&headers, version_minor)?;
    let (path, query) = split_target(method, target, host)?;
    let body = body_length(&headers, version_minor)?;
    Ok(Some((
        Request {
            method,
            path,
            query,
            body,
            keep_alive: version_minor == 1 && !headers.has_token("connection", "close"),
            version_minor,
            expects_continue: expects_continue(&headers, version_minor)? && body != BodyLength::None,
            headers,
        },
        length,
    )))
}

/// Says in words what `httparse` found, and where.
fn explain(error: httparse::Error, head: &[u8]) -> HttpError {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    match error {
        httparse::Error::Version => {
            let version = request_line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
            match version {
                [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
                    HttpError::new(505, "HTTP/1.1 is spoken here")
                }
                _ => HttpError::bad("the request line does not end in HTTP/1.1"),
            }
        }
        httparse::Error::Token | httparse::Error::NewLine | httparse::Error::Status => {
            HttpError::bad("the request line is not `METHOD /path HTTP/1.1`")
        }
        httparse::Error::TooManyHeaders => {
            HttpError::new(431, format!("more than {MAX_HEADERS} header lines"))
        }
        httparse::Error::HeaderName | httparse::Error::HeaderValue => {
            let wrong = |line: &[u8]| {
                let colon = line.iter().position(|&byte| byte == b':');
                match (line.first(), colon.map(|at| &line[..at])) {
                    (Some(b' ' | b'\t'), _) => Some("is folded onto the line before it"),
                    (_, None) => Some("has no colon"),
                    (_, Some([])) => Some("has no name"),
                    (_, Some([.., b' ' | b'\t'])) => Some("has white space before its colon"),
                    (_, Some(name)) if !name.iter().all(|&byte| is_token(byte)) => {
                        Some("has a bad character in its name")
                    }
                    _ => None,
                }
            };
            let found = lines
                .take_while(|line| !line.is_empty())
                .enumerate()
                .find_map(|(index, line)| Some((index + 1, wrong(line)?)));
            match found {
                Some((number, what)) => HttpError::bad(format!("{} {what}", line_name(number))),
                None => HttpError::bad("a header line is malformed"),
            }
        }
    }
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9112 section 3.2: exactly one `Host` in HTTP/1.1. Before that it may be missing, but never there
/// twice.
fn host<'a>(headers: &Headers<'a>, version_minor: u8) -> Result<Option<&'a str>, HttpError> {
    let host = headers.single("Host")?;
    match host {
        None if version_minor == 1 => Err(HttpError::bad("the Host header is missing")),
        Some(host) if host.is_empty() || !host.bytes().all(is_host) => {
            Err(HttpError::bad("the Host header is malformed"))
        }
        _ => Ok(host),
    }
}

/// What may stand in a host with its port (RFC 3986 section 3.2.2), but no comma: that is two Hosts joined by
/// a proxy.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// Path and query of a request target (RFC 9112 section 3.2). The absolute form is taken where it names the
/// same host as the `Host` header: two hosts in one request are two readings of it.
fn split_target<'a>(
    method: &str,
    target: &'a str,
    host: Option<&str>,
) -> Result<(&'a str, Option<&'a str>), HttpError> {
    if method == "CONNECT" {
        return Err(HttpError::new(501, "CONNECT is for proxies"));
    }
    if !target.is_ascii() || target.contains('#') {
        return Err(HttpError::bad("the request target has characters that must be percent-encoded"));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let origin_form = if target.starts_with('/') { target } else { strip_authority(target, host)? };
    let (path, query) = match origin_form.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin_form, None),
    };
    Ok((if path.is_empty() { "/" } else { path }, query))
}

fn strip_authority<'a>(target: &'a str, host: Option<&str>) -> Result<&'a str, HttpError> {
    let (scheme, rest) =
        target.split_once("://").ok_or_else(|| HttpError::bad("the request target does not begin with /"))?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(HttpError::bad("the request target has a scheme that is not served here"));
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match host {
        Some(host) if !host.eq_ignore_ascii_case(authority) => {
            Err(HttpError::bad("the request target and the Host header name different hosts"))
        }
        None if authority.is_empty() || !authority.bytes().all(is_host) => {
            Err(HttpError::bad("the request target names no host"))
        }
        _ => Ok(rest),
    }
}

/// RFC 9112 section 6, without its leniences: one way to say where a body ends, said once.
fn body_length(headers: &Headers<'_>, version_minor: u8) -> Result<BodyLength, HttpError> {
    let length = headers.single("Content-Length")?;
    let coding = headers.single("Transfer-Encoding")?;
    match (length, coding) {
        (None, None) => Ok(BodyLength::None),
        (Some(_), Some(_)) => Err(HttpError::bad("Content-Length and Transfer-Encoding in one request")),
        (None, Some(_)) if version_minor == 0 => Err(HttpError::bad("Transfer-Encoding in HTTP/1.0")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(BodyLength::Chunked),
        (None, Some(_)) => Err(HttpError::bad("the only Transfer-Encoding understood is chunked")),
        (Some(length), None) => {
            // `parse` alone would take a sign.
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            match length.parse() {
                Ok(0) if digits => Ok(BodyLength::None),
                Ok(length) if digits => Ok(BodyLength::Length(length)),
                _ => Err(HttpError::bad("Content-Length is not a number")),
            }
        }
    }
}

/// RFC 9110 section 10.1.1. HTTP/1.0 knows no 100, so there it is ignored.
fn expects_continue(headers: &Headers<'_>, version_minor: u8) -> Result<bool, HttpError> {
    match headers.get("Expect") {
        Some(value) if version_minor == 1 && !value.eq_ignore_ascii_case("100-continue") => {
            Err(HttpError::new(417, "the only Expect understood is 100-continue"))
        }
        Some(_) => Ok(version_minor == 1),
        None => Ok(false),
    }
}

/// The key of a WebSocket upgrade (RFC 6455 section 4.2.1). `Ok(None)`: not an upgrade to WebSocket at all. A
/// bad one is refused (400, or 426 for another version), never served as a plain request: a proxy in front
/// may take the connection for upgraded, and what follows for frames.
pub fn websocket_key<'a>(request: &Request<'a>) -> Result<Option<&'a str>, HttpError> {
    let headers = &request.headers;
    let names_protocol = headers.has_token("Upgrade", "websocket");
    let speaks_it = || headers.iter().any(|(name, _)| has_prefix_ignore_case(name, "sec-websocket-"));
    if !names_protocol && !speaks_it() {
        return Ok(None);
    }
    let refuse = |what: &str| Err(HttpError::bad(format!("not a WebSocket upgrade: {what}")));
    if request.method != "GET" {
        return refuse("the method is not GET");
    }
    if request.version_minor == 0 {
        return refuse("HTTP/1.0 has none");
    }
    if request.body != BodyLength::None {
        return refuse("it has a body");
    }
    if !headers.has_token("Connection", "upgrade") {
        return refuse("the Connection header does not say `upgrade`");
    }
    if !names_protocol {
        return refuse("the Upgrade header does not say `websocket`");
    }
    if headers.single("Sec-WebSocket-Version")? != Some("13") {
        return Err(HttpError::new(426, "the only Sec-WebSocket-Version spoken is 13"));
    }
    match headers.single("Sec-WebSocket-Key")? {
        Some(key) if is_base64_of_16_bytes(key) => Ok(Some(key)),
        Some(_) => refuse("Sec-WebSocket-Key is not 16 bytes in base64"),
        None => refuse("Sec-WebSocket-Key is missing"),
    }
}

fn has_prefix_ignore_case(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The last character's low four bits are not looked at, as elsewhere: keys written by hand in examples get
/// them wrong.
fn is_base64_of_16_bytes(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|digits| digits.bytes().all(digit))
}

/// The answer that ends HTTP on this connection (RFC 6455 section 4.2.2), with the extension that was agreed on. No
/// subprotocol.
pub fn write_upgrade(out: &mut Vec<u8>, key: &str, extension: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(tungstenite::handshake::derive_accept_key(key.as_bytes()).as_bytes());
    if let Some(extension) = extension {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        out.extend_from_slice(extension.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a whole answer. `head_only` (for HEAD) leaves the body out and says its length all the same.
///
/// A header with a control character in it is left out: nothing that a client sent can begin a line of its
/// own.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    content_type: &str,
    extra_headers: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
    // RFC 9110 section 8.6 and 9112 section 6.3: these have no body, whatever is said of its length.
    let bodiless = status < 200 || status == 204 || status == 304;
    if !bodiless {
        header(out, "Content-Type", content_type);
        header(out, "Content-Length", &body.len().to_string());
        header(out, "X-Content-Type-Options", "nosniff");
    }
    header(out, "Connection", if keep_alive { "keep-alive" } else { "close" });
    for (name, value) in extra_headers {
        header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless && !head_only {
        out.extend_from_slice(body);
    }
}

/// Appends the head of an answer that goes on until the connection ends (RFC 9112 section 6.3, case 8).
pub fn write_stream_head(out: &mut Vec<u8>, content_type: &str, extra_headers: &[(&str, &str)]) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    header(out, "Content-Type", content_type);
    header(out, "X-Content-Type-Options", "nosniff");
    header(out, "Connection", "close");
    for (name, value) in extra_headers {
        header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut Vec<u8>, name: &str, value: &str) {
    let clean =
        name.bytes().all(is_token) && !value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
    debug_assert!(clean, "a control character in header {name}");
    if clean {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// The reason phrases of the statuses that a node answers with (RFC 9110 section 15, RFC 6585).
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// Takes a chunked body apart as it comes (RFC 9112 section 7.1), up to a limit.
#[derive(Debug)]
pub struct Chunked {
    body: Vec<u8>,
    limit: usize,
    at: ChunkPlace,
    /// Hexadecimal digits of the size under way.
    digits: u8,
    size: usize,
    /// Bytes of extensions, then of trailers, over the whole body.
    extensions: usize,
    trailers: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkPlace {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl Chunked {
    /// A body of more than `limit` bytes is a 413, as soon as a chunk announces it.
    pub fn new(limit: usize) -> Self {
        Self { body: Vec::new(), limit, at: ChunkPlace::Size, digits: 0, size: 0, extensions: 0, trailers: 0 }
    }

    /// How many bytes of `input` belong to this body, and whether it is whole. What is left over then is the
    /// next request.
    pub fn push(&mut self, input: &[u8]) -> Result<(usize, bool), HttpError> {
        let mut used = 0;
        while self.at != ChunkPlace::Done && used < input.len() {
            if self.at == ChunkPlace::Data {
                let taken = self.size.min(input.len() - used);
                self.body.extend_from_slice(&input[used..used + taken]);
                used += taken;
                self.size -= taken;
                if self.size == 0 {
                    self.at = ChunkPlace::DataReturn;
                }
            } else {
                self.at = self.step(input[used])?;
                used += 1;
            }
        }
        Ok((used, self.at == ChunkPlace::Done))
    }

    /// The body, as far as it is here.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Where one byte that is not data leads.
    fn step(&mut self, byte: u8) -> Result<ChunkPlace, HttpError> {
        use ChunkPlace::{
            Data, DataLineFeed, DataReturn, Done, Extension, LastLineFeed, Size, SizeLineFeed, Trailer,
            TrailerLineFeed, TrailerName, TrailerStart,
        };
        match (self.at, byte) {
            (Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.size_digit(byte),
            (Size, b';') if self.digits > 0 => Ok(Extension),
            (Size | Extension, b'\r') if self.digits > 0 => Ok(SizeLineFeed),
            (Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                match self.extensions <= MAX_CHUNK_EXTENSIONS {
                    true => Ok(Extension),
                    false => Err(HttpError::bad("too many bytes of chunk extensions")),
                }
            }
            (SizeLineFeed, b'\n') => {
                self.digits = 0;
                Ok(if self.size == 0 { TrailerStart } else { Data })
            }
            (DataReturn, b'\r') => Ok(DataLineFeed),
            (DataLineFeed, b'\n') => Ok(Size),
            (TrailerStart, b'\r') => Ok(LastLineFeed),
            (LastLineFeed, b'\n') => Ok(Done),
            (Trailer, b'\r') => Ok(TrailerLineFeed),
            (TrailerLineFeed, b'\n') => Ok(TrailerStart),
            // Trailers are read over, but only header lines are trailers: another reader may take what is none for
            // the next request.
            (TrailerName, b':') => self.trailer(Trailer),
            (TrailerStart | TrailerName, byte) if is_token(byte) => self.trailer(TrailerName),
            (Trailer, b'\t' | b' '..=b'~' | 0x80..) => self.trailer(Trailer),
            (Size | Extension | SizeLineFeed, _) => Err(HttpError::bad("a malformed chunk size")),
            (DataReturn | DataLineFeed, _) => Err(HttpError::bad("a chunk is longer than its size says")),
            (TrailerStart | TrailerName | Trailer | TrailerLineFeed | LastLineFeed | Data | Done, _) => {
                Err(HttpError::bad("a malformed end of a chunked body"))
            }
        }
    }

    fn trailer(&mut self, next: ChunkPlace) -> Result<ChunkPlace, HttpError> {
        self.trailers += 1;
        match self.trailers <= MAX_TRAILERS {
            true => Ok(next),
            false => Err(HttpError::new(431, "too many bytes of trailers")),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<ChunkPlace, HttpError> {
        // Leading zeros count too: eight digits are 4 GiB.
        if self.digits == 8 {
            return Err(HttpError::bad("a malformed chunk size"));
        }
        self.digits += 1;
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.size = self.size.saturating_mul(16).saturating_add(usize::from(digit));
        if self.size > self.limit.saturating_sub(self.body.len()) {
            return Err(HttpError::new(413, format!("the body is larger than {} bytes", self.limit)));
        }
        Ok(ChunkPlace::Size)
    }
}

/// Name and value of each `name=value` between the `&` of a query, decoded once, `+` being a space.
pub fn query_pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), HttpError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode_query(name)?, decode_query(value)?))
    })
}

fn decode_query(text: &str) -> Result<Cow<'_, str>, HttpError> {
    match text.contains('+') {
        true => Ok(Cow::Owned(decode(&text.replace('+', " "))?.into_owned())),
        false => decode(text),
    }
}

/// One segment of a path (what stands between two `/`), decoded once. `%2F` becomes a `/` that splits
/// nothing.
pub fn decode_path_segment(segment: &str) -> Result<Cow<'_, str>, HttpError> {
    decode(segment)
}

/// RFC 3986 section 2.1, strictly: every `%` has its two digits, and what comes out is UTF-8.
fn decode(text: &str) -> Result<Cow<'_, str>, HttpError> {
    let is_escape =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err(HttpError::bad("a % without two hexadecimal digits behind it"));
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| HttpError::bad("percent-encoded bytes that are not UTF-8"))
}

#[cfg(test)]
mod tests;
