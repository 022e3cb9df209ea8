//! The sending end of a channel, under its lock, with the tasks that wait on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use netchan_proto::channel::{CloseReason, SendHalf};
use netchan_proto::id::ChannelId;
use parking_lot::Mutex;

use super::claims::Claims;
use super::owed::Owed;
use super::owner::{Owner, Ownership, Position};
use super::{Chan, SessionCore};
use crate::budget::Meter;
use crate::error::SessionEnd;
use crate::wait::WaitQueue;
use crate::{patience, reentry};

pub(crate) struct SendState {
    pub(crate) half: SendHalf,
    /// What the values cost the tasks that send them.
    pub(crate) meter: Meter,
    /// Sends that wait for credit, or for their turn to offer.
    pub(crate) senders: WaitQueue,
    /// Tasks that wait for positions, outcomes or the end.
    pub(crate) watchers: WaitQueue,
    /// The session's end, once it has come.
    pub(crate) end: Option<SessionEnd>,
    /// Counts the sessions that the channel has been opened in: numbers and places of an earlier one mean nothing.
    pub(crate) life: u64,
    /// From a session that was lost.
    pub(super) owed: Owed,
    pub(crate) claims: Claims,
}

impl SendState {
    /// Whether a value of that life of the channel is known to have been taken. Lost or not, its half has heard.
    pub(crate) fn knows_taken(&self, life: u64, seq: u64) -> bool {
        self.claims.are_of(life) && self.half.taken() > seq
    }

    /// Why what belongs to an earlier life of the channel is void.
    pub(crate) fn lost(&self) -> SessionEnd {
        let why = "the session it belonged to is over";
        self.end.clone().unwrap_or_else(|| SessionEnd::Lost(why.to_owned()))
    }
}

pub(crate) struct SendChan {
    id: AtomicU32,
    pub(crate) name: Arc<str>,
    pub(crate) core: Arc<SessionCore>,
    /// What is logged of it goes under this.
    pub(super) span: tracing::Span,
    pub(crate) state: Mutex<SendState>,
    pub(super) queued: AtomicBool,
    pub(super) ownership: Ownership,
}

impl SendChan {
    pub(super) fn new(
        core: &Arc<SessionCore>,
        name: Arc<str>,
        mut half: SendHalf,
        ownership: Ownership,
    ) -> Arc<Self> {
        half.bound(core.limits.window_bytes_max);
        let state = SendState {
            half,
            meter: Meter::default(),
            senders: WaitQueue::default(),
            watchers: WaitQueue::default(),
            end: core.end.get().cloned(),
            life: 0,
            owed: Owed::default(),
            claims: Claims::default(),
        };
        let id = state.half.id().0;
        let span = core.channel_span(&name, id);
        tracing::debug!(parent: &span, "channel open");
        Arc::new(Self {
            id: AtomicU32::new(id),
            span,
            name,
            core: Arc::clone(core),
            state: Mutex::new(state),
            queued: AtomicBool::new(false),
            ownership,
        })
    }

    pub(crate) fn id(&self) -> ChannelId {
        ChannelId(self.id.load(Ordering::Relaxed))
    }

