//! What a topic keeps of its past: the newest rounds, bounded by events, bytes and age.
//!
//! A round is kept whole for as long as any of its events is: events taken in together share their memory. The
//! bound on events is exact all the same.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::clock::nanos;
use crate::config::HistoryLimits;
use crate::event::Round;

/// For how long, in nanoseconds, rounds have their frames with them after they came, and after somebody last read of the
/// history: thousands who come back together get the same ones, and nobody pays for them afterwards. Kept for good they
/// were 20 MB of 44 where 39,000 events of 160 bytes had been read once in three envelopes, and a budget of bytes cannot tell
/// how many envelopes somebody will ask for.
const FRAMES_KEPT: u64 = 5_000_000_000;

/// The newest rounds of a topic.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    kept: VecDeque<Kept>,
    events: usize,
    bytes: usize,
    /// Rounds that end before this offset have no frames with them …
    framed_from: u64,
    /// … and the others keep theirs, because somebody has read at this time, in nanoseconds.
    read_at: u64,
}

/// A round that is kept, from some event of it on.
#[derive(Debug)]
struct Kept {
    round: Arc<Round>,
    /// The offset of the round's first event in this topic.
    offset: u64,
    /// Events at its beginning that are left out.
    skipped: usize,
    /// What it counts for.
    bytes: usize,
}

impl Kept {
    /// One after the offset of its last event.
    fn end(&self) -> u64 {
        self.offset + self.round.events.len() as u64
    }
}

/// Events of one round that are wanted.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The round.
    pub round: Arc<Round>,
    /// The offset of the first of them.
    pub offset: u64,
    /// Which events of the round.
    pub events: Range<usize>,
}

impl Piece {
    /// One after the offset of the last of them.
    pub fn end(&self) -> u64 {
        self.offset + self.events.len() as u64
    }
}

impl History {
    /// Nothing kept.
    pub fn new(limits: HistoryLimits) -> Self {
        Self { limits, kept: VecDeque::new(), events: 0, bytes: 0, framed_from: 0, read_at: 0 }
    }

