//! The task of a session: reads its link, keeps time, and sees a new link into the place of one that is gone.

mod between;
mod clock;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use netchan_proto::session::{Fault, ReadHalf, close_code};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tracing::Instrument;

use super::flush::{Flusher, Handling};
use super::host::ShellHost;
use super::link::NewLink;
use super::{SessionCore, phase};
use crate::error::SessionEnd;
use crate::hold::Hold;
use crate::transport::{LinkReader, LinkWriter};

/// Reads in a row before consumers get their turn.
const READS_MAX: usize = 4;

/// Work of one round, in units of a small frame: some hundred microseconds. A session whose peer says much has its next round when
/// others have had theirs (`PORT-10`). Bulk never comes to it: four reads are two dozen records.
const WORK_MAX: u32 = 256;

/// Rounds for what a link has brought that takes nothing any more: as much as the system keeps of it.
const LAST_ROUNDS_MAX: usize = 256;

/// Buffers that were not used for this long are given back.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// What becomes of the link, or the session.
enum Turn {
    /// Let others run, then come back.
    Yield,
    /// The link is gone.
    Lost(String),
    /// Another is to take its place.
    Replaced(Box<NewLink>),
    /// The session is lost; a client sets up another.
    Forgotten(String),
    /// The session is over.
    End(SessionEnd),
}

/// The reading half of the link in place.
struct Reading {
    reader: LinkReader,
    half: ReadHalf,
    /// When something was last heard from the peer.
    heard: Instant,
    /// When to see whether the peer is still there.
    check_at: Instant,
    /// When a client replaces the link.
    renew_at: Option<Instant>,
    shut_down: bool,
    _hold: Option<Hold>,
    /// The link that this one replaces, if that was in good order. It stays open until this one is confirmed: else the peer
    /// could see its end first, and take it for a loss.
    previous: Option<(LinkReader, LinkWriter)>,
}

pub(crate) struct Driver {
    core: Arc<SessionCore>,
    first: Option<Box<NewLink>>,
    link: Option<Reading>,
    previous: Option<(LinkReader, LinkWriter)>,
    /// Links in a row that were lost before they were confirmed: the pauses go on growing.
    unconfirmed: u32,
    redialing: Option<JoinHandle<()>>,
    /// The last attempt at another link; what an earlier one brings is not wanted any more.
    attempt: u64,
    /// When a closing end waits for the other no longer.
    goodbye_at: Option<Instant>,
    /// When a session without a link is given up (`SESS-18`), and when it was to be before its last link.
    give_up_at: Option<Instant>,
    lost_at_most: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// The link is not read until then, for its peer opens channels without end.
    read_at: Option<Instant>,
    /// When to see whether news still wait, and when to give buffers back.
    tick_at: Option<Instant>,
    park_at: Option<Instant>,
}

impl Driver {
    pub(super) fn new(core: Arc<SessionCore>, first: NewLink) -> Self {
        Self {
            core,
            first: Some(Box::new(first)),
            link: None,
            previous: None,
            unconfirmed: 0,
            redialing: None,
            attempt: 0,
            goodbye_at: None,
            give_up_at: None,
            lost_at_most: None,
            timer: Box::pin(tokio::time::sleep(PARK_AFTER)),
            read_at: None,
            tick_at: None,
            park_at: None,
        }
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) {
        let guard = EndOnDrop(Arc::clone(&self.core));
        let mut next = self.first.take();
        let end = loop {
            let turn = match next.take() {
                Some(link) => self.connected(link).await,
                None => self.disconnected().await,
            };
            match self.turn(turn) {
                Ok(link) => next = link,
                Err(end) => break end,
            }
        };
        self.stop_redialing();
        guard.0.end(end);
    }

    /// What follows from a turn: the next link, none for now, or the end.
    fn turn(&mut self, turn: Turn) -> Result<Option<Box<NewLink>>, SessionEnd> {
        match turn {
            Turn::Yield => Ok(None),
            Turn::End(end) => Err(end),
            Turn::Lost(reason) => self.suspend(reason).map(|()| None),
            Turn::Forgotten(reason) => self.forget(reason).map(|()| None),
            Turn::Replaced(link) => match self.accept(&link) {
                Ok(()) => Ok(Some(link)),
                // The server went on with something else: this session is no more.
                Err(reason) => self.forget(reason).map(|()| None),
            },
        }
    }

    /// Runs on a link until that is gone.
    async fn connected(&mut self, link: Box<NewLink>) -> Turn {
        let core = Arc::clone(&self.core);
        let now = Instant::now();
        let (reader, half, hold) = core.attach(*link);
        let renews = core.redial.is_some();
        self.link = Some(Reading {
            reader,
            half,
            heard: now,
            check_at: now + core.limits.keepalive_idle,
            renew_at: renews.then(|| now + core.limits.renew_after),
            shut_down: false,
            _hold: hold,
            previous: self.previous.take(),
        });
        let flusher = tokio::spawn(Flusher::new(&core).run().in_current_span());
        let turn = loop {
            match poll_fn(|cx| self.poll_round(cx)).await {
                Turn::Yield => tokio::task::yield_now().await,
                turn => break turn,
            }
        };
        let link = self.link.take();
        let writer = core.detach(matches!(turn, Turn::Replaced(_)));
        if let (Turn::Replaced(_), Some(link), Some(writer)) = (&turn, link, writer) {
            self.previous = Some((link.reader, writer));
        }
        // Only its own panic could be reported here, and that has been said.
        _ = flusher.await;
        turn
    }

