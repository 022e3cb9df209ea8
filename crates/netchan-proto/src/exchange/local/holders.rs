//! Receivers of this process that acknowledge what they take.

use std::task::{Context, Poll};

use super::{LocalHolder, Taken};
use crate::exchange::{Output, Ports, Queue, Ticket};
use crate::hosted::{HolderOptions, Leave, ReceiverKey};

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
    pub(in crate::exchange) fn wake_holder(&mut self, key: ReceiverKey, out: &mut Output<P>) -> bool {
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

    /// A local holder is to keep a delivery until then, whatever its lease. False if it holds it no longer.
    pub fn extend_locally(&mut self, key: ReceiverKey, number: u64, until: u64) -> bool {
        self.hosted.extend(key, number, until)
    }

    /// What a local holder has taken, what is here for it, and how many of its receives wait.
    #[must_use]
    pub fn delivered_locally(&self, key: ReceiverKey) -> (u64, u64, u64) {
        let holder = self.local.holders.get(&key);
        let (taken, waiting) = holder.map_or((0, 0), |holder| (holder.taken, holder.receivers.len() as u64));
        (taken, self.hosted.in_flight_of(key) as u64, waiting)
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
