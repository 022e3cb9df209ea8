//! The server: a queue of tasks, a queue that results go into, and its sessions.

use std::collections::BTreeMap;
use std::rc::Rc;

use netchan_proto::exchange::{Asked, HolderEnd, News, Ports};
use netchan_proto::hosted::{HolderOptions, ReceiverKey};
use netchan_proto::id::{ChannelId, SessionId, Side as End2};
use netchan_proto::session::{Event, ReadHalf, WriteHalf};
use netchan_proto::wire::{Mode, Open, OpenFlow, Purpose, RefuseCode};
use netchan_sim::end::{End, MESSAGE_BYTES_MAX};
use netchan_sim::hub::ports::{Driver, Ends, Out, Port, Side, Task, channel_of};

use crate::script::Script;

/// Bytes of all values in a queue: few, so that a run meets it.
const QUEUE_BYTES_MAX: u64 = 2_000;
/// Results that may wait for places, in bytes.
const PARKED_BYTES_MAX: u64 = 200;
/// Asks that may be under way.
const ASKS: u64 = 8;
/// Values that may be out to one holder.
const OUT_MAX: u64 = 4;
/// How long a holder without a link keeps what it has.
const GRACE_MILLIS: u64 = 500;

/// A session, as the server has it.
pub(super) struct Link {
    pub(super) end: Rc<End>,
    pub(super) read: ReadHalf,
    pub(super) write: WriteHalf,
}

struct Holder {
    session: SessionId,
    of: ChannelId,
    beside: Vec<ChannelId>,
    end: HolderEnd<Ends>,
    retry: Task,
}

pub(super) struct Server {
    tasks: Driver,
    results: Driver,
    sessions: BTreeMap<SessionId, Rc<End>>,
    /// Who they are.
    who: BTreeMap<SessionId, u32>,
    holders: BTreeMap<ReceiverKey, Holder>,
    next_session: u8,
    now: u64,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("tasks", &self.tasks.queue).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(script: &mut Script<'_>) -> Self {
        let capacity = [4, 1, 16, 2][usize::from(script.one_of(4))];
        let mut tasks = Driver::new(capacity);
        let mut results = Driver::new(2);
        for queue in [&mut tasks, &mut results] {
            queue.queue.policy_mut().set_bytes_max(QUEUE_BYTES_MAX);
        }
        tasks.queue.policy_mut().set_attempts_max(Some(3));
        Self {
            tasks,
            results,
            sessions: BTreeMap::new(),
            who: BTreeMap::new(),
            holders: BTreeMap::new(),
            next_session: 0,
            now: 0,
        }
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// Another session of `who`.
    pub(super) fn admit(&mut self, who: u32) -> (SessionId, Rc<End>) {
        self.next_session = self.next_session.wrapping_add(1);
        let id = SessionId([self.next_session; 16]);
        let end = Rc::new(End::new(End2::Server));
        self.sessions.insert(id, Rc::clone(&end));
        self.who.insert(id, who);
        (id, end)
    }

    /// Time passes.
    pub(super) fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.tasks.pass(self.now);
        self.results.pass(self.now);
        let woken: Vec<_> =
            self.holders.iter().filter(|(_, one)| one.retry.is_woken()).map(|(key, _)| *key).collect();
        woken.into_iter().for_each(|key| self.work(key));
        // Somebody takes what comes out.
        while let std::task::Poll::Ready(Some(_)) =
            self.results.run(|queue, out| queue.poll_recv(None, &mut None, out))
        {}
        self.tell();
    }

    /// The server's own program does something.
    pub(super) fn act(&mut self, script: &mut Script<'_>) {
        let value = vec![0xee; script.place(300)];
        match script.one_of(3) {
            0 => {
                let value = netchan_proto::channel::Payload::Slice(&value);
                _ = self.tasks.run(|queue, out| queue.poll_acquire(None, &mut None, Some(value), out));
            }
            1 => _ = self.tasks.run(|queue, out| queue.poll_recv(None, &mut None, out)),
            _ => self.pass(1),
        }
        self.tell();
    }

    /// Does what follows from what a session has reported.
    pub(super) fn drain(&mut self, session: SessionId) {
        let Some(end) = self.sessions.get(&session).cloned() else { return };
        for event in end.take_events() {
            match &event {
                Event::Incoming(open) => self.open(session, &end, open),
                event => self.handle(session, event),
            }
        }
        self.tell();
    }

