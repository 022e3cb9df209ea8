//! A peer that breaks the rules ends the session, never the program; bytes that nobody sealed end the link, and no more.

mod support;

use netchan_proto::channel::CloseReason;
use netchan_proto::crypto::{LinkKeys, Opener, Peek, RekeyLimits, SealBuf, Sealer};
use netchan_proto::id::{ChannelId, Direction, Side};
use netchan_proto::limits::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES, WRITE_BUFFER_BYTES};
use netchan_proto::session::{Fault, Host, LinkControlKeys, ReadHalf, WriteHalf};
use netchan_proto::wire::{Body, Close, DataHeader, Frame, Mode, OpenFlow, Pos, Recall, WindowUpdate, Yield};
use proptest::prelude::*;
use rand::Rng;
use support::apps::Apps;
use support::endpoint::{Endpoint, request};
use support::frames::frame;
use support::pair::{Pair, Slices};
use support::seed::{for_seeds, value};

const SEED: &[u8] = b"hostile";

/// A client that holds the right keys and says what it likes to an honest server.
struct Script {
    server: Endpoint,
    read: ReadHalf,
    write: WriteHalf,
    sealer: Sealer,
    opener: Opener,
    chain: netchan_proto::crypto::Chain,
    buf: SealBuf,
    confirm: [u8; 48],
}

impl Script {
    fn new() -> Self {
        let server = Endpoint::new(Side::Server);
        let (control, sealer, opener) = LinkControlKeys::split(LinkKeys::stub(Side::Server, SEED, 0));
        server.control.borrow_mut().attach(control);
        let (read, write) = (ReadHalf::new(opener, &[]), WriteHalf::new(sealer));
        let client = LinkKeys::stub(Side::Client, SEED, 0);
        let buf = SealBuf::new(WRITE_BUFFER_BYTES);
        let LinkKeys { sealer, opener, own_chain: chain, own_confirm: confirm, .. } = client;
        Self { server, read, write, sealer, opener, chain, buf, confirm }
    }

    /// Confirmed, with channel 1 toward the server (capacity 2) and channel 3 from it (capacity 2, one value on its way).
    fn joined() -> Self {
        let mut script = Self::new();
        let confirm = Frame::Confirm { mac: script.confirm };
        script.say(&confirm).expect("the right confirmation");
        for (id, flow) in [(1, OpenFlow::OpenerSends), (3, OpenFlow::OpenerReceives)] {
            script.open(id, flow).expect("a good open");
            let open = script.server.take_incoming().expect("an offer");
            assert!(script.server.accept(&open, Mode::Credit, 2));
        }
        let push = script.server.with_send(ChannelId(3), |half| half.push(|item| item.extend(&value(0, 20))));
        push.expect("a half").expect("credit");
        script
    }

    fn open(&mut self, id: u32, flow: OpenFlow) -> Result<(), Fault> {
        let open = Frame::Open(open(id, flow));
        let keys = self.chain.step(&open.to_vec());
        if flow == OpenFlow::OpenerSends {
            let _ = self.sealer.add_channel(ChannelId(id), keys.secret(Direction::FromClient));
        } else {
            let _ = self.opener.add_channel(ChannelId(id), keys.secret(Direction::FromServer));
        }
        self.say(&open)
    }

    /// Reads what the server has to say. Says of which channels there was a record.
    fn hear(&mut self) -> Vec<ChannelId> {
        self.server.mark_ready();
        self.write.fill(&self.server, 0).expect("the server seals");
        let mut heard = Vec::new();
        while let Ok(Peek::Record { record_len, plaintext_len, .. }) = self.opener.peek(self.write.output()) {
            let record = &self.write.output()[..record_len];
            heard.push(self.opener.open(record, &mut vec![0; plaintext_len]).expect("keys of both ends"));
            self.write.consume(record_len);
        }
        assert!(self.write.output().is_empty(), "the server has said what is no record");
        heard
    }

    fn say(&mut self, frame: &Frame) -> Result<(), Fault> {
        self.record(0, &frame.to_vec(), &[])
    }

    fn data(&mut self, first_seq: u64, items: &[&[u8]]) -> Result<(), Fault> {
        let body: Vec<u8> = items.iter().flat_map(|item| [&[item.len() as u8][..], item].concat()).collect();
        let header = DataHeader { first_seq, ack_now: false, redelivered: false, body: Body::Items };
        self.record(1, &body, header.trailer().as_slice())
    }

