//! A client that acknowledges what it takes from a hosted channel, as the server sees it (`DEL-1` to `DEL-12`).
//!
//! What it asks for arrives on a channel of its own, and is answered on another: as values of channels both survive a lost
//! link, in order and once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::channel::{CloseReason, PushError};
use netchan_proto::hosted::ReceiverKey;
use netchan_proto::id::ChannelId;
use netchan_proto::session::close_code;
use netchan_proto::wire::{Ask, Outcome, Verdict};
use parking_lot::Mutex;

use super::turn::OneAtATime;
use super::{Acquired, Hub, HubState, ends};
use crate::session::{RecvChan, SendChan, SessionCore};
use crate::wait::Ticket;

/// The longest time that a delivery can be put off, or kept, at once: a year.
const PATIENCE_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// News of lost deliveries that wait for a holder, beside the answers to what it has asked.
const UNHEARD_MAX: u64 = 65_536;

pub(crate) struct Holder {
    hub: Arc<Hub>,
    key: ReceiverKey,
    /// What it asks for, and where that is answered. Its session has the channels.
    asks: OnceLock<Weak<RecvChan>>,
    outcomes: OnceLock<Weak<SendChan>>,
    /// Outcomes that found no room yet. While there are any, nothing more is done for it.
    unsent: Mutex<VecDeque<Outcome>>,
    /// Results that wait for their places, by the channel that they go into: in the order in which they came.
    lines: Mutex<Vec<Line>>,
    /// Their bytes.
    parked_bytes: AtomicU64,
    /// For [`Holder::work`].
    turn: OneAtATime,
    /// Its link is gone.
    away: AtomicBool,
    /// Its session, and the channel of its deliveries there.
    session: OnceLock<(Weak<SessionCore>, ChannelId)>,
}

/// Results of one holder that wait for places in one channel. A task sees to it while there is one.
struct Line {
    results: Arc<Hub>,
    waiting: VecDeque<Waiting>,
}

/// A result that comes with an acknowledgement.
struct Waiting {
    token: u64,
    number: u64,
    value: Bytes,
    /// What the client sends such results into.
    chan: Arc<RecvChan>,
}

impl HubState {
    /// A holder that speaks of a value has taken it, and all before, though that may not have been reported yet.
    fn catch_up(&mut self, key: ReceiverKey, number: u64) -> Option<()> {
        let receiver = self.receivers.get_mut(&key)?;
        let taken = number.checked_add(1)?;
        let newly = taken.saturating_sub(receiver.taken);
        if newly > 0 {
            self.hosted.taken(key, newly).ok()?;
            receiver.taken = taken;
        }
        Some(())
    }
}

impl Hub {
    /// A place for a client that acknowledges; `None` once nothing will come any more.
    pub(crate) fn new_holder(self: &Arc<Self>) -> Option<Arc<Holder>> {
        let out_max = self.spec.deliveries.unacked_max;
        let key = self.run(|state| {
            if state.finished {
                return None;
            }
            let key = ReceiverKey(state.new_key());
            state.hosted.add_holder(key, out_max);
            Some(key)
        })?;
        Some(Arc::new(Holder {
            hub: Arc::clone(self),
            key,
            asks: OnceLock::new(),
            outcomes: OnceLock::new(),
            unsent: Mutex::default(),
            lines: Mutex::default(),
            parked_bytes: AtomicU64::new(0),
            turn: OneAtATime::default(),
            away: AtomicBool::new(false),
            session: OnceLock::new(),
        }))
    }

    /// The holder at the other end of a channel of deliveries.
    pub(crate) fn holder(&self, key: ReceiverKey) -> Option<Arc<Holder>> {
        self.state.lock().receivers.get(&key)?.holder.clone()
    }

