//! A small load generator for one node: one thread, any number of subscribers, one publisher.
//!
//! What it measures is what a subscriber would see. Publishing is open-loop: every event has a time at which it
//! is *meant* to be sent, kept in the event itself, and latency runs from there to the subscriber's read. A node
//! (or a generator) that falls behind is not forgiven what waited. Every single delivery is checked: it must be
//! of the subscriber's topic, with the next number of that topic.
//!
//! It has to be cheaper than what it measures. All events have the same length, so a reader looks for the next
//! probe where the last one was, one stride further, and searches only where it is not there.
//!
//! Linux only: the pace is kept by a timer in the poll, CPU time comes from `/proc`.
//!
//! It can publish for a time of its own ([`Load::run`]), or on and on while something else happens to the node
//! ([`Load::publish`], [`Load::observe`], [`Load::pause`]).

#![allow(dead_code, reason = "every program compiles this module and uses its own part of it")]

pub mod node;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use fanwire::proto::websocket::Opcode;
use fanwire::publish::wire::Publish;
use hdrhistogram::Histogram;
use memchr::memmem;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
pub use node::Node;
use node::{cpu_of, cpu_of_all};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The stock event's data: 159 bytes, of which the last 30 are the probe.
const DATA: &str = r#"{"retryId":"retry-123","attemptNumber":1,"errorMessage":"Connection timeout","nextRetryAt":"2024-01-15T10:30:00.000Z","probe":"0000.00000000.0000000000000000"}"#;
/// The stock event's name.
const EVENT: &str = "retry-started";
/// What stands before a probe.
const MARKER: &[u8] = br#""probe":""#;
/// The probe: topic, number of the event in its topic, and when it was meant to be sent.
const PROBE_LEN: usize = 4 + 1 + 8 + 1 + 16;
/// Marker and probe.
const MARKED_LEN: usize = MARKER.len() + PROBE_LEN;
/// Topics at most: what four digits can tell apart.
const MAX_TOPICS: usize = 10_000;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Room before them for what the last read of the same subscriber left over.
const CARRY: usize = 64;
/// Connections being set up at once.
const CONCURRENT: usize = 32;
/// Bytes that wait to be sent to the node at most: beyond them events stay due, and their intended time stands.
const UNSENT: usize = 4 << 20;
/// How often each subscriber says that it is there, in nanoseconds.
const PONG_EVERY: u64 = 15_000_000_000;
/// Everything is given up when nothing has moved for this long.
const PATIENCE: Duration = Duration::from_secs(10);

const PUBLISHER: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// How subscribers are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// JSON over WebSocket: `/ws` and a subscribe.
    WebSocket,
    /// `/sse?topics=`.
    EventStream,
    /// A WebSocket of the path `/stream/TOPIC`, which the node's settings must have.
    Path,
}

/// The table of the node's settings that [`Way::Path`] needs.
pub const STREAM: &str = r#"
[[stream]]
path = "/stream/{name}"
topic = "{name}"
envelope = '{"topic":{topic},"type":{event},"payload":{data}}'
"#;

/// What was seen in a stretch of time while events were published.
#[derive(Clone)]
pub struct Window {
    /// How long it was.
    pub took: Duration,
    /// Events published in it.
    pub published: u64,
    /// Deliveries read in it.
    pub deliveries: u64,
    /// From the intended sending to the subscriber's read, in nanoseconds, of what was meant to be sent in it.
    pub latency: Histogram<u64>,
    /// The longest that any one subscriber was without a delivery.
    pub stall: Duration,
    /// How late the generator itself was with an event, at worst.
    pub lateness: Duration,
    /// Reads from subscribers in it.
    pub reads: u64,
    /// CPU time of the node in it.
    pub node_cpu: Duration,
    /// CPU time of the generator in it.
    pub own_cpu: Duration,
    /// CPU time of everything else on the machine in it.
    pub other_cpu: Duration,
}

