//! Figures. Each shard writes its own and nobody else's, so counting is a plain add: no locked instruction,
//! no shared cache line. Whoever reads sums over the shards.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::dialect::dialect::Dialect;
use crate::error::{CloseReason, ErrorCode};

/// A figure that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds; only for the owning shard.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Adds one; only for the owning shard.
    pub fn one(&self) {
        self.add(1);
    }

    /// Sets; only for the owning shard.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why an event that was dispatched to a session did not reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Left out by the policy `drop-oldest`; the client is told.
    DropOldest,
    /// Left out by the policy `drop-newest`; the client is told.
    DropNewest,
    /// Replaced by a newer event of the same key, by the policy `conflate`; the client is told.
    Conflated,
    /// The topic's history did not reach back to it; the client is told.
    HistoryTrimmed,
    /// Its session ended first; the close reason says why.
    Closed(CloseReason),
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        let told = [Self::DropOldest, Self::DropNewest, Self::Conflated, Self::HistoryTrimmed];
        told.into_iter().chain(CloseReason::ALL.into_iter().map(Self::Closed))
    }

    /// The name used in metrics and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Conflated => "conflated",
            Self::HistoryTrimmed => "history_trimmed",
            Self::Closed(reason) => reason.name(),
        }
    }

    const fn number(self) -> usize {
        match self {
            Self::DropOldest => 0,
            Self::DropNewest => 1,
            Self::Conflated => 2,
            Self::HistoryTrimmed => 3,
            Self::Closed(reason) => 4 + reason as usize,
        }
    }
}

/// What was refused of what clients and HTTP callers sent; refusals of events are [`ErrorCode`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadInput {
    /// A request that is not HTTP, or not as it should be.
    Http,
    /// A WebSocket frame against RFC 6455, bad UTF-8, binary, or too big.
    Frame,
    /// A message that was answered by an `error`.
    Message,
    /// A handshake, request or message that took longer than it may.
    Timeout,
    /// A request of a page whose origin may not ask.
    Origin,
    /// A message above `max_messages_per_second`.
    Rate,
}

impl BadInput {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Http, Self::Frame, Self::Message, Self::Timeout, Self::Origin, Self::Rate];

    /// The name used in metrics and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Frame => "websocket_frame",
            Self::Message => "client_message",
            Self::Timeout => "timeout",
            Self::Origin => "origin",
            Self::Rate => "message_rate",
        }
    }
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// More sessions were opened than `handshakes_per_second` lets in.
    Rate,
    /// `max_clients` were connected.
    Capacity,
    /// The node is shutting down.
    Draining,
}

impl NotAdmitted {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Rate, Self::Capacity, Self::Draining];

    /// The name used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Capacity => "capacity",
            Self::Draining => "draining",
        }
    }
}

