//! What the engine's parts cost without sockets: `cargo bench --bench engine`.
//!
//! Everything runs on one thread and in memory. What goes through a whole shard uses the very code that ships,
//! over a transport that takes every byte; only the kernel is missing.

#![allow(missing_docs, reason = "criterion_group! makes a public function without")]

mod memory;

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanwire::catalog::rules::NONE;
use fanwire::clock::{Clock, Iso8601};
use fanwire::dialect::dialect::Dialect;
use fanwire::dialect::envelope::{Envelope, Envelopes, Frames, JSON, splice};
use fanwire::dialect::json::{self, client_id_suffix};
use fanwire::dialect::template;
use fanwire::event::{Events, Round, RoundRef};
use fanwire::fanout::connection::{Connection, Role, Scratch, Work};
use fanwire::metrics::ShardMetrics;
use fanwire::proto::deflate::{Deflater, Inflater};
use fanwire::publish::dedupe::{Dedupe, Window};
use fanwire::publish::http::{self, Format};
use fanwire::publish::ingress::{Destination, Ingress, Tail};
use fanwire::publish::socket::{Publisher, Terms};
use fanwire::publish::wire::{HEADER_LEN, Publish};
use fanwire::receipt::Fate;
use fanwire::receipt::Receipts;
use fanwire::session::chunk::{Chunks, Gap, NO_CHUNK, Span};
use fanwire::session::outbox::Outbox;
use fanwire::session::session::{Identity, Session};
use fanwire::session::timer::{Due, TICK, Wheel};
use fanwire::topic::table::Topics;
use fanwire::topic::topic::Topic;
use memory::{Engine, NullSocket, STOCK, Said, frame, frames, hello, stock};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use smallvec::smallvec;

/// What a client asks for.
const SUBSCRIBE: &str =
    r#"{"type":"subscribe","categories":["error-recovery","scheduler"],"clientId":"my-client"}"#;
const MAX_PUBLISH_BYTES: usize = 1 << 20;

