//! How senders, channels and clients leave a server, and what stays known of them.

mod common;

use std::time::Duration;

use common::{Anything, DEADLINE, eventually, join, pair, serve, within};
use netchan::{ChannelOptions, SendError, TryRecvError};

#[tokio::test]
async fn a_closed_sender_of_capacity_zero_still_meets_its_receiver() -> Anything {
    let server = serve().await;
    let (_, local) = server.channel::<u32>("zero", 0)?;
    let session = join(&server).await;
    let sender = session.sender::<u32>("zero").await?;
    let mut send = Box::pin(sender.send(7));
    assert!(common::poll_once(send.as_mut()).await.is_pending());
    sender.flush().await?;
    sender.close();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(within("recv", local.recv()).await?, Some(7));
    within("send", send).await?;
    Ok(())
}

#[tokio::test]
async fn a_closed_hosted_channel_drains_and_then_ends_for_everyone() -> Anything {
    let server = serve().await;
    let (sender, local) = server.channel::<u32>("values", 8)?;
    let session = join(&server).await;
    let remote_sender = session.sender::<u32>("values").await?;
    let remote = session.receiver::<u32>("values").await?;
    for n in 0..5 {
        sender.send(n).await?;
    }
    sender.close();
    sender.close();
    for n in 0..5 {
        assert_eq!(within("drain", remote.recv()).await?, Some(n));
    }
    assert_eq!(within("the end", remote.recv()).await?, None);
    assert_eq!(within("the end", local.recv()).await?, None);
    assert!(matches!(local.try_recv(), Ok(None)));
    within("closed", remote_sender.closed()).await;
    assert!(matches!(remote_sender.send(9).await, Err(SendError::Closed { value: 9, .. })));
    // The name is free again, and nothing of the old channel stands in the way.
    let _again = server.channel::<u32>("values", 8)?;
    let fresh = within("open", session.receiver::<u32>("values")).await?;
    assert!(matches!(fresh.try_recv(), Err(TryRecvError::Empty)));
    Ok(())
}

#[tokio::test]
async fn recv_from_names_the_client_even_when_it_has_left() -> Anything {
    let server = serve().await;
    let (own, values) = server.channel::<u32>("values", 16)?;
    own.send(0).await?;
    let mut sessions = Vec::new();
    for n in 1..4 {
        let session = join(&server).await;
        let id = server.clients().iter().map(|client| client.peer().session_id()).max();
        assert!(id.is_some());
        let sender = session.sender::<u32>("values").await?;
        sender.send(n).await?;
        sender.flush().await?;
        sessions.push(session.peer().session_id());
        match n {
            1 => drop(sender),
            2 => _ = session.close(DEADLINE).await?,
            _ => std::mem::forget((session, sender)),
        }
    }
    eventually("the second has left", || server.clients().len() <= 2).await;
    for n in 0..4 {
        let (value, peer) = within("recv_from", values.recv_from()).await?.unwrap();
        assert_eq!(value, n);
        match n {
            0 => assert!(peer.is_local()),
            n => assert_eq!(peer.session_id(), sessions[n as usize - 1], "value {n}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_is_gone_once_its_closed_sender_s_values_are_taken() -> Anything {
    let (server, session) = pair().await;
    let values = server.receiver::<u32>("values", 16)?;
    for n in 0..20 {
        let sender = session.sender::<u32>("values").await?;
        for value in 0..3 {
            sender.send(value).await?;
        }
        let acked = sender.clone();
        drop(sender);
        acked.close();
        within("arrived", acked.flush()).await?;
        for value in 0..3 {
            assert_eq!(values.recv().await?, Some(value));
        }
        eventually("the sender hears that they were taken", || acked.stats().taken == 3).await;
        drop(acked);
        eventually("nothing is left of it", || server.clients()[0].channel_count() == 0).await;
        assert!(n < 20);
    }
    Ok(())
}

/// A client's list of what is hosted follows the server, and a server that hosts many names one after another keeps none.
#[tokio::test]
async fn what_is_hosted_no_longer_is_offered_no_longer() -> Anything {
    let server = serve().await;
    for n in 0..50 {
        let (sender, _receiver) = server.channel::<u32>(&format!("passing-{n}"), 4)?;
        sender.close();
    }
    let session = join(&server).await;
    let early = server.channel::<u32>("early", 4)?;
    let _late = server.channel::<u32>("late", 4)?;
    early.0.send(1).await?;
    early.0.close();
    // Once an open is answered, what was announced before it is known here.
    drop(session.receiver::<u32>("late").await?);
    assert_eq!(within("offers", session.recv()).await?.unwrap().name(), "late");
    let _latest = server.channel::<u32>("latest", 4)?;
    assert_eq!(within("offers", session.recv()).await?.unwrap().name(), "latest");
    // What was in it can still be had.
    assert_eq!(early.1.recv().await?, Some(1));
    assert_eq!(early.1.recv().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_prefetch_beyond_all_bounds_is_bounded() -> Anything {
    let (server, session) = pair().await;
    let sender = server.sender::<u32>("tasks", 4)?;
    let tasks = session.receiver_with::<u32>("tasks", ChannelOptions::default().prefetch(usize::MAX)).await?;
    for n in 0..10 {
        within("send", sender.send(n)).await?;
        assert_eq!(within("recv", tasks.recv()).await?, Some(n));
    }
    Ok(())
}
