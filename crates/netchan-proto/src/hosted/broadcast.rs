//! A hosted broadcast: every subscriber gets its own copy of every value, what is assigned first (`CAST-1` to `CAST-8`).
//!
//! Policy only, as [`Hosted`](super::Hosted): a log of the last values that all subscribers share, and for each where it
//! stands. A value is here once, however many wait for it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::ReceiverKey;
use super::assigned::{Assigned, Reading};
use crate::limits::{ASSIGNED_BYTES_MAX_DEFAULT, ASSIGNED_ITEMS_MAX_DEFAULT, LOG_BYTES_MAX_DEFAULT};
use crate::planted::{self, Mutant};

/// What becomes of a subscriber that is so slow that the log has no room for the next value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenSlow {
    /// It loses the oldest values, and is told how many.
    #[default]
    Lag,
    /// Senders wait for it.
    Block,
    /// Its subscription ends.
    Disconnect,
}

/// What a broadcast may hold.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastLimits {
    /// Values in the log, at least 1.
    pub capacity: u64,
    /// Bytes in the log; one value is there whatever its length.
    pub log_bytes_max: u64,
    /// Assigned values that are kept.
    pub assigned_items_max: usize,
    /// Their bytes.
    pub assigned_bytes_max: u64,
}

impl Default for BroadcastLimits {
    fn default() -> Self {
        Self {
            capacity: 64,
            log_bytes_max: LOG_BYTES_MAX_DEFAULT,
            assigned_items_max: ASSIGNED_ITEMS_MAX_DEFAULT,
            assigned_bytes_max: ASSIGNED_BYTES_MAX_DEFAULT,
        }
    }
}

/// A value was not sent; everything is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// A subscriber that may not lag has not taken the oldest value.
    #[error("the log is full")]
    Full,
    /// The broadcast is closed.
    #[error("the broadcast is closed")]
    Closed,
    /// More assigned values, or bytes of them, than are kept.
    #[error("more assigned values than are kept")]
    TooManyAssigned,
}

/// What a subscriber is to get next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A value.
    Value {
        /// The encoded value.
        bytes: Bytes,
        /// It was assigned before the subscriber came.
        initial: bool,
    },
    /// So many values were lost to it here.
    Lagged(u64),
    /// It has lost so many values, and may lose none: it must go.
    Expelled(u64),
    /// There will be no more.
    End,
    /// Nothing now.
    Nothing,
}

#[derive(Debug)]
struct Subscriber {
    when_slow: WhenSlow,
    /// What was assigned when it came, as far as it has not got it.
    initial: Reading,
    /// How many values it lost before those.
    lost: u64,
    /// The number of the next value of the log that it gets.
    cursor: u64,
}

/// The policy of one broadcast.
///
/// ```
/// use netchan_proto::hosted::{Broadcast, BroadcastLimits, Next, ReceiverKey, WhenSlow};
///
/// let mut state = Broadcast::new(BroadcastLimits { capacity: 64, ..BroadcastLimits::default() });
/// state.assign("initial".into())?;
/// let late = ReceiverKey(1);
/// state.subscribe(late, WhenSlow::Lag);
/// state.send("live".into())?;
///
/// assert_eq!(state.peek(late), Next::Value { bytes: "initial".into(), initial: true });
/// state.advance(late);
/// assert_eq!(state.peek(late), Next::Value { bytes: "live".into(), initial: false });
/// # Ok::<(), netchan_proto::hosted::NotSent>(())
/// ```
///
/// Invariants, after every call: the log holds the values from `first` to `next`; a subscriber that blocks has its cursor at
/// `first` or above, and at `needed` or above.
#[derive(Debug)]
pub struct Broadcast {
    limits: BroadcastLimits,
    log: VecDeque<Bytes>,
    log_bytes: u64,
    first: u64,
    assigned: Assigned,
    subscribers: BTreeMap<ReceiverKey, Subscriber>,
    /// No subscriber that blocks needs a value below this. There may be a better bound: it is looked for when it matters.
    needed: u64,
    /// Values that subscribers have lost, over all.
    lagged: u64,
    closed: bool,
}

impl Broadcast {
    /// A broadcast without subscribers.
    #[must_use]
    pub fn new(limits: BroadcastLimits) -> Self {
        Self {
            limits: BroadcastLimits { capacity: limits.capacity.max(1), ..limits },
            log: VecDeque::new(),
            log_bytes: 0,
            first: 0,
            assigned: Assigned::new(&limits),
            subscribers: BTreeMap::new(),
            needed: 0,
            lagged: 0,
            closed: false,
        }
    }

