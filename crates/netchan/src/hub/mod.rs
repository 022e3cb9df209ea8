//! A hosted channel under its lock: the policy of `netchan_proto::hosted`, the remote ends it serves, and the local tasks
//! that wait on it.
//!
//! The lock is taken before a channel's and after a session's control object. What an operation makes writable is written
//! after the lock is released.

mod cast;
mod ends;
mod engine;
mod holder;
mod local;
mod remote;
mod timer;
mod turn;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;
use netchan_proto::channel::{ItemBuf, PushError, TooLarge};
use netchan_proto::flow::Urgency;
use netchan_proto::hosted::{Effect, Hosted, Item, ReceiverKey, SenderKey, WhenSlow};
use netchan_proto::session::close_code;
use netchan_proto::wire::{HANDED_BYTES_MAX, Handed};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::cast::{Cast, CastNext, VALUE};
pub(crate) use self::ends::accept_service;
pub use self::engine::HostedInfo;
pub(crate) use self::engine::{Engine, Keeper};
use self::holder::Holder;
pub(crate) use self::local::{Acquired, OfferOutcome};
use crate::error::CloseReason;
use crate::options::DeliveryLimits;
use crate::peer::Peer;
use crate::session::{RecvChan, SendChan};
use crate::wait::WaitQueue;

/// All local sends of a buffered channel act as one sender.
const LOCAL_SENDER: SenderKey = SenderKey(0);
/// All local receives act as one receiver.
const LOCAL_RECEIVER: ReceiverKey = ReceiverKey(0);

/// What clients may do on a hosted channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) may_send: bool,
    pub(crate) may_receive: bool,
}

/// What a channel is hosted as.
pub(crate) struct HubSpec {
    pub(crate) name: Arc<str>,
    pub(crate) label: String,
    pub(crate) codec: String,
    pub(crate) fingerprint: Option<[u8; 16]>,
    pub(crate) access: Access,
    pub(crate) capacity: u64,
    pub(crate) deliveries: DeliveryLimits,
    /// What becomes of slow subscribers of a broadcast that do not say.
    pub(crate) when_slow: WhenSlow,
}

pub(crate) struct Hub {
    keeper: Weak<dyn Keeper>,
    pub(crate) spec: HubSpec,
    state: Mutex<HubState>,
    drained: watch::Sender<bool>,
    /// Where values go that nobody acknowledged in as many attempts as they may have.
    dead: Option<Arc<Hub>>,
    started: Instant,
}

struct RemoteSender {
    peer: Peer,
    chan: Option<Arc<RecvChan>>,
    pushed: u64,
}

struct RemoteReceiver {
    chan: Option<Arc<SendChan>>,
    /// The credit, and the taken values, that the policy has been told of.
    limit: u64,
    taken: u64,
    /// Values that are this receiver's and wait for its byte window.
    pending: VecDeque<Outgoing>,
    /// Set where it acknowledges what it takes.
    holder: Option<Arc<Holder>>,
}

/// A value on its way to a remote receiver.
struct Outgoing {
    bytes: Bytes,
    /// It may have been received before.
    redelivered: bool,
    attempts: u32,
}

#[derive(Default)]
struct Local {
    /// Values assigned to local receives, oldest first.
    values: VecDeque<Item>,
    receivers: WaitQueue,
    /// Receives the policy has been told of and has not served.
    demanded: u64,
    senders: WaitQueue,
    committed: u64,
    reserved: u64,
    limit: u64,
    /// Every local value numbered below this has been taken.
    taken: u64,
    /// Values taken by local receives.
    received: u64,
    watchers: WaitQueue,
    offers: HashMap<SenderKey, Offer>,
    /// Who local values really came from, by their number, where that is not this process.
    peers: BTreeMap<u64, Peer>,
    /// When so many are known, those that are no longer needed are looked for.
    peers_kept: usize,
}

