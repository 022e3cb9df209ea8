//! What sessions report of their ends of a hosted channel.

use std::rc::Rc;

use netchan_proto::channel::PushError;
use netchan_proto::hosted::{ReceiverKey, SenderKey, Violation, Withdraw};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::{Event, Host};

use super::{Hub, Remote};
use crate::audit::Audit;

impl Hub {
    /// Something happened to a session's end of this channel, or of another. Says whether it was this one's.
    pub fn handle(&mut self, session: SessionId, event: &Event, audit: &mut Audit) -> bool {
        let id = match event {
            Event::Readable(id)
            | Event::Writable(id)
            | Event::Finished(id)
            | Event::RecallDeferred(id)
            | Event::Wanted { id, .. }
            | Event::Yielded { id, .. }
            | Event::LeaseTold { id, .. }
            | Event::RewindAsked { id, .. }
            | Event::WithdrawAsked { id, .. } => *id,
            _ => return false,
        };
        if let Some(key) = self.sender_of(session, id) {
            self.handle_sender(key, event, audit);
        } else if let Some(key) = self.receiver_of(session, id) {
            self.handle_receiver(key, event, audit);
        } else {
            return false;
        }
        self.pump(audit);
        true
    }

    fn handle_sender(&mut self, key: SenderKey, event: &Event, audit: &mut Audit) {
        let Some(Remote { end, id, .. }) = self.senders.get(&key).and_then(|sender| sender.remote.clone())
        else {
            return;
        };
        match event {
            Event::Readable(_) => {
                while let Some(Some((seq, bytes, again))) = end.with_recv(id, |half| {
                    half.hand_over().map(|(seq, bytes)| (seq, bytes, half.took_redelivered()))
                }) {
                    let from = match self.senders.get_mut(&key) {
                        Some(sender) => std::mem::replace(&mut sender.pushed, seq + 1),
                        None => seq,
                    };
                    let skipped = (from..seq).try_for_each(|skipped| self.hosted.skip(key, skipped));
                    let pushed = skipped.and_then(|()| self.hosted.push_marked(key, seq, bytes, again));
                    if let Err(violation) = pushed {
                        audit.wrong(format!("channel {}: {violation}", self.chan));
                    }
                }
                if end.with_recv(id, |half| half.peer_closed().is_some()) == Some(true) {
                    self.hosted.retire(key);
                }
            }
            Event::Wanted { limit, .. } => self.hosted.want_up_to(key, *limit),
            Event::Yielded { limit, .. } => {
                // A close that came behind it may have been seen first; that gave everything back.
                match self.hosted.yielded(key, *limit) {
                    Ok(()) | Err(Violation::UnaskedYield) => {}
                    Err(violation) => audit.wrong(format!("channel {}: {violation}", self.chan)),
                }
            }
            Event::LeaseTold { limit, .. } => {
                if let Some(sender) = self.senders.get_mut(&key) {
                    sender.suspended = false;
                }
                if let Err(violation) = self.hosted.resume(key, *limit) {
                    audit.wrong(format!("channel {}: {violation}", self.chan));
                }
            }
            Event::WithdrawAsked { seq, .. } => {
                let outcome = match self.hosted.withdraw(key, *seq) {
                    Ok(Withdraw::Withdrawn) => Some(true),
                    Ok(Withdraw::Taken) | Err(_) => Some(false),
                    Ok(Withdraw::Dispatched) => None,
                };
                if let Some(withdrawn) = outcome {
                    _ = end.with_recv(id, |half| half.answer_withdraw(*seq, withdrawn));
                    end.set_ready(id);
                }
            }
            Event::Finished(_) => self.remove_sender(key),
            _ => {}
        }
    }

    pub(super) fn remove_sender(&mut self, key: SenderKey) {
        self.hosted.remove_sender(key);
        if !self.hosted.knows_sender(key) {
            self.senders.remove(&key);
        } else if let Some(sender) = self.senders.get_mut(&key) {
            sender.remote = None;
        }
    }

    fn handle_receiver(&mut self, key: ReceiverKey, event: &Event, audit: &mut Audit) {
        let Some(receiver) = self.receivers.get_mut(&key) else { return };
        let (end, id) = (Rc::clone(&receiver.remote.end), receiver.remote.id);
        match event {
            Event::Writable(_) => {
                let seen = end
                    .with_send(id, |half| (half.limit(), half.taken(), half.peer_closed().is_some()))
                    .unwrap_or((0, 0, true));
                let (limit, taken, closed) = seen;
                let newly_taken = taken.saturating_sub(receiver.taken);
                let newly_wanted = limit.saturating_sub(receiver.limit);
                receiver.taken += newly_taken;
                receiver.limit += newly_wanted;
                let moved = self
                    .hosted
                    .taken(key, newly_taken)
                    .and_then(|()| if closed { Ok(()) } else { self.hosted.demand(key, newly_wanted) });
                if let Err(violation) = moved {
                    audit.wrong(format!("channel {}: {violation}", self.chan));
                }
                if closed {
                    self.receivers.remove(&key);
                    self.hosted.remove_receiver(key);
                } else {
                    self.send_pending(key);
                }
            }
            Event::RewindAsked { limit, .. } => {
                let newly_taken = limit.saturating_sub(receiver.taken);
                (receiver.taken, receiver.limit) = (*limit, *limit);
                receiver.pending.clear();
                self.hosted.cancel_demand(key, u64::MAX);
                let given = self.hosted.taken(key, newly_taken).and_then(|()| self.hosted.give_back(key, 0));
                let rewound = end.with_send(id, |half| half.rewind(*limit));
                if given.is_err() || rewound.is_some_and(|rewound| rewound.is_err()) {
                    audit.wrong(format!("channel {}: a receiver gave back what it did not have", self.chan));
                }
                end.set_ready(id);
            }
            Event::Finished(_) => {
                let taken = end.ended_senders.borrow().get(&id).map_or(0, |half| half.taken());
                let newly_taken = taken.saturating_sub(receiver.taken);
                self.receivers.remove(&key);
                _ = self.hosted.taken(key, newly_taken);
                self.hosted.remove_receiver(key);
            }
            _ => {}
        }
    }

    pub(super) fn send_pending(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.receivers.get_mut(&key) else { return };
        let (end, id) = (Rc::clone(&receiver.remote.end), receiver.remote.id);
        while let Some((bytes, again)) = receiver.pending.front().cloned() {
            let pushed = end.with_send(id, |half| {
                if again {
                    half.push_redelivered(|item| item.share(bytes))
                } else {
                    half.push(|item| item.share(bytes))
                }
            });
            match pushed {
                Some(Ok(_)) => _ = receiver.pending.pop_front(),
                Some(Err(PushError::Full | PushError::Closed)) | None => break,
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
        end.set_ready(id);
    }

    fn sender_of(&self, session: SessionId, id: ChannelId) -> Option<SenderKey> {
        let is = |remote: &Remote| remote.session == session && remote.id == id;
        self.senders.iter().find(|(_, sender)| sender.remote.as_ref().is_some_and(is)).map(|(key, _)| *key)
    }

    fn receiver_of(&self, session: SessionId, id: ChannelId) -> Option<ReceiverKey> {
        let is = |remote: &Remote| remote.session == session && remote.id == id;
        self.receivers.iter().find(|(_, receiver)| is(&receiver.remote)).map(|(key, _)| *key)
    }
}
