//! Bugs planted on purpose, for the simulation to find: a checker that cannot fail proves nothing.
//!
//! Only with the feature `planted`, which nothing that ships enables, can one be made active, and then for one thread at a
//! time. Without the feature every question about one is answered "no" by the compiler.

/// A bug, as small as one that a tired programmer makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A receiving end keeps values that it has already.
    NoDuplicateCheck,
    /// Values count as taken when they arrive.
    TakenAtArrival,
    /// A sending end takes what has arrived for taken.
    AcknowledgedEarly,
    /// A sending end goes on one value too late.
    OffByOneAtResume,
    /// A CLOSE that was lost with a link is not said again.
    CloseLostAcrossCut,
    /// A server commits a link whose place a later one has taken.
    StaleEpochAccepted,
    /// A withdrawn offer uses up two numbers.
    DoubleGrantAfterWithdraw,
    /// After a resume a number is given to two values.
    SequenceReusedAfterResume,
    /// Some credit does not come back to a hosted channel.
    LeakedCredit,
    /// Credit that lies idle is not asked back.
    LeaseNeverRecalled,
    /// A sending end that is full lets go of its oldest value.
    RetainedDroppedAtCapacity,
    /// The resume secret of the epoch before is accepted for ever.
    OldSecretAcceptedTwice,
    /// A receiver hears of the end before it has taken what came before.
    EndBeforeData,
    /// A part of a message is kept over a cut, and the whole comes again.
    PartialSurvivesCut,
    /// A WITHDRAW that was lost with a link is not said again.
    WithdrawLostAcrossCut,
    /// Frames that were queued for a link are sent on the next one too.
    FramesSurviveCut,
    /// A leased sender keeps credit that its server has lent to others.
    LeaseKeptAcrossCut,
    /// A late subscriber misses the first value behind what was assigned.
    GapAfterAssignments,
    /// A subscriber is told of one value too many that it lost.
    WrongLagCount,
    /// A holder that is fenced keeps what goes to another.
    DoubleHolder,
    /// What comes back from a holder is gone.
    LostRedelivery,
    /// A result is committed although its delivery is another's.
    ResultWithoutAck,
    /// A receiver that has been called back is called back once more.
    CalledBackTwice,
    /// Of what a receiver gives back some is gone.
    LostOnTheWayBack,
    /// What was certainly not taken is flagged as redelivered.
    FlaggedThoughNotTaken,
    /// Of a run of values for a receiver only the first two are sent.
    RunLeftHalfway,
    /// Of what was taken quietly its sender never hears.
    TakenUntold,
    /// A value that was sent to a receiver is sent once more.
    NotMarkedSent,
    /// What a receiver that closes had not taken counts as if it may have.
    UnsentIsDoubtful,
    /// Of a run of values that were taken the last one does not count.
    RunNotSettled,
    /// What receivers gave back goes out again last first.
    GivenBackInWrongOrder,
    /// A local task that has just come goes before those that wait.
    WaitQueueSkipped,
    /// A result is committed twice with its acknowledgement.
    ResultCommittedTwice,
    /// Credit that a sender gives back is nobody's.
    YieldedCreditLost,
    /// A local send that waits is not woken when it is granted credit.
    GrantWakesNobody,
    /// At the close a sender that has no credit left is not told.
    CloseNotTold,
    /// A result that waits for a place is not tried again.
    ParkedResultForgotten,
    /// Values that waited in their half for room are taken while their sender is away, and its credit lent to others (`HOST-15`).
    TakenWhileAway,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 38] = [
        Self::NoDuplicateCheck,
        Self::TakenAtArrival,
        Self::AcknowledgedEarly,
        Self::OffByOneAtResume,
        Self::CloseLostAcrossCut,
        Self::StaleEpochAccepted,
        Self::DoubleGrantAfterWithdraw,
        Self::SequenceReusedAfterResume,
        Self::LeakedCredit,
        Self::LeaseNeverRecalled,
        Self::RetainedDroppedAtCapacity,
        Self::OldSecretAcceptedTwice,
        Self::EndBeforeData,
        Self::PartialSurvivesCut,
        Self::WithdrawLostAcrossCut,
        Self::FramesSurviveCut,
        Self::LeaseKeptAcrossCut,
        Self::GapAfterAssignments,
        Self::WrongLagCount,
        Self::DoubleHolder,
        Self::LostRedelivery,
        Self::ResultWithoutAck,
        Self::CalledBackTwice,
        Self::LostOnTheWayBack,
        Self::FlaggedThoughNotTaken,
        Self::RunLeftHalfway,
        Self::TakenUntold,
        Self::NotMarkedSent,
        Self::UnsentIsDoubtful,
        Self::RunNotSettled,
        Self::GivenBackInWrongOrder,
        Self::WaitQueueSkipped,
        Self::ResultCommittedTwice,
        Self::YieldedCreditLost,
        Self::GrantWakesNobody,
        Self::CloseNotTold,
        Self::ParkedResultForgotten,
        Self::TakenWhileAway,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Makes a bug active in this thread, or none.
#[cfg(feature = "planted")]
pub fn plant(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Whether this bug is active.
#[cfg(feature = "planted")]
pub(crate) fn is(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Whether this bug is active.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
