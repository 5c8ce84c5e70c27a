//! The mark that every event carries: its topic, its number there, and when it was meant to be sent.
//!
//! It is text inside the event's data, so it passes through any server. All events of a run have the same length, so a
//! reader looks for the next mark where the last one was, one stride further, and searches only where it is not there.

use memchr::memmem::Finder;

/// What stands before a probe.
pub(crate) const MARKER: &[u8] = br#""probe":""#;
/// Digits of the topic, of the event's number, of the intended time, and the two dots between them.
const PROBE_LEN: usize = 4 + 1 + 8 + 1 + 16;
/// Marker and probe.
pub(crate) const MARKED_LEN: usize = MARKER.len() + PROBE_LEN;
/// Topics at most: what four digits can tell apart.
pub const MAX_TOPICS: usize = 10_000;
/// Bytes of the data of an event as it is where nobody asks for another length.
pub const DATA_BYTES: usize = 159;

/// One JSON object of `bytes` bytes, [`DATA_BYTES`] at least, that ends with an empty probe.
pub fn data(bytes: usize) -> String {
    const START: &str = r#"{"retryId":"retry-123","attemptNumber":1,"errorMessage":"Connection timeout","nextRetryAt":"2024-01-15T10:30:00.000Z","#;
    const END: &str = r#""probe":"0000.00000000.0000000000000000"}"#;
    const PAD: &str = r#""pad":"","#;
    debug_assert_eq!(START.len() + END.len(), DATA_BYTES);
    let missing = bytes.saturating_sub(DATA_BYTES);
    match missing.checked_sub(PAD.len()) {
        None => format!("{START}{END}"),
        Some(pad) => format!(r#"{START}"pad":"{}",{END}"#, "x".repeat(pad)),
    }
}

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The topic's number, in its four digits.
    pub(crate) topic: [u8; 4],
    /// The number of the event in its topic, from 1.
    pub(crate) number: u64,
    /// When it was meant to be sent, in nanoseconds since the generator's start.
    pub(crate) sent: u64,
}

impl Probe {
    fn read(bytes: &[u8; PROBE_LEN]) -> Self {
        let [t0, t1, t2, t3, ..] = *bytes;
        let sent = eight_digits(bytes, 14) * 100_000_000 + eight_digits(bytes, 22);
        Self { topic: [t0, t1, t2, t3], number: eight_digits(bytes, 5), sent }
    }

    /// Writes number and time over those in `event`, whose probe begins at `at`.
    pub(crate) fn write(event: &mut [u8], at: usize, number: u64, sent: u64) {
        let probe = &mut event[at..][..PROBE_LEN];
        write_digits(&mut probe[5..13], number);
        write_digits(&mut probe[14..30], sent);
    }

    /// Writes the topic over that in `event`, whose probe begins at `at`.
    pub(crate) fn write_topic(event: &mut [u8], at: usize, topic: u32) {
        event[at..at + 4].copy_from_slice(&topic_digits(topic));
    }
}

/// Calls `each` with every probe in `bytes`, in their order. `stride` is from one probe to the next, and is learned.
/// Answers where what has to be kept for the next bytes begins: at most [`MARKED_LEN`] − 1 of them are left.
#[inline]
pub(crate) fn scan(
    bytes: &[u8],
    finder: &Finder<'_>,
    stride: &mut usize,
    mut each: impl FnMut(Probe),
) -> usize {
    // Where the next marker may begin, where it probably is, and where the one before it was.
    let (mut from, mut guess, mut last) = (0, usize::MAX, None);
    loop {
        let at = match bytes.get(guess..).and_then(<[u8]>::first_chunk::<{ MARKER.len() }>) {
            Some(marker) if marker == MARKER => guess,
            _ => match finder.find(&bytes[from..]) {
                Some(offset) => {
                    let at = from + offset;
                    *stride = last.map_or(*stride, |last| at - last);
                    at
                }
                // A marker may have begun in the last bytes.
                None => return from.max(bytes.len().saturating_sub(MARKER.len() - 1)),
            },
        };
        let Some(probe) = bytes[at + MARKER.len()..].first_chunk::<PROBE_LEN>() else { return at };
        each(Probe::read(probe));
        from = at + MARKED_LEN;
        guess = at + *stride;
        last = Some(at);
    }
}

/// A topic's number as it stands in a probe.
pub(crate) fn topic_digits(topic: u32) -> [u8; 4] {
    let mut out = [0; 4];
    write_digits(&mut out, u64::from(topic));
    out
}

fn write_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The value of the eight digits at `at`, in three multiplications: pairs, then fours, then all.
fn eight_digits(probe: &[u8; PROBE_LEN], at: usize) -> u64 {
    let digits = probe[at..].first_chunk().copied().unwrap_or_default();
    let value = u64::from_le_bytes(digits) & 0x0F0F_0F0F_0F0F_0F0F;
    let value = value.wrapping_mul(1 + (10 << 8)) >> 8;
    let value = (value & 0x00FF_00FF_00FF_00FF).wrapping_mul(1 + (100 << 16)) >> 16;
    (value & 0x0000_FFFF_0000_FFFF).wrapping_mul(1 + (10_000 << 32)) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use memchr::memmem;

    fn event(topic: u32, number: u64, sent: u64) -> Vec<u8> {
        let mut event = data(0).into_bytes();
        let at = memmem::find(&event, MARKER).unwrap() + MARKER.len();
        Probe::write_topic(&mut event, at, topic);
        Probe::write(&mut event, at, number, sent);
        event
    }

    #[test]
    fn data_has_the_length_asked_for() {
        assert_eq!(data(0).len(), DATA_BYTES);
        assert_eq!(data(DATA_BYTES + 9).len(), DATA_BYTES + 9);
        assert_eq!(data(4096).len(), 4096);
        assert!(serde_json::from_str::<serde_json::Value>(&data(4096)).is_ok());
    }

    #[test]
    fn probes_are_found_whatever_the_bytes_are_cut_into() {
        let sent = 9_876_543_210_123_456;
        let mut bytes = b"before".to_vec();
        let mut expected = Vec::new();
        for number in 1..=20 {
            bytes.extend(event(42, number, sent + number));
            // Frames of another length between them: the guess is wrong now and then.
            bytes.extend(std::iter::repeat_n(b'-', (number / 7) as usize));
            expected.push(Probe { topic: *b"0042", number, sent: sent + number });
        }
        let finder = Finder::new(MARKER);
        for size in [1, 2, 7, 38, 39, 40, 200, 10_000] {
            let (mut found, mut stride, mut kept) = (Vec::new(), MARKED_LEN, Vec::new());
            for piece in bytes.chunks(size) {
                kept.extend_from_slice(piece);
                let rest = scan(&kept, &finder, &mut stride, |probe| found.push(probe));
                kept.drain(..rest);
                assert!(kept.len() < MARKED_LEN, "{} are kept", kept.len());
            }
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }
}
