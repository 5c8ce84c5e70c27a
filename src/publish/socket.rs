//! The node's side of one publisher: frames in, events and answers out. Pure: bytes in, bytes out.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::catalog::rules::Rules;
use crate::error::{ErrorCode, Refusal};
use crate::metrics::ShardMetrics;
use crate::publish::dedupe::{Dedupe, Name, NewNames, Window};
use crate::publish::wire::{
    FLAG_ACK, FLAG_RECEIPT, HEADER_LEN, Header, Hello, Kind, MAX_PING_BYTES, MAX_PUBLISHER_NAME_BYTES,
    MAX_TOKEN_BYTES, MAX_TOPICS, PUBLISH_FIXED_LEN, Publish, VERSION, encode_ack, encode_error, encode_ping,
    encode_receipt,
};
use crate::receipt::Reach;
use crate::topic::name::MAX_NAME_BYTES;

/// One publisher's connection.
#[derive(Debug)]
pub struct Publisher {
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// When it connected, in nanoseconds.
    pub connected: u64,
    /// Since when, in nanoseconds, a started frame has been waiting for its rest.
    pub partial_since: Option<u64>,
    /// Since when, in nanoseconds, its answers have been waiting to be read.
    pub unread_since: Option<u64>,
    accepted: u64,
    newest: u64,
    ack_due: bool,
    authorised: bool,
    /// Who is at the other end.
    pub address: Box<str>,
    /// What it named itself; empty for nothing.
    pub name: Box<str>,
    /// What was accepted from that name.
    known: Option<Arc<Name>>,
    /// The names that it brought.
    new_names: NewNames,
    /// Events that were accepted before from that name.
    duplicates: u64,
    /// Receipts that it asked for and has not got.
    pub receipts_due: u32,
    /// It publishes no more, and only waits for its receipts.
    pub has_ended: bool,
    /// Its last read brought events, and none of them goes anywhere: nobody is subscribed, no history keeps it.
    pub is_unwanted: bool,
}

/// What the node asks of publishers.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Bytes of the `data` of one event at most.
    pub max_publish_bytes: usize,
    /// The token that HELLO must carry, if any.
    pub token: Option<&'a str>,
    /// What events are held to.
    pub rules: &'a Rules,
    /// What was accepted before.
    pub dedupe: &'a Dedupe,
    /// How long that counts.
    pub window: Window,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Continue,
    /// It closes once the answers are written.
    Close,
}

impl Publisher {
    /// A publisher that has just connected. It is authorised at once where no token is asked for.
    pub fn new(address: Box<str>, now: u64, terms: Terms<'_>) -> Self {
        Self {
            connected: now,
            partial: Vec::new(),
            partial_since: None,
            unread_since: None,
            accepted: 0,
            newest: 0,
            ack_due: false,
            authorised: terms.token.is_none(),
            address,
            name: Box::default(),
            known: None,
            new_names: NewNames::default(),
            duplicates: 0,
            receipts_due: 0,
            has_ended: false,
            is_unwanted: false,
        }
    }

    /// Whether it has shown the token, or none is asked for.
    pub fn is_authorised(&self) -> bool {
        self.authorised
    }

