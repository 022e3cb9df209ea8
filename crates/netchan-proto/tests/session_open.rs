//! Opening, answering and ending channels between two endpoints, over cuts.

mod support;

use netchan_proto::channel::CloseReason;
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::limits::RECORD_BYTES_MAX;
use netchan_proto::session::{ControlLimits, Event, Host, OpenError, close_code};
use netchan_proto::wire::{Announce, Mode, OpenFlow, RefuseCode};
use rand::Rng;
use support::endpoint::{Endpoint, request};
use support::pair::{Pair, Slices};
use support::seed::{for_seeds, number, one_in, value};

fn refused(end: &Endpoint) -> Option<(ChannelId, RefuseCode, String)> {
    end.take_event(|event| match event {
        Event::Refused(refuse) => Some((refuse.id, refuse.code, refuse.reason.clone())),
        _ => None,
    })
}

fn put(end: &Endpoint, id: ChannelId, number: u64) {
    end.send(id, |half| half.push(|item| item.extend(&value(number, 50))).expect("credit"));
}

fn get(end: &Endpoint, id: ChannelId) -> Option<u64> {
    end.recv(id, |half| half.take().map(|payload| number(payload.as_slice())))
}

/// A channel from the client to the server, accepted with this capacity.
fn joined(pair: &mut Pair, capacity: u64) -> ChannelId {
    let id = pair.client.end.open("to-server", OpenFlow::OpenerSends);
    pair.pump();
    let open = pair.server.end.take_incoming().expect("an offer");
    assert!(pair.server.end.accept(&open, Mode::Credit, capacity));
    pair.pump();
    id
}

#[test]
fn sess_4_both_ends_open_and_ids_do_not_meet() {
    let mut pair = Pair::new(1);
    let ids =
        [pair.client.end.open("a", OpenFlow::OpenerSends), pair.client.end.open("b", OpenFlow::OpenerSends)];
    let other = pair.server.end.open("a", OpenFlow::OpenerReceives);
    assert_eq!((ids, other), ([ChannelId(1), ChannelId(3)], ChannelId(2)));
    pair.pump();
    let names: Vec<_> =
        std::iter::from_fn(|| pair.server.end.take_incoming().map(|open| open.name)).collect();
    assert_eq!(names, ["a", "b"]);
    let open = pair.client.end.take_incoming().expect("an offer");
    assert!(pair.client.end.accept(&open, Mode::Credit, 3));
    put(&pair.client.end, other, 0);
    pair.pump();
    assert_eq!(get(&pair.server.end, other), Some(0));
}

#[test]
fn sess_6_refused_with_code_and_reason_over_a_cut() {
    for cut in [false, true] {
        let mut pair = Pair::new(2);
        let id = pair.client.end.open("nothing", OpenFlow::OpenerReceives);
        pair.pump();
        if cut {
            pair.cut();
        }
        let open = pair.server.end.take_incoming().expect("an offer");
        let reason = "no such channel".to_owned();
        assert!(pair.server.end.control.borrow_mut().refuse(
            open.id,
            RefuseCode::NotAvailable,
            reason.clone()
        ));
        assert!(!pair.server.end.control.borrow_mut().refuse(open.id, RefuseCode::Denied, String::new()));
        if cut {
            pair.attach();
        }
        pair.pump();
        assert_eq!(refused(&pair.client.end), Some((id, RefuseCode::NotAvailable, reason)));
        assert_eq!(refused(&pair.client.end), None);
        assert_eq!(pair.client.end.control.borrow().channel_count(), 0);
        assert_eq!(pair.server.end.control.borrow().channel_count(), 0);
    }
}

#[test]
fn sess_6_given_up_before_during_and_after_the_answer_over_cuts() {
    for_seeds(600, |seed, rng| {
        let mut pair = Pair::new(seed);
        let flow = if one_in(rng, 2) { OpenFlow::OpenerSends } else { OpenFlow::OpenerReceives };
        let id = pair.client.end.open("slow", flow);
        let (give_up, answer) = (rng.random_range(0..8), rng.random_range(0..8));
        let refuses = one_in(rng, 4);
        for turn in 0..8 {
            if turn == give_up {
                let gave_up = pair.client.end.control.borrow_mut().abandon(id);
                if !gave_up && let Some(half) = pair.client.end.senders.borrow_mut().get_mut(&id) {
                    half.reset(CloseReason::plain());
                }
                if !gave_up && let Some(half) = pair.client.end.receivers.borrow_mut().get_mut(&id) {
                    half.stop(CloseReason::plain());
                }
            }
            if turn >= answer
                && let Some(open) = pair.server.end.take_incoming()
            {
                if refuses {
                    pair.server.end.control.borrow_mut().refuse(id, RefuseCode::Declined, String::new());
                } else if pair.server.end.accept(&open, Mode::Credit, 2) && flow == OpenFlow::OpenerReceives {
                    put(&pair.server.end, id, 0);
                }
            }
            if one_in(rng, 5) {
                pair.cut();
                pair.attach();
            }
            if one_in(rng, 3) {
                pair.client.cut_at = Some(pair.client.delivered + rng.random_range(0..200));
            }
            pair.exchange(&mut Slices::Whole).expect("no fault");
        }
        while pair
            .server
            .end
            .take_incoming()
            .is_some_and(|open| pair.server.end.accept(&open, Mode::Credit, 2))
        {}
        pair.pump();
        assert_eq!(pair.client.end.control.borrow().channel_count(), 0, "{:?}", pair.client.end.control);
        assert_eq!(pair.server.end.control.borrow().channel_count(), 0, "{:?}", pair.server.end.control);
    });
}

