//! Broadcasts: what each subscriber sees.

use proptest::prelude::*;

use super::value;
use crate::hosted::{Broadcast, BroadcastLimits, Next, NotSent, ReceiverKey, WhenSlow};

fn cast(capacity: u64) -> Broadcast {
    Broadcast::new(BroadcastLimits { capacity, ..BroadcastLimits::default() })
}

const X: ReceiverKey = ReceiverKey(1);
const Y: ReceiverKey = ReceiverKey(2);

/// What a subscriber gets until nothing is left: numbers of values, negative what it lost.
fn drain(cast: &mut Broadcast, key: ReceiverKey) -> Vec<i64> {
    let mut got = Vec::new();
    loop {
        match cast.peek(key) {
            Next::Value { bytes, .. } => got.push(u64::from_be_bytes(bytes[..].try_into().unwrap()) as i64),
            Next::Lagged(lost) => got.push(-(lost as i64)),
            Next::Expelled(_) | Next::End | Next::Nothing => return got,
        }
        cast.advance(key);
    }
}

#[test]
fn cast_1_every_subscriber_gets_every_value_from_when_it_came() {
    let mut cast = cast(8);
    cast.send(value(0)).unwrap();
    assert!(cast.subscribe(X, WhenSlow::Lag) && !cast.subscribe(X, WhenSlow::Block));
    cast.send(value(1)).unwrap();
    assert!(cast.subscribe(Y, WhenSlow::Lag));
    cast.send(value(2)).unwrap();
    assert_eq!((drain(&mut cast, X), drain(&mut cast, Y)), (vec![1, 2], vec![2]));
    assert_eq!(cast.peek(X), Next::Nothing);
    cast.unsubscribe(X);
    assert_eq!((cast.peek(X), cast.subscriber_count()), (Next::End, 1));
}

#[test]
fn cast_2_what_is_assigned_comes_first_and_no_value_is_missed_behind_it() {
    let mut cast = cast(8);
    cast.subscribe(X, WhenSlow::Lag);
    cast.assign(value(0)).unwrap();
    cast.send(value(1)).unwrap();
    cast.assign(value(2)).unwrap();
    cast.subscribe(Y, WhenSlow::Lag);
    cast.send(value(3)).unwrap();
    cast.assign(value(4)).unwrap();
    assert_eq!((drain(&mut cast, X), drain(&mut cast, Y)), (vec![0, 1, 2, 3, 4], vec![0, 2, 3, 4]));
}

#[test]
fn cast_3_replacing_the_assignments_is_one_step_for_those_who_come_later() {
    let mut cast = cast(8);
    cast.assign(value(0)).unwrap();
    cast.subscribe(X, WhenSlow::Lag);
    cast.set_assignments(vec![value(7), value(8)]).unwrap();
    cast.subscribe(Y, WhenSlow::Lag);
    assert_eq!((drain(&mut cast, X), drain(&mut cast, Y)), (vec![0], vec![7, 8]));
}

#[test]
fn cast_9_lists_that_slow_subscribers_still_read_are_bounded_together() {
    let limits = BroadcastLimits { capacity: 8, assigned_bytes_max: 24, ..BroadcastLimits::default() };
    let mut cast = Broadcast::new(limits);
    let (lags, goes, done) = (X, Y, ReceiverKey(3));
    cast.set_assignments(vec![value(0), value(1)]).unwrap();
    assert!(cast.subscribe(lags, WhenSlow::Lag) && cast.subscribe(goes, WhenSlow::Block));
    assert!(cast.subscribe(done, WhenSlow::Lag));
    cast.advance(lags);
    assert_eq!(drain(&mut cast, done), [0, 1]);
    cast.send(value(9)).unwrap();
    cast.set_assignments(vec![value(2)]).unwrap();
    assert_eq!(cast.held_bytes(), 8 + 16 + 8, "the log, what is read, and what is assigned");
    let late = ReceiverKey(4);
    assert!(cast.subscribe(late, WhenSlow::Lag));
    cast.set_assignments(vec![value(3)]).unwrap();
    assert_eq!(cast.held_bytes(), 8 + 16 + 8 + 8);
    // One more is too much: the oldest list goes.
    assert!(cast.subscribe(ReceiverKey(5), WhenSlow::Lag));
    cast.set_assignments(vec![value(4), value(5)]).unwrap();
    assert_eq!(cast.held_bytes(), 8 + 8 + 8 + 16);
    assert_eq!((cast.behind(lags), cast.peek(goes)), (4, Next::Expelled(3)));
    cast.send(value(10)).unwrap();
    assert_eq!(drain(&mut cast, lags), [-2, 4, 5, 10], "it begins again with what is assigned now");
    assert_eq!(drain(&mut cast, late), [2, 10]);
    assert_eq!(drain(&mut cast, done), [9, 10], "who has its list is not concerned");
    cast.unsubscribe(goes);
    cast.unsubscribe(ReceiverKey(5));
    assert_eq!(cast.held_bytes(), 16 + 16);
    assert_eq!(cast.lagged(), 2);
}

