//! The remote ends of a broadcast.

use std::sync::{Arc, OnceLock, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::exchange::NoPlace;
use netchan_proto::hosted::{NotSent, ReceiverKey, WhenSlow};
use netchan_proto::wire::{Mode, Open};
use parking_lot::Mutex;

use super::super::Engine;
use super::super::ends::reason_of;
use super::super::turn::OneAtATime;
use super::{Cast, VALUE};
use crate::error::SessionEnd;
use crate::session::{Owner, Position, RecvChan, SendChan, SessionCore, Terms};

impl Cast {
    /// Accepts a client that receives.
    pub(super) fn accept_subscriber(
        self: &Arc<Self>,
        session: &Arc<SessionCore>,
        open: &Open,
        when_slow: WhenSlow,
    ) {
        // Beyond what the log holds, it would hold more than the log.
        let capacity = open.capacity.clamp(1, self.capacity());
        let subscription = Subscription::new(self);
        let placed = session.place_send(open, Terms::new(Mode::Cast, capacity), subscription.clone());
        if let Err(no_place) = subscription.begin(when_slow, placed.chan()) {
            let (code, reason) = reason_of(no_place);
            return placed.refuse(code, &reason);
        }
        if !placed.accept() {
            return subscription.leave();
        }
        subscription.serve();
    }

    /// Accepts a client that sends.
    pub(super) fn accept_inlet(self: &Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        let inlet = Inlet::new(self);
        let placed = session.place_recv(open, Terms::new(Mode::Credit, self.capacity()), inlet.clone());
        _ = inlet.chan.set(Arc::downgrade(placed.chan()));
        placed.accept();
    }
}

/// A client that receives.
pub(crate) struct Subscription {
    cast: Arc<Cast>,
    key: OnceLock<ReceiverKey>,
}

impl Subscription {
    fn new(cast: &Arc<Cast>) -> Arc<Self> {
        Arc::new(Self { cast: Arc::clone(cast), key: OnceLock::new() })
    }

    /// It is served on this channel from here on.
    fn begin(&self, when_slow: WhenSlow, chan: &Arc<SendChan>) -> Result<(), NoPlace> {
        let key = self.cast.subscribe_remote(when_slow, chan)?;
        _ = self.key.set(key);
        Ok(())
    }

    fn serve(&self) {
        if let Some(key) = self.key.get() {
            self.cast.serve(*key);
        }
    }

    fn leave(&self) {
        if let Some(key) = self.key.get() {
            self.cast.unsubscribe(*key);
        }
    }
}

impl Owner for Subscription {
    fn writable(self: Arc<Self>, _: &Arc<SendChan>, _: Position) {
        self.serve();
    }

    fn ended(&self, _: &SessionEnd, _: u64) {
        self.leave();
    }

    fn backlog(&self) -> Option<u64> {
        Some(self.key.get().map_or(0, |key| self.cast.behind(*key)))
    }
}

/// A client that sends.
pub(crate) struct Inlet {
    cast: Arc<Cast>,
    /// The session has it.
    chan: OnceLock<Weak<RecvChan>>,
    /// A value that found no room, its number, and its channel: that must stay, even if its session ends, because whoever
    /// closed the session was told that the value had arrived.
    waiting: Mutex<Option<(u64, Bytes, Arc<RecvChan>)>>,
    /// For [`Inlet::work`].
    turn: OneAtATime,
}

impl Inlet {
    fn new(cast: &Arc<Cast>) -> Arc<Self> {
        Arc::new(Self {
            cast: Arc::clone(cast),
            chan: OnceLock::new(),
            waiting: Mutex::default(),
            turn: OneAtATime::default(),
        })
    }

    /// Passes on what is here, as far as there is room. One task at a time does it, for all that call meanwhile.
    pub(super) fn work(self: Arc<Self>) {
        let Some(chan) = self.chan.get().and_then(Weak::upgrade) else { return };
        if !self.turn.run(|| self.pass_on(&chan)) {
            return;
        }
        let urgency = chan.state.lock().half.urgency();
        chan.report(urgency);
    }

    fn pass_on(self: &Arc<Self>, chan: &Arc<RecvChan>) {
        loop {
            let waiting = self.waiting.lock().take();
            let next = waiting.map(|(number, bytes, _)| (number, bytes)).or_else(|| {
                let handed = chan.state.lock().half.hand_over();
                handed.map(|(number, bytes)| (number, headed(&bytes)))
            });
            let Some((number, bytes)) = next else { break };
            match self.cast.relay(&bytes, self) {
                // It counts as taken now.
                Ok(()) => chan.state.lock().half.settle(number + 1),
                Err(NotSent::Full) => {
                    *self.waiting.lock() = Some((number, bytes, Arc::clone(chan)));
                    break;
                }
                Err(NotSent::Closed | NotSent::TooManyAssigned) => {
                    // Nobody got this one, and its sender is not told that somebody did.
                    let reason = self.cast.closed().map_or_else(ProtoReason::plain, Into::into);
                    chan.refuse(number, reason);
                    break;
                }
            }
        }
    }
}

/// A value as subscribers get it.
fn headed(value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + value.len());
    bytes.put_u8(VALUE);
    bytes.put_slice(value);
    bytes.freeze()
}

impl Owner for Inlet {
    fn readable(self: Arc<Self>, _: &Arc<RecvChan>) {
        self.work();
    }

    fn ended(&self, _: &SessionEnd, _: u64) {}

    fn backlog(&self) -> Option<u64> {
        Some(u64::from(self.waiting.lock().is_some()))
    }
}
