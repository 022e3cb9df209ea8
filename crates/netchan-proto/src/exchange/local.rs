//! The ends of a queue inside this process, and who waits at them.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{LOCAL_RECEIVER, LOCAL_SENDER, Output, Ports, Queue, Ticket, WaitQueue};
use crate::channel::{CloseReason, Payload};
use crate::hosted::{HolderOptions, Leave, ReceiverKey, SenderKey, Withdraw};
use crate::planted::{self, Mutant};

/// What a local send found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The value is committed, under this number.
    Committed(u64),
    /// A unit is set aside.
    Reserved,
    /// The channel is closed.
    Closed(CloseReason),
}

/// What became of an offer that its sender wanted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It was taken.
    Taken,
    /// Nobody has it, and nobody will.
    Withdrawn,
    /// A receiver holds it, and decides.
    Unknown,
}

/// A value that a local receive took.
#[derive(Clone, Debug)]
pub struct Taken<T> {
    /// The encoded value.
    pub bytes: Bytes,
    /// Who sent it; none where this process did.
    pub from: Option<T>,
    /// It may have been received before.
    pub redelivered: bool,
    /// How often it was handed out in vain.
    pub attempts: u32,
    /// Its number among those that the receiver has taken.
    pub number: u64,
}

/// A local send on a channel of capacity 0.
#[derive(Debug, Default)]
struct Offer {
    outcome: Option<bool>,
    waker: Option<Waker>,
    /// Nobody waits for the outcome any more.
    orphan: bool,
}

/// A local receiver that acknowledges what it takes.
#[derive(Debug, Default)]
struct LocalHolder {
    receivers: WaitQueue,
    /// Receives the policy has been told of.
    demanded: u64,
    taken: u64,
}

/// The ends inside this process.
///
/// Invariants: `committed + reserved ≤ limit`; as many receives are told to the policy, or have a value, as wait here, once
/// everything is carried out.
#[derive(Debug, Default)]
pub(super) struct Local {
    pub(super) receivers: WaitQueue,
    /// Receives the policy has been told of and has not served.
    demanded: u64,
    pub(super) senders: WaitQueue,
    committed: u64,
    reserved: u64,
    limit: u64,
    /// Every local value numbered below this has been taken.
    pub(super) taken: u64,
    /// Values taken by local receives.
    received: u64,
    pub(super) watchers: WaitQueue,
    offers: HashMap<SenderKey, Offer>,
    holders: HashMap<ReceiverKey, LocalHolder>,
}

impl Local {
    const fn credit(&self) -> u64 {
        self.limit - self.committed - self.reserved
    }
}

/// Sending.
impl<P: Ports> Queue<P> {
    pub(super) fn local_granted(&mut self, limit: u64, out: &mut Output<P>) {
        self.local.limit = limit;
        let free = if planted::is(Mutant::GrantWakesNobody) { 0 } else { self.local.credit() };
        self.local.senders.wake_front(free, &mut out.wakers);
    }

    pub(super) fn local_recalled(&mut self) {
        let kept = self.local.committed + self.local.reserved;
        if self.hosted.yielded(LOCAL_SENDER, kept).is_ok() {
            self.local.limit = kept;
        }
    }

    fn lease_one(&mut self) {
        if self.hosted.try_lease(LOCAL_SENDER) {
            self.local.limit = self.hosted.limit(LOCAL_SENDER).unwrap_or(self.local.limit);
        }
    }

    /// One unit of credit for a local send that has `ahead` others before it.
    fn take_unit(&mut self, ahead: usize) -> bool {
        if self.local.credit() <= ahead as u64 && ahead == 0 && self.local.senders.is_empty() {
            self.lease_one();
        }
        self.local.credit() > ahead as u64
    }

    fn commit(&mut self, from: Option<P::Peer>, value: Payload<'_>) -> Option<u64> {
        let seq = self.local.committed;
        let bytes = self.store.keep(value);
        self.hosted.push_one(LOCAL_SENDER, seq, from, bytes, false).ok()?;
        self.local.committed += 1;
        Some(seq)
    }

    fn local_want(&mut self, out: &mut Output<P>) {
        let waiting = self.local.senders.len() as u64;
        let free = self.local.credit();
        if free == 0 {
            self.hosted.want_besides(LOCAL_SENDER, waiting);
        } else {
            self.hosted.want(LOCAL_SENDER, waiting.saturating_sub(free));
        }
        let free = self.local.credit();
        self.local.senders.wake_front(free, &mut out.wakers);
    }

