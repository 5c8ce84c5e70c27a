//! Settings: defaults < TOML file < `FANWIRE_…` environment < flags, parsed once into values that cannot be wrong.
//!
//! Each setting is one entry of the [`SETTINGS`] table: its key in TOML, its flag and its environment variable
//! are the same words, and its help, kind and bounds stand beside them. [`Sources::load`] goes through the
//! table; nothing else knows the names. What there may be several of is an array of tables, one entry of
//! [`TABLES`] each, and only in the file.

mod guard;
mod sources;
mod stream;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod topic;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use sources::{ConfigError, Loaded, Problem, Sources, ValueOrigin, environment_name};
pub use table::{Group, SETTINGS, Setting};
pub use tables::{Key, TABLES, Table, TableOrigin};
pub use value::{Shape, duration};

use crate::origin::AllowedOrigin;

/// Most shards that a node may have.
pub const MAX_SHARDS: usize = 64;

/// Everything that a node is told at its start.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where WebSocket, HTTP and the page are served; at least one. Port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Where publishers connect. May be empty: `POST /api/publish` is left then.
    pub publish: Vec<PublishAddress>,
    /// Where the operators' endpoints are served; empty: on the addresses of `listen`.
    pub admin: Vec<SocketAddr>,
    /// Threads that serve connections, 1 to [`MAX_SHARDS`].
    pub shards: usize,
    /// Pages of which origins may listen; empty: only the node's own, at an address. Any number.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Whether who names no origin may not listen.
    pub require_origin: bool,
    /// Start off loopback without tokens.
    pub insecure: bool,
    /// Serve echoes for test suites. Only where all HTTP addresses are loopback.
    pub diagnostics: bool,
    /// What publishers have to show: visible ASCII.
    pub publish_token: Option<String>,
    /// What operators have to show: visible ASCII.
    pub operator_token: Option<String>,
    /// The congestion control of accepted TCP sockets; `None`: the kernel's choice.
    pub tcp_congestion: Option<String>,
    /// Bytes of the send buffer of each accepted socket; `None`: the kernel's choice.
    pub send_buffer: Option<usize>,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Catalogs of events to load, in this order.
    pub catalog: Vec<Located<CatalogSource>>,
    /// Refuse events whose name no loaded catalog has. Only with a catalog.
    pub catalog_strict: bool,
    /// Paths that subscribe by connecting to them, at most 1,000. What their clients are held to is in
    /// `limits.streams`, in the same order.
    pub streams: Vec<Stream>,
    /// What must not be in events, at most 1,000.
    pub guards: Vec<Guard>,
    /// What topics have by what their names begin with, at most 1,000. The longest prefix wins.
    pub topics: Vec<Topic>,
    /// Every bound of the node.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            publish: vec![PublishAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 8081)))],
            admin: Vec::new(),
            shards: std::thread::available_parallelism().map_or(1, usize::from).min(MAX_SHARDS),
            allowed_origins: vec![AllowedOrigin::Any],
            require_origin: false,
            insecure: false,
            diagnostics: false,
            publish_token: None,
            operator_token: None,
            tcp_congestion: None,
            send_buffer: None,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            catalog: Vec::new(),
            catalog_strict: false,
            streams: Vec::new(),
            guards: Vec::new(),
            topics: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// As `fanwire check` shows them: without the tokens, so that no log line can give them away.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(SETTINGS.iter().map(|setting| (setting.key, (setting.show)(self))))
            .entries(TABLES.iter().map(|table| (table.name, (table.show)(self))))
            .finish()
    }
}

