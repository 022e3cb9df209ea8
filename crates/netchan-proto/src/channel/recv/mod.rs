//! The receiving end of a channel.
//!
//! Invariants: values leave in order of number; `taken ≤ handed ≤ received`, and `handed = taken` unless the values are
//! owned elsewhere (a hosted channel); what is buffered is exactly the values from `handed` to `received`.

mod link;
mod peer;

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::CloseReason;
use super::arrived::Arrived;
use super::item::Payload;
use crate::flow::{Violation, Window, WindowKind};
use crate::id::ChannelId;
use crate::limits::DEMAND_UNITS_MAX;
use crate::planted::{self, Mutant};
use crate::wire::Recall;

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
    /// This end takes no more sends; what was committed still arrives. And whether the sender is to be told.
    closing: Option<CloseReason>,
    closing_due: bool,
    last_withdrawn: Option<u64>,
    withdrawn_due: Option<(u64, bool)>,
    /// The last number, the reason, and whether the channel ended at once, without regard to data.
    peer_close: Option<(u64, CloseReason, bool)>,
    stopped: Option<CloseReason>,
    close_due: bool,
    close_sent: bool,
    /// False from a cut until a leased sender has told what it keeps: what this end grants before would be taken for more.
    synced: bool,
    /// From a cut until the sender's position on the next link is known.
    awaits_pos: bool,
    /// From a cut until the sender, whose CLOSE had arrived, has said it again: until then values may come again, and this
    /// end needs their key.
    awaits_close: bool,
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
            report_due: matches!(options.kind, WindowKind::Demand { prefetch: 1.., .. }),
            asked: 0,
            recall: None,
            recall_due: false,
            closing: None,
            closing_due: false,
            last_withdrawn: None,
            withdrawn_due: None,
            peer_close: None,
            stopped: None,
            close_due: false,
            close_sent: false,
            synced: true,
            awaits_pos: false,
            awaits_close: false,
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

    /// How many bytes are kept here for values that nobody has taken, of one that has only come in part too.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.capacity() as u64);
        let all_gone = self.handed == self.window.received() && self.unsettled.is_empty();
        partial + if all_gone { 0 } else { self.window.here_bytes() }
    }

    /// How many bytes have come, of a value that has not come whole too.
    #[must_use]
    pub fn arrived_bytes(&self) -> u64 {
        self.window.taken_bytes()
            + self.window.here_bytes()
            + self.partial.as_ref().map_or(0, |part| part.len() as u64)
    }

    /// The byte window.
    #[must_use]
    pub const fn window_bytes(&self) -> u64 {
        self.window.window_bytes()
    }

    /// Whether the byte window would grow with the next report (`FLOW-6`).
    #[must_use]
    pub const fn wants_growth(&self) -> bool {
        self.window.wants_growth()
    }

    /// Whether the byte window may grow.
    pub const fn allow_growth(&mut self, may: bool) {
        self.window.allow_growth(may);
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
        self.close_sent && !self.close_due && self.peer_close.is_some() && !self.awaits_close
    }

    /// The first byte of the next value, if that is here and not empty.
    #[must_use]
    pub fn peek_byte(&self) -> Option<u8> {
        self.arrived.peek_byte()
    }

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
        self.hand_over_to(|value| value.into_bytes())
    }

    /// As [`RecvHalf::hand_over`], into memory of the owner's choice.
    pub fn hand_over_to<R>(&mut self, keep: impl FnOnce(Payload<'_>) -> R) -> Option<(u64, R)> {
        let seq = self.handed;
        let payload = self.arrived.next()?;
        self.unsettled.push_back(payload.as_slice().len() as u64);
        let kept = keep(payload);
        if !self.redelivered.is_empty() || self.last_redelivered {
            self.last_redelivered = is_marked(&mut self.redelivered, seq);
        }
        self.handed += 1;
        Some((seq, kept))
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

    /// As [`RecvHalf::stop`] by whoever was [handed](RecvHalf::hand_over) the values, and takes none from number `taken` on.
    pub fn refuse(&mut self, taken: u64, reason: CloseReason) {
        if self.stopped.is_none() && !self.close_sent {
            if !self.is_rewinding() {
                self.settle(taken);
            }
            self.discard();
            self.stopped = Some(reason);
            self.close_due = true;
        }
    }

    fn drained(&mut self) {
        if self.peer_close.as_ref().is_some_and(|(final_seq, ..)| self.window.taken() >= *final_seq) {
            self.close_due |= !self.close_sent;
        }
    }

    /// Demand: handles CALL_BACK: gives every value that was not taken back, whoever waits here (`CHAN-11`). Says whether it
    /// does; one that crossed another rewind, or the end, is old news.
    ///
    /// # Errors
    /// A [`Violation`] when nothing can be called back from this end.
    pub fn handle_call_back(&mut self, generation: u32) -> Result<bool, Violation> {
        if !matches!(self.kind(), WindowKind::Demand { .. }) || generation > self.generation {
            return Err(Violation("call back of what is not lent"));
        }
        let current = generation == self.generation && self.recall.is_none();
        let gives = current && self.stopped.is_none() && self.peer_close.is_none();
        if gives {
            self.rewind();
        }
        Ok(gives)
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
        matches!(self.kind(), WindowKind::Demand { prefetch: 0, .. })
            && self.waiting == 0
            && self.recall.is_none()
            && self.stopped.is_none()
            && self.peer_close.is_none()
            && self.window.wanted().max(self.window.received()) > self.window.taken()
    }

    /// Demand: asks for `units` values, although no receive waits: somebody has looked for them, and looks again.
    /// [`RecvHalf::give_back`] follows where nobody did.
    pub fn ask(&mut self, units: u64) {
        if self.recall.is_none() && self.ready() == 0 {
            self.window.ask(units.min(DEMAND_UNITS_MAX / 2));
        }
    }

    /// What is taken here is told by other means before long, as acknowledgements do.
    pub const fn set_lazy(&mut self) {
        self.window.set_lazy();
    }

    /// No more sends are taken, and the sender is told so; what it had committed still arrives (`CHAN-12`).
    pub fn announce_closing(&mut self, reason: CloseReason) {
        if self.closing.is_none() && self.stopped.is_none() && self.peer_close.is_none() {
            self.closing = Some(reason);
            self.closing_due = true;
        }
    }

    /// Demand: gives every value that was not taken, and all leave to send, back (`CHAN-6`).
    pub fn give_back(&mut self) {
        if self.has_excess() {
            self.rewind();
        }
    }

    fn rewind(&mut self) {
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

    /// The sender is told how things are, whether or not they have moved.
    pub const fn report(&mut self) {
        self.report_due = true;
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
}

/// Whether value `seq` is in one of the ranges; those that lie before it are done with.
#[cold]
fn is_marked(marked: &mut VecDeque<Range<u64>>, seq: u64) -> bool {
    while marked.pop_front_if(|range| range.end <= seq).is_some() {}
    marked.front().is_some_and(|range| range.contains(&seq))
}
