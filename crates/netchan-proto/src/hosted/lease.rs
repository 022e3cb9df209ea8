//! One sender's credit: numbers only.

use super::progress::Progress;
use super::shares::{Part, ShareIndex};

/// Where a sender stands with the pool. The variants carry what the pool's totals counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Neither waits nor holds credit that could be recalled.
    Rest,
    /// Waits in line for a grant of at least one.
    Turn { place: u64, want: u64 },
    /// Wants more than it was granted, and has not yet used half of that, or its client has its part: it joins the line later.
    Parked { place: u64, held_back: bool },
    /// Holds credit and wants none.
    Idle { place: u64, of_share: Option<u64> },
    /// Asked to yield; `due` is what it may give back.
    Recalled { due: u64 },
}

/// What a sender holds, used and wants. All counts are absolute and only `limit` ever shrinks, by a yield.
///
/// Invariant: `settled ≤ pushed ≤ firm ≤ limit`.
#[derive(Debug)]
pub(super) struct Lease {
    /// It may commit values numbered below this.
    pub(super) limit: u64,
    /// It has committed at least these: what arrived, or what its last yield kept.
    pub(super) firm: u64,
    /// Values that arrived; the next one has this number.
    pub(super) pushed: u64,
    pub(super) progress: Progress,
    /// Blocked sends beyond `limit`.
    pub(super) want: u64,
    /// While it wants more, it gets nothing as long as more than this is unused.
    enough: u64,
    /// What a grant may reach beyond `want`: unlimited until a recall shows that it was too much.
    burst: u64,
    pub(super) recalled: bool,
    /// Its unused credit was lent to others; this is the limit it held, and may have committed up to.
    pub(super) suspended: Option<u64>,
    pub(super) standing: Standing,
    /// The share that its unused credit counts toward, what is counted there for it, and whether it waits for room there (`HOST-28`).
    pub(super) share: ShareIndex,
    pub(super) counted: Part,
    pub(super) over_share: bool,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            limit: 0,
            firm: 0,
            pushed: 0,
            progress: Progress::default(),
            want: 0,
            enough: 0,
            burst: u64::MAX,
            recalled: false,
            suspended: None,
            standing: Standing::Rest,
            share: None,
            counted: Part::default(),
            over_share: false,
        }
    }
}

impl Lease {
    pub(super) fn of(share: ShareIndex) -> Self {
        Self { share, ..Self::default() }
    }

    /// What the capacity law counts for this sender.
    #[cfg(debug_assertions)]
    pub(super) fn outstanding(&self) -> u64 {
        self.limit - self.progress.count()
    }

    /// Credit for values that have not arrived.
    pub(super) fn unused(&self) -> u64 {
        self.limit - self.pushed
    }

    /// Credit that a recall may bring back.
    pub(super) fn recallable(&self) -> u64 {
        self.limit - self.firm
    }

    /// It has used all that it held, and wants nothing.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unused() == 0 && self.standing == Standing::Rest && !self.recalled && self.suspended.is_none()
    }

    pub(super) fn all_settled(&self) -> bool {
        self.progress.count() == self.pushed
    }

    #[cfg(debug_assertions)]
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.standing, Standing::Turn { .. } | Standing::Parked { .. })
    }

    /// True while what it was granted last is at least half unused, so that grants come in batches (`HOST-9`).
    pub(super) fn has_enough(&self) -> bool {
        self.unused() > self.enough
    }

    /// Who blocks anew has used, in its own view, all that it holds, even if the values have not arrived yet.
    pub(super) fn set_want(&mut self, want: u64) {
        if self.want == 0 && want > 0 {
            self.enough = u64::MAX;
            if self.recallable() == 0 {
                self.burst = self.burst.saturating_mul(2);
            }
        }
        self.want = want;
    }

    pub(super) fn note_exhausted(&mut self) {
        self.enough = u64::MAX;
    }

    /// The size of a grant when `share` is the most that is fair (`HOST-8`).
    pub(super) fn grant_size(&self, share: u64) -> u64 {
        share.min(self.want.max(self.burst))
    }

    pub(super) fn grant(&mut self, amount: u64) {
        self.limit += amount;
        self.want = self.want.saturating_sub(amount);
        self.enough = self.unused() / 2;
    }

    pub(super) fn push(&mut self) {
        self.pushed += 1;
        self.firm = self.firm.max(self.pushed);
    }

    /// Keeps what lies below `limit`; returns what went back to the pool.
    pub(super) fn shrink(&mut self, limit: u64) -> u64 {
        debug_assert!(self.pushed <= limit && limit <= self.limit);
        let returned = self.limit - limit;
        self.limit = limit;
        self.firm = limit;
        self.enough = u64::MAX;
        if returned > 0 {
            self.burst = 1;
        }
        returned
    }
}
