//! What happens when a client's queue is full: a choice of each subscription.

/// A subscription's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The client is closed with 4008.
    #[default]
    Disconnect,
    /// The oldest queued event of a subscription that allows it is left out, and the client is told.
    DropOldest,
    /// The arriving event is left out, and the client is told.
    DropNewest,
    /// The older queued event of the same key is left out, and the client is told; without one, the oldest.
    Conflate,
    /// Delivery stops and goes on from the topic's history.
    Replay,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 5] =
        [Self::Disconnect, Self::DropOldest, Self::DropNewest, Self::Conflate, Self::Replay];

    /// Whether a queued event may be left out for a newer one.
    pub const fn drops_queued(self) -> bool {
        matches!(self, Self::DropOldest | Self::Conflate)
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
            Self::Conflate => "conflate",
            Self::Replay => "replay",
        }
    }

    /// The policy with this name.
    ///
    /// # Errors
    /// A message that lists those there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("policy {name:?} is not served; there are {known}")
        })
    }
}
