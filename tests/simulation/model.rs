//! The model of a client's session: what the node reads of it and what it writes to it, and what must be true of that.
//!
//! A message, or the request that it comes by, takes effect when the node reads its last byte, which the tape tells.
//! From then on every accepted event that the session wants is expected under the topic through which it is served: the
//! first of the event's topics that the session has and whose filter wants it. Only where a change overtakes events that
//! are still in the shard's link may the node decide either way: such events are `loose`.

use std::collections::VecDeque;

use fanwire::error::CloseReason;
use serde_json::Value;

use super::{Asked, Client, Context, Input, Loose, Owed, Phase, Sub};
use crate::book::{Book, NAMED, NAMES, called, is_pattern};
use crate::sse::Item;
use crate::way::{Form, Kind, Subscribe, tokens};

/// Answers that may wait for a client before the node looks at no more of what it sends.
const MANY_ANSWERS: usize = 100;

impl Client {
    // What happens at the node.

    /// The node has read so many bytes.
    pub fn consume(&mut self, bytes: usize, context: &mut Context<'_>) {
        // A message that is not whole after this read began with it, or before.
        let mut is_new = self.consumed == self.whole;
        self.consumed += bytes;
        if self.is_json() {
            self.vigil.hear(context.mono);
        }
        while let Some((end, _)) = self.asked.front()
            && *end <= self.consumed
            && let Some((end, asked)) = self.asked.pop_front()
        {
            if !matches!(asked, Asked::InnerPong) {
                (self.whole, is_new) = (end, true);
            }
            self.take_effect(asked, context);
        }
        self.vigil.note_read(context.mono, self.consumed == self.whole, is_new);
    }

    fn take_effect(&mut self, asked: Asked, context: &mut Context<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        // So many answers wait that what was read may not have been looked at.
        self.is_vague |= self.owed.len() > MANY_ANSWERS;
        self.may_be_too_fast |= self.is_vague && context.max_messages.is_some();
        if self.is_one_too_many(&asked, context) {
            self.violation = Some((1008, self.consumed - 1));
            self.phase = Phase::Ended;
            return;
        }
        let at = context.book.head();
        match asked {
            Asked::Open(_, true) => self.phase = Phase::Ended,
            Asked::Open(subscribe, false) => {
                self.phase = Phase::Open;
                self.vigil.open(context.mono);
                let is_asked = !subscribe.topics.is_empty();
                if self.is_json() && !is_asked {
                    // Without topics the query says nothing, but for the name.
                    self.name.clone_from(&subscribe.name);
                    self.confirmed_name = subscribe.name;
                } else {
                    self.begin_subscribe(subscribe, context);
                }
            }
            Asked::Subscribe(subscribe) => self.begin_subscribe(subscribe, context),
            Asked::Unsubscribe(topics) => {
                for topic in &topics {
                    self.loosen(*topic, context.book);
                    self.subs.retain(|sub| sub.topic != *topic);
                }
                self.owed.push_back(Owed::Unsubscribed(topics, at));
            }
            Asked::Ping => self.owed.push_back(Owed::Pong),
            Asked::WsPong | Asked::InnerPong => self.vigil.hear(context.mono),
            Asked::WsPing(payload) => self.owed.push_back(Owed::WsPong(payload)),
            Asked::Bad => self.owed.push_back(Owed::Error),
            Asked::Nothing => {}
            Asked::Close(code) => {
                self.close_sent = Some(code);
                self.phase = Phase::Ended;
            }
            Asked::Violation => self.phase = Phase::Ended,
        }
    }

    /// Whether a message is surely one more than the client may send now.
    fn is_one_too_many(&mut self, asked: &Asked, context: &Context<'_>) -> bool {
        let is_message = !matches!(asked, Asked::Open(..) | Asked::Violation) && self.is_web_socket();
        let Some(most) = context.max_messages.filter(|_| is_message && !self.may_be_too_fast) else {
            return false;
        };
        let interval = 1_000_000_000 / most as u64;
        self.spent = self.spent.max(context.mono);
        if self.spent - context.mono > 1_000_000_000 - interval {
            return true;
        }
        self.spent += interval;
        false
    }

