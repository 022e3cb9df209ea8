//! Data records: the body first, then a trailer, so that a body is sealed straight from where it is retained (`WIRE-20`).
//!
//! ```text
//! items:    (length varint ‖ value)*                              ‖ first_seq u64 ‖ flags u8
//! fragment: part of one value          ‖ total u32 ‖ offset u32   ‖ seq u64       ‖ flags u8
//! ```

use super::{Reader, WireError};

/// Bytes of a trailer behind items.
pub const ITEMS_TRAILER_BYTES: usize = 9;
/// Bytes of a trailer behind a fragment.
pub const FRAGMENT_TRAILER_BYTES: usize = 17;

const ACK_NOW: u8 = 1;
const FRAGMENT: u8 = 2;
const REDELIVERED: u8 = 4;

/// What a data record's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Whole values, each behind its length.
    Items,
    /// A part of one value.
    Fragment {
        /// The whole value's length.
        total: u32,
        /// Where this part starts.
        offset: u32,
    },
}

/// What a data record says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The number of the first value in the record.
    pub first_seq: u64,
    /// The sender waits: report as soon as there is something to report.
    pub ack_now: bool,
    /// Its values may have been received before: on another channel, in a session that was lost.
    pub redelivered: bool,
    /// What the body is.
    pub body: Body,
}

/// An encoded trailer.
#[derive(Clone, Copy, Debug)]
pub struct Trailer {
    bytes: [u8; FRAGMENT_TRAILER_BYTES],
    start: usize,
}

impl Trailer {
    /// The trailer's bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DataHeader {
    /// Encodes the trailer.
    #[must_use]
    pub fn trailer(&self) -> Trailer {
        let mut bytes = [0; FRAGMENT_TRAILER_BYTES];
        let mut flags = if self.ack_now { ACK_NOW } else { 0 };
        flags |= if self.redelivered { REDELIVERED } else { 0 };
        let mut start = FRAGMENT_TRAILER_BYTES - ITEMS_TRAILER_BYTES;
        if let Body::Fragment { total, offset } = self.body {
            flags |= FRAGMENT;
            start = 0;
            bytes[..4].copy_from_slice(&total.to_be_bytes());
            bytes[4..8].copy_from_slice(&offset.to_be_bytes());
        }
        bytes[8..16].copy_from_slice(&self.first_seq.to_be_bytes());
        bytes[16] = flags;
        Trailer { bytes, start }
    }

    /// Splits a record's plaintext into its header and the length of its body.
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::Invalid`] for flags or a fragment that cannot be.
    pub fn split(plaintext: &[u8]) -> Result<(Self, usize), WireError> {
        let (rest, tail) = plaintext.split_last_chunk::<ITEMS_TRAILER_BYTES>().ok_or(WireError::Truncated)?;
        let [seq @ .., flags] = *tail;
        if flags & !(ACK_NOW | FRAGMENT | REDELIVERED) != 0 {
            return Err(WireError::Invalid("data flags"));
        }
        let (body, len) = if flags & FRAGMENT == 0 {
            (Body::Items, rest.len())
        } else {
            let (part, place) = rest.split_last_chunk::<8>().ok_or(WireError::Truncated)?;
            let [total @ .., _, _, _, _] = *place;
            let [_, _, _, _, offset @ ..] = *place;
            let (total, offset) = (u32::from_be_bytes(total), u32::from_be_bytes(offset));
            let end = u64::from(offset) + part.len() as u64;
            if end > u64::from(total) || (part.is_empty() && total != 0) {
                return Err(WireError::Invalid("fragment outside its message"));
            }
            (Body::Fragment { total, offset }, part.len())
        };
        let (ack_now, redelivered) = (flags & ACK_NOW != 0, flags & REDELIVERED != 0);
        Ok((Self { first_seq: u64::from_be_bytes(seq), ack_now, redelivered, body }, len))
    }
}

/// Splits the first value from a body of items.
///
/// # Errors
/// A [`WireError`] when the body is not well formed.
#[inline]
pub fn split_item(body: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut reader = Reader::new(body);
    let len = usize::try_from(reader.varint()?).map_err(|_| WireError::Truncated)?;
    let item = reader.bytes(len)?;
    Ok((item, reader.rest()))
}

/// What a body of items holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemCount {
    /// How many values.
    pub count: u64,
    /// Their bytes, lengths not counted.
    pub bytes: u64,
    /// The bytes of the last one.
    pub last_bytes: u64,
}

/// Checks a whole body of items, so that taking them apart later cannot fail.
///
/// # Errors
/// A [`WireError`] when the body is not well formed.
pub fn count_items(mut body: &[u8]) -> Result<ItemCount, WireError> {
    let mut total = ItemCount::default();
    while !body.is_empty() {
        let (item, rest) = split_item(body)?;
        total.count += 1;
        total.last_bytes = item.len() as u64;
        total.bytes += total.last_bytes;
        body = rest;
    }
    Ok(total)
}
