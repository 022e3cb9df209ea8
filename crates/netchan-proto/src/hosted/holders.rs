//! Deliveries: receivers that acknowledge what they were handed, and what becomes of what they do not.

use super::held::Held;
use super::{Effect, Hosted, Item, ReceiverKey};
use crate::limits::DELAYED_ITEMS_MAX;
use crate::planted::{self, Mutant};

impl Hosted {
    /// Adds a receiver that holds what it takes until it acknowledges it; `out_max` values, at least one, may be out to it
    /// at once (`DEL-1`, `DEL-6`). False if it is there already.
    pub fn add_holder(&mut self, key: ReceiverKey, out_max: u64) -> bool {
        self.receivers.add(key, Some(Held::new(out_max.max(1))))
    }

    /// In how many attempts a value must be acknowledged, at least one, before it is [`Effect::Dead`] (`DEL-7`); without
    /// limit if `None`.
    pub fn set_attempts_max(&mut self, attempts_max: Option<u32>) {
        self.attempts_max = attempts_max.map(|most| most.max(1));
    }

    /// Whether the receiver holds the value that it took under this number (`DEL-2`).
    #[must_use]
    pub fn holds(&self, key: ReceiverKey, number: u64) -> bool {
        self.held(key).is_some_and(|held| held.holds(number))
    }

    /// The holder is done with a value. False, and nothing changes, if it holds it no longer: another may have it (`DEL-2`).
    pub fn ack(&mut self, key: ReceiverKey, number: u64) -> bool {
        let Some(item) = self.release(key, number) else { return planted::is(Mutant::ResultWithoutAck) };
        self.held_bytes -= item.bytes.len() as u64;
        self.settled -= 1;
        self.senders.let_go(item.origin, &mut self.effects);
        self.settle();
        true
    }

    /// The holder gives a value back: it returns to its place at the head, at once or at `ready_at` (`DEL-3`, `DEL-4`). False
    /// as for [`Self::ack`].
    pub fn nack(&mut self, key: ReceiverKey, number: u64, ready_at: Option<u64>) -> bool {
        let Some(item) = self.held_mut(key).and_then(|held| held.release(number)) else { return false };
        match ready_at {
            Some(at) => self.put_off(key, item, at),
            None => self.retry(item),
        }
        self.receivers.let_in(key);
        self.settle();
        true
    }

    /// The holder is not to be fenced for this value before `until`, reachable or not (`DEL-5`). False as for [`Self::ack`].
    pub fn extend(&mut self, key: ReceiverKey, number: u64, until: u64) -> bool {
        self.held_mut(key).is_some_and(|held| held.extend(number, until))
    }

    /// The holder cannot be reached: it is given nothing more. At `fence_at`, unless it is back before, what it holds goes to
    /// others, and what is on its way to it too (`DEL-5`). A link that came and went without a word from it buys it no time.
    pub fn holder_away(&mut self, key: ReceiverKey, fence_at: u64) {
        let waiting = self.receivers.cancel(key, u64::MAX);
        if let Some(held) = self.held_mut(key) {
            held.held_back = waiting;
            held.fence_at = Some(held.fence_at.map_or(fence_at, |earlier| earlier.min(fence_at)));
        }
    }

    /// The holder can be reached again.
    pub fn holder_back(&mut self, key: ReceiverKey) {
        if let Some(held) = self.held_mut(key) {
            held.fence_at = None;
        }
        self.receivers.let_in(key);
        self.settle();
    }

