//! Tasks that wait for what becomes of a channel and of what was sent, rather than to send.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use netchan_proto::channel::Withdrawal;

use super::failure::end_reason;
use super::{Backend, Sender};
use crate::error::{CloseReason, FlushError};
use crate::hub::Hub;
use crate::reentry;
use crate::session::SendChan;
use crate::wait::Ticket;

pub(super) async fn flush(chan: &Arc<SendChan>) -> Result<(), FlushError> {
    let mut asked = None;
    let mut watch = WatchGuard { chan, ticket: None };
    poll_fn(|cx| {
        let mut state = reentry::enter(&chan.state);
        // While values are owed from a session that was lost, their numbers are not known.
        if asked.is_none() && !state.half.is_held() {
            asked = Some((state.half.committed(), state.life));
            state.half.request_report();
            drop(state);
            chan.kick(true);
            state = reentry::enter(&chan.state);
        }
        let outcome = if asked.is_some_and(|(_, life)| state.life != life) {
            Err(FlushError::Lost(state.lost()))
        } else if asked.is_some_and(|(goal, _)| state.half.received() >= goal) {
            Ok(())
        } else if let Some(reason) = state.half.peer_closed() {
            Err(FlushError::Closed(reason.into()))
        } else if let Some(end) = &state.end {
            Err(FlushError::Lost(end.clone()))
        } else {
            state.watchers.wait(&mut watch.ticket, cx.waker());
            return Poll::Pending;
        };
        Poll::Ready(outcome)
    })
    .await
}

pub(super) async fn closed<T: Send + 'static>(sender: &Sender<T>) -> CloseReason {
    match &sender.shared.backend {
        Backend::Wire(handle) => {
            let chan = &handle.0;
            let mut watch = WatchGuard { chan, ticket: None };
            poll_fn(|cx| {
                let mut state = reentry::enter(&chan.state);
                let reason = state.half.closed().map(CloseReason::from);
                if let Some(reason) = reason.or_else(|| state.end.as_ref().map(end_reason)) {
                    return Poll::Ready(reason);
                }
                state.watchers.wait(&mut watch.ticket, cx.waker());
                Poll::Pending
            })
            .await
        }
        Backend::Hub(sender) => {
            let mut watch = HubWatchGuard { hub: &sender.hub, ticket: None };
            poll_fn(|cx| watch.hub.poll_closed(cx, &mut watch.ticket)).await
        }
    }
}

/// Waits until the other end has said how many values may be sent at first, or cannot any more.
pub(crate) async fn greeted(chan: &Arc<SendChan>) {
    let mut watch = WatchGuard { chan, ticket: None };
    poll_fn(|cx| {
        let mut state = reentry::enter(&chan.state);
        if state.half.is_greeted() || state.half.closed().is_some() || state.end.is_some() {
            return Poll::Ready(());
        }
        state.watchers.wait(&mut watch.ticket, cx.waker());
        Poll::Pending
    })
    .await;
}

/// Waits for the outcome of a withdrawal: whether it was withdrawn; `None` when the session ended first.
pub(super) async fn wait_withdrawn(chan: Arc<SendChan>, seq: u64, life: u64) -> Option<bool> {
    let mut watch = WatchGuard { chan: &chan, ticket: None };
    poll_fn(|cx| {
        let mut state = chan.state.lock();
        if state.life != life {
            return Poll::Ready(None);
        }
        let outcome = match state.half.withdraw(seq) {
            Withdrawal::Withdrawn => Some(true),
            Withdrawal::Taken => Some(false),
            Withdrawal::Asked if state.end.is_some() || state.half.peer_closed().is_some() => None,
            Withdrawal::Asked => {
                state.watchers.wait(&mut watch.ticket, cx.waker());
                return Poll::Pending;
            }
        };
        Poll::Ready(outcome)
    })
    .await
}

struct WatchGuard<'a> {
    chan: &'a Arc<SendChan>,
    ticket: Option<Ticket>,
}

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.chan.state.lock().watchers.leave(&mut self.ticket);
        }
    }
}

struct HubWatchGuard<'a> {
    hub: &'a Arc<Hub>,
    ticket: Option<Ticket>,
}

impl Drop for HubWatchGuard<'_> {
    fn drop(&mut self) {
        self.hub.leave_watchers(&mut self.ticket);
    }
}
