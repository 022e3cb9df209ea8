//! The sending handle.

mod failure;
mod op;
mod permit;
mod sink;
pub(crate) mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::id::ChannelId;
use netchan_proto::wire::Mode;
use parking_lot::Mutex;

use self::op::SendOp;
pub use self::permit::{Permit, PermitIterator};
use self::sink::SinkState;
use crate::codec::{Codec, EncodeError, ItemBuf, Payload};
use crate::error::{
    CloseReason, FlushError, InDoubt, ReserveError, SendError, SendTimeoutError, TrySendError,
};
use crate::hub::Hub;
use crate::limits::MessageLimits;
use crate::peer::Peer;
use crate::reentry;
use crate::session::{SendChan, SendHandle, SessionCore};
use crate::stats::SenderStats;

/// Sends values of one type into a channel.
///
/// `Sender`s are cheap to clone, and every operation takes `&self`. Several tasks share one first come, first served. What
/// a completed send promises follows from the channel's capacity C, as in Go: **the n-th send completes only when at least
/// n − C values are known to have been taken by the peer's `recv`**. With C = 0 a send returns when its value has been
/// received. [`flush`](Self::flush) and [`send_acked`](Self::send_acked) say more about buffered ones.
///
/// When the last clone of a direct channel's `Sender` is dropped, the channel closes after its data.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    sink: Mutex<SinkState<T>>,
}

struct Shared<T> {
    backend: Backend,
    name: Arc<str>,
    codec: Arc<dyn Codec<T>>,
    limits: MessageLimits,
}

enum Backend {
    /// The other end is the peer's.
    Wire(SendHandle),
    /// The channel is hosted in this process.
    Hub(HubSender),
}

/// A server's own hold on the sending side of a channel that it hosts.
struct HubSender {
    hub: Arc<Hub>,
    /// Clients cannot send here: when the last handle is dropped nobody can, and the channel closes.
    only: bool,
}

impl Drop for HubSender {
    fn drop(&mut self) {
        if self.only {
            self.hub.close(CloseReason::new(0, ""));
        }
    }
}

/// A value that is not known to have been taken when its channel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsettled<T> {
    /// It certainly did not reach the peer.
    Undelivered(T),
    /// It may have reached the peer.
    InDoubt(T),
}

impl<T> Unsettled<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        match self {
            Self::Undelivered(value) | Self::InDoubt(value) => value,
        }
    }
}

