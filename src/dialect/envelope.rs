//! How a dialect writes an event: a compiled template and the framing around it.
//!
//! Each event is written at most once per envelope, however many subscribers get it. What is private to one
//! subscriber is put around the written bytes as they go out ([`Private`]).

use std::ops::Range;
use std::sync::Arc;

use crate::clock::Iso8601;
use crate::event::{Event, Round};
use crate::proto::websocket::{Opcode, RSV1, frame_len, header_len, payload, write_header};
use crate::topic::topic::Topic;

/// A round's events as one envelope writes them: frames back to back.
#[derive(Debug, Default)]
pub struct Frames {
    /// The frames.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<u32>,
}

impl Frames {
    /// The frame with this number.
    pub fn frame(&self, number: usize) -> &[u8] {
        &self.bytes[self.offset(number as u32)..self.ends[number] as usize]
    }

    /// Where the frame with this number begins.
    pub fn offset(&self, number: u32) -> usize {
        match number {
            0 => 0,
            number => self.ends[number as usize - 1] as usize,
        }
    }

    /// Of a run of frames whose first `written` bytes are gone: how many frames are gone whole, and how many bytes of the
    /// next one.
    pub fn split(&self, run: Range<u32>, written: usize) -> (u32, usize) {
        let at = self.offset(run.start) + written;
        let ends = &self.ends[run.start as usize..run.end as usize];
        let whole = ends.partition_point(|end| *end as usize <= at) as u32;
        (whole, at - self.offset(run.start + whole))
    }
}

/// A compiled template with its framing. The number of an envelope is its place in [`Envelopes`].
#[derive(Debug)]
pub struct Envelope {
    parts: Box<[Part]>,
    framing: Framing,
    /// The place of the data among the parts, where it stands there once.
    lone_data: Option<usize>,
}

/// A frame that is written: what stands there around the data, for others of which that is the same.
struct Around<'a> {
    event: Event<'a>,
    before: Range<usize>,
    behind: Range<usize>,
}

impl Around<'_> {
    fn is_around(&self, event: &Event<'_>) -> bool {
        let Event { name, key, timestamp_ms, data: _ } = *event;
        (self.event.timestamp_ms, self.event.name, self.event.key) == (timestamp_ms, name, key)
    }
}

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Literal(Box<str>),
    /// The event's name as a JSON string.
    Event,
    /// The event's name as it is: names have no control characters.
    Name,
    /// The event's first topic as a JSON string.
    Category,
    /// The data.
    Data,
    /// The timestamp as a JSON string, ISO 8601.
    Timestamp,
    /// The key as a JSON string, or `null` where there is none.
    Key,
    /// The offset in the subscribers' topic, or `null` where that has no history.
    Offset,
    /// `,"offset":18` where the event's first topic has history, and `,"offsets":{…}` of its other topics that have.
    Positions,
    /// The line of an event stream that names the position in the subscribers' topic, where that has history.
    Id,
    /// One of the [`Values`], which are text to stand inside a JSON string.
    Value(u8),
}

/// How frames are told apart on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each is a WebSocket text message; the data stands in it byte for byte.
    WebSocket,
    /// The template ends each. A line break in the data, which in JSON can only stand between tokens, is
    /// written like this.
    Lines(&'static str),
}

/// What a template takes from the path that a client connected to: JSON-escaped, without quotes. Subscribers
/// of a topic with the same envelope and values get the same bytes. A thin pointer: each session has room for one.
pub type Values = Arc<Box<[Box<str>]>>;

/// What a subscriber's events look like: who has the same gets the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form<'a> {
    /// The envelope's number.
    pub envelope: u16,
    /// What it takes from the path that the subscriber connected to.
    pub values: Option<&'a Values>,
    /// Whether events are compressed whose topics have that.
    pub deflated: bool,
}

impl Form<'_> {
    /// Events in an envelope that takes nothing from a path, and not compressed.
    pub const fn plain(envelope: u16) -> Self {
        Self { envelope, values: None, deflated: false }
    }
}

/// The envelopes of a node, by number.
#[derive(Debug)]
pub struct Envelopes(Vec<Envelope>);

/// The number of the JSON protocol's envelope.
pub const JSON: u16 = 0;
/// The number of the envelope of Server-Sent Events that carry the JSON protocol's messages.
pub const JSON_EVENT_STREAM: u16 = 1;

