//! The search for the highest rate at which nothing is lost and p99 is short enough.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::Options;
use super::report::{Report, rounded};
use super::scenario::{Run, plan, publish};
use super::target::Target;
use super::watch::Watch;
use crate::cli::load::Load;

/// From one rate to the next while nothing has failed.
const STEP: f64 = 2.0;
/// The search ends where what passed and what failed are this close.
const RESOLUTION: f64 = 1.05;
/// How much slower than asked for it may have been published.
const PUBLISHED: f64 = 0.97;
/// Rates below this are not looked for.
const LOWEST: f64 = 1.0;
/// How far publisher or deliveries may be behind before a rate is given up.
const BEHIND: f64 = 0.5;
/// How long a server may be busy with what is left of a rate that failed.
const CALMING: Duration = Duration::from_secs(10);
/// How long the last deliveries of a rate may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn search(
    target: &mut Target,
    options: &Options,
    subscribers: usize,
    watch: &Watch,
) -> io::Result<Report> {
    let options = Options { patience: options.patience.min(PATIENCE), ..options.clone() };
    let mut search = Search { target, options: &options, subscribers, watch, load: None };
    let mut best: Option<(f64, Run)> = None;
    let mut failed: Option<f64> = None;
    let mut rate = options.rate;
    loop {
        match search.passes(rate)? {
            Some(run) => best = Some((rate, run)),
            None => failed = Some(rate),
        }
        rate = match (best.as_ref().map(|best| best.0), failed) {
            (Some(passed), None) => passed * STEP,
            (None, Some(failed)) if failed / STEP >= LOWEST => failed / STEP,
            (Some(passed), Some(failed)) if failed / passed > RESOLUTION => (passed * failed).sqrt(),
            _ => break,
        };
    }
    let mut report = Report::new(search.target, &options, subscribers);
    report.rate = None;
    match best {
        Some((rate, run)) => {
            report = report.with_run(&run, search.target);
            (report.rate, report.capacity_rate) = (Some(rounded(rate)), Some(rounded(rate)));
        }
        None => report.refusal = Some(format!("no rate passed, down to {LOWEST} events/s")),
    }
    Ok(report)
}

struct Search<'a> {
    target: &'a mut Target,
    options: &'a Options,
    subscribers: usize,
    watch: &'a Watch,
    /// Kept from one rate that passed to the next.
    load: Option<Load>,
}

impl Search<'_> {
    /// Tries a rate, and once more if it fails: on a machine with neighbours that may have been theirs.
    fn passes(&mut self, rate: f64) -> io::Result<Option<Run>> {
        for _ in 0..2 {
            let mut load = match self.load.take() {
                Some(load) => load,
                None => self.connect()?,
            };
            let fan = self.subscribers as f64 / self.options.topics as f64;
            let is_hopeless = |load: &Load| {
                load.lag().as_secs_f64() > BEHIND
                    || load.outstanding() as f64 > BEHIND * rate * fan + 2.0 * fan
            };
            let run = publish(&mut load, self.target, self.options, rate, self.watch, is_hopeless)?;
            if run.tally.is_clean() && self.is_good(&run, rate) {
                self.load = Some(load);
                return Ok(Some(run));
            }
            let is_clean = run.tally.is_clean();
            let latency = run.window.latency(0.99).as_secs_f64() * 1e3;
            self.tell(rate, &format!("failed, p99 {latency:.1} ms, {:?}", run.tally));
            if is_clean {
                self.load = Some(load);
            } else {
                drop(load);
                self.wait_calm()?;
            }
        }
        Ok(None)
    }

    fn is_good(&self, run: &Run, rate: f64) -> bool {
        let took = run.window.took.as_secs_f64();
        took >= 0.9 * self.options.secs
            && run.window.published as f64 >= PUBLISHED * rate * took - 1.0
            && !run.window.latency.is_empty()
            && run.window.latency(0.99).as_secs_f64() * 1e3 < self.options.p99_ms
    }

    fn tell(&self, rate: f64, what: &str) {
        if self.watch.is_terminal() {
            eprintln!("{rate:.0} events/s: {what}");
        }
    }

    /// New connections, and topics of which nothing is left from before.
    fn connect(&mut self) -> io::Result<Load> {
        let mut load = Load::open(plan(self.target, self.options, self.subscribers))?;
        self.watch.connect(&mut load, self.subscribers)?;
        Ok(load)
    }

    /// Waits until the server has let go of a rate that was too much for it.
    fn wait_calm(&self) -> io::Result<()> {
        let server = self.target.process();
        let (began, tick) = (Instant::now(), Duration::from_millis(250));
        loop {
            let before = server.cpu();
            thread::sleep(tick);
            self.watch.check()?;
            let is_calm = server.cpu().saturating_sub(before) < tick / 5;
            // Of a server that nothing is known of it can only be hoped.
            let known = if server.is_known() { Duration::ZERO } else { Duration::from_secs(1) };
            if (is_calm && began.elapsed() > known) || began.elapsed() > CALMING {
                return Ok(());
            }
        }
    }
}
