//! What a server tells the `metrics` facade: what happens, as it happens, and how much is where, every
//! [`Config::metrics_period`](crate::Config::metrics_period). Nothing of it is on the way of a message, and without a recorder it
//! goes nowhere.

use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{counter, gauge};

use super::ServerCore;
use crate::session::{SessionEvent, SessionState};

/// How a connection's handshake ended.
pub(super) fn handshake(outcome: &'static str) {
    counter!("netchan_handshakes_total", "outcome" => outcome).increment(1);
}

/// Something happened to a session.
pub(super) fn session(event: &SessionEvent) {
    let event = match event {
        SessionEvent::Connected => "connected",
        SessionEvent::Suspended { .. } => "suspended",
        SessionEvent::Resumed => "resumed",
        SessionEvent::Gone(_) => "gone",
        SessionEvent::Reopened { .. } | SessionEvent::NotReopened { .. } | SessionEvent::Missed(_) => return,
    };
    counter!("netchan_session_events_total", "event" => event).increment(1);
}

/// Tells how much is where, again and again while the server is there.
pub(super) async fn sample(core: Weak<ServerCore>, period: Duration) {
    let Some(mut closing) = core.upgrade().map(|core| core.closing.subscribe()) else { return };
    let mut closed = false;
    while !closed {
        closed = tokio::time::timeout(period, closing.wait_for(|closing| *closing)).await.is_ok();
        let Some(core) = core.upgrade() else { return };
        tell(&core);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 values are enough")]
fn tell(core: &Arc<ServerCore>) {
    let sessions = core.greeted();
    let suspended = sessions.iter().filter(|session| session.state() == SessionState::Suspended).count();
    gauge!("netchan_sessions").set(sessions.len() as f64);
    gauge!("netchan_sessions_suspended").set(suspended as f64);
    let mut stats = *core.past.lock();
    sessions.iter().for_each(|session| stats.add(session.stats()));
    counter!("netchan_sessions_total").absolute(stats.sessions);
    counter!("netchan_resumes_total").absolute(stats.resumes);
    counter!("netchan_values_replayed_total").absolute(stats.values_replayed);
    let engines: Vec<_> = core.hosted.lock().values().cloned().collect();
    for hosted in engines.iter().map(|engine| engine.survey()) {
        let tell =
            |name: &'static str, value: u64| gauge!(name, "channel" => hosted.name.clone()).set(value as f64);
        tell("netchan_channel_depth", hosted.depth);
        tell("netchan_channel_in_flight", hosted.in_flight);
        tell("netchan_channel_unacked", hosted.unacked);
        tell("netchan_channel_credit", hosted.credit);
        tell("netchan_channel_receivers", hosted.receivers);
        tell("netchan_channel_senders_waiting", hosted.senders_waiting);
        tell("netchan_channel_bytes", hosted.bytes);
        let count =
            |name: &'static str, value| counter!(name, "channel" => hosted.name.clone()).absolute(value);
        count("netchan_channel_redelivered_total", hosted.redelivered);
        count("netchan_channel_dead_total", hosted.dead);
    }
}
