//! The auditor: told what programs asked for and what they saw, and nothing else, it judges whether the promises held.
//!
//! Numbers in brackets are the invariants of the reliability plan: I1 no loss, I2 no duplicate, I3 order, I4 nothing from
//! elsewhere, I5 an outcome for every send, I10 what was sent before a close arrives before its end, I11 the capacity law.

use std::collections::BTreeMap;

use crate::audit_services::{Services, Verdict};
use crate::value::Value;

/// What became of a send, as its program was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was asked for.
    Asked,
    /// It completed.
    Completed,
    /// It was taken back: nobody saw it and nobody will.
    Withdrawn,
    /// The channel or its session ended, and the value certainly did not arrive.
    Undelivered,
    /// The channel or its session ended, and the value may have arrived.
    InDoubt,
    /// The program died with its process, and asks no more.
    Orphaned,
}

#[derive(Clone, Debug)]
struct Sent {
    fate: Fate,
    /// Who received it, in order.
    receivers: Vec<u32>,
    /// To whom a hosted channel gave it, and at which moment.
    given: Vec<(u32, u64)>,
    /// The moment at which a receiver gave it back last.
    back: Option<u64>,
    /// It had left for a receiver that was lost, which may have taken it.
    doubtful: bool,
}

#[derive(Clone, Debug, Default)]
struct Receiver {
    /// The highest number received from each sender.
    last: BTreeMap<u32, u64>,
    /// Its session was lost: what it had taken last may not have been heard of.
    lost: bool,
    ended: bool,
}

#[derive(Clone, Debug, Default)]
struct Channel {
    capacity: u64,
    /// One sender, one receiver: the end comes behind everything.
    direct: bool,
    senders: BTreeMap<u32, Vec<Sent>>,
    receivers: BTreeMap<u32, Receiver>,
    /// By sender: completed, not received, not reported as unsettled.
    outstanding: BTreeMap<u32, u64>,
    /// Its server's process ended, and it with it.
    dead: bool,
    /// Counts what a hosted channel gives and gets back.
    moment: u64,
}

impl Channel {
    /// Whether the receiver has a later value of this sender that was not given to it before this one came back: what a
    /// receiver gives back comes behind what others were given meanwhile, and behind nothing else.
    fn is_passed_by(&self, receiver: u32, sender: u32, number: u64) -> bool {
        let sent = self.senders.get(&sender).map_or(&[][..], |sent| sent);
        let Some((first, later)) = sent.get(number as usize..).and_then(|rest| rest.split_first()) else {
            return false;
        };
        let Some(back) = first.back else { return true };
        later.iter().filter(|later| later.receivers.contains(&receiver)).any(|later| {
            let given = later.given.iter().filter(|(to, _)| *to == receiver).map(|(_, at)| *at).max();
            given.is_none_or(|given| given > back)
        })
    }

    fn sent(&mut self, sender: u32, number: u64) -> Option<&mut Sent> {
        self.senders.get_mut(&sender)?.get_mut(number as usize)
    }
}

/// What was found, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Values that completed and never arrived, nor were reported.
    pub lost: u64,
    /// Values that arrived more often than they may, or although they were reported as not arrived.
    pub duplicated: u64,
    /// Values that arrived behind a later one of the same sender.
    pub reordered: u64,
    /// Sends without an outcome, and what never came to rest.
    pub stuck: u64,
    /// Everything else that must not be.
    pub wrong: u64,
    /// What was found first, in words.
    pub notes: Vec<String>,
}

impl Findings {
    /// Whether nothing was found.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.stuck + self.wrong == 0
    }
}

/// Notes kept of one run: the first faults say most.
const NOTES_MAX: usize = 8;

/// The auditor of one run.
#[derive(Debug, Default)]
pub struct Audit {
    channels: BTreeMap<u32, Channel>,
    findings: Findings,
    received: u64,
    rendezvous: u64,
    withdrawals: u64,
    ends: u64,
    /// Deliveries and broadcasts.
    pub services: Services,
    /// A program has just ended its channel: a moment for a fault.
    pub ending: bool,
}

impl Audit {
    fn note(&mut self, text: String) {
        if self.findings.notes.len() < NOTES_MAX {
            self.findings.notes.push(text);
        }
    }

