//! Encoded values, kept by the sending end until they are taken, in the pieces in which they are sealed (`CHAN-3`).
//!
//! Invariants: pieces are in order and without gaps, the open batch follows the last of them; `sent` pieces from the
//! front have gone to the current link.

use std::collections::VecDeque;

use bytes::Bytes;

use super::item::{ItemBuf, Payload};
use crate::limits::{BATCH_BYTES, BATCHED_ITEM_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX};
use crate::wire::{Body, DataHeader, FRAGMENT_TRAILER_BYTES, split_item, varint_len};

/// A long value is cut so that each fragment but the last fills a record (`CHAN-5`).
const FRAGMENT_BYTES: usize = RECORD_PLAINTEXT_BYTES_MAX - FRAGMENT_TRAILER_BYTES;

#[derive(Debug)]
enum Piece {
    /// Values with their lengths, together one record.
    Batch { first_seq: u64, first_byte: u64, count: u64, bytes: Vec<u8> },
    /// One long value, cut into records as it leaves.
    Single { seq: u64, first_byte: u64, bytes: Bytes },
}

impl Piece {
    const fn first_seq(&self) -> u64 {
        match self {
            Self::Batch { first_seq, .. } => *first_seq,
            Self::Single { seq, .. } => *seq,
        }
    }

    /// How many bytes were committed on the channel before this piece.
    const fn first_byte(&self) -> u64 {
        match self {
            Self::Batch { first_byte, .. } | Self::Single { first_byte, .. } => *first_byte,
        }
    }

    const fn end_seq(&self) -> u64 {
        match self {
            Self::Batch { first_seq, count, .. } => *first_seq + *count,
            Self::Single { seq, .. } => *seq + 1,
        }
    }
}

/// The values of one sending end that are not known taken.
#[derive(Debug, Default)]
pub(super) struct Retained {
    pieces: VecDeque<Piece>,
    open: Vec<u8>,
    open_first: u64,
    open_first_byte: u64,
    open_count: u64,
    sent: usize,
    fragment_offset: usize,
    /// Width of the last length written: values of one type mostly need the same, so that nothing has to be moved.
    width: usize,
    last_was_long: bool,
    spare: Vec<u8>,
}

impl Retained {
    /// Encodes value number `seq`, before which `first_byte` bytes were committed, behind the others; returns its length.
    pub(super) fn append<R, E>(
        &mut self,
        seq: u64,
        first_byte: u64,
        bytes_max: usize,
        encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<R, E>,
    ) -> Result<(usize, R), AppendError<E>> {
        if self.last_was_long {
            self.close_batch();
        }
        if self.open_count == 0 {
            self.open_first = seq;
            self.open_first_byte = first_byte;
            if self.open.capacity() == 0 {
                self.open = std::mem::take(&mut self.spare);
            }
        }
        let width = self.width.clamp(1, 3);
        let start = self.open.len();
        let (len, shared, value) = {
            // The guard cuts the length off as well when the codec fails or panics.
            let mut guard = LengthGuard { batch: &mut self.open, start, kept: false };
            (0..width).for_each(|_| guard.batch.push(0));
            let mut item = ItemBuf::new(guard.batch, bytes_max);
            let result = encode(&mut item);
            if item.overflowed() {
                return Err(AppendError::TooLarge { bytes_max });
            }
            let value = result.map_err(AppendError::Encode)?;
            let len = item.len();
            let shared = item.keep();
            guard.kept = true;
            (len, shared, value)
        };
        self.last_was_long = len > BATCHED_ITEM_BYTES_MAX;
        if self.last_was_long {
            self.split_long(seq, first_byte, start, width, shared);
        } else {
            self.write_length(start, width, len);
            self.open_count += 1;
            if self.open.len() >= BATCH_BYTES {
                self.close_batch();
            }
        }
        Ok((len, value))
    }