impl<T: Send + 'static> Sender<T> {
    /// Encodes a value without sending it.
    pub(crate) fn encode_alone(&self, value: &T) -> Result<Bytes, SendError<()>> {
        op::encode_alone(&self.shared, value).map_err(|failure| failure.with(()))
    }

    /// Encodes a value behind what `item` holds, under this channel's limits.
    pub(crate) fn encode_behind(&self, value: &T, item: &mut ItemBuf<'_>) -> Result<(), SendError<()>> {
        let before = item.len();
        let encoded = self.shared.encode(value, item);
        let bytes_max = self.shared.limits.bytes_max;
        if item.len() - before > bytes_max {
            return Err(SendError::TooLarge { value: (), bytes_max });
        }
        encoded.map_err(|error| SendError::Encode { value: (), error })
    }

    /// Keeps the channel open while it exists.
    pub(crate) fn hold(&self) -> Arc<dyn Send + Sync> {
        Arc::clone(&self.shared) as _
    }

    /// The longest encoded value.
    pub(crate) fn bytes_max(&self) -> usize {
        self.shared.limits.bytes_max
    }

    /// The queue that it sends into, if that is hosted in this process.
    pub(crate) fn hub(&self) -> Option<&Arc<Hub>> {
        match &self.shared.backend {
            Backend::Hub(sender) => Some(&sender.hub),
            Backend::Wire(_) => None,
        }
    }

    /// Its end of the channel, if the other is a peer's.
    pub(crate) fn chan(&self) -> Option<&Arc<SendChan>> {
        match &self.shared.backend {
            Backend::Wire(handle) => Some(&handle.0),
            Backend::Hub(_) => None,
        }
    }

    /// The channel's number in a session, if it is one of that session's.
    pub(crate) fn channel_in(&self, core: &Arc<SessionCore>) -> Option<ChannelId> {
        match &self.shared.backend {
            Backend::Wire(handle) if Arc::ptr_eq(&handle.0.core, core) => Some(handle.0.id()),
            _ => None,
        }
    }

    pub(crate) fn wire(handle: SendHandle, codec: Arc<dyn Codec<T>>) -> Self {
        let (name, limits) = (Arc::clone(&handle.0.name), handle.0.core.message_limits());
        Self::new(Backend::Wire(handle), name, codec, limits)
    }

    pub(crate) fn hosted(hub: Arc<Hub>, only: bool, codec: Arc<dyn Codec<T>>, limits: MessageLimits) -> Self {
        let name = Arc::clone(&hub.spec.name);
        Self::new(Backend::Hub(HubSender { hub, only }), name, codec, limits)
    }

    fn new(backend: Backend, name: Arc<str>, codec: Arc<dyn Codec<T>>, limits: MessageLimits) -> Self {
        let shared = Arc::new(Shared { backend, name, codec, limits });
        Self { shared, sink: Mutex::default() }
    }

    /// Sends a value, waiting for a place (or, with capacity 0, for the receiver).
    ///
    /// # Errors
    /// [`SendError`], with the value.
    ///
    /// # Cancel safety
    /// With capacity ≥ 1: dropped before it completes, nothing was sent, and the value is dropped with it; use
    /// [`reserve`](Self::reserve) to wait without giving the value away. With capacity 0 the offer is withdrawn; if the
    /// receiver had taken it already, it is taken.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let server = netchan::listen_and_serve("memory://send-example", Default::default()).await?;
    /// let numbers = server.channel::<u32>("numbers", 8)?;
    /// numbers.0.send(42).await?;
    /// assert_eq!(numbers.1.recv().await?, Some(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Not an `async fn`: those move their arguments once more before they look at them.
    #[inline]
    pub fn send(&self, value: T) -> impl Future<Output = Result<(), SendError<T>>> + Send + '_ {
        SendOp::new(self, value)
    }

    /// Sends a value if there is a place now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] with the value when there is none; with capacity 0 always, since a rendezvous takes a round
    /// trip: use [`send_timeout`](Self::send_timeout). For a hosted channel a failed attempt asks for credit, so that a
    /// later one may succeed.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        SendOp::new(self, value).now()
    }

    /// Sends a value, waiting at most so long.
    ///
    /// # Errors
    /// [`SendTimeoutError::Timeout`] with the value when it certainly was not sent. With capacity 0 the offer is withdrawn
    /// first, which takes a round trip; if the peer has not answered a quarter of a second later,
    /// [`SendTimeoutError::InDoubt`] holds the outcome, to be awaited.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        let mut op = Box::pin(SendOp::new(self, value));
        match tokio::time::timeout(timeout, op.as_mut()).await {
            Ok(result) => result.map_err(SendTimeoutError::Send),
            Err(_) => SendOp::expire(op).await,
        }
    }

    /// Sends a value from a thread, which sleeps while it waits.
    ///
    /// # Errors
    /// [`SendError`], with the value.
    ///
    /// # Panics
    /// Inside an asynchronous task.
    pub fn blocking_send(&self, value: T) -> Result<(), SendError<T>> {
        crate::blocking::block_on(self.send(value))
    }

    /// Sends a value and waits until the peer's `recv` has taken it.
    ///
    /// # Errors
    /// [`SendError`], with the value; [`SendError::InDoubt`] when the session ended before the peer said so. On a channel
    /// whose [`LossPolicy`](crate::LossPolicy) is `Resend`, such a value is sent again all the same.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send) until the value is committed; then it is sent, and only the answer is lost.
    pub async fn send_acked(&self, value: T) -> Result<(), SendError<T>> {
        SendOp::acked(self, value).await
    }

    /// Waits until everything sent so far has reached the peer.
    ///
    /// # Errors
    /// [`FlushError`] when the channel or the session ended first.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flush(&self) -> Result<(), FlushError> {
        match &self.shared.backend {
            Backend::Wire(handle) => watch::flush(&handle.0).await,
            // What a server sends into its own channel is there at once.
            Backend::Hub(_) => Ok(()),
        }
    }

    /// Waits for a place, and keeps it.
    ///
    /// # Errors
    /// [`ReserveError`].
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, nothing was reserved, and nobody else's turn is lost.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, ReserveError> {
        permit::reserve(self).await
    }

    /// A place, if there is one now.
    ///
    /// # Errors
    /// [`ReserveError::Full`] when there is none now.
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, ReserveError> {
        permit::try_reserve(self)
    }

    /// Waits for several places, and keeps them.
    ///
    /// # Errors
    /// [`ReserveError`]; [`ReserveError::TooMany`] for more places than the channel has.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, all are given back.
    pub async fn reserve_many(&self, places: usize) -> Result<PermitIterator<'_, T>, ReserveError> {
        permit::reserve_many(self, places).await
    }

    /// Closes the channel, after what was sent; for every clone. A hosted channel ends for everyone if this is the
    /// server's handle. Closing again does nothing.
    pub fn close(&self) {
        self.close_with(CloseReason::new(0, ""));
    }

    /// As [`close`](Self::close), and says why. Codes below 256 are netchan's own.
    pub fn close_with(&self, reason: CloseReason) {
        match &self.shared.backend {
            Backend::Wire(handle) => handle.0.close(reason.into()),
            Backend::Hub(sender) => sender.hub.close(reason),
        }
    }

    /// Waits until the channel takes no more values, whoever closed it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        watch::closed(self).await
    }

    /// Whether the channel takes no more values.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Why the channel takes no more values, once it does not.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match &self.shared.backend {
            Backend::Wire(handle) => {
                let state = reentry::enter(&handle.0.state);
                let closed = state.half.closed().map(CloseReason::from);
                closed.or_else(|| state.end.as_ref().map(failure::end_reason))
            }
            Backend::Hub(sender) => sender.hub.closed(),
        }
    }

    /// The values that are not known to have been taken, once the channel has ended; oldest first. The values are decoded
    /// again from what was kept; one that cannot be is left out.
    ///
    /// Each value comes back once: what a send returned with its error, or still waits to return, is not among them.
    ///
    /// Before the end, and for a channel hosted here, there are none.
    #[must_use]
    pub fn take_unsettled(&self) -> Vec<Unsettled<T>> {
        let Backend::Wire(handle) = &self.shared.backend else { return Vec::new() };
        // No user code runs under the lock, and two callers share the values out between them.
        let unsettled = reentry::enter(&handle.0.state).take_unsettled();
        let mut cx = self.shared.limits.decoding(&self.shared.name);
        let mut values = Vec::with_capacity(unsettled.len());
        for (bytes, in_doubt) in unsettled {
            if let Ok(value) = self.shared.codec.decode(Payload::Owned(bytes), &mut cx) {
                values.push(if in_doubt { Unsettled::InDoubt(value) } else { Unsettled::Undelivered(value) });
            }
        }
        values
    }

    /// How many sends would complete at once. Always 0 with capacity 0. While nobody waits for them, news of what the peer
    /// took may be 50 ms old, here and in [`stats`](Self::stats).
    #[must_use]
    pub fn capacity(&self) -> usize {
        let places = match &self.shared.backend {
            Backend::Wire(handle) => {
                let state = reentry::enter(&handle.0.state);
                let open = state.half.closed().is_none() && state.end.is_none();
                if open && state.half.mode() != Mode::Rendezvous { state.half.available() } else { 0 }
            }
            Backend::Hub(sender) if sender.hub.capacity() > 0 => sender.hub.available(),
            Backend::Hub(_) => 0,
        };
        usize::try_from(places).unwrap_or(usize::MAX)
    }

    /// The channel's capacity.
    #[must_use]
    pub fn max_capacity(&self) -> usize {
        let capacity = match &self.shared.backend {
            Backend::Wire(handle) => reentry::enter(&handle.0.state).half.capacity(),
            Backend::Hub(sender) => sender.hub.capacity(),
        };
        usize::try_from(capacity).unwrap_or(usize::MAX)
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        match &self.shared.backend {
            Backend::Wire(handle) => {
                let state = reentry::enter(&handle.0.state);
                SenderStats {
                    sent: state.half.committed(),
                    received: state.half.received(),
                    taken: state.half.taken(),
                    retained_bytes: state.half.retained_bytes() as u64,
                    waiting: state.senders.len() as u64,
                }
            }
            Backend::Hub(sender) => sender.hub.local_stats(),
        }
    }
}

impl<T> Sender<T> {
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
            Backend::Hub(_) => Peer::local(),
        }
    }

    /// Whether two handles are of the same channel.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.shared.backend, &other.shared.backend) {
            (Backend::Wire(a), Backend::Wire(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Backend::Hub(a), Backend::Hub(b)) => Arc::ptr_eq(&a.hub, &b.hub),
            _ => false,
        }
    }
}

impl<T: 'static> Shared<T> {
    fn encode(&self, value: &T, item: &mut ItemBuf<'_>) -> Result<(), EncodeError> {
        let mut cx = self.limits.encoding(&self.name);
        self.codec.encode(value, &mut cx, item)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), sink: Mutex::default() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("name", &self.name())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

/// Kept so that the error's parts stay in one place.
type Expired<T> = Result<(), SendTimeoutError<T>>;

fn in_doubt<T>(value: T, outcome: impl Future<Output = Option<bool>> + Send + 'static) -> Expired<T> {
    Err(SendTimeoutError::InDoubt(InDoubt { value, outcome: Box::pin(outcome) }))
}
