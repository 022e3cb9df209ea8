//! Clients that send into the queue.

use bytes::Bytes;

use super::{Half, NoPlace, Output, Ports, Queue, Stopped, reason_of};
use crate::channel::RecvHalf;
use crate::hosted::{SenderKey, Violation, Withdraw};
use crate::limits::WELCOME_ITEMS_MAX;
use crate::planted::{self, Mutant};

/// Values that are taken out of a half at once, with the policy deciding for all of them.
const RUN_VALUES_MAX: usize = 256;

/// A client that sends.
pub(super) struct Source<P: Ports> {
    port: P::Source,
    peer: P::Peer,
    client: Option<u128>,
    /// Its values numbered below this have come, or were withdrawn on their way.
    pushed: u64,
    /// Its values wait in its half.
    held_up: bool,
    /// Bytes that have come, of a value that has not come whole too.
    arrived: u64,
    /// It was asked for a sign of life, for it seems to have stalled.
    probe: Option<u64>,
}

/// A value that has come out of a half.
#[derive(Debug)]
pub(super) struct Arrived {
    seq: u64,
    bytes: Bytes,
    redelivered: bool,
}

impl<P: Ports> Source<P> {
    /// Calls `f` with its half, and sees that what that has to say is said.
    pub(super) fn tell(&self, out: &mut Output<P>, f: impl FnOnce(&mut RecvHalf)) {
        let urgency = P::with_source(&self.port, |half| {
            f(half);
            half.urgency()
        });
        if let Some(urgency) = urgency {
            out.sources.push((self.port.clone(), urgency));
        }
    }
}

