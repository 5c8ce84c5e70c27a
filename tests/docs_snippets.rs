//! The programs of the documents for clients run as they stand, against a node with the settings that stand beside
//! them. Only addresses are put in.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{
    Dialogue, Node, PATIENCE, TempDir, fanwire, http, in_repository, node_script, nodejs, python_script, run,
    tool, wait_until,
};
use fanwire::config::TABLES;
use serde_json::{Value, json};

const PATHS: &str = "docs/path-streams.md";
const EVENT_STREAMS: &str = "docs/server-sent-events.md";
const FROM_WS: &str = "docs/coming-from-ws.md";
const FROM_GO: &str = "docs/coming-from-a-go-hub.md";

/// A browser on a busy machine.
const BROWSER_PATIENCE: Duration = Duration::from_secs(90);

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a document in `language` below a heading, to its end. Empty lines are kept.
fn blocks(path: &str, heading: &str, language: &str) -> Vec<String> {
    let document = read(path);
    let mut after = document.split_once(&format!("\n{heading}\n")).map(|(_, after)| after.lines());
    let lines = after.as_mut().unwrap_or_else(|| panic!("{path} has no {heading:?}"));
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let text: String =
                lines.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            found.extend((of == language).then_some(text));
        }
    }
    assert!(!found.is_empty(), "{path} has nothing in {language} below {heading:?}");
    found
}

/// The first of them.
fn block(path: &str, heading: &str, language: &str) -> String {
    blocks(path, heading, language).swap_remove(0)
}

/// A node with the settings of a document.
fn node_with(settings: &str) -> Node {
    let dir = TempDir::new();
    fs::write(dir.path().join("fanwire.toml"), settings).unwrap();
    Node::start_in(dir, &["--config", "fanwire.toml"])
}

/// A snippet as it would stand for this address.
fn at(snippet: &str, address: &str) -> String {
    assert!(snippet.contains("127.0.0.1:8080"), "it names no node:\n{snippet}");
    snippet.replace("127.0.0.1:8080", address)
}

/// Node.js with a snippet for browsers or for Node.js; `ws` is its `WebSocket` where it has none.
fn javascript(dir: &TempDir, name: &str, snippet: &str) -> Command {
    let packages = in_repository("tests/e2e/node_modules");
    assert!(packages.join("ws").is_dir(), "{} is missing: run `make install-deps`", packages.display());
    let file = dir.path().join(name);
    fs::write(&file, format!("globalThis.WebSocket ??= require('ws');\n{{\n{snippet}}}\n")).unwrap();
    let mut command = Command::new(nodejs());
    command.arg(file).env("NODE_PATH", packages);
    command
}

fn shell(dir: &TempDir, snippet: &str) -> Command {
    tool("curl");
    let file = dir.path().join("snippet.sh");
    fs::write(&file, snippet).unwrap();
    let mut command = Command::new(tool("sh"));
    command.arg("-e").arg(file);
    command
}

fn wait_clients(node: &Node, count: u64) {
    node.wait_stats("the clients", |stats| stats["connections"] == count);
}

/// The text with every timestamp made `T`.
fn without_times(text: &str) -> String {
    const MEMBER: &str = r#""timestamp":""#;
    let mut pieces = text.split(MEMBER);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |all, piece| {
        let end = piece.find('"').unwrap_or_else(|| panic!("a timestamp does not end in {piece:?}"));
        all + MEMBER + "T" + &piece[end..]
    })
}

/// Every example of settings in the documents is one that a node would start with.
#[test]
fn every_example_of_settings_is_accepted() {
    let mut checked = 0;
    let pages = fs::read_dir(in_repository("docs")).unwrap().map(|entry| entry.unwrap().path());
    for path in pages.chain([in_repository("README.md")]) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for settings in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !settings.contains("[[stream]]") {
                continue;
            }
            let dir = TempDir::new();
            fs::write(dir.path().join("fanwire.toml"), settings).unwrap();
            let mut check = fanwire();
            run(check.current_dir(dir.path()).args(["check", "--config", "fanwire.toml"]), PATIENCE);
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked}");
}

