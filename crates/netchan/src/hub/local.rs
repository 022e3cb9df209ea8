//! The local ends of a hosted channel.

use std::collections::HashSet;
use std::task::{Context, Poll};

use bytes::Bytes;
use netchan_proto::hosted::{Item, SenderKey, Withdraw};

use super::{Hub, HubState, LOCAL_RECEIVER, LOCAL_SENDER, Offer};
use crate::error::CloseReason;
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

/// What became of an offer that its sender wanted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferOutcome {
    Taken,
    Withdrawn,
    Unknown,
}

/// So many records of who sent a value may be out of date.
const PEERS_KEPT_MIN: usize = 64;

impl HubState {
    fn local_credit(&self) -> u64 {
        self.local.limit - self.local.committed - self.local.reserved
    }

    /// One unit of credit for a local send that has `ahead` others before it.
    fn take_unit(&mut self, ahead: usize) -> bool {
        if self.local_credit() > ahead as u64 {
            return true;
        }
        if ahead == 0 && self.local.senders.is_empty() && self.hosted.try_lease(LOCAL_SENDER) {
            self.local.limit = self.hosted.limit(LOCAL_SENDER).unwrap_or(self.local.limit);
            return self.local_credit() > 0;
        }
        false
    }

    /// One unit for whoever stands at the head of the queue.
    fn take_unit_alone(&mut self) -> bool {
        if self.hosted.try_lease(LOCAL_SENDER) {
            self.local.limit = self.hosted.limit(LOCAL_SENDER).unwrap_or(self.local.limit);
        }
        self.local_credit() > 0
    }

    fn commit(&mut self, bytes: Bytes) -> Option<u64> {
        let seq = self.local.committed;
        self.hosted.push(LOCAL_SENDER, seq, bytes).ok()?;
        self.local.committed += 1;
        Some(seq)
    }

    /// After the close: what was set aside and is not used will not be, and nothing waits for it.
    fn yield_rest(&mut self) {
        let kept = self.local.committed + self.local.reserved;
        if self.hosted.shrink(LOCAL_SENDER, kept) {
            self.local.limit = kept;
        }
    }

    /// Who sent local values below `prefix` is forgotten, unless they are here. It is looked for when there are many.
    pub(super) fn forget_peers(&mut self, prefix: u64) {
        if self.local.peers.len() < self.local.peers_kept {
            return;
        }
        let kept: HashSet<_> = self.hosted.kept_of(LOCAL_SENDER).collect();
        self.local.peers.retain(|seq, _| *seq >= prefix || kept.contains(seq));
        self.local.peers_kept = (2 * self.local.peers.len()).max(PEERS_KEPT_MIN);
    }

    fn want(&mut self) {
        let waiting = self.local.senders.len() as u64;
        let free = self.local_credit();
        if free == 0 {
            self.hosted.want_besides(LOCAL_SENDER, waiting);
        } else {
            self.hosted.want(LOCAL_SENDER, waiting.saturating_sub(free));
        }
        let free = self.local_credit();
        self.local.senders.wake_front(free);
    }

    pub(super) fn settle_offer(&mut self, key: SenderKey, taken: bool) {
        if let Some(offer) = self.local.offers.get_mut(&key) {
            offer.outcome.get_or_insert(taken);
            if let Some(waker) = offer.waker.take() {
                waker.wake();
            }
            if offer.orphan {
                self.local.offers.remove(&key);
                self.hosted.remove_sender(key);
            }
        }
    }
}

impl Hub {
    /// Commits a value (or, without one, sets a unit aside), waiting for credit in turn.
    pub(crate) fn poll_acquire(
        &self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        bytes: Option<&Bytes>,
    ) -> Poll<Acquired> {
        self.run(|state| {
            if let Some(reason) = &state.closed {
                let reason = reason.clone();
                state.local.senders.leave(ticket);
                return Poll::Ready(Acquired::Closed(reason));
            }
            let ahead = state.local.senders.ahead_of(*ticket);
            if !state.take_unit(ahead) {
                if let Some(cx) = cx {
                    state.local.senders.wait(ticket, cx.waker());
                    state.want();
                }
                return Poll::Pending;
            }
            let was_waiting = state.local.senders.leave(ticket);
            let acquired = match bytes {
                Some(bytes) => match state.commit(bytes.clone()) {
                    Some(seq) => Acquired::Committed(seq),
                    None => Acquired::Closed(CloseReason::new(0, "")),
                },
                None => {
                    state.local.reserved += 1;
                    Acquired::Reserved
                }
            };
            if was_waiting {
                state.want();
            }
            Poll::Ready(acquired)
        })
    }

