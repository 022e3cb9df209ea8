//! What a client says of the deliveries that it took, and what it is told of that (`DEL-2`, `DEL-8`, `DEL-10`, `DEL-11`).
//!
//! Both travel as values of channels, so a lost link loses, repeats and reorders none of it. They are handled in runs: as many
//! as have arrived, under one lock of the queue they are about and of the one that their results go into.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use super::store::Store;
use super::{Output, Ports, Queue, Ticket};
use crate::channel::{CloseReason, PushError, close_code};
use crate::flow::{Urgency, Violation};
use crate::hosted::ReceiverKey;
use crate::id::ChannelId;
use crate::planted::{self, Mutant};
use crate::wire::{Ask, Outcome, Verdict};

/// Asks that are taken out of a half at once.
const RUN_ASKS_MAX: usize = 256;

/// A client that acknowledges what it takes: its channel of asks, its channel of outcomes, and what waits between them.
///
/// Invariants: while `unsent` holds anything, nothing more is done for it; a delivery has at most one result that waits; results
/// for one channel are committed in the order in which they came.
pub struct HolderEnd<P: Ports> {
    key: ReceiverKey,
    peer: P::Peer,
    asks: Option<P::Source>,
    outcomes: Option<P::Sink>,
    /// Outcomes that found no room yet.
    unsent: VecDeque<Outcome>,
    /// Asks that have come and were not handled yet.
    run: VecDeque<Bytes>,
    /// What the run speaks of counts as taken.
    caught_up: bool,
    store: Store,
    /// Results that wait for places, by the channel that they go into.
    lines: Vec<Line>,
    parked_bytes: u64,
}

/// Results that wait for places in one channel.
#[derive(Debug)]
struct Line {
    results: ChannelId,
    waiting: VecDeque<Waiting>,
    ticket: Option<Ticket>,
}

#[derive(Debug)]
struct Waiting {
    token: u64,
    number: u64,
    value: Bytes,
}

/// What the next asks are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Deliveries alone.
    Deliveries,
    /// Results too, for this channel of the client's.
    Results(ChannelId),
}

/// A line of results that wait: for which channel, and in which place.
pub type Parked = (ChannelId, Option<Ticket>);

/// Where results go.
pub(super) enum Results<'a, P: Ports> {
    /// There is no such channel, or it takes none.
    None,
    /// Back into the queue that the deliveries came from.
    Same,
    /// Into another.
    Other(&'a mut Queue<P>),
}

impl<P: Ports> HolderEnd<P> {
    /// For a holder at the queue. `peer` is who its results come from.
    #[must_use]
    pub fn new(key: ReceiverKey, peer: P::Peer) -> Self {
        Self {
            key,
            peer,
            asks: None,
            outcomes: None,
            unsent: VecDeque::new(),
            run: VecDeque::new(),
            caught_up: false,
            store: Store::default(),
            lines: Vec::new(),
            parked_bytes: 0,
        }
    }

    /// The holder.
    #[must_use]
    pub const fn key(&self) -> ReceiverKey {
        self.key
    }

    /// Its channel of asks is open. False if there is one already.
    pub fn set_asks(&mut self, port: P::Source) -> bool {
        let first = self.asks.is_none();
        if first {
            self.asks = Some(port);
        }
        first
    }

    /// Its channel of outcomes is open. False if there is one already.
    pub fn set_outcomes(&mut self, port: P::Sink) -> bool {
        let first = self.outcomes.is_none();
        if first {
            self.outcomes = Some(port);
        }
        first
    }

