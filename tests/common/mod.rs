//! What the integration tests share: a node as a child process, a WebSocket client, an HTTP client, external tools.
//!
//! Nothing here sleeps for a fixed time: waiting is polling for what is waited for, against a deadline.

#![allow(dead_code, reason = "every test program compiles this module and uses its own part of it")]

pub mod foreign;
pub mod proc;
pub mod proxy;
pub mod raw;
pub mod sse;

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fanwire::client::{Answer, Event, Publisher};
use serde_json::{Value, json};
use tungstenite::Message;

pub use rustix::process::Signal;

/// For nodes that are flooded, where nobody is to be closed because the machine has no time for those who read.
pub const DEEP: [&str; 4] = ["--queue-events", "100000", "--queue-bytes", "256MiB"];

/// For what should happen at once: long, because the machine may be busy; reached only by failing tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `found` every few milliseconds until it answers `Some`; `None` when the time is up.
pub fn wait_until<T>(timeout: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(it) = found() {
            return Some(it);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The seed of a random test: `FANWIRE_TEST_SEED`, or a new one. It is printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let given = env::var("FANWIRE_TEST_SEED").ok();
    let seed =
        given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("FANWIRE_TEST_SEED is a number"));
    println!("FANWIRE_TEST_SEED={seed}");
    seed
}

/// A directory that is removed when dropped. Its path is short enough for a Unix socket.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new, empty directory.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("fanwire-test-{}-{count}", std::process::id()));
        // Left by an earlier run whose process had the same number.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a child has written so far, read by a thread so that the child never blocks on a full pipe.
#[derive(Clone, Debug, Default)]
struct Captured(Arc<Mutex<(Vec<u8>, bool)>>);

impl Captured {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let captured = Self::default();
        let shared = captured.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => shared.0.lock().unwrap().0.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            shared.0.lock().unwrap().1 = true;
        });
        captured
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }

    fn is_complete(&self) -> bool {
        self.0.lock().unwrap().1
    }
}

/// A running node, on ports that the system chose. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Mutex<Child>,
    pid: u32,
    stdout: Captured,
    stderr: Captured,
    http: Vec<SocketAddr>,
    publish: Vec<SocketAddr>,
    unix: Option<PathBuf>,
    // Last: it goes when the node is gone.
    dir: TempDir,
}

