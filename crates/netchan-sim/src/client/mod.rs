//! A client: dials, goes on with its session over new links, and runs its programs.

mod opening;

use std::rc::Rc;

use netchan_proto::crypto::handshake::stub::InsecureStub;
use netchan_proto::crypto::{Fingerprint, Handshake, ResumeFrom};
use netchan_proto::id::Side;
use netchan_proto::session::{ClientLinks, Event, Host};
use netchan_proto::wire::Mode;
use rand::Rng;

pub use self::opening::{direct, parse_direct};
use crate::context::{Context, Shake};
use crate::end::End;
use crate::link::{Gone, Link, Parts};
use crate::programs::{RecvProgram, SendProgram};
use crate::services::{HolderProgram, SubscriberProgram};
use crate::wire::At;

/// An attempt to connect is given up after so long.
const ATTEMPT_MILLIS: u64 = 5_000;

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The session's link: its first, or the next.
    Link,
    /// An epoch that has been fenced: the server judges whether it may still be accepted.
    Stale,
    /// It must be refused.
    MustFail,
}

struct Attempt {
    wire: u64,
    stub: InsecureStub,
    input: Vec<u8>,
    purpose: Purpose,
    resumes: Option<netchan_proto::id::Epoch>,
    begun: u64,
}

/// A client.
pub struct Client {
    /// Which one.
    pub index: u32,
    who: Fingerprint,
    end: Rc<End>,
    links: Option<ClientLinks>,
    link: Option<Link>,
    attempts: Vec<Attempt>,
    senders: Vec<SendProgram>,
    receivers: Vec<RecvProgram>,
    holders: Vec<HolderProgram>,
    subscribers: Vec<SubscriberProgram>,
    /// Channels whose lease is wanted back.
    recalled: Vec<netchan_proto::id::ChannelId>,
    /// Opened, and to be given up unanswered.
    abandons: Vec<netchan_proto::id::ChannelId>,
    /// What it could have resumed from before.
    stale: Option<ResumeFrom>,
    dial_at: u64,
    tries: u32,
    apart_since: Option<u64>,
    /// Sessions so far; the programs of each are known by its number.
    generation: u32,
    opened: u32,
}

impl Client {
    /// A client that has not dialed yet.
    #[must_use]
    pub fn new(index: u32) -> Self {
        Self {
            index,
            who: Fingerprint([index as u8 + 1; 32]),
            end: Rc::new(End::new(Side::Client)),
            links: None,
            link: None,
            attempts: Vec::new(),
            senders: Vec::new(),
            receivers: Vec::new(),
            holders: Vec::new(),
            subscribers: Vec::new(),
            recalled: Vec::new(),
            abandons: Vec::new(),
            stale: None,
            dial_at: 0,
            tries: 0,
            apart_since: None,
            generation: 0,
            opened: 0,
        }
    }

