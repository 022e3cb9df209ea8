//! Both sides of the handshake, before strangers and behind a wire that changes bytes: silence, or the link that both meant.

use std::sync::{Arc, Mutex};

use netchan_proto::crypto::{
    Accepted, AccessSecret, Aead, ClientHandshake, ClientSettings, GateKeeper, GateKey, GateTime, Handshake,
    HandshakeError, Hello, LocalKey, RefusalCode, ServerHandshake, ServerSettings, ServerTrust, make_gate,
};
use netchan_proto::id::{Epoch, Incarnation, SessionId};
use netchan_proto::limits::{CLIENT_HELLO_BYTES_MAX, UNAUTHENTICATED_BYTES_MAX};

use crate::edit::{edit, piece};
use crate::script::Script;

const NOW: u64 = 1_800_000_000;
const SALT: [u8; 16] = [5; 16];

/// A record's type, version and length.
const TLS_HEADER_BYTES: usize = 5;

fn secret() -> AccessSecret {
    AccessSecret::new([7; 32])
}

fn key(seed: u8) -> LocalKey {
    LocalKey::from_seed([seed; 32]).expect("any seed is a key")
}

/// A server that has seen nobody yet.
fn new_server() -> ServerHandshake {
    let keys = vec![GateKey::Secret(secret()), GateKey::Pin(key(3).pin())];
    let keeper = GateKeeper::new(keys, Some(120), 16).expect("two keys");
    ServerHandshake::new(&ServerSettings::new(key(3), Arc::new(Mutex::new(keeper))).expect("settings"))
}

/// A client, and its first flight.
pub(crate) fn new_client() -> (ClientHandshake, Vec<u8>) {
    let agent = "fuzz".to_owned();
    let hello = Hello { version: 1, agent, aes_hardware: true, message_bytes_max: 1 << 26, resume: None };
    let settings = ClientSettings {
        key: key(17),
        server: ServerTrust::Pinned(key(3).pin()),
        secret: Some(secret()),
        hello,
        resume: None,
    };
    let mut client = ClientHandshake::new(settings, NOW, SALT).expect("starts");
    let flight = client.poll_output().expect("gate and ClientHello");
    (client, flight)
}

/// Gives a handshake its input as a shell does: in pieces, as far as it takes them. Says how much that was.
fn feed(handshake: &mut dyn Handshake, bytes: &[u8], piece: usize) -> Result<usize, HandshakeError> {
    let mut taken = 0;
    for end in (0..bytes.len()).step_by(piece).map(|start| bytes.len().min(start.saturating_add(piece))) {
        loop {
            let consumed = handshake.handle_input(&bytes[taken..end])?;
            taken += consumed;
            if handshake.awaits_gate() {
                handshake.check_gate(GateTime { unix_seconds: NOW, steady_seconds: 0 })?;
            } else if consumed == 0 {
                break;
            }
        }
    }
    Ok(taken)
}

/// What TLS says for the sake of old middleboxes. It means nothing and nothing covers it: before Finished a network may drop
/// such a record, or add one, unnoticed (`HS-7`).
const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];

/// A stream of TLS records without those.
fn meant(mut stream: &[u8]) -> Vec<u8> {
    let mut meant = Vec::new();
    while let [_, _, _, high, low, ..] = *stream {
        let len = TLS_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        let (record, rest) = stream.split_at(len.min(stream.len()));
        stream = rest;
        if record != CHANGE_CIPHER_SPEC {
            meant.extend_from_slice(record);
        }
    }
    meant.extend_from_slice(stream);
    meant
}

/// Nothing is said, nobody is let in, nothing more is taken.
fn is_silent(handshake: &mut dyn Handshake) {
    assert!(handshake.poll_output().is_none(), "something is said after a failure");
    assert!(handshake.poll_hello().is_none() && handshake.poll_established().is_none());
    assert!(handshake.is_over());
    assert_eq!(handshake.handle_input(&[22]), Ok(0));
}

