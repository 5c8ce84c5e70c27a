//! Publishers wait a moment where a client's socket has only just begun to refuse.
//!
//! A flood fills a queue of 100 events within 80 microseconds, and a healthy client's socket, once full, takes again
//! after a few milliseconds: without this, whoever publishes faster than clients read has them closed as slow, who are
//! not. So while such a client's queue fills up, nothing more comes in, for as long as a healthy socket may need.
//!
//! Nobody who is slow makes the others wait for long: it counts from the refusal, so a client that has not read for longer
//! than that is not waited for; and of all the time, a shard spends a hundredth on it.
//!
//! Several that refuse at once may all read: a process that has thousands of sockets reads one after the other, and
//! sometimes does something else. They are waited for half a second where their queues fill up so soon, once, and then a
//! hundredth of the time too.
//!
//! Where several clients that read well refuse ([flood](crate::fanout::flood)), whoever publishes is too fast for all of
//! them, and would have them closed one after the other. Then publishers wait for longer, and however much of the time
//! that takes.

use std::collections::VecDeque;

use slab::Slab;

use crate::fanout::connection::{Connection, Role};
use crate::fanout::flood::{Flood, PROMPT};
use crate::fanout::shard::Shard;
use crate::receipt::Key;
use crate::session::outbox::Outbox;
use crate::session::policy::Policy;
use crate::session::session::Session;
use crate::slack::is_loose;
use crate::transport::Transport;

/// How long after the refusal a client is waited for, in nanoseconds: for as long as one may take that reads well.
const PATIENCE: u64 = PROMPT;
/// The same where several refuse at once, and in a flood: whoever takes nothing for so long has stopped.
const PATIENCE_WITH_SEVERAL: u64 = 500_000_000;
/// Without a flood, a shard lets publishers wait for one part of its time in so many …
const SHARE: u64 = 100;
/// … and for so long where it has not done so before, in nanoseconds.
const MOST: u64 = 2 * PATIENCE;
/// The same for several.
const MOST_FOR_SEVERAL: u64 = PATIENCE_WITH_SEVERAL;
/// As many are remembered …
const REFUSED: usize = 32 << 10;
/// … and watched at once: those that refused first, and once one of them takes again the next.
const WATCHED: usize = 128;
/// What is read from a publisher at once while a client has just refused: less than what fills the queue of 100 from a
/// quarter, in events of 60 bytes.
const PIECE: usize = 4 << 10;

/// Who is waited for, and for how long still.
#[derive(Debug)]
pub(super) struct Pause {
    /// Whose socket refused lately, and when, in nanoseconds; the earliest first.
    refused: VecDeque<(u64, Key)>,
    /// How many refuse, and whether publishers are too fast for those who read well.
    pub(super) flood: Flood,
    /// What publishers wait for now.
    way: Way,
    /// For how long they may still wait for a few, in nanoseconds, as of `at` …
    left: u64,
    /// … and for several.
    left_for_several: u64,
    /// When the turn began, in nanoseconds.
    at: u64,
    /// Whether they did when the last turn ended.
    is_paused: bool,
    /// Whether they may in this turn.
    is_allowed: bool,
}

/// What publishers wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Clients that have just begun to refuse, each for himself.
    Few,
    /// So many at once that it may not be their fault.
    Several,
    /// Everybody: it comes faster than those take who read well.
    Flood,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            refused: VecDeque::new(),
            flood: Flood::default(),
            way: Way::Few,
            left: MOST,
            left_for_several: MOST_FOR_SEVERAL,
            at: 0,
            is_paused: false,
            is_allowed: true,
        }
    }
}

impl Pause {
    /// A client's socket refused a write at `now`, in nanoseconds.
    pub(super) fn note_refused(&mut self, key: Key, now: u64) {
        if self.refused.len() < REFUSED {
            self.refused.push_back((now, key));
        }
    }

    /// For how long publishers may still wait now, in nanoseconds; `None`: for as long as it takes.
    fn left(&self) -> Option<u64> {
        match self.way {
            Way::Few => Some(self.left),
            Way::Several => Some(self.left_for_several),
            Way::Flood => None,
        }
    }

    /// A turn begins. `is_since` tells whether a client's socket has refused since then, and still does. Answers for how
    /// many nanoseconds publishers have waited since the turn before.
    pub(super) fn begin_turn(&mut self, now: u64, is_since: impl Fn(Key, u64) -> bool) -> u64 {
        self.flood.begin_turn(now);
        let passed = now.saturating_sub(self.at);
        let waited = if self.is_paused { passed } else { 0 };
        self.at = now;
        let spent = |way| if self.is_paused && self.way == way { passed } else { 0 };
        let earned = if self.is_paused { 0 } else { passed / SHARE };
        self.left = self.left.saturating_sub(spent(Way::Few)).saturating_add(earned).min(MOST);
        let left = self.left_for_several.saturating_sub(spent(Way::Several));
        self.left_for_several = left.saturating_add(earned).min(MOST_FOR_SEVERAL);
        let mut watched = 0;
        while watched < WATCHED
            && let Some((since, key)) = self.refused.get(watched)
        {
            if now < since + PATIENCE_WITH_SEVERAL && is_since(*key, *since) {
                watched += 1;
            } else {
                self.refused.remove(watched);
            }
        }
        self.way = match () {
            () if self.flood.is_there() => Way::Flood,
            () if self.flood.have_several_refused() => Way::Several,
            () => Way::Few,
        };
        // What is begun goes on; a new one begins where all of it may be spent.
        let least = if self.is_paused { 1 } else { PATIENCE };
        self.is_allowed = self.left().is_none_or(|left| left >= least);
        waited
    }

