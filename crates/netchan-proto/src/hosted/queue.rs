//! The values that nobody holds, in the order of their tickets.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::line::Line;
use super::{Item, SenderKey};

/// Invariant: every ticket in `returned` is below every ticket in `fresh`, because values are dispatched in the order
/// of tickets (`HOST-3`). So what comes back simply goes first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Dispatched once, and given back.
    returned: BTreeMap<u64, Item>,
    /// Never dispatched; the place in the line is the ticket.
    fresh: Line<Item>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// The ticket of the next value.
    pub(super) fn next_ticket(&self) -> u64 {
        self.fresh.next_place()
    }

    pub(super) fn push(&mut self, origin: SenderKey, seq: u64, bytes: Bytes, redelivered: bool) {
        let ticket = self.next_ticket();
        self.fresh.join(Item { ticket, origin, seq, bytes, redelivered, attempts: 0, settled: false });
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        match self.returned.pop_first() {
            Some((_, item)) => Some(item),
            None => self.fresh.leave_first(),
        }
    }

    /// Back to its place, marked (`HOST-4`).
    pub(super) fn put_back(&mut self, mut item: Item) {
        debug_assert!(self.fresh.first().is_none_or(|fresh| item.ticket < fresh.ticket));
        item.redelivered = true;
        self.returned.insert(item.ticket, item);
    }

    pub(super) fn remove(&mut self, ticket: u64) -> Option<Item> {
        self.returned.remove(&ticket).or_else(|| self.fresh.leave(ticket))
    }

    /// What has come back, in order: all that is settled is there.
    pub(super) fn iter_returned(&self) -> impl Iterator<Item = &Item> {
        self.returned.values()
    }

    /// Empties the queue, in order.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Item> + use<> {
        std::mem::take(&mut self.returned).into_values().chain(self.fresh.clear())
    }
}
