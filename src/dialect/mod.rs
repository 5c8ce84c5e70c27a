//! MEANING: what a dialect's messages ask for, and how it writes events. Pure: bytes in, values out.

pub mod envelope;
pub mod json;
