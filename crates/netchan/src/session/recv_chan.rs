//! The receiving end of a channel, under its lock, with the tasks that wait on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use netchan_proto::channel::{CloseReason, RecvHalf};
use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::id::ChannelId;
use netchan_proto::session::close_code;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::owner::{Owner, Ownership};
use super::{Chan, GIVE_BACK_AFTER, SessionCore};
use crate::account::{Account, Entry, OverLimit};
use crate::budget::Meter;
use crate::error::SessionEnd;
use crate::wait::WaitQueue;
use crate::{patience, reentry};

/// News that nobody waits for go out this often at most, for each channel. Each costs the sender's process a wake-up, on a
/// thread beside the one that sends.
const REPORT_PERIOD_MILLIS: u64 = 10;

pub(crate) struct RecvState {
    pub(crate) half: RecvHalf,
    /// What of it stands in the session's account.
    pub(super) entry: Entry,
    /// What the values cost the tasks that receive them.
    pub(crate) meter: Meter,
    /// Receives that wait for values.
    pub(crate) receivers: WaitQueue,
    /// Tasks that wait for the end.
    pub(crate) watchers: WaitQueue,
    /// The session's end, once it has come.
    pub(crate) end: Option<SessionEnd>,
    /// Holds values from a session that was lost: it is opened again when they have been taken.
    pub(crate) drains: bool,
    /// What arrives is a broadcast's, and says whether it is a value.
    pub(crate) is_cast: bool,
    /// It has been subscribed again after a loss, and nobody has been told.
    pub(crate) restarted: bool,
}

pub(crate) struct RecvChan {
    id: AtomicU32,
    pub(crate) name: Arc<str>,
    pub(crate) core: Arc<SessionCore>,
    /// What is logged of it goes under this.
    pub(super) span: tracing::Span,
    pub(crate) state: Mutex<RecvState>,
    pub(super) queued: AtomicBool,
    /// When news that nobody waited for last went out.
    reported_millis: AtomicU64,
    /// What was asked for by a look is kept until then.
    asked_until_millis: AtomicU64,
    /// The policy has taken it from the peer: nothing more comes in, not by the side door of an acknowledgement either.
    revoked: AtomicBool,
    /// Listed among the idle receivers.
    pub(super) idle: AtomicBool,
    pub(super) ownership: Ownership,
}

/// What the half keeps is counted before and after it is used. The parts are apart, and out of line, for what uses it is on the way of
/// every record.
impl RecvState {
    #[cold]
    #[inline(never)]
    pub(super) fn let_grow(&mut self, account: &Account) {
        self.half.allow_growth(account.has_room_to_grow(self.half.window_bytes()));
    }

    #[inline]
    pub(super) fn is_to_be_counted(&self, window_before: u64) -> bool {
        self.entry.differs(self.half.kept_bytes()) || self.half.window_bytes() != window_before
    }

    #[inline(never)]
    pub(super) fn count(&mut self, account: &Account, window_before: u64) -> Result<(), OverLimit> {
        let grown = self.half.window_bytes().saturating_sub(window_before);
        account.note_grown(&mut self.entry, grown);
        account.count(&mut self.entry, self.half.kept_bytes())
    }
}

impl Drop for RecvChan {
    fn drop(&mut self) {
        self.core.account.close(&mut self.state.get_mut().entry);
    }
}

