//! How many values a receiver takes in about one round trip: so many may be sent to it ahead (`HOST-23`).

use crate::limits::AHEAD_ITEMS_MAX;

/// A round trip counts as at least this long, in microseconds: on one machine it is shorter than what a busy scheduler adds.
const ROUND_TRIP_MICROS_MIN: u64 = 150;

/// What is measured is from when values leave for a receiver that has none until it waits for more: a round trip, and what it
/// does with them. Where that comes to less than two round trips, twice as many may go; where it comes to more, only those that
/// fit into one. So a worker whose tasks take longer than a round trip has the one in hand, and none ahead of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When values left for it while it had none, and how many.
    since: Option<u64>,
    given: u64,
    ahead: u64,
}

impl Pace {
    /// `count` values left, and it had none.
    pub(super) const fn left(&mut self, count: u64, now_micros: u64) {
        self.since = Some(now_micros);
        self.given = count;
    }

    /// It has nothing left and waits for more. Returns how many values may be with it.
    pub(super) fn starved(&mut self, now_micros: u64, round_trip_micros: Option<u64>) -> u64 {
        let (Some(since), Some(round_trip)) = (self.since.take(), round_trip_micros) else {
            return self.ahead;
        };
        let round_trip = round_trip.max(ROUND_TRIP_MICROS_MIN);
        let took = now_micros.saturating_sub(since);
        if took < 2 * round_trip {
            self.ahead = (self.ahead.max(1) * 2).min(AHEAD_ITEMS_MAX);
        } else {
            let fit = self.given * round_trip / (took - round_trip);
            self.ahead = self.ahead.min(fit.max(1));
        }
        self.ahead
    }

    /// It was called back, or is away: from the start again.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead_of_a_worker(task_micros: u64, rounds: u64) -> u64 {
        let (mut pace, mut now, mut with_it) = (Pace::default(), 0, 1);
        for _ in 0..rounds {
            pace.left(with_it, now);
            now += 1_000 + with_it * task_micros;
            with_it = pace.starved(now, Some(1_000)).max(1);
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
        pace.left(1, 0);
        assert_eq!(pace.starved(10, None), 0);
    }
}
