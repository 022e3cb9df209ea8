//! A queue whose receivers acknowledge what they take, and the queue that their results go into: driven here for the server of
//! the simulation and for that of the fuzz target.

use std::collections::BTreeMap;

use netchan_proto::exchange::{Asked, HolderEnd, Ports, Queue};
use netchan_proto::flow::Violation;
use netchan_proto::hosted::{HolderOptions, ReceiverKey};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::Event;
use netchan_proto::wire::Open;

use super::ports::{Driver, Ends, Out, Port, Side, Task, channel_of};

/// How long a holder without a link keeps what it has.
const GRACE_MILLIS: u64 = 500;

/// A client that acknowledges.
pub struct Holder {
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

/// Both queues, and the holders between them.
pub struct Deliveries {
    /// What is handed out.
    pub tasks: Driver,
    /// What comes back.
    pub results: Driver,
    holders: BTreeMap<ReceiverKey, Holder>,
    /// Results that may wait for places, in bytes.
    parked_bytes_max: u64,
}

/// Looks at what has happened, each time before anything follows from it.
pub trait Watch {
    /// The queues have changed: reads their facts and news.
    fn changed(&mut self, deliveries: &mut Deliveries);

    /// A holder broke a rule, and is about to be removed.
    fn broken(&mut self, violation: Violation);
}

impl Deliveries {
    /// Queues of these capacities.
    #[must_use]
    pub fn new(tasks: u64, results: u64, parked_bytes_max: u64) -> Self {
        let (tasks, results) = (Driver::new(tasks), Driver::new(results));
        Self { tasks, results, holders: BTreeMap::new(), parked_bytes_max }
    }

    /// Holders whose outcomes or results wait: how many outcomes, by holder.
    #[must_use]
    pub fn unheard(&self) -> Vec<usize> {
        self.holders.values().map(|holder| holder.end.unheard()).collect()
    }

    /// Whether no holder takes anything more.
    #[must_use]
    pub fn are_all_retired(&self) -> bool {
        self.holders.values().all(|holder| holder.retired)
    }

    /// A session takes deliveries from here on. False if it may not.
    pub fn add_holder(
        &mut self,
        session: SessionId,
        port: Port,
        who: u32,
        open: &Open,
        options: HolderOptions,
    ) -> bool {
        let deliveries = port.id;
        let Some(key) = self.tasks.add_sink(session, port, who, open, Some(options)) else { return false };
        let holder = Holder {
            session,
            deliveries,
            asks: None,
            outcomes: None,
            end: HolderEnd::new(key, who),
            retry: Task::default(),
            away: false,
            retired: false,
        };
        self.holders.insert(key, holder);
        true
    }

    /// A holder's channel for what it asks (`asks`), or for what it is told. False if there is no such holder, or it has one.
    pub fn add_service(&mut self, session: SessionId, of: ChannelId, port: Port, asks: bool) -> bool {
        let found = self.holders.values_mut().find(|h| h.session == session && h.deliveries == of);
        let Some(holder) = found else { return false };
        let id = port.id;
        let (set, place) = match asks {
            true => (holder.end.set_asks(port), &mut holder.asks),
            false => (holder.end.set_outcomes(port), &mut holder.outcomes),
        };
        if set {
            *place = Some(id);
        }
        set
    }

    /// Whether there is such a holder.
    #[must_use]
    pub fn has_holder(&self, session: SessionId, of: ChannelId) -> bool {
        self.holders.values().any(|h| h.session == session && h.deliveries == of)
    }

    /// Something happened to a session's channel. Says whether it was one of these.
    pub fn handle(&mut self, session: SessionId, event: &Event, watch: &mut impl Watch) -> bool {
        let Some(id) = channel_of(event) else { return false };
        let place = self.tasks.place(session, id);
        let sink = place.and_then(|place| match place.side {
            Side::Sink(key) => Some((key, place.port.clone())),
            Side::Source(_) => None,
        });
        let handled = if let Some((key, port)) = sink {
            self.tasks.handle(session, event);
            let closed = Ends::with_sink(&port, |half| half.peer_closed().is_some()) != Some(false);
            if closed && let Some(holder) = self.holders.get_mut(&key) {
                holder.retired = true;
                if holder.asks.is_none() || holder.end.is_over() {
                    // It could not acknowledge anything.
                    self.leave(key, true);
                }
            }
            true
        } else if self.tasks.handle(session, event) || self.results.handle(session, event) {
            true
        } else {
            let beside = |h: &Holder| h.session == session && (h.asks == Some(id) || h.outcomes == Some(id));
            let key = self.holders.iter().find(|(_, holder)| beside(holder)).map(|(key, _)| *key);
            key.into_iter().for_each(|key| self.moved(key, watch));
            key.is_some()
        };
        watch.changed(self);
        handled
    }

