//! Deliveries: receivers that acknowledge what they were handed, and what becomes of what they do not.

use super::facts::Fact;
use super::held::Held;
use super::{Effect, Hosted, Item, ReceiverKey};
use crate::limits::{
    DELAY_MILLIS_MAX, DELAYED_ITEMS_MAX, DELAYED_ITEMS_PER_KEY_MAX, RETRY_DELAY_MILLIS_MAX,
    RETRY_DELAY_MILLIS_MIN,
};
use crate::planted::{self, Mutant};

/// What a receiver that acknowledges what it takes is held to.
#[derive(Clone, Copy, Debug)]
pub struct HolderOptions {
    /// Values that may be out to it at once, at least one (`DEL-6`).
    pub out_max: u64,
    /// A value counts as taken for its sender only when it is acknowledged (`DEL-14`).
    pub settles_at_ack: bool,
    /// It loses a value of which it has said nothing for so long (`DEL-15`).
    pub lease_millis: Option<u64>,
}

impl HolderOptions {
    /// Up to `out_max` values at once, and nothing else out of the ordinary.
    #[must_use]
    pub const fn new(out_max: u64) -> Self {
        Self { out_max, settles_at_ack: false, lease_millis: None }
    }
}

/// How long a value that was refused so many times rests (`DEL-13`).
pub(super) fn retry_delay(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(20);
    (RETRY_DELAY_MILLIS_MIN << doublings).min(RETRY_DELAY_MILLIS_MAX)
}

impl<T: Clone> Hosted<T> {
    /// Adds a receiver that holds what it takes until it acknowledges it (`DEL-1`). False if it is there already.
    pub fn add_holder(&mut self, key: ReceiverKey, options: HolderOptions) -> bool {
        self.add_receiver_of(None, key, Some(options))
    }

    /// In how many attempts a value must be acknowledged, at least one, before it is [`Effect::Dead`] (`DEL-7`); without
    /// limit if `None`.
    pub fn set_attempts_max(&mut self, attempts_max: Option<u32>) {
        self.attempts_max = attempts_max.map(|most| most.max(1));
    }

    /// Whether the receiver holds the value that it took under this number (`DEL-2`).
    #[must_use]
    pub fn holds(&self, key: ReceiverKey, number: u64) -> bool {
        self.held(key).is_some_and(|held| held.holds(number))
    }

    /// Whether it is a receiver that acknowledges.
    #[must_use]
    pub fn is_holder(&self, key: ReceiverKey) -> bool {
        self.held(key).is_some()
    }

    /// The holder is done with a value. False, and nothing changes, if it holds it no longer: another may have it (`DEL-2`).
    pub fn ack(&mut self, key: ReceiverKey, number: u64) -> bool {
        let acked = self.ack_one(key, number);
        self.after_acks(key);
        self.settle();
        acked
    }

    /// The holder has room for as many more.
    pub(crate) fn after_acks(&mut self, key: ReceiverKey) {
        self.receivers.let_in(key);
    }

    /// As [`Self::ack`]; [`Self::after_acks`] and [`Self::settle`] follow, once for many of them.
    pub(crate) fn ack_one(&mut self, key: ReceiverKey, number: u64) -> bool {
        let Some(item) = self.receivers.release(key, number) else {
            return planted::is(Mutant::ResultWithoutAck);
        };
        self.held_bytes -= item.bytes.len() as u64;
        self.count_as_taken(&item);
        self.note(|| Fact::Gone { ticket: item.ticket });
        true
    }

    /// The holder refuses a value: another holder that waits gets it at once; else it returns to its place at the head at
    /// `ready_at`, or after a pause that grows with its attempts (`DEL-3`, `DEL-4`, `DEL-13`). False as for [`Self::ack`].
    pub fn nack(&mut self, key: ReceiverKey, number: u64, ready_at: Option<u64>) -> bool {
        let Some(mut item) = self.release(key, number) else { return false };
        let others_wait = self.receivers.others_wait(key);
        item.refused_by = Some(key);
        if let Some(item) = self.another_attempt(item) {
            match ready_at {
                None if others_wait && self.queue.len() == 0 => self.requeue(item),
                Some(at) if at <= self.now => self.requeue(item),
                ready_at => {
                    let pause = retry_delay(item.attempts);
                    let at = ready_at.unwrap_or(self.now.saturating_add(pause));
                    self.put_off(key, item, at.min(self.now.saturating_add(DELAY_MILLIS_MAX)));
                }
            }
        }
        self.receivers.let_in(key);
        self.settle();
        true
    }

    /// The holder is not to be fenced for this value before `until`, reachable or not (`DEL-5`). False as for [`Self::ack`].
    pub fn extend(&mut self, key: ReceiverKey, number: u64, until: u64) -> bool {
        let until = until.min(self.now.saturating_add(DELAY_MILLIS_MAX));
        self.receivers.with_held(key, |held| held.extend(number, until)).unwrap_or(false)
    }

    /// The holder cannot be reached: it is given nothing more. At `fence_at`, unless it is back before, what it holds goes to
    /// others, and what is on its way to it too (`DEL-5`). A link that came and went without a word from it buys it no time.
    pub fn holder_away(&mut self, key: ReceiverKey, fence_at: u64) {
        self.receivers.answered(key);
        self.receivers.block(key);
        self.receivers.with_held(key, |held| {
            held.fence_at = Some(held.fence_at.map_or(fence_at, |earlier| earlier.min(fence_at)));
        });
        self.settle();
    }

    /// The holder can be reached again.
    pub fn holder_back(&mut self, key: ReceiverKey) {
        if self.held(key).is_some_and(|held| held.fence_at.is_some()) {
            self.receivers.with_held(key, |held| held.fence_at = None);
            self.receivers.unblock(key);
            self.settle();
        }
    }

