//! `HOST-16`, `HOST-17` and `HOST-19`: C = 0.

use super::*;
use crate::hosted::{Violation, Withdraw};

#[test]
fn host_16_each_sender_has_one_offer() {
    let mut hosted = channel(0);
    hosted.want(A, 5);
    assert!(!hosted.try_lease(A));
    push(&mut hosted, A, 0..1);
    push(&mut hosted, B, 0..1);
    assert!(drain(&mut hosted).is_empty(), "no credit, no recall");
    assert_eq!(hosted.push(A, 1, value(1)), Err(Violation::ExcessCredit));
    hosted.demand(X, 1).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, A, 0, false)]);
    assert_eq!(hosted.push(A, 1, value(1)), Err(Violation::ExcessCredit), "dispatched is not taken");
    hosted.taken(X, 1).unwrap();
    push(&mut hosted, A, 1..2);
    hosted.demand(X, 2).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, B, 0, false), (X, A, 1, false)]);
}

#[test]
fn host_17_an_offer_that_nobody_holds_is_withdrawn() {
    let mut hosted = channel(0);
    push(&mut hosted, A, 0..1);
    push(&mut hosted, B, 0..1);
    assert_eq!(hosted.withdraw(A, 0), Ok(Withdraw::Withdrawn));
    assert_eq!(hosted.withdraw(A, 0), Ok(Withdraw::Withdrawn), "may be repeated");
    hosted.demand(X, 2).unwrap();
    push(&mut hosted, A, 1..2);
    assert_eq!(delivered(&mut hosted), [(X, B, 0, false), (X, A, 1, false)]);
    assert_eq!(hosted.held_bytes(), 16);
}

#[test]
fn host_17_a_dispatched_offer_is_settled_by_its_holder() {
    let mut hosted = channel(0);
    hosted.demand(X, 2).unwrap();
    push(&mut hosted, A, 0..1);
    push(&mut hosted, B, 0..1);
    drain(&mut hosted);
    assert_eq!(hosted.withdraw(A, 0), Ok(Withdraw::Dispatched));
    assert_eq!(hosted.withdraw(B, 0), Ok(Withdraw::Dispatched));
    assert!(drain(&mut hosted).is_empty());
    hosted.taken(X, 1).unwrap();
    let withdrawn = |to, withdrawn| Effect::Withdrawn { to, seq: 0, withdrawn };
    assert_eq!(drain(&mut hosted), [withdrawn(A, false), Effect::Settled { sender: A, prefix: 1, count: 1 }]);
    assert_eq!(hosted.withdraw(A, 0), Ok(Withdraw::Taken));
    hosted.demand(Y, 1).unwrap();
    hosted.give_back(X, 0).unwrap();
    assert_eq!(drain(&mut hosted), [withdrawn(B, true)], "it does not go to Y");
    assert_eq!(hosted.withdraw(B, 0), Ok(Withdraw::Withdrawn));
    push(&mut hosted, B, 1..2);
}

#[test]
fn host_17_an_offer_nobody_withdrew_goes_to_the_next() {
    let mut hosted = channel(0);
    hosted.demand(X, 1).unwrap();
    hosted.demand(Y, 1).unwrap();
    push(&mut hosted, A, 0..1);
    drain(&mut hosted);
    hosted.remove_receiver(X, Leave::LOST);
    assert_eq!(delivered(&mut hosted), [(Y, A, 0, true)]);
    hosted.give_back(Y, 0).unwrap();
    assert_eq!(hosted.withdraw(A, 0), Ok(Withdraw::Withdrawn));
    assert_eq!((hosted.len(), hosted.lent()), (0, 0));
}

#[test]
fn host_17_only_the_newest_offer_can_be_withdrawn() {
    let mut hosted = channel(0);
    assert_eq!(hosted.withdraw(A, 0), Err(Violation::NotOffered));
    push(&mut hosted, A, 0..1);
    assert_eq!(hosted.withdraw(A, 1), Err(Violation::NotOffered));
    assert_eq!(hosted.withdraw(A, u64::MAX), Err(Violation::NotOffered));
    assert_eq!(hosted.withdraw(SenderKey(9), 0), Err(Violation::UnknownSender));
    let mut buffered = channel(1);
    send(&mut buffered, A, 0..1);
    assert_eq!(buffered.withdraw(A, 0), Err(Violation::NotOffered));
}

#[test]
fn host_19_closing_returns_the_offers() {
    let mut hosted = channel(0);
    hosted.demand(X, 2).unwrap();
    for key in [A, B, D] {
        push(&mut hosted, key, 0..1);
    }
    drain(&mut hosted);
    hosted.close();
    let withdrawn = |to| Effect::Withdrawn { to, seq: 0, withdrawn: true };
    assert_eq!(drain(&mut hosted), [withdrawn(D)]);
    push(&mut hosted, D, 1..2);
    assert_eq!(
        drain(&mut hosted),
        [Effect::Withdrawn { to: D, seq: 1, withdrawn: true }],
        "it crossed the close"
    );
    hosted.taken(X, 1).unwrap();
    hosted.give_back(X, 0).unwrap();
    let settled = Effect::Settled { sender: A, prefix: 1, count: 1 };
    assert_eq!(drain(&mut hosted), [settled, withdrawn(B), Effect::Finished]);
    push(&mut hosted, B, 1..2);
    assert_eq!(drain(&mut hosted), [Effect::Withdrawn { to: B, seq: 1, withdrawn: true }]);
    assert_eq!(hosted.held_bytes(), 0);
}
