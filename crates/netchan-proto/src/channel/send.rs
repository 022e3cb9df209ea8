//! The sending end of a channel.
//!
//! Invariants: `taken ≤ received ≤ committed`; every value numbered `taken` or above is retained; a value is sealed only
//! while `synced`, that is, after the peer's position on this link is known.

use std::collections::VecDeque;

use super::item::{ItemBuf, Payload};
use super::retained::{AppendError, Record, Retained};
use super::{CloseReason, close_code};
use crate::flow::{Credit, Violation};
use crate::id::ChannelId;
use crate::planted::{self, Mutant};
use crate::wire::{Accept, Close, Frame, Mode, Pos, Recall, WindowUpdate, Yield};

/// What a sending end starts with.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// How leave to send is obtained.
    pub mode: Mode,
    /// The channel's capacity.
    pub capacity: u64,
    /// Bytes that may be sent at once.
    pub limit_bytes: u64,
    /// The longest message.
    pub message_bytes_max: usize,
}

impl SendOptions {
    /// From the peer's answer to an OPEN.
    #[must_use]
    pub const fn accepted(accept: &Accept, message_bytes_max: usize) -> Self {
        Self {
            mode: accept.mode,
            capacity: accept.capacity,
            limit_bytes: accept.limit_bytes,
            message_bytes_max,
        }
    }
}

/// A value was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed<R> {
    /// Its number.
    pub seq: u64,
    /// A whole record waits for the link.
    pub full: bool,
    /// What the encoder returned.
    pub value: R,
}

/// A value was not committed; the channel is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushError<E> {
    /// No credit now.
    Full,
    /// The channel is closed.
    Closed,
    /// The encoded value is longer than a message may be.
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The codec failed.
    Encode(E),
}

/// What came of taking an offer back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// It had not left; nobody will see it.
    Withdrawn,
    /// The peer has been asked; the outcome comes with a WITHDRAWN.
    Asked,
    /// It was taken.
    Taken,
}

/// A value that is not known taken when its channel ends.
#[derive(Debug)]
pub struct Unsettled<'a> {
    /// Its number.
    pub seq: u64,
    /// It may have reached the peer; false is certain.
    pub in_doubt: bool,
    /// The encoded value.
    pub payload: Payload<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    None,
    Out(u64),
    Withdrawing(u64),
}

/// The sending end of a channel.
#[derive(Debug)]
pub struct SendHalf {
    id: ChannelId,
    mode: Mode,
    capacity: u64,
    message_bytes_max: usize,
    credit: Credit,
    generation: u32,
    received: u64,
    taken: u64,
    retained: Retained,
    /// Those among them that may have been received before, in a session that was lost.
    redelivered: VecDeque<u64>,
    sealed_high: u64,
    /// Values that were sealed again after a cut.
    replayed: u64,
    synced: bool,
    poll_due: bool,
    waiting: u64,
    want: u64,
    want_due: bool,
    yield_due: Option<Yield>,
    rewind_asked: Option<Recall>,
    /// A recall that met credit which waiting sends are about to use, and how far they may go before it is answered.
    deferred: Option<(Recall, u64)>,
    offer: Offer,
    /// The last offer whose withdrawal the peer confirmed.
    withdrawn: Option<u64>,
    withdraw_due: bool,
    /// Nothing may be sent for now, whatever the credit.
    held: bool,
    closing: Option<(CloseReason, bool)>,
    close_due: bool,
    close_sent: bool,
    peer_close: Option<CloseReason>,
}

