//! How many values a receiver takes in about one round trip: so many may be sent to it ahead (`HOST-23`).

use crate::limits::AHEAD_ITEMS_MAX;

/// A round trip counts as at least this long, in microseconds: on one machine it is shorter than what a busy scheduler adds.
const ROUND_TRIP_MICROS_MIN: u64 = 300;

/// A receiver that takes so many values in a round trip is better served by few large writes than by many small ones.
const FAST_ITEMS_MIN: u64 = 32;

/// What is measured is how many values a receiver takes, and in what time: from when values leave for one that has none, or from
/// when it last waited, until it waits for more. Where that comes to less than two round trips, twice as many may be with it; where
/// it comes to more, only those that fit into one. So a worker whose tasks take longer than a round trip has the one in hand, and
/// none ahead of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Since when what it takes is counted, and how much that is.
    since: Option<u64>,
    taken: u64,
    ahead: u64,
    /// When it was last heard of, and the values below which had left for it then.
    heard: u64,
    given: u64,
}

impl Pace {
    /// Values left, and it had none. Where it had taken all and not waited since, it is not known to wait for them.
    pub(super) fn left(&mut self, now_micros: u64) {
        if self.since.is_none() {
            self.since = Some(now_micros);
            self.taken = 0;
        }
    }

    /// It has taken so many more.
    pub(super) const fn took(&mut self, count: u64) {
        self.taken += count;
    }

    /// So much had left for it when it was heard of.
    pub(super) const fn heard(&mut self, given: u64, now_micros: u64) {
        self.heard = now_micros;
        self.given = given;
    }

    /// Whether what has left for it may not have reached it yet when it said that it had taken the values below `taken`.
    pub(super) fn may_be_on_their_way(
        &self,
        taken: u64,
        now_micros: u64,
        round_trip_micros: Option<u64>,
    ) -> bool {
        let round_trip = round_trip_micros.unwrap_or(0).max(ROUND_TRIP_MICROS_MIN);
        taken >= self.given || now_micros.saturating_sub(self.heard) <= round_trip
    }

    /// It waits for more and has none, though some may be on their way. Returns how many values may be with it.
    pub(super) fn starved(
        &mut self,
        on_their_way: bool,
        now_micros: u64,
        round_trip_micros: Option<u64>,
    ) -> u64 {
        let taken = std::mem::take(&mut self.taken);
        let since = std::mem::replace(&mut self.since, on_their_way.then_some(now_micros));
        let (Some(since), Some(round_trip)) = (since, round_trip_micros) else { return self.ahead };
        if taken == 0 {
            // Another waits there.
            self.since = self.since.map(|_| since);
            return self.ahead;
        }
        let round_trip = round_trip.max(ROUND_TRIP_MICROS_MIN);
        let took = now_micros.saturating_sub(since).max(1);
        if took < 2 * round_trip {
            self.ahead = (self.ahead.max(1) * 2).min(AHEAD_ITEMS_MAX);
        } else {
            self.shrink_to(taken * round_trip / (took - round_trip));
        }
        self.ahead
    }

    /// By halves: it may only have been interrupted.
    fn shrink_to(&mut self, fit: u64) {
        self.ahead = self.ahead.min(fit.max(self.ahead / 2).max(1));
    }

    /// It takes, and has more: where that is slow, fewer may be with it. Returns how many.
    pub(super) fn busy(&mut self, now_micros: u64, round_trip_micros: Option<u64>) -> u64 {
        let (Some(since), Some(round_trip)) = (self.since, round_trip_micros) else { return self.ahead };
        let round_trip = round_trip.max(ROUND_TRIP_MICROS_MIN);
        let took = now_micros.saturating_sub(since);
        if self.taken > 0 && took >= 2 * round_trip {
            self.shrink_to(self.taken * round_trip / took);
            self.since = Some(now_micros);
            self.taken = 0;
        }
        self.ahead
    }

    /// It takes many values in a round trip.
    pub(super) const fn is_fast(&self) -> bool {
        self.ahead >= FAST_ITEMS_MIN
    }

    /// It was called back, or is away: from the start again.
    pub(super) fn restart(&mut self) {
        let Self { heard, given, .. } = *self;
        *self = Self { heard, given, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: u64 = 1_000;

    /// What may be with a worker that takes what it has, one after another, and then waits for more.
    fn ahead_of_a_worker(task_micros: u64, rounds: u64) -> u64 {
        let (mut pace, mut now, mut with_it) = (Pace::default(), 0, 1);
        for _ in 0..rounds {
            pace.left(now);
            now += ROUND_TRIP + with_it * task_micros;
            pace.took(with_it);
            with_it = pace.starved(false, now, Some(ROUND_TRIP)).max(1);
        }
        with_it
    }

    #[test]
    fn host_23_a_worker_is_sent_what_it_takes_in_a_round_trip() {
        assert_eq!(ahead_of_a_worker(0, 20), AHEAD_ITEMS_MAX);
        assert!((5..=20).contains(&ahead_of_a_worker(100, 20)));
        assert_eq!(ahead_of_a_worker(1_100, 20), 1, "one whose tasks take longer has the one in hand");
        assert_eq!(ahead_of_a_worker(1_000_000, 3), 1);
    }

    #[test]
    fn host_23_without_a_measured_round_trip_nothing_goes_ahead() {
        let mut pace = Pace::default();
        pace.left(0);
        pace.took(1);
        assert_eq!(pace.starved(false, 10, None), 0);
    }

    /// What it says that it waits crosses values on their way to it: it is fed all the time, and never once has none.
    #[test]
    fn host_23_one_that_is_fed_while_it_waits_is_measured_too() {
        let (mut pace, mut now, mut with_it) = (Pace::default(), 0, 1);
        pace.left(0);
        for _ in 0..20 {
            now += ROUND_TRIP / 2;
            pace.took(with_it);
            with_it = pace.starved(true, now, Some(ROUND_TRIP)).max(1);
        }
        assert_eq!(with_it, AHEAD_ITEMS_MAX);
        // Two that wait there are not twice as fast.
        assert_eq!(pace.starved(true, now, Some(ROUND_TRIP)), with_it);
    }

    #[test]
    fn host_23_one_that_becomes_slow_has_fewer_with_it_though_it_never_waits() {
        let (mut pace, mut now) = (Pace { ahead: 1_024, ..Pace::default() }, 0);
        pace.left(now);
        for _ in 0..20 {
            now += 5 * ROUND_TRIP;
            pace.took(1);
            pace.busy(now, Some(ROUND_TRIP));
        }
        assert_eq!(pace.ahead, 1);
        // One interruption does not undo what was learned.
        let mut pace = Pace { ahead: 1_000, ..Pace::default() };
        pace.left(0);
        pace.took(100);
        assert_eq!(pace.busy(10 * ROUND_TRIP, Some(ROUND_TRIP)), 500);
    }
}
