//! The frozen vectors in `vectors/`: recomputed here, and read by `vectors/verify.py`, which shares no code with us.
//!
//! After a deliberate change of the protocol: `cargo test -p netchan-proto freeze_vectors -- --ignored`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::cipher::{Aead, HeaderMask};
use super::gate::{GateKey, make_gate};
use super::hello::{Accepted, Hello, RefusalCode, Resume, Welcome};
use super::link_vectors::links;
use super::record::{RekeyLimits, SealBuf, Sealer};
use super::schedule::{ChannelKeys, LinkKeys, RootSecret, Transcript, expand, hash, prk};
use super::secret::{AccessSecret, ResumeSecret, ServerPin, TrafficSecret};
use crate::id::{ChannelId, Direction, Epoch, Incarnation, SessionId, Side};

/// Lines of `name = hex`.
#[derive(Default)]
pub(super) struct Lines(pub(super) String);

impl Lines {
    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("strings take all");
            hex
        });
        writeln!(self.0, "{name} = {hex}").expect("strings take all");
    }
}

pub(super) fn bytes<const N: usize>(start: u8) -> [u8; N] {
    std::array::from_fn(|i| start.wrapping_add(i as u8))
}

fn gate() -> String {
    let mut lines = Lines::default();
    let client_hello = [&[22, 3, 1, 0, 40][..], &bytes::<40>(0x60)].concat();
    let unix_seconds = 1_800_000_123_u64;
    lines.put("time", &unix_seconds.to_be_bytes());
    lines.put("salt", &bytes::<16>(0x10));
    lines.put("client_hello", &client_hello);
    let keys = [
        ("psk", GateKey::Secret(AccessSecret::new(bytes(0x20)))),
        ("pin", GateKey::Pin(ServerPin(bytes(0x20)))),
    ];
    lines.put("key", &bytes::<32>(0x20));
    for (name, key) in keys {
        lines.put(name, &make_gate(&key, unix_seconds, bytes(0x10), &client_hello));
    }
    lines.0
}

fn put_channel(lines: &mut Lines, name: &str, keys: &ChannelKeys) {
    let directions = [(Direction::FromClient, "client"), (Direction::FromServer, "server")];
    for (direction, from) in directions {
        let mut secret = keys.secret(direction);
        for epoch in 0..2 {
            let (mut key, mut iv) = ([0; 32], [0; 12]);
            expand(&prk(&secret.0), b"key", &[], &mut key);
            expand(&prk(&secret.0), b"iv", &[], &mut iv);
            lines.put(&format!("{name}.{from}.{epoch}.secret"), &secret.0[..]);
            lines.put(&format!("{name}.{from}.{epoch}.key"), &key);
            lines.put(&format!("{name}.{from}.{epoch}.iv"), &iv);
            secret = secret.next();
        }
    }
}

