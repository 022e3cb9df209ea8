//! Programs at both ends that use every kind of channel, and check what they see. Each step does what can be done now, so
//! that the same programs run over any number of cuts.

use std::collections::VecDeque;

use netchan_proto::channel::{CloseReason, SendHalf, Withdrawal};
use netchan_proto::id::ChannelId;
use netchan_proto::session::{Event, Fault};
use netchan_proto::wire::{Mode, OpenFlow};

use super::endpoint::Endpoint;
use super::pair::{Pair, Slices};
use super::seed::{number, value};

fn push(half: &mut SendHalf, number: u64, len: usize) -> u64 {
    half.push(|item| item.extend(&value(number, len))).expect("there was credit").seq
}

/// A direct channel with C ≥ 1: `lens.len()` values one way.
struct Direct {
    name: &'static str,
    capacity: u64,
    lens: Vec<usize>,
    sent: usize,
    taken: u64,
}

impl Direct {
    fn step(&mut self, from: &Endpoint, to: &Endpoint) {
        if let Some(id) = from.id(self.name)
            && from.senders.borrow().contains_key(&id)
        {
            from.send(id, |half| {
                while self.sent < self.lens.len() && half.available() > 0 {
                    push(half, self.sent as u64, self.lens[self.sent]);
                    self.sent += 1;
                }
                if self.sent == self.lens.len() && half.closed().is_none() {
                    half.close(CloseReason::plain());
                }
            });
        }
        assert!(self.sent as u64 <= self.taken + self.capacity, "{}: the capacity law", self.name);
        if let Some(id) = to.id(self.name)
            && to.receivers.borrow().contains_key(&id)
        {
            to.recv(id, |half| {
                if let Some(got) = half.take().map(|payload| number(payload.as_slice())) {
                    assert_eq!(got, self.taken, "{}: in order, once", self.name);
                    self.taken += 1;
                }
            });
        }
    }
}

/// A rendezvous: the client offers, and takes its second offer back once.
#[derive(Default)]
struct Rendezvous {
    count: u64,
    next: u64,
    out: Option<(u64, bool)>,
    withdrew: bool,
    taken: u64,
    hold: u32,
}

impl Rendezvous {
    fn step(&mut self, from: &Endpoint, to: &Endpoint) {
        if let Some(id) = from.id("meet")
            && from.senders.borrow().contains_key(&id)
        {
            self.offer(from, id);
        }
        let Some(id) = to.id("meet").filter(|id| to.receivers.borrow().contains_key(id)) else { return };
        if self.out.is_some_and(|(_, asked)| !asked) && self.next == 1 && !self.withdrew && self.hold < 3 {
            // Time for the offer to arrive, so that its withdrawal meets it there.
            self.hold += 1;
            return;
        }
        to.recv(id, |half| {
            if let Some(got) = half.take().map(|payload| number(payload.as_slice())) {
                assert_eq!(got, self.taken, "meet: in order, once");
                self.taken += 1;
            }
        });
    }

    fn offer(&mut self, from: &Endpoint, id: ChannelId) {
        let answer = from.take_event(|event| match event {
            Event::Withdrawn { id: at, seq, withdrawn } if *at == id => Some((*seq, *withdrawn)),
            _ => None,
        });
        if let (Some((answered, withdrawn)), Some((seq, true))) = (answer, self.out) {
            assert_eq!(answered, seq);
            self.resolve(withdrawn);
        }
        from.send(id, |half| match self.out {
            None if self.next < self.count && half.available() > 0 => {
                self.out = Some((push(half, self.next, 40), false));
            }
            None if self.next == self.count && half.closed().is_none() => half.close(CloseReason::plain()),
            Some((seq, false)) if half.taken() > seq => self.resolve(false),
            Some((seq, false)) if self.next == 1 && !self.withdrew && self.hold >= 2 => {
                self.withdrew = true;
                match half.withdraw(seq) {
                    Withdrawal::Withdrawn => self.resolve(true),
                    Withdrawal::Asked => self.out = Some((seq, true)),
                    Withdrawal::Taken => self.resolve(false),
                }
            }
            _ => {}
        });
    }

    fn resolve(&mut self, withdrawn: bool) {
        self.out = None;
        assert_eq!(
            self.taken,
            self.next + u64::from(!withdrawn),
            "a rendezvous completes when its value was taken"
        );
        self.next += u64::from(!withdrawn);
    }
}

/// A channel out of a hosted one: the server owns the values, the client gives some back once.
struct Demand {
    queue: VecDeque<u64>,
    count: u64,
    taken: u64,
    gave_back: bool,
    waited: u32,
}

