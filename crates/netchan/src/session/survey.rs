//! What can be seen of a session's channels.

use super::{Chan, SessionCore};
use crate::reentry;

/// Which way a channel's values travel, seen from this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This end sends.
    Sends,
    /// This end receives.
    Receives,
}

/// One channel of a session, as this end sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// Which way its values travel.
    pub direction: Direction,
    /// Values: where this end sends, those that the peer is not known to have taken; where it receives, those that have arrived
    /// and are not taken.
    pub depth: u64,
    /// Values that may be sent now: by this end, or by the peer as far as this end has allowed.
    pub credit: u64,
}

impl SessionCore {
    /// The channels that are open now, by name.
    pub(crate) fn survey(&self) -> Vec<ChannelInfo> {
        let mut channels: Vec<_> = self.channels().iter().filter_map(survey).collect();
        channels.sort_by(|one, other| one.name.cmp(&other.name));
        channels
    }
}

/// `None` for one that is busy with this very call.
fn survey(chan: &Chan) -> Option<ChannelInfo> {
    Some(match chan {
        Chan::Send(chan) => {
            let state = reentry::lock(&chan.state)?;
            let half = &state.half;
            ChannelInfo {
                name: chan.name.to_string(),
                direction: Direction::Sends,
                depth: half.committed() - half.taken(),
                credit: half.available(),
            }
        }
        Chan::Recv(chan) => {
            let state = reentry::lock(&chan.state)?;
            let half = &state.half;
            ChannelInfo {
                name: chan.name.to_string(),
                direction: Direction::Receives,
                depth: half.ready(),
                credit: half.granted().saturating_sub(half.received()),
            }
        }
    })
}
