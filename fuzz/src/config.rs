//! Files that operators write: settings or errors that say where, a catalog or its flaws.

use std::path::Path;

use fanwire::catalog::file::Catalog;
use fanwire::catalog::generate::{Output, generate};
use fanwire::catalog::guard::Guards;
use fanwire::catalog::rules::Rules;
use fanwire::config::{ConfigError, Sources};
use fanwire::prepare::prepare;
use fanwire::publish::wire::Publish;

/// The text of a settings file. What it means is compiled too, unless it names files.
pub fn settings(input: &[u8]) {
    let path = Path::new("fuzz.toml");
    match Sources::parse(path, input) {
        Ok(loaded) => {
            let settings = loaded.settings;
            assert!(settings.needs_restart(&settings).is_empty());
            let _ = format!("{settings:?}");
            if settings.catalog.is_empty()
                && let Err(error) = prepare(&settings)
            {
                check(&error, input);
            }
        }
        Err(error) => check(&error, input),
    }
}

/// Every problem names a line that there is.
fn check(error: &ConfigError, input: &[u8]) {
    let lines = 1 + input.iter().filter(|byte| **byte == b'\n').count();
    assert!(!error.problems.is_empty());
    for problem in &error.problems {
        assert!(!problem.message.is_empty());
        let line = problem.place.strip_prefix("fuzz.toml:").expect("a place in the file");
        assert!((1..=lines).contains(&line.parse().expect("a line")), "line {line} of {lines}");
    }
}

/// The text of a catalog, and what is generated from one that holds together.
pub fn catalog(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Catalog::parse(text) {
        Ok(catalog) => {
            for output in [Output::Typescript, Output::Python, Output::Reference] {
                assert!(!generate(output, std::slice::from_ref(&catalog)).is_empty());
            }
            let examples: Vec<_> =
                catalog.events.iter().map(|event| (event.name.clone(), event.example.clone())).collect();
            let Ok(rules) = Rules::new(&[catalog], true, Guards::default()) else { return };
            for (event, example) in examples {
                let data = example.as_ref().map(ToString::to_string).unwrap_or_default();
                let publish = Publish { topics: "t", event: &event, key: "", data: &data, timestamp_ms: 0 };
                let checked = rules.check(&publish);
                assert!(example.is_none() || checked.is_ok(), "an example is right: {checked:?}");
            }
        }
        Err(flaws) => {
            let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
            assert!(!flaws.is_empty());
            assert!(flaws.iter().all(|flaw| !flaw.message.is_empty() && (1..=lines).contains(&flaw.line)));
        }
    }
}
