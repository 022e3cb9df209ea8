//! What is asked back from receivers, and what becomes of those that do not answer.

use std::collections::VecDeque;

use super::{CalledBack, Receiver, Receivers};
use crate::hosted::{Effect, ReceiverKey};
use crate::limits::{ALONE_AFTER_MILLIS, CALL_BACK_AFTER_MILLIS, STALLED_AFTER_MILLIS};
use crate::planted::{self, Mutant};

impl<T: Clone> Receivers<T> {
    pub(in crate::hosted) fn advance(&mut self, now: u64) {
        self.now = now;
    }

    /// It asks for so many more. Where another asked before, neither is alone for a while.
    pub(super) fn note_asker(&mut self, key: ReceiverKey, units: u64) {
        if units > 0
            && let Some(former) = self.asker.replace(key).filter(|former| *former != key)
        {
            self.alone_from = self.now.saturating_add(ALONE_AFTER_MILLIS);
            if let Some(receiver) = self.map.get_mut(&former) {
                receiver.alone = false;
                self.former = Some(former);
            }
            self.refresh(former);
        }
        let alone = self.asker == Some(key) && self.now >= self.alone_from;
        if let Some(receiver) = self.map.get_mut(&key) {
            receiver.alone = alone;
        }
    }

    /// Whether it is the only one that asks, and nothing is ahead with, or on its way back from, any other.
    pub(in crate::hosted) fn is_only_asker(&self, key: ReceiverKey) -> bool {
        self.asker == Some(key) && self.ahead.is_empty() && !self.is_held_up()
    }

    /// Another asks than the one that was alone: what that has ahead is older than the queue, so it comes back before anything
    /// is dispatched (`HOST-24`).
    pub(in crate::hosted) fn call_back_former(&mut self, now: u64, effects: &mut VecDeque<Effect<T>>) {
        let Some(former) = self.former.take() else { return };
        let ahead = |receiver: &Receiver<T>| receiver.ahead() > receiver.ahead_beside_others();
        if self.map.get(&former).is_some_and(ahead) {
            self.ask_back(former, now, true, effects);
        }
    }

    /// Receives wait and the queue is empty: asks for as many of the values that were sent ahead as are waited for (`HOST-24`).
    pub(in crate::hosted) fn call_back(&mut self, now: u64, effects: &mut VecDeque<Effect<T>>) {
        let mut short = self.units;
        while short > 0
            && let Some(key) = self.ahead.first().copied()
        {
            let Some(receiver) = self.map.get_mut(&key) else { break };
            short = short.saturating_sub(receiver.ahead());
            self.ask_back(key, now, true, effects);
        }
    }

    /// Asks for values that have not moved for too long: for other receivers, if the queue is empty, and for others of the same
    /// client that wait for its part (`HOST-24`, `HOST-28`). Where none waits, the receiver is checked again later.
    pub(in crate::hosted) fn call_back_overdue(
        &mut self,
        now: u64,
        queue_is_empty: bool,
        effects: &mut VecDeque<Effect<T>>,
    ) {
        while let Some((due, key)) = self.out.first().copied()
            && due <= now
        {
            self.out.pop_first();
            let others_wait = queue_is_empty && self.others_wait(key);
            let Some(receiver) = self.map.get_mut(&key) else { continue };
            receiver.out = None;
            if others_wait || self.shares.waits(receiver.share) {
                self.ask_back(key, now, false, effects);
            } else {
                let again = now.saturating_add(CALL_BACK_AFTER_MILLIS);
                receiver.out = Some(again);
                self.out.insert((again, key));
            }
        }
    }

    pub(in crate::hosted) fn ask_back(
        &mut self,
        key: ReceiverKey,
        now: u64,
        holds: bool,
        effects: &mut VecDeque<Effect<T>>,
    ) {
        let Some(receiver) = self.map.get_mut(&key) else { return };
        if receiver.called_back.is_none() && !receiver.away && receiver.sent > 0 {
            receiver.called_back = Some(CalledBack { at: now, holds });
            self.holding += usize::from(holds) * (1 + usize::from(planted::is(Mutant::CalledBackTwice)));
            self.callbacks.push_back((now, key));
            effects.push_back(Effect::CallBack { from: key });
        }
        self.ahead.remove(&key);
        self.refresh(key);
    }

    /// It has given back, or cannot: nobody waits for that any more.
    pub(in crate::hosted) fn answered(&mut self, key: ReceiverKey) {
        if let Some(receiver) = self.map.get_mut(&key)
            && let Some(called_back) = receiver.called_back.take()
        {
            self.holding -= usize::from(called_back.holds);
            // From the start again: one value in hand, and none ahead of it.
            receiver.ahead_max = receiver.ahead_max.min(u64::from(receiver.held.is_some()));
            self.refresh(key);
        }
    }

    /// It cannot be reached, or can be again: what it has is its own meanwhile (`HOST-22`).
    pub(in crate::hosted) fn set_away(&mut self, key: ReceiverKey, away: bool, now: u64) {
        let Some(receiver) = self.map.get_mut(&key).filter(|receiver| receiver.away != away) else { return };
        receiver.away = away;
        if away {
            self.answered(key);
        } else {
            self.moved(key, now);
        }
    }

    /// Whoever did not answer has not been heard of at all: it has as long again, and holds nobody up.
    pub(in crate::hosted) fn excuse(&mut self, key: ReceiverKey, now: u64) {
        if let Some(receiver) = self.map.get_mut(&key).filter(|receiver| !receiver.away) {
            let before = receiver.called_back.replace(CalledBack { at: now, holds: false });
            // It may have been asked again meanwhile.
            self.holding -= usize::from(before.is_some_and(|back| back.holds));
            self.callbacks.push_back((now, key));
            self.refresh(key);
        }
    }

    /// The receivers that did not answer in time.
    pub(in crate::hosted) fn take_stalled(&mut self, now: u64) -> Vec<ReceiverKey> {
        let mut stalled = Vec::new();
        while let Some((at, key)) = self.callbacks.front().copied() {
            let waits =
                self.map.get(&key).and_then(|receiver| receiver.called_back).filter(|back| back.at == at);
            if waits.is_some() && now < at.saturating_add(STALLED_AFTER_MILLIS) {
                break;
            }
            self.callbacks.pop_front();
            if waits.is_some() {
                self.answered(key);
                stalled.push(key);
            }
        }
        stalled
    }

    /// When somebody is to be called back, has not answered, or is to be fenced.
    pub(in crate::hosted) fn next_timeout(&self) -> Option<u64> {
        let wanted = self.units > 0 || self.shares.has_waiting();
        let call_back = self.out.first().filter(|_| wanted).map(|(due, _)| *due);
        let stalled = self.callbacks.front().map(|(at, _)| at + STALLED_AFTER_MILLIS);
        let fence = self.fences.first().map(|(at, _)| *at);
        [call_back, stalled, fence].into_iter().flatten().min()
    }
}
