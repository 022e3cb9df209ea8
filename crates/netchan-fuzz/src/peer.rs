//! The hostile end of a link: the right keys, and any frame.

use netchan_proto::crypto::{Chain, LinkKeys, Opener, Peek, SealBuf, Sealer};
use netchan_proto::id::{ChannelId, Direction, Side};
use netchan_proto::limits::WRITE_BUFFER_BYTES;
use netchan_proto::session::{Fault, Host, ReadHalf};
use netchan_proto::wire::{Close, DataHeader, Frame, Mode, Pos, Reader, Recall, WindowUpdate, Yield};

use crate::script::Script;

/// The peer may open a few more channels than it may have.
const IDS: u8 = 12;

/// The hostile end of one link.
pub(crate) struct Peer {
    sealer: Sealer,
    opener: Opener,
    own_chain: Chain,
    server_chain: Chain,
    pub(crate) confirm: [u8; 48],
    out: SealBuf,
}

/// Hands bytes to the end that reads them.
pub(crate) fn feed<H: Host>(to: &mut ReadHalf, host: &H, mut bytes: &[u8]) -> Result<(), Fault> {
    while !bytes.is_empty() {
        let space = to.space();
        let len = space.len().min(bytes.len());
        space[..len].copy_from_slice(&bytes[..len]);
        bytes = &bytes[len..];
        to.filled(len);
        to.process(host)?;
    }
    Ok(())
}

impl Peer {
    pub(crate) fn new(seed: &[u8], epoch: u32) -> Self {
        let keys = LinkKeys::stub(Side::Client, seed, epoch);
        let out = SealBuf::new(WRITE_BUFFER_BYTES);
        let LinkKeys { sealer, opener, own_chain, peer_chain, own_confirm, .. } = keys;
        Self { sealer, opener, own_chain, server_chain: peer_chain, confirm: own_confirm, out }
    }

    /// Seals a record, if it has a key for the channel, and lets the other end read it.
    pub(crate) fn record<H: Host>(
        &mut self,
        (to, host): (&mut ReadHalf, &H),
        channel: ChannelId,
        body: &[u8],
        trailer: &[u8],
        now_millis: u64,
    ) -> Result<(), Fault> {
        if channel == ChannelId::CONTROL {
            self.note_opens(body, Side::Client);
        }
        if self.sealer.seal(channel, body, trailer, now_millis, &mut self.out).is_err() {
            return Ok(());
        }
        feed(to, host, self.out.filled())?;
        self.out.consume(usize::MAX);
        Ok(())
    }

    /// Keys of every channel that these frames open, in their order (`KEY-8`).
    fn note_opens(&mut self, control: &[u8], by: Side) {
        let mut reader = Reader::new(control);
        while let Ok(frame) = Frame::read(&mut reader) {
            let Some(Frame::Open(open)) = &frame else { continue };
            let chain = if by == Side::Client { &mut self.own_chain } else { &mut self.server_chain };
            let keys = chain.step(&Frame::Open(open.clone()).to_vec());
            // Said again, it finds the keys in place.
            _ = self.sealer.add_channel(open.id, keys.secret(Direction::FromClient));
            _ = self.opener.add_channel(open.id, keys.secret(Direction::FromServer));
        }
    }

    /// What an honest end says can be read. Returns what it pings with.
    pub(crate) fn hear(&mut self, mut stream: &[u8]) -> Vec<u64> {
        let mut pings = Vec::new();
        while !stream.is_empty() {
            let Ok(Peek::Record { record_len, plaintext_len, .. }) = self.opener.peek(stream) else {
                panic!("an honest end wrote bytes that are not a record");
            };
            let (record, rest) = stream.split_at(record_len);
            let mut plaintext = vec![0; plaintext_len];
            let channel =
                self.opener.open(record, &mut plaintext).expect("sealed with keys that both ends have");
            stream = rest;
            if channel != ChannelId::CONTROL {
                DataHeader::split(&plaintext).expect("an honest end writes data records");
                continue;
            }
            let mut reader = Reader::new(&plaintext);
            while !reader.is_empty() {
                if let Some(Frame::Ping { nonce }) =
                    Frame::read(&mut reader).expect("an honest end writes frames")
                {
                    pings.push(nonce);
                }
            }
            self.note_opens(&plaintext, Side::Server);
        }
        pings
    }
}

/// One of the peer's own channels, or one of the honest end's.
pub(crate) fn id(script: &mut Script<'_>) -> ChannelId {
    ChannelId(1 + u32::from(script.one_of(2 * IDS)))
}

pub(crate) fn mode(script: &mut Script<'_>) -> (Mode, u64) {
    let capacity = u64::from(script.byte()) + 1;
    match script.one_of(5) {
        0 => (Mode::Credit, capacity),
        1 => (Mode::Rendezvous, 0),
        2 => (Mode::Lease, capacity),
        3 => (Mode::Demand, capacity),
        _ => (Mode::Cast, capacity),
    }
}

/// Any frame about a channel, with numbers that may be right.
pub(crate) fn frame(script: &mut Script<'_>) -> Frame {
    let (which, id) = (script.one_of(14), id(script));
    let generation = u32::from(script.one_of(4));
    let mut n = || script.number();
    let close = |final_seq, code| Close { id, final_seq, code, reason: "why".to_owned() };
    match which {
        0 => {
            let (received, taken, limit, limit_bytes) = (n(), n(), n(), n());
            Frame::Window(WindowUpdate { id, generation, received, taken, limit, limit_bytes })
        }
        1 => Frame::Want { id, limit: n() },
        2 => Frame::Poll { id },
        3 => Frame::Recall(Recall { id, generation, limit: n(), rewind: n() % 2 == 1 }),
        4 => Frame::Yield(Yield { id, generation, limit: n(), committed: n() }),
        5 => Frame::Close(close(n(), n() as u16)),
        6 => Frame::Reset(close(n(), n() as u16)),
        7 => Frame::Withdraw { id, seq: n() },
        8 => Frame::Withdrawn { id, seq: n(), withdrawn: n() % 2 == 1 },
        9 => {
            let (next_expected, taken, limit, limit_bytes, committed) = (n(), n(), n(), n(), n());
            Frame::Pos(Pos { id, generation, next_expected, taken, limit, limit_bytes, committed })
        }
        10 => Frame::Ping { nonce: n() },
        11 => Frame::CallBack { id, generation },
        12 => Frame::Closing { id, code: n() as u16, reason: "soon".to_owned() },
        _ => Frame::GoAway { code: n() as u16, reason: "bye".to_owned() },
    }
}
