//! The ways in: the paths and queries by which clients come, and how what they get looks, written here a second time.

use fanwire::config::StreamLimits;
use fanwire::dialect::path::Definition;
use serde_json::Value;

use crate::book::{Event, NAMES, TOPICS};

/// The configured streams of every world.
pub const STREAMS: [Definition<'static>; 5] = [
    Definition {
        path: "/runs/{runId}/stream",
        topic: "run:{runId}",
        envelope: r#"{"runId":"{runId}","type":{event},"payload":{data}}"#,
    },
    // Two paths may lead to one topic with other values.
    Definition {
        path: "/x/{a}/{b}",
        topic: "{a}:{b}",
        envelope: r#"{"a":"{a}","b":"<{b}>","d":{data},"k":{key},"o":{offset},"c":{category},"t":{timestamp}}"#,
    },
    Definition { path: "/all/{name}", topic: "{name}", envelope: "[\n{topic},\r\n{event},{data}\r]" },
    Definition { path: "/plain/alpha", topic: "alpha", envelope: "{data}" },
    Definition { path: "/feed/{name}", topic: "{name}", envelope: r#"{"d":{data}}"# },
];

/// What the clients of each stream are held to.
pub fn stream_limits(random: &mut fastrand::Rng) -> Vec<StreamLimits> {
    use std::time::Duration;
    let mut limits = |_| {
        let (interval, timeout) = random.choice([(54, 60), (54, 60), (20, 45), (5, 12)]).unwrap();
        StreamLimits {
            queue_events: random.bool().then(|| random.usize(2..60)),
            write_timeout: random.bool().then(|| Duration::from_millis(random.u64(500..20_000))),
            heartbeat_interval: Duration::from_secs(interval),
            heartbeat_timeout: Duration::from_secs(timeout),
            max_message_bytes: random.choice([512, 512, 64]).unwrap(),
        }
    };
    (0..STREAMS.len()).map(&mut limits).collect()
}

/// How a stream's events are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    Message,
    Lines,
    EventStream,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `/ws`.
    Json,
    /// `/sse`.
    EventStream,
    /// One of [`STREAMS`].
    Stream(usize, Form),
}

impl Kind {
    pub fn is_web_socket(self) -> bool {
        !matches!(self, Self::EventStream | Self::Stream(_, Form::EventStream))
    }

    /// The place in `Dialect::ALL`.
    pub fn dialect(self) -> usize {
        match self {
            Self::Json => 0,
            kind if kind.is_web_socket() => 1,
            _ => 2,
        }
    }
}

/// All that decides how an event is written: who has the same gets the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub kind: Kind,
    /// What the envelope takes from the path.
    pub values: Vec<String>,
}

impl Shape {
    /// Whether the data comes byte for byte. Elsewhere its line breaks, which stand between tokens, come otherwise.
    pub fn is_exact(&self) -> bool {
        matches!(self.kind, Kind::Json | Kind::Stream(_, Form::Message))
    }

    /// An event as the protocol says that it is written; `stamp` is its timestamp's text.
    pub fn write(&self, event: &Event, stamp: &str, client_id: Option<&str>) -> String {
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let (name, category) = (text(NAMES[event.name]), text(TOPICS[event.topics[0]]));
        let data = &event.data;
        let value = |place: usize| text(&self.values[place]);
        let Kind::Stream(stream, _) = self.kind else {
            let id = client_id.map_or_else(String::new, |id| format!(",\"clientId\":{}", text(id)));
            return format!(
                "{{\"type\":\"event\",\"event\":{name},\"category\":{category},\"data\":{data},\"timestamp\":\"{stamp}\"{id}}}"
            );
        };
        match stream {
            0 => format!("{{\"runId\":{},\"type\":{name},\"payload\":{data}}}", value(0)),
            1 => {
                let key = if event.key.is_empty() { "null".to_owned() } else { text(event.key) };
                let b = text(&format!("<{}>", self.values[1]));
                format!(
                    "{{\"a\":{},\"b\":{b},\"d\":{data},\"k\":{key},\"o\":null,\"c\":{category},\"t\":\"{stamp}\"}}",
                    value(0)
                )
            }
            2 => format!("[\n{},\r\n{name},{data}\r]", value(0)),
            3 => data.clone(),
            _ => format!("{{\"d\":{data}}}"),
        }
    }

