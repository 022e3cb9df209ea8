//! A sending end and its links: where it stands when one takes the place of another, and what it has for one to carry.

use super::{Offer, SendHalf};
use crate::channel::CloseReason;
use crate::channel::retained::Record;
use crate::flow::Violation;
use crate::planted::{self, Mutant};
use crate::wire::{Close, Frame, Mode, Pos};

impl SendHalf {
    /// The link is gone: nothing is sealed until the peer's position on the next one is known.
    pub fn detach(&mut self) {
        self.synced = false;
        self.call_back_due = false;
        // The peer's position says whether it is still due: none comes from a peer that has forgotten the channel.
        self.close_due = false;
    }

    /// This end's position, for a new link. Leased credit that is not in use goes back with it (`SESS-17`).
    #[must_use]
    pub fn pos(&mut self) -> Pos {
        let limit = if self.mode == Mode::Lease { self.return_lease() } else { 0 };
        Pos {
            id: self.id,
            generation: self.generation,
            next_expected: 0,
            taken: 0,
            limit,
            limit_bytes: 0,
            committed: self.credit.committed(),
        }
    }

    /// The other end may have lent to others what this end does not use. A recall that was under way is answered by that.
    fn return_lease(&mut self) -> u64 {
        self.deferred = None;
        self.yield_due = None;
        self.want = 0;
        self.kept_reserved = self.credit.reserved() > 0;
        if planted::is(Mutant::LeaseKeptAcrossCut) {
            return self.credit.committed() + self.credit.reserved();
        }
        self.credit.recall(0)
    }

    /// Handles the peer's position on a new link: resumes there and says again what may have been lost (`SESS-9`).
    ///
    /// # Errors
    /// A [`Violation`] when the positions contradict each other.
    pub fn handle_pos(&mut self, pos: &Pos) -> Result<(), Violation> {
        if self.synced {
            // This half is younger than the link: there was nothing to settle.
            return Ok(());
        }
        if pos.generation > self.generation {
            return Err(Violation("position of a generation not agreed"));
        }
        let behind = pos.generation < self.generation;
        let resume_at = if behind && self.mode == Mode::Demand {
            // The peer discards everything until it sees the answer to its recall, and then expects what follows it.
            self.retained.lowest()
        } else {
            if pos.next_expected > self.committed() || pos.taken > pos.next_expected {
                return Err(Violation("position past what was sent"));
            }
            if pos.next_expected < self.taken {
                return Err(Violation("position before what was taken"));
            }
            self.received = self.received.max(pos.next_expected);
            self.settle(pos.taken);
            if self.mode == Mode::Lease {
                // Its limit is from before this end gave back what it did not use; the next window says what holds.
                self.raise(0, pos.limit_bytes);
            } else if !behind {
                self.raise(pos.limit, pos.limit_bytes);
            }
            pos.next_expected
        };
        self.replayed += self.sealed_high.saturating_sub(resume_at.max(self.taken));
        self.retained.restart(resume_at + u64::from(planted::is(Mutant::OffByOneAtResume)));
        if planted::is(Mutant::SequenceReusedAfterResume) && resume_at > 0 && resume_at == self.committed() {
            self.credit.uncommit(0);
        }
        if behind && self.mode == Mode::Demand {
            self.yield_due = Some(self.make_yield());
        }
        self.synced = true;
        self.want(self.waiting);
        self.poll_due = self.received < self.committed();
        self.want_due = self.want > self.credit.limit();
        self.withdraw_due =
            matches!(self.offer, Offer::Withdrawing(_)) && !planted::is(Mutant::WithdrawLostAcrossCut);
        self.close_due =
            (self.closing.is_some() || self.peer_close.is_some()) && !planted::is(Mutant::CloseLostAcrossCut);
        Ok(())
    }

    /// Whether the peer's position on the present link is known.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether the link has something to take.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.synced && (self.has_record() || self.has_control())
    }

    fn has_record(&self) -> bool {
        self.sends_data() && self.retained.may_send(self.credit.limit_bytes())
    }

    const fn sends_data(&self) -> bool {
        self.peer_close.is_none() && !self.is_resetting() && self.rewind_asked.is_none()
    }

    const fn is_resetting(&self) -> bool {
        matches!(self.closing, Some((_, true)))
    }

    fn has_control(&self) -> bool {
        self.yield_due.is_some()
            || self.want_due
            || self.poll_is_ready()
            || self.withdraw_due
            || self.call_back_due
            || self.close_is_ready()
    }

    /// A request for a report travels with the data, or alone when there is none to send.
    fn poll_is_ready(&self) -> bool {
        self.poll_due && !self.has_record()
    }

    fn close_is_ready(&self) -> bool {
        let drained = !self.retained.has_unsent() && self.credit.reserved() == 0;
        self.close_due && ((drained && !self.held) || self.peer_close.is_some() || self.is_resetting())
    }

    /// Writes the control frames that are due. Those that answer a recall come before any data they let through.
    pub fn poll_control(&mut self, out: &mut Vec<u8>) {
        if !self.synced {
            return;
        }
        if let Some(answer) = self.yield_due.take() {
            Frame::Yield(answer).write(out);
        }
        if std::mem::take(&mut self.want_due) && self.peer_close.is_none() {
            Frame::Want { id: self.id, limit: self.want }.write(out);
        }
        if std::mem::take(&mut self.call_back_due) && self.peer_close.is_none() {
            Frame::CallBack { id: self.id, generation: self.generation }.write(out);
        }
        let Offer::Withdrawing(seq) = self.offer else {
            self.withdraw_due = false;
            return self.poll_end(out);
        };
        if std::mem::take(&mut self.withdraw_due) {
            Frame::Withdraw { id: self.id, seq }.write(out);
        }
        self.poll_end(out);
    }

    fn poll_end(&mut self, out: &mut Vec<u8>) {
        if self.poll_is_ready() {
            self.poll_due = false;
            if self.peer_close.is_none() {
                Frame::Poll { id: self.id }.write(out);
            }
        }
        if !self.close_is_ready() {
            return;
        }
        self.close_due = false;
        self.close_sent = true;
        let close = self.last_close();
        if self.is_resetting() { Frame::Reset(close) } else { Frame::Close(close) }.write(out);
    }

    /// What this end's CLOSE says.
    #[must_use]
    pub fn last_close(&self) -> Close {
        let CloseReason { code, reason } =
            self.closing.as_ref().map_or_else(CloseReason::plain, |(reason, _)| reason.clone());
        Close { id: self.id, final_seq: self.committed(), code, reason }
    }

    /// The next data record, to be sealed at once: it counts as sent from now on.
    pub fn take_record(&mut self) -> Option<Record> {
        if !self.synced || !self.has_record() {
            return None;
        }
        let (mut record, end) = self.retained.take_record()?;
        record.header.ack_now = self.poll_due;
        record.header.redelivered =
            !self.redelivered.is_empty() && self.redelivered.contains(&record.header.first_seq);
        self.sealed_high = self.sealed_high.max(end);
        if !self.has_record() {
            // This one carries the request.
            self.poll_due = false;
        }
        Some(record)
    }
}
