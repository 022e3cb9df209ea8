//! Taking connections: handshakes side by side, bounded in number and time.

use std::sync::Arc;
use std::time::Duration;

use netchan_proto::crypto::{Accepted, Aead, PeerHello, RefusalCode, ServerHandshake};
use netchan_proto::id::{Epoch, SessionId, Side};
use netchan_proto::session::close_code;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::doorway::{AtGate, HalfOpen};
use super::suspended::NotResumable;
use super::{Server, ServerCore, audit};
use crate::config::DuplicateSessions;
use crate::handshake::{self, AGENT, HandshakeFailure, Joined, Verdict};
use crate::policy::{DENIED, Decision, PolicyPeer, PolicyRequest};
use crate::rate::TokenBucket;
use crate::session::{NewLink, SessionCore, SessionState, Upper};
use crate::system;
use crate::transport::{Link, Listener};

/// After an accept that failed, as for want of file descriptors: time for some to come free. Doubles while it goes on.
const BACK_OFF_MIN: Duration = Duration::from_millis(5);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Connections taken at once after a pause, as part of a second's: four milliseconds' worth, so that a flood leaves gaps in which
/// sessions have their turn.
const BURST_SHARE: u32 = 250;

/// Accepts until the server closes. Dropping the listener frees its port.
pub(super) async fn run(core: Arc<ServerCore>, mut listener: Box<dyn Listener>) {
    let limits = &core.config.limits;
    let mut closing = core.closing.subscribe();
    let mut pace = TokenBucket::new(limits.accepts_per_second, limits.accepts_per_second / BURST_SHARE);
    let mut reserve = Reserve::new();
    let mut back_off = BACK_OFF_MIN;
    let started = Instant::now();
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            Some(_) = handshakes.join_next() => continue,
            accepted = async {
                core.doorway.room().await;
                listener.accept().await
            } => accepted,
        };
        let pause = match accepted {
            Ok(link) => {
                back_off = BACK_OFF_MIN;
                let core = Arc::clone(&core);
                let half_open = core.doorway.enter(&link.peer_address());
                handshakes.spawn(async move { admit(&core, link, half_open).await });
                pace.owe(started.elapsed())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept; trying again");
                if is_out_of_descriptors(&error) {
                    core.doorway.be_content();
                    reserve.shed(&mut *listener).await;
                }
                let pause = back_off;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                Some(pause)
            }
        };
        if let Some(pause) = pause {
            // Whoever comes meanwhile waits in the kernel's queue.
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    handshakes.shutdown().await;
}

/// Whether the process, or the system, has all the file descriptors that it may have.
fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    // EMFILE and ENFILE, which have these numbers on every Unix there is.
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// A file descriptor kept for the moment when there are no others (`PORT-5`): with it a connection that waits in the kernel's queue
/// can be taken and closed, so that its client hears at once that there is no room.
struct Reserve(Option<std::fs::File>);

impl Reserve {
    fn new() -> Self {
        Self(if cfg!(unix) { std::fs::File::open("/dev/null").ok() } else { None })
    }

    async fn shed(&mut self, listener: &mut dyn Listener) {
        if self.0.take().is_some() {
            // What waits is here at once.
            let accepted = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
            drop(accepted);
        }
        *self = Self::new();
    }
}

const ONE_AT_A_TIME: &str = "a session of this key is connected already; the server takes one at a time";

impl ServerCore {
    /// A client has confirmed its session: what becomes of others of its key is up to
    /// [`Config::duplicate_sessions`](crate::Config::duplicate_sessions).
    pub(super) fn settle_duplicates(&self, session: &Arc<SessionCore>) {
        let (policy, Some(key)) = (self.config.duplicate_sessions, session.peer().fingerprint()) else {
            return;
        };
        if policy == DuplicateSessions::Allow {
            return;
        }
        // One at a time, lest two newcomers end each other.
        let _one_at_a_time = self.settling.lock();
        let goodbye =
            |session: &SessionCore, why: &str| session.say_goodbye(close_code::DISCONNECTED, why.to_owned());
        for other in self.sessions_of(key) {
            if session.is_closing() {
                return;
            }
            if Arc::ptr_eq(&other, session) || other.is_closing() || !other.is_greeted() {
                continue;
            }
            if policy == DuplicateSessions::Refuse && other.state() == SessionState::Connected {
                goodbye(session, ONE_AT_A_TIME);
            } else {
                goodbye(&other, "another session of the same key has taken its place");
            }
        }
    }
}

