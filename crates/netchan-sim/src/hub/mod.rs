//! A hosted channel as a server keeps it: a queue of `netchan_proto::exchange`, and what the auditor is told of it.

pub mod deliveries;
mod local;
pub mod ports;

use std::collections::{BTreeMap, BTreeSet};

use netchan_proto::channel::CloseReason;
use netchan_proto::exchange::{News, Ports, Stopped};
use netchan_proto::hosted::{Fact, ReceiverKey};
use netchan_proto::id::SessionId;
use netchan_proto::session::Event;
use netchan_proto::wire::Open;
use rand::Rng;
use rand::rngs::StdRng;

use self::local::Local;
use self::ports::{Driver, Ends, Place, Port, Side};
use crate::audit::Audit;
use crate::value::Value;

/// Bytes of the values in one queue of three: few, so that senders wait for that too.
const BYTES_MAX: u64 = 150;

/// A hosted channel.
pub struct Hub {
    /// As the auditor knows it.
    pub chan: u32,
    /// Its capacity.
    pub capacity: u64,
    driver: Driver,
    local: Local,
    closed: bool,
    /// Who each receiver is, for the auditor.
    receivers: BTreeMap<ReceiverKey, Place>,
    /// Which value has which ticket.
    values: BTreeMap<u64, (u32, u64)>,
    /// Senders that were stopped: what they had sent is this channel's alone.
    stopped: BTreeSet<u32>,
}

/// Who the server's own programs are, for the auditor.
pub const LOCAL: u32 = 1_000_000;

impl Hub {
    /// A channel into which the server itself sends `total` values.
    #[must_use]
    pub fn new(chan: u32, capacity: u64, total: u64, receives: bool) -> Self {
        let mut driver = Driver::new(capacity);
        if chan.is_multiple_of(3) {
            driver.queue.policy_mut().set_bytes_max(BYTES_MAX);
        }
        Self {
            chan,
            capacity,
            driver,
            local: Local::new(chan, total, receives),
            closed: false,
            receivers: BTreeMap::new(),
            values: BTreeMap::new(),
            stopped: BTreeSet::new(),
        }
    }

    /// The capacity law, over the senders that the channel serves now: what others had committed under leases that were
    /// lent again comes on top, and is counted as overdraft once they are back.
    pub fn check_capacity(&self, audit: &mut Audit) {
        let active = self.driver.places.values().filter(|place| !place.suspended);
        let active = active.filter(|place| matches!(place.side, Side::Source(_))).map(|place| place.who);
        let active: Vec<_> = active.chain(self.local.senders()).collect();
        audit.capacity_law(self.chan, self.driver.queue.policy().overdraft(), &active);
    }

