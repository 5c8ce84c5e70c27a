//! A subscriber of very many topics that comes, leaves them all, takes others, and goes in any way.

use std::io;
use std::time::Duration;

use memchr::memmem;

use super::crowd::{Actor, Crowd, Manner, Then};
use super::{Control, Done, Scale, Target, take_frame};
use fanwire::cli::load::upgrade;
use fanwire::proto::websocket::masked;

/// Topics named in one message, which has to stay below `max_message_bytes`.
const IN_ONE: usize = 2_000;

struct Subscriber {
    number: usize,
    topics: usize,
    /// Rounds of subscribing and leaving that it still makes on this connection.
    rounds: usize,
    waits_for: usize,
    is_leaving: bool,
    is_upgraded: bool,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Counts {
    subscribed: u64,
    left: u64,
    connections: u64,
    ended: u64,
}

impl Subscriber {
    fn new(number: usize, topics: usize) -> Self {
        let (waits_for, is_leaving, is_upgraded) = (0, false, false);
        // One goes at once, with all of its topics; the others leave them first, once or twice.
        Self { number, topics, rounds: number % 3, waits_for, is_leaving, is_upgraded, bytes: Vec::new() }
    }

    fn say(&mut self, what: &str, out: &mut Vec<u8>) {
        for start in (0..self.topics).step_by(IN_ONE) {
            let range = start..(start + IN_ONE).min(self.topics);
            let names = range.map(|topic| format!("\"many-{}-{topic}\"", self.number % 7));
            let names = names.collect::<Vec<_>>().join(",");
            out.extend(masked(0x81, format!(r#"{{"type":"{what}","topics":[{names}]}}"#).as_bytes()));
            self.waits_for += 1;
        }
        self.is_leaving = what == "unsubscribe";
    }
}

impl Actor for Subscriber {
    type Shared = Counts;

    fn connected(&mut self, counts: &mut Counts, out: &mut Vec<u8>) -> Then {
        counts.connections += 1;
        out.extend_from_slice(upgrade("/ws").as_bytes());
        Then::Stay
    }

    fn received(&mut self, counts: &mut Counts, bytes: &[u8], out: &mut Vec<u8>) -> Then {
        self.bytes.extend_from_slice(bytes);
        if !self.is_upgraded {
            let Some(end) = memmem::find(&self.bytes, b"\r\n\r\n") else { return Then::Stay };
            self.bytes.drain(..end + 4);
            self.is_upgraded = true;
            self.say("subscribe", out);
        }
        let mut rest = &self.bytes[..];
        let mut acks = 0;
        while let Some((_, payload)) = take_frame(&mut rest) {
            acks += usize::from(payload.starts_with(br#"{"type":"subscription-ack""#));
            acks += usize::from(payload.starts_with(br#"{"type":"unsubscription-ack""#));
        }
        let gone = self.bytes.len() - rest.len();
        self.bytes.drain(..gone);
        if acks == 0 {
            return Then::Stay;
        }
        self.waits_for -= acks.min(self.waits_for);
        match (self.waits_for, self.is_leaving) {
            (0, true) => {
                counts.left += self.topics as u64;
                self.say("subscribe", out);
                Then::Stay
            }
            (0, false) => {
                counts.subscribed += self.topics as u64;
                if self.rounds == 0 {
                    return if self.number.is_multiple_of(2) { Then::Reset } else { Then::Close };
                }
                self.rounds -= 1;
                self.say("unsubscribe", out);
                Then::Stay
            }
            _ => Then::Stay,
        }
    }

    fn ended(&mut self, counts: &mut Counts) {
        counts.ended += 1;
    }
}

pub fn run(target: &Target, scale: &Scale, control: &Control) -> io::Result<Done> {
    let mut crowd = Crowd::new(Counts::default())?;
    let mut number = 0;
    while !control.is_stopped() {
        while crowd.len() < scale.topic_clients
            && crowd.open(target.http, Manner::default(), Subscriber::new(number, scale.topics))?
        {
            number += 1;
        }
        crowd.turn(Duration::from_millis(5))?;
        if crowd.shared.subscribed > control.passes() * 3 * scale.topics as u64 {
            control.pass();
        }
    }
    let Counts { subscribed, left, connections, ended } = crowd.shared;
    let mut done = Done::default();
    done.count("subscriptions", subscribed);
    done.count("left again", left);
    done.count("connections", connections);
    if ended > 0 {
        done.complain(format!("{ended} subscribers of {} topics were closed", scale.topics));
    }
    Ok(done)
}
