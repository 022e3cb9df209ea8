//! Each client's part of a resource that all clients of a channel share (`HOST-28`).

use std::collections::{HashMap, VecDeque};

use super::line::Line;

/// The share that a sender or receiver counts toward; none if it belongs to no client.
pub(super) type ShareIndex = Option<usize>;

/// What a member, or all members of a client, have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Units of what is shared.
    pub(super) units: u64,
    /// Their bytes, and of what was put off.
    pub(super) bytes: u64,
    /// Values that were put off.
    pub(super) put_off: u64,
}

#[derive(Debug)]
struct Share<K> {
    client: u128,
    members: usize,
    /// Of all its members.
    has: Part,
    /// Members that may have no more for now, longest first.
    waiting: VecDeque<K>,
    /// Members that hold units and want none, longest first.
    idle: Line<K>,
    /// Stands in `ready`.
    listed: bool,
}

/// The shares of all clients in one thing that is limited.
///
/// Invariants: `members` is the sum over all shares plus `unnamed`, those that belong to no client; a share has a slot while it has
/// members; `waiting` is the sum over all shares.
#[derive(Debug)]
pub(super) struct Shares<K> {
    of: HashMap<u128, usize>,
    slots: Vec<Option<Share<K>>>,
    vacant: Vec<usize>,
    members: usize,
    unnamed: usize,
    units_max: u64,
    bytes_max: u64,
    /// Shares whose members wait though there may be room.
    ready: Vec<usize>,
    /// Members that wait, over all shares.
    waiting: usize,
}

impl<K: Copy> Shares<K> {
    /// While other clients are there, a client may have `units_max` units, at least one, and begin another while it has fewer than
    /// `bytes_max` bytes.
    pub(super) fn new(units_max: u64, bytes_max: u64) -> Self {
        Self {
            of: HashMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            members: 0,
            unnamed: 0,
            units_max: units_max.max(1),
            bytes_max: bytes_max.max(1),
            ready: Vec::new(),
            waiting: 0,
        }
    }

