//! A hosted channel: `make(chan T, C)` that lives at a server, with any number of senders and receivers.
//!
//! [`Hosted`] is policy only: who gets the next value, who may send, what happens when someone leaves. It knows neither
//! sessions nor frames; the shell names senders and receivers by opaque keys and turns each [`Effect`] into operations
//! on the channel of that peer, or of a local handle. After every call, drain [`Hosted::poll_effect`] until it is empty
//! before the next call: an effect describes the state right after the call that caused it.
//!
//! ```
//! use netchan_proto::hosted::{Effect, Hosted, ReceiverKey, SenderKey};
//!
//! let mut tasks = Hosted::new(64);
//! let (sender, worker) = (SenderKey(1), ReceiverKey(1));
//! tasks.add_sender(sender);
//! tasks.add_receiver(worker);
//!
//! tasks.demand(worker, 1)?; // a `recv` waits
//! assert!(tasks.try_lease(sender));
//! tasks.push(sender, 0, "task".into())?;
//! let Some(Effect::Deliver { to, item }) = tasks.poll_effect() else { panic!() };
//! assert_eq!((to, &item.bytes[..]), (worker, &b"task"[..]));
//!
//! tasks.taken(worker, 1)?; // `recv` has returned it
//! assert_eq!(tasks.poll_effect(), Some(Effect::Settled { sender, prefix: 1, count: 1 }));
//! # Ok::<(), netchan_proto::hosted::Violation>(())
//! ```
//!
//! The rules, `HOST-1` to `HOST-22` and `DEL-1` to `DEL-9`, stand in `docs/SPEC.md`. In short:
//!
//! - *Receivers.* A value leaves only for a waiting `recv`, the one that has waited longest, and stays here too until
//!   it is known taken. What a receiver gives back returns to its place at the head.
//! - *Senders, C ≥ 1.* Credit is one pool, leased on demand and recalled from whoever holds it idle.
//! - *Senders, C = 0.* Each has at most one offer here; taking it is the rendezvous.

mod broadcast;
mod held;
mod holders;
mod lease;
mod line;
mod pool;
mod progress;
mod queries;
mod queue;
mod receivers;
mod senders;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::limits::CAPACITY_ITEMS_MAX;
use queue::Queue;
use receivers::Receivers;
use senders::{Admission, Senders};

pub use crate::limits::DEMAND_UNITS_MAX;
pub use broadcast::{Broadcast, BroadcastLimits, Next, NotSent, WhenSlow};
pub use types::{Effect, Item, ReceiverKey, SenderKey, Violation, Withdraw};

/// The policy of one hosted channel; see the [module](self).
///
/// Invariants, after every call:
/// - each value that is here is in `queue`, in `delayed`, or in flight to or held by exactly one receiver; while it is not
///   settled it is counted once in what is lent;
/// - `queue` is empty or no demand waits (`HOST-9`);
/// - credit is free only if nobody's turn is due (`HOST-9`).
#[derive(Debug)]
pub struct Hosted {
    senders: Senders,
    receivers: Receivers,
    queue: Queue,
    /// Values that wait to be tried again, by time and ticket, and who put them off.
    delayed: BTreeMap<(u64, u64), (ReceiverKey, Item)>,
    attempts_max: Option<u32>,
    /// Values here that are settled with their senders.
    settled: usize,
    /// Values that were declared dead and may come back.
    dying: usize,
    /// Values that went out again, and that died, so far.
    redelivered: u64,
    dead: u64,
    held_bytes: u64,
    finished: bool,
    effects: VecDeque<Effect>,
}

impl Hosted {
    /// A channel of this capacity, in items; above [`CAPACITY_ITEMS_MAX`] it counts as that.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            senders: Senders::new(capacity.min(CAPACITY_ITEMS_MAX)),
            receivers: Receivers::default(),
            queue: Queue::default(),
            delayed: BTreeMap::new(),
            attempts_max: None,
            settled: 0,
            dying: 0,
            redelivered: 0,
            dead: 0,
            held_bytes: 0,
            finished: false,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Adds a sender with no credit. False if the key is in use, be it by a removed sender whose values are not all
    /// settled.
    pub fn add_sender(&mut self, key: SenderKey) -> bool {
        self.senders.add(key)
    }

