//! The sending end of a channel, under its lock, with the tasks that wait on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use netchan_proto::channel::{CloseReason, SendHalf};
use netchan_proto::hosted::ReceiverKey;
use netchan_proto::id::ChannelId;
use parking_lot::Mutex;

use super::claims::Claims;
use super::lost::Reopen;
use super::owed::Owed;
use super::{Chan, Role, Service, SessionCore};
use crate::budget::Meter;
use crate::error::SessionEnd;
use crate::hub::Hub;
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
    /// Set where this end sends the values of a hosted channel to a remote receiver.
    pub(super) hub: Option<(Arc<Hub>, ReceiverKey)>,
    /// Set where a client opened it by its name.
    pub(super) reopen: Option<Reopen>,
    /// Stands here in place of the program.
    service: Option<Arc<dyn Service>>,
}

impl SendChan {
    pub(super) fn new(
        core: &Arc<SessionCore>,
        name: Arc<str>,
        mut half: SendHalf,
        role: Role<ReceiverKey>,
    ) -> Arc<Self> {
        let Role { hub, reopen, service } = role;
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
            hub,
            reopen,
            service,
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

    /// Sees that what the half has to say is written soon. For callers that hold a lock of a hosted channel.
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
        let (paid, limit, taken, closed) = {
            let mut state = patience::lock(&self.state);
            let paid = state.pay();
            let available = state.half.available();
            if state.half.closed().is_some() {
                state.senders.wake_all();
            } else {
                state.senders.wake_front(available);
            }
            state.watchers.wake_all();
            (paid, state.half.limit(), state.half.taken(), state.half.peer_closed().is_some())
        };
        if paid {
            self.kick(true);
        }
        if let Some((hub, key)) = &self.hub {
            if closed {
                self.leave_hub(hub, *key, taken);
            } else {
                hub.receiver_moved(*key, limit, taken);
            }
        }
        if closed {
            self.let_go();
        }
        if let Some(service) = &self.service {
            Arc::clone(service).moved();
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
        if let Some((hub, key)) = &self.hub {
            hub.remove_receiver(*key, taken);
        }
        if let Some(service) = &self.service {
            service.ended(end);
        }
    }

    pub(super) fn service(&self) -> Option<&Arc<dyn Service>> {
        self.service.as_ref()
    }

    /// Whether a session that is on its way out has nothing more to do for it.
    pub(super) fn is_drained(&self) -> bool {
        if self.hub.is_some() {
            // What a hosted channel sends is its own, and goes back to it.
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
        if let Some((hub, key)) = &self.hub {
            hub.suspend_receiver(*key, replaced);
        }
        if let Some(service) = &self.service {
            service.detached(replaced);
        }
    }

    pub(super) fn detach_hub(&self) {
        if let Some((hub, key)) = &self.hub {
            let taken = self.state.lock().half.taken();
            self.leave_hub(hub, *key, taken);
        }
    }

    /// The peer has it no more, unless it has yet to acknowledge what it took.
    pub(super) fn let_go(&self) {
        if self.hub.as_ref().is_none_or(|(hub, key)| hub.holder(*key).is_none()) {
            self.core.let_go(self.id());
        }
    }

    /// The channel is closed. Who acknowledges what it took has more to say.
    fn leave_hub(&self, hub: &Arc<Hub>, key: ReceiverKey, taken: u64) {
        match hub.holder(key) {
            Some(holder) => holder.retire(taken),
            None => hub.remove_receiver(key, taken),
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
