//! Types, helpers and pages made from catalogs: text in, files out.

mod python;
mod reference;
mod shape;
mod typescript;

use crate::catalog::file::Catalog;

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A TypeScript module for each catalog, for whoever uses the npm package.
    Typescript,
    /// The same within that package.
    TypescriptPackage,
    /// A Python module for each catalog.
    Python,
    /// One page that shows all of them.
    Reference,
}

/// The files that a command makes: name and text of each.
pub fn generate(output: Output, catalogs: &[Catalog]) -> Vec<(String, String)> {
    match output {
        Output::Typescript | Output::TypescriptPackage => {
            let library = if output == Output::Typescript { "fanwire-client" } else { "../events.js" };
            catalogs.iter().map(|c| (format!("{}.ts", c.name), typescript::module(c, library))).collect()
        }
        Output::Python => {
            let name = |c: &Catalog| format!("{}.py", snake(&c.name));
            catalogs.iter().map(|c| (name(c), python::module(c))).collect()
        }
        Output::Reference => vec![("catalogs-reference.md".to_owned(), reference::page(catalogs))],
    }
}

/// The words of a name, in lower case: at whatever is no letter or digit, and where a capital follows a small
/// letter.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut is_open, mut was_small) = (false, false);
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() {
            is_open = false;
        } else {
            if !is_open || (was_small && c.is_ascii_uppercase()) {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.push(c.to_ascii_lowercase());
            }
            is_open = true;
        }
        was_small = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    if !words.first().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())) {
        words.insert(0, "event".to_owned());
    }
    words
}

fn capitalise(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// `agent.status_changed` → `AgentStatusChanged`.
fn pascal(name: &str) -> String {
    words(name).iter().map(|word| capitalise(word)).collect()
}

/// `agent.status_changed` → `agent_status_changed`.
fn snake(name: &str) -> String {
    words(name).join("_")
}

/// `my-catalog` → `myCatalog`.
fn camel(name: &str) -> String {
    let words = words(name);
    words[..1].iter().cloned().chain(words[1..].iter().map(|word| capitalise(word))).collect()
}

/// The identifier of every event: that of its name, with a number where another event has the same.
fn identifiers(catalog: &Catalog, of: impl Fn(&str) -> String) -> Vec<String> {
    let mut found = Vec::new();
    for event in &catalog.events {
        unique(of(&event.name), &mut found);
    }
    found
}

/// A name that is not taken yet, and is now: this one, with a number where it is.
fn unique(name: String, taken: &mut Vec<String>) -> String {
    let mut unique = name.clone();
    let mut number = 2;
    while taken.contains(&unique) {
        unique = format!("{name}{number}");
        number += 1;
    }
    taken.push(unique.clone());
    unique
}

/// A sentence with its full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::file::SHIPPED;

    #[test]
    fn names_become_identifiers() {
        for (name, expected, small) in [
            ("run-created", "RunCreated", "runCreated"),
            ("agent.status_changed", "AgentStatusChanged", "agentStatusChanged"),
            ("step_log", "StepLog", "stepLog"),
            ("varName", "VarName", "varName"),
            ("7up", "Event7up", "event7up"),
            ("日本", "Event", "event"),
            ("a--b", "AB", "aB"),
        ] {
            assert_eq!((pascal(name).as_str(), camel(name).as_str()), (expected, small), "{name}");
        }
    }

    #[test]
    fn what_is_made_holds_every_event() {
        let catalogs: Vec<_> = SHIPPED.iter().map(|(_, text)| Catalog::parse(text).unwrap()).collect();
        for output in [Output::Typescript, Output::Python, Output::Reference] {
            let files = generate(output, &catalogs);
            let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
            for event in catalogs.iter().flat_map(|catalog| &catalog.events) {
                assert!(all.contains(&event.name), "{output:?}: {}", event.name);
            }
            assert!(
                files.iter().all(|(_, text)| text.ends_with('\n') && !text.contains(" \n")),
                "{output:?}"
            );
        }
    }

    #[test]
    fn names_that_look_alike_stay_apart() {
        let text = r#"
name = "x"
description = "d"
category = [{name = "c", description = "d"}]
event = [
  {name = "e-mail", category = "c", description = "d", schema = '''{"properties": {
    "a_b": {"properties": {"p": {"type": "string"}}}, "aB": {"properties": {"q": {"type": "string"}}},
    "none": {"enum": []}, "more_data": {"properties": {"r": {"type": "string"}}}}}'''},
  {name = "email", category = "c", description = "d", schema = "true"},
  {name = "日本", category = "c", description = "d", schema = "true"},
  {name = "!", category = "c", description = "d", schema = '{"enum": []}'},
  {name = "e-mail-data-more", category = "c", description = "d", schema = '{"properties": {"a": {}}}'},
]
"#;
        let catalog = Catalog::parse(text).unwrap();
        let python = &generate(Output::Python, std::slice::from_ref(&catalog))[0].1;
        let names = |start: &str| {
            let lines = python.lines().filter_map(|line| line.strip_prefix(start));
            lines.map(|line| line.split('(').next().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(
            names("def broadcast_"),
            ["e_mail", "email", "event", "event2", "e_mail_data_more"],
            "{python}"
        );
        let classes = ["EMailDataAB", "EMailDataAB2", "EMailDataMoreData2", "EMailData", "EMailDataMoreData"];
        assert_eq!(names("class "), classes, "{python}");
        for line in
            ["aB: NotRequired[EMailDataAB]", "a_b: NotRequired[EMailDataAB2]", "none: NotRequired[NoReturn]"]
        {
            assert!(python.contains(line), "{line}: {python}");
        }
        assert!(python.contains("Event2Data = NoReturn\n") && python.contains(", NoReturn, "), "{python}");
        let typescript = &generate(Output::Typescript, &[catalog])[0].1;
        assert!(typescript.contains("none?: never;\n"), "{typescript}");
        assert!(typescript.contains("type Event2Data = never;\n"), "{typescript}");
    }

    #[test]
    fn a_hostile_catalog_makes_no_code_of_its_own() {
        let text = r##"
name = "x"
description = "*/ evil(); /* \"\"\" '''"
[[category]]
name = "c\"; evil()"
description = "d"
[[event]]
name = "a\"]; evil(); //"
category = "c\"; evil()"
description = "ends */ the comment, \"\"\" the docstring | the table \\"
schema = '''{"type":"object","properties":{"a b\"": {"type":"string","description":"*/ \"\"\" |"}, "class": {"enum": ["\"\\", null, 1]}}}'''
"##;
        let catalog = Catalog::parse(text).unwrap();
        let typescript = &generate(Output::Typescript, std::slice::from_ref(&catalog))[0].1;
        assert!(typescript.contains(r#""a\"]; evil(); //": AEvilData;"#), "{typescript}");
        assert_eq!(typescript.matches("*/").count(), typescript.matches("/**").count(), "{typescript}");
        let python = &generate(Output::Python, std::slice::from_ref(&catalog))[0].1;
        assert!(python.contains(r#""class""#) && !python.contains("class: "), "{python}");
    }
}
