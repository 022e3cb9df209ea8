//! The remote ends of a hosted channel.

use std::collections::VecDeque;
use std::sync::Arc;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::flow::Urgency;
use netchan_proto::hosted::{ReceiverKey, SenderKey, Violation, Withdraw};
use netchan_proto::session::close_code;

use super::{Holder, Hub, HubState, Kick, RemoteReceiver, RemoteSender};
use crate::error::CloseReason;
use crate::session::{RecvChan, SendChan};

impl HubState {
    /// Numbers below `seq` that have not come were used up by offers withdrawn on their way.
    fn skip_to(&mut self, key: SenderKey, seq: u64) -> Result<(), Violation> {
        let Some(sender) = self.senders.get_mut(&key) else { return Ok(()) };
        let from = std::mem::replace(&mut sender.pushed, seq + 1);
        (from..seq).try_for_each(|skipped| self.hosted.skip(key, skipped))
    }
}

impl Hub {
    /// A place for a remote sender; `None` once the channel is closed.
    pub(crate) fn new_sender(&self) -> Option<SenderKey> {
        self.run(|state| {
            if state.closed.is_some() {
                return None;
            }
            let key = SenderKey(state.new_key());
            state.hosted.add_sender(key);
            Some(key)
        })
    }

    /// A place for a remote receiver; `None` once nothing will come any more.
    pub(crate) fn new_receiver(&self) -> Option<ReceiverKey> {
        self.run(|state| {
            if state.finished {
                return None;
            }
            let key = ReceiverKey(state.new_key());
            state.hosted.add_receiver(key);
            Some(key)
        })
    }

    pub(crate) fn attach_sender(&self, key: SenderKey, chan: &Arc<RecvChan>) {
        self.run(|state| {
            let peer = chan.core.peer();
            let sender = RemoteSender { peer, chan: Some(Arc::clone(chan)), pushed: 0 };
            state.senders.insert(key, sender);
        });
    }

    pub(crate) fn attach_receiver(
        &self,
        key: ReceiverKey,
        chan: &Arc<SendChan>,
        holder: Option<Arc<Holder>>,
    ) {
        self.run(|state| {
            let chan_of = Some(Arc::clone(chan));
            let receiver =
                RemoteReceiver { chan: chan_of, limit: 0, taken: 0, pending: VecDeque::new(), holder };
            state.receivers.insert(key, receiver);
            if state.finished {
                // The channel ended while this receiver was on its way in.
                let reason = state.closed.clone().unwrap_or_else(|| CloseReason::new(0, ""));
                chan.state.lock().half.close(reason.into());
            }
        });
    }

    /// A remote sender's values, or its end, have arrived.
    pub(crate) fn values_arrived(&self, key: SenderKey, chan: &Arc<RecvChan>) {
        self.run(|state| {
            loop {
                let next = {
                    let mut state = chan.state.lock();
                    state.half.hand_over().map(|(seq, bytes)| (seq, bytes, state.half.took_redelivered()))
                };
                let Some((seq, bytes, redelivered)) = next else { break };
                let skipped = state.skip_to(key, seq);
                let pushed =
                    skipped.and_then(|()| state.hosted.push_marked(key, seq, bytes, redelivered));
                if let Err(violation) = pushed {
                    tracing::warn!(channel = %self.spec.name, peer = %chan.core.peer(), %violation, "sender stopped");
                    let reason = ProtoReason { code: close_code::VIOLATION, reason: violation.to_string() };
                    chan.state.lock().half.stop(reason);
                    break;
                }
            }
            if chan.state.lock().half.peer_closed().is_some() {
                state.hosted.retire(key);
            }
        });
    }

    /// A remote sender asks for credit up to `limit`.
    pub(crate) fn wanted(&self, key: SenderKey, limit: u64) {
        self.run(|state| state.hosted.want_up_to(key, limit));
    }

    /// A remote sender gave credit back.
    pub(crate) fn yielded(&self, key: SenderKey, limit: u64) {
        self.run(|state| {
            if let Err(violation) = state.hosted.yielded(key, limit) {
                tracing::debug!(channel = %self.spec.name, %violation, "yield ignored");
            }
        });
    }

    /// A remote sender wants an offer back.
    pub(crate) fn withdraw_remote(&self, key: SenderKey, seq: u64) {
        self.run(|state| {
            let outcome = match state.hosted.withdraw(key, seq) {
                Ok(Withdraw::Withdrawn) => Some(true),
                Ok(Withdraw::Taken) | Err(_) => Some(false),
                // The receiver that holds it decides; an effect says so.
                Ok(Withdraw::Dispatched) => None,
            };
            if let (Some(withdrawn), Some(chan)) =
                (outcome, state.senders.get(&key).and_then(|sender| sender.chan.clone()))
            {
                chan.state.lock().half.answer_withdraw(seq, withdrawn);
                return Some(chan);
            }
            None
        })
        .into_iter()
        .for_each(|chan| chan.report(Urgency::Now));
    }

    /// A remote sender's channel or session is over.
    pub(crate) fn remove_remote_sender(&self, key: SenderKey) {
        self.run(|state| {
            state.hosted.remove_sender(key);
            if !state.hosted.knows_sender(key) {
                state.senders.remove(&key);
            } else if let Some(sender) = state.senders.get_mut(&key) {
                // Its values are still here, and whoever takes them may ask who sent them.
                sender.chan = None;
            }
        });
    }

