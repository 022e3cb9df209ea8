//! The real handshake in memory: it works however the bytes are cut, and nothing but the right peers get through.

mod crypto_common;

use crypto_common::*;
use netchan_proto::crypto::hello::VERSION;
use netchan_proto::crypto::{
    Accepted, Handshake, HandshakeError, LinkKeys, Peek, RefusalCode, ResumeFrom, SealBuf, ServerTrust,
    confirm_matches,
};
use netchan_proto::id::{ChannelId, Direction, Epoch, SessionId};
use netchan_proto::limits::{RECORD_BYTES_MAX, UNAUTHENTICATED_BYTES_MAX};

fn send(from: &mut LinkKeys, to: &mut LinkKeys, channel: ChannelId, body: &[u8]) {
    let mut out = SealBuf::new(RECORD_BYTES_MAX);
    from.sealer.seal(channel, body, b"", 0, &mut out).expect("sealed");
    let Ok(Peek::Record { channel: to_channel, plaintext_len, .. }) = to.opener.peek(out.filled()) else {
        panic!("a whole record");
    };
    let mut plaintext = vec![0; plaintext_len];
    assert_eq!(to.opener.open(out.filled(), &mut plaintext), Ok(to_channel));
    assert_eq!((to_channel, &plaintext[..]), (channel, body));
}

fn check_link(client: &mut LinkKeys, server: &mut LinkKeys) {
    assert!(confirm_matches(&client.peer_confirm, &server.own_confirm));
    assert!(confirm_matches(&server.peer_confirm, &client.own_confirm));
    assert!(!confirm_matches(&client.peer_confirm, &client.own_confirm));
    assert_eq!(client.resume_secret, server.resume_secret);
    let (ours, theirs) = (client.own_confirm, server.own_confirm);
    send(client, server, ChannelId::CONTROL, &ours);
    send(server, client, ChannelId::CONTROL, &theirs);

    let (ours, theirs) = (client.own_chain.step(b"open 1"), server.peer_chain.step(b"open 1"));
    let channel = ChannelId(1);
    client.sealer.add_channel(channel, ours.secret(Direction::FromClient)).expect("new");
    client.opener.add_channel(channel, ours.secret(Direction::FromServer)).expect("new");
    server.sealer.add_channel(channel, theirs.secret(Direction::FromServer)).expect("new");
    server.opener.add_channel(channel, theirs.secret(Direction::FromClient)).expect("new");
    send(client, server, channel, b"over the channel");
    send(server, client, channel, b"and back");
}

#[test]
fn hs_1_a_secret_and_a_pin_each_lead_to_a_link() {
    for with_secret in [true, false] {
        let world = World::new();
        let mut settings = world.client();
        settings.secret = settings.secret.filter(|_| with_secret);
        let (mut client, mut server) = (start(&settings), world.server());
        let (mut ours, mut theirs) = establish(&mut client, &mut server, usize::MAX);
        assert_eq!((ours.key_exchange, theirs.key_exchange), ("X25519MLKEM768", "X25519MLKEM768"));
        assert_eq!((ours.cipher, theirs.cipher), ("AES-256-GCM", "AES-256-GCM"));
        assert_eq!(ours.peer, world.server_key.fingerprint());
        assert_eq!(theirs.peer, settings.key.fingerprint());
        assert_eq!((&ours.hello, &ours.accepted), (&theirs.hello, &theirs.accepted));
        assert!(!ours.accepted.resumed && client.is_over() && server.is_over());
        check_link(&mut ours.keys, &mut theirs.keys);
    }
}

#[test]
fn hs_6_bytes_may_come_in_any_pieces() {
    for piece in [1, 2, 3, 7, 61, 1_000] {
        let world = World::new();
        let (mut client, mut server) = (start(&world.client()), world.server());
        let (mut ours, mut theirs) = establish(&mut client, &mut server, piece);
        check_link(&mut ours.keys, &mut theirs.keys);
    }
}

