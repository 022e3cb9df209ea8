//! A delivery, and what acknowledges it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use netchan_proto::wire::{Ask, Handed};

use super::ack::{Ack, AckWith, Asked};
use super::collect::Collector;
use super::line::{Nothing, ResultOf};
use super::slots::{About, Kind};
use super::subscription::Shared;
use crate::error::AckError;
use crate::sender::Sender;

/// A value that was received and is to be acknowledged. Dropped, it is given back at once.
///
/// It is its value, by `Deref`; [`into_parts`](Self::into_parts) takes the value out.
///
/// [`ack`](Self::ack), [`ack_with`](Self::ack_with), [`nack`](Self::nack) and [`nack_after`](Self::nack_after) act when they are
/// called: the future that they return only says what came of it. So a worker acknowledges as many deliveries as it likes
/// within one round trip, and the server is told in the order of the calls.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let server = netchan::listen_and_serve("memory://ack-example", Default::default()).await?;
/// # let tasks = server.sender::<u32>("tasks", 8)?;
/// # for n in 0..8 { tasks.send(n).await?; }
/// # tasks.close();
/// let session = netchan::dial(server.ticket(), Default::default()).await?;
/// let tasks = session.deliveries::<u32>("tasks").await?;
/// while let Some(task) = tasks.recv().await? {
///     println!("{}", *task);
///     drop(task.ack()); // under way; no round trip
/// }
/// tasks.flush().await?; // every one of them has been accepted
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a delivery that is dropped goes to another"]
pub struct Delivery<T> {
    pub(super) value: T,
    pub(super) receipt: Receipt<T>,
}

impl<T: Send + 'static> Delivery<T> {
    /// Says that it is done: no client gets it again.
    ///
    /// # Errors
    /// The future gives [`AckError::Fenced`] when the delivery has gone to another client; [`AckError::InDoubt`] when the
    /// session ended before the answer; [`AckError::Lost`] when it had ended already.
    ///
    /// # Cancel safety
    /// The acknowledgement is under way when this returns. Dropped at any time, the future changes nothing about it.
    pub fn ack(self) -> Ack {
        self.receipt.ack()
    }

    /// Commits a result into a channel hosted at the same server, and acknowledges, in one step: both are done, or neither.
    /// The result waits for its turn in its channel as one that is sent there; the server receives it as this client's. That
    /// channel must be a queue with at least one place, opened in this session: a broadcast, a channel of capacity 0 and a
    /// direct one take no results.
    ///
    /// The result is encoded in this call.
    ///
    /// # Errors
    /// The future gives [`AckWithError`](crate::AckWithError), with the result. When the reason is [`AckError::Fenced`],
    /// another client has the delivery, and this result was not committed. When it is [`AckError::InDoubt`], it may have been.
    /// When the result cannot be sent at all, nothing was asked, and the delivery is given back.
    ///
    /// # Cancel safety
    /// As [`ack`](Self::ack).
    pub fn ack_with<R: Send + 'static>(self, results: &Sender<R>, value: R) -> AckWith<R> {
        self.receipt.ack_with(results, value)
    }

    /// Gives it back, with one attempt more. It rests first: 50 ms after the first attempt, twice as long after each more,
    /// 30 s at most. Another client that waits then gets it before this one.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    /// As [`ack`](Self::ack): dropped at any time, the delivery is given back all the same.
    pub fn nack(self) -> Ack {
        self.receipt.nack()
    }

    /// Gives it back, to be tried again after `delay`, in milliseconds: at least one, and over a week counts as that.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    /// As [`nack`](Self::nack).
    pub fn nack_after(self, delay: Duration) -> Ack {
        self.receipt.nack_after(delay)
    }

    /// Keeps it for `time` from now, even if this client cannot be reached meanwhile, instead of the channel's grace. Unlike
    /// the others this waits for room, and does nothing until it is polled.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    ///
    /// # Cancel safety
    /// Cancel safe: it may have been done.
    pub async fn extend(&self, time: Duration) -> Result<(), AckError> {
        self.receipt.extend(time).await
    }

    /// Tells this delivery from the others of its subscription, in a [`FailedAck`](crate::FailedAck): they are numbered from
    /// 0 in the order in which they were received.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.receipt.id()
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
    holder: Holder<T>,
    number: u64,
    id: u64,
    handed: Handed,
    /// Nothing has been said of it yet.
    open: bool,
}