impl Node {
    /// `fanwire serve` with a TCP publish socket and `flags`, ready for connections.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_in(TempDir::new(), flags)
    }

    /// The same with a Unix publish socket besides, in a directory of its own.
    pub fn start_with_unix(flags: &[&str]) -> Self {
        let dir = TempDir::new();
        let unix = format!("unix:{}", dir.path().join("publish.sock").display());
        let flags: Vec<_> = ["--publish", &unix].into_iter().chain(flags.iter().copied()).collect();
        Self::start_in(dir, &flags)
    }

    /// The same with `dir` as its working directory, for tests that put files there first.
    pub fn start_in(dir: TempDir, flags: &[&str]) -> Self {
        Self::start_under(&[], dir, flags)
    }

    /// The same under a program that takes another one's place by `exec`, such as `["prlimit", "--nofile=64"]`.
    pub fn start_under(wrapper: &[&str], dir: TempDir, flags: &[&str]) -> Self {
        let mut command = fanwire_under(wrapper);
        command.current_dir(dir.path()).arg("serve");
        command.args(["--listen", "127.0.0.1:0", "--publish", "127.0.0.1:0"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cannot run fanwire");
        let stdout = Captured::new(child.stdout.take().unwrap());
        let stderr = Captured::new(child.stderr.take().unwrap());
        let mut node = Self {
            pid: child.id(),
            child: Mutex::new(child),
            stdout,
            stderr,
            http: Vec::new(),
            publish: Vec::new(),
            unix: None,
            dir,
        };
        // The last line that it prints once it is up tells what to do next.
        let up = wait_until(PATIENCE, || {
            let text = node.stdout();
            let up = text
                .split_inclusive('\n')
                .any(|line| line.trim_start().starts_with("next:") && line.ends_with('\n'));
            (up || node.try_exit().is_some()).then_some(up)
        });
        assert!(up == Some(true), "the node did not come up\n{}", node.logs());
        for word in node.stdout().split_whitespace() {
            if let Some(address) = word.strip_prefix("http://") {
                node.http.extend(address.trim_end_matches('/').parse::<SocketAddr>());
            } else if let Some(path) = word.strip_prefix("unix:") {
                node.unix = Some(path.into());
            } else {
                node.publish.extend(word.parse::<SocketAddr>());
            }
        }
        assert!(!node.http.is_empty(), "the node does not say where it listens\n{}", node.logs());
        node
    }

    /// Where WebSocket, HTTP and the page are served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http[0]
    }

    /// All addresses of that kind, where `--listen` was given again.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The TCP publish socket.
    pub fn publish_addr(&self) -> SocketAddr {
        *self.publish.first().unwrap_or_else(|| panic!("no TCP publish socket\n{}", self.logs()))
    }

    /// The Unix publish socket of [`Node::start_with_unix`].
    pub fn unix_path(&self) -> &Path {
        self.unix.as_deref().unwrap_or_else(|| panic!("no Unix publish socket\n{}", self.logs()))
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // Holding the child keeps its number from being reused: it is not waited for meanwhile.
        let mut child = self.child.lock().unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the node has ended before the signal");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("kill");
    }

    /// Its status if it has ended.
    pub fn try_exit(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().expect("wait")
    }

    /// Waits until it has ended and all that it wrote is captured.
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        let exited = || self.try_exit().filter(|_| self.stdout.is_complete() && self.stderr.is_complete());
        wait_until(timeout, exited)
            .unwrap_or_else(|| panic!("the node has not ended within {timeout:?}\n{}", self.logs()))
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// A WebSocket client of this node.
    pub fn websocket(&self) -> WebSocket {
        WebSocket::connect(self.http_addr(), "/ws")
    }

    /// The same with this file as its configuration.
    pub fn start_with_file(text: &str, flags: &[&str]) -> Self {
        let dir = TempDir::new();
        fs::write(dir.path().join("fanwire.toml"), text).unwrap();
        Self::start_in(dir, &[&["--config", "fanwire.toml"], flags].concat())
    }

    /// Publishes one event over HTTP; it is accepted when this returns.
    pub fn publish(&self, topics: &[&str], event: &str, data: &Value) {
        let body = json!({"topics": topics, "event": event, "data": data}).to_string();
        let (status, _, answer) = http(self.http_addr(), "POST", "/api/publish", &[], body.as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    /// `GET /api/v1/websocket/stats`, from a node without tokens.
    pub fn stats(&self) -> Value {
        let (status, _, body) = http(self.http_addr(), "GET", "/api/v1/websocket/stats", &[], b"");
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("stats are JSON")
    }

    /// A client that is owed more than the kernel takes, and reads nothing.
    pub fn stuck_client(&self) -> WebSocket {
        let mut client = WebSocket::connect_narrow(self.http_addr(), "/ws");
        client.send_json(&json!({"type":"subscribe","topics":["stuck"],"policy":"drop-oldest"}));
        client.next_json(PATIENCE);
        let data = json!("x".repeat(100_000));
        wait_until(PATIENCE, || {
            self.publish(&["stuck"], "e", &data);
            (self.stats()["outbox"]["blockedClients"] == 1).then_some(())
        })
        .expect("the client does not block");
        client
    }

    /// Waits until the figures are as `is_so` wants them, and returns them. `what` is for who reads the failure.
    pub fn wait_stats(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_until(PATIENCE, || {
            last = self.stats();
            is_so(&last).then(|| last.clone())
        })
        .unwrap_or_else(|| panic!("it did not come to {what}: {last:#}"))
    }

    /// Waits until it has logged a line in which `is_it` finds what it looks for, and returns that line.
    pub fn wait_log(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let find = || self.stderr().lines().find(|line| is_it(line)).map(str::to_owned);
        wait_until(PATIENCE, find).unwrap_or_else(|| panic!("no log line of {what}\n{}", self.logs()))
    }

    fn logs(&self) -> String {
        format!("--- its stdout\n{}--- its stderr\n{}---", self.stdout(), self.stderr())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SIGKILL ends a stopped process too.
        let _ = child.kill();
        let _ = child.wait();
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// Publishes numbers from 0 on to a topic, one after the other, until the node ends it, which it must say. `is_flowing` is
/// set after some hundred. Answers how many were accepted.
pub fn publish_to_the_end(address: &str, topic: &str, is_flowing: &AtomicBool) -> u64 {
    let mut publisher = Publisher::open(address).unwrap();
    let topics = [topic];
    for n in 0.. {
        let data = n.to_string();
        let sent = publisher.publish(&Event::new(&topics, "e", &data)).map(drop);
        if sent.and_then(|()| publisher.flush()).is_err() {
            break;
        }
        is_flowing.store(n > 200, Ordering::Relaxed);
    }
    // What the node said before it closed.
    let answers: Vec<Answer> = std::iter::from_fn(|| publisher.answer().ok()).collect();
    let is_farewell = |answer: &Answer| matches!(answer, Answer::Error { code: 9, .. });
    assert!(answers.iter().any(is_farewell), "{answers:?}");
    publisher.accepted()
}

/// The `fanwire` program, untouched by settings in the environment of whoever runs the tests.
pub fn fanwire() -> Command {
    fanwire_under(&[])
}

/// The same under another program, which gets its path as the next argument.
pub fn fanwire_under(wrapper: &[&str]) -> Command {
    let mut command = match wrapper {
        [] => Command::new(env!("CARGO_BIN_EXE_fanwire")),
        [program, arguments @ ..] => {
            let mut command = Command::new(tool(program));
            command.args(arguments).arg(env!("CARGO_BIN_EXE_fanwire"));
            command
        }
    };
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("FANWIRE_") {
            command.env_remove(name);
        }
    }
    command
}

/// What came from a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// The node has closed, with its code and reason; `None` where the connection ended without a close frame.
    Closed(Option<(u16, String)>),
    /// The time was up.
    Nothing,
}

/// A blocking WebSocket client. WebSocket pings are answered whenever it reads.
#[derive(Debug)]
pub struct WebSocket {
    socket: tungstenite::WebSocket<TcpStream>,
    /// Messages that came while something else was waited for.
    passed_over: VecDeque<String>,
}

impl WebSocket {
    /// Opens `path`, such as `/ws` or `/ws?categories=a,b`.
    pub fn connect(addr: SocketAddr, path: &str) -> Self {
        Self::try_connect(addr, path).unwrap_or_else(|error| panic!("ws://{addr}{path}: {error}"))
    }

    /// The same for connections that the node may refuse.
    pub fn try_connect(addr: SocketAddr, path: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        Self::over(stream, path)
    }

    /// A client whose kernel keeps little for it: what it does not read soon waits in the node.
    pub fn connect_narrow(addr: SocketAddr, path: &str) -> Self {
        Self::over(raw::connect_narrow(addr), path)
            .unwrap_or_else(|error| panic!("ws://{addr}{path}: {error}"))
    }

    fn over(stream: TcpStream, path: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let addr = stream.peer_addr()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (socket, _) =
            tungstenite::client(format!("ws://{addr}{path}"), stream).map_err(|error| error.to_string())?;
        Ok(Self { socket, passed_over: VecDeque::new() })
    }

    /// The socket below, for tests that do something unusual with it.
    pub fn socket(&mut self) -> &mut tungstenite::WebSocket<TcpStream> {
        &mut self.socket
    }

    pub fn send_text(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).expect("send");
    }

    pub fn send_json(&mut self, message: &Value) {
        self.send_text(message.to_string());
    }

    /// Subscribes and waits for the ack, which it returns: every event published from now on arrives.
    pub fn subscribe(&mut self, topics: &[&str]) -> Value {
        self.send_json(&json!({"type": "subscribe", "topics": topics}));
        self.wait_for_type("subscription-ack")
    }

    /// Unsubscribes and waits for the ack, which it returns.
    pub fn unsubscribe(&mut self, topics: &[&str]) -> Value {
        self.send_json(&json!({"type": "unsubscribe", "topics": topics}));
        self.wait_for_type("unsubscription-ack")
    }

    /// The next message of this type; those before it are kept for the calls below.
    fn wait_for_type(&mut self, kind: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive(deadline.saturating_duration_since(Instant::now())) {
                Incoming::Text(text) => {
                    let typed: Option<Value> = serde_json::from_str(&text).ok();
                    match typed.filter(|message| message["type"] == kind) {
                        Some(message) => return message,
                        None => self.passed_over.push_back(text),
                    }
                }
                other => panic!("no {kind} came, but {other:?} after {:?}", self.passed_over),
            }
        }
    }

    /// The next message, as it was sent.
    pub fn next(&mut self, timeout: Duration) -> Incoming {
        match self.passed_over.pop_front() {
            Some(text) => Incoming::Text(text),
            None => self.receive(timeout),
        }
    }

    /// The next message, as it was sent. Panics where none comes.
    pub fn next_text(&mut self, timeout: Duration) -> String {
        match self.next(timeout) {
            Incoming::Text(text) => text,
            other => panic!("no message came within {timeout:?}, but {other:?}"),
        }
    }

    /// The next message. Panics where none comes.
    pub fn next_json(&mut self, timeout: Duration) -> Value {
        let text = self.next_text(timeout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// Reads on until the node closes; returns code and reason.
    pub fn wait_closed(&mut self, timeout: Duration) -> Option<(u16, String)> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Incoming::Text(_) => {}
                Incoming::Closed(closed) => return closed,
                Incoming::Nothing => panic!("the node has not closed within {timeout:?}"),
            }
        }
    }

    fn receive(&mut self, timeout: Duration) -> Incoming {
        let deadline = Instant::now() + timeout;
        loop {
            // A timeout of zero would mean none.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.get_ref().set_read_timeout(Some(left)).expect("set_read_timeout");
            match self.socket.read() {
                Ok(Message::Text(text)) => return Incoming::Text(text.to_string()),
                Ok(Message::Close(frame)) => {
                    // Sends the answer to the close.
                    let _ = self.socket.flush();
                    return Incoming::Closed(
                        frame.map(|frame| (frame.code.into(), frame.reason.to_string())),
                    );
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Incoming::Closed(None),
            }
            if Instant::now() >= deadline {
                return Incoming::Nothing;
            }
        }
    }
}

