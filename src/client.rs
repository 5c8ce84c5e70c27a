//! Publishing from Rust, over the publish socket: blocking or not, without a runtime.
//!
//! ```no_run
//! use fanwire::client::{Event, Publisher};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut publisher = Publisher::open("127.0.0.1:8081")?;
//! let sequence = publisher.publish(&Event::new(&["run:42"], "step-log", r#"{"line":"hello"}"#))?;
//! publisher.wait_for(sequence)?;
//! publisher.close()
//! # }
//! ```
//!
//! A node that is behind does not read its publishers: `publish` and `flush` then block, `try_publish` answers
//! [`io::ErrorKind::WouldBlock`]. Either way nothing is lost.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::error::{ErrorCode, Refusal};
pub use crate::publish::wire::MAX_PUBLISHER_NAME_BYTES;
use crate::publish::wire::{self, FLAG_ACK, FLAG_RECEIPT, HEADER_LEN, Header, Kind, MAX_PING_BYTES, Publish};
pub use crate::receipt::Reach;

/// Encoded events that [`Publisher::publish`] gathers before it writes them, in bytes.
const BATCH: usize = 64 << 10;
/// Answers other than ACK that wait to be read at most; ACKs are cumulative, so only the newest waits.
const MAX_ANSWERS: usize = 65_536;
/// Bytes of one answer at most: what is longer is not from a Fanwire node.
const MAX_ANSWER_BYTES: u32 = 64 << 10;
/// How long a blocked write may keep answers from being read. The kernel wakes the write when there is room;
/// this is only for a node that waits for its answers to be read before it reads on.
const WRITE_TICK: Duration = Duration::from_millis(20);
/// How long dropping a [`Publisher`] may take to hand over what it holds.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// One event to publish. Names have 1 to 255 bytes and no control characters; the key may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// 1 to 16 topics; the first is the event's category.
    pub topics: &'a [&'a str],
    /// The event's name.
    pub event: &'a str,
    /// One JSON text, passed on byte for byte; empty stands for `null`.
    pub data: &'a str,
    /// What the event is about; empty for none.
    pub key: &'a str,
    /// Unix time in milliseconds; 0 lets the node stamp it.
    pub timestamp_ms: u64,
}

impl<'a> Event<'a> {
    /// An event without a key that the node stamps.
    pub fn new(topics: &'a [&'a str], event: &'a str, data: &'a str) -> Self {
        Self { topics, event, data, key: "", timestamp_ms: 0 }
    }
}

/// What the node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Events up to this sequence were accepted, but for those that an [`Answer::Error`] before this names.
    Ack {
        /// Of the newest accepted event.
        sequence: u64,
        /// Events accepted on this connection so far.
        accepted: u64,
    },
    /// One frame was refused.
    Error {
        /// The refused frame's.
        sequence: u64,
        /// An [`ErrorCode`], or a newer one.
        code: u16,
        /// What is wrong.
        message: String,
    },
    /// How far an event went that was taken by [`Publisher::publish_for_receipt`].
    Receipt {
        /// The event's.
        sequence: u64,
        /// How far.
        reach: Reach,
    },
    /// The answer to [`Publisher::ping`], with its body.
    Pong {
        /// What the ping carried.
        body: Vec<u8>,
    },
}

/// How a [`Publisher`] connects.
#[derive(Clone, Default)]
pub struct Options {
    token: String,
    name: String,
    first_sequence: u64,
    timeout: Option<Duration>,
    without_acks: bool,
    with_receipts: bool,
}

/// Without the token.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, name, first_sequence, timeout, without_acks, with_receipts } = self;
        f.debug_struct("Options")
            .field("token", &!token.is_empty())
            .field("name", name)
            .field("first_sequence", first_sequence)
            .field("timeout", timeout)
            .field("without_acks", without_acks)
            .field("with_receipts", with_receipts)
            .finish()
    }
}

