//! What a session does when its time has come.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::{Driver, PARK_AFTER, Turn};
use crate::error::SessionEnd;
use crate::session::recv_chan::GiveBack;

/// How long a closing end waits for the other to close too.
pub(super) const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// How long news that nobody waits for may wait when nothing more happens. Well above the period of a kernel's
/// own tick: an earlier timer would be programmed into the hardware at every wait for the link, and under a hypervisor
/// that costs more than a message.
const TICK: Duration = Duration::from_millis(50);

impl Driver {
    /// On its way out, once everything has been written: no more bytes follow.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) {
        let leaving = self.is_leaving();
        let Some(link) = &mut self.link else { return };
        let leaving = leaving && !link.shut_down;
        // Before the peer has confirmed, the farewell waits: `Control` says it then.
        if leaving && self.core.control.lock().is_confirmed() && self.core.is_written() {
            link.shut_down = self.core.poll_shutdown(cx).is_ready();
        }
    }

    /// Does what time has come for. Says when to look again.
    pub(super) fn overdue(&mut self, now: Instant) -> Result<GiveBack, Turn> {
        if self.is_leaving() {
            let at = *self.goodbye_at.get_or_insert(now + GOODBYE_DEADLINE);
            if now >= at {
                return Err(Turn::End(SessionEnd::ClosedHere));
            }
        }
        self.keep_alive(now)?;
        match self.tick_at {
            Some(at) if now >= at => {
                self.tick_at = None;
                // Whoever has news from here on asks for another tick; those from before are here.
                self.core.ticking.store(false, Ordering::SeqCst);
                self.core.report_rest();
            }
            None if self.core.ticking.load(Ordering::SeqCst) => self.tick_at = Some(now + TICK),
            _ => {}
        }
        if self.park_at.is_some_and(|at| now >= at) {
            if let Some(link) = &mut self.link {
                link.half.idle();
            }
            self.park_at = self.core.park().then(|| now + PARK_AFTER);
        }
        Ok(self.core.give_back_idle(now))
    }

    /// Asks a silent peer for a sign of life, gives a dead link up, and replaces one that has served its time.
    fn keep_alive(&mut self, now: Instant) -> Result<(), Turn> {
        let Some(link) = &mut self.link else { return Ok(()) };
        if link.previous.is_some() && self.core.control.lock().is_confirmed() {
            link.previous = None;
        }
        let limits = &self.core.limits;
        if now >= link.check_at {
            let silent = now.saturating_duration_since(link.heard);
            if silent >= limits.keepalive_dead {
                return Err(self.gone(format!("nothing was heard of the other end for {silent:.1?}"), false));
            }
            // `PORT-8`
            if let Some(stalled) = self.core.stalled_for()
                && stalled >= limits.write_stall_max
            {
                let why = format!(
                    "the other end has taken nothing for {stalled:.1?} (Limits::write_stall_max here)"
                );
                return Err(self.gone(why, false));
            }
            link.check_at = if silent >= limits.keepalive_idle {
                self.core.ping();
                link.heard + limits.keepalive_dead
            } else {
                link.heard + limits.keepalive_idle
            };
        }
        let worn = self.core.traffic.since_mark() >= limits.renew_bytes;
        if link.renew_at.is_some_and(|at| worn || now >= at) {
            link.renew_at = None;
            let resume = self.core.resume_from();
            self.redial(resume, true);
        }
        Ok(())
    }

    pub(super) fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let give_back = match self.overdue(Instant::now()) {
            Ok(give_back) => give_back,
            Err(turn) => return Poll::Ready(turn),
        };
        if give_back.acted {
            return Poll::Ready(Turn::Yield);
        }
        let link = self.link.as_ref();
        let wakes = [
            self.goodbye_at,
            self.read_at,
            self.tick_at,
            self.park_at,
            give_back.next,
            link.map(|link| link.check_at),
            link.and_then(|link| link.renew_at),
            self.give_up_at,
        ];
        let Some(next) = wakes.into_iter().flatten().min() else { return Poll::Pending };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx).map(|()| Turn::Yield)
    }
}
