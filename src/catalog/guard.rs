//! Guards: regular expressions that no event on certain topics may hold. A match refuses the event or is masked.
//!
//! They look at values, not at the text: strings after unescaping, member names, and numbers as they are written.
//! So `\u0031` hides nothing. The expressions are those of the `regex` crate, whose time grows with the text alone.

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use smallvec::SmallVec;

use crate::catalog::json::{Characters, Kind, Ref, Tree, shorten};
use crate::publish::wire::Publish;

/// Bytes of one pattern at most.
pub const MAX_PATTERN_BYTES: usize = 16 << 10;
/// Bytes that one compiled pattern may take; all together may take sixteen times that.
const COMPILED_BYTES: usize = 1 << 20;

/// The sets of patterns that the node brings along: name, and name and pattern of each member.
pub const SHIPPED_SETS: [(&str, &[(&str, &str)]); 1] = [("us-health", &US_HEALTH)];

/// What looks like an identifier of a patient in the USA. All are ASCII: `(?-u)` keeps them quick.
///
/// A number alone is none of these, be it nine digits long: what would tell is the member name, which differs from
/// system to system and is a pattern of its own.
const US_HEALTH: [(&str, &str); 5] = [
    // As it is written: without 000, 666 and 900 to 999, group 00 and serial 0000, which are never given out.
    (
        "ssn",
        r"(?-u)\b(?:00[1-9]|0[1-9][0-9]|[1-578][0-9]{2}|6(?:[0-57-9][0-9]|6[0-57-9]))(?:-(?:0[1-9]|[1-9][0-9])-| (?:0[1-9]|[1-9][0-9]) )(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})\b",
    ),
    // Hospitals number as they like: only with its name is it known.
    (
        "mrn",
        r"(?i-u)\b(?:MRN|medical[ _]record(?:[ _](?:number|no\.?|id))?)[ \t:#=.-]{0,5}[A-Z]{0,3}-?[0-9]{5,12}\b",
    ),
    // Ten digits in groups, or +1 and ten digits.
    (
        "phone",
        r"(?-u)(?:\([2-9][0-9]{2}\)[-. ]?|(?:\+1[-. ]?|\b(?:1[-. ])?)[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-. ][0-9]{4}\b|\+1[2-9][0-9]{2}[2-9][0-9]{6}\b",
    ),
    (
        "email",
        r"(?-u)\b[A-Za-z0-9._%+-]+@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b",
    ),
    // A date that is said to be one of birth, or written as forms have it. An ISO date alone is any date.
    (
        "date-of-birth",
        r"(?i-u)\b(?:DOB|D\.O\.B\.?|date[ _]of[ _]birth|birth[ _]?date|born(?: on)?)[ \t:=.()-]{0,5}(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}[/.-][0-9]{1,2}[/.-](?:[0-9]{4}|[0-9]{2})|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.? [0-9]{1,2},? [0-9]{4})\b|\b(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12][0-9]|3[01])/(?:19|20)[0-9]{2}\b",
    ),
];

/// What happens to an event with a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is refused.
    Refuse,
    /// Each character of the match becomes `*`; a number becomes a string. A match in a member name refuses.
    Mask,
}

/// A guard as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, for messages.
    pub name: String,
    /// Topics, each exact or a prefix that ends in `*`. An event with any of them is looked at; without any, every
    /// event is.
    pub topics: Vec<String>,
    /// Patterns, each with a name for messages, which may be empty.
    pub patterns: Vec<(String, String)>,
    /// What happens to an event with a match.
    pub action: Action,
}

/// All guards, compiled.
#[derive(Debug, Default)]
pub struct Guards {
    guards: Vec<Guard>,
    /// Every pattern of every guard: nearly every text has no match of any.
    any: RegexSet,
    /// Whether a match in a value is also one in the text around it, so that one search over the text tells that
    /// there is none: so where no pattern asks for the beginning or end of a value.
    holds_in_text: bool,
}

#[derive(Debug)]
struct Guard {
    name: Box<str>,
    topics: Vec<Topic>,
    patterns: Vec<(Box<str>, Regex)>,
    action: Action,
}

#[derive(Debug)]
enum Topic {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl Topic {
    fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Exact(name) => topic == &**name,
            Self::Prefix(prefix) => topic.starts_with(&**prefix),
        }
    }
}

/// The guards that look at one event, by their place.
pub(super) type Chosen = SmallVec<[usize; 4]>;