    /// Events kept.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes that they count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the oldest event kept.
    pub fn oldest(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.offset + kept.skipped as u64)
    }

    /// Keeps a round whose first event has this offset. Answers by how many bytes the history grew or shrank.
    pub fn push(&mut self, round: Arc<Round>, offset: u64, now: u64) -> isize {
        let before = self.bytes;
        // Its frames in one envelope come to about as much again.
        let bytes = round.cost() + round.events.bytes() + 128 * round.events.len();
        self.events += round.events.len();
        self.bytes += bytes;
        self.kept.push_back(Kept { round, offset, skipped: 0, bytes });
        self.trim(now);
        self.bytes.wrapping_sub(before).cast_signed()
    }

    /// Lets go of what is above the limits. Answers how many bytes that were.
    pub fn trim(&mut self, now: u64) -> usize {
        let before = self.bytes;
        let age = nanos(self.limits.age);
        while let Some(front) = self.kept.front_mut() {
            let left = front.round.events.len() - front.skipped;
            let is_old = front.round.ingress.saturating_add(age) <= now;
            let excess = self.events.saturating_sub(self.limits.events);
            if is_old || self.bytes > self.limits.bytes || excess >= left {
                self.pop();
                continue;
            }
            front.skipped += excess;
            self.events -= excess;
            break;
        }
        before.saturating_sub(self.bytes)
    }

    /// Lets go of the oldest round. Answers how many bytes that were.
    pub fn pop(&mut self) -> usize {
        let Some(front) = self.kept.pop_front() else { return 0 };
        self.events -= front.round.events.len() - front.skipped;
        self.bytes -= front.bytes;
        if self.kept.is_empty() {
            // A topic that was busy once does not hold the room for ever.
            self.kept = VecDeque::new();
        }
        front.bytes
    }

    /// Takes the frames away that rounds have with them, where nobody has come for them lately, and of at most so many
    /// rounds, which is counted down. Answers how many bytes that were.
    pub fn forget_frames(&mut self, now: u64, most: &mut usize) -> usize {
        if now < self.read_at.saturating_add(FRAMES_KEPT) {
            return 0;
        }
        let framed = self.kept.partition_point(|kept| kept.end() <= self.framed_from);
        let is_old = |kept: &&Kept| kept.round.ingress.saturating_add(FRAMES_KEPT) <= now;
        let mut bytes = 0;
        for kept in self.kept.range(framed..).take(*most).take_while(is_old) {
            bytes += kept.round.forget_frames();
            self.framed_from = kept.end();
            *most -= 1;
        }
        bytes
    }

    /// Somebody is given rounds from this offset on, and may have their frames written.
    fn note_read(&mut self, from: u64, now: u64) {
        self.framed_from = self.framed_from.min(from);
        self.read_at = now;
    }

    /// Everything that is kept.
    pub fn all(&mut self, now: u64) -> Vec<Piece> {
        self.note_read(0, now);
        let piece = |kept: &Kept| Piece {
            round: Arc::clone(&kept.round),
            offset: kept.offset + kept.skipped as u64,
            events: kept.skipped..kept.round.events.len(),
        };
        self.kept.iter().map(piece).collect()
    }

    /// The rounds with an event after an offset that are of several topics, each with its offset.
    pub fn of_several(&self, after: u64) -> Vec<(Arc<Round>, u64)> {
        let from = self.kept.partition_point(|kept| kept.end() <= after.saturating_add(1));
        let of_several = self.kept.range(from..).filter(|kept| kept.round.several != 0);
        of_several.map(|kept| (Arc::clone(&kept.round), kept.offset)).collect()
    }

    /// The events after an offset, until they come to `bytes` of what was published: at least one, where there is
    /// one.
    pub fn read(&mut self, after: u64, bytes: usize, now: u64) -> Vec<Piece> {
        let mut place = self.kept.partition_point(|kept| kept.end() <= after.saturating_add(1));
        let (mut pieces, mut taken) = (Vec::new(), 0);
        while taken < bytes
            && let Some(kept) = self.kept.get(place)
        {
            let first = kept.skipped.max(after.saturating_add(1).saturating_sub(kept.offset) as usize);
            let mut end = first;
            for event in kept.round.events.range(first..kept.round.events.len()) {
                if taken >= bytes {
                    break;
                }
                taken += event.data.len() + event.name.len() + event.key.len();
                // Events without data would never come to anything.
                taken += 64;
                end += 1;
            }
            let offset = kept.offset + first as u64;
            pieces.push(Piece { round: Arc::clone(&kept.round), offset, events: first..end });
            place += 1;
        }
        if let Some(first) = pieces.first() {
            self.note_read(first.offset, now);
        }
        pieces
    }
}

