//! Taking connections: handshakes side by side, bounded in number and time.

use std::sync::Arc;
use std::time::Duration;

use netchan_proto::crypto::{Accepted, Aead, PeerHello, RefusalCode, ServerHandshake};
use netchan_proto::id::{Epoch, SessionId, Side};
use netchan_proto::session::close_code;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::ServerCore;
use crate::config::DuplicateSessions;
use crate::handshake::{self, AGENT, HandshakeFailure, Joined, Verdict};
use crate::session::{NewLink, SessionCore, SessionState, Upper};
use crate::transport::{Link, Listener};

/// After an accept that failed, as for want of file descriptors: time for some to come free.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Accepts until the server closes. Dropping the listener frees its port.
pub(super) async fn run(core: Arc<ServerCore>, mut listener: Box<dyn Listener>) {
    let mut closing = core.closing.subscribe();
    let places = Arc::new(Semaphore::new(core.config.handshakes_max.max(1)));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            Some(_) = handshakes.join_next() => continue,
            accepted = async {
                // A place first: while all are taken, connections wait in the kernel's queue.
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        match accepted {
            (Ok(link), Ok(place)) => {
                let core = Arc::clone(&core);
                handshakes.spawn(async move {
                    admit(&core, link).await;
                    drop(place);
                });
            }
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept; trying again");
                tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
            }
            (Ok(_), Err(_)) => break,
        }
    }
    handshakes.shutdown().await;
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

async fn admit(core: &Arc<ServerCore>, link: Box<dyn Link>) {
    let address = link.peer_address();
    let mut server = ServerHandshake::new(&core.settings);
    let judge = |hello: &PeerHello| judge(core, hello);
    let timeout = core.config.handshake_timeout;
    let begun = Instant::now();
    match handshake::run(&mut server, link, timeout, judge).await {
        Ok(joined) if joined.established.accepted.resumed => {
            core.count_handshake("resumed");
            let left = timeout.saturating_sub(begun.elapsed());
            if let Err(why) = resume(core, joined, address.clone(), left).await {
                tracing::info!(%address, %why, "resume not finished");
            }
        }
        Ok(joined) => {
            core.count_handshake("accepted");
            start(core, joined, address);
        }
        // Toward the stranger all of these are silence; the audit tells them apart.
        Err(HandshakeFailure::Protocol(error)) => {
            core.count_handshake("turned_away");
            tracing::info!(%address, %error, "turned away");
        }
        Err(error @ HandshakeFailure::Refused(_)) => {
            core.count_handshake("refused");
            tracing::info!(%address, %error, "refused");
        }
        Err(error) => {
            core.count_handshake("not_finished");
            tracing::info!(%address, %error, "handshake not finished");
        }
    }
}

fn judge(core: &Arc<ServerCore>, hello: &PeerHello) -> Verdict {
    if core.is_closing() {
        return Verdict::Refuse(RefusalCode::ShuttingDown, "the server is shutting down".to_owned());
    }
    let accepted = |session_id, epoch| Accepted {
        session_id,
        incarnation: core.incarnation,
        epoch,
        aead: Aead::choose(hello.hello.aes_hardware, handshake::has_aes_hardware()),
        resumed: false,
        message_bytes_max: core.message_bytes_max() as u64,
        channels_max: u32::try_from(core.config.channels_max).unwrap_or(u32::MAX),
        agent: AGENT.to_owned(),
    };
    if let Some(resume) = &hello.hello.resume {
        return match core.judge_resume(hello, resume.session_id) {
            Ok((epoch, proof)) => Verdict::Accept(accepted(resume.session_id, epoch), Some(proof)),
            Err((code, reason)) => Verdict::Refuse(code, reason),
        };
    }
    let sessions_max = core.config.sessions_max;
    if core.sessions.lock().len() >= sessions_max {
        return Verdict::Refuse(
            RefusalCode::TooManySessions,
            format!("the server has its {sessions_max} sessions"),
        );
    }
    if core.config.duplicate_sessions == DuplicateSessions::Refuse
        && core
            .sessions_of(hello.fingerprint)
            .iter()
            .any(|session| session.state() == SessionState::Connected)
    {
        return Verdict::Refuse(RefusalCode::AlreadyConnected, ONE_AT_A_TIME.to_owned());
    }
    Verdict::Accept(accepted(SessionId(handshake::random()), Epoch(0)), None)
}

fn new_link(joined: Joined, address: String) -> NewLink {
    let Joined { established, link, early } = joined;
    let peer_bytes_max = established.hello.message_bytes_max;
    NewLink::new(established, link, &early, address, peer_bytes_max)
}

fn start(core: &Arc<ServerCore>, joined: Joined, address: String) {
    let session_id = joined.established.accepted.session_id;
    let link = new_link(joined, address);
    link.log("client connected");
    let upper: Arc<dyn Upper> = core.clone();
    let limits = core.config.session_limits();
    let (session, driver) = SessionCore::new(Side::Server, limits, link, upper, None);
    // The server itself holds the session open.
    session.add_handle();
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
async fn resume(
    core: &Arc<ServerCore>,
    joined: Joined,
    address: String,
    timeout: Duration,
) -> Result<(), String> {
    let (session_id, epoch) = (joined.established.accepted.session_id, joined.established.accepted.epoch);
    let session = core.sessions.lock().get(&session_id).cloned().ok_or("the session has ended")?;
    let mut link = new_link(joined, address);
    let noted = session.with_server_links(|links| links.established(epoch, link.secret()));
    noted.transpose().map_err(|error| error.to_string())?;
    let confirmed = tokio::time::timeout(timeout, link.await_confirm());
    confirmed.await.map_err(|_| "the client did not confirm in time")??;
    let committed = session.with_server_links(|links| links.commit(epoch));
    committed.transpose().map_err(|error| error.to_string())?;
    link.log("client confirmed another connection");
    session.relink(link);
    Ok(())
}