/// The page on path streams has the table of `docs/operations.md`, but for what the keys do.
#[test]
fn both_tables_of_a_streams_settings_say_the_same() {
    let (one, other) = (read(PATHS), read("docs/operations.md"));
    let other = other.split_once("\n### `[[stream]]`\n").expect("a section").1;
    let cells = |document: &str, key: &str| -> Vec<String> {
        let start = format!("| `{key}` |");
        let row = document.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("there is no row of {key}"));
        let cells: Vec<&str> = row.split(" | ").collect();
        [cells[1], cells[2], cells[4]].map(str::to_owned).to_vec()
    };
    let stream = TABLES.iter().find(|table| table.name == "stream").expect("the table of streams");
    for key in (stream.keys)() {
        assert_eq!(cells(&one, key.name), cells(other, key.name), "{}", key.name);
    }
}

#[test]
fn every_refusal_of_a_template_is_as_documented() {
    let document = read(PATHS);
    let table = document.split_once("| refused | because |").expect("the table").1;
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 8, "{rows:#?}");
    for row in rows {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        let (refused, because) = (cells.next().unwrap(), cells.next().unwrap());
        let codes: Vec<&str> = refused.split('`').skip(1).step_by(2).collect();
        let (mut path, mut topic) = (r#"path = "/runs/{runId}""#, r#"topic = "run:{runId}""#);
        let mut envelope = r#"{"payload":{data}}"#;
        let mut earlier = "";
        match codes.first() {
            None => earlier = "[[stream]]\npath = \"/runs/{id}\"\ntopic = \"{id}\"\nenvelope = '{data}'\n",
            Some(code) if code.starts_with("path = ") => path = code,
            Some(code) if code.starts_with("topic = ") => topic = code,
            Some(code) => envelope = code,
        }
        if codes.len() > 1 {
            envelope = r#"{"runId":"{runId}"}"#;
        }
        let dir = TempDir::new();
        let settings = format!("{earlier}[[stream]]\n{path}\n{topic}\nenvelope = '{envelope}'\n");
        fs::write(dir.path().join("fanwire.toml"), &settings).unwrap();
        let mut check = fanwire();
        check.current_dir(dir.path()).args(["check", "--config", "fanwire.toml"]);
        let (status, _, stderr) = common::run_any(&mut check, PATIENCE);
        assert!(!status.success(), "{row} is accepted\n{settings}");
        // What stands in backticks there is quoted, the rest is said in other words.
        for words in because.split('`').skip(1).step_by(2).filter(|words| words.contains(' ')) {
            assert!(stderr.contains(words), "{row}\n{stderr}");
        }
    }
}

#[test]
fn clients_of_a_path_stream_run() {
    let node = node_with(&block(PATHS, "## Quick start", "toml"));
    let address = node.http_addr().to_string();
    let dir = TempDir::new();

    let python = dir.path().join("client.py");
    fs::write(&python, at(&block(PATHS, "### Python", "python"), &address)).unwrap();
    let mut python = Dialogue::start(&mut python_script(python.to_str().unwrap()));
    let browser = at(&block(PATHS, "### Browser", "js"), &address);
    let mut browser = Dialogue::start(&mut javascript(&dir, "browser.js", &browser));
    wait_clients(&node, 2);

    node.publish(&["run:42"], "step_log", &json!({"level": "info"}));
    node.publish(&["run:43"], "step_log", &json!({"level": "of another run"}));
    node.publish(&["run:42"], "step_complete", &json!({"status": "success"}));
    assert_eq!(python.next_line().unwrap(), "step_log {'level': 'info'}");
    assert_eq!(python.next_line().unwrap(), "step_complete {'status': 'success'}");
    assert_eq!(browser.next_line().unwrap(), "[step_log] { level: 'info' }");
    assert_eq!(browser.next_line().unwrap(), "[step_complete] { status: 'success' }");
}

