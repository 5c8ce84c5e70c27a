//! What Linux knows of TCP connections, asked over netlink (`NETLINK_SOCK_DIAG`, as `ss` does): the only way to
//! `struct tcp_info` that takes no unsafe code. Each question is about one connection, which the kernel finds in
//! its hash table, and is answered before the call that asks returns.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, netlink, recv, send, socket_with,
};

use crate::transport::KernelFigures;

const TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// The attribute with the `struct tcp_info`.
const INET_DIAG_INFO: u16 = 2;
/// Bytes of the header of every message.
const HEADER: usize = 16;
/// Bytes of a question: header and `struct inet_diag_req_v2`.
const QUESTION: usize = HEADER + 56;
/// Where the attributes of an answer begin: behind the header and `struct inet_diag_msg`.
const ATTRIBUTES: usize = HEADER + 72;
/// Where fields stand in `struct tcp_info`: it only ever grows at its end.
const RTT: usize = 68;
const TOTAL_RETRANS: usize = 100;
const NOTSENT_BYTES: usize = 144;

/// A socket to ask the kernel through.
#[derive(Debug)]
pub(super) struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

impl Diag {
    /// A way to ask.
    ///
    /// # Errors
    /// There is none here: no such kernel, or a sandbox forbids it.
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // To the kernel, so that nobody else's answers are taken.
        connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// What the kernel knows of the connection between two addresses, if it is there.
    pub(super) fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<KernelFigures> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut answer = [0; 4096];
        send(&self.socket, &question(self.sequence, local, peer)?, SendFlags::empty()).ok()?;
        let (_, length) = recv(&self.socket, &mut answer, RecvFlags::DONTWAIT).ok()?;
        figures(answer.get(..length)?, self.sequence)
    }
}

/// The question. Both addresses are of one family: `None` where they are not.
fn question(sequence: u32, local: SocketAddr, peer: SocketAddr) -> Option<[u8; QUESTION]> {
    let (family, scope) = match (local, peer) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => (AddressFamily::INET, 0),
        (SocketAddr::V6(local), SocketAddr::V6(_)) => (AddressFamily::INET6, local.scope_id()),
        _ => return None,
    };
    let mut bytes = [0; QUESTION];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&(QUESTION as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&[0; 4]); // From whom: the kernel fills it in.
    put(&[family.as_raw() as u8, TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    put(&u32::MAX.to_ne_bytes()); // In any state.
    put(&local.port().to_be_bytes());
    put(&peer.port().to_be_bytes());
    put(&sixteen(local.ip()));
    put(&sixteen(peer.ip()));
    put(&scope.to_ne_bytes());
    put(&[u8::MAX; 8]); // No cookie: the addresses say which.
    Some(bytes)
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes
}

/// Reads an answer. `None`: it is an error, to another question, or of a kernel that tells less.
fn figures(answer: &[u8], sequence: u32) -> Option<KernelFigures> {
    if u16_at(answer, 4)? != SOCK_DIAG_BY_FAMILY || u32_at(answer, 8)? != sequence {
        return None;
    }
    // Where the connection is gone, the kernel finds the socket that listens there.
    if *answer.get(HEADER + 1)? == TCP_LISTEN {
        return None;
    }
    let end = (u32_at(answer, 0)? as usize).min(answer.len());
    let mut at = ATTRIBUTES;
    while at + 4 <= end {
        let length = usize::from(u16_at(answer, at)?).max(4);
        if u16_at(answer, at + 2)? == INET_DIAG_INFO {
            let info = answer.get(at + 4..(at + length).min(end))?;
            return Some(KernelFigures {
                unsent_bytes: u32_at(info, NOTSENT_BYTES)?,
                rtt_micros: u32_at(info, RTT)?,
                retransmits: u32_at(info, TOTAL_RETRANS)?,
            });
        }
        at += length.next_multiple_of(4);
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_ne_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_ne_bytes(*field))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_a_far_end_does_not_read_is_told() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue }; // A machine without IPv6.
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut served, peer) = listener.accept().unwrap();
            let local = served.local_addr().unwrap();
            let mut diag = Diag::open().unwrap();
            client.write_all(b"hello").unwrap();
            served.read_exact(&mut [0; 5]).unwrap();
            let idle = diag.ask(local, peer).unwrap();
            assert_eq!((idle.unsent_bytes, idle.retransmits), (0, 0), "{address}");
            assert!((1..10_000_000).contains(&idle.rtt_micros), "{idle:?}");
            served.set_nonblocking(true).unwrap();
            while served.write(&[0; 65536]).is_ok() {}
            assert!(diag.ask(local, peer).unwrap().unsent_bytes > 0, "{address}");
            // From the other end, nothing waits; and nobody has these addresses.
            assert_eq!(diag.ask(peer, local).unwrap().unsent_bytes, 0);
            assert_eq!(diag.ask(local, "127.0.0.2:1".parse().unwrap()), None);
        }
    }

    #[test]
    fn answers_that_are_not_as_they_should_be_tell_nothing() {
        let address = "127.0.0.1:1".parse().unwrap();
        let sent = question(7, address, address).unwrap();
        assert_eq!(figures(&sent, 7), None, "no attributes");
        let info = [[0; NOTSENT_BYTES].as_slice(), &5_u32.to_ne_bytes()].concat();
        let mut answer = [&sent[..HEADER], &[0; 72]].concat();
        for (kind, value) in [(8_u16, [1].as_slice()), (INET_DIAG_INFO, &info)] {
            answer.extend((4 + value.len() as u16).to_ne_bytes());
            answer.extend(kind.to_ne_bytes());
            answer.extend(value);
            answer.resize(answer.len().next_multiple_of(4), 0);
        }
        let length = answer.len() as u32;
        answer[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(figures(&answer, 7).unwrap().unsent_bytes, 5);
        assert_eq!(figures(&answer, 8), None, "to another question");
        for end in 0..answer.len() {
            assert_eq!(figures(&answer[..end], 7), None, "cut after {end}");
        }
    }
}
