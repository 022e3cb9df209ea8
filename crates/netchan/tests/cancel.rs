//! Futures that are polled a few times and dropped lose nothing, and hand their turn on.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Anything, direct, eventually, join, pair, poll_and_drop, poll_once, serve, within};
use netchan::{Receiver, Sender};

/// Sends 0.. by futures that are dropped after some polls; a dropped send at C ≥ 1 was not sent, and is made again.
async fn send_all(sender: &Sender<u32>, count: u32) {
    for n in 0..count {
        let polls = (n % 4) as usize;
        let mut tries = 0;
        loop {
            tries += 1;
            let before = sender.stats().sent;
            match poll_and_drop(sender.send(n), tries.min(polls + 1)).await {
                Some(result) => break result.unwrap(),
                None => assert_eq!(sender.stats().sent, before, "a dropped send was not sent"),
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn receive_all(receiver: &Receiver<u32>, count: u32) {
    let mut expected = 0;
    let mut polls = 0;
    within("all values", async {
        while expected < count {
            polls = (polls + 1) % 5;
            if let Some(received) = poll_and_drop(receiver.recv(), polls).await {
                assert_eq!(received.unwrap(), Some(expected));
                expected += 1;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn dropped_sends_and_receives_lose_and_repeat_nothing() -> Anything {
    for capacity in [1, 3] {
        let (server, session) = pair().await;
        let (sender, receiver) = direct::<u32>(&server, &session, capacity).await;
        tokio::join!(send_all(&sender, 200), receive_all(&receiver, 200));
        let (hosted, values) = server.channel::<u32>("hosted", capacity)?;
        tokio::join!(send_all(&hosted, 200), receive_all(&values, 200));
        let remote = session.sender::<u32>("hosted").await?;
        tokio::join!(send_all(&remote, 100), receive_all(&values, 100));
    }
    Ok(())
}

#[tokio::test]
async fn dropped_receives_of_a_remote_hosted_channel_lose_nothing() -> Anything {
    let (server, session) = pair().await;
    let hosted = server.sender::<u32>("hosted", 4)?;
    let remote = session.receiver::<u32>("hosted").await?;
    let sending = async {
        for n in 0..100 {
            hosted.send(n).await.unwrap();
        }
    };
    let receiving = async {
        for n in 0..100 {
            let early = poll_and_drop(remote.recv_timeout(Duration::from_millis(n % 3)), 2).await;
            match early {
                Some(Ok(received)) => assert_eq!(received, Some(n as u32)),
                Some(Err(_)) | None => assert_eq!(remote.recv().await.unwrap(), Some(n as u32)),
            }
        }
    };
    within("all", async { tokio::join!(sending, receiving) }).await;
    Ok(())
}

/// Every waiter but the last is dropped, after what it waited for has come and woken it; the last gets it. The last is a
/// task of its own: nothing but its own wake-up lets it go on.
#[tokio::test]
async fn a_dropped_waiter_passes_its_turn_on() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 1).await;
    let hosted = server.channel::<u32>("hosted", 1)?;
    let leased = session.sender::<u32>("hosted").await?;
    for (sender, receiver) in [(sender, receiver), (leased, hosted.1.clone()), hosted] {
        // Receives.
        let mut waiters: Vec<_> = (0..4).map(|_| Box::pin(receiver.recv())).collect();
        for waiter in &mut waiters {
            assert!(poll_once(waiter).await.is_pending());
        }
        let last = tokio::spawn({
            let receiver = receiver.clone();
            async move { receiver.recv().await }
        });
        eventually("all wait", || receiver.stats().waiting == 5).await;
        sender.send(1).await?;
        eventually("it is here", || receiver.len() == 1).await;
        for waiter in waiters {
            drop(waiter);
            tokio::task::yield_now().await;
        }
        assert_eq!(within("the last receive", last).await??, Some(1));
        // Reservations, and sends behind them.
        sender.send(2).await?;
        let mut waiters: Vec<_> = (0..4).map(|_| Box::pin(sender.reserve())).collect();
        for waiter in &mut waiters {
            assert!(poll_once(waiter).await.is_pending());
        }
        let last = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(3).await }
        });
        eventually("all wait", || sender.stats().waiting == 5).await;
        assert_eq!(receiver.recv().await?, Some(2));
        eventually("the place is here", || sender.capacity() == 1).await;
        for waiter in waiters {
            drop(waiter);
            tokio::task::yield_now().await;
        }
        within("the last send", last).await??;
        assert_eq!(receiver.recv().await?, Some(3));
    }
    Ok(())
}

#[tokio::test]
async fn two_tasks_that_want_every_place_do_not_block_each_other() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 4).await;
    let (hosted, values) = server.channel::<u32>("hosted", 4)?;
    for (sender, receiver) in [(sender, receiver), (hosted, values)] {
        for _ in 0..4 {
            sender.send(0).await?;
        }
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for _ in 0..10 {
                        for permit in sender.reserve_many(4).await.unwrap() {
                            permit.send(1).unwrap();
                        }
                    }
                })
            })
            .collect();
        let consumer = tokio::spawn(async move {
            for _ in 0..4 + 3 * 10 * 4 {
                receiver.recv().await.unwrap().unwrap();
                tokio::task::yield_now().await;
            }
        });
        for task in tasks {
            within("all get their places", task).await?;
        }
        within("the consumer", consumer).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_offer_of_capacity_zero_goes_somewhere_or_nowhere_but_once() -> Anything {
    let (server, session) = pair().await;
    let (direct_sender, direct_receiver) = direct::<u32>(&server, &session, 0).await;
    let (hosted, values) = server.channel::<u32>("hosted", 0)?;
    let remote = session.sender::<u32>("hosted").await?;
    for (sender, receiver) in [(direct_sender, direct_receiver), (hosted, values.clone()), (remote, values)] {
        let producer = tokio::spawn(async move {
            let mut done = BTreeSet::new();
            for n in 0..100_u32 {
                if poll_and_drop(sender.send(n), (n % 7) as usize).await.is_some() {
                    done.insert(n);
                }
            }
            within("the last", sender.send(100)).await.unwrap();
            (sender, done)
        });
        let mut got = Vec::new();
        loop {
            let value = within("recv", receiver.recv()).await?.unwrap();
            got.push(value);
            if value == 100 {
                break;
            }
        }
        let (_sender, done) = within("the producer", producer).await?;
        assert!(got.is_sorted() && got.windows(2).all(|pair| pair[0] != pair[1]), "{got:?}");
        assert!(done.iter().all(|n| got.contains(n)), "a completed send was received");
    }
    Ok(())
}

