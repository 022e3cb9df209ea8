//! Taking connections: handshakes side by side, bounded in number and time.

use std::sync::Arc;
use std::time::Duration;

use netchan_proto::crypto::{Accepted, Aead, PeerHello, RefusalCode, ServerHandshake};
use netchan_proto::id::{Epoch, SessionId, Side};
use netchan_proto::session::close_code;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ServerCore;
use crate::handshake::{self, AGENT, HandshakeFailure, Joined, Verdict};
use crate::peer::Peer;
use crate::session::{SessionCore, Upper};
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

async fn admit(core: &Arc<ServerCore>, link: Box<dyn Link>) {
    let address = link.peer_address();
    let mut server = ServerHandshake::new(&core.settings);
    let judge = |hello: &PeerHello| judge(core, hello);
    match handshake::run(&mut server, link, core.config.handshake_timeout, judge).await {
        Ok(joined) => start(core, joined, address),
        // Toward the stranger all of these are silence; the audit tells them apart.
        Err(HandshakeFailure::Protocol(error)) => tracing::info!(%address, %error, "turned away"),
        Err(error) => tracing::info!(%address, %error, "handshake not finished"),
    }
}

fn judge(core: &Arc<ServerCore>, hello: &PeerHello) -> Verdict {
    if core.is_closing() {
        return Verdict::Refuse(RefusalCode::ShuttingDown, "the server is shutting down".to_owned());
    }
    let sessions_max = core.config.sessions_max;
    if core.sessions.lock().len() >= sessions_max {
        return Verdict::Refuse(
            RefusalCode::TooManySessions,
            format!("the server has its {sessions_max} sessions"),
        );
    }
    if hello.hello.resume.is_some() {
        return Verdict::Refuse(RefusalCode::SessionUnknown, "the session is not known here".to_owned());
    }
    Verdict::Accept(Accepted {
        session_id: SessionId(handshake::random()),
        incarnation: core.incarnation,
        epoch: Epoch(0),
        aead: Aead::choose(hello.hello.aes_hardware, handshake::has_aes_hardware()),
        resumed: false,
        message_bytes_max: core.message_bytes_max() as u64,
        channels_max: u32::try_from(core.config.channels_max).unwrap_or(u32::MAX),
        agent: AGENT.to_owned(),
    })
}

fn start(core: &Arc<ServerCore>, joined: Joined, address: String) {
    let Joined { established, link, early } = joined;
    let session_id = established.accepted.session_id;
    let peer = Peer::new(established.peer, session_id, address);
    tracing::info!(%peer, key_exchange = established.key_exchange, cipher = established.cipher, "client connected");
    let upper: Arc<dyn Upper> = core.clone();
    let limits = core.config.session_limits();
    let (session, driver) = SessionCore::new(Side::Server, peer, limits, established, link, &early, upper);
    // The server itself holds the session open.
    session.add_handle();
    core.sessions.lock().insert(session_id, Arc::clone(&session));
    tokio::spawn(driver.run());
    if core.is_closing() {
        // The server was dropped while this handshake came to its end, and has told its sessions already.
        session.say_goodbye(close_code::SHUTDOWN, "the server has stopped".to_owned());
    }
}
