//! Both halves of a direct channel against a queue, for every capacity from 0 to 8, over cuts and odd deliveries.
//!
//! The model: values pushed and not withdrawn come out in order, once. After every step: completed sends − taken ≤ C
//! (C = 0: a send completes only when its value was taken), and memory stays within the window and one message.

mod support;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use netchan_proto::channel::{CloseReason, ItemBuf, PushError, Withdrawal};
use netchan_proto::flow::Urgency;
use rand::Rng;
use rand::rngs::StdRng;
use support::duct::{Ask, Duct, Shape};
use support::seed::{for_seeds, number, one_in, value};

const BATCH_SLACK: usize = 128 * 1_024;

struct World {
    duct: Duct,
    capacity: u64,
    window_bytes: u64,
    message_bytes_max: usize,
    /// Numbers pushed and neither withdrawn nor taken, oldest first.
    queue: VecDeque<u64>,
    next: u64,
    pushed: u64,
    taken: u64,
    withdrawn: u64,
    reserved: u64,
    /// C = 0: the offer that is out, whether its withdrawal was asked for.
    offer: Option<(u64, u64, bool)>,
    /// Credit was refused and not had since.
    closed: bool,
}

impl World {
    fn new(rng: &mut StdRng) -> Self {
        let capacity = rng.random_range(0..=8);
        let window_bytes = [1_024, 20_000, 65_536, 512 * 1_024][rng.random_range(0..4)];
        let shape = Shape::fixed(capacity, window_bytes);
        Self {
            duct: Duct::new(shape),
            capacity,
            window_bytes: 2 * window_bytes,
            message_bytes_max: shape.message_bytes_max,
            queue: VecDeque::new(),
            next: 0,
            pushed: 0,
            taken: 0,
            withdrawn: 0,
            reserved: 0,
            offer: None,
            closed: false,
        }
    }

    fn random_len(&self, rng: &mut StdRng) -> usize {
        match rng.random_range(0..20) {
            0 => self.message_bytes_max,
            1 => rng.random_range(60_000..200_000),
            2..4 => rng.random_range(10_000..30_000),
            4..8 => rng.random_range(100..5_000),
            _ => rng.random_range(8..40),
        }
    }

