//! The gate: 56 bytes that look random to strangers and let the server stay silent toward them.
//!
//! A stranger gets zero bytes back (`GATE-1`), though the kernel has completed the TCP connect by then. A replay may draw
//! one TLS flight when the clock window is off, just after a restart emptied the replay cache, or when the wall clock is set back.

mod replay;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use self::replay::ReplayCache;
use super::error::GateReject;
use super::secret::{AccessSecret, ServerPin};
use crate::limits::{GATE_BYTES, GATE_CANDIDATES_MAX, GATE_CLOCK_WINDOW_SECONDS};

const SALT: std::ops::Range<usize> = 0..16;
const TIME: std::ops::Range<usize> = 16..24;
const TAG: std::ops::Range<usize> = 24..GATE_BYTES;

/// What makes a gate: the ticket's secret, or for clients that hold no secret the server's pin.
#[derive(Clone, Debug)]
pub enum GateKey {
    /// Whoever holds the access secret.
    Secret(AccessSecret),
    /// Whoever knows the server's key. Keeps scanners out, and proves nothing more.
    Pin(ServerPin),
}

/// Makes the 56 bytes that stand before the ClientHello record (`GATE-2`).
#[must_use]
pub fn make_gate(
    key: &GateKey,
    unix_seconds: u64,
    salt: [u8; 16],
    client_hello_record: &[u8],
) -> [u8; GATE_BYTES] {
    let candidate = Candidate::new(key);
    let mut gate = [0; GATE_BYTES];
    gate[SALT].copy_from_slice(&salt);
    gate[TIME].copy_from_slice(&(unix_seconds ^ candidate.time_mask(&salt)).to_be_bytes());
    let message = tagged(&gate, client_hello_record);
    gate[TAG].copy_from_slice(hmac::sign(&candidate.tag, &message).as_ref());
    gate
}

/// Whose gate it was.
#[derive(Clone, Debug)]
pub struct GateMatch {
    /// The index of the key that matched, in the order the listener gave them.
    pub candidate: usize,
    /// Its secret, which then feeds the key schedule; none when a pin matched.
    pub secret: Option<AccessSecret>,
    /// The gate itself, for [`Gate::note_proven`].
    pub name: GateName,
}

/// What a gate is remembered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateName(u64);

/// When a gate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateTime {
    /// By the wall clock, which the gate's own time is compared with.
    pub unix_seconds: u64,
    /// By a clock that only goes forward, from any beginning, by which gates are remembered (`GATE-7`).
    pub steady_seconds: u64,
}

/// Where a server asks about a gate. A trait, so that a shell can share one keeper behind a lock held for the check only.
pub trait Gate: Send + Sync {
    /// Checks a gate together with the ClientHello record it stands before.
    ///
    /// # Errors
    ///
    /// [`GateReject`], for the audit; toward the peer all are silence.
    fn check(
        &self,
        gate: &[u8; GATE_BYTES],
        client_hello: &[u8],
        now: GateTime,
    ) -> Result<GateMatch, GateReject>;

    /// The client of a gate that passed has proven its key, and its gate is not one of those that give way first (`GATE-6`).
    fn note_proven(&self, name: GateName) {
        _ = name;
    }
}

impl Gate for Mutex<GateKeeper> {
    fn check(
        &self,
        gate: &[u8; GATE_BYTES],
        client_hello: &[u8],
        now: GateTime,
    ) -> Result<GateMatch, GateReject> {
        self.lock().unwrap_or_else(PoisonError::into_inner).check(gate, client_hello, now)
    }

    fn note_proven(&self, name: GateName) {
        self.lock().unwrap_or_else(PoisonError::into_inner).note_proven(name);
    }
}

/// More keys than one listener tries for a gate; the keys come back.
#[derive(Debug, thiserror::Error)]
#[error("a listener tries at most {GATE_CANDIDATES_MAX} gate keys, not {}", .0.len())]
pub struct TooManyCandidates(pub Vec<GateKey>);

