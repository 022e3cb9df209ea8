//! Where the asks of a client wait for room and for answers, and where the answers come in.
//!
//! Invariants: while an ask is queued here, no later one is committed to the channel, so the order of the asks is the order
//! of the calls; the queue changes only under the lock of the asks' channel, or in the thread that holds it; while anything is
//! queued or unanswered, the desk keeps the subscription's channels open.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use netchan_proto::channel::{CloseReason, PushError, SendHalf};
use netchan_proto::session::close_code;
use netchan_proto::wire::{Ask, Outcome, Verdict};
use parking_lot::Mutex;

use super::failures::Failures;
use super::line::Line;
use super::slots::{About, Slots};
use crate::error::{AckError, SessionEnd};
use crate::reentry;
use crate::session::{Owner, Position, RecvChan, SendChan};

/// An ask that found no room in its channel.
struct Queued {
    token: u64,
    ask: Ask<'static>,
    /// The encoded result, if there is one.
    value: Bytes,
}

/// A flush under way.
struct Flush {
    id: u64,
    /// It waits for asks before this one in the order of all.
    before: u64,
    left: usize,
    waker: Option<Waker>,
}

#[derive(Default)]
struct State {
    slots: Slots,
    queue: VecDeque<Queued>,
    /// Deliveries that this client has lost and that have not been taken, or are at work.
    fenced: BTreeSet<u64>,
    flushes: Vec<Flush>,
    last_flush: u64,
    /// While anything is queued or unanswered: the program may have dropped its handles.
    keep: Option<Arc<Line>>,
    end: Option<SessionEnd>,
}

/// What is to be done once no lock is held.
#[derive(Default)]
struct After {
    wakers: Vec<Waker>,
    /// The last handle closes channels.
    dropped: Option<Arc<Line>>,
    held: Vec<Arc<dyn Send + Sync>>,
}

