//! Whether it scales: `cargo bench --bench scale` prints what connecting, subscribing, publishing and leaving cost from ten
//! sessions to a million, and from one topic to a million, in memory. `-- 100000` stops there.

mod memory;

use std::fs;
use std::rc::Rc;
use std::time::Instant;

use memory::{Engine, frames, hello, message};

/// Each delivery's cost is the median of so many publishes.
const REPEATS: usize = 7;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // As a test, it is small.
    let usual = if words.iter().any(|word| word == "--bench") { 1_000_000 } else { 100 };
    let most: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(usual);
    let sizes = || std::iter::successors(Some(10), |size| Some(size * 10)).take_while(|size| *size <= most);
    println!("Sessions of one topic, in µs; a delivery in ns; memory without sockets\n");
    println!(
        "| sessions | connect | subscribe | delivery, 1 event | delivery, 32 events | unsubscribe | leave | bytes a session |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    sizes().for_each(sessions_of_one_topic);
    println!("\nA session for each topic, in µs an event\n");
    println!(
        "| topics | connect and subscribe | publish to each in turn | publish to others without a subscriber |"
    );
    println!("| ---: | ---: | ---: | ---: |");
    std::iter::once(1).chain(sizes()).for_each(topics_of_one_session);
}

fn sessions_of_one_topic(sessions: usize) {
    // Of few there is little to measure: several such nodes, one after the other.
    let rounds = (10_000 / sessions).max(1);
    let mut sums = [0.0; 4];
    let (mut one, mut many) = (Vec::new(), Vec::new());
    let before = resident();
    let mut bytes = 0;
    for _ in 0..rounds {
        let mut engine = Engine::empty(sessions, None);
        let (hello, subscribe) = (hello(""), message(r#"{"type":"subscribe","topics":["t0"]}"#));
        let unsubscribe = message(r#"{"type":"unsubscribe","topics":["t0"]}"#);
        let mut time = |engine: &mut Engine, what: usize, act: &dyn Fn(&mut Engine)| {
            let began = Instant::now();
            act(engine);
            sums[what] += micros(began, sessions * rounds);
        };
        time(&mut engine, 0, &|engine| engine.connect(sessions, |_| Rc::clone(&hello)));
        time(&mut engine, 1, &|engine| engine.say(|_| Rc::clone(&subscribe)));
        assert_eq!(engine.subscriptions(), sessions as u64);
        bytes = resident().saturating_sub(before);
        for (events, costs) in [(1, &mut one), (32, &mut many)] {
            let frames = frames(events, 1);
            for _ in 0..REPEATS {
                let (began, before) = (Instant::now(), engine.deliveries());
                engine.publish(&frames);
                costs.push(micros(began, sessions * events) * 1e3);
                assert_eq!(engine.deliveries() - before, (sessions * events) as u64);
            }
        }
        time(&mut engine, 2, &|engine| engine.say(|_| Rc::clone(&unsubscribe)));
        assert_eq!(engine.subscriptions(), 0);
        time(&mut engine, 3, &|engine| engine.leave());
        assert_eq!(engine.shard.counts().clients, 0);
    }
    let [connect, subscribe, unsubscribe, leave] = sums;
    // What a few take is lost in whole pages.
    let each = if sessions < 10_000 { "-".to_owned() } else { (bytes / sessions).to_string() };
    println!(
        "| {sessions} | {connect:.2} | {subscribe:.2} | {:.1} | {:.1} | {unsubscribe:.2} | {leave:.2} | {each} |",
        median(one),
        median(many)
    );
}

fn topics_of_one_session(topics: usize) {
    let rounds = (10_000 / topics).clamp(1, 1_000);
    let mut connect = 0.0;
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut engine = Engine::empty(topics, None);
        let began = Instant::now();
        engine.connect(topics, |topic| hello(&format!("?categories=t{topic}")));
        connect += micros(began, topics * rounds);
        let (to_each, to_none) = (frames(topics, topics), frames_to("nobody", topics));
        for (frames, costs, is_wanted) in [(&to_each, &mut wanted, true), (&to_none, &mut unwanted, false)] {
            for _ in 0..REPEATS {
                let (began, before) = (Instant::now(), engine.deliveries());
                engine.publish(frames);
                costs.push(micros(began, topics));
                assert_eq!(engine.deliveries() - before, if is_wanted { topics as u64 } else { 0 });
            }
        }
    }
    println!("| {topics} | {connect:.2} | {:.2} | {:.2} |", median(wanted), median(unwanted));
}

/// An event to each of so many topics of these names.
fn frames_to(name: &str, topics: usize) -> Rc<[u8]> {
    let frame = |topic| memory::frame(&memory::stock(&format!("{name}{topic}")));
    (0..topics).flat_map(frame).collect::<Vec<u8>>().into()
}

/// Microseconds since then, for each of so many.
fn micros(began: Instant, count: usize) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or_default() << 10
}
