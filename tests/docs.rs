//! The documents say what the program does: names in tables, settings, links.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Node, TempDir, cc, compile, http, in_repository};
use fanwire::config::{SETTINGS, TABLES};
use fanwire::error::{CloseReason, ErrorCode};
use fanwire::metrics::{BadInput, DropReason, NotAdmitted};

const OPERATIONS: &str = "docs/operations.md";
const JSON_WEBSOCKET: &str = "docs/json-websocket.md";

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of a document under a heading, to the next one of the same or a higher level.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(heading).unwrap_or_else(|| panic!("there is no {heading:?}")) + heading.len();
    let level = heading.trim_start().bytes().take_while(|byte| *byte == b'#').count();
    let rest = &document[start..];
    let ends = (1..=level).filter_map(|level| rest.find(&format!("\n{} ", "#".repeat(level))));
    &rest[..ends.min().unwrap_or(rest.len())]
}

/// The first cell of every row of the tables in `text`.
fn first_cells(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    rows.map(str::trim).filter(|cell| !cell.is_empty() && !cell.starts_with("---")).collect()
}

/// A row of a table that begins with `cell`.
fn row<'a>(text: &'a str, cell: &str) -> &'a str {
    let start = format!("| {cell} |");
    text.lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("no row begins with {start:?}"))
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let node = Node::start(&[]);
    let (status, _, body) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    assert_eq!(status, 200);
    let text = String::from_utf8(body).unwrap();
    let served: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| match line.split_once(' ') {
            Some((name, "counter")) => format!("{name}_total"),
            Some((name, _)) => name.to_owned(),
            None => panic!("{line:?}"),
        })
        .collect();
    assert!(served.len() > 10, "{text}");

    let operations = read(OPERATIONS);
    let documented = first_cells(section(&operations, "\n## Metrics\n"));
    let documented: BTreeSet<String> = documented
        .into_iter()
        .filter(|cell| cell.starts_with("`fanwire_"))
        .map(|cell| cell.trim_matches('`').split('{').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(documented, served, "left: {OPERATIONS}; right: /metrics");

    // Names used elsewhere in the documents exist as well.
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("fanwire_") {
            let name: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            let suffixed = ["_total", "_seconds", "_bytes"].iter().any(|suffix| name.ends_with(suffix));
            assert!(!suffixed || served.contains(&name), "{}: {name} is no metric", path.display());
        }
    }
}

#[test]
fn every_label_has_its_row_or_word() {
    let operations = read(OPERATIONS);
    let reasons = section(&operations, "\n## Why sessions end\n");
    for reason in CloseReason::ALL {
        let row = row(reasons, &format!("`{}`", reason.name()));
        if let Some(code) = reason.code() {
            assert!(row.contains(&format!("| {code} |")), "{code} is not in {row}");
        }
    }
    let named = first_cells(reasons).into_iter().filter(|cell| cell.starts_with('`')).count();
    assert_eq!(named, CloseReason::ALL.len(), "a reason that does not exist has a row");

    let codes = section(&operations, "\n## Error codes\n");
    for code in ErrorCode::ALL {
        let row = row(codes, &(code as u16).to_string());
        assert!(row.contains(&format!("| `{}` |", code.name())), "{row}");
        assert_eq!(row.contains("| closes |"), code.closes(), "{row}");
    }
    let drops = section(&operations, "\n## Why events are dropped\n");
    for reason in DropReason::all().filter(|reason| !matches!(reason, DropReason::Closed(_))) {
        assert!(drops.contains(&format!("`{}`", reason.name())), "{}", reason.name());
    }
    for kind in BadInput::ALL {
        assert!(operations.contains(&format!("`{}` (", kind.name())), "{} is not explained", kind.name());
    }
    for reason in NotAdmitted::ALL {
        assert!(operations.contains(&format!("`{}` (", reason.name())), "{} is not explained", reason.name());
    }
}

#[test]
fn every_close_code_is_in_the_protocols_table() {
    let protocol = read(JSON_WEBSOCKET);
    let table = section(&protocol, "\n## Coming back\n");
    for code in CloseReason::ALL.into_iter().filter_map(CloseReason::code) {
        row(table, &code.to_string());
    }
}

