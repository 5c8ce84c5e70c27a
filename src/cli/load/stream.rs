//! Where a server listens, and a connection to it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// Where events go in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = io::Error;

    /// `HOST:PORT` or `unix:PATH`; the host's name is looked up now.
    fn from_str(text: &str) -> io::Result<Self> {
        match text.strip_prefix("unix:") {
            Some("") => Err(io::Error::new(io::ErrorKind::InvalidInput, "unix: needs a path")),
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                let mut found = text.to_socket_addrs()?;
                found
                    .next()
                    .map(Self::Tcp)
                    .ok_or_else(|| io::Error::other(format!("{text}: there is no such host")))
            }
        }
    }
}

/// A connection that blocks, with a bound: for the publisher's set-up.
#[derive(Debug)]
pub(super) enum Blocking {
    Tcp(std::net::TcpStream),
    Unix(BlockingUnixStream),
}

impl Blocking {
    /// Connects; reads and writes end after `patience` in which nothing moved.
    pub(super) fn connect(address: &Address, patience: Duration) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = std::net::TcpStream::connect_timeout(address, patience)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = BlockingUnixStream::connect(path)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Self::Unix(stream))
            }
        }
    }

    /// The same connection for a poll.
    pub(super) fn into_stream(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(TcpStream::from_std(stream)))
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(UnixStream::from_std(stream)))
            }
        }
    }
}

/// A connection for a poll.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! both {
    ($self:ident, $stream:ident => $body:expr) => {
        match $self {
            Self::Tcp($stream) => $body,
            Self::Unix($stream) => $body,
        }
    };
}

macro_rules! read_and_write {
    ($own:ty) => {
        impl Read for $own {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                both!(self, stream => stream.read(buffer))
            }
        }

        impl Write for $own {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                both!(self, stream => stream.write(bytes))
            }

            fn flush(&mut self) -> io::Result<()> {
                both!(self, stream => stream.flush())
            }
        }
    };
}
read_and_write!(Blocking);
read_and_write!(Stream);

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        both!(self, stream => stream.register(registry, token, interests))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        both!(self, stream => stream.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        both!(self, stream => stream.deregister(registry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:8081", "unix:/run/fanwire.sock", "[::1]:9"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["unix:", "127.0.0.1", "host:port"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