impl Settings {
    /// The keys and tables that differ in `new` and that only a restart can change.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differs = |setting: &&Setting| !setting.reloads() && !(setting.same)(self, new);
        let settings = SETTINGS.iter().filter(differs).map(|setting| setting.key);
        let tables = TABLES.iter().filter(|table| !(table.same)(self, new)).map(|table| table.name);
        settings.chain(tables).collect()
    }

    /// What a running node with these settings has after a reload has read `new`: all that reloads is new, the rest
    /// stays, as [`Self::needs_restart`] has named it. Where the streams are not the same, so do their limits: they
    /// belong to streams by their order.
    pub fn reloaded(&self, new: Self) -> Self {
        let streams =
            if self.streams == new.streams { new.limits.streams } else { self.limits.streams.clone() };
        Self { log_level: new.log_level, limits: Limits { streams, ..new.limits }, ..self.clone() }
    }
}

/// A value and where it was written. Equal to the same value elsewhere.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// What was written.
    pub value: T,
    /// `FILE:LINE`: the line of its key; of a multi-line string, that of the first line of its text. An environment
    /// variable or a flag, where it came from there.
    pub place: String,
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

/// A path that subscribes by connecting to it: `[[stream]]`. That the three are templates, others check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// What is asked for, with `{names}`; begins with `/`, at most 1,024 bytes. No two streams have the same.
    pub path: Located<String>,
    /// The topic that it subscribes to, 1 to 1,024 bytes without control characters.
    pub topic: Located<String>,
    /// What is sent for an event, 1 byte to 64 KiB.
    pub envelope: Located<String>,
}

/// What must not be in events: `[[guard]]`. Equal to the same guard elsewhere. That patterns are regular expressions
/// and sets exist, others check.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What it is called: 1 to 64 letters, digits, `-`, `_`, `.`, and no two the same. `Some` with a pattern, `None`
    /// with a set.
    pub name: Option<Located<String>>,
    /// What it looks for.
    pub rule: GuardRule,
    /// The topics it is for, each a name or a prefix ending in `*`, 1 to 255 bytes; empty: every topic.
    pub topics: Vec<String>,
    /// What is done with events that have it.
    pub action: GuardAction,
    /// The line of its header.
    pub place: String,
}

impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        fn values(guard: &Guard) -> (&Option<Located<String>>, &GuardRule, &[String], GuardAction) {
            (&guard.name, &guard.rule, &guard.topics, guard.action)
        }
        values(self) == values(other)
    }
}

impl Eq for Guard {}

/// What a [`Guard`] looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardRule {
    /// A regular expression, 1 byte to 16 KiB.
    Pattern(Located<String>),
    /// The name of a shipped set: 1 to 64 letters, digits, `-`, `_`, `.`.
    Set(Located<String>),
}

/// What topics whose names begin alike have: `[[topic]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// What the names begin with, at most 255 bytes without control characters; empty: every topic. No two the same.
    pub prefix: Located<String>,
    /// What is kept of their events; `None`: nothing.
    pub history: Option<HistoryLimits>,
    /// What a subscriber may choose, of `disconnect`, `drop-oldest`, `drop-newest`, `conflate` and `replay`: at least
    /// one, none twice, `replay` only with a history. `None`: all.
    pub policies: Option<Vec<String>>,
    /// From so many bytes on events are compressed for clients that negotiated it, 1 byte to 1 GiB; `None`: never.
    pub compress_above: Option<usize>,
}

/// What is kept of one topic's events: the newest, as long as all three hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Events, 1 to 10,000,000.
    pub events: usize,
    /// Bytes, 1 KiB to 1 TiB.
    pub bytes: usize,
    /// How old an event may be, 100 ms to 30 days.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { events: 1_000, bytes: 8 << 20, age: Duration::from_secs(600) }
    }
}

/// A catalog of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogSource {
    /// One that the program has: letters, digits, `-` and `_`. Whether there is one of this name, others check.
    Shipped(String),
    /// The path of a TOML file: written with a `/`, or ending in `.toml`.
    File(PathBuf),
}

impl CatalogSource {
    /// As it is meant in `file`: a relative path begins where that file is.
    fn beside(self, file: &Path) -> Self {
        match (self, file.parent()) {
            (Self::File(path), Some(dir)) => Self::File(dir.join(path)),
            (other, _) => other,
        }
    }