#[test]
fn sess_7_limits_refuse_and_the_session_lives() {
    let limits = ControlLimits { channels_max: 5, offers_pending_max: 3 };
    let mut pair = Pair::unlinked(3, limits);
    pair.attach();
    // The client may have more than the server allows it.
    pair.client.end = Endpoint::new(Side::Client);
    pair.attach();
    for _ in 0..4 {
        pair.client.end.open("one", OpenFlow::OpenerSends);
    }
    pair.pump();
    let (id, code, reason) = refused(&pair.client.end).expect("one too many waits");
    assert_eq!((id, code), (ChannelId(7), RefuseCode::LimitReached));
    assert!(reason.contains('3'), "{reason}");
    while let Some(open) = pair.server.end.take_incoming() {
        assert!(pair.server.end.accept(&open, Mode::Credit, 1));
    }
    for _ in 0..2 {
        pair.server.end.open("own", OpenFlow::OpenerSends);
    }
    let full = pair.server.end.control.borrow_mut().open(request("own", OpenFlow::OpenerSends));
    assert_eq!(full, Err(OpenError::TooMany(5)));
    pair.client.end.open("late", OpenFlow::OpenerSends);
    pair.pump();
    let (_, code, reason) = refused(&pair.client.end).expect("no room");
    assert_eq!(code, RefuseCode::LimitReached);
    assert!(reason.contains('5'), "{reason}");
    let first = ChannelId(1);
    put(&pair.client.end, first, 9);
    pair.pump();
    assert_eq!(get(&pair.server.end, first), Some(9));
}

#[test]
fn sess_5_announcements_pings_and_goodbyes_arrive_in_order() {
    let mut pair = Pair::new(4);
    pair.pump();
    pair.client.end.take_events();
    let announce = |name: &str, hosted| Announce {
        name: name.to_owned(),
        label: "Task".to_owned(),
        codec: "postcard".to_owned(),
        may_receive: true,
        may_send: false,
        capacity: 64,
        hosted,
    };
    let control = &pair.server.end.control;
    control.borrow_mut().announce(announce("tasks", true));
    control.borrow_mut().ping(77);
    control.borrow_mut().announce(announce("tasks", false));
    control.borrow_mut().go_away(close_code::SHUTDOWN, "maintenance".to_owned());
    pair.pump();
    let mut events: Vec<_> = pair.client.end.take_events().into();
    assert_eq!(
        events.remove(0),
        Event::Acknowledged,
        "whatever is said first shows that the confirmation was heard"
    );
    let goodbye = Event::GoAway { code: close_code::SHUTDOWN, reason: "maintenance".to_owned() };
    let expected =
        [Event::Announced(announce("tasks", true)), Event::Announced(announce("tasks", false)), goodbye];
    assert_eq!(events, expected);
    let pong = Event::Pong { nonce: 77 };
    assert!(pair.server.end.take_events().contains(&pong));
}

#[test]
fn sess_8_opened_and_accepted_without_a_link() {
    let mut pair = Pair::unlinked(5, ControlLimits::default());
    let up = pair.client.end.open("up", OpenFlow::OpenerSends);
    let down = pair.client.end.open("down", OpenFlow::OpenerReceives);
    pair.attach();
    pair.pump();
    pair.cut();
    while let Some(open) = pair.server.end.take_incoming() {
        assert!(pair.server.end.accept(&open, Mode::Credit, 2));
    }
    put(&pair.server.end, down, 0);
    pair.attach();
    put(&pair.server.end, down, 1);
    pair.pump();
    assert_eq!((get(&pair.client.end, down), get(&pair.client.end, down)), (Some(0), Some(1)));
    put(&pair.client.end, up, 0);
    pair.pump();
    assert_eq!(get(&pair.server.end, up), Some(0));
}

#[test]
fn rec_4_accepted_while_a_fill_is_under_way() {
    let mut pair = Pair::new(6);
    let id = pair.client.end.open("down", OpenFlow::OpenerReceives);
    pair.pump();
    let open = pair.server.end.take_incoming().expect("an offer");
    *pair.server.end.between.borrow_mut() = Some(Box::new(move |end| {
        assert!(end.accept(&open, Mode::Credit, 2));
        put(end, id, 5);
    }));
    pair.pump();
    assert_eq!(get(&pair.client.end, id), Some(5));
}

