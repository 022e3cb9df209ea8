//! Connections that are not let in yet: how many there may be, and which go when there are too many (`PORT-2`).
//!
//! A stranger costs an entry here, a task and a few kilobytes until its deadline. When many are here, some are dropped by lot among all
//! that have been for a while and not said what they want. An honest client says so at once, so no lot falls on it, whoever came
//! first; if so many come that there is no room, the rest waits in the kernel's queue until somebody leaves or has been here for long
//! enough.

mod gate;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

pub(super) use self::gate::AtGate;
use crate::limits::Limits;

/// Whose connections are counted together (`PORT-3`): an IPv4 address, or an IPv6 network of 64 bits, all of which one machine may have.
type Source = IpAddr;

/// How long a server is content with fewer connections, before it sees whether there are descriptors for more.
const CONTENT_FOR: Duration = Duration::from_secs(10);

/// Who is here for less is quick, and no lot falls on it: an honest client says all of its first flight when it is connected, and
/// that takes half a round trip.
const QUICK_MAX: Duration = Duration::from_millis(250);

/// While there is no room, how often it looks whether the lot can fall on somebody by now.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Descriptors that it leaves free then: one for whoever comes, one for the reserve.
const SPARE: usize = 2;

/// The doorway of one server.
pub(super) struct Doorway {
    half_open_max: usize,
    per_source_max: usize,
    exempt: Vec<Source>,
    connections_max: usize,
    /// Fewer, for a while: so many as there were when there were no descriptors for more.
    fewer: Mutex<Option<(usize, Instant)>>,
    /// Connections of sessions.
    connected: Arc<AtomicUsize>,
    /// For handshakes whose gates are to be opened, and when one last came free.
    places: Arc<Semaphore>,
    freed: Mutex<Instant>,
    /// No lot falls on whoever has been here for less.
    quick: Duration,
    /// Those that wait for one, and how many may before no more connections are taken.
    waiting: AtomicUsize,
    waiting_max: usize,
    /// Connections that are open, those included that are being sent away.
    open: Arc<Open>,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Open {
    count: AtomicUsize,
    fewer: Notify,
}

/// Counts an open connection.
struct Counted(Arc<Open>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.fewer.notify_waiters();
    }
}

#[derive(Default)]
struct Inside {
    /// In no order, so that lots can be drawn.
    entries: Vec<Entry>,
    /// Where each is in `entries`.
    places: HashMap<u64, usize>,
    per_source: HashMap<Source, usize>,
    entered: u64,
}

struct Entry {
    id: u64,
    source: Option<Source>,
    since: Instant,
    /// It has sent a whole first flight, as whoever has something to say does at once.
    spoke: bool,
    /// Its gate is open.
    at_work: bool,
    /// Dropped, it sends the connection away.
    _hold: oneshot::Sender<()>,
}

/// A connection that is not let in yet.
pub(super) struct HalfOpen {
    doorway: Arc<Doorway>,
    id: u64,
    dropped: oneshot::Receiver<()>,
    /// Dropped last: until then the connection is open.
    open: Option<Counted>,
}

/// A connection that belongs to a session.
pub(crate) struct Connected {
    connected: Arc<AtomicUsize>,
    _open: Option<Counted>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Doorway {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let half_open_max = limits.half_open_max.max(1);
        let connections_max = limits.effective_connections_max();
        let here_max = half_open_max.min(connections_max);
        // At most half of those who are here are past their gates, and a quarter wait there: the rest is for who comes.
        let places = limits.handshakes_max.min(here_max / 2).clamp(1, Semaphore::MAX_PERMITS);
        // Where few may be here, or many come, they must be quicker.
        let turn =
            Duration::from_secs(1).mul_f64(here_max as f64 / f64::from(limits.accepts_per_second.max(1)));
        Arc::new(Self {
            half_open_max,
            per_source_max: limits.half_open_per_address_max.max(1),
            exempt: limits.half_open_exempt.iter().copied().map(network).collect(),
            connections_max,
            fewer: Mutex::default(),
            connected: Arc::default(),
            places: Arc::new(Semaphore::new(places)),
            freed: Mutex::new(Instant::now()),
            waiting: AtomicUsize::new(0),
            waiting_max: (places / 2).max(1),
            quick: QUICK_MAX.min(turn),
            open: Arc::default(),
            inside: Mutex::default(),
        })
    }

    /// Someone comes. Whoever the lot falls on is sent away.
    pub(super) fn enter(self: &Arc<Self>, address: &str) -> HalfOpen {
        let source = source_of(address).filter(|source| !self.exempt.contains(source));
        let (hold, dropped) = oneshot::channel();
        let now = Instant::now();
        let mut away = Vec::new();
        let id = {
            let mut inside = self.inside.lock();
            let id = inside.add(source, now, hold);
            if let Some(source) = source {
                let here = inside.per_source.get(&source).copied().unwrap_or(0);
                inside.send_away(
                    here.saturating_sub(self.per_source_max),
                    Some(source),
                    self.quick,
                    &mut away,
                );
            }
            let early = is_drawn(inside.entries.len(), self.half_open_max(), fraction());
            inside.send_away(usize::from(early), None, self.quick, &mut away);
            id
        };
        say_farewell(away);
        self.open.count.fetch_add(1, Ordering::SeqCst);
        let open = Some(Counted(Arc::clone(&self.open)));
        HalfOpen { doorway: Arc::clone(self), id, dropped, open }
    }

