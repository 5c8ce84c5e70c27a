//! Listening sockets: bound once for the whole node, then one handle for each shard.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::fs::Mode;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::config::PublishAddress;
use crate::fanout::connection::Door;
use crate::net::stream::Stream;
#[cfg(target_os = "linux")]
use crate::transport::UNSENT_BYTES;

/// What connections are set to.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The congestion control of TCP; `None`: the system's.
    pub tcp_congestion: Option<String>,
    /// Bytes of the kernel's send buffer; `None`: the system's.
    pub send_buffer: Option<usize>,
}

/// A bound address.
#[derive(Debug)]
pub struct Bound {
    socket: Listening,
    /// What comes in here.
    pub door: Door,
}

#[derive(Debug)]
enum Listening {
    Tcp(StdTcpListener, SocketAddr),
    Unix(StdUnixListener, UnixPath),
}

/// The path of a socket that is ours: removed when the node ends, unless it is another's by then.
#[derive(Debug)]
struct UnixPath {
    path: PathBuf,
    inode: u64,
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // It may be gone already, and nothing can be done where it may not be removed.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A TCP connection that is silent for so long is asked by the kernel whether its far end still lives …
const KEEPALIVE: Duration = Duration::from_secs(60);
/// … again after so long where no answer comes …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// … and ends where so many questions had none: after two minutes, not the twelve of Linux' own figures.
const KEEPALIVE_RETRIES: u32 = 4;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

impl Bound {
    /// Binds a TCP address.
    ///
    /// # Errors
    /// What the system says, with the address: "address in use" where another node has it.
    pub fn tcp(address: SocketAddr, door: Door, tuning: &Tuning) -> io::Result<Self> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
            tune(&socket, tuning, door)?;
            // Only so that a restart need not wait for old connections: a second node still fails.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = StdTcpListener::from(socket);
            let bound = listener.local_addr()?;
            Ok(Self { socket: Listening::Tcp(listener, bound), door })
        };
        bind().map_err(|error| explain(&error, &address.to_string()))
    }

    /// Binds a publish address.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub fn publish(address: &PublishAddress, tuning: &Tuning) -> io::Result<Self> {
        match address {
            PublishAddress::Tcp(address) => Self::tcp(*address, Door::Publish, tuning),
            PublishAddress::Unix(path) => {
                Self::unix(path).map_err(|error| explain(&error, &format!("unix:{}", path.display())))
            }
        }
    }

    /// Binds a Unix socket that owner and group may use. A socket that a node left behind is replaced;
    /// anything else in its place is not ours to touch.
    fn unix(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is not a socket",
                ));
            }
            Ok(found) if found.uid() != rustix::process::geteuid().as_raw() => {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the socket there is another user's",
                ));
            }
            Ok(_) => {
                if StdUnixStream::connect(path).is_ok() {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                fs::remove_file(path)?;
            }
        }
        // The mode must be right from the first moment: the socket is made by `bind` itself. The node is still
        // single-threaded here, so the mask is nobody else's.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o117));
        let listener = StdUnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).listen(BACKLOG)?;
        let inode = fs::symlink_metadata(path)?.ino();
        let path = UnixPath { path: path.to_owned(), inode };
        Ok(Self { socket: Listening::Unix(listener, path), door: Door::Publish })
    }

    /// The address as one connects to it, with the port that the system chose.
    pub fn address(&self) -> String {
        match &self.socket {
            Listening::Tcp(_, address) => address.to_string(),
            Listening::Unix(_, path) => format!("unix:{}", path.path.display()),
        }
    }

    /// One more handle, for a shard.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn handle(&self) -> io::Result<Listener> {
        let socket = match &self.socket {
            Listening::Tcp(listener, _) => Accepting::Tcp(TcpListener::from_std(listener.try_clone()?)),
            Listening::Unix(listener, _) => Accepting::Unix(UnixListener::from_std(listener.try_clone()?)),
        };
        Ok(Listener { socket, door: self.door })
    }
}

