//! The server's own programs on a hosted channel: tasks that send and receive, and wait in turn.

use std::task::{Context, Poll};

use netchan_proto::channel::Payload;
use netchan_proto::exchange::{Acquired, Offered, Ticket};
use netchan_proto::hosted::SenderKey;
use rand::Rng;
use rand::rngs::StdRng;

use super::ports::Task;
use super::{Hub, LOCAL};
use crate::audit::Audit;
use crate::value::Value;

/// A task that sends so many values.
struct Sender {
    who: u32,
    total: u64,
    next: u64,
    task: Task,
    ticket: Option<Ticket>,
    /// With capacity 0: what is on offer, and whether it was asked back.
    offer: Option<(SenderKey, bool)>,
}

/// A task that receives until the end.
#[derive(Default)]
struct Receiver {
    task: Task,
    ticket: Option<Ticket>,
    done: bool,
}

/// All of them.
pub(super) struct Local {
    senders: Vec<Sender>,
    receivers: [Receiver; 2],
    /// Who receives, for the auditor.
    pub(super) receiver: u32,
    receives: bool,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.senders.iter().map(|sender| (sender.next, sender.total, sender.ticket));
        f.debug_list().entries(left).entries(self.receivers.iter().map(|receiver| receiver.ticket)).finish()
    }
}

impl Local {
    pub(super) fn new(chan: u32, total: u64, receives: bool) -> Self {
        let sender = |at: u32, total| Sender {
            who: LOCAL + chan * 10 + at,
            total,
            next: 0,
            task: Task::default(),
            ticket: None,
            offer: None,
        };
        Self {
            senders: vec![sender(0, total - total / 2), sender(1, total / 2)],
            receivers: Default::default(),
            receiver: LOCAL + chan,
            receives,
        }
    }

    pub(super) fn senders(&self) -> impl Iterator<Item = u32> + '_ {
        self.senders.iter().map(|sender| sender.who)
    }

    pub(super) fn has_sent(&self) -> bool {
        self.senders.iter().all(|sender| sender.next == sender.total && sender.offer.is_none())
    }

    /// The channel takes nothing more.
    pub(super) fn stop(&mut self) {
        self.senders.iter_mut().for_each(|sender| sender.total = sender.next);
    }
}

impl Hub {
    pub(super) fn step_local(&mut self, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let mut moved = false;
        if self.closed {
            self.local.stop();
        }
        for at in 0..self.local.senders.len() {
            while (calm || rng.random_bool(0.4))
                && if self.capacity == 0 {
                    self.offer(at, audit, rng, calm)
                } else {
                    self.send(at, audit, rng, calm)
                }
            {
                moved = true;
            }
        }
        for at in 0..self.local.receivers.len() {
            while (calm || self.local.receives && rng.random_bool(0.5)) && self.receive(at, audit, rng, calm)
            {
                moved = true;
            }
        }
        moved
    }

    /// One send, if there is credit. Says whether there was.
    fn send(&mut self, at: usize, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let Self { local, driver, .. } = self;
        let waiting: Vec<Ticket> = local.senders.iter().filter_map(|sender| sender.ticket).collect();
        let sender = &mut local.senders[at];
        if sender.next == sender.total {
            return false;
        }
        if !sender.task.is_woken() {
            if !calm && rng.random_ratio(1, 12) {
                driver.run(|queue, out| queue.leave_senders(&mut sender.ticket, out));
                sender.task.wake();
            }
            return false;
        }
        sender.task.sleep();
        let bytes = Value { chan: self.chan, sender: sender.who, number: sender.next }
            .bytes(rng.random_range(16..200));
        let before = waiting.iter().filter(|ticket| sender.ticket.is_none_or(|own| **ticket < own)).count();
        let available = driver.queue.available();
        let quick = sender.ticket.is_none().then(|| driver.queue.commit_behind(&Payload::Slice(&bytes)));
        let polled = match quick.flatten() {
            Some(seq) => Poll::Ready(Acquired::Committed(seq)),
            None => driver.run(|queue, out| {
                let cx = Context::from_waker(&sender.task.waker);
                queue.poll_acquire(Some(&cx), &mut sender.ticket, Some(Payload::Slice(&bytes)), out)
            }),
        };
        match polled {
            Poll::Ready(Acquired::Committed(_)) => {
                if available <= before as u64 {
                    audit.wrong(format!("channel {}: a send went past one that waits", self.chan));
                }
                audit.asked(self.chan, sender.who, sender.next);
                audit.completed(self.chan, sender.who, sender.next);
                sender.next += 1;
                sender.task.wake();
                self.observe(audit);
                true
            }
            Poll::Ready(_) => {
                audit.wrong("a channel that was open took no value");
                false
            }
            Poll::Pending => {
                self.observe(audit);
                false
            }
        }
    }