#[test]
fn every_setting_has_its_row_with_its_default() {
    let operations = read(OPERATIONS);
    let settings = section(&operations, "\n## Settings\n");
    let mut group = "";
    let documented: Vec<(&str, &str)> = settings
        .lines()
        .filter_map(|line| {
            group = line.strip_prefix("### ").unwrap_or(group);
            let cell = line.strip_prefix("| `")?.split('`').next()?;
            Some((group, cell))
        })
        .collect();
    let headings: Vec<String> = TABLES.iter().map(|table| format!("`[[{}]]`", table.name)).collect();
    let of_tables = TABLES.iter().zip(&headings).flat_map(|(table, heading)| {
        (table.keys)().into_iter().map(|key| (heading.as_str(), key.name)).collect::<Vec<_>>()
    });
    let known: Vec<(&str, &str)> =
        SETTINGS.iter().map(|setting| (setting.group.name(), setting.key)).chain(of_tables).collect();
    assert_eq!(documented, known, "left: {OPERATIONS}; right: the tables of settings");

    let defaults = fanwire::config::Settings::default();
    let plain = |text: &str| text.replace(['`', '"', '[', ']', ' ', ','], "");
    for setting in SETTINGS.iter().filter(|setting| setting.default_note.is_empty()) {
        let row = row(settings, &format!("`{}`", setting.key));
        let default = (setting.show)(&defaults).unwrap_or_default();
        let cell = row.split('|').nth(2).unwrap_or_default();
        assert_eq!(plain(cell), plain(&default), "the default of {}", setting.key);
    }
    for (table, heading) in TABLES.iter().zip(&headings) {
        let section = section(&operations, &format!("\n### {heading}\n"));
        for key in (table.keys)() {
            let row = row(section, &format!("`{}`", key.name));
            let cell = plain(row.split('|').nth(2).unwrap_or_default());
            match key.default {
                Some(default) => assert_eq!(cell, plain(&default), "{}: {}", table.name, key.name),
                None => assert_eq!(cell == "required", key.is_required, "{}: {}", table.name, key.name),
            }
        }
    }
    // The example file has a test of its own; here only that both documents know the same keys.
    let example = read("docs/fanwire.toml");
    let (example, _) = example.split_once("\n# Tables ---").expect("the tables come last");
    let mut keys = 0;
    for line in example.lines() {
        let line = line.strip_prefix("# Example: ").or_else(|| line.strip_prefix('#')).unwrap_or(line);
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        keys += 1;
        assert!(settings.contains(&format!("| `{key}` |")), "{key} is not in {OPERATIONS}");
    }
    assert_eq!(keys, SETTINGS.len());
}

#[test]
fn every_relative_link_resolves() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let place = document.file_name().unwrap().to_string_lossy();
            assert!(file.exists(), "{place}: {target} does not exist");
            if !anchor.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let anchors: Vec<String> = headings(&there).map(anchor_of).collect();
                assert!(
                    anchors.iter().any(|other| other == anchor),
                    "{place}: {target}: no such heading in {anchors:?}"
                );
            }
        }
    }
}

#[test]
fn every_fault_has_its_row_and_every_test_named_there_exists() {
    let page = read("docs/faults.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let mut named = 0;
    for row in rows.iter().filter(|row| !row.starts_with("| | ") && !row.starts_with("| --- ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, threat, does, shown] = cells[..] else { panic!("{row}: {} cells", cells.len()) };
        assert!(!threat.is_empty() && !does.is_empty(), "{id}");
        let is_argued = shown.starts_with("argued: ") || does.starts_with("Not served by this version");
        assert!(shown.contains("::") || is_argued, "{id} is neither shown nor argued: {shown}");
    }
    for (file, test) in page.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::")) {
        let text = read(file);
        let declared =
            text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
        assert!(declared.map(|(name, _)| name).any(|name| name == test), "{file} has no test {test}");
        named += 1;
    }
    assert!(named > 60, "{named} tests");
    let ids: Vec<&str> = first_cells(&page);
    let expected = (1..=20).map(|n| format!("W{n}")).chain((1..=5).map(|n| format!("P{n}")));
    for id in expected {
        assert_eq!(ids.iter().filter(|other| **other == id).count(), 1, "{id}");
    }
}

#[test]
fn documents_name_nothing_outside_the_repository() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for stranger in ["/root/", "/home/", "../.."] {
            assert!(!text.contains(stranger), "{}: {stranger}", document.display());
        }
    }
}

#[test]
fn the_readmes_c_program_compiles() {
    let readme = read("README.md");
    let program =
        readme.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a C program");
    let dir = TempDir::new();
    let source = dir.path().join("hello.c");
    fs::write(&source, program).unwrap();
    compile(&cc(), "c99", &[&source], &dir.path().join("hello"));
}

fn documents() -> Vec<PathBuf> {
    let mut all = vec![in_repository("README.md"), in_repository("CHANGELOG.md")];
    for entry in fs::read_dir(in_repository("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            all.push(path);
        }
    }
    assert!(all.len() > 4 && all.iter().all(|path| Path::new(path).is_file()));
    all
}

/// The lines of a document that are not inside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

/// What `](…)` points to.
fn links(text: &str) -> Vec<&str> {
    prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim())
}

/// As GitHub makes it: lower case, spaces to dashes, punctuation gone.
fn anchor_of(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
