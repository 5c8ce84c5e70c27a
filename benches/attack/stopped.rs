//! Subscribers that never read. Some are closed for it and come back, as such clients do; the others have chosen
//! a policy by which they stay, and stay blocked.

use std::io;
use std::time::{Duration, Instant};

use fanwire::client::{Event, Publisher};

use super::crowd::{Actor, Crowd, Manner, Then};
use super::{Control, Done, Pace, Scale, Target};
use fanwire::cli::load::upgrade;

/// A topic of large events fills their sockets, so that they block within seconds.
const BULK: &str = "bulk";
const BULK_BYTES: usize = 4096;
const BULK_RATE: f64 = 200.0;
const BULK_KEPT: u64 = 20;

pub const SETTINGS: &str = r#"
[[topic]]
prefix = "bulk"
history = { events = 20, age = "1h" }
"#;

/// How often those that are closed come back.
const COMES_BACK: Duration = Duration::from_secs(2);

struct Reader {
    kind: usize,
    topic: String,
}

/// How many kinds there are; the first two are closed once they are behind.
const KINDS: usize = 7;
const CLOSED_KINDS: usize = 2;

impl Actor for Reader {
    type Shared = u64;

    fn connected(&mut self, connected: &mut u64, out: &mut Vec<u8>) -> Then {
        *connected += 1;
        let both = format!("topics={},{BULK}", self.topic);
        let request = match self.kind {
            0 => upgrade(&format!("/ws?{both}")),
            1 => upgrade(&format!("/stream/{BULK}")),
            2 => upgrade(&format!("/ws?{both}&policy=drop-oldest")),
            3 => upgrade(&format!("/ws?{both}&policy=drop-newest&clientId=stopped")),
            4 => upgrade(&format!("/ws?{both}&policy=conflate")),
            5 => upgrade(&format!("/ws?topics={BULK}&policy=replay")),
            _ => format!("GET /sse?{both}&policy=drop-oldest HTTP/1.1\r\nHost: node\r\n\r\n"),
        };
        out.extend_from_slice(request.as_bytes());
        Then::Stay
    }

    fn received(&mut self, _: &mut u64, _: &[u8], _: &mut Vec<u8>) -> Then {
        Then::Stay // It never reads.
    }

    fn ended(&mut self, _: &mut u64) {}
}

fn publish(publisher: &mut Publisher, count: u64) -> io::Result<()> {
    let data = format!("\"{}\"", "x".repeat(BULK_BYTES));
    for number in 0..count {
        let key = format!("key-{}", number % 50);
        publisher.publish(&Event { key: &key, ..Event::new(&[BULK], "bulk", &data) })?;
    }
    publisher.flush()
}

/// Fills the history of the large events.
pub fn prepare(target: &Target) -> io::Result<()> {
    let mut publisher = Publisher::open(&target.publish.to_string())?;
    publish(&mut publisher, BULK_KEPT)?;
    publisher.settle()
}

pub fn run(target: &Target, scale: &Scale, control: &Control) -> io::Result<Done> {
    let mut publisher = Publisher::open(&target.publish.to_string())?;
    let mut pace = Pace::new(BULK_RATE);
    let mut crowd = Crowd::new(0)?;
    let manner = Manner { is_narrow: true, is_deaf: true };
    let reader = |kind| Reader { kind, topic: target.topic.clone() };
    for number in 0..scale.stopped {
        crowd.open(target.http, manner, reader(number % KINDS))?;
    }
    let mut came_back = Instant::now();
    while !control.is_stopped() {
        crowd.turn(Duration::from_millis(5))?;
        publish(&mut publisher, pace.due())?;
        if came_back.elapsed() < COMES_BACK {
            continue;
        }
        came_back = Instant::now();
        let mut gone = Vec::new();
        crowd.sort_out(|reader, _| {
            if reader.kind >= CLOSED_KINDS {
                return Then::Stay;
            }
            gone.push(reader.kind);
            if gone.len().is_multiple_of(2) { Then::Reset } else { Then::Close }
        });
        for kind in gone {
            crowd.open(target.http, manner, reader(kind))?;
        }
        control.pass();
    }
    publisher.close()?;
    let mut done = Done::default();
    done.count("stopped readers", scale.stopped as u64);
    done.count("connections", crowd.shared);
    Ok(done)
}
