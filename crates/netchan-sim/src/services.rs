//! Programs of clients that take deliveries, and that subscribe to broadcasts.

use std::collections::{BTreeMap, BTreeSet};

use netchan_proto::channel::{CloseReason, RecvHalf};
use netchan_proto::id::ChannelId;
use netchan_proto::session::Host;
use netchan_proto::wire::{Ask, Handed, OpenFlow, Outcome, Purpose, Reader, Verdict};
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Audit;
use crate::cast::{LAGGED, VALUE};
use crate::end::End;
use crate::value::Value;

/// Outcomes that may be on their way: few, so that there is no room for them now and then.
const OUTCOMES: u64 = 4;

/// A holder's result of a task, for the delivery numbered so.
fn result(chan: u32, who: u32, task: u64, number: u64) -> Vec<u8> {
    Value { chan, sender: who, number: task << 32 | number }.bytes(24)
}

/// Whose result it is, of which task, and for which of its deliveries.
#[must_use]
pub fn split_result(bytes: &[u8]) -> Option<(u32, u64, u64)> {
    let Value { sender, number, .. } = Value::parse(bytes)?;
    Some((sender, number >> 32, number & u64::from(u32::MAX)))
}

fn plain() -> CloseReason {
    CloseReason { code: 300, reason: "enough".to_owned() }
}

/// Takes tasks, and says of each what it does with it.
#[derive(Debug)]
pub struct HolderProgram {
    chan: u32,
    who: u32,
    name: String,
    deliveries: ChannelId,
    asks: Option<ChannelId>,
    outcomes: Option<ChannelId>,
    /// Where its results go.
    results: Option<ChannelId>,
    /// Numbers and tasks that it works at.
    held: Vec<(u64, u64)>,
    /// Results that it waits to hear of, by token.
    asked: BTreeMap<u64, (u64, u64)>,
    fenced: BTreeSet<u64>,
    last_token: u64,
    /// It takes nothing more after so many.
    stop_after: Option<u64>,
    taken: u64,
    /// Nothing more will come.
    pub done: bool,
}

impl HolderProgram {
    /// Asks for deliveries of a queue.
    #[must_use]
    pub fn open(end: &End, chan: u32, who: u32, ahead: bool, prefetch: u64, stop_after: Option<u64>) -> Self {
        let name = format!("q:{chan}:{who}");
        let capacity = u64::from(ahead);
        let deliveries =
            end.open_for(Purpose::Deliveries, &name, OpenFlow::OpenerReceives, capacity, prefetch);
        Self {
            chan,
            who,
            name,
            deliveries,
            asks: None,
            outcomes: None,
            results: None,
            held: Vec::new(),
            asked: BTreeMap::new(),
            fenced: BTreeSet::new(),
            last_token: 0,
            stop_after,
            taken: 0,
            done: false,
        }
    }

    /// One of its channels was refused: the queue has ended, or the session did not keep up.
    pub fn refused(&mut self, id: ChannelId) {
        self.done |= [Some(self.deliveries), self.asks, self.outcomes, self.results].contains(&Some(id));
    }

    /// Does what can be done now. Says whether anything was.
    pub fn step(&mut self, end: &End, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        if self.done {
            return false;
        }
        let is_open = end.receivers.borrow().contains_key(&self.deliveries)
            || end.ended_receivers.borrow().contains_key(&self.deliveries);
        if !is_open {
            return false;
        }
        let of = self.deliveries;
        let (Some(asks), Some(outcomes), Some(results)) = (self.asks, self.outcomes, self.results) else {
            self.results = Some(self.open_results(end));
            self.asks = Some(end.open_for(Purpose::Acks { of }, &self.name, OpenFlow::OpenerSends, 0, 0));
            let purpose = Purpose::Outcomes { of };
            self.outcomes = Some(end.open_for(purpose, &self.name, OpenFlow::OpenerReceives, OUTCOMES, 0));
            return true;
        };
        let mut moved = self.hear(end, outcomes, audit);
        if end.with_send(asks, |half| half.peer_closed().is_none()) != Some(true)
            && end.ended_senders.borrow().contains_key(&asks)
        {
            // Its deliveries are others', and nobody answers any more.
            self.held.clear();
            self.asked.clear();
        }
        if end.ended_senders.borrow().contains_key(&results) && !self.held.is_empty() {
            // It was stopped for credit that it did not use in time.
            self.results = Some(self.open_results(end));
            return true;
        }
        let (took, over) = self.take(end, rng, calm);
        moved |= took;
        moved |= self.work(end, asks, results, rng, calm);
        if over && self.held.is_empty() && self.asked.is_empty() {
            moved |= self.leave(end, asks, outcomes, results);
        }
        moved
    }

