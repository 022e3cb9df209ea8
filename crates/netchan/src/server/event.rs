//! What a server is told of its clients.

use std::fmt;
use std::sync::Arc;

use crate::hub::HostedInfo;
use crate::peer::Peer;
use crate::session::{Lossy, SessionCore, SessionEvent, SessionState, SessionStats};

/// Something that happened to a client's session. Comes after the data that was received from it before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEvent {
    /// The client, at the address it has, or had, last; this process itself for [`SessionEvent::Missed`].
    pub peer: Peer,
    /// What happened.
    pub event: SessionEvent,
}

/// What a server's sessions have been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Sessions so far.
    pub sessions: u64,
    /// Links that took the place of one that was lost, or that had served its time.
    pub resumes: u64,
    /// Values that this end sealed again because a link was lost before the client had them.
    pub values_replayed: u64,
    /// Bytes read from clients, handshakes not counted.
    pub bytes_in: u64,
    /// Bytes written to clients, handshakes not counted.
    pub bytes_out: u64,
    /// Bytes of values of clients that are here and that nobody has taken ([`Limits::kept_bytes_max`](crate::Limits::kept_bytes_max)).
    pub kept_bytes: u64,
    /// Channels that were closed because their clients made this end keep more than it may.
    pub over_limit: u64,
    /// Values of hosted channels that were handed out again.
    pub redelivered: u64,
    /// Values of hosted channels that nobody acknowledged in as many attempts as they may have.
    pub dead: u64,
    /// Sessions that waited for a connection and had to give way to others
    /// ([`Limits::suspended_per_identity_max`](crate::Limits::suspended_per_identity_max),
    /// [`Limits::suspended_max`](crate::Limits::suspended_max)).
    pub suspended_given_up: u64,
    /// Connections whose first flight was forgotten before it was out of date
    /// ([`Limits::gates_max`](crate::Limits::gates_max)).
    pub gates_forgotten: u64,
}

impl ServerStats {
    pub(super) fn add(&mut self, session: SessionStats) {
        self.sessions += 1;
        self.resumes += session.resumes;
        self.values_replayed += session.values_replayed;
        self.bytes_in += session.bytes_in;
        self.bytes_out += session.bytes_out;
    }

    pub(super) fn add_channel(&mut self, channel: &HostedInfo) {
        self.redelivered += channel.redelivered;
        self.dead += channel.dead;
    }
}

impl ServerEvent {
    /// How a client is doing.
    pub(super) fn now(core: &Arc<SessionCore>) -> Self {
        let event = match core.state() {
            SessionState::Connected => SessionEvent::Connected,
            SessionState::Suspended => {
                SessionEvent::Suspended { reason: "before this subscription".to_owned() }
            }
            SessionState::Gone(end) => SessionEvent::Gone(end),
        };
        Self { peer: core.peer(), event }
    }
}

impl Lossy for ServerEvent {
    fn missed(count: u64) -> Self {
        Self { peer: Peer::local(), event: SessionEvent::Missed(count) }
    }
}

impl fmt::Display for ServerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.peer, self.event)
    }
}
