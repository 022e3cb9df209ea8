//! What one receiver has taken and has not acknowledged.

use std::collections::BTreeMap;

use super::Item;

#[derive(Debug)]
struct Kept {
    item: Item,
    /// In the time of [`Hosted::handle_timeout`](super::Hosted::handle_timeout); the holder is not fenced for it before.
    until: u64,
}

/// The values of one holder, by their numbers among all that it has taken (`DEL-1`).
#[derive(Debug)]
pub(super) struct Held {
    /// Values that may be on their way to it, or held, at once (`DEL-6`).
    pub(super) out_max: u64,
    /// Values that it gave back and that wait to be tried again.
    pub(super) put_off: u64,
    /// Demand that this bound keeps out of the line.
    pub(super) held_back: u64,
    /// The holder cannot be reached, and is fenced then (`DEL-5`).
    pub(super) fence_at: Option<u64>,
    next: u64,
    kept: BTreeMap<u64, Kept>,
}

impl Held {
    pub(super) const fn new(out_max: u64) -> Self {
        Self { out_max, put_off: 0, held_back: 0, fence_at: None, next: 0, kept: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> u64 {
        self.kept.len() as u64
    }

    /// The number of the next value that it takes.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn hold(&mut self, number: u64, item: Item) {
        self.kept.insert(number, Kept { item, until: 0 });
    }

    pub(super) fn holds(&self, number: u64) -> bool {
        self.kept.contains_key(&number)
    }

    pub(super) fn release(&mut self, number: u64) -> Option<Item> {
        self.kept.remove(&number).map(|kept| kept.item)
    }

    pub(super) fn extend(&mut self, number: u64, until: u64) -> bool {
        let Some(kept) = self.kept.get_mut(&number) else { return false };
        kept.until = kept.until.max(until);
        true
    }

    /// When something is to be taken from a holder that cannot be reached.
    pub(super) fn next_fence(&self) -> Option<u64> {
        let fence_at = self.fence_at?;
        let first = self.kept.values().map(|kept| kept.until).min();
        first.map(|until| until.max(fence_at))
    }

    /// Takes what the holder keeps no longer, oldest first.
    pub(super) fn fence(&mut self, now: u64) -> Vec<(u64, Item)> {
        let due = self.kept.extract_if(.., |_, kept| kept.until <= now);
        due.map(|(number, kept)| (number, kept.item)).collect()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.kept.values().map(|kept| &kept.item)
    }

    /// Everything, oldest first.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.kept.into_values().map(|kept| kept.item)
    }
}