    /// The deliveries' channel is closed. What was handed over stays with the holder, who may still acknowledge it; the rest
    /// goes back.
    pub(super) fn retire_holder(&self, key: ReceiverKey, taken: u64) {
        self.run(|state| {
            let Some(receiver) = state.receivers.get_mut(&key) else { return };
            let newly_taken = taken.saturating_sub(receiver.taken);
            receiver.taken += newly_taken;
            receiver.pending.clear();
            receiver.chan = None;
            // Whoever says this is there.
            state.hosted.holder_back(key);
            state.hosted.cancel_demand(key, u64::MAX);
            let given_back =
                state.hosted.taken(key, newly_taken).and_then(|()| state.hosted.give_back(key, 0));
            if given_back.is_err() {
                tracing::warn!(channel = %self.spec.name, "a holder took what was not there");
            }
        });
    }

    /// How many values a holder has taken and not acknowledged; 0 for one that need not.
    pub(crate) fn unacked_of(&self, key: ReceiverKey) -> u64 {
        self.state.lock().hosted.unacked_of(key)
    }

    fn holder_is_back(&self, key: ReceiverKey) {
        self.run(|state| state.hosted.holder_back(key));
    }

    fn ask(
        self: &Arc<Self>,
        key: ReceiverKey,
        number: u64,
        f: impl FnOnce(&mut HubState) -> bool,
    ) -> Verdict {
        let held = self.run(|state| state.catch_up(key, number).is_some_and(|()| f(state)));
        if held { Verdict::Done } else { Verdict::Fenced }
    }
}

impl Holder {
    pub(crate) const fn key(&self) -> ReceiverKey {
        self.key
    }

    /// How many requests it may have under way: one that ends each delivery, and as many others.
    pub(crate) fn asks_max(&self) -> u64 {
        self.hub.spec.deliveries.unacked_max.saturating_mul(2).max(2)
    }

    /// It has said something, or can be told something.
    pub(super) fn moved(self: &Arc<Self>) {
        if self.away.swap(false, Ordering::SeqCst) {
            self.hub.holder_is_back(self.key);
        }
        self.work();
        if let Some(outcomes) = self.outcomes.get().and_then(Weak::upgrade)
            && outcomes.state.lock().half.peer_closed().is_some()
        {
            // Nobody listens any more.
            outcomes.close(CloseReason::plain());
        }
    }

    /// Its link is gone.
    pub(super) fn detached(&self, replaced: bool) {
        // The channel of the deliveries may be closed, and then tells nobody.
        self.hub.suspend_receiver(self.key, replaced);
        self.away.store(true, Ordering::SeqCst);
    }

    /// False if there is such a channel already.
    pub(crate) fn set_asks(&self, chan: &Arc<RecvChan>) -> bool {
        self.asks.set(Arc::downgrade(chan)).is_ok()
    }

    /// False if there is such a channel already.
    pub(crate) fn set_outcomes(&self, chan: &Arc<SendChan>) -> bool {
        self.outcomes.set(Arc::downgrade(chan)).is_ok()
    }

    fn asks(&self) -> Option<Arc<RecvChan>> {
        self.asks.get()?.upgrade()
    }

    /// The deliveries' channel is closed, but not the session: see [`Hub::retire_holder`].
    pub(crate) fn retire(&self, taken: u64) {
        self.hub.retire_holder(self.key, taken);
        if self.asks().is_none_or(|asks| asks.state.lock().half.ended().is_some()) {
            // It could not acknowledge anything.
            self.leave();
        }
    }

    pub(crate) fn set_session(&self, session: &Arc<SessionCore>, id: ChannelId) {
        _ = self.session.set((Arc::downgrade(session), id));
    }

    /// It is gone: what it had goes to others.
    pub(crate) fn leave(&self) {
        self.hub.remove_receiver(self.key, 0);
        if let Some((session, id)) = self.session.get()
            && let Some(session) = session.upgrade()
        {
            session.let_go(*id);
        }
    }

    pub(super) fn fenced(&self, number: u64) {
        self.tell(Outcome::Fenced { number });
    }

    fn answer(&self, token: u64, verdict: Verdict) {
        if token != 0 {
            self.tell(Outcome::Answer { token, verdict });
        }
    }

