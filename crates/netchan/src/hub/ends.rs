//! The ends of channels at which a queue is, in place of the program, and how they are accepted.

use std::sync::Arc;

use netchan_proto::hosted::{ReceiverKey, SenderKey};
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Mode, Open, Purpose, RefuseCode};

use super::{Holder, Hub};
use crate::error::SessionEnd;
use crate::session::{Owner, Position, RecvChan, SendChan, SessionCore, Terms};

/// Outcomes that are kept for a holder that does not take them; then nothing more is done for it.
const OUTCOMES_MAX: u64 = 1_024;

/// A client that sends into the queue.
struct Source {
    hub: Arc<Hub>,
    key: SenderKey,
}

impl Owner for Source {
    fn readable(self: Arc<Self>, chan: &Arc<RecvChan>) {
        self.hub.values_arrived(self.key, chan);
        let urgency = crate::patience::lock(&chan.state).half.urgency();
        chan.report(urgency);
    }

    fn wanted(&self, limit: u64) {
        self.hub.wanted(self.key, limit);
    }

    fn yielded(&self, limit: u64) {
        self.hub.yielded(self.key, limit);
    }

    fn lease_told(&self, limit: u64) {
        self.hub.resume_sender(self.key, limit);
    }

    fn withdraw_asked(&self, seq: u64) {
        self.hub.withdraw_remote(self.key, seq);
    }

    fn detached(&self, _: bool) {
        self.hub.suspend_sender(self.key);
    }

    fn finished(&self, _: u64) {
        self.hub.remove_remote_sender(self.key);
    }

    fn ended(&self, _: &SessionEnd, _: u64) {
        self.hub.remove_remote_sender(self.key);
    }
}

/// A client that receives from the queue.
struct Sink {
    hub: Arc<Hub>,
    key: ReceiverKey,
}

impl Sink {
    /// The channel is closed. Who acknowledges what it took has more to say.
    fn leave(&self, taken: u64) {
        match self.hub.holder(self.key) {
            Some(holder) => holder.retire(taken),
            None => self.hub.remove_receiver(self.key, taken),
        }
    }
}

impl Owner for Sink {
    fn writable(self: Arc<Self>, _: &Arc<SendChan>, at: Position) {
        if at.closed {
            self.leave(at.taken);
        } else {
            self.hub.receiver_moved(self.key, at.limit, at.taken);
        }
    }

    fn rewind_asked(&self, limit: u64) {
        self.hub.give_back(self.key, limit);
    }

    fn detached(&self, replaced: bool) {
        self.hub.suspend_receiver(self.key, replaced);
    }

    fn finished(&self, taken: u64) {
        self.leave(taken);
    }

    fn ended(&self, _: &SessionEnd, taken: u64) {
        self.hub.remove_receiver(self.key, taken);
    }

    fn takes_back(&self) -> bool {
        true
    }

    fn outlasts_close(&self) -> bool {
        self.hub.holder(self.key).is_some()
    }

    fn unacked(&self) -> u64 {
        self.hub.unacked_of(self.key)
    }
}

/// At the channels on which a holder says what it does with its deliveries, and hears what became of that.
impl Owner for Holder {
    fn readable(self: Arc<Self>, _: &Arc<RecvChan>) {
        self.moved();
    }

    fn writable(self: Arc<Self>, _: &Arc<SendChan>, _: Position) {
        self.moved();
    }

    fn detached(&self, replaced: bool) {
        self.detached(replaced);
    }

    fn ended(&self, _: &SessionEnd, _: u64) {
        self.leave();
    }

    fn backlog(&self) -> Option<u64> {
        None
    }
}

impl Hub {
    pub(super) fn accept_sender(self: &Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        let Some(key) = self.new_sender() else {
            return session.refuse(open.id, RefuseCode::NotAvailable, "the channel is closed");
        };
        let mode = if self.capacity() == 0 { Mode::Rendezvous } else { Mode::Lease };
        let source = Arc::new(Source { hub: Arc::clone(self), key });
        let placed = session.place_recv(open, Terms::new(mode, self.capacity()), source);
        self.attach_sender(key, placed.chan());
        if !placed.accept() {
            self.remove_remote_sender(key);
        }
    }

    pub(super) fn accept_receiver(self: &Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        if matches!(open.purpose, Purpose::Subscription { .. }) {
            let reason = "it is no broadcast; leave out ChannelOptions::when_slow";
            return session.refuse(open.id, RefuseCode::WrongDirection, reason);
        }
        let holder = (open.purpose == Purpose::Deliveries).then(|| self.new_holder());
        let key = match &holder {
            None => self.new_receiver(),
            Some(holder) => holder.as_ref().map(|holder| holder.key()),
        };
        let Some(key) = key else {
            return session.refuse(open.id, RefuseCode::NotAvailable, "the channel is closed");
        };
        let sink = Arc::new(Sink { hub: Arc::clone(self), key });
        let placed = session.place_send(open, Terms::new(Mode::Demand, self.capacity()), sink);
        let holder = holder.flatten();
        if let Some(holder) = &holder {
            holder.set_session(session, open.id);
        }
        self.attach_receiver(key, placed.chan(), holder);
        if !placed.accept() {
            self.remove_receiver(key, 0);
        }
    }
}

/// Accepts the channels on which a holder says what it does with its deliveries, and hears what became of that.
pub(crate) fn accept_service(session: &Arc<SessionCore>, open: &Open) {
    let unknown = "there are no such deliveries";
    let holder_of = |id: ChannelId| {
        let chan = session.send_chan(id)?;
        let sink = chan.owner_as::<Sink>()?;
        sink.hub.holder(sink.key)
    };
    match open.purpose {
        Purpose::Acks { of } => {
            let Some(holder) = holder_of(of) else {
                return session.refuse(open.id, RefuseCode::NotAvailable, unknown);
            };
            let placed =
                session.place_recv(open, Terms::new(Mode::Credit, holder.asks_max()), holder.clone());
            if holder.set_asks(placed.chan()) {
                placed.accept();
            } else {
                placed.refuse(RefuseCode::NotAvailable, unknown);
            }
        }
        Purpose::Outcomes { of } => {
            let Some(holder) = holder_of(of).filter(|_| open.capacity > 0) else {
                return session.refuse(open.id, RefuseCode::NotAvailable, unknown);
            };
            let terms = Terms::new(Mode::Credit, open.capacity).using(OUTCOMES_MAX);
            let placed = session.place_send(open, terms, holder.clone());
            if holder.set_outcomes(placed.chan()) {
                placed.accept();
            } else {
                placed.refuse(RefuseCode::NotAvailable, unknown);
            }
            // Something may have been asked, or fenced, already.
            holder.moved();
        }
        Purpose::Values | Purpose::Deliveries | Purpose::Subscription { .. } => {
            session.refuse(open.id, RefuseCode::NotAvailable, unknown);
        }
    }
}

/// The queue that the peer sends results into on channel `id`; none that has no places.
pub(super) fn results(session: &SessionCore, id: ChannelId) -> Option<(Arc<Hub>, Arc<RecvChan>)> {
    let chan = session.recv_chan(id).filter(|chan| !chan.is_revoked())?;
    let hub = Arc::clone(&chan.owner_as::<Source>()?.hub);
    (hub.capacity() > 0).then_some((hub, chan))
}
