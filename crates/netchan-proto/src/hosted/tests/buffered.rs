//! `HOST-6` to `HOST-13`: credit where C ≥ 1.

use super::*;
use crate::hosted::Violation;

/// A holds all of the channel's credit and has used `used` of it.
fn hoarded(capacity: u64, used: u64) -> Hosted {
    let mut hosted = channel(capacity);
    hosted.want(A, 1);
    assert_eq!(granted(&mut hosted), [(A, capacity)]);
    push(&mut hosted, A, 0..used);
    hosted
}

#[test]
fn host_6_credit_returns_only_when_a_value_is_taken() {
    let mut hosted = channel(2);
    send(&mut hosted, A, 0..1);
    send(&mut hosted, B, 0..1);
    assert!(!hosted.try_lease(A));
    hosted.demand(X, 2).unwrap();
    assert_eq!((hosted.free(), hosted.in_flight()), (0, 2), "dispatched is not taken");
    hosted.taken(X, 1).unwrap();
    assert_eq!(hosted.free(), 1);
    hosted.give_back(X, 0).unwrap();
    assert_eq!((hosted.free(), hosted.lent()), (1, 1));
}

#[test]
fn host_7_values_come_in_sequence_and_within_the_lease() {
    let mut hosted = channel(4);
    assert_eq!(hosted.push(A, 0, value(0)), Err(Violation::ExcessCredit));
    assert!(hosted.try_lease(A));
    assert_eq!(hosted.push(A, 1, value(1)), Err(Violation::OutOfSequence));
    assert_eq!(hosted.push(A, u64::MAX, value(1)), Err(Violation::OutOfSequence));
    push(&mut hosted, A, 0..1);
    assert_eq!(hosted.push(A, 0, value(0)), Err(Violation::OutOfSequence));
    assert_eq!(hosted.push(A, 1, value(1)), Err(Violation::ExcessCredit));
    assert_eq!(hosted.push(SenderKey(9), 0, value(0)), Err(Violation::UnknownSender));
    assert_eq!((hosted.len(), hosted.held_bytes()), (1, 8));
}

#[test]
fn host_8_a_turn_grants_the_fair_share() {
    let mut hosted = hoarded(8, 8);
    hosted.demand(X, 8).unwrap();
    for key in [B, D, A] {
        hosted.want(key, 100);
    }
    assert!(granted(&mut hosted).is_empty());
    hosted.taken(X, 7).unwrap();
    // 7 / 3, then 5 / 3, then 4 / 3: those granted still want more, so they count.
    assert_eq!(granted(&mut hosted), [(B, 2), (D, 1), (A, 9)]);
}

#[test]
fn host_8_a_lone_sender_gets_everything() {
    let mut hosted = channel(64);
    hosted.want(A, 1);
    assert_eq!(granted(&mut hosted), [(A, 64)]);
}

#[test]
fn host_8_turns_rotate_and_big_demand_does_not_starve() {
    let mut hosted = hoarded(1, 1);
    hosted.want(A, u64::MAX);
    hosted.want(B, 1);
    hosted.want(D, 2);
    let mut next = [1, 0, 0];
    let mut order = Vec::new();
    for _ in 0..6 {
        hosted.demand(X, 1).unwrap();
        hosted.taken(X, 1).unwrap();
        for (key, limit) in granted(&mut hosted) {
            order.push(key);
            let at = &mut next[key.0 as usize - 1];
            push(&mut hosted, key, *at..limit);
            *at = limit;
        }
    }
    assert_eq!(order, [A, B, D, A, D, A]);
}

#[test]
fn host_8_what_proved_too_much_is_not_granted_again() {
    let mut hosted = hoarded(8, 1);
    hosted.want(B, 1);
    assert_eq!(recalled(&mut hosted), [A]);
    hosted.yielded(A, 1).unwrap();
    assert_eq!(granted(&mut hosted), [(B, 7)]);
    push(&mut hosted, B, 0..1);
    hosted.want(A, 1);
    assert_eq!(recalled(&mut hosted), [B]);
    hosted.yielded(B, 1).unwrap();
    assert_eq!(granted(&mut hosted), [(A, 3)], "twice its last size, not all that is free");
    push(&mut hosted, A, 1..3);
    hosted.want(A, 1);
    assert_eq!(granted(&mut hosted), [(A, 7)], "a busy sender ramps up again");
}

#[test]
fn host_9_grants_come_in_batches_but_never_stall() {
    let mut hosted = channel(8);
    hosted.want(A, 100);
    assert_eq!(granted(&mut hosted), [(A, 8)]);
    hosted.demand(X, 100).unwrap();
    for seq in 0..3 {
        push(&mut hosted, A, seq..seq + 1);
        hosted.taken(X, 1).unwrap();
        assert!(granted(&mut hosted).is_empty(), "more than half is unused");
    }
    push(&mut hosted, A, 3..4);
    assert_eq!(granted(&mut hosted), [(A, 11)]);

    let mut hosted = hoarded(2, 2);
    hosted.want(A, 1);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert_eq!(granted(&mut hosted), [(A, 3)], "who has nothing gets the first unit");
}

