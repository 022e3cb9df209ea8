//! Receiving with acknowledgement.

mod desk;
mod handed;
mod subscription;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::wire::{Ask, Handed};

use self::desk::tell;
use self::handed::Opened as OpenedValue;
use self::subscription::{Shared, Subscription};
use crate::error::{AckError, AckWithError, OpenError, RecvError, RecvTimeoutError};
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::sender::Sender;
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
/// Clones share the subscription; each delivery goes to the `recv` that has waited longest.
pub struct Deliveries<T> {
    subscription: Arc<Subscription<T>>,
}

pub(crate) async fn open<T: Send + 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    options: ChannelOptions<T>,
) -> Result<Deliveries<T>, OpenError> {
    let subscription = Arc::new(Subscription::open(core, name, options).await?);
    Ok(Deliveries { subscription })
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
        loop {
            let shared = self.subscription.current();
            let (opened, number) = match shared.receiver.recv_numbered().await {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(None),
                Err(RecvError::Lost(end)) => {
                    self.subscription.renew(&shared, end).await.map_err(RecvError::Lost)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let OpenedValue { handed, value } = opened;
            let receipt = Receipt { shared, number, handed, open: true };
            if receipt.shared.desk.is_fenced(number) {
                // Another has it by now. If the number is another value's since, this gives that back.
                drop(receipt);
                continue;
            }
            match value {
                Ok(value) => return Ok(Some(Delivery { value, receipt })),
                Err(error) => {
                    receipt.give_back(UNDECODABLE_PAUSE);
                    return Err(error);
                }
            }
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

    /// Takes no more deliveries: those that came ahead of a `recv` go to others. Those that were received can still be
    /// acknowledged.
    pub fn close(&self) {
        self.subscription.close();
    }

    /// What has happened since it was opened last: deliveries that have arrived, that were received, and receives that wait.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        self.subscription.current().receiver.stats()
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.subscription.name()
    }

    /// Who hosts it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.subscription.current().receiver.peer()
    }
}

impl<T> Clone for Deliveries<T> {
    fn clone(&self) -> Self {
        Self { subscription: Arc::clone(&self.subscription) }
    }
}

impl<T: Send + 'static> fmt::Debug for Deliveries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A value that was received and is to be acknowledged. Dropped, it is given back at once.
///
/// It is its value, by `Deref`; [`into_parts`](Self::into_parts) takes the value out.
#[must_use = "a delivery that is dropped goes to another"]
pub struct Delivery<T> {
    value: T,
    receipt: Receipt<T>,
}

impl<T: Send + 'static> Delivery<T> {
    /// Says that it is done: nobody gets it again.
    ///
    /// # Errors
    /// [`AckError::Fenced`] when it has gone to another; [`AckError::InDoubt`] when the session ended before the answer.
    ///
    /// # Cancel safety
    /// Dropped before it is on its way, the delivery is given back; later, it is acknowledged all the same.
    pub async fn ack(self) -> Result<(), AckError> {
        self.receipt.ack().await
    }

    /// Commits a result into a channel hosted at the same server, and acknowledges, in one step: both are done, or neither.
    /// The result waits for its turn in its channel as one that is sent there; the server receives it as this client's. That
    /// channel must be a queue with at least one place, opened in this session: a broadcast, a channel of capacity 0 and a
    /// direct one take no results.
    ///
    /// # Errors
    /// [`AckWithError`], with the result. When the reason is [`AckError::Fenced`], another has the delivery, and this result
    /// was not committed. When it is [`AckError::InDoubt`], it may have been.
    ///
    /// # Cancel safety
    /// As [`ack`](Self::ack).
    pub async fn ack_with<R: Send + 'static>(
        self,
        results: &Sender<R>,
        value: R,
    ) -> Result<(), AckWithError<R>> {
        self.receipt.ack_with(results, value).await
    }

    /// Gives it back: it goes to the head of the queue at once, with one attempt more.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    /// Dropped before it completes, the delivery is given back all the same.
    pub async fn nack(self) -> Result<(), AckError> {
        self.receipt.nack_after(Duration::ZERO).await
    }

    /// Gives it back, to be tried again after `delay`, in milliseconds; over a year counts as that.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    /// Dropped before it is on its way, the delivery is given back without a delay.
    pub async fn nack_after(self, delay: Duration) -> Result<(), AckError> {
        self.receipt.nack_after(delay).await
    }

    /// Keeps it for `time` from now, even if this client cannot be reached meanwhile, instead of the channel's grace.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    /// Cancel safe: it may have been done.
    pub async fn extend(&self, time: Duration) -> Result<(), AckError> {
        self.receipt.extend(time).await
    }

    /// Which attempt this is, from 1: one more than the times that it is known to have been handed out in vain.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.receipt.attempt()
    }

    /// Whether it may have been received before, here or elsewhere.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.receipt.handed.redelivered
    }

    /// The value, and what acknowledges it.
    pub fn into_parts(self) -> (T, Receipt<T>) {
        (self.value, self.receipt)
    }
}

