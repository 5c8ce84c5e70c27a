//! One connection: its socket, its outbox, and what it is there for.

use std::io;

use crate::dialect::dialect::Dialect;
use crate::dialect::envelope::Private;
use crate::fanout::flood::Counted;
use crate::proto::http1::Request;
use crate::publish::http::Batch;
use crate::publish::socket::Publisher;
use crate::session::address::Address;
use crate::session::chunk::{Chunks, Gap, UNTIMED};
use crate::session::handshake::Exchange;
use crate::session::outbox::{Mark, Outbox, Progress};
use crate::session::session::{Identity, Session};
use crate::transport::Transport;

/// One connection of a shard. What a delivery touches stands first.
#[derive(Debug)]
#[repr(C)]
pub struct Connection<T> {
    /// What it is still owed.
    pub outbox: Outbox,
    /// The last round of several topics that it was served.
    pub last_several: u64,
    /// Whether it waits in the sweep.
    pub is_owed: bool,
    /// Whether it is held back there, by the latency budget.
    pub is_held: bool,
    /// Whether a subscription has a gap that the client has not been told of.
    pub has_gaps: bool,
    /// Whether something of the client's own is put around its events: what [`Session::private`] says, known without
    /// touching the session.
    is_private: bool,
    /// Whether it stands on the ready list: something may be there to read.
    pub is_ready: bool,
    /// Whether it is not read because of what it has not taken yet.
    pub is_paused: bool,
    /// Whether a subscription is served from a history now.
    pub is_replaying: bool,
    /// Whether one ever was: which of its subscriptions an event of several topics comes through is then looked
    /// up, because it may have come from a history already.
    pub has_replayed: bool,
    /// Whether its last flush ended with a refused write.
    pub is_stalled: bool,
    /// Whether it is counted already where a flood is looked for.
    pub(super) counted: Counted,
    /// Tells it apart from others that have had its number.
    pub generation: u32,
    /// The tick that the timer wheel holds it for; 0: none.
    pub armed: u32,
    /// Its bytes.
    pub stream: T,
    /// What it is there for.
    pub role: Role,
}

/// What a connection is there for.
#[derive(Debug)]
pub enum Role {
    /// A handshake, or plain requests.
    Http(Box<Http>),
    /// A client of a dialect.
    Client(Box<Session>),
    /// A publisher.
    Publisher(Box<Publisher>),
    /// Its end is written; what comes in is read and thrown away until the far end closes or time is up.
    Closing(Closing),
}

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `listen`: clients, and operators where they have no listener of their own.
    Public,
    /// `admin`: everything.
    Admin,
    /// `publish`: the publish socket.
    Publish,
}

/// An HTTP connection.
#[derive(Debug)]
pub struct Http {
    /// The request under way.
    pub exchange: Exchange,
    /// When it must be whole, in nanoseconds.
    pub deadline: u64,
    /// Where it came in.
    pub door: Door,
    /// Who is at the other end.
    pub address: Address,
    /// The answer is being gathered from all shards, to be written like this.
    pub awaits: Option<Answer>,
    /// Whether it closes once the answer is written.
    pub closes: bool,
    /// Whether a request was answered before: the next one's time counts from its first byte.
    pub is_kept: bool,
    /// Events of the request under way that are being published, as fast as those before them go out.
    pub batch: Option<Box<Batch>>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Whether the connection stays.
    pub keep_alive: bool,
    /// Whether only the head was asked for.
    pub head_only: bool,
}

impl Answer {
    /// What a request asks for.
    pub fn to(request: &Request<'_>) -> Self {
        Self { keep_alive: request.keep_alive, head_only: request.method == "HEAD" }
    }
}

/// A connection on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// When it is dropped whatever the far end does, in nanoseconds.
    pub until: u64,
    /// Whether the far end has been told that nothing more comes.
    pub is_shut: bool,
    /// Whether the far end has said so: once what it is owed is written, nothing is left to wait for.
    pub has_ended: bool,
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left.
    Drained,
    /// The kernel refuses more for now.
    Blocked,
    /// There is more; others come first.
    More,
}

/// What a flush did.
#[derive(Debug, Default)]
pub struct Work {
    /// Bytes taken by the kernel.
    pub bytes: usize,
    /// Writes made.
    pub writes: u64,
    /// Events handed over.
    pub events: u64,
    /// When they came in, and how many.
    pub ingresses: Vec<(u64, u64)>,
}

impl Progress for Work {
    fn delivered(&mut self, chunks: &Chunks, chunk: u32, start: u32, end: u32) {
        self.events += u64::from(end - start);
        chunks.ingresses(chunk, start, end, |ingress, count| {
            if ingress & UNTIMED != 0 {
                return;
            }
            // The connections of one slice are mostly owed the same few rounds.
            let mut latest = self.ingresses.iter_mut().rev().take(8);
            match latest.find(|(other, _)| *other == ingress) {
                Some((_, n)) => *n += u64::from(count),
                None => self.ingresses.push((ingress, u64::from(count))),
            }
        });
    }
}

