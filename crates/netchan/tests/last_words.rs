//! Ends around a cut and around a loss: what was said before, what is owed after, and what means nothing any more.

mod common;

use std::pin::Pin;
use std::time::Duration;

use common::killed::{Mortal, until};
use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, within};
use futures_sink::Sink;
use netchan::{
    ChannelOptions, Client, Config, Identity, LossPolicy, OpenError, ReserveError, SendError, Server,
    SessionEnd, SessionEvent, SessionState, Unsettled, dial, listen_and_serve,
};

fn resend() -> ChannelOptions<u32> {
    ChannelOptions::default().on_loss(LossPolicy::Resend)
}

async fn the_client(server: &Server) -> Client {
    eventually("a client", || !server.clients().is_empty()).await;
    server.clients().remove(0)
}

/// A value goes back once: with the error of the send that waits for its fate, and not to whoever asks for what is unsettled.
#[tokio::test]
async fn an_offer_that_is_lost_goes_back_once_whoever_hears_of_it_first() -> Anything {
    for unsettled_first in [false, true] {
        let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
        let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
        let session = dial(proxy.ticket(&server), common::mortal()).await?;
        let (sender, _receiver) = common::direct::<u32>(&server, &session, 0).await;
        let mut send = Box::pin(sender.send(1));
        assert!(common::poll_once(&mut send).await.is_pending());
        within("flush", sender.flush()).await?;
        proxy.cut();
        within("the end", session.ended()).await;
        if unsettled_first {
            assert!(sender.take_unsettled().is_empty());
        }
        let sent = within("the send", send).await;
        assert!(matches!(sent, Err(SendError::InDoubt { value: 1, .. })), "{sent:?}");
        assert!(sender.take_unsettled().is_empty());
    }
    Ok(())
}

/// A send that stops waiting leaves its value to whoever asks for what is unsettled.
#[tokio::test]
async fn a_value_whose_send_was_dropped_is_among_the_unsettled() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), common::mortal()).await?;
    let (sender, _receiver) = common::direct::<u32>(&server, &session, 4).await;
    let mut send = Box::pin(sender.send_acked(1));
    assert!(common::poll_once(&mut send).await.is_pending());
    sender.send(2).await?;
    within("flush", sender.flush()).await?;
    proxy.cut();
    within("the end", session.ended()).await;
    assert_eq!(sender.take_unsettled(), [Unsettled::InDoubt(2)], "the first has its send");
    drop(send);
    assert_eq!(sender.take_unsettled(), [Unsettled::InDoubt(1)]);
    Ok(())
}

#[tokio::test]
async fn events_after_the_end_say_so_and_are_over() -> Anything {
    let (server, session) = common::tcp_pair().await;
    session.close(DEADLINE).await?;
    let mut events = session.events();
    assert_eq!(within("gone", events.recv()).await, Some(SessionEvent::Gone(SessionEnd::ClosedHere)));
    assert_eq!(within("the end", events.recv()).await, None);
    server.shutdown(DEADLINE).await?;
    Ok(())
}

/// A session that is closed while it has no connection says so on the next: the other end sees no fault.
#[tokio::test]
async fn a_close_without_a_connection_arrives_with_the_next() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let (sender, receiver) = common::direct::<u32>(&server, &session, 4).await;
    let mut events = session.events();
    proxy.cut();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    sender.send(1).await?;
    let mut closing = Box::pin(session.close(DEADLINE));
    assert!(common::poll_once(&mut closing).await.is_pending());
    proxy.resume();
    assert_eq!(within("recv", receiver.recv()).await?, Some(1));
    assert_eq!(within("the end", receiver.recv()).await?, None);
    assert!(within("close", closing).await?.is_complete());
    eventually("it has left", || server.clients().is_empty()).await;
    Ok(())
}

/// As before, with nothing to deliver: the farewell alone is worth a connection.
#[tokio::test]
async fn a_farewell_without_a_connection_is_said_on_the_next() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let _opened = common::direct::<u32>(&server, &session, 4).await;
    let (mut events, mut seen) = (session.events(), server.events());
    proxy.cut();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    drop((session, _opened));
    proxy.resume();
    let gone = within("gone", async {
        loop {
            if let SessionEvent::Gone(end) = seen.recv().await.expect("an event").event {
                return end;
            }
        }
    })
    .await;
    assert!(matches!(gone, SessionEnd::ClosedByPeer(_)), "{gone}");
    Ok(())
}

/// The next session numbers its channels anew: what was offered in the last must not answer for another.
#[tokio::test]
async fn an_offer_of_a_lost_session_does_nothing() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let client = the_client(first.server()).await;
    let opening = tokio::spawn(async move { client.sender::<u32>("old").await });
    let stale = within("an offer", session.recv()).await?.expect("an offer");
    assert_eq!(stale.name(), "old");
    first.kill();
    let second = Mortal::start(&address, &identity).await;
    until(&mut events, |event| matches!(event, SessionEvent::Gone(_))).await;
    opening.abort();
    until(&mut events, |event| *event == SessionEvent::Connected).await;
    let client = the_client(second.server()).await;
    let opening = tokio::spawn(async move { client.sender::<u32>("new").await });
    let fresh = within("an offer", session.recv()).await?.expect("an offer");
    assert_eq!(fresh.name(), "new");
    let accepted = stale.accept_receiver::<u32>(4).await;
    assert!(matches!(accepted, Err(OpenError::Expired { .. })), "{accepted:?}");
    let receiver = fresh.accept_receiver::<u32>(4).await?;
    within("opened", opening).await??.send(1).await?;
    assert_eq!(within("recv", receiver.recv()).await?, Some(1));
    Ok(())
}

