//! Values that are not known taken: what may become of them.

use super::{Payload, Retained, SendHalf};

/// A value that is not known taken when its channel ends.
#[derive(Debug)]
pub struct Unsettled<'a> {
    /// Its number.
    pub seq: u64,
    /// It may have reached the peer; false is certain.
    pub in_doubt: bool,
    /// The encoded value.
    pub payload: Payload<'a>,
}

impl SendHalf {
    /// Takes back what has not left for a receiver that cannot be reached, so that it can go to others: how many values
    /// (`HOST-22`). Their numbers are given again.
    pub fn take_unsent(&mut self) -> u64 {
        let first = self.sealed_high.max(self.taken);
        let count = self.committed() - first;
        if count > 0 {
            let bytes = self.retained.truncate(first);
            self.redelivered.retain(|seq| *seq < first);
            self.credit.take_back(count, bytes);
        }
        count
    }

    /// Whether the value numbered `seq` may have reached the peer, in this session or one before.
    #[must_use]
    pub fn may_have_left(&self, seq: u64) -> bool {
        seq < self.sealed_high || self.redelivered.binary_search(&seq).is_ok()
    }

    /// Calls `visit` with every value that is not known taken.
    pub fn for_each_unsettled(&self, mut visit: impl FnMut(Unsettled<'_>)) {
        self.retained.for_each_from(self.taken, |seq, payload| {
            // Nobody in this session can speak for an earlier one.
            visit(Unsettled { seq, in_doubt: self.may_have_left(seq), payload });
        });
    }

    /// Drops every value that is not known taken, once the channel has ended and they have been visited.
    pub fn drop_unsettled(&mut self) {
        self.retained = Retained::default();
        self.redelivered.clear();
        self.given_back = self.committed();
    }

    /// How many values are not known taken: `(certain, in_doubt)`.
    #[must_use]
    pub fn unsettled(&self) -> (u64, u64) {
        let first = self.taken.max(self.given_back);
        let all = self.committed() - first;
        let sent = self.sealed_high.saturating_sub(first).min(all);
        let before = self.redelivered.iter().filter(|seq| **seq >= self.sealed_high).count() as u64;
        (all - sent - before, sent + before)
    }
}
