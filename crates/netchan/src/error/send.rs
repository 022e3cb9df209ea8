//! Errors of sending.

use std::fmt;

use super::{CloseReason, Fault, SessionEnd};
use crate::codec::EncodeError;

/// A value was not sent. It comes back with [`SendError::into_inner`].
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The channel is closed.
    Closed {
        /// What was to be sent.
        value: T,
        /// Why it is closed.
        reason: CloseReason,
    },
    /// The session is over; the value did not leave.
    Lost {
        /// What was to be sent.
        value: T,
        /// Why the session ended.
        end: SessionEnd,
    },
    /// The session ended while the value was on offer (capacity 0): it may have been taken.
    InDoubt {
        /// What was to be sent.
        value: T,
        /// Why the session ended.
        end: SessionEnd,
    },
    /// The encoded value is longer than a message may be.
    TooLarge {
        /// What was to be sent.
        value: T,
        /// The limit.
        bytes_max: usize,
    },
    /// The value cannot be encoded.
    Encode {
        /// What was to be sent.
        value: T,
        /// What the codec said.
        error: EncodeError,
    },
    /// The value's own `Serialize` sends on the channel that it is being sent on.
    Reentrant {
        /// What was to be sent.
        value: T,
    },
}

impl<T> SendError<T> {
    /// The value that was not sent.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed { value, .. }
            | Self::Lost { value, .. }
            | Self::InDoubt { value, .. }
            | Self::TooLarge { value, .. }
            | Self::Encode { value, .. }
            | Self::Reentrant { value } => value,
        }
    }

    /// Who is at fault; `None` when the channel or session was closed in the ordinary way.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Closed { .. } => None,
            Self::Lost { end, .. } | Self::InDoubt { end, .. } => end.fault(),
            Self::TooLarge { .. } | Self::Encode { .. } | Self::Reentrant { .. } => Some(Fault::Caller),
        }
    }

    /// Whether the channel, or the session with it, has ended, so that no later send can succeed.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Lost { .. } | Self::InDoubt { .. })
    }

    /// The same error about another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            Self::Closed { value, reason } => SendError::Closed { value: f(value), reason },
            Self::Lost { value, end } => SendError::Lost { value: f(value), end },
            Self::InDoubt { value, end } => SendError::InDoubt { value: f(value), end },
            Self::TooLarge { value, bytes_max } => SendError::TooLarge { value: f(value), bytes_max },
            Self::Encode { value, error } => SendError::Encode { value: f(value), error },
            Self::Reentrant { value } => SendError::Reentrant { value: f(value) },
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { reason, .. } => write!(f, "not sent: the channel is {reason}"),
            Self::Lost { end, .. } => write!(f, "not sent: the session is over: {end}"),
            Self::InDoubt { end, .. } => {
                write!(f, "in doubt: the session ended while the value was on offer: {end}")
            }
            Self::TooLarge { bytes_max, .. } => write!(
                f,
                "not sent: the encoded message is longer than {bytes_max} bytes; send it in parts, or raise \
                 Limits::message_bytes_max at both ends"
            ),
            Self::Encode { error, .. } => write!(f, "not sent: {error}"),
            Self::Reentrant { .. } => {
                f.write_str("not sent: Serialize may not send on the channel that its value is being sent on")
            }
        }
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A value was not sent at once.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// There is no credit now, or the channel has capacity 0, where every send takes a round trip.
    Full(T),
    /// It can never be sent.
    Send(SendError<T>),
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) => value,
            Self::Send(error) => error.into_inner(),
        }
    }

    /// Whether waiting may help.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the channel is full; use send to wait"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for TrySendError<T> {}

/// A value was not sent in time.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendTimeoutError<T> {
    /// The time is over, and the value certainly did not, and will not, reach the peer.
    Timeout(T),
    /// The time is over while the value was on offer (capacity 0), and whether it was taken is not known yet.
    InDoubt(InDoubt<T>),
    /// It can never be sent.
    Send(SendError<T>),
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(_) => f.write_str("not sent in time; nobody received it"),
            Self::InDoubt(_) => f.write_str("not known to be received in time; await the outcome"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for SendTimeoutError<T> {}

/// An offer whose time is over while its outcome is not known. [`InDoubt::outcome`] awaits it.
pub struct InDoubt<T> {
    pub(crate) value: T,
    pub(crate) outcome: std::pin::Pin<Box<dyn Future<Output = Option<bool>> + Send>>,
}

impl<T> InDoubt<T> {
    /// Waits for the outcome: `Ok(())` when the value was taken, the value itself when it certainly was not.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] with the value when nobody took it; [`SendTimeoutError::Send`] with
    /// [`SendError::InDoubt`] when the session ended before anyone knew.
    ///
    /// # Cancel safety
    /// Dropped, the outcome is lost to this caller; the value goes where it goes.
    pub async fn outcome(self) -> Result<(), SendTimeoutError<T>> {
        match self.outcome.await {
            Some(true) => Ok(()),
            Some(false) => Err(SendTimeoutError::Timeout(self.value)),
            None => Err(SendTimeoutError::Send(SendError::InDoubt {
                value: self.value,
                end: SessionEnd::Disconnected("the session ended first".to_owned()),
            })),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for InDoubt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InDoubt").field("value", &self.value).finish_non_exhaustive()
    }
}

/// No place to send into could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// There is no credit now.
    #[error("the channel is full; use reserve to wait")]
    Full,
    /// The channel is closed.
    #[error("the channel is {0}")]
    Closed(CloseReason),
    /// The session is over.
    #[error("the session is over: {0}")]
    Lost(SessionEnd),
    /// More places than the channel has.
    #[error("{places} places of a channel that has {capacity}; reserve fewer")]
    TooMany {
        /// What was asked for.
        places: usize,
        /// The channel's capacity.
        capacity: usize,
    },
    /// The value's own `Serialize` asks for a place in the channel that it is being sent on.
    #[error("Serialize may not reserve on the channel that its value is being sent on")]
    Reentrant,
    /// The channel has no places.
    #[error("a channel of capacity 0 has no places to reserve; use send, which waits for the receiver")]
    Rendezvous,
}

/// Not everything that was sent has reached the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The peer closed the channel.
    #[error("not everything arrived: the channel is {0}")]
    Closed(CloseReason),
    /// The session is over.
    #[error("not everything is known to have arrived: the session is over: {0}")]
    Lost(SessionEnd),
}

/// A `Sink` could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// No place to send into could be had.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The value was not sent.
    #[error(transparent)]
    Send(#[from] SendError<()>),
    /// `start_send` was called before `poll_ready` said that it may be.
    #[error("start_send before poll_ready returned ready")]
    NotReady,
}
