//! Leave to send, granted by the receiving end of a channel.
//!
//! Invariants: `taken ≤ received ≤ granted limit` (rendezvous: one offer beyond `settled`); what was granted falls only by
//! the sender's answer to a recall; every limit that is sent is `taken + capacity` or what a hosted channel leased.

use super::Violation;
use crate::planted::{self, Mutant};

/// What determines the item limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// The limit is always `taken + capacity`: the capacity law.
    Fixed {
        /// The channel's capacity.
        capacity: u64,
    },
    /// One offer at a time, outside item credit.
    Rendezvous,
    /// The limit is `taken + prefetch + waiting receives`.
    Demand {
        /// Values wanted ahead of any receive.
        prefetch: u64,
        /// Values beyond the limit that the sender may send if it likes (`FLOW-10`).
        ahead: u64,
    },
    /// The limit is set from outside, by the pool of a hosted channel.
    Lease,
}

/// How soon the peer must hear of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It has heard all there is, or can wait until half the window has moved.
    None,
    /// When the link is next used, or within tens of milliseconds: nobody waits for it, but what is kept for it could be let go.
    Idle,
    /// When the link is next used, or before this end goes idle.
    Soon,
    /// At once.
    Now,
}

/// What has arrived, what was taken, and what may still be sent.
#[derive(Clone, Debug)]
pub struct Window {
    kind: WindowKind,
    received: u64,
    taken: u64,
    received_bytes: u64,
    taken_bytes: u64,
    /// The highest item limit the peer may have heard of; what it sends is checked against this.
    granted: u64,
    granted_bytes: u64,
    target: u64,
    window_bytes: u64,
    window_bytes_max: u64,
    /// It may not grow for now.
    is_held: bool,
    told_received: u64,
    told_taken: u64,
    /// Receives that wait, as last told by [`Window::demand`].
    waiting: u64,
    /// What is taken is told by other means before long.
    lazy: bool,
    /// Values below this were asked for, although no receive waits.
    asked: u64,
    /// The most values that were here, as far as the peer knew, since there were none.
    burst: u64,
}

impl Window {
    /// A window whose first grant the peer knows from the opening of the channel.
    #[must_use]
    pub const fn new(kind: WindowKind, window_bytes: u64, window_bytes_max: u64) -> Self {
        let limit = match kind {
            WindowKind::Fixed { capacity } => capacity,
            WindowKind::Rendezvous | WindowKind::Demand { .. } | WindowKind::Lease => 0,
        };
        let target = match kind {
            WindowKind::Demand { prefetch, .. } => prefetch,
            _ => limit,
        };
        Self {
            kind,
            received: 0,
            taken: 0,
            received_bytes: 0,
            taken_bytes: 0,
            granted: limit,
            granted_bytes: window_bytes,
            target,
            window_bytes,
            window_bytes_max,
            is_held: false,
            told_received: 0,
            told_taken: 0,
            waiting: 0,
            lazy: false,
            asked: 0,
            burst: 0,
        }
    }

    /// Whoever takes says so by other means, as acknowledgements do: that alone is not worth a report.
    pub const fn set_lazy(&mut self) {
        self.lazy = true;
    }

    /// What determines the limit.
    #[must_use]
    pub const fn kind(&self) -> WindowKind {
        self.kind
    }

    /// How many values have arrived.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// How many values have been taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes have been taken.
    #[must_use]
    pub const fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The highest item limit the peer may have heard of.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    /// The byte limit to tell.
    #[must_use]
    pub const fn limit_bytes(&self) -> u64 {
        self.taken_bytes + self.window_bytes
    }

    /// How many bytes have arrived and were not taken.
    #[must_use]
    pub const fn here_bytes(&self) -> u64 {
        self.received_bytes - self.taken_bytes
    }

    /// The byte window.
    #[must_use]
    pub const fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// Whether it would grow with the next report (`FLOW-6`).
    #[must_use]
    pub const fn wants_growth(&self) -> bool {
        self.received_bytes >= self.granted_bytes && self.taken == self.received
    }

