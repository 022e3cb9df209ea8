//! A hosted channel: `make(chan T, C)` that lives at a server, with any number of senders and receivers.
//!
//! [`Hosted`] is policy only: who gets the next value, who may send, what happens when someone leaves. It knows neither
//! sessions nor frames; the shell names senders and receivers by opaque keys and turns each [`Effect`] into operations
//! on the channel of that peer, or of a local handle. After every call, drain [`Hosted::poll_effect`] until it is empty
//! before the next call: an effect describes the state right after the call that caused it.
//!
//! ```
//! use netchan_proto::hosted::{Effect, Hosted, ReceiverKey, SenderKey};
//!
//! let mut tasks = Hosted::<()>::new(64);
//! let (sender, worker) = (SenderKey(1), ReceiverKey(1));
//! tasks.add_sender(sender);
//! tasks.add_receiver(worker);
//!
//! tasks.demand(worker, 1)?; // a `recv` waits
//! assert!(tasks.try_lease(sender));
//! tasks.push(sender, 0, "task".into())?;
//! assert_eq!(tasks.poll_effect(), Some(Effect::Deliver { to: worker }));
//! assert_eq!(tasks.next_unsent(worker).map(|item| &item.bytes[..]), Some(&b"task"[..]));
//! tasks.mark_sent(worker); // it is on its way
//!
//! tasks.taken(worker, 1)?; // `recv` has returned it
//! assert_eq!(tasks.poll_effect(), Some(Effect::Settled { sender, prefix: 1, count: 1 }));
//! # Ok::<(), netchan_proto::hosted::Violation>(())
//! ```
//!
//! The rules, `HOST-1` to `HOST-28` and `DEL-1` to `DEL-15`, are in `docs/SPEC.md`. In short:
//!
//! - *Receivers.* A value leaves for the `recv` that has waited longest, or ahead of one where a single receiver asks, and stays
//!   here too until it is known taken. What a receiver gives back returns to its place at the head.
//! - *Senders, C ≥ 1.* Credit is one pool, leased on demand and recalled from those that hold it idle.
//! - *Senders, C = 0.* Each has at most one offer here; taking it is the rendezvous.

mod assigned;
mod broadcast;
mod dispatching;
mod facts;
mod held;
mod holders;
mod lease;
mod line;
mod pool;
mod progress;
mod queries;
mod queue;
mod receivers;
mod senders;
mod sending;
mod shares;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::limits::{CAPACITY_ITEMS_MAX, PASSED_OVER_MILLIS, QUEUE_BYTES_MAX_DEFAULT};
use crate::planted::{self, Mutant};
use held::Held;
use queue::Queue;
pub(crate) use receivers::NextTaker;
use receivers::Receivers;
use senders::Senders;

pub use crate::limits::DEMAND_UNITS_MAX;
pub use broadcast::{Broadcast, BroadcastLimits, Next, NotSent, WhenSlow};
pub use facts::{Durable, DurableItem, DurablePlace, DurableSender, Fact};
pub use holders::HolderOptions;
pub use types::{Effect, Item, Leave, ReceiverKey, SenderKey, Violation, Withdraw};

/// So many values may be taken before their senders hear of it.
const UNTOLD_MAX: usize = 64;
/// They hear of it after so long at most. As long as any end takes its time over news that nobody waits for.
const TELL_AFTER_MILLIS: u64 = 10;

/// The policy of one hosted channel; see the [module](self). `T` says who sent a value.
///
/// Invariants, after every call:
/// - each value that is here is in `queue`, in `delayed`, or in flight to or held by exactly one receiver; while it is not
///   settled it is counted once in what is lent;
/// - `queue` is empty or no demand waits (`HOST-9`), unless a receiver has been called back (`HOST-24`);
/// - credit is free only if nobody's turn is due (`HOST-9`).
#[derive(Debug)]
pub struct Hosted<T = ()> {
    senders: Senders,
    receivers: Receivers<T>,
    queue: Queue<T>,
    /// Values that wait to be tried again, by time and ticket, and who put them off.
    delayed: BTreeMap<(u64, u64), (ReceiverKey, Item<T>)>,
    attempts_max: Option<u32>,
    /// The time, in milliseconds from any origin.
    now: u64,
    /// Values that were declared dead and may come back.
    dying: usize,
    /// Values that went out again, and that died, so far.
    redelivered: u64,
    dead: u64,
    held_bytes: u64,
    bytes_max: u64,
    finished: bool,
    /// Values that were taken and of which nobody has been told, and when that is to be made good.
    untold: usize,
    tell_at: Option<u64>,
    effects: VecDeque<Effect<T>>,
    /// What must survive, if anybody wants to know.
    facts: Option<VecDeque<Fact<T>>>,
}

