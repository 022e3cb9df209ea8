//! Stands in for `netchan_proto::crypto` until it exists, with the same names and signatures.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key cannot be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot be used now")]
pub struct SignError;

/// Something that signs with one Ed25519 key.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public key.
    fn public_key(&self) -> [u8; 32];

    /// Signs `message` (pure Ed25519).
    ///
    /// # Errors
    ///
    /// [`SignError`] when the key cannot be used now.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
}

/// This end's key.
#[derive(Clone)]
pub struct LocalKey {
    _signer: Option<Arc<dyn Signer>>,
    spki: [u8; 44],
}

impl LocalKey {
    /// Makes the identity of a 32-byte seed.
    ///
    /// # Errors
    ///
    /// [`SignError`] when the library rejects the seed, which it does for none.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, SignError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| SignError)?;
        Ok(Self { _signer: None, spki: spki_of(pair.public_key().as_ref()) })
    }

    /// Uses a signer that keeps its private key to itself.
    #[must_use]
    pub fn from_signer(signer: Arc<dyn Signer>) -> Self {
        Self { spki: spki_of(&signer.public_key()), _signer: Some(signer) }
    }

    /// The public key in SPKI DER.
    #[must_use]
    pub const fn spki(&self) -> &[u8; 44] {
        &self.spki
    }

    /// The key's name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.spki).as_ref());
        Fingerprint(hash)
    }

    /// What clients pin when this is a server's key.
    #[must_use]
    pub fn pin(&self) -> ServerPin {
        ServerPin(self.fingerprint().0)
    }
}

fn spki_of(public_key: &[u8]) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&SPKI_PREFIX);
    spki[12..].copy_from_slice(public_key);
    spki
}

/// A shared secret that admits whoever holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessSecret(Zeroizing<[u8; 32]>);

impl AccessSecret {
    /// Takes 32 bytes that were drawn at random.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself, for a ticket or a key file.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for AccessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessSecret(…)")
    }
}

/// The one server key a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerPin(pub [u8; 32]);

/// Names a public key, printed like SSH's `SHA256:…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
