//! What publishers are held to: the schemas of the catalogs that are loaded, and the guards.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::catalog::file::{Catalog, describe};
use crate::catalog::guard::Guards;
use crate::catalog::json::{Fault, Tree, shorten};
use crate::catalog::schema::Schema;
use crate::error::{ErrorCode, Refusal};
use crate::publish::wire::Publish;

/// Characters of a refusal's message at most.
pub const MAX_MESSAGE: usize = 500;

/// Catalogs and guards, compiled. By default there are none, and checking costs one test.
#[derive(Default)]
pub struct Rules(Option<Box<Compiled>>);

/// No rules at all.
pub static NONE: Rules = Rules(None);

struct Compiled {
    events: HashMap<Box<str>, Rule, ahash::RandomState>,
    guards: Guards,
    strict: bool,
}

struct Rule {
    catalog: Arc<str>,
    schema: Arc<Schema>,
}

/// One event in two catalogs, with schemas that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The place of the later catalog among those given.
    pub catalog: usize,
    /// The line of the event there.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(compiled) = &self.0 else { return f.write_str("Rules(none)") };
        f.debug_struct("Rules")
            .field("events", &compiled.events.len())
            .field("guards", &compiled.guards.len())
            .field("strict", &compiled.strict)
            .finish()
    }
}

