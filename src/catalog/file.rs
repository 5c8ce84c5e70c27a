//! A catalog as it stands in a file: categories, events, and a JSON Schema for the `data` of each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::catalog::json::{Fault, Tree, shorten};
use crate::catalog::schema::Schema;
use crate::topic::name::check_name;

/// The catalogs that the node brings along, by name.
pub const SHIPPED: [(&str, &str); 4] = [
    ("conductor", include_str!("shipped/conductor.toml")),
    ("runs", include_str!("shipped/runs.toml")),
    ("projects", include_str!("shipped/projects.toml")),
    ("workflow", include_str!("shipped/workflow.toml")),
];

/// Bytes of a catalog file at most.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// A catalog that holds together: every event has a category, a description and a schema that compiles.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Its name: letters, digits, `-` and `_`, for it names generated files.
    pub name: String,
    /// What it is about, in a sentence.
    pub description: String,
    /// Its categories, in the order of the file.
    pub categories: Vec<Category>,
    /// Its events, in the order of the file.
    pub events: Vec<Event>,
}

/// A category of events: the first topic of those that are published by the generated helpers.
#[derive(Clone, Debug)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// What its events are about.
    pub description: String,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// The category that it belongs to.
    pub category: String,
    /// What it tells.
    pub description: String,
    /// The schema of its `data`, as written.
    pub schema: Value,
    /// The schema, compiled.
    pub compiled: Arc<Schema>,
    /// Data that satisfies the schema, if the file gives any.
    pub example: Option<Value>,
    /// The line that it begins at, from 1.
    pub line: usize,
}

/// Something wrong with a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

impl Catalog {
    /// Reads a catalog.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Flaw>> {
        let mut reading = Reading { text, flaws: Vec::new() };
        let catalog = reading.catalog();
        reading.flaws.sort_by_key(|flaw| flaw.line);
        match catalog {
            Some(catalog) if reading.flaws.is_empty() => Ok(catalog),
            _ => Err(reading.flaws),
        }
    }

    /// The events of a category, in the order of the file.
    pub fn events_of<'a>(&'a self, category: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.category == category)
    }
}

struct Reading<'a> {
    text: &'a str,
    flaws: Vec<Flaw>,
}

/// A table of the file.
struct Table<'t> {
    /// What it is, in messages.
    what: String,
    /// Where it begins.
    start: usize,
    entries: &'t DeTable<'t>,
}

const CATALOG_KEYS: [&str; 4] = ["name", "description", "category", "event"];
const CATEGORY_KEYS: [&str; 2] = ["name", "description"];
const EVENT_KEYS: [&str; 5] = ["name", "category", "description", "schema", "example"];

