//! The task of a session: it reads the link, writes what senders leave behind, and keeps time.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use netchan_proto::session::{Fault, ReadHalf, close_code};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::flush::Written;
use super::host::ShellHost;
use super::recv_chan::GiveBack;
use super::{SessionCore, phase};
use crate::error::SessionEnd;
use crate::transport::LinkReader;

/// Reads in a row before consumers get their turn.
const READS_MAX: usize = 4;

/// How long a closing end waits for the other to close too.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// How long a producer that gave way to other tasks holds back what it left.
const HOLD_BACK_MAX: Duration = Duration::from_millis(1);

/// An idle link gives its buffers back after this long.
const IDLE_AFTER: Duration = Duration::from_secs(1);

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
    /// Since when a paused producer has kept this task from writing.
    held_back: Option<Instant>,
    shut_down: bool,
    goodbye_at: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    busy: bool,
}

impl Driver {
    pub(super) fn new(core: Arc<SessionCore>, reader: LinkReader, half: ReadHalf) -> Self {
        let timer = Box::pin(tokio::time::sleep(IDLE_AFTER));
        Self { core, reader, half, held_back: None, shut_down: false, goodbye_at: None, timer, busy: false }
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let guard = EndOnDrop(Arc::clone(&self.core));
        let end = loop {
            match poll_fn(|cx| self.poll_round(cx)).await {
                Round::Yield => tokio::task::yield_now().await,
                Round::End(end) => break end,
            }
        };
        guard.0.end(end);
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Round> {
        self.core.driver.register(cx.waker());
        self.core.adopt_writer(cx.waker());
        let more_to_read = match self.read(cx) {
            Ok(more) => more,
            Err(end) => return Poll::Ready(Round::End(end)),
        };
        let wrote = match self.write(cx) {
            Ok(wrote) => wrote.is_ready(),
            // What the peer said before it went may still be here, a farewell among it.
            Err(end) => return Poll::Ready(Round::End(self.read(cx).err().unwrap_or(end))),
        };
        if wrote || more_to_read {
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
                    self.busy = true;
                    self.half.filled(bytes);
                    self.process()?;
                }
            }
        }
        Ok(true)
    }

    fn process(&mut self) -> Result<(), SessionEnd> {
        let result = self.half.process(&ShellHost(&self.core));
        if let Some(end) = self.core.peer_said_goodbye() {
            return Err(end);
        }
        match result {
            Ok(_) => Ok(()),
            Err(Fault::Link(error)) => Err(SessionEnd::Disconnected(error.to_string())),
            Err(Fault::Peer(violation)) => {
                // An authenticated violation ends the session loudly on both sides.
                self.core.with_control(|c| c.go_away(close_code::VIOLATION, violation.to_string()));
                _ = self.core.flush_all();
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

    /// Writes what senders left behind. `Ready` asks for another round.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, SessionEnd> {
        let core = Arc::clone(&self.core);
        core.lazy.store(false, Ordering::SeqCst);
        core.linger();
        let said = core.control.lock().has_output();
        if !said && core.paused_producers.load(Ordering::SeqCst) > 0 {
            // A producer in mid-burst gave way and will be back; a batch that is left to grow costs less per value. But its
            // future may never be polled again, and others count on this session too.
            let since = *self.held_back.get_or_insert_with(Instant::now);
            if since.elapsed() < HOLD_BACK_MAX {
                core.burst.store(false, Ordering::SeqCst);
                if core.paused_producers.load(Ordering::SeqCst) > 0 {
                    return Ok(Poll::Pending);
                }
            }
        }
        self.held_back = None;
        let wrote = said || core.has_ready();
        if core.flush_all()? == Written::Blocked {
            // The link wakes this task; until then senders gather.
            core.burst.store(true, Ordering::SeqCst);
            return Ok(Poll::Pending);
        }
        if wrote {
            self.busy = true;
            return Ok(Poll::Ready(()));
        }
        core.burst.store(false, Ordering::SeqCst);
        if core.has_ready() || core.control.lock().has_output() {
            return Ok(Poll::Ready(()));
        }
        // Before the peer has confirmed, the farewell waits: `Control` says it then.
        let leaving = core.phase.load(Ordering::SeqCst) == phase::GOODBYE && !self.shut_down;
        if leaving && core.control.lock().is_confirmed() {
            self.shut_down = core.poll_shutdown(cx).is_ready();
        }
        Ok(Poll::Pending)
    }

    /// Does what time has come for. Says when to look again.
    fn overdue(&mut self, now: Instant) -> Result<GiveBack, Round> {
        if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
            let at = *self.goodbye_at.get_or_insert(now + GOODBYE_DEADLINE);
            if now >= at {
                return Err(Round::End(SessionEnd::ClosedHere));
            }
        }
        Ok(self.core.give_back_idle(now.into_std()))
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<Round> {
        let now = Instant::now();
        let give_back = match self.overdue(now) {
            Ok(give_back) => give_back,
            Err(round) => return Poll::Ready(round),
        };
        if give_back.acted {
            return Poll::Ready(Round::Yield);
        }
        let wakes = [
            self.held_back.map(|since| since + HOLD_BACK_MAX),
            self.goodbye_at,
            give_back.next.map(Instant::from_std),
            self.busy.then(|| now + IDLE_AFTER),
        ];
        let Some(next) = wakes.into_iter().flatten().min() else { return Poll::Pending };
        if self.timer.deadline() != next
            && !(self.busy && self.timer.deadline() > now && self.timer.deadline() <= next)
        {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            if self.busy {
                // A whole period without a byte: the buffers go back until they are needed.
                self.busy = false;
                self.half.idle();
                self.core.idle_writer();
            }
            return Poll::Ready(Round::Yield);
        }
        Poll::Pending
    }
}

/// Ends the session even when the driver is dropped in mid-course, as when its runtime shuts down.
struct EndOnDrop(Arc<SessionCore>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(SessionEnd::Disconnected("the runtime of this end shut down".to_owned()));
    }
}
