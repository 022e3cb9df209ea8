//! The ends of channels at which a queue is, in place of the program, and how they are accepted.

use std::sync::Arc;

use netchan_proto::exchange::{Moved, NoPlace};
use netchan_proto::hosted::{ReceiverKey, SenderKey};
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Mode, Open, Purpose, RefuseCode};

use super::{Holder, Hub, timer};
use crate::error::SessionEnd;
use crate::patience;
use crate::peer::Peer;
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
        self.hub.run(|queue, out| queue.values_arrived(self.key, out));
        let urgency = patience::lock(&chan.state).half.urgency();
        chan.report(urgency);
    }

    fn wanted(&self, limit: u64) {
        self.hub.run(|queue, out| queue.wanted(self.key, limit, out));
    }

    fn yielded(&self, limit: u64) {
        self.hub.run(|queue, out| queue.yielded(self.key, limit, out));
    }

    fn lease_told(&self, limit: u64) {
        self.hub.run(|queue, out| queue.resume_source(self.key, limit, out));
    }

    fn withdraw_asked(&self, seq: u64) {
        self.hub.run(|queue, out| queue.withdraw_asked(self.key, seq, out));
    }

    fn detached(&self, _: bool) {
        self.hub.run(|queue, out| queue.suspend_source(self.key, out));
    }

    fn finished(&self, _: u64) {
        self.hub.run(|queue, out| queue.remove_source(self.key, out));
    }

    fn ended(&self, _: &SessionEnd, _: u64) {
        self.hub.run(|queue, out| queue.remove_source(self.key, out));
    }
}

/// A client that receives from the queue.
struct Sink {
    hub: Arc<Hub>,
    key: ReceiverKey,
}

impl Sink {
    /// The channel is closed. Who acknowledges what it took has more to say.
    fn leave(&self) {
        match self.hub.holder(self.key) {
            Some(holder) => holder.retire(),
            None => self.hub.run(|queue, out| queue.close_sink(self.key, out)),
        }
    }

    fn remove(&self, taken: u64, orderly: bool) {
        self.hub.run(|queue, out| queue.remove_sink(self.key, taken, orderly, out));
    }
}

impl Owner for Sink {
    fn writable(self: Arc<Self>, chan: &Arc<SendChan>, at: Position) {
        if at.closed {
            return self.leave();
        }
        let moved = Moved {
            limit: at.limit,
            taken: at.taken,
            may_send: at.may_send,
            now_micros: self.hub.micros(),
            round_trip_micros: chan.core.round_trip_micros(),
        };
        self.hub.run(|queue, out| {
            queue.sink_moved(self.key, moved, out);
        });
    }

    fn attached(&self) {
        self.hub.run(|queue, out| queue.sink_attached(self.key, out));
    }

    fn rewind_asked(&self, limit: u64) {
        self.hub.run(|queue, out| queue.rewound(self.key, limit, out));
    }

    fn detached(&self, replaced: bool) {
        self.hub.suspend_sink(self.key, replaced);
    }

    fn finished(&self, _: u64) {
        self.leave();
    }

    fn ended(&self, end: &SessionEnd, taken: u64) {
        self.remove(taken, end.is_orderly());
    }

    fn revoked(&self, taken: u64) {
        self.remove(taken, false);
    }

    fn takes_back(&self) -> bool {
        true
    }

    fn outlasts_close(&self) -> bool {
        self.hub.holder(self.key).is_some()
    }

