//! Deliveries: acknowledged, given back, fenced, dead.

mod common;

use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, poll_and_drop, within};
use netchan::{
    AckError, ChannelOptions, Config, Deliveries, Delivery, Receiver, RecvError, Sender, Server, Session,
    SessionEvent, dial, listen_and_serve,
};

type Options = ChannelOptions<u32>;

/// Long enough not to pass by itself.
const LONG: Duration = Duration::from_secs(3_600);

struct Fleet {
    server: Server,
    session: Session,
    tasks: Sender<u32>,
    results: Receiver<u32>,
    from: Deliveries<u32>,
    to: Sender<u32>,
}

async fn fleet(options: Options) -> Result<Fleet, Box<dyn std::error::Error>> {
    let server = common::serve().await;
    let tasks = server.sender_with("tasks", 4, options)?;
    let results = server.receiver("results", 4)?;
    let session = common::join(&server).await;
    let (from, to) = worker(&session).await?;
    Ok(Fleet { server, session, tasks, results, from, to })
}

async fn worker(session: &Session) -> Result<(Deliveries<u32>, Sender<u32>), Box<dyn std::error::Error>> {
    Ok((within("open", session.deliveries("tasks")).await?, within("open", session.sender("results")).await?))
}

async fn next(from: &Deliveries<u32>) -> Delivery<u32> {
    within("a delivery", from.recv()).await.expect("no error").expect("not the end")
}

#[tokio::test]
async fn what_is_acknowledged_is_done_and_what_is_given_back_comes_again() -> Anything {
    let fleet = fleet(Options::default()).await?;
    let Fleet { server, tasks, from, .. } = &fleet;
    for n in 0..4 {
        tasks.send(n).await?;
    }
    let (first, second, third) = (next(from).await, next(from).await, next(from).await);
    assert_eq!((*first, *second, *third), (0, 1, 2));
    assert_eq!((first.attempt(), first.redelivered()), (1, false));
    let channels = server.clients()[0].channels();
    let seen: Vec<_> =
        channels.iter().map(|channel| (&*channel.name, channel.unacked + channel.depth)).collect();
    assert_eq!(seen, [("results", 0), ("tasks", 3)], "and none that a program did not open");
    first.ack().await?;
    second.nack_after(Duration::ZERO).await?;
    eventually("it is back", || server.hosted().iter().any(|hosted| hosted.depth == 2)).await;
    let again = next(from).await;
    assert_eq!((*again, again.attempt(), again.redelivered()), (1, 2, true), "from the head of the queue");
    drop(again);
    let fourth = next(from).await;
    assert_eq!(*fourth, 3, "what is given back without a word rests");
    let again = next(from).await;
    assert_eq!((*again, again.attempt()), (1, 3));
    let (value, receipt) = again.into_parts();
    assert_eq!(value, 1);
    receipt.ack().await?;
    third.nack_after(Duration::from_millis(30)).await?;
    fourth.ack().await?;
    let third = next(from).await;
    assert_eq!((*third, third.attempt()), (2, 2));
    tasks.close();
    let mut end = Box::pin(from.recv());
    assert!(common::poll_once(&mut end).await.is_pending());
    third.ack().await?;
    assert!(within("the end", end).await?.is_none(), "only then was everything done");
    let client = server.clients().remove(0);
    let Fleet { server: _server, session, to: _to, from, .. } = fleet;
    drop(from);
    eventually("the subscription is gone", || client.channel_count() == 1).await;
    assert!(session.close(DEADLINE).await?.is_complete());
    Ok(())
}

#[tokio::test]
async fn a_result_and_its_acknowledgement_are_one() -> Anything {
    let fleet = fleet(Options::default()).await?;
    let Fleet { server, session, tasks, results, from, to } = &fleet;
    for n in 0..4 {
        tasks.send(n).await?;
    }
    next(from).await.ack_with(to, 10).await?;
    let (value, peer) = within("a result", results.recv_from()).await?.ok_or("the end")?;
    assert_eq!(value, 10);
    let known: Vec<_> = server.clients().iter().map(|client| client.peer().session_id()).collect();
    assert_eq!(known, [peer.session_id()], "it is the worker's");
    // Where there is no channel for it, neither is done, and the result comes back.
    let meet = server.receiver::<u32>("meet", 0)?;
    let meeting = session.sender::<u32>("meet").await?;
    let refused = next(from).await.ack_with(&meeting, 11).await.unwrap_err();
    assert_eq!(refused.value, 11);
    assert!(matches!(refused.reason, AckError::NoResults), "{refused}");
    drop((meet, meeting));
    let other = common::join(server).await;
    let elsewhere = other.sender::<u32>("results").await?;
    let second = next(from).await;
    assert_eq!((*second, second.attempt()), (2, 1), "what was refused rests");
    let refused = second.ack_with(&elsewhere, 12).await.unwrap_err();
    assert!(matches!(refused.reason, AckError::NoResults), "{refused}");
    results.close();
    let third = next(from).await;
    assert_eq!((*third, third.attempt()), (3, 1));
    let refused = third.ack_with(to, 13).await.unwrap_err();
    assert!(matches!(refused.reason, AckError::ResultsClosed | AckError::NoResults), "{refused}");
    let mut again = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let task = next(from).await;
        again.insert((*task, task.attempt()));
        task.ack().await?;
    }
    assert_eq!(again, [(1, 2), (2, 2), (3, 2)].into());
    Ok(())
}

