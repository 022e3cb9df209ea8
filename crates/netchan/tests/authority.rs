//! Policies where they matter: at a live server, while its clients work.

mod common;

use std::fs;
use std::time::{Duration, SystemTime};

use common::proxy::{Fault, Proxy};
use common::site::{DENIED, REVOKED_WITHIN, Site, peer, rule};
use common::{Anything, audit, eventually, memory, within};
use netchan::{
    Config, DialError, Identity, OpenError, PolicySource, RecvError, RefusalCode, SendError, SessionEnd,
    SessionEvent, dial, listen_and_serve,
};

#[tokio::test]
async fn a_reload_revokes_a_live_sender_within_a_second_and_the_audit_says_why() -> Anything {
    audit::listen();
    let worker = Identity::generate();
    let named = peer("worker", &worker, "groups = [\"workers\"]");
    let allowed = named.clone() + &rule("group:workers", ">", "allow = [\"send\", \"recv\"]");
    let site = Site::memory(&allowed).await;
    let revoked = site.server.receiver::<u32>("results.fast", 64)?;
    let kept = site.server.receiver::<u32>("other", 64)?;
    let tasks = site.server.sender::<u32>("tasks", 64)?;
    let session = site.dial(&worker).await?;
    let (sender, other) =
        (session.sender::<u32>("results.fast").await?, session.sender::<u32>("other").await?);
    let receiver = session.receiver::<u32>("tasks").await?;
    sender.send(1).await?;
    assert_eq!(within("before", revoked.recv()).await?, Some(1));

    let denying = allowed.clone() + &rule("worker", "results.*", "deny = [\"send\"]");
    site.replace(&(denying.clone() + &rule("group:workers", "tasks", "deny = [\"recv\"]")));
    tokio::time::timeout(REVOKED_WITHIN, sender.closed()).await.map_err(|_| audit::all())?;
    let reason = sender.close_reason().ok_or("closed")?;
    assert_eq!((reason.code, reason.text.as_str()), (DENIED, "denied"));
    assert!(matches!(sender.send(2).await, Err(SendError::Closed { .. })));
    let gone = tokio::time::timeout(REVOKED_WITHIN, receiver.recv()).await.map_err(|_| audit::all())?;
    assert!(matches!(gone, Err(RecvError::Denied)), "{gone:?}");
    assert_eq!(receiver.close_reason().map(|reason| reason.code), Some(DENIED));
    let fingerprint = worker.fingerprint().to_string();
    let line = ["channel revoked", &fingerprint, "results.fast", "send", "rule 2"];
    assert!(audit::says(&line), "{}", audit::all());

    // What is still allowed goes on, and what is not cannot be opened again.
    other.send(3).await?;
    assert_eq!(within("after", kept.recv()).await?, Some(3));
    let denied = session.sender::<u32>("results.fast").await.unwrap_err();
    assert!(matches!(denied, OpenError::Denied { .. }), "{denied}");
    // The value that it might have had is another's.
    tasks.send(7).await?;
    assert_eq!(site.server.hosted().iter().find(|info| info.name == "tasks").map(|info| info.depth), Some(1));

    site.replace(&allowed);
    within("allowed again", async {
        while session.sender::<u32>("results.fast").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_broken_reload_changes_nothing() -> Anything {
    audit::listen();
    let allowed = rule("ticket", "jobs.*", "allow = [\"send\"]");
    let site = Site::memory(&allowed).await;
    let jobs = site.server.receiver::<u32>("jobs.a", 8)?;
    let session = site.dial(&Identity::generate()).await?;
    let sender = session.sender::<u32>("jobs.a").await?;
    site.replace(&(allowed.clone() + "[[rule]]\nwho = \"ticket\"\nchanel = \"jobs.a\"\ndeny = [\"send\"]\n"));
    let file = site.file.display().to_string();
    eventually("it was read", || audit::says(&["policy kept", &file, ":7:1"])).await;
    assert!(site.server.reload_policy().unwrap_err().to_string().contains(":7:1"));
    fs::remove_file(&site.file)?;
    eventually("it was missed", || audit::says(&["policy kept", &file, "No such file"])).await;
    sender.send(1).await?;
    assert_eq!(within("goes on", jobs.recv()).await?, Some(1));
    assert!(session.sender::<u32>("jobs.a").await.is_ok());
    assert!(matches!(session.sender::<u32>("other").await, Err(OpenError::Denied { .. })));
    Ok(())
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_starts_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.policy = PolicySource::File(directory.path().join("none.toml"));
    let error = listen_and_serve(memory(), config).await.unwrap_err().to_string();
    assert!(error.contains("policy") && error.contains("none.toml"), "{error}");
}

#[tokio::test]
async fn a_revoked_peer_is_gone_and_cannot_resume() -> Anything {
    let (here, away) = (Identity::generate(), Identity::generate());
    let both = peer("here", &here, "") + &peer("away", &away, "");
    let site = Site::start(
        "127.0.0.1:0",
        &(both.clone() + &rule("here", ">", "allow = \"send\"") + &rule("away", ">", "allow = \"send\"")),
    )
    .await;
    let values = site.server.receiver::<u32>("values", 8)?;
    let proxy = Proxy::start(&site.server, Fault::None, Fault::None).await;
    let connected = site.dial(&here).await?;
    let held = connected.sender::<u32>("values").await?;
    let suspended = dial(proxy.ticket(&site.server), Config::with_identity(away.clone())).await?;
    let sender = suspended.sender::<u32>("values").await?;
    sender.send(1).await?;
    assert_eq!(within("one", values.recv()).await?, Some(1));
    proxy.cut();
    let mut events = suspended.events();
    within("the cut", async {
        while !matches!(events.recv().await, Some(SessionEvent::Suspended { .. })) {}
    })
    .await;

    site.replace(
        &(both + &rule("here", ">", "deny = \"send\"") + &rule("ticket", "none", "allow = \"send\"")),
    );
    tokio::time::timeout(REVOKED_WITHIN, held.closed()).await?;
    assert_eq!(held.close_reason().map(|reason| reason.code), Some(DENIED));
    // A ticket holds for something still, so the session stays without its channel.
    assert_eq!(connected.state(), netchan::SessionState::Connected);

    let nobody = peer("here", &here, "expires = 2001-01-01") + &peer("away", &away, "expires = 2001-01-01");
    site.replace(&(nobody + &rule("here", ">", "allow = \"send\"") + &rule("away", ">", "allow = \"send\"")));
    let end = tokio::time::timeout(REVOKED_WITHIN, connected.ended()).await?;
    assert!(matches!(&end, SessionEnd::ClosedByPeer(reason) if reason.code == DENIED), "{end}");
    eventually("nobody is here", || site.server.clients().is_empty()).await;
    proxy.resume();
    let end = within("the end", suspended.ended()).await;
    assert!(matches!(&end, SessionEnd::Refused(why) if why == "denied: denied"), "{end}");
    // Nor does it come in anew.
    let refused = site.dial(&away).await.unwrap_err();
    assert!(matches!(&refused, DialError::Refused { code: RefusalCode::Denied, .. }), "{refused}");
    assert!(refused.to_string().contains(&away.fingerprint().to_string()), "{refused}");
    Ok(())
}

#[tokio::test]
async fn denials_look_alike_whatever_there_is() -> Anything {
    audit::listen();
    let site = Site::memory(&rule("ticket", "open.*", "allow = [\"send\", \"recv\"]")).await;
    let _hidden = site.server.channel::<u32>("hidden", 8)?;
    let _shown = site.server.channel::<u32>("open.shown", 8)?;
    let client = Identity::generate();
    let session = site.dial(&client).await?;
    let offered = within("an offer", session.recv()).await?.ok_or("an offer")?;
    assert_eq!(offered.name(), "open.shown", "and nothing of what is hidden");
    let mut told = Vec::new();
    for name in ["hidden", "nothing-there", "hidden.deeper"] {
        let error = session.sender::<u32>(name).await.unwrap_err();
        assert!(matches!(error, OpenError::Denied { .. }), "{error}");
        told.push(error.to_string().replace(name, "NAME"));
        // Another type or direction does not draw another answer.
        assert!(matches!(session.receiver::<String>(name).await, Err(OpenError::Denied { .. })));
        assert!(matches!(session.deliveries::<String>(name).await, Err(OpenError::Denied { .. })));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    let fingerprint = client.fingerprint().to_string();
    assert!(audit::says(&["open denied", &fingerprint, "hidden", "no rule"]), "{}", audit::all());
    // What may be used tells what is wrong.
    let wrong = session.sender::<String>("open.shown").await.unwrap_err();
    assert!(matches!(wrong, OpenError::TypeMismatch { .. }), "{wrong}");
    Ok(())
}

#[tokio::test]
async fn max_open_holds_over_all_sessions_of_a_key() -> Anything {
    let worker = Identity::generate();
    let policy = peer("worker", &worker, "")
        + &rule("worker", "jobs.*", "allow = [\"send\", \"recv\"]\nmax_open = 2")
        + &rule("ticket", ">", "allow = [\"send\", \"recv\"]");
    let site = Site::memory(&policy).await;
    let (_hold, _hold_too) =
        (site.server.channel::<u32>("jobs.a", 8)?, site.server.channel::<u32>("jobs.b", 8)?);
    let (one, two) = (site.dial(&worker).await?, site.dial(&worker).await?);
    let first = one.sender::<u32>("jobs.a").await?;
    let _second = two.receiver::<u32>("jobs.b").await?;
    let full = one.receiver::<u32>("jobs.a").await.unwrap_err();
    assert!(matches!(&full, OpenError::LimitReached { reason, .. } if reason.contains('2')), "{full}");
    // Others are others.
    let other = site.dial(&Identity::generate()).await?;
    let _others = (other.sender::<u32>("jobs.a").await?, other.sender::<u32>("jobs.a").await?);
    let _third = other.sender::<u32>("jobs.b").await?;
    // What was closed is free at once.
    drop(first);
    for _ in 0..200 {
        let again = one.sender::<u32>("jobs.a").await?;
        drop(again);
    }
    // A lower bound closes what there is too much of, the latest first.
    let last = one.sender::<u32>("jobs.a").await?;
    site.replace(&policy.replace("max_open = 2", "max_open = 1"));
    tokio::time::timeout(REVOKED_WITHIN, async {
        while !last.is_closed() && !_second.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await?;
    assert!(last.is_closed() != _second.is_closed(), "one of them stays");
    Ok(())
}

#[tokio::test]
async fn what_is_offered_follows_the_policy() -> Anything {
    let first = rule("ticket", "a", "allow = [\"recv\"]");
    let site = Site::memory(&first).await;
    let _channels = (site.server.channel::<u32>("a", 8)?, site.server.channel::<u32>("b", 8)?);
    let session = site.dial(&Identity::generate()).await?;
    let offer = within("a", session.recv()).await?.ok_or("an offer")?;
    let narrowed = netchan::OfferKind::Hosted { may_receive: true, may_send: false };
    assert_eq!((offer.name(), offer.kind()), ("a", narrowed));
    site.replace(&rule("ticket", "b", "allow = [\"recv\", \"send\"]"));
    let offer = within("b", session.recv()).await?.ok_or("an offer")?;
    assert_eq!(
        (offer.name(), offer.kind()),
        ("b", netchan::OfferKind::Hosted { may_receive: true, may_send: true })
    );
    Ok(())
}

#[tokio::test]
async fn who_expires_is_out_within_a_second() -> Anything {
    let guest = Identity::generate();
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 2;
    let until = expiry(seconds);
    let policy =
        peer("guest", &guest, &format!("expires = {until}")) + &rule("guest", ">", "allow = [\"send\"]");
    let site = Site::memory(&policy).await;
    let session = site.dial(&guest).await?;
    let end = tokio::time::timeout(Duration::from_secs(2) + REVOKED_WITHIN, session.ended()).await?;
    assert!(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() >= seconds, "not before");
    assert!(matches!(&end, SessionEnd::ClosedByPeer(reason) if reason.code == DENIED), "{end}");
    Ok(())
}

/// Seconds of Unix time, as TOML writes them.
fn expiry(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, by Howard Hinnant's algorithm.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[tokio::test]
async fn deliveries_need_leave_to_receive_and_their_results_leave_to_send() -> Anything {
    let site = Site::memory(&rule("ticket", "jobs", "allow = \"recv\"")).await;
    let (jobs, _results) =
        (site.server.sender::<u32>("jobs", 8)?, site.server.receiver::<u32>("results", 8)?);
    let session = site.dial(&Identity::generate()).await?;
    let deliveries = session.deliveries::<u32>("jobs").await?;
    jobs.send(1).await?;
    within("one", deliveries.recv()).await?.ok_or("a job")?.ack().await?;
    assert!(matches!(session.sender::<u32>("results").await, Err(OpenError::Denied { .. })));
    jobs.send(2).await?;
    let held = within("two", deliveries.recv()).await?.ok_or("a job")?;
    site.replace(&rule("ticket", "other", "allow = \"recv\""));
    // What it holds goes to somebody else.
    let ended = tokio::time::timeout(REVOKED_WITHIN, deliveries.recv()).await?;
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    assert!(held.ack().await.is_err());
    let waits =
        || site.server.hosted().iter().any(|info| info.name == "jobs" && info.depth + info.unacked == 1);
    eventually("it is back", waits).await;
    Ok(())
}
