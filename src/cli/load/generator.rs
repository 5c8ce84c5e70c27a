//! The poll loop: connects subscribers, publishes what is due, reads and checks what comes.
//!
//! It can publish for a time of its own ([`Load::run`]), or on and on while something else happens to the server
//! ([`Load::publish`], [`Load::observe`], [`Load::pause`]); each is also there in steps, for callers that have
//! something else to do in between.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::node::Node;
use super::process::{Process, cpu_of_all};
use super::publisher::{Publisher, refusal};
use super::stream::Address;
use crate::load::figures::{Counts, Tally, Window, histogram};
use crate::load::outgoing::TopicState;
use crate::load::pace::Pace;
use crate::load::peer::{Dialect, Progress, Protocol, Turn, advance};
use crate::load::probe::{DATA_BYTES, MARKED_LEN, MARKER, MAX_TOPICS, data, scan, topic_digits};
use crate::load::subscriber::{Stage, Subscriber};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Room before them for what the last read of the same subscriber left over.
const CARRY: usize = 64;
/// How often each connection says that it is there, in nanoseconds.
const LIFE_EVERY: u64 = 15_000_000_000;
/// Everything is given up when nothing has moved for this long.
const PATIENCE: Duration = Duration::from_secs(10);

const PUBLISHER: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// Who connects where, and what is published.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where subscribers connect.
    pub to: SocketAddr,
    /// Where events go in; `None`: nothing is published.
    pub publish: Option<Address>,
    /// What subscribers speak, in turns; the publisher speaks the first.
    pub protocols: Vec<Arc<dyn Protocol>>,
    /// How many subscribers.
    pub subscribers: usize,
    /// Topics that they are spread over; at most as many as subscribers, and [`MAX_TOPICS`].
    pub topics: usize,
    /// What stands before the four digits of a topic's name.
    pub prefix: String,
    /// Bytes of an event's data, [`DATA_BYTES`] at least.
    pub bytes: usize,
    /// Connections being set up at once.
    pub concurrent: usize,
    /// Bytes of a subscriber's receive buffer; `None`: what the system gives.
    pub receive_buffer: Option<usize>,
    /// Whether a connection that the server closes before it is set up is only counted, and no error.
    pub bears_refusals: bool,
    /// Whether subscribers end with a reset, which leaves no port waiting: for those who come and go.
    pub resets: bool,
}

impl Plan {
    /// One topic of the stock event, JSON to a node, 32 connections being set up at once.
    pub fn new(to: SocketAddr, publish: Option<Address>, subscribers: usize) -> Self {
        Self {
            to,
            publish,
            protocols: vec![Arc::new(Dialect::Json)],
            subscribers,
            topics: 1,
            prefix: "topic-".to_owned(),
            bytes: DATA_BYTES,
            concurrent: 32,
            receive_buffer: None,
            bears_refusals: false,
            resets: false,
        }
    }

    fn check(&self) -> io::Result<()> {
        let wrong = |what: String| Err(io::Error::new(ErrorKind::InvalidInput, what));
        let Self { topics, subscribers, .. } = self;
        if *topics == 0 || *topics > MAX_TOPICS {
            return wrong(format!("{topics} topics: 1 to {MAX_TOPICS} can be told apart"));
        }
        if topics > subscribers {
            return wrong(format!("{topics} topics for {subscribers} subscribers: every topic needs one"));
        }
        if self.protocols.is_empty() || self.protocols.len() > usize::from(u8::MAX) || self.concurrent == 0 {
            return wrong("a plan needs protocols, and connections that may be set up at once".to_owned());
        }
        Ok(())
    }
}

