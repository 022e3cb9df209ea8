//! A session: channels over a link that may be replaced.
//!
//! Four objects, each usable alone, so that a shell can put a lock around each: [`WriteHalf`] and [`ReadHalf`] belong to
//! one link; [`Control`] and the channel halves belong to the session. They meet through [`Host`], which knows where the
//! halves are. Locks, where there are any, are taken in the order write half (or read half), control, channel.

mod control;
mod event;
mod read;
mod write;

pub use control::{Control, ControlLimits, LinkControlKeys, OpenError, OpenRequest};
pub use event::{Event, Host};
pub use read::{Fault, ReadHalf};
pub use write::WriteHalf;

/// Codes of GOAWAY and of CLOSE that netchan itself gives. Programs may use codes from [`close_code::APPLICATION`] on.
pub mod close_code {
    /// A plain close.
    pub const PLAIN: u16 = 0;
    /// The other end broke the protocol.
    pub const VIOLATION: u16 = 1;
    /// The handle at that end was dropped.
    pub const DROPPED: u16 = 2;
    /// The server is shutting down.
    pub const SHUTDOWN: u16 = 3;
    /// The channel had already come to its end.
    pub const GONE: u16 = 4;
    /// The end that opened the channel gave up waiting for it.
    pub const ABANDONED: u16 = 5;
    /// The first code that programs may use.
    pub const APPLICATION: u16 = 256;
}
