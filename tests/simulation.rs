//! Seeded simulation: shards over hostile connections in memory, driven by one random number generator and a
//! virtual clock, and held against a model that reads what comes out as a far end would.
//!
//! `FANWIRE_SIM_SEED=n` replays one seed, `FANWIRE_SIM_RUNS=n` runs so many (from that seed on), and
//! `FANWIRE_SIM_STEPS=n` sets the steps of each.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[path = "simulation/audit.rs"]
mod audit;
#[path = "simulation/book.rs"]
mod book;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/frames.rs"]
mod frames;
#[path = "simulation/http.rs"]
mod http;
#[path = "simulation/inflate.rs"]
mod inflate;
#[path = "simulation/publisher.rs"]
mod publisher;
#[path = "simulation/resume.rs"]
mod resume;
#[path = "simulation/scripted.rs"]
mod scripted;
#[path = "simulation/socket.rs"]
mod socket;
#[path = "simulation/sse.rs"]
mod sse;
#[path = "simulation/way.rs"]
mod way;
#[path = "simulation/world.rs"]
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fanwire::error::CloseReason;
use world::World;

/// Seeds of a plain `cargo test`: about ten seconds.
const RUNS: u64 = 80;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn whatever_happens_no_loss_is_silent_and_nothing_is_left() {
    let steps = number("FANWIRE_SIM_STEPS").unwrap_or(400);
    let (first, runs) = (number("FANWIRE_SIM_SEED"), number("FANWIRE_SIM_RUNS"));
    let first_seed = first.unwrap_or(0);
    let seeds = first_seed..first_seed + runs.unwrap_or(if first.is_some() { 1 } else { RUNS });
    let is_sweep = seeds.end - seeds.start >= 200;
    let (mut accepted, mut delivered, mut shared) = (0, 0, 0);
    let (mut receipts, mut measured, mut duplicates, mut deflated) = (0, 0, 0, 0);
    let (mut closed, mut undone) = ([0; CloseReason::ALL.len()], [0; 2]);
    for seed in seeds {
        let at = Cell::new(0);
        let run = || {
            let mut world = World::new(seed);
            for step in 0..steps {
                at.set(step);
                world.step();
            }
            at.set(steps);
            if seed % 3 == 0 {
                world.drain()
            } else {
                world.empty()
            }
            let ends = (world.closed(), world.undone);
            let known =
                (world.book.receipts, world.book.measured, world.names.duplicates, world.book.deflated);
            (world.book.head(), world.book.delivered, world.book.shared_messages, ends, known)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok((events, deliveries, messages, (sessions, shutdowns), known)) => {
                receipts += known.0;
                measured += known.1;
                duplicates += known.2;
                deflated += known.3;
                accepted += events;
                delivered += deliveries;
                shared += messages;
                closed.iter_mut().zip(sessions).for_each(|(all, n)| *all += n);
                undone.iter_mut().zip(shutdowns).for_each(|(all, n)| *all += n);
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                panic!("seed {seed}, step {}: {}", at.get(), text.unwrap_or_default());
            }
        }
    }
    println!("{accepted} events, {delivered} deliveries, {shared} messages of several lines");
    println!("{deflated} of the deliveries compressed");
    println!("{receipts} receipts, {measured} deliveries told exactly, {duplicates} events known already");
    println!("shutdowns taken back: {}, too late for {}", undone[0], undone[1]);
    println!("sessions ended: {:?} {closed:?}", CloseReason::ALL);
    assert!(!is_sweep || (receipts > 0 && measured > 0 && duplicates > 0), "no receipts, or none exact");
    assert!(!is_sweep || shared > 0, "no events ever shared a message");
    assert!(!is_sweep || deflated > 0, "no event ever came compressed");
    assert!(!is_sweep || undone.iter().all(|n| *n > 0), "no shutdown was taken back, or none too late");
    assert!(!is_sweep || closed.iter().all(|n| *n > 0), "no session ended for some reason: {closed:?}");
}
