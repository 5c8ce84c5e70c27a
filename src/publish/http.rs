//! `POST /api/publish`: one event, an array of them, or one a line. All or nothing.

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalog::rules::Rules;
use crate::clock::parse_iso8601;
use crate::error::{ErrorCode, Refusal};
use crate::proto::http1::HttpError;
use crate::publish::dedupe::Accepted;
use crate::publish::wire::{MAX_TOPICS, Publish};
use crate::receipt::{Reach, Receipt};
use crate::topic::name::check_name;

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object or an array of objects.
    Json,
    /// An object a line.
    Ndjson,
}

/// What a request to publish asks for, from its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How the body is written.
    pub format: Format,
    /// Whether it is answered only once it is known how far its events went.
    pub receipt: bool,
    /// Under which key it is accepted once; 1 to 255 bytes.
    pub idempotency_key: Option<String>,
}

/// The answer to a request that was refused.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong with each bad entry.
    pub answer: Value,
    /// How many entries were refused, by code.
    pub counts: Vec<(ErrorCode, u64)>,
}

/// The entries of a request, all of them good, and how many have been published.
#[derive(Debug)]
pub struct Batch {
    entries: Vec<Checked>,
    next: usize,
    receipt: Option<Arc<Receipt>>,
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

/// An entry that was read and checked. Its data stays where it lies in the body.
#[derive(Debug)]
struct Checked {
    topics: String,
    event: String,
    key: String,
    data: Range<usize>,
    timestamp_ms: u64,
    /// What goes out instead of the data.
    masked: Option<String>,
}

/// Errors listed in one answer at most; the others are counted.
const LISTED: usize = 100;

/// Checks every entry of the body.
///
/// # Errors
/// One is bad: nothing of the request is then published.
pub fn check(format: Format, body: &[u8], max_publish_bytes: usize, rules: &Rules) -> Result<Batch, Refused> {
    let entries = split(format, body).map_err(|refusal| refuse(&[(0, refusal)]))?;
    let (mut checked, mut errors) = (Vec::with_capacity(entries.len()), Vec::new());
    for (index, entry) in entries.into_iter().enumerate() {
        match check_entry(entry, body, max_publish_bytes, rules) {
            Ok(entry) => checked.push(entry),
            Err(refusal) => errors.push((index, refusal)),
        }
    }
    if errors.is_empty() {
        Ok(Batch { entries: checked, next: 0, receipt: None })
    } else {
        Err(refuse(&errors))
    }
}

impl Batch {
    /// The same with one receipt for all of its events together.
    pub fn with_receipt(self, receipt: Option<Arc<Receipt>>) -> Self {
        Self { receipt, ..self }
    }

    /// The receipt that was asked for.
    pub fn receipt(&self) -> Option<&Arc<Receipt>> {
        self.receipt.as_ref()
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none: a body of empty lines.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Hands the next entries to `accept`, in their order, until they come to `bytes`. `body` is what was
    /// checked. Answers whether that was the last of them.
    pub fn publish(&mut self, body: &[u8], bytes: usize, mut accept: impl FnMut(&Publish<'_>)) -> bool {
        let mut taken = 0;
        while taken < bytes
            && let Some(entry) = self.entries.get(self.next)
        {
            self.next += 1;
            taken += entry.topics.len() + entry.event.len() + entry.key.len() + entry.data.len();
            // The data was found in this body, as UTF-8.
            let original = || std::str::from_utf8(&body[entry.data.clone()]).unwrap_or_default();
            let data = entry.masked.as_deref().unwrap_or_else(original);
            let (topics, event, key) = (&*entry.topics, &*entry.event, &*entry.key);
            accept(&Publish { topics, event, key, data, timestamp_ms: entry.timestamp_ms });
        }
        self.next == self.entries.len()
    }

    /// How many of them go out with something masked.
    pub fn masked(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.masked.is_some()).count() as u64
    }

    /// The answer once all of them are published, and the receipt is complete.
    pub fn answer(&self) -> Value {
        let mut answer = serde_json::json!({ "accepted": self.entries.len() });
        if let Some(receipt) = &self.receipt {
            answer["receipt"] = reach(receipt);
        }
        answer
    }
}

/// The answer to a request that was accepted before under its `Idempotency-Key`.
pub fn answer_again(accepted: &Accepted) -> Value {
    let mut answer = serde_json::json!({ "accepted": accepted.events, "duplicate": true });
    if let Some(receipt) = accepted.receipt.as_ref().filter(|receipt| receipt.is_complete()) {
        answer["receipt"] = reach(receipt);
    }
    answer
}

/// Another request was accepted under the same `Idempotency-Key`.
pub fn used_key() -> HttpError {
    HttpError::new(422, "this Idempotency-Key was used for a request with another body")
}

/// There is no room to remember an `Idempotency-Key`.
pub fn too_many_keys() -> HttpError {
    HttpError::new(
        503,
        "this node remembers max_idempotency_keys keys already: try again later, or without a key",
    )
}

fn reach(receipt: &Receipt) -> Value {
    let Reach { matched, written, queued, left_out, closed } = receipt.reach();
    serde_json::json!({
        "matched": matched, "written": written, "queued": queued, "leftOut": left_out, "closed": closed,
    })
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

fn check_entry(text: &str, body: &[u8], max_publish_bytes: usize, rules: &Rules) -> Result<Checked, Refusal> {
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
        // Stamped when it is published.
        None => 0,
        Some(text) => parse_iso8601(&text).map_err(|error| Refusal::new(ErrorCode::Malformed, error))?,
    };
    let data = entry.data.map_or("", RawValue::get);
    if data.len() > max_publish_bytes {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("data has {} bytes, above the limit of {max_publish_bytes}", data.len()),
        ));
    }
    let (topics, key) = (topics.join("\n"), entry.key.unwrap_or_default());
    let publish = Publish { topics: &topics, event: &entry.event, key: &key, data, timestamp_ms };
    publish.check_names()?;
    let masked = rules.check(&publish)?;
    let start = data.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    let data = if data.is_empty() { 0..0 } else { start..start + data.len() };
    Ok(Checked { topics, event: entry.event, key, data, timestamp_ms, masked })
}

fn refuse(errors: &[(usize, Refusal)]) -> Refused {
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
        .map(|code| (code, errors.iter().filter(|(_, refusal)| refusal.code == code).count() as u64));
    Refused { answer, counts: counts.into_iter().filter(|(_, count)| *count > 0).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(format: Format, body: &str) -> (u16, Value, Vec<String>) {
        let mut batch = match check(format, body.as_bytes(), 50, &crate::catalog::rules::NONE) {
            Ok(batch) => batch,
            Err(refused) => return (400, refused.answer, Vec::new()),
        };
        let mut accepted = Vec::new();
        // One byte at a time is one entry at a time.
        while !batch.publish(body.as_bytes(), 1, |publish| {
            let Publish { event, key, data, timestamp_ms, .. } = publish;
            let topics = publish.topics.replace('\n', "+");
            accepted.push(format!("{topics}|{event}|{key}|{data}|{timestamp_ms}"));
        }) {}
        (200, batch.answer(), accepted)
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
        assert_eq!(run(Format::Json, array).2, ["a|e|||0", "b|f|||0"]);
        let lines = "{\"topic\":\"a\",\"event\":\"e\",\"data\":[1]}\r\n\n{\"topic\":\"b\",\"event\":\"f\"}";
        assert_eq!(run(Format::Ndjson, lines).2, ["a|e||[1]|0", "b|f|||0"]);
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
