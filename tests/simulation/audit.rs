//! Why sessions end, and when: after each turn of a shard, those that ended must have had a reason that was due, and
//! those that are left none that is overdue.

use std::cell::Cell;
use std::collections::HashMap;

use fanwire::clock::nanos;
use fanwire::config::Limits;
use fanwire::dialect::dialect::Dialect;
use fanwire::error::CloseReason;
use fanwire::fanout::shard::{Next, Queue};
use fanwire::metrics::ShardMetrics;

use crate::book::Book;
use crate::client::{Client, Phase};
use crate::way::Kind;

/// By so much a timer may be late: its wheel is coarse.
const LATE: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;
/// A turn may take most of a second here, and a shard reads as few as four clients in one: in so many it has read all.
const TURNS_TO_READ_ALL: u32 = 64;
/// Bytes of answers that wait for a client, before what it sends may wait with them.
const HELD_UP: usize = 60 << 10;

/// What a client is held to, and what the node knows of it that decides when its time is up.
#[derive(Debug)]
pub struct Vigil {
    /// Nanoseconds between two heartbeats.
    interval: u64,
    /// Nanoseconds of silence.
    pub timeout: Option<u64>,
    /// Nanoseconds in which its socket may take nothing.
    write_timeout: Option<u64>,
    /// Of its stream, where that has its own.
    queue_events: Option<usize>,
    pub max_message_bytes: usize,
    /// Whether the node has a session for it, and whether it ever had.
    pub is_session: bool,
    pub was_session: bool,
    opened: u64,
    /// The last sign of life, and the one before this turn.
    heard: u64,
    heard_before: u64,
    beaten: u64,
    /// When something like a heartbeat last waited: then no other is due.
    held_up: u64,
    /// How long a message may stay unfinished.
    message_timeout: u64,
    /// Since when one does; and the same before this turn.
    unfinished: Option<u64>,
    unfinished_before: Option<u64>,
    /// For how many turns of its shard that has been for too long.
    turns_overdue: Cell<u32>,
    /// When it was last read.
    read: u64,
    /// So many answers waited that what it sent may have waited too.
    was_held_up: bool,
    /// It ended when a message had been unfinished for too long.
    was_too_slow: bool,
    /// Since when at the earliest nothing was taken, and at the latest.
    stalled: Option<u64>,
    surely_stalled: Option<u64>,
    /// As it was before this turn.
    stalled_before: Option<u64>,
    /// Something was taken after the last refusal.
    is_moving: bool,
}

impl Vigil {
    pub fn new(kind: Kind, limits: &Limits) -> Self {
        let stream = match kind {
            Kind::Stream(stream, _) => Some(&limits.streams[stream]),
            _ => None,
        };
        let (mut interval, timeout) = match stream {
            Some(stream) => (stream.heartbeat_interval, stream.heartbeat_timeout),
            None => (limits.heartbeat_interval, limits.heartbeat_timeout),
        };
        if !kind.is_web_socket() {
            interval = limits.event_stream_keep_alive;
        }
        Self {
            interval: nanos(interval),
            timeout: kind.is_web_socket().then_some(nanos(timeout)),
            write_timeout: stream.and_then(|stream| stream.write_timeout).map(nanos),
            queue_events: stream.and_then(|stream| stream.queue_events),
            max_message_bytes: stream.map_or(limits.max_message_bytes, |stream| stream.max_message_bytes),
            is_session: false,
            was_session: false,
            opened: 0,
            heard: 0,
            heard_before: 0,
            beaten: 0,
            held_up: 0,
            message_timeout: nanos(limits.message_timeout),
            unfinished: None,
            unfinished_before: None,
            turns_overdue: Cell::new(0),
            read: 0,
            was_held_up: false,
            was_too_slow: false,
            stalled: None,
            surely_stalled: None,
            stalled_before: None,
            is_moving: false,
        }
    }

