//! How connections come, are timed, and go.

use std::sync::Arc;

use crate::clock::{Now, nanos};
use crate::config::Limits;
use crate::dialect::dialect::Farewell;
use crate::error::{CloseReason, ErrorCode, Refusal};
use crate::fanout::connection::{Closing, Connection, Door, Http, Role};
use crate::fanout::intake::terms;
use crate::fanout::shard::Shard;
use crate::fanout::shared::Shared;
use crate::metrics::{BadInput, DropReason};
use crate::proto::http1::HttpError;
use crate::publish::socket::Publisher;
use crate::publish::wire::encode_error;
use crate::receipt::{Fate, Key};
use crate::session::handshake::Exchange;
use crate::session::session::{Inbound, NOT_LISTED, Session};
use crate::session::timer::Due;
use crate::transport::Transport;

/// What has come of a message by the end of its time is looked for again after this, in nanoseconds.
const UNREAD: u64 = 1_000_000_000;

impl<T: Transport> Shard<T> {
    /// The number that the next accepted connection will have, and so the token to register its socket with.
    pub fn next_number(&self) -> u32 {
        self.connections.vacant_key() as u32
    }

    /// Takes a connection that has just come.
    pub fn accept(&mut self, stream: T, door: Door, address: &str, now: Now) {
        self.metrics().accepted.one();
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let number = self.next_number();
        let key = Key { number, generation };
        if door == Door::Publish {
            self.accept_publisher(stream, key, address, now);
            return;
        }
        let deadline = now.after(self.limits.handshake_timeout);
        let http = Http {
            exchange: Exchange::default(),
            deadline,
            door,
            address: address.into(),
            awaits: None,
            closes: false,
            is_kept: false,
            batch: None,
        };
        self.connections.insert(Connection::new(stream, Role::Http(Box::new(http)), generation));
        self.counts.http += 1;
        self.handshakes.push_back(key);
        self.arm(number);
        while self.counts.http > self.limits.max_handshakes
            && let Some(oldest) = self.handshakes.pop_front()
        {
            if self.is_publishing(oldest) {
                // What it publishes is published whole.
                self.handshakes.push_back(oldest);
                break;
            }
            if self.is_http(oldest) {
                self.metrics().refuse_input(BadInput::Timeout);
                self.remove(oldest.number);
            }
        }
        // Those that are something else by now go, before they outnumber the others.
        if self.handshakes.len() > 2 * self.counts.http + 64 {
            let mut all = std::mem::take(&mut self.handshakes);
            all.retain(|key| self.is_http(*key));
            self.handshakes = all;
        }
    }

    fn accept_publisher(&mut self, stream: T, key: Key, address: &str, now: Now) {
        let publisher = Publisher::new(address.into(), now.mono, terms(&self.shared, &self.limits));
        let max = self.limits.max_publishers;
        self.connections.insert(Connection::new(
            stream,
            Role::Publisher(Box::new(publisher)),
            key.generation,
        ));
        self.counts.publishers += 1;
        if !Shared::take_place(&self.shared.publishers, max) {
            self.shared.publishers.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            let message =
                format!("this node serves {max} publishers already (max_publishers): come back later");
            self.dismiss_publisher(key.number, &Refusal::new(ErrorCode::ShuttingDown, message), now);
        } else if self.drain.is_ending() {
            self.dismiss_publisher(key.number, &shutting_down(), now);
        } else {
            self.arm(key.number);
        }
    }

    pub(super) fn is_http(&self, key: Key) -> bool {
        self.connections
            .get(key.number as usize)
            .is_some_and(|c| c.generation == key.generation && matches!(c.role, Role::Http(_)))
    }

    fn is_publishing(&self, key: Key) -> bool {
        let connection = self.connections.get(key.number as usize);
        connection.is_some_and(|c| {
            c.generation == key.generation && matches!(&c.role, Role::Http(http) if http.batch.is_some())
        })
    }

    /// Puts a connection into the timer wheel, unless it is there for an earlier tick.
    pub(super) fn arm(&mut self, number: u32) {
        let Some(deadline) = self.deadline(number) else { return };
        let connection = &mut self.connections[number as usize];
        let tick = self.wheel.tick_of(deadline);
        if connection.armed == 0 || tick < connection.armed {
            connection.armed = tick;
            self.wheel.arm(Due { connection: number, generation: connection.generation, tick });
        }
    }