/// Bytes that one write gathers at most from several spans.
const GATHERED_BYTES: usize = 256 << 10;

/// Bytes after which one flush ends, and others come. Where many events come, a client's are at the end of one chunk and the
/// beginning of the next in every other sweep; a second write for a little in the next chunk costs as much as one for all
/// that comes there until the next sweep. After twice as much, the writes of a flood to clients with names had 110 KB, and have 134.
pub const FLUSH_BYTES: usize = 128 << 10;

/// Buffers that every flush uses anew.
#[derive(Debug, Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

impl<T: Transport> Connection<T> {
    /// A connection that has just come.
    pub fn new(stream: T, role: Role, generation: u32) -> Self {
        Self {
            outbox: Outbox::new(),
            last_several: 0,
            is_owed: false,
            is_held: false,
            has_gaps: false,
            is_private: false,
            is_ready: false,
            is_paused: false,
            is_replaying: false,
            has_replayed: false,
            is_stalled: false,
            counted: Counted::default(),
            generation,
            armed: 0,
            stream,
            role,
        }
    }

    /// It is a client's from now on.
    pub fn become_client(&mut self, session: Session) {
        self.is_private = !matches!(session.private(), Private::Nothing);
        self.role = Role::Client(Box::new(session));
    }

    /// The client has a name from now on, or another.
    pub fn identify(&mut self, identity: Identity) {
        if let Role::Client(session) = &mut self.role {
            session.identity = Some(Box::new(identity));
            self.is_private = !matches!(session.private(), Private::Nothing);
        }
    }

    /// Whether it is a request whose answer may not be lost: what it published is accepted. One that every shard has a
    /// part in is not waited for: others may have ended.
    pub fn is_being_answered(&self) -> bool {
        match &self.role {
            Role::Http(http) => http.batch.is_some() || (http.awaits.is_none() && !self.outbox.is_empty()),
            _ => false,
        }
    }

    /// Whether nothing is left that a client is to get before it is closed.
    pub fn has_all(&self) -> bool {
        self.outbox.is_empty() && !self.has_gaps && !self.is_replaying
    }

    /// Writes what is owed until it is gone, the kernel refuses, or it is others' turn. Nearly always one write
    /// from where the frames lie; where several spans, notices or private parts are owed, they are put together
    /// first, because one contiguous write is cheaper than a slice for each.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(
        &mut self,
        chunks: &mut Chunks,
        scratch: &mut Scratch,
        work: &mut Work,
        mut gap: impl FnMut(Dialect, &mut Vec<u8>, u32, Gap),
    ) -> io::Result<Flushed> {
        let enough = work.bytes + FLUSH_BYTES;
        while !self.outbox.is_empty() {
            let written = if let Some(first) = self.outbox.first() {
                let written = write(work, || self.stream.write(first))?;
                self.outbox.consume_first(written.unwrap_or(0));
                written
            } else if !self.is_private
                && let Some(span) = self.outbox.lone_span(chunks)
            {
                let shared = chunks.shared(span);
                let written = write(work, || self.stream.write_shared(shared))?;
                self.outbox.consume_lone(written.unwrap_or(0), 0, chunks, work);
                written
            } else {
                self.flush_composed(chunks, scratch, work, &mut gap)?
            };
            if written.is_none() {
                return Ok(Flushed::Blocked);
            }
            if work.bytes >= enough && !self.outbox.is_empty() {
                return Ok(Flushed::More);
            }
        }
        Ok(Flushed::Drained)
    }

    /// One write of what is not simply frames as they lie: with something private in them, or put together from several
    /// pieces.
    fn flush_composed(
        &mut self,
        chunks: &mut Chunks,
        scratch: &mut Scratch,
        work: &mut Work,
        mut gap: impl FnMut(Dialect, &mut Vec<u8>, u32, Gap),
    ) -> io::Result<Option<usize>> {
        let (private, dialect) = match &self.role {
            Role::Client(session) => (session.private(), session.dialect),
            _ => (Private::Nothing, Dialect::Json),
        };
        if let (Some(span), Private::Suffix(suffix)) = (self.outbox.lone_span(chunks), private)
            && let Some(bytes) = chunks.named(span, suffix)
        {
            let written = write(work, || self.stream.write(bytes))?;
            self.outbox.consume_lone(written.unwrap_or(0), suffix.len(), chunks, work);
            return Ok(written);
        }
        let Scratch { bytes, marks } = scratch;
        bytes.clear();
        marks.clear();
        let gap = |out: &mut Vec<u8>, topic, count| gap(dialect, out, topic, count);
        self.outbox.gather(chunks, private, GATHERED_BYTES, gap, bytes, marks);
        let written = write(work, || self.stream.write(bytes))?;
        self.outbox.consume((bytes, private), marks, written.unwrap_or(0), chunks, work);
        Ok(written)
    }
}

/// One write. `None`: the kernel refuses.
fn write(work: &mut Work, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        work.writes += 1;
        match write() {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                work.bytes += written;
                return Ok(Some(written));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
