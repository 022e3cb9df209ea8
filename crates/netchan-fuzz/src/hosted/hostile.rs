//! A client that sends any frame: valid now, valid earlier, or never valid.

use std::rc::Rc;

use netchan_proto::crypto::LinkKeys;
use netchan_proto::id::{ChannelId, SessionId, Side};
use netchan_proto::session::{Fault, Host, LinkControlKeys, ReadHalf, WriteHalf, begin};
use netchan_proto::wire::{
    Ask, Body, Close, DataHeader, Frame, Open, OpenFlow, Pos, Purpose, Recall, WindowUpdate, Yield,
    write_varint,
};
use netchan_sim::end::End;

use super::server::{Link, Server};
use crate::peer::{Peer, frame, id};
use crate::script::Script;

/// Sessions that a client has one after another: a fault ends one.
const SESSIONS_MAX: u8 = 4;

pub(super) struct Hostile {
    who: u32,
    /// None once it has had as many as it may have.
    at: Option<At>,
    sessions: u8,
    token: u64,
}

struct At {
    session: SessionId,
    link: Link,
    peer: Peer,
    seed: [u8; 2],
    epoch: u32,
    /// What it has opened, to say it again.
    opened: Vec<Open>,
}

fn joined(server: &mut Server, who: u32, session: u8) -> At {
    let seed = [who as u8, session];
    let (session, end) = server.admit(who);
    let (link, peer) = link(&seed, 0, end);
    let mut at = At { session, link, peer, seed, epoch: 0, opened: Vec::new() };
    let mac = at.peer.confirm;
    at.say(&Frame::Confirm { mac }).expect("the right confirmation");
    at
}

fn link(seed: &[u8], epoch: u32, end: Rc<End>) -> (Link, Peer) {
    let (control, sealer, opener) = LinkControlKeys::split(LinkKeys::stub(Side::Server, seed, epoch));
    if epoch == 0 {
        end.control.borrow_mut().attach(control);
    } else {
        // It has been confirmed, as a server sees to before it takes the link.
        begin(&*end, control);
    }
    let read = ReadHalf::new(opener, &[]);
    (Link { end, read, write: WriteHalf::new(sealer) }, Peer::new(seed, epoch))
}

impl Hostile {
    pub(super) fn new(server: &mut Server, who: u32) -> Self {
        let at = Some(joined(server, who, 0));
        Self { who, at, sessions: 1, token: 0 }
    }

    /// Does something.
    pub(super) fn act(&mut self, server: &mut Server, action: u8, script: &mut Script<'_>) {
        let Some(at) = &mut self.at else { return };
        self.token += 1;
        let did = match action {
            0 | 1 => at.open(script),
            2 => at.items(script),
            3 => at.say(&Frame::Want { id: at.some(script), limit: script.number() }),
            4 | 5 => at.window(script),
            6 | 7 => at.ask(script, self.token),
            8 => at.yields(script),
            9 => at.rewinds(script),
            10 => at.closes(script),
            11 => at.withdraws(script),
            12 | 13 => at.say(&frame(script)),
            14 => at.fragment(script),
            15 => {
                at.cut(server, script);
                Ok(())
            }
            16 => at.say(&Frame::CallBack { id: id(script), generation: u32::from(script.byte()) }),
            17 => at.say_again(script),
            _ => {
                at.listen(server.now());
                Ok(())
            }
        };
        server.drain(at.session);
        if did.is_err() {
            self.put_out(server);
        }
    }

    /// Only answers pings.
    pub(super) fn answer(&mut self, server: &mut Server) {
        let Some(at) = &mut self.at else { return };
        let pings = at.listen(server.now());
        let answered = pings.into_iter().try_for_each(|nonce| at.say(&Frame::Pong { nonce }));
        server.drain(at.session);
        if answered.is_err() {
            self.put_out(server);
        }
    }

    /// It broke a rule: its session is over, and it may come back.
    fn put_out(&mut self, server: &mut Server) {
        if let Some(at) = self.at.take() {
            server.lose(at.session);
        }
        if self.sessions < SESSIONS_MAX {
            self.at = Some(joined(server, self.who, self.sessions));
            self.sessions += 1;
        }
    }
}

