//! Newtypes for secrets, which zeroize themselves and never print, and for the public names of keys, which do.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::error::ParseFingerprintError;

/// Every secret of the key schedule is this wide: one SHA-384 output.
pub(super) const SECRET_BYTES: usize = 48;

macro_rules! secret {
    ($(#[$meta:meta])* $vis:vis struct $name:ident[$bytes:expr];) => {
        $(#[$meta])*
        $vis struct $name(pub(super) Zeroizing<[u8; $bytes]>);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret! {
    /// A shared secret that admits whoever holds it; the private half of a ticket.
    #[derive(Clone)]
    pub struct AccessSecret[32];
}

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

impl PartialEq for AccessSecret {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0[..], &other.0[..]).is_ok()
    }
}

impl Eq for AccessSecret {}

secret! {
    /// Seals one channel in one direction for one key epoch; the next epoch's secret follows from it (`KEY-7`).
    pub struct TrafficSecret[SECRET_BYTES];
}

secret! {
    /// Proves to the same server, on a later link, that this session was ours (`KEY-5`).
    #[derive(Clone)]
    pub struct ResumeSecret[SECRET_BYTES];
}

impl PartialEq for ResumeSecret {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0[..], &other.0[..]).is_ok()
    }
}

impl Eq for ResumeSecret {}

/// Names a public key: SHA-256 of its SPKI DER, printed like SSH's `SHA256:…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    const PREFIX: &'static str = "SHA256:";

    /// The fingerprint of a key in SPKI DER.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let base64 = text.strip_prefix(Self::PREFIX).ok_or(ParseFingerprintError)?;
        let mut hash = [0; 32];
        match STANDARD_NO_PAD.decode_slice(base64, &mut hash) {
            Ok(32) => Ok(Self(hash)),
            _ => Err(ParseFingerprintError),
        }
    }
}

/// The one server key a client accepts: the public half of a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerPin(pub [u8; 32]);

impl ServerPin {
    /// Whether this pin names the key, in constant time.
    #[must_use]
    pub fn matches(&self, spki: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &Fingerprint::of_spki(spki).0).is_ok()
    }
}

/// Which server a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTrust {
    /// The one with this key.
    Pinned(ServerPin),
    /// Any that proves a key and knows the client's access secret: trust on first use.
    ///
    /// The secret is mixed into the link's keys (`KEY-3`), so whoever does not know it cannot make the CONFIRM; but every
    /// holder of the secret can pose as the server. Until the server's CONFIRM has come and fits (`KEY-6`), nothing shows that
    /// it knows the secret: what it says is to be believed no sooner, and its key is to be remembered no sooner.
    FirstUse,
}

impl ServerTrust {
    /// Whether a server with this key may be the one, in constant time.
    #[must_use]
    pub fn admits(&self, spki: &[u8]) -> bool {
        match self {
            Self::Pinned(pin) => pin.matches(spki),
            Self::FirstUse => true,
        }
    }
}

impl fmt::Debug for ServerPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerPin({})", Fingerprint(self.0))
    }
}

impl From<Fingerprint> for ServerPin {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.0)
    }
}

impl From<ServerPin> for Fingerprint {
    fn from(pin: ServerPin) -> Self {
        Self(pin.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_print_like_ssh_and_parse_back() {
        let print = Fingerprint([7; 32]);
        let text = print.to_string();
        assert!(text.starts_with("SHA256:") && text.len() == 50);
        assert_eq!(text.parse(), Ok(print));
        for broken in ["", "SHA256:", "sha256:AAAA", &text[..49], &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(broken.parse::<Fingerprint>(), Err(ParseFingerprintError), "{broken}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let text =
            format!("{:?} {:?}", AccessSecret::new([0xab; 32]), ResumeSecret(Zeroizing::new([0xab; 48])));
        assert_eq!(text, "AccessSecret(…) ResumeSecret(…)");
    }
}
