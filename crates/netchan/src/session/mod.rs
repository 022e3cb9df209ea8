//! One session under its locks: the objects of `netchan-proto`, the tasks that wait on them, the driver that reads and
//! keeps time, and the flusher that writes what is left behind.
//!
//! Lock order: writer → control → hub → channel. The table and the ready queue are leaves: nothing is locked under them.
//! The reader belongs to the driver task alone and needs no lock. No user code runs but `Serialize` and `Deserialize`
//! under their own channel's lock.

mod driver;
mod end;
mod flush;
mod host;
mod open;
mod recv_chan;
mod send_chan;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use netchan_proto::crypto::Established;
use netchan_proto::id::{ChannelId, ChannelMap, Side};
use netchan_proto::session::{Control, ControlLimits, LinkControlKeys, ReadHalf, WriteHalf};
use netchan_proto::wire::{Announce, Open};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use self::driver::Driver;
pub use self::end::CloseReport;
use self::flush::Writer;
pub(crate) use self::open::{Direction, OpenFailure, OpenSpec, Opened};
pub(crate) use self::recv_chan::{RecvChan, RecvHandle, RecvState};
pub(crate) use self::send_chan::{SendChan, SendHandle, SendState};
use crate::config::SessionLimits;
use crate::error::SessionEnd;
use crate::peer::Peer;
use crate::transport::{LinkReader, LinkWriter};

/// What stands above a session: the server, or the client that dialed.
pub(crate) trait Upper: Send + Sync + 'static {
    /// Both ends have the same keys.
    fn confirmed(&self, core: &Arc<SessionCore>);
    /// The peer opens a channel; it must be accepted or refused, now or later.
    fn incoming(&self, core: &Arc<SessionCore>, open: Open);
    /// The peer hosts a channel, or hosts it no longer.
    fn announced(&self, core: &Arc<SessionCore>, announce: Announce);
    /// The peer gave up a channel that it had opened.
    fn expired(&self, core: &Arc<SessionCore>, id: ChannelId);
    /// The session has ended.
    fn ended(&self, core: &Arc<SessionCore>, end: &SessionEnd);
}

/// A channel of the session, by the half that is here.
#[derive(Clone)]
pub(crate) enum Chan {
    Send(Arc<SendChan>),
    Recv(Arc<RecvChan>),
}

impl Chan {
    fn id(&self) -> ChannelId {
        match self {
            Self::Send(chan) => chan.id,
            Self::Recv(chan) => chan.id,
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

pub(crate) struct SessionCore {
    pub(crate) peer: Peer,
    pub(crate) limits: SessionLimits,
    pub(crate) key_exchange: &'static str,
    pub(crate) cipher: &'static str,
    /// The longest message that both ends take.
    pub(crate) message_bytes_max: usize,
    upper: Arc<dyn Upper>,
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
    flusher: AtomicWaker,
    opening: Mutex<ChannelMap<open::Opening>>,
    phase: AtomicU8,
    /// User handles alive; at zero the session lingers, then ends.
    handles: AtomicUsize,
    /// Channels with values, or leave to send, that go back to a hosted channel unless they are used by then.
    idle: Mutex<Vec<(Instant, Chan)>>,
    /// The peer's farewell, until the driver acts on it.
    goodbye: Mutex<Option<SessionEnd>>,
    end: OnceLock<SessionEnd>,
    ended: watch::Sender<bool>,
    started: Instant,
}

impl SessionCore {
    /// A session on the link that a handshake established, and the driver that must be spawned for it. `early` are bytes
    /// that arrived behind the handshake.
    pub(crate) fn new(
        side: Side,
        peer: Peer,
        limits: SessionLimits,
        established: Established,
        link: (LinkReader, LinkWriter),
        early: &[u8],
        upper: Arc<dyn Upper>,
    ) -> (Arc<Self>, Driver) {
        let Established { mut keys, hello, accepted, key_exchange, cipher, .. } = established;
        keys.sealer.set_rekey_limits(limits.rekey);
        let peer_bytes_max = match side {
            Side::Client => accepted.message_bytes_max,
            Side::Server => hello.message_bytes_max,
        };
        let peer_bytes_max = usize::try_from(peer_bytes_max).unwrap_or(usize::MAX);
        let (control_keys, sealer, opener) = LinkControlKeys::split(keys);
        let mut control = Control::new(
            side,
            ControlLimits {
                channels_max: limits.channels_max,
                offers_pending_max: limits.offers_pending_max,
            },
        );
        control.attach(control_keys);
        let (reader, writer) = link;
        let core = Arc::new(Self {
            peer,
            key_exchange,
            cipher,
            message_bytes_max: limits.message_bytes_max.min(peer_bytes_max),
            limits,
            upper,
            control: Mutex::new(control),
            writer: Mutex::new(Writer::new(WriteHalf::new(sealer), writer)),
            flush_again: AtomicBool::new(false),
            table: Mutex::default(),
            ready: Mutex::default(),
            burst: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            handover: AtomicBool::new(false),
            write_failed: AtomicBool::new(false),
            ticking: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            flusher: AtomicWaker::new(),
            opening: Mutex::default(),
            phase: AtomicU8::new(phase::OPEN),
            handles: AtomicUsize::new(0),
            idle: Mutex::default(),
            goodbye: Mutex::default(),
            end: OnceLock::new(),
            ended: watch::Sender::new(false),
            started: Instant::now(),
        });
        let driver = Driver::new(Arc::clone(&core), reader, ReadHalf::new(opener, early));
        (core, driver)
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn wake_driver(&self) {
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

    pub(crate) fn channel_count(&self) -> usize {
        self.table.lock().len()
    }
}

/// How long values, and leave to send, stay with a receiver that stopped waiting, before they go back to a hosted channel
/// for others. A `select!` loop that comes round within this time keeps its place.
pub(crate) const GIVE_BACK_AFTER: Duration = Duration::from_millis(10);
