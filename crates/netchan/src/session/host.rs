//! How the session's objects reach each other through the locks, and what is done about what they report.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchan_proto::channel::{RecvHalf, SendHalf};
use netchan_proto::id::ChannelId;
use netchan_proto::session::{Control, Event, Host};

use super::{Chan, GIVE_BACK_AFTER, Owner, SessionCore};
use crate::patience;

/// A session's core, as the objects of `netchan-proto` see it.
pub(super) struct ShellHost<'a> {
    core: &'a Arc<SessionCore>,
    /// A channel has something to say on account of what was handled.
    answers: Cell<bool>,
}

impl<'a> ShellHost<'a> {
    pub(super) const fn new(core: &'a Arc<SessionCore>) -> Self {
        Self { core, answers: Cell::new(false) }
    }

    /// Whether something is to be written on account of what was handled.
    pub(super) fn has_answers(&self) -> bool {
        self.answers.get() || self.core.control.lock().has_output()
    }
}

impl Host for ShellHost<'_> {
    fn with_control<R>(&self, f: impl FnOnce(&mut Control) -> R) -> R {
        f(&mut self.core.control.lock())
    }

    fn with_send<R>(&self, id: ChannelId, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R> {
        match self.core.get(id)? {
            Chan::Send(chan) => Some(f(&mut patience::lock(&chan.state).half)),
            Chan::Recv(_) => None,
        }
    }

    fn with_recv<R>(&self, id: ChannelId, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R> {
        match self.core.get(id)? {
            Chan::Recv(chan) => {
                let mut state = patience::lock(&chan.state);
                let window = state.half.window_bytes();
                if state.half.wants_growth() {
                    state.let_grow(&self.core.account);
                }
                let result = f(&mut state.half);
                if state.is_to_be_counted(window) {
                    let within = state.count(&self.core.account, window);
                    drop(state);
                    if let Err(over) = within {
                        chan.over_limit(over);
                    }
                }
                Some(result)
            }
            Chan::Send(_) => None,
        }
    }

    fn next_ready(&self) -> Option<ChannelId> {
        let chan = self.core.ready.lock().pop_front()?;
        // Cleared before the channel is looked at: whoever adds to it from now on queues it again.
        chan.queued().store(false, Ordering::SeqCst);
        Some(chan.id())
    }

    fn set_ready(&self, id: ChannelId) {
        if let Some(chan) = self.core.get(id) {
            let fresh = self.core.set_ready(&chan);
            self.answers.set(self.answers.get() || fresh);
        }
    }

    fn event(&self, event: Event) {
        self.core.handle_event(event);
    }
}

impl SessionCore {
    pub(crate) fn send_chan(&self, id: ChannelId) -> Option<Arc<super::SendChan>> {
        match self.get(id)? {
            Chan::Send(chan) => Some(chan),
            Chan::Recv(_) => None,
        }
    }

    pub(crate) fn recv_chan(&self, id: ChannelId) -> Option<Arc<super::RecvChan>> {
        match self.get(id)? {
            Chan::Recv(chan) => Some(chan),
            Chan::Send(_) => None,
        }
    }

    fn with_recv_owner(&self, id: ChannelId, f: impl FnOnce(&dyn Owner)) {
        if let Some(chan) = self.recv_chan(id)
            && let Some(owner) = chan.owner()
        {
            f(&**owner);
        }
    }

    fn handle_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Confirmed => self.confirmed(),
            Event::Acknowledged => self.acknowledged(),
            Event::LeaseTold { id, limit } => self.with_recv_owner(id, |owner| owner.lease_told(limit)),
            Event::Incoming(open) => self.incoming(open),
            Event::Limited { open, limit } => self.limited(&open, limit),
            Event::Announced(announce) => self.upper.announced(self, announce),
            Event::Opened { open, accept } => self.opened(&open, &accept),
            Event::Refused(refuse) => self.refused(refuse),
            Event::Readable(id) => {
                if let Some(chan) = self.recv_chan(id) {
                    chan.readable();
                }
            }
            Event::Writable(id) => {
                if let Some(chan) = self.send_chan(id) {
                    chan.writable();
                }
            }
            Event::Wanted { id, limit } => self.with_recv_owner(id, |owner| owner.wanted(limit)),
            Event::Yielded { id, limit } => {
                if let Some(chan) = self.recv_chan(id) {
                    chan.yielded(limit);
                }
            }
            Event::RewindAsked { id, limit } => {
                if let Some(chan) = self.send_chan(id)
                    && let Some(owner) = chan.owner()
                {
                    owner.rewind_asked(limit);
                }
            }
            Event::WithdrawAsked { id, seq } => self.with_recv_owner(id, |owner| owner.withdraw_asked(seq)),
            Event::RecallDeferred(id) => {
                if let Some(chan) = self.send_chan(id) {
                    self.note_idle(Chan::Send(chan), GIVE_BACK_AFTER);
                }
            }
            Event::OfferExpired(id) => {
                self.let_go(id);
                self.upper.expired(self, id);
            }
            Event::Withdrawn { id, .. } => {
                if let Some(chan) = self.send_chan(id) {
                    chan.writable();
                }
            }
            Event::Finished(id) => self.finished(id),
            Event::Pong { nonce } => self.ponged(nonce),
            Event::GoAway { code, reason } => self.peer_goes_away(code, reason),
        }
    }

    /// Both ends have closed the channel.
    fn finished(&self, id: ChannelId) {
        let chan = self.table.lock().remove(&id);
        match chan {
            Some(Chan::Send(chan)) => {
                tracing::debug!(parent: &chan.span, "channel closed");
                self.note_replayed(&chan);
                chan.finished();
            }
            Some(Chan::Recv(chan)) => {
                tracing::debug!(parent: &chan.span, "channel closed");
                chan.finished();
            }
            None => {}
        }
        self.wake_driver();
    }
}
