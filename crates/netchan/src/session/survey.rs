//! What can be seen of a session's channels.

use std::sync::atomic::Ordering;

use super::{Chan, SessionCore, SessionStats};
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
    /// Values: where this end sends, those that the peer is not known to have taken, for a subscriber of a broadcast those as
    /// well that wait in the log; where it receives, those that have arrived and are not taken.
    pub depth: u64,
    /// Values that the peer has taken and not acknowledged.
    pub unacked: u64,
    /// Values that may be sent now: by this end, or by the peer as far as this end has allowed.
    pub credit: u64,
}

impl SessionCore {
    /// What the session has been through.
    pub(crate) fn stats(&self) -> SessionStats {
        let here: u64 = self
            .channels()
            .iter()
            .map(|chan| match chan {
                // A channel that is busy with this very call has not been cut meanwhile.
                Chan::Send(chan) => reentry::lock(&chan.state).map_or(0, |state| state.half.replayed()),
                Chan::Recv(_) => 0,
            })
            .sum();
        SessionStats {
            links: self.links_count.load(Ordering::Relaxed),
            bytes_in: self.traffic.bytes_in(),
            bytes_out: self.traffic.bytes_out(),
            round_trip: self.traffic.round_trip(),
            resumes: self.resumes.load(Ordering::Relaxed),
            kept_bytes: self.account.kept(),
            values_replayed: here + self.replayed.load(Ordering::Relaxed),
        }
    }

    /// The channels of the program that are open now, by name.
    pub(crate) fn survey(&self) -> Vec<ChannelInfo> {
        let mut channels: Vec<_> = self.channels().iter().filter_map(survey).collect();
        channels.sort_by(|one, other| one.name.cmp(&other.name));
        channels
    }

    pub(crate) fn channel_count(&self) -> usize {
        self.channels().iter().filter(|chan| is_programs(chan)).count()
    }
}

/// Whether a channel is one of the program's, and not one that serves another.
pub(super) fn is_programs(chan: &Chan) -> bool {
    backlog(chan).is_some()
}

/// `None` for a channel that is none of the program's.
fn backlog(chan: &Chan) -> Option<u64> {
    let owner = match chan {
        Chan::Send(chan) => chan.owner(),
        Chan::Recv(chan) => chan.owner(),
    };
    owner.map_or(Some(0), |owner| owner.backlog())
}

/// `None` for one that is busy with this very call as well.
fn survey(chan: &Chan) -> Option<ChannelInfo> {
    let backlog = backlog(chan)?;
    Some(match chan {
        Chan::Send(chan) => {
            let unacked = chan.owner().map_or(0, |owner| owner.unacked());
            let state = reentry::lock(&chan.state)?;
            let half = &state.half;
            ChannelInfo {
                name: chan.name.to_string(),
                direction: Direction::Sends,
                depth: half.committed() - half.taken() + backlog,
                unacked,
                credit: half.available(),
            }
        }
        Chan::Recv(chan) => {
            let state = reentry::lock(&chan.state)?;
            let half = &state.half;
            ChannelInfo {
                name: chan.name.to_string(),
                direction: Direction::Receives,
                depth: half.ready() + backlog,
                unacked: 0,
                credit: half.granted().saturating_sub(half.received()),
            }
        }
    })
}
