//! HTTP on a shard: plain requests, publishing, and the handshake that makes a session.

use std::cmp;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::admin::api::{self, Reply, Route};
use crate::admin::report::{Part, Report};
use crate::admin::{diagnostics, drain};
use crate::clock::Now;
use crate::dialect::command::{Recovery, Subscribe};
use crate::dialect::dialect::Dialect;
use crate::dialect::opening::Opening;
use crate::dialect::sse;
use crate::error::CloseReason;
use crate::fanout::connection::{Answer, Http, Role};
use crate::fanout::flood::SEVERAL;
use crate::fanout::intake::{CLIENT_READ, Read, window};
use crate::fanout::replay::position;
use crate::fanout::shard::{READ_BYTES, Shard};
use crate::fanout::shared::{FromShard, Gather, Message, Shared, State};
use crate::metrics::{BadInput, NotAdmitted};
use crate::proto::http1::{self, HttpError, Request};
use crate::publish::dedupe::{Accepted, Seen};
use crate::publish::http::{self, Asked};
use crate::publish::wire::Publish;
use crate::receipt::{Key, Receipt};
use crate::session::chunk::Gap;
use crate::session::handshake::Step;
use crate::session::session::{Inbound, Session};
use crate::transport::{Transport, UNSENT_BYTES};

/// What is to be done about a request.
enum Decision {
    /// It is not whole.
    Wait,
    /// Its body is to be asked for.
    Continue,
    /// It must wait until those before it have gone out.
    Hold,
    /// It is answered once its receipt is complete.
    Await,
    /// It is answered.
    Reply(Reply, Answer),
    /// Every shard has a part in its answer.
    Gather(Report, Answer),
    /// It becomes a session.
    Open(Box<Opening>),
    /// It would become an event stream, and too many clients come.
    TurnAway(Box<Opening>),
}

/// How the end of an event stream is called that was not let in.
const NOT_ADMITTED: &str = "handshake_rate";
/// What those are told who come when too many do.
const TOO_MANY: &str = "too many clients come at once (handshakes_per_second): connect again";

impl<T: Transport> Shard<T> {
    pub(super) fn read_http(&mut self, number: u32, now: Now) {
        let connection = &mut self.connections[number as usize];
        let Role::Http(http) = &mut connection.role else { return };
        // One request at a time: what follows waits until it is answered.
        if http.awaits.is_some() || http.closes || !connection.outbox.is_empty() {
            connection.is_paused = true;
            return;
        }
        let had = http.exchange.has_begun();
        // Nothing more is read while a whole request is here, so what a pipeline holds is bounded by one read.
        if had && self.advance_http(number, now) {
            return;
        }
        match self.read(number, CLIENT_READ) {
            Read::Nothing => {}
            Read::End => self.handle_end(number, now),
            Read::Broken => self.lose(number, CloseReason::ConnectionLost, now),
            Read::Bytes(count) => {
                let Role::Http(http) = &mut self.connections[number as usize].role else { return };
                if !had && http.is_kept {
                    http.deadline = now.after(self.limits.handshake_timeout);
                }
                http.exchange.extend(&self.buffer[..count]);
                self.arm(number);
                if !self.advance_http(number, now) {
                    self.remember(number);
                }
            }
        }
    }

    /// Does what the request asks for, as soon as it is whole: then it answers `true`, and has seen to it that
    /// the connection is looked at again.
    fn advance_http(&mut self, number: u32, now: Now) -> bool {
        loop {
            match self.decide(number, now) {
                Err(error) => self.refuse_request(number, error, now),
                Ok(Decision::Wait) => {
                    // The deadline of a body may be earlier than that of the head was.
                    self.arm(number);
                    return false;
                }
                Ok(Decision::Continue) => {
                    self.push_first(number, http1::CONTINUE);
                    continue;
                }
                Ok(Decision::Hold) if self.is_behind() || self.has_credit() => self.remember(number),
                Ok(Decision::Hold) => self.starve(number),
                Ok(Decision::Await) => self.remember(number),
                Ok(Decision::Reply(reply, answer)) => {
                    self.respond(number, &reply, answer, now);
                    self.remember(number);
                }
                Ok(Decision::Gather(report, answer)) => {
                    self.gather(number, report, answer, now);
                    self.remember(number);
                }
                Ok(Decision::Open(opening)) => {
                    self.open(number, *opening, now);
                    self.remember(number);
                }
                Ok(Decision::TurnAway(opening)) => self.turn_stream_away(number, *opening, now),
            }
            return true;
        }
    }

