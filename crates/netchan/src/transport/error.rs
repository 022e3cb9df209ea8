//! What can go wrong while links are made.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::address::Address;

/// Why connecting or listening failed, and what to try.
///
/// The built-in transports return it inside an [`io::Error`] of the matching kind; find it with
/// `error.get_ref().and_then(|inner| inner.downcast_ref::<TransportError>())`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No transport serves this scheme.
    #[error("no transport serves {scheme}://; known are {}; add your own with Transports::with", known.join(", "))]
    UnknownScheme {
        /// The scheme of the address.
        scheme: String,
        /// The schemes that are served.
        known: Vec<String>,
    },
    /// The address belongs to another transport.
    #[error(
        "{address} is not an address of the {transport} transport; ask Transports, which chooses by scheme"
    )]
    WrongScheme {
        /// The address that was given.
        address: Address,
        /// The scheme of the transport that was asked.
        transport: &'static str,
    },
    /// A host name has no address.
    #[error(
        "{host:?} cannot be resolved ({source}); check the spelling and this machine's DNS, or use an IP address"
    )]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Every address of the host was tried, and none answered.
    #[error(
        "cannot connect to {address}: {}; check that the server runs, its port, and firewalls",
        Attempts(attempts)
    )]
    Unreachable {
        /// The address that was given.
        address: Address,
        /// Each socket address that was tried, in order.
        attempts: Vec<ConnectAttempt>,
    },
    /// Another program listens on the port.
    #[error("port {} is taken at {address}; stop what listens there, choose another port, or use port 0 and let the \
             system choose", address.port())]
    PortInUse {
        /// The socket address.
        address: SocketAddr,
    },
    /// The port may not be listened on.
    #[error("not allowed to listen on port {} at {address}; ports below 1024 usually need privileges, so choose a \
             higher one", address.port())]
    PortForbidden {
        /// The socket address.
        address: SocketAddr,
    },
    /// The IP address is not one of this machine's.
    #[error("{address} is not an address of this machine; listen on 0.0.0.0:{port} or [::]:{port} to use every \
             interface", port = address.port())]
    NotOurAddress {
        /// The socket address.
        address: SocketAddr,
    },
    /// Listening failed for another reason.
    #[error("cannot listen on {address}: {source}; try another address, for example 127.0.0.1:0")]
    Listen {
        /// The address that was given.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// A live server answers at the Unix socket.
    #[error("a server is already listening on {}; stop it, or choose another path", path.display())]
    SocketInUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The path holds something that is not a socket; it is never deleted.
    #[error("{} exists and is not a socket; it was left alone: move it away, or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The Unix socket cannot be connected to.
    #[error("cannot connect to {}: {source}; check that the server runs, the path, and the socket's permissions \
             (it is for its owner only)", path.display())]
    SocketUnreachable {
        /// The path of the socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A listener in this process has the name.
    #[error("memory://{name} is taken in this process; drop that listener first, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// No listener in this process has the name.
    #[error(
        "nobody listens on memory://{name} in this process; listen before connecting, and check the spelling"
    )]
    NameUnknown {
        /// The name.
        name: String,
    },
}

/// One socket address that was tried in vain.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// The socket address.
    pub address: SocketAddr,
    /// Why it failed.
    pub error: io::Error,
}

impl TransportError {
    /// The [`io::ErrorKind`] this error travels under.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        use io::ErrorKind::{
            AddrInUse, AddrNotAvailable, AlreadyExists, ConnectionRefused, InvalidInput, NotFound,
            PermissionDenied, Unsupported,
        };
        match self {
            Self::UnknownScheme { .. } => Unsupported,
            Self::WrongScheme { .. } => InvalidInput,
            Self::Resolve { .. } => NotFound,
            Self::Unreachable { attempts, .. } => {
                attempts.last().map_or(ConnectionRefused, |attempt| attempt.error.kind())
            }
            Self::PortInUse { .. } | Self::SocketInUse { .. } | Self::NameTaken { .. } => AddrInUse,
            Self::PortForbidden { .. } => PermissionDenied,
            Self::NotOurAddress { .. } => AddrNotAvailable,
            Self::NotASocket { .. } => AlreadyExists,
            Self::Listen { source, .. } | Self::SocketUnreachable { source, .. } => source.kind(),
            Self::NameUnknown { .. } => ConnectionRefused,
        }
    }
}

impl From<TransportError> for io::Error {
    fn from(error: TransportError) -> Self {
        Self::new(error.kind(), error)
    }
}

struct Attempts<'a>(&'a [ConnectAttempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConnectAttempt { address, error }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address} ({error})")?;
        }
        Ok(())
    }
}