    /// Takes what was read. Every whole frame is processed: events go to `accept` in their order, with their
    /// sequence where a receipt is asked for, answers to `out`. A frame is published whole or not at all.
    pub fn handle_input(
        &mut self,
        mut input: &[u8],
        now: u64,
        terms: Terms<'_>,
        metrics: &ShardMetrics,
        out: &mut Vec<u8>,
        mut accept: impl FnMut(&Publish<'_>, Option<u64>),
    ) -> Outcome {
        // Only the frame that was begun is completed in the buffer; what follows it is decoded where it lies.
        while !self.partial.is_empty() {
            let wanted = match frame_len(&self.partial, terms) {
                Ok(wanted) => wanted.unwrap_or(HEADER_LEN),
                Err((sequence, refusal)) => return self.refuse(sequence, &refusal, metrics, out),
            };
            let missing = wanted - self.partial.len();
            let (piece, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(piece);
            input = rest;
            if piece.len() < missing {
                return self.pause(out);
            }
            if wanted == HEADER_LEN && frame_len(&self.partial, terms) != Ok(Some(HEADER_LEN)) {
                continue; // The header is whole now and says how much body to wait for.
            }
            let frame = std::mem::take(&mut self.partial);
            self.partial_since = None;
            if self.handle_frame(&frame, now, terms, metrics, out, &mut accept) == Outcome::Close {
                return Outcome::Close;
            }
        }
        loop {
            match frame_len(input, terms) {
                Ok(Some(length)) if length <= input.len() => {
                    let (frame, rest) = input.split_at(length);
                    if self.handle_frame(frame, now, terms, metrics, out, &mut accept) == Outcome::Close {
                        return Outcome::Close;
                    }
                    input = rest;
                }
                Ok(_) => {
                    if !input.is_empty() {
                        self.partial.extend_from_slice(input);
                        self.partial_since = Some(now);
                    }
                    return self.pause(out);
                }
                Err((sequence, refusal)) => return self.refuse(sequence, &refusal, metrics, out),
            }
        }
    }

    /// The end of a read: one ACK covers all that was accepted in it.
    fn pause(&mut self, out: &mut Vec<u8>) -> Outcome {
        if std::mem::take(&mut self.ack_due) {
            encode_ack(self.newest, self.accepted, out);
        }
        Outcome::Continue
    }

    fn refuse(
        &mut self,
        sequence: u64,
        refusal: &Refusal,
        metrics: &ShardMetrics,
        out: &mut Vec<u8>,
    ) -> Outcome {
        metrics.refuse(refusal.code, 1);
        if !refusal.code.closes() {
            encode_error(sequence, refusal, out);
            return Outcome::Continue;
        }
        self.pause(out);
        encode_error(sequence, refusal, out);
        Outcome::Close
    }

    /// Processes one whole frame, whose header was checked by [`frame_len`].
    fn handle_frame(
        &mut self,
        frame: &[u8],
        now: u64,
        terms: Terms<'_>,
        metrics: &ShardMetrics,
        out: &mut Vec<u8>,
        accept: &mut impl FnMut(&Publish<'_>, Option<u64>),
    ) -> Outcome {
        // `frame_len` gave the length of a frame only after its header was there.
        let Some((header, body)) = frame.split_first_chunk::<HEADER_LEN>() else { return Outcome::Close };
        let header = Header::parse(header);
        let outcome = match Kind::from_byte(header.kind) {
            Some(Kind::Hello) => self.handle_hello(body, now, terms),
            _ if !self.authorised => Err(Refusal::new(
                ErrorCode::Unauthorised,
                "this listener asks for a HELLO with a token first",
            )),
            Some(Kind::Ping) => {
                encode_ping(Kind::Pong, header.sequence, body, out);
                Ok(())
            }
            _ => self.handle_publish((header, body), now, terms, metrics, accept).map(|is_new| {
                if !is_new && header.flags & FLAG_RECEIPT != 0 {
                    // How far it went was told the first time; now it went nowhere.
                    encode_receipt(header.sequence, Reach::default(), out);
                }
            }),
        };
        match outcome {
            Ok(()) => Outcome::Continue,
            Err(refusal) => self.refuse(header.sequence, &refusal, metrics, out),
        }
    }

    fn handle_hello(&mut self, body: &[u8], now: u64, terms: Terms<'_>) -> Result<(), Refusal> {
        let hello = Hello::decode(body)?;
        if !is_secret(terms.token, Some(hello.token)) {
            return Err(Refusal::new(ErrorCode::Unauthorised, "HELLO carries the wrong token"));
        }
        self.authorised = true;
        if self.known.is_some() && *self.name == *hello.name {
            return Ok(());
        }
        self.let_go(terms.dedupe);
        self.name = hello.name.into();
        if !hello.name.is_empty() {
            self.known = Some(terms.dedupe.name(hello.name, &mut self.new_names, now, terms.window)?);
        }
        Ok(())
    }

    /// It goes by its name no more.
    pub fn let_go(&mut self, dedupe: &Dedupe) {
        if let Some(known) = self.known.take() {
            dedupe.let_go(&self.name, known, &mut self.new_names);
        }
    }

    /// Accepts an event; answers whether it is a new one.
    fn handle_publish(
        &mut self,
        (header, body): (Header, &[u8]),
        now: u64,
        terms: Terms<'_>,
        metrics: &ShardMetrics,
        accept: &mut impl FnMut(&Publish<'_>, Option<u64>),
    ) -> Result<bool, Refusal> {
        let publish = Publish::decode(body, terms.max_publish_bytes)?;
        let masked = terms.rules.check(&publish)?;
        let known = self.known.as_ref().filter(|_| header.sequence != 0);
        let is_new = known.is_none_or(|name| name.accept(header.sequence, now, terms.window.time));
        if is_new {
            let receipt = (header.flags & FLAG_RECEIPT != 0).then_some(header.sequence);
            self.receipts_due += u32::from(receipt.is_some());
            match &masked {
                None => accept(&publish, receipt),
                Some(masked) => {
                    metrics.events_masked.one();
                    accept(&Publish { data: masked, ..publish }, receipt);
                }
            }
        } else {
            self.note_duplicate(header.sequence, metrics);
        }
        self.accepted += 1;
        self.newest = header.sequence;
        self.ack_due |= header.flags & FLAG_ACK != 0;
        Ok(is_new)
    }

    fn note_duplicate(&mut self, sequence: u64, metrics: &ShardMetrics) {
        metrics.events_duplicate.one();
        if self.duplicates == 0 {
            // A publisher that began to number anew by mistake loses its events: somebody should know.
            let (address, name) = (&self.address, &self.name);
            tracing::info!(%address, ?name, sequence, "known already from this publisher's name: not published again");
        }
        self.duplicates += 1;
    }
}

/// Whether a token is the one asked for, in time that does not depend on where they differ. `None` asks for none.
pub fn is_secret(wanted: Option<&str>, given: Option<&str>) -> bool {
    match (wanted, given) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wanted), Some(given)) => wanted.as_bytes().ct_eq(given.as_bytes()).into(),
    }
}

/// Header and body bytes of the frame at the front of `input`, or `None` where the header is not whole. All
/// that a header can say wrong is found here, before any of the body is kept.
fn frame_len(input: &[u8], terms: Terms<'_>) -> Result<Option<usize>, (u64, Refusal)> {
    let Some((header, _)) = input.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = Header::parse(header);
    let refuse = |code, message: String| Err((header.sequence, Refusal::new(code, message)));
    if header.version != VERSION {
        return refuse(
            ErrorCode::Unsupported,
            format!("frame version {} is not served; this node speaks {VERSION}", header.version),
        );
    }
    let longest = match Kind::from_byte(header.kind) {
        Some(Kind::Hello) => 4 + MAX_TOKEN_BYTES + MAX_PUBLISHER_NAME_BYTES,
        Some(Kind::Publish) => {
            PUBLISH_FIXED_LEN + (MAX_TOPICS + 2) * (MAX_NAME_BYTES + 1) + terms.max_publish_bytes
        }
        Some(Kind::Ping) => MAX_PING_BYTES,
        _ => {
            return refuse(
                ErrorCode::Unsupported,
                format!("frame kind {} is not one that a publisher sends", header.kind),
            );
        }
    };
    if header.flags & !(FLAG_ACK | FLAG_RECEIPT) != 0 {
        return refuse(
            ErrorCode::Malformed,
            format!("flags {:#06x}: only bits 0 and 1 have a meaning", header.flags),
        );
    }
    if header.length as usize > longest {
        return refuse(
            ErrorCode::TooLarge,
            format!("a body of {} bytes is above the limit of {longest} for its kind", header.length),
        );
    }
    Ok(Some(HEADER_LEN + header.length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::rules::NONE;
    use crate::publish::wire::encode_hello;
    use std::sync::LazyLock;
    use std::time::Duration;

    fn terms(token: Option<&str>) -> Terms<'_> {
        // Each test's publishers have names of their own, where they have any.
        static DEDUPE: LazyLock<Dedupe> = LazyLock::new(Dedupe::default);
        let window = Window { time: Duration::from_secs(60), max: 1000 };
        Terms { max_publish_bytes: 1000, token, rules: &NONE, dedupe: &DEDUPE, window }
    }

    fn publish(sequence: u64, flags: u16, topics: &str, data: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let publish = Publish { topics, event: "e", key: "", data, timestamp_ms: 0 };
        publish.encode(flags, sequence, &mut out).unwrap();
        out
    }

    /// Feeds pieces; answers the data accepted, the answers as (kind, sequence, first of the body) and whether
    /// it closed.
    fn run<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        terms: Terms<'_>,
    ) -> (Vec<String>, Vec<(u8, u64, u64)>, Outcome) {
        let mut publisher = Publisher::new("test".into(), 0, terms);
        let (mut out, mut accepted, mut outcome) = (Vec::new(), Vec::new(), Outcome::Continue);
        for piece in pieces {
            let accept = |publish: &Publish<'_>, _: Option<u64>| accepted.push(publish.data.to_owned());
            outcome = publisher.handle_input(piece, 0, terms, &ShardMetrics::default(), &mut out, accept);
            if outcome == Outcome::Close {
                break;
            }
        }
        let mut answers = Vec::new();
        let mut rest = &out[..];
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(header);
            let (body, after) = body.split_at(header.length as usize);
            let mut first = [0; 8];
            let n = if header.kind == Kind::Error as u8 { 2 } else { body.len().min(8) };
            first[..n].copy_from_slice(&body[..n]);
            answers.push((header.kind, header.sequence, u64::from_le_bytes(first)));
            rest = after;
        }
        (accepted, answers, outcome)
    }

