//! A session that is lost at a client, and the new one that takes its place: what becomes of each channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netchan_proto::channel::{RecvHalf, SendHalf};
use netchan_proto::session::{ClientLinks, Control};

use super::link::NewLink;
use super::open::{Asker, OpenSpec, Opening};
use super::owed::{Owed, OwedValue};
use super::state::{SessionEvent, SessionState};
use super::{Chan, RecvChan, SendChan, SendState, SessionCore, control_limits};
use crate::error::SessionEnd;
use crate::options::LossPolicy;
use crate::patience;

/// The first pause before a channel is opened once more that nobody hosts yet; it doubles.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// The longest.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long to wait after a channel could not be opened again, so many times.
pub(crate) fn reopen_pause(refusals: u32) -> Duration {
    REOPEN_PAUSE.saturating_mul(1 << refusals.saturating_sub(1).min(16)).min(REOPEN_PAUSE_MAX)
}

/// What the next confirmation of a link means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// A link in good order was replaced.
    Renewed,
    /// The session goes on after it had no link.
    Resumed,
    /// A new session, in place of one that was lost.
    Anew,
}

/// How a channel is opened again when its session was lost.
pub(crate) struct Reopen {
    pub(super) policy: LossPolicy,
    pub(super) spec: OpenSpec,
}

/// A channel that waits to be opened again.
pub(super) struct Waiting {
    pub(super) chan: Chan,
    /// Somebody sees to it.
    claimed: bool,
}

impl Reopen {
    fn goes_on(&self) -> bool {
        self.policy != LossPolicy::Fail
    }
}

impl SessionCore {
    /// The session is no more. Its channels end, but for those that are to be opened again on the next.
    pub(super) fn lose(self: &Arc<Self>, end: &SessionEnd) {
        tracing::warn!(peer = %self.peer(), %end, "session lost; setting up another");
        let openings: Vec<_> = {
            let mut control = self.control.lock();
            *control = Control::new(control.side(), control_limits(&self.limits));
            self.life.fetch_add(1, Ordering::SeqCst);
            // Nobody has heard the answer to these: they are asked again.
            self.opening.lock().drain().map(|(_, opening)| opening).collect()
        };
        self.lost.store(true, Ordering::SeqCst);
        // Channels as well that are not in the table, because they wait to be opened again.
        for chan in std::mem::take(&mut *self.ready.lock()) {
            chan.queued().store(false, Ordering::SeqCst);
        }
        for (_, chan) in std::mem::take(&mut *self.idle.lock()) {
            chan.unlisted_as_idle();
        }
        let table = std::mem::take(&mut *self.table.lock());
        for chan in table.into_values() {
            chan.queued().store(false, Ordering::SeqCst);
            match &chan {
                Chan::Send(sender) if !sender.waits_for_reopening() => {
                    self.note_replayed(sender);
                    sender.ended(end);
                }
                Chan::Recv(receiver) if !receiver.waits_for_reopening() => receiver.ended(end),
                _ => self.await_reopening(chan),
            }
        }
        for opening in openings {
            self.ask_again(opening);
        }
        self.upper.lost(self, end);
        let event = self.is_greeted().then(|| SessionEvent::Gone(end.clone()));
        self.board.change(SessionState::Suspended, event);
    }