    /// With a path that means the same from every working directory.
    fn absolute(&self) -> Self {
        match self {
            Self::File(path) => Self::File(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            Self::Shipped(_) => self.clone(),
        }
    }
}

impl fmt::Display for CatalogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shipped(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for CatalogSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !text.contains('\0') && (text.contains('/') || text.ends_with(".toml")) {
            Ok(Self::File(PathBuf::from(text)))
        } else if !text.is_empty() && text.bytes().all(allowed) {
            Ok(Self::Shipped(text.to_owned()))
        } else {
            Err(format!(
                "`{}` is neither the name of a catalog nor the path of a TOML file, such as ./events.toml",
                text.escape_debug()
            ))
        }
    }
}

/// An address that publishers connect to: `127.0.0.1:8081`, `[::1]:8081` or `unix:/run/fanwire.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublishAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix domain socket, at most 107 bytes long.
    Unix(PathBuf),
}

impl fmt::Display for PublishAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for PublishAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// Bytes of `sun_path` on Linux, less the closing zero.
        const MAX_PATH: usize = 107;
        let Some(path) = text.strip_prefix("unix:") else {
            return value::socket_address(text)
                .map(Self::Tcp)
                .map_err(|error| format!("{error}, or unix:PATH"));
        };
        if path.is_empty() || path.contains('\0') {
            return Err(format!("`{text}` names no path: write unix:/run/fanwire.sock"));
        }
        if path.len() > MAX_PATH {
            return Err(format!("`{text}`: the path of a Unix socket has at most {MAX_PATH} bytes"));
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }
}

/// A set of words that a setting chooses from.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// Every word.
            pub const WORDS: &[&str] = &[$($word),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is not one of {}", Self::WORDS.join(", "))),
                }
            }
        }
    };
}

