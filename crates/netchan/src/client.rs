//! `dial`, and the session it returns.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::wire::{Announce, Open};
use parking_lot::Mutex;
use tracing::Instrument;

use crate::codec::Message;
use crate::config::Config;
use crate::delivery::{self, Deliveries};
use crate::dialer::{DialError, Dialer, IntoTicket};
use crate::error::{OpenError, SessionEnd, SessionLost};
use crate::offer::{NextOffer, Offer, OfferQueue};
use crate::opening;
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{
    CloseReport, Events, NewLink, Relink, SessionCore, SessionEvent, SessionState, SessionStats, Upper,
};
use crate::ticket::TicketError;
use crate::wait::Ticket as Place;

/// Dials the server that a ticket names, trying its addresses in turn. The connection is encrypted and both ends have
/// proven their keys when this returns.
///
/// # Errors
/// [`DialError`], which says what to try.
///
/// # Cancel safety
/// Dropped before it completes, the attempt is given up.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let server = netchan::listen_and_serve("memory://dial-example", Default::default()).await?;
/// let greetings = server.sender::<String>("greetings", 8)?;
/// greetings.send("hello".to_owned()).await?;
///
/// let session = netchan::dial(server.ticket(), Default::default()).await?;
/// let greetings = session.receiver::<String>("greetings").await?;
/// assert_eq!(greetings.recv().await?.as_deref(), Some("hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn dial(ticket: impl IntoTicket, config: Config) -> Result<Session, DialError> {
    let dialer = Dialer::new(&ticket.into_ticket()?, config);
    let link = dialer.connect(None).await?;
    Ok(begin(dialer, link))
}

/// A session on its first link, with the server that `dialer` reaches again when that is lost.
pub(crate) fn begin(dialer: Dialer, link: NewLink) -> Session {
    let limits = dialer.limits();
    let upper = Arc::new(ClientUpper::default());
    let above: Arc<dyn Upper> = upper.clone();
    let dialer = Arc::new(dialer);
    let relink: Arc<dyn Relink> = dialer.clone();
    let account = dialer.account();
    let (core, driver) = SessionCore::new(Side::Client, limits, link, account, above, Some(relink));
    core.add_handle();
    let session = core.peer().session_id().map(tracing::field::display);
    let span = tracing::info_span!("session", peer = %core.peer(), session);
    tokio::spawn(driver.run().instrument(core.set_span(span)));
    Session { core, upper, dialer, polling: Mutex::new(None) }
}

#[derive(Default)]
struct ClientUpper {
    offers: OfferQueue,
}

impl Upper for ClientUpper {
    fn tell(&self, _: &Arc<SessionCore>, _: &SessionEvent, change: &mut dyn FnMut()) {
        change();
    }

    fn confirmed(&self, _: &Arc<SessionCore>) {}

    fn incoming(&self, core: &Arc<SessionCore>, open: Open) {
        self.offers.push(Offer::opened(core, open));
    }

    fn announced(&self, core: &Arc<SessionCore>, announce: Announce) {
        self.offers.remove_hosted(&announce.name);
        if announce.hosted {
            self.offers.push(Offer::hosted(core, announce));
        }
    }

    fn expired(&self, core: &Arc<SessionCore>, id: ChannelId) {
        drop(self.offers.take_opened_on(core, id));
    }

    fn suspended(&self, _: &Arc<SessionCore>, _: &str) -> Result<(), SessionEnd> {
        Ok(())
    }

    fn resumed(&self, _: &Arc<SessionCore>) {}

    fn lost(&self, _: &Arc<SessionCore>, _: &SessionEnd) {
        // What was offered in the old session is offered anew, or not at all.
        self.offers.clear();
    }

    fn forgotten(&self, _: &Arc<SessionCore>) {}

    fn ended(&self, _: &Arc<SessionCore>, end: &SessionEnd) {
        self.offers.end(end.clone());
    }
}

/// A session with a server: channels are opened on it, and arrive on it.
///
/// `Session` is itself a channel of channels: [`recv`](Self::recv), and the `Stream`, yield what the server hosts for this
/// client and what it opens toward it.
///
/// It outlives its connections: when one is lost, another is set up in the background, and every channel goes on where it was
/// ([`state`](Self::state), [`events`](Self::events)). Sends wait meanwhile, up to the channel's credit.
///
/// When the `Session` and every handle opened on it are dropped, what was sent still goes out, and then the session ends;
/// [`close`](Self::close) does the same, waits for it, and reports what did not arrive.
pub struct Session {
    core: Arc<SessionCore>,
    upper: Arc<ClientUpper>,
    dialer: Arc<Dialer>,
    polling: Mutex<Option<Place>>,
}

impl Session {
    /// Opens a channel to send into: one that the server hosts, or that it accepts as an [`Offer`].
    ///
    /// # Errors
    /// [`OpenError`], which says what to try.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    pub async fn sender<T: Message>(&self, name: &str) -> Result<Sender<T>, OpenError> {
        opening::sender(&self.core, name, ChannelOptions::default()).await
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

    /// Opens a channel to receive from: one that the server hosts, or that it accepts as an [`Offer`].
    ///
    /// # Errors
    /// [`OpenError`], which says what to try.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    pub async fn receiver<T: Message>(&self, name: &str) -> Result<Receiver<T>, OpenError> {
        opening::receiver(&self.core, name, ChannelOptions::default()).await
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

