//! What a server writes down of who came and what they were let do: events of `tracing` under the target `netchan::audit`.
//!
//! Clients are told little on purpose; here each decision stands with its reason, under the fingerprint of the client's key.
//! What strangers can cause without end is sampled.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Instant;

use netchan_proto::crypto::{Fingerprint, GateReject, HandshakeError};
use parking_lot::Mutex;

use crate::handshake::HandshakeFailure;
use crate::peer::Peer;
use crate::policy::Action;
use crate::rate::TokenBucket;

/// Strangers written down in a second; of the others it is said how many there were.
const STRANGERS_PER_SECOND: u32 = 100;

macro_rules! audit {
    ($($event:tt)*) => {
        tracing::info!(target: "netchan::audit", $($event)*)
    };
}

/// The same of what clients do that are let in, by kind.
const CLIENTS_PER_SECOND: u32 = 1_000;

/// Lets so many through in a second, and counts the others.
struct Sampler {
    per_second: u32,
    state: Mutex<Option<Sampled>>,
}

struct Sampled {
    started: Instant,
    bucket: TokenBucket,
    left_out: u64,
}

static STRANGERS: Sampler = Sampler::new(STRANGERS_PER_SECOND);
static REFUSED: Sampler = Sampler::new(CLIENTS_PER_SECOND);
static OPENED: Sampler = Sampler::new(CLIENTS_PER_SECOND);
static DENIED: Sampler = Sampler::new(CLIENTS_PER_SECOND);

impl Sampler {
    const fn new(per_second: u32) -> Self {
        Self { per_second, state: Mutex::new(None) }
    }

    /// How many were left out since the last that was written down; `None` if this one is left out too.
    fn sample(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let state = state.get_or_insert_with(|| Sampled {
            started: Instant::now(),
            bucket: TokenBucket::new(self.per_second, self.per_second),
            left_out: 0,
        });
        if state.bucket.take(state.started.elapsed()).is_err() {
            state.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut state.left_out))
    }
}

/// A connection that came to nothing, and the client was told nothing.
pub(super) fn turned_away(address: &str, failure: &HandshakeFailure) {
    if let Some(left_out) = STRANGERS.sample() {
        let reason = explain(failure);
        audit!(event = "turned away", address, %reason, left_out);
    }
}

/// A connection was dropped by lot, for want of room.
pub(super) fn crowded_out(source: Option<IpAddr>) {
    if let Some(left_out) = STRANGERS.sample() {
        let source = source.map(tracing::field::display);
        audit!(
            event = "crowded out",
            source,
            reason = "too many half-open connections (Limits::half_open_max, half_open_per_address_max, connections_max)",
            left_out
        );
    }
}

/// A client was let in, for a new session or to go on with one.
pub(super) fn let_in(peer: &Peer, resumed: bool, reason: &str) {
    let client = key(peer);
    let session = peer.session_id().map(tracing::field::display);
    audit!(event = "let in", client, address = peer.address(), session, resumed, reason);
}

/// A client that has proven its key was refused. `reason` is the whole truth; it was told less.
pub(super) fn refused(client: Fingerprint, address: &str, reason: &str) {
    if let Some(left_out) = REFUSED.sample() {
        audit!(event = "refused", %client, address, reason, left_out);
    }
}

/// A client opens a channel.
pub(super) fn opened(peer: &Peer, channel: &str, action: Action, reason: &str) {
    if let Some(left_out) = OPENED.sample() {
        audit!(event = "open allowed", client = key(peer), address = peer.address(), channel, %action, reason, left_out);
    }
}

/// A client may not open a channel.
pub(super) fn denied(peer: &Peer, channel: &str, action: Action, reason: &str) {
    if let Some(left_out) = DENIED.sample() {
        audit!(event = "open denied", client = key(peer), address = peer.address(), channel, %action, reason, left_out);
    }
}

/// A client opens more than a limit lets it.
pub(super) fn limited(peer: &Peer, channel: &str, limit: &str) {
    if let Some(left_out) = DENIED.sample() {
        audit!(
            event = "open refused",
            client = key(peer),
            address = peer.address(),
            channel,
            limit,
            left_out
        );
    }
}

/// A channel that was open is allowed no more.
pub(super) fn channel_revoked(peer: &Peer, channel: &str, action: Action, reason: &str) {
    audit!(event = "channel revoked", client = key(peer), address = peer.address(), channel, %action, reason);
}

/// A session is allowed no more.
pub(super) fn session_revoked(peer: &Peer, reason: &str) {
    audit!(event = "session revoked", client = key(peer), address = peer.address(), reason);
}

/// Another policy holds from here on.
pub(super) fn policy_replaced(from: &dyn Display) {
    audit!(event = "policy replaced", %from);
}

/// A new policy cannot be read; the old one holds.
pub(super) fn policy_kept(from: &dyn Display, reason: &dyn Display) {
    tracing::warn!(target: "netchan::audit", event = "policy kept", %from, %reason);
}

/// Other access secrets open the server from here on.
pub(super) fn access_changed(secrets: usize) {
    audit!(event = "access secrets replaced", secrets);
}

fn key(peer: &Peer) -> Option<tracing::field::DisplayValue<Fingerprint>> {
    peer.fingerprint().map(tracing::field::display)
}

/// What a client is not told, said so that whoever runs the server can help it.
fn explain(failure: &HandshakeFailure) -> String {
    match failure {
        HandshakeFailure::Protocol(HandshakeError::Gate(GateReject::BadTag)) => {
            "gate: no access secret of this server made it, nor its pin where pins are admitted: a stranger, a ticket that was \
             mistyped, rotated away or is another server's, or a client that knows the key alone (Config::admit_without_secret)"
                .to_owned()
        }
        HandshakeFailure::Protocol(HandshakeError::Gate(GateReject::Clock { skew_seconds })) => format!(
            "clock: the access secret is right, and the client's clock is {skew_seconds} s ahead of this one (behind, if negative); \
             set the clocks, or raise Limits::clock_window"
        ),
        HandshakeFailure::Protocol(HandshakeError::Gate(GateReject::Replay)) => {
            "replay: this very first flight came before: a recording, or a network that repeats".to_owned()
        }
        // A client that finds another key than its ticket pins leaves without a word, and says so to its own program.
        HandshakeFailure::AtOurKey => {
            "pin: the access secret is right, and the client left when it saw this server's key: its ticket pins another, or the \
             connection broke just then"
                .to_owned()
        }
        other => other.to_string(),
    }
}
