//! Who may use whom: the modules of `docs/architecture.md`, in the order of their dependencies.
//!
//! Each unit of [`LAYERS`] may use those named beside it, all of which stand above it: so there are no cycles
//! but inside a unit. A use that is not in the table fails the test, and so does a permission that nobody needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A unit: its name, the files below `src/` that it consists of (without `.rs`), and the units that it may use.
type Layer = (&'static str, &'static [&'static str], &'static [&'static str]);

#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    // Words and bytes: nothing of ours below them.
    ("clock",       &["clock"],                                     &[]),
    ("error",       &["error"],                                     &[]),
    ("transport",   &["transport"],                                 &[]),
    ("address",     &["session/address"],                           &[]),
    ("slack",       &["slack"],                                     &[]),
    ("link",        &["link"],                                      &["slack"]),
    ("logs",        &["logs"],                                      &[]),
    ("proto",       &["proto"],                                     &[]),
    ("names",       &["topic/name"],                                &[]),
    ("receipt",     &["receipt"],                                   &[]),
    ("policy",      &["session/policy"],                            &[]),
    ("brought",     &["session/brought"],                           &[]),
    ("timer",       &["session/timer"],                             &["slack"]),
    ("origin",      &["origin"],                                    &[]),
    ("rate",        &["session/rate"],                              &[]),
    ("config",      &["config"],                                    &["origin"]),
    ("admission",   &["fanout/admission"],                          &["rate"]),
    ("stages",      &["fanout/stages"],                             &["clock"]),
    ("wire",        &["publish/wire"],                              &["clock", "error", "names", "receipt"]),
    ("rules",       &["topic/rules"],                               &["config", "names", "policy"]),
    // An event, where it is ordered and kept, and how it is written. One unit: a round names its topics and holds its
    // frames, a log makes rounds, an envelope reads them.
    ("event",       &["event", "spare", "topic/topic", "topic/table", "topic/log", "topic/recall", "topic/budget", "topic/expiry", "topic/fixtures", "topic/patterns", "topic/history", "topic/index", "topic/kept", "dialect/envelope", "dialect/deflated"],
                    &["clock", "config", "names", "proto", "rules", "slack", "wire"]),
    ("pages",       &["session/pages"],                             &[]),
    ("named",       &["session/named"],                             &["event", "proto"]),
    ("chunk",       &["session/chunk"],                             &["event", "named", "pages", "receipt", "slack", "transport"]),
    // What clients say, and what is said to them.
    ("command",     &["dialect/command"],                           &["event", "names", "policy", "proto"]),
    ("json",        &["dialect/json"],                              &["chunk", "command", "event", "names", "policy", "proto"]),
    ("sse",         &["dialect/sse"],                               &["event", "proto"]),
    ("echo",        &["dialect/echo"],                              &["proto"]),
    ("path",        &["dialect/path", "dialect/template"],          &["command", "event", "proto"]),
    ("dialect",     &["dialect/dialect"],                           &["chunk", "command", "echo", "error", "json", "path", "proto", "sse"]),
    ("metrics",     &["metrics"],                                   &["dialect", "error"]),
    ("opening",     &["dialect/opening"],                           &["command", "dialect", "echo", "event", "path", "proto", "sse"]),
    // One client.
    ("outbox",      &["session/outbox"],                            &["chunk", "event", "receipt"]),
    ("session",     &["session/session"],                           &["address", "brought", "chunk", "config", "dialect", "event", "metrics", "policy", "proto", "rate"]),
    ("handshake",   &["session/handshake"],                         &["config", "proto"]),
    // What may be published.
    ("catalog",     &["catalog"],                                   &["error", "names", "wire"]),
    // One publisher: the node's side, and the other side, which the node does not use.
    ("dedupe",      &["publish/dedupe"],                            &["clock", "error", "receipt", "slack"]),
    ("socket",      &["publish/socket"],                            &["catalog", "dedupe", "error", "metrics", "names", "receipt", "wire"]),
    ("batch",       &["publish/http"],                              &["catalog", "clock", "dedupe", "error", "names", "proto", "receipt", "wire"]),
    ("ingress",     &["publish/ingress"],                           &["clock", "event", "metrics", "receipt", "wire"]),
    ("client",      &["client"],                                    &["error", "receipt", "wire"]),
    // What shards share, and a shard's lists.
    ("subscribers", &["fanout/subscribers"],                        &["chunk", "event", "policy", "slack"]),
    ("report",      &["admin/report", "admin/slow"],                &["clock", "event", "session", "subscribers", "transport"]),
    ("shared",      &["fanout/shared"],                             &["admission", "catalog", "clock", "config", "dedupe", "event", "ingress", "link", "metrics", "origin", "path", "receipt", "report", "rules", "stages"]),
    ("flood",       &["fanout/flood"],                              &[]),
    ("connection",  &["fanout/connection"],                         &["address", "batch", "chunk", "dialect", "event", "flood", "handshake", "outbox", "proto", "session", "socket", "transport"]),
    // What HTTP answers. One unit: the routes use their pages, the pages the routes' `Reply`.
    ("admin",       &["admin/api", "admin/diagnostics", "admin/drain", "admin/history", "admin/metrics", "admin/page", "admin/stats"],
                    &["batch", "clock", "command", "connection", "dedupe", "dialect", "echo", "error", "event", "metrics", "opening", "origin", "proto", "report", "shared", "socket", "sse", "stages"]),
    // The shard: one type in thirteen files, and its queue.
    ("shard",       &["fanout/shard", "fanout/delivery", "fanout/intake", "fanout/receipts", "fanout/replay", "fanout/requests", "fanout/lifecycle", "fanout/drain", "fanout/pause", "fanout/slow", "fanout/sweep", "fanout/tidy", "fanout/writing"],
                    &["admin", "batch", "brought", "chunk", "clock", "command", "config", "connection", "dedupe", "dialect", "error", "event", "flood", "handshake", "ingress", "json", "link",
                      "metrics", "names", "opening", "outbox", "policy", "proto", "receipt", "report", "session", "shared", "slack", "socket", "sse", "stages", "subscribers", "timer",
                      "transport", "wire"]),
    // What a generator of load says and counts: the other side of everything, which the node does not use.
    ("load",        &["load"],                                      &["proto", "wire"]),
    // The shell.
    ("prepare",     &["prepare"],                                   &["admin", "catalog", "config", "event", "path", "policy", "rules"]),
    ("net",         &["net"],                                       &["clock", "config", "connection", "link", "shard", "shared", "transport"]),
    ("node",        &["node"],                                      &["clock", "config", "connection", "logs", "net", "origin", "prepare", "shared", "stages"]),
    ("cli",         &["cli"],                                       &["catalog", "clock", "client", "config", "error", "load", "logs", "node", "prepare"]),
];

/// Files that only say which modules there are.
const TABLES_OF_CONTENTS: &[&str] = &[
    "lib",
    "admin/mod",
    "catalog/mod",
    "dialect/mod",
    "fanout/mod",
    "net/mod",
    "proto/mod",
    "publish/mod",
    "session/mod",
    "topic/mod",
];

/// What is used in certain places only: the words, the files (or directories) that may have them, and why.
const HOMES: &[(&[&str], &[&str], &str)] = &[
    // The load generator is another program's side of the sockets.
    (&["mio::"], &["net", "cli/load"], "net is the only home of mio"),
    (
        &["Instant::now", "SystemTime::now", ".elapsed()"],
        // The publishing client blocks, on a clock of its own; no part of the engine uses it.
        &["clock", "cli", "node", "client"],
        "the engine is told the time",
    ),
    (
        &["thread::", "sleep("],
        // What the allocator keeps for a thread it gives back when one ends: that is all that one does.
        &["node", "cli", "client", "config", "net/heap"],
        "shards own what they touch: threads are made in node",
    ),
    (
        &["std::net::", "std::os::unix::net"],
        &["net", "cli", "node", "client", "config"],
        "the engine knows no sockets",
    ),
    // The fixtures are compiled for unit tests alone, which print their seed.
    (&["println!", "eprintln!"], &["cli", "node", "topic/fixtures"], "a library does not print"),
    (&["unsafe "], &["net/heap"], "the allocator is asked there, and nowhere else"),
];

/// A file's code without its unit tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // A module of tests is the end of its file; `mod tests;` names a file, which is not looked at.
    let end =
        ["#[cfg(test)]\nmod tests {", "#[cfg(all(test,"].iter().filter_map(|start| text.find(start)).min();
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every source file but tests, by its path below `src/` without `.rs`.
fn files() -> BTreeMap<String, PathBuf> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<String, PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().is_some_and(|stem| stem != "tests" && stem != "main")
            {
                let name = path.strip_prefix(root).unwrap().with_extension("");
                found.insert(name.to_str().unwrap().to_owned(), path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    found
}

/// Whether `file` is `place` or inside it.
fn is_in(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The unit that a file belongs to.
fn unit_of(file: &str) -> Option<&'static str> {
    LAYERS.iter().find(|(_, places, _)| places.iter().any(|place| is_in(file, place))).map(|(unit, ..)| *unit)
}

/// What a path such as `session::chunk::{Chunks, Span}` or `{clock, error::Refusal}` names, as `a/b/c`.
fn expand(path: &str) -> Vec<String> {
    let Some((head, rest)) = path.split_once('{') else { return vec![path.trim().replace("::", "/")] };
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    let mut end = rest.len();
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                end = at;
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                all.extend(expand(&format!("{head}{}", rest[start..at].trim())));
                start = at + 1;
            }
            _ => {}
        }
    }
    if !rest[start..end].trim().is_empty() {
        all.extend(expand(&format!("{head}{}", rest[start..end].trim())));
    }
    all
}

