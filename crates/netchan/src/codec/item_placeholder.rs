//! Stands in for `netchan_proto::channel::item` until it exists.

use bytes::Bytes;

/// The message does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is larger than the channel allows")]
pub struct TooLarge;

/// The message being written.
#[derive(Debug)]
pub struct ItemBuf<'a> {
    batch: &'a mut Vec<u8>,
    start: usize,
    max: usize,
    shared: Option<Bytes>,
}

impl<'a> ItemBuf<'a> {
    /// A message of at most `max` bytes at the end of `batch`.
    pub fn new(batch: &'a mut Vec<u8>, max: usize) -> Self {
        let start = batch.len();
        Self { batch, start, max, shared: None }
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if bytes.len() > self.max - self.len() {
            return Err(TooLarge);
        }
        self.batch.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a byte.
    pub fn push(&mut self, byte: u8) -> Result<(), TooLarge> {
        self.extend(&[byte])
    }

    /// The whole message is `bytes`, without a copy.
    pub fn share(&mut self, bytes: Bytes) -> Result<(), TooLarge> {
        if bytes.len() > self.max {
            return Err(TooLarge);
        }
        self.shared = Some(bytes);
        Ok(())
    }

    /// What was shared.
    #[must_use]
    pub fn shared(&self) -> Option<&Bytes> {
        self.shared.as_ref()
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.as_ref().map_or(self.batch.len() - self.start, Bytes::len)
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message as it arrived.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// Part of a batch.
    Slice(&'a [u8]),
    /// A message of its own.
    Owned(Bytes),
}

impl Payload<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The bytes, owned; copies a slice.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Slice(slice) => Bytes::copy_from_slice(slice),
            Self::Owned(bytes) => bytes,
        }
    }
}