    /// Something that must not be, whatever was promised: a violation among honest peers, say.
    pub fn wrong(&mut self, text: impl Into<String>) {
        self.findings.wrong += 1;
        self.note(text.into());
    }

    /// Something that never came to rest.
    pub fn stuck(&mut self, text: impl Into<String>) {
        self.findings.stuck += 1;
        self.note(text.into());
    }

    /// Something was seen of deliveries or broadcasts: is it right?
    pub fn judge(&mut self, seen: impl FnOnce(&mut Services) -> Verdict) {
        if let Err(text) = seen(&mut self.services) {
            self.wrong(text);
        }
    }

    /// A channel comes into being.
    pub fn channel(&mut self, chan: u32, capacity: u64, direct: bool) {
        self.channels.insert(chan, Channel { capacity, direct, ..Channel::default() });
    }

    /// The server's process ended, and what it hosted and sent with it.
    pub fn died(&mut self, chan: u32) {
        if let Some(channel) = self.channels.get_mut(&chan) {
            channel.dead = true;
        }
    }

    /// A program asks for a send; numbers of one sender rise by one.
    pub fn asked(&mut self, chan: u32, sender: u32, number: u64) {
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        let sent = channel.senders.entry(sender).or_default();
        assert_eq!(sent.len() as u64, number, "the simulation numbers its values");
        sent.push(Sent {
            fate: Fate::Asked,
            receivers: Vec::new(),
            given: Vec::new(),
            back: None,
            doubtful: false,
        });
    }

    fn settle(&mut self, chan: u32, sender: u32, number: u64, fate: Fate) {
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        let capacity = channel.capacity;
        let Some(sent) = channel.senders.get_mut(&sender).and_then(|sent| sent.get_mut(number as usize))
        else {
            return self
                .wrong(format!("channel {chan}: an outcome for {number} of {sender}, which was not asked"));
        };
        let (before, arrived) = (sent.fate, !sent.receivers.is_empty());
        sent.fate = fate;
        // Who is lost may have taken it, and nobody heard of that: as far as can be known, nobody has it.
        let lost = |name: &u32| channel.receivers.get(name).is_some_and(|receiver| receiver.lost);
        let known = !sent.receivers.iter().all(lost);
        match (before, fate) {
            (Fate::Asked, Fate::Completed) => {
                if !arrived {
                    *channel.outstanding.entry(sender).or_default() += 1;
                    if capacity == 0 {
                        // I11: a rendezvous.
                        self.wrong(format!(
                            "channel {chan}: {number} of {sender} completed before it was received"
                        ));
                    }
                }
                self.rendezvous += u64::from(capacity == 0);
            }
            (Fate::Completed, Fate::Undelivered | Fate::InDoubt) => {
                *channel.outstanding.entry(sender).or_default() -= u64::from(!arrived);
            }
            // Its server had it when that died, and the sender may not have heard of that.
            (Fate::Asked, _) | (Fate::Orphaned, Fate::InDoubt) => {}
            (before, _) => {
                self.wrong(format!("channel {chan}: {number} of {sender} was {before:?}, then {fate:?}"));
            }
        }
        if known && matches!(fate, Fate::Withdrawn | Fate::Undelivered) {
            self.findings.duplicated += 1;
            self.note(format!("channel {chan}: {number} of {sender} was received, and reported as {fate:?}"));
        }
    }

    /// A send completed.
    pub fn completed(&mut self, chan: u32, sender: u32, number: u64) {
        self.settle(chan, sender, number, Fate::Completed);
    }

    /// A send was taken back.
    pub fn withdrawn(&mut self, chan: u32, sender: u32, number: u64) {
        self.withdrawals += 1;
        self.settle(chan, sender, number, Fate::Withdrawn);
    }

    /// A value came back at the end of its channel or session.
    pub fn unsettled(&mut self, chan: u32, sender: u32, number: u64, in_doubt: bool) {
        let fate = if in_doubt { Fate::InDoubt } else { Fate::Undelivered };
        self.settle(chan, sender, number, fate);
    }

    /// The sending program died with its process.
    pub fn sender_died(&mut self, chan: u32, sender: u32) {
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        for sent in channel.senders.get_mut(&sender).into_iter().flatten() {
            if matches!(sent.fate, Fate::Asked | Fate::Completed) {
                sent.fate = Fate::Orphaned;
            }
        }
        channel.outstanding.remove(&sender);
    }

