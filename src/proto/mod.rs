//! BYTES: protocols' frames and heads. No policy, and nothing of ours.

pub mod deflate;
pub mod extensions;
pub mod http1;
pub mod websocket;
