//! What comes from connections: clients' messages, publishers' frames, requests.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::clock::Now;
use crate::config::Limits;
use crate::dialect::command::{Command, Recovery, Since, Subscribe};
use crate::dialect::json;
use crate::error::CloseReason;
use crate::fanout::connection::Role;
use crate::fanout::lifecycle::log_publisher;
use crate::fanout::replay::{End, brought, position, reached};
use crate::fanout::shard::Shard;
use crate::fanout::shared::{FromShard, Shared};
use crate::fanout::subscribers::{Joined, Member};
use crate::metrics::BadInput;
use crate::proto::websocket::{self, Opcode, Violation, write_close, write_frame};
use crate::publish::dedupe::Window;
use crate::publish::socket::{Outcome, Terms};
use crate::publish::wire::Publish;
use crate::receipt::Receipt;
use crate::session::policy::Policy;
use crate::session::session::{Filter, Identity, Inbound, NOT_LISTED, Subscription};
use crate::topic::name::pattern_prefix;
use crate::topic::recall::Resume;
use crate::topic::topic::Position;
use crate::transport::Transport;

/// Where few are owed what was read, they are flushed after so many bytes: their sockets' buffers then stay in the
/// processor's cache as well. With 10 subscribers in a flood, a quarter more gets through than with 128 KiB.
const PUBLISHED_TO_FEW: usize = 48 << 10;
/// Publishers read in one turn …
const PUBLISHERS_READ: usize = 64;
/// … by so many bytes at a time: what they bring goes to its subscribers while the processor's cache still has it.
const PUBLISHER_READ: usize = 16 << 10;
/// … or so many where a publisher's last read brought nothing that goes anywhere: then the fewest calls are best.
const UNWANTED_READ: usize = 48 << 10;
/// … and clients: while nobody waits for events a turn is short as well, for an event that comes in waits for its end.
const READS: usize = 32;
/// How many times fewer clients are read, and newcomers let in, in a turn while some wait for events: each takes as
/// long as several writes.
const FEWER_WHILE_LIVE: usize = 8;
/// Bytes read from one client or request in one turn.
pub(super) const CLIENT_READ: usize = 64 << 10;
/// Where many clients have something to say at once, each is read so little that all together come to about this …
const CLIENTS_READ: usize = 256 << 10;
/// … but no less than this: a flood from hundreds of clients does not make the turn long for everybody else.
const LEAST_READ: usize = 4 << 10;
/// A client is not read while replies of this many bytes wait for it, nor a publisher while answers do.
pub(super) const REPLY_CAP: usize = 64 << 10;

/// What one read came to.
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    /// The far end sends no more.
    End,
    /// The connection broke.
    Broken,
}

impl<T: Transport> Shard<T> {
    /// Reads what the ready connections have: publishers first, in turns and together no more than one buffer full, for
    /// everybody waits for what they bring; then clients, each once; then requests, with a bound of their own: a handshake
    /// costs much more than a client's message, and those who come are not to hold up those who are there.
    pub(super) fn read_ready(&mut self, now: Now) {
        // Who waits now for events, waited before anything is read.
        let (newcomers, is_live) = (self.newcomers_per_turn(), self.sweep.is_live());
        let mut publish_budget = self.buffer.len();
        let of_each = CLIENTS_READ / self.ready.len().clamp(1, READS);
        let of_each = of_each.clamp(LEAST_READ, CLIENT_READ);
        let mut publishers = self.sources.len().min(PUBLISHERS_READ);
        while publishers > 0
            && let Some(number) = self.sources.pop_front()
        {
            let (before, piece) = (publish_budget, self.publisher_piece(number));
            self.read_one(number, of_each, &mut publish_budget, now);
            let count = before - publish_budget;
            if count > 0 {
                self.drain_link(now);
            }
            let is_enough = self.buffer.len() - publish_budget >= PUBLISHED_TO_FEW && self.owes_few();
            if publish_budget == 0 || is_enough || self.has_taken_enough() || self.is_behind() {
                break;
            }
            // Who said less than was asked for has its next turn in the next turn: read again at once, it would say one
            // event at a time, and each would be handed to all subscribers by itself.
            publishers -= usize::from(count < piece);
        }
        self.published = self.buffer.len() - publish_budget;
        let reads = if is_live { READS / FEWER_WHILE_LIVE } else { READS };
        for _ in 0..self.ready.len().min(reads) {
            let Some(number) = self.ready.pop_front() else { break };
            self.read_one(number, of_each, &mut publish_budget, now);
        }
        for _ in 0..self.requests.len().min(newcomers) {
            let Some(number) = self.requests.pop_front() else { break };
            self.read_one(number, of_each, &mut publish_budget, now);
        }
    }

