//! Nobody healthy is harmed by what others do: the attacks of `make isolation`, small. Healthy subscribers of all
//! dialects lose nothing, get nothing twice or out of order, and are not closed; the node lives, deals with every
//! attacker as is documented, and afterwards holds exactly what it held before. How fast all that is the bench
//! tells, not a test.

mod common;

#[path = "../benches/attack/mod.rs"]
mod attack;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attack::{Attack, Control, Done, Scale, Target};
use fanwire::cli::load::node::Setup;
use fanwire::cli::load::{Dialect, Load, Node};

use common::{PATIENCE, seed};

const SUBSCRIBERS: usize = 100;
const TOPICS: usize = 4;
const RATE: f64 = 200.0;

/// Attacks a node, on which healthy subscribers look all the time, and answers what the attackers did.
fn attack(attack: Attack) -> Done {
    let seed = seed();
    let scale = Scale::small();
    let max_subscriptions = scale.topics.to_string();
    let flags = ["--shards", "2", "--max-clients", "10000", "--max-subscriptions", &max_subscriptions];
    let flags = flags.map(str::to_owned).to_vec();
    let setup = Setup {
        flags,
        settings: attack::settings(),
        keeps_log: true,
        ..Setup::from_environment(env!("CARGO_BIN_EXE_fanwire"))
    };
    let mut node = Node::start(&setup).unwrap();
    let target =
        Target { http: node.http, publish: node.publish_tcp().unwrap(), topic: "topic-0000".to_owned() };
    attack.prepare(&target, &scale).unwrap();
    let ways = [Dialect::Json, Dialect::Sse, Dialect::Path];
    let mut load = Load::connect_by(&node, SUBSCRIBERS, TOPICS, &ways).unwrap();
    load.publish(RATE);
    load.observe(&node, Duration::from_millis(200), || true).unwrap();
    let calm = load.pause().unwrap();
    assert!(calm.is_clean() && calm.expected > 0, "{calm:?}");
    let before = node.settled().unwrap();
    assert_eq!(before.gauge("fanwire_subscriptions"), SUBSCRIBERS as u64, "{before:?}");

    load.publish(RATE);
    let (control, is_over) = (Control::default(), AtomicBool::new(false));
    let deadline = Instant::now() + 2 * PATIENCE;
    let (done, window) = thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let done = attack.run(&target, &scale, seed, &control);
            is_over.store(true, Ordering::Release);
            done
        });
        let is_over = || is_over.load(Ordering::Acquire) || Instant::now() > deadline;
        let at_work = load.observe(&node, Duration::from_millis(500), || control.passes() > 0 || is_over());
        control.stop();
        let done = attacker.join().unwrap().unwrap();
        // What it left is cleared away while events still come.
        load.observe(&node, Duration::from_millis(200), || true).unwrap();
        (done, at_work.unwrap())
    });
    let tally = load.pause().unwrap();
    assert!(node.is_alive(), "{}", node.log());
    assert!(tally.is_clean() && tally.expected > 0, "{tally:?}\n{}", node.log());
    assert!(window.deliveries > 0);
    assert!(control.passes() > 0, "the attack did not come to its end: {done:?}");
    assert_eq!(done.complained, 0, "{done:#?}");
    let back = node.wait_standing(&before, 2 * PATIENCE).unwrap();
    assert!(back.is_ok(), "the node holds something besides: {back:?}\n{}", node.log());
    println!("{}: {}", attack.name(), done.describe());
    done
}

#[test]
fn stopped_readers_harm_nobody() {
    let done = attack(Attack::Stopped);
    assert!(done.of("connections") > done.of("stopped readers"), "some were closed and came back: {done:?}");
}

#[test]
fn three_hundred_clients_that_come_back_at_once_harm_nobody_and_miss_nothing_they_are_not_told_of() {
    let done = attack(Attack::Herd);
    assert!(done.of("clients came back") >= 300 && done.of("told to be missing") > 0, "{done:?}");
}

#[test]
fn a_storm_of_connections_harms_nobody() {
    let done = attack(Attack::Storm);
    assert!(done.of("connections") >= 600, "{done:?}");
}

#[test]
fn malformed_input_harms_nobody_and_is_answered_as_documented() {
    let done = attack(Attack::Malformed);
    assert!(done.of("answered as documented") > 0, "{done:?}");
}

#[test]
fn subscribers_of_thousands_of_topics_that_come_and_go_harm_nobody() {
    let done = attack(Attack::Topics);
    assert!(done.of("subscriptions") >= 2_000 && done.of("left again") > 0, "{done:?}");
}

#[test]
fn connections_that_end_at_any_point_harm_nobody() {
    let done = attack(Attack::Churn);
    assert!(done.of("connections") > 0, "{done:?}");
}