impl Window {
    /// Latency that this share of the deliveries did not exceed.
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }
}

/// What became of everything that was published from [`Load::publish`] to [`Load::pause`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deliveries that should have been made.
    pub expected: u64,
    /// Of those, the ones that never came.
    pub missing: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Deliveries that came after a newer one.
    pub reordered: u64,
    /// Deliveries of a topic that the subscriber does not have.
    pub strange: u64,
    /// Connections that the node closed since the start, the publisher's among them.
    pub closed: u64,
}

impl Tally {
    /// Whether everybody got everything once, in order, and is still there.
    pub fn is_clean(&self) -> bool {
        let Self { expected: _, missing, repeated, reordered, strange, closed } = self;
        missing + repeated + reordered + strange + closed == 0
    }
}

/// What a stretch of publishing came to.
#[derive(Clone)]
pub struct Figures {
    /// How long events were published.
    pub took: Duration,
    /// Events published in that time.
    pub published: u64,
    /// Deliveries read in that time.
    pub deliveries: u64,
    /// Deliveries that should have been made of all events, to the last one.
    pub expected: u64,
    /// Of those, the ones that never came.
    pub missing: u64,
    /// Deliveries that came twice, out of order, or to the wrong subscriber.
    pub wrong: u64,
    /// Connections that the node closed, the publisher's among them.
    pub closed: u64,
    /// From the intended sending to the subscriber's read, in nanoseconds.
    pub latency: Histogram<u64>,
    /// How late the generator itself was with an event, at worst.
    pub lateness: Duration,
    /// Reads from subscribers in that time.
    pub reads: u64,
    /// CPU time of the node in that time.
    pub node_cpu: Duration,
    /// CPU time of the generator in that time.
    pub own_cpu: Duration,
    /// CPU time of everything else on the machine in that time.
    pub other_cpu: Duration,
}

impl Figures {
    /// Latency that this share of the deliveries did not exceed.
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }
}

/// Subscribers and a publisher, connected.
pub struct Load {
    poll: Poll,
    /// Taken out while they are gone through.
    events: Option<Events>,
    timer: OwnedFd,
    /// When the timer goes off, so that it is not set again to the same.
    timer_at: u64,
    start: Instant,
    http: SocketAddr,
    subscribers: Vec<Subscriber>,
    publisher: Publisher,
    topics: Vec<TopicState>,
    buffer: Vec<u8>,
    /// From one probe to the next in what the node writes, for each [`Way`].
    strides: [usize; 3],
    finder: memmem::Finder<'static>,
    counts: Counts,
    latency: Histogram<u64>,
    /// Deliveries of events meant to be sent before this are not recorded in `latency`.
    recorded_from: u64,
    /// How long each connection took from TCP connect to subscription-ack, in nanoseconds.
    pub setup: Histogram<u64>,
    /// When the next subscriber says that it is there, and which one that is.
    next_pong: (u64, usize),
    /// The longest that a subscriber was without a delivery since `stalls_from`, in nanoseconds.
    stall: u64,
    stalls_from: u64,
    /// Where the publishing began that goes on.
    since: (Counts, u64),
}

/// One topic and what was published to it.
struct TopicState {
    name: String,
    subscribers: u64,
    published: u64,
    /// The whole PUBLISH frame, of which only the probe changes.
    frame: Vec<u8>,
    /// Where in it the probe is.
    probe: usize,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    ready: usize,
    deliveries: u64,
    reads: u64,
    skipped: u64,
    repeated: u64,
    reordered: u64,
    strange: u64,
    closed: u64,
}

impl Counts {
    fn wrong(&self) -> u64 {
        self.repeated + self.reordered + self.strange
    }
}

/// How far a subscriber is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Subscribing,
    Ready,
    Closed,
}

