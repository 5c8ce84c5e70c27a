//! One question over HTTP to a node's endpoints for operators.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long a node may take for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of an answer at most.
const MAX_ANSWER: u64 = 16 << 20;
/// Headers of an answer at most.
const MAX_HEADERS: usize = 64;

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Asking again may help.
    Now(String),
    /// It will not.
    Ever(String),
    /// The node does not do what was asked for, and says why.
    Not(String),
}

/// What a node says where it does not do something.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Asks `host` for the JSON at `path`.
pub(super) fn get<T: DeserializeOwned>(host: &str, path: &str, token: Option<&str>) -> Result<T, NoAnswer> {
    ask("GET", host, path, token)
}

/// Whether nobody listens at `host` any more.
pub(super) fn is_gone(host: &str) -> bool {
    let Ok(mut addresses) = host.to_socket_addrs() else { return false };
    addresses.all(|address| {
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        TcpStream::connect_timeout(&address, PATIENCE).is_err_and(refused)
    })
}

/// The same by any method; nothing is sent along.
pub(super) fn ask<T: DeserializeOwned>(
    method: &str,
    host: &str,
    path: &str,
    token: Option<&str>,
) -> Result<T, NoAnswer> {
    let now = |error: io::Error| {
        // What a timeout is called depends on the system.
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let why = if is_late { format!("no answer within {PATIENCE:?}") } else { error.to_string() };
        NoAnswer::Now(format!("{host} cannot be asked: {why}"))
    };
    let answer = exchange(method, host, path, token).map_err(now)?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(&answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            return Err(NoAnswer::Now(format!("{host} closed the connection within its answer")));
        }
        Err(_) => return Err(NoAnswer::Ever(format!("{host} does not speak HTTP"))),
    };
    let body = answer.get(length..).unwrap_or_default();
    match head.code.unwrap_or_default() {
        200 | 202 => {}
        401 if token.is_some() => return Err(NoAnswer::Ever(format!("{host} does not take this token"))),
        401 => {
            let message = format!("{host} asks for a token: --token, or FANWIRE_OPERATOR_TOKEN");
            return Err(NoAnswer::Ever(message));
        }
        404 => {
            let message = format!(
                "nothing is served at http://{host}{path}: where a node has an `admin` listener, ask that one"
            );
            return Err(NoAnswer::Ever(message));
        }
        409 => {
            let why =
                serde_json::from_slice(body).map_or_else(|_| "409".to_owned(), |said: Refusal| said.error);
            return Err(NoAnswer::Not(why));
        }
        status @ 400..500 => return Err(NoAnswer::Ever(format!("{host} answers {status} to {path}"))),
        status => return Err(NoAnswer::Now(format!("{host} answers {status} to {path}"))),
    }
    let is_cut = |error: &serde_json::Error| error.is_eof();
    serde_json::from_slice(body).map_err(|error| match is_cut(&error) {
        true => NoAnswer::Now(format!("{host} closed the connection within its answer")),
        false => NoAnswer::Ever(format!("{host} is no Fanwire node, or a newer one: {error}")),
    })
}

/// Sends the request and reads to the end. HTTP/1.0, so that no proxy answers in pieces.
fn exchange(method: &str, host: &str, path: &str, token: Option<&str>) -> io::Result<Vec<u8>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut connected = None;
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => last = error,
        }
    }
    let mut stream = connected.ok_or(last)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n");
    if method != "GET" {
        request += "Content-Length: 0\r\n";
    }
    if let Some(token) = token {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}
