//! Errors of opening and hosting channels.

use super::{Fault, SessionEnd};

/// A channel was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing of that name is hosted at the other end, and nobody there accepted it in time.
    #[error(
        "channel {name:?} is not available: the other end neither hosts it nor accepted it in time; check the name, \
         host it there, or accept its offer"
    )]
    NotAvailable {
        /// The name.
        name: String,
    },
    /// This identity may not use the channel.
    #[error("channel {name:?}: denied; ask whoever runs the other end for access")]
    Denied {
        /// The name.
        name: String,
    },
    /// The two ends disagree on the type of the values.
    #[error(
        "channel {name:?} carries {theirs} there and {ours} here; use the same type, or set the same label"
    )]
    TypeMismatch {
        /// The name.
        name: String,
        /// The label of the type here.
        ours: String,
        /// The label of the type there.
        theirs: String,
    },
    /// The two ends disagree on the codec.
    #[error("channel {name:?} is encoded by {theirs} there and by {ours} here; choose the same codec")]
    CodecMismatch {
        /// The name.
        name: String,
        /// The codec here.
        ours: String,
        /// The codec there.
        theirs: String,
    },
    /// The hosted channel does not carry values in this direction.
    #[error("channel {name:?}: {reason}")]
    WrongDirection {
        /// The name.
        name: String,
        /// What it does carry.
        reason: String,
    },
    /// The other end has a limit that stands in the way.
    #[error("channel {name:?}: a limit of the other end: {reason}")]
    LimitReached {
        /// The name.
        name: String,
        /// Which limit.
        reason: String,
    },
    /// The program at the other end declined.
    #[error("channel {name:?}: declined: {reason}")]
    Declined {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The name cannot be a channel's.
    #[error("{name:?} cannot be a channel's name: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// This end has a limit that stands in the way.
    #[error("channel {name:?}: {reason}; close channels that are not used")]
    TooMany {
        /// The name.
        name: String,
        /// Which limit.
        reason: String,
    },
    /// The offer was withdrawn, or has been answered.
    #[error("channel {name:?} is no longer on offer")]
    Expired {
        /// The name.
        name: String,
    },
    /// The session is over.
    #[error("channel {name:?}: the session is over: {end}")]
    Lost {
        /// The name.
        name: String,
        /// Why the session ended.
        end: SessionEnd,
    },
}

impl OpenError {
    /// Who is at fault; `None` when nobody is.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Lost { end, .. } => end.fault(),
            Self::LimitReached { .. } | Self::Declined { .. } | Self::Expired { .. } => Some(Fault::Peer),
            _ => Some(Fault::Caller),
        }
    }
}

/// A channel cannot be hosted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The name is taken.
    #[error("channel {0:?} is hosted already; close it first, or use another name")]
    NameTaken(String),
    /// The name cannot be a channel's.
    #[error("{name:?} cannot be a channel's name: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The capacity is over the limit.
    #[error("a channel has a capacity of at most {0} items")]
    Capacity(u64),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// No values die on a channel of this name.
    #[error(
        "no channel {0:?} whose values can die is hosted; host it first, and not with ChannelOptions::unlimited_attempts"
    )]
    NoDeadLetters(String),
    /// The channel's values are of another type, or have another codec.
    #[error("channel {name:?} carries {theirs} and not {ours}")]
    TypeMismatch {
        /// The channel's name.
        name: String,
        /// What was asked for.
        ours: String,
        /// What it carries.
        theirs: String,
    },
}
