//! One server and many clients: who gets what, and what they can pin.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::{Anything, DEADLINE, eventually, within};
use netchan::{ChannelOptions, HostedInfo, Server};

fn hosted(server: &Server, name: &str) -> HostedInfo {
    server.hosted().into_iter().find(|hosted| hosted.name == name).expect("it is hosted")
}

/// Who has waited longest gets the next value, here or at a client, as a plain receiver or a holder.
#[tokio::test]
async fn the_longest_waiting_is_first_wherever_it_waits() -> Anything {
    let server = common::serve().await;
    let (tasks, here) = server.channel::<u32>("tasks", 16)?;
    let (one, two) = (common::join(&server).await, common::join(&server).await);
    let from_one = Arc::new(one.receiver::<u32>("tasks").await?);
    let from_two = two.deliveries::<u32>("tasks").await?;
    let here = Arc::new(here);
    for round in 0..20_u32 {
        // An order of its own for each round.
        let order: Vec<u32> = (0..6).map(|at| (at * (round % 5 + 1) + round) % 3).collect();
        let mut waiting = Vec::new();
        for (at, who) in order.iter().enumerate() {
            let (here, from_one, from_two) = (here.clone(), from_one.clone(), from_two.clone());
            waiting.push(match who {
                0 => tokio::spawn(async move { here.recv().await.unwrap() }),
                1 => tokio::spawn(async move { from_one.recv().await.unwrap() }),
                _ => tokio::spawn(async move {
                    let task = from_two.recv().await.unwrap()?;
                    let value = *task;
                    task.ack().await.unwrap();
                    Some(value)
                }),
            });
            eventually("it waits", || hosted(&server, "tasks").receivers == at as u64 + 1).await;
        }
        for n in 0..order.len() as u32 {
            tasks.send(round * 100 + n).await?;
        }
        for (n, got) in waiting.into_iter().enumerate() {
            assert_eq!(
                within("a value", got).await?,
                Some(round * 100 + n as u32),
                "round {round}: {order:?}"
            );
        }
    }
    Ok(())
}

/// The capacity law over all senders together.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_senders_share_one_capacity() -> Anything {
    const SENDERS: u32 = 50;
    const EACH: u32 = 60;
    for capacity in [1, 7, 64] {
        let server = common::serve().await;
        let results = server.receiver::<u32>("results", capacity)?;
        // Sends that completed and values that were received, the one less the other.
        let outstanding = Arc::new(AtomicI64::new(0));
        let senders: Vec<_> = (0..SENDERS)
            .map(|who| {
                let (ticket, outstanding) = (server.ticket(), Arc::clone(&outstanding));
                tokio::spawn(async move {
                    let session = netchan::dial(ticket, netchan::Config::default()).await.unwrap();
                    let to = session.sender::<u32>("results").await.unwrap();
                    for n in 0..EACH {
                        to.send(who * EACH + n).await.unwrap();
                        outstanding.fetch_add(1, Ordering::SeqCst);
                    }
                    assert!(session.close(DEADLINE).await.unwrap().is_complete());
                })
            })
            .collect();
        let mut got = Vec::new();
        while got.len() < (SENDERS * EACH) as usize {
            got.push(within("a value", results.recv()).await?.ok_or("the end")?);
            let left = outstanding.fetch_sub(1, Ordering::SeqCst) - 1;
            // One may have been taken and not counted yet.
            assert!(left <= capacity as i64 + 1, "{left} with capacity {capacity}");
            if got.len() % 64 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        got.sort_unstable();
        assert!(got.into_iter().eq(0..SENDERS * EACH));
        for sender in senders {
            within("a sender", sender).await?;
        }
    }
    Ok(())
}

/// Bytes of this process that are in memory.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("it is there");
    statm.split_whitespace().nth(1).expect("a field").parse::<u64>().expect("a number") * 4_096
}

/// However many receive nothing, they pin no more than their windows and one log.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_stalled_receivers_stay_within_the_limit() -> Anything {
    const STALLED: usize = 1_000;
    const BYTES: usize = 16 * 1_024;
    let server = common::serve().await;
    let state = server.broadcast_with("state", 64, ChannelOptions::raw())?;
    let tasks = server.sender_with("tasks", 256, ChannelOptions::raw())?;
    let mut stalled = Vec::new();
    // Each is another client's.
    for n in 0..STALLED {
        let session = common::join(&server).await;
        let options = ChannelOptions::raw().capacity(4).prefetch(4);
        let name = if n % 2 == 0 { "state" } else { "tasks" };
        stalled.push((within("open", session.receiver_with(name, options)).await?, session));
    }
    let before = resident_bytes();
    for n in 0..1_000_u32 {
        state.send(vec![n as u8; BYTES].into()).await?;
        // What nobody takes fills the channel, and then nothing more goes in.
        _ = tasks.try_send(vec![n as u8; BYTES].into());
    }
    let (of_state, of_tasks) = (hosted(&server, "state"), hosted(&server, "tasks"));
    assert!(of_state.bytes <= 65 * (BYTES as u64 + 1), "{of_state:?}");
    assert!(of_tasks.bytes <= 256 * BYTES as u64, "{of_tasks:?}");
    // Both ends are in this process: each window is full here and there, and is copied where it is sealed.
    let windows = (STALLED / 2 * 4 * BYTES) as u64;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 4 * windows + 64 * 1_024 * 1_024, "{grown} bytes for windows of {windows}");
    // Nobody else is held up.
    let other = common::join(&server).await;
    let reads = other.receiver_with("state", ChannelOptions::raw()).await?;
    state.send(vec![7; 3].into()).await?;
    assert_eq!(within("a value", reads.recv()).await?.as_deref(), Some(&[7, 7, 7][..]));
    Ok(())
}