    /// A remote sender's link is gone: what it has not used is lent to others, until it says how much it needs.
    pub(crate) fn suspend_sender(&self, key: SenderKey) {
        self.run(|state| state.hosted.suspend(key));
    }

    /// A remote sender is back, and has committed or set aside what lies below `limit`.
    pub(crate) fn resume_sender(&self, key: SenderKey, limit: u64) {
        self.run(|state| {
            if let Err(violation) = state.hosted.resume(key, limit) {
                let Some(chan) = state.senders.get(&key).and_then(|sender| sender.chan.clone()) else {
                    return;
                };
                tracing::warn!(channel = %self.spec.name, peer = %chan.core.peer(), %violation, "sender stopped");
                let reason = ProtoReason { code: close_code::VIOLATION, reason: violation.to_string() };
                chan.state.lock().half.stop(reason);
                chan.mark_ready();
            }
        });
    }

    /// A remote receiver's link is gone. What it may have keeps waiting for it; what has not left for it, and what it waits
    /// for, goes to others. It asks again when it is back, behind them (`HOST-22`). Unless another link has taken the place of
    /// this one, its time to come back for what it holds begins.
    pub(crate) fn suspend_receiver(self: &Arc<Self>, key: ReceiverKey, replaced: bool) {
        let fence_at = self.millis_from_now(self.spec.deliveries.grace);
        let away = self.run(|state| {
            let Some(receiver) = state.receivers.get_mut(&key) else { return false };
            let holds = receiver.holder.is_some();
            let mut unsent = receiver.pending.len() as u64;
            receiver.pending.clear();
            if let Some(chan) = &receiver.chan {
                unsent += chan.state.lock().half.take_unsent();
            }
            let cancelled = state.hosted.cancel_demand(key, u64::MAX);
            receiver.limit = receiver.limit.saturating_sub(cancelled + unsent);
            let held = state.hosted.in_flight_of(key) as u64;
            if unsent > 0 && state.hosted.give_back(key, held.saturating_sub(unsent)).is_err() {
                tracing::warn!(channel = %self.spec.name, "what was to be sent was not there");
            }
            let away = holds && !replaced;
            if away {
                state.hosted.holder_away(key, fence_at);
            }
            away
        });
        if away {
            self.arm();
        }
    }

    /// A remote receiver's credit, or what it has taken, moved.
    pub(crate) fn receiver_moved(&self, key: ReceiverKey, limit: u64, taken: u64) {
        self.run(|state| {
            let Some(receiver) = state.receivers.get_mut(&key) else { return };
            let newly_taken = taken.saturating_sub(receiver.taken);
            let newly_wanted = limit.saturating_sub(receiver.limit);
            if receiver.holder.is_some() {
                state.hosted.holder_back(key);
            }
            receiver.taken += newly_taken;
            receiver.limit += newly_wanted;
            let waits_for_bytes = !receiver.pending.is_empty();
            let moved =
                state.hosted.taken(key, newly_taken).and_then(|()| state.hosted.demand(key, newly_wanted));
            if let Err(violation) = moved {
                tracing::warn!(channel = %self.spec.name, %violation, "receiver stopped");
                if let Some(RemoteReceiver { chan: Some(chan), .. }) = state.receivers.remove(&key) {
                    let reason = ProtoReason { code: close_code::VIOLATION, reason: violation.to_string() };
                    chan.state.lock().half.reset(reason);
                    chan.kick_later();
                }
                state.hosted.remove_receiver(key);
            } else if waits_for_bytes {
                let mut kicks = Vec::new();
                state.send_pending(key, &mut kicks);
                for kick in kicks {
                    if let Kick::Send(chan) = kick {
                        chan.kick_later();
                    }
                }
            }
        });
    }

    /// A remote receiver gives everything from number `limit` on back.
    pub(crate) fn give_back(&self, key: ReceiverKey, limit: u64) {
        self.run(|state| {
            let receiver = state.receivers.get_mut(&key)?;
            let newly_taken = limit.saturating_sub(receiver.taken);
            receiver.taken = limit;
            receiver.limit = limit;
            receiver.pending.clear();
            let chan = receiver.chan.clone()?;
            state.hosted.cancel_demand(key, u64::MAX);
            let given = state.hosted.taken(key, newly_taken).and_then(|()| state.hosted.give_back(key, 0));
            let rewound = chan.state.lock().half.rewind(limit);
            if given.is_err() || rewound.is_err() {
                tracing::warn!(channel = %self.spec.name, "a receiver gave back what it did not have");
            }
            Some(chan)
        })
        .into_iter()
        .for_each(|chan| chan.kick(true));
    }

    /// A remote receiver's channel or session is over: what it had not taken goes back, in order.
    pub(crate) fn remove_receiver(&self, key: ReceiverKey, taken: u64) {
        self.run(|state| {
            let Some(receiver) = state.receivers.remove(&key) else { return };
            let newly_taken = taken.saturating_sub(receiver.taken);
            _ = state.hosted.taken(key, newly_taken);
            state.hosted.remove_receiver(key);
        });
    }
}