/// A local send on a channel of capacity 0.
struct Offer {
    outcome: Option<bool>,
    waker: Option<Waker>,
    /// Nobody waits for the outcome any more.
    orphan: bool,
}

struct HubState {
    hosted: Hosted,
    next_key: u64,
    senders: HashMap<SenderKey, RemoteSender>,
    receivers: HashMap<ReceiverKey, RemoteReceiver>,
    local: Local,
    closed: Option<CloseReason>,
    finished: bool,
    /// When somebody looks what time has come for.
    timer_at: Option<u64>,
}

/// What is to be done once the lock is released.
enum Kick {
    Send(Arc<SendChan>),
    Recv(Arc<RecvChan>, Urgency),
    /// A holder has lost a delivery.
    Fenced(Arc<Holder>, u64),
    /// Nobody acknowledges a value.
    Dead(Item, Peer),
}

impl Hub {
    pub(crate) fn new(keeper: Weak<dyn Keeper>, spec: HubSpec) -> Arc<Self> {
        let mut hosted = Hosted::new(spec.capacity);
        hosted.add_sender(LOCAL_SENDER);
        hosted.add_receiver(LOCAL_RECEIVER);
        hosted.set_attempts_max(spec.deliveries.attempts_max);
        let state = HubState {
            hosted,
            next_key: 1,
            senders: HashMap::new(),
            receivers: HashMap::new(),
            local: Local::default(),
            closed: None,
            finished: false,
            timer_at: None,
        };
        let dead = spec.deliveries.attempts_max.map(|_| Self::new_dead(&spec));
        let drained = watch::Sender::new(false);
        Arc::new(Self { keeper, spec, state: Mutex::new(state), drained, dead, started: Instant::now() })
    }

    pub(crate) const fn capacity(&self) -> u64 {
        self.spec.capacity
    }

    /// Calls `f` under the lock, does what follows from it, and then writes what became writable.
    fn run<R>(&self, f: impl FnOnce(&mut HubState) -> R) -> R {
        self.run_pumping(|state, _| f(state))
    }

    /// As [`Hub::run`], for what must see the consequences of a step before the next.
    fn run_pumping<R>(&self, f: impl FnOnce(&mut HubState, &mut Vec<Kick>) -> R) -> R {
        let mut kicks = Vec::new();
        let (result, closed, finished) = {
            let mut state = self.state.lock();
            let before = (state.closed.is_some(), state.finished);
            let result = f(&mut state, &mut kicks);
            state.pump(&mut kicks);
            if state.finished {
                self.drained.send_replace(true);
            }
            (result, !before.0 && state.closed.is_some(), !before.1 && state.finished)
        };
        if (closed || finished)
            && let Some(keeper) = self.keeper.upgrade()
        {
            if closed {
                keeper.closed(self);
            }
            if finished {
                keeper.finished(self);
            }
        }
        if finished && let Some(dead) = &self.dead {
            dead.close(CloseReason::new(0, ""));
        }
        for kick in kicks {
            match kick {
                Kick::Send(chan) => chan.kick_later(),
                Kick::Recv(chan, urgency) => chan.report(urgency),
                Kick::Fenced(holder, number) => holder.fenced(number),
                Kick::Dead(item, peer) => self.bury(item, peer),
            }
        }
        result
    }