struct Subscriber {
    stream: TcpStream,
    stage: Stage,
    way: Way,
    topic: u32,
    /// The number of the newest event that it got.
    newest: u64,
    /// When that was.
    fed: u64,
    /// Numbers before that one which have not come.
    skipped: Vec<Range<u64>>,
    /// When its connection was begun.
    began: u64,
    carried: usize,
    carry: [u8; MARKED_LEN],
    /// What came before it was ready.
    answers: Vec<u8>,
}

struct Publisher {
    stream: TcpStream,
    unsent: Vec<u8>,
    sent: usize,
    is_blocked: bool,
    is_closed: bool,
    next_topic: usize,
    pace: Pace,
    lateness: u64,
}

/// When events are meant to be sent.
#[derive(Clone, Copy, Default)]
struct Pace {
    from: u64,
    /// Nanoseconds between two events; 0 for all at once.
    interval: f64,
    done: u64,
    events: u64,
}

impl Pace {
    fn due(&self) -> u64 {
        if self.done == self.events {
            u64::MAX
        } else {
            self.from + (self.done as f64 * self.interval) as u64
        }
    }
}

impl Load {
    /// Connects the publisher, and `subscribers` over WebSocket, spread evenly over `topics`.
    pub fn connect(node: &Node, subscribers: usize, topics: usize) -> io::Result<Self> {
        Self::connect_by(node, subscribers, topics, &[Way::WebSocket])
    }

