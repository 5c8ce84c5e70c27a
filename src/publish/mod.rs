//! INGRESS: how events come in. `wire` is the layout, `socket` the node's side, `client` the publisher's,
//! `http` what comes by POST; `ingress` makes rounds of all of it.

pub mod client;
pub mod http;
pub mod ingress;
pub mod socket;
pub mod wire;

pub use client::Publisher;
