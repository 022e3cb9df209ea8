//! A hosted queue with all its ends: the policy of [`hosted`](crate::hosted), the halves of clients that it serves, the tasks of
//! this process that wait on it, and the order in which everything is done.
//!
//! [`Queue`] is pure: time is an argument, halves are reached through [`Ports`], wakers are handed out and never called. Each
//! method first changes what there is, then carries out what follows from it: it moves runs of values into the halves they are
//! for, grants, recalls, settles. What is left for the caller, once it holds no lock, is in [`Output`]. The shell and the
//! simulation drive these same objects.
//!
//! Effects of the policy are noted right after the call that caused them and carried out then; no call of the policy happens in
//! the middle. What would have to survive a restart is told as facts
//! ([`Hosted::poll_fact`](crate::hosted::Hosted::poll_fact)).

mod asks;
mod holder;
mod local;
mod pace;
mod sinks;
mod sources;
mod stopped;
mod store;
mod wait;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;

use crate::channel::{CloseReason, RecvHalf, SendHalf, close_code};
use crate::flow::Urgency;
use crate::hosted::{Effect, Hosted, Item, Leave, ReceiverKey, SenderKey, Violation};
use crate::planted::{self, Mutant};
use sinks::Sink;
use smallvec::SmallVec;
use sources::Source;
use store::Store;

pub use holder::{Asked, HolderEnd, Parked};
pub use local::{Acquired, Offered, Taken};
pub use sinks::{Moved, NoPlace};
pub use wait::{Ticket, WaitQueue};

/// How a queue reaches what is at the other side of its ends.
pub trait Ports: Sized {
    /// Reaches the receiving half of a client that sends.
    type Source: Clone;
    /// Reaches the sending half of a client that receives.
    type Sink: Clone;
    /// Who somebody is.
    type Peer: Clone + std::fmt::Debug;

    /// Calls `f` with the half, unless it is gone.
    fn with_source<R>(source: &Self::Source, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R>;

    /// Calls `f` with the half, unless it is gone.
    fn with_sink<R>(sink: &Self::Sink, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R>;

    /// Asks the client at the other end for a sign of life; what is returned is for [`Self::has_answered`].
    fn probe(_half: Half<'_, Self>) -> u64 {
        0
    }

    /// Whether the client has answered that. What was said to it before, it has heard then.
    fn has_answered(_half: Half<'_, Self>, _probe: u64) -> bool {
        true
    }
}

/// One half of a channel to a client.
pub enum Half<'a, P: Ports> {
    /// Of one that sends.
    Source(&'a P::Source),
    /// Of one that receives.
    Sink(&'a P::Sink),
}

impl<P: Ports> Clone for Half<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Ports> Copy for Half<'_, P> {}

/// Whether a client that seems to have stalled has answered since that was first seen. It is asked, if it was not.
fn has_answered<P: Ports>(probe: &mut Option<u64>, half: Half<'_, P>) -> bool {
    match *probe {
        Some(probe) => P::has_answered(half, probe),
        None => {
            *probe = Some(P::probe(half));
            false
        }
    }
}

/// What is to be done once no lock is held. What a single value amounts to needs no allocation.
pub struct Output<P: Ports> {
    /// Halves with something to say, and how soon.
    pub sources: SmallVec<[(P::Source, Urgency); 2]>,
    /// Halves with something to send.
    pub sinks: SmallVec<[P::Sink; 2]>,
    /// Halves with something to send that gain by waiting a moment for more: their receivers take as fast as values come.
    pub streams: SmallVec<[P::Sink; 2]>,
    /// Tasks that may go on.
    pub wakers: SmallVec<[Waker; 2]>,
    /// What else is new.
    pub news: Vec<News<P>>,
    /// [`Queue::dispatch`] is to be called before long: values wait to go out together.
    pub dispatch_due: bool,
}

impl<P: Ports> Default for Output<P> {
    fn default() -> Self {
        Self {
            sources: SmallVec::new(),
            sinks: SmallVec::new(),
            streams: SmallVec::new(),
            wakers: SmallVec::new(),
            news: Vec::new(),
            dispatch_due: false,
        }
    }
}

/// What a queue has to tell.
pub enum News<P: Ports> {
    /// It takes no more values.
    Closed,
    /// Nothing is in it any more, and nothing comes.
    Finished,
    /// Nobody acknowledges a value: it is to be set aside, or given back with [`Queue::revive`].
    Dead(Item<Option<P::Peer>>),
    /// A holder has lost a delivery, or may not have it.
    Fenced(ReceiverKey, u64),
    /// A client was stopped on account of what it did.
    Stopped {
        /// Who.
        peer: P::Peer,
        /// What.
        why: Stopped,
    },
    /// A receiver is gone: whatever was kept for it can go.
    Left(ReceiverKey),
}

/// Why a client's channel was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It broke a rule.
    Violation(Violation),
    /// It neither used nor returned what others waited for.
    Stalled,
    /// A value is longer than it takes; others get it.
    TooLong {
        /// What it takes.
        bytes_max: usize,
    },
}

/// All local sends of a buffered channel act as one sender.
const LOCAL_SENDER: SenderKey = SenderKey(0);
/// All local receives act as one receiver.
const LOCAL_RECEIVER: ReceiverKey = ReceiverKey(0);

/// A hosted queue; see the [module](self).
pub struct Queue<P: Ports> {
    hosted: Hosted<Option<P::Peer>>,
    next_key: u64,
    sources: BTreeMap<SenderKey, Source<P>>,
    sinks: BTreeMap<ReceiverKey, Sink<P>>,
    local: local::Local,
    closed: Option<CloseReason>,
    finished: bool,
    store: Store,
    /// Values on their way out of a half, a run at a time.
    run: Vec<sources::Arrived>,
    /// Senders whose values wait in their halves, because of the bytes that are here.
    held_up: VecDeque<SenderKey>,
    /// Receivers by key of the client that has them.
    subscriptions: HashMap<u128, usize>,
    stopped: stopped::StoppedClients,
    ahead_max: u64,
    /// Receivers that had nothing, and for which values have left: when, is not noted yet.
    untimed: Vec<ReceiverKey>,
}

impl<P: Ports> std::fmt::Debug for Queue<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("hosted", &self.hosted).finish_non_exhaustive()
    }
}

