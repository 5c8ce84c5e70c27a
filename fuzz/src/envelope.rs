//! Templates of envelopes, and what they write: a template that compiles writes JSON whatever the event, in every
//! framing, and nothing in an event ends its frame.
//!
//! The input is fields with a zero byte between them: template, path, event name, key, data, second topic.

use std::cell::RefCell;

use fanwire::clock::Iso8601;
use fanwire::dialect::envelope::{Envelope, Envelopes, Frames, JSON, JSON_EVENT_STREAM, Private};
use fanwire::dialect::path::{Definition, Streams};
use fanwire::event::{Events, Round};
use fanwire::publish::wire::Publish;
use fanwire::topic::table::Topics;
use serde_json::value::RawValue;

use super::frames::Reader;
use super::sse::{Item, Parser};

pub fn fuzz(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut fields = text.split('\0');
    let mut field = || fields.next().unwrap_or_default();
    let [template, path, event, key, data, topic] = [(); 6].map(|()| field());
    let mut envelopes = Envelopes::built_in();
    let definition =
        Definition { path: "/s/{id}/{other_1}", topic: "run:{id}:{other_1}", envelope: template };
    let streams = Streams::compile([definition], &["/ws"], &mut envelopes);
    if let Err(mistakes) = &streams {
        assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.message.is_empty()));
    }
    // The template is also a path and a topic, for their own compilers.
    for definition in [
        Definition { path: template, topic: "a", envelope: "{data}" },
        Definition { path: "/s/{id}", topic: template, envelope: "{data}" },
    ] {
        if let Ok(streams) = Streams::compile([definition], &["/ws"], &mut Envelopes::built_in()) {
            let _ = streams.find(path);
        }
    }
    let topics = if topic.is_empty() { "t".to_owned() } else { format!("t\n{topic}") };
    let publish = Publish { topics: &topics, event, key, data, timestamp_ms: 1 };
    if publish.check().is_err() {
        return;
    }
    let round = round(&publish);
    let written = |number, values: &[Box<str>]| write(envelopes.get(number), &round, values);
    for number in [JSON, JSON_EVENT_STREAM] {
        let frames = written(number, &[]);
        if number == JSON { is_message(&frames, data) } else { is_stream(&frames, event, data) }
    }
    let Ok(streams) = streams else { return };
    if let Some(Ok(found)) = streams.find(path) {
        let values = found.values.as_ref().map(|values| &values[..]).unwrap_or_default();
        is_message(&written(found.envelopes.message, values), "");
        is_lines(&written(found.envelopes.lines, values));
        is_stream(&written(found.envelopes.event_stream, values), event, "");
    }
}

/// The event twice, so that frames have neighbours.
fn round(publish: &Publish<'_>) -> Round {
    let mut events = Events::default();
    events.push(publish, 7);
    events.push(publish, 7);
    Round {
        topics: Default::default(),
        names: Default::default(),
        category: Some("t".into()),
        events,
        several: 0,
        ingress: 0,
        shared: false,
        written: Default::default(),
    }
}

thread_local! {
    static TOPICS: RefCell<Option<Topics>> = const { RefCell::new(None) };
}

fn write(envelope: &Envelope, round: &Round, values: &[Box<str>]) -> Frames {
    TOPICS.with_borrow_mut(|topics| {
        let topics = topics.get_or_insert_with(|| Topics::new(1, 10, 0));
        let (topic, _) = topics.register("t", 0, 0).expect("there is room for a topic");
        let mut frames = Frames::default();
        envelope.write(round, &topic, values, &mut Iso8601::new(), &mut frames.bytes, &mut frames.ends);
        frames
    })
}

fn is_json(text: &[u8]) {
    let text = std::str::from_utf8(text).expect("a message is UTF-8");
    serde_json::from_str::<&RawValue>(text).expect("a message is JSON");
}

/// WebSocket frames, one for each event; `data` stands in them byte for byte. Also with a client's own end.
fn is_message(frames: &Frames, data: &str) {
    let mut out = Vec::new();
    Private::Suffix(br#","clientId":"me"}"#).write(0..2, |run| of(frames, run), usize::MAX, &mut out);
    let mut reader = Reader::default();
    reader.push(&frames.bytes);
    for number in 0..2 {
        let frame = reader.next().expect("a frame for each event");
        assert_eq!(frame.opcode, 1);
        is_json(&frame.payload);
        assert!(memmem(&frame.payload, data.as_bytes()));
        assert!(frames.frame(number).ends_with(&frame.payload));
        if frame.payload.ends_with(b"}") && !data.is_empty() {
            let mut reader = Reader::default();
            reader.push(&out);
            is_json(&reader.next().expect("a frame with a client's own end").payload);
        }
    }
    assert!(reader.next().is_none() && !reader.is_partial());
}

/// Lines that share a message.
fn is_lines(frames: &Frames) {
    let mut out = Vec::new();
    let count = Private::Lines.write(0..2, |run| of(frames, run), usize::MAX, &mut out);
    let mut reader = Reader::default();
    reader.push(&out);
    let frame = reader.next().expect("a message of lines");
    let lines: Vec<_> = frame.payload.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), count as usize);
    lines.into_iter().for_each(is_json);
}

/// An event stream of exactly these two events.
fn is_stream(frames: &Frames, event: &str, data: &str) {
    let mut parser = Parser::default();
    parser.push(&frames.bytes);
    for _ in 0..2 {
        match parser.next() {
            // A parser takes one space after the colon away, so a name may begin with one.
            Some(Item::Event { name, data: read }) => {
                assert_eq!(name, event);
                is_json(read.as_bytes());
                assert!(data.contains(['\r', '\n']) || read.contains(data));
            }
            other => panic!("{other:?} instead of an event"),
        }
    }
    assert!(parser.next().is_none() && !parser.is_partial(), "a forged event");
}

fn of(frames: &Frames, run: std::ops::Range<u32>) -> &[u8] {
    let start = if run.start == 0 { 0 } else { frames.ends[run.start as usize - 1] as usize };
    &frames.bytes[start..frames.ends[run.end as usize - 1] as usize]
}

fn memmem(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
