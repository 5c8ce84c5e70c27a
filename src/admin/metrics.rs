//! `GET /metrics`: OpenMetrics text through `prometheus-client`. No label carries a name that a stranger chose.

use std::fmt;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::api::Reply;
use crate::clock::Now;
use crate::dialect::dialect::Dialect;
use crate::error::{CloseReason, ErrorCode};
use crate::fanout::shared::{Shared, State};
use crate::fanout::stages::Stage;
use crate::metrics::{BadInput, DropReason, Figure, NotAdmitted, ShardMetrics, Windowed, histogram};

/// The answer.
pub fn reply(shared: &Shared, now: Now) -> Reply {
    let mut registry = Registry::with_prefix("fanwire");
    let mut text = String::new();
    // What is written into a `String` cannot fail; the descriptors are constants.
    let snapshot = Snapshot::take(shared, now);
    registry.register_collector(Box::new(snapshot));
    let status =
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_ok() { 200 } else { 500 };
    Reply {
        status,
        content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body: text.into_bytes(),
    }
}

/// The figures at one moment, each already summed over the shards.
#[derive(Debug)]
struct Snapshot {
    counters: Vec<(&'static str, &'static str, u64)>,
    /// Counters of time.
    seconds: Vec<(&'static str, &'static str, f64)>,
    gauges: Vec<(&'static str, &'static str, f64)>,
    clients: Vec<(&'static str, u64)>,
    labelled: Vec<(&'static str, &'static str, &'static str, Vec<(&'static str, u64)>)>,
    histograms: Vec<(&'static str, &'static str, Buckets)>,
}

#[derive(Debug)]
struct Buckets {
    sum: f64,
    count: u64,
    /// Upper bounds in seconds with the count of each bucket alone.
    buckets: Vec<(f64, u64)>,
}

const LATENCY_BOUNDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const SESSION_BOUNDS: [f64; 8] = [1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];

