//! A hosted channel whose receivers acknowledge, and the channel that their results go into, as a server keeps them.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use netchan_proto::channel::{CloseReason, Payload};
use netchan_proto::exchange::{Acquired, Asked, HolderEnd, News, Ports, Queue, Stopped, Ticket};
use netchan_proto::hosted::{Fact, HolderOptions, ReceiverKey};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::Event;
use netchan_proto::wire::Open;
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::hub::ports::{Driver, Ends, Out, Port, Side, Task, channel_of};
use crate::services::split_result;
use crate::value::Value;

/// How long a holder without a link keeps what it has.
const GRACE_MILLIS: u64 = 500;
/// How long a holder may keep a task without a word.
const LEASE_MILLIS: u64 = 400;
/// Values that may be out to one holder.
const OUT_MAX: u64 = 4;
/// Results that may wait for places, in bytes: few.
const PARKED_BYTES_MAX: u64 = 60;

struct Holder {
    session: SessionId,
    deliveries: ChannelId,
    asks: Option<ChannelId>,
    outcomes: Option<ChannelId>,
    end: HolderEnd<Ends>,
    /// Woken when results that wait may have places.
    retry: Task,
    /// Its link is gone.
    away: bool,
    /// It takes nothing more, and may still acknowledge.
    retired: bool,
}

/// A queue of tasks.
pub struct Desk {
    /// As the auditor knows it.
    pub chan: u32,
    tasks: Driver,
    results: Driver,
    holders: BTreeMap<ReceiverKey, Holder>,
    attempts_max: Option<u32>,
    total: u64,
    next: u64,
    /// Works off what is left when everything is over and nobody else does.
    worker: Option<(ReceiverKey, Task, Option<Ticket>)>,
    /// Which task has which ticket.
    numbers: BTreeMap<u64, u64>,
}

impl Desk {
    /// A queue into which the server sends `total` tasks.
    #[must_use]
    pub fn new(chan: u32, capacity: u64, results: u64, total: u64, attempts_max: Option<u32>) -> Self {
        let mut tasks = Driver::new(capacity.max(1));
        tasks.queue.policy_mut().set_attempts_max(attempts_max);
        Self {
            chan,
            tasks,
            results: Driver::new(results.max(1)),
            holders: BTreeMap::new(),
            attempts_max,
            total,
            next: 0,
            worker: None,
            numbers: BTreeMap::new(),
        }
    }

