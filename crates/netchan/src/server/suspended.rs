//! Sessions without a link: how many a server keeps, who may go on with one, and what clients are told of limits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
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

/// Newcomers leave the places of this part of all sessions to those that wait for another connection, as far as there are any. A
/// quarter: enough for the clients that a broken switch cuts off to come back, and no more of the server than that can be taken by
/// programs that crash and start again (`PORT-11`).
const SUSPENDED_SHARE: usize = 4;

/// Which sessions have no link.
///
/// Invariants: a session of `places` is in `by_owner` under its key and number, and nowhere else; `by_count` has each key of
/// `by_owner` once, with how many it has.
#[derive(Default)]
pub(super) struct Suspended {
    /// Each key's, in the order in which they lost their links.
    by_owner: HashMap<Fingerprint, BTreeMap<u64, SessionId>>,
    by_count: BTreeSet<(usize, Fingerprint)>,
    places: HashMap<SessionId, (Fingerprint, u64)>,
    next: u64,
    /// Sessions that had to give way to others, so far.
    given_up: u64,
    /// Sessions that their clients have not confirmed yet, by key.
    arriving: HashMap<Fingerprint, usize>,
    /// What clients are told who come back for a session that is over, oldest first.
    over: VecDeque<Over>,
}

/// A session that gives way to another without a link.
#[derive(Debug, PartialEq, Eq)]
struct GivesWay {
    session_id: SessionId,
    reason: String,
}

/// A session that ended without its client, which may not know.
struct Over {
    session_id: SessionId,
    owner: Fingerprint,
    code: RefusalCode,
    reason: String,
}

impl Suspended {
    /// A session waits for another link. Where too many do, one of them gives way: the oldest of its own key if that has more than
    /// it may, or else the oldest of the key that has most.
    fn add(
        &mut self,
        owner: Fingerprint,
        session_id: SessionId,
        per_owner_max: usize,
        max: usize,
    ) -> Option<GivesWay> {
        if self.places.contains_key(&session_id) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.places.insert(session_id, (owner, number));
        let own = self.by_owner.entry(owner).or_default();
        own.insert(number, session_id);
        let count = own.len();
        self.recount(owner, count - 1, count);
        let (from, reason) = if count > per_owner_max {
            let reason = format!(
                "the server keeps {per_owner_max} sessions without a connection for one key; the limit is Limits::suspended_per_identity_max"
            );
            (owner, reason)
        } else if self.places.len() > max {
            let (_, most) = self.by_count.last()?;
            let reason = format!(
                "the server keeps {max} sessions without a connection; the limit is Limits::suspended_max"
            );
            (*most, reason)
        } else {
            return None;
        };
        let (_, &session_id) = self.by_owner.get(&from)?.first_key_value()?;
        self.remove(session_id);
        self.given_up += 1;
        self.note_over(session_id, from, RefusalCode::TooManySuspended, &reason);
        Some(GivesWay { session_id, reason })
    }

    fn recount(&mut self, owner: Fingerprint, before: usize, now: usize) {
        self.by_count.remove(&(before, owner));
        if now > 0 {
            self.by_count.insert((now, owner));
        }
    }

    fn remove(&mut self, session_id: SessionId) {
        let Some((owner, number)) = self.places.remove(&session_id) else { return };
        let Some(own) = self.by_owner.get_mut(&owner) else { return };
        own.remove(&number);
        let count = own.len();
        if count == 0 {
            self.by_owner.remove(&owner);
        }
        self.recount(owner, count + 1, count);
    }