#[test]
fn cast_4_a_subscriber_that_lags_is_told_exactly_how_many_it_lost() {
    let mut cast = cast(3);
    cast.subscribe(X, WhenSlow::Lag);
    cast.subscribe(Y, WhenSlow::Disconnect);
    for n in 0..10 {
        cast.send(value(n)).unwrap();
    }
    assert_eq!(cast.peek(Y), Next::Expelled(7));
    assert_eq!((cast.behind(X), cast.ready(X)), (10, 3), "what is lost cannot be received");
    assert_eq!(drain(&mut cast, X), [-7, 7, 8, 9]);
}

#[test]
fn cast_5_a_subscriber_that_blocks_loses_nothing_and_holds_senders_up() {
    let mut cast = cast(2);
    cast.subscribe(X, WhenSlow::Block);
    cast.subscribe(Y, WhenSlow::Lag);
    cast.send(value(0)).unwrap();
    cast.assign(value(1)).unwrap();
    assert_eq!((cast.send(value(2)), cast.assign(value(2))), (Err(NotSent::Full), Err(NotSent::Full)));
    cast.advance(X);
    cast.send(value(2)).unwrap();
    assert_eq!((drain(&mut cast, X), drain(&mut cast, Y)), (vec![1, 2], vec![-1, 1, 2]));
    cast.send(value(3)).unwrap();
    cast.send(value(4)).unwrap();
    cast.unsubscribe(X);
    cast.send(value(5)).unwrap();
}

#[test]
fn cast_6_the_log_and_the_assignments_are_bounded_in_items_and_bytes() {
    let limits =
        BroadcastLimits { capacity: 100, log_bytes_max: 24, assigned_items_max: 2, assigned_bytes_max: 20 };
    let mut cast = Broadcast::new(limits);
    cast.subscribe(X, WhenSlow::Lag);
    cast.subscribe(Y, WhenSlow::Block);
    for n in 0..3 {
        cast.send(value(n)).unwrap();
    }
    assert_eq!(cast.send(value(3)), Err(NotSent::Full), "three values are 24 bytes");
    cast.unsubscribe(Y);
    cast.send(vec![0; 100].into()).unwrap();
    assert_eq!(cast.held_bytes(), 100, "one is there whatever its length");
    assert_eq!(cast.peek(X), Next::Lagged(3));
    cast.assign(value(4)).unwrap();
    cast.assign(value(5)).unwrap();
    assert_eq!(cast.assign(value(6)), Err(NotSent::TooManyAssigned));
    assert_eq!(cast.set_assignments(vec![vec![0; 21].into()]), Err(NotSent::TooManyAssigned));
    cast.set_assignments(vec![]).unwrap();
    cast.assign(value(6)).unwrap();
}

#[test]
fn cast_7_what_was_sent_before_the_close_is_received_and_then_the_end() {
    let mut cast = cast(8);
    cast.assign(value(0)).unwrap();
    cast.subscribe(X, WhenSlow::Lag);
    cast.send(value(1)).unwrap();
    cast.close();
    assert_eq!((cast.send(value(2)), cast.subscribe(Y, WhenSlow::Lag)), (Err(NotSent::Closed), false));
    assert_eq!(cast.behind(X), 2);
    assert_eq!((drain(&mut cast, X), cast.peek(X)), (vec![0, 1], Next::End));
}

