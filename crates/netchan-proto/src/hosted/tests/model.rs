//! Random operations on a hosted channel and on the reference; every step is checked.

use proptest::prelude::*;

use super::reference::{Peer, Reference};
use super::*;
use crate::hosted::{Durable, Violation, Withdraw};

#[derive(Clone, Debug)]
enum Op {
    AddSender,
    RemoveSender(usize),
    Want(usize, u64),
    SendLocally(usize),
    LeaseLocally(usize),
    Commit(usize),
    Arrive(usize),
    Yield(usize),
    Withdraw(usize),
    Suspend(usize),
    Resume(usize),
    AddReceiver,
    RemoveReceiver(usize),
    Demand(usize, u64),
    Cancel(usize, u64),
    Take(usize, usize),
    GiveBack(usize, usize),
    Lie(usize, u64),
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..6_usize;
    prop_oneof![
        2 => Just(Op::AddSender),
        1 => who.clone().prop_map(Op::RemoveSender),
        12 => (who.clone(), 0..5_u64).prop_map(|(who, n)| Op::Want(who, n)),
        6 => who.clone().prop_map(Op::SendLocally),
        2 => who.clone().prop_map(Op::LeaseLocally),
        12 => who.clone().prop_map(Op::Commit),
        18 => who.clone().prop_map(Op::Arrive),
        8 => who.clone().prop_map(Op::Yield),
        6 => who.clone().prop_map(Op::Withdraw),
        2 => who.clone().prop_map(Op::Suspend),
        4 => who.clone().prop_map(Op::Resume),
        1 => Just(Op::AddReceiver),
        1 => who.clone().prop_map(Op::RemoveReceiver),
        12 => (who.clone(), 1..4_u64).prop_map(|(who, n)| Op::Demand(who, n)),
        3 => (who.clone(), 0..4_u64).prop_map(|(who, n)| Op::Cancel(who, n)),
        15 => (who.clone(), 0..4_usize).prop_map(|(who, n)| Op::Take(who, n)),
        4 => (who.clone(), 0..3_usize).prop_map(|(who, n)| Op::GiveBack(who, n)),
        3 => (who, any::<u64>()).prop_map(|(who, n)| Op::Lie(who, n)),
    ]
}

struct Run {
    hosted: Hosted,
    reference: Reference,
    next_key: u64,
    /// What the facts told so far add up to.
    durable: Durable,
}

impl Run {
    fn new(capacity: u64) -> Self {
        let mut run = Self {
            hosted: Hosted::new(capacity),
            reference: Reference::new(capacity),
            next_key: 0,
            durable: Durable::default(),
        };
        run.hosted.tell_facts();
        for op in [Op::AddSender, Op::AddSender, Op::AddSender, Op::AddReceiver, Op::AddReceiver] {
            run.step(&op);
        }
        run
    }

    fn sender(&self, who: usize) -> Option<SenderKey> {
        let live: Vec<_> = self.reference.senders.iter().filter(|(_, peer)| !peer.gone).collect();
        live.get(who % live.len().max(1)).map(|(key, _)| **key)
    }

    fn receiver(&self, who: usize) -> Option<ReceiverKey> {
        self.reference.held.keys().nth(who % self.reference.held.len().max(1)).copied()
    }

