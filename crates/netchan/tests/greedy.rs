//! Clients with a ticket that say only what they may, and nothing that would help anybody else.

mod common;

use std::time::{Duration, Instant};

use common::raw::{Raw, raw};
use common::{Anything, within};
use netchan::{ChannelOptions, Config, Identity, Server, dial, listen_and_serve};
use netchan_proto::id::ChannelId;
use netchan_proto::limits::{
    ASSIGNED_ITEMS_MAX_DEFAULT, CALL_BACK_AFTER_MILLIS, STALLED_AFTER_MILLIS, SUBSCRIPTIONS_PER_KEY_MAX,
    UNUSED_AFTER_MILLIS,
};
use netchan_proto::wire::{Body, DataHeader, Frame, OpenFlow, Purpose, RefuseCode, WindowUpdate, Yield};

const STALLED: u16 = 11;
const OVER_LIMIT: u16 = 12;

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

/// Sends whole messages on many channels into a queue that nobody empties, each of them within the rules.
#[tokio::test]
async fn bound_1_a_client_makes_a_server_keep_so_much_and_no_more() -> Anything {
    const MIB: u64 = 1 << 20;
    let mut config = Config::default();
    config.limits.message_bytes_max = 1 << 20;
    config.limits.kept_bytes_per_session_max = 8 * MIB;
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let bounded = ChannelOptions::default().queue_bytes_max(MIB);
    let queue = server.receiver_with::<Vec<u8>>("results", 4_096, bounded)?;
    let mut attacker = attacker(&server).await;
    let mut channels = Vec::new();
    for _ in 0..16 {
        let id = attacker.open("results", "Vec<u8>", OpenFlow::OpenerSends, Purpose::Values).await;
        attacker.say(&Frame::Want { id, limit: 1 }).await;
        attacker
            .hear(|frame| matches!(frame, Frame::Window(window) if window.id == id && window.limit > 0))
            .await;
        channels.push(id);
    }
    let part = vec![0; 32 << 10];
    for id in &channels {
        for offset in (0..1_u32 << 20).step_by(part.len()) {
            let body = Body::Fragment { total: 1 << 20, offset };
            let header = DataHeader { first_seq: 0, ack_now: false, redelivered: false, body };
            attacker.data(*id, &header, &part).await?;
        }
    }
    let over = attacker.hear(|frame| matches!(frame, Frame::Close(_))).await;
    assert!(matches!(&over, Some(Frame::Close(close)) if close.code == OVER_LIMIT), "{over:?}");
    let Some(Frame::Close(close)) = over else { unreachable!() };
    assert!(close.reason.contains("kept_bytes_per_session_max"), "{}", close.reason);
    attacker.say(&Frame::Ping { nonce: 1 }).await;
    attacker.hear(|frame| matches!(frame, Frame::Pong { nonce: 1 })).await;
    let stats = server.stats();
    assert!(stats.kept_bytes <= 9 * MIB && stats.over_limit > 0, "{stats:?}");
    assert!(stats.kept_bytes >= 7 * MIB, "all that it may: {stats:?}");

    // Others are served, and what is gone is counted no more.
    let honest = dial(server.ticket(), Config::with_identity(Identity::generate())).await?;
    let sender = honest.sender::<Vec<u8>>("results").await?;
    let sending = tokio::spawn(async move { sender.send(vec![7]).await });
    // What the attacker sent is none of the type.
    while within("a value", queue.recv()).await.ok().flatten() != Some(vec![7]) {}
    sending.await??;
    drop(attacker);
    server.clients().iter().for_each(|client| drop(client.disconnect("enough")));
    let gone = async {
        while server.stats().kept_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the account is empty", gone).await;
    Ok(())
}

#[tokio::test]
async fn bound_2_the_more_channels_a_session_has_the_smaller_their_first_windows_are() -> Anything {
    let server = server().await;
    let _queue = server.receiver::<u64>("results", 4)?;
    let mut attacker = attacker(&server).await;
    let mut windows = Vec::new();
    for _ in 0..1_100 {
        let id = attacker.open("results", "u64", OpenFlow::OpenerSends, Purpose::Values).await;
        let accepted = attacker.hear(|frame| matches!(frame, Frame::Accept(accept) if accept.id == id)).await;
        let Some(Frame::Accept(accept)) = accepted else { panic!("{accepted:?}") };
        windows.push(accept.limit_bytes);
    }
    assert_eq!(
        (windows[0], windows[63], windows[64], windows[1_023], windows[1_024]),
        (524_288, 524_288, 65_536, 65_536, 1_024)
    );
    Ok(())
}

/// Subscribers that take nothing, one for each list that a broadcast ever assigned.
#[tokio::test]
async fn cast_9_subscribers_that_take_nothing_keep_few_old_lists() -> Anything {
    const LISTS: u64 = 50;
    const ITEMS: u64 = 10_000;
    let server = server().await;
    let settings = server.broadcast::<[u8; 4]>("settings", 4)?;
    let mut attacker = attacker(&server).await;
    for _ in 0..LISTS {
        settings.set_assignments(vec![[7; 4]; ITEMS as usize])?;
        let purpose = Purpose::Subscription { when_slow: 0 };
        let id = attacker.open("settings", "[u8; 4]", OpenFlow::OpenerReceives, purpose).await;
        attacker.hear(|frame| matches!(frame, Frame::Accept(accept) if accept.id == id)).await;
    }
    let kept = server.hosted()[0].bytes;
    let most = (ASSIGNED_ITEMS_MAX_DEFAULT as u64 + ITEMS) * 5;
    assert!(kept >= ITEMS * 5 && kept <= most, "{kept} bytes are kept of {LISTS} lists");
    // Who comes now has the newest, whatever others do.
    let honest = dial(server.ticket(), Config::default()).await?;
    let receiver = honest.receiver::<[u8; 4]>("settings").await?;
    assert_eq!(within("what is assigned", receiver.recv()).await?, Some([7; 4]));
    Ok(())
}

#[tokio::test]
async fn cast_9_a_key_has_so_many_subscriptions_of_a_broadcast() -> Anything {
    let server = server().await;
    let _settings = server.broadcast::<u64>("settings", 4)?;
    let mut attacker = attacker(&server).await;
    let purpose = Purpose::Subscription { when_slow: 0 };
    for n in 0..=SUBSCRIPTIONS_PER_KEY_MAX {
        let id = attacker.open("settings", "u64", OpenFlow::OpenerReceives, purpose).await;
        let answer = attacker
            .hear(|frame| match frame {
                Frame::Accept(accept) => accept.id == id,
                Frame::Refuse(refuse) => refuse.id == id,
                _ => false,
            })
            .await;
        assert_eq!(
            matches!(answer, Some(Frame::Accept(_))),
            n < SUBSCRIPTIONS_PER_KEY_MAX,
            "{n}: {answer:?}"
        );
    }
    Ok(())
}

/// Says that it takes no more values on a channel that it receives from, and then that it waits for some.
#[tokio::test]
async fn chan_12_a_receiver_that_says_it_takes_no_more_keeps_nothing_from_others() -> Anything {
    let server = server().await;
    let tasks = server.sender::<u64>("tasks", 1)?;
    let mut attacker = attacker(&server).await;
    let id = attacker.open("tasks", "u64", OpenFlow::OpenerReceives, Purpose::Values).await;
    attacker.say(&Frame::Closing { id, code: 0, reason: String::new() }).await;
    attacker.say(&waits(id, 5)).await;
    attacker.say(&Frame::Ping { nonce: 1 }).await;
    attacker.hear(|frame| matches!(frame, Frame::Pong { nonce: 1 })).await;
    let honest = dial(server.ticket(), Config::default()).await?;
    let worker = honest.receiver::<u64>("tasks").await?;
    for task in 0..10 {
        within("there is room", tasks.send(task)).await?;
        assert_eq!(within("the task", worker.recv()).await?, Some(task));
    }
    Ok(())
}

/// It answers nothing that it is asked, and is there all the same: it says other things.
#[tokio::test]
async fn host_10_who_speaks_and_does_not_answer_has_heard() -> Anything {
    let server = server().await;
    let collected = server.receiver::<u64>("results", 1)?;
    let mut attacker = attacker(&server).await;
    attacker.answers = false;
    let id = attacker.open("results", "u64", OpenFlow::OpenerSends, Purpose::Values).await;
    attacker
        .hear(|frame| matches!(frame, Frame::Window(window) if window.id == id && window.limit == 1))
        .await;
    let honest = dial(server.ticket(), Config::with_identity(Identity::generate())).await?;
    let sender = honest.sender::<u64>("results").await?;
    let sending = tokio::spawn(async move { sender.send(7).await });
    let attack = tokio::spawn(async move {
        for nonce in 0.. {
            attacker.say(&Frame::Ping { nonce }).await;
            // A wish that uses nothing.
            attacker.say(&Frame::Want { id, limit: 2 + nonce }).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    within("the honest client's value", sending).await??;
    assert_eq!(within("the value", collected.recv()).await?, Some(7));
    attack.abort();
    Ok(())
}

/// What was taken is counted no more, while its client and its channel stay.
#[tokio::test]
async fn bound_1_what_was_taken_is_kept_no_more() -> Anything {
    let server = server().await;
    let queue = server.receiver::<Vec<u8>>("results", 4)?;
    let honest = dial(server.ticket(), Config::default()).await?;
    let sender = honest.sender::<Vec<u8>>("results").await?;
    for _ in 0..3 {
        let sending = sender.send(vec![1; 1 << 20]);
        let (sent, got) = tokio::join!(sending, within("the value", queue.recv()));
        sent?;
        assert_eq!(got?.map(|value| value.len()), Some(1 << 20));
    }
    let gone = async {
        while server.stats().kept_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("nothing is kept", gone).await;
    Ok(())
}

/// What a client had said when it left in good order is there, though there was no room for it in the queue.
#[tokio::test]
async fn host_27_values_that_wait_for_room_outlast_their_session() -> Anything {
    let server = server().await;
    let bounded = ChannelOptions::default().queue_bytes_max(1_000);
    let queue = server.receiver_with::<Vec<u8>>("results", 64, bounded)?;
    let honest = dial(server.ticket(), Config::default()).await?;
    let sender = honest.sender::<Vec<u8>>("results").await?;
    for n in 0..20 {
        within("there is credit", sender.send(vec![n; 500])).await?;
    }
    let report = within("it leaves", honest.close(Duration::from_secs(5))).await?;
    assert!(report.is_complete(), "{report}");
    for n in 0..20 {
        assert_eq!(within("a value", queue.recv()).await?, Some(vec![n; 500]));
    }
    Ok(())
}
