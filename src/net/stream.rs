//! A connected socket, TCP or Unix.

#[cfg(not(target_os = "linux"))]
use std::io::Write;
use std::io::{self, Read};
use std::net::Shutdown;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
#[cfg(target_os = "linux")]
use rustix::io::Errno;
#[cfg(target_os = "linux")]
use rustix::net::SendFlags;
use socket2::SockRef;

#[cfg(target_os = "linux")]
use crate::net::diag::Diag;
use crate::transport::Transport;
#[cfg(target_os = "linux")]
use crate::transport::{KernelFigures, Shared};

/// A connected socket. Registered once, for both directions, edge-triggered.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix domain.
    Unix(UnixStream),
}

impl Transport for Stream {
    #[cfg(target_os = "linux")]
    fn kernel_figures(of: &[&Self]) -> Vec<Option<KernelFigures>> {
        if of.is_empty() {
            return Vec::new();
        }
        let mut diag = match Diag::open() {
            Ok(diag) => diag,
            Err(error) => {
                // A sandbox may forbid the question: everything else is known without it.
                tracing::debug!(%error, "the kernel is not asked about slow clients");
                return vec![None; of.len()];
            }
        };
        let ask = |stream: &&Self| match stream {
            Self::Tcp(stream) => diag.ask(stream.local_addr().ok()?, stream.peer_addr().ok()?),
            Self::Unix(_) => None,
        };
        of.iter().map(ask).collect()
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    #[cfg(target_os = "linux")]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The C library's `send` is a cancellation point, which costs a process of several threads two atomic
        // operations a call.
        Ok(rustix::net::send(self.as_fd(), bytes, SendFlags::NOSIGNAL)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    #[cfg(target_os = "linux")]
    fn write_shared(&mut self, shared: Shared<'_>) -> io::Result<usize> {
        let Some((file, mut offset)) = shared.pages else { return self.write(shared.bytes) };
        // There is no flag against SIGPIPE here; Rust's runtime ignores it.
        match rustix::fs::sendfile(self.as_fd(), file, Some(&mut offset), shared.bytes.len()) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => self.write(shared.bytes),
            sent => Ok(sent?),
        }
    }

    fn expect_acknowledgement(&mut self, within: Duration) {
        if let Self::Tcp(stream) = self
            && let Err(error) = SockRef::from(&*stream).set_tcp_user_timeout(Some(within))
        {
            // The kernel's own patience, of about a quarter of an hour, is left.
            tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

#[cfg(target_os = "linux")]
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
