//! The handles of the server's own program on a queue.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::channel::Payload;
use netchan_proto::exchange::{self, Offered, Taken};
use netchan_proto::hosted::{HolderOptions, Item, ReceiverKey, SenderKey};
use netchan_proto::wire::Verdict;

use super::{Hub, Out, timer};
use crate::error::CloseReason;
use crate::patience;
use crate::peer::Peer;
use crate::stats::{ReceiverStats, SenderStats};
use crate::wait::Ticket;

/// What a local send found.
pub(crate) enum Acquired {
    /// The value is committed, under this number.
    Committed(u64),
    /// A unit is set aside.
    Reserved,
    /// The channel is closed.
    Closed(CloseReason),
}

impl From<exchange::Acquired> for Acquired {
    fn from(acquired: exchange::Acquired) -> Self {
        match acquired {
            exchange::Acquired::Committed(seq) => Self::Committed(seq),
            exchange::Acquired::Reserved => Self::Reserved,
            exchange::Acquired::Closed(reason) => Self::Closed(CloseReason::from(&reason)),
        }
    }
}

/// What became of an offer that its sender wanted back.
pub(crate) type OfferOutcome = Offered;

/// A value that this process received.
pub(crate) struct Delivered {
    pub(crate) bytes: Bytes,
    pub(crate) peer: Peer,
    pub(crate) redelivered: bool,
    /// Attempts before this one, and the number under which a holder holds it.
    pub(crate) attempts: u32,
    pub(crate) number: u64,
}

impl From<Taken<Peer>> for Delivered {
    fn from(taken: Taken<Peer>) -> Self {
        let Taken { bytes, from, redelivered, attempts, number } = taken;
        Self { bytes, peer: from.unwrap_or_else(Peer::local), redelivered, attempts, number }
    }
}

impl Hub {
    /// Commits a value (or, without one, sets a unit aside), waiting for credit in turn.
    pub(crate) fn poll_acquire(
        &self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        value: Option<Payload<'_>>,
    ) -> Poll<Acquired> {
        let mut queue = patience::lock(&self.queue);
        if let (Some(value), None) = (&value, &ticket)
            && let Some(seq) = queue.commit_behind(value)
        {
            return Poll::Ready(Acquired::Committed(seq));
        }
        self.run_on(queue, |queue, out| queue.poll_acquire(cx, ticket, value, out)).map(Acquired::from)
    }

    /// Sets the first of `wanted` units aside. Who wants several stays at the head of the queue until it has them all.
    pub(crate) fn poll_reserve(
        &self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        wanted: usize,
    ) -> Poll<Acquired> {
        self.run(|queue, out| queue.poll_reserve(cx, ticket, wanted, out)).map(Acquired::from)
    }

