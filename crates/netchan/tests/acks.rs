//! Acknowledgements that are under way when the call returns: their order, their number, and what becomes of them when
//! futures are dropped, links are cut or sessions are lost.

mod common;

use std::collections::BTreeMap;
use std::panic::panic_any;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, Wakes, eventually, within};
use netchan::{
    AckError, ChannelOptions, Config, Deliveries, Delivery, Receiver, SendError, Sender, Server, Session,
    SessionEvent, WorkError, dial, listen_and_serve,
};
use serde::{Serialize, Serializer};

type Options = ChannelOptions<u32>;

/// Long enough not to pass by itself.
const LONG: Duration = Duration::from_secs(3_600);

/// A server behind a proxy, and a worker behind that.
struct Site {
    proxy: Proxy,
    server: Server,
    tasks: Sender<u32>,
    results: Receiver<u32>,
    session: Session,
    from: Deliveries<u32>,
    to: Sender<u32>,
}

async fn site(options: Options, config: Config) -> Result<Site, Box<dyn std::error::Error>> {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender_with("tasks", 256, options)?;
    let results = server.receiver("results", 256)?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = within("dial", dial(proxy.ticket(&server), config)).await?;
    let from = within("open", session.deliveries("tasks")).await?;
    let to = within("open", session.sender("results")).await?;
    Ok(Site { proxy, server, tasks, results, session, from, to })
}

async fn next(from: &Deliveries<u32>) -> Delivery<u32> {
    within("a delivery", from.recv()).await.expect("no error").expect("not the end")
}

/// Sends numbers from 0 on, and receives them all as deliveries.
async fn take(site: &Site, count: u32) -> Vec<Delivery<u32>> {
    let mut taken = Vec::new();
    for n in 0..count {
        site.tasks.send(n).await.expect("room");
        taken.push(next(&site.from).await);
    }
    taken
}

async fn resumed(session: &Session, proxy: &Proxy) {
    let mut events = session.events();
    proxy.resume();
    within("resumed", async { while !matches!(events.recv().await, Some(SessionEvent::Resumed)) {} }).await;
}

/// A result, a plain acknowledgement and what is given back keep the order of the calls, without any of them being polled.
#[tokio::test]
async fn what_is_said_is_said_in_the_order_of_the_calls_and_without_being_polled() -> Anything {
    let site = site(Options::default(), Config::default()).await?;
    let Site { tasks, results, from, to, .. } = &site;
    let held = take(&site, 100).await;
    let mut futures = Vec::new();
    for task in held {
        let n = *task;
        match n % 10 {
            9 => drop(task),
            8 => drop(task.nack()),
            7 => drop(task.ack()),
            _ => futures.push(task.ack_with(to, n)),
        }
    }
    // Both kinds of giving back put each at the head, in the order of the calls.
    let expected: Vec<u32> = (0..100).filter(|n| n % 10 < 7).collect();
    for expected in &expected {
        assert_eq!(within("recv", results.recv()).await?, Some(*expected));
    }
    within("flush", from.flush()).await?;
    for future in futures {
        within("its outcome", future).await?;
    }
    tasks.close();
    let mut again = Vec::new();
    while let Some(task) = within("recv", from.recv()).await? {
        assert_eq!(task.attempt(), 2);
        again.push(*task);
        drop(task.ack());
    }
    again.sort_unstable();
    assert_eq!(again, (0..100).filter(|n| n % 10 >= 8).collect::<Vec<_>>());
    Ok(())
}

/// With nothing coming back, everything is acknowledged and leaves, many acknowledgements to a record.
#[tokio::test]
async fn acknowledgements_need_no_answer_to_leave() -> Anything {
    let site = site(Options::default(), Config::default()).await?;
    let held = take(&site, 200).await;
    site.proxy.stall();
    let before = site.session.stats();
    let acks: Vec<_> = held.into_iter().map(Delivery::ack).collect();
    let sent = || site.session.stats().bytes_out - before.bytes_out;
    eventually("they have left", || sent() >= 200 * 4).await;
    // One for each would be a record of 22 bytes and more.
    assert!(sent() < 200 * 16, "{} bytes", sent());
    assert_eq!(site.session.stats().bytes_in, before.bytes_in, "no answer has come");
    let mut flush = pin!(site.from.flush());
    assert!(common::poll_once(&mut flush).await.is_pending());
    site.proxy.resume();
    within("flush", flush).await?;
    for ack in acks {
        within("its outcome", ack).await?;
    }
    Ok(())
}

