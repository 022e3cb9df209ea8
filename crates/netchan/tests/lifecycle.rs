//! Closing, shutting down, and what is left afterwards: nothing.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Anything, DEADLINE, direct, eventually, join, pair, poll_once, serve, tcp_pair, within};
use futures_util::{SinkExt, StreamExt};
use netchan::{ChannelOptions, Config, Receiver, Sender, SessionEnd, dial, listen_and_serve};

#[tokio::test]
async fn a_close_delivers_everything_and_says_so() -> Anything {
    let (server, session) = tcp_pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 1_000).await;
    for n in 0..1_000 {
        sender.send(n).await?;
    }
    let report = session.close(DEADLINE).await?;
    assert!(report.is_complete(), "{report}");
    for n in 0..1_000 {
        assert_eq!(receiver.recv().await?, Some(n));
    }
    assert_eq!(receiver.recv().await?, None);
    assert_eq!(session.ended().await, SessionEnd::ClosedHere);
    assert!(session.recv().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_close_right_after_the_dial_is_a_close_at_both_ends() -> Anything {
    for _ in 0..10 {
        let (server, session) = pair().await;
        let closing = session.close(DEADLINE);
        assert!(within("close", closing).await?.is_complete());
        eventually("the server sees it", || server.clients().is_empty()).await;
    }
    // And the other way round: the client hears a farewell, not a broken connection.
    for _ in 0..10 {
        let (server, session) = tcp_pair().await;
        drop(server);
        let end = within("the end", session.ended()).await;
        assert!(matches!(end, SessionEnd::ClosedByPeer(_)), "{end}");
    }
    Ok(())
}

#[tokio::test]
async fn deadlines_hold_and_reports_tell_what_a_stalled_peer_did_not_get() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy =
        common::proxy::Proxy::start(&server, common::proxy::Fault::None, common::proxy::Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let (sender, _receiver) = direct::<u32>(&server, &session, 100).await;
    sender.send(0).await?;
    sender.flush().await?;
    proxy.stall();
    for n in 0..7 {
        sender.send(n).await?;
    }
    let started = Instant::now();
    let report = within("close", session.close(Duration::from_millis(200))).await?;
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!(report.undelivered + report.in_doubt, 7, "{report}");
    assert_eq!(report.channels, [("direct".to_owned(), 7)]);

    // A server whose hosted channel nobody drains.
    let other = serve().await;
    let hosted = other.sender::<u32>("hosted", 10)?;
    let _idle = join(&other).await;
    for n in 0..4 {
        hosted.send(n).await?;
    }
    let started = Instant::now();
    let report = within("shutdown", other.shutdown(Duration::from_millis(200))).await?;
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert_eq!((report.undelivered, report.channels), (4, vec![("hosted".to_owned(), 4)]));
    Ok(())
}

#[tokio::test]
async fn a_shutdown_without_a_deadline_waits_for_the_last_value() -> Anything {
    let (server, session) = pair().await;
    let hosted = server.sender::<u32>("hosted", 10)?;
    for n in 0..10 {
        hosted.send(n).await?;
    }
    let receiver = session.receiver::<u32>("hosted").await?;
    let consumer = tokio::spawn(async move {
        let mut count = 0;
        while receiver.recv().await.unwrap().is_some() {
            count += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        count
    });
    let report = within("shutdown", server.shutdown(Duration::MAX)).await?;
    assert!(report.is_complete(), "{report}");
    assert_eq!(within("the consumer", consumer).await?, 10);
    assert!(server.recv().await?.is_none());
    assert!(server.sender::<u32>("late", 1).is_err());
    Ok(())
}

#[tokio::test]
async fn handles_keep_a_session_alive_and_the_last_one_ends_it() -> Anything {
    let (server, session) = tcp_pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 4).await;
    drop(session);
    for n in 0..50 {
        sender.send(n).await?;
        assert_eq!(within("recv", receiver.recv()).await?, Some(n));
    }
    assert_eq!(server.clients().len(), 1);
    sender.send(50).await?;
    let clone = sender.clone();
    drop(sender);
    assert!(!clone.is_closed());
    drop(clone);
    // Closed after its data, and then the session ends.
    assert_eq!(within("recv", receiver.recv()).await?, Some(50));
    assert_eq!(within("recv", receiver.recv()).await?, None);
    eventually("the session ends", || server.clients().is_empty()).await;

    let session = join(&server).await;
    let (sender, receiver) = direct::<u32>(&server, &session, 4).await;
    sender.send(1).await?;
    drop(receiver);
    within("the sender hears of it", sender.closed()).await;
    assert!(sender.send(2).await.is_err());
    let unsettled: Vec<_> = sender.take_unsettled().into_iter().map(netchan::Unsettled::into_inner).collect();
    assert_eq!(unsettled, [1]);
    Ok(())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One scene after another in one process, so that counting is fair: nextest runs each test in its own.
#[test]
fn nothing_is_left_after_the_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let unix = format!("unix://{}/s.sock", directory.path().display());
        // Everything that is made once is made now.
        scene("127.0.0.1:0").await;
        let metrics = tokio::runtime::Handle::current().metrics();
        let (tasks, before) = (metrics.num_alive_tasks(), descriptors());
        for address in ["127.0.0.1:0", unix.as_str(), "memory://left-nothing"] {
            for _ in 0..5 {
                // The program keeps dead handles, and still no socket or task stays.
                let _dead = scene(address).await;
                eventually("no task", || metrics.num_alive_tasks() <= tasks).await;
                eventually("no descriptor", || descriptors() <= before).await;
            }
        }
        assert!(!directory.path().join("s.sock").exists(), "the socket file is removed");
    });
}

