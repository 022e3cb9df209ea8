//! A receiving end and its links: where it stands when one takes the place of another, and what it has for one to carry.

use super::RecvHalf;
use crate::channel::CloseReason;
use crate::flow::{Urgency, Violation, WindowKind};
use crate::planted::{self, Mutant};
use crate::wire::{Close, Frame, Pos, WindowUpdate};

impl RecvHalf {
    /// The link is gone: a message that was on its way comes again from its first fragment.
    pub fn detach(&mut self) {
        if !planted::is(Mutant::PartialSurvivesCut) {
            self.partial = None;
        }
        // As for a sending end: the peer's position says whether it is still due.
        self.close_due = false;
        self.awaits_pos = true;
        self.awaits_close = self.peer_close.is_some();
        if self.kind() == WindowKind::Lease {
            self.synced = false;
            self.recall_due = false;
        }
    }

    /// This end's position, for a new link.
    #[must_use]
    pub fn pos(&mut self) -> Pos {
        let (next_expected, taken, limit, limit_bytes) = self.window.tell();
        // An offer that ended with the channel was not taken, though its number is used up: the CLOSE says the same.
        let taken = if self.stopped.is_some() { taken.min(self.last_close().final_seq) } else { taken };
        Pos {
            id: self.id,
            generation: self.generation,
            next_expected,
            taken,
            limit,
            limit_bytes,
            committed: 0,
        }
    }

    /// Handles the sender's position on a new link: says again what may have been lost (`SESS-9`). Returns the limit that a
    /// leased sender keeps (`SESS-17`).
    ///
    /// # Errors
    /// A [`Violation`] when values that arrived were never sent, or a lease is claimed that was never given.
    pub fn handle_pos(&mut self, pos: &Pos) -> Result<Option<u64>, Violation> {
        if !self.is_rewinding() && pos.generation == self.generation && pos.committed < self.window.received()
        {
            return Err(Violation("position before what arrived"));
        }
        // A half that was made on this link has granted on it, and the position of its beginning crosses that.
        let was_cut = self.kind() == WindowKind::Lease && !self.synced;
        let lease = if was_cut { self.take_lease_back(pos)? } else { None };
        self.synced = true;
        self.awaits_pos = false;
        self.report_due = true;
        self.recall_due = self.recall.is_some();
        self.closing_due = self.closing.is_some();
        self.close_due = self.stopped.is_some() || self.close_sent;
        self.drained();
        Ok(lease)
    }

    /// What the sender has not used is free again, and a recall that was under way is answered by that, whether the sender
    /// has heard of it or not.
    fn take_lease_back(&mut self, pos: &Pos) -> Result<Option<u64>, Violation> {
        let recalled = self.recall.is_some_and(|recall| recall.generation == pos.generation);
        if pos.generation != self.generation && !recalled && self.peer_close.is_none() {
            return Err(Violation("position of a generation not agreed"));
        }
        if pos.limit < pos.committed {
            return Err(Violation("position beyond its own limit"));
        }
        self.generation = self.generation.max(pos.generation);
        self.recall = None;
        if self.peer_close.is_some() || self.stopped.is_some() {
            return Ok(None);
        }
        self.window.yielded(pos.limit)?;
        Ok(Some(pos.limit))
    }

    /// Whether the sender's position on the present link is known.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        !self.awaits_pos
    }

    /// How soon the peer must hear from this end.
    #[must_use]
    #[inline]
    pub fn urgency(&self) -> Urgency {
        if self.recall_due || self.close_due || self.closing_due || self.withdrawn_due.is_some() {
            return Urgency::Now;
        }
        match (self.may_report(), self.report_due) {
            (false, _) => Urgency::None,
            (true, true) => Urgency::Now,
            (true, false) if self.recall.is_some() => Urgency::None,
            // Someone waits to hear that it was taken (`CHAN-8`).
            (true, false) if self.window.owes_news_below(self.asked) => {
                self.window.urgency().max(Urgency::Soon)
            }
            (true, false) => self.window.urgency(),
        }
    }

    /// Whether the peer still wants to hear of the window.
    fn may_report(&self) -> bool {
        self.synced && !self.close_sent && self.stopped.is_none() && !self.is_rewinding()
    }

    pub(super) fn is_rewinding(&self) -> bool {
        self.recall.is_some_and(|recall| recall.rewind)
    }

    /// Writes the control frames that are due.
    pub fn poll_control(&mut self, out: &mut Vec<u8>) {
        if let Some((seq, withdrawn)) = self.withdrawn_due.take() {
            Frame::Withdrawn { id: self.id, seq, withdrawn }.write(out);
        }
        let news = self.report_due
            || self.window.owes_news_below(self.asked)
            || self.window.urgency() > Urgency::None;
        if news && self.may_report() {
            self.report_due = false;
            let (received, taken, limit, limit_bytes) = self.window.tell();
            let generation = self.generation;
            Frame::Window(WindowUpdate { id: self.id, generation, received, taken, limit, limit_bytes })
                .write(out);
        }
        // Before the recall: what was reserved is void, and is not kept.
        if std::mem::take(&mut self.closing_due)
            && !self.close_sent
            && let Some(CloseReason { code, reason }) = self.closing.clone()
        {
            Frame::Closing { id: self.id, code, reason }.write(out);
        }
        // Behind the window: what a recall asks back must have been granted before.
        if std::mem::take(&mut self.recall_due)
            && let Some(recall) = self.recall
        {
            Frame::Recall(recall).write(out);
        }
        if std::mem::take(&mut self.close_due) {
            self.close_sent = true;
            self.report_due = false;
            Frame::Close(self.last_close()).write(out);
        }
    }

    /// What this end's CLOSE says.
    #[must_use]
    pub fn last_close(&self) -> Close {
        let CloseReason { code, reason } = self.stopped.clone().unwrap_or_else(CloseReason::plain);
        // A withdrawn offer has used up its number. When it was the last, its sender may still wait to hear of it.
        let taken = self.window.taken();
        let last_withdrawn = taken > 0 && self.last_withdrawn == Some(taken - 1);
        Close { id: self.id, final_seq: taken - u64::from(last_withdrawn), code, reason }
    }
}
