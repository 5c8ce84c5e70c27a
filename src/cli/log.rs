//! Log lines to standard error, as text or JSON, at a level that a reload can change. A thread of their own writes
//! them, so that a log that nobody reads, or a full disk, holds up no shard.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGXFSZ;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};
use crate::logs::Logs;

/// How long the end of the process waits for a log that is read slowly.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// Changes the level of a running process.
pub(super) struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Logs at this level from now on.
    pub(super) fn set(&self, level: LogLevel) {
        // It fails only when the subscriber is gone, which lives as long as the process.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts logging. Called once; a second call leaves the first in force.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn start(level: LogLevel, format: LogFormat) -> io::Result<(Level, Logs)> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let is_terminal = io::stderr().is_terminal();
    let (logs, pump) = Logs::new(is_terminal);
    // A limit on the size of files is a full disk too: an error of the write, not the end of the process.
    drop(signal_hook::flag::register(SIGXFSZ, Arc::default()));
    let complain = |dropped| tracing::error!(dropped, "log lines were lost: nobody took them");
    thread::Builder::new().name("log".to_owned()).spawn(move || pump.run(io::stderr(), complain))?;
    let writer = logs.clone();
    let lines = fmt::layer().with_writer(move || writer.clone()).with_ansi(is_terminal);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    // The standard library's hook would wait for standard error, and a process that is broken would stay.
    let last = logs.clone();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        last.wait_written(PATIENCE);
    }));
    Ok((Level(handle), logs))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message =
        message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, %backtrace, "panic: {message}");
    } else {
        tracing::error!(thread, location, "panic: {message}; RUST_BACKTRACE=1 shows the way to it");
    }
}

/// The level for our own lines; libraries speak up only when something is wrong.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level)
}