    /// Commits a value (or, without one, sets a unit aside), waiting for credit in turn.
    pub fn poll_acquire(
        &mut self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        value: Option<Payload<'_>>,
        out: &mut Output<P>,
    ) -> Poll<Acquired> {
        if let Some(reason) = &self.closed {
            let reason = reason.clone();
            self.local.senders.leave(ticket);
            return Poll::Ready(Acquired::Closed(reason));
        }
        let ahead = self.local.senders.ahead_of(*ticket);
        if !self.take_unit(ahead) {
            if let Some(cx) = cx {
                self.local.senders.wait(ticket, cx.waker());
                self.local_want(out);
            }
            self.carry_out(out);
            return Poll::Pending;
        }
        let was_waiting = ticket.is_some() && self.local.senders.leave(ticket);
        let acquired = match value {
            Some(value) => match self.commit(None, value) {
                Some(seq) => Acquired::Committed(seq),
                None => Acquired::Closed(CloseReason::plain()),
            },
            None => {
                self.local.reserved += 1;
                Acquired::Reserved
            }
        };
        if was_waiting {
            self.local_want(out);
        } else {
            self.hosted.settle();
        }
        self.carry_out(out);
        Poll::Ready(acquired)
    }

    /// Sets the first of `wanted` units aside. Who wants several stays at the head of the queue until it has them all.
    pub fn poll_reserve(
        &mut self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        wanted: usize,
        out: &mut Output<P>,
    ) -> Poll<Acquired> {
        let Some(cx) = cx.filter(|_| wanted > 1) else { return self.poll_acquire(cx, ticket, None, out) };
        if let Some(reason) = self.closed.clone() {
            self.local.senders.leave(ticket);
            return Poll::Ready(Acquired::Closed(reason));
        }
        let first = self.local.senders.ahead_of(*ticket) == 0;
        self.local.senders.wait(ticket, cx.waker());
        if first && self.local.credit() == 0 {
            self.lease_one();
        }
        if first && self.local.credit() > 0 {
            self.local.reserved += 1;
            self.hosted.settle();
            self.carry_out(out);
            return Poll::Ready(Acquired::Reserved);
        }
        self.local_want(out);
        self.carry_out(out);
        Poll::Pending
    }

    /// A local send stops waiting for credit.
    pub fn leave_senders(&mut self, ticket: &mut Option<Ticket>, out: &mut Output<P>) {
        if self.local.senders.leave(ticket) {
            self.local_want(out);
            self.carry_out(out);
        }
    }

    /// Commits a value on a unit that was set aside, in a client's name if `from` says so. `None` once the channel is closed.
    pub fn commit_reserved(
        &mut self,
        from: Option<P::Peer>,
        value: Payload<'_>,
        out: &mut Output<P>,
    ) -> Option<u64> {
        let seq = self.commit_reserved_one(from, value);
        self.hosted.settle();
        self.carry_out(out);
        seq
    }

    /// As [`Self::commit_reserved`]; settling follows, once for many.
    pub(super) fn commit_reserved_one(&mut self, from: Option<P::Peer>, value: Payload<'_>) -> Option<u64> {
        self.local.reserved -= 1;
        self.commit(from, value)
    }

    /// Whether a unit could be set aside for somebody who has waited with this ticket, or who has come now. It is, if so.
    pub(super) fn reserve_now(&mut self, ticket: &mut Option<Ticket>) -> bool {
        let ahead = self.local.senders.ahead_of(*ticket);
        let alone = ticket.is_some() && ahead == 0 && self.local.credit() == 0;
        if alone {
            self.lease_one();
        }
        let has = self.take_unit(ahead);
        if has {
            self.local.senders.leave(ticket);
            self.local.reserved += 1;
        }
        has
    }

    /// Gives a unit back that was set aside and is not needed; settling follows.
    pub(super) fn give_unit_back(&mut self) {
        self.local.reserved -= 1;
    }

    /// Some units were set aside, and used or given back: whoever waits behind is told, and settling follows.
    pub(super) fn pass_units_on(&mut self, out: &mut Output<P>) {
        if !self.local.senders.is_empty() {
            self.local_want(out);
        }
    }

    /// Leaves a place in which nothing is waited for any more.
    pub(super) fn leave_line(&mut self, ticket: &mut Option<Ticket>) {
        self.local.senders.leave(ticket);
    }

