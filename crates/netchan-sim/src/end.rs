//! One end of a session: control object, halves, a ready queue in which each channel stands once, and what happened.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use netchan_proto::channel::{RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::session::{Control, ControlLimits, Event, Host, OpenRequest};
use netchan_proto::wire::{Accept, Mode, Open, OpenFlow, Purpose};

/// The byte window of every channel: small, so that it runs out.
pub const WINDOW_BYTES: u64 = 30_000;
/// The longest message: some take two records.
pub const MESSAGE_BYTES_MAX: usize = 150_000;

/// One end of a session.
pub struct End {
    /// The control object.
    pub control: RefCell<Control>,
    /// Sending halves.
    pub senders: RefCell<BTreeMap<ChannelId, SendHalf>>,
    /// Receiving halves.
    pub receivers: RefCell<BTreeMap<ChannelId, RecvHalf>>,
    /// Halves of finished channels, as they were at their end.
    pub ended_senders: RefCell<BTreeMap<ChannelId, SendHalf>>,
    /// The same for receiving ones.
    pub ended_receivers: RefCell<BTreeMap<ChannelId, RecvHalf>>,
    ready: RefCell<(VecDeque<ChannelId>, BTreeSet<ChannelId>)>,
    events: RefCell<VecDeque<Event>>,
    /// Values wanted ahead, by channel.
    prefetch: RefCell<BTreeMap<ChannelId, u64>>,
    /// Signs of life that were asked for, and the last one that came.
    probes: Cell<u64>,
    answered: Cell<u64>,
}

fn recv_options(kind: WindowKind) -> RecvOptions {
    RecvOptions {
        kind,
        window_bytes: WINDOW_BYTES,
        window_bytes_max: 2 * WINDOW_BYTES,
        message_bytes_max: MESSAGE_BYTES_MAX,
    }
}

