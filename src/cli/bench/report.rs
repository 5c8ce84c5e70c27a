//! The figures of a run: as JSON for machines, as a table for people, and as a verdict.

use std::time::Duration;

use serde::Serialize;

use super::scenario::Run;
use super::target::Target;
use super::{Options, Scenario};
use crate::cli::load::{Process, Window, distribution};

/// A figure with six digits behind the point at most: more is noise.
pub(super) fn rounded(figure: f64) -> f64 {
    (figure * 1e6).round() / 1e6
}

/// What a run came to; the fields are documented in `docs/bench.md`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) scenario: &'static str,
    pub(super) peer: &'static str,
    pub(super) version: Option<String>,
    pub(super) subscribers: usize,
    pub(super) topics: usize,
    pub(super) rate: Option<f64>,
    pub(super) latency_budget_ms: Option<f64>,
    pub(super) secs: f64,
    pub(super) published: Option<u64>,
    pub(super) deliveries: Option<u64>,
    pub(super) deliveries_per_sec: Option<f64>,
    pub(super) lost: Option<u64>,
    pub(super) repeated: Option<u64>,
    pub(super) reordered: Option<u64>,
    pub(super) closed: Option<u64>,
    pub(super) latency_ms: Option<Latency>,
    pub(super) latency_cdf: Option<Vec<(f64, f64)>>,
    pub(super) server: Server,
    pub(super) generator: Generator,
    pub(super) foreign_cpu_percent: Option<f64>,
    pub(super) handshakes_per_sec: Option<f64>,
    pub(super) capacity_rate: Option<f64>,
    pub(super) disturbance: Option<Disturbance>,
    /// Why nothing could be told, or why the publisher was over before the run was.
    #[serde(skip)]
    pub(super) refusal: Option<String>,
    /// The end of the node's log, where something is wrong.
    #[serde(skip)]
    pub(super) last_words: Option<String>,
    /// The latency that was allowed in the search for the capacity.
    #[serde(skip)]
    p99_limit_ms: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Server {
    pub(super) cpu_us_per_delivery: Option<f64>,
    pub(super) cpu_percent: Option<f64>,
    pub(super) rss_bytes: Option<u64>,
    pub(super) rss_bytes_per_connection: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Generator {
    pub(super) cpu_percent: Option<f64>,
    pub(super) lateness_ms: Option<f64>,
    pub(super) deliveries_per_read: Option<f64>,
}

/// Connections besides those that are measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Disturbance {
    /// Set up in all.
    pub(super) connections: u64,
    /// That the server did not let in.
    pub(super) refused: u64,
    /// That it closed.
    pub(super) closed: u64,
}

impl Report {
    /// Without figures.
    pub(super) fn new(target: &Target, options: &Options, subscribers: usize) -> Self {
        Self {
            scenario: options.scenario.name(),
            peer: options.peer.name(),
            version: target.version.clone(),
            subscribers,
            topics: options.topics,
            rate: Some(options.rate),
            secs: options.secs,
            p99_limit_ms: options.p99_ms,
            ..Self::default()
        }
    }

    /// With those of a run.
    pub(super) fn with_run(mut self, run: &Run, target: &Target) -> Self {
        let Run { window, tally, .. } = run;
        let ms = |quantile| rounded(window.latency(quantile).as_secs_f64() * 1e3);
        self.published = Some(window.published);
        self.deliveries = Some(window.latency.len());
        self.deliveries_per_sec = Some(rounded(window.deliveries as f64 / window.took.as_secs_f64()));
        self.lost = Some(tally.missing);
        self.repeated = Some(tally.repeated);
        self.reordered = Some(tally.reordered + tally.strange);
        self.closed = Some(tally.closed);
        if !window.latency.is_empty() {
            let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(ms);
            self.latency_ms = Some(Latency { p50, p90, p99, p999, max });
            let points = distribution(&window.latency).into_iter();
            self.latency_cdf = Some(points.map(|(ms, share)| (rounded(ms), rounded(share))).collect());
        }
        let server = target.process();
        self.set_processor_time(window, &server);
        // Where others are served as well, what a delivery costs cannot be told.
        let is_alone = ![Scenario::Storm.name(), Scenario::Slow.name()].contains(&self.scenario);
        if server.is_known() && window.deliveries > 0 && is_alone {
            let each = window.server_cpu.as_secs_f64() * 1e6 / window.deliveries as f64;
            self.server.cpu_us_per_delivery = Some(rounded(each));
        }
        self.server.rss_bytes = run.resident;
        self.generator.lateness_ms = Some(rounded(window.lateness.as_secs_f64() * 1e3));
        if window.reads > 0 {
            self.generator.deliveries_per_read =
                Some(rounded(window.deliveries as f64 / window.reads as f64));
        }
        self.refusal.clone_from(&run.publisher_ended);
        self
    }

