//! What holders ask of a queue, and the one step in which a delivery is acknowledged and its result committed.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::holder::Results;
use super::{Asked, HolderEnd, Output, Ports, Queue, Ticket};
use crate::channel::Payload;
use crate::flow::Violation;
use crate::hosted::ReceiverKey;
use crate::id::ChannelId;
use crate::planted::{self, Mutant};
use crate::wire::Verdict;

/// What holders ask for.
impl<P: Ports> Queue<P> {
    /// A holder that speaks of a value has taken it, and all before, though that may not have been reported yet. False if it
    /// cannot hold it.
    ///
    /// # Errors
    /// A [`Violation`] when the value was never sent to it.
    pub(super) fn catch_up(&mut self, key: ReceiverKey, number: u64) -> Result<bool, Violation> {
        let Some(sink) = self.sinks.get_mut(&key) else { return Ok(false) };
        let taken = number.saturating_add(1);
        let newly = taken.saturating_sub(sink.taken);
        if newly == 0 {
            return Ok(true);
        }
        if !sink.has_left(number) {
            return Err(Violation("an acknowledgement of what was never sent"));
        }
        if self.hosted.take_run(key, newly).is_err() {
            return Ok(false);
        }
        sink.taken = taken;
        sink.pace.took(newly);
        Ok(true)
    }

    /// Acknowledges a delivery and commits its result, both or neither (`DEL-8`): both queues are borrowed, so nothing comes
    /// between the look whether the delivery is held, the place for the result, and what is done with them. `None` if there is
    /// no place yet.
    pub(super) fn commit_with_ack(
        &mut self,
        results: &mut Results<'_, P>,
        key: ReceiverKey,
        from: Option<&P::Peer>,
        value: &Bytes,
        number: u64,
        ticket: &mut Option<Ticket>,
    ) -> Option<Verdict> {
        let place = match results {
            Results::Other(queue) => queue.place_for_result(ticket),
            _ => self.place_for_result(ticket),
        };
        if let Some(closed) = place {
            return closed;
        }
        let acked = self.hosted.ack_one(key, number);
        let queue = match results {
            Results::Other(queue) => &mut **queue,
            _ => self,
        };
        if acked {
            let again = u64::from(planted::is(Mutant::ResultCommittedTwice) && queue.reserve_now(&mut None));
            for _ in 0..=again {
                queue.commit_reserved_one(from.cloned(), Payload::Owned(value.clone()));
            }
            Some(Verdict::Done)
        } else {
            queue.give_unit_back();
            Some(Verdict::Fenced)
        }
    }

    /// `None` if a place is set aside; else the verdict, or that there is none yet.
    fn place_for_result(&mut self, ticket: &mut Option<Ticket>) -> Option<Option<Verdict>> {
        if self.closed.is_some() {
            self.leave_line(ticket);
            return Some(Some(Verdict::ResultsClosed));
        }
        if self.reserve_now(ticket) { None } else { Some(None) }
    }

    /// Does what a holder asks for; see [`HolderEnd::next_asks`]. `results` is where its results go: another queue, or this one.
    ///
    /// # Errors
    /// A [`Violation`] when what it asks for cannot be.
    pub fn handle_asks(
        &mut self,
        end: &mut HolderEnd<P>,
        asked: Asked,
        results: Option<Option<&mut Self>>,
        waker: &Waker,
        now_micros: u64,
        outs: &mut (Output<P>, Output<P>),
    ) -> Result<(), Violation> {
        self.hosted.advance(now_micros / 1_000);
        self.with_results(results, outs, |tasks, results, outs| {
            end.handle(asked, tasks, results, waker, outs)
        })?;
        self.hosted.after_acks(end.key());
        // Who has acknowledged all it had waits for more.
        let waiting = u64::from(self.hosted.in_flight_of(end.key()) == 0);
        self.measure(end.key(), waiting, now_micros);
        self.hosted.settle();
        self.carry_out(&mut outs.0);
        Ok(())
    }

    /// A local holder acknowledges a delivery and commits its result, both or neither, once there is a place for it. `results` is
    /// another queue, or none for this one.
    pub fn poll_ack_with_locally(
        &mut self,
        (key, number): (ReceiverKey, u64),
        results: Option<&mut Self>,
        value: &Bytes,
        ticket: &mut Option<Ticket>,
        cx: &Context<'_>,
        outs: &mut (Output<P>, Output<P>),
    ) -> Poll<Verdict> {
        let polled = self.with_results(Some(results), outs, |tasks, mut results, outs| {
            match tasks.commit_with_ack(&mut results, key, None, value, number, ticket) {
                Some(verdict) => Poll::Ready(verdict),
                None => {
                    match results {
                        Results::Other(queue) => queue.wait_for_unit(ticket, cx.waker(), &mut outs.1),
                        _ => tasks.wait_for_unit(ticket, cx.waker(), &mut outs.0),
                    }
                    Poll::Pending
                }
            }
        });
        self.hosted.after_acks(key);
        self.hosted.settle();
        self.carry_out(&mut outs.0);
        polled
    }

    /// Tries again to commit what waits for places in channel `id`. Returns a place that is to be left there, if `results` is
    /// not given any more.
    pub fn retry_results(
        &mut self,
        end: &mut HolderEnd<P>,
        id: ChannelId,
        results: Option<Option<&mut Self>>,
        waker: &Waker,
        now_micros: u64,
        outs: &mut (Output<P>, Output<P>),
    ) -> Option<Ticket> {
        let left = self
            .with_results(results, outs, |tasks, results, outs| end.retry(id, tasks, results, waker, outs));
        self.hosted.after_acks(end.key());
        // Who has acknowledged all it had waits for more.
        let waiting = u64::from(self.hosted.in_flight_of(end.key()) == 0);
        self.measure(end.key(), waiting, now_micros);
        self.hosted.settle();
        self.carry_out(&mut outs.0);
        left
    }

    fn with_results<R>(
        &mut self,
        results: Option<Option<&mut Self>>,
        outs: &mut (Output<P>, Output<P>),
        f: impl FnOnce(&mut Self, Results<'_, P>, &mut (Output<P>, Output<P>)) -> R,
    ) -> R {
        match results {
            None => f(self, Results::None, outs),
            Some(None) => {
                let result = f(self, Results::Same, outs);
                self.pass_units_on(&mut outs.0);
                result
            }
            Some(Some(queue)) => {
                let result = f(self, Results::Other(queue), outs);
                queue.pass_units_on(&mut outs.1);
                queue.hosted.settle();
                queue.carry_out(&mut outs.1);
                result
            }
        }
    }
}
