//! An identity inside the program.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use netchan_embed::EmbeddedKey;

use super::{AccessSecret, Identity, LocalKey, SignError, Signer, key_of};

/// Puts the private key together for each signature and forgets it again (`STORE-5`): a process that carries its key has it in memory for
/// some microseconds of each handshake.
struct EmbeddedSigner {
    key: EmbeddedKey,
    public_key: [u8; 32],
}

impl Signer for EmbeddedSigner {
    fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.key.with_seed(|seed| {
            let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SignError)?;
            pair.try_sign(message).map_err(|_| SignError)?.as_ref().try_into().map_err(|_| SignError)
        })
    }
}

impl fmt::Debug for EmbeddedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbeddedSigner(…)")
    }
}

impl Identity {
    /// The identity that the program carries, as [`embed_key!`](crate::embed_key) put it there.
    ///
    /// Its private key is put together for each signature, in memory that is locked and not dumped, and wiped again. Its access
    /// secrets stay in memory, as a server's must.
    ///
    /// ```
    /// use netchan::Identity;
    ///
    /// // A sample that everyone knows. A real key's file is its owner's alone, and needs no option.
    /// let worker = Identity::embedded(netchan::embed_key!("examples/keys/worker.key", readable_by_others));
    /// println!("{}", worker.fingerprint());
    /// ```
    #[must_use]
    pub fn embedded(key: EmbeddedKey) -> Self {
        let (public_key, access_secrets) = key.with_secrets(|seed, access| {
            let access = access.iter().map(|secret| AccessSecret::new(*secret)).collect();
            (super::public_key_of(&key_of(seed)), access)
        });
        let key = LocalKey::from_signer(Arc::new(EmbeddedSigner { key, public_key }));
        Self { key, seed: None, access_secrets }
    }
}