    /// Whether it can ask for nothing any more. One whose channel of asks is not open yet can.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let ended = |port| P::with_source(port, |half| half.ended().is_some()).unwrap_or(true);
        self.run.is_empty() && self.asks.as_ref().is_some_and(ended)
    }

    /// Outcomes that wait for room.
    #[must_use]
    pub fn unheard(&self) -> usize {
        self.unsent.len()
    }

    /// A delivery is another's now.
    pub fn fenced(&mut self, number: u64) {
        self.unsent.push_back(Outcome::Fenced { number });
    }

    fn answer(&mut self, token: u64, verdict: Verdict) {
        if token != 0 {
            self.unsent.push_back(Outcome::Answer { token, verdict });
        }
    }

    /// Sends what it is to be told, as far as there is room. Says whether that was all.
    pub fn flush(&mut self, out: &mut Output<P>) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let Some(port) = &self.outcomes else { return false };
        let unsent = &mut self.unsent;
        let sent = P::with_sink(port, |half| {
            let mut bytes = Vec::new();
            while let Some(outcome) = unsent.front() {
                bytes.clear();
                outcome.write(&mut bytes);
                match half.push(|item| item.extend(&bytes)) {
                    Err(PushError::Full) => break,
                    // When it is closed nobody listens any more.
                    Ok(_) | Err(_) => _ = unsent.pop_front(),
                }
            }
        });
        match sent {
            Some(()) => out.sinks.push(port.clone()),
            None => self.unsent.clear(),
        }
        self.unsent.is_empty()
    }

    /// Takes out what it asks for, a run at most, unless results for more than `parked_bytes_max` bytes wait, or it does not
    /// listen. Says what the next of it is about.
    ///
    /// # Errors
    /// A [`Violation`] when it cannot be understood.
    pub fn next_asks(
        &mut self,
        parked_bytes_max: u64,
        out: &mut Output<P>,
    ) -> Result<Option<Asked>, Violation> {
        if self.run.is_empty() {
            if !self.flush(out) || self.parked_bytes > parked_bytes_max {
                return Ok(None);
            }
            let Some(port) = &self.asks else { return Ok(None) };
            self.caught_up = false;
            let (run, store) = (&mut self.run, &mut self.store);
            let urgency = P::with_source(port, |half| {
                while run.len() < RUN_ASKS_MAX
                    && let Some(payload) = half.take()
                {
                    run.push_back(store.keep(payload));
                }
                half.urgency()
            });
            if let Some(urgency) = urgency.filter(|urgency| *urgency > Urgency::None) {
                out.sources.push((port.clone(), urgency));
            }
        }
        let Some(bytes) = self.run.front() else { return Ok(None) };
        Ok(Some(match read(bytes)?.1 {
            Ask::AckWith { results, .. } => Asked::Results(results),
            _ => Asked::Deliveries,
        }))
    }

    /// Does what it asks for, up to the first ask that is about something else than `asked`. Results go where `results` says;
    /// what finds no place there waits, and `waker` is woken when it may have one.
    ///
    /// # Errors
    /// A [`Violation`] when what it asks for cannot be, or cannot be understood.
    pub(super) fn handle(
        &mut self,
        asked: Asked,
        tasks: &mut Queue<P>,
        mut results: Results<'_, P>,
        waker: &Waker,
        outs: &mut (Output<P>, Output<P>),
    ) -> Result<(), Violation> {
        if !std::mem::replace(&mut self.caught_up, true) {
            self.catch_up_with_run(tasks);
        }
        while let Some(bytes) = self.run.front() {
            let bytes = bytes.clone();
            let (token, ask) = read(&bytes)?;
            let about = match ask {
                Ask::AckWith { results, .. } => Asked::Results(results),
                _ => Asked::Deliveries,
            };
            // An acknowledgement alone goes along with results.
            if about != asked && about != Asked::Deliveries {
                break;
            }
            self.run.pop_front();
            let number = number_of(&ask);
            if !tasks.catch_up(self.key, number)? {
                self.answer(token, Verdict::Fenced);
                continue;
            }
            let key = self.key;
            let now = tasks.hosted.now();
            let done = match ask {
                Ask::Ack { .. } => tasks.hosted.ack_one(key, number),
                Ask::Nack { delay_millis, .. } => {
                    let at = (delay_millis > 0).then(|| now.saturating_add(delay_millis));
                    tasks.hosted.nack(key, number, at)
                }
                Ask::Extend { millis, .. } => tasks.hosted.extend(key, number, now.saturating_add(millis)),
                Ask::AckWith { results: id, value, .. } => {
                    let waiting = Waiting { token, number, value: bytes.slice_ref(value) };
                    self.ack_with(id, waiting, tasks, &mut results, waker, outs)?;
                    continue;
                }
            };
            self.answer(token, if done { Verdict::Done } else { Verdict::Fenced });
        }
        Ok(())
    }

    /// What it speaks of last is taken, and all before: at once for the run, if nothing in it is out of place.
    fn catch_up_with_run(&self, tasks: &mut Queue<P>) {
        let numbers = self.run.iter().filter_map(|bytes| Some(number_of(&read(bytes).ok()?.1)));
        if let Some(last) = numbers.max() {
            _ = tasks.catch_up(self.key, last);
        }
    }

    /// The result waits for its turn in its channel, behind others of this holder, then both are done in one step (`DEL-8`).
    fn ack_with(
        &mut self,
        id: ChannelId,
        result: Waiting,
        tasks: &mut Queue<P>,
        results: &mut Results<'_, P>,
        waker: &Waker,
        outs: &mut (Output<P>, Output<P>),
    ) -> Result<(), Violation> {
        if matches!(results, Results::None) {
            self.answer(result.token, Verdict::NoResults);
            return Ok(());
        }
        if !tasks.hosted.holds(self.key, result.number) {
            self.answer(result.token, Verdict::Fenced);
            return Ok(());
        }
        let waits = |waiting: &Waiting| waiting.number == result.number;
        if self.lines.iter().flat_map(|line| &line.waiting).any(waits) {
            return Err(Violation("a delivery that has a result already"));
        }
        if let Some(line) = self.lines.iter_mut().find(|line| line.results == id) {
            self.parked_bytes += result.value.len() as u64;
            line.waiting.push_back(result);
            return Ok(());
        }
        let mut ticket = None;
        match tasks.commit_with_ack(
            results,
            self.key,
            Some(&self.peer),
            &result.value,
            result.number,
            &mut ticket,
        ) {
            Some(verdict) => self.answer(result.token, verdict),
            None => {
                match results {
                    Results::Other(queue) => queue.wait_for_unit(&mut ticket, waker, &mut outs.1),
                    _ => tasks.wait_for_unit(&mut ticket, waker, &mut outs.0),
                }
                self.parked_bytes += result.value.len() as u64;
                self.lines.push(Line { results: id, waiting: VecDeque::from([result]), ticket });
            }
        }
        Ok(())
    }

    /// The channels for which results wait.
    pub fn waiting_for(&self) -> impl Iterator<Item = ChannelId> + '_ {
        self.lines.iter().map(|line| line.results)
    }

    /// There may be places for results that wait. Returns one to be left, where they are waited for no more.
    pub(super) fn retry(
        &mut self,
        id: ChannelId,
        tasks: &mut Queue<P>,
        mut results: Results<'_, P>,
        waker: &Waker,
        outs: &mut (Output<P>, Output<P>),
    ) -> Option<Ticket> {
        let at = self.lines.iter().position(|line| line.results == id)?;
        let mut line = self.lines.swap_remove(at);
        while let Some(result) = line.waiting.front() {
            let ticket = &mut line.ticket;
            let verdict = match results {
                Results::None => Some(Verdict::NoResults),
                _ => tasks.commit_with_ack(
                    &mut results,
                    self.key,
                    Some(&self.peer),
                    &result.value,
                    result.number,
                    ticket,
                ),
            };
            let Some(verdict) = verdict else { break };
            let (token, len) = (result.token, result.value.len() as u64);
            self.parked_bytes -= len;
            line.waiting.pop_front();
            self.answer(token, verdict);
        }
        if !line.waiting.is_empty() && !planted::is(Mutant::ParkedResultForgotten) {
            match &mut results {
                Results::Other(queue) => queue.wait_for_unit(&mut line.ticket, waker, &mut outs.1),
                _ => tasks.wait_for_unit(&mut line.ticket, waker, &mut outs.0),
            }
            self.lines.push(line);
            return None;
        }
        line.ticket
    }

    /// There may be room for what it is to be told. When it does not listen any more, its channel of outcomes ends.
    pub fn listen(&mut self, out: &mut Output<P>) {
        self.flush(out);
        let Some(port) = &self.outcomes else { return };
        let closed = P::with_sink(port, |half| {
            let closed = half.peer_closed().is_some();
            if closed {
                half.close(CloseReason::plain());
            }
            closed
        });
        if closed == Some(true) {
            out.sinks.push(port.clone());
        }
    }

    /// It is gone, and its deliveries are others': nobody answers any more, and a client that goes on asking is told so. Returns
    /// the places in which its results waited, to be left.
    pub fn end(&mut self, out: &mut Output<P>) -> Vec<Parked> {
        self.parked_bytes = 0;
        let reason =
            CloseReason { code: close_code::GONE, reason: "its deliveries are others' now".to_owned() };
        if let Some(port) = self.asks.take()
            && P::with_source(&port, |half| half.stop(reason.clone())).is_some()
        {
            out.sources.push((port, Urgency::Now));
        }
        if let Some(port) = self.outcomes.take()
            && P::with_sink(&port, |half| half.close(reason)).is_some()
        {
            out.sinks.push(port);
        }
        self.run.clear();
        self.unsent.clear();
        self.lines.drain(..).map(|line| (line.results, line.ticket)).collect()
    }
}

const fn number_of(ask: &Ask<'_>) -> u64 {
    match *ask {
        Ask::Ack { number }
        | Ask::Nack { number, .. }
        | Ask::Extend { number, .. }
        | Ask::AckWith { number, .. } => number,
    }
}

fn read(bytes: &Bytes) -> Result<(u64, Ask<'_>), Violation> {
    Ask::read(bytes).map_err(|_| Violation("what a holder asks for cannot be understood"))
}