    /// Takes new limits. Who is there already may have to be looked at earlier by them.
    pub(super) fn change_limits(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
        for number in self.numbers(|_| true) {
            let connection = &mut self.connections[number as usize];
            if let Role::Client(session) = &connection.role
                && !session.dialect.is_web_socket()
            {
                connection.stream.expect_acknowledgement(self.limits.heartbeat_timeout);
            }
            self.arm(number);
        }
    }

    /// When a connection wants to be looked at, in nanoseconds.
    fn deadline(&self, number: u32) -> Option<u64> {
        let limits = &self.limits;
        match &self.connections[number as usize].role {
            Role::Http(http) => Some(http.deadline),
            Role::Client(session) => {
                let terms = session.terms(limits);
                let beat = session.pinged + nanos(terms.heartbeat_interval);
                let silence = terms.heartbeat_timeout.map(|timeout| session.heard + nanos(timeout));
                let is_stalled = self.connections[number as usize].is_stalled;
                let stall = terms.write_timeout.filter(|_| is_stalled);
                let stall = stall.map(|timeout| session.stalled() + nanos(timeout));
                let unfinished = session.begun().map(|begun| begun + nanos(limits.message_timeout));
                [silence, stall, unfinished].into_iter().flatten().chain([beat]).min()
            }
            Role::Publisher(publisher) if !publisher.is_authorised() => {
                Some(publisher.connected + nanos(limits.handshake_timeout))
            }
            Role::Publisher(publisher) => {
                let since = publisher.partial_since.into_iter().chain(publisher.unread_since).min()?;
                Some(since + nanos(limits.publish_timeout))
            }
            Role::Closing(closing) => Some(closing.until),
        }
    }

    /// Looks at the connections whose time has come.
    pub(super) fn expire(&mut self, now: Now) {
        // The process itself was stopped (SIGSTOP, a suspended machine): nobody was silent in that time.
        let stopped = (nanos(self.limits.heartbeat_timeout) / 4).min(5_000_000_000);
        if now.mono > self.awake_until.saturating_add(stopped) {
            self.amnesty = now.after(self.limits.heartbeat_interval);
        }
        let mut all = std::mem::take(&mut self.due);
        self.wheel.expire(now.mono, &mut all);
        for due in all.drain(..) {
            let Some(connection) = self.connections.get_mut(due.connection as usize) else { continue };
            if connection.generation != due.generation || connection.armed != due.tick {
                continue;
            }
            connection.armed = 0;
            self.handle_due(due.connection, now);
            if self.connections.get(due.connection as usize).is_some_and(|c| c.generation == due.generation) {
                self.arm(due.connection);
            }
        }
        self.due = all;
        self.drain_by_time(now);
    }

