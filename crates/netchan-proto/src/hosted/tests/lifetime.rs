//! `HOST-14`, `HOST-15`, `HOST-18` and `HOST-20`: senders that leave or are away, and the end.

use super::*;
use crate::hosted::Violation;

#[test]
fn host_14_a_removed_sender_leaves_its_values_and_frees_the_rest() {
    let mut hosted = channel(4);
    hosted.want(A, 1);
    push(&mut hosted, A, 0..2);
    hosted.want(B, 9);
    drain(&mut hosted);
    hosted.remove_sender(A);
    assert_eq!(granted(&mut hosted), [(B, 2)]);
    assert_eq!((hosted.limit(A), hosted.push(A, 2, value(2))), (None, Err(Violation::UnknownSender)));
    assert!(!hosted.add_sender(A), "its values are still here");
    hosted.demand(X, 2).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, A, 0, false), (X, A, 1, false)]);
    hosted.taken(X, 2).unwrap();
    assert!(!drain(&mut hosted).iter().any(|effect| matches!(effect, Effect::Settled { sender: A, .. })));
    assert!(hosted.add_sender(A));
}

#[test]
fn host_14_the_offer_of_a_removed_sender_is_withdrawn() {
    let mut hosted = channel(0);
    hosted.demand(X, 1).unwrap();
    push(&mut hosted, A, 0..1);
    push(&mut hosted, B, 0..1);
    drain(&mut hosted);
    hosted.remove_sender(A);
    hosted.remove_sender(B);
    assert_eq!((hosted.len(), hosted.in_flight()), (0, 1));
    assert!(hosted.add_sender(B) && !hosted.add_sender(A));
    hosted.demand(Y, 1).unwrap();
    hosted.remove_receiver(X, Leave::LOST);
    assert_eq!(drain(&mut hosted), [], "given back, it is gone");
    assert!(hosted.add_sender(A));
    assert_eq!((hosted.lent(), hosted.held_bytes()), (0, 0));
}

#[test]
fn host_15_a_suspended_lease_is_lent_again() {
    let mut hosted = channel(4);
    hosted.want(A, 1);
    push(&mut hosted, A, 0..1);
    drain(&mut hosted);
    hosted.suspend(A);
    assert_eq!(hosted.free(), 3);
    assert_eq!(hosted.push(A, 1, value(1)), Err(Violation::ExcessCredit));
    hosted.want(A, 1);
    assert!(!hosted.try_lease(A));
    hosted.want(B, 9);
    assert_eq!(granted(&mut hosted), [(B, 3)]);

    assert_eq!(hosted.resume(A, 5), Err(Violation::FalseResume));
    assert_eq!(hosted.resume(A, 0), Err(Violation::FalseResume));
    assert_eq!(hosted.resume(A, 3), Ok(3));
    assert_eq!(
        (hosted.lent(), hosted.overdraft(), hosted.free()),
        (6, 2, 0),
        "by exactly what it had committed"
    );
    push(&mut hosted, A, 1..3);
    hosted.demand(X, 3).unwrap();
    hosted.taken(X, 1).unwrap();
    assert_eq!(hosted.overdraft(), 1);
    hosted.taken(X, 2).unwrap();
    assert_eq!((hosted.overdraft(), hosted.free()), (0, 1));
}

#[test]
fn host_15_a_short_absence_changes_nothing() {
    let mut hosted = channel(4);
    hosted.want(A, 1);
    push(&mut hosted, A, 0..1);
    assert_eq!(hosted.resume(A, 3), Ok(4));
    assert_eq!(hosted.resume(A, 5), Err(Violation::FalseResume));
    assert_eq!(hosted.resume(SenderKey(9), 0), Err(Violation::UnknownSender));
    assert_eq!((hosted.lent(), hosted.overdraft()), (4, 0));
}

#[test]
fn host_15_a_suspended_sender_does_not_hold_up_a_recall() {
    let mut hosted = channel(2);
    hosted.want(A, 1);
    hosted.want(B, 1);
    assert_eq!(recalled(&mut hosted), [A]);
    hosted.suspend(A);
    assert_eq!(granted(&mut hosted), [(B, 2)]);
    assert_eq!(hosted.yielded(A, 0), Err(Violation::UnaskedYield));
}

#[test]
fn host_18_what_was_committed_before_the_close_still_arrives() {
    let mut hosted = channel(4);
    hosted.want(A, 1);
    push(&mut hosted, A, 0..1);
    hosted.want(B, 1);
    hosted.want(D, 1);
    assert_eq!(recalled(&mut hosted), [A]);
    hosted.close();
    hosted.close();
    assert_eq!(hosted.waiting_senders(), 0);
    hosted.want(B, 1);
    assert!(drain(&mut hosted).is_empty(), "A is being recalled already, and nothing is granted any more");
    assert!(!hosted.try_lease(D));
    hosted.yielded(A, 2).unwrap();
    push(&mut hosted, A, 1..2);
    assert_eq!(hosted.push(A, 2, value(2)), Err(Violation::ExcessCredit));
    hosted.demand(X, 2).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, A, 0, false), (X, A, 1, false)]);
    hosted.taken(X, 2).unwrap();
    assert_eq!(drain(&mut hosted).last(), Some(&Effect::Finished));
}

#[test]
fn host_18_closing_recalls_every_unused_lease() {
    let mut hosted = channel(4);
    assert!(hosted.try_lease(A) && hosted.try_lease(B) && hosted.try_lease(D));
    push(&mut hosted, B, 0..1);
    hosted.close();
    assert_eq!(recalled(&mut hosted), [A, D]);
    hosted.yielded(A, 0).unwrap();
    hosted.remove_sender(D);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert!(drain(&mut hosted).contains(&Effect::Finished), "an absent sender can be removed");
}

#[test]
fn host_20_the_end_comes_once() {
    let mut hosted = channel(2);
    assert!(!hosted.is_drained());
    hosted.close();
    assert_eq!(drain(&mut hosted), [Effect::Finished]);
    assert!(hosted.is_drained());
    hosted.close();
    hosted.demand(X, 1).unwrap();
    hosted.remove_receiver(X, Leave::LOST);
    hosted.remove_sender(A);
    assert!(drain(&mut hosted).is_empty());
}

#[test]
fn host_20_a_late_sender_does_not_reopen_the_end() {
    let mut hosted = channel(2);
    hosted.want(A, 1);
    hosted.suspend(A);
    hosted.close();
    assert_eq!(drain(&mut hosted).last(), Some(&Effect::Finished));
    assert_eq!(hosted.resume(A, 2), Ok(0), "nothing of it is admitted: the session reports it undelivered");
    assert!(hosted.is_drained());
}
