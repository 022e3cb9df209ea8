//! The receivers of one channel: who waits, and who holds what.

use std::collections::{BTreeMap, VecDeque};

use super::held::Held;
use super::line::Line;
use super::{DEMAND_UNITS_MAX, Item, ReceiverKey, Violation};

/// Units of one receiver that wait side by side.
#[derive(Debug)]
struct Turn {
    of: ReceiverKey,
    units: u64,
}

#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Dispatched and not known taken, in the order of dispatch. An empty place was fenced: the receiver may still take it.
    pub(super) in_flight: VecDeque<Option<Item>>,
    /// Its places in the line, oldest first.
    places: VecDeque<u64>,
    units: u64,
    /// What it has taken and has to acknowledge; none where taking is all.
    pub(super) held: Option<Held>,
}

impl Receiver {
    /// How many more units may stand in the line, or be served, at once (`DEL-6`).
    fn room(&self) -> u64 {
        let Some(held) = &self.held else { return u64::MAX };
        if held.fence_at.is_some() {
            return 0;
        }
        let out = self.in_flight.iter().flatten().count() as u64 + held.len() + held.put_off;
        held.out_max.saturating_sub(out + self.units)
    }
}

/// All receivers, and the one line of their demand.
///
/// Invariants: every turn in the line has at least one unit, and its place stands in its receiver's `places`;
/// `units` and `in_flight` are the sums over all receivers.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    pub(super) map: BTreeMap<ReceiverKey, Receiver>,
    line: Line<Turn>,
    units: u64,
    pub(super) in_flight: usize,
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
        let held_back = |receiver: &Receiver| receiver.held.as_ref().map_or(0, |held| held.held_back);
        self.map.get(&key).map_or(0, |receiver| receiver.units + held_back(receiver))
    }

    pub(super) fn in_flight_of(&self, key: ReceiverKey) -> usize {
        self.map.get(&key).map_or(0, |receiver| receiver.in_flight.len())
    }

    pub(super) fn add(&mut self, key: ReceiverKey, held: Option<Held>) -> bool {
        if self.map.contains_key(&key) {
            return false;
        }
        self.map.insert(key, Receiver { held, ..Receiver::default() });
        true
    }

    /// Its demand vanishes; what it held comes back in the order of dispatch.
    pub(super) fn remove(&mut self, key: ReceiverKey) -> Option<Receiver> {
        let mut receiver = self.map.remove(&key)?;
        for place in std::mem::take(&mut receiver.places) {
            self.line.leave(place);
        }
        self.units -= receiver.units;
        self.in_flight -= receiver.in_flight.iter().flatten().count();
        Some(receiver)
    }

    pub(super) fn demand(&mut self, key: ReceiverKey, units: u64) -> Result<(), Violation> {
        if units > DEMAND_UNITS_MAX - self.units_of(key) {
            return Err(Violation::ExcessDemand); // HOST-21
        }
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let now = units.min(receiver.room());
        if let Some(held) = &mut receiver.held {
            held.held_back += units - now;
        }
        self.join(key, now);
        Ok(())
    }

    /// Lets a holder's demand into the line that its bound kept out so far.
    pub(super) fn let_in(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        let room = receiver.room();
        let Some(held) = &mut receiver.held else { return };
        let units = room.min(held.held_back);
        held.held_back -= units;
        self.join(key, units);
    }

    fn join(&mut self, key: ReceiverKey, units: u64) {
        let Some(receiver) = self.map.get_mut(&key).filter(|_| units > 0) else { return };
        receiver.units += units;
        self.units += units;
        let last = receiver.places.back().copied().filter(|place| self.line.last_place() == Some(*place));
        match last.and_then(|place| self.line.get_mut(place)) {
            Some(turn) => turn.units += units,
            None => receiver.places.push_back(self.line.join(Turn { of: key, units })),
        }
    }

    /// Removes the newest units that still wait; returns how many it removed.
    pub(super) fn cancel(&mut self, key: ReceiverKey, units: u64) -> u64 {
        let Some(receiver) = self.map.get_mut(&key) else { return 0 };
        let outside = receiver.held.as_mut().map_or(0, |held| {
            let outside = units.min(held.held_back);
            held.held_back -= outside;
            outside
        });
        let removed = (units - outside).min(receiver.units);
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
        outside + removed
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
        receiver.in_flight.push_back(Some(item));
        self.in_flight += 1;
        Some(key)
    }

    /// The oldest `n` values it was given are taken; `each` gets them, and whether the receiver holds them from now on.
    pub(super) fn take(
        &mut self,
        key: ReceiverKey,
        n: u64,
        mut each: impl FnMut(&Item, bool),
    ) -> Result<(), Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let n = count_within(n, receiver.in_flight.len())?;
        for item in receiver.in_flight.drain(..n) {
            let number = receiver.held.as_mut().map(Held::next_number);
            let Some(mut item) = item else { continue };
            self.in_flight -= 1;
            each(&item, number.is_some());
            if let (Some(held), Some(number)) = (&mut receiver.held, number) {
                item.settled = true;
                held.hold(number, item);
            }
        }
        Ok(())
    }

    /// What it holds after the oldest `keep` comes back.
    pub(super) fn give_back(&mut self, key: ReceiverKey, keep: u64) -> Result<Vec<Item>, Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let keep = count_within(keep, receiver.in_flight.len())?;
        let returned: Vec<_> = receiver.in_flight.split_off(keep).into_iter().flatten().collect();
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
            in_flight += receiver.in_flight.iter().flatten().count();
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
