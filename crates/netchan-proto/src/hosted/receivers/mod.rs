//! The receivers of one channel: who waits, who may be sent values ahead, and who has what.

#[cfg(debug_assertions)]
mod audit;
mod back;
mod line;
mod part;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::held::Held;
use super::line::Line;
use super::shares::{Part, ShareIndex, Shares};
use super::{Item, ReceiverKey, Violation};
use crate::limits::{CALL_BACK_AFTER_MILLIS, QUEUE_BYTES_MAX_DEFAULT, TRANSFER_BYTES_PER_MILLI_MIN};

/// Units of one receiver that wait side by side.
#[derive(Debug)]
struct Turn {
    of: ReceiverKey,
    units: u64,
}

/// Who would be given a value that came now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextTaker {
    Nobody,
    /// One that has enough already.
    Fed,
    /// One that has few or none.
    Starving,
}

/// A receiver that has been asked to give back.
#[derive(Clone, Copy, Debug)]
struct CalledBack {
    at: u64,
    /// Nothing is dispatched until it has answered: what it has was sent ahead, and nothing may overtake that (`HOST-24`).
    holds: bool,
}

/// One receiver. `given` and `wanted` are counts over its whole life: it has been given the values numbered below `given`,
/// and has waited, or waits, for those numbered below `wanted`. What lies between was sent ahead.
#[derive(Debug)]
pub(super) struct Receiver<T> {
    /// Dispatched and not known taken, in the order of dispatch. An empty place was fenced: the receiver may still take it.
    pub(super) in_flight: VecDeque<Option<Item<T>>>,
    /// So many of those, from the front, have left for it.
    sent: usize,
    /// How many places in `in_flight` are empty.
    fenced: usize,
    /// Its places in the line, oldest first.
    places: VecDeque<u64>,
    units: u64,
    /// Demand that waits outside the line: beyond what a holder may have, or while nothing can be sent to it.
    held_back: u64,
    given: u64,
    wanted: u64,
    /// Nothing can be sent to it now.
    blocked: bool,
    /// Values that may be with it without its having asked (`HOST-23`).
    ahead_max: u64,
    /// No other has asked for a while.
    alone: bool,
    eager: Option<u64>,
    /// When a value that is in flight to it must have been taken or given back.
    out: Option<u64>,
    called_back: Option<CalledBack>,
    /// It cannot be reached, so it is asked for nothing.
    away: bool,
    /// An [`Effect::Deliver`] is on its way.
    noted: bool,
    /// What it has taken and has to acknowledge; none where taking is all.
    pub(super) held: Option<Held<T>>,
    /// Of what is in flight to it.
    bytes: u64,
    /// The share that it counts toward, what is counted there for it, and whether it waits for room there (`HOST-28`).
    share: ShareIndex,
    counted: Part,
    over_share: bool,
    /// It counts among those that share: it has a client, or has waited for a value.
    seen: bool,
}

impl<T> Receiver<T> {
    fn new(held: Option<Held<T>>) -> Self {
        Self {
            in_flight: VecDeque::new(),
            sent: 0,
            fenced: 0,
            places: VecDeque::new(),
            units: 0,
            held_back: 0,
            given: 0,
            wanted: 0,
            blocked: false,
            ahead_max: 0,
            alone: false,
            eager: None,
            out: None,
            called_back: None,
            away: false,
            noted: false,
            held,
            bytes: 0,
            share: None,
            counted: Part::default(),
            over_share: false,
            seen: false,
        }
    }

    /// When a value that is in flight now must have been taken or given back. Long values need more time for the transfer.
    fn due_at(&self, now: u64) -> u64 {
        let transfer = self.bytes / TRANSFER_BYTES_PER_MILLI_MIN;
        now.saturating_add(CALL_BACK_AFTER_MILLIS).saturating_add(transfer)
    }

    fn out_count(&self) -> u64 {
        (self.in_flight.len() - self.fenced) as u64
    }

    /// How many more values it may have (`DEL-6`).
    fn room(&self) -> u64 {
        if self.blocked || self.over_share {
            return 0;
        }
        let Some(held) = &self.held else { return u64::MAX };
        if held.fence_at.is_some() {
            return 0;
        }
        let out = self.out_count() + held.len() + held.put_off_len();
        held.out_max.saturating_sub(out + self.units)
    }

