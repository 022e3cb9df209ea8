//! A server's view of a peer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Message;
use crate::error::OpenError;
use crate::opening;
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{CloseReport, SessionCore, SessionState, SessionStats};

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

    /// Whether its session has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.core.end_reason().is_none()
    }

    /// Opens a channel toward this client, to send into it; the client meets it as an [`Offer`](crate::Offer).
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    pub async fn sender<T: Message>(&self, name: &str) -> Result<Sender<T>, OpenError> {
        opening::sender(&self.core, name, ChannelOptions::default()).await
    }

    /// Opens a channel toward this client, to receive from it; the client meets it as an [`Offer`](crate::Offer).
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    pub async fn receiver<T: Message>(&self, name: &str) -> Result<Receiver<T>, OpenError> {
        opening::receiver(&self.core, name, ChannelOptions::default()).await
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