/// Of pieces of a history, the newest event of each key that is wanted, up to an offset, in their order. Events
/// without a key share the empty one.
pub fn newest_by_key(
    all: &[Piece],
    upto: u64,
    mut is_wanted: impl FnMut(&Round, &str) -> bool,
) -> Vec<Piece> {
    let mut newest: BTreeMap<&str, (u64, &Piece, usize)> = BTreeMap::new();
    for piece in all {
        let events = piece.round.events.range(piece.events.clone());
        for ((event, offset), place) in events.zip(piece.offset..).zip(piece.events.start..) {
            if offset <= upto && is_wanted(&piece.round, event.name) {
                newest.insert(event.key, (offset, piece, place));
            }
        }
    }
    let mut found: Vec<_> = newest.into_values().collect();
    found.sort_unstable_by_key(|(offset, ..)| *offset);
    let piece = |(offset, piece, place): (u64, &Piece, usize)| Piece {
        round: Arc::clone(&piece.round),
        offset,
        events: place..place + 1,
    };
    found.into_iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::envelope::Form;
    use crate::event::Events;
    use crate::publish::wire::Publish;
    use parking_lot::Mutex;
    use smallvec::smallvec;
    use std::time::Duration;

    fn round(events: usize, ingress: u64) -> Arc<Round> {
        let mut all = Events::default();
        for n in 0..events {
            let event = format!("e{n}");
            all.push(&Publish { topics: "t", event: &event, key: "", data: "1", timestamp_ms: 1 }, 0);
        }
        Arc::new(Round {
            topics: smallvec![],
            category: None,
            events: all,
            several: 0,
            names: 0,
            ingress,
            shared: true,
            written: Mutex::default(),
        })
    }

    fn history(events: usize, bytes: usize, seconds: u64) -> History {
        History::new(HistoryLimits { events, bytes, age: Duration::from_secs(seconds) })
    }

    fn offsets(history: &mut History, after: u64, bytes: usize) -> Vec<u64> {
        let pieces = history.read(after, bytes, 0);
        pieces.iter().flat_map(|piece| (piece.offset..).take(piece.events.len())).collect()
    }

    #[test]
    fn events_are_kept_to_the_exact_number() {
        let mut history = history(5, 1 << 20, 60);
        let mut offset = 1;
        for count in [3, 1, 4, 2, 7] {
            history.push(round(count, 0), offset, 0);
            offset += count as u64;
            let expected: Vec<u64> = ((offset - 1).saturating_sub(4).max(1)..offset).collect();
            assert_eq!(offsets(&mut history, 0, usize::MAX), expected);
            assert_eq!((history.events(), history.oldest()), (expected.len(), Some(expected[0])));
        }
    }

    #[test]
    fn bytes_and_age_bound_it_too_and_what_shrinks_is_told() {
        let mut history = history(1000, 3_000, 10);
        let mut held = 0;
        for n in 0..20_u64 {
            held += history.push(round(2, n * 1_000_000_000), 1 + 2 * n, n * 1_000_000_000);
            assert_eq!(held, history.bytes().cast_signed());
            assert!(history.bytes() <= 3_000);
        }
        assert!(history.events() > 2);
        held -= history.trim(29_500_000_000).cast_signed();
        assert_eq!((history.events(), held), (0, 0), "the last came at 19 s");
        assert_eq!(history.oldest(), None);
        assert_eq!(history.pop(), 0);
    }

    #[test]
    fn it_is_read_in_pieces_from_any_offset() {
        let mut history = history(100, 1 << 20, 60);
        history.push(round(3, 0), 1, 0);
        history.push(round(3, 0), 4, 0);
        for after in 0..=6 {
            let expected: Vec<u64> = (after + 1..=6).collect();
            assert_eq!(offsets(&mut history, after, usize::MAX), expected);
            let mut cursor = after;
            let mut seen = Vec::new();
            loop {
                let piece = offsets(&mut history, cursor, 1);
                assert!(piece.len() <= 1);
                let Some(last) = piece.last() else { break };
                cursor = *last;
                seen.extend(piece);
            }
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn frames_stay_while_somebody_comes_for_them_and_go_afterwards() {
        let mut history = history(100, 1 << 20, 3600);
        let rounds: Vec<_> = (0..4).map(|n| round(2, n * FRAMES_KEPT)).collect();
        for (n, round) in rounds.iter().enumerate() {
            history.push(Arc::clone(round), 1 + 2 * n as u64, 0);
        }
        let form = Form { envelope: 0, values: None, deflated: false };
        let write = |piece: &Piece| drop(piece.round.frames(form, None, Arc::default));
        let framed = |history: &mut History, now, most| {
            let mut left = most;
            history.forget_frames(now, &mut left);
            (most - left, rounds.iter().map(|round| round.written.lock().len()).collect::<Vec<_>>())
        };
        history.all(3 * FRAMES_KEPT).iter().for_each(write);
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT - 1, 9), (0, vec![1, 1, 1, 1]));
        // As many as it may look at, and none that came lately.
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT, 1), (1, vec![0, 1, 1, 1]));
        history.push(round(1, 4 * FRAMES_KEPT), 9, 0);
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT, 9), (3, vec![0, 0, 0, 0]));
        assert_eq!(framed(&mut history, 4 * FRAMES_KEPT, 9).0, 0, "none is looked at twice");
        // Who reads from the middle of a round has that one's frames written too.
        history.read(3, 1, 5 * FRAMES_KEPT).iter().for_each(write);
        assert_eq!(framed(&mut history, 5 * FRAMES_KEPT, 9), (0, vec![0, 1, 0, 0]));
        assert_eq!(framed(&mut history, 6 * FRAMES_KEPT, 9), (4, vec![0, 0, 0, 0]));
        // Who is told where the history begins reads nothing.
        assert!(history.read(0, 0, 9 * FRAMES_KEPT).is_empty());
        assert_eq!(framed(&mut history, 9 * FRAMES_KEPT, 9).0, 0);
    }
}
