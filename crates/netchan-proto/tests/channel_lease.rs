//! A channel into a hosted one: credit is leased, asked for and recalled; nothing stalls and the pool is never exceeded.

mod support;

use std::collections::VecDeque;

use netchan_proto::channel::CloseReason;
use netchan_proto::flow::{Urgency, WindowKind};
use rand::Rng;
use rand::rngs::StdRng;
use support::duct::{Ask, Duct, Shape};
use support::seed::{for_seeds, number, one_in, value};

const CAPACITY: u64 = 4;

struct World {
    duct: Duct,
    pushed: u64,
    reserved: u64,
    handed: u64,
    taken: u64,
    pool: VecDeque<u64>,
    wanted: u64,
    granted: u64,
    recalling: bool,
}

impl World {
    fn new() -> Self {
        let shape = Shape { kind: WindowKind::Lease, window_bytes: 30_000, message_bytes_max: 256 * 1_024 };
        Self {
            duct: Duct::new(shape),
            pushed: 0,
            reserved: 0,
            handed: 0,
            taken: 0,
            pool: VecDeque::new(),
            wanted: 0,
            granted: 0,
            recalling: false,
        }
    }

    /// The server's side: hears, hands over, and grants what is wanted and free.
    fn server(&mut self) {
        for ask in self.duct.asked.drain(..) {
            match ask {
                Ask::Want(limit) => self.wanted = limit,
                Ask::Yielded(limit) => {
                    assert!(limit <= self.granted && limit >= self.handed);
                    (self.granted, self.wanted, self.recalling) = (limit, limit, false);
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some((seq, bytes)) = self.duct.rx.hand_over() {
            assert_eq!((seq, number(&bytes)), (self.handed, self.handed), "in order, once");
            self.pool.push_back(self.handed);
            self.handed += 1;
        }
        if !self.recalling {
            self.granted = self.granted.max(self.wanted.min(self.taken + CAPACITY));
            self.duct.rx.lease(self.granted);
        }
    }

    fn take(&mut self) {
        if self.pool.pop_front().is_some() {
            self.taken += 1;
            self.duct.rx.settle(self.taken);
        }
    }

    fn push(&mut self, rng: &mut StdRng) -> bool {
        let len = if one_in(rng, 10) { rng.random_range(20_000..150_000) } else { rng.random_range(8..60) };
        let bytes = value(self.pushed, len);
        let pushed = self.duct.tx.push(|item| item.extend(&bytes)).is_ok();
        self.pushed += u64::from(pushed);
        pushed
    }

    fn recall(&mut self) {
        if !self.recalling {
            self.duct.rx.recall_lease();
            self.recalling = true;
        }
    }

    fn step(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..100) {
            0..15 => {
                let pushed = self.push(rng);
                if !pushed {
                    self.duct.tx.want(rng.random_range(0..3));
                }
            }
            15..20 => self.duct.tx.want(rng.random_range(0..3)),
            20..24 => self.reserved += u64::from(self.duct.tx.reserve()),
            24..28 if self.reserved > 0 => {
                self.reserved -= 1;
                let bytes = value(self.pushed, 9);
                self.duct.tx.push_reserved(|item| item.extend(&bytes)).expect("it was reserved");
                self.pushed += 1;
            }
            28..30 if self.reserved > 0 => {
                self.reserved -= 1;
                self.duct.tx.release();
            }
            30..42 => self.server(),
            42..52 => self.take(),
            52..55 => self.recall(),
            55..68 => _ = self.duct.write_forward(),
            68..78 => _ = self.duct.deliver_forward().expect("no violation"),
            78..87 => _ = self.duct.write_back(Urgency::Soon),
            87..96 => _ = self.duct.deliver_back().expect("no violation"),
            96 => self.duct.cut(),
            97 => self.duct.pump().expect("no violation"),
            _ => {}
        }
        assert!(self.pushed + self.reserved <= self.taken + CAPACITY, "the capacity law over the pool");
    }

    fn rest(&mut self) {
        for _ in 0..20 {
            self.duct.pump().expect("no violation");
            self.server();
            self.take();
        }
        self.duct.pump().expect("no violation");
    }
}

#[test]
fn flow_7_leases_keep_the_capacity_law_and_never_stall() {
    for_seeds(2_500, |_, rng| {
        let mut world = World::new();
        for _ in 0..rng.random_range(50..400) {
            world.step(rng);
        }
        for _ in 0..world.reserved {
            world.duct.tx.release();
        }
        world.reserved = 0;
        if one_in(rng, 2) {
            world.recall();
        }
        world.rest();
        assert_eq!(world.taken, world.pushed, "all that was sent arrives");
        // A sender that asks is served, whatever was asked and recalled before.
        for _ in 0..3 {
            if world.duct.tx.available() == 0 {
                world.duct.tx.want(1);
                world.rest();
            }
            assert!(world.push(rng), "stalled: {:?} {:?}", world.duct.tx, world.duct.rx);
            world.rest();
        }
        world.duct.tx.close(CloseReason::plain());
        world.rest();
        assert!(world.duct.tx.is_finished() && world.duct.rx.is_finished());
        assert_eq!((world.taken, world.duct.tx.unsettled()), (world.pushed, (0, 0)));
    });
}

#[test]
fn flow_7_an_idle_sender_gives_everything_back() {
    for_seeds(1_000, |_, rng| {
        let mut world = World::new();
        for _ in 0..rng.random_range(50..200) {
            world.step(rng);
        }
        for _ in 0..world.reserved {
            world.duct.tx.release();
        }
        world.duct.tx.want(0);
        world.rest();
        world.recall();
        world.rest();
        assert_eq!(world.duct.tx.available(), 0);
        assert_eq!(world.granted, world.pushed, "the pool has all its credit back");
    });
}

#[test]
fn chan_7_a_hosted_channel_that_stops_counts_what_its_pool_holds() {
    for_seeds(500, |_, rng| {
        let mut world = World::new();
        for _ in 0..rng.random_range(50..200) {
            world.step(rng);
        }
        let mut in_pool = world.handed;
        if one_in(rng, 2) {
            world.duct.rx.stop(CloseReason::plain());
        } else {
            world.duct.tx.reset(CloseReason::plain());
        }
        for _ in 0..world.reserved {
            world.duct.tx.release();
        }
        while !world.duct.tx.is_finished() {
            world.duct.pump().expect("no violation");
            while world.duct.rx.hand_over().is_some() {
                in_pool += 1;
            }
        }
        let mut left = Vec::new();
        world.duct.tx.for_each_unsettled(|value| left.push(number(value.payload.as_slice())));
        assert_eq!(left, (in_pool..world.pushed).collect::<Vec<_>>());
    });
}
