//! Errors. They return what they took, and say who is at fault ([`Fault`]) and what to try.

mod ack;
mod assign;
mod open;
mod recv;
mod send;

pub use ack::{AckError, AckWithError, FailedAck, FlushAcksError, WorkError};
pub use assign::AssignError;
pub use open::{HostError, OpenError};
pub use recv::{RecvError, RecvTimeoutError, TryRecvError};
pub use send::{FlushError, InDoubt, ReserveError, SendError, SendTimeoutError, SinkError, TrySendError};

use std::fmt;

use netchan_proto::session::close_code;

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The program that made the call.
    Caller,
    /// The program at the other end.
    Peer,
    /// What lies between.
    Network,
    /// netchan itself: please report it.
    Netchan,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Peer => "peer",
            Self::Network => "network",
            Self::Netchan => "netchan",
        })
    }
}

/// Why a channel was closed: a number for programs, text for people. A plain close has the number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReason {
    /// For programs; 0 is a plain close, below 256 is netchan's own.
    pub code: u16,
    /// For people; may be empty.
    pub text: String,
}

impl CloseReason {
    /// The code with which a server ends what its policy does not allow, or no longer.
    pub const DENIED: u16 = close_code::DENIED;

    /// Whether it was ended by the server's policy.
    #[must_use]
    pub const fn is_denied(&self) -> bool {
        self.code == Self::DENIED
    }

    /// A reason of the program's own.
    #[must_use]
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Whether the channel was closed in the ordinary way.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.code == 0
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.text.as_str()) {
            (Self::DENIED, _) => f.write_str(
                "the server's policy does not allow it, or no longer; ask whoever runs the server for access",
            ),
            (0, "") => f.write_str("closed"),
            (0, text) => write!(f, "closed: {text}"),
            (code, "") => write!(f, "closed with code {code}"),
            (code, text) => write!(f, "closed with code {code}: {text}"),
        }
    }
}

impl From<&netchan_proto::channel::CloseReason> for CloseReason {
    fn from(reason: &netchan_proto::channel::CloseReason) -> Self {
        Self { code: reason.code, text: reason.reason.clone() }
    }
}

impl From<CloseReason> for netchan_proto::channel::CloseReason {
    fn from(reason: CloseReason) -> Self {
        Self { code: reason.code, reason: reason.text }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// This end closed it.
    #[error("this end closed the session")]
    ClosedHere,
    /// The other end closed it.
    #[error("the other end closed the session: {0}")]
    ClosedByPeer(CloseReason),
    /// The connection broke, and none took its place in the session's lifetime.
    #[error("the connection broke ({0}); dial again")]
    Disconnected(String),
    /// The server does not know the session any more: it started anew, or gave it up.
    #[error("the server has lost the session ({0})")]
    Lost(String),
    /// The server does not let this client in any more.
    #[error("the server refused to go on with the session: {0}")]
    Refused(String),
    /// The other end broke the protocol.
    #[error("{0}; the other end is faulty or runs another version")]
    PeerViolation(String),
    /// The other end says that this end broke the protocol.
    #[error("the other end ended the session for a fault it saw here: {0}; please report it")]
    OwnViolation(String),
}

impl SessionEnd {
    /// Who is at fault; `None` when nobody is.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::ClosedByPeer(reason) if reason.is_denied() => Some(Fault::Caller),
            Self::ClosedHere | Self::ClosedByPeer(_) => None,
            Self::Disconnected(_) | Self::Lost(_) => Some(Fault::Network),
            Self::PeerViolation(_) | Self::Refused(_) => Some(Fault::Peer),
            Self::OwnViolation(_) => Some(Fault::Netchan),
        }
    }

    /// Whether the other end said that it goes.
    pub(crate) const fn is_orderly(&self) -> bool {
        matches!(self, Self::ClosedByPeer(_))
    }

    /// Whether it ended in the ordinary way.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        match self {
            Self::ClosedHere => true,
            Self::ClosedByPeer(reason) => !reason.is_denied(),
            _ => false,
        }
    }
}

/// The session is lost or closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over: {0}")]
pub struct SessionLost(pub SessionEnd);

impl SessionLost {
    /// Who is at fault; `None` when the session was closed in the ordinary way.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.0.fault()
    }
}