    /// The same with subscribers connected in these ways, in turns.
    pub fn connect_by(node: &Node, subscribers: usize, topics: usize, ways: &[Way]) -> io::Result<Self> {
        assert!(topics <= MAX_TOPICS && topics <= subscribers, "every topic has a subscriber");
        raise_file_limit()?;
        let poll = Poll::new()?;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let stream = std::net::TcpStream::connect(node.publish)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, PUBLISHER, Interest::READABLE | Interest::WRITABLE)?;
        let publisher = Publisher {
            stream,
            unsent: Vec::with_capacity(2 * UNSENT),
            sent: 0,
            is_blocked: false,
            is_closed: false,
            next_topic: 0,
            pace: Pace::default(),
            lateness: 0,
        };
        let mut load = Self {
            poll,
            events: None,
            timer,
            timer_at: 0,
            start: Instant::now(),
            http: node.http,
            subscribers: Vec::with_capacity(subscribers),
            publisher,
            topics: (0..topics).map(TopicState::new).collect(),
            buffer: vec![0; CARRY + READ_BYTES],
            strides: [MARKED_LEN; 3],
            finder: memmem::Finder::new(MARKER),
            counts: Counts::default(),
            latency: histogram(),
            recorded_from: 0,
            setup: histogram(),
            next_pong: (0, 0),
            stall: 0,
            stalls_from: 0,
            since: (Counts::default(), 0),
        };
        load.connect_subscribers(subscribers, ways)?;
        Ok(load)
    }

    /// Begins to publish `rate` events a second, round robin over the topics, until [`Load::pause`].
    pub fn publish(&mut self, rate: f64) {
        self.since = (self.counts, self.expected());
        let from = self.now() + 1_000_000;
        self.publisher.pace = Pace { from, interval: 1e9 / rate, done: 0, events: u64::MAX };
    }

    /// Looks for `time`, and on until `is_over`, which is asked a few times a second.
    pub fn observe(
        &mut self,
        node: &Node,
        time: Duration,
        mut is_over: impl FnMut() -> bool,
    ) -> io::Result<Window> {
        let began = self.now();
        (self.recorded_from, self.stalls_from, self.stall) = (began, began, 0);
        self.latency.reset();
        self.publisher.lateness = 0;
        let (counts, done) = (self.counts, self.publisher.pace.done);
        let (node_cpu, own_cpu, all_cpu) = (node.cpu(), cpu_of("self"), cpu_of_all());
        let end = began + time.as_nanos() as u64;
        self.turn_until(end)?;
        while !is_over() {
            self.turn_until(self.now() + 50_000_000)?;
        }
        let now = self.now();
        let waiting = self.subscribers.iter().filter(|subscriber| subscriber.stage == Stage::Ready);
        let waiting = waiting.map(|subscriber| now - subscriber.fed.max(began)).max().unwrap_or(0);
        let (node_cpu, own_cpu) = (node.cpu().saturating_sub(node_cpu), cpu_of("self") - own_cpu);
        Ok(Window {
            took: Duration::from_nanos(now - began),
            published: self.publisher.pace.done - done,
            deliveries: self.counts.deliveries - counts.deliveries,
            latency: self.latency.clone(),
            stall: Duration::from_nanos(self.stall.max(waiting)),
            lateness: Duration::from_nanos(self.publisher.lateness),
            reads: self.counts.reads - counts.reads,
            node_cpu,
            own_cpu,
            other_cpu: cpu_of_all().saturating_sub(all_cpu).saturating_sub(node_cpu + own_cpu),
        })
    }

    /// Publishes no more, and waits for what is still on its way.
    pub fn pause(&mut self) -> io::Result<Tally> {
        // A backlog of the generator itself is not published any more: the figures show it.
        self.publisher.pace.events = self.publisher.pace.done;
        let (before, expected_before) = self.since;
        let received = self.collect(before, expected_before)?;
        let expected = self.expected() - expected_before;
        Ok(Tally {
            expected,
            missing: expected.saturating_sub(received),
            repeated: self.counts.repeated - before.repeated,
            reordered: self.counts.reordered - before.reordered,
            strange: self.counts.strange - before.strange,
            closed: self.counts.closed + u64::from(self.publisher.is_closed),
        })
    }

    /// Reads what comes for a while, with nothing published.
    pub fn idle(&mut self, time: Duration) -> io::Result<()> {
        self.turn_until(self.now() + time.as_nanos() as u64)
    }

    /// Publishes `rate` events a second, round robin over the topics, for `warm_up` and then `time`, of which
    /// only the latter is measured; then waits for what is still on its way.
    pub fn run(&mut self, node: &Node, rate: f64, warm_up: Duration, time: Duration) -> io::Result<Figures> {
        self.publish(rate);
        let events = (rate * (warm_up + time).as_secs_f64()).round() as u64;
        self.publisher.pace.events = events;
        self.turn_until(self.publisher.pace.from + warm_up.as_nanos() as u64)?;
        let window = self.observe(node, time, || true)?;
        let Tally { expected, missing, repeated, reordered, strange, closed } = self.pause()?;
        Ok(Figures {
            took: window.took,
            published: window.published,
            deliveries: window.deliveries,
            expected,
            missing,
            wrong: repeated + reordered + strange,
            closed,
            latency: window.latency,
            lateness: window.lateness,
            reads: window.reads,
            node_cpu: window.node_cpu,
            own_cpu: window.own_cpu,
            other_cpu: window.other_cpu,
        })
    }

    /// Publishes `events` at once, round robin over the topics, and waits until every subscriber has all that
    /// it should get. Answers how long that took.
    ///
    /// # Errors
    /// Something is missing, or came twice.
    pub fn burst(&mut self, events: u64) -> io::Result<Duration> {
        let before = self.counts;
        let expected_before = self.expected();
        let from = self.now();
        self.recorded_from = from;
        self.publisher.pace = Pace { from, interval: 0.0, done: 0, events };
        while self.publisher.pace.done < events {
            self.turn(self.now() + 1_000_000_000)?;
            if self.publisher.is_closed {
                return Err(io::Error::other("the node closed the publisher's connection"));
            }
        }
        let received = self.collect(before, expected_before)?;
        let took = Duration::from_nanos(self.now() - from);
        let expected = self.expected() - expected_before;
        if received != expected || self.counts.wrong() != before.wrong() {
            return Err(io::Error::other(format!("{received} of {expected} deliveries came")));
        }
        Ok(took)
    }

    /// Waits until nothing is missing any more, or nothing comes any more; answers how many came.
    fn collect(&mut self, before: Counts, expected_before: u64) -> io::Result<u64> {
        let mut moved = Instant::now();
        loop {
            let received = self.counts.deliveries - before.deliveries;
            // What was skipped will not come.
            let skipped = self.counts.skipped.saturating_sub(before.skipped);
            if received + skipped >= self.expected() - expected_before || moved.elapsed() > PATIENCE {
                return Ok(received);
            }
            self.turn(self.now() + 100_000_000)?;
            if self.counts.deliveries - before.deliveries != received {
                moved = Instant::now();
            }
        }
    }

    /// Deliveries of everything published so far.
    fn expected(&self) -> u64 {
        self.topics.iter().map(|topic| topic.published * topic.subscribers).sum()
    }

    /// Nanoseconds since the generator started.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn connect_subscribers(&mut self, subscribers: usize, ways: &[Way]) -> io::Result<()> {
        let mut moved = Instant::now();
        while self.counts.ready < subscribers {
            let ready = self.counts.ready;
            while self.subscribers.len() < subscribers
                && self.subscribers.len() - self.counts.ready < CONCURRENT
            {
                let number = self.subscribers.len();
                let topic = number % self.topics.len();
                let began = self.now();
                let mut stream = TcpStream::connect(self.http)?;
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(number), both)?;
                self.topics[topic].subscribers += 1;
                self.subscribers.push(Subscriber {
                    stream,
                    stage: Stage::Connecting,
                    way: ways[number / self.topics.len() % ways.len()],
                    topic: topic as u32,
                    newest: 0,
                    fed: 0,
                    skipped: Vec::new(),
                    began,
                    carried: 0,
                    carry: [0; MARKED_LEN],
                    answers: Vec::new(),
                });
            }
            self.turn(self.now() + 100_000_000)?;
            if self.counts.closed > 0 {
                return Err(io::Error::other("the node closed a connection that was being set up"));
            }
            if self.counts.ready != ready {
                moved = Instant::now();
            } else if moved.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "only {ready} of {subscribers} subscribers could connect"
                )));
            }
        }
        Ok(())
    }

    fn turn_until(&mut self, end: u64) -> io::Result<()> {
        while self.now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// One poll, until `deadline` at the latest, and everything that it reports.
    fn turn(&mut self, deadline: u64) -> io::Result<()> {
        let now = self.now();
        self.publish_due(now);
        self.pong_due(now);
        let wait = self.publisher.due().min(deadline).saturating_sub(now);
        // The poll counts in milliseconds, which is too coarse for a pace: the timer wakes it.
        let timeout = if wait == 0 {
            Some(Duration::ZERO)
        } else {
            self.set_timer(now + wait, wait)?;
            None
        };
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(1024));
        match self.poll.poll(&mut events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &events {
            match event.token() {
                TIMER => {
                    // How often it went off is of no interest; the read makes it quiet.
                    let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
                    self.timer_at = 0;
                }
                PUBLISHER => self.handle_publisher(event.is_readable(), event.is_writable()),
                Token(number) => {
                    if self.subscribers[number].stage == Stage::Connecting {
                        self.upgrade(number);
                    }
                    if event.is_readable() || event.is_error() {
                        self.read(number, event.is_read_closed());
                    }
                }
            }
        }
        self.events = Some(events);
        Ok(())
    }

    fn set_timer(&mut self, at: u64, wait: u64) -> io::Result<()> {
        if at == self.timer_at {
            return Ok(());
        }
        self.timer_at = at;
        let value = Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as _ };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Writes the events whose time has come.
    fn publish_due(&mut self, now: u64) {
        let Self { publisher, topics, .. } = self;
        if publisher.due() > now {
            return;
        }
        publisher.lateness = publisher.lateness.max(now - publisher.due());
        while publisher.due() <= now {
            let topic = &mut topics[publisher.next_topic];
            topic.published += 1;
            let probe = &mut topic.frame[topic.probe..][..PROBE_LEN];
            write_digits(&mut probe[5..13], topic.published);
            write_digits(&mut probe[14..30], publisher.due());
            publisher.unsent.extend_from_slice(&topic.frame);
            publisher.next_topic = (publisher.next_topic + 1) % topics.len();
            publisher.pace.done += 1;
        }
        if !publisher.is_blocked {
            publisher.flush();
        }
    }

    fn handle_publisher(&mut self, readable: bool, writable: bool) {
        if writable {
            self.publisher.flush();
        }
        // Nothing is asked of the node that it would answer: what comes is a refusal, or the end.
        if readable {
            match self.publisher.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => self.publisher.is_closed = true,
            }
        }
    }

    /// The TCP connection stands: the WebSocket handshake begins.
    fn upgrade(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        let topic = &self.topics[subscriber.topic as usize].name;
        let request = match subscriber.way {
            Way::WebSocket => upgrade("/ws"),
            Way::EventStream => format!("GET /sse?topics={topic} HTTP/1.1\r\nHost: node\r\n\r\n"),
            Way::Path => upgrade(&format!("/stream/{topic}")),
        };
        match subscriber.stream.peer_addr() {
            Ok(_) => {
                drop(subscriber.stream.set_nodelay(true));
                subscriber.stage = Stage::Upgrading;
                self.send(number, request.as_bytes());
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(_) => self.close(number),
        }
    }

    /// Sends what fits any socket's buffer.
    fn send(&mut self, number: usize, bytes: &[u8]) {
        if self.subscribers[number].stream.write(bytes).ok() != Some(bytes.len()) {
            self.close(number);
        }
    }

    fn close(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        if subscriber.stage != Stage::Closed {
            subscriber.stage = Stage::Closed;
            self.counts.closed += 1;
            drop(self.poll.registry().deregister(&mut subscriber.stream));
        }
    }

    /// An unasked pong now and then keeps the node from finding silent clients. One client at a time says so: all
    /// at once would be a burst that nobody measures.
    fn pong_due(&mut self, now: u64) {
        while self.next_pong.0 <= now {
            let number = self.next_pong.1 % self.subscribers.len().max(1);
            let every = PONG_EVERY / self.subscribers.len().max(1) as u64;
            self.next_pong = (now.max(self.next_pong.0) + every, number + 1);
            let Some(subscriber) = self.subscribers.get(number) else { return };
            if subscriber.stage == Stage::Ready && subscriber.way != Way::EventStream {
                let mut pong = Vec::new();
                write_masked(&mut pong, Opcode::Pong, b"");
                self.send(number, &pong);
            }
        }
    }

    /// Reads what a subscriber has; `is_last` where the node has said that nothing more comes.
    fn read(&mut self, number: usize, is_last: bool) {
        loop {
            let subscriber = &mut self.subscribers[number];
            let is_ready = match subscriber.stage {
                Stage::Connecting | Stage::Closed => return,
                Stage::Upgrading | Stage::Subscribing => false,
                Stage::Ready => true,
            };
            let count = match subscriber.stream.read(&mut self.buffer[CARRY..]) {
                Ok(0) => return self.close(number),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.close(number),
            };
            let now = self.now();
            if is_ready {
                self.counts.reads += 1;
                self.check(number, count, now);
            } else {
                self.subscribers[number].answers.extend_from_slice(&self.buffer[CARRY..CARRY + count]);
                self.advance(number, now);
            }
            // A sweep over a thousand sockets must not make the next event late.
            self.publish_due(now);
            // The poll is edge-triggered, and on Linux a read that did not fill the buffer has emptied the socket.
            // Only an end that came with the bytes would not be told again.
            if count < READ_BYTES && !is_last {
                return;
            }
        }
    }

    /// A subscriber is being set up: the next step, if the answer to the last one is there.
    fn advance(&mut self, number: usize, now: u64) {
        let subscriber = &mut self.subscribers[number];
        if subscriber.stage == Stage::Upgrading {
            let Some(end) = memmem::find(&subscriber.answers, b"\r\n\r\n") else { return };
            let is_stream = subscriber.way == Way::EventStream;
            let expected: &[u8] = if is_stream { b"HTTP/1.1 200" } else { b"HTTP/1.1 101" };
            if !subscriber.answers.starts_with(expected) {
                return self.close(number);
            }
            subscriber.answers.drain(..end + 4);
            subscriber.stage = Stage::Subscribing;
            match subscriber.way {
                Way::WebSocket => {}
                // Its upgrade says that the subscription has taken effect.
                Way::Path => return self.begin(number, now),
                Way::EventStream => return self.advance(number, now),
            }
            let topic = &self.topics[subscriber.topic as usize].name;
            let mut subscribe = Vec::new();
            let text = format!(r#"{{"type":"subscribe","categories":["{topic}"]}}"#);
            write_masked(&mut subscribe, Opcode::Text, text.as_bytes());
            return self.send(number, &subscribe);
        }
        let answer: &[u8] = match subscriber.way {
            Way::EventStream => b": subscribed",
            _ => br#""subscription-ack""#,
        };
        if memmem::find(&subscriber.answers, answer).is_some() {
            self.begin(number, now);
        }
    }

    /// A subscriber is set up: what comes now are events.
    fn begin(&mut self, number: usize, now: u64) {
        let subscriber = &mut self.subscribers[number];
        subscriber.answers = Vec::new();
        subscriber.stage = Stage::Ready;
        subscriber.newest = self.topics[subscriber.topic as usize].published;
        self.counts.ready += 1;
        self.setup.saturating_record(now - subscriber.began);
    }

    /// Checks every delivery in the bytes just read, and in what the last read left over.
    fn check(&mut self, number: usize, count: usize, now: u64) {
        let Self { subscribers, buffer, finder, strides, counts, latency, recorded_from, .. } = self;
        let subscriber = &mut subscribers[number];
        let stride = &mut strides[subscriber.way as usize];
        let start = CARRY - subscriber.carried;
        buffer[start..CARRY].copy_from_slice(&subscriber.carry[..subscriber.carried]);
        let bytes = &buffer[start..CARRY + count];
        let own_topic = digits(subscriber.topic);
        // Where the next marker may begin, where it probably is, and where the one before it was.
        let (mut from, mut guess, mut last) = (0, usize::MAX, None);
        let rest = loop {
            let at = match bytes.get(guess..).and_then(<[u8]>::first_chunk::<{ MARKER.len() }>) {
                Some(marker) if marker == MARKER => guess,
                _ => match finder.find(&bytes[from..]) {
                    Some(offset) => {
                        let at = from + offset;
                        *stride = last.map_or(*stride, |last| at - last);
                        at
                    }
                    // A marker may have begun in the last bytes.
                    None => break from.max(bytes.len().saturating_sub(MARKER.len() - 1)),
                },
            };
            let Some(probe) = bytes[at + MARKER.len()..].first_chunk::<PROBE_LEN>() else { break at };
            let (topic, event, sent) = read_probe(probe);
            if topic != own_topic {
                counts.strange += 1;
            } else if event == subscriber.newest + 1 {
                counts.deliveries += 1;
                subscriber.newest = event;
            } else {
                subscriber.note_jump(event, counts);
            }
            if sent >= *recorded_from {
                latency.saturating_record(now.saturating_sub(sent));
            }
            from = at + MARKED_LEN;
            guess = at + *stride;
            last = Some(at);
        };
        if last.is_some() {
            self.stall = self.stall.max(now - subscriber.fed.max(self.stalls_from).min(now));
            subscriber.fed = now;
        }
        let rest = &bytes[rest..];
        subscriber.carried = rest.len();
        subscriber.carry[..rest.len()].copy_from_slice(rest);
    }
}

impl Subscriber {
    /// An event that is not the next one.
    fn note_jump(&mut self, event: u64, counts: &mut Counts) {
        if event > self.newest {
            counts.skipped += event - self.newest - 1;
            counts.deliveries += 1;
            self.skipped.push(self.newest + 1..event);
            self.newest = event;
            return;
        }
        match self.skipped.iter().position(|range| range.contains(&event)) {
            Some(place) => {
                let range = self.skipped.swap_remove(place);
                let rest = [range.start..event, event + 1..range.end];
                self.skipped.extend(rest.into_iter().filter(|range| !range.is_empty()));
                counts.skipped -= 1;
                counts.deliveries += 1;
                counts.reordered += 1;
            }
            None => counts.repeated += 1,
        }
    }
}

impl TopicState {
    fn new(number: usize) -> Self {
        let name = format!("topic-{number:04}");
        let mut frame = Vec::new();
        let publish = Publish { topics: &name, event: EVENT, key: "", data: DATA, timestamp_ms: 0 };
        publish.encode(0, 0, &mut frame).expect("short names and data");
        let probe = memmem::find(&frame, MARKER).expect("the data has a probe") + MARKER.len();
        write_digits(&mut frame[probe..probe + 4], number as u64);
        Self { name, subscribers: 0, published: 0, frame, probe }
    }
}

impl Publisher {
    /// When the next event is to be written: not while the node takes nothing and too much waits already.
    fn due(&self) -> u64 {
        let has_room = self.unsent.len() - self.sent < UNSENT && !self.is_closed;
        if has_room { self.pace.due() } else { u64::MAX }
    }

    fn flush(&mut self) {
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    if self.sent > UNSENT / 2 {
                        self.unsent.drain(..self.sent);
                        self.sent = 0;
                    }
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
        self.is_blocked = false;
        self.unsent.clear();
        self.sent = 0;
    }
}

/// A histogram of nanoseconds, to two digits, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).expect("valid bounds")
}

