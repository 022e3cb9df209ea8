//! Chance: what masks, places and decoys are drawn from.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

const DOMAIN: &[u8] = b"netchan-embed masks 1";

/// A stream of HMAC-SHA256 over a counter, keyed once.
pub(crate) struct Chance {
    key: Zeroizing<[u8; 32]>,
    counter: u64,
    block: Zeroizing<[u8; 32]>,
    /// Bytes of the block that were given out.
    used: usize,
}

impl Chance {
    /// Other numbers at every call.
    pub(crate) fn system() -> Result<Self, String> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut())
            .map_err(|error| format!("the system gives no random bytes: {error}"))?;
        Ok(Self::keyed(key))
    }

    /// The same for the same secret, seed and path, and unknown to whoever lacks the secret: seed and path stand in the source,
    /// so masks that followed from them alone would hide nothing.
    pub(crate) fn derived(secret: &[u8], seed: &str, path: &str) -> Self {
        let length = (seed.len() as u64).to_be_bytes();
        Self::keyed(hmac(secret, &[DOMAIN, &length, seed.as_bytes(), path.as_bytes()]))
    }

    fn keyed(key: Zeroizing<[u8; 32]>) -> Self {
        Self { key, counter: 0, block: Zeroizing::default(), used: 32 }
    }

    pub(crate) fn u64(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.block = hmac(self.key.as_ref(), &[&self.counter.to_be_bytes()]);
            self.counter += 1;
            self.used = 0;
        }
        let (words, _) = self.block.as_chunks();
        let word = u64::from_le_bytes(words[self.used / 8]);
        self.used += 8;
        word
    }

    /// Less than `bound`. The bias is below 2⁻³² for bounds that fit 32 bits.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.u64()) * bound as u128) >> 64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(mut chance: Chance) -> [u64; 9] {
        std::array::from_fn(|_| chance.u64())
    }

    #[test]
    fn derived_chance_follows_from_secret_seed_and_path() {
        let of = |secret: &[u8], seed, path| first(Chance::derived(secret, seed, path));
        let base = of(&[1; 64], "seed", "path");
        assert_eq!(base, of(&[1; 64], "seed", "path"));
        for other in
            [of(&[2; 64], "seed", "path"), of(&[1; 64], "see", "dpath"), of(&[1; 64], "seed", "paths")]
        {
            assert!(base.iter().all(|word| !other.contains(word)));
        }
    }

    #[test]
    fn the_system_gives_others_each_time() {
        assert_ne!(
            first(Chance::system().expect("random bytes")),
            first(Chance::system().expect("random bytes"))
        );
    }

    #[test]
    fn below_reaches_every_number_and_no_more() {
        let mut chance = Chance::derived(b"secret", "", "");
        let mut seen = [0; 7];
        (0..700).for_each(|_| seen[chance.below(7)] += 1);
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
    }
}
