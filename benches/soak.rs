//! Minutes of everything at once: `make soak`, which is `cargo bench --bench soak -- --minutes 10`.
//!
//! All attacks of `benches/attack/` go on together, in threads of one process: connections that end at any point,
//! topics that come and go with and without history, subscribers that do not read, clients that come back, storms,
//! malformed input. Healthy subscribers look on, and none of them may lose anything or be closed. Each minute is one
//! line: what the node holds, and its resident memory.
//!
//! How it is judged: a warm-up of a tenth of the time (a minute at most) does the same, then everybody goes, and
//! what the node holds with nobody connected is the start. At the end everybody goes again. Open files, topics,
//! subscriptions and bytes of outboxes have to be exactly as at the start, resident memory within 10 % of it.
//!
//! The seed is printed, and taken with `--seed`. Without `--minutes` it is a smoke test: everything small, for
//! seconds, and memory has no verdict.

mod attack;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use attack::{Attack, Control, Done, Scale, Target};
use clap::Parser;
use fanwire::cli::load::node::{Setup, Standing};
use fanwire::cli::load::{Dialect, Load, Node};

/// Minutes of everything at once.
#[derive(Parser)]
struct Options {
    /// How long, after the warm-up. Without it everything is small and takes seconds.
    #[arg(long)]
    minutes: Option<f64>,
    /// Shards of the node [default: what a node chooses].
    #[arg(long)]
    shards: Option<usize>,
    /// What the attacks' choices come from [default: at random].
    #[arg(long)]
    seed: Option<u64>,
    /// Only these attacks: stopped, herd, storm, malformed, topics, churn.
    #[arg(long, value_delimiter = ',', value_parser = |name: &str| Attack::by_name(name).ok_or("there is no such attack"))]
    only: Vec<Attack>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of benches: where some are given, this one runs only if it is among them.
    #[arg(hide = true)]
    names: Vec<String>,
}

/// Resident memory at the end, in that of the start.
const RESIDENT: f64 = 1.1;
/// Healthy subscribers, and events a second for them.
const SUBSCRIBERS: usize = 100;
const RATE: f64 = 100.0;
/// How long the node may take to let go of everything: histories of a few seconds are looked at in turns.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.names.is_empty() && !options.names.iter().any(|name| "soak".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    match soak(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> io::Result<bool> {
    let is_quick = options.minutes.is_none();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let time =
        options.minutes.map_or(Duration::from_secs(2), |minutes| Duration::from_secs_f64(minutes * 60.0));
    let scale = if is_quick { Scale::small() } else { Scale::soak() };
    let attacks = if options.only.is_empty() { Attack::HOSTILE.to_vec() } else { options.only.clone() };
    println!("\n{time:?} of everything at once; --seed {seed}\n");

    let mut flags = vec!["--max-clients".to_owned(), "100000".to_owned()];
    flags.extend(["--max-subscriptions".to_owned(), scale.topics.to_string()]);
    flags.extend(options.shards.into_iter().flat_map(|n| ["--shards".to_owned(), n.to_string()]));
    let settings = attack::soak_settings();
    let mut node = Node::start(&Setup {
        flags,
        settings,
        keeps_log: true,
        ..Setup::from_environment(env!("CARGO_BIN_EXE_fanwire"))
    })?;
    let target = Target { http: node.http, publish: node.publish_tcp()?, topic: "topic-0000".to_owned() };
    for attack in &attacks {
        attack.prepare(&target, &scale)?;
    }
    let empty = node.settled()?;
    print_line(&node, "with nobody", &empty);

    let mut soak = Soak { node: &mut node, target: &target, scale: &scale, attacks: &attacks, empty: &empty };
    let mut missed = soak.run("warm-up", (time / 10).min(Duration::from_secs(60)), seed)?;
    let start = soak.node.resident();
    missed.extend(soak.run("soak", time, seed.wrapping_add(1))?);
    let end = soak.node.resident();

    let ratio = end as f64 / start.max(1) as f64;
    println!("\nresident at the start {}, at the end {}: {ratio:.2}", mb(start), mb(end));
    if ratio > RESIDENT && !is_quick {
        missed.push(format!("resident memory is {ratio:.2} of that of the start"));
    }
    for miss in &missed {
        println!("MISS {miss}");
    }
    if !missed.is_empty() {
        println!("\nThe node's log ends with:");
        let log = node.log();
        log.lines().rev().take(20).for_each(|line| println!("{line}"));
    }
    println!("{}", if missed.is_empty() { "PASS" } else { "FAIL" });
    Ok(missed.is_empty())
}

