//! What senders say and are given.

use bytes::Bytes;

use super::receivers::NextTaker;
use super::senders::Admission;
use super::{Fact, Hosted, Item, SenderKey, Violation, Withdraw};
use crate::limits::WELCOME_WHOLE_ITEMS;

impl<T: Clone> Hosted<T> {
    /// Adds a sender with no credit. False if the key is in use, be it by a removed sender whose values are not all
    /// settled.
    pub fn add_sender(&mut self, key: SenderKey) -> bool {
        self.add_sender_of(None, key)
    }

    /// As [`Self::add_sender`], for `client`, whose senders share a part of the credit (`HOST-28`).
    pub fn add_sender_of(&mut self, client: Option<u128>, key: SenderKey) -> bool {
        let added = self.senders.add(key, client);
        if added {
            self.note(|| Fact::Sender { key });
        }
        added
    }

    /// The sender is gone for good. What it pushed stays where C ≥ 1, and its unused credit is free at once; where
    /// C = 0 an offer that nobody holds is withdrawn, and one in flight is if it comes back (`HOST-14`).
    pub fn remove_sender(&mut self, key: SenderKey) {
        self.note(|| Fact::SenderGone { key });
        if let Some(ticket) = self.senders.remove(key) {
            self.unqueue(ticket);
        }
        self.settle();
    }

    /// The sender has `n` blocked sends beyond its limit; 0 when it has none any more. A count, not an increment.
    pub fn want(&mut self, key: SenderKey, n: u64) {
        self.senders.want(key, n);
        self.settle();
    }

    /// As [`Self::want`], for a local sender of whom it is certain that nothing it holds is left for them, be it that it
    /// set the rest aside: then it need not have used half of it first.
    pub fn want_besides(&mut self, key: SenderKey, n: u64) {
        self.senders.note_exhausted(key);
        self.want(key, n);
    }

    /// As [`Self::want`], for a peer that says how far it would like its limit to be: a wish that crossed a grant on the
    /// way asks only for the rest. One below the limit says that it needs no more than that (`HOST-12`).
    pub fn want_up_to(&mut self, key: SenderKey, limit: u64) {
        let held = self.limit(key).unwrap_or(limit);
        if limit < held {
            self.senders.needs_only(key, limit);
        }
        self.want(key, limit.saturating_sub(held));
    }

    /// Takes one unit of free credit for this sender if nobody waits for credit; for local senders.
    #[must_use]
    pub fn try_lease(&mut self, key: SenderKey) -> bool {
        self.is_within_bytes() && self.senders.try_lease(key)
    }

    /// Takes up to `units` of free credit for a sender that has just come, if nobody waits for it (`HOST-26`). Says how far
    /// the sender may commit then.
    pub fn welcome(&mut self, key: SenderKey, units: u64) -> u64 {
        // So few are not worth dividing; of more, half is left for whoever comes next.
        let free = self.free();
        for _ in 0..units.min((free / 2).max(free.min(WELCOME_WHOLE_ITEMS))) {
            if !self.try_lease(key) {
                break;
            }
        }
        self.limit(key).unwrap_or(0)
    }

    /// A value arrives from a sender (`HOST-7`, `HOST-16`). After a close, what was leased before is still admitted.
    ///
    /// # Errors
    /// The number is not the sender's next, or lies beyond its lease.
    pub fn push_from(
        &mut self,
        key: SenderKey,
        seq: u64,
        from: T,
        bytes: Bytes,
        redelivered: bool,
    ) -> Result<(), Violation> {
        let pushed = self.push_one(key, seq, from, bytes, redelivered);
        self.settle();
        pushed
    }

    /// As [`Self::push_from`]; [`Self::settle`] follows, once for a run of them.
    pub(crate) fn push_one(
        &mut self,
        key: SenderKey,
        seq: u64,
        from: T,
        bytes: Bytes,
        redelivered: bool,
    ) -> Result<(), Violation> {
        let Some(item) = self.admit(key, seq, from, bytes, redelivered)? else { return Ok(()) };
        self.receivers.hold_full_back();
        // Straight to a receive that waits: the queue is not passed through for nothing.
        if self.queue.len() == 0 && self.receivers.units() > 0 && !self.receivers.is_held_up() {
            self.queue.skip_ticket();
            self.hand(item);
        } else {
            self.queue.push(item);
        }
        Ok(())
    }

    /// As [`Self::push_one`], but the value waits for the next [`Self::settle`], also where a receive waits.
    pub(crate) fn push_behind(
        &mut self,
        key: SenderKey,
        seq: u64,
        from: T,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        if let Some(item) = self.admit(key, seq, from, bytes, false)? {
            self.queue.push(item);
        }
        Ok(())
    }

