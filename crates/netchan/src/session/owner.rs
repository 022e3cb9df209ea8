//! What is at an end of a channel in place of the program.

use std::any::Any;
use std::sync::Arc;

use super::lost::Reopen;
use super::{RecvChan, SendChan};
use crate::error::SessionEnd;

/// What is at an end of a channel in place of the program: a hosted channel, say. A new kind of end implements this, and the
/// session does not learn of it.
///
/// Called with no lock held, mostly by the task that reads the link. Each method concerns a receiving end, a sending end or
/// both; one that an owner leaves out does nothing unless it says otherwise.
pub(crate) trait Owner: Any + Send + Sync {
    /// At a receiving end: values, or the peer's close, have arrived. The owner takes them, and reports what it took.
    fn readable(self: Arc<Self>, chan: &Arc<RecvChan>) {
        _ = chan;
    }

    /// At a receiving end: the peer asks for credit up to `limit`.
    fn wanted(&self, limit: u64) {
        _ = limit;
    }

    /// At a receiving end: the peer gave back its credit from `limit` on.
    fn yielded(&self, limit: u64) {
        _ = limit;
    }

    /// At a receiving end: after a lost link, the peer needs its credit up to `limit`.
    fn lease_told(&self, limit: u64) {
        _ = limit;
    }

    /// At a receiving end: the peer wants its offer with number `seq` back.
    fn withdraw_asked(&self, seq: u64) {
        _ = seq;
    }

    /// At a sending end: credit, positions, or the peer's close have moved.
    fn writable(self: Arc<Self>, chan: &Arc<SendChan>, at: Position) {
        _ = (chan, at);
    }

    /// At a sending end: the peer gives back every value from number `limit` on.
    fn rewind_asked(&self, limit: u64) {
        _ = limit;
    }

    /// There is a link again, and the peer is to say on it where it stands.
    fn attached(&self) {}

    /// The link is gone; another has taken its place if `replaced`.
    fn detached(&self, replaced: bool) {
        _ = replaced;
    }

    /// Both ends have closed the channel. Of a sending end, the peer took the values below number `taken`.
    fn finished(&self, taken: u64) {
        _ = taken;
    }

    /// The session is over. Of a sending end, the peer is known to have taken the values below number `taken`.
    fn ended(&self, end: &SessionEnd, taken: u64);

    /// The policy has taken the channel from the peer; it may have been closed before. By default as [`ended`](Self::ended).
    fn revoked(&self, taken: u64) {
        self.ended(&SessionEnd::ClosedHere, taken);
    }

    /// Whether what is not taken at a sending end goes back to the owner. A session that closes does not wait for it.
    fn takes_back(&self) -> bool {
        false
    }

    /// Whether the peer may still use what it took on a channel that is closed. Then it keeps its grant until
    /// [`SessionCore::let_go`](super::SessionCore::let_go) is called.
    fn outlasts_close(&self) -> bool {
        false
    }

    /// Values that wait behind those which the channel has; `None` for a channel that serves another, and is not shown.
    fn backlog(&self) -> Option<u64> {
        Some(0)
    }

    /// Values that the peer has taken and not acknowledged.
    fn unacked(&self) -> u64 {
        0
    }
}

/// Where a sending end stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// Values below this number may be sent.
    pub(crate) limit: u64,
    /// Values below this number have been taken.
    pub(crate) taken: u64,
    /// There is room for a value now, as far as its bytes go.
    pub(crate) may_send: bool,
    /// The peer has closed the channel.
    pub(crate) closed: bool,
}

/// Whose an end of a channel is.
pub(crate) enum Ownership {
    /// A handle's of the program. How it is opened again, where a client opened it by its name.
    Program(Option<Reopen>),
    Owned(Arc<dyn Owner>),
}

impl Ownership {
    #[inline]
    pub(super) const fn owner(&self) -> Option<&Arc<dyn Owner>> {
        match self {
            Self::Owned(owner) => Some(owner),
            Self::Program(_) => None,
        }
    }

    /// Its owner, if that is an `O`.
    pub(super) fn owner_as<O: Owner>(&self) -> Option<&O> {
        let owner: &dyn Any = &**self.owner()?;
        owner.downcast_ref()
    }

    pub(super) const fn reopen(&self) -> Option<&Reopen> {
        match self {
            Self::Program(reopen) => reopen.as_ref(),
            Self::Owned(_) => None,
        }
    }
}
