//! The credit of one channel: one pool for all senders.

use super::SenderKey;
use super::lease::{Lease, Standing};
use super::line::Line;
use super::shares::{Part, ShareIndex, Shares};
use crate::planted::{self, Mutant};

/// A sender that waits for more and has not used what it holds.
#[derive(Debug)]
struct Parked {
    key: SenderKey,
    share: ShareIndex,
    /// Some of its credit can be recalled.
    recallable: bool,
}

/// How many parked senders are checked for one whose client has more than its part.
const PARKED_LOOK_MAX: usize = 8;

/// Counts what is lent, and keeps the lines of those who wait for credit and those who sit on it.
///
/// Invariants, over all senders of the channel:
/// - `lent` is the sum of what their leases have outstanding;
/// - `lent ≤ capacity + overdraft` where capacity is at least one (`HOST-6`); `overdraft` grows only when a suspended
///   sender resumes;
/// - `turns`, `parked` and `idle` hold exactly the senders whose standing says so, `wanted` is the sum over `turns`,
///   `due` the sum over those recalled.
#[derive(Debug)]
pub(super) struct Pool {
    capacity: u64,
    lent: u64,
    overdraft: u64,
    closed: bool,
    turns: Line<SenderKey>,
    idle: Line<SenderKey>,
    parked: Line<Parked>,
    /// How many of those wait only for room in their client's share.
    held_back: usize,
    wanted: u64,
    due: u64,
    /// Unused credit by client.
    pub(super) shares: Shares<SenderKey>,
}

impl Pool {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            lent: 0,
            overdraft: 0,
            closed: false,
            turns: Line::default(),
            idle: Line::default(),
            parked: Line::default(),
            held_back: 0,
            wanted: 0,
            due: 0,
            shares: Shares::new(capacity / 2, u64::MAX),
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn lent(&self) -> u64 {
        self.lent
    }

