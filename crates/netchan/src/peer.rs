//! Who is at the other end.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use netchan_proto::crypto::Fingerprint;
use netchan_proto::id::SessionId;

/// Names a peer: by its key, which is who it is, and by its session, which tells two processes with one key apart.
///
/// Peers are equal if these are, wherever they are: a session that goes on may do so from another address.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    remote: Option<(Fingerprint, SessionId)>,
    address: String,
}

impl Peer {
    pub(crate) fn new(fingerprint: Fingerprint, session_id: SessionId, address: String) -> Self {
        Self(Arc::new(Inner { remote: Some((fingerprint, session_id)), address }))
    }

    /// This very process: the peer of a value that a server's own handle sent into a channel it hosts.
    pub(crate) fn local() -> Self {
        Self(Arc::new(Inner { remote: None, address: "here".to_owned() }))
    }

    /// The fingerprint of its key; `None` for this process itself.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.0.remote.map(|(fingerprint, _)| fingerprint)
    }

    /// Its session; `None` for this process itself.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        self.0.remote.map(|(_, session_id)| session_id)
    }

    /// Where it is, for people: what the transport says.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Whether it is this process itself.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.remote.is_none()
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.0.remote == other.0.remote
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.remote.hash(state);
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.remote {
            Some((fingerprint, _)) => write!(f, "{fingerprint} at {}", self.0.address),
            None => f.write_str("this process"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({self})")
    }
}
