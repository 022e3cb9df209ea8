//! `HOST-23` to `HOST-27` and `DEL-13` to `DEL-15`: sending ahead, calling back, and what is taken back in time.

use super::*;
use crate::limits::{ALONE_AFTER_MILLIS, CALL_BACK_AFTER_MILLIS, STALLED_AFTER_MILLIS, UNUSED_AFTER_MILLIS};

fn seqs(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.seq).collect()
}

#[test]
fn host_23_values_go_ahead_only_while_nobody_waits() {
    let mut hosted = channel(16);
    hosted.send_ahead(X, 3);
    hosted.want_values_up_to(X, 1).unwrap();
    send(&mut hosted, A, 0..5);
    assert_eq!(delivered(&mut hosted).len(), 3, "as many as may be with it");
    hosted.taken(X, 2).unwrap();
    assert_eq!(delivered(&mut hosted).len(), 2);
    hosted.demand(Y, 1).unwrap();
    drain(&mut hosted);
    send(&mut hosted, A, 5..6);
    assert!(delivered(&mut hosted).is_empty(), "nothing overtakes what comes back");
    hosted.give_back(X, 0).unwrap();
    assert_eq!(delivered(&mut hosted), [(Y, A, 2, false)], "certainly not taken, and in order");
}

#[test]
fn host_23_a_receive_is_answered_by_what_was_sent_ahead() {
    let mut hosted = channel(16);
    hosted.send_ahead(X, 4);
    hosted.want_values_up_to(X, 1).unwrap();
    send(&mut hosted, A, 0..4);
    drain(&mut hosted);
    hosted.want_values_up_to(X, 2).unwrap();
    assert_eq!(hosted.waiting_units(), 0, "they are on their way");
    hosted.want_values_up_to(X, 6).unwrap();
    assert_eq!(hosted.waiting_units(), 2);
}

#[test]
fn host_23_what_is_ahead_is_older_than_what_is_queued_and_comes_back_first() {
    let mut hosted = channel(16);
    hosted.send_ahead(X, 3);
    hosted.want_values_up_to(X, 1).unwrap();
    send(&mut hosted, A, 0..8);
    assert_eq!(delivered(&mut hosted).len(), 3);
    hosted.demand(Y, 1).unwrap();
    assert_eq!(drain(&mut hosted), [Effect::CallBack { from: X }], "although values are queued");
    hosted.taken(X, 1).unwrap();
    hosted.give_back(X, 0).unwrap();
    assert_eq!(delivered(&mut hosted), [(Y, A, 1, false)]);
}

#[test]
fn host_23_nothing_goes_ahead_where_several_ask() {
    let mut hosted = channel(16);
    hosted.send_ahead(X, 3);
    hosted.send_ahead(Y, 3);
    hosted.want_values_up_to(X, 1).unwrap();
    hosted.want_values_up_to(Y, 1).unwrap();
    send(&mut hosted, A, 0..8);
    assert_eq!(delivered(&mut hosted), [(X, A, 0, false), (Y, A, 1, false)]);
    hosted.taken(X, 1).unwrap();
    hosted.advance(ALONE_AFTER_MILLIS);
    hosted.want_values_up_to(X, 2).unwrap();
    assert_eq!(delivered(&mut hosted), [(X, A, 2, false)], "X has only just become the one that asks");
    hosted.taken(X, 1).unwrap();
    hosted.advance(2 * ALONE_AFTER_MILLIS);
    hosted.want_values_up_to(X, 3).unwrap();
    assert_eq!(delivered(&mut hosted).len(), 3);
}

#[test]
fn host_24_what_was_sent_ahead_is_called_back_once_when_another_waits() {
    let mut hosted = channel(16);
    hosted.send_ahead(X, 8);
    hosted.want_values_up_to(X, 1).unwrap();
    send(&mut hosted, A, 0..4);
    drain(&mut hosted);
    hosted.demand(Y, 1).unwrap();
    assert_eq!(drain(&mut hosted), [Effect::CallBack { from: X }]);
    hosted.demand(Y, 1).unwrap();
    assert_eq!(drain(&mut hosted), [], "once");
    hosted.taken(X, 1).unwrap();
    assert_eq!(hosted.give_back(X, 0), Ok(3));
    assert_eq!(seqs(&sent(&mut hosted, Y)), [1, 2]);
    assert_eq!(hosted.len(), 1, "who was called back starts from one again");
}