impl End {
    /// An end of a new session.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            control: RefCell::new(Control::new(side, ControlLimits::default())),
            senders: RefCell::default(),
            receivers: RefCell::default(),
            ended_senders: RefCell::default(),
            ended_receivers: RefCell::default(),
            ready: RefCell::default(),
            events: RefCell::default(),
            prefetch: RefCell::default(),
            probes: Cell::default(),
            answered: Cell::default(),
        }
    }

    /// Asks the other end for a sign of life.
    pub fn probe(&self) -> u64 {
        let probe = self.probes.get() + 1;
        self.probes.set(probe);
        self.control.borrow_mut().ping(probe);
        probe
    }

    /// Whether it has answered that. A ping goes with its link, so it is asked again.
    pub fn has_answered(&self, probe: u64) -> bool {
        let answered = self.answered.get() >= probe;
        if !answered {
            self.control.borrow_mut().ping(probe);
        }
        answered
    }

    /// Opens a channel.
    ///
    /// # Panics
    /// When the session has no room, which no run comes near to.
    pub fn open(&self, name: &str, flow: OpenFlow, capacity: u64, prefetch: u64) -> ChannelId {
        self.open_for(Purpose::Values, name, flow, capacity, prefetch)
    }

    /// Opens a channel for something.
    ///
    /// # Panics
    /// As [`End::open`].
    pub fn open_for(
        &self,
        purpose: Purpose,
        name: &str,
        flow: OpenFlow,
        capacity: u64,
        prefetch: u64,
    ) -> ChannelId {
        let receives = flow == OpenFlow::OpenerReceives;
        let request = OpenRequest {
            name: name.to_owned(),
            label: "bytes".to_owned(),
            codec: "raw".to_owned(),
            fingerprint: None,
            flow,
            purpose,
            capacity: if receives { capacity } else { 0 },
            limit_bytes: if receives { WINDOW_BYTES } else { 0 },
        };
        let id = self.control.borrow_mut().open(request).expect("room for a channel");
        self.prefetch.borrow_mut().insert(id, prefetch);
        id
    }

    /// Accepts an offer; false when it has been withdrawn.
    pub fn accept(&self, open: &Open, mode: Mode, capacity: u64) -> bool {
        if !self.control.borrow().is_offered(open.id) {
            return false;
        }
        let receives = open.flow == OpenFlow::OpenerSends;
        let accept =
            Accept { id: open.id, mode, capacity, limit_bytes: if receives { WINDOW_BYTES } else { 0 } };
        self.make_half(open, &accept, receives);
        self.control.borrow_mut().accept(accept);
        self.set_ready(open.id);
        true
    }

    fn make_half(&self, open: &Open, accept: &Accept, receives: bool) {
        let Accept { id, mode, capacity, .. } = *accept;
        if receives {
            let prefetch = self.prefetch.borrow().get(&id).copied().unwrap_or(0);
            let kind = match mode {
                Mode::Credit | Mode::Cast => WindowKind::Fixed { capacity },
                Mode::Rendezvous => WindowKind::Rendezvous,
                Mode::Lease => WindowKind::Lease,
                Mode::Demand => WindowKind::Demand { prefetch, ahead: open.ahead_max() },
            };
            self.receivers.borrow_mut().insert(id, RecvHalf::new(id, &recv_options(kind)));
        } else {
            let from_open = open.flow == OpenFlow::OpenerReceives;
            let limit_bytes = if from_open { open.limit_bytes } else { accept.limit_bytes };
            let mode = if mode == Mode::Cast { Mode::Credit } else { mode };
            let options = SendOptions { mode, capacity, limit_bytes, message_bytes_max: MESSAGE_BYTES_MAX };
            self.senders.borrow_mut().insert(id, SendHalf::new(id, &options));
        }
    }

    /// The link is gone.
    pub fn detach(&self) {
        self.control.borrow_mut().detach();
        self.senders.borrow_mut().values_mut().for_each(SendHalf::detach);
        self.receivers.borrow_mut().values_mut().for_each(RecvHalf::detach);
    }

    /// What a shell does before it goes idle: every half with something to say is ready.
    pub fn mark_ready(&self) {
        for (id, half) in &*self.senders.borrow() {
            if half.has_output() {
                self.set_ready(*id);
            }
        }
        for (id, half) in &*self.receivers.borrow() {
            if half.urgency() > Urgency::None {
                self.set_ready(*id);
            }
        }
    }

    /// What happened since the last call.
    pub fn take_events(&self) -> VecDeque<Event> {
        std::mem::take(&mut self.events.borrow_mut())
    }

    /// Values that have arrived and were not taken, and bytes retained by senders, against their limits (I6).
    ///
    /// # Errors
    /// What exceeds its limit.
    pub fn check_memory(&self) -> Result<(), String> {
        for (id, half) in &*self.receivers.borrow() {
            if let WindowKind::Fixed { capacity } = half.kind()
                && half.ready() > capacity
            {
                return Err(format!("{id} holds {} values with capacity {capacity}", half.ready()));
            }
        }
        // A window that grew to its most, one message that overdraws it, and each value's length.
        let most = 2 * WINDOW_BYTES as usize + MESSAGE_BYTES_MAX + 4_096;
        for (id, half) in &*self.senders.borrow() {
            if half.retained_bytes() > most {
                return Err(format!("{id} retains {} bytes", half.retained_bytes()));
            }
        }
        Ok(())
    }
}

impl Host for End {
    fn with_control<R>(&self, f: impl FnOnce(&mut Control) -> R) -> R {
        f(&mut self.control.borrow_mut())
    }

    fn with_send<R>(&self, id: ChannelId, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R> {
        self.senders.borrow_mut().get_mut(&id).map(f)
    }

    fn with_recv<R>(&self, id: ChannelId, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R> {
        self.receivers.borrow_mut().get_mut(&id).map(f)
    }

    fn next_ready(&self) -> Option<ChannelId> {
        let mut ready = self.ready.borrow_mut();
        let id = ready.0.pop_front()?;
        ready.1.remove(&id);
        Some(id)
    }

    fn set_ready(&self, id: ChannelId) {
        let mut ready = self.ready.borrow_mut();
        if ready.1.insert(id) {
            ready.0.push_back(id);
        }
    }

    fn event(&self, event: Event) {
        match &event {
            Event::Opened { open, accept } => {
                self.make_half(open, accept, open.flow == OpenFlow::OpenerReceives);
            }
            Event::Finished(id) => {
                if let Some(half) = self.senders.borrow_mut().remove(id) {
                    self.ended_senders.borrow_mut().insert(*id, half);
                }
                if let Some(half) = self.receivers.borrow_mut().remove(id) {
                    self.ended_receivers.borrow_mut().insert(*id, half);
                }
            }
            Event::Pong { nonce } => self.answered.set(self.answered.get().max(*nonce)),
            _ => {}
        }
        self.events.borrow_mut().push_back(event);
    }
}
