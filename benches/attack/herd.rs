//! Clients that all come back at once, each from another place of the history, while events are published. What
//! each gets is checked against what was published: everything after where it was, once and in order, or told to
//! the event what is missing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanwire::client::{Event, Publisher};
use memchr::memmem;
use serde_json::{Value, json};

use super::crowd::{Actor, Crowd, Manner, Then};
use super::{Control, Done, PATIENCE, Pace, Scale, Target, take_frame};
use fanwire::cli::load::node::get;
use fanwire::cli::load::upgrade;
use fanwire::proto::websocket::masked;

pub const SETTINGS: &str = r#"
[[topic]]
prefix = "run:"
history = { events = 1000, age = "1h" }

[[topic]]
prefix = "short:"
history = { events = 100, age = "1h" }
"#;

/// What the longer histories keep.
const KEPT: u64 = 1000;

/// An event's data is its number, which is its offset as well: nobody else publishes here.
fn data(number: u64) -> String {
    format!(r#"{{"n":{number},"line":"{:-<120}"}}"#, "what a run says about itself ")
}

fn name(topic: usize) -> String {
    let prefix = if topic % 4 == 3 { "short" } else { "run" };
    format!("{prefix}:{topic}")
}

/// A topic to come back to.
struct Topic {
    name: String,
    epoch: String,
    /// The newest number that the node has accepted for certain.
    accepted: AtomicU64,
}

/// Fills the histories, and reads them once. What they keep afterwards is then always as much: an event in a round of
/// its own, and written once for all who come back.
pub fn prepare(target: &Target, scale: &Scale) -> io::Result<()> {
    let mut publisher = Publisher::open(&target.publish.to_string())?;
    for number in 1..=KEPT {
        for topic in 0..scale.herd_topics {
            publisher.publish(&Event::new(&[&name(topic)], "line", &data(number)))?;
        }
        // No two events of a topic in one read.
        publisher.settle()?;
    }
    publisher.close()?;
    let topics = find_all(target, scale)?;
    let mut crowd = crowd(&topics)?;
    for topic in 0..topics.len() {
        crowd.open(target.http, Manner::default(), Client::new(topic, 0))?;
    }
    let deadline = Instant::now() + 2 * PATIENCE;
    while !crowd.actors().all(|client| client.has_all(KEPT)) {
        if Instant::now() > deadline || crowd.shared.done.complained > 0 {
            return Err(io::Error::other(format!("the history cannot be read: {:?}", crowd.shared.done)));
        }
        crowd.turn(Duration::from_millis(5))?;
    }
    Ok(())
}

fn find(http: SocketAddr, name: String) -> io::Result<Topic> {
    let answer: Value = serde_json::from_str(&get(http, &format!("/api/topics/{name}"))?)?;
    let (epoch, offset) = (answer["epoch"].as_str(), answer["offset"].as_u64());
    let (Some(epoch), Some(offset)) = (epoch, offset) else {
        return Err(io::Error::other(format!("{name} has no history: {answer}")));
    };
    Ok(Topic { name, epoch: epoch.to_owned(), accepted: AtomicU64::new(offset) })
}

fn find_all(target: &Target, scale: &Scale) -> io::Result<Arc<[Topic]>> {
    (0..scale.herd_topics).map(|topic| find(target.http, name(topic))).collect()
}

fn crowd(topics: &Arc<[Topic]>) -> io::Result<Crowd<Client>> {
    Crowd::new(Shared { topics: Arc::clone(topics), events: 0, told_missing: 0, done: Done::default() })
}

/// A client that comes back.
struct Client {
    topic: usize,
    /// Where it was.
    since: u64,
    /// The number that has to come next, once it is told where it goes on.
    next: Option<u64>,
    is_upgraded: bool,
    is_broken: bool,
    bytes: Vec<u8>,
}

struct Shared {
    topics: Arc<[Topic]>,
    events: u64,
    told_missing: u64,
    done: Done,
}

impl Client {
    fn new(topic: usize, since: u64) -> Self {
        Self { topic, since, next: None, is_upgraded: false, is_broken: false, bytes: Vec::new() }
    }

    fn has_all(&self, upto: u64) -> bool {
        self.is_broken || self.next.is_some_and(|next| next > upto)
    }

    fn complain(&mut self, shared: &mut Shared, what: &str) -> Then {
        self.is_broken = true;
        let Self { since, next, .. } = self;
        let topic = &shared.topics[self.topic].name;
        shared.done.complain(format!("{topic}, back from {since}, {next:?} is next: {what}"));
        Then::Stay
    }

    fn handle(&mut self, text: &[u8], shared: &mut Shared) -> Then {
        if text.starts_with(br#"{"type":"event""#) {
            let (number, offset) = (number_after(text, br#""n":"#), number_after(text, br#","offset":"#));
            if offset.is_none() || offset != self.next || number != offset {
                return self.complain(shared, &format!("{offset:?} came, number {number:?}"));
            }
            self.next = offset.map(|offset| offset + 1);
            shared.events += 1;
            return Then::Stay;
        }
        let message: Value = serde_json::from_slice(text).unwrap_or_default();
        let topics = Arc::clone(&shared.topics);
        let topic = &topics[self.topic];
        let told = &message["data"];
        match message["type"].as_str() {
            Some("subscription-ack") => {
                let at = told["positions"][&topic.name]["offset"].as_u64().unwrap_or_default();
                let missing = &told["missing"][&topic.name];
                let is_exact = match told["recovered"].as_bool() {
                    Some(true) => at == self.since,
                    _ => *missing == json!({"from": self.since + 1, "to": at}),
                };
                if !is_exact {
                    return self.complain(shared, &message.to_string());
                }
                self.next = Some(at + 1);
                shared.told_missing += at - self.since;
            }
            // The history went on before its turn came.
            Some("gap") => match (told["dropped"].as_u64(), self.next) {
                (Some(dropped), Some(next)) => {
                    self.next = Some(next + dropped);
                    shared.told_missing += dropped;
                }
                _ => return self.complain(shared, &message.to_string()),
            },
            Some("ping") => {}
            _ => return self.complain(shared, &message.to_string()),
        }
        Then::Stay
    }
}

fn number_after(text: &[u8], what: &[u8]) -> Option<u64> {
    let digits = &text[memmem::rfind(text, what)? + what.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

impl Actor for Client {
    type Shared = Shared;

    fn connected(&mut self, _: &mut Shared, out: &mut Vec<u8>) -> Then {
        out.extend_from_slice(upgrade("/ws").as_bytes());
        Then::Stay
    }

    fn received(&mut self, shared: &mut Shared, bytes: &[u8], out: &mut Vec<u8>) -> Then {
        self.bytes.extend_from_slice(bytes);
        if !self.is_upgraded {
            let Some(end) = memmem::find(&self.bytes, b"\r\n\r\n") else { return Then::Stay };
            if !self.bytes.starts_with(b"HTTP/1.1 101") {
                // Too many at once: it may come again.
                return Then::Close;
            }
            self.bytes.drain(..end + 4);
            self.is_upgraded = true;
            let Topic { name, epoch, .. } = &shared.topics[self.topic];
            let since = json!({name: {"epoch": epoch, "offset": self.since}});
            // Whoever reads too slowly for what is live goes on from the history too.
            let message = json!({"type": "subscribe", "topics": [name], "since": since, "policy": "replay"});
            out.extend(masked(0x81, message.to_string().as_bytes()));
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &bytes[..];
        let mut then = Then::Stay;
        while then == Then::Stay
            && let Some((opcode, payload)) = take_frame(&mut rest)
        {
            then = match opcode {
                1 => self.handle(payload, shared),
                8 => self.complain(shared, &format!("closed: {}", String::from_utf8_lossy(payload))),
                _ => Then::Stay,
            };
        }
        self.bytes.extend_from_slice(rest);
        then
    }

    fn ended(&mut self, shared: &mut Shared) {
        // Before it was a client it may have been one too many; the wave opens another.
        if self.is_upgraded && !self.is_broken {
            self.complain(shared, "the connection ended");
        }
    }
}

/// Publishes until it is told to pause, and then waits until everything is accepted.
struct Feeder {
    is_over: AtomicBool,
    is_to_pause: AtomicBool,
    is_paused: AtomicBool,
}

impl Feeder {
    fn run(&self, target: &Target, topics: &[Topic], rate: f64) -> io::Result<()> {
        let mut publisher = Publisher::open(&target.publish.to_string())?;
        let mut newest: Vec<u64> =
            topics.iter().map(|topic| topic.accepted.load(Ordering::Acquire)).collect();
        let (mut pace, mut turn) = (Pace::new(rate), 0);
        while !self.is_over.load(Ordering::Acquire) {
            let is_to_pause = self.is_to_pause.load(Ordering::Acquire);
            let due = pace.due();
            if !is_to_pause {
                for _ in 0..due {
                    turn = (turn + 1) % topics.len();
                    newest[turn] += 1;
                    let data = data(newest[turn]);
                    publisher.publish(&Event::new(&[&topics[turn].name], "line", &data))?;
                }
            }
            publisher.settle()?;
            for (topic, newest) in topics.iter().zip(&newest) {
                topic.accepted.store(*newest, Ordering::Release);
            }
            self.is_paused.store(is_to_pause, Ordering::Release);
            std::thread::sleep(Duration::from_millis(5));
        }
        publisher.close()
    }
}

pub fn run(target: &Target, scale: &Scale, mut random: fastrand::Rng, control: &Control) -> io::Result<Done> {
    let topics = find_all(target, scale)?;
    let (is_over, is_to_pause, is_paused) = Default::default();
    let feeder = Feeder { is_over, is_to_pause, is_paused };
    std::thread::scope(|scope| {
        let fed = scope.spawn(|| feeder.run(target, &topics, scale.herd_rate));
        let ended = come_back(target, scale, &mut random, control, &topics, &feeder);
        feeder.is_over.store(true, Ordering::Release);
        fed.join().map_err(|_| io::Error::other("the feeder panicked"))??;
        ended
    })
}

fn come_back(
    target: &Target,
    scale: &Scale,
    random: &mut fastrand::Rng,
    control: &Control,
    topics: &Arc<[Topic]>,
    feeder: &Feeder,
) -> io::Result<Done> {
    let mut crowd = crowd(topics)?;
    let (mut resumed, mut waves) = (0, 0);
    let accepted = |client: &Client| topics[client.topic].accepted.load(Ordering::Acquire);
    while !control.is_stopped() {
        let deadline = Instant::now() + 2 * PATIENCE;
        // All at once. Who was turned away as one too many comes again.
        let mut looked = Instant::now();
        let has_time = |deadline: Instant| Instant::now() < deadline && !control.is_stopped();
        loop {
            while crowd.len() < scale.herd {
                let topic = random.usize(..topics.len());
                let since = random.u64(..=topics[topic].accepted.load(Ordering::Acquire));
                // Of most topics all of that is kept; every fourth keeps a tenth.
                let oldest = topics[topic].accepted.load(Ordering::Acquire).saturating_sub(KEPT);
                let since = since.max(oldest);
                if !crowd.open(target.http, Manner::default(), Client::new(topic, since))? {
                    break;
                }
                if crowd.len().is_multiple_of(64) {
                    crowd.turn(Duration::ZERO)?;
                }
            }
            crowd.turn(Duration::from_millis(5))?;
            if looked.elapsed() < Duration::from_millis(50) {
                continue;
            }
            looked = Instant::now();
            // Where the head is now, everybody has been: live from there on.
            let is_back = crowd.len() == scale.herd && crowd.actors().all(|c| c.has_all(accepted(c)));
            if is_back || !has_time(deadline) {
                break;
            }
        }
        // Nothing more comes, and everybody has it all.
        feeder.is_to_pause.store(true, Ordering::Release);
        let mut is_whole = false;
        while !is_whole && has_time(deadline) {
            crowd.turn(Duration::from_millis(5))?;
            is_whole = feeder.is_paused.load(Ordering::Acquire)
                && crowd.actors().all(|client| client.has_all(accepted(client)));
        }
        if is_whole {
            resumed += crowd.len() as u64;
            waves += 1;
            control.pass();
        } else if !control.is_stopped() {
            let late = crowd.actors().find(|client| !client.has_all(accepted(client)));
            let late = late.map(|c| format!("{} from {} is at {:?}", topics[c.topic].name, c.since, c.next));
            crowd.shared.done.complain(format!("not everybody was back in time: {late:?}"));
        }
        crowd.sort_out(|_, _| if random.bool() { Then::Reset } else { Then::Close });
        feeder.is_to_pause.store(false, Ordering::Release);
    }
    let Shared { events, told_missing, mut done, .. } = crowd.shared;
    done.count("clients came back", resumed);
    done.count("waves", waves);
    done.count("events checked", events);
    done.count("told to be missing", told_missing);
    Ok(done)
}