    fn note_over(&mut self, session_id: SessionId, owner: Fingerprint, code: RefusalCode, reason: &str) {
        let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
        self.over.push_back(Over { session_id, owner, code, reason });
        if self.over.len() > OVER_MAX {
            self.over.pop_front();
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

    /// A session waits without a link. It, or another, may have to give way.
    pub(super) fn note_suspended(&self, core: &Arc<SessionCore>) {
        let peer = core.peer();
        let (Some(owner), Some(session_id)) = (peer.fingerprint(), peer.session_id()) else { return };
        let limits = &self.config.limits;
        let gives_way = self.suspended.lock().add(
            owner,
            session_id,
            limits.suspended_per_identity_max,
            limits.suspended_max,
        );
        let Some(GivesWay { session_id, reason }) = gives_way else { return };
        let session = self.sessions.lock().get(&session_id).cloned();
        if let Some(session) = session {
            tracing::warn!(peer = %session.peer(), %reason, "session given up");
            session.give_up(SessionEnd::Lost(reason));
        }
    }

    /// Whether there is room for another session: those that wait for a connection take a part of the places, however many they
    /// are (`PORT-11`).
    pub(super) fn has_room(&self, sessions_max: usize) -> bool {
        let sessions = self.sessions.lock().len();
        let suspended = self.suspended.lock().places.len().min(sessions);
        sessions - suspended + suspended.min(sessions_max / SUSPENDED_SHARE) < sessions_max
    }

    /// Whether there is room for a session that had to wait for its connection. One whose connection is not known to be lost has its
    /// place.
    pub(super) fn may_come_back(&self, session_id: SessionId, sessions_max: usize) -> bool {
        let sessions = self.sessions.lock().len();
        let places = &self.suspended.lock().places;
        !places.contains_key(&session_id) || sessions - places.len().min(sessions) < sessions_max
    }

    /// Sessions that had to give way to others while they waited for a connection, so far.
    pub(super) fn suspended_given_up(&self) -> u64 {
        self.suspended.lock().given_up
    }

    /// The sessions of one key that are here now.
    pub(super) fn sessions_of(&self, key: Fingerprint) -> Vec<Arc<SessionCore>> {
        let sessions = self.sessions();
        sessions.into_iter().filter(|session| session.peer().fingerprint() == Some(key)).collect()
    }

    pub(super) fn note_resumed(&self, core: &Arc<SessionCore>) {
        let peer = core.peer();
        if let Some(session_id) = peer.session_id() {
            self.suspended.lock().remove(session_id);
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

    const EACH: usize = 2;
    const ALL: usize = 4;

    fn gives_way(suspended: &mut Suspended, owner: Fingerprint, n: u8) -> Option<SessionId> {
        suspended.add(owner, id(n), EACH, ALL).map(|gives_way| gives_way.session_id)
    }

    #[test]
    fn port_11_the_oldest_of_the_key_that_has_most_gives_way() {
        let mut suspended = Suspended::default();
        let other = |n| Fingerprint([n; 32]);
        assert_eq!(gives_way(&mut suspended, ME, 1), None);
        assert_eq!(gives_way(&mut suspended, ME, 1), None, "twice is once");
        assert_eq!(gives_way(&mut suspended, ME, 2), None);
        assert_eq!(gives_way(&mut suspended, ME, 3), Some(id(1)), "a key has its own bound");
        assert!(
            suspended.why_over(ME, id(1)).is_some_and(|(_, why)| why.contains("suspended_per_identity_max"))
        );
        assert!(suspended.why_over(YOU, id(1)).is_none(), "its owner alone is told");
        assert_eq!(gives_way(&mut suspended, YOU, 4), None);
        assert_eq!(gives_way(&mut suspended, other(3), 5), None);
        assert_eq!(gives_way(&mut suspended, other(4), 6), Some(id(2)), "of the key that has most");
        assert!(suspended.why_over(ME, id(2)).is_some_and(|(_, why)| why.contains("suspended_max")));
        suspended.remove(id(4));
        suspended.remove(id(4));
        assert_eq!(gives_way(&mut suspended, other(5), 7), None);
        assert_eq!((suspended.places.len(), suspended.given_up), (4, 2));
        for n in [3, 5, 6, 7] {
            suspended.remove(id(n));
        }
        assert!(
            suspended.by_owner.is_empty() && suspended.by_count.is_empty() && suspended.places.is_empty()
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut suspended = Suspended::default();
        for n in 0..3_000_u128 {
            let session_id = SessionId(n.to_be_bytes());
            assert_eq!(suspended.add(ME, session_id, 0, 0).map(|it| it.session_id), Some(session_id));
        }
        assert_eq!((suspended.over.len(), suspended.places.len()), (OVER_MAX, 0));
    }
}
