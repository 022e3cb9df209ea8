//! A hosted channel whose receivers acknowledge, as a server keeps it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use netchan_proto::channel::{CloseReason, PushError};
use netchan_proto::hosted::{Effect, Hosted, ReceiverKey, SenderKey};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::{Event, Host};
use netchan_proto::wire::{Ask, Handed, Outcome, Verdict};
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::end::End;
use crate::value::Value;

const LOCAL_SENDER: SenderKey = SenderKey(0);
/// Works off what is left when everything is over and nobody else does.
const LOCAL_HOLDER: ReceiverKey = ReceiverKey(0);

/// How long a holder without a link keeps what it has.
const GRACE_MILLIS: u64 = 500;

struct Holder {
    session: SessionId,
    end: Rc<End>,
    deliveries: ChannelId,
    asks: Option<ChannelId>,
    outcomes: Option<ChannelId>,
    who: u32,
    limit: u64,
    taken: u64,
    pending: VecDeque<(Vec<u8>, bool)>,
    unsent: VecDeque<Outcome>,
    /// It takes nothing more, and may still acknowledge.
    retired: bool,
}

/// A queue of tasks.
pub struct Desk {
    /// As the auditor knows it.
    pub chan: u32,
    hosted: Hosted,
    holders: BTreeMap<ReceiverKey, Holder>,
    next_key: u64,
    total: u64,
    next: u64,
    finished: bool,
    now: u64,
    /// Tasks that are here for the local holder, and what it has taken.
    here: VecDeque<u64>,
    local_taken: u64,
}

impl Desk {
    /// A queue into which the server sends `total` tasks.
    #[must_use]
    pub fn new(chan: u32, capacity: u64, total: u64, attempts_max: Option<u32>) -> Self {
        let mut hosted = Hosted::new(capacity.max(1));
        hosted.add_sender(LOCAL_SENDER);
        hosted.set_attempts_max(attempts_max);
        let holders = BTreeMap::new();
        Self {
            chan,
            hosted,
            holders,
            next_key: 0,
            total,
            next: 0,
            finished: false,
            now: 0,
            here: VecDeque::new(),
            local_taken: 0,
        }
    }

