//! A hosted broadcast under its lock: the policy of `netchan_proto::hosted`, the subscribers it serves, and the local tasks
//! that wait on it.
//!
//! As a [`Hub`](super::Hub)'s, the lock is taken before a channel's and after a session's control object.

mod ends;
mod serving;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use netchan_proto::exchange::NoPlace;
use netchan_proto::hosted::{Broadcast, BroadcastLimits, Next, NotSent, ReceiverKey, WhenSlow};
use netchan_proto::limits::SUBSCRIPTIONS_PER_KEY_MAX;
use netchan_proto::wire::{Open, OpenFlow, Purpose, RefuseCode, Told};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::ends::Inlet;
use self::serving::{After, too_slow};
use super::ends::client_of;
use super::{Engine, HostedInfo, HubSpec, Keeper};
use crate::error::CloseReason;
use crate::session::{SendChan, SessionCore};
use crate::stats::ReceiverStats;
use crate::transport::BoxFuture;
use crate::wait::{Ticket, WaitQueue};

/// Stands before each value, so that what is no value can be told (`CAST-8`).
pub(crate) const VALUE: u8 = Told::VALUE;

pub(crate) struct Cast {
    this: Weak<Self>,
    keeper: Weak<dyn Keeper>,
    spec: HubSpec,
    state: Mutex<CastState>,
    drained: watch::Sender<bool>,
}

#[derive(Default)]
struct Subscribers {
    next_key: u64,
    remote: HashMap<ReceiverKey, Arc<SendChan>>,
    /// How many of them each client key has.
    of_client: HashMap<u128, usize>,
    /// Local receives that wait, by subscription.
    local: HashMap<ReceiverKey, WaitQueue>,
    /// Values that local receives have taken.
    taken: HashMap<ReceiverKey, u64>,
}

struct CastState {
    policy: Broadcast,
    subscribers: Subscribers,
    /// Local sends that wait for subscribers which block.
    senders: WaitQueue,
    /// Clients whose values wait for the same.
    stalled: Vec<Arc<Inlet>>,
    watchers: WaitQueue,
    closed: Option<CloseReason>,
    /// Values numbered below this have been given to whoever could take them.
    served: u64,
    /// A task sees to that, and until it finds nothing more to do, what is sent waits for it.
    gathering: bool,
    /// When everyone may be served again: the longer it takes, the more goes at once.
    serve_at: Instant,
}

/// What a local subscriber gets.
pub(crate) enum CastNext {
    Value(Bytes),
    Lagged(u64),
    /// It was too slow, and is no subscriber any more.
    Expelled(CloseReason),
    End,
}

impl Subscribers {
    fn note_left(&mut self, chan: &SendChan) {
        if let Some(client) = client_of(&chan.core.peer())
            && let Some(count) = self.of_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.of_client.remove(&client);
            }
        }
    }
}

impl CastState {
    fn leave(&mut self, key: ReceiverKey) {
        self.policy.unsubscribe(key);
        if let Some(chan) = self.subscribers.remote.remove(&key) {
            self.subscribers.note_left(&chan);
        }
        if let Some(mut waiting) = self.subscribers.local.remove(&key) {
            waiting.wake_all();
        }
    }

    /// A subscriber has moved on, or left: there may be room.
    fn moved(&mut self, after: &mut After) {
        self.senders.wake_front(1);
        after.stalled.append(&mut self.stalled);
    }

    fn is_finished(&self) -> bool {
        self.closed.is_some() && self.policy.subscriber_count() == 0
    }
}

