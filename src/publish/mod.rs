//! INGRESS: how events come in. `wire` is the layout, `socket` the node's side, `client` the publisher's.

pub mod client;
pub mod ingress;
pub mod socket;
pub mod wire;

pub use client::Publisher;