    /// Waits for a unit.
    pub(super) fn wait_for_unit(&mut self, ticket: &mut Option<Ticket>, waker: &Waker, out: &mut Output<P>) {
        self.local.senders.wait(ticket, waker);
        self.local_want(out);
    }

    /// Gives a unit that was set aside back.
    pub fn release_reserved(&mut self, out: &mut Output<P>) {
        self.local.reserved -= 1;
        if self.closed.is_some() {
            // It will not be used, and nothing waits for it.
            let kept = self.local.committed + self.local.reserved;
            if self.hosted.shrink(LOCAL_SENDER, kept) {
                self.local.limit = kept;
            }
        }
        self.local_want(out);
        self.carry_out(out);
    }

    /// How many local sends could commit now.
    #[must_use]
    pub fn available(&self) -> u64 {
        let free = if self.hosted.is_full_of_bytes() { 0 } else { self.hosted.free() };
        if self.closed.is_some() { 0 } else { self.local.credit() + free }
    }

    /// How many values local sends have committed, how many of them are taken, and how many sends wait.
    #[must_use]
    pub fn sent_locally(&self) -> (u64, u64, u64) {
        (self.local.committed, self.local.taken, self.local.senders.len() as u64)
    }

    /// Waits until a committed value has been taken; false when the channel ended before.
    pub fn poll_taken(&mut self, cx: &Context<'_>, ticket: &mut Option<Ticket>, seq: u64) -> Poll<bool> {
        let taken = self.local.taken > seq;
        if taken || self.finished {
            self.local.watchers.leave(ticket);
            return Poll::Ready(taken);
        }
        self.local.watchers.wait(ticket, cx.waker());
        Poll::Pending
    }

    /// Waits until the channel is closed.
    pub fn poll_closed(&mut self, cx: &Context<'_>, ticket: &mut Option<Ticket>) -> Poll<CloseReason> {
        if let Some(reason) = self.closed.clone() {
            self.local.watchers.leave(ticket);
            return Poll::Ready(reason);
        }
        self.local.watchers.wait(ticket, cx.waker());
        Poll::Pending
    }

    /// A watcher stops waiting.
    pub fn leave_watchers(&mut self, ticket: &mut Option<Ticket>) {
        self.local.watchers.leave(ticket);
    }
}

/// Offering, with capacity 0.
impl<P: Ports> Queue<P> {
    /// Puts a value on offer.
    ///
    /// # Errors
    /// The channel is closed.
    pub fn offer(&mut self, value: Payload<'_>, out: &mut Output<P>) -> Result<SenderKey, CloseReason> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        let key = SenderKey(self.new_key());
        self.hosted.add_sender(key);
        self.local.offers.insert(key, Offer::default());
        let bytes = self.store.keep(value);
        if self.hosted.push_from(key, 0, None, bytes, false).is_err() {
            self.local.offers.remove(&key);
            return Err(CloseReason::plain());
        }
        self.carry_out(out);
        Ok(key)
    }

    /// Waits for the outcome of an offer: true when it was taken.
    pub fn poll_offer(&mut self, cx: &Context<'_>, key: SenderKey, out: &mut Output<P>) -> Poll<bool> {
        let Some(offer) = self.local.offers.get_mut(&key) else { return Poll::Ready(false) };
        let Some(taken) = offer.outcome else {
            offer.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.drop_offer(key, out);
        Poll::Ready(taken)
    }

    fn drop_offer(&mut self, key: SenderKey, out: &mut Output<P>) {
        self.local.offers.remove(&key);
        self.hosted.remove_sender(key);
        self.carry_out(out);
    }

    /// Wants an offer back.
    pub fn withdraw_offer(&mut self, key: SenderKey, out: &mut Output<P>) -> Offered {
        let outcome = match self.hosted.withdraw(key, 0) {
            Ok(Withdraw::Withdrawn) => Offered::Withdrawn,
            Ok(Withdraw::Taken) | Err(_) => Offered::Taken,
            Ok(Withdraw::Dispatched) => return Offered::Unknown,
        };
        self.drop_offer(key, out);
        outcome
    }

    /// Nobody waits for the outcome of an offer any more.
    pub fn abandon_offer(&mut self, key: SenderKey, out: &mut Output<P>) {
        if self.withdraw_offer(key, out) != Offered::Unknown {
            return;
        }
        let settled = self.local.offers.get_mut(&key).is_none_or(|offer| {
            offer.orphan = true;
            offer.outcome.is_some()
        });
        if settled {
            self.drop_offer(key, out);
        }
    }

    /// Says whether that was a local offer.
    pub(super) fn settle_offer(&mut self, key: SenderKey, taken: bool, out: &mut Output<P>) -> bool {
        let Some(offer) = self.local.offers.get_mut(&key) else { return false };
        offer.outcome.get_or_insert(taken);
        out.wakers.extend(offer.waker.take());
        if offer.orphan {
            self.local.offers.remove(&key);
            self.hosted.remove_sender(key);
        }
        true
    }
}

/// Receiving.
impl<P: Ports> Queue<P> {
    pub(super) fn wake_receivers(&mut self, out: &mut Output<P>) {
        // What is given is looked at where it is taken.
        _ = self.hosted.next_unsent(LOCAL_RECEIVER);
        let ready = self.hosted.in_flight_of(LOCAL_RECEIVER) as u64;
        self.local.demanded = self.hosted.waiting_units_of(LOCAL_RECEIVER);
        self.local.receivers.wake_front(ready, &mut out.wakers);
    }