    /// Ends the channel: no more values come in, those that are here go out.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.run(|state| {
            if state.closed.is_none() {
                state.closed = Some(reason);
                state.hosted.close();
                state.local.senders.wake_all();
                state.local.watchers.wake_all();
            }
        });
    }

    /// Ends the channel at once: what is here is dropped, and everyone is told.
    pub(crate) fn abort(&self, reason: CloseReason) {
        self.close(reason);
        self.run(|state| {
            let keys: Vec<_> = state.senders.keys().copied().collect();
            keys.into_iter().for_each(|key| state.hosted.remove_sender(key));
            state.finish_now();
        });
        self.drained.send_replace(true);
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.state.lock().closed.clone()
    }

    pub(crate) async fn wait_drained(&self) {
        let mut drained = self.drained.subscribe();
        _ = drained.wait_for(|drained| *drained).await;
    }

    /// Values here that nobody is known to have taken.
    pub(crate) fn untaken(&self) -> u64 {
        let state = self.state.lock();
        let here = (state.hosted.len() + state.hosted.in_flight() + state.hosted.unacked()) as u64;
        drop(state);
        here + self.dead.as_ref().map_or(0, |dead| dead.untaken())
    }

    pub(crate) fn survey(&self) -> HostedInfo {
        let state = self.state.lock();
        let hosted = &state.hosted;
        HostedInfo {
            name: self.spec.name.to_string(),
            capacity: self.spec.capacity,
            broadcast: false,
            values: hosted.pushed(),
            lagged: 0,
            depth: hosted.len() as u64,
            in_flight: hosted.in_flight() as u64,
            unacked: hosted.unacked() as u64,
            redelivered: hosted.redelivered(),
            dead: hosted.dead(),
            credit: hosted.free(),
            receivers: hosted.waiting_units(),
            senders_waiting: hosted.waiting_senders() as u64,
            bytes: hosted.held_bytes(),
        }
    }

    /// Whether every remote sender's committed values have arrived and none can send more.
    pub(crate) fn ready(&self) -> usize {
        let state = self.state.lock();
        state.hosted.len() + state.local.values.len()
    }
}

impl Outgoing {
    /// A holder learns, before the value, how it came to it.
    fn encode(&self, holds: bool, item: &mut ItemBuf<'_>) -> Result<(), TooLarge> {
        if holds {
            let mut head = Vec::with_capacity(HANDED_BYTES_MAX);
            Handed { attempts: self.attempts, redelivered: self.redelivered }.write(&mut head);
            item.extend(&head)?;
        }
        item.share(self.bytes.clone())
    }
}

impl HubState {
    fn new_key(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        key
    }

    /// Does what the policy decided.
    fn pump(&mut self, kicks: &mut Vec<Kick>) {
        while let Some(effect) = self.hosted.poll_effect() {
            match effect {
                Effect::Deliver { to: LOCAL_RECEIVER, item } => {
                    self.local.demanded = self.local.demanded.saturating_sub(1);
                    self.local.values.push_back(item);
                    self.local.receivers.wake_front(self.local.values.len() as u64);
                }
                Effect::Deliver { to, item } => {
                    if let Some(receiver) = self.receivers.get_mut(&to) {
                        let Item { bytes, redelivered, attempts, .. } = item;
                        receiver.pending.push_back(Outgoing { bytes, redelivered, attempts });
                        self.send_pending(to, kicks);
                    }
                }
                Effect::Grant { to: LOCAL_SENDER, limit } => {
                    self.local.limit = limit;
                    let free = limit - self.local.committed - self.local.reserved;
                    self.local.senders.wake_front(free);
                }
                Effect::Grant { to, limit } => self.with_sender(to, kicks, |half| half.lease(limit)),
                Effect::Recall { from: LOCAL_SENDER } => {
                    let kept = self.local.committed + self.local.reserved;
                    if self.hosted.yielded(LOCAL_SENDER, kept).is_ok() {
                        self.local.limit = kept;
                    }
                }
                Effect::Recall { from } => self.with_sender(from, kicks, |half| half.recall_lease()),
                Effect::Settled { sender: LOCAL_SENDER, prefix, .. } => {
                    self.local.taken = prefix;
                    self.local.watchers.wake_all();
                    self.forget_peers(prefix);
                }
                Effect::Settled { sender, prefix, .. } => {
                    self.settle_offer(sender, true);
                    self.with_sender(sender, kicks, |half| half.settle(prefix));
                }
                Effect::Forgotten { sender } => _ = self.senders.remove(&sender),
                Effect::Withdrawn { to, seq, withdrawn } => {
                    self.settle_offer(to, !withdrawn);
                    self.with_sender(to, kicks, |half| half.answer_withdraw(seq, withdrawn));
                }
                Effect::Fenced { to, number } => {
                    if let Some(holder) = self.receivers.get(&to).and_then(|r| r.holder.clone()) {
                        kicks.push(Kick::Fenced(holder, number));
                    }
                }
                Effect::Dead { item } => {
                    let peer = self.peer_of(&item);
                    kicks.push(Kick::Dead(item, peer));
                }
                Effect::Finished => self.finish(kicks),
            }
        }
        if self.closed.is_some() {
            self.stop_senders(kicks);
        }
    }

