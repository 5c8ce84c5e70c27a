//! `fanwire pub`: one event from the arguments, or many from standard input.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Failure, Outcome, print};
use crate::client::{Answer, Event, MAX_PUBLISHER_NAME_BYTES, Options, Publisher, Reach};
use crate::clock;
use crate::error::ErrorCode;

/// Bytes read from standard input at once.
const INPUT_BUFFER: usize = 256 << 10;
/// Bytes of one line at most: room for the largest `data` a node can be told to take.
const MAX_LINE: u64 = (1 << 30) + (1 << 20);
/// Refusals shown one by one; the rest are only counted.
const MAX_SHOWN: u64 = 100;
/// Lines that the node has not answered at most: a publisher keeps a bounded number of answers.
const MAX_UNANSWERED: u64 = 16_384;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The event's topic; without it, events are read from standard input
    #[arg(requires = "event")]
    topic: Option<String>,
    /// The event's name, such as step-log
    event: Option<String>,
    /// The event's data: one JSON value [default: null]
    #[arg(allow_hyphen_values = true)]
    data: Option<String>,
    /// A further topic; repeatable
    #[arg(long = "topic", value_name = "TOPIC", requires = "topic")]
    more_topics: Vec<String>,
    /// What the event is about: a later event with the same key supersedes this one
    #[arg(long, requires = "topic")]
    key: Option<String>,
    /// Tell how far the event went: how many clients it was for, and what became of it. Of lines, the sums
    #[arg(long)]
    receipt: bool,
    /// A name for lines, so that they can be sent again under it where they broke off
    #[arg(
        long,
        value_parser = publisher_name,
        conflicts_with = "topic",
        long_help = "A name of up to 64 bytes for what comes from standard input, so that lines that broke off \
            can be sent again: the same lines under the same name, and the node publishes only those that it has \
            not accepted yet. It goes by the number of the line: nothing up to the highest one accepted under this \
            name is published, for the node's idempotency_window (2 minutes unless configured) after that one. So \
            the second run has to get to new lines within that time, and lines that were refused and mended, or \
            other lines, need another name or have to wait as long. A node that was restarted remembers nothing"
    )]
    name: Option<String>,
    /// The node's publish socket
    #[arg(
        long,
        value_name = "ADDR:PORT|unix:PATH",
        env = "FANWIRE_PUBLISH",
        default_value = "127.0.0.1:8081"
    )]
    to: String,
    /// What the node asks publishers for
    #[arg(long, env = "FANWIRE_PUBLISH_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

fn publisher_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_PUBLISHER_NAME_BYTES if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("a name has 1 to {MAX_PUBLISHER_NAME_BYTES} bytes and no control characters")),
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    // FANWIRE_PUBLISH may be the list that the node listens on.
    let to = arguments.to.split(',').next().unwrap_or_default().trim();
    let mut options = Options::new().token(arguments.token.as_deref().unwrap_or_default());
    if arguments.receipt {
        options = options.with_receipts();
    }
    if let Some(name) = &arguments.name {
        options = options.name(name, 1);
    }
    let publisher = options.open(to).map_err(|error| {
        format!("cannot connect to {to}: {error}; is a node running? `fanwire serve` starts one")
    })?;
    match (&arguments.topic, &arguments.event) {
        (Some(topic), Some(event)) => one(publisher, arguments, topic, event),
        _ => many(publisher, arguments),
    }
}