    /// Looks at a request as far as it is here; publishes what it publishes.
    fn decide(&mut self, number: u32, now: Now) -> Result<Decision, HttpError> {
        let Role::Http(http) = &mut self.connections[number as usize].role else { return Ok(Decision::Wait) };
        if http.batch.is_some() {
            return Ok(self.go_on_publishing(number, now));
        }
        // Every page that may ask may read what is wrong with its request.
        let mut step = http.exchange.advance(&self.limits).map_err(HttpError::for_any_origin)?;
        if matches!(step, Step::Head | Step::More) {
            return Ok(Decision::Wait);
        }
        // One body is always taken, however small a shard's part of the budget is.
        let most = (self.limits.max_outbox_bytes / self.shared.shards()).max(self.limits.max_body_bytes);
        if step == Step::Body && self.reserved_for_bodies() > most {
            return Err(HttpError::new(503, "too many requests with large bodies at once: try again"));
        }
        let asker = self.asker(number);
        let Self { connections, shared, limits, .. } = self;
        let Role::Http(http) = &mut connections[number as usize].role else { return Ok(Decision::Wait) };
        if step == Step::Body {
            http.deadline = now.after(limits.publish_timeout);
        }
        let door = http.door;
        let route =
            |request: &Request<'_>| api::route(request, &api::Context { shared, shard: self.id, door, now });
        if step == Step::Body {
            // The head alone decides whether the body is worth reading.
            let Some((request, _)) = http.exchange.request() else { return Ok(Decision::Wait) };
            if !matches!(route(&request)?, Route::Publish(_) | Route::Diagnose) {
                return Err(HttpError::new(400, "this endpoint takes no body").for_any_origin());
            }
            let expects_continue = request.expects_continue;
            drop(request);
            step = http.exchange.advance(limits).map_err(HttpError::for_any_origin)?;
            if step != Step::Whole {
                return Ok(if expects_continue { Decision::Continue } else { Decision::Wait });
            }
        }
        let Some((request, body)) = http.exchange.request() else { return Ok(Decision::Wait) };
        let answer = Answer::to(&request);
        let metrics = &shared.metrics[self.id];
        let is_upgrade = request.headers.get("Sec-WebSocket-Key").is_some();
        // Before anything else is made of the request: in a storm those who are refused cost no more than their head.
        if is_upgrade && !shared.admission.is_open(now.mono) {
            metrics.turn_away(NotAdmitted::Rate);
            return Err(HttpError::new(503, TOO_MANY));
        }
        let route = route(&request).inspect_err(|error| {
            if is_upgrade && error.status == 503 {
                metrics.turn_away(NotAdmitted::Draining);
            }
        });
        match route? {
            Route::Reply(reply) => Ok(Decision::Reply(reply, answer)),
            Route::Gather(report) => Ok(Decision::Gather(report, answer)),
            Route::Diagnose => Ok(Decision::Reply(diagnostics::reply(&request, body), answer)),
            Route::Drain(wish) => Ok(Decision::Reply(drain::obey(wish, shared, now)?, answer)),
            Route::Open(opening) => {
                let Subscribe { topics, policy, .. } = &opening.subscribe;
                let rules = shared.topics.rules();
                let mut refused = topics.iter().filter_map(|topic| rules.policy(topic, *policy).err());
                let error = match refused.next() {
                    _ if topics.len() > limits.max_subscriptions => {
                        Some("the query has more topics than max_subscriptions".to_owned())
                    }
                    refused => refused,
                };
                if let Some(error) = error {
                    let error = HttpError::new(400, error);
                    let is_web_socket = opening.dialect.is_web_socket();
                    return Err(if is_web_socket { error } else { error.for_any_origin() });
                }
                if shared.admission.take(now.mono) {
                    return Ok(Decision::Open(opening));
                }
                metrics.turn_away(NotAdmitted::Rate);
                match opening.dialect.is_web_socket() {
                    true => Err(HttpError::new(503, TOO_MANY)),
                    false => Ok(Decision::TurnAway(opening)),
                }
            }
            Route::Publish(Asked { format, receipt, idempotency_key }) => {
                match http::check(format, body, limits.max_publish_bytes, &shared.rules) {
                    Ok(batch) => {
                        drop(request);
                        let receipt = receipt.then(|| Receipt::new(asker, 0));
                        if let Some(key) = idempotency_key {
                            let accepted = Accepted::new(batch.len(), receipt.clone());
                            match shared.dedupe.request(&key, body, accepted, now.mono, window(limits)) {
                                Seen::First => {}
                                Seen::Again(accepted) => {
                                    let events = accepted.events as u64;
                                    shared.metrics[self.id].events_duplicate.add(events);
                                    let again = Reply::json(200, &http::answer_again(&accepted));
                                    return Ok(Decision::Reply(again, answer));
                                }
                                Seen::Other => return Err(http::used_key()),
                                Seen::Full => return Err(http::too_many_keys()),
                            }
                        }
                        let batch = batch.with_receipt(receipt);
                        shared.metrics[self.id].events_masked.add(batch.masked());
                        http.batch = Some(Box::new(batch));
                        Ok(self.go_on_publishing(number, now))
                    }
                    Err(refused) => {
                        for (code, count) in &refused.counts {
                            shared.metrics[self.id].refuse(*code, *count);
                        }
                        Ok(Decision::Reply(Reply::json(400, &refused.answer), answer))
                    }
                }
            }
        }
    }

