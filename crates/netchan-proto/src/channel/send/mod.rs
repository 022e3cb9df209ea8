//! The sending end of a channel.
//!
//! Invariants: `taken ≤ received ≤ committed`; every value numbered `taken` or above is retained; a value is sealed only
//! while `synced`, that is, after the peer's position on this link is known.

mod leave;
mod link;
mod peer;
mod unsettled;

use std::collections::VecDeque;

pub use self::unsettled::Unsettled;
use super::CloseReason;
use super::item::{ItemBuf, Payload};
use super::retained::{AppendError, Retained};
use crate::flow::Credit;
use crate::id::ChannelId;
use crate::planted::{self, Mutant};
use crate::wire::{Accept, Mode, Recall, Yield};

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
            // Only a receiver sees a difference.
            mode: if matches!(accept.mode, Mode::Cast) { Mode::Credit } else { accept.mode },
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
    /// The peer has said how much it lends at first (`HOST-26`).
    greeted: bool,
    credit: Credit,
    /// Bytes that the peer has granted, of which `credit` has what this end would keep.
    granted_bytes: u64,
    retained_bytes_max: u64,
    /// How many values had been committed when it asked for a report because of that bound.
    polled_at: u64,
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
    /// Nothing may be sent for now, whatever the credit; a close waits too.
    held: bool,
    /// The peer takes no more sends; what was committed still goes out.
    peer_closing: Option<CloseReason>,
    /// Credit was kept for what was reserved when it was asked back: once that is let go, the peer is told.
    kept_reserved: bool,
    /// What is with the peer is to be asked back.
    call_back_due: bool,
    closing: Option<(CloseReason, bool)>,
    close_due: bool,
    close_sent: bool,
    peer_close: Option<CloseReason>,
    /// Values numbered below this have been given back to the program.
    given_back: u64,
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
            greeted: options.mode != Mode::Lease,
            credit: Credit::new(limit, options.limit_bytes),
            granted_bytes: options.limit_bytes,
            retained_bytes_max: u64::MAX,
            polled_at: 0,
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
            peer_closing: None,
            kept_reserved: false,
            call_back_due: false,
            closing: None,
            close_due: false,
            close_sent: false,
            peer_close: None,
            given_back: 0,
        }
    }

    /// Keeps at most so many bytes, and a record more, for the peer, however much that grants (`FLOW-9`). To be called before
    /// anything is sent.
    pub fn bound(&mut self, retained_bytes_max: u64) {
        self.retained_bytes_max = retained_bytes_max.max(1);
        let limit_bytes = self.granted_bytes.min(self.retained_bytes_max);
        self.credit.start_with_bytes(limit_bytes);
    }

    /// Demand: the receiving end lets up to `ahead` values be with it that it has not asked for (`FLOW-10`).
    pub const fn allow_ahead(&mut self, ahead: u64) {
        self.credit.allow_ahead(ahead);
    }

    /// Demand: asks the receiving end for what it has not taken (`CHAN-11`). It answers with a recall.
    pub fn call_back(&mut self) {
        self.call_back_due =
            self.mode == Mode::Demand && self.peer_close.is_none() && self.rewind_asked.is_none();
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

    /// Whether the peer has said how far this end may go at first: where credit is lent, that comes behind the acceptance
    /// (`HOST-26`).
    #[must_use]
    pub const fn is_greeted(&self) -> bool {
        self.greeted
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
        let closing = self.closing.as_ref().map(|(reason, _)| reason);
        self.peer_close.as_ref().or(self.peer_closing.as_ref()).or(closing)
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
        if self.closed().is_some() {
            return Err(PushError::Closed);
        }
        self.push_owed(true, encode)
    }

    /// Commits a value that is owed from a session that was lost, in which it may have been `received`. A close that was
    /// asked for since comes behind it.
    ///
    /// # Errors
    /// As [`SendHalf::push`].
    pub fn push_owed<R, E>(
        &mut self,
        received: bool,
        encode: impl FnOnce(&mut ItemBuf<'_>) -> Result<R, E>,
    ) -> Result<Pushed<R>, PushError<E>> {
        if self.peer_close.is_some() || self.close_sent {
            return Err(PushError::Closed);
        }
        if self.available() == 0 {
            return Err(PushError::Full);
        }
        if !received {
            return self.append(encode);
        }
        // The word stands behind a whole record, so such a value has one of its own.
        self.retained.close_batch();
        let pushed = self.append(encode)?;
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
        if self.peer_close.is_some() || self.peer_closing.is_some() || self.close_sent {
            self.release();
            return Err(PushError::Closed);
        }
        self.credit.release();
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
        self.ask_if_bound();
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
}
