//! The only way to the outside: bytes in, bytes out.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What the kernel takes for each client and could not send yet, in bytes, where a shard has so many that several may refuse:
/// where all fall behind together, a socket that has grown to 4 MB takes again only when a third of that is free, at 5 MB a
/// second after a quarter of a second in which its client looks like one that has stopped. What waits in the kernel can be
/// neither conflated nor left out, either. As large as what one flush writes in a flood.
pub const UNSENT_BYTES: u32 = 128 << 10;

/// How a connection's way to the far end is, as the kernel sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFigures {
    /// Bytes that the kernel has taken and never sent.
    pub unsent_bytes: u32,
    /// Smoothed round-trip time, in microseconds.
    pub rtt_micros: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
}

/// Bytes that many connections are written.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// They.
    pub bytes: &'a [u8],
    /// A file in memory, and where in it they stand too.
    pub pages: Option<(BorrowedFd<'a>, u64)>,
}

/// One connection's bytes. Real sockets implement it in `net`; the simulation has a hostile one in memory.
///
/// Both calls answer [`io::ErrorKind::WouldBlock`] instead of waiting. Dropping the value closes the
/// connection.
pub trait Transport {
    /// What the kernel knows of each of these connections, in their order; `None` where it does not tell. All
    /// are asked together, because finding the way to ask costs more than a question.
    fn kernel_figures(of: &[&Self]) -> Vec<Option<KernelFigures>>
    where
        Self: Sized,
    {
        vec![None; of.len()]
    }

    /// Reads what is there. `Ok(0)`: the far end sends no more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what is taken, which may be less than all.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes what is taken of bytes that others are written too, which may be less than all.
    fn write_shared(&mut self, shared: Shared<'_>) -> io::Result<usize> {
        self.write(shared.bytes)
    }

    /// From now on the connection breaks where what was written is not acknowledged for this long, if the
    /// transport can tell.
    fn expect_acknowledgement(&mut self, within: Duration);

    /// From now on it refuses where about this many bytes could not be sent yet, and takes again where half of those
    /// are left, if the transport can; `None`: where it likes. Connections begin with [`UNSENT_BYTES`], publishers' with
    /// `None`.
    fn bound_unsent(&mut self, _bytes: Option<u32>) {}

    /// Tells the far end that nothing more will be written.
    fn shutdown_write(&mut self) -> io::Result<()>;
}