/// The figures of one shard.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// Events accepted from publishers.
    pub events_in: Figure,
    /// Bytes of names, keys and data of those.
    pub event_bytes_in: Figure,
    /// Events accepted that nobody anywhere was subscribed to.
    pub events_unsubscribed: Figure,
    /// Events accepted that matched a prefix pattern.
    pub events_pattern_matched: Figure,
    /// Look-ups in the table of patterns: what they cost those who publish.
    pub pattern_probes: Figure,
    /// Events accepted that went out with something masked by a guard.
    pub events_masked: Figure,
    /// Events that were accepted before, from the same publisher's name or under the same key: acknowledged, and
    /// not published again.
    pub events_duplicate: Figure,
    /// Receipts sent to publishers.
    pub receipts: Figure,
    /// Events written by an envelope: at most once per event and envelope.
    pub envelope_writes: Figure,
    /// Events compressed, at most once per event and envelope.
    pub events_compressed: Figure,
    /// Bytes of events given to the compressor, by what they had as frames' payloads.
    pub compressor_bytes_in: Figure,
    /// What those came to, what got no smaller too.
    pub compressor_bytes_out: Figure,
    /// Compressed messages of clients inflated.
    pub messages_inflated: Figure,
    /// Bytes that those came to.
    pub inflated_bytes: Figure,
    /// Rounds taken from the link.
    pub rounds: Figure,
    /// Events matched with a session: delivered, dropped or pending.
    pub dispatched: Figure,
    /// Events of those that came from a history.
    pub replayed: Figure,
    /// Events handed to the kernel.
    pub deliveries: Figure,
    /// Bytes handed to the kernel, for whomever.
    pub delivered_bytes: Figure,
    /// Writes to connections.
    pub flushes: Figure,
    /// Writes to connections that the kernel refused.
    pub refused_writes: Figure,
    /// Times that publishers waited for clients whose sockets had just begun to refuse.
    pub publisher_pauses: Figure,
    /// For how long they did, in nanoseconds.
    pub publishers_paused: Figure,
    /// Events dropped, by [`DropReason`].
    dropped: [Figure; 4 + CloseReason::ALL.len()],
    /// Sessions ended, by [`CloseReason`].
    closed: [Figure; CloseReason::ALL.len()],
    /// Events refused, by [`ErrorCode`].
    refused: [Figure; ErrorCode::ALL.len()],
    /// Other input refused, by [`BadInput`].
    bad_input: [Figure; BadInput::ALL.len()],
    /// Clients not let in, by [`NotAdmitted`].
    not_admitted: [Figure; NotAdmitted::ALL.len()],
    /// Connections accepted.
    pub accepted: Figure,
    /// Times that accepting was paused for want of file descriptors.
    pub accept_pauses: Figure,
    /// Clients connected now.
    pub clients: Figure,
    /// The same by [`Dialect`].
    dialect_clients: [Figure; Dialect::ALL.len()],
    /// Publishers connected now.
    pub publishers: Figure,
    /// Other connections now: handshakes, HTTP requests, closes under way.
    pub other_connections: Figure,
    /// Subscriptions now.
    pub subscriptions: Figure,
    /// Topics with a subscriber in this shard now.
    pub topics: Figure,
    /// Clients now whose socket takes no more.
    pub blocked_clients: Figure,
    /// Bytes held for clients now: chunks, and what is private to a client.
    pub outbox_bytes: Figure,
    /// Age of the oldest event that waits for a client, in nanoseconds, as of the last look.
    pub oldest_age: Figure,
    /// Connections that wait to be flushed now.
    pub sweep: Figure,
    /// From the read that took an event in to its hand-over to the kernel, in microseconds.
    pub latency: Mutex<Windowed>,
    /// Length of a turn of the loop, in microseconds.
    pub turn: Mutex<Windowed>,
    /// How long sessions lasted, in seconds.
    pub session_seconds: Mutex<Windowed>,
}

impl ShardMetrics {
    /// Counts events that were dropped.
    pub fn drop_events(&self, reason: DropReason, n: u64) {
        self.dropped[reason.number()].add(n);
    }

    /// Counts a session that ended.
    pub fn close(&self, reason: CloseReason) {
        self.closed[reason as usize].one();
    }

    /// Counts events that were refused.
    pub fn refuse(&self, code: ErrorCode, n: u64) {
        // Every code is in `ALL`, which a test checks.
        if let Some(place) = ErrorCode::ALL.iter().position(|other| *other == code) {
            self.refused[place].add(n);
        }
    }

    /// Counts input that was refused.
    pub fn refuse_input(&self, kind: BadInput) {
        self.bad_input[kind as usize].one();
    }

    /// Counts a client that was not let in.
    pub fn turn_away(&self, reason: NotAdmitted) {
        self.not_admitted[reason as usize].one();
    }

    /// Clients not let in.
    pub fn turned_away(&self, reason: NotAdmitted) -> u64 {
        self.not_admitted[reason as usize].get()
    }

    /// Says how many clients of a dialect are connected.
    pub fn set_clients_of(&self, dialect: Dialect, clients: usize) {
        self.dialect_clients[dialect as usize].set(clients as u64);
    }

    /// Clients of a dialect connected now.
    pub fn clients_of(&self, dialect: Dialect) -> u64 {
        self.dialect_clients[dialect as usize].get()
    }