/// A sender that is dropped after a loss still owes what is to be sent again.
#[tokio::test]
async fn what_is_owed_is_paid_before_the_close() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", 2)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let sender = session.sender_with("values", resend()).await?;
    sender.send(1).await?;
    sender.send(2).await?;
    within("flush", sender.flush()).await?;
    std::mem::forget(values);
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    drop(sender);
    let second = Mortal::start(&address, &identity).await;
    until(&mut events, |event| *event == SessionEvent::Connected).await;
    let values = second.server().receiver::<u32>("values", 1)?;
    let closing = tokio::spawn(async move { session.close(DEADLINE).await });
    for expected in [1, 2] {
        let received = within("recv", values.recv_message()).await?.ok_or("the end")?;
        assert_eq!((received.value, received.redelivered), (expected, true));
    }
    assert!(within("close", closing).await??.is_complete());
    Ok(())
}

/// A lifetime that is over loses the session, not what a channel is to send again.
#[tokio::test]
async fn a_channel_that_goes_on_outlives_the_lifetime_of_its_session() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let values = server.receiver::<u32>("values", 4)?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let mut config = Config::default();
    config.session_lifetime = Duration::from_secs(1);
    let session = dial(proxy.ticket(&server), config).await?;
    let mut events = session.events();
    let sender = session.sender_with("values", resend()).await?;
    sender.send(0).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(0));
    eventually("credit for another", || sender.stats().taken == 1 && sender.capacity() > 0).await;
    proxy.cut();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    sender.send(1).await?;
    let gone = until(&mut events, |event| matches!(event, SessionEvent::Gone(_))).await;
    assert!(gone.to_string().contains("no new connection"), "{gone}");
    assert_eq!(session.state(), SessionState::Suspended);
    proxy.resume();
    until(&mut events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
    assert_eq!(within("recv", values.recv()).await?, Some(1));
    session.close(DEADLINE).await?;
    Ok(())
}

/// Places go with the session in which they were set aside, those of a `Sink` and of a wait for several among them.
#[tokio::test]
async fn places_of_a_lost_session_are_void() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let (many, sunk) =
        (first.server().receiver::<u32>("many", 2)?, first.server().receiver::<u32>("sunk", 2)?);
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let sender = session.sender_with("many", resend()).await?;
    let mut sink = session.sender_with("sunk", resend()).await?;
    sender.send(1).await?;
    let two = tokio::spawn({
        let sender = sender.clone();
        async move { sender.reserve_many(2).await.map(|places| places.len()) }
    });
    eventually("it has one and waits for another", || sender.capacity() == 0).await;
    std::future::poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx)).await?;
    std::mem::forget((many, sunk));
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    let second = Mortal::start(&address, &identity).await;
    let (many, sunk) =
        (second.server().receiver::<u32>("many", 2)?, second.server().receiver::<u32>("sunk", 2)?);
    let reserved = within("both places", two).await?;
    assert!(matches!(reserved, Err(ReserveError::Lost(_))), "{reserved:?}");
    assert_eq!(within("recv", many.recv()).await?, Some(1));
    within("ready", std::future::poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx))).await?;
    Pin::new(&mut sink).start_send(2)?;
    assert_eq!(within("recv", sunk.recv()).await?, Some(2));
    assert_eq!(within("again", sender.reserve_many(2)).await?.len(), 2);
    Ok(())
}

/// What has not left for a client that cannot be reached goes to others at once.
#[tokio::test]
async fn what_has_not_left_for_a_client_goes_to_others() -> Anything {
    const VALUES: usize = 48;
    let mut config = Config::default();
    (config.limits.window_bytes, config.limits.window_bytes_max) = (64 << 20, 64 << 20);
    let server = listen_and_serve("127.0.0.1:0", config.clone()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let away = dial(proxy.ticket(&server), config.clone()).await?;
    let here = dial(server.ticket(), config).await?;
    let tasks = server.sender::<Vec<u8>>("tasks", VALUES)?;
    let options = || ChannelOptions::<Vec<u8>>::default();
    let from = away.receiver_with("tasks", options().prefetch(VALUES)).await?;
    tasks.send(vec![0]).await?;
    eventually("it has the first, and has asked for the others", || from.len() == 1).await;
    proxy.stall();
    // More than the sockets on the way hold.
    for n in 1..VALUES {
        tasks.send(vec![n as u8; 1 << 20]).await?;
    }
    proxy.cut();
    let to = here.receiver_with("tasks", options()).await?;
    let last = within("the last", to.recv()).await?.ok_or("the end")?;
    assert!(last[0] > 0, "what may have left stays with the one it left for");
    let mut next = last[0];
    while usize::from(next) + 1 < VALUES {
        next += 1;
        assert_eq!(within("recv", to.recv()).await?.ok_or("the end")?[0], next);
    }
    Ok(())
}