    fn handle_due(&mut self, number: u32, now: Now) {
        let is_due = self.deadline(number).is_some_and(|deadline| deadline <= now.mono);
        if !is_due {
            return;
        }
        if now.mono < self.amnesty && self.forgive(number) {
            return;
        }
        let limits = &self.limits;
        let has_unread = self.connections[number as usize].is_ready || self.starved.contains(&number);
        let connection = &mut self.connections[number as usize];
        let has_heartbeat = connection.outbox.has_control();
        let is_paused = connection.is_paused;
        match &mut connection.role {
            Role::Closing(_) => self.remove(number),
            // It is whole, and waits for those before it: the caller is not late.
            Role::Http(http) if http.batch.is_some() => http.deadline = now.after(limits.publish_timeout),
            Role::Http(http) if http.exchange.has_begun() || http.awaits.is_some() => {
                self.metrics().refuse_input(BadInput::Timeout);
                self.refuse_request(number, HttpError::new(408, "the request took too long"), now);
            }
            Role::Http(_) => self.remove(number),
            Role::Publisher(publisher) if !publisher.is_authorised() => {
                self.metrics().refuse_input(BadInput::Timeout);
                let message = "no HELLO with a token came in time (handshake_timeout)";
                self.dismiss_publisher(number, &Refusal::new(ErrorCode::Unauthorised, message), now);
            }
            Role::Publisher(publisher) => {
                let patience = nanos(limits.publish_timeout);
                let is_deaf = publisher.unread_since.is_some_and(|since| since + patience <= now.mono);
                // What it sent waits on our side: it is not the publisher that is late with its frame.
                if !is_deaf && (has_unread || connection.is_paused) {
                    publisher.partial_since = Some(now.mono);
                    return;
                }
                let what = if is_deaf {
                    "answers were not read in time (publish_timeout)"
                } else {
                    "a frame was begun and not finished in time (publish_timeout)"
                };
                self.metrics().refuse_input(BadInput::Timeout);
                self.dismiss_publisher(number, &Refusal::new(ErrorCode::Malformed, what), now);
            }
            Role::Client(session) => {
                let terms = session.terms(limits);
                if let Some(timeout) = terms.heartbeat_timeout.map(nanos)
                    && session.heard + timeout <= now.mono
                {
                    if now.mono >= self.amnesty {
                        self.close_client(number, CloseReason::HeartbeatTimeout, "", now);
                        return;
                    }
                    session.heard = self.amnesty.saturating_sub(timeout).max(session.heard + 1);
                }
                if let Some(timeout) = terms.write_timeout.filter(|_| connection.is_stalled)
                    && session.stalled() + nanos(timeout) <= now.mono
                {
                    if now.mono >= self.amnesty {
                        self.close_client(number, CloseReason::SlowConsumer, "", now);
                        return;
                    }
                    session.note_stalled(now.mono);
                }
                if let Some(inbound) = &mut session.inbound
                    && inbound.begun.is_some_and(|begun| begun + nanos(limits.message_timeout) <= now.mono)
                {
                    // What it sent may wait on our side.
                    if now.mono < self.amnesty || is_paused {
                        (inbound.begun, inbound.is_overdue) = (Some(now.mono), false);
                    } else if has_unread {
                        // All that is there is read first, which is soon.
                        inbound.is_overdue = true;
                        inbound.begun =
                            Some((now.mono + UNREAD).saturating_sub(nanos(limits.message_timeout)));
                    } else {
                        self.close_unfinished(number, now);
                        return;
                    }
                }
                if session.pinged + nanos(terms.heartbeat_interval) <= now.mono {
                    session.pinged = now.mono;
                    if has_heartbeat {
                        return; // The last one has not gone out: one more would only pile up.
                    }
                    let mut heartbeat = Vec::with_capacity(96);
                    session.dialect.write_heartbeat(&mut heartbeat, self.iso.format(now.wall_ms));
                    self.push_first(number, &heartbeat);
                }
            }
        }
    }

    /// Ends a session that began a frame or message and did not finish it in time.
    fn close_unfinished(&mut self, number: u32, now: Now) {
        self.metrics().refuse_input(BadInput::Timeout);
        let detail = "a frame or message was begun and not finished in time (message_timeout)";
        self.close_client(number, CloseReason::MessageTimeout, detail, now);
    }

    /// All is read that there is of a client: if the time for its message was up before, this was the last chance.
    pub(super) fn close_if_overdue(&mut self, number: u32, now: Now) {
        let connection = &self.connections[number as usize];
        let Role::Client(session) = &connection.role else { return };
        let waits_for_us = connection.is_paused || session.has_unread();
        let is_overdue = |inbound: &Inbound| inbound.is_overdue && inbound.begun.is_some();
        if !waits_for_us && session.inbound.as_deref().is_some_and(is_overdue) {
            self.close_unfinished(number, now);
        }
    }

    /// The process was stopped: what came meanwhile, or was taken, it has not seen yet. Whoever is no session has
    /// until the end of the amnesty, as sessions have; answers whether it was one.
    fn forgive(&mut self, number: u32) -> bool {
        let since = |timeout| self.amnesty.saturating_sub(nanos(timeout));
        let (connected, begun) = (since(self.limits.handshake_timeout), since(self.limits.publish_timeout));
        match &mut self.connections[number as usize].role {
            Role::Client(_) => return false,
            Role::Http(http) => http.deadline = self.amnesty,
            Role::Closing(closing) => closing.until = self.amnesty,
            Role::Publisher(publisher) => {
                publisher.connected = publisher.connected.max(connected);
                publisher.partial_since = publisher.partial_since.map(|at| at.max(begun));
                publisher.unread_since = publisher.unread_since.map(|at| at.max(begun));
            }
        }
        true
    }

    /// A client's socket has just refused to take more: where its stream bounds that, the time counts from now.
    pub(super) fn begin_stall(&mut self, number: u32, clock: &impl Fn() -> Now) {
        let Role::Client(session) = &mut self.connections[number as usize].role else { return };
        if session.stream.is_some() {
            session.note_stalled(clock().mono);
            self.arm(number);
        }
    }