    fn step(&mut self, op: &Op) {
        self.apply(op);
        self.reference.settle();
        while let Some(effect) = self.hosted.poll_effect() {
            match effect {
                Effect::Grant { to, limit } => self.reference.granted(to, limit),
                Effect::Recall { from } => self.reference.recalled(from),
                Effect::Deliver { to } => {
                    let expected = self.reference.outgoing.remove(&to).unwrap_or_default();
                    assert_eq!(sent(&mut self.hosted, to), Vec::from(expected), "after {op:?}");
                }
                other => {
                    let at = self.reference.expected.iter().position(|expected| *expected == other);
                    assert!(at.is_some(), "{other:?} after {op:?}, not one of {:?}", self.reference.expected);
                    let same_kind = |expected: &Effect| {
                        std::mem::discriminant(expected) == std::mem::discriminant(&other)
                    };
                    let first = self.reference.expected.iter().position(same_kind);
                    assert_eq!(at, first, "out of order: {other:?}");
                    self.reference.expected.remove(at.unwrap());
                }
            }
        }
        assert!(self.reference.expected.is_empty(), "missing after {op:?}: {:?}", self.reference.expected);
        assert!(self.reference.outgoing.is_empty(), "not sent after {op:?}: {:?}", self.reference.outgoing);
        while let Some(fact) = self.hosted.poll_fact() {
            self.durable.fold(fact);
        }
        assert_eq!(self.durable, self.hosted.durable(), "what the facts add up to after {op:?}");
        self.reference.check(&self.hosted);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::AddSender => {
                self.next_key += 1;
                assert!(self.hosted.add_sender(SenderKey(self.next_key)));
                self.reference.senders.insert(SenderKey(self.next_key), Peer::default());
            }
            Op::AddReceiver => {
                self.next_key += 1;
                assert!(self.hosted.add_receiver(ReceiverKey(self.next_key)));
                self.reference.held.insert(ReceiverKey(self.next_key), Vec::new());
            }
            Op::Close => self.close(),
            Op::RemoveReceiver(who)
            | Op::Demand(who, _)
            | Op::Cancel(who, _)
            | Op::Take(who, _)
            | Op::GiveBack(who, _) => {
                if let Some(key) = self.receiver(who) {
                    self.receive(op, key);
                }
            }
            Op::RemoveSender(who)
            | Op::Want(who, _)
            | Op::SendLocally(who)
            | Op::LeaseLocally(who)
            | Op::Commit(who)
            | Op::Arrive(who)
            | Op::Yield(who)
            | Op::Withdraw(who)
            | Op::Suspend(who)
            | Op::Resume(who)
            | Op::Lie(who, _) => {
                if let Some(key) = self.sender(who) {
                    self.send(op, key);
                }
            }
        }
    }

    fn receive(&mut self, op: &Op, key: ReceiverKey) {
        let Self { hosted, reference, .. } = self;
        match *op {
            Op::RemoveReceiver(_) => {
                hosted.remove_receiver(key, Leave::LOST);
                reference.demand.retain(|of| *of != key);
                let items = reference.held.remove(&key).unwrap();
                reference.return_items(items, true);
            }
            Op::Demand(_, n) => {
                hosted.demand(key, n).unwrap();
                reference.demand.extend((0..n).map(|_| key));
            }
            Op::Cancel(_, n) => {
                let places: Vec<_> =
                    (0..reference.demand.len()).filter(|at| reference.demand[*at] == key).collect();
                let newest: Vec<_> = places.iter().rev().take(n as usize).collect();
                assert_eq!(hosted.cancel_demand(key, n), newest.len() as u64);
                for at in newest {
                    reference.demand.remove(*at);
                }
            }
            Op::Take(_, n) => {
                let n = n.min(reference.held[&key].len());
                hosted.taken(key, n as u64).unwrap();
                reference.take(key, n);
            }
            Op::GiveBack(_, keep) => {
                let keep = keep.min(reference.held[&key].len());
                let items = reference.held.get_mut(&key).unwrap().split_off(keep);
                assert_eq!(hosted.give_back(key, keep as u64), Ok(items.len()));
                reference.return_items(items, false);
            }
            _ => unreachable!(),
        }
    }

    fn send(&mut self, op: &Op, key: SenderKey) {
        let Self { hosted, reference, .. } = self;
        let (free, waiting, closed) = (reference.free(), reference.waiting(), reference.closed);
        let rendezvous = reference.capacity == 0;
        let peer = reference.senders.get_mut(&key).unwrap();
        match *op {
            Op::Want(_, n) => {
                hosted.want(key, n);
                if !rendezvous && !closed && peer.suspended.is_none() {
                    peer.want = n;
                }
            }
            Op::SendLocally(_) | Op::LeaseLocally(_) => {
                let may = free > 0 && waiting == 0 && !closed && !peer.recalled && peer.suspended.is_none();
                assert_eq!(hosted.try_lease(key), may);
                if may {
                    peer.limit += 1;
                    if matches!(op, Op::SendLocally(_)) {
                        peer.committed = peer.committed.max(peer.pushed + 1);
                        self.arrive(key);
                    }
                }
            }
            // A suspended sender goes on committing: it does not know yet.
            Op::Commit(_) if !rendezvous && peer.committed < peer.suspended.unwrap_or(peer.limit) => {
                peer.committed += 1;
            }
            Op::Arrive(_) if rendezvous && peer.settled.len() as u64 == peer.pushed => self.arrive(key),
            Op::Arrive(_) if peer.pushed < peer.committed && peer.suspended.is_none() => self.arrive(key),
            Op::Yield(_) if peer.recalled => {
                hosted.yielded(key, peer.committed).unwrap();
                (peer.limit, peer.firm, peer.recalled) = (peer.committed, peer.committed, false);
            }
            Op::Withdraw(_) if rendezvous && peer.pushed > 0 => {
                let seq = peer.pushed - 1;
                let found = hosted.withdraw(key, seq).unwrap();
                let at = reference.queue.iter().position(|item| item.origin == key);
                match (peer.answer, at) {
                    (Some(answer), _) => assert_eq!(found, answer),
                    (None, None) => {
                        assert_eq!(found, Withdraw::Dispatched);
                        peer.withdraw_asked = true;
                    }
                    (None, Some(at)) => {
                        assert_eq!(found, Withdraw::Withdrawn);
                        reference.queue.remove(at);
                        reference.withdraw(key, seq, false);
                    }
                }
            }
            Op::Suspend(_) if !rendezvous && peer.suspended.is_none() => {
                hosted.suspend(key);
                peer.suspended = Some(peer.limit);
                (peer.limit, peer.firm, peer.recalled, peer.want) = (peer.pushed, peer.pushed, false, 0);
            }
            Op::Resume(_) if peer.suspended.is_some() => {
                peer.suspended = None;
                if reference.finished {
                    peer.committed = peer.pushed;
                    assert_eq!(hosted.resume(key, peer.committed), Ok(peer.limit));
                } else {
                    let more = peer.committed - peer.pushed;
                    assert_eq!(hosted.resume(key, peer.committed), Ok(peer.committed));
                    (peer.limit, peer.firm) = (peer.committed, peer.committed);
                    reference.overdraft += more;
                }
            }
            Op::RemoveSender(_) => self.remove_sender(key),
            Op::Lie(_, n) => self.lie(key, n),
            _ => {}
        }
    }

    fn arrive(&mut self, key: SenderKey) {
        let seq = self.reference.senders[&key].pushed;
        self.hosted.push(key, seq, value(seq)).unwrap();
        self.reference.admit(key, seq);
    }

    fn remove_sender(&mut self, key: SenderKey) {
        let Self { hosted, reference, .. } = self;
        hosted.remove_sender(key);
        let peer = reference.senders.get_mut(&key).unwrap();
        (peer.gone, peer.recalled, peer.suspended, peer.want) = (true, false, None, 0);
        (peer.limit, peer.firm) = (peer.pushed, peer.pushed);
        if reference.capacity == 0
            && let Some(at) = reference.queue.iter().position(|item| item.origin == key)
        {
            let item = reference.queue.remove(at);
            reference.withdraw(key, item.seq, false);
        }
    }

    /// Nothing a peer may claim changes anything.
    fn lie(&mut self, key: SenderKey, n: u64) {
        let before = format!("{:?}", self.hosted);
        let hosted = &mut self.hosted;
        let peer = &self.reference.senders[&key];
        assert!(hosted.push(key, peer.pushed.wrapping_add(n | 1), value(0)).is_err());
        assert!(hosted.withdraw(key, peer.pushed.wrapping_add(n >> 1)).is_err());
        if peer.limit == peer.pushed && self.reference.capacity > 0 {
            assert_eq!(hosted.push(key, peer.pushed, value(0)), Err(Violation::ExcessCredit));
        }
        if self.reference.capacity == 0 && peer.outstanding() > 0 {
            assert_eq!(hosted.push(key, peer.pushed, value(0)), Err(Violation::ExcessCredit));
        }
        let outside = if n.is_multiple_of(2) && peer.pushed > 0 {
            n % peer.pushed
        } else {
            peer.limit.saturating_add(n | 1)
        };
        let violation = if peer.recalled { Violation::FalseYield } else { Violation::UnaskedYield };
        assert_eq!(hosted.yielded(key, outside), Err(violation));
        if !peer.recalled {
            assert_eq!(hosted.yielded(key, peer.limit), Err(Violation::UnaskedYield));
        }
        for (receiver, held) in &self.reference.held {
            let beyond = (held.len() as u64).saturating_add(n | 1);
            assert_eq!(hosted.taken(*receiver, beyond), Err(Violation::NotInFlight));
            assert_eq!(hosted.give_back(*receiver, beyond), Err(Violation::NotInFlight));
        }
        assert_eq!(format!("{:?}", self.hosted), before);
    }

    fn close(&mut self) {
        self.hosted.close();
        let reference = &mut self.reference;
        reference.closed = true;
        reference.senders.values_mut().for_each(|peer| peer.want = 0);
        if reference.capacity == 0 {
            for item in std::mem::take(&mut reference.queue) {
                reference.withdraw(item.origin, item.seq, true);
            }
        }
    }

    /// Everyone comes back, answers and receives: everything must arrive, and the end be told.
    fn finish(mut self) {
        let senders = self.reference.senders.len();
        (0..senders).for_each(|who| self.step(&Op::Resume(who)));
        self.step(&Op::Close);
        (0..senders).for_each(|who| self.step(&Op::Yield(who)));
        for who in 0..senders {
            for _ in 0..self.reference.capacity + self.reference.overdraft + 1 {
                if self.reference.capacity > 0 {
                    self.step(&Op::Arrive(who));
                }
            }
        }
        self.step(&Op::AddReceiver);
        let receivers = self.reference.held.len();
        let missing = self.hosted.len() as u64 + self.hosted.waiting_units();
        (0..receivers).for_each(|who| self.step(&Op::Demand(who, missing)));
        (0..receivers).for_each(|who| self.step(&Op::Take(who, usize::MAX)));
        assert!(self.reference.finished && self.hosted.is_drained(), "did not drain: {:?}", self.hosted);
        let settled: std::collections::BTreeSet<_> =
            self.reference.taken.union(&self.reference.withdrawn).copied().collect();
        assert_eq!(settled, self.reference.admitted, "lost");
        assert!(self.reference.taken.is_disjoint(&self.reference.withdrawn), "taken and withdrawn");
        assert!(self.reference.capacity == 0 || self.reference.withdrawn.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn host_all_rules_hold_under_random_operations(
        capacity in 0..=8_u64,
        ops in prop::collection::vec(op(), 0..250),
        tail in prop::option::of(prop::collection::vec(op(), 0..40)),
    ) {
        let mut run = Run::new(capacity);
        ops.iter().for_each(|op| run.step(op));
        if let Some(tail) = tail {
            run.step(&Op::Close);
            tail.iter().for_each(|op| run.step(op));
        }
        run.finish();
    }
}
