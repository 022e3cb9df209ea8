//! What a broadcast has assigned, and the older lists that subscribers still read (`CAST-2`, `CAST-3`, `CAST-9`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{BroadcastLimits, NotSent};

#[derive(Debug, Default)]
struct List {
    values: Vec<Bytes>,
    bytes: u64,
    readers: usize,
}

/// Where a subscriber stands in the list that was there when it came.
#[derive(Debug)]
pub(super) struct Reading {
    list: u64,
    upto: usize,
    had: usize,
}

impl Reading {
    pub(super) const fn is_over(&self) -> bool {
        self.had >= self.upto
    }

    /// How many values are still to come.
    pub(super) const fn left(&self) -> u64 {
        (self.upto - self.had) as u64
    }

    pub(super) const fn is_of(&self, list: u64) -> bool {
        self.list == list && !self.is_over()
    }
}

/// The lists by age; the newest is the one that new subscribers get.
///
/// Invariants: a list but the newest has readers, those whose [`Reading`] of it is not over; `old_items` and `old_bytes` are
/// the sums over all but the newest.
#[derive(Debug)]
pub(super) struct Assigned {
    lists: BTreeMap<u64, List>,
    newest: u64,
    items_max: usize,
    bytes_max: u64,
    old_items: usize,
    old_bytes: u64,
}

impl Assigned {
    pub(super) fn new(limits: &BroadcastLimits) -> Self {
        Self {
            lists: BTreeMap::from([(0, List::default())]),
            newest: 0,
            items_max: limits.assigned_items_max,
            bytes_max: limits.assigned_bytes_max,
            old_items: 0,
            old_bytes: 0,
        }
    }

    fn now(&self) -> Option<&List> {
        self.lists.get(&self.newest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.now().is_none_or(|list| list.values.is_empty())
    }

    /// Bytes of all lists.
    pub(super) fn bytes(&self) -> u64 {
        self.old_bytes + self.now().map_or(0, |list| list.bytes)
    }

    /// Whether another value of that length may be assigned.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.now()
            .is_none_or(|list| list.values.len() < self.items_max && list.bytes + bytes <= self.bytes_max)
    }

    /// One more is assigned. Those who came before do not get it from here.
    pub(super) fn push(&mut self, value: Bytes) {
        if let Some(list) = self.lists.get_mut(&self.newest) {
            list.bytes += value.len() as u64;
            list.values.push(value);
        }
    }

    /// Others are assigned from here on.
    pub(super) fn replace(&mut self, values: Vec<Bytes>) -> Result<(), NotSent> {
        let bytes = values.iter().map(|value| value.len() as u64).sum();
        if values.len() > self.items_max || bytes > self.bytes_max {
            return Err(NotSent::TooManyAssigned);
        }
        let before = self.newest;
        self.newest += 1;
        self.lists.insert(self.newest, List { values, bytes, readers: 0 });
        if let Some(old) = self.lists.get(&before) {
            (self.old_items, self.old_bytes) =
                (self.old_items + old.values.len(), self.old_bytes + old.bytes);
        }
        self.let_go(before);
        Ok(())
    }

    /// The oldest list, where the old ones together are more than may be kept: its readers are to give it up.
    pub(super) fn too_old(&self) -> Option<u64> {
        let too_many = self.old_items > self.items_max || self.old_bytes > self.bytes_max;
        self.lists.first_key_value().map(|(list, _)| *list).filter(|list| too_many && *list < self.newest)
    }

    /// Somebody comes: this is what it gets first.
    pub(super) fn begin(&mut self) -> Reading {
        let Some(list) = self.lists.get_mut(&self.newest) else {
            return Reading { list: self.newest, upto: 0, had: 0 };
        };
        list.readers += usize::from(!list.values.is_empty());
        Reading { list: self.newest, upto: list.values.len(), had: 0 }
    }

    pub(super) fn next(&self, reading: &Reading) -> Option<&Bytes> {
        if reading.is_over() {
            return None;
        }
        self.lists.get(&reading.list)?.values.get(reading.had)
    }

    /// It has the next.
    pub(super) fn took(&mut self, reading: &mut Reading) {
        if reading.is_over() {
            return;
        }
        reading.had += 1;
        if reading.is_over() {
            self.finished(reading.list);
        }
    }

    /// It wants no more of it.
    pub(super) fn end(&mut self, reading: &mut Reading) {
        if !reading.is_over() {
            reading.had = reading.upto;
            self.finished(reading.list);
        }
    }

    fn finished(&mut self, list: u64) {
        if let Some(there) = self.lists.get_mut(&list) {
            there.readers -= 1;
        }
        self.let_go(list);
    }

    /// Nobody may read that list any more.
    fn let_go(&mut self, list: u64) {
        if list != self.newest
            && let Some(old) = self.lists.get(&list).filter(|old| old.readers == 0)
        {
            (self.old_items, self.old_bytes) =
                (self.old_items - old.values.len(), self.old_bytes - old.bytes);
            self.lists.remove(&list);
        }
    }
}
