//! Who comes in: handshakes, and links that take the place of others.

use netchan_proto::crypto::handshake::stub::InsecureStub;
use netchan_proto::crypto::{Accepted, Aead, Handshake, PeerHello, ProvenResume, RefusalCode};
use netchan_proto::id::{Epoch, SessionId};
use netchan_proto::session::{ReadHalf, begin};
use rand::Rng;

use super::{HANDSHAKE_MILLIS, Knock, Server, Session, Stage, Unconfirmed, close};
use crate::context::{Context, Shake};
use crate::end::MESSAGE_BYTES_MAX;
use crate::link::{Link, Parts};
use crate::wire::{At, Read};

enum Next {
    Wait,
    Stage(Stage),
    Confirmed,
    Done,
}

impl Server {
    pub(super) fn knocks(&mut self, context: &mut Context) -> bool {
        let mut moved = false;
        for mut knock in std::mem::take(&mut self.knocks) {
            let late = context.now - knock.begun > HANDSHAKE_MILLIS;
            let next = match &mut knock.stage {
                _ if late => Err(()),
                Stage::Handshake(stub, input) => self.shake(context, knock.wire, stub, input),
                Stage::Unconfirmed(link) => {
                    confirm(context, knock.wire, &mut link.read, link.control.peer_confirm()).map(
                        |confirmed| {
                            if confirmed { Next::Confirmed } else { Next::Wait }
                        },
                    )
                }
            };
            match (next, knock.stage) {
                (Ok(Next::Wait), stage) => self.knocks.push(Knock { stage, ..knock }),
                (Ok(Next::Stage(stage)), _) => {
                    moved = true;
                    self.knocks.push(Knock { stage, ..knock });
                }
                (Ok(Next::Confirmed), Stage::Unconfirmed(link)) => {
                    moved = true;
                    self.confirmed(context, knock.wire, *link);
                }
                (Ok(Next::Done | Next::Confirmed), _) => moved = true,
                (Err(()), _) => close(context, knock.wire),
            }
        }
        moved
    }

    fn shake(
        &mut self,
        context: &mut Context,
        wire: u64,
        stub: &mut InsecureStub,
        input: &mut Vec<u8>,
    ) -> Result<Next, ()> {
        let shake = context.shake(wire, At::Server, stub, input);
        if let Some(hello) = stub.poll_hello() {
            match self.judge(context, &hello) {
                Ok((accepted, proof)) => stub.accept(accepted, proof).map_err(|_| ())?,
                Err(code) => stub.refuse(code, "no").map_err(|_| ())?,
            }
            // The answer leaves, even if the connection ends behind it.
            context.shake(wire, At::Server, stub, input);
        }
        if let Some(established) = stub.poll_established() {
            return Ok(self.established(context, wire, established, input));
        }
        if stub.is_over() || shake != Shake::Going { Err(()) } else { Ok(Next::Wait) }
    }

    fn judge(
        &mut self,
        context: &mut Context,
        hello: &PeerHello,
    ) -> Result<(Accepted, Option<ProvenResume>), RefusalCode> {
        let accepted = |session_id, epoch| Accepted {
            session_id,
            incarnation: self.incarnation,
            epoch,
            aead: Aead::Aes256Gcm,
            resumed: false,
            message_bytes_max: MESSAGE_BYTES_MAX as u64,
            channels_max: 64,
            agent: "simulation".to_owned(),
        };
        let Some(resume) = &hello.hello.resume else {
            return Ok((accepted(SessionId(context.rng.random()), Epoch(0)), None));
        };
        let session = self.sessions.get_mut(&resume.session_id).ok_or(RefusalCode::SessionUnknown)?;
        let newest = session.links.epoch();
        let (epoch, proof) = session.links.judge(hello).map_err(|_| RefusalCode::SessionUnknown)?;
        if resume.last_epoch != newest && session.acknowledged {
            context.audit.wrong("a fenced epoch was accepted");
        }
        session.highest = epoch;
        Ok((accepted(resume.session_id, epoch), Some(proof)))
    }

    fn established(
        &mut self,
        context: &mut Context,
        wire: u64,
        established: netchan_proto::crypto::Established,
        early: &[u8],
    ) -> Next {
        let (accepted, owner) = (established.accepted.clone(), established.peer);
        let Parts { control, halves, secret } = Parts::new(established, early, context.weather.rekey);
        let (session_id, epoch) = (accepted.session_id, accepted.epoch);
        if !accepted.resumed {
            let session = Session::new(session_id, owner, epoch, secret);
            session.end.control.borrow_mut().attach(control);
            let mut link = Link::new(wire, halves, context.now);
            let begun = link.begin(&session.end);
            self.sessions.insert(session_id, Session { link: Some(link), ..session });
            if let Err(gone) = begun {
                self.unlink(context, session_id, &gone);
            }
            return Next::Done;
        }
        let noted =
            self.sessions.get_mut(&session_id).map(|session| session.links.established(epoch, secret));
        if !matches!(noted, Some(Ok(()))) {
            close(context, wire);
            return Next::Done;
        }
        let (write, read) = halves;
        Next::Stage(Stage::Unconfirmed(Box::new(Unconfirmed { session_id, epoch, control, write, read })))
    }

    /// The client has confirmed another link: it takes the place of the last.
    fn confirmed(&mut self, context: &mut Context, wire: u64, link: Unconfirmed) {
        let Unconfirmed { session_id, epoch, control, write, read } = link;
        self.drain(context, session_id);
        let Some(session) = self.sessions.get_mut(&session_id) else { return close(context, wire) };
        if session.links.commit(epoch).is_err() {
            return close(context, wire);
        }
        if epoch < session.highest {
            context.audit.wrong("a link was committed whose place a later one had taken");
        }
        session.acknowledged = false;
        if let Some(old) = session.link.take() {
            close(context, old.wire);
        }
        session.end.detach();
        session.apart_since = None;
        for hub in &mut self.hubs {
            hub.suspend(session_id, &mut context.audit);
        }
        for desk in &mut self.desks {
            desk.suspend(session_id, true, &mut context.audit);
        }
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        begin(&*session.end, control);
        for hub in &mut self.hubs {
            hub.attach(session_id, &mut context.audit);
        }
        for desk in &mut self.desks {
            desk.attach(session_id, &mut context.audit);
        }
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let mut link = Link::new(wire, (write, read), context.now);
        let begun = link.begin(&session.end);
        session.link = Some(link);
        if let Err(gone) = begun {
            self.unlink(context, session_id, &gone);
        }
    }
}

/// Waits for a resumed link's CONFIRM.
fn confirm(context: &mut Context, wire: u64, read: &mut ReadHalf, expected: &[u8; 48]) -> Result<bool, ()> {
    let Some(link) = context.wires.get_mut(&wire) else { return Err(()) };
    loop {
        match read.await_confirm(expected) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(fault) => {
                context.audit.wrong(format!("server: {fault} before the confirmation"));
                return Err(());
            }
        }
        match link.read(At::Server, read.space(), context.now, &mut context.rng) {
            Read::Bytes(0) => return Ok(false),
            Read::Bytes(count) => read.filled(count),
            Read::End => return Err(()),
        }
    }
}
