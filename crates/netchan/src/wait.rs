//! Who waits, first come, first served.
//!
//! Invariants: tickets rise along the queue; a waiter at position `p` may proceed once more than `p` units are there, so a
//! newcomer never passes one that waits, and a waiter that leaves passes its place, and its wake-up, to the next.

use std::collections::VecDeque;
use std::task::Waker;

/// A place in a [`WaitQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    waker: Option<Waker>,
}

/// Tasks in the order in which they first waited.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    waiters: VecDeque<Waiter>,
    next: u64,
}

impl WaitQueue {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait before this one; for a newcomer, all.
    #[inline]
    pub(crate) fn ahead_of(&self, ticket: Option<Ticket>) -> usize {
        match ticket {
            None => self.waiters.len(),
            Some(ticket) => self.waiters.partition_point(|waiter| waiter.ticket < ticket),
        }
    }

    /// Waits, at the tail or in the place already held.
    pub(crate) fn wait(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        if let Some(held) = *ticket {
            let at = self.ahead_of(Some(held));
            if let Some(waiter) = self.waiters.get_mut(at).filter(|waiter| waiter.ticket == held) {
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
    pub(crate) fn leave(&mut self, ticket: &mut Option<Ticket>) -> bool {
        let Some(held) = ticket.take() else { return false };
        let at = self.ahead_of(Some(held));
        if self.waiters.get(at).is_some_and(|waiter| waiter.ticket == held) {
            self.waiters.remove(at);
            return true;
        }
        false
    }

    /// Wakes the first `count`, each once until it waits again.
    pub(crate) fn wake_front(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for waiter in self.waiters.iter_mut().take(count) {
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    /// Wakes everyone.
    pub(crate) fn wake_all(&mut self) {
        self.wake_front(u64::MAX);
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
        assert!(queue.leave(&mut a));
        assert!(!queue.leave(&mut a));
        queue.wait(&mut b, Waker::noop());
        assert_eq!([b, c].map(|t| queue.ahead_of(t)), [0, 1], "waiting again keeps the place");
        queue.wait(&mut a, Waker::noop());
        assert_eq!(queue.ahead_of(a), 2, "who left starts at the tail");
    }
}