impl At {
    fn end(&self) -> &End {
        &self.link.end
    }

    /// One of its own channels.
    fn some(&self, script: &mut Script<'_>) -> ChannelId {
        let which = usize::from(script.byte());
        match self.opened.len() {
            0 => ChannelId(1),
            len => self.opened[which % len].id,
        }
    }

    fn say(&mut self, frame: &Frame) -> Result<(), Fault> {
        self.record(ChannelId::CONTROL, &frame.to_vec(), &[])
    }

    /// Seals a record, if there is a key for the channel, and lets the server read it.
    fn record(&mut self, channel: ChannelId, body: &[u8], trailer: &[u8]) -> Result<(), Fault> {
        let to = (&mut self.link.read, &*self.link.end);
        self.peer.record(to, channel, body, trailer, 0)
    }

    fn open(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = ChannelId(1 + 2 * self.opened.len() as u32);
        let of = self.some(script);
        let (flow, purpose, name) = match script.one_of(8) {
            0 | 1 => (OpenFlow::OpenerSends, Purpose::Values, "x"),
            2 => (OpenFlow::OpenerSends, Purpose::Values, "r"),
            3 => (OpenFlow::OpenerReceives, Purpose::Values, "x"),
            4 | 5 => (OpenFlow::OpenerReceives, Purpose::Deliveries, "x"),
            6 => (OpenFlow::OpenerSends, Purpose::Acks { of }, ""),
            _ => (OpenFlow::OpenerReceives, Purpose::Outcomes { of }, ""),
        };
        let limit_bytes = if script.flag() { 100_000 } else { script.number() };
        let open = Open {
            id,
            name: name.to_owned(),
            label: "bytes".to_owned(),
            codec: "raw".to_owned(),
            fingerprint: None,
            flow,
            purpose,
            capacity: u64::from(script.one_of(9)),
            limit_bytes,
        };
        self.opened.push(open.clone());
        self.say(&Frame::Open(open))
    }

    /// What the server has received on a channel, and how much more it lets come.
    fn due(&self, id: ChannelId) -> (u64, u64) {
        let seen = self.end().with_recv(id, |half| (half.received(), half.granted()));
        seen.unwrap_or((0, 0))
    }

    /// What the server has sent on a channel, and knows taken.
    fn had(&self, id: ChannelId) -> (u64, u64) {
        self.end().with_send(id, |half| (half.committed(), half.taken())).unwrap_or((0, 0))
    }

    fn items(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let (due, granted) = self.due(id);
        let most = granted.saturating_sub(due).max(1);
        let mut body = Vec::new();
        for _ in 0..u64::from(script.byte()).min(most) {
            let len = script.place(120);
            write_varint(&mut body, len as u64);
            body.resize(body.len() + len, 7);
        }
        let header =
            DataHeader { first_seq: due, ack_now: script.flag(), redelivered: false, body: Body::Items };
        self.record(id, &body, header.trailer().as_slice())
    }

    fn fragment(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let (total, part) = (script.place(3_000), script.place(1_000));
        let body = Body::Fragment { total: total as u32, offset: 0 };
        let header = DataHeader { first_seq: self.due(id).0, ack_now: false, redelivered: false, body };
        self.record(id, &vec![9; part.min(total)], header.trailer().as_slice())
    }

    fn window(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let (sent, taken) = self.had(id);
        let taken = taken + u64::from(script.byte()).min(sent - taken);
        let generation = u32::from(script.byte() >> 6);
        let limit = taken.saturating_add(script.number());
        let limit_bytes = if script.flag() { 1 << 20 } else { script.number() };
        self.say(&Frame::Window(WindowUpdate { id, generation, received: sent, taken, limit, limit_bytes }))
    }

