//! Clients that receive from the queue.

use super::pace::Pace;
use super::{Half, News, Output, Ports, Queue, Stopped, leave_of, reason_of};
use crate::channel::{ItemBuf, PushError, SendHalf, TooLarge};
use crate::hosted::{HolderOptions, Item, Leave, ReceiverKey, Violation};
use crate::limits::SUBSCRIPTIONS_PER_KEY_MAX;
use crate::planted::{self, Mutant};
use crate::wire::{HANDED_BYTES_MAX, Handed};

/// A client that receives.
pub(super) struct Sink<P: Ports> {
    /// None once the channel is closed and it has only to acknowledge what it took.
    port: Option<P::Sink>,
    peer: P::Peer,
    /// The values that the policy knows it has taken.
    pub(super) taken: u64,
    holds: bool,
    pub(super) pace: Pace,
    /// In microseconds, as last measured.
    round_trip: Option<u64>,
    /// Values may be sent ahead to it at all.
    takes_ahead: bool,
    /// Counts toward the receivers of this key.
    counted: Option<u128>,
    /// It was asked for a sign of life, for it seems to have stalled.
    probe: Option<u64>,
}

/// What became of a run of values.
enum Run {
    All,
    /// Nothing more can be sent now, or ever: its session will say if the channel is closed.
    Blocked,
    TooLong(usize),
}

impl<P: Ports> Sink<P> {
    /// Calls `f` with its half, and sees that what that has to send is sent.
    pub(super) fn tell(&self, out: &mut Output<P>, f: impl FnOnce(&mut SendHalf)) {
        if let Some(port) = &self.port
            && P::with_sink(port, f).is_some()
        {
            out.sinks.push(port.clone());
        }
    }
}

impl<P: Ports> Sink<P> {
    /// Whether the value numbered so may have reached it.
    pub(super) fn has_left(&self, number: u64) -> bool {
        let left = |port| P::with_sink(port, |half| half.may_have_left(number));
        self.port.as_ref().and_then(left).unwrap_or(false)
    }
}

/// A holder learns, before the value, how it came to it.
fn encode<T>(value: &Item<T>, holds: bool, item: &mut ItemBuf<'_>) -> Result<(), TooLarge> {
    if holds {
        let mut head = [0; HANDED_BYTES_MAX];
        let handed = Handed { attempts: value.attempts, redelivered: value.redelivered };
        item.extend(handed.encode(&mut head))?;
    }
    item.share_one_of_many(&value.bytes)
}

