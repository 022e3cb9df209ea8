//! The scan: what must not be found, in every form that scanners know, and the search for it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha512};

/// Bytes of a secret that are too many to be found together.
const WINDOW_BYTES: usize = 8;
/// Characters of base64. 8 bytes in base64 have at least 9 whole ones, so this finds any 8 bytes.
const BASE64_CHARS: usize = 8;
/// The first bytes of every pattern, by which it is looked up.
const LOOKUP_BYTES: usize = 8;
const FILTER_BITS: u32 = 20;

/// What must not be found.
pub(crate) struct Forbidden {
    patterns: HashMap<u64, Vec<Pattern>>,
    /// A bit for each hash of the first bytes of a pattern: most of what is searched gets no further than here.
    filter: Vec<u64>,
}

struct Pattern {
    bytes: Vec<u8>,
    what: String,
}

/// Where something was, and what; not the thing itself.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) what: String,
    pub(crate) place: String,
    pub(crate) offset: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} in {}", self.what, self.offset, self.place)
    }
}

impl Forbidden {
    pub(crate) fn new() -> Self {
        Self { patterns: HashMap::new(), filter: vec![0; 1 << (FILTER_BITS - 6)] }
    }

    /// A key: its seed, its expanded forms, its access secrets, and all as they are embedded.
    pub(crate) fn key(&mut self, seed: &[u8; 32], access: &[[u8; 32]]) {
        self.secret("the seed", seed);
        let mut expanded: [u8; 64] = Sha512::digest(seed).into();
        self.secret("the expanded key", &expanded);
        expanded[0] &= 0b1111_1000;
        expanded[31] = expanded[31] & 0b0111_1111 | 0b0100_0000;
        self.secret("the clamped key", &expanded);
        for secret in access {
            self.secret("an access secret", secret);
        }
        self.secret("the whole key", &[&seed[..], access.as_flattened()].concat());
    }

    /// A ticket: its text, in which addresses have to be as rare as the rest, and what its code stands for.
    pub(crate) fn ticket(&mut self, text: &str) {
        let code = text.split_once('#').expect("a ticket").1;
        self.secret("the ticket's text", text.strip_prefix("netchan://").expect("a ticket").as_bytes());
        self.secret("the ticket's code", &URL_SAFE_NO_PAD.decode(code).expect("a ticket"));
    }

    /// Every window of these bytes in every form.
    pub(crate) fn secret(&mut self, what: &str, bytes: &[u8]) {
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        for (order, bytes) in [("", bytes), (", reversed", &reversed)] {
            self.windows(bytes, WINDOW_BYTES, &format!("{what}{order}"));
            let lower: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            // As many characters as 8 bytes have: 8 characters of hexadecimal are four bytes, which occur by chance.
            for text in [lower.to_uppercase(), lower] {
                self.windows(text.as_bytes(), 2 * WINDOW_BYTES, &format!("{what} in hexadecimal{order}"));
            }
            for (alphabet, engine) in [("base64", STANDARD_NO_PAD), ("url-safe base64", URL_SAFE_NO_PAD)] {
                for before in 0..3 {
                    let text = engine.encode([&[0; 2][..before], bytes].concat());
                    // Only characters all of whose six bits are the secret's.
                    let (start, end) = (before * 8, (before + bytes.len()) * 8);
                    let whole = &text.as_bytes()[start.div_ceil(6)..end / 6];
                    self.windows(whole, BASE64_CHARS, &format!("{what} in {alphabet}{order}"));
                }
            }
        }
    }

    fn windows(&mut self, text: &[u8], length: usize, what: &str) {
        for window in text.windows(length) {
            let first =
                u64::from_le_bytes(*window.first_chunk::<LOOKUP_BYTES>().expect("windows are longer"));
            let (word, bit) = filter_place(first);
            self.filter[word] |= bit;
            let same = self.patterns.entry(first).or_default();
            if !same.iter().any(|pattern| pattern.bytes == window) {
                same.push(Pattern { bytes: window.to_vec(), what: what.to_owned() });
            }
        }
    }

    pub(crate) fn search(&self, place: &str, bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut last = 0u64;
        for (index, &byte) in bytes.iter().enumerate() {
            last = last >> 8 | u64::from(byte) << 56;
            let (word, bit) = filter_place(last);
            if self.filter[word] & bit == 0 || index + 1 < LOOKUP_BYTES {
                continue;
            }
            let offset = index + 1 - LOOKUP_BYTES;
            for pattern in self.patterns.get(&last).into_iter().flatten() {
                if bytes[offset..].starts_with(&pattern.bytes) {
                    found.push(Found { what: pattern.what.clone(), place: place.to_owned(), offset });
                }
            }
        }
        found
    }

    pub(crate) fn search_file(&self, path: &Path) -> Vec<Found> {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.search(&path.display().to_string(), &bytes)
    }

    /// Every file below `directory`, by name and content, and how many bytes that were.
    pub(crate) fn search_tree(&self, directory: &Path) -> (Vec<Found>, u64) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut directories = vec![directory.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).expect("a directory") {
                let entry = entry.expect("an entry");
                found.extend(self.search("a file's name", entry.file_name().as_encoded_bytes()));
                let metadata = entry.metadata().expect("its metadata");
                if metadata.is_dir() {
                    directories.push(entry.path());
                } else if metadata.is_file() {
                    found.extend(self.search_file(&entry.path()));
                    bytes += metadata.len();
                }
            }
        }
        (found, bytes)
    }
}

fn filter_place(first: u64) -> (usize, u64) {
    let hash = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}