type Dead = (Sender<u32>, Receiver<u32>, Sender<u32>, Receiver<u32>);

async fn scene(address: &str) -> Dead {
    let server = listen_and_serve(address, Config::default()).await.unwrap();
    let session = join(&server).await;
    let cut = join(&server).await;
    let (sender, receiver) = direct::<u32>(&server, &session, 4).await;
    let (hosted, values) = server.channel::<u32>("hosted", 4).unwrap();
    let remote = cut.receiver::<u32>("hosted").await.unwrap();
    hosted.send(1).await.unwrap();
    assert_eq!(remote.recv().await.unwrap(), Some(1));
    sender.send(1).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), Some(1));
    let mut waiting = Box::pin(remote.recv());
    assert!(poll_once(waiting.as_mut()).await.is_pending());
    assert!(within("close", session.close(DEADLINE)).await.unwrap().is_complete());
    within("shutdown", server.shutdown(DEADLINE)).await.unwrap();
    assert_eq!(within("recv", waiting).await.unwrap(), None);
    drop((server, session, cut, remote));
    // Used after the end: nothing may come alive again.
    assert!(sender.send(2).await.is_err());
    sender.close();
    assert!(poll_once(Box::pin(receiver.recv())).await.is_ready());
    (sender, receiver, hosted, values)
}

#[test]
fn threads_without_a_runtime_and_with_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (server, session, sender, receiver) = runtime.block_on(async {
        let (server, session) = pair().await;
        let (sender, receiver) = direct::<u32>(&server, &session, 2).await;
        (server, session, sender, receiver)
    });
    let plain = std::thread::spawn({
        let sender = sender.clone();
        move || (0..500).for_each(|n| sender.blocking_send(n).unwrap())
    });
    for n in 0..500 {
        assert_eq!(receiver.blocking_recv().unwrap(), Some(n));
    }
    plain.join().unwrap();
    // Threads that tokio keeps for blocking.
    let blocking = runtime.spawn_blocking(move || (0..500).for_each(|n| sender.blocking_send(n).unwrap()));
    let all: Vec<u32> = receiver.blocking_iter().map(Result::unwrap).collect();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
    runtime.block_on(async {
        blocking.await.unwrap();
        // In a task it would stop the tasks beside it: that is a panic.
        let misuse = tokio::spawn(async move { receiver.blocking_recv().map(|_| ()) });
        assert!(misuse.await.is_err());
        drop((server, session));
    });
}

