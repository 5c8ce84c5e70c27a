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
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            // A sandbox forbids it, or the pipe that it needs is one more than this user may have: that is no fault of the
            // client's. Where the connection is broken, the write says so too.
            Err(_) => self.write(shared.bytes),
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

    #[cfg(target_os = "linux")]
    fn bound_unsent(&mut self, bytes: Option<u32>) {
        // 0 is what the system says for all, which is nothing unless somebody has changed that.
        if let Self::Tcp(stream) = self
            && let Err(error) = SockRef::from(&*stream).set_tcp_notsent_lowat(bytes.unwrap_or(0))
        {
            // What the kernel takes is then bounded by its buffers.
            tracing::debug!(%error, "TCP_NOTSENT_LOWAT was not set");
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

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::pages::{Copied, Pages};
    use socket2::{Domain, Socket, Type};
    use std::net::TcpListener;

    /// The node's end of a connection that holds little, and the other.
    fn narrow() -> (Stream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        far.set_recv_buffer_size(4096).unwrap();
        far.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (near, _) = listener.accept().unwrap();
        SockRef::from(&near).set_send_buffer_size(4096).unwrap();
        near.set_nonblocking(true).unwrap();
        (Stream::Tcp(TcpStream::from_std(near)), far.into())
    }

    #[test]
    fn pages_arrive_as_their_bytes_however_often_the_socket_is_full() {
        let (mut near, mut far) = narrow();
        let mut random = fastrand::Rng::with_seed(7);
        let all: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(300_001).collect();
        let (mut pages, mut copied) = (Pages::default(), Copied::No);
        pages.copy(&mut copied, &all);
        let (mut sent, mut refused, mut got) = (0, 0, Vec::new());
        while got.len() < all.len() {
            let rest = sent..all.len();
            let shared = Shared { bytes: &all[rest.clone()], pages: pages.locate(copied, &rest) };
            assert!(shared.pages.is_some());
            if sent < all.len() {
                match near.write_shared(shared) {
                    Ok(bytes) => sent += bytes,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        refused += 1;
                    }
                }
            }
            if refused > 0 || sent == all.len() {
                let mut piece = vec![0; 10_000.min(sent - got.len())];
                far.read_exact(&mut piece).unwrap();
                got.extend(piece);
            }
        }
        assert!(got == all, "other bytes came than were sent");
        assert!(refused > 0, "it was never full");
    }

    #[test]
    fn what_could_not_be_sent_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut near = Stream::Tcp(TcpStream::from_std(near));
        near.bound_unsent(Some(64 << 10));
        let (mut sent, bytes) = (0, vec![0; 64 << 10]);
        while let Ok(more) = near.write(&bytes) {
            sent += more;
        }
        let figures = Stream::kernel_figures(&[&near])[0].unwrap();
        // Whole pieces are taken, and one may begin just below the bound.
        assert!(figures.unsent_bytes <= 192 << 10, "{figures:?} of {sent}");
    }

    #[test]
    fn where_the_system_hands_no_pages_over_bytes_are_copied() {
        let (mut near, mut far) = narrow();
        let (mut pages, mut copied) = (Pages::default(), Copied::No);
        pages.copy(&mut copied, b"xyz");
        let (file, _) = pages.locate(copied, &(0..3)).unwrap();
        // No file has such a place: EINVAL.
        let shared = Shared { bytes: b"abc", pages: Some((file, u64::MAX)) };
        assert_eq!(near.write_shared(shared).unwrap(), 3);
        let mut got = [0; 3];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abc");
    }
}
