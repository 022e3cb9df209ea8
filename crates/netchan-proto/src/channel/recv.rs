//! The receiving end of a channel.
//!
//! Invariants: values leave in order of number; `taken ≤ handed ≤ received`, and `handed = taken` unless the values are
//! owned elsewhere (a hosted channel); what is buffered is exactly the values from `handed` to `received`.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::CloseReason;
use super::arrived::{Arrived, Buffer, WASTE_MAX};
use super::item::Payload;
use crate::flow::{Urgency, Violation, Window, WindowKind};
use crate::id::ChannelId;
use crate::limits::DEMAND_UNITS_MAX;
use crate::planted::{self, Mutant};
use crate::wire::{
    Body, Close, DataHeader, Frame, Pos, Recall, WindowUpdate, Yield, count_items, split_item,
};

/// Memory set aside for a message on the word of its first fragment; longer ones grow as they arrive.
const ALLOCATE_AHEAD_BYTES: usize = 8 * 1_024 * 1_024;

/// What a receiving end starts with.
#[derive(Clone, Debug)]
pub struct RecvOptions {
    /// What determines the item limit.
    pub kind: WindowKind,
    /// The byte window granted with the opening.
    pub window_bytes: u64,
    /// What the byte window may grow to.
    pub window_bytes_max: u64,
    /// The longest message.
    pub message_bytes_max: usize,
}

/// What a record brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// New values.
    pub values: u64,
}

/// The receiving end of a channel.
#[derive(Debug)]
pub struct RecvHalf {
    id: ChannelId,
    window: Window,
    message_bytes_max: usize,
    generation: u32,
    arrived: Arrived,
    /// Which of those not handed out may have been received before, in a session that was lost.
    redelivered: VecDeque<Range<u64>>,
    last_redelivered: bool,
    partial: Option<Vec<u8>>,
    handed: u64,
    /// Sizes of values that were handed over and are not settled.
    unsettled: VecDeque<u64>,
    waiting: u64,
    report_due: bool,
    /// The sender waits to hear what becomes of the values below this number.
    asked: u64,
    recall: Option<Recall>,
    recall_due: bool,
    last_withdrawn: Option<u64>,
    withdrawn_due: Option<(u64, bool)>,
    /// The last number, the reason, and whether the channel ended at once, without regard to data.
    peer_close: Option<(u64, CloseReason, bool)>,
    stopped: Option<CloseReason>,
    close_due: bool,
    close_sent: bool,
    /// False from a cut until a leased sender has told what it keeps: what this end grants before would be taken for more.
    synced: bool,
}

impl RecvHalf {
    /// The receiving end of channel `id`.
    #[must_use]
    pub fn new(id: ChannelId, options: &RecvOptions) -> Self {
        Self {
            id,
            window: Window::new(options.kind, options.window_bytes, options.window_bytes_max),
            message_bytes_max: options.message_bytes_max,
            generation: 0,
            arrived: Arrived::default(),
            redelivered: VecDeque::new(),
            last_redelivered: false,
            partial: None,
            handed: 0,
            unsettled: VecDeque::new(),
            waiting: 0,
            report_due: matches!(options.kind, WindowKind::Demand { prefetch: 1.. }),
            asked: 0,
            recall: None,
            recall_due: false,
            last_withdrawn: None,
            withdrawn_due: None,
            peer_close: None,
            stopped: None,
            close_due: false,
            close_sent: false,
            synced: true,
        }
    }

    /// The channel.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// What determines the item limit.
    #[must_use]
    pub const fn kind(&self) -> WindowKind {
        self.window.kind()
    }

    /// How many values are ready to be taken.
    #[must_use]
    #[inline]
    pub const fn ready(&self) -> u64 {
        self.window.received() - self.handed
    }

