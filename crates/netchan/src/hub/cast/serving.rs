//! How subscribers are given what was sent: the first value of a burst at once, what follows in batches.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use netchan_proto::channel::{CloseReason as ProtoReason, PushError};
use netchan_proto::hosted::{Broadcast, Next, NotSent, ReceiverKey};
use netchan_proto::session::close_code;
use netchan_proto::wire::Told;

use super::ends::Inlet;
use super::{Cast, CastState};
use crate::error::CloseReason;
use crate::session::SendChan;

/// Everyone is served again after so many times as long as it took: no more than a part of the time goes into that.
const PAUSE_FACTOR: u32 = 3;

/// The longest such pause, lest anybody notices.
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// When everyone may be served again after what has gone on since then.
pub(super) fn next_after(since: Instant) -> Instant {
    let now = Instant::now();
    now + (PAUSE_FACTOR * now.saturating_duration_since(since)).min(PAUSE_MAX)
}

/// What is to be done once the lock is released.
#[derive(Default)]
pub(super) struct After {
    pub(super) kicks: Vec<Arc<SendChan>>,
    pub(super) stalled: Vec<Arc<Inlet>>,
    /// What comes next is to be gathered.
    pub(super) gather: bool,
    /// Everyone has been served since then.
    pub(super) serving_since: Option<Instant>,
}

pub(super) fn too_slow(lost: u64) -> CloseReason {
    CloseReason::new(close_code::LAGGED, format!("too slow: {lost} values of the broadcast were lost"))
}

/// What became of serving a subscriber.
#[derive(Default)]
struct Served {
    moved: bool,
    leaves: bool,
}

/// Gives a subscriber what it may have.
fn serve_one(
    policy: &mut Broadcast,
    key: ReceiverKey,
    chan: &SendChan,
    closed: Option<&CloseReason>,
) -> Served {
    let mut served = Served::default();
    let mut state = chan.state.lock();
    if state.half.closed().is_some() {
        served.leaves = true;
        return served;
    }
    loop {
        let mut failed = None;
        let given = policy.serve(key, |bytes| {
            let pushed = state.half.push(|item| item.share_one_of_many(bytes));
            failed = pushed.err();
            failed.is_none()
        });
        served.moved |= given > 0;
        let failed = match failed {
            Some(failed) => failed,
            // No value is next.
            None => {
                let marker = match policy.peek(key) {
                    Next::Lagged(lost) => marker(lost),
                    Next::Expelled(lost) => {
                        state.half.close(too_slow(lost).into());
                        served.leaves = true;
                        return served;
                    }
                    Next::End => {
                        let reason = closed.cloned().unwrap_or_else(|| CloseReason::new(0, ""));
                        state.half.close(reason.into());
                        served.leaves = true;
                        return served;
                    }
                    Next::Nothing | Next::Value { .. } => return served,
                };
                match state.half.push(|item| item.extend(&marker)) {
                    Ok(_) => {
                        policy.advance(key);
                        served.moved = true;
                        continue;
                    }
                    Err(failed) => failed,
                }
            }
        };
        match failed {
            PushError::Full => {}
            PushError::Closed => served.leaves = true,
            PushError::TooLarge { .. } | PushError::Encode(_) => {
                let reason = "a message is longer than this subscriber takes".to_owned();
                state.half.reset(ProtoReason { code: close_code::ABANDONED, reason });
                served.leaves = true;
            }
        }
        return served;
    }
}

/// Says how many values were lost (`CAST-8`).
fn marker(lost: u64) -> Vec<u8> {
    let mut marker = Vec::new();
    Told::Lagged(lost).write(&mut marker);
    marker
}

impl CastState {
    /// Gives a remote subscriber what it may have. Says whether it moved.
    pub(super) fn serve(&mut self, key: ReceiverKey, after: &mut After) -> bool {
        let Some(chan) = self.subscribers.remote.get(&key).cloned() else { return false };
        let served = serve_one(&mut self.policy, key, &chan, self.closed.as_ref());
        if served.leaves {
            self.leave(key);
        }
        let acted = served.moved || served.leaves;
        if acted {
            after.kicks.push(chan);
        }
        acted
    }

    /// The same for everyone, which costs less than each by itself.
    pub(super) fn serve_all(&mut self, after: &mut After) -> bool {
        self.served = self.policy.sent();
        after.serving_since.get_or_insert_with(Instant::now);
        let Self { policy, subscribers, closed, .. } = self;
        let mut left = Vec::new();
        for (key, chan) in &subscribers.remote {
            let served = serve_one(policy, *key, chan, closed.as_ref());
            if served.leaves {
                left.push(*key);
            }
            if served.moved || served.leaves {
                after.kicks.push(Arc::clone(chan));
            }
        }
        for waiting in subscribers.local.values_mut() {
            waiting.wake_front(1);
        }
        left.into_iter().for_each(|key| self.leave(key));
        !after.kicks.is_empty()
    }

    pub(super) fn is_unserved(&self) -> bool {
        self.served < self.policy.sent()
    }

    /// The first value of a burst goes to everyone at once. What follows is gathered, and given to each subscriber in one go:
    /// by a task in a moment, or when the log is full.
    pub(super) fn publish(
        &mut self,
        assigned: bool,
        bytes: &Bytes,
        after: &mut After,
    ) -> Result<(), NotSent> {
        if self.is_unserved()
            && self.policy.may_displace(bytes.len() as u64, self.served)
            && self.serve_all(after)
        {
            self.moved(after);
        }
        let bytes = bytes.clone();
        if assigned {
            self.policy.assign(bytes)?;
        } else {
            self.policy.send(bytes)?;
        }
        if !self.gathering {
            if Instant::now() >= self.serve_at {
                if self.serve_all(after) {
                    self.moved(after);
                }
            } else {
                after.gather = true;
            }
        }
        Ok(())
    }
}

impl Cast {
    /// From here on, what is sent waits for a task, which serves everyone when it is time, until there is nothing to do.
    pub(super) fn gather(&self) {
        // The server's, whoever sends: others may stop while it goes on.
        let Some(runtime) = self.keeper.upgrade().and_then(|keeper| keeper.runtime()) else {
            return self.run(|state, after| {
                if state.serve_all(after) {
                    state.moved(after);
                }
            });
        };
        if std::mem::replace(&mut self.state.lock().gathering, true) {
            return;
        }
        let gathering = Gathering { cast: Weak::clone(&self.this), ended: false };
        runtime.spawn(async move {
            loop {
                tokio::task::yield_now().await;
                let Some(cast) = gathering.cast.upgrade() else { return };
                let goes_on = cast.run(|state, after| {
                    let due = Instant::now() >= state.serve_at;
                    if due && state.is_unserved() && state.serve_all(after) {
                        state.moved(after);
                    }
                    state.gathering = !due;
                    state.gathering
                });
                if !goes_on {
                    return gathering.end();
                }
            }
        });
    }
}

/// The task that serves everyone. Dropped with its runtime, it leaves that to whoever sends.
struct Gathering {
    cast: Weak<Cast>,
    ended: bool,
}

impl Gathering {
    /// There is nothing to do.
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        if let Some(cast) = self.cast.upgrade().filter(|_| !self.ended) {
            cast.run(|state, after| {
                state.gathering = false;
                if state.serve_all(after) {
                    state.moved(after);
                }
            });
        }
    }
}
