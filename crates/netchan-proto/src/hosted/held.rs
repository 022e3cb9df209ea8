//! What one receiver has taken and has not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::{HolderOptions, Item};

#[derive(Debug)]
struct Kept<T> {
    item: Item<T>,
    /// In the time of [`Hosted::handle_timeout`](super::Hosted::handle_timeout); the holder is not fenced for it before.
    until: u64,
    /// When it is taken from a holder that says nothing; 0 if never.
    lease: u64,
}

/// The values of one holder, by their numbers among all that it has taken (`DEL-1`).
///
/// Invariant: `extended` has exactly those in `kept` whose `until` is not 0, and `leases` those whose `lease` is not 0.
#[derive(Debug)]
pub(super) struct Held<T> {
    /// Values that may be on their way to it, or held, at once (`DEL-6`).
    pub(super) out_max: u64,
    /// A value counts as taken for its sender when it is acknowledged, and not before (`DEL-14`).
    pub(super) settles_at_ack: bool,
    /// When values that it gave back are to be tried again, with their tickets; and their bytes.
    put_off: BTreeSet<(u64, u64)>,
    put_off_bytes: u64,
    /// The holder cannot be reached, and is fenced then (`DEL-5`).
    pub(super) fence_at: Option<u64>,
    /// For how long it may keep a value without a word, if that is bounded (`DEL-15`).
    pub(super) lease_millis: Option<u64>,
    next: u64,
    /// Of all that it keeps.
    bytes: u64,
    kept: BTreeMap<u64, Kept<T>>,
    extended: BTreeSet<(u64, u64)>,
    leases: BTreeSet<(u64, u64)>,
}

impl<T> Held<T> {
    pub(super) fn new(options: HolderOptions) -> Self {
        let HolderOptions { out_max, settles_at_ack, lease_millis } = options;
        Self {
            out_max: out_max.max(1),
            settles_at_ack,
            put_off: BTreeSet::new(),
            put_off_bytes: 0,
            fence_at: None,
            lease_millis,
            next: 0,
            bytes: 0,
            kept: BTreeMap::new(),
            extended: BTreeSet::new(),
            leases: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.kept.len() as u64
    }

    /// The bytes of what it keeps and of what it put off.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes + self.put_off_bytes
    }

    pub(super) fn put_off(&mut self, at: u64, item: &Item<T>) {
        if self.put_off.insert((at, item.ticket)) {
            self.put_off_bytes += item.bytes.len() as u64;
        }
    }

    pub(super) fn called_off(&mut self, at: u64, ticket: u64, bytes: u64) {
        if self.put_off.remove(&(at, ticket)) {
            self.put_off_bytes -= bytes;
        }
    }

    /// When values that it put off are due, and their tickets.
    pub(super) const fn all_put_off(&self) -> &BTreeSet<(u64, u64)> {
        &self.put_off
    }

    pub(super) fn put_off_len(&self) -> u64 {
        self.put_off.len() as u64
    }

    /// The number of the next value that it takes.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn hold(&mut self, number: u64, item: Item<T>, now: u64) {
        let lease = self.lease_millis.map_or(0, |lease| now.saturating_add(lease).max(1));
        if lease > 0 {
            self.leases.insert((lease, number));
        }
        self.bytes += item.bytes.len() as u64;
        self.kept.insert(number, Kept { item, until: 0, lease });
    }

    pub(super) fn holds(&self, number: u64) -> bool {
        self.kept.contains_key(&number)
    }

    pub(super) fn release(&mut self, number: u64) -> Option<Item<T>> {
        let kept = self.kept.remove(&number)?;
        self.bytes -= kept.item.bytes.len() as u64;
        self.extended.remove(&(kept.until, number));
        self.leases.remove(&(kept.lease, number));
        Some(kept.item)
    }

    pub(super) fn extend(&mut self, number: u64, until: u64) -> bool {
        let Some(kept) = self.kept.get_mut(&number) else { return false };
        if until > kept.until {
            self.extended.remove(&(kept.until, number));
            self.extended.insert((until, number));
            kept.until = until;
        }
        if kept.lease > 0 && until > kept.lease {
            self.leases.remove(&(kept.lease, number));
            self.leases.insert((until, number));
            kept.lease = until;
        }
        true
    }

    /// When something is to be taken from the holder: because it cannot be reached, or because its lease is over.
    pub(super) fn next_fence(&self, in_flight: bool) -> Option<u64> {
        let lease = self.leases.first().map(|(lease, _)| *lease);
        let away = self.fence_at.and_then(|fence_at| {
            if in_flight || self.extended.len() < self.kept.len() {
                return Some(fence_at);
            }
            self.extended.first().map(|(until, _)| *until.max(&fence_at))
        });
        away.into_iter().chain(lease).min()
    }

    /// Takes what the holder keeps no longer, oldest first.
    pub(super) fn fence(&mut self, now: u64) -> Vec<(u64, Item<T>)> {
        let away = self.fence_at.is_some_and(|at| at <= now);
        let mut numbers: Vec<u64> =
            self.leases.range(..=(now, u64::MAX)).map(|(_, number)| *number).collect();
        if away {
            let over = self
                .kept
                .iter()
                .filter(|(_, kept)| kept.until <= now && (kept.lease == 0 || kept.lease > now));
            numbers.extend(over.map(|(number, _)| *number));
        }
        numbers.sort_unstable();
        numbers.into_iter().filter_map(|number| Some((number, self.release(number)?))).collect()
    }

    /// The values, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Item<T>)> {
        self.kept.iter().map(|(number, kept)| (*number, &kept.item))
    }

    /// Everything, oldest first.
    pub(super) fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.kept.into_values().map(|kept| kept.item)
    }
}
