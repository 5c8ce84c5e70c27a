//! The template of a configured envelope, from text to parts (`docs/path-streams.md`).
//!
//! A template is one JSON text with slots. `{event}`, `{category}`, `{topic}`, `{data}`, `{timestamp}`,
//! `{offset}` and `{key}` write JSON values and stand where a value may; a variable of the path, such as
//! `{runId}`, stands inside the quotes of a string. A brace that no name and brace follow is a brace.

use crate::dialect::envelope::Part;

/// A template that is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// Its parts. [`Part::Value`] counts in `used`.
    pub parts: Vec<Part>,
    /// Where each value comes from.
    pub used: Vec<Source>,
}

/// Where a value of an envelope comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The variable of the path with this number.
    Variable(usize),
    /// The topic that the client is subscribed to.
    Topic,
}

/// The slots that write JSON values.
const SLOTS: [&str; 7] = ["event", "category", "topic", "data", "timestamp", "offset", "key"];

/// How often a template may have the data: what an event can grow to is bounded.
const MAX_DATA: usize = 2;

/// Whether a variable may not be called so, because envelopes have a slot of that name.
pub fn is_slot(name: &str) -> bool {
    SLOTS.contains(&name)
}

/// The name in braces that `text` begins with, and how many bytes that takes.
pub fn placeholder(text: &str) -> Option<(&str, usize)> {
    let inside = text.strip_prefix('{')?;
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let name = &inside[..end];
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (is_name && inside[end..].starts_with('}')).then_some((name, end + 2))
}

/// Compiles a template for a path with these variables.
///
/// # Errors
/// What is wrong, where in the template (characters counted from 1), and what was expected.
pub fn compile(text: &str, variables: &[String]) -> Result<Template, String> {
    let mut template = Template { parts: Vec::new(), used: Vec::new() };
    // The same text with an example of every slot, for a JSON parser to judge.
    let mut example = String::new();
    let (mut literal, mut in_string, mut is_escaped) = (String::new(), false, false);
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let Some((name, length)) = placeholder(rest).filter(|_| !is_escaped) else {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = in_string,
                '"' => in_string = !in_string,
                _ => {}
            }
            literal.push(c);
            example.push(c);
            at += c.len_utf8();
            continue;
        };
        let place = text[..at].chars().count() + 1;
        at += length;
        let variable = variables.iter().position(|variable| variable == name);
        match (variable, is_slot(name), in_string) {
            (Some(number), _, true) => {
                example.push('x');
                template.push_value(Source::Variable(number), &mut literal);
            }
            (Some(_), _, false) => {
                return Err(format!(
                    "at character {place}: {{{name}}} is text from the path and stands outside of quotes: \
                     write \"{{{name}}}\""
                ));
            }
            (None, true, false) => {
                if name == "data"
                    && template.parts.iter().filter(|part| **part == Part::Data).count() == MAX_DATA
                {
                    return Err(format!(
                        "at character {place}: {{data}} stands there more than {MAX_DATA} times"
                    ));
                }
                example.push_str("null");
                template.push_slot(name, &mut literal);
            }
            (None, true, true) => {
                return Err(format!(
                    "at character {place}: {{{name}}} writes a JSON value, quotes and all, and stands inside \
                     a string: take the quotes around it away"
                ));
            }
            (None, false, _) => {
                return Err(format!("at character {place}: there is no {{{name}}}; {}", known(variables)));
            }
        }
    }
    template.flush(&mut literal);
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&example) {
        // The example's columns are not the template's, so only the words are told.
        let error = error.to_string();
        let what = error.split(" at line").next().unwrap_or_default();
        return Err(format!(
            "with its slots filled in it is not one JSON text: {what}; it would be {example}"
        ));
    }
    Ok(template)
}

/// What there is to choose from.
fn known(variables: &[String]) -> String {
    let braces = |name: &str| format!("{{{name}}}");
    let slots = SLOTS.map(braces).join(", ");
    if variables.is_empty() {
        return format!("there are {slots}, and the path has no variables");
    }
    let variables: Vec<String> = variables.iter().map(|name| braces(name)).collect();
    format!("there are {slots} and, from the path, {}", variables.join(", "))
}

impl Template {
    fn flush(&mut self, literal: &mut String) {
        if !literal.is_empty() {
            self.parts.push(Part::Literal(std::mem::take(literal).into()));
        }
    }