    /// Adds bytes that go before everything else that a connection is owed.
    pub(super) fn push_first(&mut self, number: u32, bytes: &[u8]) {
        self.counts.private_bytes += bytes.len();
        let connection = &mut self.connections[number as usize];
        connection.outbox.push_first(bytes);
        if !connection.outbox.is_blocked() {
            self.owe(number);
        }
    }

    /// Adds bytes that stand in line with a client's events.
    pub(super) fn push_reply(&mut self, number: u32, bytes: Vec<u8>) {
        let connection = &mut self.connections[number as usize];
        let private = connection.outbox.private_bytes();
        connection.outbox.push_reply(bytes, &mut self.chunks);
        self.counts.private_bytes += connection.outbox.private_bytes() - private;
        if !connection.outbox.is_blocked() {
            self.owe(number);
        }
    }

    /// Everything that a connection was owed is gone.
    pub(super) fn handle_drained(&mut self, number: u32, clock: &impl Fn() -> Now) {
        if std::mem::take(&mut self.connections[number as usize].is_paused) {
            self.remember(number);
        }
        let connection = &mut self.connections[number as usize];
        match &mut connection.role {
            Role::Client(_) => {
                // Nothing of the session is touched for one that has nothing but events to come.
                if connection.has_gaps {
                    self.tell_gaps(number, clock());
                }
                if self.connections[number as usize].is_replaying {
                    self.replay(number, clock());
                }
                let connection = &self.connections[number as usize];
                if self.is_draining()
                    && let Role::Client(session) = &connection.role
                    && session.leaving
                    && connection.has_all()
                {
                    self.close_client(number, CloseReason::ShuttingDown, "", clock());
                }
            }
            Role::Http(http) => {
                if http.closes {
                    self.begin_closing(number, clock());
                } else if http.awaits.is_none() && http.exchange.has_begun() {
                    // The next request may have come behind the one that was answered.
                    self.remember(number);
                }
            }
            Role::Publisher(publisher) => publisher.unread_since = None,
            Role::Closing(closing) => {
                let is_first = !std::mem::replace(&mut closing.is_shut, true);
                if closing.has_ended || (is_first && connection.stream.shutdown_write().is_err()) {
                    self.remove(number);
                }
            }
        }
    }

    /// Tells a client what it missed on each topic since the last event that it was sent.
    fn tell_gaps(&mut self, number: u32, now: Now) {
        let connection = &mut self.connections[number as usize];
        connection.has_gaps = false;
        let Role::Client(session) = &mut connection.role else { return };
        let timestamp = self.iso.format(now.wall_ms);
        let mut notices = Vec::new();
        for subscription in session.subscriptions.iter_mut() {
            let gap = subscription.take_gap();
            if gap.is_none() {
                continue;
            }
            let topic = self.subscribers.get(subscription.topic).topic.name();
            session.dialect.write_gap(&mut notices, timestamp, topic, Some(gap));
        }
        if !notices.is_empty() {
            self.push_reply(number, notices);
        }
    }

    /// Ends a session. Its queue is thrown away and counted, it leaves every list at once, and where a close can
    /// still arrive one is sent. What a message of the client ends still gets the answers to those before, up to
    /// the first event. `detail` says more about what the client did wrong.
    pub(super) fn close_client(&mut self, number: u32, reason: CloseReason, detail: &str, now: Now) {
        let closing =
            Role::Closing(Closing { until: self.closing_until(now), is_shut: false, has_ended: false });
        let connection = &mut self.connections[number as usize];
        let role = std::mem::replace(&mut connection.role, closing);
        let Role::Client(session) = role else {
            connection.role = role;
            return;
        };
        log_close(&session, connection, reason, &self.chunks, &self.subscribers, now);
        let private = connection.outbox.private_bytes();
        let fate = match reason {
            CloseReason::SlowConsumer | CloseReason::OutboxMemory => Fate::Closed,
            _ => Fate::Gone,
        };
        let lost = match reason.is_by_message() {
            true => connection.outbox.discard_from_event(fate, &mut self.chunks),
            false => connection.outbox.discard(fate, &mut self.chunks),
        };
        self.counts.private_bytes -= private - connection.outbox.private_bytes();
        let was_paused = std::mem::take(&mut connection.is_paused);
        if connection.outbox.is_blocked() {
            self.counts.blocked -= 1;
        }
        let dialect = session.dialect;
        self.counts.clients -= 1;
        self.counts.dialect_clients[dialect as usize] -= 1;
        self.counts.closing += 1;
        self.shared.clients.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        let metrics = self.metrics();
        metrics.drop_events(DropReason::Closed(reason), u64::from(lost));
        metrics.close(reason);
        self.show_clients(dialect);
        let seconds = now.mono.saturating_sub(session.connected) / 1_000_000_000;
        metrics.session_seconds.lock().record(seconds, 1, now.mono);
        self.leave_all(*session);
        if was_paused {
            self.remember(number); // Its end may have come already.
        }
        // The end of an event stream's socket is all the good-bye that there is.
        let is_gone = match reason {
            CloseReason::ConnectionLost => true,
            CloseReason::ClientClosed => !dialect.is_web_socket(),
            _ => false,
        };
        if is_gone {
            self.remove(number);
            self.check_delivered(now);
            return;
        }
        // Who is to come back is told when, spread at random, so that not all come at once.
        let retry_after_ms = reason.is_to_come_back().then(|| self.random.u32(500..5_000));
        let mut farewell = Vec::new();
        dialect.write_farewell(&mut farewell, &Farewell { reason, retry_after_ms, detail });
        if !farewell.is_empty() {
            self.push_reply(number, farewell);
        }
        self.arm(number);
        self.check_delivered(now);
    }