    /// Of how many values subscribers were told that they had lost them.
    #[must_use]
    pub const fn lagged(&self) -> u64 {
        self.lagged
    }

    /// How many values have been sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next()
    }

    fn next(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Sends a value to those who are here (`CAST-1`).
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn send(&mut self, bytes: Bytes) -> Result<(), NotSent> {
        if self.closed {
            return Err(NotSent::Closed);
        }
        let len = bytes.len() as u64;
        // `CAST-5`: nothing is dropped that a subscriber which blocks has not got.
        let (mut first, mut log_bytes) = (self.first, self.log_bytes);
        for oldest in &self.log {
            let items = self.next() - first;
            if items < self.limits.capacity && log_bytes + len <= self.limits.log_bytes_max {
                break;
            }
            if first >= self.needed {
                self.needed = self.find_needed();
                if first >= self.needed {
                    return Err(NotSent::Full);
                }
            }
            log_bytes -= oldest.len() as u64;
            first += 1;
        }
        while self.first < first {
            self.drop_oldest();
        }
        if self.subscribers.is_empty() {
            // Nobody will ever ask for it.
            self.first = self.next() + 1;
            self.log.clear();
            self.log_bytes = 0;
            return Ok(());
        }
        self.log.push_back(bytes);
        self.log_bytes += len;
        Ok(())
    }

    /// The oldest value that a subscriber which blocks has not got; the next one if there is none.
    fn find_needed(&self) -> u64 {
        let blocks = |subscriber: &&Subscriber| subscriber.when_slow == WhenSlow::Block;
        let cursors = self.subscribers.values().filter(blocks).map(|subscriber| subscriber.cursor);
        cursors.min().unwrap_or_else(|| self.next())
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.log.pop_front() {
            self.log_bytes -= oldest.len() as u64;
            self.first += 1;
        }
    }

    /// Sends a value to those who are here, and keeps it for those who come later (`CAST-2`).
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn assign(&mut self, bytes: Bytes) -> Result<(), NotSent> {
        if !self.assigned.has_room(bytes.len() as u64) {
            return Err(NotSent::TooManyAssigned);
        }
        self.send(bytes.clone())?;
        self.assigned.push(bytes);
        Ok(())
    }

    /// Replaces what is kept for those who come later, in one step. Those who are here get nothing (`CAST-3`), unless they are so
    /// slow that the lists before the last are too much: then they lose what they have not received and continue with the new list
    /// (`CAST-9`). Says whether that happened.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn set_assignments(&mut self, assigned: Vec<Bytes>) -> Result<bool, NotSent> {
        if self.closed {
            return Err(NotSent::Closed);
        }
        self.assigned.replace(assigned)?;
        let mut gave_up = false;
        while let Some(list) = self.assigned.too_old() {
            self.give_up(list);
            gave_up = true;
        }
        Ok(gave_up)
    }

    /// Subscribers that still read that list begin again with the newest.
    fn give_up(&mut self, list: u64) {
        let next = self.next();
        for subscriber in self.subscribers.values_mut().filter(|subscriber| subscriber.initial.is_of(list)) {
            subscriber.lost += subscriber.initial.left() + next.saturating_sub(subscriber.cursor);
            self.assigned.end(&mut subscriber.initial);
            subscriber.initial = self.assigned.begin();
            subscriber.cursor = next;
        }
    }

    /// Someone comes: first what is assigned now, then every value from here on (`CAST-2`). False if it is here already, or
    /// nothing will come any more.
    pub fn subscribe(&mut self, key: ReceiverKey, when_slow: WhenSlow) -> bool {
        if self.closed || self.subscribers.contains_key(&key) {
            return false;
        }
        let gap = u64::from(planted::is(Mutant::GapAfterAssignments) && !self.assigned.is_empty());
        let cursor = self.next() + gap;
        let initial = self.assigned.begin();
        self.subscribers.insert(key, Subscriber { when_slow, initial, lost: 0, cursor });
        self.needed = self.needed.min(cursor);
        true
    }

    /// Someone leaves.
    pub fn unsubscribe(&mut self, key: ReceiverKey) {
        if let Some(mut subscriber) = self.subscribers.remove(&key) {
            self.assigned.end(&mut subscriber.initial);
        }
    }

    /// What the subscriber is to get next. It stays next until [`Self::advance`].
    #[must_use]
    pub fn peek(&self, key: ReceiverKey) -> Next {
        let Some(subscriber) = self.subscribers.get(&key) else { return Next::End };
        if subscriber.lost > 0 {
            return match subscriber.when_slow {
                WhenSlow::Lag => Next::Lagged(subscriber.lost),
                WhenSlow::Block | WhenSlow::Disconnect => Next::Expelled(subscriber.lost),
            };
        }
        if let Some(bytes) = self.assigned.next(&subscriber.initial) {
            return Next::Value { bytes: bytes.clone(), initial: true };
        }
        // `CAST-4`
        let lost = self.first.saturating_sub(subscriber.cursor);
        if lost > 0 {
            let told = lost + u64::from(planted::is(Mutant::WrongLagCount));
            return match subscriber.when_slow {
                WhenSlow::Lag | WhenSlow::Block => Next::Lagged(told),
                WhenSlow::Disconnect => Next::Expelled(told),
            };
        }
        let at = usize::try_from(subscriber.cursor - self.first).unwrap_or(usize::MAX);
        match self.log.get(at) {
            Some(bytes) => Next::Value { bytes: bytes.clone(), initial: false },
            None if self.closed => Next::End,
            None => Next::Nothing,
        }
    }

    /// Whether one more value of that length may make others leave the log that were sent from number `from` on.
    #[must_use]
    pub fn may_displace(&self, bytes: u64, from: u64) -> bool {
        let full = self.log.len() as u64 >= self.limits.capacity && self.first >= from;
        full || !self.log.is_empty() && self.log_bytes + bytes > self.limits.log_bytes_max
    }

    /// Gives a subscriber values, as [`Self::peek`] and [`Self::advance`] would, for as long as it takes them; says how many it
    /// took. What else it is to get, it gets by [`Self::peek`].
    pub fn serve(&mut self, key: ReceiverKey, mut takes: impl FnMut(&Bytes) -> bool) -> u64 {
        let Some(subscriber) = self.subscribers.get_mut(&key) else { return 0 };
        let mut given = 0;
        if subscriber.lost > 0 {
            return given;
        }
        while let Some(bytes) = self.assigned.next(&subscriber.initial) {
            if !takes(bytes) {
                return given;
            }
            given += 1;
            self.assigned.took(&mut subscriber.initial);
        }
        let Some(at) = subscriber.cursor.checked_sub(self.first) else { return given };
        for bytes in self.log.range(usize::try_from(at).unwrap_or(usize::MAX).min(self.log.len())..) {
            if !takes(bytes) {
                break;
            }
            given += 1;
            subscriber.cursor += 1;
        }
        given
    }

    /// The subscriber has what [`Self::peek`] said.
    pub fn advance(&mut self, key: ReceiverKey) {
        let next = self.next();
        let Some(subscriber) = self.subscribers.get_mut(&key) else { return };
        if subscriber.lost > 0 {
            self.lagged += std::mem::take(&mut subscriber.lost);
            return;
        }
        if !subscriber.initial.is_over() {
            return self.assigned.took(&mut subscriber.initial);
        }
        let before = subscriber.cursor;
        self.lagged += self.first.saturating_sub(before);
        subscriber.cursor = if before < self.first { self.first } else { (before + 1).min(next.max(before)) };
    }

    /// Ends it: what is in the log goes out, then comes [`Next::End`] (`CAST-7`).
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether it is closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many subscribe.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.subscribers.len()
    }

    /// How many values, and assignments, the subscriber has still to get, those it has lost included.
    #[must_use]
    pub fn behind(&self, key: ReceiverKey) -> u64 {
        self.subscribers.get(&key).map_or(0, |subscriber| {
            subscriber.lost + subscriber.initial.left() + self.next().saturating_sub(subscriber.cursor)
        })
    }

    /// How many values and assignments the subscriber can receive now: unlike [`Self::behind`], without those that it has lost.
    #[must_use]
    pub fn ready(&self, key: ReceiverKey) -> u64 {
        let Some(subscriber) = self.subscribers.get(&key) else { return 0 };
        subscriber.initial.left() + self.next().saturating_sub(subscriber.cursor.max(self.first))
    }

    /// Bytes in the log and of the assignments, those included that were replaced and that somebody still reads.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.log_bytes + self.assigned.bytes()
    }
}
