//! Slow receivers stop their senders and nobody else, and the capacity law holds from end to end.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Anything, direct, eventually, join, pair, serve, within};
use netchan::{ChannelOptions, Config, Receiver, Sender, dial, listen_and_serve};

/// Completed sends and taken values; the law is checked after each completed send.
///
/// A value counts as taken before the receive that takes it returns, so what is counted is never less than what is known.
#[derive(Default)]
struct Law {
    capacity: u64,
    sent: AtomicU64,
    taking: AtomicU64,
}

impl Law {
    async fn produce(self: Arc<Self>, sender: Sender<u64>, values: std::ops::Range<u64>) {
        for value in values {
            sender.send(value).await.unwrap();
            let sent = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            let taken = self.taking.load(Ordering::SeqCst);
            assert!(sent <= taken + self.capacity, "{sent} sends, {taken} taken, capacity {}", self.capacity);
        }
    }

    async fn consume(self: Arc<Self>, receiver: Receiver<u64>, pause: Duration) -> Vec<u64> {
        let mut values = Vec::new();
        loop {
            // The receive that is under way may have taken its value already.
            self.taking.fetch_add(1, Ordering::SeqCst);
            let received = receiver.recv().await.unwrap();
            let Some(value) = received else { return values };
            values.push(value);
            if !pause.is_zero() && value % 8 == 0 {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn check(
    capacity: usize,
    senders: Vec<Sender<u64>>,
    receivers: Vec<Receiver<u64>>,
    close: impl FnOnce(),
) {
    const COUNT: u64 = 120;
    let law = Arc::new(Law { capacity: capacity as u64, ..Law::default() });
    let pauses = [Duration::ZERO, Duration::from_millis(1)];
    let consumers: Vec<_> = receivers
        .into_iter()
        .zip(pauses.into_iter().cycle())
        .map(|(receiver, pause)| tokio::spawn(Arc::clone(&law).consume(receiver, pause)))
        .collect();
    let producers: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(n, sender)| {
            let first = n as u64 * COUNT;
            tokio::spawn(Arc::clone(&law).produce(sender, first..first + COUNT))
        })
        .collect();
    let total = producers.len() as u64 * COUNT;
    for producer in producers {
        within("the producers", producer).await.unwrap();
    }
    close();
    let mut all = Vec::new();
    for consumer in consumers {
        let values = within("the consumers", consumer).await.unwrap();
        for sender in 0..total / COUNT {
            assert!(
                values.iter().filter(|&&value| value / COUNT == sender).is_sorted(),
                "in order for each sender"
            );
        }
        all.extend(values);
    }
    all.sort_unstable();
    assert_eq!(all, (0..total).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_capacity_law_of_direct_channels() -> Anything {
    let (server, session) = pair().await;
    for capacity in 0..=8 {
        for (senders, receivers) in [(1, 1), (3, 1), (1, 3), (3, 3)] {
            let (sender, receiver) = direct::<u64>(&server, &session, capacity).await;
            let senders = vec![sender; senders];
            check(capacity, senders, vec![receiver; receivers], || ()).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_capacity_law_of_hosted_channels() -> Anything {
    for capacity in 0..=8 {
        let server = serve().await;
        let (sender, receiver) = server.channel::<u64>("values", capacity)?;
        let clients = [join(&server).await, join(&server).await, join(&server).await];
        let mut senders = vec![sender.clone(), sender.clone()];
        let mut receivers = vec![receiver];
        for client in &clients {
            senders.push(client.sender::<u64>("values").await?);
            receivers.push(client.receiver::<u64>("values").await?);
        }
        check(capacity, senders, receivers, || sender.close()).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_stalled_receiver_stops_its_sender_and_no_other_channel() -> Anything {
    const WINDOW: u64 = 64 * 1_024;
    const MESSAGE: usize = 10_000;
    let mut config = Config::default();
    config.limits.window_bytes = WINDOW;
    config.limits.window_bytes_max = WINDOW;
    let server = listen_and_serve("127.0.0.1:0", config.clone()).await?;
    let session = dial(server.ticket(), config).await?;
    let (stalled, receiver) = direct::<Vec<u8>>(&server, &session, 1_000_000).await;
    let hosted = server.receiver::<Vec<u8>>("hosted", 1_000_000)?;
    let stalled_too = session.sender::<Vec<u8>>("hosted").await?;
    for sender in [&stalled, &stalled_too] {
        let flood = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.send(vec![1; MESSAGE]).await.is_ok() {} }
        });
        eventually("it is stopped", || sender.capacity() == 0 && sender.stats().waiting == 1).await;
        let (other, others) = direct::<Vec<u8>>(&server, &session, 4).await;
        for n in 0..100 {
            within("another channel", other.send(vec![n; MESSAGE])).await?;
            assert_eq!(within("another channel", others.recv()).await?, Some(vec![n; MESSAGE]));
        }
        let stats = sender.stats();
        assert!(stats.retained_bytes <= WINDOW + MESSAGE as u64 + 1_024, "{stats:?}");
        assert_eq!(stats.waiting, 1);
        flood.abort();
    }
    // What is there can be taken, and lets the sender go on.
    assert!(receiver.recv().await?.is_some() && hosted.recv().await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_slow_client_holds_no_more_than_it_asked_for() -> Anything {
    let server = serve().await;
    let hosted = server.sender::<Vec<u8>>("tasks", 1_000)?;
    let (slow, fast) = (join(&server).await, join(&server).await);
    let slow_tasks = slow.receiver_with::<Vec<u8>>("tasks", ChannelOptions::default().prefetch(3)).await?;
    let fast_tasks = fast.receiver::<Vec<u8>>("tasks").await?;
    for n in 0..200 {
        hosted.send(vec![n]).await?;
    }
    eventually("it has what it asked for", || slow_tasks.len() == 3).await;
    for n in 3..200 {
        assert_eq!(within("the fast one", fast_tasks.recv()).await?, Some(vec![n]));
    }
    assert_eq!(slow_tasks.len(), 3);
    Ok(())
}

/// What a sender keeps for its peer is bounded by its own window too. Where that holds it up, it asks, and waits for no timer:
/// in virtual time, which passes only while everyone sleeps.
#[tokio::test(start_paused = true)]
async fn a_senders_own_small_window_waits_for_no_timer() -> Anything {
    let server = common::serve().await;
    let mut config = Config::default();
    (config.limits.window_bytes, config.limits.window_bytes_max) = (64 * 1_024, 64 * 1_024);
    let session = dial(server.ticket(), config).await?;
    let (sender, receiver) = common::direct::<Vec<u8>>(&server, &session, 1_024).await;
    let begun = tokio::time::Instant::now();
    let sending = tokio::spawn(async move {
        for n in 0..2_000_u32 {
            sender.send(n.to_be_bytes().repeat(256)).await.unwrap();
        }
    });
    for n in 0..2_000_u32 {
        assert_eq!(receiver.recv().await?, Some(n.to_be_bytes().repeat(256)));
    }
    sending.await?;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    Ok(())
}
