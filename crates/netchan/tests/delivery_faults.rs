//! Deliveries when something goes wrong: links, sessions and channels that end at the worst moment, and workers that put off
//! everything.

mod common;

use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, within};
use netchan::{
    AckError, ChannelOptions, Config, Deliveries, Delivery, LossPolicy, SessionEvent, SessionState, dial,
    listen_and_serve,
};

type Options = ChannelOptions<u32>;

/// Passes by itself, after a while.
const SHORT: Duration = Duration::from_millis(50);

/// Long enough not to pass by itself.
const LONG: Duration = Duration::from_secs(3_600);

async fn next(from: &Deliveries<u32>) -> Delivery<u32> {
    within("a delivery", from.recv()).await.expect("no error").expect("not the end")
}

/// A number that was fenced may name another value once everything that was not taken has been given back: that value is not
/// lost with it.
#[tokio::test]
async fn a_number_that_was_fenced_is_given_again() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender_with("tasks", 4, Options::default().delivery_grace(SHORT))?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let away = dial(proxy.ticket(&server), Config::default()).await?;
    let here = dial(server.ticket(), Config::default()).await?;
    let from = within("open", away.deliveries::<u32>("tasks")).await?;
    let mut events = away.events();
    for round in 0..10 {
        let mut waiting = Box::pin(from.recv());
        assert!(common::poll_once(&mut waiting).await.is_pending());
        eventually("the server knows", || server.hosted()[0].receivers == 1).await;
        proxy.stall();
        tasks.send(2 * round).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(waiting);
        proxy.cut();
        let heir = within("open", here.deliveries::<u32>("tasks")).await?;
        let task = next(&heir).await;
        assert_eq!(*task, 2 * round);
        task.ack().await?;
        drop(heir);
        proxy.resume();
        within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
        tasks.send(2 * round + 1).await?;
        let task = next(&from).await;
        assert_eq!(*task, 2 * round + 1, "what is handed out is not skipped");
        task.ack().await?;
    }
    Ok(())
}

/// A worker that takes no more, and still has tasks, is fenced as any other.
#[tokio::test]
async fn the_grace_holds_for_a_worker_that_takes_no_more() -> Anything {
    for (grace, fenced) in [(SHORT, true), (LONG, false)] {
        let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
        let tasks = server.sender_with("tasks", 4, Options::default().delivery_grace(grace))?;
        let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
        let away = dial(proxy.ticket(&server), Config::default()).await?;
        let from = within("open", away.deliveries::<u32>("tasks")).await?;
        tasks.send(1).await?;
        let task = next(&from).await;
        let client = server.clients().remove(0);
        let before = client.channel_count();
        from.close();
        eventually("the channel is closed at both ends", || client.channel_count() < before).await;
        proxy.cut();
        eventually("the server knows", || client.state() == SessionState::Suspended).await;
        if fenced {
            let here = dial(server.ticket(), Config::default()).await?;
            let heir = within("open", here.deliveries::<u32>("tasks")).await?;
            let again = next(&heir).await;
            assert_eq!((*again, again.attempt()), (1, 2));
            again.ack().await?;
        }
        proxy.resume();
        let answer = within("the answer", task.ack()).await;
        assert_eq!(matches!(answer, Err(AckError::Fenced)), fenced, "{answer:?}");
        assert_eq!(answer.is_ok(), !fenced, "{answer:?}");
    }
    Ok(())
}

/// A link that is replaced in good order fences nobody, whatever the grace.
#[tokio::test]
async fn a_new_link_in_good_order_fences_nobody() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender_with("tasks", 64, Options::default().delivery_grace(Duration::ZERO))?;
    let mut config = Config::default();
    config.renew_after = Duration::from_millis(30);
    let session = dial(server.ticket(), config).await?;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    let mut n = 0;
    while session.stats().resumes < 5 {
        tasks.send(n).await?;
        let task = next(&from).await;
        assert_eq!((*task, task.attempt()), (n, 1));
        let before = session.stats().resumes;
        eventually("a new link", || session.stats().resumes > before).await;
        within("the answer", task.ack()).await?;
        n += 1;
    }
    assert_eq!(server.hosted()[0].redelivered, 0);
    session.close(DEADLINE).await?;
    Ok(())
}

