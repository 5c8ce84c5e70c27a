//! `[[topic]]`: what topics whose names begin alike have.

use std::time::Duration;

use super::guard::MAX_TOPIC;
use super::table::HOUR;
use super::tables::{Field, Row, field};
use super::value::{
    Count, Input, Kind, List, Maybe, Noun, Part, Period, Record, Size, Text, Word, one_line, part,
};
use super::{HistoryLimits, Located, Settings, Topic};

/// What a subscriber may choose from.
const POLICIES: [&str; 5] = ["disconnect", "drop-oldest", "drop-newest", "conflate", REPLAY];

/// The one of them that takes events from the history.
const REPLAY: &str = "replay";

const POLICY: Noun = Noun { article: "a", one: "policy", many: "policies" };

const HISTORY: Record<HistoryLimits> = Record(&[
    part!(events, Count(1, 10_000_000)),
    part!(bytes, Size(1 << 10, 1 << 40)),
    part!(age, Period(Duration::from_millis(100), 30 * 24 * HOUR)),
]);

/// One `[[topic]]` of the file.
#[derive(Default)]
pub(super) struct TopicRow {
    prefix: Option<Located<String>>,
    history: Option<HistoryLimits>,
    policies: Option<Vec<String>>,
    compress_above: Option<usize>,
}

impl Row for TopicRow {
    const NAME: &'static str = "topic";

    const FIELDS: &'static [Field<Self>] = &[
        field!(required prefix, Word(prefix)),
        field!(record history, HISTORY),
        field!(() policies, Maybe(List(1, POLICY, policy))),
        field!(() compress_above, Maybe(Size(1, 1 << 30))),
    ];

    fn check(&self, earlier: &[Self]) -> Vec<(&'static [&'static str], String)> {
        let mut found: Vec<(&'static [&'static str], String)> = Vec::new();
        if let Some(prefix) = &self.prefix
            && let Some(other) =
                earlier.iter().filter_map(|row| row.prefix.as_ref()).find(|other| *other == prefix)
        {
            let message = format!("prefix: `{}` is the prefix at {} already", prefix.value, other.place);
            found.push((&["prefix"], message));
        }
        let policies = self.policies.as_deref().unwrap_or_default();
        for policy in POLICIES {
            if policies.iter().filter(|other| *other == policy).count() > 1 {
                found.push((&["policies"], format!("policies: `{policy}` is there twice")));
            }
        }
        if self.history.is_none() && policies.iter().any(|policy| policy == REPLAY) {
            let message = format!("policies: `{REPLAY}` needs a history, which this [[topic]] does not have");
            found.push((&["policies"], message));
        }
        found
    }

    fn rows(settings: &Settings) -> Vec<Self> {
        let row = |topic: &Topic| Self {
            prefix: Some(topic.prefix.clone()),
            history: topic.history.clone(),
            policies: topic.policies.clone(),
            compress_above: topic.compress_above,
        };
        settings.topics.iter().map(row).collect()
    }

    fn store(rows: Vec<Self>, settings: &mut Settings) {
        // Each has a prefix: it is required.
        let topic = |row: Self| {
            let Self { prefix, history, policies, compress_above } = row;
            Some(Topic { prefix: prefix?, history, policies, compress_above })
        };
        settings.topics = rows.into_iter().filter_map(topic).collect();
    }

    fn same(one: &Settings, other: &Settings) -> bool {
        one.topics == other.topics
    }
}

/// What the names of topics begin with, or nothing at all.
fn prefix(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    // A name may have a `*`, but who ends a prefix in one means what guards mean by it.
    if text.ends_with('*') {
        return Err(format!("`{text}` must not end in `*`: it is for all names that begin with it anyway"));
    }
    Text(MAX_TOPIC, one_line).read(Input::Words(&[text.to_owned()]))
}

fn policy(text: &str) -> Result<String, String> {
    match POLICIES.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{}` is not one of {}", text.escape_debug(), POLICIES.join(", "))),
    }
}
