//! A shard with sessions and a publisher in memory: the code that ships, over a transport that takes every byte.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire::clock::Clock;
use fanwire::config::Limits;
use fanwire::fanout::connection::Door;
use fanwire::fanout::shard::{Next, Shard};
use fanwire::fanout::shared::{Access, Shared, State};
use fanwire::publish::wire::Publish;
use fanwire::session::policy::Policy;
use fanwire::topic::rules::{Rule, Rules};
use fanwire::transport::Transport;

/// The stock event's data: 159 bytes.
pub const STOCK: &str = r#"{"retryId":"retry-123","attemptNumber":1,"errorMessage":"Connection timeout","nextRetryAt":"2024-01-15T10:30:00.000Z","probe":"0000.00000000.0000000000000000"}"#;
/// The stock event to a topic.
pub const fn stock(topics: &str) -> Publish<'_> {
    Publish { topics, event: "retry-started", key: "", data: STOCK, timestamp_ms: 1_705_313_700_000 }
}

pub fn frame(publish: &Publish<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    publish.encode(0, 1, &mut frame).expect("it fits its fields");
    frame
}

/// A connection without a kernel: it takes every byte, at most so many at a time.
pub enum NullSocket {
    /// Says what stands at its place.
    Subscriber { place: u32, takes: u32, said: Said },
    /// Says what is fed to it.
    Publisher(Rc<RefCell<Feed>>),
}

/// What subscribers say next, each at its place.
pub type Said = Rc<RefCell<Vec<Option<Rc<[u8]>>>>>;

#[derive(Default)]
pub struct Feed {
    bytes: Rc<[u8]>,
    at: usize,
}

impl Transport for NullSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Subscriber { place, said, .. } => {
                let Some(bytes) = said.borrow_mut().get_mut(*place as usize).and_then(Option::take) else {
                    return Err(io::ErrorKind::WouldBlock.into());
                };
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Self::Publisher(feed) => {
                let mut feed = feed.borrow_mut();
                let count = buffer.len().min(feed.bytes.len() - feed.at);
                buffer[..count].copy_from_slice(&feed.bytes[feed.at..feed.at + count]);
                feed.at += count;
                if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Subscriber { takes, .. } => Ok(bytes.len().min(*takes as usize)),
            Self::Publisher(_) => Ok(bytes.len()),
        }
    }

    fn expect_acknowledgement(&mut self, _: Duration) {}

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A shard with sessions and one publisher.
pub struct Engine {
    pub shard: Shard<NullSocket>,
    pub shared: Arc<Shared>,
    clock: Clock,
    publisher: u32,
    feed: Rc<RefCell<Feed>>,
    said: Said,
    /// The numbers of the sessions' connections.
    numbers: Vec<u32>,
}

/// Connections that say something before the shard has its turns.
const AT_ONCE: usize = 200;

impl Engine {
    /// Without sessions, with room for so many; topics `t…` are compressed from so many bytes on.
    pub fn empty(sessions: usize, compress_above: Option<usize>) -> Self {
        let limits = Limits {
            max_clients: sessions.max(1),
            max_topics: 2_000_000,
            // Nothing but events is to be measured.
            heartbeat_interval: Duration::from_secs(3_600),
            heartbeat_timeout: Duration::from_secs(7_200),
            ..Limits::default()
        };
        let clock = Clock::start();
        let rule = Rule { prefix: "t".into(), history: None, policies: Policy::ALL.into(), compress_above };
        let shared = Shared::new(1, &limits, Access::default(), clock.now());
        let shared = Arc::new(shared.with_topic_rules(Rules::new(vec![rule])));
        shared.set_state(State::Ready);
        let mut shard = Shard::new(0, Arc::clone(&shared), Arc::new(limits), 0);
        let publisher = shard.next_number();
        let feed = Rc::new(RefCell::new(Feed::default()));
        shard.accept(NullSocket::Publisher(Rc::clone(&feed)), Door::Publish, "bench", clock.now());
        let said = Rc::default();
        Self { shard, shared, clock, publisher, feed, said, numbers: Vec::with_capacity(sessions) }
    }

    /// Lets so many sessions come, each with this handshake.
    pub fn connect(&mut self, sessions: usize, hello: impl Fn(usize) -> Rc<[u8]>) {
        for session in 0..sessions {
            let place = self.numbers.len() as u32;
            self.said.borrow_mut().push(Some(hello(session)));
            let number = self.shard.next_number();
            let socket = NullSocket::Subscriber { place, takes: u32::MAX, said: Rc::clone(&self.said) };
            self.shard.accept(socket, Door::Public, "127.0.0.1:9", self.clock.now());
            self.shard.handle_ready(number, true, false);
            self.numbers.push(number);
            if session % AT_ONCE == AT_ONCE - 1 {
                self.settle();
            }
        }
        self.settle();
        assert_eq!(self.shard.counts().clients, self.numbers.len(), "every session is there");
    }

    /// Lets every session say something.
    pub fn say(&mut self, what: impl Fn(usize) -> Rc<[u8]>) {
        for place in 0..self.numbers.len() {
            self.said.borrow_mut()[place] = Some(what(place));
            self.shard.handle_ready(self.numbers[place], true, false);
            if place % AT_ONCE == AT_ONCE - 1 {
                self.settle();
            }
        }
        self.settle();
    }

    /// Lets every session go without a word.
    pub fn leave(&mut self) {
        self.say(|_| Rc::new([]));
        self.numbers.clear();
    }

    /// Turns until there is nothing left to do.
    fn settle(&mut self) {
        let clock = self.clock;
        while self.shard.turn(&|| clock.now()) == Next::Now {}
    }

    /// From the publisher's socket to the last write.
    pub fn publish(&mut self, frames: &Rc<[u8]>) {
        *self.feed.borrow_mut() = Feed { bytes: Rc::clone(frames), at: 0 };
        self.shard.handle_ready(self.publisher, true, false);
        self.settle();
    }

    pub fn deliveries(&self) -> u64 {
        self.shared.metrics[0].deliveries.get()
    }

    pub fn subscriptions(&self) -> u64 {
        self.shared.metrics[0].subscriptions.get()
    }
}

/// A handshake of `/ws` with this query.
pub fn hello(query: &str) -> Rc<[u8]> {
    let text = format!(
        "GET /ws{query} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    text.into_bytes().into()
}

/// A client's text message of up to 125 bytes, with a mask of zeros.
pub fn message(text: &str) -> Rc<[u8]> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short message");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat().into()
}

/// `events` stock events, round robin over topics `t0`, `t1`, …
pub fn frames(events: usize, topics: usize) -> Rc<[u8]> {
    let frames: Vec<u8> = (0..events).flat_map(|n| frame(&stock(&format!("t{}", n % topics)))).collect();
    frames.into()
}