    fn with_sender(
        &self,
        key: SenderKey,
        kicks: &mut Vec<Kick>,
        f: impl FnOnce(&mut netchan_proto::channel::RecvHalf),
    ) {
        if let Some(chan) = self.senders.get(&key).and_then(|sender| sender.chan.as_ref()) {
            let urgency = {
                let mut state = chan.state.lock();
                f(&mut state.half);
                state.half.urgency()
            };
            kicks.push(Kick::Recv(Arc::clone(chan), urgency));
        }
    }

    /// Moves what is a receiver's into its channel, as far as its byte window goes.
    fn send_pending(&mut self, key: ReceiverKey, kicks: &mut Vec<Kick>) {
        let Some(receiver) = self.receivers.get_mut(&key) else { return };
        let Some(chan) = receiver.chan.clone() else { return };
        let mut too_large = false;
        {
            let mut state = chan.state.lock();
            let holds = receiver.holder.is_some();
            while let Some(value) = receiver.pending.front() {
                let encode = |item: &mut ItemBuf<'_>| value.encode(holds, item);
                let pushed = if value.redelivered {
                    state.half.push_redelivered(encode)
                } else {
                    state.half.push(encode)
                };
                match pushed {
                    Ok(_) => _ = receiver.pending.pop_front(),
                    Err(PushError::Full | PushError::Closed) => break,
                    Err(PushError::TooLarge { bytes_max } | PushError::Encode(TooLarge { bytes_max })) => {
                        let reason =
                            format!("a message is longer than this receiver's limit of {bytes_max} bytes");
                        state.half.reset(CloseReason::new(close_code::ABANDONED, reason).into());
                        too_large = true;
                        break;
                    }
                }
            }
        }
        if too_large {
            // Others may be able to take what this one cannot.
            self.receivers.remove(&key);
            self.hosted.remove_receiver(key);
        }
        kicks.push(Kick::Send(chan));
    }

    /// After the close: a sender that has no credit left is told.
    fn stop_senders(&self, kicks: &mut Vec<Kick>) {
        let reason = self.closed.clone().unwrap_or_else(|| CloseReason::new(0, ""));
        for (key, sender) in &self.senders {
            let Some(chan) = &sender.chan else { continue };
            let mut state = chan.state.lock();
            let no_credit =
                self.finished || self.hosted.limit(*key).is_none_or(|limit| sender.pushed >= limit);
            if no_credit && state.half.ended().is_none() && state.half.peer_closed().is_none() {
                state.half.stop(reason.clone().into());
                drop(state);
                kicks.push(Kick::Recv(Arc::clone(chan), Urgency::Now));
            }
        }
    }

    fn finish(&mut self, kicks: &mut Vec<Kick>) {
        self.finish_now();
        let reason = self.closed.clone().unwrap_or_else(|| CloseReason::new(0, ""));
        for receiver in self.receivers.values() {
            if let Some(chan) = &receiver.chan {
                chan.state.lock().half.close(reason.clone().into());
                kicks.push(Kick::Send(Arc::clone(chan)));
            }
        }
    }

    fn finish_now(&mut self) {
        self.finished = true;
        self.local.receivers.wake_all();
        self.local.senders.wake_all();
        self.local.watchers.wake_all();
    }
}
