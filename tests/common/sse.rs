//! A client of Server-Sent Events that takes a stream apart as the standard says (WHATWG HTML, "Interpreting an
//! event stream"), and sees its comments too.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;
use super::raw::connect_narrow;

/// What a stream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An event that `EventSource` would dispatch: its type and its data.
    Event(String, String),
    /// A comment, as it stands behind the colon.
    Comment(String),
    /// When to come back, in milliseconds.
    Retry(u64),
    /// The stream has ended.
    End,
}

/// An open event stream.
pub struct EventStream {
    pub stream: TcpStream,
    /// The head of the answer, with its empty line.
    pub head: String,
    unread: Vec<u8>,
    name: String,
    data: Option<String>,
    /// The last `id` that it was given: what a browser would come back with.
    pub id: String,
}

impl EventStream {
    /// Asks for a path and reads the head, and the comment that every stream begins with.
    pub fn open(addr: SocketAddr, path: &str) -> Self {
        Self::open_with(addr, path, "")
    }

    /// The same with further header lines, each with its end.
    pub fn open_with(addr: SocketAddr, path: &str, headers: &str) -> Self {
        Self::over(TcpStream::connect(addr).unwrap(), path, headers)
    }

    /// A client whose kernel keeps little for it: what it does not read soon waits in the node.
    pub fn open_narrow(addr: SocketAddr, path: &str) -> Self {
        Self::over(connect_narrow(addr), path, "")
    }

    fn over(mut stream: TcpStream, path: &str, headers: &str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut it = Self {
            stream,
            head: String::new(),
            unread: Vec::new(),
            name: String::new(),
            data: None,
            id: String::new(),
        };
        let end = loop {
            match it.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(place) => break place + 4,
                None => assert!(it.read_more(), "it ended in the head: {:?}", it.unread),
            }
        };
        it.head = String::from_utf8(it.unread.drain(..end).collect()).unwrap();
        assert!(it.head.starts_with("HTTP/1.1 200 "), "{path}: {}", it.head);
        assert_eq!(it.next(), Said::Comment(" subscribed".to_owned()));
        it
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}, with {:?} read", String::from_utf8_lossy(&self.unread)),
        }
    }

    /// A line without its end, which here is always a line feed: no event may hold another.
    fn next_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                assert!(!line.contains(&b'\r'), "{:?}", String::from_utf8_lossy(&line));
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    /// What it says next.
    pub fn next(&mut self) -> Said {
        loop {
            let Some(line) = self.next_line() else { return Said::End };
            if line.is_empty() {
                let name = std::mem::take(&mut self.name);
                if let Some(data) = self.data.take() {
                    return Said::Event(if name.is_empty() { "message".to_owned() } else { name }, data);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let stripped = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => return Said::Comment(value.to_owned()),
                "retry" => return Said::Retry(stripped.parse().unwrap()),
                "id" => self.id = stripped.to_owned(),
                "event" => self.name = stripped.to_owned(),
                "data" => match &mut self.data {
                    Some(data) => *data += &format!("\n{stripped}"),
                    None => self.data = Some(stripped.to_owned()),
                },
                other => panic!("a field {other:?} in {line:?}"),
            }
        }
    }

    /// The next event and its data; keep-alive comments are passed over.
    pub fn next_event(&mut self) -> (String, Value) {
        loop {
            match self.next() {
                Said::Event(name, data) => {
                    let data =
                        serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {data:?}"));
                    return (name, data);
                }
                Said::Comment(text) if text == " keep-alive" => {}
                other => panic!("no event, but {other:?}"),
            }
        }
    }

    /// What it says up to its end.
    pub fn rest(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| Some(self.next()).filter(|said| *said != Said::End)).collect()
    }

    /// Goes as a process goes that is killed: with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Says that nothing more comes from this side.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}
