//! Sessions outlive connections: over real sockets, cut by a man in the middle.

mod common;

use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, within};
use netchan::{Config, SessionEvent, SessionState, dial, listen_and_serve};

#[tokio::test]
async fn a_cut_connection_is_invisible() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let (down, up) = server.channel::<u32>("values", 8)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let mut events = session.events();
    let mut server_events = server.events();
    let sender = session.sender::<u32>("values").await?;
    for round in 0..5_u32 {
        for n in 0..100 {
            within("send", sender.send(round * 100 + n)).await?;
            assert_eq!(within("recv", up.recv()).await?, Some(round * 100 + n));
        }
        proxy.cut_now();
        within("suspended", async {
            while !matches!(events.recv().await, Some(SessionEvent::Suspended { .. })) {}
        })
        .await;
        within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    }
    assert_eq!(session.state(), SessionState::Connected);
    assert_eq!(session.stats().resumes, 5);
    assert_eq!(session.stats().links, 6);
    drop(down);
    session.close(DEADLINE).await?;
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(SessionEvent::Gone(_))) {
        seen.extend(within("server event", server_events.recv()).await.map(|event| event.event));
    }
    let suspended = seen.iter().filter(|event| matches!(event, SessionEvent::Suspended { .. })).count();
    let resumed = seen.iter().filter(|event| **event == SessionEvent::Resumed).count();
    assert_eq!((suspended, resumed), (5, 5), "{seen:?}");
    Ok(())
}