    fn fragment(&mut self, first_seq: u64, total: u32, offset: u32, len: usize) -> Result<(), Fault> {
        let header = DataHeader {
            first_seq,
            ack_now: false,
            redelivered: false,
            body: Body::Fragment { total, offset },
        };
        self.record(1, &vec![7; len], header.trailer().as_slice())
    }

    fn record(&mut self, channel: u32, body: &[u8], trailer: &[u8]) -> Result<(), Fault> {
        let sealed = self.seal(channel, body, trailer);
        self.deliver(sealed)
    }

    fn seal(&mut self, channel: u32, body: &[u8], trailer: &[u8]) -> Vec<u8> {
        self.sealer.seal(ChannelId(channel), body, trailer, 0, &mut self.buf).expect("it seals");
        let sealed = self.buf.filled().to_vec();
        self.buf.consume(sealed.len());
        sealed
    }

    fn deliver(&mut self, mut sealed: Vec<u8>) -> Result<(), Fault> {
        while !sealed.is_empty() {
            let space = self.read.space();
            let len = space.len().min(sealed.len());
            space[..len].copy_from_slice(&sealed[..len]);
            sealed.drain(..len);
            self.read.filled(len);
            self.read.process(&self.server)?;
        }
        Ok(())
    }
}

fn open(id: u32, flow: OpenFlow) -> netchan_proto::wire::Open {
    let request = request("x", flow);
    netchan_proto::wire::Open {
        id: ChannelId(id),
        name: request.name,
        label: request.label,
        codec: request.codec,
        fingerprint: None,
        flow,
        purpose: request.purpose,
        capacity: 2,
        limit_bytes: 1_000,
    }
}

/// A record may hold thousands of frames, and a read many records.
#[test]
fn port_10_a_peer_that_says_much_is_heard_in_turns() {
    const PINGS: usize = 1_000;
    const WORK: u32 = 10;
    let mut script = Script::joined();
    let pings: Vec<u8> = (0..PINGS as u64).flat_map(|nonce| Frame::Ping { nonce }.to_vec()).collect();
    let header = DataHeader { first_seq: 0, ack_now: false, redelivered: false, body: Body::Items };
    let mut sealed = script.seal(0, &pings, &[]);
    sealed.extend(script.seal(1, &[1, 9], header.trailer().as_slice()));
    let (mut answered, mut turns) = (0, 0);
    let answers = |script: &Script| script.server.control.borrow().backlog_frames();
    let before = answers(&script);
    while !sealed.is_empty() {
        let space = script.read.space();
        let len = space.len().min(sealed.len());
        space[..len].copy_from_slice(&sealed[..len]);
        sealed.drain(..len);
        script.read.filled(len);
        let mut done = false;
        while !done {
            let mut work = WORK;
            done = script.read.process_some(&script.server, &mut work).expect("nothing wrong with it");
            let now = answers(&script) - before;
            assert!(now - answered <= WORK as usize, "{answered}, then {now}");
            (answered, turns) = (now, turns + 1);
            let arrived = script.server.with_recv(ChannelId(1), |half| half.ready()).expect("a half");
            assert_eq!(arrived, u64::from(done && answered == PINGS), "what is behind waits");
        }
    }
    assert_eq!(answered, PINGS);
    assert!(turns >= PINGS / WORK as usize, "{turns}");
}

#[track_caller]
fn violation(result: Result<(), Fault>) {
    assert!(matches!(result, Err(Fault::Peer(_))), "{result:?}");
}

#[test]
fn sess_2_nothing_before_the_confirmation() {
    violation(Script::new().say(&Frame::Ping { nonce: 1 }));
    violation(Script::new().open(1, OpenFlow::OpenerSends));
    let mut wrong = Script::new();
    wrong.confirm[47] ^= 1;
    let confirm = Frame::Confirm { mac: wrong.confirm };
    violation(wrong.say(&confirm));
    let mut twice = Script::joined();
    let confirm = Frame::Confirm { mac: twice.confirm };
    violation(twice.say(&confirm));
}

#[test]
fn sess_4_wrong_and_changed_opens() {
    violation(Script::joined().open(2, OpenFlow::OpenerSends));
    violation(Script::joined().open(3, OpenFlow::OpenerSends));
    let mut lower = Script::joined();
    lower.open(9, OpenFlow::OpenerSends).expect("ids may be skipped");
    lower.open(5, OpenFlow::OpenerSends).expect("an old id is answered, not opened");
    assert_eq!(lower.server.control.borrow().channel_count(), 3);
}

