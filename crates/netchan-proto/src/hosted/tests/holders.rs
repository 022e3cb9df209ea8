//! Receivers that acknowledge what they were handed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A channel with senders A, B, D, a plain receiver Y and a holder X.
fn channel(capacity: u64, out_max: u64) -> Hosted {
    let mut hosted = Hosted::new(capacity);
    assert!([A, B, D].into_iter().all(|key| hosted.add_sender(key)));
    assert!(hosted.add_holder(X, HolderOptions::new(out_max)) && hosted.add_receiver(Y));
    hosted
}

/// The attempts of what was delivered.
fn attempts(hosted: &mut Hosted) -> Vec<(ReceiverKey, u64, u32)> {
    let mut all = Vec::new();
    while let Some(effect) = hosted.poll_effect() {
        if let Effect::Deliver { to } = effect {
            all.extend(sent(hosted, to).into_iter().map(|item| (to, item.seq, item.attempts)));
        }
    }
    all
}

#[test]
fn del_1_what_is_handed_over_counts_as_taken_and_stays_until_it_is_acknowledged() {
    let mut hosted = channel(2, 8);
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..2);
    assert_eq!(hosted.free(), 0);
    drain(&mut hosted);
    hosted.taken(X, 2).unwrap();
    assert_eq!(drain(&mut hosted), [Effect::Settled { sender: A, prefix: 2, count: 2 }]);
    assert_eq!((hosted.free(), hosted.unacked(), hosted.held_bytes()), (2, 2, 16));
    assert!(hosted.holds(X, 0) && hosted.holds(X, 1) && !hosted.holds(X, 2) && !hosted.holds(Y, 0));
    assert!(hosted.ack(X, 1) && hosted.ack(X, 0));
    assert_eq!((hosted.unacked(), hosted.held_bytes()), (0, 0));
}

#[test]
fn del_2_an_acknowledgement_of_what_is_not_held_changes_nothing() {
    let mut hosted = channel(2, 8);
    hosted.demand(X, 1).unwrap();
    send(&mut hosted, A, 0..1);
    assert!(!hosted.ack(X, 0), "it has not been handed over");
    hosted.taken(X, 1).unwrap();
    assert!(!hosted.ack(Y, 0) && !hosted.nack(Y, 0, None) && !hosted.extend(Y, 0, 9));
    assert!(hosted.ack(X, 0));
    assert!(!hosted.ack(X, 0) && !hosted.nack(X, 0, None), "it is done with");
}

#[test]
fn del_3_what_comes_back_goes_to_the_head_without_credit_and_says_so() {
    let mut hosted = channel(2, 8);
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..2);
    hosted.taken(X, 2).unwrap();
    send(&mut hosted, A, 2..4);
    assert_eq!(hosted.free(), 0);
    drain(&mut hosted);
    assert!(hosted.nack(X, 1, Some(0)));
    hosted.demand(Y, 3).unwrap();
    assert_eq!(delivered(&mut hosted), [(Y, A, 1, true), (Y, A, 2, false), (Y, A, 3, false)]);
    // A plain receiver is done when it has taken it, and the sender has long heard of it.
    hosted.taken(Y, 1).unwrap();
    assert_eq!((drain(&mut hosted), hosted.unacked()), (vec![], 1));
    hosted.remove_receiver(X, Leave::LOST);
    hosted.add_holder(X, HolderOptions::new(8));
    hosted.demand(X, 1).unwrap();
    assert_eq!(attempts(&mut hosted), [(X, 0, 1)], "the holder has gone");
    hosted.taken(X, 1).unwrap();
    hosted.remove_receiver(X, Leave::ORDERLY);
    hosted.demand(Y, 1).unwrap();
    assert_eq!(attempts(&mut hosted), [(Y, 0, 1)], "one that leaves in good order costs no attempt");
}

