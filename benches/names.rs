//! What a name of its own costs a client's node: `cargo bench --bench names`.
//!
//! Every event of a client that named itself (`clientId`) ends with that name, so its frames are its own bytes, while
//! all others are handed the same ones. Here 1,000 subscribers of one topic are flooded, without names and with one for
//! each, in turns; a node of one shard as a process of its own.
//!
//! The far ends throw away what came (`recv` with `MSG_TRUNC`, tcp(7)) and look at nothing: a generator that checks each
//! delivery is busy to the last with it, above all where the bytes of each are its own and not in its caches. So nothing
//! is checked here but that nobody was left behind; `fanwire bench` checks the rest. What comes out is a ratio of two floods, not
//! the most that a node can do.
//!
//! `BENCH_NODE_PREFIX="taskset -c 0" taskset -c 1 cargo bench --bench names` gives each side a processor.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use fanwire::cli::load::node::{Setup, get};
use fanwire::cli::load::{DATA_BYTES, Node, data, raise_file_limit, upgrade};
use fanwire::client::{Event, Options as Publishing};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{RecvFlags, recv};

/// What a name of its own costs a client's node.
#[derive(Parser)]
struct Options {
    /// Runs of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds that are measured of each, after as many that are not.
    #[arg(long, default_value_t = 2.0)]
    secs: f64,
    /// Subscribers.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of benches: where some are given, this one runs only if it is among them.
    #[arg(hide = true)]
    names: Vec<String>,
}

/// Bytes that one call throws away at most.
const PIECE: usize = 4 << 20;

fn main() -> ExitCode {
    let mut options = Options::parse();
    if !options.names.is_empty() && !options.names.iter().any(|name| "names".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    if !options.bench {
        options = Options { runs: 1, secs: 0.2, subscribers: 20, ..options };
    }
    match compare(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("names: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> io::Result<()> {
    raise_file_limit()?;
    let kinds = ["without names", "with names"];
    println!(
        "\n{} subscribers of one topic, flooded; far ends that throw away what came\n",
        options.subscribers
    );
    println!("{:<14} {:>16} {:>16} {:>14}", "", "deliveries/s", "bytes/delivery", "ns/delivery");
    let mut rates = kinds.map(|_| Vec::new());
    for _ in 0..options.runs.max(1) {
        for (named, kind) in kinds.into_iter().enumerate() {
            let flow = flood(options, named == 1)?;
            println!(
                "{kind:<14} {:>14.1} M {:>16.0} {:>14.1}",
                flow.deliveries / flow.seconds / 1e6,
                flow.bytes / flow.deliveries,
                flow.cpu / flow.deliveries * 1e9
            );
            rates[named].push(flow.deliveries / flow.seconds);
        }
    }
    let [plain, named] = rates.map(median);
    println!("\nmedians: {:.1} M, {:.1} M with names: {:.2}", plain / 1e6, named / 1e6, named / plain);
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    (rates[(rates.len() - 1) / 2] + rates[rates.len() / 2]) / 2.0
}

/// What went from a node to its clients in a time.
struct Flow {
    seconds: f64,
    deliveries: f64,
    bytes: f64,
    /// Processor time of the node, in seconds.
    cpu: f64,
}

fn flood(options: &Options, named: bool) -> io::Result<Flow> {
    let mut flags = vec!["--shards".to_owned(), "1".to_owned()];
    flags.extend(["--max-clients".to_owned(), options.subscribers.to_string()]);
    if !options.bench {
        // Where other tests run beside it, who reads may have no processor for a while.
        flags.extend(["--queue-events", "1000000", "--queue-bytes", "256MiB"].map(str::to_owned));
    }
    let node = Node::start(&Setup { flags, ..Setup::from_environment(env!("CARGO_BIN_EXE_fanwire")) })?;
    let name = |client| if named { format!("&clientId=client-{client}") } else { String::new() };
    let clients = (0..options.subscribers).map(|client| subscribe(node.http, &name(client)));
    let mut drain = Drain::of(clients.collect::<io::Result<_>>()?)?;
    let publish = node.publish_tcp()?.to_string();
    let (is_over, time) = (AtomicBool::new(false), Duration::from_secs_f64(options.secs));
    let flow = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_until(&publish, &is_over));
        let watch = scope.spawn(|| {
            let flow = watch(&node, time);
            is_over.store(true, Ordering::Relaxed);
            flow
        });
        while !publisher.is_finished() || !watch.is_finished() {
            drain.once()?;
        }
        publisher.join().map_err(|_| io::Error::other("the publisher panicked"))??;
        watch.join().map_err(|_| io::Error::other("who watched panicked"))?
    })?;
    let metrics = get(node.http, "/metrics")?;
    let (dropped, clients) = (total(&metrics, "fanwire_dropped_total"), total(&metrics, "fanwire_clients"));
    if flow.deliveries == 0.0 {
        return Err(io::Error::other("nothing came"));
    }
    if (dropped, clients) != (0.0, options.subscribers as f64) {
        return Err(io::Error::other(format!(
            "{dropped} events were dropped, and {clients} clients are left"
        )));
    }
    Ok(flow)
}

/// A client that has the answer to its subscribe.
fn subscribe(node: SocketAddr, query: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(node)?;
    stream.write_all(upgrade(&format!("/ws?topics=t{query}")).as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(16).any(|text| text == b"subscription-ack") {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other(format!("refused: {}", String::from_utf8_lossy(&answer))));
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn publish_until(node: &str, is_over: &AtomicBool) -> io::Result<()> {
    let mut publisher = Publishing::new().without_acks().open(node)?;
    let (topics, data) = (["t"], data(DATA_BYTES));
    while !is_over.load(Ordering::Relaxed) {
        publisher.publish(&Event::new(&topics, "retry-started", &data))?;
    }
    publisher.close()
}

/// Waits for a time, and answers what went out in another.
fn watch(node: &Node, time: Duration) -> io::Result<Flow> {
    std::thread::sleep(time);
    let (began, cpu, before) = (Instant::now(), node.cpu(), get(node.http, "/metrics")?);
    std::thread::sleep(time);
    let (took, cpu, after) = (began.elapsed(), node.cpu() - cpu, get(node.http, "/metrics")?);
    let grown = |name| total(&after, name) - total(&before, name);
    let (deliveries, bytes) = (grown("fanwire_deliveries_total"), grown("fanwire_delivered_bytes_total"));
    Ok(Flow { seconds: took.as_secs_f64(), deliveries, bytes, cpu: cpu.as_secs_f64() })
}

/// Far ends that throw away what came.
struct Drain {
    clients: Vec<TcpStream>,
    poll: Poll,
    events: Events,
    /// Says how much a call may throw away; nothing is ever written to it.
    piece: Vec<u8>,
}

impl Drain {
    fn of(clients: Vec<TcpStream>) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (number, client) in clients.iter().enumerate() {
            poll.registry().register(
                &mut SourceFd(&client.as_raw_fd()),
                Token(number),
                Interest::READABLE,
            )?;
        }
        let events = Events::with_capacity(clients.len());
        Ok(Self { clients, poll, events, piece: vec![0; PIECE] })
    }

    /// Throws away what there is, or comes within a moment.
    fn once(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(Duration::from_millis(10)))?;
        for event in &self.events {
            let client = &self.clients[event.token().0];
            loop {
                match recv(client, &mut self.piece[..], RecvFlags::TRUNC) {
                    Ok((_, 0)) => return Err(io::Error::other("a client was closed")),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// The sum of a metric over its labels.
fn total(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}