    #[inline]
    fn write_length(&mut self, start: usize, reserved: usize, len: usize) {
        if reserved == 1 && len < 0x80 {
            self.open[start] = len as u8;
            return;
        }
        let needed = varint_len(len as u64);
        if needed != reserved {
            let end = self.open.len();
            if needed > reserved {
                self.open.resize(end + needed - reserved, 0);
            }
            self.open.copy_within(start + reserved..start + reserved + len, start + needed);
            self.open.truncate(start + needed + len);
            self.width = needed;
        }
        let mut rest = len;
        for byte in &mut self.open[start..start + needed] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.open[start + needed - 1] &= 0x7f;
    }

    fn split_long(&mut self, seq: u64, first_byte: u64, start: usize, width: usize, shared: Option<Bytes>) {
        let bytes = shared.unwrap_or_else(|| {
            if start == 0 {
                let capacity = self.open.len();
                Bytes::from(std::mem::replace(&mut self.open, Vec::with_capacity(capacity))).slice(width..)
            } else {
                Bytes::copy_from_slice(&self.open[start + width..])
            }
        });
        self.open.truncate(start);
        self.close_batch();
        self.pieces.push_back(Piece::Single { seq, first_byte, bytes });
        self.open_first = seq + 1;
    }

    /// Whether a whole piece waits for the link.
    pub(super) fn has_full_record(&self) -> bool {
        self.sent < self.pieces.len()
    }