/// The capacity law holds for results that come with acknowledgements.
#[tokio::test]
async fn a_result_waits_for_its_place() -> Anything {
    let fleet = fleet(Options::default()).await?;
    let Fleet { tasks, results, from, to, .. } = &fleet;
    for n in 0..4 {
        to.send(n).await?;
    }
    tasks.send(7).await?;
    let task = next(from).await;
    let mut acking = Box::pin(task.ack_with(to, 70));
    assert!(common::poll_once(&mut acking).await.is_pending());
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(common::poll_once(&mut acking).await.is_pending());
    assert_eq!(within("recv", results.recv()).await?, Some(0));
    within("the acknowledgement", acking).await?;
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.extend(within("recv", results.recv()).await?);
    }
    assert_eq!(rest, [1, 2, 3, 70]);
    Ok(())
}

/// Results of one worker come in the order in which it gave them, however long each has to wait for its place.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_one_worker_keep_their_order() -> Anything {
    let fleet = fleet(Options::default()).await?;
    let Fleet { tasks, results, from, to, .. } = &fleet;
    let feeding = tokio::spawn({
        let tasks = tasks.clone();
        async move {
            for n in 0..500 {
                tasks.send(n).await.unwrap();
            }
            tasks.close();
        }
    });
    let working = async {
        let mut under_way = std::collections::VecDeque::new();
        while let Some(task) = from.recv().await.unwrap() {
            let value = *task;
            under_way.push_back(task.ack_with(to, value));
            if under_way.len() > 6 {
                under_way.pop_front().unwrap().await.unwrap();
            }
        }
        for acknowledging in under_way {
            acknowledging.await.unwrap();
        }
    };
    let collecting = async {
        for expected in 0..500 {
            assert_eq!(results.recv().await.unwrap(), Some(expected));
            if expected % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    within("all of it", async { tokio::join!(working, collecting) }).await;
    feeding.await?;
    Ok(())
}

/// A server behind a proxy, and a worker behind that and another beside it.
struct Apart {
    proxy: Proxy,
    server: Server,
    tasks: Sender<u32>,
    results: Receiver<u32>,
    away: Session,
    here: Session,
}

async fn apart(options: Options) -> Result<Apart, Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender_with("tasks", 4, options)?;
    let results = server.receiver("results", 4)?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let away = dial(proxy.ticket(&server), Config::default()).await?;
    let here = dial(server.ticket(), Config::default()).await?;
    Ok(Apart { proxy, server, tasks, results, away, here })
}

#[tokio::test]
async fn a_holder_that_is_away_for_too_long_is_fenced_and_told_so() -> Anything {
    let apart = apart(Options::default().delivery_grace(Duration::from_millis(50))).await?;
    let (from, to) = worker(&apart.away).await?;
    apart.tasks.send(1).await?;
    apart.tasks.send(2).await?;
    let (first, second) = (next(&from).await, next(&from).await);
    let mut events = apart.away.events();
    apart.proxy.cut();
    let (from_here, to_here) = worker(&apart.here).await?;
    let task = next(&from_here).await;
    assert_eq!((*task, task.attempt(), task.redelivered()), (1, 2, true));
    task.ack_with(&to_here, 10).await?;
    apart.proxy.resume();
    let resumed = |event| matches!(event, Some(SessionEvent::Resumed));
    within("resumed", async { while !resumed(events.recv().await) {} }).await;
    let late = within("the answer", first.ack_with(&to, 11)).await.unwrap_err();
    assert!(matches!(late.reason, AckError::Fenced), "{late}");
    let late = within("the answer", second.ack()).await.unwrap_err();
    assert!(matches!(late, AckError::Fenced), "{late}");
    let task = next(&from_here).await;
    assert_eq!((*task, task.attempt()), (2, 2));
    task.ack_with(&to_here, 20).await?;
    let got = [within("recv", apart.results.recv()).await?, within("recv", apart.results.recv()).await?];
    assert_eq!(got, [Some(10), Some(20)], "no result twice");
    assert_eq!(apart.results.len(), 0);
    // It goes on to work.
    drop(from_here);
    apart.tasks.send(3).await?;
    next(&from).await.ack_with(&to, 30).await?;
    assert_eq!(within("recv", apart.results.recv()).await?, Some(30));
    drop(apart.server);
    Ok(())
}