struct Soak<'a> {
    node: &'a mut Node,
    target: &'a Target,
    scale: &'a Scale,
    attacks: &'a [Attack],
    empty: &'a Standing,
}

impl Soak<'_> {
    /// Everything at once for a time, after which everybody goes. Answers what was not as it should be.
    fn run(&mut self, what: &str, time: Duration, seed: u64) -> io::Result<Vec<String>> {
        let ways = [Dialect::Json, Dialect::Sse, Dialect::Path];
        let mut load = Load::connect_by(self.node, SUBSCRIBERS, 1, &ways)?;
        load.publish(RATE);
        let control = Control::default();
        let done = std::thread::scope(|scope| {
            let attackers = self.attacks.iter().enumerate().map(|(number, attack)| {
                let (target, scale, control) = (self.target, self.scale, &control);
                scope.spawn(move || {
                    // What they take is not to be missing where the time is kept. Of Linux' threads each has its own.
                    rustix::process::nice(19)?;
                    attack.run(target, scale, seed.wrapping_add(number as u64), control)
                })
            });
            let attackers: Vec<_> = attackers.collect();
            let watched = self.watch(what, time, &mut load);
            control.stop();
            let done = attackers
                .into_iter()
                .map(|attacker| attacker.join().map_err(|_| io::Error::other("an attacker panicked"))?);
            let done = done.collect::<io::Result<Vec<Done>>>();
            watched.and(done)
        })?;
        let tally = load.pause()?;
        drop(load);
        let mut missed = Vec::new();
        for (attack, done) in self.attacks.iter().zip(&done) {
            println!("  {:<10} {}", attack.name(), done.describe());
            if done.complained > 0 {
                missed.push(format!(
                    "{what}: {} complaints of {}: {:#?}",
                    done.complained,
                    attack.name(),
                    done.complaints
                ));
            }
        }
        if !tally.is_clean() {
            missed.push(format!("{what}: healthy subscribers were harmed: {tally:?}"));
        }
        if !self.node.is_alive() {
            return Err(io::Error::other(format!("{what}: the node is gone\n{}", self.node.log())));
        }
        match self.node.wait_standing(self.empty, PATIENCE)? {
            Ok(_) => {}
            Err(difference) => missed.push(format!("{what}: with nobody there the node holds {difference}")),
        }
        // In which it gives back what it does not need any more.
        std::thread::sleep(time.min(Duration::from_secs(5)));
        print_line(self.node, "everybody gone", &self.node.standing()?);
        Ok(missed)
    }

    fn watch(&self, what: &str, time: Duration, load: &mut Load) -> io::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            let left = time.saturating_sub(began.elapsed());
            let window = load.observe(self.node, left.min(Duration::from_secs(60)), || true)?;
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            let standing = self.node.standing()?;
            print_line(self.node, &format!("{what}, {minutes:.1} min"), &standing);
            println!(
                "{:<20} healthy p99 {:.2?}, longest stall {:.2?}",
                "",
                window.latency(0.99),
                window.stall
            );
        }
        Ok(())
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn print_line(node: &Node, what: &str, standing: &Standing) {
    let gauges = standing
        .gauges
        .iter()
        .map(|(name, value)| format!("{} {value}", name.trim_start_matches("fanwire_").replace('_', " ")));
    let gauges = gauges.collect::<Vec<_>>().join(", ");
    println!("{what:<20} resident {}, {} files, {gauges}", mb(node.resident()), standing.fds);
}
