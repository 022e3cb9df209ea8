//! What a policy takes away does not come in by a side door.

mod common;

use std::time::{Duration, SystemTime};

use common::proxy::{Fault, Proxy};
use common::site::{DENIED, REVOKED_WITHIN, Site, peer, rule};
use common::{Anything, audit, eventually, within};
use netchan::{Config, Identity, OpenError, PolicySource, SessionEnd, dial, listen_and_serve};

#[tokio::test]
async fn an_offer_that_waits_is_judged_again() -> Anything {
    let site = Site::memory(&rule("ticket", ">", "allow = \"send\"")).await;
    let session = site.dial(&Identity::generate()).await?;
    let (waiting, taken) = (session.sender::<u32>("waiting"), session.sender::<u32>("taken"));
    let server = &site.server;
    let judged = async {
        let first = within("an offer", server.recv()).await?.ok_or("an offer")?;
        server.set_policy(std::sync::Arc::new(netchan::PolicyFile::parse(
            &rule("ticket", "none", "allow = \"send\""),
            "new.toml",
        )?));
        Ok::<_, Box<dyn std::error::Error>>(first.accept_receiver::<u32>(1).await.err())
    };
    let (waiting, taken, judged) = tokio::join!(waiting, taken, judged);
    assert!(matches!(waiting, Err(OpenError::Denied { .. })));
    assert!(matches!(taken, Err(OpenError::Denied { .. })));
    assert!(matches!(judged?, Some(OpenError::Denied { .. })));
    Ok(())
}

#[tokio::test]
async fn a_revoked_result_does_not_come_in_with_an_acknowledgement() -> Anything {
    let both = rule("ticket", "jobs", "allow = \"recv\"") + &rule("ticket", "results", "allow = \"send\"");
    let site = Site::memory(&both).await;
    let (jobs, results) = (site.server.sender::<u32>("jobs", 8)?, site.server.receiver::<u32>("results", 1)?);
    let session = site.dial(&Identity::generate()).await?;
    let (deliveries, done) =
        (session.deliveries::<u32>("jobs").await?, session.sender::<u32>("results").await?);
    let mut acks = tokio::task::JoinSet::new();
    for n in 0..3 {
        jobs.send(n).await?;
        let delivery = within("a job", deliveries.recv()).await?.ok_or("a job")?;
        let done = done.clone();
        acks.spawn(async move { delivery.ack_with(&done, n).await.is_ok() });
    }
    // One is in its place, and two wait for theirs.
    assert!(within("the first", acks.join_next()).await.ok_or("one")??);
    site.replace(&rule("ticket", "jobs", "allow = \"recv\""));
    tokio::time::timeout(REVOKED_WITHIN, done.closed()).await?;
    assert_eq!(within("what was there", results.recv()).await?, Some(0));
    while let Some(acknowledged) = within("the others", acks.join_next()).await {
        assert!(!acknowledged?, "its result has nowhere to go");
    }
    assert!(common::poll_and_drop(results.recv(), 20).await.is_none());
    Ok(())
}

#[tokio::test]
async fn a_revoked_receiver_keeps_no_deliveries() -> Anything {
    let both = rule("ticket", "jobs", "allow = \"recv\"\nmax_open = 1")
        + &rule("ticket", "other", "allow = \"recv\"");
    let site = Site::memory(&both).await;
    let jobs = site.server.sender::<u32>("jobs", 8)?;
    let session = site.dial(&Identity::generate()).await?;
    let deliveries = session.deliveries::<u32>("jobs").await?;
    jobs.send(1).await?;
    let held = within("a job", deliveries.recv()).await?.ok_or("a job")?;
    // It takes no more, and still has one: so it counts.
    deliveries.close();
    drop(deliveries);
    eventually("the close has arrived", || {
        site.server.clients().iter().all(|client| client.channel_count() == 0)
    })
    .await;
    let full = session.deliveries::<u32>("jobs").await.unwrap_err();
    assert!(matches!(full, OpenError::LimitReached { .. }), "{full}");
    site.replace(&rule("ticket", "other", "allow = \"recv\""));
    let info = || site.server.hosted().into_iter().find(|info| info.name == "jobs").unwrap_or_default();
    tokio::time::timeout(
        REVOKED_WITHIN,
        eventually("it goes to others", || info().depth == 1 && info().unacked == 0),
    )
    .await?;
    assert!(held.extend(Duration::from_secs(60)).await.is_err());
    assert!(held.ack().await.is_err());
    assert_eq!(info().depth, 1);
    Ok(())
}