#[test]
fn sess_4_an_open_said_twice_on_one_link_changes_no_key() {
    let mut script = Script::joined();
    // Before anything was said on the channels.
    script.open(1, OpenFlow::OpenerSends).expect("as before");
    script.open(3, OpenFlow::OpenerReceives).expect("as before");
    assert!(script.hear().contains(&ChannelId(3)), "the value that was on its way");
    script.data(0, &[&value(0, 20)]).expect("under the key of the first OPEN");
    // And after.
    script.open(3, OpenFlow::OpenerReceives).expect("as before");
    let push = script.server.with_send(ChannelId(3), |half| half.push(|item| item.extend(&value(1, 20))));
    push.expect("a half").expect("credit");
    assert!(script.hear().contains(&ChannelId(3)));
}

#[test]
fn sess_12_frames_for_channels_that_never_were() {
    let id = ChannelId(99);
    let window = WindowUpdate { id, generation: 0, received: 0, taken: 0, limit: 0, limit_bytes: 0 };
    let close = Close { id, final_seq: 0, code: 0, reason: String::new() };
    for frame in [
        Frame::Window(window),
        Frame::Want { id, limit: 1 },
        Frame::Poll { id },
        Frame::Recall(Recall { id, generation: 1, limit: 0, rewind: false }),
        Frame::Yield(Yield { id, generation: 1, limit: 0, committed: 0 }),
        Frame::Withdraw { id, seq: 0 },
        Frame::Withdrawn { id, seq: 0, withdrawn: true },
        Frame::Close(close.clone()),
        Frame::Reset(close),
        Frame::Pos(Pos::start(id)),
    ] {
        violation(Script::joined().say(&frame));
    }
    // And for ids of this end's that it has not used.
    violation(Script::joined().say(&Frame::Poll { id: ChannelId(2) }));
}

#[test]
fn flow_3_more_than_was_granted() {
    let mut script = Script::joined();
    script.data(0, &[b"a", b"b"]).expect("what was granted");
    violation(script.data(2, &[b"c"]));
    violation(Script::joined().data(0, &[b"a", b"b", b"c"]));
    let mut bytes = Script::joined();
    let window = support::endpoint::WINDOW_BYTES as u32;
    bytes.fragment(0, window, 0, window as usize).expect("a message may fill the window");
    violation(bytes.data(1, &[b"x"]));
    let mut parts = Script::joined();
    parts.data(0, &[b"a", b"b"]).expect("what was granted");
    violation(parts.fragment(2, 100_000, 0, 50_000));
}

#[test]
fn chan_2_wrong_numbers_and_shapes() {
    violation(Script::joined().data(1, &[b"a gap"]));
    violation(Script::joined().data(0, &[]));
    violation(Script::joined().record(1, b"", b"short"));
    violation(Script::joined().record(1, &[5, 1], &[0; 9]));
    violation(Script::joined().fragment(0, 100, 1, 10));
    violation(Script::joined().fragment(0, u32::MAX, 0, 10));
    let mut unfinished = Script::joined();
    unfinished.fragment(0, 100, 0, 10).expect("a first part");
    violation(unfinished.data(0, &[b"another"]));
    let mut skipped = Script::joined();
    skipped.fragment(0, 100, 0, 10).expect("a first part");
    violation(skipped.fragment(0, 100, 20, 10));
    let mut again = Script::joined();
    again.data(0, &[b"a"]).expect("granted");
    again.data(0, &[b"a"]).expect("a repetition is dropped");
    again.data(0, &[b"a", b"b"]).expect("half a repetition");
    assert_eq!(again.server.with_recv(ChannelId(1), |half| half.received()), Some(2));
}

#[test]
fn chan_7_data_behind_a_close_and_closes_that_lie() {
    let close =
        |id, final_seq| Frame::Close(Close { id: ChannelId(id), final_seq, code: 0, reason: String::new() });
    let mut script = Script::joined();
    script.say(&close(1, 0)).expect("an empty channel closes");
    violation(script.data(0, &[b"late"]));
    violation(Script::joined().say(&close(1, 1)));
    violation(Script::joined().say(&close(3, 2)));
    let mut across = Script::joined();
    across.data(0, &[b"a"]).expect("granted");
    across.say(&close(1, 1)).expect("it follows the data");
    violation(across.data(0, &[b"a", b"b"]));
}