    /// The far end sends no more. What it is still owed, it may still read.
    pub(super) fn handle_end(&mut self, number: u32, now: Now) {
        self.log_if_inside_a_frame(number);
        let connection = &mut self.connections[number as usize];
        let is_answered = match &connection.role {
            Role::Http(http) => connection.outbox.is_empty() && http.awaits.is_none(),
            Role::Publisher(publisher) => connection.outbox.is_empty() && publisher.receipts_due == 0,
            _ => connection.outbox.is_empty(),
        };
        match &mut connection.role {
            // A client of WebSocket says good-bye before it goes; one of an event stream has only this.
            Role::Client(session) if !session.dialect.is_web_socket() => {
                self.lose(number, CloseReason::ClientClosed, now);
            }
            Role::Client(_) => self.lose(number, CloseReason::ConnectionLost, now),
            _ if is_answered => self.remove(number),
            Role::Closing(closing) => closing.has_ended = true,
            Role::Http(http) if http.awaits.is_some() => http.closes = true,
            // It may have asked for receipts and only said that it publishes no more.
            Role::Publisher(publisher) if publisher.receipts_due > 0 => publisher.has_ended = true,
            Role::Http(_) | Role::Publisher(_) => self.begin_closing(number, now),
        }
    }

    /// The far end is gone. `reason` is for a session.
    pub(super) fn lose(&mut self, number: u32, reason: CloseReason, now: Now) {
        self.log_if_inside_a_frame(number);
        match self.connections[number as usize].role {
            Role::Client(_) => self.close_client(number, reason, "", now),
            _ => self.remove(number),
        }
    }

    /// What is owed is still written, then nothing; what comes in is thrown away.
    pub(super) fn begin_closing(&mut self, number: u32, now: Now) {
        let closing =
            Role::Closing(Closing { until: self.closing_until(now), is_shut: false, has_ended: false });
        let connection = &mut self.connections[number as usize];
        connection.is_paused = false;
        match std::mem::replace(&mut connection.role, closing) {
            Role::Http(_) => self.counts.http -= 1,
            Role::Publisher(mut publisher) => {
                publisher.let_go(&self.shared.dedupe);
                self.counts.publishers -= 1;
                self.shared.publishers.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
            }
            Role::Client(_) | Role::Closing(_) => debug_assert!(false, "sessions end in `close_client`"),
        }
        self.counts.closing += 1;
        self.remember(number);
        let connection = &mut self.connections[number as usize];
        if connection.outbox.is_empty() {
            if let Role::Closing(closing) = &mut connection.role {
                closing.is_shut = true;
            }
            if connection.stream.shutdown_write().is_err() {
                self.remove(number);
                return;
            }
        }
        self.arm(number);
    }

    fn closing_until(&self, now: Now) -> u64 {
        let until = now.after(self.limits.close_timeout);
        until.min(self.drain.deadline().unwrap_or(u64::MAX))
    }

    /// Tells a publisher why it is let go, and lets it go.
    pub(super) fn dismiss_publisher(&mut self, number: u32, refusal: &Refusal, now: Now) {
        self.metrics().refuse(refusal.code, 1);
        if let Role::Publisher(publisher) = &self.connections[number as usize].role {
            log_publisher(publisher, &refusal.message);
        }
        let mut frame = Vec::new();
        encode_error(0, refusal, &mut frame);
        self.push_first(number, &frame);
        self.begin_closing(number, now);
    }