/// The JSON protocol's message.
fn json_message() -> Vec<Part> {
    use Part::{Category, Data, Event, Literal, Positions, Timestamp};
    vec![
        Literal(r#"{"type":"event","event":"#.into()),
        Event,
        Literal(r#","category":"#.into()),
        Category,
        Literal(r#","data":"#.into()),
        Data,
        Literal(r#","timestamp":"#.into()),
        Timestamp,
        Positions,
        Literal("}".into()),
    ]
}

impl Envelopes {
    /// The envelopes that every node has.
    pub fn built_in() -> Self {
        Self(vec![Envelope::web_socket(json_message()), Envelope::event_stream(json_message())])
    }

    /// Adds one and answers its number.
    pub fn add(&mut self, envelope: Envelope) -> u16 {
        self.0.push(envelope);
        // `config` allows 1,000 streams, each with three.
        (self.0.len() - 1) as u16
    }

    /// The envelope with this number.
    pub fn get(&self, number: u16) -> &Envelope {
        &self.0[usize::from(number)]
    }
}

/// Bytes reserved for a frame's header before its length is known: what nearly every event needs.
const USUAL_HEADER: usize = 4;

impl Envelope {
    /// A WebSocket text message for each event.
    pub fn web_socket(template: Vec<Part>) -> Self {
        Self::new(template, Framing::WebSocket)
    }

    /// A line for each event, to be put into messages as they go out ([`Private::Lines`]).
    pub fn lines(template: Vec<Part>) -> Self {
        let mut parts = one_line(template);
        parts.push(Part::Literal("\n".into()));
        Self::new(parts, Framing::Lines(" "))
    }

    /// Server-Sent Events (WHATWG HTML, "Server-sent events"): the event's name, and the template as its data.
    pub fn event_stream(template: Vec<Part>) -> Self {
        let mut parts =
            vec![Part::Id, Part::Literal("event: ".into()), Part::Name, Part::Literal("\ndata: ".into())];
        parts.extend(one_line(template));
        parts.push(Part::Literal("\n\n".into()));
        Self::new(parts, Framing::Lines("\ndata: "))
    }

    fn new(parts: Vec<Part>, framing: Framing) -> Self {
        let mut places = parts.iter().enumerate().filter(|(_, part)| **part == Part::Data).map(|(at, _)| at);
        let lone_data = places.next().filter(|_| places.next().is_none());
        Self { parts: parts.into(), framing, lone_data }
    }

    /// Whether an event of several topics is written anew for the subscribers of each.
    pub fn is_by_topic(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Offset | Part::Id))
    }

    /// Writes every event of a round as a frame at the end of `bytes`, and where each ends into `ends`, for the
    /// subscribers of a topic with these values.
    pub fn write(
        &self,
        round: &Round,
        topic: &Arc<Topic>,
        values: &[Box<str>],
        iso: &mut Iso8601,
        bytes: &mut Vec<u8>,
        ends: &mut Vec<u32>,
    ) {
        let fixed: usize =
            self.parts.iter().map(|part| if let Part::Literal(text) = part { text.len() } else { 28 }).sum();
        bytes.reserve(
            round.events.bytes() + round.events.len() * (fixed + round.category().len() + USUAL_HEADER),
        );
        ends.reserve(round.events.len());
        let position = round.position(topic);
        // Frames of a topic without history differ in their data alone, most of them: the rest is said as it was.
        let has_positions = round.topics.iter().any(|placed| placed.topic.epoch().is_some());
        let lone_data = if has_positions { None } else { self.lone_data };
        let header = if self.framing == Framing::WebSocket { USUAL_HEADER } else { 0 };
        let mut last: Option<Around<'_>> = None;
        for (place, event) in round.events.iter().enumerate() {
            let start = bytes.len();
            let offset = position.map(|(epoch, first)| (epoch, first + place as u64));
            bytes.extend_from_slice(&[0; USUAL_HEADER][..header]);
            let mut write = |parts: &[Part], bytes: &mut Vec<u8>| {
                for part in parts {
                    match part {
                        Part::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
                        Part::Event => write_json_string(bytes, event.name),
                        Part::Name => bytes.extend_from_slice(event.name.as_bytes()),
                        Part::Category => write_json_string(bytes, round.category()),
                        Part::Data => self.write_data(event.data, bytes),
                        Part::Timestamp => {
                            bytes.push(b'"');
                            bytes.extend_from_slice(iso.format(event.timestamp_ms).as_bytes());
                            bytes.push(b'"');
                        }
                        Part::Key if event.key.is_empty() => bytes.extend_from_slice(b"null"),
                        Part::Key => write_json_string(bytes, event.key),
                        Part::Offset => match offset {
                            Some((_, offset)) => write_number(bytes, offset),
                            None => bytes.extend_from_slice(b"null"),
                        },
                        Part::Positions => write_positions(round, place as u64, bytes),
                        Part::Id => {
                            if let Some((epoch, offset)) = offset {
                                bytes.extend_from_slice(b"id: ");
                                bytes.extend_from_slice(write_epoch(epoch).as_bytes());
                                bytes.push(b'-');
                                write_number(bytes, offset);
                                bytes.push(b'\n');
                            }
                        }
                        Part::Value(number) => {
                            bytes.extend_from_slice(values[usize::from(*number)].as_bytes());
                        }
                    }
                }
            };
            let lengths = match (lone_data, &last) {
                (Some(_), Some(last)) if last.is_around(&event) => {
                    bytes.extend_from_within(last.before.clone());
                    self.write_data(event.data, bytes);
                    bytes.extend_from_within(last.behind.clone());
                    Some((last.before.len(), last.behind.len()))
                }
                (Some(at), _) => {
                    write(&self.parts[..at], bytes);
                    let before = bytes.len() - start - header;
                    self.write_data(event.data, bytes);
                    let end = bytes.len();
                    write(&self.parts[at + 1..], bytes);
                    Some((before, bytes.len() - end))
                }
                (None, _) => {
                    write(&self.parts, bytes);
                    None
                }
            };
            let payload = bytes.len() - start - header;
            if self.framing == Framing::WebSocket {
                finish_frame(bytes, start);
            }
            let end = bytes.len();
            last = lengths.map(|(before, behind)| Around {
                event,
                before: end - payload..end - payload + before,
                behind: end - behind..end,
            });
            // A chunk begins anew above 256 KiB. Data has at most 256 MiB (`max_publish_bytes`), stands in a
            // template at most twice, and grows to at most seven times its length.
            ends.push(end as u32);
        }
    }

    fn write_data(&self, data: &str, bytes: &mut Vec<u8>) {
        let is_break = |byte: u8| byte == b'\n' || byte == b'\r';
        match self.framing {
            Framing::Lines(line_break) if data.bytes().any(is_break) => {
                let mut rest = data;
                while let Some(end) = rest.find(['\n', '\r']) {
                    bytes.extend_from_slice(&rest.as_bytes()[..end]);
                    bytes.extend_from_slice(line_break.as_bytes());
                    let is_pair = rest[end..].starts_with("\r\n");
                    rest = &rest[end + 1 + usize::from(is_pair)..];
                }
                bytes.extend_from_slice(rest.as_bytes());
            }
            _ => bytes.extend_from_slice(data.as_bytes()),
        }
    }
}

/// How an epoch is written: 16 hexadecimal digits.
pub fn write_epoch(epoch: u64) -> String {
    format!("{epoch:016x}")
}

/// The epoch that is written like this.
pub fn read_epoch(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == 16 && text.bytes().all(is_digit)).then(|| u64::from_str_radix(text, 16).ok())?
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut at) = ([0; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[at..]);
}

/// The members of a JSON object that tell where the event with this place in the round stands.
fn write_positions(round: &Round, place: u64, bytes: &mut Vec<u8>) {
    let kept = round.topics.iter().filter(|placed| placed.topic.epoch().is_some());
    let (category, mut others) = (round.category(), false);
    for placed in kept.clone() {
        if placed.topic.name() == category {
            bytes.extend_from_slice(br#","offset":"#);
            write_number(bytes, placed.offset + place);
        }
    }
    for placed in kept {
        if placed.topic.name() != category {
            bytes.extend_from_slice(if others { b"," } else { br#","offsets":{"# });
            others = true;
            write_json_string(bytes, placed.topic.name());
            bytes.push(b':');
            write_number(bytes, placed.offset + place);
        }
    }
    if others {
        bytes.push(b'}');
    }
}

/// The template without line breaks, which in JSON can only stand between tokens.
fn one_line(mut template: Vec<Part>) -> Vec<Part> {
    for part in &mut template {
        if let Part::Literal(text) = part {
            *text = text.replace(['\n', '\r'], " ").into();
        }
    }
    template
}

/// What one subscriber's events have that the others' have not, put there as they go out.
#[derive(Clone, Copy, Debug)]
pub enum Private<'a> {
    /// Nothing: frames go out as they lie.
    Nothing,
    /// The last byte of every payload is replaced by this: for the JSON protocol `,"clientId":"…"}` in place of
    /// the closing brace. Not of a compressed one: that was queued before there was anything private.
    Suffix(&'a [u8]),
    /// Frames are lines, and those that go out together share a WebSocket message.
    Lines,
}

/// Bytes of lines that share one message.
const LINES_BYTES: usize = 64 << 10;

impl Private<'_> {
    /// Appends the first of `frames` (numbers) with what is private, about until there are `limit` bytes, and
    /// answers how many that are: at least one. `frame` gives the bytes of a run of frames.
    pub fn write<'a>(
        &self,
        frames: Range<u32>,
        frame: impl Fn(Range<u32>) -> &'a [u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> u32 {
        match self {
            Private::Nothing => {
                out.extend_from_slice(frame(frames.clone()));
                frames.end - frames.start
            }
            Private::Suffix(suffix) => {
                // They lie one behind the other: their headers tell where each ends.
                let mut rest = frame(frames.clone());
                let mut count = 0;
                while !rest.is_empty() && (count == 0 || out.len() < limit) {
                    let (first, others) = rest.split_at(frame_len(rest));
                    match first[0] & RSV1 {
                        0 => splice(first, suffix, out),
                        _ => out.extend_from_slice(first),
                    }
                    rest = others;
                    count += 1;
                }
                count
            }
            Private::Lines => {
                let mut end = frames.start + 1;
                // Frames are looked at in halves: what is left is mostly taken whole.
                let fits = |end: u32| frame(frames.start..end).len() <= LINES_BYTES;
                if fits(frames.end) {
                    end = frames.end;
                } else {
                    let mut beyond = frames.end;
                    while beyond - end > 1 {
                        let middle = end + (beyond - end) / 2;
                        if fits(middle) { end = middle } else { beyond = middle }
                    }
                }
                let lines = frame(frames.start..end);
                let payload = &lines[..lines.len() - 1]; // The last line feed separates nothing.
                write_header(out, Opcode::Text, payload.len());
                out.extend_from_slice(payload);
                end - frames.start
            }
        }
    }

    /// Where the first `written` of the bytes are cut that [`Private::write`] appended for `count` frames.
    pub fn cut(&self, bytes: &[u8], written: usize, count: u32) -> Cut {
        let Private::Suffix(_) = self else {
            let begun = if written > 0 { count } else { 0 };
            return Cut { whole: 0, begun, end: if written > 0 { bytes.len() } else { 0 } };
        };
        let (mut whole, mut at) = (0, 0);
        while at < bytes.len() {
            let end = at + frame_len(&bytes[at..]);
            if end > written {
                let is_begun = at < written;
                return Cut { whole, begun: u32::from(is_begun), end: if is_begun { end } else { at } };
            }
            (whole, at) = (whole + 1, end);
        }
        Cut { whole, begun: 0, end: at }
    }
}

/// Where a write came to in frames with something private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Frames that are gone.
    pub whole: u32,
    /// Frames of which something is gone: they share a message, or it is one.
    pub begun: u32,
    /// Where those end.
    pub end: usize,
}

/// Writes the header of the text frame whose payload begins [`USUAL_HEADER`] after `start`.
fn finish_frame(bytes: &mut Vec<u8>, start: usize) {
    let payload = bytes.len() - start - USUAL_HEADER;
    let needed = header_len(payload);
    if needed == USUAL_HEADER {
        let [high, low] = (payload as u16).to_be_bytes();
        bytes[start..start + USUAL_HEADER].copy_from_slice(&[0x81, 126, high, low]);
        return;
    }
    let mut header = Vec::with_capacity(10);
    write_header(&mut header, Opcode::Text, payload);
    bytes.splice(start..start + USUAL_HEADER, header);
}

/// Appends `frame` with the last byte of its payload replaced by `suffix`.
pub fn splice(frame: &[u8], suffix: &[u8], out: &mut Vec<u8>) {
    let payload = payload(frame);
    let shared = &payload[..payload.len() - 1];
    write_header(out, Opcode::Text, shared.len() + suffix.len());
    out.extend_from_slice(shared);
    out.extend_from_slice(suffix);
}

/// Appends a JSON string (RFC 8259 section 7).
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_json_escaped(out, text);
    out.push(b'"');
}

