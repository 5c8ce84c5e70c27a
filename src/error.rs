//! Why things end: the close reason of every session and the error codes of the publish socket.
//!
//! Every session ends with exactly one [`CloseReason`]. It reaches the metric, the log line and, where the
//! dialect has a place for it, the wire.

use std::fmt;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The client sent a close frame.
    ClientClosed,
    /// The client's socket ended without a close frame, or broke.
    ConnectionLost,
    /// The client broke RFC 6455.
    ProtocolError,
    /// The client sent a binary frame on a dialect of text.
    BinaryFrame,
    /// The client sent text that is not UTF-8.
    BadUtf8,
    /// The client sent a compressed message that comes to none.
    BadCompression,
    /// The client sent a message above `max_message_bytes`.
    MessageTooBig,
    /// The client began a frame or message and did not finish it within `message_timeout`.
    MessageTimeout,
    /// The client sent more than `max_messages_per_second`.
    MessageRate,
    /// The node holds `max_clients` sessions already.
    AtCapacity,
    /// Nothing came from the client for `heartbeat_timeout`.
    HeartbeatTimeout,
    /// The client's queue (`queue_events`, `queue_bytes`) was full.
    SlowConsumer,
    /// All outboxes together were over `max_outbox_bytes`, and this session was furthest behind.
    OutboxMemory,
    /// The node is shutting down.
    ShuttingDown,
}

impl CloseReason {
    /// Every reason, in the order of their numbers: what metrics iterate over.
    pub const ALL: [Self; 14] = [
        Self::ClientClosed,
        Self::ConnectionLost,
        Self::ProtocolError,
        Self::BinaryFrame,
        Self::BadUtf8,
        Self::BadCompression,
        Self::MessageTooBig,
        Self::MessageTimeout,
        Self::MessageRate,
        Self::AtCapacity,
        Self::HeartbeatTimeout,
        Self::SlowConsumer,
        Self::OutboxMemory,
        Self::ShuttingDown,
    ];

    /// The name used in metrics, logs and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ConnectionLost => "connection_lost",
            Self::ProtocolError => "protocol_error",
            Self::BinaryFrame => "binary_frame",
            Self::BadUtf8 => "bad_utf8",
            Self::BadCompression => "bad_compression",
            Self::MessageTooBig => "message_too_big",
            Self::MessageTimeout => "message_timeout",
            Self::MessageRate => "message_rate",
            Self::AtCapacity => "at_capacity",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::OutboxMemory => "outbox_memory",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The WebSocket close code (RFC 6455 section 7.4, and 4000 to 4999 of our own), or `None` where the
    /// client is gone or has named the code itself.
    pub const fn code(self) -> Option<u16> {
        match self {
            Self::ClientClosed | Self::ConnectionLost => None,
            Self::ShuttingDown => Some(1001),
            Self::ProtocolError => Some(1002),
            Self::BinaryFrame => Some(1003),
            Self::BadUtf8 | Self::BadCompression => Some(1007),
            Self::MessageTimeout | Self::MessageRate => Some(1008),
            Self::MessageTooBig => Some(1009),
            Self::AtCapacity => Some(1013),
            Self::HeartbeatTimeout => Some(4000),
            Self::SlowConsumer | Self::OutboxMemory => Some(4008),
        }
    }
}

impl CloseReason {
    /// Whether the client ended it by something it sent: what it sent before that may still be answered.
    pub const fn is_by_message(self) -> bool {
        matches!(
            self,
            Self::ClientClosed
                | Self::ProtocolError
                | Self::BinaryFrame
                | Self::BadUtf8
                | Self::BadCompression
                | Self::MessageTooBig
                | Self::MessageRate
        )
    }

    /// Whether the client did nothing that it would have to change: it is told when to come back.
    pub const fn is_to_come_back(self) -> bool {
        matches!(
            self,
            Self::ShuttingDown
                | Self::AtCapacity
                | Self::HeartbeatTimeout
                | Self::SlowConsumer
                | Self::OutboxMemory
        )
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error codes of the publish socket (`docs/publish-socket.md`), shared by `POST /api/publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The frame breaks the layout: framing can't be trusted any more.
    Malformed = 1,
    /// A version or kind that this node does not speak.
    Unsupported = 2,
    /// No token, or the wrong one.
    Unauthorised = 3,
    /// A topic, event name or key breaks the rules for names.
    BadName = 4,
    /// `data` is not one RFC 8259 text in UTF-8.
    BadData = 5,
    /// Above a size limit.
    TooLarge = 6,
    /// `data` breaks the event's schema, a guard refuses it, or `catalog_strict` knows no such event.
    SchemaViolation = 7,
    /// The node is shutting down.
    ShuttingDown = 9,
}

impl ErrorCode {
    /// Every code, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Unsupported,
        Self::Unauthorised,
        Self::BadName,
        Self::BadData,
        Self::TooLarge,
        Self::SchemaViolation,
        Self::ShuttingDown,
    ];

    /// The name used in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Unauthorised => "unauthorised",
            Self::BadName => "bad_name",
            Self::BadData => "bad_data",
            Self::TooLarge => "too_large",
            Self::SchemaViolation => "schema_violation",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Whether the connection closes after this error.
    pub const fn closes(self) -> bool {
        !matches!(self, Self::BadName | Self::BadData | Self::SchemaViolation)
    }
}

/// One refused frame or HTTP entry: a code for the program, a message for the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of error.
    pub code: ErrorCode,
    /// What is wrong and where.
    pub message: String,
}

impl Refusal {
    /// A refusal with its message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {}, {})", self.message, self.code as u16, self.code.name())
    }
}

impl std::error::Error for Refusal {}