    /// Waits until there is room for one more: until somebody leaves, or the lot can fall on somebody; and until the handshakes of
    /// those who are here go on. When a whole fleet comes at once, it waits in the kernel's queue.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn room(&self) {
        loop {
            let fewer = self.open.fewer.notified();
            let mut fewer = std::pin::pin!(fewer);
            fewer.as_mut().enable();
            if self.has_room() {
                return;
            }
            // Those who are here get older, and nobody says so.
            _ = tokio::time::timeout(LOOK_AGAIN, fewer).await;
        }
    }

    fn has_room(&self) -> bool {
        if self.waiting.load(Ordering::SeqCst) >= self.waiting_max {
            return false;
        }
        let max = self.half_open_max();
        let mut away = Vec::new();
        let fits = {
            let mut inside = self.inside.lock();
            let too_many = (inside.entries.len() + 1).saturating_sub(max);
            inside.send_away(too_many, None, self.quick, &mut away);
            inside.entries.len() < max
        };
        say_farewell(away);
        // Those who were sent away have yet to leave.
        fits && self.open.count.load(Ordering::SeqCst) < self.connections_max()
    }

    /// What sessions have is not to be had by strangers.
    fn half_open_max(&self) -> usize {
        let room = self.connections_max().saturating_sub(self.connected.load(Ordering::Relaxed));
        self.half_open_max.min(room).max(1)
    }

    /// There are no descriptors for more than are here: for a while no more come than that, less some. Others of the process
    /// may have them, so the bound is not known beforehand.
    pub(super) fn be_content(&self) {
        let open = self.open.count.load(Ordering::SeqCst);
        // Nobody but those that are half-open can be waited for.
        let at_least = self.connected.load(Ordering::Relaxed) + 1;
        *self.fewer.lock() = Some((open.saturating_sub(SPARE).max(at_least), Instant::now()));
        let mut away = Vec::new();
        self.inside.lock().send_away(SPARE, None, self.quick, &mut away);
        say_farewell(away);
    }

    fn connections_max(&self) -> usize {
        let mut fewer = self.fewer.lock();
        match *fewer {
            Some((_, since)) if since.elapsed() >= CONTENT_FOR => {
                *fewer = None;
                self.connections_max
            }
            Some((open, _)) => open.min(self.connections_max),
            None => self.connections_max,
        }
    }
}

impl HalfOpen {
    pub(super) fn at_gate(&self) -> AtGate {
        AtGate { doorway: Arc::clone(&self.doorway), id: self.id }
    }

    /// Completes when the lot has fallen on it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn sent_away(&mut self) {
        _ = (&mut self.dropped).await;
    }

    /// It belongs to a session now.
    pub(super) fn let_in(mut self) -> Connected {
        self.doorway.connected.fetch_add(1, Ordering::Relaxed);
        Connected { connected: Arc::clone(&self.doorway.connected), _open: self.open.take() }
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        let entry = self.doorway.inside.lock().remove(self.id);
        drop(entry);
    }
}

impl Inside {
    fn add(&mut self, source: Option<Source>, since: Instant, hold: oneshot::Sender<()>) -> u64 {
        let id = self.entered;
        self.entered += 1;
        self.places.insert(id, self.entries.len());
        self.entries.push(Entry { id, source, since, spoke: false, at_work: false, _hold: hold });
        if let Some(source) = source {
            *self.per_source.entry(source).or_default() += 1;
        }
        id
    }

    fn set_spoke(&mut self, id: u64) {
        if let Some(place) = self.places.get(&id)
            && let Some(entry) = self.entries.get_mut(*place)
        {
            entry.spoke = true;
        }
    }

    fn set_at_work(&mut self, id: u64, at_work: bool) {
        if let Some(place) = self.places.get(&id)
            && let Some(entry) = self.entries.get_mut(*place)
        {
            entry.at_work = at_work;
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let place = self.places.remove(&id)?;
        let entry = self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.id, place);
        }
        if let Some(source) = entry.source
            && let Some(count) = self.per_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&source);
            }
        }
        Some(entry)
    }

    /// Sends so many away, of all or of one source, each as likely as the others that have been here for longer than `quick` and not
    /// said what they want; fewer if there are no more of those.
    fn send_away(&mut self, count: usize, source: Option<Source>, quick: Duration, away: &mut Vec<Entry>) {
        if count == 0 {
            return;
        }
        let now = Instant::now();
        let stays_on = |entry: &&Entry| {
            let is_slow = !entry.spoke && now.saturating_duration_since(entry.since) >= quick;
            is_slow && (source.is_none() || entry.source == source)
        };
        let mut candidates: Vec<_> = self.entries.iter().filter(stays_on).map(|entry| entry.id).collect();
        for _ in 0..count {
            let Some(nth) = below(candidates.len()) else { break };
            away.extend(self.remove(candidates.swap_remove(nth)));
        }
    }
}

fn say_farewell(away: Vec<Entry>) {
    away.into_iter().for_each(|entry| super::audit::crowded_out(entry.source));
}

/// Never up to half of what there may be, always beyond all of it, ever more often between; and never among one alone.
fn is_drawn(here: usize, max: usize, fraction: f64) -> bool {
    let early = max / 2;
    here > early.max(1) && fraction * ((max + 1 - early) as f64) < (here - early) as f64
}

/// Evenly distributed over [0, 1).
fn fraction() -> f64 {
    let bits = u64::from_be_bytes(crate::system::random()) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

fn below(count: usize) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let wide = u128::from(u64::from_be_bytes(crate::system::random())) * count as u128;
    usize::try_from(wide >> 64).ok()
}

/// The source of a connection whose transport says where it comes from as `address:port`; others are not counted apart.
fn source_of(address: &str) -> Option<Source> {
    address.parse::<SocketAddr>().ok().map(|address| network(address.ip()))
}

fn network(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}