    /// How many values may be sent to it although it waits for none.
    fn room_ahead(&self) -> u64 {
        if self.ahead_max == 0 || self.called_back.is_some() {
            return 0;
        }
        let held = self.held.as_ref().map_or(0, Held::len);
        let most = if self.alone { self.ahead_max } else { self.ahead_max.min(self.ahead_beside_others()) };
        most.saturating_sub(self.in_flight.len() as u64 + held).min(self.room())
    }

    /// Values that may be with it unasked although others ask too: in deliveries the next, so that an acknowledgement asks for it.
    fn ahead_beside_others(&self) -> u64 {
        u64::from(self.held.is_some())
    }

    /// Values that were sent ahead and that nothing there has waited for yet.
    fn ahead(&self) -> u64 {
        self.given.saturating_sub(self.wanted).min(self.out_count())
    }
}

/// All receivers, and the one line of their demand.
///
/// Invariants: every turn in the line has at least one unit, and its place stands in its receiver's `places`; `units` and
/// `in_flight` are the sums over all receivers; `waiting` counts those with units in the line, `holding` those that were called
/// back and hold the others up; `eager` has those with room ahead, `ahead` those with values ahead, `out` those with values in
/// flight, longest without news first.
#[derive(Debug)]
pub(super) struct Receivers<T> {
    pub(super) map: BTreeMap<ReceiverKey, Receiver<T>>,
    line: Line<Turn>,
    units: u64,
    waiting: usize,
    pub(super) in_flight: usize,
    /// What holders have taken and not acknowledged, over all of them.
    held: u64,
    eager: Line<ReceiverKey>,
    ahead: BTreeSet<ReceiverKey>,
    out: BTreeSet<(u64, ReceiverKey)>,
    holding: usize,
    /// Who asked last, since when nobody else has, and who was alone before and has values ahead (`HOST-24`).
    asker: Option<ReceiverKey>,
    alone_from: u64,
    former: Option<ReceiverKey>,
    now: u64,
    /// Called back, oldest first; those that have answered are skipped.
    callbacks: VecDeque<(u64, ReceiverKey)>,
    /// When holders are to be fenced.
    fences: BTreeSet<(u64, ReceiverKey)>,
    fence_of: BTreeMap<ReceiverKey, u64>,
    /// What has left the queue for each client, and is not taken or not acknowledged.
    shares: Shares<ReceiverKey>,
}