/// Where the delivery came from, and is acknowledged.
pub(super) enum Holder<T> {
    /// A server, over a session.
    Client(Arc<Shared<T>>),
    /// A queue of this process.
    Here(Arc<Collector>),
}

impl<T> Receipt<T> {
    pub(super) const fn new(holder: Holder<T>, number: u64, id: u64, handed: Handed) -> Self {
        Self { holder, number, id, handed, open: true }
    }

    /// As [`Delivery::ack`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub fn ack(self) -> Ack {
        let number = self.number;
        self.finish(Ask::Ack { number }, Kind::Ack, |here| here.ack(number))
    }

    /// As [`Delivery::nack`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::nack`].
    pub fn nack(self) -> Ack {
        let number = self.number;
        let ask = Ask::Nack { number, delay_millis: 0 };
        self.finish(ask, Kind::Nack, |here| here.nack(number, None))
    }

    /// As [`Delivery::nack_after`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::nack`].
    pub fn nack_after(self, delay: Duration) -> Ack {
        // None at all is for the server to choose.
        let number = self.number;
        let ask = Ask::Nack { number, delay_millis: millis(delay).max(1) };
        self.finish(ask, Kind::Nack, |here| here.nack(number, Some(delay)))
    }

    /// As [`Delivery::extend`].
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    ///
    /// # Cancel safety
    /// As [`Delivery::extend`].
    pub async fn extend(&self, time: Duration) -> Result<(), AckError> {
        match &self.holder {
            Holder::Client(shared) => {
                let token = shared.line.extend(self.number, millis(time)).await;
                Asked::new(&shared.line, self.about(Kind::Extend), token).await
            }
            Holder::Here(here) => here.extend(self.number, time),
        }
    }

    /// As [`Delivery::ack_with`].
    ///
    /// # Errors
    /// As [`Delivery::ack_with`].
    ///
    /// # Cancel safety
    /// As [`Delivery::ack`].
    pub fn ack_with<R: Send + 'static>(mut self, results: &Sender<R>, value: R) -> AckWith<R> {
        let about = self.about(Kind::Ack);
        let asked = match &self.holder {
            Holder::Client(shared) => {
                let line = &shared.line;
                let token = match line.asks.chan().and_then(|chan| results.channel_in(&chan.core)) {
                    Some(channel) => {
                        let ask = Ask::AckWith { number: self.number, results: channel, value: &[] };
                        line.ask(ask, about, &ResultOf(results, &value))
                    }
                    None => Err(AckError::NoResults),
                };
                Asked::new(line, about, token)
            }
            Holder::Here(here) => here.ack_with(about, results, &value),
        };
        // What was not asked for leaves the delivery as it was, and it is given back when this is dropped.
        self.open = !asked.is_under_way();
        AckWith { asked, value: Some(value) }
    }

    fn finish(
        mut self,
        ask: Ask<'static>,
        kind: Kind,
        here: impl FnOnce(&Collector) -> Result<(), AckError>,
    ) -> Ack {
        self.open = false;
        let about = self.about(kind);
        Ack(match &self.holder {
            Holder::Client(shared) => Asked::new(&shared.line, about, shared.line.ask(ask, about, &Nothing)),
            Holder::Here(collector) => Asked::known(&collector.failures, about, here(collector)),
        })
    }

    const fn about(&self, kind: Kind) -> About {
        About { number: self.number, id: self.id, kind }
    }

    /// As [`Delivery::id`].
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// As [`Delivery::attempt`].
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.handed.attempts.saturating_add(1)
    }

    pub(super) fn give_back(mut self, pause: Duration) {
        self.open = false;
        self.let_go(Some(pause));
    }

    fn let_go(&self, pause: Option<Duration>) {
        match &self.holder {
            Holder::Client(shared) => {
                shared.line.give_back(self.number, pause.map_or(0, millis));
                shared.line.desk.forget(self.number);
            }
            // If it is another's by now, that is as good.
            Holder::Here(here) => _ = here.nack(self.number, pause),
        }
    }
}

impl<T> Drop for Receipt<T> {
    fn drop(&mut self) {
        if self.open {
            self.let_go(None);
        }
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
