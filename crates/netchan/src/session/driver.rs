//! The task of a session that reads the link and keeps time.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use netchan_proto::session::{Fault, ReadHalf, close_code};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::flush::Flusher;
use super::host::ShellHost;
use super::recv_chan::GiveBack;
use super::{SessionCore, phase};
use crate::error::SessionEnd;
use crate::transport::LinkReader;

/// Reads in a row before consumers get their turn.
const READS_MAX: usize = 4;

/// How long a closing end waits for the other to close too.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// Buffers that were not used for this long are given back.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// How long news that nobody waits for may wait when nothing more happens. Well above the period of a kernel's
/// own tick: an earlier timer would be programmed into the hardware at every wait for the link, and under a hypervisor
/// that costs more than a message.
const TICK: Duration = Duration::from_millis(50);

enum Round {
    /// Let others run, then come back.
    Yield,
    /// The session is over.
    End(SessionEnd),
}

pub(crate) struct Driver {
    core: Arc<SessionCore>,
    reader: LinkReader,
    half: ReadHalf,
    shut_down: bool,
    goodbye_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// When to see whether news still wait, and when to give buffers back.
    tick_at: Option<Instant>,
    park_at: Option<Instant>,
}

impl Driver {
    pub(super) fn new(core: Arc<SessionCore>, reader: LinkReader, half: ReadHalf) -> Self {
        let timer = Box::pin(tokio::time::sleep(PARK_AFTER));
        Self { core, reader, half, shut_down: false, goodbye_at: None, timer, tick_at: None, park_at: None }
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let guard = EndOnDrop(Arc::clone(&self.core));
        let flusher = tokio::spawn(Flusher::new(&self.core).run());
        let end = loop {
            match poll_fn(|cx| self.poll_round(cx)).await {
                Round::Yield => tokio::task::yield_now().await,
                Round::End(end) => break end,
            }
        };
        guard.0.end(end);
        // Only its own panic could be reported here, and that has been said.
        _ = flusher.await;
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Round> {
        self.core.driver.register(cx.waker());
        let more_to_read = match self.read(cx) {
            Ok(more) => more,
            Err(end) => return Poll::Ready(Round::End(end)),
        };
        self.core.note_pause();
        self.core.linger();
        self.leave(cx);
        if let Some(end) = self.core.write_failure() {
            // What the peer said before it went may still be here, a farewell among it.
            let end = if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
                SessionEnd::ClosedHere
            } else {
                end
            };
            return Poll::Ready(Round::End(self.read(cx).err().unwrap_or(end)));
        }
        if more_to_read {
            // A link that is never idle keeps no deadline from coming true.
            let overdue = self.overdue(Instant::now());
            return Poll::Ready(overdue.err().unwrap_or(Round::Yield));
        }
        self.keep_time(cx)
    }

    /// Reads what is there, up to a bound. Says whether there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, SessionEnd> {
        // Bytes that arrived behind the handshake are here before the link is read.
        self.process()?;
        for _ in 0..READS_MAX {
            let mut buffer = ReadBuf::new(self.half.space());
            match Pin::new(&mut self.reader).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(self.disconnected(&error.to_string())),
                Poll::Ready(Ok(())) => {
                    let bytes = buffer.filled().len();
                    if bytes == 0 {
                        return Err(self.disconnected("the other end closed it without a word"));
                    }
                    if self.park_at.is_none() {
                        self.park_at = Some(Instant::now() + PARK_AFTER);
                    }
                    self.half.filled(bytes);
                    self.process()?;
                }
            }
        }
        Ok(true)
    }

    fn process(&mut self) -> Result<(), SessionEnd> {
        let host = ShellHost::new(&self.core);
        let result = self.half.process(&host);
        if host.has_answers() {
            self.core.flush();
        }
        if let Some(end) = self.core.peer_said_goodbye() {
            return Err(end);
        }
        match result {
            Ok(_) => Ok(()),
            Err(Fault::Link(error)) => Err(SessionEnd::Disconnected(error.to_string())),
            Err(Fault::Peer(violation)) => {
                // An authenticated violation ends the session loudly on both sides.
                self.core.with_control(|c| c.go_away(close_code::VIOLATION, violation.to_string()));
                _ = self.core.flush_all(None);
                Err(SessionEnd::PeerViolation(violation.to_string()))
            }
        }
    }

    fn disconnected(&self, why: &str) -> SessionEnd {
        if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
            SessionEnd::ClosedHere
        } else {
            SessionEnd::Disconnected(why.to_owned())
        }
    }

    /// On its way out, once everything has been written: no more bytes follow.
    fn leave(&mut self, cx: &mut Context<'_>) {
        let leaving = self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE && !self.shut_down;
        // Before the peer has confirmed, the farewell waits: `Control` says it then.
        if leaving && self.core.control.lock().is_confirmed() && self.core.is_written() {
            self.shut_down = self.core.poll_shutdown(cx).is_ready();
        }
    }

    /// Does what time has come for. Says when to look again.
    fn overdue(&mut self, now: Instant) -> Result<GiveBack, Round> {
        if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
            let at = *self.goodbye_at.get_or_insert(now + GOODBYE_DEADLINE);
            if now >= at {
                return Err(Round::End(SessionEnd::ClosedHere));
            }
        }
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
            self.half.idle();
            self.park_at = self.core.park().then(|| now + PARK_AFTER);
        }
        Ok(self.core.give_back_idle(now.into_std()))
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<Round> {
        let give_back = match self.overdue(Instant::now()) {
            Ok(give_back) => give_back,
            Err(round) => return Poll::Ready(round),
        };
        if give_back.acted {
            return Poll::Ready(Round::Yield);
        }
        let wakes = [self.goodbye_at, self.tick_at, self.park_at, give_back.next.map(Instant::from_std)];
        let Some(next) = wakes.into_iter().flatten().min() else { return Poll::Pending };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx).map(|()| Round::Yield)
    }
}

/// Ends the session even when the driver is dropped in mid-course, as when its runtime shuts down.
struct EndOnDrop(Arc<SessionCore>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(SessionEnd::Disconnected("the runtime of this end shut down".to_owned()));
    }
}
