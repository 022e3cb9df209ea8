//! What the peer says to a sending end.

use super::{Offer, SendHalf};
use crate::channel::{CloseReason, close_code};
use crate::flow::Violation;
use crate::planted::{self, Mutant};
use crate::wire::{Close, Mode, Recall, WindowUpdate, Yield};

impl SendHalf {
    /// Handles WINDOW. Says whether anything moved.
    ///
    /// # Errors
    /// A [`Violation`] when it reports what was never sent.
    pub fn handle_window(&mut self, w: &WindowUpdate) -> Result<bool, Violation> {
        if w.generation > self.generation {
            return Err(Violation("window of a generation not agreed"));
        }
        if w.generation < self.generation || self.peer_close.is_some() {
            return Ok(false);
        }
        if w.received > self.committed() || w.taken > w.received {
            return Err(Violation("window reports values that were not sent"));
        }
        let before = self.standing();
        let first = !std::mem::replace(&mut self.greeted, true);
        self.received = self.received.max(w.received);
        self.settle(if planted::is(Mutant::AcknowledgedEarly) { w.received } else { w.taken });
        self.raise(w.limit, w.limit_bytes);
        Ok(first || before != self.standing())
    }

    /// What whoever waits may wait for.
    const fn standing(&self) -> (u64, u64, u64, bool) {
        (self.received, self.taken, self.credit.limit(), self.credit.has_bytes())
    }

    /// The peer grants more. No more is used than this end would keep for it: whatever the peer says, what is retained is
    /// bounded here (`FLOW-9`).
    pub(super) fn raise(&mut self, limit: u64, limit_bytes: u64) {
        self.granted_bytes = self.granted_bytes.max(limit_bytes);
        let limit = match self.mode {
            Mode::Credit | Mode::Cast => limit.min(self.taken.saturating_add(self.capacity)),
            Mode::Rendezvous | Mode::Lease | Mode::Demand => limit,
        };
        self.credit.raise(limit, self.allowed_bytes());
        self.ask_if_bound();
    }

    /// Where this end's own bound holds it up, the peer sees no reason to report: it is asked to, once.
    pub(super) fn ask_if_bound(&mut self) {
        let bound = !self.credit.has_bytes() && self.granted_bytes > self.credit.limit_bytes();
        if bound && self.polled_at < self.committed() {
            self.polled_at = self.committed();
            self.poll_due = true;
        }
    }

    /// The part of what the peer grants that this end would keep.
    fn allowed_bytes(&self) -> u64 {
        let kept_from = self.retained.first_byte().unwrap_or_else(|| self.credit.committed_bytes());
        self.granted_bytes.min(kept_from.saturating_add(self.retained_bytes_max))
    }

    pub(super) fn settle(&mut self, taken: u64) {
        // A number that is used up was taken or withdrawn: until the answer says which, the value stays.
        let taken = if let Offer::Withdrawing(seq) = self.offer { taken.min(seq) } else { taken };
        self.taken = self.taken.max(taken);
        self.credit.note_taken(self.taken);
        self.received = self.received.max(self.taken);
        if let Offer::Out(seq) = self.offer
            && seq < self.taken
        {
            self.offer = Offer::None;
        }
        self.retained.release(self.taken);
        self.credit.raise(0, self.allowed_bytes());
        while self.redelivered.pop_front_if(|seq| *seq < self.taken).is_some() {}
    }

    /// Handles WITHDRAWN; returns the offer and whether it was withdrawn, when it was asked for.
    ///
    /// # Errors
    /// A [`Violation`] when it answers nothing.
    pub fn handle_withdrawn(&mut self, seq: u64, withdrawn: bool) -> Result<Option<(u64, bool)>, Violation> {
        if seq >= self.committed() {
            return Err(Violation("withdrawn an offer that was not made"));
        }
        if self.offer != Offer::Withdrawing(seq) {
            return Ok(None);
        }
        self.offer = Offer::None;
        self.withdraw_due = false;
        if withdrawn {
            self.withdrawn = Some(seq);
            let bytes = self.retained.truncate(seq);
            self.credit.void(bytes);
        }
        self.settle(seq + 1);
        Ok(Some((seq, withdrawn)))
    }

