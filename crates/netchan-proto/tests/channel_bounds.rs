//! What a sending end keeps for its peer, whatever that grants.

use std::convert::Infallible;

use netchan_proto::channel::{PushError, SendHalf, SendOptions, Withdrawal};
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Mode, WindowUpdate};

fn half(mode: Mode, capacity: u64) -> SendHalf {
    let options = SendOptions { mode, capacity, limit_bytes: u64::MAX, message_bytes_max: 1 << 20 };
    SendHalf::new(ChannelId(2), &options)
}

/// Sends values of so many bytes until no more may be sent; returns how many.
fn fill(half: &mut SendHalf, bytes: usize) -> u64 {
    let before = half.committed();
    loop {
        match half.push::<_, Infallible>(|item| Ok(item.extend(&vec![0; bytes]))) {
            Ok(_) => assert!(half.committed() < 1_000_000, "without end"),
            Err(PushError::Full) => return half.committed() - before,
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn all(taken: u64, received: u64) -> WindowUpdate {
    WindowUpdate { id: ChannelId(2), generation: 0, received, taken, limit: u64::MAX, limit_bytes: u64::MAX }
}

#[test]
fn flow_9_no_more_values_than_the_capacity_are_out() {
    let mut half = half(Mode::Credit, 4);
    assert_eq!(fill(&mut half, 1), 4);
    half.handle_window(&all(0, 4)).unwrap();
    assert_eq!(fill(&mut half, 1), 0);
    half.handle_window(&all(3, 4)).unwrap();
    assert_eq!(fill(&mut half, 1), 3);
}

#[test]
fn flow_9_no_more_bytes_are_kept_than_this_end_would() {
    const BOUND: u64 = 100_000;
    const VALUE: usize = 20_000;
    let mut half = half(Mode::Credit, 1 << 30);
    half.bound(BOUND);
    assert_eq!(fill(&mut half, VALUE), BOUND / VALUE as u64);
    half.handle_window(&all(0, 5)).unwrap();
    assert_eq!(fill(&mut half, VALUE), 0);
    assert!(half.retained_bytes() as u64 <= BOUND + VALUE as u64);
    half.handle_window(&all(2, 5)).unwrap();
    assert_eq!(fill(&mut half, VALUE), 2);
    // Short values share a record, which is kept until the last of them is taken.
    let (mut half, mut taken) = (self::half(Mode::Credit, 1 << 30), 0);
    half.bound(BOUND);
    let mut sent = fill(&mut half, 10);
    for _ in 0..1_000 {
        taken = (taken + 77).min(sent);
        half.handle_window(&all(taken, sent)).unwrap();
        sent += fill(&mut half, 10);
        assert!(half.retained_bytes() as u64 <= 2 * BOUND, "{}", half.retained_bytes());
        assert!(sent > taken, "it goes on");
    }
}

/// An offer longer than the bound is taken while it is withdrawn: the next may be made all the same.
#[test]
fn flow_9_a_withdrawal_that_crosses_its_window_holds_up_nobody() {
    let mut half = half(Mode::Rendezvous, 0);
    half.bound(1_000);
    let offer =
        |half: &mut SendHalf| half.push::<_, Infallible>(|item| Ok(item.extend(&[7; 5_000]))).unwrap().seq;
    let seq = offer(&mut half);
    let sealed = half.take_record().map(|record| record.header.first_seq);
    assert_eq!(sealed, Some(seq));
    assert_eq!(half.withdraw(seq), Withdrawal::Asked);
    half.handle_window(&all(1, 1)).unwrap();
    assert_eq!(half.available(), 0);
    half.handle_withdrawn(seq, false).unwrap();
    assert_eq!(half.available(), 1);
    offer(&mut half);
}

/// Where its own bound holds a sending end up, the peer sees no reason to report, and is asked.
#[test]
fn flow_9_a_report_is_asked_for() {
    let mut half = half(Mode::Credit, 1 << 30);
    half.bound(100_000);
    fill(&mut half, 20_000);
    let mut asked = false;
    while let Some(record) = half.take_record() {
        asked = record.header.ack_now;
    }
    assert!(asked, "with the last record");
}