impl Options {
    /// No token, no name, no timeout, every event acknowledged.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the node asks publishers for; at most 8 KiB.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// A name of 1 to 64 bytes. The node remembers what it accepted under it, for its `idempotency_window`: an event
    /// whose sequence is not above the highest accepted from this name is acknowledged and not published again. So
    /// events may be sent again after a lost connection, with the sequences they had, and the first new one must go
    /// on where the last connection of this name stopped. One connection at a time should have a name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>, first_sequence: u64) -> Self {
        self.name = name.into();
        self.first_sequence = first_sequence;
        self
    }

    /// How long connecting, and any blocking call during which nothing moves, may take before it ends with
    /// [`ErrorKind::TimedOut`]. Without one they wait as long as the node does.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asks for no ACKs: saves the node a little work. [`Publisher::wait_for`] then ends only with an error.
    #[must_use]
    pub fn without_acks(mut self) -> Self {
        self.without_acks = true;
        self
    }

    /// Asks how far each event goes, as [`Publisher::publish_for_receipt`] does for one. Up to 65,536 answers are kept:
    /// who publishes many has to take their [`Answer::Receipt`]s meanwhile.
    #[must_use]
    pub fn with_receipts(mut self) -> Self {
        self.with_receipts = true;
        self
    }

    /// Connects to `IP:PORT`, `HOST:PORT` or `unix:PATH`. A wrong token shows at the first answer.
    ///
    /// # Errors
    /// The connection's errors; [`ErrorKind::InvalidInput`] for a token or name that is too long.
    pub fn open(&self, address: &str) -> io::Result<Publisher> {
        let mut out = Vec::new();
        if !self.token.is_empty() || !self.name.is_empty() {
            wire::encode_hello(&self.token, &self.name, &mut out).map_err(invalid)?;
        }
        let stream = Stream::connect(address, self.timeout)?;
        stream.set_write_timeout(Some(WRITE_TICK))?;
        Ok(Publisher {
            stream,
            nonblocking: false,
            read_timeout: None,
            out,
            written: 0,
            input: Vec::new(),
            answers: VecDeque::new(),
            ack: None,
            next_sequence: self.first_sequence.max(1),
            published: 0,
            accepted: 0,
            refused: 0,
            acknowledged: 0,
            closing_error: None,
            ended: None,
            deadline: None,
            flags: if self.without_acks { 0 } else { FLAG_ACK }
                | if self.with_receipts { FLAG_RECEIPT } else { 0 },
            timeout: self.timeout,
            topics: String::new(),
            closed: false,
        })
    }
}