    /// Handles RECALL. Returns the limit to [`SendHalf::rewind`] to when the owner of the values must take them back.
    ///
    /// # Errors
    /// A [`Violation`] when the recall does not fit the channel.
    pub fn handle_recall(&mut self, recall: &Recall) -> Result<Option<u64>, Violation> {
        let fits = match self.mode {
            Mode::Lease => !recall.rewind,
            Mode::Demand => recall.rewind,
            Mode::Credit | Mode::Cast | Mode::Rendezvous => false,
        };
        if !fits || self.peer_close.is_some() {
            return if self.peer_close.is_some() {
                Ok(None)
            } else {
                Err(Violation("recall of credit that is held"))
            };
        }
        if recall.generation == self.generation && recall.generation > 0 {
            self.yield_due = Some(self.make_yield());
            return Ok(None);
        }
        let above = !recall.rewind && recall.limit > self.credit.limit();
        if Some(recall.generation) != self.generation.checked_add(1) || above {
            return Err(Violation("recall of the wrong generation or above the limit"));
        }
        if recall.rewind {
            if recall.limit < self.taken || recall.limit > self.committed() {
                return Err(Violation("rewind below what was taken, or past what was sent"));
            }
            // The receiving end gives back what it has not taken: the rest is settled, and must not go back as well.
            self.settle(recall.limit);
            if self.rewind_asked == Some(*recall) {
                // Said again on a new link; the owner has been asked.
                return Ok(None);
            }
            self.rewind_asked = Some(*recall);
            return Ok(Some(recall.limit));
        }
        // A grant and its recall may arrive together: the sends it was for have been woken and go first, else a lease that
        // many want would go round without a value.
        let kept = if self.peer_closing.is_some() { 0 } else { self.waiting.min(self.available()) };
        self.deferred = Some((*recall, self.credit.committed() + self.credit.reserved() + kept));
        self.answer_when_used();
        Ok(None)
    }

    /// Handles CLOSING: the receiving end takes no more sends, and what was reserved is void (`CHAN-12`).
    pub fn handle_closing(&mut self, reason: CloseReason) {
        if self.peer_closing.is_none() && self.peer_close.is_none() {
            self.peer_closing = Some(reason);
            self.waiting = 0;
            self.want_due = false;
            self.answer_recall();
        }
    }

    /// Whether a recall waits for sends that are about to use what they were granted.
    #[must_use]
    pub const fn defers_recall(&self) -> bool {
        self.deferred.is_some()
    }

    /// Answers a recall that was deferred, whoever still waits.
    pub fn answer_recall(&mut self) {
        let Some((recall, _)) = self.deferred.take() else { return };
        if self.peer_closing.is_some() {
            self.credit.recall_all();
        } else {
            self.credit.recall(recall.limit);
            self.kept_reserved = self.credit.reserved() > 0;
        }
        self.generation = recall.generation;
        self.yield_due = Some(self.make_yield());
        // What was asked for before went with the lease; whoever still waits asks anew, behind the YIELD.
        self.want = 0;
        self.want_due = false;
        self.want(self.waiting);
    }

    #[inline]
    pub(super) fn answer_when_used(&mut self) {
        if let Some((_, floor)) = self.deferred
            && (self.waiting == 0
                || self.peer_closing.is_some()
                || !self.credit.has_bytes()
                || self.credit.committed() + self.credit.reserved() >= floor)
        {
            self.answer_recall();
        }
    }

    /// Completes a rewind (`CHAN-6`): every value from `limit` on has gone back to its owner, and is numbered anew when sent.
    ///
    /// # Errors
    /// A [`Violation`] when no rewind was asked for, or not to that point.
    pub fn rewind(&mut self, limit: u64) -> Result<(), Violation> {
        let recall = self.rewind_asked.take().filter(|recall| recall.limit == limit);
        let recall = recall.ok_or(Violation("rewind that was not asked for"))?;
        let bytes = self.retained.truncate(limit);
        self.redelivered.retain(|seq| *seq < limit);
        self.credit.rewind(limit, bytes)?;
        self.received = self.received.min(self.committed());
        self.sealed_high = self.sealed_high.min(self.committed());
        self.call_back_due = false;
        self.generation = recall.generation;
        self.yield_due = Some(self.make_yield());
        Ok(())
    }

    pub(super) const fn make_yield(&self) -> Yield {
        Yield {
            id: self.id,
            generation: self.generation,
            limit: self.credit.limit(),
            committed: self.credit.committed(),
        }
    }

    /// Handles the peer's CLOSE or RESET: it takes no more.
    ///
    /// # Errors
    /// A [`Violation`] when it took what was never sent.
    pub fn handle_close(&mut self, close: &Close) -> Result<(), Violation> {
        if close.final_seq > self.committed() {
            return Err(Violation("close counts values that were not sent"));
        }
        if self.peer_close.is_none() {
            self.offer = Offer::None;
            self.settle(close.final_seq);
            if close.code != close_code::GONE {
                // The peer has said how many it took: the rest is no longer in doubt.
                self.sealed_high = self.taken;
            }
            self.peer_close = Some(CloseReason { code: close.code, reason: close.reason.clone() });
            self.offer = Offer::None;
            self.deferred = None;
            self.close_due |= !self.close_sent;
        }
        Ok(())
    }
}