impl Cast {
    pub(crate) fn new(keeper: Weak<dyn Keeper>, spec: HubSpec) -> Arc<Self> {
        let limits = BroadcastLimits { capacity: spec.capacity, ..BroadcastLimits::default() };
        let state = CastState {
            policy: Broadcast::new(limits),
            subscribers: Subscribers::default(),
            senders: WaitQueue::default(),
            stalled: Vec::new(),
            watchers: WaitQueue::default(),
            closed: None,
            served: 0,
            gathering: false,
            serve_at: Instant::now(),
        };
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            keeper,
            spec,
            state: Mutex::new(state),
            drained: watch::Sender::new(false),
        })
    }

    /// Calls `f` under the lock, then does what follows.
    fn run<R>(&self, f: impl FnOnce(&mut CastState, &mut After) -> R) -> R {
        let mut after = After::default();
        let (result, closed, finished) = {
            let mut state = self.state.lock();
            let before = (state.closed.is_some(), state.is_finished());
            let result = f(&mut state, &mut after);
            (result, !before.0 && state.closed.is_some(), !before.1 && state.is_finished())
        };
        if finished {
            self.drained.send_replace(true);
        }
        if let Some(keeper) = self.keeper.upgrade().filter(|_| closed || finished) {
            if closed {
                keeper.closed(self);
            }
            if finished {
                keeper.finished(self);
            }
        }
        after.kicks.iter().for_each(SendChan::kick_later);
        if let Some(since) = after.serving_since {
            self.state.lock().serve_at = serving::next_after(since);
        }
        after.stalled.into_iter().for_each(Inlet::work);
        if after.gather {
            self.gather();
        }
        result
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.spec.capacity.max(1)
    }

    /// Sends a value, with its [`VALUE`] before it, if there is room.
    fn try_publish(&self, assigned: bool, bytes: &Bytes) -> Result<(), NotSent> {
        self.run(|state, after| state.publish(assigned, bytes, after))
    }

    /// The same for a value of a client's, which waits for room if need be: [`Inlet::work`] is called then.
    pub(super) fn relay(&self, bytes: &Bytes, inlet: &Arc<Inlet>) -> Result<(), NotSent> {
        self.run(|state, after| {
            let sent = state.publish(false, bytes, after);
            if sent == Err(NotSent::Full) && !state.stalled.iter().any(|other| Arc::ptr_eq(other, inlet)) {
                state.stalled.push(Arc::clone(inlet));
            }
            sent
        })
    }

    /// Sends a value in turn, waiting for subscribers that block.
    pub(crate) fn poll_publish(
        &self,
        cx: &Context<'_>,
        ticket: &mut Option<Ticket>,
        assigned: bool,
        bytes: &Bytes,
    ) -> Poll<Result<(), NotSent>> {
        self.run(|state, after| {
            let ahead = state.senders.ahead_of(*ticket);
            let sent = if ahead == 0 { state.publish(assigned, bytes, after) } else { Err(NotSent::Full) };
            if sent == Err(NotSent::Full) && state.closed.is_none() {
                state.senders.wait(ticket, cx.waker());
                return Poll::Pending;
            }
            state.senders.leave(ticket);
            state.senders.wake_front(1);
            Poll::Ready(sent)
        })
    }

    /// As [`poll_publish`](Self::poll_publish) for one that does not wait.
    pub(crate) fn publish_now(&self, bytes: &Bytes) -> Result<(), NotSent> {
        self.try_publish(false, bytes)
    }

    pub(crate) fn leave_senders(&self, ticket: &mut Option<Ticket>) {
        if ticket.is_some() {
            self.run(|state, _| {
                state.senders.leave(ticket);
                state.senders.wake_front(1);
            });
        }
    }

    pub(crate) fn set_assignments(&self, assigned: Vec<Bytes>) -> Result<(), NotSent> {
        self.run(|state, after| {
            let gave_up = state.policy.set_assignments(assigned)?;
            // Senders may have waited for a subscriber that lost an old list.
            if gave_up && state.serve_all(after) {
                state.moved(after);
            }
            Ok(())
        })
    }

    pub(crate) fn subscriber_count(&self) -> usize {
        self.state.lock().policy.subscriber_count()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.state.lock().policy.held_bytes()
    }

    /// A local subscriber; `None` once it is closed.
    pub(crate) fn subscribe(&self, when_slow: WhenSlow) -> Option<ReceiverKey> {
        self.run(|state, _| {
            let key = state.new_key();
            state.policy.subscribe(key, when_slow).then(|| {
                state.subscribers.local.insert(key, WaitQueue::default());
                state.subscribers.taken.insert(key, 0);
                key
            })
        })
    }

    /// A remote one.
    pub(super) fn subscribe_remote(
        &self,
        when_slow: WhenSlow,
        chan: &Arc<SendChan>,
    ) -> Result<ReceiverKey, NoPlace> {
        let client = client_of(&chan.core.peer());
        self.run(|state, _| {
            let key = state.new_key();
            let count = client.and_then(|client| state.subscribers.of_client.get(&client));
            if count.is_some_and(|count| *count >= SUBSCRIPTIONS_PER_KEY_MAX) {
                return Err(NoPlace::TooMany);
            }
            if !state.policy.subscribe(key, when_slow) {
                return Err(NoPlace::Finished);
            }
            client
                .into_iter()
                .for_each(|client| *state.subscribers.of_client.entry(client).or_default() += 1);
            state.subscribers.remote.insert(key, Arc::clone(chan));
            Ok(key)
        })
    }

    pub(crate) fn unsubscribe(&self, key: ReceiverKey) {
        self.run(|state, after| {
            state.subscribers.taken.remove(&key);
            state.leave(key);
            state.moved(after);
        });
    }

    /// A remote subscriber has room, or has closed.
    pub(super) fn serve(&self, key: ReceiverKey) {
        self.run(|state, after| {
            if state.serve(key, after) {
                state.moved(after);
            }
        });
    }

    /// The next value for a local receive, in turn.
    pub(crate) fn poll_recv(
        &self,
        key: ReceiverKey,
        cx: Option<&Context<'_>>,
        ticket: &mut Option<Ticket>,
        values_only: bool,
    ) -> Poll<CastNext> {
        self.run(|state, after| {
            let ahead = state.subscribers.local.get(&key).map_or(0, |waiting| waiting.ahead_of(*ticket));
            let next = if ahead > 0 { Next::Nothing } else { state.policy.peek(key) };
            if values_only && !matches!(next, Next::Value { .. }) {
                return Poll::Pending;
            }
            let next = match next {
                Next::Nothing => {
                    if let (Some(waiting), Some(cx)) = (state.subscribers.local.get_mut(&key), cx) {
                        waiting.wait(ticket, cx.waker());
                    }
                    return Poll::Pending;
                }
                Next::Value { bytes, .. } => CastNext::Value(bytes.slice(1..)),
                Next::Lagged(lost) => CastNext::Lagged(lost),
                Next::Expelled(lost) => CastNext::Expelled(too_slow(lost)),
                Next::End => CastNext::End,
            };
            if matches!(next, CastNext::Value(_) | CastNext::Lagged(_)) {
                if let (CastNext::Value(_), Some(taken)) = (&next, state.subscribers.taken.get_mut(&key)) {
                    *taken += 1;
                }
                state.policy.advance(key);
            } else {
                state.leave(key);
            }
            if let Some(waiting) = state.subscribers.local.get_mut(&key) {
                waiting.leave(ticket);
                waiting.wake_front(1);
            }
            state.moved(after);
            Poll::Ready(next)
        })
    }

    pub(crate) fn leave_receivers(&self, key: ReceiverKey, ticket: &mut Option<Ticket>) {
        let mut state = self.state.lock();
        if let Some(waiting) = state.subscribers.local.get_mut(&key) {
            waiting.leave(ticket);
            waiting.wake_front(1);
        }
    }

    /// How many values a local subscriber can receive now.
    pub(crate) fn ready(&self, key: ReceiverKey) -> u64 {
        self.state.lock().policy.ready(key)
    }

    /// How many values a subscriber has still to get, those included that it has lost.
    pub(crate) fn behind(&self, key: ReceiverKey) -> u64 {
        self.state.lock().policy.behind(key)
    }

    /// What a local subscriber has been through.
    pub(crate) fn local_stats(&self, key: ReceiverKey) -> ReceiverStats {
        let state = self.state.lock();
        let taken = state.subscribers.taken.get(&key).copied().unwrap_or(0);
        let waiting = state.subscribers.local.get(&key).map_or(0, |waiting| waiting.len() as u64);
        ReceiverStats { received: taken + state.policy.behind(key), taken, waiting }
    }

    /// Waits until it is closed.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>, ticket: &mut Option<Ticket>) -> Poll<CloseReason> {
        let mut state = self.state.lock();
        if let Some(reason) = state.closed.clone() {
            state.watchers.leave(ticket);
            return Poll::Ready(reason);
        }
        state.watchers.wait(ticket, cx.waker());
        Poll::Pending
    }

    pub(crate) fn leave_watchers(&self, ticket: &mut Option<Ticket>) {
        self.state.lock().watchers.leave(ticket);
    }
}

