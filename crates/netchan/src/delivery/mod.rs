//! Receiving with acknowledgement.

mod ack;
mod collect;
mod desk;
mod failures;
mod handed;
mod line;
mod receipt;
mod slots;
mod subscription;
mod work;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

pub use self::ack::{Ack, AckWith};
use self::collect::Collector;
use self::desk::Desk;
use self::handed::Opened as OpenedValue;
use self::receipt::Holder;
pub use self::receipt::{Delivery, Receipt};
use self::subscription::Subscription;
pub use self::work::WorkReport;
use crate::codec::Codec;
use crate::error::{CloseReason, FlushAcksError, OpenError, RecvError, RecvTimeoutError};
use crate::hub::Hub;
use crate::limits::MessageLimits;
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::session::SessionCore;
use crate::stats::ReceiverStats;

/// How long a value rests that could not be decoded here: another build of the program may know it, and this one is not to
/// meet it again at once.
const UNDECODABLE_PAUSE: Duration = Duration::from_secs(1);

/// Receives values of a hosted channel and acknowledges each.
///
/// A value that was received stays this client's until it is [acknowledged](Delivery::ack): at most one client holds it. It
/// goes to another, from the head of the queue, when it is [given back](Delivery::nack) or dropped, when the session ends, or
/// when this client cannot be reached for longer than the channel's
/// [grace](ChannelOptions::delivery_grace). So each value is worked at *at least once*; with
/// [`ack_with`](Delivery::ack_with) its result is committed *exactly once*.
///
/// To acknowledge costs no round trip: see [`Delivery`]. What was acknowledged stays so when every handle and future is
/// dropped: the channels of the subscription stay open until the server has answered.
///
/// Clones share the subscription; each delivery goes to the `recv` that has waited longest.
///
/// A server has the same of a channel that it hosts itself: [`Server::deliveries`](crate::Server::deliveries).
pub struct Deliveries<T> {
    source: Source<T>,
}

enum Source<T> {
    /// A server, over a session.
    Client(Arc<Subscription<T>>),
    /// A queue of this process.
    Here(Arc<Collector>, Arc<dyn Codec<T>>),
}

pub(crate) async fn open<T: Send + 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    options: ChannelOptions<T>,
) -> Result<Deliveries<T>, OpenError> {
    let subscription = Arc::new(Subscription::open(core, name, options).await?);
    Ok(Deliveries { source: Source::Client(subscription) })
}

/// Of a queue of this process, where clients do not receive.
pub(crate) fn collect<T>(hub: Arc<Hub>, codec: Arc<dyn Codec<T>>, limits: MessageLimits) -> Deliveries<T> {
    Deliveries { source: Source::Here(Collector::new(hub, limits), codec) }
}

