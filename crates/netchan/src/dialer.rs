//! Reaching a server, that of a ticket or of a known host: for a new session, or to go on with one.

mod error;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use netchan_proto::crypto::{
    AccessSecret, ClientHandshake, ClientSettings, Fingerprint, HandshakeError, Hello, RefusalCode,
    ResumeFrom, ServerPin, ServerTrust,
};
use netchan_proto::session::close_code;
use parking_lot::RwLock;
use tokio::time::Instant;

pub use self::error::DialError;
use crate::account::Account;
use crate::address::Address;
use crate::config::{Config, SessionLimits};
use crate::error::{CloseReason, SessionEnd};
use crate::handshake::{self, AGENT, Anywhere, HandshakeFailure, Joined, Verdict};
use crate::identity::Identity;
use crate::session::{NewLink, NoLink, Relink};
use crate::system;
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

/// A server, and all that is needed to reach it more than once.
pub(crate) struct Dialer {
    target: RwLock<Target>,
    identity: Identity,
    config: Config,
}

/// Where a server is, and which it is.
#[derive(Clone)]
struct Target {
    addresses: Vec<Address>,
    /// Which server is accepted, in the order to try. More than one while a known host changes its key.
    servers: Vec<ServerTrust>,
    access_secret: Option<AccessSecret>,
}

impl Target {
    /// Whether the server at hand may be another of those that are accepted.
    fn may_be_another(&self, error: &DialError) -> bool {
        match error {
            DialError::Handshake { error: HandshakeError::WrongPin { shown }, .. } => {
                self.servers.contains(&ServerTrust::Pinned((*shown).into()))
            }
            // The gate is made of the pin then, and stays shut for another.
            DialError::ClosedWithoutAnswering { .. } => self.access_secret.is_none(),
            _ => false,
        }
    }
}

impl Dialer {
    /// Of the server that a ticket names.
    pub(crate) fn new(ticket: &Ticket, config: Config) -> Self {
        let servers = vec![ServerTrust::Pinned(ticket.server_pin())];
        Self::of(ticket.addresses().to_vec(), servers, ticket.access_secret().cloned(), config)
    }

    /// Of a server that has one of these keys.
    pub(crate) fn pinned(
        address: Address,
        keys: &[Fingerprint],
        access_secret: Option<AccessSecret>,
        config: Config,
    ) -> Self {
        let servers = keys.iter().map(|key| ServerTrust::Pinned(ServerPin::from(*key))).collect();
        Self::of(vec![address], servers, access_secret, config)
    }

    /// Of a server whose key is not known yet, for one link: what has its key then is [`Dialer::insisting_on`].
    pub(crate) fn first_use(address: Address, access_secret: AccessSecret, config: Config) -> Self {
        Self::of(vec![address], vec![ServerTrust::FirstUse], Some(access_secret), config)
    }

    fn of(
        addresses: Vec<Address>,
        servers: Vec<ServerTrust>,
        access_secret: Option<AccessSecret>,
        config: Config,
    ) -> Self {
        let identity = config.identity.clone().unwrap_or_else(Identity::generate);
        let target = Target { addresses, servers, access_secret };
        Self { target: RwLock::new(target), identity, config }
    }

    /// The same, for the server with this key and no other from here on.
    pub(crate) fn insisting_on(mut self, key: Fingerprint) -> Self {
        self.target.get_mut().servers = vec![ServerTrust::Pinned(key.into())];
        self
    }

    /// From the next attempt on, goes by another ticket of the same server.
    pub(crate) fn use_ticket(&self, ticket: &Ticket) -> Result<(), TicketError> {
        let mut target = self.target.write();
        let server = ServerTrust::Pinned(ticket.server_pin());
        if !target.servers.contains(&server) {
            return Err(TicketError::OtherServer);
        }
        let (addresses, access_secret) = (ticket.addresses().to_vec(), ticket.access_secret().cloned());
        *target = Target { addresses, servers: vec![server], access_secret };
        Ok(())
    }

    /// What the server makes this end keep is counted here.
    pub(crate) fn account(&self) -> Arc<Account> {
        Account::alone(&self.config.limits)
    }

    pub(crate) fn limits(&self) -> SessionLimits {
        self.config.session_limits()
    }

