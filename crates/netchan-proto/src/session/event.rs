//! What a session tells its shell, and how it reaches the shell's channels.

use super::Control;
use crate::channel::{RecvHalf, SendHalf};
use crate::id::ChannelId;
use crate::wire::{Accept, Announce, Open, Refuse};

/// Something the shell must act on. Handed to [`Host::event`] with no lock of the session held but the half of the link's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both ends have the same keys; the session is live.
    Confirmed,
    /// The peer has said something behind its confirmation, so it has heard this end's (`SESS-16`).
    Acknowledged,
    /// The peer opens a channel that is one too many (`SESS-7`); it has been refused.
    Limited {
        /// What it asked for.
        open: Open,
        /// Which limit that was.
        limit: &'static str,
    },
    /// The peer opens a channel: accept or refuse it.
    Incoming(Open),
    /// The peer accepted a channel. Its half must exist before this returns: data may follow at once.
    Opened {
        /// What was asked.
        open: Open,
        /// What was answered.
        accept: Accept,
    },
    /// The peer refused a channel.
    Refused(Refuse),
    /// A hosted channel is there for this end, or is there no longer.
    Announced(Announce),
    /// Values, or the end, have reached a receiving half.
    Readable(ChannelId),
    /// Credit, positions or the end of a sending half have moved.
    Writable(ChannelId),
    /// Both ends have closed a channel; its half can be dropped. May come with the write half held.
    Finished(ChannelId),
    /// A leased sender asks for credit up to this limit.
    Wanted {
        /// The channel.
        id: ChannelId,
        /// The limit that would let every waiting send go.
        limit: u64,
    },
    /// A leased sender gave credit back. Its earlier requests are void: it asks again for what it still needs.
    Yielded {
        /// The channel.
        id: ChannelId,
        /// Its new limit.
        limit: u64,
    },
    /// A leased sender is on a new link. It has committed, or set aside, what lies below this limit and nothing else; all
    /// other credit it held, and its earlier requests, are void.
    LeaseTold {
        /// The channel.
        id: ChannelId,
        /// Its new limit.
        limit: u64,
    },
    /// A receiving end gave back all from this number on: the owner of the values takes them, then calls
    /// [`SendHalf::rewind`].
    RewindAsked {
        /// The channel.
        id: ChannelId,
        /// Where to rewind to.
        limit: u64,
    },
    /// A sender wants an offer back that was handed to its owner, who decides with [`RecvHalf::answer_withdraw`].
    WithdrawAsked {
        /// The channel.
        id: ChannelId,
        /// The offer.
        seq: u64,
    },
    /// Leased credit is wanted back that waiting sends were just granted: they have a moment to use it, then
    /// [`SendHalf::answer_recall`].
    RecallDeferred(ChannelId),
    /// The peer gave up a channel that it had opened and nobody has answered.
    OfferExpired(ChannelId),
    /// The outcome of a [`SendHalf::withdraw`].
    Withdrawn {
        /// The channel.
        id: ChannelId,
        /// The offer.
        seq: u64,
        /// True when nobody took it and nobody will.
        withdrawn: bool,
    },
    /// The answer to a ping.
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// The peer ends the session.
    GoAway {
        /// For programs.
        code: u16,
        /// For people.
        reason: String,
    },
}

/// Where a session's objects are: a shell locks them, a simulation borrows them.
pub trait Host {
    /// Calls `f` with the control object.
    fn with_control<R>(&self, f: impl FnOnce(&mut Control) -> R) -> R;
    /// Calls `f` with the sending half of `id`, if there is one.
    fn with_send<R>(&self, id: ChannelId, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R>;
    /// Calls `f` with the receiving half of `id`, if there is one.
    fn with_recv<R>(&self, id: ChannelId, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R>;
    /// The next channel that has something to write. Each is returned once for any number of [`Host::set_ready`].
    fn next_ready(&self) -> Option<ChannelId>;
    /// Notes that a channel has something to write.
    fn set_ready(&self, id: ChannelId);
    /// Tells the shell.
    fn event(&self, event: Event);
}