    /// A local send stops waiting for credit.
    pub(crate) fn leave_senders(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.run(|queue, out| queue.leave_senders(ticket, out));
        }
    }

    /// Commits a value on a unit that was set aside.
    pub(crate) fn commit_reserved(&self, bytes: Bytes) -> Option<u64> {
        self.run(|queue, out| {
            if queue.closed().is_some() {
                queue.release_reserved(out);
                return None;
            }
            queue.commit_reserved(None, Payload::Owned(bytes), out)
        })
    }

    /// Keeps a dead value, in its sender's name. False if there is no room.
    pub(super) fn take_dead(&self, item: &Item<Option<Peer>>) -> bool {
        self.run(|queue, out| {
            let place = queue.poll_acquire(None, &mut None, None, out);
            let placed = matches!(place, Poll::Ready(exchange::Acquired::Reserved));
            if placed {
                queue.commit_reserved(item.from.clone(), Payload::Owned(item.bytes.clone()), out);
            }
            placed
        })
    }

    /// Gives a unit that was set aside back.
    pub(crate) fn release_reserved(&self) {
        self.run(|queue, out| queue.release_reserved(out));
    }

    /// How many local sends could commit now.
    pub(crate) fn available(&self) -> u64 {
        self.queue.lock().available()
    }

    /// Waits until a committed value has been taken; false when the channel ended before.
    pub(crate) fn poll_taken(&self, cx: &Context<'_>, ticket: &mut Option<Ticket>, seq: u64) -> Poll<bool> {
        self.queue.lock().poll_taken(cx, ticket, seq)
    }

    /// Waits until the channel is closed.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>, ticket: &mut Option<Ticket>) -> Poll<CloseReason> {
        self.queue.lock().poll_closed(cx, ticket).map(|reason| CloseReason::from(&reason))
    }

    /// A watcher stops waiting.
    pub(crate) fn leave_watchers(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.queue.lock().leave_watchers(ticket);
        }
    }

    // ---- capacity 0 ----

    /// Puts a value on offer.
    pub(crate) fn offer(&self, bytes: Bytes) -> Result<SenderKey, CloseReason> {
        let offered = self.run(|queue, out| queue.offer(Payload::Owned(bytes), out));
        offered.map_err(|reason| CloseReason::from(&reason))
    }

    /// Waits for the outcome of an offer: true when it was taken.
    pub(crate) fn poll_offer(&self, cx: &Context<'_>, key: SenderKey) -> Poll<bool> {
        self.run(|queue, out| queue.poll_offer(cx, key, out))
    }

    /// Wants an offer back.
    pub(crate) fn withdraw_offer(&self, key: SenderKey) -> OfferOutcome {
        self.run(|queue, out| queue.withdraw_offer(key, out))
    }

    /// Nobody waits for the outcome of an offer any more.
    pub(crate) fn abandon_offer(&self, key: SenderKey) {
        self.run(|queue, out| queue.abandon_offer(key, out));
    }

    /// What has happened on the local sending side.
    pub(crate) fn local_stats(&self) -> SenderStats {
        let queue = self.queue.lock();
        let (committed, taken, waiting) = queue.sent_locally();
        let retained_bytes = queue.policy().held_bytes();
        SenderStats { sent: committed, received: committed, taken, retained_bytes, waiting }
    }

    /// What has happened on the local receiving side.
    pub(crate) fn receiver_stats(&self) -> ReceiverStats {
        let queue = self.queue.lock();
        let (taken, waiting) = queue.received_locally();
        ReceiverStats { received: taken + queue.ready() as u64, taken, waiting }
    }

    // ---- receiving ----

    /// How many values a local receive could have now.
    pub(crate) fn ready(&self) -> usize {
        self.queue.lock().ready()
    }

    /// The next value for a local receive, in turn. `None` once the channel is closed and drained.
    pub(crate) fn poll_recv(
        &self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
    ) -> Poll<Option<Delivered>> {
        let mut queue = patience::lock(&self.queue);
        if ticket.is_none()
            && let Some(taken) = queue.take_front()
        {
            let timeout = queue.poll_timeout();
            drop(queue);
            self.arm(timeout);
            return Poll::Ready(Some(taken.into()));
        }
        self.run_on(queue, |queue, out| queue.poll_recv(cx, ticket, out))
            .map(|taken| taken.map(Delivered::from))
    }

    /// A local receive stops waiting: a value that was its goes to the next, here or elsewhere.
    pub(crate) fn leave_receivers(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.run(|queue, out| queue.leave_receivers(ticket, out));
        }
    }

    // ---- receiving with acknowledgement ----

    /// A receiver of this process that acknowledges what it takes; values count as taken when it does (`DEL-14`).
    pub(crate) fn add_local_holder(&self) -> ReceiverKey {
        let options = HolderOptions { settles_at_ack: true, ..self.holder_options() };
        self.run(|queue, _| queue.add_local_holder(options))
    }

    pub(crate) fn remove_local_holder(&self, key: ReceiverKey) {
        self.run(|queue, out| queue.remove_local_holder(key, out));
    }

    pub(crate) fn poll_delivery(
        &self,
        key: ReceiverKey,
        cx: &Context<'_>,
        ticket: &mut Option<Ticket>,
    ) -> Poll<Option<Delivered>> {
        self.run(|queue, out| queue.poll_delivery(key, cx, ticket, out))
            .map(|taken| taken.map(Delivered::from))
    }

    pub(crate) fn leave_deliveries(&self, key: ReceiverKey, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.run(|queue, out| queue.leave_deliveries(key, ticket, out));
        }
    }

    /// False if it is another's by now.
    pub(crate) fn ack_locally(&self, key: ReceiverKey, number: u64) -> bool {
        self.run(|queue, out| queue.ack_locally(key, number, out))
    }

    /// False if it is another's by now.
    pub(crate) fn nack_locally(&self, key: ReceiverKey, number: u64, delay: Option<Duration>) -> bool {
        let at = delay.map(|delay| self.millis().saturating_add(timer::millis_of(delay)));
        self.run(|queue, out| queue.nack_locally(key, number, at, out))
    }

    /// False if it is another's by now.
    pub(crate) fn extend_locally(&self, key: ReceiverKey, number: u64, time: Duration) -> bool {
        let until = self.millis().saturating_add(timer::millis_of(time));
        self.run(|queue, _| queue.extend_locally(key, number, until))
    }

    /// Commits a result and acknowledges, in one step, once there is a place for it.
    pub(crate) fn poll_ack_with(
        &self,
        held: (ReceiverKey, u64),
        results: &Arc<Self>,
        value: &Bytes,
        ticket: &mut Option<Ticket>,
        cx: &Context<'_>,
    ) -> Poll<Verdict> {
        let mut outs = (Out::default(), Out::default());
        let polled = self.with_results(Some(results), |tasks, results| {
            tasks.poll_ack_with_locally(held, results.flatten(), value, ticket, cx, &mut outs)
        });
        self.follow(outs.0);
        results.follow(outs.1);
        polled
    }

    pub(crate) fn delivery_stats(&self, key: ReceiverKey) -> ReceiverStats {
        let (taken, ready, waiting) = self.queue.lock().delivered_locally(key);
        ReceiverStats { received: taken + ready, taken, waiting }
    }
}
