//! Hosted channels with several clients.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Anything, DEADLINE, eventually, join, serve, within};
use netchan::{ChannelOptions, Receiver, SendTimeoutError, TryRecvError};

/// Until so many receives wait at this end.
async fn wait_for_waiters<T: Send + 'static>(receiver: &Receiver<T>, waiting: u64) {
    eventually("they wait", || receiver.stats().waiting == waiting).await;
}

#[tokio::test]
async fn first_come_first_served_over_clients_and_local_receives() -> Anything {
    let server = serve().await;
    let (sender, local) = server.channel::<u32>("values", 16)?;
    let (a, b) = (join(&server).await, join(&server).await);
    let first = a.receiver::<u32>("values").await?;
    let third = b.receiver::<u32>("values").await?;
    let (order, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let wait = |name: &'static str, receiver: Receiver<u32>| {
        let order = order.clone();
        tokio::spawn(async move {
            let value = receiver.recv().await.unwrap().unwrap();
            order.send((name, value)).unwrap();
        })
    };
    // Each is known to the server before the next begins to wait: a message on the same session follows it.
    let pings = server.receiver::<u32>("pings", 1)?;
    let waits = [("first", first, &a), ("third", third, &b)];
    let mut tasks = Vec::new();
    for (name, receiver, session) in waits {
        if name == "third" {
            tasks.push(wait("second", local.clone()));
            wait_for_waiters(&local, 1).await;
        }
        tasks.push(wait(name, receiver.clone()));
        wait_for_waiters(&receiver, 1).await;
        let ping = session.sender::<u32>("pings").await?;
        ping.send(0).await?;
        pings.recv().await?;
    }
    for value in 0..3 {
        sender.send(value).await?;
    }
    let mut got = BTreeSet::new();
    for _ in 0..3 {
        got.insert(within("arrivals", arrivals.recv()).await.unwrap());
    }
    assert_eq!(got, BTreeSet::from([("first", 0), ("second", 1), ("third", 2)]));
    Ok(())
}

/// Each announcement once cost a walk over all that had come before it, and the open waited behind them all.
#[tokio::test]
async fn port_12_a_name_is_opened_at_once_among_thousands() -> Anything {
    const NAMES: usize = 16_000;
    let server = serve().await;
    let mut hosted = Vec::new();
    for n in 0..NAMES {
        hosted.push(server.sender::<u32>(&format!("name-{n:05}"), 1)?);
    }
    let session = join(&server).await;
    let last = session.receiver::<u32>(&format!("name-{:05}", NAMES - 1)).await?;
    hosted[NAMES - 1].send(7).await?;
    assert_eq!(within("recv", last.recv()).await?, Some(7));
    for n in 0..NAMES {
        let offer = within("an offer", session.recv()).await?.ok_or("the end")?;
        assert_eq!(offer.name(), format!("name-{n:05}"));
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_stops_waiting_holds_no_task() -> Anything {
    let server = serve().await;
    let sender = server.sender::<u32>("tasks", 16)?;
    let (idle, busy) = (join(&server).await, join(&server).await);
    let idle_tasks = idle.receiver::<u32>("tasks").await?;
    let busy_tasks = busy.receiver::<u32>("tasks").await?;
    for round in 0..20 {
        // It waits, once, twice at a time, and stops.
        let stopped = idle_tasks.recv_timeout(Duration::from_millis(3));
        let stopped_too = idle_tasks.recv_timeout(Duration::from_millis(3));
        let (one, other) = tokio::join!(stopped, stopped_too);
        assert!(one.is_err() && other.is_err());
        sender.send(round).await?;
        assert_eq!(within("the other gets it", busy_tasks.recv()).await?, Some(round));
    }
    Ok(())
}

#[tokio::test]
async fn a_value_for_a_wait_that_ended_goes_on_to_the_next_client() -> Anything {
    let server = serve().await;
    let sender = server.sender::<u32>("tasks", 16)?;
    let (idle, busy) = (join(&server).await, join(&server).await);
    let idle_tasks = idle.receiver::<u32>("tasks").await?;
    let busy_tasks = busy.receiver::<u32>("tasks").await?;
    // Two waits; two values come for them; one wait ends, the other takes one and nobody waits any more.
    let mut one = Box::pin(idle_tasks.recv());
    let mut two = Box::pin(idle_tasks.recv());
    assert!(common::poll_once(one.as_mut()).await.is_pending());
    assert!(common::poll_once(two.as_mut()).await.is_pending());
    sender.send(1).await?;
    sender.send(2).await?;
    eventually("both have arrived", || idle_tasks.len() == 2).await;
    drop(two);
    assert_eq!(within("recv", one).await?, Some(1));
    assert_eq!(within("the other client gets the second", busy_tasks.recv()).await?, Some(2));
    Ok(())
}

#[tokio::test]
async fn select_loops_lose_nothing() -> Anything {
    let server = serve().await;
    let sender = server.sender::<u32>("tasks", 4)?;
    let session = join(&server).await;
    let tasks = session.receiver::<u32>("tasks").await?;
    let producer = tokio::spawn(async move {
        for n in 0..300 {
            sender.send(n).await.unwrap();
        }
    });
    let mut expected = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    within("all values", async {
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                value = tasks.recv() => match value.unwrap() {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                    }
                    None => break,
                },
            }
        }
    })
    .await;
    assert_eq!(expected, 300);
    producer.await?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Leaving {
    Drop,
    Close,
    Abort,
    Receiver,
}

