//! Every failure is specific, says what to try, and says who is at fault.

mod common;

use std::time::Duration;

use common::{Anything, direct, join, memory, pair, within};
use netchan::{
    ChannelOptions, Config, DialError, Fault, HostError, ListenError, OpenError, RecvTimeoutError,
    ReserveError, SendError, SendTimeoutError, TryRecvError, TrySendError, dial, listen_and_serve,
};

fn quick() -> Config {
    let mut config = Config::default();
    config.open_timeout = Duration::from_millis(100);
    config
}

#[track_caller]
fn says(error: &impl std::fmt::Display, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[tokio::test]
async fn a_wrong_ticket_is_not_answered() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let other = listen_and_serve(memory(), Config::default()).await?;
    // The right place with another server's secret; and with no secret at all.
    let foreign = other.ticket().with_addresses(server.addresses().to_vec())?;
    let public = server.ticket().pin_only();
    for ticket in [foreign, public] {
        let error = within("dial", dial(ticket, Config::default())).await.unwrap_err();
        assert!(matches!(error, DialError::ClosedWithoutAnswering { .. }), "{error}");
        says(&error, &["closed without answering", "ticket", "clocks", "identity", "another program"]);
        assert_eq!(error.fault(), Fault::Caller);
    }
    Ok(())
}

#[tokio::test]
async fn servers_that_are_not_there_or_cannot_be() -> Anything {
    let gone = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let ticket = gone.ticket();
    gone.shutdown(Duration::from_secs(1)).await?;
    let error = within("dial", dial(ticket, Config::default())).await.unwrap_err();
    assert!(matches!(&error, DialError::Unreachable { attempts } if attempts.len() == 1), "{error}");
    says(&error, &["127.0.0.1", "check that the server runs"]);
    assert_eq!(error.fault(), Fault::Network);

    for text in ["", "hello", "netchan://", "netchan://localhost:1#AAAA", "http://localhost:1"] {
        let error = dial(text, Config::default()).await.unwrap_err();
        assert!(matches!(error, DialError::Ticket(_)), "{text:?}: {error}");
        assert_eq!(error.fault(), Fault::Caller);
    }
    let mut typo = gone.ticket().to_string();
    let last = if typo.pop() == Some('A') { 'B' } else { 'A' };
    typo.push(last);
    assert!(matches!(dial(typo, Config::default()).await, Err(DialError::Ticket(_))));

    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let taken = server.addresses()[0].to_string();
    let error = listen_and_serve(&taken, Config::default()).await.unwrap_err();
    assert!(matches!(error, ListenError::Listen(_)), "{error}");
    says(&error, &["is taken", "another port"]);
    assert_eq!(error.fault(), Fault::Caller);
    for address in
        ["", "localhost", "localhost:99999", "::1:80", "tcp://", "unix://relative", "carrier-pigeon://x"]
    {
        let error = listen_and_serve(address, Config::default()).await.unwrap_err();
        assert!(!error.to_string().is_empty());
        assert_eq!(error.fault(), Fault::Caller, "{address}");
    }
    Ok(())
}

#[tokio::test]
async fn opening_what_is_not_there_or_different() -> Anything {
    let server = listen_and_serve(memory(), Config::default()).await?;
    let session = dial(server.ticket(), quick()).await?;
    let _sender = server.sender::<u32>("from-server", 1)?;
    let _receiver = server.receiver::<u32>("to-server", 1)?;

    let error = session.receiver::<String>("from-server").await.unwrap_err();
    assert!(
        matches!(&error, OpenError::TypeMismatch { ours, theirs, .. } if ours == "String" && theirs == "u32")
    );
    says(&error, &["from-server", "u32", "String", "same type"]);
    assert_eq!(error.fault(), Some(Fault::Caller));

    let raw = ChannelOptions::raw().label("u32");
    let error = session.receiver_with("from-server", raw).await.unwrap_err();
    assert!(matches!(&error, OpenError::CodecMismatch { .. }), "{error}");
    says(&error, &["postcard/1", "codec"]);

    let error = session.sender::<u32>("from-server").await.unwrap_err();
    assert!(matches!(&error, OpenError::WrongDirection { .. }));
    says(&error, &["open it as a receiver"]);
    let error = session.receiver::<u32>("to-server").await.unwrap_err();
    assert!(matches!(&error, OpenError::WrongDirection { .. }));
    says(&error, &["open it as a sender"]);

    let error = session.sender::<u32>("nowhere").await.unwrap_err();
    assert_eq!(error, OpenError::NotAvailable { name: "nowhere".to_owned() });
    says(&error, &["nowhere", "check the name"]);

    for name in ["", &"x".repeat(256), "with\nbreak"] {
        let error = session.sender::<u32>(name).await.unwrap_err();
        assert!(matches!(&error, OpenError::BadName { .. }), "{error}");
        assert_eq!(error.fault(), Some(Fault::Caller));
        assert!(matches!(server.sender::<u32>(name, 1), Err(HostError::BadName { .. })));
    }
    let taken = server.receiver::<String>("from-server", 1).unwrap_err();
    assert_eq!(taken, HostError::NameTaken("from-server".to_owned()));
    says(&taken, &["from-server", "another name"]);
    assert!(matches!(server.sender::<u32>("huge", usize::MAX), Err(HostError::Capacity(_))));

    let longest = "x".repeat(255);
    let _longest = server.sender::<u32>(&longest, 1)?;
    session.receiver::<u32>(&longest).await?;
    Ok(())
}

