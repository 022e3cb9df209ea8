//! What the peer has opened: what is kept for as long as it is, and how it is taken away.

use std::any::Any;
use std::sync::Arc;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::wire::{Open, RefuseCode};

use super::{Chan, SessionCore, survey};
use crate::error::SessionEnd;
use crate::policy::{Action, PolicyPeer};

/// Something that lasts as long as a channel of the peer's, or a link.
pub(crate) type Hold = Box<dyn Any + Send + Sync>;

/// A channel that the peer opened.
pub(crate) struct PeerChannel {
    pub(crate) id: ChannelId,
    pub(crate) name: Arc<str>,
    /// What the peer does with it.
    pub(crate) action: Action,
    pub(crate) chan: Chan,
}

impl SessionCore {
    /// Who the peer is, for a policy.
    pub(crate) fn subject(&self) -> Option<PolicyPeer> {
        let facts = self.facts.lock();
        let fingerprint = facts.peer.fingerprint()?;
        Some(PolicyPeer::new(fingerprint, facts.has_access_secret))
    }

    /// Keeps something until the peer has closed the channel, in place of what was kept so far.
    pub(crate) fn keep_with(&self, id: ChannelId, hold: Option<Hold>) {
        let before = {
            let mut holds = self.holds.lock();
            match hold {
                Some(hold) if self.end.get().is_none() => holds.insert(id, hold),
                _ => holds.remove(&id),
            }
        };
        drop(before);
    }

    /// Whether something is kept for a channel of which `is` says yes.
    pub(crate) fn is_kept_with(&self, id: ChannelId, is: impl FnOnce(&Hold) -> bool) -> bool {
        self.holds.lock().get(&id).is_some_and(is)
    }

    /// The peer has the channel no more.
    pub(super) fn let_go(&self, id: ChannelId) {
        self.keep_with(id, None);
    }

    pub(super) fn let_all_go(&self) {
        let holds = std::mem::take(&mut *self.holds.lock());
        drop(holds);
    }

    /// An OPEN of the peer's that the session takes (`PORT-7`): more come in a second than may, and the rest is refused.
    pub(super) fn incoming(self: &Arc<Self>, open: Open) {
        let taken = self.opens.lock().take(self.started.elapsed());
        let Err(wait) = taken else { return self.upper.incoming(self, open) };
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

    /// The channels that a client has opened, those left out that only serve others.
    pub(crate) fn opened_by_client(&self) -> Vec<PeerChannel> {
        let mut opened: Vec<_> = self
            .channels()
            .into_iter()
            .filter(|chan| chan.id().opener() == Side::Client && survey::is_programs(chan))
            .map(|chan| {
                let (name, action) = match &chan {
                    Chan::Send(chan) => (Arc::clone(&chan.name), Action::Receive),
                    Chan::Recv(chan) => (Arc::clone(&chan.name), Action::Send),
                };
                PeerChannel { id: chan.id(), name, action, chan }
            })
            .collect();
        // Who came first keeps what there is no longer enough of.
        opened.sort_by_key(|opened| opened.id);
        opened
    }

    /// Takes a channel from the peer that opened it, at once: what is on its way either way does not arrive, and what a hosted
    /// channel had sent goes back to it.
    pub(crate) fn revoke(self: &Arc<Self>, chan: &Chan, reason: ProtoReason) {
        match chan {
            Chan::Send(chan) => {
                let taken = {
                    let mut state = chan.state.lock();
                    state.half.reset(reason);
                    state.half.taken()
                };
                if let Some((hub, key)) = &chan.hub {
                    hub.remove_receiver(*key, taken);
                }
                if let Some(service) = chan.service() {
                    service.ended(&SessionEnd::ClosedHere);
                }
                chan.kick(true);
                chan.writable_locally();
            }
            Chan::Recv(chan) => {
                chan.stop(reason);
                chan.detach_hub();
            }
        }
        self.let_go(chan.id());
    }
}