    /// How many connections are accepted in a turn, and how many requests read.
    pub fn newcomers_per_turn(&self) -> usize {
        let most = self.limits.accepts_per_turn;
        if self.sweep.is_live() { (most / FEWER_WHILE_LIVE).max(1) } else { most }
    }

    fn read_one(&mut self, number: u32, of_each: usize, publish_budget: &mut usize, now: Now) {
        let Some(connection) = self.connections.get_mut(number as usize) else { return };
        if !std::mem::take(&mut connection.is_ready) {
            return;
        }
        match &connection.role {
            Role::Client(_) => self.read_client(number, of_each, now),
            Role::Http(_) => self.read_http(number, now),
            Role::Closing(_) => self.read_and_discard(number, now),
            Role::Publisher(_) => {
                if *publish_budget == 0 || self.is_behind() {
                    self.remember(number);
                } else if self.has_credit() {
                    let most = (*publish_budget).min(self.publisher_piece(number));
                    *publish_budget -= self.read_publisher(number, most, now);
                } else {
                    self.starve(number);
                }
            }
        }
    }

    /// How many bytes a publisher is asked for at once.
    fn publisher_piece(&self, number: u32) -> usize {
        let role = self.connections.get(number as usize).map(|connection| &connection.role);
        let is_unwanted = matches!(role, Some(Role::Publisher(publisher)) if publisher.is_unwanted);
        self.pause.piece(if is_unwanted { UNWANTED_READ } else { PUBLISHER_READ })
    }

    /// A link is out of credit: the connection's turn comes when its shard rings.
    pub(super) fn starve(&mut self, number: u32) {
        if !self.starved.contains(&number) {
            self.starved.push(number);
        }
    }

    /// Whether every link takes more. Where one does not, its shard rings when it does.
    pub(super) fn has_credit(&self) -> bool {
        let credit = self.limits.link_bytes;
        self.shared.links.iter().all(|link| link.has_credit(credit, self.id))
    }

    pub(super) fn read(&mut self, number: u32, most: usize) -> Read {
        let most = most.min(self.buffer.len());
        loop {
            return match self.connections[number as usize].stream.read(&mut self.buffer[..most]) {
                Ok(0) => Read::End,
                Ok(count) => Read::Bytes(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => Read::Broken,
            };
        }
    }

    fn read_and_discard(&mut self, number: u32, now: Now) {
        match self.read(number, CLIENT_READ) {
            Read::Bytes(_) => self.remember(number),
            Read::Nothing => {}
            Read::End => self.handle_end(number, now),
            Read::Broken => self.lose(number, CloseReason::ConnectionLost, now),
        }
    }

    /// Reads a publisher once; answers how many bytes.
    fn read_publisher(&mut self, number: u32, most: usize, now: Now) -> usize {
        if self.is_ending() {
            return 0; // It is told when every accepted event has gone out.
        }
        let connection = &mut self.connections[number as usize];
        if connection.outbox.private_bytes() > REPLY_CAP {
            connection.is_paused = true;
            return 0;
        }
        let count = match self.read(number, most) {
            Read::Bytes(count) => count,
            Read::Nothing => return 0,
            Read::End => {
                self.handle_end(number, now);
                return 0;
            }
            Read::Broken => {
                self.lose(number, CloseReason::ConnectionLost, now);
                return 0;
            }
        };
        let shared = Arc::clone(&self.shared);
        let metrics = &shared.metrics[self.id];
        let (terms, asker) = (terms(&shared, &self.limits), self.asker(number));
        let Role::Publisher(publisher) = &mut self.connections[number as usize].role else { return count };
        let (ingress, mut answers) = (&mut self.ingress, Vec::new());
        let to = FromShard { shared: &shared, shard: self.id };
        let (mut receipts, mut events, mut wanted) = (Vec::new(), 0, 0);
        let accept = |publish: &Publish<'_>, sequence: Option<u64>| {
            let receipt = sequence.map(|sequence| Receipt::new(asker, sequence));
            events += 1;
            wanted += usize::from(ingress.add(publish, receipt.as_ref(), now, &to, metrics));
            receipts.extend(receipt);
        };
        let input = &self.buffer[..count];
        let outcome = publisher.handle_input(input, now.mono, terms, metrics, &mut answers, accept);
        publisher.is_unwanted = events > 0 && wanted == 0;
        if outcome == Outcome::Close {
            log_publisher(publisher, "a frame was refused, and it was told why");
        }
        if !answers.is_empty() {
            publisher.unread_since.get_or_insert(now.mono);
        }
        self.ingress.commit(now, &to, metrics);
        receipts.iter().for_each(|receipt| self.let_go(receipt));
        if !answers.is_empty() {
            self.push_first(number, &answers);
        }
        if outcome == Outcome::Close {
            self.begin_closing(number, now);
            return count;
        }
        self.arm(number);
        self.remember(number);
        count
    }

