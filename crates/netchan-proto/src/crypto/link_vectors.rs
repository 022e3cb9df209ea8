//! A frozen session of two links, from gate to data: whoever knows what the two ends know can follow all of it.

use super::cipher::Aead;
use super::gate::{GateKey, make_gate};
use super::hello::{Accepted, Hello, Resume, Welcome};
use super::identity::LocalKey;
use super::record::{RekeyLimits, SealBuf, Sealer};
use super::schedule::{LinkKeys, RootSecret, Transcript, hash};
use super::secret::{AccessSecret, ResumeSecret};
use super::vectors::{Lines, bytes};
use crate::id::{ChannelId, Direction, Epoch, Incarnation, SessionId, Side};
use crate::wire::{Accept, Body, Close, DataHeader, Frame, Mode, Open, OpenFlow, Pos, Purpose, WindowUpdate};

const UP: ChannelId = ChannelId(1);
const DOWN: ChannelId = ChannelId(2);

/// What makes one link different from the other.
struct Plan {
    name: &'static str,
    unix_seconds: u64,
    /// Where the bytes start that TLS would have given.
    start: u8,
    aead: Aead,
    epoch: u32,
    previous: Option<ResumeSecret>,
}

/// Both ends of one link, and what they have sealed.
struct Link {
    name: &'static str,
    keys: [LinkKeys; 2],
    streams: [SealBuf; 2],
    records: [usize; 2],
}

fn open(id: ChannelId, name: &str) -> Open {
    Open {
        id,
        name: name.into(),
        label: "String".into(),
        codec: "postcard/1".into(),
        fingerprint: None,
        flow: OpenFlow::OpenerSends,
        purpose: Purpose::Values,
        capacity: 0,
        limit_bytes: 0,
    }
}

fn items(first_seq: u64, ack_now: bool, values: &[&str]) -> (Vec<u8>, DataHeader) {
    let body = values.iter().flat_map(|value| [&[value.len() as u8], value.as_bytes()].concat()).collect();
    (body, DataHeader { first_seq, ack_now, redelivered: false, body: Body::Items })
}

fn fragment(first_seq: u64, total: u32, offset: u32, part: &str) -> (Vec<u8>, DataHeader) {
    let body = Body::Fragment { total, offset };
    (part.into(), DataHeader { first_seq, ack_now: false, redelivered: false, body })
}

