//! Who may do what: the trait that a server asks, and the policy file.
//!
//! A [`Policy`] is asked when a peer connects, when it resumes a session and when it opens a channel, never for a value.
//! [`TicketHolders`] is the one that servers start with. [`PolicyFile`] reads rules from TOML:
//!
//! ```toml
//! [peer.worker-7]                       # a key with a name
//! key = "SHA256:sfgVV1DbkhmXojgpTyRfP+UKeikfICiSm3YCMr4fNmA"
//! groups = ["workers"]                  # optional
//! expires = 2027-01-01                  # optional
//!
//! [[rule]]
//! who = "group:workers"
//! channel = "jobs.*"
//! allow = ["recv"]                      # allow or deny, or both for different actions
//! max_open = 16                         # optional, where the rule allows
//! ```
//!
//! - **Default deny.** What no rule allows is denied. A rule that denies wins over every rule that allows, wherever it
//!   stands. The first that denies decides, or else the first that allows.
//! - **`who`** is a peer's name, `"group:NAME"`, `"ticket"` (whoever holds an access secret), or `"everyone"` that the server
//!   lets connect at all.
//! - **`channel`** is a [`Pattern`]. `who`, `channel`, `allow`, `deny` and `groups` are each one string or several.
//! - **Actions** are seen from the client: `"send"` is to send into a channel of the server, `"recv"` to receive from it.
//! - **Connecting and resuming** need one rule that allows the peer anything. A rule that only denies lets nobody in.
//! - **`max_open`** bounds the channels that one key has open at once among those that its rule allows; those of a session that waits
//!   for its client count. Every rule that
//!   allows an open bounds it, not only the one that decides.
//! - **`expires`** is a date (from 00:00 UTC of that day on) or a date-time with its offset. A key whose time is over may do
//!   nothing at all, not even what `"ticket"` and `"everyone"` may: so a single key is revoked.
//!
//! Mistakes come with file, line and column, all of them at once. Keys that mean nothing, names that nobody has and
//! patterns that match nothing are mistakes, since a typo there would allow or deny in silence.
//!
//! ```
//! use std::time::SystemTime;
//!
//! use netchan::Identity;
//! use netchan::policy::{Action, Policy, PolicyFile, PolicyPeer, PolicyRequest};
//!
//! let policy = PolicyFile::parse(
//!     r#"
//!     [[rule]]
//!     who = "ticket"
//!     channel = "jobs.*"
//!     allow = ["recv"]
//!     "#,
//!     "policy.toml",
//! )?;
//!
//! let holder = PolicyPeer::new(Identity::generate().fingerprint(), true);
//! let receive = PolicyRequest::Open { channel: "jobs.build", action: Action::Receive };
//! let decision = policy.check(&holder, &receive, SystemTime::now());
//! assert!(decision.is_allowed());
//! assert_eq!(decision.why(), "rule 1 (policy.toml:2)");
//!
//! let send = PolicyRequest::Open { channel: "jobs.build", action: Action::Send };
//! assert!(!policy.check(&holder, &send, SystemTime::now()).is_allowed());
//! # Ok::<(), netchan::policy::PolicyError>(())
//! ```

mod error;
mod explain;
mod file;
mod link;
mod nesting;
mod origin;
mod pattern;
mod read;
mod source;
mod time;

use std::fmt;
use std::time::SystemTime;

pub use self::error::{ExplainError, PolicyError, PolicyProblem};
pub use self::explain::{ExplainedBound, ExplainedPeer, ExplainedRule, Explanation};
pub use self::file::{FILE_BYTES_MAX, PEERS_MAX, PolicyFile, RULES_MAX};
pub use self::origin::PolicySource;
pub use self::pattern::{PATTERN_BYTES_MAX, Pattern, PatternError};
pub use self::time::{TimeError, parse_time};
use crate::identity::Fingerprint;

/// What every peer is told that may not do something, whatever the reason: who probes learns nothing.
pub(crate) const DENIED: &str = "denied";

/// Decides who may do what.
///
/// It is asked on the way of handshakes and opens: answer from memory, let no call block, and call nothing of the server's. A panic
/// reaches whoever asked.
pub trait Policy: Send + Sync + fmt::Debug {
    /// Whether `peer` may do what it asks for, at the time `now`.
    fn check(&self, peer: &PolicyPeer, request: &PolicyRequest<'_>, now: SystemTime) -> Decision;

    /// When a decision may next change by the passing of time alone, after `now`; live sessions are checked again then.
    fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let _ = now;
        None
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PolicyPeer {
    /// The name of its key, which it has proved to hold.
    pub fingerprint: Fingerprint,
    /// Whether it came in with an access secret, as a ticket holds it.
    pub has_access_secret: bool,
}

impl PolicyPeer {
    /// The holder of a key, with or without an access secret.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, has_access_secret: bool) -> Self {
        Self { fingerprint, has_access_secret }
    }
}

/// What a client does with a channel of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It sends into the channel.
    Send,
    /// It receives from the channel.
    Receive,
}

impl Action {
    /// As policy files write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "recv",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PolicyRequest<'a> {
    /// To have a session.
    Connect,
    /// To go on with a session over a new connection.
    Resume,
    /// To open a channel.
    Open {
        /// Its name.
        channel: &'a str,
        /// What for.
        action: Action,
    },
}

/// What a policy says. The reason is for the server's audit only: peers are told no more than "denied".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// Go on.
    Allow {
        /// What decided, such as `rule 3 (policy.toml:14)`.
        why: String,
        /// How many channels may be open at once; each of them holds.
        bounds: Vec<OpenBound>,
    },
    /// Refuse.
    Deny {
        /// What decided, such as `rule 3 (policy.toml:14)`.
        why: String,
    },
}

impl Decision {
    /// Allowed, without bounds.
    #[must_use]
    pub fn allow(why: impl Into<String>) -> Self {
        Self::Allow { why: why.into(), bounds: Vec::new() }
    }

    /// Denied.
    #[must_use]
    pub fn deny(why: impl Into<String>) -> Self {
        Self::Deny { why: why.into() }
    }

    /// Whether it is allowed, bounds aside.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// What decided.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Allow { why, .. } | Self::Deny { why } => why,
        }
    }

    /// How many channels may be open at once; none where it is denied.
    #[must_use]
    pub fn bounds(&self) -> &[OpenBound] {
        match self {
            Self::Allow { bounds, .. } => bounds,
            Self::Deny { .. } => &[],
        }
    }
}

/// At most so many channels of one peer's key at a time, among those that carry the same id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenBound {
    /// Names the rule within its policy: its place, from zero on. Another policy's ids have nothing to do with it.
    pub id: u64,
    /// How many; at least one.
    pub max_open: usize,
    /// The rule, such as `rule 3 (policy.toml:14)`.
    pub rule: String,
}

impl OpenBound {
    /// A bound of a policy of one's own.
    #[must_use]
    pub fn new(id: u64, max_open: usize, rule: impl Into<String>) -> Self {
        Self { id, max_open, rule: rule.into() }
    }
}

/// Allows everything to whoever the server lets in.
///
/// Those are the holders of a ticket, and with
/// [`Config::admit_without_secret`](crate::Config::admit_without_secret) whoever knows the server's key.
#[derive(Clone, Copy, Debug, Default)]
pub struct TicketHolders;

impl Policy for TicketHolders {
    fn check(&self, peer: &PolicyPeer, _: &PolicyRequest<'_>, _: SystemTime) -> Decision {
        Decision::allow(if peer.has_access_secret {
            "holds an access secret"
        } else {
            "the server admits clients without a secret"
        })
    }
}
