//! A server that receives with acknowledgement.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::killed::{Mortal, until};
use common::{Anything, eventually, join, poll_once, serve, within};
use netchan::{
    AckError, ChannelOptions, Config, Deliveries, Delivery, Identity, LossPolicy, Server, SessionEvent, dial,
};

async fn next(from: &Deliveries<u32>) -> Delivery<u32> {
    within("a delivery", from.recv()).await.expect("no error").expect("not the end")
}

fn info(server: &Server, name: &str) -> netchan::HostedInfo {
    server.hosted().into_iter().find(|info| info.name == name).expect("it is hosted")
}

#[tokio::test]
async fn del_14_the_capacity_and_send_acked_count_acknowledgements() -> Anything {
    let server = serve().await;
    let results = server.deliveries::<u32>("results", 2)?;
    let session = join(&server).await;
    let to = session.sender::<u32>("results").await?;
    to.send(1).await?;
    let mut acked = Box::pin(to.send_acked(2));
    assert!(poll_once(&mut acked).await.is_pending());
    let (first, second) = (next(&results).await, next(&results).await);
    assert_eq!((*first, *second, first.attempt(), first.redelivered()), (1, 2, 1, false));
    assert_eq!((first.id(), second.id()), (0, 1));
    // Both were received, and neither is done: no third goes in.
    let mut third = Box::pin(to.send(3));
    assert!(poll_once(&mut third).await.is_pending());
    eventually("it waits for credit", || info(&server, "results").senders_waiting == 1).await;
    assert!(poll_once(&mut third).await.is_pending() && poll_once(&mut acked).await.is_pending());
    drop(third);
    assert_eq!((info(&server, "results").unacked, results.stats().taken), (2, 2));
    second.ack().await?;
    within("there is room", to.send(4)).await?;
    assert!(poll_once(&mut acked).await.is_pending(), "what was sent before it is not done");
    first.nack_after(Duration::ZERO).await?;
    let mut rest = BTreeSet::new();
    for _ in 0..2 {
        let delivery = next(&results).await;
        rest.insert((*delivery, delivery.attempt(), delivery.redelivered()));
        delivery.ack().await?;
    }
    assert_eq!(rest, [(1, 2, true), (4, 1, false)].into());
    within("acknowledged", acked).await?;
    results.close();
    assert!(within("the end", results.recv()).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn what_is_dropped_comes_again_and_what_was_taken_out_is_the_programs() -> Anything {
    let server = serve().await;
    let results = server.deliveries::<u32>("results", 8)?;
    let to = join(&server).await.sender::<u32>("results").await?;
    to.send(7).await?;
    drop(next(&results).await);
    let again = next(&results).await;
    assert_eq!((*again, again.attempt()), (7, 2));
    again.extend(Duration::from_secs(60)).await?;
    let (value, receipt) = again.into_parts();
    assert_eq!(value, 7);
    // A receive that is given up gives up its turn, and loses nothing.
    let mut given_up = Box::pin(results.recv());
    assert!(poll_once(&mut given_up).await.is_pending());
    drop(given_up);
    to.send(8).await?;
    assert_eq!(*next(&results).await, 8);
    receipt.ack().await?;
    Ok(())
}

/// A delivery whose lease has passed is another's, and its result is not committed.
#[tokio::test]
async fn what_was_kept_for_too_long_is_fenced_here_too() -> Anything {
    let server = serve().await;
    let options = ChannelOptions::default().delivery_lease(Duration::from_millis(30));
    let tasks = server.deliveries_with::<u32>("tasks", 8, options)?;
    let results = server.receiver::<u32>("results", 8)?;
    let (done, _both) = server.channel::<u32>("done", 1)?;
    let to = join(&server).await.sender::<u32>("tasks").await?;
    to.send(1).await?;
    let late = next(&tasks).await;
    let again = next(&tasks).await;
    assert_eq!((*again, again.attempt()), (1, 2));
    let refused = late.ack_with(&done, 1).await.unwrap_err();
    assert!(matches!(refused.reason, AckError::Fenced), "{refused}");
    again.ack_with(&done, 2).await?;
    assert_eq!(done.stats().sent, 1);
    drop(results);
    Ok(())
}

/// One step in a server's own process too: a result waits for its place, in order, and its delivery is held as long.
#[tokio::test]
async fn results_wait_for_their_places_in_order() -> Anything {
    let server = serve().await;
    let tasks = server.deliveries::<u32>("tasks", 8)?;
    let (done, collected) = server.channel::<u32>("done", 1)?;
    let to = join(&server).await.sender::<u32>("tasks").await?;
    for n in 0..4 {
        to.send(n).await?;
    }
    let mut acks = Vec::new();
    for n in 0..4 {
        let task = next(&tasks).await;
        assert_eq!(*task, n);
        acks.push(task.ack_with(&done, n + 10));
    }
    assert_eq!(info(&server, "tasks").unacked, 3, "one result is in its place");
    let mut flushing = Box::pin(tasks.flush());
    assert!(poll_once(&mut flushing).await.is_pending());
    for n in 0..4 {
        assert_eq!(within("recv", collected.recv()).await?, Some(n + 10));
    }
    within("flush", flushing).await?;
    for ack in acks {
        within("the outcome", ack).await?;
    }
    assert_eq!(info(&server, "tasks").unacked, 0);
    // A future that is dropped changes nothing, and a failure is told by `flush`.
    to.send(4).await?;
    to.send(5).await?;
    let (fifth, sixth) = (next(&tasks).await, next(&tasks).await);
    drop(fifth.ack_with(&done, 14));
    let id = sixth.id();
    drop(sixth.ack_with(&done, 15));
    done.close();
    let failed = within("flush", tasks.flush()).await.unwrap_err();
    assert_eq!(failed.failed.iter().map(|failed| failed.delivery).collect::<Vec<_>>(), [id]);
    let again = next(&tasks).await;
    assert_eq!((*again, again.attempt()), (5, 2), "it is done by somebody else");
    again.ack().await?;
    Ok(())
}

#[tokio::test]
async fn work_goes_on_in_the_servers_own_process() -> Anything {
    let server = serve().await;
    let results = server.deliveries::<u32>("results", 4)?;
    let to = join(&server).await.sender::<u32>("results").await?;
    let sending = tokio::spawn(async move {
        for n in 0..50 {
            to.send(n).await.unwrap();
        }
    });
    let (seen, mut got) = tokio::sync::mpsc::unbounded_channel();
    let closing = results.clone();
    let report = within(
        "the work",
        results.work(3, std::future::pending(), async |result: &Delivery<u32>| {
            seen.send(**result).map_err(|error| error.to_string())?;
            if **result == 49 {
                closing.close();
            }
            Ok::<_, String>(())
        }),
    )
    .await?;
    sending.await?;
    assert_eq!(report.done, 50);
    let mut all = BTreeSet::new();
    while let Ok(value) = got.try_recv() {
        assert!(all.insert(value));
    }
    assert!(all.into_iter().eq(0..50));
    Ok(())
}

/// When the last handle and the last delivery are gone nobody receives any more.
#[tokio::test]
async fn the_channel_ends_with_the_last_of_its_handles() -> Anything {
    let server = serve().await;
    let results = server.deliveries::<u32>("results", 4)?;
    assert!(server.deliveries::<u32>("results", 4).is_err(), "the name is taken");
    let session = join(&server).await;
    let to = session.sender::<u32>("results").await?;
    assert!(session.receiver::<u32>("results").await.is_err(), "only the server receives");
    to.send(1).await?;
    let held = next(&results).await;
    drop(results);
    assert!(!to.is_closed());
    drop(held);
    within("closed", to.closed()).await;
    eventually("it is gone", || server.hosted().is_empty()).await;
    Ok(())
}

/// A collector that dies loses nothing that it had not acknowledged: its sender still has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_had_not_acknowledged_when_it_was_killed_is_sent_again() -> Anything {
    const VALUES: u32 = 300;
    let identity = Identity::generate();
    let mut collector = Mortal::start(&common::own_address(), &identity).await;
    let address = collector.address();
    let mut results = collector.server().deliveries::<u32>("results", 8)?;
    let session = dial(collector.server().ticket(), Config::default()).await?;
    let mut events = session.events();
    let options = ChannelOptions::<u32>::default().on_loss(LossPolicy::Resend);
    let to = session.sender_with::<u32>("results", options).await?;
    let sending = tokio::spawn(async move {
        for n in 0..VALUES {
            to.send(n).await.unwrap();
        }
        to
    });
    let mut kept = BTreeSet::new();
    for life in 1.. {
        // In each life others are in hand when it ends, and in every fourth one none.
        let mut in_hand = Vec::new();
        for _ in 0..37 {
            // Nothing more comes once all are kept or in hand.
            let here = in_hand.iter().map(|result: &Delivery<u32>| **result).filter(|n| !kept.contains(n));
            if kept.len() + here.count() == VALUES as usize || in_hand.len() == 6 {
                break;
            }
            let result = next(&results).await;
            if life % 4 > 0 && (*result + life).is_multiple_of(3) {
                in_hand.push(result);
            } else {
                kept.insert(*result);
                result.ack().await?;
            }
        }
        if kept.len() == VALUES as usize {
            break;
        }
        assert!(life < 200, "it gets on");
        // A killed process drops nothing.
        std::mem::forget((in_hand, results));
        collector.kill();
        until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
        collector = Mortal::start(&address, &identity).await;
        results = collector.server().deliveries::<u32>("results", 8)?;
    }
    assert!(kept.into_iter().eq(0..VALUES));
    within("the sends", sending).await?;
    Ok(())
}

/// Without room a send is a rendezvous, and it lasts until its value is done.
#[tokio::test]
async fn without_capacity_a_send_lasts_until_its_value_is_acknowledged() -> Anything {
    let server = serve().await;
    let results = server.deliveries::<u32>("results", 0)?;
    let to = join(&server).await.sender::<u32>("results").await?;
    for n in 0..3 {
        let mut sending = Box::pin(to.send(n));
        assert!(poll_once(&mut sending).await.is_pending());
        let receiving = next(&results);
        tokio::pin!(receiving);
        let result = tokio::select! {
            result = &mut receiving => result,
            sent = &mut sending => panic!("nobody has it: {sent:?}"),
        };
        assert_eq!(*result, n);
        assert!(poll_once(&mut sending).await.is_pending());
        result.ack().await?;
        within("sent", sending).await?;
    }
    Ok(())
}
