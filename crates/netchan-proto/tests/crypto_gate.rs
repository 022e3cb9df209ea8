//! What strangers get from a server: nothing.

mod crypto_common;

use std::sync::{Arc, Mutex};

use crypto_common::*;
use netchan_proto::crypto::{
    AccessSecret, ClientHandshake, Gate, GateKeeper, GateKey, GateMatch, GateName, GateReject, GateTime,
    Handshake, HandshakeError, ServerHandshake, ServerSettings, make_gate,
};
use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};

/// Feeds bytes to a fresh server; whatever happens, it must stay silent.
fn knock(settings: &ServerSettings, bytes: &[u8], now: u64) -> Result<usize, HandshakeError> {
    let mut server = ServerHandshake::new(settings);
    let result = feed_at(&mut server, bytes, now);
    if result.is_err() {
        assert!(server.poll_output().is_none() && server.is_over());
        assert_eq!(feed_at(&mut server, bytes, now), Ok(0));
    }
    assert!(server.poll_output().is_none(), "a stranger got an answer");
    assert!(server.poll_hello().is_none() && server.poll_established().is_none());
    result
}

fn first_flight(world: &World, now: u64) -> Vec<u8> {
    ClientHandshake::new(world.client(), now, [5; 16])
        .expect("starts")
        .poll_output()
        .expect("gate and ClientHello")
}

#[test]
fn gate_1_every_flipped_bit_of_gate_and_client_hello_meets_silence() {
    let world = World::new();
    let flight = first_flight(&world, NOW);
    for bit in 0..flight.len() * 8 {
        let mut other = flight.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        if let Ok(taken) = knock(&world.settings, &other, NOW) {
            assert!(
                (59 * 8..61 * 8).contains(&bit) && taken == other.len(),
                "bit {bit}: only a longer record waits"
            );
        }
    }
    let mut server = world.server();
    feed(&mut server, &flight).expect("the flight itself is right");
    assert!(server.poll_output().is_some());
}

#[test]
fn gate_1_prefixes_and_oversized_records_meet_silence() {
    let world = World::new();
    let flight = first_flight(&world, NOW);
    for end in 0..flight.len() {
        assert_eq!(knock(&world.settings, &flight[..end], NOW), Ok(end));
    }
    let mut long = flight.clone();
    long[59..61].copy_from_slice(&4_092_u16.to_be_bytes());
    assert_eq!(knock(&world.settings, &long, NOW), Err(HandshakeError::RecordLength(4_097)));
    long[59..61].copy_from_slice(&0_u16.to_be_bytes());
    assert_eq!(knock(&world.settings, &long, NOW), Err(HandshakeError::RecordLength(5)));
    long[56] = 23;
    assert_eq!(knock(&world.settings, &long, NOW), Err(HandshakeError::RecordType(23)));
}

#[test]
fn gate_3_4_5_wrong_secret_wrong_clock_and_replay_meet_silence_and_are_told_apart() {
    let world = World::new();
    let mut stranger = world.client();
    stranger.secret = Some(AccessSecret::new([8; 32]));
    let flight = start(&stranger).poll_output().expect("gate");
    assert_eq!(knock(&world.settings, &flight, NOW), Err(GateReject::BadTag.into()));

    let flight = first_flight(&world, NOW + 121);
    assert_eq!(knock(&world.settings, &flight, NOW), Err(GateReject::Clock { skew_seconds: 121 }.into()));

    let flight = first_flight(&world, NOW);
    assert!(feed(&mut world.server(), &flight).is_ok());
    assert_eq!(knock(&world.settings, &flight, NOW + 100), Err(GateReject::Replay.into()));
}

