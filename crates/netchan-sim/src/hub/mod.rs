//! A hosted channel as a server keeps it: the policy, and the ends of sessions that it serves.

mod local;
mod remote;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use netchan_proto::channel::CloseReason;
use netchan_proto::hosted::{Hosted, Item, ReceiverKey, SenderKey};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::Host;

use crate::audit::Audit;
use crate::end::End;

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
                let Remote { end, id, .. } = &receiver.remote;
                let in_half = end.with_send(*id, |half| half.take_unsent()).unwrap_or(0);
                let unsent = receiver.pending.len() as u64 + in_half;
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
}
