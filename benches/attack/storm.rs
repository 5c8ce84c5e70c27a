//! Connections, as many and as fast as they can be made: clients of every kind, requests, and handshakes that are
//! begun and left.

use std::io;
use std::time::{Duration, Instant};

use super::crowd::{Actor, Crowd, Manner, Then};
use super::{Control, Done, PATIENCE, Scale, Target};
use fanwire::cli::load::upgrade;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    WebSocket,
    EventStream,
    Path,
    Request,
    /// It says nothing.
    Silent,
    /// It says half of a request.
    Half,
}

struct Caller {
    kind: Kind,
    number: u64,
    is_answered: bool,
}

#[derive(Default)]
struct Counts {
    connected: u64,
    answered: u64,
    /// Told to come back, or closed without an answer.
    refused: u64,
}

impl Caller {
    fn expects_answer(&self) -> bool {
        !self.is_answered && !matches!(self.kind, Kind::Silent | Kind::Half)
    }
}

impl Actor for Caller {
    type Shared = Counts;

    fn connected(&mut self, counts: &mut Counts, out: &mut Vec<u8>) -> Then {
        counts.connected += 1;
        let topic = format!("storm-{}", self.number % 1000);
        let request = match self.kind {
            Kind::WebSocket => upgrade(&format!("/ws?topics={topic}")),
            Kind::EventStream => format!("GET /sse?topics={topic} HTTP/1.1\r\nHost: node\r\n\r\n"),
            Kind::Path => upgrade(&format!("/stream/{topic}")),
            Kind::Request => "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n".to_owned(),
            Kind::Silent => String::new(),
            Kind::Half => "GET /ws HTTP/1.1\r\nHost: no".to_owned(),
        };
        out.extend_from_slice(request.as_bytes());
        Then::Stay
    }

    fn received(&mut self, counts: &mut Counts, bytes: &[u8], _: &mut Vec<u8>) -> Then {
        if self.expects_answer() {
            self.is_answered = true;
            let is_served = [&b"HTTP/1.1 101"[..], b"HTTP/1.1 200"].iter().any(|ok| bytes.starts_with(ok));
            *(if is_served { &mut counts.answered } else { &mut counts.refused }) += 1;
        }
        Then::Stay
    }

    fn ended(&mut self, counts: &mut Counts) {
        counts.refused += u64::from(self.expects_answer());
    }
}

pub fn run(target: &Target, scale: &Scale, mut random: fastrand::Rng, control: &Control) -> io::Result<Done> {
    let mut crowd = Crowd::new(Counts::default())?;
    let (mut opened, mut in_pass) = (0, 0);
    while !control.is_stopped() {
        let wave = scale.wave.min(scale.storm - in_pass);
        let mut begun = 0;
        while begun < wave && !control.is_stopped() {
            let kind = match random.u32(..100) {
                0..70 => Kind::WebSocket,
                70..80 => Kind::EventStream,
                80..90 => Kind::Path,
                90..95 => Kind::Request,
                95..98 => Kind::Half,
                _ => Kind::Silent,
            };
            let caller = Caller { kind, number: opened, is_answered: false };
            if crowd.open(target.http, Manner::default(), caller)? {
                (opened, begun) = (opened + 1, begun + 1);
            }
            if begun.is_multiple_of(64) {
                crowd.turn(Duration::ZERO)?;
            }
        }
        // Who was left outside by the kernel tries again by itself.
        let deadline = Instant::now() + PATIENCE;
        while crowd.actors().any(Caller::expects_answer) && Instant::now() < deadline && !control.is_stopped()
        {
            let until = Instant::now() + Duration::from_millis(20);
            while Instant::now() < until {
                crowd.turn(Duration::from_millis(5))?;
            }
        }
        crowd.sort_out(|_, _| if random.bool() { Then::Reset } else { Then::Close });
        in_pass += begun;
        if in_pass >= scale.storm {
            in_pass = 0;
            control.pass();
        }
    }
    let mut done = Done::default();
    done.count("connections", crowd.shared.connected);
    done.count("answered", crowd.shared.answered);
    done.count("refused", crowd.shared.refused);
    Ok(done)
}