impl Snapshot {
    fn take(shared: &Shared, now: Now) -> Self {
        let all = &shared.metrics;
        let sum =
            |figure: fn(&ShardMetrics) -> &Figure| all.iter().map(|shard| figure(shard).get()).sum::<u64>();
        let merged =
            |figure: fn(&ShardMetrics) -> &parking_lot::Mutex<Windowed>, unit: f64, bounds: &[f64]| {
                let mut total = histogram();
                let sum = all.iter().map(|shard| figure(shard).lock().add_total(&mut total)).sum::<u64>();
                Buckets::of(&total, sum, unit, bounds)
            };
        let (order, (drains, undone)) = (shared.drain_order(), shared.drain_counts());
        let oldest = all.iter().map(|m| m.oldest_age.get()).max().unwrap_or(0) as f64 / 1e9;
        Self {
            counters: vec![
                ("events_in", "Events accepted from publishers", sum(|m| &m.events_in)),
                (
                    "event_bytes_in",
                    "Bytes of names, keys and data of accepted events",
                    sum(|m| &m.event_bytes_in),
                ),
                (
                    "events_unsubscribed",
                    "Events accepted that nobody was subscribed to",
                    sum(|m| &m.events_unsubscribed),
                ),
                (
                    "events_pattern_matched",
                    "Events accepted that matched a prefix pattern",
                    sum(|m| &m.events_pattern_matched),
                ),
                (
                    "pattern_probes",
                    "Look-ups in the table of patterns, made for events as they were accepted",
                    sum(|m| &m.pattern_probes),
                ),
                (
                    "events_masked",
                    "Accepted events in which a guard masked something",
                    sum(|m| &m.events_masked),
                ),
                (
                    "events_duplicate",
                    "Events accepted before from the same publisher's name or key, not published again",
                    sum(|m| &m.events_duplicate),
                ),
                ("receipts", "Receipts sent to publishers", sum(|m| &m.receipts)),
                ("envelope_writes", "Events written, once for each envelope", sum(|m| &m.envelope_writes)),
                (
                    "events_compressed",
                    "Events compressed, once for each envelope",
                    sum(|m| &m.events_compressed),
                ),
                (
                    "compressor_bytes_in",
                    "Bytes of events given to the compressor",
                    sum(|m| &m.compressor_bytes_in),
                ),
                (
                    "compressor_bytes_out",
                    "What those came to; what got no smaller went out as it was",
                    sum(|m| &m.compressor_bytes_out),
                ),
                ("messages_inflated", "Compressed messages from clients", sum(|m| &m.messages_inflated)),
                ("inflated_bytes", "Bytes that those came to", sum(|m| &m.inflated_bytes)),
                ("rounds", "Rounds dispatched", sum(|m| &m.rounds)),
                ("dispatched", "Events matched with a session", sum(|m| &m.dispatched)),
                ("replayed", "Events of those that came from a history", sum(|m| &m.replayed)),
                ("deliveries", "Events handed to the kernel", sum(|m| &m.deliveries)),
                ("delivered_bytes", "Bytes handed to the kernel", sum(|m| &m.delivered_bytes)),
                ("flushes", "Writes to connections", sum(|m| &m.flushes)),
                ("refused_writes", "Writes that the kernel refused", sum(|m| &m.refused_writes)),
                (
                    "publisher_pauses",
                    "Times that publishers waited for refusing sockets",
                    sum(|m| &m.publisher_pauses),
                ),
                ("accepted_connections", "Connections accepted", sum(|m| &m.accepted)),
                (
                    "accept_pauses",
                    "Times that accepting paused for want of file descriptors",
                    sum(|m| &m.accept_pauses),
                ),
                ("drains", "Shutdowns begun", drains),
                ("drains_undone", "Shutdowns taken back", undone),
                (
                    "log_lines_dropped",
                    "Log lines that found no room: a full disk, or nobody who reads them",
                    shared.log_lines_dropped.load(Ordering::Relaxed),
                ),
            ],
            seconds: vec![(
                "publishers_paused_seconds",
                "For how long publishers waited for refusing sockets, on all shards together",
                sum(|m| &m.publishers_paused) as f64 / 1e9,
            )],
            gauges: vec![
                ("clients", "Clients connected", sum(|m| &m.clients) as f64),
                ("clients_max", "Bound on clients", shared.max_clients() as f64),
                ("publishers", "Publishers connected", sum(|m| &m.publishers) as f64),
                (
                    "other_connections",
                    "Handshakes, requests, closes under way",
                    sum(|m| &m.other_connections) as f64,
                ),
                ("topics", "Topics with a subscriber", shared.topics.count() as f64),
                ("patterns", "Prefix patterns with a subscriber", shared.topics.patterns().count() as f64),
                ("subscriptions", "Subscriptions", sum(|m| &m.subscriptions) as f64),
                (
                    "queued_events",
                    "Events dispatched and neither delivered nor dropped",
                    all.iter().map(ShardMetrics::pending).sum::<u64>() as f64,
                ),
                ("queue_oldest_age_seconds", "Age of the oldest event that waits for a client", oldest),
                ("blocked_clients", "Clients whose socket takes no more", sum(|m| &m.blocked_clients) as f64),
                ("outbox_bytes", "Memory held by outboxes", sum(|m| &m.outbox_bytes) as f64),
                (
                    "outbox_bytes_max",
                    "Bound on the memory held by outboxes",
                    shared.max_outbox_bytes() as f64,
                ),
                ("history_topics", "Topics that have history", shared.topics.with_history() as f64),
                ("history_bytes", "Memory held by histories", shared.topics.history_bytes() as f64),
                (
                    "history_bytes_max",
                    "Bound on the memory held by histories",
                    shared.topics.max_history_bytes() as f64,
                ),
                (
                    "link_bytes",
                    "Bytes of rounds in flight to shards",
                    shared.links.iter().map(|link| link.in_flight()).sum::<usize>() as f64,
                ),
                (
                    "drain_stage",
                    "The stage of a shutdown: 0 none, 1 spread, 2 quiesce, 3 deliver, 4 farewell",
                    order.map_or(0.0, |order| stage_number(order.stage)),
                ),
                (
                    "drain_clients",
                    "Clients connected when the shutdown under way began",
                    order.map_or(0.0, |order| order.clients as f64),
                ),
                (
                    "drain_remaining_seconds",
                    "Until all clients are let go; of later stages, until the end at the latest",
                    order.map_or(0.0, |order| order.until.saturating_sub(now.mono) as f64 / 1e9),
                ),
                ("ready", "Whether the node is ready", f64::from(shared.state() == State::Ready)),
                (
                    "uptime_seconds",
                    "Time since the start",
                    now.mono.saturating_sub(shared.started.mono) as f64 / 1e9,
                ),
            ],
            clients: Dialect::ALL
                .map(|dialect| (dialect.name(), all.iter().map(|m| m.clients_of(dialect)).sum()))
                .into(),
            labelled: vec![
                (
                    "dropped",
                    "Events dispatched to a session that did not reach the kernel",
                    "reason",
                    DropReason::all().map(|r| (r.name(), all.iter().map(|m| m.dropped(r)).sum())).collect(),
                ),
                (
                    "closed",
                    "Sessions ended",
                    "reason",
                    CloseReason::ALL.map(|r| (r.name(), all.iter().map(|m| m.closed(r)).sum())).into(),
                ),
                (
                    "refused_events",
                    "Published frames and entries refused",
                    "code",
                    ErrorCode::ALL.map(|c| (c.name(), all.iter().map(|m| m.refused(c)).sum())).into(),
                ),
                (
                    "refused_input",
                    "Other input refused",
                    "kind",
                    BadInput::ALL.map(|k| (k.name(), all.iter().map(|m| m.bad_input(k)).sum())).into(),
                ),
                (
                    "refused_handshakes",
                    "Clients not let in",
                    "reason",
                    NotAdmitted::ALL.map(|r| (r.name(), all.iter().map(|m| m.turned_away(r)).sum())).into(),
                ),
            ],
            histograms: vec![
                (
                    "ingress_to_kernel_seconds",
                    "From the read that took an event in to its hand-over to the kernel",
                    merged(|m| &m.latency, 1e6, &LATENCY_BOUNDS),
                ),
                (
                    "turn_seconds",
                    "Length of a turn of a shard's loop",
                    merged(|m| &m.turn, 1e6, &LATENCY_BOUNDS),
                ),
                (
                    "session_seconds",
                    "How long sessions lasted",
                    merged(|m| &m.session_seconds, 1.0, &SESSION_BOUNDS),
                ),
            ],
        }
    }
}