impl SendHalf {
    /// The sending end of channel `id`.
    #[must_use]
    pub fn new(id: ChannelId, options: &SendOptions) -> Self {
        let limit = if options.mode == Mode::Credit { options.capacity } else { 0 };
        Self {
            id,
            mode: options.mode,
            capacity: options.capacity,
            message_bytes_max: options.message_bytes_max.min(u32::MAX as usize),
            credit: Credit::new(limit, options.limit_bytes),
            generation: 0,
            received: 0,
            taken: 0,
            retained: Retained::default(),
            redelivered: VecDeque::new(),
            sealed_high: 0,
            replayed: 0,
            synced: true,
            poll_due: false,
            waiting: 0,
            want: 0,
            want_due: false,
            yield_due: None,
            rewind_asked: None,
            deferred: None,
            offer: Offer::None,
            withdrawn: None,
            withdraw_due: false,
            held: false,
            closing: None,
            close_due: false,
            close_sent: false,
            peer_close: None,
        }
    }

    /// The channel.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// How leave to send is obtained.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The channel's capacity.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many values have been committed.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.credit.committed()
    }

    /// How many bytes have been committed.
    #[must_use]
    pub const fn committed_bytes(&self) -> u64 {
        self.credit.committed_bytes()
    }

    /// Every value numbered below this has reached the peer.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Every value numbered below this has been taken by the peer.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// The credit's limit: values numbered below it may be committed.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.credit.limit()
    }

    /// How many values may be committed right now.
    #[must_use]
    pub const fn available(&self) -> u64 {
        match (self.mode, self.offer) {
            _ if self.held || !self.credit.has_bytes() => 0,
            (Mode::Rendezvous, Offer::None) => 1,
            (Mode::Rendezvous, _) => 0,
            _ => self.credit.items(),
        }
    }

    /// Holds everything back that would be sent from now on, or lets it go.
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether everything is held back.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the capacity is 0.
    #[must_use]
    pub fn is_rendezvous(&self) -> bool {
        self.mode == Mode::Rendezvous
    }

    /// Why this end closed the channel, if it did.
    #[must_use]
    pub fn closing(&self) -> Option<&CloseReason> {
        self.closing.as_ref().map(|(reason, _)| reason)
    }

    /// Whether the channel takes no more values, and why.
    #[must_use]
    pub fn closed(&self) -> Option<&CloseReason> {
        self.peer_close.as_ref().or(self.closing.as_ref().map(|(reason, _)| reason))
    }

    /// Why the peer ended the channel, if it did.
    #[must_use]
    pub const fn peer_closed(&self) -> Option<&CloseReason> {
        self.peer_close.as_ref()
    }

    /// Whether both ends are done and the channel can be forgotten. A close that was said on a link that was lost is said
    /// again first.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.close_sent && !self.close_due && self.peer_close.is_some()
    }

    /// How many values were sealed again because a link was cut before the peer had them.
    #[must_use]
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Bytes retained.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.retained.held_bytes()
    }

    /// Gives the buffers of an idle channel back. To be called now and then; says whether the channel was not idle since.
    pub fn park(&mut self) -> bool {
        self.retained.park()
    }

    /// Commits one value, encoded straight into the open batch (`CHAN-1`, `CHAN-4`).
    ///
    /// # Errors
    /// [`PushError`]; the channel is then as it was. If `encode` panics, too.
    #[inline]
    pub fn push<R, E>(
        &mut self,
        encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<R, E>,
    ) -> Result<Pushed<R>, PushError<E>> {
        if self.closed().is_some() {
            return Err(PushError::Closed);
        }
        if self.available() == 0 {
            return Err(PushError::Full);
        }
        self.append(encode)
    }

    /// As [`SendHalf::push`], for a value that may have been received before, in a session that was lost: the receiver is
    /// told so (`CHAN-10`).
    ///
    /// # Errors
    /// As [`SendHalf::push`].
    pub fn push_redelivered<R, E>(
        &mut self,
        encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<R, E>,
    ) -> Result<Pushed<R>, PushError<E>> {
        // The word stands behind a whole record, so such a value has one of its own.
        self.retained.close_batch();
        let pushed = self.push(encode)?;
        self.retained.close_batch();
        self.redelivered.push_back(pushed.seq);
        Ok(pushed)
    }

    /// Commits one value on a unit that [`SendHalf::reserve`] set aside; the unit is used up or given back.
    ///
    /// A unit is one of item credit. When the bytes have run out since, the value waits here for more of them (`FLOW-5`).
    ///
    /// # Errors
    /// [`PushError`], never [`PushError::Full`].
    pub fn push_reserved<R, E>(
        &mut self,
        encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<R, E>,
    ) -> Result<Pushed<R>, PushError<E>> {
        self.credit.release();
        if self.peer_close.is_some() || self.close_sent {
            return Err(PushError::Closed);
        }
        self.append(encode)
    }

    fn append<R, E>(
        &mut self,
        encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<R, E>,
    ) -> Result<Pushed<R>, PushError<E>> {
        let (seq, first_byte) = (self.credit.committed(), self.credit.committed_bytes());
        if !self.credit.has_bytes() {
            self.retained.close_batch();
        }
        let (len, value) = self.retained.append(seq, first_byte, self.message_bytes_max, encode).map_err(
            |error| match error {
                AppendError::TooLarge { bytes_max } => PushError::TooLarge { bytes_max },
                AppendError::Encode(error) => PushError::Encode(error),
            },
        )?;
        self.credit.commit(len as u64);
        self.answer_when_used();
        if planted::is(Mutant::RetainedDroppedAtCapacity) && self.committed() - self.taken >= self.capacity {
            self.retained.close_batch();
            self.retained.release(self.taken + 1);
        }
        if self.mode == Mode::Rendezvous {
            self.offer = Offer::Out(seq);
        }
        Ok(Pushed { seq, full: self.retained.has_full_record(), value })
    }

    /// Sets one unit of credit aside. A rendezvous has none to set aside, and a receive's demand is none to keep.
    pub fn reserve(&mut self) -> bool {
        let reserved = matches!(self.mode, Mode::Credit | Mode::Lease)
            && self.closed().is_none()
            && !self.held
            && self.credit.reserve();
        self.answer_when_used();
        reserved
    }

    /// Gives a unit that was set aside back.
    pub fn release(&mut self) {
        self.credit.release();
    }

    /// Says how many sends wait; asks for a lease when they need one, and takes the request back when they do not.
    pub fn want(&mut self, waiting: u64) {
        if self.mode != Mode::Lease {
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

    /// Asks the peer to report its positions at once (`CHAN-8`).
    pub fn request_report(&mut self) {
        if self.received < self.committed() || self.taken < self.committed() {
            self.poll_due = true;
        }
    }

    /// Takes the offer `seq` of a rendezvous channel back (`CHAN-9`). When the channel ends before the outcome has come,
    /// asking again says what it was.
    pub fn withdraw(&mut self, seq: u64) -> Withdrawal {
        match self.offer {
            Offer::Out(out) if out == seq && self.sealed_high <= seq => {
                let bytes = self.retained.truncate(seq);
                self.credit.uncommit(bytes);
                self.offer = Offer::None;
                Withdrawal::Withdrawn
            }
            Offer::Out(out) if out == seq => {
                self.offer = Offer::Withdrawing(seq);
                self.withdraw_due = true;
                Withdrawal::Asked
            }
            Offer::Withdrawing(out) if out == seq => Withdrawal::Asked,
            _ if self.withdrawn == Some(seq) => Withdrawal::Withdrawn,
            // The channel has ended, and the peer's count says that it did not take the offer.
            _ if seq >= self.taken => Withdrawal::Withdrawn,
            _ => Withdrawal::Taken,
        }
    }

    /// No more values; CLOSE follows the last of them (`CHAN-7`).
    pub fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() && !self.close_sent {
            self.closing = Some((reason, false));
            self.close_due = true;
        }
    }

    /// Ends the channel at once.
    pub fn reset(&mut self, reason: CloseReason) {
        if !self.close_sent {
            self.closing = Some((reason, true));
            self.close_due = true;
        }
    }

    /// Calls `visit` with every value that is not known taken.
    pub fn for_each_unsettled(&self, mut visit: impl FnMut(Unsettled<'_>)) {
        let sealed_high = self.sealed_high;
        self.retained.for_each_from(self.taken, |seq, payload| {
            visit(Unsettled { seq, in_doubt: seq < sealed_high, payload });
        });
    }

    /// Drops every value that is not known taken, once the channel has ended and they have been visited.
    pub fn drop_unsettled(&mut self) {
        self.retained = Retained::default();
        self.taken = self.committed();
    }

    /// How many values are not known taken: `(certain, in_doubt)`.
    #[must_use]
    pub fn unsettled(&self) -> (u64, u64) {
        let doubtful = self.sealed_high.saturating_sub(self.taken);
        let all = self.committed() - self.taken;
        (all - doubtful.min(all), doubtful.min(all))
    }

    // ---- what the peer says ----

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
        self.received = self.received.max(w.received);
        self.credit.raise(w.limit, w.limit_bytes);
        self.settle(if planted::is(Mutant::AcknowledgedEarly) { w.received } else { w.taken });
        Ok(before != self.standing())
    }

    /// What whoever waits may wait for.
    const fn standing(&self) -> (u64, u64, u64, bool) {
        (self.received, self.taken, self.credit.limit(), self.credit.has_bytes())
    }

    fn settle(&mut self, taken: u64) {
        // A number that is used up was taken or withdrawn: until the answer says which, the value stays.
        let taken = if let Offer::Withdrawing(seq) = self.offer { taken.min(seq) } else { taken };
        self.taken = self.taken.max(taken);
        self.received = self.received.max(self.taken);
        if let Offer::Out(seq) = self.offer
            && seq < self.taken
        {
            self.offer = Offer::None;
        }
        self.retained.release(self.taken);
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
            Mode::Credit | Mode::Rendezvous => false,
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
        if Some(recall.generation) != self.generation.checked_add(1) || recall.limit > self.credit.limit() {
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
        let kept = self.waiting.min(self.available());
        self.deferred = Some((*recall, self.credit.committed() + self.credit.reserved() + kept));
        self.answer_when_used();
        Ok(None)
    }

    /// Whether a recall waits for sends that are about to use what they were granted.
    #[must_use]
    pub const fn defers_recall(&self) -> bool {
        self.deferred.is_some()
    }

    /// Answers a recall that was deferred, whoever still waits.
    pub fn answer_recall(&mut self) {
        let Some((recall, _)) = self.deferred.take() else { return };
        self.credit.recall(recall.limit);
        self.generation = recall.generation;
        self.yield_due = Some(self.make_yield());
        // What was asked for before went with the lease; whoever still waits asks anew, behind the YIELD.
        self.want = 0;
        self.want_due = false;
        self.want(self.waiting);
    }

    #[inline]
    fn answer_when_used(&mut self) {
        if let Some((_, floor)) = self.deferred
            && (self.waiting == 0
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
        self.generation = recall.generation;
        self.yield_due = Some(self.make_yield());
        Ok(())
    }

    const fn make_yield(&self) -> Yield {
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

    // ---- links ----

    /// The link is gone: nothing is sealed until the peer's position on the next one is known.
    pub fn detach(&mut self) {
        self.synced = false;
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
                self.credit.raise(0, pos.limit_bytes);
            } else if !behind {
                self.credit.raise(pos.limit, pos.limit_bytes);
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

    // ---- what to write ----

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
            || self.close_is_ready()
    }

    /// A request for a report travels with the data, or alone when there is none to send.
    fn poll_is_ready(&self) -> bool {
        self.poll_due && !self.has_record()
    }

    fn close_is_ready(&self) -> bool {
        let drained = !self.retained.has_unsent() && self.credit.reserved() == 0;
        self.close_due && (drained || self.peer_close.is_some() || self.is_resetting())
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
