//! What handles say of their channels.

/// What has happened on a channel so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderStats {
    /// Values committed.
    pub sent: u64,
    /// Values known to have reached the peer.
    pub received: u64,
    /// Values known to have been taken by the peer's `recv`.
    pub taken: u64,
    /// Encoded bytes kept until the peer takes them.
    pub retained_bytes: u64,
    /// Local sends that wait.
    pub waiting: u64,
}

/// What has happened on a channel so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverStats {
    /// Values that have arrived.
    pub received: u64,
    /// Values taken by `recv`.
    pub taken: u64,
    /// Local receives that wait.
    pub waiting: u64,
}