#[test]
fn host_9_nobody_overtakes_who_waits() {
    let mut hosted = hoarded(2, 2);
    hosted.want(B, 1);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert_eq!(granted(&mut hosted), [(B, 1)]);
    hosted.want(B, 1);
    assert!(!hosted.try_lease(D));
    hosted.want(B, 0);
    assert_eq!(hosted.waiting_senders(), 0);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert!(hosted.try_lease(D));

    let mut hosted = channel(4);
    hosted.want(A, 100);
    push(&mut hosted, A, 0..1);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert_eq!(hosted.free(), 1, "A has enough for now");
    assert!(!hosted.try_lease(B));
}

#[test]
fn host_9_a_wish_that_crossed_a_grant_asks_for_the_rest_only() {
    let mut hosted = channel(4);
    hosted.want_up_to(A, 2);
    assert_eq!(granted(&mut hosted), [(A, 4)]);
    hosted.want_up_to(A, 3);
    assert_eq!(hosted.waiting_senders(), 0);
    hosted.want_up_to(A, 6);
    assert_eq!(hosted.waiting_senders(), 1);
    hosted.want_up_to(SenderKey(9), 6);
}

#[test]
fn host_10_an_idle_hoarder_is_recalled() {
    let mut hosted = hoarded(8, 2);
    hosted.want(B, 1);
    assert_eq!(drain(&mut hosted), [Effect::Recall { from: A }]);
    hosted.yielded(A, 3).unwrap();
    assert_eq!(drain(&mut hosted), [Effect::Grant { to: B, limit: 5 }]);
    push(&mut hosted, A, 2..3);
    assert_eq!(hosted.push(A, 3, value(3)), Err(Violation::ExcessCredit));
}

#[test]
fn host_10_who_waits_too_is_not_recalled() {
    let mut hosted = channel(8);
    hosted.want(A, 100);
    assert_eq!(granted(&mut hosted), [(A, 8)]);
    hosted.want(B, 1);
    assert!(drain(&mut hosted).is_empty());
    hosted.want(A, 0);
    assert_eq!(recalled(&mut hosted), [A], "its sends were dropped");
}

#[test]
fn host_10_only_as_many_are_recalled_as_it_takes() {
    let mut hosted = channel(3);
    assert!(hosted.try_lease(A) && hosted.try_lease(B) && hosted.try_lease(A));
    hosted.want(D, 2);
    assert_eq!(recalled(&mut hosted), [A], "idle longest, and has two");
    hosted.yielded(A, 1).unwrap();
    assert_eq!(granted(&mut hosted), [(D, 1)]);
    push(&mut hosted, D, 0..1);
    assert_eq!(recalled(&mut hosted), [B], "what A kept is committed");
}

#[test]
fn host_11_one_recall_at_a_time_and_no_grant_before_the_answer() {
    let mut hosted = hoarded(2, 0);
    hosted.want(B, 1);
    assert_eq!(recalled(&mut hosted), [A]);
    hosted.want(D, 1);
    assert!(drain(&mut hosted).is_empty(), "no second recall");
    push(&mut hosted, A, 0..2);
    hosted.want(A, 1);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert_eq!(granted(&mut hosted), [(B, 1)]);
    push(&mut hosted, B, 0..1);
    hosted.want(D, 0);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert!(granted(&mut hosted).is_empty(), "A has not answered");
    hosted.yielded(A, 2).unwrap();
    assert_eq!(granted(&mut hosted), [(A, 3)]);
}

#[test]
fn host_12_a_yield_answers_a_recall_and_stays_within_the_lease() {
    let mut hosted = hoarded(4, 2);
    assert_eq!(hosted.yielded(A, 2), Err(Violation::UnaskedYield));
    hosted.want(B, 1);
    assert_eq!(hosted.yielded(A, 1), Err(Violation::FalseYield));
    assert_eq!(hosted.yielded(A, 5), Err(Violation::FalseYield));
    hosted.yielded(A, 4).unwrap();
    assert_eq!(hosted.yielded(A, 4), Err(Violation::UnaskedYield));
    drain(&mut hosted);
    push(&mut hosted, A, 2..4);
    assert!(drain(&mut hosted).is_empty(), "what was kept is committed: not recalled again");
}

#[test]
fn host_13_settlement_reports_the_prefix_and_the_count() {
    let mut hosted = channel(8);
    hosted.demand(X, 1).unwrap();
    hosted.demand(Y, 3).unwrap();
    send(&mut hosted, A, 0..3);
    send(&mut hosted, B, 0..1);
    drain(&mut hosted);
    hosted.taken(Y, 3).unwrap();
    let settled = |sender, prefix, count| Effect::Settled { sender, prefix, count };
    assert_eq!(drain(&mut hosted), [settled(A, 0, 2), settled(B, 1, 1)]);
    hosted.taken(X, 1).unwrap();
    assert_eq!(drain(&mut hosted), [settled(A, 3, 3)]);
}
