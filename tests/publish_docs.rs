//! Every example in docs/publish-socket.md runs as it stands, and its events arrive.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Node, PATIENCE, TempDir, WebSocket, cc, compile, in_repository, nodejs, python3, run, tool};
use serde_json::{Value, json};

const DOCUMENT: &str = "docs/publish-socket.md";

/// A fenced block: language and text.
struct Example {
    language: String,
    text: String,
}

fn examples(document: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut open: Option<Example> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => {
                open = Some(Example { language: language.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(example)) => examples.push(example),
            (None, Some(mut example)) => {
                example.text += line;
                example.text.push('\n');
                open = Some(example);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of {DOCUMENT} is not closed");
    examples
}

fn command(example: &Example, dir: &TempDir) -> Command {
    let file = |extension: &str| {
        let path = dir.path().join("example").with_extension(extension);
        fs::write(&path, &example.text).unwrap();
        path
    };
    match example.language.as_str() {
        "c" => {
            let program = dir.path().join("example");
            compile(&cc(), "c99", &[&file("c")], &program);
            Command::new(program)
        }
        "python" => {
            let mut command = Command::new(python3());
            command.arg(file("py"));
            command
        }
        "js" => {
            let mut command = Command::new(nodejs());
            command.arg(file("js"));
            command
        }
        "sh" => {
            tool("curl");
            let mut command = Command::new(tool("sh"));
            command.arg("-e").arg(file("sh"));
            command
        }
        other => panic!("{DOCUMENT} has an example in {other:?}, which this test cannot run"),
    }
}

/// What the next message must be: an event of `run:42`, with this timestamp or, without one, a fresh one.
fn expect(client: &mut WebSocket, event: &str, data: Value, timestamp: Option<&str>) {
    let message = client.next_json(PATIENCE);
    let stamped = message["timestamp"].as_str().unwrap_or_else(|| panic!("no timestamp in {message}"));
    assert_eq!(
        message,
        json!({"type": "event", "event": event, "category": "run:42", "data": data, "timestamp": stamped})
    );
    match timestamp {
        Some(timestamp) => assert_eq!(stamped, timestamp),
        None => {
            let stamped: jiff::Timestamp = stamped.parse().unwrap();
            let age = jiff::Timestamp::now().duration_since(stamped);
            assert!(age.unsigned_abs() < Duration::from_secs(60), "stamped {stamped}");
        }
    }
}

#[test]
fn every_example_runs_and_its_events_arrive() {
    let given = Some("2024-01-15T10:15:00.000Z");
    let log = |line: &str| ("step_log", json!({ "line": line }), None);
    let done = |by: &str| ("step_done", json!({"ok": true, "by": by}), given);
    let expected = [
        ("c", vec![log("hello from C"), done("C")]),
        ("python", vec![log("hello from Python"), done("Python")]),
        ("js", vec![log("hello from Node.js"), done("Node.js")]),
        ("sh", vec![log("hello from curl")]),
        ("sh", vec![log("one of two"), done("curl")]),
    ];
    let examples = examples(&fs::read_to_string(in_repository(DOCUMENT)).unwrap());
    let languages: Vec<_> = examples.iter().map(|example| example.language.as_str()).collect();
    assert_eq!(languages, expected.iter().map(|(language, _)| *language).collect::<Vec<_>>());

    let node = Node::start(&[]);
    // One client has both topics and gets events of both once; the other has only the second.
    let (mut both, mut second) = (node.websocket(), node.websocket());
    both.subscribe(&["run:42", "project:7"]);
    second.subscribe(&["project:7"]);
    for (example, (language, events)) in examples.iter().zip(expected) {
        let dir = TempDir::new();
        let mut command = command(example, &dir);
        command.env("FANWIRE_PUBLISH", node.publish_addr().to_string());
        command.env("FANWIRE_HTTP", format!("http://{}", node.http_addr()));
        let stdout = run(&mut command, PATIENCE);
        if language == "sh" {
            assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), json!({"accepted": events.len()}));
        }
        for (event, data, timestamp) in events {
            if event == "step_done" {
                expect(&mut second, event, data.clone(), timestamp);
            }
            expect(&mut both, event, data, timestamp);
        }
    }
}

#[test]
fn an_example_fails_where_the_node_refuses() {
    let examples = examples(&fs::read_to_string(in_repository(DOCUMENT)).unwrap());
    let node = Node::start(&["--publish-token", "secret"]);
    for example in &examples {
        let dir = TempDir::new();
        let mut command = command(example, &dir);
        command.env("FANWIRE_PUBLISH", node.publish_addr().to_string());
        command.env("FANWIRE_HTTP", format!("http://{}", node.http_addr()));
        let (status, stdout, stderr) = common::run_any(&mut command, PATIENCE);
        assert!(!status.success(), "{} does not notice: {stdout}{stderr}", example.language);
        assert!(!stderr.is_empty(), "{} does not say why it failed", example.language);
    }
}
