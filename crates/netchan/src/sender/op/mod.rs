//! One send, from its first poll to its outcome.

mod here;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::channel::{Pushed, Withdrawal};
use netchan_proto::hosted::SenderKey;
use netchan_proto::wire::Mode;
use tokio::task::coop;

use super::failure::Failure;
use super::watch::wait_withdrawn;
use super::{Backend, Expired, Sender, Shared, in_doubt};
use crate::error::{SendError, SendTimeoutError, TrySendError};
use crate::hub::{Hub, OfferOutcome};
use crate::reentry::{self, Busy};
use crate::session::{SendChan, SendState};
use crate::wait::Ticket;

/// What a thread keeps to encode into.
const SCRATCH_BYTES_MAX: usize = 64 * 1_024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How long an offer whose time is over waits for the peer to say that it is withdrawn.
const WITHDRAW_WAIT: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// For a place, or the turn to offer.
    Waiting,
    /// On offer to the peer (capacity 0), or committed and to be acknowledged.
    Out(u64),
    /// On offer in a channel hosted here.
    Offered(SenderKey),
    Done,
}

/// A send under way. Dropped, it leaves the queue and withdraws its offer.
pub(super) struct SendOp<'a, T> {
    sender: &'a Sender<T>,
    value: Option<T>,
    /// The value encoded for a channel hosted here.
    bytes: Option<Bytes>,
    ticket: Option<Ticket>,
    watch: Option<Ticket>,
    stage: Stage,
    acked: bool,
    /// The channel's, when the value was committed.
    life: u64,
}

impl<T> Unpin for SendOp<'_, T> {}