#[test]
fn del_4_a_value_that_is_to_wait_waits() {
    let mut hosted = channel(4, 8);
    hosted.demand(X, 1).unwrap();
    send(&mut hosted, A, 0..1);
    hosted.taken(X, 1).unwrap();
    drain(&mut hosted);
    assert!(hosted.nack(X, 0, Some(50)));
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 1..2);
    assert_eq!(attempts(&mut hosted), [(X, 1, 0)]);
    assert_eq!(hosted.poll_timeout(), Some(50));
    hosted.handle_timeout(49);
    assert_eq!(attempts(&mut hosted), []);
    hosted.handle_timeout(50);
    assert_eq!(attempts(&mut hosted), [(X, 0, 1)]);
    assert_eq!(hosted.poll_timeout(), None);
}

#[test]
fn del_5_a_holder_that_is_away_for_too_long_is_fenced() {
    let mut hosted = channel(8, 8);
    hosted.demand(X, 4).unwrap();
    send(&mut hosted, A, 0..4);
    hosted.taken(X, 3).unwrap();
    assert!(hosted.extend(X, 1, 900));
    hosted.holder_away(X, 500);
    hosted.holder_back(X);
    hosted.handle_timeout(600);
    assert!(hosted.holds(X, 0), "it came back in time");
    hosted.holder_away(X, 700);
    assert_eq!(hosted.poll_timeout(), Some(700));
    drain(&mut hosted);
    hosted.demand(Y, 4).unwrap();
    hosted.handle_timeout(700);
    let fenced = [0, 2, 3].map(|number| Effect::Fenced { to: X, number });
    let effects = drain(&mut hosted);
    assert_eq!(effects[..3], fenced, "what was on its way is fenced too");
    assert_eq!(effects[3..], [Effect::Deliver { to: Y }]);
    assert!(!hosted.ack(X, 0) && hosted.holds(X, 1));
    // It takes the last one after all: that is nobody's news.
    hosted.taken(X, 1).unwrap();
    assert!(!hosted.holds(X, 3));
    assert_eq!(hosted.poll_timeout(), Some(900));
    hosted.handle_timeout(900);
    assert_eq!(attempts(&mut hosted), [(Y, 1, 1)]);
}

#[test]
fn del_6_no_more_is_out_than_may_be() {
    let mut hosted = channel(8, 2);
    hosted.demand(X, 5).unwrap();
    send(&mut hosted, A, 0..5);
    assert_eq!(attempts(&mut hosted).len(), 2);
    hosted.taken(X, 2).unwrap();
    assert_eq!(attempts(&mut hosted), []);
    assert_eq!(hosted.waiting_units_of(X), 3);
    assert!(hosted.ack(X, 0));
    assert_eq!(attempts(&mut hosted), [(X, 2, 0)]);
    assert!(hosted.nack(X, 1, Some(0)));
    assert_eq!(attempts(&mut hosted), [(X, 1, 1)], "its place is free, and this one is at the head");
    assert_eq!(hosted.cancel_demand(X, 9), 1);
}

#[test]
fn del_7_a_value_that_nobody_acknowledges_is_dead_and_never_gone() {
    let mut hosted = channel(2, 2);
    hosted.set_attempts_max(Some(2));
    hosted.demand(X, 9).unwrap();
    send(&mut hosted, A, 0..1);
    hosted.taken(X, 1).unwrap();
    assert!(hosted.nack(X, 0, None));
    assert_eq!(hosted.poll_timeout(), Some(50), "one that is refused rests");
    hosted.handle_timeout(50);
    hosted.taken(X, 1).unwrap();
    drain(&mut hosted);
    hosted.close();
    assert!(hosted.nack(X, 1, Some(10)));
    let [Effect::Dead { item }] = &drain(&mut hosted)[..] else { panic!("not dead") };
    assert_eq!((item.seq, item.attempts), (0, 2));
    // There is no room for it.
    hosted.revive(item.clone());
    hosted.handle_timeout(150);
    assert_eq!(attempts(&mut hosted), [(X, 0, 2)]);
    hosted.remove_receiver(X, Leave::LOST);
    let [Effect::Dead { .. }] = &drain(&mut hosted)[..] else { panic!("it was in flight, and is dead") };
    hosted.buried();
    assert_eq!(drain(&mut hosted), [Effect::Finished]);
}

