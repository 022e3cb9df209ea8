//! The receiving handle.

mod op;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use netchan_proto::hosted::ReceiverKey;
use netchan_proto::wire::Told;
use parking_lot::Mutex;

use self::op::{RecvOp, Taken};
use crate::codec::{Codec, DecodeError, Payload};
use crate::error::{CloseReason, RecvError, RecvTimeoutError, TryRecvError};
use crate::hub::{Cast, Engine, Hub};
use crate::limits::MessageLimits;
use crate::peer::Peer;
use crate::reentry;
use crate::session::RecvHandle;
use crate::stats::ReceiverStats;
use crate::wait::Ticket;

/// Receives values of one type from a channel.
///
/// `Receiver`s are cheap to clone, and every operation takes `&self`. Each value goes to exactly one `recv`: the one that
/// has waited longest, over all clones and, for a hosted channel, over all processes.
///
/// Receiving on a closed channel first drains what was sent, then returns `Ok(None)`. A lost session is an error.
///
/// When the last clone of a direct channel's `Receiver` is dropped, the channel closes.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The place in the queue of `poll_recv` and of the `Stream`: one for each handle.
    polling: Mutex<Option<Ticket>>,
}

struct Shared<T> {
    backend: Backend,
    name: Arc<str>,
    codec: Arc<dyn Codec<T>>,
    limits: MessageLimits,
}

enum Backend {
    /// The other end is the peer's.
    Wire(RecvHandle),
    /// The channel is hosted in this process.
    Hub(HubReceiver),
    /// The broadcast is hosted in this process.
    Cast(CastReceiver),
}

/// A server's own subscription to a broadcast that it hosts.
struct CastReceiver {
    cast: Arc<Cast>,
    key: ReceiverKey,
}

impl Drop for CastReceiver {
    fn drop(&mut self) {
        self.cast.unsubscribe(self.key);
    }
}

/// A server's own hold on the receiving side of a channel that it hosts.
struct HubReceiver {
    hub: Arc<Hub>,
    /// Clients cannot receive here: when the last handle is dropped nobody can, and the channel ends.
    only: bool,
}

impl Drop for HubReceiver {
    fn drop(&mut self) {
        if self.only {
            self.hub.abort(CloseReason::new(
                netchan_proto::session::close_code::DROPPED,
                "the receiver was dropped",
            ));
        }
    }
}

/// A value that was received, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received<T> {
    /// The value.
    pub value: T,
    /// Who sent it.
    pub peer: Peer,
    /// It may have been received before: a receiver of the hosted channel held it and did not take it, as far as is known,
    /// or its sender lost its session and sent it again ([`LossPolicy::Resend`](crate::LossPolicy::Resend)).
    pub redelivered: bool,
}

