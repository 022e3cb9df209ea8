//! Sessions that are truly lost: the server starts anew, a lifetime is over, a limit is reached. What becomes of values and
//! channels then.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::killed::{Mortal, until};
use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, within};
use netchan::{
    ChannelOptions, Config, Identity, LossPolicy, RecvError, SendError, SessionEnd, SessionEvent,
    SessionState, Unsettled, dial, listen_and_serve,
};

#[tokio::test]
async fn a_server_that_starts_anew_has_lost_its_sessions() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", 8)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let sender = session.sender::<u32>("values").await?;
    for n in 0..3 {
        sender.send(n).await?;
        assert_eq!(within("recv", values.recv()).await?, Some(n));
    }
    eventually("taken", || sender.stats().taken == 3).await;
    let before = session.peer().session_id();
    // A killed process drops nothing.
    std::mem::forget(values);
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    assert_eq!(session.state(), SessionState::Suspended);
    // Credit is left: these are committed, and never leave.
    for n in 3..6 {
        sender.send(n).await?;
    }
    let second = Mortal::start(&address, &identity).await;
    let gone = until(&mut events, |event| matches!(event, SessionEvent::Gone(_))).await;
    assert!(matches!(gone, SessionEvent::Gone(SessionEnd::Lost(_))), "{gone}");
    until(&mut events, |event| *event == SessionEvent::Connected).await;
    assert!(matches!(sender.send(9).await, Err(SendError::Lost { value: 9, .. })));
    let mut unsettled = sender.take_unsettled();
    unsettled.sort_by_key(|value| *match value {
        Unsettled::Undelivered(n) | Unsettled::InDoubt(n) => n,
    });
    assert_eq!(unsettled, [Unsettled::Undelivered(3), Unsettled::Undelivered(4), Unsettled::Undelivered(5)]);
    assert!(sender.take_unsettled().is_empty());
    // The same `Session` goes on, as another session.
    session.wait_connected().await?;
    assert_ne!(session.peer().session_id(), before);
    let values = second.server().receiver::<u32>("values", 8)?;
    let sender = session.sender::<u32>("values").await?;
    sender.send(7).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(7));
    session.close(DEADLINE).await?;
    Ok(())
}

/// What arrives at a server whose predecessor was killed while a client sent, by the client's policy.
async fn resent(policy: LossPolicy, capacity: usize) -> Result<Vec<(u32, bool)>, Box<dyn std::error::Error>> {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", capacity)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let options = ChannelOptions::<u32>::default().on_loss(policy);
    let sender = session.sender_with::<u32>("values", options).await?;
    sender.send(0).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(0));
    // These reach the server, and nobody takes them.
    for n in 1..=2 {
        sender.send(n).await?;
    }
    within("flush", sender.flush()).await?;
    // A killed process drops nothing.
    std::mem::forget(values);
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    // This one certainly never leaves, if there is room for it.
    let mut waits_from = 3;
    while sender.try_send(waits_from).is_ok() {
        waits_from += 1;
    }
    assert_eq!(waits_from, if capacity > 2 { 4 } else { 3 });
    // And these wait for credit, whatever becomes of the session.
    let waiting = tokio::spawn(async move {
        for n in waits_from..20 {
            sender.send(n).await.unwrap();
        }
        sender
    });
    let second = Mortal::start(&address, &identity).await;
    until(&mut events, |event| matches!(event, SessionEvent::Gone(_))).await;
    until(&mut events, |event| *event == SessionEvent::Connected).await;
    // The name is hosted a moment later, and the channel waits for it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let values = second.server().receiver::<u32>("values", capacity)?;
    until(&mut events, |event| matches!(event, SessionEvent::Reopened { channel } if channel == "values"))
        .await;
    let mut got = Vec::new();
    while got.last().is_none_or(|(n, _)| *n != 19) {
        let received = within("recv", values.recv_message()).await?.ok_or("the channel has ended")?;
        got.push((received.value, received.redelivered));
    }
    let sender = within("the sends that waited", waiting).await?;
    assert!(sender.take_unsettled().is_empty());
    session.close(DEADLINE).await?;
    Ok(got)
}