/// Every subscriber is a file.
pub fn raise_file_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

/// The request that opens a WebSocket.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Writes a client's frame of less than 126 bytes, masked with zeros: the node takes the mask off as always.
fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    assert!(payload.len() < 126, "a short frame");
    let start = out.len();
    fanwire::proto::websocket::write_frame(out, opcode, payload);
    out[start + 1] |= 0x80;
    out.splice(start + 2..start + 2, [0; 4]);
}

fn write_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Four digits as they stand in a probe.
fn digits(value: u32) -> [u8; 4] {
    let mut out = [0; 4];
    write_digits(&mut out, u64::from(value));
    out
}

/// Topic, number and intended time.
fn read_probe(probe: &[u8; PROBE_LEN]) -> ([u8; 4], u64, u64) {
    let [t0, t1, t2, t3, ..] = *probe;
    let time = eight_digits(probe, 14) * 100_000_000 + eight_digits(probe, 22);
    ([t0, t1, t2, t3], eight_digits(probe, 5), time)
}

/// The value of the eight digits at `at`, in three multiplications: pairs, then fours, then all.
fn eight_digits(probe: &[u8; PROBE_LEN], at: usize) -> u64 {
    let digits = probe[at..].first_chunk().copied().unwrap_or_default();
    let value = u64::from_le_bytes(digits) & 0x0F0F_0F0F_0F0F_0F0F;
    let value = value.wrapping_mul(1 + (10 << 8)) >> 8;
    let value = (value & 0x00FF_00FF_00FF_00FF).wrapping_mul(1 + (100 << 16)) >> 16;
    (value & 0x0000_FFFF_0000_FFFF).wrapping_mul(1 + (10_000 << 32)) >> 32
}