    /// Like a publisher's socket, a request with events waits while others are behind, and no more of it goes
    /// in at once than one read would bring.
    fn go_on_publishing(&mut self, number: u32, now: Now) -> Decision {
        if self.is_behind()
            || !self.has_credit()
            || !self.publish_batch(number, self.pause.piece(READ_BYTES), now)
        {
            return Decision::Hold;
        }
        let Role::Http(http) = &mut self.connections[number as usize].role else { return Decision::Wait };
        let (Some(batch), Some((request, _))) = (&http.batch, http.exchange.request()) else {
            return Decision::Wait;
        };
        let answer = Answer::to(&request);
        drop(request);
        let Some(receipt) = batch.receipt() else {
            return Decision::Reply(Reply::json(200, &batch.answer()), answer);
        };
        let receipt = Arc::clone(receipt);
        http.awaits = Some(answer);
        self.let_go(&receipt);
        Decision::Await
    }

    /// The receipt of a request's events is complete.
    pub(super) fn answer_batch(&mut self, number: u32, now: Now) {
        let Role::Http(http) = &self.connections[number as usize].role else { return };
        if let (Some(answer), Some(batch)) = (http.awaits, &http.batch) {
            self.metrics().receipts.one();
            let reply = Reply::json(200, &batch.answer());
            self.respond(number, &reply, answer, now);
        }
    }

