//! Strangers, liars and broken wires in front of a real server.

mod common;

use std::io;
use std::time::{Duration, Instant};

use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, within};
use netchan::{Config, DialError, RecvError, SendError, Server, SessionEnd, dial, listen_and_serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HANDSHAKE: Duration = Duration::from_millis(400);

async fn guarded() -> Server {
    let mut config = Config::default();
    config.limits.handshake_timeout = HANDSHAKE;
    listen_and_serve("127.0.0.1:0", config).await.unwrap()
}

async fn knock(server: &Server) -> TcpStream {
    let (host, port) = server.addresses()[0].host_port().unwrap();
    TcpStream::connect((host, port)).await.unwrap()
}

/// Everything the server says until it closes; a reset is a close.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match within("the server closes", stream.read_to_end(&mut bytes)).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    bytes
}

async fn serves_an_honest_client(server: &Server) {
    let session = within("an honest client", dial(server.ticket(), Config::default())).await.unwrap();
    let report = session.close(DEADLINE).await.unwrap();
    assert!(report.is_complete());
}

/// The first flight of a real client, taken down by a listener that never answers.
async fn first_flight(server: &Server) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ticket = server.ticket().with_addresses(vec![listener.local_addr().unwrap().into()]).unwrap();
    let dialing = tokio::spawn(dial(ticket, Config::default()));
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut flight = vec![0; 61];
    stream.read_exact(&mut flight).await.unwrap();
    let record = u16::from_be_bytes([flight[59], flight[60]]) as usize;
    flight.resize(61 + record, 0);
    stream.read_exact(&mut flight[61..]).await.unwrap();
    dialing.abort();
    flight
}

#[tokio::test]
async fn a_stranger_gets_zero_bytes() -> Anything {
    let server = guarded().await;
    let flight = first_flight(&server).await;
    let mut garbage_first = vec![7; 56];
    garbage_first.extend_from_slice(&flight);
    let strangers: Vec<(&str, Vec<u8>)> = vec![
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(8)),
        ("zeros", vec![0; 8_192]),
        ("ones", vec![0xff; 65_536]),
        ("garbage before the gate", garbage_first),
        ("a plain TLS hello", flight[56..].to_vec()),
        ("a hello of 16 KiB", [&flight[..56], &[22, 3, 1, 0x40, 0][..], &[0; 16_384]].concat()),
        ("a hello longer than it says", [&flight[..59], &[0, 4], &flight[61..]].concat()),
    ];
    for (what, bytes) in strangers {
        let mut stream = knock(&server).await;
        // The server may close before it has read everything.
        _ = stream.write_all(&bytes).await;
        assert_eq!(answer(&mut stream).await, [], "{what}");
    }
    serves_an_honest_client(&server).await;
    Ok(())
}

#[tokio::test]
async fn every_flipped_byte_of_the_first_flight_is_a_stranger() -> Anything {
    let server = guarded().await;
    let flight = first_flight(&server).await;
    // Every byte of the gate and of the record's header, then samples of the hello.
    let positions = (0..80).chain((80..flight.len()).step_by(97));
    for position in positions {
        let mut bytes = flight.clone();
        bytes[position] ^= 1 << (position % 8);
        let mut stream = knock(&server).await;
        _ = stream.write_all(&bytes).await;
        _ = stream.shutdown().await;
        assert_eq!(answer(&mut stream).await, [], "byte {position}");
    }
    // None of them used the flight up: unchanged it is still good, once.
    let mut stream = knock(&server).await;
    stream.write_all(&flight).await?;
    assert_ne!(stream.read_u8().await?, 0);
    let mut again = knock(&server).await;
    again.write_all(&flight).await?;
    assert_eq!(answer(&mut again).await, [], "replayed");
    serves_an_honest_client(&server).await;
    Ok(())
}

#[tokio::test]
async fn half_a_flight_is_waited_for_until_the_deadline_of_all_of_it() -> Anything {
    let server = guarded().await;
    let flight = first_flight(&server).await;
    for length in [0, 1, 55, 56, 60, 61, 300, flight.len() - 1] {
        let started = Instant::now();
        let mut stream = knock(&server).await;
        stream.write_all(&flight[..length]).await?;
        assert_eq!(answer(&mut stream).await, [], "{length} bytes");
        assert!(started.elapsed() < 3 * HANDSHAKE + Duration::from_secs(1), "{length} bytes");
    }
    // One byte now and then does not stretch it.
    let started = Instant::now();
    let (mut reader, mut writer) = knock(&server).await.into_split();
    let drip = async {
        for byte in &flight {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(HANDSHAKE / 20).await;
        }
    };
    let mut bytes = Vec::new();
    tokio::select! {
        () = drip => panic!("the whole flight went through"),
        _ = reader.read_to_end(&mut bytes) => {}
    }
    assert_eq!(bytes, []);
    assert!(started.elapsed() < 3 * HANDSHAKE + Duration::from_secs(1));
    serves_an_honest_client(&server).await;
    Ok(())
}

