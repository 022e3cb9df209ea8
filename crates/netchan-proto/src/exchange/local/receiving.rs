//! Receives of this process.

use std::task::{Context, Poll};

use super::Taken;
use crate::exchange::{LOCAL_RECEIVER, Output, Ports, Queue, Ticket};
use crate::hosted::{Item, ReceiverKey};

impl<P: Ports> Queue<P> {
    pub(in crate::exchange) fn wake_receivers(&mut self, out: &mut Output<P>) {
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

    /// The next value, where one is here, nobody waits for it, and nothing more is to be done about it for now. `None`, and
    /// nothing is done, in all other cases.
    pub fn take_front(&mut self) -> Option<Taken<P::Peer>> {
        if self.local.demanded > 0 || !self.local.receivers.is_empty() || !self.held_up.is_empty() {
            return None;
        }
        let Item { bytes, from, redelivered, attempts, .. } = self.hosted.take_front(LOCAL_RECEIVER)?;
        self.local.received += 1;
        Some(Taken { bytes, from, redelivered, attempts, number: self.local.received - 1 })
    }

    pub(super) fn take_one(&mut self, key: ReceiverKey, number: u64) -> Option<Taken<P::Peer>> {
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