impl<P: Ports> Queue<P> {
    /// A place for a client that is to send. `client` names its key.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn add_source(&mut self, client: Option<u128>) -> Result<SenderKey, NoPlace> {
        if self.closed.is_some() {
            return Err(NoPlace::Finished);
        }
        self.let_in(client)?;
        let key = SenderKey(self.new_key());
        self.hosted.add_sender_of(client, key);
        Ok(key)
    }

    /// Its half is in place; [`Self::greet_source`] follows once the client knows of it.
    pub fn attach_source(&mut self, key: SenderKey, port: P::Source, peer: P::Peer, client: Option<u128>) {
        self.sources
            .insert(key, Source { port, peer, client, pushed: 0, held_up: false, arrived: 0, probe: None });
    }

    /// The client knows of its half. It may send some values at once, if there are places for them (`HOST-26`).
    pub fn greet_source(&mut self, key: SenderKey, out: &mut Output<P>) {
        let limit = if self.hosted.capacity() > 0 { self.hosted.welcome(key, WELCOME_ITEMS_MAX) } else { 0 };
        // It is told even that there is nothing: until then its opener waits.
        self.tell_source(key, out, |half| {
            half.lease(limit);
            half.report();
        });
        if let Some(reason) = &self.closed {
            self.tell_source(key, out, |half| half.announce_closing(reason.clone()));
        }
        self.carry_out(out);
        self.stop_if_done(key, out);
    }

    /// Values, or its end, have arrived in its half.
    pub fn values_arrived(&mut self, key: SenderKey, out: &mut Output<P>) {
        self.take_values(key, false, out);
        self.hosted.settle();
        self.carry_out(out);
        self.stop_if_done(key, out);
    }

    /// `all` of them, if they have nowhere else to wait.
    fn take_values(&mut self, key: SenderKey, all: bool, out: &mut Output<P>) {
        loop {
            let Some(source) = self.sources.get_mut(&key) else { return };
            let arrived = P::with_source(&source.port, |half| half.arrived_bytes()).unwrap_or(0);
            if std::mem::replace(&mut source.arrived, arrived) != arrived {
                source.probe = None;
            }
            if self.hosted.is_suspended(key) && !planted::is(Mutant::TakenWhileAway) {
                // Its credit is lent to others until it says what it had committed, these values among that (`HOST-15`). If it has
                // closed, it is these.
                let all_of_it = P::with_source(&source.port, |half| {
                    let known = all || half.peer_closed().is_some();
                    (known && half.ready() > 0).then(|| half.received())
                });
                let Some(Some(received)) = all_of_it else { return };
                if self.hosted.resume(key, received).is_err() {
                    return;
                }
            }
            if !all && self.hosted.is_full_of_bytes() {
                // They wait where the client's own credit pays for them (`HOST-27`).
                if !std::mem::replace(&mut source.held_up, true) {
                    self.held_up.push_back(key);
                }
                return;
            }
            let Self { run, store, hosted, .. } = self;
            let mut room = if all { u64::MAX } else { hosted.bytes_left() };
            let closed = P::with_source(&source.port, |half| {
                while run.len() < RUN_VALUES_MAX && room > 0 {
                    let Some((seq, bytes)) = half.hand_over_to(|value| store.keep(value)) else { break };
                    room = room.saturating_sub(bytes.len() as u64);
                    run.push(Arrived { seq, bytes, redelivered: half.took_redelivered() });
                }
                half.ready() == 0 && half.peer_closed().is_some()
            });
            let whole = run.len() == RUN_VALUES_MAX || room == 0;
            let mut violation = None;
            for Arrived { seq, bytes, redelivered } in run.drain(..) {
                if violation.is_none() {
                    // Numbers that have not come were used up by offers withdrawn on their way.
                    let from = std::mem::replace(&mut source.pushed, seq + 1);
                    let pushed =
                        (from..seq).try_for_each(|skipped| hosted.skip(key, skipped)).and_then(|()| {
                            hosted.push_one(key, seq, Some(source.peer.clone()), bytes, redelivered)
                        });
                    violation = pushed.err();
                }
            }
            if let Some(violation) = violation {
                return self.stop_source(key, Stopped::Violation(violation), out);
            }
            if closed == Some(true) {
                self.hosted.retire(key);
            }
            if !whole {
                return;
            }
        }
    }

    /// There may be room for values that wait in their halves. Says whether any came.
    pub(super) fn take_held_up(&mut self, out: &mut Output<P>) -> bool {
        if self.held_up.is_empty() || self.hosted.is_full_of_bytes() {
            return false;
        }
        while !self.hosted.is_full_of_bytes()
            && let Some(key) = self.held_up.pop_front()
        {
            if let Some(source) = self.sources.get_mut(&key) {
                source.held_up = false;
                self.take_values(key, false, out);
            }
        }
        self.hosted.settle();
        true
    }

    /// It asks for credit up to `limit`; less than it has says that it needs no more.
    pub fn wanted(&mut self, key: SenderKey, limit: u64, out: &mut Output<P>) {
        self.hosted.want_up_to(key, limit);
        self.carry_out(out);
    }

    /// It gave its credit from `limit` on back.
    pub fn yielded(&mut self, key: SenderKey, limit: u64, out: &mut Output<P>) {
        match self.hosted.yielded(key, limit) {
            // A close, or a lost link, that came behind it may have been seen first, and gave everything back.
            Ok(()) | Err(Violation::UnaskedYield | Violation::UnknownSender) => {}
            Err(violation) => self.stop_source(key, Stopped::Violation(violation), out),
        }
        self.carry_out(out);
        self.stop_if_done(key, out);
    }

    /// It wants its offer with number `seq` back.
    pub fn withdraw_asked(&mut self, key: SenderKey, seq: u64, out: &mut Output<P>) {
        let skipped = match self.sources.get_mut(&key) {
            Some(source) if source.pushed < seq => {
                let from = std::mem::replace(&mut source.pushed, seq);
                (from..seq).try_for_each(|skipped| self.hosted.skip(key, skipped))
            }
            _ => Ok(()),
        };
        let outcome = match skipped.and_then(|()| self.hosted.withdraw(key, seq)) {
            Ok(Withdraw::Withdrawn) => Some(true),
            Ok(Withdraw::Taken) | Err(_) => Some(false),
            // The receiver that holds it decides; an effect says so.
            Ok(Withdraw::Dispatched) => None,
        };
        if let Some(withdrawn) = outcome {
            self.tell_source(key, out, |half| half.answer_withdraw(seq, withdrawn));
        }
        self.carry_out(out);
    }

    /// Its channel, or session, is over. What has arrived of it stays: it may have been told so.
    pub fn remove_source(&mut self, key: SenderKey, out: &mut Output<P>) {
        self.take_values(key, true, out);
        self.hosted.remove_sender(key);
        self.forget_source(key);
        self.carry_out(out);
    }

    /// Its link is gone: what it has not used is lent to others, until it says how much it needs.
    pub fn suspend_source(&mut self, key: SenderKey, out: &mut Output<P>) {
        self.hosted.suspend(key);
        self.carry_out(out);
    }

    /// It is back, and has committed or set aside what lies below `limit`.
    pub fn resume_source(&mut self, key: SenderKey, limit: u64, out: &mut Output<P>) {
        match self.hosted.resume(key, limit) {
            Ok(_) => {
                self.take_values(key, false, out);
                self.hosted.settle();
            }
            Err(Violation::UnknownSender) => {}
            Err(violation) => self.stop_source(key, Stopped::Violation(violation), out),
        }
        self.carry_out(out);
        self.stop_if_done(key, out);
    }

    /// It neither used nor returned what it holds. It is stopped if it is there to do so, which it shows by answering a ping.
    pub(super) fn stalled_source(&mut self, key: SenderKey, out: &mut Output<P>) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        // A value that waits here for room is not one that the client keeps back.
        let waits_here = P::with_source(&source.port, |half| half.ready() > 0) == Some(true);
        if !waits_here && super::has_answered::<P>(&mut source.probe, Half::Source(&source.port)) {
            self.stop_source(key, Stopped::Stalled, out);
        } else {
            self.hosted.excuse_sender(key);
        }
    }

    fn forget_source(&mut self, key: SenderKey) -> Option<Source<P>> {
        let source = self.sources.remove(&key)?;
        if source.held_up {
            self.held_up.retain(|held_up| *held_up != key);
        }
        Some(source)
    }

    /// Its channel is ended, and its unused credit is free.
    pub(super) fn stop_source(&mut self, key: SenderKey, why: Stopped, out: &mut Output<P>) {
        let Some(source) = self.forget_source(key) else { return };
        self.note_stopped(source.client, why);
        source.tell(out, |half| half.stop(reason_of(why)));
        out.news.push(super::News::Stopped { peer: source.peer, why });
        self.hosted.remove_sender(key);
    }

    pub(super) fn tell_source(&self, key: SenderKey, out: &mut Output<P>, f: impl FnOnce(&mut RecvHalf)) {
        if let Some(source) = self.sources.get(&key) {
            source.tell(out, f);
        }
    }

    /// After the close: a sender that has no credit left is told the end.
    pub(super) fn stop_if_done(&self, key: SenderKey, out: &mut Output<P>) {
        let (Some(reason), Some(source)) = (&self.closed, self.sources.get(&key)) else { return };
        let no_credit = self.finished || self.hosted.limit(key).is_none_or(|limit| source.pushed >= limit);
        // An offer that somebody has may still be taken, or come back: the count that the end says waits for that.
        let no_credit = no_credit && !self.hosted.has_open_offer(key);
        if !no_credit || planted::is(Mutant::CloseNotTold) {
            return;
        }
        let urgency = P::with_source(&source.port, |half| {
            if half.ended().is_some() || !self.finished && half.peer_closed().is_some() {
                return None;
            }
            // What a sender brings along that was away until the channel had come to its end is taken by nobody, even if its
            // close came with it.
            half.refuse(source.pushed, reason.clone());
            Some(half.urgency())
        });
        if let Some(Some(urgency)) = urgency {
            out.sources.push((source.port.clone(), urgency));
        }
    }

    /// The same for all of them: at the close, and at the end.
    pub(super) fn stop_all_done(&self, out: &mut Output<P>) {
        self.sources.keys().for_each(|key| self.stop_if_done(*key, out));
    }
}
