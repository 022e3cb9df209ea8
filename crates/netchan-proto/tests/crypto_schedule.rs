//! Every channel, direction, session and opener has keys of its own; the stub handshake behaves like the real one.

mod crypto_common;

use std::collections::HashSet;

use crypto_common::*;
use netchan_proto::crypto::handshake::stub::InsecureStub;
use netchan_proto::crypto::{
    Fingerprint, Handshake, HandshakeError, LinkKeys, RefusalCode, ResumeFrom, SealBuf,
};
use netchan_proto::id::{ChannelId, Direction, Epoch, SessionId, Side};

/// Seals the same bytes with the channel's key as the first record of a link.
fn sealed(epoch: u32, opener: Side, opens: &[&[u8]], direction: Direction) -> Vec<u8> {
    let mut keys = LinkKeys::stub(Side::Client, b"seed", epoch);
    let chain = if opener == Side::Client { &mut keys.own_chain } else { &mut keys.peer_chain };
    let mut last = None;
    for open in opens {
        last = Some(chain.step(open));
    }
    let channel = ChannelId(7);
    keys.sealer.add_channel(channel, last.expect("one OPEN").secret(direction)).expect("new");
    let mut out = SealBuf::new(200);
    keys.sealer.seal(channel, &[0; 64], b"", 0, &mut out).expect("sealed");
    out.filled()[8..].to_vec()
}

#[test]
fn key_8_every_channel_direction_opener_order_and_epoch_has_its_own_key() {
    let mut seen = HashSet::new();
    let mut count = 0;
    // A key depends on the opener's count of OPENs and on its own OPEN frame.
    let histories: [&[&[u8]]; 5] = [&[b"a"], &[b"b"], &[b"a", b"a"], &[b"a", b"b"], &[b"a", b"a", b"a"]];
    for epoch in 0..3 {
        for opener in [Side::Client, Side::Server] {
            for opens in histories {
                for direction in [Direction::FromClient, Direction::FromServer] {
                    seen.insert(sealed(epoch, opener, opens, direction));
                    count += 1;
                }
            }
        }
    }
    assert_eq!(seen.len(), count);
    assert_eq!(
        sealed(0, Side::Client, &[b"a"], Direction::FromClient),
        sealed(0, Side::Client, &[b"a"], Direction::FromClient)
    );
}

#[test]
fn key_4_the_two_sides_mirror_each_other() {
    let client = LinkKeys::stub(Side::Client, b"seed", 1);
    let server = LinkKeys::stub(Side::Server, b"seed", 1);
    assert_eq!((client.own_confirm, client.peer_confirm), (server.peer_confirm, server.own_confirm));
    assert_eq!(client.resume_secret, server.resume_secret);
    assert_ne!(client.own_confirm, client.peer_confirm);
    assert_ne!(client.own_confirm, LinkKeys::stub(Side::Client, b"seed", 2).own_confirm);
    assert_ne!(client.own_confirm, LinkKeys::stub(Side::Client, b"deed", 1).own_confirm);
}

fn stubs(seed: &[u8], resume: Option<ResumeFrom>) -> (InsecureStub, InsecureStub) {
    let client = InsecureStub::client(seed, Fingerprint([1; 32]), hello(), resume).expect("encodes");
    (client, InsecureStub::server(seed, Fingerprint([2; 32])))
}

#[test]
fn the_stub_goes_through_the_same_motions() {
    for piece in [1, 5, usize::MAX] {
        let (mut client, mut server) = stubs(b"seed", None);
        let (ours, theirs) = establish(&mut client, &mut server, piece);
        assert_eq!((ours.peer, theirs.peer), (Fingerprint([2; 32]), Fingerprint([1; 32])));
        assert_eq!(ours.keys.own_confirm, theirs.keys.peer_confirm);
        assert_eq!(ours.accepted, theirs.accepted);
        assert!(client.is_over() && server.is_over());
        assert_eq!(feed(&mut client, b"left over"), Ok(0));
    }
    let (mut client, mut server) = stubs(b"seed", None);
    assert_eq!(client.handle_end(), HandshakeError::NoAnswer);
    let (mut client, _) = stubs(b"seed", None);
    pump(&mut client, &mut server, 3).expect("paused");
    assert!(server.poll_hello().is_some());
    server.refuse(RefusalCode::ShuttingDown, "bye").expect("polled");
    let refused = HandshakeError::Refused { code: RefusalCode::ShuttingDown, reason: "bye".into() };
    assert_eq!(pump(&mut client, &mut server, 3), Err(refused));
}

#[test]
fn the_stub_resumes_with_proofs() {
    let (mut client, mut server) = stubs(b"one", None);
    let (first, _) = establish(&mut client, &mut server, 9);
    let secret = first.keys.resume_secret.clone();
    let resume = ResumeFrom { session_id: SessionId([4; 16]), last_epoch: Epoch(1), secret: secret.clone() };
    let (mut client, mut server) = stubs(b"two", Some(resume));
    pump(&mut client, &mut server, 9).expect("paused");
    let peer = server.poll_hello().expect("Hello");
    assert!(peer.prove(&LinkKeys::stub(Side::Client, b"other", 0).resume_secret).is_none());
    server.accept(accepted(), peer.prove(&secret)).expect("polled");
    pump(&mut client, &mut server, 9).expect("Welcome");
    let (ours, theirs) =
        (client.poll_established().expect("client"), server.poll_established().expect("server"));
    assert!(ours.accepted.resumed && theirs.accepted.resumed);
    assert_eq!(ours.keys.own_confirm, theirs.keys.peer_confirm);
}
