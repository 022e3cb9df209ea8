//! A real TCP session, cut at each byte of its first 64 KiB, in either direction: every value arrives once and in order.
//!
//! Every run of the tests takes a sample of the places. All of them, 65,536 for each direction:
//!
//! ```text
//! NETCHAN_CUTS=all cargo test --release -p netchan --test cut_everywhere -- --nocapture
//! ```

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::{DEADLINE, within};
use netchan::{Config, Server, Session, dial, listen_and_serve};

/// The places that are cut.
const BYTES: usize = 64 * 1_024;

/// Places of each direction in a sample.
const SAMPLE: usize = 90;

/// Enough values for the last place to lie among them.
const VALUES: u32 = 320;

/// Sessions at once.
const AT_ONCE: usize = 16;

#[derive(Clone, Copy, Debug)]
enum To {
    Server,
    Client,
}

fn value(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(56)
}

/// A session over a connection that is cut once, after so many bytes toward one end. A cut in the handshake is an error of
/// `dial`, and then it is dialed again.
async fn cut_at(place: usize, to: To) {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await.unwrap();
    let fault = if place.is_multiple_of(2) { Fault::Cut(place) } else { Fault::Reset(place) };
    let (up, down) = match to {
        To::Server => (fault, Fault::None),
        To::Client => (Fault::None, fault),
    };
    let proxy = Proxy::start_with_one_fault(&server, up, down).await;
    let session = match dial(proxy.ticket(&server), Config::default()).await {
        Ok(session) => session,
        Err(_) => dial(proxy.ticket(&server), Config::default()).await.unwrap(),
    };
    exchange(&server, &session).await;
    let report = session.close(DEADLINE).await.unwrap();
    assert!(report.is_complete(), "{report}");
}

/// Values both ways, and across a channel of capacity 0.
async fn exchange(server: &Server, session: &Session) {
    let results = server.receiver::<Vec<u8>>("results", 16).unwrap();
    let tasks = server.sender::<Vec<u8>>("tasks", 16).unwrap();
    let meet = server.receiver::<u32>("meet", 0).unwrap();
    let (to, from) = (session.sender("results").await.unwrap(), session.receiver("tasks").await.unwrap());
    let meeting = session.sender::<u32>("meet").await.unwrap();
    tokio::join!(
        async {
            for n in 0..VALUES {
                to.send(value(n)).await.unwrap();
            }
        },
        async {
            for n in 0..VALUES {
                assert_eq!(results.recv().await.unwrap(), Some(value(n)), "up");
            }
        },
        async {
            for n in 0..VALUES {
                tasks.send(value(n)).await.unwrap();
            }
        },
        async {
            for n in 0..VALUES {
                assert_eq!(from.recv().await.unwrap(), Some(value(n)), "down");
            }
        },
        async {
            for n in 0..20 {
                meeting.send(n).await.unwrap();
            }
        },
        async {
            for n in 0..20 {
                assert_eq!(meet.recv().await.unwrap(), Some(n), "rendezvous");
            }
        },
    );
}

/// The places to cut: a sample, or all.
fn places() -> Vec<usize> {
    match std::env::var("NETCHAN_CUTS").as_deref() {
        Ok("all") => (0..BYTES).collect(),
        Ok(count) => {
            let count: usize = count.parse().expect("NETCHAN_CUTS is a number, or \"all\"");
            (0..BYTES).step_by(BYTES / count.clamp(1, BYTES)).collect()
        }
        // The handshake, the confirmation and what follows are dense with places that differ.
        Err(_) => (0..SAMPLE / 3)
            .map(|n| 1_800 + n * 53)
            .chain((0..BYTES).step_by(BYTES / (2 * SAMPLE / 3)))
            .collect(),
    }
}

async fn cut_everywhere(to: To) {
    let places = Arc::new(places());
    let (next, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (places, next, cut) = (Arc::clone(&places), Arc::clone(&next), Arc::clone(&cut));
        workers.spawn(async move {
            while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                let run = tokio::spawn(cut_at(place, to));
                let ended = tokio::time::timeout(Duration::from_secs(60), run).await;
                assert!(matches!(ended, Ok(Ok(()))), "cut after {place} bytes toward the {to:?}: {ended:?}");
                let done = cut.fetch_add(1, Ordering::Relaxed) + 1;
                if done.is_multiple_of(4_096) {
                    println!("{done} of {} cuts toward the {to:?}", places.len());
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    println!("{} cuts toward the {to:?}: nothing lost, repeated or reordered", cut.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_bytes_toward_the_server() {
    cut_everywhere(To::Server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_bytes_toward_the_client() {
    cut_everywhere(To::Client).await;
}

#[tokio::test]
async fn the_exchange_is_long_enough_for_every_place() {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await.unwrap();
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await.unwrap();
    within("the exchange", exchange(&server, &session)).await;
    session.close(DEADLINE).await.unwrap();
    assert!(proxy.sent_up().len() > BYTES && proxy.sent_down().len() > BYTES);
}