impl Demand {
    fn step(&mut self, server: &Endpoint, client: &Endpoint) {
        if let Some(id) = server.id("tasks")
            && server.senders.borrow().contains_key(&id)
        {
            let asked = server.take_event(|event| match event {
                Event::RewindAsked { id: at, limit } if *at == id => Some(*limit),
                _ => None,
            });
            server.send(id, |half| {
                if let Some(limit) = asked {
                    let mut back = Vec::new();
                    half.for_each_unsettled(|value| {
                        assert!(value.seq >= limit, "what was taken stays taken");
                        back.push(number(value.payload.as_slice()));
                    });
                    back.into_iter().rev().for_each(|number| self.queue.push_front(number));
                    half.rewind(limit).expect("it was asked for");
                }
                while half.available() > 0
                    && let Some(number) = self.queue.pop_front()
                {
                    push(half, number, 30);
                }
                if self.taken == self.count && half.closed().is_none() {
                    half.close(CloseReason::plain());
                }
            });
        }
        let Some(id) = client.id("tasks").filter(|id| client.receivers.borrow().contains_key(id)) else {
            return;
        };
        client.recv(id, |half| {
            if !self.gave_back && self.taken == 2 {
                // Two receives wait, and are dropped before they take what comes.
                half.set_waiting(2);
                self.waited += 1;
                if self.waited > 3 {
                    half.set_waiting(0);
                    half.give_back();
                    self.gave_back = true;
                }
                return;
            }
            half.set_waiting(if self.taken < self.count { 1 } else { 0 });
            if half.ready() > 0 {
                half.set_waiting(0);
                let got = half.take().map(|payload| number(payload.as_slice()));
                assert_eq!(got, Some(self.taken), "tasks: in order, once");
                self.taken += 1;
            }
        });
    }
}

/// A channel into a hosted one: the server leases credit, and recalls it once.
#[derive(Default)]
struct Lease {
    count: u64,
    sent: u64,
    pool: VecDeque<u64>,
    handed: u64,
    taken: u64,
    wanted: u64,
    granted: u64,
    recalled: bool,
    recalling: bool,
}

impl Lease {
    const CAPACITY: u64 = 3;

    fn step(&mut self, client: &Endpoint, server: &Endpoint) {
        if let Some(id) = client.id("results")
            && client.senders.borrow().contains_key(&id)
        {
            client.send(id, |half| {
                // A pause, so that there is unused credit to recall.
                let stop = if self.recalled { self.count } else { 3 };
                while self.sent < stop && half.available() > 0 {
                    push(half, self.sent, 25);
                    self.sent += 1;
                }
                if self.sent < stop {
                    half.want(2);
                } else if self.sent == self.count && half.closed().is_none() {
                    half.close(CloseReason::plain());
                }
            });
        }
        let Some(id) = server.id("results").filter(|id| server.receivers.borrow().contains_key(id)) else {
            return;
        };
        while let Some((wanted, yielded)) = server.take_event(|event| match event {
            Event::Wanted { id: at, limit } if *at == id => Some((Some(*limit), None)),
            Event::Yielded { id: at, limit } if *at == id => Some((None, Some(*limit))),
            // A cut answers a recall, and gives back what was not used.
            Event::LeaseTold { id: at, limit } if *at == id => Some((None, Some(*limit))),
            _ => None,
        }) {
            self.wanted = wanted.unwrap_or(self.wanted);
            if let Some(limit) = yielded {
                assert!(limit <= self.granted);
                (self.granted, self.wanted, self.recalling) = (limit, limit, false);
            }
        }
        server.recv(id, |half| {
            if self.taken == 2 && !self.recalled {
                half.recall_lease();
                (self.recalled, self.recalling) = (true, true);
            }
            if !self.recalling {
                self.granted = self.granted.max(self.wanted.min(self.taken + Self::CAPACITY));
                half.lease(self.granted);
            }
            while let Some((seq, bytes)) = half.hand_over() {
                assert_eq!((seq, number(&bytes)), (self.handed, self.handed), "results: in order, once");
                self.pool.push_back(self.handed);
                self.handed += 1;
            }
            if self.pool.pop_front().is_some() {
                self.taken += 1;
                half.settle(self.taken);
            }
        });
        assert!(self.sent <= self.taken + Self::CAPACITY, "results: the capacity law");
    }
}

/// All programs at both ends.
pub struct Apps {
    up: Direct,
    down: Direct,
    meet: Rendezvous,
    tasks: Demand,
    results: Lease,
    opened: bool,
}