    fn read_client(&mut self, number: u32, most: usize, now: Now) {
        let connection = &mut self.connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        if connection.outbox.reply_bytes() > REPLY_CAP {
            connection.is_paused = true;
            return;
        }
        let unread = session.inbound.as_mut().map(|inbound| std::mem::take(&mut inbound.unread));
        if let Some(mut unread) = unread.filter(|unread| !unread.is_empty()) {
            self.handle_input(number, &mut unread, most, now);
            self.remember(number);
            return;
        }
        match self.read(number, most) {
            Read::Nothing => self.close_if_overdue(number, now),
            Read::End => self.handle_end(number, now),
            Read::Broken => self.lose(number, CloseReason::ConnectionLost, now),
            Read::Bytes(count) => {
                let Role::Client(session) = &mut self.connections[number as usize].role else { return };
                if session.dialect.is_heard_by_any_byte() {
                    session.heard = now.mono;
                }
                if !session.dialect.is_web_socket() {
                    return self.remember(number); // There is nothing to say on an event stream.
                }
                let mut buffer = std::mem::take(&mut self.buffer);
                self.handle_input(number, &mut buffer[..count], most, now);
                self.buffer = buffer;
                if count < most {
                    // That was all there is: the next byte may come before the next read, again and again.
                    self.close_if_overdue(number, now);
                }
                self.remember(number);
            }
        }
    }

    /// Takes a client's bytes apart and does what its messages ask for. Where they inflate to more than `most`, the
    /// rest waits for the next turn: a few bytes can say much.
    fn handle_input(&mut self, number: u32, input: &mut [u8], most: usize, now: Now) {
        let Role::Client(session) = &mut self.connections[number as usize].role else { return };
        let mut inbound = session.inbound.take().map_or_else(Inbound::default, |inbound| *inbound);
        let accept = session.terms(&self.limits).accept;
        let per_second = self.limits.max_messages_per_second;
        let (mut taken, mut inflated) = (0, 0);
        while taken < input.len() {
            let rest = &mut input[taken..];
            match inbound.decoder.decode(rest, accept) {
                Ok((count, message)) => {
                    taken += count;
                    if let Some(message) = message {
                        if inbound.decoder.is_idle() {
                            (inbound.begun, inbound.is_overdue) = (None, false);
                        }
                        if per_second.is_some_and(|most| !inbound.rate.take(now.mono, most)) {
                            self.metrics().refuse_input(BadInput::Rate);
                            let detail = "above max_messages_per_second";
                            self.close_client(number, CloseReason::MessageRate, detail, now);
                            return;
                        }
                        let (opcode, payload) = (message.opcode, message.payload.bytes(rest));
                        if !message.is_deflated {
                            self.handle_message(number, opcode, payload, now);
                        } else {
                            match self.inflate(opcode, payload, accept.max_message_bytes) {
                                Ok(payload) => {
                                    inflated += payload.len();
                                    self.handle_message(number, opcode, &payload, now);
                                    self.inflater.recycle(payload);
                                }
                                Err(violation) => return self.fail(number, violation, now),
                            }
                        }
                    }
                }
                Err(violation) => return self.fail(number, violation, now),
            }
            let connection = &mut self.connections[number as usize];
            let Role::Client(_) = connection.role else { return };
            let is_deaf = connection.outbox.reply_bytes() > REPLY_CAP;
            if is_deaf || inflated > most {
                connection.is_paused |= is_deaf;
                if taken < input.len() {
                    inbound.unread = input[taken..].to_vec();
                }
                break;
            }
        }
        let is_partial = !inbound.decoder.is_idle();
        if let Role::Client(session) = &mut self.connections[number as usize].role
            && (is_partial || per_second.is_some() || !inbound.unread.is_empty())
        {
            if is_partial {
                inbound.begun.get_or_insert(now.mono);
            }
            session.inbound = Some(Box::new(inbound));
            self.arm(number);
        }
    }