impl<P: Ports> Queue<P> {
    /// A queue of this capacity.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let mut hosted = Hosted::new(capacity);
        hosted.add_sender(LOCAL_SENDER);
        hosted.add_receiver(LOCAL_RECEIVER);
        Self {
            hosted,
            next_key: 1,
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            local: local::Local::default(),
            closed: None,
            finished: false,
            store: Store::default(),
            run: Vec::new(),
            held_up: VecDeque::new(),
            subscriptions: HashMap::new(),
            stopped: stopped::StoppedClients::default(),
            ahead_max: u64::MAX,
            untimed: Vec::new(),
        }
    }

    /// What decides: for questions, and for settings before anything comes.
    #[must_use]
    pub const fn policy(&self) -> &Hosted<Option<P::Peer>> {
        &self.hosted
    }

    /// As [`Self::policy`], to set it up.
    pub const fn policy_mut(&mut self) -> &mut Hosted<Option<P::Peer>> {
        &mut self.hosted
    }

    /// Sends at most so many values ahead to a receiver, however fast it takes them.
    pub const fn set_ahead_max(&mut self, ahead_max: u64) {
        self.ahead_max = ahead_max;
    }

    /// Why it takes no more values, if so.
    #[must_use]
    pub const fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// Whether nothing is in it any more, and nothing comes.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key - 1
    }

    /// Ends the channel: no more values come in, those that are here go out. Everyone who sends is told at once.
    pub fn close(&mut self, reason: CloseReason, out: &mut Output<P>) {
        if self.closed.is_some() {
            return;
        }
        for source in self.sources.values() {
            source.tell(&mut *out, |half| half.announce_closing(reason.clone()));
        }
        self.closed = Some(reason);
        self.hosted.close();
        self.local.senders.wake_all(&mut out.wakers);
        self.local.watchers.wake_all(&mut out.wakers);
        out.news.push(News::Closed);
        self.carry_out(out);
        self.stop_all_done(out);
    }

    /// Ends the channel at once: what is here is dropped, and everyone is told.
    pub fn abort(&mut self, reason: CloseReason, out: &mut Output<P>) {
        self.close(reason, out);
        let keys: Vec<_> = self.sources.keys().copied().collect();
        keys.into_iter().for_each(|key| self.hosted.remove_sender(key));
        self.carry_out(out);
        self.finish(out);
    }

    /// Time has come this far, in milliseconds.
    pub fn advance(&mut self, now_millis: u64) {
        self.hosted.advance(now_millis);
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.hosted.poll_timeout()
    }

    /// Does what time has come for.
    pub fn handle_timeout(&mut self, now_millis: u64, out: &mut Output<P>) {
        self.hosted.handle_timeout(now_millis);
        self.carry_out(out);
    }

    /// A value that was told [`News::Dead`] has found another place.
    pub fn buried(&mut self, out: &mut Output<P>) {
        self.hosted.buried();
        self.carry_out(out);
    }

    /// A value that was told [`News::Dead`] has found no other place, and is tried again.
    pub fn revive(&mut self, item: Item<Option<P::Peer>>, out: &mut Output<P>) {
        self.hosted.revive(item);
        self.carry_out(out);
    }

    /// Does what the policy decided.
    fn carry_out(&mut self, out: &mut Output<P>) {
        loop {
            while let Some(effect) = self.hosted.poll_effect() {
                self.carry_out_one(effect, out);
            }
            if !self.take_held_up(out) {
                break;
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect<Option<P::Peer>>, out: &mut Output<P>) {
        match effect {
            Effect::Deliver { to: LOCAL_RECEIVER } => self.wake_receivers(out),
            Effect::Deliver { to } if self.wake_holder(to, out) => {}
            Effect::Deliver { to } => self.send_run(to, out),
            Effect::Grant { to: LOCAL_SENDER, limit } => self.local_granted(limit, out),
            Effect::Grant { to, limit } => self.tell_source(to, out, |half| half.lease(limit)),
            Effect::Recall { from: LOCAL_SENDER } => self.local_recalled(),
            Effect::Recall { from } => self.tell_source(from, out, RecvHalf::recall_lease),
            Effect::Settled { sender: LOCAL_SENDER, prefix, .. } => {
                self.local.taken = prefix;
                self.local.watchers.wake_all(&mut out.wakers);
            }
            Effect::Settled { sender, prefix, .. } => {
                if !self.settle_offer(sender, true, out) {
                    self.tell_source(sender, out, |half| half.settle(prefix));
                    self.stop_if_done(sender, out);
                }
            }
            Effect::Withdrawn { to, seq, withdrawn } => {
                if !self.settle_offer(to, !withdrawn, out) {
                    self.tell_source(to, out, |half| half.answer_withdraw(seq, withdrawn));
                    self.stop_if_done(to, out);
                }
            }
            Effect::Fenced { to, number } => out.news.push(News::Fenced(to, number)),
            Effect::Dead { item } => out.news.push(News::Dead(item)),
            Effect::CallBack { from } => self.call_back(from, out),
            Effect::StalledReceiver { key } => self.stalled_receiver(key, out),
            Effect::StalledSender { key } => self.stalled_source(key, out),
            Effect::Finished => self.finish(out),
        }
    }

    fn finish(&mut self, out: &mut Output<P>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.store.park();
        self.local.receivers.wake_all(&mut out.wakers);
        self.local.senders.wake_all(&mut out.wakers);
        self.local.watchers.wake_all(&mut out.wakers);
        let reason = self.closed.clone().unwrap_or_else(CloseReason::plain);
        for sink in self.sinks.values() {
            sink.tell(&mut *out, |half| half.close(reason.clone()));
        }
        self.stop_all_done(out);
        out.news.push(News::Finished);
    }
}

/// What is said to a client that is stopped.
fn reason_of(why: Stopped) -> CloseReason {
    let (code, reason) = match why {
        Stopped::Violation(violation) => (close_code::VIOLATION, violation.to_string()),
        Stopped::Stalled => (
            close_code::STALLED,
            "what this end had was neither used nor returned while others waited for it".to_owned(),
        ),
        Stopped::TooLong { bytes_max } => (
            close_code::ABANDONED,
            format!("a message is longer than this receiver's limit of {bytes_max} bytes"),
        ),
    };
    CloseReason { code, reason }
}

/// How a receiver leaves whose half is as it is.
fn leave_of(half: &SendHalf, orderly: bool) -> Leave {
    let (_, in_doubt) = half.unsettled();
    let in_doubt = if half.peer_closed().is_some() { 0 } else { in_doubt };
    Leave { doubtful: if planted::is(Mutant::UnsentIsDoubtful) { u64::MAX } else { in_doubt }, orderly }
}
