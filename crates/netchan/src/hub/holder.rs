//! A client that acknowledges what it takes from a queue, as the server sees it: `netchan_proto::exchange::HolderEnd` under its
//! lock.
//!
//! Invariant: a holder's lock is taken before a queue's, and nothing is written, woken or told while it is held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Wake, Waker};

use netchan_proto::channel::CloseReason;
use netchan_proto::exchange::{Asked, HolderEnd};
use netchan_proto::hosted::ReceiverKey;
use netchan_proto::id::ChannelId;
use netchan_proto::session::close_code;
use parking_lot::Mutex;

use super::ends::results_of;
use super::turn::OneAtATime;
use super::{Chans, Hub, Out};
use crate::session::{RecvChan, SendChan, SessionCore};

/// News of lost deliveries that wait for a holder, beside the answers to what it has asked.
const UNHEARD_MAX: u64 = 65_536;

pub(crate) struct Holder {
    pub(super) hub: Arc<Hub>,
    key: ReceiverKey,
    end: Mutex<HolderEnd<Chans>>,
    /// What it asks for. Its session has the channel.
    asks: OnceLock<Weak<RecvChan>>,
    /// Where results go that wait for places, by the client's channel.
    results: Mutex<HashMap<ChannelId, ResultsChan>>,
    /// For [`Holder::work`].
    turn: OneAtATime,
    /// Its link is gone.
    away: AtomicBool,
    /// Results that wait may have places now.
    retry: AtomicBool,
    waker: Waker,
    /// Its session, and the channel of its deliveries there.
    session: (Weak<SessionCore>, ChannelId),
}

/// A client's channel of results, and where they go.
type ResultsChan = (Arc<Hub>, Arc<RecvChan>);

/// Wakes a holder whose results wait.
struct Retry(Weak<Holder>);

impl Wake for Retry {
    fn wake(self: Arc<Self>) {
        if let Some(holder) = self.0.upgrade() {
            holder.retry.store(true, Ordering::SeqCst);
            holder.work();
        }
    }
}

impl Holder {
    pub(super) fn new(
        hub: &Arc<Hub>,
        key: ReceiverKey,
        session: &Arc<SessionCore>,
        id: ChannelId,
    ) -> Arc<Self> {
        let end = Mutex::new(HolderEnd::new(key, session.peer()));
        Arc::new_cyclic(|this| Self {
            hub: Arc::clone(hub),
            key,
            end,
            asks: OnceLock::new(),
            results: Mutex::default(),
            turn: OneAtATime::default(),
            away: AtomicBool::new(false),
            retry: AtomicBool::new(false),
            waker: Waker::from(Arc::new(Retry(Weak::clone(this)))),
            session: (Arc::downgrade(session), id),
        })
    }

    /// How many requests it may have under way: one that ends each delivery, and as many others.
    pub(super) fn asks_max(&self) -> u64 {
        self.hub.spec.deliveries.unacked_max.saturating_mul(2).max(2)
    }

    /// False if there is such a channel already.
    pub(super) fn set_asks(&self, chan: &Arc<RecvChan>) -> bool {
        _ = self.asks.set(Arc::downgrade(chan));
        self.end.lock().set_asks(Arc::clone(chan))
    }

    /// False if there is such a channel already.
    pub(super) fn set_outcomes(&self, chan: &Arc<SendChan>) -> bool {
        self.end.lock().set_outcomes(Arc::clone(chan))
    }

    /// The deliveries' channel is closed, but not the session: what was handed over stays with the holder, who may still
    /// acknowledge it; the rest goes back.
    pub(super) fn retire(&self) {
        self.hub.run(|queue, out| queue.close_sink(self.key, out));
        let asks = self.asks.get().and_then(Weak::upgrade);
        if asks.is_none_or(|asks| asks.state.lock().half.ended().is_some()) {
            // It could not acknowledge anything.
            self.leave(true);
        }
    }

    /// It is gone: what it had goes to others. It costs them no attempt if it went in good order.
    pub(super) fn leave(&self, orderly: bool) {
        self.hub.run(|queue, out| queue.remove_sink(self.key, 0, orderly, out));
    }

