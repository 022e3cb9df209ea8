//! Where a value is encoded to, and what it is decoded from.

use bytes::Bytes;

use super::PushError;
use crate::limits::BATCHED_ITEM_BYTES_MAX;

/// What an empty buffer grows to first.
const ROOM_BYTES_MIN: usize = 256;

/// The encoded value is longer than a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the encoded message is longer than {bytes_max} bytes")]
pub struct TooLarge {
    /// The limit.
    pub bytes_max: usize,
}

/// Takes one encoded value, straight into the channel's open batch.
///
/// What a codec leaves behind when it fails or panics is cut off again: the batch is as it was (`CHAN-4`).
#[derive(Debug)]
pub struct ItemBuf<'a> {
    /// Everything up to its length may be written to; what lies beyond `end` means nothing. It is at home elsewhere, and here
    /// only while it is written to: to reach it there would cost a load for every byte.
    room: Vec<u8>,
    home: &'a mut Vec<u8>,
    start: usize,
    /// Where the next byte goes; out of reach while the value is a shared one, so that one comparison guards the fast path.
    end: usize,
    shared: Option<Bytes>,
    bytes_max: usize,
    overflow: bool,
    /// What to cut the buffer to if the value is not kept; `None` where the owner knows its length by other means.
    cut: Option<usize>,
}

impl<'a> ItemBuf<'a> {
    /// Appends behind what `buffer` holds.
    #[must_use]
    pub fn new(buffer: &'a mut Vec<u8>, bytes_max: usize) -> Self {
        let start = buffer.len();
        let mut item = Self::within(buffer, start, bytes_max);
        item.cut = Some(start);
        item
    }

    /// Writes over what `room` holds from `start` on.
    #[inline]
    pub(super) fn within(home: &'a mut Vec<u8>, start: usize, bytes_max: usize) -> Self {
        let room = std::mem::take(home);
        Self { room, home, start, end: start, shared: None, bytes_max, overflow: false, cut: None }
    }

    /// Bytes written so far.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.shared.as_ref().map_or(self.end - self.start, Bytes::len)
    }

    /// Whether nothing has been written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`TooLarge`] when the value grows over the limit for one message.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let mut writer = self.writer();
        writer.extend(bytes)?;
        writer.finish();
        Ok(())
    }

    /// Appends one byte.
    ///
    /// # Errors
    /// [`TooLarge`] when the value grows over the limit for one message.
    #[inline]
    pub fn push(&mut self, byte: u8) -> Result<(), TooLarge> {
        let mut writer = self.writer();
        writer.push(byte)?;
        writer.finish();
        Ok(())
    }

    /// Writes many small pieces, faster than one call for each here.
    #[must_use]
    #[inline]
    pub const fn writer<'w>(&'w mut self) -> ItemWriter<'w, 'a> {
        let end = self.end;
        ItemWriter { item: self, end }
    }

    /// Makes `bytes` the whole value. A long one is kept and sealed from where it is, without a copy.
    ///
    /// # Errors
    /// [`TooLarge`] when it is over the limit for one message.
    pub fn share(&mut self, bytes: Bytes) -> Result<(), TooLarge> {
        if bytes.len() <= BATCHED_ITEM_BYTES_MAX || !self.is_empty() {
            return self.extend(&bytes);
        }
        self.check(bytes.len())?;
        self.shared = Some(bytes);
        self.end = usize::MAX;
        Ok(())
    }

    /// As [`ItemBuf::share`], for one of many: it is kept only if it is long.
    ///
    /// # Errors
    /// As [`ItemBuf::share`].
    #[inline]
    pub fn share_one_of_many(&mut self, bytes: &Bytes) -> Result<(), TooLarge> {
        if bytes.len() <= BATCHED_ITEM_BYTES_MAX { self.extend(bytes) } else { self.share(bytes.clone()) }
    }

    fn check(&mut self, len: usize) -> Result<(), TooLarge> {
        if len > self.bytes_max {
            self.overflow = true;
            return Err(TooLarge { bytes_max: self.bytes_max });
        }
        Ok(())
    }

    /// Makes room for `additional` bytes at `end`, and says where they go.
    #[cold]
    fn make_room(&mut self, mut end: usize, additional: usize) -> Result<usize, TooLarge> {
        if let Some(shared) = self.shared.take() {
            // It was not the whole value after all.
            self.end = self.start;
            end = self.make_room(self.start, shared.len())? + shared.len();
            self.room[self.start..end].copy_from_slice(&shared);
            self.end = end;
        }
        let need = end.saturating_add(additional);
        self.check(need - self.start)?;
        if need > self.room.len() {
            let most = self.start.saturating_add(self.bytes_max);
            self.room.resize((2 * self.room.len()).max(ROOM_BYTES_MIN).min(most).max(need), 0);
        }
        Ok(end)
    }

    /// The limit for one message.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether the value did not fit, whatever the codec made of that.
    #[must_use]
    #[inline]
    pub fn overflowed(&self) -> bool {
        self.overflow || self.len() > self.bytes_max
    }

    /// Keeps what was written. A shared value is returned: it is not in the buffer.
    #[inline]
    pub(super) fn keep(mut self) -> Option<Bytes> {
        if self.cut.is_some() {
            self.cut = Some(if self.shared.is_some() { self.start } else { self.end });
        }
        self.shared.take()
    }
}