/// Subscribers and a publisher.
pub struct Load {
    poll: Poll,
    /// Taken out while they are gone through.
    events: Option<Events>,
    timer: OwnedFd,
    /// When the timer goes off, so that it is not set again to the same.
    timer_at: u64,
    start: Instant,
    plan: Plan,
    /// The subscribers' connections, by their numbers.
    streams: Vec<TcpStream>,
    subscribers: Vec<Subscriber>,
    publisher: Option<Publisher>,
    topics: Vec<TopicState>,
    buffer: Vec<u8>,
    /// From one probe to the next in what the server writes, for each of the plan's protocols.
    strides: Vec<usize>,
    finder: Finder<'static>,
    counts: Counts,
    latency: Histogram<u64>,
    /// Deliveries of events meant to be sent before this are not recorded in `latency`.
    recorded_from: u64,
    /// How long each connection took from TCP connect to subscribed, in nanoseconds.
    pub setup: Histogram<u64>,
    /// When the next subscriber says that it is there, and which one that is.
    next_life: (u64, usize),
    /// When the publisher does.
    next_publisher_life: u64,
    /// The longest that a subscriber was without a delivery since `stalls_from`, in nanoseconds.
    stall: u64,
    stalls_from: u64,
    /// Where the publishing began that goes on.
    since: (Counts, u64),
    /// What the server said to the first subscriber that it refused.
    refusal: Option<String>,
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("plan", &self.plan).field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// Where a stretch of time began that is being measured.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    began: u64,
    counts: Counts,
    done: u64,
    server_cpu: Duration,
    own_cpu: Duration,
    all_cpu: Duration,
}

impl Load {
    /// Connects the publisher, and `subscribers` over WebSocket, spread evenly over `topics`.
    ///
    /// # Errors
    /// A connection cannot be made, or the node closes one.
    pub fn connect(node: &Node, subscribers: usize, topics: usize) -> io::Result<Self> {
        Self::connect_by(node, subscribers, topics, &[Dialect::Json])
    }

    /// The same with subscribers of these dialects, in turns.
    ///
    /// # Errors
    /// As `connect`.
    pub fn connect_by(
        node: &Node,
        subscribers: usize,
        topics: usize,
        dialects: &[Dialect],
    ) -> io::Result<Self> {
        let protocols = dialects.iter().map(|dialect| -> Arc<dyn Protocol> { Arc::new(*dialect) }).collect();
        let plan = Plan::new(node.http, Some(node.publish.clone()), subscribers);
        let mut load = Self::open(Plan { protocols, topics, ..plan })?;
        while !load.connect_for(Duration::from_secs(1))? {}
        Ok(load)
    }

    /// Connects the publisher; [`Load::connect_for`] does the rest.
    ///
    /// # Errors
    /// The plan cannot be, or the publisher cannot connect.
    pub fn open(plan: Plan) -> io::Result<Self> {
        plan.check()?;
        raise_file_limit()?;
        let poll = Poll::new()?;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let protocol = &*plan.protocols[0];
        let publisher = match &plan.publish {
            Some(address) => {
                let mut publisher = Publisher::open(address, protocol, PATIENCE)?;
                publisher.register(poll.registry(), PUBLISHER)?;
                Some(publisher)
            }
            None => None,
        };
        let data = data(plan.bytes);
        let topics = (0..plan.topics).map(|number| TopicState::new(&plan.prefix, number, &data, protocol));
        Ok(Self {
            topics: topics.collect::<io::Result<_>>()?,
            poll,
            events: None,
            timer,
            timer_at: 0,
            start: Instant::now(),
            streams: Vec::with_capacity(plan.subscribers),
            subscribers: Vec::with_capacity(plan.subscribers),
            publisher,
            buffer: vec![0; CARRY + READ_BYTES],
            strides: vec![MARKED_LEN; plan.protocols.len()],
            plan,
            finder: Finder::new(MARKER),
            counts: Counts::default(),
            latency: histogram(),
            recorded_from: 0,
            setup: histogram(),
            next_life: (0, 0),
            next_publisher_life: LIFE_EVERY,
            stall: 0,
            stalls_from: 0,
            since: (Counts::default(), 0),
            refusal: None,
        })
    }

    /// Goes on setting subscribers up, for this long at most. Answers whether all of them are.
    ///
    /// # Errors
    /// A connection cannot be made; the server closed one that was being set up, unless the plan bears that; nothing
    /// moved for ten seconds.
    pub fn connect_for(&mut self, time: Duration) -> io::Result<bool> {
        let end = self.now() + time.as_nanos() as u64;
        let mut moved = Instant::now();
        loop {
            let settled = self.counts.ready + self.counts.refused;
            if settled >= self.plan.subscribers {
                return Ok(true);
            }
            if self.now() >= end {
                return Ok(false);
            }
            while self.subscribers.len() < self.plan.subscribers
                && self.subscribers.len() - settled < self.plan.concurrent
            {
                self.begin_connecting()?;
            }
            self.turn(end.min(self.now() + 100_000_000))?;
            if self.counts.refused > 0 && !self.plan.bears_refusals {
                let said = self.refusal.take().unwrap_or_default();
                let text = format!("a subscriber was not let in by {}: {said}", self.plan.to);
                return Err(io::Error::other(text));
            }
            if self.counts.ready + self.counts.refused != settled {
                moved = Instant::now();
            } else if moved.elapsed() > PATIENCE {
                return Err(self.nobody_moves());
            }
        }
    }

