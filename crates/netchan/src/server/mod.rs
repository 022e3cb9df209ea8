//! `listen_and_serve`, and the server it returns.

mod accept;
mod access;
mod audit;
mod authority;
mod client;
mod collect;
mod doorway;
mod error;
mod event;
mod hosting;
mod metrics;
mod policy_file;
mod registry;
mod suspended;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use netchan_proto::crypto::{Fingerprint, GateKeeper, ServerSettings};
use netchan_proto::id::{Incarnation, SessionId};
use netchan_proto::session::close_code;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::authority::Authority;
pub use self::client::Client;
use self::doorway::Doorway;
pub use self::error::{AccessError, ListenError};
pub use self::event::{ServerEvent, ServerStats};
use self::policy_file::Watched;
use self::registry::Registry;
use self::suspended::Suspended;
use crate::account::Accounts;
use crate::address::Address;
use crate::broadcast::Broadcast;
use crate::codec::Message;
use crate::config::Config;
use crate::error::{CloseReason, HostError, SessionEnd, SessionLost};
use crate::hub::{Access, Cast, HostedInfo, Hub};
use crate::identity::Identity;
use crate::offer::{NextOffer, Offer, OfferQueue};
use crate::options::ChannelOptions;
use crate::policy::{Policy, PolicySource, TicketHolders};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{CloseReport, Events, Publisher, SessionCore, SessionState};
use crate::system::random;
use crate::ticket::{Ticket, advertised_addresses};
use crate::wait::Ticket as Place;

/// Listens on an address and serves channels to whoever holds the server's [`Ticket`]: encrypted and authenticated, with
/// nothing to set up. `address` is `host:port`, `tcp://…`, `unix://…`, `memory://…`, or of a transport of your own.
///
/// # Errors
/// [`ListenError`], which says what to try.
///
/// # Cancel safety
/// Dropped before it completes, nothing listens.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let server = netchan::listen_and_serve("127.0.0.1:0", netchan::Config::default()).await?;
/// println!("dial {}", server.ticket());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn listen_and_serve(address: impl AsRef<str>, config: Config) -> Result<Server, ListenError> {
    let address: Address = address.as_ref().parse()?;
    let identity = config.identity.clone().unwrap_or_else(Identity::generate);
    let (policy, watched) = match &config.policy {
        PolicySource::TicketHolders => (Arc::new(TicketHolders) as Arc<dyn Policy>, None),
        PolicySource::Policy(policy) => (Arc::clone(policy), None),
        PolicySource::File(path) => {
            let (watched, policy) = Watched::read(path.clone())?;
            (Arc::new(policy) as Arc<dyn Policy>, Some(watched))
        }
    };
    let gate = Arc::new(StdMutex::new(access::gate_keeper(&identity, &config)));
    let settings =
        ServerSettings::new(identity.key().clone(), gate.clone()).map_err(ListenError::Identity)?;
    let listener = config.transports.listen(&address).await?;
    let addresses = listener.local_addresses();
    let ticket = Ticket::new(advertised_addresses(&addresses, &config.advertise)?, &identity)?;
    let core = Arc::new(ServerCore {
        identity: RwLock::new(identity),
        addresses,
        ticket: RwLock::new(ticket),
        settings,
        gate,
        authority: Authority::new(policy),
        doorway: Doorway::new(&config.limits),
        incarnation: Incarnation(u64::from_be_bytes(random())),
        hosted: Mutex::default(),
        sessions: Mutex::default(),
        suspended: Mutex::default(),
        settling: Mutex::default(),
        runtime: tokio::runtime::Handle::current(),
        left_dead: Mutex::default(),
        // Each client may come and go while a subscriber looks away.
        events: Publisher::new(config.limits.sessions_max.saturating_mul(2)),
        past: Mutex::default(),
        accounts: Accounts::new(&config.limits),
        offers: OfferQueue::default(),
        closing: watch::Sender::new(false),
        config,
    });
    let accepting = tokio::spawn(accept::run(Arc::clone(&core), listener));
    tokio::spawn(policy_file::run(Arc::downgrade(&core), watched));
    tokio::spawn(metrics::sample(Arc::downgrade(&core), core.config.metrics_period));
    Ok(Server { core, accepting: Mutex::new(Some(accepting)), polling: Mutex::new(None) })
}

