//! A client that does what it should: it sends numbered values, and receives.

use std::collections::BTreeSet;
use std::rc::Rc;

use netchan_proto::channel::SendHalf;
use netchan_proto::crypto::LinkKeys;
use netchan_proto::id::{ChannelId, SessionId, Side};
use netchan_proto::session::{Event, Host, LinkControlKeys, ReadHalf, WriteHalf};
use netchan_proto::wire::OpenFlow;
use netchan_sim::end::End;

use super::server::{Link, Server};
use crate::peer::feed;

const SEED: &[u8] = b"honest";
const TAG: u8 = 0x77;
/// Its values are small: they fit wherever there is room.
const VALUE_BYTES: usize = 9;

pub(super) struct Honest {
    session: SessionId,
    client: Link,
    server: Link,
    sends: ChannelId,
    receives: ChannelId,
    /// Values that it sent, and that it is to have sent.
    sent: u64,
    target: u64,
    got: BTreeSet<u64>,
}

fn link(side: Side, end: Rc<End>) -> Link {
    let (control, sealer, opener) = LinkControlKeys::split(LinkKeys::stub(side, SEED, 0));
    end.control.borrow_mut().attach(control);
    Link { end, read: ReadHalf::new(opener, &[]), write: WriteHalf::new(sealer) }
}

/// What one end has to say reaches the other. Says whether there was anything.
fn carry(from: &mut Link, to: &mut Link, now: u64) -> bool {
    from.end.mark_ready();
    from.write.fill(&*from.end, now).expect("an honest end can seal");
    let bytes = from.write.output();
    let any = !bytes.is_empty();
    feed(&mut to.read, &*to.end, bytes).expect("an honest end breaks no rule");
    from.write.consume(usize::MAX);
    any
}

impl Honest {
    pub(super) fn new(server: &mut Server) -> Self {
        let (session, there) = server.admit(9);
        let here = Rc::new(End::new(Side::Client));
        let (client, there) = (link(Side::Client, here), link(Side::Server, there));
        let sends = client.end.open("x", OpenFlow::OpenerSends, 0, 0);
        let receives = client.end.open("x", OpenFlow::OpenerReceives, 4, 0);
        let mut honest = Self {
            session,
            client,
            server: there,
            sends,
            receives,
            sent: 0,
            target: 0,
            got: BTreeSet::new(),
        };
        honest.exchange(server);
        honest
    }

    /// Both ends say what they have to say, until nothing is left.
    pub(super) fn exchange(&mut self, server: &mut Server) {
        loop {
            let mut moved = carry(&mut self.client, &mut self.server, server.now());
            server.drain(self.session);
            moved |= carry(&mut self.server, &mut self.client, server.now());
            self.hear();
            if !moved {
                return;
            }
        }
    }

    /// A recall that came with the grant which it recalls is answered once that has had its chance.
    fn hear(&mut self) {
        for event in self.client.end.take_events() {
            if let Event::RecallDeferred(id) = event {
                self.client.end.with_send(id, SendHalf::answer_recall);
                self.client.end.set_ready(id);
            }
        }
    }

    /// Sends what it can.
    pub(super) fn send(&mut self, server: &mut Server) {
        let (sent, target) = (self.sent, self.target.max(self.sent + u64::from(self.target == 0)));
        let now = self.client.end.with_send(self.sends, |half| {
            let mut sent = sent;
            while sent < target && half.available() > 0 {
                let value = value(sent);
                half.push(|item| item.extend(&value)).expect("there was credit");
                sent += 1;
            }
            half.want(u64::from(sent < target && half.available() == 0));
            assert!(half.peer_closed().is_none(), "an honest sender is put out: {:?}", half.peer_closed());
            sent
        });
        self.sent = now.expect("an honest sender is there");
        self.client.end.set_ready(self.sends);
        self.exchange(server);
    }

    /// Takes what is here, and asks for more.
    pub(super) fn receive(&mut self) {
        let got = &mut self.got;
        self.client.end.with_recv(self.receives, |half| {
            while let Some(payload) = half.take() {
                let bytes = payload.as_slice();
                if bytes.len() == VALUE_BYTES && bytes[0] == TAG {
                    let number = u64::from_be_bytes(bytes[1..].try_into().expect("eight bytes"));
                    assert!(got.insert(number), "value {number} came twice");
                }
            }
            half.set_waiting(1);
            assert!(half.peer_closed().is_none(), "an honest receiver is put out: {:?}", half.peer_closed());
        });
        self.client.end.set_ready(self.receives);
    }

    pub(super) fn wants_more(&mut self, count: u64) {
        self.target = self.sent + count;
    }

    pub(super) fn is_done(&self) -> bool {
        self.sent >= self.target
    }

    pub(super) fn progress(&self) -> String {
        format!("{} of {} sent, {} received", self.sent, self.target, self.got.len())
    }
}

fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut bytes = [TAG; VALUE_BYTES];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}
