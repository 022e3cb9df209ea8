//! Settings of one channel.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{Codec, Message, Postcard, Raw, type_label};

/// What becomes of a channel that a client opened by its name when its session is truly lost: because it had no connection
/// for longer than [`Config::session_lifetime`](crate::Config::session_lifetime) at the server, or because the server started
/// anew. A lost connection alone loses nothing, whatever the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossPolicy {
    /// The handles end with [`SendError::Lost`](crate::SendError::Lost) or [`RecvError::Lost`](crate::RecvError::Lost), and
    /// [`Sender::take_unsettled`](crate::Sender::take_unsettled) gives back what was not known taken. The default.
    #[default]
    Fail,
    /// The channel is opened again by its name once there is a session, waiting for the name to be hosted. What was not known
    /// taken is sent again first, what may have been received flagged as redelivered: at least once.
    Resend,
    /// As [`Resend`](Self::Resend), but what was not known taken is dropped: at most once.
    Drop,
}

/// How values are delivered to those who acknowledge them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryLimits {
    /// Values out to one holder at once.
    pub(crate) unacked_max: u64,
    /// How long a holder that cannot be reached keeps what it has.
    pub(crate) grace: Duration,
    /// How long a holder keeps one without a word, if that is bounded.
    pub(crate) lease: Option<Duration>,
    pub(crate) attempts_max: Option<u32>,
}

/// Settings of one channel at this end: how its values are encoded, what their type is called, how many may wait.
///
/// ```
/// use netchan::ChannelOptions;
///
/// let prefetching = ChannelOptions::<u64>::default().prefetch(64);
/// let raw = ChannelOptions::raw(); // for `bytes::Bytes`, without a copy beyond sealing
/// ```
pub struct ChannelOptions<T> {
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) label: String,
    pub(crate) fingerprint: Option<[u8; 16]>,
    pub(crate) capacity: u64,
    pub(crate) prefetch: u64,
    pub(crate) on_loss: LossPolicy,
    pub(crate) deliveries: DeliveryLimits,
    pub(crate) bytes_max: u64,
    pub(crate) when_slow: Option<WhenSlow>,
    pub(crate) clients_may_send: bool,
}

/// What becomes of a subscriber of a broadcast that is so slow that there is no room for the next value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenSlow {
    /// It loses the oldest values, and [is told](crate::RecvError::Lagged) exactly how many. The default.
    #[default]
    Lag,
    /// Senders wait for it: it loses nothing. Only where the server hosts the broadcast so.
    Block,
    /// It is [disconnected](crate::RecvError::TooSlow) rather than lose anything unnoticed.
    Disconnect,
}

impl From<WhenSlow> for netchan_proto::hosted::WhenSlow {
    fn from(when_slow: WhenSlow) -> Self {
        match when_slow {
            WhenSlow::Lag => Self::Lag,
            WhenSlow::Block => Self::Block,
            WhenSlow::Disconnect => Self::Disconnect,
        }
    }
}

/// How long a holder that cannot be reached keeps its deliveries, unless told otherwise: a killed process and a cut link look
/// alike, and most links that come back do so within it.
const DELIVERY_GRACE_DEFAULT: Duration = Duration::from_millis(500);

/// Deliveries out to one holder at once, unless told otherwise: enough for its prefetch, few enough to lose.
const UNACKED_MAX_DEFAULT: u64 = 256;

/// The most deliveries out to one holder: each is memory at the server.
const UNACKED_MAX_MAX: u64 = 1 << 20;

/// The capacity of a direct channel that this end opens to receive from, unless told otherwise.
pub(crate) const CAPACITY_DEFAULT: u64 = 64;

/// Half of what a server takes from one receiver (`HOST-21`): the other half is for receives that wait.
const PREFETCH_MAX: u64 = netchan_proto::hosted::DEMAND_UNITS_MAX / 2;