async fn admit(core: &Arc<ServerCore>, link: Box<dyn Link>, mut half_open: HalfOpen) {
    let at_gate = half_open.at_gate();
    // Whichever way this ends, the link is dropped first and its place is free then.
    let admitted = tokio::select! {
        biased;
        // Counted and written down by whoever drew the lot.
        () = half_open.sent_away() => return,
        admitted = shake_hands(core, link, &at_gate) => admitted,
    };
    let Some(Admitted { mut link, resumed, why }) = admitted else { return };
    link.keep(Box::new(half_open.let_in()));
    audit::let_in(link.peer(), resumed, &why);
    if resumed {
        relink(core, link);
    } else {
        start(core, link);
    }
}

/// A connection whose handshake is done and confirmed.
struct Admitted {
    link: NewLink,
    /// Its session goes on from an earlier one.
    resumed: bool,
    /// What let it in.
    why: String,
}

/// Brings a connection through its handshake. Says whether its session goes on from an earlier one.
async fn shake_hands(core: &Arc<ServerCore>, link: Box<dyn Link>, places: &AtGate) -> Option<Admitted> {
    let address = link.peer_address();
    let mut server = ServerHandshake::new(&core.settings);
    let mut has_access_secret = false;
    let mut why = String::new();
    let judge = |hello: &PeerHello| {
        has_access_secret = hello.has_secret;
        judge(core, hello, &address, &mut why)
    };
    let timeout = core.config.limits.handshake_timeout;
    let begun = Instant::now();
    let joined = handshake::run(&mut server, link, timeout, places, judge).await;
    let outcome = match &joined {
        Ok(joined) if joined.established.accepted.resumed => "resumed",
        Ok(_) => "accepted",
        Err(HandshakeFailure::Refused(_)) => "refused",
        Err(HandshakeFailure::Protocol(_) | HandshakeFailure::AtOurKey) => "turned_away",
        Err(_) => "not_finished",
    };
    core.count_handshake(outcome);
    let joined = match joined {
        Ok(joined) => joined,
        // Why has been written down.
        Err(HandshakeFailure::Refused(_)) => return None,
        // Toward the stranger all of these are silence; the audit tells them apart.
        Err(failure) => {
            audit::turned_away(&address, &failure);
            return None;
        }
    };
    let resumed = joined.established.accepted.resumed;
    let mut link = new_link(joined, address);
    link.has_access_secret = has_access_secret;
    if resumed {
        let left = timeout.saturating_sub(begun.elapsed());
        if let Err(why) = confirm(core, &mut link, left).await {
            tracing::info!(peer = %link.peer(), %why, "resume not finished");
            return None;
        }
    }
    Some(Admitted { link, resumed, why })
}

