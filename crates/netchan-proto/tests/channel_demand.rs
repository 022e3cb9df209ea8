//! A channel out of a hosted one: values leave only for receives that wait, and go back to their owner in order.

mod support;

use std::collections::VecDeque;

use netchan_proto::channel::CloseReason;
use netchan_proto::flow::{Urgency, WindowKind};
use rand::Rng;
use rand::rngs::StdRng;
use support::duct::{Ask, Duct, Shape};
use support::seed::{for_seeds, number, one_in, value};

struct World {
    duct: Duct,
    prefetch: u64,
    /// The owner's values, not on the channel.
    queue: VecDeque<u64>,
    made: u64,
    taken: u64,
    waiting: u64,
    rewind: Option<u64>,
}

impl World {
    fn new(prefetch: u64) -> Self {
        let shape = Shape {
            kind: WindowKind::Demand { prefetch, ahead: 0 },
            window_bytes: 30_000,
            message_bytes_max: 256 * 1_024,
        };
        let (queue, made, taken, waiting) = (VecDeque::new(), 0, 0, 0);
        Self { duct: Duct::new(shape), prefetch, queue, made, taken, waiting, rewind: None }
    }

    fn owner(&mut self, rng: &mut StdRng) {
        for ask in self.duct.asked.drain(..) {
            match ask {
                Ask::Rewind(limit) => {
                    assert!(self.rewind.replace(limit).is_none(), "asked twice for one rewind");
                }
                Ask::Yielded(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if one_in(rng, 3)
            && let Some(limit) = self.rewind.take()
        {
            self.take_back(limit);
        }
        while self.duct.tx.available() > 0
            && self.rewind.is_none()
            && let Some(number) = self.queue.front()
        {
            let len =
                if one_in(rng, 10) { rng.random_range(20_000..150_000) } else { rng.random_range(8..60) };
            let bytes = value(*number, len);
            if self.duct.tx.push(|item| item.extend(&bytes)).is_err() {
                break;
            }
            self.queue.pop_front();
        }
    }

    fn take_back(&mut self, limit: u64) {
        let mut back = Vec::new();
        self.duct.tx.for_each_unsettled(|value| {
            assert!(value.seq >= limit);
            back.push(number(value.payload.as_slice()));
        });
        back.into_iter().rev().for_each(|number| self.queue.push_front(number));
        self.duct.tx.rewind(limit).expect("it was asked for");
    }

    fn take(&mut self) -> bool {
        if self.duct.rx.ready() == 0 {
            return false;
        }
        self.waiting = self.waiting.saturating_sub(1);
        self.duct.rx.set_waiting(self.waiting);
        let got = self.duct.rx.take().map(|payload| number(payload.as_slice()));
        assert_eq!(got, Some(self.taken), "in order, once");
        self.taken += 1;
        true
    }

    fn wait(&mut self, waiting: u64) {
        self.waiting = waiting;
        self.duct.rx.set_waiting(waiting);
        if waiting == 0 {
            self.duct.rx.give_back();
        }
    }

    fn check(&self) {
        // Values leave only for receives that wait or waited.
        assert!(self.duct.tx.committed() <= self.duct.tx.limit());
        let buffered = self.duct.rx.received() - self.duct.rx.taken();
        assert!(buffered <= self.duct.rx.granted() - self.duct.rx.taken());
    }

    fn step(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..100) {
            0..15 => {
                self.queue.push_back(self.made);
                self.made += 1;
            }
            15..25 => self.wait(rng.random_range(0..4)),
            25..30 => self.wait(0),
            30..45 => _ = self.take(),
            45..60 => self.owner(rng),
            60..70 => _ = self.duct.write_forward(),
            70..78 => _ = self.duct.deliver_forward().expect("no violation"),
            78..86 => _ = self.duct.write_back(Urgency::Soon),
            86..95 => _ = self.duct.deliver_back().expect("no violation"),
            95 => self.duct.cut(),
            96 => self.duct.tx.request_report(),
            97 => self.duct.pump().expect("no violation"),
            _ => {}
        }
        self.check();
    }

    /// Both owners act until nothing moves.
    fn rest(&mut self, rng: &mut StdRng) {
        for _ in 0..50 {
            self.duct.pump().expect("no violation");
            self.owner(rng);
        }
        self.duct.pump().expect("no violation");
    }
}

fn run(rng: &mut StdRng) -> World {
    let mut world = World::new([0, 1, 4][rng.random_range(0..3)]);
    for _ in 0..rng.random_range(50..400) {
        world.step(rng);
    }
    world
}

#[test]
fn host_20_values_given_back_are_first_again_and_none_is_lost() {
    for_seeds(1_500, |_, rng| {
        let mut world = run(rng);
        for _ in 0..world.made {
            world.wait(1);
            world.rest(rng);
            if world.taken < world.made {
                assert!(world.take(), "stalled: {:?} {:?}", world.duct.tx, world.duct.rx);
            }
        }
        world.duct.tx.close(CloseReason::plain());
        world.rest(rng);
        assert_eq!(world.taken, world.made);
        assert!(world.duct.tx.is_finished() && world.duct.rx.is_finished());
        assert_eq!(world.duct.tx.unsettled(), (0, 0));
    });
}

#[test]
fn host_20_nothing_stays_with_an_end_where_nobody_waits() {
    for_seeds(1_500, |_, rng| {
        let mut world = run(rng);
        world.wait(0);
        world.rest(rng);
        // A receive that came and went while the request for its value was still here asks for nothing.
        world.wait(1);
        world.wait(0);
        world.rest(rng);
        if world.prefetch == 0 {
            assert_eq!(world.duct.rx.ready(), 0);
            assert_eq!(world.duct.tx.available(), 0);
            assert_eq!(world.duct.tx.unsettled(), (0, 0), "all values are with their owner");
            assert_eq!(world.queue.len() as u64 + world.taken, world.made);
        } else {
            assert!(world.duct.rx.ready() <= world.prefetch + 4);
        }
    });
}

#[test]
fn host_20_a_close_that_meets_a_give_back_ends_the_channel() {
    for_seeds(1_500, |_, rng| {
        let mut world = run(rng);
        world.wait(0);
        if one_in(rng, 2) {
            world.duct.tx.close(CloseReason::plain());
        } else {
            world.duct.tx.reset(CloseReason::plain());
        }
        for _ in 0..rng.random_range(0..30) {
            match rng.random_range(0..12) {
                0..3 => _ = world.duct.write_forward(),
                3..6 => _ = world.duct.deliver_forward().expect("no violation"),
                6..9 => _ = world.duct.write_back(Urgency::Soon),
                9..11 => _ = world.duct.deliver_back().expect("no violation"),
                _ => world.duct.cut(),
            }
            world.owner(rng);
        }
        world.rest(rng);
        while world.take() {}
        world.rest(rng);
        assert!(world.duct.rx.ended().is_some());
        assert!(
            world.duct.tx.is_finished() && world.duct.rx.is_finished(),
            "{:?} {:?}",
            world.duct.tx,
            world.duct.rx
        );
        // Every value is taken, with its owner, or listed as not taken.
        let mut left = Vec::new();
        world.duct.tx.for_each_unsettled(|value| left.push(number(value.payload.as_slice())));
        left.extend(&world.queue);
        assert_eq!(left, (world.taken..world.made).collect::<Vec<_>>());
    });
}
