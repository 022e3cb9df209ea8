//! Control frames, data records and every other message of one piece: what is accepted has one encoding.

use netchan_proto::crypto::{Hello, Welcome};
use netchan_proto::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX};
use netchan_proto::wire::{
    Ask, Body, DataHeader, Frame, Handed, Outcome, Reader, Told, WireError, count_items, split_item,
};

use crate::script::Script;

/// The first byte says what the others are.
///
/// # Panics
/// When something is accepted that its own encoder writes otherwise, or that breaks a bound of the specification.
pub fn frames(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.one_of(8);
    let bytes = script.rest();
    match kind {
        0 => control(bytes),
        1 => record(bytes),
        2 => {
            let read = Ask::read(bytes);
            same(bytes, read.ok(), |(token, ask), out| ask.write(token, out));
        }
        3 => same(bytes, Outcome::read(bytes).ok(), Outcome::write),
        4 => {
            let read = Handed::split(bytes);
            same(bytes, read.ok(), |(handed, value), out| {
                handed.write(out);
                out.extend_from_slice(value);
            });
        }
        5 => same(bytes, Told::read(bytes).ok(), Told::write),
        6 => {
            let encode = |hello: Hello, out: &mut Vec<u8>| out.extend(hello.encode().expect("decoded"));
            same(bytes, Hello::decode(bytes).ok(), encode);
        }
        _ => {
            let encode = |welcome: Welcome, out: &mut Vec<u8>| out.extend(welcome.encode().expect("decoded"));
            same(bytes, Welcome::decode(bytes).ok(), encode);
        }
    }
}

/// What was read is written as it came.
fn same<T>(bytes: &[u8], read: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
    if let Some(value) = read {
        let mut out = Vec::new();
        write(value, &mut out);
        assert_eq!(out, bytes, "another encoding was accepted");
    }
}

/// `WIRE-2` to `WIRE-4`, over a whole record of the control channel.
fn control(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let before = reader.rest();
        let Ok(frame) = Frame::read(&mut reader) else { return };
        let encoded = &before[..before.len() - reader.rest().len()];
        let Some(frame) = frame else {
            assert!(encoded[0] >= 0x80, "only these may be skipped");
            continue;
        };
        let written = frame.to_vec();
        let mut again = Reader::new(&written);
        assert_eq!(Frame::read(&mut again), Ok(Some(frame.clone())));
        assert!(again.is_empty());
        match &frame {
            // A code of a later version reads as another (`WIRE-12`).
            Frame::Refuse(_) => assert_eq!(written.len(), encoded.len()),
            _ => assert_eq!(written, encoded),
        }
        if let Frame::Open(open) = &frame {
            assert!((1..=NAME_BYTES_MAX).contains(&open.name.len()));
            assert!(open.label.len() <= TEXT_BYTES_MAX && open.codec.len() <= TEXT_BYTES_MAX);
        }
        for end in [0, 1, encoded.len() / 2, encoded.len() - 1] {
            assert_eq!(Frame::read(&mut Reader::new(&encoded[..end])), Err(WireError::Truncated));
        }
    }
}

/// `WIRE-20`.
fn record(bytes: &[u8]) {
    let Ok((header, len)) = DataHeader::split(bytes) else { return };
    let (body, trailer) = bytes.split_at(len);
    assert_eq!(header.trailer().as_slice(), trailer);
    match header.body {
        Body::Fragment { total, offset } => {
            assert!(u64::from(offset) + len as u64 <= u64::from(total));
            assert!(len > 0 || total == 0);
        }
        Body::Items => {
            let Ok(counted) = count_items(body) else { return };
            let (mut rest, mut bytes, mut last) = (body, 0, 0);
            for _ in 0..counted.count {
                let (item, after) = split_item(rest).expect("counted");
                (rest, last) = (after, item.len() as u64);
                bytes += last;
            }
            assert!(rest.is_empty());
            assert_eq!((counted.bytes, counted.last_bytes), (bytes, last));
        }
    }
}
