//! The publish socket's frames: what is accepted and answered is what a reader of whole frames would say, however
//! the input is cut.

use std::collections::HashMap;
use std::time::Duration;

use fanwire::catalog::rules::NONE;
use fanwire::error::ErrorCode;
use fanwire::metrics::ShardMetrics;
use fanwire::publish::dedupe::{Dedupe, Window};
use fanwire::publish::socket::{Outcome, Publisher, Terms};
use fanwire::publish::wire::{FLAG_ACK, FLAG_RECEIPT, HEADER_LEN, Header, Hello, Kind, Publish};

use super::cut::cuts;

/// Small, so that inputs come to it.
const MAX_PUBLISH_BYTES: usize = 200;
const MAX_NAMES: usize = 2;

thread_local! {
    /// Larger than everything else here together.
    static METRICS: ShardMetrics = ShardMetrics::default();
}

/// An accepted event: its body written anew, and the sequence of its receipt where one is asked for.
type Accepted = (Vec<u8>, Option<u64>);

/// An answer that is no ACK: kind, sequence, body.
type Answer = (u8, u64, Vec<u8>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Result {
    accepted: Vec<Accepted>,
    /// Events that an ACK may count: duplicates too.
    counted: u64,
    answers: Vec<Answer>,
    /// Sequence and count of each ACK.
    acks: Vec<(u64, u64)>,
    closed: bool,
}

pub fn fuzz(input: &[u8]) {
    for token in [None, Some("secret")] {
        let whole = run(&[input], token);
        let (expected, last_wanted) = reference(input, token);
        assert_eq!(whole.accepted, expected.accepted);
        assert_eq!(whole.closed, expected.closed);
        let heads = |answers: &[Answer]| answers.iter().map(|(kind, n, _)| (*kind, *n)).collect::<Vec<_>>();
        assert_eq!(heads(&whole.answers), heads(&expected.answers));
        for pieces in cuts(input) {
            let cut = run(&pieces, token);
            assert_eq!(
                (&cut.accepted, &cut.answers, cut.closed),
                (&whole.accepted, &whole.answers, whole.closed)
            );
            // How many frames one ACK covers depends on the reads; what they say together does not.
            assert!(cut.acks.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", cut.acks);
            assert!(cut.acks.iter().all(|(_, count)| *count <= expected.counted));
            assert!(cut.acks.last().map_or(0, |(_, count)| *count) >= last_wanted);
        }
    }
}

fn run(pieces: &[&[u8]], token: Option<&str>) -> Result {
    let (dedupe, time) = (Dedupe::default(), Duration::from_secs(60));
    let window = Window { time, max: MAX_NAMES };
    let terms = Terms { max_publish_bytes: MAX_PUBLISH_BYTES, token, rules: &NONE, dedupe: &dedupe, window };
    METRICS.with(|metrics| run_counted(pieces, terms, metrics))
}

fn run_counted(pieces: &[&[u8]], terms: Terms<'_>, metrics: &ShardMetrics) -> Result {
    let mut publisher = Publisher::new("fuzz".into(), 0, terms);
    let (mut result, mut out) = (Result::default(), Vec::new());
    for (now, piece) in pieces.iter().enumerate() {
        let accept = |publish: &Publish<'_>, receipt: Option<u64>| {
            publish.check().expect("what is accepted is right");
            result.accepted.push((body(publish), receipt));
        };
        let outcome = publisher.handle_input(piece, now as u64 + 1, terms, metrics, &mut out, accept);
        result.closed = outcome == Outcome::Close;
        if result.closed {
            break;
        }
    }
    let mut rest = &out[..];
    while !rest.is_empty() {
        let (header, after) = rest.split_first_chunk::<HEADER_LEN>().expect("whole answers");
        let header = Header::parse(header);
        let (body, after) = after.split_at(header.length as usize);
        match Kind::from_byte(header.kind) {
            Some(Kind::Ack) => {
                result
                    .acks
                    .push((header.sequence, u64::from_le_bytes(body.try_into().expect("eight bytes"))));
            }
            Some(Kind::Error) => {
                let code = u16::from_le_bytes([body[0], body[1]]);
                assert!(ErrorCode::ALL.iter().any(|known| *known as u16 == code), "code {code}");
                assert!(std::str::from_utf8(&body[2..]).is_ok_and(|text| !text.is_empty()));
                result.answers.push((header.kind, header.sequence, body.to_vec()));
            }
            Some(Kind::Pong | Kind::Receipt) => {
                result.answers.push((header.kind, header.sequence, body.to_vec()))
            }
            other => panic!("the node answers {other:?}"),
        }
        rest = after;
    }
    result
}

/// The body of a frame with this event.
fn body(publish: &Publish<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    publish.encode(0, 0, &mut out).expect("it came in a frame");
    out.split_off(HEADER_LEN)
}

/// What the whole input comes to, frame after frame, without any state but a position. Also: how many events the
/// last ACK must cover.
fn reference(mut input: &[u8], token: Option<&str>) -> (Result, u64) {
    let (mut result, mut wanted, mut authorised) = (Result::default(), 0, token.is_none());
    // The highest sequence of each name, and the name that is in use.
    let (mut names, mut name) = (HashMap::<&str, u64>::new(), "");
    while let Some((bytes, after)) = input.split_first_chunk::<HEADER_LEN>() {
        let header = Header::parse(bytes);
        let longest = match header.kind {
            1 => 4 + 8192 + 64,
            2 => 16 + 18 * 256 + MAX_PUBLISH_BYTES,
            5 => 125,
            _ => 0,
        };
        let is_bad = header.version != 1
            || ![1, 2, 5].contains(&header.kind)
            || header.flags & !(FLAG_ACK | FLAG_RECEIPT) != 0;
        let length = header.length as usize;
        if is_bad || length > longest {
            result.answers.push((Kind::Error as u8, header.sequence, Vec::new()));
            result.closed = true;
            break;
        }
        if after.len() < length {
            break;
        }
        let (frame, rest) = after.split_at(length);
        input = rest;
        let mut refuse = |closes: bool| {
            result.answers.push((Kind::Error as u8, header.sequence, Vec::new()));
            result.closed = closes;
        };
        match header.kind {
            1 => match Hello::decode(frame) {
                Ok(hello) if token.is_some_and(|token| token != hello.token) => refuse(true),
                Ok(hello) => {
                    authorised = true;
                    let is_known = hello.name.is_empty() || names.contains_key(hello.name);
                    if !is_known && names.len() == MAX_NAMES {
                        refuse(ErrorCode::ShuttingDown.closes());
                    } else if !hello.name.is_empty() {
                        names.entry(hello.name).or_default();
                    }
                    name = hello.name;
                }
                Err(refusal) => refuse(refusal.code.closes()),
            },
            _ if !authorised => refuse(true),
            5 => result.answers.push((Kind::Pong as u8, header.sequence, frame.to_vec())),
            _ => match Publish::decode(frame, MAX_PUBLISH_BYTES) {
                Ok(_) => {
                    let is_asked = header.flags & FLAG_RECEIPT != 0;
                    let known = names.get_mut(name).filter(|_| header.sequence != 0);
                    if known.is_none_or(|highest| {
                        header.sequence > std::mem::replace(highest, header.sequence.max(*highest))
                    }) {
                        result.accepted.push((frame.to_vec(), is_asked.then_some(header.sequence)));
                    } else if is_asked {
                        result.answers.push((Kind::Receipt as u8, header.sequence, Vec::new()));
                    }
                    result.counted += 1;
                    if header.flags & FLAG_ACK != 0 {
                        wanted = result.counted;
                    }
                }
                Err(refusal) => refuse(refusal.code.closes()),
            },
        }
        if result.closed {
            break;
        }
    }
    (result, wanted)
}
