//! The record layer: `len u24 ‖ (channel u32 ‖ flags u8) ⊕ mask ‖ ciphertext ‖ tag16`.
//!
//! One sequence number per link direction runs over all channels, so a drop, a reorder or a replay anywhere shows on the
//! next record (`REC-6`). Each channel has its own keys and renews them on its own (`REC-8`).

mod buffer;
mod open;
mod seal;
#[cfg(test)]
mod tests;

pub use buffer::SealBuf;
pub use open::{Opener, Peek};
pub use seal::{RekeyLimits, Sealer};

use crate::id::ChannelId;
use crate::limits::{RECORD_HEADER_BYTES, RECORD_PLAINTEXT_BYTES_MAX, TAG_BYTES};

/// The one flag: whether the record's key epoch is odd (`REC-7`).
const PHASE: u8 = 1;

/// The length field: three bytes that count ciphertext and tag.
const LENGTH_BYTES: usize = 3;

/// What the length field may say (`REC-1`).
const LENGTHS: std::ops::RangeInclusive<usize> = TAG_BYTES..=RECORD_PLAINTEXT_BYTES_MAX + TAG_BYTES;

/// The eight bytes before the ciphertext, unmasked: this form is what the tag covers (`REC-3`).
fn header(sealed_bytes: usize, channel: ChannelId, phase: bool) -> [u8; RECORD_HEADER_BYTES] {
    debug_assert!(LENGTHS.contains(&sealed_bytes));
    let [.., a, b, c] = sealed_bytes.to_be_bytes();
    let [d, e, f, g] = channel.0.to_be_bytes();
    [a, b, c, d, e, f, g, if phase { PHASE } else { 0 }]
}

fn length(field: [u8; LENGTH_BYTES]) -> usize {
    field.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}