impl Reading<'_> {
    fn line_at(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
    }

    fn flaw(&mut self, offset: usize, message: impl Into<String>) {
        let line = self.line_at(offset);
        self.flaws.push(Flaw { line, message: message.into() });
    }

    fn catalog(&mut self) -> Option<Catalog> {
        let text = self.text;
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                self.flaw(error.span().map_or(0, |span| span.start), error.message());
                return None;
            }
        };
        let root = Table { what: "the catalog".to_owned(), start: 0, entries: &table };
        self.check_keys(&root, &CATALOG_KEYS);
        let name = self.string(&root, "name");
        if let Some((name, at)) = &name
            && !(name.len() <= 64
                && name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        {
            self.flaw(
                *at,
                format!(
                    "the name of a catalog is a letter, then letters, digits, - and _, 64 in all; this is `{}`",
                    shorten(name, 64)
                ),
            );
        }
        let description = self.string(&root, "description");
        let categories = self.categories(&root);
        let events = self.events(&root, &categories);
        for (category, at) in &categories {
            if !events.iter().any(|event| event.category == category.name) && self.flaws.is_empty() {
                self.flaw(*at, format!("category `{}` has no event", category.name));
            }
        }
        Some(Catalog {
            name: name?.0,
            description: description?.0,
            categories: categories.into_iter().map(|(category, _)| category).collect(),
            events,
        })
    }

    fn categories(&mut self, root: &Table<'_>) -> Vec<(Category, usize)> {
        let mut found: Vec<(Category, usize)> = Vec::new();
        for table in self.tables(root, "category") {
            self.check_keys(&table, &CATEGORY_KEYS);
            let Some((name, at)) = self.string(&table, "name") else { continue };
            let description = self.string(&table, "description");
            if let Err(error) = check_name("category", &name) {
                self.flaw(at, error);
            }
            if let Some((_, other)) = found.iter().find(|(category, _)| category.name == name) {
                let line = self.line_at(*other);
                self.flaw(at, format!("category `{name}` is in line {line} already"));
                continue;
            }
            let description = description.map(|(text, _)| text).unwrap_or_default();
            found.push((Category { name, description }, at));
        }
        found
    }

    fn events(&mut self, root: &Table<'_>, categories: &[(Category, usize)]) -> Vec<Event> {
        let mut found: Vec<Event> = Vec::new();
        let mut lines = BTreeMap::new();
        for table in self.tables(root, "event") {
            self.check_keys(&table, &EVENT_KEYS);
            let Some((name, at)) = self.string(&table, "name") else { continue };
            let (category, description) =
                (self.string(&table, "category"), self.string(&table, "description"));
            let schema = self.schema(&table, &name);
            if let Err(error) = check_name("event", &name) {
                self.flaw(at, error);
            }
            let line = self.line_at(at);
            if let Some(other) = lines.insert(name.clone(), line) {
                self.flaw(at, format!("event `{name}` is in line {other} already"));
                continue;
            }
            if let Some((category, at)) = &category
                && !categories.iter().any(|(known, _)| known.name == *category)
            {
                let known: Vec<_> = categories.iter().map(|(category, _)| category.name.as_str()).collect();
                self.flaw(
                    *at,
                    format!(
                        "event `{name}`: there is no [[category]] named `{category}`; there are {}",
                        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                    ),
                );
            }
            let (Some((category, _)), Some((description, _))) = (category, description) else { continue };
            let Some((schema, compiled)) = schema else { continue };
            let example = self.example(&table, &name, &compiled);
            found.push(Event {
                name,
                category,
                description,
                schema,
                compiled: Arc::new(compiled),
                example,
                line,
            });
        }
        found
    }

    fn schema(&mut self, table: &Table<'_>, event: &str) -> Option<(Value, Schema)> {
        let (text, at) = self.string(table, "schema")?;
        let schema = self.json(&text, at, &format!("event `{event}`: schema"))?;
        if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
            self.flaw(at, format!("event `{event}`: a schema is a JSON object, or true or false"));
            return None;
        }
        match Schema::compile(&schema) {
            Ok(compiled) => Some((schema, compiled)),
            Err(error) => {
                self.flaw(at, format!("event `{event}`: schema: {error}"));
                None
            }
        }
    }

    fn example(&mut self, table: &Table<'_>, event: &str, schema: &Schema) -> Option<Value> {
        if !table.entries.contains_key("example") {
            return None;
        }
        let (text, at) = self.string(table, "example")?;
        let example = self.json(&text, at, &format!("event `{event}`: example"))?;
        match Tree::parse(&text) {
            Ok(tree) => {
                if let Some(violation) = schema.violation(&tree) {
                    self.flaw(at, format!("event `{event}`: the example breaks the schema: {violation}"));
                }
            }
            // The names in a schema were not looked at: `json` reads the last of two.
            Err(fault) => self.flaw(at, format!("event `{event}`: example: {}", describe(&fault))),
        }
        Some(example)
    }

    /// A JSON text inside the file. `at` is where its TOML string begins.
    fn json(&mut self, text: &str, at: usize, what: &str) -> Option<Value> {
        match serde_json::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                // A multi-line string begins after the line of its quotes; lines inside it count from there.
                let quotes = self.text.get(at..at + 4);
                let trimmed =
                    usize::from(matches!(quotes, Some("'''\n" | "\"\"\"\n" | "'''\r" | "\"\"\"\r")));
                let line = self.line_at(at) + error.line().saturating_sub(1) + trimmed;
                let error = error.to_string();
                let cause = error.split(" at line ").next().unwrap_or_default();
                self.flaws.push(Flaw { line, message: format!("{what} is not JSON: {cause}") });
                None
            }
        }
    }

    fn check_keys(&mut self, table: &Table<'_>, known: &[&str]) {
        for key in table.entries.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let message = format!(
                    "{}: unknown key `{}`; it has {}",
                    table.what,
                    shorten(name, 64),
                    known.join(", ")
                );
                self.flaw(key.span().start, message);
            }
        }
    }

    /// A string that must be there and not be empty, and where it begins.
    fn string(&mut self, table: &Table<'_>, key: &str) -> Option<(String, usize)> {
        let Some(value) = table.entries.get(key) else {
            self.flaw(table.start, format!("{}: `{key}` is missing", table.what));
            return None;
        };
        let at = value.span().start;
        match value.get_ref() {
            DeValue::String(text) if !text.trim().is_empty() => Some((text.to_string(), at)),
            DeValue::String(_) => {
                self.flaw(at, format!("{}: `{key}` is empty", table.what));
                None
            }
            other => {
                let found = other.type_str();
                let hint =
                    if matches!(key, "schema" | "example") { ": JSON between ''' and '''" } else { "" };
                self.flaw(at, format!("{}: `{key}` is a string{hint}; this is {found}", table.what));
                None
            }
        }
    }

    /// The tables of `[[key]]`, of which there must be one.
    fn tables<'t>(&mut self, root: &Table<'t>, key: &str) -> Vec<Table<'t>> {
        let value: Option<&'t Spanned<DeValue<'t>>> = root.entries.get(key);
        let items = match value.map(|value| (value.get_ref(), value.span().start)) {
            None => {
                self.flaw(0, format!("the catalog has no [[{key}]]"));
                return Vec::new();
            }
            Some((DeValue::Array(items), _)) => items,
            Some((_, at)) => {
                self.flaw(at, format!("`{key}` is a list of tables: write [[{key}]]"));
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            let start = item.span().start;
            match item.get_ref() {
                DeValue::Table(entries) => tables.push(Table { what: format!("[[{key}]]"), start, entries }),
                _ => self.flaw(start, format!("`{key}` is a list of tables: write [[{key}]]")),
            }
        }
        tables
    }
}

