//! The server: lets clients in, lets them go on with their sessions, hosts channels, and is restarted now and then.

mod door;
mod services;

use std::collections::BTreeMap;
use std::rc::Rc;

use netchan_proto::channel::CloseReason;
use netchan_proto::crypto::Fingerprint;
use netchan_proto::crypto::handshake::stub::InsecureStub;
use netchan_proto::id::{Epoch, Incarnation, SessionId, Side};
use netchan_proto::session::{Event, LinkControlKeys, ReadHalf, ServerLinks, WriteHalf};
use netchan_proto::wire::{Mode, Open, OpenFlow, RefuseCode};
use rand::Rng;

use self::services::{Service, services};
use crate::cast::Cast;
use crate::client::{direct, parse_direct};
use crate::context::Context;
use crate::desk::Desk;
use crate::end::End;
use crate::hub::ports::Port;
use crate::hub::{Hub, LOCAL};
use crate::link::{Gone, Link};
use crate::programs::{RecvProgram, SendProgram};
use crate::wire::At;

/// A handshake, and a confirmation, must be done within so long.
const HANDSHAKE_MILLIS: u64 = 5_000;

struct Session {
    end: Rc<End>,
    links: ServerLinks,
    link: Option<Link>,
    senders: Vec<SendProgram>,
    receivers: Vec<RecvProgram>,
    apart_since: Option<u64>,
    /// The client has shown that it heard of the newest epoch.
    acknowledged: bool,
    /// The highest epoch that was given to a link.
    highest: Epoch,
    opened: u32,
}

enum Stage {
    Handshake(Box<InsecureStub>, Vec<u8>),
    /// A resumed link that the client has not confirmed.
    Unconfirmed(Box<Unconfirmed>),
}

struct Unconfirmed {
    session_id: SessionId,
    epoch: Epoch,
    control: LinkControlKeys,
    write: WriteHalf,
    read: ReadHalf,
}

struct Knock {
    wire: u64,
    stage: Stage,
    begun: u64,
}

/// The server's process.
pub struct Server {
    incarnation: Incarnation,
    sessions: BTreeMap<SessionId, Session>,
    knocks: Vec<Knock>,
    /// What it hosts.
    pub hubs: Vec<Hub>,
    desks: Vec<Desk>,
    casts: Vec<Cast>,
}

impl Server {
    /// A server that has just started.
    pub fn new(context: &mut Context) -> Self {
        let incarnation = Incarnation(context.rng.random());
        let hubs = (0..context.rng.random_range(1..4))
            .map(|_| {
                let capacity = [0, 1, 2, 4, 12][context.rng.random_range(0..5)];
                let chan = context.chan(capacity, false);
                let total = if context.rng.random_bool(0.5) { context.rng.random_range(1..15) } else { 0 };
                Hub::new(chan, capacity, total, context.rng.random_bool(0.4))
            })
            .collect();
        let (desks, casts) = if context.services { services(context) } else { (Vec::new(), Vec::new()) };
        Self { incarnation, sessions: BTreeMap::new(), knocks: Vec::new(), hubs, desks, casts }
    }

    /// The queues of tasks, and the broadcasts, that can be opened.
    #[must_use]
    pub fn hosted_services(&self) -> (Vec<u32>, Vec<u32>) {
        let desks = self.desks.iter().filter(|desk| !desk.is_over()).map(|desk| desk.chan);
        let casts = self.casts.iter().filter(|cast| !cast.is_closed()).map(|cast| cast.chan);
        (desks.collect(), casts.collect())
    }

    /// Number and capacity of what is hosted.
    #[must_use]
    pub fn hosted(&self) -> Vec<(u32, u64)> {
        self.hubs.iter().filter(|hub| !hub.is_closed()).map(|hub| (hub.chan, hub.capacity)).collect()
    }

    /// A connection has come in.
    pub fn accept(&mut self, context: &Context, wire: u64) {
        let stage = Stage::Handshake(Box::new(context.server_stub(wire)), Vec::new());
        self.knocks.push(Knock { wire, stage, begun: context.now });
    }