fn stage_number(stage: Stage) -> f64 {
    match stage {
        Stage::Spread => 1.0,
        Stage::Quiesce => 2.0,
        Stage::Deliver => 3.0,
        Stage::Farewell => 4.0,
    }
}

impl Buckets {
    fn of(values: &Histogram<u64>, sum: u64, unit: f64, bounds: &[f64]) -> Self {
        let mut below = 0;
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(bounds.len() + 1);
        for bound in bounds {
            let count = values.count_between(0, (bound * unit) as u64);
            buckets.push((*bound, count - below));
            below = count;
        }
        buckets.push((f64::INFINITY, values.len() - below));
        Self { sum: sum as f64 / unit, count: values.len(), buckets }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let none: Option<&Unit> = None;
        for (name, help, value) in &self.counters {
            let mut metric = encoder.encode_descriptor(name, help, none, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        for (name, help, value) in &self.seconds {
            let mut metric = encoder.encode_descriptor(name, help, none, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        for (name, help, value) in &self.gauges {
            let mut metric = encoder.encode_descriptor(name, help, none, MetricType::Gauge)?;
            metric.encode_gauge(value)?;
        }
        let help = "Clients connected, by dialect";
        let mut metric = encoder.encode_descriptor("dialect_clients", help, none, MetricType::Gauge)?;
        for (dialect, count) in &self.clients {
            metric.encode_family(&[("dialect", *dialect)])?.encode_gauge(count)?;
        }
        for (name, help, label, values) in &self.labelled {
            let mut metric = encoder.encode_descriptor(name, help, none, MetricType::Counter)?;
            for (value, count) in values {
                metric
                    .encode_family(&[(*label, *value)])?
                    .encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        for (name, help, values) in &self.histograms {
            let metric = encoder.encode_descriptor(name, help, none, MetricType::Histogram)?;
            values.encode(metric)?;
        }
        Ok(())
    }
}

impl EncodeMetric for Buckets {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_histogram::<NoLabelSet>(self.sum, self.count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::fanout::shared::Access;

    #[test]
    fn the_text_has_every_figure_and_no_strangers_name() {
        let now = Now { mono: 2_000_000_000, wall_ms: 0 };
        let shared = Shared::new(2, &Limits::default(), Access::default(), Now { mono: 0, wall_ms: 0 });
        shared.metrics[0].events_in.add(3);
        shared.metrics[1].events_in.add(4);
        shared.metrics[1].publishers_paused.add(1_500_000_000);
        shared.metrics[1].set_clients_of(Dialect::EventStream, 2);
        shared.metrics[1].close(CloseReason::SlowConsumer);
        shared.metrics[0].latency.lock().record(700, 10, 0);
        let text = String::from_utf8(reply(&shared, now).body).unwrap();
        for line in [
            "fanwire_events_in_total 7",
            "fanwire_closed_total{reason=\"slow_consumer\"} 1",
            "fanwire_dropped_total{reason=\"drop_oldest\"} 0",
            "fanwire_uptime_seconds 2.0",
            "fanwire_publishers_paused_seconds_total 1.5",
            "fanwire_dialect_clients{dialect=\"sse\"} 2",
            "fanwire_ingress_to_kernel_seconds_bucket{le=\"0.0005\"} 0",
            "fanwire_ingress_to_kernel_seconds_bucket{le=\"0.001\"} 10",
            "fanwire_ingress_to_kernel_seconds_bucket{le=\"+Inf\"} 10",
            "fanwire_ingress_to_kernel_seconds_sum 0.007",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
