//! A hostile connection in memory: what a kernel may do, it does.
//!
//! Readiness is edge-triggered: a readable edge comes with each arrival, a writable edge only after a write was
//! refused and there is room again. The world hands edges to the shard when it likes, as a poll would.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use fanwire::transport::{Shared, Transport};

/// What a shard did to a connection, in the order it happened.
#[derive(Debug)]
pub enum Op {
    /// It took so many bytes; it had asked for so many.
    Read { connection: usize, bytes: usize, asked: usize },
    /// It was told that no more comes, or that the connection is broken.
    End { connection: usize },
    /// The kernel took these bytes from it.
    Wrote { connection: usize, bytes: Vec<u8> },
    /// The kernel took nothing.
    Refused { connection: usize },
    /// It dropped the connection.
    Dropped { connection: usize },
}

/// Everything that happened since the world last looked.
pub type Tape = Rc<RefCell<Vec<Op>>>;

/// How bad a connection is, in percent of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Temper {
    pub short_reads: u8,
    pub refused_reads: u8,
    pub short_writes: u8,
    pub refused_writes: u8,
    pub interrupts: u8,
}

/// One connection, as the world sees it.
#[derive(Debug)]
pub struct Pipe {
    pub id: usize,
    /// The number the shard knows it by, from its acceptance on.
    pub number: Option<u32>,
    pub temper: Temper,
    /// Bytes on their way to the node.
    pub inbound: VecDeque<u8>,
    /// The far end sends no more.
    pub ended: bool,
    /// The far end takes no more: writes fail.
    pub deaf: bool,
    /// The connection was reset: everything fails.
    pub reset: bool,
    /// Bytes that the kernel holds for the far end, and how many it can hold.
    pub outbound: usize,
    pub capacity: usize,
    /// Whether the kernel ever refused a write.
    pub has_refused: bool,
    /// Writes that were to hand over pages.
    pub writes_of_pages: u64,
    /// Edges that the poll has not yet reported.
    pub readable: bool,
    pub writable: bool,
    wants_to_write: bool,
    /// The node said that it writes no more.
    pub shut: bool,
    /// The node dropped it.
    pub dropped: bool,
    /// How long the node lets the far end be silent before the kernel breaks it off.
    pub acknowledged_within: Option<Duration>,
    /// How many bytes the kernel is to hold that it could not send yet.
    pub unsent_bytes: Option<u32>,
    /// How many bytes the last read asked for that found any.
    pub asked: usize,
    random: fastrand::Rng,
}

/// One connection, as the shard sees it.
#[derive(Debug)]
pub struct SimSocket {
    pipe: Rc<RefCell<Pipe>>,
    tape: Tape,
}

impl Pipe {
    pub fn new(id: usize, capacity: usize, temper: Temper, seed: u64) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            id,
            number: None,
            temper,
            inbound: VecDeque::new(),
            ended: false,
            deaf: false,
            reset: false,
            outbound: 0,
            capacity,
            has_refused: false,
            writes_of_pages: 0,
            // Registering a socket reports what it is ready for.
            readable: true,
            writable: true,
            wants_to_write: false,
            shut: false,
            dropped: false,
            acknowledged_within: None,
            unsent_bytes: None,
            asked: 0,
            random: fastrand::Rng::with_seed(seed),
        }))
    }

    /// Bytes arrive at the node.
    pub fn send(&mut self, bytes: &[u8]) {
        if !self.ended && !self.reset && !bytes.is_empty() {
            self.inbound.extend(bytes);
            self.readable = true;
        }
    }

    /// The far end takes bytes out of the kernel.
    pub fn take(&mut self, most: usize) -> usize {
        let taken = most.min(self.outbound);
        self.outbound -= taken;
        self.make_writable();
        taken
    }

    /// The kernel says that it takes writes again once a third is free.
    fn make_writable(&mut self) {
        if self.wants_to_write && self.outbound * 3 <= self.capacity.saturating_mul(2) {
            self.wants_to_write = false;
            self.writable = true;
        }
    }

    /// The far end sends no more, and where `deaf` takes no more either.
    pub fn end(&mut self, deaf: bool) {
        self.ended = true;
        self.readable = true;
        if deaf {
            self.deaf = true;
            self.writable = true;
        }
    }

    /// The far end resets the connection.
    pub fn break_off(&mut self) {
        self.reset = true;
        self.inbound.clear();
        self.readable = true;
        self.writable = true;
    }

    /// The kernel is kind from now on.
    pub fn calm(&mut self) {
        self.temper = Temper::default();
        self.make_writable();
    }

    /// Whether the far end has done nothing that ends the connection.
    pub fn is_intact(&self) -> bool {
        !self.ended && !self.deaf && !self.reset
    }

    /// For messages.
    pub fn state(&self) -> String {
        let Self { number, ended, deaf, reset, outbound, capacity, shut, dropped, .. } = self;
        format!(
            "number {number:?}, ended {ended}, deaf {deaf}, reset {reset}, {} in, {outbound} of {capacity} out, \
             shut {shut}, dropped {dropped}",
            self.inbound.len()
        )
    }

    fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.u8(..100) < percent
    }
}

