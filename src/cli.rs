//! The command line: what each command takes, and what its help teaches.

#[cfg(target_os = "linux")]
mod bench;
mod drain;
mod flags;
mod generate;
mod http;
#[cfg(target_os = "linux")]
pub mod load;
mod log;
mod publish;
mod serve;
mod subscribe;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::ConfigError;
use crate::prepare::prepare;
use flags::Flags;

#[derive(Parser)]
#[command(
    name = "fanwire",
    version,
    about = "One event in, many subscribers out, and no loss is ever silent",
    long_about = "Fanwire takes events from publishers and fans them out to WebSocket subscribers.\n\n\
        A publisher hands an event (topics, a name, JSON data) to the node's publish socket or to POST \
        /api/publish; every client subscribed to one of the topics gets it once. A client that cannot keep \
        up is closed or told what it missed, as it asked for.",
    after_help = "Examples:\n  \
        fanwire serve                                     a node, with a page at http://127.0.0.1:8080/\n  \
        fanwire sub deploys                               print the events of a topic\n  \
        fanwire pub deploys finished '{\"version\":\"1.4\"}'  publish one\n\n\
        `fanwire COMMAND --help` tells more about each.",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node
    #[command(
        long_about = "Runs a node until SIGTERM or SIGINT, which let its clients go one after the other over \
            drain_spread; SIGUSR1 takes that back, a second signal ends the node at once. SIGHUP reads the settings \
            again: limits, timeouts and the log level take effect at once.\n\n\
            Each setting is a flag, an environment variable and a key of the file: --max-clients, \
            FANWIRE_MAX_CLIENTS and max_clients. Flags go before the environment, the environment before \
            the file. Tables, [[stream]], [[guard]] and [[topic]], stand only in the file. SIZE is 65536 or \
            64KiB, 1MiB, 8MB; TIME is 500ms, 30s, 2m, 1h.",
        after_help = "Examples:\n  \
            fanwire serve\n  \
            fanwire serve --config /etc/fanwire.toml --publish unix:/run/fanwire.sock\n  \
            fanwire serve --max-clients 50000 --queue-events 500 --log-level debug\n  \
            FANWIRE_OPERATOR_TOKEN=… fanwire serve --listen 0.0.0.0:8080"
    )]
    Serve(Flags),
    /// Publish events
    #[command(
        name = "pub",
        long_about = "Publishes an event and waits until the node has accepted it. Without TOPIC, reads \
            events from standard input, one JSON object a line: {\"topic\":…} or {\"topics\":[…]}, \
            \"event\", and if wanted \"data\", \"key\" and \"timestamp\". DATA is passed on byte for byte. \
            Ends with 1 if anything was refused. With --receipt it also waits until the node has flushed each event \
            to all of its clients, and tells how many those were: written (their kernel has it), queued, left out by \
            their policy, or closed as too slow.",
        after_help = "Examples:\n  \
            fanwire pub deploys finished '{\"version\":\"1.4\"}'\n  \
            fanwire pub run:42 step-log '\"hello\"' --topic project:7 --key step-3\n  \
            fanwire pub run:42 step-log '\"hello\"' --receipt\n  \
            fanwire pub --to unix:/run/fanwire.sock < events.ndjson\n  \
            fanwire pub --name import-7 < events.ndjson        may be run again where it broke off\n  \
            echo '{\"topic\":\"a\",\"event\":\"b\",\"data\":1}' | fanwire pub"
    )]
    Publish(publish::Arguments),
    /// Subscribe to topics and print their events
    #[command(
        name = "sub",
        long_about = "Subscribes over WebSocket and prints one line for each event: time, topic, name, \
            data. What a full queue left out, and why the connection ended, is told on standard error; the \
            end is 1 unless --count was reached.",
        after_help = "Examples:\n  \
            fanwire sub deploys\n  \
            fanwire sub run:42 run:43 --events step-log --events run-failed\n  \
            fanwire sub deploys --json --count 1 | jq .data\n  \
            fanwire sub metrics --policy drop-oldest --to http://10.0.0.5:8080"
    )]
    Subscribe(subscribe::Arguments),
    /// Show a node at work, and which of its clients are slow
    #[command(
        long_about = "Shows a node's figures and the clients that are furthest behind, again and again, until \
            Ctrl-C. Where standard output is no terminal, it prints a table for each interval. A node that is \
            away is asked again; docs/operations.md tells how to read each figure.",
        after_help = "Examples:\n  \
            fanwire top\n  \
            fanwire top --to http://10.0.0.5:9090 --interval 5s\n  \
            FANWIRE_OPERATOR_TOKEN=… fanwire top --count 1\n  \
            fanwire top --interval 1m --limit 5 >> slow.log"
    )]
    Top(top::Arguments),
    /// Shut a node down without a herd, or take that back
    #[command(
        long_about = "Shuts a node down as SIGTERM does: it says that it is not ready, lets its clients go one \
            after the other over drain_spread, then stops reading publishers, delivers what it accepted, and ends. \
            The command follows that until the node is gone; ended before, by Ctrl-C, it leaves the node to go on. \
            Until the last client was let go, --undo or SIGUSR1 takes it back: who is connected stays, and others \
            may come.\n\n\
            Ends with 0 where the node is gone, has begun (--no-wait) or goes on serving (--undo); with 1 where it \
            cannot be asked; with 3 where the shutdown was taken back meanwhile, or --undo comes too late or \
            finds none.",
        after_help = "Examples:\n  \
            fanwire drain\n  \
            fanwire drain --undo\n  \
            FANWIRE_OPERATOR_TOKEN=… fanwire drain --to http://10.0.0.5:9090 --no-wait"
    )]
    Drain(drain::Arguments),
    /// Load a node, or another server, and measure it
    #[cfg(target_os = "linux")]
    #[command(
        long_about = "Loads a server as its subscribers and publisher would, and tells what they saw. Events have a time \
            at which they are meant to be sent (open loop): latency runs from there to the subscriber's read, and who falls \
            behind is not forgiven. Every delivery is checked for its number. Without --to, a node of its own is \
            started and ended; flags of that node may follow after --. docs/bench.md tells what each figure is.\n\n\
            Ends with 0 where everything came once and in order, with 3 where something was lost, repeated, \
            reordered or closed, with 1 where it could not be measured.",
        after_help = "Examples:\n  \
            fanwire bench                                     what there is, and a short run\n  \
            fanwire bench fanout --subscribers 1000 --rate 10000\n  \
            fanwire bench fanout --subscribers 10,100,1000 --plot plots\n  \
            fanwire bench capacity --topics 100 --server-cpu 0 --generator-cpu 1\n  \
            fanwire bench idle --json - | jq .server\n  \
            fanwire bench fanout -- --latency-budget 5ms\n  \
            fanwire bench fanout --to 127.0.0.1:8080 --publish 127.0.0.1:8081 --pid \"$(pidof fanwire)\"\n  \
            fanwire bench fanout --peer ws --to 127.0.0.1:9001 --server 'node server.cjs 9001'"
    )]
    Bench(Box<bench::Arguments>),
    /// Check settings and show them with where each came from
    #[command(
        long_about = "Reads the settings as `serve` would, with the same flags, and prints them as TOML, \
            each with where it came from, and what the catalogs hold. What is wrong is told as FILE:LINE: \
            message, and the end is 1.",
        after_help = "Examples:\n  \
            fanwire check --config /etc/fanwire.toml\n  \
            fanwire check --catalog ./events.toml\n  \
            FANWIRE_MAX_CLIENTS=500 fanwire check"
    )]
    Check(Flags),
    /// Make types, publish helpers and a reference page from catalogs of events
    #[command(
        long_about = "Makes code and documentation from catalogs: for each event the type of its data, a test \
            whether an event is that one, and a function that publishes it. Without --catalog, from the four \
            catalogs that come with the node.",
        after_help = "Examples:\n  \
            fanwire generate typescript --catalog runs > runs.ts\n  \
            fanwire generate typescript --catalog shop.toml --out src/catalogs\n  \
            fanwire generate python --out clients/python/fanwire_catalogs\n  \
            fanwire generate reference --out docs"
    )]
    Generate(generate::Arguments),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  \
        fanwire completions bash > ~/.local/share/bash-completion/completions/fanwire\n  \
        fanwire completions zsh > ~/.zfunc/_fanwire\n  \
        fanwire completions fish > ~/.config/fish/completions/fanwire.fish")]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
    /// Print the manual page of fanwire, or of one of its commands
    #[command(after_help = "Examples:\n  fanwire man | man -l -\n  fanwire man serve > fanwire-serve.1")]
    Man {
        /// A command, such as serve
        command: Option<String>,
    },
}

