//! Who a program is: a key pair and, for servers, the secret that lets ticket holders in.

#[cfg(unix)]
pub mod agent;
mod embedded;
mod error;
mod file;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
pub use netchan_proto::crypto::{AccessSecret, Fingerprint, LocalKey, ServerPin, SignError, Signer};
use netchan_proto::limits::GATE_CANDIDATES_MAX;
use zeroize::Zeroizing;

pub use self::error::IdentityError;

/// An Ed25519 key pair, and the access secrets of the tickets a server gives out.
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
    /// `None` where the private key is elsewhere.
    seed: Option<Arc<Zeroizing<[u8; 32]>>>,
    /// The current one first; never none.
    access_secrets: Vec<AccessSecret>,
}

/// Access secrets of one identity: while tickets are replaced there are two or three. A listener tries one key more than this, its
/// pin, on every connection.
pub const ACCESS_SECRETS_MAX: usize = GATE_CANDIDATES_MAX - 1;

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
        Secrets { seed, access: vec![AccessSecret::new(*access_secret)] }.identity()
    }

    /// An identity whose private key is elsewhere: in hardware, or in another process.
    ///
    /// A server keeps `access_secret` beside it, since a signer has no place for it; for a client any will do.
    #[must_use]
    pub fn from_signer(signer: Arc<dyn Signer>, access_secret: AccessSecret) -> Self {
        Self { key: LocalKey::from_signer(signer), seed: None, access_secrets: vec![access_secret] }
    }

    /// The same key with this access secret and no other. Tickets with another no longer open this server.
    #[must_use]
    pub fn with_access_secret(mut self, access_secret: AccessSecret) -> Self {
        self.access_secrets = vec![access_secret];
        self
    }

    /// The same key with a fresh access secret beside those it has. New tickets have the fresh one, and old tickets stay good until
    /// it is [left alone](Self::with_current_access_secret_only).
    ///
    /// # Errors
    ///
    /// [`IdentityError::TooManyAccessSecrets`] when it has [`ACCESS_SECRETS_MAX`].
    ///
    /// ```
    /// use netchan::Identity;
    ///
    /// let before = Identity::generate();
    /// let both = before.clone().with_fresh_access_secret()?; // hand new tickets out now
    /// let after = both.clone().with_current_access_secret_only(); // when everybody has one
    /// assert_eq!((both.access_secrets().len(), after.access_secrets().len()), (2, 1));
    /// assert!(after.access_secret() == both.access_secret() && after.access_secret() != before.access_secret());
    /// # Ok::<(), netchan::identity::IdentityError>(())
    /// ```
    pub fn with_fresh_access_secret(mut self) -> Result<Self, IdentityError> {
        if self.access_secrets.len() >= ACCESS_SECRETS_MAX {
            return Err(IdentityError::TooManyAccessSecrets);
        }
        self.access_secrets.insert(0, AccessSecret::new(*random()));
        Ok(self)
    }

    /// The same key with its current access secret and no other.
    #[must_use]
    pub fn with_current_access_secret_only(mut self) -> Self {
        self.access_secrets.truncate(1);
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

    /// Keeps the identity in a file, for its owner only. A file that holds the same key is replaced in one step, with the access
    /// secrets that this one has.
    ///
    /// # Errors
    ///
    /// When the path holds another key, or something else, which stays as it is; when the private key is not here; and when the file
    /// cannot be made.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        let seed = self.seed.as_ref().ok_or(IdentityError::KeyElsewhere)?;
        let secrets = Secrets { seed: Zeroizing::new(***seed), access: self.access_secrets.clone() };
        if file::create(path, &secrets)? {
            return Ok(());
        }
        let there = Self::load(path)?;
        if there.public_key() != self.public_key() {
            let (path, there) = (path.to_owned(), there.fingerprint());
            return Err(IdentityError::OtherKey { path, there });
        }
        file::replace(path, &secrets)
    }

    /// Gives the identity in a file a new access secret and takes all others from it, and returns it.
    ///
    /// Tickets given out before open the server no longer once it uses the new identity; its key stays. To replace tickets while
    /// the old ones stay good: [`with_fresh_access_secret`](Self::with_fresh_access_secret) and [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and when the file cannot be replaced.
    pub fn rotate_access_secret(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        Self::update(path, |identity| Ok(identity.with_access_secret(AccessSecret::new(*random()))))
    }

    /// Changes the access secrets of the identity in a file, in one step for all programs that do so: it is read, changed and
    /// replaced under a lock, which is a file beside it. Owner and mode stay. Returns what the file holds now.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) and [`save`](Self::save); what `change` returns; and when another program holds the lock for 5 s.
    ///
    /// ```
    /// use netchan::Identity;
    ///
    /// let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("server.identity");
    /// Identity::load_or_generate(&path)?;
    /// let both = Identity::update(&path, Identity::with_fresh_access_secret)?;
    /// assert_eq!(both.access_secrets().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update(
        path: impl AsRef<Path>,
        change: impl FnOnce(Self) -> Result<Self, IdentityError>,
    ) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        // Before a lock is made beside it: there is something to change.
        Self::load(path)?;
        let _lock = file::lock(path)?;
        let changed = change(Self::load(path)?)?;
        changed.save(path)?;
        Ok(changed)
    }

    /// The key, for the handshake.
    #[must_use]
    pub fn key(&self) -> &LocalKey {
        &self.key
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        public_key_of(&self.key)
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

    /// What lets the holders of this server's tickets in; the one that new tickets have.
    #[must_use]
    pub fn access_secret(&self) -> &AccessSecret {
        &self.access_secrets[0]
    }

    /// All that let clients in, the current one first.
    #[must_use]
    pub fn access_secrets(&self) -> &[AccessSecret] {
        &self.access_secrets
    }

    /// The same key with the access secrets of another identity.
    pub(crate) fn with_access_secrets_of(mut self, other: &Self) -> Self {
        self.access_secrets.clone_from(&other.access_secrets);
        self
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
    /// The current one first; never none.
    access: Vec<AccessSecret>,
}

impl Secrets {
    fn generate() -> Self {
        Self { seed: random(), access: vec![AccessSecret::new(*random())] }
    }

    fn identity(&self) -> Identity {
        Identity {
            key: key_of(&self.seed),
            seed: Some(Arc::new(self.seed.clone())),
            access_secrets: self.access.clone(),
        }
    }
}

fn public_key_of(key: &LocalKey) -> [u8; 32] {
    let (_, public_key) = key.spki().split_last_chunk().expect("an SPKI ends with the 32 bytes of the key");
    *public_key
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
