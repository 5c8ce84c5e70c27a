//! The only way to the outside: bytes in, bytes out.

use std::io;
use std::time::Duration;

/// One connection's bytes. Real sockets implement it in `net`; the simulation has a hostile one in memory.
///
/// Both calls answer [`io::ErrorKind::WouldBlock`] instead of waiting. Dropping the value closes the
/// connection.
pub trait Transport {
    /// Reads what is there. `Ok(0)`: the far end sends no more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what is taken, which may be less than all.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// From now on the connection breaks where what was written is not acknowledged for this long, if the
    /// transport can tell.
    fn expect_acknowledgement(&mut self, within: Duration);

    /// Tells the far end that nothing more will be written.
    fn shutdown_write(&mut self) -> io::Result<()>;
}