    pub(super) fn set_processor_time(&mut self, window: &Window, server: &Process) {
        let percent = |time: Duration| rounded(time.as_secs_f64() / window.took.as_secs_f64() * 100.0);
        self.server.cpu_percent = server.is_known().then(|| percent(window.server_cpu));
        self.generator.cpu_percent = Some(percent(window.own_cpu));
        // Where nothing is known of the server, it is among the others.
        self.foreign_cpu_percent = server.is_known().then(|| percent(window.other_cpu));
    }

    /// What tells it from other runs of the same scenario.
    pub(super) fn variant(&self) -> String {
        let budget = self.latency_budget_ms.map(|ms| format!(", budget {ms} ms")).unwrap_or_default();
        counted(self.subscribers, "subscriber") + &budget
    }

    /// What was not as it has to be, in one line for people.
    pub(super) fn complaint(&self) -> Option<String> {
        let counts = [
            (self.lost, "lost"),
            (self.repeated, "repeated"),
            (self.reordered, "out of order or of another topic"),
            (self.closed, "connections closed by the server"),
        ];
        let counts = counts.into_iter().filter_map(|(count, what)| Some((count.filter(|n| *n > 0)?, what)));
        let mut parts: Vec<String> =
            counts.map(|(count, what)| format!("{} {what}", grouped(count as f64))).collect();
        parts.extend(self.refusal.clone());
        if parts.is_empty() {
            return None;
        }
        let mut line = format!("{} with {}: {}", self.scenario, self.variant(), parts.join(", "));
        if let Some(words) = &self.last_words {
            line += &format!("\nThe node's log ends with:\n{words}");
        }
        Some(line)
    }
}

/// One report as an object, several as an array of them.
pub(super) fn json(reports: &[Report]) -> Result<String, String> {
    let text = match reports {
        [one] => serde_json::to_string(one),
        all => serde_json::to_string(all),
    };
    text.map(|text| text + "\n").map_err(|error| error.to_string())
}

/// For people: one report in words, several as rows.
pub(super) fn table(reports: &[Report]) -> String {
    match reports {
        [one] => one_report(one),
        all => rows(all),
    }
}

