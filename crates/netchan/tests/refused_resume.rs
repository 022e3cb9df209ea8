//! Who may not go on with a session: a client made by hand, against a real server.

mod common;

use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::raw::{Raw, address, raw};
use common::{Anything, eventually, within};
use netchan::{Config, RefusalCode, Server, SessionEvent, SessionState, dial, listen_and_serve};
use netchan_proto::crypto::{HandshakeError, ResumeFrom};
use netchan_proto::session::ClientLinks;
use netchan_proto::wire::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OWNER: u8 = 1;

fn is_unknown(result: Result<Raw, HandshakeError>) -> bool {
    matches!(result, Err(HandshakeError::Refused { code: RefusalCode::SessionUnknown, .. }))
}

/// A server, and a session with it whose connection is gone.
async fn suspended() -> (Server, ClientLinks) {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await.unwrap();
    let mut first = raw(&server, OWNER, None).await.unwrap();
    first.confirm().await;
    let links = ClientLinks::new(&first.established.accepted, first.established.keys.resume_secret.clone());
    drop(first.stream);
    eventually("suspended", || {
        server.clients().first().is_some_and(|client| client.state() == SessionState::Suspended)
    })
    .await;
    (server, links)
}

#[tokio::test]
async fn sess_15_another_identity_is_refused() -> Anything {
    let (server, links) = suspended().await;
    assert!(is_unknown(raw(&server, 2, Some(links.resume_from())).await));
    let own = raw(&server, OWNER, Some(links.resume_from())).await?;
    assert!(own.established.accepted.resumed, "the session is as it was");
    Ok(())
}

#[tokio::test]
async fn sess_15_a_wrong_proof_is_refused() -> Anything {
    let (server, links) = suspended().await;
    // The secret of another session of the same key.
    let other = raw(&server, OWNER, None).await?;
    let forged = ResumeFrom { secret: other.established.keys.resume_secret.clone(), ..links.resume_from() };
    assert!(is_unknown(raw(&server, OWNER, Some(forged)).await));
    assert!(raw(&server, OWNER, Some(links.resume_from())).await?.established.accepted.resumed);
    Ok(())
}

#[tokio::test]
async fn sess_15_an_epoch_that_was_never_given_is_refused() -> Anything {
    let (server, links) = suspended().await;
    let mut from = links.resume_from();
    from.last_epoch.0 += 1;
    assert!(is_unknown(raw(&server, OWNER, Some(from)).await));
    Ok(())
}

/// What a newer link, confirmed by both ends, has fenced.
#[tokio::test]
async fn sess_15_a_fenced_epoch_is_refused() -> Anything {
    let (server, links) = suspended().await;
    let old = links.resume_from();
    let mut second = raw(&server, OWNER, Some(old.clone())).await?;
    second.confirm().await;
    assert_eq!(second.established.accepted.epoch.0, old.last_epoch.0 + 1);
    // Behind its confirmation: the server knows now that this client has heard of the new epoch.
    let bytes_in = || server.clients()[0].stats().bytes_in;
    let before = bytes_in();
    second.say(&Frame::Ping { nonce: 7 }).await;
    eventually("the server has heard it", || bytes_in() > before).await;
    assert!(is_unknown(raw(&server, OWNER, Some(old)).await));
    assert_eq!(server.clients()[0].state(), SessionState::Connected, "and the link in place stays");
    Ok(())
}

#[tokio::test]
async fn sess_15_a_replayed_resume_draws_nothing() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let values = server.receiver::<u32>("values", 4)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let mut events = session.events();
    let sender = session.sender::<u32>("values").await?;
    sender.send(1).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(1));
    let before = proxy.sent_up().len();
    proxy.cut_now();
    within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    sender.send(2).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(2));
    // All that the second connection said, its Hello and its proof included, over another.
    let resume = proxy.sent_up().split_off(before);
    let mut replay = TcpStream::connect(address(&server)).await?;
    replay.write_all(&resume).await?;
    let mut answer = Vec::new();
    // A reset is as good as an end.
    _ = within("the end", replay.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "a stranger gets zero bytes");
    sender.send(3).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(3));
    assert_eq!(session.stats().resumes, 1, "the session has not noticed");
    Ok(())
}

#[tokio::test]
async fn sess_16_a_link_that_is_not_confirmed_changes_nothing_and_can_be_tried_again() -> Anything {
    let (server, links) = suspended().await;
    let mut last = 0;
    for _ in 0..5 {
        // Up to the Welcome, and gone without a CONFIRM.
        let tried = raw(&server, OWNER, Some(links.resume_from())).await?;
        assert!(tried.established.accepted.resumed);
        assert!(tried.established.accepted.epoch.0 > last, "every link has an epoch of its own");
        last = tried.established.accepted.epoch.0;
    }
    assert_eq!(server.clients()[0].state(), SessionState::Suspended);
    assert_eq!(server.clients()[0].stats().resumes, 0);
    Ok(())
}

#[tokio::test]
async fn sess_18_a_session_is_given_up_at_the_end_of_its_lifetime() -> Anything {
    let mut config = Config::default();
    config.session_lifetime = Duration::from_millis(200);
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut first = raw(&server, OWNER, None).await?;
    first.confirm().await;
    let links = ClientLinks::new(&first.established.accepted, first.established.keys.resume_secret.clone());
    drop(first.stream);
    eventually("given up", || server.clients().is_empty()).await;
    assert!(is_unknown(raw(&server, OWNER, Some(links.resume_from())).await));
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_before_it_confirms_leaves_nothing_behind() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    for _ in 0..5 {
        let first = raw(&server, OWNER, None).await?;
        eventually("it is in", || server.clients().len() == 1).await;
        drop(first);
        eventually("it is gone", || server.clients().is_empty()).await;
    }
    Ok(())
}
