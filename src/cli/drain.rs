//! `fanwire drain`: shuts a node down without a herd and follows it to its end, or takes that back.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::http::{self, NoAnswer};
use super::subscribe::host_and_port;
use super::top::{shown, token};
use super::{Failure, Outcome, print};

/// Where a node is asked.
const PATH: &str = "/api/drain";
/// From one look at the node to the next.
const INTERVAL: Duration = Duration::from_millis(500);
/// A node that listens and does not answer is asked this often before the command gives up.
const TRIES: u32 = 5;
/// The end where it went otherwise than asked for: taken back meanwhile, or not to be taken back.
const OTHERWISE: u8 = 3;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Take a shutdown back that is under way; possible until the last client was let go
    #[arg(long)]
    undo: bool,
    /// End as soon as the node has begun, without following it to its end
    #[arg(long, conflicts_with = "undo")]
    no_wait: bool,
    /// The node: http://HOST:PORT or HOST:PORT; its `admin` listener, where it has one
    #[arg(long, value_name = "URL", env = "FANWIRE_HTTP", default_value = "http://127.0.0.1:8080")]
    to: String,
    /// What the node asks operators for
    #[arg(long, env = "FANWIRE_OPERATOR_TOKEN", hide_env_values = true, value_parser = token)]
    token: Option<String>,
}

/// What a node says of its shutdown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    state: String,
    clients: u64,
    clients_at_beginning: Option<u64>,
    seconds_left: Option<f64>,
    uptime_seconds: f64,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let host = host_and_port(&arguments.to)?;
    let method = if arguments.undo { "DELETE" } else { "POST" };
    match http::ask::<Progress>(method, &host, PATH, arguments.token.as_deref()) {
        Ok(progress) if arguments.undo => {
            print(format!("taken back; clients connected: {}\n", progress.clients).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(progress) if arguments.no_wait => {
            print(line(&progress).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(progress) => follow(&host, arguments, progress),
        Err(NoAnswer::Not(message)) => {
            eprintln!("fanwire: {}", shown(&format!("{host}: {message}")));
            Ok(ExitCode::from(OTHERWISE))
        }
        Err(NoAnswer::Now(message) | NoAnswer::Ever(message)) => Err(Failure::Message(shown(&message))),
    }
}

/// Shows how far it is until the node is gone.
fn follow(host: &str, arguments: &Arguments, mut last: Progress) -> Outcome {
    let bar = progress_bar(&last);
    let (mut said, mut tries) = (String::new(), 0);
    loop {
        match &bar {
            Some(bar) => {
                bar.set_position(last.clients_at_beginning.unwrap_or_default().saturating_sub(last.clients));
                bar.set_message(left(&last));
            }
            None if line(&last) != said => {
                said = line(&last);
                print(said.as_bytes())?;
            }
            None => {}
        }
        thread::sleep(INTERVAL);
        let end = match http::ask::<Progress>("GET", host, PATH, arguments.token.as_deref()) {
            // What answers now was started since.
            Ok(next) if next.uptime_seconds < last.uptime_seconds => Some(ExitCode::SUCCESS),
            Ok(next) if next.state != "draining" => Some(ExitCode::from(OTHERWISE)),
            Ok(next) => {
                (last, tries) = (next, 0);
                None
            }
            Err(_) if http::is_gone(host) => Some(ExitCode::SUCCESS),
            Err(NoAnswer::Now(_)) if tries < TRIES => {
                tries += 1;
                None
            }
            Err(NoAnswer::Now(message) | NoAnswer::Ever(message) | NoAnswer::Not(message)) => {
                return Err(Failure::Message(shown(&format!("the shutdown goes on unseen: {message}"))));
            }
        };
        let Some(code) = end else { continue };
        if let Some(bar) = &bar {
            bar.finish_and_clear();
        }
        if code == ExitCode::SUCCESS {
            print(b"the node has ended\n")?;
        } else {
            eprintln!("fanwire: {host}: the shutdown was taken back");
        }
        return Ok(code);
    }
}

fn line(progress: &Progress) -> String {
    let of = progress.clients_at_beginning.unwrap_or(progress.clients);
    format!("shutting down: {} of {of} clients left, {}\n", progress.clients, left(progress))
}

fn left(progress: &Progress) -> String {
    format!("{} s to go", progress.seconds_left.unwrap_or_default().ceil())
}

/// By clients, where somebody is watching.
fn progress_bar(progress: &Progress) -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        // A template that does not parse leaves the default style: nothing to fail for.
        let style = ProgressStyle::with_template("{bar:40} {pos} of {len} clients let go, {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(progress.clients_at_beginning.unwrap_or_default()).with_style(style)
    })
}
