//! A server's view of a peer.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netchan_proto::crypto::Fingerprint;
use netchan_proto::id::SessionId;
use netchan_proto::session::close_code;

use crate::codec::Message;
use crate::error::{OpenError, SessionEnd};
use crate::opening;
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{ChannelInfo, CloseReport, SessionCore, SessionState, SessionStats};

/// A client that is here now: one session of one key.
#[derive(Clone)]
pub struct Client {
    core: Arc<SessionCore>,
}

impl Client {
    pub(super) fn new(core: Arc<SessionCore>) -> Self {
        Self { core }
    }

    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.core.peer()
    }

    /// Channels open with it.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.core.channel_count()
    }

    /// How its session is doing.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.core.state()
    }

    /// What its session has been through.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.core.stats()
    }

    /// The fingerprint of its key: who it is. Several sessions may have it at once.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.peer().fingerprint()
    }

    /// Its session, which tells it from others with the same key.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        self.peer().session_id()
    }

    /// Where it is, or was last.
    #[must_use]
    pub fn address(&self) -> String {
        self.peer().address().to_owned()
    }

    /// When its session was set up. Connections come and go within it.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.core.since()
    }

    /// How long it last took to answer; `None` before the first answer. Measured when a connection begins, and every
    /// [`Config::keepalive_idle`](crate::Config::keepalive_idle) that it is silent.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.core.stats().round_trip
    }

    /// The channels open with it, with what waits in each and how many more values may be sent.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.core.survey()
    }

    /// Whether it has a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state() == SessionState::Connected
    }

    /// Whether its session has ended: it does not come back, but for another one.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.core.end_reason().is_some()
    }

    /// Waits until its session has ended, and says why.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&self) -> SessionEnd {
        self.core.wait_ended().await;
        self.core.end_reason().cloned().unwrap_or(SessionEnd::ClosedHere)
    }

    /// Opens a channel toward this client, to send into it; the client meets it as an [`Offer`](crate::Offer).
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    pub async fn sender<T: Message>(&self, name: &str) -> Result<Sender<T>, OpenError> {
        self.sender_with(name, ChannelOptions::default()).await
    }

    /// As [`sender`](Self::sender), with options.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    ///
    /// # Cancel safety
    /// As [`sender`](Self::sender).
    pub async fn sender_with<T: Send + 'static>(
        &self,
        name: &str,
        options: ChannelOptions<T>,
    ) -> Result<Sender<T>, OpenError> {
        opening::sender(&self.core, name, options).await
    }

    /// Opens a channel toward this client, to receive from it; the client meets it as an [`Offer`](crate::Offer).
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    pub async fn receiver<T: Message>(&self, name: &str) -> Result<Receiver<T>, OpenError> {
        self.receiver_with(name, ChannelOptions::default()).await
    }

    /// As [`receiver`](Self::receiver), with options.
    ///
    /// # Errors
    /// As [`receiver`](Self::receiver).
    ///
    /// # Cancel safety
    /// As [`receiver`](Self::receiver).
    pub async fn receiver_with<T: Send + 'static>(
        &self,
        name: &str,
        options: ChannelOptions<T>,
    ) -> Result<Receiver<T>, OpenError> {
        opening::receiver(&self.core, name, options).await
    }

    /// Ends its session at once, and tells it why: it learns of [`SessionEnd::ClosedByPeer`](crate::SessionEnd) with this
    /// reason, and does not dial again by itself. What it held goes to others; values on their way to it are lost to it.
    /// [`close`](Self::close) drains first.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the session ends all the same.
    pub async fn disconnect(&self, reason: impl Into<String>) {
        self.core.say_goodbye(close_code::DISCONNECTED, reason.into());
        self.core.wait_ended().await;
    }

    /// Closes every channel with this client, waits until what was sent has reached it, at most until the deadline, and
    /// ends its session.
    ///
    /// # Cancel safety
    /// Dropped before it completes, closing goes on in the background.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        self.core.close(deadline).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer()).finish_non_exhaustive()
    }
}
