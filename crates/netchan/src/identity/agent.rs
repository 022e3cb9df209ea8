//! Keys that stay in an SSH agent, which signs with them: ssh-agent, gpg-agent, or a hardware token behind one.

mod wire;

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use self::wire::Message;
use super::{AccessSecret, Fingerprint, Identity, LocalKey, SignError, Signer};

/// The environment variable that names the agent's socket.
const SOCKET_VARIABLE: &str = "SSH_AUTH_SOCK";

/// How long an agent may take for a request in all, unless [`SshAgent::timeout`] says otherwise: as long as a handshake by
/// default. An agent in software takes a millisecond.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What a timeout counts as that is meant to be none.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Length of a request's text, and of an answer: what OpenSSH's own agent allows for a message.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1_024;

/// An SSH agent, by its socket. Each request connects anew, so that an agent may be started again.
///
/// Only its Ed25519 keys are of use: a key of another type, such as one of a FIDO token (`sk-ssh-ed25519`), signs something
/// else.
///
/// ```no_run
/// use netchan::identity::{Identity, agent::SshAgent};
///
/// let agent = SshAgent::from_env()?;
/// for key in agent.keys()? {
///     println!("{} {}", key.fingerprint(), key.comment());
/// }
/// // As `netchan` or as `ssh-add -l` prints it.
/// let signer = agent.signer("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".parse()?)?;
/// // A client's access secret lets nobody in anywhere; a server keeps its own beside the agent.
/// let secret = Identity::generate().access_secret().clone();
/// let identity = Identity::from_agent(signer, secret);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAgent {
    socket: PathBuf,
    timeout: Duration,
}

impl SshAgent {
    /// The agent that the environment variable `SSH_AUTH_SOCK` names.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoSocket`] when the variable is not set.
    pub fn from_env() -> Result<Self, AgentError> {
        match env::var_os(SOCKET_VARIABLE) {
            Some(socket) if !socket.is_empty() => Ok(Self::at(PathBuf::from(socket))),
            _ => Err(AgentError::NoSocket),
        }
    }

    /// The agent that listens at a Unix socket.
    #[must_use]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: TIMEOUT_DEFAULT }
    }

    /// The same agent, which may take so long for a request. For a token that waits to be touched, make
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) longer as well.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the agent listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The Ed25519 keys it holds. Blocks until the agent has answered.
    ///
    /// # Errors
    ///
    /// [`AgentError`], which says what to try.
    pub fn keys(&self) -> Result<Vec<AgentKey>, AgentError> {
        let answer = self.ask(&Message::request_identities())?;
        let keys = answer.identities().map_err(|reason| self.malformed(reason))?;
        let keys = keys.into_iter().map(|(key, comment)| AgentKey { signer: self.signer_of(key), comment });
        Ok(keys.collect())
    }

    /// Signs with the key of this fingerprint, as netchan or as SSH prints it. Blocks until the agent has answered.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoSuchKey`] when the agent does not hold it, and as [`keys`](Self::keys).
    pub fn signer(&self, fingerprint: Fingerprint) -> Result<AgentSigner, AgentError> {
        let keys = self.keys()?;
        let ssh_fingerprint = fingerprint.to_string();
        let named =
            |key: &&AgentKey| key.fingerprint() == fingerprint || key.ssh_fingerprint() == ssh_fingerprint;
        match keys.iter().find(named) {
            Some(key) => Ok(key.signer()),
            None => {
                let socket = self.socket.clone();
                Err(AgentError::NoSuchKey { socket, fingerprint, others: keys.len() })
            }
        }
    }

    /// Signs with the key of this Ed25519 public key. The agent is not asked before there is something to sign.
    #[must_use]
    pub fn signer_of(&self, public_key: [u8; 32]) -> AgentSigner {
        AgentSigner { agent: self.clone(), public_key }
    }

    /// Sends a request and waits for what the agent answers.
    fn ask(&self, request: &Message) -> Result<Message, AgentError> {
        let timeout = self.timeout.min(TIMEOUT_MAX);
        wire::ask(&self.socket, request, timeout).map_err(|failure| match failure {
            wire::Failure::Connect(source) => AgentError::Unreachable { socket: self.socket.clone(), source },
            wire::Failure::Link(source) => AgentError::Broke { socket: self.socket.clone(), source },
            wire::Failure::Malformed(reason) => self.malformed(reason),
        })
    }

    fn malformed(&self, reason: &'static str) -> AgentError {
        AgentError::Malformed { socket: self.socket.clone(), reason }
    }
}

/// An Ed25519 key that an agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentKey {
    signer: AgentSigner,
    comment: String,
}

impl AgentKey {
    /// The public key.
    #[must_use]
    pub const fn public_key(&self) -> [u8; 32] {
        self.signer.public_key
    }

