//! The one line in which the demand of all receivers waits.

use std::collections::VecDeque;

use super::{NextTaker, Receivers, Turn};
use crate::hosted::{DEMAND_UNITS_MAX, Effect, Item, ReceiverKey, Violation};

/// A receiver that has so many values can wait for more until they go together.
const FED_ITEMS_MIN: usize = 16;

/// How many turns are looked at for another receiver than one that refused the value.
const AVOID_LOOK_MAX: usize = 8;

impl<T: Clone> Receivers<T> {
    /// It waits for the values numbered below `wanted`. What was sent ahead answers the first of them.
    pub(in crate::hosted) fn want_up_to(&mut self, key: ReceiverKey, wanted: u64) -> Result<(), Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let units = wanted.saturating_sub(receiver.wanted.max(receiver.given));
        if units > DEMAND_UNITS_MAX - (receiver.units + receiver.held_back) {
            return Err(Violation::ExcessDemand); // HOST-21
        }
        receiver.wanted = receiver.wanted.max(wanted);
        if units > 0 && !std::mem::replace(&mut receiver.seen, true) {
            self.shares.join_unnamed();
        }
        let now = units.min(receiver.room());
        receiver.held_back += units - now;
        self.join(key, now);
        self.note_asker(key, units);
        self.refresh(key);
        Ok(())
    }

    /// So many more receives wait there.
    pub(in crate::hosted) fn demand(&mut self, key: ReceiverKey, units: u64) -> Result<(), Violation> {
        let wanted = self.map.get(&key).map_or(0, |receiver| receiver.wanted);
        self.want_up_to(key, wanted.saturating_add(units))
    }

    /// Lets demand into the line that was kept out so far.
    pub(in crate::hosted) fn let_in(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        let units = receiver.room().min(receiver.held_back);
        receiver.held_back -= units;
        self.join(key, units);
        self.refresh(key);
        self.refresh_fence(key);
    }

    pub(in crate::hosted) fn join(&mut self, key: ReceiverKey, units: u64) {
        let Some(receiver) = self.map.get_mut(&key).filter(|_| units > 0) else { return };
        self.waiting += usize::from(receiver.units == 0);
        receiver.units += units;
        self.units += units;
        let last = receiver.places.back().copied().filter(|place| self.line.last_place() == Some(*place));
        match last.and_then(|place| self.line.get_mut(place)) {
            Some(turn) => turn.units += units,
            None => receiver.places.push_back(self.line.join(Turn { of: key, units })),
        }
    }

    /// Removes the newest units that still wait; returns how many it removed.
    pub(in crate::hosted) fn cancel(&mut self, key: ReceiverKey, units: u64) -> u64 {
        let removed = self.leave_line(key, units);
        if let Some(receiver) = self.map.get_mut(&key) {
            receiver.wanted -= removed;
        }
        self.refresh(key);
        removed
    }

    pub(in crate::hosted) fn leave_line(&mut self, key: ReceiverKey, units: u64) -> u64 {
        let Some(receiver) = self.map.get_mut(&key) else { return 0 };
        let outside = units.min(receiver.held_back);
        receiver.held_back -= outside;
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
        self.waiting -= usize::from(removed > 0 && receiver.units == 0);
        outside + removed
    }

    /// Nothing can be sent to it now: what it waits for waits outside the line (`HOST-25`).
    pub(in crate::hosted) fn block(&mut self, key: ReceiverKey) {
        let units = self.leave_line(key, u64::MAX);
        if let Some(receiver) = self.map.get_mut(&key) {
            receiver.blocked = true;
            receiver.held_back = units;
        }
        self.refresh(key);
    }

    /// Something can be sent to it again: it waits behind the others.
    pub(in crate::hosted) fn unblock(&mut self, key: ReceiverKey) {
        if self.map.get(&key).is_some_and(|receiver| receiver.blocked) {
            self.map.get_mut(&key).into_iter().for_each(|receiver| receiver.blocked = false);
            self.let_in(key);
        }
    }

    /// Who would be given the next value: as asked for, or else ahead.
    pub(in crate::hosted) fn next_taker(&self) -> NextTaker {
        match self.line.first().map(|turn| turn.of).or_else(|| self.eager.first().copied()) {
            None => NextTaker::Nobody,
            Some(key) if self.in_flight_of(key) >= FED_ITEMS_MIN => NextTaker::Fed,
            Some(_) => NextTaker::Starving,
        }
    }

    /// Who is served next, passing over `avoided` if another waits.
    pub(in crate::hosted) fn next_turn(&self, avoided: Option<ReceiverKey>) -> Option<(u64, ReceiverKey)> {
        let first = self.line.first_placed().map(|(place, turn)| (place, turn.of))?;
        if avoided == Some(first.1) && self.others_wait(first.1) {
            // Turns of one receiver that stand behind each other are few: they are one unless another left from between.
            let others = self.line.iter_placed().map(|(place, turn)| (place, turn.of));
            return others.take(AVOID_LOOK_MAX).find(|(_, of)| *of != first.1).or(Some(first));
        }
        Some(first)
    }

    /// Of who is served next, as many units as wait there side by side leave the line, `most` at most.
    pub(in crate::hosted) fn serve_turn(&mut self, most: usize) -> Option<(ReceiverKey, usize)> {
        let (place, key) = self.line.first_placed().map(|(place, turn)| (place, turn.of))?;
        let part = self.shares.room(self.map.get(&key)?.share);
        let turn = self.line.get_mut(place)?;
        let units = turn.units.min(most as u64).min(part);
        turn.units -= units;
        let spent = turn.units == 0;
        let receiver = self.map.get_mut(&key)?;
        if spent {
            self.line.leave(place);
            receiver.places.pop_front();
        }
        receiver.units -= units;
        self.units -= units;
        self.waiting -= usize::from(receiver.units == 0);
        Some((key, usize::try_from(units).unwrap_or(most)))
    }

    /// Gives the item to the unit that has waited longest (`HOST-2`); there must be one. A holder that refused it comes after
    /// others that wait.
    pub(in crate::hosted) fn dispatch(
        &mut self,
        item: Item<T>,
        now: u64,
        effects: &mut VecDeque<Effect<T>>,
    ) -> Option<ReceiverKey> {
        let (place, key) = self.next_turn(item.refused_by)?;
        let turn = self.line.get_mut(place)?;
        turn.units -= 1;
        let spent = turn.units == 0;
        let receiver = self.map.get_mut(&key)?;
        if spent {
            self.line.leave(place);
            if receiver.places.front() == Some(&place) {
                receiver.places.pop_front();
            } else {
                receiver.places.retain(|other| *other != place);
            }
        }
        receiver.units -= 1;
        self.units -= 1;
        self.waiting -= usize::from(receiver.units == 0);
        self.give(key, item, now, effects);
        Some(key)
    }
}
