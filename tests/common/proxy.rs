//! A network that goes wrong between a client or publisher and the node: a TCP proxy in user space that can hold back,
//! delay, cut, reset and vanish.
//!
//! What a call says holds as soon as it returns: the thread that forwards does so under the same lock.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use slab::Slab;
use socket2::SockRef;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to the node.
    ToNode,
    /// From the node.
    FromNode,
}

/// Both directions.
pub const BOTH: [Way; 2] = [Way::ToNode, Way::FromNode];

/// A proxy in front of one address of a node. Its settings are for all connections through it; a test that wants
/// others for some of them has another proxy. What goes through it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    waker: Arc<Waker>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    node: SocketAddr,
    registry: Registry,
    pairs: Slab<Pair>,
    /// Kept open, so that the node hears nothing of them.
    gone: Vec<Pair>,
    rules: [Rule; 2],
    forwarded: [u64; 2],
    accepted: usize,
    is_over: bool,
}

/// What is done with one direction.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Bytes that may still go; `None`: any number.
    left: Option<u64>,
    delay: Duration,
    /// Bytes of one write at most.
    piece: usize,
}

#[derive(Debug)]
struct Pair {
    client: TcpStream,
    node: TcpStream,
    pipes: [Pipe; 2],
}

/// What has been read of one direction and not written.
#[derive(Debug, Default)]
struct Pipe {
    waiting: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    has_ended: bool,
    is_shut: bool,
}

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Bytes that are on their way in one direction of one connection at most: what does not fit stays with the sender.
const CAPACITY: usize = 256 << 10;

impl Proxy {
    /// A proxy that lets everything through at once.
    pub fn to(node: SocketAddr) -> Self {
        let poll = Poll::new().unwrap();
        let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let free = Rule { left: None, delay: Duration::ZERO, piece: usize::MAX };
        let state = Arc::new(Mutex::new(State {
            node,
            registry: poll.registry().try_clone().unwrap(),
            pairs: Slab::new(),
            gone: Vec::new(),
            rules: [free; 2],
            forwarded: [0; 2],
            accepted: 0,
            is_over: false,
        }));
        let shared = Arc::clone(&state);
        let thread = Some(thread::spawn(move || run(poll, &listener, &shared)));
        Self { addr, state, waker, thread }
    }

    /// Where to connect instead of the node.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets no byte through any more. What comes stays in kernels, so that the sender notices nothing until those are
    /// full.
    pub fn hold(&self, way: Way) {
        self.hold_after(way, 0);
    }

    /// Lets so many bytes more through, of all connections together, and then none.
    pub fn hold_after(&self, way: Way, bytes: u64) {
        self.set(way, |rule| rule.left = Some(bytes));
    }

    /// Lets everything through again.
    pub fn release(&self, way: Way) {
        self.set(way, |rule| rule.left = None);
    }

    /// What comes from now on arrives so much later.
    pub fn delay(&self, way: Way, delay: Duration) {
        self.set(way, |rule| rule.delay = delay);
    }

    /// Writes at most so many bytes at once.
    pub fn cut_up(&self, way: Way, bytes: usize) {
        self.set(way, |rule| rule.piece = bytes);
    }

    /// Ends all connections as a process does that closes its sockets in order: after what it has sent.
    pub fn close(&self) {
        for pair in self.lock().pairs.drain() {
            // Where the far end is gone already there is nothing to end.
            let _ = pair.client.shutdown(Shutdown::Both);
            let _ = pair.node.shutdown(Shutdown::Both);
        }
    }

