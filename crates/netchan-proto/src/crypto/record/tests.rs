use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::crypto::cipher::{Aead, HeaderMask};
use crate::crypto::error::{RecordError, SealError};
use crate::crypto::schedule::LinkKeys;
use crate::crypto::secret::TrafficSecret;
use crate::id::Side;
use crate::limits::{RECORD_BYTES_MAX, WRITE_BUFFER_BYTES};
use zeroize::Zeroizing;

const CONTROL: ChannelId = ChannelId::CONTROL;
const NEVER: RekeyLimits = RekeyLimits { bytes: u64::MAX, records: u64::MAX, millis: u64::MAX };

fn secret(byte: u8) -> TrafficSecret {
    TrafficSecret(Zeroizing::new([byte; 48]))
}

/// A sealer and the opener of what it seals, with channels 1 to 3.
fn pair(aead: Aead) -> (Sealer, Opener) {
    let mut sealer = Sealer::new(aead, HeaderMask::new(aead, &[9; 32]), secret(0));
    let mut opener = Opener::new(aead, HeaderMask::new(aead, &[9; 32]), secret(0));
    for id in 1..4 {
        sealer.add_channel(ChannelId(id), secret(id as u8)).expect("new");
        opener.add_channel(ChannelId(id), secret(id as u8)).expect("new");
    }
    (sealer, opener)
}