/// An HTTP answer: status, headers in order with names in lower case, body.
pub type Response = (u16, Vec<(String, String)>, Vec<u8>);

/// One HTTP/1.1 request on a connection of its own.
pub fn http(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    let request = [(request + "\r\n").as_bytes(), body].concat();
    // A node that refuses early may close before it has read everything; its answer counts.
    let written = stream.write_all(&request);
    read_response(&mut stream, method == "HEAD")
        .unwrap_or_else(|error| panic!("{method} http://{addr}{path}: {error} (request: {written:?})"))
}

/// Reads one answer, for tests that write their requests themselves.
pub fn read_response(stream: &mut impl Read, head_only: bool) -> Result<Response, String> {
    let mut bytes = Vec::new();
    let mut read_more = |bytes: &mut Vec<u8>| -> Result<usize, String> {
        let mut buffer = [0; 8192];
        let count = stream.read(&mut buffer).map_err(|error| error.to_string())?;
        bytes.extend_from_slice(&buffer[..count]);
        Ok(count)
    };
    let head_len = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if read_more(&mut bytes)? == 0 {
            return Err(format!("the connection ended in the head: {:?}", String::from_utf8_lossy(&bytes)));
        }
    };
    let mut body = bytes.split_off(head_len);
    let head = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| format!("no status in {head:?}"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    if header(&headers, "transfer-encoding").is_some() {
        return Err("transfer encodings are not understood by this client".to_owned());
    }
    let bodiless = head_only || status < 200 || status == 204 || status == 304;
    match header(&headers, "content-length") {
        _ if bodiless => {}
        Some(length) => {
            let length: usize = length.parse().map_err(|_| format!("content-length {length:?}"))?;
            while body.len() < length {
                if read_more(&mut body)? == 0 {
                    return Err(format!(
                        "the connection ended after {} of {length} bytes of body",
                        body.len()
                    ));
                }
            }
            body.truncate(length);
        }
        None => while read_more(&mut body)? != 0 {},
    }
    Ok((status, headers, body))
}