    /// One offer, or what becomes of it. Says whether anything happened.
    fn offer(&mut self, at: usize, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let Self { local, driver, chan, .. } = self;
        let sender = &mut local.senders[at];
        let Some((key, asked)) = sender.offer else {
            if sender.next == sender.total {
                return false;
            }
            let bytes = Value { chan: *chan, sender: sender.who, number: sender.next }.bytes(40);
            audit.asked(*chan, sender.who, sender.next);
            match driver.run(|queue, out| queue.offer(Payload::Owned(bytes.into()), out)) {
                Ok(key) => sender.offer = Some((key, false)),
                Err(_) => audit.wrong("a channel that was open took no offer"),
            }
            sender.next += 1;
            sender.task.wake();
            self.observe(audit);
            return true;
        };
        let mut outcome = None;
        if sender.task.is_woken() {
            sender.task.sleep();
            let cx = Context::from_waker(&sender.task.waker);
            if let Poll::Ready(taken) = driver.run(|queue, out| queue.poll_offer(&cx, key, out)) {
                outcome = Some(taken);
            }
        }
        if outcome.is_none() && !asked && !calm && rng.random_ratio(1, 6) {
            match driver.run(|queue, out| queue.withdraw_offer(key, out)) {
                Offered::Taken => outcome = Some(true),
                Offered::Withdrawn => outcome = Some(false),
                Offered::Unknown => sender.offer = Some((key, true)),
            }
        }
        let (who, number) = (sender.who, sender.next.saturating_sub(1));
        if let Some(taken) = outcome {
            sender.offer = None;
            sender.task.wake();
            if taken {
                audit.completed(*chan, who, number);
            } else {
                audit.withdrawn(*chan, who, number);
            }
        }
        self.observe(audit);
        outcome.is_some()
    }

    /// One receive. Says whether something came.
    fn receive(&mut self, at: usize, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let Self { local, driver, chan, .. } = self;
        let who = local.receiver;
        let before = local.receivers.iter().filter(|receiver| receiver.ticket.is_some()).count();
        let receiver = &mut local.receivers[at];
        if receiver.done {
            return false;
        }
        if !receiver.task.is_woken() {
            if !calm && rng.random_ratio(1, 8) {
                driver.run(|queue, out| queue.leave_receivers(&mut receiver.ticket, out));
                receiver.task.wake();
                self.observe(audit);
            }
            return false;
        }
        receiver.task.sleep();
        let newcomer = receiver.ticket.is_none();
        let ready = driver.queue.ready();
        let polled = match newcomer.then(|| driver.queue.take_front()).flatten() {
            Some(taken) => Poll::Ready(Some(taken)),
            None => driver.run(|queue, out| {
                let cx = Context::from_waker(&receiver.task.waker);
                queue.poll_recv(Some(&cx), &mut receiver.ticket, out)
            }),
        };
        let taken = match polled {
            Poll::Pending => None,
            Poll::Ready(None) => {
                receiver.done = true;
                if local.receivers.iter().all(|receiver| receiver.done) {
                    audit.ended(*chan, who, false);
                }
                None
            }
            Poll::Ready(Some(taken)) => {
                receiver.task.wake();
                if newcomer && ready <= before {
                    audit.wrong(format!("channel {chan}: a receive went past one that waits"));
                }
                Some(taken)
            }
        };
        self.observe(audit);
        if let Some(taken) = &taken {
            audit.received(self.chan, who, &taken.bytes, taken.redelivered);
        }
        taken.is_some()
    }
}