    fn tell(&self, outcome: Outcome) {
        let unsent = {
            let mut unsent = self.unsent.lock();
            unsent.push_back(outcome);
            unsent.len() as u64
        };
        if !self.flush() && unsent > self.asks_max() + UNHEARD_MAX {
            // It goes on taking, and never hears what it has lost.
            self.unsent.lock().clear();
            self.leave();
            if let Some(asks) = self.asks() {
                let reason = "what becomes of the deliveries is not listened to".to_owned();
                asks.stop(CloseReason { code: close_code::VIOLATION, reason });
            }
        }
    }

    /// Sends what is to be told, as far as there is room. Says whether that was all.
    fn flush(&self) -> bool {
        let mut unsent = self.unsent.lock();
        if unsent.is_empty() {
            return true;
        }
        let Some(outcomes) = self.outcomes.get() else { return false };
        let Some(chan) = outcomes.upgrade() else {
            // Nobody listens any more.
            unsent.clear();
            return true;
        };
        let mut bytes = Vec::new();
        {
            let mut state = chan.state.lock();
            while let Some(outcome) = unsent.front() {
                bytes.clear();
                outcome.write(&mut bytes);
                match state.half.push(|item| item.extend(&bytes)) {
                    Err(PushError::Full) => break,
                    // Nobody listens any more.
                    Ok(_) | Err(_) => _ = unsent.pop_front(),
                }
            }
        }
        let all = unsent.is_empty();
        drop(unsent);
        chan.kick(false);
        all
    }

    /// Does what it is asked for, as far as there is room for what comes of it. One task at a time does it, for all that call
    /// meanwhile: in order.
    fn work(self: &Arc<Self>) {
        let Some(asks) = self.asks() else { return };
        if !self.turn.run(|| self.handle_asks(&asks)) {
            return;
        }
        let (urgency, ended) = {
            let state = asks.state.lock();
            (state.half.urgency(), state.half.ended().is_some())
        };
        asks.report(urgency);
        if ended {
            self.leave();
        }
    }

    fn handle_asks(self: &Arc<Self>, asks: &Arc<RecvChan>) {
        let parked_bytes_max = asks.core.limits.window_bytes;
        while self.flush() && self.parked_bytes.load(Ordering::SeqCst) <= parked_bytes_max {
            let next = {
                let mut state = asks.state.lock();
                state.half.take().map(|payload| payload.into_bytes())
            };
            let Some(bytes) = next else { break };
            if self.handle(&asks.core, &bytes).is_none() {
                let reason = "what a holder asked for cannot be understood".to_owned();
                asks.stop(CloseReason { code: close_code::VIOLATION, reason });
                break;
            }
        }
    }

    fn handle(self: &Arc<Self>, core: &Arc<SessionCore>, bytes: &Bytes) -> Option<()> {
        let (token, ask) = Ask::read(bytes).ok()?;
        let (hub, key) = (&self.hub, self.key);
        let verdict = match ask {
            Ask::Ack { number } => hub.ask(key, number, |state| state.hosted.ack(key, number)),
            Ask::Nack { number, delay_millis } => {
                let at = (delay_millis > 0).then(|| self.millis_from_now(delay_millis));
                hub.ask(key, number, |state| state.hosted.nack(key, number, at))
            }
            Ask::Extend { number, millis } => {
                let until = self.millis_from_now(millis);
                hub.ask(key, number, |state| state.hosted.extend(key, number, until))
            }
            Ask::AckWith { number, results, value } => {
                let Some((results, chan)) = ends::results(core, results) else {
                    self.answer(token, Verdict::NoResults);
                    return Some(());
                };
                let value = bytes.slice_ref(value);
                return self.ack_with(core, &results, Waiting { token, number, value, chan });
            }
        };
        if matches!(ask, Ask::Nack { delay_millis: 1.., .. }) {
            hub.arm();
        }
        self.answer(token, verdict);
        Some(())
    }

    fn millis_from_now(&self, millis: u64) -> u64 {
        self.hub.millis_from_now(Duration::from_millis(millis).min(PATIENCE_MAX))
    }

