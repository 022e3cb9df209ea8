//! The ends of a queue inside this process, and who waits at them.

mod holders;
mod offers;
mod receiving;

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{LOCAL_SENDER, Output, Ports, Queue, Ticket, WaitQueue};
use crate::channel::{CloseReason, Payload};
use crate::hosted::{NextTaker, ReceiverKey, SenderKey};
use crate::planted::{self, Mutant};

/// Values of local sends that wait for the next run, at most: then the sender sees to it itself.
const RUN_VALUES_MAX: usize = 512;

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
    /// Values that wait for the next run.
    behind: usize,
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

    /// As [`Self::commit`], and then does what follows: at once for a receiver that has few, and else with others in a run.
    fn commit_next(&mut self, from: Option<P::Peer>, value: Payload<'_>, out: &mut Output<P>) -> Option<u64> {
        let taker = self.hosted.next();
        if taker == NextTaker::Starving || self.hosted.capacity() == 0 {
            let seq = self.commit(from, value);
            self.hosted.settle();
            self.carry_out(out);
            return seq;
        }
        let seq = self.local.committed;
        let bytes = self.store.keep(value);
        self.hosted.push_behind(LOCAL_SENDER, seq, from, bytes).ok()?;
        self.local.committed += 1;
        if taker == NextTaker::Fed {
            self.local.behind += 1;
            if self.local.behind >= RUN_VALUES_MAX {
                self.dispatch(out);
            } else if self.local.behind == 1 {
                out.dispatch_due = true;
            }
        }
        Some(seq)
    }

    /// Commits a value, where nothing more is to be done about it for now: credit is free, nobody waits for it, and the value goes
    /// with others in the next run, or nobody would take it. `None`, and nothing is done, in all other cases.
    pub fn commit_behind(&mut self, value: &Payload<'_>) -> Option<u64> {
        let in_run = 1..RUN_VALUES_MAX - 1;
        let quiet = match self.hosted.next() {
            NextTaker::Nobody => true,
            NextTaker::Fed => in_run.contains(&self.local.behind),
            NextTaker::Starving => false,
        };
        if !quiet || self.closed.is_some() || self.local.credit() > 0 || !self.local.senders.is_empty() {
            return None;
        }
        let (seq, store) = (self.local.committed, &mut self.store);
        let keep = || match value {
            Payload::Owned(bytes) => bytes.clone(),
            Payload::Slice(slice) => store.keep(Payload::Slice(slice)),
        };
        if !self.hosted.lend_and_push_behind(LOCAL_SENDER, seq, None, keep) {
            return None;
        }
        self.local.limit += 1;
        self.local.committed += 1;
        self.local.behind += usize::from(self.local.behind > 0);
        Some(seq)
    }

    /// Values that local sends have left behind go out, in runs.
    pub fn dispatch(&mut self, out: &mut Output<P>) {
        self.local.behind = 0;
        self.hosted.settle();
        self.carry_out(out);
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
            Some(value) => match self.commit_next(None, value, out) {
                Some(seq) => Acquired::Committed(seq),
                None => Acquired::Closed(CloseReason::plain()),
            },
            None => {
                self.local.reserved += 1;
                self.hosted.settle();
                Acquired::Reserved
            }
        };
        if was_waiting {
            self.local_want(out);
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
        self.local.reserved -= 1;
        self.commit_next(from, value, out)
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
