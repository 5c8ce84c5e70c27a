//! The scenarios: who connects, what is published meanwhile, and what is made of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::report::{Disturbance, Report, rounded};
use super::target::Target;
use super::watch::Watch;
use super::{Options, Scenario, Variant, capacity};
use crate::cli::load::{Load, Plan, Tally, Window};

/// Connections being set up at once.
const CONCURRENT: usize = 64;
/// The receive buffer of who never reads: what a server writes soon waits there.
const SLOW_RECEIVE_BUFFER: usize = 4096;
/// How long it may take to see which of those who never read were closed.
const LOOKING: Duration = Duration::from_secs(2);

/// Measures one scenario.
pub(super) fn measure(
    target: &mut Target,
    options: &Options,
    variant: &Variant,
    watch: &Watch,
) -> io::Result<Report> {
    let subscribers = variant.subscribers;
    let mut report = match options.scenario {
        Scenario::Fanout | Scenario::Topics => fanout(target, options, subscribers, watch),
        Scenario::Capacity => capacity::search(target, options, subscribers, watch),
        Scenario::Idle => idle(target, options, subscribers, watch),
        Scenario::Storm => storm(target, options, subscribers, watch),
        Scenario::Slow => slow(target, options, subscribers, watch),
    }?;
    report.latency_budget_ms = variant.latency_budget.map(|budget| rounded(budget.as_secs_f64() * 1e3));
    if report.complaint().is_some() {
        report.last_words = target.last_words();
    }
    Ok(report)
}

/// What `subscribers` do to this target, with topics that nobody had before.
pub(super) fn plan(target: &mut Target, options: &Options, subscribers: usize) -> Plan {
    Plan {
        protocols: vec![options.peer.protocol()],
        topics: options.topics,
        prefix: target.next_prefix(),
        bytes: options.bytes,
        concurrent: CONCURRENT,
        ..Plan::new(target.to, Some(target.publish.clone()), subscribers)
    }
}

/// What was seen of a rate.
pub(super) struct Run {
    pub(super) window: Window,
    pub(super) tally: Tally,
    pub(super) resident: Option<u64>,
    /// Why the publisher was over before the run was.
    pub(super) publisher_ended: Option<String>,
}

/// Publishes at a rate, and waits for what is on its way. `is_hopeless` ends it early.
pub(super) fn publish(
    load: &mut Load,
    target: &Target,
    options: &Options,
    rate: f64,
    watch: &Watch,
    is_hopeless: impl Fn(&Load) -> bool + Copy,
) -> io::Result<Run> {
    let server = target.process();
    load.publish(rate);
    watch.go_on(load, options.warm_up, "warming up", is_hopeless)?;
    let mark = load.mark(&server);
    let what = format!("{rate:.0} events/s");
    watch.go_on(load, Duration::from_secs_f64(options.secs), &what, is_hopeless)?;
    let window = load.window(&server, mark);
    let resident = server.is_known().then(|| server.resident());
    load.stop_publishing();
    let publisher_ended = load.publisher_ended().map(str::to_owned);
    watch.go_on(load, options.patience, "waiting for the last", |load| {
        load.outstanding() == 0 || load.publisher_ended().is_some()
    })?;
    // Latencies of everything that was published in the window, also of what came after its end.
    let window = Window { latency: load.latency().clone(), ..window };
    Ok(Run { window, tally: load.tally(), resident, publisher_ended })
}

fn fanout(target: &mut Target, options: &Options, subscribers: usize, watch: &Watch) -> io::Result<Report> {
    let mut load = Load::open(plan(target, options, subscribers))?;
    watch.connect(&mut load, subscribers)?;
    let run = publish(&mut load, target, options, options.rate, watch, |_| false)?;
    Ok(Report::new(target, options, subscribers).with_run(&run, target))
}

fn idle(target: &mut Target, options: &Options, subscribers: usize, watch: &Watch) -> io::Result<Report> {
    let before = target.process();
    let resident_before = before.resident();
    let mut load = Load::open(Plan { publish: None, ..plan(target, options, subscribers) })?;
    let began = Instant::now();
    watch.connect(&mut load, subscribers)?;
    let took = began.elapsed().as_secs_f64();
    let server = target.process();
    let mark = load.mark(&server);
    watch.go_on(&mut load, Duration::from_secs_f64(options.secs), "idle", |_| false)?;
    let window = load.window(&server, mark);
    let mut report = Report::new(target, options, subscribers);
    report.rate = None;
    report.handshakes_per_sec = Some(rounded(subscribers as f64 / took));
    report.closed = Some(load.closed());
    report.set_processor_time(&window, &server);
    if server.is_known() {
        let resident = server.resident();
        report.server.rss_bytes = Some(resident);
        let each = resident.saturating_sub(resident_before) as f64 / subscribers as f64;
        report.server.rss_bytes_per_connection = Some(rounded(each));
    }
    Ok(report)
}