    fn open_results(&self, end: &End) -> ChannelId {
        end.open(&format!("r:{}:{}", self.chan, self.who), OpenFlow::OpenerSends, 0, 0)
    }

    /// Takes what has come. Also says whether nothing more will.
    fn take(&mut self, end: &End, rng: &mut StdRng, calm: bool) -> (bool, bool) {
        let mut receivers = end.receivers.borrow_mut();
        let Some(half) = receivers.get_mut(&self.deliveries) else { return (false, true) };
        if half.ended().is_some() {
            return (false, true);
        }
        if self.stop_after.is_some_and(|most| self.taken >= most) {
            half.stop(plain());
            return (true, true);
        }
        if half.ready() > 0 && (calm || rng.random_bool(0.6)) {
            half.set_waiting(0);
            return (self.take_one(half), false);
        }
        if calm || rng.random_bool(0.5) {
            half.set_waiting(1);
        } else if rng.random_ratio(1, 6) {
            half.set_waiting(0);
            if half.has_excess() {
                half.give_back();
                return (true, false);
            }
        }
        (false, false)
    }

    fn take_one(&mut self, half: &mut RecvHalf) -> bool {
        let Some(bytes) = half.take().map(|payload| payload.as_slice().to_vec()) else { return false };
        let number = half.taken() - 1;
        self.taken += 1;
        let task = Handed::split(&bytes).ok().and_then(|(_, rest)| Value::parse(rest));
        if let Some(task) = task {
            // One that is fenced already is another's, unless the number is another task's by now: its server knows.
            self.held.push((number, task.number));
        }
        true
    }

    /// Acknowledges, gives back, extends.
    fn work(&mut self, end: &End, asks: ChannelId, results: ChannelId, rng: &mut StdRng, calm: bool) -> bool {
        let Some(at) = (0..self.held.len()).find(|_| calm || rng.random_ratio(1, 4)) else { return false };
        let (number, task) = self.held[at];
        let result = result(self.chan, self.who, task, number);
        let token = self.last_token + 1;
        let ends = calm || !rng.random_ratio(1, 4);
        let ask = if ends && (calm || rng.random_ratio(5, 6)) && !self.fenced.contains(&number) {
            Ask::AckWith { number, results, value: &result }
        } else if ends {
            Ask::Nack {
                number,
                delay_millis: if rng.random_bool(0.5) { 0 } else { rng.random_range(1..300) },
            }
        } else {
            Ask::Extend { number, millis: rng.random_range(1..2_000) }
        };
        let mut bytes = Vec::new();
        ask.write(token, &mut bytes);
        let pushed = end.with_send(asks, |half| half.push(|item| item.extend(&bytes)).is_ok());
        if pushed != Some(true) {
            return false;
        }
        end.set_ready(asks);
        self.last_token = token;
        if matches!(ask, Ask::AckWith { .. }) {
            self.asked.insert(token, (number, task));
        }
        if ends {
            self.held.remove(at);
            self.fenced.remove(&number);
        }
        true
    }

    /// Hears what became of it.
    fn hear(&mut self, end: &End, outcomes: ChannelId, audit: &mut Audit) -> bool {
        let mut moved = false;
        while let Some(Some(bytes)) =
            end.with_recv(outcomes, |half| half.take().map(|payload| payload.as_slice().to_vec()))
        {
            moved = true;
            match Outcome::read(&bytes) {
                Ok(Outcome::Answer { token, verdict }) => {
                    if let Some((number, task)) = self.asked.remove(&token) {
                        let done = verdict == Verdict::Done;
                        if matches!(verdict, Verdict::NoResults | Verdict::ResultsClosed) {
                            // It holds the delivery still, and may ask again.
                            self.held.push((number, task));
                        }
                        audit.judge(|services| services.told(self.chan, task, (self.who, number), done));
                    }
                }
                Ok(Outcome::Fenced { number }) => {
                    if self.held.iter().any(|(held, _)| *held == number) {
                        self.fenced.insert(number);
                    }
                }
                Err(error) => audit.wrong(format!("an outcome that cannot be read: {error}")),
            }
        }
        moved
    }