    /// Waits for a link, while time goes on.
    async fn disconnected(&mut self) -> Turn {
        loop {
            match poll_fn(|cx| self.poll_apart(cx)).await {
                Turn::Yield => tokio::task::yield_now().await,
                turn => return turn,
            }
        }
    }

    fn poll_apart(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.core.driver.register(cx.waker());
        if let Some(turn) = self.arrival() {
            return Poll::Ready(turn);
        }
        if let Some(end) = self.core.take_given_up() {
            return Poll::Ready(Turn::End(end));
        }
        if self.core.redial.is_none() || self.core.is_lost() {
            // Nothing is left to be said on another link.
            self.core.linger();
        }
        let now = Instant::now();
        if self.is_leaving() && !(self.redialing.is_some() && self.goodbye_at.is_some_and(|at| now < at)) {
            return Poll::Ready(Turn::End(SessionEnd::ClosedHere));
        }
        if self.give_up_at.is_some_and(|at| now >= at) {
            return Poll::Ready(self.give_up());
        }
        self.keep_time(cx)
    }

    /// On its way out: GOODBYE has been said, or is queued.
    fn is_leaving(&self) -> bool {
        self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        // Nobody wakes it while it is at work: woken by what it does itself, it would run again before the runtime has looked for what
        // others have read (`PORT-10`).
        drop(self.core.driver.take());
        self.core.driver_called.store(false, Ordering::SeqCst);
        // First, so that a link that has been replaced is read no further.
        if self.core.arrived.load(Ordering::SeqCst)
            && let Some(turn) = self.arrival()
        {
            return Poll::Ready(turn);
        }
        self.read_at = self.core.reading_pause().map(|pause| Instant::now() + pause);
        let more_to_read = match self.read_at.is_none().then(|| self.read(cx)) {
            Some(Ok(more)) => more,
            Some(Err(turn)) => return Poll::Ready(turn),
            None => false,
        };
        self.core.note_pause();
        self.core.linger();
        self.leave(cx);
        if let Some(why) = self.core.write_failure() {
            // What the peer said before it went may still be here, a farewell among it.
            let turn = self.gone(why, false);
            for _ in 0..LAST_ROUNDS_MAX {
                match self.read(cx) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(turn) => return Poll::Ready(turn),
                }
            }
            return Poll::Ready(turn);
        }
        if !more_to_read {
            self.core.driver.register(cx.waker());
        }
        if more_to_read || self.core.driver_called.load(Ordering::SeqCst) {
            // A link that is never idle keeps no deadline from coming true.
            let overdue = self.overdue(Instant::now());
            return Poll::Ready(overdue.err().unwrap_or(Turn::Yield));
        }
        self.keep_time(cx)
    }

    /// Reads what is there, up to a bound. Says whether there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Turn> {
        // Bytes that arrived behind the handshake are here before the link is read.
        let mut work = WORK_MAX;
        if !self.process(&mut work)? {
            return Ok(true);
        }
        for reads in 0..READS_MAX {
            let Some(link) = &mut self.link else { return Ok(false) };
            let mut buffer = ReadBuf::new(link.half.space());
            match Pin::new(&mut link.reader).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(self.gone(error.to_string(), false)),
                Poll::Ready(Ok(())) => {
                    let bytes = buffer.filled().len();
                    if bytes == 0 {
                        return Err(self.gone("the other end closed it without a word".to_owned(), true));
                    }
                    if reads == 0 {
                        link.heard = Instant::now();
                        if self.park_at.is_none() {
                            self.park_at = Some(link.heard + PARK_AFTER);
                        }
                    }
                    link.half.filled(bytes);
                    self.core.traffic.note_in(bytes);
                    if !self.process(&mut work)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Handles what has been read, as far as there is work left. Says whether that is all of it.
    fn process(&mut self, work: &mut u32) -> Result<bool, Turn> {
        let Some(link) = &mut self.link else { return Ok(true) };
        let host = ShellHost::new(&self.core);
        let handling = Handling::begin(&self.core);
        let result = link.half.process_some(&host, work);
        if handling.end() || host.has_answers() {
            self.core.flush();
        }
        if let Some(end) = self.core.peer_said_goodbye() {
            return Err(Turn::End(end));
        }
        match result {
            Ok(done) => Ok(done),
            Err(Fault::Link(error)) => Err(self.gone(error.to_string(), false)),
            Err(Fault::Peer(violation)) => {
                // An authenticated violation ends the session loudly on both sides.
                self.core.with_control(|c| c.go_away(close_code::VIOLATION, violation.to_string()));
                _ = self.core.flush_all(None);
                Err(Turn::End(SessionEnd::PeerViolation(violation.to_string())))
            }
        }
    }

    /// The link is no more; `orderly` if the other end closed it between two records.
    fn gone(&self, why: String, orderly: bool) -> Turn {
        // An end that leaves waits for just this. Cut off before, a client says its farewell once more.
        if self.is_leaving() && (orderly || self.core.redial.is_none()) {
            Turn::End(SessionEnd::ClosedHere)
        } else {
            Turn::Lost(why)
        }
    }
}

/// Ends the session even when the driver is dropped in mid-course, as when its runtime shuts down.
struct EndOnDrop(Arc<SessionCore>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(SessionEnd::Disconnected("the runtime of this end shut down".to_owned()));
    }
}
