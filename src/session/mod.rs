//! ONE CLIENT: its subscriptions, its queue, its timers. Pure: no sockets, no clock.

pub mod address;
pub mod brought;
pub mod chunk;
pub mod handshake;
pub mod named;
pub mod outbox;
pub mod pages;
pub mod policy;
pub mod rate;
pub mod session;
pub mod timer;