impl Apps {
    /// `long` is the length of the one long value.
    pub fn new(long: usize) -> Self {
        let direct = |name, capacity, lens| Direct { name, capacity, lens, sent: 0, taken: 0 };
        Self {
            up: direct("up", 2, vec![10, 20, long, 30, 600, 8]),
            down: direct("down", 1, vec![50, 60, 70]),
            meet: Rendezvous { count: 3, ..Rendezvous::default() },
            tasks: Demand { queue: (0..5).collect(), count: 5, taken: 0, gave_back: false, waited: 0 },
            results: Lease { count: 6, ..Lease::default() },
            opened: false,
        }
    }

    fn step(&mut self, pair: &Pair) {
        let (client, server) = (&pair.client.end, &pair.server.end);
        if !self.opened {
            self.opened = true;
            client.open("up", OpenFlow::OpenerSends);
            client.open("meet", OpenFlow::OpenerSends);
            client.open("tasks", OpenFlow::OpenerReceives);
            client.open("results", OpenFlow::OpenerSends);
            server.open("down", OpenFlow::OpenerSends);
        }
        for end in [client, server] {
            while let Some(open) = end.take_incoming() {
                let (mode, capacity) = match open.name.as_str() {
                    "up" => (Mode::Credit, self.up.capacity),
                    "down" => (Mode::Credit, self.down.capacity),
                    "meet" => (Mode::Rendezvous, 0),
                    "tasks" => (Mode::Demand, 4),
                    _ => (Mode::Lease, Lease::CAPACITY),
                };
                assert!(end.accept(&open, mode, capacity));
            }
        }
        self.up.step(client, server);
        self.down.step(server, client);
        self.meet.step(client, server);
        self.tasks.step(server, client);
        self.results.step(client, server);
    }

    fn is_done(&self, pair: &Pair) -> bool {
        let all_taken = self.up.taken == 6
            && self.down.taken == 3
            && self.meet.taken == 3
            && self.tasks.taken == 5
            && self.results.taken == 6;
        let gone = |end: &Endpoint| end.control.borrow().channel_count() == 0;
        all_taken && gone(&pair.client.end) && gone(&pair.server.end)
    }

    /// Runs until everything has arrived and every channel is closed at both ends.
    pub fn run(&mut self, pair: &mut Pair, slices: &mut Slices<'_>) {
        self.run_with(pair, slices, |_| ());
    }

    /// As [`Apps::run`]; `before` is called before every exchange.
    pub fn run_with(&mut self, pair: &mut Pair, slices: &mut Slices<'_>, before: impl FnMut(&mut Pair)) {
        self.drive(pair, slices, before, |fault| panic!("no fault is expected: {fault}"));
    }

    /// As [`Apps::run`]; `before` is called between writing and reading, and may damage what is on its way.
    pub fn run_with_faults(
        &mut self,
        pair: &mut Pair,
        slices: &mut Slices<'_>,
        before: impl FnMut(&mut Pair),
    ) {
        self.drive(pair, slices, before, |fault| assert!(matches!(fault, Fault::Link(_)), "{fault}"));
    }

    fn drive(
        &mut self,
        pair: &mut Pair,
        slices: &mut Slices<'_>,
        mut before: impl FnMut(&mut Pair),
        on_fault: impl Fn(Fault),
    ) {
        let mut quiet = 0;
        for _ in 0..500 {
            self.step(pair);
            pair.write();
            before(pair);
            match pair.read(slices) {
                // A damaged length can make the reader wait for ever: keepalive cuts the link.
                Ok(moved) => quiet = if moved { 0 } else { quiet + 1 },
                Err(fault) => {
                    on_fault(fault);
                    quiet = 10;
                }
            }
            if quiet == 10 {
                quiet = 0;
                pair.cut();
                pair.attach();
            }
            if self.is_done(pair) {
                return self.check_ends(pair);
            }
        }
        panic!("stalled: {}", self.describe(pair));
    }

    fn check_ends(&self, pair: &Pair) {
        for end in [&pair.client.end, &pair.server.end] {
            assert!(end.senders.borrow().is_empty() && end.receivers.borrow().is_empty());
            for half in end.ended_senders.borrow().values() {
                assert_eq!(half.unsettled(), (0, 0), "{half:?}");
            }
            for half in end.ended_receivers.borrow().values() {
                assert!(half.ended().is_some_and(|reason| reason.code == 0), "{half:?}");
            }
        }
        assert!(self.meet.withdrew && self.tasks.gave_back && self.results.recalled);
    }

    fn describe(&self, pair: &Pair) -> String {
        let counts = (self.up.taken, self.down.taken, self.meet.taken, self.tasks.taken, self.results.taken);
        let ends = [&pair.client.end, &pair.server.end]
            .map(|end| format!("{:#?} {:#?}", end.senders.borrow(), end.receivers.borrow()));
        format!("taken {counts:?}, {} links\n{}\n{}", pair.links, ends[0], ends[1])
    }
}