    /// What a compressed message says.
    fn inflate(&mut self, opcode: Opcode, payload: &[u8], most: usize) -> Result<Vec<u8>, Violation> {
        let message = self.inflater.inflate(payload, most)?;
        if opcode == Opcode::Text && std::str::from_utf8(&message).is_err() {
            return Err(Violation::BadUtf8);
        }
        let metrics = self.metrics();
        metrics.messages_inflated.one();
        metrics.inflated_bytes.add(message.len() as u64);
        Ok(message)
    }

    /// A client broke its protocol.
    fn fail(&mut self, number: u32, violation: Violation, now: Now) {
        self.metrics().refuse_input(BadInput::Frame);
        let (reason, detail) = match violation {
            Violation::Protocol(detail) => (CloseReason::ProtocolError, detail),
            Violation::Binary => (CloseReason::BinaryFrame, "this protocol is text"),
            Violation::BadUtf8 => (CloseReason::BadUtf8, "the text is not UTF-8"),
            Violation::BadDeflate => (CloseReason::BadCompression, "what is compressed comes to no message"),
            Violation::TooBig => (CloseReason::MessageTooBig, "above max_message_bytes"),
        };
        self.close_client(number, reason, detail, now);
    }

    fn handle_message(&mut self, number: u32, opcode: Opcode, payload: &[u8], now: Now) {
        match opcode {
            Opcode::Pong => {
                if let Role::Client(session) = &mut self.connections[number as usize].role {
                    session.heard = now.mono;
                }
            }
            Opcode::Ping => {
                let mut pong = Vec::with_capacity(2 + payload.len());
                write_frame(&mut pong, Opcode::Pong, payload);
                self.push_reply(number, pong);
            }
            Opcode::Close => {
                self.close_client(number, CloseReason::ClientClosed, "", now);
                // Section 5.5.1: the code is echoed.
                let mut echo = Vec::new();
                match payload {
                    [high, low, ..] => write_close(&mut echo, u16::from_be_bytes([*high, *low]), ""),
                    _ => write_frame(&mut echo, Opcode::Close, b""),
                }
                self.push_reply(number, echo);
            }
            Opcode::Text | Opcode::Binary => {
                let Role::Client(session) = &self.connections[number as usize].role else { return };
                match session.dialect.read(opcode, payload) {
                    Ok(Some(command)) => self.obey(number, command, now),
                    Ok(None) => {}
                    Err(error) => self.reply_error(number, &error, now),
                }
            }
        }
    }

    /// Does what a client asks for, and answers.
    fn obey(&mut self, number: u32, command: Command, now: Now) {
        match command {
            Command::Pong => {}
            Command::Echo(frame) => self.push_reply(number, frame),
            Command::Ping => {
                let pong = json::pong(self.iso.format(now.wall_ms));
                self.reply(number, "pong", &pong);
            }
            Command::Subscribe(subscribe) => match self.subscribe(number, &subscribe, now) {
                Ok(recovery) => {
                    self.acknowledge(number, &subscribe, &recovery, now);
                    if let Err(error) = self.send_last(number, &subscribe, now) {
                        self.reply_error(number, &error, now);
                    }
                }
                Err(error) => self.reply_error(number, &error, now),
            },
            Command::Unsubscribe(topics) => {
                self.unsubscribe(number, &topics, now);
                let Role::Client(session) = &self.connections[number as usize].role else { return };
                let topics = session.subscriptions.iter();
                let topics = topics.map(|s| &**self.subscribers.get(s.topic).topic.name());
                let ack = json::unsubscription_ack(self.iso.format(now.wall_ms), topics);
                self.reply(number, "unsubscription-ack", &ack);
            }
        }
    }

