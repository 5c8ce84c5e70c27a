//! ONE CLIENT: its subscriptions, its queue, its timers. Pure: no sockets, no clock.

pub mod chunk;
pub mod outbox;
pub mod policy;
