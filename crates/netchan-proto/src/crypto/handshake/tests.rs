//! Our client against TLS servers that break the rules behind the handshake, and our server against such clients.

use std::io::Write as _;
use std::sync::Arc;

use rustls::{ClientConfig, Connection, ServerConfig};

use super::client::{ClientHandshake, ClientSettings};
use super::server::{ServerHandshake, ServerSettings};
use super::{Handshake, tls};
use crate::crypto::error::{GateReject, HandshakeError};
use crate::crypto::gate::{Gate, GateMatch, GateName, GateTime};
use crate::crypto::hello::{Hello, RefusalCode, Welcome};
use crate::crypto::identity::LocalKey;
use crate::crypto::secret::{AccessSecret, ServerTrust};
use crate::limits::GATE_BYTES;

fn key(seed: u8) -> LocalKey {
    LocalKey::from_seed([seed; 32]).expect("any seed is a key")
}

fn hello() -> Hello {
    Hello { version: 1, agent: String::new(), aes_hardware: true, message_bytes_max: 0, resume: None }
}

fn drain(tls: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out).expect("a vector takes all");
    }
    out
}

fn feed(tls: &mut Connection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes).expect("room");
        tls.process_new_packets().expect("the client is right");
    }
}

/// A client and a server of plain rustls with our settings changed, brought to where the Welcome is due.
fn client_and_rogue(
    change: impl FnOnce(&mut ServerConfig),
) -> Result<(ClientHandshake, Connection), HandshakeError> {
    let server = ServerTrust::Pinned(key(1).pin());
    let settings = ClientSettings { key: key(2), server, secret: None, hello: hello(), resume: None };
    start_with_rogue(settings, change)
}

fn start_with_rogue(
    settings: ClientSettings,
    change: impl FnOnce(&mut ServerConfig),
) -> Result<(ClientHandshake, Connection), HandshakeError> {
    let mut config = (*tls::server_config(&key(1))?).clone();
    change(&mut config);
    let mut rogue = Connection::from(rustls::ServerConnection::new(Arc::new(config))?);
    let mut client = ClientHandshake::new(settings, 0, [0; 16])?;
    feed(&mut rogue, &client.poll_output().expect("gate and ClientHello")[GATE_BYTES..]);
    client.handle_input(&drain(&mut rogue))?;
    feed(&mut rogue, &client.poll_output().expect("flight and Hello"));
    Ok((client, rogue))
}

#[test]
fn hs_7_only_one_application_record_may_follow_the_handshake() {
    let welcome =
        Welcome::Refused { code: RefusalCode::Denied, reason: String::new() }.encode().expect("short");
    let rogue_act: [fn(&mut Connection); 3] = [
        |tls| tls.refresh_traffic_keys().expect("KeyUpdate"),
        |tls| tls.send_close_notify(),
        |tls| tls.writer().write_all(&[0; 5_000]).expect("buffered"),
    ];
    for (act, expected) in rogue_act.into_iter().zip([
        HandshakeError::UnexpectedRecord,
        HandshakeError::Truncated,
        HandshakeError::RecordLength(5_022),
    ]) {
        let (mut client, mut rogue) = client_and_rogue(|_| {}).expect("no rule broken yet");
        act(&mut rogue);
        rogue.writer().write_all(&welcome).expect("buffered");
        assert_eq!(client.handle_input(&drain(&mut rogue)), Err(expected));
        assert!(client.poll_output().is_none() && client.is_over());
    }

    let (mut client, mut rogue) = client_and_rogue(|_| {}).expect("no rule broken yet");
    rogue.writer().write_all(&welcome[..2]).expect("buffered");
    rogue.writer().write_all(&welcome[2..]).expect("buffered");
    assert!(matches!(client.handle_input(&drain(&mut rogue)), Err(HandshakeError::Hello(_))));
}

#[test]
fn hs_5_a_server_that_names_no_protocol_is_refused() {
    let error = client_and_rogue(|config| config.alpn_protocols.clear()).expect_err("no protocol");
    assert_eq!(error, HandshakeError::Negotiation);
}

