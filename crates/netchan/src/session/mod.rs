//! One session under its locks: the objects of `netchan-proto`, the tasks that wait on them, the driver that reads and
//! keeps time, and the flusher that writes what is left behind.
//!
//! A session outlives its links. Reader, writer and flusher belong to a link; control object, halves and handles to the
//! session. At a client the core outlives even the session: when that is lost, a new one takes its place (`lost`).
//!
//! Lock order: writer → control → hub → channel. The table and the ready queue are leaves: nothing is locked under them.
//! The reader belongs to the driver task alone and needs no lock. No user code runs but `Serialize` and `Deserialize`
//! under their own channel's lock.

mod accept;
mod claims;
mod driver;
mod end;
mod flush;
mod host;
mod link;
mod lost;
mod open;
mod opened;
mod owed;
mod owner;
mod pings;
mod recv_chan;
mod redial;
mod send_chan;
mod state;
mod survey;
mod traffic;
mod upper;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::task::AtomicWaker;
use netchan_proto::crypto::ResumeFrom;
use netchan_proto::id::{ChannelId, ChannelMap, Epoch, Side};
use netchan_proto::session::{ClientLinks, Control, ControlLimits, ServerLinks};
use netchan_proto::wire::{HEAD_BYTES_MAX, Mode, Purpose};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::accept::Terms;
pub(crate) use self::driver::Driver;
pub use self::end::CloseReport;
use self::flush::Writer;
use self::link::Arrival;
pub(crate) use self::link::NewLink;
pub(crate) use self::lost::reopen_pause;
pub(crate) use self::open::{Direction, OpenFailure, OpenSpec, Opened, REFUSALS_MAX};
pub(crate) use self::opened::Granted;
pub(crate) use self::owner::{Owner, Ownership, Position};
pub(crate) use self::recv_chan::{RecvChan, RecvHandle, RecvState};
pub(crate) use self::redial::{NoLink, Relink};
pub(crate) use self::send_chan::{SendChan, SendHandle, SendState};
pub use self::state::{Events, SessionEvent, SessionState, SessionStats};
pub(crate) use self::state::{Lossy, Publisher};
pub use self::survey::{ChannelInfo, Direction as ChannelDirection};
use self::traffic::Traffic;
pub(crate) use self::upper::Upper;
use crate::account::Account;
use crate::config::SessionLimits;
use crate::error::{CloseReason, SessionEnd};
use crate::limits::MessageLimits;
use crate::peer::Peer;

/// A channel of the session, by the half that is here.
#[derive(Clone)]
pub(crate) enum Chan {
    Send(Arc<SendChan>),
    Recv(Arc<RecvChan>),
}

impl Chan {
    fn id(&self) -> ChannelId {
        match self {
            Self::Send(chan) => chan.id(),
            Self::Recv(chan) => chan.id(),
        }
    }

    fn ended(&self, end: &SessionEnd) {
        match self {
            Self::Send(chan) => chan.ended(end),
            Self::Recv(chan) => chan.ended(end),
        }
    }

    /// The flag that keeps a channel from standing in the ready queue twice.
    fn queued(&self) -> &AtomicBool {
        match self {
            Self::Send(chan) => &chan.queued,
            Self::Recv(chan) => &chan.queued,
        }
    }
}

/// How far a session has come on its way out.
pub(crate) mod phase {
    pub(crate) const OPEN: u8 = 0;
    /// Ends once everything sent has arrived.
    pub(crate) const LINGER: u8 = 1;
    /// GOAWAY is queued: ends once it is written and the peer has closed.
    pub(crate) const GOODBYE: u8 = 2;
}

/// What may change with a link.
struct Facts {
    peer: Peer,
    key_exchange: &'static str,
    cipher: &'static str,
    /// The peer came in with an access secret.
    has_access_secret: bool,
}

/// The record of the session's links, by side.
pub(crate) enum Links {
    Client(ClientLinks),
    Server(ServerLinks),
}