impl<T: Send + 'static> Receiver<T> {
    pub(crate) fn wire(handle: RecvHandle, codec: Arc<dyn Codec<T>>) -> Self {
        let (name, limits) = (Arc::clone(&handle.0.name), handle.0.core.message_limits());
        Self::new(Backend::Wire(handle), name, codec, limits)
    }

    pub(crate) fn hosted(hub: Arc<Hub>, only: bool, codec: Arc<dyn Codec<T>>, limits: MessageLimits) -> Self {
        let name = Arc::clone(&hub.spec.name);
        Self::new(Backend::Hub(HubReceiver { hub, only }), name, codec, limits)
    }

    pub(crate) fn subscribed(
        cast: Arc<Cast>,
        key: ReceiverKey,
        codec: Arc<dyn Codec<T>>,
        limits: MessageLimits,
    ) -> Self {
        let name = Arc::clone(&cast.spec().name);
        Self::new(Backend::Cast(CastReceiver { cast, key }), name, codec, limits)
    }

    fn new(backend: Backend, name: Arc<str>, codec: Arc<dyn Codec<T>>, limits: MessageLimits) -> Self {
        let shared = Arc::new(Shared { backend, name, codec, limits });
        Self { shared, polling: Mutex::new(None) }
    }

    /// As [`recv`](Self::recv), with the value's number among all that this end has taken.
    pub(crate) async fn recv_numbered(&self) -> Result<Option<(T, u64)>, RecvError> {
        let taken = RecvOp::new(self).await?;
        Ok(taken.map(|taken| (taken.value, taken.number)))
    }

    /// Receives the next value, waiting for it; `None` once the channel is closed and drained.
    ///
    /// # Errors
    /// [`RecvError::Lost`] when the session is lost (terminal); [`RecvError::Decode`] for a value that cannot be decoded:
    /// it counts as taken, and receiving goes on.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, no value is lost, and the next receive gets what would have been its.
    // Not an `async fn`: every move of a large value on the way out costs as much as its decoding.
    #[inline]
    pub fn recv(&self) -> impl Future<Output = Result<Option<T>, RecvError>> + Send + '_ {
        op::Recv(RecvOp::new(self))
    }

    /// As [`recv`](Self::recv), and says who sent the value.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    pub async fn recv_from(&self) -> Result<Option<(T, Peer)>, RecvError> {
        Ok(self.recv_message().await?.map(|received| (received.value, received.peer)))
    }

    /// As [`recv`](Self::recv), and says what is known of the value: who sent it, and whether it may have been received
    /// before.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    pub async fn recv_message(&self) -> Result<Option<Received<T>>, RecvError> {
        let taken = RecvOp::new(self).await?;
        Ok(taken.map(|Taken { value, peer, redelivered, .. }| Received {
            value,
            peer: peer.unwrap_or_else(|| self.peer()),
            redelivered,
        }))
    }

    /// Receives up to `limit` values into `values`, waiting for the first; 0 once the channel is closed and drained, or if
    /// `limit` is 0.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), but only for the first value: an error behind it is met by the next call.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, nothing was received.
    pub async fn recv_many(&self, values: &mut Vec<T>, limit: usize) -> Result<usize, RecvError> {
        if limit == 0 {
            return Ok(0);
        }
        if let Backend::Wire(handle) = &self.shared.backend {
            handle.0.ask_for(limit as u64);
        }
        let Some(first) = self.recv().await? else { return Ok(0) };
        values.push(first);
        let mut count = 1;
        while count < limit {
            match RecvOp::values_only(self).now() {
                Poll::Ready(Ok(Some(taken))) => {
                    values.push(taken.value);
                    count += 1;
                }
                // An undecodable value is taken and cannot be put back: what came before it is returned, and the
                // failure is logged.
                Poll::Ready(Err(error @ RecvError::Decode { .. })) => {
                    tracing::warn!(channel = %self.name(), %error, "value skipped");
                }
                // The end, and the session's, are met again.
                Poll::Ready(Ok(None) | Err(_)) | Poll::Pending => break,
            }
        }
        Ok(count)
    }

    /// Receives a value if one is here; `Ok(None)` once the channel is closed and drained.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`] when nothing is here now. A hosted channel of another process is asked for a value then, which a
    /// later call finds: one that comes within a second, for so long it is kept.
    pub fn try_recv(&self) -> Result<Option<T>, TryRecvError> {
        match RecvOp::new(self).now() {
            Poll::Ready(Ok(received)) => Ok(received.map(|taken| taken.value)),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// Receives the next value, waiting at most so long.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`], or as [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    pub async fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>, RecvTimeoutError> {
        match tokio::time::timeout(timeout, self.recv()).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Receives the next value from a thread, which sleeps while it waits.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    /// Inside an asynchronous task.
    pub fn blocking_recv(&self) -> Result<Option<T>, RecvError> {
        crate::blocking::block_on(self.recv())
    }

    /// Iterates over the values from a thread, which sleeps while it waits, until the channel is closed and drained or the
    /// session is lost.
    ///
    /// # Panics
    /// Inside an asynchronous task.
    pub fn blocking_iter(&self) -> impl Iterator<Item = Result<T, RecvError>> + '_ {
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let next = self.blocking_recv().transpose();
            over = match &next {
                None => true,
                Some(Err(error)) => error.is_terminal(),
                Some(Ok(_)) => false,
            };
            next
        })
    }

    /// Polls for the next value. One task at a time for each handle: a later one takes the place of the earlier.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, RecvError>> {
        let mut polling = self.polling.lock();
        let mut op = RecvOp::resumed(self, polling.take());
        let result = Pin::new(&mut op).poll(cx);
        *polling = op.suspend();
        result.map(|received| received.map(|received| received.map(|taken| taken.value)))
    }

    /// Closes the channel from this end, for every clone; what has not been received is dropped, and the sender's end is
    /// told. A hosted channel ends for everyone if this is the server's handle; what is in it still goes to receivers.
    pub fn close(&self) {
        self.close_with(CloseReason::new(0, ""));
    }

    /// As [`close`](Self::close), and says why. Codes below 256 are netchan's own.
    pub fn close_with(&self, reason: CloseReason) {
        match &self.shared.backend {
            Backend::Wire(handle) => handle.0.stop(reason.into()),
            Backend::Hub(receiver) => receiver.hub.close(reason),
            // A subscriber ends its own subscription.
            Backend::Cast(receiver) => receiver.cast.unsubscribe(receiver.key),
        }
    }

    /// Waits until the channel is closed, whoever closed it; what was sent before may still be received.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        op::closed(self).await
    }

    /// Whether the channel is closed; what was sent before may still be received.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Why the channel is closed, once it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match &self.shared.backend {
            Backend::Wire(handle) => op::close_reason(&reentry::enter(&handle.0.state)),
            Backend::Hub(receiver) => receiver.hub.closed(),
            Backend::Cast(receiver) => receiver.cast.closed(),
        }
    }

    /// How many values are here, ready to be received.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.shared.backend {
            Backend::Wire(handle) => {
                usize::try_from(reentry::enter(&handle.0.state).half.ready()).unwrap_or(usize::MAX)
            }
            Backend::Hub(receiver) => receiver.hub.ready(),
            Backend::Cast(receiver) => {
                usize::try_from(receiver.cast.ready(receiver.key)).unwrap_or(usize::MAX)
            }
        }
    }

    /// Whether nothing is here now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        match &self.shared.backend {
            Backend::Wire(handle) => {
                let state = reentry::enter(&handle.0.state);
                ReceiverStats {
                    received: state.half.received(),
                    taken: state.half.taken(),
                    waiting: state.receivers.len() as u64,
                }
            }
            Backend::Hub(receiver) => receiver.hub.receiver_stats(),
            Backend::Cast(CastReceiver { cast, key }) => cast.local_stats(*key),
        }
    }
}