    /// Ends all connections as a process does that is killed: with a reset, in the middle of whatever is said.
    pub fn reset(&self) {
        for pair in self.lock().pairs.drain() {
            for stream in [&pair.client, &pair.node] {
                SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    }

    /// From now on the node's packets of all connections reach nobody, and nothing comes back, not even that they
    /// arrived: the far end has lost its power or its network. New connections are not concerned.
    pub fn vanish(&self) {
        let mut state = self.lock();
        let State { registry, pairs, gone, .. } = &mut *state;
        for mut pair in pairs.drain() {
            // The kernel drops every packet that comes for this socket before TCP sees it.
            let drop_all = socket2::SockFilter::new(0x06, 0, 0, 0); // BPF_RET | BPF_K, 0 bytes
            SockRef::from(&pair.node).attach_filter(&[drop_all]).unwrap();
            registry.deregister(&mut pair.client).unwrap();
            registry.deregister(&mut pair.node).unwrap();
            gone.push(pair);
        }
    }

    /// Connections through it now.
    pub fn connections(&self) -> usize {
        self.lock().pairs.len()
    }

    /// Connections that ever came to it.
    pub fn accepted(&self) -> usize {
        self.lock().accepted
    }

    /// Bytes written so far, of all connections together.
    pub fn forwarded(&self, way: Way) -> u64 {
        self.lock().forwarded[way as usize]
    }

    fn set(&self, way: Way, change: impl FnOnce(&mut Rule)) {
        change(&mut self.lock().rules[way as usize]);
        self.waker.wake().unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let Ok(mut state) = self.state.lock() else { return }; // Its thread has panicked, and said so.
        state.is_over = true;
        drop(state);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut poll: Poll, listener: &TcpListener, state: &Mutex<State>) {
    let mut events = Events::with_capacity(256);
    let mut next: Option<Instant> = None;
    loop {
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        let state = &mut *state.lock().unwrap();
        if state.is_over {
            return;
        }
        state.accept(listener);
        let mut numbers: Vec<usize> = events.iter().map(|event| event.token().0).collect();
        let is_time = next.is_some_and(|at| at <= Instant::now());
        if is_time || numbers.contains(&WAKER.0) {
            // What a rule changed, or what is due, may be anybody's.
            next = None;
            numbers = state.pairs.iter().map(|(number, _)| number).collect();
        }
        for number in numbers {
            let later = state.pump(number);
            next = [next, later].into_iter().flatten().min();
        }
    }
}

impl State {
    fn accept(&mut self, listener: &TcpListener) {
        loop {
            let mut client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the proxy cannot accept: {error}"),
            };
            self.accepted += 1;
            // On the same machine: it does not wait. Where the node does not listen, the client is told by its end.
            let Ok(node) = std::net::TcpStream::connect(self.node) else { continue };
            node.set_nonblocking(true).unwrap();
            let mut node = TcpStream::from_std(node);
            let token = Token(self.pairs.vacant_key());
            for stream in [&mut client, &mut node] {
                // One that is gone already is found out by the first read.
                let _ = stream.set_nodelay(true);
                self.registry.register(stream, token, Interest::READABLE | Interest::WRITABLE).unwrap();
            }
            self.pairs.insert(Pair { client, node, pipes: Default::default() });
        }
    }

    /// Moves what can be moved of a connection; answers when more can.
    fn pump(&mut self, number: usize) -> Option<Instant> {
        let Self { pairs, rules, forwarded, .. } = self;
        let Pair { client, node, pipes } = pairs.get_mut(number)?;
        let now = Instant::now();
        let (mut next, mut is_broken) = (None, false);
        for way in BOTH {
            let (rule, pipe) = (&mut rules[way as usize], &mut pipes[way as usize]);
            let (from, to) = match way {
                Way::ToNode => (&mut *client, &mut *node),
                Way::FromNode => (&mut *node, &mut *client),
            };
            match pipe.pump(from, to, rule, now) {
                Ok(bytes) => forwarded[way as usize] += bytes,
                Err(_) => is_broken = true,
            }
            let first = pipe.waiting.front().map(|(at, _)| *at);
            next = [next, first.filter(|at| *at > now)].into_iter().flatten().min();
        }
        if is_broken {
            // A reset at one end is one at the other.
            for stream in [&*client, &*node] {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        } else if !pipes.iter().all(|pipe| pipe.is_shut) {
            return next;
        }
        pairs.remove(number);
        None
    }
}

impl Pipe {
    /// Reads and writes until one of both ends refuses; answers how much was written.
    fn pump(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        rule: &mut Rule,
        now: Instant,
    ) -> std::io::Result<u64> {
        let mut written = 0;
        loop {
            let read = self.fill(from, rule, now)?;
            let wrote = self.drain(to, rule, now)?;
            written += wrote;
            if read + wrote == 0 {
                break;
            }
        }
        if self.has_ended && self.waiting.is_empty() && !self.is_shut {
            self.is_shut = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(written)
    }

    fn fill(&mut self, from: &mut TcpStream, rule: &Rule, now: Instant) -> std::io::Result<u64> {
        if self.has_ended || rule.left == Some(0) || self.bytes >= CAPACITY {
            return Ok(0);
        }
        let mut buffer = vec![0; 64 << 10];
        let count = not_blocking(from.read(&mut buffer))?;
        match count {
            Some(0) => self.has_ended = true,
            Some(count) => {
                buffer.truncate(count);
                self.bytes += count;
                self.waiting.push_back((now + rule.delay, buffer));
            }
            None => {}
        }
        Ok(count.unwrap_or(0) as u64)
    }

    fn drain(&mut self, to: &mut TcpStream, rule: &mut Rule, now: Instant) -> std::io::Result<u64> {
        let mut written = 0;
        while let Some((_, bytes)) = self.waiting.front_mut().filter(|(at, _)| *at <= now) {
            let most = rule.left.map_or(rule.piece, |left| rule.piece.min(left as usize)).min(bytes.len());
            let count = if most == 0 { None } else { not_blocking(to.write(&bytes[..most]))? };
            let Some(count) = count else { break };
            written += count as u64;
            self.bytes -= count;
            rule.left = rule.left.map(|left| left - count as u64);
            bytes.drain(..count);
            if bytes.is_empty() {
                self.waiting.pop_front();
            }
        }
        Ok(written)
    }
}

fn not_blocking(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