    /// The server's process ended with a value that it had told its sender of: it had stopped the sender, and taken over what
    /// that had sent.
    pub fn value_died(&mut self, chan: u32, sender: u32, number: u64) {
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        if let Some(sent) = channel.sent(sender, number)
            && sent.fate == Fate::Completed
        {
            sent.fate = Fate::Orphaned;
        }
    }

    /// A receiver's session is over as its server sees it: what it took last may be given to another.
    pub fn receiver_lost(&mut self, chan: u32, receiver: u32) {
        if let Some(channel) = self.channels.get_mut(&chan) {
            channel.receivers.entry(receiver).or_default().lost = true;
        }
    }

    /// A hosted channel gave a value to a receiver.
    pub fn dispatched(&mut self, chan: u32, sender: u32, number: u64, to: u32) {
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        channel.moment += 1;
        let moment = channel.moment;
        channel.sent(sender, number).into_iter().for_each(|sent| sent.given.push((to, moment)));
    }

    /// A receiver of a hosted channel gave a value back, or is gone.
    pub fn given_back(&mut self, chan: u32, sender: u32, number: u64) {
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        channel.moment += 1;
        let moment = channel.moment;
        channel.sent(sender, number).into_iter().for_each(|sent| sent.back = Some(moment));
    }

    /// A value had left for a receiver that is lost.
    pub fn doubtful(&mut self, chan: u32, sender: u32, number: u64) {
        let sent = self.channels.get_mut(&chan).and_then(|channel| channel.sent(sender, number));
        sent.into_iter().for_each(|sent| sent.doubtful = true);
    }

    /// A program's `recv` returned these bytes.
    pub fn received(&mut self, chan: u32, receiver: u32, bytes: &[u8], redelivered: bool) {
        self.received += 1;
        let Some(value) = Value::parse(bytes).filter(|value| value.chan == chan) else {
            // I4
            return self.wrong(format!("channel {chan}: receiver {receiver} got what was not sent there"));
        };
        let Value { sender, number, .. } = value;
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        let Some(sent) = channel.senders.get_mut(&sender).and_then(|sent| sent.get_mut(number as usize))
        else {
            return self.wrong(format!("channel {chan}: {number} of {sender} was received and not sent"));
        };
        // I2: once, but for one whose session was given up: what it had, or still has, is given to another too.
        let lost = |receiver: &u32| channel.receivers.get(receiver).is_some_and(|receiver| receiver.lost);
        let again =
            sent.receivers.contains(&receiver) || (!lost(&receiver) && !sent.receivers.iter().all(lost));
        let first = sent.receivers.is_empty();
        sent.receivers.push(receiver);
        let (fate, doubtful) = (sent.fate, sent.doubtful);
        if first && fate == Fate::Completed {
            *channel.outstanding.entry(sender).or_default() -= 1;
        }
        let seen = channel.receivers.entry(receiver).or_default();
        let after_end = seen.ended;
        let behind = seen.last.get(&sender).is_some_and(|last| *last >= number);
        let last = seen.last.entry(sender).or_default();
        *last = (*last).max(number);
        let behind = behind && channel.is_passed_by(receiver, sender, number);
        let flag = if redelivered { doubtful } else { first };
        if again {
            self.findings.duplicated += 1;
            self.note(format!("channel {chan}: {number} of {sender} was received again, by {receiver}"));
        } else if behind {
            self.findings.reordered += 1;
            self.note(format!("channel {chan}: {number} of {sender} was received behind a later one"));
        } else if !flag {
            // What may have been received before says so, and nothing else does.
            self.wrong(format!(
                "channel {chan}: {number} of {sender} says that it was received: {redelivered}"
            ));
        }
        if matches!(fate, Fate::Withdrawn | Fate::Undelivered) {
            self.findings.duplicated += 1;
            self.note(format!("channel {chan}: {number} of {sender} was received after it was {fate:?}"));
        }
        if after_end {
            self.wrong(format!("channel {chan}: {number} of {sender} was received after the end"));
        }
    }