    /// The number of the event that a message carries; `None`: it is one of the node's own.
    pub fn number(&self, message: &Value) -> Option<usize> {
        let data = match self.kind {
            Kind::Json | Kind::EventStream if message["type"] != "event" => return None,
            Kind::Json | Kind::EventStream => &message["data"],
            Kind::Stream(0, _) => &message["payload"],
            Kind::Stream(1 | 4, _) => &message["d"],
            Kind::Stream(2, _) => &message[2],
            Kind::Stream(..) => message,
        };
        let number = match data {
            Value::String(text) => text.split(' ').next()?.parse().ok(),
            Value::Array(all) => all.first()?.as_u64(),
            data => data["n"].as_u64(),
        };
        number.map(|number| number as usize)
    }
}

/// A JSON text without the white space between its tokens: what may not change about it on any way.
pub fn tokens(text: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let keep = |c: &char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        in_string || !matches!(c, ' ' | '\t' | '\r' | '\n')
    };
    text.chars().filter(keep).collect()
}

/// Which events a subscription wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub names: Option<Vec<usize>>,
    pub categories: Option<Vec<usize>>,
}

impl Filter {
    pub fn wants(&self, event: &Event) -> bool {
        let has = |list: &Option<Vec<usize>>, one| list.as_ref().is_none_or(|list| list.contains(&one));
        has(&self.names, event.name) && has(&self.categories, event.topics[0])
    }