    fn begin_subscribe(&mut self, mut subscribe: Subscribe, context: &mut Context<'_>) {
        let at = context.book.head();
        subscribe.may_be_refused = context.max_topics < NAMED;
        let mut new: Vec<usize> = subscribe.topics.clone();
        new.retain(|topic| !self.has(*topic));
        new.sort_unstable();
        new.dedup();
        let patterns = |all: &[usize]| all.iter().filter(|topic| is_pattern(**topic)).count();
        let had: Vec<usize> = self.subs.iter().map(|sub| sub.topic).collect();
        let is_forbidden = self.subs.len() + new.len() > context.max_subscriptions
            || (patterns(&new) > 0 && patterns(&had) + patterns(&new) > context.max_patterns);
        for topic in &subscribe.topics {
            self.may_drop[*topic] |= subscribe.droppable;
            self.may_be_slow |= !subscribe.droppable;
        }
        if !is_forbidden {
            for topic in &subscribe.topics {
                if self.subs.iter().any(|sub| sub.topic == *topic && sub.filter != subscribe.filter) {
                    self.loosen(*topic, context.book);
                }
            }
            apply(&mut self.subs, &subscribe, at);
            self.name = subscribe.name.clone().or(self.name.take());
            // What is in the link is written for its list too, though it is not for this one.
            for event in context.book.in_link(self.shard).to_vec() {
                if context.book.events[event].topics.iter().any(|topic| new.contains(topic)) {
                    context.book.allow_write(event, self.shape_number);
                }
            }
        }
        if !self.is_json() {
            self.confirmed.clone_from(&self.subs);
            self.owed.extend(subscribe.since.into_iter().flatten().map(Owed::Confession));
            return;
        }
        self.owed.push_back(Owed::Subscribed(subscribe, at, is_forbidden));
    }

    /// The node may or may not have served the events of a topic that are in the link.
    fn loosen(&mut self, topic: usize, book: &Book) {
        for event in book.in_link(self.shard) {
            let written = &book.events[*event];
            if !written.topics.contains(&topic) {
                continue;
            }
            let order = written.order;
            for expected in &mut self.expected {
                expected.retain(|(other, _)| *other != order);
            }
            let wanted =
                |topic: &&usize| self.subs.iter().any(|sub| sub.topic == **topic && sub.since < order);
            let mut topics: Vec<usize> = written.topics.iter().filter(wanted).copied().collect();
            topics.dedup();
            match self.loose.iter_mut().find(|loose| loose.order == order) {
                Some(loose) => loose.topics.extend(topics),
                None if topics.is_empty() => {}
                None => self.loose.push(Loose { order, topics }),
            }
        }
    }

    fn has(&self, topic: usize) -> bool {
        self.subs.iter().any(|sub| sub.topic == topic)
    }

    /// The node accepted an event.
    pub fn expect(&mut self, number: usize, book: &mut Book) {
        // The node may still have the session where the model knows better.
        if self.vigil.is_session || self.phase == Phase::Open {
            // What it asked for after something that was refused may be more than the model thinks.
            let may_have = |topic: &usize| self.is_unsure() || self.has(*topic);
            if book.events[number].topics.iter().any(may_have) {
                book.allow_write(number, self.shape_number);
                book.events[number].may_serve += 1;
            }
        }
        if self.phase != Phase::Open {
            return;
        }
        let event = &book.events[number];
        let wants = |topic: &&usize| {
            let sub = self.subs.iter().find(|sub| sub.topic == **topic);
            sub.is_some_and(|sub| sub.filter.wants(event))
        };
        if let Some(via) = event.topics.iter().find(wants) {
            self.expected[*via].push_back((event.order, number));
            book.events[number].served += 1;
        }
    }

    /// As [`Client::expect`], for an event of which it is not known whether it came before or after what the
    /// client asked for in this turn.
    pub fn expect_maybe(&mut self, number: usize, book: &mut Book) {
        book.allow_write(number, self.shape_number);
        let event = &book.events[number];
        if self.phase == Phase::Open {
            self.loose.push(Loose { order: event.order, topics: event.topics.clone() });
        }
    }

