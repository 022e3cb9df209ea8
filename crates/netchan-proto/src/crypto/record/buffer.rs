//! The write buffer that records are sealed into.

use std::fmt;

/// A buffer of fixed capacity: records are sealed into its end and written from its front.
///
/// Its memory is initialised once, when it is made, and once more if it was begun small and that does not do; sealing and
/// writing never clear or move it, except that a remainder moves to the front when a record would not fit behind it.
/// Invariant: `start <= end <= memory.len() <= capacity`, and both are zero when nothing is filled.
pub struct SealBuf {
    memory: Box<[u8]>,
    capacity: usize,
    start: usize,
    end: usize,
}

impl SealBuf {
    /// A buffer of `capacity` bytes; [`WRITE_BUFFER_BYTES`](crate::limits::WRITE_BUFFER_BYTES) holds two full records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::begun_with(capacity, capacity)
    }

    /// The same, with memory for `bytes` at first: a link that says little never needs more.
    #[must_use]
    pub fn begun_with(bytes: usize, capacity: usize) -> Self {
        Self { memory: vec![0; bytes.min(capacity)].into_boxed_slice(), capacity, start: 0, end: 0 }
    }

    /// What is sealed and not yet written.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Forgets the first `bytes` of what is filled, all of it if there is less.
    pub fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// How many more bytes fit.
    #[must_use]
    pub fn space(&self) -> usize {
        self.capacity - self.len()
    }

    /// How many bytes are filled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes fit when nothing is filled.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The next `bytes` to write into, if they fit; they count only once [`commit`](Self::commit)ted.
    pub(super) fn reserve(&mut self, bytes: usize) -> Option<&mut [u8]> {
        if self.space() < bytes {
            return None;
        }
        if self.memory.len() - self.end < bytes {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.memory.len() - self.end < bytes {
            let mut memory = vec![0; self.capacity].into_boxed_slice();
            memory[..self.end].copy_from_slice(&self.memory[..self.end]);
            self.memory = memory;
        }
        self.memory.get_mut(self.end..self.end + bytes)
    }

    pub(super) fn commit(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.memory.len());
    }
}

impl fmt::Debug for SealBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealBuf({} of {} bytes)", self.len(), self.capacity())
    }
}
