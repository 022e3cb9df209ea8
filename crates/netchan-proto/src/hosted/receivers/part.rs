//! What a client may have of what leaves the queue while others are there (`HOST-28`).

use std::collections::VecDeque;

use super::{Held, Part, Receivers};
use crate::hosted::{Effect, ReceiverKey};

impl<T: Clone> Receivers<T> {
    /// Of so many bytes that are here, in the queue or outside it, a client may have half.
    pub(in crate::hosted) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.shares.set_bytes_max(bytes_max / 2);
    }

    /// What it has may have changed.
    pub(super) fn count_part(&mut self, key: ReceiverKey) {
        if let Some(receiver) = self.map.get_mut(&key).filter(|receiver| receiver.share.is_some()) {
            let held = receiver.held.as_ref();
            let has = Part {
                units: receiver.out_count(),
                bytes: receiver.bytes + held.map_or(0, Held::bytes),
                put_off: held.map_or(0, Held::put_off_len),
            };
            self.shares.count(receiver.share, &mut receiver.counted, has);
        }
    }

    /// Whoever is first in the line and whose client has its part waits outside it.
    pub(in crate::hosted) fn hold_full_back(&mut self) {
        while let Some(key) = self.line.first().map(|turn| turn.of)
            && let Some(receiver) = self.map.get(&key)
            && self.shares.room(receiver.share) == 0
        {
            self.wait_for_part(key);
        }
    }

    /// How many units the first in the line waits for side by side, and how many bytes may go to it; one value may be longer.
    pub(in crate::hosted) fn room_of_first(&self) -> Option<(u64, u64)> {
        let turn = self.line.first()?;
        Some((turn.units, self.shares.room_bytes(self.map.get(&turn.of)?.share)))
    }

    /// How many values the client of this holder has put off, by this and others.
    pub(in crate::hosted) fn put_off_by_client(&self, key: ReceiverKey) -> u64 {
        self.map.get(&key).map_or(0, |receiver| self.shares.of(receiver.share).put_off)
    }

    pub(super) fn wait_for_part(&mut self, key: ReceiverKey) {
        let units = self.leave_line(key, u64::MAX);
        if let Some(receiver) = self.map.get_mut(&key) {
            receiver.held_back = units;
            receiver.over_share = true;
            self.shares.wait(receiver.share, key);
        }
        self.refresh(key);
    }

    /// Others of its own client wait for their part: what does not move to one of them is asked back for the others.
    pub(in crate::hosted) fn call_back_for_parts(&mut self, now: u64, effects: &mut VecDeque<Effect<T>>) {
        if self.shares.has_waiting() {
            let waits = |receivers: &Self, key| {
                let share = receivers.map.get(&key).and_then(|receiver| receiver.share);
                receivers.shares.waits(share)
            };
            self.call_back_overdue(now, waits, effects);
        }
    }

    /// Those whose clients have room again stand in line again, behind the others.
    pub(in crate::hosted) fn let_parts_in(&mut self) {
        if !self.shares.has_ready() {
            return;
        }
        let mut back = Vec::new();
        self.shares.let_in(|key| {
            let receiver = self.map.get(&key).filter(|receiver| receiver.over_share);
            back.extend(receiver.map(|_| key));
            receiver.map_or(0, |receiver| receiver.held_back.max(1))
        });
        for key in back {
            self.map.get_mut(&key).into_iter().for_each(|receiver| receiver.over_share = false);
            self.let_in(key);
        }
    }
}
