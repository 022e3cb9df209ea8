//! Answering the channels that the peer opens.

use std::sync::Arc;

use netchan_proto::channel::{RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::WindowKind;
use netchan_proto::hosted::WhenSlow;
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Accept, Mode, Open, Purpose, RefuseCode};

use super::{Chan, RecvChan, RecvHandle, Role, SendChan, SendHandle, Service, SessionCore};
use crate::hub::{Cast, Hub, Inlet, Subscription};

/// The role of an end behind which a hosted channel stands.
fn served_by<K>(hub: &Arc<Hub>, key: K) -> Role<K> {
    Role { hub: Some((Arc::clone(hub), key)), ..Role::default() }
}

/// Outcomes that are kept for a holder that does not take them; then nothing more is done for it.
const OUTCOMES_MAX: u64 = 1_024;

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
        let chan = SendChan::new(self, Arc::from(open.name.as_str()), half, Role::default());
        let accept = Accept { id: open.id, mode, capacity: open.capacity, limit_bytes: 0 };
        self.accept(accept, life, Chan::Send(Arc::clone(&chan))).then(|| SendHandle::new(chan))
    }

    /// Accepts a channel from which this end receives. `None` when its opener has given it up.
    pub(crate) fn accept_recv(self: &Arc<Self>, open: &Open, capacity: u64, life: u64) -> Option<RecvHandle> {
        let (mode, kind) = match capacity {
            0 => (Mode::Rendezvous, WindowKind::Rendezvous),
            _ => (Mode::Credit, WindowKind::Fixed { capacity }),
        };
        let half = RecvHalf::new(open.id, &self.recv_options(kind));
        let chan = RecvChan::new(self, Arc::from(open.name.as_str()), half, Role::default());
        let accept = Accept { id: open.id, mode, capacity, limit_bytes: self.limits.window_bytes };
        self.accept(accept, life, Chan::Recv(Arc::clone(&chan))).then(|| RecvHandle::new(chan))
    }

    /// Accepts a remote sender into a hosted channel.
    pub(crate) fn accept_hosted_sender(self: &Arc<Self>, open: &Open, hub: &Arc<Hub>) {
        let Some(key) = hub.new_sender() else {
            return self.refuse(open.id, RefuseCode::NotAvailable, "the channel is closed");
        };
        let (mode, kind) = match hub.capacity() {
            0 => (Mode::Rendezvous, WindowKind::Rendezvous),
            _ => (Mode::Lease, WindowKind::Lease),
        };
        let half = RecvHalf::new(open.id, &self.recv_options(kind));
        let chan = self.insert_recv(Arc::from(open.name.as_str()), half, served_by(hub, key));
        hub.attach_sender(key, &chan);
        let limit_bytes = self.limits.window_bytes;
        let accept = Accept { id: open.id, mode, capacity: hub.capacity(), limit_bytes };
        if !self.answer(accept) {
            hub.remove_remote_sender(key);
        }
        if self.end.get().is_some() {
            // It may have ended before the channel was attached.
            hub.remove_remote_sender(key);
        }
    }

    /// Accepts a remote receiver of a hosted channel.
    pub(crate) fn accept_hosted_receiver(self: &Arc<Self>, open: &Open, hub: &Arc<Hub>) {
        if matches!(open.purpose, Purpose::Subscription { .. }) {
            let reason = "it is no broadcast; leave out ChannelOptions::when_slow";
            return self.refuse(open.id, RefuseCode::WrongDirection, reason);
        }
        let holder = (open.purpose == Purpose::Deliveries).then(|| hub.new_holder());
        let key = match &holder {
            None => hub.new_receiver(),
            Some(holder) => holder.as_ref().map(|holder| holder.key()),
        };
        let Some(key) = key else {
            return self.refuse(open.id, RefuseCode::NotAvailable, "the channel is closed");
        };
        let options = SendOptions {
            mode: Mode::Demand,
            capacity: hub.capacity(),
            limit_bytes: open.limit_bytes,
            message_bytes_max: self.longest_message(open.purpose, Mode::Demand),
        };
        let half = SendHalf::new(open.id, &options);
        let chan = self.insert_send(Arc::from(open.name.as_str()), half, served_by(hub, key));
        let holder = holder.flatten();
        if let Some(holder) = &holder {
            holder.set_session(self, open.id);
            self.granted_to(open.id, holder);
        }
        hub.attach_receiver(key, &chan, holder);
        let accept = Accept { id: open.id, mode: Mode::Demand, capacity: hub.capacity(), limit_bytes: 0 };
        if !self.answer(accept) {
            hub.remove_receiver(key, 0);
        }
        if self.end.get().is_some() {
            hub.remove_receiver(key, 0);
        }
    }

    /// Accepts the channels on which a holder says what it does with its deliveries, and hears what became of that.
    pub(crate) fn accept_service(self: &Arc<Self>, open: &Open) {
        let holder = |of: ChannelId| match self.get(of)? {
            Chan::Send(chan) => chan.hub.as_ref().and_then(|(hub, key)| hub.holder(*key)),
            Chan::Recv(_) => None,
        };
        let name = Arc::from(open.name.as_str());
        let accepted = match open.purpose {
            Purpose::Acks { of } => holder(of).is_some_and(|holder| {
                let capacity = holder.asks_max();
                let options = RecvOptions {
                    message_bytes_max: self.longest_message(open.purpose, Mode::Credit),
                    ..self.recv_options(WindowKind::Fixed { capacity })
                };
                let half = RecvHalf::new(open.id, &options);
                let role = Role { service: Some(holder.clone() as Arc<dyn Service>), ..Role::default() };
                let chan = self.insert_recv(name, half, role);
                let (mode, limit_bytes) = (Mode::Credit, self.limits.window_bytes);
                holder.set_asks(&chan) && self.answer(Accept { id: open.id, mode, capacity, limit_bytes })
            }),
            Purpose::Outcomes { of } => holder(of).filter(|_| open.capacity > 0).is_some_and(|holder| {
                let options = SendOptions {
                    mode: Mode::Credit,
                    // A peer that grants more is kept waiting with less.
                    capacity: open.capacity.min(OUTCOMES_MAX),
                    limit_bytes: open.limit_bytes,
                    message_bytes_max: self.message_bytes_max(),
                };
                let half = SendHalf::new(open.id, &options);
                let role = Role { service: Some(holder.clone() as Arc<dyn Service>), ..Role::default() };
                let chan = self.insert_send(name, half, role);
                let accept =
                    Accept { id: open.id, mode: Mode::Credit, capacity: open.capacity, limit_bytes: 0 };
                let accepted = holder.set_outcomes(&chan) && self.answer(accept);
                // Something may have been asked, or fenced, already.
                holder.moved();
                accepted
            }),
            Purpose::Values | Purpose::Deliveries | Purpose::Subscription { .. } => false,
        };
        if !accepted {
            self.table.lock().remove(&open.id);
            self.refuse(open.id, RefuseCode::NotAvailable, "there are no such deliveries");
        }
    }

    /// Accepts a subscriber of a broadcast.
    pub(crate) fn accept_subscriber(self: &Arc<Self>, open: &Open, cast: &Arc<Cast>, when_slow: WhenSlow) {
        // Beyond what the log holds, it would hold more than the log.
        let capacity = open.capacity.clamp(1, cast.capacity());
        let options = SendOptions {
            mode: Mode::Credit,
            capacity,
            limit_bytes: open.limit_bytes,
            message_bytes_max: self.longest_message(open.purpose, Mode::Cast),
        };
        let subscription = Subscription::new(cast);
        let chan = self.send_for(open, &options, subscription.clone());
        if !subscription.begin(when_slow, &chan) {
            self.table.lock().remove(&open.id);
            return self.refuse(open.id, RefuseCode::NotAvailable, "the broadcast is closed");
        }
        if !self.answer(Accept { id: open.id, mode: Mode::Cast, capacity, limit_bytes: 0 })
            || self.end.get().is_some()
        {
            return subscription.leave();
        }
        subscription.moved();
    }

    /// Accepts a client that sends into a broadcast.
    pub(crate) fn accept_inlet(self: &Arc<Self>, open: &Open, inlet: &Arc<Inlet>) {
        self.accept_from(open, inlet.capacity(), Arc::clone(inlet) as Arc<dyn Service>, |chan| {
            inlet.begin(chan)
        });
    }

    /// Accepts a channel from which a service receives; `begin` is called before the peer knows of it.
    pub(crate) fn accept_from(
        self: &Arc<Self>,
        open: &Open,
        capacity: u64,
        service: Arc<dyn Service>,
        begin: impl FnOnce(&Arc<RecvChan>),
    ) {
        let half = RecvHalf::new(open.id, &self.recv_options(WindowKind::Fixed { capacity }));
        let role = Role { service: Some(service), ..Role::default() };
        let chan = self.insert_recv(Arc::from(open.name.as_str()), half, role);
        begin(&chan);
        let limit_bytes = self.limits.window_bytes;
        self.answer(Accept { id: open.id, mode: Mode::Credit, capacity, limit_bytes });
    }

    /// A channel into which a service sends, in place and not answered.
    fn send_for(
        self: &Arc<Self>,
        open: &Open,
        options: &SendOptions,
        service: Arc<dyn Service>,
    ) -> Arc<SendChan> {
        let role = Role { service: Some(service), ..Role::default() };
        self.insert_send(Arc::from(open.name.as_str()), SendHalf::new(open.id, options), role)
    }

    /// Accepts a channel into which a service sends; `begin` is called before the peer knows of it.
    #[cfg(test)]
    pub(crate) fn accept_for(
        self: &Arc<Self>,
        open: &Open,
        service: Arc<dyn Service>,
        begin: impl FnOnce(&Arc<SendChan>),
    ) {
        let (mode, capacity, limit_bytes) = (Mode::Credit, open.capacity, open.limit_bytes);
        let message_bytes_max = self.message_bytes_max();
        let chan =
            self.send_for(open, &SendOptions { mode, capacity, limit_bytes, message_bytes_max }, service);
        begin(&chan);
        self.answer(Accept { id: open.id, mode, capacity, limit_bytes: 0 });
    }

    /// Answers for a hosted channel, whose half is in place: the hub must know it before the peer does.
    fn answer(self: &Arc<Self>, accept: Accept) -> bool {
        let id = accept.id;
        let accepted = self.control.lock().accept(accept);
        if !accepted {
            self.table.lock().remove(&id);
            self.let_go(id);
        }
        self.kick(true, true);
        accepted
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