#[test]
fn host_24_what_does_not_move_is_called_back_and_then_taken_back() {
    let mut hosted = channel(16);
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..2);
    drain(&mut hosted);
    hosted.demand(Y, 1).unwrap();
    assert_eq!((drain(&mut hosted), hosted.poll_timeout()), (vec![], Some(CALL_BACK_AFTER_MILLIS)));
    hosted.handle_timeout(CALL_BACK_AFTER_MILLIS);
    assert_eq!(drain(&mut hosted), [Effect::CallBack { from: X }]);
    send(&mut hosted, A, 2..3);
    assert_eq!(delivered(&mut hosted), [(Y, A, 2, false)], "it was waited for: others go on");
    let end = CALL_BACK_AFTER_MILLIS + STALLED_AFTER_MILLIS;
    assert_eq!(hosted.poll_timeout(), Some(end));
    hosted.handle_timeout(end);
    assert_eq!(drain(&mut hosted), [Effect::StalledReceiver { key: X }]);
    hosted.demand(Y, 2).unwrap();
    hosted.remove_receiver(X, Leave { doubtful: 1, orderly: false });
    assert_eq!(delivered(&mut hosted), [(Y, A, 0, true), (Y, A, 1, false)]);
}

#[test]
fn host_25_what_cannot_be_sent_waits_for_nobody() {
    let mut hosted = channel(16);
    hosted.demand(X, 3).unwrap();
    send(&mut hosted, A, 0..2);
    assert_eq!(hosted.next_unsent(X).map(|item| item.seq), Some(0));
    hosted.mark_sent(X);
    hosted.block(X);
    hosted.demand(Y, 1).unwrap();
    assert_eq!(seqs(&sent(&mut hosted, Y)), [1]);
    assert_eq!((hosted.waiting_units(), hosted.waiting_units_of(X)), (0, 2));
    hosted.unblock(X);
    send(&mut hosted, A, 2..3);
    assert_eq!(seqs(&sent(&mut hosted, X)), [2]);
}

#[test]
fn host_12_credit_that_was_kept_for_a_permit_comes_back_when_it_is_let_go() {
    let mut hosted = channel(2);
    hosted.want(A, 1);
    hosted.want(B, 1);
    assert_eq!(recalled(&mut hosted), [A]);
    hosted.yielded(A, 2).unwrap();
    assert_eq!(drain(&mut hosted), [], "it has all of it in use");
    hosted.want_up_to(A, 0);
    assert_eq!(recalled(&mut hosted), [A], "it has let it go");
    hosted.yielded(A, 0).unwrap();
    assert_eq!(granted(&mut hosted), [(B, 2)]);
}

#[test]
fn host_10_who_sits_on_credit_that_others_wait_for_is_named_in_time() {
    for answers in [false, true] {
        let mut hosted = channel(2);
        hosted.want(A, 1);
        hosted.want(B, 1);
        assert_eq!(recalled(&mut hosted), [A]);
        if answers {
            // It says that all is committed, and sends nothing.
            hosted.yielded(A, 2).unwrap();
        }
        // A program may take a moment with what it kept.
        let due = if answers { UNUSED_AFTER_MILLIS } else { STALLED_AFTER_MILLIS };
        hosted.handle_timeout(due - 1);
        assert_eq!(drain(&mut hosted), []);
        assert_eq!(hosted.poll_timeout(), Some(due));
        hosted.handle_timeout(due);
        assert_eq!(drain(&mut hosted), [Effect::StalledSender { key: A }]);
        hosted.remove_sender(A);
        assert_eq!(granted(&mut hosted), [(B, 2)]);
    }
}

#[test]
fn host_10_who_uses_what_it_kept_is_left_alone() {
    let mut hosted = channel(2);
    hosted.want(A, 1);
    hosted.want(B, 1);
    drain(&mut hosted);
    hosted.yielded(A, 2).unwrap();
    hosted.handle_timeout(UNUSED_AFTER_MILLIS - 1);
    push(&mut hosted, A, 0..1);
    hosted.handle_timeout(UNUSED_AFTER_MILLIS);
    assert_eq!(drain(&mut hosted), []);
    push(&mut hosted, A, 1..2);
    hosted.handle_timeout(3 * UNUSED_AFTER_MILLIS);
    assert_eq!(drain(&mut hosted), []);
}

#[test]
fn host_26_a_sender_that_comes_may_send_at_once() {
    let mut hosted = channel(1);
    assert_eq!(hosted.welcome(A, 1), 1);
    hosted.want(B, 9);
    assert_eq!(recalled(&mut hosted), [A], "it is recalled like any other credit");
    assert_eq!(hosted.welcome(D, 1), 0, "nobody is passed over for it");
}

#[test]
fn host_27_a_queue_is_bounded_in_bytes() {
    let mut hosted = channel(64);
    hosted.set_bytes_max(16);
    send(&mut hosted, A, 0..2);
    assert!(!hosted.try_lease(A), "two values of eight bytes are here");
    hosted.want(B, 1);
    assert_eq!(granted(&mut hosted), []);
    hosted.demand(X, 1).unwrap();
    hosted.taken(X, 1).unwrap();
    assert_eq!(granted(&mut hosted).len(), 1);
}

