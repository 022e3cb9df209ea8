//! The server's own programs on a hosted channel, and what follows from the policy's decisions.

use bytes::Bytes;
use netchan_proto::channel::CloseReason;
use netchan_proto::hosted::{Effect, SenderKey};
use netchan_proto::session::Host;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Hub, LOCAL_RECEIVER, LOCAL_SENDER, LocalSender, Remote};
use crate::audit::Audit;
use crate::value::Value;

impl Hub {
    /// The server's own programs do what they can. Says whether anything was done.
    pub fn step(&mut self, audit: &mut Audit, rng: &mut StdRng, calm: bool, close: bool) -> bool {
        let mut moved = self.send_local(audit, rng, calm);
        let receives = self.receives || (calm && close);
        while receives
            && (calm || rng.random_bool(0.5))
            && let Some(item) = self.values.pop_front()
        {
            moved = true;
            self.hosted.taken(LOCAL_RECEIVER, 1).expect("it was delivered here");
            audit.received(self.chan, self.local_receiver, &item.bytes, item.redelivered);
            self.pump(audit);
        }
        if receives && !self.finished && self.demanded == 0 && self.values.is_empty() {
            self.demanded = 1;
            self.hosted.demand(LOCAL_RECEIVER, 1).expect("one waits");
            self.pump(audit);
        }
        if close && !self.closed && !self.has_senders() {
            self.closed = true;
            self.hosted.close();
            audit.ending = true;
            moved = true;
            self.pump(audit);
        }
        if self.finished && self.values.is_empty() && !self.told_end && receives {
            self.told_end = true;
            audit.ended(self.chan, self.local_receiver, false);
        }
        moved
    }

    fn send_local(&mut self, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let mut moved = false;
        while self.local.next < self.local.total && !self.closed && (calm || rng.random_bool(0.4)) {
            let LocalSender { sender, next, limit, settled, .. } = self.local;
            if self.capacity == 0 {
                if settled < next {
                    break;
                }
            } else if next >= limit {
                if !self.hosted.try_lease(LOCAL_SENDER) {
                    self.hosted.want_besides(LOCAL_SENDER, 1);
                    self.pump(audit);
                    break;
                }
                self.local.limit = self.hosted.limit(LOCAL_SENDER).unwrap_or(0);
            }
            let bytes = Value { chan: self.chan, sender, number: next }.bytes(rng.random_range(16..200));
            audit.asked(self.chan, sender, next);
            if self.capacity > 0 {
                audit.completed(self.chan, sender, next);
            }
            self.local.next += 1;
            self.hosted.push(LOCAL_SENDER, next, Bytes::from(bytes)).expect("there was credit");
            self.pump(audit);
            moved = true;
        }
        moved
    }

    fn with_sender(&self, key: SenderKey, f: impl FnOnce(&mut netchan_proto::channel::RecvHalf)) {
        if let Some(Remote { end, id, .. }) = self.senders.get(&key).and_then(|sender| sender.remote.as_ref())
        {
            _ = end.with_recv(*id, f);
            end.set_ready(*id);
        }
    }

    /// Does what the policy decided.
    pub(super) fn pump(&mut self, audit: &mut Audit) {
        while let Some(effect) = self.hosted.poll_effect() {
            match effect {
                Effect::Deliver { to: LOCAL_RECEIVER, item } => {
                    self.demanded = self.demanded.saturating_sub(1);
                    self.values.push_back(item);
                }
                Effect::Deliver { to, item } => {
                    if let Some(receiver) = self.receivers.get_mut(&to) {
                        receiver.pending.push_back((item.bytes, item.redelivered));
                        self.send_pending(to);
                    }
                }
                Effect::Grant { to: LOCAL_SENDER, limit } => self.local.limit = limit,
                Effect::Grant { to, limit } => self.with_sender(to, |half| half.lease(limit)),
                Effect::Recall { from: LOCAL_SENDER } => {
                    self.local.limit = self.local.next;
                    _ = self.hosted.yielded(LOCAL_SENDER, self.local.next);
                }
                Effect::Recall { from } => self.with_sender(from, |half| half.recall_lease()),
                Effect::Settled { sender: LOCAL_SENDER, prefix, .. } => {
                    if self.capacity == 0 && prefix > self.local.settled {
                        audit.completed(self.chan, self.local.sender, prefix - 1);
                    }
                    self.local.settled = prefix;
                }
                Effect::Settled { sender, prefix, .. } => {
                    self.with_sender(sender, |half| half.settle(prefix))
                }
                Effect::Forgotten { sender } => _ = self.senders.remove(&sender),
                Effect::Withdrawn { to: LOCAL_SENDER, seq, .. } => {
                    audit.withdrawn(self.chan, self.local.sender, seq);
                    self.local.settled = seq + 1;
                }
                Effect::Withdrawn { to, seq, withdrawn } => {
                    self.with_sender(to, |half| half.answer_withdraw(seq, withdrawn));
                }
                // No holder is simulated here.
                Effect::Fenced { .. } | Effect::Dead { .. } => {}
                Effect::Finished => {
                    self.finished = true;
                    for receiver in self.receivers.values() {
                        let Remote { end, id, .. } = &receiver.remote;
                        _ = end.with_send(*id, |half| half.close(CloseReason::plain()));
                        end.set_ready(*id);
                    }
                }
            }
        }
        if self.closed {
            self.stop_senders();
        }
    }

    /// After the close: a sender that has no credit left is told.
    fn stop_senders(&self) {
        for (key, sender) in &self.senders {
            let Some(Remote { end, id, .. }) = &sender.remote else { continue };
            let no_credit =
                self.finished || self.hosted.limit(*key).is_none_or(|limit| sender.pushed >= limit);
            let stopped = end.with_recv(*id, |half| {
                let stops = no_credit && half.ended().is_none() && half.peer_closed().is_none();
                if stops {
                    half.stop(CloseReason::plain());
                }
                stops
            });
            if stopped == Some(true) {
                end.set_ready(*id);
            }
        }
    }
}
