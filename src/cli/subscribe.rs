//! `fanwire sub`: subscribes over WebSocket and prints what comes.

use std::borrow::Cow;
use std::io;
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::value::RawValue;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::{Failure, Outcome, print};

/// After this long without a byte the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Topics to subscribe to, and patterns such as run:*
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only events of this name; repeatable
    #[arg(long, value_name = "NAME")]
    events: Vec<String>,
    /// What happens when this client's queue at the node is full
    #[arg(long, value_enum, default_value = "disconnect")]
    policy: Policy,
    /// Print each message as it came, one JSON object a line
    #[arg(long)]
    json: bool,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The node: http://HOST:PORT or HOST:PORT
    #[arg(long, value_name = "URL", env = "FANWIRE_HTTP", default_value = "http://127.0.0.1:8080")]
    to: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Policy {
    /// The connection is closed
    Disconnect,
    /// The oldest events are left out, and a notice tells how many
    DropOldest,
}

impl Policy {
    fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "drop-oldest",
        }
    }
}

/// What of a message from the node matters here.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    category: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Gap<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    dropped: u64,
}

#[derive(Deserialize)]
struct ErrorData<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let host = host_and_port(&arguments.to)?;
    let mut socket = connect(&host)?;
    let mut subscribe = serde_json::json!({
        "type": "subscribe",
        "topics": arguments.topics,
        "policy": arguments.policy.name(),
    });
    if !arguments.events.is_empty() {
        subscribe["events"] = arguments.events.as_slice().into();
    }
    socket.send(Message::text(subscribe.to_string())).map_err(|error| lost(&error))?;
    let mut subscribed = false;
    let mut events = 0;
    loop {
        let text = match socket.read().map_err(|error| lost(&error))? {
            Message::Text(text) => text,
            Message::Close(frame) => return Err(closed(frame.as_ref()).into()),
            _ => continue,
        };
        let text = text.as_str();
        let message: Incoming<'_> = serde_json::from_str(text)
            .map_err(|error| format!("the node sent what is not understood: {error}: {}", printable(text)))?;
        match &*message.kind {
            "event" => {
                print(line(arguments, text, &message).as_bytes())?;
                events += 1;
                if arguments.count.is_some_and(|count| events >= count) {
                    // A goodbye; whether it arrives changes nothing here.
                    let _ = socket.close(None).and_then(|()| socket.flush());
                    return Ok(ExitCode::SUCCESS);
                }
            }
            "gap" => {
                eprintln!("fanwire: {}", gap(&message));
                if arguments.json {
                    print(format!("{}\n", one_line(text)).as_bytes())?;
                }
            }
            "ping" => socket.send(Message::text(r#"{"type":"pong"}"#)).map_err(|error| lost(&error))?,
            "subscription-ack" => {
                subscribed = true;
                eprintln!("fanwire: subscribed to {} at {host}; Ctrl-C ends", arguments.topics.join(", "));
            }
            "error" => {
                let data: Option<ErrorData<'_>> =
                    message.data.and_then(|data| serde_json::from_str(data.get()).ok());
                let error = data.map_or_else(|| text.into(), |data| data.error);
                eprintln!("fanwire: the node says: {}", printable(&error));
                if !subscribed {
                    // Where the error ends the connection, the close that follows tells more.
                    return Err(last_words(&mut socket).into());
                }
            }
            // What newer nodes add is no reason to stop.
            _ => {}
        }
    }
}

/// `HOST:PORT` of an address or URL.
pub(super) fn host_and_port(to: &str) -> Result<String, Failure> {
    let (rest, default_port) = match to.split_once("://") {
        None => (to, 8080),
        Some(("http" | "ws", rest)) => (rest, 80),
        Some((scheme, _)) => {
            return Err(format!("{to}: {scheme} is not spoken here; use http://HOST:PORT").into());
        }
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    if host.is_empty()
        || host.contains(['/', '?', '#', '@'])
        || port.is_some_and(|port| port.parse::<u16>().is_err())
    {
        return Err(format!("`{to}` is not the address of a node: write http://HOST:PORT").into());
    }
    Ok(if port.is_some() { host.to_owned() } else { format!("{host}:{default_port}") })
}

fn connect(host: &str) -> Result<WebSocket<TcpStream>, Failure> {
    let stream = TcpStream::connect(host).map_err(|error| {
        format!("cannot connect to {host}: {error}; is a node running? `fanwire serve` starts one")
    })?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    // Without it a node that vanished is noticed later: no reason to fail.
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
    // The node decides how large an event may be.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{host}/ws");
    match tungstenite::client::client_with_config(url, stream, Some(config)) {
        Ok((socket, _)) => Ok(socket),
        Err(error) => Err(format!("{host} does not speak WebSocket at /ws: {error}").into()),
    }
}

fn line(arguments: &Arguments, text: &str, message: &Incoming<'_>) -> String {
    if arguments.json {
        return format!("{}\n", one_line(text));
    }
    let or_dash = |field: &Option<Cow<'_, str>>| printable(field.as_deref().unwrap_or("-")).into_owned();
    let data = message.data.map_or("null", RawValue::get);
    format!(
        "{} {} {} {}\n",
        or_dash(&message.timestamp),
        or_dash(&message.category),
        or_dash(&message.event),
        printable(&one_line(data))
    )
}

fn gap(message: &Incoming<'_>) -> String {
    match message.data.and_then(|data| serde_json::from_str::<Gap<'_>>(data.get()).ok()) {
        Some(Gap { topic, dropped }) => {
            format!("missed {dropped} events of {}: the queue was full", printable(&topic))
        }
        None => "missed events: the queue was full".to_owned(),
    }
}

/// Line breaks in JSON stand only between tokens, where a space says the same.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

/// Control characters, which could play tricks with a terminal, are written as JSON escapes.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

fn last_words(socket: &mut WebSocket<TcpStream>) -> String {
    // A second is plenty for a close that was sent together with the error.
    let _ = socket.get_ref().set_read_timeout(Some(Duration::from_secs(1)));
    match socket.read() {
        Ok(Message::Close(frame)) => closed(frame.as_ref()),
        _ => "the subscription was refused".to_owned(),
    }
}

fn closed(frame: Option<&CloseFrame>) -> String {
    let Some(frame) = frame else { return "the node closed the connection without a reason".to_owned() };
    let code = u16::from(frame.code);
    let meaning = match code {
        1001 => " (shutting down)",
        1002 => " (protocol error)",
        1008 => " (not allowed)",
        1009 => " (message too big)",
        1011 => " (internal error)",
        1013 => " (at capacity)",
        4000 => " (heartbeat timeout)",
        4001 => " (token expired)",
        4008 => " (slow consumer: the queue was full)",
        _ => "",
    };
    let reason =
        if frame.reason.is_empty() { String::new() } else { format!(": {}", printable(&frame.reason)) };
    format!("the node closed the connection with {code}{meaning}{reason}")
}

fn lost(error: &tungstenite::Error) -> Failure {
    match error {
        tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::Message("the connection was lost without a close".to_owned())
        }
        error => Failure::Message(format!("the connection was lost: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nodes() {
        for (to, expected) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("localhost", Some("localhost:8080")),
            ("http://example.org", Some("example.org:80")),
            ("http://example.org:8080/", Some("example.org:8080")),
            ("ws://[::1]:8080", Some("[::1]:8080")),
            ("[::1]", Some("[::1]:8080")),
            ("https://example.org", None),
            ("http://example.org/path", None),
            ("http://", None),
            ("host:port", None),
            ("host:99999", None),
        ] {
            assert_eq!(host_and_port(to).ok().as_deref(), expected, "{to}");
        }
    }

    #[test]
    fn nothing_printed_can_steer_a_terminal() {
        assert_eq!(printable("a\u{9b}31mb\x1b"), "a\\u009b31mb\\u001b");
        assert_eq!(one_line("{\n\"a\":\r\n1}"), "{ \"a\":  1}");
    }
}
