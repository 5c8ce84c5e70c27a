//! The way of log lines out of the process: through a bounded queue. A full disk, a full pipe or whoever reads the
//! log slowly costs log lines, which are counted, and holds nobody up. Pure: no thread, no clock of its own.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// Bytes that wait to be written at most: some thousands of lines.
pub const QUEUE_BYTES: usize = 1 << 20;
/// What a line costs in the queue besides its text.
const LINE_COST: usize = 64;

/// Where lines are handed in. Clones hand in to the same queue.
#[derive(Clone, Debug)]
pub struct Logs {
    sender: Sender<Item>,
    counts: Arc<Counts>,
    has_colours: bool,
}

#[derive(Debug, Default)]
struct Counts {
    queued_bytes: AtomicUsize,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Everything before it has been written: that is to be told.
    Mark(Sender<()>),
}

impl Logs {
    /// A queue, and what empties it. `has_colours`: the lines are for a terminal, their escape codes are ours.
    pub fn new(has_colours: bool) -> (Self, Pump) {
        let (sender, receiver) = unbounded();
        let counts = Arc::new(Counts::default());
        let pump = Pump { receiver, counts: Arc::clone(&counts), told: 0, is_torn: false };
        (Self { sender, counts, has_colours }, pump)
    }

    /// Hands in a line without its end. Never blocks: with no room left the line is dropped and counted.
    pub fn say(&self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        for c in line.chars() {
            let is_ours = self.has_colours && c == '\u{1b}';
            if is_unprintable(c) && !is_ours {
                // As JSON writes it, so that a line of JSON stays one.
                bytes.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            } else {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        bytes.push(b'\n');
        let cost = bytes.len() + LINE_COST;
        let queued = &self.counts.queued_bytes;
        let fits = |bytes: usize| (bytes + cost <= QUEUE_BYTES).then_some(bytes + cost);
        let has_room = queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if !has_room || self.sender.send(Item::Line(bytes)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines handed in so far are written or lost, but no longer than `patience`.
    pub fn wait_written(&self, patience: Duration) {
        let (done, told) = bounded(1);
        if self.sender.send(Item::Mark(done)).is_ok() {
            // Whoever reads the log too slowly for this does not get the rest.
            let _ = told.recv_timeout(patience);
        }
    }

    /// How many lines were dropped, counted on.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.counts.dropped)
    }
}

impl Write for Logs {
    /// Takes one whole line, as tracing writes each.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.say(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).as_ref());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a terminal or an editor may take a character for something else than text: control characters, line and
/// paragraph separators, and what turns the direction of writing.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Pump {
    receiver: Receiver<Item>,
    counts: Arc<Counts>,
    told: u64,
    /// The last line was written in part.
    is_torn: bool,
}

impl Pump {
    /// Writes lines to `out` until every [`Logs`] of the queue is gone; blocks wherever `out` does. A line that is
    /// refused is dropped and counted. `complain` is told how many lines were dropped since the start, once the
    /// queue is empty after there were more.
    pub fn run(mut self, mut out: impl Write, complain: impl Fn(u64)) {
        while let Ok(item) = self.receiver.recv() {
            match item {
                Item::Line(line) => {
                    let is_written = self.write(&mut out, &line).is_ok();
                    self.counts.queued_bytes.fetch_sub(line.len() + LINE_COST, Ordering::Relaxed);
                    if !is_written {
                        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                }
                // Who asked may have gone.
                Item::Mark(done) => drop(done.try_send(())),
            }
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            if dropped != self.told && self.receiver.is_empty() {
                self.told = dropped;
                complain(dropped);
            }
        }
    }

    fn write(&mut self, out: &mut impl Write, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            // What is left of the line before must not run into this one.
            out.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then refuses, until it is given more.
    #[derive(Clone, Default)]
    struct Disk(Arc<parking_lot::Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn allow(&self, bytes: usize) {
            self.0.lock().1 = bytes;
        }
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock();
            let count = bytes.len().min(disk.1);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1 -= count;
            disk.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Empties the queue and ends.
    fn pump(logs: Logs, pump: Pump, disk: &Disk) -> Vec<u64> {
        drop(logs);
        let complaints = parking_lot::Mutex::new(Vec::new());
        pump.run(disk.clone(), |dropped| complaints.lock().push(dropped));
        complaints.into_inner()
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        for (colours, expected) in [
            (false, "a\\u000d\\u000ab\\u001b[31m\\u0000\\u0085\\u2028\\u202e\\u2066é\n"),
            (true, "a\\u000d\\u000ab\u{1b}[31m\\u0000\\u0085\\u2028\\u202e\\u2066é\n"),
        ] {
            let (mut logs, rest) = Logs::new(colours);
            let disk = Disk::default();
            disk.allow(1000);
            let line = "a\r\nb\u{1b}[31m\0\u{85}\u{2028}\u{202e}\u{2066}é\n";
            logs.write_all(line.as_bytes()).unwrap();
            assert!(pump(logs, rest, &disk).is_empty());
            assert_eq!(disk.text(), expected);
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_told_once() {
        let (logs, rest) = Logs::new(false);
        let (dropped, line) = (logs.dropped(), "x".repeat(1023));
        for _ in 0..2000 {
            logs.say(&line);
        }
        let kept = QUEUE_BYTES / (1024 + LINE_COST);
        assert_eq!(dropped.load(Ordering::Relaxed), 2000 - kept as u64);
        let disk = Disk::default();
        disk.allow(usize::MAX);
        assert_eq!(pump(logs, rest, &disk), [2000 - kept as u64]);
        assert_eq!(disk.text().len(), kept * 1024);
    }

    #[test]
    fn a_full_disk_costs_the_lines_it_refuses_and_tears_none_into_another() {
        let (logs, rest) = Logs::new(false);
        let dropped = logs.dropped();
        let disk = Disk::default();
        disk.allow(6);
        for line in ["one", "two", "three"] {
            logs.say(line);
        }
        // There is room again from here on.
        let (more, again) = (disk.clone(), logs.clone());
        let waits = std::thread::spawn(move || {
            again.wait_written(Duration::from_secs(20));
            more.allow(1000);
            again.say("four");
        });
        assert_eq!(pump(logs, rest, &disk), [2]);
        waits.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        assert_eq!(disk.text(), "one\ntw\nfour\n");
    }

    #[test]
    fn waiting_for_a_log_that_nobody_writes_ends() {
        let (logs, rest) = Logs::new(false);
        logs.say("line");
        logs.wait_written(Duration::from_millis(1));
        drop(rest);
        logs.say("nobody is there any more");
        logs.wait_written(Duration::from_secs(1000));
        assert_eq!(logs.dropped().load(Ordering::Relaxed), 1);
    }
}
