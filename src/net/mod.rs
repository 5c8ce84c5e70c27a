//! SOCKETS: the only home of mio.

pub mod listener;
pub mod reactor;
pub mod stream;