/// The first byte chooses among a stranger, one that has the secret and no handshake, and a client on a bad wire.
///
/// # Panics
/// When a server answers a stranger, lets anybody in who is not the client, or says anything after a failure.
pub fn server(data: &[u8]) {
    let mut script = Script::new(data);
    match script.one_of(3) {
        0 => stranger(&mut script),
        1 => insider(&mut script),
        _ if script.flag() => first_flight(&mut script),
        _ => second_flight(&mut script),
    }
}

fn stranger(script: &mut Script<'_>) {
    let (mut server, piece) = (new_server(), piece(script));
    match feed(&mut server, script.rest(), piece) {
        Err(_) => is_silent(&mut server),
        Ok(taken) => {
            assert!(taken <= UNAUTHENTICATED_BYTES_MAX);
            assert!(server.poll_output().is_none() && server.poll_hello().is_none());
        }
    }
}

/// Has the secret, so that its record reaches TLS.
fn insider(script: &mut Script<'_>) {
    let (mut server, piece) = (new_server(), piece(script));
    let len = script.place(CLIENT_HELLO_BYTES_MAX - TLS_HEADER_BYTES);
    let body = script.take(len);
    let record = [&[22, 3, 1][..], &(body.len() as u16).to_be_bytes(), body].concat();
    let gate = make_gate(&GateKey::Secret(secret()), NOW, SALT, &record);
    let opened = feed(&mut server, &[&gate[..], &record].concat(), piece);
    if opened.is_err() {
        return is_silent(&mut server);
    }
    assert!(server.poll_output().is_none_or(|flight| flight.starts_with(&[22, 3, 3])));
    match feed(&mut server, script.rest(), piece) {
        Err(_) => is_silent(&mut server),
        Ok(taken) => {
            assert!(taken + gate.len() + record.len() <= UNAUTHENTICATED_BYTES_MAX);
            // Whoever made up a ClientHello cannot finish it.
            assert!(server.poll_output().is_none() && server.poll_hello().is_none());
        }
    }
}

fn first_flight(script: &mut Script<'_>) {
    let (mut server, (_, flight)) = (new_server(), new_client());
    let (mut stream, piece) = (flight.clone(), piece(script));
    edit(&mut stream, script);
    match feed(&mut server, &stream, piece) {
        Err(_) => is_silent(&mut server),
        Ok(_) if stream.starts_with(&flight) => assert!(server.poll_output().is_some()),
        Ok(_) => assert!(server.poll_output().is_none(), "a changed flight was answered"),
    }
    assert!(server.poll_hello().is_none() && server.poll_established().is_none());
}

fn second_flight(script: &mut Script<'_>) {
    let (mut server, (mut client, flight)) = (new_server(), new_client());
    feed(&mut server, &flight, usize::MAX).expect("untouched");
    feed(&mut client, &server.poll_output().expect("a flight"), usize::MAX).expect("untouched");
    let flight = client.poll_output().expect("Finished and Hello");
    let (mut stream, piece) = (flight.clone(), piece(script));
    edit(&mut stream, script);
    let taken = feed(&mut server, &stream, piece);
    assert!(server.poll_output().is_none(), "the server speaks again before it has judged");
    if stream.starts_with(&flight) {
        assert_eq!(taken, Ok(flight.len()), "what follows belongs to the record layer");
        let hello = server.poll_hello().expect("the client's own");
        assert_eq!((hello.fingerprint, hello.has_secret), (key(17).fingerprint(), true));
        return;
    }
    match taken {
        Err(_) => is_silent(&mut server),
        Ok(taken) => {
            let is_meant = meant(&stream[..taken]) == meant(&flight);
            assert!(is_meant || server.poll_hello().is_none(), "a changed Hello was heard");
        }
    }
}

/// The first byte chooses among a stranger that answers, and a server on a bad wire.
///
/// # Panics
/// When a client accepts anything but its server's own words, or says anything after a failure.
pub fn client(data: &[u8]) {
    let mut script = Script::new(data);
    match script.one_of(3) {
        0 => impostor(&mut script),
        1 => server_flight(&mut script),
        _ => welcome(&mut script),
    }
}