    /// Answers a subscribe with the client's whole set of topics, and where each with history stands.
    pub(super) fn acknowledge(&mut self, number: u32, subscribe: &Subscribe, recovery: &Recovery, now: Now) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        let all = session.subscriptions.iter().map(|subscription| {
            let name = self.subscribers.get(subscription.topic).topic.name();
            (&**name, position(&self.subscribers, subscription))
        });
        let all: Vec<(&str, Option<Position>)> = all.collect();
        let asked = subscribe.since.is_some().then_some(&recovery.missing[..]);
        let ack = json::subscription_ack(self.iso.format(now.wall_ms), &all, asked);
        self.reply(number, "subscription-ack", &ack);
    }

    /// Adds a message of the node's own, in the client's dialect, in line with its events.
    fn reply(&mut self, number: u32, name: &str, json: &[u8]) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        let mut out = Vec::new();
        session.dialect.write_message(&mut out, name, json);
        self.push_reply(number, out);
    }

    pub(super) fn reply_error(&mut self, number: u32, error: &str, now: Now) {
        self.metrics().refuse_input(BadInput::Message);
        let error = json::error(self.iso.format(now.wall_ms), error);
        self.reply(number, "error", &error);
    }

    /// Subscribes to all of the topics.
    ///
    /// # Errors
    /// What stands in the way; then to none.
    pub(super) fn subscribe(
        &mut self,
        number: u32,
        subscribe: &Subscribe,
        now: Now,
    ) -> Result<Recovery, String> {
        self.check_patterns(number, subscribe)?;
        let rules = self.shared.topics.rules();
        let policies = subscribe.topics.iter().map(|topic| rules.policy(topic, subscribe.policy));
        let policies: Vec<Policy> = policies.collect::<Result<_, _>>()?;
        let Self { connections, subscribers, shared, limits, brought_bytes, id, .. } = self;
        let mut recovery = Recovery::default();
        let Role::Client(session) = &mut connections[number as usize].role else { return Ok(recovery) };
        let had = session.subscriptions.len();
        // Who names himself gets his name in every event, where his dialect says it.
        let is_named = subscribe.client_id.as_ref().is_some_and(|id| session.dialect.suffix(id).is_some());
        let filter = filter_of(subscribe);
        let filtered = filter.is_some();
        let mut failure = None;
        let (mut repeated, mut behind) = (Vec::new(), Vec::new());
        for (name, policy) in subscribe.topics.iter().zip(policies) {
            let known = subscribers.find(name).and_then(|topic| session.subscriptions.find(topic));
            if let Some(known) = known {
                repeated.push((known, policy));
                let Subscription { topic, start, .. } = *session.subscriptions.get(known);
                let topic = &subscribers.get(topic).topic;
                if let Some(position) = subscribe.since.as_ref().and_then(|since| since.of(name, topic)) {
                    // It goes on where it is: all after its beginning has come, or is told.
                    let missing = match shared.topics.in_log(topic, position) {
                        Some(offset) if offset >= start => continue,
                        known => known.map(|offset| (offset + 1, start)),
                    };
                    recovery.missing.push((name.clone(), missing));
                }
                continue;
            }
            if session.subscriptions.len() >= limits.max_subscriptions {
                let max = limits.max_subscriptions;
                failure = Some(format!("more than {max} subscriptions (max_subscriptions)"));
                break;
            }
            let subscription = session.subscriptions.len() as u32;
            let form = session.form(!is_named && shared.topics.rules().may_compress(name));
            let Some(Joined { topic, list, head }) = subscribers.join(&shared.topics, name, form) else {
                failure = Some(format!("the node holds {} topics already (max_topics)", limits.max_topics));
                break;
            };
            if session.values.is_some() {
                // All of a list have the same: in memory once.
                session.values.clone_from(&subscribers.list((topic, list)).values);
            }
            let mut start = head;
            let named =
                subscribe.since.as_ref().and_then(|since| since.of(name, &subscribers.get(topic).topic));
            if let Some(position) = named {
                let topic = &subscribers.get(topic).topic;
                let missing;
                (start, missing) = match shared.topics.resume(topic, position, now.mono) {
                    Resume::Whole { after } => (after, None),
                    Resume::Part { after, missing } => (after, Some(Some(missing))),
                    Resume::Unknown { after } => (after, Some(None)),
                };
                recovery.missing.extend(missing.map(|missing| (name.clone(), missing)));
            }
            let member = Member { connection: number, subscription, policy, filtered };
            let place = if start < head {
                behind.push(subscription);
                NOT_LISTED
            } else {
                // More may have been appended since it joined, and be gone: then it begins after that.
                subscribers.enlist((topic, list), start, member)
            };
            // Of a session that had nothing before, nothing can have come.
            let brought = (place == NOT_LISTED && had > 0)
                .then(|| brought(session, subscribers, &shared.topics, *id, (topic, start), brought_bytes))
                .flatten();
            let mut subscription = Subscription::new(topic, list, place, start, policy);
            subscription.set_filter(filter.clone());
            subscription.note_brought(brought);
            session.subscriptions.push(subscription);
        }
        shared.metrics[*id].subscriptions.set(subscribers.members() as u64);
        if let Some(Since::Positions(positions)) = &subscribe.since {
            // Who names a topic and does not subscribe to it is not told that all is well.
            let named: HashSet<&str> = subscribe.topics.iter().map(String::as_str).collect();
            let others = positions.keys().filter(|name| !named.contains(name.as_str()));
            recovery.missing.extend(others.map(|name| (name.clone(), None)));
        }
        if let Some(failure) = failure {
            let added: Vec<u32> = (had as u32..session.subscriptions.len() as u32).collect();
            self.remove_subscriptions(number, &added, now);
            return Err(failure);
        }
        for (known, _) in &repeated {
            self.give_up(number, *known, End::Filter(filter.as_deref()), now);
        }
        let Self { connections, subscribers, shared, brought_bytes, id, .. } = self;
        let Role::Client(session) = &mut connections[number as usize].role else { return Ok(recovery) };
        for (known, _) in &repeated {
            let subscription = session.subscriptions.get(*known);
            if subscription.is_replaying() && subscription.filter() != filter.as_ref() {
                // What it did not want so far may have come through another.
                let behind = (subscription.topic, subscription.joined);
                let brought = brought(session, subscribers, &shared.topics, *id, behind, brought_bytes);
                session.subscriptions.get_mut(*known).note_brought(brought);
            }
        }
        for (known, policy) in repeated {
            let subscription = session.subscriptions.get_mut(known);
            subscription.policy = policy;
            if subscription.filter() != filter.as_ref() {
                // What it did not want before has not come: for one that begins later, better twice than not at all.
                subscription.note_filter(reached(subscription, subscribers.get(subscription.topic).seen));
                subscription.set_filter(filter.clone());
            }
            let place = subscribers.member_mut(subscription.topic, subscription.list, subscription.place);
            if let Some(member) = place {
                member.policy = policy;
                member.filtered = filtered;
            }
        }
        if let Some(id) = &subscribe.client_id {
            let suffix = session.dialect.suffix(id);
            connections[number as usize].identify(Identity { client_id: id.as_str().into(), suffix });
            self.leave_deflated(number);
        }
        for subscription in behind {
            let Role::Client(session) = &self.connections[number as usize].role else { break };
            let after = session.subscriptions.get(subscription).start;
            self.rewind(number, subscription, after);
        }
        Ok(recovery)
    }

    /// A client that has something private in its events from now on gets none compressed any more.
    fn leave_deflated(&mut self, number: u32) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        if !session.deflates || session.form(true).deflated {
            return;
        }
        for subscription in 0..session.subscriptions.len() as u32 {
            let Self { connections, subscribers, .. } = self;
            let Role::Client(session) = &mut connections[number as usize].role else { return };
            let Subscription { topic, list, place, .. } = *session.subscriptions.get(subscription);
            if !subscribers.list((topic, list)).deflated {
                continue;
            }
            let plain = subscribers.list_of(topic, session.form(false));
            session.subscriptions.get_mut(subscription).list = plain;
            let Some(member) = subscribers.member_mut(topic, list, place).copied() else { continue };
            self.delist((topic, list), place);
            // It stays a subscriber: what it gets goes on where it is.
            let place = self.subscribers.enlist((topic, plain), 0, member);
            if let Role::Client(session) = &mut self.connections[number as usize].role {
                session.subscriptions.get_mut(subscription).place = place;
            }
        }
    }

    /// Checks that a client may have the patterns of a subscribe besides those that it has.
    fn check_patterns(&self, number: u32, subscribe: &Subscribe) -> Result<(), String> {
        let Role::Client(session) = &self.connections[number as usize].role else { return Ok(()) };
        let is_new = |name: &str| {
            self.subscribers.find(name).is_none_or(|topic| session.subscriptions.find(topic).is_none())
        };
        let patterns = subscribe.topics.iter().filter_map(|name| Some((name, pattern_prefix(name)?)));
        let mut new = patterns.filter(|(name, _)| is_new(name)).peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let Limits { max_patterns_per_client: max, min_pattern_prefix: least, .. } = *self.limits;
        let all = session.subscriptions.iter();
        let mut count = all.filter(|s| self.subscribers.get(s.topic).topic.is_pattern()).count();
        for (name, prefix) in new {
            count += 1;
            if max == 0 {
                return Err(format!(
                    "{name:?} is a prefix pattern, and this node has none (max_patterns_per_client is 0)"
                ));
            }
            if count > max {
                return Err(format!("more than {max} patterns (max_patterns_per_client)"));
            }
            if prefix.len() < least {
                return Err(format!(
                    "{name:?} has fewer than {least} bytes before its `*` (min_pattern_prefix)"
                ));
            }
        }
        Ok(())
    }

    fn unsubscribe(&mut self, number: u32, topics: &[String], now: Now) {
        let Role::Client(session) = &self.connections[number as usize].role else { return };
        let found = topics.iter().filter_map(|name| session.subscriptions.find(self.subscribers.find(name)?));
        let mut gone: Vec<u32> = found.collect();
        gone.sort_unstable();
        gone.dedup();
        for subscription in &gone {
            self.give_up(number, *subscription, End::Gone(&gone), now);
            let Role::Client(session) = &mut self.connections[number as usize].role else { return };
            // No event is its own any more.
            session.subscriptions.get_mut(*subscription).start = u64::MAX;
        }
        self.remove_subscriptions(number, &gone, now);
    }

    /// Takes subscriptions, given by their sorted numbers, out of every list.
    fn remove_subscriptions(&mut self, number: u32, gone: &[u32], now: Now) {
        for subscription in gone {
            self.settle(number, *subscription, now);
            let Role::Client(session) = &self.connections[number as usize].role else { return };
            let Subscription { topic, list, place, .. } = *session.subscriptions.get(*subscription);
            self.leave(topic, list, place);
        }
        let Role::Client(session) = &mut self.connections[number as usize].role else { return };
        session.subscriptions.remove(gone);
        let from = gone.first().copied().unwrap_or(u32::MAX) as usize;
        for (number, subscription) in session.subscriptions.iter().enumerate().skip(from) {
            let place = (subscription.topic, subscription.list, subscription.place);
            if let Some(member) = self.subscribers.member_mut(place.0, place.1, place.2) {
                member.subscription = number as u32;
            }
        }
    }

    /// What a client was not yet told about a topic that it leaves is written while the topic has a name.
    fn settle(&mut self, number: u32, subscription: u32, now: Now) {
        let connection = &mut self.connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        let subscription = session.subscriptions.get_mut(subscription);
        let gap = subscription.take_gap();
        let name = self.subscribers.get(subscription.topic).topic.name();
        let timestamp = self.iso.format(now.wall_ms);
        let private = connection.outbox.private_bytes();
        let dialect = session.dialect;
        connection
            .outbox
            .settle_topic(subscription.topic, |out, n| dialect.write_gap(out, timestamp, name, Some(n)));
        if !gap.is_none() {
            let mut notice = Vec::new();
            dialect.write_gap(&mut notice, timestamp, name, Some(gap));
            connection.outbox.push_reply(notice, &mut self.chunks);
        }
        self.counts.private_bytes += connection.outbox.private_bytes() - private;
    }
}

/// How long, and for how many publishers, a node remembers what it accepted.
pub(super) fn window(limits: &Limits) -> Window {
    Window { time: limits.idempotency_window, max: limits.max_idempotency_keys }
}

/// What the node asks of publishers.
pub(super) fn terms<'a>(shared: &'a Shared, limits: &Limits) -> Terms<'a> {
    Terms {
        max_publish_bytes: limits.max_publish_bytes,
        token: shared.access.publish_token.as_deref(),
        rules: &shared.rules,
        dedupe: &shared.dedupe,
        window: window(limits),
    }
}

/// Which events a subscribe wants.
fn filter_of(subscribe: &Subscribe) -> Option<Arc<Filter>> {
    let Subscribe { events, only_categories: categories, .. } = subscribe;
    let is_filtered = events.is_some() || categories.is_some();
    is_filtered.then(|| Arc::new(Filter { events: events.clone(), categories: categories.clone() }))
}

/// Checks at compile time that the read of a client fits the loop's buffer.
const _: () = assert!(CLIENT_READ <= super::shard::READ_BYTES && websocket::MAX_CONTROL_BYTES < LEAST_READ);
