//! The one definition of every setting.

use std::time::Duration;

use super::sources::ValueOrigin;
use super::value::{
    ADDRESSES, Congestion, Count, Input, Kind, List, Maybe, Noun, Period, Shape, Size, Switch, Token, Word,
    socket_address,
};
use crate::origin::AllowedOrigin;

use super::{CatalogSource, Located, LogFormat, LogLevel, MAX_SHARDS, PublishAddress, Settings};

/// The headings under which settings stand in the help and in the example file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where the node listens.
    Addresses,
    /// Who may do what.
    Access,
    /// What events there are.
    Events,
    /// Bounds in numbers and bytes.
    Limits,
    /// Bounds in time.
    Timeouts,
    /// What is logged.
    Logging,
}

impl Group {
    /// The heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Addresses => "Addresses",
            Self::Access => "Access",
            Self::Events => "Events",
            Self::Limits => "Limits",
            Self::Timeouts => "Timeouts",
            Self::Logging => "Logging",
        }
    }
}

/// One setting: a TOML key, a flag, an environment variable.
#[derive(Debug)]
pub struct Setting {
    /// The TOML key; flag and environment variable are made from it.
    pub key: &'static str,
    /// Its heading.
    pub group: Group,
    /// What stands for the value in the help; empty for a switch.
    pub metavar: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
    /// What the default is, where that is not a fixed value.
    pub default_note: &'static str,
    /// How many words it takes.
    pub shape: fn() -> Shape,
    /// Whether its value must not be shown.
    pub secret: fn() -> bool,
    /// The value as written in TOML; `None` where it is not set. Secrets are not shown.
    pub show: fn(&Settings) -> Option<String>,
    /// Whether both have the same value.
    pub same: fn(&Settings, &Settings) -> bool,
    /// Reads, checks and stores a value that came from there.
    pub(super) set: fn(&mut Settings, Input<'_>, &ValueOrigin) -> Result<(), String>,
}

impl Setting {
    /// Whether a running node takes up a new value.
    pub fn reloads(&self) -> bool {
        matches!(self.group, Group::Limits | Group::Timeouts) || self.key == "log_level"
    }