    #[test]
    fn every_split_gives_the_same_events_and_the_same_last_word() {
        let mut input = Vec::new();
        encode_hello("", "", &mut input).unwrap();
        input.extend(publish(1, 0, "a", "1"));
        input.extend(publish(2, FLAG_ACK, "a", "[2]"));
        input.extend(publish(3, 0, "bad\u{1}", "3"));
        encode_ping(Kind::Ping, 4, b"hello", &mut input);
        input.extend(publish(5, 0, "a", "{"));
        input.extend(publish(6, FLAG_ACK, "a", &"9".repeat(900)));
        let (accepted, answers, outcome) = run([&input[..]], terms(None));
        assert_eq!(accepted.len(), 3);
        assert_eq!(outcome, Outcome::Continue);
        let hello = u64::from_le_bytes(*b"hello\0\0\0");
        assert_eq!(answers, [(4, 3, 4), (6, 4, hello), (4, 5, 5), (3, 6, 3)]);
        for cut in 0..=input.len() {
            let (head, tail) = input.split_at(cut);
            let split = run([head, tail], terms(None));
            assert_eq!((&split.0, split.1.last()), (&accepted, answers.last()), "cut at {cut}");
        }
        let bytes = run(input.chunks(1), terms(None));
        assert_eq!((&bytes.0, bytes.1.last()), (&accepted, answers.last()));
        // Every cut of the stream publishes whole frames only.
        for end in 0..input.len() {
            assert!(run([&input[..end]], terms(None)).0.iter().all(|data| accepted.contains(data)));
        }
    }

