//! What senders are told and given after a change.

use std::collections::VecDeque;

use super::Senders;
use crate::hosted::{Effect, SenderKey};

impl Senders {
    /// Tells senders what is settled (`HOST-13`), then hands out what is free, then recalls what is missing.
    pub(in crate::hosted) fn serve<T>(&mut self, grants: bool, effects: &mut VecDeque<Effect<T>>) {
        for key in self.touched.drain(..) {
            if let Some(sender) = self.map.get_mut(&key).filter(|sender| sender.touched && !sender.gone) {
                sender.touched = false;
                let (prefix, count) = (sender.lease.progress.prefix(), sender.lease.progress.count());
                effects.push_back(Effect::Settled { sender: key, prefix, count });
            }
        }
        self.let_in();
        while grants && let Some(key) = self.pool.next_turn() {
            let Some(sender) = self.map.get_mut(&key) else { break };
            let room = self.pool.room(sender.lease.share);
            if room == 0 {
                // HOST-28: its client has all of its part, so other clients come first.
                sender.lease.over_share = true;
                self.pool.shares.wait(sender.lease.share, key);
                let share = sender.lease.share;
                self.pool.place(key, &mut sender.lease);
                // What other senders of the same client do not use, it can have.
                if let Some(idle) = self.pool.shares.first_idle(share) {
                    self.recall(idle, effects);
                }
                continue;
            }
            let amount = sender.lease.grant_size(self.pool.share()).min(room);
            sender.lease.grant(amount);
            self.pool.lend(amount);
            self.pool.place(key, &mut sender.lease);
            effects.push_back(Effect::Grant { to: key, limit: sender.lease.limit });
            self.watch(key);
        }
        if self.pool.is_short() {
            self.short_at = Some(self.now);
        }
        while let Some(key) = self.pool.next_recall() {
            self.recall(key, effects);
        }
    }

    fn recall<T>(&mut self, key: SenderKey, effects: &mut VecDeque<Effect<T>>) {
        if let Some(sender) = self.map.get_mut(&key) {
            sender.lease.recalled = true;
            self.pool.place(key, &mut sender.lease);
            self.watch_asked(key);
            effects.push_back(Effect::Recall { from: key });
        }
    }

    /// Senders whose clients have room again join the line again.
    fn let_in(&mut self) {
        if !self.pool.shares.has_ready() {
            return;
        }
        let mut back = Vec::new();
        self.pool.shares.let_in(|key| {
            let sender = self.map.get(&key).filter(|sender| sender.lease.over_share && !sender.gone);
            back.extend(sender.map(|_| key));
            sender.map_or(0, |sender| sender.lease.want)
        });
        for key in back {
            if let Some(sender) = self.map.get_mut(&key) {
                sender.lease.over_share = false;
                self.pool.place(key, &mut sender.lease);
            }
        }
    }
}
