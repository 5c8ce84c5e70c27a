//! What healthy clients notice while others misbehave: `make isolation`, which is
//! `cargo bench --bench isolation -- --secs 10`.
//!
//! 1,000 healthy subscribers (WebSocket, path streams, event streams) get events at a fixed rate: first in calm,
//! then while one of the attacks of `benches/attack/` goes on, then while the node recovers from it. Every delivery
//! is checked, latency runs from the time at which an event was meant to be sent. The node is a process of its own
//! on a processor of its own; generator and attacker share the other one, where the attacker yields. What a machine
//! makes of the times by itself once both are busy is measured too (`busy`: an attacker that only counts), and every
//! attack's p99 is printed in that as well; verdicts are of calm.
//!
//! Exits with 1 where healthy clients lose, get twice or out of order, or are closed; where their p99 is above 1.5
//! times that of calm or more than 20 ms above it; where one of them waits 250 ms; where the node keeps anything
//! afterwards. Times, memory and idle processor time are the medians of the rounds, everything else counts in each.
//!
//! Without `--secs` it is a smoke test: everything small, for a second, and times and memory have no verdict.

mod attack;

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attack::{Attack, Control, Done, Scale, Target};
use clap::Parser;
use fanwire::cli::load::node::Setup;
use fanwire::cli::load::{Dialect, Load, Node, Tally, Window};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

/// What healthy clients notice while others misbehave.
#[derive(Parser)]
struct Options {
    /// Seconds of calm; the attack takes twice as long at least, the recovery as long again. Without it everything
    /// is small and nothing is timed.
    #[arg(long)]
    secs: Option<f64>,
    /// Rounds, of each of which every attack is a part.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these attacks: calm, busy, stopped, herd, storm, malformed, topics.
    #[arg(long, value_delimiter = ',', value_parser = |name: &str| Attack::by_name(name).ok_or("there is no such attack"))]
    only: Vec<Attack>,
    /// Healthy subscribers.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Topics that they are spread over.
    #[arg(long, default_value_t = 1)]
    topics: usize,
    /// Events a second.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Events a second that are published to the herd meanwhile [default: 1000]
    #[arg(long)]
    herd_rate: Option<f64>,
    /// Shards of the node.
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Leave it to the system which processor does what.
    #[arg(long)]
    unpinned: bool,
    /// What the attacks' choices come from [default: at random].
    #[arg(long)]
    seed: Option<u64>,
    /// Write everything that was measured to this file, as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Be the attacker: of this node, until standard input ends.
    #[arg(long, hide = true, value_parser = |name: &str| Attack::by_name(name).ok_or("there is no such attack"))]
    attack: Option<Attack>,
    #[arg(long, hide = true, requires = "attack")]
    http: Option<SocketAddr>,
    #[arg(long, hide = true, requires = "attack")]
    publish: Option<SocketAddr>,
    /// Do so for a smoke test.
    #[arg(long, hide = true, requires = "attack")]
    small: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of benches: where some are given, this one runs only if it is among them.
    #[arg(hide = true)]
    names: Vec<String>,
}

/// The healthy p99 under attack, in those of calm, and above that of calm.
const RATIO: f64 = 1.5;
const ABOVE: Duration = Duration::from_millis(20);
/// The longest that a healthy subscriber is without a delivery.
const STALL: Duration = Duration::from_millis(250);
/// Resident memory after the attack, in that of before.
const RESIDENT: f64 = 1.1;
/// Processor time of a node with nothing to do, as a part of one processor.
const IDLE: f64 = 0.01;