    /// Whether it may grow.
    pub const fn allow_growth(&mut self, may: bool) {
        self.is_held = !may;
    }

    /// Counts an arrival of `count` values with `bytes` bytes, the last of them `last_bytes`.
    ///
    /// # Errors
    /// A [`Violation`] when they were not granted (`FLOW-3`).
    pub fn receive(&mut self, count: u64, bytes: u64, last_bytes: u64) -> Result<(), Violation> {
        self.check(count, bytes - last_bytes)?;
        self.received += count;
        self.received_bytes += bytes;
        self.burst = self.burst.max(self.received.saturating_sub(self.told_taken));
        Ok(())
    }

    /// Whether `count` more values, the last of them behind `bytes_before` bytes, were granted (`FLOW-3`).
    ///
    /// # Errors
    /// A [`Violation`] when they were not.
    pub fn check(&self, count: u64, bytes_before: u64) -> Result<(), Violation> {
        let end = self.received + count;
        let allowed = match self.kind {
            WindowKind::Rendezvous => end <= self.taken + 1,
            // What is sent ahead is within what may be with this end unasked.
            WindowKind::Demand { ahead, .. } => end <= self.granted.max(self.taken + ahead),
            _ => end <= self.granted,
        };
        // Only the start of the last value must lie inside the byte window (`FLOW-5`).
        if !allowed || self.received_bytes + bytes_before >= self.granted_bytes.max(1) {
            return Err(Violation("more than the credit granted"));
        }
        Ok(())
    }

    /// Counts one value as taken.
    #[inline]
    pub fn take(&mut self, bytes: u64) {
        self.taken += 1;
        self.taken_bytes += bytes;
        debug_assert!(self.taken <= self.received);
        match self.kind {
            WindowKind::Fixed { capacity } => self.target = self.taken + capacity,
            WindowKind::Demand { .. } | WindowKind::Rendezvous | WindowKind::Lease => {}
        }
    }

    /// Counts an offer that was withdrawn: its number is used up, its bytes, if it had arrived, are not (`CHAN-9`).
    pub fn void(&mut self, arrived_bytes: Option<u64>) {
        match arrived_bytes {
            Some(bytes) => self.received_bytes -= bytes,
            None => self.received += 1,
        }
        self.taken += 1;
        debug_assert!(self.taken <= self.received && self.taken_bytes <= self.received_bytes);
    }

    /// Demand: sets the limit for `waiting` receives. What the peer has heard of stands until it agrees to less; see
    /// [`Window::rewound`].
    pub fn demand(&mut self, waiting: u64) {
        self.waiting = waiting;
        if let WindowKind::Demand { prefetch, .. } = self.kind {
            self.target = self.granted.max(self.taken + prefetch + waiting).max(self.asked);
        }
    }

    /// Demand: leave for `units` values more than were taken, although no receive waits for them. It is told at once, and stands
    /// until the values have come or are given back.
    pub fn ask(&mut self, units: u64) {
        if matches!(self.kind, WindowKind::Demand { .. }) {
            self.asked = self.asked.max(self.taken + units);
            self.target = self.target.max(self.asked);
            self.burst = 0;
        }
    }

    /// The limit that the peer has heard of, or is about to.
    #[must_use]
    pub const fn wanted(&self) -> u64 {
        if self.target > self.granted { self.target } else { self.granted }
    }

    /// Lease: raises the limit to what the pool granted.
    pub fn lease(&mut self, limit: u64) {
        self.target = self.target.max(limit);
    }

    /// The sender gave credit back down to `limit`.
    ///
    /// # Errors
    /// A [`Violation`] when it kept more than was granted or less than it sent.
    pub fn yielded(&mut self, limit: u64) -> Result<(), Violation> {
        if limit > self.granted || limit < self.received {
            return Err(Violation("yield outside what was granted"));
        }
        self.granted = limit;
        self.target = limit;
        Ok(())
    }

