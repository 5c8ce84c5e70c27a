//! Fanwire: one event in, many subscribers out.
pub mod config;
pub mod error;
pub mod clock;
pub mod dialect;
pub mod event;
pub mod link;
pub mod proto;
pub mod session;
pub mod topic;
pub mod transport;
pub mod publish { pub mod wire; }
