//! The public face between two ends of one process, over each transport.

use std::time::Duration;

use netchan::{Config, OpenError, SendError, TryRecvError, TrySendError, dial, listen_and_serve};

type Anything = Result<(), Box<dyn std::error::Error>>;

const DEADLINE: Duration = Duration::from_secs(10);

async fn pair(address: &str) -> Result<(netchan::Server, netchan::Session), Box<dyn std::error::Error>> {
    let server = listen_and_serve(address, Config::default()).await?;
    let session = dial(server.ticket(), Config::default()).await?;
    Ok((server, session))
}

#[tokio::test]
async fn hosted_channels_carry_values_both_ways() -> Anything {
    let socket = tempfile::tempdir()?;
    let unix = format!("unix://{}/s.sock", socket.path().display());
    for address in ["127.0.0.1:0", "[::1]:0", "memory://face-both-ways", unix.as_str()] {
        let (server, session) = pair(address).await?;
        let tasks = server.sender::<u32>("tasks", 4)?;
        let results = server.receiver::<String>("results", 4)?;
        let remote_tasks = session.receiver::<u32>("tasks").await?;
        let remote_results = session.sender::<String>("results").await?;
        let worker = tokio::spawn(async move {
            while let Some(task) = remote_tasks.recv().await? {
                remote_results.send(format!("done {task}")).await.map_err(|e| e.to_string())?;
            }
            session.close(DEADLINE).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
        let producer = tokio::spawn(async move {
            for task in 0..1_000 {
                tasks.send(task).await.map_err(|e| e.to_string())?;
            }
            Ok::<_, String>(())
        });
        for task in 0..1_000 {
            assert_eq!(results.recv().await?, Some(format!("done {task}")), "{address}");
        }
        producer.await??;
        worker.await?.map_err(|e| e.to_string())?;
        let report = server.shutdown(DEADLINE).await?;
        assert!(report.is_complete(), "{report}");
    }
    Ok(())
}

#[tokio::test]
async fn a_direct_channel_is_an_offer_at_the_server() -> Anything {
    let (server, session) = pair("127.0.0.1:0").await?;
    let opening = tokio::spawn(async move {
        let sender = session.sender::<Vec<u8>>("direct").await?;
        for n in 0..200_u32 {
            sender.send(vec![n as u8; (n * 1_000) as usize]).await.map_err(|e| e.to_string())?;
        }
        sender.flush().await?;
        sender.send_acked(vec![7]).await.map_err(|e| e.to_string())?;
        drop(sender);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(session)
    });
    let offer = server.recv().await?.ok_or("no offer")?;
    assert_eq!(offer.name(), "direct");
    let receiver = offer.accept_receiver::<Vec<u8>>(16).await?;
    for n in 0..200_u32 {
        assert_eq!(receiver.recv().await?, Some(vec![n as u8; (n * 1_000) as usize]));
    }
    assert_eq!(receiver.recv().await?, Some(vec![7]));
    assert_eq!(receiver.recv().await?, None);
    let session = opening.await?.map_err(|e| e.to_string())?;
    session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn capacity_zero_is_a_rendezvous() -> Anything {
    let (server, session) = pair("127.0.0.1:0").await?;
    let sending = session.sender::<u32>("zero");
    let (sender, receiver) = tokio::join!(sending, async {
        server.recv().await.unwrap().unwrap().accept_receiver::<u32>(0).await
    });
    let (sender, receiver) = (sender?, receiver?);
    assert!(matches!(sender.try_send(1), Err(TrySendError::Full(1))));
    let timed = sender.send_timeout(2, Duration::from_millis(20)).await;
    assert!(matches!(timed, Err(netchan::SendTimeoutError::Timeout(2))), "{timed:?}");
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    let (sent, received) = tokio::join!(sender.send(3), receiver.recv());
    sent?;
    assert_eq!(received?, Some(3));
    Ok(())
}

#[tokio::test]
async fn errors_are_specific() -> Anything {
    let mut config = Config::default();
    config.open_timeout = Duration::from_millis(200);
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let session = dial(server.ticket(), config).await?;
    let _numbers = server.sender::<u32>("numbers", 1)?;
    assert!(matches!(server.receiver::<u32>("numbers", 1), Err(netchan::HostError::NameTaken(_))));
    let mismatch = session.receiver::<String>("numbers").await.unwrap_err();
    assert!(
        matches!(&mismatch, OpenError::TypeMismatch { ours, theirs, .. } if ours == "String" && theirs == "u32"),
        "{mismatch}"
    );
    assert!(matches!(session.sender::<u32>("numbers").await, Err(OpenError::WrongDirection { .. })));
    assert!(matches!(session.sender::<u32>("nowhere").await, Err(OpenError::NotAvailable { .. })));
    Ok(())
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_values_come_back() -> Anything {
    let (server, session) = pair("127.0.0.1:0").await?;
    let (_sender, receiver) = server.channel::<u32>("numbers", 8)?;
    let sender = session.sender::<u32>("numbers").await?;
    sender.send(1).await?;
    assert_eq!(receiver.recv().await?, Some(1));
    drop(server);
    let reason = sender.closed().await;
    assert!(reason.text.contains("the server has stopped"), "{reason:?}");
    assert!(matches!(sender.send(2).await, Err(SendError::Closed { value: 2, reason: r }) if r == reason));
    Ok(())
}