    /// The result waits for its turn in its channel, behind others of this holder, then both are done in one step (`DEL-8`).
    /// `None` if the delivery has a result already.
    fn ack_with(
        self: &Arc<Self>,
        core: &Arc<SessionCore>,
        results: &Arc<Hub>,
        result: Waiting,
    ) -> Option<()> {
        let key = self.key;
        let holds = self.hub.ask(key, result.number, |state| state.hosted.holds(key, result.number));
        if holds != Verdict::Done {
            self.answer(result.token, holds);
            return Some(());
        }
        {
            let mut lines = self.lines.lock();
            let same = |waiting: &Waiting| waiting.number == result.number;
            if lines.iter().flat_map(|line| &line.waiting).any(same) {
                return None;
            }
            if let Some(line) = lines.iter_mut().find(|line| Arc::ptr_eq(&line.results, results)) {
                self.parked_bytes.fetch_add(result.value.len() as u64, Ordering::SeqCst);
                line.waiting.push_back(result);
                return Some(());
            }
        }
        match results.poll_acquire(None, &mut None, None) {
            Poll::Ready(acquired) => self.acknowledge(core, results, &acquired, result),
            Poll::Pending => {
                self.parked_bytes.fetch_add(result.value.len() as u64, Ordering::SeqCst);
                let line = Line { results: Arc::clone(results), waiting: VecDeque::from([result]) };
                self.lines.lock().push(line);
                tokio::spawn(Arc::clone(self).wait_in_line(Arc::clone(core), Arc::clone(results)));
            }
        }
        Some(())
    }

    /// Sees to the results that wait for one channel, until there are none, or nobody is there any more whose they are.
    async fn wait_in_line(self: Arc<Self>, core: Arc<SessionCore>, results: Arc<Hub>) {
        let mut place = Place { results: &results, ticket: None };
        loop {
            let acquired = tokio::select! {
                biased;
                acquired = poll_fn(|cx| results.poll_acquire(Some(cx), &mut place.ticket, None)) => acquired,
                () = core.wait_ended() => {
                    // Its deliveries go to others.
                    self.lines.lock().retain(|line| !Arc::ptr_eq(&line.results, &results));
                    return;
                }
            };
            let next = {
                let mut lines = self.lines.lock();
                let line = lines.iter_mut().find(|line| Arc::ptr_eq(&line.results, &results));
                line.and_then(|line| line.waiting.pop_front())
            };
            match next {
                Some(result) => {
                    self.parked_bytes.fetch_sub(result.value.len() as u64, Ordering::SeqCst);
                    self.acknowledge(&core, &results, &acquired, result);
                }
                None => results.release_acquired(&acquired),
            }
            let over = {
                let mut lines = self.lines.lock();
                lines.retain(|line| !Arc::ptr_eq(&line.results, &results) || !line.waiting.is_empty());
                !lines.iter().any(|line| Arc::ptr_eq(&line.results, &results))
            };
            // There may be room for more now.
            self.work();
            if over {
                return;
            }
        }
    }

    fn acknowledge(&self, core: &Arc<SessionCore>, results: &Arc<Hub>, acquired: &Acquired, result: Waiting) {
        let Waiting { token, number, value, chan } = result;
        let verdict = match acquired {
            Acquired::Closed(_) => Verdict::ResultsClosed,
            _ if chan.is_revoked() => {
                results.release_acquired(acquired);
                Verdict::NoResults
            }
            // A channel without places has been refused.
            Acquired::Committed(_) | Acquired::Reserved => {
                let key = self.key;
                let verdict = self.hub.ask(key, number, |state| state.hosted.ack(key, number));
                match verdict {
                    Verdict::Done => results.commit_reserved_for(core.peer(), value),
                    _ => results.release_reserved(),
                }
                verdict
            }
        };
        self.answer(token, verdict);
    }
}

/// A place in the line of those who wait to send.
struct Place<'a> {
    results: &'a Hub,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.results.leave_senders(&mut self.ticket);
    }
}