/// What the healthy subscribers' first topic is called.
const TOPIC: &str = "topic-0000";

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.names.is_empty() && !options.names.iter().any(|name| "isolation".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    let outcome = match options.attack {
        Some(attack) => be_the_attacker(attack, &options).map(|()| true),
        None => measure_all(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("\nA promise was missed. Was everything else quiet? See docs/benchmarks.md.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("isolation: {error}");
            ExitCode::FAILURE
        }
    }
}

// The attacker's process --------------------------------------------------------------------------------------------

fn be_the_attacker(attack: Attack, options: &Options) -> io::Result<()> {
    let (Some(http), Some(publish)) = (options.http, options.publish) else {
        return Err(io::Error::other("--attack needs --http and --publish"));
    };
    // On the processor that it shares with the generator it takes what is left, or it would only slow our clock.
    rustix::process::setpriority_process(None, 19)?;
    let target = Target { http, publish, topic: TOPIC.to_owned() };
    let control = Control::default();
    let is_over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            // It ends with whoever started it.
            drop(io::stdin().read_to_end(&mut Vec::new()));
            control.stop();
        });
        scope.spawn(|| {
            let mut told = 0;
            while !is_over.load(Ordering::Acquire) {
                while told < control.passes() {
                    println!("pass");
                    told += 1;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let done = attack.run(&target, &scale(options), options.seed.unwrap_or_default(), &control);
        is_over.store(true, Ordering::Release);
        done
    })?;
    let Done { counts, complaints, complained } = done;
    println!("done {}", json!({"counts": counts, "complaints": complaints, "complained": complained}));
    Ok(())
}

fn scale(options: &Options) -> Scale {
    let scale = if is_quick(options) { Scale::small() } else { Scale::full() };
    Scale { herd_rate: options.herd_rate.unwrap_or(scale.herd_rate), ..scale }
}

fn is_quick(options: &Options) -> bool {
    options.small || (options.secs.is_none() && options.attack.is_none())
}

/// The attacker, as seen from here. Killed when dropped.
struct Attacker {
    child: Child,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    control: Control,
    is_over: AtomicBool,
    done: Mutex<Option<Value>>,
}

impl Attacker {
    fn start(attack: Attack, node: &Node, options: &Options, seed: u64) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--attack", attack.name(), "--seed", &seed.to_string()]);
        command.args(["--http", &node.http.to_string(), "--publish", &node.publish.to_string()]);
        if is_quick(options) {
            command.arg("--small");
        }
        if let Some(rate) = options.herd_rate {
            command.args(["--herd-rate", &rate.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let told = Arc::new(Told::default());
        let (lines, heard) = (child.stdout.take(), Arc::clone(&told));
        std::thread::spawn(move || {
            for line in lines.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
                match line.strip_prefix("done ") {
                    Some(done) => {
                        *heard.done.lock().expect("nobody panics with it") = serde_json::from_str(done).ok();
                    }
                    None => heard.control.pass(),
                }
            }
            heard.is_over.store(true, Ordering::Release);
        });
        Ok(Self { child, told })
    }

    fn has_passed(&self) -> bool {
        self.told.control.passes() > 0 || self.is_over()
    }

    fn stop(&mut self) {
        self.child.stdin = None;
    }

    fn is_over(&self) -> bool {
        self.told.is_over.load(Ordering::Acquire)
    }

    fn done(&self) -> io::Result<Done> {
        let done = self.told.done.lock().expect("nobody panics with it").take();
        let done = done.ok_or_else(|| io::Error::other("the attacker failed: see above"))?;
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect()
        };
        let counts = done["counts"].as_array().into_iter().flatten();
        let counts = counts.filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_u64()?)));
        Ok(Done {
            counts: counts.collect(),
            complaints: texts(&done["complaints"]),
            complained: done["complained"].as_u64().unwrap_or_default(),
        })
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// Measuring ---------------------------------------------------------------------------------------------------------

/// One attack in one round.
struct Run {
    attack: Attack,
    calm: Window,
    attacked: Window,
    recovered: Window,
    /// Of calm, and of attack and recovery together.
    tallies: [Tally; 2],
    resident_before: u64,
    resident_peak: u64,
    resident_after: u64,
    /// How long after the recovery the node held what it held before, or what it holds besides.
    back: Result<Duration, String>,
    idle: f64,
    log_lines: usize,
    is_alive: bool,
    done: Done,
}

