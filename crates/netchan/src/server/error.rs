//! Why a server could not be started, or cannot go by other access secrets.

use std::io;

use netchan_proto::crypto::HandshakeError;

use crate::address::AddressError;
use crate::error::Fault;
use crate::identity::Fingerprint;
use crate::policy::PolicyError;
use crate::ticket::{AdvertiseError, TicketError};

/// A server cannot go by other access secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The identity is another server's.
    #[error(
        "these access secrets are of the key {theirs}, and this server's is {ours}; give the identity that the server was \
         started with, with other access secrets"
    )]
    OtherKey {
        /// The server's key.
        ours: Fingerprint,
        /// The identity's.
        theirs: Fingerprint,
    },
    /// No ticket can be made with them.
    #[error(transparent)]
    Ticket(#[from] TicketError),
}

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address cannot be listened on; the error says what to try.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// No ticket can be made of the addresses.
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
    /// No ticket can be made.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The policy's file cannot be read.
    #[error("the policy cannot be used: {0}")]
    Policy(#[from] PolicyError),
    /// The identity cannot be used.
    #[error("the server's identity cannot be used: {0}")]
    Identity(HandshakeError),
}

impl ListenError {
    /// Who is at fault.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Caller
    }
}
