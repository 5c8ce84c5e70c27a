//! The server that is measured: a node of its own, a command, or one that runs already.

use std::io;
use std::net::SocketAddr;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::watch::Watch;
use super::{Arguments, Options, Variant};
use crate::cli::load::node::Setup;
use crate::cli::load::server::Server;
use crate::cli::load::{Address, Dialect, Node, Peer, Process, STREAM};

/// What was started here, and ends with the run.
enum Child {
    Node(Node),
    Server(Server),
    /// Nothing: it runs already, and this is its number, if that is known.
    None(Option<u32>),
}

pub(super) struct Target {
    child: Child,
    pub(super) to: SocketAddr,
    pub(super) publish: Address,
    pub(super) version: Option<String>,
    /// Topics have a name of their own in each run: what is left of the last one reaches nobody.
    prefix: String,
    runs: usize,
}

impl Target {
    /// Starts what is to be started, each side on its processors.
    pub(super) fn start(
        arguments: &Arguments,
        options: &Options,
        addresses: Option<&(SocketAddr, Address)>,
        variant: &Variant,
        watch: &Watch,
    ) -> io::Result<Self> {
        watch.check()?;
        let before = sched_getaffinity(None)?;
        // What is started from here inherits where we are.
        pin(&arguments.server_cpu)?;
        let child = match (addresses, &arguments.server) {
            (None, _) => Child::Node(Node::start(&setup(arguments, options, variant)?)?),
            (Some(_), Some(command)) => Child::Server(Server::start(command)?),
            (Some(_), None) => Child::None(arguments.pid),
        };
        sched_setaffinity(None, &before)?;
        pin(&arguments.generator_cpu)?;
        let mut version = arguments.peer_version.clone();
        let (to, publish) = match (&child, addresses) {
            (Child::Node(node), _) => {
                version = version.or_else(|| Some(env!("CARGO_PKG_VERSION").to_owned()));
                (node.http, node.publish.clone())
            }
            (_, Some(addresses)) => addresses.clone(),
            // There are addresses wherever it is not a node.
            (_, None) => return Err(io::Error::other("no server")),
        };
        let prefix = format!("bench_{}", std::process::id());
        let mut target = Self { child, to, publish, version, prefix, runs: 0 };
        if let Child::Server(server) = &mut target.child {
            server.wait_listening(&[Address::Tcp(to), target.publish.clone()], || watch.is_stopped())?;
        }
        Ok(target)
    }

    /// The process that is measured, as it is now.
    pub(super) fn process(&self) -> Process {
        match &self.child {
            Child::Node(node) => Process::clone(node),
            Child::Server(server) => server.process(),
            Child::None(pid) => pid.map_or_else(Process::unknown, Process::tree),
        }
    }

    /// What topics of the next run are called, but for their numbers.
    pub(super) fn next_prefix(&mut self) -> String {
        self.runs += 1;
        format!("{}_{}_", self.prefix, self.runs)
    }

    /// The last lines of its log, where it is kept.
    pub(super) fn last_words(&self) -> Option<String> {
        let Child::Node(node) = &self.child else { return None };
        let log = node.log();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        (!lines.is_empty()).then(|| lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

/// How its own node is started: room for everybody, the path that a dialect needs, and what was asked for.
fn setup(arguments: &Arguments, options: &Options, variant: &Variant) -> io::Result<Setup> {
    let clients = variant.subscribers + options.storm + options.slow + 1000;
    let mut flags = vec!["--max-clients".to_owned(), clients.to_string()];
    if let Some(budget) = variant.latency_budget {
        flags.extend(["--latency-budget".to_owned(), format!("{}ms", budget.as_millis())]);
    }
    flags.extend(arguments.serve.iter().cloned());
    let is_path = options.peer == Peer::Fanwire(Dialect::Path);
    Ok(Setup {
        program: std::env::current_exe()?,
        flags,
        settings: if is_path { STREAM.to_owned() } else { String::new() },
        keeps_log: true,
        is_unix: true,
        ..Setup::default()
    })
}

/// Puts this thread, and what it starts from now on, on these processors; none: where it is.
fn pin(processors: &[usize]) -> io::Result<()> {
    if processors.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for processor in processors {
        if *processor >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no processor {processor}")));
        }
        set.set(*processor);
    }
    sched_setaffinity(None, &set).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("processor {processors:?} cannot be had: {error}"))
    })
}
