//! Opening channels toward the peer, and answering the peer's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchan_proto::channel::{RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::hosted::{ReceiverKey, SenderKey};
use netchan_proto::id::ChannelId;
use netchan_proto::session::{OpenError, OpenRequest};
use netchan_proto::wire::{Accept, Mode, Open, OpenFlow, Refuse, RefuseCode};
use tokio::sync::oneshot;

use super::lost::Reopen;
use super::state::SessionEvent;
use super::{Chan, RecvChan, RecvHandle, SendChan, SendHandle, SessionCore};
use crate::error::SessionEnd;
use crate::hub::Hub;
use crate::options::LossPolicy;

/// How often a channel that is opened again may be refused because nobody hosts or takes it yet: with the pauses between,
/// about half a minute after the server's start.
const REFUSALS_MAX: u32 = 12;

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
}

/// Why nothing was opened.
pub(crate) enum OpenFailure {
    Here(OpenError),
    Refused(Refuse),
    TimedOut,
    Lost(SessionEnd),
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
    pub(super) fn failed(self, core: &Arc<SessionCore>, failure: OpenFailure) {
        match self {
            Self::Caller(_, answer) => _ = answer.send(Err(failure)),
            Self::Reopening(chan, refusals) => {
                if let OpenFailure::Refused(refuse) = &failure
                    && matches!(refuse.code, RefuseCode::NotAvailable | RefuseCode::Declined)
                    && refusals < REFUSALS_MAX
                {
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
        let id = {
            let mut opening = self.core.opening.lock();
            let id = opening.iter().find(|(_, opening)| mine(&opening.asker)).map(|(id, _)| *id);
            id.filter(|id| opening.remove(id).is_some())
        };
        if let Some(id) = id {
            self.core.with_control(|c| c.abandon(id));
        }
    }
}

impl SessionCore {
    /// Opens a channel toward the peer and waits for the answer. Dropped before, the channel is given up.
    pub(crate) async fn open(self: &Arc<Self>, spec: OpenSpec) -> Result<Opened, OpenFailure> {
        let lost = || self.end.get().cloned().unwrap_or(SessionEnd::ClosedHere);
        let (answer, answered) = oneshot::channel();
        let caller = self.callers.fetch_add(1, Ordering::Relaxed);
        let asker = Asker::Caller(caller, answer);
        self.ask(Opening { spec, asker }).map_err(|failed| OpenFailure::Here(failed.1))?;
        let abandon = Abandon { core: self, caller };
        if self.end.get().is_some() {
            return Err(OpenFailure::Lost(lost()));
        }
        let opened = tokio::time::timeout(self.limits.open_timeout, answered).await;
        drop(abandon);
        match opened {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OpenFailure::Lost(lost())),
            Err(_) => Err(OpenFailure::TimedOut),
        }
    }

    /// Asks the peer for a channel.
    pub(super) fn ask(self: &Arc<Self>, opening: Opening) -> Result<(), Box<(Opening, OpenError)>> {
        {
            let mut control = self.control.lock();
            let spec = &opening.spec;
            let receives = spec.direction == Direction::Receive;
            let request = OpenRequest {
                name: spec.name.to_string(),
                label: spec.label.clone(),
                codec: spec.codec.clone(),
                fingerprint: spec.fingerprint,
                flow: if receives { OpenFlow::OpenerReceives } else { OpenFlow::OpenerSends },
                capacity: if receives { spec.capacity } else { 0 },
                limit_bytes: if receives { self.limits.window_bytes } else { 0 },
            };
            let id = match control.open(request) {
                Ok(id) => id,
                Err(error) => return Err(Box::new((opening, error))),
            };
            // Registered before the answer can be read: the driver needs the control lock for that.
            self.opening.lock().insert(id, opening);
        }
        if let Some(end) = self.end.get() {
            // Nobody will answer, and what stays here would keep the session in memory for good.
            self.drop_openings(end);
        }
        self.kick(true, true);
        Ok(())
    }

    /// The peer accepted: the half must be in place before the next record is read.
    pub(super) fn opened(self: &Arc<Self>, open: &Open, accept: &Accept) {
        let opening = self.opening.lock().remove(&open.id);
        let prefetch = opening.as_ref().map_or(0, |opening| opening.spec.prefetch);
        let send_half = || SendHalf::new(open.id, &SendOptions::accepted(accept, self.message_bytes_max()));
        let recv_half = || {
            let kind = match accept.mode {
                Mode::Demand => WindowKind::Demand { prefetch },
                Mode::Rendezvous => WindowKind::Rendezvous,
                Mode::Credit | Mode::Lease => WindowKind::Fixed { capacity: open.capacity },
            };
            RecvHalf::new(open.id, &self.recv_options(kind))
        };
        if let Some(Opening { asker: Asker::Reopening(chan, _), spec }) = &opening {
            // In the table first, so that what it writes is found there.
            match chan {
                Chan::Send(sender) => sender.reopened(send_half(), || self.insert(chan.clone())),
                Chan::Recv(receiver) => receiver.reopened(recv_half(), || self.insert(chan.clone())),
            }
            self.board.publish(SessionEvent::Reopened { channel: spec.name.to_string() });
            return;
        }
        let (name, reopen, answer) = match opening {
            Some(Opening { spec, asker: Asker::Caller(_, answer) }) => {
                let reopen =
                    self.redial.is_some().then(|| Reopen { policy: spec.on_loss, spec: spec.clone() });
                (spec.name, reopen, Some(answer))
            }
            // Whoever asked has gone; the half is made all the same, and its handle closes it.
            _ => (Arc::from(open.name.as_str()), None, None),
        };
        let opened = match open.flow {
            OpenFlow::OpenerSends => {
                Opened::Send(SendHandle::new(self.insert_send(name, send_half(), None, reopen)))
            }
            OpenFlow::OpenerReceives => {
                let chan = self.insert_recv(name, recv_half(), None, reopen);
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

    fn recv_options(&self, kind: WindowKind) -> RecvOptions {
        RecvOptions {
            kind,
            window_bytes: self.limits.window_bytes,
            window_bytes_max: self.limits.window_bytes_max,
            message_bytes_max: self.message_bytes_max(),
        }
    }

    fn insert_send(
        self: &Arc<Self>,
        name: Arc<str>,
        half: SendHalf,
        hub: Option<(Arc<Hub>, ReceiverKey)>,
        reopen: Option<Reopen>,
    ) -> Arc<SendChan> {
        let chan = SendChan::new(self, name, half, hub, reopen);
        self.insert(Chan::Send(Arc::clone(&chan)));
        chan
    }

    fn insert_recv(
        self: &Arc<Self>,
        name: Arc<str>,
        half: RecvHalf,
        hub: Option<(Arc<Hub>, SenderKey)>,
        reopen: Option<Reopen>,
    ) -> Arc<RecvChan> {
        let chan = RecvChan::new(self, name, half, hub, reopen);
        self.insert(Chan::Recv(Arc::clone(&chan)));
        chan
    }

    fn insert(self: &Arc<Self>, chan: Chan) {
        self.table.lock().insert(chan.id(), chan.clone());
        // The session may have ended between the look at `end` and the insertion.
        if let Some(end) = self.end.get() {
            self.table.lock().remove(&chan.id());
            match &chan {
                Chan::Send(chan) => chan.ended(end),
                Chan::Recv(chan) => chan.ended(end),
            }
        }
    }

    /// `life` is that of the session in which the channel was offered.
    fn answer(self: &Arc<Self>, accept: Accept, life: u64) -> bool {
        let id = accept.id;
        let accepted = {
            let mut control = self.control.lock();
            // The next session numbers its channels anew.
            life == self.life() && control.accept(accept)
        };
        if !accepted {
            self.table.lock().remove(&id);
        }
        self.kick(true, true);
        accepted
    }

    /// Accepts a channel into which this end sends. `None` when its opener has given it up.
    pub(crate) fn accept_send(self: &Arc<Self>, open: &Open, life: u64) -> Option<SendHandle> {
        let mode = if open.capacity == 0 { Mode::Rendezvous } else { Mode::Credit };
        let options = SendOptions {
            mode,
            capacity: open.capacity,
            limit_bytes: open.limit_bytes,
            message_bytes_max: self.message_bytes_max(),
        };
        let half = SendHalf::new(open.id, &options);
        let chan = self.insert_send(Arc::from(open.name.as_str()), half, None, None);
        let handle = SendHandle::new(chan);
        self.answer(Accept { id: open.id, mode, capacity: open.capacity, limit_bytes: 0 }, life)
            .then_some(handle)
    }

    /// Accepts a channel from which this end receives. `None` when its opener has given it up.
    pub(crate) fn accept_recv(self: &Arc<Self>, open: &Open, capacity: u64, life: u64) -> Option<RecvHandle> {
        let (mode, kind) = match capacity {
            0 => (Mode::Rendezvous, WindowKind::Rendezvous),
            _ => (Mode::Credit, WindowKind::Fixed { capacity }),
        };
        let half = RecvHalf::new(open.id, &self.recv_options(kind));
        let handle = RecvHandle::new(self.insert_recv(Arc::from(open.name.as_str()), half, None, None));
        let limit_bytes = self.limits.window_bytes;
        self.answer(Accept { id: open.id, mode, capacity, limit_bytes }, life).then_some(handle)
    }

    /// Accepts a remote sender into a hosted channel.
    pub(crate) fn accept_hosted_sender(self: &Arc<Self>, open: &Open, hub: &Arc<Hub>) {
        let Some(key) = hub.new_sender() else {
            return self.refuse(open.id, RefuseCode::NotAvailable, "the channel is closed");
        };
        let (mode, kind) = match hub.capacity() {
            0 => (Mode::Rendezvous, WindowKind::Rendezvous),
            _ => (Mode::Lease, WindowKind::Lease),
        };
        let half = RecvHalf::new(open.id, &self.recv_options(kind));
        let chan = self.insert_recv(Arc::from(open.name.as_str()), half, Some((Arc::clone(hub), key)), None);
        hub.attach_sender(key, &chan);
        let limit_bytes = self.limits.window_bytes;
        let accept = Accept { id: open.id, mode, capacity: hub.capacity(), limit_bytes };
        if !self.answer(accept, self.life()) {
            hub.remove_remote_sender(key);
        }
        if self.end.get().is_some() {
            // It may have ended before the channel was attached.
            hub.remove_remote_sender(key);
        }
    }

    /// Accepts a remote receiver of a hosted channel.
    pub(crate) fn accept_hosted_receiver(self: &Arc<Self>, open: &Open, hub: &Arc<Hub>) {
        let Some(key) = hub.new_receiver() else {
            return self.refuse(open.id, RefuseCode::NotAvailable, "the channel is closed");
        };
        let options = SendOptions {
            mode: Mode::Demand,
            capacity: hub.capacity(),
            limit_bytes: open.limit_bytes,
            message_bytes_max: self.message_bytes_max(),
        };
        let half = SendHalf::new(open.id, &options);
        let chan = self.insert_send(Arc::from(open.name.as_str()), half, Some((Arc::clone(hub), key)), None);
        hub.attach_receiver(key, &chan);
        let accept = Accept { id: open.id, mode: Mode::Demand, capacity: hub.capacity(), limit_bytes: 0 };
        if !self.answer(accept, self.life()) {
            hub.remove_receiver(key, 0);
        }
        if self.end.get().is_some() {
            hub.remove_receiver(key, 0);
        }
    }

    pub(crate) fn refuse(self: &Arc<Self>, id: ChannelId, code: RefuseCode, reason: impl Into<String>) {
        self.with_control(|c| c.refuse(id, code, reason.into()));
    }

    /// As [`refuse`](Self::refuse), for what was offered in the session of that life.
    pub(crate) fn decline(self: &Arc<Self>, id: ChannelId, life: u64, code: RefuseCode, reason: String) {
        self.with_control(|c| {
            if life == self.life() {
                c.refuse(id, code, reason);
            }
        });
    }

    pub(crate) fn is_offered(&self, id: ChannelId, life: u64) -> bool {
        let control = self.control.lock();
        life == self.life() && control.is_offered(id)
    }
}