#[test]
fn the_quick_start_of_path_streams_shows_what_it_says() {
    let node = node_with(&block(PATHS, "## Quick start", "toml"));
    let mut client =
        common::WebSocket::connect(node.http_addr(), "/api/v2/workflows/runs/42/stream?batch=ndjson");
    publish_with(&node, &blocks(PATHS, "## Quick start", "sh")[2]);
    let shown = block(PATHS, "## Quick start", "json");
    assert_eq!(client.next_text(PATIENCE), shown.trim_end());
}

#[test]
fn the_readmes_tour_shows_what_it_says() {
    const README: &str = "README.md";
    let part = "## Three ways to listen";
    let node = node_with(&block(README, part, "toml"));
    let address = node.http_addr().to_string();
    let dir = TempDir::new();
    let mut path = common::WebSocket::connect(node.http_addr(), "/runs/42/stream");
    publish_with(&node, &blocks(README, part, "sh")[1]);
    assert_eq!(path.next_text(PATIENCE), block(README, part, "json").trim_end());

    let mut json =
        Dialogue::start(&mut javascript(&dir, "json.js", &at(&block(README, part, "js"), &address)));
    let acknowledged = json.next_line().unwrap();
    assert!(acknowledged.contains("subscription-ack"), "{acknowledged}");
    publish_with(&node, &blocks(README, "## Two minutes", "sh")[1]);
    let shown = block(README, part, "js").lines().last().unwrap().replace("// ", "");
    assert_eq!(without_times(&json.next_line().unwrap()), without_times(&shown));
}

#[test]
fn an_event_of_several_topics_reaches_its_scopes() {
    const JSON_WEBSOCKET: &str = "docs/json-websocket.md";
    let node = Node::start(&[]);
    let dir = TempDir::new();
    let queries = ["runId=42", "projectId=p", "runId=42&onlyCategories=stage", "topics=stage"];
    let [run, project, stage_of_run, stage] = queries.map(|query| {
        let mut client = common::WebSocket::connect(node.http_addr(), &format!("/ws?{query}"));
        assert_eq!(client.next_json(PATIENCE)["type"], "subscription-ack");
        client
    });
    let command = at(&block(JSON_WEBSOCKET, "## Scopes", "sh"), &node.http_addr().to_string());
    common::run(&mut shell(&dir, &command), PATIENCE);
    let shown = block(JSON_WEBSOCKET, "## Scopes", "json");
    for mut client in [run, project, stage_of_run, stage] {
        assert_eq!(without_times(&client.next_text(PATIENCE)), without_times(shown.trim_end()));
    }
}

#[test]
fn curl_shows_the_bytes_of_an_event_stream() {
    let node = Node::start(&[]);
    let address = node.http_addr().to_string();
    let dir = TempDir::new();
    let quick = "## Quick start";
    let command = at(&block(EVENT_STREAMS, quick, "sh"), &address).replace("curl -N", "exec curl -siN");
    let mut curl = Dialogue::start(&mut shell(&dir, &command));
    wait_clients(&node, 1);
    publish_with(&node, &blocks(EVENT_STREAMS, quick, "sh")[1]);

    // Head and stream are in one block, the stream alone in another.
    let (shown, whole) = (block(EVENT_STREAMS, quick, "text"), block(EVENT_STREAMS, "## The bytes", "text"));
    assert!(whole.ends_with(&shown), "{whole}");
    for expected in without_times(&whole).lines() {
        assert_eq!(without_times(&curl.next_line().expect("curl has ended")), expected);
    }

    // A client that wants to go on is told that it may have missed something.
    let command = command.replace("exec curl", "exec curl -H 'Last-Event-ID: 17'");
    let mut curl = Dialogue::start(&mut shell(&dir, &command));
    let [goes_on, cannot, ..] = &blocks(EVENT_STREAMS, "## Last-Event-ID", "text")[..] else {
        panic!("two streams")
    };
    curl.wait_line("the end of the head", str::is_empty);
    for expected in without_times(cannot).lines() {
        assert_eq!(without_times(&curl.next_line().expect("curl has ended")), expected);
    }

    // One of a topic with history goes on.
    let node = Node::start_with_file("[[topic]]\nprefix = \"run:\"\nhistory = {}\n", &[]);
    (0..17).for_each(|n| node.publish(&["run:42"], "step_log", &json!(n)));
    let (_, _, topic) = http(node.http_addr(), "GET", "/api/topics/run%3A42", &[], b"");
    let topic: Value = serde_json::from_slice(&topic).unwrap();
    let command = at(&block(EVENT_STREAMS, quick, "sh"), &node.http_addr().to_string());
    let command = command.replace("curl -N", "exec curl -siN");
    let mut curl = Dialogue::start(&mut shell(&dir, &command));
    wait_clients(&node, 1);
    publish_with(&node, &blocks(EVENT_STREAMS, quick, "sh")[1]);
    curl.wait_line("the end of the head", str::is_empty);
    let goes_on = goes_on.replace("5f8f4aaf410960d8", topic["epoch"].as_str().unwrap());
    for expected in without_times(&goes_on).lines() {
        assert_eq!(without_times(&curl.next_line().expect("curl has ended")), expected);
    }
}