/// Sets what every connection is to have: those that are accepted get it from the socket that listens, which saves six
/// calls for each, more than a fifteenth of what a handshake costs.
fn tune(listening: &Socket, tuning: &Tuning, door: Door) -> io::Result<()> {
    listening.set_tcp_nodelay(true)?;
    // Publishers may be silent for as long as they like, but not dead.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    listening.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    if let Some(name) = &tuning.tcp_congestion {
        listening.set_tcp_congestion(name.as_bytes())?;
    }
    if let Some(bytes) = tuning.send_buffer {
        listening.set_send_buffer_size(bytes)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = door;
    #[cfg(target_os = "linux")]
    if door != Door::Publish
        && let Err(error) = listening.set_tcp_notsent_lowat(UNSENT_BYTES)
    {
        // What the kernel takes is then bounded by its buffers.
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT was not set");
    }
    Ok(())
}

fn explain(error: &io::Error, address: &str) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => "address in use (is another node running?)".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {what}"))
}

/// A shard's handle of a listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Accepting,
    /// What comes in here.
    pub door: Door,
}

#[derive(Debug)]
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Accepts one connection, if one waits.
    ///
    /// # Errors
    /// `WouldBlock`: none does. Others as the system says.
    pub fn accept(&self) -> io::Result<(Stream, String)> {
        match &self.socket {
            Accepting::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Stream::Tcp(stream), address.to_string()))
            }
            Accepting::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Stream::Unix(stream), "unix".to_owned()))
            }
        }
    }
}

/// Whether the system has a congestion control of this name.
///
/// # Errors
/// It has not, or this process may not choose it.
pub fn check_congestion(name: &str) -> io::Result<()> {
    let set = Socket::new(Domain::IPV4, Type::STREAM, None)?.set_tcp_congestion(name.as_bytes());
    set.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            "this kernel has none of that name; /proc/sys/net/ipv4/tcp_available_congestion_control lists them",
        ),
        _ => error,
    })
}

impl Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Accepting::Tcp(listener) => listener.register(registry, token, interests),
            Accepting::Unix(listener) => listener.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.socket {
            Accepting::Tcp(listener) => listener.reregister(registry, token, interests),
            Accepting::Unix(listener) => listener.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.socket {
            Accepting::Tcp(listener) => listener.deregister(registry),
            Accepting::Unix(listener) => listener.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Transport;

    #[test]
    fn connections_are_set_as_the_socket_that_listens() {
        let tuning = Tuning { tcp_congestion: Some("reno".to_owned()), send_buffer: Some(8 << 10) };
        let bound = Bound::tcp("127.0.0.1:0".parse().unwrap(), Door::Publish, &tuning).unwrap();
        let _far = std::net::TcpStream::connect(bound.address()).unwrap();
        let listener = bound.handle().unwrap();
        // On loopback a connection that is made waits to be accepted.
        let (Stream::Tcp(stream), _) = listener.accept().unwrap() else { unreachable!() };
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
        // The kernel doubles what it is told.
        assert_eq!(socket.send_buffer_size().unwrap(), 16 << 10);
        // Whoever is gone without a word is noticed within minutes.
        assert!(socket.keepalive().unwrap());
        let asked = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap() + asked, Duration::from_secs(120));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_kernel_holds_is_bounded_for_clients_until_it_is_let_go() {
        for (door, bytes) in [(Door::Public, UNSENT_BYTES), (Door::Admin, UNSENT_BYTES), (Door::Publish, 0)] {
            let bound = Bound::tcp("127.0.0.1:0".parse().unwrap(), door, &Tuning::default()).unwrap();
            let _far = std::net::TcpStream::connect(bound.address()).unwrap();
            let (mut stream, _) = bound.handle().unwrap().accept().unwrap();
            let bound = |stream: &Stream| SockRef::from(stream).tcp_notsent_lowat().unwrap();
            assert_eq!(bound(&stream), bytes, "{door:?}");
            stream.bound_unsent(None);
            assert_eq!(bound(&stream), 0);
        }
    }
}
