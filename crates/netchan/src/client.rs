//! `dial`, and the session it returns.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use netchan_proto::crypto::{ClientHandshake, ClientSettings, HandshakeError, Hello};
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::wire::{Announce, Open};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::address::Address;
use crate::codec::Message;
use crate::config::Config;
use crate::error::{DialError, OpenError, SessionEnd, SessionLost};
use crate::handshake::{self, AGENT, HandshakeFailure, Joined, Verdict};
use crate::identity::Identity;
use crate::offer::{NextOffer, Offer, OfferQueue};
use crate::opening;
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{CloseReport, SessionCore, Upper};
use crate::ticket::{Ticket, TicketError};
use crate::wait::Ticket as Place;

/// What can be dialed: a [`Ticket`], or its text.
pub trait IntoTicket {
    /// The ticket.
    ///
    /// # Errors
    /// [`TicketError`] when the text is not one.
    fn into_ticket(self) -> Result<Ticket, TicketError>;
}

impl IntoTicket for Ticket {
    fn into_ticket(self) -> Result<Ticket, TicketError> {
        Ok(self)
    }
}

impl IntoTicket for &Ticket {
    fn into_ticket(self) -> Result<Ticket, TicketError> {
        Ok(self.clone())
    }
}

impl IntoTicket for &str {
    fn into_ticket(self) -> Result<Ticket, TicketError> {
        self.trim().parse()
    }
}

impl IntoTicket for String {
    fn into_ticket(self) -> Result<Ticket, TicketError> {
        self.as_str().into_ticket()
    }
}

impl IntoTicket for &String {
    fn into_ticket(self) -> Result<Ticket, TicketError> {
        self.as_str().into_ticket()
    }
}

/// What a timeout counts as that is meant to be none.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

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
    let ticket = ticket.into_ticket()?;
    let identity = config.identity.clone().unwrap_or_else(Identity::generate);
    let mut attempts = Vec::new();
    let mut answered = None;
    for address in ticket.addresses() {
        let deadline = Instant::now() + config.handshake_timeout.min(TIMEOUT_MAX);
        let late = |_| {
            let why = format!("no connection within {:?}", config.handshake_timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        };
        let connecting = config.transports.connect(address);
        let link = match tokio::time::timeout_at(deadline, connecting).await.unwrap_or_else(late) {
            Ok(link) => link,
            Err(error) => {
                attempts.push((address.clone(), error));
                continue;
            }
        };
        match join(link, address, &ticket, &identity, &config, deadline).await {
            Ok(session) => return Ok(session),
            Err(error @ DialError::Refused { .. }) => return Err(error),
            // Another address of the ticket may lead to the right server.
            Err(error) => _ = answered.get_or_insert(error),
        }
    }
    Err(answered.unwrap_or(DialError::Unreachable { attempts }))
}

async fn join(
    link: Box<dyn crate::transport::Link>,
    address: &Address,
    ticket: &Ticket,
    identity: &Identity,
    config: &Config,
    deadline: Instant,
) -> Result<Session, DialError> {
    let limits = config.session_limits();
    let hello = Hello {
        version: netchan_proto::crypto::hello::VERSION,
        agent: AGENT.to_owned(),
        aes_hardware: handshake::has_aes_hardware(),
        message_bytes_max: limits.message_bytes_max as u64,
        resume: None,
    };
    let settings = ClientSettings {
        key: identity.key().clone(),
        server_pin: ticket.server_pin(),
        secret: ticket.access_secret().cloned(),
        hello,
        resume: None,
    };
    let failed = |failure| match failure {
        HandshakeFailure::Timeout(_) => {
            DialError::Timeout { address: address.clone(), deadline: config.handshake_timeout }
        }
        failure => explain(address, failure),
    };
    let mut client = ClientHandshake::new(settings, handshake::unix_seconds(), handshake::random())
        .map_err(|error| failed(error.into()))?;
    let peer_address = link.peer_address();
    let nobody = |_: &_| Verdict::Refuse(netchan_proto::crypto::RefusalCode::Denied, String::new());
    let Joined { established, link, early } =
        handshake::run(&mut client, link, deadline.saturating_duration_since(Instant::now()), nobody)
            .await
            .map_err(failed)?;
    let peer = Peer::new(established.peer, established.accepted.session_id, peer_address);
    let upper = Arc::new(ClientUpper::default());
    let above: Arc<dyn Upper> = upper.clone();
    let (core, driver) = SessionCore::new(Side::Client, peer, limits, established, link, &early, above);
    core.add_handle();
    tokio::spawn(driver.run());
    Ok(Session { core, upper, polling: Mutex::new(None) })
}