#[test]
fn del_9_a_channel_is_not_finished_while_something_is_held() {
    let mut hosted = channel(2, 2);
    hosted.demand(X, 1).unwrap();
    send(&mut hosted, A, 0..1);
    hosted.taken(X, 1).unwrap();
    hosted.close();
    assert!(!drain(&mut hosted).contains(&Effect::Finished));
    assert!(hosted.nack(X, 0, Some(5)));
    assert_eq!(drain(&mut hosted), []);
    hosted.handle_timeout(5);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert!(hosted.ack(X, 1));
    assert!(drain(&mut hosted).contains(&Effect::Finished));
}

#[test]
fn del_3_a_rendezvous_that_has_happened_stays_so() {
    let mut hosted = channel(0, 2);
    hosted.demand(X, 1).unwrap();
    push(&mut hosted, A, 0..1);
    hosted.taken(X, 1).unwrap();
    push(&mut hosted, A, 1..2);
    drain(&mut hosted);
    assert!(hosted.nack(X, 0, Some(0)));
    hosted.close();
    assert_eq!(drain(&mut hosted), [Effect::Withdrawn { to: A, seq: 1, withdrawn: true }]);
    hosted.demand(X, 1).unwrap();
    assert_eq!(attempts(&mut hosted), [(X, 0, 1)]);
    hosted.taken(X, 1).unwrap();
    assert!(hosted.ack(X, 1));
    assert_eq!(drain(&mut hosted), [Effect::Finished]);
}

#[derive(Clone, Debug)]
enum Op {
    Send,
    Demand(bool),
    Take(bool, u64),
    Ack(bool, u64),
    Nack(bool, u64, Option<u64>),
    Extend(bool, u64),
    Away(bool),
    Back(bool),
    Time(u64),
    Leave(bool),
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let who = any::<bool>();
    prop_oneof![
        8 => Just(Op::Send),
        8 => who.prop_map(Op::Demand),
        8 => (who, 0..3_u64).prop_map(|(who, n)| Op::Take(who, n)),
        8 => (who, 0..12_u64).prop_map(|(who, n)| Op::Ack(who, n)),
        6 => (who, 0..12_u64, any::<bool>()).prop_map(|(who, n, later)| Op::Nack(who, n, later.then_some(20))),
        2 => (who, 0..12_u64).prop_map(|(who, n)| Op::Extend(who, n)),
        2 => who.prop_map(Op::Away),
        2 => who.prop_map(Op::Back),
        4 => (1..30_u64).prop_map(Op::Time),
        1 => who.prop_map(Op::Leave),
    ]
}

/// What two holders, seen from outside, have.
struct World {
    hosted: Hosted,
    now: u64,
    /// Values by holder and number, and whether they have been handed over.
    held: BTreeMap<(ReceiverKey, u64), (u64, bool)>,
    dispatched: BTreeMap<ReceiverKey, u64>,
    taken: BTreeMap<ReceiverKey, u64>,
    keys: [ReceiverKey; 2],
    sent: u64,
    acked: Vec<u64>,
    dead: Vec<u64>,
    finished: bool,
}

impl World {
    fn key(&self, who: bool) -> ReceiverKey {
        self.keys[usize::from(who)]
    }