struct ServerCore {
    config: Config,
    accounts: Arc<Accounts>,
    identity: RwLock<Identity>,
    addresses: Vec<Address>,
    ticket: RwLock<Ticket>,
    settings: ServerSettings,
    gate: Arc<StdMutex<GateKeeper>>,
    authority: Authority,
    doorway: Arc<Doorway>,
    incarnation: Incarnation,
    hosted: Mutex<Registry>,
    sessions: Mutex<HashMap<SessionId, Arc<SessionCore>>>,
    suspended: Mutex<Suspended>,
    /// Held by whoever settles which session of a key stays.
    settling: Mutex<()>,
    /// Where it listens.
    runtime: tokio::runtime::Handle,
    /// Dead letters of channels that have ended.
    left_dead: Mutex<HashMap<String, Vec<Arc<Hub>>>>,
    events: Publisher<ServerEvent>,
    /// Over the sessions that have ended.
    past: Mutex<ServerStats>,
    offers: OfferQueue,
    closing: watch::Sender<bool>,
}

impl ServerCore {
    fn sessions(&self) -> Vec<Arc<SessionCore>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// Once nobody is here and nobody is let in, nothing more will happen.
    fn end_events(&self) {
        if self.is_closing() && self.sessions.lock().is_empty() {
            self.events.close();
        }
    }

    /// Those whose clients have confirmed them. Events tell of no others.
    fn greeted(&self) -> Vec<Arc<SessionCore>> {
        self.sessions.lock().values().filter(|session| session.is_greeted()).cloned().collect()
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }
}

/// A server: it hosts channels, and receives those that clients open.
///
/// `Server` is itself a channel of channels: [`recv`](Self::recv), and the `Stream`, yield the channels that clients open
/// under names that are not hosted.
///
/// Dropped, it stops at once; [`shutdown`](Self::shutdown) drains first.
pub struct Server {
    core: Arc<ServerCore>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    polling: Mutex<Option<Place>>,
}