    fn unacked(&self) -> u64 {
        self.hub.queue.lock().policy().unacked_of(self.key)
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

    fn ended(&self, end: &SessionEnd, _: u64) {
        self.leave(end.is_orderly());
    }

    fn revoked(&self, _: u64) {
        self.leave(false);
    }

    fn backlog(&self) -> Option<u64> {
        None
    }
}

/// Says why there is no place.
pub(super) fn reason_of(no_place: NoPlace) -> (RefuseCode, String) {
    match no_place {
        NoPlace::Finished => (RefuseCode::NotAvailable, "the channel is closed".to_owned()),
        NoPlace::TooMany => (
            RefuseCode::LimitReached,
            "this key has as many receivers of the channel as it may have (SUBSCRIPTIONS_PER_KEY_MAX)"
                .to_owned(),
        ),
        NoPlace::Stopped { millis } => (
            RefuseCode::LimitReached,
            format!(
                "a client with this key was stopped here for holding up others; try again in {millis} ms"
            ),
        ),
    }
}

fn refuse(session: &Arc<SessionCore>, id: ChannelId, no_place: NoPlace) {
    let (code, reason) = reason_of(no_place);
    session.refuse(id, code, reason);
}

/// What is counted together of a client's: its key.
pub(super) fn client_of(peer: &Peer) -> Option<u128> {
    let fingerprint = peer.fingerprint()?;
    fingerprint.0.first_chunk().map(|bytes| u128::from_be_bytes(*bytes))
}

impl Hub {
    pub(super) fn suspend_sink(&self, key: ReceiverKey, replaced: bool) {
        let grace = timer::millis_of(self.spec.deliveries.grace);
        // What is due at the end of a millisecond is due.
        let fence_at = (!replaced).then(|| self.millis().saturating_add(grace).saturating_add(1));
        self.run(|queue, out| queue.suspend_sink(key, fence_at, out));
    }

    pub(super) fn accept_sender(self: &Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        let client = client_of(&session.peer());
        let key = match self.run(|queue, _| queue.add_source(client)) {
            Ok(key) => key,
            Err(no_place) => return refuse(session, open.id, no_place),
        };
        let mode = if self.capacity() == 0 { Mode::Rendezvous } else { Mode::Lease };
        let source = Arc::new(Source { hub: Arc::clone(self), key });
        let placed = session.place_recv(open, Terms::new(mode, self.capacity()), source);
        let (chan, peer) = (Arc::clone(placed.chan()), session.peer());
        self.run(|queue, _| queue.attach_source(key, chan, peer, client));
        let accepted = placed.accept();
        self.run(|queue, out| match accepted {
            true => queue.greet_source(key, out),
            false => queue.remove_source(key, out),
        });
    }

    pub(super) fn accept_receiver(self: &Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        if matches!(open.purpose, Purpose::Subscription { .. }) {
            let reason = "this channel is a queue, not a broadcast; leave out ChannelOptions::when_slow";
            return session.refuse(open.id, RefuseCode::WrongDirection, reason);
        }
        let peer = session.peer();
        let client = client_of(&peer);
        let holds = (open.purpose == Purpose::Deliveries).then(|| self.holder_options());
        let key = match self.run(|queue, _| queue.add_sink(client, holds)) {
            Ok(key) => key,
            Err(no_place) => return refuse(session, open.id, no_place),
        };
        let sink = Arc::new(Sink { hub: Arc::clone(self), key });
        // An offer is taken by a receive that waits, so nothing of a rendezvous goes ahead.
        let ahead = if self.capacity() == 0 { 0 } else { open.ahead_max() };
        let placed = session.place_send(open, Terms::new(Mode::Demand, self.capacity()).ahead(ahead), sink);
        if holds.is_some() {
            let holder = Holder::new(self, key, session, open.id);
            self.holders.lock().insert(key, holder);
        }
        let chan = Arc::clone(placed.chan());
        self.run(|queue, _| queue.attach_sink(key, chan, peer, client, ahead > 0));
        let accepted = placed.accept();
        self.run(|queue, out| match accepted {
            true => queue.greet_sink(key, out),
            false => queue.remove_sink(key, 0, true, out),
        });
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
pub(super) fn results_of(session: &SessionCore, id: ChannelId) -> Option<(Arc<Hub>, Arc<RecvChan>)> {
    let chan = session.recv_chan(id).filter(|chan| !chan.is_revoked())?;
    let hub = Arc::clone(&chan.owner_as::<Source>()?.hub);
    (hub.capacity() > 0).then_some((hub, chan))
}
