//! A node: threads, signals, shutdown. Uses everything; nobody uses it but the command line.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::clock::Clock;
use crate::config::{ConfigError, Limits, Settings};
use crate::fanout::connection::Door;
use crate::fanout::shared::{Access, Shared};
use crate::fanout::stages::Undo;
use crate::logs::Logs;
use crate::net::heap;
use crate::net::listener::{Bound, Tuning, check_congestion};
use crate::net::reactor::Reactor;
use crate::origin::Origins;
use crate::prepare::Prepared;

/// How long a second signal waits for a log that is read slowly.
const LOG_PATIENCE: Duration = Duration::from_millis(100);

/// Places in the table of open files that are made at the start at most: 16 bytes or so of the kernel's each.
const MOST_RESERVED: u64 = 1 << 18;

/// Prepares the process for a node. To be called before there are threads.
pub fn prepare_process() {
    heap::configure();
}

/// Runs a node until it is told to stop. `reload` reads the settings again, for SIGHUP; `logs` is where its log
/// goes.
///
/// Exit codes: 0 after a clean shutdown, 1 where the node could not start or broke, 130 where a second signal
/// cut the shutdown short.
pub fn run(
    settings: Settings,
    prepared: Prepared,
    reload: impl Fn() -> Result<Settings, ConfigError> + Send + 'static,
    logs: &Logs,
) -> ExitCode {
    match start(settings, prepared, reload, logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The first word of a failure is for the person who typed the command.
            logs.say(&format!("fanwire: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start(
    settings: Settings,
    prepared: Prepared,
    reload: impl Fn() -> Result<Settings, ConfigError> + Send + 'static,
    logs: &Logs,
) -> io::Result<()> {
    raise_file_limit();
    reserve_files(&settings.limits);
    let clock = Clock::start();
    let bound = bind(&settings)?;
    let access = Access {
        publish_token: settings.publish_token.clone(),
        operator_token: settings.operator_token.clone(),
        has_admin: !settings.admin.is_empty(),
        has_diagnostics: settings.diagnostics,
        origins: Origins::new(settings.allowed_origins.clone(), settings.require_origin)
            .guarded(settings.publish_token.is_some() || settings.operator_token.is_some()),
    };
    let limits = Arc::new(settings.limits.clone());
    let Prepared { streams, envelopes, rules, topic_rules, catalogs: _ } = prepared;
    let shared = Shared::new(settings.shards, &limits, access, clock.now());
    let mut shared = shared.with_streams(streams, envelopes).with_topic_rules(topic_rules);
    shared.rules = rules;
    shared.log_lines_dropped = logs.dropped();
    let shared = Arc::new(shared);
    // Before anything is served: what comes while the node starts is not the system's to answer.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    let mut threads = Vec::new();
    for id in 0..settings.shards {
        let listeners = bound.iter().map(Bound::handle).collect::<io::Result<_>>()?;
        let reactor = Reactor::new(id, Arc::clone(&shared), &limits, listeners, clock)?;
        threads.push(thread::Builder::new().name(format!("shard-{id}")).spawn(move || reactor.run())?);
    }
    let handle = signals.handle();
    // Before anybody can say that it ends.
    shared.open();
    let watcher = {
        let (shared, logs) = (Arc::clone(&shared), logs.clone());
        let watch = move || watch(signals, &shared, clock, settings, &reload, &logs);
        thread::Builder::new().name("signals".to_owned()).spawn(watch)?
    };
    let greeting = greeting(&bound, &shared);
    // On a thread that nobody waits for: whoever started the node may not listen; those who connect do.
    thread::Builder::new().name("greeting".to_owned()).spawn(move || {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(greeting.as_bytes()).and_then(|()| out.flush()) {
            tracing::debug!(%error, "the greeting was not written");
        }
    })?;
    let mut outcome = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => outcome = Err(error),
            Err(_) => outcome = Err(io::Error::other("a shard panicked; see the message above")),
        }
    }
    handle.close();
    drop(watcher.join());
    tracing::info!("stopped");
    outcome
}

fn bind(settings: &Settings) -> io::Result<Vec<Bound>> {
    if let Some(name) = &settings.tcp_congestion {
        check_congestion(name)
            .map_err(|error| io::Error::new(error.kind(), format!("tcp_congestion {name:?}: {error}")))?;
    }
    let tuning =
        Tuning { tcp_congestion: settings.tcp_congestion.clone(), send_buffer: settings.send_buffer };
    let mut bound = Vec::new();
    for address in &settings.listen {
        bound.push(Bound::tcp(*address, Door::Public, &tuning)?);
    }
    for address in &settings.admin {
        bound.push(Bound::tcp(*address, Door::Admin, &tuning)?);
    }
    for address in &settings.publish {
        bound.push(Bound::publish(address, &tuning)?);
    }
    Ok(bound)
}

/// Every connection is a file: the soft limit, which is low for programs that use `select`, does not bind us.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Has the kernel make its table of our files as long as it may get. It doubles when it is full, and in a process with
/// threads whoever opens that file waits until every processor has passed by (`synchronize_rcu`): 16 ms in which a shard
/// does nothing, five times on the way to 20,000 clients.
fn reserve_files(limits: &Limits) {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = (limits.max_clients + limits.max_publishers + limits.max_handshakes) as u64;
    let highest = wanted.min(allowed).min(MOST_RESERVED) as i32 - 1;
    if let Err(error) = fcntl_dupfd_cloexec(io::stderr(), highest) {
        tracing::debug!(%error, highest, "the table of open files grows as clients come");
    }
}

/// Four lines: that it runs, where it listens, and what to do next.
fn greeting(bound: &[Bound], shared: &Shared) -> String {
    let addresses = |door: Door, prefix: &str, suffix: &str| {
        let all = bound.iter().filter(|b| b.door == door);
        all.map(|b| format!("{prefix}{}{suffix}", b.address())).collect::<Vec<_>>().join(" ")
    };
    let shards = match shared.shards() {
        1 => "1 shard".to_owned(),
        n => format!("{n} shards"),
    };
    let max_clients = shared.max_clients();
    let version = env!("CARGO_PKG_VERSION");
    let http = addresses(Door::Public, "http://", "/");
    let admin = addresses(Door::Admin, "http://", "/");
    let (what, page) = if admin.is_empty() {
        ("page, WebSocket, HTTP ", "")
    } else {
        ("WebSocket, HTTP       ", "  page, operators ")
    };
    let publish = addresses(Door::Publish, "", "");
    // The commands find a node at its default addresses by themselves.
    let to = |address: Option<&str>, default: &str| match address {
        Some(address) if address != default => format!(" --to {address}"),
        _ => String::new(),
    };
    let sub = to(http.split(' ').next(), "http://127.0.0.1:8080/");
    let to_publish = to(publish.split(' ').next(), "127.0.0.1:8081");
    format!(
        "fanwire {version} is up: {shards}, up to {max_clients} clients\n\
         \x20 {what} {http}{page}{admin}\n\
         \x20 publish socket         {publish}\n\
         \x20 next: open the page, or run `fanwire sub demo{sub}` here and `fanwire pub demo hello '{{\"n\":1}}'{to_publish}` there\n"
    )
}

/// SIGTERM and SIGINT drain, a second one ends at once; SIGUSR1 takes a drain back; SIGHUP reads the settings again.
fn watch(
    mut signals: Signals,
    shared: &Shared,
    clock: Clock,
    mut settings: Settings,
    reload: &impl Fn() -> Result<Settings, ConfigError>,
    logs: &Logs,
) {
    // The last drain that a signal has asked for. One that was begun over HTTP is not cut short by a first signal: a
    // supervisor sends it to whoever is on the way out already.
    let mut asked = None;
    for signal in &mut signals {
        match signal {
            SIGHUP => match reload() {
                Ok(new) => {
                    // Shards know streams by their number: however many there are now, they were at the start.
                    settings = settings.reloaded(new);
                    shared.set_limits(&Arc::new(settings.limits.clone()));
                    tracing::info!("settings reloaded");
                }
                Err(error) => tracing::error!("settings refused, the old ones stay: {error}"),
            },
            SIGUSR1 => match shared.undo_drain() {
                Undo::Done { .. } => {}
                Undo::Nothing => tracing::warn!("SIGUSR1: there is no shutdown to take back"),
                Undo::TooLate => {
                    tracing::warn!(
                        "SIGUSR1: too late to take the shutdown back: publishers are read no more"
                    );
                }
            },
            _ => {
                let begun = shared.begin_drain(clock.now());
                let (Ok(order) | Err(order)) = begun;
                if asked.replace(order.drain) == Some(order.drain) {
                    tracing::warn!("stopped at once by a second signal");
                    logs.wait_written(LOG_PATIENCE);
                    std::process::exit(130);
                }
                if begun.is_err() {
                    tracing::info!("shutting down already; another signal ends it at once");
                }
            }
        }
    }
}