words! {
    /// What is logged: this and everything graver.
    LogLevel {
        /// What stops the node from doing its work.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Start, stop, reload, clients closed as slow.
        Info = "info",
        /// Connections coming and going.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// What is done with an event that has what a [`Guard`] looks for.
    #[derive(Default)]
    GuardAction {
        /// It is refused.
        #[default]
        Refuse = "refuse",
        /// What was found is made unreadable.
        Mask = "mask",
    }
}

words! {
    /// How a log line is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// Every bound of the node. Each is a top-level key, a flag and an environment variable of the same name, but for
/// those of streams, which are keys of `[[stream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// WebSocket clients connected at once (whole node). The next one is told so and closed with 1013.
    pub max_clients: usize,
    /// Publishers connected at once (whole node).
    pub max_publishers: usize,
    /// Connections of one shard that have not finished their handshake or request; above it the oldest is closed.
    pub max_handshakes: usize,
    /// Connections accepted by a shard in one turn of its loop, and HTTP connections read.
    pub accepts_per_turn: usize,
    /// Sessions opened in a second (whole node); 0: no bound.
    pub handshakes_per_second: usize,
    /// Sessions opened at once where nobody came for a while (whole node).
    pub handshake_burst: usize,
    /// Bytes of an HTTP request head.
    pub max_header_bytes: usize,
    /// Bytes of an HTTP request body.
    pub max_body_bytes: usize,
    /// Bytes of one message from a client.
    pub max_message_bytes: usize,
    /// Messages and control frames that one client may send in a second, and as many at once; `None`: any number.
    pub max_messages_per_second: Option<usize>,
    /// Topics a client may be subscribed to.
    pub max_subscriptions: usize,
    /// Prefix patterns among them; 0: there are no patterns.
    pub max_patterns_per_client: usize,
    /// Bytes that a pattern must have before its `*`; 0: one may match everything.
    pub min_pattern_prefix: usize,
    /// Topics with a subscriber (whole node).
    pub max_topics: usize,
    /// Bytes of the `data` of one published event.
    pub max_publish_bytes: usize,
    /// Publishers' names remembered at once, and keys of requests (whole node); above it newcomers are refused.
    pub max_idempotency_keys: usize,
    /// Events queued for one client whose socket takes no more.
    pub queue_events: usize,
    /// Bytes queued for one client whose socket takes no more. An empty queue takes one event of any size.
    pub queue_bytes: usize,
    /// Bytes held by all outboxes together (whole node).
    pub max_outbox_bytes: usize,
    /// Bytes of all topics' history together (whole node).
    pub max_history_bytes: usize,
    /// Bytes of rounds in flight to one shard; above it publishers are not read.
    pub link_bytes: usize,
    /// How long events may be held back so that one write carries more of them, up to 1 s; zero: not at all.
    pub latency_budget: Duration,
    /// From accept to a complete request head.
    pub handshake_timeout: Duration,
    /// How often clients are pinged.
    pub heartbeat_interval: Duration,
    /// A client from which nothing came for this long is closed.
    pub heartbeat_timeout: Duration,
    /// A client must finish a frame or message that it has begun within this.
    pub message_timeout: Duration,
    /// How often an event stream (Server-Sent Events) gets a comment, 10 ms to 1 h.
    pub event_stream_keep_alive: Duration,
    /// How long a closed client may take to answer the close.
    pub close_timeout: Duration,
    /// A frame or request body once started must be complete, and a publisher's answers read, within this.
    pub publish_timeout: Duration,
    /// How long what a publisher's name or an `Idempotency-Key` had accepted is remembered.
    pub idempotency_window: Duration,
    /// From the beginning of a shutdown, which no new client passes, to the first close.
    pub drain_delay: Duration,
    /// Over how long the closes of a shutdown are spread; shorter where that is fewer than 100 clients a second.
    pub drain_spread: Duration,
    /// How long a shutdown may take from there on.
    pub drain_timeout: Duration,
    /// What the clients of each stream are held to, in the order of [`Settings::streams`].
    pub streams: Vec<StreamLimits>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 1_000,
            max_publishers: 1_024,
            max_handshakes: 1_024,
            accepts_per_turn: 16,
            handshakes_per_second: 0,
            handshake_burst: 100,
            max_header_bytes: 8 << 10,
            max_body_bytes: 8 << 20,
            max_message_bytes: 64 << 10,
            max_messages_per_second: None,
            max_subscriptions: 1_000,
            max_patterns_per_client: 16,
            min_pattern_prefix: 1,
            max_topics: 1_000_000,
            max_publish_bytes: 1 << 20,
            max_idempotency_keys: 100_000,
            queue_events: 100,
            queue_bytes: 1 << 20,
            max_outbox_bytes: 256 << 20,
            max_history_bytes: 256 << 20,
            link_bytes: 4 << 20,
            latency_budget: Duration::ZERO,
            handshake_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(60),
            message_timeout: Duration::from_secs(60),
            event_stream_keep_alive: Duration::from_secs(15),
            close_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            idempotency_window: Duration::from_secs(120),
            drain_delay: Duration::ZERO,
            drain_spread: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            streams: Vec::new(),
        }
    }
}

/// What the clients of one [`Stream`] are held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Events queued for one client whose socket takes no more, 1 to 1,000,000; `None`: [`Limits::queue_events`].
    pub queue_events: Option<usize>,
    /// How long a client's socket may take nothing while something is queued, 1 ms to 1 h; `None`: no bound.
    pub write_timeout: Option<Duration>,
    /// How often its clients are pinged, 1 ms to 24 h.
    pub heartbeat_interval: Duration,
    /// A client from which nothing came for this long is closed; longer than the interval, up to 48 h.
    pub heartbeat_timeout: Duration,
    /// Bytes of one message from a client, 64 to 64 MiB.
    pub max_message_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            queue_events: None,
            write_timeout: None,
            heartbeat_interval: Duration::from_secs(54),
            heartbeat_timeout: Duration::from_secs(60),
            max_message_bytes: 512,
        }
    }
}
