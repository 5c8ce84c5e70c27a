//! One topic, and clients of every shape on it at once: each event is written once for each shape, and every client
//! gets every byte that it should and no other. Nothing here is timed.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::raw::upgrade;
use common::{Node, PATIENCE, http};
use fanwire::client::{Event, Publisher};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

const STREAM: &str = r#"
[[stream]]
path = "/runs/{runId}/stream"
topic = "run:{runId}"
envelope = '{"runId":"{runId}","type":{event},"payload":{data}}'
heartbeat_interval = "1h"
heartbeat_timeout = "2h"
queue_events = 100000
"#;

/// Clients of each shape.
const CLIENTS: usize = 300;
/// A second's events.
const RATE: u32 = 1000;
const EVENTS: u32 = 3 * RATE;
/// 2024-01-15T10:15:00.000Z
const GIVEN_MS: u64 = 1_705_313_700_000;

/// An event's data, of a size of its own.
fn data(n: u32) -> String {
    format!(r#"{{"n":{n},"padding":"{}"}}"#, "x".repeat((n % 200) as usize))
}

/// A text message of a node.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = match text.len() {
        length @ 0..126 => vec![0x81, length as u8],
        length => [&[0x81, 126], &(length as u16).to_be_bytes()[..]].concat(),
    };
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn json_message(n: u32) -> String {
    let data = data(n);
    format!(
        r#"{{"type":"event","event":"step_log","category":"run:7","data":{data},"timestamp":"2024-01-15T10:15:00.000Z"}}"#
    )
}

/// A shape: its name, the request that opens it, and what follows the answer's head, to the last byte.
type Shape = (&'static str, String, Vec<u8>);

fn shapes() -> [Shape; 3] {
    let all = |event: &dyn Fn(u32) -> Vec<u8>| (0..EVENTS).flat_map(event).collect::<Vec<u8>>();
    let own = |n| frame(&format!(r#"{{"runId":"7","type":"step_log","payload":{}}}"#, data(n)));
    let sse = |n| format!("event: step_log\ndata: {}\n\n", json_message(n)).into_bytes();
    [
        ("/ws", upgrade("/ws?topics=run:7"), all(&|n| frame(&json_message(n)))),
        ("path", upgrade("/runs/7/stream"), all(&own)),
        (
            "/sse",
            "GET /sse?topics=run:7 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            [b": subscribed\n\n", &all(&sse)[..]].concat(),
        ),
    ]
}

/// One client: its socket, and how much of what it should get it has got.
struct Client {
    stream: TcpStream,
    at: usize,
}

impl Client {
    /// Opens it, up to the end of the answer's head, and for `/ws` the ack that comes first.
    fn open(node: &Node, (name, request, _): &Shape) -> Self {
        let mut stream = std::net::TcpStream::connect(node.http_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let end: &[u8] = if *name == "/ws" { br#"{"categories":["run:7"]}}"# } else { b"\r\n\r\n" };
        let mut head = Vec::new();
        while !head.ends_with(end) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.set_nonblocking(true).unwrap();
        Self { stream: TcpStream::from_std(stream), at: 0 }
    }

    /// Takes what is there, which must be what comes next.
    fn take(&mut self, expected: &[u8], buffer: &mut [u8]) {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => panic!("closed after {} of {} bytes", self.at, expected.len()),
                Ok(count) => {
                    let next = expected.get(self.at..self.at + count).expect("more than there is");
                    assert!(
                        next == &buffer[..count],
                        "at byte {}: {:?} and not {:?}",
                        self.at,
                        String::from_utf8_lossy(&buffer[..count]),
                        String::from_utf8_lossy(next)
                    );
                    self.at += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Reads all clients of a shape until each has everything.
fn read_all(clients: &mut [Client], (name, _, expected): &Shape) {
    let mut poll = Poll::new().unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        poll.registry().register(&mut client.stream, Token(number), Interest::READABLE).unwrap();
    }
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 256 << 10]);
    while clients.iter().any(|client| client.at < expected.len()) {
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "{name}: nothing comes any more");
        for event in &events {
            clients[event.token().0].take(expected, &mut buffer);
        }
    }
}

fn envelope_writes(node: &Node) -> u64 {
    let (_, _, body) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let body = String::from_utf8(body).unwrap();
    let line = body.lines().find_map(|line| line.strip_prefix("fanwire_envelope_writes_total "));
    line.unwrap_or_else(|| panic!("{body}")).parse().unwrap()
}

#[test]
fn an_event_is_written_once_for_each_shape_and_every_client_gets_every_byte() {
    // This is about counts: nobody is to be closed because the machine is busy, and nothing else is to be sent.
    let flags = [
        "--shards",
        "2",
        "--queue-events",
        "100000",
        "--queue-bytes",
        "64MiB",
        "--heartbeat-interval",
        "1h",
        "--heartbeat-timeout",
        "2h",
        "--event-stream-keep-alive",
        "1h",
    ];
    let node = Node::start_with_file(STREAM, &flags);
    let shapes = shapes();
    let mut clients: Vec<Vec<Client>> =
        shapes.iter().map(|shape| (0..CLIENTS).map(|_| Client::open(&node, shape)).collect()).collect();
    let of_each = json!({"json": CLIENTS, "path": CLIENTS, "sse": CLIENTS});
    node.wait_stats("all there", |stats| {
        stats["subscriptions"] == 3 * CLIENTS && stats["dialects"] == of_each
    });
    let before = envelope_writes(&node);
    thread::scope(|scope| {
        for (clients, shape) in clients.iter_mut().zip(&shapes) {
            scope.spawn(move || read_all(clients, shape));
        }
        let mut publisher = Publisher::open(&node.publish_addr().to_string()).unwrap();
        let start = Instant::now();
        for n in 0..EVENTS {
            // When each is due does not depend on how those before it fared.
            let due = start + Duration::from_secs(1) / RATE * n;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let data = data(n);
            let event = Event { timestamp_ms: GIVEN_MS, ..Event::new(&["run:7"], "step_log", &data) };
            publisher.publish(&event).unwrap();
            publisher.flush().unwrap();
        }
        publisher.close().unwrap();
    });
    let stats = node.wait_stats("nothing pending", |stats| stats["pending"] == 0);
    let all = u64::from(EVENTS) * 3 * CLIENTS as u64;
    assert_eq!((&stats["dispatched"], &stats["deliveries"]), (&json!(all), &json!(all)));
    assert_eq!((&stats["eventsIn"], &stats["eventsUnsubscribed"]), (&json!(EVENTS), &json!(0)));
    assert_eq!((&stats["closed"], &stats["dropped"]), (&json!({}), &json!({})));
    assert_eq!(stats["connections"], 3 * CLIENTS);
    assert_eq!(envelope_writes(&node) - before, 3 * u64::from(EVENTS), "each event once for each shape");
}