#[test]
fn flow_2_reports_of_what_was_never_sent() {
    let window = |received, taken| {
        let id = ChannelId(3);
        Frame::Window(WindowUpdate { id, generation: 0, received, taken, limit: 2, limit_bytes: 1_000 })
    };
    Script::joined().say(&window(1, 1)).expect("one was pushed");
    violation(Script::joined().say(&window(2, 0)));
    violation(Script::joined().say(&window(0, 1)));
    violation(Script::joined().say(&Frame::Withdrawn { id: ChannelId(3), seq: 5, withdrawn: true }));
    violation(Script::joined().say(&Frame::Withdraw { id: ChannelId(1), seq: 0 }));
    let recall = |rewind| Frame::Recall(Recall { id: ChannelId(3), generation: 1, limit: 0, rewind });
    violation(Script::joined().say(&recall(false)));
    violation(Script::joined().say(&recall(true)));
    violation(Script::joined().say(&Frame::Yield(Yield {
        id: ChannelId(1),
        generation: 1,
        limit: 0,
        committed: 0,
    })));
}

#[test]
fn sess_12_malformed_control_records() {
    for bytes in [&[0x7f, 0][..], &[0x10, 200], &[0x32, 1, 0], &[0]] {
        violation(Script::joined().record(0, bytes, &[]));
    }
    Script::joined()
        .record(0, &[0x80, 3, 1, 2, 3, 0xff, 0], &[])
        .expect("unknown frames that may be skipped");
}

#[test]
fn sess_13_who_asks_without_reading_is_stopped() {
    let mut script = Script::joined();
    let pings: Vec<u8> = std::iter::repeat_n(Frame::Ping { nonce: 1 }.to_vec(), 20_000).flatten().collect();
    let stopped = (0..50).any(|_| script.record(0, &pings, &[]).is_err());
    assert!(stopped);
}

#[test]
fn keys_of_refused_channels_are_erased() {
    let mut script = Script::joined();
    for id in (5..2_005).step_by(2) {
        script.open(id, OpenFlow::OpenerSends).expect("a good open");
        let offer = script.server.take_incoming().expect("an offer").id;
        let code = netchan_proto::wire::RefuseCode::Denied;
        assert!(script.server.control.borrow_mut().refuse(offer, code, String::new()));
    }
    script.say(&Frame::Ping { nonce: 1 }).expect("a ping");
    // A record under an erased key is one that nobody sealed.
    let sealed = script.record(1_001, &[1, 7], &[0; 9]);
    assert!(matches!(sealed, Err(Fault::Link(_))), "{sealed:?}");
}

/// What an honest end would notice of a record: what it is told, what it has received, what it has to say.
fn notices(server: &Endpoint) -> (usize, u64, bool, usize) {
    let control = server.control.borrow();
    let received = server.receivers.borrow()[&ChannelId(1)].received();
    (server.events.borrow().len(), received, control.has_output(), control.backlog_frames())
}

#[test]
fn rec_11_every_flipped_bit_of_a_header_and_every_replay_is_silence() {
    let items = |first_seq| {
        let header = DataHeader { first_seq, ack_now: true, redelivered: false, body: Body::Items };
        [&[2, 7, 7], header.trailer().as_slice()].concat()
    };
    // On either kind of channel, in the first key epoch and in the one after, short and long.
    type Make = fn(&mut Script, &[u8]) -> Vec<u8>;
    let records: [Make; 4] = [
        |script, _| script.seal(0, &Frame::Ping { nonce: 7 }.to_vec(), &[]),
        |script, items| script.seal(1, items, &[]),
        |script, items| {
            script.sealer.set_rekey_limits(RekeyLimits { records: 1, ..RekeyLimits::default() });
            script.record(1, items, &[]).expect("in its place");
            // Received before, and so nothing but a record of another epoch.
            script.seal(1, items, &[])
        },
        |script, _| script.seal(0, &Frame::Ping { nonce: 7 }.to_vec().repeat(300), &[]),
    ];
    for make in records {
        for bit in 0..RECORD_HEADER_BYTES * 8 {
            let mut script = Script::joined();
            let mut record = make(&mut script, &items(0));
            let before = notices(&script.server);
            record[bit / 8] ^= 1 << (bit % 8);
            match script.deliver(record) {
                Err(Fault::Link(_)) => {}
                // Longer than it was, and so not complete.
                Ok(()) => assert!(bit < 24, "bit {bit} is not noticed"),
                Err(Fault::Peer(violation)) => {
                    panic!("bit {bit} is taken for the peer's fault: {violation:?}")
                }
            }
            assert_eq!(notices(&script.server), before, "bit {bit}");
        }
        let mut script = Script::joined();
        let record = make(&mut script, &items(0));
        script.deliver(record.clone()).expect("in its place");
        let before = notices(&script.server);
        assert!(matches!(script.deliver(record), Err(Fault::Link(_))), "a replay is read");
        assert_eq!(notices(&script.server), before);
    }
}