impl<'a, T: Send + 'static> SendOp<'a, T> {
    #[inline]
    pub(super) fn new(sender: &'a Sender<T>, value: T) -> Self {
        Self {
            sender,
            value: Some(value),
            bytes: None,
            ticket: None,
            watch: None,
            stage: Stage::Waiting,
            acked: false,
            life: 0,
        }
    }

    pub(super) fn acked(sender: &'a Sender<T>, value: T) -> Self {
        let mut op = Self::new(sender, value);
        op.acked = true;
        op
    }

    /// The attempt that does not wait.
    pub(super) fn now(mut self) -> Result<(), TrySendError<T>> {
        let result = match &self.sender.shared.backend {
            Backend::Wire(handle) => {
                let chan = &handle.0;
                let Some(state) = reentry::lock(&chan.state) else {
                    return Err(self.try_error(Failure::Reentrant));
                };
                let rendezvous = state.half.mode() == Mode::Rendezvous;
                if rendezvous && state.half.closed().is_none() && state.end.is_none() {
                    Poll::Pending
                } else {
                    self.poll_commit(None, chan, state)
                }
            }
            Backend::Hub(sender) if sender.hub.capacity() == 0 => match sender.hub.closed() {
                Some(reason) => Poll::Ready(Err(Failure::Closed(reason))),
                None => Poll::Pending,
            },
            Backend::Hub(sender) => self.poll_acquire(None, &sender.hub),
        };
        match result {
            Poll::Ready(Ok(_)) => Ok(()),
            Poll::Ready(Err(failure)) => Err(self.try_error(failure)),
            Poll::Pending => {
                self.stage = Stage::Done;
                match self.value.take() {
                    Some(value) => Err(TrySendError::Full(value)),
                    None => Ok(()),
                }
            }
        }
    }

    fn try_error(&mut self, failure: Failure) -> TrySendError<T> {
        self.stage = Stage::Done;
        TrySendError::Send(self.error(failure))
    }

    /// The time is over: the value comes back, or its outcome is to be awaited.
    pub(super) async fn expire(mut op: Pin<Box<Self>>) -> Expired<T> {
        let sender = op.sender;
        let stage = std::mem::replace(&mut op.stage, Stage::Done);
        let mut ticket = op.ticket.take();
        match &sender.shared.backend {
            Backend::Wire(handle) => leave(&handle.0, &mut ticket),
            Backend::Hub(sender) => sender.hub.leave_senders(&mut ticket),
        }
        let Some(value) = op.value.take() else { return Ok(()) };
        let early = match (stage, &sender.shared.backend) {
            (Stage::Out(seq), Backend::Wire(handle)) => {
                let chan = Arc::clone(&handle.0);
                let withdrawal = {
                    let mut state = chan.state.lock();
                    if state.knows_taken(op.life, seq) {
                        state.claims.drop_stake(op.life, seq);
                        return Ok(());
                    }
                    if state.life != op.life {
                        let failure = op.lost(&chan, &mut state, seq);
                        return Err(SendTimeoutError::Send(failure.with(value)));
                    }
                    let withdrawal = state.half.withdraw(seq);
                    let kept = withdrawal == Withdrawal::Withdrawn && state.half.peer_closed().is_some();
                    if withdrawal == Withdrawal::Asked || kept {
                        // The value goes back from here, whatever becomes of the offer.
                        state.give_back(op.life, seq);
                    } else {
                        state.claims.drop_stake(op.life, seq);
                    }
                    withdrawal
                };
                let life = op.life;
                chan.kick(true);
                // What never left leaves its turn to the next.
                chan.wake_senders();
                match withdrawal {
                    Withdrawal::Withdrawn => Some(false),
                    Withdrawal::Taken => Some(true),
                    Withdrawal::Asked => {
                        let outcome = wait_withdrawn(Arc::clone(&chan), seq, life);
                        match tokio::time::timeout(WITHDRAW_WAIT, outcome).await {
                            Ok(Some(withdrawn)) => Some(!withdrawn),
                            _ => {
                                let outcome =
                                    async move { wait_withdrawn(chan, seq, life).await.map(|back| !back) };
                                return in_doubt(value, outcome);
                            }
                        }
                    }
                }
            }
            (Stage::Offered(key), Backend::Hub(sender)) => match sender.hub.withdraw_offer(key) {
                OfferOutcome::Withdrawn => Some(false),
                OfferOutcome::Taken => Some(true),
                OfferOutcome::Unknown => {
                    let hub = Arc::clone(&sender.hub);
                    let outcome = OfferWatch { hub, key };
                    return in_doubt(value, async move {
                        let taken = poll_fn(|cx| outcome.hub.poll_offer(cx, outcome.key)).await;
                        Some(taken)
                    });
                }
            },
            _ => Some(false),
        };
        match early {
            Some(true) => Ok(()),
            _ => Err(SendTimeoutError::Timeout(value)),
        }
    }

    /// The fast path: commits the value if there is a place and nobody waits. False leaves everything, errors as well, to
    /// what follows.
    #[inline]
    fn commit_at_once(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = &self.sender.shared;
        let (Backend::Wire(handle), Some(value)) = (&shared.backend, &self.value) else {
            return Poll::Ready(false);
        };
        if self.stage != Stage::Waiting || self.ticket.is_some() || self.acked {
            return Poll::Ready(false);
        }
        let chan = &handle.0;
        let Some(mut state) = chan.state.try_lock() else { return Poll::Ready(false) };
        if state.end.is_some() || !state.senders.is_empty() || state.half.mode() == Mode::Rendezvous {
            return Poll::Ready(false);
        }
        let (values, bytes) = (state.half.committed(), state.half.committed_bytes());
        let charge = ready!(state.meter.poll(cx, values, bytes));
        let pushed = {
            let _busy = Busy::under(&chan.state);
            state.half.push(|item| shared.encode(value, item))
        };
        drop(state);
        let Ok(Pushed { full, .. }) = pushed else { return Poll::Ready(false) };
        charge.made_progress();
        chan.kick(full);
        Poll::Ready(true)
    }

    fn poll_op(&mut self, cx: &Context<'_>) -> Poll<Result<u64, Failure>> {
        match &self.sender.shared.backend {
            Backend::Wire(handle) => {
                let chan = &handle.0;
                match self.stage {
                    Stage::Out(seq) => self.poll_out(cx, chan, seq),
                    _ => match reentry::lock(&chan.state) {
                        Some(state) => self.poll_commit(Some(cx), chan, state),
                        None => Poll::Ready(Err(Failure::Reentrant)),
                    },
                }
            }
            Backend::Hub(sender) => self.poll_hub(cx, &sender.hub),
        }
    }

    /// Commits the value once there is a place and everyone before has had theirs.
    #[inline]
    fn poll_commit(
        &mut self,
        cx: Option<&Context<'_>>,
        chan: &Arc<SendChan>,
        mut state: parking_lot::MutexGuard<'_, SendState>,
    ) -> Poll<Result<u64, Failure>> {
        if let Some(end) = &state.end {
            let failure = Failure::ended(end);
            state.senders.leave(&mut self.ticket);
            return Poll::Ready(Err(failure));
        }
        if let Some(reason) = state.half.closed() {
            let failure = Failure::Closed(reason.into());
            state.senders.leave(&mut self.ticket);
            return Poll::Ready(Err(failure));
        }
        let ahead = state.senders.ahead_of(self.ticket) as u64;
        if state.half.available() <= ahead {
            if let Some(cx) = cx {
                state.senders.wait(&mut self.ticket, cx.waker());
            }
            let waiting = state.waiting().max(1);
            state.half.want(waiting);
            let speak = state.half.has_output();
            drop(state);
            if speak {
                chan.kick(true);
            }
            return Poll::Pending;
        }
        let Some(value) = &self.value else { return Poll::Ready(Err(Failure::Reentrant)) };
        let shared = &self.sender.shared;
        let pushed = {
            let _busy = Busy::under(&chan.state);
            state.half.push(|item| shared.encode(value, item))
        };
        if self.ticket.is_some() {
            state.senders.leave(&mut self.ticket);
            let waiting = state.waiting();
            state.half.want(waiting);
            let more = state.half.available();
            state.senders.wake_front(more);
        }
        let Pushed { seq, full, .. } = match pushed {
            Ok(pushed) => pushed,
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        let waits = self.acked || state.half.mode() == Mode::Rendezvous;
        self.life = state.life;
        if waits {
            state.claims.stake(seq);
        }
        if waits && self.acked {
            state.half.request_report();
        }
        drop(state);
        chan.kick(full || waits);
        if waits {
            self.stage = Stage::Out(seq);
            return match cx {
                Some(cx) => self.poll_out(cx, chan, seq),
                None => Poll::Pending,
            };
        }
        self.stage = Stage::Done;
        Poll::Ready(Ok(seq))
    }

    /// Waits until the value has been taken.
    fn poll_out(&mut self, cx: &Context<'_>, chan: &Arc<SendChan>, seq: u64) -> Poll<Result<u64, Failure>> {
        let mut state = chan.state.lock();
        let outcome = if state.knows_taken(self.life, seq) {
            state.claims.drop_stake(self.life, seq);
            Ok(seq)
        } else if state.life != self.life || state.end.is_some() {
            Err(self.lost(chan, &mut state, seq))
        } else if let Some(reason) = state.half.peer_closed() {
            // The peer counted what it took when it closed, and this was not among it.
            let failure = Failure::Closed(reason.into());
            state.give_back(self.life, seq);
            Err(failure)
        } else {
            state.watchers.wait(&mut self.watch, cx.waker());
            return Poll::Pending;
        };
        state.watchers.leave(&mut self.watch);
        // The next in line may offer now.
        let more = state.half.available();
        state.senders.wake_front(more);
        self.stage = Stage::Done;
        Poll::Ready(outcome)
    }

    /// The session ended before the fate of the value was known: it goes back, and nobody else gives it back.
    fn lost(&self, chan: &SendChan, state: &mut SendState, seq: u64) -> Failure {
        let end = state.lost();
        state.give_back(self.life, seq);
        if !state.claims.are_of(self.life) {
            return Failure::InDoubt(end);
        }
        // An offer has its sender, who knows now; a value is on its way again all the same.
        let sent_again = state.end.is_none() && chan.resends() && state.half.mode() != Mode::Rendezvous;
        if sent_again || state.half.may_have_left(seq) { Failure::InDoubt(end) } else { Failure::ended(&end) }
    }

    fn error(&mut self, failure: Failure) -> SendError<T> {
        // The value is here until the send has succeeded, and nothing asks for the error after that.
        let value = self.value.take().expect("a send that failed still has its value");
        failure.with(value)
    }
}