async fn recv<T: Send + 'static>(subscription: &Subscription<T>) -> Result<Option<Delivery<T>>, RecvError> {
    loop {
        let shared = subscription.current();
        let (opened, number) = match shared.receiver.recv_numbered().await {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(None),
            Err(RecvError::Lost(end)) => {
                subscription.renew(&shared, end).await.map_err(RecvError::Lost)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let OpenedValue { handed, value } = opened;
        if shared.line.desk.is_fenced(number) {
            // Another has it by now. If the number is another value's since, this gives that back.
            drop(Receipt::new(Holder::Client(shared), number, 0, handed));
            continue;
        }
        let receipt = Receipt::new(Holder::Client(shared), number, subscription.next_id(), handed);
        match value {
            Ok(value) => return Ok(Some(Delivery { value, receipt })),
            Err(error) => {
                receipt.give_back(UNDECODABLE_PAUSE);
                return Err(error);
            }
        }
    }
}

impl<T: Send + 'static> Deliveries<T> {
    /// Receives the next delivery, waiting for it; `None` once the channel is closed and everything in it is done.
    ///
    /// # Errors
    /// [`RecvError::Lost`] when the session is lost (terminal, unless [`LossPolicy`](crate::LossPolicy) says that the channel
    /// goes on: then it is opened again, for half a minute at most); [`RecvError::Decode`] for a value that cannot be decoded:
    /// it is given back, for another build of the program, and receiving goes on.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, no delivery is lost.
    pub async fn recv(&self) -> Result<Option<Delivery<T>>, RecvError> {
        match &self.source {
            Source::Client(subscription) => recv(subscription).await,
            Source::Here(collector, codec) => collector.recv(&**codec).await,
        }
    }

    /// As [`recv`](Self::recv), waiting at most so long.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`], or as [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    pub async fn recv_timeout(&self, timeout: Duration) -> Result<Option<Delivery<T>>, RecvTimeoutError> {
        match tokio::time::timeout(timeout, self.recv()).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// As [`recv`](Self::recv), from a thread, which sleeps while it waits.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    /// Inside an asynchronous task.
    pub fn blocking_recv(&self) -> Result<Option<Delivery<T>>, RecvError> {
        crate::blocking::block_on(self.recv())
    }

    /// Waits until everything that was acknowledged or given back so far has its outcome.
    ///
    /// To be called before [`Session::close`](crate::Session::close) or the end of the program, where the futures of
    /// acknowledgements were dropped or are not awaited: a session that is closed does not wait for answers.
    ///
    /// # Errors
    /// [`FlushAcksError`] lists the acknowledgements that failed, since the last call, and whose futures were dropped before
    /// they could say so. A future that still exists, or was awaited, has the failure itself. What was given back is not
    /// listed: it goes to another client either way.
    ///
    /// # Cancel safety
    /// Cancel safe: failures stay for the next call.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let server = netchan::listen_and_serve("memory://flush-acks-example", Default::default()).await?;
    /// # let tasks = server.sender::<u32>("tasks", 8)?;
    /// # tasks.send(1).await?;
    /// # tasks.close();
    /// # let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// let tasks = session.deliveries::<u32>("tasks").await?;
    /// while let Some(task) = tasks.recv().await? {
    ///     drop(task.ack());
    /// }
    /// if let Err(error) = tasks.flush().await {
    ///     for failed in &error.failed {
    ///         println!("delivery {}: {}", failed.delivery, failed.reason);
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn flush(&self) -> Result<(), FlushAcksError> {
        match &self.source {
            Source::Client(subscription) => {
                let shared = subscription.current();
                let mut flushing = Flushing { desk: &shared.line.desk, id: 0 };
                poll_fn(|cx| flushing.desk.poll_flush(&mut flushing.id, cx)).await;
                subscription.failures.take()
            }
            Source::Here(collector, _) => {
                collector.flush().await;
                collector.failures.take()
            }
        }
    }

    /// Takes no more deliveries: those that came ahead of a `recv` go to others. Those that were received can still be
    /// acknowledged. Of a server's own channel this is the close: no more is sent into it, and `recv` goes on until all that was
    /// sent is done.
    pub fn close(&self) {
        match &self.source {
            Source::Client(subscription) => subscription.close(),
            Source::Here(collector, _) => collector.hub.close(CloseReason::new(0, "")),
        }
    }

    /// What has happened since it was opened last: deliveries that have arrived, that were received, and receives that wait.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        match &self.source {
            Source::Client(subscription) => subscription.current().receiver.stats(),
            Source::Here(collector, _) => collector.hub.delivery_stats(collector.key),
        }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.source {
            Source::Client(subscription) => subscription.name(),
            Source::Here(collector, _) => &collector.hub.spec.name,
        }
    }

    /// Who hosts it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match &self.source {
            Source::Client(subscription) => subscription.current().receiver.peer(),
            Source::Here(..) => Peer::local(),
        }
    }
}

impl<T> Clone for Deliveries<T> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Client(subscription) => Source::Client(Arc::clone(subscription)),
            Source::Here(collector, codec) => Source::Here(Arc::clone(collector), Arc::clone(codec)),
        };
        Self { source }
    }
}

impl<T: Send + 'static> fmt::Debug for Deliveries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A flush under way.
struct Flushing<'a> {
    desk: &'a Desk,
    id: u64,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.desk.leave_flush(self.id);
    }
}
