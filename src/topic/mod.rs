//! ORDER: topic names, the table of topics, and the log where a topic's order is decided.

pub mod budget;
pub mod expiry;
#[cfg(test)]
mod fixtures;
pub mod history;
mod index;
mod kept;
pub mod log;
pub mod name;
pub mod patterns;
pub mod recall;
pub mod rules;
pub mod table;
pub mod topic;