/// The files that a file's code names, by `crate::…` or `super::…`.
fn uses(file: &str, text: &str, files: &BTreeMap<String, PathBuf>) -> BTreeSet<String> {
    let parent = file.rsplit_once('/').map_or("", |(dir, _)| dir);
    let mut found = BTreeSet::new();
    for (prefix, base) in [("crate::", ""), ("super::", parent)] {
        for (at, _) in text.match_indices(prefix) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue; // `pub(crate::…)` does not occur; this is `some_crate::`.
            }
            let path = &text[at + prefix.len()..];
            let is_import = text[..at].trim_end().ends_with("use");
            let end = if is_import {
                path.find(';')
            } else {
                path.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            };
            for name in expand(&path[..end.unwrap_or(path.len())]) {
                let whole = if base.is_empty() { name } else { format!("{base}/{name}") };
                // The longest beginning that is a file: what follows are items in it.
                let ends = whole.match_indices('/').map(|(at, _)| at).chain([whole.len()]);
                let longest = ends.map(|end| whole[..end].to_owned()).rfind(|name| files.contains_key(name));
                let module = longest.or_else(|| {
                    let name = format!("{}/mod", whole.split('/').next().unwrap_or_default());
                    files.contains_key(&name).then_some(name)
                });
                found.insert(module.unwrap_or_else(|| panic!("{file} uses {whole}, which is no module")));
            }
        }
    }
    found.remove(file);
    found
}