    /// The flag, with its dashes: `--max-clients`.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }
}

/// `setting!(Group, (owner) key, Kind, METAVAR, help)`: the value is in the field `key` of `Settings`, or of its
/// field `owner`.
macro_rules! setting {
    ($group:ident, ($($owner:ident)?) $key:ident, $kind:expr, $metavar:literal, $help:literal) => {
        setting!($group, ($($owner)?) $key, $kind, $metavar, $help, "")
    };
    ($group:ident, ($($owner:ident)?) $key:ident, $kind:expr, $metavar:literal, $help:literal, $note:literal) => {
        Setting {
            key: stringify!($key),
            group: Group::$group,
            metavar: $metavar,
            help: $help,
            default_note: $note,
            shape: || $kind.shape(),
            secret: || $kind.secret(),
            show: |settings| $kind.show(&settings.$($owner.)?$key),
            same: |one, other| one.$($owner.)?$key == other.$($owner.)?$key,
            set: |settings, input, _| {
                settings.$($owner.)?$key = $kind.read(input)?;
                Ok(())
            },
        }
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

const CATALOGS: List<CatalogSource> =
    List(0, Noun { article: "a", one: "catalog", many: "catalogs" }, str::parse::<CatalogSource>);

/// Not by the macro: each catalog is kept with where it was named, and a path in the file begins there.
const CATALOG: Setting = Setting {
    key: "catalog",
    group: Group::Events,
    metavar: "NAME|FILE",
    help: "Load this catalog of events: conductor, runs, projects, workflow or the path of a TOML file; repeatable",
    default_note: "none",
    shape: || CATALOGS.shape(),
    secret: || false,
    // As whole paths: what is shown may be read from another directory.
    show: |settings| {
        CATALOGS.show(&settings.catalog.iter().map(|catalog| catalog.value.absolute()).collect())
    },
    same: |one, other| one.catalog == other.catalog,
    set: |settings, input, origin| {
        let located = |source: CatalogSource| Located {
            value: match origin {
                ValueOrigin::File(file, _) => source.beside(file),
                _ => source,
            },
            place: origin.to_string(),
        };
        settings.catalog = CATALOGS.read(input)?.into_iter().map(located).collect();
        Ok(())
    },
};

/// Every setting, in the order of help and example file.
pub const SETTINGS: &[Setting] = &[
    setting!(
        Addresses,
        () listen,
        List(1, ADDRESSES, socket_address),
        "ADDR:PORT",
        "Serve WebSocket, HTTP and the page here; repeatable"
    ),
    setting!(
        Addresses,
        () publish,
        List(0, ADDRESSES, str::parse::<PublishAddress>),
        "ADDR:PORT|unix:PATH",
        "Take events from publishers here; repeatable"
    ),
    setting!(
        Addresses,
        () admin,
        List(0, ADDRESSES, socket_address),
        "ADDR:PORT",
        "Serve the operators' endpoints here; repeatable",
        "with the rest, on the addresses of listen"
    ),
    setting!(
        Addresses,
        () shards,
        Count(1, MAX_SHARDS as u64),
        "N",
        "Threads that serve connections, 1 to 64",
        "one for each processor"
    ),
    setting!(
        Addresses,
        () tcp_congestion,
        Maybe(Congestion),
        "NAME",
        "Congestion control of accepted TCP sockets, such as cubic or bbr",
        "the kernel's choice"
    ),
    setting!(
        Addresses,
        () send_buffer,
        Maybe(Size(4 * KIB, GIB)),
        "SIZE",
        "Kernel send buffer of each client's socket",
        "the kernel's choice"
    ),
    setting!(
        Access,
        () publish_token,
        Maybe(Token),
        "TOKEN",
        "What publishers have to show; better given in the file or the environment, where ps does not show it",
        "none"
    ),
    setting!(
        Access,
        () operator_token,
        Maybe(Token),
        "TOKEN",
        "What operators have to show; better given in the file or the environment, where ps does not show it",
        "none"
    ),
    setting!(
        Access,
        () allowed_origins,
        List(
            0,
            Noun { article: "an", one: "origin", many: "origins" },
            str::parse::<AllowedOrigin>
        ),
        "ORIGIN",
        "Pages of this origin may listen, such as https://app.example; * is all, null those without; repeatable"
    ),
    setting!(
        Access,
        () require_origin,
        Switch,
        "BOOL",
        "Let only those listen who name an origin: browsers, and programs that say one"
    ),
    setting!(
        Access,
        () insecure,
        Switch,
        "BOOL",
        "Start on addresses that other machines reach even without tokens"
    ),
    setting!(
        Access,
        () diagnostics,
        Switch,
        "BOOL",
        "Serve echoes for test suites, at /echo and /diagnostics/http; on loopback addresses only"
    ),
    CATALOG,
    setting!(
        Events,
        () catalog_strict,
        Switch,
        "BOOL",
        "Refuse events whose name no loaded catalog has"
    ),
    setting!(
        Limits,
        (limits) max_clients,
        Count(1, 10_000_000),
        "N",
        "WebSocket clients at once; the next one is told so and closed with 1013"
    ),
    setting!(Limits, (limits) max_publishers, Count(1, 1_000_000), "N", "Publishers at once"),
    setting!(
        Limits,
        (limits) max_handshakes,
        Count(1, 1_000_000),
        "N",
        "Connections of one shard that have not finished their request; above it the oldest is closed"
    ),
    setting!(
        Limits,
        (limits) accepts_per_turn,
        Count(1, 65_536),
        "N",
        "Connections that a shard accepts in one turn of its loop, and handshakes and requests that it reads"
    ),
    setting!(
        Limits,
        (limits) handshakes_per_second,
        Count(0, 1_000_000),
        "N",
        "Clients let in a second; above it they are told when to come back. 0 lets all in"
    ),
    setting!(
        Limits,
        (limits) handshake_burst,
        Count(1, 1_000_000),
        "N",
        "Clients let in at once after a while in which none came, where handshakes_per_second is set"
    ),
    setting!(Limits, (limits) max_header_bytes, Size(256, 64 * KIB), "SIZE", "Bytes of an HTTP request head"),
    setting!(Limits, (limits) max_body_bytes, Size(1, GIB), "SIZE", "Bytes of an HTTP request body"),
    setting!(
        Limits,
        (limits) max_message_bytes,
        Size(64, 64 * MIB),
        "SIZE",
        "Bytes of one message from a client; above it the client is closed with 1009"
    ),
    setting!(
        Limits,
        (limits) max_messages_per_second,
        Maybe(Count(1, 1_000_000)),
        "N",
        "Messages, pings and pongs of one client in a second; above it the client is closed with 1008",
        "no bound"
    ),
    setting!(
        Limits,
        (limits) max_subscriptions,
        Count(1, 1_000_000),
        "N",
        "Topics that one client may be subscribed to"
    ),
    setting!(
        Limits,
        (limits) max_patterns_per_client,
        Count(0, 1_000_000),
        "N",
        "Prefix patterns such as run:* among them; 0 turns patterns off"
    ),
    setting!(
        Limits,
        (limits) min_pattern_prefix,
        Count(0, 254),
        "N",
        "Bytes that a pattern must have before its *; 0 allows *, which matches every topic"
    ),
    setting!(
        Limits,
        (limits) max_topics,
        Count(1, 1_000_000_000),
        "N",
        "Topics with a subscriber, in the whole node"
    ),
    setting!(
        Limits,
        (limits) max_publish_bytes,
        Size(1, 256 * MIB),
        "SIZE",
        "Bytes of the data of one published event"
    ),
    setting!(
        Limits,
        (limits) max_idempotency_keys,
        Count(1, 100_000_000),
        "N",
        "Publishers' names, and Idempotency-Keys, remembered at once; above it newcomers are refused"
    ),
    setting!(
        Limits,
        (limits) queue_events,
        Count(1, 1_000_000),
        "N",
        "Events queued for a client whose socket takes no more; then it is closed as slow (4008)"
    ),
    setting!(
        Limits,
        (limits) queue_bytes,
        Size(1, GIB),
        "SIZE",
        "Bytes queued for such a client; an empty queue takes one event of any size"
    ),
    setting!(
        Limits,
        (limits) max_outbox_bytes,
        Size(MIB, 1024 * GIB),
        "SIZE",
        "Bytes held by all clients' queues together"
    ),
    setting!(
        Limits,
        (limits) max_history_bytes,
        Size(MIB, 1024 * GIB),
        "SIZE",
        "Bytes of all topics' history together"
    ),
    setting!(
        Limits,
        (limits) link_bytes,
        Size(64 * KIB, 16 * GIB),
        "SIZE",
        "Bytes on their way to one shard; above it publishers are not read"
    ),
    setting!(
        Limits,
        (limits) latency_budget,
        Period(Duration::ZERO, Duration::from_secs(1)),
        "TIME",
        "How long events may be held back so that one write carries more of them: saves CPU; 0s holds nothing back"
    ),
    setting!(
        Timeouts,
        (limits) handshake_timeout,
        Period(MS, HOUR),
        "TIME",
        "From the connection to a complete request head"
    ),
    setting!(
        Timeouts,
        (limits) heartbeat_interval,
        Period(MS, Duration::from_secs(24 * 3600)),
        "TIME",
        "How often clients are pinged"
    ),
    setting!(
        Timeouts,
        (limits) heartbeat_timeout,
        Period(MS, Duration::from_secs(48 * 3600)),
        "TIME",
        "A client from which nothing came for this long is closed with 4000"
    ),
    setting!(
        Timeouts,
        (limits) message_timeout,
        Period(MS, HOUR),
        "TIME",
        "A client that has begun a frame or message and not finished it within this is closed with 1008"
    ),
    setting!(
        Timeouts,
        (limits) event_stream_keep_alive,
        Period(Duration::from_millis(10), HOUR),
        "TIME",
        "How often an event stream (Server-Sent Events) gets a comment, so that proxies keep it open"
    ),
    setting!(
        Timeouts,
        (limits) close_timeout,
        Period(MS, HOUR),
        "TIME",
        "How long a closed client may take to answer the close"
    ),
    setting!(
        Timeouts,
        (limits) publish_timeout,
        Period(MS, HOUR),
        "TIME",
        "Within this a frame or body once begun must be complete, and a publisher's answers read"
    ),
    setting!(
        Timeouts,
        (limits) idempotency_window,
        Period(MS, 24 * HOUR),
        "TIME",
        "How long a publisher's name and an Idempotency-Key are remembered, so that an event sent again is not published again"
    ),
    setting!(
        Timeouts,
        (limits) drain_delay,
        Period(Duration::ZERO, HOUR),
        "TIME",
        "From the beginning of a shutdown, when /readyz says so, to the first close"
    ),
    setting!(
        Timeouts,
        (limits) drain_spread,
        Period(Duration::ZERO, HOUR),
        "TIME",
        "Over how long a shutdown spreads the closes of many clients; never fewer than 100 a second"
    ),
    setting!(
        Timeouts,
        (limits) drain_timeout,
        Period(MS, HOUR),
        "TIME",
        "How long a shutdown may take once all clients were let go"
    ),
    setting!(
        Logging,
        () log_level,
        Word(str::parse::<LogLevel>),
        "LEVEL",
        "What is logged: error, warn, info, debug or trace"
    ),
    setting!(Logging, () log_format, Word(str::parse::<LogFormat>), "FORMAT", "How it is logged: text or json"),
];
