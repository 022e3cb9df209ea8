//! Errors of receiving.

use super::{CloseReason, Fault, SessionEnd};
use crate::codec::DecodeError;

/// Nothing could be received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The session is lost, and with it the channel. Everything that had arrived has been received.
    #[error("the session is over: {0}")]
    Lost(SessionEnd),
    /// A value arrived that cannot be decoded. It counts as taken; receiving goes on.
    #[error("undecodable value on channel {channel:?}: {error}")]
    Decode {
        /// The channel's name.
        channel: String,
        /// What the codec said.
        error: DecodeError,
    },
    /// This subscriber of a broadcast was slow, and exactly so many values were lost to it here. Receiving goes on with the
    /// oldest that is left.
    #[error("too slow: {0} values of the broadcast were lost here")]
    Lagged(u64),
    /// This subscriber of a broadcast was so slow that it lost values, and may lose none: it was disconnected (terminal).
    #[error("disconnected: {0}")]
    TooSlow(CloseReason),
    /// The server's policy does not let this end receive any more (terminal). What came before has been received.
    #[error(
        "denied: the server's policy does not let this end receive here any more; ask whoever runs the server for access"
    )]
    Denied,
    /// After a lost session this end has subscribed to the broadcast again. What was sent meanwhile is unknown; what is assigned
    /// now comes next, then what is sent from here on.
    #[error("subscribed again after a lost session: some values may be missing")]
    Restarted,
}

impl RecvError {
    /// Who is at fault; `None` when the session was closed in the ordinary way.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Lost(end) => end.fault(),
            Self::Decode { .. } => Some(Fault::Peer),
            Self::Lagged(_) | Self::TooSlow(_) | Self::Denied => Some(Fault::Caller),
            Self::Restarted => Some(Fault::Network),
        }
    }

    /// Whether nothing will ever be received again.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TooSlow(_) | Self::Denied)
    }
}

/// Nothing was received at once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// Nothing is here now.
    #[error("the channel is empty; use recv to wait")]
    Empty,
    /// Nothing could be received.
    #[error(transparent)]
    Recv(#[from] RecvError),
}

/// Nothing was received in time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// The time is over.
    #[error("nothing was received in time")]
    Timeout,
    /// Nothing could be received.
    #[error(transparent)]
    Recv(#[from] RecvError),
}