    /// Events dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason.number()].get()
    }

    /// Sessions ended for a reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].get()
    }

    /// Events refused with a code.
    pub fn refused(&self, code: ErrorCode) -> u64 {
        ErrorCode::ALL.iter().position(|other| *other == code).map_or(0, |place| self.refused[place].get())
    }

    /// Input refused.
    pub fn bad_input(&self, kind: BadInput) -> u64 {
        self.bad_input[kind as usize].get()
    }

    /// Events dispatched that have neither reached the kernel nor been dropped.
    pub fn pending(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().map(Figure::get).sum();
        self.dispatched.get().saturating_sub(self.deliveries.get() + dropped)
    }
}

/// A histogram since the start, and one of the last seconds.
#[derive(Debug)]
pub struct Windowed {
    total: Histogram<u64>,
    total_sum: u64,
    windows: [Histogram<u64>; 2],
    turned: u64,
}

/// Nanoseconds of one window; "recent" is the present one and the one before.
pub const WINDOW: u64 = 5_000_000_000;

/// The largest value kept: larger ones count as this.
const HIGHEST: u64 = 3_600_000_000;

impl Windowed {
    /// Records `count` values.
    pub fn record(&mut self, value: u64, count: u64, now: u64) {
        self.turn(now);
        let value = value.min(HIGHEST);
        self.total_sum = self.total_sum.saturating_add(value.saturating_mul(count));
        self.total.saturating_record_n(value, count);
        self.windows[0].saturating_record_n(value, count);
    }

    fn turn(&mut self, now: u64) {
        if now < self.turned + WINDOW {
            return;
        }
        self.windows.swap(0, 1);
        self.windows[0].reset();
        if now >= self.turned + 2 * WINDOW {
            self.windows[1].reset();
        }
        self.turned = now - now % WINDOW;
    }

    /// Adds all values since the start to `into`, and answers their sum.
    pub fn add_total(&self, into: &mut Histogram<u64>) -> u64 {
        // Both were made by `histogram`, so they cover the same range.
        let _ = into.add(&self.total);
        self.total_sum
    }

    /// Adds the values of the last seconds to `into`.
    pub fn add_recent(&mut self, into: &mut Histogram<u64>, now: u64) {
        self.turn(now);
        for window in &self.windows {
            let _ = into.add(window);
        }
    }
}

impl Default for Windowed {
    fn default() -> Self {
        Self { total: histogram(), total_sum: 0, windows: [histogram(), histogram()], turned: 0 }
    }
}

/// An empty histogram of the kind that all figures here are kept in: to two digits, up to an hour of
/// microseconds.
pub fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the constructor accepts")]
    Histogram::new_with_bounds(1, HIGHEST, 2).expect("valid bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for (place, reason) in DropReason::all().enumerate() {
            assert_eq!(reason.number(), place);
        }
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, kind) in BadInput::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        for (place, reason) in NotAdmitted::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        let metrics = ShardMetrics::default();
        for code in ErrorCode::ALL {
            metrics.refuse(code, 2);
            assert_eq!(metrics.refused(code), 2);
        }
    }

    #[test]
    fn what_is_dispatched_is_delivered_dropped_or_pending() {
        let metrics = ShardMetrics::default();
        metrics.dispatched.add(10);
        metrics.deliveries.add(3);
        metrics.drop_events(DropReason::DropOldest, 2);
        metrics.drop_events(DropReason::Closed(CloseReason::SlowConsumer), 1);
        assert_eq!(metrics.pending(), 4);
    }

    #[test]
    fn recent_values_go_and_the_total_stays() {
        let mut windowed = Windowed::default();
        windowed.record(100, 5, 0);
        windowed.record(200, 1, WINDOW);
        let mut recent = histogram();
        windowed.add_recent(&mut recent, WINDOW);
        assert_eq!(recent.len(), 6);
        recent.reset();
        windowed.add_recent(&mut recent, 2 * WINDOW);
        assert_eq!(recent.len(), 1);
        recent.reset();
        windowed.add_recent(&mut recent, 20 * WINDOW);
        assert_eq!(recent.len(), 0);
        let mut total = histogram();
        assert_eq!(windowed.add_total(&mut total), 700);
        assert_eq!(total.len(), 6);
    }
}
