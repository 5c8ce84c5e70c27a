//! `POST /api/publish`: one event, an array of them, or one a line. All or nothing.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::admin::api::Reply;
use crate::clock::{Now, parse_iso8601};
use crate::error::{ErrorCode, Refusal};
use crate::publish::wire::{MAX_TOPICS, Publish};
use crate::topic::name::check_name;

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object or an array of objects.
    Json,
    /// An object a line.
    Ndjson,
}

/// What became of a request.
#[derive(Debug)]
pub struct Published {
    /// The answer.
    pub reply: Reply,
    /// Refused entries, by code.
    pub refused: Vec<(ErrorCode, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    event: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    key: Option<String>,
    timestamp: Option<String>,
}

/// An entry that was read and checked.
struct Checked<'a> {
    topics: String,
    event: String,
    key: String,
    data: &'a str,
    timestamp_ms: u64,
}

impl Checked<'_> {
    fn publish(&self) -> Publish<'_> {
        Publish {
            topics: &self.topics,
            event: &self.event,
            key: &self.key,
            data: self.data,
            timestamp_ms: self.timestamp_ms,
        }
    }
}

/// Errors listed in one answer at most; the others are counted.
const LISTED: usize = 100;

/// Checks every entry of the body and, if all are good, hands them to `accept` in their order.
pub fn publish(
    format: Format,
    body: &[u8],
    max_publish_bytes: usize,
    now: Now,
    mut accept: impl FnMut(&Publish<'_>),
) -> Published {
    let entries = match split(format, body) {
        Ok(entries) => entries,
        Err(refusal) => return refused(&[(0, refusal)]),
    };
    let (mut checked, mut errors) = (Vec::with_capacity(entries.len()), Vec::new());
    for (index, entry) in entries.into_iter().enumerate() {
        match check(entry, max_publish_bytes, now) {
            Ok(entry) => checked.push(entry),
            Err(refusal) => errors.push((index, refusal)),
        }
    }
    if !errors.is_empty() {
        return refused(&errors);
    }
    for entry in &checked {
        accept(&entry.publish());
    }
    let reply = Reply::json(200, &serde_json::json!({ "accepted": checked.len() }));
    Published { reply, refused: Vec::new() }
}

/// Takes the body apart into the texts of its entries.
fn split(format: Format, body: &[u8]) -> Result<Vec<&str>, Refusal> {
    let malformed = |message: String| Refusal::new(ErrorCode::Malformed, message);
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    if format == Format::Ndjson {
        return Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).collect());
    }
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    if trimmed.is_empty() {
        return Err(malformed("the body is empty; it should be an event, or an array of them".to_owned()));
    }
    if !trimmed.starts_with('[') {
        return Ok(vec![trimmed]);
    }
    let entries: Vec<&RawValue> = serde_json::from_str(trimmed)
        .map_err(|error| malformed(format!("the body is not a JSON array: {error}")))?;
    Ok(entries.into_iter().map(RawValue::get).collect())
}

fn check(text: &str, max_publish_bytes: usize, now: Now) -> Result<Checked<'_>, Refusal> {
    let entry: Entry<'_> = serde_json::from_str(text)
        .map_err(|error| Refusal::new(ErrorCode::Malformed, format!("not an event: {error}")))?;
    let bad_name = |message: String| Refusal::new(ErrorCode::BadName, message);
    let topics = match (entry.topic, entry.topics) {
        (Some(topic), None) => vec![topic],
        (None, Some(topics)) => topics,
        (Some(_), Some(_)) => return Err(bad_name("give `topic` or `topics`, not both".to_owned())),
        (None, None) => return Err(bad_name("`topic` or `topics` is missing".to_owned())),
    };
    if topics.len() > MAX_TOPICS {
        return Err(bad_name(format!("more than {MAX_TOPICS} topics")));
    }
    // Before they are joined: a name with a line feed would become two.
    topics.iter().try_for_each(|topic| check_name("topic", topic)).map_err(bad_name)?;
    let timestamp_ms = match entry.timestamp {
        None => now.wall_ms,
        Some(text) => parse_iso8601(&text).map_err(|error| Refusal::new(ErrorCode::Malformed, error))?,
    };
    let data = entry.data.map_or("", RawValue::get);
    if data.len() > max_publish_bytes {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("data has {} bytes, above the limit of {max_publish_bytes}", data.len()),
        ));
    }
    let checked = Checked {
        topics: topics.join("\n"),
        event: entry.event,
        key: entry.key.unwrap_or_default(),
        data,
        timestamp_ms,
    };
    checked.publish().check()?;
    Ok(checked)
}