/// How far the storm is.
#[derive(Default)]
struct Storm {
    is_over: AtomicBool,
    connected: AtomicU64,
    refused: AtomicU64,
}

impl Storm {
    /// Connects all, lets them go, and begins again, until it is over.
    fn rage(&self, plan: &Plan) -> io::Result<()> {
        // On a processor that it shares with the generator it takes what is left. Of Linux' threads each has its own.
        rustix::process::nice(19)?;
        while !self.is_over.load(Ordering::Relaxed) {
            let mut load = Load::open(plan.clone())?;
            let (mut connected, mut refused) = (0, 0);
            let mut is_complete = false;
            while !is_complete && !self.is_over.load(Ordering::Relaxed) {
                is_complete = load.connect_for(Duration::from_millis(20))?;
                self.connected.fetch_add((load.ready() - connected) as u64, Ordering::Relaxed);
                self.refused.fetch_add((load.refused() - refused) as u64, Ordering::Relaxed);
                (connected, refused) = (load.ready(), load.refused());
            }
        }
        Ok(())
    }
}

fn storm(target: &mut Target, options: &Options, subscribers: usize, watch: &Watch) -> io::Result<Report> {
    let healthy = plan(target, options, subscribers);
    // They subscribe to what the healthy ones have, and are sent events until they go.
    let storm_plan = Plan {
        publish: None,
        subscribers: options.storm,
        topics: options.topics.min(options.storm),
        bears_refusals: true,
        resets: true,
        ..healthy.clone()
    };
    let mut load = Load::open(healthy)?;
    watch.connect(&mut load, subscribers)?;
    let storm = Arc::new(Storm::default());
    let raging = Arc::clone(&storm);
    let thread = thread::Builder::new().name("storm".to_owned()).spawn(move || raging.rage(&storm_plan))?;
    let began = Instant::now();
    let run = publish(&mut load, target, options, options.rate, watch, |_| false);
    storm.is_over.store(true, Ordering::Relaxed);
    let took = began.elapsed().as_secs_f64();
    let raged = thread.join().map_err(|_| io::Error::other("the storm's thread failed"))?;
    let run = run?;
    raged.map_err(|error| io::Error::new(error.kind(), format!("the storm: {error}")))?;
    let [connected, refused] = [&storm.connected, &storm.refused].map(|count| count.load(Ordering::Relaxed));
    if connected + refused == 0 {
        return Err(io::Error::other("none of the storm's connections came to an end: more --secs"));
    }
    let mut report = Report::new(target, options, subscribers).with_run(&run, target);
    report.handshakes_per_sec = Some(rounded(connected as f64 / took));
    report.disturbance = Some(Disturbance { connections: connected, refused, closed: 0 });
    Ok(report)
}

fn slow(target: &mut Target, options: &Options, subscribers: usize, watch: &Watch) -> io::Result<Report> {
    let healthy = plan(target, options, subscribers);
    let mut stopped = Load::open(Plan {
        publish: None,
        subscribers: options.slow,
        topics: options.topics.min(options.slow),
        receive_buffer: Some(SLOW_RECEIVE_BUFFER),
        ..healthy.clone()
    })?;
    watch.connect(&mut stopped, options.slow)?;
    let mut load = Load::open(healthy)?;
    watch.connect(&mut load, subscribers)?;
    let run = publish(&mut load, target, options, options.rate, watch, |_| false)?;
    // Who reads on now comes to the end of the connection, if the server has closed it.
    watch.go_on(&mut stopped, LOOKING, "looking who was closed", |stopped| {
        stopped.closed() == options.slow as u64
    })?;
    let mut report = Report::new(target, options, subscribers).with_run(&run, target);
    let closed = stopped.closed();
    report.disturbance = Some(Disturbance { connections: options.slow as u64, refused: 0, closed });
    Ok(report)
}
