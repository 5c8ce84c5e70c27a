//! A node as a child: a process of its own, and what its metrics say about it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::process::Process;
use super::stream::Address;

/// The environment variable with what goes before the node's command in the benches of this repository.
const PREFIX: &str = "BENCH_NODE_PREFIX";

/// How long the node may take to answer a plain request.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The `fanwire` program.
    pub program: PathBuf,
    /// Further flags of `fanwire serve`.
    pub flags: Vec<String>,
    /// The text of its settings file.
    pub settings: String,
    /// Words before its command.
    pub prefix: Vec<String>,
    /// Whether its log goes to a file, to be counted, and not to standard error.
    pub keeps_log: bool,
    /// Whether its publish socket is a Unix socket, and not TCP.
    pub is_unix: bool,
}

impl Setup {
    /// This program with nothing set. The words in `BENCH_NODE_PREFIX` go before its command: `taskset -c 0` gives the
    /// node a processor of its own.
    pub fn from_environment(program: impl Into<PathBuf>) -> Self {
        let prefix = std::env::var(PREFIX).unwrap_or_default();
        let prefix = prefix.split_whitespace().map(str::to_owned).collect();
        Self { program: program.into(), prefix, ..Self::default() }
    }
}

/// A node as a process of its own, on ports that the system chose. Killed when dropped. Derefs to what `/proc` shows
/// of it.
#[derive(Debug)]
pub struct Node {
    child: Child,
    process: Process,
    dir: PathBuf,
    /// Where WebSocket is served.
    pub http: SocketAddr,
    /// The publish socket.
    pub publish: Address,
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// What a node holds. Of two moments without traffic it is the same where nothing was left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Open files.
    pub fds: usize,
    /// Metrics, each with its value: those of [`HOLDINGS`], in their order.
    pub gauges: Vec<(&'static str, u64)>,
}

/// The gauges that tell what a node holds for others.
pub const HOLDINGS: [&str; 8] = [
    "fanwire_clients",
    "fanwire_publishers",
    "fanwire_other_connections",
    "fanwire_subscriptions",
    "fanwire_topics",
    "fanwire_queued_events",
    "fanwire_blocked_clients",
    "fanwire_outbox_bytes",
];

impl Standing {
    /// What is not as it was, as `name before → now`; empty where all is.
    pub fn difference(&self, before: &Self) -> String {
        let fds = [("open files", before.fds as u64, self.fds as u64)];
        let gauges = self.gauges.iter().zip(&before.gauges).map(|(now, before)| (now.0, before.1, now.1));
        let changed = fds.into_iter().chain(gauges).filter(|(_, before, now)| before != now);
        changed.map(|(name, before, now)| format!("{name} {before} → {now}")).collect::<Vec<_>>().join(", ")
    }

    /// The value of a gauge.
    pub fn gauge(&self, name: &str) -> u64 {
        self.gauges.iter().find(|(other, _)| *other == name).map_or(0, |(_, value)| *value)
    }
}

impl Node {
    /// Starts `fanwire serve` and waits until it says where it listens.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is up: then with its log, where that is kept.
    pub fn start(setup: &Setup) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fanwire-load-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let started = Self::spawn(setup, &dir);
        if started.is_err() {
            drop(fs::remove_dir_all(&dir));
        }
        let (child, (http, publish)) = started?;
        Ok(Self { process: Process::of(child.id()), child, dir, http, publish })
    }

    fn spawn(setup: &Setup, dir: &Path) -> io::Result<(Child, (SocketAddr, Address))> {
        let mut words = setup.prefix.iter().map(OsString::from).chain([setup.program.clone().into()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANWIRE_"))
        {
            command.env_remove(name);
        }
        let unix = format!("unix:{}", dir.join("publish.sock").display());
        let publish = if setup.is_unix { unix.as_str() } else { "127.0.0.1:0" };
        command.args(["serve", "--listen", "127.0.0.1:0", "--publish", publish, "--log-level", "warn"]);
        if !setup.settings.is_empty() {
            let file = dir.join("fanwire.toml");
            fs::write(&file, &setup.settings)?;
            command.arg("--config").arg(file);
        }
        if setup.keeps_log {
            command.stderr(File::create(dir.join("log"))?);
        }
        command.args(&setup.flags);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let greeting = child.stdout.take().map(BufReader::new);
        let addresses =
            greeting.map_or_else(|| Err(ErrorKind::BrokenPipe.into()), |out| read_greeting(out.lines()));
        match addresses {
            Ok(addresses) => Ok((child, addresses)),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                Err(io::Error::other(format!("{error} {log}")))
            }
        }
    }

    /// The publish socket, where it is TCP.
    ///
    /// # Errors
    /// It is a Unix socket.
    pub fn publish_tcp(&self) -> io::Result<SocketAddr> {
        match &self.publish {
            Address::Tcp(address) => Ok(*address),
            Address::Unix(_) => Err(io::Error::other("the publish socket is a Unix socket")),
        }
    }

    /// Whether the process is there.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has logged, where the log is kept.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What it holds now.
    ///
    /// # Errors
    /// Its metrics cannot be had.
    pub fn standing(&self) -> io::Result<Standing> {
        let fds = self.files();
        let metrics = get(self.http, "/metrics")?;
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).map(|value| value as u64)
        };
        let missing = |name: &str| io::Error::other(format!("no {name} among the metrics"));
        let gauges = HOLDINGS.map(|name| value(name).map(|value| (name, value)).ok_or_else(|| missing(name)));
        Ok(Standing { fds, gauges: gauges.into_iter().collect::<io::Result<_>>()? })
    }

    /// What it holds once that no longer changes. For moments without traffic.
    ///
    /// # Errors
    /// As `standing`.
    pub fn settled(&self) -> io::Result<Standing> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.standing()?;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.standing()?;
            if now == last || Instant::now() > deadline {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Waits until it holds what it held `before`. Answers how long that took, or what is not as it was.
    ///
    /// # Errors
    /// As `standing`.
    pub fn wait_standing(
        &self,
        before: &Standing,
        patience: Duration,
    ) -> io::Result<Result<Duration, String>> {
        let began = Instant::now();
        loop {
            let now = self.standing()?;
            if now == *before {
                return Ok(Ok(began.elapsed()));
            }
            if began.elapsed() > patience {
                return Ok(Err(now.difference(before)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has nothing to save, and the next one wants the processor.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// `GET` on a node's HTTP address; the body of the answer.
///
/// # Errors
/// There is none, or it is not 200.
pub fn get(http: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&http, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("GET {path} was answered with {answer:?}"))),
    }
}

/// The addresses in the lines that a node prints once it is up; the last one says what to do next.
fn read_greeting(lines: impl Iterator<Item = io::Result<String>>) -> io::Result<(SocketAddr, Address)> {
    let (mut http, mut publish) = (None, None);
    for line in lines {
        let line = line?;
        for word in line.split_whitespace() {
            if let Some(address) = word.strip_prefix("http://") {
                http = http.or(address.trim_end_matches('/').parse().ok());
            } else if let Some(path) = word.strip_prefix("unix:") {
                publish = publish.or(Some(Address::Unix(path.into())));
            } else if let Ok(address) = word.parse() {
                publish = publish.or(Some(Address::Tcp(address)));
            }
        }
        if let (Some(http), Some(publish), true) = (http, &publish, line.trim_start().starts_with("next:")) {
            return Ok((http, publish.clone()));
        }
    }
    Err(io::Error::other("the node ended before it was up"))
}