    /// Something that is no channel goes on when the session is lost, or does so no longer.
    pub(crate) fn goes_on_with(&self, another: bool) {
        if another {
            self.going_on.fetch_add(1, Ordering::SeqCst);
        } else {
            self.going_on.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether something is to go on when the session is lost.
    pub(super) fn outlives_its_session(&self) -> bool {
        self.going_on.load(Ordering::SeqCst) > 0
            || self.all_channels().iter().any(|chan| chan.reopen().is_some_and(Reopen::goes_on))
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// The first link of the session that takes the place of the lost one.
    pub(super) fn renew(&self, links: &mut ClientLinks, link: &NewLink) {
        *links = ClientLinks::new(&link.accepted, link.secret.clone());
        self.lost.store(false, Ordering::SeqCst);
    }

    /// Opens the channels again that wait for it.
    pub(super) fn reopen(self: &Arc<Self>) {
        // Nothing is locked under the list: whoever holds a channel may look for it there.
        let waiting: Vec<_> = self.reopening.lock().values().map(|waiting| waiting.chan.clone()).collect();
        for chan in waiting {
            if !chan.drains() && self.claim_reopening(&chan) {
                self.reopen_one(chan, 0);
            }
        }
    }

    /// Nobody there hosts, or takes, the channel yet: asks again in a while.
    pub(super) fn reopen_later(self: &Arc<Self>, chan: Chan, refusals: u32) {
        let pause = reopen_pause(refusals);
        let core = Arc::clone(self);
        let life = self.life();
        self.await_reopening(chan.clone());
        self.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            // Lost once more meanwhile, it is opened with the others; ended, it has been told.
            if core.life() == life && core.claim_reopening(&chan) {
                core.reopen_one(chan, refusals);
            }
        });
    }

    fn await_reopening(&self, chan: Chan) {
        self.reopening.lock().insert(chan.address(), Waiting { chan: chan.clone(), claimed: false });
        // Whoever ends the session tells those that wait, but may have been here already.
        if let Some(end) = self.end.get()
            && self.take_reopening(&chan)
        {
            chan.ended(end);
        }
    }

    /// Takes a channel from among those that wait to be opened again. False if it does not wait.
    pub(super) fn take_reopening(&self, chan: &Chan) -> bool {
        self.reopening.lock().remove(&chan.address()).is_some()
    }

    /// Whether the caller is the one who sees to a channel that waits. It stays listed until it has been asked for, so that
    /// at no time it seems that nothing is left to do for it.
    fn claim_reopening(&self, chan: &Chan) -> bool {
        let mut reopening = self.reopening.lock();
        let waiting = reopening.get_mut(&chan.address()).filter(|waiting| !waiting.claimed);
        waiting.map(|waiting| waiting.claimed = true).is_some()
    }

    /// The program has closed a receiving end. If that waits to be opened again, it has no more reason to.
    pub(super) fn stopped(&self, chan: &Arc<RecvChan>) {
        let chan = Chan::Recv(Arc::clone(chan));
        if self.claim_reopening(&chan) {
            self.take_reopening(&chan);
            chan.ended(&SessionEnd::ClosedHere);
        }
    }

    /// The program has taken everything that a receiving end still had from a session that was lost.
    #[cold]
    pub(crate) fn drained(self: &Arc<Self>, chan: &Arc<RecvChan>) {
        // While there is no session, it waits with the others.
        let chan = Chan::Recv(Arc::clone(chan));
        if !self.is_lost() && self.claim_reopening(&chan) {
            self.reopen_one(chan, 0);
        }
    }

    /// Opens one channel again; its end says so if that cannot be.
    pub(super) fn reopen_one(self: &Arc<Self>, chan: Chan, refusals: u32) {
        let Some(Reopen { spec, .. }) = chan.reopen() else { return };
        if chan.is_stopped() {
            self.take_reopening(&chan);
            return chan.ended(&SessionEnd::ClosedHere);
        }
        self.ask_again(Opening {
            spec: spec.clone(),
            asker: Asker::Reopening(chan.clone(), refusals),
            answered: false,
        });
    }

    fn ask_again(self: &Arc<Self>, opening: Opening) {
        if opening.asker.has_left() {
            return;
        }
        let reopens = opening.chan().is_some();
        match self.ask(opening) {
            Ok((id, life)) if reopens => {
                self.runtime.spawn(Arc::clone(self).expect_answer(id, life));
            }
            Ok(_) => {}
            Err(failed) => {
                let (opening, error) = *failed;
                if let Some(chan) = opening.chan() {
                    self.take_reopening(chan);
                }
                opening.asker.failed(self, super::OpenFailure::Here(error));
            }
        }
    }

    /// A channel could not be opened again.
    pub(super) fn not_reopened(&self, chan: &Chan, reason: String) {
        let end = SessionEnd::Lost(format!("not opened again: {reason}"));
        chan.ended(&end);
        let channel = match chan {
            Chan::Send(chan) => chan.name.to_string(),
            Chan::Recv(chan) => chan.name.to_string(),
        };
        self.board.publish(SessionEvent::NotReopened { channel, reason });
    }
}

impl Chan {
    /// Tells it from every other channel that is kept.
    pub(super) fn address(&self) -> usize {
        match self {
            Self::Send(chan) => Arc::as_ptr(chan).addr(),
            Self::Recv(chan) => Arc::as_ptr(chan).addr(),
        }
    }

