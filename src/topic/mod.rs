//! ORDER: topic names, and the log where a topic's order is decided.

pub mod history;
pub mod log;
pub mod name;
pub mod patterns;
pub mod rules;