#[tokio::test]
async fn a_cut_that_is_shorter_than_the_grace_changes_nothing() -> Anything {
    let apart = apart(Options::default().delivery_grace(LONG)).await?;
    let (from, to) = worker(&apart.away).await?;
    for round in 0..10 {
        apart.tasks.send(round).await?;
        let task = next(&from).await;
        assert_eq!((*task, task.attempt()), (round, 1));
        apart.proxy.cut_now();
        within("the answer", task.ack_with(&to, round)).await?;
        assert_eq!(within("recv", apart.results.recv()).await?, Some(round));
    }
    Ok(())
}

#[tokio::test]
async fn an_extension_outlasts_the_grace() -> Anything {
    let apart = apart(Options::default().delivery_grace(Duration::from_millis(20))).await?;
    let (from, to) = worker(&apart.away).await?;
    apart.tasks.send(1).await?;
    apart.tasks.send(2).await?;
    let (first, second) = (next(&from).await, next(&from).await);
    within("extended", first.extend(LONG)).await?;
    apart.proxy.cut();
    let (from_here, _) = worker(&apart.here).await?;
    let task = next(&from_here).await;
    assert_eq!((*task, task.attempt()), (2, 2), "the other was fenced");
    task.ack().await?;
    apart.proxy.resume();
    within("the answer", first.ack_with(&to, 1)).await?;
    assert!(matches!(within("the answer", second.ack()).await, Err(AckError::Fenced)));
    Ok(())
}

/// What had arrived, but was not received before another got it, is not handed to anyone here.
#[tokio::test]
async fn what_was_fenced_before_it_was_received_is_skipped() -> Anything {
    let apart = apart(Options::default().delivery_grace(Duration::from_millis(20))).await?;
    let options = Options::default().prefetch(4);
    let from = within("open", apart.away.deliveries_with("tasks", options)).await?;
    for n in 0..3 {
        apart.tasks.send(n).await?;
    }
    let first = next(&from).await;
    assert_eq!(*first, 0);
    let mut events = apart.away.events();
    apart.proxy.cut();
    let (from_here, _) = worker(&apart.here).await?;
    for expected in 0..3 {
        let task = next(&from_here).await;
        assert_eq!((*task, task.attempt()), (expected, 2));
        task.ack().await?;
    }
    drop(from_here);
    apart.proxy.resume();
    within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    assert!(matches!(within("the answer", first.ack()).await, Err(AckError::Fenced)));
    apart.tasks.send(3).await?;
    let task = next(&from).await;
    assert_eq!((*task, task.attempt()), (3, 1));
    task.ack().await?;
    Ok(())
}

#[tokio::test]
async fn no_more_is_out_than_may_be() -> Anything {
    let fleet = fleet(Options::default().unacked_max(2)).await?;
    let Fleet { tasks, from, session, .. } = &fleet;
    for n in 0..4 {
        tasks.send(n).await?;
    }
    let (first, second) = (next(from).await, next(from).await);
    let mut third = Box::pin(from.recv());
    assert!(common::poll_once(&mut third).await.is_pending());
    // Everything that was under way has arrived once this has.
    let (_, offered) = tokio::join!(session.sender::<u32>("results"), async {});
    let () = offered;
    assert!(common::poll_once(&mut third).await.is_pending());
    second.ack().await?;
    let third = within("the third", third).await?.ok_or("the end")?;
    assert_eq!(*third, 2);
    first.ack().await?;
    third.ack().await?;
    Ok(())
}

