//! include/fanwire.h: compiles cleanly as C and C++, links from two units, and does what it says against a node.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Node, PATIENCE, TempDir, cc, compile, cxx, in_repository, run, run_any, unix_address};
use serde::Deserialize;
use serde_json::value::RawValue;

/// An event as clients receive it. `data` stays as it was sent: numbers in it may be larger than any type holds.
#[derive(Deserialize)]
struct Event<'a> {
    event: &'a str,
    category: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    timestamp: &'a str,
}

fn event(text: &str) -> Event<'_> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn compiles_in_every_standard() {
    let dir = TempDir::new();
    let program = dir.path().join("program");
    let source = dir.path().join("source.c");
    fs::write(&source, "#include \"fanwire.h\"\n#include \"fanwire.h\"\nint main(void) { return 0; }\n")
        .unwrap();
    for standard in ["c99", "c11", "gnu11"] {
        compile(&cc(), standard, &[&source], &program);
    }
    let source_cpp = source.with_extension("cpp");
    fs::rename(&source, &source_cpp).unwrap();
    for standard in ["c++11", "c++17"] {
        compile(&cxx(), standard, &[&source_cpp], &program);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn says_what_to_do_where_strict_c_hides_posix() {
    let dir = TempDir::new();
    let source = dir.path().join("late.c");
    fs::write(&source, "#include <stdio.h>\n#include \"fanwire.h\"\nint main(void) { return 0; }\n").unwrap();
    let compile = |define: &[&str]| {
        let mut command = Command::new(cc());
        command
            .args(["-std=c99", "-fsyntax-only", "-I"])
            .arg(in_repository("include"))
            .args(define)
            .arg(&source);
        run_any(&mut command, PATIENCE)
    };
    let (status, _, stderr) = compile(&[]);
    // C libraries that hide nothing have nothing to say.
    assert!(status.success() || stderr.contains("define _POSIX_C_SOURCE as 200809L"), "{stderr}");
    assert!(compile(&["-D_POSIX_C_SOURCE=200809L"]).0.success());
}

#[test]
fn two_units_of_one_program_may_include_it() {
    let node = Node::start_with_unix(&[]);
    let mut client = node.websocket();
    client.subscribe(&["two-units"]);
    let dir = TempDir::new();
    let program = dir.path().join("two_units");
    let units = [in_repository("tests/c/two_units_a.c"), in_repository("tests/c/two_units_b.c")];
    compile(&cc(), "c99", &[&units[0], &units[1]], &program);
    for address in [node.publish_addr().to_string().into(), unix_address(node.unix_path())] {
        run(Command::new(&program).arg(address).arg("two-units"), PATIENCE);
        let text = client.next_text(PATIENCE);
        assert_eq!((event(&text).event, event(&text).data.get()), ("hello", "\"from another unit\""));
    }
}

#[test]
fn publishes_from_cpp() {
    let node = Node::start_with_unix(&[]);
    let mut client = node.websocket();
    client.subscribe(&["cpp"]);
    let dir = TempDir::new();
    let program = dir.path().join("publish");
    compile(&cxx(), "c++11", &[&in_repository("tests/c/publish.cpp")], &program);
    for address in [node.publish_addr().to_string().into(), unix_address(node.unix_path())] {
        run(Command::new(&program).arg(address).arg("cpp"), PATIENCE);
        let text = client.next_text(PATIENCE);
        assert_eq!((event(&text).event, event(&text).data.get()), ("hello", r#"{"from":"C++"}"#));
    }
}

#[test]
fn a_token_opens_the_socket_and_a_wrong_one_does_not() {
    let node = Node::start(&["--publish-token", "secret"]);
    let dir = TempDir::new();
    let (source, program) = (dir.path().join("token.c"), dir.path().join("token"));
    let text = r#"#include "fanwire.h"
int main(int count, char **arguments) {
    fanwire_publisher publisher;
    fanwire_options options = fanwire_default_options();
    fanwire_event event = fanwire_event_text("t", "e", "1");
    fanwire_answer answer;
    int result;
    if (count != 3)
        return 2;
    options.token = arguments[2];
    event.flags = FANWIRE_ACK;
    if (fanwire_open(&publisher, arguments[1], &options) != FANWIRE_OK)
        return 3;
    (void)fanwire_publish(&publisher, &event);
    result = fanwire_poll(&publisher, 20000, &answer);
    printf("%d %d %u", result, answer.kind, (unsigned)answer.code);
    (void)fanwire_close(&publisher, 20000);
    return 0;
}
"#;
    fs::write(&source, text).unwrap();
    compile(&cc(), "c99", &[&source], &program);
    let address = node.publish_addr().to_string();
    let with = |token| run(Command::new(&program).arg(&address).arg(token), PATIENCE);
    assert_eq!(with("secret"), "0 3 0");
    assert_eq!(with("guess"), "0 4 3");
    assert_eq!(with(""), "0 4 3");
}

/// The program checks every answer itself; here is what must have reached the subscribers.
fn exercise(program: &Path, node: &Node, address: &OsStr, topic: &str) {
    let (mut client, mut second) = (node.websocket(), node.websocket());
    client.subscribe(&[topic]);
    let too = format!("{topic}-too");
    second.subscribe(&[&too]);
    let mut command = Command::new(program);
    run(command.arg(address).arg(topic).arg(node.pid().to_string()), Duration::from_secs(120));

    for client in [&mut client, &mut second] {
        let text = client.next_text(PATIENCE);
        let plain = event(&text);
        assert_eq!((plain.event, plain.category), ("plain", topic));
        assert_eq!(plain.data.get(), "{\"text\" : \"grüß\", \"big\": 1e400}");
        assert_eq!(plain.timestamp, "2024-01-15T10:15:00.123Z");
    }
    for number in 0..100 {
        let text = client.next_text(PATIENCE);
        let batch = event(&text);
        assert_eq!((batch.event, batch.category, batch.data.get()), ("batch", topic, &*number.to_string()));
    }
    let text = client.next_text(PATIENCE);
    assert_eq!((event(&text).event, event(&text).data.get()), ("after-refusals", "null"));
    // Nothing that was refused: what comes next is what this client is sent next.
    for client in [&mut client, &mut second] {
        client.send_text(r#"{"type":"ping"}"#);
        assert_eq!(client.next_json(PATIENCE)["type"], "pong");
    }
}

#[test]
fn everything_works_over_tcp_and_unix() {
    let dir = TempDir::new();
    let as_c = dir.path().join("exercise");
    compile(&cc(), "c99", &[&in_repository("tests/c/exercise.c")], &as_c);
    let node = Node::start_with_unix(&[]);
    exercise(&as_c, &node, node.publish_addr().to_string().as_ref(), "over-tcp");
    exercise(&as_c, &node, &unix_address(node.unix_path()), "over-unix");
}
