//! SOCKETS: the only home of mio.

#[cfg(target_os = "linux")]
mod diag;
pub(crate) mod heap;
pub mod listener;
pub mod reactor;
pub mod stream;
