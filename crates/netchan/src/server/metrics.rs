//! What a server tells the `metrics` facade: what happens, as it happens, and how much is where, every
//! [`Config::metrics_period`](crate::Config::metrics_period), which names them all. Nothing of it is on the way of a message, and
//! without a recorder it goes nowhere.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use metrics::{counter, gauge};

use super::{ServerCore, ServerStats};
use crate::hub::HostedInfo;
use crate::session::{SessionCore, SessionEvent, SessionState};

impl ServerCore {
    /// Which server it is, where one process has several.
    fn label(&self) -> String {
        self.addresses.first().map(ToString::to_string).unwrap_or_default()
    }

    /// What has been, and is, in these sessions; hosted channels not counted that are there now.
    pub(super) fn stats_of(&self, sessions: &[Arc<SessionCore>]) -> ServerStats {
        let mut stats = *self.past.lock();
        sessions.iter().for_each(|session| stats.add(session.stats()));
        stats.kept_bytes = self.accounts.kept();
        stats.over_limit = self.accounts.stopped();
        stats.suspended_given_up = self.suspended_given_up();
        stats.gates_forgotten = self.gate.lock().unwrap_or_else(PoisonError::into_inner).forgotten();
        stats
    }

    /// How a connection's handshake ended.
    pub(super) fn count_handshake(&self, outcome: &'static str) {
        counter!("netchan_handshakes_total", "server" => self.label(), "outcome" => outcome).increment(1);
    }

    /// Something happened to a session.
    pub(super) fn count_session(&self, event: &SessionEvent) {
        let event = match event {
            SessionEvent::Connected => "connected",
            SessionEvent::Suspended { .. } => "suspended",
            SessionEvent::Resumed => "resumed",
            SessionEvent::Gone(_) => "gone",
            SessionEvent::Reopened { .. } | SessionEvent::NotReopened { .. } | SessionEvent::Missed(_) => {
                return;
            }
        };
        counter!("netchan_session_events_total", "server" => self.label(), "event" => event).increment(1);
    }

    /// Nothing is in a channel any more.
    pub(super) fn forget_channel(&self, last: &HostedInfo) {
        let over = HostedInfo {
            name: last.name.clone(),
            values: last.values,
            lagged: last.lagged,
            redelivered: last.redelivered,
            dead: last.dead,
            ..HostedInfo::default()
        };
        tell_channel(&self.label(), &over);
    }
}

/// Tells how much is where, again and again while the server is there.
pub(super) async fn sample(core: Weak<ServerCore>, period: Duration) {
    let Some(mut closing) = core.upgrade().map(|core| core.closing.subscribe()) else { return };
    let mut closed = period.is_zero();
    while !closed {
        closed = tokio::time::timeout(period, closing.wait_for(|closing| *closing)).await.is_ok();
        let Some(core) = core.upgrade() else { return };
        tell(&core);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 values are enough")]
fn tell(core: &Arc<ServerCore>) {
    let server = core.label();
    let sessions = core.greeted();
    let suspended = sessions.iter().filter(|session| session.state() == SessionState::Suspended).count();
    gauge!("netchan_sessions", "server" => server.clone()).set(sessions.len() as f64);
    gauge!("netchan_sessions_suspended", "server" => server.clone()).set(suspended as f64);
    let stats = core.stats_of(&sessions);
    let count = |name: &'static str, value: u64| counter!(name, "server" => server.clone()).absolute(value);
    count("netchan_sessions_total", stats.sessions);
    count("netchan_resumes_total", stats.resumes);
    count("netchan_values_replayed_total", stats.values_replayed);
    count("netchan_bytes_in_total", stats.bytes_in);
    count("netchan_bytes_out_total", stats.bytes_out);
    count("netchan_sessions_given_up_total", stats.suspended_given_up);
    count("netchan_gates_forgotten_total", stats.gates_forgotten);
    count("netchan_over_limit_total", stats.over_limit);
    gauge!("netchan_kept_bytes", "server" => server.clone()).set(stats.kept_bytes as f64);
    let engines = core.hosted.lock().current();
    engines.iter().for_each(|engine| tell_channel(&server, &engine.survey()));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and 2^53 values are enough")]
fn tell_channel(server: &str, hosted: &HostedInfo) {
    let labels = || [("server", server.to_owned()), ("channel", hosted.name.clone())];
    let tell = |name: &'static str, value: u64| gauge!(name, &labels()).set(value as f64);
    tell("netchan_channel_depth", hosted.depth);
    tell("netchan_channel_in_flight", hosted.in_flight);
    tell("netchan_channel_unacked", hosted.unacked);
    tell("netchan_channel_credit", hosted.credit);
    tell("netchan_channel_receivers", hosted.receivers);
    tell("netchan_channel_senders_waiting", hosted.senders_waiting);
    tell("netchan_channel_bytes", hosted.bytes);
    let count = |name: &'static str, value: u64| counter!(name, &labels()).absolute(value);
    count("netchan_channel_values_total", hosted.values);
    count("netchan_channel_redelivered_total", hosted.redelivered);
    count("netchan_channel_dead_total", hosted.dead);
    count("netchan_channel_lagged_total", hosted.lagged);
}