    /// Gives back room that is not needed any more.
    pub(super) fn tidy(&mut self) {
        if is_loose(self.refused.capacity(), self.refused.len()) {
            self.refused.shrink_to(2 * self.refused.len());
        }
    }

    /// Who is waited for if his queue fills up.
    pub(super) fn waits_for(&self) -> impl Iterator<Item = Key> {
        self.watched().map(|(_, key)| *key)
    }

    /// How long after its refusal a client is waited for now, in nanoseconds.
    fn patience(&self) -> u64 {
        match self.way {
            Way::Few => PATIENCE,
            // Several that stop at once are no reason to begin where little comes: their queues fill up later.
            Way::Several if !self.is_paused => PATIENCE,
            Way::Several | Way::Flood => PATIENCE_WITH_SEVERAL,
        }
    }

    fn watched(&self) -> impl Iterator<Item = &(u64, Key)> {
        let patience = self.patience();
        let watched = self.refused.iter().take(if self.is_allowed { WATCHED } else { 0 });
        watched.filter(move |(since, _)| self.at < since + patience)
    }

    /// How much is read from a publisher at once, where it is usually so much.
    pub(super) fn piece(&self, usual: usize) -> usize {
        if self.watched().next().is_some() { usual.min(PIECE) } else { usual }
    }

    /// The turn ends, and publishers wait or do not. Answers whether that began.
    pub(super) fn end_turn(&mut self, is_paused: bool) -> bool {
        let was_paused = std::mem::replace(&mut self.is_paused, is_paused);
        is_paused && !was_paused
    }

    /// Until when at the latest, in nanoseconds, they wait.
    pub(super) fn until(&self) -> Option<u64> {
        let (since, _) = self.watched().next().filter(|_| self.is_paused)?;
        let until = since + self.patience();
        Some(self.left().map_or(until, |left| until.min(self.at + left)))
    }
}

impl<T: Transport> Shard<T> {
    /// Forgets the refusals that are over.
    pub(super) fn begin_pause(&mut self, now: u64) {
        let Self { pause, connections, .. } = self;
        let waited = pause.begin_turn(now, |key, since| {
            blocked(connections, key).is_some_and(|(_, session)| session.refused() == Some(since))
        });
        self.metrics().publishers_paused.add(waited);
    }

    /// A client's socket refused a write.
    pub(super) fn watch(&mut self, number: u32, now: u64) {
        let connection = &mut self.connections[number as usize];
        if may_be_closed(connection).is_some() {
            self.pause.flood.note_refused(&mut connection.counted);
            self.pause.note_refused(Key { number, generation: connection.generation }, now);
        }
    }

    /// A client whose last write was refused took something again, at about `now` in nanoseconds.
    pub(super) fn note_took_again(&mut self, number: u32, now: u64) {
        let connection = &mut self.connections[number as usize];
        if let Some(session) = may_be_closed(connection)
            && let Some(refused) = session.refused()
        {
            let after = now.saturating_sub(refused);
            self.pause.flood.note_took_again(&mut connection.counted, after);
        }
    }

    /// Whether publishers wait: a client's socket has just begun to refuse, and a quarter of what it may be owed is.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.waits_for().any(|key| {
            blocked(&self.connections, key).is_some_and(|(outbox, session)| {
                let most = session.terms(&self.limits).queue_events;
                outbox.events() as usize > most / 4 || outbox.bytes() > self.limits.queue_bytes / 4
            })
        })
    }
}

/// The session of a client that is closed where it is too slow. Whoever has chosen what is left out, or gets it from a
/// history, loses nothing by that.
fn may_be_closed<T>(connection: &Connection<T>) -> Option<&Session> {
    let Role::Client(session) = &connection.role else { return None };
    let is_bound = session.subscriptions.iter().any(|one| one.policy == Policy::Disconnect);
    (is_bound && !connection.is_replaying).then_some(session)
}

