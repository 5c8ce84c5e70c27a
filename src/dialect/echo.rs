//! The echo of `--diagnostics`: whatever comes goes back as it is. With it, test suites for WebSocket exercise the
//! decoder, the outbox and the write path that every client has.

use crate::proto::websocket::{Accept, Opcode, write_frame};

/// Where it is.
pub const PATH: &str = "/echo";

/// Any message of up to 16 MiB, in any number of fragments: suites send more of them than a client has reason to.
pub const ACCEPT: Accept =
    Accept { max_message_bytes: 16 << 20, binary: true, max_fragments: None, deflated: false };

/// The answer to a message: the same, in one frame.
pub fn frame(opcode: Opcode, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, opcode, message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_with_its_opcode() {
        assert_eq!(frame(Opcode::Text, b"hi"), b"\x81\x02hi");
        assert_eq!(frame(Opcode::Binary, &[0xff]), b"\x82\x01\xff");
    }
}
