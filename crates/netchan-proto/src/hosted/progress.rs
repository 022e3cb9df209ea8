//! Which of one sender's values are settled.

use std::collections::BTreeSet;

/// Values settle out of order when several receivers hold them: a settled prefix, and what settled ahead of it.
///
/// Invariant: everything in `ahead` is above `prefix`. It holds at most as many entries as the sender has values
/// outstanding, so the capacity bounds it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    prefix: u64,
    ahead: BTreeSet<u64>,
}

impl Progress {
    /// Settles `seq`; each number settles once.
    pub(super) fn settle(&mut self, seq: u64) {
        debug_assert!(seq >= self.prefix && !self.ahead.contains(&seq), "value {seq} settled twice");
        if seq == self.prefix {
            self.prefix += 1;
            while self.ahead.first() == Some(&self.prefix) {
                self.ahead.pop_first();
                self.prefix += 1;
            }
        } else {
            self.ahead.insert(seq);
        }
    }

    /// All values numbered below this are settled.
    pub(super) fn prefix(&self) -> u64 {
        self.prefix
    }

    /// How many values are settled.
    pub(super) fn count(&self) -> u64 {
        self.prefix + self.ahead.len() as u64
    }

    /// What is settled ahead of the prefix.
    pub(super) fn ahead(&self) -> impl Iterator<Item = u64> {
        self.ahead.iter().copied()
    }
}