    fn nobody_moves(&self) -> io::Error {
        let waiting = self
            .subscribers
            .iter()
            .find(|subscriber| matches!(subscriber.stage, Stage::Connecting | Stage::SettingUp(_)));
        let said = match waiting {
            Some(subscriber) if !subscriber.answers.is_empty() => refusal(&subscriber.answers),
            _ => "the server says nothing".to_owned(),
        };
        let (ready, all) = (self.counts.ready, self.plan.subscribers);
        io::Error::new(
            ErrorKind::TimedOut,
            format!("only {ready} of {all} subscribers could subscribe: {said}"),
        )
    }

    /// Subscribers that are set up, or were.
    pub fn ready(&self) -> usize {
        self.counts.ready
    }

    /// Connections that the server closed before they were set up, where the plan bears that.
    pub fn refused(&self) -> usize {
        self.counts.refused
    }

    /// Connections that the server closed, the publisher's among them.
    pub fn closed(&self) -> u64 {
        let publisher = self.publisher.as_ref().is_some_and(|publisher| publisher.ended.is_some());
        self.counts.closed + u64::from(publisher)
    }

    /// Why the publisher is over, if it is.
    pub fn publisher_ended(&self) -> Option<&str> {
        self.publisher.as_ref().and_then(|publisher| publisher.ended.as_deref())
    }

    /// Begins to publish `rate` events a second, round robin over the topics, until [`Load::pause`].
    pub fn publish(&mut self, rate: f64) {
        self.since = (self.counts, self.expected());
        let from = self.now() + 1_000_000;
        self.set_pace(Pace::steady(from, rate));
    }

    /// The same, but ends by itself after this many events.
    pub fn publish_events(&mut self, rate: f64, events: u64) {
        self.publish(rate);
        if let Some(publisher) = &mut self.publisher {
            publisher.outgoing.pace.end_after(events);
        }
    }

    fn set_pace(&mut self, pace: Pace) {
        if let Some(publisher) = &mut self.publisher {
            publisher.outgoing.pace = pace;
        }
    }

    fn published(&self) -> u64 {
        self.publisher.as_ref().map_or(0, |publisher| publisher.outgoing.pace.done())
    }

    /// Begins to measure. Latency is that of events meant to be sent from now on.
    pub fn mark(&mut self, server: &Process) -> Mark {
        let own = Process::of(std::process::id());
        let (server_cpu, own_cpu, all_cpu) = (server.cpu(), own.cpu(), cpu_of_all());
        let began = self.now();
        // What was due before is sent before, so that events and deliveries of this stretch are of the same events.
        self.publish_due(began);
        (self.recorded_from, self.stalls_from, self.stall) = (began + 1, began, 0);
        self.latency.reset();
        if let Some(publisher) = &mut self.publisher {
            publisher.outgoing.lateness = 0;
        }
        Mark { began, counts: self.counts, done: self.published(), server_cpu, own_cpu, all_cpu }
    }

    /// What was measured since then.
    pub fn window(&self, server: &Process, mark: Mark) -> Window {
        let now = self.now();
        let waiting = self.subscribers.iter().filter(|subscriber| subscriber.stage == Stage::Ready);
        let waiting = waiting.map(|subscriber| now - subscriber.fed.max(mark.began)).max().unwrap_or(0);
        let own = Process::of(std::process::id());
        let server_cpu = server.cpu().saturating_sub(mark.server_cpu);
        let own_cpu = own.cpu().saturating_sub(mark.own_cpu);
        let all_cpu = cpu_of_all().saturating_sub(mark.all_cpu);
        let lateness = self.publisher.as_ref().map_or(0, |publisher| publisher.outgoing.lateness);
        Window {
            took: Duration::from_nanos(now - mark.began),
            published: self.published() - mark.done,
            deliveries: self.counts.deliveries - mark.counts.deliveries,
            latency: self.latency.clone(),
            stall: Duration::from_nanos(self.stall.max(waiting)),
            lateness: Duration::from_nanos(lateness),
            reads: self.counts.reads - mark.counts.reads,
            server_cpu,
            own_cpu,
            other_cpu: all_cpu.saturating_sub(server_cpu + own_cpu),
        }
    }