/// While the fleet works off what is left, its results have somewhere to go.
#[tokio::test]
async fn a_shutdown_waits_for_results() -> Anything {
    let server = common::serve().await;
    let tasks = server.sender_with("tasks", 8, Options::default())?;
    let results = server.receiver::<u32>("results", 8)?;
    let session = common::join(&server).await;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    let to = within("open", session.sender::<u32>("results")).await?;
    for n in 0..8 {
        tasks.send(n).await?;
    }
    let first = next(&from).await;
    let collecting = tokio::spawn(async move {
        let mut got = Vec::new();
        while let Some(result) = results.recv().await.unwrap() {
            got.push(result);
        }
        got
    });
    let mut shutdown = Box::pin(server.shutdown(DEADLINE));
    assert!(common::poll_once(&mut shutdown).await.is_pending());
    let working = tokio::spawn(async move {
        let mut task = Some(first);
        while let Some(done) = task.take() {
            assert_eq!(done.attempt(), 1);
            let result = *done;
            within("the answer", done.ack_with(&to, result)).await.unwrap();
            task = within("another", from.recv()).await.unwrap();
        }
        drop((from, to, session));
    });
    let report = within("shutdown", shutdown).await?;
    assert!(report.is_complete(), "{report}");
    within("the worker", working).await?;
    assert_eq!(within("the results", collecting).await?, (0..8).collect::<Vec<_>>());
    Ok(())
}

/// Whoever puts off everything is given no more than whoever keeps everything.
#[tokio::test]
async fn what_is_put_off_counts_as_out() -> Anything {
    let server = common::serve().await;
    let tasks = server.sender_with("tasks", 8, Options::default().unacked_max(3))?;
    let session = common::join(&server).await;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    for n in 0..8 {
        tasks.send(n).await?;
    }
    for _ in 0..2 {
        next(&from).await.nack_after(LONG).await?;
    }
    next(&from).await.nack_after(Duration::from_millis(20)).await?;
    let third = next(&from).await;
    assert_eq!((*third, third.attempt()), (2, 2), "two are out, so only this one comes again");
    let mut more = Box::pin(from.recv());
    assert!(common::poll_once(&mut more).await.is_pending());
    third.ack().await?;
    let fourth = within("a delivery", more).await?.ok_or("the end")?;
    assert_eq!(*fourth, 3);
    Ok(())
}

/// Who sent a value is known wherever it goes, even when its sender has left.
#[tokio::test]
async fn a_value_keeps_its_sender_for_as_long_as_it_is_here() -> Anything {
    let server = common::serve().await;
    let (_to, from_here) = server.channel_with("values", 4, Options::default().max_attempts(2))?;
    let dead = server.dead_letters::<u32>("values")?;
    let (sends, works) = (common::join(&server).await, common::join(&server).await);
    let sender = within("open", sends.sender::<u32>("values")).await?;
    let from = within("open", works.deliveries::<u32>("values")).await?;
    sender.send(1).await?;
    sender.send(2).await?;
    let (first, second) = (next(&from).await, next(&from).await);
    within("flush", sender.flush()).await?;
    let who = sends.peer().session_id();
    sends.close(DEADLINE).await?;
    eventually("it has left", || server.clients().len() == 1).await;
    second.nack().await?;
    next(&from).await.nack().await?;
    let (value, peer) = within("a dead letter", dead.recv_from()).await?.ok_or("the end")?;
    assert_eq!((value, peer.session_id()), (2, who), "not this process's");
    drop(from);
    first.nack().await?;
    let (value, peer) = within("it comes again", from_here.recv_from()).await?.ok_or("the end")?;
    assert_eq!((value, peer.session_id()), (1, who), "not this process's");
    Ok(())
}