    pub(super) fn set_id(&self, id: ChannelId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    /// Sees that what the half has to say is written: at once if it is the first of a burst, or a whole record.
    #[inline]
    pub(crate) fn kick(self: &Arc<Self>, full: bool) {
        let fresh = self.mark_ready();
        self.core.kick(fresh, full);
    }

    /// Sees that what the half has to say is written soon, by another task.
    pub(crate) fn kick_later(self: &Arc<Self>) {
        if self.mark_ready() {
            self.core.gather();
        }
    }

    /// Notes that the half has something to say, without writing it. Says whether it had nothing to say before.
    #[inline]
    pub(crate) fn mark_ready(self: &Arc<Self>) -> bool {
        !self.queued.load(Ordering::SeqCst) && self.core.set_ready(&Chan::Send(Arc::clone(self)))
    }

    /// Credit, positions or the end have moved.
    pub(super) fn writable(self: &Arc<Self>) {
        let (paid, at) = {
            let mut state = patience::lock(&self.state);
            let paid = state.pay();
            let available = state.half.available();
            if state.half.closed().is_some() {
                state.senders.wake_all();
            } else {
                state.senders.wake_front(available);
            }
            state.watchers.wake_all();
            let half = &state.half;
            let (limit, taken, may_send) = (half.limit(), half.taken(), available > 0);
            (paid, Position { limit, taken, may_send, closed: half.peer_closed().is_some() })
        };
        if paid {
            self.kick(true);
        }
        if let Some(owner) = self.owner() {
            Arc::clone(owner).writable(self, at);
        }
        if at.closed {
            self.let_go();
        }
        self.core.closing_progress();
    }

    pub(super) fn ended(&self, end: &SessionEnd) {
        let mut state = self.state.lock();
        state.end.get_or_insert_with(|| end.clone());
        state.senders.wake_all();
        state.watchers.wake_all();
        let taken = state.half.taken();
        drop(state);
        if let Some(owner) = self.owner() {
            owner.ended(end, taken);
        }
    }

    #[inline]
    pub(super) const fn owner(&self) -> Option<&Arc<dyn Owner>> {
        self.ownership.owner()
    }

    /// What is here in place of the program, if it is an `O`.
    pub(crate) fn owner_as<O: Owner>(&self) -> Option<&O> {
        self.ownership.owner_as()
    }

    /// Whether what the peer does not take goes back to an owner.
    pub(super) fn takes_back(&self) -> bool {
        self.owner().is_some_and(|owner| owner.takes_back())
    }

    /// Whether a session that is on its way out has nothing more to do for it.
    pub(super) fn is_drained(&self) -> bool {
        if self.takes_back() {
            return true;
        }
        let state = patience::lock(&self.state);
        let half = &state.half;
        if state.end.is_some() || half.peer_closed().is_some() {
            return true;
        }
        if half.is_held() {
            return state.owed.is_empty() && (!self.resends() || half.unsettled() == (0, 0));
        }
        // The close as well has been said, on this very link.
        half.received() >= half.committed() && half.is_synced() && !half.has_output()
    }

    /// The link is gone. A remote receiver that cannot be reached waits for nothing more: others are served.
    pub(super) fn detach(&self, replaced: bool) {
        patience::lock(&self.state).half.detach();
        if let Some(owner) = self.owner() {
            owner.detached(replaced);
        }
    }

    /// Both ends have closed it.
    pub(super) fn finished(&self) {
        self.writable_locally();
        if let Some(owner) = self.owner() {
            let taken = self.state.lock().half.taken();
            owner.finished(taken);
        }
        self.let_go();
    }

    /// The policy has taken it from the peer: what is on its way does not arrive.
    pub(super) fn revoke(self: &Arc<Self>, reason: CloseReason) {
        let taken = {
            let mut state = self.state.lock();
            state.half.reset(reason);
            state.half.taken()
        };
        if let Some(owner) = self.owner() {
            owner.revoked(taken);
        }
        self.kick(true);
        self.writable_locally();
    }

    /// The channel is closed: the peer keeps its grant only if it may still use what it took.
    fn let_go(&self) {
        if !self.owner().is_some_and(|owner| owner.outlasts_close()) {
            self.core.let_go(self.id());
        }
    }

    /// A place may have come free here rather than at the peer.
    pub(crate) fn wake_senders(&self) {
        let mut state = self.state.lock();
        let more = state.half.available();
        state.senders.wake_front(more);
    }

    pub(crate) fn close(self: &Arc<Self>, reason: CloseReason) {
        reentry::enter(&self.state).half.close(reason);
        self.kick(true);
        self.writable_locally();
    }

    /// The time is over: leased credit that was recalled goes back, whoever still waits.
    pub(super) fn give_back(self: &Arc<Self>) {
        self.state.lock().half.answer_recall();
        self.kick(true);
    }

    /// The state changed here rather than at the peer: wakes whoever watches.
    pub(crate) fn writable_locally(&self) {
        let mut state = self.state.lock();
        if state.half.closed().is_some() {
            state.senders.wake_all();
        }
        state.watchers.wake_all();
    }
}

/// The program's hold on a sending end: when the last is dropped, the channel closes after its data.
pub(crate) struct SendHandle(pub(crate) Arc<SendChan>);

impl SendHandle {
    pub(super) fn new(chan: Arc<SendChan>) -> Self {
        chan.core.add_handle();
        Self(chan)
    }
}

impl Drop for SendHandle {
    fn drop(&mut self) {
        self.0.close(CloseReason::plain());
        self.0.core.drop_handle();
    }
}
