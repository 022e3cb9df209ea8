//! A session at whose other end sits somebody with the right keys who says anything: it goes on, or ends by a fault, and
//! what it keeps for the peer stays bounded.

mod shell;

use netchan_proto::crypto::LinkKeys;
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::session::{Fault, LinkControlKeys, ReadHalf, WriteHalf};
use netchan_proto::wire::{Accept, Body, DataHeader, Frame, Open, OpenFlow, Purpose, write_varint};

use self::shell::Shell;
use crate::peer::{Peer, frame, id, mode};
use crate::script::Script;

const SEED: &[u8] = b"session";

/// Steps of one run: enough for several channels to be opened, used, cut and closed.
const STEPS_MAX: usize = 120;

/// Bytes of one record that a step says.
const SAID_BYTES_MAX: usize = 200;

/// The honest end of the same link.
struct Link {
    read: ReadHalf,
    write: WriteHalf,
}

struct Game {
    shell: Shell,
    link: Link,
    peer: Peer,
    links: u32,
    now_millis: u64,
}

/// Every byte is a choice of what either end does next.
///
/// # Panics
/// When the honest end panics, or keeps more than its limits allow.
pub fn session(data: &[u8]) {
    let mut script = Script::new(data);
    let mut game = Game::new();
    for _ in 0..STEPS_MAX {
        if script.is_empty() || game.step(&mut script).is_err() {
            return;
        }
        game.shell.check();
    }
}

fn links(epoch: u32, shell: &Shell) -> (Link, Peer) {
    let (control, sealer, opener) = LinkControlKeys::split(LinkKeys::stub(Side::Server, SEED, epoch));
    shell.attach(control);
    let link = Link { read: ReadHalf::new(opener, &[]), write: WriteHalf::new(sealer) };
    (link, Peer::new(SEED, epoch))
}

impl Game {
    fn new() -> Self {
        let shell = Shell::new();
        let (link, peer) = links(0, &shell);
        Self { shell, link, peer, links: 1, now_millis: 0 }
    }

    fn step(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let action = script.one_of(20);
        match action {
            0 => self.say(&Frame::Confirm { mac: self.peer.confirm }),
            1 | 2 => self.open(script),
            3 => {
                let (id, (mode, capacity)) = (id(script), mode(script));
                self.say(&Frame::Accept(Accept { id, mode, capacity, limit_bytes: script.number() }))
            }
            4 => {
                let len = script.place(SAID_BYTES_MAX);
                self.record(ChannelId::CONTROL, script.take(len), &[])
            }
            5 | 6 => self.items(script),
            7 => self.fragment(script),
            8..=11 => {
                let frame = frame(script);
                self.say(&frame)
            }
            12 => {
                self.cut();
                Ok(())
            }
            13 => {
                self.write();
                Ok(())
            }
            _ => {
                self.shell.act(action - 14, script);
                Ok(())
            }
        }
    }

    fn say(&mut self, frame: &Frame) -> Result<(), Fault> {
        self.record(ChannelId::CONTROL, &frame.to_vec(), &[])
    }

    fn open(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = id(script);
        let flow = if script.flag() { OpenFlow::OpenerReceives } else { OpenFlow::OpenerSends };
        let purpose = match (script.one_of(6), flow) {
            (1, OpenFlow::OpenerReceives) => Purpose::Deliveries,
            (2, OpenFlow::OpenerSends) => Purpose::Acks { of: ChannelId(1) },
            (3, OpenFlow::OpenerReceives) => Purpose::Outcomes { of: ChannelId(1) },
            (4, OpenFlow::OpenerReceives) => Purpose::Subscription { when_slow: 1 },
            _ => Purpose::Values,
        };
        let text = |text: &str| text.to_owned();
        let open = Frame::Open(Open {
            id,
            name: text("x"),
            label: text("bytes"),
            codec: text("raw"),
            fingerprint: None,
            flow,
            purpose,
            capacity: u64::from(script.byte()),
            limit_bytes: script.number(),
        });
        self.say(&open)
    }

    fn items(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = id(script);
        let mut body = Vec::new();
        for _ in 0..script.one_of(5) {
            let len = script.place(40);
            write_varint(&mut body, len as u64);
            body.resize(body.len() + len, 7);
        }
        body.truncate(SAID_BYTES_MAX);
        let header = self.header(id, script, Body::Items);
        self.record(id, &body, header.trailer().as_slice())
    }

    fn fragment(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let (id, len) = (id(script), script.place(SAID_BYTES_MAX));
        let place = Body::Fragment { total: script.number() as u32, offset: script.number() as u32 };
        let header = self.header(id, script, place);
        self.record(id, &vec![9; len], header.trailer().as_slice())
    }

    /// The number that is due, or near it, or any.
    fn header(&self, id: ChannelId, script: &mut Script<'_>, body: Body) -> DataHeader {
        let flags = script.byte();
        let due = self.shell.received(id);
        let first_seq = match flags >> 4 {
            0..=11 => due,
            12 => due.saturating_sub(1),
            13 => due.saturating_add(1),
            _ => script.number(),
        };
        DataHeader { first_seq, ack_now: flags & 1 != 0, redelivered: flags & 2 != 0, body }
    }

    /// Seals a record, if the peer has a key for the channel, and lets the honest end read it.
    fn record(&mut self, channel: ChannelId, body: &[u8], trailer: &[u8]) -> Result<(), Fault> {
        let to = (&mut self.link.read, &self.shell);
        self.peer.record(to, channel, body, trailer, self.now_millis)?;
        self.shell.settle_events();
        Ok(())
    }

    /// The honest end writes what it has.
    fn write(&mut self) {
        self.now_millis += 1;
        self.shell.mark_ready();
        self.link.write.fill(&self.shell, self.now_millis).expect("an honest end can seal");
        self.peer.hear(self.link.write.output());
        self.link.write.consume(usize::MAX);
    }

    /// The link is lost, and another takes its place.
    fn cut(&mut self) {
        self.shell.detach();
        (self.link, self.peer) = links(self.links, &self.shell);
        self.links += 1;
    }
}
