//! What has passed over a session's links.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// One round trip may have met a busy scheduler; the shortest of so many says how far the peer is.
const SAMPLES_MIN: u32 = 4;

/// Counts, without a lock.
#[derive(Default)]
pub(super) struct Traffic {
    /// The shortest round trip on the present link, and of how many.
    shortest: AtomicU64,
    samples: AtomicU32,
    read: AtomicU64,
    written: AtomicU64,
    /// Both together when the present link began.
    mark: AtomicU64,
    /// Of the last answer to a ping, in microseconds and one more; 0 before the first.
    round_trip: AtomicU64,
}

impl Traffic {
    #[inline]
    pub(super) fn note_in(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn note_out(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn bytes_in(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_out(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Begins to count anew for [`Self::since_mark`].
    pub(super) fn mark(&self) {
        self.mark.store(self.bytes_in() + self.bytes_out(), Ordering::Relaxed);
    }

    pub(super) fn since_mark(&self) -> u64 {
        (self.bytes_in() + self.bytes_out()).saturating_sub(self.mark.load(Ordering::Relaxed))
    }

    pub(super) fn note_round_trip(&self, micros: u64) {
        self.round_trip.store(micros.saturating_add(1), Ordering::Relaxed);
        self.shortest.fetch_min(micros, Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
    }

    /// The shortest round trip on the present link, in microseconds, once enough were measured to trust it.
    pub(super) fn shortest_round_trip(&self) -> Option<u64> {
        (self.samples.load(Ordering::Relaxed) >= SAMPLES_MIN).then(|| self.shortest.load(Ordering::Relaxed))
    }

    /// Another link may be longer.
    pub(super) fn forget_round_trips(&self) {
        self.samples.store(0, Ordering::Relaxed);
        self.shortest.store(u64::MAX, Ordering::Relaxed);
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_micros)
    }
}