    /// Of the frame that a publisher did not finish nothing is published: somebody may look for it.
    fn log_if_inside_a_frame(&self, number: u32) {
        if let Role::Publisher(publisher) = &self.connections[number as usize].role
            && publisher.partial_since.is_some()
        {
            log_publisher(publisher, "it vanished inside a frame");
        }
    }

    /// Drops a connection that is no session: the socket closes.
    pub(super) fn remove(&mut self, number: u32) {
        self.is_tidy = false;
        let mut connection = self.connections.remove(number as usize);
        self.counts.private_bytes -= connection.outbox.private_bytes();
        connection.outbox.discard(Fate::Gone, &mut self.chunks);
        match connection.role {
            Role::Http(_) => self.counts.http -= 1,
            Role::Closing(_) => self.counts.closing -= 1,
            Role::Publisher(mut publisher) => {
                publisher.let_go(&self.shared.dedupe);
                self.counts.publishers -= 1;
                self.shared.publishers.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
            }
            Role::Client(_) => debug_assert!(false, "sessions end in `close_client`"),
        }
    }

    /// Takes a session that is gone out of every list.
    fn leave_all(&mut self, session: Session) {
        for subscription in session.subscriptions.iter() {
            self.leave(subscription.topic, subscription.list, subscription.place);
        }
    }

    /// Ends one subscription.
    pub(super) fn leave(&mut self, topic: u32, list: u32, place: u32) {
        // Before a chunk is taken from a list, the list must know of those that are gone.
        self.forget_chunks();
        if place != NOT_LISTED {
            self.delist((topic, list), place);
        }
        for chunk in self.subscribers.leave(&self.shared.topics, topic) {
            self.chunks.disown(chunk);
        }
        self.metrics().subscriptions.set(self.subscribers.members() as u64);
        self.is_tidy = false;
    }

    /// Takes one subscriber out of its list and tells the one who takes its place.
    pub(super) fn delist(&mut self, list: (u32, u32), place: u32) {
        if let Some(moved) = self.subscribers.delist(list, place)
            && let Some(connection) = self.connections.get_mut(moved.connection as usize)
            && let Role::Client(session) = &mut connection.role
        {
            session.subscriptions.get_mut(moved.subscription).place = place;
        }
    }

    pub(super) fn numbers(&self, is_wanted: impl Fn(&Role) -> bool) -> Vec<u32> {
        let wanted = self.connections.iter().filter(|(_, connection)| is_wanted(&connection.role));
        wanted.map(|(number, _)| number as u32).collect()
    }
}

pub(super) fn shutting_down() -> Refusal {
    Refusal::new(ErrorCode::ShuttingDown, "the node is shutting down; every accepted event went out")
}

/// One line for a publisher that does not end by itself between two frames.
pub(super) fn log_publisher(publisher: &Publisher, reason: &str) {
    let Publisher { address, name, .. } = publisher;
    tracing::debug!(%address, ?name, reason, "publisher let go");
}

/// One line for each client closed as slow, with all that tells why; the others at debug level.
fn log_close<T>(
    session: &Session,
    connection: &Connection<T>,
    reason: CloseReason,
    chunks: &crate::session::chunk::Chunks,
    subscribers: &crate::fanout::subscribers::Subscribers,
    now: Now,
) {
    let outbox = &connection.outbox;
    if !matches!(reason, CloseReason::SlowConsumer | CloseReason::OutboxMemory) {
        tracing::debug!(client = ?session.name(), address = %session.address, reason = %reason, "client closed");
        return;
    }
    let topics = session.subscriptions.iter().take(10);
    let mut topics: Vec<&str> = topics.map(|s| &**subscribers.get(s.topic).topic.name()).collect();
    if session.subscriptions.len() > topics.len() {
        topics.push("…");
    }
    let oldest_ms = outbox.oldest(chunks).map_or(0, |oldest| now.mono.saturating_sub(oldest) / 1_000_000);
    tracing::warn!(
        client = ?session.name(),
        address = %session.address,
        reason = %reason,
        topics = ?topics,
        queued_events = outbox.events(),
        queued_bytes = outbox.bytes(),
        oldest_ms,
        "client closed as slow"
    );
}