    /// Sets the first of `wanted` units aside. Who wants several stays at the head of the queue until it has them all.
    pub(crate) fn poll_reserve(
        &self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        wanted: usize,
    ) -> Poll<Acquired> {
        let Some(cx) = cx.filter(|_| wanted > 1) else { return self.poll_acquire(cx, ticket, None) };
        self.run(|state| {
            if let Some(reason) = state.closed.clone() {
                state.local.senders.leave(ticket);
                return Poll::Ready(Acquired::Closed(reason));
            }
            let first = state.local.senders.ahead_of(*ticket) == 0;
            state.local.senders.wait(ticket, cx.waker());
            if first && (state.local_credit() > 0 || state.take_unit_alone()) {
                state.local.reserved += 1;
                return Poll::Ready(Acquired::Reserved);
            }
            state.want();
            Poll::Pending
        })
    }

    /// A local send stops waiting for credit.
    pub(crate) fn leave_senders(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.run(|state| {
                state.local.senders.leave(ticket);
                state.want();
            });
        }
    }

    /// Commits a value on a unit that was set aside.
    pub(crate) fn commit_reserved(&self, bytes: Bytes) -> Option<u64> {
        self.run(|state| {
            state.local.reserved -= 1;
            state.commit(bytes)
        })
    }

    /// As [`commit_reserved`](Self::commit_reserved), in a client's name.
    pub(crate) fn commit_reserved_for(&self, peer: Peer, bytes: Bytes) {
        self.run(|state| {
            state.local.reserved -= 1;
            let seq = state.local.committed;
            state.local.peers.insert(seq, peer);
            if state.commit(bytes).is_none() {
                state.local.peers.remove(&seq);
            }
        });
    }

    /// Gives a unit that was set aside back.
    pub(crate) fn release_reserved(&self) {
        self.run(|state| {
            state.local.reserved -= 1;
            if state.closed.is_some() {
                state.yield_rest();
            }
            state.want();
        });
    }

    /// Gives back what an acquisition set aside, if it did.
    pub(crate) fn release_acquired(&self, acquired: &Acquired) {
        if matches!(acquired, Acquired::Reserved) {
            self.release_reserved();
        }
    }

    /// How many local sends could commit now.
    pub(crate) fn available(&self) -> u64 {
        let state = self.state.lock();
        if state.closed.is_some() { 0 } else { state.local_credit() + state.hosted.free() }
    }

    /// Waits until a committed value has been taken. `None` when the channel ended before.
    pub(crate) fn poll_taken(&self, cx: &Context<'_>, ticket: &mut Option<Ticket>, seq: u64) -> Poll<bool> {
        let mut state = self.state.lock();
        if state.local.taken > seq || state.finished {
            let taken = state.local.taken > seq;
            state.local.watchers.leave(ticket);
            return Poll::Ready(taken);
        }
        state.local.watchers.wait(ticket, cx.waker());
        Poll::Pending
    }

    /// Waits until the channel is closed.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>, ticket: &mut Option<Ticket>) -> Poll<CloseReason> {
        let mut state = self.state.lock();
        if let Some(reason) = state.closed.clone() {
            state.local.watchers.leave(ticket);
            return Poll::Ready(reason);
        }
        state.local.watchers.wait(ticket, cx.waker());
        Poll::Pending
    }

    /// A watcher stops waiting.
    pub(crate) fn leave_watchers(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.state.lock().local.watchers.leave(ticket);
        }
    }

    // ---- capacity 0 ----

    /// Puts a value on offer.
    pub(crate) fn offer(&self, bytes: Bytes) -> Result<SenderKey, CloseReason> {
        self.run(|state| {
            if let Some(reason) = &state.closed {
                return Err(reason.clone());
            }
            let key = SenderKey(state.new_key());
            state.hosted.add_sender(key);
            state.local.offers.insert(key, Offer { outcome: None, waker: None, orphan: false });
            if state.hosted.push(key, 0, bytes).is_err() {
                state.local.offers.remove(&key);
                return Err(CloseReason::new(0, ""));
            }
            Ok(key)
        })
    }

    /// Waits for the outcome of an offer: true when it was taken.
    pub(crate) fn poll_offer(&self, cx: &Context<'_>, key: SenderKey) -> Poll<bool> {
        self.run(|state| {
            let Some(offer) = state.local.offers.get_mut(&key) else { return Poll::Ready(false) };
            let Some(taken) = offer.outcome else {
                offer.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            state.local.offers.remove(&key);
            state.hosted.remove_sender(key);
            Poll::Ready(taken)
        })
    }

    /// Wants an offer back.
    pub(crate) fn withdraw_offer(&self, key: SenderKey) -> OfferOutcome {
        self.run(|state| {
            let outcome = match state.hosted.withdraw(key, 0) {
                Ok(Withdraw::Withdrawn) => OfferOutcome::Withdrawn,
                Ok(Withdraw::Taken) | Err(_) => OfferOutcome::Taken,
                Ok(Withdraw::Dispatched) => return OfferOutcome::Unknown,
            };
            state.local.offers.remove(&key);
            state.hosted.remove_sender(key);
            outcome
        })
    }

    /// Nobody waits for the outcome of an offer any more.
    pub(crate) fn abandon_offer(&self, key: SenderKey) {
        if self.withdraw_offer(key) == OfferOutcome::Unknown {
            self.run(|state| {
                let settled = state.local.offers.get_mut(&key).is_none_or(|offer| {
                    offer.orphan = true;
                    offer.outcome.is_some()
                });
                if settled {
                    state.local.offers.remove(&key);
                    state.hosted.remove_sender(key);
                }
            });
        }
    }

    /// What has happened on the local sending side.
    pub(crate) fn local_stats(&self) -> SenderStats {
        let state = self.state.lock();
        SenderStats {
            sent: state.local.committed,
            received: state.local.committed,
            taken: state.local.taken,
            retained_bytes: state.hosted.held_bytes(),
            waiting: state.local.senders.len() as u64,
        }
    }

    /// What has happened on the local receiving side.
    pub(crate) fn receiver_stats(&self) -> ReceiverStats {
        let state = self.state.lock();
        ReceiverStats {
            received: state.local.received + (state.hosted.len() + state.local.values.len()) as u64,
            taken: state.local.received,
            waiting: state.local.receivers.len() as u64,
        }
    }

    // ---- receiving ----

    /// The next value for a local receive, in turn. `None` once the channel is closed and drained.
    pub(crate) fn poll_recv(
        &self,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
    ) -> Poll<Option<(Bytes, Peer, bool)>> {
        self.run_pumping(|state, kicks| {
            let ahead = state.local.receivers.ahead_of(*ticket);
            if state.local.values.len() <= ahead {
                state.demand_up_to(ahead as u64 + 1);
                state.pump(kicks);
            }
            if state.local.values.len() > ahead
                && let Some(item) = state.local.values.pop_front()
            {
                state.local.receivers.leave(ticket);
                let peer = state.peer_of(&item);
                // The policy knows it as the oldest in flight to the local receiver.
                _ = state.hosted.taken(LOCAL_RECEIVER, 1);
                state.local.received += 1;
                // More may wait here than the policy takes at once.
                state.demand_up_to(state.local.receivers.len() as u64);
                return Poll::Ready(Some((item.bytes, peer, item.redelivered)));
            }
            if state.finished && state.local.values.is_empty() {
                state.local.receivers.leave(ticket);
                return Poll::Ready(None);
            }
            match cx {
                Some(cx) => state.local.receivers.wait(ticket, cx.waker()),
                None => state.drop_excess_demand(),
            }
            Poll::Pending
        })
    }

    /// A local receive stops waiting: a value that was its goes to the next, here or elsewhere.
    pub(crate) fn leave_receivers(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.run(|state| {
                state.local.receivers.leave(ticket);
                state.drop_excess_demand();
            });
        }
    }
}