    /// Whether everything has been acknowledged, or is dead.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Its capacity.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.hosted.capacity()
    }

    /// How it stands.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("desk {} {:?}", self.chan, self.hosted)
    }

    /// A session takes from here on.
    pub fn add_holder(
        &mut self,
        session: SessionId,
        end: &Rc<End>,
        id: ChannelId,
        who: u32,
        audit: &mut Audit,
    ) {
        self.next_key += 1;
        let key = ReceiverKey(self.next_key);
        self.hosted.add_holder(key, 4);
        let holder = Holder {
            session,
            end: Rc::clone(end),
            deliveries: id,
            asks: None,
            outcomes: None,
            who,
            limit: 0,
            taken: 0,
            pending: VecDeque::new(),
            unsent: VecDeque::new(),
            retired: false,
        };
        self.holders.insert(key, holder);
        if self.finished {
            _ = end.with_send(id, |half| half.close(CloseReason::plain()));
            end.set_ready(id);
        }
        self.pump(audit);
    }

    /// A holder's channel for what it asks (`asks`), or for what it is told. False if there is no such holder.
    pub fn add_service(&mut self, session: SessionId, of: ChannelId, id: ChannelId, asks: bool) -> bool {
        let found = self.holders.values_mut().find(|h| h.session == session && h.deliveries == of);
        let Some(holder) = found else { return false };
        let place = if asks { &mut holder.asks } else { &mut holder.outcomes };
        *place = Some(id);
        true
    }

    /// Something happened to a session's channel. Says whether it was one of these.
    pub fn handle(&mut self, session: SessionId, event: &Event, audit: &mut Audit) -> bool {
        let id = match event {
            Event::Readable(id)
            | Event::Writable(id)
            | Event::Finished(id)
            | Event::RewindAsked { id, .. } => *id,
            _ => return false,
        };
        let of = |h: &Holder| {
            h.session == session && (h.deliveries == id || h.asks == Some(id) || h.outcomes == Some(id))
        };
        let Some(key) = self.holders.iter().find(|(_, holder)| of(holder)).map(|(key, _)| *key) else {
            return false;
        };
        let deliveries = self.holders.get(&key).is_some_and(|holder| holder.deliveries == id);
        match event {
            Event::RewindAsked { limit, .. } if deliveries => self.rewound(key, *limit, audit),
            Event::Writable(_) if deliveries => self.moved(key, audit),
            Event::Finished(_) if deliveries => self.retire(key),
            _ => {
                if self.holders.get(&key).is_some_and(|holder| holder.retired) {
                    self.hosted.holder_back(key);
                }
                self.work(key, audit);
            }
        }
        self.pump(audit);
        true
    }

    fn moved(&mut self, key: ReceiverKey, audit: &mut Audit) {
        let Some(holder) = self.holders.get_mut(&key).filter(|holder| !holder.retired) else { return };
        let seen = holder
            .end
            .with_send(holder.deliveries, |half| (half.limit(), half.taken(), half.peer_closed().is_some()));
        let Some((limit, taken, closed)) = seen else { return };
        self.hosted.holder_back(key);
        let newly_taken = taken.saturating_sub(holder.taken);
        let newly_wanted = limit.saturating_sub(holder.limit);
        holder.taken += newly_taken;
        holder.limit += newly_wanted;
        if closed {
            _ = self.hosted.taken(key, newly_taken);
            return self.retire(key);
        }
        let moved = self.hosted.taken(key, newly_taken).and_then(|()| self.hosted.demand(key, newly_wanted));
        if let Err(violation) = moved {
            audit.wrong(format!("desk {}: {violation}", self.chan));
        }
        self.send_pending(key);
    }

    fn rewound(&mut self, key: ReceiverKey, limit: u64, audit: &mut Audit) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        let newly_taken = limit.saturating_sub(holder.taken);
        (holder.taken, holder.limit) = (limit, limit);
        holder.pending.clear();
        self.hosted.cancel_demand(key, u64::MAX);
        let given = self.hosted.taken(key, newly_taken).and_then(|()| self.hosted.give_back(key, 0));
        let rewound = holder.end.with_send(holder.deliveries, |half| half.rewind(limit));
        if given.is_err() || rewound.is_some_and(|rewound| rewound.is_err()) {
            audit.wrong(format!("desk {}: a holder gave back what it did not have", self.chan));
        }
        holder.end.set_ready(holder.deliveries);
    }

    /// Its deliveries' channel is over; what it was handed it may still acknowledge.
    fn retire(&mut self, key: ReceiverKey) {
        let Some(holder) = self.holders.get_mut(&key).filter(|holder| !holder.retired) else { return };
        holder.retired = true;
        holder.pending.clear();
        // Whoever says so is there.
        self.hosted.holder_back(key);
        let ended = holder.end.ended_senders.borrow();
        let taken = ended.get(&holder.deliveries).map_or(holder.taken, |half| half.taken());
        drop(ended);
        let newly_taken = taken.saturating_sub(holder.taken);
        holder.taken += newly_taken;
        self.hosted.cancel_demand(key, u64::MAX);
        _ = self.hosted.taken(key, newly_taken).and_then(|()| self.hosted.give_back(key, 0));
    }

    /// Does what a holder asks for.
    fn work(&mut self, key: ReceiverKey, audit: &mut Audit) {
        while self.flush(key) {
            let Some(holder) = self.holders.get(&key) else { return };
            let Some(asks) = holder.asks else { return };
            let taken = holder.end.with_recv(asks, |half| half.take().map(|payload| payload.into_bytes()));
            let Some(Some(bytes)) = taken else { break };
            let Ok((token, ask)) = Ask::read(&bytes) else {
                return audit.wrong(format!("desk {}: an ask that cannot be read", self.chan));
            };
            let verdict = self.ask(key, &ask, audit);
            if let Some(holder) = self.holders.get_mut(&key)
                && token != 0
            {
                holder.unsent.push_back(Outcome::Answer { token, verdict });
            }
        }
        let Some(holder) = self.holders.get(&key) else { return };
        let closed = holder
            .asks
            .is_some_and(|asks| holder.end.with_recv(asks, |half| half.ended().is_some()).unwrap_or(true));
        if let Some(outcomes) = holder.outcomes {
            let stopped = holder.end.with_send(outcomes, |half| {
                let stopped = half.peer_closed().is_some();
                if stopped {
                    half.close(CloseReason::plain());
                }
                stopped
            });
            if stopped == Some(true) {
                holder.end.set_ready(outcomes);
            }
        }
        if closed {
            self.holders.remove(&key);
            self.hosted.remove_receiver(key);
        }
    }

    fn ask(&mut self, key: ReceiverKey, ask: &Ask<'_>, audit: &mut Audit) -> Verdict {
        let number = match *ask {
            Ask::Ack { number }
            | Ask::Nack { number, .. }
            | Ask::Extend { number, .. }
            | Ask::AckWith { number, .. } => number,
        };
        let Some(holder) = self.holders.get_mut(&key) else { return Verdict::Fenced };
        // It has taken what it speaks of, whatever it has reported.
        let newly = (number + 1).saturating_sub(holder.taken);
        if newly > 0 {
            if self.hosted.taken(key, newly).is_err() {
                return Verdict::Fenced;
            }
            holder.taken += newly;
        }
        let who = holder.who;
        let held = match *ask {
            Ask::Ack { .. } => self.hosted.ack(key, number),
            Ask::Nack { delay_millis, .. } => {
                let at = (delay_millis > 0).then_some(self.now + delay_millis);
                self.hosted.nack(key, number, at)
            }
            Ask::Extend { millis, .. } => self.hosted.extend(key, number, self.now + millis),
            Ask::AckWith { value, .. } => {
                let held = self.hosted.ack(key, number);
                if held {
                    // The result and the acknowledgement are one step here.
                    let task = Value::parse(value).map_or(u64::MAX, |value| value.number);
                    audit.judge(|services| services.committed(self.chan, task, (who, number)));
                }
                held
            }
        };
        if held { Verdict::Done } else { Verdict::Fenced }
    }

    fn flush(&mut self, key: ReceiverKey) -> bool {
        let Some(holder) = self.holders.get_mut(&key) else { return false };
        let Some(id) = holder.outcomes else { return false };
        while let Some(outcome) = holder.unsent.front() {
            let mut bytes = Vec::new();
            outcome.write(&mut bytes);
            match holder.end.with_send(id, |half| half.push(|item| item.extend(&bytes)).map(drop)) {
                Some(Err(PushError::Full)) => return false,
                Some(_) | None => _ = holder.unsent.pop_front(),
            }
        }
        holder.end.set_ready(id);
        true
    }

    fn send_pending(&mut self, key: ReceiverKey) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        while let Some((bytes, again)) = holder.pending.front() {
            let pushed = holder.end.with_send(holder.deliveries, |half| {
                if *again {
                    half.push_redelivered(|item| item.extend(bytes)).map(drop)
                } else {
                    half.push(|item| item.extend(bytes)).map(drop)
                }
            });
            match pushed {
                Some(Ok(())) => _ = holder.pending.pop_front(),
                _ => break,
            }
        }
        holder.end.set_ready(holder.deliveries);
    }

    fn pump(&mut self, audit: &mut Audit) {
        while let Some(effect) = self.hosted.poll_effect() {
            match effect {
                Effect::Deliver { to: LOCAL_HOLDER, item } => self.here.push_back(item.seq),
                Effect::Deliver { to, item } => {
                    if let Some(holder) = self.holders.get_mut(&to) {
                        let mut bytes = Vec::new();
                        Handed { attempts: item.attempts, redelivered: item.redelivered }.write(&mut bytes);
                        bytes.extend_from_slice(&item.bytes);
                        holder.pending.push_back((bytes, item.redelivered));
                        self.send_pending(to);
                    }
                }
                Effect::Fenced { to, number } => {
                    if let Some(holder) = self.holders.get_mut(&to) {
                        holder.unsent.push_back(Outcome::Fenced { number });
                    }
                }
                Effect::Dead { item } => {
                    audit.judge(|services| services.dead(self.chan, item.seq));
                    self.hosted.buried();
                }
                Effect::Recall { from: LOCAL_SENDER } => _ = self.hosted.yielded(LOCAL_SENDER, self.next),
                Effect::Finished => {
                    self.finished = true;
                    for holder in self.holders.values().filter(|holder| !holder.retired) {
                        _ = holder.end.with_send(holder.deliveries, |half| half.close(CloseReason::plain()));
                        holder.end.set_ready(holder.deliveries);
                    }
                }
                _ => {}
            }
        }
    }

    /// Time passes, and the server's own program sends.
    pub fn step(&mut self, now: u64, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        self.now = now;
        self.hosted.handle_timeout(now);
        let mut moved = false;
        while self.next < self.total && (calm || rng.random_bool(0.3)) && self.hosted.try_lease(LOCAL_SENDER)
        {
            let value = Value { chan: self.chan, sender: 0, number: self.next };
            let bytes = Bytes::from(value.bytes(rng.random_range(16..60)));
            audit.services.task(self.chan);
            self.hosted.push(LOCAL_SENDER, self.next, bytes).expect("there was credit");
            self.next += 1;
            moved = true;
        }
        if self.next == self.total && !self.hosted.is_closed() {
            self.hosted.close();
        }
        self.pump(audit);
        let keys: Vec<_> = self.holders.keys().copied().collect();
        keys.into_iter().for_each(|key| self.work(key, audit));
        self.pump(audit);
        if calm && self.holders.values().all(|holder| holder.retired) {
            moved |= self.work_off(audit);
        }
        moved
    }

    /// Nobody takes any more: the server's own program does.
    fn work_off(&mut self, audit: &mut Audit) -> bool {
        let mut moved = self.hosted.add_holder(LOCAL_HOLDER, 4);
        if self.hosted.waiting_units_of(LOCAL_HOLDER) == 0 && self.here.is_empty() {
            self.hosted.demand(LOCAL_HOLDER, 1).expect("it asks for little");
            self.pump(audit);
        }
        while let Some(task) = self.here.pop_front() {
            moved = true;
            let number = self.local_taken;
            self.local_taken += 1;
            self.hosted.taken(LOCAL_HOLDER, 1).expect("it is here");
            if self.hosted.ack(LOCAL_HOLDER, number) {
                audit.judge(|services| services.committed(self.chan, task, (0, number)));
            }
            self.pump(audit);
        }
        moved
    }

    /// A session's link is gone.
    pub fn suspend(&mut self, session: SessionId, audit: &mut Audit) {
        let of: Vec<_> =
            self.holders.iter().filter(|(_, h)| h.session == session).map(|(key, _)| *key).collect();
        for key in of {
            self.suspend_holder(key, audit);
            // What one gave back may be another's by now, and counts as that.
            self.pump(audit);
        }
    }

    fn suspend_holder(&mut self, key: ReceiverKey, audit: &mut Audit) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        if !holder.retired {
            let in_half = holder.end.with_send(holder.deliveries, |half| half.take_unsent()).unwrap_or(0);
            let unsent = holder.pending.len() as u64 + in_half;
            holder.pending.clear();
            holder.limit -= self.hosted.cancel_demand(key, u64::MAX) + unsent;
            let held = self.hosted.in_flight_of(key) as u64;
            if unsent > 0 && self.hosted.give_back(key, held - unsent).is_err() {
                audit.wrong("what was to be sent was not there");
            }
        }
        self.hosted.holder_away(key, self.now + GRACE_MILLIS);
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId, audit: &mut Audit) {
        let of: Vec<_> =
            self.holders.iter().filter(|(_, h)| h.session == session).map(|(key, _)| *key).collect();
        for key in of {
            self.holders.remove(&key);
            self.hosted.remove_receiver(key);
        }
        self.pump(audit);
    }
}
