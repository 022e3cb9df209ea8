//! Names for the things the protocol counts.

use std::collections::HashMap;
use std::fmt;

/// A table by channel. It is looked into several times for every record, so it hashes faster than the standard one; how many
/// entries there can be is bounded, and nothing depends on their order.
pub type ChannelMap<T> = HashMap<ChannelId, T, foldhash::fast::RandomState>;

/// Which end of a session this is. The client is the end that dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that dialed.
    Client,
    /// The end that listened.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The direction in which bytes travel, named by the end that sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    FromClient,
    /// From the server to the client.
    FromServer,
}

impl Direction {
    /// The direction of what `side` sends.
    #[must_use]
    pub const fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::FromClient,
            Side::Server => Self::FromServer,
        }
    }
}

/// One channel of a session. Zero is the control channel; clients open odd ids, servers even ones (`SESS-4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u32);

impl ChannelId {
    /// The channel that carries control frames.
    pub const CONTROL: Self = Self(0);

    /// The first id that `side` opens.
    #[must_use]
    pub const fn first(side: Side) -> Self {
        match side {
            Side::Client => Self(1),
            Side::Server => Self(2),
        }
    }

    /// The id the same opener uses after this one, or `None` when the session has used them all.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(2) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Who opened this channel. The control channel is opened by nobody; it counts as the server's.
    #[must_use]
    pub const fn opener(self) -> Side {
        if self.0 % 2 == 1 { Side::Client } else { Side::Server }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Names a session for its whole life, over any number of links.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Drawn at random each time a server starts: tells a restarted server from the one that knew the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

/// Counts the links a session has had; the server assigns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);