#[derive(Clone, Debug)]
enum Op {
    Send,
    Assign,
    Replace(usize),
    Join(WhenSlow),
    Leave(usize),
    Advance(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => Just(Op::Send),
        3 => Just(Op::Assign),
        1 => (0..4_usize).prop_map(Op::Replace),
        3 => prop_oneof![Just(WhenSlow::Lag), Just(WhenSlow::Block), Just(WhenSlow::Disconnect)].prop_map(Op::Join),
        1 => (0..8_usize).prop_map(Op::Leave),
        20 => (0..8_usize, 1..5_usize).prop_map(|(who, n)| Op::Advance(who, n)),
    ]
}

/// What one subscriber is owed, value by value, and nothing more clever.
struct Seen {
    key: ReceiverKey,
    when_slow: WhenSlow,
    owed: std::collections::VecDeque<u64>,
    initial: usize,
}

proptest! {
    #[test]
    fn cast_1_to_5_everyone_sees_its_prefix_and_then_a_run_without_gaps_but_those_it_is_told_of(
        ops in proptest::collection::vec(op(), 1..200),
        capacity in 1..6_u64,
    ) {
        let mut cast = cast(capacity);
        let (mut number, mut key) = (0, 0);
        let mut assigned: Vec<u64> = Vec::new();
        let mut all: Vec<Seen> = Vec::new();
        for op in ops {
            match op {
                Op::Send | Op::Assign => {
                    let keeps = matches!(op, Op::Assign);
                    let sent = if keeps { cast.assign(value(number)) } else { cast.send(value(number)) };
                    let blocked = all.iter().any(|seen| {
                        seen.when_slow == WhenSlow::Block && (seen.owed.len() - seen.initial) as u64 >= capacity
                    });
                    prop_assert_eq!(sent.is_err(), blocked);
                    if sent.is_ok() {
                        all.iter_mut().for_each(|seen| seen.owed.push_back(number));
                        assigned.extend(keeps.then_some(number));
                    }
                    number += 1;
                }
                Op::Replace(count) => {
                    assigned = (number..number + count as u64).collect();
                    number += count as u64;
                    cast.set_assignments(assigned.iter().map(|n| value(*n)).collect()).unwrap();
                }
                Op::Join(when_slow) => {
                    key += 1;
                    prop_assert!(cast.subscribe(ReceiverKey(key), when_slow));
                    let owed: std::collections::VecDeque<_> = assigned.iter().copied().collect();
                    all.push(Seen { key: ReceiverKey(key), when_slow, initial: owed.len(), owed });
                }
                Op::Leave(who) if !all.is_empty() => {
                    let seen = all.remove(who % all.len());
                    cast.unsubscribe(seen.key);
                }
                Op::Advance(who, times) if !all.is_empty() => {
                    let at = who % all.len();
                    for _ in 0..times {
                        let seen = &mut all[at];
                        match cast.peek(seen.key) {
                            Next::Value { bytes, initial } => {
                                prop_assert_eq!(seen.owed.pop_front().map(value), Some(bytes));
                                prop_assert_eq!(initial, seen.initial > 0);
                                seen.initial = seen.initial.saturating_sub(1);
                            }
                            Next::Lagged(lost) => {
                                prop_assert_eq!(seen.when_slow, WhenSlow::Lag);
                                prop_assert!(seen.initial == 0 && seen.owed.len() as u64 == lost + capacity);
                                seen.owed.drain(..lost as usize);
                            }
                            Next::Expelled(lost) => {
                                prop_assert_eq!(seen.when_slow, WhenSlow::Disconnect);
                                prop_assert_eq!(seen.owed.len() as u64, lost + capacity);
                                break;
                            }
                            Next::Nothing => {
                                prop_assert!(seen.owed.is_empty());
                                break;
                            }
                            Next::End => prop_assert!(false, "it is open"),
                        }
                        cast.advance(seen.key);
                    }
                }
                Op::Leave(_) | Op::Advance(..) => {}
            }
        }
    }
}