fn seal(sealer: &mut Sealer, channel: ChannelId, body: &[u8], trailer: &[u8]) -> Vec<u8> {
    let mut out = SealBuf::new(RECORD_BYTES_MAX);
    let bytes = sealer.seal(channel, body, trailer, 0, &mut out).expect("sealed");
    assert_eq!(bytes, out.len());
    out.filled().to_vec()
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<(ChannelId, Vec<u8>), RecordError> {
    match opener.peek(record)? {
        Peek::Incomplete { need } => Err(RecordError::Length { bytes: need }),
        Peek::Record { channel, record_len, plaintext_len, .. } => {
            let mut plaintext = vec![0xee; plaintext_len];
            let opened = opener.open(&record[..record_len], &mut plaintext);
            if opened.is_err() {
                assert!(
                    plaintext.iter().all(|byte| *byte == 0 || *byte == 0xee),
                    "nothing unauthenticated leaks"
                );
            }
            assert_eq!(opened?, channel);
            Ok((channel, plaintext))
        }
    }
}

const BOTH: [Aead; 2] = [Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

#[test]
fn rec_1_lengths_from_empty_to_full_round_trip() {
    for aead in BOTH {
        let (mut sealer, mut opener) = pair(aead);
        for (body, trailer) in
            [(0, 0), (1, 0), (0, 1), (15, 16), (16, 17), (65_536, 0), (65_500, 36), (0, 65_536)]
        {
            let (body, trailer) = (vec![0xab; body], vec![0xcd; trailer]);
            let record = seal(&mut sealer, ChannelId(2), &body, &trailer);
            assert_eq!(open(&mut opener, &record), Ok((ChannelId(2), [body, trailer].concat())));
        }
        let mut out = SealBuf::new(WRITE_BUFFER_BYTES);
        let refused = sealer.seal(CONTROL, &[0; 65_536], &[0], 0, &mut out);
        assert_eq!(refused, Err(SealError::TooLarge { bytes: 65_537 }));
        assert!(out.is_empty());
    }
}

#[test]
fn rec_1_bad_lengths_are_refused_at_three_bytes() {
    let (_, opener) = pair(Aead::Aes256Gcm);
    assert_eq!(opener.peek(&[]), Ok(Peek::Incomplete { need: 24 }));
    assert_eq!(opener.peek(&[0, 1]), Ok(Peek::Incomplete { need: 24 }));
    assert_eq!(opener.peek(&[0, 0, 15]), Err(RecordError::Length { bytes: 15 }));
    assert_eq!(opener.peek(&[0, 0, 16]), Ok(Peek::Incomplete { need: 24 }));
    assert_eq!(opener.peek(&[1, 0, 16]), Ok(Peek::Incomplete { need: RECORD_BYTES_MAX }));
    assert_eq!(opener.peek(&[1, 0, 17]), Err(RecordError::Length { bytes: 65_553 }));
    assert_eq!(opener.peek(&[255; 3]), Err(RecordError::Length { bytes: 0xff_ffff }));
}

#[test]
fn rec_3_every_flipped_bit_is_refused_and_the_link_state_stays() {
    for aead in BOTH {
        let (mut sealer, mut opener) = pair(aead);
        for body in [&b""[..], b"secret", &[7; 100]] {
            let record = seal(&mut sealer, ChannelId(1), body, b"!");
            for bit in 0..record.len() * 8 {
                let mut other = record.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                let sequence = opener.sequence();
                assert!(open(&mut opener, &other).is_err(), "bit {bit}");
                assert_eq!(opener.sequence(), sequence);
            }
            assert_eq!(open(&mut opener, &record), Ok((ChannelId(1), [body, b"!"].concat())));
        }
    }
}

#[test]
fn rec_6_drop_reorder_and_replay_show_on_the_next_record_of_any_channel() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    let records: Vec<_> =
        [0, 1, 2, 1].iter().map(|id| seal(&mut sealer, ChannelId(*id), &[*id as u8; 9], b"")).collect();
    assert!(open(&mut opener, &records[1]).is_err(), "reordered or dropped");
    assert!(open(&mut opener, &records[0]).is_ok());
    assert!(open(&mut opener, &records[0]).is_err(), "replayed");
    assert!(open(&mut opener, &records[3]).is_err(), "another channel's record dropped between");
    for record in &records[1..] {
        assert!(open(&mut opener, record).is_ok());
    }
    assert_eq!((sealer.sequence(), opener.sequence()), (4, 4));
}

#[test]
fn rec_5_no_key_and_nonce_repeat_in_100_000_records_with_rekeys() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    sealer.set_rekey_limits(RekeyLimits { bytes: u64::MAX, records: 37, millis: u64::MAX });
    let mut out = SealBuf::new(4_096);
    let mut plaintext = [0; 8];
    for number in 0..100_000_u64 {
        let channel = ChannelId((number * 7 % 11 % 4) as u32);
        sealer.seal(channel, &number.to_be_bytes(), b"", 0, &mut out).expect("sealed");
        assert_eq!(opener.open(out.filled(), &mut plaintext), Ok(channel));
        assert_eq!(u64::from_be_bytes(plaintext), number);
        out.consume(out.len());
    }
    let distinct: HashSet<_> = sealer.used.iter().map(|(_, key, nonce)| (key, nonce)).collect();
    assert_eq!(distinct.len(), 100_000);
    let keys: HashSet<_> = sealer.used.iter().map(|(_, key, _)| key).collect();
    assert!(keys.len() > 2_600 && sealer.rekeys() == keys.len() as u64 - 4, "{} keys", keys.len());
    assert_eq!(sealer.rekeys(), opener.rekeys());
}

#[test]
fn rec_8_bytes_records_and_time_each_renew_a_key() {
    let limits = [
        RekeyLimits { bytes: 20, ..NEVER },
        RekeyLimits { records: 2, ..NEVER },
        RekeyLimits { millis: 20, ..NEVER },
    ];
    for limits in limits {
        for aead in BOTH {
            let (mut sealer, mut opener) = pair(aead);
            sealer.set_rekey_limits(limits);
            let mut out = SealBuf::new(RECORD_BYTES_MAX);
            let mut phases = Vec::new();
            for step in 0..6 {
                sealer.seal(ChannelId(3), &[1; 10], b"", 1_000 + 10 * step, &mut out).expect("sealed");
                match opener.peek(out.filled()) {
                    Ok(Peek::Record { phase, .. }) => phases.push(phase),
                    other => panic!("{other:?}"),
                }
                assert!(open(&mut opener, out.filled()).is_ok());
                out.consume(out.len());
            }
            assert_eq!(phases, [false, false, true, true, false, false], "{limits:?}");
            assert_eq!((sealer.rekeys(), opener.rekeys()), (2, 2));
        }
    }
}