/// What is dead is not gone with the channel it died in.
#[tokio::test]
async fn dead_letters_outlive_their_channel() -> Anything {
    let server = common::serve().await;
    let tasks = server.sender_with("tasks", 4, Options::default().max_attempts(1))?;
    let session = common::join(&server).await;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    tasks.send(1).await?;
    next(&from).await.nack().await?;
    tasks.close();
    assert!(within("the end", from.recv()).await?.is_none());
    eventually("it is over", || server.hosted().is_empty()).await;
    let dead = server.dead_letters::<u32>("tasks")?;
    assert_eq!(within("a dead letter", dead.recv()).await?, Some(1));
    assert_eq!(within("the end", dead.recv()).await?, None);
    Ok(())
}

/// A name that is taken again hides nothing that is left under it.
#[tokio::test]
async fn a_channel_that_takes_a_name_again_hides_nothing() -> Anything {
    let server = common::serve().await;
    let session = common::join(&server).await;
    let options = || Options::default().max_attempts(1);
    for batch in 0..3 {
        let tasks = server.sender_with("tasks", 4, options())?;
        tasks.send(10 * batch).await?;
        tasks.send(10 * batch + 1).await?;
        tasks.close();
    }
    assert_eq!(server.hosted().len(), 3, "each with what is in it");
    for batch in 0..3 {
        let from = within("open", session.deliveries::<u32>("tasks")).await?;
        let first = next(&from).await;
        assert_eq!(*first, 10 * batch);
        first.nack().await?;
        let second = next(&from).await;
        assert_eq!(*second, 10 * batch + 1);
        second.ack().await?;
        assert!(within("the end", from.recv()).await?.is_none());
    }
    eventually("it is over", || server.hosted().is_empty()).await;
    // The same of dead letters; and as bytes they can be received whatever they were to be.
    let tasks = server.sender_with("tasks", 4, options())?;
    for batch in 0..3 {
        let dead = server.dead_letters_with("tasks", ChannelOptions::raw())?;
        assert_eq!(within("a dead letter", dead.recv()).await?, Some(bytes::Bytes::from(vec![10 * batch])));
        assert_eq!(within("the end", dead.recv()).await?, None);
    }
    tasks.send(7).await?;
    let report = server.shutdown(Duration::from_millis(100)).await?;
    assert_eq!(report.undelivered, 1);
    Ok(())
}

/// A place that was set aside and is let go of after the close holds up nobody.
#[tokio::test]
async fn a_place_that_is_not_used_does_not_keep_a_channel_open() -> Anything {
    let server = common::serve().await;
    let (to, from) = server.channel::<u32>("values", 2)?;
    let place = to.reserve().await?;
    to.send(1).await?;
    to.close();
    assert_eq!(within("recv", from.recv()).await?, Some(1));
    let mut end = Box::pin(from.recv());
    assert!(common::poll_once(&mut end).await.is_pending(), "the place may still be used");
    drop(place);
    assert_eq!(within("the end", end).await?, None);
    Ok(())
}

/// A lifetime that is over loses what a worker held, not the worker.
#[tokio::test]
async fn a_worker_that_goes_on_outlives_the_lifetime_of_its_session() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender::<u32>("tasks", 4)?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let mut config = Config::default();
    config.session_lifetime = Duration::from_secs(1);
    let session = dial(proxy.ticket(&server), config).await?;
    let options = Options::default().on_loss(LossPolicy::Resend);
    let from = within("open", session.deliveries_with("tasks", options)).await?;
    tasks.send(1).await?;
    let held = next(&from).await;
    let mut events = session.events();
    proxy.cut();
    within("gone", async { while !matches!(events.recv().await, Some(SessionEvent::Gone(_))) {} }).await;
    proxy.resume();
    assert!(within("the answer", held.ack()).await.is_err(), "others have it");
    tasks.send(2).await?;
    let mut got = vec![];
    for _ in 0..2 {
        let task = next(&from).await;
        got.push((*task, task.attempt()));
        task.ack().await?;
    }
    assert_eq!(got, [(1, 2), (2, 1)]);
    session.close(DEADLINE).await?;
    Ok(())
}