    /// Publishes about so many bytes more of a request's events; answers whether none is left.
    pub(super) fn publish_batch(&mut self, number: u32, bytes: usize, now: Now) -> bool {
        let Self { connections, shared, ingress, .. } = self;
        let Role::Http(http) = &mut connections[number as usize].role else { return true };
        let Http { exchange, batch: Some(batch), .. } = &mut **http else { return true };
        let Some((_, body)) = exchange.request() else { return true };
        let (metrics, to) = (&shared.metrics[self.id], FromShard { shared, shard: self.id });
        let receipt = batch.receipt().cloned();
        let accept = |publish: &Publish<'_>| {
            ingress.add(publish, receipt.as_ref(), now, &to, metrics);
        };
        let is_done = batch.publish(body, bytes, accept);
        ingress.commit(now, &to, metrics);
        is_done
    }

    /// Bytes that the bodies of all requests under way may come to take. They are held to the same budget as
    /// all outboxes.
    fn reserved_for_bodies(&self) -> usize {
        // Keys of connections that are gone stay in the list for a while, and numbers are used again.
        let is_there = |key: &&Key| self.is_http(**key);
        let connections = self.handshakes.iter().filter(is_there);
        let bodies = connections.map(|key| match &self.connections[key.number as usize].role {
            Role::Http(http) => http.exchange.reserved_bytes(&self.limits),
            _ => 0,
        });
        bodies.sum()
    }

    fn gather(&mut self, number: u32, report: Report, answer: Answer, now: Now) {
        let asker = self.asker(number);
        let Role::Http(http) = &mut self.connections[number as usize].role else { return };
        http.awaits = Some(answer);
        http.deadline = now.after(self.limits.publish_timeout);
        let gather = Arc::new(Gather {
            report,
            asker,
            remaining: AtomicUsize::new(self.shared.shards()),
            parts: Mutex::default(),
        });
        for link in &self.shared.links {
            link.send(Message::Ask(Arc::clone(&gather)), 0);
        }
    }

    fn respond(&mut self, number: u32, reply: &Reply, answer: Answer, now: Now) {
        let mut out = Vec::new();
        let headers: Vec<(&str, &str)> =
            reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let Answer { keep_alive, head_only } = answer;
        http1::write_response(
            &mut out,
            reply.status,
            reply.content_type,
            &headers,
            &reply.body,
            keep_alive,
            head_only,
        );
        if let Role::Http(http) = &mut self.connections[number as usize].role {
            http.exchange.finish();
            http.awaits = None;
            http.batch = None;
            http.is_kept = true;
            http.closes = !keep_alive;
            // An idle connection may stay as long as a publisher may be silent within a frame.
            http.deadline = now.after(self.limits.publish_timeout);
        }
        self.arm(number);
        self.push_first(number, &out);
    }

    /// Answers a request that is not served; nothing that follows it is read as another. Who is to try again is told
    /// when, spread at random.
    pub(super) fn refuse_request(&mut self, number: u32, mut error: HttpError, now: Now) {
        if error.status == 503 {
            error.retry_after = Some(self.random.u32(1..=5));
        }
        match error.status {
            403 => self.metrics().refuse_input(BadInput::Origin),
            // A node that is full or late is no fault of the request's.
            408 | 503 => {}
            _ => self.metrics().refuse_input(BadInput::Http),
        }
        let mut out = Vec::new();
        let request = match &self.connections[number as usize].role {
            Role::Http(http) => http.exchange.request().map(|(request, _)| request),
            _ => None,
        };
        let head_only = request.as_ref().is_some_and(|request| request.method == "HEAD");
        error.write(&mut out, head_only, api::readers(request.as_ref(), &self.shared.access.origins));
        drop(request);
        self.push_first(number, &out);
        self.begin_closing(number, now);
    }

    /// Lets the kernel hold more for a client that has come where they are few. With the first that makes them several that
    /// ends for all who were there.
    fn bound_unsent(&mut self, newcomer: u32) {
        let connections = &mut self.connections;
        match self.counts.clients.cmp(&(SEVERAL as usize)) {
            cmp::Ordering::Less => connections[newcomer as usize].stream.bound_unsent(None),
            cmp::Ordering::Equal => {
                let clients = connections.iter_mut().filter(|(_, one)| matches!(one.role, Role::Client(_)));
                clients.for_each(|(_, client)| client.stream.bound_unsent(Some(UNSENT_BYTES)));
            }
            cmp::Ordering::Greater => {}
        }
    }

    /// A handshake is done: the connection is a session, if there is a place for it. It is subscribed before
    /// the answer to the handshake goes out.
    fn open(&mut self, number: u32, opening: Opening, now: Now) {
        let Opening { dialect, stream, envelope, values, shares_messages, deflates, subscribe, response } =
            opening;
        let connection = &mut self.connections[number as usize];
        let Role::Http(http) = &mut connection.role else { return };
        let rest = std::mem::take(&mut http.exchange).into_rest();
        let number_of_all = self.shared.client_numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let address = std::mem::take(&mut http.address);
        let mut session = Session::new(number_of_all, dialect, envelope, address, now.mono);
        session.values = values;
        session.stream = stream;
        session.shares_messages = shares_messages;
        session.deflates = deflates;
        if !rest.is_empty() && dialect.is_web_socket() {
            session.inbound = Some(Box::new(Inbound { unread: rest, ..Inbound::default() }));
        }
        connection.become_client(session);
        if dialect == Dialect::EventStream {
            // Nobody answers its heartbeats but the kernel at the other end.
            connection.stream.expect_acknowledgement(self.limits.heartbeat_timeout);
        }
        self.counts.http -= 1;
        self.counts.clients += 1;
        self.counts.dialect_clients[dialect as usize] += 1;
        self.bound_unsent(number);
        self.push_first(number, &response);
        // Where the wheel holds it for its handshake, it is looked at then, and put off.
        self.arm(number);
        let max = self.shared.max_clients();
        if !Shared::take_place(&self.shared.clients, max) {
            self.shared.clients.fetch_add(1, Ordering::AcqRel);
            self.metrics().turn_away(NotAdmitted::Capacity);
            self.turn_away(number, "Server capacity exceeded", CloseReason::AtCapacity, now);
            return;
        }
        if self.shared.state() == State::Draining {
            self.metrics().turn_away(NotAdmitted::Draining);
            self.turn_away(number, "the node is shutting down", CloseReason::ShuttingDown, now);
            return;
        }
        self.show_clients(dialect);
        let outcome = self.subscribe(number, &subscribe, now);
        match (dialect, outcome) {
            (Dialect::Json, Ok(_)) if subscribe.topics.is_empty() => {}
            (Dialect::Json, Ok(recovery)) => self.acknowledge(number, &subscribe, &recovery, now),
            // It may subscribe again.
            (Dialect::Json, Err(error)) => self.reply_error(number, &error, now),
            (_, Ok(recovery)) => {
                self.confess(number, &recovery, now);
                self.give_position(number);
            }
            (_, Err(error)) => self.turn_away(number, &error, CloseReason::AtCapacity, now),
        }
        // It has been sent nothing yet that could stand in the way.
        let _ = self.send_last(number, &subscribe, now);
    }

    /// Opens an event stream, says that too many clients come and when to come back, and ends it: to a 503, a browser
    /// never comes back. It was no session.
    fn turn_stream_away(&mut self, number: u32, opening: Opening, now: Now) {
        let Opening { dialect, response: mut out, .. } = opening;
        dialect.write_error(&mut out, self.iso.format(now.wall_ms), TOO_MANY);
        sse::write_end(&mut out, NOT_ADMITTED, Some(self.random.u32(500..5_000)));
        self.push_first(number, &out);
        self.begin_closing(number, now);
    }

    /// Ends a session that cannot be served, and says why.
    fn turn_away(&mut self, number: u32, error: &str, reason: CloseReason, now: Now) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        let mut message = Vec::new();
        session.dialect.write_error(&mut message, self.iso.format(now.wall_ms), error);
        self.push_first(number, &message);
        self.close_client(number, reason, "", now);
    }

    /// Tells a client that wants to go on, in a dialect without acks, what of its topics could not be recovered.
    fn confess(&mut self, number: u32, recovery: &Recovery, now: Now) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        let mut notices = Vec::new();
        for (topic, missing) in &recovery.missing {
            let missing =
                missing.map(|(from, to)| Gap::dropped(u32::try_from(to - from + 1).unwrap_or(u32::MAX)));
            session.dialect.write_gap(&mut notices, self.iso.format(now.wall_ms), topic, missing);
        }
        if !notices.is_empty() {
            self.push_reply(number, notices);
        }
    }

    /// Tells an event stream where it begins: so it goes on from there also where it breaks before its first
    /// event. Of several topics it is the first with history; of the others it will hear that something may
    /// be missing.
    fn give_position(&mut self, number: u32) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        let first = session.subscriptions.iter().find_map(|s| position(&self.subscribers, s));
        if session.dialect == Dialect::EventStream
            && let Some(position) = first
        {
            let mut out = Vec::new();
            sse::write_position(&mut out, position);
            self.push_reply(number, out);
        }
    }

    /// Adds this shard's part to an answer; the last shard sends it back.
    pub(super) fn answer_part(&self, gather: &Arc<Gather>, now: Now) {
        let clients = self.connections.iter().filter_map(|(_, connection)| match &connection.role {
            Role::Client(session) => Some(&**session),
            _ => None,
        });
        let slowest = |limit| self.slowest(limit, now);
        let part = Part::of(&gather.report, clients, &self.subscribers, slowest);
        gather.parts.lock().push(part);
        if gather.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.links[gather.asker.shard].send(Message::Answered(Arc::clone(gather)), 0);
        }
    }

    /// Every shard has answered.
    pub(super) fn answer_whole(&mut self, gather: &Gather, now: Now) {
        let Key { number, generation } = gather.asker.key;
        let Some(connection) = self.connections.get(number as usize) else { return };
        if connection.generation != generation {
            return;
        }
        let Role::Http(http) = &connection.role else { return };
        let Some(answer) = http.awaits else { return };
        let reply = api::gathered(
            &gather.report,
            std::mem::take(&mut *gather.parts.lock()),
            &self.shared.topics,
            now,
        );
        self.respond(number, &reply, answer, now);
    }
}