/// Encodes a value by itself.
pub(super) fn encode_alone<T: 'static>(shared: &Shared<T>, value: &T) -> Result<Bytes, Failure> {
    netchan_proto::channel::encode_alone(shared.limits.bytes_max, |item| shared.encode(value, item))
        .map_err(Failure::from)
}

impl<T: Send + 'static> Future for SendOp<'_, T> {
    type Output = Result<(), SendError<T>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if ready!(self.commit_at_once(cx)) {
            self.stage = Stage::Done;
            return Poll::Ready(Ok(()));
        }
        let budget = ready!(coop::poll_proceed(cx));
        let result = ready!(self.poll_op(cx));
        budget.made_progress();
        self.stage = Stage::Done;
        Poll::Ready(result.map(|_| ()).map_err(|failure| self.error(failure)))
    }
}

impl<T> Drop for SendOp<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.stage == Stage::Done && self.ticket.is_none() && self.watch.is_none() {
            return;
        }
        match &self.sender.shared.backend {
            Backend::Wire(handle) => {
                leave(&handle.0, &mut self.ticket);
                if self.watch.is_some() {
                    handle.0.state.lock().watchers.leave(&mut self.watch);
                }
                if let Stage::Out(seq) = self.stage {
                    let mut state = handle.0.state.lock();
                    state.claims.drop_stake(self.life, seq);
                    // A value that was committed stays so; an offer is taken back.
                    let current = state.life == self.life;
                    if current && (!self.acked || state.half.mode() == Mode::Rendezvous) {
                        state.half.withdraw(seq);
                        drop(state);
                        handle.0.kick(true);
                        handle.0.wake_senders();
                    }
                }
            }
            Backend::Hub(sender) => {
                sender.hub.leave_senders(&mut self.ticket);
                sender.hub.leave_watchers(&mut self.watch);
                if let Stage::Offered(key) = self.stage {
                    sender.hub.abandon_offer(key);
                }
            }
        }
    }
}

/// Leaves the queue of senders and passes the turn on.
pub(super) fn leave(chan: &Arc<SendChan>, ticket: &mut Option<Ticket>) {
    if ticket.is_none() {
        return;
    }
    let speak = {
        let mut state = chan.state.lock();
        state.senders.leave(ticket);
        let waiting = state.waiting();
        state.half.want(waiting);
        let more = state.half.available();
        state.senders.wake_front(more);
        state.half.has_output()
    };
    if speak {
        chan.kick(false);
    }
}

/// Waits for an offer in a channel hosted here; dropped, the offer is left to itself.
struct OfferWatch {
    hub: Arc<Hub>,
    key: SenderKey,
}

impl Drop for OfferWatch {
    fn drop(&mut self) {
        self.hub.abandon_offer(self.key);
    }
}
