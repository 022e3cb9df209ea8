//! What a session's program is told of its links: a state to look at, and events to follow.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::error::{SessionEnd, SessionLost};

/// Events of a session kept for a subscriber that does not come to read them; the oldest go first, and it is told how many.
const EVENTS_KEPT: usize = 256;

/// The most of a server that are kept: when a network comes back, so do all its clients at once.
const EVENTS_KEPT_MAX: usize = 65_536;

/// How a session is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// There is a link, or the first is being confirmed.
    Connected,
    /// There is no link at present: sends wait, nothing is lost, and a new one is on its way.
    Suspended,
    /// The session is over.
    Gone(SessionEnd),
}

/// Something that happened to a session. Each comes after the data that was received before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// There is a session: the first, or after [`Gone`](Self::Gone) a new one with the same server.
    Connected,
    /// The link is gone; the session waits for another.
    Suspended {
        /// What became of the link, for people.
        reason: String,
    },
    /// A new link has taken the place of the last, and every channel goes on where it was.
    Resumed,
    /// The session is lost, or over. A session that was dialed and found its server started anew goes on as another one:
    /// [`Connected`](Self::Connected) follows then.
    Gone(SessionEnd),
    /// After a loss, a channel was opened again by its name, as its [`LossPolicy`](crate::LossPolicy) says.
    Reopened {
        /// The channel's name.
        channel: String,
    },
    /// After a loss, a channel could not be opened again; its handles say so.
    NotReopened {
        /// The channel's name.
        channel: String,
        /// Why, for people.
        reason: String,
    },
    /// The subscriber was slow, and this many events were dropped before it could read them. A new subscription starts with
    /// how things are.
    Missed(u64),
}

impl fmt::Display for SessionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Suspended { reason } => write!(f, "suspended: {reason}"),
            Self::Resumed => f.write_str("resumed"),
            Self::Gone(end) => write!(f, "gone: {end}"),
            Self::Reopened { channel } => write!(f, "channel {channel:?} opened again"),
            Self::NotReopened { channel, reason } => {
                write!(f, "channel {channel:?} could not be opened again: {reason}")
            }
            Self::Missed(count) => write!(f, "{count} events were missed"),
        }
    }
}

/// What a session has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Links the session has had, the present one included.
    pub links: u64,
    /// Links that took the place of one that was lost, or that had served its time.
    pub resumes: u64,
    /// Values that this end sealed again because a link was lost before the peer had them.
    pub values_replayed: u64,
    /// Bytes of values that have arrived here and that nobody has taken, give or take some kilobytes for each channel
    /// ([`Limits::kept_bytes_per_session_max`](crate::Limits::kept_bytes_per_session_max)).
    pub kept_bytes: u64,
    /// Bytes read, handshakes not counted.
    pub bytes_in: u64,
    /// Bytes written, handshakes not counted.
    pub bytes_out: u64,
    /// How long the peer last took to answer, measured when a link begins and whenever it has been silent for
    /// [`Config::keepalive_idle`](crate::Config::keepalive_idle); `None` before the first answer.
    pub round_trip: Option<Duration>,
}

/// Something a stream of events can tell that it left out others.
pub(crate) trait Lossy: Clone {
    fn missed(count: u64) -> Self;
}

impl Lossy for SessionEvent {
    fn missed(count: u64) -> Self {
        Self::Missed(count)
    }
}

/// A subscription to events. It starts with what holds when it is made.
pub struct Events<E> {
    first: VecDeque<E>,
    receiver: Option<broadcast::Receiver<E>>,
}

#[allow(private_bounds)]
impl<E: Lossy> Events<E> {
    /// The next event; `None` once there will be no more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv(&mut self) -> Option<E> {
        if let Some(event) = self.first.pop_front() {
            return Some(event);
        }
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(E::missed(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// Sends events to whoever has subscribed; costs nothing while nobody has.
pub(crate) struct Publisher<E> {
    subscribers: Mutex<Subscribers<E>>,
    kept: usize,
}

enum Subscribers<E> {
    None,
    Some(broadcast::Sender<E>),
    /// There will be no more events.
    Closed,
}

impl<E: Clone> Publisher<E> {
    /// Keeps so many events for a subscriber that is slow.
    pub(crate) fn new(kept: usize) -> Self {
        let kept = kept.clamp(EVENTS_KEPT, EVENTS_KEPT_MAX);
        Self { subscribers: Mutex::new(Subscribers::None), kept }
    }

    pub(crate) fn publish(&self, event: E) {
        self.change(|| (), Some(event));
    }

    /// Calls `change` and publishes the event, in one step for subscribers.
    pub(crate) fn change(&self, change: impl FnOnce(), event: Option<E>) {
        let subscribers = self.subscribers.lock();
        change();
        if let (Subscribers::Some(sender), Some(event)) = (&*subscribers, event) {
            // Nobody may be listening any more.
            _ = sender.send(event);
        }
    }

    /// A subscription that starts with what `now` says, which is asked in one step with subscribing.
    pub(crate) fn subscribe(&self, now: impl FnOnce() -> VecDeque<E>) -> Events<E> {
        let mut subscribers = self.subscribers.lock();
        if matches!(*subscribers, Subscribers::None) {
            *subscribers = Subscribers::Some(broadcast::Sender::new(self.kept));
        }
        let receiver = match &*subscribers {
            Subscribers::Some(sender) => Some(sender.subscribe()),
            Subscribers::None | Subscribers::Closed => None,
        };
        Events { first: now(), receiver }
    }

    /// There will be no more events.
    pub(crate) fn close(&self) {
        *self.subscribers.lock() = Subscribers::Closed;
    }
}

/// A session's state and events.
pub(crate) struct Board {
    state: watch::Sender<SessionState>,
    events: Publisher<SessionEvent>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(SessionState::Connected), events: Publisher::new(EVENTS_KEPT) }
    }

    pub(crate) fn state(&self) -> SessionState {
        self.state.borrow().clone()
    }

    /// The session does differently now, and subscribers are told, if anything: in one step.
    pub(crate) fn change(&self, state: SessionState, event: Option<SessionEvent>) {
        self.events.change(|| _ = self.state.send_replace(state), event);
    }

    pub(crate) fn publish(&self, event: SessionEvent) {
        self.events.publish(event);
    }

    pub(crate) fn subscribe(&self) -> Events<SessionEvent> {
        self.events.subscribe(|| {
            let now = match self.state() {
                SessionState::Connected => SessionEvent::Connected,
                SessionState::Suspended => {
                    SessionEvent::Suspended { reason: "before this subscription".to_owned() }
                }
                SessionState::Gone(end) => SessionEvent::Gone(end),
            };
            VecDeque::from([now])
        })
    }

    /// The session is over: this event is the last.
    pub(crate) fn finish(&self, end: SessionEnd) {
        self.change(SessionState::Gone(end.clone()), Some(SessionEvent::Gone(end)));
        self.events.close();
    }

    pub(crate) async fn wait_connected(&self) -> Result<(), SessionLost> {
        let mut state = self.state.subscribe();
        // The sender lives in `self`.
        let reached = state.wait_for(|state| *state != SessionState::Suspended).await;
        match reached.as_deref() {
            Ok(SessionState::Gone(end)) => Err(SessionLost(end.clone())),
            _ => Ok(()),
        }
    }
}
