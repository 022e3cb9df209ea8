//! A server that receives with acknowledgement, killed with SIGKILL at any moment.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::process::{Process, role, say, serve_again};
use common::{Anything, eventually, within};
use netchan::{ChannelOptions, Config, Identity, LossPolicy, Ticket, dial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Kills in all, over collectors that run side by side.
const KILLS: u64 = 200;
const LANES: u64 = 4;

/// What a child runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_process() -> Anything {
    match role() {
        (role, with) if role == "collector" => collect(&with).await,
        _ => Ok(()),
    }
}

/// `path of the identity|address`: says its ticket, then every value before it acknowledges it.
async fn collect(with: &str) -> Anything {
    let (path, address) = with.split_once('|').ok_or("what to serve with")?;
    let config = Config::with_identity(Identity::load_or_generate(path)?);
    let server = serve_again(address, &config).await?;
    let results = server.deliveries::<u32>("results", 8)?;
    say(&format!("ticket {}", server.ticket()));
    while let Some(result) = results.recv().await? {
        say(&format!("got {} {}", *result, result.redelivered()));
        result.ack().await?;
    }
    Ok(())
}

/// How often each value was received, and how often without the flag.
type Kept = BTreeMap<u32, (u32, u32)>;

async fn listen(mut collector: Process, kept: Arc<Mutex<Kept>>) {
    while let Some(line) = collector.line().await {
        let Some((value, redelivered)) = line.strip_prefix("got ").and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        let mut kept = kept.lock().unwrap();
        let (times, unflagged) = kept.entry(value.parse().unwrap()).or_default();
        *times += 1;
        *unflagged += u32::from(redelivered == "false");
    }
}

async fn kill_again_and_again(kills: u64, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    let with = |address: &str| format!("{}|{address}", path.display());
    let mut collector = Process::start("collector", &with(&common::own_address()), &[]);
    let line = within("the ticket", collector.line()).await.unwrap();
    let ticket: Ticket = line.strip_prefix("ticket ").unwrap().parse().unwrap();
    let (host, port) = ticket.addresses()[0].host_port().unwrap();
    let with = with(&format!("{host}:{port}"));

    let session = dial(&ticket, Config::default()).await.unwrap();
    let options = ChannelOptions::<u32>::default().on_loss(LossPolicy::Resend);
    let results = session.sender_with::<u32>("results", options).await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while stopped.try_recv().is_err() {
            within("send", results.send(sent)).await.unwrap();
            sent += 1;
        }
        within("the last is acknowledged", results.send_acked(sent)).await.unwrap();
        sent + 1
    });

    let kept = Arc::new(Mutex::new(Kept::new()));
    let received = |kept: &Mutex<Kept>| kept.lock().unwrap().values().map(|(times, _)| *times).sum::<u32>();
    let mut pid = collector.child.id().unwrap();
    let mut lives = vec![tokio::spawn(listen(collector, Arc::clone(&kept)))];
    for _ in 0..kills {
        let before = received(&kept);
        eventually("this one collects", || received(&kept) > before).await;
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..12_000))).await;
        let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(status.success());
        within("its last words", lives.pop().unwrap()).await.unwrap();
        let next = Process::start("collector", &with, &[]);
        pid = next.child.id().unwrap();
        lives.push(tokio::spawn(listen(next, Arc::clone(&kept))));
    }
    _ = stop.send(());
    let sent = sending.await.unwrap();
    // What the last one said is still on its way through the pipe.
    eventually("all are here", || kept.lock().unwrap().len() >= sent as usize).await;
    let kept = kept.lock().unwrap();
    assert!(kept.keys().copied().eq(0..sent), "seed {seed}: {sent} sent, {} are here", kept.len());
    let unflagged: Vec<_> = kept.iter().filter(|(_, (_, unflagged))| *unflagged > 1).collect();
    assert!(unflagged.is_empty(), "seed {seed}: twice, and not flagged: {unflagged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_collector_is_killed_nothing_is_lost_and_what_comes_again_says_so() {
    let seed: u64 = std::env::var("NETCHAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let lanes: Vec<_> =
        (0..LANES).map(|lane| tokio::spawn(kill_again_and_again(KILLS / LANES, seed * 100 + lane))).collect();
    for lane in lanes {
        lane.await.unwrap();
    }
}