#[test]
fn hs_6_bytes_after_the_last_message_are_left_alone() {
    let world = World::new();
    let (mut client, mut server) = (start(&world.client()), world.server());
    let first = client.poll_output().expect("gate");
    assert_eq!(feed(&mut server, &first), Ok(first.len()));
    let flight = server.poll_output().expect("flight");
    assert_eq!(feed(&mut client, &flight), Ok(flight.len()));
    let mut to_server = client.poll_output().expect("flight and Hello");
    let hello_end = to_server.len();
    to_server.extend_from_slice(&[0xff; 500]);
    assert_eq!(feed(&mut server, &to_server), Ok(hello_end));
    assert_eq!(feed(&mut server, &to_server[hello_end..]), Ok(0), "paused");
    assert!(server.poll_hello().is_some() && server.poll_hello().is_none());
    server.accept(accepted(), None).expect("polled");
    assert_eq!(feed(&mut server, &to_server[hello_end..]), Ok(0), "established");
    let mut to_client = server.poll_output().expect("Welcome");
    let welcome_end = to_client.len();
    to_client.extend_from_slice(&[0xff; 500]);
    assert_eq!(feed(&mut client, &to_client), Ok(welcome_end));
    assert_eq!(feed(&mut client, &to_client[welcome_end..]), Ok(0));
    assert!(client.poll_established().is_some() && server.poll_established().is_some());
}

#[test]
fn hs_3_a_server_with_another_key_is_refused_by_the_client_in_silence() {
    let world = World::new();
    let mut settings = world.client();
    settings.server = ServerTrust::Pinned(key(77).pin());
    let (mut client, mut server) = (start(&settings), world.server());
    let shown = world.server_key.fingerprint();
    assert_eq!(pump(&mut client, &mut server, usize::MAX), Err(HandshakeError::WrongPin { shown }));
    assert!(client.poll_output().is_none() && client.is_over());
    assert_eq!(feed(&mut client, &[1]), Ok(0));
}

#[test]
fn hs_9_refusals_reach_the_client_with_code_and_reason() {
    let world = World::new();
    let (mut client, mut server) = (start(&world.client()), world.server());
    assert_eq!(server.refuse(RefusalCode::Denied, "early"), Err(HandshakeError::NotNow));
    pump(&mut client, &mut server, 1).expect("nothing wrong yet");
    let peer = server.poll_hello().expect("the Hello");
    assert_eq!((peer.candidate, peer.has_secret), (0, true));
    assert_eq!(peer.fingerprint, world.client().key.fingerprint());
    server.refuse(RefusalCode::Denied, "not today").expect("polled");
    assert!(server.is_over() && server.poll_established().is_none());
    assert_eq!(server.accept(accepted(), None), Err(HandshakeError::NotNow));
    let refused = HandshakeError::Refused { code: RefusalCode::Denied, reason: "not today".into() };
    assert_eq!(pump(&mut client, &mut server, 1), Err(refused));
    assert!(client.is_over() && client.poll_established().is_none());
}

