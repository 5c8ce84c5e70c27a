//! Any other server as a child: started with a command, ended with everything that it started.

use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::process::Process;
use super::stream::Address;

/// How long a server may take until it listens.
const STARTING: Duration = Duration::from_secs(30);
/// How long it may take to end when it is asked to.
const ENDING: Duration = Duration::from_secs(3);
/// From one look to the next.
const TICK: Duration = Duration::from_millis(10);

/// A server as a child in a process group of its own. Ended when dropped, with its whole group.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts `command`, one command as a shell would take it. Its standard output goes nowhere, its errors to ours.
    ///
    /// # Errors
    /// There is no shell, or it cannot be started.
    pub fn start(command: &str) -> io::Result<Self> {
        // The shell gives its place to the server, so that it is not measured with it.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {command}"));
        shell.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        Ok(Self { child: shell.spawn()? })
    }

    /// Waits until connections to these addresses are taken, or `is_stopped`.
    ///
    /// # Errors
    /// The server ends, does not listen for half a minute, or it was stopped ([`io::ErrorKind::Interrupted`]).
    pub fn wait_listening(&mut self, addresses: &[Address], is_stopped: impl Fn() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + STARTING;
        for address in addresses {
            while let Err(error) = try_connect(address) {
                if let Some(status) = self.child.try_wait()? {
                    return Err(io::Error::other(format!(
                        "the server ended with {status} before it listened"
                    )));
                }
                if is_stopped() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                if Instant::now() > deadline {
                    let text = format!("the server does not listen at {address}: {error}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                std::thread::sleep(TICK);
            }
        }
        Ok(())
    }

    /// It and what it has started, as they are now.
    pub fn process(&self) -> Process {
        Process::tree(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // While the child is not waited for, nobody else gets its number.
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + ENDING;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(TICK);
        }
        // What is left of the group, and the server if it did not want to.
        let _ = kill_process_group(group, Signal::KILL);
        drop(self.child.wait());
    }
}

fn try_connect(address: &Address) -> io::Result<()> {
    match address {
        Address::Tcp(address) => connect_tcp(*address),
        Address::Unix(path) => std::os::unix::net::UnixStream::connect(path).map(drop),
    }
}

fn connect_tcp(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop)
}
