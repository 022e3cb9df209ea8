//! What the peer says to a receiving end.

use bytes::Bytes;

use super::{Arrival, RecvHalf};
use crate::channel::CloseReason;
use crate::channel::arrived::{Buffer, WASTE_MAX};
use crate::flow::{Violation, WindowKind};
use crate::planted::{self, Mutant};
use crate::wire::{Body, Close, DataHeader, Yield, count_items, split_item};

/// Memory set aside for a message on the word of its first fragment; longer ones grow as they arrive.
const ALLOCATE_AHEAD_BYTES: usize = 8 * 1_024 * 1_024;

impl RecvHalf {
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
        self.awaits_close = false;
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
}
