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

/// Values in the order of their arrival. The batch that is being taken apart is at hand, ahead of the other pieces.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    current: Vec<u8>,
    position: usize,
    pieces: VecDeque<Piece>,
}

impl Arrived {
    /// Adds a batch whose items were checked, from `position` on.
    pub(super) fn push_batch(&mut self, bytes: Vec<u8>, position: usize) {
        if self.position == self.current.len() && self.pieces.is_empty() {
            self.current = bytes;
            self.position = position;
        } else {
            self.pieces.push_back(Piece::Batch { bytes, position });
        }
    }

    /// Adds a value that came by itself.
    pub(super) fn push_single(&mut self, bytes: Bytes) {
        self.pieces.push_back(Piece::Single(bytes));
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
                self.current = bytes;
                self.position = position;
                Some(None)
            }
            Piece::Single(bytes) => Some(Some(bytes)),
        }
    }

    /// Lets go of a batch that has been taken apart.
    pub(super) fn trim(&mut self) {
        if self.position == self.current.len() && self.current.capacity() > 0 {
            self.current = Vec::new();
            self.position = 0;
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
