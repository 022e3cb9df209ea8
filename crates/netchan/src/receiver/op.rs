//! One receive, from its first poll to its value.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::session::close_code;
use tokio::task::coop;

use super::{Backend, CastReceiver, Receiver, Shared};
use crate::codec::Payload;
use crate::error::{CloseReason, RecvError, SessionEnd};
use crate::hub::{CastNext, Delivered, Hub, VALUE};
use crate::peer::Peer;
use crate::reentry::{self, Busy};
use crate::session::{RecvChan, RecvState};
use crate::wait::Ticket;

/// A program that looks for values without waiting is taken to look again within this time: what comes for it is kept so long.
/// Others that wait can have it called back then.
const LOOKS_AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// A value and what is known of it.
pub(super) struct Taken<T> {
    pub(super) value: T,
    /// Who sent it, where that is not the peer of the channel.
    pub(super) peer: Option<Peer>,
    pub(super) redelivered: bool,
    /// Its number among all that this end of the channel has taken; 0 in a channel hosted here.
    pub(super) number: u64,
}

type Received<T> = Result<Option<Taken<T>>, RecvError>;

/// A receive under way. Dropped, it leaves the queue and passes its turn on.
pub(super) struct RecvOp<'a, T> {
    receiver: &'a Receiver<T>,
    ticket: Option<Ticket>,
    /// News that are no value are left for another receive.
    values_only: bool,
}

impl<'a, T: Send + 'static> RecvOp<'a, T> {
    #[inline]
    pub(super) fn new(receiver: &'a Receiver<T>) -> Self {
        Self { receiver, ticket: None, values_only: false }
    }

    pub(super) fn values_only(receiver: &'a Receiver<T>) -> Self {
        Self { receiver, ticket: None, values_only: true }
    }

    pub(super) fn resumed(receiver: &'a Receiver<T>, ticket: Option<Ticket>) -> Self {
        Self { receiver, ticket, values_only: false }
    }

    /// Keeps the place in the queue for a later poll.
    pub(super) fn suspend(mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// The attempt that does not wait.
    pub(super) fn now(mut self) -> Poll<Received<T>> {
        self.poll_op(None)
    }

    /// Not inlined: what `Recv` polls first must stay small, or the compiler moves every value once more.
    #[inline(never)]
    fn poll_op(&mut self, cx: Option<&Context<'_>>) -> Poll<Received<T>> {
        let shared = &self.receiver.shared;
        match &shared.backend {
            Backend::Wire(handle) => poll_wire(shared, &handle.0, cx, &mut self.ticket, self.values_only),
            Backend::Hub(receiver) => poll_hub(shared, &receiver.hub, cx, &mut self.ticket),
            Backend::Cast(receiver) => poll_cast(shared, receiver, cx, &mut self.ticket, self.values_only),
        }
    }
}

impl<T: Send + 'static> Future for RecvOp<'_, T> {
    type Output = Received<T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let budget = ready!(coop::poll_proceed(cx));
        let result = ready!(self.poll_op(Some(cx)));
        budget.made_progress();
        Poll::Ready(result)
    }
}

impl<T> Drop for RecvOp<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            leave(&self.receiver.shared.backend, &mut self.ticket);
        }
    }
}

/// `recv`: a [`RecvOp`] that drops the sender's name, and looks first whether a value is here.
pub(super) struct Recv<'a, T>(pub(super) RecvOp<'a, T>);

impl<T: Send + 'static> Future for Recv<'_, T> {
    type Output = Result<Option<T>, RecvError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = &self.0.receiver.shared;
        // The fast path: a value is here and nobody waits. All in one piece, because every function that the value is
        // returned through moves it once more.
        if let Backend::Wire(handle) = &shared.backend
            && self.0.ticket.is_none()
            && let Some(mut state) = handle.0.state.try_lock()
            && state.receivers.is_empty()
            && !state.restarted
        {
            let chan = &handle.0;
            let (values, bytes) = (state.half.taken(), state.half.taken_bytes());
            let charge = ready!(state.meter.poll(&mut *cx, values, bytes));
            let report = ReportOnPanic(chan);
            // Moved here so that an unwinding decoder unlocks it before the report is made, which locks it.
            let mut state = state;
            let busy = Busy::under(&chan.state);
            let is_cast = state.is_cast;
            if let Some(mut payload) = state.half.take() {
                if is_cast {
                    match payload {
                        Payload::Slice([VALUE, value @ ..]) => payload = Payload::Slice(value),
                        other => {
                            let result = shared.decode_cast(other);
                            drop(busy);
                            std::mem::forget(report);
                            let urgency = state.half.urgency();
                            drop(state);
                            chan.report(urgency);
                            charge.made_progress();
                            return Poll::Ready(result.map(Some));
                        }
                    }
                }
                let mut cx = shared.limits.decoding(&shared.name);
                let result = shared.codec.decode(payload, &mut cx);
                drop(busy);
                std::mem::forget(report);
                let urgency = state.half.urgency();
                drop(state);
                if urgency > Urgency::None {
                    chan.report(urgency);
                }
                charge.made_progress();
                return match result {
                    Ok(value) => Poll::Ready(Ok(Some(value))),
                    Err(error) => Poll::Ready(Err(shared.undecodable(error))),
                };
            }
            std::mem::forget(report);
        }
        let budget = ready!(coop::poll_proceed(cx));
        let result = ready!(self.0.poll_op(Some(cx)));
        budget.made_progress();
        Poll::Ready(result.map(|received| received.map(|taken| taken.value)))
    }
}

