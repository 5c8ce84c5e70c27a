//! Attacks on a node: what careless, slow, returning and hostile clients and publishers do to it.
//!
//! Each is a function that goes on until it is told to stop, then lets go of everything, and reports what it did.
//! `benches/isolation.rs` runs it in a process of its own and measures what healthy clients notice,
//! `benches/soak.rs` runs all of them at once, and `tests/isolation.rs` runs them small and in threads.
//!
//! What they do is chosen at random from a seed, so that a run can be repeated, but for what is left to the order
//! in which sockets become ready.

#![allow(dead_code, reason = "every program compiles this module and uses its own part of it")]

mod churn;
mod crowd;
mod herd;
mod malformed;
mod stopped;
mod storm;
mod topics;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanwire::cli::load;

/// How long something may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// None: what calm comes to the second time.
    Calm,
    /// None either, but its processor is as busy as with one: what of the other figures is the machine's.
    Busy,
    /// Subscribers that never read.
    Stopped,
    /// Clients that all come back at once, each from another place of the history.
    Herd,
    /// Connections, as many and as fast as they can be made.
    Storm,
    /// Everything that is against the protocols, and floods of what is not.
    Malformed,
    /// Subscribers of very many topics that come and go.
    Topics,
    /// Connections that end at any point. Not measured by itself: the soak's.
    Churn,
}

impl Attack {
    /// Those that are measured one by one.
    pub const MEASURED: [Self; 7] =
        [Self::Calm, Self::Busy, Self::Stopped, Self::Herd, Self::Storm, Self::Malformed, Self::Topics];

    /// Those that leave nobody alone.
    pub const HOSTILE: [Self; 6] =
        [Self::Stopped, Self::Herd, Self::Storm, Self::Malformed, Self::Topics, Self::Churn];

    /// Its name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::Herd => "herd",
            Self::Storm => "storm",
            Self::Malformed => "malformed",
            Self::Topics => "topics",
            Self::Churn => "churn",
        }
    }

    /// The attack with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::MEASURED.into_iter().chain(Self::HOSTILE).find(|attack| attack.name() == name)
    }

    /// What the node has to hold before it: topics whose history is full, so that it holds the same afterwards.
    pub fn prepare(self, target: &Target, scale: &Scale) -> io::Result<()> {
        match self {
            Self::Stopped => stopped::prepare(target),
            Self::Herd => herd::prepare(target, scale),
            _ => Ok(()),
        }
    }

    /// Attacks until `control` says stop, and lets go of everything.
    pub fn run(self, target: &Target, scale: &Scale, seed: u64, control: &Control) -> io::Result<Done> {
        load::raise_file_limit()?;
        let random = fastrand::Rng::with_seed(seed);
        match self {
            Self::Calm => {
                control.pass();
                while !control.is_stopped() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(Done::default())
            }
            Self::Busy => {
                control.pass();
                while !control.is_stopped() {
                    std::hint::spin_loop();
                }
                Ok(Done::default())
            }
            Self::Stopped => stopped::run(target, scale, control),
            Self::Herd => herd::run(target, scale, random, control),
            Self::Storm => storm::run(target, scale, random, control),
            Self::Malformed => malformed::run(target, scale, random, control),
            Self::Topics => topics::run(target, scale, control),
            Self::Churn => churn::run(target, scale, random, control),
        }
    }
}

/// The settings of a node that is attacked.
pub fn settings() -> String {
    format!("{}{}{}", stopped::SETTINGS, herd::SETTINGS, load::STREAM)
}

/// The same with topics whose history comes and goes.
pub fn soak_settings() -> String {
    settings() + churn::SETTINGS
}

/// Where the node is, and a topic that healthy clients are subscribed to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where WebSocket and HTTP are served.
    pub http: SocketAddr,
    /// The publish socket.
    pub publish: SocketAddr,
    /// The topic.
    pub topic: String,
}

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Subscribers that do not read.
    pub stopped: usize,
    /// Clients that come back at once.
    pub herd: usize,
    /// Topics that they come back to, every fourth of them with a history too short for most.
    pub herd_topics: usize,
    /// Events a second published to them meanwhile.
    pub herd_rate: f64,
    /// Connections in one pass of the storm.
    pub storm: usize,
    /// Of those, the ones that are open at once: they are files of the attacker and of the node.
    pub wave: usize,
    /// Connections that send malformed input at once.
    pub senders: usize,
    /// Topics of one subscriber.
    pub topics: usize,
    /// Such subscribers.
    pub topic_clients: usize,
    /// Connections that end at any point, at once.
    pub churn: usize,
}

impl Scale {
    /// What is promised of: to be measured.
    pub fn full() -> Self {
        Self {
            stopped: 100,
            herd: 5_000,
            herd_topics: 48,
            herd_rate: 1_000.0,
            storm: 20_000,
            wave: 10_000,
            senders: 64,
            topics: 10_000,
            topic_clients: 1,
            churn: 100,
        }
    }

    /// All attacks at once, from one process.
    pub fn soak() -> Self {
        Self {
            stopped: 50,
            herd: 500,
            herd_topics: 16,
            herd_rate: 200.0,
            storm: 4_000,
            wave: 2_000,
            topics: 5_000,
            ..Self::full()
        }
    }

    /// Seconds, also in a debug build.
    pub fn small() -> Self {
        Self {
            stopped: 20,
            herd: 300,
            herd_topics: 8,
            herd_rate: 300.0,
            storm: 600,
            wave: 300,
            senders: 16,
            topics: 2_000,
            topic_clients: 2,
            churn: 30,
        }
    }
}

/// How an attack is told to stop, and tells how far it is.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    passes: AtomicU64,
}

impl Control {
    /// Tells it to let go.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// How many times it has done all of what it does.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Acquire)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Notes that it has done all of it once more.
    pub fn pass(&self) {
        self.passes.fetch_add(1, Ordering::AcqRel);
    }
}

/// What an attack did, and what it did not like.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// What, and how many of it.
    pub counts: Vec<(String, u64)>,
    /// Where the node did not do what it promises to those that attack it: the first few, and how many in all.
    pub complaints: Vec<String>,
    /// How many there were.
    pub complained: u64,
}

impl Done {
    fn count(&mut self, what: &str, count: u64) {
        self.counts.push((what.to_owned(), count));
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.complained += 1;
        if self.complaints.len() < 5 {
            self.complaints.push(what.into());
        }
    }

    /// How many of this.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.iter().find(|(name, _)| name == what).map_or(0, |(_, count)| *count)
    }

    /// In one line.
    pub fn describe(&self) -> String {
        let counts = self.counts.iter().map(|(what, count)| format!("{count} {what}"));
        counts.collect::<Vec<_>>().join(", ")
    }
}

/// Does `due` things a second.
struct Pace {
    began: Instant,
    rate: f64,
    done: u64,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { began: Instant::now(), rate, done: 0 }
    }

    /// How many are due by now that have not been asked for.
    fn due(&mut self) -> u64 {
        let all = (self.began.elapsed().as_secs_f64() * self.rate) as u64;
        all - std::mem::replace(&mut self.done, all)
    }
}

/// Takes one whole frame of the node off the front: its opcode and payload.
fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let [first, second, rest @ ..] = *bytes else { return None };
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length) as usize, rest)
        }
        length => (usize::from(length), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((first & 0x0f, payload))
}
