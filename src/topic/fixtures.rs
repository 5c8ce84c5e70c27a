//! What the tests of topics share.

use std::time::Duration;

use crate::config::HistoryLimits;
use crate::event::Draft;
use crate::publish::wire::Publish;
use crate::topic::rules::{Rule, Rules};
use crate::topic::table::{STRIPES, Topics};
use crate::topic::topic::Topic;

/// Chance from `FANWIRE_TEST_SEED`, or from a new seed. It is printed, so that a failure can be repeated.
pub(super) fn random() -> fastrand::Rng {
    let given = std::env::var("FANWIRE_TEST_SEED").ok();
    let seed =
        given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("FANWIRE_TEST_SEED is a number"));
    println!("FANWIRE_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// So many small events.
pub(super) fn events(count: usize) -> Draft {
    let mut round = Draft::default();
    for _ in 0..count {
        let publish = Publish { topics: "", event: "e", key: "", data: "1", timestamp_ms: 1 };
        round.events.push(&publish, 1);
    }
    round
}

/// A table whose topics all have history.
pub(super) fn with_history(events: usize, max_history_bytes: usize) -> Topics {
    let history = HistoryLimits { events, bytes: 1 << 30, age: Duration::from_secs(10) };
    let rule =
        Rule { prefix: "h".into(), history: Some(history), policies: Vec::new(), compress_above: None };
    Topics::new(2, 10, max_history_bytes).with_rules(Rules::new(vec![rule]))
}

pub(super) fn kept(topics: &Topics, topic: &Topic) -> Vec<u64> {
    let pieces = topics.read(topic, 0, usize::MAX, 0).pieces;
    pieces.iter().flat_map(|piece| piece.offset..piece.end()).collect()
}

/// Lets go of what is not to be kept any more, wherever it is.
pub(super) fn sweep_all(topics: &Topics, now: u64) {
    (0..STRIPES).for_each(|stripe| _ = topics.sweep(stripe, now));
}