/// Answers wake nobody who does not wait, and each who waits once.
#[tokio::test]
async fn only_who_awaits_is_woken() -> Anything {
    let site = site(Options::default(), Config::default()).await?;
    let mut held = take(&site, 3).await;
    let (third, second, first) = (held.pop().unwrap(), held.pop().unwrap(), held.pop().unwrap());
    site.proxy.stall();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut awaited = first.ack();
    let unpolled = second.ack();
    drop(third.ack());
    assert!(pin!(&mut awaited).poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(wakes.count(), 0);
    site.proxy.resume();
    within("flush", site.from.flush()).await?;
    assert_eq!(wakes.count(), 1);
    within("its outcome", awaited).await?;
    within("its outcome", unpolled).await?;
    Ok(())
}

/// What finds no room waits in the desk, in order, and leaves by itself; `extend` waits for its turn.
#[tokio::test]
async fn what_finds_no_room_waits_in_order() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender_with("tasks", 64, Options::default().unacked_max(40).delivery_grace(LONG))?;
    let results = server.receiver_with("results", 64, ChannelOptions::raw())?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    let to = within("open", session.sender_with("results", ChannelOptions::raw())).await?;
    let mut held = Vec::new();
    for n in 0..40 {
        tasks.send(n).await?;
        held.push(next(&from).await);
    }
    let last = held.pop().unwrap();
    proxy.stall();
    // Far more than the bytes that the server grants.
    let acks: Vec<_> =
        held.into_iter().map(|task| (*task, task.ack_with(&to, Bytes::from(vec![0; 300_000])))).collect();
    let extending = async {
        within("extended", last.extend(LONG)).await?;
        within("its outcome", last.ack_with(&to, Bytes::from_static(&[1])))
            .await
            .map_err(|error| error.reason)
    };
    let collecting = async {
        let mut got = Vec::new();
        for _ in 0..40 {
            got.push(within("recv", results.recv()).await.unwrap().unwrap().len());
        }
        got
    };
    // While it is stalled nobody gets anywhere.
    tokio::time::sleep(Duration::from_millis(20)).await;
    proxy.cut_now();
    proxy.resume();
    let (extended, got) = tokio::join!(extending, collecting);
    extended?;
    assert_eq!((got[..39].iter().all(|len| *len == 300_000), got[39]), (true, 1));
    for (n, ack) in acks {
        assert!(within("its outcome", ack).await.is_ok(), "{n}");
    }
    within("flush", from.flush()).await?;
    Ok(())
}

/// Handles and futures are all dropped: what was acknowledged is, also what had found no room.
#[tokio::test]
async fn what_was_acknowledged_outlives_every_handle() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender_with("tasks", 64, Options::default().delivery_grace(LONG))?;
    let results = server.receiver_with("results", 4, ChannelOptions::raw())?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    let to = within("open", session.sender_with("results", ChannelOptions::raw())).await?;
    let mut held = Vec::new();
    for n in 0..40 {
        tasks.send(n).await?;
        held.push(next(&from).await);
    }
    proxy.stall();
    for task in held {
        drop(task.ack_with(&to, Bytes::from(vec![0; 200_000])));
    }
    drop((from, to, session));
    proxy.resume();
    for n in 0..40 {
        assert_eq!(within("recv", results.recv()).await?.map(|value| value.len()), Some(200_000), "{n}");
    }
    eventually("the session ends by itself", || server.clients().is_empty()).await;
    let hosted = server.hosted().into_iter().find(|hosted| hosted.name == "tasks").expect("it is");
    assert_eq!((hosted.depth, hosted.unacked, hosted.redelivered), (0, 0, 0));
    Ok(())
}

