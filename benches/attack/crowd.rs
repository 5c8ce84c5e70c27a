//! Very many sockets in one thread, each with something that acts on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, SockRef, Socket, Type};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// What goes on on one connection. Bytes put into `out` are sent.
pub trait Actor {
    /// What those of a crowd share.
    type Shared;

    /// The connection stands.
    fn connected(&mut self, shared: &mut Self::Shared, out: &mut Vec<u8>) -> Then;

    /// Bytes came.
    fn received(&mut self, shared: &mut Self::Shared, bytes: &[u8], out: &mut Vec<u8>) -> Then;

    /// The far end has closed, or could not be reached.
    fn ended(&mut self, shared: &mut Self::Shared);
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays.
    Stay,
    /// It ends in order, with a FIN, once what it sends has gone out.
    Close,
    /// It ends with a RST.
    Reset,
}

/// How a connection is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Whether its kernel keeps little for it.
    pub is_narrow: bool,
    /// Whether it never reads.
    pub is_deaf: bool,
}

struct Member<A> {
    stream: TcpStream,
    actor: A,
    unsent: Vec<u8>,
    is_connected: bool,
    is_deaf: bool,
    then: Then,
}

/// Sockets and their actors.
pub struct Crowd<A: Actor> {
    poll: Poll,
    events: Events,
    members: Slab<Member<A>>,
    /// Those that may have more to read than they were given time for.
    unread: Vec<usize>,
    buffer: Vec<u8>,
    /// How many connections were begun.
    opened: u8,
    /// What the actors share.
    pub shared: A::Shared,
}

impl<A: Actor> Crowd<A> {
    /// Nobody yet.
    pub fn new(shared: A::Shared) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            members: Slab::new(),
            unread: Vec::new(),
            buffer: vec![0; READ_BYTES],
            opened: 0,
            shared,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Everybody.
    pub fn actors(&self) -> impl Iterator<Item = &A> {
        self.members.iter().map(|(_, member)| &member.actor)
    }

    /// Begins a connection. That none can be made now, for want of ports or files, is answered with `false`.
    pub fn open(&mut self, to: SocketAddr, manner: Manner, actor: A) -> io::Result<bool> {
        let socket = match Socket::new(Domain::for_address(to), Type::STREAM, None) {
            Ok(socket) => socket,
            Err(error) if is_exhausted(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if to.ip() == Ipv4Addr::LOCALHOST {
            // One address has 28,000 ports; near its end the kernel would look through all of them for each connection.
            self.opened = self.opened.wrapping_add(1);
            let from = Ipv4Addr::new(127, 0, 0, 2 + self.opened % 16);
            match socket.bind(&SocketAddr::from((from, 0)).into()) {
                Err(error) if is_exhausted(&error) => return Ok(false),
                bound => bound?,
            }
        }
        if manner.is_narrow {
            // Before it connects: the window is agreed on then.
            socket.set_recv_buffer_size(4096)?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if is_exhausted(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into());
        let (unsent, is_deaf) = (Vec::new(), manner.is_deaf);
        let member = Member { stream, actor, unsent, is_connected: false, is_deaf, then: Then::Stay };
        let number = self.members.insert(member);
        let interest = if is_deaf { Interest::WRITABLE } else { Interest::READABLE | Interest::WRITABLE };
        let stream = &mut self.members[number].stream;
        self.poll.registry().register(stream, Token(number), interest)?;
        Ok(true)
    }

    /// One poll, and all that it reports.
    pub fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = if self.unread.is_empty() { timeout } else { Duration::ZERO };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
            Err(error) => return Err(error),
        }
        let unread = std::mem::take(&mut self.unread);
        for event in &events {
            let number = event.token().0;
            let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
            self.handle(number, is_readable, event.is_writable());
        }
        self.events = events;
        for number in unread {
            self.handle(number, true, false);
        }
        Ok(())
    }

    fn handle(&mut self, number: usize, is_readable: bool, is_writable: bool) {
        let Some(member) = self.members.get_mut(number) else { return };
        if !member.is_connected {
            match member.stream.peer_addr() {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotConnected && !is_readable => return,
                Err(_) => return self.lose(number),
            }
            member.is_connected = true;
            let then = member.actor.connected(&mut self.shared, &mut member.unsent);
            if !self.flush(number, then) {
                return;
            }
        } else if is_writable && !self.flush(number, Then::Stay) {
            return;
        }
        if is_readable {
            self.read(number);
        }
    }

    fn read(&mut self, number: usize) {
        for _ in 0..4 {
            let Some(member) = self.members.get_mut(number) else { return };
            if member.is_deaf {
                return;
            }
            let count = match member.stream.read(&mut self.buffer) {
                Ok(0) => return self.lose(number),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.lose(number),
            };
            let bytes = &self.buffer[..count];
            let then = member.actor.received(&mut self.shared, bytes, &mut member.unsent);
            if !self.flush(number, then) {
                return;
            }
        }
        self.unread.push(number);
    }

    /// Sends what is to be sent. Answers whether the connection is still there.
    fn flush(&mut self, number: usize, then: Then) -> bool {
        let Some(member) = self.members.get_mut(number) else { return false };
        if then != Then::Stay {
            member.then = then;
        }
        if member.then == Then::Reset {
            self.end(number, Then::Reset);
            return false;
        }
        let mut sent = 0;
        while sent < member.unsent.len() {
            match member.stream.write(&member.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What cannot be written is no loss; what came before the end is still to be read.
                Err(error) if error.kind() != ErrorKind::WouldBlock => sent = member.unsent.len(),
                Err(_) => break,
            }
        }
        member.unsent.drain(..sent);
        if member.unsent.is_empty() && member.then == Then::Close {
            self.end(number, Then::Close);
            return false;
        }
        true
    }

    fn lose(&mut self, number: usize) {
        if let Some(mut member) = self.members.try_remove(number) {
            member.actor.ended(&mut self.shared);
        }
    }

    fn end(&mut self, number: usize, then: Then) {
        if let Some(member) = self.members.try_remove(number)
            && then == Then::Reset
        {
            // The drop that follows says it.
            drop(SockRef::from(&member.stream).set_linger(Some(Duration::ZERO)));
        }
    }

    /// Asks for everybody what is to become of him. What was to be sent is not waited for.
    pub fn sort_out(&mut self, mut then: impl FnMut(&mut A, &mut A::Shared) -> Then) {
        let numbers: Vec<usize> = self.members.iter().map(|(number, _)| number).collect();
        for number in numbers {
            match then(&mut self.members[number].actor, &mut self.shared) {
                Then::Stay => {}
                end => self.end(number, end),
            }
        }
    }
}

/// Whether connections can be made again once others have gone.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted =
        [Errno::ADDRNOTAVAIL, Errno::ADDRINUSE, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
