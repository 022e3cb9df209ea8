//! Values that have arrived and were not taken, in the pieces in which they came.

use std::collections::VecDeque;

use bytes::Bytes;

use super::item::Payload;
use crate::wire::split_item;

#[derive(Debug)]
enum Piece {
    Batch { bytes: Vec<u8>, position: usize },
    Single(Bytes),
}

/// Emptied buffers at least this large are kept for the next batches: a stream has them, a few values do not.
const SPARE_BYTES_MIN: usize = 8 * 1_024;

/// A buffer may be so many times as large as what it holds; else what waits to be taken costs far more than it counts.
pub(super) const WASTE_MAX: usize = 4;

/// How many are kept while a stream goes on: a megabyte at most, by which arrivals and takes may be out of step.
const SPARES_MAX: usize = 16;

/// Memory for a record's plaintext.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// What is to be kept: the parts of a message that came before.
    keep: usize,
}

impl Buffer {
    /// Makes room for `plaintext_len` bytes at the end; returns where they start.
    #[must_use]
    pub fn for_record(self, plaintext_len: usize) -> (Vec<u8>, usize) {
        let Self { mut bytes, keep } = self;
        bytes.resize(keep + plaintext_len, 0);
        (bytes, keep)
    }
}

/// Values in the order of their arrival. The batch that is being taken apart is at hand, ahead of the other pieces.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    current: Vec<u8>,
    position: usize,
    pieces: VecDeque<Piece>,
    spares: Vec<Vec<u8>>,
    /// Something arrived since [`Arrived::park`].
    streaming: bool,
}

impl Arrived {
    /// Memory for a record of `plaintext_len` bytes behind the parts that came before. What a spare held has been taken, and
    /// is written over.
    pub(super) fn buffer(&mut self, partial: Option<Vec<u8>>, plaintext_len: usize) -> Buffer {
        if let Some(bytes) = partial {
            return Buffer { keep: bytes.len(), bytes };
        }
        let bytes =
            self.spares.pop_if(|spare| spare.capacity() <= WASTE_MAX * plaintext_len).unwrap_or_default();
        Buffer { keep: 0, bytes }
    }

    /// Adds a batch whose items were checked, from `position` on.
    pub(super) fn push_batch(&mut self, bytes: Vec<u8>, position: usize) {
        self.streaming = true;
        if self.position == self.current.len() && self.pieces.is_empty() {
            let emptied = std::mem::replace(&mut self.current, bytes);
            self.spare(emptied);
            self.position = position;
        } else {
            self.pieces.push_back(Piece::Batch { bytes, position });
        }
    }

    /// Adds a value that came by itself.
    pub(super) fn push_single(&mut self, bytes: Bytes) {
        self.pieces.push_back(Piece::Single(bytes));
    }

    /// The first byte of the next value, if there is one that is not empty.
    pub(super) fn peek_byte(&self) -> Option<u8> {
        let first = |batch: &[u8]| split_item(batch).ok().and_then(|(item, _)| item.first().copied());
        if self.position < self.current.len() {
            return first(&self.current[self.position..]);
        }
        match self.pieces.front()? {
            Piece::Batch { bytes, position } => first(&bytes[*position..]),
            Piece::Single(bytes) => bytes.first().copied(),
        }
    }

    /// Takes the next value.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Payload<'_>> {
        if self.position == self.current.len()
            && let Some(single) = self.advance()?
        {
            return Some(Payload::Owned(single));
        }
        let from = self.position;
        let (start, len) = match self.current.get(from) {
            // Nearly always.
            Some(&len) if len < 0x80 => (from + 1, usize::from(len)),
            _ => {
                let (item, rest) = split_item(&self.current[from..]).ok()?;
                (self.current.len() - rest.len() - item.len(), item.len())
            }
        };
        self.position = start + len;
        self.current.get(start..start + len).map(Payload::Slice)
    }

    /// Moves on to the next piece; a value that came by itself is returned.
    #[cold]
    fn advance(&mut self) -> Option<Option<Bytes>> {
        match self.pieces.pop_front()? {
            Piece::Batch { bytes, position } => {
                let emptied = std::mem::replace(&mut self.current, bytes);
                self.spare(emptied);
                self.position = position;
                Some(None)
            }
            Piece::Single(bytes) => Some(Some(bytes)),
        }
    }

    fn spare(&mut self, emptied: Vec<u8>) {
        if emptied.capacity() >= SPARE_BYTES_MIN && self.spares.len() < SPARES_MAX {
            self.spares.push(emptied);
        }
    }

    /// Lets go of a batch that has been taken apart.
    pub(super) fn trim(&mut self) {
        if self.position == self.current.len() && self.position > 0 {
            self.position = 0;
            let emptied = std::mem::take(&mut self.current);
            self.spare(emptied);
        }
    }

    /// Gives the buffers back, unless something arrived since the last call. Says whether something did.
    pub(super) fn park(&mut self) -> bool {
        let streaming = std::mem::take(&mut self.streaming);
        if !streaming {
            self.trim();
            self.spares = Vec::new();
        }
        streaming
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