impl Link {
    fn begin(lines: &mut Lines, psk: &AccessSecret, keys: &[LocalKey; 2], plan: &Plan) -> Self {
        let Plan { name, unix_seconds, start, .. } = *plan;
        let client_hello = [&[22, 3, 1, 0, 40][..], &bytes::<40>(start)].concat();
        let gate = make_gate(&GateKey::Secret(psk.clone()), unix_seconds, bytes(start ^ 0x80), &client_hello);
        let (exporter, resume_exporter) = (bytes::<48>(start ^ 0x40), bytes::<48>(start ^ 0xc0));
        let session_id = SessionId(bytes(0x5e));
        let resume = plan.previous.as_ref().map(|secret| Resume {
            session_id,
            last_epoch: Epoch(plan.epoch - 1),
            proof: secret.proof(&resume_exporter),
        });
        let hello = Hello {
            version: 1,
            agent: "a client".into(),
            aes_hardware: plan.aead == Aead::Aes256Gcm,
            message_bytes_max: 1 << 20,
            resume,
        };
        let accepted = Accepted {
            session_id,
            incarnation: Incarnation(0x1122_3344_5566_7788),
            epoch: Epoch(plan.epoch),
            aead: plan.aead,
            resumed: plan.previous.is_some(),
            message_bytes_max: 1 << 21,
            channels_max: 100,
            agent: "a server".into(),
        };
        let (hello, welcome) =
            (hello.encode().expect("short"), Welcome::Accepted(accepted).encode().expect("short"));
        let opening = hash(&[&gate, &client_hello]);
        let [client_spki, server_spki] = keys.each_ref().map(LocalKey::spki);
        let (hello_bytes, welcome_bytes) = (&hello[..], &welcome[..]);
        let transcript = Transcript {
            version: 1,
            opening: &opening,
            client_spki,
            server_spki,
            hello: hello_bytes,
            welcome: welcome_bytes,
        };
        let ctx = transcript.context();
        let mut keys = [Side::Client, Side::Server].map(|side| {
            let root = RootSecret::extract(&exporter, Some(psk), plan.previous.as_ref());
            LinkKeys::derive(side, plan.aead, root, &ctx)
        });
        for end in &mut keys {
            // So low that the short streams below show new key epochs.
            end.sealer.set_rekey_limits(RekeyLimits { records: 2, ..RekeyLimits::default() });
        }
        lines.put(&format!("{name}.time"), &unix_seconds.to_be_bytes());
        lines.put(&format!("{name}.aead"), &[plan.aead.code()]);
        for (field, value) in [
            ("gate", &gate[..]),
            ("client_hello", &client_hello),
            ("hello", &hello),
            ("welcome", &welcome),
            ("exporter", &exporter),
            ("ctx", &ctx),
            ("rs", &keys[0].resume_secret.0[..]),
        ] {
            lines.put(&format!("{name}.{field}"), value);
        }
        if plan.previous.is_some() {
            lines.put(&format!("{name}.resume_exporter"), &resume_exporter);
        }
        let streams = [(); 2].map(|()| SealBuf::new(1 << 16));
        Self { name, keys, streams, records: [0; 2] }
    }

    fn seal(&mut self, lines: &mut Lines, from: Side, channel: ChannelId, body: &[u8], trailer: &[u8]) {
        let at = from as usize;
        let (sealer, stream): (&mut Sealer, _) = (&mut self.keys[at].sealer, &mut self.streams[at]);
        sealer.seal(channel, body, trailer, 0, stream).expect("fits");
        let name = format!("{}.{}.{:02}", self.name, side_name(from), self.records[at]);
        lines.put(&format!("{name}.channel"), &channel.0.to_be_bytes());
        lines.put(&format!("{name}.plaintext"), &[body, trailer].concat());
        self.records[at] += 1;
    }

    fn confirm(&mut self, lines: &mut Lines, from: Side) {
        let mac = self.keys[from as usize].own_confirm;
        self.control(lines, from, &[Frame::Confirm { mac }]);
    }

    /// One record of control frames; each OPEN gives its channel keys at both ends (`KEY-8`).
    fn control(&mut self, lines: &mut Lines, from: Side, frames: &[Frame]) {
        let mut body = Vec::new();
        for frame in frames {
            let encoded = frame.to_vec();
            body.extend_from_slice(&encoded);
            let Frame::Open(open) = frame else { continue };
            let [client, server] = &mut self.keys;
            let (ours, theirs) = match from {
                Side::Client => (&mut client.own_chain, &mut server.peer_chain),
                Side::Server => (&mut client.peer_chain, &mut server.own_chain),
            };
            let (ours, theirs) = (ours.step(&encoded), theirs.step(&encoded));
            client.sealer.add_channel(open.id, ours.secret(Direction::FromClient)).expect("new");
            server.sealer.add_channel(open.id, theirs.secret(Direction::FromServer)).expect("new");
        }
        self.seal(lines, from, ChannelId::CONTROL, &body, &[]);
    }

    fn data(&mut self, lines: &mut Lines, from: Side, channel: ChannelId, record: &(Vec<u8>, DataHeader)) {
        self.seal(lines, from, channel, &record.0, record.1.trailer().as_slice());
    }

    fn end(self, lines: &mut Lines) -> ResumeSecret {
        for side in [Side::Client, Side::Server] {
            let stream = &self.streams[side as usize];
            lines.put(&format!("{}.stream.{}", self.name, side_name(side)), stream.filled());
        }
        let [client, _] = self.keys;
        client.resume_secret
    }
}

