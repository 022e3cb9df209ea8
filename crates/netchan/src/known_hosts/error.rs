//! Why a file of known hosts cannot be used, or does not admit a server.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{FILE_BYTES_MAX, KEYS_PER_ADDRESS_MAX};
use crate::address::{Address, AddressError};
use crate::error::Fault;
use crate::identity::Fingerprint;
use crate::ticket::TicketError;

/// What is wrong with a file of known hosts, or with a server that it knows or does not know, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnownHostsError {
    /// The address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No ticket can be made of it.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// No key of this server is known, and to trust it on first use was not asked for.
    #[error(
        "no key of {address} is known in {}; ask the server's operator for its fingerprint and add the line: {address} \
         SHA256:… (or dial it once with FirstUse::TrustAndRemember and its access secret)", path.display()
    )]
    UnknownHost {
        /// The server's address.
        address: Address,
        /// The path of the file.
        path: PathBuf,
    },
    /// To trust a server on first use was asked for without an access secret. Nothing was sent.
    #[error(
        "{address} is not known, and to trust it on first use takes its access secret: without one anybody on the way could \
         pose as it; give the secret, or add its key to the file of known hosts"
    )]
    FirstUseWithoutSecret {
        /// The server's address.
        address: Address,
    },
    /// The server showed another key than the file has.
    #[error(transparent)]
    KeyChanged(Box<KeyChanged>),
    /// A line cannot be read. The whole file is refused: what it was meant to say might matter.
    #[error("{}:{line}: {reason}; correct the line, or make it a comment with # in front", path.display())]
    Line {
        /// The path of the file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that would not fit on a line.
    #[error(
        "{address:?} cannot be kept in a file of known hosts, because it has blanks or control characters in it; let the \
         server listen at another"
    )]
    Blanks {
        /// The address.
        address: String,
    },
    /// One address has too many keys.
    #[error(
        "{address} has {KEYS_PER_ADDRESS_MAX} keys in {} already; remove those that it does not use any more", path.display()
    )]
    TooManyKeys {
        /// The address.
        address: Address,
        /// The path of the file.
        path: PathBuf,
    },
    /// The file is too long, or would be.
    #[error(
        "{} is, or would be, longer than {FILE_BYTES_MAX} bytes; remove what is not needed any more, or use another file",
        path.display()
    )]
    TooLong {
        /// The path of the file.
        path: PathBuf,
    },
    /// The path holds something that is not a file.
    #[error("{} is not a file; give the path of a file of known hosts", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The directory of the file does not exist.
    #[error("cannot keep known hosts at {}: its directory does not exist; run: mkdir -p {}", path.display(),
        directory.display())]
    NoDirectory {
        /// The path of the file.
        path: PathBuf,
        /// The directory that is missing.
        directory: PathBuf,
    },
    /// Others than the owner may change the file.
    #[error("others may change {} (mode {mode:04o}), and so decide whom you trust; run: chmod go-w {}", path.display(),
        path.display())]
    TooOpen {
        /// The path of the file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another program holds the file's lock.
    #[error("another program holds the lock {}; try again, and end that program if it hangs", lock.display())]
    Busy {
        /// The lock file.
        lock: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}; check the permissions of the file and its directory, and the space left",
        path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl KnownHostsError {
    /// Who is at fault, as far as this end can tell.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::KeyChanged(_) => Fault::Peer,
            _ => Fault::Caller,
        }
    }

    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}

/// A server showed another key than those its address has in the file: somebody may pose as it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyChanged {
    /// The server's address.
    pub address: Address,
    /// The path of the file.
    pub path: PathBuf,
    /// What the file says: the number of each line, from 1, and the key on it.
    pub known: Vec<(usize, Fingerprint)>,
    /// What the server showed.
    pub shown: Fingerprint,
}

impl fmt::Display for KeyChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, path, known, shown } = self;
        write!(
            f,
            "the key of {address} has changed: somebody may be posing as it, or it was given a new key. "
        )?;
        for (line, key) in known {
            write!(f, "Line {line} of {} says {key}; ", path.display())?;
        }
        write!(
            f,
            "the server showed {shown}. If its operator confirms that key, remove the line and add: {address} {shown}"
        )
    }
}

impl std::error::Error for KeyChanged {}