fn schedule() -> String {
    let mut lines = Lines::default();
    let gate_and_client_hello = bytes::<100>(0x01);
    let (exporter, psk, previous) = (bytes::<48>(0x40), AccessSecret::new(bytes(0x80)), bytes::<48>(0xb0));
    let opening = hash(&[&gate_and_client_hello]);
    let transcript = Transcript {
        version: 1,
        opening: &opening,
        client_spki: &bytes(0x22),
        server_spki: &bytes(0x33),
        hello: b"an encoded hello",
        welcome: b"an encoded welcome",
    };
    let ctx = transcript.context();
    lines.put("version", &[0, 1]);
    lines.put("alpn", super::handshake::ALPN);
    lines.put("gate_and_client_hello", &gate_and_client_hello);
    lines.put("client_spki", transcript.client_spki);
    lines.put("server_spki", transcript.server_spki);
    lines.put("hello", transcript.hello);
    lines.put("welcome", transcript.welcome);
    lines.put("exporter", &exporter);
    lines.put("psk", psk.expose());
    lines.put("rs_prev", &previous);
    lines.put("ctx", &ctx);
    let resume = ResumeSecret(Zeroizing::new(previous));
    for (name, psk, resume) in [("full", Some(&psk), Some(&resume)), ("bare", None, None)] {
        let root = RootSecret::extract(&exporter, psk, resume);
        let mut keys = LinkKeys::derive(Side::Client, Aead::Aes256Gcm, root, &ctx);
        let root = RootSecret::extract(&exporter, psk, resume);
        put_channel(&mut lines, &format!("{name}.control"), &ChannelKeys::control(&root, &ctx));
        lines.put(&format!("{name}.confirm.client"), &keys.own_confirm);
        lines.put(&format!("{name}.confirm.server"), &keys.peer_confirm);
        lines.put(&format!("{name}.rs"), &keys.resume_secret.0[..]);
        lines.put(&format!("{name}.proof"), &keys.resume_secret.proof(&bytes(0x70)));
        for open in ["first open", "second open"] {
            put_channel(&mut lines, &format!("{name}.client.{open}"), &keys.own_chain.step(open.as_bytes()));
            put_channel(&mut lines, &format!("{name}.server.{open}"), &keys.peer_chain.step(open.as_bytes()));
        }
    }
    lines.put("resume_exporter", &bytes::<48>(0x70));
    lines.0
}

fn records() -> String {
    let mut lines = Lines::default();
    for (name, aead) in [("aes", Aead::Aes256Gcm), ("chacha", Aead::ChaCha20Poly1305)] {
        let secret = |start| TrafficSecret(Zeroizing::new(bytes(start)));
        let mut sealer = Sealer::new(aead, HeaderMask::new(aead, &bytes(0x90)), secret(0x01));
        sealer.add_channel(ChannelId(0x0102_0305), secret(0x51)).expect("new");
        sealer.set_rekey_limits(RekeyLimits { records: 3, ..RekeyLimits::default() });
        lines.put(&format!("{name}.mask_key"), &bytes::<32>(0x90));
        lines.put(&format!("{name}.secret.00000000"), &bytes::<48>(0x01));
        lines.put(&format!("{name}.secret.01020305"), &bytes::<48>(0x51));
        let mut out = SealBuf::new(1 << 16);
        for number in 0..16_usize {
            let channel = if number % 3 == 0 { ChannelId::CONTROL } else { ChannelId(0x0102_0305) };
            let plaintext: Vec<u8> = (0..number * number).map(|i| (i + number) as u8).collect();
            let (body, trailer) = plaintext.split_at(plaintext.len() / 2);
            sealer.seal(channel, body, trailer, 0, &mut out).expect("fits");
            lines.put(&format!("{name}.{number:02}.channel"), &channel.0.to_be_bytes());
            lines.put(&format!("{name}.{number:02}.plaintext"), &plaintext);
        }
        lines.put(&format!("{name}.stream"), out.filled());
    }
    lines.0
}

/// A header as it is before it is masked.
fn header(len: u32, channel: ChannelId, flags: u8) -> [u8; 8] {
    let ([_, a, b, c], [d, e, f, g]) = (len.to_be_bytes(), channel.0.to_be_bytes());
    [a, b, c, d, e, f, g, flags]
}