    pub(super) fn overdraft(&self) -> u64 {
        self.overdraft
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.lent)
    }

    pub(super) fn waiting(&self) -> usize {
        self.turns.len() + self.parked.len() - self.held_back
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// No more grants; the caller places every sender anew.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn lend(&mut self, amount: u64) {
        self.lent += amount;
    }

    pub(super) fn restore(&mut self, amount: u64) {
        debug_assert!(amount <= self.lent);
        self.lent -= amount;
        self.overdraft = self.overdraft.min(self.lent.saturating_sub(self.capacity));
    }

    /// Lends what a suspended sender had committed, whether or not it is free (`HOST-15`).
    pub(super) fn overdraw(&mut self, amount: u64) {
        self.lent += amount;
        self.overdraft = self.lent.saturating_sub(self.capacity);
    }

    /// The next grant, if credit is free and someone's turn has come.
    pub(super) fn next_turn(&self) -> Option<SenderKey> {
        if self.free() == 0 { None } else { self.turns.first().copied() }
    }

    /// Somebody waits for credit, and none is free.
    pub(super) fn is_short(&self) -> bool {
        self.free() == 0 && self.turns.len() > 0
    }

    /// A sender was asked for credit and has not answered.
    pub(super) fn is_owed(&self) -> bool {
        self.due > 0
    }

    /// The most that one turn may grant (`HOST-8`).
    pub(super) fn share(&self) -> u64 {
        let waiting = self.waiting().max(1) as u64;
        (self.free() / waiting).max(1)
    }

    /// How much more unused credit a client may have.
    pub(super) fn room(&self, share: ShareIndex) -> u64 {
        self.shares.room(share)
    }

    /// Whom to recall next: the one idle longest, while what is due back does not cover what is wanted (`HOST-10`).
    pub(super) fn next_recall(&self) -> Option<SenderKey> {
        if self.free() > 0 || self.turns.len() == 0 || planted::is(Mutant::LeaseNeverRecalled) {
            return None;
        }
        let short = self.wanted + self.overdraft;
        if self.due >= short { None } else { self.idle.first().copied().or_else(|| self.next_greedy()) }
    }

    /// A sender that waits for more although its client has more than its part: the client was alone before (`HOST-28`).
    fn next_greedy(&self) -> Option<SenderKey> {
        let mut first = self.parked.iter().take(PARKED_LOOK_MAX);
        first.find(|one| one.recallable && self.shares.is_over(one.share)).map(|one| one.key)
    }

    /// Puts the sender where its lease now belongs; who stays in a line keeps its place.
    pub(super) fn place(&mut self, key: SenderKey, lease: &mut Lease) {
        let has = Part { units: lease.unused(), ..Part::default() };
        self.shares.count(lease.share, &mut lease.counted, has);
        let old = lease.standing;
        match old {
            Standing::Rest | Standing::Idle { .. } => {}
            Standing::Turn { want, .. } => self.wanted -= want,
            Standing::Parked { held_back, .. } => self.held_back -= usize::from(held_back),
            Standing::Recalled { due } => self.due -= due,
        }
        // HOST-11: who is recalled stands in no line until it has answered.
        let new = if lease.recalled {
            let due = lease.recallable();
            self.due += due;
            Standing::Recalled { due }
        } else if self.closed || lease.suspended.is_some() {
            Standing::Rest
        } else if lease.want == 0 {
            match (old, lease.recallable()) {
                (_, 0) => Standing::Rest,
                (Standing::Idle { place, of_share }, _) => Standing::Idle { place, of_share },
                _ => Standing::Idle {
                    place: self.idle.join(key),
                    of_share: self.shares.join_idle(lease.share, key),
                },
            }
        } else if lease.has_enough() || lease.over_share {
            let held_back = lease.over_share;
            self.held_back += usize::from(held_back);
            let parked = Parked { key, share: lease.share, recallable: lease.recallable() > 0 };
            match old {
                Standing::Parked { place, .. } => {
                    self.parked.get_mut(place).into_iter().for_each(|old| old.recallable = parked.recallable);
                    Standing::Parked { place, held_back }
                }
                _ => Standing::Parked { place: self.parked.join(parked), held_back },
            }
        } else {
            let want = lease.want;
            self.wanted += want;
            match old {
                Standing::Turn { place, .. } => Standing::Turn { place, want },
                _ => Standing::Turn { place: self.turns.join(key), want },
            }
        };
        match (old, new) {
            (Standing::Turn { .. }, Standing::Turn { .. })
            | (Standing::Idle { .. }, Standing::Idle { .. })
            | (Standing::Parked { .. }, Standing::Parked { .. }) => {}
            (Standing::Turn { place, .. }, _) => drop(self.turns.leave(place)),
            (Standing::Idle { place, of_share }, _) => {
                self.idle.leave(place);
                self.shares.leave_idle(lease.share, of_share);
            }
            (Standing::Parked { place, .. }, _) => drop(self.parked.leave(place)),
            _ => {}
        }
        lease.standing = new;
    }

    /// Checks the totals against all leases.
    #[cfg(debug_assertions)]
    pub(super) fn audit<'a>(&self, leases: impl Iterator<Item = &'a Lease>) {
        let (mut lent, mut wanted, mut due) = (0, 0, 0);
        let (mut turns, mut parked, mut idle) = (0, 0, 0);
        for lease in leases {
            assert!(lease.progress.count() <= lease.pushed, "settled more than arrived");
            assert!(lease.pushed <= lease.firm && lease.firm <= lease.limit, "beyond the lease");
            assert!(self.capacity > 0 || lease.outstanding() <= 1, "HOST-16: two offers of one sender");
            lent += lease.outstanding();
            match lease.standing {
                Standing::Rest => {}
                Standing::Turn { want, .. } => (turns, wanted) = (turns + 1, wanted + want),
                Standing::Parked { .. } => parked += 1,
                Standing::Idle { .. } => idle += 1,
                Standing::Recalled { due: back } => due += back,
            }
        }
        assert_eq!((lent, wanted, due), (self.lent, self.wanted, self.due), "totals of the pool");
        assert_eq!(
            (turns, parked, idle),
            (self.turns.len(), self.parked.len(), self.idle.len()),
            "lines of the pool"
        );
        assert!(self.capacity == 0 || lent <= self.capacity + self.overdraft, "HOST-6: the capacity law");
    }
}