#[test]
fn the_table_has_every_file_once_and_is_in_order() {
    let files = files();
    for file in files.keys() {
        let units =
            LAYERS.iter().filter(|(_, places, _)| places.iter().any(|place| is_in(file, place))).count();
        let expected = usize::from(!TABLES_OF_CONTENTS.contains(&file.as_str()) || unit_of(file).is_some());
        assert_eq!(units, expected, "{file} belongs in one place of LAYERS");
    }
    for (number, (unit, places, may_use)) in LAYERS.iter().enumerate() {
        for place in *places {
            assert!(files.keys().any(|file| is_in(file, place)), "{unit}: there is no {place}");
        }
        for used in *may_use {
            assert!(
                LAYERS[..number].iter().any(|(other, ..)| other == used),
                "{unit} uses {used}, which must stand above it"
            );
        }
    }
}

#[test]
fn modules_use_only_what_is_below_them() {
    let files = files();
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (file, path) in &files {
        let Some(unit) = unit_of(file) else { continue };
        for other in uses(file, &code(path), &files) {
            match unit_of(&other) {
                Some(other) if other == unit => {}
                Some(other) => {
                    let (.., may_use) = LAYERS.iter().find(|(name, ..)| *name == unit).unwrap();
                    if !may_use.contains(&other) {
                        wrong.push(format!("{file} ({unit}) uses {other}"));
                    }
                    used.entry(unit).or_default().insert(other);
                }
                None => wrong.push(format!("{file} uses {other}: name the module itself")),
            }
        }
    }
    assert!(wrong.is_empty(), "not in LAYERS:\n{}", wrong.join("\n"));
    for (unit, _, may_use) in LAYERS {
        let used = used.remove(unit).unwrap_or_default();
        let idle: Vec<_> = may_use.iter().filter(|other| !used.contains(*other)).collect();
        assert!(idle.is_empty(), "{unit} may use {idle:?} and does not: take it out of LAYERS");
    }
}

#[test]
fn sockets_clocks_and_threads_stay_at_home() {
    let mut wrong = Vec::new();
    for (file, path) in &files() {
        let text = code(path);
        for (words, homes, why) in HOMES {
            if homes.iter().any(|home| is_in(file, home)) {
                continue;
            }
            for word in *words {
                if text.contains(word) {
                    wrong.push(format!("{file} has `{word}`: {why}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_bytes_of_protocols_know_nothing_of_ours() {
    for (file, path) in files().iter().filter(|(file, _)| is_in(file, "proto")) {
        assert!(!code(path).contains("crate::"), "{file}");
    }
}

#[test]
fn paths_are_expanded() {
    assert_eq!(expand("a::b::{self, C, d::{E, F}}"), ["a/b/self", "a/b/C", "a/b/d/E", "a/b/d/F"]);
    assert_eq!(expand("{a, b::C}"), ["a", "b/C"]);
    assert_eq!(expand("clock"), ["clock"]);
}