#[tokio::test]
async fn what_holds_no_channel_any_more_is_not_counted_again() -> Anything {
    let worker = Identity::generate();
    let policy = peer("worker", &worker, "") + &rule("worker", "jobs", "allow = \"send\"\nmax_open = 1");
    let site = Site::memory(&policy).await;
    let jobs = site.server.receiver::<u32>("jobs", 8)?;
    let session = site.dial(&worker).await?;
    let first = session.sender::<u32>("jobs").await?;
    first.send(1).await?;
    first.flush().await?;
    drop(first);
    // What it sent is here still, and it is not.
    let second = within("another", async {
        loop {
            if let Ok(second) = session.sender::<u32>("jobs").await {
                break second;
            }
        }
    })
    .await;
    // The very same rules, read again: the second is the only one that is open.
    for _ in 0..5 {
        site.server.set_policy(std::sync::Arc::new(netchan::PolicyFile::parse(&policy, "again.toml")?));
        assert!(!second.is_closed());
    }
    second.send(2).await?;
    assert_eq!((within("1", jobs.recv()).await?, within("2", jobs.recv()).await?), (Some(1), Some(2)));
    // Nor does what waits to be accepted escape the count.
    let waiting = policy.replace("\"jobs\"", "\"jobs.*\"");
    let again = || {
        let policy = netchan::PolicyFile::parse(&waiting, "waiting.toml").unwrap();
        site.server.set_policy(std::sync::Arc::new(policy));
    };
    again();
    audit::listen();
    let refused = tokio::select! {
        opened = session.sender::<u32>("jobs.a") => return Err(format!("nobody accepts it: {:?}", opened.err()).into()),
        refused = async {
            eventually("it waits", || audit::says(&["open allowed", "jobs.a"])).await;
            again();
            session.sender::<u32>("jobs.b").await
        } => refused,
    };
    assert!(matches!(refused, Err(OpenError::LimitReached { .. })));
    Ok(())
}

/// A policy of a program's own.
#[derive(Debug)]
struct Own(fn(&netchan::policy::PolicyPeer, &netchan::policy::PolicyRequest<'_>) -> bool);

impl netchan::Policy for Own {
    fn check(
        &self,
        peer: &netchan::policy::PolicyPeer,
        request: &netchan::policy::PolicyRequest<'_>,
        _: SystemTime,
    ) -> netchan::policy::Decision {
        let allowed = (self.0)(peer, request);
        if allowed { netchan::policy::Decision::allow("own") } else { netchan::policy::Decision::deny("own") }
    }
}

#[tokio::test]
async fn who_may_connect_and_not_resume_stays_as_long_as_its_connection() -> Anything {
    use netchan::policy::PolicyRequest;
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    server.set_policy(std::sync::Arc::new(Own(|_, request| !matches!(request, PolicyRequest::Resume))));
    let values = server.receiver::<u32>("values", 8)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let sender = session.sender::<u32>("values").await?;
    server.set_policy(std::sync::Arc::new(Own(|_, request| !matches!(request, PolicyRequest::Resume))));
    sender.send(1).await?;
    assert_eq!(within("it is here", values.recv()).await?, Some(1));
    proxy.cut_now();
    let end = within("it may not come back", session.ended()).await;
    assert!(matches!(end, SessionEnd::Refused(_)), "{end}");
    Ok(())
}

#[tokio::test]
async fn whoever_comes_back_without_a_secret_has_the_rights_of_one_without() -> Anything {
    use netchan::policy::PolicyRequest;
    let mut config = Config::default();
    config.admit_without_secret = true;
    config.policy = PolicySource::Policy(std::sync::Arc::new(Own(|peer, request| {
        peer.has_access_secret || !matches!(request, PolicyRequest::Open { channel: "secret", .. })
    })));
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let (_secret, open) = (server.receiver::<u32>("secret", 8)?, server.receiver::<u32>("open", 8)?);
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let (kept, lost) = (session.sender::<u32>("open").await?, session.sender::<u32>("secret").await?);
    session.use_ticket(proxy.ticket(&server).pin_only())?;
    proxy.cut_now();
    assert_eq!(within("the end of it", lost.closed()).await.code, DENIED);
    kept.send(1).await?;
    assert_eq!(within("goes on", open.recv()).await?, Some(1));
    Ok(())
}
