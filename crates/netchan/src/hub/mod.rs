//! A hosted queue under its lock: the object of `netchan_proto::exchange`, and what is done about what it says.
//!
//! Invariants: the lock is taken before a channel's and after a session's control object; nothing is written, woken, logged or
//! told while it is held; there is one timer at most.

mod cast;
mod dispatcher;
mod ends;
mod engine;
mod holder;
mod local;
mod timer;
mod turn;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;

use netchan_proto::channel::{RecvHalf, SendHalf};
use netchan_proto::exchange::{Half, News, Output, Ports, Queue, Stopped};
use netchan_proto::hosted::{HolderOptions, Item, ReceiverKey, WhenSlow};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::cast::{Cast, CastNext, VALUE};
use self::dispatcher::Dispatcher;
pub(crate) use self::ends::accept_service;
pub use self::engine::HostedInfo;
pub(crate) use self::engine::{Engine, Keeper};
pub(crate) use self::holder::Holder;
pub(crate) use self::local::{Acquired, Delivered, OfferOutcome};
use self::timer::Timer;
use crate::error::CloseReason;
use crate::options::DeliveryLimits;
use crate::patience;
use crate::peer::Peer;
use crate::session::{RecvChan, SendChan, SessionCore};

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
    /// Bytes of all values that are in it, before senders wait.
    pub(crate) bytes_max: u64,
    /// What becomes of slow subscribers of a broadcast that do not say.
    pub(crate) when_slow: WhenSlow,
}

/// Channels of sessions, as the queue reaches their halves.
pub(crate) struct Chans;

impl Ports for Chans {
    type Source = Arc<RecvChan>;
    type Sink = Arc<SendChan>;
    type Peer = Peer;

    fn with_source<R>(chan: &Arc<RecvChan>, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R> {
        Some(f(&mut patience::lock(&chan.state).half))
    }

    fn with_sink<R>(chan: &Arc<SendChan>, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R> {
        Some(f(&mut patience::lock(&chan.state).half))
    }

    fn probe(half: Half<'_, Self>) -> u64 {
        core_of(half).probe()
    }

    fn has_answered(half: Half<'_, Self>, probe: u64) -> bool {
        core_of(half).has_answered(probe)
    }
}

fn core_of(half: Half<'_, Chans>) -> &SessionCore {
    match half {
        Half::Source(chan) => &chan.core,
        Half::Sink(chan) => &chan.core,
    }
}

type Out = Output<Chans>;

pub(crate) struct Hub {
    this: Weak<Self>,
    keeper: Weak<dyn Keeper>,
    pub(crate) spec: HubSpec,
    queue: Mutex<Queue<Chans>>,
    /// Clients that acknowledge what they take.
    holders: Mutex<HashMap<ReceiverKey, Arc<Holder>>>,
    drained: watch::Sender<bool>,
    /// Where values go that nobody acknowledged in as many attempts as they may have.
    dead: OnceLock<Arc<Hub>>,
    timer: Timer,
    dispatcher: Dispatcher,
    started: Instant,
}

impl Hub {
    pub(crate) fn new(keeper: Weak<dyn Keeper>, spec: HubSpec) -> Arc<Self> {
        let mut queue = Queue::new(spec.capacity);
        let policy = queue.policy_mut();
        policy.set_attempts_max(spec.deliveries.attempts_max);
        policy.set_bytes_max(spec.bytes_max);
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            keeper,
            spec,
            queue: Mutex::new(queue),
            holders: Mutex::default(),
            drained: watch::Sender::new(false),
            dead: OnceLock::new(),
            timer: Timer::default(),
            dispatcher: Dispatcher::default(),
            started: Instant::now(),
        })
    }

    pub(crate) const fn capacity(&self) -> u64 {
        self.spec.capacity
    }

    fn holder_options(&self) -> HolderOptions {
        let DeliveryLimits { unacked_max, lease, .. } = self.spec.deliveries;
        HolderOptions { lease_millis: lease.map(timer::millis_of), ..HolderOptions::new(unacked_max) }
    }

    /// Calls `f` with the queue, and the one that results go into, under their locks: in the order of their addresses, so that
    /// two queues whose results go into each other do not wait for each other.
    fn with_results<R>(
        &self,
        results: Option<&Arc<Self>>,
        f: impl FnOnce(&mut Queue<Chans>, Option<Option<&mut Queue<Chans>>>) -> R,
    ) -> R {
        let Some(other) = results.filter(|other| !std::ptr::eq(self, &***other)) else {
            let mut queue = patience::lock(&self.queue);
            queue.advance(self.millis());
            let result = f(&mut queue, results.map(|_| None));
            self.note_time(&mut queue);
            let timeout = queue.poll_timeout();
            drop(queue);
            self.arm(timeout);
            return result;
        };
        let (mut queue, mut into);
        if std::ptr::from_ref(self) < Arc::as_ptr(other) {
            queue = patience::lock(&self.queue);
            into = patience::lock(&other.queue);
        } else {
            into = patience::lock(&other.queue);
            queue = patience::lock(&self.queue);
        }
        queue.advance(self.millis());
        into.advance(other.millis());
        let result = f(&mut queue, Some(Some(&mut into)));
        self.note_time(&mut queue);
        other.note_time(&mut into);
        let timeouts = (queue.poll_timeout(), into.poll_timeout());
        drop((queue, into));
        self.arm(timeouts.0);
        other.arm(timeouts.1);
        result
    }