pub(crate) struct SessionCore {
    pub(crate) limits: SessionLimits,
    /// What the peer makes this end keep.
    pub(super) account: Arc<Account>,
    facts: Mutex<Facts>,
    /// The longest message that both ends take.
    message_bytes_max: AtomicUsize,
    upper: Arc<dyn Upper>,
    links: Mutex<Links>,
    /// At a client: how to reach the server again.
    redial: Option<Arc<dyn Relink>>,
    arrival: Mutex<Option<(u64, Arrival)>>,
    arrived: AtomicBool,
    board: state::Board,
    /// Links so far.
    links_count: AtomicU64,
    /// The present link's.
    epoch: AtomicU32,
    traffic: Traffic,
    /// Somebody wants to know how long a round trip takes.
    wants_round_trip: AtomicBool,
    resumes: AtomicU64,
    /// Values replayed on channels that are gone.
    replayed: AtomicU64,
    /// The program above has been told of the session.
    greeted: AtomicBool,
    /// When the newest ping was sent that was answered.
    answered_micros: AtomicU64,
    /// When the oldest was sent that waits for its answer, and what had been read by then.
    probed_micros: AtomicU64,
    probed_bytes: AtomicU64,
    /// Counts the sessions that were lost: what was offered in an earlier one means nothing.
    life: AtomicU64,
    /// At a client: the session is lost, and the one that takes its place has no link yet.
    lost: AtomicBool,
    coming: Mutex<Option<lost::Coming>>,
    /// How many there are for whom the program goes on when the session is lost, beside channels.
    going_on: AtomicUsize,
    /// Channels that wait to be opened again after a loss, by their addresses.
    reopening: Mutex<HashMap<usize, lost::Waiting>>,
    /// Numbers those who open channels.
    callers: AtomicU64,
    control: Mutex<Control>,
    writer: Mutex<Writer>,
    /// Somebody had something to write while the writer was held.
    flush_again: AtomicBool,
    table: Mutex<ChannelMap<Chan>>,
    ready: Mutex<VecDeque<Chan>>,
    /// A sender has written something itself since the flusher last looked, or the link is full: what comes next is
    /// gathered for the flusher.
    burst: AtomicBool,
    /// The flusher is at it.
    flushing: AtomicBool,
    /// Something was left to the flusher that it may have missed, and it has not been woken.
    handover: AtomicBool,
    /// The link took no more, and the driver is to end the session.
    write_failed: AtomicBool,
    /// The driver is to see in a while whether channels have news that were not worth a write so far.
    ticking: AtomicBool,
    driver: AtomicWaker,
    /// Whoever wakes the driver says so here first: it may be at work, and then nothing wakes it.
    driver_called: AtomicBool,
    flusher: AtomicWaker,
    opening: Mutex<ChannelMap<open::Opening>>,
    /// What the peer has opened and may have, at a server.
    grants: Mutex<ChannelMap<opened::Grant>>,
    /// How many channels the peer may still open now.
    opens: Mutex<opened::Opens>,
    /// Since when the link takes nothing, in milliseconds; 0 while it does.
    blocked_since: AtomicU64,
    phase: AtomicU8,
    /// User handles alive; at zero the session lingers, then ends.
    handles: AtomicUsize,
    /// Channels with values, or leave to send, that go back to a hosted channel unless they are used by then.
    idle: Mutex<Vec<(Instant, Chan)>>,
    /// The peer's farewell, until the driver acts on it.
    goodbye: Mutex<Option<SessionEnd>>,
    /// Why it is to end while it has no link.
    given_up: Mutex<Option<SessionEnd>>,
    farewell: OnceLock<CloseReason>,
    end: OnceLock<SessionEnd>,
    ended: watch::Sender<bool>,
    started: Instant,
    since: SystemTime,
    /// What is logged of it goes under this.
    span: OnceLock<tracing::Span>,
    /// Where its tasks run, whoever calls.
    runtime: tokio::runtime::Handle,
}

