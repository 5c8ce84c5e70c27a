//! The command line from outside: what each command prints, and how it ends. Mostly no node is needed: `pub` and
//! `sub` talk to counterparts that the tests play themselves.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use common::{TempDir, fanwire, in_repository};
use fanwire::error::{ErrorCode, Refusal};
use fanwire::publish::wire::{self, Header, Kind, Publish};
use fanwire::receipt::Reach;
use serde_json::{Value, json};
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tungstenite::{Message, WebSocket};

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("cannot run fanwire")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs with `input` as standard input.
fn run_with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot run fanwire");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = thread::spawn(move || {
        // It may end before it has read everything.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

// check and serve ------------------------------------------------------------------------------------------------

#[test]
fn check_shows_the_settings_with_where_each_came_from() {
    let dir = TempDir::new();
    let path = dir.path().join("fanwire.toml");
    fs::write(&path, "# mine\nmax_clients = 7\nqueue_events = 8\npublish_token = \"hunter2\"\n").unwrap();
    let output = run(fanwire()
        .env("FANWIRE_QUEUE_EVENTS", "9")
        .args(["check", "--shards", "2", "--config"])
        .arg(&path));
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("max_clients = 7 ").ends_with(&format!("# {}:2", path.display())), "{text}");
    assert!(line("queue_events = 9 ").ends_with("# FANWIRE_QUEUE_EVENTS"), "{text}");
    assert!(line("shards = 2 ").ends_with("# --shards"), "{text}");
    assert!(line("listen = [\"127.0.0.1:8080\"] ").ends_with("# default"), "{text}");
    assert!(text.contains("# publish_token is set, and not shown") && !text.contains("hunter2"), "{text}");

    // Tables come last: what stands below the header of one belongs to it.
    let tables = "catalog = 'mine.toml'\n[[stream]]\npath = '/runs/{run}'\ntopic = 'run:{run}'\n\
                  envelope = '{\"data\":{data}}'\n\n[[guard]]\nset = 'us-health'\n\
                  [[topic]]\nprefix = 'run:'\npolicies = 'replay'\n[topic.history]\nage = '1h'\n";
    fs::write(&path, tables).unwrap();
    fs::copy(in_repository("src/catalog/shipped/workflow.toml"), dir.path().join("mine.toml")).unwrap();
    let output = run(fanwire().args(["check", "--catalog-strict", "--config"]).arg(&path));
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    let shown: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("[[")).collect();
    let place = path.display();
    let expected = [
        ("[[stream]]", format!("{place}:2")),
        ("path = \"/runs/{run}\"", format!("{place}:3")),
        ("topic = \"run:{run}\"", format!("{place}:4")),
        ("envelope = '{\"data\":{data}}'", format!("{place}:5")),
        ("# queue_events is not set", "default".to_owned()),
        ("# write_timeout is not set", "default".to_owned()),
        ("heartbeat_interval = \"54s\"", "default".to_owned()),
        ("heartbeat_timeout = \"60s\"", "default".to_owned()),
        ("max_message_bytes = 512", "default".to_owned()),
        ("", String::new()),
        ("[[guard]]", format!("{place}:7")),
        ("# name is not set", "default".to_owned()),
        ("# pattern is not set", "default".to_owned()),
        ("set = \"us-health\"", format!("{place}:8")),
        ("# topics is not set", "default".to_owned()),
        ("action = \"refuse\"", "default".to_owned()),
        ("", String::new()),
        ("[[topic]]", format!("{place}:9")),
        ("prefix = \"run:\"", format!("{place}:10")),
        ("history = { events = 1000, bytes = \"8MiB\", age = \"60m\" }", format!("{place}:12")),
        ("policies = [\"replay\"]", format!("{place}:11")),
        ("# compress_above is not set", "default".to_owned()),
    ];
    let line = |(start, place): &(&str, String)| match start.is_empty() {
        true => String::new(),
        false => format!("{start:<40} # {place}"),
    };
    let (catalogs, shown) = shown.split_last().unwrap();
    assert_eq!(*catalogs, "# catalog workflow: 1 category, 4 events");
    assert_eq!(shown, expected.iter().map(line).collect::<Vec<_>>());
    // A path in the file begins where the file is.
    let catalog = format!("catalog = [\"{}\"] ", dir.path().join("mine.toml").display());
    assert!(text.lines().any(|line| line.starts_with(&catalog) && line.ends_with(":1")), "{text}");
    assert!(text.contains("catalog_strict = true"), "{text}");

    // What it prints is a file that it takes.
    let again = dir.path().join("again.toml");
    fs::write(&again, &text).unwrap();
    let output = run(fanwire().args(["check", "--config"]).arg(&again));
    assert!(output.status.success(), "{output:?}");
    let without_places = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(without_places(&stdout(&output)), without_places(&text));
}