impl<T> Receiver<T> {
    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Who is at the other end; this very process for a channel hosted here.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match &self.shared.backend {
            Backend::Wire(handle) => handle.0.core.peer(),
            Backend::Hub(_) | Backend::Cast(_) => Peer::local(),
        }
    }

    /// Whether two handles are of the same channel.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.shared.backend, &other.shared.backend) {
            (Backend::Wire(a), Backend::Wire(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Backend::Hub(a), Backend::Hub(b)) => Arc::ptr_eq(&a.hub, &b.hub),
            (Backend::Cast(a), Backend::Cast(b)) => Arc::ptr_eq(&a.cast, &b.cast) && a.key == b.key,
            _ => false,
        }
    }
}

impl<T: 'static> Shared<T> {
    fn decode(&self, payload: Payload<'_>) -> Result<T, RecvError> {
        let mut cx = self.limits.decoding(&self.name);
        self.codec.decode(payload, &mut cx).map_err(|error| self.undecodable(error))
    }

    /// What a broadcast sends says what it is (`CAST-8`).
    fn decode_cast(&self, payload: Payload<'_>) -> Result<T, RecvError> {
        match Told::read(payload.as_slice()) {
            Ok(Told::Value(_)) => self.decode(match payload {
                Payload::Owned(bytes) => Payload::Owned(bytes.slice(1..)),
                Payload::Slice(bytes) => Payload::Slice(&bytes[1..]),
            }),
            Ok(Told::Lagged(lost)) => Err(RecvError::Lagged(lost)),
            Err(error) => Err(self.undecodable(DecodeError::codec(error))),
        }
    }

    #[cold]
    fn undecodable(&self, error: DecodeError) -> RecvError {
        RecvError::Decode { channel: self.name.to_string(), error }
    }
}

/// Yields values until the channel is closed and drained; a lost session is the last item.
impl<T: Send + 'static> Stream for Receiver<T> {
    type Item = Result<T, RecvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_recv(cx).map(Result::transpose)
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), polling: Mutex::new(None) }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        op::leave(&self.shared.backend, &mut self.polling.lock());
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("name", &self.name())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}
