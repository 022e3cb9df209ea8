//! Programs that send and receive, one for each end of a channel. They tell the auditor what they ask for and what they see.

use netchan_proto::channel::{CloseReason, RecvHalf, SendHalf, Withdrawal};
use netchan_proto::flow::WindowKind;
use netchan_proto::id::ChannelId;
use netchan_proto::wire::Mode;
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::end::End;
use crate::value::Value;

/// A program that sends so many values, and closes.
#[derive(Debug)]
pub struct SendProgram {
    /// The channel, as the auditor knows it.
    pub chan: u32,
    /// Who it is, for the auditor.
    pub sender: u32,
    /// The channel in the session.
    pub id: ChannelId,
    total: u64,
    next: u64,
    long: bool,
    /// With capacity 0: what is on offer, its number here, and whether it was asked back.
    out: Option<(u64, u64, bool)>,
    reserved: u64,
    patient: bool,
    /// It stays, with what credit it holds, until everyone else has sent: others must get that credit all the same.
    pub lingers: bool,
    /// There is nothing more to do.
    pub done: bool,
}

/// How long a value is.
fn length(long: bool, rng: &mut StdRng) -> usize {
    if long && rng.random_ratio(1, 6) { rng.random_range(10_000..100_000) } else { rng.random_range(16..120) }
}

impl SendProgram {
    /// A program for a channel that has been asked for.
    #[must_use]
    pub fn new(chan: u32, sender: u32, id: ChannelId, total: u64, long: bool, patient: bool) -> Self {
        Self {
            chan,
            sender,
            id,
            total,
            next: 0,
            long,
            out: None,
            reserved: 0,
            patient,
            lingers: false,
            done: false,
        }
    }

    /// Does what can be done now. Says whether anything was.
    pub fn step(&mut self, end: &End, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        if self.done {
            return false;
        }
        let mut senders = end.senders.borrow_mut();
        if let Some(half) = senders.get_mut(&self.id) {
            if half.peer_closed().is_some() {
                self.settle_up(half, audit, true);
                return true;
            }
            if half.closed().is_some() && half.closing().is_none() {
                // No more sends are taken: what is reserved is void, and the end follows.
                self.total = self.next;
                (0..std::mem::take(&mut self.reserved)).for_each(|_| half.release());
                if self.out.is_none() {
                    return false;
                }
            }
            return if half.mode() == Mode::Rendezvous {
                self.offer(half, audit, rng, calm)
            } else {
                self.push(half, audit, rng, calm)
            };
        }
        drop(senders);
        if let Some(half) = end.ended_senders.borrow_mut().get_mut(&self.id) {
            self.settle_up(half, audit, true);
            return true;
        }
        false
    }

    fn push(&mut self, half: &mut SendHalf, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let mut moved = false;
        if self.reserved > 0 && (calm || rng.random_ratio(1, 3)) {
            self.reserved -= 1;
            if self.next < self.total && rng.random_bool(0.7) {
                let bytes = self.value(rng);
                half.push_reserved(|item| item.extend(&bytes)).expect("the unit was set aside");
                self.commit(audit);
            } else {
                half.release();
            }
            moved = true;
        }
        // A unit does not wait for bytes: several long values would be retained beyond the window.
        if !calm && !self.long && self.next < self.total && rng.random_ratio(1, 8) && half.reserve() {
            self.reserved += 1;
        }
        while self.next < self.total && half.available() > 0 && (calm || rng.random_bool(0.8)) {
            let bytes = self.value(rng);
            half.push(|item| item.extend(&bytes)).expect("there was credit");
            self.commit(audit);
            moved = true;
        }
        let blocked = self.next < self.total && half.available() == 0;
        // One that stays asks now and then for what it then does not need, as a send does that is dropped.
        let idly = self.lingers && self.next == self.total && rng.random_ratio(1, 3);
        half.want(if blocked || idly { rng.random_range(1..3) } else { 0 });
        if rng.random_ratio(1, 10) {
            half.request_report();
        }
        if self.next == self.total
            && self.reserved == 0
            && half.closed().is_none()
            && !self.lingers
            && (calm || rng.random_bool(0.2))
        {
            half.close(CloseReason::plain());
            audit.ending = true;
            moved = true;
        }
        moved
    }

    fn value(&self, rng: &mut StdRng) -> Vec<u8> {
        Value { chan: self.chan, sender: self.sender, number: self.next }.bytes(length(self.long, rng))
    }

    fn commit(&mut self, audit: &mut Audit) {
        audit.asked(self.chan, self.sender, self.next);
        audit.completed(self.chan, self.sender, self.next);
        self.next += 1;
    }

    fn offer(&mut self, half: &mut SendHalf, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        match self.out {
            None if self.next < self.total && half.available() > 0 && (calm || rng.random_bool(0.5)) => {
                let bytes = self.value(rng);
                let pushed = half.push(|item| item.extend(&bytes)).expect("nothing is on offer");
                audit.asked(self.chan, self.sender, self.next);
                self.out = Some((pushed.seq, self.next, false));
                self.next += 1;
            }
            None if self.next == self.total && half.closed().is_none() => {
                half.close(CloseReason::plain());
                audit.ending = true;
            }
            Some((seq, number, false)) if half.taken() > seq => self.resolve(number, false, audit),
            Some((seq, number, asked)) if asked || (!self.patient && !calm && rng.random_ratio(1, 6)) => {
                match half.withdraw(seq) {
                    Withdrawal::Withdrawn => self.resolve(number, true, audit),
                    Withdrawal::Taken => self.resolve(number, false, audit),
                    Withdrawal::Asked if !asked => self.out = Some((seq, number, true)),
                    Withdrawal::Asked => return false,
                }
            }
            _ => return false,
        }
        true
    }