impl<P: Ports> Queue<P> {
    /// A place for a client that is to receive; it acknowledges what it takes if `holder` says how. `client` names its key.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn add_sink(
        &mut self,
        client: Option<u128>,
        holder: Option<HolderOptions>,
    ) -> Result<ReceiverKey, NoPlace> {
        if self.finished {
            return Err(NoPlace::Finished);
        }
        self.let_in(client)?;
        if let Some(client) = client {
            let count = self.subscriptions.entry(client).or_default();
            if *count >= SUBSCRIPTIONS_PER_KEY_MAX {
                return Err(NoPlace::TooMany);
            }
            *count += 1;
        }
        let key = ReceiverKey(self.new_key());
        self.hosted.add_receiver_of(client, key, holder);
        Ok(key)
    }

    /// Its half is in place; [`Self::greet_sink`] follows once the client knows of it. `takes_ahead` says whether it may be sent values that it has not asked for.
    pub fn attach_sink(
        &mut self,
        key: ReceiverKey,
        port: P::Sink,
        peer: P::Peer,
        client: Option<u128>,
        takes_ahead: bool,
    ) {
        let sink = Sink {
            port: Some(port),
            peer,
            taken: 0,
            holds: self.hosted.is_holder(key),
            pace: Pace::default(),
            round_trip: None,
            takes_ahead,
            counted: client,
            probe: None,
        };
        self.sinks.insert(key, sink);
    }

    /// The client knows of its half.
    pub fn greet_sink(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        if self.finished
            && let Some(sink) = self.sinks.get(&key)
        {
            // The channel ended while this receiver was on its way in.
            let reason = self.closed.clone().unwrap_or_else(crate::channel::CloseReason::plain);
            sink.tell(out, |half| half.close(reason));
        }
    }

    /// Moves what is a receiver's into its half: a run, under one lock and for one write.
    pub(super) fn send_run(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        let Some(port) = sink.port.clone() else { return };
        let (hosted, holds) = (&mut self.hosted, sink.holds);
        let had_none = hosted.sent_of(key) == 0;
        let mut count = 0;
        let run = P::with_sink(&port, |half| {
            let mut run = Run::All;
            hosted.send_unsent(key, |value| {
                if planted::is(Mutant::RunLeftHalfway) && count == 2 {
                    return false;
                }
                let pushed = if value.redelivered {
                    half.push_redelivered(|item| encode(value, holds, item))
                } else {
                    half.push(|item| encode(value, holds, item))
                };
                match pushed {
                    Ok(_) => {
                        count += 1;
                        return !(planted::is(Mutant::NotMarkedSent) && count == 2);
                    }
                    Err(PushError::Full | PushError::Closed) => run = Run::Blocked,
                    Err(PushError::TooLarge { bytes_max } | PushError::Encode(TooLarge { bytes_max })) => {
                        run = Run::TooLong(bytes_max);
                    }
                }
                false
            });
            run
        });
        if count > 0 {
            if sink.pace.is_fast() {
                out.streams.push(port);
            } else {
                out.sinks.push(port);
            }
            if had_none && sink.takes_ahead {
                self.untimed.push(key);
            }
        }
        match run {
            Some(Run::All) | None => {}
            Some(Run::Blocked) => self.hosted.block(key),
            Some(Run::TooLong(bytes_max)) => {
                // Others may be able to take what this one cannot, and it can take others.
                let peer = sink.peer.clone();
                out.news.push(News::Stopped { peer, why: Stopped::TooLong { bytes_max } });
                self.hosted.pass_over(key);
            }
        }
    }

    /// Whether [`Self::note_time`] has something to note.
    #[must_use]
    pub const fn wants_time(&self) -> bool {
        !self.untimed.is_empty()
    }

    /// Values have left for receivers that had none, and it is so late, in microseconds. To be called once everything is carried
    /// out: the time is asked for only where it is needed.
    pub fn note_time(&mut self, now_micros: u64) {
        for key in self.untimed.drain(..) {
            if let Some(sink) = self.sinks.get_mut(&key) {
                sink.pace.left(now_micros);
            }
        }
    }

    /// Its credit, or what it has taken, moved.
    pub fn sink_moved(&mut self, key: ReceiverKey, at: Moved, out: &mut Output<P>) {
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        let newly_taken = at.taken.saturating_sub(sink.taken);
        sink.taken += newly_taken;
        sink.pace.took(newly_taken);
        sink.round_trip = at.round_trip_micros.or(sink.round_trip);
        if newly_taken > 0 {
            sink.probe = None;
        }
        self.hosted.set_away(key, false);
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        if sink.holds {
            self.hosted.holder_back(key);
        }
        let waiting = at.limit.saturating_sub(at.taken);
        let lost = u64::from(planted::is(Mutant::RunNotSettled) && newly_taken > 1);
        let moved = self.hosted.take_run(key, newly_taken - lost).and_then(|()| {
            self.measure(key, waiting, at.now_micros);
            self.hosted.want_more(key, at.limit)
        });
        if let Err(violation) = moved {
            self.stop_sink(key, Stopped::Violation(violation), out);
        } else if at.may_send {
            self.hosted.unblock(key);
        }
        self.hosted.settle();
        self.carry_out(out);
        let in_flight = self.hosted.in_flight_of(key) as u64;
        if let Some(sink) = self.sinks.get_mut(&key) {
            sink.pace.heard(sink.taken + in_flight, at.now_micros);
        }
    }

    /// It waits for so many values: how many may be with it follows from how fast it takes them.
    pub(super) fn measure(&mut self, key: ReceiverKey, waiting: u64, now_micros: u64) {
        let on_their_way = self.hosted.in_flight_of(key) > 0;
        let Some(sink) = self.sinks.get_mut(&key).filter(|sink| sink.takes_ahead) else { return };
        if sink.holds && self.hosted.holds_any(key) {
            return;
        }
        let starves = if on_their_way {
            // Of several that it waits for, some may be a reserve that it keeps.
            waiting == 1 && sink.pace.may_be_on_their_way(sink.taken, now_micros, sink.round_trip)
        } else {
            waiting > 0
        };
        let ahead = match starves {
            true => sink.pace.starved(on_their_way, now_micros, sink.round_trip),
            false => sink.pace.busy(now_micros, sink.round_trip),
        };
        let ahead = ahead.min(self.ahead_max);
        // One in hand is no value ahead; a holder that has acknowledged it has none in hand.
        let least = u64::from(sink.holds);
        self.hosted.set_ahead(key, if ahead < 2 { least } else { ahead });
    }

    /// It gives everything from number `limit` on back.
    pub fn rewound(&mut self, key: ReceiverKey, limit: u64, out: &mut Output<P>) {
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        let newly_taken = limit.saturating_sub(sink.taken);
        sink.taken = limit;
        sink.probe = None;
        sink.pace.restart();
        let Some(port) = sink.port.clone() else { return };
        // What it gives back does not come to it again unasked.
        self.hosted.set_ahead(key, 0);
        self.hosted.cancel_demand(key, u64::MAX);
        let taken = self.hosted.take_run(key, newly_taken);
        let rewound = P::with_sink(&port, |half| half.rewind(limit));
        let given = taken.and_then(|()| self.hosted.give_back(key, 0));
        if given.is_err() || rewound.is_some_and(|rewound| rewound.is_err()) {
            self.stop_sink(key, Stopped::Violation(Violation::NotInFlight), out);
        }
        out.sinks.push(port);
        self.carry_out(out);
    }

    pub(super) fn call_back(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        if let Some(sink) = self.sinks.get_mut(&key) {
            sink.pace.restart();
            sink.tell(out, SendHalf::call_back);
        }
    }

    pub(super) fn stalled_receiver(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        let answered =
            sink.port.as_ref().is_none_or(|port| super::has_answered::<P>(&mut sink.probe, Half::Sink(port)));
        if answered {
            self.stop_sink(key, Stopped::Stalled, out);
        } else {
            self.hosted.excuse_receiver(key);
        }
    }

    /// Whether a client may come (`HOST-29`).
    ///
    /// # Errors
    /// [`NoPlace::Stopped`].
    pub(super) fn let_in(&self, client: Option<u128>) -> Result<(), NoPlace> {
        let waits = client.and_then(|client| self.stopped.waits(client, self.hosted.now()));
        waits.map_or(Ok(()), |millis| Err(NoPlace::Stopped { millis }))
    }

    pub(super) fn note_stopped(&mut self, client: Option<u128>, why: Stopped) {
        if why == Stopped::Stalled
            && let Some(client) = client
        {
            self.stopped.note(client, self.hosted.now());
        }
    }

    /// Its channel is ended, and what it had goes to others.
    fn stop_sink(&mut self, key: ReceiverKey, why: Stopped, out: &mut Output<P>) {
        let Some(sink) = self.forget_sink(key, out) else { return };
        let leave = sink.port.as_ref().and_then(|port| P::with_sink(port, |half| leave_of(half, false)));
        self.note_stopped(sink.counted, why);
        sink.tell(out, |half| half.reset(reason_of(why)));
        out.news.push(News::Stopped { peer: sink.peer, why });
        self.hosted.remove_receiver(key, leave.unwrap_or(Leave::LOST));
    }

    fn forget_sink(&mut self, key: ReceiverKey, out: &mut Output<P>) -> Option<Sink<P>> {
        let sink = self.sinks.remove(&key)?;
        if let Some(client) = sink.counted
            && let Some(count) = self.subscriptions.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.subscriptions.remove(&client);
            }
        }
        out.news.push(News::Left(key));
        Some(sink)
    }

    /// Its link is gone. What it may have keeps waiting for it; what has not left for it, and what it waits for, goes to others.
    /// It asks again when it is back, behind them (`HOST-22`). A holder has until `fence_at` to come back for what it holds,
    /// unless another link has taken the place of this one already.
    pub fn suspend_sink(&mut self, key: ReceiverKey, fence_at: Option<u64>, out: &mut Output<P>) {
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        sink.pace.restart();
        let unsent =
            sink.port.as_ref().and_then(|port| P::with_sink(port, SendHalf::take_unsent)).unwrap_or(0);
        let holds = sink.holds;
        self.hosted.set_away(key, true);
        self.hosted.set_ahead(key, 0);
        self.hosted.cancel_demand(key, u64::MAX);
        let in_flight = self.hosted.in_flight_of(key) as u64;
        let unsent = unsent + self.hosted.unsent_of(key);
        if self.hosted.give_back(key, in_flight.saturating_sub(unsent)).is_err() {
            debug_assert!(false, "what was to be sent was not there");
        }
        if let Some(fence_at) = fence_at.filter(|_| holds) {
            self.hosted.holder_away(key, fence_at);
        }
        self.carry_out(out);
    }

    /// It has a link again, and is to say where it stands: until then what it may have is its own, but not for good.
    pub fn sink_attached(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        self.hosted.set_away(key, false);
        self.carry_out(out);
    }

    /// A holder whose channel of deliveries may be closed can be reached again.
    pub fn holder_back(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        self.hosted.set_away(key, false);
        self.hosted.holder_back(key);
        self.carry_out(out);
    }

    /// Its channel is over, or its session. `orderly` if it said so; a holder keeps what it took, to acknowledge it.
    pub fn close_sink(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        let Some(sink) = self.sinks.get_mut(&key) else { return };
        let Some(port) = sink.port.take() else { return };
        let seen = P::with_sink(&port, |half| (half.taken(), leave_of(half, true)));
        let (taken, leave) = seen.unwrap_or((sink.taken, Leave::ORDERLY));
        let newly_taken = taken.saturating_sub(sink.taken);
        sink.taken += newly_taken;
        _ = self.hosted.take_run(key, newly_taken);
        if sink.holds {
            // A holder that says this is there.
            self.hosted.holder_back(key);
            self.hosted.cancel_demand(key, u64::MAX);
            self.hosted.set_ahead(key, 0);
            _ = self.hosted.give_back(key, 0);
        } else {
            self.forget_sink(key, out);
            self.hosted.remove_receiver(key, leave);
        }
        self.carry_out(out);
    }

    /// It is gone, and so is what it held: to others.
    pub fn remove_sink(&mut self, key: ReceiverKey, taken: u64, orderly: bool, out: &mut Output<P>) {
        let Some(sink) = self.forget_sink(key, out) else { return };
        let leave = sink.port.as_ref().and_then(|port| P::with_sink(port, |half| leave_of(half, orderly)));
        _ = self.hosted.take_run(key, taken.saturating_sub(sink.taken));
        self.hosted.remove_receiver(key, leave.unwrap_or(Leave { doubtful: u64::MAX, orderly }));
        self.carry_out(out);
    }

    /// A place that was never attached is given up.
    pub fn drop_sink(&mut self, key: ReceiverKey, out: &mut Output<P>) {
        self.forget_sink(key, out);
        self.hosted.remove_receiver(key, Leave::ORDERLY);
        self.carry_out(out);
    }
}

/// Where a client that receives stands, and when.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// It waits for its values below this number.
    pub limit: u64,
    /// It has taken those below this.
    pub taken: u64,
    /// Its half has room.
    pub may_send: bool,
    /// The time, in microseconds.
    pub now_micros: u64,
    /// A round trip to it, as measured, in microseconds.
    pub round_trip_micros: Option<u64>,
}

/// Why a client cannot receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Nothing comes any more.
    Finished,
    /// Its key has as many receivers here as it may have.
    TooMany,
    /// A client of its key held up others, and may not come again for so long.
    Stopped {
        /// Milliseconds from now.
        millis: u64,
    },
}
