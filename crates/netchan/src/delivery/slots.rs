//! The asks that have no outcome yet, or whose outcome has not been fetched: one slot for each, found by its token.
//!
//! Invariants: a slot is free, waits for an answer, or keeps an outcome for a future that still exists. A token is the index
//! of its slot plus one, because 0 asks for no answer; it is used again only after the answer has come, so an answer never
//! reaches the wrong ask.

use std::sync::Arc;
use std::task::Waker;

use crate::error::AckError;

/// What an ask is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// The number of the delivery in its channel.
    pub(super) number: u64,
    /// The number that the program knows it by.
    pub(super) id: u64,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With a result or without: a failure that no future is told of is kept for `flush`.
    Ack,
    Nack,
    Extend,
}

impl About {
    /// Whether a failure is kept for `flush`. What was given back goes to another either way, and the next extension fails too.
    pub(super) fn is_kept(self) -> bool {
        self.kind == Kind::Ack
    }

    /// Whether the delivery is done with, whatever the answer.
    pub(super) fn ends(self) -> bool {
        self.kind != Kind::Extend
    }
}

/// An ask without an answer.
pub(super) struct Waiting {
    pub(super) about: About,
    /// Its place in the order of all asks.
    pub(super) seq: u64,
    /// Its future still exists.
    pub(super) watched: bool,
    /// Its future is being awaited.
    pub(super) waker: Option<Waker>,
    /// What stays open until the answer.
    pub(super) hold: Option<Arc<dyn Send + Sync>>,
}

enum Slot {
    Free { next: Option<usize> },
    Waiting(Waiting),
    Told(Result<(), AckError>),
}

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Option<usize>,
    waiting: usize,
    seq: u64,
}

impl Slots {
    /// How many asks wait for an answer.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The place that the next ask will have in the order of all.
    pub(super) const fn next_seq(&self) -> u64 {
        self.seq
    }

    /// An ask is under way. Returns its token.
    pub(super) fn insert(&mut self, about: About, hold: Option<Arc<dyn Send + Sync>>) -> u64 {
        let waiting = Slot::Waiting(Waiting { about, seq: self.seq, watched: true, waker: None, hold });
        self.seq += 1;
        self.waiting += 1;
        let index = match self.free {
            Some(index) => {
                let slot = std::mem::replace(&mut self.slots[index], waiting);
                self.free = if let Slot::Free { next } = slot { next } else { None };
                index
            }
            None => {
                self.slots.push(waiting);
                self.slots.len() - 1
            }
        };
        index as u64 + 1
    }

    fn get(&mut self, token: u64) -> Option<(usize, &mut Slot)> {
        let index = usize::try_from(token.checked_sub(1)?).ok()?;
        Some((index, self.slots.get_mut(index)?))
    }

    fn release(&mut self, index: usize) {
        self.slots[index] = Slot::Free { next: self.free };
        self.free = Some(index);
    }

    /// The answer is here. Its future, if there is one, fetches what `outcome` says of it.
    pub(super) fn answer(
        &mut self,
        token: u64,
        outcome: impl FnOnce(&Waiting) -> Option<Result<(), AckError>>,
    ) -> Option<Waiting> {
        let (index, slot) = self.get(token)?;
        if !matches!(slot, Slot::Waiting(_)) {
            return None;
        }
        let Slot::Waiting(waiting) = std::mem::replace(slot, Slot::Free { next: None }) else { return None };
        match outcome(&waiting) {
            Some(outcome) => *slot = Slot::Told(outcome),
            None => self.release(index),
        }
        self.waiting -= 1;
        Some(waiting)
    }

    /// The ask was never made.
    pub(super) fn cancel(&mut self, token: u64) -> Option<Waiting> {
        self.answer(token, |_| None)
    }

    /// For the future: the outcome, or `None` while there is none. It is woken when there is one.
    pub(super) fn poll(&mut self, token: u64, waker: &Waker) -> Option<Result<(), AckError>> {
        let (index, slot) = self.get(token)?;
        match slot {
            Slot::Waiting(Waiting { waker: Some(old), .. }) => old.clone_from(waker),
            Slot::Waiting(waiting) => waiting.waker = Some(waker.clone()),
            Slot::Told(_) => return self.fetch(index),
            Slot::Free { .. } => {}
        }
        None
    }

    /// The future is dropped. Returns the outcome that it did not fetch.
    pub(super) fn unwatch(&mut self, token: u64) -> Option<Result<(), AckError>> {
        let (index, slot) = self.get(token)?;
        match slot {
            Slot::Waiting(waiting) => {
                waiting.watched = false;
                waiting.waker = None;
                None
            }
            Slot::Told(_) => self.fetch(index),
            Slot::Free { .. } => None,
        }
    }

    fn fetch(&mut self, index: usize) -> Option<Result<(), AckError>> {
        let Slot::Told(outcome) = std::mem::replace(&mut self.slots[index], Slot::Free { next: None }) else {
            return None;
        };
        self.release(index);
        Some(outcome)
    }

    /// The tokens of all that wait.
    pub(super) fn tokens(&self) -> Vec<u64> {
        let waits =
            |(index, slot): (usize, &Slot)| matches!(slot, Slot::Waiting(_)).then_some(index as u64 + 1);
        self.slots.iter().enumerate().filter_map(waits).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About = About { number: 7, id: 7, kind: Kind::Ack };

    #[test]
    fn a_slot_is_used_again_only_after_its_answer() {
        let mut slots = Slots::default();
        let tokens = [slots.insert(ABOUT, None), slots.insert(ABOUT, None), slots.insert(ABOUT, None)];
        assert_eq!((tokens, slots.waiting(), slots.tokens()), ([1, 2, 3], 3, vec![1, 2, 3]));
        assert!(slots.unwatch(2).is_none(), "its answer is still to come");
        assert_eq!(slots.insert(ABOUT, None), 4);
        let waiting = slots.answer(2, |waiting| waiting.watched.then_some(Ok(()))).expect("it waits");
        assert!((waiting.seq, waiting.watched) == (1, false) && slots.answer(2, |_| None).is_none());
        assert_eq!(slots.insert(ABOUT, None), 2);
        assert!(slots.answer(3, |_| Some(Ok(()))).is_some());
        assert_eq!(slots.insert(ABOUT, None), 5, "an outcome that has not been fetched keeps its slot");
        assert!(matches!(slots.poll(3, Waker::noop()), Some(Ok(()))));
        assert_eq!((slots.insert(ABOUT, None), slots.waiting()), (3, 5));
        assert!(slots.answer(0, |_| None).is_none() && slots.answer(u64::MAX, |_| None).is_none());
    }
}
