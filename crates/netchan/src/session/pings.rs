//! Signs of life, and how long they take.

use std::sync::atomic::Ordering;

use super::SessionCore;

/// What was on its way when a sign of life was asked for has come by then.
const SPEAKS_MICROS: u64 = 5_000_000;

impl SessionCore {
    /// Asks for a sign of life, and measures how long that takes.
    pub(super) fn ping(&self) {
        self.probe();
    }

    /// Asks for a sign of life; [`Self::has_answered`] says when it has come.
    pub(crate) fn probe(&self) -> u64 {
        let sent = self.now_micros();
        // Of those that wait for an answer, the first counts.
        let before = self.probed_micros.load(Ordering::Relaxed);
        if self.answered_micros.load(Ordering::Relaxed) >= before {
            self.probed_micros.store(sent, Ordering::Relaxed);
            self.probed_bytes.store(self.traffic.bytes_in(), Ordering::Relaxed);
        }
        self.with_control(|c| c.ping(sent));
        sent
    }

    /// Whether the peer has answered that, or says other things for so long that it is there all the same.
    pub(crate) fn has_answered(&self, probe: u64) -> bool {
        let speaks = || {
            self.now_micros().saturating_sub(probe) >= SPEAKS_MICROS
                && self.traffic.bytes_in() > self.probed_bytes.load(Ordering::Relaxed)
        };
        self.answered_micros.load(Ordering::Relaxed) >= probe || speaks()
    }

    pub(super) fn ponged(&self, sent_micros: u64) {
        self.answered_micros.fetch_max(sent_micros, Ordering::Relaxed);
        self.traffic.note_round_trip(self.now_micros().saturating_sub(sent_micros));
        if self.wants_round_trip.load(Ordering::Relaxed) && self.traffic.shortest_round_trip().is_none() {
            self.ping();
        }
    }

    /// The shortest round trip on the present link, in microseconds. It is measured from the first time on that somebody asks.
    pub(crate) fn round_trip_micros(&self) -> Option<u64> {
        if !self.wants_round_trip.swap(true, Ordering::Relaxed) {
            self.ping();
        }
        self.traffic.shortest_round_trip()
    }
}
