//! Holds what the node promises, all at once: `cargo bench --bench targets`.
//!
//! 1,000 connected subscribers over 100 topics, 10,000 events a second for 10 seconds, everything delivered, 99 of
//! 100 deliveries within 10 ms of the publish, and no connection that took 100 ms to set up. Beside it, without a
//! verdict, the same events to all 1,000 subscribers on one topic: 10 million deliveries a second.
//!
//! Exits with 1 when a promise is missed. `--quick` is a smoke test of a few seconds, in which only completeness
//! counts; without cargo's `--bench`, as `cargo test --benches` runs it, it is the same.
//!
//! Node and generator share the machine with each other and with everything else on it. To lower the noise, let
//! nothing else run, and give each a processor of its own:
//!
//! ```sh
//! cargo bench --bench targets --no-run
//! BENCH_NODE_PREFIX="taskset -c 0" taskset -c 1 cargo bench --bench targets -- --shards 1
//! ```

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fanwire::cli::load::node::Setup;
use fanwire::cli::load::{Load, Node, Tally, Window};

/// Holds what the node promises.
#[derive(Parser)]
struct Options {
    /// Seconds of publishing that are measured.
    #[arg(long, default_value_t = 10.0)]
    secs: f64,
    /// Shards of the node [default: what a node chooses].
    #[arg(long)]
    shards: Option<usize>,
    /// A tenth of everything, for a second; times have no verdict.
    #[arg(long)]
    quick: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of benches: where some are given, this one runs only if it is among them.
    #[arg(hide = true)]
    names: Vec<String>,
}

/// What is asked of a node.
struct Scenario {
    subscribers: usize,
    topics: usize,
    rate: f64,
    time: Duration,
    shards: Option<usize>,
    /// Whether there is a verdict on times, or only on completeness.
    is_timed: bool,
}

const SETUP: Duration = Duration::from_millis(100);
const LATENCY: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.names.is_empty() && !options.names.iter().any(|name| "targets".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    match hold(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("\nA promise was missed. Was everything else quiet? See docs/benchmarks.md.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("targets: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(options: &Options) -> io::Result<bool> {
    let is_quick = options.quick || !options.bench;
    let part = if is_quick { 10 } else { 1 };
    let spread = Scenario {
        subscribers: 1_000 / part,
        topics: 100 / part,
        rate: 10_000.0 / part as f64,
        time: Duration::from_secs_f64(if is_quick { 1.0 } else { options.secs }),
        shards: options.shards,
        is_timed: !is_quick,
    };
    println!("\nThe promises: {}\n", spread.describe());
    let mut table = Table::new(true);
    spread.measure(&mut table)?;
    let one_topic = Scenario { topics: 1, ..spread };
    println!("\nBeside them, without a verdict: {}\n", one_topic.describe());
    one_topic.measure(&mut Table::new(false))?;
    Ok(table.is_kept)
}

impl Scenario {
    fn describe(&self) -> String {
        let Self { subscribers, topics, rate, time, .. } = self;
        let deliveries = rate * (subscribers / topics) as f64;
        let shards =
            self.shards.map_or_else(|| "shards as a node chooses".to_owned(), |n| format!("{n} shards"));
        format!(
            "{subscribers} subscribers over {topics} topics, {rate} events/s for {time:?} \
             ({deliveries} deliveries/s), {shards}"
        )
    }

    fn measure(&self, table: &mut Table) -> io::Result<()> {
        let mut flags = vec!["--max-clients".to_owned(), self.subscribers.to_string()];
        flags.extend(self.shards.into_iter().flat_map(|shards| ["--shards".to_owned(), shards.to_string()]));
        let setup = Setup { flags, ..Setup::from_environment(env!("CARGO_BIN_EXE_fanwire")) };
        let node = Node::start(&setup)?;
        let mut load = Load::connect(&node, self.subscribers, self.topics)?;
        let (window, tally) = load.run(&node, self.rate, Duration::from_secs(1).min(self.time), self.time)?;
        self.print(table, &load, (&window, &tally), node.resident());
        Ok(())
    }

    fn print(&self, table: &mut Table, load: &Load, (figures, tally): (&Window, &Tally), resident: u64) {
        let seconds = figures.took.as_secs_f64();
        let setup = |quantile| Duration::from_nanos(load.setup.value_at_quantile(quantile));
        table.promise("subscribers connected", load.setup.len(), self.subscribers, true);
        table.timed("connection set-up, worst", setup(1.0), SETUP, self.is_timed);
        table.figure("connection set-up, p50 / p99", format!("{:.2?} / {:.2?}", setup(0.5), setup(0.99)));
        let rate = figures.published as f64 / seconds;
        let is_fast = !self.is_timed || rate > 0.99 * self.rate;
        table.promise("events published a second", format!("{rate:.0}"), self.rate, is_fast);
        table.promise("deliveries missing", tally.missing, 0, tally.missing == 0);
        table.promise("deliveries wrong", tally.wrong(), 0, tally.wrong() == 0);
        table.promise("connections closed", tally.closed, 0, tally.closed == 0);
        table.timed("publish to read, p99", figures.latency(0.99), LATENCY, self.is_timed);
        let [p50, p999, worst] = [0.5, 0.999, 1.0].map(|quantile| figures.latency(quantile));
        table.figure("publish to read, p50 / p99.9 / worst", format!("{p50:.2?} / {p999:.2?} / {worst:.2?}"));
        table.figure("deliveries a second", format!("{:.0}", figures.deliveries as f64 / seconds));
        let cpu = figures.server_cpu.as_secs_f64();
        let each = cpu * 1e6 / figures.deliveries.max(1) as f64;
        table.figure(
            "node: processor, each delivery",
            format!("{:.0} %, {each:.3} µs", cpu / seconds * 100.0),
        );
        table.figure("node: resident", format!("{:.1} MB", resident as f64 / 1e6));
        let own = figures.own_cpu.as_secs_f64() / seconds * 100.0;
        let late = figures.lateness;
        table.figure("generator: processor, latest event", format!("{own:.0} %, {late:.2?}"));
        let others = figures.other_cpu.as_secs_f64() / seconds * 100.0;
        table.figure("everything else: processor", format!("{others:.0} %"));
        let batch = figures.deliveries as f64 / figures.reads.max(1) as f64;
        table.figure("generator: deliveries a read", format!("{batch:.1}"));
    }
}

/// Figures as they come, with what was promised beside them.
struct Table {
    has_verdict: bool,
    is_kept: bool,
}

impl Table {
    fn new(has_verdict: bool) -> Self {
        println!("{:<38} {:>28}   {:<10} verdict", "figure", "measured", "promised");
        Self { has_verdict, is_kept: true }
    }

    fn figure(&self, name: &str, measured: impl ToString) {
        println!("{name:<38} {:>28}", measured.to_string());
    }

    fn promise(&mut self, name: &str, measured: impl ToString, promised: impl ToString, is_kept: bool) {
        if !self.has_verdict {
            return self.figure(name, measured);
        }
        self.is_kept &= is_kept;
        let verdict = if is_kept { "PASS" } else { "MISS" };
        println!("{name:<38} {:>28}   {:<10} {verdict}", measured.to_string(), promised.to_string());
    }

    fn timed(&mut self, name: &str, measured: Duration, promised: Duration, is_timed: bool) {
        if is_timed {
            self.promise(name, format!("{measured:.2?}"), format!("< {promised:?}"), measured < promised);
        } else {
            self.figure(name, format!("{measured:.2?}"));
        }
    }
}
