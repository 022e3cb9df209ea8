//! Why an identity file cannot be used.

use std::io;
use std::path::PathBuf;

use super::{ACCESS_SECRETS_MAX, Fingerprint};

/// Why an identity could not be read or kept, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no such file.
    #[error("there is no identity at {}; check the path, or make one with netchan keygen or Identity::load_or_generate", path.display())]
    Missing {
        /// The path of the file.
        path: PathBuf,
    },
    /// The directory of the file does not exist.
    #[error("cannot keep an identity at {}: its directory does not exist; run: mkdir -p {}", path.display(),
        directory.display())]
    NoDirectory {
        /// The path of the file.
        path: PathBuf,
        /// The directory that is missing.
        directory: PathBuf,
    },
    /// The path holds something that is not a file.
    #[error("{} is not a file; give the path of an identity file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner may use the file.
    #[error("others may use the private key in {} (mode {mode:04o}); run: chmod 600 {}", path.display(),
        path.display())]
    TooOpen {
        /// The path of the file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is something else.
    #[error("{} is not a netchan identity; it was left alone: give another path, or move it away to make a new one",
        path.display())]
    NotAnIdentity {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error("the identity in {} has format {version:?}, which this version does not know; use the version that wrote it",
        path.display())]
    UnknownVersion {
        /// The path of the file.
        path: PathBuf,
        /// What stands in the version's place.
        version: String,
    },
    /// The file was changed or cut off.
    #[error("the identity in {} is damaged ({reason}); restore it from a backup, or move it away to make a new one \
             (a new one has another fingerprint)", path.display())]
    Damaged {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file holds another key.
    #[error("{} holds another key, {there}; it was left alone: give another path, or move it away", path.display())]
    OtherKey {
        /// The path of the file.
        path: PathBuf,
        /// The key that is there.
        there: Fingerprint,
    },
    /// The private key is in hardware, or in another process.
    #[error(
        "the private key of this identity is not in this process, so it cannot be kept in a file; keep its signer's settings instead"
    )]
    KeyElsewhere,
    /// Another program is changing the file.
    #[error("another program holds {} and does not let go of it; end it, and try again", lock.display())]
    Busy {
        /// The file that is locked.
        lock: PathBuf,
    },
    /// A ticket was given where a file is wanted. It is not quoted.
    #[error("this is a ticket, and not the path of an identity file")]
    IsATicket,
    /// It has as many access secrets as a listener tries.
    #[error(
        "an identity has at most {ACCESS_SECRETS_MAX} access secrets; retire the old ones first (netchan rotate --retire)"
    )]
    TooManyAccessSecrets,
    /// There is no identity anywhere that a program looks for one.
    #[error("no identity was found: {}{variable} is not set, and none is embedded; make one with: netchan keygen FILE", .file.as_ref().map(|file| format!("there is no file {}, ", file.display())).unwrap_or_default())]
    Nowhere {
        /// The file that was looked for.
        file: Option<PathBuf>,
        /// The environment variable.
        variable: String,
    },
    /// The system refused.
    #[error("cannot {action} the identity at {}: {source}; check the permissions of the file and its directory, and \
             the space left", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
