//! MEANING: what a dialect's messages ask for, and how it writes events. Pure: bytes in, values out.

pub mod command;
pub mod deflated;
pub mod dialect;
pub mod echo;
pub mod envelope;
pub mod json;
pub mod opening;
pub mod path;
pub mod sse;
pub mod template;
