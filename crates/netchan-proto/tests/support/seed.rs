//! Seeds: printed when a run fails, and replayed with `NETCHAN_SEED=<seed> cargo test <name>`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Runs `test` for every seed below `count`, or for the one in `NETCHAN_SEED`; `NETCHAN_SEEDS=<n>` runs n times as many.
pub fn for_seeds(count: u64, test: impl Fn(u64, &mut StdRng)) {
    let times =
        std::env::var("NETCHAN_SEEDS").map_or(1, |times| times.parse().expect("NETCHAN_SEEDS is a number"));
    let count = count * times;
    let only =
        std::env::var("NETCHAN_SEED").ok().map(|seed| seed.parse::<u64>().expect("NETCHAN_SEED is a number"));
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let result = catch_unwind(AssertUnwindSafe(|| test(seed, &mut rng)));
        if let Err(panic) = result {
            eprintln!("failed with NETCHAN_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// True once in `n` times.
pub fn one_in(rng: &mut StdRng, n: u32) -> bool {
    rng.random_ratio(1, n)
}

/// The value numbered `number`, `len` bytes long (at least eight): its number in front, and a check behind.
pub fn value(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8 ^ len as u8; len.max(8)];
    let tail = bytes.len() - 8;
    bytes[tail..].copy_from_slice(&(number ^ len.max(8) as u64).to_be_bytes());
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number of a value, which must be whole.
pub fn number(bytes: &[u8]) -> u64 {
    let number = u64::from_be_bytes(*bytes.first_chunk().expect("a value has eight bytes"));
    assert!(bytes == value(number, bytes.len()), "value {number} was damaged");
    number
}