/// What is wrong with a text, in words.
pub(super) fn describe(fault: &Fault) -> String {
    match fault {
        Fault::NotJson => "not one JSON text".to_owned(),
        Fault::TooDeep => {
            format!("nested deeper than {} arrays and objects", crate::catalog::json::MAX_DEPTH)
        }
        Fault::TooLarge => "4 GiB or more".to_owned(),
        Fault::Duplicate { pointer, name } => format!(
            "{} has the member name \"{name}\" twice, and readers differ in which they take",
            if pointer.is_empty() { "data as a whole" } else { pointer }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "shop"
description = "A shop"

[[category]]
name = "order"
description = "Orders"

[[event]]
name = "order.placed"
category = "order"
description = "Somebody ordered"
schema = '''
{ "type": "object",
  "required": ["id"],
  "properties": { "id": { "type": "string" } } }
'''
example = '{"id": "7"}'
"#;

    #[test]
    fn a_catalog_is_read() {
        let catalog = Catalog::parse(GOOD).unwrap();
        assert_eq!((catalog.name.as_str(), catalog.categories.len()), ("shop", 1));
        let event = &catalog.events[0];
        assert_eq!((event.name.as_str(), event.line), ("order.placed", 9));
        assert_eq!(catalog.events_of("order").count(), 1);
        assert_eq!(event.schema["required"][0], "id");
        assert_eq!(event.example, Some(serde_json::json!({"id": "7"})));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, line, expected) in [
            ("name = \"shop\"", "name = ", 1, ""),
            ("name = \"shop\"\n", "", 1, "`name` is missing"),
            ("\"shop\"", "\"../shop\"", 1, "the name of a catalog"),
            ("\"shop\"", "7", 1, "`name` is a string; this is integer"),
            ("description = \"A shop\"", "description = \"\"", 2, "`description` is empty"),
            ("description = \"A shop\"", "descripton = \"A shop\"", 2, "unknown key `descripton`"),
            ("[[category]]", "[category]", 4, "write [[category]]"),
            ("name = \"order\"", "name = \"other\"", 10, "no [[category]] named `order`; there are other"),
            ("\"order.placed\"", "\"a\\nb\"", 9, "control character"),
            ("description = \"Somebody ordered\"\n", "", 8, "[[event]]: `description` is missing"),
            ("schema = '''\n{", "schema = '''\n", 13, "schema is not JSON"),
            ("[\"id\"],", "[\"id\"]", 15, "schema is not JSON"),
            ("[\"id\"]", "\"id\"", 12, "schema: /required: "),
            ("\"string\"", "\"text\"", 12, "schema: /properties/id/type: "),
            ("\"type\": \"string\"", "\"$ref\": \"https://example.com/\"", 12, "stay inside the schema"),
            ("'{\"id\": \"7\"}'", "'{}'", 17, "the example breaks the schema: /id: is missing"),
            ("'{\"id\": \"7\"}'", "'{\"id\":\"7\",\"id\":\"8\"}'", 17, "\"id\" twice"),
            ("'{\"id\": \"7\"}'", "{ id = 7 }", 17, "JSON between '''"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let flaws = Catalog::parse(&text).expect_err(to);
            let told = flaws.iter().any(|flaw| flaw.line == line && flaw.message.contains(expected));
            assert!(told, "{from} -> {to}: {flaws:?}");
        }
        let twice = GOOD.to_owned() + &GOOD[GOOD.find("[[event]]").unwrap()..];
        assert_eq!(
            Catalog::parse(&twice).unwrap_err(),
            [Flaw { line: 19, message: "event `order.placed` is in line 9 already".into() }]
        );
        let empty = Catalog::parse("").unwrap_err();
        assert_eq!(empty.len(), 4, "{empty:?}");
        let idle = GOOD.to_owned() + "[[category]]\nname = \"idle\"\ndescription = \"d\"\n";
        assert!(Catalog::parse(&idle).unwrap_err()[0].message.contains("`idle` has no event"));
    }

    #[test]
    fn the_shipped_catalogs_hold_together_and_have_examples() {
        for (name, text) in SHIPPED {
            let catalog = Catalog::parse(text).unwrap_or_else(|flaws| panic!("{name}: {flaws:#?}"));
            assert_eq!(catalog.name, name);
            for event in &catalog.events {
                assert!(event.example.is_some(), "{name}: {} has no example", event.name);
                assert!(event.schema.get("additionalProperties").is_none(), "{}", event.name);
            }
        }
    }

    #[test]
    fn the_shipped_catalogs_have_exactly_these_events() {
        #[rustfmt::skip]
        let expected: [(&str, &[(&str, &[&str])]); 4] = [
            ("conductor", &[
                ("error-recovery", &["retry-started", "retry-completed", "error-resolved", "circuit-breaker-state-changed"]),
                ("scheduler", &["schedule-executed", "execution-completed", "schedule-created", "schedule-deleted"]),
                ("webhook", &["webhook-delivered", "webhook-failed", "webhook-registered"]),
                ("dlq", &["entry-added", "entry-resolved", "entry-resubmitted"]),
            ]),
            ("runs", &[
                ("run", &["run-created", "run-started", "run-completed", "run-failed"]),
                ("stage", &["stage-started", "stage-progress", "stage-completed", "stage-failed"]),
                ("artifact", &["artifact-created"]),
                ("governance", &["governance-required", "approval-granted", "approval-denied"]),
            ]),
            ("projects", &[
                ("project", &["project.updated", "project.deleted"]),
                ("agent", &["agent.status_changed", "agent.connected", "agent.disconnected"]),
                ("workflow", &["workflow.started", "workflow.progress", "workflow.completed", "workflow.failed"]),
                ("pr", &["pr.created", "pr.updated", "pr.closed"]),
                ("issue", &["issue.created", "issue.updated", "issue.closed"]),
                ("ai", &["ai.suggestion", "ai.analysis_complete"]),
                ("connection", &["connection.established", "connection.error"]),
            ]),
            ("workflow", &[
                ("run", &["step_start", "step_complete", "step_log", "variable_change"]),
            ]),
        ];
        for ((name, categories), (_, text)) in expected.into_iter().zip(SHIPPED) {
            let catalog = Catalog::parse(text).unwrap();
            assert_eq!(catalog.name, name);
            let found: Vec<_> = catalog.categories.iter().map(|category| category.name.as_str()).collect();
            assert_eq!(found, categories.iter().map(|(category, _)| *category).collect::<Vec<_>>());
            for (category, events) in categories {
                let found: Vec<_> = catalog.events_of(category).map(|event| event.name.as_str()).collect();
                assert_eq!(found, *events, "{name}: {category}");
            }
        }
    }
}