fn explain(address: &Address, failure: HandshakeFailure) -> DialError {
    let address = address.clone();
    match failure {
        HandshakeFailure::Protocol(HandshakeError::NoAnswer) => DialError::ClosedWithoutAnswering { address },
        HandshakeFailure::Protocol(HandshakeError::Refused { code, reason }) => {
            DialError::Refused { address, code, reason }
        }
        HandshakeFailure::Protocol(error) => DialError::Handshake { address, error },
        // A server that closes on a stranger with unread bytes makes the kernel say "reset".
        HandshakeFailure::Link(error)
            if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
        {
            DialError::ClosedWithoutAnswering { address }
        }
        HandshakeFailure::Link(error) => DialError::Link { address, error },
        HandshakeFailure::Timeout(deadline) => DialError::Timeout { address, deadline },
        HandshakeFailure::Refused(reason) => {
            DialError::Refused { address, code: netchan_proto::crypto::RefusalCode::Denied, reason }
        }
    }
}

#[derive(Default)]
struct ClientUpper {
    offers: OfferQueue,
}

impl Upper for ClientUpper {
    fn confirmed(&self, _: &Arc<SessionCore>) {}

    fn incoming(&self, core: &Arc<SessionCore>, open: Open) {
        self.offers.push(Offer::opened(core, open));
    }

    fn announced(&self, core: &Arc<SessionCore>, announce: Announce) {
        let same = |offer: &Offer| offer.is_hosted_as(&announce.name);
        self.offers.remove(same);
        if announce.hosted {
            self.offers.push(Offer::hosted(core, announce));
        }
    }

    fn expired(&self, core: &Arc<SessionCore>, id: ChannelId) {
        self.offers.remove(|offer| offer.is_opened_as(core, id));
    }

    fn ended(&self, _: &Arc<SessionCore>, end: &SessionEnd) {
        self.offers.end(end.clone());
    }
}

/// A session with a server: channels are opened on it, and arrive on it.
///
/// `Session` is itself a channel of channels: [`recv`](Self::recv), and the `Stream`, yield what the server hosts for this
/// client and what it opens toward it.
///
/// When the `Session` and every handle opened on it are dropped, what was sent still goes out, and then the session ends;
/// [`close`](Self::close) does the same, waits for it, and reports what did not arrive.
pub struct Session {
    core: Arc<SessionCore>,
    upper: Arc<ClientUpper>,
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

    /// Receives the next channel: first those that the server hosts for this client, then what it hosts, or opens toward
    /// this client, later. `None` once the session is closed.
    ///
    /// # Errors
    /// [`SessionLost`] when the connection broke.
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
    /// [`SessionLost`] when the connection broke before, so that what was in flight is in doubt;
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

    /// Who the server is.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.core.peer
    }

    /// The key exchange of the session.
    #[must_use]
    pub fn key_exchange(&self) -> &'static str {
        self.core.key_exchange
    }

    /// The cipher that seals its records.
    #[must_use]
    pub fn cipher(&self) -> &'static str {
        self.core.cipher
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
        f.debug_struct("Session").field("peer", self.peer()).finish_non_exhaustive()
    }
}
