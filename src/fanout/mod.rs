//! DELIVERY: what one shard does with connections, rounds and clients. Pure, generic over the transport.
//!
//! `shard` is the loop's turn and the way of an event through it, `writing` what its
//! subscribers get of it, `delivery` its push to one of them; `intake` is what comes from
//! connections and `requests` what of it is HTTP; `pause` is when publishers wait; `lifecycle` is how
//! they come, are timed and go, `drain` how all of them go at a shutdown, and `tidy` what
//! becomes of the room that they took.

pub mod admission;
pub mod connection;
mod delivery;
mod drain;
mod flood;
pub mod intake;
pub mod lifecycle;
mod pause;
pub mod receipts;
mod replay;
pub mod requests;
pub mod shard;
pub mod shared;
mod slow;
pub mod stages;
pub mod subscribers;
mod sweep;
mod tidy;
mod writing;
