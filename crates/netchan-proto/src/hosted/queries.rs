//! What can be asked of a hosted channel.

use super::{Hosted, ReceiverKey, SenderKey};

/// What is so now.
impl<T: Clone> Hosted<T> {
    /// The capacity, in items.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.senders.pool().capacity()
    }

    /// How many values have been pushed.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.queue.next_ticket()
    }

    /// Values in the queue, not dispatched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if no value is in the queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// Values dispatched and not known taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.receivers.in_flight()
    }

    /// Values dispatched to this receiver and not known taken.
    #[must_use]
    pub fn in_flight_of(&self, key: ReceiverKey) -> usize {
        self.receivers.in_flight_of(key)
    }

    /// Values that are here, wherever.
    #[must_use]
    pub fn here(&self) -> usize {
        self.queue.len() + self.receivers.in_flight() + self.unacked()
    }

    /// Values that have left for the receiver and are not known taken.
    #[must_use]
    pub fn sent_of(&self, key: ReceiverKey) -> usize {
        self.receivers.sent_of(key)
    }

    /// Values that are the receiver's and have not left for it.
    #[must_use]
    pub fn unsent_of(&self, key: ReceiverKey) -> u64 {
        self.receivers.unsent_of(key)
    }

    /// Bytes of all values held here, queued and in flight.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// How many values have gone out that had, as far as is known, been out before.
    #[must_use]
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// How many values have died, and found a place elsewhere.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.dead
    }

    /// Credit in the pool.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.senders.pool().free()
    }

    /// Credit lent and not settled, over all senders: never above the capacity plus [`Self::overdraft`]. Where C = 0,
    /// the offers that are not settled.
    #[must_use]
    pub fn lent(&self) -> u64 {
        self.senders.pool().lent()
    }

    /// By how much resumed senders exceed the capacity at the moment (`HOST-15`).
    #[must_use]
    pub fn overdraft(&self) -> u64 {
        self.senders.pool().overdraft()
    }

    /// The lease of a sender: it may commit values numbered below this.
    #[must_use]
    pub fn limit(&self, key: SenderKey) -> Option<u64> {
        self.senders.limit(key)
    }

    /// Whether the sender is away, and its unused credit lent to others.
    #[must_use]
    pub fn is_suspended(&self, key: SenderKey) -> bool {
        self.senders.is_suspended(key)
    }

    /// Whether a sender has an offer of which it is open whether somebody takes it; only where C = 0.
    #[must_use]
    pub(crate) fn has_open_offer(&self, key: SenderKey) -> bool {
        self.capacity() == 0 && self.senders.has_unsettled(key)
    }

    /// Senders that want credit.
    #[must_use]
    pub fn waiting_senders(&self) -> usize {
        self.senders.pool().waiting()
    }

    /// Waiting `recv`s over all receivers.
    #[must_use]
    pub fn waiting_units(&self) -> u64 {
        self.receivers.units()
    }

    /// Waiting `recv`s of this receiver.
    #[must_use]
    pub fn waiting_units_of(&self, key: ReceiverKey) -> u64 {
        self.receivers.units_of(key)
    }

    /// True after [`Self::close`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.senders.pool().is_closed()
    }

    /// Closed, and no value is here, held by a receiver (`DEL-9`), nor can any come.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_closed() && self.lent() == 0 && self.here() == 0 && self.dying == 0
    }
}