    #[test]
    fn closing_errors_come_after_what_was_accepted() {
        let header = |length: u32, version, kind, flags| {
            Header { length, version, kind, flags, sequence: 7 }.to_bytes().to_vec()
        };
        for (bad, code) in [
            (header(0, 2, 2, 0), ErrorCode::Unsupported),
            (header(0, 1, 3, 0), ErrorCode::Unsupported),
            (header(0, 1, 0, 0), ErrorCode::Unsupported),
            (header(0, 1, 200, 0), ErrorCode::Unsupported),
            (header(0, 1, 2, 2), ErrorCode::Malformed),
            (header(0, 1, 2, 4), ErrorCode::Malformed),
            (header(0, 1, 2, 0), ErrorCode::Malformed),
            (header(u32::MAX, 1, 2, 0), ErrorCode::TooLarge),
            (header(126, 1, 5, 0), ErrorCode::TooLarge),
            (publish(7, 0, "a", &"1".repeat(1001)), ErrorCode::TooLarge),
        ] {
            let input = [publish(1, FLAG_ACK, "a", "1"), bad, publish(9, 0, "a", "9")].concat();
            for cut in 0..input.len() {
                let (head, tail) = input.split_at(cut);
                let (accepted, answers, outcome) = run([head, tail], terms(None));
                assert_eq!((accepted.len(), outcome), (1, Outcome::Close));
                assert_eq!(answers, [(3, 1, 1), (4, 7, code as u64)], "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_token_is_asked_for_before_anything_else() {
        let terms = terms(Some("secret"));
        let hello = |token: &str| {
            let mut out = Vec::new();
            encode_hello(token, "", &mut out).unwrap();
            out
        };
        let event = publish(1, FLAG_ACK, "a", "1");
        assert_eq!(run([&event[..]], terms).1, [(4, 1, 3)]);
        assert_eq!(run([&[hello("wrong"), event.clone()].concat()[..]], terms).1, [(4, 0, 3)]);
        assert_eq!(run([&[hello(""), event.clone()].concat()[..]], terms).1, [(4, 0, 3)]);
        assert_eq!(run([&[hello("secret"), event].concat()[..]], terms).1, [(3, 1, 1)]);
    }

    #[test]
    fn a_name_publishes_each_sequence_once_and_is_told_of_all() {
        let hello = |name: &str| {
            let mut out = Vec::new();
            encode_hello("", name, &mut out).unwrap();
            out
        };
        let flags = FLAG_ACK | FLAG_RECEIPT;
        let first = [hello("once"), publish(1, flags, "a", "1"), publish(2, flags, "a", "2")].concat();
        assert_eq!(run([&first[..]], terms(None)).0, ["1", "2"]);
        let again = [&first[..], &publish(3, flags, "a", "3"), &publish(0, 0, "a", "0")].concat();
        let (accepted, answers, _) = run([&again[..]], terms(None));
        assert_eq!(accepted, ["3", "0"], "sequence 0 opts out");
        assert_eq!(
            answers,
            [(7, 1, 0), (7, 2, 0), (3, 0, 4)],
            "receipts of nothing, then the ACK of all four"
        );
        let refused = [hello("other"), publish(5, 0, "a", "{"), publish(5, 0, "a", "5")].concat();
        assert_eq!(run([&refused[..]], terms(None)).0, ["5"], "a refused event takes no sequence");
        assert_eq!(run([&publish(1, 0, "a", "1")[..]], terms(None)).0, ["1"], "only names are remembered");
    }
}