/// Appends what stands between the quotes of a JSON string.
pub fn write_json_escaped(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 => {
                    let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
                }
                _ => out.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Events;
    use crate::publish::wire::Publish;
    use crate::topic::table::Topics;
    use parking_lot::Mutex;
    use smallvec::smallvec;

    fn round(category: &str, events: &[(&str, &str)]) -> Round {
        let mut all = Events::default();
        for (event, data) in events {
            let key = if event.starts_with("keyed") { "k\"1" } else { "" };
            all.push(&Publish { topics: category, event, key, data, timestamp_ms: 1_705_313_700_000 }, 0);
        }
        Round {
            topics: smallvec![],
            category: Some(category.into()),
            events: all,
            several: 0,
            names: 0,
            ingress: 0,
            shared: false,
            written: Mutex::default(),
        }
    }

    fn write(round: &Round) -> Frames {
        write_in(Envelopes::built_in().get(JSON), round, &[])
    }

    fn write_in(envelope: &Envelope, round: &Round, values: &[Box<str>]) -> Frames {
        let mut frames = Frames::default();
        let topics = Topics::new(1, 10, 0);
        let (topic, _) = topics.register("none of its own", 0, 0).unwrap();
        envelope.write(round, &topic, values, &mut Iso8601::new(), &mut frames.bytes, &mut frames.ends);
        frames
    }

    #[test]
    fn the_json_envelope_is_the_seeds_message() {
        let frames = write(&round("error-recovery", &[("retry-started", r#"{"retryId":"r-1"}"#)]));
        let text = r#"{"type":"event","event":"retry-started","category":"error-recovery","data":{"retryId":"r-1"},"timestamp":"2024-01-15T10:15:00.000Z"}"#;
        assert_eq!(&frames.bytes[..4], [0x81, 126, 0, text.len() as u8]);
        assert_eq!(std::str::from_utf8(&frames.bytes[4..]).unwrap(), text);
        assert_eq!(frames.ends, [frames.bytes.len() as u32]);
    }

    #[test]
    fn names_are_escaped_and_lengths_of_every_form_are_right() {
        let long = format!("\"{}\"", "x".repeat(70_000));
        let round = round("a\"\\b", &[("e", "1"), ("e", &long), ("q\"", "")]);
        let frames = write(&round);
        let mut start = 0;
        for (end, event) in frames.ends.iter().zip(round.events.iter()) {
            let mut cursor = std::io::Cursor::new(&frames.bytes[start..]);
            let (_, length) = tungstenite::protocol::frame::FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let payload = start + cursor.position() as usize;
            assert_eq!(payload + length as usize, *end as usize);
            let value: serde_json::Value =
                serde_json::from_slice(&frames.bytes[payload..*end as usize]).unwrap();
            assert_eq!((&value["event"], &value["category"]), (&event.name.into(), &"a\"\\b".into()));
            start = *end as usize;
        }
    }

    #[test]
    fn a_client_id_is_spliced_in_across_every_header_length() {
        for size in [0, 1, 20, 30, 60, 65_300, 65_430, 65_600] {
            let data = format!("\"{}\"", "x".repeat(size));
            let frames = write(&round("c", &[("e", &data)]));
            let mut out = Vec::new();
            splice(&frames.bytes, br#","clientId":"me"}"#, &mut out);
            let mut cursor = std::io::Cursor::new(&out);
            let (_, length) = tungstenite::protocol::frame::FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let payload = &out[cursor.position() as usize..];
            assert_eq!(payload.len() as u64, length);
            let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
            assert_eq!(value["clientId"], "me");
        }
    }

    #[test]
    fn events_of_a_named_client_are_spliced_one_by_one_and_cut_between_frames() {
        let long = format!("\"{}\"", "x".repeat(70_000));
        let round = round("t", &[("a", "1"), ("b", "\"middling\""), ("c", &long), ("d", "2")]);
        let frames = write_in(Envelopes::built_in().get(JSON), &round, &[]);
        let suffix = b",\"clientId\":\"me\"}";
        let run = |range: Range<u32>| {
            let offset = |frame: u32| if frame == 0 { 0 } else { frames.ends[frame as usize - 1] as usize };
            &frames.bytes[offset(range.start)..offset(range.end)]
        };
        let private = Private::Suffix(suffix);
        let (mut expected, mut ends) = (Vec::new(), Vec::new());
        for frame in 0..4 {
            splice(run(frame..frame + 1), suffix, &mut expected);
            ends.push(expected.len());
        }
        let mut out = Vec::new();
        assert_eq!(private.write(0..4, run, usize::MAX, &mut out), 4);
        assert_eq!(out, expected);
        out.clear();
        assert_eq!(private.write(1..4, run, 1000, &mut out), 2, "until there is enough");
        assert_eq!(out, expected[ends[0]..ends[2]]);
        for written in 0..=expected.len() {
            let whole = ends.iter().filter(|end| **end <= written).count();
            let begun = u32::from(!ends.contains(&written) && written > 0);
            let end = if begun == 1 { ends[whole] } else { written };
            assert_eq!(private.cut(&expected, written, 4), Cut { whole: whole as u32, begun, end });
        }
    }

    #[test]
    fn a_compressed_frame_is_not_spliced() {
        let frames = [&[0xc1, 3, b'z', b'i', b'p'][..], &[0x81, 2, b'{', b'}'], &[0xc1, 1, 0]];
        let (bytes, mut out) = (frames.concat(), Vec::new());
        let private = Private::Suffix(b",\"clientId\":\"me\"}");
        assert_eq!(private.write(0..3, |_| &bytes[..], usize::MAX, &mut out), 3);
        let spliced = [&[0x81, 18][..], b"{,\"clientId\":\"me\"}"].concat();
        assert_eq!(out, [frames[0], &spliced, frames[2]].concat());
        assert_eq!(private.cut(&out, 6, 3), Cut { whole: 1, begun: 1, end: 25 });
    }

    fn seed() -> Vec<Part> {
        let literal = |text: &str| Part::Literal(text.into());
        vec![
            literal("{\"runId\":\""),
            Part::Value(0),
            literal("\",\n\"type\":"),
            Part::Event,
            literal(",\"key\":"),
            Part::Key,
            literal(",\"offset\":"),
            Part::Offset,
            literal(",\"payload\":"),
            Part::Data,
            literal("}"),
        ]
    }

    #[test]
    fn a_configured_envelope_is_written_in_every_framing() {
        let round = round("run:7", &[("keyed", "{\n\t\"a\":\r\n1}"), ("plain", "")]);
        let values: [Box<str>; 1] = ["7\\\"".into()];
        let text =
            |envelope: &Envelope| String::from_utf8(write_in(envelope, &round, &values).bytes).unwrap();
        let lines = text(&Envelope::lines(seed()));
        assert_eq!(
            lines,
            "{\"runId\":\"7\\\"\", \"type\":\"keyed\",\"key\":\"k\\\"1\",\"offset\":null,\"payload\":{ \t\"a\": 1}}\n\
             {\"runId\":\"7\\\"\", \"type\":\"plain\",\"key\":null,\"offset\":null,\"payload\":null}\n"
        );
        let stream = text(&Envelope::event_stream(seed()));
        let first = stream.split("\n\n").next().unwrap();
        assert_eq!(first.lines().next(), Some("event: keyed"));
        assert!(first.lines().skip(1).all(|line| line.starts_with("data: ")), "{first}");
        assert_eq!((stream.matches("event: ").count(), stream.matches("\n\n").count()), (2, 2));
        let message = write_in(&Envelope::web_socket(seed()), &round, &values);
        let whole = std::str::from_utf8(&message.bytes[2..message.ends[0] as usize]).unwrap();
        assert!(whole.contains("\r\n1}"), "byte for byte: {whole:?}");
    }

    #[test]
    fn lines_that_go_out_together_share_messages_of_a_bounded_size() {
        let data = format!("\"{}\"", "x".repeat(30_000));
        let events = vec![("e", data.as_str()); 5];
        let frames = write_in(&Envelope::lines(vec![Part::Data]), &round("c", &events), &[]);
        let run = |run: Range<u32>| {
            let at = |frame: u32| if frame == 0 { 0 } else { frames.ends[frame as usize - 1] as usize };
            &frames.bytes[at(run.start)..at(run.end)]
        };
        let (mut start, mut counts) = (0, Vec::new());
        while start < 5 {
            let mut out = Vec::new();
            let count = Private::Lines.write(start..5, run, usize::MAX, &mut out);
            let mut cursor = std::io::Cursor::new(&out);
            let (_, length) = tungstenite::protocol::frame::FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let payload = std::str::from_utf8(&out[cursor.position() as usize..]).unwrap();
            assert_eq!(payload.len() as u64, length);
            assert!(payload.split('\n').all(|line| line == data), "{count}");
            assert_eq!(payload.split('\n').count(), count as usize);
            counts.push(count);
            start += count;
        }
        assert_eq!(counts, [2, 2, 1]);
    }

    #[test]
    fn strings_survive_a_json_parser() {
        for text in ["", "plain", "\"", "\\", "a\u{0}b\u{1f}", "\u{7f}\u{2028}ü"] {
            let mut out = Vec::new();
            write_json_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