    /// Its request was read.
    pub fn open(&mut self, mono: u64) {
        (self.opened, self.heard, self.heard_before, self.beaten) = (mono, mono, mono, mono);
    }

    /// A sign of life was read.
    pub fn hear(&mut self, mono: u64) {
        if self.heard != mono {
            self.heard_before = std::mem::replace(&mut self.heard, mono);
        }
    }

    /// It was read. `is_whole`: nothing unfinished is left; `is_new`: and if something is, then since now.
    pub fn note_read(&mut self, mono: u64, is_whole: bool, is_new: bool) {
        if self.read != mono {
            (self.read, self.unfinished_before) = (mono, self.unfinished);
        }
        if is_new {
            self.unfinished = Some(mono);
        }
        if is_whole {
            self.unfinished = None;
        }
    }

    /// Whether the time for a message was up before the node read anything in the turn that began at `mono`, or when
    /// the session ended.
    pub fn is_too_slow(&self, mono: u64) -> bool {
        let since = if self.read == mono { self.unfinished_before } else { self.unfinished };
        self.was_too_slow || since.is_some_and(|since| since + self.message_timeout <= mono)
    }

    /// A heartbeat came. `is_sure`: nothing ever held one up.
    pub fn beat(&mut self, mono: u64, is_sure: bool) {
        let since = mono - self.beaten;
        // It may have gone out a few turns after its time, the next one at once.
        let least = self.interval.saturating_sub(4 * SECOND);
        assert!(!is_sure || since >= least, "a heartbeat {} ms after the last", since / 1_000_000);
        self.beaten = mono;
    }

    /// Its socket took something.
    pub fn take(&mut self) {
        self.is_moving = true;
    }

    /// Its socket took nothing, some time between `from` and `until`.
    pub fn refuse(&mut self, from: u64, until: u64) {
        if self.is_moving || self.stalled.is_none() {
            self.stalled = Some(from);
        }
        if self.is_moving || self.surely_stalled.is_none() {
            self.surely_stalled = Some(until);
        }
        self.is_moving = false;
    }

    fn end_turn(&mut self, mono: u64, before: Option<&Queue>, queue: Option<&Queue>) {
        if std::mem::take(&mut self.is_moving) {
            (self.stalled, self.surely_stalled) = (None, None);
        }
        // Where all that waited was left out, nothing is there to be taken.
        let waits = |queue: &Queue| queue.is_blocked && (queue.events > 0 || queue.private_bytes > 0);
        if !queue.is_some_and(waits) {
            self.surely_stalled = None;
        }
        self.was_held_up |= queue.is_some_and(|queue| queue.private_bytes > HELD_UP);
        if [before, queue].into_iter().flatten().any(|queue| queue.is_blocked || queue.private_bytes > 0) {
            self.held_up = mono;
        }
        self.stalled_before = self.stalled;
    }
}

/// What a shard knows of time that was lost: for so long it finds nobody silent.
#[derive(Debug)]
pub struct Amnesty {
    until: u64,
    awake_until: u64,
}

impl Default for Amnesty {
    fn default() -> Self {
        Self { until: 0, awake_until: u64::MAX }
    }
}

impl Amnesty {
    /// A turn began at `mono` and asks for the `next`.
    pub fn note_turn(&mut self, mono: u64, next: Next, limits: &Limits) {
        if mono > self.awake_until.saturating_add(5 * SECOND) {
            self.until = mono + nanos(limits.heartbeat_interval);
        }
        self.awake_until = match next {
            Next::Now => mono,
            Next::At(at) => at,
            Next::Wait => u64::MAX,
        };
    }
}

/// Sessions ended so far, by reason.
pub type Ends = [u64; CloseReason::ALL.len()];

pub fn ends(metrics: &ShardMetrics) -> Ends {
    CloseReason::ALL.map(|reason| metrics.closed(reason))
}

