//! Workers that are killed with SIGKILL at any moment, between a result and its acknowledgement among them.

#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::process::{Process, role, say};
use common::{Anything, within};
use netchan::{ChannelOptions, Config, Server, dial, listen_and_serve};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Kills in all, over servers that run side by side.
const KILLS: usize = 200;
const SERVERS: usize = 4;
/// Tasks that a worker has to do before it is killed, or another after.
const TASKS_EACH: u32 = 20;

/// What a child runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_process() -> Anything {
    match role() {
        (role, ticket) if role == "worker" => work(&ticket, false).await,
        (role, ticket) if role == "telltale" => work(&ticket, true).await,
        _ => Ok(()),
    }
}

/// Works; tells, if that is wanted, whenever a result is on its way and nothing is known of its acknowledgement.
async fn work(ticket: &str, tells: bool) -> Anything {
    let session = dial(ticket, Config::default()).await?;
    let results = session.sender::<u32>("results").await?;
    let options = ChannelOptions::<u32>::default().prefetch(3);
    let tasks = session.deliveries_with("tasks", options).await?;
    say("ready");
    let mut rng = StdRng::from_os_rng();
    while let Some(task) = tasks.recv().await? {
        // Work, or what looks like it from outside.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..1_500))).await;
        let result = *task * 2;
        let acknowledging = task.ack_with(&results, result);
        if tells {
            say("on its way");
        }
        acknowledging.await?;
    }
    Ok(())
}

async fn worker(server: &Server, role: &str) -> Process {
    let mut worker = Process::start(role, &server.ticket().to_string(), &[]);
    assert_eq!(within("a worker", worker.line()).await.as_deref(), Some("ready"));
    worker
}

/// Kills so many workers of one server, one after another, and returns what was redelivered.
async fn kill_again_and_again(kills: usize, seed: u64, grace: Duration) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await.unwrap();
    let options = ChannelOptions::default().delivery_grace(grace);
    let tasks = server.sender_with::<u32>("tasks", 64, options).unwrap();
    let results = server.receiver::<u32>("results", 8).unwrap();
    let mut _survivor = worker(&server, "worker").await;
    let mut done = BTreeSet::new();
    let mut next = 0;
    for round in 0..kills {
        // Every other one is killed between a result and its acknowledgement.
        let between = round % 2 == 1;
        let mut victim = worker(&server, if between { "telltale" } else { "worker" }).await;
        for _ in 0..TASKS_EACH {
            within("room for a task", tasks.send(next)).await.unwrap();
            next += 1;
        }
        let killing = async {
            let moment = Duration::from_micros(rng.random_range(0..12_000));
            if between {
                let results = rng.random_range(1..6);
                let told = async {
                    for _ in 0..results {
                        victim.line().await;
                    }
                };
                // It may have got fewer tasks than that.
                _ = tokio::time::timeout(2 * moment + Duration::from_millis(10), told).await;
            } else {
                tokio::time::sleep(moment).await;
            }
            victim.child.kill().await.unwrap();
            Instant::now()
        };
        let collecting = async {
            while done.len() < next as usize {
                let result = within("a result", results.recv()).await.unwrap().expect("not the end");
                assert!(done.insert(result), "round {round}: result {result} is there twice");
            }
            Instant::now()
        };
        let (killed, all) = tokio::join!(killing, collecting);
        // The grace and a second, with the slack that real time needs.
        let took = all.saturating_duration_since(killed);
        assert!(
            took < 3 * (grace + Duration::from_secs(1)),
            "round {round}: others had its tasks after {took:?}"
        );
        assert_eq!(results.len(), 0, "round {round}: more results than tasks");
    }
    assert!(done.into_iter().eq((0..next).map(|task| task * 2)));
    server.stats().redelivered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_worker_is_killed_every_task_is_done_and_no_result_is_there_twice() -> Anything {
    let seed = std::env::var("NETCHAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let lanes: Vec<_> = (0..SERVERS as u64)
        .map(|lane| {
            let killing = kill_again_and_again(KILLS / SERVERS, seed * 100 + lane, Duration::from_millis(50));
            tokio::spawn(killing)
        })
        .collect();
    let mut redelivered = 0;
    for lane in lanes {
        redelivered += lane.await?;
    }
    assert!(redelivered > 0, "no worker was ever killed at work");
    Ok(())
}

/// As programs find it: half a second of grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_killed_worker_are_with_others_within_the_grace_and_a_second() -> Anything {
    kill_again_and_again(5, 7, Duration::from_millis(500)).await;
    Ok(())
}