/// Checks gates for one listener and remembers those that passed.
#[derive(Debug)]
pub struct GateKeeper {
    candidates: Vec<Candidate>,
    clock_window_seconds: Option<u64>,
    replays: ReplayCache,
    /// The newest steady time that it was told.
    steady_seconds: u64,
}

impl GateKeeper {
    /// A keeper that tries `keys`, and accepts clocks that differ by the window at most; `None` accepts any clock. It remembers
    /// `replays_max` gates ([`GATE_REPLAY_ENTRIES_MAX`](crate::limits::GATE_REPLAY_ENTRIES_MAX) unless there is a reason).
    ///
    /// # Errors
    ///
    /// [`TooManyCandidates`] above [`GATE_CANDIDATES_MAX`].
    pub fn new(
        keys: Vec<GateKey>,
        clock_window_seconds: Option<u64>,
        replays_max: usize,
    ) -> Result<Self, TooManyCandidates> {
        // Without a window nothing bounds a gate's life, so replays are caught for the time the default would.
        let window = clock_window_seconds.unwrap_or(GATE_CLOCK_WINDOW_SECONDS);
        let replays = ReplayCache::new(window.saturating_mul(2), replays_max);
        let mut keeper = Self { candidates: Vec::new(), clock_window_seconds, replays, steady_seconds: 0 };
        keeper.set_keys(keys)?;
        Ok(keeper)
    }

    /// Replaces the keys; gates seen stay seen.
    ///
    /// # Errors
    ///
    /// [`TooManyCandidates`] above [`GATE_CANDIDATES_MAX`]; the old keys stay.
    pub fn set_keys(&mut self, keys: Vec<GateKey>) -> Result<(), TooManyCandidates> {
        if keys.len() > GATE_CANDIDATES_MAX {
            return Err(TooManyCandidates(keys));
        }
        self.candidates = keys.iter().map(Candidate::new).collect();
        Ok(())
    }

    /// Checks tag, clock and replay, in this order, and remembers a gate that passes (`GATE-3` to `GATE-6`).
    ///
    /// # Errors
    ///
    /// [`GateReject`], for the audit; toward the peer all are silence.
    pub fn check(
        &mut self,
        gate: &[u8; GATE_BYTES],
        client_hello: &[u8],
        now: GateTime,
    ) -> Result<GateMatch, GateReject> {
        let GateTime { unix_seconds, steady_seconds } = now;
        let message = tagged(gate, client_hello);
        // Every key is tried whatever the earlier ones said: the time taken tells nothing about which matched.
        let matched =
            self.candidates.iter().enumerate().fold(None, |matched: Option<usize>, (index, candidate)| {
                let fits = hmac::verify(&candidate.tag, &message, &gate[TAG]).is_ok();
                matched.or(fits.then_some(index))
            });
        let index = matched.ok_or(GateReject::BadTag)?;
        let candidate = &self.candidates[index];

        // `GATE-4`
        if let Some(window) = self.clock_window_seconds {
            let peer_seconds = candidate.time_mask(&gate[SALT]) ^ be64(&gate[TIME]);
            if peer_seconds.abs_diff(unix_seconds) > window {
                return Err(GateReject::Clock { skew_seconds: skew(peer_seconds, unix_seconds) });
            }
        }
        let name = be64(&gate[TAG]);
        // Two handshakes may ask in another order than they looked at the clock.
        self.steady_seconds = self.steady_seconds.max(steady_seconds);
        self.replays.insert(name, self.steady_seconds)?;
        Ok(GateMatch { candidate: index, secret: candidate.secret.clone(), name: GateName(name) })
    }

    /// The client of a gate that passed has proven its key (`GATE-6`).
    pub fn note_proven(&mut self, name: GateName) {
        self.replays.note_proven(name.0, self.steady_seconds);
    }

    /// Gates that were forgotten before their time was over, because too many came.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.replays.forgotten()
    }
}