fn refused(errors: &[(usize, Refusal)]) -> Published {
    let listed: Vec<_> = errors
        .iter()
        .take(LISTED)
        .map(|(index, refusal)| {
            serde_json::json!({ "index": index, "code": refusal.code as u16, "message": refusal.message })
        })
        .collect();
    let mut answer = serde_json::json!({ "accepted": 0, "errors": listed });
    if errors.len() > LISTED {
        answer["errorsInAll"] = errors.len().into();
    }
    let counts = ErrorCode::ALL
        .into_iter()
        .map(|code| (code, errors.iter().filter(|(_, refusal)| refusal.code == code).count() as u64));
    Published { reply: Reply::json(400, &answer), refused: counts.filter(|(_, count)| *count > 0).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(format: Format, body: &str) -> (u16, serde_json::Value, Vec<String>) {
        let mut accepted = Vec::new();
        let now = Now { mono: 0, wall_ms: 5 };
        let published = publish(format, body.as_bytes(), 50, now, |publish| {
            accepted.push(format!(
                "{}|{}|{}|{}|{}",
                publish.topics.replace('\n', "+"),
                publish.event,
                publish.key,
                publish.data,
                publish.timestamp_ms
            ));
        });
        let answer = serde_json::from_slice(&published.reply.body).unwrap();
        (published.reply.status, answer, accepted)
    }

    #[test]
    fn one_an_array_and_lines_are_accepted_with_data_untouched() {
        let one = r#" {"topics":["run:42","b"],"event":"log","data":{"a" : 1e400},"key":"k","timestamp":"2024-01-15T10:15:00.000Z"} "#;
        assert_eq!(
            run(Format::Json, one),
            (
                200,
                serde_json::json!({"accepted":1}),
                vec![r#"run:42+b|log|k|{"a" : 1e400}|1705313700000"#.into()]
            )
        );
        let array = r#"[{"topic":"a","event":"e","data":null},{"topic":"b","event":"f"}]"#;
        assert_eq!(run(Format::Json, array).2, ["a|e|||5", "b|f|||5"]);
        let lines = "{\"topic\":\"a\",\"event\":\"e\",\"data\":[1]}\r\n\n{\"topic\":\"b\",\"event\":\"f\"}";
        assert_eq!(run(Format::Ndjson, lines).2, ["a|e||[1]|5", "b|f|||5"]);
        assert_eq!(run(Format::Json, "[]").1, serde_json::json!({"accepted":0}));
    }

    #[test]
    fn one_bad_entry_publishes_nothing() {
        let good = r#"{"topic":"a","event":"e"}"#;
        for (bad, code) in [
            ("1", 1),
            ("{}", 1),
            (r#"{"event":"e"}"#, 4),
            (r#"{"topic":"a"}"#, 1),
            (r#"{"topic":"a","topics":["b"],"event":"e"}"#, 4),
            (r#"{"topics":[],"event":"e"}"#, 4),
            (r#"{"topics":["a\nb"],"event":"e"}"#, 4),
            (r#"{"topic":"","event":"e"}"#, 4),
            (r#"{"topic":"a","event":""}"#, 4),
            (r#"{"topic":"a","event":"e","key":"\u0000"}"#, 4),
            (r#"{"topic":"a","event":"e","timestamp":"now"}"#, 1),
            (r#"{"topic":"a","event":"e","dta":1}"#, 1),
            (r#"{"topic":"a","event":"e","data":"01234567890123456789012345678901234567890123456789"}"#, 6),
        ] {
            let (status, answer, accepted) = run(Format::Json, &format!("[{good},{bad}]"));
            assert_eq!((status, accepted.len(), &answer["accepted"]), (400, 0, &0.into()), "{bad}");
            assert_eq!(
                (&answer["errors"][0]["index"], &answer["errors"][0]["code"]),
                (&1.into(), &code.into()),
                "{bad}"
            );
            assert!(!answer["errors"][0]["message"].as_str().unwrap().is_empty());
        }
        for body in ["", "[", "[1,]", "{\"topic\":\"a\""] {
            assert_eq!(run(Format::Json, body).0, 400, "{body}");
        }
        let many = vec!["1"; 150].join("\n");
        let (_, answer, _) = run(Format::Ndjson, &many);
        assert_eq!((answer["errors"].as_array().unwrap().len(), &answer["errorsInAll"]), (100, &150.into()));
    }
}
