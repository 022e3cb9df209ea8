//! What is given to a receiver, and how much of it has left.

use std::collections::VecDeque;

use super::Receivers;
use crate::hosted::{Effect, Item, ReceiverKey};

impl<T: Clone> Receivers<T> {
    /// The item is this receiver's.
    pub(in crate::hosted) fn give(
        &mut self,
        key: ReceiverKey,
        item: Item<T>,
        now: u64,
        effects: &mut VecDeque<Effect<T>>,
    ) {
        let mut item = Some(item);
        self.give_run(key, now, effects, || item.take(), 1);
    }

    /// So many items are this receiver's, unless there are fewer.
    pub(in crate::hosted) fn give_run(
        &mut self,
        key: ReceiverKey,
        now: u64,
        effects: &mut VecDeque<Effect<T>>,
        mut next: impl FnMut() -> Option<Item<T>>,
        most: usize,
    ) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        let before = receiver.in_flight.len();
        for _ in 0..most {
            let Some(item) = next() else { break };
            receiver.bytes += item.bytes.len() as u64;
            receiver.in_flight.push_back(Some(item));
        }
        let count = receiver.in_flight.len() - before;
        receiver.given += count as u64;
        self.in_flight += count;
        if receiver.out.is_none() {
            let due = receiver.due_at(now);
            receiver.out = Some(due);
            self.out.insert((due, key));
        }
        if !std::mem::replace(&mut receiver.noted, true) {
            effects.push_back(Effect::Deliver { to: key });
        }
        receiver.count_part(&mut self.shares);
        self.refresh(key);
        self.refresh_fence(key);
    }

    /// The oldest value that has not left for the receiver.
    pub(in crate::hosted) fn next_unsent(&mut self, key: ReceiverKey) -> Option<&Item<T>> {
        let receiver = self.map.get_mut(&key)?;
        receiver.noted = false;
        receiver.in_flight.get(receiver.sent)?.as_ref()
    }

    /// Gives `send` what has not left for the receiver, oldest first, until it says that one did not leave.
    pub(in crate::hosted) fn send_unsent(
        &mut self,
        key: ReceiverKey,
        mut send: impl FnMut(&Item<T>) -> bool,
    ) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        receiver.noted = false;
        while let Some(Some(item)) = receiver.in_flight.get(receiver.sent)
            && send(item)
        {
            receiver.sent += 1;
        }
    }

    pub(in crate::hosted) fn mark_sent(&mut self, key: ReceiverKey) {
        if let Some(receiver) = self.map.get_mut(&key) {
            receiver.sent += 1;
        }
    }

    /// The oldest value that has not left for it goes elsewhere.
    pub(in crate::hosted) fn take_unsent(&mut self, key: ReceiverKey) -> Option<Item<T>> {
        let receiver = self.map.get_mut(&key)?;
        let item = receiver.in_flight.remove(receiver.sent)??;
        receiver.bytes -= item.bytes.len() as u64;
        receiver.given -= 1;
        let asked = receiver.units + receiver.held_back;
        receiver.wanted = receiver.wanted.min(receiver.given + asked);
        self.in_flight -= 1;
        if receiver.in_flight.len() == receiver.fenced {
            receiver.out.take().map(|due| self.out.remove(&(due, key)));
        }
        receiver.count_part(&mut self.shares);
        self.refresh(key);
        Some(item)
    }

    pub(in crate::hosted) fn sent_of(&self, key: ReceiverKey) -> usize {
        self.map.get(&key).map_or(0, |receiver| receiver.sent)
    }

    pub(in crate::hosted) fn unsent_of(&self, key: ReceiverKey) -> u64 {
        self.map.get(&key).map_or(0, |receiver| (receiver.in_flight.len() - receiver.sent) as u64)
    }
}