    /// Tries the addresses in turn.
    pub(crate) async fn connect(&self, resume: Option<ResumeFrom>) -> Result<NewLink, DialError> {
        let mut attempts = Vec::new();
        let mut answered = None;
        let target = self.target.read().clone();
        for address in &target.addresses {
            match self.connect_to(&target, address, resume.as_ref()).await {
                Ok(link) => return Ok(link),
                Err(Failed::Unreachable(error)) => attempts.push((address.clone(), error)),
                Err(Failed::Answered(error @ DialError::Refused { .. })) => return Err(error),
                // Another address of the ticket may lead to the right server.
                Err(Failed::Answered(error)) => _ = answered.get_or_insert(error),
            }
        }
        Err(answered.unwrap_or(DialError::Unreachable { attempts }))
    }

    /// Tries one address, anew for each server that it may be and that the last attempt has not ruled out.
    async fn connect_to(
        &self,
        target: &Target,
        address: &Address,
        resume: Option<&ResumeFrom>,
    ) -> Result<NewLink, Failed> {
        let mut servers = target.servers.iter().copied().peekable();
        while let Some(server) = servers.next() {
            let deadline = Instant::now() + self.config.limits.handshake_timeout.min(TIMEOUT_MAX);
            let late = |_| {
                let why = format!("no connection within {:?}", self.config.limits.handshake_timeout);
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            };
            let connecting = self.config.transports.connect(address);
            let link = tokio::time::timeout_at(deadline, connecting).await.unwrap_or_else(late);
            let link = link.map_err(Failed::Unreachable)?;
            match self
                .join(link, address, (server, target.access_secret.clone()), resume.cloned(), deadline)
                .await
            {
                Ok(link) => return Ok(link),
                Err(error) if target.may_be_another(&error) && servers.peek().is_some() => {}
                Err(error) => return Err(Failed::Answered(error)),
            }
        }
        // There is always one server at least.
        Err(Failed::Answered(DialError::ClosedWithoutAnswering { address: address.clone() }))
    }

    async fn join(
        &self,
        link: Box<dyn Link>,
        address: &Address,
        (server, secret): (ServerTrust, Option<AccessSecret>),
        resume: Option<ResumeFrom>,
        deadline: Instant,
    ) -> Result<NewLink, DialError> {
        let hello = Hello {
            version: netchan_proto::crypto::hello::VERSION,
            agent: AGENT.to_owned(),
            aes_hardware: system::has_aes_hardware(),
            message_bytes_max: self.limits().message_bytes_max as u64,
            resume: None,
        };
        let settings = ClientSettings { key: self.identity.key().clone(), server, secret, hello, resume };
        let late = || DialError::Timeout {
            address: address.clone(),
            deadline: self.config.limits.handshake_timeout,
        };
        let failed = |failure| match failure {
            HandshakeFailure::Timeout(_) => late(),
            HandshakeFailure::Protocol(HandshakeError::Refused { code, reason })
                if server == ServerTrust::FirstUse =>
            {
                // Escaped and marked: nothing shows yet that it was the server who said so.
                let reason = format!("{reason:?} (its key is not known yet: anybody could have answered so)");
                DialError::Refused {
                    address: address.clone(),
                    key: self.identity.fingerprint(),
                    code,
                    reason,
                }
            }
            failure => explain(address, self.identity.fingerprint(), failure),
        };
        let mut client = ClientHandshake::new(settings, system::unix_seconds(), system::random())
            .map_err(|error| failed(error.into()))?;
        let peer_address = link.peer_address();
        let nobody = |_: &_| Verdict::Refuse(RefusalCode::Denied, String::new());
        let left = deadline.saturating_duration_since(Instant::now());
        let Joined { established, link, early } =
            handshake::run(&mut client, link, left, &Anywhere, nobody).await.map_err(failed)?;
        let peer_bytes_max = established.accepted.message_bytes_max;
        let mut link = NewLink::new(established, link, &early, peer_address, peer_bytes_max);
        if server == ServerTrust::FirstUse {
            // `HS-15`: a pinned server has proven itself by now. This one does so by its confirmation, which takes the secret
            // (`KEY-6`); it gets nothing more before, and nobody is told its key.
            let confirmed =
                tokio::time::timeout_at(deadline, link.await_confirm()).await.map_err(|_| late())?;
            confirmed.map_err(|reason| DialError::Unconfirmed { address: address.clone(), reason })?;
        }
        Ok(link)
    }
}

/// Why one address led to no link.
enum Failed {
    Unreachable(io::Error),
    Answered(DialError),
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
