//! Clients that can do everything wrong, and that see every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::PATIENCE;

/// A WebSocket client made of bytes.
pub struct RawClient {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl RawClient {
    /// Opens `/ws`.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::open(addr, "/ws")
    }

    /// Opens a path.
    pub fn open(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::begin(TcpStream::connect(addr).unwrap());
        client.send(upgrade(path).as_bytes());
        client.finish_handshake();
        client
    }

    /// A client whose kernel keeps little for it: what it does not read soon waits in the node.
    pub fn open_narrow(addr: SocketAddr, path: &str) -> Self {
        let mut client = Self::begin(connect_narrow(addr));
        client.send(upgrade(path).as_bytes());
        client.finish_handshake();
        client
    }

    /// One that has sent nothing yet.
    pub fn begin(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Reads the head of the answer to the handshake, which it returns.
    pub fn finish_handshake(&mut self) -> String {
        while !self.read.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            self.read.push(byte[0]);
        }
        let head = String::from_utf8(std::mem::take(&mut self.read)).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        head
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Opcode and payload of the next frame, which must be whole and unmasked; `None` at the end.
    pub fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.next_frame_of(0x80).map(|(first, payload)| (first & 15, payload))
    }

    /// First byte and payload of the next frame, which may have no bits of its upper half but these.
    pub fn next_frame_of(&mut self, upper: u8) -> Option<(u8, Vec<u8>)> {
        loop {
            if let &[first, second, ref rest @ ..] = self.read.as_slice() {
                let is_final = first & 0x80 != 0 && first & 0xF0 & !upper == 0;
                assert!(is_final && second < 0x80, "header {first:x} {second:x}");
                let (length, skip) = match (second, rest) {
                    (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
                    (127, [a, b, c, d, e, f, g, h, ..]) => {
                        (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize, 10)
                    }
                    (126 | 127, _) => (usize::MAX, 0),
                    _ => (usize::from(second), 2),
                };
                if self.read.len() - skip >= length {
                    let payload = self.read[skip..skip + length].to_vec();
                    self.read.drain(..skip + length);
                    return Some((first, payload));
                }
            }
            let mut buffer = [0; 8192];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("{error}, with {:?} read", self.read),
            }
        }
    }

    /// The next frame, which must be a text message.
    pub fn next_text(&mut self) -> String {
        let (opcode, payload) = self.next_frame().expect("the connection has ended");
        assert_eq!(opcode, 1, "{payload:?}");
        String::from_utf8(payload).unwrap()
    }

    /// Code and reason of the close frame; what comes before it is passed over.
    pub fn wait_close(&mut self) -> Option<(u16, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "it is not closed");
            if let (8, payload) = self.next_frame()? {
                let code = u16::from_be_bytes(payload[..2].try_into().expect("a code"));
                return Some((code, String::from_utf8(payload[2..].to_vec()).unwrap()));
            }
        }
    }
}

/// Connects with a receive buffer that holds little.
pub fn connect_narrow(addr: SocketAddr) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).unwrap();
    // Before it connects: the window is agreed on then.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

/// The request that opens a WebSocket.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
