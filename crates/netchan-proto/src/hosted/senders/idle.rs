//! Senders that hold credit without using it while others wait for it.

use std::collections::VecDeque;

use super::{Lease, Pool, Sender, Senders};
use crate::hosted::{Effect, SenderKey};
use crate::limits::{STALLED_AFTER_MILLIS, UNUSED_AFTER_MILLIS};

/// When the sender must have used or returned some of its credit.
fn due_at(lease: &Lease, asked: Option<u64>, since: u64) -> u64 {
    let unused = asked.unwrap_or(since).saturating_add(UNUSED_AFTER_MILLIS);
    if lease.recalled { unused.min(since.saturating_add(STALLED_AFTER_MILLIS)) } else { unused }
}

impl Senders {
    /// Starts the time for a sender that was asked for credit, was granted some, or kept some.
    pub(in crate::hosted) fn watch(&mut self, key: SenderKey) {
        if let Some(sender) = self.map.get_mut(&key) {
            sender.idle_since = Some(self.now);
            sender.watched.get_or_insert_with(|| self.watched.join((self.now, key)));
        }
    }

    /// As [`Self::watch`], for a sender that is asked for its credit.
    pub(in crate::hosted) fn watch_asked(&mut self, key: SenderKey) {
        if let Some(sender) = self.map.get_mut(&key) {
            sender.asked_since.get_or_insert(self.now);
        }
        self.watch(key);
    }

    /// Whether a sender waits for credit and none is free, or did a moment ago: a busy sender waits often, and never for long.
    fn was_short(&self) -> bool {
        let lately = |at| self.now.saturating_sub(at) < STALLED_AFTER_MILLIS;
        self.pool.is_closed() || self.pool.is_short() || self.short_at.is_some_and(lately)
    }

    /// When a sender may have held credit for too long.
    pub(in crate::hosted) fn next_timeout(&self) -> Option<u64> {
        let (at, _) = self.watched.first()?;
        let matters = self.was_short()
            || self.pool.waiting() > 0
            || self.pool.is_owed()
            || self.pool.shares.has_waiting();
        matters.then_some(at + STALLED_AFTER_MILLIS)
    }

    /// Finds senders that have neither used nor returned credit for too long (`HOST-10`). A sender that was not asked for it is asked
    /// now; for one that was, [`Effect::StalledSender`] follows.
    pub(in crate::hosted) fn find_stalled<T>(&mut self, now: u64, effects: &mut VecDeque<Effect<T>>) {
        let short = self.was_short();
        while let Some((at, key)) = self.watched.first().copied()
            && at.saturating_add(STALLED_AFTER_MILLIS) <= now
        {
            self.watched.leave_first();
            let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { continue };
            sender.watched = None;
            let lease = &mut sender.lease;
            let idle = lease.suspended.is_none() && lease.unused() > 0;
            // Other senders of its client may wait where no others do. A sender that wants more must use what it has, and one that was
            // asked must answer, whether or not others wait.
            let short = short || self.pool.shares.waits(lease.share) || lease.want > 0 || lease.recalled;
            match sender.idle_since.filter(|_| idle) {
                None => sender.idle_since = None,
                Some(since) if now < due_at(lease, sender.asked_since, since) => {
                    let at = due_at(lease, sender.asked_since, since) - STALLED_AFTER_MILLIS;
                    sender.watched = Some(self.watched.join((at, key)));
                }
                Some(_)
                    if short && sender.asked_since.is_none() && !lease.recalled && lease.recallable() > 0 =>
                {
                    lease.recalled = true;
                    self.pool.place(key, lease);
                    self.watch_asked(key);
                    effects.push_back(Effect::Recall { from: key });
                }
                Some(_) if short => {
                    sender.idle_since = None;
                    effects.push_back(Effect::StalledSender { key });
                }
                Some(_) => {
                    // No sender waits for its credit any more.
                    sender.asked_since = None;
                    self.watch(key);
                }
            }
        }
    }

    /// The sender needs no more than what lies below `limit`: the rest may be recalled, though it kept it before (`HOST-12`).
    pub(in crate::hosted) fn needs_only(&mut self, key: SenderKey, limit: u64) {
        let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { return };
        let lease = &mut sender.lease;
        lease.firm = lease.firm.min(limit.max(lease.pushed));
        self.pool.place(key, lease);
    }
}

/// The server's own senders count among those that share from their first request on.
pub(super) fn note_seen(sender: &mut Sender, pool: &mut Pool) {
    if !std::mem::replace(&mut sender.seen, true) {
        pool.shares.join_unnamed();
    }
}