impl<T: 'static> ChannelOptions<T> {
    /// With a codec of your own.
    #[must_use]
    pub fn with_codec(codec: impl Codec<T>) -> Self {
        Self {
            codec: Arc::new(codec),
            label: type_label::<T>(),
            fingerprint: None,
            capacity: CAPACITY_DEFAULT,
            prefetch: 0,
            on_loss: LossPolicy::Fail,
            deliveries: DeliveryLimits {
                unacked_max: UNACKED_MAX_DEFAULT,
                grace: DELIVERY_GRACE_DEFAULT,
                lease: None,
                attempts_max: Some(netchan_proto::limits::ATTEMPTS_MAX_DEFAULT),
            },
            bytes_max: netchan_proto::limits::QUEUE_BYTES_MAX_DEFAULT,
            when_slow: None,
            clients_may_send: false,
        }
    }

    /// What the type of the values is called; both ends must say the same. Default: the type's name without module paths.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A fingerprint of the type's structure; where both ends have one, they must be equal.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: [u8; 16]) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// The capacity in items, where this end opens a direct channel to receive from. Default 64. Hosted channels have the
    /// capacity they were hosted with; whoever accepts an offer says its capacity there.
    #[must_use]
    pub fn capacity(mut self, items: usize) -> Self {
        self.capacity = items as u64;
        self
    }

    /// Values of a hosted channel that may come here ahead of any `recv`. Default 0: each goes to whoever has waited
    /// longest. More is faster, and less fair; over 32,768 counts as that.
    #[must_use]
    pub fn prefetch(mut self, items: usize) -> Self {
        self.prefetch = (items as u64).min(PREFETCH_MAX);
        self
    }

    /// What becomes of the channel when its session is lost. Default: [`LossPolicy::Fail`]. Only for channels that a client
    /// opens; one that the peer opened ends with its session.
    #[must_use]
    pub fn on_loss(mut self, policy: LossPolicy) -> Self {
        self.on_loss = policy;
        self
    }

    /// Where a server hosts the channel: how many values one [subscription](crate::Session::deliveries) may have that it has not
    /// acknowledged, or has [put off](crate::Delivery::nack_after). Default 256, at least 1, at most 2^20.
    #[must_use]
    pub fn unacked_max(mut self, items: usize) -> Self {
        self.deliveries.unacked_max = (items as u64).clamp(1, UNACKED_MAX_MAX);
        self
    }

    /// Where a server hosts the channel: how long a client whose connection is gone keeps its deliveries before others get
    /// them. Default 500 ms.
    #[must_use]
    pub fn delivery_grace(mut self, grace: Duration) -> Self {
        self.deliveries.grace = grace;
        self
    }

    /// What becomes of a slow subscriber of a broadcast. Where a server hosts it, of those that do not say; where a client
    /// subscribes, of this one. Default: [`WhenSlow::Lag`].
    #[must_use]
    pub fn when_slow(mut self, when_slow: WhenSlow) -> Self {
        self.when_slow = Some(when_slow);
        self
    }

    /// Where a server hosts a broadcast: whether clients may send into it too. Default: no.
    #[must_use]
    pub fn clients_may_send(mut self, may: bool) -> Self {
        self.clients_may_send = may;
        self
    }

    /// Where a server hosts the channel: in how many attempts a delivery must be acknowledged. Then the value goes to
    /// [`Server::dead_letters`](crate::Server::dead_letters), as long as there is room for it; while there is none, it is
    /// tried again. What nobody receives there stays until the server ends. Default: 16; a value that is refused rests between
    /// its attempts, from 50 ms to half a minute.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.deliveries.attempts_max = Some(attempts.max(1));
        self
    }

    /// Where a server hosts the channel: a delivery is tried again until somebody acknowledges it, however often that takes.
    #[must_use]
    pub fn unlimited_attempts(mut self) -> Self {
        self.deliveries.attempts_max = None;
        self
    }

    /// Where a server hosts the channel: a client that is connected loses a delivery of which it has said nothing for `lease`,
    /// in milliseconds at the finest; [`Delivery::extend`](crate::Delivery::extend) renews it. Default: none: a task may take as
    /// long as it takes, while its worker is there.
    #[must_use]
    pub fn delivery_lease(mut self, lease: Duration) -> Self {
        self.deliveries.lease = Some(lease.max(Duration::from_millis(1)));
        self
    }

    /// Where a server hosts the channel: senders wait while the values in it have so many bytes or more. Default: 64 MiB.
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes.max(1);
        self
    }
}

impl<T: Message> Default for ChannelOptions<T> {
    /// Encoded by [`Postcard`](crate::codec::Postcard).
    fn default() -> Self {
        Self::with_codec(Postcard)
    }
}

impl ChannelOptions<Bytes> {
    /// Bytes as they are.
    #[must_use]
    pub fn raw() -> Self {
        Self::with_codec(Raw)
    }
}

impl<T> Clone for ChannelOptions<T> {
    fn clone(&self) -> Self {
        Self {
            codec: Arc::clone(&self.codec),
            label: self.label.clone(),
            fingerprint: self.fingerprint,
            capacity: self.capacity,
            prefetch: self.prefetch,
            on_loss: self.on_loss,
            deliveries: self.deliveries,
            bytes_max: self.bytes_max,
            when_slow: self.when_slow,
            clients_may_send: self.clients_may_send,
        }
    }
}

impl<T: 'static> fmt::Debug for ChannelOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelOptions")
            .field("codec", &self.codec.name())
            .field("label", &self.label)
            .field("capacity", &self.capacity)
            .field("prefetch", &self.prefetch)
            .finish_non_exhaustive()
    }
}
