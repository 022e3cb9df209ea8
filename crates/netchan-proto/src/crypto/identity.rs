//! Ed25519 identities behind a trait, so that a hardware or external signer fits.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroize as _;

use super::error::SignError;
use super::secret::{Fingerprint, ServerPin};

/// What stands before the 32 key bytes in every Ed25519 SPKI (RFC 8410); the encoding has no other form.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Length of an Ed25519 SPKI.
pub const SPKI_BYTES: usize = SPKI_PREFIX.len() + 32;

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

/// This end's identity: a signer and the public key's encoding. Clones share the signer.
#[derive(Clone)]
pub struct LocalKey {
    signer: Arc<dyn Signer>,
    spki: [u8; SPKI_BYTES],
}

impl LocalKey {
    /// Makes the identity of a 32-byte seed, and zeroizes the copy given.
    ///
    /// # Errors
    ///
    /// [`SignError`] when the library rejects the seed, which it does for none.
    pub fn from_seed(mut seed: [u8; 32]) -> Result<Self, SignError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        seed.zeroize();
        let pair = pair.map_err(|_| SignError)?;
        let public_key = pair.public_key().as_ref().try_into().map_err(|_| SignError)?;
        Ok(Self::from_signer(Arc::new(SoftwareSigner { pair, public_key })))
    }

    /// Uses a signer that keeps its private key to itself.
    #[must_use]
    pub fn from_signer(signer: Arc<dyn Signer>) -> Self {
        let mut spki = [0; SPKI_BYTES];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(&signer.public_key());
        Self { signer, spki }
    }

    /// The public key in SPKI DER.
    #[must_use]
    pub const fn spki(&self) -> &[u8; SPKI_BYTES] {
        &self.spki
    }

    /// The key's name.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_spki(&self.spki)
    }

    /// What clients pin when this is a server's key.
    #[must_use]
    pub fn pin(&self) -> ServerPin {
        self.fingerprint().into()
    }

    /// The raw public key and its signer, as rustls wants them.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        let certificate = CertificateDer::from(self.spki.to_vec());
        Arc::new(CertifiedKey::new(vec![certificate], Arc::new(RustlsKey(self.clone()))))
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKey({})", self.fingerprint())
    }
}

/// The SPKI if it is exactly an Ed25519 one, byte for byte (`HS-4`).
pub(super) fn ed25519_spki(der: &[u8]) -> Option<[u8; SPKI_BYTES]> {
    let spki: [u8; SPKI_BYTES] = der.try_into().ok()?;
    spki.starts_with(&SPKI_PREFIX).then_some(spki)
}

struct SoftwareSigner {
    pair: Ed25519KeyPair,
    public_key: [u8; 32],
}

impl Signer for SoftwareSigner {
    fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let signature = self.pair.try_sign(message).map_err(|_| SignError)?;
        signature.as_ref().try_into().map_err(|_| SignError)
    }
}

impl fmt::Debug for SoftwareSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftwareSigner(…)")
    }
}

#[derive(Clone, Debug)]
struct RustlsKey(LocalKey);

impl rustls::sign::SigningKey for RustlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn rustls::sign::Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.0.spki[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for RustlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        match self.0.signer.sign(message) {
            Ok(signature) => Ok(signature.to_vec()),
            Err(SignError) => Err(rustls::Error::General(SignError.to_string())),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_key_of_rfc_8032() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let hex = |text: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        };
        let key = LocalKey::from_seed(hex(seed)).expect("any seed is a key");
        assert_eq!(key.spki()[12..], hex(public));
        assert_eq!(ed25519_spki(key.spki()), Some(*key.spki()));
        assert!(key.pin().matches(key.spki()));
        assert!(!format!("{key:?}").contains("9d61"));
    }

    #[test]
    fn hs_4_only_the_exact_ed25519_encoding_is_a_key() {
        let spki = *LocalKey::from_seed([1; 32]).expect("any seed is a key").spki();
        assert_eq!(ed25519_spki(&spki[..43]), None);
        assert_eq!(ed25519_spki(&[&spki[..], &[0]].concat()), None);
        for at in 0..SPKI_PREFIX.len() {
            let mut other = spki;
            other[at] ^= 1;
            assert_eq!(ed25519_spki(&other), None);
        }
    }
}
