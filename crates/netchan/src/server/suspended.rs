//! Sessions without a link: how many a server keeps, who may go on with one, and what clients are told of limits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use netchan_proto::crypto::{Fingerprint, PeerHello, ProvenResume, RefusalCode};
use netchan_proto::id::{Epoch, SessionId};

use super::{ServerCore, ServerEvent};
use crate::error::SessionEnd;
use crate::session::{SessionCore, SessionEvent};

/// Sessions given up for a limit that are remembered, so that their clients can be told which: a few dozen bytes each.
const GIVEN_UP_MAX: usize = 1_024;

/// What every refused resume is told, whatever is wrong: who may not go on with a session learns nothing about it.
const UNKNOWN: &str = "there is no such session here";

/// Which sessions have no link.
#[derive(Default)]
pub(super) struct Suspended {
    by_owner: HashMap<Fingerprint, HashSet<SessionId>>,
    total: usize,
    /// Given up for a limit, oldest first.
    given_up: VecDeque<(SessionId, Fingerprint, String)>,
}

impl Suspended {
    fn add(
        &mut self,
        owner: Fingerprint,
        session_id: SessionId,
        per_owner_max: usize,
        max: usize,
    ) -> Result<(), String> {
        let own = self.by_owner.get(&owner);
        if own.is_some_and(|own| own.contains(&session_id)) {
            return Ok(());
        }
        let reason = if own.map_or(0, HashSet::len) >= per_owner_max {
            format!(
                "the server keeps {per_owner_max} sessions without a connection for one key; the limit is Config::suspended_per_identity_max"
            )
        } else if self.total >= max {
            format!(
                "the server keeps {max} sessions without a connection; the limit is Config::suspended_max"
            )
        } else {
            self.by_owner.entry(owner).or_default().insert(session_id);
            self.total += 1;
            return Ok(());
        };
        self.given_up.push_back((session_id, owner, reason.clone()));
        if self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        Err(reason)
    }

    fn remove(&mut self, owner: Fingerprint, session_id: SessionId) {
        let Some(own) = self.by_owner.get_mut(&owner) else { return };
        if own.remove(&session_id) {
            self.total -= 1;
        }
        if own.is_empty() {
            self.by_owner.remove(&owner);
        }
    }

    fn why_given_up(&self, owner: Fingerprint, session_id: SessionId) -> Option<&str> {
        let found = self.given_up.iter().find(|(id, of, _)| *id == session_id && *of == owner)?;
        Some(&found.2)
    }
}

impl ServerCore {
    /// Whether a session may wait without a link.
    pub(super) fn note_suspended(&self, core: &Arc<SessionCore>) -> Result<(), SessionEnd> {
        let peer = core.peer();
        let (Some(owner), Some(session_id)) = (peer.fingerprint(), peer.session_id()) else { return Ok(()) };
        let config = &self.config;
        let added = self.suspended.lock().add(
            owner,
            session_id,
            config.suspended_per_identity_max,
            config.suspended_max,
        );
        added.map_err(|reason| {
            tracing::warn!(%peer, %reason, "session given up");
            SessionEnd::Lost(reason)
        })
    }

    /// The sessions of one key that are here now.
    pub(super) fn sessions_of(&self, key: Fingerprint) -> Vec<Arc<SessionCore>> {
        let sessions = self.sessions();
        sessions.into_iter().filter(|session| session.peer().fingerprint() == Some(key)).collect()
    }

    pub(super) fn note_resumed(&self, core: &Arc<SessionCore>) {
        let peer = core.peer();
        if let (Some(owner), Some(session_id)) = (peer.fingerprint(), peer.session_id()) {
            self.suspended.lock().remove(owner, session_id);
        }
    }

    pub(super) fn publish(&self, core: &Arc<SessionCore>, event: SessionEvent) {
        super::metrics::session(&event);
        self.events.publish(ServerEvent { peer: core.peer(), event });
    }

    /// Judges a Hello that asks to go on with a session (`SESS-15`).
    pub(super) fn judge_resume(
        &self,
        hello: &PeerHello,
        session_id: SessionId,
    ) -> Result<(Epoch, ProvenResume), (RefusalCode, String)> {
        let session = self.sessions.lock().get(&session_id).cloned();
        let Some(session) = session else {
            let why = self.suspended.lock().why_given_up(hello.fingerprint, session_id).map(str::to_owned);
            return Err(match why {
                Some(reason) => (RefusalCode::TooManySuspended, reason),
                None => (RefusalCode::SessionUnknown, UNKNOWN.to_owned()),
            });
        };
        match session.with_server_links(|links| links.judge(hello)) {
            Some(Ok(granted)) => Ok(granted),
            Some(Err(refusal)) => {
                tracing::warn!(client = %hello.fingerprint, session = %session_id, %refusal, "resume refused");
                Err((RefusalCode::SessionUnknown, UNKNOWN.to_owned()))
            }
            None => Err((RefusalCode::SessionUnknown, UNKNOWN.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Fingerprint = Fingerprint([1; 32]);
    const YOU: Fingerprint = Fingerprint([2; 32]);

    fn id(n: u8) -> SessionId {
        SessionId([n; 16])
    }

    #[test]
    fn each_limit_holds_and_says_which_it_is() {
        let mut suspended = Suspended::default();
        assert!(suspended.add(ME, id(1), 2, 3).is_ok());
        assert!(suspended.add(ME, id(1), 2, 3).is_ok(), "twice is once");
        assert!(suspended.add(ME, id(2), 2, 3).is_ok());
        assert!(suspended.add(ME, id(3), 2, 3).unwrap_err().contains("suspended_per_identity_max"));
        assert!(suspended.add(YOU, id(4), 2, 3).is_ok());
        assert!(suspended.add(YOU, id(5), 2, 3).unwrap_err().contains("suspended_max"));
        assert!(suspended.why_given_up(ME, id(3)).is_some());
        assert!(suspended.why_given_up(YOU, id(3)).is_none(), "its owner alone is told");
        suspended.remove(ME, id(1));
        suspended.remove(ME, id(1));
        assert!(suspended.add(YOU, id(5), 2, 3).is_ok());
        assert_eq!(suspended.total, 3);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut suspended = Suspended::default();
        for n in 0..3_000_u128 {
            _ = suspended.add(ME, SessionId(n.to_be_bytes()), 0, 0);
        }
        assert_eq!((suspended.given_up.len(), suspended.total), (GIVEN_UP_MAX, 0));
    }
}
