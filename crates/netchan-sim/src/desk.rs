//! A hosted channel whose receivers acknowledge, and the channel that their results go into, as a server keeps them.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use netchan_proto::channel::{CloseReason, Payload};
use netchan_proto::exchange::{Acquired, News, Stopped, Ticket};
use netchan_proto::flow::Violation;
use netchan_proto::hosted::{Fact, HolderOptions, ReceiverKey};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::Event;
use netchan_proto::wire::Open;
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::hub::deliveries::{Deliveries, Watch};
use crate::hub::ports::{Ends, Port, Task};
use crate::services::split_result;
use crate::value::Value;

/// How long a holder may keep a task without a word.
const LEASE_MILLIS: u64 = 400;
/// Values that may be out to one holder.
const OUT_MAX: u64 = 4;
/// Results that may wait for places, in bytes: few.
const PARKED_BYTES_MAX: u64 = 60;

/// A queue of tasks.
pub struct Desk {
    /// As the auditor knows it.
    pub chan: u32,
    deliveries: Deliveries,
    log: Log,
    total: u64,
    next: u64,
    /// Works off what is left when everything is over and nobody else does.
    worker: Option<(ReceiverKey, Task, Option<Ticket>)>,
}

/// What the auditor is told of it.
struct Log {
    chan: u32,
    attempts_max: Option<u32>,
    /// Which task has which ticket.
    numbers: BTreeMap<u64, u64>,
}

/// Tells the auditor at once.
struct Watching<'a> {
    log: &'a mut Log,
    audit: &'a mut Audit,
}

impl Watch for Watching<'_> {
    fn changed(&mut self, deliveries: &mut Deliveries) {
        self.log.observe(deliveries, self.audit);
    }

    fn broken(&mut self, violation: Violation) {
        self.audit.wrong(format!("desk {}: {violation}", self.log.chan));
    }
}

impl Desk {
    /// A queue into which the server sends `total` tasks.
    #[must_use]
    pub fn new(chan: u32, capacity: u64, results: u64, total: u64, attempts_max: Option<u32>) -> Self {
        let mut deliveries = Deliveries::new(capacity.max(1), results.max(1), PARKED_BYTES_MAX);
        deliveries.tasks.queue.policy_mut().set_attempts_max(attempts_max);
        let log = Log { chan, attempts_max, numbers: BTreeMap::new() };
        Self { chan, deliveries, log, total, next: 0, worker: None }
    }

    fn observe(&mut self, audit: &mut Audit) {
        self.log.observe(&mut self.deliveries, audit);
    }

    /// Whether everything has been acknowledged, or is dead, and every result has been received.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.deliveries.results.queue.is_finished()
    }

    /// Whether nobody else may take tasks.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.deliveries.tasks.queue.is_finished()
    }

    /// Its capacity.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.deliveries.tasks.queue.policy().capacity()
    }

    /// How it stands.
    #[must_use]
    pub fn describe(&self) -> String {
        let unheard = self.deliveries.unheard();
        format!(
            "desk {} {unheard:?} {:?} {:?}",
            self.chan, self.deliveries.tasks.queue, self.deliveries.results.queue
        )
    }

    /// A session takes from here on.
    pub fn add_holder(&mut self, session: SessionId, port: Port, who: u32, open: &Open, audit: &mut Audit) {
        // One queue of two takes a task from a holder that says nothing of it for long.
        let lease_millis = self.chan.is_multiple_of(2).then_some(LEASE_MILLIS);
        let options = HolderOptions { lease_millis, ..HolderOptions::new(OUT_MAX) };
        if !self.deliveries.add_holder(session, port, who, open, options) {
            audit.wrong("a queue that was open took no holder");
        }
        self.observe(audit);
    }

    /// A holder's channel for what it asks (`asks`), or for what it is told. False if there is no such holder.
    pub fn add_service(&mut self, session: SessionId, of: ChannelId, port: Port, asks: bool) -> bool {
        self.deliveries.add_service(session, of, port, asks)
    }

    /// Whether it has such a holder.
    #[must_use]
    pub fn has_holder(&self, session: SessionId, of: ChannelId) -> bool {
        self.deliveries.has_holder(session, of)
    }

    /// A session's results go into it from here on.
    pub fn add_results(&mut self, session: SessionId, port: Port, who: u32, audit: &mut Audit) {
        if !self.deliveries.results.add_source(session, port, who) {
            audit.wrong("a queue that was open took no results");
        }
        self.observe(audit);
    }

    /// Something happened to a session's channel. Says whether it was one of these.
    pub fn handle(&mut self, session: SessionId, event: &Event, audit: &mut Audit) -> bool {
        let Self { deliveries, log, .. } = self;
        deliveries.handle(session, event, &mut Watching { log, audit })
    }

    /// Time passes, and the server's own programs do what they can.
    pub fn step(&mut self, now: u64, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        self.deliveries.tasks.pass(now);
        self.deliveries.results.pass(now);
        self.observe(audit);
        let mut moved = self.send(audit, rng, calm);
        if self.next == self.total && self.deliveries.tasks.queue.closed().is_none() {
            self.deliveries.tasks.run(|queue, out| queue.close(CloseReason::plain(), out));
        }
        self.observe(audit);
        let Self { deliveries, log, .. } = self;
        deliveries.work_woken(&mut Watching { log, audit });
        self.observe(audit);
        moved |= self.collect(audit, rng, calm);
        if self.worker.is_some() || calm && self.deliveries.are_all_retired() {
            moved |= self.work_off(audit);
        }
        moved
    }

    fn send(&mut self, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let mut moved = false;
        while self.next < self.total && (calm || rng.random_bool(0.3)) {
            let value = Value { chan: self.chan, sender: 0, number: self.next };
            let bytes = value.bytes(rng.random_range(16..60));
            let polled = self
                .deliveries
                .tasks
                .run(|queue, out| queue.poll_acquire(None, &mut None, Some(Payload::Slice(&bytes)), out));
            if !matches!(polled, Poll::Ready(Acquired::Committed(_))) {
                break;
            }
            audit.services.task(self.chan);
            self.next += 1;
            moved = true;
        }
        moved
    }

    /// Receives results.
    fn collect(&mut self, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        let mut moved = false;
        while calm || rng.random_bool(0.3) {
            let polled = self.deliveries.results.run(|queue, out| queue.poll_recv(None, &mut None, out));
            let Poll::Ready(Some(taken)) = polled else { break };
            moved = true;
            match split_result(&taken.bytes) {
                Some((who, task, _)) => {
                    if taken.from != Some(who) {
                        audit.wrong(format!("desk {}: a result of {who} in another's name", self.chan));
                    }
                    audit.judge(|services| services.collected(self.chan, task));
                }
                None => audit.wrong(format!("desk {}: a result that is none", self.chan)),
            }
        }
        self.observe(audit);
        moved
    }

    /// Nobody takes any more: the server's own program does.
    fn work_off(&mut self, audit: &mut Audit) -> bool {
        let mut moved = false;
        let key = match &self.worker {
            Some((key, ..)) => *key,
            None => {
                let key = self
                    .deliveries
                    .tasks
                    .queue
                    .add_local_holder(HolderOptions { settles_at_ack: true, ..HolderOptions::new(OUT_MAX) });
                self.worker = Some((key, Task::default(), None));
                key
            }
        };
        while let Some((_, task, ticket)) = &mut self.worker
            && task.is_woken()
        {
            task.sleep();
            let polled = self.deliveries.tasks.run(|queue, out| {
                let cx = Context::from_waker(&task.waker);
                queue.poll_delivery(key, &cx, ticket, out)
            });
            let Poll::Ready(Some(taken)) = polled else { break };
            task.wake();
            moved = true;
            if self.deliveries.tasks.run(|queue, out| queue.ack_locally(key, taken.number, out)) {
                let number = Value::parse(&taken.bytes).map_or(u64::MAX, |value| value.number);
                audit.judge(|services| services.committed(self.chan, number, (0, taken.number)));
            }
            self.observe(audit);
        }
        moved
    }

    /// A session's link is gone; another has taken its place if `replaced`.
    pub fn suspend(&mut self, session: SessionId, replaced: bool, audit: &mut Audit) {
        self.deliveries.suspend(session, replaced);
        // What one gave back may be another's by now, and counts as that.
        self.observe(audit);
    }

    /// A session has a link again.
    pub fn attach(&mut self, session: SessionId, audit: &mut Audit) {
        self.deliveries.attach(session);
        self.observe(audit);
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId, audit: &mut Audit) {
        self.deliveries.lose(session);
        self.observe(audit);
    }
}

