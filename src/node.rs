//! A node: threads, signals, shutdown. Uses everything; nobody uses it but the command line.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::clock::Clock;
use crate::config::{ConfigError, Settings};
use crate::fanout::connection::Door;
use crate::fanout::shared::{Access, Shared, State};
use crate::fanout::stages::Undo;
use crate::net::listener::{Bound, Tuning, check_congestion};
use crate::net::reactor::Reactor;
use crate::origin::Origins;
use crate::prepare::Prepared;

/// Runs a node until it is told to stop. `reload` reads the settings again, for SIGHUP.
///
/// Exit codes: 0 after a clean shutdown, 1 where the node could not start or broke, 130 where a second signal
/// cut the shutdown short.
pub fn run(
    settings: Settings,
    prepared: Prepared,
    reload: impl Fn() -> Result<Settings, ConfigError> + Send + 'static,
) -> ExitCode {
    match start(settings, prepared, reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The first word of a failure is for the person who typed the command.
            eprintln!("fanwire: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(
    settings: Settings,
    prepared: Prepared,
    reload: impl Fn() -> Result<Settings, ConfigError> + Send + 'static,
) -> io::Result<()> {
    raise_file_limit();
    let clock = Clock::start();
    let bound = bind(&settings)?;
    let tuning =
        Tuning { tcp_congestion: settings.tcp_congestion.clone(), send_buffer: settings.send_buffer };
    let access = Access {
        publish_token: settings.publish_token.clone(),
        operator_token: settings.operator_token.clone(),
        has_admin: !settings.admin.is_empty(),
        has_diagnostics: settings.diagnostics,
        origins: Origins::new(settings.allowed_origins.clone(), settings.require_origin),
    };
    let limits = Arc::new(settings.limits.clone());
    let Prepared { streams, envelopes, rules, topic_rules, catalogs: _ } = prepared;
    let shared = Shared::new(settings.shards, &limits, access, clock.now());
    let mut shared = shared.with_streams(streams, envelopes).with_topic_rules(topic_rules);
    shared.rules = rules;
    let shared = Arc::new(shared);
    let mut threads = Vec::new();
    for id in 0..settings.shards {
        let listeners = bound.iter().map(Bound::handle).collect::<io::Result<_>>()?;
        let reactor = Reactor::new(id, Arc::clone(&shared), &limits, listeners, tuning.clone(), clock)?;
        threads.push(thread::Builder::new().name(format!("shard-{id}")).spawn(move || reactor.run())?);
    }
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    let handle = signals.handle();
    // Before anybody can say that it ends.
    shared.set_state(State::Ready);
    let watcher = {
        let shared = Arc::clone(&shared);
        let watch = move || watch(signals, &shared, clock, settings, &reload);
        thread::Builder::new().name("signals".to_owned()).spawn(watch)?
    };
    if let Err(error) = greet(&bound, &shared) {
        // Whoever started the node does not listen; those who connect do.
        tracing::debug!(%error, "the greeting was not written");
    }
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
    let mut bound = Vec::new();
    for address in &settings.listen {
        bound.push(Bound::tcp(*address, Door::Public)?);
    }
    for address in &settings.admin {
        bound.push(Bound::tcp(*address, Door::Admin)?);
    }
    for address in &settings.publish {
        bound.push(Bound::publish(address)?);
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

/// Four lines: that it runs, where it listens, and what to do next.
fn greet(bound: &[Bound], shared: &Shared) -> io::Result<()> {
    let addresses = |door: Door, prefix: &str, suffix: &str| {
        let all = bound.iter().filter(|b| b.door == door);
        all.map(|b| format!("{prefix}{}{suffix}", b.address())).collect::<Vec<_>>().join(" ")
    };
    let mut out = io::stdout().lock();
    let shards = match shared.shards() {
        1 => "1 shard".to_owned(),
        n => format!("{n} shards"),
    };
    let max_clients = shared.max_clients();
    writeln!(out, "fanwire {} is up: {shards}, up to {max_clients} clients", env!("CARGO_PKG_VERSION"))?;
    let http = addresses(Door::Public, "http://", "/");
    let admin = addresses(Door::Admin, "http://", "/");
    let (what, page) = if admin.is_empty() {
        ("page, WebSocket, HTTP ", "")
    } else {
        ("WebSocket, HTTP       ", "  page, operators ")
    };
    writeln!(out, "  {what} {http}{page}{admin}")?;
    let publish = addresses(Door::Publish, "", "");
    writeln!(out, "  publish socket         {publish}")?;
    // The commands find a node at its default addresses by themselves.
    let to = |address: Option<&str>, default: &str| match address {
        Some(address) if address != default => format!(" --to {address}"),
        _ => String::new(),
    };
    let sub = to(http.split(' ').next(), "http://127.0.0.1:8080/");
    let publish = to(publish.split(' ').next(), "127.0.0.1:8081");
    writeln!(
        out,
        "  next: open the page, or run `fanwire sub demo{sub}` here and `fanwire pub demo hello '{{\"n\":1}}'{publish}` there"
    )?;
    out.flush()
}

/// SIGTERM and SIGINT drain, a second one ends at once; SIGUSR1 takes a drain back; SIGHUP reads the settings again.
fn watch(
    mut signals: Signals,
    shared: &Shared,
    clock: Clock,
    mut settings: Settings,
    reload: &impl Fn() -> Result<Settings, ConfigError>,
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
                    std::process::exit(130);
                }
                if begun.is_err() {
                    tracing::info!("shutting down already; another signal ends it at once");
                }
            }
        }
    }
}