#[tokio::test]
async fn flush_tells_of_the_failures_that_no_future_told() -> Anything {
    let site = site(Options::default().delivery_grace(Duration::from_millis(20)), Config::default()).await?;
    within("nothing to wait for", site.from.flush()).await?;
    let held = take(&site, 5).await;
    let ids: Vec<_> = held.iter().map(Delivery::id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    site.proxy.cut();
    eventually("fenced", || {
        site.server.hosted().iter().any(|hosted| hosted.name == "tasks" && hosted.depth == 5)
    })
    .await;
    let mut awaited = Vec::new();
    for (task, n) in held.into_iter().zip(0..) {
        match n {
            0 | 3 => drop(task.ack_with(&site.to, n)),
            1 => drop(task.nack()),
            _ => awaited.push(task.ack()),
        }
    }
    {
        let mut cancelled = pin!(site.from.flush());
        assert!(common::poll_once(&mut cancelled).await.is_pending());
    }
    resumed(&site.session, &site.proxy).await;
    let error = within("flush", site.from.flush()).await.expect_err("two were fenced");
    let failed: Vec<_> = error.failed.iter().map(|failed| failed.delivery).collect();
    assert_eq!((failed, error.more), (vec![0, 3], 0), "{error}");
    assert!(error.failed.iter().all(|failed| matches!(failed.reason, AckError::Fenced)));
    // One future has its failure, and the other is dropped with it.
    assert!(matches!(awaited.remove(0).await, Err(AckError::Fenced)));
    drop(awaited);
    let error = within("flush", site.from.flush()).await.expect_err("one was dropped since");
    assert_eq!(error.failed[0].delivery, 4);
    within("flush", site.from.flush()).await?;
    assert_eq!(site.results.len(), 0);
    Ok(())
}

/// Links are cut while acknowledgements are under way: each result is there exactly once, in order.
#[tokio::test]
async fn results_are_there_exactly_once_across_cuts() -> Anything {
    let site = site(Options::default().delivery_grace(LONG), Config::default()).await?;
    for round in 0..8 {
        let held = take(&site, 30).await;
        assert!(held.iter().all(|task| task.attempt() == 1));
        for (task, at) in held.into_iter().zip(0..) {
            if at == round * 3 {
                site.proxy.cut_now();
            }
            let n = *task;
            drop(task.ack_with(&site.to, n));
        }
        for expected in 0..30 {
            assert_eq!(within("recv", site.results.recv()).await?, Some(expected));
        }
        within("flush", site.from.flush()).await?;
    }
    assert_eq!(site.results.len(), 0);
    Ok(())
}

/// A session that is lost fails what is under way, with the right words, and later asks at once.
#[tokio::test]
async fn a_lost_session_leaves_what_is_under_way_in_doubt() -> Anything {
    let site = site(Options::default(), common::mortal()).await?;
    let mut held = take(&site, 4).await;
    let late = held.pop().unwrap();
    site.proxy.stall();
    let (mut outcomes, mut dropped) = (Vec::new(), held.len() as u64);
    outcomes.push(held.remove(0).ack());
    for task in held {
        drop(task.ack());
    }
    site.proxy.cut();
    for outcome in outcomes {
        dropped -= 1;
        assert!(matches!(within("its outcome", outcome).await, Err(AckError::InDoubt(_))));
    }
    let value = within("its outcome", late.ack_with(&site.to, 7)).await.unwrap_err();
    assert!(matches!(value.reason, AckError::Lost(_)), "{value}");
    assert_eq!(value.value, 7);
    let error = within("flush", site.from.flush()).await.expect_err("they are in doubt");
    assert_eq!(error.failed.len() as u64, dropped);
    assert!(error.failed.iter().all(|failed| matches!(failed.reason, AckError::InDoubt(_))), "{error}");
    Ok(())
}

const BYTES_MAX: usize = 1 << 16;

/// A result whose encoding fails, panics, is too long, or acknowledges something itself.
struct Odd {
    what: u32,
    other: parking_lot::Mutex<Option<Delivery<u32>>>,
}

impl Odd {
    fn new(what: u32) -> Self {
        Self { what, other: parking_lot::Mutex::default() }
    }
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(other) = self.other.lock().take() {
            drop(other.ack());
        }
        match self.what {
            1 => Err(serde::ser::Error::custom("no")),
            2 => panic_any("never"),
            // Longer than a message may be, and not longer with an ask's head.
            3 => vec![0_u8; BYTES_MAX].serialize(serializer),
            what => what.serialize(serializer),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self::new)
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_sent_comes_back_and_its_delivery_too() -> Anything {
    let server = common::serve().await;
    let tasks = server.sender::<u32>("tasks", 16)?;
    let odd = ChannelOptions::<Odd>::default;
    let results = server.receiver_with("results", 16, odd())?;
    let mut config = Config::default();
    config.limits.message_bytes_max = BYTES_MAX;
    let session = within("dial", dial(server.ticket(), config)).await?;
    let from = within("open", session.deliveries::<u32>("tasks")).await?;
    let to = within("open", session.sender_with("results", odd())).await?;
    tasks.send(1).await?;
    let failed = within("its outcome", next(&from).await.ack_with(&to, Odd::new(1))).await.unwrap_err();
    assert_eq!(failed.value.what, 1);
    assert!(matches!(failed.reason, AckError::Result(SendError::Encode { .. })), "{}", failed.reason);
    let task = next(&from).await;
    assert_eq!(task.attempt(), 2);
    let failed = within("its outcome", task.ack_with(&to, Odd::new(3))).await.unwrap_err();
    assert!(matches!(failed.reason, AckError::Result(SendError::TooLarge { .. })), "{}", failed.reason);
    let task = next(&from).await;
    assert_eq!(task.attempt(), 3);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.ack_with(&to, Odd::new(2))));
    assert!(panicked.is_err());
    let task = next(&from).await;
    assert_eq!(task.attempt(), 4);
    // One acknowledges another while it is encoded.
    tasks.send(2).await?;
    let result = Odd::new(9);
    *result.other.lock() = Some(next(&from).await);
    within("its outcome", task.ack_with(&to, result)).await.map_err(|error| error.reason)?;
    within("flush", from.flush()).await?;
    assert_eq!(within("recv", results.recv()).await?.map(|odd| odd.what), Some(9));
    tasks.close();
    assert!(within("the end", from.recv()).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_worker_goes_on_when_handlers_fail_and_panic() -> Anything {
    let site = site(Options::default(), Config::default()).await?;
    let Site { tasks, results, from, to, .. } = &site;
    for n in 0..40 {
        tasks.send(n).await?;
    }
    tasks.close();
    let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let working = from.work_with(4, to, std::future::pending(), async |task: &Delivery<u32>| {
        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
        at_once.fetch_sub(1, Ordering::SeqCst);
        match (**task % 10, task.attempt()) {
            (3, 1) => Err("not yet"),
            (4, 1) => panic_any("never mind"),
            _ => Ok(**task),
        }
    });
    let report = within("the work", working).await?;
    assert_eq!((report.done, report.given_back, report.fenced, report.lost), (40, 8, 0, 0));
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let mut seen = BTreeMap::new();
    while !results.is_empty() {
        *seen.entry(results.recv().await?.unwrap()).or_insert(0) += 1;
    }
    assert!(seen.len() == 40 && seen.values().all(|count| *count == 1), "{seen:?}");
    Ok(())
}

/// It stops in good order when it is told to, and what refuses its results ends it.
#[tokio::test]
async fn a_worker_stops_in_good_order() -> Anything {
    let site = site(Options::default(), Config::default()).await?;
    let Site { server, tasks, results, from, to, session, .. } = &site;
    for n in 0..6 {
        tasks.send(n).await?;
    }
    let (started, finish) = (AtomicUsize::new(0), tokio::sync::Notify::new());
    let stop = async { eventually("three are at work", || started.load(Ordering::SeqCst) == 3).await };
    let stopped = AtomicUsize::new(0);
    let stop = async {
        stop.await;
        stopped.store(1, Ordering::SeqCst);
        finish.notify_waiters();
    };
    let report = within(
        "the work",
        from.work_with(3, to, stop, async |task: &Delivery<u32>| {
            started.fetch_add(1, Ordering::SeqCst);
            if stopped.load(Ordering::SeqCst) == 0 {
                finish.notified().await;
            }
            Ok::<_, String>(**task)
        }),
    )
    .await?;
    assert_eq!(report.done, 3);
    assert_eq!(results.len(), 3);
    // Plain acknowledgements, in a task of their own.
    let worker = from.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(async move {
        let stopped = async { _ = stopped.await };
        worker.work(2, stopped, async |_| Ok::<_, String>(())).await
    });
    eventually("the rest is done", || {
        server.hosted().iter().any(|hosted| hosted.name == "tasks" && hosted.depth + hosted.unacked == 0)
    })
    .await;
    drop(stop);
    assert_eq!(within("the work", working).await??.done, 3);
    // Results that have nowhere to go.
    tasks.send(9).await?;
    results.close();
    let refused =
        from.work_with(2, to, std::future::pending(), async |task: &Delivery<u32>| Ok::<_, String>(**task));
    let refused = within("the work", refused).await.unwrap_err();
    assert!(matches!(refused, WorkError::Ack(AckError::ResultsClosed | AckError::NoResults)), "{refused}");
    next(from).await.ack().await?;
    session.close(DEADLINE).await?;
    Ok(())
}