#[inline]
fn poll_wire<T: 'static>(
    shared: &Shared<T>,
    chan: &Arc<RecvChan>,
    cx: Option<&Context<'_>>,
    ticket: &mut Option<Ticket>,
    values_only: bool,
) -> Poll<Received<T>> {
    let _report = ReportOnPanic(chan);
    let Some(mut state) = reentry::lock(&chan.state) else {
        // Deserialize receives from the channel that its own value came on: there is nothing it could wait for.
        return Poll::Ready(Ok(None));
    };
    if values_only && (state.restarted || state.is_cast && state.half.peek_byte() != Some(VALUE)) {
        return Poll::Pending;
    }
    let ahead = state.receivers.ahead_of(*ticket) as u64;
    if state.restarted && ahead == 0 {
        state.restarted = false;
        state.receivers.leave(ticket);
        let ready = state.half.ready();
        state.receivers.wake_front(ready);
        return Poll::Ready(Err(RecvError::Restarted));
    }
    if state.half.ready() > ahead {
        if ticket.is_some() {
            state.receivers.leave(ticket);
        }
        if matches!(state.half.kind(), WindowKind::Demand { .. }) {
            let waiting = state.receivers.len() as u64;
            state.half.set_waiting(waiting);
        }
        let is_cast = state.is_cast;
        let value = {
            let _busy = Busy::under(&chan.state);
            let decode = |payload| if is_cast { shared.decode_cast(payload) } else { shared.decode(payload) };
            state.half.take().map(decode)
        };
        let redelivered = state.half.took_redelivered();
        let number = state.half.taken().saturating_sub(1);
        if !state.receivers.is_empty() && state.half.ended().is_some() {
            // That was the last value: nothing else would tell the others.
            state.receivers.wake_all();
        }
        if state.half.has_excess() {
            // What came for a receive that has left goes to others.
            chan.note_idle(&state);
        }
        let urgency = state.half.urgency();
        drop(state);
        if urgency > Urgency::None {
            chan.report(urgency);
        }
        return Poll::Ready(
            value
                .transpose()
                .map(|value| value.map(|value| Taken { value, peer: None, redelivered, number })),
        );
    }
    if let Some(outcome) = over(&state) {
        state.receivers.leave(ticket);
        return Poll::Ready(outcome.map(|()| None));
    }
    state.half.trim();
    if state.drains {
        state.drains = false;
        drop(state);
        chan.core.drained(chan);
        return poll_wire(shared, chan, cx, ticket, values_only);
    }
    if cx.is_none() && !values_only {
        chan.ask(&mut state, 1, LOOKS_AGAIN_WITHIN);
    }
    if let Some(cx) = cx {
        state.receivers.wait(ticket, cx.waker());
        if matches!(state.half.kind(), WindowKind::Demand { .. }) {
            let waiting = state.receivers.len() as u64;
            state.half.set_waiting(waiting);
        }
    }
    let urgency = state.half.urgency();
    drop(state);
    if urgency > Urgency::None {
        chan.report(urgency);
    }
    Poll::Pending
}

/// A value counts as taken even if its decoder panics: the sender hears of it.
struct ReportOnPanic<'a>(&'a Arc<RecvChan>);

impl Drop for ReportOnPanic<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(mut state) = reentry::lock(&self.0.state)
        {
            let taken = state.half.taken();
            state.half.settle(taken);
            if state.half.ended().is_some() {
                state.receivers.wake_all();
            }
            let urgency = state.half.urgency();
            drop(state);
            self.0.report(urgency);
        }
    }
}