/// About 3 KB of objects in arrays in objects.
fn nested() -> String {
    let step = |n: u32| {
        format!(r#"{{"step":{n},"state":{{"name":"running","tries":[1,2.5,-3e2],"ok":true,"note":null}}}}"#)
    };
    let steps: Vec<String> = (0..32).map(step).collect();
    format!(r#"{{"run":{{"steps":[{}]}}}}"#, steps.join(","))
}

/// One string of 4 KB.
fn long_text() -> String {
    format!(r#""{}""#, "lorem ipsum dolor sit amet ".repeat(152))
}

fn decode(c: &mut Criterion) {
    let (nested, text) = (nested(), long_text());
    let mut group = c.benchmark_group("decode");
    for (name, data) in [("stock, 159 bytes", STOCK), ("nested, 3 KB", &nested), ("string, 4 KB", &text)] {
        let frame = frame(&Publish { data, ..stock("t1x0") });
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::new("one frame", name), |b| {
            b.iter(|| Publish::decode(black_box(&frame[HEADER_LEN..]), MAX_PUBLISH_BYTES).is_ok());
        });
    }
    let read = frame(&stock("t1x0")).repeat(500);
    group.throughput(Throughput::Elements(500));
    group.bench_function("a read of 500 stock frames", |b| {
        let dedupe = Dedupe::default();
        let window = Window { time: Duration::from_secs(120), max: 1000 };
        let terms = Terms {
            max_publish_bytes: MAX_PUBLISH_BYTES,
            token: None,
            rules: &NONE,
            dedupe: &dedupe,
            window,
        };
        let mut publisher = Publisher::new("bench".into(), 0, terms);
        let (metrics, mut answers) = (ShardMetrics::default(), Vec::new());
        b.iter(|| {
            let mut bytes = 0;
            let accept = |publish: &Publish<'_>, _: Option<u64>| bytes += publish.data.len();
            publisher.handle_input(black_box(&read), 0, terms, &metrics, &mut answers, accept);
            bytes
        });
    });
    group.finish();
}

/// A round of `count` stock events, whose names need escaping or not.
fn round(count: usize, is_escaped: bool) -> Round {
    let (category, event) =
        if is_escaped { (r#"a "quoted" topic"#, r"back\slash") } else { ("t1x0", "retry-started") };
    let mut events = Events::default();
    for _ in 0..count {
        events.push(&Publish { event, ..stock(category) }, 0);
    }
    Round {
        topics: smallvec![],
        category: Some(category.into()),
        events,
        several: 0,
        names: 0,
        ingress: 0,
        shared: false,
        written: parking_lot::Mutex::default(),
    }
}

fn topic() -> Arc<Topic> {
    Topics::new(1, 1, 0).register("t", 0, 0).unwrap().0
}

fn write_frames(count: usize, is_escaped: bool) -> Frames {
    let mut frames = Frames::default();
    let envelopes = Envelopes::built_in();
    let round = round(count, is_escaped);
    let (bytes, ends) = (&mut frames.bytes, &mut frames.ends);
    envelopes.get(JSON).write(&round, &topic(), &[], &mut Iso8601::new(), bytes, ends);
    frames
}

fn envelope(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope");
    let (envelopes, mut iso, topic) = (Envelopes::built_in(), Iso8601::new(), topic());
    for (names, is_escaped) in [("plain", false), ("escaped", true)] {
        for count in [1, 32] {
            let round = round(count, is_escaped);
            let mut frames = Frames::default();
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(format!("write, {names} names"), count), |b| {
                b.iter(|| {
                    frames.bytes.clear();
                    frames.ends.clear();
                    envelopes.get(JSON).write(
                        black_box(&round),
                        &topic,
                        &[],
                        &mut iso,
                        &mut frames.bytes,
                        &mut frames.ends,
                    );
                });
            });
        }
    }
    let template =
        template::compile(r#"{"runId":"{runId}","type":{event},"payload":{data}}"#, &["runId".to_owned()]);
    let parts = template.unwrap().parts;
    let values = ["550e8400-e29b-41d4-a716-446655440000".into()];
    for (name, envelope) in [
        ("path stream", Envelope::web_socket(parts.clone())),
        ("path stream, ndjson", Envelope::lines(parts.clone())),
        ("path stream, SSE", Envelope::event_stream(parts)),
    ] {
        let (round, mut frames) = (round(32, false), Frames::default());
        group.throughput(Throughput::Elements(32));
        group.bench_function(BenchmarkId::new(format!("write, {name}"), 32), |b| {
            b.iter(|| {
                frames.bytes.clear();
                frames.ends.clear();
                let (bytes, ends) = (&mut frames.bytes, &mut frames.ends);
                envelope.write(black_box(&round), &topic, &values, &mut iso, bytes, ends);
            });
        });
    }
    let frames = write_frames(1, false);
    let suffix = client_id_suffix("my-client");
    let mut out = Vec::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function("clientId splice", |b| {
        b.iter(|| {
            out.clear();
            splice(black_box(&frames.bytes), &suffix, &mut out);
        });
    });
    group.finish();
}

/// Sessions spread evenly over topics `t0`, `t1`, …, subscribed with their handshake; topics whose events are compressed
/// from so many bytes on are so for all of them.
fn with_sessions(sessions: usize, topics: usize, compress_above: Option<usize>) -> Engine {
    let mut engine = Engine::empty(sessions, compress_above);
    let hellos: Vec<_> = (0..topics).map(|topic| hello(&format!("?categories=t{topic}"))).collect();
    engine.connect(sessions, |session| Rc::clone(&hellos[session % topics]));
    engine
}

fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatch");
    for (sessions, topics, batches) in [
        (10, 1, [1, 32]),
        (1_000, 1, [1, 32]),
        (100_000, 1, [1, 32]),
        // Each event of a read is for another topic.
        (1_000, 1_000, [1_000, 24_000]),
    ] {
        let mut engine = None;
        for events in batches {
            let frames = frames(events, topics);
            let deliveries = (events * sessions / topics) as u64;
            let name = format!("{sessions} sessions, {topics} topics");
            if sessions > 10_000 {
                group.sample_size(10);
            }
            group.throughput(Throughput::Elements(deliveries));
            group.bench_function(BenchmarkId::new(name, format!("{events} events")), |b| {
                let engine = engine.get_or_insert_with(|| with_sessions(sessions, topics, None));
                let before = engine.deliveries();
                engine.publish(&frames);
                assert_eq!(engine.deliveries() - before, deliveries, "everything is delivered");
                b.iter(|| engine.publish(black_box(&frames)));
            });
        }
    }
    group.finish();
    let mut group = c.benchmark_group("publish with no subscriber");
    group.throughput(Throughput::Elements(1_000));
    for topics in [1, 1_000] {
        let mut engine = with_sessions(0, 1, None);
        let frames = frames(1_000, topics);
        group.bench_function(BenchmarkId::new("1,000 events, topics", topics), |b| {
            b.iter(|| engine.publish(black_box(&frames)));
        });
    }
    group.finish();
}

/// A JSON text of so many bytes that says what such texts say: names again and again, numbers and ids.
fn steps(bytes: usize) -> String {
    let (mut text, mut random) = ("[".to_owned(), fastrand::Rng::with_seed(1));
    while text.len() + 80 < bytes {
        let status = random.choice(["queued", "running", "done"]).unwrap();
        let (id, progress) = (random.u64(..), random.u16(..1000));
        text += &format!(r#"{{"stepId":"{id:016x}","status":"{status}","progress":{progress}}},"#);
    }
    let pad = bytes - text.len() - 3;
    text + &format!("\"{}\"]", "x".repeat(pad))
}

/// What compression costs: a message by itself, and a round to many, which compresses it once.
fn compression(c: &mut Criterion) {
    let mut group = c.benchmark_group("compression");
    for (name, bytes) in [("1 KiB", 1 << 10), ("4 KiB", 4 << 10), ("64 KiB", 64 << 10)] {
        let message = steps(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        group.bench_function(BenchmarkId::new("deflate", name), |b| {
            b.iter(|| deflater.deflate(black_box(message.as_bytes())).map(<[u8]>::len));
        });
        let deflated = deflater.deflate(message.as_bytes()).expect("it gets smaller").to_vec();
        group.bench_function(BenchmarkId::new("inflate", name), |b| {
            b.iter(|| {
                let inflated = inflater.inflate(black_box(&deflated), bytes).expect("a message");
                inflater.recycle(inflated);
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("compressed round");
    for (name, bytes) in [("1 KiB", 1 << 10), ("4 KiB", 4 << 10)] {
        let data = steps(bytes);
        let frames: Rc<[u8]> = frame(&Publish { data: &data, ..stock("t0") }).into();
        group.throughput(Throughput::Elements(1_000));
        for (form, compress_above) in [("plain", None), ("compressed", Some(512))] {
            let mut engine = with_sessions(1_000, 1, compress_above);
            engine.publish(&frames);
            let compressed = engine.shared.metrics[0].events_compressed.get();
            assert_eq!((engine.deliveries(), compressed), (1_000, u64::from(compress_above.is_some())));
            let id = BenchmarkId::new(format!("1,000 sessions, {name}"), form);
            group.bench_function(id, |b| b.iter(|| engine.publish(black_box(&frames))));
        }
    }
    group.finish();
}

/// A node of which only the order is there: rounds go nowhere.
struct Nowhere {
    topics: Topics,
    tail: Tail,
}

impl Destination for Nowhere {
    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn tail(&self) -> &Tail {
        &self.tail
    }

    fn send(&self, _: usize, round: RoundRef, _: &Receipts) {
        black_box(round);
    }
}

/// What publishing pays for prefix patterns: each event is for another topic, so that each is looked up. The time of
/// one event must not depend on how many patterns there are, only on how many lengths their prefixes have.
fn patterns(c: &mut Criterion) {
    const EVENTS: usize = 1_000;
    let short: Vec<String> = (0..EVENTS).map(|n| format!("run:{n:08}-e29b-41d4-a716-446655440000")).collect();
    let long: Vec<String> = (0..EVENTS).map(|n| format!("{}{n:03}", "x".repeat(252))).collect();
    let of_one_length = |count: usize| (0..count).map(|n| format!("other-{n:06}:*")).collect::<Vec<_>>();
    let of_every_length =
        |letter: &str| (1..=254).map(|n| format!("{}*", letter.repeat(n))).collect::<Vec<_>>();
    let mut cases: Vec<(String, Vec<String>, &[String], usize)> = Vec::new();
    for count in [0, 1, 10, 1_000, 100_000] {
        let mut patterns = of_one_length(count);
        cases.push((format!("{count} patterns, none matches"), patterns.clone(), &short, 0));
        patterns.push("run:*".to_owned());
        cases.push((format!("{count} patterns, and one that matches"), patterns, &short, 1));
    }
    cases.push(("254 lengths, none matches".to_owned(), of_every_length("y"), &long, 0));
    cases.push(("254 lengths, 252 match".to_owned(), of_every_length("x"), &long, 252));
    let mut group = c.benchmark_group("publish, each event to another topic");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, patterns, topics, matches) in cases {
        let to = Nowhere { topics: Topics::new(1, 1_000_000, 0), tail: Tail::default() };
        for (slot, pattern) in (0..).zip(&patterns) {
            assert!(to.topics.register(pattern, 0, slot).is_some(), "there is room for {pattern}");
        }
        assert_eq!(to.topics.patterns().matching(&topics[0]).patterns().len(), matches);
        let (mut ingress, metrics) = (Ingress::default(), ShardMetrics::default());
        let now = Clock::start().now();
        group.bench_function(name, |b| {
            b.iter(|| {
                for topic in topics {
                    ingress.add(black_box(&stock(topic)), None, now, &to, &metrics);
                }
                ingress.commit(now, &to, &metrics);
            });
        });
    }
    group.finish();
}

/// Spans of one frame each in a chunk of 1,000 frames that goes nowhere.
fn chunk(chunks: &mut Chunks, topic: u32) -> Vec<(Span, usize)> {
    let frames = write_frames(1_000, false);
    let at = chunks.append(NO_CHUNK, (topic, 0), 0, |bytes, ends| {
        bytes.extend_from_slice(&frames.bytes);
        ends.extend_from_slice(&frames.ends);
    });
    chunks.retain(at.chunk, 1);
    let span =
        |start| Span { chunk: at.chunk, start, end: start + 1, topic, gap: Gap::NONE, droppable: false };
    (at.start..at.end).map(|start| (span(start), chunks.frames_len(at.chunk, start, start + 1))).collect()
}

fn push(outbox: &mut Outbox, chunks: &mut Chunks, span: Span, bytes: usize) {
    if outbox.push(span, bytes, chunks) {
        chunks.retain(span.chunk, 1);
    }
}

fn outbox(c: &mut Criterion) {
    let mut chunks = Chunks::default();
    let one = chunk(&mut chunks, 0);
    let other = chunk(&mut chunks, 1);
    let taken_in_turns: Vec<_> = one.iter().zip(&other).flat_map(|(a, b)| [*a, *b]).take(1_000).collect();
    let mut group = c.benchmark_group("outbox push");
    group.throughput(Throughput::Elements(1_000));
    for (name, spans) in [("extends the span", &one), ("new span each", &taken_in_turns)] {
        group.bench_function(name, |b| {
            let mut outbox = Outbox::new();
            b.iter(|| {
                for (span, bytes) in spans {
                    push(&mut outbox, &mut chunks, *span, *bytes);
                }
                outbox.discard(Fate::Gone, &mut chunks)
            });
        });
    }
    group.finish();

    // 32 events owed in each case, in spans of so many.
    let mut group = c.benchmark_group("flush of 32 events");
    group.throughput(Throughput::Elements(32));
    for (name, per_span, takes, suffix) in [
        ("one span", 32, u32::MAX, None),
        ("8 spans gathered", 4, u32::MAX, None),
        ("32 spans gathered", 1, u32::MAX, None),
        ("one span, with a clientId", 32, u32::MAX, Some(client_id_suffix("my-client"))),
        ("one span, 1,000 bytes a write", 32, 1_000, None),
        ("8 spans, 1,000 bytes a write", 4, 1_000, None),
    ] {
        let socket = NullSocket::Subscriber { place: 0, takes, said: Said::default() };
        let mut connection = Connection::new(socket, Role::Client(Box::new(session(suffix))), 0);
        let (mut scratch, mut work) = (Scratch::default(), Work::default());
        group.bench_function(name, |b| {
            b.iter(|| {
                for n in 0..32 {
                    let (span, bytes) = if (n / per_span) % 2 == 0 { one[n] } else { other[n] };
                    push(&mut connection.outbox, &mut chunks, span, bytes);
                }
                work.bytes = 0;
                work.ingresses.clear();
                connection.flush(&mut chunks, &mut scratch, &mut work, |_, _, _, _| ()).is_ok()
            });
        });
        assert!(connection.outbox.is_empty(), "everything went out");
    }
    group.finish();
}

fn session(suffix: Option<Box<[u8]>>) -> Session {
    let identity =
        suffix.map(|suffix| Box::new(Identity { client_id: "bench".into(), suffix: Some(suffix) }));
    Session { identity, ..Session::new(1, Dialect::Json, JSON, "bench".into(), 0) }
}

fn timers(c: &mut Criterion) {
    const CONNECTIONS: u32 = 100_000;
    const INTERVAL: u64 = 30_000_000_000;
    let mut group = c.benchmark_group("timer wheel");
    let mut wheel = Wheel::new();
    for connection in 0..CONNECTIONS {
        let tick = wheel.tick_of(INTERVAL / u64::from(CONNECTIONS) * u64::from(connection));
        wheel.arm(Due { connection, generation: 0, tick });
    }
    let (now, mut due) = (Cell::new(0), Vec::new());
    group.bench_function("a tick, 100,000 connections each in 30 s", |b| {
        b.iter(|| {
            now.set(now.get() + TICK);
            wheel.expire(now.get(), &mut due);
            for timer in due.drain(..) {
                wheel.arm(Due { tick: wheel.tick_of(now.get() + INTERVAL), ..timer });
            }
        });
    });
    let mut wheel = Wheel::new();
    wheel.arm(Due { connection: 0, generation: 0, tick: wheel.tick_of(INTERVAL) });
    group.bench_function("when is the next, one connection in 30 s", |b| b.iter(|| black_box(&wheel).next()));
    group.finish();
}

/// A message of a client, as `dialect::json` reads it.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(alias = "topics", alias = "rooms")]
    categories: Option<Vec<String>>,
    events: Option<Vec<String>>,
    policy: Option<String>,
    #[serde(rename = "clientId")]
    client_id: Option<String>,
}

/// An event, as `admin::publish` reads it; `D` is what becomes of its data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<D> {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    event: String,
    data: Option<D>,
    key: Option<String>,
    timestamp: Option<String>,
}

fn fields(message: &Message) -> usize {
    let Message { kind, categories, events, policy, client_id } = message;
    kind.len()
        + [categories, events].into_iter().flatten().count()
        + [policy, client_id].into_iter().flatten().count()
}

fn entry_fields<D>(entry: &Entry<D>) -> usize {
    let Entry { topic, topics, event, data, key, timestamp } = entry;
    let texts = [topic, key, timestamp].into_iter().flatten().count();
    event.len() + texts + topics.iter().len() + data.iter().len()
}

/// simd-json works in place: where the bytes are not ours to change, the copy is part of the price. It has no
/// counterpart of [`RawValue`], so it only walks over `data`, which would have to be found again.
fn parsers(c: &mut Criterion) {
    let line = format!(r#"{{"topic":"error-recovery","event":"retry-started","data":{STOCK}}}"#);
    let mut buffers = simd_json::Buffers::default();
    let mut group = c.benchmark_group("parse");
    group.bench_function("subscribe, serde_json", |b| {
        b.iter(|| fields(&serde_json::from_slice(black_box(SUBSCRIBE.as_bytes())).expect("valid")));
    });
    group.bench_function("subscribe, simd-json in place", |b| {
        let parse = |text: &mut Vec<u8>| {
            fields(&simd_json::serde::from_slice_with_buffers(text, &mut buffers).expect("valid"))
        };
        b.iter_batched_ref(|| SUBSCRIBE.as_bytes().to_vec(), parse, BatchSize::SmallInput);
    });
    group.bench_function("subscribe, all of dialect::json", |b| {
        b.iter(|| json::parse(black_box(SUBSCRIBE.as_bytes())).is_ok());
    });
    group.bench_function("NDJSON line, serde_json", |b| {
        b.iter(|| {
            let entry: Entry<&RawValue> = serde_json::from_str(black_box(&line)).expect("valid");
            entry_fields(&entry)
        });
    });
    group.bench_function("NDJSON line, simd-json in place", |b| {
        let parse = |text: &mut Vec<u8>| {
            let entry: Entry<IgnoredAny> =
                simd_json::serde::from_slice_with_buffers(text, &mut buffers).expect("valid");
            entry_fields(&entry)
        };
        b.iter_batched_ref(|| line.clone().into_bytes(), parse, BatchSize::SmallInput);
    });
    let body = format!("{line}\n").repeat(100);
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 NDJSON lines, all of admin::publish", |b| {
        b.iter(|| {
            let mut bytes = 0;
            let accept = |publish: &Publish<'_>| bytes += publish.data.len();
            let body = black_box(body.as_bytes());
            let mut batch = http::check(Format::Ndjson, body, MAX_PUBLISH_BYTES, &NONE).unwrap();
            batch.publish(body, usize::MAX, accept);
            bytes
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // Less than three minutes in all: short, so that it is run often.
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decode, envelope, dispatch, compression, patterns, outbox, timers, parsers
}
criterion_main!(benches);
