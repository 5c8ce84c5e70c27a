//! INGRESS: how events come in. `wire` is the layout, `socket` the node's side, `http` what comes by POST;
//! `dedupe` knows what came
//! before; `ingress` makes rounds of all of it. The publisher's side is `client`, outside.

pub mod dedupe;
pub mod http;
pub mod ingress;
pub mod socket;
pub mod wire;
