//! Leave to send: what is set aside, and what is asked for.

use super::SendHalf;
use crate::wire::Mode;

impl SendHalf {
    /// Sets one unit of credit aside. A rendezvous has none to set aside, and a receive's demand is none to keep.
    pub fn reserve(&mut self) -> bool {
        let reserved = matches!(self.mode, Mode::Credit | Mode::Lease)
            && self.closed().is_none()
            && !self.held
            && self.credit.reserve();
        self.answer_when_used();
        reserved
    }

    /// Gives a unit that was set aside back. If the peer had asked for it before, it is told that it may have it now.
    pub fn release(&mut self) {
        self.credit.release();
        let needs = self.credit.committed() + self.credit.reserved();
        if self.kept_reserved && self.waiting == 0 && needs < self.credit.limit() {
            self.kept_reserved = self.credit.reserved() > 0;
            self.want = needs;
            self.want_due = true;
        }
    }

    /// Says how many sends wait; asks for a lease when they need one, and takes the request back when they do not.
    pub fn want(&mut self, waiting: u64) {
        if self.mode != Mode::Lease || self.peer_closing.is_some() {
            return;
        }
        self.waiting = waiting;
        self.answer_when_used();
        let held = self.credit.committed() + self.credit.reserved();
        let up_to = held + waiting;
        let asks = up_to > self.credit.limit() && up_to > self.want;
        let takes_back = waiting == 0 && self.want > self.credit.limit();
        if asks || takes_back {
            self.want = up_to;
            self.want_due = true;
        }
    }
}