    /// The queue has forgotten it.
    pub(super) fn gone(&self) {
        let mut out = Out::default();
        let places = self.end.lock().end(&mut out);
        self.hub.follow(out);
        for (id, mut ticket) in places {
            let results = self.results.lock().remove(&id);
            if let Some((results, _)) = results {
                results.leave_senders(&mut ticket);
            }
        }
        if let Some(session) = self.session.0.upgrade() {
            session.let_go(self.session.1);
        }
    }

    pub(super) fn fenced(&self, number: u64) {
        let mut out = Out::default();
        let deaf = {
            let mut end = self.end.lock();
            end.fenced(number);
            !end.flush(&mut out) && end.unheard() as u64 > self.asks_max() + UNHEARD_MAX
        };
        self.hub.follow(out);
        if deaf {
            // It goes on taking, and never hears what it has lost.
            self.stop("what becomes of the deliveries is not listened to");
        }
    }

    fn stop(&self, reason: &str) {
        self.leave(false);
        if let Some(asks) = self.asks.get().and_then(Weak::upgrade) {
            asks.stop(CloseReason { code: close_code::VIOLATION, reason: reason.to_owned() });
        }
    }

    /// Does what it is asked for, as far as there is room for what comes of it. One task at a time does it, for all that call
    /// meanwhile: in order.
    fn work(&self) {
        if self.turn.run(|| self.handle_all()) && self.end.lock().is_over() {
            self.leave(true);
        }
    }

    fn handle_all(&self) {
        if self.retry.swap(false, Ordering::SeqCst) {
            let waiting: Vec<_> = self.end.lock().waiting_for().collect();
            waiting.into_iter().for_each(|id| self.retry_one(id));
        }
        while self.handle_run() {}
    }

    /// One run of asks. False when there is no more to do for now.
    fn handle_run(&self) -> bool {
        let Some(asks) = self.asks.get().and_then(Weak::upgrade) else { return false };
        let mut outs = (Out::default(), Out::default());
        let mut other = None;
        let handled = {
            let mut end = self.end.lock();
            let handled = match end.next_asks(asks.core.limits.window_bytes, &mut outs.0) {
                Ok(None) => Ok(false),
                Err(violation) => Err(violation),
                Ok(Some(asked)) => {
                    let results = match asked {
                        Asked::Deliveries => None,
                        Asked::Results(id) => results_of(&asks.core, id).map(|(hub, chan)| {
                            self.results.lock().entry(id).or_insert_with(|| (Arc::clone(&hub), chan));
                            hub
                        }),
                    };
                    let now = self.hub.micros();
                    let handled = self.hub.with_results(results.as_ref(), |tasks, results| {
                        tasks.handle_asks(&mut end, asked, results, &self.waker, now, &mut outs)
                    });
                    other = results;
                    handled.map(|()| true)
                }
            };
            end.flush(&mut outs.0);
            handled
        };
        self.hub.follow(outs.0);
        if let Some(results) = other {
            results.follow(outs.1);
        }
        match handled {
            Ok(goes_on) => goes_on,
            Err(violation) => {
                self.stop(&violation.to_string());
                false
            }
        }
    }

    fn retry_one(&self, id: ChannelId) {
        let Some((hub, chan)) = self.results.lock().get(&id).cloned() else { return };
        // What was under way when the client closed its channel is still committed; what was taken away from it is not.
        let results = (!chan.is_revoked()).then_some(&hub);
        let mut outs = (Out::default(), Out::default());
        let mut left = {
            let mut end = self.end.lock();
            let now = self.hub.micros();
            let left = self.hub.with_results(results, |tasks, results| {
                tasks.retry_results(&mut end, id, results, &self.waker, now, &mut outs)
            });
            end.flush(&mut outs.0);
            left
        };
        self.hub.follow(outs.0);
        hub.follow(outs.1);
        hub.leave_senders(&mut left);
    }

    /// Something has arrived on its channels, or there is room on them.
    pub(super) fn moved(&self) {
        if self.away.swap(false, Ordering::SeqCst) {
            self.hub.run(|queue, out| queue.holder_back(self.key, out));
        }
        self.work();
        self.listen();
    }

    /// There may be room for what it is to be told; when nobody listens any more, the channel ends here too.
    fn listen(&self) {
        let mut out = Out::default();
        self.end.lock().listen(&mut out);
        self.hub.follow(out);
    }

    pub(super) fn detached(&self, replaced: bool) {
        self.hub.suspend_sink(self.key, replaced);
        self.away.store(true, Ordering::SeqCst);
    }
}