    pub(super) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max.max(1);
    }

    /// Adds a member that belongs to no client.
    pub(super) fn join_unnamed(&mut self) {
        self.members += 1;
        self.unnamed += 1;
    }

    pub(super) fn leave_unnamed(&mut self) {
        self.members -= 1;
        self.unnamed -= 1;
        self.look_for_alone();
    }

    pub(super) fn join(&mut self, client: u128) -> usize {
        self.members += 1;
        let at = *self.of.entry(client).or_insert_with(|| {
            let waiting = VecDeque::new();
            let idle = Line::default();
            let share = Share { client, members: 0, has: Part::default(), waiting, idle, listed: false };
            let at = self.vacant.pop().unwrap_or(self.slots.len());
            if at == self.slots.len() {
                self.slots.push(Some(share));
            } else {
                self.slots[at] = Some(share);
            }
            at
        });
        self.slots[at].as_mut().into_iter().for_each(|share| share.members += 1);
        at
    }

    /// Removes a member. What it had must have been counted down before.
    pub(super) fn leave(&mut self, at: usize) {
        let Some(share) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        self.members -= 1;
        share.members -= 1;
        if share.members == 0 {
            debug_assert_eq!(share.has, Part::default(), "a share that nobody has");
            let client = share.client;
            self.waiting -= share.waiting.len();
            self.slots[at] = None;
            self.of.remove(&client);
            self.ready.retain(|ready| *ready != at);
            self.vacant.push(at);
        }
        self.look_for_alone();
    }

    /// A client that is alone now has room.
    fn look_for_alone(&mut self) {
        if self.of.len() == 1 {
            let left = self.of.values().next().copied();
            left.into_iter().for_each(|at| self.list(at));
        }
    }

    /// Whether any client is limited to its part: several members are there, and not all belong to the same client.
    pub(super) fn are_limited(&self) -> bool {
        self.of.len() > 1 || self.of.len() == 1 && self.unnamed > 0
    }

    /// How many more units it may have.
    pub(super) fn room(&self, share: ShareIndex) -> u64 {
        let Some(share) = share.and_then(|at| self.slots.get(at)?.as_ref()) else { return u64::MAX };
        if share.members == self.members {
            u64::MAX
        } else if share.has.bytes >= self.bytes_max {
            0
        } else {
            self.units_max.saturating_sub(share.has.units)
        }
    }

    /// Whether the client has more than its part.
    pub(super) fn is_over(&self, share: ShareIndex) -> bool {
        let share = share.and_then(|at| self.slots.get(at)?.as_ref());
        share.is_some_and(|share| share.members < self.members && share.has.units > self.units_max)
    }

    /// How many more bytes it may have; one unit may be longer.
    pub(super) fn room_bytes(&self, share: ShareIndex) -> u64 {
        let Some(share) = share.and_then(|at| self.slots.get(at)?.as_ref()) else { return u64::MAX };
        if share.members == self.members { u64::MAX } else { self.bytes_max.saturating_sub(share.has.bytes) }
    }

    /// What a share has.
    pub(super) fn of(&self, share: ShareIndex) -> Part {
        share.and_then(|at| self.slots.get(at)?.as_ref()).map_or(Part::default(), |share| share.has)
    }

    /// One of its members has `after` now, and had `before`.
    pub(super) fn count(&mut self, share: ShareIndex, before: &mut Part, after: Part) {
        let was = std::mem::replace(before, after);
        let Some(at) = share.filter(|_| was != after) else { return };
        let Some(share) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let has = &mut share.has;
        has.units = has.units - was.units + after.units;
        has.bytes = has.bytes - was.bytes + after.bytes;
        has.put_off = has.put_off - was.put_off + after.put_off;
        if !share.waiting.is_empty() && (after.units < was.units || after.bytes < was.bytes) {
            self.list(at);
        }
    }

    /// One of its members waits until there is room.
    pub(super) fn wait(&mut self, share: ShareIndex, key: K) {
        if let Some(share) = share.and_then(|at| self.slots.get_mut(at)?.as_mut()) {
            share.waiting.push_back(key);
            self.waiting += 1;
        }
    }

    /// One of its members that waited is gone.
    pub(super) fn forget(&mut self, share: ShareIndex, key: K)
    where
        K: PartialEq,
    {
        if let Some(share) = share.and_then(|at| self.slots.get_mut(at)?.as_mut()) {
            let before = share.waiting.len();
            share.waiting.retain(|waiting| *waiting != key);
            self.waiting -= before - share.waiting.len();
        }
    }

    /// One of its members holds units and wants none. Returns its place.
    pub(super) fn join_idle(&mut self, share: ShareIndex, key: K) -> Option<u64> {
        Some(share.and_then(|at| self.slots.get_mut(at)?.as_mut())?.idle.join(key))
    }

    pub(super) fn leave_idle(&mut self, share: ShareIndex, place: Option<u64>) {
        if let (Some(share), Some(place)) = (share.and_then(|at| self.slots.get_mut(at)?.as_mut()), place) {
            share.idle.leave(place);
        }
    }

    /// Which of its members has held units for longest without wanting any.
    pub(super) fn first_idle(&self, share: ShareIndex) -> Option<K> {
        share.and_then(|at| self.slots.get(at)?.as_ref())?.idle.first().copied()
    }

    /// Whether any member of any share waits.
    pub(super) const fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether members of this share wait.
    pub(super) fn waits(&self, share: ShareIndex) -> bool {
        let share = share.and_then(|at| self.slots.get(at)?.as_ref());
        share.is_some_and(|share| !share.waiting.is_empty())
    }

    fn list(&mut self, at: usize) {
        if let Some(share) = self.slots.get_mut(at).and_then(Option::as_mut)
            && !std::mem::replace(&mut share.listed, true)
        {
            self.ready.push(at);
        }
    }

    /// Whether [`Self::let_in`] has something to do.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// As many members as there is room for wait no longer. `f` says how many units each waits for.
    pub(super) fn let_in(&mut self, mut f: impl FnMut(K) -> u64) {
        while let Some(at) = self.ready.pop() {
            let mut room = self.room(Some(at));
            let Some(share) = self.slots.get_mut(at).and_then(Option::as_mut) else { continue };
            share.listed = false;
            while room > 0
                && let Some(key) = share.waiting.pop_front()
            {
                self.waiting -= 1;
                room = room.saturating_sub(f(key));
            }
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn totals(&self) -> Part {
        self.slots.iter().flatten().fold(Part::default(), |all, share| Part {
            units: all.units + share.has.units,
            bytes: all.bytes + share.has.bytes,
            put_off: all.put_off + share.has.put_off,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(units: u64, bytes: u64) -> Part {
        Part { units, bytes, put_off: 0 }
    }

    #[test]
    fn host_28_a_client_has_a_part_while_others_are_there() {
        let mut shares = Shares::<u8>::new(4, 100);
        let (a, mut has) = (shares.join(1), Part::default());
        assert_eq!(shares.room(Some(a)), u64::MAX, "alone");
        let b = shares.join(2);
        assert_eq!((shares.room(Some(a)), shares.room(Some(b)), shares.room(None)), (4, 4, u64::MAX));
        shares.count(Some(a), &mut has, part(3, 10));
        assert_eq!(shares.room(Some(a)), 1);
        shares.count(Some(a), &mut has, part(1, 100));
        assert_eq!((shares.room(Some(a)), shares.room(Some(b))), (0, 4), "bytes count too");
        // Two members of one client share its part.
        assert_eq!(shares.join(1), a);
        let mut other = Part::default();
        shares.count(Some(a), &mut has, part(4, 0));
        assert_eq!(shares.room(Some(a)), 0);
        shares.wait(Some(a), 7);
        shares.wait(Some(a), 8);
        shares.wait(Some(a), 9);
        let mut let_in = Vec::new();
        shares.let_in(|key| {
            let_in.push(key);
            1
        });
        assert!(let_in.is_empty(), "nothing has changed");
        shares.count(Some(a), &mut has, part(2, 0));
        shares.let_in(|key| {
            let_in.push(key);
            1
        });
        assert_eq!(let_in, [7, 8], "as many as there is room for");
        shares.leave(b);
        shares.let_in(|key| {
            let_in.push(key);
            1
        });
        assert_eq!(let_in, [7, 8, 9], "alone again");
        shares.count(Some(a), &mut has, part(0, 0));
        shares.count(Some(a), &mut other, part(0, 0));
        shares.leave(a);
        shares.leave(a);
        assert_eq!(shares.join(3), a, "the slot is used again");
    }
}
