//! Opening channels toward the peer.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchan_proto::channel::{RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::id::ChannelId;
use netchan_proto::session::{OpenError, OpenRequest};
use netchan_proto::wire::{Accept, Mode, Open, OpenFlow, Purpose, Refuse, RefuseCode};
use tokio::sync::oneshot;

use super::lost::Reopen;
use super::state::{SessionEvent, SessionState};
use super::{Chan, Owner, Ownership, RecvChan, RecvHandle, SendChan, SendHandle, SessionCore};
use crate::account::Account;
use crate::error::SessionEnd;
use crate::options::LossPolicy;

/// How often a channel that is opened again may be refused because nobody hosts or takes it yet: with the pauses between,
/// about half a minute after the server's start.
pub(crate) const REFUSALS_MAX: u32 = 12;

/// Which half is wanted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Send,
    Receive,
}

/// What is to be opened.
#[derive(Clone)]
pub(crate) struct OpenSpec {
    pub(crate) name: Arc<str>,
    pub(crate) label: String,
    pub(crate) codec: String,
    pub(crate) fingerprint: Option<[u8; 16]>,
    pub(crate) direction: Direction,
    pub(crate) capacity: u64,
    pub(crate) prefetch: u64,
    pub(crate) on_loss: LossPolicy,
    pub(crate) purpose: Purpose,
    /// What is to be at this end in place of the program, from the first value on.
    pub(crate) owner: Option<Arc<dyn Owner>>,
}

/// Why nothing was opened.
pub(crate) enum OpenFailure {
    Here(OpenError),
    Refused(Refuse),
    TimedOut,
    Lost(SessionEnd),
}

impl OpenFailure {
    /// Whether the same may work later, with a server that has just started.
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused(refuse) => matches!(
                refuse.code,
                RefuseCode::NotAvailable | RefuseCode::Declined | RefuseCode::LimitReached
            ),
            Self::TimedOut => true,
            Self::Here(_) | Self::Lost(_) => false,
        }
    }
}

/// The half that was opened.
pub(crate) enum Opened {
    Send(SendHandle),
    Recv(RecvHandle),
}

/// A channel that was asked for and is not answered.
pub(super) struct Opening {
    pub(super) spec: OpenSpec,
    pub(super) asker: Asker,
    /// It has been answered, and is being put in place.
    pub(super) answered: bool,
}

impl Opening {
    /// The channel that is to be opened again.
    pub(super) fn chan(&self) -> Option<&Chan> {
        match &self.asker {
            Asker::Reopening(chan, _) => Some(chan),
            Asker::Caller(..) => None,
        }
    }
}

/// Who asked.
pub(super) enum Asker {
    /// A caller that waits, known by a number of its own: when a session is lost, it is asked for under another id.
    Caller(u64, oneshot::Sender<Result<Opened, OpenFailure>>),
    /// A channel whose session was lost, and how often it has been refused since.
    Reopening(Chan, u32),
}

impl Asker {
    /// Whether it does not wait any more.
    pub(super) fn has_left(&self) -> bool {
        matches!(self, Self::Caller(_, answer) if answer.is_closed())
    }

    pub(super) fn failed(self, core: &Arc<SessionCore>, failure: OpenFailure) {
        match self {
            Self::Caller(_, answer) => _ = answer.send(Err(failure)),
            Self::Reopening(chan, refusals) => {
                if failure.may_pass() && refusals < REFUSALS_MAX {
                    return core.reopen_later(chan, refusals + 1);
                }
                let reason = match failure {
                    OpenFailure::Here(error) => error.to_string(),
                    OpenFailure::Refused(refuse) => format!("{:?}: {}", refuse.code, refuse.reason),
                    OpenFailure::TimedOut => "nobody answered".to_owned(),
                    OpenFailure::Lost(end) => end.to_string(),
                };
                core.not_reopened(&chan, reason);
            }
        }
    }
}

/// Gives the channel up when whoever asked for it stops waiting.
struct Abandon<'a> {
    core: &'a Arc<SessionCore>,
    caller: u64,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let mine = |asker: &Asker| matches!(asker, Asker::Caller(caller, _) if *caller == self.caller);
        _ = self.core.abandon(|_, opening| mine(&opening.asker));
    }
}

