//! Who is here: clients as a server sees them, and what it may do about them.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::killed::until;
use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, within};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use netchan::{
    ChannelDirection, ChannelOptions, Config, DialError, DuplicateSessions, Identity, LossPolicy,
    RefusalCode, SessionEnd, SessionEvent, SessionState, dial, listen_and_serve,
};

#[tokio::test]
async fn a_server_knows_who_is_here_and_what_waits() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender::<u32>("tasks", 8)?;
    let results = server.receiver::<u32>("results", 8)?;
    let state = server.broadcast::<u32>("state", 8)?;
    let identity = Identity::generate();
    let mine = Config::with_identity(identity.clone());
    let (first, second) = (dial(server.ticket(), mine.clone()).await?, dial(server.ticket(), mine).await?);
    let other = dial(server.ticket(), Config::default()).await?;
    eventually("all are here", || server.clients().len() == 3).await;
    // Two sessions of one key are told apart.
    let key = server.clients_of(identity.fingerprint());
    assert_eq!(key.len(), 2);
    assert_ne!(key[0].session_id(), key[1].session_id());
    let client = server.client(first.peer().session_id().expect("it has one")).expect("it is here");
    assert_eq!(
        (client.fingerprint(), client.state()),
        (Some(identity.fingerprint()), SessionState::Connected)
    );
    assert!(client.address().contains("127.0.0.1"), "{}", client.address());
    assert!(client.since().elapsed()? < Duration::from_secs(60));
    eventually("its answer", || client.round_trip().is_some()).await;
    eventually("the server's answer", || first.stats().round_trip.is_some()).await;

    let from = first.receiver_with("tasks", ChannelOptions::<u32>::default().prefetch(4)).await?;
    let to = first.sender::<u32>("results").await?;
    let _state = first.receiver::<u32>("state").await?;
    for n in 0..6 {
        tasks.send(n).await?;
        to.send(n).await?;
    }
    within("flush", to.flush()).await?;
    eventually("they have arrived", || from.len() == 4).await;
    let channels = client.channels();
    let seen: Vec<_> = channels.iter().map(|c| (&*c.name, c.direction, c.depth)).collect();
    let expected = [
        // What has arrived is in the hosted channel, not in the client's.
        ("results", ChannelDirection::Receives, 0),
        ("state", ChannelDirection::Sends, 0),
        ("tasks", ChannelDirection::Sends, 4),
    ];
    assert_eq!(seen, expected);
    let hosted: HashMap<_, _> = server.hosted().into_iter().map(|h| (h.name.clone(), h)).collect();
    assert_eq!((hosted["tasks"].depth, hosted["tasks"].in_flight, hosted["tasks"].credit), (2, 4, 2));
    assert_eq!((hosted["results"].depth, hosted["results"].capacity), (6, 8));
    assert!(hosted["state"].broadcast && hosted["state"].receivers == 1);
    let stats = client.stats();
    assert!(stats.bytes_in > 0 && stats.bytes_out > 0);
    drop((second, other, results, state));
    eventually("they have left", || server.clients().len() == 1).await;
    assert!(server.client(client.session_id().expect("it has one")).is_some());
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_disconnected_hears_why_and_what_it_held_goes_to_others() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let tasks = server.sender::<u32>("tasks", 8)?;
    let (bad, good) =
        (dial(server.ticket(), Config::default()).await?, dial(server.ticket(), Config::default()).await?);
    let from = bad.deliveries::<u32>("tasks").await?;
    tasks.send(1).await?;
    let held = within("a delivery", from.recv()).await?.ok_or("the end")?;
    let mut events = bad.events();
    let client = server.client(bad.peer().session_id().expect("it has one")).expect("it is here");
    within("gone", client.disconnect("you are too slow")).await;
    assert!(!client.is_connected());
    let gone = until(&mut events, |event| matches!(event, SessionEvent::Gone(_))).await;
    let SessionEvent::Gone(SessionEnd::ClosedByPeer(reason)) = gone else { panic!("{gone}") };
    assert_eq!(reason.text, "you are too slow");
    let from = good.deliveries::<u32>("tasks").await?;
    let again = within("a delivery", from.recv()).await?.ok_or("the end")?;
    assert_eq!((*again, again.attempt()), (1, 2));
    again.ack().await?;
    assert!(held.ack().await.is_err());
    assert!(matches!(within("the end", bad.ended()).await, SessionEnd::ClosedByPeer(_)));
    Ok(())
}