#[tokio::test]
async fn resent_values_are_flagged_as_redelivered() -> Anything {
    let expected: Vec<_> = (1..20).map(|n| (n, n <= 2)).collect();
    // With two places, those that are sent again leave none for those that wait.
    for capacity in [2, 4] {
        assert_eq!(resent(LossPolicy::Resend, capacity).await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_may_drop_what_is_in_doubt_and_go_on() -> Anything {
    let expected: Vec<_> = (4..20).map(|n| (n, false)).collect();
    assert_eq!(resent(LossPolicy::Drop, 4).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_receiver_is_opened_again() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let tasks = first.server().sender::<u32>("tasks", 4)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let options = ChannelOptions::<u32>::default().on_loss(LossPolicy::Drop);
    let receiver = session.receiver_with::<u32>("tasks", options).await?;
    let plain = session.receiver::<u32>("tasks").await?;
    tasks.send(1).await?;
    assert_eq!(within("recv", receiver.recv()).await?, Some(1));
    let waiting = tokio::spawn(async move { (receiver.recv().await, receiver) });
    std::mem::forget(tasks);
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    let second = Mortal::start(&address, &identity).await;
    let tasks = second.server().sender::<u32>("tasks", 4)?;
    until(&mut events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
    assert!(matches!(within("recv", plain.recv()).await, Err(RecvError::Lost(SessionEnd::Lost(_)))));
    tasks.send(2).await?;
    let (received, receiver) = within("recv", waiting).await?;
    assert_eq!(received?, Some(2));
    tasks.close();
    assert_eq!(within("the end", receiver.recv()).await?, None);
    session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn sess_18_a_lifetime_that_is_over_splits_what_was_sent() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let mut config = Config::default();
    config.session_lifetime = Duration::from_millis(300);
    let session = dial(proxy.ticket(&server), config).await?;
    let (sender, receiver) = common::direct::<u32>(&server, &session, 8).await;
    for n in 0..4 {
        sender.send(n).await?;
    }
    within("flush", sender.flush()).await?;
    assert_eq!(within("recv", receiver.recv()).await?, Some(0));
    eventually("taken", || sender.stats().taken == 1).await;
    proxy.cut();
    within("suspended", async {
        while session.state() == SessionState::Connected {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    sender.send(4).await?;
    let end = within("the end", session.ended()).await;
    assert!(matches!(end, SessionEnd::Disconnected(_)), "{end}");
    assert_eq!(session.state(), SessionState::Gone(end));
    assert!(session.wait_connected().await.is_err());
    let expected =
        [Unsettled::InDoubt(1), Unsettled::InDoubt(2), Unsettled::InDoubt(3), Unsettled::Undelivered(4)];
    assert_eq!(sender.take_unsettled(), expected);
    Ok(())
}

#[tokio::test]
async fn deadlines_fire_while_a_session_is_suspended() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let (sender, receiver) = common::direct::<u32>(&server, &session, 0).await;
    let mut events = session.events();
    proxy.cut();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    // It never left: the value is back, for certain.
    let timeout = sender.send_timeout(1, Duration::from_millis(20)).await;
    assert!(matches!(timeout, Err(netchan::SendTimeoutError::Timeout(1))), "{timeout:?}");
    proxy.resume();
    until(&mut events, |event| *event == SessionEvent::Resumed).await;
    let sending = tokio::spawn(async move { sender.send(2).await });
    assert_eq!(within("recv", receiver.recv()).await?, Some(2), "the first was not sent");
    within("send", sending).await??;
    Ok(())
}

#[tokio::test]
async fn limits_on_suspended_sessions_are_told_to_the_client() -> Anything {
    let mut config = Config::default();
    config.limits.suspended_per_identity_max = 1;
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let mine = Config::with_identity(Identity::generate());
    let sessions =
        [dial(proxy.ticket(&server), mine.clone()).await?, dial(proxy.ticket(&server), mine).await?];
    let _values = server.receiver::<u32>("values", 1)?;
    for session in &sessions {
        // Both ends have confirmed it by then.
        within("open", session.sender::<u32>("values")).await?;
    }
    let mut events = sessions.each_ref().map(|session| session.events());
    proxy.cut();
    eventually("one is kept", || server.clients().len() == 1).await;
    proxy.resume();
    let mut told = Vec::new();
    for events in &mut events {
        let event =
            until(events, |event| matches!(event, SessionEvent::Resumed | SessionEvent::Gone(_))).await;
        told.push(event.to_string());
    }
    told.sort();
    assert!(told[0].starts_with("gone") && told[0].contains("suspended_per_identity_max"), "{told:?}");
    assert_eq!(told[1], "resumed");
    Ok(())
}

#[tokio::test]
async fn a_client_that_cannot_be_reached_holds_up_nobody() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let (tasks, results) = (server.sender::<u32>("tasks", 8)?, server.receiver::<u32>("results", 2)?);
    let away = dial(proxy.ticket(&server), Config::default()).await?;
    let here = dial(server.ticket(), Config::default()).await?;
    let held = away.sender::<u32>("results").await?;
    // It holds all the credit there is, and waits for a task before anyone else.
    held.send(0).await?;
    assert_eq!(within("recv", results.recv()).await?, Some(0));
    let places = within("both places", held.reserve_many(2)).await?;
    let from = Arc::new(away.receiver::<u32>("tasks").await?);
    let waiting = tokio::spawn({
        let from = Arc::clone(&from);
        async move { from.recv().await }
    });
    eventually("it waits", || from.stats().waiting == 1).await;
    let mut events = away.events();
    proxy.cut();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    eventually("the server knows", || {
        server.clients().iter().any(|client| client.state() == SessionState::Suspended)
    })
    .await;
    let (to, task) = (here.sender::<u32>("results").await?, here.receiver::<u32>("tasks").await?);
    within("send", to.send(1)).await?;
    assert_eq!(within("recv", results.recv()).await?, Some(1));
    tasks.send(2).await?;
    assert_eq!(within("recv", task.recv()).await?, Some(2));
    proxy.resume();
    until(&mut events, |event| *event == SessionEvent::Resumed).await;
    // It is in line again, and its places are still its own.
    tasks.send(3).await?;
    assert_eq!(within("recv", waiting).await??, Some(3));
    for (n, place) in places.enumerate() {
        place.send(10 + n as u32)?;
    }
    assert_eq!(within("recv", results.recv()).await?, Some(10));
    assert_eq!(within("recv", results.recv()).await?, Some(11));
    Ok(())
}

/// Whatever is under way on a channel when its session is lost has an outcome, even if the channel goes on.
#[tokio::test]
async fn what_is_under_way_at_a_loss_has_an_outcome() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let (values, meet) =
        (first.server().receiver::<u32>("values", 4)?, first.server().receiver::<u32>("meet", 0)?);
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let options = || ChannelOptions::<u32>::default().on_loss(LossPolicy::Resend);
    let sender = session.sender_with::<u32>("values", options()).await?;
    let meeting = session.sender_with::<u32>("meet", options()).await?;
    sender.send(1).await?;
    sender.flush().await?;
    let place = sender.reserve().await?;
    std::mem::forget((values, meet));
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    sender.send(2).await?;
    let acked = {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send_acked(3).await })
    };
    let flushed = {
        let sender = sender.clone();
        tokio::spawn(async move { sender.flush().await })
    };
    let offered = {
        let meeting = meeting.clone();
        tokio::spawn(async move { meeting.send(4).await })
    };
    // Opened while there is no connection: it is asked for again in the session that follows.
    let opening = session.sender::<u32>("later");
    let second = Mortal::start(&address, &identity).await;
    let values = second.server().receiver::<u32>("values", 4)?;
    let meet = second.server().receiver::<u32>("meet", 0)?;
    let later = second.server().receiver::<u32>("later", 4)?;
    let opened = within("the open", opening).await?;
    let acked = within("acked", acked).await?;
    assert!(matches!(acked, Err(SendError::InDoubt { value: 3, .. })), "{acked:?}");
    let flushed = within("flushed", flushed).await?;
    assert!(matches!(flushed, Err(netchan::FlushError::Lost(_))), "{flushed:?}");
    let offered = within("offered", offered).await?;
    assert!(matches!(offered, Err(SendError::Lost { value: 4, .. })), "it never left: {offered:?}");
    assert!(matches!(place.send(9), Err(SendError::Lost { value: 9, .. })), "its place is void");
    for expected in [(1, true), (2, false), (3, false)] {
        let received = within("recv", values.recv_message()).await?.ok_or("the end")?;
        assert_eq!((received.value, received.redelivered), expected);
    }
    opened.send(5).await?;
    assert_eq!(within("recv", later.recv()).await?, Some(5));
    let sending = tokio::spawn(async move { meeting.send(6).await });
    assert_eq!(within("recv", meet.recv()).await?, Some(6), "what came back is its sender's business");
    within("send", sending).await??;
    sender.send(7).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(7));
    session.close(DEADLINE).await?;
    Ok(())
}

/// A server that declines what it does not host yet is asked again.
#[tokio::test]
async fn a_name_that_is_declined_at_first_is_asked_for_again() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", 4)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let options = ChannelOptions::<u32>::default().on_loss(LossPolicy::Resend);
    let sender = session.sender_with::<u32>("values", options).await?;
    std::mem::forget(values);
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    let sending = tokio::spawn(async move { sender.send(1).await });
    let second = Mortal::start(&address, &identity).await;
    for _ in 0..2 {
        let offer = within("it is asked for", second.server().recv()).await?.ok_or("the end")?;
        assert_eq!(offer.name(), "values");
        offer.refuse("not yet");
    }
    let values = second.server().receiver::<u32>("values", 4)?;
    until(&mut events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
    assert_eq!(within("recv", values.recv()).await?, Some(1));
    within("send", sending).await??;
    session.close(DEADLINE).await?;
    Ok(())
}

/// A worker goes on with a server that started anew; what it held of the old one is nobody's any more.
#[tokio::test]
async fn deliveries_go_on_where_their_policy_says_so() -> Anything {
    for policy in [LossPolicy::Fail, LossPolicy::Resend] {
        let identity = Identity::generate();
        let first = Mortal::start(&common::own_address(), &identity).await;
        let address = first.address();
        let tasks = first.server().sender::<u32>("tasks", 4)?;
        let session = dial(first.server().ticket(), Config::default()).await?;
        let options = ChannelOptions::<u32>::default().on_loss(policy);
        let from = session.deliveries_with("tasks", options).await?;
        tasks.send(1).await?;
        let held = within("a delivery", from.recv()).await?.ok_or("the end")?;
        let waiting = tokio::spawn({
            let from = from.clone();
            async move { from.recv().await.map(|task| task.map(|task| (*task, task))) }
        });
        std::mem::forget(tasks);
        first.kill();
        let second = Mortal::start(&address, &identity).await;
        assert!(within("the answer", held.ack()).await.is_err());
        if policy == LossPolicy::Fail {
            let received = within("the loss", waiting).await?;
            assert!(matches!(received, Err(RecvError::Lost(_))), "{:?}", received.map(|_| ()));
            continue;
        }
        // The name is hosted a moment later.
        session.wait_connected().await?;
        let tasks = second.server().sender::<u32>("tasks", 4)?;
        tasks.send(2).await?;
        let (value, task) = within("a delivery", waiting).await??.ok_or("the end")?;
        assert_eq!((value, task.attempt()), (2, 1));
        within("the answer", task.ack()).await?;
        tasks.close();
        assert!(within("the end", from.recv()).await?.is_none());
        session.close(DEADLINE).await?;
    }
    Ok(())
}