/// A connection to a node's publish socket. Dropping it hands over what it holds, for a second at most;
/// [`Publisher::close`] waits and tells of errors.
pub struct Publisher {
    stream: Stream,
    nonblocking: bool,
    read_timeout: Option<Duration>,
    /// Frames that the kernel has not taken, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// The beginning of an answer.
    input: Vec<u8>,
    /// Errors, receipts and pongs that nobody has read yet.
    answers: VecDeque<Answer>,
    /// The newest ACK, if nobody has read it yet.
    ack: Option<(u64, u64)>,
    next_sequence: u64,
    published: u64,
    accepted: u64,
    refused: u64,
    acknowledged: u64,
    /// The error after which the node closes the connection.
    closing_error: Option<String>,
    /// What ended the reading, where answers came before it that are to be told first.
    ended: Option<io::Error>,
    /// When blocking calls end although something moves: only while the connection is closing.
    deadline: Option<Instant>,
    flags: u16,
    timeout: Option<Duration>,
    /// Scratch for the joined topics.
    topics: String,
    closed: bool,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("published", &self.published)
            .field("accepted", &self.accepted)
            .field("refused", &self.refused)
            .field("unwritten_bytes", &self.unwritten_bytes())
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects with the default [`Options`] to `IP:PORT`, `HOST:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// The connection's.
    pub fn open(address: &str) -> io::Result<Self> {
        Options::new().open(address)
    }

    /// Takes an event and answers its sequence. Events are gathered to 64 KiB before they are written:
    /// [`Publisher::flush`] writes them at once. Blocks while the node does not read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an event that does not fit a frame (names above 64 KiB, a topic with a line
    /// break): it is not taken. After any other error, those of [`Publisher::flush`], it is.
    pub fn publish(&mut self, event: &Event<'_>) -> io::Result<u64> {
        self.publish_numbered(self.next_sequence, event)
    }

    /// [`Publisher::publish`] with a sequence of the caller's, which must be above all before it.
    ///
    /// # Errors
    /// As `publish`, and [`ErrorKind::InvalidInput`] for a sequence that is not above those before.
    pub fn publish_numbered(&mut self, sequence: u64, event: &Event<'_>) -> io::Result<u64> {
        self.encode(sequence, event, 0)?;
        if self.unwritten_bytes() >= BATCH {
            self.flush()?;
        }
        Ok(sequence)
    }

    /// [`Publisher::publish`], and asks how far the event goes: [`Publisher::receipt`] waits for the answer.
    ///
    /// # Errors
    /// As `publish`.
    pub fn publish_for_receipt(&mut self, event: &Event<'_>) -> io::Result<u64> {
        let sequence = self.next_sequence;
        self.encode(sequence, event, FLAG_RECEIPT)?;
        if self.unwritten_bytes() >= BATCH {
            self.flush()?;
        }
        Ok(sequence)
    }

    /// Takes an event only if what was taken before is all with the kernel, and gives it as much of this one as
    /// it takes. The rest of a frame partly written goes first at the next call of any kind. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] where the event was not taken: try again later. Otherwise as `publish`.
    pub fn try_publish(&mut self, event: &Event<'_>) -> io::Result<u64> {
        self.try_flush()?;
        let sequence = self.next_sequence;
        self.encode(sequence, event, 0)?;
        match self.try_flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(sequence),
        }
    }

    /// Writes everything that was taken. Blocks while the node does not read; keeps answers that come meanwhile.
    ///
    /// # Errors
    /// The connection's; where the node closed it with an ERROR, that error's message.
    pub fn flush(&mut self) -> io::Result<()> {
        self.set_nonblocking(false)?;
        let mut moved = Instant::now();
        while self.unwritten_bytes() > 0 {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    moved = Instant::now();
                    self.check_deadline()?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The tick is over (a blocking socket with a write timeout says so): the node may be waiting for us.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.take_answers()?;
                    self.set_nonblocking(false)?;
                    self.check_deadline()?;
                    if self.timeout.is_some_and(|timeout| moved.elapsed() >= timeout) {
                        return Err(io::Error::new(ErrorKind::TimedOut, "the node does not read"));
                    }
                }
                Err(error) => return Err(self.explain(error)),
            }
        }
        self.forget_written();
        self.take_answers()
    }

    /// Writes what the kernel takes at once.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] where something is left. Otherwise as [`Publisher::flush`].
    pub fn try_flush(&mut self) -> io::Result<()> {
        self.take_answers()?;
        while self.unwritten_bytes() > 0 {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Err(error) => return Err(self.explain(error)),
            }
        }
        self.forget_written();
        Ok(())
    }

    /// Sends a ping of at most 125 bytes; its [`Answer::Pong`] shows that the node has dealt with everything
    /// before it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a longer body; the connection's.
    pub fn ping(&mut self, body: &[u8]) -> io::Result<()> {
        if body.len() > MAX_PING_BYTES {
            return Err(invalid(format!("a ping has at most {MAX_PING_BYTES} bytes, not {}", body.len())));
        }
        wire::encode_ping(Kind::Ping, 0, body, &mut self.out);
        self.flush()
    }

    /// The next answer, if one is there. ACKs are cumulative: of several only the newest is told.
    ///
    /// # Errors
    /// The connection's; [`ErrorKind::UnexpectedEof`] where the node has closed it.
    pub fn try_answer(&mut self) -> io::Result<Option<Answer>> {
        // What has come is told before that nothing more will come.
        if self.answers.is_empty() && self.ack.is_none() {
            self.take_answers()?;
        }
        Ok(self.pop_answer())
    }

    /// The next answer; waits for it, after writing everything that was taken.
    ///
    /// # Errors
    /// As [`Publisher::try_answer`]; [`ErrorKind::TimedOut`] after the timeout of the options.
    pub fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(answer) = self.pop_answer() {
                return Ok(answer);
            }
            self.wait()?;
        }
    }

    /// Waits until the node has accepted the event with this sequence. Answers to others stay to be read.
    ///
    /// # Errors
    /// The refusal of that event, as [`ErrorKind::InvalidData`]; that answer is taken. Otherwise as
    /// [`Publisher::answer`].
    pub fn wait_for(&mut self, sequence: u64) -> io::Result<()> {
        loop {
            self.take_refusal(sequence)?;
            if self.acknowledged >= sequence {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Waits until the node has flushed the event with this sequence to all who were to get it, and answers how
    /// far it went. Of an event that was accepted before from this name, all figures are 0.
    ///
    /// # Errors
    /// As [`Publisher::wait_for`].
    pub fn receipt(&mut self, sequence: u64) -> io::Result<Reach> {
        loop {
            let is_it =
                |answer: &Answer| matches!(answer, Answer::Receipt { sequence: at, .. } if *at == sequence);
            if let Some(index) = self.answers.iter().position(is_it)
                && let Some(Answer::Receipt { reach, .. }) = self.answers.remove(index)
            {
                return Ok(reach);
            }
            self.take_refusal(sequence)?;
            self.wait()?;
        }
    }

    /// Waits until every event taken so far is accepted or refused.
    ///
    /// # Errors
    /// As [`Publisher::answer`].
    pub fn settle(&mut self) -> io::Result<()> {
        while self.flags & FLAG_ACK != 0 && self.accepted + self.refused < self.published {
            self.wait()?;
        }
        self.flush()
    }

    /// Events taken by `publish` and `try_publish` so far.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Events that the node has accepted, as far as answers have come.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Frames that the node has refused, as far as answers have come.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Bytes that the kernel has not taken yet.
    pub fn unwritten_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes everything, tells the node that nothing more comes and waits until it has taken all of it.
    ///
    /// # Errors
    /// The connection's, and the first refusal that nobody has read.
    pub fn close(mut self) -> io::Result<()> {
        self.finish(self.timeout)?;
        let refusals = self.answers.iter().filter_map(|answer| match answer {
            Answer::Error { sequence, code, message } => Some((sequence, code, message)),
            _ => None,
        });
        let count = refusals.clone().count();
        match refusals.into_iter().next() {
            None => Ok(()),
            Some((sequence, code, message)) => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("{count} refused; the first, {sequence}: {}", describe(*code, message)),
            )),
        }
    }

    /// The refusal of the event with this sequence is an error, and taken.
    fn take_refusal(&mut self, sequence: u64) -> io::Result<()> {
        let refusal =
            |answer: &Answer| matches!(answer, Answer::Error { sequence: at, .. } if *at == sequence);
        match self.answers.iter().position(refusal).and_then(|index| self.answers.remove(index)) {
            Some(Answer::Error { code, message, .. }) => {
                Err(io::Error::new(ErrorKind::InvalidData, describe(code, &message)))
            }
            _ => Ok(()),
        }
    }

    fn encode(&mut self, sequence: u64, event: &Event<'_>, flags: u16) -> io::Result<()> {
        if sequence < self.next_sequence {
            return Err(invalid(format!("sequence {sequence} is not above those before it")));
        }
        self.topics.clear();
        for (index, topic) in event.topics.iter().enumerate() {
            if topic.contains('\n') {
                // Joined, it would pass as two topics.
                return Err(invalid(format!("topic {topic:?} has a control character")));
            }
            if index > 0 {
                self.topics.push('\n');
            }
            self.topics.push_str(topic);
        }
        let Event { event, data, key, timestamp_ms, .. } = *event;
        let publish = Publish { topics: &self.topics, event, key, data, timestamp_ms };
        publish.encode(self.flags | flags, sequence, &mut self.out).map_err(invalid)?;
        self.next_sequence = sequence + 1;
        self.published += 1;
        Ok(())
    }

    /// Writes what is left and reads at least one answer.
    fn wait(&mut self) -> io::Result<()> {
        let seen = |publisher: &Self| (publisher.acknowledged, publisher.accepted, publisher.answers.len());
        let before = seen(self);
        self.flush()?;
        if before != seen(self) {
            return Ok(());
        }
        self.read_some(self.timeout)
    }

    /// One blocking read.
    fn read_some(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_nonblocking(false)?;
        if self.read_timeout != timeout {
            self.stream.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        match self.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, "the node does not answer"))
            }
            result => result,
        }
    }

    /// Everything that can be read at once.
    fn take_answers(&mut self) -> io::Result<()> {
        self.set_nonblocking(true)?;
        let mut came = false;
        loop {
            match self.read() {
                Ok(()) => came = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if came => {
                    self.ended = Some(error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        if let Some(error) = self.ended.take() {
            return Err(error);
        }
        let mut buffer = [0; 16 << 10];
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Err(error) => return Err(self.closed_by_node(error)),
                Ok(0) => {
                    let error = io::Error::new(ErrorKind::UnexpectedEof, "the node closed the connection");
                    return Err(self.closed_by_node(error));
                }
                Ok(count) => break count,
            }
        };
        self.input.extend_from_slice(&buffer[..count]);
        let mut taken = 0;
        while let Some((header, rest)) = self.input[taken..].split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(header);
            if header.version != wire::VERSION || header.length > MAX_ANSWER_BYTES {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "what answers is not a Fanwire publish socket",
                ));
            }
            // Lossless: held to MAX_ANSWER_BYTES.
            let Some(body) = rest.get(..header.length as usize) else { break };
            let answer = parse_answer(header, body)?;
            taken += HEADER_LEN + body.len();
            self.note(answer)?;
        }
        self.input.drain(..taken);
        Ok(())
    }

    fn note(&mut self, answer: Answer) -> io::Result<()> {
        match &answer {
            Answer::Ack { sequence, accepted } => {
                self.acknowledged = self.acknowledged.max(*sequence);
                self.accepted = self.accepted.max(*accepted);
                self.ack = Some((*sequence, *accepted));
                return Ok(());
            }
            Answer::Error { sequence, code, message } => {
                // 0 is HELLO's.
                self.refused += u64::from(*sequence > 0);
                let stays = matches!(*code, 4 | 5 | 7 | 8);
                if !stays {
                    self.closing_error = Some(describe(*code, message));
                }
            }
            Answer::Pong { .. } | Answer::Receipt { .. } => {}
        }
        if self.answers.len() >= MAX_ANSWERS {
            return Err(io::Error::other(format!("{MAX_ANSWERS} answers wait unread")));
        }
        self.answers.push_back(answer);
        Ok(())
    }

    fn pop_answer(&mut self) -> Option<Answer> {
        let other = self.answers.pop_front();
        other.or_else(|| self.ack.take().map(|(sequence, accepted)| Answer::Ack { sequence, accepted }))
    }

    /// A write failed: what the node said last tells why.
    fn explain(&mut self, error: io::Error) -> io::Error {
        let _ = self.take_answers();
        self.closed_by_node(error)
    }

    fn closed_by_node(&self, error: io::Error) -> io::Error {
        match &self.closing_error {
            Some(why) => {
                io::Error::new(ErrorKind::ConnectionAborted, format!("the node closed the connection: {why}"))
            }
            None => error,
        }
    }

    fn forget_written(&mut self) {
        self.out.clear();
        self.written = 0;
        // One huge event must not hold its memory for ever.
        self.out.shrink_to(4 * BATCH);
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        if self.nonblocking != nonblocking {
            self.stream.set_nonblocking(nonblocking)?;
            self.nonblocking = nonblocking;
        }
        Ok(())
    }

    /// Closing a socket with unread answers in it would reset the connection, and the node lose what it has not
    /// read yet: so the write half ends first, and answers are read to their end.
    fn finish(&mut self, patience: Option<Duration>) -> io::Result<()> {
        self.closed = true;
        self.timeout = patience;
        self.deadline = patience.map(|patience| Instant::now() + patience);
        self.flush()?;
        self.stream.shutdown()?;
        loop {
            match self.read_some(patience) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
                Ok(()) => self.check_deadline()?,
            }
        }
    }

    fn check_deadline(&self) -> io::Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if !self.closed {
            // Best effort: whoever wants to know calls `close`.
            let _ = self.finish(Some(DROP_PATIENCE));
        }
    }
}

fn parse_answer(header: Header, body: &[u8]) -> io::Result<Answer> {
    let sequence = header.sequence;
    match (Kind::from_byte(header.kind), body) {
        (Some(Kind::Ack), &[a, b, c, d, e, f, g, h]) => {
            Ok(Answer::Ack { sequence, accepted: u64::from_le_bytes([a, b, c, d, e, f, g, h]) })
        }
        (Some(Kind::Error), &[low, high, ref message @ ..]) => {
            let message = String::from_utf8_lossy(message).into_owned();
            Ok(Answer::Error { sequence, code: u16::from_le_bytes([low, high]), message })
        }
        (Some(Kind::Pong), body) => Ok(Answer::Pong { body: body.to_vec() }),
        (Some(Kind::Receipt), body) => wire::decode_receipt(body)
            .map(|reach| Answer::Receipt { sequence, reach })
            .ok_or_else(|| not_understood(header)),
        _ => Err(not_understood(header)),
    }
}

fn not_understood(header: Header) -> io::Error {
    let Header { kind, length, .. } = header;
    io::Error::new(
        ErrorKind::InvalidData,
        format!("an answer of kind {kind} with {length} bytes is not understood"),
    )
}

fn describe(code: u16, message: &str) -> String {
    match ErrorCode::ALL.into_iter().find(|known| *known as u16 == code) {
        Some(known) => Refusal::new(known, message).to_string(),
        None => format!("{message} (error {code})"),
    }
}

fn invalid(error: impl fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, error.to_string())
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same call on either kind of stream.
macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl Stream {
    fn connect(address: &str, timeout: Option<Duration>) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            return UnixStream::connect(path).map(Self::Unix);
        }
        let mut last = invalid(format!("`{address}` has no address"));
        for address in address.to_socket_addrs()? {
            let connected = match timeout {
                Some(timeout) => TcpStream::connect_timeout(&address, timeout),
                None => TcpStream::connect(address),
            };
            match connected {
                Ok(stream) => {
                    // Batches are made here: the kernel must not wait to make larger ones.
                    stream.set_nodelay(true)?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        either!(self, stream => stream.set_nonblocking(nonblocking))
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(timeout))
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(timeout))
    }

    fn shutdown(&self) -> io::Result<()> {
        either!(self, stream => stream.shutdown(Shutdown::Write))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(buffer))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(bytes))
    }
}

#[cfg(test)]
mod tests;