fn one(mut publisher: Publisher, arguments: &Arguments, topic: &str, event: &str) -> Outcome {
    let mut topics = vec![topic];
    topics.extend(arguments.more_topics.iter().map(String::as_str));
    let (data, key) =
        (arguments.data.as_deref().unwrap_or_default(), arguments.key.as_deref().unwrap_or_default());
    let sent = publisher.publish(&Event { key, ..Event::new(&topics, event, data) }).and_then(|sequence| {
        publisher.wait_for(sequence)?;
        let reach = arguments.receipt.then(|| publisher.receipt(sequence)).transpose()?;
        publisher.close()?;
        Ok(reach)
    });
    let reach = sent.map_err(|error| {
        let is_text = error.to_string().contains(ErrorCode::BadData.name());
        let hint = if is_text { format!("; text needs its quotes: '\"{data}\"'") } else { String::new() };
        format!("not published: {error}{hint}")
    })?;
    let told = reach.map_or_else(String::new, |reach| {
        let mut told = Told::default();
        told.add(reach);
        format!(": {}", told.of_one())
    });
    print(format!("accepted {event} on {}{told}\n", topics.join(", ")).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What receipts told, summed.
#[derive(Default)]
struct Told {
    receipts: u64,
    matched: u64,
    written: u64,
    queued: u64,
    left_out: u64,
    closed: u64,
}

impl Told {
    fn add(&mut self, reach: Reach) {
        let Reach { matched, written, queued, left_out, closed } = reach;
        self.receipts += 1;
        self.matched += u64::from(matched);
        self.written += u64::from(written);
        self.queued += u64::from(queued);
        self.left_out += u64::from(left_out);
        self.closed += u64::from(closed);
    }

    /// Of one event: `3 clients, written to 3`, and what else is not 0.
    fn of_one(&self) -> String {
        let noun = if self.matched == 1 { "client" } else { "clients" };
        format!("{} {noun}, written to {}", self.matched, self.written)
            + &self.rest(["queued for", "left out for", "closed"])
    }

    /// Of many: `receipts of 5: matched 15, written 14`, and what else is not 0.
    fn of_many(&self) -> String {
        format!("receipts of {}: matched {}, written {}", self.receipts, self.matched, self.written)
            + &self.rest(["queued", "left out", "closed"])
    }

    fn rest(&self, [queued, left_out, closed]: [&str; 3]) -> String {
        [(queued, self.queued), (left_out, self.left_out), (closed, self.closed)]
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!(", {what} {count}"))
            .collect()
    }
}

/// One line of standard input: the same form as `POST /api/publish` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    topics: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
}

/// Sequences are line numbers, so that an answer names its line.
struct Lines<'a> {
    publisher: Publisher,
    /// The publisher's name.
    name: Option<&'a str>,
    /// Where receipts are asked for.
    told: Option<Told>,
    bar: ProgressBar,
    number: u64,
    events: u64,
    refused: u64,
}

