//! Who waits, first come, first served.

use std::task::Waker;

use netchan_proto::exchange;
pub(crate) use netchan_proto::exchange::Ticket;

/// Tasks in the order in which they first waited; see [`exchange::WaitQueue`]. They are woken where it is.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue(exchange::WaitQueue);

impl WaitQueue {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many wait before this one; for a newcomer, all.
    #[inline]
    pub(crate) fn ahead_of(&self, ticket: Option<Ticket>) -> usize {
        self.0.ahead_of(ticket)
    }

    /// Waits, at the tail or in the place already held.
    pub(crate) fn wait(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        self.0.wait(ticket, waker);
    }

    /// Stops waiting. Says whether it was waiting.
    pub(crate) fn leave(&mut self, ticket: &mut Option<Ticket>) -> bool {
        self.0.leave(ticket)
    }

    /// Wakes the first `count`, each once until it waits again.
    pub(crate) fn wake_front(&mut self, count: u64) {
        self.0.take_front(count, Waker::wake);
    }

    /// Wakes everyone.
    pub(crate) fn wake_all(&mut self) {
        self.wake_front(u64::MAX);
    }
}
