//! Encoded values, kept by the sending end until they are taken, in the pieces in which they are sealed (`CHAN-3`).
//!
//! Invariants: pieces are in order and without gaps, the open batch follows the last of them; `sent` pieces from the
//! front have gone to the current link.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::item::{ItemBuf, Payload};
use crate::limits::{BATCH_BYTES, BATCHED_ITEM_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX};
use crate::wire::{Body, DataHeader, FRAGMENT_TRAILER_BYTES, split_item, varint_len};

/// A long value is cut so that each fragment but the last fills a record (`CHAN-5`).
const FRAGMENT_BYTES: usize = RECORD_PLAINTEXT_BYTES_MAX - FRAGMENT_TRAILER_BYTES;

/// Room for a batch that is almost closed and one more value, with its length: such a buffer never grows.
const BATCH_ROOM_BYTES: usize = BATCH_BYTES + BATCHED_ITEM_BYTES_MAX + 8;

/// Buffers kept for the next batches while a stream goes on: two megabytes, about what comes back with one report.
const SPARES_MAX: usize = 32;

/// An open batch so small may stay with an idle channel.
const SMALL_BYTES: usize = 1_024;

/// A long value gives back what its buffer has beyond one part in so many.
const SLACK_PART: usize = 8;

#[derive(Debug)]
enum Piece {
    /// Values with their lengths in the first `len` of these bytes, together one record.
    Batch { first_seq: u64, first_byte: u64, count: u64, bytes: Arc<Vec<u8>>, len: usize },
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

/// What a record carries, held in common with the piece it comes from, so that it can be sealed with no channel locked.
#[derive(Clone, Debug)]
pub struct Record {
    /// What is said behind the body.
    pub header: DataHeader,
    bytes: RecordBytes,
}

#[derive(Clone, Debug)]
enum RecordBytes {
    Batch(Arc<Vec<u8>>, usize),
    Part(Bytes),
}

impl Record {
    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        match &self.bytes {
            RecordBytes::Batch(bytes, len) => &bytes[..*len],
            RecordBytes::Part(bytes) => bytes,
        }
    }
}