impl HubState {
    pub(super) fn peer_of(&self, item: &Item) -> Peer {
        let peer = match item.origin {
            LOCAL_SENDER => self.local.peers.get(&item.seq),
            remote => self.senders.get(&remote).map(|sender| &sender.peer),
        };
        peer.map_or_else(Peer::local, Peer::clone)
    }

    fn demand_up_to(&mut self, wanted: u64) {
        let have = self.local.demanded + self.local.values.len() as u64;
        let more = wanted.saturating_sub(have);
        if more > 0 && self.hosted.demand(LOCAL_RECEIVER, more).is_ok() {
            self.local.demanded += more;
        }
    }

    fn drop_excess_demand(&mut self) {
        let waiting = self.local.receivers.len() as u64;
        let have = self.local.demanded + self.local.values.len() as u64;
        let excess = have.saturating_sub(waiting).min(self.local.demanded);
        if excess > 0 {
            let removed = self.hosted.cancel_demand(LOCAL_RECEIVER, excess);
            self.local.demanded -= removed.min(self.local.demanded);
        }
        let keep = waiting.min(self.local.values.len() as u64);
        if (self.local.values.len() as u64) > keep && self.hosted.give_back(LOCAL_RECEIVER, keep).is_ok() {
            self.local.values.truncate(keep as usize);
        }
        let ready = self.local.values.len() as u64;
        self.local.receivers.wake_front(ready);
    }
}
