//! A load generator: one thread, any number of subscribers, one publisher. `fanwire bench` and the benches of this
//! repository drive it. What it says, counts and measures is in `crate::load`, without a socket; this is the rest.
//!
//! It has to be cheaper than what it measures: one thread on a poll of its own, one large read for each readable
//! socket, and a stride by which the next probe is found without a search.
//!
//! | file | job |
//! | --- | --- |
//! | `generator` | the poll loop, and what callers steer it with |
//! | `publisher` | the publisher's connection |
//! | `stream` | addresses and sockets |
//! | `process` | the process under test, as `/proc` shows it |
//! | `node`, `server` | a node, or any other server, as a child |
//!
//! Linux only: the pace is kept by a timer in the poll, CPU time comes from `/proc`.

mod generator;
pub mod node;
mod process;
mod publisher;
pub mod server;
mod stream;

pub use crate::load::figures::{Tally, Window, distribution};
pub use crate::load::peer::{Dialect, Peer, Protocol, STREAM, upgrade};
pub use crate::load::probe::{DATA_BYTES, MAX_TOPICS, data};
pub use generator::{Load, Mark, Plan, raise_file_limit};
pub use node::Node;
pub use process::Process;
pub use stream::Address;
