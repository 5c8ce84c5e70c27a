//! `fanwire bench`: loads a node, or another server, and tells what its subscribers would see.

mod capacity;
mod plot;
mod report;
mod scenario;
mod target;
mod watch;

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::subscribe::host_and_port;
use super::{Failure, Outcome, print};
use crate::cli::load::{Address, DATA_BYTES, Dialect, Peer};
use crate::config::duration;
use report::Report;
use target::Target;
use watch::Watch;

/// The end where it was measured, and not everything came once and in order.
const LOST: u8 = 3;
/// The end by Ctrl-C.
const INTERRUPTED: u8 = 130;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What is measured [default: a short fanout]
    #[arg(value_enum)]
    scenario: Option<Scenario>,
    /// Subscribers that are measured; several numbers are a run each [default: 1000; idle 10000, storm and slow 100]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: Vec<u32>,
    /// Topics that they are spread over, and events with them [default: 1; topics 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    topics: Option<u32>,
    /// Events a second in all; of capacity, where the search begins [default: 100; slow 1000]
    #[arg(long, value_name = "RATE", value_parser = positive)]
    rate: Option<f64>,
    /// Seconds that are measured; of capacity, for each rate [default: 5; capacity 2]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    secs: Option<f64>,
    /// Seconds of publishing before them [default: 1; capacity 0.5]
    #[arg(long, value_name = "SECONDS", value_parser = not_negative)]
    warm_up: Option<f64>,
    /// Seconds after the last event for which its deliveries are waited for; later they count as lost
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = not_negative)]
    patience: f64,
    /// Bytes of an event's data [default: 159; slow 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(DATA_BYTES as i64..=1 << 20))]
    bytes: Option<u32>,
    /// capacity: the p99 latency that a rate may have, in milliseconds
    #[arg(long, value_name = "MS", default_value = "10", value_parser = positive)]
    p99: f64,
    /// storm: connections that come and go at once
    #[arg(long, value_name = "N", default_value = "5000", value_parser = clap::value_parser!(u32).range(1..))]
    storm: u32,
    /// slow: subscribers that never read
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    slow: u32,
    /// What speaks at the other end
    #[arg(long, value_enum, default_value = "fanwire")]
    peer: PeerName,
    /// fanwire: how subscribers are connected; `path` needs a stream `/stream/{name}` of topic `{name}`
    #[arg(long, value_enum, default_value = "json")]
    dialect: DialectName,
    /// Measure a server that runs here: HOST:PORT or http://HOST:PORT [default: a node of its own]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Where events go in: HOST:PORT or unix:PATH [default: 127.0.0.1:8081 for fanwire, --to for others]
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    publish: Option<String>,
    /// Start the server at --to with this command, measure it, and end it
    #[arg(long, value_name = "COMMAND", requires = "to")]
    server: Option<String>,
    /// Take processor time and memory of the server at --to from this process and its children
    #[arg(long, value_name = "PID", requires = "to", conflicts_with = "server")]
    pid: Option<u32>,
    /// Processors of the server that is started here, such as 0 or 0,1
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    server_cpu: Vec<usize>,
    /// Processors of the generator
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    generator_cpu: Vec<usize>,
    /// The version of the server, for the report
    #[arg(long, value_name = "TEXT")]
    peer_version: Option<String>,
    /// Write the figures to this file as JSON; - is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw plots into this directory, as SVG
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Latency budgets of its own node, such as 0ms,2ms,5ms; several are a run each
    #[arg(long, value_name = "TIME", value_delimiter = ',', conflicts_with = "to", value_parser = duration)]
    latency_budget: Vec<Duration>,
    /// Further flags of its own node, after --
    #[arg(last = true, value_name = "FLAG", conflicts_with = "to")]
    serve: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Subscribers of one topic at a fixed rate
    Fanout,
    /// The same over many topics
    Topics,
    /// Search for the highest rate with nothing lost and p99 under --p99
    Capacity,
    /// Idle subscribed connections: memory of each, handshakes a second
    Idle,
    /// Few subscribers while many others connect and go, again and again
    Storm,
    /// Subscribers while others never read
    Slow,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Topics => "topics",
            Self::Capacity => "capacity",
            Self::Idle => "idle",
            Self::Storm => "storm",
            Self::Slow => "slow",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerName {
    /// Fanwire
    Fanwire,
    /// A plain WebSocket server: /sub/TOPIC, and texts `TOPIC JSON` on /pub
    Ws,
    /// Socket.IO over Engine.IO 4
    Socketio,
    /// NATS over TCP
    Nats,
    /// MQTT 3.1.1 over TCP, QoS 0
    Mqtt,
    /// nchan: POST /pub/TOPIC, WebSocket of /sub/TOPIC
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DialectName {
    /// WebSocket of /ws
    Json,
    /// WebSocket of a path
    Path,
    /// Server-Sent Events
    Sse,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e9 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1e6).contains(&number) => Ok(number),
        _ => Err("must be a number, 0 or above".to_owned()),
    }
}

/// What is measured, with every default in its place.
#[derive(Clone, Debug)]
struct Options {
    scenario: Scenario,
    peer: Peer,
    topics: usize,
    rate: f64,
    secs: f64,
    warm_up: Duration,
    patience: Duration,
    bytes: usize,
    p99_ms: f64,
    storm: usize,
    slow: usize,
}

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
struct Variant {
    subscribers: usize,
    /// Of the node that is started for it; `None`: what its flags and settings say.
    latency_budget: Option<Duration>,
}