#[tokio::test]
async fn a_client_that_leaves_gives_back_what_it_had_not_taken_in_order() -> Anything {
    for leaving in [Leaving::Drop, Leaving::Close, Leaving::Abort, Leaving::Receiver] {
        let server = netchan::listen_and_serve(common::memory(), common::mortal()).await?;
        let sender = server.sender::<u32>("tasks", 64)?;
        for n in 0..10 {
            sender.send(n).await?;
        }
        let (got, runtime) = tokio::task::spawn_blocking({
            let ticket = server.ticket();
            move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let got = runtime.block_on(async {
                    let session = netchan::dial(ticket, Default::default()).await.unwrap();
                    let options = ChannelOptions::default().prefetch(6);
                    let tasks = session.receiver_with::<u32>("tasks", options).await.unwrap();
                    assert_eq!(tasks.recv().await.unwrap(), Some(0));
                    eventually("prefetched", || tasks.len() == 6).await;
                    (session, tasks)
                });
                (got, runtime)
            }
        })
        .await?;
        let (session, tasks) = got;
        eventually("taken", || sender.stats().taken == 1).await;
        let mut kept = None;
        let mut runtime = Some(runtime);
        match leaving {
            Leaving::Drop => drop((session, tasks)),
            Leaving::Close => _ = session.close(DEADLINE).await?,
            Leaving::Abort => runtime.take().into_iter().for_each(|runtime| runtime.shutdown_background()),
            Leaving::Receiver => {
                drop(tasks);
                kept = Some(session);
            }
        }
        let left = || server.clients().iter().all(|client| client.channel_count() == 0);
        eventually("the server knows that it has left", left).await;
        let heirs = join(&server).await;
        let heir = heirs.receiver::<u32>("tasks").await?;
        for n in 1..10 {
            assert_eq!(within("what was given back", heir.recv()).await?, Some(n), "{leaving:?}");
        }
        drop(kept);
        runtime.into_iter().for_each(|runtime| runtime.shutdown_background());
    }
    Ok(())
}

/// What a session had here, but had not taken, when it was lost, the server gives to others: it must not be taken here too.
#[tokio::test]
async fn a_lost_session_hands_out_nothing_that_went_back() -> Anything {
    let server = netchan::listen_and_serve("127.0.0.1:0", common::mortal()).await?;
    let proxy =
        common::proxy::Proxy::start(&server, common::proxy::Fault::None, common::proxy::Fault::None).await;
    let sender = server.sender::<u32>("tasks", 64)?;
    let session = netchan::dial(proxy.ticket(&server), common::mortal()).await?;
    let tasks = session.receiver_with::<u32>("tasks", ChannelOptions::default().prefetch(4)).await?;
    for n in 0..4 {
        sender.send(n).await?;
    }
    eventually("prefetched", || tasks.len() == 4).await;
    assert_eq!(tasks.recv().await?, Some(0));
    eventually("taken", || sender.stats().taken == 1).await;
    proxy.cut();
    within("the end", session.ended()).await;
    assert!(tasks.recv().await.is_err());
    let heir = join(&server).await.receiver::<u32>("tasks").await?;
    assert_eq!(within("given back", heir.recv()).await?, Some(1));
    Ok(())
}