    fn resolve(&mut self, number: u64, withdrawn: bool, audit: &mut Audit) {
        self.out = None;
        if withdrawn {
            audit.withdrawn(self.chan, self.sender, number);
        } else {
            audit.completed(self.chan, self.sender, number);
        }
    }

    /// The channel has ended, or its session: what is not known taken comes back.
    pub fn settle_up(&mut self, half: &mut SendHalf, audit: &mut Audit, closed: bool) {
        if self.done {
            return;
        }
        self.done = true;
        (0..std::mem::take(&mut self.reserved)).for_each(|_| half.release());
        if let Some((seq, number, _)) = self.out.take() {
            // The number of an offer that was withdrawn is used up.
            let known = closed || half.taken() > seq;
            if known && half.withdraw(seq) == Withdrawal::Withdrawn {
                audit.withdrawn(self.chan, self.sender, number);
            } else if half.taken() > seq {
                audit.completed(self.chan, self.sender, number);
            } else {
                let mut in_doubt = false;
                half.for_each_unsettled(|value| in_doubt |= value.seq == seq && value.in_doubt);
                audit.unsettled(self.chan, self.sender, number, in_doubt);
            }
            return;
        }
        let (chan, sender, buffered) = (self.chan, self.sender, half.mode() != Mode::Rendezvous);
        half.for_each_unsettled(|value| {
            if buffered && let Some(found) = Value::parse(value.payload.as_slice()) {
                audit.unsettled(chan, sender, found.number, value.in_doubt);
            }
        });
    }
}

/// A program that receives until the end, or for so long as it likes.
#[derive(Debug)]
pub struct RecvProgram {
    /// The channel, as the auditor knows it.
    pub chan: u32,
    /// Who it is, for the auditor.
    pub receiver: u32,
    /// The channel in the session.
    pub id: ChannelId,
    /// It stops after so many values.
    stop_after: Option<u64>,
    taken: u64,
    stopped: bool,
    /// Nothing more will come.
    pub done: bool,
}

impl RecvProgram {
    /// A program for a channel that has been asked for.
    #[must_use]
    pub const fn new(chan: u32, receiver: u32, id: ChannelId, stop_after: Option<u64>) -> Self {
        Self { chan, receiver, id, stop_after, taken: 0, stopped: false, done: false }
    }

    /// Does what can be done now. Says whether anything was.
    pub fn step(&mut self, end: &End, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        if self.done {
            return false;
        }
        let mut receivers = end.receivers.borrow_mut();
        if let Some(half) = receivers.get_mut(&self.id) {
            return self.step_half(half, audit, rng, calm);
        }
        drop(receivers);
        if let Some(half) = end.ended_receivers.borrow_mut().get_mut(&self.id) {
            while self.take(half, audit) {}
            self.end(half, audit);
            return true;
        }
        false
    }

    fn step_half(&mut self, half: &mut RecvHalf, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        if half.ended().is_some() {
            self.end(half, audit);
            return true;
        }
        if self.stop_after.is_some_and(|most| self.taken >= most) {
            half.stop(CloseReason { code: 300, reason: "enough".to_owned() });
            self.stopped = true;
            audit.ending = true;
            return true;
        }
        if matches!(half.kind(), WindowKind::Demand { .. }) {
            return self.step_demand(half, audit, rng, calm);
        }
        let mut moved = false;
        while (calm || rng.random_bool(0.5)) && self.take(half, audit) {
            moved = true;
        }
        moved
    }

    /// Receives that wait, and now and then stop waiting.
    fn step_demand(&mut self, half: &mut RecvHalf, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        if half.ready() > 0 && (calm || rng.random_bool(0.6)) {
            half.set_waiting(0);
            return self.take(half, audit);
        }
        if calm || rng.random_bool(0.5) {
            half.set_waiting(1);
        } else if rng.random_ratio(1, 5) {
            half.set_waiting(rng.random_range(0..4));
        }
        if !calm && rng.random_ratio(1, 8) {
            half.set_waiting(0);
            if half.has_excess() {
                half.give_back();
                return true;
            }
        }
        false
    }

    fn take(&mut self, half: &mut RecvHalf, audit: &mut Audit) -> bool {
        let Some(bytes) = half.take().map(|payload| payload.as_slice().to_vec()) else { return false };
        self.taken += 1;
        audit.received(self.chan, self.receiver, &bytes, half.took_redelivered());
        true
    }

    fn end(&mut self, half: &RecvHalf, audit: &mut Audit) {
        if !self.done {
            self.done = true;
            let orderly = !self.stopped && half.ended().is_some_and(|reason| reason.code == 0);
            audit.ended(self.chan, self.receiver, orderly);
        }
    }

    /// Its session is lost. What had arrived is received first, unless it went back to the hosted channel it came from.
    pub fn lose(&mut self, half: Option<&mut RecvHalf>, audit: &mut Audit) {
        if self.done {
            return;
        }
        if let Some(half) = half {
            half.forsake();
            while self.take(half, audit) {}
        }
        self.done = true;
    }
}
