//! Offers that wait to be received.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll};

use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Open, RefuseCode};
use parking_lot::Mutex;

use super::{Offer, What};
use crate::error::{SessionEnd, SessionLost};
use crate::session::SessionCore;
use crate::wait::{Ticket, WaitQueue};

/// Offers that wait to be received. Nothing that a peer causes walks all of them (`PORT-12`).
#[derive(Default)]
pub(crate) struct OfferQueue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    waiting: Waiting,
    receivers: WaitQueue,
    end: Option<SessionEnd>,
}

/// A session by its address, which nothing else has while one of its offers is here, and the channel that its peer opened.
type Opened = (usize, ChannelId);

/// Invariants: the indices name offers that are in `offers`, each under its own name, session and channel; of offers that are
/// alike there, `hosted` and `opened` name the newest.
#[derive(Default)]
struct Waiting {
    /// By number, in the order in which they came.
    offers: BTreeMap<u64, Offer>,
    next: u64,
    /// Hosted by the peer, by name. A queue with such offers is a client's, and has one peer.
    hosted: HashMap<String, u64>,
    opened: BTreeMap<Opened, u64>,
    /// What peers opened, by name.
    names: BTreeSet<(String, u64)>,
}

fn address(core: &Arc<SessionCore>) -> usize {
    Arc::as_ptr(core).addr()
}

impl Waiting {
    fn push(&mut self, offer: Offer) {
        let number = self.next;
        self.next += 1;
        match &offer.what {
            What::Hosted(announce) => _ = self.hosted.insert(announce.name.clone(), number),
            What::Opened(open) => {
                self.opened.insert((address(&offer.core), open.id), number);
                self.names.insert((open.name.clone(), number));
            }
        }
        self.offers.insert(number, offer);
    }

    fn take(&mut self, number: u64) -> Option<Offer> {
        let offer = self.offers.remove(&number)?;
        match &offer.what {
            What::Hosted(announce) => {
                if self.hosted.get(&announce.name) == Some(&number) {
                    self.hosted.remove(&announce.name);
                }
            }
            What::Opened(open) => {
                let opened = (address(&offer.core), open.id);
                if self.opened.get(&opened) == Some(&number) {
                    self.opened.remove(&opened);
                }
                self.names.remove(&(open.name.clone(), number));
            }
        }
        Some(offer)
    }

    fn pop_front(&mut self) -> Option<Offer> {
        let (&number, _) = self.offers.first_key_value()?;
        self.take(number)
    }

    fn take_all(&mut self, numbers: Vec<u64>) -> Vec<Offer> {
        numbers.into_iter().filter_map(|number| self.take(number)).collect()
    }
}

impl OfferQueue {
    pub(crate) fn push(&self, offer: Offer) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.waiting.push(offer);
            let waiting = state.waiting.offers.len() as u64;
            state.receivers.wake_front(waiting);
        }
    }

    /// As [`push`](Self::push), unless so many wait already: says whether it was.
    pub(crate) fn push_bounded(&self, mut offer: Offer, offers_max: usize) -> bool {
        if self.state.lock().waiting.offers.len() < offers_max {
            self.push(offer);
            return true;
        }
        let reason = format!(
            "{offers_max} channels of all clients wait for the server's program already (Limits::offers_total_max there); try again \
             later"
        );
        offer.answer(RefuseCode::LimitReached, reason);
        false
    }

    /// An announcement was taken back, or a newer one has come.
    pub(crate) fn remove_hosted(&self, name: &str) {
        let mut state = self.state.lock();
        let number = state.waiting.hosted.get(name).copied();
        let offer = number.and_then(|number| state.waiting.take(number));
        // Not under the lock: to drop one declines it.
        drop(state);
        drop(offer);
    }

    /// What a session's peer opened on that channel, if it waits.
    pub(crate) fn take_opened_on(&self, core: &Arc<SessionCore>, id: ChannelId) -> Option<Offer> {
        let waiting = &mut self.state.lock().waiting;
        let number = waiting.opened.get(&(address(core), id)).copied()?;
        waiting.take(number)
    }

    /// Takes the opens of one name out, for a channel that is hosted now.
    pub(crate) fn take_opened(&self, name: &str) -> Vec<(Arc<SessionCore>, Open)> {
        let waiting = &mut self.state.lock().waiting;
        let from = (name.to_owned(), 0);
        let named = waiting.names.range(from..).take_while(|(known, _)| known == name);
        let numbers = named.map(|(_, number)| *number).collect();
        let mut taken = Vec::new();
        for mut offer in waiting.take_all(numbers) {
            offer.answered = true;
            if let What::Opened(open) = &offer.what {
                taken.push((Arc::clone(&offer.core), open.clone()));
            }
        }
        taken
    }

    /// Everything that a session's peer opened.
    pub(crate) fn remove_session(&self, core: &Arc<SessionCore>) {
        let mut state = self.state.lock();
        let all = (address(core), ChannelId(0))..=(address(core), ChannelId(u32::MAX));
        let numbers = state.waiting.opened.range(all).map(|(_, number)| *number).collect();
        let offers = state.waiting.take_all(numbers);
        drop(state);
        drop(offers);
    }

    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        drop(waiting);
    }

    pub(crate) fn end(&self, end: SessionEnd) {
        let waiting = {
            let mut state = self.state.lock();
            state.end.get_or_insert(end);
            state.receivers.wake_all();
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }

    pub(crate) fn poll(
        &self,
        cx: &Context<'_>,
        ticket: &mut Option<Ticket>,
    ) -> Poll<Result<Option<Offer>, SessionLost>> {
        let mut state = self.state.lock();
        let ahead = state.receivers.ahead_of(*ticket);
        if state.waiting.offers.len() > ahead {
            while let Some(offer) = state.waiting.pop_front() {
                if offer.is_stale() {
                    continue;
                }
                state.receivers.leave(ticket);
                return Poll::Ready(Ok(Some(offer)));
            }
        }
        match &state.end {
            Some(end) => {
                let result = if end.is_plain() { Ok(None) } else { Err(SessionLost(end.clone())) };
                state.receivers.leave(ticket);
                Poll::Ready(result)
            }
            None => {
                state.receivers.wait(ticket, cx.waker());
                Poll::Pending
            }
        }
    }

    pub(crate) fn leave(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            let mut state = self.state.lock();
            state.receivers.leave(ticket);
            let waiting = state.waiting.offers.len() as u64;
            state.receivers.wake_front(waiting);
        }
    }
}

/// Waits in an [`OfferQueue`]; leaves it when dropped.
pub(crate) struct NextOffer<'a> {
    pub(crate) queue: &'a OfferQueue,
    pub(crate) ticket: Option<Ticket>,
}

impl Future for NextOffer<'_> {
    type Output = Result<Option<Offer>, SessionLost>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.queue.poll(cx, &mut this.ticket)
    }
}

impl Drop for NextOffer<'_> {
    fn drop(&mut self) {
        self.queue.leave(&mut self.ticket);
    }
}
