//! Values that are sent ahead and called back, and a receiving end that takes no more.

mod support;

use netchan_proto::channel::{CloseReason, PushError};
use netchan_proto::flow::WindowKind;
use support::duct::{Ask, Duct, Shape};
use support::seed::{number, value};

const AHEAD: u64 = 3;

fn demand() -> Duct {
    let kind = WindowKind::Demand { prefetch: 0, ahead: AHEAD };
    let mut duct = Duct::new(Shape { kind, window_bytes: 30_000, message_bytes_max: 256 * 1_024 });
    duct.tx.allow_ahead(AHEAD);
    duct
}

fn push(duct: &mut Duct, n: u64) -> bool {
    let bytes = value(n, 20);
    duct.tx.push(|item| item.extend(&bytes)).is_ok()
}

fn take(duct: &mut Duct) -> Option<u64> {
    duct.rx.take().map(|payload| number(payload.as_slice()))
}

#[test]
fn flow_10_so_many_values_may_be_with_a_receiver_unasked_and_no_more() {
    let mut duct = demand();
    assert_eq!((0..5).filter(|n| push(&mut duct, *n)).count(), AHEAD as usize);
    duct.pump().unwrap();
    assert_eq!(take(&mut duct), Some(0));
    duct.pump().unwrap();
    assert!(push(&mut duct, 3), "one was taken");
    assert!(!push(&mut duct, 4));
    // A sending end that goes beyond is found out.
    duct.tx.allow_ahead(AHEAD + 1);
    assert!(push(&mut duct, 4));
    assert!(duct.pump().is_err());
}

#[test]
fn chan_11_what_was_not_taken_comes_back_once() {
    let mut duct = demand();
    (0..3).for_each(|n| assert!(push(&mut duct, n)));
    duct.pump().unwrap();
    assert_eq!(take(&mut duct), Some(0));
    duct.tx.call_back();
    duct.tx.call_back();
    duct.pump().unwrap();
    assert_eq!(duct.called_back, [true]);
    assert_eq!(duct.asked.pop_front(), Some(Ask::Rewind(1)), "two come back");
    assert_eq!(take(&mut duct), None, "and are handed out to nobody here");
    // One that crossed the answer is old news.
    duct.tx.rewind(1).unwrap();
    assert!(!duct.rx.handle_call_back(0).unwrap());
    duct.pump().unwrap();
    assert!(duct.asked.iter().all(|ask| !matches!(ask, Ask::Rewind(_))));
    assert!(push(&mut duct, 7));
    duct.pump().unwrap();
    assert_eq!(take(&mut duct), Some(7));
    assert!(duct.rx.handle_call_back(9).is_err(), "of a generation that was never agreed");
}

#[test]
fn chan_11_only_what_is_lent_can_be_called_back() {
    let mut duct = Duct::new(Shape::fixed(4, 30_000));
    assert!(duct.rx.handle_call_back(0).is_err());
}

#[test]
fn chan_12_a_place_that_is_set_aside_is_void_when_no_more_is_taken() {
    let shape = Shape { kind: WindowKind::Lease, window_bytes: 30_000, message_bytes_max: 256 * 1_024 };
    let mut duct = Duct::new(shape);
    duct.rx.lease(3);
    duct.pump().unwrap();
    assert!(push(&mut duct, 0));
    assert!(duct.tx.reserve());
    duct.rx.announce_closing(CloseReason { code: 0, reason: "that was all".to_owned() });
    duct.rx.recall_lease();
    duct.pump().unwrap();
    assert_eq!(duct.tx.closed().map(|reason| &*reason.reason), Some("that was all"));
    assert_eq!(duct.asked.pop_back(), Some(Ask::Yielded(1)), "what was reserved is not kept");
    let late: Result<_, PushError<netchan_proto::channel::TooLarge>> =
        duct.tx.push_reserved(|item| item.extend(b"late"));
    assert!(matches!(late, Err(PushError::Closed)));
    // What was committed before arrives.
    assert_eq!(duct.rx.hand_over().map(|(seq, bytes)| (seq, number(&bytes))), Some((0, 0)));
}