    pub fn random(random: &mut fastrand::Rng) -> Self {
        let mut some = |all: usize| {
            (random.u8(..5) == 0).then(|| (0..all).filter(|_| random.u8(..3) > 0).collect::<Vec<_>>())
        };
        Self { names: some(NAMES.len()), categories: some(TOPICS.len()) }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    pub topics: Vec<usize>,
    pub filter: Filter,
    pub droppable: bool,
    pub name: Option<String>,
    /// It was here before and names these topics.
    pub since: Option<Vec<usize>>,
    /// When it took effect, the node may have had all the topics that it may have.
    pub may_be_refused: bool,
}

/// How a client comes.
#[derive(Debug)]
pub struct Visit {
    pub shape: Shape,
    pub subscribe: Subscribe,
    pub request: String,
    /// More topics than it may have: it is refused with 400.
    pub is_refused: bool,
}

pub const CLIENT_IDS: [&str; 3] = ["me", "you\"\\", "ü☃"];

/// One of the topics, and mostly one of the first.
pub fn some_topic(random: &mut fastrand::Rng) -> usize {
    if random.bool() { random.usize(..4) } else { random.usize(..TOPICS.len()) }
}

impl Visit {
    /// Any way in. `topic`: only to this one, which is the first.
    pub fn random(topic: Option<usize>, max_subscriptions: usize, random: &mut fastrand::Rng) -> Self {
        let mut query = Vec::new();
        let kind = match random.u8(..10) {
            0..3 => Kind::Json,
            3..5 => Kind::EventStream,
            _ => {
                let form = random.choice([Form::Message, Form::Lines, Form::EventStream]).unwrap();
                let stream = match topic {
                    Some(_) => random.usize(2..5),
                    None if random.u8(..3) == 0 => 1,
                    None => random.usize(..5),
                };
                Kind::Stream(stream, form)
            }
        };
        let (mut topics, mut values, mut path) = (Vec::new(), Vec::new(), String::new());
        match kind {
            Kind::Json | Kind::EventStream => {
                path = if kind == Kind::Json { "/ws" } else { "/sse" }.to_owned();
                if topic.is_none() && random.u8(..6) == 0 {
                    query.push("runId=4%32".to_owned());
                    topics.extend(["run:42", "global"].map(topic_called));
                } else {
                    let least = usize::from(kind == Kind::EventStream && topic.is_none());
                    topics.extend(topic);
                    topics.extend((0..random.usize(least..4)).map(|_| some_topic(random)));
                    if !topics.is_empty() {
                        let field = random.choice(["categories", "topics", "rooms"]).unwrap();
                        query.push(format!("{field}={}", list(&topics, &TOPICS, random)));
                    }
                }
                let mut seen = [false; TOPICS.len()];
                topics.retain(|topic| !std::mem::replace(&mut seen[*topic], true));
            }
            Kind::Stream(0, _) => {
                topics.push(topic_called("run:42"));
                values.push("42".to_owned());
                path.push_str(random.choice(["/runs/42/stream", "/runs/%34%32/stream"]).unwrap());
            }
            Kind::Stream(1, _) => {
                let all = [("p", "q:r"), ("p", "q:r"), ("run", "42"), ("http", "0")];
                let (a, b) = random.choice(all).unwrap();
                topics.push(topic_called(&format!("{a}:{b}")));
                values.extend([a.to_owned(), b.to_owned()]);
                path = format!("/x/{}/{}", encode(a, random), encode(b, random));
            }
            Kind::Stream(3, _) => {
                topics.push(0);
                path.push_str("/plain/alpha");
            }
            Kind::Stream(stream, _) => {
                let topic = topic.unwrap_or_else(|| some_topic(random));
                topics.push(topic);
                if stream == 2 {
                    values.push(TOPICS[topic].to_owned());
                }
                let begin = if stream == 2 { "/all/" } else { "/feed/" };
                path = format!("{begin}{}", encode(TOPICS[topic], random));
            }
        }
        let mut subscribe = Subscribe { topics, ..Subscribe::default() };
        let mut headers = String::new();
        match kind {
            Kind::Stream(_, Form::Lines) => query.push("batch=ndjson".to_owned()),
            Kind::Stream(_, Form::EventStream) if random.bool() => query.push("transport=sse".to_owned()),
            _ => {}
        }
        if kind.is_web_socket() {
            headers.push_str(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            );
            let offers = [
                "permessage-deflate",
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=15",
                "permessage-deflate; server_max_window_bits=9, foo",
            ];
            if let Some(offer) = random.choice(offers).filter(|_| random.u8(..3) > 0) {
                headers.push_str(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
            }
        } else {
            headers.push_str("Accept: text/event-stream\r\n");
            if random.u8(..3) == 0 {
                headers.push_str("Last-Event-ID: 7\r\n");
                subscribe.since = Some(subscribe.topics.clone());
            }
        }
        // A list in a query has at least one name.
        let filter = Filter::random(random);
        if let Some(names) = filter.names.filter(|names| !names.is_empty()) {
            query.push(format!("events={}", list(&names, &NAMES, random)));
            subscribe.filter.names = Some(names);
        }
        if let Some(categories) = filter.categories.filter(|categories| !categories.is_empty()) {
            query.push(format!("onlyCategories={}", list(&categories, &TOPICS, random)));
            subscribe.filter.categories = Some(categories);
        }
        if random.u8(..3) > 0 {
            subscribe.droppable = random.bool();
            query.push(format!("policy={}", if subscribe.droppable { "drop-oldest" } else { "disconnect" }));
        }
        if random.u8(..4) == 0 {
            let id = random.choice(CLIENT_IDS).unwrap();
            query.push(format!("clientId={}", encode(id, random)));
            subscribe.name = Some(id.to_owned());
        }
        random.shuffle(&mut query);
        let question = if query.is_empty() { "" } else { "?" };
        let request =
            format!("GET {path}{question}{} HTTP/1.1\r\nHost: node\r\n{headers}\r\n", query.join("&"));
        let is_refused = subscribe.topics.len() > max_subscriptions;
        Self { shape: Shape { kind, values }, subscribe, request, is_refused }
    }
}

fn topic_called(name: &str) -> usize {
    TOPICS.iter().position(|topic| *topic == name).expect("a topic of the book")
}

fn list(places: &[usize], of: &[&str], random: &mut fastrand::Rng) -> String {
    let names: Vec<String> = places.iter().map(|place| encode(of[*place], random)).collect();
    names.join(random.choice([",", "%2C"]).unwrap())
}

/// Percent-encodes what must be, and some of the rest.
fn encode(text: &str, random: &mut fastrand::Rng) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'.' | b'_' | b'~');
        if is_plain && random.u8(..8) > 0 {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
