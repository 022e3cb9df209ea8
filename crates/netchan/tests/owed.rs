//! What is owed from a session that was lost, and channels that wait to be opened again: what may happen to them meanwhile.

mod common;

use std::time::Duration;

use common::killed::{Mortal, until};
use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, within};
use futures_util::future::join_all;
use netchan::{
    ChannelOptions, Config, Events, Identity, LossPolicy, SendError, SendTimeoutError, Sender, Session,
    SessionEnd, SessionEvent, Unsettled, dial, listen_and_serve,
};

fn on_loss(policy: LossPolicy) -> ChannelOptions<u32> {
    ChannelOptions::default().on_loss(policy)
}

/// A client of a server that was killed with `count` values from 0 on that have arrived and that nobody took.
struct Owing {
    identity: Identity,
    address: String,
    session: Session,
    events: Events<SessionEvent>,
    sender: Sender<u32>,
}

async fn owing(count: u32) -> Owing {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", count as usize).unwrap();
    let session = dial(first.server().ticket(), Config::default()).await.unwrap();
    let mut events = session.events();
    let sender = session.sender_with("values", on_loss(LossPolicy::Resend)).await.unwrap();
    for n in 0..count {
        sender.send(n).await.unwrap();
    }
    within("flush", sender.flush()).await.unwrap();
    // A killed process drops nothing.
    std::mem::forget(values);
    first.kill();
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    Owing { identity, address, session, events, sender }
}

impl Owing {
    /// The server starts anew, and the client has a session with it.
    async fn restart(&mut self) -> Mortal {
        let server = Mortal::start(&self.address, &self.identity).await;
        until(&mut self.events, |event| *event == SessionEvent::Connected).await;
        server
    }

    async fn reopened(&mut self) {
        until(&mut self.events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
    }
}

#[tokio::test]
async fn a_send_that_leaves_does_not_call_off_what_is_owed() -> Anything {
    let mut owing = owing(2).await;
    let second = Mortal::start(&owing.address, &owing.identity).await;
    // There is no place left for what is owed.
    let (to, values) = second.server().channel::<u32>("values", 2)?;
    to.send(10).await?;
    to.send(11).await?;
    owing.reopened().await;
    let sent = owing.sender.send_timeout(9, Duration::from_millis(50)).await;
    assert!(matches!(sent, Err(SendTimeoutError::Timeout(9))), "{sent:?}");
    for expected in [10, 11, 0, 1] {
        assert_eq!(within("recv", values.recv()).await?, Some(expected));
    }
    owing.session.close(DEADLINE).await?;
    Ok(())
}

/// A new session counts its values anew.
#[tokio::test]
async fn a_flush_after_a_loss_waits_for_what_is_owed() -> Anything {
    let mut owing = owing(4).await;
    let second = owing.restart().await;
    let sender = owing.sender.clone();
    let mut flush = Box::pin(sender.flush());
    assert!(common::poll_once(&mut flush).await.is_pending(), "nobody hosts the channel");
    let values = second.server().receiver::<u32>("values", 2)?;
    owing.reopened().await;
    for expected in 0..2 {
        assert!(common::poll_once(&mut flush).await.is_pending(), "there are places for two");
        assert_eq!(within("recv", values.recv()).await?, Some(expected));
    }
    within("flush", flush).await?;
    assert_eq!(sender.stats().received, 4);
    owing.session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn a_send_that_was_in_doubt_is_not_given_back_once_more() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", 4)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let sender = session.sender_with("values", on_loss(LossPolicy::Resend)).await?;
    let acked = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send_acked(1).await }
    });
    common::eventually("the first is on its way", || sender.stats().sent == 1).await;
    sender.send(2).await?;
    within("flush", sender.flush()).await?;
    std::mem::forget(values);
    first.kill();
    let second = Mortal::start(&address, &identity).await;
    let _values = second.server().receiver::<u32>("values", 4)?;
    let outcome = within("its outcome", acked).await?;
    assert!(matches!(outcome, Err(SendError::InDoubt { value: 1, .. })), "{outcome:?}");
    until(&mut events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
    common::eventually("both are sent again", || sender.stats().sent == 2).await;
    session.close(Duration::ZERO).await?;
    assert_eq!(sender.take_unsettled(), [Unsettled::InDoubt(2)]);
    Ok(())
}