#[tokio::test]
async fn what_nobody_acknowledges_is_a_dead_letter_and_never_nothing() -> Anything {
    let fleet = fleet(Options::default().max_attempts(3)).await?;
    let Fleet { server, tasks, from, .. } = &fleet;
    let dead = server.dead_letters::<u32>("tasks")?;
    server.dead_letters::<u32>("results")?;
    server.sender_with("endless", 4, Options::default().unlimited_attempts())?;
    assert!(server.dead_letters::<u32>("endless").is_err());
    assert!(server.dead_letters::<String>("tasks").is_err());
    // There is room for four.
    for n in 0..5 {
        tasks.send(n).await?;
        for attempt in 1..=3 {
            let task = next(from).await;
            assert_eq!((*task, task.attempt()), (n, attempt));
            task.nack_after(Duration::ZERO).await?;
        }
    }
    let task = next(from).await;
    assert_eq!((*task, task.attempt()), (4, 4), "there was no room for it");
    assert_eq!(within("recv", dead.recv()).await?, Some(0));
    task.nack().await?;
    tasks.close();
    for expected in 1..5 {
        assert_eq!(within("recv", dead.recv()).await?, Some(expected));
    }
    assert_eq!(within("the end", dead.recv()).await?, None);
    assert!(within("the end", from.recv()).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_value_that_cannot_be_decoded_is_given_back() -> Anything {
    let server = common::serve().await;
    let options = ChannelOptions::<bytes::Bytes>::raw().label("task").max_attempts(1);
    let tasks = server.sender_with("tasks", 4, options.clone())?;
    let dead = server.dead_letters_with("tasks", options)?;
    let session = common::join(&server).await;
    let lying = ChannelOptions::<u32>::with_codec(Lying).label("task");
    let from = within("open", session.deliveries_with("tasks", lying)).await?;
    tasks.send(bytes::Bytes::from_static(b"\xff")).await?;
    let error = within("the error", from.recv()).await.unwrap_err();
    assert!(matches!(error, RecvError::Decode { .. }), "{error}");
    assert_eq!(within("recv", dead.recv()).await?.as_deref(), Some(&b"\xff"[..]));
    Ok(())
}

/// Says that it is the raw codec, and is not.
struct Lying;

impl netchan::codec::Codec<u32> for Lying {
    fn name(&self) -> &str {
        netchan::codec::Codec::<bytes::Bytes>::name(&netchan::codec::Raw)
    }

    fn encode(
        &self,
        value: &u32,
        cx: &mut netchan::codec::EncodeContext<'_>,
        out: &mut netchan::codec::ItemBuf<'_>,
    ) -> Result<(), netchan::codec::EncodeError> {
        netchan::codec::Postcard.encode(value, cx, out)
    }

    fn decode(
        &self,
        payload: netchan::codec::Payload<'_>,
        cx: &mut netchan::codec::DecodeContext<'_>,
    ) -> Result<u32, netchan::codec::DecodeError> {
        netchan::codec::Postcard.decode(payload, cx)
    }
}

/// Wherever an acknowledgement's future is given up, the task is done, and its result is there once.
#[tokio::test]
async fn acknowledging_is_cancel_safe() -> Anything {
    let fleet = fleet(Options::default()).await?;
    let Fleet { tasks, results, from, to, .. } = &fleet;
    for polls in 0..12 {
        tasks.send(polls).await?;
        let task = next(from).await;
        assert_eq!((*task, task.attempt()), (polls, 1));
        _ = poll_and_drop(task.ack_with(to, polls), polls as usize).await;
        assert_eq!(within("recv", results.recv()).await?, Some(polls));
        assert_eq!(results.len(), 0);
    }
    within("flush", from.flush()).await?;
    tasks.close();
    assert!(within("the end", from.recv()).await?.is_none());
    Ok(())
}

/// A worker that takes no more still finishes what it has.
#[tokio::test]
async fn a_subscription_that_is_closed_keeps_what_was_received() -> Anything {
    let fleet = fleet(Options::default()).await?;
    let Fleet { server, session, tasks, from, .. } = &fleet;
    let prefetching =
        within("open", session.deliveries_with("tasks", Options::default().prefetch(3))).await?;
    for n in 0..3 {
        tasks.send(n).await?;
    }
    let first = next(&prefetching).await;
    assert_eq!(*first, 0);
    prefetching.close();
    let (second, third) = (next(from).await, next(from).await);
    assert_eq!((*second, *third), (1, 2), "what it had not received went to the other");
    assert_eq!((second.attempt(), second.redelivered()), (1, false), "nobody was handed it");
    drop(prefetching);
    first.ack().await?;
    second.ack().await?;
    third.ack().await?;
    tasks.close();
    assert!(within("the end", from.recv()).await?.is_none());
    assert_eq!(server.clients().len(), 1);
    Ok(())
}

/// When a session ends, what its client held goes to others at once.
#[tokio::test]
async fn a_client_that_leaves_gives_everything_back() -> Anything {
    let Fleet { server, session, tasks, from, results: _results, to: _to } =
        fleet(Options::default().delivery_grace(LONG)).await?;
    tasks.send(1).await?;
    let task = next(&from).await;
    let other = common::join(&server).await;
    let (from_other, _) = worker(&other).await?;
    let closing = tokio::spawn(async move { session.close(Duration::ZERO).await });
    let again = next(&from_other).await;
    assert_eq!((*again, again.attempt(), again.redelivered()), (1, 1, true), "it left in good order");
    assert!(matches!(within("the answer", task.ack()).await, Err(AckError::Lost(_) | AckError::InDoubt(_))));
    again.ack().await?;
    _ = closing.await?;
    Ok(())
}