    /// Whether every program has come to its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.senders.iter().all(|program| program.done)
            && self.receivers.iter().all(|program| program.done)
            && self.holders.iter().all(|program| program.done)
            && self.subscribers.iter().all(|program| program.done)
    }

    /// Whether every sender is done but those that stay until then.
    #[must_use]
    pub fn has_sent(&self) -> bool {
        self.senders.iter().all(|program| program.done || program.lingers)
    }

    /// Everyone has sent: nobody stays.
    pub fn last_call(&mut self) {
        self.senders.iter_mut().for_each(|program| program.lingers = false);
    }

    /// What its programs still wait for.
    #[must_use]
    pub fn describe(&self) -> String {
        let senders: Vec<_> = self.senders.iter().filter(|program| !program.done).collect();
        let receivers: Vec<_> = self.receivers.iter().filter(|program| !program.done).collect();
        let link = self.link.as_ref().map(|link| link.wire);
        let halves = (self.end.senders.borrow(), self.end.receivers.borrow());
        let holders: Vec<_> = self.holders.iter().filter(|program| !program.done).collect();
        let subscribers: Vec<_> = self.subscribers.iter().filter(|program| !program.done).collect();
        format!(
            "client {} on {link:?}: {senders:?} {receivers:?} {holders:?} {subscribers:?} {:?} {:?}",
            self.index, halves.0, halves.1
        )
    }

    fn name(&self) -> u32 {
        self.index * 1_000 + self.generation
    }

    /// What it would resume from now.
    #[must_use]
    pub fn resume_from(&self) -> Option<ResumeFrom> {
        self.links.as_ref().map(ClientLinks::resume_from)
    }

    /// Whether it has a link.
    #[must_use]
    pub const fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// The connection of its link.
    #[must_use]
    pub fn wire(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.wire)
    }

    /// Connects again, whatever link there is. Returns the connection.
    pub fn dial(&mut self, context: &mut Context) -> u64 {
        let resume = self.resume_from();
        self.attempt(context, resume, Purpose::Link, self.who)
    }

    /// Asks to go on from an epoch that a newer link has fenced.
    pub fn dial_stale(&mut self, context: &mut Context) -> Option<u64> {
        let stale = self.stale.clone()?;
        Some(self.attempt(context, Some(stale), Purpose::Stale, self.who))
    }

    /// Asks to go on with another client's session.
    pub fn dial_as_another(&mut self, context: &mut Context, from: ResumeFrom) -> u64 {
        self.attempt(context, Some(from), Purpose::MustFail, self.who)
    }

    fn attempt(
        &mut self,
        context: &mut Context,
        resume: Option<ResumeFrom>,
        purpose: Purpose,
        who: Fingerprint,
    ) -> u64 {
        let wire = context.connect();
        let resumes = resume.as_ref().map(|resume| resume.last_epoch);
        let stub = context.client_stub(wire, who, resume);
        let begun = context.now;
        self.attempts.push(Attempt { wire, stub, input: Vec::new(), purpose, resumes, begun });
        wire
    }

    /// Everything that can be done now. Says whether anything moved, and which connection is new.
    pub fn step(&mut self, context: &mut Context, hubs: &[(u32, u64)]) -> (bool, Option<u64>) {
        let mut moved = self.handshakes(context);
        moved |= self.read(context);
        self.handle_events(context);
        self.open_channels(context, hubs);
        for program in &mut self.senders {
            moved |= program.step(&self.end, &mut context.audit, &mut context.rng, context.calm);
        }
        for program in &mut self.receivers {
            moved |= program.step(&self.end, &mut context.audit, &mut context.rng, context.calm);
        }
        for program in &mut self.holders {
            moved |= program.step(&self.end, &mut context.audit, &mut context.rng, context.calm);
        }
        for program in &mut self.subscribers {
            moved |= program.step(&self.end, &mut context.audit, &mut context.rng, context.calm);
        }
        // They have had their moment to use what they were granted.
        for id in std::mem::take(&mut self.recalled) {
            _ = self.end.with_send(id, |half| half.answer_recall());
        }
        if let Err(excess) = self.end.check_memory() {
            context.audit.wrong(format!("client {}: {excess}", self.index));
        }
        if let Some(link) = &mut self.link
            && let Some(wire) = context.wires.get_mut(&link.wire)
        {
            moved |= link.write(&self.end, wire, At::Client, context.now, &mut context.rng);
        }
        (moved, self.redial(context))
    }

    fn redial(&mut self, context: &mut Context) -> Option<u64> {
        if self.link.is_some() {
            return None;
        }
        let apart = *self.apart_since.get_or_insert(context.now);
        if self.links.is_some() && context.now - apart > context.weather.lifetime_millis {
            self.lose(context, "its lifetime is over");
        }
        if self.attempts.iter().any(|attempt| attempt.purpose == Purpose::Link) || context.now < self.dial_at
        {
            return None;
        }
        let most = (50 << self.tries.min(5)).min(1_000);
        self.tries += 1;
        self.dial_at = context.now + context.rng.random_range(1..=most);
        Some(self.dial(context))
    }

    fn handshakes(&mut self, context: &mut Context) -> bool {
        let mut moved = false;
        let mut done = Vec::new();
        for (at, attempt) in self.attempts.iter_mut().enumerate() {
            let before = attempt.input.len();
            let shake = context.shake(attempt.wire, At::Client, &mut attempt.stub, &mut attempt.input);
            moved |= attempt.input.len() != before;
            let late = context.now - attempt.begun > ATTEMPT_MILLIS;
            if let Some(established) = attempt.stub.poll_established() {
                done.push((at, Ok(established)));
            } else if shake != Shake::Going || late {
                done.push((at, Err(shake == Shake::Refused)));
            }
        }
        for (at, established) in done.into_iter().rev() {
            let attempt = self.attempts.remove(at);
            match established {
                Ok(established) if attempt.purpose == Purpose::Link => {
                    moved = true;
                    self.established(context, &attempt, established);
                }
                Ok(_) if attempt.purpose == Purpose::Stale => close(context, attempt.wire),
                Ok(_) => context.audit.wrong("a resume that must be refused was let in"),
                Err(refused) => {
                    close(context, attempt.wire);
                    self.not_established(context, &attempt, refused);
                }
            }
        }
        moved
    }

    fn not_established(&mut self, context: &mut Context, attempt: &Attempt, refused: bool) {
        if !refused {
            return;
        }
        context.counts.add("resumes refused", 1);
        // Another attempt may have gone through meanwhile: then this one was refused for its old epoch.
        let current =
            attempt.resumes.is_some() && attempt.resumes == self.links.as_ref().map(ClientLinks::epoch);
        if attempt.purpose == Purpose::Link && current && self.link.is_none() {
            self.lose(context, "the server does not know it");
        }
    }

    /// A Welcome is here: the old link is not used from now on, and the new one is confirmed.
    fn established(
        &mut self,
        context: &mut Context,
        attempt: &Attempt,
        established: netchan_proto::crypto::Established,
    ) {
        let accepted = established.accepted.clone();
        if attempt.resumes.is_some() != self.links.is_some() {
            // The session it was for is lost, or set up, meanwhile.
            return close(context, attempt.wire);
        }
        let parts = Parts::new(established, &attempt.input, context.weather.rekey);
        match &mut self.links {
            Some(links) => {
                if links.established(&accepted, parts.secret.clone()).is_err() {
                    // Of two attempts side by side the later one holds.
                    return close(context, attempt.wire);
                }
                context.counts.add("resumes", 1);
            }
            None => self.links = Some(ClientLinks::new(&accepted, parts.secret.clone())),
        }
        context
            .tell(|| format!("client {}: link {} has epoch {}", self.index, attempt.wire, accepted.epoch.0));
        if let Some(old) = self.link.take() {
            close(context, old.wire);
        }
        self.end.detach();
        self.end.control.borrow_mut().attach(parts.control);
        self.apart_since = None;
        self.tries = 0;
        let mut link = Link::new(attempt.wire, parts.halves, context.now);
        let begun = link.begin(&self.end);
        self.link = Some(link);
        if let Err(gone) = begun {
            self.unlink(context, &gone);
        }
    }

    fn read(&mut self, context: &mut Context) -> bool {
        let Some(link) = &mut self.link else { return false };
        let Some(wire) = context.wires.get_mut(&link.wire) else { return false };
        match link.read(&self.end, wire, At::Client, context.now, &mut context.rng) {
            Ok(moved) => moved,
            Err(gone) => {
                self.unlink(context, &gone);
                true
            }
        }
    }

    fn unlink(&mut self, context: &mut Context, gone: &Gone) {
        if let Gone::Fault(fault) = gone {
            context.audit.wrong(format!("client {}: {fault}", self.index));
        }
        if let Some(link) = self.link.take() {
            context.tell(|| format!("client {}: link {} is gone: {gone:?}", self.index, link.wire));
            close(context, link.wire);
        }
        self.end.detach();
        self.dial_at = context.now + context.rng.random_range(0..50);
    }

    fn handle_events(&mut self, context: &mut Context) {
        for event in self.end.take_events() {
            context.tell(|| format!("client {}: {event:?}", self.index));
            match event {
                Event::Confirmed => {
                    let before = self.resume_from();
                    if let Some(links) = &mut self.links {
                        let epoch = links.epoch();
                        links.confirmed();
                        if links.epoch() != epoch {
                            self.stale = before;
                        }
                    }
                }
                Event::Incoming(open) => {
                    let Some((chan, capacity)) = parse_direct(&open.name) else { continue };
                    let mode = if capacity == 0 { Mode::Rendezvous } else { Mode::Credit };
                    if self.end.accept(&open, mode, capacity) {
                        let name = self.name();
                        self.receivers.push(RecvProgram::new(chan, name, open.id, None));
                    }
                }
                Event::Refused(refuse) => {
                    let id = refuse.id;
                    self.senders.iter_mut().filter(|p| p.id == id).for_each(|program| program.done = true);
                    self.receivers.iter_mut().filter(|p| p.id == id).for_each(|program| program.done = true);
                    self.holders.iter_mut().for_each(|program| program.refused(id));
                    self.subscribers.iter_mut().for_each(|program| program.refused(id));
                }
                Event::RecallDeferred(id) => self.recalled.push(id),
                _ => {}
            }
        }
        if !self.abandons.is_empty() && context.rng.random_ratio(1, 20) {
            let id = self.abandons.remove(0);
            _ = self.end.control.borrow_mut().abandon(id);
        }
    }

    /// The session is lost: what is not known taken comes back, and another one begins.
    fn lose(&mut self, context: &mut Context, why: &str) {
        context.tell(|| format!("client {}: session lost: {why}", self.index));
        context.counts.add("sessions lost", 1);
        for program in &mut self.senders {
            let mut senders = self.end.senders.borrow_mut();
            match senders.get_mut(&program.id) {
                Some(half) => {
                    let closed = half.peer_closed().is_some();
                    program.settle_up(half, &mut context.audit, closed);
                }
                None => match self.end.ended_senders.borrow_mut().get_mut(&program.id) {
                    Some(half) => program.settle_up(half, &mut context.audit, true),
                    // Never answered: nothing was sent.
                    None => program.done = true,
                },
            }
        }
        for program in &mut self.receivers {
            let mut receivers = self.end.receivers.borrow_mut();
            program.lose(receivers.get_mut(&program.id), &mut context.audit);
        }
        self.holders.iter_mut().for_each(HolderProgram::lose);
        for program in &mut self.subscribers {
            program.lose(&self.end, &mut context.audit);
        }
        self.holders.clear();
        self.subscribers.clear();
        self.end = Rc::new(End::new(Side::Client));
        self.links = None;
        self.stale = None;
        self.abandons.clear();
        self.senders.clear();
        self.receivers.clear();
        self.generation += 1;
        self.opened = 0;
        self.apart_since = Some(context.now);
    }
}

fn close(context: &mut Context, wire: u64) {
    if let Some(wire) = context.wires.get_mut(&wire) {
        wire.close(At::Client);
    }
}
