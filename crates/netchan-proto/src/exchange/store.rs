//! Encoded values, kept in common chunks: no allocation for each.

use bytes::{Bytes, BytesMut};

use crate::channel::Payload;

/// Small values share chunks of this size. What is kept of a chunk keeps all of it: a small one bounds what a receiver can pin
/// by holding one value of each.
const CHUNK_BYTES: usize = 4 * 1_024;

/// A longer value has memory of its own.
const SHARED_BYTES_MAX: usize = CHUNK_BYTES / 4;

#[derive(Debug, Default)]
pub(super) struct Store {
    chunk: BytesMut,
}

impl Store {
    /// Keeps a value.
    pub(super) fn keep(&mut self, value: Payload<'_>) -> Bytes {
        match value {
            Payload::Owned(bytes) => bytes,
            Payload::Slice(value) if value.len() > SHARED_BYTES_MAX => Bytes::copy_from_slice(value),
            Payload::Slice(value) => {
                if self.chunk.capacity() < value.len() {
                    self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
                }
                self.chunk.extend_from_slice(value);
                self.chunk.split().freeze()
            }
        }
    }

    /// Lets go of a chunk that has room left: nothing more comes for now.
    pub(super) fn park(&mut self) {
        self.chunk = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_share_chunks_and_stay_what_they_were() {
        let mut store = Store::default();
        let values: Vec<Vec<u8>> = (0..500_usize).map(|n| vec![n as u8; n * 7 % 1_500]).collect();
        let kept: Vec<Bytes> = values.iter().map(|value| store.keep(Payload::Slice(value))).collect();
        assert!(kept.iter().eq(&values));
        let one = store.keep(Payload::Slice(&[1; 50]));
        let two = store.keep(Payload::Slice(&[2; 50]));
        assert_eq!(one.as_ptr() as usize + 50, two.as_ptr() as usize, "side by side");
    }
}