    fn join(&mut self, who: bool, key: u64) {
        self.keys[usize::from(who)] = ReceiverKey(key);
        assert!(self.hosted.add_holder(ReceiverKey(key), HolderOptions::new(3)));
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Send if self.hosted.try_lease(A) => {
                self.hosted.push(A, self.sent, value(self.sent)).unwrap();
                self.sent += 1;
            }
            Op::Send => {}
            Op::Demand(who) => self.hosted.demand(self.key(who), 1).unwrap(),
            Op::Take(who, n) => {
                let key = self.key(who);
                let n = n.min(self.hosted.in_flight_of(key) as u64);
                let before = self.taken.entry(key).or_default();
                for number in *before..*before + n {
                    if let Some((_, handed)) = self.held.get_mut(&(key, number)) {
                        *handed = true;
                    }
                }
                *before += n;
                self.hosted.taken(key, n).unwrap();
            }
            Op::Ack(who, number) => {
                let key = self.key(who);
                let holds = self.held.get(&(key, number)).is_some_and(|(_, handed)| *handed);
                assert_eq!(self.hosted.ack(key, number), holds);
                if holds && let Some((value, _)) = self.held.remove(&(key, number)) {
                    self.acked.push(value);
                }
            }
            Op::Nack(who, number, later) => {
                let key = self.key(who);
                let holds = self.held.get(&(key, number)).is_some_and(|(_, handed)| *handed);
                if holds {
                    self.held.remove(&(key, number));
                }
                assert_eq!(self.hosted.nack(key, number, later.map(|later| self.now + later)), holds);
            }
            Op::Extend(who, number) => _ = self.hosted.extend(self.key(who), number, self.now + 40),
            Op::Away(who) => self.hosted.holder_away(self.key(who), self.now + 10),
            Op::Back(who) => self.hosted.holder_back(self.key(who)),
            Op::Time(passes) => {
                self.now += passes;
                self.hosted.handle_timeout(self.now);
                assert!(self.hosted.poll_timeout().is_none_or(|at| at > self.now));
            }
            Op::Leave(who) => {
                let key = self.key(who);
                self.held.retain(|(holder, _), _| *holder != key);
                self.hosted.remove_receiver(key, Leave::LOST);
                self.join(who, key.0 + 2);
            }
            Op::Close => self.hosted.close(),
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut buried = 0;
        while let Some(effect) = self.hosted.poll_effect() {
            match effect {
                Effect::Deliver { to } => {
                    for item in sent(&mut self.hosted, to) {
                        assert!(self.held.values().all(|(value, _)| *value != item.seq), "two holders");
                        let number = self.dispatched.entry(to).or_default();
                        self.held.insert((to, *number), (item.seq, false));
                        *number += 1;
                    }
                    let out = self.held.keys().filter(|(holder, _)| *holder == to).count();
                    assert!(out <= 3, "more than may be out");
                }
                Effect::Fenced { to, number } => assert!(self.held.remove(&(to, number)).is_some()),
                Effect::Dead { item } => {
                    self.dead.push(item.seq);
                    buried += 1;
                }
                Effect::Finished => self.finished = true,
                _ => {}
            }
        }
        if buried > 0 {
            (0..buried).for_each(|_| self.hosted.buried());
            self.settle();
        }
        let here = (self.hosted.len() + self.hosted.in_flight() + self.hosted.unacked()) as u64;
        assert_eq!(here + (self.acked.len() + self.dead.len()) as u64, self.sent, "a value is gone, or two");
        assert!(self.hosted.lent() <= self.hosted.capacity());
    }
}

proptest! {
    #[test]
    fn del_2_a_value_has_one_holder_and_is_acknowledged_once(
        ops in proptest::collection::vec(op(), 1..160),
        attempts_max in proptest::option::of(1..5_u32),
    ) {
        let mut world = World {
            hosted: Hosted::new(4),
            now: 0,
            held: BTreeMap::new(),
            dispatched: BTreeMap::new(),
            taken: BTreeMap::new(),
            keys: [X, Y],
            sent: 0,
            acked: Vec::new(),
            dead: Vec::new(),
            finished: false,
        };
        world.hosted.add_sender(A);
        world.hosted.set_attempts_max(attempts_max);
        world.join(false, 10);
        world.join(true, 11);
        ops.iter().for_each(|op| world.apply(op));
        // Whoever is left acknowledges everything, and the channel finishes.
        world.apply(&Op::Close);
        [false, true].into_iter().for_each(|who| world.apply(&Op::Back(who)));
        for _ in 0..4 * world.sent + 4 {
            world.apply(&Op::Time(50));
            for who in [false, true] {
                world.apply(&Op::Demand(who));
                world.apply(&Op::Take(who, 3));
            }
            for (key, number) in world.held.iter().filter(|(_, (_, handed))| *handed).map(|(at, _)| *at).collect::<Vec<_>>() {
                world.apply(&Op::Ack(key == world.key(true), number));
            }
        }
        assert!(world.finished);
        let mut all: Vec<_> = world.acked.iter().chain(&world.dead).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..world.sent).collect::<Vec<_>>());
    }
}
