//! From one link to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netchan_proto::crypto::ResumeFrom;
use tokio::time::Instant;

use super::clock::GOODBYE_DEADLINE;
use super::{Driver, Turn};
use crate::error::SessionEnd;
use crate::session::link::{Arrival, NewLink};
use crate::session::lost::Coming;
use crate::session::state::{SessionEvent, SessionState};
use crate::session::{Links, phase, redial};

/// How long a client whose link is in good order waits before it tries again to replace it, when the server would not.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How long a server keeps a session whose client had not confirmed it when the link was lost: that client finds a dead link
/// within the keepalive's 10 s, and has time to try again. Kept for a lifetime, each attempt that a client gave up would stay.
const UNCONFIRMED_LIFETIME: Duration = Duration::from_secs(30);

impl Driver {
    /// The link is gone: everyone waits for another.
    pub(super) fn suspend(&mut self, reason: String) -> Result<(), SessionEnd> {
        let core = Arc::clone(&self.core);
        // It was given up in an earlier wait, and found another link all the same.
        drop(core.take_given_up());
        let resumes = !core.limits.session_lifetime.is_zero();
        if self.is_leaving() {
            // The farewell may not have arrived: a client that has the time says it on another link.
            self.goodbye_at.get_or_insert(Instant::now() + GOODBYE_DEADLINE);
            if resumes && core.redial.is_some() {
                self.redial(core.resume_from(), false);
            }
            return Ok(());
        }
        if !resumes {
            return Err(SessionEnd::Disconnected(reason));
        }
        if core.redial.is_none() && !core.is_greeted() {
            // Whoever set it up may have it, and come back; nobody is told of it.
            core.upper.suspended(&core, &reason)?;
            core.board.change(SessionState::Suspended, None);
            self.give_up_at = Some(Instant::now() + UNCONFIRMED_LIFETIME.min(core.limits.session_lifetime));
            return Ok(());
        }
        core.upper.suspended(&core, &reason)?;
        if core.board.state() != SessionState::Suspended {
            tracing::info!(peer = %core.peer(), %reason, "suspended");
            core.change(SessionState::Suspended, SessionEvent::Suspended { reason });
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
    pub(super) fn forget(&mut self, reason: String) -> Result<(), SessionEnd> {
        if self.is_leaving() {
            return Err(SessionEnd::ClosedHere);
        }
        let end = SessionEnd::Lost(reason);
        if self.core.redial.is_none() || self.core.phase.load(Ordering::SeqCst) != phase::OPEN {
            return Err(end);
        }
        // A link that came to nothing buys no time here either.
        let bound = self.lost_at_most.filter(|_| self.core.coming.lock().is_some());
        self.core.lose(&end);
        self.give_up_at = bound.or(Some(Instant::now() + self.core.limits.session_lifetime));
        self.lost_at_most = self.give_up_at;
        self.redial(None, true);
        Ok(())
    }

    /// No link within the session's lifetime: it is lost, and goes on as another only for channels that are to.
    pub(super) fn give_up(&self) -> Turn {
        let core = &self.core;
        let why = format!("no new connection within {:?}", core.limits.session_lifetime);
        if core.redial.is_some() && !core.is_lost() && !core.is_closing() && core.outlives_its_session() {
            Turn::Forgotten(why)
        } else {
            Turn::End(SessionEnd::Disconnected(why))
        }
    }

    pub(super) fn redial(&mut self, resume: Option<ResumeFrom>, at_once: bool) {
        self.stop_redialing();
        if let Some(relink) = &self.core.redial {
            let attempt =
                redial::Attempt { number: self.attempt, resume, at_once, failures: self.unconfirmed };
            let attempt = redial::run(Arc::clone(&self.core), Arc::clone(relink), attempt);
            self.redialing = Some(tokio::spawn(attempt));
        }
    }

    /// Ends the attempt at another link; whatever it has found already is void.
    pub(super) fn stop_redialing(&mut self) {
        self.attempt += 1;
        if let Some(task) = self.redialing.take() {
            task.abort();
        }
    }

    /// What has come of the last attempt at another link, or from a client that found its way back.
    pub(super) fn arrival(&mut self) -> Option<Turn> {
        let (attempt, arrival) = self.core.take_arrival()?;
        let wanted = match &arrival {
            // A server's record says which link is the newest.
            Arrival::Link(link) if self.core.redial.is_none() => {
                self.core.with_server_links(|links| links.epoch()) == Some(link.epoch())
            }
            _ => attempt == self.attempt,
        };
        match arrival {
            _ if !wanted => None,
            Arrival::Link(link) => Some(Turn::Replaced(link)),
            Arrival::Unknown(reason) if self.link.is_some() => self.not_renewed(&reason),
            Arrival::Final(end) if self.link.is_some() => self.not_renewed(&end.to_string()),
            Arrival::Unknown(reason) => Some(Turn::Forgotten(reason)),
            Arrival::Final(_) if self.is_leaving() => Some(Turn::End(SessionEnd::ClosedHere)),
            Arrival::Final(end) => Some(Turn::End(end)),
        }
    }

    /// The server would not replace a link that is in good order: it stays.
    fn not_renewed(&mut self, reason: &str) -> Option<Turn> {
        tracing::warn!(peer = %self.core.peer(), %reason, "the connection was not replaced; the old one stays");
        self.stop_redialing();
        self.core.traffic.mark();
        if let Some(link) = &mut self.link {
            link.renew_at = Some(Instant::now() + RENEW_AGAIN_AFTER);
        }
        None
    }

    /// A new link is here: notes it in the session's record, and says so.
    pub(super) fn accept(&mut self, link: &NewLink) -> Result<(), String> {
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
        if !suspended {
            // The session was in good order: what befalls this link counts from here.
            self.lost_at_most = None;
            self.unconfirmed = 0;
        }
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
}