#[tokio::test]
async fn streams_sinks_polls_and_many() -> Anything {
    let (server, session) = pair().await;
    for capacity in [0, 4] {
        let (mut sender, mut receiver) = direct::<u32>(&server, &session, capacity).await;
        let sink = tokio::spawn(async move {
            for n in 0..100 {
                sender.feed(n).await.unwrap();
            }
            sender.flush().await.unwrap();
            SinkExt::close(&mut sender).await.unwrap();
        });
        for n in 0..50 {
            assert_eq!(within("next", receiver.next()).await.unwrap()?, n);
        }
        let mut many = Vec::new();
        while within("recv_many", receiver.recv_many(&mut many, 7)).await? > 0 {}
        assert_eq!(many, (50..100).collect::<Vec<_>>());
        let polled = within("poll_recv", std::future::poll_fn(|cx| receiver.poll_recv(cx))).await?;
        assert_eq!(polled, None);
        assert!(receiver.next().await.is_none());
        within("the sink", sink).await?;
    }
    Ok(())
}

/// A peer that is stopped, and a link that is full to the brim: a close still ends when it said it would.
#[tokio::test]
async fn a_close_keeps_its_deadline_when_the_link_takes_nothing() -> Anything {
    const CLOSE: Duration = Duration::from_millis(1_500);
    let wide = || {
        let mut config = Config::default();
        (config.limits.window_bytes, config.limits.window_bytes_max) = (1 << 30, 1 << 30);
        config
    };
    let (told, tickets) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let stopped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = listen_and_serve("127.0.0.1:0", wide()).await.unwrap();
            told.send(server.ticket().to_string()).unwrap();
            let offer = server.recv().await.unwrap().unwrap();
            let receiver = offer.accept_receiver_with(1 << 20, ChannelOptions::raw()).await.unwrap();
            assert!(receiver.recv().await.unwrap().is_some());
            // The whole runtime stands still from here on.
            _ = wait.recv();
        });
    });
    let session = dial(tickets.recv()?, wide()).await?;
    let sender = session.sender_with::<bytes::Bytes>("flood", ChannelOptions::raw()).await?;
    let block = bytes::Bytes::from(vec![7; 1 << 20]);
    for _ in 0..64 {
        sender.send(block.clone()).await?;
    }
    let begun = Instant::now();
    let report = within("close", session.close(CLOSE)).await?;
    assert!(!report.is_complete(), "{report}");
    assert!(begun.elapsed() >= CLOSE);
    assert!(begun.elapsed() < 3 * (CLOSE + Duration::from_secs(1)), "{:?}", begun.elapsed());
    drop(done);
    stopped.join().unwrap();
    Ok(())
}

/// Whoever waits to hear that a value was taken hears at once, not when the news that nobody waits for go out. In virtual
/// time, which passes only while everyone sleeps.
#[tokio::test(start_paused = true)]
async fn an_acknowledged_send_waits_for_no_timer() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 64).await;
    let consumer = tokio::spawn(async move {
        let mut received = Vec::new();
        while let Some(n) = receiver.recv().await.unwrap() {
            received.push(n);
        }
        received
    });
    let begun = tokio::time::Instant::now();
    for n in 0..200 {
        sender.send_acked(n).await?;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    sender.close();
    assert_eq!(consumer.await?, (0..200).collect::<Vec<_>>());
    Ok(())
}

/// One of two values stays unread: the other's sender hears of it all the same.
#[tokio::test]
async fn an_acknowledged_send_does_not_wait_for_its_neighbour() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 64).await;
    let (first, second) = (sender.clone(), sender.clone());
    let first = tokio::spawn(async move { first.send_acked(1).await });
    eventually("the first is here", || receiver.len() == 1).await;
    let second = tokio::spawn(async move { second.send_acked(2).await });
    eventually("both are here", || receiver.len() == 2).await;
    assert_eq!(receiver.recv().await?, Some(1));
    within("the first", first).await??;
    assert_eq!(receiver.recv().await?, Some(2));
    within("the second", second).await??;
    Ok(())
}

