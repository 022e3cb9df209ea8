//! The task of a session: reads its link, keeps time, and sees a new link into the place of one that is gone.

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

use super::flush::Flusher;
use super::host::ShellHost;
use super::link::{Arrival, NewLink};
use super::lost::Coming;
use super::recv_chan::GiveBack;
use super::state::{SessionEvent, SessionState};
use super::{Links, SessionCore, phase, redial};
use crate::error::SessionEnd;
use crate::transport::{LinkReader, LinkWriter};

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
    goodbye_at: Option<Instant>,
    /// When a session without a link is given up (`SESS-18`), and when it was to be before its last link.
    give_up_at: Option<Instant>,
    lost_at_most: Option<Instant>,
    timer: Pin<Box<Sleep>>,
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
            goodbye_at: None,
            give_up_at: None,
            lost_at_most: None,
            timer: Box::pin(tokio::time::sleep(PARK_AFTER)),
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

    /// The link is gone: everyone waits for another.
    fn suspend(&mut self, reason: String) -> Result<(), SessionEnd> {
        let core = &self.core;
        if core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
            return Err(SessionEnd::ClosedHere);
        }
        if core.limits.session_lifetime.is_zero() {
            return Err(SessionEnd::Disconnected(reason));
        }
        if core.redial.is_none() && !core.greeted.load(Ordering::SeqCst) {
            // Nobody has confirmed it, so nothing is lost with it; kept, each attempt that a client gives up would stay for a
            // lifetime.
            return Err(SessionEnd::Disconnected(reason));
        }
        core.upper.suspended(core, &reason)?;
        if core.board.state() != SessionState::Suspended {
            tracing::info!(peer = %core.peer(), %reason, "suspended");
            core.board.set(SessionState::Suspended);
            core.board.publish(SessionEvent::Suspended { reason });
        }
        self.unconfirmed = if core.coming.lock().is_some() { self.unconfirmed.saturating_add(1) } else { 0 };
        // A link that came to nothing buys the session no time.
        let give_up_at = Instant::now() + core.limits.session_lifetime;
        self.give_up_at = self.lost_at_most.filter(|_| self.unconfirmed > 0).or(Some(give_up_at));
        self.lost_at_most = self.give_up_at;
        self.redial(core.resume_from(), false);
        Ok(())
    }

    /// At a client: the server does not know the session any more. Another one takes its place.
    fn forget(&mut self, reason: String) -> Result<(), SessionEnd> {
        let end = SessionEnd::Lost(reason);
        if self.core.redial.is_none() || self.core.phase.load(Ordering::SeqCst) != phase::OPEN {
            return Err(end);
        }
        self.core.lose(&end);
        self.give_up_at = Some(Instant::now() + self.core.limits.session_lifetime);
        self.redial(None, true);
        Ok(())
    }

    fn redial(&mut self, resume: Option<netchan_proto::crypto::ResumeFrom>, at_once: bool) {
        self.stop_redialing();
        if let Some(relink) = &self.core.redial {
            let attempt =
                redial::run(Arc::clone(&self.core), Arc::clone(relink), resume, at_once, self.unconfirmed);
            self.redialing = Some(tokio::spawn(attempt));
        }
    }

    fn stop_redialing(&mut self) {
        if let Some(task) = self.redialing.take() {
            task.abort();
        }
    }

    /// A new link is here: notes it in the session's record, and says so.
    fn accept(&mut self, link: &NewLink) -> Result<(), String> {
        let core = Arc::clone(&self.core);
        let anew = core.is_lost();
        if let Links::Client(links) = &mut *core.links.lock() {
            if anew {
                core.renew(links, link);
            } else {
                let established = links.established(&link.accepted, link.secret.clone());
                established.map_err(|error| error.to_string())?;
            }
        }
        // Whoever brought it is done; another attempt would only replace it again.
        self.stop_redialing();
        self.give_up_at = None;
        let suspended = core.board.state() == SessionState::Suspended;
        let mut coming = core.coming.lock();
        *coming = Some(match *coming {
            // Its first link was lost before it was confirmed.
            Some(Coming::Anew) => Coming::Anew,
            _ if anew => Coming::Anew,
            _ if suspended => Coming::Resumed,
            _ => Coming::Renewed,
        });
        Ok(())
    }

    /// Runs on a link until that is gone.
    async fn connected(&mut self, link: Box<NewLink>) -> Turn {
        let core = Arc::clone(&self.core);
        let now = Instant::now();
        let (reader, half) = core.attach(*link);
        let renews = core.redial.is_some();
        self.link = Some(Reading {
            reader,
            half,
            heard: now,
            check_at: now + core.limits.keepalive_idle,
            renew_at: renews.then(|| now + core.limits.renew_after),
            shut_down: false,
            previous: self.previous.take(),
        });
        let flusher = tokio::spawn(Flusher::new(&core).run());
        let turn = loop {
            match poll_fn(|cx| self.poll_round(cx)).await {
                Turn::Yield => tokio::task::yield_now().await,
                turn => break turn,
            }
        };
        let link = self.link.take();
        let writer = core.detach();
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
        self.core.linger();
        if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
            return Poll::Ready(Turn::End(SessionEnd::ClosedHere));
        }
        if self.give_up_at.is_some_and(|at| Instant::now() >= at) {
            let lifetime = self.core.limits.session_lifetime;
            let why = format!("no new connection within {lifetime:?}");
            return Poll::Ready(Turn::End(SessionEnd::Disconnected(why)));
        }
        self.keep_time(cx)
    }

    fn arrival(&mut self) -> Option<Turn> {
        Some(match self.core.take_arrival()? {
            Arrival::Link(link) => Turn::Replaced(link),
            Arrival::Unknown(reason) => Turn::Forgotten(reason),
            Arrival::Final(end) => Turn::End(end),
        })
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        self.core.driver.register(cx.waker());
        let more_to_read = match self.read(cx) {
            Ok(more) => more,
            Err(turn) => return Poll::Ready(turn),
        };
        self.core.note_pause();
        self.core.linger();
        self.leave(cx);
        if let Some(why) = self.core.write_failure() {
            // What the peer said before it went may still be here, a farewell among it.
            let turn = self.gone(why);
            return Poll::Ready(self.read(cx).err().unwrap_or(turn));
        }
        if self.core.arrived.load(Ordering::SeqCst)
            && let Some(turn) = self.arrival()
        {
            return Poll::Ready(turn);
        }
        if more_to_read {
            // A link that is never idle keeps no deadline from coming true.
            let overdue = self.overdue(Instant::now());
            return Poll::Ready(overdue.err().unwrap_or(Turn::Yield));
        }
        self.keep_time(cx)
    }

    /// Reads what is there, up to a bound. Says whether there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Turn> {
        // Bytes that arrived behind the handshake are here before the link is read.
        self.process()?;
        for reads in 0..READS_MAX {
            let Some(link) = &mut self.link else { return Ok(false) };
            let mut buffer = ReadBuf::new(link.half.space());
            match Pin::new(&mut link.reader).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(self.gone(error.to_string())),
                Poll::Ready(Ok(())) => {
                    let bytes = buffer.filled().len();
                    if bytes == 0 {
                        return Err(self.gone("the other end closed it without a word".to_owned()));
                    }
                    if reads == 0 {
                        link.heard = Instant::now();
                        if self.park_at.is_none() {
                            self.park_at = Some(link.heard + PARK_AFTER);
                        }
                    }
                    link.half.filled(bytes);
                    self.core.bytes_count.fetch_add(bytes as u64, Ordering::Relaxed);
                    self.process()?;
                }
            }
        }
        Ok(true)
    }

    fn process(&mut self) -> Result<(), Turn> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let host = ShellHost::new(&self.core);
        let result = link.half.process(&host);
        if host.has_answers() {
            self.core.flush();
        }
        if let Some(end) = self.core.peer_said_goodbye() {
            return Err(Turn::End(end));
        }
        match result {
            Ok(_) => Ok(()),
            Err(Fault::Link(error)) => Err(self.gone(error.to_string())),
            Err(Fault::Peer(violation)) => {
                // An authenticated violation ends the session loudly on both sides.
                self.core.with_control(|c| c.go_away(close_code::VIOLATION, violation.to_string()));
                _ = self.core.flush_all(None);
                Err(Turn::End(SessionEnd::PeerViolation(violation.to_string())))
            }
        }
    }

    fn gone(&self, why: String) -> Turn {
        if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
            Turn::End(SessionEnd::ClosedHere)
        } else {
            Turn::Lost(why)
        }
    }

    /// On its way out, once everything has been written: no more bytes follow.
    fn leave(&mut self, cx: &mut Context<'_>) {
        let Some(link) = &mut self.link else { return };
        let leaving = self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE && !link.shut_down;
        // Before the peer has confirmed, the farewell waits: `Control` says it then.
        if leaving && self.core.control.lock().is_confirmed() && self.core.is_written() {
            link.shut_down = self.core.poll_shutdown(cx).is_ready();
        }
    }

    /// Does what time has come for. Says when to look again.
    fn overdue(&mut self, now: Instant) -> Result<GiveBack, Turn> {
        if self.core.phase.load(Ordering::SeqCst) == phase::GOODBYE {
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
                return Err(self.gone(format!("nothing was heard of the other end for {silent:.1?}")));
            }
            link.check_at = if silent >= limits.keepalive_idle {
                self.core.with_control(|c| c.ping(0));
                link.heard + limits.keepalive_dead
            } else {
                link.heard + limits.keepalive_idle
            };
        }
        let worn = self.core.bytes_count.load(Ordering::Relaxed) >= limits.renew_bytes;
        if link.renew_at.is_some_and(|at| worn || now >= at) {
            link.renew_at = None;
            let resume = self.core.resume_from();
            self.redial(resume, true);
        }
        Ok(())
    }

    fn keep_time(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
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

/// Ends the session even when the driver is dropped in mid-course, as when its runtime shuts down.
struct EndOnDrop(Arc<SessionCore>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(SessionEnd::Disconnected("the runtime of this end shut down".to_owned()));
    }
}