fn one_report(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<16} {text}"));
    let version = report.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
    let rate = report.rate.map(|rate| format!(", {} events/s", grouped(rate))).unwrap_or_default();
    let budget = report.latency_budget_ms.map(|ms| format!(", latency budget {ms} ms")).unwrap_or_default();
    let head = format!(
        "{}: {}{version}, {} over {}{rate} for {} s{budget}",
        report.scenario,
        report.peer,
        counted(report.subscribers, "subscriber"),
        counted(report.topics, "topic"),
        report.secs
    );
    if let Some(rate) = report.capacity_rate {
        let limit = report.p99_limit_ms;
        line("capacity", format!("{} events/s with nothing lost, p99 under {limit} ms", grouped(rate)));
    }
    if let (Some(published), Some(deliveries), Some(each)) =
        (report.published, report.deliveries, report.deliveries_per_sec)
    {
        line("published", format!("{} events", grouped(published as f64)));
        line("delivered", format!("{}, {} a second", grouped(deliveries as f64), grouped(each)));
    }
    if let (Some(lost), Some(repeated), Some(reordered)) = (report.lost, report.repeated, report.reordered) {
        let closed = report.closed.unwrap_or_default();
        line("lost", format!("{lost}, repeated {repeated}, out of order {reordered}, closed {closed}"));
    } else if let Some(closed) = report.closed {
        line("closed", closed.to_string());
    }
    if let Some(Latency { p50, p90, p99, p999, max }) = report.latency_ms {
        line(
            "latency",
            format!("p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2} ms"),
        );
    }
    if let Some(each) = report.handshakes_per_sec {
        line("handshakes", format!("{} a second", grouped(each)));
    }
    if let Some(Disturbance { connections, refused, closed }) = report.disturbance {
        let what = if report.scenario == Scenario::Slow.name() { "never read" } else { "in the storm" };
        line("others", format!("{} {what}, {refused} refused, {closed} closed", grouped(connections as f64)));
    }
    let Server { cpu_us_per_delivery, cpu_percent, rss_bytes, rss_bytes_per_connection } = report.server;
    let parts = [
        cpu_percent.map(|percent| format!("{percent:.1} % of a processor")),
        cpu_us_per_delivery.map(|us| format!("{us:.3} µs a delivery")),
        rss_bytes.map(|bytes| format!("{:.1} MB resident", bytes as f64 / 1e6)),
        rss_bytes_per_connection.map(|bytes| format!("{} bytes a connection", grouped(bytes))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        line("server", parts.join(", "));
    } else if report.published.is_some() {
        line("server", "not known: see --pid".to_owned());
    }
    let Generator { cpu_percent, lateness_ms, deliveries_per_read } = report.generator;
    let parts = [
        cpu_percent.map(|percent| format!("{percent:.1} % of a processor")),
        lateness_ms.map(|ms| format!("latest event {ms:.2} ms")),
        deliveries_per_read.map(|each| format!("{each:.1} deliveries a read")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        line("generator", parts.join(", "));
    }
    if let Some(percent) = report.foreign_cpu_percent {
        line("everything else", format!("{percent:.1} % of a processor"));
    }
    for doubt in doubts(report) {
        line("doubtful", doubt);
    }
    format!("{head}\n\n{}\n", lines.join("\n"))
}

fn rows(reports: &[Report]) -> String {
    let has_budgets = reports.iter().any(|report| report.latency_budget_ms.is_some());
    let budget = |text: &str| if has_budgets { format!(" {text:>9}") } else { String::new() };
    let mut text = format!(
        "{:>11}{} {:>14} {:>8} {:>9} {:>9} {:>9} {:>12} {:>9} {:>10} {:>10}\n",
        "subscribers",
        budget("budget ms"),
        "deliveries/s",
        "lost",
        "p50 ms",
        "p99 ms",
        "server %",
        "µs/delivery",
        "RSS MB",
        "capacity",
        "shakes/s"
    );
    let or_dash = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
    for report in reports {
        let server = &report.server;
        text += &format!(
            "{:>11}{} {:>14} {:>8} {:>9} {:>9} {:>9} {:>12} {:>9} {:>10} {:>10}\n",
            grouped(report.subscribers as f64),
            budget(&or_dash(report.latency_budget_ms.map(|ms| ms.to_string()))),
            or_dash(report.deliveries_per_sec.map(grouped)),
            or_dash(report.lost.map(|n| grouped(n as f64))),
            or_dash(report.latency_ms.map(|latency| format!("{:.2}", latency.p50))),
            or_dash(report.latency_ms.map(|latency| format!("{:.2}", latency.p99))),
            or_dash(server.cpu_percent.map(|percent| format!("{percent:.1}"))),
            or_dash(server.cpu_us_per_delivery.map(|us| format!("{us:.3}"))),
            or_dash(server.rss_bytes.map(|bytes| format!("{:.1}", bytes as f64 / 1e6))),
            or_dash(report.capacity_rate.map(grouped)),
            or_dash(report.handshakes_per_sec.map(grouped)),
        );
    }
    for report in reports {
        for doubt in doubts(report) {
            text += &format!("doubtful, {}: {doubt}\n", report.variant());
        }
    }
    text
}

/// Why the figures may say more about the generator or the neighbours than about the server.
fn doubts(report: &Report) -> Vec<String> {
    let mut doubts = Vec::new();
    if report.generator.cpu_percent.is_some_and(|percent| percent > 95.0) && report.published.is_some() {
        doubts.push("the generator had no processor time left: the server may be able to do more".to_owned());
    }
    if let (Some(late), Some(latency)) = (report.generator.lateness_ms, report.latency_ms)
        && late > latency.p99
    {
        doubts.push(format!("the generator was {late:.1} ms late with an event, more than p99"));
    }
    if let Some(percent) = report.foreign_cpu_percent.filter(|percent| *percent > 10.0) {
        doubts.push(format!("others took {percent:.0} % of a processor"));
    }
    doubts
}

pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(count as f64), if count == 1 { "" } else { "s" })
}

/// A whole number with commas between its thousands; small ones with a digit behind the point, if they are not whole.
fn grouped(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in
            [(0.0, "0"), (12.5, "12.5"), (999.0, "999"), (1000.0, "1,000"), (12_345_678.4, "12,345,678")]
        {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fine = Report { scenario: "fanout", subscribers: 3, lost: Some(0), ..Report::default() };
        assert_eq!(fine.complaint(), None);
        let report = Report { lost: Some(1200), closed: Some(1), ..fine.clone() };
        let line = report.complaint().unwrap();
        assert_eq!(line, "fanout with 3 subscribers: 1,200 lost, 1 connections closed by the server");
        let report = Report { refusal: Some("the server refused an event: 413".to_owned()), ..fine };
        assert!(report.complaint().unwrap().ends_with("413"));
    }
}