    /// Whether everything has been acknowledged, or is dead, and every result has been received.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.results.queue.is_finished()
    }

    /// Whether nobody else may take tasks.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.tasks.queue.is_finished()
    }

    /// Its capacity.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.tasks.queue.policy().capacity()
    }

    /// How it stands.
    #[must_use]
    pub fn describe(&self) -> String {
        let unheard: Vec<_> = self.holders.values().map(|holder| holder.end.unheard()).collect();
        format!("desk {} {unheard:?} {:?} {:?}", self.chan, self.tasks.queue, self.results.queue)
    }

    /// A session takes from here on.
    pub fn add_holder(&mut self, session: SessionId, port: Port, who: u32, open: &Open, audit: &mut Audit) {
        // One queue of two takes a task from a holder that says nothing of it for long.
        let lease_millis = self.chan.is_multiple_of(2).then_some(LEASE_MILLIS);
        let (id, options) = (port.id, HolderOptions { lease_millis, ..HolderOptions::new(OUT_MAX) });
        match self.tasks.add_sink(session, port, who, open, Some(options)) {
            Some(key) => {
                let holder = Holder {
                    session,
                    deliveries: id,
                    asks: None,
                    outcomes: None,
                    end: HolderEnd::new(key, who),
                    retry: Task::default(),
                    away: false,
                    retired: false,
                };
                self.holders.insert(key, holder);
            }
            None => audit.wrong("a queue that was open took no holder"),
        }
        self.observe(audit);
    }

    /// A holder's channel for what it asks (`asks`), or for what it is told. False if there is no such holder.
    pub fn add_service(&mut self, session: SessionId, of: ChannelId, port: Port, asks: bool) -> bool {
        let found = self.holders.values_mut().find(|h| h.session == session && h.deliveries == of);
        let Some(holder) = found else { return false };
        if asks {
            holder.asks = Some(port.id);
            holder.end.set_asks(port)
        } else {
            holder.outcomes = Some(port.id);
            holder.end.set_outcomes(port)
        }
    }

    /// Whether it has such a holder.
    #[must_use]
    pub fn has_holder(&self, session: SessionId, of: ChannelId) -> bool {
        self.holders.values().any(|h| h.session == session && h.deliveries == of)
    }

    /// A session's results go into it from here on.
    pub fn add_results(&mut self, session: SessionId, port: Port, who: u32, audit: &mut Audit) {
        if !self.results.add_source(session, port, who) {
            audit.wrong("a queue that was open took no results");
        }
        self.observe(audit);
    }

    /// Something happened to a session's channel. Says whether it was one of these.
    pub fn handle(&mut self, session: SessionId, event: &Event, audit: &mut Audit) -> bool {
        let Some(id) = channel_of(event) else { return false };
        let place = self.tasks.place(session, id);
        let port = place.map(|place| place.port.clone());
        let handled = if let Some(Side::Sink(key)) = place.map(|place| place.side) {
            self.tasks.handle(session, event);
            let closed = port.is_some_and(|port| {
                Ends::with_sink(&port, |half| half.peer_closed().is_some()) != Some(false)
            });
            if closed && let Some(holder) = self.holders.get_mut(&key) {
                holder.retired = true;
                if holder.asks.is_none() || holder.end.is_over() {
                    // It could not acknowledge anything.
                    self.leave(key, true);
                }
            }
            true
        } else if self.results.handle(session, event) {
            true
        } else {
            let beside = |h: &Holder| h.session == session && (h.asks == Some(id) || h.outcomes == Some(id));
            let key = self.holders.iter().find(|(_, holder)| beside(holder)).map(|(key, _)| *key);
            key.into_iter().for_each(|key| self.moved(key, audit));
            key.is_some()
        };
        self.observe(audit);
        handled
    }

    fn leave(&mut self, key: ReceiverKey, orderly: bool) {
        self.tasks.run(|queue, out| queue.remove_sink(key, 0, orderly, out));
    }

    /// Something has arrived on a holder's channels, or there is room on them.
    fn moved(&mut self, key: ReceiverKey, audit: &mut Audit) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        if std::mem::take(&mut holder.away) {
            self.tasks.run(|queue, out| queue.holder_back(key, out));
        }
        self.work(key, audit);
        let mut out = Out::default();
        self.holders.get_mut(&key).into_iter().for_each(|holder| holder.end.listen(&mut out));
        self.tasks.follow(out);
    }

    /// Does what a holder asks for.
    fn work(&mut self, key: ReceiverKey, audit: &mut Audit) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        if holder.retry.is_woken() {
            holder.retry.sleep();
            let waiting: Vec<_> = holder.end.waiting_for().collect();
            waiting.into_iter().for_each(|id| self.retry(key, id));
        }
        while self.work_run(key, audit) {}
        if self.holders.get(&key).is_some_and(|holder| holder.end.is_over()) {
            self.leave(key, true);
        }
    }

    fn retry(&mut self, key: ReceiverKey, id: ChannelId) {
        let Self { tasks, results, holders, .. } = self;
        let Some(holder) = holders.get_mut(&key) else { return };
        let mut outs = (Out::default(), Out::default());
        let now_micros = tasks.micros();
        let (end, waker) = (&mut holder.end, &holder.retry.waker);
        // Now and then its channel of results is gone by then.
        let into = results.place(holder.session, id).is_some().then_some(Some(&mut results.queue));
        let mut left = tasks.queue.retry_results(end, id, into, waker, now_micros, &mut outs);
        end.flush(&mut outs.0);
        tasks.follow(outs.0);
        results.follow(outs.1);
        results.run(|queue, out| queue.leave_senders(&mut left, out));
    }

    /// One run of asks. False when there is no more to do for now.
    fn work_run(&mut self, key: ReceiverKey, audit: &mut Audit) -> bool {
        let Self { tasks, results, holders, .. } = self;
        let Some(holder) = holders.get_mut(&key) else { return false };
        let mut outs = (Out::default(), Out::default());
        let now_micros = tasks.micros();
        let (end, waker) = (&mut holder.end, &holder.retry.waker);
        let handled = match end.next_asks(PARKED_BYTES_MAX, &mut outs.0) {
            Ok(None) => Ok(false),
            Err(violation) => Err(violation),
            Ok(Some(asked)) => {
                let into: Option<Option<&mut Queue<Ends>>> = match asked {
                    Asked::Results(id) if results.place(holder.session, id).is_some() => {
                        Some(Some(&mut results.queue))
                    }
                    _ => None,
                };
                let handled = tasks.queue.handle_asks(end, asked, into, waker, now_micros, &mut outs);
                handled.map(|()| true)
            }
        };
        end.flush(&mut outs.0);
        tasks.follow(outs.0);
        results.follow(outs.1);
        // A holder reads its outcomes as soon as it is told of them, and it is told once the result is here.
        self.observe(audit);
        handled.unwrap_or_else(|violation| {
            audit.wrong(format!("desk {}: {violation}", self.chan));
            self.leave(key, false);
            false
        })
    }

    /// Time passes, and the server's own programs do what they can.
    pub fn step(&mut self, now: u64, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        self.tasks.pass(now);
        self.results.pass(now);
        self.observe(audit);
        let mut moved = self.send(audit, rng, calm);
        if self.next == self.total && self.tasks.queue.closed().is_none() {
            self.tasks.run(|queue, out| queue.close(CloseReason::plain(), out));
        }
        self.observe(audit);
        let woken = self.holders.iter().filter(|(_, holder)| holder.retry.is_woken());
        let keys: Vec<_> = woken.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.work(key, audit));
        self.observe(audit);
        moved |= self.collect(audit, rng, calm);
        if self.worker.is_some() || calm && self.holders.values().all(|holder| holder.retired) {
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
            let polled = self.results.run(|queue, out| queue.poll_recv(None, &mut None, out));
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
            let polled = self.tasks.run(|queue, out| {
                let cx = Context::from_waker(&task.waker);
                queue.poll_delivery(key, &cx, ticket, out)
            });
            let Poll::Ready(Some(taken)) = polled else { break };
            task.wake();
            moved = true;
            if self.tasks.run(|queue, out| queue.ack_locally(key, taken.number, out)) {
                let number = Value::parse(&taken.bytes).map_or(u64::MAX, |value| value.number);
                audit.judge(|services| services.committed(self.chan, number, (0, taken.number)));
            }
            self.observe(audit);
        }
        moved
    }

    /// A session's link is gone; another has taken its place if `replaced`.
    pub fn suspend(&mut self, session: SessionId, replaced: bool, audit: &mut Audit) {
        let fence_at = (!replaced).then_some(self.tasks.now() + GRACE_MILLIS);
        self.tasks.suspend(session, fence_at);
        self.results.suspend(session, None);
        for holder in self.holders.values_mut().filter(|holder| holder.session == session) {
            let key = holder.end.key();
            holder.away = true;
            self.tasks.run(|queue, out| queue.suspend_sink(key, fence_at, out));
        }
        // What one gave back may be another's by now, and counts as that.
        self.observe(audit);
    }

    /// A session has a link again.
    pub fn attach(&mut self, session: SessionId, audit: &mut Audit) {
        self.tasks.attach(session);
        self.results.attach(session);
        self.observe(audit);
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId, audit: &mut Audit) {
        self.tasks.lose(session);
        self.results.lose(session);
        let of: Vec<_> =
            self.holders.iter().filter(|(_, h)| h.session == session).map(|(key, _)| *key).collect();
        of.into_iter().for_each(|key| self.leave(key, false));
        self.observe(audit);
    }

    /// Tells the auditor what became of tasks and results.
    fn observe(&mut self, audit: &mut Audit) {
        while let Some(fact) = self.results.queue.policy_mut().poll_fact() {
            // The acknowledgement was one step with this.
            if let Fact::Admitted { item } = fact
                && let Some((who, task, number)) = split_result(&item.bytes)
            {
                audit.judge(|services| services.committed(self.chan, task, (who, number)));
            }
        }
        while let Some(fact) = self.tasks.queue.policy_mut().poll_fact() {
            self.note(fact, audit);
        }
        while let Some(news) = self.tasks.news.pop_front() {
            self.tell(news, audit);
        }
        while let Some(news) = self.results.news.pop_front() {
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

    fn tell(&mut self, news: News<Ends>, audit: &mut Audit) {
        match news {
            News::Fenced(key, number) => {
                if let Some(holder) = self.holders.get_mut(&key) {
                    let mut out = Out::default();
                    holder.end.fenced(number);
                    holder.end.flush(&mut out);
                    self.tasks.follow(out);
                }
            }
            News::Dead(item) => {
                let number = Value::parse(&item.bytes).map_or(u64::MAX, |value| value.number);
                if self.attempts_max != Some(item.attempts) {
                    audit.wrong(format!(
                        "desk {}: task {number} died after {} attempts",
                        self.chan, item.attempts
                    ));
                }
                audit.judge(|services| services.dead(self.chan, number));
                self.tasks.run(|queue, out| queue.buried(out));
            }
            News::Left(key) => {
                let Some(mut holder) = self.holders.remove(&key) else { return };
                let mut out = Out::default();
                let places = holder.end.end(&mut out);
                self.tasks.follow(out);
                for (_, mut ticket) in places {
                    self.results.run(|queue, out| queue.leave_senders(&mut ticket, out));
                }
            }
            News::Finished => self.results.run(|queue, out| queue.close(CloseReason::plain(), out)),
            News::Stopped { peer, why } if why != Stopped::Stalled => {
                audit.wrong(format!("desk {}: {peer} was stopped: {why:?}", self.chan));
            }
            News::Stopped { .. } | News::Closed => {}
        }
    }
}
