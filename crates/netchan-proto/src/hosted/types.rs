//! The vocabulary of a hosted channel.

use bytes::Bytes;

/// Names a sender of one channel. A key is free again once its sender is removed and its last value is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKey(pub u64);

/// Names a receiver of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverKey(pub u64);

/// One value in the channel. `T` says who sent it, for the program that receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T = ()> {
    /// Its place in the order of this channel.
    pub ticket: u64,
    /// The sender whose credit it uses.
    pub origin: SenderKey,
    /// Its number among the values of its sender, from 0.
    pub seq: u64,
    /// Who sent it.
    pub from: T,
    /// The encoded value.
    pub bytes: Bytes,
    /// It may have been received before (`HOST-4`).
    pub redelivered: bool,
    /// How often it was handed to a holder that did not acknowledge it (`DEL-3`).
    pub attempts: u32,
    /// Its sender knows it taken: wherever it is now, it needs no credit.
    pub settled: bool,
    /// The holder that refused it last: others come first (`DEL-13`).
    pub refused_by: Option<ReceiverKey>,
}

/// How a receiver leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// So many of the oldest values that are in flight to it may have been received; of the others it is certain that they
    /// were not.
    pub doubtful: u64,
    /// It said that it goes: what it returns costs no attempt.
    pub orderly: bool,
}

impl Leave {
    /// Nobody knows what it has received.
    pub const LOST: Self = Self { doubtful: u64::MAX, orderly: false };
    /// It has said what it took, and that it goes.
    pub const ORDERLY: Self = Self { doubtful: 0, orderly: true };
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<T = ()> {
    /// Values are the receiver's: [`Hosted::next_unsent`](super::Hosted::next_unsent) gives them, oldest first. Comes once
    /// for a run of them.
    Deliver {
        /// The receiver.
        to: ReceiverKey,
    },
    /// Ask the receiver for the values that it has not taken (`HOST-24`). It answers with what it took, and
    /// [`Hosted::give_back`](super::Hosted::give_back) follows.
    CallBack {
        /// The receiver.
        from: ReceiverKey,
    },
    /// The receiver has not answered a [`Self::CallBack`] in time: its channel is to be reset, and it is to be removed.
    StalledReceiver {
        /// The receiver.
        key: ReceiverKey,
    },
    /// The sender has neither used nor returned its credit in time while others wait: its channel is to be reset, and it is
    /// to be removed.
    StalledSender {
        /// The sender.
        key: SenderKey,
    },
    /// The sender may commit values numbered below `limit`.
    Grant {
        /// The sender.
        to: SenderKey,
        /// Absolute, as every limit.
        limit: u64,
    },
    /// Ask the sender for its unused credit; it answers with [`Hosted::yielded`](super::Hosted::yielded).
    Recall {
        /// The sender.
        from: SenderKey,
    },
    /// More of the sender's values are settled: taken by a receiver, or withdrawn.
    Settled {
        /// The sender.
        sender: SenderKey,
        /// All values numbered below this are settled; the sender need not retain them.
        prefix: u64,
        /// How many values are settled, in any order.
        count: u64,
    },
    /// The answer to a [`Hosted::withdraw`](super::Hosted::withdraw) that found the offer dispatched, or the return of an
    /// offer by a close.
    Withdrawn {
        /// The sender.
        to: SenderKey,
        /// The offer.
        seq: u64,
        /// True: nobody has it, the send did not happen. False: it was taken.
        withdrawn: bool,
    },
    /// A holder has lost a value for which it may still be on its way, or is at work: what it says of it is void (`DEL-5`).
    Fenced {
        /// The holder.
        to: ReceiverKey,
        /// The value's number among those dispatched to it.
        number: u64,
    },
    /// No holder has acknowledged the value in as many attempts as it may have: it is to be set aside, or given to
    /// [`Hosted::revive`](super::Hosted::revive) (`DEL-7`).
    Dead {
        /// The value, which is no longer here.
        item: Item<T>,
    },
    /// The channel is closed and drained. Comes once.
    Finished,
}

/// What a withdrawal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdraw {
    /// The offer is withdrawn: the send did not happen.
    Withdrawn,
    /// A receiver holds it; an [`Effect::Withdrawn`] will tell.
    Dispatched,
    /// It was taken: the send happened.
    Taken,
}

/// What the rules forbid. The peer behind the key is at fault, except where a variant says otherwise. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// No such sender: it was removed, or the shell is at fault.
    #[error("no such sender on this channel")]
    UnknownSender,
    /// No such receiver: it was removed, or the shell is at fault.
    #[error("no such receiver on this channel")]
    UnknownReceiver,
    /// A value does not have the next number of its sender.
    #[error("value out of sequence")]
    OutOfSequence,
    /// A value lies beyond the lease, or is a second offer beside one that is not settled.
    #[error("value without credit")]
    ExcessCredit,
    /// A yield that no recall asked for.
    #[error("yield without a recall")]
    UnaskedYield,
    /// A yield above the lease, or below what has arrived.
    #[error("yield outside the lease")]
    FalseYield,
    /// A resume that claims more than was leased, or less than has arrived.
    #[error("resume outside the lease")]
    FalseResume,
    /// More values taken or kept than are in flight.
    #[error("values that are not in flight")]
    NotInFlight,
    /// More than [`DEMAND_UNITS_MAX`](crate::limits::DEMAND_UNITS_MAX) waiting.
    #[error("too many receives waiting")]
    ExcessDemand,
    /// A withdrawal of something that is not the sender's newest offer, or where nothing is offered (C ≥ 1).
    #[error("withdrawal of what is not on offer")]
    NotOffered,
}
