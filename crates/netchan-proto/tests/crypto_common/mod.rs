//! A client, a server and the wire between them.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::sync::{Arc, Mutex};

use netchan_proto::crypto::{
    Accepted, AccessSecret, Aead, ClientHandshake, ClientSettings, Established, GateKeeper, GateKey,
    Handshake, HandshakeError, Hello, LocalKey, ServerHandshake, ServerSettings, ServerTrust,
};
use netchan_proto::id::{Epoch, Incarnation, SessionId};

pub const NOW: u64 = 1_800_000_000;

pub fn key(seed: u8) -> LocalKey {
    LocalKey::from_seed([seed; 32]).expect("any seed is a key")
}

pub fn hello() -> Hello {
    Hello { version: 1, agent: "test".into(), aes_hardware: true, message_bytes_max: 1 << 26, resume: None }
}

pub fn accepted() -> Accepted {
    Accepted {
        session_id: SessionId([4; 16]),
        incarnation: Incarnation(5),
        epoch: Epoch(1),
        aead: Aead::Aes256Gcm,
        resumed: false,
        message_bytes_max: 1 << 26,
        channels_max: 1_000,
        agent: "test server".into(),
    }
}

/// One server and its gate.
pub struct World {
    pub server_key: LocalKey,
    pub settings: ServerSettings,
}

impl World {
    pub fn new() -> Self {
        let server_key = key(3);
        let keys = vec![GateKey::Secret(AccessSecret::new([7; 32])), GateKey::Pin(server_key.pin())];
        let keeper = GateKeeper::new(keys, Some(120), 1_000).expect("two keys");
        let settings =
            ServerSettings::new(server_key.clone(), Arc::new(Mutex::new(keeper))).expect("settings");
        Self { server_key, settings }
    }

    pub fn client(&self) -> ClientSettings {
        ClientSettings {
            key: key(17),
            server: ServerTrust::Pinned(self.server_key.pin()),
            secret: Some(AccessSecret::new([7; 32])),
            hello: hello(),
            resume: None,
        }
    }

    pub fn server(&self) -> ServerHandshake {
        ServerHandshake::new(&self.settings)
    }
}

pub fn start(settings: &ClientSettings) -> ClientHandshake {
    ClientHandshake::new(settings.clone(), NOW, [5; 16]).expect("starts")
}

/// Gives bytes to an end, whose gate is checked when it is there.
pub fn feed(end: &mut dyn Handshake, input: &[u8], now: u64) -> Result<usize, HandshakeError> {
    let taken = end.handle_input(input)?;
    if !end.awaits_gate() {
        return Ok(taken);
    }
    end.check_gate(now)?;
    Ok(taken + end.handle_input(&input[taken..])?)
}

/// Carries bytes both ways, in pieces, until both are quiet.
pub fn pump(
    client: &mut dyn Handshake,
    server: &mut dyn Handshake,
    piece: usize,
) -> Result<(), HandshakeError> {
    loop {
        let (up, down) = (client.poll_output(), server.poll_output());
        if up.is_none() && down.is_none() {
            return Ok(());
        }
        for part in up.unwrap_or_default().chunks(piece) {
            assert_eq!(feed(server, part, NOW)?, part.len());
        }
        for part in down.unwrap_or_default().chunks(piece) {
            assert_eq!(feed(client, part, NOW)?, part.len());
        }
    }
}

/// Runs a handshake that the server accepts.
pub fn establish(
    client: &mut dyn Handshake,
    server: &mut dyn Handshake,
    piece: usize,
) -> (Established, Established) {
    pump(client, server, piece).expect("up to the Hello");
    server.poll_hello().expect("the Hello");
    server.accept(accepted(), None).expect("polled");
    pump(client, server, piece).expect("the Welcome");
    (client.poll_established().expect("client's link"), server.poll_established().expect("server's link"))
}
