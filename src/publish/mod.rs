//! INGRESS: how events come in. `wire` is the layout, `socket` the node's side, `http` what comes by POST;
//! `ingress` makes rounds of all of it. The publisher's side is `client`, outside.

pub mod http;
pub mod ingress;
pub mod socket;
pub mod wire;