    /// Nothing more comes, and everything is told.
    fn leave(&mut self, end: &End, asks: ChannelId, outcomes: ChannelId, results: ChannelId) -> bool {
        let mut closed = false;
        for id in [asks, results] {
            closed |= end.with_send(id, |half| half.close(CloseReason::plain())).is_some();
            end.set_ready(id);
        }
        let stopped = end.with_recv(outcomes, |half| half.stop(CloseReason::plain())).is_some();
        end.set_ready(outcomes);
        let open = end.receivers.borrow().contains_key(&self.deliveries);
        if open {
            _ = end.with_recv(self.deliveries, |half| half.stop(CloseReason::plain()));
            end.set_ready(self.deliveries);
        }
        self.done = !closed && !stopped && !open;
        self.done
    }

    /// Its session is lost: what it held is another's, and what it asked has no answer.
    pub fn lose(&mut self) {
        self.done = true;
    }
}

/// Receives a broadcast.
#[derive(Debug)]
pub struct SubscriberProgram {
    chan: u32,
    who: u32,
    id: ChannelId,
    stop_after: Option<u64>,
    taken: u64,
    stopped: bool,
    /// Nothing more will come.
    pub done: bool,
}

impl SubscriberProgram {
    /// Subscribes to a broadcast.
    #[must_use]
    pub fn open(end: &End, chan: u32, who: u32, capacity: u64, stop_after: Option<u64>) -> Self {
        let id = end.open(&format!("b:{chan}:{who}"), OpenFlow::OpenerReceives, capacity, 0);
        Self { chan, who, id, stop_after, taken: 0, stopped: false, done: false }
    }

    /// It was refused: the broadcast is over.
    pub fn refused(&mut self, id: ChannelId) {
        self.done |= self.id == id;
    }

    /// Does what can be done now. Says whether anything was.
    pub fn step(&mut self, end: &End, audit: &mut Audit, rng: &mut StdRng, calm: bool) -> bool {
        if self.done {
            return false;
        }
        let mut moved = false;
        while calm || rng.random_bool(0.3) {
            let bytes = end
                .with_recv(self.id, |half| half.take().map(|payload| payload.as_slice().to_vec()))
                .flatten();
            let Some(bytes) = bytes else { break };
            moved = true;
            self.taken += 1;
            self.received(&bytes, audit);
        }
        let ended = end.with_recv(self.id, |half| half.ended().is_some());
        let gone = end.ended_receivers.borrow().contains_key(&self.id);
        if ended == Some(true) || gone {
            self.done = true;
            if !self.stopped {
                audit.judge(|services| services.ended(self.chan, self.who));
            }
            return true;
        }
        if ended.is_some() && self.stop_after.is_some_and(|most| self.taken >= most) {
            self.stopped = true;
            _ = end.with_recv(self.id, |half| half.stop(plain()));
            end.set_ready(self.id);
            return true;
        }
        moved
    }

    fn received(&self, bytes: &[u8], audit: &mut Audit) {
        let (chan, who) = (self.chan, self.who);
        match bytes.split_first() {
            Some((&VALUE, value)) => match Value::parse(value).filter(|value| value.chan == chan) {
                Some(value) => audit.judge(|services| services.received(chan, who, value.number)),
                None => audit.wrong(format!("broadcast {chan}: {who} got what was not sent there")),
            },
            Some((&LAGGED, count)) => match Reader::new(count).varint() {
                Ok(lost) => audit.judge(|services| services.lagged(chan, who, lost)),
                Err(error) => audit.wrong(format!("broadcast {chan}: a count that cannot be read: {error}")),
            },
            _ => audit.wrong(format!("broadcast {chan}: {who} got neither a value nor news")),
        }
    }

    /// Its session is lost. What had arrived is received first.
    pub fn lose(&mut self, end: &End, audit: &mut Audit) {
        while !self.done
            && let Some(Some(bytes)) =
                end.with_recv(self.id, |half| half.take().map(|payload| payload.as_slice().to_vec()))
        {
            self.received(&bytes, audit);
        }
        self.done = true;
    }
}