impl Log {
    /// Tells the auditor what became of tasks and results.
    fn observe(&mut self, deliveries: &mut Deliveries, audit: &mut Audit) {
        while let Some(fact) = deliveries.results.queue.policy_mut().poll_fact() {
            // The acknowledgement was one step with this.
            if let Fact::Admitted { item } = fact
                && let Some((who, task, number)) = split_result(&item.bytes)
            {
                audit.judge(|services| services.committed(self.chan, task, (who, number)));
            }
        }
        while let Some(fact) = deliveries.tasks.queue.policy_mut().poll_fact() {
            self.note(fact, audit);
        }
        while let Some(news) = deliveries.tasks.news.pop_front() {
            self.tell(news, deliveries, audit);
        }
        while let Some(news) = deliveries.results.news.pop_front() {
            match news {
                News::Stopped { peer, why } if why != Stopped::Stalled => {
                    audit.wrong(format!("desk {}: {peer} was stopped: {why:?}", self.chan));
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, fact: Fact<Option<u32>>, audit: &mut Audit) {
        match fact {
            Fact::Admitted { item } => {
                let number = Value::parse(&item.bytes).map_or(u64::MAX, |value| value.number);
                self.numbers.insert(item.ticket, number);
            }
            Fact::Dispatched { ticket, .. } => {
                let number = self.numbers.get(&ticket).copied().unwrap_or(u64::MAX);
                audit.services.handed(self.chan, number);
            }
            Fact::Back { ticket, attempts, .. } | Fact::Delayed { ticket, attempts, .. } => {
                let number = self.numbers.get(&ticket).copied().unwrap_or(u64::MAX);
                audit.judge(|services| services.tried(self.chan, number, attempts));
            }
            _ => {}
        }
    }

    fn tell(&self, news: News<Ends>, deliveries: &mut Deliveries, audit: &mut Audit) {
        match news {
            News::Fenced(key, number) => deliveries.fenced(key, number),
            News::Dead(item) => {
                let number = Value::parse(&item.bytes).map_or(u64::MAX, |value| value.number);
                if self.attempts_max != Some(item.attempts) {
                    audit.wrong(format!(
                        "desk {}: task {number} died after {} attempts",
                        self.chan, item.attempts
                    ));
                }
                audit.judge(|services| services.dead(self.chan, number));
                deliveries.tasks.run(|queue, out| queue.buried(out));
            }
            News::Left(key) => deliveries.left(key),
            News::Finished => deliveries.results.run(|queue, out| queue.close(CloseReason::plain(), out)),
            News::Stopped { peer, why } if why != Stopped::Stalled => {
                audit.wrong(format!("desk {}: {peer} was stopped: {why:?}", self.chan));
            }
            News::Stopped { .. } | News::Closed => {}
        }
    }
}