#[test]
fn rec_7_a_forged_phase_commits_nothing() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    sealer.set_rekey_limits(RekeyLimits { records: 1, ..NEVER });
    let first = seal(&mut sealer, ChannelId(1), b"one", b"");
    let second = seal(&mut sealer, ChannelId(1), b"two", b"");
    assert!(open(&mut opener, &second).is_err());
    // The mask is a stream: this flips exactly the phase bit.
    let mut forged = first.clone();
    forged[7] ^= 1;
    assert_eq!(open(&mut opener, &forged), Err(RecordError::BadTag));
    assert_eq!(opener.rekeys(), 0);
    assert!(open(&mut opener, &first).is_ok() && open(&mut opener, &second).is_ok());
    assert_eq!(opener.rekeys(), 1);
}

#[test]
fn rec_4_channel_ids_and_flags_do_not_show() {
    let (mut sealer, _) = pair(Aead::Aes256Gcm);
    let masked: HashSet<[u8; 5]> = (0..1_000)
        .map(|_| seal(&mut sealer, ChannelId(1), b"same", b"")[3..8].try_into().expect("five bytes"))
        .collect();
    assert_eq!(masked.len(), 1_000);
}

#[test]
fn rec_11_unknown_channels_and_undefined_flags_are_refused() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    let record = seal(&mut sealer, ChannelId(1), b"one", b"");
    let mut forged = record.clone();
    forged[3] ^= 0x80;
    assert_eq!(opener.peek(&forged), Err(RecordError::UnknownChannel));
    assert_eq!(opener.open(&forged, &mut [0; 3]), Err(RecordError::UnknownChannel));
    let mut forged = record.clone();
    forged[7] ^= 2;
    assert_eq!(opener.peek(&forged), Err(RecordError::UndefinedFlags));

    assert!(opener.remove_channel(ChannelId(1)) && !opener.remove_channel(ChannelId(1)));
    assert_eq!(opener.peek(&record), Err(RecordError::UnknownChannel));
    opener.add_channel(ChannelId(1), secret(1)).expect("removed before");
    assert!(open(&mut opener, &record).is_ok());
    assert!(!opener.remove_channel(CONTROL) && !sealer.remove_channel(CONTROL));
    assert_eq!(opener.add_channel(CONTROL, secret(1)), Err(RecordError::ChannelExists(CONTROL)));
    assert_eq!(sealer.add_channel(CONTROL, secret(1)), Err(SealError::ChannelExists(CONTROL)));
}

#[test]
fn rec_9_and_10_parked_and_retired_channels_still_open() {
    let (mut sealer, mut opener) = pair(Aead::ChaCha20Poly1305);
    sealer.set_rekey_limits(RekeyLimits { records: 2, ..NEVER });
    for round in 0..9 {
        let record = seal(&mut sealer, ChannelId(2), &[round], b"");
        assert_eq!(open(&mut opener, &record), Ok((ChannelId(2), vec![round])));
        match round {
            3 => sealer.park(ChannelId(2)),
            5 => opener.park(ChannelId(2)),
            7 => opener.retire(ChannelId(2)),
            _ => {}
        }
        assert_eq!(opener.is_retired(ChannelId(2)), round >= 7);
    }
}

#[test]
fn rec_6_the_last_sequence_number_is_not_passed() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    let mut out = SealBuf::new(RECORD_BYTES_MAX);
    let record = seal(&mut sealer, CONTROL, b"", b"");
    (sealer.sequence, opener.sequence) = (u64::MAX, u64::MAX);
    assert_eq!(sealer.seal(CONTROL, b"", b"", 0, &mut out), Err(SealError::SequenceExhausted));
    assert_eq!(opener.open(&record, &mut []), Err(RecordError::SequenceExhausted));
}