impl<T: Clone> Receivers<T> {
    pub(super) fn new(capacity: u64) -> Self {
        // Offers come one from each sender, however many may wait.
        let part = if capacity == 0 { u64::MAX } else { capacity / 2 };
        Self {
            map: BTreeMap::new(),
            line: Line::default(),
            units: 0,
            waiting: 0,
            in_flight: 0,
            held: 0,
            eager: Line::default(),
            ahead: BTreeSet::new(),
            out: BTreeSet::new(),
            holding: 0,
            asker: None,
            alone_from: 0,
            former: None,
            now: 0,
            callbacks: VecDeque::new(),
            fences: BTreeSet::new(),
            fence_of: BTreeMap::new(),
            shares: Shares::new(part, QUEUE_BYTES_MAX_DEFAULT / 2),
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn units(&self) -> u64 {
        self.units
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What is taken and not acknowledged.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Whether nothing may be dispatched until a receiver has given back.
    pub(super) fn is_held_up(&self) -> bool {
        self.holding > 0
    }

    pub(super) fn units_of(&self, key: ReceiverKey) -> u64 {
        self.map.get(&key).map_or(0, |receiver| receiver.units + receiver.held_back)
    }

    pub(super) fn in_flight_of(&self, key: ReceiverKey) -> usize {
        self.map.get(&key).map_or(0, |receiver| receiver.in_flight.len())
    }

    /// Whether another receiver than this one waits.
    pub(super) fn others_wait(&self, key: ReceiverKey) -> bool {
        let own = self.map.get(&key).is_some_and(|receiver| receiver.units > 0);
        self.waiting > usize::from(own)
    }

    pub(super) fn add(&mut self, key: ReceiverKey, held: Option<Held<T>>, client: Option<u128>) -> bool {
        if self.map.contains_key(&key) {
            return false;
        }
        let share = client.map(|client| self.shares.join(client));
        self.map.insert(key, Receiver { share, seen: share.is_some(), ..Receiver::new(held) });
        true
    }

    /// Its demand vanishes; what it held comes back in the order of dispatch.
    pub(super) fn remove(&mut self, key: ReceiverKey) -> Option<Receiver<T>> {
        self.answered(key);
        self.asker = self.asker.filter(|asker| *asker != key);
        let mut receiver = self.map.remove(&key)?;
        self.shares.count(receiver.share, &mut receiver.counted, Part::default());
        if receiver.over_share {
            self.shares.forget(receiver.share, key);
        }
        match receiver.share {
            Some(share) => self.shares.leave(share),
            None if receiver.seen => self.shares.leave_unnamed(),
            None => {}
        }
        for place in std::mem::take(&mut receiver.places) {
            self.line.leave(place);
        }
        self.units -= receiver.units;
        self.waiting -= usize::from(receiver.units > 0);
        self.in_flight -= receiver.in_flight.len() - receiver.fenced;
        self.held -= receiver.held.as_ref().map_or(0, Held::len);
        receiver.eager.map(|place| self.eager.leave(place));
        receiver.out.map(|due| self.out.remove(&(due, key)));
        self.ahead.remove(&key);
        if let Some(at) = self.fence_of.remove(&key) {
            self.fences.remove(&(at, key));
        }
        Some(receiver)
    }

    /// The next receiver that may be sent values ahead, and how many of `here` (`HOST-23`).
    pub(super) fn next_eager(&mut self, here: usize) -> Option<(ReceiverKey, usize)> {
        let (key, part) = loop {
            let key = *self.eager.first()?;
            match self.shares.room(self.map.get(&key)?.share) {
                0 => self.wait_for_part(key),
                part => break (key, part),
            }
        };
        let room = self.map.get(&key)?.room_ahead().min(part);
        let share = (here / self.eager.len()).max(1);
        Some((key, usize::try_from(room).unwrap_or(usize::MAX).min(share)))
    }

    /// It has been sent values ahead: others have their turn first.
    pub(super) fn end_turn_ahead(&mut self, key: ReceiverKey) {
        if let Some(receiver) = self.map.get_mut(&key)
            && let Some(place) = receiver.eager
        {
            self.eager.leave(place);
            receiver.eager = Some(self.eager.join(key));
        }
    }

    /// The oldest `n` values it was given are taken; `each` gets them, and the number under which the receiver holds them from
    /// now on, if it does.
    pub(super) fn take(
        &mut self,
        key: ReceiverKey,
        n: u64,
        now: u64,
        mut each: impl FnMut(&mut Item<T>, Option<u64>, bool),
    ) -> Result<(), Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let n = count_within(n, receiver.in_flight.len())?;
        if n == 0 {
            return Ok(());
        }
        for item in receiver.in_flight.drain(..n) {
            let number = receiver.held.as_mut().map(Held::next_number);
            let Some(mut item) = item else {
                receiver.fenced -= 1;
                continue;
            };
            self.in_flight -= 1;
            receiver.bytes -= item.bytes.len() as u64;
            let settles = receiver.held.as_ref().is_none_or(|held| !held.settles_at_ack);
            each(&mut item, number, settles);
            if let (Some(held), Some(number)) = (&mut receiver.held, number) {
                held.hold(number, item, now);
                self.held += 1;
            }
        }
        receiver.sent = receiver.sent.saturating_sub(n);
        self.moved(key, now);
        Ok(())
    }

    /// It has shown that it takes, or gives back, what it has.
    fn moved(&mut self, key: ReceiverKey, now: u64) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        receiver.out.take().map(|due| self.out.remove(&(due, key)));
        if receiver.in_flight.len() > receiver.fenced {
            let due = receiver.due_at(now);
            receiver.out = Some(due);
            self.out.insert((due, key));
        }
        receiver.count_part(&mut self.shares);
        self.refresh(key);
        self.refresh_fence(key);
    }

    /// What it holds after the oldest `keep` comes back.
    pub(super) fn give_back(
        &mut self,
        key: ReceiverKey,
        keep: u64,
        now: u64,
    ) -> Result<Vec<Item<T>>, Violation> {
        let receiver = self.map.get_mut(&key).ok_or(Violation::UnknownReceiver)?;
        let keep = count_within(keep, receiver.in_flight.len())?;
        let back = receiver.in_flight.split_off(keep);
        let count = back.len() as u64;
        let returned: Vec<_> = back.into_iter().flatten().collect();
        receiver.bytes -= returned.iter().map(|item| item.bytes.len() as u64).sum::<u64>();
        receiver.fenced -= count as usize - returned.len();
        receiver.sent = receiver.sent.min(keep);
        receiver.given -= count;
        // What it waited for has been answered; what was sent ahead never was asked for.
        let asked = receiver.units + receiver.held_back;
        receiver.wanted = receiver.wanted.min(receiver.given + asked);
        self.in_flight -= returned.len();
        self.moved(key, now);
        Ok(returned)
    }

    /// How many values may be with it unasked from now on.
    pub(super) fn set_ahead(&mut self, key: ReceiverKey, ahead_max: u64) {
        if let Some(receiver) = self.map.get_mut(&key) {
            receiver.ahead_max = ahead_max;
            self.refresh(key);
        }
    }

    /// The next holder whose time has come.
    pub(super) fn next_fenced(&self, now: u64) -> Option<ReceiverKey> {
        self.fences.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }

    /// Takes the in-flight values of a holder that cannot be reached; their places stay, for it may still take them.
    pub(super) fn fence_in_flight(&mut self, key: ReceiverKey) -> Vec<(u64, Item<T>)> {
        let Some(receiver) = self.map.get_mut(&key) else { return Vec::new() };
        let first = receiver.held.as_ref().map_or(0, Held::next);
        let mut fenced = Vec::new();
        for (number, place) in (first..).zip(&mut receiver.in_flight) {
            if let Some(item) = place.take() {
                self.in_flight -= 1;
                receiver.bytes -= item.bytes.len() as u64;
                receiver.fenced += 1;
                fenced.push((number, item));
            }
        }
        receiver.out.take().map(|due| self.out.remove(&(due, key)));
        receiver.count_part(&mut self.shares);
        self.refresh(key);
        fenced
    }

    /// What a holder has taken; `f` may take some of it away.
    pub(super) fn with_held<R>(&mut self, key: ReceiverKey, f: impl FnOnce(&mut Held<T>) -> R) -> Option<R> {
        let receiver = self.map.get_mut(&key)?;
        let held = receiver.held.as_mut()?;
        let before = held.len();
        let result = f(held);
        self.held = self.held + held.len() - before;
        receiver.count_part(&mut self.shares);
        self.refresh(key);
        self.refresh_fence(key);
        Some(result)
    }

    /// The holder is done with a value; [`Self::let_in`] follows, once for many of them.
    pub(super) fn release(&mut self, key: ReceiverKey, number: u64) -> Option<Item<T>> {
        let receiver = self.map.get_mut(&key)?;
        let item = receiver.held.as_mut()?.release(number)?;
        self.held -= 1;
        receiver.count_part(&mut self.shares);
        Some(item)
    }

    /// Puts the receiver into, or takes it out of, the lists that its state says.
    #[inline]
    fn refresh(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        if receiver.ahead_max == 0 && receiver.eager.is_none() && receiver.given <= receiver.wanted {
            if !self.ahead.is_empty() {
                self.ahead.remove(&key);
            }
            return;
        }
        match (receiver.room_ahead() > 0, receiver.eager) {
            (true, None) => receiver.eager = Some(self.eager.join(key)),
            (false, Some(place)) => {
                self.eager.leave(place);
                receiver.eager = None;
            }
            _ => {}
        }
        if receiver.ahead() > 0 && receiver.called_back.is_none() {
            self.ahead.insert(key);
        } else {
            self.ahead.remove(&key);
        }
    }

    fn refresh_fence(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.map.get(&key) else { return };
        let Some(held) = &receiver.held else { return };
        let next = held.next_fence(receiver.in_flight.len() > receiver.fenced);
        let before = self.fence_of.get(&key).copied();
        if next != before {
            before.map(|at| self.fences.remove(&(at, key)));
            match next {
                Some(at) => {
                    self.fences.insert((at, key));
                    self.fence_of.insert(key, at);
                }
                None => _ = self.fence_of.remove(&key),
            }
        }
    }
}

fn count_within(n: u64, len: usize) -> Result<usize, Violation> {
    usize::try_from(n).ok().filter(|n| *n <= len).ok_or(Violation::NotInFlight)
}
