//! Small servers that speak what `fanwire bench` speaks to others: a thread for each connection, every event to every
//! subscriber of its topic. On demand they do it wrong.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use fanwire::proto::websocket::{Opcode, write_frame};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Ws,
    SocketIo,
    Nats,
    Mqtt,
    Http,
}

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every seventh delivery is not made.
    Drop,
    /// Every seventh is made twice.
    Repeat,
    /// Every seventh comes after the eighth.
    Swap,
    /// Every seventh says that it is of another topic.
    OtherTopic,
    /// Whoever had seven is closed.
    Close,
    /// No event is taken.
    Refuse,
}

pub struct Broker {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    speech: Speech,
    fault: Option<Fault>,
    faults: AtomicU64,
    topics: Mutex<HashMap<String, Vec<Subscriber>>>,
}

struct Subscriber {
    stream: TcpStream,
    delivered: u64,
    held: Option<Vec<u8>>,
}

impl Broker {
    pub fn start(speech: Speech, fault: Option<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { speech, fault, faults: AtomicU64::new(0), topics: Mutex::default() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // That the other side goes is how each connection ends.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { addr, shared }
    }

    /// How often something was done wrong.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Acquire)
    }

    /// Deliveries that wait for the next one.
    pub fn held(&self) -> u64 {
        let topics = self.shared.topics.lock().unwrap();
        topics.values().flatten().filter(|subscriber| subscriber.held.is_some()).count() as u64
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        match self.speech {
            Speech::Nats => self.serve_nats(&mut reader, &mut writer),
            Speech::Mqtt => self.serve_mqtt(&mut reader, &mut writer),
            Speech::Ws | Speech::SocketIo | Speech::Http => self.serve_http(&mut reader, &mut writer),
        }
    }

    fn subscribe(&self, topic: &str, stream: &TcpStream) -> io::Result<()> {
        let subscriber = Subscriber { stream: stream.try_clone()?, delivered: 0, held: None };
        self.topics.lock().unwrap().entry(topic.to_owned()).or_default().push(subscriber);
        Ok(())
    }