    fn leave(&mut self, key: ReceiverKey, orderly: bool) {
        self.tasks.run(|queue, out| queue.remove_sink(key, 0, orderly, out));
    }

    /// Something has arrived on a holder's channels, or there is room on them.
    fn moved(&mut self, key: ReceiverKey, watch: &mut impl Watch) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        if std::mem::take(&mut holder.away) {
            self.tasks.run(|queue, out| queue.holder_back(key, out));
        }
        self.work(key, watch);
        let mut out = Out::default();
        self.holders.get_mut(&key).into_iter().for_each(|holder| holder.end.listen(&mut out));
        self.tasks.follow(out);
    }

    /// Time has passed: holders whose results may have places now go on.
    pub fn work_woken(&mut self, watch: &mut impl Watch) {
        let woken = self.holders.iter().filter(|(_, holder)| holder.retry.is_woken());
        let keys: Vec<_> = woken.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.work(key, watch));
    }

    /// Does what a holder asks for.
    fn work(&mut self, key: ReceiverKey, watch: &mut impl Watch) {
        let Some(holder) = self.holders.get_mut(&key) else { return };
        if holder.retry.is_woken() {
            holder.retry.sleep();
            let waiting: Vec<_> = holder.end.waiting_for().collect();
            waiting.into_iter().for_each(|id| self.retry(key, id));
        }
        while self.work_run(key, watch) {}
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
    fn work_run(&mut self, key: ReceiverKey, watch: &mut impl Watch) -> bool {
        let Self { tasks, results, holders, .. } = self;
        let Some(holder) = holders.get_mut(&key) else { return false };
        let mut outs = (Out::default(), Out::default());
        let now_micros = tasks.micros();
        let (end, waker) = (&mut holder.end, &holder.retry.waker);
        let handled = match end.next_asks(self.parked_bytes_max, &mut outs.0) {
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
        watch.changed(self);
        handled.unwrap_or_else(|violation| {
            watch.broken(violation);
            self.leave(key, false);
            false
        })
    }

    /// A session's link is gone; another has taken its place if `replaced`.
    pub fn suspend(&mut self, session: SessionId, replaced: bool) {
        let fence_at = (!replaced).then_some(self.tasks.now() + GRACE_MILLIS);
        self.tasks.suspend(session, fence_at);
        self.results.suspend(session, None);
        for holder in self.holders.values_mut().filter(|holder| holder.session == session) {
            let key = holder.end.key();
            holder.away = true;
            self.tasks.run(|queue, out| queue.suspend_sink(key, fence_at, out));
        }
    }

    /// A session has a link again.
    pub fn attach(&mut self, session: SessionId) {
        self.tasks.attach(session);
        self.results.attach(session);
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId) {
        self.tasks.lose(session);
        self.results.lose(session);
        let of: Vec<_> =
            self.holders.iter().filter(|(_, h)| h.session == session).map(|(key, _)| *key).collect();
        of.into_iter().for_each(|key| self.leave(key, false));
    }

    /// A holder has lost a delivery, and is told.
    pub fn fenced(&mut self, key: ReceiverKey, number: u64) {
        if let Some(holder) = self.holders.get_mut(&key) {
            let mut out = Out::default();
            holder.end.fenced(number);
            holder.end.flush(&mut out);
            self.tasks.follow(out);
        }
    }

    /// A holder is gone: its places for results are given up.
    pub fn left(&mut self, key: ReceiverKey) {
        let Some(mut holder) = self.holders.remove(&key) else { return };
        let mut out = Out::default();
        let places = holder.end.end(&mut out);
        self.tasks.follow(out);
        for (_, mut ticket) in places {
            self.results.run(|queue, out| queue.leave_senders(&mut ticket, out));
        }
    }
}
