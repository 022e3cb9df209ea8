//! The senders of one channel: their leases, their offers, and what each is told.

mod away;
mod idle;
mod serving;

use std::collections::{BTreeMap, VecDeque};

use self::idle::note_seen;
use super::lease::Lease;
use super::line::Line;
use super::pool::Pool;
use super::{Effect, SenderKey, Violation, Withdraw};
use crate::limits::CAPACITY_ITEMS_MAX;
use crate::planted::{self, Mutant};

/// The newest value of a sender where the capacity is 0; there is never more than one that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    None,
    Queued { ticket: u64 },
    Dispatched { withdraw_asked: bool },
    Taken,
    Withdrawn,
}

/// What becomes of a pushed value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It joins the queue.
    Queued,
    /// It came after the close of a rendezvous channel and has been withdrawn.
    Refused,
}

#[derive(Debug)]
struct Sender {
    lease: Lease,
    offer: Offer,
    /// Removed; the record stays until its last value is settled.
    gone: bool,
    /// Has values settled that it has not been told about.
    touched: bool,
    /// Since when it has been asked for credit, or has had some that it does not use.
    idle_since: Option<u64>,
    /// When it was first asked for credit since it last used some: being asked again does not extend the deadline.
    asked_since: Option<u64>,
    /// Its place in `watched`.
    watched: Option<u64>,
    /// It counts among those that share: it has a client, or has asked for credit.
    seen: bool,
}

/// All senders, and the pool of credit they share.
///
/// Invariant: a sender that is gone has a value that is not settled, holds no unused credit and is in no line.
#[derive(Debug)]
pub(super) struct Senders {
    map: BTreeMap<SenderKey, Sender>,
    pool: Pool,
    touched: Vec<SenderKey>,
    now: u64,
    /// When a sender last waited for credit while none was free.
    short_at: Option<u64>,
    /// Senders that were asked for credit, or have some, oldest first. One that has moved since is looked at again.
    watched: Line<(u64, SenderKey)>,
}

impl Senders {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            map: BTreeMap::new(),
            pool: Pool::new(capacity),
            touched: Vec::new(),
            now: 0,
            short_at: None,
            watched: Line::default(),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn limit(&self, key: SenderKey) -> Option<u64> {
        self.map.get(&key).filter(|sender| !sender.gone).map(|sender| sender.lease.limit)
    }

    pub(super) fn is_suspended(&self, key: SenderKey) -> bool {
        self.map.get(&key).is_some_and(|sender| sender.lease.suspended.is_some() && !self.is_rendezvous())
    }

    pub(super) fn has_unsettled(&self, key: SenderKey) -> bool {
        self.map.get(&key).is_some_and(|sender| !sender.lease.all_settled())
    }

    #[cfg(debug_assertions)]
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn advance(&mut self, now: u64) {
        self.now = now;
    }

    /// How far each sender's values have come: its key, how many were pushed, which are settled, and whether it is gone.
    pub(super) fn progress(
        &self,
    ) -> impl Iterator<Item = (SenderKey, u64, &super::progress::Progress, bool)> {
        self.map.iter().map(|(key, sender)| (*key, sender.lease.pushed, &sender.lease.progress, sender.gone))
    }

    /// Puts a sender back as it was.
    pub(super) fn restore(
        &mut self,
        key: SenderKey,
        pushed: u64,
        settled: impl IntoIterator<Item = u64>,
        gone: bool,
    ) {
        self.add(key, None);
        let Some(sender) = self.map.get_mut(&key) else { return };
        let lease = &mut sender.lease;
        (lease.pushed, lease.firm, lease.limit) = (pushed, pushed, pushed);
        settled.into_iter().for_each(|seq| lease.progress.settle(seq));
        sender.gone = gone;
        self.pool.overdraw(pushed - lease.progress.count());
    }

    fn is_rendezvous(&self) -> bool {
        self.pool.capacity() == 0
    }

    fn live(&mut self, key: SenderKey) -> Option<&mut Sender> {
        self.map.get_mut(&key).filter(|sender| !sender.gone)
    }

