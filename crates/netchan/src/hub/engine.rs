//! What stands behind a name that a server hosts.

use std::sync::Arc;

use netchan_proto::wire::{Open, OpenFlow};

use super::{Hub, HubSpec};
use crate::error::CloseReason;
use crate::session::SessionCore;
use crate::transport::BoxFuture;

/// Decides who gets what of the values of one name: a queue ([`Hub`]) or a broadcast ([`Cast`](super::Cast)). The seam at
/// which another engine can take their place.
pub(crate) trait Engine: Send + Sync + 'static {
    /// What it is hosted as.
    fn spec(&self) -> &HubSpec;

    /// Why it takes no more values, if so.
    fn closed(&self) -> Option<CloseReason>;

    /// Answers a client that opens it; type, codec and direction fit.
    fn open(self: Arc<Self>, session: &Arc<SessionCore>, open: &Open);

    /// No more values come in, those that are here go out.
    fn close(&self, reason: CloseReason);

    /// What is here is dropped, and everyone is told.
    fn abort(&self, reason: CloseReason);

    /// Completes when it is closed and nothing is in it any more.
    fn drained(&self) -> BoxFuture<'_, ()>;

    /// Values here that nobody is known to have taken.
    fn untaken(&self) -> u64;

    /// What is in it.
    fn survey(&self) -> HostedInfo;

    /// Where values go that nobody acknowledges, if anywhere.
    fn dead_letters(&self) -> Option<Arc<Hub>> {
        None
    }
}

/// A hosted channel, and what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostedInfo {
    /// Its name.
    pub name: String,
    /// Its capacity.
    pub capacity: u64,
    /// Whether every receiver gets every value.
    pub broadcast: bool,
    /// Values that were sent into it, so far.
    pub values: u64,
    /// In a broadcast: values of which subscribers were told that they had lost them, so far.
    pub lagged: u64,
    /// Values that wait: in the queue, or, in a broadcast, for the subscriber that is furthest behind.
    pub depth: u64,
    /// Values on their way to receivers and not known taken.
    pub in_flight: u64,
    /// Values that clients hold and have not acknowledged, or that wait to be tried again.
    pub unacked: u64,
    /// Values that were handed out again, so far.
    pub redelivered: u64,
    /// Values that nobody acknowledged in as many attempts as they may have, so far.
    pub dead: u64,
    /// Credit that nobody holds.
    pub credit: u64,
    /// Receives that wait; in a broadcast, subscribers.
    pub receivers: u64,
    /// Senders that wait for credit.
    pub senders_waiting: u64,
    /// Bytes of all values here.
    pub bytes: u64,
    /// How many there may be before senders wait (`ChannelOptions::queue_bytes_max`).
    pub bytes_max: u64,
}

/// Who hosts a channel, and hears of its end; called with no lock of the channel held.
pub(crate) trait Keeper: Send + Sync {
    /// Where its tasks run, if it has any.
    fn runtime(&self) -> Option<tokio::runtime::Handle> {
        None
    }
    /// No more values come in: nobody else need open it.
    fn closed(&self, engine: &dyn Engine);
    /// Nothing is in it any more.
    fn finished(&self, engine: &dyn Engine);
}

/// Nobody hosts a channel of dead values: it ends with the channel that they come from.
pub(super) struct Nobody;

impl Keeper for Nobody {
    fn closed(&self, _: &dyn Engine) {}

    fn finished(&self, _: &dyn Engine) {}
}

impl Engine for Hub {
    fn spec(&self) -> &HubSpec {
        &self.spec
    }

    fn closed(&self) -> Option<CloseReason> {
        self.closed()
    }

    fn open(self: Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        match open.flow {
            OpenFlow::OpenerSends => self.accept_sender(session, open),
            OpenFlow::OpenerReceives => self.accept_receiver(session, open),
        }
    }

    fn close(&self, reason: CloseReason) {
        self.close(reason);
    }

    fn abort(&self, reason: CloseReason) {
        self.abort(reason);
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.wait_drained())
    }

    fn untaken(&self) -> u64 {
        self.untaken()
    }

    fn survey(&self) -> HostedInfo {
        self.survey()
    }

    fn dead_letters(&self) -> Option<Arc<Hub>> {
        self.dead().cloned()
    }
}
