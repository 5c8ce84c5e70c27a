//! What is fuzzed: one function for each target, which takes any bytes and panics where something is wrong.
//!
//! Both ways of running them use this module: `cargo fuzz`, whose programs in `fuzz_targets/` are one line each,
//! and `tests/fuzz.rs`, which includes it by its path and needs no nightly compiler. See `docs/testing.md`.

mod command;
mod config;
mod cut;
mod engine;
mod envelope;
mod http;
mod json;
mod names;
mod publish;
mod websocket;

// The simulation's far ends, which are strict readers of what the node writes.
#[path = "../../tests/simulation/frames.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod frames;
#[path = "../../tests/simulation/inflate.rs"]
mod inflate;
#[path = "../../tests/simulation/socket.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod socket;
#[path = "../../tests/simulation/sse.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod sse;

pub use websocket::{agree as agree_on_websocket, end as ends_of_websocket};

/// A target: its name, which its corpus and its program have too, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 10] = [
    ("publish_frame", publish::fuzz),
    ("http_head", http::fuzz),
    ("websocket", websocket::fuzz),
    ("command", command::fuzz),
    ("json", json::fuzz),
    ("envelope", envelope::fuzz),
    ("names", names::fuzz),
    ("config", config::settings),
    ("catalog", config::catalog),
    ("engine", engine::fuzz),
];

/// Runs the target of this name.
pub fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("a target of this name");
    target(input);
}