impl Rules {
    /// The rules of these catalogs and guards. With `strict`, events that no catalog has are refused.
    ///
    /// # Errors
    /// An event that two catalogs have with different schemas.
    pub fn new(catalogs: &[Catalog], strict: bool, guards: Guards) -> Result<Self, Vec<Clash>> {
        if catalogs.is_empty() && guards.is_empty() && !strict {
            return Ok(Self(None));
        }
        let mut events: HashMap<Box<str>, Rule, ahash::RandomState> = HashMap::default();
        let mut sources = HashMap::new();
        let mut clashes = Vec::new();
        for (place, catalog) in catalogs.iter().enumerate() {
            let name: Arc<str> = catalog.name.as_str().into();
            for event in &catalog.events {
                if let Some((other, schema)) = sources.get(event.name.as_str()) {
                    if *schema != &event.schema {
                        let message = format!(
                            "event `{}` is in catalog `{other}` already, with another schema",
                            event.name
                        );
                        clashes.push(Clash { catalog: place, line: event.line, message });
                    }
                    continue;
                }
                sources.insert(event.name.as_str(), (catalog.name.as_str(), &event.schema));
                let rule = Rule { catalog: Arc::clone(&name), schema: Arc::clone(&event.compiled) };
                events.insert(event.name.as_str().into(), rule);
            }
        }
        if clashes.is_empty() {
            Ok(Self(Some(Box::new(Compiled { events, guards, strict }))))
        } else {
            Err(clashes)
        }
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Checks an event whose names and data have been found well-formed. `Ok(None)`: it goes out as it is;
    /// `Ok(Some(data))`: it goes out with this data instead, in which matches are masked.
    ///
    /// The data of an event that a catalog has, or a guard looks at, must also name each member once, and be
    /// nested no deeper than [`crate::catalog::json::MAX_DEPTH`].
    ///
    /// # Errors
    /// [`ErrorCode::SchemaViolation`], naming catalog, event and JSON pointer, or the guard; values are not
    /// repeated.
    #[inline]
    pub fn check(&self, publish: &Publish<'_>) -> Result<Option<String>, Refusal> {
        match &self.0 {
            None => Ok(None),
            Some(compiled) => compiled.check(publish),
        }
    }
}

impl Compiled {
    fn check(&self, publish: &Publish<'_>) -> Result<Option<String>, Refusal> {
        let rule = self.events.get(publish.event);
        let refuse = |what: &str| {
            let event = shorten(publish.event, 64);
            let catalog = rule.map_or_else(String::new, |rule| format!("catalog `{}`, ", rule.catalog));
            let message = format!("{catalog}event `{event}`: {what}");
            Refusal::new(ErrorCode::SchemaViolation, shorten(&message, MAX_MESSAGE))
        };
        if rule.is_none() && self.strict {
            return Err(refuse("no catalog has it, and catalog_strict refuses such events"));
        }
        let guards = self.guards.of(publish);
        if rule.is_none() && guards.is_empty() {
            return Ok(None);
        }
        let data = if publish.data.is_empty() { "null" } else { publish.data };
        let tree = Tree::parse(data).map_err(|fault| match fault {
            Fault::NotJson => Refusal::new(ErrorCode::BadData, "data is not one JSON text"),
            fault => refuse(&format!("data cannot be checked: {}", describe(&fault))),
        })?;
        let masked = if guards.is_empty() {
            None
        } else {
            // Before the schema: its messages name members, which the guards have then seen.
            self.guards.inspect(&guards, data, &tree).map_err(|message| refuse(&message))?
        };
        if let Some(rule) = rule
            && let Some(violation) = rule.schema.violation(&tree)
        {
            return Err(refuse(&violation));
        }
        Ok(masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::file::SHIPPED;
    use crate::catalog::guard::{Action, Definition};

    fn shipped() -> Vec<Catalog> {
        SHIPPED.iter().map(|(_, text)| Catalog::parse(text).unwrap()).collect()
    }

    fn guard(pattern: &str, action: Action) -> Guards {
        let definition = Definition {
            name: "g".into(),
            topics: vec!["run:*".into()],
            patterns: vec![(String::new(), pattern.into())],
            action,
        };
        Guards::new(&[definition]).unwrap()
    }

    fn publish<'a>(event: &'a str, data: &'a str) -> Publish<'a> {
        Publish { topics: "stage\nrun:1", event, key: "", data, timestamp_ms: 0 }
    }

    #[test]
    fn nothing_configured_checks_nothing() {
        let none = Rules::new(&[], false, Guards::default()).unwrap();
        assert!(none.is_empty() && NONE.is_empty());
        assert_eq!(none.check(&publish("stage-progress", "not even JSON")), Ok(None));
    }

    #[test]
    fn catalogued_events_are_held_to_their_schema_and_others_pass() {
        let rules = Rules::new(&shipped(), false, Guards::default()).unwrap();
        let good = r#"{"runId":"r","stageId":"s","progress":100,"extra":true}"#;
        assert_eq!(rules.check(&publish("stage-progress", good)), Ok(None));
        let refusal = |event: &str, data: &str| {
            let refusal = rules.check(&publish(event, data)).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::SchemaViolation);
            refusal.message
        };
        assert_eq!(
            refusal("stage-progress", r#"{"runId":"r","stageId":"s","progress":101}"#),
            "catalog `runs`, event `stage-progress`: /progress: expected at most 100"
        );
        assert_eq!(
            refusal("step_start", ""),
            "catalog `workflow`, event `step_start`: data as a whole: expected object, found null"
        );
        assert_eq!(
            refusal("step_start", r#"{"stepId":"a","stepId":"b"}"#),
            "catalog `workflow`, event `step_start`: data cannot be checked: data as a whole has the member \
             name \"stepId\" twice, and readers differ in which they take"
        );
        assert!(refusal("step_start", &("[".repeat(200) + &"]".repeat(200))).contains("deeper than 128"));
        let long = format!("{{\"stepId\":{{\"{}\":1}}}}", "x".repeat(100_000));
        assert!(refusal("step_start", &long).len() < 4 * MAX_MESSAGE);
        assert_eq!(rules.check(&publish("other", "{\"a\":1,\"a\":2}")), Ok(None));
    }

    #[test]
    fn the_examples_pass_and_so_does_one_more_member() {
        let rules = Rules::new(&shipped(), true, Guards::default()).unwrap();
        for event in shipped().iter().flat_map(|catalog| &catalog.events) {
            let mut example = event.example.clone().unwrap();
            example["somethingElse"] = serde_json::json!({"a": [1]});
            let checked = rules.check(&publish(&event.name, &example.to_string()));
            assert_eq!(checked, Ok(None), "{}", event.name);
        }
    }

    #[test]
    fn strict_refuses_what_no_catalog_has() {
        let rules = Rules::new(&shipped(), true, Guards::default()).unwrap();
        let refusal = rules.check(&publish("stage-progres", "{}")).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::SchemaViolation);
        assert!(
            refusal.message.starts_with("event `stage-progres`: no catalog has it"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn guards_look_at_their_topics_before_the_schema_does() {
        let rules = Rules::new(&shipped(), false, guard("secret", Action::Mask)).unwrap();
        let data = r#"{"stepId":"my secret"}"#;
        assert_eq!(rules.check(&publish("step_start", data)), Ok(Some(r#"{"stepId":"my ******"}"#.into())));
        assert_eq!(rules.check(&Publish { topics: "stage", ..publish("step_start", data) }), Ok(None));
        // The schema is the original's: a masked value need not satisfy it.
        let level = r#"{"stepId":"a","level":"info","message":"secret"}"#;
        assert!(rules.check(&publish("step_log", level)).unwrap().is_some());
        let named = rules.check(&publish("step_start", r#"{"secret":1}"#)).unwrap_err();
        assert!(!named.message.contains("secret") && named.message.contains("guard `g`"), "{named}");
        let refuse = Rules::new(&[], false, guard("secret", Action::Refuse)).unwrap();
        assert!(refuse.check(&publish("anything", "[\"secret\"]")).is_err());
        assert!(
            refuse.check(&publish("anything", "{\"a\":1,\"a\":1}")).unwrap_err().message.contains("twice")
        );
        assert_eq!(refuse.check(&publish("anything", "[1e999]")), Ok(None));
    }

    #[test]
    fn one_event_in_two_catalogs_needs_one_schema() {
        let runs = Catalog::parse(SHIPPED[1].1).unwrap();
        assert!(Rules::new(&[runs.clone(), runs.clone()], false, Guards::default()).is_ok());
        let changed = SHIPPED[1].1.replace("\"maximum\": 100", "\"maximum\": 99");
        let changed = Catalog::parse(&changed).unwrap();
        let clashes = Rules::new(&[runs, changed], false, Guards::default()).unwrap_err();
        assert_eq!((clashes.len(), clashes[0].catalog), (1, 1));
        assert!(clashes[0].line > 1 && clashes[0].message.contains("`stage-progress` is in catalog `runs`"));
    }
}
