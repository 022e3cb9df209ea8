//! Why no session could be set up.

use std::io;
use std::time::Duration;

use netchan_proto::crypto::{HandshakeError, RefusalCode};

use crate::address::Address;
use crate::error::Fault;
use crate::identity::Fingerprint;
use crate::known_hosts::KnownHostsError;
use crate::ticket::TicketError;

/// No session could be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The ticket is not one.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// No address of the ticket could be reached.
    #[error("cannot reach the server: {}", Attempts(.attempts))]
    Unreachable {
        /// What was tried, in order, and what came of it.
        attempts: Vec<(Address, io::Error)>,
    },
    /// The server closed the connection without a word, as it does to strangers.
    #[error(
        "{address} closed without answering. Possible causes: the ticket is wrong or out of date (its access secret was \
         rotated, or the server has a new identity); the clocks of the two machines are more than two minutes apart; the \
         server is overloaded or shutting down; or another program listens there. The server's audit tells them apart; \
         `netchan doctor` helps"
    )]
    ClosedWithoutAnswering {
        /// Who closed.
        address: Address,
    },
    /// The server answered that it does not let this client in.
    #[error("{address} refused: {reason}{}", Advice(*code, key))]
    Refused {
        /// Who refused.
        address: Address,
        /// This end's key, by which the server knows it.
        key: Fingerprint,
        /// For programs.
        code: RefusalCode,
        /// For people.
        reason: String,
    },
    /// The handshake took too long.
    #[error(
        "{address} did not finish the handshake within {deadline:?}; check that it is a netchan server and not overloaded"
    )]
    Timeout {
        /// Who was too slow.
        address: Address,
        /// The deadline.
        deadline: Duration,
    },
    /// The handshake failed.
    #[error("the handshake with {address} failed: {error}")]
    Handshake {
        /// With whom.
        address: Address,
        /// Why.
        error: HandshakeError,
    },
    /// The connection broke during the handshake.
    #[error("the connection to {address} broke during the handshake: {error}")]
    Link {
        /// To whom.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The host is not known, its key has changed, or the file of known hosts cannot be used. The error says what to try.
    #[error(transparent)]
    KnownHosts(#[from] KnownHostsError),
    /// At first use of a server: it did not show that it knows the access secret. Nothing was remembered.
    #[error(
        "whoever answers at {address} did not show that it knows the access secret, so its key was not remembered \
         ({reason}). Either the secret is wrong or out of date, or this is not your server but somebody who poses as it; \
         compare the secret, or ask the server's operator for its fingerprint"
    )]
    Unconfirmed {
        /// Where.
        address: Address,
        /// What happened instead.
        reason: String,
    },
    /// At first use of a server: it is what it should be, but its key could not be remembered. The session was closed.
    #[error(
        "{address} has the key {fingerprint} and knows the access secret, but that could not be remembered, so the session \
         was closed: {error}"
    )]
    NotRemembered {
        /// The server's address.
        address: Address,
        /// Its key.
        fingerprint: Fingerprint,
        /// Why the file could not be written.
        error: Box<KnownHostsError>,
    },
}

impl DialError {
    /// Who is at fault, as far as this end can tell.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Ticket(_) | Self::ClosedWithoutAnswering { .. } | Self::NotRemembered { .. } => {
                Fault::Caller
            }
            Self::KnownHosts(error) => error.fault(),
            Self::Refused { .. } | Self::Handshake { .. } | Self::Unconfirmed { .. } => Fault::Peer,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Link { .. } => Fault::Network,
        }
    }
}

/// What to do about a refusal.
struct Advice<'a>(RefusalCode, &'a Fingerprint);

impl std::fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            RefusalCode::Denied => write!(f, "; ask whoever runs the server to let this key in: {}", self.1),
            RefusalCode::AlreadyConnected => {
                f.write_str("; stop the other, or give this program a key of its own")
            }
            RefusalCode::ShuttingDown => f.write_str("; try again later"),
            _ => Ok(()),
        }
    }
}

struct Attempts<'a>(&'a [(Address, io::Error)]);

impl std::fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (address, error)) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            let text = error.to_string();
            if text.contains(&address.to_string()) {
                write!(f, "{separator}{text}")?;
            } else {
                write!(f, "{separator}{address}: {text}")?;
            }
        }
        Ok(())
    }
}