impl SessionCore {
    /// Opens a channel toward the peer and waits for the answer. Dropped before, the channel is given up.
    pub(crate) async fn open(self: &Arc<Self>, spec: OpenSpec) -> Result<Opened, OpenFailure> {
        let lost = || self.end.get().cloned().unwrap_or(SessionEnd::ClosedHere);
        let (answer, answered) = oneshot::channel();
        let caller = self.callers.fetch_add(1, Ordering::Relaxed);
        let asker = Asker::Caller(caller, answer);
        self.ask(Opening { spec, asker, answered: false }).map_err(|failed| OpenFailure::Here(failed.1))?;
        let abandon = Abandon { core: self, caller };
        if self.end.get().is_some() {
            return Err(OpenFailure::Lost(lost()));
        }
        let mut answered = pin!(answered);
        let opened = loop {
            let opened = tokio::time::timeout(self.limits.open_timeout, answered.as_mut()).await;
            // Without a link there is no telling whether there would be an answer.
            if opened.is_ok() || self.state() != SessionState::Suspended {
                break opened;
            }
        };
        drop(abandon);
        match opened {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OpenFailure::Lost(lost())),
            Err(_) => Err(OpenFailure::TimedOut),
        }
    }

    /// Gives up the first of the channels asked for that `matches`, unless it has been answered.
    fn abandon(self: &Arc<Self>, matches: impl Fn(ChannelId, &Opening) -> bool) -> Option<Opening> {
        self.with_control(|control| {
            let mut asked = self.opening.lock();
            let open = |(id, opening): &(&ChannelId, &Opening)| !opening.answered && matches(**id, opening);
            let id = asked.iter().find(open).map(|(id, _)| *id)?;
            control.abandon(id);
            asked.remove(&id)
        })
    }

    /// A channel that was asked for again is to be answered in time, as one that a caller waits for.
    pub(super) async fn expect_answer(self: Arc<Self>, id: ChannelId, life: u64) {
        loop {
            let ended = tokio::time::timeout(self.limits.open_timeout, self.wait_ended()).await.is_ok();
            if ended || self.life() != life {
                return;
            }
            // Without a link there is no telling whether there would be an answer.
            if self.state() != SessionState::Suspended {
                break;
            }
        }
        let reopening = |asker: &Asker| matches!(asker, Asker::Reopening(..));
        let late =
            self.abandon(|other, opening| other == id && self.life() == life && reopening(&opening.asker));
        if let Some(late) = late {
            late.asker.failed(&self, OpenFailure::TimedOut);
        }
    }

    /// Asks the peer for a channel, under the id that is returned, in the life that is returned with it.
    pub(super) fn ask(
        self: &Arc<Self>,
        opening: Opening,
    ) -> Result<(ChannelId, u64), Box<(Opening, OpenError)>> {
        let asked = {
            let mut control = self.control.lock();
            let spec = &opening.spec;
            let receives = spec.direction == Direction::Receive;
            let request = OpenRequest {
                name: spec.name.to_string(),
                label: spec.label.clone(),
                codec: spec.codec.clone(),
                fingerprint: spec.fingerprint,
                purpose: spec.purpose,
                flow: if receives { OpenFlow::OpenerReceives } else { OpenFlow::OpenerSends },
                capacity: if receives { spec.capacity } else { 0 },
                limit_bytes: if receives { self.first_window() } else { 0 },
            };
            let id = match control.open(request) {
                Ok(id) => id,
                Err(error) => return Err(Box::new((opening, error))),
            };
            // Registered before the answer can be read: the driver needs the control lock for that. One that waited to be
            // opened again stands here from now on, and not there any more: a refusal would put it back.
            let waited = opening.chan().cloned();
            self.opening.lock().insert(id, opening);
            if let Some(chan) = waited {
                self.take_reopening(&chan);
            }
            (id, self.life())
        };
        if let Some(end) = self.end.get() {
            // Nobody will answer, and what stays here would keep the session in memory for good.
            self.drop_openings(end);
        }
        self.kick(true, true);
        Ok(asked)
    }

    /// The peer accepted: the half must be in place before the next record is read.
    pub(super) fn opened(self: &Arc<Self>, open: &Open, accept: &Accept) {
        // One that is opened again stays listed until it is in the table, so that at no time it is in neither.
        let again = self.opening.lock().get_mut(&open.id).and_then(|opening| {
            let chan = opening.chan().cloned()?;
            opening.answered = true;
            Some((chan, opening.spec.clone()))
        });
        let opening = if again.is_some() { None } else { self.opening.lock().remove(&open.id) };
        let spec = again.as_ref().map(|(_, spec)| spec).or(opening.as_ref().map(|opening| &opening.spec));
        let prefetch = spec.map_or(0, |spec| spec.prefetch);
        let longest = self.longest_message(open.purpose, accept.mode);
        let send_half = || SendHalf::new(open.id, &SendOptions::accepted(accept, longest));
        let recv_half = || {
            let kind = match accept.mode {
                Mode::Demand => WindowKind::Demand { prefetch, ahead: open.ahead_max() },
                Mode::Rendezvous => WindowKind::Rendezvous,
                Mode::Credit | Mode::Lease => WindowKind::Fixed { capacity: open.capacity },
                Mode::Cast => WindowKind::Fixed { capacity: accept.capacity },
            };
            let options =
                RecvOptions { message_bytes_max: longest, ..self.recv_options(kind, open.limit_bytes) };
            let mut half = RecvHalf::new(open.id, &options);
            if open.purpose == Purpose::Deliveries {
                // Acknowledgements say what was taken.
                half.set_lazy();
            }
            half
        };
        if let Some((chan, spec)) = &again {
            // In the table first, so that what it writes is found there.
            match chan {
                Chan::Send(sender) => sender.reopened(send_half(), || self.insert(chan.clone())),
                Chan::Recv(receiver) => {
                    let is_cast = accept.mode == Mode::Cast;
                    receiver.reopened(recv_half(), is_cast, || self.insert(chan.clone()));
                }
            }
            self.opening.lock().remove(&open.id);
            self.board.publish(SessionEvent::Reopened { channel: spec.name.to_string() });
            return;
        }
        let (name, ownership, answer) = match opening {
            Some(Opening { spec, asker: Asker::Caller(_, answer), .. }) => {
                let ownership = match &spec.owner {
                    Some(owner) => Ownership::Owned(Arc::clone(owner)),
                    None => Ownership::Program(
                        self.redial.is_some().then(|| Reopen { policy: spec.on_loss, spec: spec.clone() }),
                    ),
                };
                (spec.name, ownership, Some(answer))
            }
            // Whoever asked has gone; the half is made all the same, and its handle closes it.
            _ => (Arc::from(open.name.as_str()), Ownership::Program(None), None),
        };
        let opened = match open.flow {
            OpenFlow::OpenerSends => {
                Opened::Send(SendHandle::new(self.insert_send(name, send_half(), ownership)))
            }
            OpenFlow::OpenerReceives => {
                let chan = self.insert_recv(name, recv_half(), ownership);
                // Nothing is decoded before there is a handle.
                chan.state.lock().is_cast = accept.mode == Mode::Cast;
                if prefetch > 0 {
                    chan.report(Urgency::Soon);
                }
                Opened::Recv(RecvHandle::new(chan))
            }
        };
        if let Some(answer) = answer {
            // A dropped waiter drops the handle, which closes the channel.
            _ = answer.send(Ok(opened));
        }
    }

    pub(super) fn refused(self: &Arc<Self>, refuse: Refuse) {
        let opening = self.opening.lock().remove(&refuse.id);
        if let Some(opening) = opening {
            opening.asker.failed(self, OpenFailure::Refused(refuse));
        }
    }

    /// The session is over: nobody will answer.
    pub(super) fn drop_openings(self: &Arc<Self>, end: &SessionEnd) {
        let openings = std::mem::take(&mut *self.opening.lock());
        for opening in openings.into_values() {
            opening.asker.failed(self, OpenFailure::Lost(end.clone()));
        }
    }

    /// The byte window with which the next channel begins.
    pub(super) fn first_window(&self) -> u64 {
        Account::first_window(self.table.lock().len(), self.limits.window_bytes)
    }

    pub(super) fn recv_options(&self, kind: WindowKind, window_bytes: u64) -> RecvOptions {
        RecvOptions {
            kind,
            window_bytes,
            window_bytes_max: self.limits.window_bytes_max,
            message_bytes_max: self.message_bytes_max(),
        }
    }

    pub(super) fn insert_send(
        self: &Arc<Self>,
        name: Arc<str>,
        half: SendHalf,
        ownership: Ownership,
    ) -> Arc<SendChan> {
        let chan = SendChan::new(self, name, half, ownership);
        self.insert(Chan::Send(Arc::clone(&chan)));
        chan
    }

    pub(super) fn insert_recv(
        self: &Arc<Self>,
        name: Arc<str>,
        half: RecvHalf,
        ownership: Ownership,
    ) -> Arc<RecvChan> {
        let chan = RecvChan::new(self, name, half, ownership);
        self.insert(Chan::Recv(Arc::clone(&chan)));
        chan
    }

    fn insert(self: &Arc<Self>, chan: Chan) {
        self.table.lock().insert(chan.id(), chan.clone());
        self.inserted(&chan);
    }

    /// The session may have ended between the look at `end` and the insertion.
    pub(super) fn inserted(&self, chan: &Chan) {
        if let Some(end) = self.end.get() {
            self.table.lock().remove(&chan.id());
            chan.ended(end);
        }
    }
}