impl<T> Deref for Delivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Delivery<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("value", &self.value).finish_non_exhaustive()
    }
}

/// Acknowledges a delivery whose value was taken out. Dropped, it gives the value back.
#[must_use = "a delivery whose receipt is dropped goes to another"]
pub struct Receipt<T> {
    shared: Arc<Shared<T>>,
    number: u64,
    handed: Handed,
    /// Nothing has been said of it yet.
    open: bool,
}

impl<T> Receipt<T> {
    /// As [`Delivery::ack`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub async fn ack(self) -> Result<(), AckError> {
        let number = self.number;
        self.finish(Ask::Ack { number }).await
    }

    /// As [`Delivery::nack_after`]; without a delay, as [`Delivery::nack`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::nack_after`].
    pub async fn nack_after(self, delay: Duration) -> Result<(), AckError> {
        let number = self.number;
        self.finish(Ask::Nack { number, delay_millis: millis(delay) }).await
    }

    /// As [`Delivery::extend`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::extend`].
    pub async fn extend(&self, time: Duration) -> Result<(), AckError> {
        let ask = Ask::Extend { number: self.number, millis: millis(time) };
        self.shared.desk.ask(&self.shared.asks, ask, || {}).await
    }

    /// As [`Delivery::ack_with`].
    ///
    /// # Errors
    /// As [`Delivery::ack_with`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub async fn ack_with<R: Send + 'static>(
        self,
        results: &Sender<R>,
        value: R,
    ) -> Result<(), AckWithError<R>> {
        match self.try_ack_with(results, &value).await {
            Ok(()) => Ok(()),
            Err(reason) => Err(AckWithError { value, reason }),
        }
    }

    async fn try_ack_with<R: Send + 'static>(self, results: &Sender<R>, value: &R) -> Result<(), AckError> {
        let channel = results.channel_in(self.shared.desk.core()).ok_or(AckError::NoResults)?;
        let value: Bytes = results.encode_alone(value).map_err(AckError::Result)?;
        let number = self.number;
        self.finish(Ask::AckWith { number, results: channel, value: &value }).await
    }

    async fn finish(mut self, ask: Ask<'_>) -> Result<(), AckError> {
        let shared = Arc::clone(&self.shared);
        let open = &mut self.open;
        let result = shared.desk.ask(&shared.asks, ask, || *open = false).await;
        if matches!(result, Err(AckError::ResultsClosed | AckError::NoResults)) {
            // It is still this client's, and is given back when this is dropped.
            self.open = true;
        }
        result
    }

    /// As [`Delivery::attempt`].
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.handed.attempts.saturating_add(1)
    }

    fn give_back(mut self, pause: Duration) {
        self.open = false;
        tell(&self.shared.asks, Ask::Nack { number: self.number, delay_millis: millis(pause) });
    }
}

impl<T> Drop for Receipt<T> {
    fn drop(&mut self) {
        if self.open {
            tell(&self.shared.asks, Ask::Nack { number: self.number, delay_millis: 0 });
        }
        self.shared.desk.forget(self.number);
    }
}

impl<T> fmt::Debug for Receipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("attempt", &self.attempt()).finish_non_exhaustive()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
