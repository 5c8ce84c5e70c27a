//! The publish socket's frames: what is accepted and answered is what a reader of whole frames would say, however
//! the input is cut.

use fanwire::catalog::rules::NONE;
use fanwire::error::ErrorCode;
use fanwire::metrics::ShardMetrics;
use fanwire::publish::socket::{Outcome, Publisher, Terms};
use fanwire::publish::wire::{FLAG_ACK, HEADER_LEN, Header, Hello, Kind, Publish};

use super::cut::cuts;

/// Small, so that inputs come to it.
const MAX_PUBLISH_BYTES: usize = 200;

thread_local! {
    /// Larger than everything else here together.
    static METRICS: ShardMetrics = ShardMetrics::default();
}

/// An accepted event: its frame's sequence, and its body written anew.
type Accepted = Vec<u8>;

/// An answer that is no ACK: kind, sequence, body.
type Answer = (u8, u64, Vec<u8>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Result {
    accepted: Vec<Accepted>,
    answers: Vec<Answer>,
    /// Sequence and count of each ACK.
    acks: Vec<(u64, u64)>,
    closed: bool,
}

pub fn fuzz(input: &[u8]) {
    for token in [None, Some("secret")] {
        let terms = Terms { max_publish_bytes: MAX_PUBLISH_BYTES, token, rules: &NONE };
        let whole = run(&[input], terms);
        let (expected, last_wanted) = reference(input, token);
        assert_eq!(whole.accepted, expected.accepted);
        assert_eq!(whole.closed, expected.closed);
        let heads = |answers: &[Answer]| answers.iter().map(|(kind, n, _)| (*kind, *n)).collect::<Vec<_>>();
        assert_eq!(heads(&whole.answers), heads(&expected.answers));
        for pieces in cuts(input) {
            let cut = run(&pieces, terms);
            assert_eq!(
                (&cut.accepted, &cut.answers, cut.closed),
                (&whole.accepted, &whole.answers, whole.closed)
            );
            // How many frames one ACK covers depends on the reads; what they say together does not.
            assert!(cut.acks.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", cut.acks);
            assert!(cut.acks.iter().all(|(_, count)| *count <= cut.accepted.len() as u64));
            assert!(cut.acks.last().map_or(0, |(_, count)| *count) >= last_wanted);
        }
    }
}

fn run(pieces: &[&[u8]], terms: Terms<'_>) -> Result {
    METRICS.with(|metrics| run_counted(pieces, terms, metrics))
}

fn run_counted(pieces: &[&[u8]], terms: Terms<'_>, metrics: &ShardMetrics) -> Result {
    let mut publisher = Publisher::new("fuzz".into(), 0, terms);
    let (mut result, mut out) = (Result::default(), Vec::new());
    for (now, piece) in pieces.iter().enumerate() {
        let accept = |publish: &Publish<'_>| {
            publish.check().expect("what is accepted is right");
            result.accepted.push(body(publish));
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
            Some(Kind::Pong) => result.answers.push((header.kind, header.sequence, body.to_vec())),
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
    while let Some((bytes, after)) = input.split_first_chunk::<HEADER_LEN>() {
        let header = Header::parse(bytes);
        let longest = match header.kind {
            1 => 4 + 8192 + 64,
            2 => 16 + 18 * 256 + MAX_PUBLISH_BYTES,
            5 => 125,
            _ => 0,
        };
        let is_bad =
            header.version != 1 || ![1, 2, 5].contains(&header.kind) || header.flags & !FLAG_ACK != 0;
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
                Ok(hello) if token.is_none_or(|token| token == hello.token) => authorised = true,
                Ok(_) => refuse(true),
                Err(refusal) => refuse(refusal.code.closes()),
            },
            _ if !authorised => refuse(true),
            5 => result.answers.push((Kind::Pong as u8, header.sequence, frame.to_vec())),
            _ => match Publish::decode(frame, MAX_PUBLISH_BYTES) {
                Ok(_) => {
                    result.accepted.push(frame.to_vec());
                    if header.flags & FLAG_ACK != 0 {
                        wanted = result.accepted.len() as u64;
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