impl After {
    fn run(self) {
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

pub(super) struct Desk {
    failures: Arc<Failures>,
    /// The session has them.
    asks: OnceLock<Weak<SendChan>>,
    outcomes: OnceLock<Weak<RecvChan>>,
    state: Mutex<State>,
}

impl State {
    /// The outcome of an ask is known: its future fetches it, or nobody does and a failure is kept.
    fn tell(&mut self, token: u64, outcome: Result<(), AckError>, failures: &Failures, after: &mut After) {
        let refused = matches!(outcome, Err(AckError::ResultsClosed | AckError::NoResults));
        let mut unseen = None;
        let waiting = self.slots.answer(token, |waiting| {
            if waiting.watched {
                return Some(outcome);
            }
            unseen = outcome.err().filter(|_| waiting.about.is_kept());
            None
        });
        let Some(waiting) = waiting else { return };
        if waiting.about.ends() {
            self.fenced.remove(&waiting.about.number);
        }
        if refused {
            // It is still this client's.
            let ask = Ask::Nack { number: waiting.about.number, delay_millis: 0 };
            self.queue.push_back(Queued { token: 0, ask, value: Bytes::new() });
        }
        if let Some(reason) = unseen {
            failures.note(waiting.about.id, reason);
        }
        after.wakers.extend(waiting.waker);
        after.held.extend(waiting.hold);
        self.count_down(waiting.seq, after);
        self.let_go(after);
    }

    /// An ask does not wait any more.
    fn count_down(&mut self, seq: u64, after: &mut After) {
        for flush in self.flushes.iter_mut().filter(|flush| seq < flush.before) {
            flush.left -= 1;
            if flush.left == 0 {
                after.wakers.extend(flush.waker.take());
            }
        }
    }

    fn let_go(&mut self, after: &mut After) {
        if self.slots.waiting() == 0 && self.queue.is_empty() {
            after.dropped = self.keep.take().or(after.dropped.take());
        }
    }

    /// Nothing more is said, and nothing answered. What was not said has not been done.
    fn end(&mut self, end: &SessionEnd, failures: &Failures, after: &mut After) {
        self.end.get_or_insert_with(|| end.clone());
        for queued in std::mem::take(&mut self.queue) {
            self.tell(queued.token, Err(AckError::Lost(end.clone())), failures, after);
        }
        for token in self.slots.tokens() {
            self.tell(token, Err(AckError::InDoubt(end.clone())), failures, after);
        }
        self.queue.clear();
        self.let_go(after);
    }
}

impl Desk {
    pub(super) fn new(failures: Arc<Failures>) -> Arc<Self> {
        Arc::new(Self { failures, asks: OnceLock::new(), outcomes: OnceLock::new(), state: Mutex::default() })
    }

    /// The channels are open.
    pub(super) fn open(self: &Arc<Self>, asks: &Arc<SendChan>, outcomes: &Arc<RecvChan>) {
        _ = self.asks.set(Arc::downgrade(asks));
        _ = self.outcomes.set(Arc::downgrade(outcomes));
        // Outcomes may have come before.
        self.moved();
    }

    pub(super) const fn failures(&self) -> &Arc<Failures> {
        &self.failures
    }

    /// Whether a delivery is another's by now.
    pub(super) fn is_fenced(&self, number: u64) -> bool {
        self.state.lock().fenced.contains(&number)
    }

    /// A delivery is settled, or was never begun.
    pub(super) fn forget(&self, number: u64) {
        self.state.lock().fenced.remove(&number);
    }

    /// An ask is about to be made, under the token that is returned.
    pub(super) fn begin(
        &self,
        line: &Arc<Line>,
        about: About,
        hold: Option<Arc<dyn Send + Sync>>,
    ) -> Result<u64, AckError> {
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Err(AckError::Lost(end.clone()));
        }
        state.keep.get_or_insert_with(|| Arc::clone(line));
        Ok(state.slots.insert(about, hold))
    }

    /// It could not be made.
    pub(super) fn cancel(&self, token: u64) {
        let mut after = After::default();
        let mut state = self.state.lock();
        if let Some(waiting) = state.slots.cancel(token) {
            state.count_down(waiting.seq, &mut after);
            after.held.extend(waiting.hold);
            state.let_go(&mut after);
        }
        drop(state);
        after.run();
    }

    pub(super) fn has_queue(&self) -> bool {
        !self.state.lock().queue.is_empty()
    }

    /// Queues an ask for which the channel has no room; at most as many as the channel has places.
    ///
    /// A server hands out `unacked_max` deliveries, and gives this channel twice as many places. What this client has lost is
    /// answered here, so a queue that is full means a server that does not keep to its own limits.
    pub(super) fn queue(
        &self,
        line: &Arc<Line>,
        (token, ask): (u64, Ask<'static>),
        number: u64,
        value: Bytes,
        places: usize,
    ) -> Result<(), AckError> {
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Err(AckError::Lost(end.clone()));
        }
        if state.fenced.remove(&number) {
            return Err(AckError::Fenced);
        }
        if state.queue.len() >= places {
            return Err(AckError::TooMany { waiting: state.queue.len() });
        }
        state.keep.get_or_insert_with(|| Arc::clone(line));
        state.queue.push_back(Queued { token, ask, value });
        Ok(())
    }

    /// Sends what is queued, as far as there is room.
    pub(super) fn send_queued(&self) {
        let Some(chan) = self.asks.get().and_then(Weak::upgrade) else { return };
        // Called while this very thread encodes a result: it looks at the queue when it has done so.
        let Some(mut channel) = reentry::lock(&chan.state) else { return };
        let mut after = After::default();
        let (mut sent, mut full) = (false, false);
        {
            let mut state = self.state.lock();
            while let Some(Queued { token, ask, value }) = state.queue.front() {
                match channel.half.push(|item| {
                    item.extend(&ask.head(*token))?;
                    item.extend(value)
                }) {
                    Ok(pushed) => {
                        (sent, full) = (true, full || pushed.full);
                        state.queue.pop_front();
                    }
                    Err(PushError::Full) => break,
                    Err(_) => {
                        let end = closed(&channel.half);
                        for queued in std::mem::take(&mut state.queue) {
                            let lost = Err(AckError::Lost(end.clone()));
                            state.tell(queued.token, lost, &self.failures, &mut after);
                        }
                        break;
                    }
                }
            }
            state.let_go(&mut after);
        }
        drop(channel);
        if sent {
            chan.kick(full);
        }
        after.run();
    }

    pub(super) fn poll(&self, token: u64, cx: &Context<'_>) -> Poll<Result<(), AckError>> {
        self.state.lock().slots.poll(token, cx.waker()).map_or(Poll::Pending, Poll::Ready)
    }

    /// The future of an ask is dropped.
    pub(super) fn unwatch(&self, token: u64) -> Option<Result<(), AckError>> {
        self.state.lock().slots.unwatch(token)
    }

    /// Waits until every ask so far has its outcome. `id` is 0 at first.
    pub(super) fn poll_flush(&self, id: &mut u64, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if *id == 0 {
            let left = state.slots.waiting();
            if left == 0 {
                return Poll::Ready(());
            }
            state.last_flush += 1;
            *id = state.last_flush;
            let flush = Flush { id: *id, before: state.slots.next_seq(), left, waker: None };
            state.flushes.push(flush);
        }
        match state.flushes.iter_mut().find(|flush| flush.id == *id) {
            Some(flush) if flush.left > 0 => {
                match &mut flush.waker {
                    Some(old) => old.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn leave_flush(&self, id: u64) {
        self.state.lock().flushes.retain(|flush| flush.id != id);
    }

    /// Reads what the server says. Returns whether that could be understood.
    fn read_outcomes(&self, chan: &Arc<RecvChan>, after: &mut After) -> bool {
        let mut half = chan.state.lock();
        let mut state = self.state.lock();
        let mut understood = true;
        while let Some(payload) = half.half.take() {
            match Outcome::read(payload.as_slice()) {
                Ok(Outcome::Answer { token, verdict }) => {
                    state.tell(token, outcome_of(verdict), &self.failures, after);
                }
                Ok(Outcome::Fenced { number }) => _ = state.fenced.insert(number),
                Err(_) => understood = false,
            }
        }
        if let Some(reason) = half.half.ended() {
            let end = SessionEnd::ClosedByPeer(reason.into());
            state.end(&end, &self.failures, after);
        }
        understood
    }
}

/// What a verdict is to a program.
pub(super) const fn outcome_of(verdict: Verdict) -> Result<(), AckError> {
    match verdict {
        Verdict::Done => Ok(()),
        Verdict::Fenced => Err(AckError::Fenced),
        Verdict::ResultsClosed => Err(AckError::ResultsClosed),
        Verdict::NoResults => Err(AckError::NoResults),
    }
}

/// Why a channel takes no more, if its session has not ended.
pub(super) fn closed(half: &SendHalf) -> SessionEnd {
    half.peer_closed().map_or(SessionEnd::ClosedHere, |reason| SessionEnd::ClosedByPeer(reason.into()))
}

impl Desk {
    /// Outcomes have come, or there is room for asks.
    fn moved(&self) {
        let mut after = After::default();
        if let Some(chan) = self.outcomes.get().and_then(Weak::upgrade) {
            if !self.read_outcomes(&chan, &mut after) {
                let reason = "what became of a delivery cannot be understood".to_owned();
                chan.stop(CloseReason { code: close_code::VIOLATION, reason: reason.clone() });
                // No answer is read any more.
                self.state.lock().end(&SessionEnd::PeerViolation(reason), &self.failures, &mut after);
            }
            let urgency = chan.state.lock().half.urgency();
            chan.report(urgency);
        }
        if self.has_queue() {
            self.send_queued();
        }
        after.run();
    }
}

impl Owner for Desk {
    fn readable(self: Arc<Self>, _: &Arc<RecvChan>) {
        self.moved();
    }

    fn writable(self: Arc<Self>, _: &Arc<SendChan>, _: Position) {
        self.moved();
    }

    fn backlog(&self) -> Option<u64> {
        None
    }

    fn ended(&self, end: &SessionEnd, _: u64) {
        let mut after = After::default();
        self.state.lock().end(end, &self.failures, &mut after);
        after.run();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    /// No more wait than the channel has places, and not what is known to be lost.
    #[tokio::test]
    async fn the_queue_is_bounded() -> Result<(), Box<dyn std::error::Error>> {
        let server = crate::listen_and_serve("memory://bounded-queue", crate::Config::default()).await?;
        let tasks = server.sender::<u32>("tasks", 4)?;
        let session = crate::dial(server.ticket(), crate::Config::default()).await?;
        let from = session.deliveries::<u32>("tasks").await?;
        let Source::Client(subscription) = &from.source else { return Err("it is a client's".into()) };
        let line = Arc::clone(&subscription.current().line);
        let (desk, ask) = (&line.desk, |number| (0, Ask::Nack { number, delay_millis: 0 }));
        for value in 0..3 {
            tasks.send(value).await?;
        }
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(from.recv().await?.ok_or("the end")?);
        }
        for number in 0..2 {
            desk.queue(&line, ask(number), number, Bytes::new(), 2)?;
        }
        let refused = desk.queue(&line, ask(2), 2, Bytes::new(), 2);
        assert!(matches!(refused, Err(AckError::TooMany { waiting: 2 })), "{refused:?}");
        desk.state.lock().fenced.insert(103);
        assert!(matches!(desk.queue(&line, ask(103), 103, Bytes::new(), 2), Err(AckError::Fenced)));
        // What follows goes out behind them.
        let ack = held.pop().ok_or("the third")?.ack();
        assert_eq!(desk.state.lock().queue.len(), 3);
        desk.send_queued();
        assert!(!desk.has_queue());
        ack.await?;
        assert!(desk.state.lock().keep.is_none(), "nothing is under way");
        Ok(())
    }
}