#[test]
fn a_preflight_is_answered_as_documented() {
    let node = Node::start(&[]);
    let dir = TempDir::new();
    let heading = "## Pages of other sites";
    let command = at(&block(EVENT_STREAMS, heading, "sh"), &node.http_addr().to_string());
    let answer = run(&mut shell(&dir, &command.replace("curl -i", "curl -si")), PATIENCE);
    assert_eq!(answer.replace("\r\n", "\n"), block(EVENT_STREAMS, heading, "text"));
}

#[test]
fn fetch_reads_an_event_stream() {
    let node = Node::start(&[]);
    let dir = TempDir::new();
    let snippet = at(&block(EVENT_STREAMS, "### fetch", "js"), &node.http_addr().to_string());
    let mut client = Dialogue::start(&mut javascript(&dir, "fetch.js", &snippet));
    wait_clients(&node, 1);
    // Names that nobody listens to by name, and data of several lines.
    node.publish(&["run:42"], "step_log", &json!({"line": "hello"}));
    let body = b"{\"topic\":\"run:42\",\"event\":\"other\",\"data\":{\n\"line\":\r\n\"two\"}}";
    assert_eq!(http(node.http_addr(), "POST", "/api/publish", &[], body).0, 200);
    assert_eq!(client.next_line().unwrap(), r#"step_log {"line":"hello"}"#);
    assert_eq!(client.next_line().unwrap(), r#"other {"line":"two"}"#);
}

#[test]
fn a_browser_listens_to_an_event_stream_of_another_site() {
    let node = Node::start(&[]);
    let dir = TempDir::new();
    let file = dir.path().join("snippet.js");
    fs::write(&file, at(&block(EVENT_STREAMS, "### EventSource", "js"), &node.http_addr().to_string()))
        .unwrap();
    let mut browser = Dialogue::start(node_script("run_snippet.mjs").arg(&file));
    let connected = wait_until(BROWSER_PATIENCE, || (node.stats()["connections"] == 1).then_some(()));
    connected.expect("the browser has not come");
    assert_eq!(browser.next_line().unwrap(), "listening");
    node.publish(&["run:42"], "step_log", &json!("hello"));
    assert_eq!(browser.next_line().unwrap(), "run:42 hello");
    assert!(browser.wait_exit().success());
}

/// A server before, a node and what is left of the server after: the same client gets the same of both.
#[test]
fn coming_from_ws() {
    let before = blocks(FROM_WS, "### Before", "js");
    let (server, client) = (&before[0], &before[1]);
    let dir = TempDir::new();
    let client = |address: &str| javascript(&dir, "client.js", &at(client, address));

    let (port, address) = free_address();
    let moved = server.replace("8080, '127.0.0.1'", &format!("{port}, '127.0.0.1'"));
    assert_ne!(&moved, server, "the server listens elsewhere");
    let expected = "scheduler schedule-executed { schedule: 'nightly' }";
    assert_eq!(listen_to(&mut javascript(&dir, "server.js", &moved), &address, client), expected);

    let node = Node::start(&[]);
    let address = node.http_addr().to_string();
    let mut service = javascript(&dir, "service.js", &at(&block(FROM_WS, "### After", "js"), &address));
    assert_eq!(listen_to(&mut service, &address, client), expected);
}

#[test]
fn coming_from_ws_with_a_shape_of_its_own() {
    let before = blocks(FROM_WS, "### Before: a server with its shape", "js");
    let (server, client) = (&before[0], &before[1]);
    let dir = TempDir::new();
    let client = |address: &str| javascript(&dir, "client.js", &at(client, address));

    let (port, address) = free_address();
    let moved = server.replace("port: 8080", &format!("port: {port}"));
    assert_ne!(&moved, server, "the server listens elsewhere");
    let expected = "price { of: 'tea', is: 4 }";
    assert_eq!(listen_to(&mut javascript(&dir, "server.js", &moved), &address, client), expected);

    let after = "### After: the shape in the settings";
    let node = node_with(&block(FROM_WS, after, "toml"));
    let address = node.http_addr().to_string();
    let mut service = javascript(&dir, "service.js", &at(&block(FROM_WS, after, "js"), &address));
    assert_eq!(listen_to(&mut service, &address, client), expected);
}

#[test]
fn many_events_go_out_in_order() {
    let node = Node::start(&[]);
    let dir = TempDir::new();
    let mut client = node.websocket();
    client.subscribe(&["run:42"]);
    let snippet = at(&block(FROM_WS, "## Many events", "js"), &node.http_addr().to_string());
    run(&mut javascript(&dir, "many.js", &snippet), PATIENCE);
    for n in 1..=3 {
        let message = client.next_json(PATIENCE);
        assert_eq!((&message["category"], &message["data"]), (&json!("step"), &json!({ "n": n })));
    }
}

/// The Go programs need Go, which the tests do not: here the settings and the client are tried.
#[test]
fn coming_from_a_go_hub() {
    let node = node_with(&block(FROM_GO, "## After", "toml"));
    let address = node.http_addr().to_string();
    let dir = TempDir::new();
    let client = at(&block(FROM_GO, "## The clients", "js"), &address);
    let mut client = Dialogue::start(&mut javascript(&dir, "client.js", &client));
    wait_clients(&node, 1);
    // What `Broadcast` publishes.
    let event: Value = json!({"topic": "run:42", "event": "step_log", "data": {"level": "info"}});
    assert_eq!(http(node.http_addr(), "POST", "/api/publish", &[], event.to_string().as_bytes()).0, 200);
    assert_eq!(client.next_line().unwrap(), "[step_log] { level: 'info' }");
}

/// Runs a server and a client of it until the client says something.
fn listen_to(server: &mut Command, address: &str, client: impl Fn(&str) -> Command) -> String {
    let _server = Dialogue::start(server);
    let is_up = || std::net::TcpStream::connect(address).ok();
    wait_until(PATIENCE, is_up).unwrap_or_else(|| panic!("nobody listens at {address}"));
    Dialogue::start(&mut client(address)).next_line().expect("the client has ended")
}

/// A port that was free a moment ago.
fn free_address() -> (u16, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, format!("127.0.0.1:{port}"))
}

/// Runs a `fanwire pub` of a document against this node.
fn publish_with(node: &Node, snippet: &str) {
    let words = snippet.trim_end().strip_prefix("fanwire pub ").unwrap_or_else(|| panic!("{snippet}"));
    let (names, data) = words.split_once(" '").expect("data in quotes");
    let mut publish = fanwire();
    publish.arg("pub").args(["--to", &node.publish_addr().to_string()]);
    run(publish.args(names.split(' ')).arg(data.trim_end_matches('\'')), PATIENCE);
}