fn many(publisher: Publisher, arguments: &Arguments) -> Outcome {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        eprintln!("fanwire: reading events from standard input, one JSON object a line; Ctrl-D ends");
    }
    let (name, told) = (arguments.name.as_deref(), arguments.receipt.then(Told::default));
    let mut lines = Lines { publisher, name, told, bar: progress_bar(), number: 0, events: 0, refused: 0 };
    let read = lines.read_all(&mut BufReader::with_capacity(INPUT_BUFFER, stdin.lock()));
    lines.bar.finish_and_clear();
    // What came before an end that was not wanted is still told.
    let _ = lines.take_answers();
    let Lines { publisher, told, events, refused, .. } = lines;
    let accepted = publisher.accepted();
    let noun = if events == 1 { "event" } else { "events" };
    let mut summary = format!("accepted {accepted} of {events} {noun}");
    if refused > 0 {
        summary += &format!(", refused {refused}");
    }
    let unanswered = events.saturating_sub(accepted + refused);
    if unanswered > 0 {
        summary += &format!(", unanswered {unanswered}");
    }
    if let Some(told) = told {
        summary += &format!("; {}", told.of_many());
    }
    print(format!("{summary}\n").as_bytes())?;
    read?;
    Ok(if refused + unanswered == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Lines<'_> {
    fn read_all(&mut self, input: &mut BufReader<impl Read>) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            // Before waiting for the rest of a line, what is there goes out.
            if !input.buffer().contains(&b'\n') {
                self.publisher.flush().map_err(|error| self.broken(&error))?;
                self.take_answers()?;
            }
            line.clear();
            let count = input.take(MAX_LINE).read_until(b'\n', &mut line);
            let count = count.map_err(|error| format!("standard input: {error}"))?;
            if count == 0 {
                break;
            }
            self.number += 1;
            if count as u64 == MAX_LINE && !line.ends_with(b"\n") {
                return Err(format!("line {} is longer than {MAX_LINE} bytes", self.number).into());
            }
            self.bar.inc(count as u64);
            if !line.trim_ascii().is_empty() {
                self.events += 1;
                self.publish(&line)?;
            }
        }
        self.await_answers(0)?;
        self.publisher.flush().map_err(|error| self.broken(&error))?;
        self.take_answers()
    }

    /// Events that an ACK, an ERROR or a receipt is still to come for.
    fn unanswered(&self) -> u64 {
        let taken = self.publisher.published() - self.publisher.refused();
        let answered = self.publisher.accepted();
        taken.saturating_sub(self.told.as_ref().map_or(answered, |told| answered.min(told.receipts)))
    }

    /// Takes answers until no more than so many are still to come.
    fn await_answers(&mut self, most: u64) -> Result<(), Failure> {
        while self.unanswered() > most {
            let answer = self.publisher.answer().map_err(|error| self.broken(&error))?;
            self.take(answer);
        }
        Ok(())
    }

    fn publish(&mut self, line: &[u8]) -> Result<(), Failure> {
        let parsed: Line<'_> = match serde_json::from_slice(line) {
            Ok(parsed) => parsed,
            Err(error) => {
                // Without serde's "line 1", which would be taken for a line of the input.
                let column = error.column();
                let text =
                    error.to_string().replace(&format!(" at line {} column {column}", error.line()), "");
                self.refuse(self.number, &format!("{text} (at byte {column})"));
                return Ok(());
            }
        };
        let topics: Vec<&str> = match (&parsed.topic, &parsed.topics) {
            (Some(topic), None) => vec![topic],
            (None, Some(topics)) => topics.iter().map(|topic| &**topic).collect(),
            _ => {
                self.refuse(self.number, "one of topic and topics is needed");
                return Ok(());
            }
        };
        let timestamp_ms = match parsed.timestamp.as_deref().map_or(Ok(0), clock::parse_iso8601) {
            Ok(timestamp) => timestamp,
            Err(error) => {
                self.refuse(self.number, &error);
                return Ok(());
            }
        };
        let event = Event {
            topics: &topics,
            event: &parsed.event,
            data: parsed.data.map_or("", RawValue::get),
            key: parsed.key.as_deref().unwrap_or_default(),
            timestamp_ms,
        };
        if self.unanswered() >= MAX_UNANSWERED {
            self.await_answers(MAX_UNANSWERED / 2)?;
        }
        match self.publisher.publish_numbered(self.number, &event) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refuse(self.number, &error.to_string());
                Ok(())
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn take_answers(&mut self) -> Result<(), Failure> {
        loop {
            match self.publisher.try_answer() {
                Ok(Some(answer)) => self.take(answer),
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn take(&mut self, answer: Answer) {
        match (answer, &mut self.told) {
            (Answer::Error { sequence, code, message }, _) if sequence > 0 => {
                self.refuse(sequence, &format!("{message} (error {code})"));
            }
            (Answer::Receipt { reach, .. }, Some(told)) => told.add(reach),
            _ => {}
        }
    }

    fn refuse(&mut self, line: u64, why: &str) {
        self.refused += 1;
        self.bar.suspend(|| match self.refused {
            ..=MAX_SHOWN => eprintln!("line {line}: {why}"),
            count if count == MAX_SHOWN + 1 => eprintln!("further refusals are only counted"),
            _ => {}
        });
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let again = self.name.map_or(
            "",
            |_| "; the same lines sent again under the same --name are published from where they broke off",
        );
        Failure::Message(format!("at line {}: {error}{again}", self.number))
    }
}

/// By bytes, where standard input is a file and someone is watching; hidden otherwise.
fn progress_bar() -> ProgressBar {
    let stdin = io::stdin();
    let file = stdin.as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    match file {
        Ok(metadata) if metadata.is_file() && io::stderr().is_terminal() => {
            let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            // A template that does not parse leaves the default style: nothing to fail for.
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(metadata.len()).with_style(style)
        }
        _ => ProgressBar::hidden(),
    }
}
