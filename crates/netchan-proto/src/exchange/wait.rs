//! Who waits, first come, first served.
//!
//! Invariants: tickets rise along the queue; a waiter at position `p` may proceed once more than `p` units are there, so a
//! newcomer never passes one that waits, and a waiter that leaves passes its place, and its wake-up, to the next.

use std::collections::VecDeque;
use std::task::Waker;

use crate::planted::{self, Mutant};

/// A place in a [`WaitQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    waker: Option<Waker>,
}

/// Tasks in the order in which they first waited. Nothing is woken here: wakers are handed out, to be called once no lock is
/// held.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiters: VecDeque<Waiter>,
    next: u64,
    /// So many from the front have been woken and have not waited since.
    woken: usize,
}

impl WaitQueue {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait before this one; for a newcomer, all.
    #[must_use]
    #[inline]
    pub fn ahead_of(&self, ticket: Option<Ticket>) -> usize {
        match ticket {
            None if planted::is(Mutant::WaitQueueSkipped) => 0,
            None => self.waiters.len(),
            Some(ticket) => self.waiters.partition_point(|waiter| waiter.ticket < ticket),
        }
    }

    /// Waits, at the tail or in the place already held.
    pub fn wait(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        if let Some(held) = *ticket {
            let at = self.ahead_of(Some(held));
            if let Some(waiter) = self.waiters.get_mut(at).filter(|waiter| waiter.ticket == held) {
                self.woken = self.woken.min(at);
                match &mut waiter.waker {
                    Some(old) => old.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                return;
            }
        }
        let new = Ticket(self.next);
        self.next += 1;
        self.waiters.push_back(Waiter { ticket: new, waker: Some(waker.clone()) });
        *ticket = Some(new);
    }

    /// Stops waiting. Says whether it was waiting.
    pub fn leave(&mut self, ticket: &mut Option<Ticket>) -> bool {
        let Some(held) = ticket.take() else { return false };
        let at = self.ahead_of(Some(held));
        if self.waiters.get(at).is_some_and(|waiter| waiter.ticket == held) {
            self.waiters.remove(at);
            self.woken -= usize::from(at < self.woken);
            return true;
        }
        false
    }

    /// Takes the wakers of the first `count`, each once until it waits again.
    pub fn wake_front(&mut self, count: u64, wakers: &mut impl Extend<Waker>) {
        self.take_front(count, |waker| wakers.extend(Some(waker)));
    }

    /// As [`Self::wake_front`], for whoever does something else with each.
    #[inline]
    pub fn take_front(&mut self, count: u64, mut each: impl FnMut(Waker)) {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.waiters.len());
        // Those before have been woken already.
        for waiter in self.waiters.range_mut(self.woken.min(count)..count) {
            waiter.waker.take().into_iter().for_each(&mut each);
        }
        self.woken = self.woken.max(count);
    }

    /// Takes everyone's waker.
    pub fn wake_all(&mut self, wakers: &mut impl Extend<Waker>) {
        self.wake_front(u64::MAX, wakers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_and_passed_on() {
        let mut queue = WaitQueue::default();
        let (mut a, mut b, mut c) = (None, None, None);
        for ticket in [&mut a, &mut b, &mut c] {
            queue.wait(ticket, Waker::noop());
        }
        assert_eq!([a, b, c, None].map(|t| queue.ahead_of(t)), [0, 1, 2, 3]);
        let mut wakers = Vec::new();
        queue.wake_front(2, &mut wakers);
        queue.wake_front(2, &mut wakers);
        assert_eq!(wakers.len(), 2, "each once");
        assert!(queue.leave(&mut a));
        assert!(!queue.leave(&mut a));
        queue.wake_front(2, &mut wakers);
        assert_eq!(wakers.len(), 3, "who leaves passes its wake-up on");
        queue.wait(&mut b, Waker::noop());
        assert_eq!([b, c].map(|t| queue.ahead_of(t)), [0, 1], "waiting again keeps the place");
        queue.wake_front(1, &mut wakers);
        assert_eq!(wakers.len(), 4);
        queue.wait(&mut a, Waker::noop());
        assert_eq!(queue.ahead_of(a), 2, "who left starts at the tail");
    }
}
