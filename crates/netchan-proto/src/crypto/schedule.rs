//! The key schedule: from one TLS exporter to a key per channel, direction and epoch.

use aws_lc_rs::hkdf::{HKDF_SHA384, KeyType, Prk, Salt};
use aws_lc_rs::{constant_time, digest, hmac};
use zeroize::Zeroizing;

use super::cipher::{Aead, HeaderMask, KEY_BYTES};
use super::handshake::ALPN;
use super::identity::SPKI_BYTES;
use super::record::{Opener, Sealer};
use super::secret::{AccessSecret, ResumeSecret, SECRET_BYTES, TrafficSecret};
use crate::id::{Direction, Side};

/// A SHA-384 hash.
pub(super) type Hash = [u8; SECRET_BYTES];

/// SHA-384 over the parts, in a row.
pub(super) fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA384);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; SECRET_BYTES];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

struct Width(usize);

impl KeyType for Width {
    fn len(&self) -> usize {
        self.0
    }
}

pub(super) fn prk(secret: &[u8; SECRET_BYTES]) -> Prk {
    Prk::new_less_safe(HKDF_SHA384, secret)
}

/// `X(k, label, ctx, L)` with `L` the length of `out` (`KEY-1`).
pub(super) fn expand(prk: &Prk, label: &[u8], ctx: &[u8], out: &mut [u8]) {
    const PREFIX: &[u8] = b"nc1 ";
    let width = u16::try_from(out.len()).expect("outputs are at most 48 bytes").to_be_bytes();
    let label_len = u8::try_from(PREFIX.len() + label.len()).expect("labels are short");
    let ctx_len = u8::try_from(ctx.len()).expect("contexts are one hash or empty");
    prk.expand(&[&width, &[label_len], PREFIX, label, &[ctx_len], ctx], Width(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("48 bytes are far below what HKDF-SHA384 can expand");
}

fn expand_secret(prk: &Prk, label: &[u8], ctx: &[u8]) -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    expand(prk, label, ctx, &mut secret[..]);
    secret
}

fn hmac_sha384(key: &[u8; SECRET_BYTES], message: &[u8]) -> [u8; SECRET_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA384, key), message);
    let mut bytes = [0; SECRET_BYTES];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// Whether a CONFIRM that arrived is the one expected, in constant time (`KEY-6`).
#[must_use]
pub fn confirm_matches(expected: &[u8; SECRET_BYTES], received: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(expected, received).is_ok()
}

/// All that the two ends must agree on before they share a key (`KEY-2`).
pub(super) struct Transcript<'a> {
    pub(super) version: u16,
    /// SHA-384 of gate and ClientHello record.
    pub(super) opening: &'a Hash,
    pub(super) client_spki: &'a [u8; SPKI_BYTES],
    pub(super) server_spki: &'a [u8; SPKI_BYTES],
    pub(super) hello: &'a [u8],
    pub(super) welcome: &'a [u8],
}

impl Transcript<'_> {
    pub(super) fn context(&self) -> Hash {
        let alpn_len = u8::try_from(ALPN.len()).expect("the protocol's name is short");
        hash(&[
            &self.version.to_be_bytes(),
            &[alpn_len],
            ALPN,
            self.opening,
            self.client_spki,
            self.server_spki,
            &hash(&[self.hello]),
            &hash(&[self.welcome]),
        ])
    }
}

/// `S3`, from which a link's keys follow and nothing else.
pub(super) struct RootSecret(Prk);

impl RootSecret {
    /// Exporter, access secret and the last link's resume secret, each at its fixed place; absent ones are zero
    /// (`KEY-3`).
    pub(super) fn extract(
        exporter: &[u8; SECRET_BYTES],
        secret: Option<&AccessSecret>,
        resume: Option<&ResumeSecret>,
    ) -> Self {
        let mut ikm = Zeroizing::new([0; 2 * SECRET_BYTES + 32]);
        ikm[..SECRET_BYTES].copy_from_slice(exporter);
        if let Some(secret) = secret {
            ikm[SECRET_BYTES..SECRET_BYTES + 32].copy_from_slice(secret.expose());
        }
        if let Some(resume) = resume {
            ikm[SECRET_BYTES + 32..].copy_from_slice(&resume.0[..]);
        }
        Self(Salt::new(HKDF_SHA384, b"nc1").extract(&ikm[..]))
    }

    fn secret(&self, label: &[u8], ctx: &Hash) -> Zeroizing<[u8; SECRET_BYTES]> {
        expand_secret(&self.0, label, ctx)
    }

