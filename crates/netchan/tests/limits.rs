//! Every ceiling of `Limits`: what is over it is refused, both ends are told which it was, and the rest goes on.

mod common;

use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::{Anything, audit, eventually, memory, within};
use netchan::{
    Config, DialError, Identity, OpenError, RecvError, RefusalCode, Server, SessionEvent, dial,
    listen_and_serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn with(change: impl FnOnce(&mut netchan::Limits)) -> Config {
    let mut config = Config::default();
    change(&mut config.limits);
    config
}

async fn raw(server: &Server) -> TcpStream {
    let (host, port) = server.addresses()[0].host_port().unwrap();
    TcpStream::connect((host, port)).await.unwrap()
}

/// Whether the other end has hung up.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await {
        Ok(Ok(0) | Err(_)) => true,
        Ok(Ok(_)) => panic!("a stranger gets zero bytes"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn opens_per_second() -> Anything {
    let server = listen_and_serve(
        memory(),
        with(|limits| {
            (limits.opens_per_second, limits.opens_at_once_max) = (5, 5);
        }),
    )
    .await?;
    let _values = server.channel::<u32>("values", 8)?;
    let session = dial(server.ticket(), Config::default()).await?;
    let mut refused = None;
    for _ in 0..20 {
        refused = session.sender::<u32>("values").await.err().or(refused);
    }
    let refused = refused.ok_or("twenty are not five")?;
    let told = refused.to_string();
    assert!(matches!(refused, OpenError::LimitReached { .. }), "{told}");
    assert!(told.contains("5 channels") && told.contains("Limits::opens_per_second"), "{told}");
    within("a second later", async {
        while session.sender::<u32>("values").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn offers_total_max() -> Anything {
    audit::listen();
    let server = listen_and_serve(memory(), with(|limits| limits.offers_total_max = 2)).await?;
    let (one, two) =
        (dial(server.ticket(), Config::default()).await?, dial(server.ticket(), Config::default()).await?);
    // Nobody accepts what waits.
    let told = tokio::select! {
        opened = async { tokio::join!(one.sender::<u32>("waits-1"), two.sender::<u32>("waits-2")) } => {
            return Err(format!("{:?}", (opened.0.err(), opened.1.err())).into());
        }
        refused = async {
            eventually("both wait", || audit::says(&["waits-1"]) && audit::says(&["waits-2"])).await;
            one.sender::<u32>("one-too-many").await
        } => refused.map(|_| ()).unwrap_err().to_string(),
    };
    assert!(told.contains("Limits::offers_total_max"), "{told}");
    assert!(audit::says(&["open refused", "one-too-many", "Limits::offers_total_max"]), "{}", audit::all());
    Ok(())
}

#[tokio::test]
async fn sessions_max_leaves_room_to_be_told() -> Anything {
    audit::listen();
    let server = listen_and_serve("127.0.0.1:0", with(|limits| limits.connections_max = Some(8))).await?;
    let mut sessions = Vec::new();
    for _ in 0..7 {
        sessions.push(dial(server.ticket(), Config::default()).await?);
    }
    let identity = Identity::generate();
    let full = dial(server.ticket(), Config::with_identity(identity.clone())).await.unwrap_err();
    let told = full.to_string();
    assert!(matches!(full, DialError::Refused { code: RefusalCode::TooManySessions, .. }), "{told}");
    // The cause by its name: it is not sessions_max that is so low.
    assert!(told.contains("Limits::connections_max"), "{told}");
    let key = identity.fingerprint().to_string();
    assert!(audit::says(&["refused", &key, "Limits::connections_max"]), "{}", audit::all());
    // Strangers find no more room than that either, and leave it.
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(raw(&server).await);
    }
    drop(sessions.pop());
    within("a place comes free", async {
        while dial(server.ticket(), Config::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn half_open_max_and_per_address() -> Anything {
    audit::listen();
    let config = with(|limits| {
        limits.half_open_max = 20;
        limits.half_open_per_address_max = 5;
        limits.handshake_timeout = Duration::from_secs(60);
    });
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        strangers.push(raw(&server).await);
    }
    within("all but five are sent away", async {
        loop {
            // Lots are drawn when somebody comes.
            let late = raw(&server).await;
            let mut here = 0;
            for stranger in &mut strangers {
                here += usize::from(!is_closed(stranger).await);
            }
            drop(late);
            if here <= 5 {
                break;
            }
        }
    })
    .await;
    // Whoever is quick gets in all the same.
    dial(server.ticket(), Config::default()).await?;
    assert!(audit::says(&["crowded out", "127.0.0.1", "half_open_per_address_max"]), "{}", audit::all());
    Ok(())
}

#[tokio::test]
async fn handshakes_max_makes_others_wait() -> Anything {
    let config = with(|limits| {
        limits.handshakes_max = 1;
        limits.handshake_timeout = Duration::from_secs(60);
    });
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut first = stops_at_gate(&server, 1).await?;
    let mut flight = [0; 16 * 1_024];
    assert!(within("the first is answered", first.read(&mut flight)).await? > 0);
    let mut second = stops_at_gate(&server, 2).await?;
    // Not before the first has left, or been sent away.
    let answered = within("the second is answered", second.read(&mut flight)).await?;
    assert!(answered > 0);
    let left = tokio::time::timeout(Duration::from_millis(100), async {
        while first.read(&mut flight).await.is_ok_and(|bytes| bytes > 0) {}
    });
    assert!(left.await.is_ok(), "both were past the gate at once");
    Ok(())
}

/// The deadline is for all of the handshake: a byte now and then does not move it.
#[tokio::test]
async fn handshake_timeout_is_for_all_of_it() -> Anything {
    let config = with(|limits| limits.handshake_timeout = Duration::from_millis(300));
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut stranger = raw(&server).await;
    let begun = std::time::Instant::now();
    within("it is sent away", async {
        while !is_closed(&mut stranger).await {
            _ = stranger.write_all(&[1]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    Ok(())
}

/// Whoever holds the ticket can make any number of gates: they displace each other.
#[tokio::test]
async fn gates_max_keeps_nobody_out() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", with(|limits| limits.gates_max = 2)).await?;
    for n in 0..10 {
        let mut stopped = stops_at_gate(&server, n).await?;
        assert!(within("an answer", stopped.read(&mut [0; 1_024])).await? > 0, "gate {n}");
    }
    for _ in 0..3 {
        within("a newcomer", dial(server.ticket(), Config::default())).await?;
    }
    assert_eq!(server.stats().gates_forgotten, 11);
    Ok(())
}

#[tokio::test]
async fn write_stall_max() -> Anything {
    // More than the sockets between them hold, so that it is the link which takes no more.
    let wide = |limits: &mut netchan::Limits| {
        (limits.window_bytes, limits.window_bytes_max) = (256 << 20, 256 << 20)
    };
    let mut config = with(|limits| limits.write_stall_max = Duration::from_millis(500));
    wide(&mut config.limits);
    config.keepalive_idle = Duration::from_millis(100);
    config.keepalive_dead = Duration::from_secs(60);
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let values = server.sender::<Vec<u8>>("values", 1_000)?;
    let mut patient = with(|limits| wide(limits));
    patient.keepalive_dead = Duration::from_secs(60);
    let session = dial(proxy.ticket(&server), patient).await?;
    let options = netchan::ChannelOptions::default().prefetch(1_000);
    let receiver = session.receiver_with::<Vec<u8>>("values", options).await?;
    values.send(vec![0; 8]).await?;
    within("the first", receiver.recv()).await?;
    let mut events = server.events();
    // Nobody reads what the server writes from here on.
    proxy.stall();
    let send = async {
        for n in 0..500_u32 {
            values.send(n.to_be_bytes().repeat(64 * 1_024)).await?;
        }
        Ok::<_, netchan::SendError<Vec<u8>>>(())
    };
    let watch = within("the stall", async {
        loop {
            if let Some(SessionEvent::Suspended { reason }) = events.recv().await.map(|event| event.event) {
                break reason;
            }
        }
    });
    let reason = tokio::select! {
        reason = watch => reason,
        sent = async { send.await.ok(); std::future::pending::<String>().await } => sent,
    };
    assert!(reason.contains("Limits::write_stall_max"), "{reason}");
    // The session is not lost for that.
    proxy.resume();
    proxy.cut_now();
    assert!(within("goes on", receiver.recv()).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn decode_depth_and_empty_elements() -> Anything {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    enum Nested {
        Leaf,
        Deeper(Box<Nested>),
    }
    let deep = (0..40).fold(Nested::Leaf, |nested, _| Nested::Deeper(Box::new(nested)));
    let config = with(|limits| {
        limits.decode_depth_max = 20;
        limits.decode_empty_elements_max = 10;
    });
    let server = listen_and_serve(memory(), config.clone()).await?;
    let (nested, units) = (server.receiver::<Nested>("nested", 8)?, server.receiver::<Vec<()>>("units", 8)?);
    let session = dial(server.ticket(), Config::default()).await?;
    let sender = session.sender::<Nested>("nested").await?;
    sender.send(deep).await?;
    sender.send(Nested::Leaf).await?;
    let refused = within("too deep", nested.recv()).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, RecvError::Decode { .. }) && refused.to_string().contains("20"), "{refused}");
    assert!(matches!(within("the next", nested.recv()).await?, Some(Nested::Leaf)), "receiving goes on");
    session.sender::<Vec<()>>("units").await?.send(vec![(); 100]).await?;
    let refused = within("too many", units.recv()).await.unwrap_err();
    assert!(
        matches!(refused, RecvError::Decode { .. })
            && refused.to_string().contains("decode_empty_elements_max"),
        "{refused}"
    );
    Ok(())
}

/// Whoever knows the secret opens the gate, and may stop behind it: that keeps nobody else out for long.
#[tokio::test]
async fn places_that_stand_still_are_made_free() -> Anything {
    audit::listen();
    let config = with(|limits| {
        limits.handshakes_max = 4;
        limits.handshake_timeout = Duration::from_secs(60);
    });
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let mut stopped = Vec::new();
    for n in 0..12 {
        stopped.push(stops_at_gate(&server, n).await?);
    }
    // Twelve hold the four places one after the other, and this one is behind them.
    let mut patient = Config::default();
    patient.limits.handshake_timeout = Duration::from_secs(30);
    within("an honest client", async { while dial(server.ticket(), patient.clone()).await.is_err() {} })
        .await;
    assert!(audit::says(&["crowded out", "127.0.0.1"]), "{}", audit::all());
    Ok(())
}

/// A first flight that opens the gate, of somebody who says nothing more.
async fn stops_at_gate(server: &Server, n: u8) -> Result<TcpStream, Box<dyn std::error::Error>> {
    use netchan_proto::crypto::{ClientHandshake, ClientSettings, Handshake, Hello, ServerTrust};
    let hello =
        Hello { version: 1, agent: String::new(), aes_hardware: true, message_bytes_max: 1, resume: None };
    let settings = ClientSettings {
        key: Identity::generate().key().clone(),
        server: ServerTrust::Pinned(server.ticket().server_pin()),
        secret: server.ticket().access_secret().cloned(),
        hello,
        resume: None,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let mut client = ClientHandshake::new(settings, now, [n; 16])?;
    let mut stream = raw(server).await;
    stream.write_all(&client.poll_output().ok_or("a first flight")?).await?;
    Ok(stream)
}

/// A fleet waits its turn at the gate, and nobody is turned away for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_comes_at_once_gets_in() -> Anything {
    let config = with(|limits| {
        limits.handshakes_max = 8;
        limits.half_open_exempt.push("127.0.0.1".parse().unwrap());
        limits.handshake_timeout = Duration::from_secs(30);
    });
    let server = listen_and_serve("127.0.0.1:0", config.clone()).await?;
    let mut fleet = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let (ticket, config) = (server.ticket(), config.clone());
        fleet.spawn(async move { dial(ticket, config).await });
    }
    let mut sessions = Vec::new();
    while let Some(dialed) = within("each", fleet.join_next()).await {
        sessions.push(dialed??);
    }
    assert_eq!(sessions.len(), 400);
    Ok(())
}