#[test]
fn chan_8_a_sender_that_polls_with_its_data_hears_at_once() {
    let mut pair = Pair::new(7);
    let id = joined(&mut pair, 64);
    put(&pair.client.end, id, 0);
    pair.client.end.send(id, |half| half.request_report());
    pair.pump();
    let received = pair.client.end.with_send(id, |half| (half.received(), half.taken()));
    assert_eq!(received, Some((1, 0)), "it arrived, and nobody has taken it");
}

#[test]
fn chan_7_the_last_words_survive_many_other_channels() {
    let mut pair = Pair::new(8);
    let old = joined(&mut pair, 4);
    for _ in 0..1_100 {
        let id = pair.client.end.open("short", OpenFlow::OpenerSends);
        pair.pump();
        let open = pair.server.end.take_incoming().expect("an offer");
        assert!(pair.server.end.accept(&open, Mode::Credit, 1));
        pair.pump();
        pair.client.end.send(id, |half| half.close(CloseReason::plain()));
        pair.pump();
        pair.client.end.take_events();
        pair.server.end.take_events();
    }
    for number in 0..3 {
        put(&pair.client.end, old, number);
    }
    pair.pump();
    assert_eq!(get(&pair.server.end, old), Some(0));
    // The server's end stops; the client closes at the same time and its link breaks before it hears the count.
    pair.client.end.send(old, |half| half.close(CloseReason::plain()));
    pair.server.end.recv(old, |half| half.stop(CloseReason { code: 300, reason: "enough".to_owned() }));
    pair.client.cut_at = Some(pair.client.delivered);
    pair.pump();
    let ended = pair.client.end.ended_senders.borrow();
    let half = ended.get(&old).expect("the client's end is over");
    assert_eq!(half.peer_closed().map(|reason| reason.code), Some(300));
    assert_eq!((half.taken(), half.unsettled()), (1, (2, 0)));
}

#[test]
fn flow_1_a_stalled_receiver_stops_its_sender_and_no_other() {
    let mut pair = Pair::new(9);
    let stalled = joined(&mut pair, 1 << 20);
    let other = joined(&mut pair, 4);
    let mut bytes = 0;
    while pair.client.end.with_send(stalled, |half| half.available()).is_some_and(|free| free > 0) {
        pair.client.end.send(stalled, |half| half.push(|item| item.extend(&[7; 1_000]))).expect("credit");
        bytes += 1_000;
        pair.pump();
    }
    assert!(bytes <= support::endpoint::WINDOW_BYTES + 1_000);
    for number in 0..100 {
        put(&pair.client.end, other, number);
        pair.pump();
        assert_eq!(get(&pair.server.end, other), Some(number));
        pair.pump();
    }
}

#[test]
fn chan_5_long_messages_do_not_hold_up_other_channels() {
    let mut pair = Pair::new(10);
    let (long, short) = (joined(&mut pair, 4), joined(&mut pair, 4));
    pair.client.end.send(long, |half| half.push(|item| item.extend(&value(1, 199_000)))).expect("credit");
    put(&pair.client.end, short, 2);
    // One record of the long one goes ahead, no more.
    pair.server.cut_at = Some(pair.server.delivered + 2 * RECORD_BYTES_MAX as u64);
    let _ = pair.exchange(&mut Slices::Whole).expect("no fault");
    assert_eq!(get(&pair.server.end, short), Some(2));
    pair.pump();
    assert_eq!(get(&pair.server.end, long), Some(1));
}

#[test]
fn chan_10_values_from_a_lost_session_say_so() {
    let mut pair = Pair::new(6);
    let id = pair.client.end.open("again", OpenFlow::OpenerSends);
    pair.pump();
    let open = pair.server.end.take_incoming().expect("offered");
    assert!(pair.server.end.accept(&open, Mode::Credit, 8));
    pair.pump();
    pair.client.end.send(id, |half| {
        for (number, again) in [(0, false), (1, true), (2, true), (3, false), (4, true)] {
            let bytes = value(number, if number == 4 { 70_000 } else { 20 });
            let pushed = if again {
                half.push_redelivered(|item| item.extend(&bytes))
            } else {
                half.push(|item| item.extend(&bytes))
            };
            pushed.expect("there is credit");
        }
    });
    // What the link loses says so as well when it comes again.
    pair.write();
    pair.cut();
    pair.attach();
    pair.pump();
    pair.server.end.recv(id, |half| {
        for (expected, again) in [(0, false), (1, true), (2, true), (3, false), (4, true)] {
            let got = half.take().map(|payload| number(payload.as_slice()));
            assert_eq!((got, half.took_redelivered()), (Some(expected), again));
        }
    });
}