/// The processors: one for the node, one for generator and attacker.
#[derive(Clone, Copy)]
struct Places(Option<(CpuSet, CpuSet)>);

impl Places {
    fn find(options: &Options) -> io::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut places = (0..CpuSet::MAX_CPU).filter(|place| all.is_set(*place)).map(|place| {
            let mut set = CpuSet::new();
            set.set(place);
            set
        });
        Ok(Self(match (places.next(), places.next()) {
            (Some(node), Some(ours)) if !options.unpinned => Some((node, ours)),
            _ => None,
        }))
    }

    /// Starts a node in its place. What is started from here inherits where we are.
    fn start(self, setup: &Setup) -> io::Result<Node> {
        let Some((node, ours)) = self.0 else { return Node::start(setup) };
        sched_setaffinity(None, &node)?;
        let started = Node::start(setup);
        sched_setaffinity(None, &ours)?;
        started
    }
}

fn measure_all(options: &Options) -> io::Result<bool> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let places = Places::find(options)?;
    // Node and generator go before everything else that runs, the attackers too. Not everybody may ask for that.
    if rustix::process::setpriority_process(None, -20).is_err() {
        println!(
            "\nNot allowed to raise the priority: what else runs on this machine is in the times below."
        );
    }
    let attacks = if options.only.is_empty() { Attack::MEASURED.to_vec() } else { options.only.clone() };
    let rounds = if is_quick(options) { 1 } else { options.rounds };
    let where_ = if places.0.is_some() { "node and the rest on a processor each" } else { "unpinned" };
    let Options { rate, topics, shards, .. } = options;
    let subscribers = subscribers(options);
    println!(
        "\n{subscribers} healthy subscribers over {topics} topics, {rate} events/s ({} deliveries/s), \
         shards: {shards}, {where_}; seed {seed}\n",
        rate * (subscribers / topics) as f64
    );
    let mut runs = Vec::new();
    for round in 0..rounds {
        for attack in &attacks {
            let run = measure(*attack, options, places, seed.wrapping_add(round as u64))?;
            eprintln!(
                "round {}, {}: p99 {:.2?} → {:.2?}; {}",
                round + 1,
                attack.name(),
                run.calm.latency(0.99),
                run.attacked.latency(0.99),
                run.done.describe()
            );
            runs.push(run);
        }
    }
    let is_timed = !is_quick(options);
    let rows: Vec<Row<'_>> = attacks.iter().map(|attack| Row::of(*attack, &runs)).collect();
    print_healthy(&rows);
    print_node(&rows);
    print_attacks(&rows);
    let missed: Vec<String> = rows.iter().flat_map(|row| row.missed(is_timed)).collect();
    println!();
    for miss in &missed {
        println!("MISS {miss}");
    }
    if missed.is_empty() {
        println!(
            "PASS {}",
            if is_timed { "everything" } else { "everything but times and memory, which have no verdict" }
        );
    }
    if let Some(file) = &options.json {
        let text = json!({
            "seed": seed, "subscribers": subscribers, "topics": topics, "rate": rate, "shards": shards,
            "pinned": places.0.is_some(), "missed": missed,
            "attacks": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        });
        fs::write(file, serde_json::to_string_pretty(&text)? + "\n")?;
    }
    Ok(missed.is_empty())
}

fn subscribers(options: &Options) -> usize {
    if is_quick(options) { options.subscribers / 10 } else { options.subscribers }
}