/// One turn of one shard.
pub struct Turn<'a> {
    pub shard: usize,
    pub mono: u64,
    pub draining: bool,
    pub amnesty: &'a Amnesty,
    /// What its connections were owed before, and what they are owed now.
    pub before: &'a HashMap<u32, Queue>,
    pub after: &'a HashMap<u32, Queue>,
    /// Sessions that ended in this turn.
    pub ends: Ends,
    /// The largest and the smallest queue that the settings ever allowed.
    pub queue_events: (usize, usize),
    pub queue_bytes: usize,
    pub metrics: &'a ShardMetrics,
}

impl Turn<'_> {
    pub fn check(&self, clients: &mut [Client], book: &Book) {
        let mut gone = Vec::new();
        let mut fleeting = Vec::new();
        let mut dialects = [0; Dialect::ALL.len()];
        for client in clients.iter_mut().filter(|client| client.shard == self.shard) {
            let number = {
                let pipe = client.pipe.borrow();
                pipe.number.map(|number| (number, pipe.dropped))
            };
            let Some((number, is_dropped)) = number else { continue };
            let queue = self.after.get(&number).filter(|queue| queue.is_client && !is_dropped);
            let was = std::mem::replace(&mut client.vigil.is_session, queue.is_some());
            match queue {
                Some(queue) => {
                    client.vigil.was_session = true;
                    if queue.private_bytes > HELD_UP {
                        // What it asked for may wait until its answers have gone out.
                        (client.is_vague, client.may_be_too_fast) = (true, true);
                    }
                    dialects[client.shape.kind.dialect()] += 1;
                    self.check_left(client, queue);
                }
                None if was => {
                    let due = self.due(client, self.before.get(&number), book);
                    client.vigil.was_too_slow |= due.contains(&CloseReason::MessageTimeout);
                    gone.push(due);
                    client.phase = Phase::Ended;
                }
                // It came in this turn, and may have been a session for a moment.
                None if client.vigil.opened == self.mono => {
                    let mut due = self.due(client, None, book);
                    due.push(CloseReason::AtCapacity);
                    fleeting.push(due);
                }
                None => {}
            }
            client.vigil.end_turn(self.mono, self.before.get(&number), queue);
        }
        for (dialect, expected) in Dialect::ALL.into_iter().zip(dialects) {
            assert_eq!(self.metrics.clients_of(dialect), expected, "clients of {}", dialect.name());
        }
        let ended: u64 = self.ends.iter().sum();
        let (least, most) = (gone.len() as u64, (gone.len() + fleeting.len()) as u64);
        assert!((least..=most).contains(&ended), "{ended} ends of {} sessions", gone.len());
        for reason in CloseReason::ALL {
            let all = gone.iter().chain(&fleeting);
            let may = all.filter(|due| due.contains(&reason)).count() as u64;
            let counted = self.ends[reason as usize];
            assert!(counted <= may, "{counted} ended as {reason}, which was due for {may}; due: {gone:?}");
        }
    }

    /// The reasons for which a session may have ended in this turn.
    fn due(&self, client: &Client, before: Option<&Queue>, book: &Book) -> Vec<CloseReason> {
        let vigil = &client.vigil;
        let pipe = client.pipe.borrow();
        let was_blocked = before.is_some_and(|queue| queue.is_blocked);
        let heard = if vigil.heard == self.mono { vigil.heard_before } else { vigil.heard };
        let has_amnesty = self.mono < self.amnesty.until;
        let is_silent = vigil.timeout.is_some_and(|timeout| heard + timeout <= self.mono) && !has_amnesty;
        let is_stalled = vigil.write_timeout.is_some_and(|timeout| {
            // Timers come before writes: what was written since does not count.
            let since = vigil.stalled_before.or(vigil.stalled);
            since.is_some_and(|since| since + timeout <= self.mono)
        }) && !has_amnesty;
        // Everything that is queued is owed, and so is the event for which there was no room.
        let (owed, queue) = (client.owed_events(), vigil.queue_events.unwrap_or(self.queue_events.1));
        let has_bytes = client.owed_bytes(book) > self.queue_bytes;
        let is_full = was_blocked && client.may_be_slow && (owed > queue || has_bytes || client.is_unsure());
        let is_due = |reason: &CloseReason| match reason {
            CloseReason::ClientClosed if client.shape.kind.is_web_socket() => client.close_sent.is_some(),
            // The end of an event stream's socket is all the good-bye that there is.
            CloseReason::ClientClosed => pipe.ended,
            CloseReason::ConnectionLost if client.shape.kind.is_web_socket() => !pipe.is_intact(),
            CloseReason::ConnectionLost => pipe.deaf || pipe.reset,
            CloseReason::HeartbeatTimeout => is_silent || (client.is_vague && vigil.timeout.is_some()),
            CloseReason::SlowConsumer => is_full || is_stalled,
            CloseReason::OutboxMemory => pipe.has_refused,
            CloseReason::MessageTimeout => {
                client.shape.kind.is_web_socket() && vigil.is_too_slow(self.mono) && !has_amnesty
            }
            CloseReason::MessageRate if client.may_be_too_fast => true,
            CloseReason::ShuttingDown => self.draining,
            CloseReason::AtCapacity => false,
            reason => client.violated().is_some() && client.violated() == reason.code(),
        };
        CloseReason::ALL.into_iter().filter(is_due).collect()
    }

    /// Nothing of a session that goes on is overdue.
    fn check_left(&self, client: &Client, queue: &Queue) {
        let (vigil, id) = (&client.vigil, client.id);
        if queue.is_blocked
            && let Some(was) = self.before.get(&queue.number)
            && was.is_blocked
            && was.generation == queue.generation
        {
            // Who is blocked stays within its bound, but for what it was owed when it was blocked.
            let most = vigil.queue_events.unwrap_or(self.queue_events.0);
            let bound = (most as u32).max(was.events);
            assert!(queue.events <= bound, "{} events wait for a blocked client, {bound} may", queue.events);
        }
        if client.is_vague || client.phase != Phase::Open {
            return;
        }
        let is_over = |due: u64| self.mono > due.max(self.amnesty.until) + LATE;
        if let Some(timeout) = vigil.timeout {
            let silent = (self.mono - vigil.heard) / 1_000_000;
            assert!(!is_over(vigil.heard + timeout), "client {id} is silent for {silent} ms and is left");
        }
        if let (Some(timeout), Some(since)) = (vigil.write_timeout, vigil.surely_stalled) {
            // In an amnesty the time begins anew.
            let since = if self.amnesty.until > since { self.amnesty.until } else { since };
            let stalled = self.mono.saturating_sub(since) / 1_000_000;
            assert!(!is_over(since + timeout), "client {id} takes nothing for {stalled} ms and is left");
        }
        if let Some(since) =
            vigil.unfinished.filter(|_| client.shape.kind.is_web_socket() && !vigil.was_held_up)
        {
            let since = since.max(self.amnesty.until);
            let unfinished = self.mono.saturating_sub(since) / 1_000_000;
            // What is there and not yet read gets it a little more.
            let is_over = is_over(since + vigil.message_timeout + 2 * SECOND);
            let turns = if is_over { vigil.turns_overdue.get() + 1 } else { 0 };
            vigil.turns_overdue.set(turns);
            let is_left = turns > TURNS_TO_READ_ALL;
            assert!(!is_left, "client {id}'s message is unfinished for {unfinished} ms and it is left");
        }
        let before = self.before.get(&queue.number);
        let has_nothing = !queue.is_blocked
            && queue.private_bytes == 0
            && before.is_some_and(|before| before.private_bytes == 0);
        let late = self.mono.saturating_sub(vigil.beaten.max(vigil.held_up) + vigil.interval);
        assert!(
            late <= LATE || !has_nothing || !client.is_upgraded,
            "client {id}'s heartbeat is {} ms late: {vigil:?}",
            late / 1_000_000
        );
    }
}
