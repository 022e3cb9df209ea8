//! What one client may have of what all share, while others are there.

use super::*;
use crate::limits::{
    CALL_BACK_AFTER_MILLIS, STALLED_AFTER_MILLIS, TRANSFER_BYTES_PER_MILLI_MIN, UNUSED_AFTER_MILLIS,
};

const ONE: Option<u128> = Some(1);
const OTHER: Option<u128> = Some(2);

fn with_two_clients(capacity: u64) -> Hosted {
    let mut hosted = Hosted::new(capacity);
    hosted.add_sender_of(ONE, A);
    hosted.add_sender_of(OTHER, B);
    hosted.add_sender(D);
    hosted.add_receiver_of(ONE, X, None);
    hosted.add_receiver_of(OTHER, Y, None);
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
    hosted.add_receiver_of(ONE, X, Some(HolderOptions::new(50)));
    hosted.add_receiver_of(OTHER, Y, None);
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

/// What one member of a client does not use, another of the same client gets, though others have what is free to themselves.
#[test]
fn host_28_members_of_a_client_do_not_keep_its_part_from_each_other() {
    let mut hosted = Hosted::<()>::new(8);
    hosted.add_sender_of(ONE, A);
    hosted.add_sender_of(ONE, D);
    hosted.add_sender_of(OTHER, B);
    hosted.want(A, 4);
    hosted.want(A, 0);
    assert_eq!((hosted.limit(A), hosted.free()), (Some(4), 4));
    drain(&mut hosted);
    hosted.want(D, 1);
    assert_eq!(drain(&mut hosted), [Effect::Recall { from: A }], "though four are free");
    assert!(hosted.waiting_senders() == 0 && hosted.try_lease(B), "and nobody else waits for that");
    hosted.yielded(A, 0).unwrap();
    assert!(hosted.limit(D) >= Some(1));
    // One that does not answer loses it.
    hosted.want(D, 0);
    drain(&mut hosted);
    hosted.want(A, 9);
    assert_eq!(drain(&mut hosted), [Effect::Recall { from: D }]);
    assert_eq!(next_in_time(&mut hosted).1, [Effect::StalledSender { key: D }]);
}

#[test]
fn host_28_a_receiver_that_takes_nothing_is_called_back_for_others_of_its_client() {
    let mut hosted = with_two_clients(8);
    let sibling = ReceiverKey(7);
    hosted.add_receiver_of(ONE, sibling, None);
    hosted.want(D, 100);
    hosted.demand(X, 8).unwrap();
    (0..8).for_each(|seq| hosted.push(D, seq, "d".into()).unwrap());
    assert_eq!((hosted.in_flight_of(X), hosted.len()), (4, 4));
    drain(&mut hosted);
    hosted.demand(sibling, 1).unwrap();
    assert_eq!(next_in_time(&mut hosted), (CALL_BACK_AFTER_MILLIS, vec![Effect::CallBack { from: X }]));
    hosted.cancel_demand(X, u64::MAX);
    hosted.give_back(X, 0).unwrap();
    assert_eq!(hosted.in_flight_of(sibling), 1);
}

/// Long values take their time on the way, and what nobody else waits for may stay where it is.
#[test]
fn host_24_a_value_has_time_to_arrive() {
    let long = 10_000 * TRANSFER_BYTES_PER_MILLI_MIN as usize;
    let mut hosted = channel(4);
    hosted.want(A, 4);
    hosted.demand(X, 2).unwrap();
    hosted.push(A, 0, vec![0; long].into()).unwrap();
    drain(&mut hosted);
    hosted.handle_timeout(60_000);
    assert_eq!(drain(&mut hosted), [], "it waits for another itself, and nobody else does");
    hosted.demand(X, 1).unwrap();
    hosted.push(A, 1, vec![0; long].into()).unwrap();
    hosted.taken(X, 1).unwrap();
    hosted.demand(Y, 1).unwrap();
    drain(&mut hosted);
    let at = 60_000 + CALL_BACK_AFTER_MILLIS + 10_000;
    assert_eq!(next_in_time(&mut hosted), (at, vec![Effect::CallBack { from: X }]));
}

/// Being asked again and again buys no time.
#[test]
fn host_10_who_keeps_all_and_lets_go_of_it_in_turns_is_named_all_the_same() {
    let mut hosted = channel(2);
    hosted.want(A, 2);
    hosted.want(A, 0);
    hosted.want(B, 1);
    assert_eq!(drain(&mut hosted).last(), Some(&Effect::Recall { from: A }));
    for now in (100..).step_by(100) {
        hosted.yielded(A, 2).unwrap_or_default();
        hosted.want_up_to(A, 0);
        hosted.handle_timeout(now);
        if drain(&mut hosted).contains(&Effect::StalledSender { key: A }) {
            return;
        }
        assert!(now < 2 * UNUSED_AFTER_MILLIS, "it goes on for ever");
    }
}

/// It has its part, wants more and uses none, while another sends all the time and is never quite without credit.
#[test]
fn host_10_who_wants_more_and_uses_nothing_is_found_out_though_others_go_on() {
    let mut hosted = Hosted::<()>::new(64);
    hosted.add_sender_of(ONE, A);
    hosted.add_sender_of(OTHER, B);
    hosted.add_receiver_of(OTHER, Y, None);
    hosted.demand(Y, 60_000).unwrap();
    hosted.want(B, 1);
    hosted.want(A, 1 << 40);
    let (mut seq, mut taken) = (0, 0);
    for now in (0..6_000).step_by(10) {
        hosted.advance(now);
        while hosted.poll_timeout().is_some_and(|at| at <= now) {
            hosted.handle_timeout(now);
        }
        while seq < hosted.limit(B).unwrap() {
            hosted.push(B, seq, "b".into()).unwrap();
            seq += 1;
        }
        hosted.want(B, 1);
        hosted.taken(Y, seq - taken).unwrap();
        taken = seq;
        if drain(&mut hosted).contains(&Effect::StalledSender { key: A }) {
            return;
        }
    }
    panic!("it keeps its part for ever: {:?}", hosted.limit(A));
}