    /// The node wrote bytes to it.
    pub fn take_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let mut rest = Vec::new();
        let bytes = if self.is_upgraded {
            bytes
        } else {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            let status = if self.is_web_socket() { "HTTP/1.1 101 " } else { "HTTP/1.1 200 " };
            let text = String::from_utf8_lossy(&self.head);
            if !text.starts_with(status) {
                let mut known = vec!["HTTP/1.1 408 "];
                if self.phase == Phase::Ended {
                    known.push("HTTP/1.1 400 "); // It has more topics than it may.
                }
                if self.is_web_socket() {
                    known.push("HTTP/1.1 503 ");
                }
                assert!(known.iter().any(|status| text.starts_with(status)), "refused: {text}");
                self.phase = Phase::Ended;
                return;
            }
            if !self.is_web_socket() {
                for header in
                    ["Content-Type: text/event-stream", "Connection: close", "X-Accel-Buffering: no"]
                {
                    assert!(text.contains(&format!("\r\n{header}\r\n")), "no {header} in {text}");
                }
            }
            let within = self.pipe.borrow().acknowledged_within;
            assert_eq!(within.is_some(), !self.is_web_socket(), "who is silent is broken off by the kernel");
            self.deflates = text.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover");
            if let Input::Frames(reader) = &mut self.input {
                reader.deflated = self.deflates;
            }
            assert!(!self.deflates || !matches!(self.shape.kind, Kind::Stream(_, Form::Lines)), "{text}");
            assert!(!self.deflates || !context.book.compress_above.is_empty(), "{text}");
            rest.extend(self.head.split_off(end + 4));
            self.is_upgraded = true;
            &rest
        };
        match &mut self.input {
            Input::Frames(reader) => reader.push(bytes),
            Input::EventStream(parser) => parser.push(bytes),
        }
        while let Input::Frames(reader) = &mut self.input
            && let Some(frame) = reader.next()
        {
            assert!(self.closed.is_none(), "a frame after the close: {frame:?}");
            assert!(!self.awaits_ping || frame.opcode == 9, "a heartbeat of one half");
            match frame.opcode {
                1 => {
                    self.was_deflated = frame.is_deflated;
                    let text = std::str::from_utf8(&frame.payload).expect("text is UTF-8");
                    self.take_text(text, context);
                }
                8 => self.take_close_frame(&frame.payload, context),
                9 => {
                    assert!(frame.payload.is_empty());
                    assert_eq!(std::mem::take(&mut self.awaits_ping), self.is_json());
                    self.take_beat(context);
                }
                _ => match self.owed.pop_front() {
                    Some(Owed::WsPong(payload)) => assert_eq!(payload, frame.payload),
                    other => panic!("a pong instead of {other:?}"),
                },
            }
        }
        while let Input::EventStream(parser) = &mut self.input
            && let Some(item) = parser.next()
        {
            assert!(
                self.closed.is_none() || (matches!(item, Item::Retry(_)) && self.retry.is_none()),
                "{item:?} after the end"
            );
            match item {
                Item::Event { name, data } => {
                    assert!(self.is_greeted, "an event before the stream began");
                    self.take_message(&data, Some(&name), context);
                }
                Item::Comment(text) if text == "subscribed" && !self.is_greeted => self.is_greeted = true,
                Item::Comment(text) if text == "keep-alive" => self.take_beat(context),
                Item::Comment(text) => {
                    let reason =
                        text.strip_prefix("closed: ").unwrap_or_else(|| panic!("the comment {text}"));
                    let reason = CloseReason::ALL.into_iter().find(|known| known.name() == reason);
                    self.take_end(reason.expect("a known reason").code().expect("one that is told"), context);
                }
                Item::Retry(ms) => self.retry = Some(ms),
            }
        }
    }

    /// A text message: events of a stream, or one message.
    fn take_text(&mut self, text: &str, context: &mut Context<'_>) {
        if !matches!(self.shape.kind, Kind::Stream(_, Form::Lines)) {
            return self.take_message(text, None, context);
        }
        assert!(!text.contains('\r'), "a line break that is none: {text:?}");
        let lines = text.split('\n').count();
        assert!(lines == 1 || text.len() <= 64 << 10, "{lines} lines share {} bytes", text.len());
        context.book.shared_messages += u64::from(lines > 1);
        let before = context.book.delivered;
        for line in text.split('\n') {
            self.take_message(line, None, context);
        }
        let events = (context.book.delivered - before) as usize;
        assert!(lines == 1 || events == lines, "{events} events in {lines} lines: {text:?}");
    }

    /// An event, or a message of the node's own. `name`: as an event stream calls it.
    fn take_message(&mut self, text: &str, name: Option<&str>, context: &mut Context<'_>) {
        let message: Value = serde_json::from_str(&text.replace("1e999", "1")).expect("a message is JSON");
        if let Some(number) = self.shape.number(&message) {
            let event = context.book.events.get(number).expect("an event of somebody's");
            assert!(name.is_none_or(|name| name == NAMES[event.name]), "event {number} came as {name:?}");
            if self.was_deflated {
                context.book.note_deflated(number, text.len());
                assert!(!text.contains("\"clientId\":"), "what is private came compressed: {text}");
            }
            self.take_event(number, text, context);
            return;
        }
        assert!(!self.was_deflated, "only events are compressed: {text}");
        let kind = message["type"].as_str().expect("a message has a type");
        assert!(name.is_none_or(|name| name == kind), "{text} came as {name:?}");
        let data = &message["data"];
        match kind {
            "gap" => self.take_gap(data),
            "subscription-ack" if self.is_json() => self.take_subscribed(Some(data), context),
            "unsubscription-ack" if self.is_json() => self.take_unsubscribed(data),
            "pong" if self.is_json() => {
                assert!(matches!(self.owed.pop_front(), Some(Owed::Pong)), "an unasked pong");
            }
            "ping" if self.is_json() => self.awaits_ping = true,
            "error" => {
                let error = data["error"].as_str().unwrap();
                if error == "Server capacity exceeded" || !self.is_json() {
                    let is_known = error == "Server capacity exceeded"
                        || error.contains("max_topics")
                        || (context.has_drained && error.contains("shutting down"));
                    assert!(is_known && !self.is_turned_away, "turned away: {error}");
                    assert_eq!(self.last, [0; NAMED], "turned away after events: {error}");
                    self.is_turned_away = true;
                } else if matches!(self.owed.front(), Some(Owed::Subscribed(..))) {
                    let limits = ["max_topics", "max_subscriptions", "max_patterns_per_client"];
                    let is_limit = limits.iter().any(|limit| error.contains(limit));
                    assert!(is_limit, "a good subscribe was refused: {error}");
                    self.take_subscribed(None, context);
                } else {
                    assert!(matches!(self.owed.pop_front(), Some(Owed::Error)), "an unasked error: {error}");
                }
            }
            _ => panic!("unknown message {text}"),
        }
    }

    fn take_gap(&mut self, data: &Value) {
        let name = data["topic"].as_str().unwrap();
        let topic = (0..NAMED).find(|topic| called(*topic) == name).expect("a known topic");
        if data["dropped"].is_null() && data.get("dropped").is_some() {
            let owed = self.owed.pop_front();
            assert!(
                matches!(owed, Some(Owed::Confession(other)) if other == topic),
                "{owed:?} and not {name}"
            );
            assert_eq!(self.last, [0; NAMED], "what was missed is told before what comes");
            return;
        }
        let dropped = data["dropped"].as_u64().unwrap();
        assert!(dropped > 0, "a gap of nothing");
        assert!(!self.is_healthy(), "a healthy reader lost {dropped} events of {name}");
        assert!(self.may_drop[topic], "client {}: nothing of {name} may be left out", self.id);
        self.told[topic] += dropped;
    }

    fn take_beat(&mut self, context: &Context<'_>) {
        self.pings += 1;
        let is_sure = !self.pipe.borrow().has_refused;
        self.vigil.beat(context.mono, is_sure);
    }

    fn take_event(&mut self, number: usize, text: &str, context: &mut Context<'_>) {
        let book = &mut *context.book;
        book.deliver(number);
        let mut names = vec![self.name.clone(), self.confirmed_name.clone()];
        names.extend(self.owed.iter().filter_map(|owed| match owed {
            Owed::Subscribed(subscribe, ..) => Some(subscribe.name.clone()),
            _ => None,
        }));
        let is_right = match self.shape.is_exact() {
            true => names.into_iter().any(|name| book.text(number, &self.shape, name.as_deref()) == text),
            false => tokens(&book.text(number, &self.shape, None)) == tokens(text),
        };
        assert!(is_right, "event {number} came to {:?} ({:?}) as {text}", self.shape, self.name);
        let event = &book.events[number];
        let order = event.order;
        for topic in &event.topics {
            if self.has(*topic) {
                assert!(
                    self.last[*topic] < order,
                    "event {number} of {:?} (order {order}) came after order {}",
                    called(*topic),
                    self.last[*topic]
                );
            }
        }
        for topic in &event.topics {
            self.last[*topic] = order;
        }
        if self.is_vague {
            return;
        }
        let is_expected = |via: &&usize| self.expected[**via].iter().any(|(other, _)| *other == order);
        if let Some(via) = event.topics.iter().find(is_expected).copied() {
            self.settle(via, order - 1, "before the next event");
            assert_eq!(self.expected[via].pop_front(), Some((order, number)));
        } else if let Some(place) = self.loose.iter().position(|loose| loose.order == order) {
            let loose = self.loose.swap_remove(place);
            if let [via] = loose.topics[..] {
                self.settle(via, order - 1, "before the next event (loose)");
            }
        } else {
            panic!(
                "event {number} (order {order} of {:?}) was not to come, or came twice; in line: {:?}; {:?}",
                event.topics, self.subs, self.expected
            );
        }
    }

    /// Everything served under a topic up to an order has come or was counted in gap notices.
    fn settle(&mut self, via: usize, up_to: u64, when: &str) {
        let missing = self.expected[via].iter().filter(|(order, _)| *order <= up_to).count() as u64;
        let maybe =
            self.loose.iter().filter(|loose| loose.order <= up_to && loose.topics.contains(&via)).count()
                as u64;
        let told = self.told[via];
        assert!(
            (missing..=missing + maybe).contains(&told),
            "client {}: {when} of {:?}: {missing} (to {}) are missing and {told} were told; {:?} up to order {up_to}; \
             {:?} {:?} {:?} confirmed {:?} owed {:?}",
            self.id,
            called(via),
            missing + maybe,
            self.expected[via],
            self.nature,
            self.phase,
            self.subs,
            self.confirmed,
            self.owed,
        );
        self.told[via] = 0;
        self.expected[via].retain(|(order, _)| *order > up_to);
        for loose in self.loose.iter_mut().filter(|loose| loose.order <= up_to) {
            loose.topics.retain(|topic| *topic != via);
        }
    }

    fn take_subscribed(&mut self, ack: Option<&Value>, context: &mut Context<'_>) {
        let Some(Owed::Subscribed(subscribe, at, is_forbidden)) = self.owed.pop_front() else {
            panic!("an unasked subscription-ack")
        };
        if let Some(ack) = ack {
            assert!(!is_forbidden || self.is_vague, "more subscriptions than it may have");
            apply(&mut self.confirmed, &subscribe, at);
            self.confirmed_name = subscribe.name.or(self.confirmed_name.take());
            self.check_set(ack);
            let missing = |since: Vec<usize>| {
                since.iter().map(|topic| (called(*topic).to_owned(), Value::Null)).collect()
            };
            // Who names no topic misses nothing.
            let recovered = subscribe.since.as_ref().map_or(Value::Null, |since| since.is_empty().into());
            let missing = subscribe.since.filter(|since| !since.is_empty()).map_or(Value::Null, missing);
            assert_eq!(ack["missing"], missing, "what cannot be recovered");
            assert_eq!(ack["recovered"], recovered);
            return;
        }
        if is_forbidden {
            return;
        }
        // Refused for want of topics: everything that was expected because of it is not to come.
        let knew_any =
            subscribe.topics.iter().any(|topic| self.confirmed.iter().any(|sub| sub.topic == *topic));
        self.is_vague |= !self.owed.is_empty() || knew_any;
        for topic in &subscribe.topics {
            if self.confirmed.iter().any(|sub| sub.topic == *topic) {
                continue;
            }
            self.subs.retain(|sub| sub.topic != *topic);
            for (order, event) in std::mem::take(&mut self.expected[*topic]) {
                let topics: Vec<usize> = context.book.events[event]
                    .topics
                    .iter()
                    .filter(|topic| self.has(**topic))
                    .copied()
                    .collect();
                if !topics.is_empty() {
                    self.loose.push(Loose { order, topics });
                }
            }
        }
        self.name.clone_from(&self.confirmed_name);
    }

    fn take_unsubscribed(&mut self, data: &Value) {
        let Some(Owed::Unsubscribed(topics, at)) = self.owed.pop_front() else {
            panic!("an unasked unsubscription-ack")
        };
        self.confirmed.retain(|sub| !topics.contains(&sub.topic));
        self.check_set(data);
        if !self.is_vague {
            for topic in topics {
                self.settle(topic, at, "at the unsubscription");
            }
        }
    }

    fn check_set(&self, data: &Value) {
        let set: Vec<&str> = self.confirmed.iter().map(|sub| called(sub.topic)).collect();
        assert_eq!(data["categories"], serde_json::json!(set), "the ack names another set");
    }

    fn take_close_frame(&mut self, payload: &[u8], context: &mut Context<'_>) {
        let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
        if self.close_sent.is_some_and(|sent| code == sent.unwrap_or(0)) {
            self.closed = Some(code);
            self.phase = Phase::Ended;
            return; // The echo.
        }
        if payload.len() > 2 {
            let reason: Value = serde_json::from_slice(&payload[2..]).expect("a reason is JSON");
            self.retry = reason["retryAfterMs"].as_u64();
            assert!(self.retry.is_some() || reason["error"].is_string(), "{reason}");
        }
        self.take_end(code, context);
    }

    fn take_end(&mut self, code: u16, context: &mut Context<'_>) {
        self.closed = Some(code);
        self.phase = Phase::Ended;
        *context.closes.entry(code).or_default() += 1;
        match code {
            1001 => assert!(context.has_drained, "1001 without a shutdown"),
            1013 => assert!(self.is_turned_away, "1013 without an error before it"),
            4000 => {
                assert!(self.vigil.timeout.is_some(), "nothing is to come from it, so it cannot be silent");
                let must_answer = self.is_healthy() && !self.is_leaving && self.is_json();
                assert!(!must_answer, "a healthy client was found silent");
            }
            4008 => {
                assert!(!self.is_healthy(), "a healthy reader was closed as slow");
                assert!(self.pipe.borrow().has_refused, "closed as slow, but no write was ever refused");
            }
            1008 if self.may_be_too_fast || self.vigil.is_too_slow(context.mono) => {}
            _ => assert_eq!(Some(code), self.violated(), "close code {code}"),
        }
    }

    /// The node dropped the connection.
    pub fn take_drop(&mut self, context: &Context<'_>) {
        let pipe = self.pipe.borrow();
        // A close that never found room on the wire is excused.
        let is_excused =
            !pipe.is_intact() || self.closed.is_some() || pipe.has_refused || context.has_drained;
        assert!(
            is_excused || !self.is_upgraded,
            "client {} was dropped without a word: {:?}",
            self.id,
            self.phase
        );
        self.phase = Phase::Ended;
    }

    // What is checked when everything is quiet.

    /// Nothing is under way: everything that was to come has come.
    pub fn check_quiet(&mut self) {
        let is_partial = match &self.input {
            Input::Frames(reader) => reader.is_partial(),
            Input::EventStream(parser) => parser.is_partial(),
        };
        let pipe = self.pipe.borrow();
        assert!(!is_partial || pipe.dropped || !pipe.is_intact(), "client {}: a frame is cut", self.id);
        if self.phase == Phase::Ended && self.vigil.was_session && !pipe.dropped && pipe.is_intact() {
            assert!(self.closed.is_some(), "client {} was not told that its session is over", self.id);
        }
        drop(pipe);
        if self.phase != Phase::Open {
            return;
        }
        assert!(self.owed.is_empty(), "client {} waits for {:?}", self.id, self.owed);
        if self.is_vague {
            self.is_vague = false; // Everything is known again.
            self.subs.clone_from(&self.confirmed);
            self.name.clone_from(&self.confirmed_name);
            self.expected.iter_mut().for_each(VecDeque::clear);
            self.told.fill(0);
        }
        for topic in 0..NAMED {
            self.settle(topic, u64::MAX, "when everything is quiet");
        }
        self.loose.clear();
        assert_eq!(self.subs, self.confirmed);
    }

    /// Whether the node is done with it.
    pub fn is_gone(&self) -> bool {
        self.pipe.borrow().dropped
    }
}

fn apply(subs: &mut Vec<Sub>, subscribe: &Subscribe, at: u64) {
    for topic in &subscribe.topics {
        match subs.iter_mut().find(|sub| sub.topic == *topic) {
            Some(sub) => sub.filter.clone_from(&subscribe.filter),
            None => subs.push(Sub { topic: *topic, filter: subscribe.filter.clone(), since: at }),
        }
    }
}
