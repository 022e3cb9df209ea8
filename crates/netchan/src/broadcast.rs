//! The server's handle of a broadcast.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::ready;

use bytes::Bytes;
use netchan_proto::channel::PushError;
use netchan_proto::hosted::NotSent;
use tokio::task::coop;

use crate::codec::{Codec, EncodeError};
use crate::error::{AssignError, CloseReason, SendError, TrySendError};
use crate::hub::{Cast, Engine, HostedInfo, VALUE};
use crate::limits::MessageLimits;
use crate::options::WhenSlow;
use crate::receiver::Receiver;
use crate::wait::Ticket;

/// Sends values of one type to every subscriber of a broadcast that this server hosts.
///
/// Every subscriber, here or at a client, gets what is [assigned](Self::assign) when it comes, in order, and then every value
/// from there on, without a gap between. A value is encoded once and kept once, however many there are. One that is slow loses
/// values and is told exactly how many, unless it asked for something else ([`WhenSlow`]); it delays nobody.
///
/// Clones share the broadcast. When the last is dropped, it is closed, unless clients may send into it.
pub struct Broadcast<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    cast: Arc<Cast>,
    codec: Arc<dyn Codec<T>>,
    limits: MessageLimits,
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if !self.cast.spec().access.may_send {
            self.cast.close(CloseReason::new(0, ""));
        }
    }
}

/// Leaves the queue of senders when the future that waits in it is dropped.
struct Waiting<'a> {
    cast: &'a Cast,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.cast.leave_senders(&mut self.ticket);
    }
}

/// Why a value was not sent, without the value.
enum Failure {
    Closed(CloseReason),
    TooLarge(usize),
    Encode(EncodeError),
}

impl Failure {
    fn with<V>(self, value: V) -> SendError<V> {
        match self {
            Self::Closed(reason) => SendError::Closed { value, reason },
            Self::TooLarge(bytes_max) => SendError::TooLarge { value, bytes_max },
            Self::Encode(error) => SendError::Encode { value, error },
        }
    }
}

impl<T: Send + 'static> Broadcast<T> {
    pub(crate) fn new(cast: Arc<Cast>, codec: Arc<dyn Codec<T>>, limits: MessageLimits) -> Self {
        Self { shared: Arc::new(Shared { cast, codec, limits }) }
    }

    /// Sends a value to those who subscribe now. It waits only for subscribers that [block](WhenSlow::Block).
    ///
    /// # Errors
    /// [`SendError`], with the value.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, nothing was sent.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.publish(&value, false).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.closed_error().with(value)),
            Err(failure) => Err(failure.with(value)),
        }
    }

    /// Sends a value if that can be done at once.
    ///
    /// # Errors
    /// [`TrySendError::Full`] when a subscriber that blocks has no room.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let bytes = match self.encode(&value) {
            Ok(bytes) => bytes,
            Err(failure) => return Err(TrySendError::Send(failure.with(value))),
        };
        match self.shared.cast.publish_now(&bytes) {
            Ok(()) => Ok(()),
            Err(NotSent::Full) => Err(TrySendError::Full(value)),
            Err(NotSent::Closed | NotSent::TooManyAssigned) => {
                Err(TrySendError::Send(self.closed_error().with(value)))
            }
        }
    }

    /// Sends a value to those who subscribe now, and keeps it for those who come later: they receive all kept values first.
    ///
    /// # Errors
    /// [`AssignError`], with the value; [`AssignError::TooMany`] when more would be kept than 65,536 values or 64 MiB.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, nothing was sent or kept.
    pub async fn assign(&self, value: T) -> Result<(), AssignError<T>> {
        match self.publish(&value, true).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NotSent::TooManyAssigned)) => Err(AssignError::TooMany(value)),
            Ok(Err(_)) => Err(AssignError::Send(self.closed_error().with(value))),
            Err(failure) => Err(AssignError::Send(failure.with(value))),
        }
    }

    /// Replaces the kept values in one step: whoever subscribes later gets all of these and none of the old. Those who
    /// subscribe now get nothing; [`send`](Self::send) tells them what has changed.
    ///
    /// # Errors
    /// [`AssignError`], with the values; the old ones stay then.
    pub fn set_assignments(&self, values: Vec<T>) -> Result<(), AssignError<Vec<T>>> {
        let encoded: Result<Vec<Bytes>, Failure> = values.iter().map(|value| self.encode(value)).collect();
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(failure) => return Err(AssignError::Send(failure.with(values))),
        };
        match self.shared.cast.set_assignments(encoded) {
            Ok(()) => Ok(()),
            Err(NotSent::TooManyAssigned) => Err(AssignError::TooMany(values)),
            Err(_) => Err(AssignError::Send(self.closed_error().with(values))),
        }
    }

    /// Subscribes in this process. `None` once the broadcast is closed.
    #[must_use]
    pub fn subscribe(&self, when_slow: WhenSlow) -> Option<Receiver<T>> {
        let Shared { cast, codec, limits } = &*self.shared;
        let key = cast.subscribe(when_slow.into())?;
        Some(Receiver::subscribed(Arc::clone(cast), key, Arc::clone(codec), *limits))
    }

    /// How many subscribe now, here and at clients, those included whose connection is gone for the moment.
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        self.shared.cast.subscriber_count()
    }

    /// Bytes that are kept: of assigned values, and of the last values for slow subscribers.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.shared.cast.held_bytes()
    }

    /// What is in it: subscribers, how far the slowest is behind, bytes.
    #[must_use]
    pub fn stats(&self) -> HostedInfo {
        self.shared.cast.survey()
    }

    /// Closes it: subscribers receive what was sent before, then the end.
    pub fn close(&self) {
        self.close_with(CloseReason::new(0, ""));
    }

    /// As [`close`](Self::close), with a reason.
    pub fn close_with(&self, reason: CloseReason) {
        self.shared.cast.close(reason);
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.cast.closed().is_some()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.cast.spec().name
    }

    async fn publish(&self, value: &T, assigned: bool) -> Result<Result<(), NotSent>, Failure> {
        let bytes = self.encode(value)?;
        let mut waiting = Waiting { cast: &self.shared.cast, ticket: None };
        let sent = poll_fn(|cx| {
            let budget = ready!(coop::poll_proceed(cx));
            let sent = ready!(waiting.cast.poll_publish(cx, &mut waiting.ticket, assigned, &bytes));
            budget.made_progress();
            std::task::Poll::Ready(sent)
        })
        .await;
        Ok(sent)
    }

    fn encode(&self, value: &T) -> Result<Bytes, Failure> {
        let Shared { cast, codec, limits } = &*self.shared;
        let mut cx = limits.encoding(&cast.spec().name);
        // The head takes nothing from the value.
        let encoded = netchan_proto::channel::encode_alone(limits.bytes_max + 1, |item| {
            item.push(VALUE)?;
            codec.encode(value, &mut cx, item)
        });
        encoded.map_err(|error| match error {
            PushError::TooLarge { .. } => Failure::TooLarge(limits.bytes_max),
            PushError::Encode(error) => Failure::Encode(error),
            PushError::Full | PushError::Closed => Failure::Closed(CloseReason::new(0, "")),
        })
    }

    fn closed_error(&self) -> Failure {
        Failure::Closed(self.shared.cast.closed().unwrap_or_else(|| CloseReason::new(0, "")))
    }
}

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Send + 'static> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("name", &self.name()).finish_non_exhaustive()
    }
}
