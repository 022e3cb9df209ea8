//! Frozen bytes: what these say may only change with the version of the protocol.

use netchan_proto::id::ChannelId;
use netchan_proto::wire::{
    Accept, Announce, Ask, Body, Close, DataHeader, Frame, Handed, Mode, Open, OpenFlow, Outcome, Pos,
    Purpose, Reader, Recall, Refuse, RefuseCode, Told, Verdict, WindowUpdate, Yield,
};

const VECTORS: &str = include_str!("../vectors/frames.txt");

fn frames() -> Vec<(&'static str, Frame)> {
    let id = ChannelId(3);
    let (name, label, codec) = ("tasks".to_owned(), "Task".to_owned(), "postcard".to_owned());
    let open = Open {
        id,
        name: name.clone(),
        label: label.clone(),
        codec: codec.clone(),
        fingerprint: None,
        flow: OpenFlow::OpenerSends,
        purpose: Purpose::Values,
        capacity: 0,
        limit_bytes: 0,
    };
    let receiving = Open {
        id: ChannelId(70_000),
        fingerprint: Some([0xf1; 16]),
        flow: OpenFlow::OpenerReceives,
        capacity: 64,
        limit_bytes: 524_288,
        ..open.clone()
    };
    let deliveries = Open { fingerprint: None, purpose: Purpose::Deliveries, ..receiving.clone() };
    let acks = Open { purpose: Purpose::Acks { of: ChannelId(70_000) }, ..open.clone() };
    let outcomes = Open { purpose: Purpose::Outcomes { of: ChannelId(70_000) }, ..receiving.clone() };
    let subscription =
        Open { fingerprint: None, purpose: Purpose::Subscription { when_slow: 2 }, ..receiving.clone() };
    let accept = |mode, capacity| Frame::Accept(Accept { id, mode, capacity, limit_bytes: 524_288 });
    let close = |reason: &str| Close { id, final_seq: 300, code: 256, reason: reason.to_owned() };
    let announce =
        Announce { name, label, codec, may_receive: true, may_send: false, capacity: 64, hosted: true };
    let refuse = Refuse { id, code: RefuseCode::TypeMismatch, reason: "u64".to_owned() };
    let window =
        WindowUpdate { id, generation: 1, received: 200, taken: 130, limit: 194, limit_bytes: 1_048_576 };
    let recall = |rewind| Frame::Recall(Recall { id, generation: 2, limit: 127, rewind });
    let pos = Pos { id, generation: 1, next_expected: 2, taken: 3, limit: 4, limit_bytes: 5, committed: 6 };
    vec![
        ("confirm", Frame::Confirm { mac: std::array::from_fn(|at| at as u8) }),
        ("open-sends", Frame::Open(open)),
        ("open-receives", Frame::Open(receiving)),
        ("open-deliveries", Frame::Open(deliveries)),
        ("open-acks", Frame::Open(acks)),
        ("open-outcomes", Frame::Open(outcomes)),
        ("accept-credit", accept(Mode::Credit, 64)),
        ("accept-rendezvous", accept(Mode::Rendezvous, 0)),
        ("accept-lease", accept(Mode::Lease, 64)),
        ("accept-demand", accept(Mode::Demand, 64)),
        ("open-subscription", Frame::Open(subscription)),
        ("accept-cast", accept(Mode::Cast, 64)),
        ("refuse", Frame::Refuse(refuse)),
        ("announce", Frame::Announce(announce)),
        ("window", Frame::Window(window)),
        ("want", Frame::Want { id, limit: 16_384 }),
        ("poll", Frame::Poll { id }),
        ("call-back", Frame::CallBack { id, generation: 2 }),
        ("closing", Frame::Closing { id, code: 300, reason: "stop".to_owned() }),
        ("recall", recall(false)),
        ("recall-rewind", recall(true)),
        ("yield", Frame::Yield(Yield { id, generation: 2, limit: 128, committed: 127 })),
        ("close", Frame::Close(close(""))),
        ("close-long-reason", Frame::Close(close(&"é".repeat(70)))),
        ("reset", Frame::Reset(close("stop"))),
        ("withdraw", Frame::Withdraw { id, seq: 9 }),
        ("withdrawn", Frame::Withdrawn { id, seq: 9, withdrawn: true }),
        ("pos", Frame::Pos(pos)),
        ("ping", Frame::Ping { nonce: u64::MAX }),
        ("pong", Frame::Pong { nonce: 1 }),
        ("goaway", Frame::GoAway { code: 1, reason: "bye".to_owned() }),
    ]
}

