//! What `fanwire top` shows: from two answers of a node to lines of text. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of one cell at most where a screen has to hold the table.
const CELL: usize = 28;
/// Columns between two cells.
const GAP: usize = 2;

/// The figures of a node. What a node does not tell is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Stats {
    version: String,
    state: String,
    uptime_seconds: f64,
    connections: u64,
    max_clients: u64,
    dialects: BTreeMap<String, u64>,
    events_in: u64,
    deliveries: u64,
    outbox: Outbox,
    latency_recent_ms: Latency,
    timestamp: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Outbox {
    held_bytes: u64,
    max_bytes: u64,
    blocked_clients: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Latency {
    count: u64,
    p50: f64,
    p99: f64,
    seconds: u64,
}

/// The clients that are behind.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Slow {
    clients: Vec<Client>,
    clients_truncated: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Client {
    client_id: String,
    address: String,
    dialect: String,
    topics: Vec<String>,
    topics_truncated: bool,
    queued_events: u64,
    queued_bytes: u64,
    oldest_ms: f64,
    kernel_unsent_bytes: Option<u64>,
    rtt_ms: Option<f64>,
    retransmits: Option<u64>,
    dropped: BTreeMap<String, u64>,
}

/// The room that there is; `None`: as much as is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) columns: Option<usize>,
    pub(super) rows: Option<usize>,
}

/// What is shown now.
#[derive(Debug)]
pub(super) struct Frame {
    host: String,
    stats: Option<Stats>,
    slow: Slow,
    /// Events in and deliveries a second.
    rates: Option<(f64, f64)>,
    trouble: Option<String>,
}

impl Frame {
    /// Nothing of the node at `host` so far.
    pub(super) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), stats: None, slow: Slow::default(), rates: None, trouble: None }
    }

    /// Whether nothing has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.stats.is_none()
    }

    /// The node has answered.
    pub(super) fn take(&mut self, stats: Stats, slow: Slow) {
        self.rates = self.stats.as_ref().and_then(|before| {
            let seconds = stats.uptime_seconds - before.uptime_seconds;
            // A node that was started again counts from nothing.
            let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            (seconds > 0.0).then(|| {
                (
                    per_second(stats.events_in, before.events_in),
                    per_second(stats.deliveries, before.deliveries),
                )
            })
        });
        self.stats = Some(stats);
        self.slow = slow;
        self.trouble = None;
    }

    /// The node has not answered: what was there is shown with the reason.
    pub(super) fn fail(&mut self, message: String) {
        self.trouble = Some(message);
    }

    /// The lines, each without its end.
    pub(super) fn lines(&self, size: Size) -> Vec<String> {
        let mut lines: Vec<String> =
            self.trouble.iter().map(|trouble| format!("{trouble}; trying again")).collect();
        if let Some(stats) = &self.stats {
            self.write_header(stats, &mut lines);
            lines.push(String::new());
            self.write_clients(size, lines.len(), &mut lines);
        } else if self.trouble.is_none() {
            lines.push(format!("asking {}", printable(&self.host)));
        }
        if let Some(rows) = size.rows {
            lines.truncate(rows);
        }
        if let Some(columns) = size.columns {
            lines.iter_mut().for_each(|line| *line = cut(line, columns).into_owned());
        }
        lines
    }

    fn write_header(&self, stats: &Stats, lines: &mut Vec<String>) {
        lines.push(format!(
            "{}  fanwire {}  {}  up {}  {}",
            printable(&self.host),
            printable(&stats.version),
            printable(&stats.state),
            duration(stats.uptime_seconds),
            printable(&stats.timestamp),
        ));
        let dialects = stats.dialects.iter().map(|(name, count)| format!("{} {count}", printable(name)));
        let dialects = dialects.collect::<Vec<_>>().join(", ");
        let Outbox { held_bytes, max_bytes, blocked_clients } = stats.outbox;
        lines.push(format!(
            "clients {} of {}{}  blocked {blocked_clients}  outboxes {} of {}",
            stats.connections,
            stats.max_clients,
            if dialects.is_empty() { dialects } else { format!(" ({dialects})") },
            bytes(held_bytes),
            bytes(max_bytes),
        ));
        let (events, deliveries) = match self.rates {
            Some((events, deliveries)) => (rate(events), rate(deliveries)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let Latency { count, p50, p99, seconds } = stats.latency_recent_ms;
        let (p50, p99) = match count {
            0 => ("-".to_owned(), "-".to_owned()),
            _ => (millis(p50), millis(p99)),
        };
        lines.push(format!(
            "events {events}/s  deliveries {deliveries}/s  p50 {p50}  p99 {p99}  (last {seconds} s)"
        ));
    }

    fn write_clients(&self, size: Size, used: usize, lines: &mut Vec<String>) {
        let clients = &self.slow.clients;
        if clients.is_empty() {
            lines.push("nobody is behind".to_owned());
            return;
        }
        // The head of the table and the line that tells of more take a row each.
        let room = size.rows.map_or(usize::MAX, |rows| rows.saturating_sub(used + 2));
        let cells = clients.iter().take(room).map(|client| row(client, size.columns.is_some()));
        let all: Vec<[String; COLUMNS]> = [HEAD.map(str::to_owned)].into_iter().chain(cells).collect();
        let mut widths = [0; COLUMNS];
        for row in &all {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        lines.extend(all.iter().map(|row| line(row, &widths)));
        if clients.len() > room {
            lines.push(format!("and {} more", clients.len() - room));
        } else if self.slow.clients_truncated {
            lines.push("and more: see --limit".to_owned());
        }
    }
}

const COLUMNS: usize = 11;
const HEAD: [&str; COLUMNS] = [
    "CLIENT", "ADDRESS", "DIALECT", "EVENTS", "QUEUED", "OLDEST", "UNSENT", "RTT", "RETRANS", "DROPPED",
    "TOPICS",
];
/// Columns of numbers stand at their right edge.
const NUMBERS: std::ops::RangeInclusive<usize> = 3..=8;

fn row(client: &Client, is_cut: bool) -> [String; COLUMNS] {
    let text = |text: &str| {
        let text = printable(text);
        if is_cut { cut(&text, CELL).into_owned() } else { text.into_owned() }
    };
    let or_dash = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
    let dropped: Vec<String> =
        client.dropped.iter().map(|(reason, count)| format!("{count} {}", printable(reason))).collect();
    let mut topics: Vec<Cow<'_, str>> = client.topics.iter().map(|topic| printable(topic)).collect();
    if client.topics_truncated {
        topics.push("…".into());
    }
    [
        text(&client.client_id),
        text(&client.address),
        text(&client.dialect),
        client.queued_events.to_string(),
        bytes(client.queued_bytes),
        millis(client.oldest_ms),
        or_dash(client.kernel_unsent_bytes.map(bytes)),
        or_dash(client.rtt_ms.map(millis)),
        or_dash(client.retransmits.map(|count| count.to_string())),
        if dropped.is_empty() { "-".to_owned() } else { dropped.join(", ") },
        topics.join(" "),
    ]
}

fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut line = String::new();
    for (place, (cell, width)) in row.iter().zip(widths).enumerate() {
        let pad = " ".repeat(width.saturating_sub(cell.width()));
        let (before, after) =
            if NUMBERS.contains(&place) { (pad, String::new()) } else { (String::new(), pad) };
        if place > 0 {
            line += &" ".repeat(GAP);
        }
        line += &before;
        line += cell;
        line += &after;
    }
    line.truncate(line.trim_end().len());
    line
}

/// As much of a line as fits into so many columns, with a sign where it was cut.
fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return text.into();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    if columns > 0 {
        shown.push('…');
    }
    shown.into()
}

