//! The events on their way out: for each topic one in which only the probe changes, and what waits to be sent.

use std::io;

use memchr::memmem;

use super::pace::Pace;
use super::peer::Protocol;
use super::probe::{MARKER, Probe};

/// Bytes that wait to be sent at most: beyond them events stay due, and their intended time stands.
const UNSENT: usize = 4 << 20;

/// One topic and what was published to it.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) name: String,
    pub(crate) subscribers: u64,
    pub(crate) published: u64,
    /// The whole publish as it is sent, of which only the probe changes.
    frame: Vec<u8>,
    /// Where in it the probe is.
    probe: usize,
}

impl TopicState {
    pub(crate) fn new(prefix: &str, number: usize, data: &str, protocol: &dyn Protocol) -> io::Result<Self> {
        let name = format!("{prefix}{number:04}");
        let mut frame = Vec::new();
        protocol.publish(&name, data, &mut frame)?;
        let probe = memmem::find(&frame, MARKER).map(|at| at + MARKER.len());
        let probe = probe.ok_or_else(|| io::Error::other("the event carries no probe"))?;
        Probe::write_topic(&mut frame, probe, number as u32);
        Ok(Self { name, subscribers: 0, published: 0, frame, probe })
    }
}

/// What a publisher has to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    unsent: Vec<u8>,
    sent: usize,
    next_topic: usize,
    pub(crate) pace: Pace,
    /// How late it was with an event at worst, in nanoseconds.
    pub(crate) lateness: u64,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        let unsent = Vec::with_capacity(2 * UNSENT);
        Self { unsent, sent: 0, next_topic: 0, pace: Pace::default(), lateness: 0 }
    }

    /// When the next event is to be written: not while too much waits already.
    pub(crate) fn due(&self) -> u64 {
        if self.unsent().len() < UNSENT { self.pace.due() } else { u64::MAX }
    }

    /// Writes the events whose time has come; answers whether there was one.
    pub(crate) fn publish_due(&mut self, topics: &mut [TopicState], now: u64) -> bool {
        if self.due() > now {
            return false;
        }
        self.lateness = self.lateness.max(now - self.due());
        while self.due() <= now {
            let topic = &mut topics[self.next_topic];
            topic.published += 1;
            Probe::write(&mut topic.frame, topic.probe, topic.published, self.due());
            self.unsent.extend_from_slice(&topic.frame);
            self.next_topic = (self.next_topic + 1) % topics.len();
            self.pace.step();
        }
        true
    }

    /// Says something between two events.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// What waits to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// So many bytes of it were.
    pub(crate) fn note_sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
        } else if self.sent > UNSENT / 2 {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Peer;
    use super::super::probe::data;
    use super::*;

    #[test]
    fn events_are_written_when_they_are_due_and_wait_no_more_than_there_is_room() {
        let protocol = Peer::Ws.protocol();
        let topic = |number| TopicState::new("t", number, &data(1000), &*protocol).unwrap();
        let mut topics = [topic(0), topic(1)];
        let mut outgoing = Outgoing::new();
        outgoing.pace = Pace::steady(1_000, 1e6);
        assert!(!outgoing.publish_due(&mut topics, 999));
        assert!(outgoing.publish_due(&mut topics, 4_000));
        assert_eq!(topics.each_ref().map(|topic| topic.published), [2, 2]);
        let length = outgoing.unsent().len();
        assert_eq!((length % 4, outgoing.lateness, outgoing.due()), (0, 3_000, 5_000));
        outgoing.note_sent(length / 4);
        outgoing.say(b"!");
        assert_eq!(outgoing.unsent().len(), length / 4 * 3 + 1);
        outgoing.note_sent(length / 4 * 3 + 1);
        // What there is no room for stays due, with the time at which it was meant to be sent.
        outgoing.publish_due(&mut topics, 1_000_000_000);
        assert!((UNSENT..UNSENT + length).contains(&outgoing.unsent().len()));
        assert_eq!(outgoing.due(), u64::MAX);
        outgoing.note_sent(UNSENT / 2 + 1);
        assert!(outgoing.due() < 100_000_000 && outgoing.unsent().len() < UNSENT);
    }
}