    fn note_time(&self, queue: &mut Queue<Chans>) {
        if queue.wants_time() {
            queue.note_time(self.micros());
        }
    }

    /// Calls `f` under the lock, and then does what follows from it.
    fn run<R>(&self, f: impl FnOnce(&mut Queue<Chans>, &mut Out) -> R) -> R {
        self.run_on(patience::lock(&self.queue), f)
    }

    fn run_on<R>(
        &self,
        mut queue: MutexGuard<'_, Queue<Chans>>,
        f: impl FnOnce(&mut Queue<Chans>, &mut Out) -> R,
    ) -> R {
        let mut out = Out::default();
        queue.advance(self.millis());
        let result = f(&mut queue, &mut out);
        self.note_time(&mut queue);
        let timeout = queue.poll_timeout();
        drop(queue);
        self.follow(out);
        self.arm(timeout);
        result
    }

    /// Does what is left to do once no lock is held.
    fn follow(&self, out: Out) {
        let Output { sources, sinks, streams, wakers, news, dispatch_due } = out;
        wakers.into_iter().for_each(Waker::wake);
        sources.iter().for_each(|(chan, urgency)| chan.report(*urgency));
        sinks.iter().for_each(|chan| chan.kick(false));
        streams.iter().for_each(SendChan::kick_later);
        news.into_iter().for_each(|news| self.tell(news));
        if dispatch_due {
            self.dispatcher.notify(self);
        }
    }

    fn tell(&self, news: News<Chans>) {
        match news {
            News::Closed => {
                if let Some(keeper) = self.keeper.upgrade() {
                    keeper.closed(self);
                }
            }
            News::Finished => {
                self.drained.send_replace(true);
                if let Some(keeper) = self.keeper.upgrade() {
                    keeper.finished(self);
                }
                if let Some(dead) = self.dead.get() {
                    dead.close(CloseReason::new(0, ""));
                }
            }
            News::Dead(item) => self.bury(item),
            News::Fenced(key, number) => {
                if let Some(holder) = self.holder(key) {
                    holder.fenced(number);
                }
            }
            News::Left(key) => {
                let holder = self.holders.lock().remove(&key);
                if let Some(holder) = holder {
                    holder.gone();
                }
            }
            News::Stopped { peer, why } => {
                let channel = &self.spec.name;
                match why {
                    Stopped::TooLong { bytes_max } => {
                        tracing::warn!(%channel, %peer, bytes_max, "a value is longer than this client takes; others get it");
                    }
                    Stopped::Stalled => {
                        tracing::warn!(%channel, %peer, "client stopped: what it had was neither used nor returned");
                    }
                    Stopped::Violation(violation) => {
                        tracing::warn!(%channel, %peer, %violation, "client stopped");
                    }
                }
            }
        }
    }

    /// The holder at the other end of a channel of deliveries.
    fn holder(&self, key: ReceiverKey) -> Option<Arc<Holder>> {
        self.holders.lock().get(&key).cloned()
    }

    /// Ends the channel: no more values come in, those that are here go out.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.run(|queue, out| queue.close(reason.into(), out));
    }

    /// Ends the channel at once: what is here is dropped, and everyone is told.
    pub(crate) fn abort(&self, reason: CloseReason) {
        self.run(|queue, out| queue.abort(reason.into(), out));
        self.drained.send_replace(true);
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.queue.lock().closed().map(CloseReason::from)
    }

    pub(crate) async fn wait_drained(&self) {
        let mut drained = self.drained.subscribe();
        _ = drained.wait_for(|drained| *drained).await;
    }

    /// Values that were accepted and are not settled: nobody is known to have taken them.
    pub(crate) fn untaken(&self) -> u64 {
        let here = self.queue.lock().policy().here() as u64;
        here + self.dead.get().map_or(0, |dead| dead.untaken())
    }

    pub(crate) fn survey(&self) -> HostedInfo {
        let queue = self.queue.lock();
        let hosted = queue.policy();
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
            bytes_max: self.spec.bytes_max,
        }
    }

    /// Where dead values are received, if values die here. It has room for as many as the channel itself: what finds none goes
    /// on being tried (`DEL-7`).
    pub(crate) fn dead(&self) -> Option<&Arc<Self>> {
        self.spec.deliveries.attempts_max?;
        Some(self.dead.get_or_init(|| {
            let HubSpec { name, label, codec, .. } = &self.spec;
            let spec = HubSpec {
                name: Arc::clone(name),
                label: label.clone(),
                codec: codec.clone(),
                fingerprint: self.spec.fingerprint,
                access: Access { may_send: false, may_receive: false },
                capacity: self.spec.capacity.max(1),
                deliveries: DeliveryLimits { attempts_max: None, ..self.spec.deliveries },
                bytes_max: self.spec.bytes_max,
                when_slow: self.spec.when_slow,
            };
            Self::new(Weak::<engine::Nobody>::new(), spec)
        }))
    }

    fn bury(&self, item: Item<Option<Peer>>) {
        let attempts = item.attempts;
        let buried = self.dead().is_some_and(|dead| dead.take_dead(&item));
        if buried {
            tracing::debug!(channel = %self.spec.name, attempts, "a value is dead");
            self.run(|queue, out| queue.buried(out));
        } else {
            tracing::debug!(channel = %self.spec.name, "no room for a dead value: it is tried again");
            self.run(|queue, out| queue.revive(item, out));
        }
    }
}
