//! The vocabulary of a hosted channel.

use bytes::Bytes;

/// Names a sender of one channel. A key is free again once its sender is removed and its last value is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKey(pub u64);

/// Names a receiver of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverKey(pub u64);

/// One value in the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place in the order of this channel.
    pub ticket: u64,
    /// Who sent it.
    pub origin: SenderKey,
    /// Its number among the values of its sender, from 0.
    pub seq: u64,
    /// The encoded value.
    pub bytes: Bytes,
    /// A receiver held it before and did not take it, as far as is known.
    pub redelivered: bool,
    /// How often it was handed to a holder that did not acknowledge it (`DEL-3`).
    pub attempts: u32,
    /// Its sender knows it taken: wherever it is now, it needs no credit.
    pub settled: bool,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand the item to a `recv` that waits there.
    Deliver {
        /// The receiver.
        to: ReceiverKey,
        /// The value; a copy stays here until it is known taken.
        item: Item,
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
    /// The last value of a sender that was removed is settled: its key means nothing any more.
    Forgotten {
        /// The sender.
        sender: SenderKey,
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
        item: Item,
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
