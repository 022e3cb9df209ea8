//! Gates that were used, remembered until their time is over.
//!
//! Time here only goes forward: it counts from whatever the caller likes, and has nothing to do with the clock that gates carry
//! (`GATE-7`). A wall clock that was wrong once leaves nothing behind.

use std::collections::{HashSet, VecDeque};

use crate::crypto::error::GateReject;

/// Gates in the order in which they came.
///
/// Invariant: every name in `seen` is in `order`. A name of `order` that is not in `seen` has moved on, and is skipped.
#[derive(Debug, Default)]
struct Remembered {
    seen: HashSet<u64>,
    /// When each came, in seconds.
    order: VecDeque<(u64, u64)>,
}

impl Remembered {
    fn insert(&mut self, name: u64, now_seconds: u64) {
        self.seen.insert(name);
        self.order.push_back((now_seconds, name));
    }

    fn remove(&mut self, name: u64) {
        self.seen.remove(&name);
        if self.seen.is_empty() {
            self.order.clear();
        }
    }

    fn forget_before(&mut self, seconds: u64) {
        while let Some(&(arrived, name)) = self.order.front() {
            if arrived >= seconds && self.seen.contains(&name) {
                break;
            }
            self.order.pop_front();
            if arrived < seconds {
                self.seen.remove(&name);
            }
        }
    }

    /// Says whether there was one.
    fn forget_oldest(&mut self) -> bool {
        while let Some((_, name)) = self.order.pop_front() {
            if self.seen.remove(&name) {
                return true;
            }
        }
        false
    }
}

/// Invariants: no name is in both halves; both together hold at most `entries_max`.
///
/// A name is the first eight bytes of a gate's tag. Two gates that share one would only refuse a stranger to each other, once in
/// 2^45 connects with a full cache; a replay always has the name of its original.
///
/// When the cache is full, the oldest gate gives way, and nobody is refused (`GATE-6`): the gates of a client that means harm cannot
/// be told from those of an honest one before the handshake. But afterwards they can: a gate whose client went on to prove its key
/// is worth more than one whose client left, and gives way last. So gates alone, however many, displace only each other.
#[derive(Debug)]
pub(super) struct ReplayCache {
    /// Their clients have proven their keys.
    proven: Remembered,
    /// All others.
    unproven: Remembered,
    retention_seconds: u64,
    entries_max: usize,
    forgotten: u64,
}

impl ReplayCache {
    /// Remembers each gate for `retention_seconds`: a gate may come from a clock that is ahead by the window, and stays
    /// good until that clock's time plus the window, so twice the window after it arrived.
    pub(super) fn new(retention_seconds: u64, entries_max: usize) -> Self {
        let (proven, unproven) = (Remembered::default(), Remembered::default());
        Self { proven, unproven, retention_seconds, entries_max: entries_max.max(1), forgotten: 0 }
    }

    /// Remembers a gate whose tag was right (`GATE-5`, `GATE-6`).
    pub(super) fn insert(&mut self, name: u64, now_seconds: u64) -> Result<(), GateReject> {
        let oldest = now_seconds.saturating_sub(self.retention_seconds);
        self.proven.forget_before(oldest);
        self.unproven.forget_before(oldest);
        if self.proven.seen.contains(&name) || self.unproven.seen.contains(&name) {
            return Err(GateReject::Replay);
        }
        self.make_room();
        self.unproven.insert(name, now_seconds);
        Ok(())
    }

    /// The client of a gate has proven its key.
    pub(super) fn note_proven(&mut self, name: u64, now_seconds: u64) {
        // One that gave way meanwhile is remembered again: it may be replayed like the others.
        self.unproven.remove(name);
        if !self.proven.seen.contains(&name) {
            self.make_room();
            self.proven.insert(name, now_seconds);
        }
    }

    fn make_room(&mut self) {
        while self.len() >= self.entries_max && (self.unproven.forget_oldest() || self.proven.forget_oldest())
        {
            self.forgotten += 1;
        }
    }

    /// Gates that gave way before their time was over.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn len(&self) -> usize {
        self.proven.seen.len() + self.unproven.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_6_at_the_bound_the_oldest_gives_way_and_nobody_is_refused() {
        let mut cache = ReplayCache::new(240, 4);
        for name in 0..10 {
            assert_eq!(cache.insert(name, 1_000 + name), Ok(()));
        }
        assert_eq!((cache.len(), cache.forgotten()), (4, 6));
        for name in 6..10 {
            assert_eq!(cache.insert(name, 1_020), Err(GateReject::Replay));
        }
        assert_eq!(cache.insert(0, 1_020), Ok(()), "it gave way");
    }

    #[test]
    fn gate_6_gates_alone_displace_no_gate_whose_client_has_proven_its_key() {
        let mut cache = ReplayCache::new(240, 100);
        for honest in 0..50 {
            assert_eq!(cache.insert(honest, 1_000), Ok(()));
            cache.note_proven(honest, 1_000);
        }
        for n in 0..100_000 {
            assert_eq!(cache.insert(1_000 + n, 1_001), Ok(()));
        }
        // A newcomer whose handshake takes as long as many gates of others: remembered all the same.
        cache.note_proven(1_000, 1_001);
        for honest in (0..50).chain([1_000]) {
            assert_eq!(cache.insert(honest, 1_239), Err(GateReject::Replay), "{honest}");
        }
        assert_eq!(cache.len(), 100);
        assert!(cache.unproven.order.len() <= 100 && cache.proven.order.len() <= 100);
    }

    #[test]
    fn gate_5_each_is_remembered_for_its_time_and_no_longer() {
        let mut cache = ReplayCache::new(240, 4);
        assert_eq!(cache.insert(1, 1_000), Ok(()));
        assert_eq!(cache.insert(2, 1_000), Ok(()));
        cache.note_proven(2, 1_001);
        assert_eq!(cache.insert(1, 1_240), Err(GateReject::Replay));
        assert_eq!(cache.insert(1, 1_241), Ok(()));
        assert_eq!(cache.insert(2, 1_241), Err(GateReject::Replay), "counted from when it was proven");
        assert_eq!(cache.insert(2, 1_242), Ok(()));
        assert_eq!(cache.forgotten(), 0);
    }

    #[test]
    fn what_has_moved_on_is_not_kept_twice() {
        let mut cache = ReplayCache::new(1_000_000, 1_000);
        assert_eq!(cache.insert(0, 0), Ok(()));
        for name in 1..50_000 {
            assert_eq!(cache.insert(name, name), Ok(()));
            cache.note_proven(name, name);
        }
        assert_eq!(cache.len(), 1_000);
        assert!(cache.unproven.order.len() + cache.proven.order.len() <= 3_000);
    }
}