#[tokio::test]
async fn offers_declined_refused_and_taken_the_wrong_way() -> Anything {
    let (server, session) = pair().await;
    let opening = tokio::spawn({
        let session = std::sync::Arc::new(session);
        async move {
            let mut errors = Vec::new();
            for name in ["dropped", "refused", "wrong type", "wrong way"] {
                errors.push(session.sender::<u32>(name).await.unwrap_err());
            }
            errors
        }
    });
    let next = async || within("offer", server.recv()).await.unwrap().unwrap();
    drop(next().await);
    next().await.refuse("not today");
    let mismatch = next().await.accept_receiver::<String>(1).await.unwrap_err();
    assert!(matches!(mismatch, OpenError::TypeMismatch { .. }));
    let wrong = next().await.accept_sender::<u32>().await.unwrap_err();
    says(&wrong, &["accept it as a receiver"]);
    let errors = within("errors", opening).await?;
    assert!(matches!(&errors[0], OpenError::Declined { .. }));
    assert!(matches!(&errors[1], OpenError::Declined { reason, .. } if reason == "not today"));
    assert!(matches!(&errors[2], OpenError::TypeMismatch { theirs, .. } if theirs == "String"));
    assert!(matches!(&errors[3], OpenError::WrongDirection { .. }));
    assert_eq!(errors[1].fault(), Some(Fault::Peer));
    Ok(())
}

#[tokio::test]
async fn an_offer_whose_opener_gave_up_has_expired() -> Anything {
    let server = listen_and_serve(memory(), Config::default()).await?;
    let session = dial(server.ticket(), quick()).await?;
    let (opened, offer) = tokio::join!(session.sender::<u32>("late"), server.recv());
    assert!(matches!(opened, Err(OpenError::NotAvailable { .. })));
    let offer = offer?.unwrap();
    // The server knows once it has answered something that came later.
    let _hosted = server.receiver::<u32>("hosted", 1)?;
    session.sender::<u32>("hosted").await?;
    assert!(matches!(offer.accept_receiver::<u32>(1).await, Err(OpenError::Expired { .. })));
    // One that nobody had received does not stay in the queue.
    assert!(session.sender::<u32>("later").await.is_err());
    session.sender::<u32>("hosted").await?;
    assert!(common::poll_and_drop(server.recv(), 3).await.is_none());
    Ok(())
}

#[tokio::test]
async fn limits_of_channels_and_offers() -> Anything {
    let mut config = quick();
    config.limits.channels_max = 4;
    config.limits.offers_pending_max = 2;
    let server = listen_and_serve(memory(), config).await?;
    let session = dial(server.ticket(), quick()).await?;
    let (a, b, c) =
        tokio::join!(session.sender::<u32>("a"), session.sender::<u32>("b"), session.sender::<u32>("c"));
    let limited: Vec<_> = [a, b, c].into_iter().map(Result::unwrap_err).collect();
    assert!(matches!(limited[2], OpenError::LimitReached { .. }), "{}", limited[2]);
    says(&limited[2], &["2 channels wait"]);
    assert_eq!(limited[2].fault(), Some(Fault::Peer));

    let _hosted = server.receiver::<u32>("hosted", 8)?;
    let mut open = Vec::new();
    let error = loop {
        match session.sender::<u32>("hosted").await {
            Ok(sender) => open.push(sender),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, OpenError::LimitReached { .. }), "{error}");
    assert_eq!(open.len(), 4);
    // A channel that is closed makes room.
    open.pop();
    common::eventually("room", || server.clients()[0].channel_count() == 3).await;
    session.sender::<u32>("hosted").await?;

    let mut config = Config::default();
    config.limits.channels_max = 1;
    let small = dial(server.ticket(), config).await?;
    let _one = small.sender::<u32>("hosted").await?;
    let error = small.sender::<u32>("hosted").await.unwrap_err();
    assert!(matches!(error, OpenError::TooMany { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_full_refuses_and_says_so() -> Anything {
    let mut config = Config::default();
    config.limits.sessions_max = 1;
    let server = listen_and_serve(memory(), config).await?;
    let first = join(&server).await;
    let error = dial(server.ticket(), Config::default()).await.unwrap_err();
    assert!(
        matches!(&error, DialError::Refused { code: netchan::RefusalCode::TooManySessions, .. }),
        "{error}"
    );
    assert_eq!(error.fault(), Fault::Peer);
    first.close(common::DEADLINE).await?;
    common::eventually("room", || server.clients().is_empty()).await;
    join(&server).await;
    Ok(())
}

#[tokio::test]
async fn values_come_back() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<String>(&server, &session, 1).await;
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(receiver.recv_timeout(Duration::from_millis(5)).await, Err(RecvTimeoutError::Timeout)));
    sender.send("one".to_owned()).await?;
    assert!(matches!(sender.try_send("two".to_owned()), Err(TrySendError::Full(two)) if two == "two"));
    let timed = sender.send_timeout("two".to_owned(), Duration::from_millis(5)).await;
    assert!(matches!(timed, Err(SendTimeoutError::Timeout(two)) if two == "two"));
    assert!(matches!(sender.try_reserve(), Err(ReserveError::Full)));
    assert!(matches!(sender.reserve_many(2).await, Err(ReserveError::TooMany { places: 2, capacity: 1 })));
    receiver.close_with(netchan::CloseReason::new(300, "enough"));
    assert_eq!(within("closed", sender.closed()).await, netchan::CloseReason::new(300, "enough"));
    let closed = sender.send("two".to_owned()).await.unwrap_err();
    says(&closed, &["300", "enough"]);
    assert!(matches!(closed, SendError::Closed { value, .. } if value == "two"));
    let unsettled: Vec<_> = sender.take_unsettled().into_iter().map(netchan::Unsettled::into_inner).collect();
    assert_eq!(unsettled, ["one"]);
    Ok(())
}