    pub(super) fn add(&mut self, key: SenderKey, client: Option<u128>) -> bool {
        if self.map.contains_key(&key) {
            return false;
        }
        let share = client.map(|client| self.pool.shares.join(client));
        let sender = Sender {
            lease: Lease::of(share),
            offer: Offer::None,
            gone: false,
            touched: false,
            idle_since: None,
            asked_since: None,
            watched: None,
            seen: share.is_some(),
        };
        self.map.insert(key, sender);
        true
    }

    /// Returns the ticket of an offer that must leave the queue.
    pub(super) fn remove(&mut self, key: SenderKey) -> Option<u64> {
        let rendezvous = self.is_rendezvous();
        let sender = self.map.get_mut(&key).filter(|sender| !sender.gone)?;
        sender.gone = true;
        let lease = &mut sender.lease;
        lease.recalled = false;
        lease.want = 0;
        self.pool.restore(lease.shrink(lease.pushed));
        self.pool.place(key, lease);
        sender.watched.take().map(|place| self.watched.leave(place));
        if lease.over_share {
            self.pool.shares.forget(lease.share, key);
        }
        match lease.share.take() {
            Some(share) => self.pool.shares.leave(share),
            None if sender.seen => self.pool.shares.leave_unnamed(),
            None => {}
        }
        let queued = match sender.offer {
            Offer::Queued { ticket } if rendezvous => {
                sender.lease.progress.settle(sender.lease.pushed - 1);
                self.pool.restore(1);
                Some(ticket)
            }
            _ => None,
        };
        self.forget_if_done(key);
        queued
    }

    /// The record of a sender that is gone goes with its last value.
    fn forget_if_done(&mut self, key: SenderKey) {
        if self.map.get(&key).is_some_and(|sender| sender.gone && sender.lease.all_settled()) {
            self.map.remove(&key);
        }
    }

    pub(super) fn want(&mut self, key: SenderKey, n: u64) {
        if self.is_rendezvous() || self.pool.is_closed() {
            return;
        }
        let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { return };
        note_seen(sender, &mut self.pool);
        if sender.lease.suspended.is_none() {
            // No capacity is larger, and the cap keeps sums of wants far from overflow.
            sender.lease.set_want(n.min(CAPACITY_ITEMS_MAX));
            self.pool.place(key, &mut sender.lease);
            // A sender that waits is not recalled at once, but it must use what it has.
            if sender.lease.unused() > 0 && sender.watched.is_none() {
                self.watch(key);
            }
        }
    }

    /// Nothing of what this sender holds is left for its blocked sends.
    pub(super) fn note_exhausted(&mut self, key: SenderKey) {
        if let Some(sender) = self.live(key) {
            sender.lease.note_exhausted();
        }
    }

    pub(super) fn try_lease(&mut self, key: SenderKey) -> bool {
        if self.pool.free() == 0 || self.pool.waiting() > 0 || self.pool.is_closed() {
            return false;
        }
        let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { return false };
        note_seen(sender, &mut self.pool);
        let lease = &sender.lease;
        if lease.recalled || lease.suspended.is_some() || self.pool.room(lease.share) == 0 {
            return false;
        }
        sender.lease.grant(1);
        self.pool.lend(1);
        self.pool.place(key, &mut sender.lease);
        true
    }

    /// Lends this sender one unit of free credit and admits value `seq` on it: [`Self::try_lease`] and [`Self::push`] in one step,
    /// where the sender holds nothing else and stands in no line. False, and nothing is done, in all other cases.
    pub(super) fn lend_and_push(&mut self, key: SenderKey, seq: u64) -> bool {
        if self.pool.free() == 0 || self.pool.waiting() > 0 || self.pool.is_closed() || self.is_rendezvous() {
            return false;
        }
        let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { return false };
        note_seen(sender, &mut self.pool);
        let lease = &mut sender.lease;
        if !lease.is_at_rest() || seq != lease.pushed {
            return false;
        }
        lease.grant(1);
        lease.push();
        sender.idle_since = None;
        self.pool.lend(1);
        true
    }

