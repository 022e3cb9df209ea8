//! What one client may have of what all share, while others are there.

use super::*;
use crate::limits::{STALLED_AFTER_MILLIS, UNUSED_AFTER_MILLIS};

const ONE: u128 = 1;
const OTHER: u128 = 2;

fn with_two_clients(capacity: u64) -> Hosted {
    let mut hosted = Hosted::new(capacity);
    hosted.add_sender_of(ONE, A);
    hosted.add_sender_of(OTHER, B);
    hosted.add_sender(D);
    hosted.add_receiver_of(ONE, X);
    hosted.add_receiver_of(OTHER, Y);
    hosted
}

#[test]
fn host_28_a_client_holds_half_of_the_credit_at_most_while_others_are_there() {
    let mut hosted = with_two_clients(8);
    hosted.want(A, 1 << 40);
    assert_eq!((hosted.limit(A), hosted.free()), (Some(4), 4));
    hosted.want(B, 1);
    assert!(hosted.limit(B) >= Some(1), "the other has its part");
    // What it has used is not unused: it gets more.
    (0..4).for_each(|seq| hosted.push(A, seq, "a".into()).unwrap());
    assert!(hosted.limit(A) > Some(4));
}

#[test]
fn host_28_who_is_alone_has_all() {
    let mut hosted = Hosted::<()>::new(8);
    hosted.add_sender_of(ONE, A);
    hosted.add_sender_of(ONE, B);
    hosted.want(A, 100);
    assert_eq!(hosted.limit(A), Some(8));
}

/// What happens next, and when.
fn next_in_time(hosted: &mut Hosted) -> (u64, Vec<Effect>) {
    loop {
        let at = hosted.poll_timeout().expect("it is watched");
        hosted.handle_timeout(at);
        let effects = drain(hosted);
        if !effects.is_empty() {
            return (at, effects);
        }
    }
}

/// It wants more than it has, has used none of it, and goes on like that: then it is asked for it, as one that wants none is.
#[test]
fn host_10_who_waits_for_more_and_uses_nothing_is_asked_for_what_it_has() {
    let mut hosted = channel(8);
    hosted.want(A, 100);
    assert_eq!(hosted.limit(A), Some(8));
    hosted.want(B, 1);
    drain(&mut hosted);
    assert_eq!(next_in_time(&mut hosted), (UNUSED_AFTER_MILLIS, vec![Effect::Recall { from: A }]));
    let stalled = UNUSED_AFTER_MILLIS + STALLED_AFTER_MILLIS;
    assert_eq!(next_in_time(&mut hosted), (stalled, vec![Effect::StalledSender { key: A }]));
    hosted.remove_sender(A);
    assert!(hosted.limit(B) >= Some(1));
}

#[test]
fn host_28_who_was_alone_is_asked_for_what_is_more_than_its_part_as_soon_as_another_wants_some() {
    let mut hosted = Hosted::<()>::new(8);
    hosted.add_sender_of(ONE, A);
    hosted.want(A, 100);
    assert_eq!(hosted.limit(A), Some(8), "alone");
    hosted.add_sender_of(OTHER, B);
    drain(&mut hosted);
    hosted.want(B, 1);
    assert_eq!(drain(&mut hosted), [Effect::Recall { from: A }]);
    hosted.yielded(A, 1).unwrap();
    assert!(hosted.limit(B) >= Some(1));
    assert!(hosted.limit(A) <= Some(4));
}

#[test]
fn host_28_a_client_has_half_of_what_is_in_flight_while_others_are_there() {
    let mut hosted = with_two_clients(8);
    hosted.want(D, 100);
    assert_eq!(hosted.limit(D), Some(8));
    hosted.demand(X, 1_000).unwrap();
    hosted.demand(Y, 1).unwrap();
    (0..8).for_each(|seq| hosted.push(D, seq, "d".into()).unwrap());
    assert_eq!((hosted.in_flight_of(X), hosted.in_flight_of(Y), hosted.len()), (4, 1, 3));
    // The other gets what is left.
    hosted.demand(Y, 2).unwrap();
    assert_eq!((hosted.in_flight_of(Y), hosted.len()), (3, 1));
    // It takes one, and has the next.
    hosted.taken(X, 1).unwrap();
    assert_eq!((hosted.in_flight_of(X), hosted.len()), (4, 0));
}

#[test]
fn host_28_who_is_left_alone_has_what_it_waited_for() {
    let mut hosted = with_two_clients(8);
    hosted.want(D, 100);
    hosted.demand(X, 1_000).unwrap();
    hosted.demand(Y, 1).unwrap();
    (0..8).for_each(|seq| hosted.push(D, seq, "d".into()).unwrap());
    hosted.remove_receiver(Y, Leave::LOST);
    assert_eq!((hosted.in_flight_of(X), hosted.len()), (8, 0));
}

#[test]
fn host_28_bytes_that_a_client_holds_are_a_part_too() {
    let mut hosted = Hosted::new(100);
    hosted.set_bytes_max(1_000);
    hosted.add_sender(D);
    hosted.add_holder_of(ONE, X, HolderOptions::new(50));
    hosted.add_receiver_of(OTHER, Y);
    hosted.want(D, 100);
    hosted.demand(X, 50).unwrap();
    (0..9).for_each(|seq| hosted.push(D, seq, vec![0; 100].into()).unwrap());
    assert_eq!((hosted.in_flight_of(X), hosted.len()), (5, 4), "the fifth began below half");
    hosted.taken(X, 5).unwrap();
    assert_eq!(hosted.in_flight_of(X), 0, "it holds them");
    hosted.demand(Y, 1).unwrap();
    assert_eq!(hosted.in_flight_of(Y), 1);
    assert!(hosted.ack(X, 0));
    assert_eq!((hosted.in_flight_of(X), hosted.len()), (1, 2));
}

/// What it was lent when it came, or says that it had committed before it was away, is to be used too.
#[test]
fn host_10_no_credit_is_anybodys_for_good() {
    let came = |hosted: &mut Hosted| {
        assert_eq!(hosted.welcome(A, 1), 1);
        hosted.want(A, 60);
    };
    let is_back = |hosted: &mut Hosted| {
        hosted.want(A, 1);
        hosted.suspend(A);
        assert_eq!(hosted.resume(A, 1), Ok(1));
    };
    for holds in [&came as &dyn Fn(&mut Hosted), &is_back] {
        let mut hosted = channel(1);
        holds(&mut hosted);
        hosted.want(B, 1);
        drain(&mut hosted);
        let mut named = Vec::new();
        while !named.contains(&Effect::StalledSender { key: A }) {
            named = next_in_time(&mut hosted).1;
        }
        hosted.remove_sender(A);
        assert_eq!(hosted.limit(B), Some(1));
    }
}
