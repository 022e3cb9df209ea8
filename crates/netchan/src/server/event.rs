//! What a server is told of its clients.

use std::fmt;
use std::sync::Arc;

use crate::peer::Peer;
use crate::session::{Lossy, SessionCore, SessionEvent, SessionState};

/// Something that happened to a client's session. Comes after the data that was received from it before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEvent {
    /// The client, at the address it has, or had, last; this process itself for [`SessionEvent::Missed`].
    pub peer: Peer,
    /// What happened.
    pub event: SessionEvent,
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