    /// Admits value `seq`, which takes `ticket` if it joins the queue.
    pub(super) fn push<T>(
        &mut self,
        key: SenderKey,
        seq: u64,
        ticket: u64,
        effects: &mut VecDeque<Effect<T>>,
    ) -> Result<Admission, Violation> {
        let rendezvous = self.is_rendezvous();
        let sender = self.map.get_mut(&key).filter(|sender| !sender.gone).ok_or(Violation::UnknownSender)?;
        let lease = &mut sender.lease;
        if seq != lease.pushed {
            return Err(Violation::OutOfSequence);
        }
        if rendezvous {
            // HOST-16: the lease of a rendezvous is the one offer.
            if !lease.all_settled() {
                return Err(Violation::ExcessCredit);
            }
            lease.limit += 1;
            self.pool.lend(1);
            sender.offer = Offer::Queued { ticket };
        } else if seq >= lease.limit {
            return Err(Violation::ExcessCredit);
        }
        lease.push();
        if sender.idle_since.is_some() {
            sender.idle_since = (lease.unused() > 0).then_some(self.now);
            sender.asked_since = None;
        }
        if rendezvous && self.pool.is_closed() {
            self.settle_withdrawn(key, seq, effects);
            return Ok(Admission::Refused);
        }
        self.pool.place(key, lease);
        Ok(Admission::Queued)
    }

    /// Number `seq` will not come.
    pub(super) fn skip(&mut self, key: SenderKey, seq: u64) -> Result<(), Violation> {
        let rendezvous = self.is_rendezvous();
        let sender = self.live(key).ok_or(Violation::UnknownSender)?;
        let lease = &mut sender.lease;
        if !rendezvous || seq != lease.pushed || !lease.all_settled() {
            return Err(Violation::OutOfSequence);
        }
        lease.limit += 1;
        lease.push();
        lease.progress.settle(seq);
        sender.offer = Offer::Withdrawn;
        Ok(())
    }

    /// Also returns the ticket of an offer that must leave the queue.
    pub(super) fn withdraw(
        &mut self,
        key: SenderKey,
        seq: u64,
    ) -> Result<(Withdraw, Option<u64>), Violation> {
        let rendezvous = self.is_rendezvous();
        let sender = self.live(key).ok_or(Violation::UnknownSender)?;
        if !rendezvous || seq.checked_add(1) != Some(sender.lease.pushed) {
            return Err(Violation::NotOffered);
        }
        match sender.offer {
            Offer::None => Err(Violation::NotOffered),
            Offer::Taken => Ok((Withdraw::Taken, None)),
            Offer::Withdrawn => Ok((Withdraw::Withdrawn, None)),
            Offer::Dispatched { .. } => {
                sender.offer = Offer::Dispatched { withdraw_asked: true };
                Ok((Withdraw::Dispatched, None))
            }
            Offer::Queued { ticket } => {
                sender.offer = Offer::Withdrawn;
                sender.lease.progress.settle(seq);
                self.pool.restore(1);
                Ok((Withdraw::Withdrawn, Some(ticket)))
            }
        }
    }

    pub(super) fn yielded(&mut self, key: SenderKey, limit: u64) -> Result<(), Violation> {
        let sender = self.map.get_mut(&key).filter(|sender| !sender.gone).ok_or(Violation::UnknownSender)?;
        let lease = &mut sender.lease;
        if !lease.recalled {
            return Err(Violation::UnaskedYield);
        }
        if limit < lease.pushed || limit > lease.limit {
            return Err(Violation::FalseYield);
        }
        lease.recalled = false;
        let back = lease.shrink(limit);
        self.pool.restore(if planted::is(Mutant::YieldedCreditLost) { 0 } else { back });
        self.pool.place(key, lease);
        if lease.unused() > 0 {
            // What it has committed is on its way; what it has reserved, it is to use.
            self.watch(key);
        } else {
            sender.asked_since = None;
        }
        Ok(())
    }

    /// Unused credit from `limit` on is free again; false if that cannot be.
    pub(super) fn shrink(&mut self, key: SenderKey, limit: u64) -> bool {
        let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { return false };
        let lease = &mut sender.lease;
        if limit < lease.pushed || limit > lease.limit {
            return false;
        }
        self.pool.restore(lease.shrink(limit));
        self.pool.place(key, lease);
        true
    }