/// The first header of this name, which is in lower case.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
}

/// Finds a program that a test needs. A missing one is a failure, never a test that is quietly left out.
pub fn tool(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("this test needs `{name}`, which is not in PATH: install it"))
}

/// The C compiler: `$CC`, else `cc`.
pub fn cc() -> PathBuf {
    env::var_os("CC").map_or_else(|| tool("cc"), PathBuf::from)
}

/// The C++ compiler: `$CXX`, else `c++`.
pub fn cxx() -> PathBuf {
    env::var_os("CXX").map_or_else(|| tool("c++"), PathBuf::from)
}

pub fn python3() -> PathBuf {
    tool("python3")
}

/// Node.js.
pub fn nodejs() -> PathBuf {
    tool("node")
}

/// Compiles C (`-std=c99`) or C++ (`-std=c++11`) strictly, with `include/` in its path.
pub fn compile(compiler: &Path, standard: &str, sources: &[&Path], output: &Path) {
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include");
    let mut command = Command::new(compiler);
    command.arg(format!("-std={standard}"));
    command.args(["-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-O1", include]);
    run(command.args(sources).arg("-o").arg(output), Duration::from_secs(120));
}

/// Runs a program to its end and returns its stdout. Panics, with all it wrote, where it fails or takes too long.
pub fn run(command: &mut Command, timeout: Duration) -> String {
    let (status, stdout, stderr) = run_any(command, timeout);
    assert!(status.success(), "{command:?}: {status}\n--- its stdout\n{stdout}--- its stderr\n{stderr}---");
    stdout
}

