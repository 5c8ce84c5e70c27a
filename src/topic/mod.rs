//! ORDER: topic names, and the log where a topic's order is decided.

pub mod log;
pub mod name;