    /// Writes a frame to every subscriber of the topic, as well as it is meant to.
    fn publish(&self, topic: &str, frame: &[u8]) {
        let mut topics = self.topics.lock().unwrap();
        for subscriber in topics.get_mut(topic).into_iter().flatten() {
            subscriber.delivered += 1;
            let is_seventh = subscriber.delivered.is_multiple_of(7);
            let frames = match self.fault.filter(|_| is_seventh) {
                None => match subscriber.held.take() {
                    Some(held) => [frame, &held].concat(),
                    None => frame.to_vec(),
                },
                Some(Fault::Drop) => Vec::new(),
                Some(Fault::Repeat) => [frame, frame].concat(),
                Some(Fault::Swap) => {
                    subscriber.held = Some(frame.to_vec());
                    // It counts when it is made.
                    continue;
                }
                Some(Fault::OtherTopic) => {
                    let text = String::from_utf8_lossy(&frame[4..])
                        .replace(r#""probe":"0000."#, r#""probe":"0009."#);
                    [&frame[..4], text.as_bytes()].concat()
                }
                Some(Fault::Close) => {
                    drop(subscriber.stream.shutdown(std::net::Shutdown::Both));
                    if subscriber.delivered == 7 {
                        self.faults.fetch_add(1, Ordering::AcqRel);
                    }
                    continue;
                }
                Some(Fault::Refuse) => continue,
            };
            let is_swapped = self.fault == Some(Fault::Swap) && frames.len() > frame.len();
            if is_swapped || (self.fault.is_some_and(|fault| fault != Fault::Swap) && is_seventh) {
                self.faults.fetch_add(1, Ordering::AcqRel);
            }
            // Who has gone is not served.
            drop(subscriber.stream.write_all(&frames));
        }
    }

    // WebSocket and HTTP ---------------------------------------------------------------------------------------------

    fn serve_http(&self, reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<()> {
        loop {
            let (path, length) = read_head(reader)?;
            if let (Speech::Http, Some(topic)) = (self.speech, path.strip_prefix("/pub/")) {
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                if self.fault == Some(Fault::Refuse) {
                    writer.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")?;
                    continue;
                }
                self.publish(topic, &text_frame(&body));
                writer.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")?;
                continue;
            }
            writer.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            if let Some(topic) = path.strip_prefix("/sub/") {
                self.subscribe(topic, writer)?;
            }
            if self.speech == Speech::SocketIo {
                assert_eq!(path, "/socket.io/?EIO=4&transport=websocket");
                let greeting = br#"0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}"#;
                writer.write_all(&text_frame(greeting))?;
            }
            loop {
                let (opcode, message) = read_frame(reader)?;
                if opcode != 1 {
                    continue;
                }
                let text = String::from_utf8(message).expect("text is UTF-8");
                match self.speech {
                    Speech::SocketIo => self.hear_socketio(&text, writer)?,
                    _ => {
                        let (topic, event) = text.split_once(' ').expect("TOPIC JSON");
                        self.publish(topic, &text_frame(event.as_bytes()));
                    }
                }
            }
        }
    }

    fn hear_socketio(&self, text: &str, writer: &mut TcpStream) -> io::Result<()> {
        if text == "40" {
            return writer.write_all(&text_frame(br#"40{"sid":"b"}"#));
        }
        if text == "3" {
            return Ok(());
        }
        let packet = text.strip_prefix("42").unwrap_or_else(|| panic!("no event: {text}"));
        let event: Vec<&serde_json::value::RawValue> = serde_json::from_str(packet).expect("an array");
        let name = |at: usize| -> String { serde_json::from_str(event[at].get()).expect("a string") };
        match name(0).as_str() {
            "sub" => {
                self.subscribe(&name(1), writer)?;
                writer.write_all(&text_frame(br#"42["subbed"]"#))
            }
            "pub" => {
                let frame = text_frame(format!(r#"42["event",{}]"#, event[2].get()).as_bytes());
                self.publish(&name(1), &frame);
                Ok(())
            }
            other => panic!("{other} is not an event of this server"),
        }
    }

    // NATS -----------------------------------------------------------------------------------------------------------

    fn serve_nats(&self, reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<()> {
        writer.write_all(b"INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n")?;
        loop {
            let line = read_line(reader)?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "CONNECT" => drop(serde_json::from_str::<serde_json::Value>(&line[8..]).expect("options")),
                "PING" => writer.write_all(b"PONG\r\n")?,
                "PONG" => {}
                "SUB" => self.subscribe(words[1], writer)?,
                "PUB" => {
                    let mut payload = vec![0; words[2].parse::<usize>().expect("a length") + 2];
                    reader.read_exact(&mut payload)?;
                    assert!(payload.ends_with(b"\r\n"));
                    let head = format!("MSG {} 1 {}\r\n", words[1], words[2]);
                    self.publish(words[1], &[head.as_bytes(), &payload].concat());
                }
                other => panic!("{other:?} is not spoken here"),
            }
        }
    }

    // MQTT -----------------------------------------------------------------------------------------------------------

    fn serve_mqtt(&self, reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> io::Result<()> {
        loop {
            let [first] = read_array(reader)?;
            let (mut length, mut shift, mut raw) = (0_usize, 0, vec![first]);
            loop {
                let [byte] = read_array(reader)?;
                raw.push(byte);
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            let start = raw.len();
            raw.resize(start + length, 0);
            reader.read_exact(&mut raw[start..])?;
            let body = &raw[start..];
            let text = |at: usize| {
                let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
                String::from_utf8(body[at + 2..at + 2 + length].to_vec()).expect("a string")
            };
            match first {
                0x10 => {
                    assert_eq!((text(0).as_str(), body[6]), ("MQTT", 4), "3.1.1");
                    writer.write_all(&[0x20, 2, 0, 0])?;
                }
                0x82 => {
                    self.subscribe(&text(2), writer)?;
                    writer.write_all(&[0x90, 3, body[0], body[1], 0])?;
                }
                0x30 => self.publish(&text(0), &raw),
                0xc0 => writer.write_all(&[0xd0, 0])?,
                other => panic!("packet {other:#x} is not spoken here"),
            }
        }
    }
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, Opcode::Text, payload);
    frame
}

fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A line without its end; none is the end of the connection.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// A request's path and the length of its body.
fn read_head(reader: &mut impl BufRead) -> io::Result<(String, usize)> {
    let request = read_line(reader)?;
    let path = request.split(' ').nth(1).unwrap_or_else(|| panic!("{request:?}")).to_owned();
    let mut length = 0;
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok((path, length));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
}

/// Opcode and payload of a client's frame, with the mask taken off.
fn read_frame(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let [first, second] = read_array(reader)?;
    assert!(first & 0x80 != 0 && second & 0x80 != 0, "whole and masked");
    let length = match second & 0x7f {
        126 => usize::from(u16::from_be_bytes(read_array(reader)?)),
        127 => u64::from_be_bytes(read_array(reader)?) as usize,
        length => usize::from(length),
    };
    let mask: [u8; 4] = read_array(reader)?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x0f, payload))
}