fn trailers() -> Vec<(&'static str, DataHeader)> {
    let fragment = Body::Fragment { total: 70_000, offset: 65_519 };
    vec![
        ("data-items", DataHeader { first_seq: 300, ack_now: false, redelivered: false, body: Body::Items }),
        (
            "data-items-ack",
            DataHeader { first_seq: u64::MAX, ack_now: true, redelivered: false, body: Body::Items },
        ),
        ("data-fragment", DataHeader { first_seq: 300, ack_now: false, redelivered: false, body: fragment }),
        (
            "data-fragment-ack",
            DataHeader { first_seq: 300, ack_now: true, redelivered: false, body: fragment },
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn frozen() -> Vec<(&'static str, Vec<u8>)> {
    lines_of(VECTORS)
}

fn lines_of(file: &'static str) -> Vec<(&'static str, Vec<u8>)> {
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').map(|(name, bytes)| (name, unhex(bytes))).expect("name and hex"))
        .collect()
}

#[test]
fn wire_2_and_wire_20_bytes_are_frozen() {
    let written = frames().into_iter().map(|(name, frame)| (name, frame.to_vec()));
    let trailers = trailers().into_iter().map(|(name, header)| (name, header.trailer().as_slice().to_vec()));
    let now: Vec<_> = written.chain(trailers).collect();
    let lines: Vec<_> = now.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes))).collect();
    assert_eq!(now, frozen(), "the wire now says:\n{}", lines.join("\n"));
}

#[test]
fn wire_2_frozen_bytes_read_as_what_they_were() {
    let frozen = frozen();
    for (name, frame) in frames() {
        let (_, bytes) = frozen.iter().find(|(frozen, _)| *frozen == name).expect(name);
        assert_eq!(Frame::read(&mut Reader::new(bytes)), Ok(Some(frame)), "{name}");
    }
    for (name, header) in trailers() {
        let (_, trailer) = frozen.iter().find(|(frozen, _)| *frozen == name).expect(name);
        let record = [&[7; 10][..], trailer].concat();
        assert_eq!(DataHeader::split(&record), Ok((header, 10)), "{name}");
    }
}

const VALUES: &str = include_str!("../vectors/data.txt");

/// Data records, whole, and what the channels of deliveries and broadcasts carry.
fn values() -> Vec<(&'static str, Vec<u8>)> {
    let record = |body: &[u8], header: DataHeader| [body, header.trailer().as_slice()].concat();
    let plain = DataHeader { first_seq: 300, ack_now: false, redelivered: false, body: Body::Items };
    let part = |offset| DataHeader { body: Body::Fragment { total: 20, offset }, ..plain };
    let of_several = [&[0, 1, b'a', 0x82, 1][..], &[0x55; 130]].concat();
    let flagged = DataHeader { first_seq: u64::MAX, ack_now: true, redelivered: true, ..plain };
    let nothing = DataHeader { body: Body::Fragment { total: 0, offset: 0 }, redelivered: true, ..plain };
    let write = |act: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        act(&mut out);
        out
    };
    let ask = |token, ask: Ask<'_>| write(&|out| ask.write(token, out));
    let outcome = |outcome: Outcome| write(&|out| outcome.write(out));
    let verdict = |token, verdict| outcome(Outcome::Answer { token, verdict });
    let handed = |attempts, redelivered| {
        write(&|out| {
            Handed { attempts, redelivered }.write(out);
            out.extend_from_slice(b"a task");
        })
    };
    let told = |told: Told<'_>| write(&|out| told.write(out));
    let result = Ask::AckWith { number: 2, results: ChannelId(70_000), value: b"a result" };
    vec![
        ("record-of-several", record(&of_several, plain)),
        ("record-flags", record(&[3, 7, 8, 9], flagged)),
        ("record-part-first", record(&[1; 8], part(0))),
        ("record-part-last", record(&[2; 12], DataHeader { ack_now: true, ..part(8) })),
        ("record-part-empty", record(&[], nothing)),
        ("ask-done", ask(0, Ask::Ack { number: 300 })),
        ("ask-back", ask(1_000, Ask::Nack { number: 1, delay_millis: 0 })),
        ("ask-extend", ask(u64::MAX, Ask::Extend { number: u64::MAX, millis: 60_000 })),
        ("ask-result", ask(1, result)),
        ("outcome-done", verdict(9, Verdict::Done)),
        ("outcome-fenced", verdict(300, Verdict::Fenced)),
        ("outcome-closed", verdict(1, Verdict::ResultsClosed)),
        ("outcome-none", verdict(1, Verdict::NoResults)),
        ("outcome-was-fenced", outcome(Outcome::Fenced { number: 1 << 40 })),
        ("delivery-first", handed(0, false)),
        ("delivery-again", handed(u32::MAX, true)),
        ("broadcast-value", told(Told::Value(b"a setting"))),
        ("broadcast-lost", told(Told::Lagged(70_000))),
    ]
}

#[test]
fn wire_20_del_10_to_12_and_cast_8_bytes_are_frozen() {
    let now = values();
    let lines: Vec<_> = now.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes))).collect();
    assert_eq!(now, lines_of(VALUES), "the wire now says:\n{}", lines.join("\n"));
    for (name, bytes) in &now {
        let reads = match name.split_once('-').expect("a kind").0 {
            "record" => DataHeader::split(bytes).is_ok(),
            "ask" => Ask::read(bytes).is_ok(),
            "outcome" => Outcome::read(bytes).is_ok(),
            "delivery" => Handed::split(bytes).is_ok_and(|(_, value)| value == b"a task"),
            _ => Told::read(bytes).is_ok(),
        };
        assert!(reads, "{name}");
    }
}
