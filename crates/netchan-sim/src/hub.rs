//! A hosted channel as a server keeps it: the policy, and the ends of sessions that it serves.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use netchan_proto::channel::{CloseReason, PushError};
use netchan_proto::hosted::{Effect, Hosted, Item, ReceiverKey, SenderKey, Violation, Withdraw};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::{Event, Host};
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::end::End;
use crate::value::Value;

const LOCAL_SENDER: SenderKey = SenderKey(0);
const LOCAL_RECEIVER: ReceiverKey = ReceiverKey(0);

/// A session's end of a channel.
#[derive(Clone)]
struct Remote {
    session: SessionId,
    end: Rc<End>,
    id: ChannelId,
}

struct RemoteSender {
    /// Gone while its values are still here.
    remote: Option<Remote>,
    /// Who it is, for the auditor.
    who: u32,
    /// What it had not used has been lent to others.
    suspended: bool,
    pushed: u64,
}

struct RemoteReceiver {
    remote: Remote,
    /// Who it is, for the auditor.
    who: u32,
    /// What the policy has been told of.
    limit: u64,
    taken: u64,
    pending: VecDeque<(Bytes, bool)>,
}

/// What the server's own program sends into the channel.
struct LocalSender {
    sender: u32,
    total: u64,
    next: u64,
    limit: u64,
    settled: u64,
}

/// A hosted channel.
pub struct Hub {
    /// As the auditor knows it.
    pub chan: u32,
    /// Its name.
    pub name: String,
    /// Its capacity.
    pub capacity: u64,
    hosted: Hosted,
    next_key: u64,
    senders: BTreeMap<SenderKey, RemoteSender>,
    receivers: BTreeMap<ReceiverKey, RemoteReceiver>,
    local: LocalSender,
    local_receiver: u32,
    values: VecDeque<Item>,
    demanded: u64,
    closed: bool,
    finished: bool,
    /// The server's own program receives.
    pub receives: bool,
    told_end: bool,
}

/// Who the server's own programs are, for the auditor.
pub const LOCAL: u32 = 1_000_000;

impl Hub {
    /// A channel into which the server itself sends `total` values.
    #[must_use]
    pub fn new(chan: u32, capacity: u64, total: u64, receives: bool) -> Self {
        let mut hosted = Hosted::new(capacity);
        hosted.add_sender(LOCAL_SENDER);
        hosted.add_receiver(LOCAL_RECEIVER);
        Self {
            chan,
            name: format!("h:{chan}"),
            capacity,
            hosted,
            next_key: 1,
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            local: LocalSender { sender: LOCAL + chan, total, next: 0, limit: 0, settled: 0 },
            local_receiver: LOCAL + chan,
            values: VecDeque::new(),
            demanded: 0,
            closed: false,
            finished: false,
            receives,
            told_end: false,
        }
    }

    /// The capacity law, over the senders that the channel serves now: what others had committed under leases that were
    /// lent again comes on top, and is counted as overdraft once they are back.
    pub fn check_capacity(&self, audit: &mut Audit) {
        let active = self.senders.values().filter(|sender| sender.remote.is_some() && !sender.suspended);
        let active: Vec<_> = active.map(|sender| sender.who).chain([self.local.sender]).collect();
        audit.capacity_law(self.chan, self.hosted.overdraft(), &active);
    }

    /// How it stands.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.chan, self.hosted)
    }

    /// Whether the channel has come to its end.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether anybody may still send.
    #[must_use]
    pub fn has_senders(&self) -> bool {
        self.senders.values().any(|sender| sender.remote.is_some()) || self.local.next < self.local.total
    }

    /// Whether the server's own program has sent what it had.
    #[must_use]
    pub const fn has_sent(&self) -> bool {
        self.local.next >= self.local.total
    }

    /// Whether it takes no more openers.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Who sends from this process.
    #[must_use]
    pub const fn local_sender(&self) -> u32 {
        self.local.sender
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// A session sends into the channel from here on.
    pub fn add_sender(
        &mut self,
        session: SessionId,
        end: &Rc<End>,
        id: ChannelId,
        who: u32,
        audit: &mut Audit,
    ) {
        let key = SenderKey(self.key());
        self.hosted.add_sender(key);
        let remote = Some(Remote { session, end: Rc::clone(end), id });
        self.senders.insert(key, RemoteSender { remote, who, suspended: false, pushed: 0 });
        self.pump(audit);
    }

    /// A session receives from the channel from here on.
    pub fn add_receiver(
        &mut self,
        session: SessionId,
        end: &Rc<End>,
        id: ChannelId,
        who: u32,
        audit: &mut Audit,
    ) {
        let key = ReceiverKey(self.key());
        self.hosted.add_receiver(key);
        let remote = Remote { session, end: Rc::clone(end), id };
        self.receivers
            .insert(key, RemoteReceiver { remote, who, limit: 0, taken: 0, pending: VecDeque::new() });
        if self.finished {
            _ = end.with_send(id, |half| half.close(CloseReason::plain()));
            end.set_ready(id);
        }
        self.pump(audit);
    }

    fn sender_of(&self, session: SessionId, id: ChannelId) -> Option<SenderKey> {
        let is = |remote: &Remote| remote.session == session && remote.id == id;
        self.senders.iter().find(|(_, sender)| sender.remote.as_ref().is_some_and(is)).map(|(key, _)| *key)
    }

    fn receiver_of(&self, session: SessionId, id: ChannelId) -> Option<ReceiverKey> {
        let is = |remote: &Remote| remote.session == session && remote.id == id;
        self.receivers.iter().find(|(_, receiver)| is(&receiver.remote)).map(|(key, _)| *key)
    }

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

    fn remove_sender(&mut self, key: SenderKey) {
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

    fn send_pending(&mut self, key: ReceiverKey) {
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

    /// A session's link is gone.
    pub fn suspend(&mut self, session: SessionId, audit: &mut Audit) {
        for (key, sender) in &mut self.senders {
            if sender.remote.as_ref().is_some_and(|remote| remote.session == session) {
                sender.suspended = true;
                self.hosted.suspend(*key);
            }
        }
        for (key, receiver) in &mut self.receivers {
            if receiver.remote.session == session {
                let unsent = receiver.pending.len() as u64;
                receiver.pending.clear();
                receiver.limit -= self.hosted.cancel_demand(*key, u64::MAX) + unsent;
                let held = self.hosted.in_flight_of(*key) as u64;
                if unsent > 0 && self.hosted.give_back(*key, held - unsent).is_err() {
                    audit.wrong("what was to be sent was not there");
                }
            }
        }
        self.pump(audit);
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId, audit: &mut Audit) {
        let of = |remote: &Remote| remote.session == session;
        let senders: Vec<_> = self
            .senders
            .iter()
            .filter(|(_, sender)| sender.remote.as_ref().is_some_and(of))
            .map(|(key, _)| *key)
            .collect();
        senders.into_iter().for_each(|key| self.remove_sender(key));
        let receivers: Vec<_> =
            self.receivers.iter().filter(|(_, receiver)| of(&receiver.remote)).map(|(key, _)| *key).collect();
        for key in receivers {
            if let Some(receiver) = self.receivers.remove(&key) {
                audit.receiver_lost(self.chan, receiver.who);
            }
            self.hosted.remove_receiver(key);
        }
        self.pump(audit);
    }

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
    fn pump(&mut self, audit: &mut Audit) {
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