proptest! {
    #[test]
    fn sess_12_any_frames_end_in_an_error_at_worst(frames in proptest::collection::vec(frame(), 1..30), low: bool) {
        let mut script = Script::joined();
        for frame in frames {
            // Most ids are made ones that exist.
            let mut bytes = frame.to_vec();
            let per_channel = matches!(bytes[0], 0x10..=0x14 | 0x18..=0x1b | 0x28);
            if low && per_channel && bytes[1] < 0x80 && bytes[2] < 0x80 {
                bytes[2] = bytes[2] % 2 * 2 + 1;
            }
            if script.record(0, &bytes, &[]).is_err() {
                break;
            }
            script.server.mark_ready();
        }
    }
}

#[test]
fn rec_6_any_flipped_bit_ends_the_link_and_loses_nothing() {
    for_seeds(400, |seed, rng| {
        let mut pair = Pair::new(seed);
        let mut apps = Apps::new(900);
        let at = rng.random_range(0..6_000);
        let (bit, to_server) = (rng.random_range(0..8), rng.random_bool(0.5));
        apps.run_with_faults(&mut pair, &mut Slices::Random(rng), |pair| {
            let node = if to_server { &mut pair.server } else { &mut pair.client };
            let place = (at as u64).checked_sub(node.delivered).map(|place| place as usize);
            if pair.links == 1
                && let Some(byte) = place.and_then(|place| node.inbox.get_mut(place))
            {
                *byte ^= 1 << bit;
            }
        });
    });
}

#[test]
fn key_6_every_channel_and_direction_has_its_own_secret() {
    let mut pair = Pair::new(11);
    let mut ids = Vec::new();
    for flow in [OpenFlow::OpenerSends, OpenFlow::OpenerReceives, OpenFlow::OpenerSends] {
        ids.push(pair.client.end.open("c", flow));
        ids.push(pair.server.end.open("s", flow));
    }
    let mut seen = Vec::new();
    for link in 0..2 {
        pair.pump();
        for end in [&pair.client.end, &pair.server.end] {
            while let Some(open) = end.take_incoming() {
                assert!(end.accept(&open, Mode::Credit, 1));
            }
        }
        pair.pump();
        for id in &ids {
            let (client, server) = (pair.client.end.control.borrow(), pair.server.end.control.borrow());
            let ends = [(&client, &server), (&server, &client)];
            let secrets = ends.map(|(from, to)| (from.sealing_secret(*id), to.opening_secret(*id)));
            let [(Some(sealing), Some(opening)), (None, None)] = secrets
                .map(|(sealing, opening)| {
                    (sealing.map(|s| sealed_with(s, *id)), opening.map(|s| sealed_with(s, *id)))
                })
                .sorted_by_some()
            else {
                panic!("exactly one end sends on {id}")
            };
            assert_eq!(sealing, opening, "both ends have the same secret");
            assert!(!seen.contains(&sealing), "a secret twice");
            seen.push(sealing);
        }
        if link == 0 {
            pair.cut();
            pair.attach();
        }
    }
    assert_eq!(seen.len(), 12);
}

trait SortedBySome {
    fn sorted_by_some(self) -> Self;
}

impl<T> SortedBySome for [(Option<T>, Option<T>); 2] {
    fn sorted_by_some(self) -> Self {
        let [a, b] = self;
        if a.0.is_some() { [a, b] } else { [b, a] }
    }
}

/// What a secret seals a fixed text to: the same for the same secret only.
fn sealed_with(secret: netchan_proto::crypto::TrafficSecret, id: ChannelId) -> Vec<u8> {
    let mut sealer = LinkKeys::stub(Side::Client, b"fixed", 0).sealer;
    let mut buf = SealBuf::new(RECORD_BYTES_MAX);
    sealer.add_channel(id, secret).expect("a new channel");
    sealer.seal(id, b"a fixed text", &[], 0, &mut buf).expect("it seals");
    buf.filled()[8..].to_vec()
}

#[test]
fn chan_7_both_ends_close_at_once() {
    let mut pair = Pair::new(12);
    let id = pair.client.end.open("up", OpenFlow::OpenerSends);
    pair.pump();
    let open = pair.server.end.take_incoming().expect("an offer");
    assert!(pair.server.end.accept(&open, Mode::Credit, 4));
    pair.pump();
    pair.client.end.send(id, |half| half.close(CloseReason::plain()));
    pair.server.end.recv(id, |half| half.stop(CloseReason::plain()));
    pair.pump();
    assert_eq!(pair.client.end.control.borrow().channel_count(), 0);
    assert_eq!(pair.server.end.control.borrow().channel_count(), 0);
}