    /// The sender is gone for good. What it pushed stays where C ≥ 1, and its unused credit is free at once; where
    /// C = 0 an offer that nobody holds is withdrawn, and one in flight is if it comes back (`HOST-14`).
    pub fn remove_sender(&mut self, key: SenderKey) {
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
    /// way asks only for the rest.
    pub fn want_up_to(&mut self, key: SenderKey, limit: u64) {
        let held = self.limit(key).unwrap_or(limit);
        self.want(key, limit.saturating_sub(held));
    }

    /// Takes one unit of free credit for this sender if nobody waits for credit; for local senders.
    #[must_use]
    pub fn try_lease(&mut self, key: SenderKey) -> bool {
        let leased = self.senders.try_lease(key);
        self.settle();
        leased
    }

    /// A value arrives from a sender (`HOST-7`, `HOST-16`). After a close, what was leased before is still admitted.
    ///
    /// # Errors
    /// The number is not the sender's next, or lies beyond its lease.
    pub fn push(&mut self, key: SenderKey, seq: u64, bytes: Bytes) -> Result<(), Violation> {
        self.push_marked(key, seq, bytes, false)
    }

    /// As [`Self::push`], for a value that may have been received before, in a session that was lost (`CHAN-10`).
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_marked(
        &mut self,
        key: SenderKey,
        seq: u64,
        bytes: Bytes,
        redelivered: bool,
    ) -> Result<(), Violation> {
        let ticket = self.queue.next_ticket();
        if self.senders.push(key, seq, ticket, &mut self.effects)? == Admission::Queued {
            self.held_bytes += bytes.len() as u64;
            self.queue.push(key, seq, bytes, redelivered);
        }
        self.settle();
        Ok(())
    }

    /// The sender's next number was used up by an offer that never came, because it was withdrawn on its way (`CHAN-9`).
    ///
    /// # Errors
    /// It is not the sender's next, or the channel is buffered.
    pub fn skip(&mut self, key: SenderKey, seq: u64) -> Result<(), Violation> {
        self.senders.skip(key, seq)
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

    /// The answer to [`Effect::Recall`]: the sender keeps what lies below `limit`, which it must have committed
    /// (`HOST-12`).
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

    /// Whether the sender is here, or has gone and left values that are not settled: those end with
    /// [`Effect::Forgotten`].
    #[must_use]
    pub fn knows_sender(&self, key: SenderKey) -> bool {
        self.senders.knows(key)
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

    /// Adds a receiver. False if it is there already.
    pub fn add_receiver(&mut self, key: ReceiverKey) -> bool {
        self.receivers.add(key, None)
    }

    /// The receiver is gone: its demand vanishes and all it held goes back (`HOST-4`).
    pub fn remove_receiver(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.receivers.remove(key) else { return };
        let in_flight = receiver.in_flight.into_iter().flatten();
        match receiver.held {
            // It may have had any of them.
            Some(held) => held.into_items().chain(in_flight).for_each(|item| self.retry(item)),
            None => in_flight.for_each(|item| self.put_back(item)),
        }
        self.settle();
    }

    /// So many more `recv`s wait there; they join the tail of the line (`HOST-2`).
    ///
    /// # Errors
    /// The receiver is unknown, or waits for more than [`DEMAND_UNITS_MAX`].
    pub fn demand(&mut self, key: ReceiverKey, units: u64) -> Result<(), Violation> {
        self.receivers.demand(key, units)?;
        self.settle();
        Ok(())
    }

    /// So many of its `recv`s stopped waiting, newest first. Returns how many had not been served: for the rest a value
    /// is on its way.
    pub fn cancel_demand(&mut self, key: ReceiverKey, units: u64) -> u64 {
        self.receivers.cancel(key, units)
    }

    /// `recv` has returned the oldest `n` values that were in flight to this receiver (`HOST-5`).
    ///
    /// # Errors
    /// Fewer are in flight.
    pub fn taken(&mut self, key: ReceiverKey, n: u64) -> Result<(), Violation> {
        let Self { senders, effects, held_bytes, settled, .. } = self;
        self.receivers.take(key, n, |item, held| {
            // One that is held stays here, settled now if it was not before.
            if held && !item.settled {
                *settled += 1;
                senders.keep(item.origin);
            }
            if !item.settled {
                senders.settle_taken(item.origin, item.seq, effects);
            } else if !held {
                *settled -= 1;
                senders.let_go(item.origin, effects);
            }
            *held_bytes -= if held { 0 } else { item.bytes.len() as u64 };
        })?;
        self.settle();
        Ok(())
    }

    /// The receiver will not take what it holds after the oldest `keep`: those values go back to their places at the
    /// head, in order, marked redelivered (`HOST-4`). Returns how many. The demand they had answered is used up.
    ///
    /// # Errors
    /// Fewer than `keep` are in flight.
    pub fn give_back(&mut self, key: ReceiverKey, keep: u64) -> Result<usize, Violation> {
        let returned = self.receivers.give_back(key, keep)?;
        let count = returned.len();
        returned.into_iter().for_each(|item| self.put_back(item));
        self.settle();
        Ok(count)
    }

    /// Ends the channel: no more credit, and leases are recalled; what was committed under them still arrives and is
    /// delivered, then comes [`Effect::Finished`] (`HOST-18`, `HOST-20`). Where C = 0, offers nobody holds are withdrawn
    /// (`HOST-19`). To end without waiting for an absent sender, remove it.
    pub fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        self.senders.close(&mut self.effects);
        if self.capacity() == 0 {
            for item in self.queue.clear() {
                if item.settled {
                    self.queue.put_back(item);
                    continue;
                }
                self.held_bytes -= item.bytes.len() as u64;
                self.senders.refuse(item.origin, item.seq, &mut self.effects);
            }
        }
        self.settle();
    }

    fn unqueue(&mut self, ticket: u64) {
        if let Some(item) = self.queue.remove(ticket) {
            self.held_bytes -= item.bytes.len() as u64;
        }
    }

    /// Back to its place at the head, unless its sender has withdrawn it.
    fn put_back(&mut self, item: Item) {
        let stays =
            item.settled || self.senders.take_back(item.origin, item.seq, item.ticket, &mut self.effects);
        if stays {
            self.queue.put_back(item);
        } else {
            self.held_bytes -= item.bytes.len() as u64;
        }
    }

    /// Brings the invariants back after a change: values to demand, then credit to senders.
    fn settle(&mut self) {
        while self.receivers.units() > 0 {
            let Some(item) = self.queue.pop() else { break };
            if !item.settled {
                self.senders.dispatched(item.origin);
            }
            self.redelivered += u64::from(item.redelivered);
            if let Some(to) = self.receivers.dispatch(item.clone()) {
                self.effects.push_back(Effect::Deliver { to, item });
            }
        }
        self.senders.serve(&mut self.effects);
        if self.is_drained() && !self.finished {
            self.finished = true;
            self.effects.push_back(Effect::Finished);
        }
        #[cfg(debug_assertions)]
        self.audit();
    }

    /// The whole state is checked where it is small, as in tests and simulations; a large one would pay for it at every
    /// call.
    #[cfg(debug_assertions)]
    fn audit(&self) {
        let here = self.queue.len() + self.receivers.in_flight() + self.unacked();
        assert!((here - self.settled) as u64 <= self.senders.pool().lent(), "a value that no lease counts");
        assert!(self.queue.len() == 0 || self.receivers.units() == 0, "HOST-9: a value and a receiver wait");
        assert!(self.senders.pool().next_turn().is_none(), "HOST-9: credit and a sender wait");
        if self.senders.len() + self.receivers.len() <= 32 {
            self.senders.audit();
            self.receivers.audit();
        }
    }
}