    /// A program's `recv` found the end. `orderly`: the sender closed, nobody stopped, and no session was lost.
    pub fn ended(&mut self, chan: u32, receiver: u32, orderly: bool) {
        self.ends += 1;
        let Some(channel) = self.channels.get_mut(&chan) else { return };
        channel.receivers.entry(receiver).or_default().ended = true;
        if !(orderly && channel.direct) {
            return;
        }
        // I10
        let missing = channel.senders.values().flatten();
        let missing =
            missing.filter(|sent| sent.fate == Fate::Completed && sent.receivers.is_empty()).count();
        if missing > 0 {
            self.findings.lost += missing as u64;
            self.note(format!("channel {chan}: its end came before {missing} values that were sent"));
        }
    }

    /// The capacity law, which holds at every moment over the senders that the channel serves (I11). `overdraft` is what
    /// suspended sessions had committed under leases that were lent again.
    pub fn capacity_law(&mut self, chan: u32, overdraft: u64, active: &[u32]) {
        let Some(channel) = self.channels.get(&chan) else { return };
        let capacity = channel.capacity;
        let outstanding: u64 = active.iter().filter_map(|sender| channel.outstanding.get(sender)).sum();
        if !channel.dead && outstanding > capacity + overdraft {
            self.wrong(format!(
                "channel {chan}: {outstanding} sends completed and were not received, with capacity {capacity} \
                 and overdraft {overdraft}"
            ));
        }
    }

    /// Everything is over: what is missing?
    #[must_use]
    pub fn finish(mut self) -> (Findings, Figures) {
        let channels = std::mem::take(&mut self.channels);
        for (chan, channel) in &channels {
            for (sender, sent) in &channel.senders {
                for (number, sent) in sent.iter().enumerate() {
                    match sent.fate {
                        Fate::Asked => {
                            self.stuck(format!("channel {chan}: {number} of {sender} has no outcome"));
                        }
                        Fate::Completed if sent.receivers.is_empty() => {
                            self.findings.lost += 1;
                            self.note(format!("channel {chan}: {number} of {sender} is lost"));
                        }
                        _ => {}
                    }
                }
            }
        }
        for text in self.services.unfinished() {
            self.findings.lost += 1;
            self.note(text);
        }
        let figures = Figures {
            values: self.received,
            rendezvous: self.rendezvous,
            withdrawals: self.withdrawals,
            ends: self.ends,
            results: self.services.results,
            fenced: self.services.fenced,
            cast_values: self.services.cast_values,
            lagged: self.services.lagged,
        };
        (self.findings, figures)
    }
}

