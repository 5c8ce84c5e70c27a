//! `[[guard]]`: what must not be in events.

use super::tables::{Field, Row, field};
use super::value::{Input, Kind, List, Maybe, Noun, Text, Word, any_text, one_line};
use super::{Guard, GuardAction, GuardRule, Located, Settings};

/// Bytes that the name of a topic may have.
const MAX_TOPIC: usize = 255;

const TOPICS: Noun = Noun { article: "a", one: "topic", many: "topics" };

/// One `[[guard]]` of the file.
#[derive(Default)]
pub(super) struct GuardRow {
    name: Option<Located<String>>,
    pattern: Option<Located<String>>,
    set: Option<Located<String>>,
    topics: Option<Vec<String>>,
    action: GuardAction,
    place: String,
}

impl Row for GuardRow {
    const NAME: &'static str = "guard";

    const FIELDS: &'static [Field<Self>] = &[
        field!(placed name, Text(64, word)),
        field!(placed pattern, Text(16 << 10, any_text)),
        field!(placed set, Text(64, word)),
        field!(() topics, Maybe(List(1, TOPICS, topics))),
        field!(() action, Word(str::parse::<GuardAction>)),
    ];

    fn stands_at(&mut self, place: String) {
        self.place = place;
    }

    fn check(&self, earlier: &[Self]) -> Vec<(&'static [&'static str], String)> {
        let mut found: Vec<(&'static [&'static str], String)> = Vec::new();
        match (&self.name, &self.pattern, &self.set) {
            (_, None, None) => found.push((&[], "[[guard]] must have a pattern or a set".to_owned())),
            (_, Some(_), Some(_)) => {
                found.push((
                    &["pattern", "set"],
                    "[[guard]] must have a pattern or a set, not both".to_owned(),
                ));
            }
            (None, Some(_), None) => {
                found.push((&[], "name: is missing; every [[guard]] with a pattern needs one".to_owned()));
            }
            (Some(_), None, Some(_)) => {
                found.push((
                    &["name"],
                    "name: must not be given with a set, whose rules have names".to_owned(),
                ));
            }
            (Some(_), Some(_), None) | (None, None, Some(_)) => {}
        }
        if let Some(name) = &self.name
            && let Some(other) =
                earlier.iter().filter_map(|row| row.name.as_ref()).find(|other| *other == name)
        {
            found.push((&["name"], format!("name: `{}` is the name at {} already", name.value, other.place)));
        }
        found
    }

    fn rows(settings: &Settings) -> Vec<Self> {
        let row = |guard: &Guard| {
            let (pattern, set) = match &guard.rule {
                GuardRule::Pattern(pattern) => (Some(pattern.clone()), None),
                GuardRule::Set(set) => (None, Some(set.clone())),
            };
            Self {
                name: guard.name.clone(),
                pattern,
                set,
                topics: (!guard.topics.is_empty()).then(|| guard.topics.clone()),
                action: guard.action,
                place: guard.place.clone(),
            }
        };
        settings.guards.iter().map(row).collect()
    }

    fn store(rows: Vec<Self>, settings: &mut Settings) {
        // Each has one of the two: that was checked.
        let guard = |row: Self| {
            let rule = row.pattern.map(GuardRule::Pattern).or(row.set.map(GuardRule::Set))?;
            let topics = row.topics.unwrap_or_default();
            Some(Guard { name: row.name, rule, topics, action: row.action, place: row.place })
        };
        settings.guards = rows.into_iter().filter_map(guard).collect();
    }

    fn same(one: &Settings, other: &Settings) -> bool {
        one.guards == other.guards
    }
}

/// What can stand in a log line or a metric's label without being quoted.
fn word(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text.bytes().all(allowed) {
        true => Ok(()),
        false => Err(format!("`{}` must be letters, digits, `-`, `_` and `.`", text.escape_debug())),
    }
}

/// The name of a topic, or what names begin with and a `*`.
fn topics(text: &str) -> Result<String, String> {
    let prefix = text.strip_suffix('*').unwrap_or(text);
    if prefix.contains('*') {
        return Err(format!("`{text}`: a `*` may stand only at the end"));
    }
    Text(MAX_TOPIC, one_line).read(Input::Words(&[text.to_owned()]))
}