    fn mask(&self, label: &[u8], ctx: &Hash, aead: Aead) -> HeaderMask {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        expand(&self.0, label, ctx, &mut key[..]);
        HeaderMask::new(aead, &key)
    }
}

/// The keys of one link, as one side sees them.
#[derive(Debug)]
pub struct LinkKeys {
    /// Seals what this side sends.
    pub sealer: Sealer,
    /// Opens what the peer sends.
    pub opener: Opener,
    /// What this side's first control record carries.
    pub own_confirm: [u8; SECRET_BYTES],
    /// What the peer's first control record must carry; compare with [`confirm_matches`].
    pub peer_confirm: [u8; SECRET_BYTES],
    /// Keys for the channels that this side opens.
    pub own_chain: Chain,
    /// Keys for the channels that the peer opens.
    pub peer_chain: Chain,
    /// Proves this session on the next link.
    pub resume_secret: ResumeSecret,
    /// The cipher of the records.
    pub aead: Aead,
}

impl LinkKeys {
    /// Derives everything and erases the root (`KEY-4`).
    pub(super) fn derive(side: Side, aead: Aead, root: RootSecret, ctx: &Hash) -> Self {
        let control = ChannelKeys(root.secret(b"control", ctx));
        let sender = |side: Side| {
            let (mask, confirm, chain): (&[u8], &[u8], &[u8]) = match side {
                Side::Client => (b"hp client", b"confirm client", b"chain client"),
                Side::Server => (b"hp server", b"confirm server", b"chain server"),
            };
            (
                root.mask(mask, ctx, aead),
                hmac_sha384(&root.secret(confirm, ctx), ctx),
                Chain(root.secret(chain, ctx)),
                control.secret(Direction::from(side)),
            )
        };
        let (own_mask, own_confirm, own_chain, own_control) = sender(side);
        let (peer_mask, peer_confirm, peer_chain, peer_control) = sender(side.peer());
        Self {
            sealer: Sealer::new(aead, own_mask, own_control),
            opener: Opener::new(aead, peer_mask, peer_control),
            own_confirm,
            peer_confirm,
            own_chain,
            peer_chain,
            resume_secret: ResumeSecret(root.secret(b"resume", ctx)),
            aead,
        }
    }

    /// Keys from a seed that anyone may know, without any handshake. **No security at all**: for simulations and tests.
    #[must_use]
    pub fn stub(side: Side, seed: &[u8], epoch: u32) -> Self {
        let root = RootSecret(Salt::new(HKDF_SHA384, b"nc1 stub").extract(seed));
        Self::derive(side, Aead::Aes256Gcm, root, &hash(&[b"nc1 stub", &epoch.to_be_bytes()]))
    }
}

/// One opener's chain of channel keys: steps once per OPEN and cannot step back (`KEY-8`).
pub struct Chain(Zeroizing<[u8; SECRET_BYTES]>);

impl Chain {
    /// The keys of the channel that this encoded OPEN frame opens; the chain moves on.
    pub fn step(&mut self, open_frame: &[u8]) -> ChannelKeys {
        let prk = prk(&self.0);
        let keys = ChannelKeys(expand_secret(&prk, b"chan", &hash(&[open_frame])));
        self.0 = expand_secret(&prk, b"next", &[]);
        keys
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain(…)")
    }
}

/// The root of one channel's keys on one link.
pub struct ChannelKeys(Zeroizing<[u8; SECRET_BYTES]>);

impl ChannelKeys {
    /// The first traffic secret of one direction.
    #[must_use]
    pub fn secret(&self, direction: Direction) -> TrafficSecret {
        let label: &[u8] = match direction {
            Direction::FromClient => b"dir client",
            Direction::FromServer => b"dir server",
        };
        TrafficSecret(expand_secret(&prk(&self.0), label, &[]))
    }
}

impl std::fmt::Debug for ChannelKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChannelKeys(…)")
    }
}

impl ResumeSecret {
    /// Proves this secret over one TLS connection's resume exporter (`KEY-5`).
    #[must_use]
    pub fn proof(&self, exporter: &[u8; SECRET_BYTES]) -> [u8; SECRET_BYTES] {
        hmac_sha384(&expand_secret(&prk(&self.0), b"proof", &[]), exporter)
    }

    /// Whether `proof` was made with this secret over this exporter, in constant time.
    #[must_use]
    pub fn verify(&self, exporter: &[u8; SECRET_BYTES], proof: &[u8; SECRET_BYTES]) -> bool {
        constant_time::verify_slices_are_equal(&self.proof(exporter), proof).is_ok()
    }
}