impl Drop for ItemBuf<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(len) = self.cut {
            self.room.truncate(len);
        }
        *self.home = std::mem::take(&mut self.room);
    }
}

/// Writes into an [`ItemBuf`], with its place in a register and not in memory.
///
/// What was written counts once [`ItemWriter::finish`] is called.
#[derive(Debug)]
pub struct ItemWriter<'w, 'a> {
    item: &'w mut ItemBuf<'a>,
    end: usize,
}

impl ItemWriter<'_, '_> {
    /// Appends one byte.
    ///
    /// # Errors
    /// [`TooLarge`] when the value grows over the limit for one message.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> Result<(), TooLarge> {
        if self.end >= self.item.room.len() {
            self.end = self.item.make_room(self.end, 1)?;
        }
        self.item.room[self.end] = byte;
        self.end += 1;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`TooLarge`] when the value grows over the limit for one message.
    #[inline(always)]
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if self.end.saturating_add(bytes.len()) > self.item.room.len() {
            self.end = self.item.make_room(self.end, bytes.len())?;
        }
        self.item.room[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
        Ok(())
    }

    /// Appends a varint: seven bits a byte, the lowest first.
    ///
    /// # Errors
    /// [`TooLarge`] when the value grows over the limit for one message.
    #[inline(always)]
    pub fn varint(&mut self, mut number: u64) -> Result<(), TooLarge> {
        while number >= 0x80 {
            self.push(number as u8 | 0x80)?;
            number >>= 7;
        }
        self.push(number as u8)
    }

    /// The value has these bytes now.
    #[inline(always)]
    pub fn finish(self) {
        self.item.end = self.end;
    }
}

/// Encodes one value by itself: for a value that is kept before it is known where it goes.
///
/// # Errors
/// [`PushError::TooLarge`] or [`PushError::Encode`].
pub fn encode_alone<E>(
    bytes_max: usize,
    encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<(), E>,
) -> Result<Bytes, PushError<E>> {
    let mut buffer = Vec::new();
    let mut item = ItemBuf::new(&mut buffer, bytes_max);
    let result = encode(&mut item);
    if item.overflowed() {
        return Err(PushError::TooLarge { bytes_max });
    }
    result.map_err(PushError::Encode)?;
    let shared = item.keep();
    Ok(shared.unwrap_or_else(|| {
        // Many may wait for long: none keeps the room that it was written in.
        buffer.shrink_to_fit();
        Bytes::from(buffer)
    }))
}

/// Encodes one value into `scratch`, over what that held, and calls `f` with it: for a value that is copied to where it goes. A
/// long one takes the memory along.
///
/// # Errors
/// [`PushError::TooLarge`] or [`PushError::Encode`].
pub fn encode_with<E, R>(
    scratch: &mut Vec<u8>,
    bytes_max: usize,
    encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<(), E>,
    f: impl FnOnce(Payload<'_>) -> R,
) -> Result<R, PushError<E>> {
    let mut item = ItemBuf::within(scratch, 0, bytes_max);
    let result = encode(&mut item);
    if item.overflowed() {
        return Err(PushError::TooLarge { bytes_max });
    }
    result.map_err(PushError::Encode)?;
    let len = item.len();
    if let Some(shared) = item.keep() {
        return Ok(f(Payload::Owned(shared)));
    }
    if len > BATCHED_ITEM_BYTES_MAX {
        let mut bytes = std::mem::take(scratch);
        bytes.truncate(len);
        bytes.shrink_to_fit();
        return Ok(f(Payload::Owned(Bytes::from(bytes))));
    }
    Ok(f(Payload::Slice(&scratch[..len])))
}

/// One received value, still encoded.
#[derive(Debug)]
pub enum Payload<'a> {
    /// It lies in a batch with its neighbours.
    Slice(&'a [u8]),
    /// It arrived as a piece of its own.
    Owned(Bytes),
}

impl Payload<'_> {
    /// The encoded bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The encoded bytes as a value of their own; copies only what lies in a batch.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Slice(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => bytes,
        }
    }
}