#[test]
fn hs_8_another_version_is_refused_by_name() {
    let world = World::new();
    let mut settings = world.client();
    settings.hello.version = VERSION + 1;
    let (mut client, mut server) = (start(&settings), world.server());
    match pump(&mut client, &mut server, usize::MAX) {
        Err(HandshakeError::Refused { code: RefusalCode::VersionUnsupported, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(server.poll_hello().is_none() && server.is_over());
}

#[test]
fn hs_10_an_unpolled_hello_cannot_be_answered() {
    let world = World::new();
    let (mut client, mut server) = (start(&world.client()), world.server());
    pump(&mut client, &mut server, usize::MAX).expect("paused");
    assert_eq!(server.accept(accepted(), None), Err(HandshakeError::NotNow));
    assert!(server.poll_hello().is_some());
    assert_eq!(server.accept(accepted(), None), Ok(()));
}

/// A client and a server of which the server has passed the gate.
fn past_the_gate(world: &World) -> (impl Handshake, impl Handshake) {
    let (mut client, mut server) = (start(&world.client()), world.server());
    feed(&mut server, &client.poll_output().expect("gate and ClientHello")).expect("right");
    (client, server)
}

#[test]
fn hs_11_a_server_takes_a_bounded_amount_from_a_stranger() {
    let world = World::new();
    let (_client, mut server) = past_the_gate(&world);
    server.poll_output().expect("flight");
    assert_eq!(feed(&mut server, &[23, 3, 3, 0x10, 0]), Err(HandshakeError::RecordLength(4_101)));

    let (_client, mut server) = past_the_gate(&world);
    let mut taken = 0;
    let error = loop {
        match feed(&mut server, &[20, 3, 3, 0, 1, 1]) {
            Ok(bytes) => taken += bytes,
            Err(error) => break error,
        }
        assert!(taken <= UNAUTHENTICATED_BYTES_MAX);
    };
    assert!(matches!(error, HandshakeError::Tls(_) | HandshakeError::InputLimit), "{error:?}");
}

#[test]
fn hs_7_an_alert_is_a_fault_like_any_other() {
    let world = World::new();
    let mut client = start(&world.client());
    assert_eq!(feed(&mut client, &[21, 3, 3, 0, 2, 2, 40]), Err(HandshakeError::RecordType(21)));
}

#[test]
fn hs_13_silence_is_one_error_and_a_cut_another() {
    let world = World::new();
    let mut client = start(&world.client());
    client.poll_output();
    assert_eq!(client.handle_end(), HandshakeError::NoAnswer);
    assert!(HandshakeError::NoAnswer.to_string().starts_with("closed without answering"));
    let mut client = start(&world.client());
    feed(&mut client, &[22]).expect("a record may begin so");
    assert_eq!(client.handle_end(), HandshakeError::Truncated);
    assert!(client.is_over());
}

#[test]
fn key_5_resume_needs_the_secret_and_changes_the_keys() {
    let world = World::new();
    let (first, _) = establish(&mut start(&world.client()), &mut world.server(), usize::MAX);
    let kept = first.keys.resume_secret.clone();

    let mut settings = world.client();
    let session_id = SessionId([4; 16]);
    settings.resume = Some(ResumeFrom { session_id, last_epoch: Epoch(1), secret: kept.clone() });
    let (mut client, mut server) = (start(&settings), world.server());
    pump(&mut client, &mut server, usize::MAX).expect("paused");
    let peer = server.poll_hello().expect("Hello");
    assert_eq!(peer.hello.resume.as_ref().map(|resume| resume.session_id), Some(session_id));
    let (stranger, _) = establish(&mut start(&world.client()), &mut world.server(), usize::MAX);
    assert!(peer.prove(&stranger.keys.resume_secret).is_none());
    server.accept(accepted(), peer.prove(&kept)).expect("polled");
    pump(&mut client, &mut server, usize::MAX).expect("Welcome");
    let mut ours = client.poll_established().expect("client");
    let mut theirs = server.poll_established().expect("server");
    assert!(ours.accepted.resumed && theirs.accepted.resumed);
    check_link(&mut ours.keys, &mut theirs.keys);

    // A server may start a new session instead; then the old secret stays out of the keys at both ends.
    let (mut client, mut server) = (start(&settings), world.server());
    let (mut ours, mut theirs) = establish(&mut client, &mut server, usize::MAX);
    assert!(!ours.accepted.resumed);
    check_link(&mut ours.keys, &mut theirs.keys);
}

/// What the holder of these keys seals for the control channel and, as its opener, for a channel of its own.
fn sealed(keys: &mut LinkKeys, open_frame: &[u8]) -> [Vec<u8>; 2] {
    let channel = ChannelId(1);
    let secret = keys.own_chain.step(open_frame).secret(Direction::FromClient);
    keys.sealer.add_channel(channel, secret).expect("a new channel");
    [ChannelId::CONTROL, channel].map(|channel| {
        let mut out = SealBuf::new(256);
        keys.sealer.seal(channel, b"the same plaintext", &[], 0, &mut out).expect("there is room");
        out.filled().to_vec()
    })
}

/// Whether the holder of these keys opens a record of `channel`.
fn opens(keys: &mut LinkKeys, channel: ChannelId, open_frame: &[u8], record: &[u8]) -> bool {
    if channel != ChannelId::CONTROL {
        let secret = keys.peer_chain.step(open_frame).secret(Direction::FromClient);
        keys.opener.add_channel(channel, secret).expect("a new channel");
    }
    match keys.opener.peek(record) {
        Ok(Peek::Record { plaintext_len, .. }) => {
            keys.opener.open(record, &mut vec![0; plaintext_len]).is_ok()
        }
        _ => false,
    }
}

#[test]
fn key_5_the_keys_of_a_resumed_link_share_nothing_with_those_before() {
    const OPEN: &[u8] = b"the same OPEN frame on both links";
    let world = World::new();
    let (mut old, mut old_server) = establish(&mut start(&world.client()), &mut world.server(), usize::MAX);
    let kept = old.keys.resume_secret.clone();
    let mut settings = world.client();
    let session_id = old.accepted.session_id;
    settings.resume = Some(ResumeFrom { session_id, last_epoch: Epoch(1), secret: kept.clone() });
    let (mut client, mut server) = (start(&settings), world.server());
    pump(&mut client, &mut server, usize::MAX).expect("paused");
    let proof = server.poll_hello().expect("Hello").prove(&kept);
    server.accept(accepted(), proof).expect("polled");
    pump(&mut client, &mut server, usize::MAX).expect("Welcome");
    let mut new = client.poll_established().expect("client");
    let mut new_server = server.poll_established().expect("server");
    assert!(new.accepted.resumed);

    assert_ne!(old.keys.own_confirm, new.keys.own_confirm);
    assert_ne!(old.keys.peer_confirm, new.keys.peer_confirm);
    let exporter = [9; 48];
    assert_ne!(kept.proof(&exporter), new.keys.resume_secret.proof(&exporter));
    let [old_control, old_data] = sealed(&mut old.keys, OPEN);
    let [new_control, new_data] = sealed(&mut new.keys, OPEN);
    // Ciphertext and tag of the same plaintext, number and channel.
    assert_ne!(old_control[8..], new_control[8..]);
    assert_ne!(old_data[8..], new_data[8..]);
    let (control, data) = (ChannelId::CONTROL, ChannelId(1));
    assert!(!opens(&mut new_server.keys, control, OPEN, &old_control));
    assert!(!opens(&mut old_server.keys, control, OPEN, &new_control));
    assert!(opens(&mut new_server.keys, control, OPEN, &new_control));
    assert!(opens(&mut old_server.keys, control, OPEN, &old_control));
    assert!(!opens(&mut new_server.keys, data, OPEN, &old_data));
    assert!(opens(&mut old_server.keys, data, OPEN, &old_data));
}

#[test]
fn key_5_a_server_cannot_resume_another_session_than_was_asked_for() {
    let world = World::new();
    let mut settings = world.client();
    let (first, _) = establish(&mut start(&settings), &mut world.server(), usize::MAX);
    let secret = first.keys.resume_secret.clone();
    let session_id = SessionId([9; 16]);
    settings.resume = Some(ResumeFrom { session_id, last_epoch: Epoch(1), secret: secret.clone() });
    let (mut client, mut server) = (start(&settings), world.server());
    pump(&mut client, &mut server, usize::MAX).expect("paused");
    let proven = server.poll_hello().expect("Hello").prove(&secret);
    assert!(proven.is_some());
    server.accept(Accepted { session_id: SessionId([8; 16]), ..accepted() }, proven).expect("polled");
    assert_eq!(pump(&mut client, &mut server, usize::MAX), Err(HandshakeError::Negotiation));
}

#[test]
fn secrets_do_not_print() {
    let world = World::new();
    let settings = world.client();
    let (mut client, mut server) = (start(&settings), world.server());
    let (ours, theirs) = establish(&mut client, &mut server, usize::MAX);
    let text = format!("{settings:?} {client:?} {server:?} {:?} {:?}", ours.keys, theirs.keys.own_chain);
    for hidden in ["[7, 7", "0707", "[17, 17"] {
        assert!(!text.contains(hidden), "{text}");
    }
}