/// Key 1's name is shown, key 3 signs.
fn forging_server(config: &mut ServerConfig) {
    let mut certified = (*key(1).certified()).clone();
    certified.key = Arc::clone(&key(3).certified().key);
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified));
    config.cert_resolver = Arc::new(resolver);
}

#[test]
fn hs_3_a_server_must_prove_the_key_it_shows_at_first_use_too() {
    let pinned = (ServerTrust::Pinned(key(1).pin()), None);
    let first_use = (ServerTrust::FirstUse, Some(AccessSecret::new([7; 32])));
    for (server, secret) in [pinned, first_use] {
        let settings = ClientSettings { key: key(2), server, secret, hello: hello(), resume: None };
        start_with_rogue(settings.clone(), |_| {}).expect("an honest server");
        let error = start_with_rogue(settings, forging_server).expect_err("a forger");
        assert!(matches!(error, HandshakeError::Tls(_)), "{error:?}");
    }
}

struct Open;

impl Gate for Open {
    fn check(&self, _: &[u8; GATE_BYTES], _: &[u8], _: GateTime) -> Result<GateMatch, GateReject> {
        Ok(GateMatch { candidate: 0, secret: None, name: GateName::default() })
    }
}

/// Our server against plain rustls as a client; what the server makes of the client's second flight and `message`.
fn server_hears(
    change: impl FnOnce(&mut ClientConfig),
    message: &[u8],
) -> (Result<usize, HandshakeError>, ServerHandshake) {
    let settings = ServerSettings::new(key(1), Arc::new(Open)).expect("settings");
    let mut server = ServerHandshake::new(&settings);
    let mut config =
        (*tls::client_config(&key(2), ServerTrust::Pinned(key(1).pin())).expect("settings")).clone();
    change(&mut config);
    let name = tls::server_name().expect("a name");
    let mut rogue = Connection::from(rustls::ClientConnection::new(Arc::new(config), name).expect("starts"));
    let first = [&[0; GATE_BYTES][..], &drain(&mut rogue)].concat();
    server.handle_input(&first).expect("a whole flight");
    if let Err(error) = server.check_gate(GateTime::default()) {
        return (Err(error), server);
    }
    feed(&mut rogue, &server.poll_output().expect("flight"));
    rogue.writer().write_all(message).expect("buffered");
    (server.handle_input(&drain(&mut rogue)), server)
}

/// Presents one key and signs with another.
fn forger(config: &mut ClientConfig) {
    let mut certified = (*key(2).certified()).clone();
    certified.key = Arc::clone(&key(3).certified().key);
    let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified));
    config.client_auth_cert_resolver = Arc::new(resolver);
}

#[test]
fn hs_4_a_client_must_prove_the_key_it_names() {
    let hello = hello().encode().expect("short");
    let (result, mut server) = server_hears(|_| {}, &hello);
    assert!(result.is_ok());
    assert_eq!(server.poll_hello().expect("a good client").fingerprint, key(2).fingerprint());

    let (result, mut server) = server_hears(forger, &hello);
    assert!(matches!(result, Err(HandshakeError::Tls(_))), "{result:?}");
    assert!(server.poll_output().is_none() && server.poll_hello().is_none() && server.is_over());
}

#[test]
fn hs_8_a_malformed_hello_meets_silence() {
    let hello = hello().encode().expect("short");
    for message in [&[&hello[..], &[0]].concat()[..], &hello[..3], &[0; 3_000]] {
        let (result, mut server) = server_hears(|_| {}, message);
        assert!(matches!(result, Err(HandshakeError::Hello(_))), "{result:?}");
        assert!(server.poll_output().is_none() && server.poll_hello().is_none());
    }
    let (result, _) = server_hears(|_| {}, &[0; 5_000]);
    assert_eq!(result, Err(HandshakeError::RecordLength(5_022)));
}
