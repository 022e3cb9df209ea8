//! The values that nobody holds, in the order of their tickets.

use std::collections::BTreeMap;

use super::Item;
use super::line::Line;
use crate::planted::{self, Mutant};

/// Invariant: every ticket in `returned` is below every ticket in `fresh`, because values are dispatched in the order
/// of tickets (`HOST-3`). So what comes back simply goes first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Dispatched once, and given back.
    returned: BTreeMap<u64, Item<T>>,
    /// Never dispatched; the place in the line is the ticket.
    fresh: Line<Item<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { returned: BTreeMap::new(), fresh: Line::default() }
    }
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// The ticket of the next value.
    pub(super) fn next_ticket(&self) -> u64 {
        self.fresh.next_place()
    }

    /// The next value has this ticket.
    pub(super) fn start_at(&mut self, ticket: u64) {
        self.fresh.start_at(ticket);
    }

    /// Joins the queue; the item has [`Self::next_ticket`].
    pub(super) fn push(&mut self, item: Item<T>) {
        debug_assert_eq!(item.ticket, self.next_ticket());
        self.fresh.join(item);
    }

    /// Whether any has been dispatched before.
    pub(super) fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Uses a ticket up: its value goes straight to a receiver.
    pub(super) fn skip_ticket(&mut self) -> u64 {
        self.fresh.skip_place()
    }

    pub(super) fn pop(&mut self) -> Option<Item<T>> {
        let last = planted::is(Mutant::GivenBackInWrongOrder);
        match if last { self.returned.pop_last() } else { self.returned.pop_first() } {
            Some((_, item)) => Some(item),
            None => self.fresh.leave_first(),
        }
    }

    /// Back to its place (`HOST-4`).
    pub(super) fn put_back(&mut self, item: Item<T>) {
        debug_assert!(self.fresh.first().is_none_or(|fresh| item.ticket < fresh.ticket));
        self.returned.insert(item.ticket, item);
    }

    pub(super) fn remove(&mut self, ticket: u64) -> Option<Item<T>> {
        self.returned.remove(&ticket).or_else(|| self.fresh.leave(ticket))
    }

    /// All values, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Item<T>> {
        self.returned.values().chain(self.fresh.iter())
    }

    /// Empties the queue, in order.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Item<T>> + use<T> {
        std::mem::take(&mut self.returned).into_values().chain(self.fresh.clear())
    }
}
