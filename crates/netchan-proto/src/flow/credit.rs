//! Leave to send, held by the sending end of a channel.
//!
//! Invariants: `committed + reserved ≤ limit` unless the channel is a rendezvous (which has no item credit) or values may be
//! sent ahead, and limits never fall but by [`Credit::recall`] and [`Credit::rewind`].

use super::Violation;

/// How many values, and how many bytes, may be sent (`FLOW-1`).
#[derive(Clone, Debug)]
pub struct Credit {
    committed: u64,
    reserved: u64,
    limit: u64,
    committed_bytes: u64,
    limit_bytes: u64,
    /// So many values may be committed beyond those that were taken, whatever the limit (`FLOW-10`).
    ahead: u64,
    taken: u64,
}

impl Credit {
    /// Credit for the first `limit` values and `limit_bytes` bytes.
    #[must_use]
    pub const fn new(limit: u64, limit_bytes: u64) -> Self {
        Self { committed: 0, reserved: 0, limit, committed_bytes: 0, limit_bytes, ahead: 0, taken: 0 }
    }

    /// How many values have been committed.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// Values numbered below this may be committed.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes have been committed.
    #[must_use]
    pub const fn committed_bytes(&self) -> u64 {
        self.committed_bytes
    }

    /// A value may start while fewer bytes than this have been committed before it.
    #[must_use]
    pub const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// How many more values may be committed now, reservations aside.
    #[must_use]
    #[inline]
    pub const fn items(&self) -> u64 {
        let limit = if self.ahead == 0 { self.limit } else { self.most() };
        limit.saturating_sub(self.committed + self.reserved)
    }

    const fn most(&self) -> u64 {
        let ahead = self.taken + self.ahead;
        if ahead > self.limit { ahead } else { self.limit }
    }

    /// The byte window, before anything is committed.
    pub const fn start_with_bytes(&mut self, limit_bytes: u64) {
        self.limit_bytes = limit_bytes;
    }

    /// Up to `ahead` values may be with the peer unasked.
    pub const fn allow_ahead(&mut self, ahead: u64) {
        self.ahead = ahead;
    }

    /// The peer has taken the values numbered below `taken`.
    pub const fn note_taken(&mut self, taken: u64) {
        if taken > self.taken {
            self.taken = taken;
        }
    }

    /// How many reservations are held.
    #[must_use]
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Whether another value may start: one message may overdraw the byte window (`FLOW-5`).
    #[must_use]
    #[inline]
    pub const fn has_bytes(&self) -> bool {
        self.committed_bytes < self.limit_bytes
    }

    /// Whether one more value may be committed now.
    #[must_use]
    #[inline]
    pub const fn allows(&self) -> bool {
        self.items() > 0 && self.has_bytes()
    }

    /// Commits one value of `bytes` bytes; returns its number. The caller has checked that it may.
    #[inline]
    pub const fn commit(&mut self, bytes: u64) -> u64 {
        let seq = self.committed;
        self.committed += 1;
        self.committed_bytes += bytes;
        seq
    }

    /// Takes the newest value back: an offer that never left.
    pub const fn uncommit(&mut self, bytes: u64) {
        self.take_back(1, bytes);
    }

    /// Takes the newest values back: they never left.
    pub const fn take_back(&mut self, values: u64, bytes: u64) {
        self.committed -= values;
        self.committed_bytes -= bytes;
    }

    /// A committed value was withdrawn at the other end: its number is used up, its bytes are not (`CHAN-9`).
    pub const fn void(&mut self, bytes: u64) {
        self.committed_bytes -= bytes;
    }

    /// Sets one unit aside for a permit.
    pub const fn reserve(&mut self) -> bool {
        let allowed = self.allows();
        if allowed {
            self.reserved += 1;
        }
        allowed
    }

    /// Gives a unit that was set aside back.
    pub const fn release(&mut self) {
        self.reserved -= 1;
    }

    /// Raises the limits; lower ones are old news and change nothing (`FLOW-2`).
    pub fn raise(&mut self, limit: u64, limit_bytes: u64) {
        self.limit = self.limit.max(limit);
        self.limit_bytes = self.limit_bytes.max(limit_bytes);
    }

    /// Gives credit above `limit` back, but never what is committed or reserved (`FLOW-7`).
    pub fn recall(&mut self, limit: u64) -> u64 {
        let floor = self.committed + self.reserved;
        self.limit = self.limit.min(limit.max(floor));
        self.limit
    }

    /// As [`Credit::recall`], whatever is reserved: reservations are void.
    pub fn recall_all(&mut self) -> u64 {
        self.limit = self.committed;
        self.limit
    }

    /// Numbers anew from `seq`: the receiving end has discarded everything from there on.
    ///
    /// # Errors
    /// A [`Violation`] when that many values were never committed.
    pub fn rewind(&mut self, seq: u64, bytes: u64) -> Result<(), Violation> {
        if seq > self.committed || bytes > self.committed_bytes {
            return Err(Violation("rewind past what was committed"));
        }
        self.committed = seq;
        self.committed_bytes -= bytes;
        self.limit = seq;
        Ok(())
    }
}