impl Server {
    /// What clients dial. Whoever holds it may come in: treat it like a password.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.core.ticket.read().clone()
    }

    /// Where the server listens, with the real port where it was left to the system.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.core.addresses
    }

    /// Who the server is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.core.identity.read().clone()
    }

    /// Hosts a channel that clients may receive from, first come, first served.
    ///
    /// When the last handle is dropped nobody can send any more, and the channel closes behind what is in it.
    ///
    /// # Errors
    /// [`HostError`], among them that the name is taken.
    pub fn sender<T: Message>(&self, name: &str, capacity: usize) -> Result<Sender<T>, HostError> {
        self.sender_with(name, capacity, ChannelOptions::default())
    }

    /// As [`sender`](Self::sender), with options.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    pub fn sender_with<T: Send + 'static>(
        &self,
        name: &str,
        capacity: usize,
        options: ChannelOptions<T>,
    ) -> Result<Sender<T>, HostError> {
        let hub =
            self.core.host(name, capacity as u64, &options, Access { may_send: false, may_receive: true })?;
        Ok(Sender::hosted(hub, true, options.codec, self.core.message_limits()))
    }

    /// Hosts a channel that clients may send into. The capacity holds over all of them together.
    ///
    /// When the last handle is dropped nobody can receive any more: the channel ends at once, and what is in it is dropped with
    /// it, results included that came with an acknowledgement. [`Receiver::close`] first, and receive until the end, to have
    /// it all.
    ///
    /// # Errors
    /// [`HostError`], among them that the name is taken.
    pub fn receiver<T: Message>(&self, name: &str, capacity: usize) -> Result<Receiver<T>, HostError> {
        self.receiver_with(name, capacity, ChannelOptions::default())
    }

    /// As [`receiver`](Self::receiver), with options.
    ///
    /// # Errors
    /// As [`receiver`](Self::receiver).
    pub fn receiver_with<T: Send + 'static>(
        &self,
        name: &str,
        capacity: usize,
        options: ChannelOptions<T>,
    ) -> Result<Receiver<T>, HostError> {
        let hub =
            self.core.host(name, capacity as u64, &options, Access { may_send: true, may_receive: false })?;
        Ok(Receiver::hosted(hub, true, options.codec, self.core.message_limits()))
    }

    /// Hosts a channel that clients may both send into and receive from, as this process may with the handles returned.
    /// It stays when they are dropped, until one is [closed](Sender::close) or the server ends.
    ///
    /// # Errors
    /// [`HostError`], among them that the name is taken.
    pub fn channel<T: Message>(
        &self,
        name: &str,
        capacity: usize,
    ) -> Result<(Sender<T>, Receiver<T>), HostError> {
        self.channel_with(name, capacity, ChannelOptions::default())
    }

    /// As [`channel`](Self::channel), with options.
    ///
    /// # Errors
    /// As [`channel`](Self::channel).
    pub fn channel_with<T: Send + 'static>(
        &self,
        name: &str,
        capacity: usize,
        options: ChannelOptions<T>,
    ) -> Result<(Sender<T>, Receiver<T>), HostError> {
        let hub =
            self.core.host(name, capacity as u64, &options, Access { may_send: true, may_receive: true })?;
        let limits = self.core.message_limits();
        let sender = Sender::hosted(Arc::clone(&hub), false, Arc::clone(&options.codec), limits);
        Ok((sender, Receiver::hosted(hub, false, options.codec, limits)))
    }

    /// Hosts a broadcast: every client that receives from it gets its own copy of every value, after what is
    /// [assigned](Broadcast::assign). `capacity` is how many values a slow subscriber may be behind, beyond its own window,
    /// before it [lags](crate::RecvError::Lagged); at least 1.
    ///
    /// # Errors
    /// [`HostError`], among them that the name is taken.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let server = netchan::listen_and_serve("memory://broadcast", Default::default()).await?;
    /// let config = server.broadcast::<String>("config", 64)?;
    /// config.assign("colour = blue".to_owned()).await?;
    ///
    /// let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// let late = session.receiver::<String>("config").await?;
    /// config.send("colour = red".to_owned()).await?;
    /// assert_eq!(late.recv().await?.as_deref(), Some("colour = blue"));
    /// assert_eq!(late.recv().await?.as_deref(), Some("colour = red"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn broadcast<T: Message>(&self, name: &str, capacity: usize) -> Result<Broadcast<T>, HostError> {
        self.broadcast_with(name, capacity, ChannelOptions::default())
    }

    /// As [`broadcast`](Self::broadcast), with options; among them, [whether clients may send
    /// too](ChannelOptions::clients_may_send).
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_with<T: Send + 'static>(
        &self,
        name: &str,
        capacity: usize,
        options: ChannelOptions<T>,
    ) -> Result<Broadcast<T>, HostError> {
        let access = Access { may_send: options.clients_may_send, may_receive: true };
        let cast = self.core.host_with(name, (capacity as u64).max(1), &options, access, Cast::new)?;
        Ok(Broadcast::new(cast, options.codec, self.core.message_limits()))
    }

    /// Receives the values of a hosted channel that no client acknowledged in as many attempts as they may have
    /// ([`ChannelOptions::max_attempts`]). It ends when the channel does. What is left of a channel that had the name before comes first,
    /// and ends by itself: call this again for the present one.
    ///
    /// # Errors
    /// [`HostError::NoDeadLetters`] when no such channel is hosted, or its attempts have no bound; [`HostError::TypeMismatch`]
    /// when its values are of another type; as bytes ([`ChannelOptions::raw`]) they can always be received.
    pub fn dead_letters<T: Message>(&self, name: &str) -> Result<Receiver<T>, HostError> {
        self.dead_letters_with(name, ChannelOptions::default())
    }

    /// As [`dead_letters`](Self::dead_letters), with options.
    ///
    /// # Errors
    /// As [`dead_letters`](Self::dead_letters).
    pub fn dead_letters_with<T: Send + 'static>(
        &self,
        name: &str,
        options: ChannelOptions<T>,
    ) -> Result<Receiver<T>, HostError> {
        let dead = self.core.dead_letters(name, &options)?;
        Ok(Receiver::hosted(dead, false, options.codec, self.core.message_limits()))
    }

    /// Receives the next channel that a client opens under a name that is not hosted. `None` once the server is shut down.
    ///
    /// # Errors
    /// [`SessionLost`], never at present: a server outlives its sessions.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it completes, no channel is lost.
    pub async fn recv(&self) -> Result<Option<Offer>, SessionLost> {
        NextOffer { queue: &self.core.offers, ticket: None }.await
    }

    /// What happens to clients from here on, starting with those that are here now.
    #[must_use]
    pub fn events(&self) -> Events<ServerEvent> {
        self.core.events.subscribe(|| self.core.greeted().iter().map(ServerEvent::now).collect())
    }

    /// What the server's sessions and channels have been through, those included that have ended.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let mut stats = self.core.stats_of(&self.core.greeted());
        self.hosted().iter().for_each(|channel| stats.add_channel(channel));
        stats
    }

    /// Who is here now, those included whose connection is gone and whose session waits for another.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.core.sessions().into_iter().filter(is_here).map(Client::new).collect()
    }

    /// One of the clients that are here now, by its session.
    #[must_use]
    pub fn client(&self, session: SessionId) -> Option<Client> {
        let core = self.core.sessions.lock().get(&session).cloned();
        core.filter(is_here).map(Client::new)
    }

    /// The clients of one key that are here now. What becomes of a second one is up to
    /// [`Config::duplicate_sessions`](crate::Config::duplicate_sessions).
    #[must_use]
    pub fn clients_of(&self, key: Fingerprint) -> Vec<Client> {
        self.clients().into_iter().filter(|client| client.fingerprint() == Some(key)).collect()
    }

    /// The channels that are hosted now, with what is in each.
    #[must_use]
    pub fn hosted(&self) -> Vec<HostedInfo> {
        let engines = self.core.hosted.lock().all();
        engines.iter().map(|engine| engine.survey()).collect()
    }

    /// Stops taking clients, closes every hosted channel, waits until what is in them has been received, at most until the
    /// deadline, and ends every session.
    ///
    /// # Errors
    /// None at present; what could not be delivered is in the report.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the server keeps what it has done so far; call it again, or drop the server.
    pub async fn shutdown(&self, deadline: Duration) -> Result<CloseReport, SessionLost> {
        let now = Instant::now();
        // A deadline beyond the end of time is none.
        let end = now.checked_add(deadline).unwrap_or(now + Duration::from_secs(365 * 24 * 3_600));
        self.stop_accepting().await;
        let mut report = CloseReport::default();
        // Who has no connection now cannot come back any more: what it held goes to others.
        for session in self.core.sessions() {
            if session.state() == SessionState::Suspended {
                report.add(session.close(Duration::ZERO).await);
            }
        }
        let engines = self.core.hosted.lock().all();
        // What clients receive first: while they work off what is left, their results have somewhere to go.
        let (received, sent): (Vec<_>, Vec<_>) =
            engines.iter().partition(|engine| engine.spec().access.may_receive);
        received.iter().for_each(|engine| engine.close(CloseReason::new(0, "")));
        for engine in &received {
            if tokio::time::timeout_at(end, engine.drained()).await.is_err() {
                break;
            }
        }
        sent.iter().for_each(|engine| engine.close(CloseReason::new(0, "")));
        let left = end.saturating_duration_since(Instant::now());
        let closing: Vec<_> = self
            .core
            .sessions()
            .into_iter()
            .map(|session| tokio::spawn(async move { session.close(left).await }))
            .collect();
        for closed in closing {
            if let Ok(closed) = closed.await {
                report.add(closed);
            }
        }
        for engine in engines.iter().filter(|engine| engine.spec().access.may_receive) {
            let untaken = engine.untaken();
            if untaken > 0 {
                let channels = vec![(engine.spec().name.to_string(), untaken)];
                report.add(CloseReport { undelivered: untaken, in_doubt: 0, channels });
                engine.abort(CloseReason::new(0, "the server has shut down"));
            }
        }
        self.core.offers.end(SessionEnd::ClosedHere);
        self.core.end_events();
        Ok(report)
    }
}

/// Whether a session is a client's that is here: that client may have returned from `dial` before the server has heard its
/// confirmation, but without a connection nobody knows whether it has.
fn is_here(session: &Arc<SessionCore>) -> bool {
    session.is_greeted() || session.state() == SessionState::Connected
}

impl Stream for Server {
    type Item = Result<Offer, SessionLost>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.core.offers.poll(cx, &mut self.polling.lock()).map(Result::transpose)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.core.closing.send_replace(true);
        self.core.offers.leave(&mut self.polling.lock());
        self.core.offers.end(SessionEnd::ClosedHere);
        let engines = self.core.hosted.lock().take_all();
        for engine in engines {
            engine.abort(CloseReason::new(0, "the server has stopped"));
        }
        for session in self.core.sessions() {
            session.say_goodbye(close_code::SHUTDOWN, "the server has stopped".to_owned());
        }
        self.core.end_events();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.core.addresses).finish_non_exhaustive()
    }
}