    fn push(&mut self, rng: &mut StdRng, from_reserve: bool) {
        let len = self.random_len(rng);
        let bytes = value(self.next, len);
        let share = one_in(rng, 3);
        let encode = |item: &mut ItemBuf<'_>| {
            if share { item.share(bytes.clone().into()) } else { item.extend(&bytes) }
        };
        let available = self.duct.tx.available();
        let result = if from_reserve {
            self.reserved -= 1;
            self.duct.tx.push_reserved(encode)
        } else {
            self.duct.tx.push(encode)
        };
        match result {
            Ok(pushed) => {
                assert!(from_reserve || available > 0);
                if self.capacity == 0 {
                    self.offer = Some((pushed.seq, self.next, false));
                }
                self.queue.push_back(self.next);
                self.next += 1;
                self.pushed += 1;
            }
            Err(PushError::Full) => assert!(!from_reserve && available == 0),
            Err(PushError::Closed) => assert!(self.closed),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn push_in_vain(&mut self, rng: &mut StdRng) {
        let before = format!("{:?}", self.duct.tx.unsettled());
        let committed = self.duct.tx.committed();
        let available = self.duct.tx.available();
        let max = self.message_bytes_max;
        let junk = vec![0xaa; self.random_len(rng) / 2];
        let tx = &mut self.duct.tx;
        match rng.random_range(0..4) {
            0 => {
                let result = tx.push(|item| {
                    item.extend(&junk).expect("below the limit");
                    Err::<(), _>("codec")
                });
                assert!(matches!(
                    result,
                    Err(PushError::Encode("codec") | PushError::Full | PushError::Closed)
                ));
            }
            1 => {
                let result = tx.push(|item| item.extend(&vec![0; max + 1]));
                assert!(!matches!(result, Ok(_) | Err(PushError::Encode(_))));
            }
            2 => {
                // A codec that hides that the value did not fit.
                let result = tx.push(|item| {
                    let _ = item.extend(&junk).and_then(|()| item.extend(&vec![0; max]));
                    Ok::<_, ()>(())
                });
                assert!(junk.is_empty() || result.is_err());
            }
            _ => {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    tx.push(|item| -> Result<(), ()> {
                        item.extend(&junk).expect("below the limit");
                        resume_unwind(Box::new("a codec panics"))
                    })
                }));
                assert!(matches!(result, Err(_) | Ok(Err(PushError::Full | PushError::Closed))));
            }
        }
        assert_eq!(self.duct.tx.committed(), committed, "CHAN-4");
        assert_eq!(self.duct.tx.available(), available, "CHAN-4");
        assert_eq!(format!("{:?}", self.duct.tx.unsettled()), before, "CHAN-4");
    }

    fn take(&mut self) -> bool {
        let Some(got) = self.duct.rx.take().map(|payload| number(payload.as_slice())) else { return false };
        let expected = self.queue.pop_front();
        assert_eq!(Some(got), expected, "CHAN-2: in order, once");
        self.taken += 1;
        true
    }

    fn withdraw(&mut self) {
        let Some((seq, number, _)) = self.offer else { return };
        match self.duct.tx.withdraw(seq) {
            Withdrawal::Withdrawn => self.offer_withdrawn(number),
            Withdrawal::Asked => self.offer = Some((seq, number, true)),
            Withdrawal::Taken => self.offer_taken(number),
        }
    }

    fn offer_withdrawn(&mut self, number: u64) {
        assert_eq!(self.queue.pop_back(), Some(number), "CHAN-9: withdrawn, and yet it was taken");
        self.offer = None;
        self.withdrawn += 1;
    }

    fn offer_taken(&mut self, number: u64) {
        assert!(!self.queue.contains(&number), "CHAN-9: said to be taken and was not");
        self.offer = None;
    }

    fn settle(&mut self) {
        while let Some(ask) = self.duct.asked.pop_front() {
            match (ask, self.offer) {
                (Ask::Withdrawn(seq, withdrawn), Some((out, number, true))) if seq == out => {
                    if withdrawn {
                        self.offer_withdrawn(number)
                    } else {
                        self.offer_taken(number)
                    }
                }
                other => panic!("nobody asked: {other:?}"),
            }
        }
        if let Some((seq, number, false)) = self.offer
            && self.duct.tx.taken() > seq
        {
            self.offer_taken(number);
        }
    }

    fn check(&mut self) {
        self.settle();
        let completed = if self.capacity == 0 {
            self.pushed - self.withdrawn - u64::from(self.offer.is_some())
        } else {
            self.pushed
        };
        assert!(
            completed + self.reserved.min(self.capacity) <= self.taken + self.capacity,
            "the capacity law"
        );
        let bound = self.window_bytes as usize + self.message_bytes_max + BATCH_SLACK;
        let overdraft = self.capacity as usize * self.message_bytes_max;
        assert!(self.duct.tx.retained_bytes() <= bound.max(overdraft), "{}", self.duct.tx.retained_bytes());
    }

    fn drain(&mut self) {
        for _ in 0..10_000 {
            self.duct.pump().expect("no violation");
            self.check();
            if !self.take() {
                break;
            }
        }
        self.duct.pump().expect("no violation");
        self.check();
    }
}

fn step(world: &mut World, rng: &mut StdRng) {
    match rng.random_range(0..100) {
        0..30 => world.push(rng, false),
        30..34 => world.push_in_vain(rng),
        34..40 => {
            let reserved = world.duct.tx.reserve();
            assert!(!reserved || world.capacity > 0);
            world.reserved += u64::from(reserved);
        }
        40..46 if world.reserved > 0 => world.push(rng, true),
        46..48 if world.reserved > 0 => {
            world.duct.tx.release();
            world.reserved -= 1;
        }
        48..60 => _ = world.take(),
        60..64 => world.withdraw(),
        64..68 => world.duct.tx.request_report(),
        68..80 => _ = world.duct.write_forward(),
        80..86 => _ = world.duct.deliver_forward().expect("no violation"),
        86..92 => {
            let least = if one_in(rng, 2) { Urgency::Now } else { Urgency::Soon };
            world.duct.write_back(least);
        }
        92..97 => _ = world.duct.deliver_back().expect("no violation"),
        97 => world.duct.cut(),
        98 => world.duct.pump().expect("no violation"),
        _ => {}
    }
    world.check();
}