    /// How it stands.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} {:?} {:?}", self.chan, self.local, self.driver.queue)
    }

    /// Whether the channel has come to its end, and its receiver here knows.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.driver.queue.is_finished()
    }

    /// Whether anybody may still send.
    #[must_use]
    pub fn has_senders(&self) -> bool {
        let sends = |place: &Place| matches!(place.side, Side::Source(_));
        self.driver.places.values().any(sends) || !self.has_sent()
    }

    /// Whether the server's own program has sent what it had.
    #[must_use]
    pub fn has_sent(&self) -> bool {
        self.local.has_sent()
    }

    /// Whether it takes no more openers.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The process ends.
    pub fn die(&self, audit: &mut Audit) {
        audit.died(self.chan);
        self.local.senders().for_each(|sender| audit.sender_died(self.chan, sender));
        // At the close, too, senders are told the end once everything they sent is here.
        let told = |sender: &u32| self.closed || self.stopped.contains(sender);
        for (sender, number) in self.values.values().filter(|(sender, _)| told(sender)) {
            audit.value_died(self.chan, *sender, *number);
        }
    }

    /// A session sends into the channel from here on.
    pub fn add_sender(&mut self, session: SessionId, port: Port, who: u32, audit: &mut Audit) {
        if !self.driver.add_source(session, port, who) {
            audit.wrong("a channel that was open took no sender");
        }
        self.observe(audit);
    }

    /// A session receives from the channel from here on.
    pub fn add_receiver(&mut self, session: SessionId, port: Port, who: u32, open: &Open, audit: &mut Audit) {
        let id = port.id;
        match self.driver.add_sink(session, port, who, open, None) {
            Some(key) => {
                let place = self.driver.place(session, id).cloned();
                place.map(|place| self.receivers.insert(key, place));
            }
            None => audit.wrong("a channel that was open took no receiver"),
        }
        self.observe(audit);
    }

    /// Something happened to a session's end of this channel, or of another. Says whether it was this one's.
    pub fn handle(&mut self, session: SessionId, event: &Event, audit: &mut Audit) -> bool {
        let handled = self.driver.handle(session, event);
        self.observe(audit);
        handled
    }

    /// A session's link is gone.
    pub fn suspend(&mut self, session: SessionId, audit: &mut Audit) {
        self.driver.suspend(session, None);
        self.observe(audit);
    }

    /// A session has a link again.
    pub fn attach(&mut self, session: SessionId, audit: &mut Audit) {
        self.driver.attach(session);
        self.observe(audit);
    }

    /// A session is over.
    pub fn lose(&mut self, session: SessionId, audit: &mut Audit) {
        for (_, place) in self.driver.places_of(session) {
            if matches!(place.side, Side::Sink(_)) {
                self.lost(&place, audit);
            }
        }
        self.driver.lose(session);
        self.observe(audit);
    }

    /// A receiver is given up: what it has taken last may not have been heard of, and what has left for it may arrive.
    fn lost(&self, place: &Place, audit: &mut Audit) {
        audit.receiver_lost(self.chan, place.who);
        _ = Ends::with_sink(&place.port, |half| {
            half.for_each_unsettled(|value| {
                if value.in_doubt
                    && let Some(Value { sender, number, .. }) = Value::parse(value.payload.as_slice())
                {
                    audit.doubtful(self.chan, sender, number);
                }
            });
        });
    }

    /// Time passes, and the server's own programs do what they can. Says whether anything was done.
    pub fn step(&mut self, now: u64, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        self.driver.pass(now);
        self.observe(audit);
        let mut moved = self.step_local(audit, rng, calm);
        // Some channels are closed while others still send.
        if !self.closed && (calm && !self.has_senders() || !calm && rng.random_ratio(1, 600)) {
            self.closed = true;
            self.driver.run(|queue, out| queue.close(CloseReason::plain(), out));
            audit.ending = true;
            moved = true;
            self.observe(audit);
        }
        moved
    }

    /// Tells the auditor what became of each value, and of each client.
    fn observe(&mut self, audit: &mut Audit) {
        while let Some(fact) = self.driver.queue.policy_mut().poll_fact() {
            self.note(fact, audit);
        }
        while let Some(news) = self.driver.news.pop_front() {
            match news {
                News::Stopped { peer, why: Stopped::Stalled } => {
                    let place = self.receivers.values().find(|place| place.who == peer).cloned();
                    match place {
                        Some(place) => self.lost(&place, audit),
                        None => self.no_longer_served(peer),
                    }
                }
                News::Stopped { peer, why } => {
                    audit.wrong(format!("channel {}: {peer} was stopped: {why:?}", self.chan));
                }
                News::Dead(_) | News::Fenced(..) => audit.wrong("deliveries, where there are no holders"),
                News::Closed | News::Finished | News::Left(_) => {}
            }
        }
    }

    /// A sender was stopped for credit that it did not use: others have that now, and what it had committed but not sent it
    /// will hear did not arrive.
    fn no_longer_served(&mut self, who: u32) {
        self.stopped.insert(who);
        for place in self.driver.places.values_mut().filter(|place| place.who == who) {
            place.suspended = true;
        }
    }

    fn note(&mut self, fact: Fact<Option<u32>>, audit: &mut Audit) {
        match fact {
            Fact::Admitted { item } => {
                if let Some(Value { sender, number, .. }) = Value::parse(&item.bytes) {
                    self.values.insert(item.ticket, (sender, number));
                }
            }
            Fact::Dispatched { ticket, to } => {
                let who = self.receivers.get(&to).map_or(self.local.receiver, |place| place.who);
                if let Some((sender, number)) = self.values.get(&ticket) {
                    audit.dispatched(self.chan, *sender, *number, who);
                }
            }
            Fact::Back { ticket, .. } => {
                if let Some((sender, number)) = self.values.get(&ticket) {
                    audit.given_back(self.chan, *sender, *number);
                }
            }
            Fact::Gone { ticket } => _ = self.values.remove(&ticket),
            _ => {}
        }
    }
}