#[test]
fn gate_3_pin_gates_can_be_refused() {
    let world = World::new();
    let keys = vec![GateKey::Secret(AccessSecret::new([7; 32]))];
    let keeper =
        GateKeeper::new(keys, Some(120), netchan_proto::limits::GATE_REPLAY_ENTRIES_MAX).expect("one key");
    let settings = ServerSettings::new(key(3), Arc::new(Mutex::new(keeper))).expect("settings");
    let mut client = world.client();
    client.secret = None;
    let flight = start(&client).poll_output().expect("gate");
    assert_eq!(knock(&settings, &flight, NOW), Err(GateReject::BadTag.into()));
}

/// Lets everyone pass: what stands behind the gate must hold too.
#[derive(Debug)]
struct Open;

impl Gate for Open {
    fn check(&self, _: &[u8; 56], _: &[u8], _: GateTime) -> Result<GateMatch, GateReject> {
        Ok(GateMatch { candidate: 0, secret: None, name: GateName::default() })
    }
}

/// A plain TLS client, as a stranger would bring it, with its offers changed.
fn foreign_client_hello(change: impl FnOnce(&mut rustls::ClientConfig), kx: KeyExchange) -> Vec<u8> {
    let mut crypto = rustls::crypto::aws_lc_rs::default_provider();
    crypto.kx_groups = match kx {
        KeyExchange::Hybrid => vec![X25519MLKEM768],
        KeyExchange::Classic => vec![X25519],
        KeyExchange::HybridWithoutShare => vec![X25519, X25519MLKEM768],
    };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    change(&mut config);
    let name = "example.org".try_into().expect("a name");
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("starts");
    let mut out = vec![0; 56];
    while tls.wants_write() {
        tls.write_tls(&mut out).expect("a vector");
    }
    out
}

enum KeyExchange {
    Hybrid,
    Classic,
    /// Makes a server ask for a second ClientHello, which no gate would cover.
    HybridWithoutShare,
}

#[test]
fn hs_2_and_5_clients_without_our_protocol_or_key_exchange_meet_silence() {
    let settings = ServerSettings::new(key(3), Arc::new(Open)).expect("settings");
    let alpn = |names: &'static [&'static str]| {
        move |config: &mut rustls::ClientConfig| {
            config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        }
    };
    for names in [&[][..], &["netchan/2"], &["h2", "http/1.1"]] {
        assert!(
            knock(&settings, &foreign_client_hello(alpn(names), KeyExchange::Hybrid), NOW).is_err(),
            "{names:?}"
        );
    }
    assert!(
        knock(&settings, &foreign_client_hello(alpn(&["netchan/1"]), KeyExchange::Classic), NOW).is_err()
    );
    let retry = foreign_client_hello(alpn(&["netchan/1"]), KeyExchange::HybridWithoutShare);
    assert_eq!(knock(&settings, &retry, NOW), Err(HandshakeError::Negotiation));
    // X.509 clients offer no raw public keys.
    assert!(knock(&settings, &foreign_client_hello(alpn(&["netchan/1"]), KeyExchange::Hybrid), NOW).is_err());
}

proptest! {
    #[test]
    fn gate_1_garbage_meets_silence(bytes in proptest::collection::vec(any::<u8>(), 0..5_000), tls in any::<bool>()) {
        let world = World::new();
        let mut bytes = bytes;
        if tls && bytes.len() > 61 {
            let body = (bytes.len() - 61).min(4_091) as u16;
            bytes[56..59].copy_from_slice(&[22, 3, 1]);
            bytes[59..61].copy_from_slice(&body.to_be_bytes());
        }
        let _ = knock(&world.settings, &bytes, NOW);
    }

    #[test]
    fn gate_1_a_right_gate_before_garbage_meets_silence(body in proptest::collection::vec(any::<u8>(), 1..600)) {
        let world = World::new();
        let record = [&[22, 3, 1][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        let gate = make_gate(&GateKey::Secret(AccessSecret::new([7; 32])), NOW, [1; 16], &record);
        prop_assert!(knock(&world.settings, &[&gate[..], &record].concat(), NOW).is_err());
    }
}