    /// Opens a channel that the server hosts, to receive from it and acknowledge each value.
    ///
    /// When the session is lost, so is what was received and not acknowledged: others get it. With a
    /// [`LossPolicy`](crate::LossPolicy) other than `Fail`, the subscription itself goes on in the next session.
    ///
    /// # Errors
    /// [`OpenError`], which says what to try.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is given up.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let server = netchan::listen_and_serve("memory://deliveries", Default::default()).await?;
    /// let (tasks, results) = (server.sender::<u32>("tasks", 8)?, server.receiver::<u32>("results", 8)?);
    /// tasks.send(20).await?;
    ///
    /// let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// let (tasks, done) = (session.deliveries::<u32>("tasks").await?, session.sender::<u32>("results").await?);
    /// let task = tasks.recv().await?.expect("a task");
    /// let result = *task + 1;
    /// task.ack_with(&done, result).await?; // if this process dies before, another gets the task
    /// assert_eq!(results.recv().await?, Some(21));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn deliveries<T: Message>(&self, name: &str) -> Result<Deliveries<T>, OpenError> {
        delivery::open(&self.core, name, ChannelOptions::default()).await
    }

    /// As [`deliveries`](Self::deliveries), with options.
    ///
    /// # Errors
    /// As [`deliveries`](Self::deliveries).
    ///
    /// # Cancel safety
    /// As [`deliveries`](Self::deliveries).
    pub async fn deliveries_with<T: Send + 'static>(
        &self,
        name: &str,
        options: ChannelOptions<T>,
    ) -> Result<Deliveries<T>, OpenError> {
        delivery::open(&self.core, name, options).await
    }

    /// Receives the next channel: first those that the server hosts for this client, then what it hosts, or opens toward
    /// this client, later. `None` once the session is closed.
    ///
    /// # Errors
    /// [`SessionLost`] when the session is over and was not closed in the ordinary way.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, no channel is lost.
    pub async fn recv(&self) -> Result<Option<Offer>, SessionLost> {
        NextOffer { queue: &self.upper.offers, ticket: None }.await
    }

    /// Closes every channel of the session, waits until what was sent has reached the server, at most until the deadline,
    /// and ends the session.
    ///
    /// # Errors
    /// [`SessionLost`] when the session was lost before, so that what was in flight is in doubt;
    /// [`Sender::take_unsettled`] has the values.
    ///
    /// # Cancel safety
    /// Dropped before it completes, closing goes on in the background.
    pub async fn close(&self, deadline: Duration) -> Result<CloseReport, SessionLost> {
        let report = self.core.close(deadline).await;
        match self.core.end_reason() {
            Some(end) if !end.is_plain() && !report.is_complete() => Err(SessionLost(end.clone())),
            _ => Ok(report),
        }
    }

    /// Waits until the session has ended, and says why.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&self) -> SessionEnd {
        self.core.wait_ended().await;
        self.core.end_reason().cloned().unwrap_or(SessionEnd::ClosedHere)
    }

    /// How the session is doing. A lost connection suspends it, and nothing else: it goes on over the next.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.core.state()
    }

    /// What happens to the session from here on, starting with how it is doing now.
    ///
    /// When the server was started anew, its sessions are lost: [`SessionEvent::Gone`] says so, and
    /// [`SessionEvent::Connected`] that this `Session` goes on as a new one with the same server. Each channel then does
    /// what its [`LossPolicy`](crate::LossPolicy) says.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let server = netchan::listen_and_serve("memory://events-example", Default::default()).await?;
    /// let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// let mut events = session.events();
    /// assert_eq!(events.recv().await, Some(netchan::SessionEvent::Connected));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> Events<SessionEvent> {
        self.core.events()
    }

    /// Waits until the session has a connection.
    ///
    /// # Errors
    /// [`SessionLost`] when the session is over.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_connected(&self) -> Result<(), SessionLost> {
        self.core.wait_connected().await
    }

    /// What the session has been through.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        self.core.stats()
    }

    /// Dials with another ticket of the same server whenever this session needs a connection from here on: one with the access
    /// secret that takes the place of the one it was dialed with. The connection that is there stays.
    ///
    /// # Errors
    /// [`TicketError`] when the text is not a ticket, or it is another server's; the old one stays in use.
    pub fn use_ticket(&self, ticket: impl IntoTicket) -> Result<(), TicketError> {
        self.dialer.use_ticket(&ticket.into_ticket()?)
    }

    /// Who the server is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.core.peer()
    }

    /// The key exchange of the session.
    #[must_use]
    pub fn key_exchange(&self) -> &'static str {
        self.core.key_exchange()
    }

    /// The cipher that seals its records.
    #[must_use]
    pub fn cipher(&self) -> &'static str {
        self.core.cipher()
    }
}

impl Stream for Session {
    type Item = Result<Offer, SessionLost>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.upper.offers.poll(cx, &mut self.polling.lock()).map(Result::transpose)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.upper.offers.leave(&mut self.polling.lock());
        self.core.drop_handle();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer()).finish_non_exhaustive()
    }
}
