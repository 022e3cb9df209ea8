//! The receivers of one channel: who waits, and who holds what.

use std::collections::vec_deque::Drain;
use std::collections::{BTreeMap, VecDeque};

use super::line::Line;
use super::{DEMAND_UNITS_MAX, Item, ReceiverKey, Violation};

/// Units of one receiver that wait side by side.
#[derive(Debug)]
struct Turn {
    of: ReceiverKey,
    units: u64,
}

#[derive(Debug, Default)]
struct Receiver {
    /// Dispatched and not known taken, in the order of dispatch.
    in_flight: VecDeque<Item>,
    /// Its places in the line, oldest first.
    places: VecDeque<u64>,
    units: u64,
}

/// All receivers, and the one line of their demand.
///
/// Invariants: every turn in the line has at least one unit, and its place stands in its receiver's `places`;
/// `units` and `in_flight` are the sums over all receivers.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    map: BTreeMap<ReceiverKey, Receiver>,
    line: Line<Turn>,
    units: u64,
    in_flight: usize,
}

impl Receivers {
    #[cfg(debug_assertions)]
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn units(&self) -> u64 {
        self.units
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn units_of(&self, key: ReceiverKey) -> u64 {
        self.map.get(&key).map_or(0, |receiver| receiver.units)
    }

    pub(super) fn in_flight_of(&self, key: ReceiverKey) -> usize {
        self.map.get(&key).map_or(0, |receiver| receiver.in_flight.len())
    }

    pub(super) fn add(&mut self, key: ReceiverKey) -> bool {
        let known = self.map.contains_key(&key);
        self.map.entry(key).or_default();
        !known
    }

    /// Its demand vanishes; what it held comes back in the order of dispatch.
    pub(super) fn remove(&mut self, key: ReceiverKey) -> VecDeque<Item> {
        let Some(receiver) = self.map.remove(&key) else { return VecDeque::new() };
        for place in receiver.places {
            self.line.leave(place);
        }
        self.units -= receiver.units;
        self.in_flight -= receiver.in_flight.len();
        receiver.in_flight
    }

    pub(super) fn demand(&mut self, key: ReceiverKey, units: u64) -> Result<(), Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        if units > DEMAND_UNITS_MAX - receiver.units {
            return Err(Violation::ExcessDemand); // HOST-21
        }
        if units == 0 {
            return Ok(());
        }
        receiver.units += units;
        self.units += units;
        let last = receiver.places.back().copied().filter(|place| self.line.last_place() == Some(*place));
        match last.and_then(|place| self.line.get_mut(place)) {
            Some(turn) => turn.units += units,
            None => receiver.places.push_back(self.line.join(Turn { of: key, units })),
        }
        Ok(())
    }

    /// Removes the newest units that still wait; returns how many it removed.
    pub(super) fn cancel(&mut self, key: ReceiverKey, units: u64) -> u64 {
        let Some(receiver) = self.map.get_mut(&key) else { return 0 };
        let removed = units.min(receiver.units);
        let mut left = removed;
        while left > 0 {
            let Some(place) = receiver.places.back().copied() else { break };
            let Some(turn) = self.line.get_mut(place) else { break };
            let part = left.min(turn.units);
            turn.units -= part;
            left -= part;
            if turn.units == 0 {
                self.line.leave(place);
                receiver.places.pop_back();
            }
        }
        debug_assert_eq!(left, 0);
        receiver.units -= removed;
        self.units -= removed;
        removed
    }

    /// Gives the item to the unit that has waited longest (`HOST-2`); there must be one.
    pub(super) fn dispatch(&mut self, item: Item) -> Option<ReceiverKey> {
        let turn = self.line.first_mut()?;
        let key = turn.of;
        turn.units -= 1;
        let spent = turn.units == 0;
        let receiver = self.map.get_mut(&key)?;
        if spent {
            self.line.leave_first();
            receiver.places.pop_front();
        }
        receiver.units -= 1;
        self.units -= 1;
        receiver.in_flight.push_back(item);
        self.in_flight += 1;
        Some(key)
    }

    /// The oldest `n` values it holds are taken.
    pub(super) fn take(&mut self, key: ReceiverKey, n: u64) -> Result<Drain<'_, Item>, Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let n = count_within(n, receiver.in_flight.len())?;
        self.in_flight -= n;
        Ok(receiver.in_flight.drain(..n))
    }

    /// What it holds after the oldest `keep` comes back.
    pub(super) fn give_back(&mut self, key: ReceiverKey, keep: u64) -> Result<VecDeque<Item>, Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let keep = count_within(keep, receiver.in_flight.len())?;
        let returned = receiver.in_flight.split_off(keep);
        self.in_flight -= returned.len();
        Ok(returned)
    }

    #[cfg(debug_assertions)]
    pub(super) fn audit(&self) {
        let (mut units, mut in_flight, mut turns) = (0, 0, 0);
        for (key, receiver) in &self.map {
            let waiting: Vec<&Turn> =
                receiver.places.iter().filter_map(|place| self.line.get(*place)).collect();
            assert_eq!(waiting.len(), receiver.places.len(), "a place that is not in the line");
            assert!(waiting.iter().all(|turn| turn.of == *key && turn.units > 0));
            assert_eq!(waiting.iter().map(|turn| turn.units).sum::<u64>(), receiver.units);
            units += receiver.units;
            in_flight += receiver.in_flight.len();
            turns += waiting.len();
        }
        assert_eq!(
            (units, in_flight, turns),
            (self.units, self.in_flight, self.line.len()),
            "totals of demand"
        );
    }
}

fn count_within(n: u64, len: usize) -> Result<usize, Violation> {
    usize::try_from(n).ok().filter(|n| *n <= len).ok_or(Violation::NotInFlight)
}