impl<T: Clone> Hosted<T> {
    /// A channel of this capacity, in items; above [`CAPACITY_ITEMS_MAX`] it counts as that.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            senders: Senders::new(capacity.min(CAPACITY_ITEMS_MAX)),
            receivers: Receivers::new(capacity.min(CAPACITY_ITEMS_MAX)),
            queue: Queue::default(),
            delayed: BTreeMap::new(),
            attempts_max: None,
            now: 0,
            dying: 0,
            redelivered: 0,
            dead: 0,
            held_bytes: 0,
            bytes_max: QUEUE_BYTES_MAX_DEFAULT,
            finished: false,
            untold: 0,
            tell_at: None,
            effects: VecDeque::new(),
            facts: None,
        }
    }

    /// Once it holds so many bytes, no credit is granted until some are gone (`HOST-27`).
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
        self.receivers.set_bytes_max(bytes_max);
    }

    /// Time has come this far. It never goes back.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.senders.advance(self.now);
        self.receivers.advance(self.now);
    }

    /// The time, as last told.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect<T>> {
        self.effects.pop_front()
    }

    /// The oldest value that is the receiver's and has not left for it.
    pub fn next_unsent(&mut self, key: ReceiverKey) -> Option<&Item<T>> {
        self.receivers.next_unsent(key)
    }

    /// The receiver cannot take the [`Self::next_unsent`], for which it waits: another gets it, or it rests for a while. That
    /// is no attempt.
    pub fn pass_over(&mut self, key: ReceiverKey) {
        let Some(mut item) = self.receivers.take_unsent(key) else { return };
        item.refused_by = Some(key);
        if self.receivers.others_wait(key) {
            self.requeue(item);
        } else {
            let at = self.now.saturating_add(PASSED_OVER_MILLIS);
            self.delay(None, item, at);
        }
        // It waits still, for another.
        _ = self.receivers.demand(key, 1);
        self.settle();
    }

    /// Gives `send` each value that is the receiver's and has not left for it, oldest first, until it says that one did not leave.
    pub(crate) fn send_unsent(&mut self, key: ReceiverKey, send: impl FnMut(&Item<T>) -> bool) {
        self.receivers.send_unsent(key, send);
    }

    /// The [`Self::next_unsent`] has left.
    pub fn mark_sent(&mut self, key: ReceiverKey) {
        self.receivers.mark_sent(key);
    }

    /// Nothing more can be sent to the receiver now: what has not left goes back to the head, and what it waits for waits
    /// outside the line (`HOST-25`). [`Self::unblock`] follows.
    pub fn block(&mut self, key: ReceiverKey) {
        let unsent = self.receivers.unsent_of(key);
        let keep = self.receivers.in_flight_of(key) as u64 - unsent;
        self.receivers.block(key);
        let returned = self.receivers.give_back(key, keep, self.now).unwrap_or_default();
        returned.into_iter().for_each(|item| self.put_back(item, false));
        // What went back is waited for still.
        _ = self.receivers.demand(key, unsent);
        self.settle();
    }

    /// Something can be sent to the receiver again.
    pub fn unblock(&mut self, key: ReceiverKey) {
        self.receivers.unblock(key);
        self.settle();
    }

    /// Adds a receiver. False if it is there already.
    pub fn add_receiver(&mut self, key: ReceiverKey) -> bool {
        self.receivers.add(key, None, None)
    }

    /// Adds a receiver for `client`, whose receivers share a part of the channel (`HOST-28`); it acknowledges what it takes if `holder`
    /// says how. False if it is there already.
    pub fn add_receiver_of(
        &mut self,
        client: Option<u128>,
        key: ReceiverKey,
        holder: Option<HolderOptions>,
    ) -> bool {
        self.receivers.add(key, holder.map(Held::new), client)
    }

    /// The receiver is gone: its demand vanishes and all it held goes back (`HOST-4`).
    pub fn remove_receiver(&mut self, key: ReceiverKey, leave: Leave) {
        let Some(receiver) = self.receivers.remove(key) else { return };
        let holds = receiver.held.is_some();
        if let Some(held) = receiver.held {
            self.call_off(&held);
            for item in held.into_items() {
                // It may have worked at it.
                if leave.orderly { self.put_back(item, true) } else { self.retry(item) }
            }
        }
        for (at, item) in (0..).zip(receiver.in_flight) {
            let Some(item) = item else { continue };
            let doubtful = at < leave.doubtful;
            if holds && doubtful && !leave.orderly {
                self.retry(item);
            } else {
                self.put_back(item, doubtful);
            }
        }
        self.settle();
    }

    /// So many more `recv`s wait there; they join the tail of the line (`HOST-2`).
    ///
    /// # Errors
    /// The receiver is unknown, or waits for more than [`DEMAND_UNITS_MAX`].
    pub fn demand(&mut self, key: ReceiverKey, units: u64) -> Result<(), Violation> {
        self.receivers.demand(key, units)?;
        self.settle();
        Ok(())
    }

    /// As [`Self::demand`], for a receiver that says up to which of its values it waits; values that were sent ahead answer
    /// the first of its receives (`HOST-23`).
    ///
    /// # Errors
    /// As [`Self::demand`].
    pub fn want_values_up_to(&mut self, key: ReceiverKey, wanted: u64) -> Result<(), Violation> {
        self.receivers.want_up_to(key, wanted)?;
        self.settle();
        Ok(())
    }

    /// Up to `ahead_max` values may be with the receiver although it has not asked for them, while nobody else waits
    /// (`HOST-23`). 0 where values go only to a receive that waits.
    pub fn send_ahead(&mut self, key: ReceiverKey, ahead_max: u64) {
        // An offer is taken by a receive that waits, or not at all.
        if self.capacity() > 0 {
            self.receivers.set_ahead(key, ahead_max);
            self.settle();
        }
    }

    /// So many of its `recv`s stopped waiting, newest first. Returns how many had not been served: for the rest a value
    /// is on its way.
    pub fn cancel_demand(&mut self, key: ReceiverKey, units: u64) -> u64 {
        self.receivers.cancel(key, units)
    }

    /// `recv` has returned the oldest `n` values that were in flight to this receiver (`HOST-5`).
    ///
    /// # Errors
    /// Fewer are in flight.
    pub fn taken(&mut self, key: ReceiverKey, n: u64) -> Result<(), Violation> {
        self.take_run(key, n)?;
        self.settle();
        Ok(())
    }

    /// Takes the oldest value that is in flight to this receiver, and returns it; [`Self::settle`] follows.
    pub(crate) fn take_one(&mut self, key: ReceiverKey) -> Option<Item<T>> {
        let item = self.receivers.map.get(&key)?.in_flight.front()?.clone();
        self.take_run(key, 1).ok()?;
        item
    }

    /// Takes the first of the queue, where nobody waits for it nor for the credit that comes free, and its sender may hear of it
    /// with others; [`Self::poll_timeout`] sees that it does. `None`, and nothing is done, in all other cases.
    pub(crate) fn take_front(&mut self, by: ReceiverKey) -> Option<Item<T>> {
        let nobody_waits = self.receivers.units() == 0 && self.senders.pool().waiting() == 0;
        let in_order = self.receivers.is_only_asker(by) && self.receivers.in_flight_of(by) == 0;
        let plain = self.capacity() > 0 && !self.is_closed() && self.is_within_bytes();
        if !nobody_waits || !in_order || !plain || self.untold >= UNTOLD_MAX {
            return None;
        }
        let item = self.queue.pop()?;
        self.untold += 1;
        self.tell_at.get_or_insert(self.now.saturating_add(TELL_AFTER_MILLIS));
        self.leaves_queue(&item);
        if !planted::is(Mutant::TakenUntold) || item.ticket % 3 > 0 {
            self.count_as_taken(&item);
        }
        self.held_bytes -= item.bytes.len() as u64;
        self.note(|| Fact::Dispatched { ticket: item.ticket, to: by });
        self.note(|| Fact::Gone { ticket: item.ticket });
        Some(item)
    }

    /// As [`Self::want_values_up_to`]; [`Self::settle`] follows.
    pub(crate) fn want_more(&mut self, key: ReceiverKey, wanted: u64) -> Result<(), Violation> {
        self.receivers.want_up_to(key, wanted)
    }

    /// As [`Self::send_ahead`]; [`Self::settle`] follows.
    pub(crate) fn set_ahead(&mut self, key: ReceiverKey, ahead_max: u64) {
        if self.capacity() > 0 {
            self.receivers.set_ahead(key, ahead_max);
        }
    }

    /// Whether the receiver holds anything.
    pub(crate) fn holds_any(&self, key: ReceiverKey) -> bool {
        self.receivers
            .map
            .get(&key)
            .and_then(|receiver| receiver.held.as_ref())
            .is_some_and(|held| held.len() > 0)
    }

    /// As [`Self::taken`]; [`Self::settle`] follows.
    pub(crate) fn take_run(&mut self, key: ReceiverKey, n: u64) -> Result<(), Violation> {
        let Self { senders, effects, held_bytes, facts, now, .. } = self;
        self.receivers.take(key, n, *now, |item, number, settles| {
            if settles && !item.settled {
                senders.settle_taken(item.origin, item.seq, effects);
                item.settled = true;
            }
            if number.is_none() {
                *held_bytes -= item.bytes.len() as u64;
            }
            if let Some(facts) = facts {
                let (ticket, settled) = (item.ticket, item.settled);
                facts.push_back(match number {
                    Some(number) => Fact::Held { ticket, by: key, number, settled },
                    None => Fact::Gone { ticket },
                });
            }
        })
    }

    /// The receiver will not take what it holds after the oldest `keep`: those values go back to their places at the
    /// head, in order; nobody has received them (`HOST-4`). Returns how many. The demand they had answered is used up.
    ///
    /// # Errors
    /// Fewer than `keep` are in flight.
    pub fn give_back(&mut self, key: ReceiverKey, keep: u64) -> Result<usize, Violation> {
        let returned = self.receivers.give_back(key, keep, self.now)?;
        let count = returned.len();
        for item in returned {
            if planted::is(Mutant::LostOnTheWayBack) && item.ticket % 4 == 3 {
                self.count_as_taken(&item);
                continue;
            }
            self.put_back(item, planted::is(Mutant::FlaggedThoughNotTaken));
        }
        self.receivers.answered(key);
        self.settle();
        Ok(count)
    }

    /// The receiver's link is gone, or there is one again. It is asked for nothing meanwhile: what it may have stays its own.
    pub fn set_away(&mut self, key: ReceiverKey, away: bool) {
        self.receivers.set_away(key, away, self.now);
        self.settle();
    }

    /// After [`Effect::StalledReceiver`]: nothing at all was heard of it since it was asked, so it has as long again.
    pub fn excuse_receiver(&mut self, key: ReceiverKey) {
        self.receivers.excuse(key, self.now);
    }

    /// Ends the channel: no more credit, and leases are recalled; what was committed under them still arrives and is
    /// delivered, then comes [`Effect::Finished`] (`HOST-18`, `HOST-20`). Where C = 0, offers nobody holds are withdrawn
    /// (`HOST-19`). To end without waiting for an absent sender, remove it.
    pub fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        self.note(|| Fact::Closed);
        self.senders.close(&mut self.effects);
        if self.capacity() == 0 {
            for item in self.queue.clear() {
                if item.settled {
                    self.queue.put_back(item);
                    continue;
                }
                self.held_bytes -= item.bytes.len() as u64;
                self.note(|| Fact::Gone { ticket: item.ticket });
                self.senders.refuse(item.origin, item.seq, &mut self.effects);
            }
        }
        self.settle();
    }

    fn unqueue(&mut self, ticket: u64) {
        if let Some(item) = self.queue.remove(ticket) {
            self.held_bytes -= item.bytes.len() as u64;
            self.note(|| Fact::Gone { ticket });
        }
    }

    fn requeue(&mut self, item: Item<T>) {
        let redelivered = item.redelivered;
        self.put_back(item, redelivered);
    }

    /// Back to its place at the head, unless its sender has withdrawn it.
    fn put_back(&mut self, mut item: Item<T>, may_have_been_received: bool) {
        item.redelivered |= may_have_been_received;
        let stays =
            item.settled || self.senders.take_back(item.origin, item.seq, item.ticket, &mut self.effects);
        if stays {
            let (ticket, redelivered, attempts) = (item.ticket, item.redelivered, item.attempts);
            self.note(|| Fact::Back { ticket, redelivered, attempts });
            self.queue.put_back(item);
        } else {
            self.held_bytes -= item.bytes.len() as u64;
            self.note(|| Fact::Gone { ticket: item.ticket });
        }
    }

    fn count_as_taken(&mut self, item: &Item<T>) {
        if !item.settled {
            self.senders.settle_taken(item.origin, item.seq, &mut self.effects);
        }
    }

    fn is_within_bytes(&self) -> bool {
        self.held_bytes < self.bytes_max || self.here() == 0
    }

    /// Whether no more values are to come in until some are gone (`HOST-27`).
    #[must_use]
    pub fn is_full_of_bytes(&self) -> bool {
        !self.is_within_bytes()
    }

    /// How many bytes may still come in; one value may be longer.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.held_bytes).max(u64::from(self.here() == 0))
    }
}

impl Hosted {
    /// As [`Hosted::push_from`], where nobody asks who sent it.
    ///
    /// # Errors
    /// As [`Hosted::push_from`].
    pub fn push(&mut self, key: SenderKey, seq: u64, bytes: Bytes) -> Result<(), Violation> {
        self.push_from(key, seq, (), bytes, false)
    }
}
