//! A first-come line whose members may also leave from the middle.

use std::collections::VecDeque;

/// Gaps that are left alone: sweeping a short line is not worth its while.
const GAPS_MIN: usize = 32;

/// First in, first out; whoever joined holds a place that never changes, and leaves by it in O(log n).
///
/// A ring with gaps and not a tree: joining and leaving at the ends, which is nearly all that happens, then costs neither
/// a search nor an allocation.
///
/// Invariants: places rise along the ring and all are below `next_place`; neither end is a gap; `len` counts the
/// others; there are at most `len + GAPS_MIN` gaps.
#[derive(Debug)]
pub(super) struct Line<T> {
    next_place: u64,
    ring: VecDeque<(u64, Option<T>)>,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { next_place: 0, ring: VecDeque::new(), len: 0 }
    }
}

impl<T> Line<T> {
    /// The place of whoever joins next.
    pub(super) fn next_place(&self) -> u64 {
        self.next_place
    }

    /// Joins at the tail; returns the place.
    pub(super) fn join(&mut self, member: T) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.ring.push_back((place, Some(member)));
        self.len += 1;
        place
    }

    /// The next place is this one; for a line that nobody has joined.
    pub(super) fn start_at(&mut self, place: u64) {
        self.next_place = self.next_place.max(place);
    }

    /// Uses a place up that nobody holds.
    pub(super) fn skip_place(&mut self) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        place
    }

    pub(super) fn leave(&mut self, place: u64) -> Option<T> {
        let at = self.find(place)?;
        let member = self.ring.get_mut(at)?.1.take()?;
        self.len -= 1;
        self.trim_front();
        while self.ring.back().is_some_and(|(_, member)| member.is_none()) {
            self.ring.pop_back();
        }
        if self.ring.len() > 2 * self.len + GAPS_MIN {
            self.ring.retain(|(_, member)| member.is_some());
        }
        Some(member)
    }

    pub(super) fn leave_first(&mut self) -> Option<T> {
        let (_, member) = self.ring.pop_front()?;
        self.len -= 1;
        self.trim_front();
        member
    }

    fn trim_front(&mut self) {
        while self.ring.front().is_some_and(|(_, member)| member.is_none()) {
            self.ring.pop_front();
        }
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.ring.front()?.1.as_ref()
    }

    /// The first, with its place.
    pub(super) fn first_placed(&self) -> Option<(u64, &T)> {
        let (place, member) = self.ring.front()?;
        Some((*place, member.as_ref()?))
    }

    /// The members with their places, in order.
    pub(super) fn iter_placed(&self) -> impl Iterator<Item = (u64, &T)> {
        self.ring.iter().filter_map(|(place, member)| Some((*place, member.as_ref()?)))
    }

    pub(super) fn last_place(&self) -> Option<u64> {
        self.ring.back().map(|(place, _)| *place)
    }

    /// The members, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.ring.iter().filter_map(|(_, member)| member.as_ref())
    }

    #[cfg(any(debug_assertions, test))]
    pub(super) fn get(&self, place: u64) -> Option<&T> {
        self.ring.get(self.find(place)?)?.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u64) -> Option<&mut T> {
        let at = self.find(place)?;
        self.ring.get_mut(at)?.1.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Empties the line, in order.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.len = 0;
        std::mem::take(&mut self.ring).into_iter().filter_map(|(_, member)| member)
    }

    fn find(&self, place: u64) -> Option<usize> {
        let (front, back) = (self.ring.front()?.0, self.ring.back()?.0);
        if place == front {
            Some(0)
        } else if place == back {
            Some(self.ring.len() - 1)
        } else {
            self.ring.binary_search_by_key(&place, |(place, _)| *place).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_bounded_and_places_stay() {
        let mut line = Line::default();
        let first = line.join(u64::MAX);
        let mut places: Vec<u64> = (0..1_000).map(|member| line.join(member)).collect();
        let last = places.pop().unwrap();
        for (member, place) in places.iter().enumerate() {
            assert_eq!(line.leave(*place), Some(member as u64));
            assert_eq!(line.leave(*place), None);
            assert!(line.ring.len() <= 2 * line.len() + GAPS_MIN);
        }
        assert_eq!((line.len(), line.get(first), line.get(last)), (2, Some(&u64::MAX), Some(&999)));
        assert_eq!(line.leave_first(), Some(u64::MAX));
        assert_eq!((line.first(), line.ring.len()), (Some(&999), 1), "no gap at an end");
        assert_eq!((line.leave(last), line.leave_first(), line.last_place()), (Some(999), None, None));
        assert_eq!(line.join(7), last + 1, "places are not used twice");
    }
}