    /// Whether anything has not gone to the current link.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.pieces.len() || self.open_count > 0
    }

    /// Whether the next record may go while the peer grants `limit_bytes` bytes (`FLOW-5`).
    pub(super) fn may_send(&self, limit_bytes: u64) -> bool {
        match self.pieces.get(self.sent) {
            Some(piece) => piece.first_byte() < limit_bytes,
            None => self.open_count > 0 && self.open_first_byte < limit_bytes,
        }
    }

    /// What follows starts a piece of its own.
    pub(super) fn close_batch(&mut self) {
        if self.open_count == 0 {
            return;
        }
        let mut next = std::mem::take(&mut self.spare);
        if next.capacity() == 0 && self.open.len() >= BATCH_BYTES / 2 {
            next.reserve_exact(BATCH_BYTES + BATCHED_ITEM_BYTES_MAX / 4);
        }
        let bytes = std::mem::replace(&mut self.open, next);
        let (first_seq, first_byte) = (self.open_first, self.open_first_byte);
        let piece = Piece::Batch { first_seq, first_byte, count: self.open_count, bytes };
        self.open_first = piece.end_seq();
        self.open_count = 0;
        self.pieces.push_back(piece);
    }

    /// The next record's header and body, or `None` when everything has gone.
    pub(super) fn next_record(&mut self) -> Option<(DataHeader, &[u8])> {
        if self.sent == self.pieces.len() {
            self.close_batch();
        }
        let (first_seq, body, bytes) = match self.pieces.get(self.sent)? {
            Piece::Batch { first_seq, bytes, .. } => (*first_seq, Body::Items, bytes.as_slice()),
            Piece::Single { seq, bytes, .. } => {
                let offset = self.fragment_offset;
                let end = bytes.len().min(offset + FRAGMENT_BYTES);
                // Both fit: a message is at most `u32::MAX` bytes long (`FLOW-8`).
                let body = Body::Fragment { total: bytes.len() as u32, offset: offset as u32 };
                (*seq, body, &bytes[offset..end])
            }
        };
        Some((DataHeader { first_seq, ack_now: false, body }, bytes))
    }

    /// The record that [`Retained::next_record`] gave has been sealed; returns the number of the next unsent value.
    pub(super) fn record_sealed(&mut self) -> u64 {
        match self.pieces.get(self.sent) {
            Some(Piece::Single { bytes, seq, .. }) if self.fragment_offset + FRAGMENT_BYTES < bytes.len() => {
                self.fragment_offset += FRAGMENT_BYTES;
                *seq + 1
            }
            Some(piece) => {
                self.sent += 1;
                self.fragment_offset = 0;
                piece.end_seq()
            }
            None => self.open_first,
        }
    }

    /// Lets go of what lies wholly below `taken`.
    pub(super) fn release(&mut self, taken: u64) {
        while self.pieces.front().is_some_and(|piece| piece.end_seq() <= taken) {
            if let Some(Piece::Batch { mut bytes, .. }) = self.pieces.pop_front() {
                bytes.clear();
                self.spare = bytes;
            }
            if self.sent == 0 {
                self.fragment_offset = 0;
            }
            self.sent = self.sent.saturating_sub(1);
        }
        if self.pieces.is_empty() && self.open_count == 0 {
            // An idle channel keeps no buffers.
            self.spare = Vec::new();
            if self.open.capacity() > 4_096 {
                self.open = Vec::new();
            }
        }
    }

    /// Starts again, for a new link, with the piece that holds `next_expected`.
    pub(super) fn restart(&mut self, next_expected: u64) {
        self.fragment_offset = 0;
        self.sent = self.pieces.iter().take_while(|piece| piece.end_seq() <= next_expected).count();
    }

    /// Drops every value from `seq` on; returns their bytes.
    pub(super) fn truncate(&mut self, seq: u64) -> u64 {
        self.close_batch();
        let mut removed = 0;
        while let Some(piece) = self.pieces.pop_back_if(|piece| piece.end_seq() > seq) {
            match piece {
                Piece::Single { bytes, .. } => removed += bytes.len() as u64,
                Piece::Batch { first_seq, first_byte, bytes, .. } => {
                    let mut kept = 0;
                    let mut rest = bytes.as_slice();
                    let mut number = first_seq;
                    while let Ok((item, after)) = split_item(rest) {
                        if number < seq {
                            kept = bytes.len() - after.len();
                        } else {
                            removed += item.len() as u64;
                        }
                        number += 1;
                        rest = after;
                    }
                    if first_seq < seq {
                        let mut bytes = bytes;
                        bytes.truncate(kept);
                        let count = seq - first_seq;
                        self.pieces.push_back(Piece::Batch { first_seq, first_byte, count, bytes });
                    }
                }
            }
        }
        if self.sent >= self.pieces.len() {
            self.sent = self.pieces.len();
            self.fragment_offset = 0;
        }
        self.open_first = seq;
        removed
    }

    /// Calls `visit` with every value numbered `seq` or above.
    pub(super) fn for_each_from(&self, seq: u64, mut visit: impl FnMut(u64, Payload<'_>)) {
        for piece in &self.pieces {
            match piece {
                Piece::Batch { first_seq, bytes, .. } => visit_batch(*first_seq, bytes, seq, &mut visit),
                Piece::Single { seq: number, bytes, .. } if *number >= seq => {
                    visit(*number, Payload::Owned(bytes.clone()));
                }
                Piece::Single { .. } => {}
            }
        }
        visit_batch(self.open_first, &self.open, seq, &mut visit);
    }

    /// The first value that is still here.
    pub(super) fn lowest(&self) -> u64 {
        self.pieces.front().map_or(self.open_first, Piece::first_seq)
    }

    /// Bytes held, for statistics and tests.
    pub(super) fn held_bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Batch { bytes, .. } => bytes.len(),
            Piece::Single { bytes, .. } => bytes.len(),
        });
        pieces.sum::<usize>() + self.open.len()
    }
}

fn visit_batch(first: u64, mut rest: &[u8], from: u64, visit: &mut impl FnMut(u64, Payload<'_>)) {
    let mut number = first;
    while let Ok((item, after)) = split_item(rest) {
        if number >= from {
            visit(number, Payload::Slice(item));
        }
        number += 1;
        rest = after;
    }
}

pub(super) enum AppendError<E> {
    TooLarge { bytes_max: usize },
    Encode(E),
}

struct LengthGuard<'a> {
    batch: &'a mut Vec<u8>,
    start: usize,
    kept: bool,
}

impl Drop for LengthGuard<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.batch.truncate(self.start);
        }
    }
}