    /// How many values have arrived.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.window.received()
    }

    /// How many values have been taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.window.taken()
    }

    /// How many bytes have been taken.
    #[must_use]
    pub const fn taken_bytes(&self) -> u64 {
        self.window.taken_bytes()
    }

    /// The credit the peer may have heard of.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.window.granted()
    }

    /// Why the channel ended, once everything that was sent has been taken.
    #[must_use]
    pub fn ended(&self) -> Option<&CloseReason> {
        if let Some(reason) = &self.stopped {
            return Some(reason);
        }
        match &self.peer_close {
            Some((final_seq, reason, reset))
                if planted::is(Mutant::EndBeforeData)
                    || self.ready() == 0 && (*reset || self.handed >= *final_seq) =>
            {
                Some(reason)
            }
            _ => None,
        }
    }

    /// Why the peer closed, whether or not everything has been taken.
    #[must_use]
    pub fn peer_closed(&self) -> Option<&CloseReason> {
        self.peer_close.as_ref().map(|(_, reason, _)| reason)
    }

    /// Whether both ends are done and the channel can be forgotten. A close that was said on a link that was lost is said
    /// again first.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.close_sent && !self.close_due && self.peer_close.is_some()
    }

    // ---- taking ----

    /// Takes the next value, still encoded. It counts as taken from now on, whatever becomes of it.
    #[inline]
    pub fn take(&mut self) -> Option<Payload<'_>> {
        let payload = self.arrived.next()?;
        self.window.take(payload.as_slice().len() as u64);
        self.window.demand(self.waiting);
        if !self.redelivered.is_empty() || self.last_redelivered {
            self.last_redelivered = is_marked(&mut self.redelivered, self.handed);
        }
        self.handed += 1;
        if self.handed == self.window.received()
            && let Some((final_seq, ..)) = &self.peer_close
        {
            self.close_due |= !self.close_sent && self.window.taken() >= *final_seq;
        }
        Some(payload)
    }

    /// Whether the value that was taken, or handed over, last may have been received before (`CHAN-10`).
    #[must_use]
    pub const fn took_redelivered(&self) -> bool {
        self.last_redelivered
    }

    /// Lets go of memory that held values which were all taken. To be called when nobody takes for now.
    pub fn trim(&mut self) {
        self.arrived.trim();
    }

    /// Gives the buffers of an idle channel back. To be called now and then; says whether the channel was not idle since.
    pub fn park(&mut self) -> bool {
        self.arrived.park()
    }

    /// Takes the next value out without counting it as taken: its owner will [`RecvHalf::settle`] it.
    pub fn hand_over(&mut self) -> Option<(u64, Bytes)> {
        let seq = self.handed;
        let payload = self.arrived.next()?.into_bytes();
        self.last_redelivered = is_marked(&mut self.redelivered, seq);
        self.handed += 1;
        self.unsettled.push_back(payload.len() as u64);
        Some((seq, payload))
    }

    /// Counts values handed over as taken, up to number `taken`.
    pub fn settle(&mut self, taken: u64) {
        while self.window.taken() < taken {
            let Some(bytes) = self.unsettled.pop_front() else { break };
            self.window.take(bytes);
        }
        if self.recall.is_none() {
            self.window.demand(self.waiting);
        }
        self.drained();
    }

    fn drained(&mut self) {
        if self.peer_close.as_ref().is_some_and(|(final_seq, ..)| self.window.taken() >= *final_seq) {
            self.close_due |= !self.close_sent;
        }
    }

    /// Demand: says how many receives wait. One that is about to [`RecvHalf::take`] waits no more.
    pub fn set_waiting(&mut self, waiting: u64) {
        // The rest waits here: the other end takes no more from one receiver (`HOST-21`).
        self.waiting = waiting.min(DEMAND_UNITS_MAX / 2);
        if self.recall.is_none() {
            self.window.demand(self.waiting);
        }
    }

    /// Demand: whether the peer has leave to send, or has sent, values that nobody waits for.
    #[must_use]
    pub fn has_excess(&self) -> bool {
        matches!(self.kind(), WindowKind::Demand { prefetch: 0 })
            && self.waiting == 0
            && self.recall.is_none()
            && self.stopped.is_none()
            && self.peer_close.is_none()
            && self.window.granted() > self.window.taken()
    }

    /// Demand: gives every value that was not taken, and all leave to send, back (`CHAN-6`).
    pub fn give_back(&mut self) {
        if !self.has_excess() {
            return;
        }
        let Some(generation) = self.generation.checked_add(1) else { return };
        let limit = self.window.taken();
        self.discard();
        self.recall = Some(Recall { id: self.id, generation, limit, rewind: true });
        self.recall_due = true;
    }

    /// No value is taken any more. Those that were handed over are their owner's now, so that the count this end closes
    /// with is true; those that were not are discarded.
    fn end(&mut self) {
        if !self.is_rewinding() {
            self.settle(self.handed);
        }
        self.discard();
    }

    /// The session is lost, and what had not been taken goes back to the hosted channel it came from: it is not handed out
    /// here as well (`HOST-4`).
    pub fn forsake(&mut self) {
        if matches!(self.kind(), WindowKind::Demand { .. }) {
            self.discard();
        }
    }

    fn discard(&mut self) {
        self.arrived.clear();
        self.partial = None;
        self.unsettled.clear();
        self.redelivered.clear();
        self.handed = self.window.received();
    }

    /// Lease: grants credit up to `limit`.
    pub fn lease(&mut self, limit: u64) {
        self.window.lease(limit);
    }

    /// Lease: asks for all credit that has not been used. After a cut that is on its way back anyway (`SESS-17`).
    pub fn recall_lease(&mut self) {
        let Some(generation) = self.generation.checked_add(1) else { return };
        if self.synced && self.recall.is_none() && self.kind() == WindowKind::Lease {
            let limit = self.window.received();
            self.recall = Some(Recall { id: self.id, generation, limit, rewind: false });
            self.recall_due = true;
        }
    }

    /// Ends this end's use of the channel; what was not taken is discarded.
    pub fn stop(&mut self, reason: CloseReason) {
        if self.stopped.is_none() && !self.close_sent {
            self.end();
            self.stopped = Some(reason);
            self.close_due = true;
        }
    }

    // ---- what the peer says ----

    /// Memory for a record's plaintext.
    #[must_use]
    pub fn buffer(&mut self, plaintext_len: usize) -> Buffer {
        self.arrived.buffer(self.partial.take(), plaintext_len)
    }

    /// Handles a data record that was opened into `buffer` from [`RecvHalf::buffer`], at its last `plaintext_len` bytes.
    ///
    /// # Errors
    /// A [`Violation`] when the record breaks a rule (`CHAN-2`, `FLOW-3`).
    pub fn handle_record(&mut self, mut buffer: Vec<u8>, plaintext_len: usize) -> Result<Arrival, Violation> {
        let nothing = Ok(Arrival { values: 0 });
        let start = buffer.len() - plaintext_len;
        let (header, body_len) =
            DataHeader::split(&buffer[start..]).map_err(|_| Violation("malformed data record"))?;
        if self.stopped.is_some() || self.is_rewinding() || matches!(self.peer_close, Some((.., true))) {
            return nothing;
        }
        self.report_due |= header.ack_now;
        let expected = self.window.received();
        if header.first_seq > expected {
            return Err(Violation("values are missing"));
        }
        if let Some((final_seq, ..)) = self.peer_close
            && header.first_seq >= final_seq
        {
            return Err(Violation("values after the close"));
        }
        buffer.truncate(start + body_len);
        let arrival = match header.body {
            Body::Items if start > 0 => Err(Violation("a message was left unfinished")),
            Body::Items if planted::is(Mutant::NoDuplicateCheck) => self.receive_items(buffer, 0),
            Body::Items => self.receive_items(buffer, expected - header.first_seq),
            Body::Fragment { .. } if header.first_seq < expected => nothing,
            Body::Fragment { total, offset } => {
                self.receive_fragment(buffer, total as usize, offset as usize, start)
            }
        };
        if header.ack_now {
            self.asked = self.window.received();
        }
        if header.redelivered && self.window.received() > expected {
            self.redelivered.push_back(expected..self.window.received());
        }
        arrival
    }

    fn receive_items(&mut self, mut bytes: Vec<u8>, known: u64) -> Result<Arrival, Violation> {
        let malformed = Violation("malformed items");
        let mut position = 0;
        for _ in 0..known {
            let Ok((_, rest)) = split_item(&bytes[position..]) else { break };
            position = bytes.len() - rest.len();
        }
        let items = count_items(&bytes[position..]).map_err(|_| malformed)?;
        if items.count == 0 {
            return if known > 0 { Ok(Arrival { values: 0 }) } else { Err(malformed) };
        }
        if self.peer_close.is_some() {
            return Err(Violation("values after the close"));
        }
        self.window.receive(items.count, items.bytes, items.last_bytes)?;
        if bytes.capacity() > WASTE_MAX * bytes.len() {
            bytes.shrink_to_fit();
        }
        self.arrived.push_batch(bytes, position);
        Ok(Arrival { values: items.count })
    }

    fn receive_fragment(
        &mut self,
        mut buffer: Vec<u8>,
        total: usize,
        offset: usize,
        start: usize,
    ) -> Result<Arrival, Violation> {
        if offset != start || total > self.message_bytes_max {
            return Err(Violation("a fragment out of place, or a message over the limit"));
        }
        if buffer.len() < total {
            // A part needs credit like the whole, or it would be memory that nobody granted.
            self.window.check(1, 0)?;
            if offset == 0 {
                // Room for the trailer of the last record as well, so that opening it never moves the message.
                buffer.reserve_exact((total - buffer.len() + 32).min(ALLOCATE_AHEAD_BYTES));
            }
            self.partial = Some(buffer);
            return Ok(Arrival { values: 0 });
        }
        self.window.receive(1, total as u64, total as u64)?;
        self.arrived.push_single(Bytes::from(buffer));
        Ok(Arrival { values: 1 })
    }

    /// Handles POLL: the sender waits for news (`CHAN-8`).
    pub const fn handle_poll(&mut self) {
        self.asked = self.window.received();
        self.report_due = true;
    }

    /// Handles WITHDRAW. Returns true when the value was handed over, so that its owner must decide and
    /// [`RecvHalf::answer_withdraw`].
    ///
    /// # Errors
    /// A [`Violation`] when the channel is no rendezvous or the offer cannot have been made.
    pub fn handle_withdraw(&mut self, seq: u64) -> Result<bool, Violation> {
        // One offer at a time: none can be on its way while another is here.
        let highest = self.window.received() - u64::from(self.window.taken() < self.window.received());
        if self.kind() != WindowKind::Rendezvous || seq > highest {
            return Err(Violation("withdraw of an offer that was not made"));
        }
        if self.stopped.is_some() {
            return Ok(false);
        }
        if seq < self.window.taken() {
            self.withdrawn_due = Some((seq, self.last_withdrawn == Some(seq)));
            return Ok(false);
        }
        if seq < self.handed {
            return Ok(true);
        }
        // What has not arrived is still on its way, in part perhaps, or was lost with a link.
        let arrived = self.arrived.next().map(|payload| payload.as_slice().len() as u64);
        self.window.void(arrived);
        if planted::is(Mutant::DoubleGrantAfterWithdraw) {
            self.window.void(None);
        }
        self.partial = None;
        self.handed = self.window.taken();
        self.last_withdrawn = Some(seq);
        self.withdrawn_due = Some((seq, true));
        self.drained();
        Ok(false)
    }

    /// Answers a WITHDRAW of a value that was handed over.
    pub fn answer_withdraw(&mut self, seq: u64, withdrawn: bool) {
        if self.window.taken() == seq
            && withdrawn
            && let Some(bytes) = self.unsettled.pop_front()
        {
            self.window.void(Some(bytes));
            self.last_withdrawn = Some(seq);
        }
        self.settle(seq + 1);
        self.withdrawn_due = Some((seq, withdrawn));
    }

    /// Handles YIELD; returns the sender's new limit when it answers a recall that is outstanding.
    ///
    /// # Errors
    /// A [`Violation`] when it does not fit the recall.
    pub fn handle_yield(&mut self, answer: &Yield) -> Result<Option<u64>, Violation> {
        let Some(recall) = self.recall else {
            // A close voids the recall that it met under way, but not its answer.
            let repeated = answer.generation <= self.generation || self.peer_close.is_some();
            return if repeated { Ok(None) } else { Err(Violation("yield without a recall")) };
        };
        if answer.generation < recall.generation {
            return Ok(None);
        }
        if answer.generation > recall.generation || (recall.rewind && answer.limit != recall.limit) {
            return Err(Violation("yield does not answer the recall"));
        }
        if recall.rewind {
            self.window.rewound();
            self.handed = self.window.taken();
        } else {
            self.window.yielded(answer.limit)?;
        }
        self.generation = answer.generation;
        self.recall = None;
        self.recall_due = false;
        self.window.demand(self.waiting);
        self.report_due = true;
        Ok(Some(answer.limit))
    }

    /// Handles the sender's CLOSE.
    ///
    /// # Errors
    /// A [`Violation`] when it closes before its own data.
    pub fn handle_close(&mut self, close: &Close, reset: bool) -> Result<(), Violation> {
        if self.peer_close.is_some() {
            return Ok(());
        }
        let rewinding = self.is_rewinding();
        if !reset && !rewinding && self.stopped.is_none() && close.final_seq != self.window.received() {
            return Err(Violation("close does not follow the data"));
        }
        let reason = CloseReason { code: close.code, reason: close.reason.clone() };
        self.recall = None;
        self.recall_due = false;
        self.partial = None;
        if reset {
            self.end();
        }
        // A close that meets a rewind leaves nothing to take, like a reset: the values are their owner's again.
        let at_once = reset || rewinding;
        let final_seq = if at_once { self.window.taken() } else { close.final_seq };
        self.peer_close = Some((final_seq, reason, at_once));
        self.close_due |= at_once && !self.close_sent;
        self.drained();
        Ok(())
    }

    // ---- links ----

    /// The link is gone: a message that was on its way comes again from its first fragment.
    pub fn detach(&mut self) {
        if !planted::is(Mutant::PartialSurvivesCut) {
            self.partial = None;
        }
        if self.kind() == WindowKind::Lease {
            self.synced = false;
            self.recall_due = false;
        }
    }

    /// This end's position, for a new link.
    #[must_use]
    pub fn pos(&mut self) -> Pos {
        let (next_expected, taken, limit, limit_bytes) = self.window.tell();
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
        let lease = if self.kind() == WindowKind::Lease { self.take_lease_back(pos)? } else { None };
        self.synced = true;
        self.report_due = true;
        self.recall_due = self.recall.is_some();
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

    // ---- what to write ----

    /// How soon the peer must hear from this end.
    #[must_use]
    #[inline]
    pub fn urgency(&self) -> Urgency {
        if self.recall_due || self.close_due || self.withdrawn_due.is_some() {
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

    fn is_rewinding(&self) -> bool {
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

/// Whether value `seq` is in one of the ranges; those that lie before it are done with.
#[cold]
fn is_marked(marked: &mut VecDeque<Range<u64>>, seq: u64) -> bool {
    while marked.pop_front_if(|range| range.end <= seq).is_some() {}
    marked.front().is_some_and(|range| range.contains(&seq))
}
