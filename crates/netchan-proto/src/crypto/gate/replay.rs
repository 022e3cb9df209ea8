//! Gates that were used, remembered until their time is over.

use std::collections::{HashSet, VecDeque};

use crate::crypto::error::GateReject;

/// Invariants: `seen` and `order` hold the same names, at most `entries_max`; `order` is by time of arrival.
///
/// A name is the first eight bytes of a gate's tag. Two gates that share one would only refuse a stranger to each other,
/// once in 2^46 connects with a full cache; a replay always has the name of its original.
#[derive(Debug)]
pub(super) struct ReplayCache {
    seen: HashSet<u64>,
    order: VecDeque<(u64, u64)>,
    retention_seconds: u64,
    entries_max: usize,
}

impl ReplayCache {
    /// Remembers each gate for `retention_seconds`: a gate may come from a clock that is ahead by the window, and stays
    /// good until that clock's time plus the window, so twice the window after it arrived.
    pub(super) fn new(retention_seconds: u64, entries_max: usize) -> Self {
        Self { seen: HashSet::new(), order: VecDeque::new(), retention_seconds, entries_max }
    }

    /// Remembers a gate whose tag was right (`GATE-5`, `GATE-6`).
    pub(super) fn insert(&mut self, name: u64, unix_seconds: u64) -> Result<(), GateReject> {
        self.forget_old(unix_seconds);
        if self.seen.contains(&name) {
            return Err(GateReject::Replay);
        }
        if self.seen.len() >= self.entries_max {
            return Err(GateReject::ReplayCacheFull);
        }
        self.seen.insert(name);
        self.order.push_back((unix_seconds, name));
        Ok(())
    }

    /// Stops at the first that is young enough. After a clock that stepped back this keeps too many, never too few.
    fn forget_old(&mut self, unix_seconds: u64) {
        while let Some(&(arrived, name)) = self.order.front() {
            if unix_seconds.saturating_sub(arrived) <= self.retention_seconds {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_6_a_full_cache_refuses_until_entries_expire() {
        let mut cache = ReplayCache::new(240, 4);
        for name in 0..4 {
            assert_eq!(cache.insert(name, 1_000 + name), Ok(()));
        }
        assert_eq!(cache.insert(9, 1_240), Err(GateReject::ReplayCacheFull));
        assert_eq!(cache.insert(0, 1_240), Err(GateReject::Replay));
        assert_eq!(cache.insert(9, 1_241), Ok(()));
        assert_eq!(cache.insert(10, 1_241), Err(GateReject::ReplayCacheFull));
        assert_eq!(cache.seen.len(), cache.order.len());
    }

    #[test]
    fn a_clock_that_steps_back_forgets_nothing() {
        let mut cache = ReplayCache::new(240, 4);
        assert_eq!(cache.insert(1, 1_000), Ok(()));
        assert_eq!(cache.insert(2, 10), Ok(()));
        assert_eq!(cache.insert(2, 900), Err(GateReject::Replay));
        assert_eq!(cache.insert(1, 1_240), Err(GateReject::Replay));
    }
}