    /// As [`Self::push_behind`] on a unit of free credit, if there is one and the sender holds no other. `bytes` is called then.
    pub(crate) fn lend_and_push_behind(
        &mut self,
        key: SenderKey,
        seq: u64,
        from: T,
        bytes: impl FnOnce() -> Bytes,
    ) -> bool {
        let lent = self.is_within_bytes() && self.senders.lend_and_push(key, seq);
        if lent {
            let item = self.arrived(key, seq, from, bytes(), false);
            self.queue.push(item);
        }
        lent
    }

    /// Who would be given the next value.
    pub(crate) fn next(&self) -> NextTaker {
        if self.receivers.is_held_up() { NextTaker::Nobody } else { self.receivers.next_taker() }
    }

    fn admit(
        &mut self,
        key: SenderKey,
        seq: u64,
        from: T,
        bytes: Bytes,
        redelivered: bool,
    ) -> Result<Option<Item<T>>, Violation> {
        let ticket = self.queue.next_ticket();
        let admission = self.senders.push(key, seq, ticket, &mut self.effects)?;
        if admission == Admission::Refused {
            self.note(|| Fact::Skipped { origin: key, seq });
            return Ok(None);
        }
        Ok(Some(self.arrived(key, seq, from, bytes, redelivered)))
    }

    fn arrived(&mut self, key: SenderKey, seq: u64, from: T, bytes: Bytes, redelivered: bool) -> Item<T> {
        let item = Item {
            ticket: self.queue.next_ticket(),
            origin: key,
            seq,
            from,
            bytes,
            redelivered,
            attempts: 0,
            settled: false,
            refused_by: None,
        };
        self.held_bytes += item.bytes.len() as u64;
        self.note(|| Fact::Admitted { item: item.clone() });
        item
    }

    /// The sender's next number was used up by an offer that never came, because it was withdrawn on its way (`CHAN-9`).
    ///
    /// # Errors
    /// It is not the sender's next, or the channel is buffered.
    pub fn skip(&mut self, key: SenderKey, seq: u64) -> Result<(), Violation> {
        self.senders.skip(key, seq)?;
        self.note(|| Fact::Skipped { origin: key, seq });
        Ok(())
    }

    /// A send of a C = 0 channel was dropped: takes its offer back if nobody holds it (`HOST-17`). May be repeated.
    ///
    /// # Errors
    /// `seq` is not the sender's newest offer, or the channel is buffered.
    pub fn withdraw(&mut self, key: SenderKey, seq: u64) -> Result<Withdraw, Violation> {
        let (found, queued) = self.senders.withdraw(key, seq)?;
        if let Some(ticket) = queued {
            self.unqueue(ticket);
        }
        self.settle();
        Ok(found)
    }

    /// The answer to [`Effect::Recall`](super::Effect::Recall): the sender keeps what lies below `limit`, and has committed what lies below
    /// `committed`; the rest it has reserved (`HOST-12`).
    ///
    /// # Errors
    /// Nothing was recalled, or `limit` is above the lease or below what has arrived.
    pub fn yielded(&mut self, key: SenderKey, limit: u64) -> Result<(), Violation> {
        self.senders.yielded(key, limit)?;
        self.settle();
        Ok(())
    }

    /// A local sender gives back what it was lent from `limit` on, unasked. False if it has committed more, or was not lent so
    /// much.
    pub fn shrink(&mut self, key: SenderKey, limit: u64) -> bool {
        let shrunk = self.senders.shrink(key, limit);
        self.settle();
        shrunk
    }

    /// The sender has closed: it sends no more, so its unused credit is free at once. What it pushed stays, an offer
    /// where C = 0 too, and it goes on to hear what is settled; [`Self::remove_sender`] follows.
    pub fn retire(&mut self, key: SenderKey) {
        self.senders.suspend(key);
        self.settle();
    }

    /// The sender has been away for so long that its unused lease is lent to others. Until [`Self::resume`] nothing may
    /// be pushed for it (`HOST-15`).
    pub fn suspend(&mut self, key: SenderKey) {
        self.senders.suspend(key);
        self.settle();
    }

    /// The sender is back and has committed this many values in all. Those beyond what arrived are admitted even if the
    /// capacity is exceeded by them. Returns its new limit, which replaces the old one at the sender too; without a
    /// [`Self::suspend`] before, the old one stands.
    ///
    /// # Errors
    /// `committed` is below what has arrived or above the lease it had.
    pub fn resume(&mut self, key: SenderKey, committed: u64) -> Result<u64, Violation> {
        let limit = self.senders.resume(key, committed, !self.finished)?;
        self.settle();
        Ok(limit)
    }

    /// After [`Effect::StalledSender`](super::Effect::StalledSender): as [`Self::excuse_receiver`].
    pub fn excuse_sender(&mut self, key: SenderKey) {
        self.senders.watch(key);
    }
}
