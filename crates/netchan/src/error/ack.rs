//! Errors of acknowledging.

use std::fmt;

use super::{Fault, RecvError, SendError, SessionEnd};

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
    /// As many acknowledgements wait as the server lets this client have under way, which is twice as many as the deliveries
    /// that it lets it hold. The server does not keep to its own limit; it gives the delivery to another when the session
    /// ends.
    #[error("not done: {waiting} acknowledgements wait for the server already; close the session")]
    TooMany {
        /// How many wait.
        waiting: usize,
    },
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
            Self::TooMany { .. } => Some(Fault::Peer),
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

/// An acknowledgement that failed after its future was dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedAck {
    /// The delivery's [`id`](crate::Delivery::id).
    pub delivery: u64,
    /// Why.
    pub reason: AckError,
}

/// Acknowledgements failed whose futures had been dropped. The result that came with one is lost.
#[derive(Debug)]
#[non_exhaustive]
pub struct FlushAcksError {
    /// The failures, in the order in which they became known; the first 1,024. There is at least one.
    pub failed: Vec<FailedAck>,
    /// How many more there were.
    pub more: u64,
}

impl fmt::Display for FlushAcksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledgements failed", self.failed.len() as u64 + self.more)?;
        match self.failed.first() {
            Some(FailedAck { delivery, reason }) => {
                write!(f, "; first that of delivery {delivery}: {reason}")
            }
            None => Ok(()),
        }
    }
}

impl std::error::Error for FlushAcksError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failed.first().map(|failed| &failed.reason as _)
    }
}

/// A worker's loop cannot go on. What was at work is given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// There are no more deliveries.
    #[error("no more deliveries: {0}")]
    Recv(#[source] RecvError),
    /// An acknowledgement was refused, and the next would be too.
    #[error("an acknowledgement was refused: {0}")]
    Ack(#[source] AckError),
}