impl SessionCore {
    /// A session on its first link, and the driver that must be spawned for it. `redial` says how a client reaches its
    /// server again; without, a session waits for its peer.
    pub(crate) fn new(
        side: Side,
        limits: SessionLimits,
        link: NewLink,
        account: Arc<Account>,
        upper: Arc<dyn Upper>,
        redial: Option<Arc<dyn Relink>>,
    ) -> (Arc<Self>, Driver) {
        let (accepted, secret) = (&link.accepted, link.secret.clone());
        let links = match (side, link.peer.fingerprint()) {
            (Side::Server, Some(owner)) => {
                Links::Server(ServerLinks::new(accepted.session_id, owner, accepted.epoch, secret))
            }
            _ => Links::Client(ClientLinks::new(accepted, secret)),
        };
        let facts = Facts {
            peer: link.peer.clone(),
            key_exchange: link.key_exchange,
            cipher: link.cipher,
            has_access_secret: link.has_access_secret,
        };
        let opens = opened::Opens::new(&limits);
        let core = Arc::new(Self {
            account,
            facts: Mutex::new(facts),
            message_bytes_max: AtomicUsize::new(limits.message_bytes_max.min(link.peer_bytes_max)),
            upper,
            links: Mutex::new(links),
            redial,
            arrival: Mutex::default(),
            arrived: AtomicBool::new(false),
            board: state::Board::new(),
            links_count: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            traffic: Traffic::default(),
            wants_round_trip: AtomicBool::new(false),
            resumes: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            answered_micros: AtomicU64::new(0),
            probed_micros: AtomicU64::new(0),
            probed_bytes: AtomicU64::new(0),
            life: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            coming: Mutex::default(),
            going_on: AtomicUsize::new(0),
            reopening: Mutex::default(),
            callers: AtomicU64::new(0),
            control: Mutex::new(Control::new(side, control_limits(&limits))),
            limits,
            writer: Mutex::new(Writer::new()),
            flush_again: AtomicBool::new(false),
            table: Mutex::default(),
            ready: Mutex::default(),
            burst: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            handover: AtomicBool::new(false),
            write_failed: AtomicBool::new(false),
            ticking: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            driver_called: AtomicBool::new(false),
            flusher: AtomicWaker::new(),
            opening: Mutex::default(),
            grants: Mutex::default(),
            opens: Mutex::new(opens),
            blocked_since: AtomicU64::new(0),
            phase: AtomicU8::new(phase::OPEN),
            handles: AtomicUsize::new(0),
            idle: Mutex::default(),
            goodbye: Mutex::default(),
            given_up: Mutex::default(),
            farewell: OnceLock::new(),
            end: OnceLock::new(),
            ended: watch::Sender::new(false),
            started: Instant::now(),
            since: SystemTime::now(),
            span: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        let driver = Driver::new(Arc::clone(&core), link);
        (core, driver)
    }

    /// What is logged of the session goes under this.
    pub(crate) fn set_span(&self, span: tracing::Span) -> tracing::Span {
        self.span.get_or_init(|| span).clone()
    }

    /// What is logged of a channel goes under this.
    fn channel_span(&self, name: &str, id: u32) -> tracing::Span {
        let session = self.span.get().and_then(tracing::Span::id);
        tracing::debug_span!(parent: session, "channel", channel = %name, id)
    }

    /// Which of the sessions that this core has carried is the present one.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Peer {
        self.facts.lock().peer.clone()
    }

    pub(crate) fn key_exchange(&self) -> &'static str {
        self.facts.lock().key_exchange
    }

