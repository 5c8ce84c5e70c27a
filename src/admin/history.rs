//! `GET /api/topics/{topic}/history`: what a topic keeps, for programs that come without a connection.

use std::sync::Arc;

use crate::admin::api::{Context, Reply};
use crate::clock::Iso8601;
use crate::dialect::envelope::{Form, Frames, JSON, read_epoch, write_epoch};
use crate::proto::http1::{HttpError, query_pairs};
use crate::proto::websocket::payload;
use crate::topic::recall::Resume;
use crate::topic::topic::Position;

/// Bytes of events in one answer, about.
const ANSWER_BYTES: usize = 4 << 20;

/// Where the caller wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With the oldest event.
    Oldest,
    /// After this offset, in whatever life of the log.
    Offset(u64),
    /// After this position; `None`: one that no node gave.
    Position(Option<Position>),
}

impl Since {
    /// Reads `since` and `epoch` from a query.
    ///
    /// # Errors
    /// 400 where the offset is no number.
    pub fn read(query: &str) -> Result<Self, HttpError> {
        let (mut offset, mut epoch) = (None, None);
        for pair in query_pairs(query) {
            let (name, value) = pair?;
            match &*name {
                "since" => {
                    let bad =
                        |_| HttpError::new(400, format!("the query's since is not a number: {value:?}"));
                    offset = Some(value.parse().map_err(bad)?);
                }
                "epoch" => epoch = Some(read_epoch(&value)),
                _ => {}
            }
        }
        Ok(match (offset, epoch) {
            (None, _) => Self::Oldest,
            (Some(offset), None) => Self::Offset(offset),
            (Some(offset), Some(epoch)) => Self::Position(epoch.map(|epoch| Position { epoch, offset })),
        })
    }
}

/// The answer: events in order, and whether any are missing between the place asked for and the first of them.
pub fn history(context: &Context<'_>, name: &str, since: Since, limit: usize) -> Reply {
    let Context { shared, shard, now, .. } = *context;
    let found = shared.topics.find(name).and_then(|topic| Some((topic.epoch()?, topic)));
    let Some((epoch, topic)) = found else {
        let kept = shared.topics.rules().of(name).is_some_and(|rule| rule.history.is_some());
        let recovered = matches!(since, Since::Oldest | Since::Offset(0)) && kept;
        let answer = serde_json::json!({ "epoch": null, "offset": 0, "events": [], "recovered": recovered });
        return Reply::json(200, &answer);
    };
    let position = match since {
        Since::Oldest => None,
        Since::Offset(offset) => Some(Position { epoch, offset }),
        Since::Position(position) => position,
    };
    let (after, is_whole) = match shared.topics.resume(&topic, position, now.mono) {
        Resume::Whole { after } => (after, true),
        Resume::Part { after, .. } => (after, false),
        Resume::Unknown { after } => (after, since == Since::Oldest),
    };
    let reading = shared.topics.read(&topic, after, ANSWER_BYTES, now.mono);
    let mut body =
        format!(r#"{{"epoch":"{}","offset":{},"events":["#, write_epoch(epoch), reading.head).into_bytes();
    let mut left = limit;
    for piece in &reading.pieces {
        let frames = piece.round.frames(Form::plain(JSON), None, || {
            shared.metrics[shard].envelope_writes.add(piece.round.events.len() as u64);
            let mut frames = Frames::default();
            let (bytes, ends) = (&mut frames.bytes, &mut frames.ends);
            shared.envelopes.get(JSON).write(&piece.round, &topic, &[], &mut Iso8601::new(), bytes, ends);
            Arc::new(frames)
        });
        for place in piece.events.clone().take(left) {
            if !body.ends_with(b"[") {
                body.push(b',');
            }
            body.extend_from_slice(payload(frames.frame(place)));
        }
        left = left.saturating_sub(piece.events.len());
    }
    // Something may have become too old meanwhile.
    body.extend_from_slice(
        format!(r#"],"recovered":{}}}"#, is_whole && reading.oldest <= after + 1).as_bytes(),
    );
    Reply {
        status: 200,
        content_type: "application/json",
        headers: vec![("Cache-Control", "no-store".to_owned())],
        body,
    }
}
