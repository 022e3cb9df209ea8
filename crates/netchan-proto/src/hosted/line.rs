//! A first-come line whose members may also leave from the middle.

use std::collections::BTreeMap;

/// First in, first out; whoever joined holds a place that never changes, and leaves by it in O(log n).
#[derive(Debug)]
pub(super) struct Line<T> {
    // Invariant: every place in the map is below `next_place`, so a new one is always last.
    next_place: u64,
    members: BTreeMap<u64, T>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { next_place: 0, members: BTreeMap::new() }
    }
}

impl<T> Line<T> {
    /// Joins at the tail; returns the place.
    pub(super) fn join(&mut self, member: T) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.members.insert(place, member);
        place
    }

    pub(super) fn leave(&mut self, place: u64) -> Option<T> {
        self.members.remove(&place)
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.members.first_key_value().map(|(_, member)| member)
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut T> {
        self.members.first_entry().map(|entry| entry.into_mut())
    }

    pub(super) fn leave_first(&mut self) -> Option<T> {
        self.members.pop_first().map(|(_, member)| member)
    }

    pub(super) fn last_place(&self) -> Option<u64> {
        self.members.last_key_value().map(|(place, _)| *place)
    }

    #[cfg(debug_assertions)]
    pub(super) fn get(&self, place: u64) -> Option<&T> {
        self.members.get(&place)
    }

    pub(super) fn get_mut(&mut self, place: u64) -> Option<&mut T> {
        self.members.get_mut(&place)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}
