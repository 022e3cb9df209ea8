//! Channels that come to their end around a cut: each end hears the other's last word, and then both forget.

mod support;

use netchan_proto::channel::CloseReason;
use netchan_proto::id::ChannelId;
use netchan_proto::session::Event;
use netchan_proto::wire::{Mode, OpenFlow};
use support::pair::{Pair, Slices};

fn enough() -> CloseReason {
    CloseReason { code: 300, reason: "enough".to_owned() }
}

/// A channel into which the client sends.
fn joined(pair: &mut Pair, mode: Mode, capacity: u64) -> ChannelId {
    let id = pair.client.end.open("last words", OpenFlow::OpenerSends);
    pair.pump();
    let open = pair.server.end.take_incoming().expect("offered");
    assert!(pair.server.end.accept(&open, mode, capacity));
    pair.pump();
    id
}

fn push(pair: &Pair, id: ChannelId) {
    pair.client.end.send(id, |half| half.push(|item| item.extend(b"value"))).expect("credit");
}

fn assert_forgotten(pair: &Pair, id: ChannelId) {
    assert!(pair.client.end.ended_senders.borrow().contains_key(&id), "the client has forgotten it");
    assert!(pair.server.end.ended_receivers.borrow().contains_key(&id), "the server has forgotten it");
}

#[test]
fn sess_10_an_end_that_overtakes_the_acceptance_is_answered() {
    let mut pair = Pair::new(1);
    let id = pair.client.end.open("soon over", OpenFlow::OpenerSends);
    pair.pump();
    let open = pair.server.end.take_incoming().expect("offered");
    pair.cut();
    assert!(pair.server.end.accept(&open, Mode::Credit, 4));
    pair.server.end.recv(id, |half| half.stop(enough()));
    pair.attach();
    pair.pump();
    let refused = |event: &Event| matches!(event, Event::Refused(refuse) if refuse.id == id).then_some(());
    assert_eq!(pair.client.end.take_event(refused), Some(()));
    assert!(pair.server.end.ended_receivers.borrow().contains_key(&id));
    assert_eq!(pair.server.end.control.borrow().channel_count(), 0);
}

#[test]
fn sess_9_a_position_counts_no_offer_as_taken_that_ended_with_its_channel() {
    let mut pair = Pair::new(2);
    let id = joined(&mut pair, Mode::Rendezvous, 0);
    push(&pair, id);
    pair.pump();
    // Its hosted channel hands it back at its end; neither that nor the end is heard.
    pair.server.end.recv(id, |half| {
        assert!(half.hand_over().is_some());
        half.answer_withdraw(0, true);
        half.stop(enough());
    });
    pair.cut();
    pair.attach();
    pair.pump();
    let ended = pair.client.end.ended_senders.borrow();
    let half = ended.get(&id).expect("the client has forgotten it");
    assert_eq!((half.taken(), half.peer_closed().map(|reason| reason.code)), (0, Some(300)));
}

#[test]
fn sess_10_a_close_that_was_lost_is_said_again_to_an_end_that_closes_too() {
    let mut pair = Pair::new(3);
    let id = joined(&mut pair, Mode::Credit, 4);
    pair.client.end.send(id, |half| half.close(CloseReason::plain()));
    pair.write();
    pair.cut();
    pair.server.end.recv(id, |half| half.stop(enough()));
    pair.attach();
    pair.pump();
    assert_forgotten(&pair, id);
}

#[test]
fn chan_7_values_that_come_again_before_the_close_find_their_key() {
    let mut pair = Pair::new(4);
    let id = joined(&mut pair, Mode::Credit, 4);
    push(&pair, id);
    pair.client.end.send(id, |half| half.close(CloseReason::plain()));
    pair.write();
    // The value is discarded and the close is heard; that this end stopped is not.
    pair.server.end.recv(id, |half| half.stop(enough()));
    pair.read(&mut Slices::Whole).expect("no fault");
    pair.cut();
    pair.attach();
    for _ in 0..2 {
        pair.exchange(&mut Slices::Whole).expect("confirmations, then positions");
    }
    // Any control frame before the value: keys of forgotten channels are erased behind one.
    pair.client.end.control.borrow_mut().ping(1);
    pair.pump();
    assert_forgotten(&pair, id);
}

#[test]
fn sess_11_a_farewell_is_said_again_on_the_next_link() {
    let mut pair = Pair::new(5);
    pair.pump();
    pair.client.end.control.borrow_mut().go_away(0, "enough".to_owned());
    pair.write();
    pair.cut();
    pair.attach();
    pair.pump();
    let farewell = |event: &Event| matches!(event, Event::GoAway { .. }).then_some(());
    assert_eq!(pair.server.end.take_event(farewell), Some(()));
}

#[test]
fn host_22_what_has_not_left_is_taken_back() {
    let mut pair = Pair::new(6);
    let id = joined(&mut pair, Mode::Credit, 8);
    push(&pair, id);
    pair.pump();
    pair.cut();
    push(&pair, id);
    push(&pair, id);
    pair.client.end.send(id, |half| {
        assert_eq!(half.take_unsent(), 2);
        assert_eq!((half.committed(), half.take_unsent()), (1, 0));
    });
    pair.attach();
    push(&pair, id);
    pair.pump();
    pair.server.end.recv(id, |half| {
        assert_eq!(half.ready(), 2);
        while half.take().is_some() {}
    });
}

#[test]
fn chan_10_what_is_in_doubt_stays_so_until_it_is_taken() {
    let mut pair = Pair::new(7);
    let id = joined(&mut pair, Mode::Credit, 8);
    pair.cut();
    // From a session that was lost; in this one nothing has left.
    pair.client.end.send(id, |half| {
        half.push_owed(true, |item| item.extend(b"one")).expect("credit");
        half.push_owed(false, |item| item.extend(b"two")).expect("credit");
        let mut found = Vec::new();
        half.for_each_unsettled(|value| found.push(value.in_doubt));
        assert_eq!((found, half.unsettled()), (vec![true, false], (1, 1)));
        half.drop_unsettled();
        assert_eq!((half.unsettled(), half.taken()), ((0, 0), 0), "given back is not taken");
    });
}