    /// Notes that an offer left for a receiver; buffered values need no note.
    pub(super) fn dispatched(&mut self, key: SenderKey) {
        if self.is_rendezvous()
            && let Some(sender) = self.map.get_mut(&key)
        {
            sender.offer = Offer::Dispatched { withdraw_asked: false };
        }
    }

    pub(super) fn settle_taken<T>(&mut self, key: SenderKey, seq: u64, effects: &mut VecDeque<Effect<T>>) {
        let Some(sender) = self.map.get_mut(&key) else {
            debug_assert!(false, "a value of {key:?} outlived its sender's record");
            return;
        };
        sender.lease.progress.settle(seq);
        if !(planted::is(Mutant::LeakedCredit) && seq % 3 == 2) {
            self.pool.restore(1);
        }
        if sender.gone {
            return self.forget_if_done(key);
        }
        if let Offer::Dispatched { withdraw_asked } = sender.offer {
            sender.offer = Offer::Taken;
            if withdraw_asked {
                effects.push_back(Effect::Withdrawn { to: key, seq, withdrawn: false });
            }
        }
        if !sender.touched {
            sender.touched = true;
            self.touched.push(key);
        }
    }

    fn settle_withdrawn<T>(&mut self, key: SenderKey, seq: u64, effects: &mut VecDeque<Effect<T>>) {
        let Some(sender) = self.map.get_mut(&key) else {
            debug_assert!(false, "an offer of {key:?} outlived its sender's record");
            return;
        };
        sender.lease.progress.settle(seq);
        sender.offer = Offer::Withdrawn;
        self.pool.restore(1);
        if sender.gone {
            self.forget_if_done(key);
        } else {
            effects.push_back(Effect::Withdrawn { to: key, seq, withdrawn: true });
        }
    }

    /// A value in flight comes back. True if it returns to the queue; else it has been withdrawn (`HOST-17`).
    pub(super) fn take_back<T>(
        &mut self,
        key: SenderKey,
        seq: u64,
        ticket: u64,
        effects: &mut VecDeque<Effect<T>>,
    ) -> bool {
        if !self.is_rendezvous() {
            return true;
        }
        let closed = self.pool.is_closed();
        let Some(sender) = self.map.get_mut(&key) else {
            debug_assert!(false, "an offer of {key:?} outlived its sender's record");
            return false;
        };
        if closed || sender.gone || sender.offer == (Offer::Dispatched { withdraw_asked: true }) {
            self.settle_withdrawn(key, seq, effects);
            return false;
        }
        sender.offer = Offer::Queued { ticket };
        true
    }

    /// Ends granting and recalls every lease (`HOST-18`).
    pub(super) fn close<T>(&mut self, effects: &mut VecDeque<Effect<T>>) {
        self.pool.close();
        let Self { map, pool, watched, now, .. } = self;
        for (key, sender) in map {
            let lease = &mut sender.lease;
            if lease.unused() > 0 && !lease.recalled && lease.suspended.is_none() {
                // What was kept before may have been let go by now: the close is told with this.
                lease.recalled = true;
                lease.firm = lease.pushed;
                sender.idle_since = Some(*now);
                sender.watched.get_or_insert_with(|| watched.join((*now, *key)));
                effects.push_back(Effect::Recall { from: *key });
            }
            pool.place(*key, lease);
        }
    }

    /// Withdraws an offer that the close caught in the queue (`HOST-19`).
    pub(super) fn refuse<T>(&mut self, key: SenderKey, seq: u64, effects: &mut VecDeque<Effect<T>>) {
        self.settle_withdrawn(key, seq, effects);
    }

    #[cfg(debug_assertions)]
    pub(super) fn audit(&self) {
        let named = self.map.values().filter(|sender| sender.lease.share.is_some());
        assert_eq!(
            named.map(|sender| sender.lease.unused()).sum::<u64>(),
            self.pool.shares.totals().units,
            "shares of credit"
        );
        self.pool.audit(self.map.values().map(|sender| &sender.lease));
        for sender in self.map.values().filter(|sender| sender.gone) {
            assert!(!sender.lease.all_settled() && sender.lease.unused() == 0, "a ghost without reason");
            assert!(!sender.lease.is_waiting());
        }
    }
}
