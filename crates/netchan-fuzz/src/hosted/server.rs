//! The server: a queue of tasks, a queue that results go into, and its sessions.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Poll;

use netchan_proto::channel::{CloseReason, Payload};
use netchan_proto::exchange::{News, Ports};
use netchan_proto::flow::Violation;
use netchan_proto::hosted::HolderOptions;
use netchan_proto::id::{SessionId, Side};
use netchan_proto::session::{Event, ReadHalf, WriteHalf};
use netchan_proto::wire::{Mode, Open, OpenFlow, Purpose, RefuseCode};
use netchan_sim::end::{End, MESSAGE_BYTES_MAX};
use netchan_sim::hub::deliveries::{Deliveries, Watch};
use netchan_sim::hub::ports::{Ends, Port};

use crate::script::Script;

/// Bytes of all values in a queue: few, so that a run meets the bound.
const QUEUE_BYTES_MAX: u64 = 2_000;
/// Results that may wait for places, in bytes.
const PARKED_BYTES_MAX: u64 = 200;
/// Asks that may be under way.
const ASKS: u64 = 8;
/// Values that may be out to one holder.
const OUT_MAX: u64 = 4;

/// A session, as one of its ends has it.
pub(super) struct Link {
    pub(super) end: Rc<End>,
    pub(super) read: ReadHalf,
    pub(super) write: WriteHalf,
}

pub(super) struct Server {
    queues: Deliveries,
    sessions: BTreeMap<SessionId, Rc<End>>,
    /// The client of each session.
    who: BTreeMap<SessionId, u32>,
    next_session: u8,
    now: u64,
}

/// A hostile holder breaks rules, and is removed; nothing else is to be told.
struct Unheeded;

impl Watch for Unheeded {
    fn changed(&mut self, queues: &mut Deliveries) {
        while let Some(news) = queues.tasks.news.pop_front() {
            match news {
                News::Fenced(key, number) => queues.fenced(key, number),
                News::Dead(_) => queues.tasks.run(|queue, out| queue.buried(out)),
                News::Left(key) => queues.left(key),
                _ => {}
            }
        }
        queues.results.news.clear();
        while queues.tasks.queue.policy_mut().poll_fact().is_some() {}
        while queues.results.queue.policy_mut().poll_fact().is_some() {}
    }

    fn broken(&mut self, _: Violation) {}
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("tasks", &self.queues.tasks.queue).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(script: &mut Script<'_>) -> Self {
        let capacity = [4, 1, 16, 2][usize::from(script.one_of(4))];
        let mut queues = Deliveries::new(capacity, 2, PARKED_BYTES_MAX);
        for queue in [&mut queues.tasks, &mut queues.results] {
            queue.queue.policy_mut().set_bytes_max(QUEUE_BYTES_MAX);
        }
        queues.tasks.queue.policy_mut().set_attempts_max(Some(3));
        Self { queues, sessions: BTreeMap::new(), who: BTreeMap::new(), next_session: 0, now: 0 }
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// Another session of `who`.
    pub(super) fn admit(&mut self, who: u32) -> (SessionId, Rc<End>) {
        self.next_session = self.next_session.wrapping_add(1);
        let id = SessionId([self.next_session; 16]);
        let end = Rc::new(End::new(Side::Server));
        self.sessions.insert(id, Rc::clone(&end));
        self.who.insert(id, who);
        (id, end)
    }

    /// Time passes.
    pub(super) fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.queues.tasks.pass(self.now);
        self.queues.results.pass(self.now);
        self.queues.work_woken(&mut Unheeded);
        // The program takes every result.
        let results = &mut self.queues.results;
        while let Poll::Ready(Some(_)) = results.run(|queue, out| queue.poll_recv(None, &mut None, out)) {}
        Unheeded.changed(&mut self.queues);
    }