#[test]
fn check_names_file_and_line_of_what_is_wrong() {
    let dir = TempDir::new();
    let path = dir.path().join("bad.toml");
    let place = path.display();
    for (text, expected) in [
        ("\nmax_client = 1\n", format!("{place}:2: unknown key `max_client`; did you mean `max_clients`?\n")),
        ("max_clients = 'many'\n", format!("{place}:1: max_clients: must be a whole number, not a string\n")),
        (
            "a = 1\n\nshards = 0\n",
            format!("{place}:1: unknown key `a`\n{place}:3: shards: must be at least 1, not 0\n"),
        ),
        (
            "[[stream]]\ntopic = 't'\nenvelop = '{data}'\n\n[guard]\n",
            format!(
                "{place}:1: path: is missing; every [[stream]] needs one\n\
                 {place}:1: envelope: is missing; every [[stream]] needs one\n\
                 {place}:3: unknown key `envelop` in [[stream]]; did you mean `envelope`?\n\
                 {place}:5: guard: must be written [[guard]], with double brackets\n"
            ),
        ),
        (
            "queue_bytes = '1XB'\n",
            format!("{place}:1: queue_bytes: `1XB`: unknown unit `XB`; use B, KB, MB, GB, KiB, MiB or GiB\n"),
        ),
    ] {
        fs::write(&path, text).unwrap();
        for command in ["check", "serve"] {
            let output = run(fanwire().args([command, "--config"]).arg(&path));
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(stderr(&output), expected);
            assert!(output.stdout.is_empty());
        }
    }
    fs::write(&path, "shards = = 1").unwrap();
    let output = run(fanwire().env("FANWIRE_CONFIG", &path).arg("check"));
    assert!(stderr(&output).starts_with(&format!("{place}:1: ")), "{output:?}");
    let output = run(fanwire().args(["check", "--config", "/nowhere/at/all.toml"]));
    assert!(stderr(&output).starts_with("/nowhere/at/all.toml: No such file"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn variables_and_flags_are_held_to_the_same_rules() {
    let output = run(fanwire().env("FANWIRE_MAX_CLIENT", "5").arg("check"));
    assert_eq!(stderr(&output), "FANWIRE_MAX_CLIENT: no such setting; did you mean `FANWIRE_MAX_CLIENTS`?\n");
    let output = run(fanwire().args(["check", "--heartbeat-interval", "30"]));
    assert!(stderr(&output).starts_with("--heartbeat-interval: `30` has no unit"), "{output:?}");
    let output = run(fanwire().args(["check", "--queue-events", "-5"]));
    assert_eq!(stderr(&output), "--queue-events: must be at least 1, not -5\n");
    let output = run(fanwire().args(["check", "--max-client", "5"]));
    assert!(stderr(&output).contains("--max-clients"), "{output:?}");
}

#[test]
fn serve_refuses_to_be_open_to_others_without_a_token() {
    for (flags, address, token) in [
        (["--listen", "0.0.0.0:0"], "0.0.0.0:0", "operator_token"),
        (["--admin", "[::]:0"], "[::]:0", "operator_token"),
        (["--publish", "0.0.0.0:0"], "0.0.0.0:0", "publish_token"),
    ] {
        let output = run(fanwire().arg("serve").args(flags));
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        let place = format!("{}: ", flags[0]);
        for part in [place.as_str(), address, token, "loopback address", "--insecure"] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert!(run(fanwire().args(["check", "--listen", "0.0.0.0:0", "--insecure"])).status.success());
    let with_token =
        run(fanwire().env("FANWIRE_OPERATOR_TOKEN", "x").args(["check", "--listen", "0.0.0.0:0"]));
    assert!(with_token.status.success(), "{with_token:?}");
}

// help, completions, man -----------------------------------------------------------------------------------------

#[test]
fn help_teaches() {
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["pub", "--help"],
        &["sub", "--help"],
        &["top", "--help"],
        &["drain", "--help"],
        &["check", "--help"],
    ] {
        let output = run(fanwire().args(command));
        assert!(output.status.success());
        let text = stdout(&output);
        assert!(text.contains("Examples:\n  "), "{command:?}: {text}");
        assert!(text.contains("fanwire "), "{command:?}: {text}");
    }
    let text = stdout(&run(fanwire().args(["serve", "--help"])));
    for heading in ["Addresses:", "Access:", "Events:", "Limits:", "Timeouts:", "Logging:"] {
        assert!(text.contains(&format!("\n{heading}\n")), "{text}");
    }
    for setting in fanwire::config::SETTINGS {
        assert!(
            text.contains(&format!("{} ", setting.flag())) || text.contains(&format!("{}[", setting.flag()))
        );
    }
    let version = stdout(&run(fanwire().arg("--version")));
    assert_eq!(version, format!("fanwire {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&mut fanwire()).status.code(), Some(2));
}

#[test]
fn completions_know_the_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(fanwire().args(["completions", shell]));
        assert!(output.status.success());
        assert!(stdout(&output).contains("max-clients"), "{shell}");
    }
    assert!(!run(fanwire().args(["completions", "sh"])).status.success());
}

#[test]
fn manual_pages_render() {
    for page in [&["man"][..], &["man", "serve"], &["man", "pub"], &["man", "top"]] {
        let output = run(fanwire().args(page));
        assert!(output.status.success());
        let text = stdout(&output);
        assert!(text.contains(".TH fanwire") && text.contains(".SH NAME"), "{text}");
    }
    let output = run(fanwire().args(["man", "nothing"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no command `nothing`"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = fanwire()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot run fanwire");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

// pub ------------------------------------------------------------------------------------------------------------

/// A publish socket of one connection that checks as a node does; returns the accepted events.
fn publish_socket(token: Option<&'static str>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut reading = BufReader::new(stream.try_clone().unwrap());
        let (mut accepted, mut greeted) = (Vec::new(), token.is_none());
        while let Some((header, body)) = read_frame(&mut reading) {
            let mut out = Vec::new();
            if Kind::from_byte(header.kind) == Some(Kind::Hello) {
                greeted = token == Some(wire::Hello::decode(&body).unwrap().token);
                continue;
            }
            let decoded = if greeted {
                Publish::decode(&body, 1000)
            } else {
                Err(Refusal::new(ErrorCode::Unauthorised, "a token is needed"))
            };
            let ends = decoded.as_ref().is_err_and(|refusal| refusal.code.closes());
            match decoded {
                Ok(Publish { topics, event, key, data, timestamp_ms }) => {
                    accepted
                        .push(format!("{}|{event}|{key}|{data}|{timestamp_ms}", topics.replace('\n', ",")));
                    wire::encode_ack(header.sequence, accepted.len() as u64, &mut out);
                }
                Err(refusal) => wire::encode_error(header.sequence, &refusal, &mut out),
            }
            stream.write_all(&out).unwrap();
            if ends {
                // As a node does: what was said must arrive, although more was sent that nobody reads.
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let _ = std::io::copy(&mut reading, &mut std::io::sink());
                break;
            }
        }
        accepted
    });
    (address, thread)
}

fn read_frame(stream: &mut impl Read) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; wire::HEADER_LEN];
    stream.read_exact(&mut header).ok()?;
    let header = Header::parse(&header);
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).ok()?;
    Some((header, body))
}

#[test]
fn pub_publishes_one_event() {
    let (address, node) = publish_socket(Some("secret"));
    let output = run(fanwire()
        .env("FANWIRE_PUBLISH", format!("{address}, unix:/other"))
        .env("FANWIRE_PUBLISH_TOKEN", "secret")
        .args([
            "pub",
            "run:1",
            "log",
            "{\"a\" : 1}",
            "--topic",
            "project:2",
            "--topic",
            "all",
            "--key",
            "k",
        ]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "accepted log on run:1, project:2, all\n");
    assert_eq!(node.join().unwrap(), ["run:1,project:2,all|log|k|{\"a\" : 1}|0"]);
}

#[test]
fn pub_tells_why_it_was_refused() {
    let (address, node) = publish_socket(None);
    let output = run(fanwire().args(["pub", "t", "e", "hello", "--to", &address]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("(error 5, bad_data); text needs its quotes: '\"hello\"'"),
        "{output:?}"
    );
    assert!(node.join().unwrap().is_empty());

    let (address, node) = publish_socket(Some("secret"));
    let output = run(fanwire().args(["pub", "t", "e", "--to", &address]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a token is needed (error 3"), "{output:?}");
    assert!(node.join().unwrap().is_empty());

    let output = run(fanwire().args(["pub", "t", "e", "--to", "unix:/nowhere/at/all"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot connect to unix:/nowhere/at/all"), "{output:?}");
    assert_eq!(run(fanwire().args(["pub", "t"])).status.code(), Some(2));
}

#[test]
fn pub_reads_lines_and_passes_data_byte_for_byte() {
    let (address, node) = publish_socket(None);
    let input = "{\"topic\":\"a\",\"event\":\"e\",\"data\":{ \"n\": 1.0e+2 , \"u\":\"\\u00e9\"},\"key\":\"k\\u0031\"}\n\
                 \n\
                 {\"topics\":[\"a\",\"b\"],\"event\":\"f\",\"timestamp\":\"2024-01-15T10:15:00.000Z\"}\r\n\
                 {\"topic\":\"c\",\"event\":\"g\",\"data\":null}";
    let output = run_with_input(fanwire().args(["pub", "--to", &address]), input);
    assert!(output.status.success(), "{output:?}");
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("accepted 3 of 3 events\n", ""));
    assert_eq!(
        node.join().unwrap(),
        ["a|e|k1|{ \"n\": 1.0e+2 , \"u\":\"\\u00e9\"}|0", "a,b|f|||1705313700000", "c|g|||0"]
    );
}

#[test]
fn pub_names_bad_lines_and_goes_on() {
    let (address, node) = publish_socket(None);
    let input = "{\"topic\":\"a\",\"event\":\"e\"}\n\
                 not json\n\
                 {\"topic\":\"a\",\"event\":\"e\",\"dta\":1}\n\
                 {\"event\":\"e\"}\n\
                 {\"topic\":\"a\",\"topics\":[\"a\"],\"event\":\"e\"}\n\
                 {\"topic\":\"a\\u0007\",\"event\":\"e\"}\n\
                 {\"topic\":\"a\\nb\",\"event\":\"e\"}\n\
                 {\"topic\":\"a\",\"event\":\"e\",\"timestamp\":\"yesterday\"}\n\
                 {\"topic\":\"a\",\"event\":\"last\"}\n";
    let output = run_with_input(fanwire().args(["pub", "--to", &address]), input);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "accepted 2 of 9 events, refused 7\n");
    let text = stderr(&output);
    for line in 2..=8 {
        assert_eq!(
            text.lines().filter(|text| text.starts_with(&format!("line {line}: "))).count(),
            1,
            "{text}"
        );
    }
    assert!(text.contains("line 2: expected ident (at byte 2)\n"), "{text}");
    assert!(text.contains("unknown field `dta`") && text.contains("(error 4)"), "{text}");
    assert_eq!(node.join().unwrap(), ["a|e|||0", "a|last|||0"]);
}

#[test]
fn pub_tells_what_was_left_when_the_node_closes() {
    let (address, node) = publish_socket(None);
    let mut input = "{\"topic\":\"a\",\"event\":\"e\"}\n".repeat(3);
    input += &format!("{{\"topic\":\"a\",\"event\":\"e\",\"data\":\"{}\"}}\n", "x".repeat(1000));
    input += &"{\"topic\":\"a\",\"event\":\"e\"}\n".repeat(2);
    let output = run_with_input(fanwire().args(["pub", "--to", &address]), &input);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "accepted 3 of 6 events, refused 1, unanswered 2\n");
    assert!(stderr(&output).contains("line 4: data has 1002 bytes"), "{output:?}");
    assert!(stderr(&output).contains("the node closed the connection: data has 1002 bytes"), "{output:?}");
    assert_eq!(node.join().unwrap().len(), 3);
}

#[test]
fn pub_takes_a_hundred_thousand_lines_from_a_file() {
    let (address, node) = publish_socket(None);
    let dir = TempDir::new();
    let path = dir.path().join("events.ndjson");
    fs::write(&path, "{\"topic\":\"a\",\"event\":\"e\",\"data\":[1,2,3]}\n".repeat(100_000)).unwrap();
    let file = fs::File::open(&path).unwrap();
    let output = fanwire().args(["pub", "--to", &address]).stdin(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "accepted 100000 of 100000 events\n");
    assert_eq!(node.join().unwrap().len(), 100_000);
}

#[test]
fn pub_sends_a_line_as_soon_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let mut child =
        fanwire().args(["pub", "--to", &to]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"topic\":\"a\",\"event\":\"e\"}\n{\"topic\":").unwrap();
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    // Half a line, and an input that does not end, hold no whole line back.
    assert_eq!(read_frame(&mut stream).expect("the first line").0.sequence, 1);
    stdin.write_all(b"\"a\",\"event\":\"f\"}\n").unwrap();
    assert_eq!(read_frame(&mut stream).expect("the second line").0.sequence, 2);
    drop(stdin);
    let mut ack = Vec::new();
    wire::encode_ack(2, 2, &mut ack);
    stream.write_all(&ack).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "accepted 2 of 2 events\n");
}

#[test]
fn pub_tells_how_far_events_went() {
    let node = common::Node::start(&["--shards", "2"]);
    let to = node.publish_addr().to_string();
    let mut clients: Vec<_> = (0..3).map(|_| node.websocket()).collect();
    clients.iter_mut().for_each(|client| drop(client.subscribe(&["run:42"])));
    clients[0].subscribe(&["run:43"]);
    let publish = |topic: &str| {
        let output = run(fanwire().args(["pub", topic, "step-log", "1", "--receipt", "--to", &to]));
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    assert_eq!(publish("run:42"), "accepted step-log on run:42: 3 clients, written to 3\n");
    assert_eq!(publish("run:43"), "accepted step-log on run:43: 1 client, written to 1\n");
    assert_eq!(publish("nobody"), "accepted step-log on nobody: 0 clients, written to 0\n");

    // Far more receipts than a publisher keeps answers, lines that are refused here, and lines that the node refuses.
    let mut input = "{\"topic\":\"nobody\",\"event\":\"e\"}\n".repeat(100_000);
    input += "{\"topic\":\"run:42\",\"event\":\"e\"}\n{\"topic\":\"run:43\",\"event\":\"e\"}\n{}\n";
    input += "{\"topic\":\"a\\u0007\",\"event\":\"e\"}\n";
    let output = run_with_input(fanwire().args(["pub", "--receipt", "--to", &to]), &input);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = "accepted 100002 of 100004 events, refused 2; receipts of 100002: matched 4, written 4\n";
    assert_eq!(stdout(&output), text);

    // What is not 0, and only that.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let node = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let (header, _) = read_frame(&mut stream).unwrap();
        let mut out = Vec::new();
        wire::encode_ack(header.sequence, 1, &mut out);
        let reach = Reach { matched: 14, written: 1, queued: 2, left_out: 3, closed: 4 };
        wire::encode_receipt(header.sequence, reach, &mut out);
        stream.write_all(&out).unwrap();
        assert!(read_frame(&mut stream).is_none());
        header.flags
    });
    let output = run(fanwire().args(["pub", "t", "e", "--receipt", "--to", &to]));
    let text = "accepted e on t: 14 clients, written to 1, queued for 2, left out for 3, closed 4\n";
    assert_eq!(stdout(&output), text, "{output:?}");
    assert_eq!(node.join().unwrap(), wire::FLAG_ACK | wire::FLAG_RECEIPT);
}

#[test]
fn pub_with_a_name_may_be_run_again() {
    let node = common::Node::start(&["--shards", "2"]);
    let to = node.publish_addr().to_string();
    let mut client = node.websocket();
    client.subscribe(&["a"]);
    let lines: Vec<String> =
        (1..=8).map(|n| format!("{{\"topic\":\"a\",\"event\":\"e\",\"data\":{n}}}\n")).collect();
    let named = |name: &str, lines: &[String]| {
        let args = ["pub", "--name", name, "--receipt", "--to", &to];
        let output = run_with_input(fanwire().args(args), &lines.concat());
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    let first = named("import", &lines[..5]);
    assert_eq!(first, "accepted 5 of 5 events; receipts of 5: matched 5, written 5\n");
    let again = named("import", &lines);
    assert_eq!(again, "accepted 8 of 8 events; receipts of 8: matched 3, written 3\n");
    named("another", &lines[..1]);
    let data: Vec<Value> = (0..9).map(|_| client.next_json(common::PATIENCE)["data"].clone()).collect();
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8, 1]);

    // Where it breaks off, it says so.
    let (to, node) = publish_socket(None);
    let bad = format!("{{\"topic\":\"a\",\"event\":\"e\",\"data\":\"{}\"}}\n", "x".repeat(1000));
    let output = run_with_input(fanwire().args(["pub", "--name", "import", "--to", &to]), &bad);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("again under the same --name"), "{output:?}");
    assert!(node.join().unwrap().is_empty());

    // An event from the arguments has no line number.
    for args in [&["t", "e", "--name", "n"][..], &["--name", ""], &["--name", &"n".repeat(65)]] {
        let output = run(fanwire().arg("pub").args(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
}

// sub ------------------------------------------------------------------------------------------------------------

/// A WebSocket endpoint of one client: reads its subscribe, then plays `serve`; returns the subscribe.
fn endpoint(serve: impl FnOnce(&mut WebSocket<TcpStream>) + Send + 'static) -> (String, JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let subscribe = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
        serve(&mut socket);
        // Until the client is gone.
        while socket.read().is_ok() {}
        subscribe
    });
    (address, thread)
}

const ACK: &str =
    r#"{"type":"subscription-ack","timestamp":"2024-01-15T10:15:00.000Z","data":{"categories":["t"]}}"#;
const EVENT: &str =
    r#"{"type":"event","event":"e","category":"t","data":{"n": 1},"timestamp":"2024-01-15T10:15:00.000Z"}"#;
const GAP: &str = r#"{"type":"gap","timestamp":"2024-01-15T10:15:00.000Z","data":{"topic":"t","dropped":3}}"#;

fn send(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).unwrap();
}

#[test]
fn sub_prints_events_for_people() {
    let (address, node) = endpoint(|socket| {
        send(socket, ACK);
        send(socket, r#"{"type":"ping","timestamp":"2024-01-15T10:15:00.000Z"}"#);
        assert_eq!(socket.read().unwrap().to_text().unwrap(), r#"{"type":"pong"}"#);
        send(socket, r#"{"type":"something new"}"#);
        send(socket, EVENT);
        send(socket, GAP);
        send(socket, &EVENT.replace("{\"n\": 1}", "{\n\"\u{9b}\":2}"));
        send(socket, EVENT);
    });
    let flags = ["--count", "2", "--events", "e", "--events", "f", "--policy", "drop-oldest"];
    let output = run(fanwire().args(["sub", "t", "u", "--to", &address]).args(flags));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        stdout(&output),
        "2024-01-15T10:15:00.000Z t e {\"n\": 1}\n2024-01-15T10:15:00.000Z t e { \"\\u009b\":2}\n"
    );
    assert!(stderr(&output).contains("fanwire: missed 3 events of t: the queue was full\n"), "{output:?}");
    assert_eq!(
        node.join().unwrap(),
        json!({"type": "subscribe", "topics": ["t", "u"], "events": ["e", "f"], "policy": "drop-oldest"})
    );
}

#[test]
fn sub_prints_json_as_it_came() {
    let (address, node) = endpoint(|socket| {
        send(socket, ACK);
        send(socket, GAP);
        send(socket, EVENT);
    });
    let to = format!("http://{address}/");
    let output = run(fanwire().env("FANWIRE_HTTP", to).args(["sub", "t", "--json", "--count", "1"]));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), format!("{GAP}\n{EVENT}\n"));
    assert!(stderr(&output).contains("missed 3 events"), "{output:?}");
    assert_eq!(node.join().unwrap(), json!({"type": "subscribe", "topics": ["t"], "policy": "disconnect"}));
}

#[test]
fn sub_tells_why_it_ended() {
    let (address, node) = endpoint(|socket| {
        send(socket, ACK);
        send(socket, EVENT);
        let reason = r#"{"retryAfterMs":1800}"#.into();
        socket.close(Some(CloseFrame { code: CloseCode::from(4008), reason })).unwrap();
    });
    let output = run(fanwire().args(["sub", "t", "--to", &address]));
    assert_eq!(output.status.code(), Some(1));
    let expected = "fanwire: the node closed the connection with 4008 (slow consumer: the queue was full): \
        {\"retryAfterMs\":1800}\n";
    assert!(stderr(&output).ends_with(expected), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1);
    node.join().unwrap();

    let (address, node) = endpoint(|socket| {
        send(socket, r#"{"type":"error","timestamp":"","data":{"error":"Server capacity exceeded"}}"#);
        socket.close(Some(CloseFrame { code: CloseCode::from(1013), reason: "".into() })).unwrap();
    });
    let output = run(fanwire().args(["sub", "t", "--to", &address]));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("the node says: Server capacity exceeded\n"), "{text}");
    assert!(text.ends_with("with 1013 (at capacity)\n"), "{text}");
    node.join().unwrap();

    let (address, node) = endpoint(|socket| {
        send(socket, ACK);
        socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    });
    let output = run(fanwire().args(["sub", "t", "--to", &address]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the connection was lost"), "{output:?}");
    node.join().unwrap();

    let output = run(fanwire().args(["sub", "t", "--to", "127.0.0.1:1"]));
    assert!(stderr(&output).contains("cannot connect to 127.0.0.1:1"), "{output:?}");
    let output = run(fanwire().args(["sub", "t", "--to", "https://example.org"]));
    assert!(stderr(&output).contains("https is not spoken here"), "{output:?}");
}

#[test]
fn sub_ends_quietly_when_nobody_reads_on() {
    let (address, node) = endpoint(|socket| {
        send(socket, ACK);
        // Until the client has noticed.
        while socket.send(Message::text(EVENT)).is_ok() {}
    });
    let mut child = fanwire()
        .args(["sub", "t", "--to", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("{\"n\": 1}\n"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    node.join().unwrap();
}