/// The same for programs that may fail: status, stdout, stderr.
pub fn run_any(command: &mut Command, timeout: Duration) -> (ExitStatus, String, String) {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = Captured::new(child.stdout.take().unwrap());
    let stderr = Captured::new(child.stderr.take().unwrap());
    let ended = wait_until(timeout, || {
        child.try_wait().expect("wait").filter(|_| stdout.is_complete() && stderr.is_complete())
    });
    let Some(status) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        panic!(
            "{command:?} has not ended within {timeout:?}\n--- its stdout\n{}--- its stderr\n{}---",
            stdout.text(),
            stderr.text()
        );
    };
    (status, stdout.text(), stderr.text())
}

/// A program that the test talks with, line by line. Killed when dropped.
#[derive(Debug)]
pub struct Dialogue {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    /// The lines that were read last.
    last: VecDeque<String>,
    stderr: Captured,
}

impl Dialogue {
    pub fn start(command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stderr = Captured::new(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, lines, last: VecDeque::new(), stderr }
    }

    /// Writes a line.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it was told that nothing more comes");
        writeln!(stdin, "{line}")
            .unwrap_or_else(|error| panic!("{error}; its stderr: {}", self.stderr.text()));
    }

    /// Tells it that nothing more comes.
    pub fn end(&mut self) {
        self.stdin = None;
    }

    /// The next line that it writes; `None` at its end.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.last.push_back(line.clone());
                self.last.drain(..self.last.len().saturating_sub(5));
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let (last, stderr) = (&self.last, self.stderr.text());
                panic!("no line came within {PATIENCE:?} after {last:?}; its stderr: {stderr}")
            }
        }
    }

    /// Reads on to the first line for which `is_it` holds.
    pub fn wait_line(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut passed = Vec::new();
        while let Some(line) = self.next_line() {
            if is_it(&line) {
                return line;
            }
            passed.push(line);
        }
        panic!("it ended without {what}, after {passed:#?}; its stderr: {}", self.stderr.text())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn wait_exit(mut self) -> ExitStatus {
        self.end();
        wait_until(PATIENCE, || self.child.try_wait().expect("wait")).expect("it has not ended")
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- stderr of process {}\n{}---", self.child.id(), self.stderr.text());
        }
    }
}

/// Node.js with a script of `tests/e2e`.
pub fn node_script(script: &str) -> Command {
    let installed = in_repository("tests/e2e/node_modules/ws");
    assert!(installed.is_dir(), "{} is missing: run `make install-deps`", installed.display());
    let mut command = Command::new(nodejs());
    command.arg(in_repository("tests/e2e").join(script));
    command
}

/// Python, with the packages that the tests use, with a script of `tests/e2e`.
pub fn python_script(script: &str) -> Command {
    let python = in_repository("tests/e2e/.venv/bin/python");
    assert!(python.is_file(), "{} is missing: run `make install-deps`", python.display());
    let mut command = Command::new(python);
    command.arg(in_repository("tests/e2e").join(script));
    command
}

/// `path` below the repository's root.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `unix:PATH`, as publishers are given it.
pub fn unix_address(path: &Path) -> OsString {
    let mut address = OsString::from("unix:");
    address.push(path);
    address
}