#[tokio::test]
async fn a_half_handshake_ends_at_the_deadline_at_both_ends() -> Anything {
    let server = guarded().await;
    let flight = first_flight(&server).await.len();
    for (up, down) in [
        (Fault::Stall(flight - 10), Fault::None),
        (Fault::Stall(flight + 50), Fault::None),
        (Fault::None, Fault::Stall(0)),
        (Fault::None, Fault::Stall(900)),
    ] {
        let proxy = Proxy::start(&server, up, down).await;
        let mut config = Config::default();
        config.limits.handshake_timeout = HANDSHAKE;
        let started = Instant::now();
        let error = dial(proxy.ticket(&server), config).await.unwrap_err();
        assert!(
            matches!(
                error,
                DialError::Timeout { .. }
                    | DialError::ClosedWithoutAnswering { .. }
                    | DialError::Handshake { .. }
                    | DialError::Link { .. }
            ),
            "{up:?} {down:?}: {error}"
        );
        assert!(started.elapsed() < 3 * HANDSHAKE + Duration::from_secs(1));
    }
    common::eventually("no session is left", || server.clients().is_empty()).await;
    serves_an_honest_client(&server).await;
    Ok(())
}

/// What both ends of a session say when the wire does this to it, after they have talked.
async fn ends_of(up: Fault, down: Fault) -> Result<(), String> {
    let server = listen_and_serve("127.0.0.1:0", common::mortal()).await.unwrap();
    let proxy = Proxy::start(&server, up, down).await;
    let (_tasks, results) = server.channel::<Vec<u8>>("values", 8).unwrap();
    let mut config = common::mortal();
    config.limits.handshake_timeout = Duration::from_secs(2);
    let session = match dial(proxy.ticket(&server), config).await {
        Ok(session) => session,
        // The fault hit the handshake.
        Err(error) => {
            assert!(!matches!(error, DialError::Ticket(_) | DialError::Unreachable { .. }), "{error}");
            return Err(error.to_string());
        }
    };
    let sender = match within("open", session.sender::<Vec<u8>>("values")).await {
        Ok(sender) => sender,
        Err(error) => {
            common::eventually("the server sees it", || server.clients().is_empty()).await;
            return Err(error.to_string());
        }
    };
    let consumer = tokio::spawn(async move {
        let mut expected = 0_u32;
        while let Ok(Some(value)) = results.recv().await {
            // What arrives is what was sent, in order, whatever happened to the wire.
            assert_eq!(value, expected.to_be_bytes().repeat(64));
            expected += 1;
        }
    });
    let mut outcome = Ok(());
    for n in 0..400_u32 {
        if let Err(error) = within("send", sender.send(n.to_be_bytes().repeat(64))).await {
            assert!(matches!(
                error,
                SendError::Lost { .. } | SendError::InDoubt { .. } | SendError::Closed { .. }
            ));
            outcome = Err(error.to_string());
            break;
        }
    }
    if outcome.is_ok() {
        outcome = within("flush", sender.flush()).await.map_err(|error| error.to_string());
    }
    if outcome.is_err() {
        let end = within("the client's end", session.ended()).await;
        assert!(matches!(end, SessionEnd::Disconnected(_) | SessionEnd::ClosedByPeer(_)), "{end}");
        common::eventually("the server's end", || server.clients().is_empty()).await;
    } else {
        session.close(DEADLINE).await.unwrap();
    }
    drop(server);
    within("the consumer", consumer).await.unwrap();
    outcome
}