#[tokio::test]
async fn leases_are_recalled_from_idle_senders() -> Anything {
    for capacity in [1, 2, 5] {
        let server = serve().await;
        let values = server.receiver::<(u32, u32)>("values", capacity)?;
        let mut clients = Vec::new();
        for client in 0..6_u32 {
            let session = join(&server).await;
            let sender = session.sender::<(u32, u32)>("values").await?;
            // Everyone has held credit before the race.
            sender.send((client, 0)).await?;
            assert_eq!(within("first", values.recv()).await?, Some((client, 0)));
            clients.push((session, sender));
        }
        let senders: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(client, (_, sender))| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for n in 1..=50 {
                        sender.send((client as u32, n)).await.unwrap();
                    }
                })
            })
            .collect();
        let mut next = [1; 6];
        for _ in 0..300 {
            let (client, n) = within("all make progress", values.recv()).await?.unwrap();
            assert_eq!(n, next[client as usize], "in order for each sender");
            next[client as usize] += 1;
        }
        for sender in senders {
            sender.await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn capacity_zero_between_two_clients_is_a_rendezvous() -> Anything {
    let server = serve().await;
    let _both = server.channel::<u32>("zero", 0)?;
    let (a, b) = (join(&server).await, join(&server).await);
    let sender = a.sender::<u32>("zero").await?;
    let receiver = b.receiver::<u32>("zero").await?;
    let timed = within("withdrawn", sender.send_timeout(1, Duration::from_millis(20))).await;
    assert!(matches!(timed, Err(SendTimeoutError::Timeout(1))), "{timed:?}");
    for n in 0..50 {
        let (sent, received) = within("meet", async { tokio::join!(sender.send(n), receiver.recv()) }).await;
        sent?;
        assert_eq!(received?, Some(n));
    }
    // The send completes because of the receive, never before it.
    let mut send = Box::pin(sender.send(7));
    assert!(tokio::time::timeout(Duration::from_millis(30), send.as_mut()).await.is_err());
    assert_eq!(within("recv", receiver.recv()).await?, Some(7));
    within("send", send).await?;
    Ok(())
}

/// Without a prefetch, and it costs nobody else his turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_23_a_fast_receiver_that_is_alone_has_values_before_it_asks() -> Anything {
    const RECEIVED: u32 = 10_000;
    let server = serve().await;
    let to = server.sender::<u32>("values", 4_096)?;
    let from = join(&server).await.receiver::<u32>("values").await?;
    let sending = tokio::spawn(async move {
        for n in 0..RECEIVED + 2_000 {
            to.send(n).await.unwrap();
        }
        to
    });
    // One that receives one after another and has more than one at a time has them before it asks.
    let mut ahead = 0;
    for n in 0..RECEIVED {
        assert_eq!(within("recv", from.recv()).await?, Some(n));
        if n % 16 == 0 {
            ahead = ahead.max(server.hosted().iter().map(|info| info.in_flight).sum());
        }
    }
    assert!(ahead > 1, "none goes ahead of it");
    let _to = within("everything is sent", sending).await?;
    // What it has not taken is the next for everybody.
    let other = join(&server).await.receiver::<u32>("values").await?;
    for n in 0..5 {
        assert_eq!(within("recv", other.recv()).await?, Some(RECEIVED + n), "the oldest, in order");
    }
    assert_eq!(within("recv", from.recv()).await?, Some(RECEIVED + 5));
    Ok(())
}

/// Nothing goes to a client that does not ask; a look is a question.
#[tokio::test]
async fn who_looks_again_and_again_gets_values() -> Anything {
    let server = serve().await;
    let to = server.sender::<u32>("values", 8)?;
    let from = join(&server).await.receiver::<u32>("values").await?;
    for n in 0..5 {
        to.send(n).await?;
    }
    for n in 0..5 {
        // Longer than what is left over by a receive is kept.
        let mut looks = 0;
        let value = loop {
            match from.try_recv() {
                Ok(value) => break value,
                Err(TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(30)).await,
                Err(error) => panic!("{error}"),
            }
            looks += 1;
            assert!(looks < 100, "value {n} never comes");
        };
        assert_eq!(value, Some(n));
    }
    // What it asked for and does not take is another's before long.
    assert!(matches!(from.try_recv(), Err(TryRecvError::Empty)));
    let other = join(&server).await.receiver::<u32>("values").await?;
    to.send(5).await?;
    assert_eq!(within("another gets it", other.recv()).await?, Some(5));
    Ok(())
}

#[tokio::test]
async fn who_receives_many_asks_for_many() -> Anything {
    let server = serve().await;
    let to = server.sender::<u32>("values", 64)?;
    let from = join(&server).await.receiver::<u32>("values").await?;
    for n in 0..50 {
        to.send(n).await?;
    }
    let mut values = Vec::new();
    let mut calls = 0;
    while values.len() < 50 {
        assert!(within("many", from.recv_many(&mut values, 20)).await? <= 20);
        calls += 1;
    }
    assert!(values.iter().copied().eq(0..50));
    assert!(calls <= 10, "{calls} calls for 50 values");
    // What was asked for beyond what is here goes to others.
    let mut waiting = Box::pin(from.recv_many(&mut values, 20));
    assert!(common::poll_once(&mut waiting).await.is_pending());
    drop(waiting);
    let other = join(&server).await.receiver::<u32>("values").await?;
    to.send(50).await?;
    assert_eq!(within("another gets it", other.recv()).await?, Some(50));
    Ok(())
}

/// Room that there is can be used at once, also by whoever does not wait for it.
#[tokio::test]
async fn host_26_a_try_send_right_after_the_open_finds_the_room_that_there_is() -> Anything {
    let server = serve().await;
    let session = join(&server).await;
    for round in 0..50 {
        let name = format!("values {round}");
        let values = server.receiver::<u32>(&name, 4)?;
        let sender = session.sender::<u32>(&name).await?;
        for value in 0..4 {
            sender.try_send(value).map_err(|error| format!("round {round}, value {value}: {error}"))?;
        }
        assert!(sender.try_send(4).is_err(), "it is full");
        assert_eq!(within("the first", values.recv()).await?, Some(0));
    }
    Ok(())
}