    fn reopen(&self) -> Option<&Reopen> {
        match self {
            Self::Send(chan) => chan.ownership.reopen(),
            Self::Recv(chan) => chan.ownership.reopen(),
        }
    }

    fn drains(&self) -> bool {
        match self {
            Self::Send(_) => false,
            Self::Recv(chan) => patience::lock(&chan.state).drains,
        }
    }

    /// Whether the program wants no more of what it would receive.
    fn is_stopped(&self) -> bool {
        match self {
            Self::Send(_) => false,
            Self::Recv(chan) => patience::lock(&chan.state).half.ended().is_some(),
        }
    }

    fn unlisted_as_idle(&self) {
        match self {
            Self::Send(_) => {}
            Self::Recv(chan) => chan.idle.store(false, Ordering::SeqCst),
        }
    }
}

impl SendChan {
    /// Whether what is unsettled when a session is lost is sent again in the next.
    pub(crate) fn resends(&self) -> bool {
        self.ownership.reopen().is_some_and(|reopen| reopen.policy == LossPolicy::Resend)
    }

    /// Whether the channel is to be opened again; then nothing is sent until it has been.
    fn waits_for_reopening(&self) -> bool {
        let goes_on = self.ownership.reopen().is_some_and(Reopen::goes_on);
        let mut state = patience::lock(&self.state);
        let goes_on = goes_on && state.half.peer_closed().is_none() && state.end.is_none();
        if goes_on {
            state.half.hold(true);
            // Whoever waits for the fate of a value cannot learn it any more.
            state.life += 1;
            state.watchers.wake_all();
        }
        goes_on
    }

    /// The channel has been opened again: what is unsettled is owed, or dropped, and then sending goes on.
    ///
    /// `insert` puts it into the table again, once its id is the new one.
    pub(super) fn reopened(self: &Arc<Self>, mut half: SendHalf, insert: impl FnOnce()) {
        let policy = self.ownership.reopen().map_or(LossPolicy::Fail, |reopen| reopen.policy);
        let mut state = patience::lock(&self.state);
        let mut owed = std::mem::take(&mut state.owed);
        if policy == LossPolicy::Resend {
            let mut values = VecDeque::new();
            // An offer has its own sender waiting, who is told that it is in doubt.
            let offers = state.half.is_rendezvous();
            let SendState { half, claims, .. } = &mut *state;
            half.for_each_unsettled(|value| {
                if !offers {
                    values.push_back(OwedValue::new(value, claims));
                }
            });
            owed.go_before(values);
        } else {
            owed = Owed::default();
        }
        half.bound(self.core.limits.window_bytes_max);
        half.hold(true);
        if let Some(reason) = state.half.closing() {
            // Behind what is owed.
            half.close(reason.clone());
        }
        self.core.replayed.fetch_add(state.half.replayed(), Ordering::Relaxed);
        self.set_id(half.id());
        state.half = half;
        let life = state.life;
        state.claims.go_on(life, owed.stakes());
        state.owed = owed;
        // Written below.
        _ = state.pay();
        state.watchers.wake_all();
        drop(state);
        insert();
        self.writable();
        self.kick(true);
    }
}

impl RecvChan {
    /// Whether the channel is to be opened again. One that holds values of its own goes on when they have been taken.
    fn waits_for_reopening(&self) -> bool {
        let goes_on = self.ownership.reopen().is_some_and(Reopen::goes_on);
        let mut state = patience::lock(&self.state);
        let goes_on = goes_on && state.half.peer_closed().is_none() && state.half.ended().is_none();
        if goes_on && state.end.is_none() {
            state.half.forsake();
            state.drains = state.half.ready() > 0;
            return true;
        }
        false
    }

    /// The channel has been opened again.
    pub(super) fn reopened(self: &Arc<Self>, half: RecvHalf, is_cast: bool, insert: impl FnOnce()) {
        let mut state = patience::lock(&self.state);
        self.set_id(half.id());
        let stopped = state.half.ended().cloned();
        state.half = half;
        // Its subscriber has missed it is not known what, and gets what is assigned again.
        state.restarted = is_cast;
        state.is_cast = is_cast;
        if is_cast {
            state.receivers.wake_front(1);
        }
        if let Some(reason) = stopped {
            state.half.stop(reason);
        }
        let waiting = state.receivers.len() as u64;
        state.half.set_waiting(waiting);
        let urgency = state.half.urgency();
        drop(state);
        insert();
        self.report(urgency);
    }
}