    fn ask(&mut self, script: &mut Script<'_>, token: u64) -> Result<(), Fault> {
        let asks = |open: &&Open| matches!(open.purpose, Purpose::Acks { .. });
        let Some(open) = self.opened.iter().rfind(asks) else { return Ok(()) };
        let (id, of) = match open.purpose {
            Purpose::Acks { of } => (open.id, of),
            _ => return Ok(()),
        };
        let number = match self.had(of).0 {
            0 => 0,
            sent if script.flag() => script.number() % sent,
            sent => sent - 1,
        };
        let into = |open: &&Open| open.name == "r";
        let results = self.opened.iter().find(into).map_or(ChannelId(77), |open| open.id);
        let delay_millis = script.number();
        let value = [1; 30];
        let ask = match script.one_of(5) {
            0 => Ask::Ack { number },
            1 => Ask::Nack { number, delay_millis },
            2 => Ask::Extend { number, millis: delay_millis },
            _ => Ask::AckWith { number, results, value: &value },
        };
        let mut said = Vec::new();
        ask.write(if script.flag() { token } else { 0 }, &mut said);
        let mut body = Vec::new();
        write_varint(&mut body, said.len() as u64);
        body.extend(said);
        let header =
            DataHeader { first_seq: self.due(id).0, ack_now: false, redelivered: false, body: Body::Items };
        self.record(id, &body, header.trailer().as_slice())
    }

    /// Answers a recall, if there is one.
    fn yields(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let (due, granted) = self.due(id);
        let limit = due + u64::from(script.byte()) % (granted.saturating_sub(due) + 1);
        let generation = u32::from(script.one_of(4));
        self.say(&Frame::Yield(Yield { id, generation, limit, committed: due }))
    }

    /// Gives back what it has not taken.
    fn rewinds(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let (sent, taken) = self.had(id);
        let limit = taken + u64::from(script.byte()).min(sent - taken);
        let generation = u32::from(script.one_of(4));
        self.say(&Frame::Recall(Recall { id, generation, limit, rewind: true }))
    }

    fn closes(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let final_seq = if script.flag() { self.due(id).0 } else { self.had(id).1 };
        let close = Close { id, final_seq, code: 0, reason: String::new() };
        self.say(&if script.flag() { Frame::Close(close) } else { Frame::Reset(close) })
    }

    fn withdraws(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let due = self.due(id).0;
        self.say(&Frame::Withdraw { id, seq: due.saturating_sub(u64::from(script.one_of(2))) })
    }

    /// Says an open again, and where it stands with that channel.
    fn say_again(&mut self, script: &mut Script<'_>) -> Result<(), Fault> {
        let id = self.some(script);
        let Some(open) = self.opened.iter().find(|open| open.id == id).cloned() else { return Ok(()) };
        if script.flag() {
            self.say(&Frame::Open(open))?;
        }
        let ((due, granted), (sent, taken)) = (self.due(id), self.had(id));
        let committed = due + u64::from(script.byte()) % (granted.saturating_sub(due) + 1);
        let generation = u32::from(script.one_of(3));
        self.say(&Frame::Pos(Pos {
            id,
            generation,
            next_expected: sent,
            taken,
            limit: taken + u64::from(script.byte()),
            limit_bytes: 1 << 20,
            committed,
        }))
    }

    /// The link is lost. Another takes its place, or the session is given up.
    fn cut(&mut self, server: &mut Server, script: &mut Script<'_>) {
        server.suspend(self.session);
        server.pass(u64::from(script.byte()));
        self.epoch += 1;
        (self.link, self.peer) = link(&self.seed, self.epoch, Rc::clone(&self.link.end));
        server.attach(self.session);
        if script.flag() {
            for open in self.opened.clone() {
                // A fault here is found by what is said next.
                _ = self.say(&Frame::Open(open));
            }
        }
    }

    /// Reads what the server has to say. Returns what it pings with.
    fn listen(&mut self, now: u64) -> Vec<u64> {
        self.link.end.mark_ready();
        self.link.write.fill(&*self.link.end, now).expect("the server can seal");
        let pings = self.peer.hear(self.link.write.output());
        self.link.write.consume(usize::MAX);
        pings
    }
}