/// Why a command failed.
enum Failure {
    /// One line for people.
    Message(String),
    /// One line for each problem, beginning with its place so that editors find it.
    Config(ConfigError),
    /// Whoever read standard output wants no more: no reason to complain.
    ClosedPipe,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Message(message)
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(flags) => serve::run(flags),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Subscribe(arguments) => subscribe::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Check(flags) => check(flags),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Completions { shell } => completions(shell),
        Command::Man { command } => man(command.as_deref()),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            eprintln!("fanwire: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Config(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes all of it to standard output now.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::Message(format!("standard output: {error}")),
    })
}

fn check(flags: Flags) -> Outcome {
    let loaded = flags.into_sources().load()?;
    let prepared = prepare(&loaded.settings)?;
    let mut shown = loaded.to_toml();
    for catalog in &prepared.catalogs {
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let categories = count(catalog.categories.len(), "category", "categories");
        let events = count(catalog.events.len(), "event", "events");
        shown += &format!("# catalog {}: {categories}, {events}\n", catalog.name);
    }
    print(shown.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: Shell) -> Outcome {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fanwire", &mut out);
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn man(name: Option<&str>) -> Outcome {
    let mut root = Cli::command();
    root.build();
    let command = match name {
        None => root,
        Some(name) => {
            let names =
                root.get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>();
            let found = root.find_subcommand(name).cloned();
            found.ok_or_else(|| format!("no command `{name}`; there are {}", names.join(", ")))?
        }
    };
    let mut out = Vec::new();
    clap_mangen::Man::new(command).render(&mut out).map_err(|error| error.to_string())?;
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains("Examples:\n  "), "{}", command.get_name());
        }
    }
}