    /// When [`Self::handle_timeout`] has something to do. In milliseconds from any origin, the same for all times here.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let fences = self.receivers.map.values().filter_map(|receiver| {
            let held = receiver.held.as_ref()?;
            let in_flight = receiver.in_flight.iter().any(Option::is_some);
            if in_flight { held.fence_at } else { held.next_fence() }
        });
        fences.chain(delayed).min()
    }

    /// Does what time has come for: values that were to wait return to the queue, and holders that were away too long are
    /// fenced.
    pub fn handle_timeout(&mut self, now: u64) {
        while let Some(due) = self.delayed.first_entry().filter(|due| due.key().0 <= now) {
            let (by, item) = due.remove();
            self.queue.put_back(item);
            if let Some(held) = self.held_mut(by) {
                held.put_off = held.put_off.saturating_sub(1);
            }
            self.receivers.let_in(by);
        }
        let away = |held: &Held| held.fence_at.is_some_and(|at| at <= now);
        let keys: Vec<_> = self
            .receivers
            .map
            .iter()
            .filter(|(_, receiver)| receiver.held.as_ref().is_some_and(away))
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter().for_each(|key| self.fence(key, now));
        self.settle();
    }

    fn fence(&mut self, key: ReceiverKey, now: u64) {
        let Some(receiver) = self.receivers.map.get_mut(&key) else { return };
        let Some(held) = &mut receiver.held else { return };
        let mut fenced = held.fence(now);
        if planted::is(Mutant::DoubleHolder) {
            fenced.iter().for_each(|(number, item)| held.hold(*number, item.clone()));
        }
        let first = held.next();
        for (number, place) in (first..).zip(&mut receiver.in_flight) {
            if let Some(item) = place.take() {
                self.receivers.in_flight -= 1;
                fenced.push((number, item));
            }
        }
        for (number, item) in fenced {
            self.effects.push_back(Effect::Fenced { to: key, number });
            self.retry(item);
        }
        self.receivers.let_in(key);
    }

    /// A value that was declared [`Effect::Dead`] has found a place elsewhere. Until then, or [`Self::revive`], the channel
    /// is not finished.
    pub fn buried(&mut self) {
        self.dying = self.dying.saturating_sub(1);
        self.dead += 1;
        self.settle();
    }

    /// There is no place for a value that was declared [`Effect::Dead`]: it has another attempt, lest it be lost (`DEL-7`).
    pub fn revive(&mut self, mut item: Item) {
        self.dying = self.dying.saturating_sub(1);
        self.settled += 1;
        self.senders.keep(item.origin);
        self.held_bytes += item.bytes.len() as u64;
        item.settled = true;
        self.queue.put_back(item);
        self.settle();
    }

    /// Values that their holders have not acknowledged, and that wait to be tried again.
    #[must_use]
    pub fn unacked(&self) -> usize {
        let held = self.receivers.map.values().filter_map(|receiver| receiver.held.as_ref());
        held.map(|held| held.len() as usize).sum::<usize>() + self.delayed.len()
    }

    /// Those of one holder, that it put off included.
    #[must_use]
    pub fn unacked_of(&self, key: ReceiverKey) -> u64 {
        self.held(key).map_or(0, |held| held.len() + held.put_off)
    }

    fn held(&self, key: ReceiverKey) -> Option<&Held> {
        self.receivers.map.get(&key)?.held.as_ref()
    }

    fn held_mut(&mut self, key: ReceiverKey) -> Option<&mut Held> {
        self.receivers.map.get_mut(&key)?.held.as_mut()
    }

    fn release(&mut self, key: ReceiverKey, number: u64) -> Option<Item> {
        let item = self.held_mut(key)?.release(number)?;
        self.receivers.let_in(key);
        Some(item)
    }

    /// An attempt came to nothing: another, if there may be one (`DEL-3`, `DEL-7`).
    pub(super) fn retry(&mut self, item: Item) {
        if let Some(item) = self.another_attempt(item) {
            self.put_back(item);
        }
    }

    /// The same, but not before `at`. Until then it counts as out to the holder, who could put off everything else (`DEL-6`).
    fn put_off(&mut self, key: ReceiverKey, item: Item, at: u64) {
        let Some(item) = self.another_attempt(item) else { return };
        if self.delayed.len() >= DELAYED_ITEMS_MAX {
            return self.put_back(item);
        }
        if let Some(held) = self.held_mut(key) {
            held.put_off += 1;
        }
        self.delayed.insert((at, item.ticket), (key, item));
    }

    /// The item as it is tried again; none if it is dead.
    fn another_attempt(&mut self, mut item: Item) -> Option<Item> {
        item.attempts = item.attempts.saturating_add(1);
        item.redelivered = true;
        if planted::is(Mutant::LostRedelivery) && item.settled {
            self.held_bytes -= item.bytes.len() as u64;
            self.settled -= 1;
            return None;
        }
        if self.attempts_max.is_some_and(|most| item.attempts >= most) {
            self.held_bytes -= item.bytes.len() as u64;
            self.dying += 1;
            // Before its sender is forgotten.
            self.effects.push_back(Effect::Dead { item: item.clone() });
            if item.settled {
                self.settled -= 1;
                self.senders.let_go(item.origin, &mut self.effects);
            } else {
                self.senders.settle_taken(item.origin, item.seq, &mut self.effects);
            }
            return None;
        }
        Some(item)
    }
}