fn measure(attack: Attack, options: &Options, places: Places, seed: u64) -> io::Result<Run> {
    let calm_time = Duration::from_secs_f64(options.secs.unwrap_or(1.0));
    let scale = scale(options);
    let flags = ["--max-clients", "100000", "--shards", &options.shards.to_string(), "--max-subscriptions"];
    let mut flags: Vec<String> = flags.map(str::to_owned).to_vec();
    flags.push(scale.topics.max(1000).to_string());
    let setup = Setup {
        flags,
        settings: attack::settings(),
        keeps_log: true,
        ..Setup::from_environment(env!("CARGO_BIN_EXE_fanwire"))
    };
    if !is_quick(options) {
        wait_for_the_kernel()?;
    }
    let mut node = places.start(&setup)?;
    let target = Target { http: node.http, publish: node.publish_tcp()?, topic: TOPIC.to_owned() };
    attack.prepare(&target, &scale)?;
    let ways = [Dialect::Json, Dialect::Path, Dialect::Json, Dialect::Sse];
    let mut load = Load::connect_by(&node, subscribers(options), options.topics, &ways)?;
    load.publish(options.rate);
    load.observe(&node, calm_time.min(Duration::from_secs(2)), || true)?;
    let calm = load.observe(&node, calm_time, || true)?;
    let calm_tally = load.pause()?;
    let before = node.settled()?;
    let resident_before = node.resident();
    node.forget_peak();

    load.publish(options.rate);
    let mut attacker = Attacker::start(attack, &node, options, seed)?;
    let mut patience = 0;
    let attacked = load.observe(&node, 2 * calm_time, || {
        // It is asked every 50 ms: a pass that takes minutes will not end.
        patience += 1;
        attacker.has_passed() || patience > 20 * 120
    })?;
    attacker.stop();
    let recovered = load.observe(&node, calm_time, || attacker.is_over())?;
    let tally = load.pause()?;
    let back = node.wait_standing(&before, Duration::from_secs(20))?;
    let idle_from = node.cpu();
    // In which it also gives back what it does not need any more.
    let idle_time = Duration::from_secs(3).min(calm_time);
    std::thread::sleep(idle_time);
    let idle = (node.cpu().saturating_sub(idle_from)).as_secs_f64() / idle_time.as_secs_f64();
    let resident_after = node.resident();
    Ok(Run {
        attack,
        calm,
        attacked,
        recovered,
        tallies: [calm_tally, tally],
        resident_before,
        resident_peak: node.peak(),
        resident_after,
        back,
        idle,
        log_lines: node.log().lines().count(),
        is_alive: node.is_alive(),
        done: attacker.done()?,
    })
}

/// Waits until the kernel has forgotten the connections of what ran before, which it does after a minute and in heaps:
/// some ten thousand of them at once hold up both processors for tens of milliseconds.
fn wait_for_the_kernel() -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        let mut words = sockets.split_whitespace().skip_while(|word| *word != "tw");
        let waiting: u64 = words.nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
        if waiting < 1_000 || Instant::now() > deadline {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

// Reporting ---------------------------------------------------------------------------------------------------------

/// All rounds of one attack.
struct Row<'a> {
    attack: Attack,
    runs: Vec<&'a Run>,
    /// Those in which nobody attacked, on a machine as busy.
    busy: Vec<&'a Run>,
}