#[test]
fn a_refused_seal_changes_nothing() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    let mut out = SealBuf::new(40);
    assert_eq!(sealer.seal(ChannelId(1), &[1; 10], b"", 0, &mut out), Ok(34));
    assert_eq!(sealer.seal(ChannelId(1), b"", b"", 0, &mut out), Err(SealError::NoSpace { bytes: 24 }));
    assert_eq!(
        sealer.seal(ChannelId(9), b"", b"", 0, &mut out),
        Err(SealError::UnknownChannel(ChannelId(9)))
    );
    assert_eq!((sealer.sequence(), out.len(), sealer.sealed_bytes()), (1, 34, 34));
    assert!(open(&mut opener, out.filled()).is_ok());
    out.consume(34);
    assert_eq!(sealer.seal(ChannelId(1), b"", b"", 0, &mut out), Ok(24));
    assert!(open(&mut opener, out.filled()).is_ok());
    assert_eq!(opener.open(out.filled(), &mut [0; 3]), Err(RecordError::OutputLength { need: 0, given: 3 }));
}

#[test]
fn the_write_buffer_holds_two_records_and_moves_a_remainder() {
    let (mut sealer, mut opener) = pair(Aead::Aes256Gcm);
    let mut out = SealBuf::new(WRITE_BUFFER_BYTES);
    let mut wire = Vec::new();
    for step in 0..20 {
        while sealer.seal(ChannelId(1), &[step; 50_000], b"", 0, &mut out).is_ok() {}
        let written = 31_234.min(out.len());
        wire.extend_from_slice(&out.filled()[..written]);
        out.consume(written);
    }
    wire.extend_from_slice(out.filled());
    let mut rest = &wire[..];
    while !rest.is_empty() {
        assert!(open(&mut opener, rest).is_ok());
        rest = &rest[50_024..];
    }
    assert_eq!(opener.sequence(), sealer.sequence());
    out.consume(usize::MAX);
    assert_eq!((out.space(), out.is_empty()), (out.capacity(), true));
}

#[test]
fn rec_4_a_recorded_stream_shows_no_plaintext() {
    let mut keys = LinkKeys::stub(Side::Client, b"seed", 0);
    let mut out = SealBuf::new(1 << 20);
    for _ in 0..1_000 {
        keys.sealer.seal(CONTROL, b"the quick brown fox", b"jumps over it", 0, &mut out).expect("sealed");
    }
    for window in [&b"quick"[..], b"fox", b"jumps", b"over"] {
        assert!(!out.filled().windows(window.len()).any(|bytes| bytes == window));
    }
}

proptest! {
    #[test]
    fn records_round_trip_in_any_mix(
        aes in any::<bool>(),
        records_limit in 1_u64..5,
        items in proptest::collection::vec((0_u32..4, proptest::collection::vec(any::<u8>(), 0..300), 0_usize..40), 1..40),
        chunk in 1_usize..200,
    ) {
        let (mut sealer, mut opener) = pair(Aead::choose(aes, aes));
        sealer.set_rekey_limits(RekeyLimits { records: records_limit, ..NEVER });
        let mut out = SealBuf::new(WRITE_BUFFER_BYTES);
        for (id, bytes, trailer) in &items {
            let (body, trailer) = bytes.split_at(bytes.len().saturating_sub(*trailer));
            sealer.seal(ChannelId(*id), body, trailer, 0, &mut out).expect("fits");
        }
        let mut buffer = Vec::new();
        let mut opened = Vec::new();
        for piece in out.filled().chunks(chunk) {
            buffer.extend_from_slice(piece);
            while let Ok(Peek::Record { record_len, .. }) = opener.peek(&buffer) {
                opened.push(open(&mut opener, &buffer).expect("authentic"));
                buffer.drain(..record_len);
            }
        }
        let sent: Vec<_> = items.into_iter().map(|(id, bytes, _)| (ChannelId(id), bytes)).collect();
        prop_assert_eq!(opened, sent);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn garbage_never_opens_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), short in any::<bool>()) {
        let (_, mut opener) = pair(Aead::Aes256Gcm);
        let mut bytes = bytes;
        if short && bytes.len() >= 24 {
            let len = (bytes.len() - 8) as u8;
            bytes[..3].copy_from_slice(&[0, 0, len]);
        }
        let _ = opener.peek(&bytes);
        let mut out = vec![0; bytes.len().saturating_sub(24)];
        prop_assert!(opener.open(&bytes, &mut out).is_err());
    }
}