    fn push_value(&mut self, source: Source, literal: &mut String) {
        self.flush(literal);
        let number = self.used.iter().position(|used| *used == source).unwrap_or_else(|| {
            self.used.push(source);
            self.used.len() - 1
        });
        // A path has fewer variables than it has characters, and those are counted in the config.
        self.parts.push(Part::Value(number as u8));
    }

    fn push_slot(&mut self, name: &str, literal: &mut String) {
        let part = match name {
            "event" => Part::Event,
            "category" => Part::Category,
            "data" => Part::Data,
            "timestamp" => Part::Timestamp,
            "offset" => Part::Offset,
            "key" => Part::Key,
            _ => {
                literal.push('"');
                self.push_value(Source::Topic, literal);
                literal.push('"');
                return;
            }
        };
        self.flush(literal);
        self.parts.push(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Vec<String> {
        vec!["tenant".into(), "runId".into()]
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.into())
    }

    #[test]
    fn the_seeds_envelope_is_compiled() {
        let text = r#"{"runId":"{runId}","type":{event},"payload":{data}}"#;
        let template = compile(text, &variables()).unwrap();
        assert_eq!(template.used, [Source::Variable(1)]);
        assert_eq!(
            template.parts,
            [
                literal(r#"{"runId":""#),
                Part::Value(0),
                literal(r#"","type":"#),
                Part::Event,
                literal(r#","payload":"#),
                Part::Data,
                literal("}"),
            ]
        );
    }

    #[test]
    fn every_slot_and_every_repetition_has_its_part() {
        let text = r#"[{event},{category},{topic},{data},{timestamp},{offset},{key},"{runId}-{tenant}/{runId}",{topic},"{}","{ runId}","\"{runId}\\"]"#;
        let template = compile(text, &variables()).unwrap();
        assert_eq!(template.used, [Source::Topic, Source::Variable(1), Source::Variable(0)]);
        let values: Vec<u8> = template
            .parts
            .iter()
            .filter_map(|part| if let Part::Value(number) = part { Some(*number) } else { None })
            .collect();
        assert_eq!(values, [0, 1, 2, 1, 0, 1]);
        for part in [Part::Event, Part::Category, Part::Data, Part::Timestamp, Part::Offset, Part::Key] {
            assert_eq!(template.parts.iter().filter(|other| **other == part).count(), 1, "{part:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("", "not one JSON text: EOF while parsing a value"),
            ("{data", "not one JSON text: key must be a string"),
            ("{data}}", "not one JSON text: trailing characters"),
            (r#"{"a":{data}"#, "not one JSON text: EOF while parsing an object"),
            (r#"{"a":{data},}"#, "not one JSON text: key must be a string"),
            ("{data}{data}", "not one JSON text: trailing characters"),
            ("event {data}", "not one JSON text: expected value"),
            (
                r#"{"é":{dta}}"#,
                "at character 6: there is no {dta}; there are {event}, {category}, {topic}, {data}, {timestamp}, {offset}, {key} and, from the path, {tenant}, {runId}",
            ),
            (
                r#"{"a":"{data}"}"#,
                "at character 7: {data} writes a JSON value, quotes and all, and stands inside a string: take the quotes around it away",
            ),
            (
                r#"{"a":{runId}}"#,
                "at character 6: {runId} is text from the path and stands outside of quotes: write \"{runId}\"",
            ),
            (r#"{"{event}":1}"#, "stands inside a string"),
            (r#"{"a":"{runid}"}"#, "there is no {runid}"),
            ("\"a\nb\"", "control character"),
            ("[{data},{data},{data}]", "at character 16: {data} stands there more than 2 times"),
        ] {
            let error = compile(text, &variables()).unwrap_err();
            assert!(error.contains(expected), "{text}\n{error}");
        }
        assert!(compile("{a}", &[]).unwrap_err().ends_with("and the path has no variables"));
    }

    #[test]
    fn variables_may_stand_in_member_names_and_beside_escapes() {
        for text in [r#"{"{runId}":1}"#, r#"["\\{runId}"]"#, r#"["{{runId}}"]"#] {
            assert!(compile(text, &variables()).is_ok(), "{text}");
        }
        // An escaped brace is no JSON.
        assert!(compile(r#"["\{runId}"]"#, &variables()).is_err());
    }
}
