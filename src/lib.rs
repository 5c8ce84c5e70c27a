//! Fanwire: a dedicated fan-out node. One event in, many subscribers out, and no loss is ever silent.
//!
//! The way of an event goes one way; a search for the verb finds the next step:
//!
//! 1. `publish::socket`, or HTTP in `fanout::requests`, **reads** what a publisher wrote.
//! 2. `publish::wire` **decodes** it: a fixed-layout frame becomes an event, its data checked once.
//! 3. `topic::log` **appends** it: the topic's lock gives its position …
//! 4. `link` **sends** it to every shard with a subscriber, one wake for each round.
//! 5. `fanout::shard` **dispatches** it: the frames are written once, then a span for each subscriber.
//! 6. `session::outbox` is **pushed** the span, and answers.
//! 7. `fanout::connection` **flushes**: one write for each connection and turn.

#![warn(unreachable_pub)]
// A panic ends the node, so each needs a proof beside it. Unit tests may (clippy.toml).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod error;
pub mod event;
pub mod fanout;
pub mod link;
#[cfg(target_os = "linux")]
mod load;
pub mod logs;
pub mod metrics;
pub mod net;
pub mod node;
pub mod origin;
pub mod prepare;
pub mod proto;
pub mod publish;
pub mod receipt;
pub mod session;
pub mod slack;
pub mod spare;
pub mod topic;
pub mod transport;
