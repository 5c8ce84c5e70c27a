//! Connections that end at any point: in the handshake, in a frame, after a subscribe or an unsubscribe, with what
//! was sent cut in pieces; publishers that vanish inside a frame.

use std::io;
use std::time::{Duration, Instant};

use fanwire::publish::wire::Publish;

use super::crowd::{Actor, Crowd, Manner, Then};
use super::{Control, Done, Scale, Target};
use fanwire::cli::load::upgrade;
use fanwire::proto::websocket::masked;

/// Topics whose history soon goes, and they with it.
pub const SETTINGS: &str = r#"
[[topic]]
prefix = "brief:"
history = { events = 50, age = "2s" }
"#;

struct Visitor {
    /// All that it will say, and how much of that it says at once when it is heard or asked.
    says: Vec<u8>,
    at: usize,
    step: usize,
    until: Instant,
}

#[derive(Default)]
struct Counts {
    connections: u64,
    ended: u64,
}

impl Visitor {
    fn say(&mut self, out: &mut Vec<u8>) {
        let end = (self.at + self.step).min(self.says.len());
        out.extend_from_slice(&self.says[self.at..end]);
        self.at = end;
    }
}

impl Actor for Visitor {
    type Shared = Counts;

    fn connected(&mut self, counts: &mut Counts, out: &mut Vec<u8>) -> Then {
        counts.connections += 1;
        self.say(out);
        Then::Stay
    }

    fn received(&mut self, _: &mut Counts, _: &[u8], out: &mut Vec<u8>) -> Then {
        self.say(out);
        Then::Stay
    }

    fn ended(&mut self, counts: &mut Counts) {
        counts.ended += 1;
    }
}

/// A visit to the HTTP address, or to the publish socket.
fn words(random: &mut fastrand::Rng, is_publisher: bool) -> Vec<u8> {
    let mut says = Vec::new();
    if is_publisher {
        for number in 0..random.u64(1..20) {
            // Topics that come and go, some of them with a history.
            let prefix = ["churn", "brief"][random.usize(..2)];
            let topics = format!("{prefix}:{}\nchurn:all", random.u32(..500));
            let data = format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(random.usize(..3000)));
            let publish = Publish { topics: &topics, event: "churn", key: "", data: &data, timestamp_ms: 0 };
            drop(publish.encode(u16::from(random.bool()), number, &mut says));
        }
        return says;
    }
    let topic = random.u32(..500);
    let open = match random.u32(..6) {
        0 => format!("GET /sse?topics=brief:{topic},churn:all HTTP/1.1\r\nHost: node\r\n\r\n"),
        1 => upgrade(&format!("/stream/churn:{topic}")),
        2 => format!("GET /api/topics/brief:{topic}/history HTTP/1.1\r\nHost: node\r\n\r\n"),
        3 => "POST /api/publish HTTP/1.1\r\nHost: node\r\nContent-Length: 900\r\n\r\n[{\"topic\":\"a\""
            .to_owned(),
        _ => upgrade("/ws?topics=churn:all&policy=drop-oldest"),
    };
    says.extend_from_slice(open.as_bytes());
    if open.starts_with("GET /ws") {
        for _ in 0..random.usize(1..30) {
            let names = (0..random.usize(1..20)).map(|_| format!("\"brief:{}\"", random.u32(..500)));
            let names = names.collect::<Vec<_>>().join(",");
            let what = ["subscribe", "subscribe", "unsubscribe", "ping"][random.usize(..4)];
            let message = format!(r#"{{"type":"{what}","topics":[{names}],"last":true}}"#);
            says.extend(masked(0x81, message.as_bytes()));
        }
    }
    says
}

pub fn run(target: &Target, scale: &Scale, mut random: fastrand::Rng, control: &Control) -> io::Result<Done> {
    let mut crowd = Crowd::new(Counts::default())?;
    let mut swept = Instant::now();
    while !control.is_stopped() {
        while crowd.len() < scale.churn {
            let is_publisher = random.u32(..8) == 0;
            let mut says = words(&mut random, is_publisher);
            if random.bool() {
                says.truncate(random.usize(..=says.len()));
            }
            let step = if random.bool() { says.len() } else { random.usize(1..=says.len().max(1)) };
            let until = Instant::now() + Duration::from_millis(random.u64(..500));
            let to = if is_publisher { target.publish } else { target.http };
            let manner = Manner { is_narrow: random.bool(), is_deaf: random.u32(..10) == 0 };
            if !crowd.open(to, manner, Visitor { says, at: 0, step, until })? {
                break;
            }
        }
        crowd.turn(Duration::from_millis(5))?;
        if swept.elapsed() > Duration::from_millis(20) {
            swept = Instant::now();
            let end = |visitor: &mut Visitor, _: &mut Counts| match (visitor.until <= swept, random.bool()) {
                (false, _) => Then::Stay,
                (true, false) => Then::Reset,
                (true, true) => Then::Close,
            };
            crowd.sort_out(end);
            control.pass();
        }
    }
    let mut done = Done::default();
    done.count("connections", crowd.shared.connections);
    done.count("ended by the node", crowd.shared.ended);
    Ok(done)
}
