//! Errors of acknowledging.

use std::fmt;

use super::{Fault, SendError, SessionEnd};

/// A delivery was not acknowledged, or put off, or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The delivery belongs to this holder no longer: its connection was gone for longer than the channel's grace, and the
    /// value has gone to another. What was done for it is done twice, or is to be thrown away.
    #[error(
        "not done: the delivery was given to another, because this client could not be reached for too long"
    )]
    Fenced,
    /// The session ended before the server answered: it may have been done.
    #[error("in doubt: the session ended before the server answered: {0}")]
    InDoubt(SessionEnd),
    /// The session is over; nothing was done, and the server gives the value to another.
    #[error("not done: the session is over: {0}")]
    Lost(SessionEnd),
    /// The channel for the result is closed at the server; nothing was done.
    #[error(
        "not done: the channel for the result is closed; acknowledge without a result, or give the delivery back"
    )]
    ResultsClosed,
    /// The channel for the result is none that takes results: it must be hosted at the same server with a capacity of at
    /// least 1, and opened over the same session.
    #[error(
        "not done: the result must go into a channel of capacity 1 or more that the same server hosts, opened over the same \
         session"
    )]
    NoResults,
    /// The result cannot be sent.
    #[error("not done: the result was {0}")]
    Result(SendError<()>),
}

impl AckError {
    /// Who is at fault; `None` when the channel or session was closed in the ordinary way.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Fenced => Some(Fault::Network),
            Self::InDoubt(end) | Self::Lost(end) => end.fault(),
            Self::ResultsClosed => None,
            Self::NoResults => Some(Fault::Caller),
            Self::Result(error) => error.fault(),
        }
    }
}

/// A result was not committed. It comes back.
#[derive(Debug)]
#[non_exhaustive]
pub struct AckWithError<R> {
    /// The result.
    pub value: R,
    /// Why.
    pub reason: AckError,
}

impl<R> fmt::Display for AckWithError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<R: fmt::Debug> std::error::Error for AckWithError<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}
