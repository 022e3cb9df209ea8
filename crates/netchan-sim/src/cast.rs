//! A hosted broadcast, as a server keeps it.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use netchan_proto::channel::CloseReason;
use netchan_proto::hosted::{Broadcast, BroadcastLimits, Next, NotSent, ReceiverKey, WhenSlow};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::{Event, Host};
use netchan_proto::wire::write_varint;
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::end::End;
use crate::value::Value;

/// Stands before a value.
pub const VALUE: u8 = 0;
/// Stands before the number of values that were lost.
pub const LAGGED: u8 = 1;

struct Subscriber {
    session: SessionId,
    end: Rc<End>,
    id: ChannelId,
}

/// A broadcast.
pub struct Cast {
    /// As the auditor knows it.
    pub chan: u32,
    policy: Broadcast,
    subscribers: BTreeMap<ReceiverKey, Subscriber>,
    next_key: u64,
    total: u64,
    next: u64,
    assigned: Vec<u64>,
}

impl Cast {
    /// A broadcast of `total` values.
    #[must_use]
    pub fn new(chan: u32, capacity: u64, total: u64) -> Self {
        let policy = Broadcast::new(BroadcastLimits { capacity, ..BroadcastLimits::default() });
        let subscribers = BTreeMap::new();
        Self { chan, policy, subscribers, next_key: 0, total, next: 0, assigned: Vec::new() }
    }

    /// Whether it takes no more subscribers.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.policy.is_closed()
    }

    /// Whether everybody has had everything.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_closed() && self.subscribers.is_empty()
    }

    fn bytes(&self, number: u64) -> Bytes {
        let mut bytes = vec![VALUE];
        bytes.extend(Value { chan: self.chan, sender: 0, number }.bytes(40));
        bytes.into()
    }

    /// A session subscribes.
    pub fn subscribe(
        &mut self,
        session: SessionId,
        end: &Rc<End>,
        id: ChannelId,
        who: u32,
        blocks: bool,
        audit: &mut Audit,
    ) {
        self.next_key += 1;
        let key = ReceiverKey(self.next_key);
        let when_slow = if blocks { WhenSlow::Block } else { WhenSlow::Lag };
        if !self.policy.subscribe(key, when_slow) {
            _ = end.with_send(id, |half| half.close(CloseReason::plain()));
            end.set_ready(id);
            return;
        }
        audit.services.joined(self.chan, who, self.assigned.clone());
        self.subscribers.insert(key, Subscriber { session, end: Rc::clone(end), id });
        self.serve(key);
    }

    fn serve(&mut self, key: ReceiverKey) {
        let Some(Subscriber { end, id, .. }) = self.subscribers.get(&key) else { return };
        let (end, id) = (Rc::clone(end), *id);
        loop {
            let bytes = match self.policy.peek(key) {
                Next::Value { bytes, .. } => bytes,
                Next::Lagged(lost) => {
                    let mut marker = vec![LAGGED];
                    write_varint(&mut marker, lost);
                    marker.into()
                }
                Next::End => {
                    _ = end.with_send(id, |half| half.close(CloseReason::plain()));
                    self.leave(key);
                    break;
                }
                Next::Expelled(_) | Next::Nothing => break,
            };
            match end.with_send(id, |half| half.push(|item| item.share(bytes)).map(drop)) {
                Some(Ok(())) => self.policy.advance(key),
                Some(Err(_)) => break,
                None => {
                    self.leave(key);
                    break;
                }
            }
        }
        end.set_ready(id);
    }

    fn leave(&mut self, key: ReceiverKey) {
        self.policy.unsubscribe(key);
        self.subscribers.remove(&key);
    }

    /// Something happened to a session's channel. Says whether it was one of these.
    pub fn handle(&mut self, session: SessionId, event: &Event) -> bool {
        let (Event::Writable(id) | Event::Finished(id)) = event else { return false };
        let of = |subscriber: &Subscriber| subscriber.session == session && subscriber.id == *id;
        let found = self.subscribers.iter().find(|(_, subscriber)| of(subscriber)).map(|(key, _)| *key);
        let Some(key) = found else { return false };
        let stopped = self.subscribers.get(&key).is_some_and(|subscriber| {
            subscriber.end.with_send(*id, |half| {
                let stopped = half.peer_closed().is_some();
                if stopped {
                    half.close(CloseReason::plain());
                }
                stopped
            }) != Some(false)
        });
        if stopped {
            self.leave(key);
        } else {
            self.serve(key);
        }
        true
    }

    /// The server's own program sends and assigns.
    pub fn step(&mut self, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let mut moved = false;
        while self.next < self.total && (calm || rng.random_bool(0.3)) {
            let bytes = self.bytes(self.next);
            let assigns = rng.random_ratio(1, 3);
            let sent = if assigns { self.policy.assign(bytes) } else { self.policy.send(bytes) };
            if sent == Err(NotSent::Full) {
                break;
            }
            audit.services.sent(self.chan, self.next);
            if assigns {
                self.assigned.push(self.next);
            }
            self.next += 1;
            moved = true;
            if rng.random_ratio(1, 10) {
                // All but the last are forgotten, in one step.
                self.assigned = self.assigned.split_off(self.assigned.len().saturating_sub(1));
                let kept = self.assigned.iter().map(|number| self.bytes(*number)).collect();
                self.policy.set_assignments(kept).expect("there is room");
            }
        }
        if calm && self.next == self.total && !self.is_closed() {
            self.policy.close();
            moved = true;
        }
        let keys: Vec<_> = self.subscribers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.serve(key));
        moved
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId) {
        let of: Vec<_> =
            self.subscribers.iter().filter(|(_, of)| of.session == session).map(|(key, _)| *key).collect();
        of.into_iter().for_each(|key| self.leave(key));
    }
}
