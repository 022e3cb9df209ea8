//! Frames and data records: what is written reads back, and what is read never panics.

mod support;

use netchan_proto::limits::RECORD_PLAINTEXT_BYTES_MAX;
use netchan_proto::wire::{
    Body, DataHeader, Frame, Reader, WireError, count_items, split_item, write_varint,
};
use proptest::collection::vec;
use proptest::prelude::*;
use support::frames::frame;

fn read_all(bytes: &[u8]) -> Result<Vec<Frame>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut frames = Vec::new();
    while !reader.is_empty() {
        frames.extend(Frame::read(&mut reader)?);
    }
    Ok(frames)
}

fn header() -> impl Strategy<Value = (DataHeader, usize)> {
    let fragment = (0..70_000_u32, 0..70_000_u32, 1..2_000_u32).prop_map(|(before, after, len)| {
        (Body::Fragment { total: before + len + after, offset: before }, len as usize)
    });
    let items = (0..2_000_usize).prop_map(|len| (Body::Items, len));
    (prop_oneof![fragment, items], any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
        |((body, len), first_seq, ack_now, redelivered)| {
            (DataHeader { first_seq, ack_now, redelivered, body }, len)
        },
    )
}

proptest! {
    #[test]
    fn wire_2_every_frame_round_trips(frames in vec(frame(), 0..8)) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        prop_assert_eq!(read_all(&bytes), Ok(frames));
    }

    #[test]
    fn wire_2_one_encoding_for_each_frame(bytes in vec(any::<u8>(), 0..80)) {
        // Whatever is accepted is what this end would have written: the key chain hashes the encoding of an OPEN.
        let mut reader = Reader::new(&bytes);
        if let Ok(Some(frame)) = Frame::read(&mut reader) {
            let used = bytes.len() - reader.rest().len();
            let refused_by_newer_code = matches!(frame, Frame::Refuse(_));
            prop_assert!(refused_by_newer_code || frame.to_vec() == bytes[..used]);
        }
    }

    #[test]
    fn wire_2_a_cut_frame_is_truncated_and_never_another(frame in frame(), cut in any::<prop::sample::Index>()) {
        let bytes = frame.to_vec();
        let cut = cut.index(bytes.len());
        prop_assert_eq!(Frame::read(&mut Reader::new(&bytes[..cut])), Err(WireError::Truncated));
    }

    #[test]
    fn wire_2_damaged_frames_never_panic(frame in frame(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = frame.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read_all(&bytes);
    }

    #[test]
    fn wire_2_any_bytes_never_panic(kind in 0..0x40_u8, bytes in vec(any::<u8>(), 0..200)) {
        let mut framed = vec![kind];
        write_varint(&mut framed, bytes.len() as u64);
        framed.extend(&bytes);
        let _ = read_all(&framed);
        let _ = read_all(&bytes);
    }

    #[test]
    fn wire_2_a_claimed_length_is_not_believed(kind: u8, len in 200..u64::MAX, bytes in vec(any::<u8>(), 0..100)) {
        let mut framed = vec![kind];
        write_varint(&mut framed, len);
        framed.extend(&bytes);
        prop_assert_eq!(Frame::read(&mut Reader::new(&framed)), Err(WireError::Truncated));
    }

    #[test]
    fn wire_2_bytes_after_the_last_field_are_refused(frame in frame(), extra in vec(any::<u8>(), 1..5)) {
        let whole = frame.to_vec();
        let mut reader = Reader::new(&whole[1..]);
        let len = reader.varint().expect("a length");
        let mut longer = vec![whole[0]];
        write_varint(&mut longer, len + extra.len() as u64);
        longer.extend(reader.rest());
        longer.extend(extra);
        prop_assert!(Frame::read(&mut Reader::new(&longer)).is_err());
    }

    #[test]
    fn wire_3_unknown_frames_are_skipped_only_from_0x80_on(kind: u8, bytes in vec(any::<u8>(), 0..20)) {
        let mut framed = vec![kind];
        write_varint(&mut framed, bytes.len() as u64);
        framed.extend(&bytes);
        Frame::Ping { nonce: 7 }.write(&mut framed);
        let mut reader = Reader::new(&framed);
        match Frame::read(&mut reader) {
            Ok(None) => {
                prop_assert!(kind >= 0x80);
                prop_assert_eq!(Frame::read(&mut reader), Ok(Some(Frame::Ping { nonce: 7 })));
            }
            Ok(Some(_)) | Err(_) => prop_assert!(kind < 0x80),
        }
    }

    #[test]
    fn wire_20_data_headers_round_trip((header, len) in header(), byte: u8) {
        let mut record = vec![byte; len];
        record.extend_from_slice(header.trailer().as_slice());
        prop_assert_eq!(DataHeader::split(&record), Ok((header, len)));
    }

    #[test]
    fn wire_20_any_bytes_never_panic_as_data(bytes in vec(any::<u8>(), 0..200), flags in 0..5_u8) {
        let mut bytes = bytes;
        bytes.push(flags);
        if let Ok((header, len)) = DataHeader::split(&bytes) {
            prop_assert!(len < bytes.len());
            if let Body::Fragment { total, offset } = header.body {
                prop_assert!(u64::from(offset) + len as u64 <= u64::from(total));
            }
            let trailer = header.trailer();
            prop_assert_eq!(trailer.as_slice(), &bytes[len..]);
        }
    }

    #[test]
    fn wire_20_items_round_trip(items in vec(vec(any::<u8>(), 0..300), 0..20)) {
        let mut body = Vec::new();
        for item in &items {
            write_varint(&mut body, item.len() as u64);
            body.extend(item);
        }
        let counted = count_items(&body).expect("well formed");
        prop_assert_eq!(counted.count, items.len() as u64);
        prop_assert_eq!(counted.bytes, items.iter().map(|item| item.len() as u64).sum::<u64>());
        prop_assert_eq!(counted.last_bytes, items.last().map_or(0, |item| item.len() as u64));
        let mut rest = body.as_slice();
        for item in &items {
            let (front, after) = split_item(rest).expect("counted");
            prop_assert_eq!(front, item.as_slice());
            rest = after;
        }
    }

    #[test]
    fn wire_20_counted_items_always_come_apart(body in vec(prop_oneof![0..6_u8, any::<u8>()], 0..100)) {
        if let Ok(counted) = count_items(&body) {
            let mut rest = body.as_slice();
            for _ in 0..counted.count {
                rest = split_item(rest).expect("counted").1;
            }
            prop_assert!(rest.is_empty());
        }
    }
}

#[test]
fn wire_2_the_control_channel_is_no_channel() {
    for kind in [0x10_u8, 0x11, 0x12, 0x13, 0x14, 0x18, 0x19, 0x1a, 0x1b, 0x28] {
        let bytes = [&[kind, 8][..], &[0; 8]].concat();
        assert!(Frame::read(&mut Reader::new(&bytes)).is_err(), "{kind:#x}");
    }
}

#[test]
fn wire_2_texts_over_their_limit_are_refused_and_never_written() {
    let reason = "é".repeat(RECORD_PLAINTEXT_BYTES_MAX);
    let bytes = Frame::GoAway { code: 1, reason }.to_vec();
    let Ok(Some(Frame::GoAway { reason, .. })) = Frame::read(&mut Reader::new(&bytes)) else {
        panic!("a reason is cut between characters")
    };
    assert_eq!(reason, "é".repeat(512));
    let mut long = vec![0x32];
    write_varint(&mut long, 3 + 1_025);
    long.push(1);
    write_varint(&mut long, 1_025);
    long.resize(long.len() + 1_025, b'x');
    assert!(Frame::read(&mut Reader::new(&long)).is_err());
}
