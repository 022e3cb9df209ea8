//! How a queue of `netchan_proto::exchange` reaches the halves of sessions here, and who drives it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use netchan_proto::channel::{RecvHalf, SendHalf};
use netchan_proto::exchange::{Half, Moved, News, Output, Ports, Queue};
use netchan_proto::flow::Urgency;
use netchan_proto::hosted::{HolderOptions, ReceiverKey, SenderKey};
use netchan_proto::id::{ChannelId, SessionId};
use netchan_proto::session::{Event, Host};
use netchan_proto::wire::Open;

use crate::end::End;

/// What every link's round trip is taken for: about what a tick of the simulation there and one back take.
const ROUND_TRIP_MICROS: u64 = 20_000;

/// A channel of a session's end, also once both ends have closed it.
#[derive(Clone)]
pub struct Port {
    /// The session's end.
    pub end: Rc<End>,
    /// The channel.
    pub id: ChannelId,
}

/// Ends of sessions, as a queue reaches them.
pub struct Ends;

impl Ports for Ends {
    type Source = Port;
    type Sink = Port;
    /// Who it is, for the auditor.
    type Peer = u32;

    fn with_source<R>(Port { end, id }: &Port, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R> {
        if let Some(half) = end.receivers.borrow_mut().get_mut(id) {
            return Some(f(half));
        }
        end.ended_receivers.borrow_mut().get_mut(id).map(f)
    }

    fn with_sink<R>(Port { end, id }: &Port, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R> {
        if let Some(half) = end.senders.borrow_mut().get_mut(id) {
            return Some(f(half));
        }
        end.ended_senders.borrow_mut().get_mut(id).map(f)
    }

    fn probe(half: Half<'_, Self>) -> u64 {
        port_of(half).end.probe()
    }

    fn has_answered(half: Half<'_, Self>, probe: u64) -> bool {
        port_of(half).end.has_answered(probe)
    }
}

const fn port_of(half: Half<'_, Ends>) -> &Port {
    match half {
        Half::Source(port) | Half::Sink(port) => port,
    }
}

/// What follows from a call, once it is done.
pub type Out = Output<Ends>;

/// A task of the server's own program: polled only when it is woken, so that a wake-up that is lost is found.
pub struct Task {
    woken: Arc<Flag>,
    /// Calls the task.
    pub waker: Waker,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Default for Task {
    fn default() -> Self {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        Self { waker: Waker::from(Arc::clone(&woken)), woken }
    }
}

impl Task {
    /// Whether it has been woken and not been polled since.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }

    /// It goes on by itself.
    pub fn wake(&self) {
        self.woken.0.store(true, Ordering::Relaxed);
    }

    /// It is polled now.
    pub fn sleep(&self) {
        self.woken.0.store(false, Ordering::Relaxed);
    }
}

/// At which side of the queue a session's channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client sends.
    Source(SenderKey),
    /// The client receives.
    Sink(ReceiverKey),
}

/// A session's channel.
#[derive(Clone)]
pub struct Place {
    /// Where it is.
    pub side: Side,
    /// Who it is, for the auditor.
    pub who: u32,
    /// A sender whose unused credit has been lent to others.
    pub suspended: bool,
    /// Its half.
    pub port: Port,
}

/// A queue, its time, and the sessions' channels that lead to it. As the shell's, it only carries out what the queue says.
pub struct Driver {
    /// The object itself.
    pub queue: Queue<Ends>,
    /// The channels of sessions.
    pub places: BTreeMap<(SessionId, ChannelId), Place>,
    /// What it had to tell.
    pub news: VecDeque<News<Ends>>,
    now: u64,
    /// Values wait to go out together.
    dispatch_due: bool,
}

impl Driver {
    /// A queue of this capacity, which tells what becomes of each value.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let mut queue = Queue::new(capacity);
        queue.policy_mut().tell_facts();
        Self { queue, places: BTreeMap::new(), news: VecDeque::new(), now: 0, dispatch_due: false }
    }

    /// Time has come this far.
    pub fn pass(&mut self, now: u64) {
        self.now = now;
        if std::mem::take(&mut self.dispatch_due) {
            self.run(Queue::dispatch);
        }
        if self.queue.poll_timeout().is_some_and(|at| at <= now) {
            self.run(|queue, out| queue.handle_timeout(now, out));
        }
    }

    /// The time, in milliseconds.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// The time, in microseconds.
    #[must_use]
    pub const fn micros(&self) -> u64 {
        self.now * 1_000
    }

    /// Calls `f`, and does what follows from it.
    pub fn run<R>(&mut self, f: impl FnOnce(&mut Queue<Ends>, &mut Out) -> R) -> R {
        let mut out = Out::default();
        self.queue.advance(self.now);
        let result = f(&mut self.queue, &mut out);
        self.follow(out);
        result
    }

    /// Does what is left to do.
    pub fn follow(&mut self, out: Out) {
        if self.queue.wants_time() {
            self.queue.note_time(self.micros());
        }
        let Output { sources, sinks, streams, wakers, news, dispatch_due } = out;
        self.dispatch_due |= dispatch_due;
        wakers.into_iter().for_each(Waker::wake);
        for (Port { end, id }, urgency) in sources {
            if urgency > Urgency::None {
                end.set_ready(id);
            }
        }
        sinks.into_iter().chain(streams).for_each(|Port { end, id }| end.set_ready(id));
        self.news.extend(news);
    }

    /// A session sends into the queue from here on; its half is in place. False once the queue is closed.
    pub fn add_source(&mut self, session: SessionId, port: Port, who: u32) -> bool {
        let client = Some(u128::from(who));
        let Ok(key) = self.queue.add_source(client) else { return false };
        self.queue.attach_source(key, port.clone(), who, client);
        let place = Place { side: Side::Source(key), who, suspended: false, port: port.clone() };
        self.places.insert((session, port.id), place);
        self.run(|queue, out| queue.greet_source(key, out));
        true
    }

    /// A session receives from the queue from here on; its half is in place.
    pub fn add_sink(
        &mut self,
        session: SessionId,
        port: Port,
        who: u32,
        open: &Open,
        holder: Option<HolderOptions>,
    ) -> Option<ReceiverKey> {
        let client = Some(u128::from(who));
        let key = self.queue.add_sink(client, holder).ok()?;
        // An offer is taken by a receive that waits, so nothing of a rendezvous goes ahead.
        let ahead = if self.queue.policy().capacity() == 0 { 0 } else { open.ahead_max() };
        _ = Ends::with_sink(&port, |half| half.allow_ahead(ahead));
        self.queue.attach_sink(key, port.clone(), who, client, ahead > 0);
        let place = Place { side: Side::Sink(key), who, suspended: false, port: port.clone() };
        self.places.insert((session, port.id), place);
        self.run(|queue, out| queue.greet_sink(key, out));
        Some(key)
    }

    /// A channel of a session that leads here.
    #[must_use]
    pub fn place(&self, session: SessionId, id: ChannelId) -> Option<&Place> {
        self.places.get(&(session, id))
    }

    /// Those of a session.
    #[must_use]
    pub fn places_of(&self, session: SessionId) -> Vec<(ChannelId, Place)> {
        let range = self.places.range((session, ChannelId(0))..=(session, ChannelId(u32::MAX)));
        range.map(|((_, id), place)| (*id, place.clone())).collect()
    }

    /// Something happened to a session's channel. Says whether it leads here.
    pub fn handle(&mut self, session: SessionId, event: &Event) -> bool {
        let Some(id) = channel_of(event) else { return false };
        let Some(place) = self.places.get_mut(&(session, id)) else { return false };
        match place.side {
            Side::Source(key) => {
                place.suspended &= !matches!(event, Event::LeaseTold { .. });
                self.handle_source(key, event);
            }
            Side::Sink(key) => {
                let port = place.port.clone();
                self.handle_sink(key, &port, event);
            }
        }
        if matches!(event, Event::Finished(_)) {
            self.places.remove(&(session, id));
        }
        true
    }

    fn handle_source(&mut self, key: SenderKey, event: &Event) {
        self.run(|queue, out| match *event {
            Event::Readable(_) => queue.values_arrived(key, out),
            Event::Wanted { limit, .. } => queue.wanted(key, limit, out),
            Event::Yielded { limit, .. } => queue.yielded(key, limit, out),
            Event::LeaseTold { limit, .. } => queue.resume_source(key, limit, out),
            Event::WithdrawAsked { seq, .. } => queue.withdraw_asked(key, seq, out),
            Event::Finished(_) => queue.remove_source(key, out),
            _ => {}
        });
    }

    fn handle_sink(&mut self, key: ReceiverKey, port: &Port, event: &Event) {
        let now_micros = self.micros();
        let at = Ends::with_sink(port, |half| Moved {
            limit: half.limit(),
            taken: half.taken(),
            may_send: half.available() > 0,
            now_micros,
            round_trip_micros: Some(ROUND_TRIP_MICROS),
        });
        let closed = Ends::with_sink(port, |half| half.peer_closed().is_some()) != Some(false);
        self.run(|queue, out| match (event, at) {
            (Event::Writable(_) | Event::Finished(_), _) if closed => queue.close_sink(key, out),
            (Event::Finished(_), _) => queue.close_sink(key, out),
            (Event::Writable(_), Some(at)) => queue.sink_moved(key, at, out),
            (Event::RewindAsked { limit, .. }, _) => queue.rewound(key, *limit, out),
            _ => {}
        });
    }

    /// A session's link is gone.
    pub fn suspend(&mut self, session: SessionId, fence_at: Option<u64>) {
        for (id, place) in self.places_of(session) {
            self.run(|queue, out| match place.side {
                Side::Source(key) => queue.suspend_source(key, out),
                Side::Sink(key) => queue.suspend_sink(key, fence_at, out),
            });
            if let Some(place) = self.places.get_mut(&(session, id)) {
                place.suspended = true;
            }
        }
    }

    /// A session has a link again.
    pub fn attach(&mut self, session: SessionId) {
        for (_, place) in self.places_of(session) {
            if let Side::Sink(key) = place.side {
                self.run(|queue, out| queue.sink_attached(key, out));
            }
        }
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId) {
        for (id, place) in self.places_of(session) {
            self.places.remove(&(session, id));
            let taken = Ends::with_sink(&place.port, |half| half.taken()).unwrap_or(0);
            self.run(|queue, out| match place.side {
                Side::Source(key) => queue.remove_source(key, out),
                Side::Sink(key) => queue.remove_sink(key, taken, false, out),
            });
        }
    }
}

/// The channel that something happened to.
#[must_use]
pub const fn channel_of(event: &Event) -> Option<ChannelId> {
    match *event {
        Event::Readable(id)
        | Event::Writable(id)
        | Event::Finished(id)
        | Event::RecallDeferred(id)
        | Event::Wanted { id, .. }
        | Event::Yielded { id, .. }
        | Event::LeaseTold { id, .. }
        | Event::RewindAsked { id, .. }
        | Event::WithdrawAsked { id, .. } => Some(id),
        _ => None,
    }
}
