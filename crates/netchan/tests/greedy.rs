//! Clients with a ticket that say only what they may, and nothing that would help anybody else.

mod common;

use std::time::{Duration, Instant};

use common::raw::{Raw, raw};
use common::{Anything, within};
use netchan::{Config, Identity, Server, dial, listen_and_serve};
use netchan_proto::id::ChannelId;
use netchan_proto::limits::{CALL_BACK_AFTER_MILLIS, STALLED_AFTER_MILLIS, UNUSED_AFTER_MILLIS};
use netchan_proto::wire::{Frame, OpenFlow, Purpose, RefuseCode, WindowUpdate, Yield};

const STALLED: u16 = 11;

/// A deadline in real time, with slack for a busy machine.
const fn at_most(millis: u64) -> Duration {
    Duration::from_millis(3 * millis)
}

async fn server() -> Server {
    listen_and_serve("127.0.0.1:0", Config::default()).await.unwrap()
}

async fn attacker(server: &Server) -> Raw {
    let mut attacker = raw(server, 1, None).await.unwrap();
    attacker.confirm().await;
    attacker
}

fn wants(id: ChannelId) -> Frame {
    Frame::Want { id, limit: 1 << 32 }
}

fn waits(id: ChannelId, limit: u64) -> Frame {
    let (generation, received, taken) = (0, 0, 0);
    Frame::Window(WindowUpdate { id, generation, received, taken, limit, limit_bytes: 1 << 30 })
}

/// Takes all credit there is, and either says nothing when it is asked for it or that all of it is in use.
async fn takes_all_credit(lies: bool) -> Anything {
    let server = server().await;
    let collected = server.receiver::<u64>("results", 64)?;
    let mut attacker = attacker(&server).await;
    let id = attacker.open("results", "u64", OpenFlow::OpenerSends, Purpose::Values).await;
    attacker.say(&wants(id)).await;
    let all = attacker.hear(|frame| matches!(frame, Frame::Window(window) if window.limit == 64)).await;
    assert!(all.is_some(), "who is alone has all");

    let honest = dial(server.ticket(), Config::with_identity(Identity::generate())).await?;
    let sender = honest.sender::<u64>("results").await?;
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        sender.send(7).await.unwrap();
        sender
    });
    let asked = attacker.hear(|frame| matches!(frame, Frame::Recall(_))).await;
    let Some(Frame::Recall(recall)) = asked else { panic!("it is asked: {asked:?}") };
    if lies {
        let generation = recall.generation;
        attacker.say(&Frame::Yield(Yield { id, generation, limit: 64, committed: 64 })).await;
    }
    let over = attacker.hear(|frame| matches!(frame, Frame::Close(_))).await;
    assert!(matches!(over, Some(Frame::Close(close)) if close.id == id && close.code == STALLED));
    let sender = within("the honest client's value", sending).await?;
    assert!(begun.elapsed() < at_most(UNUSED_AFTER_MILLIS + STALLED_AFTER_MILLIS));
    assert_eq!(within("the value", collected.recv()).await?, Some(7));

    // It is kept out for a moment; nobody else is.
    let again = attacker.open("results", "u64", OpenFlow::OpenerSends, Purpose::Values).await;
    let refused = attacker.hear(|frame| matches!(frame, Frame::Refuse(_) | Frame::Accept(_))).await;
    assert!(
        matches!(&refused, Some(Frame::Refuse(refuse)) if refuse.id == again && refuse.code == RefuseCode::LimitReached),
        "{refused:?}"
    );
    within("another", honest.sender::<u64>("results")).await?;

    // Another of the same key comes when that is over, and has its part and no more.
    let mut limit = 0;
    while limit == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let id = attacker.open("results", "u64", OpenFlow::OpenerSends, Purpose::Values).await;
        attacker.say(&wants(id)).await;
        let heard = attacker
            .hear(|frame| match frame {
                Frame::Refuse(refuse) => refuse.id == id,
                Frame::Window(window) => window.id == id && window.limit >= 32,
                _ => false,
            })
            .await;
        if let Some(Frame::Window(window)) = heard {
            limit = window.limit;
        }
    }
    assert_eq!(limit, 32);
    for value in 0..100 {
        within("there is credit for others", sender.send(value)).await?;
        assert_eq!(within("the value", collected.recv()).await?, Some(value));
    }
    assert_eq!(server.hosted()[0].senders_waiting, 1, "the attacker's");
    Ok(())
}

#[tokio::test]
async fn host_29_credit_that_a_client_does_not_give_back_is_taken() -> Anything {
    takes_all_credit(false).await
}

#[tokio::test]
async fn host_28_credit_that_a_client_says_it_uses_and_does_not_is_taken() -> Anything {
    takes_all_credit(true).await
}

/// Asks for more than there is, takes nothing of it, and is asked back: again and again. Others go on meanwhile.
#[tokio::test]
async fn host_28_values_that_a_client_does_not_take_are_a_part_and_come_back() -> Anything {
    let server = server().await;
    let tasks = server.sender::<u64>("tasks", 64)?;
    let mut attacker = attacker(&server).await;
    let id = attacker.open("tasks", "u64", OpenFlow::OpenerReceives, Purpose::Values).await;
    attacker.say(&waits(id, 60_000)).await;
    let honest = dial(server.ticket(), Config::with_identity(Identity::generate())).await?;
    let worker = honest.receiver::<u64>("tasks").await?;
    let producing = tokio::spawn(async move {
        for task in 0..1_000 {
            tasks.send(task).await.unwrap();
        }
        tasks
    });
    let attack = tokio::spawn(async move {
        let reset = attacker.hear(|frame| matches!(frame, Frame::Reset(_))).await;
        (attacker, reset)
    });
    let mut done = Vec::new();
    let begun = Instant::now();
    while done.len() < 1_000 - 32 {
        done.extend(within("a task for the honest worker", worker.recv()).await?);
    }
    let (_attacker, reset) = loop {
        // Somebody waits, so what is out for long is asked back.
        if attack.is_finished() {
            break attack.await?;
        }
        if let Ok(task) = tokio::time::timeout(Duration::from_millis(50), worker.recv()).await {
            done.extend(task?);
        }
    };
    assert!(matches!(reset, Some(Frame::Reset(close)) if close.code == STALLED));
    assert!(
        begun.elapsed() < at_most(CALL_BACK_AFTER_MILLIS + 2 * STALLED_AFTER_MILLIS) + Duration::from_secs(5)
    );
    while done.len() < 1_000 {
        done.extend(within("what came back", worker.recv()).await?);
    }
    done.sort_unstable();
    assert!(done.into_iter().eq(0..1_000), "each once");
    _ = producing.await?;
    Ok(())
}
