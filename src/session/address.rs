//! Who is at the other end, in as little room as it takes: a node keeps one for each of its clients.

// An address, no socket: those are at home in `net`.
use core::net::SocketAddrV4;
use std::fmt;

/// The address of a far end, as it is logged and shown. An IPv4 address with its port takes no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// What nearly all are.
    V4(SocketAddrV4),
    /// Anything else, as text.
    Other(Box<str>),
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Other(text.into()), Self::V4)
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::Other(Box::default())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::Other(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_back_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:80", "unix", ""] {
            assert_eq!(Address::from(text).to_string(), text);
        }
        assert!(matches!(Address::from("10.1.2.3:4"), Address::V4(_)));
        assert_eq!(size_of::<Address>(), 16);
    }
}
