//! What the macros make.

use std::fmt;
use std::hint::black_box;

use crate::Locked;

const SECRET_BYTES: usize = 32;

/// An identity inside the program: the seed of its Ed25519 key, and its access secrets.
///
/// Made by [`embed_key!`](crate::embed_key). A constant; nothing is put together before it is asked for.
#[derive(Clone, Copy)]
pub struct EmbeddedKey(Embedded);

impl EmbeddedKey {
    #[doc(hidden)]
    pub const fn __new(fill: fn(&mut [u64]), words: usize, bytes: usize) -> Self {
        assert!(bytes >= 2 * SECRET_BYTES && bytes.is_multiple_of(SECRET_BYTES), "a seed and access secrets");
        Self(Embedded::new(fill, words, bytes))
    }

    /// Puts the key together and calls `f` with its seed, which is wiped when `f` returns or panics.
    ///
    /// What `f` copies is its own to wipe.
    pub fn with_seed<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.with_secrets(|seed, _| f(seed))
    }

    /// As [`EmbeddedKey::with_seed`], with the access secrets: at least one, the current one first.
    pub fn with_access_secrets<R>(&self, f: impl FnOnce(&[[u8; 32]]) -> R) -> R {
        self.with_secrets(|_, access| f(access))
    }

    /// As [`EmbeddedKey::with_seed`], with seed and access secrets.
    ///
    /// ```
    /// let key = netchan_embed::embed_key!("sample/worker.key", readable_by_others);
    /// let all_differ = key.with_secrets(|seed, access| !access.contains(seed));
    /// assert!(all_differ);
    /// ```
    pub fn with_secrets<R>(&self, f: impl FnOnce(&[u8; 32], &[[u8; 32]]) -> R) -> R {
        let memory = self.0.assemble();
        let (secrets, _) = memory.as_bytes().as_chunks::<SECRET_BYTES>();
        let (seed, access) = secrets.split_first().expect("`__new` saw to it");
        f(seed, access)
    }
}

impl fmt::Debug for EmbeddedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedKey").finish_non_exhaustive()
    }
}

/// A ticket inside the program: where a server is, which key it has, and perhaps the access secret.
///
/// Made by [`embed_ticket!`](crate::embed_ticket). A constant; nothing is put together before it is asked for.
#[derive(Clone, Copy)]
pub struct EmbeddedTicket(Embedded);

impl EmbeddedTicket {
    #[doc(hidden)]
    pub const fn __new(fill: fn(&mut [u64]), words: usize, bytes: usize) -> Self {
        Self(Embedded::new(fill, words, bytes))
    }

    /// Puts the ticket together and calls `f` with its text, which is wiped when `f` returns or panics.
    ///
    /// What `f` copies is its own to wipe.
    pub fn with_text<R>(&self, f: impl FnOnce(&str) -> R) -> R {
        let memory = self.0.assemble();
        f(std::str::from_utf8(memory.as_bytes()).expect("the macro took a ticket's text"))
    }
}

impl fmt::Debug for EmbeddedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedTicket").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Embedded {
    /// Fills as many words as there are, each with eight bytes, the first the least significant.
    fill: fn(&mut [u64]),
    bytes: usize,
}

impl Embedded {
    const fn new(fill: fn(&mut [u64]), words: usize, bytes: usize) -> Self {
        assert!(words == bytes.div_ceil(8), "the words that hold the bytes");
        Self { fill, bytes }
    }

    // Not inlined, so that its frame, and that of what it calls, lie where `wipe_stack` reaches.
    #[inline(never)]
    fn assemble(&self) -> Locked {
        let mut memory = Locked::zeroed(self.bytes);
        (self.fill)(memory.as_words_mut());
        memory.as_words_mut().iter_mut().for_each(|word| *word = word.to_le());
        wipe_stack();
        memory
    }
}

/// The generated functions work on the locked memory itself, but the compiler may keep words on the stack meanwhile, and does
/// without optimisation. Their frames, at most 32 words and a few each, and a scratch buffer of at most 256 words, take a
/// fraction of this.
const STACK_WIPED_BYTES: usize = 16 * 1_024;

#[inline(never)]
fn wipe_stack() {
    let mut frames = [0u64; STACK_WIPED_BYTES / 8];
    black_box(&mut frames);
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const KEY: EmbeddedKey = EmbeddedKey::__new(
        |words| words.iter_mut().enumerate().for_each(|(index, word)| *word = index as u64),
        12,
        96,
    );
    const TICKET: EmbeddedTicket =
        EmbeddedTicket::__new(|words| words[0] = u64::from_le_bytes(*b"tickets!"), 1, 7);

    #[test]
    fn words_become_bytes_the_least_significant_first() {
        KEY.with_secrets(|seed, access| {
            let word = |index: usize| (index as u64).to_le_bytes();
            assert_eq!(seed.as_chunks::<8>().0, (0..4).map(word).collect::<Vec<_>>());
            assert_eq!(access.as_flattened().as_chunks::<8>().0, (4..12).map(word).collect::<Vec<_>>());
        });
        assert_eq!(KEY.with_seed(|seed| *seed), KEY.with_secrets(|seed, _| *seed));
        assert_eq!(KEY.with_access_secrets(<[_]>::to_vec), KEY.with_secrets(|_, access| access.to_vec()));
        assert_eq!(TICKET.with_text(str::to_owned), "tickets");
    }

    #[test]
    fn a_panic_passes_through() {
        let panicked = catch_unwind(AssertUnwindSafe(|| KEY.with_seed(|_| panic!("as planned"))));
        assert!(panicked.is_err());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{KEY:?} {TICKET:?}"), "EmbeddedKey { .. } EmbeddedTicket { .. }");
    }
}
