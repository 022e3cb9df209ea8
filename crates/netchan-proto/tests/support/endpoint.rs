//! One end of a session in one thread: halves in maps, a ready queue in which each channel stands once, an event log.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use netchan_proto::channel::{RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::session::{Control, ControlLimits, Event, Host, OpenRequest};
use netchan_proto::wire::{Accept, Mode, Open, OpenFlow, Purpose};

pub const WINDOW_BYTES: u64 = 40_000;
pub const MESSAGE_BYTES_MAX: usize = 200_000;

type Hook = Box<dyn Fn(&Endpoint)>;

/// One end.
pub struct Endpoint {
    pub control: RefCell<Control>,
    pub senders: RefCell<BTreeMap<ChannelId, SendHalf>>,
    pub receivers: RefCell<BTreeMap<ChannelId, RecvHalf>>,
    /// Halves of finished channels, as they were at their end.
    pub ended_senders: RefCell<BTreeMap<ChannelId, SendHalf>>,
    pub ended_receivers: RefCell<BTreeMap<ChannelId, RecvHalf>>,
    ready: RefCell<(VecDeque<ChannelId>, BTreeSet<ChannelId>)>,
    pub events: RefCell<VecDeque<Event>>,
    /// Channels whose end was told by an event.
    told: RefCell<BTreeSet<ChannelId>>,
    pub names: RefCell<BTreeMap<ChannelId, String>>,
    /// Demand: values wanted ahead.
    pub prefetch: Cell<u64>,
    /// Runs once, between the control frames and the channels of a fill: what another thread could do there.
    pub between: RefCell<Option<Hook>>,
}

pub fn recv_options(kind: WindowKind) -> RecvOptions {
    RecvOptions {
        kind,
        window_bytes: WINDOW_BYTES,
        window_bytes_max: 2 * WINDOW_BYTES,
        message_bytes_max: MESSAGE_BYTES_MAX,
    }
}

fn kind(mode: Mode, capacity: u64, prefetch: u64) -> WindowKind {
    match mode {
        Mode::Credit | Mode::Cast => WindowKind::Fixed { capacity },
        Mode::Rendezvous => WindowKind::Rendezvous,
        Mode::Lease => WindowKind::Lease,
        Mode::Demand => WindowKind::Demand { prefetch, ahead: 0 },
    }
}

pub fn request(name: &str, flow: OpenFlow) -> OpenRequest {
    OpenRequest {
        name: name.to_owned(),
        label: "bytes".to_owned(),
        codec: "raw".to_owned(),
        fingerprint: None,
        flow,
        purpose: Purpose::Values,
        capacity: 0,
        limit_bytes: if flow == OpenFlow::OpenerReceives { WINDOW_BYTES } else { 0 },
    }
}

impl Endpoint {
    pub fn new(side: Side) -> Self {
        Self::with_limits(side, ControlLimits::default())
    }

    pub fn with_limits(side: Side, limits: ControlLimits) -> Self {
        Self {
            control: RefCell::new(Control::new(side, limits)),
            senders: RefCell::default(),
            receivers: RefCell::default(),
            ended_senders: RefCell::default(),
            ended_receivers: RefCell::default(),
            ready: RefCell::default(),
            events: RefCell::default(),
            told: RefCell::default(),
            names: RefCell::default(),
            prefetch: Cell::new(0),
            between: RefCell::default(),
        }
    }

    pub fn open(&self, name: &str, flow: OpenFlow) -> ChannelId {
        let id = self.control.borrow_mut().open(request(name, flow)).expect("room for a channel");
        self.names.borrow_mut().insert(id, name.to_owned());
        id
    }

    /// Accepts an offer; false when it has been withdrawn.
    pub fn accept(&self, open: &Open, mode: Mode, capacity: u64) -> bool {
        let receives = open.flow == OpenFlow::OpenerSends;
        let limit_bytes = if receives { WINDOW_BYTES } else { 0 };
        let accept = Accept { id: open.id, mode, capacity, limit_bytes };
        if !self.control.borrow().is_offered(open.id) {
            return false;
        }
        self.names.borrow_mut().insert(open.id, open.name.clone());
        self.make_half(open, &accept, receives);
        assert!(self.control.borrow_mut().accept(accept));
        self.set_ready(open.id);
        true
    }

