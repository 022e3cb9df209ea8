//! Every order of events for two receivers, three values and two cuts, and not only those that seeds come across.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::limits::ALONE_AFTER_MILLIS;

const VALUES: u64 = 3;
/// A quarter of a million states; without optimisation, a sixth of them.
const CUTS: usize = if cfg!(debug_assertions) { 1 } else { 2 };
const AHEAD: u64 = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    Send,
    /// Its program receives, or waits if nothing is there.
    Recv(usize),
    Arrive(usize),
    /// It says what it has taken.
    Report(usize),
    /// It gives back what it was asked for.
    Answer(usize),
    Cut(usize),
    Resume(usize),
    /// So much time passes that a receiver may be alone.
    Pass,
}

#[derive(Debug, Default)]
struct Client {
    /// What has left for it and was not taken, and how many of those have arrived.
    left: VecDeque<u64>,
    arrived: usize,
    waits: bool,
    taken: Vec<u64>,
    reported: usize,
    called_back: bool,
    cut: bool,
}

impl Client {
    fn take(&mut self) {
        self.taken.extend(self.left.pop_front());
        self.arrived -= 1;
    }
}

#[derive(Debug)]
struct World {
    hosted: Hosted,
    clients: [Client; 2],
    sent: u64,
    cuts: usize,
    passed: bool,
}

const KEYS: [ReceiverKey; 2] = [X, Y];

impl World {
    fn after(steps: &[Step]) -> Self {
        let hosted = channel(VALUES);
        let mut world = Self { hosted, clients: Default::default(), sent: 0, cuts: 0, passed: false };
        world.allow_ahead();
        steps.iter().for_each(|step| world.take(*step));
        world
    }

    fn allow_ahead(&mut self) {
        for (client, key) in self.clients.iter().zip(KEYS) {
            self.hosted.send_ahead(key, if client.cut { 0 } else { AHEAD });
        }
        self.absorb();
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.sent < VALUES {
            steps.push(Step::Send);
        }
        if !self.passed {
            steps.push(Step::Pass);
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mut may = |allowed: bool, step: Step| steps.extend(allowed.then_some(step));
            may(!client.waits, Step::Recv(at));
            may(!client.cut && client.arrived < client.left.len(), Step::Arrive(at));
            may(!client.cut && client.reported < client.taken.len(), Step::Report(at));
            may(!client.cut && client.called_back, Step::Answer(at));
            may(!client.cut && self.cuts < CUTS, Step::Cut(at));
            may(client.cut, Step::Resume(at));
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send => {
                send(&mut self.hosted, A, self.sent..self.sent + 1);
                self.sent += 1;
            }
            Step::Recv(at) if self.clients[at].arrived > 0 => self.clients[at].take(),
            Step::Recv(at) => {
                self.clients[at].waits = true;
                self.tell(at);
            }
            Step::Arrive(at) => {
                let client = &mut self.clients[at];
                client.arrived += 1;
                if std::mem::take(&mut client.waits) {
                    client.take();
                }
            }
            Step::Report(at) => self.tell(at),
            Step::Answer(at) => {
                let (client, key) = (&mut self.clients[at], KEYS[at]);
                client.called_back = false;
                client.left.clear();
                client.arrived = 0;
                self.hosted.send_ahead(key, 0);
                self.hosted.cancel_demand(key, u64::MAX);
                self.report(at);
                self.hosted.give_back(KEYS[at], 0).unwrap();
                self.absorb();
                self.tell(at);
            }
            Step::Cut(at) => {
                self.cuts += 1;
                let (client, key) = (&mut self.clients[at], KEYS[at]);
                (client.cut, client.called_back) = (true, false);
                self.hosted.set_away(key, true);
                self.hosted.set_ahead(key, 0);
                self.hosted.cancel_demand(key, u64::MAX);
                let left = self.hosted.in_flight_of(key) as u64 - self.hosted.unsent_of(key);
                self.hosted.give_back(key, left).unwrap();
            }
            Step::Resume(at) => {
                self.clients[at].cut = false;
                self.hosted.set_away(KEYS[at], false);
                self.absorb();
                self.tell(at);
            }
            Step::Pass => {
                self.passed = true;
                self.hosted.advance(2 * ALONE_AFTER_MILLIS);
                self.allow_ahead();
            }
        }
        self.absorb();
    }

    fn report(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let newly = client.taken.len() - std::mem::replace(&mut client.reported, client.taken.len());
        self.hosted.taken(KEYS[at], newly as u64).unwrap();
    }

    /// It says what it has taken, and what it waits for.
    fn tell(&mut self, at: usize) {
        if self.clients[at].cut {
            return;
        }
        self.report(at);
        let Client { taken, waits, .. } = &self.clients[at];
        let wanted = taken.len() as u64 + u64::from(*waits);
        self.hosted.want_values_up_to(KEYS[at], wanted).unwrap();
        self.absorb();
    }

    fn absorb(&mut self) {
        while let Some(effect) = self.hosted.poll_effect() {
            let at = |key: ReceiverKey| usize::from(key == Y);
            match effect {
                Effect::Deliver { to } => {
                    let values = sent(&mut self.hosted, to);
                    let client = &mut self.clients[at(to)];
                    assert!(values.is_empty() || !client.cut, "nothing leaves for one that is away");
                    client.left.extend(values.iter().map(|item| item.seq));
                }
                Effect::CallBack { from } => self.clients[at(from)].called_back = true,
                _ => {}
            }
        }
    }

    fn check(&self, steps: &[Step]) {
        let mut all: Vec<u64> = self.clients.iter().flat_map(|client| client.taken.iter().copied()).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "taken twice: {steps:?}");
        // What was with a receiver whose link was gone is its own meanwhile: others may have newer values before it comes back.
        let in_order = self.clients.iter().all(|client| client.taken.is_sorted());
        assert!(in_order || self.cuts > 0, "out of order: {steps:?}");
        if self.steps().is_empty() {
            assert_eq!(all.len() as u64, VALUES, "stuck: {steps:?}");
        }
    }

    fn fingerprint(&self) -> u64 {
        hash_of(&format!("{self:?}"))
    }

    /// What programs and their clients see of it, whatever the policy keeps besides.
    fn visible(&self) -> u64 {
        let Self { clients, sent, cuts, passed, .. } = self;
        hash_of(&format!("{clients:?} {sent} {cuts} {passed}"))
    }
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn host_24_two_receivers_three_values_and_two_cuts_in_every_order() {
    let (mut seen, mut visible, mut open) = (HashSet::new(), HashSet::new(), vec![Vec::new()]);
    while let Some(steps) = open.pop() {
        let world = World::after(&steps);
        if !seen.insert(world.fingerprint()) {
            continue;
        }
        world.check(&steps);
        visible.insert(world.visible());
        for step in world.steps() {
            open.push(steps.iter().copied().chain([step]).collect());
        }
    }
    let (least, exactly) = if CUTS == 2 { (240_000, 7_746) } else { (40_000, 3_316) };
    assert!(seen.len() > least, "{} states: that was not every order", seen.len());
    assert_eq!(visible.len(), exactly, "what there is to be seen in all orders");
}