/// Text of strangers as it can be shown: what could steer a terminal, or hide or reorder other text, is written
/// out.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let is_tricky = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if !text.contains(is_tricky) {
        return text.into();
    }
    let escaped = |c: char| if is_tricky(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

fn rate(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn millis(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.2}ms"),
        1.0..10.0 => format!("{value:.1}ms"),
        10.0..1000.0 => format!("{value:.0}ms"),
        1000.0..100_000.0 => format!("{:.1}s", value / 1000.0),
        _ => duration(value / 1000.0),
    }
}

fn bytes(value: u64) -> String {
    let (mut value, mut unit) = (value as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

fn duration(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        ..60 => format!("{s}s"),
        60..3600 => format!("{}m{}s", s / 60, s % 60),
        3600..86400 => format!("{}h{}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn stats(uptime: f64, events: u64) -> Stats {
        from_value(json!({
            "version": "0.1.0", "state": "ready", "uptimeSeconds": uptime, "connections": 3, "maxClients": 1000,
            "dialects": {"json": 2, "sse": 1}, "eventsIn": events, "deliveries": events * 3,
            "outbox": {"heldBytes": 2_097_152, "maxBytes": 268_435_456, "blockedClients": 1},
            "latencyRecentMs": {"count": 9, "p50": 0.25, "p99": 12.3, "seconds": 10},
            "timestamp": "2026-01-02T03:04:05.678Z", "whatNewerNodesAdd": {},
        }))
        .unwrap()
    }

    fn client(name: &str) -> Value {
        json!({"clientId": name, "address": "10.0.0.9:42858", "dialect": "json", "topics": ["a", "b"],
               "queuedEvents": 68, "queuedBytes": 1_366_528, "oldestMs": 1300, "kernelUnsentBytes": 2304,
               "rttMs": 0.041, "retransmits": 2, "dropped": {"drop_oldest": 7}})
    }

    fn frame(clients: Value) -> Frame {
        let mut frame = Frame::new("127.0.0.1:8080");
        frame.take(stats(100.0, 50), Slow::default());
        frame.take(stats(102.0, 70), from_value(json!({"clients": clients})).unwrap());
        frame
    }

    #[test]
    fn figures_and_clients_are_shown_in_columns() {
        let unknown = json!({"clientId": "client-5", "address": "[::1]:7", "dialect": "sse", "topics": ["t"],
                             "topicsTruncated": true, "kernelUnsentBytes": null, "rttMs": null, "retransmits": null});
        let lines = frame(json!([client("worker-7"), unknown])).lines(Size::default());
        assert_eq!(
            lines,
            [
                "127.0.0.1:8080  fanwire 0.1.0  ready  up 1m42s  2026-01-02T03:04:05.678Z",
                "clients 3 of 1000 (json 2, sse 1)  blocked 1  outboxes 2.0MiB of 256MiB",
                "events 10/s  deliveries 30/s  p50 0.25ms  p99 12ms  (last 10 s)",
                "",
                "CLIENT    ADDRESS         DIALECT  EVENTS  QUEUED  OLDEST  UNSENT     RTT  RETRANS  DROPPED        TOPICS",
                "worker-7  10.0.0.9:42858  json         68  1.3MiB    1.3s  2.2KiB  0.04ms        2  7 drop_oldest  a b",
                "client-5  [::1]:7         sse           0      0B  0.00ms       -       -        -  -              t …",
            ]
        );
        let lines = frame(json!([])).lines(Size::default());
        assert_eq!(lines.last().unwrap(), "nobody is behind");
    }

    #[test]
    fn names_of_strangers_steer_nothing_and_stay_in_their_column() {
        let hostile = "\x1b[2J\x1b]0;owned\x07\r\n\u{9b}31m\u{202e}gpj";
        let mut slow = client(hostile);
        slow["topics"] = json!([hostile]);
        slow["dropped"] = json!({hostile: 1});
        for size in [Size::default(), Size { columns: Some(200), rows: Some(20) }] {
            let lines = frame(json!([slow])).lines(size);
            assert!(lines.iter().all(|line| !line.contains(char::is_control) && !line.contains('\u{202e}')));
            assert!(lines.last().unwrap().starts_with("\\u001b[2J\\u001b]0;owned"), "{lines:?}");
        }
        let lines = frame(json!([client("日本語"), client("abc")])).lines(Size::default());
        let column = |line: &str| line[..line.find("10.0").unwrap()].width();
        assert_eq!(column(&lines[5]), column(&lines[6]));
    }

    #[test]
    fn no_line_and_no_table_is_larger_than_its_screen() {
        let clients: Value = (0..30).map(|n| client(&format!("client-{n}-{}", "長".repeat(40)))).collect();
        for columns in [0, 1, 2, 7, 40, 80, 200] {
            for rows in [1, 3, 5, 6, 7, 24, 40] {
                let lines = frame(clients.clone()).lines(Size { columns: Some(columns), rows: Some(rows) });
                assert!(lines.len() <= rows, "{columns} {rows}");
                assert!(lines.iter().all(|line| line.width() <= columns), "{columns} {rows}: {lines:#?}");
            }
        }
        let lines = frame(clients).lines(Size { columns: Some(80), rows: Some(10) });
        assert_eq!((lines.len(), lines[9].as_str()), (10, "and 26 more"));
    }

    #[test]
    fn a_node_that_is_away_or_new_leaves_no_wrong_rates() {
        let mut frame = frame(json!([]));
        frame.fail("127.0.0.1:8080 cannot be asked: no".to_owned());
        let lines = frame.lines(Size::default());
        assert_eq!(lines[0], "127.0.0.1:8080 cannot be asked: no; trying again");
        assert!(lines[1].starts_with("127.0.0.1:8080  fanwire"), "what was there stays");
        frame.take(stats(1.0, 5), Slow::default());
        assert!(frame.lines(Size::default())[2].starts_with("events -/s  deliveries -/s  "));
        assert_eq!(Frame::new("h").lines(Size::default()), ["asking h"]);
    }

    #[test]
    fn figures_are_short() {
        for (value, expected) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (150 << 20, "150MiB"), (u64::MAX, "16777216TiB")]
        {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in
            [(0.5, "0.50ms"), (1.0, "1.0ms"), (999.0, "999ms"), (1500.0, "1.5s"), (120_000.0, "2m0s")]
        {
            assert_eq!(millis(value), expected);
        }
        for (value, expected) in [(5.9, "5s"), (3600.0, "1h0m"), (90_000.0, "1d1h")] {
            assert_eq!(duration(value), expected);
        }
    }
}
