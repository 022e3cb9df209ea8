//! Whatever is changed, repeated, dropped or swapped on the way of a handshake: whoever hears it says nothing more.
//! `crypto_gate` has the first flight, in which a stranger may have made up everything.

mod crypto_common;

use crypto_common::*;
use netchan_proto::crypto::{GateReject, Handshake, HandshakeError, Peek};

/// Whose turn it is to hear.
type Stage = fn(&World) -> Wire;

fn welcomed(world: &World) -> Wire {
    Wire::judged(world, true)
}

fn refused(world: &World) -> Wire {
    Wire::judged(world, false)
}

/// What the server hears last, with this done to it on the way.
fn server_hears(world: &World, change: impl FnOnce(&mut Vec<u8>)) -> HandshakeError {
    let Wire { mut server, mut bytes, .. } = Wire::finished(world);
    change(&mut bytes);
    let fed = feed(&mut server, &bytes);
    ends_in_silence(&mut server, fed)
}

/// What the client hears at this stage, with this done to it on the way.
fn client_hears(world: &World, stage: Stage, change: impl FnOnce(&mut Vec<u8>)) -> HandshakeError {
    let Wire { mut client, mut bytes, .. } = stage(world);
    change(&mut bytes);
    let fed = feed(&mut client, &bytes);
    ends_in_silence(&mut client, fed)
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn hs_12_every_flipped_bit_of_finished_and_hello_ends_in_silence() {
    let world = World::new();
    let length = Wire::finished(&world).bytes.len();
    for bit in 0..length * 8 {
        server_hears(&world, |bytes| flip(bytes, bit));
    }
}

#[test]
fn hs_12_every_flipped_bit_of_the_servers_flight_ends_in_silence() {
    let world = World::new();
    let flight = Wire::answered(&world).bytes;
    let records = tls_records(&flight);
    let server_hello = records[0].clone();
    for bit in 0..flight.len() * 8 {
        // The ServerHello is 1.2 KiB of one hash's input: of its body, a bit of each byte will do.
        let in_hello = server_hello.contains(&(bit / 8)) && bit / 8 >= 5;
        if !in_hello || bit % 8 == bit / 8 % 8 {
            client_hears(&world, Wire::answered, |bytes| flip(bytes, bit));
        }
    }
}

#[test]
fn hs_12_every_flipped_bit_of_a_welcome_ends_in_silence() {
    let world = World::new();
    for stage in [welcomed, refused] {
        let length = stage(&world).bytes.len();
        for bit in 0..length * 8 {
            let error = client_hears(&world, stage, |bytes| flip(bytes, bit));
            assert!(
                !matches!(error, HandshakeError::Refused { .. }),
                "bit {bit}: a changed refusal is believed"
            );
        }
    }
}

/// Everything that can be done to the order of a flight's own records, but for those that mean nothing.
#[test]
fn hs_12_its_own_records_repeated_dropped_or_swapped_end_in_silence() {
    let world = World::new();
    for act in [repeat, drop_record, swap] {
        for nth in 0..tls_records(&Wire::finished(&world).bytes).len() {
            let Wire { mut server, mut bytes, .. } = Wire::finished(&world);
            let records = tls_records(&bytes);
            if bytes[records[nth].clone()] == CHANGE_CIPHER_SPEC {
                continue;
            }
            let is_last = nth + 1 == records.len();
            let hello = bytes[records[nth].clone()].to_vec();
            if !act(&mut bytes, &records, nth) {
                continue;
            }
            let fed = feed(&mut server, &bytes);
            if is_last && bytes.ends_with(&[&hello[..], &hello].concat()) {
                // Behind the Hello the record layer begins, and there it is no record.
                assert_eq!(fed, Ok(bytes.len() - hello.len()));
                assert!(server.poll_hello().is_some() && server.poll_output().is_none());
                server.accept(accepted(), None).expect("polled");
                let opener = server.poll_established().expect("a link").keys.opener;
                assert!(!matches!(opener.peek(&hello), Ok(Peek::Record { .. })));
                continue;
            }
            ends_in_silence(&mut server, fed);
        }
        for nth in 0..tls_records(&Wire::answered(&world).bytes).len() {
            client_hears_own(&world, act, nth);
        }
    }
}

fn client_hears_own(world: &World, act: Act, nth: usize) {
    let Wire { mut client, mut bytes, .. } = Wire::answered(world);
    let records = tls_records(&bytes);
    if bytes[records[nth].clone()] == CHANGE_CIPHER_SPEC || !act(&mut bytes, &records, nth) {
        return;
    }
    let is_behind_finished =
        bytes.len() > records.last().map_or(0, |last| last.end) && nth + 1 == records.len();
    let fed = feed(&mut client, &bytes);
    if is_behind_finished {
        // The handshake was whole; what is behind it is no Welcome, and what the client said of it stays unsaid.
        assert!(fed.is_err(), "{fed:?}");
    }
    ends_in_silence(&mut client, fed);
}

type Act = fn(&mut Vec<u8>, &[std::ops::Range<usize>], usize) -> bool;

fn repeat(flight: &mut Vec<u8>, records: &[std::ops::Range<usize>], nth: usize) -> bool {
    let record = flight[records[nth].clone()].to_vec();
    flight.splice(records[nth].end..records[nth].end, record);
    true
}

fn drop_record(flight: &mut Vec<u8>, records: &[std::ops::Range<usize>], nth: usize) -> bool {
    flight.drain(records[nth].clone());
    true
}

/// With the next, if there is one.
fn swap(flight: &mut Vec<u8>, records: &[std::ops::Range<usize>], nth: usize) -> bool {
    let Some(next) = records.get(nth + 1) else { return false };
    let is_meaningless = flight[next.clone()] == CHANGE_CIPHER_SPEC;
    let moved: Vec<u8> = flight.drain(records[nth].clone()).collect();
    let to = records[nth].start + next.len();
    flight.splice(to..to, moved);
    !is_meaningless
}

#[test]
fn hs_12_a_replay_of_any_flight_ends_in_silence() {
    let world = World::new();
    // The first: its gate was used.
    let Wire { bytes, .. } = Wire::answered(&world);
    let first = Wire::opened(&world).bytes;
    feed(&mut world.server(), &first).expect("new");
    let mut server = world.server();
    let fed = feed(&mut server, &first);
    assert_eq!(ends_in_silence(&mut server, fed), HandshakeError::Gate(GateReject::Replay));
    // The others: they belong to the keys of their own connection.
    client_hears(&world, Wire::answered, |now| *now = bytes);
    let earlier = Wire::finished(&world).bytes;
    server_hears(&world, |now| *now = earlier);
    for stage in [welcomed, refused] {
        let earlier = stage(&world).bytes;
        let error = client_hears(&world, stage, |now| *now = earlier);
        assert!(matches!(error, HandshakeError::Tls(_)), "{error}");
    }
}

/// The one thing that a network can change unnoticed, because it means nothing (`HS-7`).
#[test]
fn hs_7_a_change_cipher_spec_means_nothing() {
    let world = World::new();
    for change in [
        |bytes: &mut Vec<u8>| drop(bytes.drain(..CHANGE_CIPHER_SPEC.len())),
        |bytes: &mut Vec<u8>| drop(bytes.splice(..0, CHANGE_CIPHER_SPEC)),
    ] {
        let Wire { mut server, mut bytes, .. } = Wire::finished(&world);
        assert!(bytes.starts_with(&CHANGE_CIPHER_SPEC));
        change(&mut bytes);
        assert_eq!(feed(&mut server, &bytes), Ok(bytes.len()));
        let hello = server.poll_hello().expect("the Hello");
        assert_eq!(hello.fingerprint, world.client().key.fingerprint());
    }
}
