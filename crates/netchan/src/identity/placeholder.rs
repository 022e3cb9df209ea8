//! Stands in for `netchan_proto::crypto` until it exists.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroize;

const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs for an identity whose private key is elsewhere.
pub trait Signer: Send + Sync {
    /// The Ed25519 public key.
    fn public_key(&self) -> [u8; 32];

    /// Signs `message`.
    ///
    /// # Errors
    ///
    /// When the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>>;
}

/// A private key, here or elsewhere.
#[derive(Clone)]
pub struct LocalKey {
    public_key: [u8; 32],
    _signer: Option<Arc<dyn Signer>>,
}

impl LocalKey {
    /// A key made of its seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed");
        let mut public_key = [0; 32];
        public_key.copy_from_slice(pair.public_key().as_ref());
        Self { public_key, _signer: None }
    }

    /// A key behind a signer.
    #[must_use]
    pub fn from_signer(signer: Arc<dyn Signer>) -> Self {
        Self { public_key: signer.public_key(), _signer: Some(signer) }
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }
}

/// What a ticket's holder knows.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessSecret(pub [u8; 32]);

impl Drop for AccessSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for AccessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessSecret(…)")
    }
}

/// SHA-256 of a server's SPKI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerPin(pub [u8; 32]);

/// SHA-256 of a peer's SPKI, for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of an Ed25519 public key.
    #[must_use]
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        let mut hasher = digest::Context::new(&digest::SHA256);
        hasher.update(&SPKI_PREFIX);
        hasher.update(public_key);
        let mut hash = [0; 32];
        hash.copy_from_slice(hasher.finish().as_ref());
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