/// One key, prepared so that a check costs one short HMAC.
struct Candidate {
    tag: hmac::Key,
    mask: hmac::Key,
    secret: Option<AccessSecret>,
}

impl Candidate {
    fn new(key: &GateKey) -> Self {
        let (ikm, info, secret): (&[u8; 32], &[u8], _) = match key {
            GateKey::Secret(secret) => (secret.expose(), b"psk", Some(secret.clone())),
            GateKey::Pin(pin) => (&pin.0, b"pin", None),
        };
        let mut keys = Zeroizing::new([0; KEY_PAIR_BYTES]);
        Salt::new(HKDF_SHA256, b"nc1 gate")
            .extract(ikm)
            .expand(&[info], KeyPair)
            .and_then(|okm| okm.fill(&mut keys[..]))
            .expect("64 bytes are far below what HKDF-SHA256 can expand");
        let (tag, mask) = keys.split_at(KEY_PAIR_BYTES / 2);
        let hmac_key = |key| hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { tag: hmac_key(tag), mask: hmac_key(mask), secret }
    }

    fn time_mask(&self, salt: &[u8]) -> u64 {
        be64(hmac::sign(&self.mask, salt).as_ref())
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret.is_some() { "Candidate(secret)" } else { "Candidate(pin)" })
    }
}

/// The tag key, then the mask key.
const KEY_PAIR_BYTES: usize = 64;

struct KeyPair;

impl KeyType for KeyPair {
    fn len(&self) -> usize {
        KEY_PAIR_BYTES
    }
}