/// Both ends are streams of channels: at a client those that were hosted first, then new ones; at a server those that its
/// clients open.
#[tokio::test]
async fn channels_of_channels_are_streams_and_go_into_select() -> Anything {
    let server = serve().await;
    let _early = server.sender::<u32>("early", 1)?;
    let mut session = join(&server).await;
    let first = within("the first", session.next()).await.unwrap()?;
    assert_eq!(first.name(), "early");
    let _late = server.receiver::<u32>("late", 1)?;
    let second = tokio::select! {
        offer = session.recv() => offer?.unwrap(),
        () = tokio::time::sleep(DEADLINE) => panic!("nothing came"),
    };
    assert_eq!(second.name(), "late");
    let mut server = server;
    let (opened, offer) = tokio::join!(session.sender::<u32>("mine"), async {
        let offer = server.next().await.unwrap()?;
        assert_eq!(offer.name(), "mine");
        offer.accept_receiver::<u32>(2).await.map_err(Box::<dyn std::error::Error>::from)
    });
    let (sender, receiver) = (opened?, offer?);
    sender.send(7).await?;
    assert_eq!(within("the value", receiver.recv()).await?, Some(7));
    Ok(())
}

/// Keys are renewed for each record, in both directions and on several channels at once, and nobody notices.
#[tokio::test]
async fn keys_renewed_all_the_time_change_nothing() -> Anything {
    let mut config = Config::default();
    config.rekey = netchan::RekeyLimits { bytes: 2_000, records: 2, millis: 1_000 };
    let server = listen_and_serve("127.0.0.1:0", config.clone()).await?;
    let session = dial(server.ticket(), config).await?;
    let mut echoes = Vec::new();
    for _ in 0..3 {
        let (sender, receiver) = direct::<Vec<u8>>(&server, &session, 16).await;
        let (back, echo) = within("open", async {
            tokio::join!(
                session.receiver_with::<Vec<u8>>("back", ChannelOptions::default().capacity(16)),
                async { server.recv().await.unwrap().unwrap().accept_sender::<Vec<u8>>().await.unwrap() }
            )
        })
        .await;
        let back = back?;
        tokio::spawn(async move {
            while let Some(value) = receiver.recv().await.unwrap() {
                echo.send(value).await.unwrap();
            }
        });
        echoes.push(tokio::spawn(async move {
            for n in 0..400_u32 {
                let value = vec![n as u8; n as usize % 700];
                sender.send(value.clone()).await.unwrap();
                assert_eq!(back.recv().await.unwrap(), Some(value));
            }
        }));
    }
    for echo in echoes {
        within("an echo", echo).await?;
    }
    Ok(())
}

/// A task that sends and receives without ever having to wait leaves others their turn.
#[tokio::test]
async fn a_busy_task_lets_others_run() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 1 << 20).await;
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    for n in 0..50_000 {
        sender.send(n).await?;
    }
    let while_sending = turns.load(Ordering::Relaxed);
    assert!(while_sending > 2, "{while_sending}");
    sender.flush().await?;
    let before = turns.load(Ordering::Relaxed);
    for n in 0..50_000 {
        assert_eq!(receiver.recv().await?, Some(n));
    }
    assert!(turns.load(Ordering::Relaxed) > before + 2);
    other.abort();
    Ok(())
}

#[tokio::test]
async fn both_ends_close_at_once() -> Anything {
    for _ in 0..20 {
        let (server, session) = tcp_pair().await;
        let (sender, _receiver) = direct::<u32>(&server, &session, 4).await;
        sender.send(1).await?;
        let (here, there) =
            within("both", async { tokio::join!(session.close(DEADLINE), server.shutdown(DEADLINE)) }).await;
        assert!(here?.is_complete());
        assert!(there?.is_complete());
    }
    Ok(())
}