#[tokio::test]
async fn a_cut_or_a_flipped_bit_ends_the_session_at_both_ends() -> Anything {
    // From the handshake on, through CONFIRM, into the data.
    for at in [1_000, 2_000, 2_600, 3_000, 3_100, 4_000, 5_000, 20_000, 60_000] {
        for fault in [Fault::Cut(at), Fault::Reset(at), Fault::Flip(at)] {
            assert!(ends_of(fault, Fault::None).await.is_err(), "up {fault:?}");
        }
    }
    for at in [1_000, 2_000, 2_400, 2_700, 2_900, 3_000] {
        for fault in [Fault::Cut(at), Fault::Reset(at), Fault::Flip(at)] {
            assert!(ends_of(Fault::None, fault).await.is_err(), "down {fault:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn slices_and_delays_are_harmless() -> Anything {
    ends_of(Fault::Slices, Fault::Slices).await?;
    ends_of(Fault::Delay(Duration::from_millis(3)), Fault::Delay(Duration::from_millis(3))).await?;
    Ok(())
}

#[tokio::test]
async fn a_cut_reaches_an_end_that_only_waits() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", common::mortal()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let (_sender, values) = server.channel::<u32>("values", 1)?;
    let session = dial(proxy.ticket(&server), common::mortal()).await?;
    let receiver = session.receiver::<u32>("values").await?;
    let sender = session.sender::<u32>("values").await?;
    let waiting = tokio::spawn(async move { receiver.recv().await });
    sender.send(1).await?;
    sender.flush().await?;
    proxy.cut();
    match within("recv", waiting).await? {
        Ok(Some(1)) => {}
        Err(RecvError::Lost(SessionEnd::Disconnected(_))) => assert_eq!(values.recv().await?, Some(1)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(within("send", sender.send(2)).await, Err(SendError::Lost { value: 2, .. })));
    common::eventually("the server sees it", || server.clients().is_empty()).await;
    Ok(())
}

/// The end that finds the damage closes the connection, even while its program keeps its handles.
#[tokio::test]
async fn damage_found_by_one_end_ends_the_other_too() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", common::mortal()).await?;
    let proxy = Proxy::start(&server, Fault::Flip(20_000), Fault::None).await;
    let session = dial(proxy.ticket(&server), common::mortal()).await?;
    let (sender, _receiver) = common::direct::<Vec<u8>>(&server, &session, 1_000).await;
    for _ in 0..100 {
        if sender.send(vec![1; 1_000]).await.is_err() {
            break;
        }
    }
    let end = within("the client hears of it", session.ended()).await;
    assert!(matches!(end, SessionEnd::Disconnected(_)), "{end}");
    Ok(())
}

#[tokio::test]
async fn the_wire_shows_no_plaintext() -> Anything {
    const MARKER: &[u8] = b"the marker that must not be seen";
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let (echo, values) = server.channel::<String>("a-name-that-must-not-be-seen", 16)?;
    let session = dial(proxy.ticket(&server), Config::default()).await?;
    let sender = session.sender::<String>("a-name-that-must-not-be-seen").await?;
    let receiver = session.receiver::<String>("a-name-that-must-not-be-seen").await?;
    let marker = String::from_utf8(MARKER.to_vec())?;
    for _ in 0..1_000 {
        sender.send(marker.clone()).await?;
        assert_eq!(values.recv().await?.as_deref(), Some(marker.as_str()));
        echo.send(marker.clone()).await?;
        assert_eq!(receiver.recv().await?.as_deref(), Some(marker.as_str()));
    }
    session.close(DEADLINE).await?;
    let secret = server.ticket().access_secret().is_some();
    assert!(secret);
    for bytes in [proxy.sent_up(), proxy.sent_down()] {
        assert!(bytes.len() > 1_000 * MARKER.len());
        for part in [&MARKER[..8], &MARKER[12..20], b"a-name-that", b"postcard", b"String"] {
            assert!(!bytes.windows(part.len()).any(|window| window == part), "{}", part.escape_ascii());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_that_stops_reading_stops_only_itself() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let (_sender, values) = server.channel::<Vec<u8>>("values", 1_000)?;
    let stuck = dial(proxy.ticket(&server), Config::default()).await?;
    let stuck_sender = stuck.sender::<Vec<u8>>("values").await?;
    stuck_sender.send(vec![1]).await?;
    assert_eq!(values.recv().await?, Some(vec![1]));
    proxy.stall();
    let honest = dial(server.ticket(), Config::default()).await?;
    let sender = honest.sender::<Vec<u8>>("values").await?;
    for n in 0..100 {
        within("send", sender.send(vec![n])).await?;
        assert_eq!(within("recv", values.recv()).await?, Some(vec![n]));
    }
    let report = within("shutdown", server.shutdown(Duration::from_millis(300))).await?;
    assert!(report.is_complete(), "{report}");
    Ok(())
}
