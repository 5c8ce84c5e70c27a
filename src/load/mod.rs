//! What a load generator sends, and what it makes of what comes: bytes and times in, bytes and figures out. The
//! sockets, the clock and the processes are in `cli/load`.
//!
//! What it measures is what a subscriber would see. Publishing is open-loop: every event has a time at which it
//! is *meant* to be sent, kept in the event itself, and latency runs from there to the subscriber's read. A server
//! (or a generator) that falls behind is not forgiven what waited. Every single delivery is checked: it must be
//! of the subscriber's topic, with the next number of that topic.
//!
//! | file | job |
//! | --- | --- |
//! | `pace` | when events are meant to be sent |
//! | `probe` | what events carry, and finding it again |
//! | `outgoing` | the events as bytes, and what waits to be sent |
//! | `subscriber` | how far a subscriber is, and which events it got |
//! | `peer` | how each kind of server is spoken to |
//! | `figures` | what was measured |

pub(crate) mod figures;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod peer;
pub(crate) mod probe;
pub(crate) mod subscriber;