/// The values of one sending end that are not known taken.
#[derive(Debug, Default)]
pub(super) struct Retained {
    pieces: VecDeque<Piece>,
    /// The open batch: its first `open_len` bytes. What follows them is room, written to once and never cleared.
    open: Vec<u8>,
    open_len: usize,
    open_first: u64,
    open_first_byte: u64,
    open_count: u64,
    sent: usize,
    fragment_offset: usize,
    /// Width of the last length written: values of one type mostly need the same, so that nothing has to be moved.
    width: usize,
    last_was_long: bool,
    /// Buffers of batches that were taken, for the next ones.
    spares: Vec<Vec<u8>>,
    /// A whole batch was closed since [`Retained::park`]: the next will want its buffers.
    streaming: bool,
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
        if self.open.len() > BATCH_ROOM_BYTES {
            self.shrink_open();
        }
        if self.open_count == 0 {
            self.open_first = seq;
            self.open_first_byte = first_byte;
            if self.open.is_empty() {
                self.open = self.spares.pop().unwrap_or_default();
            }
        }
        let width = self.width.clamp(1, 3);
        let start = self.open_len;
        // The length counts only once `open_len` has moved: when the codec fails or panics, nothing has happened.
        let mut item = ItemBuf::within(&mut self.open, start + width, bytes_max);
        let result = encode(&mut item);
        if item.overflowed() {
            return Err(AppendError::TooLarge { bytes_max });
        }
        let value = result.map_err(AppendError::Encode)?;
        let len = item.len();
        let shared = item.keep();
        self.last_was_long = len > BATCHED_ITEM_BYTES_MAX;
        if self.last_was_long {
            self.split_long(seq, first_byte, start + width, len, shared);
        } else {
            self.write_length(start, width, len);
            self.open_count += 1;
            if self.open_len >= BATCH_BYTES {
                self.close_batch();
            }
        }
        Ok((len, value))
    }

    /// A long value, or one that failed, has left its room behind: a batch needs no more than its own.
    #[cold]
    fn shrink_open(&mut self) {
        self.open.truncate(BATCH_ROOM_BYTES.max(self.open_len));
        self.open.shrink_to_fit();
    }

    #[inline]
    fn write_length(&mut self, start: usize, reserved: usize, len: usize) {
        if reserved == 1 && len < 0x80 && start < self.open.len() {
            self.open[start] = len as u8;
            self.open_len = start + 1 + len;
        } else {
            self.write_any_length(start, reserved, len);
        }
    }

    fn write_any_length(&mut self, start: usize, reserved: usize, len: usize) {
        let needed = varint_len(len as u64);
        self.open_len = start + needed + len;
        if self.open_len > self.open.len() {
            self.open.resize(self.open_len, 0);
        }
        if needed != reserved {
            if len > 0 {
                let from = start + reserved;
                self.open.copy_within(from..from + len, start + needed);
            }
            self.width = needed;
        }
        let mut rest = len;
        for byte in &mut self.open[start..start + needed] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.open[start + needed - 1] &= 0x7f;
    }

    /// A long value lies at `at` behind the open batch, unless it is shared.
    fn split_long(&mut self, seq: u64, first_byte: u64, at: usize, len: usize, shared: Option<Bytes>) {
        let bytes = shared.unwrap_or_else(|| {
            if self.open_len == 0 {
                let mut bytes = std::mem::take(&mut self.open);
                bytes.truncate(at + len);
                if bytes.capacity() - bytes.len() > bytes.len() / SLACK_PART {
                    bytes.shrink_to_fit();
                }
                Bytes::from(bytes).slice(at..)
            } else {
                Bytes::copy_from_slice(&self.open[at..at + len])
            }
        });
        if self.open.len() > BATCH_ROOM_BYTES {
            self.shrink_open();
        }
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
        let whole = self.open_len >= BATCH_BYTES / 2;
        self.streaming |= whole;
        let mut next = self.spares.pop().unwrap_or_default();
        if next.is_empty() && whole {
            next = vec![0; BATCH_ROOM_BYTES];
        }
        let bytes = Arc::new(std::mem::replace(&mut self.open, next));
        let (first_seq, first_byte) = (self.open_first, self.open_first_byte);
        let (count, len) = (self.open_count, self.open_len);
        self.open_first = first_seq + count;
        self.open_count = 0;
        self.open_len = 0;
        self.pieces.push_back(Piece::Batch { first_seq, first_byte, count, bytes, len });
    }

    /// The next record, which counts as sent from now on, and the number of the next unsent value behind it; or `None` when
    /// everything has gone.
    pub(super) fn take_record(&mut self) -> Option<(Record, u64)> {
        if self.sent == self.pieces.len() {
            self.close_batch();
        }
        let piece = self.pieces.get(self.sent)?;
        let next_seq = piece.end_seq();
        let (first_seq, body, bytes) = match piece {
            Piece::Batch { first_seq, bytes, len, .. } => {
                (*first_seq, Body::Items, RecordBytes::Batch(Arc::clone(bytes), *len))
            }
            Piece::Single { seq, bytes, .. } => {
                let offset = self.fragment_offset;
                let end = bytes.len().min(offset + FRAGMENT_BYTES);
                // Both fit: a message is at most `u32::MAX` bytes long (`FLOW-8`).
                let body = Body::Fragment { total: bytes.len() as u32, offset: offset as u32 };
                self.fragment_offset = end;
                if end < bytes.len() {
                    let header = DataHeader { first_seq: *seq, ack_now: false, redelivered: false, body };
                    return Some((
                        Record { header, bytes: RecordBytes::Part(bytes.slice(offset..end)) },
                        next_seq,
                    ));
                }
                (*seq, body, RecordBytes::Part(bytes.slice(offset..end)))
            }
        };
        self.sent += 1;
        self.fragment_offset = 0;
        Some((
            Record { header: DataHeader { first_seq, ack_now: false, redelivered: false, body }, bytes },
            next_seq,
        ))
    }

    /// How many bytes were committed before the oldest value that is kept, or kept with one that is.
    pub(super) fn first_byte(&self) -> Option<u64> {
        let open = (self.open_count > 0).then_some(self.open_first_byte);
        self.pieces.front().map(Piece::first_byte).or(open)
    }

    /// Lets go of what lies wholly below `taken`.
    pub(super) fn release(&mut self, taken: u64) {
        while self.pieces.front().is_some_and(|piece| piece.end_seq() <= taken) {
            if let Some(Piece::Batch { bytes, .. }) = self.pieces.pop_front()
                && self.spares.len() < SPARES_MAX
                && let Ok(bytes) = Arc::try_unwrap(bytes)
                && bytes.capacity() <= BATCH_ROOM_BYTES
            {
                self.spares.push(bytes);
            }
            if self.sent == 0 {
                self.fragment_offset = 0;
            }
            self.sent = self.sent.saturating_sub(1);
        }
        if !self.streaming {
            self.free_if_drained();
        }
    }

    /// Gives the buffers of a channel back that has nothing to send, unless whole batches went through since the last call.
    /// Says whether they did.
    pub(super) fn park(&mut self) -> bool {
        let streaming = std::mem::take(&mut self.streaming);
        if !streaming {
            self.free_if_drained();
        }
        streaming
    }

    fn free_if_drained(&mut self) {
        if self.pieces.is_empty() && self.open_count == 0 {
            self.spares = Vec::new();
            if self.open.capacity() > SMALL_BYTES {
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
                Piece::Batch { first_seq, first_byte, bytes, len, .. } => {
                    let mut kept = 0;
                    let mut rest = &bytes[..len];
                    let mut number = first_seq;
                    while let Ok((item, after)) = split_item(rest) {
                        if number < seq {
                            kept = len - after.len();
                        } else {
                            removed += item.len() as u64;
                        }
                        number += 1;
                        rest = after;
                    }
                    if first_seq < seq {
                        let count = seq - first_seq;
                        self.pieces.push_back(Piece::Batch {
                            first_seq,
                            first_byte,
                            count,
                            bytes,
                            len: kept,
                        });
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
                Piece::Batch { first_seq, bytes, len, .. } => {
                    visit_batch(*first_seq, &bytes[..*len], seq, &mut visit);
                }
                Piece::Single { seq: number, bytes, .. } if *number >= seq => {
                    visit(*number, Payload::Owned(bytes.clone()));
                }
                Piece::Single { .. } => {}
            }
        }
        visit_batch(self.open_first, &self.open[..self.open_len], seq, &mut visit);
    }

    /// The first value that is still here.
    pub(super) fn lowest(&self) -> u64 {
        self.pieces.front().map_or(self.open_first, Piece::first_seq)
    }

    /// Bytes held, for statistics and tests.
    pub(super) fn held_bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Batch { len, .. } => *len,
            Piece::Single { bytes, .. } => bytes.len(),
        });
        pieces.sum::<usize>() + self.open_len
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
