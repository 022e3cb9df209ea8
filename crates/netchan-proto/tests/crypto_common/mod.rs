//! A client, a server and the wire between them.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::sync::{Arc, Mutex};

use netchan_proto::crypto::{
    Accepted, AccessSecret, Aead, ClientHandshake, ClientSettings, Established, GateKeeper, GateKey,
    GateTime, Handshake, HandshakeError, Hello, LocalKey, RefusalCode, ServerHandshake, ServerSettings,
    ServerTrust,
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
        let keeper = GateKeeper::new(keys, Some(120), netchan_proto::limits::GATE_REPLAY_ENTRIES_MAX)
            .expect("two keys");
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

/// Gives bytes to an end, whose gate is checked at that time when it is there. Says how many it took.
pub fn feed_at(end: &mut dyn Handshake, input: &[u8], now: u64) -> Result<usize, HandshakeError> {
    let taken = end.handle_input(input)?;
    if !end.awaits_gate() {
        return Ok(taken);
    }
    end.check_gate(GateTime { unix_seconds: now, steady_seconds: now - NOW / 2 })?;
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
            assert_eq!(feed(server, part)?, part.len());
        }
        for part in down.unwrap_or_default().chunks(piece) {
            assert_eq!(feed(client, part)?, part.len());
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

/// The same, now.
pub fn feed(handshake: &mut dyn Handshake, bytes: &[u8]) -> Result<usize, HandshakeError> {
    feed_at(handshake, bytes, NOW)
}

/// What TLS says for the sake of old middleboxes, and means nothing by.
pub const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];

/// The end of a handshake that was fed with this result: whether it failed at once or waited until the connection ended,
/// nothing is said any more, nobody is let in, and nothing more is taken.
pub fn ends_in_silence(handshake: &mut dyn Handshake, fed: Result<usize, HandshakeError>) -> HandshakeError {
    let error = match fed {
        Err(error) => error,
        Ok(_) => {
            assert!(!handshake.is_over(), "it neither waits nor failed");
            let said = handshake.poll_output();
            assert!(said.is_none_or(|said| said == CHANGE_CIPHER_SPEC), "it answers and waits");
            assert!(handshake.poll_hello().is_none() && handshake.poll_established().is_none());
            handshake.handle_end()
        }
    };
    assert!(handshake.poll_output().is_none(), "something is said at the end: {error}");
    assert!(handshake.poll_hello().is_none() && handshake.poll_established().is_none());
    assert!(handshake.is_over());
    assert_eq!(feed(handshake, &[22, 3, 3]), Ok(0));
    error
}

/// A client and a server, and the next words of one of them.
pub struct Wire {
    pub client: ClientHandshake,
    pub server: ServerHandshake,
    /// On its way, and not delivered.
    pub bytes: Vec<u8>,
}

impl Wire {
    /// The client has said gate and ClientHello.
    pub fn opened(world: &World) -> Self {
        let (mut client, server) = (start(&world.client()), world.server());
        let bytes = client.poll_output().expect("gate and ClientHello");
        Self { client, server, bytes }
    }

    /// The server has answered.
    pub fn answered(world: &World) -> Self {
        let mut wire = Self::opened(world);
        feed(&mut wire.server, &wire.bytes).expect("untouched");
        wire.bytes = wire.server.poll_output().expect("a flight");
        wire
    }

    /// The client has said its Finished and its Hello.
    pub fn finished(world: &World) -> Self {
        let mut wire = Self::answered(world);
        feed(&mut wire.client, &wire.bytes).expect("untouched");
        wire.bytes = wire.client.poll_output().expect("Finished and Hello");
        wire
    }

    /// The server has welcomed the client, or refused it.
    pub fn judged(world: &World, accepts: bool) -> Self {
        let mut wire = Self::finished(world);
        feed(&mut wire.server, &wire.bytes).expect("untouched");
        wire.server.poll_hello().expect("the Hello");
        let judged = if accepts {
            wire.server.accept(accepted(), None)
        } else {
            wire.server.refuse(RefusalCode::Denied, "not today")
        };
        judged.expect("polled");
        wire.bytes = wire.server.poll_output().expect("a Welcome");
        wire
    }
}

/// Where each TLS record of a flight stands.
pub fn tls_records(flight: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < flight.len() {
        let end = at + 5 + usize::from(u16::from_be_bytes([flight[at + 3], flight[at + 4]]));
        records.push(at..end);
        at = end;
    }
    records
}
