//! What may be published, from outside: a node with catalogs and guards, the commands that read catalogs, and the
//! files that are made from them.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Incoming, Node, PATIENCE, TempDir, fanwire, http, in_repository, python3, run, run_any};
use fanwire::catalog::file::{Catalog, SHIPPED};
use fanwire::catalog::generate::{Output, generate};
use fanwire::catalog::json::Tree;
use fanwire::client::{Answer, Event, Publisher};
use serde_json::{Value, json};

const GOOD: &str = r#"{"runId":"r1","stageId":"s","progress":50}"#;
const BAD: &str = r#"{"runId":"r1","stageId":"s","progress":101}"#;
const MESSAGE: &str = "catalog `runs`, event `stage-progress`: /progress: expected at most 100";

/// A node whose settings file has `text`.
fn node(text: &str, flags: &[&str]) -> Node {
    let dir = TempDir::new();
    fs::write(dir.path().join("node.toml"), text).unwrap();
    let flags: Vec<_> = ["--config", "node.toml"].into_iter().chain(flags.iter().copied()).collect();
    Node::start_in(dir, &flags)
}

fn open(node: &Node) -> Publisher {
    Publisher::open(&node.publish_addr().to_string()).unwrap()
}

/// Sends everything; answers what was refused, by its sequence, as code and message.
fn publish_all(node: &Node, events: &[Event<'_>]) -> Vec<(u64, u16, String)> {
    let mut publisher = open(node);
    for event in events {
        publisher.publish(event).unwrap();
    }
    // Its PONG comes after every answer.
    publisher.ping(b"end").unwrap();
    publisher.flush().unwrap();
    let mut refused = Vec::new();
    loop {
        match publisher.answer().unwrap() {
            Answer::Error { sequence, code, message } => refused.push((sequence, code, message)),
            Answer::Pong { .. } => return refused,
            _ => {}
        }
    }
}

fn post(node: &Node, body: &Value) -> (u16, Value) {
    let (status, _, answer) =
        http(node.http_addr(), "POST", "/api/publish", &[], body.to_string().as_bytes());
    (status, serde_json::from_slice(&answer).unwrap())
}

/// The data of what a client has been sent, up to the event `end`.
fn received(client: &mut common::WebSocket) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let message = client.next_json(PATIENCE);
        if message["event"] == "end" {
            return found;
        }
        found.push(message["data"].clone());
    }
}

