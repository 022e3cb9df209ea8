//! Where a value is encoded to, and what it is decoded from.

use bytes::Bytes;

use super::PushError;
use crate::limits::BATCHED_ITEM_BYTES_MAX;

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
    batch: &'a mut Vec<u8>,
    start: usize,
    shared: Option<Bytes>,
    /// How long the batch may grow; 0 while the value is a shared one, so that one comparison guards the fast path.
    end_max: usize,
    bytes_max: usize,
    overflow: bool,
    kept: bool,
}

impl<'a> ItemBuf<'a> {
    /// Appends behind what `batch` holds.
    #[must_use]
    pub fn new(batch: &'a mut Vec<u8>, bytes_max: usize) -> Self {
        let start = batch.len();
        let end_max = start.saturating_add(bytes_max);
        Self { batch, start, shared: None, end_max, bytes_max, overflow: false, kept: false }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.as_ref().map_or(self.batch.len() - self.start, Bytes::len)
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
    #[inline(always)]
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if self.batch.len().saturating_add(bytes.len()) > self.end_max {
            self.make_room(bytes.len())?;
        }
        self.batch.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends one byte.
    ///
    /// # Errors
    /// [`TooLarge`] when the value grows over the limit for one message.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> Result<(), TooLarge> {
        if self.batch.len() >= self.end_max {
            self.make_room(1)?;
        }
        self.batch.push(byte);
        Ok(())
    }

    /// Makes `bytes` the whole value. A long one is kept and sealed from where it is, without a copy.
    ///
    /// # Errors
    /// [`TooLarge`] when it is over the limit for one message.
    pub fn share(&mut self, bytes: Bytes) -> Result<(), TooLarge> {
        if bytes.len() <= BATCHED_ITEM_BYTES_MAX || !self.is_empty() {
            return self.extend(&bytes);
        }
        self.make_room(bytes.len())?;
        self.shared = Some(bytes);
        self.end_max = 0;
        Ok(())
    }

    #[cold]
    fn make_room(&mut self, additional: usize) -> Result<(), TooLarge> {
        if let Some(shared) = self.shared.take() {
            self.batch.extend_from_slice(&shared);
            self.end_max = self.start.saturating_add(self.bytes_max);
        }
        if self.batch.len() - self.start + additional > self.bytes_max {
            self.overflow = true;
            return Err(TooLarge { bytes_max: self.bytes_max });
        }
        Ok(())
    }

    /// Whether the value did not fit, whatever the codec made of that.
    pub(super) const fn overflowed(&self) -> bool {
        self.overflow
    }

    /// Keeps what was written. A shared value is returned: it is not in the batch.
    pub(super) fn keep(mut self) -> Option<Bytes> {
        self.kept = true;
        self.shared.take()
    }
}

impl Drop for ItemBuf<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.batch.truncate(self.start);
        }
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
    Ok(shared.unwrap_or_else(|| Bytes::from(buffer)))
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