    /// How many values a local receive could have now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.hosted.len() + self.hosted.in_flight_of(LOCAL_RECEIVER)
    }

    /// How many values local receives have taken, and how many receives wait.
    #[must_use]
    pub fn received_locally(&self) -> (u64, u64) {
        (self.local.received, self.local.receivers.len() as u64)
    }

    /// The next value for a local receive, in turn. `None` once the channel is closed and drained.
    pub fn poll_recv(
        &mut self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        out: &mut Output<P>,
    ) -> Poll<Option<Taken<P::Peer>>> {
        let ahead = self.local.receivers.ahead_of(*ticket) as u64;
        if (self.hosted.in_flight_of(LOCAL_RECEIVER) as u64) <= ahead {
            self.demand_up_to(ahead + 1);
            self.carry_out(out);
        }
        let here = self.hosted.in_flight_of(LOCAL_RECEIVER) as u64;
        if here > ahead
            && let Some(taken) = self.take_one(LOCAL_RECEIVER, self.local.received)
        {
            self.local.receivers.leave(ticket);
            self.local.received += 1;
            self.hosted.settle();
            // More may wait here than the policy takes at once.
            self.demand_up_to(self.local.receivers.len() as u64);
            self.carry_out(out);
            return Poll::Ready(Some(taken));
        }
        if self.finished && here == 0 {
            self.local.receivers.leave(ticket);
            return Poll::Ready(None);
        }
        match cx {
            Some(cx) => self.local.receivers.wait(ticket, cx.waker()),
            None => self.drop_excess_demand(out),
        }
        Poll::Pending
    }

    fn take_one(&mut self, key: ReceiverKey, number: u64) -> Option<Taken<P::Peer>> {
        let item = self.hosted.take_one(key)?;
        let (from, bytes) = (item.from, item.bytes);
        Some(Taken { bytes, from, redelivered: item.redelivered, attempts: item.attempts, number })
    }

    fn demand_up_to(&mut self, wanted: u64) {
        let have = self.local.demanded + self.hosted.in_flight_of(LOCAL_RECEIVER) as u64;
        let more = wanted.saturating_sub(have);
        if more > 0 && self.hosted.demand(LOCAL_RECEIVER, more).is_ok() {
            self.local.demanded = self.hosted.waiting_units_of(LOCAL_RECEIVER);
        }
    }

    /// A local receive stops waiting: a value that was its goes to the next, here or elsewhere.
    pub fn leave_receivers(&mut self, ticket: &mut Option<Ticket>, out: &mut Output<P>) {
        if self.local.receivers.leave(ticket) {
            self.drop_excess_demand(out);
        }
    }

    fn drop_excess_demand(&mut self, out: &mut Output<P>) {
        let waiting = self.local.receivers.len() as u64;
        let here = self.hosted.in_flight_of(LOCAL_RECEIVER) as u64;
        let excess = (self.local.demanded + here).saturating_sub(waiting).min(self.local.demanded);
        if excess > 0 {
            self.hosted.cancel_demand(LOCAL_RECEIVER, excess);
            self.local.demanded = self.hosted.waiting_units_of(LOCAL_RECEIVER);
        }
        let keep = waiting.min(here);
        if here > keep {
            _ = self.hosted.give_back(LOCAL_RECEIVER, keep);
        }
        self.carry_out(out);
        let ready = self.hosted.in_flight_of(LOCAL_RECEIVER) as u64;
        self.local.receivers.wake_front(ready, &mut out.wakers);
    }
}