/// The middle one of a figure's values in these runs.
fn median<T: PartialOrd + Copy>(runs: &[&Run], figure: impl Fn(&Run) -> T) -> T {
    let mut all: Vec<T> = runs.iter().map(|run| figure(run)).collect();
    all.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    all[all.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

impl<'a> Row<'a> {
    fn of(attack: Attack, runs: &'a [Run]) -> Self {
        let of = |attack| runs.iter().filter(|run| run.attack == attack).collect();
        Self { attack, runs: of(attack), busy: of(Attack::Busy) }
    }

    /// The middle one of a figure's values in all rounds.
    fn median<T: PartialOrd + Copy>(&self, figure: impl Fn(&Run) -> T) -> T {
        median(&self.runs, figure)
    }

    fn ratio(&self) -> f64 {
        self.median(|run| {
            run.attacked.latency(0.99).as_secs_f64() / run.calm.latency(0.99).as_secs_f64().max(1e-6)
        })
    }

    /// The p99 in that of a busy machine, where that was measured.
    fn of_busy(&self) -> Option<f64> {
        let p99 = |run: &Run| run.attacked.latency(0.99).as_secs_f64();
        (!self.busy.is_empty()).then(|| self.median(p99) / median(&self.busy, p99).max(1e-6))
    }

    fn resident_ratio(&self) -> f64 {
        self.median(|run| run.resident_after as f64 / run.resident_before.max(1) as f64)
    }

    fn sum(&self, count: impl Fn(&Tally) -> u64) -> u64 {
        self.runs.iter().flat_map(|run| &run.tallies).map(count).sum()
    }

    fn left_behind(&self) -> Vec<&str> {
        self.runs.iter().filter_map(|run| run.back.as_ref().err().map(String::as_str)).collect()
    }

    /// Which promises were missed, each in a sentence.
    fn missed(&self, is_timed: bool) -> Vec<String> {
        let name = self.attack.name();
        let mut missed = Vec::new();
        let mut hold = |is_kept: bool, what: String| {
            if !is_kept {
                missed.push(format!("{name}: {what}"));
            }
        };
        let above = self.median(|run| run.attacked.latency(0.99).saturating_sub(run.calm.latency(0.99)));
        let stall = self.median(|run| run.attacked.stall.max(run.recovered.stall));
        if is_timed {
            // What comes of a busy machine alone is not the node's.
            let is_ours = |is_kept: bool| is_kept || self.attack == Attack::Busy;
            let ratio = self.ratio();
            hold(is_ours(ratio <= RATIO), format!("the healthy p99 is {ratio:.2} of that of calm"));
            hold(is_ours(above <= ABOVE), format!("the healthy p99 is {} ms above that of calm", ms(above)));
            hold(is_ours(stall <= STALL), format!("a healthy subscriber waited {} ms", ms(stall)));
            let resident = self.resident_ratio();
            hold(resident <= RESIDENT, format!("resident memory is {resident:.2} of that of before"));
            let idle = self.median(|run| run.idle);
            hold(
                idle <= IDLE,
                format!("with nothing to do the node takes {:.2} % of a processor", idle * 100.0),
            );
        }
        for run in &self.runs {
            hold(run.is_alive, "the node is gone".to_owned());
            let is_clean = run.tallies.iter().all(Tally::is_clean);
            hold(is_clean, format!("healthy subscribers were harmed: {:?}", run.tallies));
            hold(run.back.is_ok(), format!("it holds something besides: {:?}", run.back));
            let Done { complaints, complained, .. } = &run.done;
            hold(
                *complained == 0,
                format!("{complained} attackers were not dealt with as promised: {complaints:#?}"),
            );
        }
        missed
    }

    fn to_json(&self) -> Value {
        let us = |time: Duration| time.as_micros() as u64;
        let window = |window: &Window| {
            json!({
                "seconds": window.took.as_secs_f64(), "published": window.published,
                "deliveries": window.deliveries, "p50Us": us(window.latency(0.5)),
                "p99Us": us(window.latency(0.99)), "p999Us": us(window.latency(0.999)),
                "maxUs": us(window.latency(1.0)), "stallUs": us(window.stall),
                "generatorLateUs": us(window.lateness), "nodeCpuMs": window.server_cpu.as_millis() as u64,
            })
        };
        let tally = |tally: &Tally| {
            json!({
                "expected": tally.expected, "missing": tally.missing, "repeated": tally.repeated,
                "reordered": tally.reordered, "strange": tally.strange, "closed": tally.closed,
            })
        };
        let run = |run: &&Run| {
            json!({
                "calm": window(&run.calm), "attacked": window(&run.attacked), "recovered": window(&run.recovered),
                "tallies": run.tallies.iter().map(tally).collect::<Vec<_>>(),
                "residentBefore": run.resident_before, "residentPeak": run.resident_peak,
                "residentAfter": run.resident_after, "leftBehind": run.back.as_ref().err(),
                "idleCpu": run.idle, "logLines": run.log_lines, "alive": run.is_alive,
                "attack": run.done.counts, "complaints": run.done.complaints,
            })
        };
        json!({
            "name": self.attack.name(), "p99Ratio": self.ratio(), "p99OfBusy": self.of_busy(),
            "residentRatio": self.resident_ratio(),
            "rounds": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }
}

fn print_healthy(rows: &[Row<'_>]) {
    println!("\nHealthy subscribers, times in ms, calm → attack\n");
    println!(
        "{:<10} {:>15} {:>17} {:>6} {:>7} {:>17} {:>9} {:>5} {:>6} {:>9} {:>7}",
        "attack",
        "p50",
        "p99",
        "ratio",
        "of busy",
        "longest stall",
        "recovery",
        "lost",
        "again",
        "reordered",
        "closed"
    );
    for row in rows {
        let pair = |figure: &dyn Fn(&Window) -> Duration| {
            let (calm, attacked) =
                (row.median(|run| figure(&run.calm)), row.median(|run| figure(&run.attacked)));
            format!("{} → {}", ms(calm), ms(attacked))
        };
        println!(
            "{:<10} {:>15} {:>17} {:>6.2} {:>7} {:>17} {:>9} {:>5} {:>6} {:>9} {:>7}",
            row.attack.name(),
            pair(&|window| window.latency(0.5)),
            pair(&|window| window.latency(0.99)),
            row.ratio(),
            row.of_busy().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            pair(&|window| window.stall),
            ms(row.median(|run| run.recovered.latency(0.99))),
            row.sum(|tally| tally.missing),
            row.sum(|tally| tally.repeated),
            row.sum(|tally| tally.reordered + tally.strange),
            row.sum(|tally| tally.closed),
        );
    }
}

fn print_node(rows: &[Row<'_>]) {
    println!("\nThe node, resident memory in MB, calm → peak → after\n");
    println!(
        "{:<10} {:>22} {:>6} {:>12} {:>10} {:>9} {:>11} {:>6}  left behind",
        "attack", "resident", "ratio", "processor", "idle after", "back in", "late by", "log"
    );
    for row in rows {
        let [before, peak, after] = [
            row.median(|run| run.resident_before),
            row.median(|run| run.resident_peak),
            row.median(|run| run.resident_after),
        ];
        let busy = |window: &Window| window.server_cpu.as_secs_f64() / window.took.as_secs_f64() * 100.0;
        let [calm, attacked] = [row.median(|run| busy(&run.calm)), row.median(|run| busy(&run.attacked))];
        let left = row.left_behind();
        println!(
            "{:<10} {:>22} {:>6.2} {:>12} {:>10} {:>9} {:>11} {:>6}  {}",
            row.attack.name(),
            format!("{} → {} → {}", mb(before), mb(peak), mb(after)),
            row.resident_ratio(),
            format!("{calm:.0} → {attacked:.0} %"),
            format!("{:.2} %", row.median(|run| run.idle) * 100.0),
            ms(row.median(|run| run.back.clone().unwrap_or(Duration::MAX))),
            ms(row.median(|run| run.attacked.lateness)),
            row.median(|run| run.log_lines),
            if left.is_empty() { "nothing".to_owned() } else { left.join("; ") },
        );
    }
}

fn print_attacks(rows: &[Row<'_>]) {
    println!("\nWhat was done to it, in all rounds\n");
    for row in rows {
        let mut counts: Vec<(&str, u64)> = Vec::new();
        for (what, count) in row.runs.iter().flat_map(|run| &run.done.counts) {
            match counts.iter_mut().find(|(other, _)| other == what) {
                Some((_, sum)) => *sum += count,
                None => counts.push((what, *count)),
            }
        }
        let counts = counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>();
        let counts = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
        println!("{:<10} {counts}", row.attack.name());
    }
}