/// What a client is told; `why` is what let it in.
fn judge(core: &Arc<ServerCore>, hello: &PeerHello, address: &str, why: &mut String) -> Verdict {
    // It has proven its key, so it is told which limit it is (`PORT-6`).
    let refuse = |code, reason: String| {
        audit::refused(hello.fingerprint, address, &reason);
        Verdict::Refuse(code, reason)
    };
    let subject = PolicyPeer::new(hello.fingerprint, hello.has_secret);
    let request = if hello.hello.resume.is_some() { PolicyRequest::Resume } else { PolicyRequest::Connect };
    // First of all, whatever else would be said (`POL-10`); and who was put out stays out (`POL-13`).
    match core.may_come(&subject, &request) {
        Decision::Allow { why: allowed, .. } => *why = allowed,
        Decision::Deny { why } => {
            audit::refused(hello.fingerprint, address, &why);
            return Verdict::Refuse(RefusalCode::Denied, DENIED.to_owned());
        }
    }
    if core.is_closing() {
        return refuse(RefusalCode::ShuttingDown, "the server is shutting down".to_owned());
    }
    let accepted = |session_id, epoch| Accepted {
        session_id,
        incarnation: core.incarnation,
        epoch,
        aead: Aead::choose(hello.hello.aes_hardware, system::has_aes_hardware()),
        resumed: false,
        message_bytes_max: core.message_limits().bytes_max as u64,
        channels_max: u32::try_from(core.config.limits.channels_max).unwrap_or(u32::MAX),
        agent: AGENT.to_owned(),
    };
    let limits = &core.config.limits;
    let sessions_max = limits.effective_sessions_max();
    let full = || {
        let limit = if sessions_max < limits.sessions_max { "connections_max" } else { "sessions_max" };
        let reason =
            format!("the server has its {sessions_max} sessions (Limits::{limit} there); try again later");
        refuse(RefusalCode::TooManySessions, reason)
    };
    if let Some(resume) = &hello.hello.resume {
        return match core.judge_resume(hello, resume.session_id) {
            Ok(_) if !core.may_come_back(resume.session_id, sessions_max) => full(),
            Ok((epoch, proof)) => Verdict::Accept(accepted(resume.session_id, epoch), Some(proof)),
            Err(NotResumable { code, told, why }) => {
                audit::refused(hello.fingerprint, address, &why);
                Verdict::Refuse(code, told)
            }
        };
    }
    if !core.has_room(sessions_max) {
        return full();
    }
    if core.is_crowded_by(hello.fingerprint) {
        return refuse(
            RefusalCode::TooManySessions,
            "too many sessions of this key are on their way in (Limits::suspended_per_identity_max there); try again later".to_owned(),
        );
    }
    if core.config.duplicate_sessions == DuplicateSessions::Refuse
        && core
            .sessions_of(hello.fingerprint)
            .iter()
            .any(|session| session.state() == SessionState::Connected)
    {
        return refuse(RefusalCode::AlreadyConnected, ONE_AT_A_TIME.to_owned());
    }
    Verdict::Accept(accepted(SessionId(system::random()), Epoch(0)), None)
}

fn new_link(joined: Joined, address: String) -> NewLink {
    let Joined { established, link, early } = joined;
    let peer_bytes_max = established.hello.message_bytes_max;
    NewLink::new(established, link, &early, address, peer_bytes_max)
}

fn start(core: &Arc<ServerCore>, link: NewLink) {
    let session_id = link.session_id();
    link.log("client connected");
    let upper: Arc<dyn Upper> = core.clone();
    let limits = core.config.session_limits();
    let account = core.accounts.open(link.peer().fingerprint());
    let (session, driver) = SessionCore::new(Side::Server, limits, link, account, upper, None);
    // The server itself holds the session open.
    session.add_handle();
    core.note_arriving(&session);
    core.sessions.lock().insert(session_id, Arc::clone(&session));
    let span = tracing::info_span!("session", peer = %session.peer(), session = %session_id);
    tokio::spawn(driver.run().instrument(session.set_span(span)));
    if core.is_closing() {
        // The server was dropped while this handshake came to its end, and has told its sessions already.
        session.say_goodbye(close_code::SHUTDOWN, "the server has stopped".to_owned());
    }
}

/// The client has proven the session's secret. Once it confirms the link too, that takes the place of the last (`SESS-16`);
/// until then the session stays as it is.
async fn confirm(core: &Arc<ServerCore>, link: &mut NewLink, timeout: Duration) -> Result<(), String> {
    let session = core.session_of(link)?;
    let epoch = link.epoch();
    let noted = session.with_server_links(|links| links.established(epoch, link.secret()));
    noted.transpose().map_err(|error| error.to_string())?;
    let confirmed = tokio::time::timeout(timeout, link.await_confirm());
    confirmed.await.map_err(|_| "the client did not confirm in time")??;
    let committed = session.with_server_links(|links| links.commit(epoch));
    committed.transpose().map_err(|error| error.to_string())?;
    link.log("client confirmed another connection");
    Ok(())
}

fn relink(core: &Arc<ServerCore>, link: NewLink) {
    // One that has ended meanwhile has no use for it.
    if let Ok(session) = core.session_of(&link) {
        session.relink(link);
    }
}

impl ServerCore {
    fn session_of(&self, link: &NewLink) -> Result<Arc<SessionCore>, String> {
        self.sessions
            .lock()
            .get(&link.session_id())
            .cloned()
            .ok_or_else(|| "the session has ended".to_owned())
    }
}

impl Server {
    pub(super) async fn stop_accepting(&self) {
        self.core.closing.send_replace(true);
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting {
            // It ends when it sees `closing`; its listener, and with it the port, is gone then.
            _ = accepting.await;
        }
    }
}