#[tokio::test]
async fn a_time_limit_of_capacity_zero_hands_the_turn_on() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<u32>(&server, &session, 0).await;
    let first = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send_timeout(1, Duration::from_millis(20)).await }
    });
    eventually("it is on offer", || sender.stats().sent == 1).await;
    let second = tokio::spawn(async move { sender.send(2).await });
    assert!(within("the first", first).await?.is_err());
    assert_eq!(within("recv", receiver.recv()).await?, Some(2));
    within("the second", second).await??;
    Ok(())
}

#[tokio::test]
async fn offers_survive_dropped_receives() -> Anything {
    let server = serve().await;
    let session = join(&server).await;
    let opening: Vec<_> = (0..10)
        .map(|n| {
            let (name, session) = (format!("channel-{n}"), &session);
            async move { session.sender::<u32>(&name).await.map(|sender| sender.name().to_owned()) }
        })
        .map(Box::pin)
        .collect();
    let accepting = async {
        let mut names = BTreeSet::new();
        let mut polls = 0;
        while names.len() < 10 {
            polls = (polls + 1) % 4;
            if let Some(offer) = poll_and_drop(server.recv(), polls).await {
                let offer = offer.unwrap().unwrap();
                let receiver = offer.accept_receiver::<u32>(1).await.unwrap();
                assert!(names.insert(receiver.name().to_owned()));
            }
            tokio::task::yield_now().await;
        }
    };
    let mut opened = Vec::new();
    within("all opened", async {
        tokio::join!(accepting, async {
            for open in opening {
                opened.push(open.await.unwrap());
            }
        })
    })
    .await;
    // Announcements too: what was hosted is offered to the client, once each.
    let _hosted: Vec<_> =
        (0..10).map(|n| server.channel::<u32>(&format!("hosted-{n}"), 1).unwrap()).collect();
    let mut names = BTreeSet::new();
    within("announcements", async {
        let mut polls = 0;
        while names.len() < 10 {
            polls = (polls + 1) % 4;
            if let Some(offer) = poll_and_drop(session.recv(), polls).await {
                assert!(names.insert(offer.unwrap().unwrap().name().to_owned()));
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    Ok(())
}

/// A send that gave way in mid-burst, and is not polled again, holds up nobody.
#[tokio::test]
async fn a_send_that_is_left_unpolled_holds_up_no_other_channel() -> Anything {
    let (server, session) = pair().await;
    let (sender, _receiver) = direct::<u32>(&server, &session, 256).await;
    let (other, others) = direct::<u32>(&server, &session, 64).await;
    // So many values have one unit of the budget; the next is to pay.
    for n in 0..64 {
        sender.send(n).await?;
    }
    let consumer = tokio::spawn(async move {
        for n in 0..20 {
            assert_eq!(others.recv().await.unwrap(), Some(n));
        }
    });
    // Polled when the task has used up its budget: it gives way.
    let mut paused = Box::pin(sender.send(1));
    std::future::poll_fn(|cx| {
        while tokio::task::coop::has_budget_remaining() {
            let mut consume = std::pin::pin!(tokio::task::coop::consume_budget());
            _ = consume.as_mut().poll(cx);
        }
        assert!(paused.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    for n in 0..20 {
        other.send(n).await?;
    }
    within("the other channel goes on", consumer).await?;
    within("the send itself", paused).await?;
    Ok(())
}