fn header_mask() -> String {
    let mut lines = Lines::default();
    let counting = bytes::<16>(0x00);
    // The first four bytes of a sample are ChaCha20's counter.
    let high = [0xff, 0xff, 0xff, 0x7f, 0x80, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let cases = [
        ("control", [0; 16], header(16, ChannelId::CONTROL, 0)),
        ("first", counting, header(1_000, ChannelId(1), 0)),
        ("longest", [0xff; 16], header(65_552, ChannelId(u32::MAX), 1)),
        ("phase", high, header(24, ChannelId(0x0102_0304), 1)),
    ];
    for (name, aead, key) in [("aes", Aead::Aes256Gcm, 0x11), ("chacha", Aead::ChaCha20Poly1305, 0x51)] {
        let key = bytes(key);
        let mask = HeaderMask::new(aead, &key);
        lines.put(&format!("{name}.key"), &key);
        for (case, sample, plain) in cases {
            let mut masked = plain;
            mask.apply(&mut masked, &sample);
            lines.put(&format!("{name}.{case}.sample"), &sample);
            lines.put(&format!("{name}.{case}.plain"), &plain);
            lines.put(&format!("{name}.{case}.masked"), &masked);
        }
    }
    lines.0
}

fn hello() -> String {
    let mut lines = Lines::default();
    let plain = Hello {
        version: 1,
        agent: "netchan/0.1.0".into(),
        aes_hardware: true,
        message_bytes_max: 1 << 26,
        resume: None,
    };
    let resume = Resume { session_id: SessionId(bytes(0x01)), last_epoch: Epoch(7), proof: bytes(0xa0) };
    let hellos = [
        ("hello-new", plain.clone()),
        ("hello-without-aes", Hello { aes_hardware: false, agent: String::new(), ..plain.clone() }),
        ("hello-resume", Hello { agent: "é".into(), resume: Some(resume), ..plain.clone() }),
        ("hello-other-version", Hello { version: 0x0203, message_bytes_max: u64::MAX, ..plain }),
    ];
    for (name, hello) in hellos {
        lines.put(name, &hello.encode().expect("short texts"));
    }
    let accepted = Accepted {
        session_id: SessionId(bytes(0x01)),
        incarnation: Incarnation(0x0102_0304_0506_0708),
        epoch: Epoch(0),
        aead: Aead::Aes256Gcm,
        resumed: false,
        message_bytes_max: 1 << 26,
        channels_max: 65_536,
        agent: "netchan/0.1.0".into(),
    };
    let resumed =
        Accepted { epoch: Epoch(8), aead: Aead::ChaCha20Poly1305, resumed: true, ..accepted.clone() };
    let refused = |code, reason: &str| Welcome::Refused { code, reason: reason.into() };
    let welcomes = [
        ("welcome-aes", Welcome::Accepted(accepted)),
        ("welcome-chacha-resumed", Welcome::Accepted(resumed)),
        ("refused-version", refused(RefusalCode::VersionUnsupported, "version 1")),
        ("refused-denied", refused(RefusalCode::Denied, "why")),
        ("refused-too-many-sessions", refused(RefusalCode::TooManySessions, "")),
        ("refused-shutting-down", refused(RefusalCode::ShuttingDown, "")),
        ("refused-session-unknown", refused(RefusalCode::SessionUnknown, "")),
        ("refused-too-many-suspended", refused(RefusalCode::TooManySuspended, "")),
        ("refused-already-connected", refused(RefusalCode::AlreadyConnected, "")),
        ("refused-session-ended", refused(RefusalCode::SessionEnded, "")),
        ("refused-later", refused(RefusalCode::Other(0x1234), &"é".repeat(100))),
    ];
    for (name, welcome) in welcomes {
        lines.put(name, &welcome.encode().expect("short texts"));
    }
    lines.0
}

fn all() -> Vec<(PathBuf, String)> {
    let files = [
        ("gate", gate()),
        ("schedule", schedule()),
        ("header_mask", header_mask()),
        ("records", records()),
        ("hello", hello()),
        ("links", links()),
    ];
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors");
    files.map(|(name, lines)| (directory.join(name).with_extension("txt"), lines)).into()
}

#[test]
fn vectors_are_as_frozen() {
    for (path, lines) in all() {
        let frozen = fs::read_to_string(&path).expect("vectors are part of the sources").replace('\r', "");
        for (line, (ours, theirs)) in lines.lines().zip(frozen.lines()).enumerate() {
            assert_eq!(ours, theirs, "{} line {}", path.display(), line + 1);
        }
        assert_eq!(lines.lines().count(), frozen.lines().count(), "{}", path.display());
    }
}

#[test]
#[ignore = "overwrites the frozen vectors"]
fn freeze_vectors() {
    for (path, lines) in all() {
        fs::write(path, lines).expect("the source tree is writable");
    }
}