    /// The server's own program does something.
    pub(super) fn act(&mut self, script: &mut Script<'_>) {
        let value = vec![0xee; script.place(300)];
        let tasks = &mut self.queues.tasks;
        match script.one_of(3) {
            0 => {
                let value = Payload::Slice(&value);
                _ = tasks.run(|queue, out| queue.poll_acquire(None, &mut None, Some(value), out));
            }
            1 => _ = tasks.run(|queue, out| queue.poll_recv(None, &mut None, out)),
            _ => self.pass(1),
        }
        Unheeded.changed(&mut self.queues);
    }

    /// Does what follows from what a session has reported.
    pub(super) fn drain(&mut self, session: SessionId) {
        let Some(end) = self.sessions.get(&session).cloned() else { return };
        for event in end.take_events() {
            match &event {
                Event::Incoming(open) => self.open(session, &end, open),
                event => _ = self.queues.handle(session, event, &mut Unheeded),
            }
        }
        Unheeded.changed(&mut self.queues);
    }

    fn open(&mut self, session: SessionId, end: &Rc<End>, open: &Open) {
        let port = Port { end: Rc::clone(end), id: open.id };
        let who = self.who.get(&session).copied().unwrap_or(0);
        let queues = &mut self.queues;
        let accepted = match (open.purpose, open.flow) {
            (Purpose::Values, OpenFlow::OpenerSends) => {
                let queue = if open.name == "r" { &mut queues.results } else { &mut queues.tasks };
                let capacity = queue.queue.policy().capacity();
                if end.accept(open, Mode::Lease, capacity) && !queue.add_source(session, port.clone(), who) {
                    // A real server would have refused it before.
                    _ = Ends::with_source(&port, |half| half.stop(CloseReason::plain()));
                }
                true
            }
            (Purpose::Values | Purpose::Deliveries, OpenFlow::OpenerReceives) => {
                let capacity = queues.tasks.queue.policy().capacity();
                let added = !end.accept(open, Mode::Demand, capacity)
                    || match open.purpose {
                        Purpose::Deliveries => {
                            let options = HolderOptions::new(OUT_MAX);
                            queues.add_holder(session, port.clone(), who, open, options)
                        }
                        _ => queues.tasks.add_sink(session, port.clone(), who, open, None).is_some(),
                    };
                if !added {
                    _ = Ends::with_sink(&port, |half| half.reset(CloseReason::plain()));
                }
                true
            }
            (Purpose::Acks { of } | Purpose::Outcomes { of }, _) => {
                let asks = matches!(open.purpose, Purpose::Acks { .. });
                let capacity = if asks { ASKS } else { open.capacity };
                queues.has_holder(session, of)
                    && capacity > 0
                    && end.accept(open, Mode::Credit, capacity)
                    && queues.add_service(session, of, port, asks)
            }
            _ => false,
        };
        if !accepted && end.control.borrow().is_offered(open.id) {
            _ = end.control.borrow_mut().refuse(open.id, RefuseCode::NotAvailable, String::new());
        }
    }

    /// The link of a session is gone.
    pub(super) fn suspend(&mut self, session: SessionId) {
        self.drain(session);
        if let Some(end) = self.sessions.get(&session) {
            end.detach();
        }
        self.queues.suspend(session, false);
        Unheeded.changed(&mut self.queues);
    }

    /// A session has a link again.
    pub(super) fn attach(&mut self, session: SessionId) {
        self.queues.attach(session);
        Unheeded.changed(&mut self.queues);
    }

    /// A session is over.
    pub(super) fn lose(&mut self, session: SessionId) {
        self.queues.lose(session);
        self.sessions.remove(&session);
        self.who.remove(&session);
        Unheeded.changed(&mut self.queues);
    }

    /// Whether nothing waits in the queue for somebody to take it.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.tasks.queue.policy().is_empty()
    }

    /// What is kept is bounded.
    pub(super) fn check(&self) {
        for queue in [&self.queues.tasks.queue, &self.queues.results.queue] {
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