    fn make_half(&self, open: &Open, accept: &Accept, receives: bool) {
        let Accept { id, mode, capacity, .. } = *accept;
        if receives {
            let half = RecvHalf::new(id, &recv_options(kind(mode, capacity, self.prefetch.get())));
            assert!(self.receivers.borrow_mut().insert(id, half).is_none(), "{id} twice");
        } else {
            let limit_bytes =
                if open.flow == OpenFlow::OpenerReceives { open.limit_bytes } else { accept.limit_bytes };
            let options = SendOptions { mode, capacity, limit_bytes, message_bytes_max: MESSAGE_BYTES_MAX };
            assert!(
                self.senders.borrow_mut().insert(id, SendHalf::new(id, &options)).is_none(),
                "{id} twice"
            );
        }
    }

    /// The id of the channel of this name, once it is known here.
    pub fn id(&self, name: &str) -> Option<ChannelId> {
        self.names.borrow().iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
    }

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

    pub fn take_events(&self) -> VecDeque<Event> {
        std::mem::take(&mut self.events.borrow_mut())
    }

    /// The next event that `pick` wants; what comes before it stays.
    pub fn take_event<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let mut events = self.events.borrow_mut();
        let at = events.iter().position(|event| pick(event).is_some())?;
        events.remove(at).and_then(|event| pick(&event))
    }

    pub fn take_incoming(&self) -> Option<Open> {
        self.take_event(|event| if let Event::Incoming(open) = event { Some(open.clone()) } else { None })
    }

    pub fn send<R>(&self, id: ChannelId, f: impl FnOnce(&mut SendHalf) -> R) -> R {
        let result = f(self.senders.borrow_mut().get_mut(&id).expect("a sender"));
        self.set_ready(id);
        result
    }

    pub fn recv<R>(&self, id: ChannelId, f: impl FnOnce(&mut RecvHalf) -> R) -> R {
        let result = f(self.receivers.borrow_mut().get_mut(&id).expect("a receiver"));
        self.set_ready(id);
        result
    }
}

impl Host for Endpoint {
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
        if let Some(hook) = self.between.take() {
            hook(self);
        }
        let mut ready = self.ready.borrow_mut();
        let id = ready.0.pop_front()?;
        ready.1.remove(&id);
        Some(id)
    }

    fn set_ready(&self, id: ChannelId) {
        // From here on another thread may write the channel's last word and forget it: who waits must have been told.
        let closed = self.receivers.borrow().get(&id).is_some_and(|half| half.peer_closed().is_some())
            || self.senders.borrow().get(&id).is_some_and(|half| half.peer_closed().is_some());
        assert!(!closed || self.told.borrow().contains(&id), "{id} is made ready before its end is told");
        let mut ready = self.ready.borrow_mut();
        if ready.1.insert(id) {
            ready.0.push_back(id);
        }
    }

    fn event(&self, event: Event) {
        // No lock of the session is held: every cell can be had.
        let _locks = (self.control.borrow_mut(), self.senders.borrow_mut(), self.receivers.borrow_mut());
        drop(_locks);
        match &event {
            Event::Opened { open, accept } => {
                self.make_half(open, accept, open.flow == OpenFlow::OpenerReceives);
            }
            Event::Readable(id) | Event::Writable(id) => _ = self.told.borrow_mut().insert(*id),
            Event::Finished(id) => {
                if let Some(half) = self.senders.borrow_mut().remove(id) {
                    self.ended_senders.borrow_mut().insert(*id, half);
                }
                if let Some(half) = self.receivers.borrow_mut().remove(id) {
                    self.ended_receivers.borrow_mut().insert(*id, half);
                }
            }
            _ => {}
        }
        self.events.borrow_mut().push_back(event);
    }
}
