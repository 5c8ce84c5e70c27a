//! Where log lines go when nobody takes them, and what strangers can write into them.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use common::raw::upgrade;
use common::{
    Node, PATIENCE, Signal, TempDir, WebSocket, fanwire, fanwire_under, http, run_any, tool, wait_until,
};
use fanwire::client::{Event, Publisher};
use fanwire::proto::websocket::masked;
use fanwire::publish::wire::encode_hello;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::{Value, json};

/// A shell that gives its place to the node, with standard error in this file of the working directory.
const LOG_TO_FILE: [&str; 4] = ["sh", "-c", r#"exec "$@" 2>log"#, "sh"];

/// A named pipe that the node's log goes to, and its other end, which nobody reads.
fn pipe(dir: &Path) -> File {
    let path = dir.join("log");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap()
}

fn metric(node: &Node, name: &str) -> u64 {
    let (_, _, text) = http(node.http_addr(), "GET", "/metrics", &[], b"");
    let text = String::from_utf8(text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::parse);
    value.unwrap_or_else(|| panic!("no {name} in {text}")).unwrap()
}

fn dropped(node: &Node) -> u64 {
    metric(node, "fanwire_log_lines_dropped_total")
}

/// An event goes through, on every connection's way.
fn check_delivery(node: &Node, client: &mut WebSocket, n: u64) {
    node.publish(&["t"], "e", &json!(n));
    assert_eq!(client.next_json(PATIENCE)["data"], n);
}

/// A client of a long name that comes and goes: one line of more than a kilobyte at debug level.
fn come_and_go(node: &Node) {
    // A tag character: not printable, so the log has nine letters for each.
    let name = "%F3%A0%80%81".repeat(128);
    let mut client = WebSocket::connect(node.http_addr(), &format!("/ws?clientId={name}"));
    client.socket().close(None).unwrap();
    client.wait_closed(PATIENCE);
}

#[test]
fn a_log_that_nobody_reads_costs_its_own_lines_and_no_event() {
    let dir = TempDir::new();
    let mut log = pipe(dir.path());
    let node = Node::start_under(&LOG_TO_FILE, dir, &["--log-level", "debug", "--shards", "2"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    let mut gone = 0;
    // The pipe and the queue are full then, and a few more lines come.
    while dropped(&node) < 20 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| come_and_go(&node)));
            }
        });
        gone += 100;
        check_delivery(&node, &mut healthy, gone);
        assert!(gone < 10_000, "nothing is ever dropped");
    }
    assert!(gone > 700, "the queue holds a megabyte, lines were dropped after {gone} of a kilobyte");
    let lost = dropped(&node);

    // Somebody reads again: everything that was kept, and then how much was not.
    let mut text = String::new();
    let mut read_to = |word: &str| {
        let mut buffer = [0; 65_536];
        let found = wait_until(PATIENCE, || {
            // `WouldBlock` where there is nothing yet.
            while let Ok(count @ 1..) = log.read(&mut buffer) {
                text += std::str::from_utf8(&buffer[..count]).unwrap();
            }
            text.contains(word).then_some(())
        });
        found.unwrap_or_else(|| panic!("no {word:?} in {} lines", text.lines().count()));
        text.clone()
    };
    let kept = read_to(&format!("log lines were lost: nobody took them dropped={lost}\n"));
    let closed = kept.lines().filter(|line| line.contains("client closed client=\"\\u{e0001}")).count();
    assert_eq!(closed as u64 + lost, gone, "every line is there or counted");
    check_delivery(&node, &mut healthy, 1);
    drop(healthy);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    let text = read_to("stopped\n");
    assert!(text.lines().all(|line| line.starts_with("20")), "a line was torn");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_process() {
    for (signals, code) in [(1, 0), (2, 130)] {
        let dir = TempDir::new();
        let mut log = pipe(dir.path());
        while log.write(&[b'x'; 4096]).is_ok() {}
        while log.write(b"x").is_ok() {}
        let flags = ["--log-level", "debug", "--send-buffer", "8KiB", "--drain-timeout", "60s"];
        let node = Node::start_under(&LOG_TO_FILE, dir, &flags);
        let mut healthy = node.websocket();
        healthy.subscribe(&["t"]);
        come_and_go(&node);
        check_delivery(&node, &mut healthy, 1);
        // One that takes nothing holds up the shutdown for the second signal.
        let stuck = (signals == 2).then(|| node.stuck_client());
        node.signal(Signal::TERM);
        assert_eq!(healthy.wait_closed(PATIENCE).unwrap().0, 1001);
        drop(healthy);
        if stuck.is_some() {
            node.signal(Signal::TERM);
        }
        assert_eq!(node.wait_exit(PATIENCE).code(), Some(code));
    }
}