impl Guards {
    /// Compiles guards.
    ///
    /// # Errors
    /// Everything that is wrong, each with the place of the guard in `definitions`.
    pub fn new(definitions: &[Definition]) -> Result<Self, Vec<(usize, String)>> {
        let (mut guards, mut all, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut holds_in_text = true;
        for (place, definition) in definitions.iter().enumerate() {
            let name = shorten(&definition.name, 64);
            let mut error = |message: String| errors.push((place, format!("guard `{name}`: {message}")));
            if definition.patterns.is_empty() {
                error("has no pattern".to_owned());
            }
            let mut patterns = Vec::new();
            for (pattern_name, pattern) in &definition.patterns {
                match compile(pattern) {
                    Ok((regex, holds)) => {
                        holds_in_text &= holds;
                        all.push(pattern.as_str());
                        patterns.push((pattern_name.as_str().into(), regex));
                    }
                    Err(message) => error(message),
                }
            }
            let topic = |topic: &String| match topic.strip_suffix('*') {
                Some(prefix) => Topic::Prefix(prefix.into()),
                None => Topic::Exact(topic.as_str().into()),
            };
            guards.push(Guard {
                name: definition.name.as_str().into(),
                topics: definition.topics.iter().map(topic).collect(),
                patterns,
                action: definition.action,
            });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        all.sort_unstable();
        all.dedup();
        let any = RegexSetBuilder::new(all).size_limit(16 * COMPILED_BYTES).build();
        let any =
            any.map_err(|_| vec![(0, "the patterns of all guards together are too large".to_owned())])?;
        Ok(Self { guards, any, holds_in_text })
    }

    /// Whether there is no guard.
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    /// How many guards there are.
    pub fn len(&self) -> usize {
        self.guards.len()
    }

    /// The guards of an event.
    pub(super) fn of(&self, publish: &Publish<'_>) -> Chosen {
        let covers = |guard: &Guard| {
            guard.topics.is_empty()
                || guard.topics.iter().any(|topic| publish.topics().any(|name| topic.covers(name)))
        };
        (0..self.guards.len()).filter(|place| covers(&self.guards[*place])).collect()
    }

    /// Looks at a text with the guards that were chosen; answers the text with its matches masked, where there
    /// are any.
    ///
    /// # Errors
    /// Which guard refuses and where. What it matched is not repeated.
    pub(super) fn inspect(
        &self,
        chosen: &[usize],
        text: &str,
        tree: &Tree<'_>,
    ) -> Result<Option<String>, String> {
        if self.holds_in_text && !text.contains('\\') && !self.any.is_match(text) {
            return Ok(None);
        }
        let mut edits = Vec::new();
        for value in tree.all() {
            if let Some(name) = value.name()
                && let Some((guard, pattern)) = self.first_match(chosen, &name)
            {
                let object = value.parent().map_or_else(String::new, Ref::pointer);
                return Err(refusal(guard, pattern, &format!("in a member name of {}", place(&object))));
            }
            let edit = match value.kind() {
                Kind::String => {
                    self.look(chosen, &value, &value.string())?.map(|ranges| mask(&value, &ranges))
                }
                Kind::Number => self
                    .look(chosen, &value, value.raw())?
                    .map(|_| format!("\"{}\"", "*".repeat(value.raw().len()))),
                _ => None,
            };
            if let Some(edit) = edit {
                edits.push((value.range(), edit));
            }
        }
        if edits.is_empty() {
            return Ok(None);
        }
        let mut masked = String::with_capacity(text.len() + 2 * edits.len());
        let mut taken = 0;
        for (range, edit) in edits {
            masked.push_str(&text[taken..range.start]);
            masked.push_str(&edit);
            taken = range.end;
        }
        masked.push_str(&text[taken..]);
        Ok(Some(masked))
    }

    /// The first guard with a match, whatever its action.
    fn first_match(&self, chosen: &[usize], text: &str) -> Option<(&Guard, &str)> {
        if !self.any.is_match(text) {
            return None;
        }
        chosen.iter().map(|place| &self.guards[*place]).find_map(|guard| {
            let found = guard.patterns.iter().find(|(_, regex)| regex.is_match(text));
            found.map(|(name, _)| (guard, &**name))
        })
    }

    /// What is to be masked in the characters of a value, as ranges of bytes; `Err` where a guard refuses.
    fn look(
        &self,
        chosen: &[usize],
        value: &Ref<'_>,
        text: &str,
    ) -> Result<Option<Vec<std::ops::Range<usize>>>, String> {
        if !self.any.is_match(text) {
            return Ok(None);
        }
        let mut ranges = Vec::new();
        for guard in chosen.iter().map(|place| &self.guards[*place]) {
            for (name, regex) in &guard.patterns {
                match guard.action {
                    Action::Refuse if regex.is_match(text) => {
                        return Err(refusal(guard, name, &format!("at {}", place(&value.pointer()))));
                    }
                    Action::Refuse => {}
                    Action::Mask => ranges.extend(regex.find_iter(text).map(|found| found.range())),
                }
            }
        }
        ranges.sort_unstable_by_key(|range| range.start);
        Ok((!ranges.is_empty()).then_some(ranges))
    }
}

/// The raw string with the characters in `ranges` (bytes of what it says, in the order of their starts) as `*`; all
/// else byte for byte.
fn mask(value: &Ref<'_>, ranges: &[std::ops::Range<usize>]) -> String {
    let mut masked = String::with_capacity(value.raw().len());
    let (mut at, mut end, mut ranges) = (0, 0, ranges.iter().peekable());
    for (character, raw) in Characters::of(value.raw()) {
        while let Some(range) = ranges.next_if(|range| range.start <= at) {
            end = end.max(range.end);
        }
        masked.push_str(if at < end { "*" } else { raw });
        at += character.len_utf8();
    }
    masked
}

fn place(pointer: &str) -> &str {
    if pointer.is_empty() { "data as a whole" } else { pointer }
}

fn refusal(guard: &Guard, pattern: &str, place: &str) -> String {
    let mut message = format!("guard `{}` refuses what it found {place}", shorten(&guard.name, 64));
    if !pattern.is_empty() {
        let _ = write!(message, " ({})", shorten(pattern, 64));
    }
    message
}

/// Compiles a pattern; answers also whether a match in a value is one in the text around it.
fn compile(pattern: &str) -> Result<(Regex, bool), String> {
    let shown = shorten(pattern, 64);
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "pattern `{shown}` has {} bytes, above the limit of {MAX_PATTERN_BYTES}",
            pattern.len()
        ));
    }
    let regex =
        RegexBuilder::new(pattern).size_limit(COMPILED_BYTES).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("pattern `{shown}` takes more than {COMPILED_BYTES} bytes when compiled")
            }
            // Its last line says what is wrong; those before it draw where.
            error => {
                let error = error.to_string();
                let cause = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                format!("pattern `{shown}`: {cause}")
            }
        })?;
    if regex.is_match("") {
        return Err(format!("pattern `{shown}` matches empty text, so it matches everywhere"));
    }
    // It was parsed a moment ago.
    let holds = regex_syntax::parse(pattern).is_ok_and(|parsed| {
        let looks = parsed.properties().look_set();
        // A value's ends are no letters in the text either: quotes, brackets, commas, white space. But they are
        // not the text's beginning and end.
        !looks.contains_anchor()
    });
    Ok((regex, holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(definitions: &[(&str, Action)]) -> Guards {
        let definition = |(pattern, action): &(&str, Action)| Definition {
            name: "g".into(),
            topics: vec!["*".into()],
            patterns: vec![("p".into(), (*pattern).into())],
            action: *action,
        };
        Guards::new(&definitions.iter().map(definition).collect::<Vec<_>>()).unwrap()
    }

    fn inspect(guards: &Guards, data: &str) -> Result<Option<String>, String> {
        let all: Vec<_> = (0..guards.len()).collect();
        guards.inspect(&all, data, &Tree::parse(data).unwrap())
    }

    fn us_health(action: Action) -> Guards {
        let patterns = SHIPPED_SETS[0].1.iter().map(|(name, pattern)| ((*name).into(), (*pattern).into()));
        let definition =
            Definition { name: "phi".into(), topics: vec!["*".into()], patterns: patterns.collect(), action };
        Guards::new(&[definition]).unwrap()
    }

    #[test]
    fn the_shipped_set_finds_identifiers() {
        let guards = us_health(Action::Refuse);
        assert!(guards.holds_in_text);
        for (kind, text) in [
            ("ssn", "123-45-6789"),
            ("ssn", "SSN 123 45 6789."),
            ("ssn", "ssn:001-01-0001"),
            ("ssn", "x 665-01-0001 y"),
            ("mrn", "MRN: 00123456"),
            ("mrn", "mrn#12345"),
            ("mrn", "MRN12345678"),
            ("mrn", "Medical Record Number 4711000"),
            ("mrn", "medical_record_no.: AB-123456"),
            ("phone", "(212) 555-1234"),
            ("phone", "212-555-1234"),
            ("phone", "call 212.555.1234 now"),
            ("phone", "+1 212 555 1234"),
            ("phone", "+12125551234"),
            ("phone", "1-212-555-1234"),
            ("email", "ada@example.com"),
            ("email", "mail <ada.l+x@mail.example.co.uk>"),
            ("date-of-birth", "DOB: 1980-01-31"),
            ("date-of-birth", "born on 1/31/80"),
            ("date-of-birth", "date of birth Jan 31, 1980"),
            ("date-of-birth", "01/31/1980"),
        ] {
            let data = serde_json::json!({ "note": text }).to_string();
            let error = inspect(&guards, &data).expect_err(text);
            assert_eq!(error, format!("guard `phi` refuses what it found at /note ({kind})"), "{text}");
        }
    }

    #[test]
    fn the_shipped_set_leaves_others_alone() {
        let guards = us_health(Action::Refuse);
        for text in [
            "2024-01-15T10:15:00.000Z",
            "2024-01-15",
            "7d7a2c1e-0d8f-4a52-9d0e-3f6a1f0c9b11",
            "12345678-1234-1234-1234-123456789012",
            "123456789",
            "1234567890123456789",
            "2125551234",
            "000-45-6789",
            "666-45-6789",
            "900-45-6789",
            "123-00-6789",
            "123-45-0000",
            "1123-45-6789",
            "123-45-67890",
            "123-45 6789",
            "112-555-1234",
            "212-155-1234",
            "192.168.100.200",
            "10.0.0.1:8080",
            "v1.2.3-rc.4567",
            "user@localhost",
            "@scope/name@1.2.3",
            "MRN is missing",
            "MRN: 12",
            "born in 1980",
            "13/31/1980",
            "2024/01/31",
            "1/2",
            "run-212-555",
            "https://example.com/runs/42?at=1705313700000",
        ] {
            let data =
                serde_json::json!({ "note": text, "at": 1705313700000_u64, "n": 123456789 }).to_string();
            assert_eq!(inspect(&guards, &data), Ok(None), "{text}");
        }
    }

    #[test]
    fn escapes_hide_nothing_and_names_and_numbers_count() {
        let guards = us_health(Action::Refuse);
        let found = |data: &str| inspect(&guards, data).unwrap_err();
        assert!(found(r#"{"a":["x",{"b":"\u0031\u00323-45-6789"}]}"#).contains("at /a/1/b (ssn)"));
        assert!(
            found(r#"{"a":{"\u00313-45-6789":1,"123-45-6789":1}}"#).contains("in a member name of /a (ssn)")
        );
        assert!(found("\"123-45-6789\"").contains("at data as a whole"));
        let digits = some(&[("^4[0-9]{3}$", Action::Refuse)]);
        assert!(!digits.holds_in_text);
        assert!(inspect(&digits, "[4111]").is_err() && inspect(&digits, "[41111,\"x4111\"]").is_ok());
        assert!(inspect(&digits, "{\"4111\":0}").is_err());
    }

    #[test]
    fn a_mask_changes_the_match_and_nothing_else() {
        let guards = us_health(Action::Mask);
        for (data, expected) in [
            (
                r#"{ "a" : "say \"hi\" 123-45-6789 \u00e9é\/", "b":1.50 }"#,
                r#"{ "a" : "say \"hi\" *********** \u00e9é\/", "b":1.50 }"#,
            ),
            (r#"["\u0031\u00323-45-6789\n"]"#, r#"["***********\n"]"#),
            (r#"["ada@example.com, 212-555-1234"]"#, r#"["***************, ************"]"#),
            (
                r#"{"x":["123-45-6789",null,"123-45-6780"],"y":"ok"}"#,
                r#"{"x":["***********",null,"***********"],"y":"ok"}"#,
            ),
        ] {
            let masked = inspect(&guards, data).unwrap();
            assert_eq!(masked.as_deref(), Some(expected));
            serde_json::from_str::<serde_json::Value>(expected).unwrap();
        }
        assert_eq!(inspect(&guards, r#"{"a":"nothing \\ here"}"#), Ok(None));
        assert!(inspect(&guards, r#"{"123-45-6789":1}"#).unwrap_err().contains("member name"));
        let numbers = some(&[("9{4}", Action::Mask)]);
        assert_eq!(
            inspect(&numbers, "{\"a\":-99991.5e3, \"b\":1}").unwrap().unwrap(),
            "{\"a\":\"**********\", \"b\":1}"
        );
        let overlapping =
            some(&[("b+", Action::Mask), ("a.*d", Action::Mask), ("cdd", Action::Mask), ("x", Action::Mask)]);
        assert_eq!(inspect(&overlapping, r#"["_abbcddd_x_b"]"#).unwrap().unwrap(), r#"["_*******_*_*"]"#);
        // A character is a character, however many bytes it has.
        let wide = some(&[("é😀+", Action::Mask)]);
        assert_eq!(inspect(&wide, r#"["xé😀\ud83d\ude00y"]"#).unwrap().unwrap(), r#"["x***y"]"#);
    }

    #[test]
    fn a_refusing_guard_goes_before_a_masking_one_and_repeats_nothing() {
        let both = some(&[("secret[0-9]", Action::Mask), ("secret2", Action::Refuse)]);
        let error = inspect(&both, r#"["secret1","secret2"]"#).unwrap_err();
        assert!(error.contains("at /1") && !error.contains("secret"), "{error}");
        assert_eq!(inspect(&both, r#"["secret1"]"#).unwrap().unwrap(), r#"["*******"]"#);
    }

    #[test]
    fn any_topic_of_an_event_is_enough() {
        let definition = Definition {
            name: "g".into(),
            topics: vec!["run:*".into(), "audit".into()],
            patterns: vec![(String::new(), "x".into())],
            action: Action::Refuse,
        };
        let guards = Guards::new(&[definition]).unwrap();
        for (topics, expected) in [("run:1", 1), ("a\nrun:", 1), ("audit", 1), ("audit2", 0), ("a\nrun", 0)] {
            let publish = Publish { topics, event: "e", key: "", data: "1", timestamp_ms: 0 };
            assert_eq!(guards.of(&publish).len(), expected, "{topics:?}");
        }
    }

    #[test]
    fn whatever_comes_nothing_breaks_and_masking_leaves_json() {
        // Made of the pieces that matter, so that a good part of it is JSON.
        const PIECES: [&str; 30] = [
            "{", "}", "[", "]", "\"", "\"", "\"", ",", ":", " ", "\n", "\\", "\\u", "\\u0031", "\\ud83d",
            "\\ude00", "1", "12", "-", ".5", "e9", "null", "true", "a", "b1", "é", "😀", "{\"a\":", "[1,",
            "\"1b\"",
        ];
        let guards = some(&[("1", Action::Mask), ("b1?", Action::Mask), ("😀", Action::Mask)]);
        let mut random = fastrand::Rng::with_seed(7);
        let (mut json, mut masked) = (0, 0);
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..random.usize(..12) {
                text += PIECES[random.usize(..PIECES.len())];
            }
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let Ok(tree) = Tree::parse(&text) else {
                let is_twofold =
                    || matches!(Tree::parse(&text), Err(crate::catalog::json::Fault::Duplicate { .. }));
                assert!(!is_json || is_twofold(), "{text}");
                continue;
            };
            let found = guards.inspect(&[0, 1, 2], &text, &tree);
            if is_json {
                json += 1;
                if let Ok(Some(after)) = found {
                    masked += 1;
                    serde_json::from_str::<serde::de::IgnoredAny>(&after)
                        .unwrap_or_else(|error| panic!("{text} -> {after}: {error}"));
                    assert!(after.contains('*'), "{text} -> {after}");
                }
            }
        }
        assert!(json > 1000 && masked > 100, "{json} {masked}");
    }

    #[test]
    fn bad_patterns_are_refused() {
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        for (pattern, expected) in [
            ("(", "unclosed group"),
            ("(?=x)", "look-around"),
            ("a*", "matches empty text"),
            ("", "matches empty text"),
            ("(?:a{1000}){1000}", "when compiled"),
            (&*long, "above the limit of 16384"),
        ] {
            let definition = Definition {
                name: "g".into(),
                topics: vec!["*".into()],
                patterns: vec![(String::new(), pattern.into())],
                action: Action::Refuse,
            };
            let errors = Guards::new(&[definition]).unwrap_err();
            assert!(errors[0].0 == 0 && errors[0].1.contains(expected), "{errors:?}");
        }
        let nothing = Definition { name: "g".into(), topics: vec![], patterns: vec![], action: Action::Mask };
        assert_eq!(Guards::new(&[nothing]).unwrap_err().len(), 1);
    }
}
