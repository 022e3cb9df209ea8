//! Trust on first use: authenticated against everybody but other holders of the access secret.

mod crypto_common;

use std::sync::Arc;

use crypto_common::*;
use netchan_proto::crypto::{
    AccessSecret, ClientHandshake, ClientSettings, Gate, GateMatch, GateName, GateReject, GateTime,
    HandshakeError, LocalKey, ResumeFrom, SealBuf, ServerHandshake, ServerSettings, ServerTrust,
    confirm_matches,
};
use netchan_proto::id::{ChannelId, Epoch, SessionId};
use netchan_proto::limits::{GATE_BYTES, RECORD_BYTES_MAX};

/// A gate that lets everybody in, as an impostor's would.
struct Wide(Option<AccessSecret>);

impl Gate for Wide {
    fn check(&self, _: &[u8; GATE_BYTES], _: &[u8], _: GateTime) -> Result<GateMatch, GateReject> {
        Ok(GateMatch { candidate: 0, secret: self.0.clone(), name: GateName::default() })
    }
}

fn impostor(key: LocalKey, secret: Option<[u8; 32]>) -> ServerHandshake {
    let gate = Arc::new(Wide(secret.map(AccessSecret::new)));
    ServerHandshake::new(&ServerSettings::new(key, gate).expect("settings"))
}

fn first_use(world: &World) -> ClientSettings {
    ClientSettings { server: ServerTrust::FirstUse, ..world.client() }
}

/// Whether the client finds the server's first record sealed under the link's keys, with the confirmation it expects.
fn confirms(client: &mut ClientHandshake, server: &mut ServerHandshake) -> bool {
    let (mut ours, mut theirs) = establish(client, server, usize::MAX);
    let mut record = SealBuf::new(RECORD_BYTES_MAX);
    let confirm = theirs.keys.own_confirm;
    theirs.keys.sealer.seal(ChannelId::CONTROL, &confirm, b"", 0, &mut record).expect("sealed");
    let mut received = [0; 48];
    let opened = ours.keys.opener.peek(record.filled()).is_ok()
        && ours.keys.opener.open(record.filled(), &mut received).is_ok();
    let same = confirm_matches(&ours.keys.peer_confirm, &confirm);
    assert_eq!(opened && received == confirm, same, "a record that opens confirms");
    same
}

#[test]
fn hs_3_at_first_use_the_server_is_told_by_its_key_and_known_by_the_secret() {
    let world = World::new();
    let (mut client, mut server) = (start(&first_use(&world)), world.server());
    assert!(confirms(&mut client, &mut server));

    let (mut client, mut server) = (start(&first_use(&world)), world.server());
    let (ours, _) = establish(&mut client, &mut server, usize::MAX);
    assert_eq!(ours.peer, world.server_key.fingerprint());
}

#[test]
fn key_6_at_first_use_an_impostor_without_the_secret_cannot_confirm() {
    let world = World::new();
    for secret in [None, Some([8; 32])] {
        // With a key of its own, and were it to know the server's.
        for key in [key(66), world.server_key.clone()] {
            let (mut client, mut server) = (start(&first_use(&world)), impostor(key, secret));
            assert!(!confirms(&mut client, &mut server));
        }
    }
}

/// What trust on first use does not promise: another holder of the secret is taken for the server.
#[test]
fn hs_3_at_first_use_a_holder_of_the_secret_is_taken_for_the_server() {
    let world = World::new();
    let (mut client, mut server) = (start(&first_use(&world)), impostor(key(66), Some([7; 32])));
    assert!(confirms(&mut client, &mut server));

    let (mut client, mut server) = (start(&world.client()), impostor(key(66), Some([7; 32])));
    let shown = key(66).fingerprint();
    let refused = Err(HandshakeError::WrongPin { shown });
    assert_eq!(pump(&mut client, &mut server, usize::MAX), refused, "a pinned client is not fooled");
}

#[test]
fn hs_3_first_use_without_a_secret_sends_nothing() {
    let settings = ClientSettings { secret: None, ..first_use(&World::new()) };
    let error = ClientHandshake::new(settings, NOW, [5; 16]).expect_err("no secret");
    assert_eq!(error, HandshakeError::FirstUseWithoutSecret);
    assert!(error.to_string().contains("access secret"), "{error}");
}

#[test]
fn hs_3_a_session_does_not_go_on_by_first_use() {
    let world = World::new();
    let (mut client, mut server) = (start(&world.client()), world.server());
    let (ours, _) = establish(&mut client, &mut server, usize::MAX);
    let secret = ours.keys.resume_secret.clone();
    let resume = Some(ResumeFrom { session_id: SessionId([4; 16]), last_epoch: Epoch(1), secret });
    let settings = ClientSettings { resume, ..first_use(&world) };
    let error = ClientHandshake::new(settings, NOW, [5; 16]).expect_err("the server is known");
    assert_eq!(error, HandshakeError::FirstUseResumes);
}
