//! Access secrets are replaced while everybody works: nobody is dropped, and who was left behind stays out.

mod common;

use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, within};
use netchan::identity::ACCESS_SECRETS_MAX;
use netchan::{AccessError, Config, DialError, Identity, SessionEvent, dial, listen_and_serve};

async fn wait_for(events: &mut netchan::Events<SessionEvent>, wanted: SessionEvent) {
    within("an event", async { while events.recv().await != Some(wanted.clone()) {} }).await;
}

#[tokio::test]
async fn a_rotation_from_end_to_end_without_a_dropped_session() -> Anything {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("server.identity");
    let first = Identity::load_or_generate(&file)?;
    let server = listen_and_serve("127.0.0.1:0", Config::with_identity(first.clone())).await?;
    let old = server.ticket();
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let values = server.receiver::<u32>("values", 8)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let session_id = session.peer().session_id();
    let mut events = session.events();
    let sender = session.sender::<u32>("values").await?;

    // 1. A fresh secret beside the old one, in the file and at the server.
    first.with_fresh_access_secret()?.save(&file)?;
    server.use_access_secrets(&Identity::load(&file)?)?;
    let new = server.ticket();
    assert!(new.access_secret() != old.access_secret() && new.server_pin() == old.server_pin());
    for ticket in [&old, &new] {
        within("both", dial(ticket, Config::default())).await?.close(DEADLINE).await?;
    }
    // Until it has the new ticket, a client comes back with the old one.
    proxy.cut_now();
    wait_for(&mut events, SessionEvent::Resumed).await;
    sender.send(1).await?;

    // 2. Everybody is given the new ticket.
    session.use_ticket(proxy.ticket(&server))?;

    // 3. The old one is retired.
    Identity::load(&file)?.with_current_access_secret_only().save(&file)?;
    server.use_access_secrets(&Identity::load(&file)?)?;
    sender.send(2).await?;
    proxy.cut_now();
    wait_for(&mut events, SessionEvent::Resumed).await;
    sender.send(3).await?;
    for expected in 1..=3 {
        assert_eq!(within("a value", values.recv()).await?, Some(expected));
    }
    assert_eq!((session.peer().session_id(), session.stats().resumes), (session_id, 2));
    let out = dial(&old, Config::default()).await.unwrap_err();
    assert!(matches!(out, DialError::ClosedWithoutAnswering { .. }), "{out}");
    session.close(DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn who_has_no_new_ticket_stays_as_long_as_its_connection() -> Anything {
    let identity = Identity::generate();
    let server = listen_and_serve("127.0.0.1:0", Config::with_identity(identity.clone())).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let values = server.receiver::<u32>("values", 8)?;
    let mut config = Config::default();
    config.session_lifetime = Duration::from_millis(500);
    let session = dial(proxy.ticket(&server), config).await?;
    let sender = session.sender::<u32>("values").await?;
    server.use_access_secrets(&identity.with_fresh_access_secret()?.with_current_access_secret_only())?;
    sender.send(1).await?;
    assert_eq!(within("still here", values.recv()).await?, Some(1));
    proxy.cut_now();
    let end = within("the end", session.ended()).await;
    assert!(end.to_string().contains("500"), "{end}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() -> Anything {
    let server = listen_and_serve(common::memory(), Config::default()).await?;
    let before = server.ticket().to_string();
    let other = Identity::generate();
    assert!(matches!(server.use_access_secrets(&other), Err(AccessError::OtherKey { .. })));
    let session = dial(&before, Config::default()).await?;
    let others = listen_and_serve(common::memory(), Config::default()).await?;
    assert!(session.use_ticket(others.ticket()).unwrap_err().to_string().contains("another"));
    assert!(session.use_ticket("nonsense").is_err());
    let mut many = server.identity();
    while let Ok(more) = many.clone().with_fresh_access_secret() {
        many = more;
    }
    assert_eq!(many.access_secrets().len(), ACCESS_SECRETS_MAX);
    server.use_access_secrets(&many)?;
    dial(&before, Config::default()).await?;
    dial(server.ticket(), Config::default()).await?;
    Ok(())
}