impl CastState {
    fn new_key(&mut self) -> ReceiverKey {
        self.subscribers.next_key += 1;
        ReceiverKey(self.subscribers.next_key)
    }
}

impl Engine for Cast {
    fn spec(&self) -> &HubSpec {
        &self.spec
    }

    fn closed(&self) -> Option<CloseReason> {
        self.state.lock().closed.clone()
    }

    fn open(self: Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        if open.flow == OpenFlow::OpenerSends {
            return self.accept_inlet(session, open);
        }
        let when_slow = match open.purpose {
            Purpose::Subscription { when_slow: 0 } => WhenSlow::Lag,
            Purpose::Subscription { when_slow: 1 } => WhenSlow::Block,
            Purpose::Subscription { .. } => WhenSlow::Disconnect,
            Purpose::Values => self.spec.when_slow,
            _ => {
                let reason = "a broadcast is received and not acknowledged; open it as a receiver";
                return session.refuse(open.id, RefuseCode::WrongDirection, reason);
            }
        };
        if when_slow == WhenSlow::Block && self.spec.when_slow != WhenSlow::Block {
            let reason =
                "this broadcast waits for no subscriber; its server must host it with WhenSlow::Block";
            return session.refuse(open.id, RefuseCode::Declined, reason);
        }
        self.accept_subscriber(session, open, when_slow);
    }

