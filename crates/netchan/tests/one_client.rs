//! What one client with a valid ticket can take from all others: nothing that they would miss.

mod common;

use common::raw::raw;
use common::{Anything, eventually, within};
use netchan::{Config, RefusalCode, Server, SessionState, dial, listen_and_serve};
use netchan_proto::crypto::HandshakeError;
use netchan_proto::id::ChannelId;
use netchan_proto::session::ClientLinks;
use netchan_proto::wire::{Close, Frame, Open, OpenFlow, Purpose};

const CRASHING: u8 = 1;

async fn nobody_is_connected(server: &Server) {
    eventually("the connection is known to be lost", || {
        server.clients().iter().all(|client| !client.is_connected())
    })
    .await;
}

/// A program that crashes, is started again, and never resumes what it had.
#[tokio::test]
async fn port_11_sessions_that_were_left_behind_keep_nobody_out() -> Anything {
    const KEPT: usize = 16;
    const CRASHES: usize = 40;
    let mut config = Config::default();
    config.limits.sessions_max = 8;
    config.limits.suspended_per_identity_max = KEPT;
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut left = Vec::new();
    for _ in 0..CRASHES {
        let mut crashing = raw(&server, CRASHING, None).await?;
        crashing.confirm().await;
        let keys = crashing.established.keys.resume_secret.clone();
        left.push(ClientLinks::new(&crashing.established.accepted, keys));
        drop(crashing);
        nobody_is_connected(&server).await;
    }
    // Another key gets in at the first attempt, and what is left behind is bounded.
    let honest = within("dial", dial(server.ticket(), Config::default())).await?;
    assert_eq!(server.stats().suspended_given_up, (CRASHES - KEPT) as u64);
    eventually("those that gave way are gone", || server.clients().len() == KEPT + 1).await;
    let first = raw(&server, CRASHING, Some(left[0].resume_from())).await.map(|_| ());
    assert!(
        matches!(first, Err(HandshakeError::Refused { code: RefusalCode::TooManySuspended, .. })),
        "the oldest gave way: {first:?}"
    );
    let last = raw(&server, CRASHING, Some(left[CRASHES - 1].resume_from())).await?;
    assert!(last.established.accepted.resumed, "the newest did not");
    drop(honest);
    Ok(())
}

/// The same of one that never gets so far as to confirm.
#[tokio::test]
async fn port_11_sessions_that_were_never_confirmed_keep_nobody_out() -> Anything {
    let mut config = Config::default();
    config.limits.sessions_max = 8;
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    for _ in 0..20 {
        drop(raw(&server, CRASHING, None).await?);
        nobody_is_connected(&server).await;
    }
    within("dial", dial(server.ticket(), Config::default())).await?;
    Ok(())
}

/// Newcomers leave a quarter of the places to those that were cut off.
#[tokio::test]
async fn port_11_newcomers_leave_places_to_those_that_come_back() -> Anything {
    let mut config = Config::default();
    config.limits.sessions_max = 8;
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut away = Vec::new();
    for key in 10..14 {
        let mut client = raw(&server, key, None).await?;
        client.confirm().await;
        let secret = client.established.keys.resume_secret.clone();
        away.push((key, ClientLinks::new(&client.established.accepted, secret)));
    }
    nobody_is_connected(&server).await;
    let mut here = Vec::new();
    let full = loop {
        match dial(server.ticket(), Config::default()).await {
            Ok(session) => here.push(session),
            Err(full) => break full,
        }
    };
    assert!(full.to_string().contains("sessions_max"), "{full}");
    assert_eq!(here.len(), 6, "three quarters of eight");
    let mut back = Vec::new();
    for (nth, (key, links)) in away.iter().enumerate() {
        let resumed = raw(&server, *key, Some(links.resume_from())).await;
        if nth < 2 {
            let mut resumed = resumed?;
            resumed.say(&Frame::Confirm { mac: resumed.established.keys.own_confirm }).await;
            back.push(resumed);
            let connected = || server.clients().iter().filter(|client| client.is_connected()).count();
            eventually("it is back", || connected() == 7 + nth).await;
        } else {
            let told = resumed.map(|_| ());
            let full =
                matches!(&told, Err(HandshakeError::Refused { code: RefusalCode::TooManySessions, .. }));
            assert!(full, "it may try again: {told:?}");
        }
    }
    Ok(())
}

/// OPEN and RESET in one breath, thousands of times: its link is read at its own pace, and others do not feel it.
#[tokio::test]
async fn port_7_whoever_opens_without_end_is_read_slowly() -> Anything {
    const OPENS: u32 = 1_500;
    let mut config = Config::default();
    (config.limits.opens_per_second, config.limits.opens_at_once_max) = (5, 10);
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let (echo, asked) = (server.sender::<u32>("answers", 4)?, server.receiver::<u32>("questions", 4)?);
    let answering = tokio::spawn(async move {
        while let Ok(Some(question)) = asked.recv().await {
            if echo.send(question).await.is_err() {
                break;
            }
        }
    });
    let honest = dial(server.ticket(), Config::default()).await?;
    let (ask, answers) = (honest.sender::<u32>("questions").await?, honest.receiver::<u32>("answers").await?);
    let mut hostile = raw(&server, CRASHING, None).await?;
    hostile.confirm().await;
    let mut frames = Vec::new();
    for n in 0..OPENS {
        let id = ChannelId(2 * n + 1);
        let open = Open {
            id,
            name: "questions".to_owned(),
            label: "u32".to_owned(),
            codec: "postcard/1".to_owned(),
            fingerprint: None,
            flow: OpenFlow::OpenerSends,
            purpose: Purpose::Values,
            capacity: 0,
            limit_bytes: 0,
        };
        Frame::Open(open).write(&mut frames);
        Frame::Reset(Close { id, final_seq: 0, code: 5, reason: String::new() }).write(&mut frames);
    }
    hostile.say_all(&frames).await;
    hostile.say(&Frame::Ping { nonce: 7 }).await;
    // Twenty are heard in a second: the last of them long after all of this.
    let round_trips = async {
        for question in 0..200 {
            ask.send(question).await.unwrap();
            assert_eq!(within("an answer", answers.recv()).await.unwrap(), Some(question));
        }
    };
    tokio::select! {
        () = hostile.until_pong(7) => panic!("all of it was handled before an honest client had its answers"),
        () = round_trips => {}
    }
    let states: Vec<_> = server.clients().iter().map(|client| client.state()).collect();
    assert_eq!(states, [SessionState::Connected, SessionState::Connected], "nobody is put out for that");
    answering.abort();
    Ok(())
}