    fn handle(&mut self, session: SessionId, event: &Event) {
        let Some(id) = channel_of(event) else { return };
        let sink = self.tasks.place(session, id).map(|place| (place.side, place.port.clone()));
        if let Some((Side::Sink(key), port)) = sink {
            self.tasks.handle(session, event);
            let closed = Ends::with_sink(&port, |half| half.peer_closed().is_some()) != Some(false);
            if closed && self.holders.get(&key).is_some_and(|one| one.end.is_over() || one.beside.is_empty())
            {
                self.leave(key, true);
            }
        } else if sink.is_some() {
            self.tasks.handle(session, event);
        } else if !self.results.handle(session, event) {
            let beside = |one: &Holder| one.session == session && one.beside.contains(&id);
            let key = self.holders.iter().find(|(_, one)| beside(one)).map(|(key, _)| *key);
            if let Some(key) = key {
                self.tasks.run(|queue, out| queue.holder_back(key, out));
                self.work(key);
                let mut out = Out::default();
                self.holders.get_mut(&key).into_iter().for_each(|one| one.end.listen(&mut out));
                self.tasks.follow(out);
            }
        }
    }

    fn open(&mut self, session: SessionId, end: &Rc<End>, open: &Open) {
        let port = Port { end: Rc::clone(end), id: open.id };
        let who = self.who.get(&session).copied().unwrap_or(0);
        let accepted = match (open.purpose, open.flow) {
            (Purpose::Values, OpenFlow::OpenerSends) => {
                let queue = if open.name == "r" { &mut self.results } else { &mut self.tasks };
                let capacity = queue.queue.policy().capacity();
                if end.accept(open, Mode::Lease, capacity) && !queue.add_source(session, port.clone(), who) {
                    // A shell would have looked before it accepted.
                    _ = Ends::with_source(&port, |half| {
                        half.stop(netchan_proto::channel::CloseReason::plain());
                    });
                }
                true
            }
            (Purpose::Values | Purpose::Deliveries, OpenFlow::OpenerReceives) => {
                let holds = open.purpose == Purpose::Deliveries;
                let options = holds.then(|| HolderOptions::new(OUT_MAX));
                let capacity = self.tasks.queue.policy().capacity();
                if end.accept(open, Mode::Demand, capacity) {
                    match self.tasks.add_sink(session, port.clone(), who, open, options) {
                        Some(key) if holds => {
                            let holder = Holder {
                                session,
                                of: open.id,
                                beside: Vec::new(),
                                end: HolderEnd::new(key, who),
                                retry: Task::default(),
                            };
                            self.holders.insert(key, holder);
                        }
                        Some(_) => {}
                        None => {
                            _ = Ends::with_sink(&port, |half| {
                                half.reset(netchan_proto::channel::CloseReason::plain());
                            });
                        }
                    }
                }
                true
            }
            (Purpose::Acks { of } | Purpose::Outcomes { of }, _) => {
                let asks = matches!(open.purpose, Purpose::Acks { .. });
                let found = self.holders.values_mut().find(|one| one.session == session && one.of == of);
                let free = found.filter(|one| one.beside.len() < 2 && (asks || open.capacity > 0));
                match free {
                    Some(one) if end.accept(open, Mode::Credit, if asks { ASKS } else { open.capacity }) => {
                        let set = if asks { one.end.set_asks(port) } else { one.end.set_outcomes(port) };
                        if set {
                            one.beside.push(open.id);
                        }
                        set
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        if !accepted && end.control.borrow().is_offered(open.id) {
            _ = end.control.borrow_mut().refuse(open.id, RefuseCode::NotAvailable, String::new());
        }
    }

    /// Does what a holder asks for.
    fn work(&mut self, key: ReceiverKey) {
        let Self { tasks, results, holders, .. } = self;
        let Some(holder) = holders.get_mut(&key) else { return };
        let (micros, session) = (tasks.micros(), holder.session);
        let mut outs = (Out::default(), Out::default());
        let mut left = Vec::new();
        let mut bad = false;
        if holder.retry.is_woken() {
            holder.retry.sleep();
            for id in holder.end.waiting_for().collect::<Vec<_>>() {
                let into = results.place(session, id).is_some().then_some(Some(&mut results.queue));
                let (end, waker) = (&mut holder.end, &holder.retry.waker);
                left.push(tasks.queue.retry_results(end, id, into, waker, micros, &mut outs));
            }
        }
        loop {
            let asked = match holder.end.next_asks(PARKED_BYTES_MAX, &mut outs.0) {
                Ok(Some(asked)) => asked,
                Ok(None) => break,
                Err(_) => {
                    bad = true;
                    break;
                }
            };
            let into = match asked {
                Asked::Results(id) if results.place(session, id).is_some() => Some(Some(&mut results.queue)),
                _ => None,
            };
            let (end, waker) = (&mut holder.end, &holder.retry.waker);
            if tasks.queue.handle_asks(end, asked, into, waker, micros, &mut outs).is_err() {
                bad = true;
                break;
            }
        }
        holder.end.flush(&mut outs.0);
        let over = holder.end.is_over();
        tasks.follow(outs.0);
        results.follow(outs.1);
        for mut ticket in left {
            results.run(|queue, out| queue.leave_senders(&mut ticket, out));
        }
        if bad || over {
            self.leave(key, !bad);
        }
    }

    fn leave(&mut self, key: ReceiverKey, orderly: bool) {
        self.tasks.run(|queue, out| queue.remove_sink(key, 0, orderly, out));
        self.tell();
    }

    /// The link of a session is gone.
    pub(super) fn suspend(&mut self, session: SessionId) {
        self.drain(session);
        if let Some(end) = self.sessions.get(&session) {
            end.detach();
        }
        let fence_at = Some(self.now + GRACE_MILLIS);
        self.tasks.suspend(session, fence_at);
        self.results.suspend(session, None);
        for one in self.holders.values().filter(|one| one.session == session) {
            let key = one.end.key();
            self.tasks.run(|queue, out| queue.suspend_sink(key, fence_at, out));
        }
        self.tell();
    }

    /// A session has a link again.
    pub(super) fn attach(&mut self, session: SessionId) {
        self.tasks.attach(session);
        self.results.attach(session);
        self.tell();
    }

    /// A session is over.
    pub(super) fn lose(&mut self, session: SessionId) {
        self.tasks.lose(session);
        self.results.lose(session);
        let of: Vec<_> =
            self.holders.iter().filter(|(_, one)| one.session == session).map(|(key, _)| *key).collect();
        of.into_iter().for_each(|key| self.leave(key, false));
        self.sessions.remove(&session);
        self.who.remove(&session);
        self.tell();
    }

    fn tell(&mut self) {
        while let Some(news) = self.tasks.news.pop_front() {
            match news {
                News::Fenced(key, number) => {
                    if let Some(one) = self.holders.get_mut(&key) {
                        let mut out = Out::default();
                        one.end.fenced(number);
                        one.end.flush(&mut out);
                        self.tasks.follow(out);
                    }
                }
                News::Dead(_) => self.tasks.run(|queue, out| queue.buried(out)),
                News::Left(key) => {
                    let Some(mut one) = self.holders.remove(&key) else { continue };
                    let mut out = Out::default();
                    let places = one.end.end(&mut out);
                    self.tasks.follow(out);
                    for (_, mut ticket) in places {
                        self.results.run(|queue, out| queue.leave_senders(&mut ticket, out));
                    }
                }
                _ => {}
            }
        }
        self.results.news.clear();
        while self.tasks.queue.policy_mut().poll_fact().is_some() {}
        while self.results.queue.policy_mut().poll_fact().is_some() {}
    }

    /// Whether nothing waits in the queue for somebody to take it.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.queue.policy().is_empty()
    }

    /// What is kept is bounded.
    pub(super) fn check(&self) {
        for queue in [&self.tasks.queue, &self.results.queue] {
            let bytes = queue.policy().held_bytes();
            let most = QUEUE_BYTES_MAX + MESSAGE_BYTES_MAX as u64;
            assert!(bytes <= most, "{bytes} bytes are in a queue");
        }
        for (session, end) in &self.sessions {
            if let Err(excess) = end.check_memory() {
                panic!("{session}: {excess}");
            }
        }
    }
}
