//! Time as a value. The engine never asks for it: `now` is a parameter, so tests and the simulation jump it.

use std::time::{Duration, Instant};

/// One reading of both clocks. Every timer runs on `mono`; `wall_ms` only ever stamps events and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the node started, monotonic.
    pub mono: u64,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

impl Now {
    /// This moment plus `duration`, on the monotonic clock, in nanoseconds.
    pub fn after(self, duration: Duration) -> u64 {
        self.mono.saturating_add(nanos(duration))
    }
}

/// A duration in nanoseconds, saturating at about 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The real clock: what the shell of the node reads once per turn.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        // A wall clock set before 1970 is shown as 1970: it stamps events, nothing depends on it.
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: nanos(self.start.elapsed()),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).min(LATEST_MS),
        }
    }
}

/// The last millisecond that ISO 8601 writes with a four-digit year: 9999-12-30T22:00:00Z, the end of the
/// calendar that `jiff` covers.
pub const LATEST_MS: u64 = 253_402_207_200_000;

/// Writes timestamps as ISO 8601, UTC, milliseconds (`2024-01-15T10:15:00.000Z`).
///
/// Events come in bursts of the same second, so the text of the last second is kept and only its
/// milliseconds are written anew.
#[derive(Debug)]
pub struct Iso8601 {
    second: u64,
    text: [u8; Self::LENGTH],
}

impl Iso8601 {
    /// Bytes of every timestamp written.
    pub const LENGTH: usize = 24;

    /// A writer with nothing remembered.
    pub const fn new() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000Z" }
    }

    /// The text of a Unix time in milliseconds; later than [`LATEST_MS`] counts as that.
    pub fn format(&mut self, unix_ms: u64) -> &str {
        let unix_ms = unix_ms.min(LATEST_MS);
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            if let Ok(at) = jiff::Timestamp::from_second(second.cast_signed()) {
                let text = at.to_string(); // `2024-01-15T10:15:00Z`
                self.text[..19].copy_from_slice(&text.as_bytes()[..19]);
            }
            self.second = second;
        }
        for (place, divisor) in [(20, 100), (21, 10), (22, 1)] {
            self.text[place] = b'0' + (ms / divisor % 10) as u8;
        }
        // Only digits and ASCII punctuation are ever written into it.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

impl Default for Iso8601 {
    fn default() -> Self {
        Self::new()
    }
}

/// Parses an ISO 8601 timestamp with an offset (RFC 3339) into Unix milliseconds.
pub fn parse_iso8601(text: &str) -> Result<u64, String> {
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("`timestamp` {text:?} is not an ISO 8601 time like 2024-01-15T10:15:00.000Z"))?;
    u64::try_from(at.as_millisecond()).map_err(|_| format!("`timestamp` {text:?} is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_the_seeds_show_them() {
        let mut iso = Iso8601::new();
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_705_313_700_000, "2024-01-15T10:15:00.000Z"),
            (1_705_313_700_007, "2024-01-15T10:15:00.007Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (999, "1970-01-01T00:00:00.999Z"),
            (LATEST_MS, "9999-12-30T22:00:00.000Z"),
            (u64::MAX, "9999-12-30T22:00:00.000Z"),
        ] {
            assert_eq!(iso.format(ms), text);
        }
    }

    #[test]
    fn timestamps_are_read_with_any_offset() {
        assert_eq!(parse_iso8601("2024-01-15T10:15:00.000Z"), Ok(1_705_313_700_000));
        assert_eq!(parse_iso8601("2024-01-15T12:15:00+02:00"), Ok(1_705_313_700_000));
        for bad in ["", "yesterday", "2024-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "2024-01-15T10:15:00"] {
            assert!(parse_iso8601(bad).is_err(), "{bad}");
        }
    }
}