    /// The process ends, with all that was in it.
    pub fn kill(self, context: &mut Context) {
        for session in self.sessions.values() {
            for program in &session.senders {
                context.audit.sender_died(program.chan, program.sender);
                context.audit.died(program.chan);
            }
            for program in &session.receivers {
                context.audit.died(program.chan);
            }
        }
        for hub in &self.hubs {
            hub.die(&mut context.audit);
        }
        for desk in &self.desks {
            context.audit.services.died(desk.chan);
        }
        for wire in context.wires.values_mut() {
            wire.cut_now();
        }
    }

    /// Whether everything has come to rest.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.hubs.iter().all(Hub::is_finished)
            && self.desks.iter().all(Desk::is_finished)
            && self.casts.iter().all(Cast::is_finished)
            && self.sessions.values().all(|session| {
                session.senders.iter().all(|program| program.done)
                    && session.receivers.iter().all(|program| program.done)
            })
    }

    /// Whether its own programs have sent what they had.
    #[must_use]
    pub fn has_sent(&self) -> bool {
        self.hubs.iter().all(Hub::has_sent)
            && self.sessions.values().flat_map(|session| &session.senders).all(|program| program.done)
    }

    /// What still waits.
    #[must_use]
    pub fn describe(&self) -> String {
        let hubs: Vec<_> = self.hubs.iter().filter(|hub| !hub.is_finished()).map(Hub::describe).collect();
        let programs: Vec<_> = self
            .sessions
            .values()
            .map(|session| {
                let senders: Vec<_> = session.senders.iter().filter(|program| !program.done).collect();
                let receivers: Vec<_> = session.receivers.iter().filter(|program| !program.done).collect();
                let halves = (session.end.senders.borrow(), session.end.receivers.borrow());
                let wire = session.link.as_ref().map(|link| link.wire);
                format!("{wire:?} {senders:?} {receivers:?} {:?} {:?}", halves.0, halves.1)
            })
            .collect();
        let desks: Vec<_> =
            self.desks.iter().filter(|desk| !desk.is_finished()).map(Desk::describe).collect();
        let casts: Vec<_> =
            self.casts.iter().filter(|cast| !cast.is_finished()).map(|cast| cast.chan).collect();
        format!("server: hubs {hubs:?}, desks {desks:?}, broadcasts {casts:?} not finished; {programs:?}")
    }

    /// Everything that can be done now. Says whether anything moved.
    pub fn step(&mut self, context: &mut Context) -> bool {
        let mut moved = self.knocks(context);
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for session_id in ids {
            moved |= self.step_session(context, session_id);
        }
        for hub in &mut self.hubs {
            moved |= hub.step(context.now, &mut context.audit, &mut context.rng, context.calm);
            hub.check_capacity(&mut context.audit);
        }
        for desk in &mut self.desks {
            moved |= desk.step(context.now, &mut context.audit, &mut context.rng, context.calm);
        }
        for cast in &mut self.casts {
            moved |= cast.step(&mut context.audit, &mut context.rng, context.calm);
        }
        for session in self.sessions.values_mut() {
            if let Some(link) = &mut session.link
                && let Some(wire) = context.wires.get_mut(&link.wire)
            {
                moved |= link.write(&session.end, wire, At::Server, context.now, &mut context.rng);
            }
        }
        moved
    }

    fn unlink(&mut self, context: &mut Context, session_id: SessionId, gone: &Gone) {
        if let Gone::Fault(fault) = gone {
            context.audit.wrong(format!("server: {fault}"));
        }
        self.drain(context, session_id);
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        if let Some(link) = session.link.take() {
            context.tell(|| format!("server: link {} is gone: {gone:?}", link.wire));
            close(context, link.wire);
        }
        session.end.detach();
        session.apart_since = Some(context.now);
        for hub in &mut self.hubs {
            hub.suspend(session_id, &mut context.audit);
        }
        for desk in &mut self.desks {
            desk.suspend(session_id, false, &mut context.audit);
        }
    }

    fn step_session(&mut self, context: &mut Context, session_id: SessionId) -> bool {
        let mut moved = false;
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        if let Some(link) = &mut session.link
            && let Some(wire) = context.wires.get_mut(&link.wire)
        {
            match link.read(&session.end, wire, At::Server, context.now, &mut context.rng) {
                Ok(read) => moved |= read,
                Err(gone) => {
                    moved = true;
                    self.unlink(context, session_id, &gone);
                }
            }
        }
        let Some(session) = self.sessions.get_mut(&session_id) else { return moved };
        let lifetime = context.weather.lifetime_millis;
        if session.apart_since.is_some_and(|since| context.now - since > lifetime) {
            self.lose(context, session_id);
            return true;
        }
        let end = Rc::clone(&session.end);
        self.drain(context, session_id);
        let Some(session) = self.sessions.get_mut(&session_id) else { return moved };
        if !context.calm && session.opened < 2 && context.rng.random_ratio(1, 40) {
            session.opened += 1;
            let capacity = [0, 1, 3][context.rng.random_range(0..3)];
            let chan = context.chan(capacity, true);
            let id = end.open(&direct(chan, capacity, 0), OpenFlow::OpenerSends, capacity, 0);
            let total = context.rng.random_range(1..8);
            let long = context.weather.long_values;
            session.senders.push(SendProgram::new(chan, LOCAL, id, total, long, true));
        }
        for program in &mut session.senders {
            moved |= program.step(&end, &mut context.audit, &mut context.rng, context.calm);
        }
        for program in &mut session.receivers {
            moved |= program.step(&end, &mut context.audit, &mut context.rng, context.calm);
        }
        if let Err(excess) = end.check_memory() {
            context.audit.wrong(format!("server: {excess}"));
        }
        moved
    }

    /// Does what follows from what the session has reported: at once in a shell, so before anything else happens to it.
    fn drain(&mut self, context: &mut Context, session_id: SessionId) {
        let Some(end) = self.sessions.get(&session_id).map(|session| Rc::clone(&session.end)) else { return };
        for event in end.take_events() {
            context.tell(|| format!("server, {session_id}: {event:?}"));
            self.handle(context, session_id, &end, event);
        }
    }

    /// Gives up sessions that no client holds any more, as their lifetime would.
    pub fn give_up_orphans(&mut self, context: &mut Context, held: &[SessionId]) {
        let orphans: Vec<_> = self.sessions.keys().filter(|id| !held.contains(id)).copied().collect();
        for session_id in orphans {
            if self.sessions.get(&session_id).is_some_and(|session| session.link.is_none()) {
                self.lose(context, session_id);
            }
        }
    }

    fn handle(&mut self, context: &mut Context, session_id: SessionId, end: &Rc<End>, event: Event) {
        for hub in &mut self.hubs {
            if hub.handle(session_id, &event, &mut context.audit) {
                return;
            }
        }
        if self.desks.iter_mut().any(|desk| desk.handle(session_id, &event, &mut context.audit))
            || self.casts.iter_mut().any(|cast| cast.handle(session_id, &event))
        {
            return;
        }
        match event {
            Event::Acknowledged => {
                if let Some(session) = self.sessions.get_mut(&session_id) {
                    let epoch = session.links.epoch();
                    session.links.acknowledged(epoch);
                    session.acknowledged = true;
                }
            }
            Event::Incoming(open) => self.incoming(context, session_id, end, &open),
            Event::Refused(refuse) => {
                if let Some(session) = self.sessions.get_mut(&session_id) {
                    session.senders.iter_mut().filter(|p| p.id == refuse.id).for_each(|p| p.done = true);
                }
            }
            _ => {}
        }
    }

    fn incoming(&mut self, context: &mut Context, session_id: SessionId, end: &Rc<End>, open: &Open) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        let refuse = |code| {
            _ = end.control.borrow_mut().refuse(open.id, code, "no".to_owned());
        };
        if let Some((chan, capacity)) = parse_direct(&open.name) {
            let mode = if capacity == 0 { Mode::Rendezvous } else { Mode::Credit };
            if !end.accept(open, mode, capacity) {
                return;
            }
            if open.flow == OpenFlow::OpenerSends {
                let stop_after = context.rng.random_ratio(1, 6).then(|| context.rng.random_range(0..5));
                session.receivers.push(RecvProgram::new(chan, LOCAL, open.id, stop_after));
            } else {
                let total = open.name.rsplit(':').next().and_then(|total| total.parse().ok()).unwrap_or(0);
                let long = context.weather.long_values;
                session.senders.push(SendProgram::new(chan, LOCAL, open.id, total, long, true));
            }
            return;
        }
        if let Some(service) = Service::of(open) {
            if !self.open_service(context, session_id, end, open, &service) {
                refuse(RefuseCode::NotAvailable);
            }
            return;
        }
        let named = open.name.strip_prefix("h:").and_then(|rest| rest.split_once(':'));
        let Some((chan, who)) = named else {
            if open.name == "refused" {
                refuse(RefuseCode::Declined);
            }
            return;
        };
        let hub = self.hubs.iter_mut().find(|hub| hub.chan.to_string() == chan && !hub.is_closed());
        let Some(hub) = hub else { return refuse(RefuseCode::NotAvailable) };
        if open.flow == OpenFlow::OpenerSends {
            let mode = if hub.capacity == 0 { Mode::Rendezvous } else { Mode::Lease };
            if end.accept(open, mode, hub.capacity) {
                let port = Port { end: Rc::clone(end), id: open.id };
                hub.add_sender(session_id, port, who.parse().unwrap_or(0), &mut context.audit);
            }
        } else if end.accept(open, Mode::Demand, hub.capacity) {
            let port = Port { end: Rc::clone(end), id: open.id };
            hub.add_receiver(session_id, port, who.parse().unwrap_or(0), open, &mut context.audit);
        }
    }

    /// A session is given up.
    fn lose(&mut self, context: &mut Context, session_id: SessionId) {
        let Some(mut session) = self.sessions.remove(&session_id) else { return };
        context.tell(|| "server: a session is given up".to_owned());
        for program in &mut session.senders {
            let mut senders = session.end.senders.borrow_mut();
            match senders.get_mut(&program.id) {
                Some(half) => {
                    let closed = half.peer_closed().is_some();
                    program.settle_up(half, &mut context.audit, closed);
                }
                None => {
                    if let Some(half) = session.end.ended_senders.borrow_mut().get_mut(&program.id) {
                        program.settle_up(half, &mut context.audit, true);
                    }
                }
            }
        }
        for program in &mut session.receivers {
            let mut receivers = session.end.receivers.borrow_mut();
            program.lose(receivers.get_mut(&program.id), &mut context.audit);
        }
        for hub in &mut self.hubs {
            hub.lose(session_id, &mut context.audit);
        }
        for desk in &mut self.desks {
            desk.lose(session_id, &mut context.audit);
        }
        self.casts.iter_mut().for_each(|cast| cast.lose(session_id));
        let goodbye = CloseReason::plain();
        session.end.control.borrow_mut().go_away(goodbye.code, goodbye.reason);
    }
}

impl Session {
    fn new(
        session_id: SessionId,
        owner: Fingerprint,
        epoch: Epoch,
        secret: netchan_proto::crypto::ResumeSecret,
    ) -> Self {
        Self {
            end: Rc::new(End::new(Side::Server)),
            links: ServerLinks::new(session_id, owner, epoch, secret),
            link: None,
            senders: Vec::new(),
            receivers: Vec::new(),
            apart_since: None,
            acknowledged: false,
            highest: epoch,
            opened: 0,
        }
    }
}

fn close(context: &mut Context, wire: u64) {
    if let Some(wire) = context.wires.get_mut(&wire) {
        wire.close(At::Server);
    }
}
