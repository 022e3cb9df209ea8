//! Broadcasts: what is assigned first, then every value, for each subscriber by itself.

mod common;

use std::time::Duration;

use common::killed::{Mortal, until};
use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, within};
use netchan::{
    AssignError, ChannelOptions, CloseReason, Config, Identity, LossPolicy, OpenError, Receiver, RecvError,
    SessionEvent, TrySendError, WhenSlow, dial, listen_and_serve,
};

type Options = ChannelOptions<u32>;

async fn next(from: &Receiver<u32>) -> u32 {
    within("a value", from.recv()).await.expect("no error").expect("not the end")
}

/// Receives until nothing comes any more: what came, and how many were lost on the way.
async fn drain(from: &Receiver<u32>) -> (Vec<u32>, u64) {
    let (mut got, mut lost) = (Vec::new(), 0);
    loop {
        match within("a value or the end", from.recv()).await {
            Ok(Some(value)) => got.push(value),
            Ok(None) => return (got, lost),
            Err(RecvError::Lagged(count)) => lost += count,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Late joiners at every point of a stream of assignments and live values.
#[tokio::test]
async fn whoever_comes_gets_what_is_assigned_and_then_every_value() -> Anything {
    const VALUES: u32 = 60;
    let server = common::serve().await;
    let state = server.broadcast_with("state", VALUES as usize, Options::default())?;
    let mut joined = Vec::new();
    for n in 0..VALUES {
        let session = common::join(&server).await;
        let from = within("open", session.receiver_with("state", Options::default().capacity(2))).await?;
        joined.push((n, session, from));
        match n % 3 {
            0 => state.assign(n).await?,
            _ => state.send(n).await?,
        }
    }
    assert_eq!(state.receiver_count(), VALUES as usize);
    state.close();
    for (from_then, _session, from) in joined {
        let initial = (0..from_then).filter(|n| n % 3 == 0);
        let expected: Vec<_> = initial.chain(from_then..VALUES).collect();
        assert_eq!(drain(&from).await, (expected, 0), "joined at {from_then}");
    }
    assert_eq!(state.receiver_count(), 0);
    Ok(())
}

/// The same while values are sent, at moments that nobody chooses.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_while_values_are_sent_misses_none() -> Anything {
    const VALUES: u32 = 3_000;
    let server = common::serve().await;
    let state = server.broadcast_with("state", 16, Options::default().when_slow(WhenSlow::Block))?;
    let first = state.subscribe(WhenSlow::Block).expect("it is open");
    let watching = async {
        let mut got = drain(&first).await.0;
        got.truncate(VALUES as usize);
        got
    };
    let sending = async {
        for n in 0..VALUES {
            match n % 3 {
                0 => within("assign", state.assign(n)).await.expect("it is open"),
                _ => within("send", state.send(n)).await.expect("it is open"),
            }
            if n % 50 == 0 {
                tokio::task::yield_now().await;
            }
            if n == VALUES / 2 {
                eventually("somebody comes late", || state.receiver_count() > 1).await;
            }
        }
        state.close();
    };
    let joining = async {
        let mut joined = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let session = common::join(&server).await;
            joined.spawn(async move {
                let options = Options::default().capacity(4).when_slow(WhenSlow::Block);
                match session.receiver_with("state", options).await {
                    Ok(from) => drain(&from).await.0,
                    // It came when everything was over.
                    Err(_) => Vec::new(),
                }
            });
        }
        joined.join_all().await
    };
    let (all, (), joined) = within("everything", async { tokio::join!(watching, sending, joining) }).await;
    assert_eq!(all, (0..VALUES).collect::<Vec<_>>());
    let mut late = 0;
    for got in joined {
        // Up to the moment when it came what was assigned, and from then on everything.
        let came = got.windows(2).find(|pair| pair[1] - pair[0] != 3).map_or(VALUES, |pair| pair[1]);
        let from = if got.first() == Some(&0) { came } else { 0 };
        late += u32::from(from > 3);
        let initial = got.iter().take_while(|n| **n < from).copied().collect::<Vec<_>>();
        assert!(initial.iter().copied().eq((0..from).filter(|n| n % 3 == 0)), "{initial:?} before {from}");
        assert!(got[initial.len()..].iter().copied().eq(from..VALUES) || got.is_empty(), "joined at {from}");
    }
    assert!(late > 0, "nobody came late");
    Ok(())
}

#[tokio::test]
async fn assignments_are_replaced_in_one_step() -> Anything {
    let mut config = Config::default();
    config.open_timeout = Duration::from_millis(50);
    let server = listen_and_serve(common::memory(), config.clone()).await?;
    let session = dial(server.ticket(), config).await?;
    let state = server.broadcast::<u32>("state", 8)?;
    state.assign(1).await?;
    let early = session.receiver::<u32>("state").await?;
    state.set_assignments(vec![7, 8])?;
    let late = common::join(&server).await;
    let late = late.receiver::<u32>("state").await?;
    let here = state.subscribe(WhenSlow::Lag).expect("it is open");
    state.send(9).await?;
    state.close();
    assert_eq!(drain(&early).await.0, [1, 9]);
    assert_eq!(drain(&late).await.0, [7, 8, 9]);
    assert_eq!(drain(&here).await.0, [7, 8, 9]);
    assert!(state.subscribe(WhenSlow::Lag).is_none());
    assert!(matches!(state.assign(10).await, Err(AssignError::Send(_))));
    assert!(matches!(session.receiver::<u32>("state").await, Err(OpenError::NotAvailable { .. })));
    Ok(())
}

/// One that stops reading delays no other, and learns exactly what it lost.
#[tokio::test]
async fn a_subscriber_that_stops_reading_lags_alone() -> Anything {
    const VALUES: u32 = 5_000;
    let (server, session) = common::tcp_pair().await;
    let state = server.broadcast::<u32>("state", 16)?;
    let stopped = within("open", session.receiver_with("state", Options::default().capacity(4))).await?;
    let other = common::join(&server).await;
    let reads = within("open", other.receiver_with("state", Options::default().capacity(4))).await?;
    let here = state.subscribe(WhenSlow::Lag).expect("it is open");
    let (has, mut seen) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.last() != Some(&(VALUES - 1)) {
            got.push(next(&reads).await);
            has.send_replace(got.len());
        }
        got
    });
    for n in 0..VALUES {
        state.send(n).await?;
        assert_eq!(next(&here).await, n);
        if n % 8 == 0 {
            // In step with the one that reads: the other, which does not, holds up neither.
            within("it reads", seen.wait_for(|has| *has > n as usize)).await?;
        }
    }
    // Those of the capacity and of its own window are there, and every other is counted.
    state.close();
    let (got, lost) = drain(&stopped).await;
    assert_eq!(got.len() as u64 + lost, u64::from(VALUES));
    assert!(got.len() <= 4 + 16 + 4, "{}", got.len());
    assert_eq!(got.last(), Some(&(VALUES - 1)));
    assert!(got.is_sorted());
    assert_eq!(within("the one that reads", reading).await?, (0..VALUES).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_subscriber_that_blocks_loses_nothing() -> Anything {
    let (server, session) = common::pair().await;
    let state = server.broadcast_with("state", 2, Options::default().when_slow(WhenSlow::Block))?;
    let options = || Options::default().capacity(2);
    let from = within("open", session.receiver_with("state", options())).await?;
    let lags = within("open", session.receiver_with("state", options().when_slow(WhenSlow::Lag))).await?;
    // Two in its window, two in the log.
    for n in 0..4 {
        state.send(n).await?;
    }
    assert!(matches!(state.try_send(4), Err(TrySendError::Full(4))));
    let mut sending = Box::pin(state.send(4));
    assert!(common::poll_once(&mut sending).await.is_pending());
    assert_eq!(next(&from).await, 0);
    within("the send", sending).await?;
    let other = tokio::spawn({
        let state = state.clone();
        async move {
            for n in 5..100 {
                state.send(n).await.unwrap();
            }
            state.close();
        }
    });
    assert_eq!(drain(&from).await, ((1..100).collect(), 0));
    within("all are sent", other).await?;
    let (got, lost) = drain(&lags).await;
    assert_eq!(got.len() as u64 + lost, 100);
    Ok(())
}

#[tokio::test]
async fn a_subscriber_may_not_block_where_the_server_does_not_say_so() -> Anything {
    let (server, session) = common::pair().await;
    let _state = server.broadcast::<u32>("state", 2)?;
    let _tasks = server.sender::<u32>("tasks", 2)?;
    let blocking = || Options::default().when_slow(WhenSlow::Block);
    let refused = session.receiver_with("state", blocking()).await;
    assert!(matches!(refused, Err(OpenError::Declined { .. })), "{refused:?}");
    let refused = session.receiver_with("tasks", blocking()).await;
    assert!(matches!(refused, Err(OpenError::WrongDirection { .. })), "{refused:?}");
    let refused = session.deliveries::<u32>("state").await;
    assert!(matches!(refused, Err(OpenError::WrongDirection { .. })), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_subscriber_that_may_lose_nothing_is_disconnected() -> Anything {
    let (server, session) = common::pair().await;
    let state = server.broadcast::<u32>("state", 2)?;
    let options = Options::default().capacity(1).when_slow(WhenSlow::Disconnect);
    let from = within("open", session.receiver_with("state", options)).await?;
    let here = state.subscribe(WhenSlow::Disconnect).expect("it is open");
    for n in 0..10 {
        state.send(n).await?;
    }
    for from in [&from, &here] {
        let error = within("the error", async {
            loop {
                match from.recv().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it is not the end"),
                    Err(error) => return error,
                }
            }
        })
        .await;
        assert!(matches!(error, RecvError::TooSlow(_)) && error.is_terminal(), "{error}");
    }
    eventually("both have gone", || state.receiver_count() == 0).await;
    Ok(())
}

#[tokio::test]
async fn clients_send_into_it_where_they_may() -> Anything {
    let (server, first) = common::pair().await;
    let second = common::join(&server).await;
    let chat = server.broadcast_with("chat", 64, Options::default().clients_may_send(true))?;
    let news = server.broadcast::<u32>("news", 64)?;
    let refused = first.sender::<u32>("news").await;
    assert!(matches!(refused, Err(OpenError::WrongDirection { .. })), "{refused:?}");
    let (from_first, from_second) =
        (first.receiver::<u32>("chat").await?, second.receiver::<u32>("chat").await?);
    let (to_first, to_second) = (first.sender::<u32>("chat").await?, second.sender::<u32>("chat").await?);
    to_first.send(1).await?;
    within("flush", to_first.send_acked(2)).await?;
    to_second.send(3).await?;
    let expected = [1, 2, 3];
    for from in [&from_first, &from_second] {
        for expected in expected {
            assert_eq!(next(from).await, expected);
        }
    }
    chat.send(4).await?;
    assert_eq!((next(&from_first).await, next(&from_second).await), (4, 4));
    chat.close_with(CloseReason::new(300, "good night"));
    assert_eq!(within("the end", from_first.recv()).await?, None);
    assert_eq!(from_first.close_reason(), Some(CloseReason::new(300, "good night")));
    eventually("senders hear of it", || to_first.is_closed() || to_first.try_send(5).is_err()).await;
    drop(news);
    Ok(())
}

/// Clients' values wait for subscribers that block, in order.
#[tokio::test]
async fn clients_wait_for_subscribers_that_block() -> Anything {
    let (server, session) = common::pair().await;
    let options = Options::default().clients_may_send(true).when_slow(WhenSlow::Block);
    let chat = server.broadcast_with("chat", 2, options)?;
    let from = within("open", session.receiver_with("chat", Options::default().capacity(1))).await?;
    let senders: Vec<_> = (0..4)
        .map(|who| {
            let server = server.ticket();
            tokio::spawn(async move {
                let session = dial(server, Config::default()).await.unwrap();
                let to = session.sender::<u32>("chat").await.unwrap();
                for n in 0..200 {
                    to.send(who * 1_000 + n).await.unwrap();
                }
                session.close(DEADLINE).await.unwrap();
            })
        })
        .collect();
    let mut got = vec![Vec::new(); 4];
    for _ in 0..800 {
        let value = next(&from).await;
        got[value as usize / 1_000].push(value % 1_000);
    }
    assert!(got.iter().all(|of_one| of_one.iter().copied().eq(0..200)), "each in its order");
    for sender in senders {
        within("the sender", sender).await?;
    }
    chat.close();
    Ok(())
}

#[tokio::test]
async fn a_cut_is_invisible_to_a_subscriber() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let state = server.broadcast::<u32>("state", 64)?;
    state.assign(1_000).await?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let from = session.receiver::<u32>("state").await?;
    assert_eq!(next(&from).await, 1_000);
    for n in 0..200 {
        state.send(n).await?;
        if n % 20 == 7 {
            proxy.cut_now();
        }
        assert_eq!(next(&from).await, n);
    }
    Ok(())
}

#[tokio::test]
async fn a_subscription_that_was_lost_begins_again_and_says_so() -> Anything {
    let identity = Identity::generate();
    let first = Mortal::start(&common::own_address(), &identity).await;
    let address = first.address();
    let state = first.server().broadcast::<u32>("state", 8)?;
    state.assign(1).await?;
    let session = dial(first.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let options = Options::default().on_loss(LossPolicy::Drop);
    let from = session.receiver_with("state", options).await?;
    assert_eq!(next(&from).await, 1);
    let waiting = tokio::spawn(async move { (from.recv().await, from) });
    std::mem::forget(state);
    first.kill();
    let second = Mortal::start(&address, &identity).await;
    let state = second.server().broadcast::<u32>("state", 8)?;
    state.assign(10).await?;
    until(&mut events, |event| matches!(event, SessionEvent::Reopened { .. })).await;
    let (received, from) = within("the news", waiting).await?;
    assert!(matches!(received, Err(RecvError::Restarted)), "{received:?}");
    state.send(11).await?;
    assert_eq!((next(&from).await, next(&from).await), (10, 11));
    Ok(())
}

/// Whoever's session ends subscribes no more: nobody waits for it.
#[tokio::test]
async fn a_subscriber_whose_session_ends_is_gone() -> Anything {
    let (server, session) = common::pair().await;
    let state = server.broadcast_with("state", 1, Options::default().when_slow(WhenSlow::Block))?;
    let from = within("open", session.receiver_with("state", Options::default().capacity(1))).await?;
    for n in 0..2 {
        state.send(n).await?;
    }
    let blocked = state.send(2);
    let mut blocked = std::pin::pin!(blocked);
    assert!(common::poll_once(&mut blocked).await.is_pending(), "for one that reads nothing");
    let client = server.client(session.peer().session_id().expect("it has one")).expect("it is here");
    within("gone", client.disconnect("enough")).await;
    within("nobody blocks any more", blocked).await?;
    assert_eq!(state.receiver_count(), 0);
    within("the end", async { while from.recv().await.is_ok_and(|value| value.is_some()) {} }).await;
    Ok(())
}

/// What is no value of the program's stands before each on its way, and takes nothing from the longest.
#[tokio::test]
async fn the_longest_message_reaches_everyone() -> Anything {
    const BYTES: usize = 40_000;
    let mut config = Config::default();
    config.limits.message_bytes_max = BYTES;
    let server = listen_and_serve(common::memory(), config.clone()).await?;
    let options = ChannelOptions::raw;
    let state = server.broadcast_with("state", 4, options().clients_may_send(true))?;
    let (tasks, results) =
        (server.sender_with("tasks", 4, options())?, server.receiver_with("results", 4, options())?);
    let session = within("dial", dial(server.ticket(), config)).await?;
    let (from, to) =
        (session.receiver_with("state", options()).await?, session.sender_with("state", options()).await?);
    let (work, done) = (
        session.deliveries_with("tasks", options()).await?,
        session.sender_with("results", options()).await?,
    );
    let longest = bytes::Bytes::from(vec![7; BYTES]);
    to.send(longest.clone()).await?;
    assert_eq!(within("from a client", from.recv()).await?, Some(longest.clone()));
    state.assign(longest.clone()).await?;
    assert_eq!(within("from the server", from.recv()).await?, Some(longest.clone()));
    tasks.send(longest.clone()).await?;
    let task = within("a delivery", work.recv()).await?.ok_or("the end")?;
    assert_eq!(*task, longest);
    within("the answer", task.ack_with(&done, longest.clone())).await?;
    assert_eq!(within("its result", results.recv()).await?, Some(longest.clone()));
    let longer = bytes::Bytes::from(vec![7; BYTES + 1]);
    assert!(to.send(longer.clone()).await.is_err());
    assert!(state.send(longer).await.is_err());
    Ok(())
}

/// Values that are received together stop before news that are none.
#[tokio::test]
async fn receiving_many_skips_no_news() -> Anything {
    let (server, session) = common::pair().await;
    let state = server.broadcast::<u32>("state", 4)?;
    let from = within("open", session.receiver_with("state", Options::default().capacity(2))).await?;
    let here = state.subscribe(WhenSlow::Lag).expect("it is open");
    for n in 0..20 {
        state.send(n).await?;
    }
    state.close();
    for receiver in [&from, &here] {
        let (mut got, mut lost) = (Vec::new(), 0);
        loop {
            match within("many", receiver.recv_many(&mut got, 100)).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => lost += count,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((got.len() as u64 + lost, got.last()), (20, Some(&19)), "{got:?}");
    }
    Ok(())
}

/// A client's value that a close overtakes is not said to have been taken.
#[tokio::test]
async fn what_a_close_overtakes_is_not_taken() -> Anything {
    let (server, session) = common::pair().await;
    let options = || Options::default().when_slow(WhenSlow::Block).clients_may_send(true);
    let chat = server.broadcast_with("chat", 1, options())?;
    let _reads_nothing = chat.subscribe(WhenSlow::Block).expect("it is open");
    let to = within("open", session.sender::<u32>("chat")).await?;
    within("the first", to.send_acked(1)).await?;
    let mut second = Box::pin(to.send_acked(2));
    assert!(common::poll_once(&mut second).await.is_pending());
    within("flush", to.flush()).await?;
    chat.close();
    let second = within("its outcome", second).await;
    assert!(second.is_err(), "it reached nobody");
    Ok(())
}

/// However many stop reading, a value is kept once.
#[tokio::test]
async fn many_stalled_subscribers_share_what_they_wait_for() -> Anything {
    const BYTES: usize = 64 * 1_024;
    let (server, session) = common::pair().await;
    let state = server.broadcast_with("state", 16, ChannelOptions::raw())?;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let options = ChannelOptions::raw().capacity(1);
        stalled.push(within("open", session.receiver_with("state", options)).await?);
    }
    for n in 0..100_u8 {
        state.send(vec![n; BYTES].into()).await?;
    }
    assert!(state.held_bytes() <= 17 * BYTES as u64, "{}", state.held_bytes());
    state.close();
    for from in &stalled {
        let first = within("the first", from.recv()).await?.ok_or("the end")?;
        assert_eq!(first[0], 0);
        match within("the count", from.recv()).await {
            Err(RecvError::Lagged(lost)) => assert!((80..=99).contains(&lost), "{lost}"),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}
