//! Reaching the server that a ticket names: for a new session, or to go on with one.

use std::io;
use std::time::Duration;

use netchan_proto::crypto::{
    ClientHandshake, ClientSettings, HandshakeError, Hello, RefusalCode, ResumeFrom,
};
use netchan_proto::session::close_code;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::address::Address;
use crate::config::{Config, SessionLimits};
use crate::error::{CloseReason, DialError, SessionEnd};
use crate::handshake::{self, AGENT, HandshakeFailure, Joined, Verdict};
use crate::identity::{Fingerprint, Identity};
use crate::session::{NewLink, NoLink, Relink};
use crate::ticket::{Ticket, TicketError};
use crate::transport::{BoxFuture, Link};

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

/// A ticket, and all that is needed to use it more than once.
pub(crate) struct Dialer {
    ticket: RwLock<Ticket>,
    identity: Identity,
    config: Config,
}

impl Dialer {
    pub(crate) fn new(ticket: Ticket, config: Config) -> Self {
        let identity = config.identity.clone().unwrap_or_else(Identity::generate);
        Self { ticket: RwLock::new(ticket), identity, config }
    }

    /// From the next attempt on.
    pub(crate) fn use_ticket(&self, ticket: Ticket) -> Result<(), TicketError> {
        let mut current = self.ticket.write();
        if ticket.server_pin() != current.server_pin() {
            return Err(TicketError::OtherServer);
        }
        *current = ticket;
        Ok(())
    }

    pub(crate) fn limits(&self) -> SessionLimits {
        self.config.session_limits()
    }

    /// Tries the ticket's addresses in turn.
    pub(crate) async fn connect(&self, resume: Option<ResumeFrom>) -> Result<NewLink, DialError> {
        let mut attempts = Vec::new();
        let mut answered = None;
        let ticket = self.ticket.read().clone();
        for address in ticket.addresses() {
            let deadline = Instant::now() + self.config.limits.handshake_timeout.min(TIMEOUT_MAX);
            let late = |_| {
                let why = format!("no connection within {:?}", self.config.limits.handshake_timeout);
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            };
            let connecting = self.config.transports.connect(address);
            let link = match tokio::time::timeout_at(deadline, connecting).await.unwrap_or_else(late) {
                Ok(link) => link,
                Err(error) => {
                    attempts.push((address.clone(), error));
                    continue;
                }
            };
            match self.join(link, &ticket, address, resume.clone(), deadline).await {
                Ok(link) => return Ok(link),
                Err(error @ DialError::Refused { .. }) => return Err(error),
                // Another address of the ticket may lead to the right server.
                Err(error) => _ = answered.get_or_insert(error),
            }
        }
        Err(answered.unwrap_or(DialError::Unreachable { attempts }))
    }

    async fn join(
        &self,
        link: Box<dyn Link>,
        ticket: &Ticket,
        address: &Address,
        resume: Option<ResumeFrom>,
        deadline: Instant,
    ) -> Result<NewLink, DialError> {
        let hello = Hello {
            version: netchan_proto::crypto::hello::VERSION,
            agent: AGENT.to_owned(),
            aes_hardware: handshake::has_aes_hardware(),
            message_bytes_max: self.limits().message_bytes_max as u64,
            resume: None,
        };
        let settings = ClientSettings {
            key: self.identity.key().clone(),
            server_pin: ticket.server_pin(),
            secret: ticket.access_secret().cloned(),
            hello,
            resume,
        };
        let failed = |failure| match failure {
            HandshakeFailure::Timeout(_) => DialError::Timeout {
                address: address.clone(),
                deadline: self.config.limits.handshake_timeout,
            },
            failure => explain(address, self.identity.fingerprint(), failure),
        };
        let mut client = ClientHandshake::new(settings, handshake::unix_seconds(), handshake::random())
            .map_err(|error| failed(error.into()))?;
        let peer_address = link.peer_address();
        let nobody = |_: &_| Verdict::Refuse(RefusalCode::Denied, String::new());
        let left = deadline.saturating_duration_since(Instant::now());
        let Joined { established, link, early } =
            handshake::run(&mut client, link, left, &Semaphore::const_new(0), nobody)
                .await
                .map_err(failed)?;
        let peer_bytes_max = established.accepted.message_bytes_max;
        Ok(NewLink::new(established, link, &early, peer_address, peer_bytes_max))
    }
}

impl Relink for Dialer {
    fn connect(&self, resume: Option<ResumeFrom>) -> BoxFuture<'_, Result<NewLink, NoLink>> {
        Box::pin(async move {
            let resumes = resume.is_some();
            self.connect(resume).await.map_err(|error| no_link(error, resumes))
        })
    }
}

/// What a failed attempt means for a session that wants another link.
fn no_link(error: DialError, resumes: bool) -> NoLink {
    let DialError::Refused { code, reason, .. } = error else { return NoLink::Later(error.to_string()) };
    match code {
        RefusalCode::SessionUnknown | RefusalCode::TooManySuspended if resumes => NoLink::Unknown(reason),
        RefusalCode::TooManySessions | RefusalCode::ShuttingDown | RefusalCode::AlreadyConnected => {
            NoLink::Later(reason)
        }
        RefusalCode::SessionEnded if resumes => {
            let code = if reason.is_empty() { close_code::PLAIN } else { close_code::DISCONNECTED };
            NoLink::Never(SessionEnd::ClosedByPeer(CloseReason { code, text: reason }))
        }
        code => NoLink::Never(SessionEnd::Refused(format!("{code}: {reason}"))),
    }
}

fn explain(address: &Address, key: Fingerprint, failure: HandshakeFailure) -> DialError {
    let address = address.clone();
    match failure {
        HandshakeFailure::Protocol(HandshakeError::NoAnswer) => DialError::ClosedWithoutAnswering { address },
        HandshakeFailure::Protocol(HandshakeError::Refused { code, reason }) => {
            DialError::Refused { address, key, code, reason }
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
        // A server's.
        HandshakeFailure::AtOurKey => DialError::ClosedWithoutAnswering { address },
        HandshakeFailure::Refused(reason) => {
            DialError::Refused { address, key, code: RefusalCode::Denied, reason }
        }
    }
}