fn impostor(script: &mut Script<'_>) {
    let ((mut client, _), piece) = (new_client(), piece(script));
    match feed(&mut client, script.rest(), piece) {
        Err(_) => is_silent(&mut client),
        Ok(taken) => {
            assert!(taken <= UNAUTHENTICATED_BYTES_MAX);
            assert!(client.poll_established().is_none());
            assert!(client.poll_output().is_none_or(|output| output == CHANGE_CIPHER_SPEC));
        }
    }
}

fn server_flight(script: &mut Script<'_>) {
    let (mut server, (mut client, flight)) = (new_server(), new_client());
    feed(&mut server, &flight, usize::MAX).expect("untouched");
    let flight = server.poll_output().expect("a flight");
    let (mut stream, piece) = (flight.clone(), piece(script));
    edit(&mut stream, script);
    let taken = feed(&mut client, &stream, piece);
    assert!(client.poll_established().is_none(), "nobody was welcomed yet");
    match taken {
        Err(_) => is_silent(&mut client),
        Ok(_) if stream.starts_with(&flight) => {
            assert!(client.poll_output().is_some_and(|output| output.len() > 100));
        }
        Ok(taken) => {
            let is_meant = meant(&stream[..taken]) == meant(&flight);
            assert!(is_meant || client.poll_output().is_none_or(|output| output == CHANGE_CIPHER_SPEC));
        }
    }
}

/// A server that answers the Hello in one of its ways, on a wire that may change the answer.
fn welcome(script: &mut Script<'_>) {
    let (mut server, (mut client, flight)) = (new_server(), new_client());
    feed(&mut server, &flight, usize::MAX).expect("untouched");
    feed(&mut client, &server.poll_output().expect("a flight"), usize::MAX).expect("untouched");
    feed(&mut server, &client.poll_output().expect("Finished and Hello"), usize::MAX).expect("untouched");
    server.poll_hello().expect("the Hello");
    let accepts = script.flag();
    if accepts {
        let accepted = Accepted {
            session_id: SessionId([script.byte(); 16]),
            incarnation: Incarnation(script.number()),
            epoch: Epoch(script.u16().into()),
            aead: Aead::choose(script.flag(), true),
            resumed: script.flag(),
            message_bytes_max: script.number(),
            channels_max: script.u16().into(),
            agent: "x".repeat(script.place(1_024)),
        };
        server.accept(accepted, None).expect("polled");
    } else {
        let reason = "é".repeat(script.place(2_000));
        server.refuse(RefusalCode::Other(script.u16()), &reason).expect("polled");
    }
    let answer = server.poll_output().expect("a Welcome");
    let (mut stream, piece) = (answer.clone(), piece(script));
    edit(&mut stream, script);
    let taken = feed(&mut client, &stream, piece);
    assert!(client.poll_output().is_none());
    if !stream.starts_with(&answer) {
        match taken {
            Err(error) => {
                assert!(!matches!(error, HandshakeError::Refused { .. }), "a changed refusal was believed");
                is_silent(&mut client);
            }
            Ok(_) => assert!(client.poll_established().is_none(), "a changed Welcome was believed"),
        }
    } else if accepts {
        assert_eq!(taken, Ok(answer.len()), "what follows belongs to the record layer");
        let ours = client.poll_established().expect("a link").keys;
        let theirs = server.poll_established().expect("a link").keys;
        assert_eq!((ours.own_confirm, ours.peer_confirm), (theirs.peer_confirm, theirs.own_confirm));
    } else {
        assert!(matches!(taken, Err(HandshakeError::Refused { .. })), "{taken:?}");
        is_silent(&mut client);
    }
}

/// What a server answers to a client that is not the one of the next run.
pub(crate) fn server_answer() -> Vec<u8> {
    let (mut server, (_, flight)) = (new_server(), new_client());
    feed(&mut server, &flight, usize::MAX).expect("untouched");
    server.poll_output().expect("a flight")
}
