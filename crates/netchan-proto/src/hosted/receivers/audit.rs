//! Checks the totals against all receivers.

use super::{Held, Receivers, Turn};

impl<T: Clone> Receivers<T> {
    pub(in crate::hosted) fn audit(&self) {
        let (mut units, mut in_flight, mut turns, mut waiting, mut held, mut holding) = (0, 0, 0, 0, 0, 0);
        for (key, receiver) in &self.map {
            let places: Vec<&Turn> =
                receiver.places.iter().filter_map(|place| self.line.get(*place)).collect();
            assert_eq!(places.len(), receiver.places.len(), "a place that is not in the line");
            assert!(places.iter().all(|turn| turn.of == *key && turn.units > 0));
            assert_eq!(places.iter().map(|turn| turn.units).sum::<u64>(), receiver.units);
            assert_eq!(receiver.in_flight.iter().filter(|place| place.is_none()).count(), receiver.fenced);
            assert!(receiver.sent <= receiver.in_flight.len());
            assert_eq!(receiver.eager.is_some(), receiver.room_ahead() > 0, "who may be sent ahead");
            assert_eq!(
                receiver.given.max(receiver.wanted) - receiver.given,
                receiver.units + receiver.held_back
            );
            units += receiver.units;
            in_flight += receiver.out_count() as usize;
            turns += places.len();
            waiting += usize::from(receiver.units > 0);
            let bytes = receiver.in_flight.iter().flatten().map(|item| item.bytes.len() as u64).sum::<u64>();
            assert_eq!(bytes, receiver.bytes, "bytes in flight");
            held += receiver.held.as_ref().map_or(0, Held::len);
            holding += usize::from(receiver.called_back.is_some_and(|back| back.holds));
        }
        assert_eq!(
            (units, in_flight, turns, waiting, held, holding),
            (self.units, self.in_flight, self.line.len(), self.waiting, self.held, self.holding),
            "totals of demand"
        );
    }
}