    fn close(&self, reason: CloseReason) {
        self.run(|state, after| {
            if state.closed.is_none() {
                state.closed = Some(reason);
                state.policy.close();
                state.senders.wake_all();
                state.watchers.wake_all();
                state.serve_all(after);
                state.moved(after);
            }
        });
    }

    fn abort(&self, reason: CloseReason) {
        self.close(reason.clone());
        self.run(|state, after| {
            let remote = state.subscribers.remote.clone();
            for (key, chan) in remote {
                chan.state.lock().half.close(reason.clone().into());
                state.leave(key);
                after.kicks.push(chan);
            }
            let keys: Vec<_> = state.subscribers.local.keys().copied().collect();
            keys.into_iter().for_each(|key| state.leave(key));
        });
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut drained = self.drained.subscribe();
            _ = drained.wait_for(|drained| *drained).await;
        })
    }

    fn survey(&self) -> HostedInfo {
        let state = self.state.lock();
        let subscribers = &state.subscribers;
        let keys = subscribers.remote.keys().chain(subscribers.local.keys());
        HostedInfo {
            name: self.spec.name.to_string(),
            capacity: self.spec.capacity,
            broadcast: true,
            values: state.policy.sent(),
            lagged: state.policy.lagged(),
            depth: keys.map(|key| state.policy.behind(*key)).max().unwrap_or(0),
            receivers: state.policy.subscriber_count() as u64,
            senders_waiting: (state.senders.len() + state.stalled.len()) as u64,
            bytes: state.policy.held_bytes(),
            ..HostedInfo::default()
        }
    }

    fn untaken(&self) -> u64 {
        let state = self.state.lock();
        let subscribers = &state.subscribers;
        subscribers.remote.keys().chain(subscribers.local.keys()).map(|key| state.policy.behind(*key)).sum()
    }
}
