//! Who a program is: a key pair and, for servers, the secret that lets ticket holders in.

#[cfg(unix)]
pub mod agent;
mod error;
mod file;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
pub use netchan_proto::crypto::{AccessSecret, Fingerprint, LocalKey, ServerPin, SignError, Signer};
use zeroize::Zeroizing;

pub use self::error::IdentityError;

/// An Ed25519 key pair, and the access secret of the tickets a server gives out.
///
/// A clone is the same identity. Neither half is ever printed.
///
/// ```
/// use netchan::identity::Identity;
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("server.identity");
///
/// let first = Identity::load_or_generate(&path)?; // made, and kept in a file for its owner only
/// let again = Identity::load_or_generate(&path)?; // read: a restarted server is the same to everybody
/// assert_eq!(first.fingerprint(), again.fingerprint());
/// assert!(first.fingerprint().to_string().starts_with("SHA256:"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    key: LocalKey,
    access_secret: AccessSecret,
}

impl Identity {
    /// A fresh identity that lives as long as the process.
    #[must_use]
    pub fn generate() -> Self {
        Secrets::generate().identity()
    }

    /// The identity of a 32-byte Ed25519 seed.
    ///
    /// Its access secret is derived from the seed, so a server started again from the same seed honours its old tickets.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let derive = hmac::Key::new(hmac::HMAC_SHA256, seed.as_ref());
        let mut access_secret = Zeroizing::new([0; 32]);
        access_secret.copy_from_slice(hmac::sign(&derive, b"netchan access secret 1").as_ref());
        Self { key: key_of(&seed), access_secret: AccessSecret::new(*access_secret) }
    }

    /// An identity whose private key is elsewhere: in hardware, or in another process.
    ///
    /// A server keeps `access_secret` beside it, since a signer has no place for it; for a client any will do.
    #[must_use]
    pub fn from_signer(signer: Arc<dyn Signer>, access_secret: AccessSecret) -> Self {
        Self { key: LocalKey::from_signer(signer), access_secret }
    }

    /// The same key with another access secret. Tickets with the former secret no longer open this server.
    #[must_use]
    pub fn with_access_secret(mut self, access_secret: AccessSecret) -> Self {
        self.access_secret = access_secret;
        self
    }

    /// Reads an identity from its file.
    ///
    /// # Errors
    ///
    /// When there is no such file, when others than its owner may read it, or when it is not an undamaged identity.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        Ok(file::read(path.as_ref())?.identity())
    }

    /// Reads an identity from its file, or makes one and keeps it there, for its owner only.
    ///
    /// Several programs that start at once on the same path end with the same identity.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and when the file cannot be made: its directory must exist.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match file::read(path) {
            Err(IdentityError::Missing { .. }) => {}
            found => return Ok(found?.identity()),
        }
        let fresh = Secrets::generate();
        if file::create(path, &fresh)? {
            tracing::info!(path = %path.display(), fingerprint = %fresh.identity().fingerprint(), "made an identity");
            return Ok(fresh.identity());
        }
        Self::load(path)
    }

    /// Gives the identity in a file a new access secret, and returns it.
    ///
    /// Tickets given out before open the server no longer once it uses the new identity; its key stays.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and when the file cannot be replaced.
    pub fn rotate_access_secret(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let rotated = Secrets { access: random(), ..file::read(path)? };
        file::replace(path, &rotated)?;
        Ok(rotated.identity())
    }

    /// The key, for the handshake.
    #[must_use]
    pub fn key(&self) -> &LocalKey {
        &self.key
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        let (_, public_key) =
            self.key.spki().split_last_chunk().expect("an SPKI ends with the 32 bytes of the key");
        *public_key
    }

    /// The name of the public key, printed like SSH's: `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// What a ticket pins: the same hash as the fingerprint.
    #[must_use]
    pub fn server_pin(&self) -> ServerPin {
        self.key.pin()
    }

    /// What lets the holders of this server's tickets in.
    #[must_use]
    pub fn access_secret(&self) -> &AccessSecret {
        &self.access_secret
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

/// What an identity file holds.
struct Secrets {
    seed: Zeroizing<[u8; 32]>,
    access: Zeroizing<[u8; 32]>,
}

impl Secrets {
    fn generate() -> Self {
        Self { seed: random(), access: random() }
    }

    fn identity(&self) -> Identity {
        Identity { key: key_of(&self.seed), access_secret: AccessSecret::new(*self.access) }
    }
}

fn key_of(seed: &[u8; 32]) -> LocalKey {
    LocalKey::from_seed(*seed).expect("every 32 bytes are an Ed25519 seed")
}

fn random() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    // A system without random numbers cannot have keys; there is nothing to fall back to.
    rand::fill(bytes.as_mut()).expect("the operating system gives random bytes");
    bytes
}