#[tokio::test]
async fn one_session_of_a_key_at_a_time_where_the_server_says_so() -> Anything {
    let mut config = Config::default();
    config.duplicate_sessions = DuplicateSessions::Refuse;
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let mine = || Config::with_identity(Identity::generate());
    let identity = mine();
    let first = dial(proxy.ticket(&server), identity.clone()).await?;
    let refused = dial(server.ticket(), identity.clone()).await.unwrap_err();
    assert!(matches!(&refused, DialError::Refused { code: RefusalCode::AlreadyConnected, .. }), "{refused}");
    let _other = dial(server.ticket(), mine()).await?;
    // One without a connection gives way: it may be the same program, started again.
    let mut events = first.events();
    let held = server.client(first.peer().session_id().expect("it has one")).expect("it is here");
    proxy.cut();
    eventually("the server knows", || held.state() == SessionState::Suspended).await;
    let second = within("dial", dial(server.ticket(), identity)).await?;
    within("the first is over", async {
        while held.is_connected() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(second.state(), SessionState::Connected);
    until(&mut events, |event| matches!(event, SessionEvent::Suspended { .. })).await;
    // Back again, it is told, and does not knock until the other one goes.
    proxy.resume();
    let end = within("the end of the first", first.ended()).await;
    assert!(matches!(&end, SessionEnd::ClosedByPeer(why) if why.text.contains("taken its place")), "{end}");
    assert_eq!(server.clients().len(), 2);
    Ok(())
}

/// Whoever cannot hear it is told when it comes back, and does not set up another session in place of the one that was ended.
#[tokio::test]
async fn a_client_that_was_disconnected_while_it_was_away_hears_of_it() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let _values = server.receiver::<u32>("values", 1)?;
    let options = ChannelOptions::<u32>::default().on_loss(LossPolicy::Resend);
    let _sender = within("open", session.sender_with("values", options)).await?;
    let client = server.client(session.peer().session_id().expect("it has one")).expect("it is here");
    proxy.cut();
    eventually("the server knows", || client.state() == SessionState::Suspended).await;
    within("gone", client.disconnect("banned")).await;
    proxy.resume();
    let end = within("the end", session.ended()).await;
    assert!(matches!(&end, SessionEnd::ClosedByPeer(reason) if reason.text == "banned"), "{end}");
    assert!(server.clients().is_empty());
    Ok(())
}

#[tokio::test]
async fn the_newest_session_of_a_key_takes_the_place_of_others_where_the_server_says_so() -> Anything {
    let mut config = Config::default();
    config.duplicate_sessions = DuplicateSessions::Replace;
    let server = listen_and_serve(common::memory(), config).await?;
    let mine = Config::with_identity(Identity::generate());
    let first = dial(server.ticket(), mine.clone()).await?;
    let _values = server.receiver::<u32>("values", 1)?;
    within("open", first.sender::<u32>("values")).await?;
    let second = dial(server.ticket(), mine).await?;
    let end = within("the end", first.ended()).await;
    assert!(
        matches!(&end, SessionEnd::ClosedByPeer(reason) if reason.text.contains("taken its place")),
        "{end}"
    );
    assert_eq!(server.clients().len(), 1);
    second.close(DEADLINE).await?;
    Ok(())
}

/// The facade hears of what happens, and of how much is where.
#[test]
fn metrics_tell_what_is_so() -> Anything {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = async {
        let mut config = Config::default();
        config.metrics_period = Duration::from_millis(10);
        let address = common::memory();
        let server = listen_and_serve(&address, config).await?;
        let tasks = server.sender::<u32>("tasks", 8)?;
        tasks.send(1).await?;
        let session = dial(server.ticket(), Config::default()).await?;
        let from = session.deliveries::<u32>("tasks").await?;
        within("a delivery", from.recv()).await?.ok_or("the end")?.nack().await?;
        let _held = within("a delivery", from.recv()).await?.ok_or("the end")?;
        let mut seen = HashMap::new();
        within("the figures", async {
            let of_tasks = |what: &str| format!("netchan_channel_{what} {address} tasks");
            while seen.get(&of_tasks("redelivered_total")) != Some(&1.0)
                || seen.get(&of_tasks("unacked")) != Some(&1.0)
                || seen.get(&of_tasks("values_total")) != Some(&1.0)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
                for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                    let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                    let value = match value {
                        DebugValue::Counter(count) => count as f64,
                        DebugValue::Gauge(value) => value.into_inner(),
                        DebugValue::Histogram(_) => continue,
                    };
                    let name = format!("{} {}", key.key().name(), labels.join(" "));
                    seen.entry(name).and_modify(|seen: &mut f64| *seen = seen.max(value)).or_insert(value);
                }
            }
        })
        .await;
        for what in ["sessions", "handshakes_total", "session_events_total", "bytes_in_total"] {
            let label = match what {
                "handshakes_total" => " accepted",
                "session_events_total" => " connected",
                _ => "",
            };
            let found = seen.get(&format!("netchan_{what} {address}{label}")).copied();
            assert!(found >= Some(1.0), "{what}: {seen:?}");
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    metrics::with_local_recorder(&recorder, || runtime.block_on(run))
}
