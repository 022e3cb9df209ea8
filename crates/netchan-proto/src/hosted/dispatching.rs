//! What brings the invariants back after a change: values go to receivers, credit to senders.

use super::senders::Senders;
use super::{Effect, Fact, Hosted, Item, ReceiverKey};

impl<T: Clone> Hosted<T> {
    /// The item goes to the receive that has waited longest.
    pub(super) fn hand(&mut self, item: Item<T>) {
        let ticket = item.ticket;
        self.leaves_queue(&item);
        if let Some(to) = self.receivers.dispatch(item, self.now, &mut self.effects) {
            self.note(|| Fact::Dispatched { ticket, to });
        }
    }

    /// The first `count` of the queue are this receiver's.
    fn give_run(&mut self, to: ReceiverKey, count: usize) {
        let Self { queue, receivers, senders, effects, facts, redelivered, now, .. } = self;
        receivers.give_run(
            to,
            *now,
            effects,
            || {
                let item = queue.pop()?;
                leaves_queue(&item, senders, redelivered);
                if let Some(facts) = facts {
                    facts.push_back(Fact::Dispatched { ticket: item.ticket, to });
                }
                Some(item)
            },
            count,
        );
    }

    pub(super) fn leaves_queue(&mut self, item: &Item<T>) {
        leaves_queue(item, &mut self.senders, &mut self.redelivered);
    }

    fn dispatch(&mut self) {
        self.receivers.call_back_former(self.now, &mut self.effects);
        self.receivers.let_parts_in();
        while self.queue.len() > 0 && !self.receivers.is_held_up() {
            self.receivers.hold_full_back();
            if self.receivers.units() > 0 {
                if self.queue.has_returned() {
                    // Who has refused a value comes after others.
                    let Some(item) = self.queue.pop() else { break };
                    self.hand(item);
                } else if let Some((key, count)) = self.receivers.serve_turn(self.run_max()) {
                    self.give_run(key, count);
                } else {
                    break;
                }
            } else if let Some((key, count)) = self.receivers.next_eager(self.queue.len()) {
                self.give_run(key, count);
                self.receivers.end_turn_ahead(key);
            } else {
                break;
            }
        }
        if self.receivers.units() > 0 && self.queue.len() == 0 {
            self.receivers.call_back(self.now, &mut self.effects);
        }
        self.receivers.call_back_overdue(self.now, self.queue.len() == 0, &mut self.effects);
    }

    /// How many values of the queue may go to the first in the line at once.
    fn run_max(&self) -> usize {
        let Some((units, room)) = self.receivers.room_of_first().filter(|(_, room)| *room < u64::MAX) else {
            return self.queue.len();
        };
        let mut bytes = 0;
        let run = self.queue.iter().take(usize::try_from(units).unwrap_or(usize::MAX));
        let fit = run.take_while(|item| {
            let fits = bytes < room;
            bytes += item.bytes.len() as u64;
            fits
        });
        fit.count().max(1)
    }

    /// Brings the invariants back after a change: values to demand, then credit to senders.
    pub(crate) fn settle(&mut self) {
        (self.untold, self.tell_at) = (0, None);
        self.dispatch();
        let grants = self.is_within_bytes();
        self.senders.serve(grants, &mut self.effects);
        if self.is_drained() && !self.finished {
            self.finished = true;
            self.effects.push_back(Effect::Finished);
        }
        #[cfg(debug_assertions)]
        self.audit();
    }

    /// The whole state is checked where it is small, as in tests and simulations; a large one would pay for it at every
    /// call.
    #[cfg(debug_assertions)]
    fn audit(&self) {
        let held_up = self.receivers.is_held_up();
        assert!(
            self.queue.len() == 0 || self.receivers.units() == 0 || held_up,
            "HOST-9: a value and a receiver wait"
        );
        assert!(
            self.senders.pool().next_turn().is_none() || !self.is_within_bytes(),
            "HOST-9: credit and a sender wait"
        );
        if self.senders.len() + self.receivers.len() <= 32 {
            self.senders.audit();
            self.receivers.audit();
        }
    }
}

fn leaves_queue<T>(item: &Item<T>, senders: &mut Senders, redelivered: &mut u64) {
    if !item.settled {
        senders.dispatched(item.origin);
    }
    *redelivered += u64::from(item.redelivered);
}
