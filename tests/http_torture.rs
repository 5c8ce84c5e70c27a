//! HTTP/1.1 as suites that torture servers and proxies ask it: each request over a real socket, whole and byte by
//! byte, with a second one right behind it. What is read is read as it was meant and the second one is answered; what
//! is refused is refused once, and nothing behind it is ever taken for a request.

mod common;

use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpStream};

use common::raw::{RawClient, upgrade};
use common::{Node, PATIENCE, read_response};
use fanwire::proto::websocket::masked;
use serde_json::Value;

/// What becomes of a request.
enum Fate {
    /// It is read: method and body. The connection goes on.
    Read(&'static str, &'static str),
    /// It is read, and the connection closes.
    Last(&'static str, &'static str),
    /// It is refused with this status, and the connection closes.
    No(u16),
}

use Fate::{Last, No, Read as Is};

/// The request line, header lines with their `Host`, body. `@` stands for the path that tells what was read.
type Row = (&'static str, Fate);

/// The way a request begins.
#[rustfmt::skip]
const LINES: &[Row] = &[
    ("GET @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("GET", "")),
    ("get @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("get", "")),
    ("M-SEARCH @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("M-SEARCH", "")),
    ("!#$%&'*+-.^_`|~1 @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("!#$%&'*+-.^_`|~1", "")),
    ("TRACE @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("TRACE", "")),
    ("OPTIONS @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("OPTIONS", "")),
    ("\r\nGET @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("GET", "")),
    ("\r\n\r\nGET @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("\rGET @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("\nGET @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    (" GET @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("\tGET @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    (" @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET\t@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET\x0b@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET\x0c@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET  @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @  HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1 \r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\t\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ x HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @\r\nHost: n\r\n\r\n", No(400)),
    ("GET @\r\n\r\n", No(400)),
    ("GET\r\n\r\n", No(400)),
    ("GE\"T @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET: @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET(1) @ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    // Targets.
    ("GET @?a=1&b=%00%ff?c HTTP/1.1\r\nHost: n\r\n\r\n", Is("GET", "")),
    ("GET @? HTTP/1.1\r\nHost: n\r\n\r\n", Is("GET", "")),
    ("GET http://n@ HTTP/1.1\r\nHost: n\r\n\r\n", Is("GET", "")),
    ("GET HTTP://N@ HTTP/1.1\r\nHost: n\r\n\r\n", Is("GET", "")),
    ("GET http://other@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET http://n:80@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET http://u:p@n@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET http:///diagnostics/http HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET file://n@ HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET n:80 HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("CONNECT n:80 HTTP/1.1\r\nHost: n:80\r\n\r\n", No(501)),
    ("CONNECT @ HTTP/1.1\r\nHost: n\r\n\r\n", No(501)),
    ("GET * HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET diagnostics/http HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @#part HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @\x7f HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @\0 HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @?é HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET \\diagnostics\\http HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    // Versions.
    ("GET @ HTTP/1.0\r\n\r\n", Last("GET", "")),
    ("GET @ HTTP/1.0\r\nHost: n\r\nConnection: keep-alive\r\n\r\n", Last("GET", "")),
    ("GET @ HTTP/1.2\r\nHost: n\r\n\r\n", No(505)),
    ("GET @ HTTP/0.9\r\nHost: n\r\n\r\n", No(505)),
    ("GET @ HTTP/2.0\r\nHost: n\r\n\r\n", No(505)),
    ("GET @ HTTP/3\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.10\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/01.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1,1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/+1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ http/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP /1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTPS/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ ICE/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ RTSP/1.0\r\nHost: n\r\n\r\n", No(400)),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", No(505)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", No(400)),
    ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n", No(400)),
];

/// Header lines.
#[rustfmt::skip]
const HEADERS: &[Row] = &[
    ("GET @ HTTP/1.1\r\nHost:n\r\nX:\r\nY: \t \r\nZ: \t a b \t\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nhOST: n\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: é\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: a:b::c\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX_Y.Z!: 1\r\nX_Y.Z!: 2\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\nHost: n\n\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\n\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\rX: y\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\n\rX: y\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\n\rHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\n X: y\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: y\r\n\tz\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: y\r\n \r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\n Host: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost : n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost\t: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\n: y\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX Y: z\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX@: z\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\n\"X\": z\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX\0: y\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: y\0z\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: y\x0b\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nX: \x7f\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\n\u{feff}X: y\r\n\r\n", No(400)),
    // Host.
    ("GET @ HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost:\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nHost: n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nhost: m\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n,m\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n m\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: u@n\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n/x\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n?x\r\n\r\n", No(400)),
    ("GET @ HTTP/1.0\r\nHost: n\r\nHost: n\r\n\r\n", No(400)),
    // Whether the connection goes on.
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n", Last("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: CLOSE\r\n\r\n", Last("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: keep-alive,\tclose\r\n\r\n", Last("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", Last("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: closed\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: Host, Content-Length\r\n\r\n", Is("GET", "")),
    // Upgrades to what is not spoken are passed over, those to what is are not half taken.
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", Is("GET", "")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", No(426)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nUpgrade: websocket\r\n\r\n", No(400)),
    ("GET @ HTTP/1.1\r\nHost: n\r\nSec-WebSocket-Key: x\r\n\r\n", No(400)),
];

/// Where a body ends.
#[rustfmt::skip]
const BODIES: &[Row] = &[
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\nabc", Is("POST", "abc")),
    ("GET @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\nabc", Is("GET", "abc")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n", Is("POST", "")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 000000003\r\n\r\nabc", Is("POST", "abc")),
    ("POST @ HTTP/1.1\r\nHost: n\r\ncontent-LENGTH:\t3 \r\n\r\nabc", Is("POST", "abc")),
    ("POST @ HTTP/1.1\r\nHost: n\r\n\r\n", Is("POST", "")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent_Length: 3\r\n\r\n", Is("POST", "")),
    ("POST @ HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", Last("POST", "abc")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 14\r\n\r\nGET / HTTP/1.1", Is("POST", "GET / HTTP/1.1")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length:\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: +3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: -0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3.0\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3e0\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 0x3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 1_0\r\n\r\n0123456789", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: \"3\"\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3;\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3 3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3,3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3, 4\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: \u{663}\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length : 3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length:\r\n 3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 18446744073709551616\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 18446744073709551615\r\n\r\n", No(413)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 4294967299\r\n\r\nabc", No(413)),
    // Both, and codings that are none.
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: identity\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked;x=y\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunk\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer\u{2010}Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.0\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", No(400)),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTransfer_Encoding: chunked\r\n\r\n", Is("POST", "")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nTE: trailers\r\nTrailer: X\r\n\r\n", Is("POST", "")),
    ("POST @ HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\nExpect: the-unexpected\r\n\r\nabc", No(417)),
];

/// Chunks, behind `Transfer-Encoding: chunked`.
#[rustfmt::skip]
const CHUNKS: &[Row] = &[
    ("0\r\n\r\n", Is("POST", "")),
    ("3\r\nabc\r\n0\r\n\r\n", Is("POST", "abc")),
    ("1\r\na\r\n2\r\nbc\r\n000\r\n\r\n", Is("POST", "abc")),
    ("A\r\n0123456789\r\n0\r\n\r\n", Is("POST", "0123456789")),
    ("a\r\n0123456789\r\n0\r\n\r\n", Is("POST", "0123456789")),
    ("00000003\r\nabc\r\n0\r\n\r\n", Is("POST", "abc")),
    ("7\r\n0\r\n\r\nGE\r\n0\r\n\r\n", Is("POST", "0\r\n\r\nGE")),
    ("3;x\r\nabc\r\n0;y=z\r\n\r\n", Is("POST", "abc")),
    ("3;x=\"a;b\"\r\nabc\r\n0\r\n\r\n", Is("POST", "abc")),
    ("3\r\nabc\r\n0\r\nX: y\r\nContent-Length: 50\r\n\r\n", Is("POST", "abc")),
    ("3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\nHost: m\r\n\r\n", Is("POST", "abc")),
    ("\r\n3\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3\nabc\r\n0\r\n\r\n", No(400)),
    ("3\rabc\r\n0\r\n\r\n", No(400)),
    ("3\r\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3\r\nabc\n0\r\n\r\n", No(400)),
    ("3\r\nabc\r0\r\n\r\n", No(400)),
    ("3\r\nabc0\r\n\r\n", No(400)),
    ("3\r\nabcd\r\n0\r\n\r\n", No(400)),
    ("3\r\nab\r\n0\r\n\r\n", No(400)),
    ("3\r\nabc\r\n\r\n0\r\n\r\n", No(400)),
    ("3 \r\nabc\r\n0\r\n\r\n", No(400)),
    (" 3\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3\t\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3 ;x\r\nabc\r\n0\r\n\r\n", No(400)),
    ("+3\r\nabc\r\n0\r\n\r\n", No(400)),
    ("-3\r\nabc\r\n0\r\n\r\n", No(400)),
    ("-0\r\n\r\n", No(400)),
    ("0x3\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3h\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3_\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3.0\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3,x\r\nabc\r\n0\r\n\r\n", No(400)),
    ("g\r\nabc\r\n0\r\n\r\n", No(400)),
    (";x\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3;x\nabc\r\n0\r\n\r\n", No(400)),
    ("3;x\ry\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3;x=\"\r\n\"\r\nabc\r\n0\r\n\r\n", No(400)),
    ("3;x\0\r\nabc\r\n0\r\n\r\n", No(400)),
    ("000000003\r\nabc\r\n0\r\n\r\n", No(400)),
    ("100000003\r\nabc\r\n0\r\n\r\n", No(413)),
    ("10000000000000003\r\nabc\r\n0\r\n\r\n", No(413)),
    ("fffffffffffffffe\r\nabc\r\n0\r\n\r\n", No(413)),
    ("0\r\n\n", No(400)),
    ("0\r\n\r\r\n", No(400)),
    ("0\r\nX: y\n\r\n", No(400)),
    ("0\r\nX: y\r\n\tfolded\r\n\r\n", No(400)),
    ("0\r\nX : y\r\n\r\n", No(400)),
    ("0\r\nGET /healthz HTTP/1.1\r\nHost: n\r\n\r\n", No(400)),
    ("0\r\nX: \0\r\n\r\n", No(400)),
];

/// What stands behind every request.
const SECOND: &str = "GET /healthz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n";

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends pieces and reads every answer until the connection ends.
fn ask<'a>(addr: SocketAddr, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(u16, bool, Value)> {
    let mut stream = connect(addr);
    for piece in pieces {
        // The node may be done with it before everything is sent.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all);
    let answers = answers_in(&String::from_utf8(all).unwrap());
    assert!(end.is_ok(), "{end:?} after {answers:?}");
    answers
}

/// Status, whether the connection closes, and the body of each answer.
fn answers_in(mut text: &str) -> Vec<(u16, bool, Value)> {
    let mut answers = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_once("\r\n\r\n").expect("whole heads");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status");
        let line = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = line("Content-Length: ").expect("a length").parse().unwrap();
        let (body, rest) = rest.split_at_checked(length).expect("a whole body");
        let closes = line("Connection: ") == Some("close");
        answers.push((status.parse().unwrap(), closes, serde_json::from_str(body).unwrap_or_default()));
        text = rest;
    }
    answers
}

fn check(addr: SocketAddr, request: &str, fate: &Fate) {
    let all = format!("{request}{SECOND}");
    for size in [all.len(), 1] {
        let answers = ask(addr, all.as_bytes().chunks(size));
        let shown = format!("{request:?} in pieces of {size}: {answers:?}");
        match fate {
            Is(method, body) | Last(method, body) => {
                let (status, closes, read) = &answers[0];
                assert_eq!(*status, 200, "{shown}");
                assert_eq!(
                    (&read["method"], &read["body"]["text"]),
                    (&(*method).into(), &(*body).into()),
                    "{shown}"
                );
                assert_eq!(read["path"], "/diagnostics/http", "{shown}");
                assert_eq!(*closes, matches!(fate, Last(..)), "{shown}");
                let count = if *closes { 1 } else { 2 };
                assert_eq!(answers.len(), count, "{shown}");
                assert!(answers.iter().all(|(status, ..)| *status == 200), "{shown}");
            }
            No(expected) => {
                assert_eq!(answers.len(), 1, "{shown}");
                let (status, closes, body) = &answers[0];
                assert_eq!((status, closes), (expected, &true), "{shown}");
                assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
            }
        }
    }
}

fn node() -> Node {
    Node::start(&["--diagnostics", "--shards", "1"])
}

fn run(rows: &[Row], before: &str) {
    let node = node();
    let mut bystander = node.websocket();
    bystander.subscribe(&["mine"]);
    for (row, fate) in rows {
        let request = format!("{before}{row}").replacen('@', "/diagnostics/http", 1);
        check(node.http_addr(), &request, fate);
    }
    let refused = rows.iter().filter(|(_, fate)| matches!(fate, No(_))).count();
    let stats = node.wait_stats("one client", |stats| stats["connections"] == 1);
    // Each was sent twice, and each that was refused is counted.
    assert_eq!(stats["refused"]["http"], 2 * refused);
    node.publish(&["mine"], "e", &serde_json::json!(1));
    assert_eq!(bystander.next_json(PATIENCE)["category"], "mine", "nobody else notices");
}

#[test]
fn request_lines() {
    run(LINES, "");
}

#[test]
fn header_lines() {
    run(HEADERS, "");
}

#[test]
fn ends_of_bodies() {
    run(BODIES, "");
}

#[test]
fn chunked_bodies() {
    run(CHUNKS, "POST /diagnostics/http HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn a_pipeline_is_answered_in_order_up_to_the_first_bad_request() {
    let node = node();
    for good in [0, 1, 7, 60] {
        let mut all = String::new();
        for n in 0..good {
            let body = "x".repeat(n);
            all.push_str(&format!(
                "POST /diagnostics/http?n={n} HTTP/1.1\r\nHost: n\r\nContent-Length: {n}\r\n\r\n{body}"
            ));
        }
        all.push_str("GET / HTTP/1.1\r\nHost: n\r\nX : y\r\n\r\n");
        all.push_str(SECOND);
        for size in [all.len(), 7] {
            let answers = ask(node.http_addr(), all.as_bytes().chunks(size));
            assert_eq!(answers.len(), good + 1, "{answers:?}");
            for (n, (status, _, read)) in answers[..good].iter().enumerate() {
                assert_eq!((*status, &read["query"]), (200, &format!("n={n}").into()));
                assert_eq!(read["bodyLength"], n);
            }
            assert_eq!(answers[good].0, 400);
        }
    }
}

#[test]
fn what_comes_with_an_upgrade_is_frames_after_our_101_and_nothing_after_a_refusal() {
    let node = node();
    let subscribe = masked(0x81, br#"{"type":"subscribe","topics":["early"]}"#);
    // The frame is here before the 101 is.
    let mut early = RawClient::begin(connect(node.http_addr()));
    early.send(&[upgrade("/ws").as_bytes(), &subscribe].concat());
    early.finish_handshake();
    assert!(early.next_text().contains("subscription-ack"));
    // Refused: neither the frame nor the request behind it means anything.
    for (from, to) in [
        ("Version: 13", "Version: 12"),
        ("Connection: Upgrade", "Connection: keep-alive"),
        ("GET /ws", "GET /nowhere"),
        ("GET /ws HTTP/1.1", "GET /ws HTTP/1.0"),
        ("GET /ws HTTP/1.1", "GET /ws HTTP/1.1\r\nContent-Length: 46"),
    ] {
        let head = upgrade("/ws");
        assert!(head.contains(from));
        let head = head.replacen(from, to, 1);
        let bytes = [head.as_bytes(), &subscribe, SECOND.as_bytes()].concat();
        for size in [bytes.len(), 1] {
            let answers = ask(node.http_addr(), bytes.chunks(size));
            assert_eq!(answers.len(), 1, "{to}: {answers:?}");
            assert!((400..500).contains(&answers[0].0) && answers[0].1, "{to}: {answers:?}");
        }
    }
    node.wait_stats("one subscription", |stats| stats["subscriptions"] == 1 && stats["connections"] == 1);
}

#[test]
fn endless_heads_and_bodies_are_cut_off_where_the_limit_is() {
    let node = Node::start(&[
        "--diagnostics",
        "--shards",
        "1",
        "--max-header-bytes",
        "2KiB",
        "--max-body-bytes",
        "2KiB",
    ]);
    let chunked = "POST /diagnostics/http HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (begin, repeat, status) in [
        ("GET /", "x", 414),
        ("", "G", 414),
        ("GET / HTTP/1.1\r\nHost: n\r\n", "X: y\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: n\r\nX: ", "y", 431),
        ("GET / HTTP/1.1\r\nHost: n\r\n", "X", 431),
        (chunked, "1\r\na\r\n", 413),
        (chunked, "1;x\r\na\r\n", 400),
        (&format!("{chunked}1;"), "x", 400),
        (&format!("{chunked}0\r\n"), "X: y\r\n", 431),
        (&format!("{chunked}0\r\nX: "), "y", 431),
        (&format!("{chunked}0\r\n"), "x", 431),
    ] {
        let mut stream = connect(node.http_addr());
        let _ = stream.write_all(begin.as_bytes());
        let many = repeat.repeat(200);
        // For ever, as far as the node lets it.
        let mut sent = 0;
        let mut writer = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || read_response(&mut stream, false).map(|answer| answer.0));
        while sent < 64 << 20 && writer.write_all(many.as_bytes()).is_ok() && !reader.is_finished() {
            sent += many.len();
        }
        assert_eq!(reader.join().unwrap(), Ok(status), "{begin:?} and {repeat:?}, {sent} bytes sent");
        drop(writer);
    }
    let mut answer = String::new();
    let mut stream = connect(node.http_addr());
    stream.write_all(SECOND.as_bytes()).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
