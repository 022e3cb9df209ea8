//! Answering the channels that the peer opens.

use std::sync::Arc;

use netchan_proto::channel::{RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::WindowKind;
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Accept, Mode, Open, RefuseCode};

use super::{Chan, Owner, Ownership, RecvChan, RecvHandle, SendChan, SendHandle, SessionCore};

/// What this end says of a channel that the peer opens, when it accepts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    mode: Mode,
    capacity: u64,
    used_max: u64,
    ahead: u64,
}

impl Terms {
    pub(crate) const fn new(mode: Mode, capacity: u64) -> Self {
        Self { mode, capacity, used_max: u64::MAX, ahead: 0 }
    }

    /// At a sending end of mode Demand: up to `ahead` values may be with the peer that it has not asked for (`FLOW-10`).
    pub(crate) const fn ahead(self, ahead: u64) -> Self {
        Self { ahead, ..self }
    }

    /// At a sending end: uses at most `used_max` places, however many the peer grants.
    pub(crate) const fn using(self, used_max: u64) -> Self {
        Self { used_max, ..self }
    }
}

/// An end that is in place for what the peer has opened. The peer has not been answered yet.
#[must_use]
pub(crate) struct Placed<C> {
    core: Arc<SessionCore>,
    chan: Arc<C>,
    accept: Accept,
}

impl<C> Placed<C> {
    pub(crate) const fn chan(&self) -> &Arc<C> {
        &self.chan
    }

    /// Answers. False if the channel is over already: its opener has given it up, or the session has ended, perhaps before
    /// the owner knew the channel.
    pub(crate) fn accept(self) -> bool {
        let Self { core, accept, .. } = self;
        let id = accept.id;
        let accepted = core.control.lock().accept(accept);
        if !accepted {
            core.table.lock().remove(&id);
            core.let_go(id);
        }
        core.kick(true, true);
        accepted && core.end.get().is_none()
    }

    /// Takes the end away again.
    pub(crate) fn refuse(self, code: RefuseCode, reason: &str) {
        let Self { core, accept, .. } = self;
        core.table.lock().remove(&accept.id);
        core.refuse(accept.id, code, reason);
    }
}

impl SessionCore {
    /// Accepts what the peer opened in the session of that life, and puts its half in place, in one step: the next session
    /// numbers its channels anew. False when its opener has given it up.
    fn accept(self: &Arc<Self>, accept: Accept, life: u64, chan: Chan) -> bool {
        {
            let mut control = self.control.lock();
            if life != self.life() || !control.accept(accept) {
                drop(control);
                self.let_go(chan.id());
                return false;
            }
            self.table.lock().insert(chan.id(), chan.clone());
        }
        self.inserted(&chan);
        self.kick(true, true);
        // A policy that came meanwhile has not found it in the table.
        self.upper.accepted(self, chan.id());
        true
    }

    /// Accepts a channel into which this end sends. `None` when its opener has given it up.
    pub(crate) fn accept_send(self: &Arc<Self>, open: &Open, life: u64) -> Option<SendHandle> {
        let mode = if open.capacity == 0 { Mode::Rendezvous } else { Mode::Credit };
        let options = SendOptions {
            mode,
            capacity: open.capacity,
            limit_bytes: open.limit_bytes,
            message_bytes_max: self.message_bytes_max(),
        };
        let half = SendHalf::new(open.id, &options);
        let chan = SendChan::new(self, Arc::from(open.name.as_str()), half, Ownership::Program(None));
        let accept = Accept { id: open.id, mode, capacity: open.capacity, limit_bytes: 0 };
        self.accept(accept, life, Chan::Send(Arc::clone(&chan))).then(|| SendHandle::new(chan))
    }

    /// Accepts a channel from which this end receives. `None` when its opener has given it up.
    pub(crate) fn accept_recv(self: &Arc<Self>, open: &Open, capacity: u64, life: u64) -> Option<RecvHandle> {
        let (mode, kind) = match capacity {
            0 => (Mode::Rendezvous, WindowKind::Rendezvous),
            _ => (Mode::Credit, WindowKind::Fixed { capacity }),
        };
        let limit_bytes = self.first_window();
        let half = RecvHalf::new(open.id, &self.recv_options(kind, limit_bytes));
        let chan = RecvChan::new(self, Arc::from(open.name.as_str()), half, Ownership::Program(None));
        let accept = Accept { id: open.id, mode, capacity, limit_bytes };
        self.accept(accept, life, Chan::Recv(Arc::clone(&chan))).then(|| RecvHandle::new(chan))
    }

    /// Puts a receiving end in place for what the peer opens; its owner must know it before the peer hears of it.
    pub(crate) fn place_recv(
        self: &Arc<Self>,
        open: &Open,
        terms: Terms,
        owner: Arc<dyn Owner>,
    ) -> Placed<RecvChan> {
        let Terms { mode, capacity, .. } = terms;
        let kind = match mode {
            Mode::Rendezvous => WindowKind::Rendezvous,
            Mode::Lease => WindowKind::Lease,
            Mode::Credit | Mode::Demand | Mode::Cast => WindowKind::Fixed { capacity },
        };
        let limit_bytes = self.first_window();
        let options = RecvOptions {
            message_bytes_max: self.longest_message(open.purpose, mode),
            ..self.recv_options(kind, limit_bytes)
        };
        let half = RecvHalf::new(open.id, &options);
        self.granted_by(open.id, &owner);
        let chan = self.insert_recv(Arc::from(open.name.as_str()), half, Ownership::Owned(owner));
        Placed { core: Arc::clone(self), chan, accept: Accept { id: open.id, mode, capacity, limit_bytes } }
    }

    /// As [`place_recv`](Self::place_recv), for a sending end.
    pub(crate) fn place_send(
        self: &Arc<Self>,
        open: &Open,
        terms: Terms,
        owner: Arc<dyn Owner>,
    ) -> Placed<SendChan> {
        let Terms { mode, capacity, used_max, ahead } = terms;
        let options = SendOptions {
            // Only a receiver sees a difference.
            mode: if mode == Mode::Cast { Mode::Credit } else { mode },
            capacity: capacity.min(used_max),
            limit_bytes: open.limit_bytes,
            message_bytes_max: self.longest_message(open.purpose, mode),
        };
        let mut half = SendHalf::new(open.id, &options);
        half.allow_ahead(ahead);
        self.granted_by(open.id, &owner);
        let chan = self.insert_send(Arc::from(open.name.as_str()), half, Ownership::Owned(owner));
        Placed {
            core: Arc::clone(self),
            chan,
            accept: Accept { id: open.id, mode, capacity, limit_bytes: 0 },
        }
    }

    pub(crate) fn refuse(self: &Arc<Self>, id: ChannelId, code: RefuseCode, reason: impl Into<String>) {
        self.let_go(id);
        self.with_control(|c| c.refuse(id, code, reason.into()));
    }

    /// As [`refuse`](Self::refuse), for what was offered in the session of that life.
    pub(crate) fn decline(self: &Arc<Self>, id: ChannelId, life: u64, code: RefuseCode, reason: String) {
        self.let_go(id);
        self.with_control(|c| {
            if life == self.life() {
                c.refuse(id, code, reason);
            }
        });
    }

    pub(crate) fn is_offered(&self, id: ChannelId, life: u64) -> bool {
        let control = self.control.lock();
        life == self.life() && control.is_offered(id)
    }
}
