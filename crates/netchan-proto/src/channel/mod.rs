//! One channel's two halves: sequence numbers, retention, credit, close, rendezvous.
//!
//! A channel carries values one way. Its state lives here, in the session, and never in a link (`SESS-1`): a half that
//! loses its link is told so ([`SendHalf::detach`], [`RecvHalf::detach`]) and goes on after the exchange of positions on the next.

mod arrived;
mod item;
mod recv;
mod retained;
mod send;

pub use arrived::Buffer;
pub use item::{ItemBuf, ItemWriter, Payload, TooLarge, encode_alone, encode_with};
pub use recv::{Arrival, RecvHalf, RecvOptions};
pub use retained::Record;
pub use send::{PushError, Pushed, SendHalf, SendOptions, Unsettled, Withdrawal};

/// How a channel came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// For programs: 0 is a plain close.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl CloseReason {
    /// A plain close, with nothing to say.
    #[must_use]
    pub const fn plain() -> Self {
        Self { code: 0, reason: String::new() }
    }
}

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
    /// A subscriber of a broadcast was so slow that it lost values, and may lose none.
    pub const LAGGED: u16 = 6;
    /// The server's program disconnected this client.
    pub const DISCONNECTED: u16 = 7;
    /// The server's policy does not allow it, or no longer.
    pub const DENIED: u16 = 8;
    /// What the peer had of a hosted channel, credit or values, it neither used nor returned while others waited for it.
    pub const STALLED: u16 = 11;
    /// The peer made this end keep more than it may.
    pub const OVER_LIMIT: u16 = 12;
    /// The first code that programs may use.
    pub const APPLICATION: u16 = 256;
}