#[test]
fn del_13_a_refused_value_rests_longer_each_time_or_goes_to_another_at_once() {
    let mut hosted = Hosted::new(4);
    hosted.add_sender(A);
    assert!(hosted.add_holder(X, HolderOptions::new(8)) && hosted.add_holder(Y, HolderOptions::new(8)));
    hosted.demand(X, 4).unwrap();
    send(&mut hosted, A, 0..1);
    let mut now = 0;
    for (number, pause) in [(0, 50), (1, 100), (2, 200)] {
        hosted.taken(X, 1).unwrap();
        assert!(hosted.nack(X, number, None));
        assert_eq!(hosted.poll_timeout(), Some(now + pause));
        now += pause;
        hosted.handle_timeout(now);
    }
    drain(&mut hosted);
    hosted.taken(X, 1).unwrap();
    hosted.demand(X, 1).unwrap();
    hosted.demand(Y, 1).unwrap();
    assert!(hosted.nack(X, 3, None));
    assert_eq!(sent(&mut hosted, Y).len(), 1, "X stands before Y, and has just refused it");
}

#[test]
fn del_4_what_a_holder_put_off_comes_back_when_it_leaves() {
    let mut hosted = Hosted::new(4);
    hosted.add_sender(A);
    hosted.add_holder(X, HolderOptions::new(8));
    hosted.demand(X, 1).unwrap();
    send(&mut hosted, A, 0..1);
    hosted.taken(X, 1).unwrap();
    assert!(hosted.nack(X, 0, Some(u64::MAX)));
    let at = hosted.poll_timeout().unwrap();
    assert_eq!(at, crate::limits::DELAY_MILLIS_MAX, "a delay has a maximum");
    assert_eq!((hosted.len(), hosted.unacked()), (0, 1));
    hosted.remove_receiver(X, Leave::LOST);
    assert_eq!((hosted.len(), hosted.unacked(), hosted.poll_timeout()), (1, 0, None));
}

#[test]
fn del_14_where_it_says_so_a_value_counts_as_taken_when_it_is_acknowledged() {
    let mut hosted = Hosted::new(1);
    hosted.add_sender(A);
    hosted.add_holder(X, HolderOptions { settles_at_ack: true, ..HolderOptions::new(8) });
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..1);
    drain(&mut hosted);
    hosted.taken(X, 1).unwrap();
    assert_eq!((drain(&mut hosted), hosted.free()), (vec![], 0));
    assert!(hosted.ack(X, 0));
    assert_eq!(drain(&mut hosted), [Effect::Settled { sender: A, prefix: 1, count: 1 }]);
    assert_eq!((hosted.free(), hosted.held_bytes(), hosted.here()), (1, 0, 0));
}

#[test]
fn del_15_a_holder_that_hangs_loses_what_it_does_not_renew() {
    let mut hosted = Hosted::new(4);
    hosted.add_sender(A);
    hosted.add_holder(X, HolderOptions { lease_millis: Some(100), ..HolderOptions::new(8) });
    hosted.demand(X, 2).unwrap();
    send(&mut hosted, A, 0..2);
    hosted.taken(X, 2).unwrap();
    drain(&mut hosted);
    assert!(hosted.extend(X, 1, 500));
    assert_eq!(hosted.poll_timeout(), Some(100));
    hosted.handle_timeout(100);
    assert_eq!(drain(&mut hosted), [Effect::Fenced { to: X, number: 0 }]);
    assert_eq!((hosted.len(), hosted.poll_timeout()), (1, Some(500)));
}

#[test]
fn what_is_restored_from_its_facts_is_what_must_survive() {
    let mut hosted = channel(8);
    hosted.tell_facts();
    hosted.add_holder(ReceiverKey(9), HolderOptions::new(8));
    send(&mut hosted, A, 0..3);
    send(&mut hosted, B, 0..3);
    hosted.demand(ReceiverKey(9), 2).unwrap();
    hosted.demand(X, 1).unwrap();
    hosted.taken(ReceiverKey(9), 2).unwrap();
    assert!(hosted.nack(ReceiverKey(9), 0, Some(700)));
    hosted.remove_sender(B);
    let durable = hosted.durable();
    let restored = Hosted::restore(8, durable.clone());
    assert_eq!((restored.here(), restored.held_bytes()), (hosted.here(), hosted.held_bytes()));
    assert_eq!(
        restored.lent(),
        hosted.lent() - (hosted.limit(A).unwrap() - 3),
        "credit that is not used is free"
    );
    let again = restored.durable();
    assert_eq!(again.senders, durable.senders);
    let values = |durable: &crate::hosted::Durable| -> Vec<_> {
        durable.items.values().map(|here| (here.item.ticket, here.item.attempts, here.item.settled)).collect()
    };
    assert_eq!(values(&again), values(&durable));
}
