//! What was measured.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What was seen in a stretch of time while events were published.
#[derive(Clone, Debug)]
pub struct Window {
    /// How long it was.
    pub took: Duration,
    /// Events published in it.
    pub published: u64,
    /// Deliveries read in it.
    pub deliveries: u64,
    /// From the intended sending to the subscriber's read, in nanoseconds, of what was meant to be sent in it.
    pub latency: Histogram<u64>,
    /// The longest that any one subscriber was without a delivery.
    pub stall: Duration,
    /// How late the generator itself was with an event, at worst.
    pub lateness: Duration,
    /// Reads from subscribers in it.
    pub reads: u64,
    /// CPU time of the server in it.
    pub server_cpu: Duration,
    /// CPU time of the generator's process in it.
    pub own_cpu: Duration,
    /// CPU time of everything else on the machine in it.
    pub other_cpu: Duration,
}

impl Window {
    /// Latency that this share of the deliveries did not exceed.
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }
}

/// What became of everything that was published from [`Load::publish`](crate::cli::load::Load::publish) on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries that should have been made.
    pub expected: u64,
    /// Of those, the ones that never came.
    pub missing: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Deliveries that came after a newer one.
    pub reordered: u64,
    /// Deliveries of a topic that the subscriber does not have.
    pub strange: u64,
    /// Connections that the server closed since the start, the publisher's among them.
    pub closed: u64,
}

impl Tally {
    /// Whether everybody got everything once, in order, and is still there.
    pub fn is_clean(&self) -> bool {
        let Self { expected: _, missing, repeated, reordered, strange, closed } = self;
        missing + repeated + reordered + strange + closed == 0
    }

    /// Deliveries that came twice, out of order, or to the wrong subscriber.
    pub fn wrong(&self) -> u64 {
        self.repeated + self.reordered + self.strange
    }
}

/// What has happened since the generator started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Subscribers that are set up, or were.
    pub(crate) ready: usize,
    /// Subscribers that the server closed before they were set up.
    pub(crate) refused: usize,
    /// Deliveries, each counted once.
    pub(crate) deliveries: u64,
    pub(crate) reads: u64,
    /// Deliveries that a newer one came before, and that have not come since.
    pub(crate) skipped: u64,
    pub(crate) repeated: u64,
    pub(crate) reordered: u64,
    pub(crate) strange: u64,
    /// Subscribers that the server closed once they were set up.
    pub(crate) closed: u64,
}

/// A histogram of nanoseconds, to two digits, up to a minute.
#[expect(clippy::expect_used, reason = "the bounds are constants that the constructor accepts")]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).expect("valid bounds")
}

/// Latencies as points of their distribution: milliseconds, and the share of deliveries that took no longer. Whole
/// percents, and beyond 99 % finer steps.
pub fn distribution(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latency.is_empty() {
        return Vec::new();
    }
    let whole = (0..100).map(|percent| f64::from(percent) / 100.0);
    let fine = (1..=9).map(|tenth| 0.99 + f64::from(tenth) / 1000.0);
    let finer = [0.9995, 0.9999, 0.999_95, 0.999_99, 0.999_999, 1.0];
    let mut points: Vec<(f64, f64)> = Vec::new();
    for share in whole.chain(fine).chain(finer) {
        let ms = latency.value_at_quantile(share) as f64 / 1e6;
        match points.last_mut() {
            // Steps of the same length are one: the highest share is what is true of it.
            Some(last) if last.0 >= ms => last.1 = share,
            _ => points.push((ms, share)),
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_rises_and_ends_with_everything() {
        let mut latency = histogram();
        assert!(distribution(&latency).is_empty());
        for us in 1..=10_000_u64 {
            latency.saturating_record(us * 1_000);
        }
        let points = distribution(&latency);
        assert!(points.len() > 80, "{}", points.len());
        assert!(points.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1), "{points:?}");
        assert_eq!(points.last().map(|last| last.1), Some(1.0));
        let (median, _) = points.iter().copied().find(|point| point.1 >= 0.5).unwrap();
        assert!((4.9..5.1).contains(&median), "{median}");
    }
}