    /// Latencies since the last [`Load::mark`], with those of deliveries that came after the window's end.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// Looks for `time`, and on until `is_over`, which is asked a few times a second.
    ///
    /// # Errors
    /// The poll's.
    pub fn observe(
        &mut self,
        server: &Process,
        time: Duration,
        mut is_over: impl FnMut() -> bool,
    ) -> io::Result<Window> {
        let mark = self.mark(server);
        self.go_on(time)?;
        while !is_over() {
            self.go_on(Duration::from_millis(50))?;
        }
        Ok(self.window(server, mark))
    }

    /// Publishes no more, and waits for what is still on its way.
    ///
    /// # Errors
    /// The poll's.
    pub fn pause(&mut self) -> io::Result<Tally> {
        self.stop_publishing();
        self.collect()?;
        Ok(self.tally())
    }

    /// Publishes no more. A backlog of the generator itself is not published any more: the figures show it.
    pub fn stop_publishing(&mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.outgoing.pace.stop();
        }
    }

    /// What became of what was published since [`Load::publish`], as of now.
    pub fn tally(&self) -> Tally {
        let (before, expected_before) = self.since;
        let expected = self.expected() - expected_before;
        let received = self.counts.deliveries - before.deliveries;
        Tally {
            expected,
            missing: expected.saturating_sub(received),
            repeated: self.counts.repeated - before.repeated,
            reordered: self.counts.reordered - before.reordered,
            strange: self.counts.strange - before.strange,
            closed: self.closed(),
        }
    }

    /// Deliveries of what was published since [`Load::publish`] that can still come: not those that a newer one came
    /// before, nor those to subscribers who are gone.
    pub fn outstanding(&self) -> u64 {
        let (before, expected_before) = self.since;
        let received = self.counts.deliveries - before.deliveries;
        let skipped = self.counts.skipped.saturating_sub(before.skipped);
        (self.expected() - expected_before).saturating_sub(received + skipped)
    }

    /// How far publishing is behind the pace now.
    pub fn lag(&self) -> Duration {
        let due = self.publisher.as_ref().map_or(u64::MAX, |publisher| publisher.outgoing.pace.due());
        Duration::from_nanos(self.now().saturating_sub(due))
    }

    /// Goes on for this long: publishes what is due, reads what comes.
    ///
    /// # Errors
    /// The poll's.
    pub fn go_on(&mut self, time: Duration) -> io::Result<()> {
        self.turn_until(self.now() + time.as_nanos() as u64)
    }

    /// Publishes `rate` events a second, round robin over the topics, for `warm_up` and then `time`, of which
    /// only the latter is measured; then waits for what is still on its way.
    ///
    /// # Errors
    /// The poll's.
    pub fn run(
        &mut self,
        server: &Process,
        rate: f64,
        warm_up: Duration,
        time: Duration,
    ) -> io::Result<(Window, Tally)> {
        let events = (rate * (warm_up + time).as_secs_f64()).round() as u64;
        self.publish_events(rate, events);
        let from = self.publisher.as_ref().map_or(0, |publisher| publisher.outgoing.pace.from());
        self.turn_until(from + warm_up.as_nanos() as u64)?;
        let window = self.observe(server, time, || true)?;
        Ok((window, self.pause()?))
    }

    /// Publishes `events` at once, round robin over the topics, and waits until every subscriber has all that
    /// it should get. Answers how long that took.
    ///
    /// # Errors
    /// Something is missing, or came twice.
    pub fn burst(&mut self, events: u64) -> io::Result<Duration> {
        self.since = (self.counts, self.expected());
        let from = self.now();
        self.recorded_from = from;
        self.set_pace(Pace::burst(from, events));
        while self.published() < events {
            self.turn(self.now() + 1_000_000_000)?;
            if let Some(why) = self.publisher_ended() {
                return Err(io::Error::other(why.to_owned()));
            }
        }
        self.collect()?;
        let took = Duration::from_nanos(self.now() - from);
        let tally = self.tally();
        if tally.missing + tally.wrong() > 0 {
            return Err(io::Error::other(format!("not everything came once: {tally:?}")));
        }
        Ok(took)
    }

    /// Waits until nothing is missing any more, or nothing comes any more.
    fn collect(&mut self) -> io::Result<()> {
        let mut moved = Instant::now();
        while self.outstanding() > 0 && moved.elapsed() < PATIENCE {
            let before = self.counts.deliveries;
            self.turn(self.now() + 100_000_000)?;
            if self.counts.deliveries != before {
                moved = Instant::now();
            }
        }
        Ok(())
    }

    /// Deliveries of everything published so far.
    fn expected(&self) -> u64 {
        self.topics.iter().map(|topic| topic.published * topic.subscribers).sum()
    }

    /// Nanoseconds since the generator started.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn begin_connecting(&mut self) -> io::Result<()> {
        let number = self.subscribers.len();
        let topic = number % self.topics.len();
        let protocol = number / self.topics.len() % self.plan.protocols.len();
        let began = self.now();
        let stream = connect(self.plan.to, source(self.plan.to, number), self.plan.receive_buffer);
        let mut stream = stream.map_err(|error| {
            let text = format!("subscriber {} cannot connect to {}: {error}", number + 1, self.plan.to);
            io::Error::new(error.kind(), text)
        })?;
        if self.plan.resets {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), both)?;
        self.topics[topic].subscribers += 1;
        self.streams.push(stream);
        self.subscribers.push(Subscriber::new(protocol as u8, topic as u32, began));
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
        self.show_life(now);
        let due = self.publisher.as_ref().map_or(u64::MAX, Publisher::due);
        let wait = due.min(deadline).saturating_sub(now);
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
            // A signal: whoever called looks what it was for.
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
                        self.begin_setting_up(number);
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
        if let Some(publisher) = publisher {
            publisher.publish_due(topics, now);
        }
    }

    fn handle_publisher(&mut self, readable: bool, writable: bool) {
        let Self { publisher: Some(publisher), plan, buffer, .. } = self else { return };
        if writable {
            publisher.flush();
        }
        if readable {
            publisher.hear(&*plan.protocols[0], buffer);
        }
    }

    /// The TCP connection stands, or could not be made.
    fn begin_setting_up(&mut self, number: usize) {
        let stream = &self.streams[number];
        match stream.peer_addr() {
            Ok(_) => {
                drop(stream.set_nodelay(true));
                self.set_up(number, 0);
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                // Not yet, or never: then the reason is there.
                if let Ok(Some(error)) | Err(error) = stream.take_error() {
                    self.refusal.get_or_insert(error.to_string());
                    self.close(number);
                }
            }
            Err(_) => self.close(number),
        }
    }

    /// Says what is to be said at this step, or is ready.
    fn set_up(&mut self, number: usize, step: u8) {
        let Self { subscribers, topics, plan, .. } = self;
        let subscriber = &mut subscribers[number];
        let topic = &topics[subscriber.topic as usize];
        match plan.protocols[usize::from(subscriber.protocol)].subscribe(&topic.name, step) {
            Some(Turn { say, .. }) => {
                subscriber.stage = Stage::SettingUp(step);
                self.send(number, &say);
            }
            None => {
                subscriber.answers = Vec::new();
                subscriber.stage = Stage::Ready;
                subscriber.newest = topic.published;
                let took = self.start.elapsed().as_nanos() as u64 - subscriber.began;
                self.counts.ready += 1;
                self.setup.saturating_record(took);
            }
        }
    }

    /// A subscriber that is being set up was answered: the next step, if all of the answer is there.
    fn go_on_setting_up(&mut self, number: usize) {
        while let Stage::SettingUp(step) = self.subscribers[number].stage {
            let Self { subscribers, topics, plan, .. } = self;
            let subscriber = &mut subscribers[number];
            let protocol = &plan.protocols[usize::from(subscriber.protocol)];
            let turn = protocol.subscribe(&topics[subscriber.topic as usize].name, step);
            let progress = turn.map_or(Progress::Done, |turn| advance(&mut subscriber.answers, turn.expect));
            match progress {
                Progress::Waiting => return,
                Progress::Refused => return self.close(number),
                Progress::Done => self.set_up(number, step + 1),
            }
        }
    }

    /// Sends what fits any socket's buffer.
    fn send(&mut self, number: usize, bytes: &[u8]) {
        if !bytes.is_empty() && self.streams[number].write(bytes).ok() != Some(bytes.len()) {
            self.close(number);
        }
    }

    fn close(&mut self, number: usize) {
        let subscriber = &mut self.subscribers[number];
        match subscriber.stage {
            Stage::Closed => return,
            Stage::Ready => self.counts.closed += 1,
            Stage::Connecting | Stage::SettingUp(_) => {
                self.counts.refused += 1;
                self.refusal.get_or_insert_with(|| refusal(&subscriber.answers));
            }
        }
        subscriber.stage = Stage::Closed;
        drop(self.poll.registry().deregister(&mut self.streams[number]));
        // Its file is free at once where connections come and go.
        drop(self.streams[number].shutdown(std::net::Shutdown::Both));
    }

    /// A word now and then keeps servers from finding silent clients. One client at a time says so: all
    /// at once would be a burst that nobody measures.
    fn show_life(&mut self, now: u64) {
        while self.next_life.0 <= now {
            let number = self.next_life.1 % self.subscribers.len().max(1);
            let every = LIFE_EVERY / self.subscribers.len().max(1) as u64;
            self.next_life = (now.max(self.next_life.0) + every, number + 1);
            let Some(subscriber) = self.subscribers.get(number) else { break };
            if subscriber.stage == Stage::Ready {
                let protocol = Arc::clone(&self.plan.protocols[usize::from(subscriber.protocol)]);
                self.send(number, protocol.sign_of_life());
            }
        }
        if self.next_publisher_life <= now {
            self.next_publisher_life = now + LIFE_EVERY;
            let Self { publisher: Some(publisher), plan, .. } = self else { return };
            publisher.say(plan.protocols[0].publisher_sign_of_life());
        }
    }

    /// Reads what a subscriber has; `is_last` where the server has said that nothing more comes.
    fn read(&mut self, number: usize, is_last: bool) {
        loop {
            let is_ready = match self.subscribers[number].stage {
                Stage::Connecting | Stage::Closed => return,
                Stage::SettingUp(_) => false,
                Stage::Ready => true,
            };
            let count = match self.streams[number].read(&mut self.buffer[CARRY..]) {
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
                self.go_on_setting_up(number);
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

    /// Checks every delivery in the bytes just read, and in what the last read left over.
    fn check(&mut self, number: usize, count: usize, now: u64) {
        let Self { subscribers, buffer, finder, strides, counts, latency, recorded_from, .. } = self;
        let subscriber = &mut subscribers[number];
        let stride = &mut strides[usize::from(subscriber.protocol)];
        let start = CARRY - subscriber.carried;
        buffer[start..CARRY].copy_from_slice(&subscriber.carry[..subscriber.carried]);
        let bytes = &buffer[start..CARRY + count];
        let own_topic = topic_digits(subscriber.topic);
        let mut is_fed = false;
        let rest = scan(bytes, finder, stride, |probe| {
            is_fed = true;
            let is_first = if probe.topic == own_topic {
                subscriber.take(probe.number, counts)
            } else {
                counts.strange += 1;
                false
            };
            if is_first && probe.sent >= *recorded_from {
                latency.saturating_record(now.saturating_sub(probe.sent));
            }
        });
        if is_fed {
            self.stall = self.stall.max(now - subscriber.fed.max(self.stalls_from).min(now));
            subscriber.fed = now;
        }
        subscriber.keep(&bytes[rest..]);
    }
}

/// Connections from one address. It has some 28,000 ports, and once half are taken the system looks for a free one for long:
/// of 19,000 connections it set up 1,750 a second instead of 20,000.
const FROM_ONE_ADDRESS: usize = 10_000;

/// Where a connection comes from, where that is not to be left to the system: this machine has as many addresses as one
/// likes, for itself.
fn source(to: SocketAddr, number: usize) -> Option<SocketAddr> {
    let address = u8::try_from(1 + number / FROM_ONE_ADDRESS).unwrap_or(u8::MAX);
    let is_ours = matches!(to, SocketAddr::V4(to) if to.ip().is_loopback());
    (is_ours && address > 1).then(|| SocketAddr::from(([127, 0, 0, address], 0)))
}

/// Begins a connection; its receive buffer is agreed on before it is made.
fn connect(to: SocketAddr, from: Option<SocketAddr>, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    if from.is_none() && receive_buffer.is_none() {
        return TcpStream::connect(to);
    }
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM.nonblocking(), None)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Every subscriber is a file.
///
/// # Errors
/// The system refuses what it says that it allows.
pub fn raise_file_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}
