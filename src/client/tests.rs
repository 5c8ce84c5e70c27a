use std::io::BufReader;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use super::*;

/// A node of one connection: what `serve` returns comes out of `join`.
fn node<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || serve(listener.accept().unwrap().0));
    (address, thread)
}

fn read_frame(stream: &mut impl Read) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).ok()?;
    let header = Header::parse(&header);
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).ok()?;
    Some((header, body))
}

fn ack(sequence: u64, accepted: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::encode_ack(sequence, accepted, &mut out);
    out
}

fn error(sequence: u64, code: ErrorCode) -> Vec<u8> {
    let mut out = Vec::new();
    wire::encode_error(sequence, &Refusal::new(code, "no good"), &mut out);
    out
}

/// Accepts everything with one ACK a frame, until the publisher ends; returns what came.
fn accept_all(mut stream: TcpStream) -> Vec<String> {
    let mut came = Vec::new();
    while let Some((header, body)) = read_frame(&mut stream) {
        match Kind::from_byte(header.kind) {
            Some(Kind::Publish) => {
                let publish = Publish::decode(&body, 1 << 30).unwrap();
                came.push(format!(
                    "{} {} {} {}",
                    header.sequence,
                    publish.topics,
                    publish.event,
                    publish.data.len()
                ));
                let _ = stream.write_all(&ack(header.sequence, came.len() as u64));
            }
            Some(Kind::Ping) => {
                let mut out = Vec::new();
                wire::encode_ping(Kind::Pong, header.sequence, &body, &mut out);
                stream.write_all(&out).unwrap();
            }
            _ => came.push(format!("{:?}", wire::Hello::decode(&body).unwrap())),
        }
    }
    came
}

#[test]
fn events_are_acknowledged() {
    let (address, node) = node(accept_all);
    let mut publisher = Options::new().token("secret").name("me", 7).open(&address).unwrap();
    let first = publisher.publish(&Event::new(&["a", "b"], "e", "1")).unwrap();
    assert_eq!((first, publisher.unwritten_bytes() > 0), (7, true));
    publisher.wait_for(first).unwrap();
    assert_eq!(publisher.publish_numbered(20, &Event::new(&["a"], "f", "")).unwrap(), 20);
    assert!(publisher.publish_numbered(20, &Event::new(&["a"], "f", "")).is_err());
    publisher.settle().unwrap();
    publisher.ping(b"x").unwrap();
    let mut answers = Vec::new();
    while !matches!(answers.last(), Some(Answer::Pong { body }) if body == b"x") {
        answers.push(publisher.answer().unwrap());
    }
    assert!(publisher.ping(&[0; 126]).is_err());
    publisher.close().unwrap();
    let came = node.join().unwrap();
    assert_eq!(came, ["Hello { token: \"secret\", name: \"me\" }", "7 a\nb e 1", "20 a f 0"]);
}

