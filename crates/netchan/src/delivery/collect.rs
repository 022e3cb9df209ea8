//! Receiving with acknowledgement from a queue of this process.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::hosted::ReceiverKey;
use netchan_proto::session::close_code;
use netchan_proto::wire::Handed;
use tokio::sync::{oneshot, watch};
use tokio::task::coop;

use super::UNDECODABLE_PAUSE;
use super::ack::Asked;
use super::desk::outcome_of;
use super::failures::Failures;
use super::receipt::{Delivery, Holder, Receipt};
use super::slots::About;
use crate::codec::{Codec, Payload};
use crate::error::{AckError, CloseReason, RecvError};
use crate::hub::{Delivered, Hub};
use crate::limits::MessageLimits;
use crate::sender::Sender;
use crate::wait::Ticket;

/// Results that wait for places, by the order in which they were given.
#[derive(Default)]
struct UnderWay {
    next: u64,
    open: BTreeSet<u64>,
}

/// The server's own hold on the receiving side of a channel that it hosts. Clients cannot receive there: once this is dropped,
/// with the last handle and the last delivery, nobody can, and the channel ends.
pub(super) struct Collector {
    pub(super) hub: Arc<Hub>,
    pub(super) key: ReceiverKey,
    limits: MessageLimits,
    received: AtomicU64,
    pub(super) failures: Arc<Failures>,
    under_way: watch::Sender<UnderWay>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.hub.remove_local_holder(self.key);
        self.hub.abort(CloseReason::new(close_code::DROPPED, "the receiver was dropped"));
    }
}

impl Collector {
    pub(super) fn new(hub: Arc<Hub>, limits: MessageLimits) -> Arc<Self> {
        let key = hub.add_local_holder();
        let (received, failures) = (AtomicU64::new(0), Arc::default());
        Arc::new(Self { hub, key, limits, received, failures, under_way: watch::Sender::default() })
    }

    pub(super) fn ack(&self, number: u64) -> Result<(), AckError> {
        held(self.hub.ack_locally(self.key, number))
    }

    pub(super) fn nack(&self, number: u64, delay: Option<Duration>) -> Result<(), AckError> {
        held(self.hub.nack_locally(self.key, number, delay))
    }

    pub(super) fn extend(&self, number: u64, time: Duration) -> Result<(), AckError> {
        held(self.hub.extend_locally(self.key, number, time))
    }

    /// Waits until every result so far is committed, or is not to be.
    pub(super) async fn flush(&self) {
        let mut under_way = self.under_way.subscribe();
        let before = under_way.borrow().next;
        let done = |under_way: &UnderWay| under_way.open.first().is_none_or(|first| *first >= before);
        // The sender is here, so it is not closed.
        _ = under_way.wait_for(done).await;
    }

    pub(super) async fn recv<T: 'static>(
        self: &Arc<Self>,
        codec: &dyn Codec<T>,
    ) -> Result<Option<Delivery<T>>, RecvError> {
        let mut waiting = Waiting { collector: self, ticket: None };
        let Some(Delivered { bytes, redelivered, attempts, number, .. }) =
            poll_fn(|cx| waiting.poll(cx)).await
        else {
            return Ok(None);
        };
        let id = self.received.fetch_add(1, Ordering::Relaxed);
        let handed = Handed { attempts, redelivered };
        // Before the value is decoded: should that panic, it goes back.
        let receipt = Receipt::new(Holder::Here(Arc::clone(self)), number, id, handed);
        let name = &self.hub.spec.name;
        match codec.decode(Payload::Owned(bytes), &mut self.limits.decoding(name)) {
            Ok(value) => Ok(Some(Delivery { value, receipt })),
            Err(error) => {
                receipt.give_back(UNDECODABLE_PAUSE);
                Err(RecvError::Decode { channel: name.to_string(), error })
            }
        }
    }

    /// Commits a result and acknowledges, in one step. What finds no place at once has its turn, and a task waits for it.
    pub(super) fn ack_with<R: Send + 'static>(
        self: &Arc<Self>,
        about: About,
        results: &Sender<R>,
        value: &R,
    ) -> Asked {
        let known = |outcome| Asked::known(&self.failures, about, outcome);
        let Some(hub) = results.hub().filter(|hub| hub.capacity() > 0) else {
            return known(Err(AckError::NoResults));
        };
        let value = match results.encode_alone(value) {
            Ok(value) => value,
            Err(error) => return known(Err(AckError::Result(error))),
        };
        let (collector, results, hold) = (Arc::clone(self), Arc::clone(hub), results.hold());
        let mut commit =
            Commit { collector, number: about.number, results, value, ticket: None, _hold: hold };
        if let Poll::Ready(outcome) = commit.poll_commit(&Context::from_waker(Waker::noop())) {
            return known(outcome);
        }
        let Some(runtime) = self.hub.runtime() else { return known(Err(AckError::NoResults)) };
        let (tell, outcome) = oneshot::channel();
        let mut seq = 0;
        self.under_way.send_modify(|under_way| {
            seq = under_way.next;
            under_way.next += 1;
            under_way.open.insert(seq);
        });
        let done = Done { collector: Arc::clone(self), seq };
        runtime.spawn(async move {
            let outcome = commit.await;
            if matches!(outcome, Err(AckError::ResultsClosed | AckError::NoResults)) {
                // It is still this program's, which has said that it is through with it.
                _ = done.collector.nack(about.number, None);
            }
            if let Err(Err(reason)) = tell.send(outcome) {
                done.collector.failures.note(about.id, reason);
            }
            drop(done);
        });
        Asked::here(&self.failures, about, outcome)
    }
}

const fn held(held: bool) -> Result<(), AckError> {
    if held { Ok(()) } else { Err(AckError::Fenced) }
}

/// A receive that waits. Dropped, it leaves its place in the line.
struct Waiting<'a> {
    collector: &'a Collector,
    ticket: Option<Ticket>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivered>> {
        let budget = ready!(coop::poll_proceed(cx));
        let Collector { hub, key, .. } = self.collector;
        let delivered = ready!(hub.poll_delivery(*key, cx, &mut self.ticket));
        budget.made_progress();
        Poll::Ready(delivered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.collector.hub.leave_deliveries(self.collector.key, &mut self.ticket);
    }
}

/// A result that waits for its place. Dropped, it leaves that.
struct Commit {
    collector: Arc<Collector>,
    number: u64,
    results: Arc<Hub>,
    value: Bytes,
    ticket: Option<Ticket>,
    /// Keeps the channel of the results open.
    _hold: Arc<dyn Send + Sync>,
}

impl Commit {
    fn poll_commit(&mut self, cx: &Context<'_>) -> Poll<Result<(), AckError>> {
        let Collector { hub, key, .. } = &*self.collector;
        let held = (*key, self.number);
        let verdict = ready!(hub.poll_ack_with(held, &self.results, &self.value, &mut self.ticket, cx));
        Poll::Ready(outcome_of(verdict))
    }
}

impl Future for Commit {
    type Output = Result<(), AckError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_commit(cx)
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        self.results.leave_senders(&mut self.ticket);
    }
}

/// A result is committed, or is not to be, also when its task goes with the runtime.
struct Done {
    collector: Arc<Collector>,
    seq: u64,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.collector.under_way.send_modify(|under_way| _ = under_way.open.remove(&self.seq));
    }
}
