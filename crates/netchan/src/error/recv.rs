//! Errors of receiving.

use super::{Fault, SessionEnd};
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
}

impl RecvError {
    /// Who is at fault; `None` when the session was closed in the ordinary way.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Lost(end) => end.fault(),
            Self::Decode { .. } => Some(Fault::Peer),
        }
    }

    /// Whether nothing will ever be received again.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Lost(_))
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
