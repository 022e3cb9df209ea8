//! What a client may have of what leaves the queue while others are there (`HOST-28`).

use super::{Held, Part, Receiver, Receivers, Shares};
use crate::hosted::ReceiverKey;

impl<T: Clone> Receivers<T> {
    /// One client may have half of `bytes_max`, the bytes that the channel may hold.
    pub(in crate::hosted) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.shares.set_bytes_max(bytes_max / 2);
    }

    /// The first in the line waits outside it while its client has all of its part.
    pub(in crate::hosted) fn hold_full_back(&mut self) {
        if !self.shares.are_limited() {
            return;
        }
        while let Some(key) = self.line.first().map(|turn| turn.of)
            && let Some(receiver) = self.map.get(&key)
            && self.shares.room(receiver.share) == 0
        {
            self.wait_for_part(key);
        }
    }

    /// The units of the first turn in the line, and how many bytes its client may still have; one value may be longer.
    pub(in crate::hosted) fn room_of_first(&self) -> Option<(u64, u64)> {
        let turn = self.line.first()?;
        Some((turn.units, self.shares.room_bytes(self.map.get(&turn.of)?.share)))
    }

    /// How many values the client of this holder has put off, over all of its holders.
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

    /// Receivers whose clients have room again join the end of the line.
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

impl<T> Receiver<T> {
    /// Counts what it has now toward its client's part.
    pub(super) fn count_part(&mut self, shares: &mut Shares<ReceiverKey>) {
        if self.share.is_some() {
            let held = self.held.as_ref();
            let has = Part {
                units: self.out_count(),
                bytes: self.bytes + held.map_or(0, Held::bytes),
                put_off: held.map_or(0, Held::put_off_len),
            };
            shares.count(self.share, &mut self.counted, has);
        }
    }
}