impl SimSocket {
    pub fn new(pipe: &Rc<RefCell<Pipe>>, tape: &Tape) -> Self {
        Self { pipe: Rc::clone(pipe), tape: Rc::clone(tape) }
    }
}

impl Transport for SimSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "a read into nothing looks like the end");
        let pipe = &mut *self.pipe.borrow_mut();
        let temper = pipe.temper;
        if pipe.chance(temper.interrupts) {
            return Err(ErrorKind::Interrupted.into());
        }
        if pipe.reset || (pipe.inbound.is_empty() && pipe.ended) {
            self.tape.borrow_mut().push(Op::End { connection: pipe.id });
            return if pipe.reset { Err(ErrorKind::ConnectionReset.into()) } else { Ok(0) };
        }
        if pipe.inbound.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if pipe.chance(temper.refused_reads) {
            pipe.readable = true; // As if it arrived just after.
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = buffer.len().min(pipe.inbound.len());
        if pipe.chance(temper.short_reads) {
            count = pipe.random.usize(1..=count);
        }
        for (to, from) in buffer.iter_mut().zip(pipe.inbound.drain(..count)) {
            *to = from;
        }
        pipe.asked = buffer.len();
        self.tape.borrow_mut().push(Op::Read { connection: pipe.id, bytes: count, asked: buffer.len() });
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty(), "a write of nothing");
        let pipe = &mut *self.pipe.borrow_mut();
        assert!(!pipe.shut, "a write after the end was said");
        let temper = pipe.temper;
        if pipe.chance(temper.interrupts) {
            return Err(ErrorKind::Interrupted.into());
        }
        if pipe.reset || pipe.deaf {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = pipe.capacity.saturating_sub(pipe.outbound);
        if room == 0 || pipe.chance(temper.refused_writes) {
            pipe.has_refused = true;
            pipe.wants_to_write = true;
            pipe.make_writable();
            self.tape.borrow_mut().push(Op::Refused { connection: pipe.id });
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = bytes.len().min(room);
        if pipe.chance(temper.short_writes) {
            count = pipe.random.usize(1..=count);
        }
        pipe.outbound += count;
        self.tape.borrow_mut().push(Op::Wrote { connection: pipe.id, bytes: bytes[..count].to_vec() });
        Ok(count)
    }

    fn write_shared(&mut self, shared: Shared<'_>) -> io::Result<usize> {
        if let Some((file, offset)) = shared.pages {
            let mut pages = vec![0; shared.bytes.len()];
            assert_eq!(rustix::io::pread(file, &mut pages[..], offset), Ok(pages.len()));
            assert!(pages == shared.bytes, "the pages of a run are not its bytes");
            self.pipe.borrow_mut().writes_of_pages += 1;
        }
        self.write(shared.bytes)
    }

    fn expect_acknowledgement(&mut self, within: Duration) {
        self.pipe.borrow_mut().acknowledged_within = Some(within);
    }

    fn bound_unsent(&mut self, bytes: Option<u32>) {
        self.pipe.borrow_mut().unsent_bytes = bytes;
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let pipe = &mut *self.pipe.borrow_mut();
        if pipe.reset || pipe.deaf {
            return Err(ErrorKind::NotConnected.into());
        }
        pipe.shut = true;
        Ok(())
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.dropped = true;
        self.tape.borrow_mut().push(Op::Dropped { connection: pipe.id });
    }
}