/// A client whose socket takes no more, where it still is that.
fn blocked<T>(connections: &Slab<Connection<T>>, key: Key) -> Option<(&Outbox, &Session)> {
    let connection = connections.get(key.number as usize)?;
    let is_it = connection.generation == key.generation && connection.outbox.is_blocked();
    match &connection.role {
        Role::Client(session) if is_it => Some((&connection.outbox, session)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::flood::Counted;

    const MS: u64 = 1_000_000;

    fn key(number: u32) -> Key {
        Key { number, generation: 1 }
    }

    /// A turn in which whoever is waited for has a queue that fills up; answers whether publishers wait.
    fn turn(pause: &mut Pause, now: u64) -> bool {
        pause.begin_turn(now, |_, _| true);
        let is_paused = pause.waits_for().next().is_some();
        pause.end_turn(is_paused);
        is_paused
    }

    #[test]
    fn a_client_is_waited_for_from_its_refusal_until_it_takes_again() {
        let mut pause = Pause::default();
        pause.begin_turn(5 * MS, |_, _| true);
        assert_eq!((pause.waits_for().next(), pause.piece(16 << 10), pause.until()), (None, 16 << 10, None));
        pause.note_refused(key(1), 5 * MS);
        pause.note_refused(key(2), 6 * MS);
        assert_eq!(
            (pause.waits_for().collect::<Vec<_>>(), pause.piece(16 << 10)),
            (vec![key(1), key(2)], PIECE)
        );
        assert!(pause.end_turn(true), "it begins");
        assert!(!pause.end_turn(true), "it goes on");
        assert_eq!(pause.until(), Some(25 * MS));
        pause.begin_turn(7 * MS, |key, since| key.number == 2 && since == 6 * MS);
        assert_eq!(pause.waits_for().collect::<Vec<_>>(), [key(2)]);
        assert_eq!(pause.until(), Some(26 * MS));
        pause.begin_turn(8 * MS, |_, _| false);
        assert_eq!(pause.waits_for().next(), None);
        pause.end_turn(false);
        assert_eq!(pause.until(), None);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_it_may_take() {
        let mut pause = Pause::default();
        pause.note_refused(key(1), 0);
        assert!(turn(&mut pause, MS) && turn(&mut pause, PATIENCE - 1));
        assert!(!turn(&mut pause, PATIENCE));
        assert_eq!(pause.piece(16 << 10), 16 << 10);
    }

    /// One that refuses again and again, having taken a little in between, each time for as long as it is waited for.
    #[test]
    fn who_is_slow_again_and_again_has_a_hundredth_of_the_time() {
        let (mut pause, mut paused) = (Pause::default(), 0);
        for now in 0..10_000 {
            if now % 19 == 0 {
                pause.note_refused(key(1), now * MS);
            }
            paused += u64::from(turn(&mut pause, now * MS));
        }
        // Forty milliseconds to begin with, then a hundredth of ten seconds.
        assert!((100..=145).contains(&paused), "{paused} ms");
    }

    /// A flood to as many as the queue has.
    #[test]
    fn in_a_flood_everybody_is_waited_for_half_a_second() {
        let mut pause = Pause::default();
        let mut counted = [Counted::default(); 16];
        counted.iter_mut().for_each(|one| pause.flood.note_took_again(one, MS));
        (0..300).for_each(|number| pause.note_refused(key(number), u64::from(number) * 1000));
        assert!((1..500).all(|now| turn(&mut pause, now * MS)));
        assert_eq!(pause.until(), Some(500 * MS));
        assert_eq!(pause.left, MOST, "it is not counted");
        // Those that have not taken again are watched in the order in which they refused, however many have.
        pause.begin_turn(499 * MS, |key, _| key.number >= 250);
        assert_eq!(pause.waits_for().collect::<Vec<_>>(), (250..300).map(key).collect::<Vec<_>>());
        pause.begin_turn(500 * MS, |key, _| key.number >= 250);
        assert_eq!(pause.waits_for().next(), Some(key(250)), "which refused a little later");
        assert!(!turn(&mut pause, 501 * MS));
    }

    #[test]
    fn several_at_once_are_waited_for_half_a_second_once_and_only_where_much_comes() {
        let refuse = |pause: &mut Pause| {
            for number in 0..16 {
                pause.flood.note_refused(&mut Counted::default());
                pause.note_refused(key(number), 0);
            }
        };
        let mut pause = Pause::default();
        refuse(&mut pause);
        assert!((1..500).all(|now| turn(&mut pause, now * MS)));
        assert!(!turn(&mut pause, 500 * MS));
        assert!(pause.left == MOST && pause.left_for_several < PATIENCE);
        pause.begin_turn(510 * MS, |_, _| true);
        (0..16).for_each(|number| pause.note_refused(key(number), 510 * MS));
        assert!(!turn(&mut pause, 511 * MS), "nothing of it is left");
        // Their queues fill up after 30 ms only.
        let mut pause = Pause::default();
        refuse(&mut pause);
        pause.begin_turn(PATIENCE, |_, _| true);
        assert_eq!(pause.waits_for().next(), None);
    }

    #[test]
    fn what_is_left_ends_it_and_is_waited_out_before_the_next() {
        let mut pause = Pause::default();
        for now in 0..100 {
            pause.note_refused(key(1), now * MS);
            assert_eq!(turn(&mut pause, now * MS), now < 40, "{now}");
        }
        // It comes back at a hundredth: 20 ms after two seconds, of which 60 ms have passed.
        pause.note_refused(key(1), 2_030 * MS);
        assert!(!turn(&mut pause, 2_030 * MS));
        pause.note_refused(key(1), 2_041 * MS);
        assert!(turn(&mut pause, 2_041 * MS));
        assert_eq!(pause.until(), Some(2_050 * MS), "from the refusal on");
    }
}