    pub(crate) fn cipher(&self) -> &'static str {
        self.facts.lock().cipher
    }

    pub(crate) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max.load(Ordering::Relaxed)
    }

    pub(crate) fn message_limits(&self) -> MessageLimits {
        self.limits.decode.of(self.message_bytes_max())
    }

    /// The longest message of a channel opened for that purpose, or in that mode: some carry a word before each value.
    fn longest_message(&self, purpose: Purpose, mode: Mode) -> usize {
        let has_head = matches!(purpose, Purpose::Deliveries | Purpose::Acks { .. }) || mode == Mode::Cast;
        self.message_bytes_max() + if has_head { HEAD_BYTES_MAX } else { 0 }
    }

    pub(crate) fn state(&self) -> SessionState {
        self.board.state()
    }

    pub(crate) fn events(&self) -> Events<SessionEvent> {
        self.board.subscribe()
    }

    pub(crate) async fn wait_connected(&self) -> Result<(), crate::error::SessionLost> {
        self.board.wait_connected().await
    }

    /// Keeps what a channel that goes has been through.
    fn note_replayed(&self, chan: &SendChan) {
        let replayed = crate::patience::lock(&chan.state).half.replayed();
        self.replayed.fetch_add(replayed, Ordering::Relaxed);
    }

    /// Calls `f` with the record of a server's session; `None` at a client.
    pub(crate) fn with_server_links<R>(&self, f: impl FnOnce(&mut ServerLinks) -> R) -> Option<R> {
        match &mut *self.links.lock() {
            Links::Server(links) => Some(f(links)),
            Links::Client(_) => None,
        }
    }

    fn resume_from(&self) -> Option<ResumeFrom> {
        match &*self.links.lock() {
            Links::Client(links) => Some(links.resume_from()),
            Links::Server(_) => None,
        }
    }

    /// Both ends have the link.
    fn confirmed(self: &Arc<Self>) {
        if let Links::Client(links) = &mut *self.links.lock() {
            links.confirmed();
        }
        let coming = self.coming.lock().take();
        let fresh = !self.is_greeted();
        // A server has told nobody of a session that its client had not confirmed, nor that it was without a link.
        let quietly = fresh && self.redial.is_none();
        if fresh {
            let mut greet = || {
                self.greeted.store(true, Ordering::SeqCst);
                if quietly && coming.is_some() {
                    self.board.change(SessionState::Connected, None);
                }
            };
            self.upper.tell(self, &SessionEvent::Connected, &mut greet);
            self.upper.confirmed(self);
        }
        self.ping();
        match coming {
            None => {}
            Some(lost::Coming::Anew) => {
                self.board.change(SessionState::Connected, Some(SessionEvent::Connected));
                self.reopen();
            }
            Some(coming) => {
                self.resumes.fetch_add(1, Ordering::Relaxed);
                if coming == lost::Coming::Resumed {
                    tracing::info!(peer = %self.peer(), "resumed");
                    if !quietly {
                        self.change(SessionState::Connected, SessionEvent::Resumed);
                    }
                }
                self.upper.resumed(self);
            }
        }
    }

    /// The session does differently now: subscribers are told here and above.
    fn change(self: &Arc<Self>, state: SessionState, event: SessionEvent) {
        let told = event.clone();
        let mut change = Some((state, event));
        self.upper.tell(self, &told, &mut || {
            if let Some((state, event)) = change.take() {
                self.board.change(state, Some(event));
            }
        });
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::SeqCst)
    }

    /// The peer has this end's confirmation.
    fn acknowledged(&self) {
        if let Links::Server(links) = &mut *self.links.lock() {
            links.acknowledged(Epoch(self.epoch.load(Ordering::SeqCst)));
        }
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When the session was set up.
    pub(crate) const fn since(&self) -> SystemTime {
        self.since
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn wake_driver(&self) {
        self.driver_called.store(true, Ordering::SeqCst);
        self.driver.wake();
    }

    pub(crate) fn wake_flusher(&self) {
        self.flusher.wake();
    }

    /// Calls `f` with the control object, then sees that what it queued is written.
    pub(crate) fn with_control<R>(&self, f: impl FnOnce(&mut Control) -> R) -> R {
        let result = f(&mut self.control.lock());
        self.wake_flusher();
        result
    }

    fn get(&self, id: ChannelId) -> Option<Chan> {
        self.table.lock().get(&id).cloned()
    }

    fn channels(&self) -> Vec<Chan> {
        self.table.lock().values().cloned().collect()
    }

    /// Those as well that wait to be opened again. Looked for in the order in which they move on, so that none is missed.
    fn all_channels(&self) -> Vec<Chan> {
        let mut channels: Vec<_> =
            self.reopening.lock().values().map(|waiting| waiting.chan.clone()).collect();
        channels.extend(self.opening.lock().values().filter_map(open::Opening::chan).cloned());
        if channels.is_empty() {
            return self.channels();
        }
        channels.extend(self.channels());
        let mut seen = HashSet::with_capacity(channels.len());
        channels.retain(|chan| seen.insert(chan.address()));
        channels
    }
}

pub(super) fn control_limits(limits: &SessionLimits) -> ControlLimits {
    ControlLimits { channels_max: limits.channels_max, offers_pending_max: limits.offers_pending_max }
}

/// How long values, and leave to send, stay with a receiver that stopped waiting, before they go back to a hosted channel
/// for others. A `select!` loop that comes round within this time keeps its place.
pub(crate) const GIVE_BACK_AFTER: Duration = Duration::from_millis(10);