/// Whether nothing more will come, and how that is to be told.
fn over(state: &RecvState) -> Option<Result<(), RecvError>> {
    if let Some(reason) = state.half.ended() {
        return Some(match reason.code {
            close_code::LAGGED if state.is_cast => Err(RecvError::TooSlow(reason.into())),
            close_code::DENIED => Err(RecvError::Denied),
            _ => Ok(()),
        });
    }
    match &state.end {
        None => None,
        Some(end) if end.is_plain() => Some(Ok(())),
        Some(end) => Some(Err(RecvError::Lost(end.clone()))),
    }
}

fn poll_hub<T: 'static>(
    shared: &Shared<T>,
    hub: &Arc<Hub>,
    cx: Option<&Context<'_>>,
    ticket: &mut Option<Ticket>,
) -> Poll<Received<T>> {
    match ready!(hub.poll_recv(cx, ticket)) {
        Some(Delivered { bytes, peer, redelivered, .. }) => {
            let value = shared.decode(Payload::Owned(bytes));
            Poll::Ready(value.map(|value| Some(Taken { value, peer: Some(peer), redelivered, number: 0 })))
        }
        None => Poll::Ready(Ok(None)),
    }
}

fn poll_cast<T: 'static>(
    shared: &Shared<T>,
    receiver: &CastReceiver,
    cx: Option<&Context<'_>>,
    ticket: &mut Option<Ticket>,
    values_only: bool,
) -> Poll<Received<T>> {
    let CastReceiver { cast, key } = receiver;
    Poll::Ready(match ready!(cast.poll_recv(*key, cx, ticket, values_only)) {
        CastNext::Value(bytes) => {
            let value = shared.decode(Payload::Owned(bytes));
            value.map(|value| Some(Taken { value, peer: None, redelivered: false, number: 0 }))
        }
        CastNext::Lagged(lost) => Err(RecvError::Lagged(lost)),
        CastNext::Expelled(reason) => Err(RecvError::TooSlow(reason)),
        CastNext::End => Ok(None),
    })
}

/// Leaves the queue and passes the turn on.
pub(super) fn leave(backend: &Backend, ticket: &mut Option<Ticket>) {
    if ticket.is_none() {
        return;
    }
    match backend {
        Backend::Wire(handle) => {
            let chan = &handle.0;
            let mut state = chan.state.lock();
            state.receivers.leave(ticket);
            let ready = state.half.ready();
            state.receivers.wake_front(ready);
            let waiting = state.receivers.len() as u64;
            state.half.set_waiting(waiting);
            if waiting == 0 {
                chan.note_idle(&state);
            }
        }
        Backend::Hub(receiver) => receiver.hub.leave_receivers(ticket),
        Backend::Cast(CastReceiver { cast, key }) => cast.leave_receivers(*key, ticket),
    }
}

pub(super) fn close_reason(state: &RecvState) -> Option<CloseReason> {
    let closed = state.half.ended().or(state.half.peer_closed()).map(CloseReason::from);
    closed.or_else(|| {
        state.end.as_ref().map(|end| match end {
            SessionEnd::ClosedByPeer(reason) => reason.clone(),
            end => CloseReason::new(0, end.to_string()),
        })
    })
}

pub(super) async fn closed<T: Send + 'static>(receiver: &Receiver<T>) -> CloseReason {
    let mut watch = Watch { backend: &receiver.shared.backend, ticket: None };
    poll_fn(|cx| match watch.backend {
        Backend::Wire(handle) => {
            let mut state = handle.0.state.lock();
            if let Some(reason) = close_reason(&state) {
                return Poll::Ready(reason);
            }
            state.watchers.wait(&mut watch.ticket, cx.waker());
            Poll::Pending
        }
        Backend::Hub(receiver) => receiver.hub.poll_closed(cx, &mut watch.ticket),
        Backend::Cast(receiver) => receiver.cast.poll_closed(cx, &mut watch.ticket),
    })
    .await
}

struct Watch<'a> {
    backend: &'a Backend,
    ticket: Option<Ticket>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            match self.backend {
                Backend::Wire(handle) => _ = handle.0.state.lock().watchers.leave(&mut self.ticket),
                Backend::Hub(receiver) => receiver.hub.leave_watchers(&mut self.ticket),
                Backend::Cast(receiver) => receiver.cast.leave_watchers(&mut self.ticket),
            }
        }
    }
}