#[test]
fn chan_1_capacity_law_order_and_no_loss_for_every_capacity() {
    for_seeds(3_000, |_, rng| {
        let mut world = World::new(rng);
        for _ in 0..rng.random_range(20..400) {
            step(&mut world, rng);
        }
        world.drain();
        // FLOW-4: with everything delivered and taken, the sender has all its credit back, and never stalls.
        let free = if world.capacity == 0 { 1 } else { world.capacity - world.reserved };
        assert_eq!(world.duct.tx.available(), free, "the window has stalled: {:?}", world.duct.tx);
        assert!(world.queue.is_empty());
        for _ in 0..world.reserved {
            world.duct.tx.release();
        }
        world.reserved = 0;
        world.duct.tx.close(CloseReason { code: 300, reason: "done".into() });
        world.closed = true;
        world.push(rng, false);
        world.drain();
        assert_eq!(world.duct.rx.ended().map(|reason| reason.code), Some(300));
        assert!(world.duct.tx.is_finished() && world.duct.rx.is_finished());
        assert_eq!(world.duct.tx.unsettled(), (0, 0));
        let offers_withdrawn_last = u64::from(world.capacity == 0 && world.withdrawn > 0);
        let count = world.duct.rx.last_close().final_seq;
        assert!(
            count <= world.duct.tx.committed() && count + offers_withdrawn_last >= world.duct.tx.committed()
        );
    });
}

#[test]
fn flow_4_out_of_credit_while_values_were_taken_is_urgent() {
    for_seeds(500, |_, rng| {
        let mut world = World::new(rng);
        for _ in 0..200 {
            world.push(rng, false);
            if one_in(rng, 3) {
                world.duct.pump().expect("no violation");
            }
            if one_in(rng, 2) {
                while world.duct.write_forward() {}
                while world.duct.deliver_forward().expect("no violation") {}
                let news = world.take();
                let starved = world.duct.tx.available() == 0 && world.duct.is_empty();
                if news && starved {
                    assert!(world.duct.rx.urgency() >= Urgency::Soon, "{:?}", world.duct.rx);
                }
            }
            world.check();
        }
    });
}

#[test]
fn chan_7_the_receiver_closes_and_the_count_is_true() {
    for_seeds(3_000, |_, rng| {
        let mut world = World::new(rng);
        for _ in 0..rng.random_range(5..150) {
            step(&mut world, rng);
        }
        let reset = one_in(rng, 2);
        if one_in(rng, 2) {
            world.duct.rx.stop(CloseReason { code: 301, reason: String::new() });
        }
        if one_in(rng, 2) {
            let reason = CloseReason { code: 302, reason: String::new() };
            if reset { world.duct.tx.reset(reason) } else { world.duct.tx.close(reason) }
        }
        world.closed = world.duct.tx.closed().is_some() || world.duct.rx.ended().is_some();
        if !world.closed && !reset {
            return;
        }
        world.duct.rx.stop(CloseReason { code: 303, reason: String::new() });
        for _ in 0..world.reserved {
            world.duct.tx.release();
        }
        for _ in 0..rng.random_range(0..10) {
            match rng.random_range(0..6) {
                0 => _ = world.duct.write_forward(),
                1 => _ = world.duct.deliver_forward().expect("no violation"),
                2 => _ = world.duct.write_back(Urgency::Soon),
                3 => _ = world.duct.deliver_back().expect("no violation"),
                4 => world.duct.cut(),
                _ => _ = world.take(),
            }
        }
        world.duct.pump().expect("no violation");
        while world.take() {}
        world.settle();
        assert!(world.duct.tx.is_finished() && world.duct.rx.is_finished());
        // What the sender says is not taken is exactly what the receiver did not take.
        let mut unsettled = Vec::new();
        world.duct.tx.for_each_unsettled(|value| {
            assert!(!value.in_doubt, "the peer has said how many it took");
            unsettled.push(number(value.payload.as_slice()));
        });
        assert_eq!(unsettled, Vec::from(world.queue));
        assert_eq!(world.duct.tx.unsettled(), (unsettled.len() as u64, 0));
        if let Some((seq, _, _)) = world.offer {
            let taken = unsettled.is_empty();
            let outcome = if taken { Withdrawal::Taken } else { Withdrawal::Withdrawn };
            assert_eq!(world.duct.tx.withdraw(seq), outcome, "CHAN-9");
        }
    });
}