/// How much was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Values received.
    pub values: u64,
    /// Sends completed on channels of capacity 0.
    pub rendezvous: u64,
    /// Sends taken back.
    pub withdrawals: u64,
    /// Ends that receivers were told of.
    pub ends: u64,
    /// Results committed with their acknowledgements.
    pub results: u64,
    /// Acknowledgements that were refused.
    pub fenced: u64,
    /// Values of broadcasts received.
    pub cast_values: u64,
    /// Values that subscribers were told they had lost.
    pub lagged: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(capacity: u64) -> Audit {
        let mut audit = Audit::default();
        audit.channel(1, capacity, true);
        audit
    }

    fn send(audit: &mut Audit, number: u64) -> Vec<u8> {
        audit.asked(1, 7, number);
        audit.completed(1, 7, number);
        Value { chan: 1, sender: 7, number }.bytes(30)
    }

    #[test]
    fn a_good_history_is_clean() {
        let mut audit = one(2);
        for number in 0..5 {
            let bytes = send(&mut audit, number);
            audit.capacity_law(1, 0, &[7]);
            audit.received(1, 9, &bytes, false);
        }
        audit.ended(1, 9, true);
        let (findings, figures) = audit.finish();
        assert!(findings.clean(), "{findings:?}");
        assert_eq!(figures, Figures { values: 5, ends: 1, ..Figures::default() });
    }

    #[test]
    fn a_loss_is_found_at_the_end_of_the_channel_and_of_the_run() {
        let mut audit = one(2);
        _ = send(&mut audit, 0);
        audit.ended(1, 9, true);
        assert_eq!(audit.finish().0.lost, 2);
    }

    #[test]
    fn a_duplicate_is_found_unless_the_first_receiver_is_lost() {
        let mut audit = one(2);
        let bytes = send(&mut audit, 0);
        audit.received(1, 9, &bytes, false);
        audit.received(1, 9, &bytes, true);
        assert_eq!(audit.findings.duplicated, 1);
        let mut audit = one(2);
        let bytes = send(&mut audit, 0);
        audit.received(1, 9, &bytes, false);
        audit.receiver_lost(1, 9);
        audit.doubtful(1, 7, 0);
        audit.received(1, 8, &bytes, true);
        assert!(audit.finish().0.clean());
        // The word that it may have been received stands where that may be, and nowhere else.
        let mut audit = one(2);
        let bytes = send(&mut audit, 0);
        audit.received(1, 9, &bytes, true);
        assert!(!audit.finish().0.clean());
    }

    #[test]
    fn what_says_that_it_was_received_and_was_not_is_found_and_the_reverse() {
        let mut audit = one(2);
        let bytes = send(&mut audit, 0);
        audit.received(1, 9, &bytes, true);
        assert_eq!(audit.findings.wrong, 1);
        audit.receiver_lost(1, 9);
        audit.doubtful(1, 7, 0);
        audit.received(1, 8, &bytes, false);
        assert_eq!(audit.findings.wrong, 2);
    }

    #[test]
    fn what_came_back_comes_behind_what_was_given_before_and_nothing_else() {
        for first in [true, false] {
            let mut audit = one(3);
            let values = [send(&mut audit, 0), send(&mut audit, 1)];
            audit.dispatched(1, 7, 0, 8);
            if first {
                audit.dispatched(1, 7, 1, 9);
                audit.given_back(1, 7, 0);
            } else {
                audit.given_back(1, 7, 0);
                audit.dispatched(1, 7, 1, 9);
            }
            audit.received(1, 9, &values[1], false);
            audit.dispatched(1, 7, 0, 9);
            audit.received(1, 9, &values[0], false);
            assert_eq!(audit.finish().0.reordered, u64::from(!first));
        }
    }

    #[test]
    fn an_order_that_falls_is_found() {
        let mut audit = one(2);
        let values = [send(&mut audit, 0), send(&mut audit, 1)];
        audit.received(1, 9, &values[1], false);
        audit.received(1, 9, &values[0], false);
        assert_eq!(audit.finish().0.reordered, 1);
    }

    #[test]
    fn what_was_never_sent_or_is_damaged_is_found() {
        let mut audit = one(2);
        audit.received(1, 9, &Value { chan: 1, sender: 7, number: 0 }.bytes(30), false);
        audit.received(1, 9, &Value { chan: 2, sender: 7, number: 0 }.bytes(30), false);
        let mut damaged = send(&mut audit, 0);
        damaged[20] ^= 1;
        audit.received(1, 9, &damaged, false);
        assert_eq!(audit.finish().0.wrong, 3);
    }

    #[test]
    fn the_capacity_law_is_kept_to_the_unit() {
        let mut audit = one(2);
        for number in 0..2 {
            _ = send(&mut audit, number);
        }
        audit.capacity_law(1, 0, &[7]);
        assert_eq!(audit.findings.wrong, 0);
        _ = send(&mut audit, 2);
        audit.capacity_law(1, 1, &[7]);
        assert_eq!(audit.findings.wrong, 0);
        audit.capacity_law(1, 0, &[7]);
        assert_eq!(audit.findings.wrong, 1);
        let mut rendezvous = one(0);
        _ = send(&mut rendezvous, 0);
        assert_eq!(rendezvous.findings.wrong, 1, "completed before it was received");
    }

    #[test]
    fn outcomes_that_contradict_what_was_seen_are_found() {
        for withdrawn in [true, false] {
            let mut audit = one(0);
            audit.asked(1, 7, 0);
            audit.received(1, 9, &Value { chan: 1, sender: 7, number: 0 }.bytes(30), false);
            if withdrawn {
                audit.withdrawn(1, 7, 0);
            } else {
                audit.unsettled(1, 7, 0, false);
            }
            assert_eq!(audit.finish().0.duplicated, 1);
        }
        let mut audit = one(0);
        audit.asked(1, 7, 0);
        assert_eq!(audit.finish().0.stuck, 1, "a send without an outcome");
    }
}