    /// Signs with it.
    #[must_use]
    pub fn signer(&self) -> AgentSigner {
        self.signer.clone()
    }

    /// Its name in netchan: what peers, pins and policies know it by. SSH hashes another encoding of the key, so that its
    /// name for it is another.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        LocalKey::from_signer(Arc::new(self.signer())).fingerprint()
    }

    /// Its name in SSH: what `ssh-add -l` prints.
    #[must_use]
    pub fn ssh_fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &wire::key_blob(&self.public_key()));
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }

    /// What its owner wrote beside it, fit to be printed.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }
}

/// Signs with a key that stays in an agent.
///
/// A signature is made in each handshake, and its task waits for the agent with the thread it runs on, for at most the agent's
/// [`timeout`](SshAgent::timeout). A program whose agent waits for people wants a runtime of several threads.
///
/// What is signed begins with 64 blanks and a text of TLS 1.3, so it is nothing that SSH would take for its own.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentSigner {
    agent: SshAgent,
    public_key: [u8; 32],
}

impl AgentSigner {
    /// As [`Signer::sign`], but says why not.
    ///
    /// # Errors
    ///
    /// [`AgentError`], which says what to try.
    pub fn try_sign(&self, message: &[u8]) -> Result<[u8; 64], AgentError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(AgentError::TooLong { bytes: message.len() });
        }
        let socket = || self.agent.socket.clone();
        let answer = self.agent.ask(&Message::sign_request(&self.public_key, message))?;
        if answer.is_failure() {
            return Err(AgentError::Refused { socket: socket() });
        }
        let signature = answer.signature().map_err(|reason| self.agent.malformed(reason))?;
        // Else it would be the peer who finds out, and says nothing.
        let key = UnparsedPublicKey::new(&ED25519, &self.public_key);
        key.verify(message, &signature).map_err(|_| AgentError::WrongSignature { socket: socket() })?;
        Ok(signature)
    }
}

impl Signer for AgentSigner {
    fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.try_sign(message).map_err(|error| {
            tracing::warn!(%error, "the identity key could not sign");
            SignError
        })
    }
}

impl fmt::Debug for AgentSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentSigner({})", self.agent.socket.display())
    }
}

impl Identity {
    /// An identity whose key stays in an SSH agent.
    ///
    /// A server keeps `access_secret` elsewhere, since an agent has no place for it; for a client any will do.
    #[must_use]
    pub fn from_agent(signer: AgentSigner, access_secret: AccessSecret) -> Self {
        Self::from_signer(Arc::new(signer), access_secret)
    }
}

/// Why an agent did not do what it was asked for, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No agent is known.
    #[error(
        "{SOCKET_VARIABLE} is not set; start an agent with: eval \"$(ssh-agent)\" (or give its socket with SshAgent::at)"
    )]
    NoSocket,
    /// Nobody answers at the socket.
    #[error("cannot reach the SSH agent at {}: {source}; check that it runs, and that the socket is yours", socket.display())]
    Unreachable {
        /// The agent's socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent did not answer, or not in time.
    #[error(
        "the SSH agent at {} gave no answer: {source}; it may wait for a touch or a confirmation, or hang", socket.display()
    )]
    Broke {
        /// The agent's socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is not one.
    #[error("what answers at {} is no SSH agent, or a faulty one: {reason}", socket.display())]
    Malformed {
        /// The agent's socket.
        socket: PathBuf,
        /// What is wrong with the answer.
        reason: &'static str,
    },
    /// The agent would not sign.
    #[error(
        "the SSH agent at {} would not sign: see with ssh-add -l whether it still holds the key, unlock it with ssh-add -X if \
         it is locked, and confirm the use if it asks for that; a key with destination constraints cannot be used here",
        socket.display()
    )]
    Refused {
        /// The agent's socket.
        socket: PathBuf,
    },
    /// The signature does not fit the key.
    #[error("the SSH agent at {} made a signature that does not fit the key", socket.display())]
    WrongSignature {
        /// The agent's socket.
        socket: PathBuf,
    },
    /// What is to be signed is too long for an agent.
    #[error("an agent signs at most {MESSAGE_BYTES_MAX} bytes, not {bytes}; sign a hash of them")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The agent does not hold the key.
    #[error(
        "the SSH agent at {} does not hold the key {fingerprint}, but {others} other Ed25519 keys; list them with ssh-add -l, \
         and add it with: ssh-add FILE", socket.display()
    )]
    NoSuchKey {
        /// The agent's socket.
        socket: PathBuf,
        /// The key that was asked for.
        fingerprint: Fingerprint,
        /// How many others there are.
        others: usize,
    },
}