impl Arguments {
    fn options(&self) -> Options {
        let scenario = self.scenario.unwrap_or(Scenario::Fanout);
        let is = |other| scenario == other;
        let seconds = |given: Option<f64>, default| Duration::from_secs_f64(given.unwrap_or(default));
        let dialect = match self.dialect {
            DialectName::Json => Dialect::Json,
            DialectName::Path => Dialect::Path,
            DialectName::Sse => Dialect::Sse,
        };
        Options {
            scenario,
            peer: match self.peer {
                PeerName::Fanwire => Peer::Fanwire(dialect),
                PeerName::Ws => Peer::Ws,
                PeerName::Socketio => Peer::SocketIo,
                PeerName::Nats => Peer::Nats,
                PeerName::Mqtt => Peer::Mqtt,
                PeerName::Http => Peer::Http,
            },
            topics: self.topics.unwrap_or(if is(Scenario::Topics) { 1000 } else { 1 }) as usize,
            rate: self.rate.unwrap_or(if is(Scenario::Slow) { 1000.0 } else { 100.0 }),
            secs: self.secs.unwrap_or(if is(Scenario::Capacity) { 2.0 } else { 5.0 }),
            warm_up: seconds(self.warm_up, if is(Scenario::Capacity) { 0.5 } else { 1.0 }),
            patience: Duration::from_secs_f64(self.patience),
            bytes: self.bytes.map_or(if is(Scenario::Slow) { 1024 } else { DATA_BYTES }, |n| n as usize),
            p99_ms: self.p99,
            storm: self.storm as usize,
            slow: self.slow as usize,
        }
    }

    /// What differs from run to run: all budgets with the first number of subscribers, then all with the next.
    fn runs(&self, scenario: Scenario) -> Vec<Variant> {
        let mut subscribers: Vec<usize> = self.subscribers.iter().map(|n| *n as usize).collect();
        if subscribers.is_empty() {
            subscribers.push(match scenario {
                Scenario::Fanout | Scenario::Topics | Scenario::Capacity => 1000,
                Scenario::Idle => 10_000,
                Scenario::Storm | Scenario::Slow => 100,
            });
        }
        let mut budgets: Vec<_> = self.latency_budget.iter().copied().map(Some).collect();
        if budgets.is_empty() {
            budgets.push(None);
        }
        let with_all = |subscribers| {
            budgets.iter().map(move |latency_budget| Variant { subscribers, latency_budget: *latency_budget })
        };
        subscribers.into_iter().flat_map(with_all).collect()
    }

    /// Where the server is that is not started here as a node.
    fn addresses(&self) -> Result<Option<(SocketAddr, Address)>, Failure> {
        let Some(to) = &self.to else { return Ok(None) };
        let host = host_and_port(to)?;
        let found = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
        let address = found.ok_or_else(|| format!("{host}: there is no such host"))?;
        let publish = match (&self.publish, self.peer) {
            (Some(publish), _) => publish.parse().map_err(|error| format!("--publish {publish}: {error}"))?,
            (None, PeerName::Fanwire) => Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8081))),
            (None, _) => Address::Tcp(address),
        };
        Ok(Some((address, publish)))
    }

    fn check(&self) -> Result<(), Failure> {
        let is_fanwire = self.peer == PeerName::Fanwire;
        if !is_fanwire && self.to.is_none() {
            return Err(
                "only Fanwire is started by itself: say with --to where the peer listens, and start it \
                        with --server 'COMMAND' if it does not run"
                    .to_owned()
                    .into(),
            );
        }
        if !is_fanwire && self.dialect != DialectName::Json {
            return Err("--dialect is of Fanwire".to_owned().into());
        }
        if !self.server_cpu.is_empty() && self.to.is_some() && self.server.is_none() {
            return Err("--server-cpu is for a server that is started here".to_owned().into());
        }
        Ok(())
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    arguments.check()?;
    let options = arguments.options();
    let runs = arguments.runs(options.scenario);
    let addresses = arguments.addresses()?;
    let is_table = arguments.json.as_deref().is_none_or(|file| file.as_os_str() != "-");
    if arguments.scenario.is_none() && is_table {
        print(scenarios().as_bytes())?;
    }
    let watch = Watch::new().map_err(|error| format!("signals cannot be watched: {error}"))?;
    let mut reports = Vec::new();
    for variant in &runs {
        let measured = Target::start(arguments, &options, addresses.as_ref(), variant, &watch)
            .and_then(|mut target| scenario::measure(&mut target, &options, variant, &watch));
        match measured {
            Ok(report) => reports.push(report),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                eprintln!("fanwire: interrupted, nothing was measured to its end");
                return Ok(ExitCode::from(INTERRUPTED));
            }
            Err(error) => return Err(format!("{}: {error}", options.scenario.name()).into()),
        }
    }
    if is_table {
        print(report::table(&reports).as_bytes())?;
    }
    if let Some(file) = &arguments.json {
        let text = report::json(&reports)?;
        if is_table {
            fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        } else {
            print(text.as_bytes())?;
        }
    }
    if let Some(dir) = &arguments.plot {
        plot::draw(dir, &reports)?;
    }
    let wrong: Vec<String> = reports.iter().filter_map(Report::complaint).collect();
    for complaint in &wrong {
        eprintln!("fanwire: {complaint}");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LOST) })
}

/// What there is, for who asked for nothing in particular.
fn scenarios() -> String {
    let mut text = "Scenarios, each with flags of its own (`fanwire bench --help`):\n\n".to_owned();
    for scenario in Scenario::value_variants() {
        let value = scenario.to_possible_value();
        let help = value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default();
        text += &format!("  {:<10} {help}\n", scenario.name());
    }
    text + "\nNow a short fanout, against a node of its own.\n\n"
}
