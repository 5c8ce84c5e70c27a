//! A load generator: one thread, any number of subscribers, one publisher. `fanwire bench` and the benches of this
//! repository drive it.
//!
//! What it measures is what a subscriber would see. Publishing is open-loop: every event has a time at which it
//! is *meant* to be sent, kept in the event itself, and latency runs from there to the subscriber's read. A server
//! (or a generator) that falls behind is not forgiven what waited. Every single delivery is checked: it must be
//! of the subscriber's topic, with the next number of that topic.
//!
//! It has to be cheaper than what it measures: one thread on a poll of its own, one large read for each readable
//! socket, and a stride by which the next probe is found without a search.
//!
//! | file | job |
//! | --- | --- |
//! | `generator` | the poll loop, and what callers steer it with |
//! | `pace` | when events are meant to be sent |
//! | `probe` | what events carry, and finding it again |
//! | `subscriber` | one subscriber's connection and order |
//! | `publisher` | the publisher's connection, and the events as bytes |
//! | `peer` | how each kind of server is spoken to |
//! | `stream` | addresses and sockets |
//! | `figures` | what was measured |
//! | `process` | the process under test, as `/proc` shows it |
//! | `node`, `server` | a node, or any other server, as a child |
//!
//! Linux only: the pace is kept by a timer in the poll, CPU time comes from `/proc`.

mod figures;
mod generator;
pub mod node;
mod pace;
pub mod peer;
mod probe;
mod process;
mod publisher;
pub mod server;
mod stream;
mod subscriber;

pub use figures::{Tally, Window, distribution};
pub use generator::{Load, Mark, Plan, raise_file_limit};
pub use node::Node;
pub use peer::{Dialect, Peer, STREAM, upgrade};
pub use probe::{DATA_BYTES, MAX_TOPICS, data};
pub use process::Process;
pub use stream::Address;