#[test]
fn a_violation_on_the_publish_socket_is_refused_alone() {
    let node = node("catalog = [\"runs\", \"workflow\"]\n", &["--shards", "2"]);
    let mut client = node.websocket();
    client.subscribe(&["stage"]);
    let refused = publish_all(
        &node,
        &[
            Event::new(&["stage"], "stage-progress", GOOD),
            Event::new(&["stage", "run:r1"], "stage-progress", BAD),
            Event::new(&["stage"], "stage-progress", r#"{"runId":"r1"}"#),
            Event::new(&["stage"], "stage-progress", r#"{"runId":"1","runId":"2"}"#),
            Event::new(&["stage"], "not-catalogued", BAD),
            Event::new(&["stage"], "step_log", "1e999"),
            Event::new(&["stage"], "stage-progress", GOOD),
            Event::new(&["stage"], "end", "0"),
        ],
    );
    let found: Vec<_> = refused.iter().map(|(sequence, code, _)| (*sequence, *code)).collect();
    assert_eq!(found, [(2, 7), (3, 7), (4, 7), (6, 7)]);
    assert_eq!(refused[0].2, MESSAGE);
    assert!(refused[1].2.contains("/stageId: is missing; /progress: is missing"), "{}", refused[1].2);
    assert!(refused[2].2.contains("twice"), "{}", refused[2].2);
    assert!(refused[3].2.contains("expected object, found number"), "{}", refused[3].2);
    let good: Value = serde_json::from_str(GOOD).unwrap();
    let bad: Value = serde_json::from_str(BAD).unwrap();
    assert_eq!(received(&mut client), [good.clone(), bad, good]);
    let stats = node.stats();
    assert_eq!(
        (&stats["eventsIn"], &stats["refused"]["schema_violation"]),
        (&json!(4), &json!(4)),
        "{stats:#}"
    );
}

#[test]
fn a_violation_over_http_keeps_the_whole_request_back() {
    let node = node("catalog = [\"runs\"]\n", &[]);
    let mut client = node.websocket();
    client.subscribe(&["stage"]);
    let data = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let entry = |text: &str| json!({"topic": "stage", "event": "stage-progress", "data": data(text)});
    let (status, answer) = post(&node, &json!([entry(GOOD), entry(BAD), entry("null")]));
    assert_eq!((status, &answer["accepted"]), (400, &json!(0)));
    assert_eq!(answer["errors"][0], json!({"index": 1, "code": 7, "message": MESSAGE}));
    assert_eq!(answer["errors"][1]["index"], 2);
    assert_eq!(post(&node, &json!([entry(GOOD), {"topic": "stage", "event": "end"}])).0, 200);
    assert_eq!(received(&mut client), [data(GOOD)]);
    assert_eq!(node.stats()["refused"]["schema_violation"], 2);
}

#[test]
fn strict_refuses_events_that_no_catalog_has() {
    let node = node("catalog = [\"runs\"]\ncatalog_strict = true\n", &[]);
    let refused = publish_all(
        &node,
        &[Event::new(&["a"], "stage-progres", GOOD), Event::new(&["a"], "stage-progress", GOOD)],
    );
    assert_eq!((refused.len(), refused[0].0, refused[0].1), (1, 1, 7));
    assert!(refused[0].2.starts_with("event `stage-progres`: no catalog has it"), "{}", refused[0].2);
}

const GUARDS: &str = r#"
[[guard]]
set = "us-health"
topics = ["run:*"]
action = "mask"

[[guard]]
name = "internal"
pattern = 'sec[r]et'
topics = ["public"]
"#;

#[test]
fn guards_mask_and_refuse_what_goes_to_their_topics() {
    let node = node(GUARDS, &[]);
    let mut client = node.websocket();
    client.subscribe(&["run:1", "public", "other"]);
    let data = r#"{ "note" : "call \u003212-555-1234 \"now\"", "n":1.0e5 }"#;
    let refused = publish_all(
        &node,
        &[
            Event::new(&["run:1"], "e", data),
            Event::new(&["other"], "e", data),
            Event::new(&["public"], "e", r#"{"a":["a s\u0065cret"]}"#),
            Event::new(&["x", "run:2"], "e", r#"{"123-45-6789":1}"#),
        ],
    );
    let found: Vec<_> = refused.iter().map(|(sequence, code, _)| (*sequence, *code)).collect();
    assert_eq!(found, [(3, 7), (4, 7)]);
    assert_eq!(refused[0].2, "event `e`: guard `internal` refuses what it found at /a/0");
    assert!(refused[1].2.contains("member name") && !refused[1].2.contains("6789"), "{}", refused[1].2);
    let masked = r#"{ "note" : "call ************ \"now\"", "n":1.0e5 }"#;
    assert!(client.next_text(PATIENCE).contains(masked));
    assert!(client.next_text(PATIENCE).contains(data));
    // The same over HTTP, where the data is one of many in a body.
    let body = format!(
        r#"[{{"topic":"run:1","event":"e","data":{data}}},{{"topic":"other","event":"e","data":{data}}}]"#
    );
    let (status, _, _) = http(node.http_addr(), "POST", "/api/publish", &[], body.as_bytes());
    assert_eq!(status, 200);
    assert!(client.next_text(PATIENCE).contains(masked));
    assert!(client.next_text(PATIENCE).contains(data));
    let (_, answer) = post(&node, &json!({"topic": "public", "event": "e", "data": "secret"}));
    assert_eq!(answer["errors"][0]["code"], 7);
    assert_eq!(client.next(std::time::Duration::from_millis(100)), Incoming::Nothing);
    let (_, _, metrics) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("fanwire_events_masked_total 2\n"), "{metrics}");
}

/// What `fanwire` says to these arguments in a directory with these files: success, stdout, stderr.
fn command(files: &[(&str, &str)], arguments: &[&str]) -> (bool, String, String) {
    let dir = TempDir::new();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let (status, stdout, stderr) =
        run_any(fanwire().current_dir(dir.path()).args(arguments), std::time::Duration::from_secs(60));
    (status.success(), stdout, stderr)
}

const CATALOG: &str = r#"name = "shop"
description = "A shop"

[[category]]
name = "order"
description = "Orders"

[[event]]
name = "order.placed"
category = "order"
description = "Somebody ordered"
schema = '{"type": "object"}'
"#;

#[test]
fn a_bad_catalog_or_guard_is_told_with_its_place_and_nothing_starts() {
    let broken =
        CATALOG.replace("\"object\"", "\"objekt\"").replace("category = \"order\"", "category = \"x\"");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--publish", "127.0.0.1:0", "--catalog", "./shop.toml"];
    for arguments in [&serve[..], &["check", "--catalog", "./shop.toml"]] {
        let (ok, stdout, stderr) = command(&[("shop.toml", &broken)], arguments);
        assert!(!ok && stdout.is_empty(), "{stdout}");
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert!(
            lines[0].starts_with("./shop.toml:10: event `order.placed`: there is no [[category]]"),
            "{stderr}"
        );
        assert!(lines[1].starts_with("./shop.toml:12: event `order.placed`: schema: /type: "), "{stderr}");
    }
    let clash = CATALOG.replace("order.placed", "run-created");
    for (settings, expected) in [
        ("catalog = [\"rums\"]", "node.toml:1: there is no catalog `rums`"),
        ("catalog = [\"./none.toml\"]", "node.toml:1: catalog ./none.toml: "),
        ("catalog = [\"runs\", \"./shop.toml\"]", "./shop.toml:9: event `run-created` is in catalog `runs`"),
        ("[[guard]]\nset = \"us-wealth\"", "node.toml:2: there is no set `us-wealth`"),
        ("[[guard]]\nname = \"g\"\npattern = '(a'", "node.toml:3: guard `g`: pattern `(a`: unclosed group"),
        (
            "[[guard]]\nname = \"g\"\npattern = 'a*'",
            "node.toml:3: guard `g`: pattern `a*` matches empty text",
        ),
    ] {
        let files = [("node.toml", settings), ("shop.toml", &clash)];
        let (ok, _, stderr) = command(&files, &["check", "--config", "node.toml"]);
        assert!(!ok && stderr.starts_with(expected), "{settings}: {stderr}");
    }
}

#[test]
fn check_tells_what_the_catalogs_hold() {
    let dir = TempDir::new();
    fs::write(dir.path().join("shop.toml"), CATALOG).unwrap();
    let check = |arguments: &[&str]| {
        run(
            fanwire().current_dir(dir.path()).arg("check").args(arguments),
            std::time::Duration::from_secs(60),
        )
    };
    let shown = check(&["--catalog", "runs", "--catalog", "shop.toml"]);
    let summary = "# catalog runs: 4 categories, 12 events\n# catalog shop: 1 category, 1 event\n";
    assert!(shown.ends_with(summary), "{shown}");
    // It is still TOML that a node reads.
    fs::write(dir.path().join("shown.toml"), &shown).unwrap();
    assert!(check(&["--config", "shown.toml"]).ends_with(summary));
}

fn shipped() -> Vec<Catalog> {
    SHIPPED.iter().map(|(_, text)| Catalog::parse(text).unwrap()).collect()
}

#[test]
fn what_is_made_from_the_shipped_catalogs_is_committed() {
    for (output, word, dir) in [
        (Output::TypescriptPackage, "typescript", "clients/typescript/src/catalogs"),
        (Output::Python, "python", "clients/python/fanwire_catalogs"),
        (Output::Reference, "reference", "docs"),
    ] {
        for (name, text) in generate(output, &shipped()) {
            let path = in_repository(dir).join(name);
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{} is not what the catalogs make: run `cargo run -- generate {word} --out {dir}`",
                path.display()
            );
        }
    }
}

#[test]
fn generate_writes_one_file_to_stdout_and_several_to_a_directory() {
    let files = [("shop.toml", CATALOG)];
    let (ok, stdout, _) = command(&files, &["generate", "typescript", "--catalog", "shop.toml"]);
    assert!(ok && stdout.contains("export function broadcastOrderPlaced("), "{stdout}");
    let (ok, _, stderr) = command(&files, &["generate", "python"]);
    assert!(!ok && stderr.contains("--out DIR"), "{stderr}");
    let (ok, stdout, _) = command(&files, &["generate", "python", "--out", "new/dir"]);
    assert!(ok && stdout.lines().count() == 4, "{stdout}");
    let (ok, _, stderr) = command(&files, &["generate", "reference", "--catalog", "none.toml"]);
    assert!(!ok && stderr.starts_with("--catalog: catalog none.toml: "), "{stderr}");
}

/// The texts of a document's fenced blocks of this language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(in_repository(document)).unwrap();
    let start = format!("```{language}\n");
    text.split(&start).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn the_examples_of_the_reference_satisfy_their_schemas() {
    let examples = blocks("docs/catalogs-reference.md", "json");
    let catalogs = shipped();
    // In the order of the page: by category.
    let mut events = Vec::new();
    for catalog in &catalogs {
        for category in &catalog.categories {
            events.extend(catalog.events_of(&category.name));
        }
    }
    assert_eq!(examples.len(), events.len());
    for (event, example) in events.iter().zip(&examples) {
        let tree = Tree::parse(example).unwrap();
        assert_eq!(event.compiled.violation(&tree), None, "{}", event.name);
    }
}

#[test]
fn the_catalog_that_the_document_shows_is_one() {
    let shown = blocks("docs/catalogs.md", "toml");
    let catalog = Catalog::parse(&shown[0]).unwrap_or_else(|flaws| panic!("{flaws:#?}"));
    assert!(catalog.events[0].example.is_some());
    // The others are settings.
    for text in &shown[1..] {
        let (ok, _, stderr) =
            command(&[("node.toml", text), ("events.toml", &shown[0])], &["check", "--config", "node.toml"]);
        assert!(ok, "{text}: {stderr}");
    }
}

const PYTHON: &str = r#"
import sys
from fanwire_events import ALL, PublishError, Publisher, Target
from fanwire_catalogs import conductor, projects, runs, workflow

publisher = Publisher(sys.argv[1], token="hush")
data = {"runId": "r1", "stageId": "s", "progress": 37.5}
runs.broadcast_stage_progress(publisher, Target(run="r1", project="p"), data)
workflow.broadcast_step_log(publisher, ALL, {"stepId": "a", "level": "info", "message": "h\u00e9llo"})
projects.broadcast_agent_status_changed(publisher, Target(topics=["agent:7"]), {"agent_id": "7", "status": "busy"})
for bad in ({**data, "progress": 101}, {"runId": "r1"}):
    try:
        runs.broadcast_stage_progress(publisher, ALL, bad)
        sys.exit("it was accepted")
    except PublishError as error:
        print(error.status, error.code, error)
try:
    Publisher(sys.argv[1]).publish(ALL, "a", "b", 1)
    sys.exit("it was accepted without a token")
except PublishError as error:
    print(error.status, error.code)
try:
    Publisher("http://127.0.0.1:1", timeout=5).publish(ALL, "a", "b", 1)
    sys.exit("nobody is there")
except PublishError as error:
    print(error.status, error.code)
assert runs.CATEGORIES["run"][0] == "run-created" and len(conductor.CATEGORIES) == 4
"#;

#[test]
fn the_python_helpers_publish_and_raise_with_the_path() {
    let settings = "catalog = [\"runs\", \"workflow\", \"projects\"]\npublish_token = \"hush\"\n";
    let node = node(settings, &[]);
    let mut client = node.websocket();
    client.subscribe(&["stage", "run", "agent", "run:r1", "project:p", "agent:7", "global"]);
    let url = format!("http://{}", node.http_addr());
    let mut python = Command::new(python3());
    python.env("PYTHONPATH", in_repository("clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    // Without proxies of whoever runs the tests.
    python.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let said = run(python.args(["-c", PYTHON, &url]), PATIENCE);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], format!("400 7 {MESSAGE}"));
    assert!(lines[1].contains("/stageId: is missing"), "{said}");
    assert_eq!(lines[2..], ["401 None", "None None"]);
    let mut next = || {
        let message = client.next_json(PATIENCE);
        (message["category"].clone(), message["event"].clone(), message["data"].clone())
    };
    let progress = json!({"runId": "r1", "stageId": "s", "progress": 37.5});
    assert_eq!(next(), (json!("stage"), json!("stage-progress"), progress));
    let log = json!({"stepId": "a", "level": "info", "message": "héllo"});
    assert_eq!(next(), (json!("run"), json!("step_log"), log));
    let agent = json!({"agent_id": "7", "status": "busy"});
    assert_eq!(next(), (json!("agent"), json!("agent.status_changed"), agent));
    assert_eq!(client.next(std::time::Duration::from_millis(100)), Incoming::Nothing);
    assert!(Path::new(&in_repository("clients/python/fanwire_events.py")).is_file());
}