#[test]
fn a_greeting_that_nobody_reads_does_not_keep_the_process_either() {
    let dir = TempDir::new();
    let mut out = pipe(dir.path());
    while out.write(&[b'x'; 4096]).is_ok() {}
    while out.write(b"x").is_ok() {}
    let socket = dir.path().join("publish.sock");
    let address = format!("unix:{}", socket.display());
    let mut command = fanwire_under(&["sh", "-c", r#"exec "$@" >log"#, "sh"]);
    command.current_dir(dir.path()).args(["serve", "--listen", "127.0.0.1:0", "--publish", &address]);
    let mut child = Killed(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut publisher = wait_until(PATIENCE, || Publisher::open(&address).ok()).expect("it serves");
    publisher.publish(&Event::new(&["t"], "e", "1")).unwrap();
    publisher.settle().unwrap();
    drop(publisher);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child.0), Signal::TERM).unwrap();
    let status = wait_until(PATIENCE, || child.0.try_wait().unwrap()).expect("it waits for its greeting");
    assert_eq!(status.code(), Some(0));
}

/// A process that ends with the test, whatever becomes of it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_last_line_before_a_sudden_end_is_written() {
    let node = Node::start(&["--send-buffer", "8KiB", "--drain-timeout", "60s"]);
    let _stuck = node.stuck_client();
    let mut idle = node.websocket();
    node.signal(Signal::TERM);
    assert_eq!(idle.wait_closed(PATIENCE).unwrap().0, 1001);
    node.signal(Signal::INT);
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(130));
    let text = node.stderr();
    assert!(text.ends_with(" WARN stopped at once by a second signal\n"), "{text}");
    // Nor does a node that cannot start keep its reason to itself, in text or in JSON.
    for format in ["text", "json"] {
        let mut command = fanwire();
        command.args(["serve", "--log-format", format, "--publish", "127.0.0.1:0", "--listen"]);
        let (status, _, stderr) = run_any(
            command.arg("192.0.2.1:80").args(["--publish-token", "x"]).args(["--operator-token", "y"]),
            PATIENCE,
        );
        assert_eq!(status.code(), Some(1));
        assert!(stderr.starts_with("fanwire: cannot listen on 192.0.2.1:80: "), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_full_disk_costs_the_lines_it_refuses_and_no_event() {
    // Every write fails, for ever.
    let wrapper = ["sh", "-c", r#"exec "$@" 2>/dev/full"#, "sh"];
    let node = Node::start_under(&wrapper, TempDir::new(), &["--log-level", "debug"]);
    let mut healthy = node.websocket();
    healthy.subscribe(&["t"]);
    for n in 1..=30 {
        come_and_go(&node);
        check_delivery(&node, &mut healthy, n);
    }
    // The debug lines of the thirty, and no complaint that could be written about them.
    wait_until(PATIENCE, || (dropped(&node) == 30).then_some(()))
        .unwrap_or_else(|| panic!("{} lines were counted as lost", dropped(&node)));
    node.signal(Signal::TERM);
    assert_eq!(healthy.wait_closed(PATIENCE).unwrap().0, 1001);
    drop(healthy);
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
}

/// Where a node's log finds no room, and how there is room again.
#[derive(Clone, Copy, Debug)]
enum Disk {
    /// A limit on the size of files: its first byte is refused.
    Limit,
    /// A file system of a megabyte that only the node sees, full but for less than a page.
    FileSystem,
}

#[test]
fn once_there_is_room_on_the_disk_again_the_log_tells_what_it_lost() {
    // Mounting takes rights that not everybody has; a limit is had by everyone.
    let can_mount =
        Command::new(tool("unshare")).args(["--mount", "true"]).output().unwrap().status.success();
    for disk in [Disk::Limit, Disk::FileSystem].into_iter().take(1 + usize::from(can_mount)) {
        let script = match disk {
            Disk::Limit => r#"ulimit -S -f 0; exec "$@" 2>disk/log"#,
            Disk::FileSystem => {
                r#"mount -t tmpfs -o size=1m none disk; head -c 1048576 /dev/zero >disk/filler; exec "$@" 2>disk/log"#
            }
        };
        let wrapper: &[&str] = match disk {
            Disk::Limit => &["sh", "-c", script, "sh"],
            Disk::FileSystem => &["unshare", "--mount", "sh", "-c", script, "sh"],
        };
        let dir = TempDir::new();
        fs::create_dir(dir.path().join("disk")).unwrap();
        let node = Node::start_under(wrapper, dir, &["--log-level", "debug"]);
        let mut healthy = node.websocket();
        healthy.subscribe(&["t"]);
        (0..10).for_each(|_| come_and_go(&node));
        wait_until(PATIENCE, || (dropped(&node) == 10).then_some(()))
            .unwrap_or_else(|| panic!("{disk:?}: {} lines were counted as lost", dropped(&node)));
        check_delivery(&node, &mut healthy, 1);

        let root = Path::new("/proc").join(node.pid().to_string()).join("root");
        let files = root.join(node.dir().strip_prefix("/").unwrap()).join("disk");
        match disk {
            Disk::Limit => {
                let pid = rustix::process::Pid::from_raw(node.pid().cast_signed()).unwrap();
                let old = rustix::process::getrlimit(Resource::Fsize);
                prlimit(Some(pid), Resource::Fsize, Rlimit { current: old.maximum, ..old }).unwrap();
            }
            Disk::FileSystem => fs::remove_file(files.join("filler")).unwrap(),
        }
        come_and_go(&node);
        let told = wait_until(PATIENCE, || {
            let text = fs::read_to_string(files.join("log")).unwrap();
            text.contains("log lines were lost").then_some(text)
        });
        let text = told.unwrap_or_else(|| panic!("{disk:?}: it does not tell what it lost"));
        assert!(text.contains("log lines were lost: nobody took them dropped=10\n"), "{disk:?}: {text}");
        assert!(text.lines().all(|line| line.starts_with("20")), "{disk:?}: a torn line: {text:?}");
        check_delivery(&node, &mut healthy, 2);
        drop(healthy);
        node.signal(Signal::TERM);
        assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    }
}

/// Names that would be a second line, a screen cleared, a line read from right to left; and one of full length.
const HOSTILE: [&str; 6] = [
    "evil\n2026-01-01T00:00:00.000000Z ERROR forged line",
    "\r\u{1b}[2J\u{1b}[31mred\u{9b}\u{7}",
    "nul\0\u{7f}\u{85}\u{2028}\u{2029}",
    "\u{202e}desrever\u{2066}\u{feff}",
    r#"","level":"ERROR","x":"\n""#,
    "\u{10ffff}",
];

/// Bytes of the longest line that one connection may cost: eleven topics of a slow client, each character escaped.
const LONGEST: usize = 16 << 10;

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Everything that a stranger may call itself, on connections of its own; answers how many there were.
fn attack(node: &Node) -> usize {
    let mut connections = 0;
    let mut send = |addr: SocketAddr, bytes: &[u8]| {
        connections += 1;
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The node may close before it has all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let http = node.http_addr();
    for name in HOSTILE {
        let long = name.repeat(128 / name.chars().count());
        let (text, long) = (percent(name), percent(&long));
        let mut frames =
            masked(0x81, json!({"type":"subscribe","topics":["t"],"clientId":name}).to_string().as_bytes());
        // Against the protocol: a reserved bit.
        frames.extend(masked(0xC1, name.as_bytes()));
        for path in [
            "/ws".to_owned(),
            format!("/ws?clientId={long}"),
            format!("/ws?categories={text}&events={text}"),
            format!("/ws?clientId={}", long.repeat(2)),
            format!("/sse?topics=t&clientId={text}"),
            format!("/api/topics/{text}"),
        ] {
            send(http, &[upgrade(&path).as_bytes(), &frames].concat());
        }
        for header in ["User-Agent", "Origin", "X-Forwarded-For", "Cookie", "Authorization"] {
            let request = upgrade("/ws").replace("Host: x", &format!("Host: x\r\n{header}: {name}"));
            send(http, &[request.as_bytes(), &frames].concat());
            let request = format!(
                "POST /api/publish HTTP/1.1\r\nHost: {name}\r\n{header}: {}\r\n\r\n",
                name.repeat(50)
            );
            send(http, request.as_bytes());
        }
        send(http, format!("{name} {name} HTTP/1.1\r\n\r\n").as_bytes());
        // Publishers: of a name, which has no control characters, that vanish inside a frame, and that send none.
        let mut hello = Vec::new();
        let _ = encode_hello("", name, &mut hello);
        if hello.is_empty() {
            encode_hello("", &"n".repeat(name.len()), &mut hello).unwrap();
            let from = hello.len() - name.len();
            hello[from..].copy_from_slice(name.as_bytes());
        }
        send(node.publish_addr(), &[&hello[..], &[40, 0, 0, 0, 1, 2]].concat());
        send(node.publish_addr(), &[&hello[..], name.repeat(9).as_bytes()].concat());
    }
    connections
}

#[test]
fn every_event_is_one_line_of_bounded_length_whatever_strangers_call_themselves() {
    for format in ["text", "json"] {
        let node = Node::start(&["--log-level", "trace", "--log-format", format, "--send-buffer", "8KiB"]);
        let mut connections = attack(&node);
        // The longest line there is: a slow client with all that tells why.
        let topics: Vec<String> = (0..11).map(|n| format!("{n:02}{}", "\u{10ffff}".repeat(63))).collect();
        let mut slow = WebSocket::connect_narrow(node.http_addr(), "/ws");
        slow.send_json(&json!({"type":"subscribe","topics":topics,"clientId":"\u{10ffff}".repeat(128)}));
        slow.next_json(PATIENCE);
        connections += 1;
        let data = json!("x".repeat(20_000));
        wait_until(PATIENCE, || {
            node.publish(&[&topics[0]], "e", &data);
            node.stderr().contains("client closed as slow").then_some(())
        })
        .expect("the client is closed as slow");
        drop(slow);
        node.signal(Signal::TERM);
        assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));

        let text = node.stderr();
        let mut of_connections = 0;
        for line in text.lines() {
            assert!(line.len() <= LONGEST, "{} bytes: {line}", line.len());
            let unprintable = |c: char| c.is_control() || "\u{2028}\u{2029}\u{202e}\u{2066}".contains(c);
            assert!(!line.contains(unprintable), "{line:?}");
            let message = if format == "json" {
                let entry: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(entry["timestamp"].is_string() && entry["level"] != "ERROR", "{entry}");
                entry["message"].as_str().unwrap().to_owned()
            } else {
                let (time, rest) = line.split_once("Z ").unwrap_or_else(|| panic!("no time: {line}"));
                assert!(time.starts_with("20") && time.len() == 26, "{line}");
                let rest = rest.trim_start();
                let (level, message) = rest.split_once(' ').unwrap();
                assert!(["DEBUG", "INFO", "WARN", "TRACE"].contains(&level), "{line}");
                message.to_owned()
            };
            if message.starts_with("client closed") || message.starts_with("publisher let go") {
                of_connections += 1;
            } else {
                assert!(
                    ["shutting down", "stopped"].iter().any(|known| message.starts_with(known)),
                    "{line}"
                );
            }
        }
        // Those that came no further than their request have none.
        assert!(
            of_connections <= connections && of_connections > connections / 4,
            "{of_connections} of {connections}"
        );
        for part in
            ["forged line", "vanished inside a frame", "frame was refused", "protocol_error", "desrever"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(text.matches("client closed as slow").count(), 1);
    }
}
