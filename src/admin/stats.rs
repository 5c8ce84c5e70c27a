//! `GET /api/v1/websocket/stats`: the node's figures as JSON, for the page and for people.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::clock::{Iso8601, Now};
use crate::dialect::dialect::Dialect;
use crate::error::{CloseReason, ErrorCode};
use crate::fanout::shared::Shared;
use crate::metrics::{BadInput, DropReason, Figure, ShardMetrics, WINDOW, histogram};

/// All figures, and the newest `tail` events.
pub fn stats(shared: &Shared, tail: usize, now: Now) -> Value {
    let all = &shared.metrics;
    let sum = |figure: fn(&ShardMetrics) -> &Figure| all.iter().map(|shard| figure(shard).get()).sum::<u64>();
    let mut iso = Iso8601::new();
    let mut answer = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": shared.state().name(),
        "uptimeSeconds": now.mono.saturating_sub(shared.started.mono) as f64 / 1e9,
        "shards": shared.shards(),
        "connections": sum(|m| &m.clients),
        "dialects": by_name(Dialect::ALL, Dialect::name, |dialect| {
            all.iter().map(|m| m.clients_of(dialect)).sum()
        }),
        "maxClients": shared.max_clients(),
        "publishers": sum(|m| &m.publishers),
        "httpConnections": sum(|m| &m.other_connections),
        "rooms": shared.topics.count(),
        "patterns": shared.topics.patterns().count(),
        "subscriptions": sum(|m| &m.subscriptions),
        "eventsIn": sum(|m| &m.events_in),
        "eventBytesIn": sum(|m| &m.event_bytes_in),
        "eventsUnsubscribed": sum(|m| &m.events_unsubscribed),
        "eventsPatternMatched": sum(|m| &m.events_pattern_matched),
        "patternProbes": sum(|m| &m.pattern_probes),
        "eventsMasked": sum(|m| &m.events_masked),
        "eventsDuplicate": sum(|m| &m.events_duplicate),
        "receipts": sum(|m| &m.receipts),
        "dispatched": sum(|m| &m.dispatched),
        "deliveries": sum(|m| &m.deliveries),
        "deliveredBytes": sum(|m| &m.delivered_bytes),
        "pending": all.iter().map(ShardMetrics::pending).sum::<u64>(),
        "flushes": sum(|m| &m.flushes),
        "dropped": by_name(DropReason::all(), DropReason::name, |reason| {
            all.iter().map(|m| m.dropped(reason)).sum()
        }),
        "closed": by_name(CloseReason::ALL, CloseReason::name, |reason| all.iter().map(|m| m.closed(reason)).sum()),
        "refused": refused(all),
        "outbox": {
            "events": all.iter().map(ShardMetrics::pending).sum::<u64>(),
            "heldBytes": sum(|m| &m.outbox_bytes),
            "maxBytes": shared.max_outbox_bytes(),
            "oldestMs": all.iter().map(|m| m.oldest_age.get()).max().unwrap_or(0) as f64 / 1e6,
            "blockedClients": sum(|m| &m.blocked_clients),
        },
        "latencyMs": quantiles(&total_latency(shared)),
        "perShard": all.iter().enumerate().map(|(shard, m)| per_shard(shared, shard, m, now)).collect::<Value>(),
        "timestamp": iso.format(now.wall_ms),
    });
    let mut recent = histogram();
    all.iter().for_each(|m| m.latency.lock().add_recent(&mut recent, now.mono));
    answer["latencyRecentMs"] = quantiles(&recent);
    answer["latencyRecentMs"]["seconds"] = (2 * WINDOW / 1_000_000_000).into();
    if tail > 0 {
        let events: Vec<Value> = shared
            .tail
            .look(tail, now)
            .into_iter()
            .map(|shown| {
                json!({
                    "timestamp": iso.format(shown.timestamp_ms),
                    "topics": shown.topics.split('\n').collect::<Vec<_>>(),
                    "event": shown.event,
                    "data": shown.data,
                    "truncated": shown.truncated,
                })
            })
            .collect();
        answer["tail"] = json!({ "seen": sum(|m| &m.events_in), "shown": events.len(), "events": events });
    }
    answer
}

/// Latencies of all shards since the start, in microseconds.
pub fn total_latency(shared: &Shared) -> Histogram<u64> {
    let mut total = histogram();
    for metrics in &shared.metrics {
        metrics.latency.lock().add_total(&mut total);
    }
    total
}

fn per_shard(shared: &Shared, shard: usize, metrics: &ShardMetrics, now: Now) -> Value {
    let mut turn = histogram();
    metrics.turn.lock().add_recent(&mut turn, now.mono);
    json!({
        "shard": shard,
        "connections": metrics.clients.get(),
        "eventsIn": metrics.events_in.get(),
        "deliveries": metrics.deliveries.get(),
        "turnP99Ms": turn.value_at_quantile(0.99) as f64 / 1e3,
        "linkBytes": shared.links[shard].in_flight(),
        "sweep": metrics.sweep.get(),
    })
}

fn refused(all: &[ShardMetrics]) -> Value {
    let mut events =
        by_name(ErrorCode::ALL, ErrorCode::name, |code| all.iter().map(|m| m.refused(code)).sum());
    let other = by_name(BadInput::ALL, BadInput::name, |kind| all.iter().map(|m| m.bad_input(kind)).sum());
    events.extend(other);
    events.into()
}

/// Reasons that have occurred, with their counts.
fn by_name<R: Copy>(
    reasons: impl IntoIterator<Item = R>,
    name: impl Fn(R) -> &'static str,
    count: impl Fn(R) -> u64,
) -> Map<String, Value> {
    let counted = reasons.into_iter().map(|reason| (name(reason).to_owned(), count(reason)));
    counted.filter(|(_, count)| *count > 0).map(|(name, count)| (name, count.into())).collect()
}

fn quantiles(microseconds: &Histogram<u64>) -> Value {
    let at = |quantile| microseconds.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "count": microseconds.len(),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": microseconds.max() as f64 / 1e3,
    })
}
