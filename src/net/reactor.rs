//! The shell around a shard: one poll, the shard's handles of the listeners, and nothing else.
//!
//! mio's contract, which all of this rests on: events may be spurious; after one, the operation is repeated
//! until `WouldBlock`, or remembered; only readable and writable can be relied on; one waker for each poll.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::clock::Clock;
use crate::config::Limits;
use crate::fanout::shard::{Next, Shard};
use crate::fanout::shared::Shared;
use crate::link::Wake;
use crate::net::heap;
use crate::net::listener::Listener;
use crate::net::stream::Stream;

/// Tokens from here on are the waker's and the listeners'; below they are connections' numbers.
const WAKER: usize = usize::MAX;
const LISTENERS: usize = usize::MAX - 1024;

/// Events taken from the system at once.
const EVENTS: usize = 1024;
/// How long accepting pauses when there are no file descriptors, in nanoseconds.
const PAUSE: u64 = 200_000_000;

/// One shard's thread.
#[derive(Debug)]
pub struct Reactor {
    poll: Poll,
    shard: Shard<Stream>,
    shared: Arc<Shared>,
    id: usize,
    clock: Clock,
    doors: Vec<OpenDoor>,
    first_door: usize,
}

#[derive(Debug)]
struct OpenDoor {
    listener: Listener,
    /// Somebody may be waiting: the last accept did not say otherwise.
    is_ready: bool,
    /// Not before this time, in nanoseconds.
    paused_until: u64,
}

struct Bell(Waker);

impl Wake for Bell {
    fn wake(&self) {
        // It fails only where the poll is gone, and with it the shard.
        drop(self.0.wake());
    }
}

impl Reactor {
    /// A reactor with its poll and listeners; it serves nothing before [`Reactor::run`].
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new(
        id: usize,
        shared: Arc<Shared>,
        limits: &Arc<Limits>,
        listeners: Vec<Listener>,
        clock: Clock,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Token(WAKER))?;
        shared.links[id].set_waker(Box::new(Bell(waker)));
        let mut doors = Vec::new();
        for (place, mut listener) in listeners.into_iter().enumerate() {
            poll.registry().register(&mut listener, Token(LISTENERS + place), Interest::READABLE)?;
            doors.push(OpenDoor { listener, is_ready: true, paused_until: 0 });
        }
        let shard = Shard::new(id, Arc::clone(&shared), Arc::clone(limits), fastrand::u64(..));
        Ok(Self { poll, shard, shared, id, clock, doors, first_door: 0 })
    }

    /// Serves until the shutdown is over.
    ///
    /// # Errors
    /// The poll itself failed.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let clock = self.clock;
        let now = move || clock.now();
        let mut next = Next::Now;
        loop {
            let timeout = self.timeout(next);
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(error),
            }
            for event in &events {
                self.handle(event);
            }
            self.accept();
            next = self.shard.turn(&now);
            if self.shard.takes_much_back() {
                heap::give_back();
            }
            if self.shard.is_ending() && (self.shard.is_finished() || self.shard.is_overdue(now())) {
                return Ok(());
            }
        }
    }

    fn timeout(&self, next: Next) -> Option<Duration> {
        let mut until = match next {
            Next::Now => return Some(Duration::ZERO),
            Next::At(at) => at,
            Next::Wait => u64::MAX,
        };
        let now = self.clock.now().mono;
        for door in self.doors.iter().filter(|door| door.is_ready) {
            until = until.min(door.paused_until);
        }
        until = until.min(self.shard.drain_deadline().map_or(u64::MAX, |at| at.max(now + 10_000_000)));
        (until != u64::MAX).then(|| Duration::from_nanos(until.saturating_sub(now)))
    }

    fn handle(&mut self, event: &Event) {
        match event.token().0 {
            WAKER => {}
            token if token >= LISTENERS => {
                if let Some(door) = self.doors.get_mut(token - LISTENERS) {
                    door.is_ready = true;
                }
            }
            number => {
                let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                self.shard.handle_ready(number as u32, readable, writable);
            }
        }
    }

    /// Accepts a bounded number of connections; what waits beyond that is remembered.
    fn accept(&mut self) {
        if !self.doors.iter().any(|door| door.is_ready) {
            return;
        }
        let now = self.clock.now();
        // Another door is first each turn, so that a storm at one does not shut the others.
        self.first_door = (self.first_door + 1) % self.doors.len();
        let (behind, ahead) = self.doors.split_at_mut(self.first_door);
        let mut left = self.shard.newcomers_per_turn();
        for door in ahead.iter_mut().chain(behind) {
            while door.is_ready && door.paused_until <= now.mono && left > 0 {
                left -= 1;
                match door.listener.accept() {
                    Ok((mut stream, address)) => {
                        let token = Token(self.shard.next_number() as usize);
                        let both = Interest::READABLE | Interest::WRITABLE;
                        match self.poll.registry().register(&mut stream, token, both) {
                            Ok(()) => self.shard.accept(stream, door.listener.door, &address, now),
                            Err(error) if self.shared.may_complain(now) => {
                                tracing::warn!(%address, %error, "connection dropped");
                            }
                            Err(_) => {}
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => door.is_ready = false,
                    // The one who waited is gone (ECONNABORTED and the like): the next one may not be.
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        // No file descriptors, or no memory: trying again at once would only spin.
                        door.paused_until = now.mono + PAUSE;
                        self.shared.metrics[self.id].accept_pauses.one();
                        if self.shared.may_complain(now) {
                            tracing::warn!(%error, "accepting paused");
                        }
                    }
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied | TimedOut)
}