    /// Everything from `taken` on was discarded, and the sender has agreed to send it anew.
    pub const fn rewound(&mut self) {
        self.received = self.taken;
        self.received_bytes = self.taken_bytes;
        self.granted = self.taken;
        self.asked = 0;
        self.target = self.taken;
    }

    /// How soon the peer must hear (`FLOW-4`).
    #[must_use]
    #[inline]
    pub fn urgency(&self) -> Urgency {
        let limit_moved = self.target - self.granted.min(self.target);
        let bytes_moved = self.limit_bytes().saturating_sub(self.granted_bytes);
        let rendezvous = self.kind == WindowKind::Rendezvous && self.told_taken < self.taken;
        if rendezvous
            || limit_moved >= self.half_items() && limit_moved > 0
            || bytes_moved > self.window_bytes / 2
        {
            return Urgency::Now;
        }
        let drained = self.taken == self.received && self.told_taken < self.taken;
        let exhausted = self.received >= self.granted || self.received_bytes >= self.granted_bytes;
        if matches!(self.kind, WindowKind::Demand { .. }) {
            let waits = self.waiting > 0 && self.taken == self.received;
            // As many are on their way as may be, and somebody waits whom the peer does not know of.
            let unknown = exhausted || self.waiting > self.granted - self.received;
            return match waits && limit_moved > 0 && unknown {
                true => Urgency::Now,
                false if drained && !self.lazy => Urgency::Soon,
                // What was taken of a batch goes back to nobody, whatever becomes of the link.
                false if self.told_taken < self.taken => Urgency::Idle,
                false => Urgency::None,
            };
        }
        let direct = matches!(self.kind, WindowKind::Fixed { .. });
        if exhausted && (limit_moved > 0 || bytes_moved > 0) || drained && !direct {
            Urgency::Soon
        } else if drained {
            Urgency::Idle
        } else {
            Urgency::None
        }
    }

    /// By how much the item limit may move before that is told at once.
    #[inline]
    const fn half_items(&self) -> u64 {
        match self.kind {
            WindowKind::Fixed { capacity } => capacity.div_ceil(2),
            // What comes ahead of any receive is for those that wait now.
            WindowKind::Demand { prefetch: 0, .. } if self.lazy => u64::MAX,
            // Values that come in bursts are reported by halves of one.
            WindowKind::Demand { prefetch: 0, .. } => {
                if self.burst < 2 {
                    1
                } else {
                    self.burst / 2
                }
            }
            WindowKind::Demand { prefetch, .. } => {
                if prefetch < 2 {
                    1
                } else {
                    prefetch / 2
                }
            }
            WindowKind::Rendezvous | WindowKind::Lease => 1,
        }
    }

    /// Whether values were taken of which the peer has not heard, while it waits to hear of those below number `asked`.
    #[must_use]
    #[inline]
    pub const fn owes_news_below(&self, asked: u64) -> bool {
        self.told_taken < asked && self.told_taken < self.taken
    }

    /// Whether the peer has not heard everything yet.
    #[must_use]
    pub const fn has_news(&self) -> bool {
        self.told_taken < self.taken || self.told_received < self.received || self.granted < self.target
    }

    /// What to tell the peer: `(received, taken, limit, limit_bytes)`. From now on it may use it.
    pub fn tell(&mut self) -> (u64, u64, u64, u64) {
        // A reader that keeps up with a sender whose bytes ran out deserves a larger window (`FLOW-6`).
        if self.wants_growth() && !self.is_held {
            self.window_bytes = (self.window_bytes * 2).min(self.window_bytes_max);
        }
        self.told_received = self.received;
        self.told_taken = self.taken;
        if self.taken == self.received {
            self.burst = 0;
        }
        self.granted = self.granted.max(self.target);
        self.granted_bytes = self.granted_bytes.max(self.limit_bytes());
        let taken = if planted::is(Mutant::TakenAtArrival) { self.received } else { self.taken };
        (self.received, taken, self.granted, self.granted_bytes)
    }
}
