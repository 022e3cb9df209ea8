//! Sessions without a link: how many a server keeps, who may go on with one, and what clients are told of limits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use netchan_proto::crypto::{Fingerprint, PeerHello, ProvenResume, RefusalCode};
use netchan_proto::id::{Epoch, SessionId};

use super::ServerCore;
use crate::error::SessionEnd;
use crate::session::SessionCore;

/// Sessions that are over and remembered, so that their clients can be told why: some hundred bytes each.
const OVER_MAX: usize = 1_024;

/// The longest reason that is kept with them; more is cut off.
const REASON_BYTES_MAX: usize = 256;

/// What every refused resume is told, whatever is wrong: who may not go on with a session learns nothing about it.
const UNKNOWN: &str = "there is no such session here";

/// Which sessions have no link.
#[derive(Default)]
pub(super) struct Suspended {
    by_owner: HashMap<Fingerprint, HashSet<SessionId>>,
    total: usize,
    /// Sessions that their clients have not confirmed yet, by key.
    arriving: HashMap<Fingerprint, usize>,
    /// What clients are told who come back for a session that is over, oldest first.
    over: VecDeque<Over>,
}

/// A session that ended without its client, which may not know.
struct Over {
    session_id: SessionId,
    owner: Fingerprint,
    code: RefusalCode,
    reason: String,
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
                "the server keeps {per_owner_max} sessions without a connection for one key; the limit is Limits::suspended_per_identity_max"
            )
        } else if self.total >= max {
            format!(
                "the server keeps {max} sessions without a connection; the limit is Limits::suspended_max"
            )
        } else {
            self.by_owner.entry(owner).or_default().insert(session_id);
            self.total += 1;
            return Ok(());
        };
        self.note_over(session_id, owner, RefusalCode::TooManySuspended, &reason);
        Err(reason)
    }

    fn note_over(&mut self, session_id: SessionId, owner: Fingerprint, code: RefusalCode, reason: &str) {
        let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
        self.over.push_back(Over { session_id, owner, code, reason });
        if self.over.len() > OVER_MAX {
            self.over.pop_front();
        }
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

    fn why_over(&self, owner: Fingerprint, session_id: SessionId) -> Option<(RefusalCode, String)> {
        let mut over = self.over.iter();
        let found = over.find(|over| over.session_id == session_id && over.owner == owner)?;
        Some((found.code, found.reason.clone()))
    }
}

impl ServerCore {
    /// Whether so many sessions of one key are on their way in that no more may come: none of them counts anywhere else.
    pub(super) fn is_crowded_by(&self, key: Fingerprint) -> bool {
        let arriving = self.suspended.lock().arriving.get(&key).copied().unwrap_or(0);
        arriving >= self.config.limits.suspended_per_identity_max.max(1)
    }

    /// A session begins, which its client has not confirmed.
    pub(super) fn note_arriving(&self, core: &SessionCore) {
        if let Some(key) = core.peer().fingerprint() {
            *self.suspended.lock().arriving.entry(key).or_default() += 1;
        }
    }

    /// Its client has confirmed it, or never will.
    pub(super) fn note_arrived(&self, core: &SessionCore) {
        let Some(key) = core.peer().fingerprint() else { return };
        let mut suspended = self.suspended.lock();
        if let Some(count) = suspended.arriving.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                suspended.arriving.remove(&key);
            }
        }
    }

    /// Whether a session may wait without a link.
    pub(super) fn note_suspended(&self, core: &Arc<SessionCore>) -> Result<(), SessionEnd> {
        let peer = core.peer();
        let (Some(owner), Some(session_id)) = (peer.fingerprint(), peer.session_id()) else { return Ok(()) };
        let config = &self.config;
        let added = self.suspended.lock().add(
            owner,
            session_id,
            config.limits.suspended_per_identity_max,
            config.limits.suspended_max,
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

    /// Remembers what was said to a client that may not have heard it: it is told when it comes back.
    pub(super) fn note_farewell(&self, core: &Arc<SessionCore>) {
        let peer = core.peer();
        if let (Some(farewell), Some(owner), Some(session_id)) =
            (core.farewell(), peer.fingerprint(), peer.session_id())
        {
            self.suspended.lock().note_over(session_id, owner, RefusalCode::SessionEnded, &farewell.text);
        }
    }

    /// Judges a Hello that asks to go on with a session (`SESS-15`).
    pub(super) fn judge_resume(
        &self,
        hello: &PeerHello,
        session_id: SessionId,
    ) -> Result<(Epoch, ProvenResume), NotResumable> {
        let unknown =
            |why: String| NotResumable { code: RefusalCode::SessionUnknown, told: UNKNOWN.to_owned(), why };
        let session = self.sessions.lock().get(&session_id).cloned();
        let Some(session) = session else {
            let over = self.suspended.lock().why_over(hello.fingerprint, session_id);
            return Err(match over {
                Some((code, told)) => {
                    NotResumable { code, why: format!("session {session_id}: {told}"), told }
                }
                None => unknown(format!("session {session_id}: {UNKNOWN}")),
            });
        };
        match session.with_server_links(|links| links.judge(hello)) {
            Some(Ok(granted)) => Ok(granted),
            Some(Err(refusal)) => Err(unknown(format!("session {session_id}: {refusal}"))),
            None => Err(unknown(format!("session {session_id} is none of a server's"))),
        }
    }
}

/// Why a client may not go on with a session.
pub(super) struct NotResumable {
    pub(super) code: RefusalCode,
    /// What it hears of it.
    pub(super) told: String,
    /// The whole truth.
    pub(super) why: String,
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
        assert!(suspended.why_over(ME, id(3)).is_some());
        assert!(suspended.why_over(YOU, id(3)).is_none(), "its owner alone is told");
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
        assert_eq!((suspended.over.len(), suspended.total), (OVER_MAX, 0));
    }
}
