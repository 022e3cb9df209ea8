//! One run: a server, its clients, and faults, until everything has come to rest.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::Rng;

use crate::audit::Findings;
use crate::client::Client;
use crate::context::{Context, Counts};
use crate::server::Server;
use crate::wire::{At, Wire};

/// Once faults stop, everything must come to rest within so long (I7).
const CALM_MILLIS: u64 = 30_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the auditor found.
    pub findings: Findings,
    /// What happened.
    pub counts: Counts,
    /// The same for every run of the seed.
    pub hash: u64,
}

/// Runs one seed. A panic counts as a finding.
#[must_use]
pub fn run(seed: u64, verbose: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, verbose).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let note = format!("panic: {}", text.unwrap_or_default());
        let findings = Findings { wrong: 1, notes: vec![note], ..Findings::default() };
        Outcome { findings, counts: Counts::default(), hash: 0 }
    })
}

struct World {
    context: Context,
    server: Server,
    clients: Vec<Client>,
    restarts_left: u32,
}

impl World {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut context = Context::new(seed, verbose);
        let server = Server::new(&mut context);
        let clients = (0..context.rng.random_range(1..4)).map(Client::new).collect();
        let restarts_left = u32::from(context.rng.random_ratio(1, 6));
        Self { context, server, clients, restarts_left }
    }

    fn run(mut self) -> Outcome {
        let ticks = self.context.rng.random_range(100..400);
        for _ in 0..ticks {
            self.context.now += self.context.rng.random_range(1..15);
            self.faults();
            self.tick();
        }
        self.context.calm = true;
        self.context.tell(|| "calm".to_owned());
        let until = self.context.now + CALM_MILLIS;
        while !self.is_done() {
            if self.context.now > until {
                self.stuck();
                break;
            }
            let moved = self.tick();
            let held: Vec<_> =
                self.clients.iter().filter_map(|client| Some(client.resume_from()?.session_id)).collect();
            self.server.give_up_orphans(&mut self.context, &held);
            if self.server.has_sent() && self.clients.iter().all(Client::has_sent) {
                self.clients.iter_mut().for_each(Client::last_call);
            }
            self.context.now += if moved { self.context.rng.random_range(1..5) } else { 100 };
        }
        let hash = self.context.hash() ^ self.context.rng.random::<u64>();
        let (findings, figures) = self.context.audit.finish();
        let mut counts = self.context.counts;
        counts.add("values", figures.values);
        counts.add("C = 0 sends", figures.rendezvous);
        counts.add("withdrawals", figures.withdrawals);
        counts.add("closes", figures.ends);
        counts.add("results", figures.results);
        counts.add("fenced", figures.fenced);
        counts.add("broadcast values", figures.cast_values);
        counts.add("lag", figures.lagged);
        Outcome { findings, counts, hash }
    }

    fn is_done(&self) -> bool {
        self.server.is_done() && self.clients.iter().all(Client::is_done)
    }

    fn stuck(&mut self) {
        let mut text = format!("not at rest after {CALM_MILLIS} ms: {}", self.server.describe());
        for client in self.clients.iter().filter(|client| !client.is_done()) {
            text += "; ";
            text += &client.describe();
        }
        self.context.audit.stuck(text);
    }

    /// Everybody does what can be done now. Says whether anything moved.
    fn tick(&mut self) -> bool {
        let hosted = self.server.hosted();
        (self.context.desks, self.context.casts) = self.server.hosted_services();
        let mut moved = false;
        for client in &mut self.clients {
            let (client_moved, wire) = client.step(&mut self.context, &hosted);
            moved |= client_moved;
            if let Some(wire) = wire {
                self.server.accept(&self.context, wire);
            }
        }
        moved |= self.server.step(&mut self.context);
        self.context.wires.retain(|_, wire| !wire.is_over());
        let sent: u64 = self.context.wires.iter().map(|(wire, link)| wire ^ link.sent()).sum();
        self.context.mark(self.context.now ^ sent << 20);
        moved
    }

    fn faults(&mut self) {
        // What is said last is said over a link that is about to go.
        if std::mem::take(&mut self.context.audit.ending) && self.context.rng.random_ratio(1, 3) {
            let ahead = [1, 60, 200, 400][self.context.rng.random_range(0..4)];
            let ahead = self.context.rng.random_range(0..=ahead);
            self.break_one("cuts at an end", |wire, to| wire.cut_after(to, ahead));
        }
        if self.context.weather.quiet && !self.context.rng.random_ratio(1, 15) {
            return;
        }
        if self.context.rng.random_ratio(1, 60) {
            self.break_one("cuts at once", |wire, _| wire.cut_now());
        }
        if self.context.rng.random_ratio(1, 150) {
            self.break_one("one-way partitions", Wire::stall);
        }
        if self.context.rng.random_ratio(1, 100) {
            let step = self.context.rng.random_range(500..12_000);
            self.context.now += step;
            self.context.counts.add("clock steps", 1);
            self.context.tell(|| format!("the clock goes {step} ms ahead"));
        }
        let which = self.context.rng.random_range(0..self.clients.len());
        if self.context.rng.random_ratio(1, 80) && self.clients[which].is_linked() {
            // Beside a link in good order, or beside another attempt.
            let wire = self.clients[which].dial(&mut self.context);
            self.server.accept(&self.context, wire);
            self.context.counts.add("links renewed", 1);
        }
        if self.context.rng.random_ratio(1, 80) && self.clients[which].resume_from().is_some() {
            for _ in 0..2 {
                let wire = self.clients[which].dial(&mut self.context);
                self.server.accept(&self.context, wire);
            }
            self.context.counts.add("duplicate resumes", 1);
        }
        if self.context.rng.random_ratio(1, 60)
            && let Some(wire) = self.clients[which].dial_stale(&mut self.context)
        {
            self.server.accept(&self.context, wire);
            self.context.counts.add("stale epochs", 1);
        }
        let other = (which + 1) % self.clients.len();
        if other != which
            && self.context.rng.random_ratio(1, 100)
            && let Some(from) = self.clients[other].resume_from()
        {
            let wire = self.clients[which].dial_as_another(&mut self.context, from);
            self.server.accept(&self.context, wire);
            self.context.counts.add("wrong identities", 1);
        }
        if self.restarts_left > 0 && self.context.rng.random_ratio(1, 120) {
            self.restarts_left -= 1;
            self.context.counts.add("restarts", 1);
            self.context.tell(|| "the server is killed and started anew".to_owned());
            let next = Server::new(&mut self.context);
            std::mem::replace(&mut self.server, next).kill(&mut self.context);
        }
    }

    fn break_one(&mut self, how: &'static str, strike: impl FnOnce(&mut Wire, At)) {
        let count = self.context.wires.len();
        if count == 0 {
            return;
        }
        let which = self.context.rng.random_range(0..count);
        let to = if self.context.rng.random_bool(0.5) { At::Client } else { At::Server };
        let Some(wire) = self.context.wires.values_mut().nth(which) else { return };
        if wire.is_cut() || wire.is_stalled() {
            return;
        }
        strike(wire, to);
        self.context.counts.add(how, 1);
    }
}