impl RecvChan {
    pub(super) fn new(
        core: &Arc<SessionCore>,
        name: Arc<str>,
        half: RecvHalf,
        ownership: Ownership,
    ) -> Arc<Self> {
        let state = RecvState {
            half,
            entry: Entry::default(),
            meter: Meter::default(),
            receivers: WaitQueue::default(),
            watchers: WaitQueue::default(),
            end: core.end.get().cloned(),
            drains: false,
            is_cast: false,
            restarted: false,
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
            revoked: AtomicBool::new(false),
            reported_millis: AtomicU64::new(0),
            asked_until_millis: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            ownership,
        })
    }

    pub(crate) fn id(&self) -> ChannelId {
        ChannelId(self.id.load(Ordering::Relaxed))
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    pub(super) fn set_id(&self, id: ChannelId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    /// Notes that the half has something to say, without writing it. Says whether it had nothing to say before.
    pub(crate) fn mark_ready(self: &Arc<Self>) -> bool {
        !self.queued.load(Ordering::SeqCst) && self.core.set_ready(&Chan::Recv(Arc::clone(self)))
    }

    /// Sees that the half's news are written as soon as they must be.
    #[inline]
    pub(crate) fn report(self: &Arc<Self>, urgency: Urgency) {
        match urgency {
            Urgency::None => {}
            Urgency::Idle => self.report_in_time(),
            Urgency::Soon => {
                // It rides with what this task sends next, or goes out when the task pauses.
                if self.mark_ready() {
                    self.core.gather();
                }
            }
            Urgency::Now => {
                let fresh = self.mark_ready();
                self.core.kick(fresh, true);
            }
        }
    }

    /// News that nobody waits for. In a stream they would go out with every batch and in a dialogue with every message, and
    /// each costs both ends a record: soon after the last they wait for more, and the driver sees to what is left.
    fn report_in_time(self: &Arc<Self>) {
        if self.core.ticking.load(Ordering::SeqCst) {
            // The driver looks before long: the clock need not be asked.
            return;
        }
        let now = self.core.now_millis();
        if now.saturating_sub(self.reported_millis.load(Ordering::Relaxed)) >= REPORT_PERIOD_MILLIS {
            self.reported_millis.store(now, Ordering::Relaxed);
            if self.mark_ready() {
                self.core.gather();
            }
        } else if !self.core.ticking.swap(true, Ordering::SeqCst) {
            self.core.wake_driver();
        }
    }

    /// For the driver, in a while: says what is left to say.
    pub(super) fn report_rest(self: &Arc<Self>) {
        let urgency = patience::lock(&self.state).half.urgency();
        if urgency == Urgency::Idle && self.mark_ready() {
            self.core.gather();
        }
    }

    /// Values, or the end, have arrived.
    pub(super) fn readable(self: &Arc<Self>) {
        let urgency = {
            let mut state = patience::lock(&self.state);
            let ready = state.half.ready();
            if state.half.peer_closed().is_some() {
                self.core.let_go(self.id());
                state.receivers.wake_all();
                state.watchers.wake_all();
            } else {
                state.receivers.wake_front(ready);
            }
            if ready > 0 && state.receivers.is_empty() {
                self.note_idle(&state);
            }
            state.half.urgency()
        };
        match self.owner() {
            Some(owner) => Arc::clone(owner).readable(self),
            None => self.report(urgency),
        }
    }

    /// The peer gave something back.
    pub(super) fn yielded(self: &Arc<Self>, limit: u64) {
        match self.owner() {
            Some(owner) => owner.yielded(limit),
            // Whoever waits again has its demand told.
            None => self.readable(),
        }
    }

    /// Lists this end among those that may have to give back what nobody waits for.
    pub(crate) fn note_idle(self: &Arc<Self>, state: &RecvState) {
        if state.end.is_none() && state.half.has_excess() && !self.idle.swap(true, Ordering::SeqCst) {
            self.core.note_idle(Chan::Recv(Arc::clone(self)), GIVE_BACK_AFTER);
        }
    }

    /// Asks a hosted channel for so many values, where nothing is here and nobody waits. A program that looks again within
    /// `keep` finds them.
    pub(crate) fn ask(self: &Arc<Self>, state: &mut RecvState, units: u64, keep: Duration) {
        let asks = matches!(state.half.kind(), WindowKind::Demand { prefetch: 0, .. });
        if asks && state.receivers.is_empty() {
            state.half.ask(units);
            let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
            self.asked_until_millis.store(self.core.now_millis().saturating_add(keep), Ordering::Relaxed);
            self.note_idle(state);
        }
    }

    /// As [`Self::ask`], for a receive that is about to wait and takes as many as are here then.
    pub(crate) fn ask_for(self: &Arc<Self>, units: u64) {
        if units > 1
            && let Some(mut state) = reentry::lock(&self.state)
        {
            self.ask(&mut state, units, Duration::ZERO);
        }
    }

    /// The time is over: gives back what still nobody waits for.
    pub(super) fn give_back(self: &Arc<Self>) {
        self.idle.store(false, Ordering::SeqCst);
        let left = self.asked_until_millis.load(Ordering::Relaxed).saturating_sub(self.core.now_millis());
        if left > 0 {
            if !self.idle.swap(true, Ordering::SeqCst) {
                self.core.note_idle(Chan::Recv(Arc::clone(self)), Duration::from_millis(left));
            }
            return;
        }
        let mut state = self.state.lock();
        if state.receivers.is_empty() && state.half.has_excess() {
            state.half.give_back();
            drop(state);
            self.report(Urgency::Now);
        }
    }

    pub(super) fn ended(&self, end: &SessionEnd) {
        let mut state = self.state.lock();
        state.end.get_or_insert_with(|| end.clone());
        state.half.forsake();
        state.receivers.wake_all();
        state.watchers.wake_all();
        drop(state);
        if let Some(owner) = self.owner() {
            owner.ended(end, 0);
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

    /// Whether a session that is on its way out has nothing more to say for it. What was taken must have been said before
    /// the farewell, on this very link, lest it be given to another.
    pub(super) fn is_drained(&self) -> bool {
        let state = patience::lock(&self.state);
        state.end.is_some() || (state.half.is_synced() && state.half.urgency() == Urgency::None)
    }

    /// Whoever still waits finds the channel ended.
    fn wake_all(&self) {
        let mut state = patience::lock(&self.state);
        state.receivers.wake_all();
        state.watchers.wake_all();
    }

    /// The link is gone.
    pub(super) fn detach(&self, replaced: bool) {
        patience::lock(&self.state).half.detach();
        if let Some(owner) = self.owner() {
            owner.detached(replaced);
        }
    }

    /// Both ends have closed it.
    pub(super) fn finished(&self) {
        self.wake_all();
        if let Some(owner) = self.owner() {
            owner.finished(0);
        }
        self.core.let_go(self.id());
    }

    /// The policy has taken it from the peer: what is on its way does not arrive.
    pub(super) fn revoke(self: &Arc<Self>, reason: CloseReason) {
        self.revoked.store(true, Ordering::SeqCst);
        self.stop(reason);
        if let Some(owner) = self.owner() {
            owner.revoked(0);
        }
    }

    /// Stops, and takes none of what it was handed from number `taken` on.
    pub(crate) fn refuse(self: &Arc<Self>, taken: u64, reason: CloseReason) {
        self.state.lock().half.refuse(taken, reason);
        self.wake_all();
        self.report(Urgency::Now);
    }

    /// The peer makes this end keep more than it may (`BOUND-1`).
    pub(super) fn over_limit(self: &Arc<Self>, over: OverLimit) {
        let limit = over.name();
        tracing::warn!(parent: &self.span, limit, "a channel is closed: what its peer makes this end keep is over the limit");
        self.core.account.note_stopped();
        let reason = format!(
            "values that nobody has taken here came to more than {limit} allows; send fewer at a time"
        );
        self.stop(CloseReason { code: close_code::OVER_LIMIT, reason });
    }

    pub(crate) fn stop(self: &Arc<Self>, reason: CloseReason) {
        reentry::enter(&self.state).half.stop(reason);
        self.wake_all();
        self.core.stopped(self);
        self.report(Urgency::Now);
    }
}

/// The program's hold on a receiving end: when the last is dropped, the channel closes.
pub(crate) struct RecvHandle(pub(crate) Arc<RecvChan>);

impl RecvHandle {
    pub(super) fn new(chan: Arc<RecvChan>) -> Self {
        chan.core.add_handle();
        Self(chan)
    }
}

impl Drop for RecvHandle {
    fn drop(&mut self) {
        let finished = self.0.state.lock().half.ended().is_some();
        if !finished {
            let reason = "the receiver was dropped".to_owned();
            self.0.stop(CloseReason { code: close_code::DROPPED, reason });
        }
        self.0.core.drop_handle();
    }
}

/// What [`SessionCore::give_back_idle`] found.
pub(super) struct GiveBack {
    /// Something is to be written.
    pub(super) acted: bool,
    /// When to look again.
    pub(super) next: Option<Instant>,
}

impl SessionCore {
    /// Lists a channel whose credit, or values, others want, and that has a moment to use them.
    pub(super) fn note_idle(&self, chan: Chan, time: Duration) {
        self.idle.lock().push((Instant::now() + time, chan));
        self.wake_driver();
    }

    /// For the driver: gives back what was not used in time.
    pub(super) fn give_back_idle(self: &Arc<Self>, now: Instant) -> GiveBack {
        let (due, next) = {
            let mut idle = self.idle.lock();
            if idle.is_empty() {
                return GiveBack { acted: false, next: None };
            }
            let due: Vec<_> = idle.extract_if(.., |(at, _)| *at <= now).collect();
            (due, idle.iter().map(|(at, _)| *at).min())
        };
        for (_, chan) in &due {
            match chan {
                Chan::Recv(chan) => chan.give_back(),
                Chan::Send(chan) => chan.give_back(),
            }
        }
        GiveBack { acted: !due.is_empty(), next }
    }
}
