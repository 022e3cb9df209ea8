//! How a session ends: by a close that drains, by the peer's farewell, or by a fault.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::session::close_code;

use super::{Chan, SessionCore, SessionEvent, phase};
use crate::error::{CloseReason, SessionEnd};

/// What a close could not deliver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Values that certainly did not reach the peer.
    pub undelivered: u64,
    /// Values that left and are not known to have reached the peer.
    pub in_doubt: u64,
    /// The channels they were sent on, by name, with their number.
    pub channels: Vec<(String, u64)>,
}

impl CloseReport {
    /// Whether everything that was sent has reached the peer.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.undelivered == 0 && self.in_doubt == 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.undelivered += other.undelivered;
        self.in_doubt += other.in_doubt;
        self.channels.extend(other.channels);
    }
}

impl std::fmt::Display for CloseReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_complete() {
            return f.write_str("everything was delivered");
        }
        write!(f, "{} not delivered, {} in doubt:", self.undelivered, self.in_doubt)?;
        self.channels.iter().try_for_each(|(name, count)| write!(f, " {name} {count}"))
    }
}

impl SessionCore {
    pub(crate) fn end_reason(&self) -> Option<&SessionEnd> {
        self.end.get()
    }

    /// Whether no new channels are to be opened.
    pub(crate) fn is_closing(&self) -> bool {
        self.phase.load(Ordering::SeqCst) != phase::OPEN || self.end.get().is_some()
    }

    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
    }

    /// The last handle of the program is gone: the session lingers until its data has arrived, then ends.
    pub(crate) fn drop_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.start_closing();
        }
    }

    fn start_closing(&self) {
        let started = self
            .phase
            .compare_exchange(phase::OPEN, phase::LINGER, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if started {
            self.request_reports();
            self.report_rest();
            self.wake_flusher();
            self.wake_driver();
        }
    }

    /// Closes every channel and waits until what was sent has reached the peer, at most until the deadline.
    pub(crate) async fn close(self: &Arc<Self>, deadline: Duration) -> CloseReport {
        let channels = self.all_channels();
        for chan in &channels {
            match chan {
                Chan::Send(chan) if chan.takes_back() => {}
                Chan::Send(chan) => {
                    chan.state.lock().half.close(ProtoReason::plain());
                    chan.kick(true);
                    chan.writable_locally();
                }
                Chan::Recv(chan) => chan.stop(ProtoReason::plain()),
            }
        }
        self.start_closing();
        let finished = tokio::time::timeout(deadline, self.wait_ended()).await.is_ok();
        let mut report = CloseReport::default();
        for chan in channels {
            if let Chan::Send(chan) = chan
                && !chan.takes_back()
            {
                report.add(undelivered(&chan));
            }
        }
        if !finished {
            self.say_goodbye(close_code::PLAIN, String::new());
            // What is queued goes out if the link takes it; the driver gives the peer a moment, not more.
            self.wait_ended().await;
        }
        report
    }

    pub(crate) async fn wait_ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives in `self`, so this can only end by the session's end.
        _ = ended.wait_for(|ended| *ended).await;
    }

    /// What this end has said when it left.
    pub(crate) fn farewell(&self) -> Option<&CloseReason> {
        self.farewell.get()
    }

    pub(crate) fn say_goodbye(&self, code: u16, reason: String) {
        if self.phase.swap(phase::GOODBYE, Ordering::SeqCst) != phase::GOODBYE {
            self.farewell.get_or_init(|| CloseReason { code, text: reason.clone() });
            self.with_control(|c| c.go_away(code, reason));
            // For the deadline of leaving: the link may take nothing any more.
            self.wake_driver();
        }
    }

    /// For the driver, while there is a link: once everything sent has arrived, says goodbye.
    pub(super) fn linger(self: &Arc<Self>) {
        if self.phase.load(Ordering::SeqCst) != phase::LINGER {
            return;
        }
        let drained = self.all_channels().iter().all(|chan| match chan {
            Chan::Send(chan) => chan.is_drained(),
            Chan::Recv(chan) => chan.is_drained(),
        });
        if drained {
            self.say_goodbye(close_code::PLAIN, String::new());
        }
    }

    /// Asks the peer what has arrived, on every channel whose values are not known to have. Once is enough: the request
    /// goes behind the data.
    fn request_reports(&self) {
        for chan in self.channels() {
            if let Chan::Send(chan) = &chan
                && !chan.takes_back()
            {
                chan.state.lock().half.request_report();
                chan.mark_ready();
            }
        }
    }

    /// Positions moved, or everything was written: a session on its way out looks whether it is done.
    pub(super) fn closing_progress(&self) {
        if self.phase.load(Ordering::SeqCst) != phase::OPEN {
            self.wake_driver();
        }
    }

    pub(super) fn peer_goes_away(&self, code: u16, reason: String) {
        let end = match code {
            close_code::VIOLATION => SessionEnd::OwnViolation(reason),
            code => SessionEnd::ClosedByPeer(CloseReason { code, text: reason }),
        };
        // The driver ends the session once it has handled what arrived before the farewell.
        *self.goodbye.lock() = Some(end);
    }

    /// A session that waits for another link is to wait no longer.
    pub(crate) fn give_up(&self, end: SessionEnd) {
        *self.given_up.lock() = Some(end);
        self.wake_driver();
    }

    pub(super) fn take_given_up(&self) -> Option<SessionEnd> {
        self.given_up.lock().take()
    }

    pub(super) fn peer_said_goodbye(&self) -> Option<SessionEnd> {
        let end = self.goodbye.lock().take()?;
        Some(if self.phase.load(Ordering::SeqCst) == phase::GOODBYE { SessionEnd::ClosedHere } else { end })
    }

    /// The session is over: everyone who waits is told, and hosted channels take back what was not taken.
    pub(super) fn end(self: &Arc<Self>, end: SessionEnd) {
        if self.end.set(end).is_err() {
            return;
        }
        let end = self.end.get().unwrap_or(&SessionEnd::ClosedHere);
        let table = std::mem::take(&mut *self.table.lock());
        let reopening = std::mem::take(&mut *self.reopening.lock());
        for chan in table.into_values().chain(reopening.into_values().map(|waiting| waiting.chan)) {
            match chan {
                Chan::Send(chan) => {
                    self.note_replayed(&chan);
                    chan.ended(end);
                }
                Chan::Recv(chan) => chan.ended(end),
            }
        }
        drop(self.take_link());
        self.drop_arrival();
        self.ready.lock().clear();
        self.idle.lock().clear();
        self.drop_openings(end);
        self.let_all_go();
        let mut finish = || {
            self.board.finish(end.clone());
            self.upper.forgotten(self);
        };
        if self.is_greeted() {
            self.upper.tell(self, &SessionEvent::Gone(end.clone()), &mut finish);
        } else {
            finish();
        }
        self.upper.ended(self, end);
        self.ended.send_replace(true);
    }
}

fn undelivered(chan: &super::SendChan) -> CloseReport {
    let state = chan.state.lock();
    let (owed, owed_in_doubt) = state.owed.count();
    let half = &state.half;
    let (certain, unsettled_in_doubt) = half.unsettled();
    // What has arrived in a session that is over counts for nothing.
    let missing = if !state.claims.are_of(state.life) && chan.resends() {
        certain + unsettled_in_doubt
    } else {
        half.committed() - half.received()
    };
    let undelivered = certain.min(missing);
    let report = CloseReport {
        undelivered: undelivered + owed,
        in_doubt: missing - undelivered + owed_in_doubt,
        channels: vec![(chan.name.to_string(), missing + owed + owed_in_doubt)],
    };
    if report.is_complete() { CloseReport::default() } else { report }
}