#[test]
fn a_topic_with_a_line_break_is_not_two_topics() {
    let (address, node) = node(accept_all);
    let mut publisher = Publisher::open(&address).unwrap();
    let refused = publisher.publish(&Event::new(&["a\nb"], "e", "1")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    drop(publisher);
    assert!(node.join().unwrap().is_empty());
}

#[test]
fn refusals_reach_whoever_waits_or_closes() {
    let serve = |mut stream: TcpStream| {
        for _ in 0..3 {
            read_frame(&mut stream).unwrap();
        }
        // Split everywhere.
        for byte in [error(2, ErrorCode::BadData), ack(3, 2)].concat() {
            stream.write_all(&[byte]).unwrap();
            thread::yield_now();
        }
        assert!(read_frame(&mut stream).is_none());
    };
    let (address, thread) = node(serve);
    let mut publisher = Publisher::open(&address).unwrap();
    for _ in 0..3 {
        publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
    }
    publisher.wait_for(1).unwrap();
    let refusal = publisher.wait_for(2).unwrap_err();
    assert_eq!(
        (refusal.kind(), refusal.to_string().as_str()),
        (ErrorKind::InvalidData, "no good (error 5, bad_data)")
    );
    publisher.settle().unwrap();
    assert_eq!((publisher.published(), publisher.accepted(), publisher.refused()), (3, 2, 1));
    publisher.close().unwrap();
    thread.join().unwrap();

    let (address, thread) = node(serve);
    let mut publisher = Publisher::open(&address).unwrap();
    for _ in 0..3 {
        publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
    }
    let unread = publisher.close().unwrap_err().to_string();
    assert_eq!(unread, "1 refused; the first, 2: no good (error 5, bad_data)");
    thread.join().unwrap();
}

#[test]
fn an_error_that_closes_is_told_instead_of_a_broken_pipe() {
    let (address, node) = node(|mut stream: TcpStream| {
        read_frame(&mut stream).unwrap();
        stream.write_all(&error(0, ErrorCode::Unauthorised)).unwrap();
    });
    let mut publisher = Publisher::open(&address).unwrap();
    let sequence = publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
    let why = publisher.wait_for(sequence).unwrap_err().to_string();
    assert_eq!(why, "the node closed the connection: no good (error 3, unauthorised)");
    node.join().unwrap();
}

#[test]
fn answers_before_the_end_are_told_first() {
    let (address, node) = node(|mut stream: TcpStream| {
        read_frame(&mut stream).unwrap();
        stream.write_all(&ack(1, 1)).unwrap();
    });
    let mut publisher = Publisher::open(&address).unwrap();
    publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
    publisher.flush().unwrap();
    node.join().unwrap();
    publisher.wait_for(1).unwrap();
    assert_eq!(publisher.try_answer().unwrap(), Some(Answer::Ack { sequence: 1, accepted: 1 }));
    assert_eq!(publisher.try_answer().unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn try_publish_answers_would_block_and_loses_nothing() {
    let directory = std::env::temp_dir().join(format!("fanwire-client-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut publisher = Publisher::open(&format!("unix:{}", path.display())).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let data = format!("\"{}\"", "x".repeat(10_000));
    let mut taken = 0;
    let blocked = loop {
        match publisher.try_publish(&Event::new(&["a"], "e", &data)) {
            Ok(sequence) => taken = sequence,
            Err(error) => break error,
        }
    };
    assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    assert!(publisher.unwritten_bytes() > 0, "a frame is partly written");
    assert_eq!(publisher.try_flush().unwrap_err().kind(), ErrorKind::WouldBlock);
    let reader = thread::spawn(move || {
        let mut sequences = Vec::new();
        while let Some((header, body)) = read_frame(&mut stream) {
            Publish::decode(&body, 1 << 20).unwrap();
            sequences.push(header.sequence);
        }
        sequences
    });
    publisher.close().unwrap();
    assert_eq!(reader.join().unwrap(), (1..=taken).collect::<Vec<u64>>());
}

#[test]
fn a_node_that_waits_for_its_answers_to_be_read_is_no_deadlock() {
    // As many bytes of answers as of events, and more than all socket buffers hold.
    const EVENTS: u64 = 100_000;
    let (address, node) = node(|mut stream: TcpStream| {
        let refusal = Refusal::new(ErrorCode::BadData, "x".repeat(500));
        let mut reading = BufReader::new(stream.try_clone().unwrap());
        while let Some((header, _)) = read_frame(&mut reading) {
            let mut out = Vec::new();
            wire::encode_error(header.sequence, &refusal, &mut out);
            if stream.write_all(&out).is_err() {
                break;
            }
        }
    });
    let data = format!("\"{}\"", "x".repeat(400));
    let mut publisher = Options::new().timeout(Duration::from_secs(20)).open(&address).unwrap();
    let mut refused = 0;
    for _ in 0..EVENTS {
        publisher.publish(&Event::new(&["a"], "e", &data)).unwrap();
        while publisher.unwritten_bytes() == 0 && publisher.try_answer().unwrap().is_some() {
            refused += 1;
        }
    }
    while refused < EVENTS {
        assert!(matches!(publisher.answer().unwrap(), Answer::Error { .. }));
        refused += 1;
    }
    assert_eq!(publisher.refused(), EVENTS);
    publisher.close().unwrap();
    node.join().unwrap();
}

#[test]
fn dropping_hands_over_everything_although_answers_are_unread() {
    let (address, node) = node(accept_all);
    let mut publisher = Publisher::open(&address).unwrap();
    for _ in 0..10_000 {
        publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
    }
    drop(publisher);
    assert_eq!(node.join().unwrap().len(), 10_000);
}

#[test]
fn a_node_that_does_not_read_ends_in_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut publisher = Options::new().timeout(Duration::from_millis(60)).open(&address).unwrap();
    let data = format!("\"{}\"", "x".repeat(1 << 20));
    let error = (0..100).find_map(|_| publisher.publish(&Event::new(&["a"], "e", &data)).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn what_is_no_node_is_told_so() {
    let (address, node) = node(|mut stream: TcpStream| {
        let mut request = [0; 16];
        let _ = stream.read(&mut request);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let mut publisher = Publisher::open(&address).unwrap();
    publisher.publish(&Event::new(&["a"], "e", "1")).unwrap();
    assert!(publisher.answer().unwrap_err().to_string().contains("not a Fanwire publish socket"));
    drop(publisher);
    node.join().unwrap();
    assert!(Publisher::open("no such host:1").is_err());
    assert!(Publisher::open("unix:/nowhere/at/all").is_err());
}
