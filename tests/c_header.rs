//! include/fanwire.h: compiles cleanly as C and C++, links from two units, and does what it says against a node.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{Node, PATIENCE, TempDir, cc, compile, cxx, in_repository, run, run_any, unix_address};
use fanwire::publish::wire::{HEADER_LEN, Header, Kind, encode_ack, encode_ping, encode_receipt};
use fanwire::receipt::Reach;
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
        assert_eq!(run(Command::new(&program).arg(address).arg("cpp"), PATIENCE), "1 1\n");
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

/// The node is a played one, that keeps receipts to itself, repeats one, and sends one that nobody asked for.
#[test]
fn closing_tells_of_receipts_that_have_not_come() {
    let dir = TempDir::new();
    let (source, program) = (dir.path().join("receipts.c"), dir.path().join("receipts"));
    let text = r#"#include "fanwire.h"
int main(int count, char **arguments) {
    fanwire_publisher publisher;
    fanwire_event event = fanwire_event_text("t", "e", "1");
    fanwire_answer answer;
    int receipts = 0, i;
    if (count != 2)
        return 2;
    if (fanwire_open(&publisher, arguments[1], NULL) != FANWIRE_OK)
        return 3;
    event.flags = FANWIRE_ACK | FANWIRE_RECEIPT;
    for (i = 0; i < 3; i++)
        (void)fanwire_publish(&publisher, &event);
    printf("%d ", fanwire_wait_ack(&publisher, 3, 20000, NULL));
    printf("%d ", fanwire_close(&publisher, 20000));
    while (fanwire_poll(&publisher, 0, &answer) == FANWIRE_OK)
        receipts += answer.kind == FANWIRE_ANSWER_RECEIPT && answer.receipt.matched == 7;
    printf("%d %d %s", receipts, fanwire_wait_receipt(&publisher, 2, -1, NULL), fanwire_error(&publisher));
    return 0;
}
"#;
    fs::write(&source, text).unwrap();
    compile(&cc(), "c99", &[&source], &program);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let node = thread::spawn(move || {
        for told in [&[1, 1, 9][..], &[3, 2, 1]] {
            let mut stream = listener.accept().unwrap().0;
            let mut answers = Vec::new();
            let mut header = [0; HEADER_LEN];
            while stream.read_exact(&mut header).is_ok() {
                let Header { length, kind, sequence, .. } = Header::parse(&header);
                let mut body = vec![0; length as usize];
                stream.read_exact(&mut body).unwrap();
                if Kind::from_byte(kind) == Some(Kind::Ping) {
                    encode_ping(Kind::Pong, sequence, &body, &mut answers);
                } else {
                    encode_ack(sequence, sequence, &mut answers);
                }
                stream.write_all(&std::mem::take(&mut answers)).unwrap();
            }
            for sequence in told {
                encode_receipt(*sequence, Reach { matched: 7, ..Reach::default() }, &mut answers);
            }
            stream.write_all(&answers).unwrap();
        }
    });
    let exercise = || run(Command::new(&program).arg(&address), PATIENCE);
    // FANWIRE_NO_RECEIPT, but the one that came can be read; the others never come, and it says so without waiting.
    assert_eq!(exercise(), "0 7 1 -1 2 receipts have not come");
    assert_eq!(exercise(), "0 0 3 5 event 2 waits for no receipt");
    node.join().unwrap();
}

/// Enough for a program that does all there is to do, on a busy machine.
const EXERCISE: Duration = Duration::from_secs(120);

/// The program checks every answer itself; here is what must have reached the subscribers.
fn exercise(program: &Path, node: &Node, address: &OsStr, topic: &str) {
    let (mut client, mut second) = (node.websocket(), node.websocket());
    client.subscribe(&[topic]);
    let too = format!("{topic}-too");
    second.subscribe(&[&too]);
    let heard = format!("{topic}-receipts");
    // They read along: what is written to them does not wait.
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let mut receiver = node.websocket();
            receiver.subscribe(&[&heard]);
            thread::spawn(move || {
                let texts: Vec<_> = (0..1101).map(|_| receiver.next_text(EXERCISE)).collect();
                (receiver, texts)
            })
        })
        .collect();
    let mut command = Command::new(program);
    run(command.arg(address).arg(topic).arg(node.pid().to_string()), EXERCISE);

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
    let many = (0..1000).map(|n: u32| ("many", n));
    let again = (1..=100).map(|n: u32| ("again", n));
    let expected: Vec<(&str, u32)> = [("one", 1)].into_iter().chain(many).chain(again).collect();
    let mut clients = vec![client, second];
    for receiver in receivers {
        let (receiver, texts) = receiver.join().unwrap();
        clients.push(receiver);
        for (text, (name, data)) in texts.iter().zip(&expected) {
            assert_eq!((event(text).event, event(text).data.get()), (*name, &*data.to_string()));
        }
    }
    // Nothing that was refused, or sent again: what comes next is what this client is sent next.
    for client in &mut clients {
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