    /// When [`Self::handle_timeout`] has something to do, in milliseconds of the time that [`Self::advance`] is told.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let tell = self.tell_at;
        [delayed, self.receivers.next_timeout(), self.senders.next_timeout(), tell]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what time has come for: values that were to wait return to the queue, holders that were away too long are fenced,
    /// and what is neither used nor returned while others wait is taken back.
    pub fn handle_timeout(&mut self, now: u64) {
        self.advance(now);
        while let Some(due) = self.delayed.first_entry().filter(|due| due.key().0 <= now) {
            let ((at, ticket), (by, item)) = due.remove_entry();
            let bytes = item.bytes.len() as u64;
            self.receivers.with_held(by, |held| held.called_off(at, ticket, bytes));
            self.requeue(item);
            self.receivers.let_in(by);
        }
        while let Some(key) = self.receivers.next_fenced(now) {
            self.fence(key, now);
        }
        for key in self.receivers.take_stalled(now) {
            self.effects.push_back(Effect::StalledReceiver { key });
        }
        self.senders.find_stalled(now, &mut self.effects);
        self.settle();
    }

    fn fence(&mut self, key: ReceiverKey, now: u64) {
        let away = self.held(key).is_some_and(|held| held.fence_at.is_some_and(|at| at <= now));
        let mut fenced = self.receivers.with_held(key, |held| held.fence(now)).unwrap_or_default();
        if planted::is(Mutant::DoubleHolder) {
            self.receivers.with_held(key, |held| {
                fenced.iter().for_each(|(number, item)| held.hold(*number, item.clone(), now));
                held.fence_at = None;
            });
        }
        if away {
            fenced.extend(self.receivers.fence_in_flight(key));
        }
        for (number, item) in fenced {
            self.effects.push_back(Effect::Fenced { to: key, number });
            self.retry(item);
        }
        self.receivers.let_in(key);
    }

    /// A value that was declared [`Effect::Dead`] has found a place elsewhere. Until then, or [`Self::revive`], the channel
    /// is not finished.
    pub fn buried(&mut self) {
        self.dying = self.dying.saturating_sub(1);
        self.dead += 1;
        self.settle();
    }

    /// There is no place for a value that was declared [`Effect::Dead`]: it has another attempt, after a pause, so that it is
    /// not lost (`DEL-7`).
    pub fn revive(&mut self, mut item: Item<T>) {
        self.dying = self.dying.saturating_sub(1);
        self.held_bytes += item.bytes.len() as u64;
        item.settled = true;
        self.note(|| Fact::Revived { item: item.clone() });
        let at = self.now.saturating_add(retry_delay(item.attempts));
        self.delay(None, item, at);
        self.settle();
    }

    /// Values that their holders have not acknowledged, and that wait to be tried again.
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.receivers.held() as usize + self.delayed.len()
    }

    /// Those of one holder, that it put off included.
    #[must_use]
    pub fn unacked_of(&self, key: ReceiverKey) -> u64 {
        self.held(key).map_or(0, |held| held.len() + held.put_off_len())
    }

    fn held(&self, key: ReceiverKey) -> Option<&Held<T>> {
        self.receivers.map.get(&key)?.held.as_ref()
    }

    fn release(&mut self, key: ReceiverKey, number: u64) -> Option<Item<T>> {
        let item = self.receivers.with_held(key, |held| held.release(number)).flatten()?;
        self.receivers.let_in(key);
        Some(item)
    }

    /// An attempt came to nothing: another, if there may be one (`DEL-3`, `DEL-7`).
    pub(super) fn retry(&mut self, item: Item<T>) {
        if let Some(item) = self.another_attempt(item) {
            self.put_back(item, true);
        }
    }

    /// What a holder put off comes back when it leaves (`DEL-4`).
    pub(super) fn call_off(&mut self, held: &Held<T>) {
        for due in held.all_put_off() {
            if let Some((_, item)) = self.delayed.remove(due) {
                self.requeue(item);
            }
        }
    }

    /// Not before `at`. Until then it counts as out to the holder, who could put off everything else (`DEL-6`).
    fn put_off(&mut self, key: ReceiverKey, item: Item<T>, at: u64) {
        let too_many = self.receivers.put_off_by_client(key) >= DELAYED_ITEMS_PER_KEY_MAX;
        if too_many || self.delayed.len() >= DELAYED_ITEMS_MAX {
            return self.requeue(item);
        }
        self.receivers.with_held(key, |held| held.put_off(at, &item));
        self.delay(Some(key), item, at);
    }

    pub(super) fn delay(&mut self, by: Option<ReceiverKey>, item: Item<T>, at: u64) {
        self.note(|| Fact::Delayed { ticket: item.ticket, attempts: item.attempts, at });
        // A value that nobody put off is named after no receiver.
        self.delayed.insert((at, item.ticket), (by.unwrap_or(ReceiverKey(u64::MAX)), item));
    }

    /// The item as it is tried again; none if it is dead.
    fn another_attempt(&mut self, mut item: Item<T>) -> Option<Item<T>> {
        item.attempts = item.attempts.saturating_add(1);
        item.redelivered = true;
        if planted::is(Mutant::LostRedelivery) && item.settled {
            self.held_bytes -= item.bytes.len() as u64;
            return None;
        }
        if self.attempts_max.is_some_and(|most| item.attempts >= most) {
            self.held_bytes -= item.bytes.len() as u64;
            self.dying += 1;
            self.note(|| Fact::Gone { ticket: item.ticket });
            self.count_as_taken(&item);
            self.effects.push_back(Effect::Dead { item });
            return None;
        }
        Some(item)
    }
}
