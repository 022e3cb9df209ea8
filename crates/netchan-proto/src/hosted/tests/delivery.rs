//! `HOST-1` to `HOST-5` and `HOST-21`: who gets which value.

use super::*;
use crate::hosted::{DEMAND_UNITS_MAX, Violation};

#[test]
fn host_1_a_value_has_one_holder() {
    let mut hosted = channel(8);
    hosted.demand(X, 3).unwrap();
    hosted.demand(Y, 3).unwrap();
    send(&mut hosted, A, 0..1);
    assert_eq!(delivered(&mut hosted), [(X, A, 0, false)]);
    hosted.give_back(X, 0).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, A, 0, false)], "it was certainly not taken");
    hosted.taken(X, 1).unwrap();
    assert!(delivered(&mut hosted).is_empty());
    assert_eq!((hosted.len(), hosted.in_flight(), hosted.held_bytes()), (0, 0, 0));
}

#[test]
fn host_2_the_longest_waiting_unit_is_served_first() {
    let mut hosted = channel(8);
    for (key, units) in [(X, 1), (Y, 2), (X, 2)] {
        hosted.demand(key, units).unwrap();
    }
    send(&mut hosted, A, 0..5);
    let got: Vec<_> = delivered(&mut hosted).into_iter().map(|(to, _, seq, _)| (to, seq)).collect();
    assert_eq!(got, [(X, 0), (X, 3), (X, 4), (Y, 1), (Y, 2)], "a run for each");
}

#[test]
fn host_2_nothing_leaves_without_demand() {
    let mut hosted = channel(8);
    send(&mut hosted, A, 0..3);
    assert!(delivered(&mut hosted).is_empty());
    hosted.demand(Y, 2).unwrap();
    assert_eq!(delivered(&mut hosted).len(), 2);
    assert_eq!((hosted.len(), hosted.in_flight_of(Y), hosted.waiting_units()), (1, 2, 0));
}

#[test]
fn host_2_cancelling_removes_the_newest_units_that_still_wait() {
    let mut hosted = channel(8);
    for (key, units) in [(X, 2), (Y, 1), (X, 2)] {
        hosted.demand(key, units).unwrap();
    }
    send(&mut hosted, A, 0..1);
    assert_eq!(hosted.cancel_demand(X, 2), 2);
    assert_eq!((hosted.waiting_units_of(X), hosted.waiting_units_of(Y)), (1, 1));
    send(&mut hosted, A, 1..4);
    let to: Vec<_> = delivered(&mut hosted).into_iter().map(|(to, ..)| to).collect();
    assert_eq!(to, [X, X, Y]);
    assert_eq!(hosted.cancel_demand(X, 5), 0, "what was served cannot be cancelled");
    hosted.demand(X, 1).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, A, 3, false)]);
}

#[test]
fn host_3_values_leave_in_the_order_of_arrival() {
    let mut hosted = channel(8);
    send(&mut hosted, A, 0..1);
    send(&mut hosted, B, 0..2);
    send(&mut hosted, A, 1..2);
    hosted.demand(X, 4).unwrap();
    let order: Vec<_> = delivered(&mut hosted).into_iter().map(|(_, origin, seq, _)| (origin, seq)).collect();
    assert_eq!(order, [(A, 0), (B, 0), (B, 1), (A, 1)]);
}

#[test]
fn host_4_returned_values_go_to_the_head_in_order() {
    let mut hosted = channel(8);
    hosted.demand(X, 1).unwrap();
    hosted.demand(Y, 1).unwrap();
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..6);
    drain(&mut hosted);
    hosted.remove_receiver(X, Leave::LOST);
    assert_eq!(hosted.give_back(Y, 0), Ok(1));
    hosted.demand(Y, 6).unwrap();
    // What Y gave back it had certainly not taken; X may have taken what it had.
    let expected = [0, 1, 2, 3, 4, 5].map(|seq| (Y, A, seq, seq < 4 && seq != 1));
    assert_eq!(delivered(&mut hosted), expected);
}

#[test]
fn host_4_a_receiver_that_leaves_takes_its_demand_along() {
    let mut hosted = channel(8);
    hosted.demand(X, 5).unwrap();
    hosted.demand(Y, 1).unwrap();
    hosted.remove_receiver(X, Leave::LOST);
    send(&mut hosted, A, 0..2);
    assert_eq!(delivered(&mut hosted), [(Y, A, 0, false)]);
    assert_eq!(hosted.demand(X, 1), Err(Violation::UnknownReceiver));
    assert_eq!(hosted.taken(X, 1), Err(Violation::UnknownReceiver));
}

#[test]
fn host_4_giving_back_keeps_the_oldest() {
    let mut hosted = channel(8);
    hosted.demand(X, 3).unwrap();
    send(&mut hosted, A, 0..3);
    drain(&mut hosted);
    assert_eq!(hosted.give_back(X, 4), Err(Violation::NotInFlight));
    assert_eq!(hosted.give_back(X, 1), Ok(2));
    hosted.taken(X, 1).unwrap();
    assert_eq!(drain(&mut hosted), [Effect::Settled { sender: A, prefix: 1, count: 1 }]);
    assert_eq!((hosted.len(), hosted.in_flight()), (2, 0));
}

#[test]
fn host_5_only_what_is_in_flight_can_be_taken() {
    let mut hosted = channel(8);
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..3);
    assert_eq!(hosted.taken(X, 3), Err(Violation::NotInFlight));
    assert_eq!(hosted.taken(X, u64::MAX), Err(Violation::NotInFlight));
    assert_eq!(hosted.in_flight(), 2, "a violation changes nothing");
    hosted.taken(X, 2).unwrap();
    assert_eq!(hosted.in_flight(), 0);
}

#[test]
fn host_21_demand_is_bounded() {
    let mut hosted = channel(8);
    hosted.demand(X, DEMAND_UNITS_MAX).unwrap();
    assert_eq!(hosted.demand(X, 1), Err(Violation::ExcessDemand));
    assert_eq!(hosted.demand(X, u64::MAX), Err(Violation::ExcessDemand));
    hosted.demand(Y, 1).unwrap();
    assert_eq!(hosted.cancel_demand(X, u64::MAX), DEMAND_UNITS_MAX);
    hosted.demand(X, 1).unwrap();
}
