//! What all parts of a run share: time, chance, connections, the auditor, and what is counted.

use std::collections::BTreeMap;

use netchan_proto::crypto::handshake::stub::InsecureStub;
use netchan_proto::crypto::hello::VERSION;
use netchan_proto::crypto::{Fingerprint, Handshake, HandshakeError, Hello, RekeyLimits, ResumeFrom};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::audit::Audit;
use crate::wire::{At, Wire};

/// Faults by kind, and what they led to. A run of many seeds in which one of these stays at zero proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    by_name: BTreeMap<&'static str, u64>,
}

/// Everything that is counted.
pub const KINDS: [&str; 23] = [
    "cuts at a byte",
    "cuts at once",
    "cuts at an end",
    "partial writes",
    "delays",
    "one-way partitions",
    "restarts",
    "clock steps",
    "duplicate resumes",
    "stale epochs",
    "wrong identities",
    "links renewed",
    "resumes",
    "resumes refused",
    "sessions lost",
    "values",
    "C = 0 sends",
    "withdrawals",
    "closes",
    "results",
    "fenced",
    "broadcast values",
    "lag",
];

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, kind: &'static str, count: u64) {
        debug_assert!(KINDS.contains(&kind), "{kind}");
        *self.by_name.entry(kind).or_default() += count;
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        other.by_name.iter().for_each(|(kind, count)| self.add(kind, *count));
    }

    /// How many of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> u64 {
        self.by_name.get(kind).copied().unwrap_or(0)
    }
}

/// How a handshake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shake {
    /// It goes on, or is done.
    Going,
    /// The server said no.
    Refused,
    /// The connection is gone.
    Gone,
}

/// What a run is like, drawn from its seed.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// How long a session lives without a link.
    pub lifetime_millis: u64,
    /// When keys are renewed.
    pub rekey: RekeyLimits,
    /// Some values take several records.
    pub long_values: bool,
    /// One new connection in so many is to be cut at a byte.
    pub cut_one_in: u32,
    /// Hardly anything goes wrong.
    pub quiet: bool,
}

/// What all parts of a run share.
pub struct Context {
    seed: u64,
    /// Milliseconds since the beginning.
    pub now: u64,
    /// Everything random is drawn from here.
    pub rng: StdRng,
    /// The connections there are.
    pub wires: BTreeMap<u64, Wire>,
    next_wire: u64,
    next_chan: u32,
    /// Judges.
    pub audit: Audit,
    /// Counts.
    pub counts: Counts,
    /// What this run is like.
    pub weather: Weather,
    /// No more faults are to come.
    pub calm: bool,
    hash: u64,
    /// Whether what happens is told on standard error.
    pub verbose: bool,
    /// The server hosts deliveries and broadcasts in this run: in one seed of four, so that the others go on as ever.
    pub services: bool,
    /// What it hosts of them now.
    pub desks: Vec<u32>,
    /// The same.
    pub casts: Vec<u32>,
}

impl Context {
    /// The beginning of a run.
    #[must_use]
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rekey = RekeyLimits::default();
        if rng.random_ratio(1, 3) {
            rekey.records = rng.random_range(1..6);
        }
        if rng.random_ratio(1, 5) {
            rekey.millis = rng.random_range(100..3_000);
        }
        // Without a cut for a while, leases grow large, and idle ones must be asked back.
        let quiet = rng.random_ratio(1, 5);
        let weather = Weather {
            lifetime_millis: if rng.random_ratio(1, 4) { 6_000 } else { 300_000 },
            rekey,
            long_values: rng.random_ratio(1, 4),
            cut_one_in: if quiet { 30 } else { rng.random_range(1..5) },
            quiet,
        };
        Self {
            seed,
            now: 1,
            rng,
            wires: BTreeMap::new(),
            next_wire: 0,
            next_chan: 0,
            audit: Audit::default(),
            counts: Counts::default(),
            weather,
            calm: false,
            hash: 0xcbf2_9ce4_8422_2325,
            verbose,
            services: seed % 4 == 2,
            desks: Vec::new(),
            casts: Vec::new(),
        }
    }

    /// A number for a new channel.
    pub fn chan(&mut self, capacity: u64, direct: bool) -> u32 {
        self.next_chan += 1;
        self.audit.channel(self.next_chan, capacity, direct);
        self.next_chan
    }

    /// A new connection, which may be doomed.
    pub fn connect(&mut self) -> u64 {
        self.next_wire += 1;
        let mut wire = Wire::new(&mut self.rng);
        if !self.calm {
            self.counts.add("delays", u64::from(wire.delays()));
            self.counts.add("partial writes", u64::from(wire.slices()));
            wire.set_narrow(self.services);
            if self.rng.random_ratio(1, self.weather.cut_one_in) {
                let to = if self.rng.random_bool(0.5) { At::Client } else { At::Server };
                // Half of them hit the handshake, the commit, or what is said again behind it.
                let most = if self.rng.random_bool(0.5) { 700 } else { 6_000 };
                wire.cut_after(to, self.rng.random_range(0..most));
                self.counts.add("cuts at a byte", 1);
            }
        }
        self.wires.insert(self.next_wire, wire);
        self.next_wire
    }

    /// The handshake of a connection, at the client.
    #[must_use]
    pub fn client_stub(&self, wire: u64, who: Fingerprint, resume: Option<ResumeFrom>) -> InsecureStub {
        let hello = Hello {
            version: VERSION,
            agent: "simulation".to_owned(),
            aes_hardware: true,
            message_bytes_max: crate::end::MESSAGE_BYTES_MAX as u64,
            resume: None,
        };
        InsecureStub::client(&self.stub_seed(wire), who, hello, resume).expect("a small Hello")
    }

    /// The same at the server.
    #[must_use]
    pub fn server_stub(&self, wire: u64) -> InsecureStub {
        InsecureStub::server(&self.stub_seed(wire), Fingerprint([0xee; 32]))
    }

    fn stub_seed(&self, wire: u64) -> Vec<u8> {
        [self.seed.to_be_bytes(), wire.to_be_bytes()].concat()
    }

    /// Moves a handshake on.
    pub fn shake(&mut self, wire: u64, at: At, stub: &mut InsecureStub, input: &mut Vec<u8>) -> Shake {
        let Some(link) = self.wires.get_mut(&wire) else { return Shake::Gone };
        if let Some(bytes) = stub.poll_output() {
            link.write(at, &bytes, self.now, &mut self.rng);
        }
        let mut buffer = [0; 512];
        let alive = match link.read(at, &mut buffer, self.now, &mut self.rng) {
            crate::wire::Read::End => false,
            crate::wire::Read::Bytes(count) => {
                input.extend(&buffer[..count]);
                true
            }
        };
        match stub.handle_input(input) {
            Ok(taken) => _ = input.drain(..taken),
            Err(HandshakeError::Refused { .. }) => return Shake::Refused,
            Err(_) => return Shake::Gone,
        }
        if let (Some(bytes), Some(link)) = (stub.poll_output(), self.wires.get_mut(&wire)) {
            link.write(at, &bytes, self.now, &mut self.rng);
        }
        if alive { Shake::Going } else { Shake::Gone }
    }

    /// Notes a figure of this moment: the same seed gives the same figures.
    pub fn mark(&mut self, figure: u64) {
        self.hash = (self.hash ^ figure).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }

    /// What the whole run looked like.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Tells what happens, if anybody wants to know.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>8} ms  {}", self.now, what());
        }
    }
}