/// What the tag covers: salt, masked time and the hash of the ClientHello record.
fn tagged(gate: &[u8; GATE_BYTES], client_hello: &[u8]) -> [u8; 56] {
    let mut message = [0; 56];
    message[..24].copy_from_slice(&gate[..24]);
    message[24..].copy_from_slice(digest::digest(&digest::SHA256, client_hello).as_ref());
    message
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn skew(theirs: u64, ours: u64) -> i64 {
    let distance = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs < ours { -distance } else { distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"a client hello record";
    const NOW: u64 = 1_800_000_000;

    /// Both clocks go right.
    fn at(unix_seconds: u64) -> GateTime {
        GateTime { unix_seconds, steady_seconds: unix_seconds.saturating_sub(NOW - 1_000) }
    }

    fn secret(byte: u8) -> GateKey {
        GateKey::Secret(AccessSecret::new([byte; 32]))
    }

    fn keeper(keys: Vec<GateKey>, window: Option<u64>) -> GateKeeper {
        GateKeeper::new(keys, window, 1_000).expect("few keys")
    }

    #[test]
    fn gate_3_every_candidate_is_found_and_named() {
        let keys: Vec<_> = (0..15).map(secret).chain([GateKey::Pin(ServerPin([9; 32]))]).collect();
        let mut keeper = keeper(keys.clone(), Some(120));
        for (index, key) in keys.iter().enumerate() {
            let gate = make_gate(key, NOW, [index as u8; 16], HELLO);
            let matched = keeper.check(&gate, HELLO, at(NOW)).expect("one of the keys");
            assert_eq!(matched.candidate, index);
            assert_eq!(matched.secret.is_some(), index < 15);
        }
        let stranger = make_gate(&secret(99), NOW, [0; 16], HELLO);
        assert_eq!(keeper.check(&stranger, HELLO, at(NOW)).unwrap_err(), GateReject::BadTag);
        // The pin's bytes used as a secret are another key.
        let confused = make_gate(&secret(9), NOW, [77; 16], HELLO);
        assert_eq!(keeper.check(&confused, HELLO, at(NOW)).expect("secret 9").candidate, 9);
    }

    #[test]
    fn gate_3_at_most_sixteen_candidates() {
        let keys: Vec<_> = (0..17).map(secret).collect();
        assert_eq!(GateKeeper::new(keys, None, 1).unwrap_err().0.len(), 17);
    }

    #[test]
    fn gate_4_the_clock_window_holds_on_both_sides_and_can_be_off() {
        let mut strict = keeper(vec![secret(1)], Some(120));
        let mut open = keeper(vec![secret(1)], None);
        for (peer, accepted) in [(NOW - 121, false), (NOW - 120, true), (NOW + 120, true), (NOW + 121, false)]
        {
            let gate = make_gate(&secret(1), peer, [(peer % 251) as u8; 16], HELLO);
            let skew_seconds = i64::try_from(peer).unwrap() - i64::try_from(NOW).unwrap();
            match strict.check(&gate, HELLO, at(NOW)) {
                Ok(_) => assert!(accepted),
                Err(reject) => assert!(!accepted && reject == GateReject::Clock { skew_seconds }),
            }
            assert!(open.check(&gate, HELLO, at(NOW)).is_ok());
        }
        let absurd = make_gate(&secret(1), u64::MAX, [3; 16], HELLO);
        assert_eq!(strict.check(&absurd, HELLO, at(0)), Err(GateReject::Clock { skew_seconds: i64::MAX }));
        assert_eq!(strict.check(&absurd, HELLO, at(u64::MAX)).map(|matched| matched.candidate), Ok(0));
    }

    #[test]
    fn gate_5_a_replay_is_refused_for_both_halves_of_the_window() {
        let mut keeper = keeper(vec![secret(1)], Some(120));
        let gate = make_gate(&secret(1), NOW + 120, [5; 16], HELLO);
        assert!(keeper.check(&gate, HELLO, at(NOW)).is_ok());
        for later in [0, 1, 120, 239, 240] {
            assert_eq!(keeper.check(&gate, HELLO, at(NOW + later)).unwrap_err(), GateReject::Replay);
        }
        assert!(matches!(
            keeper.check(&gate, HELLO, at(NOW + 241)),
            Err(GateReject::Clock { skew_seconds: -121 })
        ));
    }

    /// A wall clock that was wrong for a while: what was remembered then goes when its time is over, and nothing is refused.
    #[test]
    fn gate_7_a_wall_clock_that_was_wrong_once_leaves_nothing_behind() {
        let mut keeper = GateKeeper::new(vec![secret(1)], Some(120), 4).expect("one key");
        let (mut steady_seconds, mut salt) = (0, 0);
        for wall in [NOW, NOW + 1_000_000_000, NOW + 1_000, 5_000, NOW + 2_000] {
            for _ in 0..3 {
                salt += 1;
                let gate = make_gate(&secret(1), wall, [salt; 16], HELLO);
                let now = GateTime { unix_seconds: wall, steady_seconds };
                assert!(keeper.check(&gate, HELLO, now).is_ok());
                assert_eq!(keeper.check(&gate, HELLO, now).unwrap_err(), GateReject::Replay);
            }
            steady_seconds += 241;
        }
        assert_eq!(keeper.forgotten(), 0, "three at a time have room");
    }

    #[test]
    fn gate_2_every_bit_of_gate_and_client_hello_counts() {
        let mut keeper = keeper(vec![secret(1)], Some(120));
        let gate = make_gate(&secret(1), NOW, [5; 16], HELLO);
        for bit in 0..GATE_BYTES * 8 {
            let mut other = gate;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keeper.check(&other, HELLO, at(NOW)).unwrap_err(), GateReject::BadTag, "bit {bit}");
        }
        for bit in 0..HELLO.len() * 8 {
            let mut other = HELLO.to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keeper.check(&gate, &other, at(NOW)).unwrap_err(), GateReject::BadTag, "bit {bit}");
        }
        assert!(keeper.check(&gate, HELLO, at(NOW)).is_ok(), "what failed was not remembered");
    }

    impl PartialEq for GateMatch {
        fn eq(&self, other: &Self) -> bool {
            self.candidate == other.candidate && self.secret == other.secret
        }
    }
}