/// The server may not have heard yet that the client has the session.
#[tokio::test]
async fn a_cut_right_after_dial_is_invisible() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let mut seen = server.events();
    for _ in 0..50 {
        let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
        let session = dial(proxy.ticket(&server), Config::default()).await?;
        let mut events = session.events();
        let session_id = session.peer().session_id();
        proxy.cut_now();
        assert_eq!(events.recv().await, Some(SessionEvent::Connected));
        let suspended = within("suspended", events.recv()).await;
        assert!(matches!(suspended, Some(SessionEvent::Suspended { .. })), "{suspended:?}");
        assert_eq!(within("resumed", events.recv()).await, Some(SessionEvent::Resumed));
        assert_eq!(session.peer().session_id(), session_id);
        session.close(DEADLINE).await?;
        // Whatever the server saw of it, each is told of once.
        let mut told = Vec::new();
        while !matches!(told.last(), Some(SessionEvent::Gone(_))) {
            told.push(within("the server's word", seen.recv()).await.ok_or("the end")?.event);
        }
        let plain = matches!(told[..], [SessionEvent::Connected, SessionEvent::Gone(_)]);
        let cut = matches!(
            told[..],
            [
                SessionEvent::Connected,
                SessionEvent::Suspended { .. },
                SessionEvent::Resumed,
                SessionEvent::Gone(_)
            ]
        );
        assert!(plain || cut, "{told:?}");
    }
    assert!(server.clients().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_stream_in_both_directions_survives_many_cuts() -> Anything {
    const COUNT: u32 = 10_000;
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let results = server.receiver::<u32>("results", 16)?;
    let tasks = server.sender::<u32>("tasks", 16)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let (to, from) = (session.sender::<u32>("results").await?, session.receiver::<u32>("tasks").await?);
    let worker = tokio::spawn(async move {
        while let Some(task) = from.recv().await.unwrap() {
            to.send(task).await.unwrap();
        }
    });
    let feeder = tokio::spawn(async move {
        for n in 0..COUNT {
            tasks.send(n).await.unwrap();
        }
        tasks.close();
    });
    let collecting = async {
        for n in 0..COUNT {
            assert_eq!(results.recv().await.unwrap(), Some(n), "in order, once");
            if n % 500 == 250 {
                proxy.cut_now();
            }
        }
    };
    within("all results", collecting).await;
    within("the worker", worker).await?;
    within("the feeder", feeder).await?;
    assert!(session.stats().resumes > 5, "{:?}", session.stats());
    session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn a_cut_at_any_place_of_either_direction_is_invisible() -> Anything {
    for at in [1_900, 2_300, 2_650, 2_700, 2_760, 2_850, 3_000, 3_300, 5_000, 20_000, 60_000] {
        for (up, down) in
            [(Fault::Cut(at), Fault::None), (Fault::None, Fault::Reset(at)), (Fault::Flip(at), Fault::None)]
        {
            let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
            let proxy = Proxy::start_with_one_fault(&server, up, down).await;
            let results = server.receiver::<Vec<u8>>("results", 16)?;
            let mut config = Config::default();
            config.keepalive_dead = Duration::from_secs(3);
            config.keepalive_idle = Duration::from_secs(1);
            let Ok(session) = dial(proxy.ticket(&server), config).await else { continue };
            let to = within("open", session.sender::<Vec<u8>>("results")).await?;
            let sending = async {
                for n in 0..300_u32 {
                    to.send(n.to_be_bytes().repeat(60)).await.unwrap();
                }
                to.flush().await.unwrap();
            };
            let receiving = async {
                for n in 0..300_u32 {
                    assert_eq!(
                        results.recv().await.unwrap(),
                        Some(n.to_be_bytes().repeat(60)),
                        "{up:?} {down:?}"
                    );
                }
            };
            within("everything", async { tokio::join!(sending, receiving) }).await;
            session.close(DEADLINE).await?;
        }
    }
    Ok(())
}

/// Links are replaced, and keys renewed, all the time: nobody notices.
#[tokio::test]
async fn a_link_is_replaced_while_values_pass() -> Anything {
    let mut config = Config::default();
    config.renew_bytes = 200_000;
    config.rekey.records = 7;
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let (to, values) = server.channel::<Vec<u8>>("up", 16)?;
    let session = dial(server.ticket(), config).await?;
    let (mut events, mut server_events) = (session.events(), server.events());
    let (up, down) = (session.sender::<Vec<u8>>("up").await?, session.receiver::<Vec<u8>>("up").await?);
    drop(to);
    let sending = async {
        for n in 0..20_000_u32 {
            up.send(n.to_be_bytes().repeat(50)).await.unwrap();
        }
        up.flush().await.unwrap();
    };
    // Both ends receive from the channel: each gets rising numbers, and together they get all.
    let count = std::sync::atomic::AtomicU32::new(0);
    let take = async |receiver: &netchan::Receiver<Vec<u8>>| {
        let mut last = None;
        while count.load(std::sync::atomic::Ordering::SeqCst) < 20_000 {
            let Ok(received) = receiver.recv_timeout(Duration::from_millis(200)).await else { continue };
            let value = received.unwrap();
            let n = u32::from_be_bytes(*value.first_chunk().unwrap());
            assert_eq!(value, n.to_be_bytes().repeat(50));
            assert!(last < Some(n), "{last:?} before {n}");
            last = Some(n);
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    within("everything", async { tokio::join!(sending, take(&values), take(&down)) }).await;
    assert_eq!(count.into_inner(), 20_000);
    assert!(session.stats().resumes >= 5, "{:?}", session.stats());
    session.close(DEADLINE).await?;
    while let Some(event) = events.recv().await {
        assert!(!matches!(event, SessionEvent::Suspended { .. } | SessionEvent::Resumed), "{event}");
    }
    let last = within("the server's word", async {
        loop {
            match server_events.recv().await.map(|event| event.event) {
                Some(SessionEvent::Connected) => {}
                other => break other,
            }
        }
    });
    assert!(matches!(last.await, Some(SessionEvent::Gone(_))));
    Ok(())
}

#[tokio::test]
async fn a_link_is_replaced_when_its_time_is_over() -> Anything {
    let mut config = Config::default();
    config.renew_after = Duration::from_millis(20);
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let values = server.receiver::<u32>("values", 4)?;
    let session = dial(server.ticket(), config).await?;
    let sender = session.sender::<u32>("values").await?;
    let mut n = 0;
    while session.stats().resumes < 5 {
        within("send", sender.send(n)).await?;
        assert_eq!(within("recv", values.recv()).await?, Some(n));
        n += 1;
    }
    assert_eq!(session.state(), SessionState::Connected);
    session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn control_operations_in_flight_survive_a_cut() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let mut events = session.events();
    for round in 0..20_u32 {
        let name = format!("channel-{round}");
        // Opened, offered, accepted, used, withdrawn and closed, with a cut somewhere in between.
        let work = async {
            let (sender, receiver) = tokio::join!(session.sender::<u32>(&name), async {
                server.recv().await.unwrap().unwrap().accept_receiver::<u32>(0).await
            });
            let (sender, receiver) = (sender.unwrap(), receiver.unwrap());
            let timeout = sender.send_timeout(1, Duration::from_millis(1)).await;
            let sending = tokio::spawn(async move {
                sender.send(2).await.unwrap();
                sender.close_with(netchan::CloseReason::new(300, "done"));
            });
            let mut got = Vec::new();
            while let Some(value) = receiver.recv().await.unwrap() {
                got.push(value);
            }
            sending.await.unwrap();
            let taken = match timeout {
                Ok(()) => true,
                Err(netchan::SendTimeoutError::Timeout(_)) => false,
                Err(netchan::SendTimeoutError::InDoubt(doubt)) => doubt.outcome().await.is_ok(),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(got, if taken { vec![1, 2] } else { vec![2] });
            assert_eq!(receiver.close_reason().map(|reason| reason.code), Some(300));
        };
        let cutting = async {
            tokio::time::sleep(Duration::from_micros(u64::from(round) * 150)).await;
            proxy.cut_now();
        };
        within("a round", async { tokio::join!(work, cutting) }).await;
        within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    }
    session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn events_come_behind_the_data_received_before_them() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let (sender, receiver) = common::direct::<u32>(&server, &session, 64).await;
    let (mut events, mut server_events) = (session.events(), server.events());
    for round in 0..20 {
        for n in 0..3 {
            sender.send(round * 3 + n).await?;
        }
        sender.flush().await?;
        proxy.cut_now();
        let mut seen = 0;
        while seen < 2 {
            let event = within("a server's event", server_events.recv()).await.unwrap().event;
            match event {
                SessionEvent::Suspended { .. } | SessionEvent::Resumed => {
                    seen += 1;
                    assert!(receiver.len() as u32 >= 3, "what came before the event is here when it is told");
                }
                _ => {}
            }
        }
        within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
        for n in 0..3 {
            assert_eq!(receiver.recv().await?, Some(round * 3 + n));
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_hosted_is_announced_once_and_what_ended_meanwhile_is_taken_back() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let first = server.receiver::<u32>("first", 1)?;
    let _second = server.receiver::<u32>("second", 1)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let mut events = session.events();
    let offer = within("an offer", session.recv()).await?.ok_or("no offer")?;
    assert_eq!(offer.name(), "first");
    // "second" waits to be received; while nothing passes it ends, and a third begins.
    proxy.cut();
    within("suspended", async {
        while !matches!(events.recv().await, Some(SessionEvent::Suspended { .. })) {}
    })
    .await;
    _second.close();
    drop(_second);
    let _third = server.receiver::<u32>("third", 1)?;
    proxy.resume();
    within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    let offer = within("the next offer", session.recv()).await?.ok_or("no offer")?;
    assert_eq!(offer.name(), "third", "neither the first again, nor the second");
    drop(first);
    Ok(())
}

#[tokio::test]
async fn a_server_that_shuts_down_waits_for_nobody_who_cannot_come_back() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let tasks = server.sender::<u32>("tasks", 8)?;
    let away = dial(proxy.ticket(&server), Config::default()).await?;
    let receiver = away.receiver_with::<u32>("tasks", netchan::ChannelOptions::default().prefetch(2)).await?;
    tasks.send(1).await?;
    common::eventually("prefetched", || receiver.len() == 1).await;
    proxy.cut();
    common::eventually("the server knows", || server.clients()[0].state() == SessionState::Suspended).await;
    let begun = std::time::Instant::now();
    let report = within("shutdown", server.shutdown(Duration::from_secs(2))).await?;
    assert_eq!(report.undelivered, 1, "what it held is nobody's: {report}");
    assert!(begun.elapsed() < Duration::from_secs(6), "the deadline, with slack");
    Ok(())
}
