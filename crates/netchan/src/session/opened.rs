//! What the peer has opened: what is kept for as long as it is, and how it is taken away.

use std::sync::Arc;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Open, RefuseCode};

use super::{Chan, Owner, SessionCore};
use crate::hold::Hold;
use crate::policy::{Action, PolicyPeer};

/// What a client has opened and was let have: from when its OPEN was judged until it has closed it, or, where the
/// owner of its other end says so, for longer.
pub(crate) struct Grant {
    name: Arc<str>,
    action: Action,
    /// Where it is counted, if anywhere.
    counted: Option<Hold>,
    /// What is at this end, once the channel is in place.
    owner: Option<Arc<dyn Owner>>,
}

/// A grant, to be judged again.
pub(crate) struct Granted {
    pub(crate) id: ChannelId,
    pub(crate) name: Arc<str>,
    pub(crate) action: Action,
}

impl SessionCore {
    /// Who the peer is, for a policy.
    pub(crate) fn subject(&self) -> Option<PolicyPeer> {
        let facts = self.facts.lock();
        let fingerprint = facts.peer.fingerprint()?;
        Some(PolicyPeer::new(fingerprint, facts.has_access_secret))
    }

    /// The peer may have the channel that it asks for.
    pub(crate) fn grant(&self, id: ChannelId, name: &str, action: Action, counted: Option<Hold>) {
        let grant = Grant { name: Arc::from(name), action, counted, owner: None };
        let mut grants = self.grants.lock();
        if self.end.get().is_none() {
            grants.insert(id, grant);
        }
    }

    /// Where a grant is counted from here on. One that is gone by now is not counted.
    pub(crate) fn recount(&self, id: ChannelId, counted: Option<Hold>) {
        let before = match self.grants.lock().get_mut(&id) {
            Some(grant) => std::mem::replace(&mut grant.counted, counted),
            None => counted,
        };
        drop(before);
    }

    /// Whether a grant is counted where `is` says yes.
    pub(crate) fn is_counted(&self, id: ChannelId, is: impl FnOnce(&Hold) -> bool) -> bool {
        self.grants.lock().get(&id).and_then(|grant| grant.counted.as_ref()).is_some_and(is)
    }

    /// The owner is told when the grant is taken away, even if the channel is closed by then.
    pub(super) fn granted_by(&self, id: ChannelId, owner: &Arc<dyn Owner>) {
        if let Some(grant) = self.grants.lock().get_mut(&id) {
            grant.owner = Some(Arc::clone(owner));
        }
    }

    /// The peer has the channel no more.
    pub(crate) fn let_go(&self, id: ChannelId) {
        let grant = self.grants.lock().remove(&id);
        drop(grant);
    }

    pub(super) fn let_all_go(&self) {
        let grants = std::mem::take(&mut *self.grants.lock());
        drop(grants);
    }

    /// One grant, to be judged again.
    pub(crate) fn grant_of(&self, id: ChannelId) -> Option<Granted> {
        let grants = self.grants.lock();
        let grant = grants.get(&id)?;
        Some(Granted { id, name: Arc::clone(&grant.name), action: grant.action })
    }

    /// What the peer has: in the order in which it came, so that who came first keeps what there is no longer enough of.
    pub(crate) fn granted(&self) -> Vec<Granted> {
        let grants = self.grants.lock();
        let granted = |(id, grant): (&ChannelId, &Grant)| Granted {
            id: *id,
            name: Arc::clone(&grant.name),
            action: grant.action,
        };
        let mut granted: Vec<_> = grants.iter().map(granted).collect();
        drop(grants);
        granted.sort_by_key(|granted| granted.id);
        granted
    }

    /// An OPEN of the peer's that the session takes (`PORT-7`): more come in a second than may, and the rest is refused.
    pub(super) fn incoming(self: &Arc<Self>, open: Open) {
        let taken = self.opens.lock().take(self.started.elapsed());
        let Err(wait) = taken else { return self.upper.incoming(self, open) };
        self.upper.refused(self, &open, "Limits::opens_per_second");
        let reason = format!(
            "no more than {} channels may be opened in a second (Limits::opens_per_second at the other end); try again in {wait:.1?}",
            self.limits.opens_per_second
        );
        self.refuse(open.id, RefuseCode::LimitReached, reason);
    }

    /// Whether the peer may still have what it opened.
    pub(crate) fn may_have(self: &Arc<Self>, open: &Open) -> bool {
        self.upper.may_have(self, open)
    }

    /// Takes a channel from the peer that opened it, at once: what is on its way either way does not arrive, and what a hosted
    /// channel had sent goes back to it, even if it waits to be acknowledged only.
    pub(crate) fn revoke(self: &Arc<Self>, id: ChannelId, reason: ProtoReason) {
        let grant = self.grants.lock().remove(&id);
        match self.get(id) {
            Some(Chan::Send(chan)) => chan.revoke(reason),
            Some(Chan::Recv(chan)) => chan.revoke(reason),
            None => {
                // It waits to be accepted, or is closed.
                if let Some(owner) = grant.and_then(|grant| grant.owner) {
                    owner.revoked(0);
                }
            }
        }
    }
}