const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// A session that opens a channel each way, loses its link, and goes on over another.
pub(super) fn links() -> String {
    use Side::{Client, Server};

    let lines = &mut Lines::default();
    let psk = AccessSecret::new(bytes(0x21));
    let keys = [0x31, 0x61].map(|seed| LocalKey::from_seed(bytes(seed)).expect("any seed is a key"));
    lines.put("psk", psk.expose());
    lines.put("client_spki", keys[0].spki());
    lines.put("server_spki", keys[1].spki());
    let accept = |id, limit_bytes| Frame::Accept(Accept { id, mode: Mode::Credit, capacity: 4, limit_bytes });

    let plan = Plan {
        name: "first",
        unix_seconds: 1_800_000_000,
        start: 0x07,
        aead: Aead::Aes256Gcm,
        epoch: 1,
        previous: None,
    };
    let mut link = Link::begin(lines, &psk, &keys, &plan);
    link.confirm(lines, Client);
    link.confirm(lines, Server);
    link.control(lines, Client, &[Frame::Open(open(UP, "up")), Frame::Ping { nonce: 300 }]);
    link.data(lines, Client, UP, &items(0, false, &["one", "", "three"]));
    let opened = Frame::Open(open(DOWN, "down"));
    link.control(lines, Server, &[accept(UP, 524_288), Frame::Pong { nonce: 300 }, opened]);
    link.data(lines, Server, DOWN, &items(0, true, &["aye"]));
    link.control(lines, Client, &[accept(DOWN, 524_288)]);
    link.data(lines, Client, UP, &fragment(3, 9, 0, "a long "));
    link.data(lines, Client, UP, &fragment(3, 9, 7, "on"));
    let window = |id, received, taken, limit| {
        Frame::Window(WindowUpdate { id, generation: 0, received, taken, limit, limit_bytes: 524_288 })
    };
    link.control(lines, Server, &[window(UP, 4, 3, 7)]);
    link.control(lines, Client, &[window(DOWN, 1, 1, 5)]);
    let previous = Some(link.end(lines));

    let plan = Plan {
        name: "second",
        unix_seconds: 1_800_000_060,
        start: 0x39,
        aead: Aead::ChaCha20Poly1305,
        epoch: 2,
        previous,
    };
    let mut link = Link::begin(lines, &psk, &keys, &plan);
    link.confirm(lines, Client);
    link.confirm(lines, Server);
    let up = Pos { committed: 4, ..Pos::start(UP) };
    let up_taken = Pos { next_expected: 4, taken: 4, limit: 8, limit_bytes: 524_288, ..Pos::start(UP) };
    let down = Pos { committed: 1, ..Pos::start(DOWN) };
    let down_taken = Pos { next_expected: 1, taken: 1, limit: 5, limit_bytes: 524_288, ..Pos::start(DOWN) };
    link.control(lines, Client, &[Frame::Open(open(UP, "up")), Frame::Pos(up), Frame::Pos(down_taken)]);
    link.control(lines, Server, &[Frame::Open(open(DOWN, "down")), Frame::Pos(up_taken), Frame::Pos(down)]);
    link.data(lines, Client, UP, &items(4, false, &["five"]));
    link.data(lines, Server, DOWN, &items(1, false, &["bee"]));
    let closed = |id, final_seq| Close { id, final_seq, code: 0, reason: String::new() };
    link.control(lines, Client, &[Frame::Close(closed(UP, 5)), Frame::Close(closed(DOWN, 2))]);
    link.control(lines, Server, &[Frame::Close(closed(UP, 5)), Frame::Close(closed(DOWN, 2))]);
    link.control(lines, Client, &[Frame::GoAway { code: 0, reason: "bye".into() }]);
    link.end(lines);
    std::mem::take(&mut lines.0)
}
