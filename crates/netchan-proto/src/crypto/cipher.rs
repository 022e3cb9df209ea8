//! The two AEADs and the header mask, as the record layer uses them.

use std::fmt;

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::schedule;
use super::secret::TrafficSecret;
use crate::limits::RECORD_HEADER_BYTES;

/// Both ciphers and both mask ciphers take keys of this width.
pub(super) const KEY_BYTES: usize = 32;

/// The bytes of ciphertext that the header mask is made from.
pub(super) const SAMPLE_BYTES: usize = 16;

/// The cipher of a link's records; the server chooses it in its Welcome (`REC-2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aead {
    /// AES-256-GCM, where both ends have AES hardware.
    Aes256Gcm,
    /// ChaCha20-Poly1305, where one end has none.
    ChaCha20Poly1305,
}

impl Aead {
    /// The cipher for two ends, of which each says whether it has AES hardware.
    #[must_use]
    pub const fn choose(client_aes_hardware: bool, server_aes_hardware: bool) -> Self {
        if client_aes_hardware && server_aes_hardware { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    /// The name of the cipher, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// Key and iv of one channel, direction and epoch. About 600 bytes, so idle channels go without (`REC-9`).
pub(super) struct RecordCipher {
    pub(super) key: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

impl RecordCipher {
    pub(super) fn new(aead: Aead, secret: &TrafficSecret) -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let mut iv = [0; NONCE_LEN];
        secret.expand(b"key", &mut key[..]);
        secret.expand(b"iv", &mut iv);
        let algorithm = match aead {
            Aead::Aes256Gcm => &AES_256_GCM,
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, &key[..]).expect("both ciphers take 32-byte keys");
        Self { key: LessSafeKey::new(key), iv }
    }

    /// The iv with the sequence number over its last eight bytes (`REC-5`).
    pub(super) fn nonce(&self, sequence: u64) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce_bytes(sequence))
    }

    pub(super) fn nonce_bytes(&self, sequence: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }
}

/// Hides channel ids and flags of one direction (`REC-4`).
pub(super) struct HeaderMask(HeaderProtectionKey);

impl HeaderMask {
    pub(super) fn new(aead: Aead, key: &[u8; KEY_BYTES]) -> Self {
        let algorithm = match aead {
            Aead::Aes256Gcm => &quic::AES_256,
            Aead::ChaCha20Poly1305 => &quic::CHACHA20,
        };
        Self(HeaderProtectionKey::new(algorithm, key).expect("both mask ciphers take 32-byte keys"))
    }

    /// Masks or unmasks everything behind the length.
    pub(super) fn apply(&self, header: &mut [u8; RECORD_HEADER_BYTES], sample: &[u8; SAMPLE_BYTES]) {
        let mask = self.0.new_mask(sample).expect("a sample is 16 bytes");
        for (byte, mask) in header[3..].iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

impl fmt::Debug for HeaderMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderMask(…)")
    }
}

impl fmt::Debug for RecordCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordCipher(…)")
    }
}

impl TrafficSecret {
    /// The secret of the next key epoch; the caller drops this one (`KEY-7`).
    pub(super) fn next(&self) -> Self {
        let mut next = Zeroizing::new([0; super::secret::SECRET_BYTES]);
        self.expand(b"upd", &mut next[..]);
        Self(next)
    }

    fn expand(&self, label: &[u8], out: &mut [u8]) {
        schedule::expand(&schedule::prk(&self.0), label, &[], out);
    }
}
