//! What a session reports to the program above it.

use std::sync::Arc;

use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Announce, Open};

use super::{SessionCore, SessionEvent};
use crate::error::SessionEnd;

/// What stands above a session: the server, or the client that dialed.
pub(crate) trait Upper: Send + Sync + 'static {
    /// Something changes, and subscribers are told: in one step for whoever asks the program above how its sessions do.
    fn tell(&self, core: &Arc<SessionCore>, event: &SessionEvent, change: &mut dyn FnMut());
    /// Both ends have the same keys, for the first time.
    fn confirmed(&self, core: &Arc<SessionCore>);
    /// The peer opens a channel; it must be accepted or refused, now or later.
    fn incoming(&self, core: &Arc<SessionCore>, open: Open);
    /// Whether the peer may have what it opened, now that the program would accept it.
    fn may_have(&self, core: &Arc<SessionCore>, open: &Open) -> bool {
        _ = (core, open);
        true
    }
    /// The program has accepted a channel that the peer opened.
    fn accepted(&self, core: &Arc<SessionCore>, id: ChannelId) {
        _ = (core, id);
    }
    /// The session itself has refused what the peer opened, for a limit.
    fn refused(&self, core: &Arc<SessionCore>, open: &Open, limit: &str) {
        _ = (core, open, limit);
    }
    /// Another link is in place; the peer may have come over it with other rights.
    fn attached(&self, core: &Arc<SessionCore>, other_rights: bool) {
        _ = (core, other_rights);
    }
    /// The peer hosts a channel, or hosts it no longer.
    fn announced(&self, core: &Arc<SessionCore>, announce: Announce);
    /// The peer gave up a channel that it had opened.
    fn expired(&self, core: &Arc<SessionCore>, id: ChannelId);
    /// The link is gone. An error says why the session may not wait for another.
    fn suspended(&self, core: &Arc<SessionCore>, reason: &str) -> Result<(), SessionEnd>;
    /// Another link has taken the place of the last.
    fn resumed(&self, core: &Arc<SessionCore>);
    /// At a client: the session is lost, and another is to take its place.
    fn lost(&self, core: &Arc<SessionCore>, end: &SessionEnd);
    /// The session has ended, and is not to be found any more; called while [`Upper::tell`] says so.
    fn forgotten(&self, core: &Arc<SessionCore>);
    /// The session has ended.
    fn ended(&self, core: &Arc<SessionCore>, end: &SessionEnd);
}