/// Who gives back a value whose send waited through the loss of its session, and then through that of the next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum GivenBack {
    /// The send was dropped.
    Dropped,
    /// The send was asked.
    Asked,
    /// The send was still there when the others were handed out, and dropped afterwards.
    DroppedLast,
}

#[tokio::test]
async fn a_send_that_waits_through_two_sessions_keeps_its_claim() -> Anything {
    // There is a place for the value in the second session, or it is still owed when that ends.
    for (places, how) in [1, 0].into_iter().flat_map(|places| {
        [GivenBack::Dropped, GivenBack::Asked, GivenBack::DroppedLast].map(|how| (places, how))
    }) {
        let identity = Identity::generate();
        let first = Mortal::start(&common::own_address(), &identity).await;
        let address = first.address();
        let values = first.server().receiver::<u32>("values", 4)?;
        let session = dial(first.server().ticket(), Config::default()).await?;
        let mut events = session.events();
        let sender = session.sender_with("values", on_loss(LossPolicy::Resend)).await?;
        // With credit, the send commits its value when it is first asked.
        drop(within("credit", sender.reserve()).await?);
        let mut acked = Box::pin(sender.send_acked(1));
        assert!(common::poll_once(&mut acked).await.is_pending());
        assert_eq!(sender.stats().sent, 1);
        sender.send(2).await?;
        within("flush", sender.flush()).await?;
        std::mem::forget(values);
        first.kill();
        let second = Mortal::start(&address, &identity).await;
        let (to, _values) = second.server().channel::<u32>("values", 2)?;
        for n in places..2 {
            to.send(u32::try_from(n)?).await?;
        }
        until(&mut events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
        common::eventually("what there is a place for is sent again", || sender.stats().sent == places).await;
        session.close(Duration::ZERO).await?;
        let (own, other) = (Unsettled::InDoubt(1), Unsettled::InDoubt(2));
        let context = format!("{places} places, {how:?}");
        match how {
            GivenBack::Dropped => {
                drop(acked);
                assert_eq!(sender.take_unsettled(), [own, other], "{context}");
            }
            GivenBack::Asked => {
                assert_eq!(sender.take_unsettled(), [other], "{context}");
                let outcome = within("its outcome", acked).await;
                assert!(
                    matches!(outcome, Err(SendError::InDoubt { value: 1, .. })),
                    "{context}: {outcome:?}"
                );
            }
            GivenBack::DroppedLast => {
                assert_eq!(sender.take_unsettled(), [other], "{context}");
                drop(acked);
                assert_eq!(sender.take_unsettled(), [own], "{context}");
            }
        }
        assert_eq!(sender.take_unsettled(), [], "{context}");
    }
    Ok(())
}

/// A server that keeps crashing: what a program does between two sessions is not forgotten with them.
#[tokio::test]
async fn a_channel_that_was_touched_between_two_losses_is_written_again() -> Anything {
    let mut owing = owing(2).await;
    let second = owing.restart().await;
    second.kill();
    until(&mut owing.events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    owing.sender.close();
    let third = Mortal::start(&owing.address, &owing.identity).await;
    let values = third.server().receiver::<u32>("values", 4)?;
    owing.reopened().await;
    for expected in 0..2 {
        assert_eq!(within("recv", values.recv()).await?, Some(expected));
    }
    let report = within("close", owing.session.close(Duration::MAX)).await?;
    assert!(report.is_complete(), "{report}");
    Ok(())
}

/// A receiving end that is given up does not keep its session waiting for a channel that nobody wants.
#[tokio::test]
async fn a_receiver_that_holds_values_of_a_lost_session_may_be_given_up() -> Anything {
    for close_first in [false, true] {
        let identity = Identity::generate();
        let first = Mortal::start(&common::own_address(), &identity).await;
        let address = first.address();
        let session = dial(first.server().ticket(), Config::default()).await?;
        let mut events = session.events();
        let opening = async { session.receiver_with("direct", on_loss(LossPolicy::Drop).capacity(4)).await };
        let accepting = async { first.server().recv().await.unwrap().unwrap().accept_sender::<u32>().await };
        let (receiver, sender) = within("open", async { tokio::join!(opening, accepting) }).await;
        let (receiver, sender) = (receiver?, sender?);
        sender.send(1).await?;
        common::eventually("it is here", || receiver.len() == 1).await;
        std::mem::forget(sender);
        first.kill();
        let _second = Mortal::start(&address, &identity).await;
        until(&mut events, |event| *event == SessionEvent::Connected).await;
        if close_first {
            receiver.close();
            _ = within("recv", receiver.recv()).await?;
        }
        drop(receiver);
        within("close", session.close(Duration::MAX)).await?;
    }
    Ok(())
}

/// A link that is to replace one in good order may come to nothing at any byte: the session had a cut long ago, and its
/// lifetime does not count from there.
#[tokio::test]
async fn a_replacement_that_comes_to_nothing_ends_no_session() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let whole = {
        let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
        let session = dial(proxy.ticket(&server), Config::default()).await?;
        session.close(DEADLINE).await?;
        proxy.sent_down().len()
    };
    let scenes = (0..whole).step_by(16).map(|place| {
        let server = &server;
        async move {
            let proxy = Proxy::start_with_fault_at(server, Fault::None, Fault::Cut(place), 2).await;
            let mut config = Config::default();
            config.session_lifetime = Duration::from_secs(4);
            config.renew_after = Duration::from_secs(5);
            let session = dial(proxy.ticket(server), config).await.unwrap();
            let mut events = session.events();
            proxy.cut_now();
            until(&mut events, |event| *event == SessionEvent::Resumed).await;
            common::eventually("a fourth connection, or a third that was whole", || {
                proxy.connections() > 3 || session.stats().resumes == 2
            })
            .await;
            within("connected", session.wait_connected()).await.unwrap();
            let before = session.peer().session_id();
            session.close(DEADLINE).await.unwrap();
            while let Some(event) = events.recv().await {
                let ended =
                    matches!(event, SessionEvent::Gone(SessionEnd::Lost(_) | SessionEnd::Disconnected(_)));
                assert!(!ended, "cut at {place}: {event}");
            }
            assert_eq!(session.peer().session_id(), before, "cut at {place}");
        }
    });
    join_all(scenes).await;
    Ok(())
}

/// Nothing is looked for one by one among the others.
#[tokio::test]
async fn thousands_of_channels_are_opened_again_and_closed() -> Anything {
    const CHANNELS: usize = 8_000;
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let values = first.server().receiver::<u32>("values", 4)?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let openings = (0..CHANNELS).map(|_| session.sender_with("values", on_loss(LossPolicy::Resend)));
    let senders = within("open", join_all(openings)).await;
    std::mem::forget(values);
    first.kill();
    let second = Mortal::start(&address, &identity).await;
    let _values = second.server().receiver::<u32>("values", 4)?;
    common::eventually("all are there again", || {
        second.server().clients().first().is_some_and(|client| client.channels().len() == CHANNELS)
    })
    .await;
    let report = within("close", session.close(Duration::MAX)).await?;
    assert!(report.is_complete(), "{report}");
    assert!(senders.iter().flatten().all(Sender::is_closed));
    assert_eq!(senders.iter().flatten().count(), CHANNELS);
    Ok(())
}
