//! Settings of servers and dialers. Every default is one that most programs keep.

use std::time::Duration;

use netchan_proto::crypto::RekeyLimits;

use crate::identity::Identity;
use crate::limits::{DecodeLimits, Limits};
use crate::policy::PolicySource;
use crate::transport::Transports;

/// Settings of [`listen_and_serve`](crate::listen_and_serve) and [`dial`](crate::dial).
///
/// ```
/// let mut config = netchan::Config::default();
/// config.identity = Some(netchan::Identity::generate());
/// config.open_timeout = std::time::Duration::from_secs(30);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Who this end is. Default: a new key each time; a server then also has a new access secret, so tickets end with it.
    /// Use [`Identity::load_or_generate`] to keep both over restarts.
    pub identity: Option<Identity>,
    /// Addresses for the ticket, where what the server listens on is not what clients dial (NAT, containers). Default:
    /// what it listens on, or the machine's addresses if that is unspecified.
    pub advertise: Vec<String>,
    /// What moves the bytes, by scheme. Default: `tcp`, `unix` and `memory`.
    pub transports: Transports,
    /// Who may do what at a server: whoever holds a ticket everything, unless a policy says more.
    pub policy: PolicySource,
    /// What this end lets others make it hold, do and wait for: every ceiling there is.
    pub limits: Limits,
    /// How long an open waits to be accepted where the name is not hosted. Default 5 s.
    pub open_timeout: Duration,
    /// Whether a client may come in that knows the server's key but not its access secret. Default: no.
    pub admit_without_secret: bool,
    /// When a channel's key is renewed. Default: 4 GiB, 2^22 records or 10 minutes; more counts as that.
    pub rekey: RekeyLimits,
    /// How long a session without a connection is kept, to be gone on with. Default 300 s; the shorter of both ends' holds.
    /// Zero ends it with its connection.
    pub session_lifetime: Duration,
    /// A peer that has been silent for so long is asked for a sign of life. Default 3 s.
    pub keepalive_idle: Duration,
    /// A connection on which nothing came for so long is given up. Default 10 s.
    pub keepalive_dead: Duration,
    /// A client sets up a new connection, with new keys, beside the old one after this long, and goes over to it. Default 1 h.
    pub renew_after: Duration,
    /// The same after so many bytes both ways. Default 1 TiB.
    pub renew_bytes: u64,
    /// What a server does with a client whose key has a session already. Default: both stay, told apart by their sessions.
    pub duplicate_sessions: DuplicateSessions,
    /// How often a server tells the `metrics` facade how much is where. Default 10 s; zero: never.
    ///
    /// Each has the label `server`, the address it listens on first. Gauges: `netchan_sessions`,
    /// `netchan_sessions_suspended`, `netchan_kept_bytes`, and by `channel` `netchan_channel_depth`, `_in_flight`, `_unacked`, `_credit`, `_receivers`,
    /// `_senders_waiting`, `_bytes`. Counters: `netchan_sessions_total`, `netchan_resumes_total`,
    /// `netchan_values_replayed_total`, `netchan_bytes_in_total`, `netchan_bytes_out_total`, `netchan_sessions_given_up_total`,
    /// `netchan_gates_forgotten_total`, `netchan_over_limit_total`, by `channel`
    /// `netchan_channel_values_total`, `_redelivered_total`, `_dead_total`, `_lagged_total`; as they happen
    /// `netchan_handshakes_total` by `outcome` and `netchan_session_events_total` by `event`.
    pub metrics_period: Duration,
}

/// What a server does with a client whose key has a session already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DuplicateSessions {
    /// Both stay: many programs may share a key. The default.
    #[default]
    Allow,
    /// The newcomer is refused while the other has a connection. One that has none gives way: it may be a program that was
    /// started again. A connection that died without a word counts until the server finds it dead
    /// ([`Config::keepalive_dead`]): for so long such a program is refused.
    Refuse,
    /// The newcomer takes the place of the others, which are disconnected.
    Replace,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: None,
            advertise: Vec::new(),
            transports: Transports::default(),
            policy: PolicySource::default(),
            limits: Limits::default(),
            open_timeout: Duration::from_secs(5),
            admit_without_secret: false,
            rekey: RekeyLimits::default(),
            session_lifetime: Duration::from_secs(300),
            keepalive_idle: Duration::from_secs(3),
            keepalive_dead: Duration::from_secs(10),
            renew_after: Duration::from_secs(3_600),
            renew_bytes: 1 << 40,
            duplicate_sessions: DuplicateSessions::Allow,
            metrics_period: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The default settings with an identity.
    #[must_use]
    pub fn with_identity(identity: Identity) -> Self {
        Self { identity: Some(identity), ..Self::default() }
    }

    pub(crate) fn session_limits(&self) -> SessionLimits {
        let limits = &self.limits;
        SessionLimits {
            // A fragment counts its message's bytes in 32 bits.
            message_bytes_max: limits.message_bytes_max.min(u32::MAX as usize),
            window_bytes: limits.window_bytes.max(1),
            window_bytes_max: limits.window_bytes_max.max(limits.window_bytes).max(1),
            channels_max: limits.channels_max,
            opens_per_second: limits.opens_per_second,
            opens_at_once_max: limits.opens_at_once_max,
            offers_pending_max: limits.offers_pending_max,
            write_stall_max: limits.write_stall_max.min(FOREVER),
            decode: limits.decode(),
            open_timeout: self.open_timeout,
            rekey: clamped(self.rekey),
            session_lifetime: self.session_lifetime.min(FOREVER),
            keepalive_idle: self.keepalive_idle.min(FOREVER),
            keepalive_dead: self.keepalive_dead.max(self.keepalive_idle).min(FOREVER),
            renew_after: self.renew_after.min(FOREVER),
            renew_bytes: self.renew_bytes.max(1),
        }
    }
}

/// What a session needs of its [`Config`].
#[derive(Clone, Debug)]
pub(crate) struct SessionLimits {
    pub(crate) message_bytes_max: usize,
    pub(crate) window_bytes: u64,
    pub(crate) window_bytes_max: u64,
    pub(crate) channels_max: usize,
    pub(crate) opens_per_second: u32,
    pub(crate) opens_at_once_max: u32,
    pub(crate) offers_pending_max: usize,
    pub(crate) write_stall_max: Duration,
    pub(crate) decode: DecodeLimits,
    pub(crate) open_timeout: Duration,
    pub(crate) rekey: RekeyLimits,
    pub(crate) session_lifetime: Duration,
    pub(crate) keepalive_idle: Duration,
    pub(crate) keepalive_dead: Duration,
    pub(crate) renew_after: Duration,
    pub(crate) renew_bytes: u64,
}

/// What a time counts as that is meant to be none: far off, and no danger to sums of times.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The protocol's limits hold whatever is asked for (`REC-8`).
fn clamped(limits: RekeyLimits) -> RekeyLimits {
    let most = RekeyLimits::default();
    RekeyLimits {
        bytes: limits.bytes.min(most.bytes),
        records: limits.records.min(most.records),
        millis: limits.millis.min(most.millis),
    }
}