/// Receiving with acknowledgement.
impl<P: Ports> Queue<P> {
    /// A receiver of this process that acknowledges what it takes (`DEL-14`).
    pub fn add_local_holder(&mut self, options: HolderOptions) -> ReceiverKey {
        let key = ReceiverKey(self.new_key());
        self.hosted.add_holder(key, options);
        self.local.holders.insert(key, LocalHolder::default());
        key
    }

    /// It is gone: what it held goes to others.
    pub fn remove_local_holder(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        if let Some(mut holder) = self.local.holders.remove(&key) {
            holder.receivers.wake_all(&mut out.wakers);
            self.hosted.remove_receiver(key, Leave::ORDERLY);
            self.carry_out(out);
        }
    }

    /// Values are for one of them. Says whether it is one.
    pub(super) fn wake_holder(&mut self, key: ReceiverKey, out: &mut Output<P>) -> bool {
        let Some(holder) = self.local.holders.get_mut(&key) else { return false };
        _ = self.hosted.next_unsent(key);
        holder.demanded = self.hosted.waiting_units_of(key);
        let ready = self.hosted.in_flight_of(key) as u64;
        holder.receivers.wake_front(ready, &mut out.wakers);
        true
    }

    /// The next delivery for a local holder, in turn. `None` once the channel is closed and everything in it is done.
    pub fn poll_delivery(
        &mut self,
        key: ReceiverKey,
        cx: &Context<'_>,
        ticket: &mut Option<Ticket>,
        out: &mut Output<P>,
    ) -> Poll<Option<Taken<P::Peer>>> {
        let Some(holder) = self.local.holders.get(&key) else { return Poll::Ready(None) };
        let ahead = holder.receivers.ahead_of(*ticket) as u64;
        let have = holder.demanded + self.hosted.in_flight_of(key) as u64;
        if have <= ahead {
            _ = self.hosted.demand(key, ahead + 1 - have);
            self.wake_holder(key, out);
            self.carry_out(out);
        }
        let number = self.local.holders.get(&key).map_or(0, |holder| holder.taken);
        if self.hosted.in_flight_of(key) as u64 > ahead
            && let Some(taken) = self.take_one(key, number)
        {
            if let Some(holder) = self.local.holders.get_mut(&key) {
                holder.receivers.leave(ticket);
                holder.taken += 1;
            }
            self.hosted.settle();
            self.carry_out(out);
            return Poll::Ready(Some(taken));
        }
        let Some(holder) = self.local.holders.get_mut(&key) else { return Poll::Ready(None) };
        if self.finished {
            holder.receivers.leave(ticket);
            return Poll::Ready(None);
        }
        holder.receivers.wait(ticket, cx.waker());
        Poll::Pending
    }

    /// A local holder's receive stops waiting.
    pub fn leave_deliveries(&mut self, key: ReceiverKey, ticket: &mut Option<Ticket>, out: &mut Output<P>) {
        let Some(holder) = self.local.holders.get_mut(&key) else { return };
        if !holder.receivers.leave(ticket) {
            return;
        }
        let waiting = holder.receivers.len() as u64;
        let here = self.hosted.in_flight_of(key) as u64;
        let excess = (holder.demanded + here).saturating_sub(waiting);
        self.hosted.cancel_demand(key, excess.min(holder.demanded));
        if here > waiting {
            _ = self.hosted.give_back(key, waiting);
        }
        self.wake_holder(key, out);
        self.carry_out(out);
    }

    /// A local holder is done with a delivery. False if it holds it no longer.
    pub fn ack_locally(&mut self, key: ReceiverKey, number: u64, out: &mut Output<P>) -> bool {
        let acked = self.hosted.ack(key, number);
        self.carry_out(out);
        acked
    }

    /// A local holder gives a delivery back. False if it holds it no longer.
    pub fn nack_locally(
        &mut self,
        key: ReceiverKey,
        number: u64,
        ready_at: Option<u64>,
        out: &mut Output<P>,
    ) -> bool {
        let given_back = self.hosted.nack(key, number, ready_at);
        self.carry_out(out);
        given_back
    }
}
