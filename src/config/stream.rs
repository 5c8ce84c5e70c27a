//! `[[stream]]`: paths that subscribe by connecting to them.

use super::table::{HOUR, MS};
use super::tables::{Field, Row, field};
use super::value::{Count, Kind, Maybe, Period, Size, Text, any_text, one_line};
use super::{Located, Settings, Stream, StreamLimits};

/// One `[[stream]]` of the file.
#[derive(Default)]
pub(super) struct StreamRow {
    path: Option<Located<String>>,
    topic: Option<Located<String>>,
    envelope: Option<Located<String>>,
    limits: StreamLimits,
}

impl Row for StreamRow {
    const NAME: &'static str = "stream";

    const FIELDS: &'static [Field<Self>] = &[
        field!(required path, Text(1024, path)),
        field!(required topic, Text(1024, one_line)),
        field!(required envelope, Text(64 << 10, any_text)),
        field!((limits) queue_events, Maybe(Count(1, 1_000_000))),
        field!((limits) write_timeout, Maybe(Period(MS, HOUR))),
        field!((limits) heartbeat_interval, Period(MS, 24 * HOUR)),
        field!((limits) heartbeat_timeout, Period(MS, 48 * HOUR)),
        field!((limits) max_message_bytes, Size(64, 64 << 20)),
    ];

    fn check(&self, earlier: &[Self]) -> Vec<(&'static [&'static str], String)> {
        let mut found: Vec<(&'static [&'static str], String)> = Vec::new();
        let limits = &self.limits;
        if limits.heartbeat_timeout <= limits.heartbeat_interval {
            let message = format!(
                "heartbeat_timeout ({:?}) must be longer than heartbeat_interval ({:?})",
                limits.heartbeat_timeout, limits.heartbeat_interval
            );
            found.push((&["heartbeat_timeout", "heartbeat_interval"], message));
        }
        if let Some(path) = &self.path
            && let Some(other) =
                earlier.iter().filter_map(|row| row.path.as_ref()).find(|other| *other == path)
        {
            found.push((&["path"], format!("path: `{}` is the path at {} already", path.value, other.place)));
        }
        found
    }

    fn rows(settings: &Settings) -> Vec<Self> {
        let both = settings.streams.iter().zip(&settings.limits.streams);
        both.map(|(stream, limits)| Self {
            path: Some(stream.path.clone()),
            topic: Some(stream.topic.clone()),
            envelope: Some(stream.envelope.clone()),
            limits: limits.clone(),
        })
        .collect()
    }

    fn store(rows: Vec<Self>, settings: &mut Settings) {
        // Each has the three: they are required.
        let complete = rows.into_iter().filter_map(|row| {
            Some((Stream { path: row.path?, topic: row.topic?, envelope: row.envelope? }, row.limits))
        });
        (settings.streams, settings.limits.streams) = complete.unzip();
    }

    fn same(one: &Settings, other: &Settings) -> bool {
        one.streams == other.streams
    }
}

/// Which paths there are in a template, others know; this is what every one of them has.
fn path(text: &str) -> Result<(), String> {
    one_line(text)?;
    if !text.starts_with('/') {
        return Err(format!("`{text}` must begin with /"));
    }
    match text.chars().find(|c| matches!(c, '?' | '#') || c.is_whitespace()) {
        Some(c) => Err(format!("`{text}` must not have `{c}`: it is a path, not an address")),
        None => Ok(()),
    }
}
